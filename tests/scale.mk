# What a supervisor and N workers cost, for N up to 10,000, in simulated time (tests/scale.c). Included by the Makefile.

scale: build/tests/scale ## frames, bytes, time and memory for 2 to 10,000 workers, simulated (three minutes, 6 GB)
	build/tests/scale $(N)

build/tests/scale: tests/scale.c messaging.h messaging_impl.h tests/scale.mk
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(CFLAGS) $(MESSAGING_CFLAGS) -o $@ tests/scale.c $(LDFLAGS) $(MESSAGING_LIBS)

.PHONY: scale
