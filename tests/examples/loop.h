/* What the event loops have in common: a worker that sends MESSAGES numbers in bursts, and a supervisor that takes them when its loop
 * says that there is something. */
#ifndef LOOP_H
#define LOOP_H

#include "messaging.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static int fact_encode(msgpack_packer *pk, const uint64_t *in) { return msgpack_pack_uint64(pk, *in); }
static int fact_decode(const msgpack_object *obj, msgpack_zone *zone, uint64_t *out) {
  (void)zone;
  *out = obj->via.u64;
  return obj->type != MSGPACK_OBJECT_POSITIVE_INTEGER;
}
MESSAGING_MAKE(bus, uint64_t, fact_encode, fact_decode);

enum { MESSAGES = 100000, DEADLINE_MS = 30000 };

/* The worker. Bursts of 1, 2, 3, ... messages; each waits until the one before was accepted, so that the loop falls asleep between them. */
static int send_numbers(const messaging_addresses *at) {
  bus_ctx *worker;
  messaging_options options = {0};
  options.send_timeout_ms = DEADLINE_MS; /* a full queue is waited for */
  if (bus_init_worker(&worker, 1, at->pub, at->pull, &options) || bus_run_worker(worker, NULL, NULL)) return 1;
  uint64_t number = 0;
  for (uint64_t burst = 1; number < MESSAGES; burst++) {
    for (uint64_t i = 0; i < burst && number < MESSAGES; i++, number++)
      if (bus_send_relay_message(worker, &number)) return 1;
    if (bus_flush(worker, DEADLINE_MS)) return 1;
  }
  return bus_exit(&worker) != MESSAGING_OK;
}

typedef struct {
  bus_ctx *im;
  pid_t worker;
  uint64_t received, wakeups;
  bool failed;
} supervisor;

static bool supervisor_start(supervisor *self) {
  messaging_addresses at;
  if (bus_init_im(&self->im, &at, NULL)) return false;
  self->worker = fork();
  if (self->worker == 0) _exit(send_numbers(&at));
  messaging_child child = {self->worker, 1};
  return bus_run_im(self->im, &child, 1, NULL, NULL) == MESSAGING_OK;
}

/* Takes one batch, checks it, and gives the number of messages in it; 0 when there was none, or when something is wrong. */
static size_t supervisor_take(supervisor *self) {
  bus_batch batch;
  if (bus_recv(self->im, &batch)) {
    self->failed = true; /* the handle has ended */
    return 0;
  }
  size_t count = batch.count;
  for (size_t i = 0; i < count; i++)
    if (batch.messages[i].type != MESSAGING_RELAY_MESSAGE || batch.messages[i].relay.message != self->received++) self->failed = true;
  bus_batch_free(&batch);
  return count;
}

static bool supervisor_done(const supervisor *self) { return self->failed || self->received == MESSAGES; }

/* To be called when the loop saw nothing for DEADLINE_MS. */
static void supervisor_silence(supervisor *self) {
  fprintf(stderr, "after %llu messages: %s\n", (unsigned long long)self->received,
          supervisor_take(self) ? "a wake-up was missed" : "nothing came any more");
  self->failed = true;
}

static int supervisor_end(supervisor *self, const char *name) {
  int status = 1;
  bool left = bus_exit(&self->im) == MESSAGING_OK;
  bool worked = waitpid(self->worker, &status, 0) == self->worker && status == 0;
  printf("%s: %llu messages, %llu wake-ups\n", name, (unsigned long long)self->received, (unsigned long long)self->wakeups);
  return !left || !worked || self->failed;
}

#endif
