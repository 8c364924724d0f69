# Coverage-guided fuzzing with libFuzzer (clang): tests/fuzz/. Included by the Makefile; the corpus that is kept is replayed by tests/test_fuzz.c.
#   make fuzz                             each target for TIME (60) seconds, one after the other
#   make fuzz TARGET=worker TIME=3600     one of them
#   make fuzz-corpus                      takes into tests/fuzz/corpus/ what build/fuzz/ has found beyond it, and drops what adds nothing

TARGET ?= supervisor worker bytes
TIME ?= 60
FUZZ_CC ?= clang
FUZZ_CFLAGS = -std=gnu11 -O1 -g -Wall -Wextra -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FUZZ_OPTIONS = -rss_limit_mb=2000 -timeout=30 -max_len=2048 -artifact_prefix=build/fuzz/found/
FUZZ_PROGRAMS := $(patsubst tests/fuzz/%.c,build/fuzz/fuzz-%,$(wildcard tests/fuzz/*.c))
# An input that fails is in build/fuzz/found/; `build/fuzz/fuzz-TARGET FILE` runs it again.

fuzz: $(TARGET:%=build/fuzz/fuzz-%) ## fuzzes what reads a peer's bytes, TIME (60) seconds for each of TARGET (supervisor worker bytes)
	@set -e; for target in $(TARGET); do \
	  mkdir -p build/fuzz/found build/fuzz/corpus-$$target; \
	  echo "fuzz: $$target for $(TIME) seconds; log in build/fuzz/$$target.log"; \
	  if ! ASAN_OPTIONS=quarantine_size_mb=16 build/fuzz/fuzz-$$target -max_total_time=$(TIME) -print_final_stats=1 $(FUZZ_OPTIONS)$$target- \
	    build/fuzz/corpus-$$target tests/fuzz/corpus/$$target > build/fuzz/$$target.log 2>&1; then \
	    grep -E '^fuzz:|ERROR|SUMMARY|Test unit' build/fuzz/$$target.log; exit 1; fi; \
	  sed -n 's/^stat::number_of_executed_units: */  executions: /p; s/^#.*DONE *cov: \([0-9]*\).*/  edges: \1/p' build/fuzz/$$target.log; \
	done

fuzz-corpus: $(FUZZ_PROGRAMS) ## keeps in tests/fuzz/corpus/ the fewest inputs that reach all that those in build/fuzz/ reach
	@set -e; for target in $(TARGET); do \
	  rm -rf build/fuzz/merged; mkdir -p build/fuzz/merged build/fuzz/found build/fuzz/corpus-$$target tests/fuzz/corpus/$$target; \
	  build/fuzz/fuzz-$$target -set_cover_merge=1 $(FUZZ_MERGE) $(FUZZ_OPTIONS)$$target- build/fuzz/merged tests/fuzz/corpus/$$target build/fuzz/corpus-$$target \
	    > build/fuzz/merge.log 2>&1; \
	  rm -f tests/fuzz/corpus/$$target/*; cp build/fuzz/merged/* tests/fuzz/corpus/$$target/; \
	  echo "fuzz-corpus: $$target: $$(ls tests/fuzz/corpus/$$target | wc -l) files, $$(cat tests/fuzz/corpus/$$target/* | wc -c) bytes"; \
	done

# Edges alone, without how often: a hundred small files instead of thousands.
FUZZ_MERGE ?= -use_counters=0

build/fuzz/fuzz-%: tests/fuzz/%.c tests/fuzz/fuzz.h messaging.h messaging_impl.h tests/fuzz.mk
	@mkdir -p $(@D)
	@command -v $(FUZZ_CC) > /dev/null || { echo "fuzz: no $(FUZZ_CC): apt-get install clang libclang-rt-dev"; exit 1; }
	$(FUZZ_CC) $(FUZZ_CFLAGS) $(FUZZ_FLAGS) $(MESSAGING_CFLAGS) -o $@ $< $(MESSAGING_LIBS)

.PHONY: fuzz fuzz-corpus
