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
SPOA_LIB_SRC := spoa-agent/spop.c spoa-agent/hello.c spoa-agent/url.c spoa-agent/dns.c \
	spoa-agent/resolve.c spoa-agent/session.c spoa-agent/answer.c spoa-agent/worker.c spoa-agent/say.c
SPOA_SRC := $(SPOA_LIB_SRC) spoa-agent/listen.c spoa-agent/server.c spoa-agent/main.c
MODULE_SRC := unbound-module/answer.c unbound-module/buildid.c # and module.c, per Unbound

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

# ---- unit tests ----------------------------------------------------------------------------------
# tests/unit/test_NAME.c is one program; it takes what it needs of the objects of UNIT_LIB_SRC.
UNIT_TESTS := bytes name addr audit
UNIT_LIB_SRC := $(BASE_SRC) $(POLICY_SRC) $(LIVE_SRC)
UNIT_LIBS := -lcmocka $(POLICY_LIBS) -pthread
UNIT_BIN := $(patsubst %,$(BUILD)/unit/test_%,$(UNIT_TESTS))

$(BUILD)/unit/libcx.a: $(call obj,$(UNIT_LIB_SRC))
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcD $@ $^

$(UNIT_BIN): $(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/unit/libcx.a
	$(CC) $(LDFLAGS) -o $@ $^ $(UNIT_LIBS)

.PHONY: unit
unit: $(UNIT_BIN)
	@CX_BUILD=$(BUILD) tests/unit/run.sh $(UNIT_BIN)

# ---- Unbound and its module ------------------------------------------------------------------------
# A module is made for one Unbound: its headers, and its build id compiled in.
# $(call module_for,MODULE.so,UNBOUND TREE,KIND OF BUILD,further flags)
define module_for
$(1): $(BUILD)/obj/$(notdir $(1:.so=))-$(3)-module.o $$(call obj,$$(MODULE_SRC)) $$(LIVE_OBJ) $$(CORE_OBJ)
	$$(CC) $$(LDFLAGS) -shared -pthread -Wl,-Bsymbolic -Wl,-z,nodelete -o $$@ $$^ $$(POLICY_LIBS)

$(BUILD)/obj/$(notdir $(1:.so=))-$(3)-module.o: unbound-module/module.c $(2)/stamp
	@mkdir -p $$(@D) $(dir $(1))
	$$(CC) $$(CPPFLAGS) $$(CFLAGS) $$(DEPFLAGS) -isystem $(2)/headers $(4) \
		-DCX_UNBOUND_BUILD_ID="\"$$$$(LC_ALL=C readelf -n $(2)/sbin/unbound | \
		sed -n 's/.*Build ID: //p')\"" -c -o $$@ $$<
endef

UNBOUND_KIND := $(patsubst unbound%,%,$(notdir $(UNBOUND)))
UNBOUND_KIND := $(if $(UNBOUND_KIND),$(UNBOUND_KIND:-%=%),veto)
$(eval $(call module_for,$(BUILD)/cx_unbound.so,$(UNBOUND),$(UNBOUND_KIND)))
# For tests: the module of the unchanged Unbound, and modules that leak on purpose.
$(eval $(call module_for,$(BUILD)/plain/cx_unbound.so,build/unbound-plain,plain))
$(eval $(call module_for,$(BUILD)/leaky/cx_unbound_stock_cache.so,build/unbound,veto,-DCX_TEST_STOCK_CACHE))
$(eval $(call module_for,$(BUILD)/leaky/cx_unbound_shared_flight.so,build/unbound,veto,-DCX_TEST_SHARED_FLIGHT))
# For sanitizer builds: the own cache, in the one Unbound that there is.
$(eval $(call module_for,$(BUILD)/own-cache/cx_unbound.so,$(UNBOUND),own-$(UNBOUND_KIND),-DCX_TEST_OWN_CACHE))

$(BUILD)/race: tests/integration/unbound/race.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -std=gnu11 -O2 -g -Wall -Wextra -Werror -o $@ $<

.PHONY: integration-unbound integration-unbound-sanitized
integration-unbound: $(BUILD)/cx_unbound.so $(BUILD)/plain/cx_unbound.so $(BUILD)/race $(BUILD)/cx-policyc \
		$(BUILD)/leaky/cx_unbound_stock_cache.so $(BUILD)/leaky/cx_unbound_shared_flight.so
	BUILD=$(BUILD) tests/integration/unbound/run.py
# With BUILD, SAN and UNBOUND of a sanitizer build: make asan, make tsan.
integration-unbound-sanitized: $(BUILD)/cx_unbound.so $(BUILD)/own-cache/cx_unbound.so $(BUILD)/race build/cx-policyc
	BUILD=$(BUILD) tests/integration/unbound/run.py --sanitized $(notdir $(UNBOUND))

UNBOUND_RECIPE := unbound-module/build-unbound.sh unbound-module/honour-reply-callback-veto.patch
build/unbound/stamp: $(UNBOUND_RECIPE)
	BUILD=build unbound-module/build-unbound.sh veto
build/unbound-plain/stamp: $(UNBOUND_RECIPE)
	BUILD=build unbound-module/build-unbound.sh plain
build/unbound-asan/stamp: $(UNBOUND_RECIPE)
	BUILD=build unbound-module/build-unbound.sh asan
build/unbound-tsan/stamp: $(UNBOUND_RECIPE)
	BUILD=build unbound-module/build-unbound.sh tsan

# Everything that building, checking, the demo and the bench need from Debian, and the Unbound that can
# load the module.
PACKAGES := build-essential dpkg-dev pkg-config bison flex ca-certificates binutils ldnsutils \
	libevent-dev libexpat1-dev libssl-dev libnghttp2-dev libprotobuf-c-dev protobuf-c-compiler \
	libfstrm-dev libyaml-dev libpsl-dev libidn2-dev libjson-c-dev libev-dev \
	nsd dns-root-data dnsperf python3 python3-dnspython openssl
.PHONY: deps
deps:
	@missing="$$(for p in $(PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Abbrev}' $$p 2>/dev/null | grep -q '^ii' || echo $$p; \
		done)"; \
	if [ -n "$$missing" ]; then \
		apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			-o Dpkg::Use-Pty=0 $$missing >/dev/null; \
	fi
	@BUILD=build unbound-module/build-unbound.sh veto plain

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
