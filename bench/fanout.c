/* What more workers cost: CPU for a delivery, memory of each process. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "burst.h"
#include "tools.h"

#define SIZE 140u
#define COUNT 4000u /* the same burst for all, since batches grow with it */
#define POINTS_MAX 16u

typedef struct {
  series rate, cpu_ns, relay_ns, ready_ms, joined_bytes, supervisor_bytes, worker_bytes;
} point;

typedef struct {
  uint32_t receivers[POINTS_MAX];
  size_t points, systems;
  const peer *system[16];
  point *at; /* of each system at each number of receivers */
  unsigned invalid;
} sweep;

static point *at(const sweep *w, size_t system, size_t i) { return &w->at[system * POINTS_MAX + i]; }

static void run_point(sweep *w, size_t system, size_t i, uint32_t round, FILE *csv) {
  uint32_t receivers = w->receivers[i];
  burst b = burst_run(&(burst_plan){w->system[system], receivers, SIZE, COUNT, NULL});
  double count = b.count > 0 ? b.count : 1;
  w->invalid += !b.valid;
  if (b.valid) {
    point *p = at(w, system, i);
    series_add(&p->rate, count / b.wall_ns * 1e9);
    series_add(&p->cpu_ns, b.cpu_ns / count / receivers);
    series_add(&p->relay_ns, b.supervisor_ns / count / receivers);
    series_add(&p->ready_ms, b.ready_ns / 1e6);
    series_add(&p->joined_bytes, b.joined_bytes);
    series_add(&p->supervisor_bytes, b.supervisor_bytes);
    series_add(&p->worker_bytes, b.worker_bytes);
  }
  if (csv)
    fprintf(csv, "%s,%u,%u,%u,%u,%d,%.0f,%.1f,%.0f,%.0f,%.0f,%.2f,%.2f,%.1f\n", w->system[system]->name, receivers, SIZE, b.count, round + 1, b.valid,
            b.wall_ns > 0 ? count / b.wall_ns * 1e9 : 0, b.cpu_ns / count / receivers, b.joined_bytes, b.supervisor_bytes, b.worker_bytes,
            b.ready_ns / 1e6, b.ready_cpu_ns / 1e6, b.supervisor_ns / count / receivers);
}

/* ==== Tables and goals ================================================================================================ */

static size_t position(const sweep *w, const peer *wanted) {
  size_t i = 0;
  while (i < w->systems && w->system[i] != wanted) i++;
  return i;
}

static void print_sweep(const sweep *w, size_t base) {
  printf("%-14s %7s  %-22s %-22s %12s %11s %11s %9s %12s %12s %10s\n", "", "", "messages/s,", "CPU a delivery,", "", "ns CPU", "of these,",
         "ms until", "supervisor,", "supervisor", "a worker,");
  printf("%-14s %7s  %-22s %-22s %12s %11s %11s %9s %12s %12s %10s\n", "system", "workers", "over libzmq's", "over libzmq's", "messages/s",
         "a delivery", "supervisor", "ready", "KB, joined", "afterwards", "KB");
  for (size_t i = 0; i < w->points; i++)
    for (size_t k = 0; k < w->systems; k++) {
      const point *p = at(w, k, i), *b = at(w, base, i);
      spread rate = series_ratio(&p->rate, &b->rate), cpu = series_ratio(&p->cpu_ns, &b->cpu_ns);
      printf("%-14s %7u  %6.2f (%5.2f..%6.2f) %6.2f (%5.2f..%6.2f) %12.0f %11.0f %11.0f %9.0f %12.0f %12.0f %10.0f\n", w->system[k]->name,
             w->receivers[i] + 1, rate.median, rate.min, rate.max, cpu.median, cpu.min, cpu.max, series_spread(&p->rate).median,
             series_spread(&p->cpu_ns).median, series_spread(&p->relay_ns).median, series_spread(&p->ready_ms).median,
             series_spread(&p->joined_bytes).median / 1024,
             series_spread(&p->supervisor_bytes).median / 1024, series_spread(&p->worker_bytes).median / 1024);
    }
}

static void write_summary(const sweep *w, size_t base, FILE *csv) {
  for (size_t i = 0; csv && i < w->points; i++)
    for (size_t k = 0; k < w->systems; k++) {
      const point *p = at(w, k, i), *b = at(w, base, i);
      if (p->rate.count == 0) continue;
      fprintf(csv, "%s,%u,%.3f,%.3f,%.0f,%.1f,%.1f,%.1f,%.1f,%.1f,%.1f,%.1f\n", w->system[k]->name, w->receivers[i],
              series_ratio(&p->rate, &b->rate).median,
              series_ratio(&p->cpu_ns, &b->cpu_ns).median, series_spread(&p->rate).median, series_spread(&p->cpu_ns).median,
              series_spread(&p->cpu_ns).min, series_spread(&p->cpu_ns).max, series_spread(&p->joined_bytes).median / 1024,
              series_spread(&p->supervisor_bytes).median / 1024, series_spread(&p->worker_bytes).median / 1024, series_spread(&p->relay_ns).median);
    }
}

/* What each further worker takes in the supervisor, from the fewest to the most. */
static series slope(const sweep *w, size_t system) {
  const series *few = &at(w, system, 0)->joined_bytes, *many = &at(w, system, w->points - 1)->joined_bytes;
  double more = (double)w->receivers[w->points - 1] - (double)w->receivers[0];
  series out = {0};
  for (size_t i = 0; i < few->count && i < many->count; i++) series_add(&out, (many->values[i] - few->values[i]) / more / 1024);
  return out;
}

static void judge(const sweep *w, size_t ours, size_t base) {
  size_t two = 0, most = w->points - 1;
  if (ours == w->systems || base == w->systems) return;
  while (two < w->points && w->receivers[two] != 2) two++;
  if (two < w->points && w->receivers[most] == 256) {
    goal_at_most(4, "CPU a delivery to 256 over that to 2", series_ratio(&at(w, ours, most)->cpu_ns, &at(w, ours, two)->cpu_ns), 1);
    goal_at_most(4, "supervisor's CPU a relay and worker, to 256 over that to 2", series_ratio(&at(w, ours, most)->relay_ns, &at(w, ours, two)->relay_ns), 1);
  }
  if (most == 0) return;
  series mine = slope(w, ours), theirs = slope(w, base), beyond = {0};
  for (size_t i = 0; i < mine.count && i < theirs.count; i++) series_add(&beyond, mine.values[i] - theirs.values[i]);
  goal_at_most(4, "supervisor's private memory a worker beyond libzmq's, KB", series_spread(&beyond), 100);
}

/* ==== The benchmark =================================================================================================== */

void bench_fan_out(const suite *u) {
  static const uint32_t few[] = {2, 256}, all[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};
  const uint32_t *chosen = u->options->full ? all : few;
  size_t count = u->options->full ? sizeof all / sizeof all[0] : sizeof few / sizeof few[0];
  sweep w = {.at = checked_calloc(16u * POINTS_MAX, sizeof(point))};
  for (size_t i = 0; i < count; i++)
    if (listed_number(u->options->receivers, chosen[i])) w.receivers[w.points++] = chosen[i];
  for (size_t i = 0; i < u->peer_count; i++)
    if (u->options->full || peer_in_goals(u->peers[i])) w.system[w.systems++] = u->peers[i];
  FILE *csv = csv_open(u->options, "fan_out",
                       "system,receivers,size,messages,round,valid,messages_per_s,cpu_ns_a_delivery,supervisor_joined_bytes,"
                       "supervisor_bytes,worker_bytes,ready_ms,ready_cpu_ms,supervisor_cpu_ns_a_delivery");
  printf("\nFan-out: a burst of %u bytes to more and more; memory: private to the process; medians (lowest..highest round)\n\n", SIZE);
  for (uint32_t round = 0; round < u->options->rounds; round++)
    for (size_t i = 0; i < w.points; i++)
      for (size_t k = 0; k < w.systems; k++) run_point(&w, (k + round) % w.systems, i, round, csv);
  csv_close(csv);
  size_t base = position(&w, &peer_libzmq);
  if (w.points > 0) {
    FILE *summary = csv_open(u->options, "fan_out_summary",
                             "system,receivers,rate_ratio,cpu_ratio,messages_per_s,cpu_ns,cpu_ns_min,cpu_ns_max,supervisor_joined_kb,"
                             "supervisor_kb,worker_kb,supervisor_cpu_ns");
    print_sweep(&w, base < w.systems ? base : 0);
    write_summary(&w, base < w.systems ? base : 0, summary);
    csv_close(summary);
    if (w.invalid > 0) printf("%u runs were invalid\n", w.invalid);
    judge(&w, position(&w, &peer_messaging), base);
  }
  free(w.at);
}
