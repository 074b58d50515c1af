/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens a compiled policy and looks things up in it (policy.h). Trusts the image after
 * image_check(); decides nothing.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "shared/policy/features.h"
#include "shared/policy/hash.h"
#include "shared/policy/image.h"

/* 10M names take about 320 MB. */
static const uint64_t max_file = UINT64_C(6) << 30;

static const char *const err_text[] = {
	[POLICY_OK] = "fine",
	[POLICY_ERR_SYSTEM] = "system error",
	[POLICY_ERR_UNTRUSTED] = "the file cannot be trusted",
	[POLICY_ERR_EMPTY] = "the file is empty",
	[POLICY_ERR_TRUNCATED] = "the file is truncated",
	[POLICY_ERR_MAGIC] = "not a compiled policy",
	[POLICY_ERR_VERSION] = "unknown format version",
	[POLICY_ERR_ENDIAN] = "written for another byte order",
	[POLICY_ERR_FEATURE] = "it demands what this program does not enforce",
	[POLICY_ERR_DIGEST] = "the digest does not match: the file is damaged",
	[POLICY_ERR_LAYOUT] = "the file is malformed",
	[POLICY_ERR_UNSIGNED] = "the policy is not signed",
	[POLICY_ERR_SIGNATURE] = "the signature does not verify",
	[POLICY_ERR_SERIAL] = "the serial is too low",
	[POLICY_ERR_TOO_BIG] = "the file is too big",
	[POLICY_ERR_AUDIENCE] = "the policy is for other hosts",
};

const char *policy_strerror(enum policy_err e)
{
	return (size_t)e < sizeof(err_text) / sizeof(err_text[0]) ? err_text[e] : "unknown error";
}

const char *feature_text(unsigned bit)
{
	switch (bit) {
#define X(b, name, text)                                                                           \
	case b:                                                                                    \
		return text;
		FEATURES(X)
#undef X
	default:
		return "unknown";
	}
}

/* ---- opening ---- */

static bool owner_ok(const struct stat *st, const char *what, char *why)
{
	if (st->st_uid != 0 && st->st_uid != geteuid()) {
		if (why)
			snprintf(why, POLICY_WHY_SIZE,
				 "%s belongs to uid %u, not to root or this user", what,
				 (unsigned)st->st_uid);
		return false;
	}
	if (st->st_mode & (S_IWGRP | S_IWOTH)) {
		if (why)
			snprintf(why, POLICY_WHY_SIZE, "%s is writable by others (mode %04o)", what,
				 (unsigned)(st->st_mode & 07777));
		return false;
	}
	return true;
}

enum policy_err image_open_trusted(int *fd, struct stat *st, const char *path, bool any_owner,
				   char *why)
{
	char *real = realpath(path, NULL);
	char *slash = real ? strrchr(real, '/') : NULL;
	enum policy_err err = POLICY_ERR_SYSTEM;
	int dir = -1, file = -1;
	if (!slash)
		goto out;
	*slash = '\0';
	dir = open(slash == real ? "/" : real, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fstat(dir, st) != 0)
		goto out;
	if (!any_owner && !owner_ok(st, "its directory", why)) {
		err = POLICY_ERR_UNTRUSTED;
		goto out;
	}
	/* O_NONBLOCK: a FIFO in its place must not hold the caller */
	file = openat(dir, slash + 1, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (file < 0 || fstat(file, st) != 0)
		goto out;
	err = POLICY_ERR_UNTRUSTED;
	if (!S_ISREG(st->st_mode)) {
		if (why)
			snprintf(why, POLICY_WHY_SIZE, "not a regular file");
		goto out;
	}
	if (!any_owner && !owner_ok(st, "the file", why))
		goto out;
	*fd = file;
	file = -1;
	err = POLICY_OK;
out:;
	int saved = errno;
	if (err == POLICY_ERR_SYSTEM && why)
		snprintf(why, POLICY_WHY_SIZE, "%s", strerror(saved));
	if (file >= 0)
		close(file);
	if (dir >= 0)
		close(dir);
	free(real);
	errno = saved;
	return err;
}

/* Copies n octets; false (and errno, 0 for an early end) if they are not there. */
static bool copy_all(int to, int from, uint64_t n)
{
	while (n > 0) {
		ssize_t k = sendfile(to, from, NULL, n < (1u << 30) ? (size_t)n : 1u << 30);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0) {
			if (k == 0)
				errno = 0;
			return false;
		}
		n -= (uint64_t)k;
	}
	return true;
}

/*
 * The first `size` octets of the file in memory that nobody can change any more. What happens to
 * the file later, even in place, does not reach the copy.
 */
static const uint8_t *sealed_copy(int from, uint64_t size)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
	int fd = memfd_create("cx-policy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *map = MAP_FAILED;
	if (fd < 0)
		return NULL;
	if (ftruncate(fd, (off_t)size) == 0 && copy_all(fd, from, size) &&
	    fcntl(fd, F_ADD_SEALS, seals) == 0)
		map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	int saved = errno;
	close(fd);
	errno = saved;
	return map == MAP_FAILED ? NULL : map;
}

static enum policy_err load(struct policy *p, int fd, const struct stat *st,
			    const struct policy_trust *trust, char *why)
{
	if (st->st_size <= 0)
		return POLICY_ERR_EMPTY;
	if ((uint64_t)st->st_size > max_file)
		return POLICY_ERR_TOO_BIG;
	p->size = (size_t)st->st_size;
	errno = 0;
	p->base = sealed_copy(fd, p->size);
	if (!p->base) {
		int saved = errno;
		if (why && saved)
			snprintf(why, POLICY_WHY_SIZE, "%s", strerror(saved));
		return saved ? POLICY_ERR_SYSTEM : POLICY_ERR_TRUNCATED;
	}
	return image_check(p, trust, why);
}

enum policy_err policy_open(struct policy **out, const char *path, const struct policy_trust *trust,
			    char *why)
{
	struct stat st;
	int fd = -1;
	if (why)
		why[0] = '\0';
	enum policy_err err = image_open_trusted(&fd, &st, path, trust->any_owner, why);
	if (err != POLICY_OK)
		return err;
	struct policy *p = calloc(1, sizeof(*p));
	err = p ? load(p, fd, &st, trust, why) : POLICY_ERR_SYSTEM;
	close(fd);
	if (err != POLICY_OK) {
		policy_close(p);
		return err;
	}
	*out = p;
	return POLICY_OK;
}

void policy_close(struct policy *p)
{
	if (!p)
		return;
	if (p->base)
		munmap((void *)(uintptr_t)p->base, p->size);
	free(p);
}

void policy_info(const struct policy *p, struct policy_info *out)
{
	*out = (struct policy_info){
		.revision = p->info_strings + p->info->revision,
		.presets_version = p->info_strings + p->info->presets_version,
		.audience = p->info_strings + p->info->audience,
		.digest = p->digest,
		.file_digest = p->h->file_digest,
		.meaning_digest = p->h->meaning_digest,
		.serial = p->h->serial,
		.required = p->h->required,
		.n_names = p->n_names,
		.size = p->size,
	};
}

/* ---- names ---- */

/* Which of the line's tags equal `tag`: one bit a slot. */
static inline uint32_t line_tags(const struct fmt_line *l, uint16_t tag)
{
	uint32_t hits = 0;
#if defined(__SSE2__)
	/* three loads of eight tags; the last one reaches into len[], which `count` masks away */
	const __m128i want = _mm_set1_epi16((short)tag);
	const uint8_t *t = (const uint8_t *)l + offsetof(struct fmt_line, tag);
	__m128i a = _mm_cmpeq_epi16(_mm_loadu_si128((const void *)t), want);
	__m128i b = _mm_cmpeq_epi16(_mm_loadu_si128((const void *)(t + 16)), want);
	__m128i c = _mm_cmpeq_epi16(_mm_loadu_si128((const void *)(t + 32)), want);
	hits = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(a, b));
	hits |= (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(c, c)) << 16;
#else
	for (unsigned i = 0; i < FMT_LINE_SLOTS; i++)
		hits |= (uint32_t)(l->tag[i] == tag) << i;
#endif
	return hits & ((1u << l->count) - 1);
}

static inline uint32_t slot_offset(const struct fmt_line *l, unsigned slot)
{
	uint32_t at = l->base + 4 * slot;
	for (unsigned i = 0; i < slot; i++)
		at += l->len[i];
	return at;
}

/* The record of the name `s` (n octets) whose hash is h, or FMT_NONE. */
static uint32_t find_record(const struct policy *p, uint64_t h, const uint8_t *s, size_t n)
{
	uint64_t at = hash_scale(h, p->n_lines);
	unsigned spill = p->lines[at].spill;
	for (unsigned k = 0;; k++) {
		const struct fmt_line *l = &p->lines[at];
		for (uint32_t hits = line_tags(l, hash_tag(h)); hits; hits &= hits - 1) {
			unsigned slot = (unsigned)__builtin_ctz(hits);
			if (l->len[slot] != n)
				continue;
			uint32_t rec = slot_offset(l, slot);
			if (memcmp(p->blob + rec + 4, s, n) == 0)
				return rec;
		}
		if (k == spill)
			return FMT_NONE;
		if (++at == p->n_lines)
			at = 0;
	}
}

static inline bool depth_used(const struct policy *p, unsigned d)
{
	return p->h->depths[d / 64] >> (d % 64) & 1;
}

unsigned policy_find(const struct policy *p, const struct name *n,
		     struct policy_match out[POLICY_MAX_MATCHES])
{
	uint64_t hash[NAME_MAX_LABELS + 1];
	unsigned top = n->n_labels < p->max_depth ? n->n_labels : p->max_depth;
	uint64_t h = p->h->hash_seed;
	for (unsigned d = 1; d <= top; d++) {
		unsigned at = n->off[n->n_labels - d];
		h = hash_label(h, n->wire + at + 1, n->wire[at]);
		hash[d] = h;
		if (d == 2) {
			uint64_t mask = hash_gate_mask(h);
			if ((p->gate[hash_scale(h, p->n_gate)] & mask) != mask) {
				top = 1; /* nothing ends in these two labels */
				break;
			}
		}
	}
	for (unsigned d = 1; d <= top; d++)
		if (depth_used(p, d))
			__builtin_prefetch(&p->lines[hash_scale(hash[d], p->n_lines)]);
	unsigned found = 0;
	for (unsigned d = top; d > 0; d--) {
		if (!depth_used(p, d))
			continue;
		unsigned at = n->off[n->n_labels - d];
		uint32_t rec = find_record(p, hash[d], n->wire + at, n->len - (size_t)at);
		if (rec == FMT_NONE)
			continue;
		uint32_t value;
		memcpy(&value, p->blob + rec, 4);
		bool exact = d == n->n_labels;
		if (!(value & (exact ? FMT_EXACT : FMT_BELOW)))
			continue;
		out[found++] = (struct policy_match){
			.set = value & FMT_SET_MASK, .rec = rec, .depth = (uint8_t)d, .exact = exact
		};
	}
	return found;
}

/* ---- sources ---- */

static struct source source_of(uint32_t v)
{
	uint32_t i = v & SRC_INDEX_MASK;
	switch (v & SRC_KIND_MASK) {
	case SRC_PROFILE:
		return (struct source){ SOURCE_PROFILE, i };
	case (uint32_t)SRC_BIND:
		return (struct source){ SOURCE_BIND, i };
	default:
		break;
	}
	if (v == SRC_IGNORE)
		return (struct source){ SOURCE_IGNORE, 0 };
	if (v == SRC_RESOLVER)
		return (struct source){ SOURCE_RESOLVER, 0 };
	return (struct source){ SOURCE_NONE, 0 };
}

static uint32_t source4(const struct policy *p, uint32_t a)
{
	uint32_t lo = 0, hi = p->n_src4 - 1; /* the range is in [lo, hi] */
	if (p->src4_top) {
		lo = p->src4_top[a >> 16];
		hi = p->src4_top[(a >> 16) + 1];
	}
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo + 1) / 2;
		if (p->src4[mid].start <= a)
			lo = mid;
		else
			hi = mid - 1;
	}
	return p->src4[lo].value;
}

static uint64_t be64(const uint8_t *b)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < 8; i++)
		v = v << 8 | b[i];
	return v;
}

static uint32_t source6(const struct policy *p, const uint8_t *b)
{
	uint64_t ahi = be64(b), alo = be64(b + 8);
	uint32_t lo = 0, hi = p->n_src6 - 1;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo + 1) / 2;
		const struct fmt_src6 *s = &p->src6[mid];
		if (s->start_hi < ahi || (s->start_hi == ahi && s->start_lo <= alo))
			lo = mid;
		else
			hi = mid - 1;
	}
	return p->src6[lo].value;
}

struct source policy_source(const struct policy *p, const struct addr *a)
{
	uint32_t v = addr_is_v4(a) ? source4(p, (uint32_t)be64(a->b + 8)) : source6(p, a->b);
	return source_of(v ? v : p->h->unlisted);
}

bool policy_has_bindings(const struct policy *p)
{
	return p->n_bindsets > 0;
}

uint32_t policy_find_profile(const struct policy *p, const char *name)
{
	uint32_t lo = 0, hi = p->n_profiles;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		int c = strcmp(p->strings + p->profiles[mid].name, name);
		if (c == 0)
			return mid;
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return UINT32_MAX;
}

bool policy_may_bind(const struct policy *p, uint32_t bindset, uint32_t profile)
{
	const uint32_t *set = p->bindsets + bindset;
	for (uint32_t i = 1; i <= set[0]; i++)
		if (set[i] == profile)
			return true;
	return false;
}

const struct fmt_task *image_task(const struct policy *p, uint32_t profile)
{
	uint32_t lo = 0, hi = p->n_tasks;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (p->tasks[mid].profile == profile)
			return &p->tasks[mid];
		if (p->tasks[mid].profile < profile)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

struct task_limits policy_task_limits(const struct policy *p, uint32_t profile)
{
	const struct fmt_task *t = image_task(p, profile);
	return t ? (struct task_limits){ t->entries, t->max_ttl_s } : (struct task_limits){ 0 };
}

/* ---- limits ---- */

static_assert((int)LIMIT_KIND_COUNT == FMT_LIMIT_KINDS, "a limit for each kind");

const char *limit_text(enum limit_kind k)
{
	static const char *const text[] = {
#define X(name, key) key,
		LIMIT_KINDS(X)
#undef X
	};
	return (size_t)k < LIMIT_KIND_COUNT ? text[k] : "";
}

static struct rate rate_of(const struct policy *p, uint32_t limits, enum limit_kind k)
{
	const struct fmt_rate *r = &p->limits[limits].kind[k];
	return (struct rate){ r->amount, r->burst, r->period_s };
}

uint32_t policy_default_profile(const struct policy *p)
{
	return p->h->default_profile;
}

struct rate policy_limit(const struct policy *p, uint32_t profile, enum limit_kind k)
{
	if (profile >= p->n_profiles)
		return (struct rate){ 0 };
	return rate_of(p, p->profiles[profile].limits, k);
}

struct rate policy_rule_limit(const struct policy *p, uint32_t rule, enum limit_kind k)
{
	uint32_t lo = 0, hi = p->n_rule_limits;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (p->rule_limits[mid].rule == rule)
			return rate_of(p, p->rule_limits[mid].limits, k);
		if (p->rule_limits[mid].rule < rule)
			lo = mid + 1;
		else
			hi = mid;
	}
	return (struct rate){ 0 };
}

const char *policy_profile_name(const struct policy *p, uint32_t profile)
{
	return profile < p->n_profiles ? p->strings + p->profiles[profile].name : "";
}

uint32_t policy_deny_ttl_s(const struct policy *p, uint32_t profile)
{
	return p->profiles[profile < p->n_profiles ? profile : p->h->default_profile].deny_ttl_s;
}

/* ---- provenance ---- */

void policy_rule_id(const struct policy *p, uint32_t rule, char out[13])
{
	static const char hex[] = "0123456789abcdef";
	out[0] = '\0';
	if (rule >= p->n_rules)
		return;
	for (unsigned i = 0; i < 6; i++) {
		out[2 * i] = hex[p->rules[rule].id[i] >> 4];
		out[2 * i + 1] = hex[p->rules[rule].id[i] & 15];
	}
	out[12] = '\0';
}

static const struct fmt_name_info *find_name_info(const struct policy *p, uint32_t rec,
						  uint32_t rule)
{
	uint32_t lo = 0, hi = p->n_name_info;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		const struct fmt_name_info *n = &p->name_info[mid];
		if (n->rec == rec && n->rule == rule)
			return n;
		if (n->rec < rec || (n->rec == rec && n->rule < rule))
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

bool policy_rule_info(const struct policy *p, uint32_t rule, uint32_t rec, struct rule_info *out)
{
	if (rule >= p->n_rules)
		return false;
	const struct fmt_rule *r = &p->rules[rule];
	const struct fmt_rule_info *i = &p->rule_info[rule];
	const struct fmt_name_info *line = find_name_info(p, rec, rule);
	const char *s = p->info_strings;
	*out = (struct rule_info){
		.preset = r->flags & RULE_PRESET,
		.deny = r->flags & RULE_DENY,
		.line = line ? line->line : i->line,
		.col = line ? 1 : i->col,
		.file = s + (line ? line->file : i->file),
		.pattern = s + i->pattern,
		.layer = p->strings + p->layers[r->layer].name,
		.owner = s + i->owner,
		.reason = s + i->reason,
		.data = s + i->data,
		.if_unreachable = s + i->if_unreachable,
		.environment = s + i->environment,
		.added = s + i->added,
		.review_by = s + i->review_by,
		.labels = s + i->labels,
		.out = s + i->out,
	};
	policy_rule_id(p, rule, out->id);
	return true;
}
