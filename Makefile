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
POLICY_SRC := shared/policy/policy.c shared/policy/check.c shared/policy/check_records.c shared/policy/slot.c shared/policy/verdict.c \
	shared/policy/seen.c shared/policy/permit.c shared/policy/task.c shared/policy/zone.c shared/policy/upstream.c \
	shared/policy/destination.c shared/policy/overlay.c
LIVE_SRC := shared/live/decide.c shared/live/audit.c shared/live/locals.c shared/live/bind.c shared/live/pin.c \
	shared/live/stream.c shared/live/limit.c shared/live/limitfile.c shared/live/charge.c shared/live/budget.c \
	shared/live/subject.c
COMPILE_SRC := $(addprefix shared/compile/,arena.c diag.c yaml.c keys.c values.c names.c entries.c list.c \
	files.c presets.c profiles.c profile_dns.c proxy.c inherit.c layers.c http_rules.c sources.c extras.c authz.c tests.c model.c lint.c lint_hosts.c lint_credentials.c lint_policy.c ruleid.c file.c \
	pool.c layout.c flatten.c dns.c place.c write.c out.c terms.c walk.c dump.c diff.c diff_rules.c diff_print.c sign.c \
	emit_unbound.c emit_haproxy.c emit_nftables.c import.c schema.c)
PRESETS := $(addprefix shared/compile/presets/,apt.yaml bitbucket.yaml crates.yaml default-strict.yaml \
	default.yaml docker.yaml github.yaml gitlab.yaml go.yaml maven.yaml npm.yaml openai.yaml pypi.yaml \
	rubygems.yaml)
POLICYC_SRC := shared/tools/policyc.c shared/tools/trials.c shared/tools/target.c
CXCTL_SRC := shared/tools/cxctl.c shared/tools/target.c shared/tools/explain.c shared/tools/bindcmd.c shared/tools/bindings.c shared/tools/binding.c \
	shared/tools/netlink.c shared/tools/cut.c shared/tools/cutcmd.c shared/tools/haproxycheck.c shared/live/bindwrite.c shared/live/bind.c \
	shared/live/locals.c shared/live/stream.c
HOST_SRC := shared/host/say.c shared/host/endpoint.c shared/host/privilege.c
PROBE_SRC := $(addprefix shared/tools/,probe.c probetable.c probenet.c probedns.c probetls.c probeip.c probeserve.c)
SPOA_LIB_SRC := spoa-agent/spop.c spoa-agent/hello.c spoa-agent/url.c spoa-agent/dns.c \
	spoa-agent/resolve.c spoa-agent/session.c spoa-agent/answer.c spoa-agent/secret.c spoa-agent/worker.c
SPOA_SRC := $(SPOA_LIB_SRC) $(HOST_SRC) spoa-agent/listen.c spoa-agent/server.c spoa-agent/main.c
MODULE_SRC := unbound-module/buildid.c # and module.c, per Unbound

DNS_SRC := shared/dns/gate.c shared/dns/answer.c
# What a resolver of our own needs beside that, and cx-dns.
WIRE_SRC := shared/dns/wire.c shared/dns/reply.c
SHIM_SRC := $(addprefix unbound-module/shim/,desk.c upstream.c link.c udp.c tcp.c server.c main.c)

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
CORE_OBJ := $(call obj,$(BASE_SRC) $(POLICY_SRC))
LIVE_OBJ := $(call obj,$(LIVE_SRC))
DNS_OBJ := $(call obj,$(DNS_SRC))
COMPILE_OBJ := $(call obj,$(COMPILE_SRC)) $(BUILD)/obj/presets.gen.o

POLICY_LIBS := -lcrypto
COMPILE_LIBS := -lyaml -lpsl -lidn2 -lcrypto

.PHONY: all
all: $(BUILD)/cx-policyc $(BUILD)/cx-spoa $(BUILD)/cx-dns $(BUILD)/cxctl $(BUILD)/cx-probe $(BUILD)/cx_unbound.so

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(DEPFLAGS) -c -o $@ $<

KNOWN_HOSTS := shared/compile/hosts/known.txt
$(BUILD)/obj/presets.gen.c: shared/compile/presets/embed.sh shared/compile/presets/VERSION $(KNOWN_HOSTS) $(PRESETS)
	@mkdir -p $(@D)
	shared/compile/presets/embed.sh shared/compile/presets/VERSION $(KNOWN_HOSTS) $(PRESETS) > $@.tmp
	mv $@.tmp $@

$(BUILD)/obj/presets.gen.o: $(BUILD)/obj/presets.gen.c
	$(CC) $(CPPFLAGS) $(CFLAGS) $(DEPFLAGS) -c -o $@ $<

$(BUILD)/cx-policyc: $(call obj,$(POLICYC_SRC)) $(COMPILE_OBJ) $(CORE_OBJ)
	$(CC) $(LDFLAGS) -o $@ $^ $(COMPILE_LIBS)

$(BUILD)/cxctl: $(call obj,$(CXCTL_SRC)) $(CORE_OBJ)
	$(CC) $(LDFLAGS) -o $@ $^ $(POLICY_LIBS) -ljson-c

# Static, so that it runs in any guest.
$(BUILD)/cx-probe: $(call obj,$(PROBE_SRC) $(BASE_SRC))
	$(CC) $(LDFLAGS) $(if $(SAN),,-static) -o $@ $^

$(BUILD)/cx-spoa: $(call obj,$(SPOA_SRC)) $(LIVE_OBJ) $(CORE_OBJ)
	$(CC) $(LDFLAGS) -pthread -o $@ $^ $(POLICY_LIBS) -lev

$(BUILD)/cx-dns: $(call obj,$(SHIM_SRC) $(HOST_SRC) $(WIRE_SRC)) $(DNS_OBJ) $(LIVE_OBJ) $(CORE_OBJ)
	$(CC) $(LDFLAGS) -pthread -o $@ $^ $(POLICY_LIBS) -lev

# For docker/: a cable between containers.
$(BUILD)/cx-wire: $(call obj,docker/wire.c)
	$(CC) $(LDFLAGS) -o $@ $^

# ---- install -------------------------------------------------------------------------------------
# Programs, the module with the Unbound that it is made for, manuals and examples. Starts nothing and
# touches no installed Unbound or HAProxy.
D = $(DESTDIR)$(PREFIX)
.PHONY: install
install: all
	install -d $(D)/bin $(D)/sbin $(D)/lib/cx/unbound $(D)/share/man/man1 $(D)/share/man/man5 \
		$(D)/share/man/man8 $(D)/share/doc/cx
	install -m 755 $(BUILD)/cx-policyc $(BUILD)/cxctl $(BUILD)/cx-probe $(D)/bin
	install -m 755 $(BUILD)/cx-spoa $(BUILD)/cx-dns $(D)/sbin
	install -m 755 $(BUILD)/cx_unbound.so $(D)/lib/cx
	install -m 755 $(UNBOUND)/sbin/unbound $(UNBOUND)/sbin/unbound-checkconf \
		$(UNBOUND)/sbin/unbound-control $(D)/lib/cx/unbound
	install -m 644 docs/man/*.1 $(D)/share/man/man1
	install -m 644 docs/man/*.5 $(D)/share/man/man5
	install -m 644 docs/man/*.8 $(D)/share/man/man8
	cp -R --no-preserve=ownership conf README.md CHANGELOG.md docs/operating.md docs/security.md \
		docs/audit.md $(D)/share/doc/cx

# The Unbound that loads the module as a service of its own, beside the distribution's, which it neither
# replaces nor touches: program, module, unit, user and configuration. Starts nothing.
.PHONY: cx-unbound install-cx-unbound
cx-unbound: $(BUILD)/cx_unbound.so
CX_ETC = $(DESTDIR)/etc/cx/unbound
install-cx-unbound: cx-unbound
	install -d $(D)/lib/cx/unbound $(D)/lib/systemd/system $(D)/lib/sysusers.d $(D)/lib/tmpfiles.d $(CX_ETC)/conf.d
	install -m 755 $(UNBOUND)/sbin/unbound $(UNBOUND)/sbin/unbound-checkconf \
		$(UNBOUND)/sbin/unbound-control $(D)/lib/cx/unbound
	install -m 755 $(BUILD)/cx_unbound.so $(D)/lib/cx
	install -m 644 conf/systemd/cx-unbound.service $(D)/lib/systemd/system
	install -m 644 conf/systemd/cx-unbound.sysusers.conf $(D)/lib/sysusers.d/cx-unbound.conf
	install -m 644 conf/systemd/cx-unbound.tmpfiles.conf $(D)/lib/tmpfiles.d/cx-unbound.conf
	[ -e $(CX_ETC)/unbound.conf ] || install -m 644 conf/unbound/cx-unbound.conf $(CX_ETC)/unbound.conf
	install -m 644 conf/unbound/cx.conf $(CX_ETC)/cx.conf
.PHONY: integration-cx-unbound
integration-cx-unbound: $(BUILD)/cx-policyc $(BUILD)/cx_unbound.so
	BUILD=$(BUILD) tests/integration/cx-unbound/run.py

# For tests of bindings: it kills itself where CX_FAULT says.
FAULTY_OBJ := $(patsubst %.c,$(BUILD)/obj/faulty/%.o,shared/tools/binding.c shared/live/bindwrite.c)
$(BUILD)/obj/faulty/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -DCX_TEST_FAULTS $(DEPFLAGS) -c -o $@ $<

$(BUILD)/faulty/cxctl: $(FAULTY_OBJ) $(filter-out %/binding.o %/bindwrite.o,$(call obj,$(CXCTL_SRC))) $(CORE_OBJ)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(POLICY_LIBS) -ljson-c

.PHONY: integration-bind
integration-bind: $(BUILD)/cxctl $(BUILD)/faulty/cxctl $(BUILD)/cx-policyc
	tests/integration/bind/run.py --build $(BUILD)

# ---- unit tests ----------------------------------------------------------------------------------
# tests/unit/test_NAME.c is one program; it takes what it needs of the objects of UNIT_LIB_SRC.
UNIT_TESTS := bytes name addr audit badpolicy texts slot verdict decide gate wire pin \
	spop hello hello_openssl authority connect secret session answer resolve bind overlay stream limit charge
UNIT_LIB_SRC := $(BASE_SRC) $(POLICY_SRC) $(LIVE_SRC) $(DNS_SRC) $(WIRE_SRC) $(HOST_SRC) $(SPOA_LIB_SRC) shared/live/bindwrite.c
UNIT_LIBS := -lcmocka $(POLICY_LIBS) -pthread
$(BUILD)/unit/test_hello_openssl: UNIT_LIBS += -lssl
$(BUILD)/unit/test_resolve: UNIT_LIBS += -lev
UNIT_BIN := $(patsubst %,$(BUILD)/unit/test_%,$(UNIT_TESTS))

$(BUILD)/unit/libcx.a: $(call obj,$(UNIT_LIB_SRC))
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcD $@ $^

$(UNIT_BIN): $(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/unit/libcx.a
	$(CC) $(LDFLAGS) -o $@ $^ $(UNIT_LIBS)

# The compiled policies that tests open.
$(BUILD)/unit/policy-%.bin: tests/unit/policy-%.yaml $(BUILD)/cx-policyc
	@mkdir -p $(@D)
	$(BUILD)/cx-policyc $< -o $@ --now 2026-11-21 --allow-unenforced

.PHONY: unit
unit: $(UNIT_BIN) $(BUILD)/unit/policy-a.bin $(BUILD)/unit/policy-b.bin $(BUILD)/unit/policy-c.bin $(BUILD)/unit/policy-d.bin $(BUILD)/unit/policy-e.bin
	@CX_BUILD=$(BUILD) tests/unit/run.sh $(UNIT_BIN)

# ---- verdict cases -------------------------------------------------------------------------------
VERDICT_RUN_OBJ := $(call obj,tests/verdict/run.c shared/tools/target.c) $(CORE_OBJ)
# `make verdict` asks through every layer; sanitizer builds ask the function.
VERDICT_LAYERS ?= function,explain,agent,module

$(BUILD)/verdict/run: $(VERDICT_RUN_OBJ)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(POLICY_LIBS)

.PHONY: verdict verdict-function mutate
verdict: $(BUILD)/verdict/run $(BUILD)/cx-policyc $(BUILD)/cxctl $(BUILD)/cx-spoa $(BUILD)/cx_unbound.so
	@tests/verdict/run.py --build $(BUILD) --layers $(VERDICT_LAYERS)

verdict-function: $(BUILD)/verdict/run $(BUILD)/cx-policyc
	@tests/verdict/run.py --build $(BUILD) --layers function

# Breaks the matching code on purpose; fails if the cases do not notice.
mutate: $(BUILD)/verdict/run $(BUILD)/cx-policyc $(BUILD)/unit/test_limit $(BUILD)/unit/test_charge $(BUILD)/unit/policy-e.bin
	@rc=0; tests/mutate/run.py --build $(BUILD) || rc=1; tests/mutate/live.py --build $(BUILD) || rc=1; exit $$rc

# ---- the independent oracle ----------------------------------------------------------------------
# `make oracle` asks verdict() and a slow reference of the rules the same; N questions from SEED.
N ?= 60000
SEED ?= 20261121

$(BUILD)/oracle/ask: $(call obj,tests/oracle/ask.c shared/tools/target.c) $(CORE_OBJ)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(POLICY_LIBS)

.PHONY: oracle
oracle: $(BUILD)/oracle/ask $(BUILD)/cx-policyc
	@tests/oracle/run.py --build $(BUILD) --count $(N) --seed $(SEED)

# Breaks the verdict, the look-up and the compiler on purpose; fails if the oracle does not notice.
.PHONY: oracle-mutate
oracle-mutate: $(BUILD)/oracle/ask $(BUILD)/cx-policyc
	@tests/oracle/mutate.py --build $(BUILD) --cc "$(CC) -I. -D_GNU_SOURCE -DCX_VERSION='\"$(VERSION)\"' -std=gnu11 -O1 $(SAN)" \
		--ask '$(call obj,tests/oracle/ask.c shared/tools/target.c) $(CORE_OBJ)' \
		--policyc '$(call obj,$(POLICYC_SRC)) $(COMPILE_OBJ) $(CORE_OBJ)' --libs '$(COMPILE_LIBS)'

# ---- what the compiler says ----------------------------------------------------------------------
.PHONY: golden
golden: $(BUILD)/cx-policyc
	@tests/golden/run.py --build $(BUILD)

# ---- the compiler's further actions --------------------------------------------------------------
.PHONY: policyc-test
policyc-test: $(BUILD)/cx-policyc $(BUILD)/cxctl $(BUILD)/cx-spoa $(BUILD)/cx_unbound.so
	@rc=0; for t in tests/integration/policyc/[a-z]*.py; do \
		[ ! -x $$t ] || BUILD=$(BUILD) $$t || rc=1; done; exit $$rc

# The same input gives the same bytes, whatever the locale, time zone or compiler of C.
.PHONY: determinism
determinism: $(BUILD)/cx-policyc
	@$(MAKE) --no-print-directory -s BUILD=$(BUILD)/clang CC=clang HARDEN= $(BUILD)/clang/cx-policyc
	@tests/oracle/determinism.sh $(BUILD) $(BUILD)/cx-policyc $(BUILD)/clang/cx-policyc

# ---- help ----------------------------------------------------------------------------------------
.PHONY: help
help:
	@echo 'all      the programs and the module, under $(BUILD)/ (the default)'
	@echo 'deps     packages, and the Unbound that can load the module'
	@echo 'demo     a guest, a gateway and an Internet in network namespaces'
	@echo 'check    every test: $(CHECK_STAGES)'
	@echo 'compose-test  docker/ on a container engine, which it installs and starts if there is none'
	@echo 'bench    ratios against peers, in one table'
	@echo 'Each stage of the check is a target of its own; CONTRIBUTING.md says what each shows.'

# ---- lint, and everything ------------------------------------------------------------------------
.PHONY: lint check
lint: $(BUILD)/cx_unbound.so $(BUILD)/cx-policyc
	@tests/lint/run.sh $(BUILD)

CHECK_STAGES := deps lint all unit golden policyc-test verdict mutate oracle oracle-mutate determinism fuzz \
	integration-bind integration-unbound integration-dns dns dns-mutate integration-cx-unbound integration-spoa integration-haproxy e2e e2e-forced probe microvm workloads chaos asan tsan
check:
	@tests/check.sh $(BUILD) $(CHECK_STAGES)

# ---- sanitizers ----------------------------------------------------------------------------------
# Each builds all of it anew under build/, against an Unbound of its own where the module is loaded.
ASAN_MAKE = $(MAKE) --no-print-directory BUILD=build/asan HARDEN= OPT='-O1 -g -fno-omit-frame-pointer' \
	SAN='-fsanitize=address,undefined -fno-sanitize-recover=all' UNBOUND=build/unbound-asan
TSAN_MAKE = $(MAKE) --no-print-directory BUILD=build/tsan HARDEN= OPT='-O1 -g -fno-omit-frame-pointer' \
	SAN='-fsanitize=thread' UNBOUND=build/unbound-tsan
ASAN_TARGETS := unit golden verdict-function integration-spoa integration-dns-sanitized integration-unbound-sanitized
TSAN_TARGETS := unit integration-spoa integration-dns-sanitized integration-unbound-sanitized

.PHONY: asan tsan
asan:
	@rc=0; for t in $(ASAN_TARGETS); do $(ASAN_MAKE) $$t || rc=1; done; exit $$rc
tsan:
	@rc=0; for t in $(TSAN_TARGETS); do $(TSAN_MAKE) $$t || rc=1; done; exit $$rc

# ---- bench ---------------------------------------------------------------------------------------
# BENCH_SIZES=10000000 measures ten million names, too: minutes and a gigabyte.
BENCH_SIZES ?= 10,10000,1000000
$(BUILD)/bench/lookup: $(call obj,tests/bench/lookup.c) $(CORE_OBJ)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(POLICY_LIBS) -lcdb -llmdb

$(BUILD)/bench/load: $(call obj,tests/bench/load.c) $(CORE_OBJ)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(POLICY_LIBS)

$(BUILD)/bench/prefix: $(call obj,tests/bench/prefix.c) $(CORE_OBJ)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(POLICY_LIBS) -lmaxminddb

$(BUILD)/bench/spop_load: $(call obj,tests/bench/spop_load.c spoa-agent/spop.c $(BASE_SRC))
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^

# The agent without its work: what the protocol costs.
$(BUILD)/bench/constant-spoa: $(call obj,$(filter-out spoa-agent/worker.c,$(SPOA_SRC)) tests/bench/constant_worker.c) $(LIVE_OBJ) $(CORE_OBJ)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -pthread -o $@ $^ $(POLICY_LIBS) -lev

.PHONY: bench bench-scale bench-agent
# B8, B9 alone.
bench-agent: $(BUILD)/bench/spop_load $(BUILD)/bench/constant-spoa $(BUILD)/cx-spoa $(BUILD)/cx-policyc
	@tests/bench/agent.py --build $(BUILD)
# B3, B4, B12 alone.
bench-scale: $(BUILD)/bench/load $(BUILD)/bench/prefix $(BUILD)/cx-policyc
	@tests/bench/scale.py --build $(BUILD) --unbound $(UNBOUND) --sizes $(BENCH_SIZES)
bench: $(BUILD)/race $(BUILD)/cx-spoa $(BUILD)/bench/spop_load $(BUILD)/bench/constant-spoa $(BUILD)/cx-dns $(BUILD)/cxctl $(BUILD)/bench/lookup $(BUILD)/bench/load $(BUILD)/bench/prefix $(BUILD)/cx-policyc $(BUILD)/cx_unbound.so $(BUILD)/plain/cx_unbound.so
	@tests/bench/run.py --build $(BUILD) --sizes $(BENCH_SIZES)
	@tests/bench/scale.py --build $(BUILD) --unbound $(UNBOUND) --sizes $(BENCH_SIZES)
	@tests/bench/bind.py --build $(BUILD)
	@tests/bench/agent.py --build $(BUILD)
	@BUILD=$(BUILD) tests/bench/unbound.py
	@BUILD=$(BUILD) tests/bench/denials.py
	@BUILD=$(BUILD) tests/bench/replace.py
	@BUILD=$(BUILD) tests/bench/tunnel.py

# ---- fuzzing -------------------------------------------------------------------------------------
# libFuzzer programs: `make fuzz` replays the corpus and runs each for FUZZ_TIME seconds.
FUZZ_TARGETS := gate wire policy hello spop url
FUZZ_TIME ?= 10
FUZZ_LIB_SRC := $(BASE_SRC) $(POLICY_SRC) $(LIVE_SRC) $(DNS_SRC) $(WIRE_SRC) spoa-agent/spop.c spoa-agent/hello.c spoa-agent/url.c \
	spoa-agent/dns.c spoa-agent/session.c spoa-agent/answer.c
FUZZ_BIN := $(patsubst %,$(BUILD)/fuzz/fuzz_%,$(FUZZ_TARGETS))
$(FUZZ_BIN): $(BUILD)/fuzz/%: tests/fuzz/%.c $(FUZZ_LIB_SRC)
	@mkdir -p $(@D)
	clang $(CPPFLAGS) -std=gnu11 -O1 -g -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=all -Wall -Wextra -Wno-unused-parameter -o $@ $^ $(POLICY_LIBS) -pthread

# The compiler, whole.
FUZZ_COMPILER_SRC := $(BASE_SRC) $(POLICY_SRC) $(COMPILE_SRC)
$(BUILD)/fuzz/fuzz_yaml $(BUILD)/fuzz/fuzz_dump: $(BUILD)/fuzz/%: tests/fuzz/%.c $(FUZZ_COMPILER_SRC) $(BUILD)/obj/presets.gen.c
	@mkdir -p $(@D)
	clang $(CPPFLAGS) -std=gnu11 -O1 -g -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=all -Wall -Wextra -Wno-unused-parameter -o $@ $^ $(COMPILE_LIBS)
FUZZ_BIN += $(BUILD)/fuzz/fuzz_yaml $(BUILD)/fuzz/fuzz_dump

.PHONY: fuzz
fuzz: $(FUZZ_BIN) $(BUILD)/unit/policy-a.bin $(BUILD)/unit/policy-b.bin $(BUILD)/unit/policy-d.bin $(BUILD)/unit/policy-e.bin
	@BUILD=$(BUILD) FUZZ_TIME=$(FUZZ_TIME) tests/fuzz/run.sh $(FUZZ_BIN)

# Only what is known already.
.PHONY: fuzz-replay
fuzz-replay: $(FUZZ_BIN) $(BUILD)/unit/policy-a.bin $(BUILD)/unit/policy-b.bin $(BUILD)/unit/policy-d.bin $(BUILD)/unit/policy-e.bin
	@BUILD=$(BUILD) FUZZ_TIME=0 tests/fuzz/run.sh $(FUZZ_BIN)

# ---- the agent -----------------------------------------------------------------------------------
.PHONY: integration-spoa
integration-spoa: $(BUILD)/cx-spoa $(BUILD)/cx-policyc
	BUILD=$(BUILD) tests/integration/spoa/run.py

# ---- cx-dns --------------------------------------------------------------------------------------
# Before the distribution's Unbound, and before upstreams that lie.
.PHONY: integration-dns integration-dns-sanitized
integration-dns: $(BUILD)/cx-dns $(BUILD)/cx-spoa $(BUILD)/cx-policyc $(BUILD)/cxctl $(BUILD)/race
	@rc=0; BUILD=$(BUILD) tests/integration/dns/run.py || rc=1; \
		tests/integration/dns/bound.py --build $(BUILD) || rc=1; exit $$rc
integration-dns-sanitized: $(BUILD)/cx-dns $(BUILD)/cx-spoa $(BUILD)/cx-policyc $(BUILD)/race
	BUILD=$(BUILD) tests/integration/dns/run.py --sanitized

# ---- Unbound and its module ------------------------------------------------------------------------
# A module is made for one Unbound: its headers, and its build id compiled in.
# $(call module_for,MODULE.so,UNBOUND TREE,KIND OF BUILD,further flags)
define module_for
$(1): $(BUILD)/obj/$(notdir $(1:.so=))-$(3)-module.o $$(call obj,$$(MODULE_SRC)) $$(DNS_OBJ) $$(LIVE_OBJ) $$(CORE_OBJ)
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
MODULE_OBJ = $(BUILD)/obj/cx_unbound-$(UNBOUND_KIND)-module.o $(call obj,$(MODULE_SRC)) $(DNS_OBJ) $(LIVE_OBJ) $(CORE_OBJ)
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
integration-unbound: $(BUILD)/cx-spoa $(BUILD)/cx_unbound.so $(BUILD)/plain/cx_unbound.so $(BUILD)/race $(BUILD)/cx-policyc \
		$(BUILD)/leaky/cx_unbound_stock_cache.so $(BUILD)/leaky/cx_unbound_shared_flight.so
	BUILD=$(BUILD) tests/integration/unbound/run.py
# With BUILD, SAN and UNBOUND of a sanitizer build: make asan, make tsan.
integration-unbound-sanitized: $(BUILD)/cx-spoa $(BUILD)/cx_unbound.so $(BUILD)/own-cache/cx_unbound.so $(BUILD)/race $(BUILD)/cx-policyc
	BUILD=$(BUILD) tests/integration/unbound/run.py --sanitized $(notdir $(UNBOUND))

# DNS as a client sees it: the cases of tests/dns through every set-up, and proof that they notice mistakes.
DNS_SETUPS ?= veto,own-cache,shim-12,shim-13
.PHONY: dns dns-mutate
dns: $(BUILD)/cx-dns $(BUILD)/cx_unbound.so $(BUILD)/plain/cx_unbound.so $(BUILD)/race $(BUILD)/cx-policyc
	@BUILD=$(BUILD) tests/dns/run.py --setups $(DNS_SETUPS)
dns-mutate: $(BUILD)/cx_unbound.so $(BUILD)/race $(BUILD)/cx-policyc
	@tests/dns/mutate.py --build $(BUILD) --cc '$(CC) $(CPPFLAGS) $(CFLAGS)' \
		--link '$(LDFLAGS) -pthread -Wl,-Bsymbolic $(POLICY_LIBS)' \
		--objects '$(filter %.o,$(MODULE_OBJ))'

# Millions of questions: nothing may grow. Not part of the check.
QUERIES ?= 5000000
REQUESTS ?= 5000000
.PHONY: soak soak-dns soak-proxy
soak: soak-dns soak-proxy
soak-proxy: $(BUILD)/bench/spop_load $(BUILD)/cx-spoa $(BUILD)/cx-policyc
	@tests/soak/proxy.py --build $(BUILD) --requests $(REQUESTS)
soak-dns: $(BUILD)/cx-dns $(BUILD)/cx_unbound.so $(BUILD)/plain/cx_unbound.so $(BUILD)/race $(BUILD)/cx-policyc
	@BUILD=$(BUILD) tests/soak/resolvers.py --queries $(QUERIES)

UNBOUND_RECIPE := unbound-module/build-unbound.sh unbound-module/honour-reply-callback-veto.patch
build/unbound/stamp: $(UNBOUND_RECIPE)
	BUILD=build unbound-module/build-unbound.sh veto
build/unbound-plain/stamp: $(UNBOUND_RECIPE)
	BUILD=build unbound-module/build-unbound.sh plain
build/unbound-asan/stamp: $(UNBOUND_RECIPE)
	BUILD=build unbound-module/build-unbound.sh asan
build/unbound-tsan/stamp: $(UNBOUND_RECIPE)
	BUILD=build unbound-module/build-unbound.sh tsan

# ---- the gateway as a whole ------------------------------------------------------------------------
# The demo: everything started on the embedded default policy, and what a guest gets from it.
.PHONY: demo e2e e2e-forced probe microvm workloads integration-haproxy integration-haproxy-newest
demo:
	@mkdir -p $(BUILD)
	@echo "Installing and building what is missing; the log is $(BUILD)/demo.log"
	@{ $(MAKE) --no-print-directory demo-deps && $(MAKE) --no-print-directory all; } >$(BUILD)/demo.log 2>&1 || \
		{ tail -n 30 $(BUILD)/demo.log; exit 1; }
	@tests/e2e/demo
e2e: all
	@rc=0; for t in run bindings cut; do tests/e2e/$$t || rc=1; done; exit $$rc
# cx-probe in a guest: all held behind the gateway, and all of it leaks through a plain router.
probe: all
	@tests/e2e/probe
# The same in a microVM that QEMU boots, with Debian's cloud kernel (fetched once, under build/microvm).
microvm: all
	@tests/e2e/microvm
# Package managers, git, clients, a websocket, a gigabyte, 200 requests at once; and how they fail when refused.
workloads: all
	@tests/e2e/workloads
# A module and an agent that allow everything: each section of e2e must notice.
FORCED := $(BUILD)/forced/cx_unbound.so $(BUILD)/forced/cx-spoa
$(BUILD)/forced/cx_unbound.so: $(BUILD)/obj/cx_unbound-$(UNBOUND_KIND)-module.o $(call obj,$(MODULE_SRC)) $(DNS_OBJ) \
		$(LIVE_OBJ) $(CORE_OBJ) $(call obj,tests/e2e/forced.c)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -shared -pthread -Wl,-Bsymbolic -Wl,-z,nodelete -Wl,--wrap=verdict -o $@ $^ $(POLICY_LIBS)
$(BUILD)/forced/cx-spoa: $(call obj,$(SPOA_SRC)) $(LIVE_OBJ) $(CORE_OBJ) $(call obj,tests/e2e/forced.c)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -pthread -Wl,--wrap=verdict -o $@ $^ $(POLICY_LIBS) -lev
# Everything on the gateway breaks, one after the other; chaos-long does it thrice, and with cx-dns as well.
.PHONY: chaos chaos-long
chaos: all
	@tests/e2e/chaos
chaos-long: all
	@tests/e2e/chaos --long
e2e-forced: all $(FORCED)
	@tests/e2e/forced
# HAProxy of Debian 12, and of later releases in roots under build/roots/.
integration-haproxy: all
	@rc=0; for t in run explicit corporate; do tests/integration/haproxy/$$t || rc=1; done; exit $$rc
# The newest stable one, from Debian testing. Not part of the check: what it installs changes by the day.
integration-haproxy-newest:
	@HAPROXY_VERSIONS=3.2 $(MAKE) --no-print-directory integration-haproxy

# The containers of docker/, on the engine that answers or on one of our own under build/docker.
.PHONY: compose-deps compose-test
compose-deps:
	@.ci/install-packages debootstrap python3 \
		$$(command -v docker >/dev/null && { docker info || command -v dockerd; } >/dev/null 2>&1 || echo docker.io) \
		$$(command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1 || echo docker-compose)
compose-test: compose-deps
	@tests/compose/run.py

# What building and the demo need from Debian, and what checking and measuring need beside it.
PACKAGES := build-essential dpkg-dev pkg-config bison flex ca-certificates binutils \
	libevent-dev libexpat1-dev libssl-dev libnghttp2-dev libprotobuf-c-dev protobuf-c-compiler \
	libfstrm-dev libyaml-dev libpsl-dev libidn2-dev libjson-c-dev libev-dev \
	nsd unbound dns-root-data python3 openssl haproxy nftables iproute2 curl bind9-dnsutils
# What guests run. A Node that is not Debian's brings an npm of its own, and Debian's cannot stand beside it.
CLIENTS := $(if $(shell command -v npm),,npm) $(if $(shell command -v node),,nodejs) python3-pip python3-websockets cargo \
	golang-go git wget nginx-light fcgiwrap openssh-server openssh-client
CHECK_PACKAGES := unbound dnsdist iodine ldnsutils dnsperf squid-openssl tinyproxy-bin python3-dnspython python3-yaml python3-jsonschema locales debootstrap \
	clang clang-format clang-tidy libclang-rt-14-dev cppcheck shellcheck codespell mandoc \
	libcmocka-dev libcdb-dev liblmdb-dev libmaxminddb-dev valgrind \
	qemu-system-x86 busybox-static cpio libfaketime $(CLIENTS)
# Both, and the Unbound that can load the module, with and without our change.
.PHONY: deps demo-deps
deps:
	@.ci/install-packages $(PACKAGES) $(CHECK_PACKAGES)
	@BUILD=build unbound-module/build-unbound.sh veto plain
demo-deps:
	@.ci/install-packages $(PACKAGES)
	@BUILD=build unbound-module/build-unbound.sh veto

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
