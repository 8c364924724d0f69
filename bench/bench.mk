# bench.mk - the benchmark. The top-level Makefile includes it and sets CC, CFLAGS, JOBS, MESSAGING_CFLAGS and MESSAGING_LIBS.

BENCH_OUT := build/bench
BENCH_TRACES := $(sort $(wildcard bench/traces/*.msgpack))
BENCH_SOURCES := replay trace record oracle selftest endpoint paced rounds speed bare deaths report tools
BENCH_OBJECTS := $(BENCH_SOURCES:%=$(BENCH_OUT)/%.o)
BENCH_FLAGS = -O2 $(CFLAGS)
BENCH_CFLAGS = -std=gnu11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -pthread $(BENCH_FLAGS)

.PHONY: bench bench-self-test

bench: | $(filter deps,$(MAKECMDGOALS)) ## replays recorded message streams and judges what arrived, in about 90 s; CSV into build/bench/
	+@$(MAKE) --no-print-directory -j$(JOBS) bench-self-test
	@$(BENCH_OUT)/replay --out $(BENCH_OUT) $(BENCH_TRACES)

bench-self-test: $(BENCH_OUT)/replay ## does the benchmark's oracle notice loss, duplication, disorder and the rest?
	@$(BENCH_OUT)/replay --self-test $(BENCH_TRACES)

$(BENCH_OUT)/replay: $(BENCH_OBJECTS)
	$(CC) $(BENCH_CFLAGS) -o $@ $^ $(LDFLAGS) $(MESSAGING_LIBS)

$(BENCH_OUT)/%.o: bench/%.c bench/bench.mk
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) -DBENCH_FLAGS='"$(strip $(BENCH_FLAGS))"' $(MESSAGING_CFLAGS) -MMD -MP -c -o $@ $<

-include $(BENCH_OBJECTS:.o=.d)
