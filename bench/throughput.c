#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "burst.h"
#include "tools.h"

#define FEW_RECEIVERS 4u
#define MANY_RECEIVERS 64u
#define LARGE (256u << 10)
#define CONFIGS_MAX 48

/* One configuration: what every system made of the same burst. */
typedef struct {
  uint32_t receivers, size, count;
  bool small; /* goals for small messages hold */
  size_t systems;
  const peer *system[16];
  series rate[16];      /* messages a second */
  series cpu_ns[16];    /* a delivery */
  series sender_ns[16]; /* of the sending thread, a message */
  unsigned invalid[16]; /* turns in which something was lost, disordered, or that did not run */
} config;

static void run_system(config *c, size_t i, uint32_t turn, FILE *csv) {
  burst b = burst_run(&(burst_plan){c->system[i], c->receivers, c->size, c->count, NULL});
  double count = b.count > 0 ? b.count : 1, deliveries = count * c->receivers;
  if (b.valid) {
    series_set(&c->rate[i], turn, count / b.wall_ns * 1e9);
    series_set(&c->cpu_ns[i], turn, b.cpu_ns / deliveries);
    series_set(&c->sender_ns[i], turn, b.sender_ns / count);
  }
  c->invalid[i] += !b.valid;
  if (csv)
    fprintf(csv, "%s,%u,%u,%u,%u,%d,%llu,%llu,%.1f,%.1f,%.0f,%.1f,%.1f\n", c->system[i]->name, c->receivers, c->size, b.count, turn + 1,
            b.valid, (unsigned long long)b.lost, (unsigned long long)b.disordered, b.wall_ns / 1e3, b.cpu_ns / 1e3,
            b.wall_ns > 0 ? count / b.wall_ns * 1e9 : 0, b.cpu_ns / deliveries, b.sender_ns / count);
}

/* Turns of the two systems that goals compare in a round, more than the others have where they vary: bursts to few receivers are short, those of large
 * messages depend on what memory costs just then. */
static uint32_t turns_of(const config *c) {
  if (c->size < LARGE && c->size != 64 && c->size != 140) return 1;
  if (c->receivers < FEW_RECEIVERS) return TURNS_MAX;
  return c->receivers < MANY_RECEIVERS || c->size >= LARGE ? PAIR_TURNS : PAIR_TURNS / 2;
}

static void run_round(config *c, uint32_t round, FILE *csv) {
  size_t next;
  uint32_t turns = turns_of(c);
  for (uint32_t turn = round * turns; turn < (round + 1) * turns; turn++)
    for (size_t i = 0; i < c->systems; i++)
      if (peer_has_turn(c->system, c->systems, turns, turn, i, &next)) run_system(c, next, turn, csv);
}

/* Round by round, so that a time in which the machine is slow does not fall on one configuration alone. */
static void run_configs(const suite *u, config *c, size_t count, FILE *csv) {
  for (uint32_t round = 0; round < u->options->rounds; round++) {
    for (size_t i = 0; i < count; i++) run_round(&c[i], round, csv);
    fprintf(stderr, "round %u of %u\n", round + 1, u->options->rounds);
  }
}

/* ==== Tables ========================================================================================================== */

static void print_ratio(spread s) { printf(" %6.2f (%5.2f..%6.2f)", s.median, s.min, s.max); }

static void print_head(const char *what) {
  printf("\n%s; median (lowest..highest round)\n\n", what);
  printf("%-14s %5s %8s  %-22s %-22s %12s %11s %11s %s\n", "", "recei-", "", "messages/s,", "CPU a delivery,", "", "ns CPU", "ns, sending", "");
  printf("%-14s %5s %8s  %-22s %-22s %12s %11s %11s %s\n", "system", "vers", "bytes", "over libzmq's", "over libzmq's", "messages/s",
         "a delivery", "thread", "invalid");
}

static void print_config(const config *c, size_t base) {
  for (size_t i = 0; i < c->systems; i++) {
    printf("%-14s %5u %8u ", c->system[i]->name, c->receivers, c->size);
    print_ratio(series_ratio(&c->rate[i], &c->rate[base]));
    print_ratio(series_ratio(&c->cpu_ns[i], &c->cpu_ns[base]));
    printf(" %12.0f %11.0f %11.0f %u\n", series_spread(&c->rate[i]).median, series_spread(&c->cpu_ns[i]).median,
           series_spread(&c->sender_ns[i]).median, c->invalid[i]);
  }
  fflush(stdout);
}

static void write_summary(const config *c, size_t base, FILE *csv) {
  for (size_t i = 0; csv && i < c->systems; i++) {
    spread rate = series_ratio(&c->rate[i], &c->rate[base]), cpu = series_ratio(&c->cpu_ns[i], &c->cpu_ns[base]);
    if (c->rate[i].count == 0) continue;
    fprintf(csv, "%s,%u,%u,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.0f,%.1f,%.1f,%u\n", c->system[i]->name, c->receivers, c->size, rate.median, rate.min,
            rate.max, cpu.median, cpu.min, cpu.max, series_spread(&c->rate[i]).median, series_spread(&c->cpu_ns[i]).median,
            series_spread(&c->sender_ns[i]).median, c->invalid[i]);
  }
}

static size_t position(const config *c, const peer *wanted) {
  size_t i = 0;
  while (i < c->systems && c->system[i] != wanted) i++;
  return i;
}

/* ==== Goals =========================================================================================================== */

static void judge_small(const config *c, size_t ours, size_t base) {
  char what[120];
  snprintf(what, sizeof what, "relay of %u bytes to %u: messages/s over libzmq's", c->size, c->receivers);
  goal_at_least(1, what, series_ratio(&c->rate[ours], &c->rate[base]), 4);
  snprintf(what, sizeof what, "relay of %u bytes to %u: CPU a delivery over libzmq's", c->size, c->receivers);
  goal_at_most(1, what, series_ratio(&c->cpu_ns[ours], &c->cpu_ns[base]), 1.0 / 3);
}

static void judge_any(const config *c, size_t ours, size_t base) {
  char what[120];
  snprintf(what, sizeof what, "relay of %u bytes to %u: never below libzmq's messages/s", c->size, c->receivers);
  goal_at_least(1, what, series_ratio(&c->rate[ours], &c->rate[base]), 0.97);
}

static void finish(const config *c, FILE *summary) {
  size_t ours = position(c, &peer_messaging), base = position(c, &peer_libzmq);
  print_config(c, base < c->systems ? base : 0);
  write_summary(c, base < c->systems ? base : 0, summary);
  if (ours == c->systems || base == c->systems) return;
  if (c->small) judge_small(c, ours, base);
  else judge_any(c, ours, base);
}

/* ==== The benchmark =================================================================================================== */

static void add_systems(const suite *u, config *c, bool all) {
  for (size_t i = 0; i < u->peer_count; i++)
    if (all || peer_in_goals(u->peers[i])) c->system[c->systems++] = u->peers[i];
}

/* One more, if it is wanted. */
static void add_config(const suite *u, config *configs, size_t *count, uint32_t receivers, uint32_t size, bool all, bool small) {
  if (!listed_number(u->options->receivers, receivers) || !listed_number(u->options->sizes, size)) return;
  config *c = &configs[(*count)++];
  c->receivers = receivers;
  c->size = size;
  c->count = burst_count(receivers, size);
  c->small = small;
  add_systems(u, c, all);
}

static FILE *open_rounds(const suite *u, const char *name) {
  return csv_open(u->options, name,
                  "system,receivers,size,messages,turn,valid,lost,disordered,wall_us,cpu_us,messages_per_s,cpu_ns_a_delivery,sender_cpu_ns_a_message");
}

void bench_throughput(const suite *u) {
  static const uint32_t receivers[] = {2, 4, 16, 64}, small[] = {64, 140};
  static const uint32_t all_sizes[] = {1, 16, 256, 1024, 4096, 16384, 65536, 262144, 1048576}, few_sizes[] = {1, 1024, 16384, 262144, 1048576};
  const uint32_t *sizes = u->options->full ? all_sizes : few_sizes;
  size_t size_count = u->options->full ? sizeof all_sizes / sizeof all_sizes[0] : sizeof few_sizes / sizeof few_sizes[0], count = 0;
  config *c = checked_calloc(CONFIGS_MAX, sizeof *c);
  FILE *csv = open_rounds(u, "throughput");
  FILE *summary = csv_open(u->options, "throughput_summary",
                           "system,receivers,size,rate_ratio,rate_ratio_min,rate_ratio_max,cpu_ratio,cpu_ratio_min,cpu_ratio_max,"
                           "messages_per_s,cpu_ns_a_delivery,sender_cpu_ns_a_message,invalid");
  for (size_t r = 0; r < sizeof receivers / sizeof receivers[0]; r++)
    for (size_t s = 0; s < sizeof small / sizeof small[0]; s++)
      add_config(u, c, &count, receivers[r], small[s], u->options->full || (receivers[r] == 4 && small[s] == 140), true);
  for (size_t r = 0; r < sizeof receivers / sizeof receivers[0]; r++)
    for (size_t s = 0; s < size_count && (u->options->full || receivers[r] == FEW_RECEIVERS); s++)
      add_config(u, c, &count, receivers[r], sizes[s], u->options->full && receivers[r] == FEW_RECEIVERS, false);
  run_configs(u, c, count, csv);
  print_head("Throughput: one worker sends a burst, the supervisor relays it, everybody else counts");
  for (size_t i = 0; i < count; i++) finish(&c[i], summary);
  csv_close(csv);
  csv_close(summary);
  free(c);
}

/* How much a burst's beginning and end weigh. No goals: those are for bursts that last. */
void bench_bursts(const suite *u) {
  enum { LENGTHS = 5 };
  static const uint32_t lengths[LENGTHS] = {100, 1000, 10000, 100000, 200000};
  if (!u->options->full && !u->options->only) return;
  config *c = checked_calloc(LENGTHS, sizeof *c);
  FILE *csv = open_rounds(u, "bursts");
  for (size_t i = 0; i < LENGTHS; i++) {
    c[i].receivers = 2;
    c[i].size = 140;
    c[i].count = lengths[i];
    add_systems(u, &c[i], false);
    for (size_t k = 0; k < u->peer_count; k++)
      if (u->peers[k] == &peer_libzmq_batch) c[i].system[c[i].systems++] = u->peers[k];
  }
  run_configs(u, c, LENGTHS, csv);
  print_head("Bursts of 100 to 200,000 messages");
  for (size_t i = 0; i < LENGTHS; i++) {
    size_t base = position(&c[i], &peer_libzmq);
    printf("%u messages:\n", c[i].count);
    print_config(&c[i], base < c[i].systems ? base : 0);
  }
  csv_close(csv);
  free(c);
}
