/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NOTIFY to question, decision to ACK; see answer.h. Never says allow without saying where to.
 */
#include "spoa-agent/answer.h"

#include <stdio.h>
#include <string.h>

#include "spoa-agent/hello.h"
#include "spoa-agent/url.h"

/* ---- arguments ----------------------------------------------------------------------------- */

enum arg {
	ARG_SRC,
	ARG_SPORT,
	ARG_DST,
	ARG_DPORT,
	ARG_HELLO,
	ARG_SNI,
	ARG_METHOD,
	ARG_URL,
	ARG_HOST,
	ARG_UPGRADE,
	ARG_OPENS,
	ARG_BIND,
	ARG_ID,
	ARG_AUTHORITY,
	ARG_FORM,
	ARG_COUNT
};

/* With their lengths, so that most are told apart by these. */
#define ARG_NAME(text)                                                                             \
	{                                                                                          \
		text, sizeof(text) - 1                                                             \
	}
static const struct arg_name {
	const char *text;
	size_t n;
} arg_names[ARG_COUNT] = {
	[ARG_SRC] = ARG_NAME("src"),         [ARG_DST] = ARG_NAME("dst"),
	[ARG_DPORT] = ARG_NAME("dport"),     [ARG_HELLO] = ARG_NAME("hello"),
	[ARG_SNI] = ARG_NAME("sni"),         [ARG_METHOD] = ARG_NAME("method"),
	[ARG_URL] = ARG_NAME("url"),         [ARG_HOST] = ARG_NAME("host"),
	[ARG_UPGRADE] = ARG_NAME("upgrade"), [ARG_BIND] = ARG_NAME("bind"),
	[ARG_ID] = ARG_NAME("id"),           [ARG_AUTHORITY] = ARG_NAME("authority"),
	[ARG_FORM] = ARG_NAME("form"),       [ARG_SPORT] = ARG_NAME("sport"),
	[ARG_OPENS] = ARG_NAME("opens"),
};

struct args {
	struct spop_value v[ARG_COUNT];
	unsigned seen; /* bit mask of those that stood there, null or not */
};

/* Arguments that this version does not use are skipped: a newer configuration may send them. */
static bool read_arg(struct args *a, struct reader *r)
{
	struct spop_bytes key = spop_string(r);
	struct spop_value v = spop_value(r);
	if (r->bad)
		return false;
	for (unsigned i = 0; i < ARG_COUNT; i++) {
		if (key.n != arg_names[i].n || memcmp(key.p, arg_names[i].text, key.n) != 0)
			continue;
		if (a->seen & 1u << i)
			return false;
		a->seen |= 1u << i;
		a->v[i] = v;
		break;
	}
	return true;
}

static bool read_args(struct args *a, struct reader *r)
{
	unsigned n = rd_u8(r);
	for (unsigned i = 0; i < n; i++)
		if (!read_arg(a, r))
			return false;
	return !r->bad;
}

static bool text_arg(const struct args *a, enum arg i, struct spop_bytes *out)
{
	return spop_as_bytes(&a->v[i], out);
}

/* ---- questions ----------------------------------------------------------------------------- */

/* The flaw that comes first in the order of reasons stays. */
static void flaw(struct request *r, enum question_flaw f)
{
	if (r->q.flaw == FLAW_INTERNAL)
		return;
	if (r->q.flaw == FLAW_NONE || f < r->q.flaw || f == FLAW_INTERNAL)
		r->q.flaw = f;
}

static void read_ends(struct request *r, const struct args *a)
{
	uint64_t port = 0;
	bool src = spop_as_addr(&a->v[ARG_SRC], &r->q.src);
	r->q.has_dst = spop_as_addr(&a->v[ARG_DST], &r->q.dst);
	bool dport = spop_as_uint(&a->v[ARG_DPORT], UINT16_MAX, &port) && port > 0;
	r->q.port = r->at_port = (uint16_t)port;
	r->at = r->q.dst;
	if (!src || !r->q.has_dst || !dport)
		flaw(r, FLAW_INTERNAL);
}

static void set_sni(struct request *r, const struct hello *h)
{
	if (!h->sni) {
		flaw(r, FLAW_NO_SNI);
		return;
	}
	switch (name_from_text(&r->name, (const char *)h->sni, h->sni_len)) {
	case NAME_OK:
		r->q.name = &r->name;
		break;
	case NAME_IP_LITERAL:
		flaw(r, FLAW_IP_LITERAL);
		break;
	default:
		flaw(r, FLAW_BAD_NAME);
	}
}

/* HAProxy's own reading of the name must be ours: octet by octet, as a rule. */
static void compare_sni(struct request *r, const struct args *a, const struct hello *h)
{
	struct spop_bytes sni;
	struct name theirs;
	if (!text_arg(a, ARG_SNI, &sni)) {
		flaw(r, FLAW_NO_SNI);
		return;
	}
	if (!r->q.name || (sni.n == h->sni_len && memcmp(sni.p, h->sni, sni.n) == 0))
		return;
	enum name_err e = name_from_text(&theirs, (const char *)sni.p, sni.n);
	if (e != NAME_OK || !name_equal(&theirs, &r->name))
		flaw(r, FLAW_NAME_MISMATCH);
}

static void read_tls(struct request *r, const struct args *a)
{
	struct spop_bytes bytes;
	struct hello h;
	r->q.layer = LAYER_TLS;
	read_ends(r, a);
	if (!text_arg(a, ARG_HELLO, &bytes)) {
		flaw(r, FLAW_INTERNAL);
		return;
	}
	if (hello_parse(&h, bytes.p, bytes.n) != HELLO_OK) {
		flaw(r, FLAW_MALFORMED);
		return;
	}
	r->q.ech = h.ech;
	set_sni(r, &h);
	compare_sni(r, a, &h);
}

static void url_flaw(struct request *r, enum url_err e)
{
	if (e == URL_MALFORMED)
		flaw(r, FLAW_MALFORMED);
	else if (e == URL_IP_LITERAL)
		flaw(r, FLAW_IP_LITERAL);
	else if (e == URL_BAD_NAME)
		flaw(r, FLAW_BAD_NAME);
}

/* A target or Host that names another host or port than the one that is judged. */
static void must_agree(struct request *r, const struct authority *au, uint16_t no_port)
{
	uint16_t port = au->port ? au->port : no_port;
	if (port != r->q.port || (r->q.name && !name_equal(&au->name, r->q.name)))
		flaw(r, FLAW_NAME_MISMATCH);
}

static void read_host(struct request *r, const struct args *a)
{
	struct spop_bytes host;
	struct authority au;
	if (!text_arg(a, ARG_HOST, &host)) {
		flaw(r, FLAW_BAD_NAME);
		return;
	}
	enum url_err e = authority_parse(&au, (const char *)host.p, host.n);
	if (e != URL_OK) {
		url_flaw(r, e);
		return;
	}
	must_agree(r, &au, r->q.port);
	r->name = au.name;
	r->q.name = &r->name;
}

/* False: there is nothing that could be judged. */
static bool read_target(struct request *r, const struct args *a, struct target *t)
{
	struct spop_bytes method, url;
	if (!text_arg(a, ARG_METHOD, &method) || !text_arg(a, ARG_URL, &url)) {
		flaw(r, FLAW_INTERNAL);
		return false;
	}
	const char *m = (const char *)method.p;
	if (!method_ok(m, method.n)) {
		flaw(r, FLAW_MALFORMED);
		return false;
	}
	r->q.method = m;
	r->q.method_len = method.n;
	enum url_err e = target_parse(t, m, method.n, (const char *)url.p, url.n);
	if (e != URL_OK) {
		url_flaw(r, e);
		return false;
	}
	r->q.path = t->path;
	r->q.path_len = t->path_len;
	return true;
}

/* Where a CONNECT wants to go; its port is the one that is judged. */
static bool read_authority(struct request *r, const struct args *a, struct endpoint *to)
{
	struct spop_bytes s;
	if (!text_arg(a, ARG_AUTHORITY, &s)) {
		flaw(r, FLAW_INTERNAL);
		return false;
	}
	enum url_err e = endpoint_parse(to, (const char *)s.p, s.n);
	if (e != URL_OK) {
		url_flaw(r, e);
		return false;
	}
	r->q.port = to->port;
	return true;
}

/* The name of a CONNECT, which what is inside has to agree with. An address names no host. */
static void inside_authority(struct request *r, const struct args *a)
{
	struct endpoint to;
	if (!read_authority(r, a, &to))
		return;
	if (to.literal) {
		flaw(r, FLAW_NAME_MISMATCH);
		return;
	}
	r->name = to.name;
	r->q.name = &r->name;
}

static void read_upgrade(struct request *r, const struct args *a)
{
	struct spop_bytes s;
	if (a->v[ARG_UPGRADE].type == SPOP_NULL)
		return;
	if (!text_arg(a, ARG_UPGRADE, &s)) {
		flaw(r, FLAW_INTERNAL);
		return;
	}
	r->q.upgrade = (const char *)s.p;
	r->q.upgrade_len = s.n;
}

/* form=absolute: sent to a proxy, so that the target itself says where it wants to go. */
static void read_form(struct request *r, const struct args *a, const struct target *t)
{
	struct spop_bytes form;
	if (a->v[ARG_FORM].type == SPOP_NULL)
		return;
	if (!text_arg(a, ARG_FORM, &form) || !spop_is(form, "absolute"))
		flaw(r, FLAW_INTERNAL);
	else if (!t->absolute)
		flaw(r, FLAW_MALFORMED);
	else
		r->q.port = t->authority.port ? t->authority.port : 80;
}

/* Host, an absolute target and the CONNECT around them must name the same host and port. */
static void read_http(struct request *r, const struct args *a)
{
	struct target t;
	r->q.layer = LAYER_HTTP;
	read_ends(r, a);
	if (a->v[ARG_AUTHORITY].type != SPOP_NULL)
		inside_authority(r, a);
	bool target = read_target(r, a, &t);
	if (target)
		read_form(r, a, &t);
	read_host(r, a);
	if (target && t.absolute)
		must_agree(r, &t.authority, a->v[ARG_FORM].type == SPOP_NULL ? r->q.port : 80);
	read_upgrade(r, a);
	r->q.opens = a->v[ARG_OPENS].type == SPOP_BOOL && a->v[ARG_OPENS].u;
}

static void read_tcp(struct request *r, const struct args *a)
{
	r->q.layer = LAYER_TCP;
	read_ends(r, a);
}

/* The CONNECT itself. What it may lead to is said, and nothing is allowed yet. */
static void read_connect(struct request *r, const struct args *a)
{
	struct endpoint to;
	r->q.layer = LAYER_CONNECT;
	if (!spop_as_addr(&a->v[ARG_SRC], &r->q.src))
		flaw(r, FLAW_INTERNAL);
	if (!read_authority(r, a, &to))
		return;
	r->q.has_dst = to.literal;
	r->q.dst = to.addr;
	if (to.literal)
		return;
	r->name = to.name;
	r->q.name = &r->name;
}

/* The hello inside must name the host of the CONNECT. */
static void read_tunnel_tls(struct request *r, const struct args *a)
{
	struct endpoint to;
	read_tls(r, a);
	if (!read_authority(r, a, &to))
		return;
	if (to.literal || (r->q.name && !name_equal(&to.name, r->q.name)))
		flaw(r, FLAW_NAME_MISMATCH);
}

/* Whatever it carries: raw TCP to what the CONNECT names. */
static void read_tunnel_tcp(struct request *r, const struct args *a)
{
	struct endpoint to;
	r->q.layer = LAYER_TCP;
	read_ends(r, a);
	r->q.has_dst = false;
	if (!read_authority(r, a, &to))
		return;
	r->q.has_dst = to.literal;
	if (to.literal) {
		r->q.dst = to.addr;
		return;
	}
	r->name = to.name;
	r->q.name = &r->name;
}

static void read_id(struct request *r, const struct args *a)
{
	struct spop_bytes id;
	if (!text_arg(a, ARG_ID, &id) || id.n == 0)
		return;
	r->id = (const char *)id.p;
	r->id_len = id.n < ANSWER_MAX_ID ? id.n : ANSWER_MAX_ID;
}

static const struct message {
	const char *name;
	void (*read)(struct request *r, const struct args *a);
} messages[] = {
	{ "cx-tls", read_tls },
	{ "cx-http", read_http },
	{ "cx-tcp", read_tcp },
	{ "cx-connect", read_connect },
	{ "cx-tunnel-tls", read_tunnel_tls },
	{ "cx-tunnel-tcp", read_tunnel_tcp },
};

static const struct message *find_message(struct spop_bytes name)
{
	for (size_t i = 0; i < sizeof(messages) / sizeof(*messages); i++)
		if (spop_is(name, messages[i].name))
			return &messages[i];
	return NULL;
}

/* An older configuration does not send it: then the connection cannot be found again. */
static void read_src_port(struct request *r, const struct args *a)
{
	uint64_t port;
	r->src_port = 0;
	if (spop_as_uint(&a->v[ARG_SPORT], UINT16_MAX, &port))
		r->src_port = (uint16_t)port;
}

/* The generation that this connection's first verdict was given for. */
static void read_bind(struct request *r, const struct args *a)
{
	if (a->v[ARG_BIND].type == SPOP_NULL)
		return;
	r->has_bind = r->q.has_generation = true;
	if (!spop_as_uint(&a->v[ARG_BIND], INT64_MAX, &r->q.generation))
		flaw(r, FLAW_INTERNAL);
}

void request_read(struct request *out, struct reader payload)
{
	struct args a = { .seen = 0 };
	out->q = (struct question){ .layer = LAYER_TCP };
	out->has_bind = false;
	out->id = NULL;
	out->id_len = 0;
	const struct message *m = find_message(spop_string(&payload));
	bool whole = read_args(&a, &payload) && rd_done(&payload);
	if (m)
		m->read(out, &a);
	if (!m || !whole)
		flaw(out, FLAW_INTERNAL);
	if (!m)
		(void)spop_as_addr(&a.v[ARG_SRC], &out->q.src);
	read_src_port(out, &a);
	out->q.paid = a.v[ARG_AUTHORITY].type != SPOP_NULL &&
		      (out->q.layer == LAYER_TLS || out->q.layer == LAYER_TCP);
	read_bind(out, &a);
	read_id(out, &a);
}

size_t request_text_size(const struct request *r)
{
	return r->q.method_len + r->q.path_len + r->q.upgrade_len + r->id_len;
}

static const char *copy_text(char **to, const char *from, size_t n)
{
	if (!from)
		return NULL;
	char *p = *to;
	memcpy(p, from, n);
	*to += n;
	return p;
}

void request_copy(struct request *out, const struct request *from, char *text)
{
	*out = *from;
	if (from->q.name)
		out->q.name = &out->name;
	out->q.method = copy_text(&text, from->q.method, from->q.method_len);
	out->q.path = copy_text(&text, from->q.path, from->q.path_len);
	out->q.upgrade = copy_text(&text, from->q.upgrade, from->q.upgrade_len);
	out->id = copy_text(&text, from->id, from->id_len);
}

/* ---- answers ------------------------------------------------------------------------------- */

void answer_fail(struct decision *d)
{
	d->v.action = ACTION_DENY;
	d->v.reason = REASON_INTERNAL_ERROR;
	d->v.next = NEXT_NONE;
	d->v.observed = false;
}

unsigned answer_status(const struct verdict *v)
{
	if (v->action != ACTION_DENY)
		return 0;
	switch (v->reason) {
	case REASON_NAME_MISMATCH:
		return 421;
	case REASON_RATE_LIMIT:
		return 429;
	case REASON_NO_POLICY:
	case REASON_UNRESOLVED:
	case REASON_UPSTREAM:
	case REASON_INTERNAL_ERROR:
		return 503;
	default:
		return 403;
	}
}

/* Only the combinations that a layer may have; everything else is an error of ours. */
static bool is_sound(const struct request *r, const struct decision *d, const struct addr *to)
{
	const struct verdict *v = &d->v;
	bool by_name = d->upstream[0] && v->by_name && r->q.name;
	switch (v->action) {
	case ACTION_DENY:
		return true;
	case ACTION_ALLOW:
		if (r->q.flaw != FLAW_NONE || (!to && !by_name) || r->q.layer == LAYER_CONNECT)
			return false;
		return r->q.layer == LAYER_TCP ? v->next == NEXT_RAW : r->q.name != NULL;
	case ACTION_NEXT:
		if (r->q.flaw != FLAW_NONE)
			return false;
		if (r->q.layer == LAYER_CONNECT)
			return v->next != NEXT_NONE;
		return r->q.layer == LAYER_TCP && (v->next == NEXT_TLS || v->next == NEXT_HTTP);
	}
	return false;
}

/* What the proxy is to connect to: the address that was judged, or the name where it resolves. */
static void write_target(struct writer *w, const struct request *r, const struct addr *to)
{
	char text[NAME_TEXT_SIZE + 8], *s = text;
	bool brackets = to && !addr_is_v4(to);
	if (brackets)
		*s++ = '[';
	s += to ? addr_to_text(to, s) : name_to_text(r->q.name, s);
	snprintf(s, (size_t)(text + sizeof(text) - s), "%s:%u", brackets ? "]" : "", r->q.port);
	spop_set_string(w, "target", text);
}

/* The proxy: an address, or a name that HAProxy looks up. */
static void write_upstream(struct writer *w, const struct decision *d, const char *auth)
{
	struct endpoint at;
	if (endpoint_parse(&at, d->upstream, strlen(d->upstream)) != URL_OK) {
		w->bad = true;
		return;
	}
	spop_set_string(w, "upstream", d->upstream);
	spop_set_u32(w, "via_port", at.port);
	if (auth[0])
		spop_set_string(w, "auth", auth);
	if (at.literal) {
		spop_set_addr(w, "via", &at.addr);
		return;
	}
	char name[NAME_TEXT_SIZE];
	name_to_text(&at.name, name);
	spop_set_string(w, "via_name", name);
}

static void write_route(struct writer *w, const struct request *r, const struct decision *d,
			const struct addr *to, const char *auth)
{
	const struct verdict *v = &d->v;
	if (v->action == ACTION_ALLOW && d->upstream[0]) {
		write_upstream(w, d, auth);
		write_target(w, r, v->by_name ? NULL : to);
	} else if (v->action == ACTION_ALLOW) {
		spop_set_addr(w, "addr", to);
		spop_set_string(w, "upstream", "direct");
	}
	spop_set_u32(w, "port", r->q.port);
	if (r->q.name) {
		char name[NAME_TEXT_SIZE];
		name_to_text(r->q.name, name);
		spop_set_string(w, "name", name);
	}
	if (v->next != NEXT_NONE)
		spop_set_string(w, "next", next_text(v->next));
}

/* What the connection is to be held to; the class of bandwidth is its octets a second. */
static void write_flow(struct writer *w, const struct decision *d)
{
	char text[24], *p = text + sizeof(text) - 1;
	uint64_t v = d->bandwidth;
	spop_set_u32(w, "concurrent", d->concurrent ? d->concurrent : INT32_MAX);
	if (v == 0)
		return;
	*p = '\0';
	for (; v > 0; v /= 10)
		*--p = (char)('0' + v % 10);
	spop_set_string(w, "rate", p);
}

static const char *action_text(enum action a)
{
	return a == ACTION_ALLOW ? "allow" : a == ACTION_NEXT ? "next" : "deny";
}

size_t answer_write(uint8_t *buf, const struct request *r, struct decision *d,
		    const struct addr *to, const char *auth)
{
	if (!is_sound(r, d, to))
		answer_fail(d);
	struct writer w = wr_init(buf, ANSWER_SIZE);
	unsigned status = answer_status(&d->v);
	spop_set_string(&w, "reason", reason_text(d->v.reason));
	if (d->rule[0])
		spop_set_string(&w, "rule", d->rule);
	if (status)
		spop_set_u32(&w, "status", status);
	if (d->v.reason == REASON_RATE_LIMIT)
		spop_set_u32(&w, "retry_after", d->retry_after_s ? d->retry_after_s : 1);
	if (d->v.action != ACTION_DENY) {
		write_route(&w, r, d, to, auth);
		write_flow(&w, d);
	}
	/* once a connection: later questions bring it back */
	if (!r->has_bind && d->generation)
		spop_set_sess_u64(&w, "bind", d->generation);
	/* Last, so that no earlier variable can be missing where this one is there. */
	spop_set_string(&w, "verdict", action_text(d->v.action));
	return w.bad ? 0 : w.len;
}
