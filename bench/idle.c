/* What one message costs processes that all sleep: who is woken before it is delivered, and who afterwards. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "tools.h"

#define SIZE 64u
#define RECEIVERS 4u
#define MESSAGES 3u        /* the first warms up */
#define SCENES_A_ROUND 3u  /* since a heartbeat may fall into any of them */
#define SCENES_MAX 32u
#define DELIVERED_MS 10    /* until whoever was woken for the delivery sleeps again; acknowledgements come later */
#define BEATING_MS 2500    /* two heartbeats after a message, with which acknowledgements go, and one more half, so that no window ends with one; */
#define BETWEEN_MS 500     /* from there until after the next one, when what the same time costs without a message is counted */
#define AFTERWARDS_MS 200  /* for who has no heartbeats */

typedef struct {
  sem_t delivered;
} bell;

static void hear(void *user, uint32_t tag, uint32_t seq) {
  (void)tag;
  *(uint32_t *)user = seq;
}

static void take_part(scene *s, uint32_t worker, void *end) {
  bell *b = s->role_data;
  uint32_t last = 0;
  if (worker == 0) {
    packet m = packet_make(SIZE, 0);
    packet_mark(&m, s->count);
    s->system->send(end, &m);
    if (s->system->flush) s->system->flush(end);
    free(m.bytes);
    return;
  }
  while (last < MESSAGES && s->system->recv(end, hear, &last, RECEIVE_TIMEOUT_MS) > 0) sem_post(&b->delivered);
}

typedef struct {
  series before, after;
  series before_of[ROLES][THREADS], after_of[ROLES][THREADS]; /* of a receiver: the mean */
  unsigned invalid;
} counts;

static void pause_ms(int64_t ms) { sleep_until_ns(now_ns() + ms * NS_PER_MS); }

static double sum_of(const scene_threads *t) {
  double sum = 0;
  for (int r = 0; r < ROLES; r++)
    for (int k = 0; k < THREADS; k++) sum += t->sleeps[r][k];
  return sum;
}

/* How often the threads of each scene go to sleep in the time in which what follows a message has happened. */
static void count_pause(scene *const *scenes, uint32_t count, const peer *system, scene_threads *out) {
  for (uint32_t k = 0; k < count; k++) scene_threads_add(scenes[k], &out[k], -1);
  pause_ms(system->beats ? BEATING_MS : AFTERWARDS_MS);
  for (uint32_t k = 0; k < count; k++) scene_threads_add(scenes[k], &out[k], 1);
}

static bool send_message(scene *s, uint32_t seq, scene_threads *before) {
  bell *b = s->role_data;
  int64_t deadline_ns = now_ns() + RECEIVE_TIMEOUT_MS * NS_PER_MS;
  scene_threads_add(s, before, -1);
  s->count = seq;
  scene_go(s, 0);
  for (uint32_t w = 0; w < RECEIVERS; w++)
    if (!take_until(&b->delivered, deadline_ns)) return false;
  pause_ms(DELIVERED_MS);
  scene_threads_add(s, before, 1);
  return true;
}

static void note_message(counts *c, const scene_threads *before, const scene_threads *after, const scene_threads *quiet) {
  series_add(&c->before, sum_of(before));
  series_add(&c->after, sum_of(after) - sum_of(quiet));
  for (int r = 0; r < ROLES; r++)
    for (int k = 0; k < THREADS; k++) {
      double share = r == OF_RECEIVERS ? RECEIVERS : 1;
      series_add(&c->before_of[r][k], before->sleeps[r][k] / share);
      series_add(&c->after_of[r][k], (after->sleeps[r][k] - quiet->sleeps[r][k]) / share);
    }
}

static scene *begin(const peer *system) {
  bell *b = shared_make(sizeof *b);
  sem_init(&b->delivered, 1, 0);
  scene_plan plan = {system, RECEIVERS + 1, SIZE, .deaf = 1, .role = take_part, .role_data = b};
  scene *s = scene_begin(&plan);
  if (!s) shared_release(b, sizeof *b);
  for (uint32_t w = 1; s && w <= RECEIVERS; w++) scene_go(s, w);
  return s;
}

static void end(scene *s) {
  bell *b = s->role_data;
  scene_end(s);
  shared_release(b, sizeof *b);
}

/* All scenes of all rounds at once, since nearly all that they do is sleep. A message goes to one of them after the other. */
static void run_system(const peer *system, uint32_t rounds, counts *c, FILE *csv) {
  scene *scenes[SCENES_MAX];
  scene_threads quiet[SCENES_MAX] = {0};
  uint32_t begun = 0;
  for (uint32_t k = 0; k < rounds * SCENES_A_ROUND && k < SCENES_MAX; k++) {
    scenes[begun] = begin(system);
    if (scenes[begun]) begun++;
    else c->invalid++;
  }
  pause_ms(AFTERWARDS_MS);
  for (uint32_t i = 1; i <= MESSAGES; i++) {
    scene_threads before[SCENES_MAX] = {0}, after[SCENES_MAX] = {0};
    bool valid[SCENES_MAX];
    for (uint32_t k = 0; k < begun; k++) valid[k] = send_message(scenes[k], i, &before[k]);
    count_pause(scenes, begun, system, after);
    if (i == 1) {
      pause_ms(system->beats ? BETWEEN_MS : 0);
      count_pause(scenes, begun, system, quiet);
    }
    for (uint32_t k = 0; k < begun; k++) {
      c->invalid += !valid[k];
      if (i == 1 || !valid[k]) continue;
      note_message(c, &before[k], &after[k], &quiet[k]);
      if (csv)
        fprintf(csv, "%s,%u,%u,%u,%.0f,%.0f,%.0f\n", system->name, RECEIVERS, k + 1, i, sum_of(&before[k]), sum_of(&after[k]), sum_of(&quiet[k]));
    }
  }
  for (uint32_t k = 0; k < begun; k++) end(scenes[k]);
}

/* ==== Tables and goals ================================================================================================ */

static double mean(const series *s) {
  double sum = 0;
  for (size_t i = 0; i < s->count; i++) sum += s->values[i];
  return s->count > 0 ? sum / (double)s->count : 0;
}

static void print_threads(const counts *c, const peer *system) {
  static const char *const roles[ROLES] = {"supervisor", "sender", "receiver"}, *const threads[THREADS] = {"application", "background", "I/O"};
  printf("\n%s, by process (receiver: the mean) and thread, means: until delivered + afterwards\n ", system->name);
  for (int r = 0; r < ROLES; r++)
    for (int k = 0; k < THREADS; k++) {
      double before = mean(&c->before_of[r][k]), after = mean(&c->after_of[r][k]);
      if (before > 0 || after > 0) printf(" %s %s %.1f + %.1f;", roles[r], threads[k], before, after);
    }
  putchar('\n');
}

static void print_system(const counts *c, const peer *system) {
  spread before = series_spread(&c->before), after = series_spread(&c->after);
  if (c->before.count == 0) return;
  printf("%-14s %6.1f (%2.0f..%3.0f) %9.1f (%2.0f..%3.0f)\n", system->name, before.median, before.min, before.max, after.median, after.min, after.max);
}

static void judge(const counts *ours, const counts *base) {
  series each = {0};
  for (size_t i = 0; i < ours->after.count; i++) series_add(&each, ours->after.values[i] / (RECEIVERS + 2));
  goal_at_most(5, "one message among sleepers: times somebody slept until it was delivered, over libzmq's",
               series_ratio(&ours->before, &base->before), 1);
  goal_at_most(5, "the same, afterwards, a process", series_spread(&each), 1);
}

/* ==== The benchmark =================================================================================================== */

void bench_idle(const suite *u) {
  counts *c = checked_calloc(16, sizeof *c);
  size_t ours = 16, base = 16;
  FILE *csv = csv_open(u->options, "idle", "system,receivers,scene,message,sleeps_before_delivery,sleeps_afterwards,sleeps_without");
  printf("\nIdle: one message to %u workers while all sleep: how often a thread went back to sleep, in all %u processes; medians\n\n", RECEIVERS,
         RECEIVERS + 2);
  for (size_t i = 0; i < u->peer_count; i++)
    if (u->options->full || peer_in_goals(u->peers[i])) run_system(u->peers[i], u->options->rounds, &c[i], csv);
  csv_close(csv);
  printf("%-14s %16s %24s\n", "system", "until delivered", "afterwards");
  for (size_t i = 0; i < u->peer_count; i++) {
    print_system(&c[i], u->peers[i]);
    if (u->peers[i] == &peer_messaging) ours = i;
    if (u->peers[i] == &peer_libzmq) base = i;
  }
  if (ours < 16) print_threads(&c[ours], u->peers[ours]);
  if (base < 16) print_threads(&c[base], u->peers[base]);
  if (ours < 16 && base < 16) judge(&c[ours], &c[base]);
  free(c);
}
