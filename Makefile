# messaging: two headers. Nothing needs to be built to use them; this file tests, measures and installs them.

help: ## this list (the default)
	@echo "messaging is two headers: copy messaging.h and messaging_impl.h, or make install. Targets:"
	@cat $(MAKEFILE_LIST) | sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' | expand -t 14
	@echo "Variables: CC CXX CFLAGS PREFIX DESTDIR JOBS; for the tests MESSAGING_TEST='*pattern*', MESSAGING_TEST_SCALE=n"

# ---- What everything here is built with ---------------------------------------------------------------------------------
# Expanded when they are used, so that `make deps test` finds what deps installed.

PKG_CONFIG ?= pkg-config
MESSAGING_PACKAGES = libzmq $(shell $(PKG_CONFIG) --exists msgpack-c && echo msgpack-c || echo msgpack)
MESSAGING_CFLAGS = -I. $(shell $(PKG_CONFIG) --cflags $(MESSAGING_PACKAGES))
MESSAGING_LIBS = $(shell $(PKG_CONFIG) --libs $(MESSAGING_PACKAGES)) -pthread
JOBS ?= $(shell nproc 2> /dev/null || echo 2)

-include bench/bench.mk
-include bench/portfolio/portfolio.mk
-include $(wildcard tests/*.mk)

deps: ## installs what tests and benchmark need from the distribution (Debian 12 and its relatives; asks for root)
	@tests/deps.sh

# ---- Tests --------------------------------------------------------------------------------------------------------------

BUILD ?= build/test
SANITIZE ?=
TEST_CFLAGS = -O1 -g -Wall -Wextra -Wpedantic -Wshadow -Wconversion -pthread $(SANITIZE)
TEST_LIBS = $(MESSAGING_LIBS) $(shell $(PKG_CONFIG) --libs cmocka)
TEST_PROGRAMS := $(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/test_*.c)) \
  $(patsubst tests/%.cpp,$(BUILD)/%,$(wildcard tests/test_*.cpp))
TEST_SCRIPTS := $(wildcard tests/test_*.sh)
SIMULATOR := $(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/sim.c))
UNITS := $(wildcard tests/units/*.c)

# Goals run one after the other even with -j.
AFTER_DEPS := $(filter deps,$(MAKECMDGOALS))
RUN_TESTS = CC='$(CC)' CXX='$(CXX)' JOBS=$(JOBS) tests/run.sh $(BUILD)
MAKE_TESTS = +@$(MAKE) --no-print-directory -j$(JOBS)

test: | $(AFTER_DEPS) ## all tests, in about three minutes; the last line is their sum
	$(MAKE_TESTS) programs
	@$(RUN_TESTS) $(TEST_PROGRAMS) $(if $(SIMULATOR),"$(SIMULATOR) --quick 20") $(TEST_SCRIPTS)

asan: | $(AFTER_DEPS) ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(MAKE_TESTS) sanitized BUILD=build/asan SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer" \
	  SCALE=5 JOBS=$(JOBS)

tsan: | $(AFTER_DEPS) ## the tests under ThreadSanitizer (clang)
	$(MAKE_TESTS) sanitized BUILD=build/tsan SANITIZE="-fsanitize=thread" CC=clang CXX=clang++ SCALE=10 JOBS=$(JOBS)

valgrind: | $(AFTER_DEPS) ## the tests under valgrind (slow)
	$(MAKE_TESTS) programs
	@MESSAGING_TEST_SCALE=20 WRAPPER="valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --fair-sched=yes" \
	  $(RUN_TESTS) $(TEST_PROGRAMS) $(if $(SIMULATOR),"$(SIMULATOR) --quick 20")

.PHONY: help deps test asan tsan valgrind programs sanitized clean

programs: $(TEST_PROGRAMS) $(SIMULATOR)

sanitized: programs
	@MESSAGING_TEST_SCALE=$(SCALE) TSAN_OPTIONS="die_after_fork=0 ignore_noninstrumented_modules=1 halt_on_error=1" \
	  ASAN_OPTIONS="detect_stack_use_after_return=1" UBSAN_OPTIONS="print_stacktrace=1" $(RUN_TESTS) $(TEST_PROGRAMS) \
	  $(if $(SIMULATOR),"$(SIMULATOR) --quick 20")

$(BUILD)/test_units: $(UNITS)

$(BUILD)/%: tests/%.c Makefile
	@mkdir -p $(@D)
	$(CC) -std=gnu11 $(TEST_CFLAGS) $(CFLAGS) $(MESSAGING_CFLAGS) -MMD -MP -MT $@ -MF $@.d $(filter $< tests/units/%.c,$^) -o $@ $(LDFLAGS) $(TEST_LIBS)

$(BUILD)/%: tests/%.cpp Makefile
	@mkdir -p $(@D)
	$(CXX) -std=c++17 $(TEST_CFLAGS) $(CXXFLAGS) $(MESSAGING_CFLAGS) -MMD -MP -MT $@ -MF $@.d $< -o $@ $(LDFLAGS) $(TEST_LIBS)

-include $(wildcard $(BUILD)/*.d)

clean: ## removes build/
	rm -rf build
