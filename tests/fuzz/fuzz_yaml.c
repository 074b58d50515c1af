/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: arbitrary octets as policy.yaml, through the whole compiler. What it accepts, plugins must
 * accept too, the same octets must give the same file, and no question may crash it. Behind a line
 * "--- list" the octets are the file names.txt, which the policy may name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/compile/compile.h"
#include "shared/policy/image.h"
#include "tests/unit/exercise.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_INPUT = 65536 };

static char box[64];
static FILE *nowhere;

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_yaml: %s: %s\n", what, strerror(errno));
		abort();
	}
}

static void remove_box(void)
{
	if (chdir("/") == 0 && chdir(box) == 0) {
		unlink("policy.yaml");
		unlink("names.txt");
		rmdir(box);
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	snprintf(box, sizeof(box), "/dev/shm/cx-fuzz-yaml-XXXXXX");
	must(mkdtemp(box) != NULL, box);
	nowhere = fopen("/dev/null", "w");
	must(nowhere != NULL, "/dev/null");
	atexit(remove_box);
	return 0;
}

static void put_file(const char *name, const uint8_t *data, size_t size)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", box, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, data, size) == (ssize_t)size && close(fd) == 0, path);
}

/* The policy's octets; those behind the mark become the list. */
static size_t put_list(const uint8_t *data, size_t size)
{
	static const char mark[] = "\n--- list\n";
	const uint8_t *at = size ? memmem(data, size, mark, sizeof(mark) - 1) : NULL;
	if (!at) {
		put_file("names.txt", (const uint8_t *)"a.example.com\n*.example.net\n", 28);
		return size;
	}
	size_t used = (size_t)(at - data) + sizeof(mark) - 1;
	put_file("names.txt", data + used, size - used);
	return (size_t)(at - data) + 1;
}

/* The bytes of the policy, NULL if it has errors. */
static uint8_t *compile(size_t *len)
{
	const struct compile_options o = { .now_s = 1795262400, .allow_unenforced = true };
	char path[128];
	const char *paths[] = { path };
	uint8_t *bytes = NULL;
	snprintf(path, sizeof(path), "%s/policy.yaml", box);
	struct diags *d = diags_new();
	must(d != NULL, "no memory");
	struct model *m = compile_policy(paths, 1, &o, d);
	if (m && !diags_errors(d) &&
	    layout_and_write(m, required_features(m, &o), &bytes, len) != 0)
		bytes = NULL;
	diags_print(d, nowhere, DIAG_TEXT);
	diags_print(d, nowhere, DIAG_JSON);
	model_free(m);
	diags_free(d);
	return bytes;
}

/* As the mapping would be: aligned, and not one octet longer. */
static void ask(const uint8_t *bytes, size_t len)
{
	const struct policy_trust trust = { .features = UINT64_MAX };
	struct policy p = { .size = len };
	char why[POLICY_WHY_SIZE] = "";
	void *copy = NULL;
	must(posix_memalign(&copy, 4096, len) == 0, "no memory");
	memcpy(copy, bytes, len);
	p.base = copy;
	enum policy_err e = image_check(&p, &trust, why);
	if (e != POLICY_OK) {
		fprintf(stderr, "fuzz_yaml: the compiler's own file is refused: %s: %s\n",
			policy_strerror(e), why);
		abort();
	}
	exercise_policy(&p);
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t len, again_len = 0;
	if (size > MAX_INPUT)
		return -1;
	put_file("policy.yaml", data, put_list(data, size));
	uint8_t *bytes = compile(&len);
	if (!bytes)
		return 0;
	ask(bytes, len);
	uint8_t *again = compile(&again_len);
	if (!again || again_len != len || memcmp(bytes, again, len) != 0) {
		fprintf(stderr, "fuzz_yaml: the same policy gave another file\n");
		abort();
	}
	free(again);
	free(bytes);
	return 0;
}
