/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cx-policyc: the compiler's command line. Must never write anything unless the policy is right, and
 * never leave half of it.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/compile/compile.h"
#include "shared/compile/diff.h"
#include "shared/compile/dump.h"
#include "shared/compile/emit.h"
#include "shared/compile/import.h"
#include "shared/compile/schema.h"
#include "shared/compile/sign.h"
#include "shared/tools/trials.h"

enum { EXIT_FINE, EXIT_POLICY, EXIT_USAGE, EXIT_SYSTEM };

enum action {
	ACTION_COMPILE,
	ACTION_HELP,
	ACTION_VERSION,
	ACTION_LIST_PRESETS,
	ACTION_PRESET,
	ACTION_VERIFY,
	ACTION_DUMP,
	ACTION_DIFF,
	ACTION_IMPORT,
	ACTION_SCHEMA
};

struct args {
	enum action action;
	const char *output;
	const char *preset;
	const char *key; /* --sign, --verify */
	const char *dumped;
	emit_fn *emit;
	enum import_kind import;
	bool only_widened;        /* --fail-on */
	const char *strict_codes; /* NULL: all */
	bool strict, check;
	bool test, coverage; /* --test, --coverage */
	enum diag_format format;
	struct compile_options options;
	const char *const *files;
	size_t n_files;
};

/* ---- options ------------------------------------------------------------------------------------ */

/* Takes an option's value (NULL: it has none); false: the value is wrong. */
typedef bool take_fn(struct args *a, const char *value);

static bool take_output(struct args *a, const char *value)
{
	a->output = value;
	return *value != '\0';
}

static bool take_check(struct args *a, const char *value)
{
	(void)value;
	a->check = true;
	return true;
}

static bool take_test(struct args *a, const char *value)
{
	(void)value;
	a->test = true;
	return true;
}

static bool take_coverage(struct args *a, const char *value)
{
	(void)value;
	a->coverage = true;
	return true;
}

static bool take_strict(struct args *a, const char *value)
{
	a->strict = true;
	a->strict_codes = value;
	return !value || *value;
}

/* Seconds since 1970, or a date as in a policy. */
static bool take_now(struct args *a, const char *value)
{
	char *end;
	errno = 0;
	long long s = strtoll(value, &end, 10);
	if (*value && !*end && errno == 0 && s >= 0) {
		a->options.now_s = s;
		return true;
	}
	return time_from_text(value, strlen(value), true, &a->options.now_s);
}

static bool take_format(struct args *a, const char *value)
{
	static const char *const words[] = { "text", "json", "github", "markdown" };
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcmp(words[i], value) == 0) {
			a->format = (enum diag_format)i;
			return true;
		}
	return false;
}

static bool take_allow_unenforced(struct args *a, const char *value)
{
	(void)value;
	a->options.allow_unenforced = true;
	return true;
}

static bool take_list_presets(struct args *a, const char *value)
{
	(void)value;
	a->action = ACTION_LIST_PRESETS;
	return true;
}

static bool take_preset(struct args *a, const char *value)
{
	a->action = ACTION_PRESET;
	a->preset = value;
	return true;
}

static bool take_sign(struct args *a, const char *value)
{
	a->key = value;
	return *value != '\0';
}

static bool take_verify(struct args *a, const char *value)
{
	a->action = ACTION_VERIFY;
	a->key = value;
	return *value != '\0';
}

static bool take_dump(struct args *a, const char *value)
{
	a->action = ACTION_DUMP;
	a->dumped = value;
	return *value != '\0';
}

static bool take_diff(struct args *a, const char *value)
{
	(void)value;
	a->action = ACTION_DIFF;
	return true;
}

static bool take_fail_on(struct args *a, const char *value)
{
	a->only_widened = strcmp(value, "widened") == 0;
	return a->only_widened || strcmp(value, "any") == 0;
}

static bool take_emit(struct args *a, const char *value)
{
	a->emit = emit_find(value);
	return a->emit;
}

static bool take_import(struct args *a, const char *value)
{
	a->action = ACTION_IMPORT;
	return import_find(value, &a->import);
}

static bool take_schema(struct args *a, const char *value)
{
	(void)value;
	a->action = ACTION_SCHEMA;
	return true;
}

static bool take_help(struct args *a, const char *value)
{
	(void)value;
	a->action = ACTION_HELP;
	return true;
}

static bool take_version(struct args *a, const char *value)
{
	(void)value;
	a->action = ACTION_VERSION;
	return true;
}

/* One row an option: parsing, and what --help says. */
static const struct option_row {
	const char *name;
	char letter;   /* 0: none */
	int has_value; /* as getopt_long's has_arg */
	const char *value;
	take_fn *take;
	const char *help;
} rows[] = {
	{ "output", 'o', required_argument, "FILE", take_output,
	  "write the compiled policy to FILE" },
	{ "check", 0, no_argument, NULL, take_check, "only check, even with -o" },
	{ "test", 0, no_argument, NULL, take_test,
	  "only run the tests of the policy, and say how many passed" },
	{ "coverage", 0, no_argument, NULL, take_coverage,
	  "name the entries that no test reaches" },
	{ "strict", 0, optional_argument, "CODE,...", take_strict,
	  "take warnings (or those with these codes) for errors, but never those about dates" },
	{ "now", 0, required_argument, "TIME", take_now,
	  "the clock for dates: YYYY-MM-DD[THH:MM:SSZ] or seconds since 1970" },
	{ "format", 0, required_argument, "FORMAT", take_format,
	  "how findings are printed: text, json, github or markdown" },
	{ "allow-unenforced", 0, no_argument, NULL, take_allow_unenforced,
	  "let plugins load a policy with constructs that this version does not enforce" },
	{ "list-presets", 0, no_argument, NULL, take_list_presets,
	  "print the names of the presets" },
	{ "preset", 0, required_argument, "NAME", take_preset,
	  "print the hosts of a preset, what each lets out, and why it is there" },
	{ "sign", 0, required_argument, "KEY.pem", take_sign,
	  "sign the policy with this Ed25519 private key; it must have a `serial`" },
	{ "verify", 0, required_argument, "PUB.pem", take_verify,
	  "check that this public key's owner signed the compiled policy that follows" },
	{ "dump", 0, required_argument, "POLICY.BIN", take_dump,
	  "print a compiled policy as YAML; compiling that gives the same meaning" },
	{ "diff", 0, no_argument, NULL, take_diff,
	  "say what changes between two policies (YAML or compiled); exit 0 same, 1 differ, 4 "
	  "cannot" },
	{ "fail-on", 0, required_argument, "WHAT", take_fail_on,
	  "with --diff, exit 1 on any change (the default), or only if something was widened" },
	{ "emit", 0, required_argument, "KIND", take_emit,
	  "print what belongs to the servers: unbound-forward, haproxy, haproxy-map or nftables" },
	{ "import", 0, required_argument, "squid|list", take_import,
	  "print a list of names as a part of a policy, and say what cannot be kept" },
	{ "schema", 0, no_argument, NULL, take_schema, "print a JSON Schema of the language" },
	{ "help", 'h', no_argument, NULL, take_help, "print this" },
	{ "version", 'V', no_argument, NULL, take_version, "print the version" },
};

enum { N_ROWS = sizeof(rows) / sizeof(rows[0]), FIRST_LONG = 256 };

static void usage(FILE *to)
{
	fputs("usage: cx-policyc [options] policy.yaml... [-o policy.bin]\n", to);
}

static int help(void)
{
	usage(stdout);
	for (size_t i = 0; i < N_ROWS; i++) {
		const struct option_row *r = &rows[i];
		char left[48], letter[8] = "    ";
		if (r->letter)
			snprintf(letter, sizeof(letter), "-%c, ", r->letter);
		const char *sep = r->has_value == optional_argument ? "[=" : " ";
		snprintf(left, sizeof(left), "%s--%s%s%s%s", letter, r->name, r->value ? sep : "",
			 r->value ? r->value : "", r->has_value == optional_argument ? "]" : "");
		printf("  %-30s %s\n", left, r->help);
	}
	puts("exit: 0 fine, 1 the policy has errors, 2 usage, 3 system; nothing is written on 1, "
	     "2, 3");
	return EXIT_FINE;
}

static void fill_getopt(struct option *longs, char *shorts)
{
	for (size_t i = 0; i < N_ROWS; i++) {
		longs[i] = (struct option){ rows[i].name, rows[i].has_value, NULL,
					    FIRST_LONG + (int)i };
		if (!rows[i].letter)
			continue;
		*shorts++ = rows[i].letter;
		if (rows[i].has_value == required_argument)
			*shorts++ = ':';
	}
	longs[N_ROWS] = (struct option){ 0 };
	*shorts = '\0';
}

static const struct option_row *row_of(int c)
{
	if (c >= FIRST_LONG)
		return &rows[c - FIRST_LONG];
	for (size_t i = 0; i < N_ROWS; i++)
		if (rows[i].letter == c)
			return &rows[i];
	return NULL;
}

/* How many files follow the options. */
static void count_files(enum action action, size_t *least, size_t *most)
{
	if (action == ACTION_COMPILE) {
		*least = 1;
		*most = SIZE_MAX;
	} else if (action == ACTION_VERIFY || action == ACTION_IMPORT) {
		*least = *most = 1;
	} else if (action == ACTION_DIFF) {
		*least = *most = 2;
	}
}

static bool parse_args(struct args *a, int argc, char **argv)
{
	struct option longs[N_ROWS + 1];
	char shorts[2 * N_ROWS + 1];
	int c;
	fill_getopt(longs, shorts);
	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		const struct option_row *r = c == '?' ? NULL : row_of(c);
		if (!r)
			return false;
		if (!r->take(a, optarg)) {
			fprintf(stderr, "cx-policyc: --%s: \"%s\" is not a value that it takes\n",
				r->name, optarg);
			return false;
		}
	}
	a->files = (const char *const *)argv + optind;
	a->n_files = (size_t)(argc - optind);
	size_t least = 0, most = 0;
	count_files(a->action, &least, &most);
	if (a->n_files < least)
		fputs(least == 2 ? "cx-policyc: two policies are needed\n"
				 : "cx-policyc: no policy given\n",
		      stderr);
	else if (a->n_files > most)
		fputs(most ? "cx-policyc: too many files\n"
			   : "cx-policyc: this option takes no policy\n",
		      stderr);
	else
		return true;
	return false;
}

/* The clock for dates: --now, else SOURCE_DATE_EPOCH, else the machine's. */
static bool set_clock(struct args *a)
{
	const char *epoch = getenv("SOURCE_DATE_EPOCH");
	a->options.now_s = (int64_t)time(NULL);
	if (!epoch || !*epoch)
		return true;
	if (strspn(epoch, "0123456789") == strlen(epoch) && take_now(a, epoch))
		return true;
	fputs("cx-policyc: SOURCE_DATE_EPOCH is not a number of seconds\n", stderr);
	return false;
}

/* ---- actions ------------------------------------------------------------------------------------ */

static int list_presets(void)
{
	for (size_t i = 0; preset_at(i); i++)
		puts(preset_at(i)->name);
	return EXIT_FINE;
}

static int print_preset(const struct args *a)
{
	struct diags *d = diags_new();
	if (!d)
		return EXIT_SYSTEM;
	int rc = preset_print(a->preset, stdout, d) ? EXIT_FINE : EXIT_USAGE;
	if (diags_errors(d)) {
		diags_print(d, stderr, a->format);
		rc = EXIT_SYSTEM;
	} else if (rc == EXIT_USAGE) {
		fprintf(stderr, "cx-policyc: there is no preset \"%s\" (see --list-presets)\n",
			a->preset);
	}
	diags_free(d);
	return rc;
}

static int write_output(const struct args *a, uint8_t **bytes, size_t *len)
{
	char err[256];
	if ((!a->key || policy_sign(a->key, bytes, len, err, sizeof(err))) &&
	    compile_write_file(a->output, *bytes, *len, err, sizeof(err)) == 0)
		return EXIT_FINE;
	fprintf(stderr, "cx-policyc: %s\n", err);
	return EXIT_SYSTEM;
}

/* The policy's own tests, on the bytes that would be written. */
static int run_trials(const struct args *a, const struct model *m, const uint8_t *bytes, size_t len)
{
	struct trials t;
	if (!trials_run(m, bytes, len, a->options.now_s, a->coverage, &t))
		return EXIT_SYSTEM;
	if (a->test && a->format == DIAG_TEXT) {
		printf("%u passed, %u failed", t.passed, t.failed);
		if (a->coverage)
			printf("; %u of %u entries reached", t.reached, t.entries);
		putchar('\n');
	}
	return t.failed ? EXIT_POLICY : EXIT_FINE;
}

/* To standard output, or to the file of -o. */
static int write_emitted(const struct args *a, const struct model *m, struct diags *d)
{
	struct out o = { 0 };
	char err[256];
	int rc = EXIT_FINE;
	a->emit(m, &o);
	if (diags_errors(d)) {
		rc = EXIT_POLICY;
	} else if (!a->output) {
		fwrite(out_get(&o), 1, o.n, stdout);
	} else if (compile_write_file(a->output, (const uint8_t *)out_get(&o), o.n, err,
				      sizeof(err)) != 0) {
		fprintf(stderr, "cx-policyc: %s\n", err);
		rc = EXIT_SYSTEM;
	}
	out_fini(&o);
	return rc;
}

/* A policy without errors: lays it out, runs its tests, writes what is asked for. */
static int finish(const struct args *a, const struct model *m, struct diags *d)
{
	bool write = a->output && !a->check && !a->test;
	bool tests = m->n_tests || a->test || a->coverage;
	uint8_t *bytes = NULL;
	size_t len = 0;
	int rc = EXIT_FINE;
	if ((tests || (write && !a->emit)) &&
	    layout_and_write(m, required_features(m, &a->options), &bytes, &len) != 0)
		return EXIT_SYSTEM;
	if (tests)
		rc = run_trials(a, m, bytes, len);
	if (rc == EXIT_FINE && a->emit && !a->check && !a->test)
		rc = write_emitted(a, m, d);
	else if (rc == EXIT_FINE && write)
		rc = write_output(a, &bytes, &len);
	free(bytes);
	return rc;
}

static int compile(const struct args *a, struct diags *d)
{
	struct model *m = compile_policy(a->files, a->n_files, &a->options, d);
	if (!m)
		return EXIT_SYSTEM;
	if (a->strict)
		diags_strict(d, a->strict_codes);
	if (a->key && m->serial == 0)
		diag_error(d, (struct pos){ 0 }, "missing-key",
			   "a policy that is signed needs `serial`");
	int rc = diags_errors(d) ? EXIT_POLICY : EXIT_FINE;
	if (rc == EXIT_FINE)
		rc = finish(a, m, d);
	model_free(m);
	return rc;
}

static int run_compile(const struct args *a)
{
	struct diags *d = diags_new();
	if (!d) {
		fputs("cx-policyc: out of memory\n", stderr);
		return EXIT_SYSTEM;
	}
	int rc = compile(a, d);
	diags_print(d, a->format == DIAG_TEXT || a->emit ? stderr : stdout, a->format);
	diags_free(d);
	return rc;
}

static int verify(const struct args *a)
{
	char err[512];
	if (policy_verify(a->key, a->files[0], stdout, err, sizeof(err)))
		return EXIT_FINE;
	fprintf(stderr, "cx-policyc: %s\n", err);
	return EXIT_POLICY;
}

static int dump(const struct args *a)
{
	char err[512];
	if (policy_dump(a->dumped, stdout, err, sizeof(err)))
		return EXIT_FINE;
	fprintf(stderr, "cx-policyc: %s\n", err);
	return EXIT_POLICY;
}

static int diff(const struct args *a)
{
	const struct diff_options o = { .format = a->format, .only_widened = a->only_widened };
	return (int)policy_diff(a->files[0], a->files[1], &a->options, &o, stdout);
}

static int import(const struct args *a)
{
	if (policy_import(a->import, a->files[0], stdout, stderr) == 0)
		return EXIT_FINE;
	fprintf(stderr, "cx-policyc: %s: %s\n", a->files[0], strerror(errno));
	return EXIT_SYSTEM;
}

/* What was printed must have arrived. */
static int flushed(int rc)
{
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "cx-policyc: standard output: %s\n", strerror(errno));
		return EXIT_SYSTEM;
	}
	return rc;
}

int main(int argc, char **argv)
{
	struct args a = { 0 };
	if (!set_clock(&a) || !parse_args(&a, argc, argv)) {
		usage(stderr);
		return EXIT_USAGE;
	}
	switch (a.action) {
	case ACTION_HELP:
		return flushed(help());
	case ACTION_VERSION:
		puts("cx-policyc " CX_VERSION);
		return flushed(EXIT_FINE);
	case ACTION_LIST_PRESETS:
		return flushed(list_presets());
	case ACTION_PRESET:
		return flushed(print_preset(&a));
	case ACTION_VERIFY:
		return flushed(verify(&a));
	case ACTION_DUMP:
		return flushed(dump(&a));
	case ACTION_DIFF:
		return flushed(diff(&a));
	case ACTION_IMPORT:
		return flushed(import(&a));
	case ACTION_SCHEMA:
		schema_print(stdout);
		return flushed(EXIT_FINE);
	case ACTION_COMPILE:
		break;
	}
	return flushed(run_compile(&a));
}
