/* bench.h - what the suite's benchmarks and the systems that they compare have in common; see README.md. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define WORKERS_MAX 300u
#define ROUNDS_MAX_SUITE 32u
#define PAIR_TURNS 4u /* in a round, of the two systems that goals compare, where one turn says little; of the others one */
#define TURNS_MAX 8u  /* where it says least */
#define RECEIVE_TIMEOUT_MS 20000 /* so long without any message, and the rest counts as lost */

/* ==== A message =======================================================================================================
 *
 * size bytes in all on every system: this library encodes and decodes them as a note (note.h), the others carry the encoded
 * bytes. A size below 16 has no room for tag and seq, and they read as 0.
 */

typedef struct {
  uint32_t tag; /* the sender's index */
  uint32_t seq; /* from 1 */
  uint32_t size;
  uint8_t *bytes; /* as encoded; packet_mark keeps tag and seq in them */
} packet;

packet packet_make(uint32_t size, uint32_t tag);
void packet_mark(packet *m, uint32_t seq);
void packet_read(const void *bytes, size_t size, uint32_t *tag, uint32_t *seq);

typedef void note_fn(void *user, uint32_t tag, uint32_t seq);

/* ==== A system ======================================================================================================== */

typedef struct scene scene;

/* One way to relay. Each function runs in the process that its comment names. */
typedef struct {
  const char *name;
  const char *setup;  /* how it was set up, for the tables */
  const char *version;
  uint32_t deliveries_max; /* in a burst, where it would take too long; 0: no limit */
  bool beats;              /* has heartbeats */
  void (*prepare)(scene *s);                                               /* the suite's, before it forks; may be NULL */
  void (*relay)(scene *s);                                                 /* the supervisor's; posts bound and all_in, never returns */
  void *(*join)(scene *s, uint32_t worker);                                /* a worker's: its end, connected */
  void (*send)(void *end, const packet *m);                               /* a worker's; waits where there is no room */
  void (*flush)(void *end);                                                /* a worker's: what has gathered goes now; may be NULL */
  uint32_t (*recv)(void *end, note_fn *note, void *user, int timeout_ms);  /* a worker's: how many came, 0 after the timeout */
  void (*release)(scene *s);                                               /* the suite's, after the last process; may be NULL */
} peer;

extern const peer peer_messaging, peer_messaging_tcp, peer_messaging_curve;
extern const peer peer_libzmq, peer_libzmq_batch, peer_libzmq_typed, peer_libzmq_echo, peer_libzmq_slice, peer_unix, peer_pipe, peer_ring;
extern const peer peer_czmq, peer_nng, peer_nanomsg;

/* Whether it is one of the two that goals compare. */
static inline bool peer_in_goals(const peer *system) { return system == &peer_messaging || system == &peer_libzmq; }

/* Which system is the i-th of a turn; who comes first changes. With more than one turn a round, the others sit out all but the first: false. */
static inline bool peer_has_turn(const peer *const *systems, size_t count, uint32_t turns, uint32_t turn, size_t i, size_t *system) {
  *system = (i + turn % turns + turn / turns) % count;
  return turn % turns == 0 || peer_in_goals(systems[*system]);
}

/* All that were found when this was built, this library first, bare libzmq second. */
size_t peers_all(const peer **out, size_t max);

/* ==== A scene =========================================================================================================
 *
 * A supervisor process and its workers over one system, forked by the suite, in shared memory.
 */

/* Where one message is, for the way of a message by stage. */
enum { STAMP_SENT, STAMP_RELAY_HAS, STAMP_RELAY_SENT, STAMP_RECEIVER_HAS, STAMPS };

typedef void role_fn(scene *s, uint32_t worker, void *end);

typedef struct {
  sem_t go;
  pid_t pid;
  bool deaf; /* hears nothing: it only sends */
  int64_t began_ns, finished_ns, thread_cpu_ns;
  uint64_t received, disordered;
} actor;

struct scene {
  size_t bytes;
  const peer *system;
  uint32_t workers, size, count; /* count: what a run sends */
  role_fn *role;
  void *role_data;               /* shared memory of the benchmark's own */
  void *system_data;             /* of the system's own, from prepare */
  char folder[128], pub[256], pull[256];
  sem_t bound, listed, joined, all_in, done;
  _Atomic bool over;
  pid_t supervisor;
  int64_t begun_ns, ready_ns;    /* first worker's fork, last worker ready */
  _Atomic int64_t *stamps;       /* unless NULL, systems that can note when a message gets where */
  actor actors[];
};

typedef struct {
  const peer *system;
  uint32_t workers, size;
  uint32_t deaf;       /* the first so many workers hear nothing */
  bool one_core;
  role_fn *role;
  void *role_data;
  _Atomic int64_t *stamps;
} scene_plan;

/* Forks all and returns when every worker is ready; NULL, with a line on stderr, if it does not get so far. */
scene *scene_begin(const scene_plan *plan);
void scene_go(scene *s, uint32_t worker);        /* its role once */
bool scene_await(scene *s, uint32_t so_many);    /* ends of roles */
void scene_end(scene *s);

/* Of all processes of the scene, user and system, in ns; times that a thread of them went to sleep by itself; threads. */
int64_t scene_cpu_ns(const scene *s);
int64_t scene_supervisor_cpu_ns(const scene *s); /* of the supervisor alone */
uint64_t scene_sleeps(const scene *s);
/* What the threads of a scene have cost so far. A role: the supervisor, workers that send (the deaf ones), other workers. */
enum { OF_SUPERVISOR, OF_SENDERS, OF_RECEIVERS, ROLES };
enum { ON_APPLICATION, ON_BACKGROUND, ON_LIBZMQ_IO, THREADS };
typedef struct {
  double cpu_ns[ROLES][THREADS];
  double sleeps[ROLES][THREADS]; /* times that a thread went to sleep by itself */
  double faults[ROLES];          /* page faults */
} scene_threads;
void scene_threads_add(const scene *s, scene_threads *sum, double factor);
/* Of one process: what no other shares with it. */
size_t process_private_bytes(pid_t pid);

/* Whether a worker is to hear what the one with that tag sent. */
bool scene_hears(const scene *s, uint32_t worker, uint32_t tag);
void scene_stamp(scene *s, int stamp);
/* Where a worker's or the supervisor's socket of that name lies. */
void scene_path(const scene *s, char *out, size_t size, const char *prefix, const char *name, uint32_t worker);

/* ==== Results ========================================================================================================= */

typedef struct {
  double values[ROUNDS_MAX_SUITE * TURNS_MAX]; /* NAN: that one was not measured */
  size_t count;
} series;

typedef struct {
  double median, min, max;
} spread;

void series_add(series *s, double value);
/* The value of one turn, so that turns in which something failed, or was left out, do not shift the others. */
void series_set(series *s, size_t turn, double value);
spread series_spread(const series *s);
/* Turn by turn, one over the other. */
spread series_ratio(const series *over, const series *under);

typedef struct {
  bool full;
  uint32_t rounds;
  const char *out;       /* folder of the CSV files, or NULL */
  const char *only;      /* names of benchmarks, or NULL */
  const char *systems;   /* names of systems, or NULL */
  const char *receivers; /* numbers of receivers, or NULL */
  const char *sizes;     /* sizes, or NULL */
} suite_options;

/* Whether a list with commas in between has this name or number. NULL has all. */
bool listed(const char *list, const char *name);
bool listed_number(const char *list, uint32_t number);

FILE *csv_open(const suite_options *o, const char *name, const char *columns);
void csv_close(FILE *file);

/* A goal: PASS when value is at most (or at least) the limit. The spread stands beside it. */
void goal_at_most(int number, const char *what, spread measured, double limit);
void goal_at_least(int number, const char *what, spread measured, double limit);
void goal_unmeasured(int number, const char *what, const char *why);
/* Prints them; how many were missed. */
size_t goals_print(FILE *file, const suite_options *o);

/* ==== Benchmarks ====================================================================================================== */

typedef struct {
  const suite_options *options;
  const peer *peers[16];
  size_t peer_count;
} suite;

void bench_throughput(const suite *u);
void bench_bursts(const suite *u);
void bench_latency(const suite *u);
void bench_fan_out(const suite *u);
void bench_join(const suite *u);
void bench_codec(const suite *u);
void bench_startup(const suite *u);
void bench_idle(const suite *u);
void bench_stages(const suite *u);

#endif
