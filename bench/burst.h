/* burst.h - one sender, a burst through the supervisor, and receivers that count: what throughput and fan-out have in common. */
#ifndef BENCH_BURST_H
#define BENCH_BURST_H

#include "bench.h"

typedef struct {
  bool valid; /* it ran, and every message reached every receiver in order */
  uint32_t count; /* messages in the measured run */
  uint64_t lost, disordered;
  double wall_ns;        /* from before the first send until the last receiver has everything */
  double cpu_ns;         /* of all processes, acknowledgements afterwards included */
  double supervisor_ns;  /* likewise, of the supervisor's */
  double sender_ns;      /* CPU of the sending thread */
  double supervisor_bytes, worker_bytes; /* private memory afterwards; of a worker the mean of receivers */
  double ready_ns, ready_cpu_ns; /* from the first worker's fork until all were ready */
  double joined_bytes;   /* the supervisor's when all were ready and nothing had been sent */
} burst;

typedef struct {
  const peer *system;
  uint32_t receivers, size, count;
  scene_threads *threads; /* unless NULL, gets what the threads cost */
} burst_plan;

burst burst_run(const burst_plan *plan);

/* So many messages that a run takes a tenth of a second or so. */
uint32_t burst_count(uint32_t receivers, uint32_t size);

#endif
