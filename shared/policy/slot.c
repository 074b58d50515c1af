/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The current policy of a running process (slot.h). Never closes a policy that a reader holds, never
 * gives up a good one for a bad one.
 */
#include "shared/policy/slot.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A borrow announces the policy in `held`; the housekeeping thread closes what nobody announces. */
struct slot_reader {
	_Atomic(const struct policy *) held;
	struct slot *slot;
	struct slot_reader *next;
	_Atomic bool used;
} __attribute__((aligned(64)));

struct retired {
	struct policy *policy;
	struct retired *next;
};

/* What identifies a version of the file without reading it. */
struct stamp {
	bool there;
	int error; /* errno, if not there */
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

struct slot {
	_Atomic(struct policy *) current;
	_Atomic(struct slot_reader *) readers; /* only ever grows; free ones are used again */
	struct retired *retired;
	char *path, *audience;
	struct policy_trust trust;
	uint8_t key[32];
	struct stamp stamp;
	bool looked;
	bool refused; /* the last look at a changed file was a refusal */
};

struct slot *slot_new(const char *path, const struct policy_trust *trust)
{
	struct slot *s = calloc(1, sizeof(*s));
	char *copy = strdup(path);
	char *audience = strdup(trust->audience ? trust->audience : "");
	if (!s || !copy || !audience) {
		free(s);
		free(copy);
		free(audience);
		return NULL;
	}
	s->path = copy;
	s->audience = audience;
	s->trust = *trust;
	if (trust->audience)
		s->trust.audience = audience;
	if (trust->public_key) {
		memcpy(s->key, trust->public_key, sizeof(s->key));
		s->trust.public_key = s->key;
	}
	return s;
}

void slot_free(struct slot *s)
{
	if (!s)
		return;
	policy_close(atomic_load(&s->current));
	while (s->retired) {
		struct retired *r = s->retired;
		s->retired = r->next;
		policy_close(r->policy);
		free(r);
	}
	struct slot_reader *r = atomic_load(&s->readers);
	while (r) {
		struct slot_reader *next = r->next;
		free(r);
		r = next;
	}
	free(s->path);
	free(s->audience);
	free(s);
}

/* ---- readers ---- */

struct slot_reader *slot_reader_new(struct slot *s)
{
	for (struct slot_reader *r = atomic_load(&s->readers); r; r = r->next) {
		bool was = false;
		if (atomic_compare_exchange_strong(&r->used, &was, true))
			return r;
	}
	struct slot_reader *r = aligned_alloc(64, sizeof(*r));
	if (!r)
		return NULL;
	memset(r, 0, sizeof(*r));
	r->slot = s;
	atomic_init(&r->used, true);
	r->next = atomic_load(&s->readers);
	while (!atomic_compare_exchange_weak(&s->readers, &r->next, r))
		;
	return r;
}

void slot_reader_free(struct slot_reader *r)
{
	if (!r)
		return;
	atomic_store(&r->held, NULL);
	atomic_store(&r->used, false);
}

const struct policy *slot_borrow(struct slot_reader *r)
{
	const struct policy *p = atomic_load_explicit(&r->slot->current, memory_order_acquire);
	for (;;) {
		/* announce first, then see whether it is still current: else it may be closed already */
		atomic_store(&r->held, p);
		const struct policy *again = atomic_load(&r->slot->current);
		if (again == p)
			return p;
		p = again;
	}
}

void slot_release(struct slot_reader *r)
{
	atomic_store_explicit(&r->held, NULL, memory_order_release);
}

static bool is_held(struct slot *s, const struct policy *p)
{
	for (struct slot_reader *r = atomic_load(&s->readers); r; r = r->next)
		if (atomic_load(&r->held) == p)
			return true;
	return false;
}

static void sweep(struct slot *s)
{
	for (struct retired **at = &s->retired; *at;) {
		struct retired *r = *at;
		if (is_held(s, r->policy)) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		policy_close(r->policy);
		free(r);
	}
}

/* ---- the file ---- */

static struct stamp look(const char *path)
{
	struct stat st;
	if (stat(path, &st) != 0)
		return (struct stamp){ .error = errno };
	return (struct stamp){ .there = true,
			       .dev = st.st_dev,
			       .ino = st.st_ino,
			       .size = st.st_size,
			       .mtime = st.st_mtim,
			       .ctime = st.st_ctim };
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_stamp(const struct stamp *a, const struct stamp *b)
{
	return a->there == b->there && a->error == b->error && a->dev == b->dev &&
	       a->ino == b->ino && a->size == b->size && same_time(a->mtime, b->mtime) &&
	       same_time(a->ctime, b->ctime);
}

static bool same_policy(const struct policy *a, const struct policy *b)
{
	struct policy_info ia, ib;
	policy_info(a, &ia);
	policy_info(b, &ib);
	return memcmp(ia.file_digest, ib.file_digest, 32) == 0;
}

/* Who signs orders the policies too: an old one that is signed as well must not come back. */
static bool goes_back(const struct slot *s, const struct policy *p, const struct policy *current,
		      char *why)
{
	struct policy_info now, next;
	if (!s->trust.public_key || !current)
		return false;
	policy_info(current, &now);
	policy_info(p, &next);
	if (next.serial >= now.serial)
		return false;
	snprintf(why, POLICY_WHY_SIZE, "serial %llu, and %llu is in force",
		 (unsigned long long)next.serial, (unsigned long long)now.serial);
	return true;
}

/* Puts a policy in force. False if there is no memory to retire the old one; then nothing changed. */
static bool publish(struct slot *s, struct policy *p)
{
	struct retired *r = NULL;
	if (atomic_load(&s->current)) {
		r = malloc(sizeof(*r));
		if (!r)
			return false;
	}
	struct policy *old = atomic_exchange(&s->current, p);
	if (old) {
		*r = (struct retired){ .policy = old, .next = s->retired };
		s->retired = r;
	}
	return true;
}

enum slot_event slot_poll(struct slot *s, bool force, enum policy_err *err, char *why)
{
	struct stamp now = look(s->path);
	*err = POLICY_OK;
	why[0] = '\0';
	sweep(s);
	if (s->looked && !force && same_stamp(&now, &s->stamp))
		return SLOT_SAME;
	bool was_refused = s->refused;
	struct policy *p = NULL;
	s->looked = true;
	s->stamp = now;
	*err = policy_open(&p, s->path, &s->trust, why);
	struct policy *current = atomic_load(&s->current);
	if (*err == POLICY_OK && current && same_policy(p, current)) {
		policy_close(p);
		s->refused = false;
		return was_refused ? SLOT_RESTORED : SLOT_SAME;
	}
	if (*err == POLICY_OK && goes_back(s, p, current, why)) {
		policy_close(p);
		*err = POLICY_ERR_SERIAL;
	}
	if (*err == POLICY_OK && !publish(s, p)) {
		policy_close(p);
		*err = POLICY_ERR_SYSTEM;
		strcpy(why, "no memory"); /* fits: POLICY_WHY_SIZE */
		s->looked = false;        /* try again */
	}
	s->refused = *err != POLICY_OK;
	if (s->refused)
		return SLOT_REFUSED;
	sweep(s);
	return SLOT_LOADED;
}
