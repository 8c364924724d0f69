# A model of the protocol in Promela (tests/model/), checked by spin to exhaustion. Included by the Makefile.
#   make model                        all configurations, rules and findings, and their tables
#   make model MODEL='order heir'     some of them, by name: tests/model/run.py --list
#   tests/model/run.py --trail NAME   the shortest counterexample found of a rule or finding, in words

MODEL_JOBS = $(if $(filter command line environment,$(origin JOBS)),$(JOBS),2)

model: ## the protocol's model, searched to exhaustion by spin (about ten minutes of processor, JOBS (2) at once, 3 GB in all)
	@for tool in spin python3 $(CC); do \
	  command -v $$tool > /dev/null || { echo "model: no $$tool: apt-get install spin python3 gcc"; exit 1; }; done
	@CC='$(CC)' JOBS=$(MODEL_JOBS) BUILD='$(CURDIR)/build/model' python3 tests/model/run.py $(MODEL)

.PHONY: model
