/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets in files: what is taken, and what is not because others could read, write or have made it. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spoa-agent/secret.h"

static char dir[] = "/tmp/cx-secret-XXXXXX";

static void put(const char *name, const char *text, mode_t mode)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
}

static const char *basic(const char *name)
{
	static char out[SECRET_BASIC_SIZE];
	bool ok = secret_basic(dir, name, out);
	assert_int_equal(ok, out[0] != '\0');
	return out;
}

static void values(void **state)
{
	static const struct {
		const char *text, *value;
	} t[] = {
		{ "a:b", "Basic YTpi" },
		{ "a:bc\n", "Basic YTpiYw==" },
		{ "a:bcd\r\n", "Basic YTpiY2Q=" },
		{ "a:b c~!", "Basic YTpiIGN+IQ==" },
		{ "", "" },
		{ "\n", "" },
		{ "nocolon", "" },
		{ "a:b\nX-More: 1", "" },
		{ "a:b\r\nc\n", "" },
		{ "a:\x01", "" },
		{ "a:\xc3\xa4", "" },
	};
	for (size_t i = 0; i < COUNT(t); i++) {
		put("S", t[i].text, 0600);
		assert_string_equal(basic("S"), t[i].value);
	}
	char text[SECRET_MAX + 8];
	for (size_t n = SECRET_MAX - 1; n <= SECRET_MAX + 2; n++) {
		memset(text, 'x', n);
		text[1] = ':';
		text[n] = '\0';
		put("S", text, 0600);
		size_t want = n > SECRET_MAX ? 0 : 6 + (n + 2) / 3 * 4;
		assert_int_equal(strlen(basic("S")), want);
	}
}

static void who_may(void **state)
{
	put("S", "a:b", 0640);
	assert_string_not_equal(basic("S"), "");
	static const mode_t bad[] = { 0644, 0604, 0660, 0602, 0601 };
	for (size_t i = 0; i < COUNT(bad); i++) {
		put("S", "a:b", bad[i]);
		assert_string_equal(basic("S"), "");
	}
	put("S", "a:b", 0600);
	if (geteuid() == 0) {
		char path[128];
		snprintf(path, sizeof(path), "%s/S", dir);
		assert_int_equal(chown(path, 65534, 65534), 0);
		assert_string_equal(basic("S"), "");
	}
}

static void names(void **state)
{
	put("S", "a:b", 0600);
	assert_string_not_equal(basic("S"), "");
	static const char *const bad[] = {
		"", ".", "..", "../S", "./S", "S/", "NONE", "S ", "S\n"
	};
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_string_equal(basic(bad[i]), "");
}

static void others(void **state)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/F", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_string_equal(basic("F"), ""); /* and does not wait for a writer */
	unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_string_equal(basic("F"), "");
	rmdir(path);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(values),
		cmocka_unit_test(who_may),
		cmocka_unit_test(names),
		cmocka_unit_test(others),
	};
	if (!mkdtemp(dir))
		return 1;
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	char path[128];
	snprintf(path, sizeof(path), "%s/S", dir);
	unlink(path);
	rmdir(dir);
	return rc;
}
