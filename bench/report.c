#define _GNU_SOURCE
#include "bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"
#include "report.h"
#include "tools.h"

typedef unsigned long long count_t;

/* ==== At the recorded pace ============================================================================================ */

static double ms(int64_t ns) { return (double)ns / (double)NS_PER_MS; }

static double latency_ms(const verdict *v, double q) { return ms(quantile_ns(v->latency_ns, v->latency_count, q)); }

typedef struct { /* the last row */
  size_t processes, messages, size, outputs;
  count_t pairs, lost, duplicated, original_lost, original_pairs;
  int64_t *latency_ns;
  size_t latency_count;
} paced_total;

static void add_paced(paced_total *total, const outcome *o) {
  total->processes += o->t->process_count;
  total->messages += o->t->relay_count;
  total->size += o->t->relay_bytes;
  total->outputs += o->t->output_count;
  total->pairs += o->paced->pairs;
  total->lost += o->paced->lost;
  total->duplicated += o->paced->duplicated;
  total->original_pairs += (count_t)o->t->original.pairs;
  total->original_lost += (count_t)(o->t->original.pairs - o->t->original.pairs_delivered);
  total->latency_ns = realloc(total->latency_ns, (total->latency_count + o->paced->latency_count + 1) * sizeof(int64_t));
  if (!total->latency_ns) fail("out of memory");
  memcpy(total->latency_ns + total->latency_count, o->paced->latency_ns, o->paced->latency_count * sizeof(int64_t));
  total->latency_count += o->paced->latency_count;
}

static void print_paced(FILE *file, const outcome *o) {
  const trace *t = o->t;
  fprintf(file, "%-28s %5u %6zu %8zu %6zu %6llu %5llu %4llu %7.2f %7.2f %7.2f %7.1f %7.1f %7.1f %5lld of %-5lld\n", t->name,
          t->process_count, t->relay_count, t->relay_bytes, t->output_count, (count_t)o->paced->pairs, (count_t)o->paced->lost,
          (count_t)o->paced->duplicated, latency_ms(o->paced, 0.5), latency_ms(o->paced, 0.99), latency_ms(o->paced, 1),
          (double)t->original.p50_us / 1e3, (double)t->original.p99_us / 1e3, (double)t->original.max_us / 1e3,
          (long long)(t->original.pairs - t->original.pairs_delivered), (long long)t->original.pairs);
}

static void print_paced_total(FILE *file, paced_total *total) {
  sort_ns(total->latency_ns, total->latency_count);
  fprintf(file, "%-28s %5zu %6zu %8zu %6zu %6llu %5llu %4llu %7.2f %7.2f %7.2f %7s %7s %7s %5llu of %-5llu\n", "all",
          total->processes, total->messages, total->size, total->outputs, total->pairs, total->lost, total->duplicated,
          ms(quantile_ns(total->latency_ns, total->latency_count, 0.5)),
          ms(quantile_ns(total->latency_ns, total->latency_count, 0.99)),
          ms(quantile_ns(total->latency_ns, total->latency_count, 1)), "", "", "", total->original_lost, total->original_pairs);
}

static void print_paced_notes(FILE *file, const outcome *outcomes, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const outcome *o = &outcomes[i];
    if (o->attempts > 1)
      fprintf(file, "%s: replayed %u times, since the machine did not keep the recorded pace\n", o->t->name, o->attempts);
    if (o->paced->cut + o->paced->purged > 0)
      fprintf(file, "%s: %llu messages went with a sender killed within 40 ms, %llu were purged, as they may\n", o->t->name,
              (count_t)o->paced->cut, (count_t)o->paced->purged);
  }
}

void report_paced(FILE *file, const outcome *outcomes, size_t count, int64_t idle_ms_max) {
  paced_total total = {0};
  int64_t skipped_us = 0, replay_us = 0;
  for (size_t i = 0; i < count; i++) {
    add_paced(&total, &outcomes[i]);
    skipped_us += outcomes[i].t->skipped_us;
    replay_us += outcomes[i].t->replay_us;
  }
  fprintf(file,
          "\nAt the recorded pace: %.1f s of recordings, of which %.1f s were skipped (idle stretches are cut to %lld ms)\n\n",
          (double)(skipped_us + replay_us) / 1e6, (double)skipped_us / 1e6, (long long)idle_ms_max);
  fprintf(file, "%-28s %5s %6s %8s %6s %6s %5s %4s %23s %23s %14s\n", "", "pro-", "", "", "out-", "", "", "",
          "delivery latency, ms", "Kind 2's own, ms", "Kind 2's");
  fprintf(file, "%-28s %5s %6s %8s %6s %6s %5s %4s %7s %7s %7s %7s %7s %7s %14s\n", "trace", "ces.", "msgs", "bytes", "puts",
          "pairs", "lost", "dup.", "p50", "p99", "max", "p50", "p99", "max", "lost pairs");
  for (size_t i = 0; i < count; i++) print_paced(file, &outcomes[i]);
  print_paced_total(file, &total);
  print_paced_notes(file, outcomes, count);
  free(total.latency_ns);
}

/* ==== At full speed =================================================================================================== */

static double per_second(const outcome *o, const double *rounds_ns) {
  double sorted[ROUND_COUNT];
  memcpy(sorted, rounds_ns, sizeof sorted);
  return (double)o->t->relay_count * o->passes * 1e9 / median(sorted, ROUND_COUNT);
}

static double print_speed(FILE *file, const outcome *o) {
  double ours = per_second(o, o->ours_ns), bare = per_second(o, o->bare_ns);
  fprintf(file, "%-28s %6.2f %12.0f %12.0f %10zu %5u %9llu %5llu %4llu %11llu\n", o->t->name, ours / bare, ours, bare,
          o->t->relay_count * o->passes, o->t->process_count, (count_t)o->speed->messages, (count_t)o->speed->lost,
          (count_t)o->speed->duplicated, (count_t)o->bare_missed);
  return ours / bare;
}

void report_speed(FILE *file, outcome *outcomes, size_t count) {
  double *ratios = checked_calloc(count, sizeof *ratios);
  fprintf(file,
          "\nAt full speed: everybody sends all its messages again and again, in one generation with everybody present; a\n");
  fprintf(file,
          "round ends when the last process has everything; medians of %u rounds after a warm-up, in turn with bare libzmq\n",
          ROUND_COUNT);
  fprintf(file,
          "(PULL to PUB, one frame a message, high-water marks of 0 so that nothing is dropped, subscribers only count)\n\n");
  fprintf(file, "%-28s %6s %12s %12s %10s %5s %9s %5s %4s %11s\n", "", "", "", "", "messages", "pro-", "messages", "", "",
          "bare libzmq");
  fprintf(file, "%-28s %6s %12s %12s %10s %5s %9s %5s %4s %11s\n", "trace", "ratio", "messages/s", "bare libzmq", "a round",
          "ces.", "in all", "lost", "dup.", "lost");
  for (size_t i = 0; i < count; i++) ratios[i] = print_speed(file, &outcomes[i]);
  fprintf(file, "%-28s %6.2f\n", "median", median(ratios, count));
  free(ratios);
}

/* ==== Deaths ========================================================================================================== */

static void print_spread(FILE *file, const char *what, const int64_t *sorted, size_t count, const char *promise) {
  fprintf(file, "  %-58s p50 %7.2f ms, max %7.2f ms of %zu%s\n", what, ms(quantile_ns(sorted, count, 0.5)),
          ms(quantile_ns(sorted, count, 1)), count, promise);
}

static void print_replays(FILE *file, const char *what, const outcome *outcomes, size_t count, bool terms,
                          const char *promise) {
  int64_t *all = NULL;
  size_t used = 0;
  for (size_t i = 0; i < count; i++) {
    const verdict *v = outcomes[i].paced;
    size_t more = terms ? v->term_count : v->death_count;
    all = realloc(all, (used + more + 1) * sizeof *all);
    if (!all) fail("out of memory");
    memcpy(all + used, terms ? v->term_ns : v->death_ns, more * sizeof *all);
    used += more;
  }
  sort_ns(all, used);
  print_spread(file, what, all, used, promise);
  free(all);
}

void report_deaths(FILE *file, const outcome *outcomes, size_t count, const deaths *of_workers, const deaths *of_supervisors) {
  fprintf(file, "\nDeath and termination\n\n");
  print_spread(file, "killed worker, until the supervisor's handler", of_workers->ns, of_workers->count, " (promised: 100 ms)");
  print_spread(file, "killed supervisor, until each worker sees termination", of_supervisors->ns, of_supervisors->count,
               " (promised: 1 s)");
  print_replays(file, "in the replays: killed worker, until the handler", outcomes, count, false, "");
  print_replays(file, "in the replays: termination asked for, until seen", outcomes, count, true, "");
}

/* ==== CSV ============================================================================================================= */

static FILE *open_csv(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "w");
  if (!file) fail("%s: %s", path, strerror(errno));
  return file;
}

static void close_csv(FILE *file) {
  if (fflush(file) != 0 || ferror(file)) fail("writing CSV: %s", strerror(errno));
  fclose(file);
}

static void csv_machine(const char *folder) {
  FILE *file = open_csv(folder, "machine.csv");
  machine_csv(file);
  close_csv(file);
}

static void csv_paced(const char *folder, const outcome *outcomes, size_t count) {
  FILE *file = open_csv(folder, "recorded_pace.csv");
  fprintf(file,
          "trace,processes,messages,bytes,outputs,pairs,pairs_lost,lost,duplicated,disordered,violations,p50_us,p99_us,max_us,"
          "kind2_pairs,kind2_pairs_lost,kind2_p50_us,kind2_p99_us,kind2_max_us,replay_us,skipped_us,lag_us,attempts\n");
  for (size_t i = 0; i < count; i++) {
    const outcome *o = &outcomes[i];
    const verdict *v = o->paced;
    const trace_original *kind2 = &o->t->original;
    fprintf(file, "%s,%u,%zu,%zu,%zu,%llu,%llu,%llu,%llu,%llu,%llu,", o->t->name, o->t->process_count, o->t->relay_count,
            o->t->relay_bytes, o->t->output_count, (count_t)v->pairs, (count_t)v->pairs_lost, (count_t)v->lost,
            (count_t)v->duplicated, (count_t)v->disordered, (count_t)verdict_violations(v));
    fprintf(file, "%.1f,%.1f,%.1f,%lld,%lld,%lld,%lld,%lld,%lld,%lld,%.1f,%u\n", latency_ms(v, 0.5) * 1e3,
            latency_ms(v, 0.99) * 1e3, latency_ms(v, 1) * 1e3, (long long)kind2->pairs,
            (long long)(kind2->pairs - kind2->pairs_delivered), (long long)kind2->p50_us, (long long)kind2->p99_us,
            (long long)kind2->max_us, (long long)o->t->replay_us, (long long)o->t->skipped_us, ms(o->lag_ns) * 1e3,
            o->attempts);
  }
  close_csv(file);
}

static void csv_deliveries(const char *folder, const outcome *outcomes, size_t count) {
  FILE *file = open_csv(folder, "deliveries.csv");
  fprintf(file, "trace,generation,number,sender,sender_number,receiver,pair,latency_us\n"); /* empty: not delivered */
  for (size_t i = 0; i < count; i++)
    for (size_t k = 0; k < outcomes[i].paced->delivery_count; k++) {
      const delivery *d = &outcomes[i].paced->deliveries[k];
      fprintf(file, "%s,%u,%u,%u,%u,%u,%d,", outcomes[i].t->name, d->generation, d->number, d->sender, d->seq, d->receiver,
              d->is_pair);
      if (d->latency_ns >= 0) fprintf(file, "%.1f", (double)d->latency_ns / 1e3);
      fputc('\n', file);
    }
  close_csv(file);
}

static void csv_speed(const char *folder, const outcome *outcomes, size_t count) {
  FILE *file = open_csv(folder, "full_speed.csv");
  fprintf(file, "trace,round,processes,messages,messaging_us,bare_libzmq_us\n");
  for (size_t i = 0; i < count; i++)
    for (unsigned round = 0; round < ROUND_COUNT; round++)
      fprintf(file, "%s,%u,%u,%zu,%.1f,%.1f\n", outcomes[i].t->name, round + 1, outcomes[i].t->process_count,
              outcomes[i].t->relay_count * outcomes[i].passes, outcomes[i].ours_ns[round] / 1e3,
              outcomes[i].bare_ns[round] / 1e3);
  close_csv(file);
}

static void csv_deaths(const char *folder, const deaths *of_workers, const deaths *of_supervisors) {
  FILE *file = open_csv(folder, "deaths.csv");
  fprintf(file, "killed,noticed_us\n");
  for (size_t i = 0; i < of_workers->count; i++) fprintf(file, "worker,%.1f\n", (double)of_workers->ns[i] / 1e3);
  for (size_t i = 0; i < of_supervisors->count; i++) fprintf(file, "supervisor,%.1f\n", (double)of_supervisors->ns[i] / 1e3);
  close_csv(file);
}

void report_csv(const char *folder, const outcome *outcomes, size_t count, const deaths *of_workers,
                const deaths *of_supervisors) {
  csv_machine(folder);
  csv_paced(folder, outcomes, count);
  csv_deliveries(folder, outcomes, count);
  csv_speed(folder, outcomes, count);
  csv_deaths(folder, of_workers, of_supervisors);
}
