/* rounds.h - starts all processes of a system at once, round after round, and takes the time until the last has everything. */
#ifndef BENCH_ROUNDS_H
#define BENCH_ROUNDS_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define ROUND_DEADLINE_MS 30000
#define ROUNDS_MAX 64u

typedef struct {
  sem_t go;                        /* posted once a round, and once more to end */
  _Atomic bool joined;             /* it receives what the relay publishes */
  int64_t finished_ns[ROUNDS_MAX]; /* it has everything of that round */
  uint64_t missed[ROUNDS_MAX];     /* messages that had not come by the deadline */
} round_process;

typedef struct { /* in shared memory; process 0 is the relay */
  size_t bytes;
  uint32_t process_count;
  uint32_t passes;   /* how often a round sends all messages of the trace */
  bool relay_counts; /* whether the relay, too, receives and takes part in the rounds */
  pid_t top;         /* the process that holds the system together */
  _Atomic bool over;
  sem_t bound; /* by the relay when others can connect */
  sem_t ready; /* by each process when it has joined */
  sem_t done;  /* by each process at the end of each round */
  round_process processes[];
} rounds;

rounds *rounds_make(uint32_t process_count, uint32_t passes, bool relay_counts);
void rounds_release(rounds *s);

/* For a process of the system: false when there is no further round. */
bool round_await(rounds *s, uint32_t p);
void round_finish(rounds *s, uint32_t p, uint32_t round, uint64_t missed);

/* For the measuring process: until all have joined; one round, its duration and what was missed in it; the end. */
void rounds_await_join(rounds *s, const char *what);
int64_t round_run(rounds *s, uint32_t round, uint64_t *missed);
void rounds_end(rounds *s);

#endif
