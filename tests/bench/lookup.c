/* SPDX-License-Identifier: Apache-2.0 */
/*
 * B1: the name lookup, the whole verdict, and peers on the same names and questions in the same process,
 * in turn. Prints one line of tab-separated figures per measurement: nanoseconds an operation of each
 * round. With --count-only it runs one loop under a profiler that counts instructions. Measures only.
 */
#include <cdb.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shared/policy/policy.h"
#include "shared/policy/verdict.h"

enum { MAX_ROUNDS = 64 };

struct bench {
	struct policy *policy;
	struct cdb cdb;
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	struct name *names; /* the questions */
	uint8_t **wire;     /* the same, case mixed, with root */
	size_t n;
	uint32_t *chase; /* a cycle through as many cache lines as the file has */
	size_t n_chase;
	uint32_t at;
	unsigned n_profiles;
};

static void die(const char *what)
{
	fprintf(stderr, "lookup: %s: %s\n", what, strerror(errno));
	exit(3);
}

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	uint64_t z = *state;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* ---- the competitors: each answers "is the name, or a name above it, in the set?" ---- */

static unsigned ask_policy(struct bench *b, size_t i)
{
	struct policy_match m[POLICY_MAX_MATCHES];
	return policy_find(b->policy, &b->names[i], m);
}

static unsigned ask_wire(struct bench *b, size_t i)
{
	struct policy_match m[POLICY_MAX_MATCHES];
	struct name n;
	if (name_from_wire(&n, b->wire[i], NAME_MAX_WIRE + 1, NULL) != NAME_OK)
		return 0;
	return policy_find(b->policy, &n, m);
}

static unsigned ask_verdict(struct bench *b, size_t i)
{
	const struct facts f = { .now = { .wall_ns = INT64_C(1795262400000000000) } };
	uint32_t host = b->n_profiles > 1 ? (uint32_t)(i * 2654435761u) % b->n_profiles : 0;
	const uint8_t v4[4] = { 10, (uint8_t)(host >> 16), (uint8_t)(host >> 8), (uint8_t)host };
	struct question q = {
		.layer = LAYER_TLS, .src = addr_from_v4(v4), .name = &b->names[i], .port = 443
	};
	struct verdict v;
	verdict(b->policy, &q, &f, &v);
	return v.action == ACTION_ALLOW;
}

/* Peers know exact keys only: they try the name, then each name above it, as an allowlist needs. */
static unsigned ask_cdb(struct bench *b, size_t i)
{
	const struct name *n = &b->names[i];
	for (unsigned l = 0; l < n->n_labels; l++)
		if (cdb_find(&b->cdb, n->wire + n->off[l], (unsigned)(n->len - n->off[l])) > 0)
			return 1;
	return 0;
}

static unsigned ask_lmdb(struct bench *b, size_t i)
{
	const struct name *n = &b->names[i];
	for (unsigned l = 0; l < n->n_labels; l++) {
		MDB_val value;
		MDB_val key = { (size_t)(n->len - n->off[l]),
				(void *)(uintptr_t)(n->wire + n->off[l]) };
		if (mdb_get(b->txn, b->dbi, &key, &value) == 0)
			return 1;
	}
	return 0;
}

/* One dependent load from a random line of as much memory as the file takes. */
static unsigned ask_chase(struct bench *b, size_t i)
{
	(void)i;
	b->at = b->chase[(size_t)b->at * 16];
	return b->at & 1;
}

struct competitor {
	const char *name;
	unsigned (*ask)(struct bench *b, size_t i);
};

static const struct competitor competitors[] = {
	{ "policy_find", ask_policy }, { "wire+policy_find", ask_wire },
	{ "verdict", ask_verdict },    { "tinycdb", ask_cdb },
	{ "lmdb", ask_lmdb },          { "chase", ask_chase },
};

static const struct competitor *competitor_named(const char *name, size_t n)
{
	for (size_t i = 0; i < sizeof(competitors) / sizeof(competitors[0]); i++)
		if (strlen(competitors[i].name) == n && strncmp(competitors[i].name, name, n) == 0)
			return &competitors[i];
	return NULL;
}

/* ---- what is asked, and of what ---- */

static char **read_lines(const char *path, size_t *n)
{
	FILE *f = fopen(path, "r");
	char **lines = NULL, *line = NULL;
	size_t cap = 0, size = 0;
	if (!f)
		die(path);
	*n = 0;
	while (getline(&line, &size, f) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (*n == cap) {
			cap = cap ? 2 * cap : 1024;
			char **more = realloc(lines, cap * sizeof(*lines));
			if (!more)
				die("memory");
			lines = more;
		}
		lines[*n] = strdup(line);
		if (!lines[(*n)++])
			die("memory");
	}
	free(line);
	fclose(f);
	if (*n == 0)
		die("no names");
	return lines;
}

/* The name on the wire as a resolver with 0x20 sends it. */
static uint8_t *mixed_case(const struct name *n, uint64_t *seed)
{
	uint8_t *w = calloc(1, NAME_MAX_WIRE + 1);
	if (!w)
		die("memory");
	memcpy(w, n->wire, n->len);
	for (unsigned l = 0; l < n->n_labels; l++)
		for (unsigned i = n->off[l] + 1u; i < n->off[l + 1]; i++)
			if (w[i] >= 'a' && w[i] <= 'z' && next_random(seed) % 2)
				w[i] = (uint8_t)(w[i] - 32);
	return w;
}

static void load_questions(struct bench *b, const char *path)
{
	uint64_t seed = 20;
	char **lines = read_lines(path, &b->n);
	b->names = calloc(b->n, sizeof(*b->names));
	b->wire = calloc(b->n, sizeof(*b->wire));
	if (!b->names || !b->wire)
		die("memory");
	for (size_t i = 0; i < b->n; i++) {
		if (name_from_text(&b->names[i], lines[i], strlen(lines[i])) != NAME_OK) {
			fprintf(stderr, "lookup: %s: not a name\n", lines[i]);
			exit(3);
		}
		b->wire[i] = mixed_case(&b->names[i], &seed);
		free(lines[i]);
	}
	free(lines);
}

static void build_peers(struct bench *b, const char *list, const char *dir, size_t map_size)
{
	char path[1024];
	struct cdb_make make;
	size_t n;
	char **lines = read_lines(list, &n);
	snprintf(path, sizeof(path), "%s/names.cdb", dir);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || cdb_make_start(&make, fd) != 0)
		die(path);
	snprintf(path, sizeof(path), "%s/names.mdb", dir);
	if (mdb_env_create(&b->env) || mdb_env_set_mapsize(b->env, map_size) ||
	    mdb_env_open(b->env, path, MDB_NOSUBDIR | MDB_NOSYNC | MDB_NOLOCK, 0600) ||
	    mdb_txn_begin(b->env, NULL, 0, &b->txn) || mdb_dbi_open(b->txn, NULL, 0, &b->dbi))
		die(path);
	for (size_t i = 0; i < n; i++) {
		struct name a;
		uint32_t value = (uint32_t)i;
		if (name_from_text(&a, lines[i], strlen(lines[i])) != NAME_OK)
			exit(3);
		MDB_val key = { a.len, a.wire }, data = { sizeof(value), &value };
		if (cdb_make_add(&make, a.wire, a.len, &value, sizeof(value)) != 0 ||
		    mdb_put(b->txn, b->dbi, &key, &data, 0) != 0)
			die("peer");
		free(lines[i]);
	}
	free(lines);
	if (cdb_make_finish(&make) != 0 || cdb_init(&b->cdb, fd) != 0 || mdb_txn_commit(b->txn) ||
	    mdb_txn_begin(b->env, NULL, MDB_RDONLY, &b->txn))
		die("peer");
}

/* A random cycle through all lines (Sattolo). */
static void build_chase(struct bench *b, size_t octets)
{
	uint64_t seed = 30;
	b->n_chase = octets / 64 + 2;
	uint32_t *order = malloc(b->n_chase * sizeof(*order));
	b->chase = aligned_alloc(64, b->n_chase * 64);
	if (!order || !b->chase)
		die("memory");
	for (size_t i = 0; i < b->n_chase; i++)
		order[i] = (uint32_t)i;
	for (size_t i = b->n_chase - 1; i > 0; i--) {
		size_t k = next_random(&seed) % i;
		uint32_t t = order[i];
		order[i] = order[k];
		order[k] = t;
	}
	for (size_t i = 0; i < b->n_chase; i++)
		b->chase[(size_t)order[i] * 16] = order[(i + 1) % b->n_chase];
	free(order);
}

/* ---- measuring ---- */

static volatile unsigned sink;

/*
 * A question that has just been read is in the cache, in life; here it lies in an array that is not. So
 * it is fetched ahead, for every competitor alike: what is measured is the look-up.
 */
static void fetch_ahead(const struct bench *b, size_t k)
{
	size_t i = k + 8 < b->n ? k + 8 : k;
	const char *at = (const char *)&b->names[i];
	__builtin_prefetch(at);
	__builtin_prefetch(at + 128);
	__builtin_prefetch(at + 192);
	__builtin_prefetch(b->wire[i]);
}

static double round_ns(struct bench *b, const struct competitor *c, size_t ops, unsigned *found)
{
	unsigned hits = 0;
	uint64_t start = now_ns();
	for (size_t i = 0, k = 0; i < ops; i++) {
		fetch_ahead(b, k);
		hits += c->ask(b, k) != 0;
		if (++k == b->n)
			k = 0;
	}
	double ns = (double)(now_ns() - start) / (double)ops;
	sink += hits;
	*found = hits;
	return ns;
}

/* All competitors of a comma-separated list, in turn, round after round. */
static void compete(struct bench *b, const char *list, size_t ops, unsigned rounds)
{
	const struct competitor *c[8];
	double ns[8][MAX_ROUNDS];
	unsigned n = 0, found[8];
	for (const char *s = list; *s; s += strcspn(s, ",") + (s[strcspn(s, ",")] == ',')) {
		c[n] = competitor_named(s, strcspn(s, ","));
		if (!c[n] || ++n == 8)
			exit(2);
	}
	for (unsigned i = 0; i < n; i++) /* warm */
		(void)round_ns(b, c[i], ops / 4 + 1, &found[i]);
	for (unsigned r = 0; r < rounds; r++)
		for (unsigned i = 0; i < n; i++)
			ns[i][r] = round_ns(b, c[i], ops, &found[i]);
	for (unsigned i = 0; i < n; i++) {
		printf("%s\t%.4f", c[i]->name, (double)found[i] / (double)ops);
		for (unsigned r = 0; r < rounds; r++)
			printf("\t%.2f", ns[i][r]);
		putchar('\n');
	}
}

/*
 * lookup POLICY.BIN QUESTIONS COMPETITORS OPS ROUNDS [LIST DIR [PROFILES]]
 * LIST and DIR: the names, for the peers, and where these may put their files ("-": no peers).
 */
int main(int argc, char **argv)
{
	struct bench b = { .n_profiles = 1 };
	struct policy_info info;
	char why[POLICY_WHY_SIZE];
	const struct policy_trust trust = { .features = UINT64_MAX, .any_owner = true };
	if (argc < 6) {
		fputs("usage: lookup POLICY QUESTIONS COMPETITORS OPS ROUNDS [LIST DIR "
		      "[PROFILES]]\n",
		      stderr);
		return 2;
	}
	unsigned rounds = (unsigned)strtoul(argv[5], NULL, 10);
	if (rounds == 0 || rounds > MAX_ROUNDS)
		return 2;
	enum policy_err e = policy_open(&b.policy, argv[1], &trust, why);
	if (e != POLICY_OK) {
		fprintf(stderr, "lookup: %s: %s %s\n", argv[1], policy_strerror(e), why);
		return 3;
	}
	policy_info(b.policy, &info);
	load_questions(&b, argv[2]);
	if (argc > 7 && strcmp(argv[6], "-") != 0)
		build_peers(&b, argv[6], argv[7], 4 * info.size + (64u << 20));
	if (argc > 8)
		b.n_profiles = (unsigned)strtoul(argv[8], NULL, 10);
	if (strstr(argv[3], "chase"))
		build_chase(&b, info.size);
	compete(&b, argv[3], strtoul(argv[4], NULL, 10), rounds);
	for (size_t i = 0; i < b.n; i++)
		free(b.wire[i]);
	free(b.wire);
	free(b.names);
	free(b.chase);
	policy_close(b.policy);
	return 0;
}
