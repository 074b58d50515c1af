/* SPDX-License-Identifier: Apache-2.0 */
/* The table of allowed connections: what is written is read back, and hostile files are not believed. */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/live/stream.h"

static char dir[64];

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/cx-stream-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command);
}

static struct addr address(const char *text)
{
	struct addr a;
	assert_true(addr_from_text(&a, text, strlen(text)));
	return a;
}

static struct name name(const char *text)
{
	struct name n;
	assert_int_equal(name_from_text(&n, text, strlen(text)), NAME_OK);
	return n;
}

static struct streams *create(void)
{
	char why[STREAM_WHY_SIZE] = "";
	struct streams *s = streams_create(dir, why);
	if (!s)
		fail_msg("%s", why);
	return s;
}

static struct stream_view *view(void)
{
	char why[STREAM_WHY_SIZE] = "";
	struct stream_view *v = stream_view_open(dir, why);
	if (!v)
		fail_msg("%s", why);
	return v;
}

static struct stream sample(const struct name *n, const char *src, uint16_t port)
{
	return (struct stream){ .layer = LAYER_HTTP,
				.src = address(src),
				.dst = address("198.51.100.9"),
				.src_port = port,
				.dst_port = 80,
				.port = 80,
				.has_to = true,
				.to = address("198.51.100.10"),
				.generation = 77,
				.since_ns = 5,
				.rule = "0123456789ab",
				.n_names = 1,
				.names = n,
				.method = "GET",
				.method_len = 3,
				.path = "/a?b",
				.path_len = 4 };
}

/* How many rows there are, and the place of the last one. */
static unsigned count(const struct stream_view *v, size_t *at)
{
	struct stream s;
	struct name names[STREAM_NAMES];
	unsigned n = 0;
	for (size_t i = 0; i < stream_view_size(v); i++)
		if (stream_view_get(v, i, &s, names)) {
			n++;
			*at = i;
		}
	return n;
}

static void read_back(void **state)
{
	struct streams *s = create();
	struct name n = name("a.example"), names[STREAM_NAMES];
	struct stream r = sample(&n, "10.0.0.7", 4000), got;
	size_t at = 0;
	assert_true(streams_put(s, &r));
	struct stream_view *v = view();
	assert_int_equal(count(v, &at), 1);
	assert_true(stream_view_get(v, at, &got, names));
	assert_int_equal(got.layer, LAYER_HTTP);
	assert_memory_equal(&got.src, &r.src, sizeof(r.src));
	assert_memory_equal(&got.dst, &r.dst, sizeof(r.dst));
	assert_memory_equal(&got.to, &r.to, sizeof(r.to));
	assert_int_equal(got.src_port, 4000);
	assert_int_equal(got.dst_port, 80);
	assert_int_equal(got.generation, 77);
	assert_string_equal(got.rule, "0123456789ab");
	assert_int_equal(got.n_names, 1);
	assert_true(name_equal(&got.names[0], &n));
	assert_int_equal(got.path_len, 4);
	assert_memory_equal(got.path, "/a?b", 4);
	assert_memory_equal(got.method, "GET", 3);
	assert_false(got.cut_short);
	/* the next request of the same connection takes its place */
	r.path = "/other";
	r.path_len = 6;
	assert_true(streams_put(s, &r));
	char why[STREAM_WHY_SIZE];
	assert_true(stream_view_read(v, why));
	assert_int_equal(count(v, &at), 1);
	stream_view_close(v);
	streams_close(s);
}

static void long_texts(void **state)
{
	struct streams *s = create();
	char path[STREAM_TEXT_SIZE + 1];
	memset(path, 'x', sizeof(path));
	struct name n = name("a.example"), names[STREAM_NAMES];
	struct stream r = sample(&n, "10.0.0.8", 1), got;
	size_t at = 0;
	r.path = path;
	r.path_len = sizeof(path);
	streams_put(s, &r);
	struct stream_view *v = view();
	bool found = false;
	count(v, &at);
	for (size_t i = 0; i < stream_view_size(v) && !found; i++)
		found = stream_view_get(v, i, &got, names) && got.cut_short;
	assert_true(found);
	assert_int_equal(got.path_len, 0);
	assert_int_equal(got.method_len, 0);
	assert_true(name_equal(&got.names[0], &n));
	stream_view_close(v);
	streams_close(s);
}

/* Places of connections that are gone are used again, and only these. */
static void gone(void **state)
{
	struct streams *s = create();
	struct name n = name("a.example");
	struct stream_view *v = view();
	char why[STREAM_WHY_SIZE];
	size_t at = 0;
	for (unsigned i = 0; i < 8000; i++) {
		struct stream r = sample(&n, "10.0.1.1", (uint16_t)(1 + i));
		r.since_ns = 100 + i;
		assert_true(streams_put(s, &r));
	}
	assert_true(stream_view_read(v, why));
	unsigned before = count(v, &at);
	assert_true(before >= 8000);
	uint64_t id = stream_view_id(v, at);
	stream_view_mark_gone(v, at);
	assert_true(stream_view_read(v, why));
	size_t other;
	assert_int_equal(count(v, &other), before - 1);
	assert_int_equal(stream_view_id(v, at), id);
	for (size_t i = 0; i < stream_view_size(v); i++)
		stream_view_mark_gone(v, i);
	for (unsigned i = 0; i < 8000; i++) {
		struct stream r = sample(&n, "10.0.1.2", (uint16_t)(1 + i));
		r.since_ns = 100000 + i;
		assert_true(streams_put(s, &r));
	}
	stream_view_close(v);
	streams_close(s);
}

/* More than there is room for: the oldest of a set go, and it is said. */
static void full(void **state)
{
	struct streams *s = create();
	struct name n = name("a.example");
	unsigned lost = 0;
	size_t at;
	for (unsigned i = 0; i < 3 * STREAM_ROWS; i++) {
		char src[32];
		snprintf(src, sizeof(src), "10.2.%u.%u", i >> 8 & 255, i & 255);
		struct stream r = sample(&n, src, 9);
		r.since_ns = 1000000 + i;
		lost += !streams_put(s, &r);
	}
	struct stream_view *v = view();
	assert_true(lost > STREAM_ROWS);
	assert_int_equal(count(v, &at), STREAM_ROWS);
	stream_view_close(v);
	streams_close(s);
}

static void newest(void **state)
{
	struct streams *s = create();
	struct name n = name("a.example"), names[STREAM_NAMES];
	struct stream r = sample(&n, "10.3.0.1", 7), got;
	r.since_ns = UINT64_C(1) << 40;
	streams_put(s, &r);
	r.dst = address("198.51.100.77");
	r.since_ns++;
	streams_put(s, &r);
	struct stream_view *v = view();
	unsigned seen = 0;
	for (size_t i = 0; i < stream_view_size(v); i++) {
		if (!stream_view_get(v, i, &got, names) || addr_cmp(&got.src, &r.src) != 0)
			continue;
		seen++;
		assert_int_equal(stream_view_is_older(v, i), addr_cmp(&got.dst, &r.dst) != 0);
	}
	assert_int_equal(seen, 2);
	stream_view_close(v);
	streams_close(s);
}

/* Two writers have a file each; one that comes back finds what there was. */
static void writers(void **state)
{
	struct streams *a = create(), *b = create();
	struct name n = name("b.example");
	struct stream r = sample(&n, "10.4.0.1", 7);
	size_t at;
	r.since_ns = UINT64_C(1) << 41;
	streams_put(b, &r);
	struct stream_view *v = view();
	unsigned before = count(v, &at);
	stream_view_close(v);
	streams_close(a);
	streams_close(b);
	a = create();
	b = create();
	v = view();
	assert_int_equal(count(v, &at), before);
	stream_view_close(v);
	streams_close(a);
	streams_close(b);
}

static void damage(size_t from, size_t to, uint8_t with)
{
	char path[96];
	snprintf(path, sizeof(path), "%s/streams/0", dir);
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	for (size_t at = from; at < to; at += 3)
		assert_int_equal(pwrite(fd, &with, 1, (off_t)at), 1);
	close(fd);
}

static void damaged(void **state)
{
	char path[96], why[STREAM_WHY_SIZE];
	size_t at;
	struct stream_view *v = view();
	unsigned before = count(v, &at);
	assert_true(before > STREAM_ROWS / 2);
	damage(4096, 4096 + (size_t)640 * STREAM_ROWS, 0xff);
	assert_true(stream_view_read(v, why));
	assert_true(count(v, &at) < 2); /* what the second file holds */
	snprintf(path, sizeof(path), "%s/streams/0", dir);
	assert_int_equal(truncate(path, 100000), 0);
	assert_true(stream_view_read(v, why));
	assert_true(count(v, &at) < 2);
	/* who may write comes back, and all is well again */
	struct streams *s = create();
	struct name n = name("c.example");
	struct stream r = sample(&n, "10.5.0.1", 7);
	streams_put(s, &r);
	assert_true(stream_view_read(v, why));
	assert_true(count(v, &at) >= 1);
	stream_view_close(v);
	streams_close(s);
}

static void untrusted(void **state)
{
	char path[96], why[STREAM_WHY_SIZE] = "";
	struct stream_view *v = view();
	size_t at;
	assert_true(count(v, &at) > 0);
	snprintf(path, sizeof(path), "%s/streams/0", dir);
	assert_int_equal(chmod(path, 0666), 0);
	snprintf(path, sizeof(path), "%s/streams/1", dir);
	unlink(path);
	assert_true(stream_view_read(v, why));
	assert_int_equal(count(v, &at), 0);
	snprintf(path, sizeof(path), "%s/streams", dir);
	assert_int_equal(chmod(path, 0777), 0);
	assert_false(stream_view_read(v, why));
	assert_true(*why);
	assert_null(streams_create(dir, why));
	stream_view_close(v);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(read_back), cmocka_unit_test(long_texts),
		cmocka_unit_test(gone),      cmocka_unit_test(full),
		cmocka_unit_test(newest),    cmocka_unit_test(writers),
		cmocka_unit_test(damaged),   cmocka_unit_test(untrusted),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
