# Line and branch coverage of the two headers by all test programs, the simulator and the replay of the fuzz corpus. Included by the Makefile.
# Needs gcc with its gcov, and python3; nothing else.

COVERAGE_SECONDS ?= 60
COVERAGE_FLAGS = --coverage -fprofile-update=atomic -O0
GCOV ?= gcov
# Forked workers end by _exit, which writes no counters; this does before.
COVERAGE_EXIT = void __gcov_dump(void); void __real__exit(int) __attribute__((noreturn)); void __wrap__exit(int); \
  void __wrap__exit(int status) { __gcov_dump(); __real__exit(status); }

coverage: ## line and branch coverage of messaging.h and messaging_impl.h, by section (two to five minutes)
	@for tool in gcc g++ $(GCOV) python3; do \
	  command -v $$tool > /dev/null || { echo "coverage: no $$tool: apt-get install gcc g++ python3"; exit 1; }; done
	@rm -rf build/coverage && mkdir -p build/coverage
	@echo '$(COVERAGE_EXIT)' | gcc -x c -c -o build/coverage/exit.o -
	$(MAKE_TESTS) covered BUILD=build/coverage SANITIZE="$(COVERAGE_FLAGS)" CC=gcc CXX=g++ \
	  LDFLAGS="$(LDFLAGS) -Wl,--wrap=_exit build/coverage/exit.o" JOBS=$(JOBS)
	@tests/coverage.py --gcov $(GCOV) build/coverage | tee build/coverage/report.txt

covered: programs
	@MESSAGING_TEST_SCALE=3 $(RUN_TESTS) $(TEST_PROGRAMS) $(if $(SIMULATOR),"$(SIMULATOR) --quick $(COVERAGE_SECONDS)") | grep '^== \|FAILED\|passed,' || true

.PHONY: coverage covered
