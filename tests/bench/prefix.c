/* SPDX-License-Identifier: Apache-2.0 */
/*
 * B12: which client prefix holds an address: policy_source() against libmaxminddb, with the same prefixes
 * and the same addresses, in turn in one process. Both must find the same. Prints nanoseconds an address of
 * each round. Measures only.
 */
#include <arpa/inet.h>
#include <maxminddb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/policy/policy.h"

enum { MAX_ADDRS = 1 << 20 };

struct bench {
	struct policy *policy;
	MMDB_s db;
	struct addr *addrs;
	struct sockaddr_in *socks;
	size_t n;
	uint64_t sum; /* keeps the work from being left out */
};

static void die(const char *what)
{
	fprintf(stderr, "prefix: %s\n", what);
	exit(3);
}

static double now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void read_addrs(struct bench *b, const char *path)
{
	char line[64];
	FILE *f = fopen(path, "r");
	b->addrs = calloc(MAX_ADDRS, sizeof(*b->addrs));
	b->socks = calloc(MAX_ADDRS, sizeof(*b->socks));
	if (!f || !b->addrs || !b->socks)
		die(path);
	while (b->n < MAX_ADDRS && fgets(line, sizeof(line), f)) {
		struct sockaddr_in *s = &b->socks[b->n];
		line[strcspn(line, "\n")] = '\0';
		s->sin_family = AF_INET;
		if (inet_pton(AF_INET, line, &s->sin_addr) != 1 ||
		    !addr_from_text(&b->addrs[b->n++], line, strlen(line)))
			die(line);
	}
	fclose(f);
}

static MMDB_lookup_result_s look_up(const struct bench *b, size_t i)
{
	int error;
	return MMDB_lookup_sockaddr(&b->db, (const struct sockaddr *)&b->socks[i], &error);
}

/* Both find the same profile, by its name. */
static void compare(const struct bench *b)
{
	for (size_t i = 0; i < b->n; i++) {
		struct source s = policy_source(b->policy, &b->addrs[i]);
		MMDB_lookup_result_s r = look_up(b, i);
		MMDB_entry_data_s d;
		const char *ours =
			s.kind == SOURCE_PROFILE ? policy_profile_name(b->policy, s.index) : "";
		if (r.found_entry != (s.kind == SOURCE_PROFILE))
			die("one finds a prefix, the other none");
		if (r.found_entry &&
		    (MMDB_get_value(&r.entry, &d, NULL) != MMDB_SUCCESS ||
		     d.data_size != strlen(ours) || memcmp(d.utf8_string, ours, d.data_size) != 0))
			die("they find different prefixes");
	}
}

static double ours(struct bench *b, size_t ops)
{
	double t = now_ns();
	for (size_t k = 0, i = 0; k < ops; k++, i = i + 1 == b->n ? 0 : i + 1)
		b->sum += policy_source(b->policy, &b->addrs[i]).index;
	return (now_ns() - t) / (double)ops;
}

static double theirs(struct bench *b, size_t ops)
{
	double t = now_ns();
	for (size_t k = 0, i = 0; k < ops; k++, i = i + 1 == b->n ? 0 : i + 1)
		b->sum += look_up(b, i).entry.offset;
	return (now_ns() - t) / (double)ops;
}

int main(int argc, char **argv)
{
	const struct policy_trust trust = { .features = UINT64_MAX, .any_owner = true };
	struct bench b = { .n = 0 };
	char why[POLICY_WHY_SIZE];
	if (argc != 6)
		die("usage: prefix POLICY.BIN FILE.MMDB ADDRESSES OPS ROUNDS");
	if (policy_open(&b.policy, argv[1], &trust, why) != POLICY_OK)
		die(why);
	if (MMDB_open(argv[2], MMDB_MODE_MMAP, &b.db) != MMDB_SUCCESS)
		die(argv[2]);
	read_addrs(&b, argv[3]);
	compare(&b);
	size_t ops = strtoul(argv[4], NULL, 10);
	for (unsigned long i = strtoul(argv[5], NULL, 10); i; i--) {
		double x = ours(&b, ops);
		printf("%.2f\t%.2f\n", x, theirs(&b, ops));
	}
	fprintf(stderr, "%llx\n", (unsigned long long)b.sum);
	MMDB_close(&b.db);
	policy_close(b.policy);
	free(b.addrs);
	free(b.socks);
	return 0;
}
