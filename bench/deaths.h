/* deaths.h - how soon death is noticed, on both sides. */
#ifndef BENCH_DEATHS_H
#define BENCH_DEATHS_H

#include <stddef.h>
#include <stdint.h>

#define DEATHS_MAX 64u

typedef struct {
  int64_t ns[DEATHS_MAX]; /* sorted */
  size_t count;
  size_t unseen; /* not noticed by the deadline */
} deaths;

/* Kills worker after worker: from kill() to the call of the supervisor's handler. */
deaths deaths_of_workers(void);

/* Kills supervisor after supervisor: from kill() until each worker's check_termination is true. */
deaths deaths_of_supervisors(void);

#endif
