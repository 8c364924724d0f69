/* replay.c - replays recorded message streams on real processes and judges what arrived; see README.md.
 *
 *   replay [--self-test] [--out FOLDER] TRACE.msgpack...
 *
 * Exit status: 0 all is well, 1 something was lost, doubled or otherwise wrong, 2 the benchmark itself could not go on, 3 the
 * machine was too busy to tell whether something was lost. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bare.h"
#include "deaths.h"
#include "machine.h"
#include "oracle.h"
#include "paced.h"
#include "report.h"
#include "scratch.h"
#include "selftest.h"
#include "speed.h"
#include "tools.h"

#define TRACES_MAX 64u
#define IDLE_MS_MAX 250          /* longer stretches in which nobody does anything are cut to this */
#define REPEAT_S_MAX 24          /* for replays that have to be repeated, all together */
#define LAG_MS_MAX 20            /* half of the 40 ms on which the pairs rest */
#define ROUND_DELIVERIES 200000u /* what a round at full speed comes to, as far as whole passes allow */
#define ROUND_BYTES_MAX ((size_t)6 << 20)

/* ==== Progress ======================================================================================================== */

static void progress(const char *stage, size_t done, size_t count, const char *name) {
  if (isatty(STDERR_FILENO))
    fprintf(stderr, "\r\033[K%s %zu/%zu: %s", stage, done + 1, count, name);
  else
    fprintf(stderr, "%s %zu/%zu: %s\n", stage, done + 1, count, name);
  fflush(stderr);
}

static void progress_end(void) {
  if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
}

/* ==== The parts ======================================================================================================= */

static void test_perfect_records(selftest *st, const trace *const *traces, size_t count) {
  for (size_t i = 0; i < count; i++) {
    record *perfect = selftest_perfect_record(traces[i]);
    selftest_record(st, perfect, traces[i]->name);
    record_release(perfect);
  }
}

/* What a recorded process could receive rests on its having lived for 40 ms. Where the machine did not even start processes in
 * time, a replay whose only faults are of that kind proves nothing, and is repeated; any other fault stands. */
static bool is_machines_fault(const outcome *o) { return verdict_is_hasty(o->paced) && o->lag_ns > LAG_MS_MAX * NS_PER_MS; }

static void run_paced(outcome *o, selftest *st, int64_t *repeat_us) {
  for (;;) {
    record *r = paced_replay(o->t);
    o->paced = oracle_judge(r);
    o->lag_ns = record_lag_ns(r);
    o->attempts++;
    if (verdict_violations(o->paced) == 0) selftest_record(st, r, o->t->name);
    bool again = is_machines_fault(o) && *repeat_us >= o->t->replay_us;
    if (!again && verdict_violations(o->paced) > 0) record_print_reports(stderr, r);
    record_release(r);
    if (!again) return;
    *repeat_us -= o->t->replay_us;
    verdict_release(o->paced);
  }
}

static uint32_t passes_for(const trace *t) {
  size_t passes = ROUND_DELIVERIES / (t->relay_count * (t->process_count - 1));
  if (passes * t->relay_bytes > ROUND_BYTES_MAX) passes = ROUND_BYTES_MAX / t->relay_bytes;
  return passes > 1 ? (uint32_t)passes : 1;
}

static void run_round(outcome *o, rounds *ours, rounds *bare, uint32_t round) {
  uint64_t missed = 0;
  double ours_ns = 0, bare_ns = 0;
  for (unsigned half = 0; half < 2; half++) { /* who comes first takes turns */
    if (half == round % 2)
      ours_ns = (double)round_run(ours, round, &missed);
    else {
      bare_ns = (double)round_run(bare, round, &missed);
      o->bare_missed += missed;
    }
  }
  if (round == 0) return; /* the warm-up */
  o->ours_ns[round - 1] = ours_ns;
  o->bare_ns[round - 1] = bare_ns;
}

static void run_speed(outcome *o) {
  o->passes = passes_for(o->t);
  rounds *bare = rounds_make(o->t->process_count, o->passes, false);
  rounds *ours = rounds_make(o->t->process_count, o->passes, true);
  bare_begin(o->t, bare);
  record *r = speed_begin(o->t, ours, ROUND_COUNT + 1);
  for (uint32_t round = 0; round <= ROUND_COUNT; round++) run_round(o, ours, bare, round);
  bare_end(bare);
  speed_end(ours, r);
  o->speed = oracle_judge(r);
  verdict_trim(o->speed);
  if (verdict_violations(o->speed) > 0) record_print_reports(stderr, r);
  record_release(r);
  rounds_release(ours);
  rounds_release(bare);
}

/* ==== The verdict ===================================================================================================== */

typedef struct {
  uint64_t faults;
  uint64_t undecided; /* messages that did not come while the machine stood still */
} conclusion;

static void conclude_paced(conclusion *c, const outcome *o) {
  char name[128];
  snprintf(name, sizeof name, "%s at the recorded pace", o->t->name);
  verdict_print(stdout, name, o->paced);
  if (!is_machines_fault(o)) {
    c->faults += verdict_violations(o->paced);
    return;
  }
  printf("  %s: but the machine itself stood still for up to %.0f ms\n", name, (double)o->lag_ns / (double)NS_PER_MS);
  c->undecided += o->paced->lost;
}

static void conclude_speed(conclusion *c, const outcome *o) {
  char name[128];
  snprintf(name, sizeof name, "%s at full speed", o->t->name);
  verdict_print(stdout, name, o->speed);
  c->faults += verdict_violations(o->speed);
}

static int conclude(const outcome *outcomes, size_t count, const selftest *st, const deaths *of_workers,
                    const deaths *of_supervisors) {
  conclusion c = {.faults = st->missed + of_workers->unseen + of_supervisors->unseen};
  printf("\nThe oracle was tried with %u corrupted records and missed %u.\n", st->tried, st->missed);
  if (of_workers->unseen + of_supervisors->unseen > 0)
    printf("Deaths not noticed: %zu workers', %zu supervisors'.\n", of_workers->unseen, of_supervisors->unseen);
  for (size_t i = 0; i < count; i++) {
    conclude_paced(&c, &outcomes[i]);
    conclude_speed(&c, &outcomes[i]);
  }
  if (c.faults > 0)
    puts("FAILED: see above.");
  else if (c.undecided > 0)
    puts("UNDECIDED: the machine was too busy; see above, and try again when it is not.");
  else
    puts("Nothing was lost, nothing was doubled.");
  return c.faults > 0 ? 1 : c.undecided > 0 ? 3 : 0;
}

/* ==== The program ===================================================================================================== */

typedef struct {
  bool self_test_only;
  const char *out;
  size_t trace_count;
  const trace *traces[TRACES_MAX];
} arguments;

static arguments read_arguments(int argc, char **argv) {
  arguments a = {0};
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--self-test") == 0)
      a.self_test_only = true;
    else if (strcmp(argv[i], "--out") == 0 && i + 1 < argc)
      a.out = argv[++i];
    else if (argv[i][0] == '-' || a.trace_count == TRACES_MAX)
      fail("usage: replay [--self-test] [--out FOLDER] TRACE.msgpack... (at most %u)", TRACES_MAX);
    else
      a.traces[a.trace_count++] = trace_read(argv[i], IDLE_MS_MAX);
  }
  if (a.trace_count == 0) fail("no traces given");
  if (a.out && mkdir(a.out, 0777) != 0 && errno != EEXIST) fail("%s: %s", a.out, strerror(errno));
  return a;
}

static int self_test(const arguments *a) {
  selftest st = {0};
  test_perfect_records(&st, a->traces, a->trace_count);
  unsigned untried = selftest_untried(&st);
  printf("self-test: %u corrupted records, %u not noticed, %u kinds of corruption not tried\n", st.tried, st.missed, untried);
  return st.missed + untried > 0;
}

static int bench(const arguments *a) {
  outcome *outcomes = checked_calloc(a->trace_count, sizeof *outcomes);
  selftest st = {0};
  int64_t begun_ns = now_ns(), repeat_us = REPEAT_S_MAX * INT64_C(1000000);
  machine_print(stdout, "");
  fflush(stdout);
  scratch_make();
  for (size_t i = 0; i < a->trace_count; i++) {
    outcomes[i].t = a->traces[i];
    progress("recorded pace", i, a->trace_count, a->traces[i]->name);
    run_paced(&outcomes[i], &st, &repeat_us);
  }
  for (size_t i = 0; i < a->trace_count; i++) {
    progress("full speed", i, a->trace_count, a->traces[i]->name);
    run_speed(&outcomes[i]);
  }
  progress("deaths", 0, 2, "workers");
  deaths of_workers = deaths_of_workers();
  progress("deaths", 1, 2, "supervisors");
  deaths of_supervisors = deaths_of_supervisors();
  progress_end();
  scratch_remove();
  report_paced(stdout, outcomes, a->trace_count, IDLE_MS_MAX);
  report_speed(stdout, outcomes, a->trace_count);
  report_deaths(stdout, outcomes, a->trace_count, &of_workers, &of_supervisors);
  if (a->out) report_csv(a->out, outcomes, a->trace_count, &of_workers, &of_supervisors);
  int status = conclude(outcomes, a->trace_count, &st, &of_workers, &of_supervisors);
  printf("%.0f s in all.%s%s\n", (double)(now_ns() - begun_ns) / (double)NS_PER_S, a->out ? " Raw results: " : "",
         a->out ? a->out : "");
  return status;
}

int main(int argc, char **argv) {
  arguments a = read_arguments(argc, argv);
  return a.self_test_only ? self_test(&a) : bench(&a);
}
