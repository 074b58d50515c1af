/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a binding adds to its profile or narrows it to: as text, packed, and in the verdict, where
 * neither a deny nor `never` nor the ceiling of the policy ever gives way to it.
 */
#include "tests/unit/fixture.h"

#include "shared/live/bindwrite.h"
#include "shared/live/decide.h"
#include "shared/policy/features.h"
#include "shared/policy/overlay.h"

static char dir[] = "/tmp/cx-overlay.XXXXXX";
static char path[64];
static struct policy *p;
static const struct now now = { .boot_ns = 1, .wall_ns = INT64_C(1795219200) * 1000000000 };

static int setup(void **state)
{
	const struct policy_trust trust = { .features = FEATURES_ENFORCED, .any_owner = true };
	struct bytes c = fixture('c');
	char why[POLICY_WHY_SIZE];
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/policy.bin", dir);
	write_bytes(path, c.p, c.n);
	free(c.p);
	return policy_open(&p, path, &trust, why) == POLICY_OK ? 0 : -1;
}

static int teardown(void **state)
{
	char file[96];
	policy_close(p);
	unlink(path);
	snprintf(file, sizeof(file), "%s/bindings", dir);
	unlink(file);
	snprintf(file, sizeof(file), "%s/bindings.lock", dir);
	unlink(file);
	return rmdir(dir);
}

static void reads_entries(void **state)
{
	static const struct {
		const char *text;
		bool only, good;
	} cases[] = {
		{ "example.com", false, true },
		{ "*.example.com", false, true },
		{ "EXAMPLE.com.", false, true },
		{ "example.com:443", false, true },
		{ "example.com:443,8000-8100/https", false, true },
		{ "example.com/https+http", false, true },
		{ "example.com:22/tcp", true, true },
		{ "example.com:22/tcp", false, false },
		{ "example.com/tcp", true, false },
		{ "", false, false },
		{ "*", false, false },
		{ "*.", false, false },
		{ "**.example.com", false, false },
		{ "a.*.com", false, false },
		{ "example.com:", false, false },
		{ "example.com:0", false, false },
		{ "example.com:65536", false, false },
		{ "example.com:9-8", false, false },
		{ "example.com:1,2,3,4,5,6,7,8", false, true },
		{ "example.com:1,2,3,4,5,6,7,8,9", false, false },
		{ "example.com/", false, false },
		{ "example.com/quic", false, false },
		{ "example.com/https+", false, false },
		{ "10.0.0.1", false, false },
		{ "exa mple.com", false, false },
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct overlay_entry e;
		char why[OVERLAY_WHY_SIZE];
		if (overlay_from_text(&e, cases[i].text, cases[i].only, why) != cases[i].good)
			fail_msg("%s", cases[i].text);
	}
}

static void packs_and_unpacks(void **state)
{
	uint8_t buf[256];
	char why[OVERLAY_WHY_SIZE];
	struct overlay_entry e, f;
	struct writer w = wr_init(buf, sizeof(buf));
	assert_true(overlay_from_text(&e, "*.example.com:443,8000-8100/https", false, why));
	overlay_put(&w, &e);
	assert_true(overlay_from_text(&f, "b.example.com", true, why));
	overlay_put(&w, &f);
	struct reader r = rd_init(buf, w.len);
	assert_true(overlay_next(&r, &f));
	assert_int_equal(f.flags, OVERLAY_BELOW);
	assert_int_equal(f.n_ports, 2);
	assert_int_equal(f.ports[1].hi, 8100);
	assert_true(name_equal(&f.name, &e.name));
	assert_true(overlay_next(&r, &f));
	assert_int_equal(f.flags, OVERLAY_ONLY);
	assert_false(overlay_next(&r, &f));
	assert_false(r.bad);
	/* whatever the bytes are, nothing behind them is read */
	for (size_t n = 0; n < w.len; n++) {
		uint8_t *exact = malloc(n + 1);
		memcpy(exact, buf, n);
		r = rd_init(exact, n);
		while (overlay_next(&r, &f))
			;
		free(exact);
	}
	uint64_t seed = 4;
	for (unsigned i = 0; i < 20000; i++) {
		for (size_t k = 0; k < 32; k++)
			buf[k] = (uint8_t)(next_random(&seed) >> (k % 2 ? 60 : 0));
		r = rd_init(buf, 32);
		while (overlay_next(&r, &f))
			assert_true(f.n_ports <= OVERLAY_MAX_PORTS && f.name.len <= NAME_MAX_WIRE);
	}
}

/* ---- verdicts ---- */

struct overlay {
	uint8_t b[512];
	struct writer w;
};

static void add(struct overlay *o, const char *text, bool only)
{
	struct overlay_entry e;
	char why[OVERLAY_WHY_SIZE];
	if (!o->w.p)
		o->w = wr_init(o->b, sizeof(o->b));
	if (!overlay_from_text(&e, text, only, why))
		fail_msg("%s: %s", text, why);
	overlay_put(&o->w, &e);
}

static struct verdict ask(enum layer layer, const char *name, uint16_t port, const char *profile,
			  const struct overlay *o)
{
	const struct binding b = { .generation = 5,
				   .profile = profile,
				   .overlay = o ? o->b : NULL,
				   .overlay_len = o ? o->w.len : 0 };
	const struct facts f = { .now = now, .binding = profile ? &b : NULL };
	struct name n = name_of(name);
	struct question q = question_about(layer, "10.9.0.1", &n, port);
	struct verdict v;
	verdict(p, &q, &f, &v);
	return v;
}

static enum reason reason(enum layer layer, const char *name, uint16_t port,
			  const struct overlay *o)
{
	return ask(layer, name, port, "ci", o).reason;
}

static void a_binding_names_the_profile(void **state)
{
	assert_int_equal(ask(LAYER_TLS, "b.example.com", 443, NULL, NULL).reason,
			 REASON_NO_BINDING);
	assert_int_equal(ask(LAYER_TLS, "b.example.com", 443, "gone", NULL).reason,
			 REASON_NO_PROFILE);
	/* there is such a profile, but not for this prefix */
	assert_int_equal(ask(LAYER_TLS, "c.example.com", 443, "plain", NULL).reason,
			 REASON_NO_PROFILE);
	assert_int_equal(ask(LAYER_TLS, "b.example.com", 443, "ci", NULL).reason, REASON_ALLOWED);
	assert_int_equal(ask(LAYER_TLS, "b.example.com", 443, "default", NULL).reason,
			 REASON_NOT_LISTED);
	assert_int_equal(ask(LAYER_TLS, "a.example.com", 443, "default", NULL).reason,
			 REASON_ALLOWED);
}

static void another_generation_is_stale(void **state)
{
	const struct binding b = { .generation = 5, .profile = "ci" };
	const struct facts f = { .now = now, .binding = &b };
	struct name n = name_of("b.example.com");
	struct question q = question_about(LAYER_TLS, "10.9.0.1", &n, 443);
	struct verdict v;
	q.has_generation = true;
	q.generation = 5;
	verdict(p, &q, &f, &v);
	assert_int_equal(v.reason, REASON_ALLOWED);
	for (uint64_t g = 0; g < 8; g++) {
		if (g == 5)
			continue;
		q.generation = g;
		verdict(p, &q, &f, &v);
		assert_int_equal(v.reason, REASON_STALE_BINDING);
	}
	/* a static source has generation 0 */
	q.src = addr_of("10.8.0.1");
	verdict(p, &q, &f, &v);
	assert_int_equal(v.reason, REASON_STALE_BINDING);
	q.generation = 0;
	verdict(p, &q, &f, &v);
	assert_int_equal(v.reason, REASON_NOT_LISTED);
}

static void additions_stay_within_the_ceiling(void **state)
{
	struct overlay o = { .w = { 0 } }, out = { .w = { 0 } }, wide = { .w = { 0 } },
		       many = { .w = { 0 } };
	assert_int_equal(reason(LAYER_TLS, "x.staging.example.com", 443, NULL), REASON_NOT_LISTED);
	add(&o, "x.staging.example.com", false);
	add(&o, "*.y.staging.example.com", false);
	add(&o, "exact.example.org", false);
	assert_int_equal(reason(LAYER_TLS, "x.staging.example.com", 443, &o), REASON_ALLOWED);
	assert_int_equal(reason(LAYER_DNS, "x.staging.example.com", 0, &o), REASON_ALLOWED);
	assert_int_equal(reason(LAYER_HTTP, "x.staging.example.com", 80, &o), REASON_ALLOWED);
	assert_int_equal(reason(LAYER_TLS, "x.staging.example.com", 8443, &o), REASON_NOT_LISTED);
	assert_int_equal(reason(LAYER_TLS, "z.y.staging.example.com", 443, &o), REASON_ALLOWED);
	assert_int_equal(reason(LAYER_TLS, "y.staging.example.com", 443, &o), REASON_NOT_LISTED);
	assert_int_equal(reason(LAYER_TLS, "exact.example.org", 443, &o), REASON_ALLOWED);
	assert_true(ask(LAYER_TLS, "exact.example.org", 443, "ci", &o).added);
	/* the profile default lets nothing be added */
	assert_int_equal(ask(LAYER_TLS, "exact.example.org", 443, "default", &o).reason,
			 REASON_NOT_LISTED);

	add(&out, "www.example.net", false);
	add(&out, "sub.exact.example.org", false);
	add(&out, "*.exact.example.org", false);
	assert_int_equal(reason(LAYER_TLS, "www.example.net", 443, &out), REASON_NOT_LISTED);
	assert_int_equal(reason(LAYER_TLS, "sub.exact.example.org", 443, &out), REASON_NOT_LISTED);

	add(&wide, "*.example.com", false);
	add(&wide, "staging.example.com", false);
	add(&wide, "*.staging.example.com:443,8443", false);
	assert_int_equal(reason(LAYER_TLS, "w.example.com", 443, &wide), REASON_NOT_LISTED);
	assert_int_equal(reason(LAYER_TLS, "staging.example.com", 443, &wide), REASON_NOT_LISTED);
	assert_int_equal(reason(LAYER_TLS, "w.staging.example.com", 8443, &wide),
			 REASON_NOT_LISTED);

	for (unsigned i = 0; i < 4; i++) {
		char text[64];
		snprintf(text, sizeof(text), "n%u.staging.example.com", i);
		add(&many, text, false);
	}
	assert_int_equal(reason(LAYER_TLS, "n2.staging.example.com", 443, &many), REASON_ALLOWED);
	assert_int_equal(reason(LAYER_TLS, "n3.staging.example.com", 443, &many),
			 REASON_NOT_LISTED);
}

static void ports_and_protocols_stay_within_too(void **state)
{
	struct overlay o = { .w = { 0 } };
	add(&o, "a.ports.example.org:443/https", false);
	add(&o, "b.ports.example.org:8443/https", false);
	add(&o, "c.ports.example.org:443-444/https", false);
	assert_int_equal(reason(LAYER_TLS, "a.ports.example.org", 443, &o), REASON_ALLOWED);
	assert_int_equal(reason(LAYER_HTTP, "a.ports.example.org", 80, &o), REASON_NOT_LISTED);
	assert_int_equal(reason(LAYER_TLS, "b.ports.example.org", 8443, &o), REASON_NOT_LISTED);
	assert_int_equal(reason(LAYER_TLS, "c.ports.example.org", 443, &o), REASON_NOT_LISTED);
	assert_int_equal(reason(LAYER_DNS, "c.ports.example.org", 0, &o), REASON_NOT_LISTED);
}

static void neither_deny_nor_never_is_lifted(void **state)
{
	struct overlay o = { .w = { 0 } };
	add(&o, "x.bad.staging.example.com", false);
	add(&o, "x.never.staging.example.com", false);
	add(&o, "*.staging.example.com", false);
	assert_int_equal(reason(LAYER_TLS, "x.bad.staging.example.com", 443, &o),
			 REASON_DENIED_ENTRY);
	assert_int_equal(reason(LAYER_TLS, "x.never.staging.example.com", 443, &o), REASON_NEVER);
	assert_int_equal(reason(LAYER_TLS, "x.staging.example.com", 443, &o), REASON_ALLOWED);
}

static void additions_are_never_private(void **state)
{
	struct overlay o = { .w = { 0 } };
	const struct addr private = addr_of("192.168.7.7");
	add(&o, "x.staging.example.com", false);
	const struct binding b = {
		.generation = 5, .profile = "ci", .overlay = o.b, .overlay_len = o.w.len
	};
	const struct facts f = { .now = now, .binding = &b };
	struct name n = name_of("x.staging.example.com");
	struct question q = question_about(LAYER_TLS, "10.9.0.1", &n, 443);
	struct verdict v;
	q.resolved = &private;
	q.n_resolved = 1;
	verdict(p, &q, &f, &v);
	assert_int_equal(v.reason, REASON_PRIVATE_ADDRESS);
}

static void only_narrows(void **state)
{
	struct overlay o = { .w = { 0 } }, add_and_only = { .w = { 0 } };
	add(&o, "b.example.com:443/https", true);
	assert_int_equal(reason(LAYER_TLS, "b.example.com", 443, &o), REASON_ALLOWED);
	assert_int_equal(reason(LAYER_DNS, "b.example.com", 0, &o), REASON_ALLOWED);
	assert_int_equal(reason(LAYER_HTTP, "b.example.com", 80, &o), REASON_NOT_LISTED);
	assert_int_equal(reason(LAYER_TLS, "x.wide.example.com", 443, &o), REASON_NOT_LISTED);
	/* it opens nothing */
	add(&o, "x.staging.example.com", true);
	assert_int_equal(reason(LAYER_TLS, "x.staging.example.com", 443, &o), REASON_NOT_LISTED);
	/* raw addresses have no name that could be among them */
	const struct binding b = {
		.generation = 5, .profile = "ci", .overlay = o.b, .overlay_len = o.w.len
	};
	struct facts f = { .now = now, .binding = &b };
	struct question q = question_about(LAYER_TCP, "10.9.0.1", NULL, 5432);
	struct verdict v;
	q.has_dst = true;
	q.dst = addr_of("198.51.100.9");
	verdict(p, &q, &f, &v);
	assert_int_equal(v.action, ACTION_DENY);
	f.binding = NULL;
	const struct binding free = { .generation = 5, .profile = "ci" };
	f.binding = &free;
	verdict(p, &q, &f, &v);
	assert_int_equal(v.action, ACTION_ALLOW);

	add(&add_and_only, "x.staging.example.com", false);
	add(&add_and_only, "*.staging.example.com", true);
	assert_int_equal(reason(LAYER_TLS, "x.staging.example.com", 443, &add_and_only),
			 REASON_ALLOWED);
	assert_int_equal(reason(LAYER_TLS, "b.example.com", 443, &add_and_only), REASON_NOT_LISTED);
}

static void damaged_entries_permit_nothing(void **state)
{
	struct overlay o = { .w = { 0 } };
	add(&o, "b.example.com", true);
	o.w.len--;
	assert_int_equal(reason(LAYER_TLS, "b.example.com", 443, &o), REASON_NOT_LISTED);
}

/* ---- through the sequence of the plugins ---- */

static struct decision judge(struct decide_thread *t, const char *src, const char *name)
{
	struct name n = name_of(name);
	struct question q = question_about(LAYER_TLS, src, &n, 443);
	struct decision d;
	decide_judge(t, &q, decide_now(), &d);
	return d;
}

static void a_bind_is_seen_at_once(void **state)
{
	char why[BIND_WHY_SIZE];
	struct decider_options o = { .component = "spoa",
				     .policy_path = path,
				     .runtime_dir = dir,
				     .features = FEATURES_ENFORCED };
	struct decider *d = decider_start(&o);
	struct decide_thread *t = decide_thread_new(d);
	struct addr src = addr_of("10.9.0.1");
	assert_int_equal(judge(t, "10.9.0.1", "b.example.com").v.reason, REASON_NO_BINDING);
	assert_int_equal(judge(t, "10.8.0.1", "a.example.com").v.reason, REASON_ALLOWED);
	/* the table is made now, and the next decision knows it */
	struct bind_writer *w = bind_writer_open(dir, (gid_t)-1, why);
	assert_non_null(w);
	assert_true(bind_lock_table(w));
	struct bind_row r = { .state = BIND_BOUND,
			      .generation = 77,
			      .n_addrs = 1,
			      .task = "task-1",
			      .profile = "ci" };
	r.addrs[0] = (struct prefix){ src, 128 };
	uint32_t at = bind_add(w, &r);
	struct decision got = judge(t, "10.9.0.1", "b.example.com");
	assert_int_equal(got.v.reason, REASON_ALLOWED);
	assert_int_equal(got.generation, 77);
	assert_string_equal(got.task, "task-1");
	assert_string_equal(got.profile, "ci");
	assert_true(decide_still(t, &src, 77));
	assert_false(decide_still(t, &src, 76));
	assert_true(decide_still(t, &src, 0));
	r.deadline_ns = decide_now().boot_ns - 1;
	bind_update(w, at, &r);
	assert_int_equal(judge(t, "10.9.0.1", "b.example.com").v.reason, REASON_NO_BINDING);
	assert_false(decide_still(t, &src, 77));
	r.deadline_ns = 0;
	bind_update(w, at, &r);
	assert_int_equal(judge(t, "10.9.0.1", "b.example.com").v.reason, REASON_ALLOWED);
	bind_remove(w, at);
	assert_int_equal(judge(t, "10.9.0.1", "b.example.com").v.reason, REASON_NO_BINDING);
	/* a table that is taken away permits nothing any more */
	bind_add(w, &r);
	assert_int_equal(judge(t, "10.9.0.1", "b.example.com").v.reason, REASON_ALLOWED);
	char file[96];
	snprintf(file, sizeof(file), "%s/bindings", dir);
	unlink(file);
	enum reason last = REASON_ALLOWED;
	for (unsigned i = 0; i < 10000 && last == REASON_ALLOWED; i++) {
		usleep(1000);
		last = judge(t, "10.9.0.1", "b.example.com").v.reason;
	}
	assert_int_equal(last, REASON_NO_BINDING);
	bind_writer_close(w);
	decide_thread_free(t);
	decider_stop(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_entries),
		cmocka_unit_test(packs_and_unpacks),
		cmocka_unit_test(a_binding_names_the_profile),
		cmocka_unit_test(another_generation_is_stale),
		cmocka_unit_test(additions_stay_within_the_ceiling),
		cmocka_unit_test(ports_and_protocols_stay_within_too),
		cmocka_unit_test(neither_deny_nor_never_is_lifted),
		cmocka_unit_test(additions_are_never_private),
		cmocka_unit_test(only_narrows),
		cmocka_unit_test(damaged_entries_permit_nothing),
		cmocka_unit_test(a_bind_is_seen_at_once),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
