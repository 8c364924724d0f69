/* endpoint.h - one process's application: sends what was recorded of it, and records all that the library gives it. */
#ifndef BENCH_ENDPOINT_H
#define BENCH_ENDPOINT_H

#include "bus.h"
#include "record.h"

typedef struct {
  const trace *t;
  record *r;
  uint32_t process;
  bool relays_only; /* senders repeat their relay messages, and number these alone */
  bus_ctx *ctx;
  uint64_t relay_receipts;
  uint32_t generation;    /* of what is received */
  bool has_ended;         /* the handle; there is nothing more to wait for */
  uint32_t *outputs_seen; /* supervisor: of each process */
} endpoint;

endpoint endpoint_make(const trace *t, record *r, uint32_t process, bool relays_only);

/* Takes and records all that has arrived. */
void endpoint_drain(endpoint *e);
/* The same until the time has come. */
void endpoint_run_until(endpoint *e, int64_t at_ns);
/* Until something arrives or the time has come, then takes it. */
void endpoint_await(endpoint *e, int64_t at_ns);
/* Sends a recorded message; goes on receiving while the library is full. */
void endpoint_send(endpoint *e, const trace_event *what);

/* The error handler; user is the endpoint. */
void endpoint_on_error(const messaging_error *error, void *user);

#endif
