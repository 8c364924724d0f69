# portfolio.mk - the SAT portfolio. The top-level Makefile includes it; by itself: make -f bench/portfolio/portfolio.mk demo

DEMO_PACKAGES := libcadical-dev
DEMO_INSTANCE ?= factor:20:1
PORTFOLIO_OUT := build/portfolio
PORTFOLIO_MK := $(lastword $(MAKEFILE_LIST))
PORTFOLIO_MSGPACK = $(shell pkg-config --exists msgpack-c && echo msgpack-c || echo msgpack)
PORTFOLIO_CFLAGS = -std=gnu11 -O2 -g -Wall -Wextra -Wpedantic -Wshadow -Wconversion -pthread $(shell pkg-config --cflags libzmq $(PORTFOLIO_MSGPACK))
PORTFOLIO_LIBS = $(shell pkg-config --libs libzmq $(PORTFOLIO_MSGPACK)) -lcadical -lstdc++ -lm
# A command, not a value: make deps may install it in the same run.
HAVE_CADICAL = printf '%s' '\#include <ccadical.h>' | $(CC) -E - > /dev/null 2>&1

.PHONY: demo bench-portfolio test-portfolio

# It exits like other SAT solvers: 10 satisfiable, 20 unsatisfiable.
demo: $(PORTFOLIO_OUT)/portfolio ## a SAT portfolio whose solvers share what they learn (DEMO_INSTANCE=file.cnf)
	@$< -o $(PORTFOLIO_OUT)/shared.txt $(DEMO_INSTANCE); status=$$?; \
	  echo 'c what was shared is in $(PORTFOLIO_OUT)/shared.txt'; test $$status -eq 10 -o $$status -eq 20

bench-portfolio: $(PORTFOLIO_OUT)/portfolio ## sharing, not sharing and one solver, in about 20 minutes; CSV into build/portfolio/
	@bench/portfolio/compare.sh $<

# make test runs it by tests/test_demo.sh.
test-portfolio:
	@if $(HAVE_CADICAL); then \
	  $(MAKE) --no-print-directory -f $(PORTFOLIO_MK) $(PORTFOLIO_OUT)/portfolio && bench/portfolio/test.sh $(PORTFOLIO_OUT)/portfolio; \
	else echo 'skipped: the portfolio, because CaDiCaL is not installed (make deps)'; fi

$(PORTFOLIO_OUT)/portfolio: bench/portfolio/portfolio.c bench/portfolio/formula.h messaging.h messaging_impl.h | $(filter deps,$(MAKECMDGOALS))
	@mkdir -p $(@D)
	@$(HAVE_CADICAL) || { echo 'CaDiCaL is missing: make deps (it installs $(DEMO_PACKAGES))' >&2; exit 1; }
	$(CC) $(CFLAGS) $(PORTFOLIO_CFLAGS) $< -o $@ $(PORTFOLIO_LIBS)
