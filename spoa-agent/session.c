/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SPOP state machine of one connection; see session.h. Never leaves a NOTIFY that it took
 * without an answer or a disconnect.
 */
#include "spoa-agent/session.h"

#include <stdlib.h>
#include <string.h>

void session_init(struct session *s, const struct session_ops *ops, void *arg)
{
	memset(s, 0, offsetof(struct session, in));
	s->ops = ops;
	s->arg = arg;
	s->max_frame = SPOP_MAX_FRAME;
}

void session_fini(struct session *s)
{
	for (unsigned i = 0; i < SESSION_HOLD_BUCKETS; i++)
		while (s->holds[i])
			session_hold_remove(s->holds[i]);
	free(s->out);
	s->out = NULL;
	s->out_len = s->out_at = s->out_cap = 0;
	s->state = SESSION_DEAD;
}

/* ---- output -------------------------------------------------------------------------------- */

static bool grow(struct session *s, size_t need)
{
	if (s->out_at > 0) {
		memmove(s->out, s->out + s->out_at, s->out_len);
		s->out_at = 0;
	}
	if (s->out_cap - s->out_len >= need)
		return true;
	size_t cap = s->out_cap ? s->out_cap : 4096;
	while (cap - s->out_len < need)
		cap *= 2;
	uint8_t *p = realloc(s->out, cap);
	if (!p)
		return false;
	s->out = p;
	s->out_cap = cap;
	return true;
}

/* Room for one frame; a session without memory is dead, and HAProxy denies by itself. */
static struct writer out_writer(struct session *s, size_t need)
{
	size_t end = s->out_at + s->out_len;
	if (s->out_cap - end < need) {
		if (!grow(s, need)) {
			s->state = SESSION_DEAD;
			return (struct writer){ .bad = true };
		}
		end = s->out_len;
	}
	return wr_init(s->out + end, s->out_cap - end);
}

static void out_commit(struct session *s, const struct writer *w)
{
	if (w->bad)
		s->state = SESSION_DEAD;
	else
		s->out_len += w->len;
}

static void disconnect(struct session *s, enum spop_code code)
{
	if (s->state >= SESSION_CLOSING)
		return;
	struct writer w = out_writer(s, SESSION_MAX_ACK);
	struct spop_mark m = spop_begin(&w, SPOP_AGENT_DISCONNECT, 0, 0);
	spop_put_kv_u32(&w, "status-code", code);
	spop_put_kv_string(&w, "message", spop_strerror(code));
	spop_end(&w, m);
	s->code = code;
	s->state = s->state == SESSION_DEAD ? SESSION_DEAD : SESSION_CLOSING;
	out_commit(s, &w);
}

/*
 * An answer that is too big for this peer goes out without its actions: then no verdict is set, and
 * HAProxy refuses.
 */
void session_ack(struct session *s, uint64_t stream, uint64_t frame, const void *actions, size_t n)
{
	enum { HEAD = 1 + 4 + 2 * SPOP_MAX_VARINT };
	if (s->state != SESSION_RUNNING)
		return;
	struct writer w = out_writer(s, n + HEAD + 4);
	struct spop_mark m = spop_begin(&w, SPOP_ACK, stream, frame);
	if (n + HEAD <= s->max_frame)
		wr_bytes(&w, actions, n);
	spop_end(&w, m);
	out_commit(s, &w);
}

const uint8_t *session_output(const struct session *s, size_t *n)
{
	*n = s->state == SESSION_DEAD ? 0 : s->out_len;
	return *n ? s->out + s->out_at : NULL;
}

void session_sent(struct session *s, size_t n)
{
	s->out_at += n;
	s->out_len -= n;
	if (s->out_len == 0)
		s->out_at = 0;
}

bool session_finished(const struct session *s)
{
	if (s->state == SESSION_DEAD)
		return true;
	if (s->out_len > 0)
		return false;
	return s->state == SESSION_CLOSING || (s->eof && s->n_holds == 0);
}

/* ---- holds --------------------------------------------------------------------------------- */

static struct session_hold **bucket(struct session *s, uint64_t stream, uint64_t frame)
{
	uint64_t h = (stream * UINT64_C(0x9e3779b97f4a7c15)) ^ frame;
	return &s->holds[(h >> 32 ^ h) % SESSION_HOLD_BUCKETS];
}

static bool is_held(struct session *s, uint64_t stream, uint64_t frame)
{
	for (struct session_hold *h = *bucket(s, stream, frame); h; h = h->next)
		if (h->stream == stream && h->frame == frame)
			return true;
	return false;
}

bool session_hold_add(struct session *s, struct session_hold *h, uint64_t stream, uint64_t frame)
{
	if (s->n_holds >= SESSION_MAX_HOLDS || is_held(s, stream, frame))
		return false;
	struct session_hold **b = bucket(s, stream, frame);
	*h = (struct session_hold){
		.session = s, .stream = stream, .frame = frame, .next = *b, .link = b
	};
	if (h->next)
		h->next->link = &h->next;
	*b = h;
	s->n_holds++;
	return true;
}

void session_hold_remove(struct session_hold *h)
{
	if (!h->session)
		return;
	*h->link = h->next;
	if (h->next)
		h->next->link = h->link;
	h->session->n_holds--;
	h->session = NULL;
}

static void say_goodbye(struct session *s)
{
	if (s->draining && s->n_holds == 0)
		disconnect(s, SPOP_NORMAL);
}

void session_hold_ack(struct session_hold *h, const void *actions, size_t n)
{
	struct session *s = h->session;
	if (!s)
		return;
	session_hold_remove(h);
	session_ack(s, h->stream, h->frame, actions, n);
	say_goodbye(s);
	s->ops->wake(s->arg, s);
}

void session_drain(struct session *s)
{
	s->draining = true;
	say_goodbye(s);
	s->ops->wake(s->arg, s);
}

/* ---- HELLO --------------------------------------------------------------------------------- */

struct peer_hello {
	bool has_version, has_size, has_capabilities;
	bool version_ok, healthcheck;
	uint64_t max_frame;
};

/* A comma-separated list, blanks ignored, with one entry of major version 2. */
static bool offers_version_2(struct spop_bytes s)
{
	bool at_start = true;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == ' ')
			continue;
		if (at_start && s.p[i] == '2' && i + 1 < s.n && s.p[i + 1] == '.')
			return true;
		at_start = s.p[i] == ',';
	}
	return false;
}

static bool read_hello_item(struct peer_hello *h, struct reader *r)
{
	struct spop_bytes key = spop_string(r);
	struct spop_value v = spop_value(r);
	struct spop_bytes text;
	if (r->bad)
		return false;
	if (spop_is(key, "supported-versions")) {
		h->has_version = spop_as_bytes(&v, &text);
		h->version_ok = h->has_version && offers_version_2(text);
	} else if (spop_is(key, "max-frame-size")) {
		h->has_size = spop_as_uint(&v, UINT32_MAX, &h->max_frame);
	} else if (spop_is(key, "capabilities")) {
		h->has_capabilities = spop_as_bytes(&v, &text);
	} else if (spop_is(key, "healthcheck")) {
		h->healthcheck = v.type == SPOP_BOOL && v.u;
	}
	return true;
}

static enum spop_code judge_hello(const struct peer_hello *h, bool ready)
{
	if (!h->has_version)
		return SPOP_NO_VERSION;
	if (!h->version_ok)
		return SPOP_BAD_VERSION;
	if (!h->has_size)
		return SPOP_NO_FRAME_SIZE;
	if (h->max_frame < SPOP_MIN_FRAME)
		return SPOP_BAD_FRAME_SIZE;
	if (!h->has_capabilities)
		return SPOP_NO_CAPABILITIES;
	return h->healthcheck && !ready ? SPOP_NOT_READY : SPOP_NORMAL;
}

/*
 * Always pipelining: without it HAProxy opens a connection for every frame. Never fragmentation or
 * async. The reply is one frame in one buffer: HAProxy wants it in one piece.
 */
static void reply_hello(struct session *s)
{
	struct writer w = out_writer(s, SESSION_MAX_ACK);
	struct spop_mark m = spop_begin(&w, SPOP_AGENT_HELLO, 0, 0);
	spop_put_kv_string(&w, "version", "2.0");
	spop_put_kv_u32(&w, "max-frame-size", s->max_frame);
	spop_put_kv_string(&w, "capabilities", "pipelining");
	spop_end(&w, m);
	out_commit(s, &w);
}

static void on_hello(struct session *s, struct spop_frame *f)
{
	struct peer_hello h = { 0 };
	if (s->state != SESSION_HELLO || f->stream != 0 || f->frame != 0) {
		disconnect(s, SPOP_INVALID);
		return;
	}
	while (f->payload.left > 0) {
		if (!read_hello_item(&h, &f->payload)) {
			disconnect(s, SPOP_INVALID);
			return;
		}
	}
	enum spop_code code = judge_hello(&h, s->ops->ready(s->arg));
	if (code != SPOP_NORMAL) {
		disconnect(s, code);
		return;
	}
	if (h.max_frame < s->max_frame)
		s->max_frame = (uint32_t)h.max_frame;
	reply_hello(s);
	if (s->state != SESSION_DEAD)
		s->state = h.healthcheck ? SESSION_CLOSING : SESSION_RUNNING;
}

/* ---- frames -------------------------------------------------------------------------------- */

static void on_frame(struct session *s, struct spop_frame *f)
{
	if (f->type == SPOP_HAPROXY_DISCONNECT) {
		disconnect(s, SPOP_NORMAL);
	} else if (f->type == SPOP_UNSET || !(f->flags & SPOP_FIN)) {
		disconnect(s, SPOP_FRAGMENTED);
	} else if (f->flags != SPOP_FIN) {
		disconnect(s, SPOP_INVALID);
	} else if (f->type == SPOP_HAPROXY_HELLO) {
		on_hello(s, f);
	} else if (s->state != SESSION_RUNNING) {
		disconnect(s, SPOP_INVALID);
	} else if (f->type == SPOP_NOTIFY) {
		if (s->n_holds > 0 && is_held(s, f->stream, f->frame))
			disconnect(s, SPOP_INVALID);
		else
			s->ops->notify(s->arg, s, f);
	} else if (f->type >= SPOP_AGENT_HELLO && f->type <= SPOP_ACK) {
		disconnect(s, SPOP_INVALID);
	} /* unknown types are skipped, as the protocol says */
}

static bool takes_input(const struct session *s)
{
	return s->state < SESSION_CLOSING && s->out_len < SESSION_OUT_SOFT;
}

uint8_t *session_room(struct session *s, size_t *n)
{
	*n = takes_input(s) && !s->eof ? SESSION_IN_SIZE - s->in_len : 0;
	return s->in + s->in_len;
}

/* Takes the whole frames that are there; returns how many octets they were. */
static size_t run(struct session *s)
{
	size_t at = 0;
	while (takes_input(s) && s->in_len - at >= 4) {
		struct reader head = rd_init(s->in + at, 4);
		uint32_t len = rd_be32(&head);
		struct spop_frame f;
		if (len > s->max_frame) {
			disconnect(s, SPOP_TOO_BIG);
		} else if (s->in_len - at - 4 < len) {
			break;
		} else if (!spop_frame_read(&f, s->in + at + 4, len)) {
			disconnect(s, SPOP_INVALID);
		} else {
			on_frame(s, &f);
			at += 4 + (size_t)len;
		}
	}
	return at;
}

void session_input(struct session *s, size_t n)
{
	s->in_len += n;
	size_t used = run(s);
	s->in_len -= used;
	if (used && s->in_len)
		memmove(s->in, s->in + used, s->in_len);
	say_goodbye(s);
}

void session_eof(struct session *s)
{
	s->eof = true;
}
