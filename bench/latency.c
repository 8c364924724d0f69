/* Round trips between two workers that wait for nothing else: sender, supervisor, receiver, supervisor, sender. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "tools.h"

#define SIZE 64u
#define BLOCK 100u      /* trips of one system before the next one has its turn, since what a machine gives changes within seconds, */
#define WARM 300u       /* behind so many others at first, */
#define WARM_AGAIN 10u  /* and later on */
#define LOAD_PERIOD_NS (NS_PER_MS)
#define LOAD_MESSAGES 20u /* a period: 20,000 messages a second */
#define SETTLE_MS 60

enum { ASKER, ANSWERER, LOADER };

typedef struct {
  size_t bytes;
  uint32_t blocks, total; /* total: round trips, those that warm up included */
  uint32_t answered, measured;
  _Atomic bool finished;  /* the last answer has come, or one did not */
  int64_t trip_ns[];
} trips;

static trips *trips_make(uint32_t blocks) {
  size_t bytes = sizeof(trips) + blocks * BLOCK * sizeof(int64_t);
  trips *t = shared_make(bytes);
  t->bytes = bytes;
  t->blocks = blocks;
  t->total = WARM + blocks * BLOCK + (blocks - 1) * WARM_AGAIN;
  return t;
}

/* ==== Roles =========================================================================================================== */

typedef struct {
  uint32_t from; /* of this sender */
  uint32_t last; /* the newest */
} hearing;

static void hear(void *user, uint32_t tag, uint32_t seq) {
  hearing *h = user;
  if (tag == h->from) h->last = seq;
}

static bool await_seq(scene *s, void *end, hearing *h, uint32_t seq) {
  while (h->last < seq)
    if (s->system->recv(end, hear, h, RECEIVE_TIMEOUT_MS) == 0) return false;
  return true;
}

static void put_one(scene *s, void *end, packet *m, uint32_t seq) {
  packet_mark(m, seq);
  s->system->send(end, m);
  if (s->system->flush) s->system->flush(end);
}

static void ask_a_block(scene *s, void *end) {
  trips *t = s->role_data;
  packet m = packet_make(SIZE, ASKER);
  hearing h = {ANSWERER, t->answered};
  uint32_t last = t->answered + (t->measured ? WARM_AGAIN : WARM) + BLOCK;
  while (t->answered < last) {
    int64_t begun_ns = now_ns();
    put_one(s, end, &m, t->answered + 1);
    if (!await_seq(s, end, &h, t->answered + 1)) break;
    int64_t trip_ns = now_ns() - begun_ns;
    if (++t->answered > last - BLOCK) t->trip_ns[t->measured++] = trip_ns;
  }
  t->finished = t->answered < last || t->answered == t->total;
  free(m.bytes);
}

static void answer(scene *s, void *end) {
  trips *t = s->role_data;
  packet m = packet_make(SIZE, ANSWERER);
  hearing h = {ASKER, 0};
  for (uint32_t i = 1; i <= t->total && await_seq(s, end, &h, i); i++) put_one(s, end, &m, i);
  free(m.bytes);
}

static void ignore(void *user, uint32_t tag, uint32_t seq) { (void)user, (void)tag, (void)seq; }

static void load(scene *s, void *end) {
  trips *t = s->role_data;
  packet m = packet_make(SIZE, LOADER);
  int64_t at_ns = now_ns();
  for (uint32_t seq = 1; !t->finished; at_ns += LOAD_PERIOD_NS) {
    for (uint32_t i = 0; i < LOAD_MESSAGES; i++) {
      packet_mark(&m, seq++);
      s->system->send(end, &m);
    }
    if (s->system->flush) s->system->flush(end);
    while (s->system->recv(end, ignore, NULL, 0) > 0) {
    }
    sleep_until_ns(at_ns);
  }
  free(m.bytes);
}

static void take_part(scene *s, uint32_t worker, void *end) {
  if (worker == ASKER) ask_a_block(s, end);
  else if (worker == ANSWERER) answer(s, end);
  else load(s, end);
}

/* ==== A turn ========================================================================================================== */

typedef struct {
  size_t systems;
  const peer *system[16];
  series p50_us[16], p99_us[16], max_us[16], cpu_us[16], sleeps[16];
  unsigned invalid[16];
} config;

typedef struct {
  bool loaded, one_core;
  uint32_t blocks;
} mode;

/* One system's part of a turn. */
typedef struct {
  size_t system;
  scene *s;
  trips *t;
  double cpu_ns, sleeps;
} part;

static void note_part(config *c, const part *p, uint32_t turn, const mode *m, FILE *csv) {
  bool valid = p->s && p->t->answered == p->t->total;
  size_t i = p->system;
  int64_t *sorted = p->t->trip_ns;
  size_t count = valid ? p->t->measured : 0;
  double cpu_us = p->cpu_ns / p->t->total / 1e3, sleeps = p->sleeps / p->t->total;
  sort_ns(sorted, count);
  double p50 = (double)quantile_ns(sorted, count, 0.5) / 1e3, p90 = (double)quantile_ns(sorted, count, 0.9) / 1e3;
  double p99 = (double)quantile_ns(sorted, count, 0.99) / 1e3, max = (double)quantile_ns(sorted, count, 1) / 1e3;
  if (valid) {
    series_set(&c->p50_us[i], turn, p50);
    series_set(&c->p99_us[i], turn, p99);
    series_set(&c->max_us[i], turn, max);
    series_set(&c->cpu_us[i], turn, cpu_us);
    series_set(&c->sleeps[i], turn, sleeps);
  }
  c->invalid[i] += !valid;
  if (csv)
    fprintf(csv, "%s,%s,%d,%u,%u,%d,%.1f,%.1f,%.1f,%.1f,%.1f,%.2f\n", c->system[i]->name, m->loaded ? "load" : "idle", m->one_core ? 1 : 2,
            p->t->blocks * BLOCK, turn + 1, valid, p50, p90, p99, max, cpu_us, sleeps);
}

static void count_part(part *p, double factor) {
  p->cpu_ns += factor * (double)scene_cpu_ns(p->s);
  p->sleeps += factor * (double)scene_sleeps(p->s);
}

static void begin_part(part *p, const config *c, const mode *m) {
  p->t = trips_make(m->blocks);
  scene_plan plan = {.system = c->system[p->system], .workers = m->loaded ? 3 : 2, .size = SIZE, .one_core = m->one_core, .role = take_part, .role_data = p->t};
  p->s = scene_begin(&plan);
  if (!p->s) return;
  count_part(p, -1);
  for (uint32_t w = p->s->workers - 1; w > ASKER; w--) scene_go(p->s, w);
}

/* The asker's block ends each time, all the others with the last one. */
static void run_block(part *p) {
  if (!p->s || p->t->finished) return;
  bool last = p->t->measured + BLOCK == p->t->blocks * BLOCK;
  scene_go(p->s, ASKER);
  scene_await(p->s, last ? p->s->workers : 1);
}

/* Systems that are idle meanwhile cost nothing, so they are there at the same time and take turns block by block. */
static void run_together(config *c, part *parts, size_t count, uint32_t turn, const mode *m, FILE *csv) {
  for (size_t i = 0; i < count; i++) begin_part(&parts[i], c, m);
  for (uint32_t block = 0; block < m->blocks; block++)
    for (size_t i = 0; i < count; i++) run_block(&parts[(i + block) % count]);
  sleep_until_ns(now_ns() + SETTLE_MS * NS_PER_MS);
  for (size_t i = 0; i < count; i++) {
    part *p = &parts[i];
    if (p->s) count_part(p, 1);
    note_part(c, p, turn, m, csv);
    if (p->s) scene_end(p->s);
    shared_release(p->t, p->t->bytes);
  }
}

/* In a round. Slow trips on one core are few. */
static uint32_t turns_of(const mode *m) { return m->one_core ? TURNS_MAX : PAIR_TURNS; }

static void run_turn(config *c, uint32_t turn, const mode *m, FILE *csv) {
  part parts[16] = {0};
  size_t count = 0, next;
  for (size_t i = 0; i < c->systems; i++)
    if (peer_has_turn(c->system, c->systems, turns_of(m), turn, i, &next)) parts[count++].system = next;
  size_t together = m->loaded ? 1 : count; /* the load would be there for all */
  for (size_t i = 0; i < count; i += together) run_together(c, parts + i, together, turn, m, csv);
}

/* ==== Tables and goals ================================================================================================ */

static const peer *const baseline = &peer_libzmq;

static size_t position(const config *c, const peer *wanted) {
  size_t i = 0;
  while (i < c->systems && c->system[i] != wanted) i++;
  return i;
}

static void print_config(const config *c, const mode *m, size_t base) {
  printf("\n%s, %s: ratios over libzmq's\n", m->loaded ? "with 20,000 messages a second beside it" : "idle", m->one_core ? "one core" : "all cores");
  printf("%-14s %-22s %-22s %-6s %9s %9s %9s %9s %7s %s\n", "system", "p50", "p99", "CPU", "p50, us", "p99, us",
         "max, us", "CPU, us", "sleeps", "invalid");
  for (size_t i = 0; i < c->systems; i++) {
    spread p50 = series_ratio(&c->p50_us[i], &c->p50_us[base]), p99 = series_ratio(&c->p99_us[i], &c->p99_us[base]);
    printf("%-14s %5.2f (%5.2f..%6.2f) %5.2f (%5.2f..%6.2f) %6.2f %9.1f %9.1f %9.1f %9.1f %7.1f %u\n", c->system[i]->name, p50.median, p50.min,
           p50.max, p99.median, p99.min, p99.max, series_ratio(&c->cpu_us[i], &c->cpu_us[base]).median, series_spread(&c->p50_us[i]).median,
           series_spread(&c->p99_us[i]).median, series_spread(&c->max_us[i]).median, series_spread(&c->cpu_us[i]).median,
           series_spread(&c->sleeps[i]).median, c->invalid[i]);
  }
  fflush(stdout);
}

static void write_summary(const config *c, const mode *m, size_t base, FILE *csv) {
  for (size_t i = 0; csv && i < c->systems; i++) {
    spread p50 = series_ratio(&c->p50_us[i], &c->p50_us[base]), p99 = series_ratio(&c->p99_us[i], &c->p99_us[base]);
    if (c->p50_us[i].count == 0) continue;
    fprintf(csv, "%s,%s,%d,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.1f,%.1f,%.1f,%.1f\n", c->system[i]->name, m->loaded ? "load" : "idle", m->one_core ? 1 : 2,
            p50.median, p50.min, p50.max, p99.median, p99.min, p99.max, series_spread(&c->p50_us[i]).median, series_spread(&c->p99_us[i]).median,
            series_spread(&c->cpu_us[i]).median, series_spread(&c->sleeps[i]).median);
  }
}

static void judge(const config *c, const mode *m) {
  char what[120];
  size_t ours = position(c, &peer_messaging), base = position(c, baseline);
  if (ours == c->systems || base == c->systems || m->loaded) return;
  snprintf(what, sizeof what, "round trip, idle, %s: p50 over libzmq's", m->one_core ? "one core" : "all cores");
  goal_at_most(2, what, series_ratio(&c->p50_us[ours], &c->p50_us[base]), 1.1);
  snprintf(what, sizeof what, "round trip, idle, %s: p99 over libzmq's", m->one_core ? "one core" : "all cores");
  goal_at_most(2, what, series_ratio(&c->p99_us[ours], &c->p99_us[base]), 1.1);
}

/* ==== The benchmark =================================================================================================== */

static void choose_systems(const suite *u, config *c, bool all) {
  for (size_t i = 0; i < u->peer_count; i++) {
    const peer *p = u->peers[i];
    if (all || peer_in_goals(p) || p == &peer_libzmq_echo || p == &peer_libzmq_slice) c->system[c->systems++] = p;
  }
}

static void run_round(config *c, uint32_t round, const mode *m, FILE *csv) {
  uint32_t turns = turns_of(m);
  for (uint32_t turn = round * turns; turn < (round + 1) * turns; turn++) run_turn(c, turn, m, csv);
}

static void finish(const config *c, const mode *m, FILE *summary) {
  size_t base = position(c, baseline);
  if (base == c->systems) base = 0;
  print_config(c, m, base);
  write_summary(c, m, base, summary);
  judge(c, m);
}

/* Round by round through all modes, so that a time in which the machine is slow does not fall on one of them alone. */
void bench_latency(const suite *u) {
  FILE *csv = csv_open(u->options, "latency",
                       "system,mode,cores,trips,turn,valid,p50_us,p90_us,p99_us,max_us,cpu_us_a_trip,sleeps_a_trip");
  FILE *summary = csv_open(u->options, "latency_summary",
                           "system,mode,cores,p50_ratio,p50_ratio_min,p50_ratio_max,p99_ratio,p99_ratio_min,p99_ratio_max,"
                           "p50_us,p99_us,cpu_us,sleeps");
  mode modes[4];
  config *c = checked_calloc(4, sizeof *c);
  size_t count = 0;
  for (int loaded = 0; loaded < 2; loaded++)
    for (int one_core = 0; one_core < 2; one_core++) {
      if (loaded && one_core && !u->options->full) continue;
      modes[count] = (mode){loaded, one_core, u->options->full ? 40 : 10};
      choose_systems(u, &c[count++], u->options->full || (!loaded && !one_core));
    }
  for (uint32_t round = 0; round < u->options->rounds; round++)
    for (size_t i = 0; i < count; i++) run_round(&c[i], round, &modes[i], csv);
  printf("\nLatency: round trips of %u bytes between two waiting workers by way of the supervisor; medians (lowest..highest round)\n", SIZE);
  for (size_t i = 0; i < count; i++) finish(&c[i], &modes[i], summary);
  csv_close(csv);
  csv_close(summary);
  free(c);
}
