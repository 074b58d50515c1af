/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit log: every line is one JSON object whatever the client sent, a full ring drops and counts,
 * the file may be rotated away, and a full disk is reported and survived.
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/live/audit.h"

static char dir[] = "/tmp/cx-audit.XXXXXX";
static char path[64], moved[80];

static int make_dir(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/audit.jsonl", dir);
	snprintf(moved, sizeof(moved), "%s.1", path);
	return 0;
}

static int remove_files(void **state)
{
	unlink(path);
	unlink(moved);
	return 0;
}

static int remove_dir(void **state)
{
	remove_files(state);
	return rmdir(dir);
}

/* The file's text, NUL-terminated and the caller's. */
static char *slurp(const char *file)
{
	FILE *f = fopen(file, "r");
	if (!f)
		return NULL;
	size_t cap = 1 << 26;
	char *s = malloc(cap);
	size_t n = fread(s, 1, cap - 1, f);
	s[n] = '\0';
	fclose(f);
	return s;
}

static struct audit_event event_of(const struct name *n)
{
	return (struct audit_event){
		.wall_ns = INT64_C(1795262400123456789),
		.layer = LAYER_DNS,
		.action = ACTION_DENY,
		.reason = REASON_NOT_LISTED,
		.src = addr_of("192.0.2.7"),
		.name = n,
		.qtype = 1,
		.profile = "default",
		.rule = "0123456789ab",
		.revision = "r1",
		.policy = "abcdef012345",
	};
}

/* A strict reader of one JSON string, number, true or object of such; NULL if it is none. */
static const char *json_string(const char *s)
{
	if (*s++ != '"')
		return NULL;
	for (; *s != '"'; s++) {
		unsigned char c = (unsigned char)*s;
		if (c < 0x20 || c >= 0x7f)
			return NULL;
		if (c != '\\')
			continue;
		s++;
		if (*s == 'u') {
			if (strspn(s + 1, "0123456789abcdefABCDEF") < 4)
				return NULL;
			s += 4;
		} else if (*s == '\0' || !strchr("\"\\/bfnrt", *s)) {
			return NULL;
		}
	}
	return s + 1;
}

static const char *json_value(const char *s)
{
	if (*s == '"')
		return json_string(s);
	if (strncmp(s, "true", 4) == 0)
		return s + 4;
	size_t n = strspn(s, "0123456789");
	return n ? s + n : NULL;
}

static bool json_line(const char *s, const char *end)
{
	if (*s++ != '{')
		return false;
	for (;;) {
		s = json_string(s);
		if (!s || *s++ != ':')
			return false;
		s = json_value(s);
		if (!s)
			return false;
		if (*s == '}')
			return s + 1 == end;
		if (*s++ != ',')
			return false;
	}
}

/* Counts the lines of a text, each of which must be a JSON object. */
static size_t count_json(const char *text)
{
	size_t n = 0;
	while (*text) {
		const char *end = strchr(text, '\n');
		assert_non_null(end);
		if (!json_line(text, end))
			fail_msg("not one JSON object: %.*s", (int)(end - text), text);
		n++;
		text = end + 1;
	}
	return n;
}

static bool has(const char *text, const char *part)
{
	return strstr(text, part) != NULL;
}

static void writes_a_line(void **state)
{
	struct audit *a = audit_new("unbound", path);
	struct audit_ring *r = audit_ring_new(a);
	struct name n = name_of("www.example.com");
	struct audit_event e = event_of(&n);
	int err = -1;
	assert_true(audit_put(r, &e));
	assert_int_equal(audit_drain(a, &err), 1);
	assert_int_equal(err, 0);
	assert_int_equal(audit_drain(a, &err), 0);
	char *text = slurp(path);
	assert_int_equal(count_json(text), 1);
	assert_true(has(text, "\"v\":1"));
	assert_true(has(text, "\"ts\":\"2026-11-21T12:00:00.123456Z\""));
	assert_true(has(text, "\"layer\":\"dns\""));
	assert_true(has(text, "\"component\":\"unbound\""));
	assert_true(has(text, "\"src\":\"192.0.2.7\""));
	assert_true(has(text, "\"name\":\"www.example.com\""));
	assert_true(has(text, "\"qtype\":\"A\""));
	assert_true(has(text, "\"verdict\":\"deny\""));
	assert_true(has(text, "\"reason\":\"not-listed\""));
	assert_true(has(text, "\"rule\":\"0123456789ab\""));
	assert_true(has(text, "\"profile\":\"default\""));
	assert_true(has(text, "\"policy\":\"abcdef012345\""));
	assert_false(has(text, "\"observed\""));
	free(text);
	audit_ring_free(r);
	audit_free(a);
}

static void writes_what_a_proxy_knows(void **state)
{
	struct audit *a = audit_new("spoa", path);
	struct audit_ring *r = audit_ring_new(a);
	struct name n = name_of("www.example.com");
	struct audit_event e = event_of(&n);
	e.layer = LAYER_HTTP;
	e.action = ACTION_ALLOW;
	e.observed = true;
	e.port = 8080;
	e.has_dst = true;
	e.dst = addr_of("2001:db8::1");
	e.method = "GET and more";
	e.method_len = 3;
	e.path = "/a/b?token=secret";
	e.path_len = strlen(e.path);
	e.owner = "team \"a\"\n";
	e.origin = "policy.yaml:12";
	e.id = "id-7\r\n";
	e.id_len = 6;
	e.generation = UINT64_C(1795236592974);
	e.task = "job-17";
	assert_true(audit_put(r, &e));
	assert_int_equal(audit_drain(a, NULL), 1);
	char *text = slurp(path);
	assert_int_equal(count_json(text), 1);
	assert_true(has(text, "\"port\":8080"));
	assert_true(has(text, "\"dst\":\"2001:db8::1\""));
	assert_true(has(text, "\"method\":\"GET\""));
	assert_true(has(text, "\"path\":\"/a/b\""));
	assert_false(has(text, "secret"));
	assert_true(has(text, "\"observed\":true"));
	assert_true(has(text, "\"origin\":\"policy.yaml:12\""));
	assert_true(has(text, "\"task\":\"job-17\",\"generation\":1795236592974,"));
	free(text);
	audit_ring_free(r);
	audit_free(a);
}

/* Every octet, in every field that a client or a policy fills. */
static void no_octet_breaks_a_line(void **state)
{
	struct audit *a = audit_new("dns", path);
	struct audit_ring *r = audit_ring_new(a);
	for (unsigned c = 0; c < 256; c++) {
		uint8_t wire[] = { 3, 'a', (uint8_t)c, 'b', 1, (uint8_t)c, 0 };
		char octets[] = { 'x', (char)c, 'y' };
		char text[] = { 'x', c ? (char)c : 'z', 'y', '\0' };
		struct name n;
		assert_int_equal(name_from_wire(&n, wire, sizeof(wire), NULL), NAME_OK);
		struct audit_event e = event_of(&n);
		e.layer = c % 2 ? LAYER_HTTP : LAYER_DNS;
		e.method = e.path = e.id = octets;
		e.method_len = e.path_len = e.id_len = sizeof(octets);
		e.profile = e.owner = e.origin = e.revision = text;
		assert_true(audit_put(r, &e));
	}
	assert_int_equal(audit_drain(a, NULL), 256);
	char *text = slurp(path);
	assert_int_equal(count_json(text), 256);
	free(text);
	audit_ring_free(r);
	audit_free(a);
}

/* The largest event that can be: all fields full, every octet escaped. */
static void the_longest_event_fits(void **state)
{
	struct audit *a = audit_new("dns", path);
	struct audit_ring *r = audit_ring_new(a);
	uint8_t wire[256];
	char *big = malloc(70000);
	struct name n;
	memset(wire, 0xff, sizeof(wire));
	wire[0] = wire[64] = wire[128] = 63;
	wire[192] = 61;
	wire[254] = 0;
	assert_int_equal(name_from_wire(&n, wire, sizeof(wire), NULL), NAME_OK);
	memset(big, 0x01, 70000);
	big[69999] = '\0';
	struct audit_event e = event_of(&n);
	e.layer = LAYER_HTTP;
	e.method = e.path = e.id = big;
	e.method_len = e.path_len = e.id_len = 69999;
	e.profile = e.owner = e.origin = e.revision = e.rule = e.policy = big;
	for (unsigned i = 0; i < 300; i++)
		assert_true(audit_put(r, &e));
	assert_int_equal(audit_drain(a, NULL), 300);
	char *text = slurp(path);
	assert_int_equal(count_json(text), 300);
	free(text);
	free(big);
	audit_ring_free(r);
	audit_free(a);
}

static void a_full_ring_drops_and_counts(void **state)
{
	struct audit *a = audit_new("dns", path);
	struct audit_ring *r = audit_ring_new(a);
	struct name n = name_of("www.example.com");
	struct audit_event e = event_of(&n);
	uint64_t taken = 0, dropped = 0;
	for (unsigned i = 0; i < 50000; i++)
		if (audit_put(r, &e))
			taken++;
		else
			dropped++;
	assert_true(dropped > 0);
	assert_int_equal(audit_dropped(a), dropped);
	assert_int_equal(audit_drain(a, NULL), taken);
	assert_true(audit_put(r, &e)); /* there is room again */
	assert_int_equal(audit_drain(a, NULL), 1);
	assert_int_equal(audit_dropped(a), dropped);
	char *text = slurp(path);
	assert_int_equal(count_json(text), taken + 1);
	free(text);
	audit_ring_free(r);
	audit_free(a);
}

static void a_moved_file_is_opened_anew(void **state)
{
	struct audit *a = audit_new("dns", path);
	struct audit_ring *r = audit_ring_new(a);
	struct name one = name_of("one.example.com"), two = name_of("two.example.com");
	struct audit_event e = event_of(&one);
	audit_put(r, &e);
	assert_int_equal(audit_drain(a, NULL), 1);
	assert_int_equal(rename(path, moved), 0);
	e = event_of(&two);
	audit_put(r, &e);
	assert_int_equal(audit_drain(a, NULL), 1);
	char *old = slurp(moved), *new = slurp(path);
	assert_int_equal(count_json(old), 1);
	assert_int_equal(count_json(new), 1);
	assert_true(has(old, "one.example.com"));
	assert_true(has(new, "two.example.com"));
	free(old);
	free(new);
	audit_ring_free(r);
	audit_free(a);
}

static void appends_to_what_is_there(void **state)
{
	struct name n = name_of("www.example.com");
	struct audit_event e = event_of(&n);
	for (unsigned i = 0; i < 3; i++) {
		struct audit *a = audit_new("dns", path);
		struct audit_ring *r = audit_ring_new(a);
		audit_put(r, &e);
		audit_ring_free(r);
		audit_free(a); /* drains */
	}
	char *text = slurp(path);
	assert_int_equal(count_json(text), 3);
	free(text);
}

static void a_full_disk_is_counted_and_survived(void **state)
{
	struct audit *a = audit_new("dns", path);
	struct audit_ring *r = audit_ring_new(a);
	struct name n = name_of("www.example.com");
	struct audit_event e = event_of(&n);
	int err = 0;
	assert_int_equal(symlink("/dev/full", path), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_true(audit_put(r, &e));
	assert_int_equal(audit_drain(a, &err), 0);
	assert_int_equal(err, ENOSPC);
	assert_int_equal(audit_dropped(a), 5);
	assert_int_equal(unlink(path), 0);
	audit_put(r, &e);
	assert_int_equal(audit_drain(a, &err), 1);
	assert_int_equal(err, 0);
	assert_int_equal(audit_dropped(a), 5);
	audit_ring_free(r);
	audit_free(a);
}

static void a_missing_directory_is_reported(void **state)
{
	char gone[96];
	snprintf(gone, sizeof(gone), "%s/none/audit.jsonl", dir);
	struct audit *a = audit_new("dns", gone);
	struct audit_ring *r = audit_ring_new(a);
	struct name n = name_of("www.example.com");
	struct audit_event e = event_of(&n);
	int err = 0;
	audit_put(r, &e);
	assert_int_equal(audit_drain(a, &err), 0);
	assert_int_equal(err, ENOENT);
	assert_int_equal(audit_dropped(a), 1);
	audit_ring_free(r);
	audit_free(a);
}

static void without_a_file_nothing_is_lost(void **state)
{
	struct audit *a = audit_new("dns", NULL);
	struct audit_ring *r = audit_ring_new(a);
	struct name n = name_of("www.example.com");
	struct audit_event e = event_of(&n);
	int err = -1;
	for (unsigned i = 0; i < 20000; i++) {
		assert_true(audit_put(r, &e));
		if (i % 100 == 0)
			audit_drain(a, &err);
	}
	assert_int_equal(err, 0);
	assert_int_equal(audit_dropped(a), 0);
	audit_ring_free(r);
	audit_free(a);
}

/* ---- threads: hot ones write while one drains; not a line is lost or torn ---- */

enum { WRITERS = 3, EVENTS = 20000 };

struct writer_arg {
	struct audit *audit;
	unsigned id;
	uint64_t taken;
};

static void *write_events(void *arg)
{
	struct writer_arg *w = arg;
	char text[32];
	snprintf(text, sizeof(text), "w%u.example.com", w->id);
	struct name n;
	name_from_text(&n, text, strlen(text));
	struct audit_event e = { .layer = LAYER_DNS, .name = &n, .profile = text };
	struct audit_ring *r = audit_ring_new(w->audit);
	for (unsigned i = 0; i < EVENTS; i++)
		w->taken += audit_put(r, &e);
	audit_ring_free(r);
	return NULL;
}

static void threads_write_while_one_drains(void **state)
{
	struct audit *a = audit_new("dns", path);
	struct writer_arg w[WRITERS];
	pthread_t t[WRITERS];
	size_t lines = 0;
	uint64_t taken = 0;
	for (unsigned i = 0; i < WRITERS; i++) {
		w[i] = (struct writer_arg){ .audit = a, .id = i };
		assert_int_equal(pthread_create(&t[i], NULL, write_events, &w[i]), 0);
	}
	for (unsigned i = 0; i < 200; i++)
		lines += audit_drain(a, NULL);
	for (unsigned i = 0; i < WRITERS; i++) {
		pthread_join(t[i], NULL);
		taken += w[i].taken;
	}
	lines += audit_drain(a, NULL);
	assert_int_equal(lines, taken);
	assert_int_equal(taken + audit_dropped(a), (uint64_t)WRITERS * EVENTS);
	audit_free(a);
	char *text = slurp(path);
	assert_int_equal(count_json(text), lines);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(writes_a_line, remove_files),
		cmocka_unit_test_teardown(writes_what_a_proxy_knows, remove_files),
		cmocka_unit_test_teardown(no_octet_breaks_a_line, remove_files),
		cmocka_unit_test_teardown(the_longest_event_fits, remove_files),
		cmocka_unit_test_teardown(a_full_ring_drops_and_counts, remove_files),
		cmocka_unit_test_teardown(a_moved_file_is_opened_anew, remove_files),
		cmocka_unit_test_teardown(appends_to_what_is_there, remove_files),
		cmocka_unit_test_teardown(a_full_disk_is_counted_and_survived, remove_files),
		cmocka_unit_test_teardown(a_missing_directory_is_reported, remove_files),
		cmocka_unit_test_teardown(without_a_file_nothing_is_lost, remove_files),
		cmocka_unit_test_teardown(threads_write_while_one_drains, remove_files),
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
