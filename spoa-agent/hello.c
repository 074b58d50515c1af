/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The strict ClientHello parser; see hello.h. Never accepts two readings of one hello: every length
 * must agree with the one around it, and nothing may stand twice.
 */
#include "spoa-agent/hello.h"

#include "shared/base/bytes.h"

enum {
	RECORD_CHANGE_CIPHER_SPEC = 20,
	RECORD_HANDSHAKE = 22,
	RECORD_APPLICATION_DATA = 23,
	RECORD_HEAD = 5,
	RECORD_MAX_PLAIN = 1 << 14,
	RECORD_MAX_CIPHER = (1 << 14) + 256,
	HANDSHAKE_CLIENT_HELLO = 1,
	EXT_SERVER_NAME = 0,
	EXT_PRE_SHARED_KEY = 41,
	EXT_EARLY_DATA = 42,
	EXT_ECH = 0xfe0d,
	EXT_ECH_DRAFT_FIRST = 0xfe08,
	EXT_ESNI_DRAFT = 0xffce,
	NAME_TYPE_HOST = 0,
	MAX_EXTENSIONS = 128 /* far more than any client sends; bounds the search for duplicates */
};

struct extensions {
	uint16_t seen[MAX_EXTENSIONS];
	unsigned n;
};

/* Legacy versions: TLS 1.0 to 1.2, as TLS 1.3 also says. */
static bool version_ok(uint16_t v)
{
	return v >= 0x0301 && v <= 0x0303;
}

/* One ServerNameList with one host_name of at least one octet. */
static bool read_server_name(struct hello *out, struct reader ext)
{
	struct reader list = rd_sub(&ext, rd_be16(&ext));
	uint8_t type = rd_u8(&list);
	size_t len = rd_be16(&list);
	const uint8_t *name = rd_take(&list, len);
	if (!rd_done(&list) || !rd_done(&ext) || type != NAME_TYPE_HOST || len == 0)
		return false;
	out->sni = name;
	out->sni_len = len;
	return true;
}

static bool is_duplicate(struct extensions *e, uint16_t type)
{
	for (unsigned i = 0; i < e->n; i++)
		if (e->seen[i] == type)
			return true;
	if (e->n == MAX_EXTENSIONS)
		return true;
	e->seen[e->n++] = type;
	return false;
}

static bool read_extension(struct hello *out, struct extensions *seen, struct reader *r)
{
	uint16_t type = rd_be16(r);
	struct reader ext = rd_sub(r, rd_be16(r));
	if (r->bad || is_duplicate(seen, type))
		return false;
	if ((type >= EXT_ECH_DRAFT_FIRST && type <= EXT_ECH) || type == EXT_ESNI_DRAFT)
		out->ech = true;
	if (type == EXT_SERVER_NAME)
		return read_server_name(out, ext);
	if (type == EXT_EARLY_DATA) {
		out->early_data = true;
		return ext.left == 0;
	}
	if (type == EXT_PRE_SHARED_KEY)
		return r->left == 0; /* RFC 8446 4.2.11: the last one */
	return true;
}

static bool read_extensions(struct hello *out, struct reader *r)
{
	if (r->left == 0)
		return true; /* TLS 1.2 and below may have none */
	struct reader exts = rd_sub(r, rd_be16(r));
	struct extensions seen = { .n = 0 };
	while (exts.left > 0 && !exts.bad)
		if (!read_extension(out, &seen, &exts))
			return false;
	return rd_done(&exts) && rd_done(r);
}

static bool has_null_compression(struct reader methods)
{
	while (methods.left > 0)
		if (rd_u8(&methods) == 0)
			return true;
	return false;
}

static bool read_hello(struct hello *out, struct reader r)
{
	uint16_t version = rd_be16(&r);
	rd_skip(&r, 32); /* random */
	size_t session = rd_u8(&r);
	rd_skip(&r, session);
	size_t suites = rd_be16(&r);
	rd_skip(&r, suites);
	struct reader compression = rd_sub(&r, rd_u8(&r));
	if (r.bad || !version_ok(version) || session > 32 || suites < 2 || suites % 2 != 0)
		return false;
	return has_null_compression(compression) && read_extensions(out, &r);
}

/* One record behind the hello; `left` shrinks to 0 where it is cut. */
static bool read_early_record(struct reader *r, bool first)
{
	uint8_t head[RECORD_HEAD] = { RECORD_APPLICATION_DATA, 3, 3, 0, 1 };
	size_t n = r->left < RECORD_HEAD ? r->left : RECORD_HEAD;
	memcpy(head, rd_take(r, n), n);
	size_t len = (size_t)head[3] << 8 | head[4];
	if (head[1] != 3 || head[2] != 3)
		return false;
	if (head[0] == RECORD_CHANGE_CIPHER_SPEC) {
		if (!first)
			return false;
		if (n < RECORD_HEAD)
			return head[3] == 0;
		return len == 1 && (r->left == 0 || rd_u8(r) == 1);
	}
	if (head[0] != RECORD_APPLICATION_DATA || len > RECORD_MAX_CIPHER ||
	    (n == RECORD_HEAD && !len))
		return false;
	rd_skip(r, len < r->left ? len : r->left);
	return true;
}

static bool read_early_data(struct reader r, bool offered)
{
	if (r.left > 0 && !offered)
		return false;
	for (bool first = true; r.left > 0; first = false)
		if (!read_early_record(&r, first))
			return false;
	return true;
}

/*
 * The heads of record and handshake message, checked as far as they are there, so that "incomplete"
 * is never said of bytes that can no longer become a hello.
 */
static enum hello_result read_heads(struct reader *r, size_t *hello_len)
{
	enum { HEADS = RECORD_HEAD + 4 };
	uint8_t h[HEADS] = { RECORD_HANDSHAKE, 3, 1, 0, 4, HANDSHAKE_CLIENT_HELLO, 0, 0, 0 };
	size_t n = r->left < HEADS ? r->left : HEADS;
	if (n)
		memcpy(h, rd_take(r, n), n);
	size_t record = (size_t)h[3] << 8 | h[4];
	size_t body = (size_t)h[6] << 16 | (size_t)h[7] << 8 | h[8];
	bool version = h[1] == 3 && h[2] >= 1 && h[2] <= 3;
	if (h[0] != RECORD_HANDSHAKE || !version || h[5] != HANDSHAKE_CLIENT_HELLO)
		return HELLO_MALFORMED;
	if (n >= RECORD_HEAD && (record < 4 || record > RECORD_MAX_PLAIN))
		return HELLO_MALFORMED;
	if (n < HEADS)
		return HELLO_INCOMPLETE;
	if (body + 4 != record)
		return HELLO_MALFORMED;
	*hello_len = body;
	return HELLO_OK;
}

enum hello_result hello_parse(struct hello *out, const uint8_t *p, size_t n)
{
	struct reader r = rd_init(p, n);
	size_t len = 0;
	enum hello_result e = read_heads(&r, &len);
	if (e != HELLO_OK)
		return e;
	if (r.left < len)
		return HELLO_INCOMPLETE;
	*out = (struct hello){ 0 };
	if (!read_hello(out, rd_sub(&r, len)) || !read_early_data(r, out->early_data))
		return HELLO_MALFORMED;
	return HELLO_OK;
}
