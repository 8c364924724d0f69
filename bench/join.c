/* Joining: how long until so many workers are ready, and how fast history reaches one that comes late. Nothing else here keeps a
 * history, so the second part is this library's alone: measured against its own burst. */
#define _GNU_SOURCE
#include "notebus.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "tools.h"

/* ==== Until all are ready ============================================================================================= */

typedef struct {
  series ready_ms, cpu_ms;
  unsigned invalid;
} joining;

static void no_role(scene *s, uint32_t worker, void *end) { (void)s, (void)worker, (void)end; }

static void run_joining(const peer *system, uint32_t workers, uint32_t round, joining *j, FILE *csv) {
  scene_plan plan = {.system = system, .workers = workers, .size = 64, .deaf = 1, .role = no_role};
  scene *s = scene_begin(&plan);
  j->invalid += !s;
  if (!s) return;
  double ready_ms = (double)(s->ready_ns - s->begun_ns) / 1e6, cpu_ms = (double)scene_cpu_ns(s) / 1e6;
  scene_end(s);
  series_add(&j->ready_ms, ready_ms);
  series_add(&j->cpu_ms, cpu_ms);
  if (csv) fprintf(csv, "%s,%u,%u,%.2f,%.2f\n", system->name, workers, round + 1, ready_ms, cpu_ms);
}

static void measure_joining(const suite *u, uint32_t workers, FILE *csv) {
  joining j[16] = {0};
  size_t base = 0;
  for (uint32_t round = 0; round < u->options->rounds; round++)
    for (size_t k = 0; k < u->peer_count; k++) {
      size_t i = (k + round) % u->peer_count;
      bool quick = peer_in_goals(u->peers[i]);
      if (u->options->full || quick) run_joining(u->peers[i], workers, round, &j[i], csv);
    }
  for (size_t i = 0; i < u->peer_count; i++)
    if (u->peers[i] == &peer_libzmq) base = i;
  for (size_t i = 0; i < u->peer_count; i++) {
    if (j[i].ready_ms.count == 0) continue;
    spread wall = series_ratio(&j[i].ready_ms, &j[base].ready_ms), cpu = series_ratio(&j[i].cpu_ms, &j[base].cpu_ms);
    printf("%-14s %7u %6.2f (%5.2f..%6.2f) %6.2f (%5.2f..%6.2f) %10.1f %10.1f %u\n", u->peers[i]->name, workers, wall.median, wall.min, wall.max,
           cpu.median, cpu.min, cpu.max, series_spread(&j[i].ready_ms).median, series_spread(&j[i].cpu_ms).median, j[i].invalid);
  }
  fflush(stdout);
}

/* ==== History ========================================================================================================= */

enum { SENDER, PRESENT, LATE };

typedef struct { /* in shared memory */
  uint32_t absent; /* listed workers that join later */
  size_t history_bytes_max;
  sem_t asked, told; /* for the supervisor's statistics */
  messaging_stats stats;
  int64_t joined_ns, complete_ns;
  uint64_t late_received;
} history;

static void keep_history(scene *s) {
  history *h = s->role_data;
  bus_ctx *im;
  messaging_addresses at;
  messaging_options options = {.history_bytes_max = h->history_bytes_max};
  messaging_child *children = checked_calloc(s->workers, sizeof *children);
  messaging_stats stats = {0};
  bus_batch batch;
  if (bus_init_im(&im, &at, &options) != MESSAGING_OK) fail("init_im");
  snprintf(s->pub, sizeof s->pub, "%s", at.pub);
  snprintf(s->pull, sizeof s->pull, "%s", at.pull);
  sem_post(&s->bound);
  if (!take_until(&s->listed, now_ns() + 60 * NS_PER_S)) fail("no workers");
  for (uint32_t w = 0; w < s->workers; w++) children[w] = (messaging_child){s->actors[w].pid, 1};
  if (bus_run_im(im, children, s->workers, NULL, NULL) != MESSAGING_OK) fail("run_im");
  while (bus_stats(im, &stats) == MESSAGING_OK && stats.workers_joined + h->absent < s->workers) sleep_until_ns(now_ns() + NS_PER_MS);
  sem_post(&s->all_in);
  for (;;) {
    messaging_status status = bus_wait(im, 50);
    if (status == MESSAGING_OK && bus_recv(im, &batch) == MESSAGING_OK) bus_batch_free(&batch);
    if (status != MESSAGING_ETIMEDOUT || sem_trywait(&h->asked) != 0) continue;
    if (bus_stats(im, &h->stats) != MESSAGING_OK) fail("stats");
    sem_post(&h->told);
  }
}

static void *join_unless_late(scene *s, uint32_t worker) { return worker == LATE ? NULL : peer_messaging.join(s, worker); }

static const peer historian = {.name = "messaging", .relay = keep_history, .join = join_unless_late};

static void count_note(void *user, uint32_t tag, uint32_t seq) {
  (void)tag, (void)seq;
  ++*(uint64_t *)user;
}

static uint64_t receive_all(scene *s, void *end) {
  uint64_t received = 0;
  while (received < s->count && peer_messaging.recv(end, count_note, &received, RECEIVE_TIMEOUT_MS) > 0) {
  }
  return received;
}

static void send_all(scene *s, void *end) {
  packet m = packet_make(s->size, SENDER);
  s->actors[SENDER].began_ns = now_ns();
  for (uint32_t i = 1; i <= s->count; i++) {
    packet_mark(&m, i);
    peer_messaging.send(end, &m);
  }
  free(m.bytes);
}

static void take_part(scene *s, uint32_t worker, void *end) {
  history *h = s->role_data;
  if (worker == SENDER) {
    send_all(s, end);
  } else if (worker == PRESENT) {
    s->actors[PRESENT].received = receive_all(s, end);
    s->actors[PRESENT].finished_ns = now_ns();
  } else {
    h->joined_ns = now_ns();
    h->late_received = receive_all(s, peer_messaging.join(s, LATE));
    h->complete_ns = now_ns();
  }
}

/* The burst, to one who is there. Its rate, or 0. */
static double run_burst(scene *s, uint32_t count) {
  s->count = count;
  scene_go(s, PRESENT);
  sleep_until_ns(now_ns() + 5 * NS_PER_MS);
  scene_go(s, SENDER);
  if (!scene_await(s, 2) || s->actors[PRESENT].received < count) return 0;
  return count / (double)(s->actors[PRESENT].finished_ns - s->actors[SENDER].began_ns) * 1e9;
}

static bool ask_statistics(history *h) {
  sem_post(&h->asked);
  return take_until(&h->told, now_ns() + 10 * NS_PER_S);
}

/* ==== A late joiner =================================================================================================== */

static void run_late(uint32_t size, uint32_t count, uint32_t round, series *ratio, series *rate, FILE *csv) {
  history *h = shared_make(sizeof *h);
  h->absent = 1;
  h->history_bytes_max = (size_t)512 << 20;
  sem_init(&h->asked, 1, 0);
  sem_init(&h->told, 1, 0);
  scene_plan plan = {.system = &historian, .workers = 3, .size = size, .deaf = 1, .role = take_part, .role_data = h};
  scene *s = scene_begin(&plan);
  double burst = s ? run_burst(s, count) : 0, cpu_ns = 0;
  if (burst > 0) {
    cpu_ns = -(double)scene_cpu_ns(s);
    scene_go(s, LATE);
    if (!scene_await(s, 1)) h->late_received = 0;
    cpu_ns += (double)scene_cpu_ns(s);
  }
  if (h->late_received == count) {
    double late = count / (double)(h->complete_ns - h->joined_ns) * 1e9;
    series_add(rate, late);
    series_add(ratio, late / burst);
    if (csv) fprintf(csv, "%u,%u,%u,%.0f,%.0f,%.1f\n", size, count, round + 1, burst, late, cpu_ns / count);
  }
  if (s) scene_end(s);
  shared_release(h, sizeof *h);
}

static void measure_late(const suite *u, uint32_t size, FILE *csv) {
  char what[100];
  uint32_t count = 200000;
  series ratio = {0}, rate = {0};
  for (uint32_t round = 0; round < u->options->rounds; round++) run_late(size, count, round, &ratio, &rate, csv);
  spread r = series_spread(&ratio);
  printf("%u messages of %u bytes to a late joiner: %.2f (%.2f..%.2f) of the burst's rate, %.0f messages/s; %u of %u rounds complete\n", count, size,
         r.median, r.min, r.max, series_spread(&rate).median, (unsigned)ratio.count, u->options->rounds);
  snprintf(what, sizeof what, "200,000 messages of %u bytes to a late joiner: rate over the burst's", size);
  if (ratio.count > 0) goal_at_least(6, what, r, 0.5);
  else goal_unmeasured(6, what, "no round was complete");
}

/* ==== What history weighs ============================================================================================= */

/* Bytes of private memory for each message beyond its own, and what the library counts. False: it did not run. */
static bool run_weight(uint32_t size, uint32_t count, double *beyond, double *counted) {
  history *h = shared_make(sizeof *h);
  bool done = false;
  h->history_bytes_max = (size_t)1 << 30;
  sem_init(&h->asked, 1, 0);
  sem_init(&h->told, 1, 0);
  scene_plan plan = {.system = &historian, .workers = 2, .size = size, .deaf = 1, .role = take_part, .role_data = h};
  scene *s = scene_begin(&plan);
  if (s && run_burst(s, count / 20) > 0 && ask_statistics(h)) {
    double before = (double)process_private_bytes(s->supervisor), counted_before = (double)h->stats.history_bytes;
    if (run_burst(s, count) > 0 && ask_statistics(h)) {
      *beyond = ((double)process_private_bytes(s->supervisor) - before) / count - size;
      *counted = ((double)h->stats.history_bytes - counted_before) / count - size;
      done = true;
    }
  }
  if (s) scene_end(s);
  shared_release(h, sizeof *h);
  return done;
}

static void measure_weight(const suite *u, FILE *csv) {
  uint32_t size = 64, count = 1000000, rounds = u->options->full ? u->options->rounds : 1;
  series beyond = {0};
  for (uint32_t round = 0; round < rounds; round++) {
    double counted = 0, weight = 0;
    if (!run_weight(size, count, &weight, &counted)) continue;
    series_add(&beyond, weight);
    printf("%u messages of %u bytes in history: %.1f bytes of memory each beyond their own (the library counts %.1f)\n", count, size, weight,
           counted);
    if (csv) fprintf(csv, "%u,%u,%u,%.2f,%.2f\n", size, count, round + 1, weight, counted);
  }
  const char *what = "a million messages of 64 bytes in history: bytes of memory each beyond their own";
  if (beyond.count > 0) goal_at_most(4, what, series_spread(&beyond), 8);
  else goal_unmeasured(4, what, "it did not run");
}

/* ==== The benchmark =================================================================================================== */

void bench_join(const suite *u) {
  FILE *csv = csv_open(u->options, "join", "system,workers,round,ready_ms,cpu_ms");
  puts("\nJoin: from the first worker's fork until all are ready (ring: there is nothing to connect); medians (lowest..highest round)\n");
  printf("%-14s %7s %-22s %-22s %10s %10s %s\n", "system", "workers", "time over libzmq's", "CPU over libzmq's", "ms", "ms CPU", "invalid");
  measure_joining(u, 64, csv);
  if (u->options->full) measure_joining(u, 256, csv);
  else puts("(256 workers: in the last rows of fan-out)");
  csv_close(csv);
  putchar('\n');
  csv = csv_open(u->options, "late_joiner", "size,messages,round,burst_messages_per_s,late_messages_per_s,cpu_ns_a_message");
  measure_late(u, 64, csv);
  if (u->options->full) measure_late(u, 140, csv);
  csv_close(csv);
  csv = csv_open(u->options, "history", "size,messages,round,bytes_beyond,counted_beyond");
  measure_weight(u, csv);
  csv_close(csv);
}
