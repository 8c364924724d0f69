# The simulator (tests/sim.c) at full speed, and the deliberate bugs that show what it finds. Included by the Makefile.

SIM_SEEDS = $(if $(filter command line environment,$(origin SEEDS)),$(SEEDS),100000)
SIM_FROM ?= 1
SIM_CFLAGS = -std=gnu11 -O2 -g -Wall -Wextra -Wpedantic -Wshadow -Wconversion

sim: build/tests/sim ## the protocol in SEEDS (100000) simulated worlds, from seed SIM_FROM (1)
	build/tests/sim SEEDS=$(SIM_SEEDS) FROM=$(SIM_FROM)

sim-mutants: ## deliberate bugs, each of which the simulator must find (about ten minutes)
	CC='$(CC)' tests/sim_mutants.py

build/tests/sim: tests/sim.c messaging.h messaging_impl.h tests/sim.mk
	@mkdir -p $(@D)
	$(CC) $(SIM_CFLAGS) $(CFLAGS) $(MESSAGING_CFLAGS) -o $@ tests/sim.c $(LDFLAGS) $(MESSAGING_LIBS)

.PHONY: sim sim-mutants
