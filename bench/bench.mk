# bench.mk - the benchmarks. The top-level Makefile includes it and sets CC, CFLAGS, JOBS, MESSAGING_CFLAGS and MESSAGING_LIBS.

BENCH_OUT := build/bench
BENCH_TRACES := $(sort $(wildcard bench/traces/*.msgpack))
BENCH_FLAGS = -O2 $(CFLAGS)
BENCH_CFLAGS = -std=gnu11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -pthread $(BENCH_FLAGS)

# The trace replay.
BENCH_SOURCES := replay trace record oracle selftest endpoint paced rounds speed bare deaths report machine scratch tools
BENCH_OBJECTS := $(BENCH_SOURCES:%=$(BENCH_OUT)/%.o)

# The suite, and whichever peers are installed. Each target is built by a make of its own, so that `make deps bench` finds what deps installed.
SUITE_SOURCES := suite scene sheet burst throughput latency fanout idle join startup codec callgrind stages machine scratch tools \
  peers/messaging peers/libzmq peers/stream peers/ring
BENCH_HASH := \#
BENCH_HAS = $(shell printf '%s' '$(BENCH_HASH)include <$(1)>' | $(CC) -E - > /dev/null 2>&1 && echo yes)
BENCH_PEERS = $(if $(call BENCH_HAS,czmq.h),czmq) $(if $(call BENCH_HAS,nng/nng.h),nng) $(if $(call BENCH_HAS,nanomsg/nn.h),nanomsg)
BENCH_PEER_FLAGS = $(patsubst %,-DHAVE_%,$(shell echo $(BENCH_PEERS) | tr a-z A-Z))
SUITE_OBJECTS = $(SUITE_SOURCES:%=$(BENCH_OUT)/%.o) $(BENCH_PEERS:%=$(BENCH_OUT)/peers/%.o)

.PHONY: always bench bench-full bench-self-test bench-suite bench-plots

bench: | $(filter deps,$(MAKECMDGOALS)) ## trace replay and the suite's quick set, in about three minutes; CSV into build/bench/
	+@$(MAKE) --no-print-directory -j$(JOBS) bench-self-test bench-suite
	@status=0; $(BENCH_OUT)/replay --out $(BENCH_OUT) $(BENCH_TRACES) || status=$$?; \
	  $(BENCH_OUT)/suite --out $(BENCH_OUT) || status=$$?; exit $$status

bench-full: | $(filter deps,$(MAKECMDGOALS)) ## the same with every system and five rounds, in twenty minutes and some; CSV into build/bench/
	+@$(MAKE) --no-print-directory -j$(JOBS) bench-self-test bench-suite
	@status=0; $(BENCH_OUT)/replay --out $(BENCH_OUT) $(BENCH_TRACES) || status=$$?; \
	  $(BENCH_OUT)/suite --full --out $(BENCH_OUT) || status=$$?; exit $$status

bench-self-test: $(BENCH_OUT)/replay ## does the benchmark's oracle notice loss, duplication, disorder and the rest?
	@$(BENCH_OUT)/replay --self-test $(BENCH_TRACES)

bench-suite: $(BENCH_OUT)/suite

bench-plots: ## bench/plots/*.svg and the tables of bench/README.md from the CSV files of the last run (gnuplot)
	@bench/plots.sh $(BENCH_OUT) bench/plots bench/README.md

$(BENCH_OUT)/replay: $(BENCH_OBJECTS)
	$(CC) $(BENCH_CFLAGS) -o $@ $^ $(LDFLAGS) $(MESSAGING_LIBS)

ifneq ($(filter bench-suite $(BENCH_OUT)/suite,$(MAKECMDGOALS)),)
$(BENCH_OUT)/suite: $(SUITE_OBJECTS)
	$(CC) $(BENCH_CFLAGS) -o $@ $^ $(LDFLAGS) $(MESSAGING_LIBS) $(BENCH_PEERS:%=-l%)

$(BENCH_OUT)/suite.o: BENCH_FLAGS_OF = $(BENCH_PEER_FLAGS)
$(BENCH_OUT)/suite.o: $(BENCH_OUT)/peers.list

# Changes when other peers are installed than last time.
$(BENCH_OUT)/peers.list: always
	@mkdir -p $(@D); echo '$(BENCH_PEERS)' | cmp -s - $@ || echo '$(BENCH_PEERS)' > $@
endif

$(BENCH_OUT)/%.o: bench/%.c bench/bench.mk
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) $(BENCH_FLAGS_OF) -DBENCH_FLAGS='"$(strip $(BENCH_FLAGS))"' $(MESSAGING_CFLAGS) -MMD -MP -c -o $@ $<

-include $(wildcard $(BENCH_OUT)/*.d $(BENCH_OUT)/peers/*.d)
