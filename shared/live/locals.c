/* SPDX-License-Identifier: Apache-2.0 */
/* The addresses of this host (locals.h). Reads them from the kernel; never makes a hot thread wait. */
#include "shared/live/locals.h"

#include <ifaddrs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct locals {
	pthread_mutex_t lock; /* guards v and n */
	struct addr *v;
	size_t n;
	_Atomic unsigned version; /* changes with v */
};

struct locals_copy {
	struct locals *of;
	struct addr *v;
	size_t n;
	unsigned version;
};

static int by_address(const void *a, const void *b)
{
	return addr_cmp(a, b);
}

/* Sorted, without duplicates. False on failure. */
static bool read_addresses(struct addr **v, size_t *n)
{
	struct ifaddrs *list = NULL;
	size_t count = 0, k = 0;
	if (getifaddrs(&list) != 0)
		return false;
	for (struct ifaddrs *i = list; i; i = i->ifa_next)
		count++;
	struct addr *out = calloc(count + 1, sizeof(*out));
	for (struct ifaddrs *i = out ? list : NULL; i; i = i->ifa_next) {
		socklen_t len = sizeof(struct sockaddr_storage);
		if (i->ifa_addr && addr_from_sockaddr(&out[k], NULL, i->ifa_addr, len))
			k++;
	}
	freeifaddrs(list);
	if (!out)
		return false;
	qsort(out, k, sizeof(*out), by_address);
	*n = 0;
	for (size_t i = 0; i < k; i++)
		if (*n == 0 || addr_cmp(&out[*n - 1], &out[i]) != 0)
			out[(*n)++] = out[i];
	*v = out;
	return true;
}

struct locals *locals_new(void)
{
	struct locals *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	pthread_mutex_init(&l->lock, NULL);
	if (!read_addresses(&l->v, &l->n)) {
		locals_free(l);
		return NULL;
	}
	atomic_init(&l->version, 1);
	return l;
}

void locals_free(struct locals *l)
{
	if (!l)
		return;
	pthread_mutex_destroy(&l->lock);
	free(l->v);
	free(l);
}

bool locals_refresh(struct locals *l)
{
	struct addr *v;
	size_t n;
	if (!read_addresses(&v, &n))
		return false;
	if (n == l->n && memcmp(v, l->v, n * sizeof(*v)) == 0) {
		free(v);
		return true;
	}
	pthread_mutex_lock(&l->lock);
	struct addr *old = l->v;
	l->v = v;
	l->n = n;
	atomic_fetch_add(&l->version, 1);
	pthread_mutex_unlock(&l->lock);
	free(old);
	return true;
}

struct locals_copy *locals_copy_new(struct locals *l)
{
	struct locals_copy *c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->of = l;
	pthread_mutex_lock(&l->lock);
	c->v = calloc(l->n + 1, sizeof(*c->v));
	if (c->v) {
		memcpy(c->v, l->v, l->n * sizeof(*c->v));
		c->n = l->n;
		c->version = atomic_load(&l->version);
	}
	pthread_mutex_unlock(&l->lock);
	if (!c->v) {
		free(c);
		return NULL;
	}
	return c;
}

void locals_copy_free(struct locals_copy *c)
{
	if (!c)
		return;
	free(c->v);
	free(c);
}

static void take_over(struct locals_copy *c)
{
	struct locals *l = c->of;
	if (pthread_mutex_trylock(&l->lock) != 0)
		return;
	struct addr *v = realloc(c->v, (l->n + 1) * sizeof(*v));
	if (v) {
		memcpy(v, l->v, l->n * sizeof(*v));
		c->v = v;
		c->n = l->n;
		c->version = atomic_load(&l->version);
	}
	pthread_mutex_unlock(&l->lock);
}

struct addr_set locals_get(struct locals_copy *c)
{
	if (atomic_load_explicit(&c->of->version, memory_order_acquire) != c->version)
		take_over(c);
	return (struct addr_set){ c->v, c->n };
}
