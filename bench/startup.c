/* From nothing to the first message, and back: both ends in one process, so that neither fork nor exec is part of it. */
#define _GNU_SOURCE
#include "notebus.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "tools.h"

#define TIMES 20u /* a round */

enum { BEGIN, FIRST, END, PARTS };
static const char *const part_names[PARTS] = {"both ends made", "first message there", "both ends released"};

typedef struct {
  double wall_us[PARTS], cpu_us[PARTS];
} times;

typedef struct {
  int64_t wall_ns, cpu_ns;
} clocks;

static clocks look(void) {
  struct timespec ts;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
  return (clocks){now_ns(), (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec};
}

static void note_part(times *t, int part, clocks *since) {
  clocks now = look();
  t->wall_us[part] = (double)(now.wall_ns - since->wall_ns) / 1e3;
  t->cpu_us[part] = (double)(now.cpu_ns - since->cpu_ns) / 1e3;
  *since = now;
}

/* ==== This library ==================================================================================================== */

static times messaging_once(const packet *m) {
  times t;
  bus_ctx *im, *worker;
  bus_batch batch = {0};
  messaging_addresses at;
  messaging_options options = {.id = -1};
  messaging_child child = {-1, 1};
  note n = {.tag = 0, .seq = 1, .size = m->size, .body = (const char *)m->bytes, .body_size = note_body_size(m->size)};
  clocks since = look();
  if (bus_init_im(&im, &at, NULL) != MESSAGING_OK || bus_run_im(im, &child, 1, NULL, NULL) != MESSAGING_OK) fail("supervisor");
  if (bus_init_worker(&worker, 1, at.pub, at.pull, &options) != MESSAGING_OK || bus_run_worker(worker, NULL, NULL) != MESSAGING_OK) fail("worker");
  note_part(&t, BEGIN, &since);
  if (bus_send_relay_message(worker, &n) != MESSAGING_OK) fail("send");
  while (batch.count == 0)
    if (bus_wait(im, 10000) != MESSAGING_OK || bus_recv(im, &batch) != MESSAGING_OK) fail("the first message did not come");
  note_part(&t, FIRST, &since);
  bus_batch_free(&batch);
  if (bus_exit(&worker) != MESSAGING_OK || bus_exit(&im) != MESSAGING_OK) fail("exit");
  note_part(&t, END, &since);
  return t;
}

/* ==== Bare libzmq ===================================================================================================== */

/* The same sockets as this library's: two contexts, PULL and XPUB, PUSH and SUB. */
static times libzmq_once(const packet *m) {
  times t;
  char pull[256], pub[256];
  const char *below = getenv("TMPDIR");
  snprintf(pull, sizeof pull, "ipc://%.100s/startup-pull", below ? below : "/tmp");
  snprintf(pub, sizeof pub, "ipc://%.100s/startup-pub", below ? below : "/tmp");
  clocks since = look();
  void *im = zmq_ctx_new(), *in = zmq_socket(im, ZMQ_PULL), *out = zmq_socket(im, ZMQ_XPUB);
  if (zmq_bind(in, pull) != 0 || zmq_bind(out, pub) != 0) fail("bind");
  void *worker = zmq_ctx_new(), *push = zmq_socket(worker, ZMQ_PUSH), *sub = zmq_socket(worker, ZMQ_SUB);
  zmq_setsockopt(sub, ZMQ_SUBSCRIBE, "", 0);
  if (zmq_connect(push, pull) != 0 || zmq_connect(sub, pub) != 0) fail("connect");
  note_part(&t, BEGIN, &since);
  char *bytes = checked_calloc(m->size, 1);
  if (zmq_send(push, m->bytes, m->size, 0) < 0 || zmq_recv(in, bytes, m->size, 0) < 0) fail("the first message did not come");
  note_part(&t, FIRST, &since);
  zmq_close(push);
  zmq_close(sub);
  zmq_ctx_term(worker);
  zmq_close(in);
  zmq_close(out);
  zmq_ctx_term(im);
  note_part(&t, END, &since);
  free(bytes);
  return t;
}

/* ==== The benchmark =================================================================================================== */

typedef struct {
  series wall_us[PARTS], cpu_us[PARTS];
} parts;

/* The medians of a round. */
static void run_round(times (*once)(const packet *), const packet *m, parts *p) {
  double wall_us[PARTS][TIMES], cpu_us[PARTS][TIMES];
  for (uint32_t i = 0; i < TIMES; i++) {
    times t = once(m);
    for (int k = 0; k < PARTS; k++) {
      wall_us[k][i] = t.wall_us[k];
      cpu_us[k][i] = t.cpu_us[k];
    }
  }
  for (int k = 0; k < PARTS; k++) {
    series_add(&p->wall_us[k], median(wall_us[k], TIMES));
    series_add(&p->cpu_us[k], median(cpu_us[k], TIMES));
  }
}

static void print_part(int k, const parts *ours, const parts *bare) {
  spread wall = series_ratio(&ours->wall_us[k], &bare->wall_us[k]), cpu = series_ratio(&ours->cpu_us[k], &bare->cpu_us[k]);
  printf("%-20s %6.2f (%5.2f..%6.2f) %6.2f (%5.2f..%6.2f) %10.0f %10.0f %10.0f %10.0f\n", part_names[k], wall.median, wall.min, wall.max,
         cpu.median, cpu.min, cpu.max, series_spread(&ours->wall_us[k]).median, series_spread(&bare->wall_us[k]).median,
         series_spread(&ours->cpu_us[k]).median, series_spread(&bare->cpu_us[k]).median);
}

void bench_startup(const suite *u) {
  parts ours = {0}, bare = {0};
  packet m = packet_make(64, 0);
  for (uint32_t round = 0; round < u->options->rounds; round++)
    for (uint32_t half = 0; half < 2; half++) {
      if (half == round % 2) run_round(messaging_once, &m, &ours);
      else run_round(libzmq_once, &m, &bare);
    }
  free(m.bytes);
  puts("\nStartup: a supervisor and a worker in one process, each with a context of its own; medians (lowest..highest round)\n");
  printf("%-20s %-22s %-22s %10s %10s %10s %10s\n", "", "time over libzmq's", "CPU over libzmq's", "us", "libzmq", "us CPU", "libzmq");
  FILE *csv = csv_open(u->options, "startup", "part,round,messaging_us,libzmq_us,messaging_cpu_us,libzmq_cpu_us");
  for (int k = 0; k < PARTS; k++) {
    print_part(k, &ours, &bare);
    for (size_t i = 0; csv && i < ours.wall_us[k].count; i++)
      fprintf(csv, "\"%s\",%zu,%.1f,%.1f,%.1f,%.1f\n", part_names[k], i + 1, ours.wall_us[k].values[i], bare.wall_us[k].values[i],
              ours.cpu_us[k].values[i], bare.cpu_us[k].values[i]);
  }
  csv_close(csv);
}
