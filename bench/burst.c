#define _GNU_SOURCE
#include "burst.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools.h"

#define PARKED_MS 5   /* until receivers wait */
#define SETTLE_MS 60  /* who is in a hurry has acknowledged by then */
#define WARMED_MS 35  /* all sleep again */
#define DELIVERIES 200000u
#define COUNT_MIN 12000u
#define COUNT_FEW 200000u /* to one or two, where a burst of so many deliveries would be over too soon */
#define BYTES_MAX (32u << 20)
#define COUNT_LEAST 200u /* however slow the system is */

static int64_t thread_cpu_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
  return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

/* ==== Roles =========================================================================================================== */

static void send_all(scene *s, uint32_t worker, void *end) {
  actor *own = &s->actors[worker];
  packet m = packet_make(s->size, worker);
  int64_t before_ns = thread_cpu_ns();
  own->began_ns = now_ns();
  for (uint32_t i = 1; i <= s->count; i++) {
    packet_mark(&m, i);
    s->system->send(end, &m);
  }
  if (s->system->flush) s->system->flush(end);
  own->finished_ns = now_ns();
  own->thread_cpu_ns = thread_cpu_ns() - before_ns;
  free(m.bytes);
}

typedef struct {
  uint32_t last;
  uint64_t received, disordered;
} tally;

static void count_note(void *user, uint32_t tag, uint32_t seq) {
  tally *t = user;
  (void)tag;
  t->received++;
  t->disordered += seq != 0 && seq != t->last + 1;
  t->last = seq;
}

static void receive_all(scene *s, uint32_t worker, void *end) {
  actor *own = &s->actors[worker];
  tally t = {0};
  while (t.received < s->count)
    if (s->system->recv(end, count_note, &t, RECEIVE_TIMEOUT_MS) == 0) break;
  own->finished_ns = now_ns();
  own->received = t.received;
  own->disordered = t.disordered;
}

static void take_part(scene *s, uint32_t worker, void *end) {
  if (worker == 0)
    send_all(s, worker, end);
  else
    receive_all(s, worker, end);
}

/* ==== A run =========================================================================================================== */

static void pause_ms(int64_t ms) { sleep_until_ns(now_ns() + ms * NS_PER_MS); }

static bool run_once(scene *s, uint32_t count, int64_t settle_ms, scene_threads *threads, burst *out) {
  s->count = count;
  for (uint32_t w = 1; w < s->workers; w++) scene_go(s, w);
  pause_ms(PARKED_MS);
  if (threads) scene_threads_add(s, threads, -1);
  int64_t supervisor_before_ns = scene_supervisor_cpu_ns(s), before_ns = scene_cpu_ns(s), last_ns = 0;
  scene_go(s, 0);
  if (!scene_await(s, s->workers)) return false;
  pause_ms(settle_ms);
  out->cpu_ns = (double)(scene_cpu_ns(s) - before_ns);
  out->supervisor_ns = (double)(scene_supervisor_cpu_ns(s) - supervisor_before_ns);
  if (threads) scene_threads_add(s, threads, 1);
  for (uint32_t w = 1; w < s->workers; w++) {
    const actor *a = &s->actors[w];
    if (a->finished_ns > last_ns) last_ns = a->finished_ns;
    out->lost += count - a->received;
    out->disordered += a->disordered;
  }
  out->wall_ns = (double)(last_ns - s->actors[0].began_ns);
  out->sender_ns = (double)s->actors[0].thread_cpu_ns;
  return true;
}

static void measure_memory(const scene *s, burst *out) {
  size_t workers = 0;
  for (uint32_t w = 1; w < s->workers; w++) workers += process_private_bytes(s->actors[w].pid);
  out->supervisor_bytes = (double)process_private_bytes(s->supervisor);
  out->worker_bytes = (double)workers / (double)(s->workers - 1);
}

/* A slow system gets a shorter burst, and the results say so. */
static uint32_t count_for(const burst_plan *p) {
  uint32_t count_max = p->system->deliveries_max / p->receivers;
  if (p->system->deliveries_max == 0 || count_max >= p->count) return p->count;
  if (count_max < COUNT_LEAST) count_max = COUNT_LEAST;
  return count_max < p->count ? count_max : p->count;
}

burst burst_run(const burst_plan *p) {
  burst out = {0}, warm = {0};
  scene_plan plan = {.system = p->system, .workers = p->receivers + 1, .size = p->size, .deaf = 1, .role = take_part};
  scene *s = scene_begin(&plan);
  if (!s) return out;
  out.ready_ns = (double)(s->ready_ns - s->begun_ns);
  out.ready_cpu_ns = (double)scene_cpu_ns(s);
  out.joined_bytes = (double)process_private_bytes(s->supervisor);
  out.count = count_for(p);
  if (run_once(s, out.count, WARMED_MS, NULL, &warm) && run_once(s, out.count, SETTLE_MS, p->threads, &out)) {
    measure_memory(s, &out);
    out.lost += warm.lost;
    out.valid = out.lost + out.disordered + warm.disordered == 0;
  }
  scene_end(s);
  return out;
}

uint32_t burst_count(uint32_t receivers, uint32_t size) {
  uint32_t count = receivers > 2 ? DELIVERIES / receivers : COUNT_FEW;
  if (count < COUNT_MIN) count = COUNT_MIN;
  if ((uint64_t)count * size > BYTES_MAX) count = BYTES_MAX / size;
  return count;
}
