/* report.h - tables for people, CSV for programs. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdio.h>

#include "deaths.h"
#include "oracle.h"
#include "rounds.h"
#include "trace.h"

#define ROUND_COUNT 5u /* measured; one more before them warms up */

typedef struct { /* all that was measured with one trace */
  const trace *t;
  verdict *paced;
  int64_t lag_ns;    /* the longest that a process started behind its time */
  unsigned attempts; /* replays at the recorded pace until the machine kept it */
  verdict *speed;
  uint32_t passes; /* times that a round sends all messages of the trace */
  uint64_t refusals;
  double ours_ns[ROUND_COUNT], bare_ns[ROUND_COUNT]; /* until the last process had everything */
  uint64_t bare_missed;
} outcome;

void report_paced(FILE *file, const outcome *outcomes, size_t count, int64_t idle_ms_max);
void report_speed(FILE *file, outcome *outcomes, size_t count);
void report_deaths(FILE *file, const outcome *outcomes, size_t count, const deaths *of_workers, const deaths *of_supervisors);

/* Into machine.csv, recorded_pace.csv, deliveries.csv, full_speed.csv and deaths.csv of that folder. */
void report_csv(const char *folder, const outcome *outcomes, size_t count, const deaths *of_workers,
                const deaths *of_supervisors);

#endif
