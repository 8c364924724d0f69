#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "machine.h"
#include "tools.h"

/* ==== Series ========================================================================================================== */

void series_add(series *s, double value) {
  series_set(s, s->count, value);
}

void series_set(series *s, size_t turn, double value) {
  if (turn >= sizeof s->values / sizeof s->values[0]) return;
  while (s->count <= turn) s->values[s->count++] = NAN;
  s->values[turn] = value;
}

spread series_spread(const series *s) {
  series sorted = {0};
  for (size_t i = 0; i < s->count; i++)
    if (!isnan(s->values[i])) sorted.values[sorted.count++] = s->values[i];
  if (sorted.count == 0) return (spread){0};
  double middle = median(sorted.values, sorted.count);
  return (spread){middle, sorted.values[0], sorted.values[sorted.count - 1]};
}

spread series_ratio(const series *over, const series *under) {
  series ratios = {0};
  for (size_t i = 0; i < over->count && i < under->count; i++)
    if (!isnan(over->values[i]) && under->values[i] > 0) series_add(&ratios, over->values[i] / under->values[i]);
  return series_spread(&ratios);
}

/* ==== CSV ============================================================================================================= */

static void print_versions(FILE *file) {
  const peer *all[16];
  size_t count = peers_all(all, 16);
  fputs("# systems  ", file);
  for (size_t i = 0; i < count; i++) {
    const peer *p = all[i];
    fprintf(file, " %s%s%s%s", p->name, *p->version ? " " : "", p->version, i + 1 < count ? "," : "\n");
  }
}

FILE *csv_open(const suite_options *o, const char *name, const char *columns) {
  char path[4096];
  if (!o->out) return NULL;
  snprintf(path, sizeof path, "%s/%s.csv", o->out, name);
  FILE *file = fopen(path, "w");
  if (!file) fail("%s: %s", path, strerror(errno));
  machine_print(file, "# ");
  machine_print_costs(file, "# ");
  print_versions(file);
  fprintf(file, "# %s set, %u rounds\n%s\n", o->full ? "full" : "quick", o->rounds, columns);
  return file;
}

void csv_close(FILE *file) {
  if (!file) return;
  if (fflush(file) != 0 || ferror(file)) fail("writing CSV: %s", strerror(errno));
  fclose(file);
}

/* ==== Goals =========================================================================================================== */

#define GOALS_MAX 96u

typedef struct {
  int number;
  char what[120];
  const char *why; /* it was not measured */
  spread measured;
  double limit;
  bool at_most;
} goal;

static goal goals[GOALS_MAX];
static size_t goal_count;

static goal *goal_add(int number, const char *what) {
  if (goal_count == GOALS_MAX) fail("more than %u goals", GOALS_MAX);
  goal *g = &goals[goal_count++];
  g->number = number;
  snprintf(g->what, sizeof g->what, "%s", what);
  return g;
}

static void goal_measured(int number, const char *what, spread measured, double limit, bool at_most) {
  goal *g = goal_add(number, what);
  g->measured = measured;
  g->limit = limit;
  g->at_most = at_most;
}

void goal_at_most(int number, const char *what, spread measured, double limit) { goal_measured(number, what, measured, limit, true); }
void goal_at_least(int number, const char *what, spread measured, double limit) { goal_measured(number, what, measured, limit, false); }

void goal_unmeasured(int number, const char *what, const char *why) { goal_add(number, what)->why = why; }

static bool goal_passed(const goal *g) { return g->at_most ? g->measured.median <= g->limit : g->measured.median >= g->limit; }

static const char *goal_verdict(const goal *g) { return g->why ? "NOT MEASURED" : goal_passed(g) ? "PASS" : "MISSED"; }

static int by_number(const void *a, const void *b) { return ((const goal *)a)->number - ((const goal *)b)->number; }

static void goals_csv(const suite_options *o) {
  FILE *file = csv_open(o, "goals", "goal,what,median,min,max,relation,limit,verdict");
  for (size_t i = 0; file && i < goal_count; i++) {
    const goal *g = &goals[i];
    fprintf(file, "%d,\"%s\",%.4g,%.4g,%.4g,%s,%.4g,%s\n", g->number, g->what, g->measured.median, g->measured.min, g->measured.max,
            g->at_most ? "at most" : "at least", g->limit, goal_verdict(g));
  }
  csv_close(file);
}

size_t goals_print(FILE *file, const suite_options *o) {
  size_t missed = 0;
  if (goal_count == 0) return 0;
  qsort(goals, goal_count, sizeof *goals, by_number);
  fprintf(file, "\nGoals: median (lowest to highest round)\n\n");
  for (size_t i = 0; i < goal_count; i++) {
    const goal *g = &goals[i];
    if (g->why)
      fprintf(file, "  %d  %-12s  %s: %s\n", g->number, goal_verdict(g), g->what, g->why);
    else
      fprintf(file, "  %d  %-12s  %s: %.4g (%.4g to %.4g), wanted %s %.4g\n", g->number, goal_verdict(g), g->what, g->measured.median,
              g->measured.min, g->measured.max, g->at_most ? "at most" : "at least", g->limit);
    missed += !g->why && !goal_passed(g);
  }
  fprintf(file, "\n%zu of %zu goals missed.\n", missed, goal_count);
  goals_csv(o);
  return missed;
}
