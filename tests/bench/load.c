/* SPDX-License-Identifier: Apache-2.0 */
/*
 * B4: what it costs a plugin to load a policy: policy_open(), and one question. Prints the CPU seconds and
 * the memory in KiB that this took. Measures only.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "shared/policy/policy.h"

static double cpu_seconds(void)
{
	struct rusage r;
	getrusage(RUSAGE_SELF, &r);
	return (double)r.ru_utime.tv_sec + (double)r.ru_stime.tv_sec +
	       (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

/* Of /proc/self/status: what is resident, shared or not. */
static long resident_kib(void)
{
	char line[256];
	long kib = 0;
	FILE *f = fopen("/proc/self/status", "r");
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "VmRSS:", 6) == 0)
			kib = atol(line + 6);
	if (f)
		fclose(f);
	return kib;
}

int main(int argc, char **argv)
{
	const struct policy_trust trust = { .features = UINT64_MAX, .any_owner = true };
	struct policy_match m[POLICY_MAX_MATCHES];
	struct policy *p;
	struct name n;
	char why[POLICY_WHY_SIZE];
	if (argc != 3 || name_from_text(&n, argv[2], strlen(argv[2])) != NAME_OK) {
		fputs("usage: load POLICY.BIN NAME\n", stderr);
		return 2;
	}
	long kib = resident_kib();
	double cpu = cpu_seconds();
	if (policy_open(&p, argv[1], &trust, why) != POLICY_OK) {
		fprintf(stderr, "load: %s\n", why);
		return 3;
	}
	unsigned found = policy_find(p, &n, m);
	cpu = cpu_seconds() - cpu;
	printf("%.6f\t%ld\t%u\n", cpu, resident_kib() - kib, found);
	policy_close(p);
	return found ? 0 : 1;
}
