/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one sequence that every plugin runs for an event: borrow the policy, collect the facts, call
 * verdict(), describe the outcome in strings of its own, and record it in the audit log. Plugins
 * translate to and from their host's forms and decide nothing.
 *
 * struct decider: one per process, with a housekeeping thread that takes a changed policy (every
 * 100 ms), keeps the gateway's own addresses current and drains the audit rings.
 * struct decide_thread: one per hot thread; decide() takes no lock and allocates nothing.
 */
#ifndef CX_DECIDE_H
#define CX_DECIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/live/bind.h"
#include "shared/policy/policy.h"
#include "shared/policy/verdict.h"

struct decider;
struct decide_thread;

/* Syslog priorities (RFC 5424) of messages to the host program. */
enum decide_priority { DECIDE_ERR = 3, DECIDE_WARNING = 4, DECIDE_NOTICE = 5, DECIDE_INFO = 6 };

/*
 * event: a stable id such as "policy-loaded"; text: the rest, "key=value ..." on one line, already
 * escaped. Called from the housekeeping thread, and from decider_start(); once per change of state.
 */
typedef void decide_log(void *arg, enum decide_priority prio, const char *event, const char *text);

struct decider_options {
	const char *component; /* "unbound", "spoa", "dns" */
	const char *policy_path;
	const char *audit_path;  /* NULL: no audit log; "-": standard error */
	const char *runtime_dir; /* where bindings and pins are; NULL: there are none */
	const char *pins_write; /* the name of the table that this process writes; NULL: it reads */
	const char *pubkey_path; /* PEM, Ed25519; NULL: signatures are not required */
	const char *audience;    /* what this host is: struct policy_trust; NULL: any */
	uint64_t min_serial;
	uint64_t features;    /* FEATURE_* that this plugin enforces */
	unsigned max_lookups; /* of one subject under way, decide_lookup_begin(); 0: 100 */
	bool audit_denied_only;
	decide_log *log;
	void *log_arg;
};

/*
 * Copies the options, tries to load the policy once (a failure is logged and leaves no-policy in
 * force), and starts the housekeeping thread with all signals blocked. NULL: no memory or no
 * thread; or a pubkey_path that cannot be used, which is logged.
 */
struct decider *decider_start(const struct decider_options *o);
/* Joins the thread. All decide_threads must have been freed. */
void decider_stop(struct decider *d);
/* Look at the policy file now, even if it seems unchanged. Async-signal-safe. */
void decider_reload(struct decider *d);
/* True while a policy is in force. */
bool decider_ready(const struct decider *d);

struct decide_thread *decide_thread_new(struct decider *d);
void decide_thread_free(struct decide_thread *t);

enum { DECISION_TEXT_SIZE = 64, DECISION_ENDPOINT_SIZE = 264 };

/* The outcome, in memory of its own: it outlives the policy that gave it. */
struct decision {
	struct verdict v;
	uint64_t generation; /* of the source's binding; 0: it needs none, or has none */
	char task[BIND_TASK_SIZE];
	/* "" where the audit log does not want this decision; cut if longer */
	char profile[DECISION_TEXT_SIZE];
	char origin[DECISION_TEXT_SIZE]; /* "preset:npm", "policy.yaml:12": where the rule stands */
	char owner[DECISION_TEXT_SIZE];
	char revision[DECISION_TEXT_SIZE];
	char rule[13];
	char policy[13]; /* digest of the policy that decided, "" for no-policy */
	uint32_t deny_ttl_s;
	uint32_t concurrent;    /* connections that the subject may have at a time; 0: any number */
	uint64_t bandwidth;     /* octets a second that the subject may send or receive; 0: any */
	uint32_t retry_after_s; /* where a limit was reached */
	bool dropped; /* so far beyond its limits that it gets no answer at all; not written down */
	bool quiet;   /* not to be written down: as the one before */
	char upstream[DECISION_ENDPOINT_SIZE];      /* HOST:PORT of the proxy to go by; "": none */
	char upstream_auth[DECISION_TEXT_SIZE + 1]; /* the credential that it wants; "": none */
	bool ancestor; /* dns.ancestors: nodata, and names below this one are listed */
};

/* now: both clocks, read by this call. For hosts without a clock of their own. */
struct now decide_now(void);

/*
 * Decides, and charges the subject: once for every question of a client, with the first decision on
 * it. Over a limit the verdict is rate-limit. Records nothing.
 */
void decide_ask(struct decide_thread *t, const struct question *q, struct now now,
		struct decision *out);

/* Decides without charging: again, when the addresses are known or the answer is there. */
void decide_judge(struct decide_thread *t, const struct question *q, struct now now,
		  struct decision *out);

/*
 * Is the source still the subject that a decision was made for? An answer that comes later than the
 * decision must not be given otherwise. True for generation 0.
 */
bool decide_still(struct decide_thread *t, const struct addr *src, uint64_t generation);

/*
 * The names that the destination of the decision made last (LAYER_TCP) is pinned to for the source.
 * Valid until the next decision.
 */
const struct name *decide_pinned(const struct decide_thread *t, unsigned *n);
/* The addresses that DNS gave to the source for q->name and that hold; at most max. */
unsigned decide_addrs(struct decide_thread *t, const struct question *q, struct now now,
		      struct addr *out, unsigned max);

/*
 * As decide_judge(), and keeps the policy and the facts for further questions of verdict.h to the
 * same policy, until decide_end(). NULL: there is no policy. Not to be nested with decide_judge().
 */
const struct policy *decide_begin(struct decide_thread *t, const struct question *q, struct now now,
				  struct decision *out, struct facts *f);
/*
 * Charges the subject for a decision of decide_begin(), which may become rate-limit. tentative: then the
 * question is asked again, and this did not count.
 */
void decide_charge(struct decide_thread *t, const struct question *q, const struct policy *p,
		   struct now now, bool tentative, struct decision *out);
void decide_end(struct decide_thread *t);

/* A look-up that is under way for a subject. */
struct lookup {
	uint64_t generation;
	uint8_t below;
	bool counted;
};

/*
 * A resolver's: may a look-up begin for the subject of a decision that allows it? False: too many of
 * its look-ups are under way (the decision is rate-limit then), or those below this name bring no
 * answers lately (unresolved). If true, decide_lookup_end() is due, once, by any thread: answered
 * says whether anybody answered at all.
 */
bool decide_lookup_begin(struct decide_thread *t, const struct question *q, struct now now,
			 struct decision *d, struct lookup *out);
void decide_lookup_end(struct decide_thread *t, const struct question *q, const struct lookup *l,
		       bool answered);
/* Pins addresses that DNS gave to the subject of a decision, for a name. A resolver's to do. */
void decide_pin(struct decide_thread *t, const struct question *q, uint64_t generation,
		const struct addr *v, unsigned n, uint32_t ttl_s, uint64_t now_ns);
/* Rule, origin and owner anew, after out->v was changed in between. */
void decide_describe(struct decide_thread *t, const struct policy *p, struct decision *out);

/*
 * Records a decision in the audit log, with what the question says; id (may be NULL) names the
 * connection or request. A decision may be altered before (unresolved, internal-error ...).
 */
void decide_record(struct decide_thread *t, const struct question *q, struct now now,
		   const struct decision *d, const char *id, size_t id_len);

#endif
