/* SPDX-License-Identifier: Apache-2.0 */
/* Speaks netlink with the kernel (netlink.h). Never trusts a length that it did not compare. */
#include "shared/tools/netlink.h"

#include <arpa/inet.h>
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	BUF_SIZE = 256 * 1024,
	RCVBUF = 4 << 20,
	IFNAME_KEY = 16, /* octets of a link's name in a key */
	TCP_TIME_WAIT_STATE = 6,
	TCP_LISTEN_STATE = 10
};

struct netlink {
	int diag, filter; /* one socket a protocol; -1: not opened yet */
	uint32_t seq;
	union {
		struct nlmsghdr align;
		uint8_t b[BUF_SIZE];
	} in;
};

struct netlink *netlink_open(void)
{
	struct netlink *n = malloc(sizeof(*n));
	if (!n)
		return NULL;
	n->diag = n->filter = -1;
	n->seq = 1;
	return n;
}

void netlink_close(struct netlink *n)
{
	if (!n)
		return;
	if (n->diag >= 0)
		close(n->diag);
	if (n->filter >= 0)
		close(n->filter);
	free(n);
}

static int open_socket(int *fd, int protocol)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	const struct timeval wait = { .tv_sec = 5 };
	const int size = RCVBUF;
	if (*fd >= 0)
		return 0;
	int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (s < 0)
		return -errno;
	(void)setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	if (setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) != 0 ||
	    connect(s, (const struct sockaddr *)&kernel, sizeof(kernel)) != 0) {
		int err = errno;
		close(s);
		return -err;
	}
	*fd = s;
	return 0;
}

/* ---- messages ---- */

/* A message, or several behind each other, being written. */
struct request {
	union {
		struct nlmsghdr align;
		uint8_t b[2048];
	} u;
	size_t len;
	size_t at;    /* where the open message begins */
	uint32_t seq; /* of the first */
};

static void *put(struct request *r, const void *data, size_t n)
{
	uint8_t *p = r->u.b + r->len;
	memset(p, 0, NLMSG_ALIGN(n));
	if (data)
		memcpy(p, data, n);
	r->len += NLMSG_ALIGN(n);
	return p;
}

static void begin(struct request *r, struct netlink *n, uint16_t type, uint16_t flags)
{
	const struct nlmsghdr h = { .nlmsg_type = type, .nlmsg_flags = flags, .nlmsg_seq = n->seq };
	if (r->len == 0)
		r->seq = n->seq;
	n->seq++;
	r->at = r->len;
	put(r, &h, sizeof(h));
}

static void end(struct request *r)
{
	uint32_t len = (uint32_t)(r->len - r->at);
	memcpy(r->u.b + r->at + offsetof(struct nlmsghdr, nlmsg_len), &len, sizeof(len));
}

static void put_attr(struct request *r, uint16_t type, const void *data, size_t n)
{
	const struct nlattr a = { .nla_type = type, .nla_len = (uint16_t)(sizeof(a) + n) };
	put(r, &a, sizeof(a));
	put(r, data, n);
}

static size_t nest(struct request *r, uint16_t type)
{
	const struct nlattr a = { .nla_type = type | NLA_F_NESTED };
	size_t at = r->len;
	put(r, &a, sizeof(a));
	return at;
}

static void unnest(struct request *r, size_t at)
{
	uint16_t len = (uint16_t)(r->len - at);
	memcpy(r->u.b + at + offsetof(struct nlattr, nla_len), &len, sizeof(len));
}

static int send_request(int fd, const struct request *r)
{
	ssize_t k;
	do
		k = send(fd, r->u.b, r->len, 0);
	while (k < 0 && errno == EINTR);
	return k == (ssize_t)r->len ? 0 : k < 0 ? -errno : -EIO;
}

/* What is done with a message; a negative value ends it all. */
typedef int each_fn(void *arg, const struct nlmsghdr *h);

/*
 * Reads answers up to the end of a dump, or (acks > 0) that many acknowledgements, or the first one
 * that is an error. What belongs to an earlier request (before `seq`) is passed over.
 */
static int receive(struct netlink *n, int fd, uint32_t seq, unsigned acks, each_fn *each, void *arg)
{
	int result = 0;
	for (;;) {
		ssize_t k = recv(fd, n->in.b, sizeof(n->in.b), MSG_TRUNC);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if ((size_t)k > sizeof(n->in.b))
			return -EMSGSIZE;
		size_t left = (size_t)k;
		for (const struct nlmsghdr *h = &n->in.align;
		     left >= sizeof(*h) && h->nlmsg_len >= sizeof(*h) && h->nlmsg_len <= left;) {
			bool ours = (int32_t)(h->nlmsg_seq - seq) >= 0;
			if (ours && h->nlmsg_type == NLMSG_DONE)
				return result;
			if (ours && h->nlmsg_type == NLMSG_ERROR) {
				const struct nlmsgerr *e = NLMSG_DATA(h);
				if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*e)))
					return -EIO;
				if (e->error || acks == 0 || --acks == 0)
					return e->error;
			} else if (ours && each && result >= 0) {
				int rc = each(arg, h);
				result = rc < 0 ? rc : result;
			}
			size_t step = NLMSG_ALIGN(h->nlmsg_len);
			if (step >= left)
				break;
			left -= step;
			h = (const void *)((const uint8_t *)h + step);
		}
	}
}

/* ---- sockets ---- */

/* Identifications of sockets to be destroyed, gathered from a dump. */
struct victims {
	struct inet_diag_req_v2 *v;
	size_t n, cap;
	const struct prefix *p;
};

static struct addr diag_addr(uint8_t family, const uint32_t a[4])
{
	return family == AF_INET ? addr_from_v4((const uint8_t *)a)
				 : addr_from_v6((const uint8_t *)a);
}

static int note_socket(void *arg, const struct nlmsghdr *h)
{
	struct victims *o = arg;
	const struct inet_diag_msg *m = NLMSG_DATA(h);
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) || m->idiag_state == TCP_LISTEN_STATE)
		return 0;
	struct addr peer = diag_addr(m->idiag_family, m->id.idiag_dst);
	if (!prefix_contains(o->p, &peer))
		return 0;
	if (o->n == o->cap) {
		size_t cap = o->cap ? 2 * o->cap : 64;
		struct inet_diag_req_v2 *v = realloc(o->v, cap * sizeof(*v));
		if (!v)
			return -ENOMEM;
		o->v = v;
		o->cap = cap;
	}
	o->v[o->n++] = (struct inet_diag_req_v2){ .sdiag_family = m->idiag_family,
						  .sdiag_protocol = IPPROTO_TCP,
						  .idiag_states = 1u << m->idiag_state,
						  .id = m->id };
	return 0;
}

/* "Is the other end in the prefix?", for the kernel to ask of each socket. */
static void put_condition(struct request *r, const struct prefix *p)
{
	uint8_t code[sizeof(struct inet_diag_bc_op) + sizeof(struct inet_diag_hostcond) + 16];
	bool v4 = prefix_is_v4(p);
	size_t n = v4 ? 4 : 16, size = sizeof(code) - 16 + n;
	const struct inet_diag_bc_op op = { .code = INET_DIAG_BC_D_COND,
					    .yes = (uint8_t)size,
					    .no = (uint16_t)(size + 4) };
	const struct inet_diag_hostcond host = { .family = v4 ? AF_INET : AF_INET6,
						 .prefix_len = (uint8_t)(v4 ? p->len - 96 : p->len),
						 .port = -1 };
	memcpy(code, &op, sizeof(op));
	memcpy(code + sizeof(op), &host, sizeof(host));
	memcpy(code + sizeof(op) + sizeof(host), v4 ? p->a.b + 12 : p->a.b, n);
	put_attr(r, INET_DIAG_REQ_BYTECODE, code, size);
}

/* The older form of the question answers for both families in one pass over the kernel's table. */
static int dump_sockets(struct netlink *n, const struct prefix *peer, each_fn *each, void *arg)
{
	const struct inet_diag_req q = { .idiag_family = AF_INET,
					 .idiag_states = ~(1u << TCP_LISTEN_STATE) };
	struct request r = { .len = 0 };
	begin(&r, n, TCPDIAG_GETSOCK, NLM_F_REQUEST | NLM_F_DUMP);
	put(&r, &q, sizeof(q));
	if (peer)
		put_condition(&r, peer);
	end(&r);
	int rc = send_request(n->diag, &r);
	return rc ? rc : receive(n, n->diag, r.seq, 0, each, arg);
}

/* 1: there was one; 0: it is gone, or can only be left to its time. */
static int destroy(struct netlink *n, const struct inet_diag_req_v2 *q)
{
	struct request r = { .len = 0 };
	begin(&r, n, SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK);
	put(&r, q, sizeof(*q));
	end(&r);
	int rc = send_request(n->diag, &r);
	if (rc == 0)
		rc = receive(n, n->diag, r.seq, 1, NULL, NULL);
	if (rc == -ENOENT || rc == -ESTALE)
		return 1; /* it ended by itself: look again */
	if (rc == -EOPNOTSUPP && q->idiag_states == 1u << TCP_TIME_WAIT_STATE)
		return 0;
	return rc ? rc : 1;
}

int netlink_destroy_sockets(struct netlink *n, const struct prefix *p)
{
	struct victims o = { .p = p };
	int rc = open_socket(&n->diag, NETLINK_SOCK_DIAG), count = 0;
	/* IPv4 clients of IPv6 sockets are among them, as mapped addresses */
	if (rc == 0)
		rc = dump_sockets(n, p, note_socket, &o);
	for (size_t i = 0; rc >= 0 && i < o.n; i++) {
		rc = destroy(n, &o.v[i]);
		count += rc > 0;
	}
	free(o.v);
	return rc < 0 ? rc : count;
}

struct list {
	struct netlink_socket *v;
	size_t n, cap;
};

static_assert(sizeof(struct inet_diag_req_v2) == sizeof(((struct netlink_socket *)0)->id), "id");

static int list_socket(void *arg, const struct nlmsghdr *h)
{
	struct list *o = arg;
	const struct inet_diag_msg *m = NLMSG_DATA(h);
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) || m->idiag_state == TCP_LISTEN_STATE ||
	    m->idiag_state == TCP_TIME_WAIT_STATE)
		return 0;
	if (o->n == o->cap) {
		size_t cap = o->cap ? 2 * o->cap : 256;
		struct netlink_socket *v = realloc(o->v, cap * sizeof(*v));
		if (!v)
			return -ENOMEM;
		o->v = v;
		o->cap = cap;
	}
	const struct inet_diag_req_v2 q = { .sdiag_family = m->idiag_family,
					    .sdiag_protocol = IPPROTO_TCP,
					    .idiag_states = 1u << m->idiag_state,
					    .id = m->id };
	struct netlink_socket *s = &o->v[o->n++];
	s->local = diag_addr(m->idiag_family, m->id.idiag_src);
	s->peer = diag_addr(m->idiag_family, m->id.idiag_dst);
	s->local_port = ntohs(m->id.idiag_sport);
	s->peer_port = ntohs(m->id.idiag_dport);
	s->cookie = (uint64_t)m->id.idiag_cookie[1] << 32 | m->id.idiag_cookie[0];
	memcpy(s->id, &q, sizeof(q));
	return 0;
}

ssize_t netlink_sockets(struct netlink *n, struct netlink_socket **out)
{
	struct list o = { .n = 0 };
	int rc = open_socket(&n->diag, NETLINK_SOCK_DIAG);
	if (rc == 0)
		rc = dump_sockets(n, NULL, list_socket, &o);
	if (rc < 0) {
		free(o.v);
		return rc;
	}
	*out = o.v;
	return (ssize_t)o.n;
}

int netlink_destroy_socket(struct netlink *n, const struct netlink_socket *s)
{
	struct inet_diag_req_v2 q;
	memcpy(&q, s->id, sizeof(q));
	return destroy(n, &q);
}

/* ---- connection tracking ---- */

struct flow {
	uint8_t tuple[256]; /* CTA_TUPLE_ORIG as it came */
	size_t n;
	uint8_t family;
	uint32_t id;
	uint16_t zone;
	bool has_id, has_zone;
};

struct flows {
	struct flow *v;
	size_t n, cap;
	const struct prefix *p;
};

/* The attribute of a type among those in [p, p + n), or NULL. */
static const struct nlattr *find_attr(const uint8_t *p, size_t n, uint16_t type)
{
	while (n >= sizeof(struct nlattr)) {
		const struct nlattr *a = (const void *)p;
		if (a->nla_len < sizeof(*a) || a->nla_len > n)
			return NULL;
		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
		size_t step = NLA_ALIGN(a->nla_len);
		if (step >= n)
			return NULL;
		p += step;
		n -= step;
	}
	return NULL;
}

static const uint8_t *attr_data(const struct nlattr *a, size_t *n)
{
	*n = a ? a->nla_len - sizeof(*a) : 0;
	return a ? (const uint8_t *)(a + 1) : NULL;
}

static bool flow_source(const uint8_t *tuple, size_t n, struct addr *out)
{
	size_t len, k;
	const uint8_t *ip = attr_data(find_attr(tuple, n, CTA_TUPLE_IP), &len);
	const uint8_t *a = ip ? attr_data(find_attr(ip, len, CTA_IP_V4_SRC), &k) : NULL;
	if (a && k == 4) {
		*out = addr_from_v4(a);
		return true;
	}
	a = ip ? attr_data(find_attr(ip, len, CTA_IP_V6_SRC), &k) : NULL;
	if (a && k == 16)
		*out = addr_from_v6(a);
	return a && k == 16;
}

static int note_flow(void *arg, const struct nlmsghdr *h)
{
	struct flows *o = arg;
	struct flow f = { .n = 0 };
	struct addr src;
	size_t k;
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(struct nfgenmsg)))
		return 0;
	const uint8_t *attrs = (const uint8_t *)NLMSG_DATA(h) + sizeof(struct nfgenmsg);
	size_t n = h->nlmsg_len - NLMSG_LENGTH(sizeof(struct nfgenmsg));
	const uint8_t *tuple = attr_data(find_attr(attrs, n, CTA_TUPLE_ORIG), &f.n);
	if (!tuple || f.n > sizeof(f.tuple) || !flow_source(tuple, f.n, &src) ||
	    !prefix_contains(o->p, &src))
		return 0;
	memcpy(f.tuple, tuple, f.n);
	const uint8_t *id = attr_data(find_attr(attrs, n, CTA_ID), &k);
	if (id && k == 4) {
		memcpy(&f.id, id, 4);
		f.has_id = true;
	}
	const uint8_t *zone = attr_data(find_attr(attrs, n, CTA_ZONE), &k);
	if (zone && k == 2) {
		memcpy(&f.zone, zone, 2);
		f.has_zone = true;
	}
	f.family = ((const struct nfgenmsg *)NLMSG_DATA(h))->nfgen_family;
	if (o->n == o->cap) {
		size_t cap = o->cap ? 2 * o->cap : 64;
		struct flow *v = realloc(o->v, cap * sizeof(*v));
		if (!v)
			return -ENOMEM;
		o->v = v;
		o->cap = cap;
	}
	o->v[o->n++] = f;
	return 0;
}

static void put_family(struct request *r, uint8_t family, uint16_t res_id)
{
	const struct nfgenmsg g = { .nfgen_family = family,
				    .version = NFNETLINK_V0,
				    .res_id = htons(res_id) };
	put(r, &g, sizeof(g));
}

static int dump_flows(struct netlink *n, uint8_t family, struct flows *o)
{
	struct request r = { .len = 0 };
	begin(&r, n, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, NLM_F_REQUEST | NLM_F_DUMP);
	put_family(&r, family, 0);
	end(&r);
	int rc = send_request(n->filter, &r);
	return rc ? rc : receive(n, n->filter, r.seq, 0, note_flow, o);
}

static int forget(struct netlink *n, const struct flow *f)
{
	struct request r = { .len = 0 };
	begin(&r, n, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST | NLM_F_ACK);
	put_family(&r, f->family, 0);
	put_attr(&r, CTA_TUPLE_ORIG | NLA_F_NESTED, f->tuple, f->n);
	if (f->has_id)
		put_attr(&r, CTA_ID, &f->id, 4);
	if (f->has_zone)
		put_attr(&r, CTA_ZONE, &f->zone, 2);
	end(&r);
	int rc = send_request(n->filter, &r);
	if (rc == 0)
		rc = receive(n, n->filter, r.seq, 1, NULL, NULL);
	return rc == -ENOENT ? 0 : rc;
}

int netlink_forget_connections(struct netlink *n, const struct prefix *p)
{
	struct flows o = { .p = p };
	int rc = open_socket(&n->filter, NETLINK_NETFILTER);
	if (rc == 0)
		rc = dump_flows(n, prefix_is_v4(p) ? AF_INET : AF_INET6, &o);
	/* a kernel without connection tracking keeps nothing that could be forgotten */
	if (rc == -EINVAL || rc == -EPROTONOSUPPORT || rc == -EOPNOTSUPP)
		rc = 0;
	for (size_t i = 0; rc >= 0 && i < o.n; i++)
		rc = forget(n, &o.v[i]);
	free(o.v);
	return rc < 0 ? rc : (int)o.n;
}

/* ---- nftables ---- */

static const char *set_of(const struct prefix *p)
{
	return prefix_is_v4(p) ? "cx_bound4" : p->len == 128 ? "cx_bound6" : "cx_bound6_net";
}

/* A key of `ifname . address`; last: the greatest address of the prefix. */
static size_t make_key(uint8_t key[IFNAME_KEY + 16], const char *ifname, const struct prefix *p,
		       bool last)
{
	struct addr a = p->a;
	for (unsigned i = p->len; last && i < 128; i++)
		a.b[i / 8] |= (uint8_t)(0x80 >> (i % 8));
	memset(key, 0, IFNAME_KEY);
	memcpy(key, ifname, strnlen(ifname, IFNAME_KEY - 1));
	size_t n = prefix_is_v4(p) ? 4 : 16;
	memcpy(key + IFNAME_KEY, a.b + 16 - n, n);
	return IFNAME_KEY + n;
}

static void put_key(struct request *r, uint16_t type, const uint8_t *key, size_t n)
{
	size_t at = nest(r, type);
	put_attr(r, NFTA_DATA_VALUE, key, n);
	unnest(r, at);
}

static void put_element(struct request *r, struct netlink *n, bool add, const char *ifname,
			const struct prefix *p, uint64_t timeout_ms)
{
	static const char table[] = "cx";
	const char *set = set_of(p);
	uint8_t key[IFNAME_KEY + 16];
	uint16_t type = NFNL_SUBSYS_NFTABLES << 8 | (add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM);
	begin(r, n, type, NLM_F_REQUEST | NLM_F_ACK | (add ? NLM_F_CREATE | NLM_F_EXCL : 0));
	put_family(r, NFPROTO_INET, 0);
	put_attr(r, NFTA_SET_ELEM_LIST_TABLE, table, sizeof(table));
	put_attr(r, NFTA_SET_ELEM_LIST_SET, set, strlen(set) + 1);
	size_t list = nest(r, NFTA_SET_ELEM_LIST_ELEMENTS), e = nest(r, NFTA_LIST_ELEM);
	size_t k = make_key(key, ifname, p, false);
	put_key(r, NFTA_SET_ELEM_KEY, key, k);
	if (!prefix_is_v4(p) && p->len < 128) {
		k = make_key(key, ifname, p, true);
		put_key(r, NFTA_SET_ELEM_KEY_END, key, k);
	}
	if (add && timeout_ms) {
		uint64_t be = htobe64(timeout_ms);
		put_attr(r, NFTA_SET_ELEM_TIMEOUT, &be, sizeof(be));
	}
	unnest(r, e);
	unnest(r, list);
	end(r);
}

static void put_batch(struct request *r, struct netlink *n, uint16_t type)
{
	begin(r, n, type, NLM_F_REQUEST);
	put_family(r, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
	end(r);
}

/* Both or none: first delete the element (if `del`), then add it (if `add`). */
static int change_bound(struct netlink *n, bool del, bool add, const char *ifname,
			const struct prefix *p, uint64_t timeout_ms)
{
	struct request r = { .len = 0 };
	int rc = open_socket(&n->filter, NETLINK_NETFILTER);
	if (rc)
		return rc;
	put_batch(&r, n, NFNL_MSG_BATCH_BEGIN);
	if (del)
		put_element(&r, n, false, ifname, p, 0);
	if (add)
		put_element(&r, n, true, ifname, p, timeout_ms);
	put_batch(&r, n, NFNL_MSG_BATCH_END);
	rc = send_request(n->filter, &r);
	return rc ? rc : receive(n, n->filter, r.seq, (unsigned)del + add, NULL, NULL);
}

int netlink_add_bound(struct netlink *n, const char *ifname, const struct prefix *p,
		      uint64_t timeout_ms)
{
	int rc = change_bound(n, false, true, ifname, p, timeout_ms);
	if (rc == -EEXIST) /* with another time-out, or overlapping: put ours in its place */
		rc = change_bound(n, true, true, ifname, p, timeout_ms);
	return rc;
}

int netlink_delete_bound(struct netlink *n, const char *ifname, const struct prefix *p)
{
	int rc = change_bound(n, true, false, ifname, p, 0);
	return rc == -ENOENT ? 0 : rc;
}
