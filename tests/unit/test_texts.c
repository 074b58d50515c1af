/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sections of texts (SEC_TERMS, SEC_NOTES) and the audience: a file in which one of their fields is
 * wrong is refused although its digest fits, and a file without them is a policy like any other.
 */
#include "tests/unit/fixture.h"

#include "shared/policy/features.h"

static char dir[] = "/tmp/cx-texts.XXXXXX";
static char path[64];
static struct bytes good;

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/policy.bin", dir);
	good = fixture('a');
	return 0;
}

static int teardown(void **state)
{
	free(good.p);
	unlink(path);
	return rmdir(dir);
}

static uint8_t *copy_of_good(void)
{
	uint8_t *p = malloc(good.n);
	memcpy(p, good.p, good.n);
	return p;
}

static enum policy_err open_as(uint8_t *p, const char *audience)
{
	const struct policy_trust trust = { .features = FEATURES_ENFORCED, .audience = audience };
	struct policy *out = NULL;
	char why[POLICY_WHY_SIZE];
	fix_digest(p, good.n);
	replace_bytes(path, p, good.n);
	enum policy_err e = policy_open(&out, path, &trust, why);
	assert_null(strchr(why, '\n'));
	if (e == POLICY_OK)
		policy_close(out);
	return e;
}

static struct fmt_section *section(uint8_t *p, uint32_t id)
{
	struct fmt_header *h = (void *)p;
	struct fmt_section *s = (void *)(p + sizeof(*h));
	for (uint32_t i = 0; i < h->n_sections; i++)
		if (s[i].id == id)
			return &s[i];
	fail_msg("no section %u", id);
	return NULL;
}

static struct fmt_text *texts(uint8_t *p, uint32_t id, uint32_t *n)
{
	struct fmt_section *s = section(p, id);
	*n = s->count;
	return (void *)(p + s->off);
}

static void the_good_file_has_texts(void **state)
{
	uint32_t n;
	uint8_t *p = copy_of_good();
	assert_int_equal(open_as(p, NULL), POLICY_OK);
	struct fmt_text *t = texts(p, SEC_TERMS, &n);
	assert_true(n >= 3); /* the limits of three profiles */
	assert_int_equal(t[0].kind, TERM_LIMITS);
	t = texts(p, SEC_NOTES, &n);
	assert_true(n >= 1);
	assert_int_equal(t[0].kind, NOTE_SOURCES);
	free(p);
}

/* One field of one text is changed; the file must be refused for its layout. */
static void refused_with(uint32_t id, uint32_t i, size_t off, uint32_t value)
{
	uint32_t n;
	uint8_t *p = copy_of_good();
	struct fmt_text *t = texts(p, id, &n);
	assert_true(i < n);
	memcpy((uint8_t *)&t[i] + off, &value, sizeof(value));
	assert_int_equal(open_as(p, NULL), POLICY_ERR_LAYOUT);
	free(p);
}

static void every_field_is_checked(void **state)
{
	const size_t kind = offsetof(struct fmt_text, kind),
		     index = offsetof(struct fmt_text, index);
	const size_t text = offsetof(struct fmt_text, text);
	refused_with(SEC_TERMS, 0, kind, 0);
	refused_with(SEC_TERMS, 0, kind, 999);
	refused_with(SEC_TERMS, 0, kind, NOTE_SOURCES); /* of the other section */
	refused_with(SEC_TERMS, 0, kind, TERM_TASKS);   /* out of order */
	refused_with(SEC_TERMS, 0, index, 3);           /* three profiles: 0, 1, 2 */
	refused_with(SEC_TERMS, 1, index, 0);           /* twice the same */
	refused_with(SEC_TERMS, 2, index, UINT32_MAX);
	refused_with(SEC_TERMS, 0, text, UINT32_MAX);
	refused_with(SEC_NOTES, 0, kind, TERM_LIMITS);
	refused_with(SEC_NOTES, 0, index, 1);
	refused_with(SEC_NOTES, 0, text, 0x7fffffff);
}

static void texts_must_end(void **state)
{
	uint8_t *p = copy_of_good();
	struct fmt_section *s = section(p, SEC_TERM_STRINGS);
	p[s->off + s->size - 1] = 'x';
	assert_int_equal(open_as(p, NULL), POLICY_ERR_LAYOUT);
	free(p);
	p = copy_of_good();
	section(p, SEC_TERMS)->flags |= FMT_MUST;
	assert_int_equal(open_as(p, NULL), POLICY_ERR_LAYOUT);
	free(p);
}

/* A reader must not need them: an older file has none. */
static void without_texts(void **state)
{
	uint8_t *p = copy_of_good();
	section(p, SEC_NOTES)->id = SEC_NOTES + 8; /* unknown, and skipped */
	struct fmt_section *s = section(p, SEC_TERMS);
	s->size = 0;
	s->count = 0;
	assert_int_equal(open_as(p, NULL), POLICY_OK);
	free(p);
}

/* fixture a names no audience: everybody may have it. One that does is for those who have the name. */
static void audience(void **state)
{
	uint8_t *p = copy_of_good();
	assert_int_equal(open_as(p, "x"), POLICY_OK);
	struct fmt_section *s = section(p, SEC_INFO_STRINGS);
	struct fmt_info *i = (void *)(p + section(p, SEC_INFO)->off);
	static const char names[] = "eu\nus\n";
	assert_true(s->size > sizeof(names) + 1);
	memcpy(p + s->off + s->size - sizeof(names), names, sizeof(names));
	i->audience = (uint32_t)(s->size - sizeof(names));
	static const struct {
		const char *host;
		enum policy_err want;
	} cases[] = { { NULL, POLICY_OK },
		      { "eu", POLICY_OK },
		      { "us", POLICY_OK },
		      { "x, us", POLICY_OK },
		      { "x,,eu ", POLICY_OK },
		      { "", POLICY_ERR_AUDIENCE },
		      { "e", POLICY_ERR_AUDIENCE },
		      { "eux", POLICY_ERR_AUDIENCE },
		      { "EU", POLICY_ERR_AUDIENCE },
		      { ", ,", POLICY_ERR_AUDIENCE },
		      { "eu;us", POLICY_ERR_AUDIENCE } };
	for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++)
		assert_int_equal(open_as(p, cases[k].host), cases[k].want);
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_good_file_has_texts),
		cmocka_unit_test(every_field_is_checked),
		cmocka_unit_test(texts_must_end),
		cmocka_unit_test(without_texts),
		cmocka_unit_test(audience),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
