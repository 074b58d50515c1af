/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps the tables of limits mapped (budget.h). Never charges anything. */
#include "shared/live/budget.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Who keeps limits. */
static const char *const writers[] = { "unbound", "dns", "spoa" };
enum { WRITERS = sizeof(writers) / sizeof(writers[0]) };

static_assert((int)CHARGE_OTHERS == (int)WRITERS, "a place for each, though one of them is us");

/* A table that was replaced: threads may still use it. */
struct old_limits {
	struct limits *limits;
	struct old_limits *next;
};

struct budgets {
	char *runtime_dir; /* NULL: in memory */
	char *writer;
	struct limits *in_memory;
	_Atomic(struct limits *) own;
	_Atomic(struct limits *) others[WRITERS];
	struct old_limits *old;
	struct charge_counts counts;
};

static bool retire(struct budgets *b, struct limits *l)
{
	struct old_limits *o = calloc(1, sizeof(*o));
	if (!o)
		return false;
	*o = (struct old_limits){ l, b->old };
	b->old = o;
	return true;
}

static void watch_own(struct budgets *b, char *why)
{
	struct limits *l = atomic_load(&b->own);
	if (l != b->in_memory && limits_is_current(l, b->runtime_dir, b->writer))
		return;
	if (l != b->in_memory && !retire(b, l))
		return;
	l = limits_create(b->runtime_dir, b->writer, LIMIT_CELLS, why);
	atomic_store(&b->own, l ? l : b->in_memory);
}

static void watch_other(struct budgets *b, unsigned i)
{
	char why[LIMIT_WHY_SIZE];
	struct limits *l = atomic_load(&b->others[i]);
	if (strcmp(writers[i], b->writer) == 0 ||
	    (l && limits_is_current(l, b->runtime_dir, writers[i])) || (l && !retire(b, l)))
		return;
	atomic_store(&b->others[i], limits_open(b->runtime_dir, writers[i], why));
}

void budgets_watch(struct budgets *b, char *why)
{
	why[0] = '\0';
	if (!b->runtime_dir)
		return;
	watch_own(b, why);
	for (unsigned i = 0; i < WRITERS; i++)
		watch_other(b, i);
}

struct budgets *budgets_new(const char *runtime_dir, const char *writer)
{
	char why[LIMIT_WHY_SIZE];
	struct budgets *b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	b->runtime_dir = runtime_dir ? strdup(runtime_dir) : NULL;
	b->writer = strdup(writer);
	b->in_memory = limits_create(NULL, writer, LIMIT_CELLS, why);
	atomic_store(&b->own, b->in_memory);
	if (b->in_memory && b->writer && (b->runtime_dir || !runtime_dir))
		return b;
	budgets_free(b);
	return NULL;
}

void budgets_free(struct budgets *b)
{
	if (!b)
		return;
	struct limits *own = atomic_load(&b->own);
	if (own != b->in_memory)
		limits_close(own);
	limits_close(b->in_memory);
	for (unsigned i = 0; i < WRITERS; i++)
		limits_close(atomic_load(&b->others[i]));
	while (b->old) {
		struct old_limits *o = b->old;
		b->old = o->next;
		limits_close(o->limits);
		free(o);
	}
	free(b->runtime_dir);
	free(b->writer);
	free(b);
}

struct charge_tables budgets_tables(const struct budgets *b)
{
	struct charge_tables t = { .own = atomic_load_explicit(&b->own, memory_order_acquire) };
	for (unsigned i = 0; i < WRITERS; i++)
		t.others[i] = atomic_load_explicit(&b->others[i], memory_order_acquire);
	return t;
}

struct charge_counts *budgets_counts(struct budgets *b)
{
	return &b->counts;
}
