# Faults on real processes (tests/faults). Included by the Makefile; by itself: make -f tests/faults.mk faults

PKG_CONFIG ?= pkg-config
BUILD ?= build/test
FAULTS_PACKAGES = libzmq cmocka $(shell $(PKG_CONFIG) --exists msgpack-c && echo msgpack-c || echo msgpack)
FAULTS_CFLAGS = -std=gnu11 -O1 -g -Wall -Wextra -Wpedantic -Wshadow -Wconversion -pthread $(SANITIZE) -I. \
  $(shell $(PKG_CONFIG) --cflags $(FAULTS_PACKAGES))
FAULTS_LIBS = $(shell $(PKG_CONFIG) --libs $(FAULTS_PACKAGES)) -pthread
FAULTS_OBJECTS := $(patsubst tests/faults/%.c,$(BUILD)/faults/%.o,$(wildcard tests/faults/*.c))

# Alone these are defined here; in the Makefile, there.
MAKE_TESTS ?= +@$(MAKE) --no-print-directory -f $(firstword $(MAKEFILE_LIST)) -j$(or $(JOBS),2)

faults: | $(filter deps,$(MAKECMDGOALS)) ## faults on real processes: kills, stops, cuts, failing system calls (about four minutes)
	$(MAKE_TESTS) $(BUILD)/faults/faults
	@$(BUILD)/faults/faults $(ONLY)

$(BUILD)/faults/faults: $(FAULTS_OBJECTS)
	$(CC) $(CFLAGS) $(SANITIZE) -o $@ $(FAULTS_OBJECTS) $(LDFLAGS) $(FAULTS_LIBS)

$(BUILD)/faults/%.o: tests/faults/%.c tests/faults.mk
	@mkdir -p $(@D)
	$(CC) $(FAULTS_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(wildcard $(BUILD)/faults/*.d)

.PHONY: faults
