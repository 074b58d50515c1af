/* SPDX-License-Identifier: Apache-2.0 */
/* One line, one write: lines of several threads never mix. See say.h. */
#include "shared/host/say.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 1024 };

static void put(char *line, size_t n)
{
	line[n < LINE - 1 ? n : LINE - 2] = '\n';
	n = n < LINE - 1 ? n + 1 : LINE - 1;
	(void)!write(STDERR_FILENO, line, n);
}

void say_for_decider(void *arg, enum decide_priority prio, const char *event, const char *text)
{
	char line[LINE];
	int n = snprintf(line, LINE, "<%d>%s%s%s", prio, event, text[0] ? " " : "", text);
	if (n > 0)
		put(line, (size_t)n);
}

void say(enum decide_priority prio, const char *event, const char *fmt, ...)
{
	char text[LINE];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n >= 0)
		say_for_decider(NULL, prio, event, text);
}
