/* Where the time goes: CPU of a relay by process and thread, and the way of one message by stage. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "burst.h"
#include "tools.h"

static const char *const role_names[ROLES] = {"supervisor", "sender", "receiver"};
static const char *const thread_names[THREADS] = {"application", "background", "libzmq I/O"};

/* ==== CPU by thread ==================================================================================================== */

typedef struct {
  series cpu_ns[ROLES][THREADS], sleeps[ROLES][THREADS], faults[ROLES], all_ns;
} stage_costs;

static void add_run(stage_costs *c, const burst_plan *p, const scene_threads *t, const burst *b) {
  double per[ROLES] = {b->count, b->count, (double)b->count * p->receivers};
  for (int r = 0; r < ROLES; r++) {
    for (int k = 0; k < THREADS; k++) {
      series_add(&c->cpu_ns[r][k], t->cpu_ns[r][k] / per[r]);
      series_add(&c->sleeps[r][k], 1e3 * t->sleeps[r][k] / per[r]);
    }
    series_add(&c->faults[r], 1e3 * t->faults[r] / per[r]);
  }
  series_add(&c->all_ns, b->cpu_ns / per[OF_RECEIVERS]);
}

static void print_costs(const stage_costs *c, const peer *system, uint32_t receivers, uint32_t size, FILE *csv) {
  printf("\n%s, %u bytes to %u: %.0f ns CPU a delivery, all in all\n", system->name, size, receivers, series_spread(&c->all_ns).median);
  printf("  %-12s %-12s %14s %22s %20s\n", "process", "thread", "ns a message", "sleeps a 1000 messages", "faults a 1000");
  for (int r = 0; r < ROLES; r++)
    for (int k = 0; k < THREADS; k++) {
      double cpu_ns = series_spread(&c->cpu_ns[r][k]).median, sleeps = series_spread(&c->sleeps[r][k]).median;
      double faults = series_spread(&c->faults[r]).median;
      if (cpu_ns > 0) printf("  %-12s %-12s %14.1f %22.2f", role_names[r], thread_names[k], cpu_ns, sleeps);
      if (cpu_ns > 0 && k == ON_APPLICATION) printf(" %20.2f", faults);
      if (cpu_ns > 0) putchar('\n');
      if (csv && cpu_ns > 0)
        fprintf(csv, "%s,%u,%u,%s,%s,%.1f,%.3f,%.3f\n", system->name, receivers, size, role_names[r], thread_names[k], cpu_ns, sleeps,
                k == ON_APPLICATION ? faults : 0);
    }
}

static void measure_threads(const suite *u, const peer *system, uint32_t receivers, uint32_t size, FILE *csv) {
  stage_costs *c = checked_calloc(1, sizeof *c);
  for (uint32_t round = 0; round < u->options->rounds; round++) {
    scene_threads threads = {0};
    burst_plan plan = {system, receivers, size, burst_count(receivers, size), &threads};
    burst b = burst_run(&plan);
    if (b.valid) add_run(c, &plan, &threads, &b);
  }
  print_costs(c, system, receivers, size, csv);
  free(c);
}

/* ==== The way of one message ========================================================================================== */

#define WAY_SIZE 64u
#define WAY_WARM 50u
#define WAY_PAUSE_NS NS_PER_MS /* everybody sleeps again before the next message */

enum { SENT, TO_RELAY, IN_RELAY, TO_RECEIVER, IN_RECEIVER, WAYS };
static const char *const way_names[WAYS] = {"call until on the socket", "to the supervisor", "in the supervisor", "to the receiver",
                                           "to its application"};

typedef struct { /* in shared memory */
  _Atomic int64_t stamps[STAMPS];
  sem_t arrived;
  int64_t arrived_ns;
  uint32_t count, done;
  int64_t ways_ns[WAYS][4096];
} way;

static void hear(void *user, uint32_t tag, uint32_t seq) {
  (void)tag;
  *(uint32_t *)user = seq;
}

static void note_way(way *v, uint32_t i, int64_t begun_ns) {
  int64_t at[WAYS + 1] = {begun_ns};
  for (int k = 0; k < STAMPS; k++) at[k + 1] = v->stamps[k];
  at[WAYS] = v->arrived_ns;
  for (int k = 0; k < WAYS; k++) v->ways_ns[k][i] = at[k + 1] - at[k];
}

static void send_ways(scene *s, void *end) {
  way *v = s->role_data;
  packet m = packet_make(WAY_SIZE, 0);
  for (uint32_t i = 0; i < v->count; i++) {
    sleep_until_ns(now_ns() + WAY_PAUSE_NS);
    packet_mark(&m, i + 1);
    int64_t begun_ns = now_ns();
    s->system->send(end, &m);
    if (!take_until(&v->arrived, now_ns() + RECEIVE_TIMEOUT_MS * NS_PER_MS)) break;
    note_way(v, i, begun_ns);
    v->done = i + 1;
  }
  free(m.bytes);
}

static void take_part(scene *s, uint32_t worker, void *end) {
  way *v = s->role_data;
  uint32_t seq = 0;
  if (worker == 0) {
    send_ways(s, end);
    return;
  }
  while (seq < v->count && s->system->recv(end, hear, &seq, RECEIVE_TIMEOUT_MS) > 0) {
    v->arrived_ns = now_ns();
    sem_post(&v->arrived);
  }
}

static void run_way(const suite *u, const peer *system, series *us) {
  way *v = shared_make(sizeof *v);
  v->count = WAY_WARM + (u->options->full ? 2000u : 300u);
  sem_init(&v->arrived, 1, 0);
  scene_plan plan = {.system = system, .workers = 2, .size = WAY_SIZE, .deaf = 1, .role = take_part, .role_data = v, .stamps = v->stamps};
  scene *s = scene_begin(&plan);
  if (s) {
    scene_go(s, 1);
    scene_go(s, 0);
    scene_await(s, 2);
    scene_end(s);
  }
  for (int k = 0; k < WAYS && v->done == v->count; k++) {
    sort_ns(v->ways_ns[k] + WAY_WARM, v->count - WAY_WARM);
    series_add(&us[k], (double)quantile_ns(v->ways_ns[k] + WAY_WARM, v->count - WAY_WARM, 0.5) / 1e3);
  }
  shared_release(v, sizeof *v);
}

static void measure_ways(const suite *u) {
  const peer *systems[2] = {&peer_messaging, &peer_libzmq};
  series us[2][WAYS] = {0};
  for (uint32_t round = 0; round < u->options->rounds; round++)
    for (uint32_t k = 0; k < 2; k++) run_way(u, systems[(k + round) % 2], us[(k + round) % 2]);
  FILE *csv = csv_open(u->options, "way", "stage,messaging_us,libzmq_us");
  puts("\nThe way of one message among sleepers, us, medians; this library's with its trace on, which costs some microseconds a frame\n");
  printf("  %-26s %10s %10s\n", "stage", "messaging", "libzmq");
  for (int k = 0; k < WAYS; k++) {
    double ours = series_spread(&us[0][k]).median, bare = series_spread(&us[1][k]).median;
    printf("  %-26s %10.1f %10.1f\n", way_names[k], ours, bare);
    if (csv) fprintf(csv, "\"%s\",%.1f,%.1f\n", way_names[k], ours, bare);
  }
  csv_close(csv);
}

/* ==== The benchmark =================================================================================================== */

void bench_stages(const suite *u) {
  static const uint32_t sizes[] = {64, 140}, receivers[] = {4, 2, 16, 64, 256}; /* more than 4 when asked for */
  puts("\nWhere the time goes: CPU by process and thread (of a receiver: the mean), medians");
  FILE *csv = csv_open(u->options, "stages", "system,receivers,size,process,thread,cpu_ns_a_message,sleeps_a_1000,faults_a_1000");
  for (size_t n = 0; n < (u->options->receivers ? 5 : 1); n++)
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
      for (size_t i = 0; i < u->peer_count; i++) {
        bool chosen = peer_in_goals(u->peers[i]);
        if (chosen && listed_number(u->options->receivers, receivers[n]) && listed_number(u->options->sizes, sizes[s]))
          measure_threads(u, u->peers[i], receivers[n], sizes[s], csv);
      }
  csv_close(csv);
  measure_ways(u);
}
