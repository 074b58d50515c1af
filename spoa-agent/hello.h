/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS ClientHello (RFC 5246, 6066, 8446), read so strictly that no server can read another name in
 * the same bytes: what several implementations might understand differently is malformed. Decides
 * nothing about the name itself. No allocation; the name borrows the caller's bytes.
 *
 * Accepted: exactly one handshake record that holds exactly one ClientHello. Behind it may stand,
 * if the hello offers early data, one compatibility ChangeCipherSpec record and application data
 * records, the last of them possibly cut.
 */
#ifndef CX_HELLO_H
#define CX_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum hello_result {
	HELLO_OK,
	HELLO_INCOMPLETE, /* fine so far, but more bytes must follow */
	HELLO_MALFORMED
};

struct hello {
	const uint8_t
		*sni; /* the one host_name as sent, not checked; NULL: no server_name extension */
	size_t sni_len;
	bool ech; /* an encrypted_client_hello extension, of the RFC or a draft */
	bool early_data;
};

/* *out is undefined unless HELLO_OK. */
enum hello_result hello_parse(struct hello *out, const uint8_t *p, size_t n);

#endif
