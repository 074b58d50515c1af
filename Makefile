# SPDX-License-Identifier: Apache-2.0
# cx: one file, explicit lists. `make help` lists the targets.

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=
BUILD ?= build
CC ?= gcc
HARDEN ?= -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fcf-protection
OPT ?= -O2 -g
SAN ?=

# Where the Unbound that loads the module stands (make deps).
UNBOUND ?= build/unbound

CPPFLAGS += -I. -D_GNU_SOURCE -DCX_VERSION='"$(VERSION)"'
CFLAGS += -std=gnu11 $(OPT) $(HARDEN) $(SAN) -fPIC -fvisibility=hidden -Wall -Wextra -Werror \
	-Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-unused-parameter
LDFLAGS += $(SAN) -Wl,-z,relro -Wl,-z,now
DEPFLAGS = -MMD -MP

# ---- what there is -------------------------------------------------------------------------------
BASE_SRC := shared/base/name.c shared/base/addr.c
POLICY_SRC := shared/policy/policy.c shared/policy/check.c shared/policy/slot.c shared/policy/verdict.c
LIVE_SRC := shared/live/decide.c shared/live/audit.c shared/live/locals.c
COMPILE_SRC :=
POLICYC_SRC := shared/tools/policyc.c
CXCTL_SRC := shared/tools/cxctl.c shared/tools/target.c
SPOA_SRC :=
MODULE_SRC := unbound-module/module.c

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
CORE_OBJ := $(call obj,$(BASE_SRC) $(POLICY_SRC))
LIVE_OBJ := $(call obj,$(LIVE_SRC))
COMPILE_OBJ := $(call obj,$(COMPILE_SRC))

POLICY_LIBS := -lcrypto
COMPILE_LIBS := -lyaml -lpsl -lidn2 -lcrypto

.PHONY: all
all: $(BUILD)/cx-policyc $(BUILD)/cx-spoa $(BUILD)/cxctl $(BUILD)/cx_unbound.so

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(DEPFLAGS) -c -o $@ $<

$(BUILD)/cx-policyc: $(call obj,$(POLICYC_SRC)) $(COMPILE_OBJ) $(CORE_OBJ)
	$(CC) $(LDFLAGS) -o $@ $^ $(COMPILE_LIBS)

$(BUILD)/cxctl: $(call obj,$(CXCTL_SRC)) $(CORE_OBJ)
	$(CC) $(LDFLAGS) -o $@ $^ $(POLICY_LIBS) -ljson-c

$(BUILD)/cx-spoa: $(call obj,$(SPOA_SRC)) $(LIVE_OBJ) $(CORE_OBJ)
	$(CC) $(LDFLAGS) -pthread -o $@ $^ $(POLICY_LIBS) -lev

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
