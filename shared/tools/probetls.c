/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cx-probe's ClientHellos, honest and hostile, octet by octet. No handshake is ever completed: that
 * anybody answers is the leak.
 */
#include <string.h>

#include "shared/base/bytes.h"
#include "shared/tools/probe.h"

enum { EXT_SNI = 0, EXT_ECH = 0xfe0d, EXT_UNKNOWN = 0xfafa, RECORD_HEADER = 5, FILLER = 16 };

/* Opens a length of two octets; close_length() fills in what was written since. */
static size_t open_length(struct writer *w)
{
	size_t at = w->len;
	wr_be16(w, 0);
	return at;
}

static void close_length(struct writer *w, size_t at, int more)
{
	size_t n = (size_t)((int)(w->len - at - 2) + more);
	if (w->bad)
		return;
	w->p[at] = (uint8_t)(n >> 8);
	w->p[at + 1] = (uint8_t)n;
}

static void host_name(struct writer *w, const char *name, size_t n, size_t said)
{
	wr_u8(w, 0);
	wr_be16(w, (uint16_t)said);
	wr_bytes(w, name, n);
}

static void server_name(struct writer *w, const char *name, size_t n)
{
	wr_be16(w, EXT_SNI);
	size_t ext = open_length(w), list = open_length(w);
	host_name(w, name, n, n);
	close_length(w, list, 0);
	close_length(w, ext, 0);
}

static void two_names(struct writer *w, const char *name, size_t n, const char *second)
{
	wr_be16(w, EXT_SNI);
	size_t ext = open_length(w), list = open_length(w);
	host_name(w, name, n, n);
	host_name(w, second, strlen(second), strlen(second));
	close_length(w, list, 0);
	close_length(w, ext, 0);
}

static void long_name(struct writer *w, const char *name, size_t n)
{
	wr_be16(w, EXT_SNI);
	size_t ext = open_length(w), list = open_length(w);
	host_name(w, name, n, n + 40);
	close_length(w, list, 0);
	close_length(w, ext, 0);
}

/* What a TLS 1.3 server wants besides the name. */
static void usual(struct writer *w)
{
	static const uint8_t fixed[] = {
		0, 10, 0, 4,  0, 2,  0, 0x1d,              /* groups: x25519 */
		0, 13, 0, 8,  0, 6,  4, 3,    8, 4,  8, 5, /* signatures */
		0, 43, 0, 5,  4, 3,  4, 3,    3,           /* versions: 1.3, 1.2 */
		0, 51, 0, 38, 0, 36, 0, 0x1d, 0, 32,       /* a share, which follows */
	};
	wr_bytes(w, fixed, sizeof(fixed));
	for (unsigned i = 0; i < 32; i++)
		wr_u8(w, (uint8_t)(9 + i * 7));
}

static void ech(struct writer *w)
{
	wr_be16(w, EXT_ECH);
	wr_be16(w, 40);
	for (unsigned i = 0; i < 40; i++)
		wr_u8(w, 0);
}

/*
 * A hello that two readers take for two names once it is cut into records behind the fourth octet of
 * the filler: who leaves the second record's header in place, reads it as filler, and an unknown
 * extension then swallows the true name.
 */
static void two_faces(struct writer *w, const char *shown, size_t n, const char *real)
{
	size_t m = strlen(real), ext, outer;
	wr_be16(w, EXT_UNKNOWN);
	outer = open_length(w);
	for (unsigned i = 0; i < FILLER; i++)
		wr_u8(w, 'f');
	wr_be16(w, EXT_UNKNOWN);
	wr_be16(w, (uint16_t)(1 + 4 + 5 + m + 4));
	wr_u8(w, 'x');
	close_length(w, outer, 0);
	server_name(w, real, m);
	wr_be16(w, EXT_UNKNOWN + 1);
	ext = open_length(w);
	server_name(w, shown, n);
	close_length(w, ext, 0);
}

static void names(struct writer *w, enum shape shape, const char *name, size_t n,
		  const char *refused)
{
	switch (shape) {
	case HELLO_NO_SNI:
		return;
	case HELLO_TWO_EXTENSIONS:
		server_name(w, name, n);
		return server_name(w, refused, strlen(refused));
	case HELLO_TWO_REVERSED:
		server_name(w, refused, strlen(refused));
		return server_name(w, name, n);
	case HELLO_TWO_NAMES:
		return two_names(w, name, n, refused);
	case HELLO_LONG_NAME:
		return long_name(w, name, n);
	case HELLO_ECH:
		server_name(w, name, n);
		return ech(w);
	case HELLO_SPLIT:
		return two_faces(w, name, n, refused);
	default:
		server_name(w, name, n);
	}
}

/* The handshake message, without a record around it. */
static void message(struct writer *w, enum shape shape, const char *name, size_t n,
		    const char *refused)
{
	wr_be16(w, 0x0100); /* ClientHello, and the first octet of its length */
	size_t whole = open_length(w);
	wr_be16(w, 0x0303);
	for (unsigned i = 0; i < 32; i++)
		wr_u8(w, (uint8_t)(i * 37 + 11));
	wr_u8(w, 0);            /* no session */
	wr_be32(w, 0x00041301); /* two ciphers */
	wr_be16(w, 0xc02b);
	wr_be16(w, 0x0100); /* one compression: none */
	size_t extensions = open_length(w);
	names(w, shape, name, n, refused);
	usual(w);
	close_length(w, extensions, 0);
	close_length(w, whole, 0);
}

static void record(struct writer *w, const uint8_t *data, size_t n, int more)
{
	wr_u8(w, 22);
	wr_be16(w, 0x0301);
	wr_be16(w, (uint16_t)((int)n + more));
	wr_bytes(w, data, n);
}

/* Where a message is cut in two. */
static size_t cut_of(enum shape shape, const uint8_t *data, size_t n)
{
	const uint8_t *filler = memmem(data, n, "ffffffffffffffff", FILLER);
	return shape == HELLO_SPLIT && filler ? (size_t)(filler - data) + 4 : n / 2;
}

size_t probe_hello(enum shape shape, const char *name, size_t len, const char *refused,
		   uint8_t *buf, size_t room)
{
	uint8_t data[2048];
	struct writer m = wr_init(data, sizeof(data)), w = wr_init(buf, room);
	message(&m, shape, name, len, refused);
	if (m.bad)
		return 0;
	if (shape == HELLO_SPLIT || shape == HELLO_SPLIT_PLAIN) {
		size_t cut = cut_of(shape, data, m.len);
		record(&w, data, cut, 0);
		record(&w, data + cut, m.len - cut, 0);
	} else {
		record(&w, data, m.len, shape == HELLO_SHORT_RECORD ? -40 : 0);
	}
	if (shape == HELLO_TRAILING)
		record(&w, (const uint8_t *)"\1\0\0\0", 4, 0);
	if (shape == HELLO_SECOND) {
		m = wr_init(data, sizeof(data));
		message(&m, HELLO_PLAIN, refused, strlen(refused), refused);
		record(&w, data, m.len, 0);
	}
	return w.bad || m.bad ? 0 : w.len;
}

void probe_tls(const struct probe *p, const struct attempt *a, struct outcome *out)
{
	static struct answer got;
	uint8_t name[512], hello[4096];
	struct addr to;
	size_t n = 0;
	if (!probe_target(p, a->to, &to, out))
		return;
	if (*a->text && !(n = probe_expand(p, a->text, name, sizeof(name), out)))
		return;
	n = probe_hello((enum shape)a->how, (const char *)name, n, p->refused, hello,
			sizeof(hello));
	if (!n)
		return probe_say(out, PROBE_NOT_TRIED, "too long a name");
	probe_exchange(p, &to, a->port, hello, n, 0, &got);
	probe_judge(a, &got, out);
}
