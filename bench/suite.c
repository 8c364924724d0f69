/* suite.c - what the library costs, beside other ways to relay; see README.md.
 *
 *   suite [--full] [--rounds N] [--only name,...] [--systems name,...] [--receivers n,...] [--sizes n,...] [--out FOLDER]
 *
 * Exit status: 0 it ran, whatever the goals say; 2 it could not go on. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "bench.h"
#include "codec.h"
#include "machine.h"
#include "scratch.h"
#include "tools.h"

typedef struct {
  const char *name;
  void (*run)(const suite *u);
} benchmark;

static const benchmark benchmarks[] = {
    {"throughput", bench_throughput},
    {"bursts", bench_bursts},
    {"latency", bench_latency},
    {"fan-out", bench_fan_out},
    {"idle", bench_idle},
    {"join", bench_join},
    {"startup", bench_startup},
    {"codec", bench_codec},
    {"stages", bench_stages},
};

size_t peers_all(const peer **out, size_t max) {
  const peer *all[] = {
      &peer_messaging, &peer_libzmq, &peer_messaging_tcp, &peer_messaging_curve, &peer_libzmq_echo, &peer_libzmq_slice, &peer_libzmq_typed,
      &peer_libzmq_batch,
#ifdef HAVE_CZMQ
      &peer_czmq,
#endif
#ifdef HAVE_NNG
      &peer_nng,
#endif
#ifdef HAVE_NANOMSG
      &peer_nanomsg,
#endif
      &peer_unix, &peer_pipe, &peer_ring,
  };
  size_t count = sizeof all / sizeof all[0];
  if (count > max) count = max;
  memcpy(out, all, count * sizeof *all);
  return count;
}

bool listed(const char *list, const char *name) {
  size_t length = strlen(name);
  if (!list) return true;
  for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
    if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == 0)) return true;
  return false;
}

bool listed_number(const char *list, uint32_t number) {
  char name[16];
  snprintf(name, sizeof name, "%u", number);
  return listed(list, name);
}

static suite_options read_options(int argc, char **argv) {
  suite_options o = {0};
  for (int i = 1; i < argc; i++) {
    bool more = i + 1 < argc;
    if (strcmp(argv[i], "--full") == 0) o.full = true;
    else if (strcmp(argv[i], "--rounds") == 0 && more) o.rounds = (uint32_t)atoi(argv[++i]);
    else if (strcmp(argv[i], "--only") == 0 && more) o.only = argv[++i];
    else if (strcmp(argv[i], "--systems") == 0 && more) o.systems = argv[++i];
    else if (strcmp(argv[i], "--receivers") == 0 && more) o.receivers = argv[++i];
    else if (strcmp(argv[i], "--sizes") == 0 && more) o.sizes = argv[++i];
    else if (strcmp(argv[i], "--out") == 0 && more) o.out = argv[++i];
    else fail("usage: suite [--full] [--rounds N] [--only name,...] [--systems name,...] [--receivers n,...] [--sizes n,...] [--out FOLDER]");
  }
  if (o.rounds == 0) o.rounds = o.full ? 5 : 3;
  if (o.rounds > ROUNDS_MAX_SUITE) o.rounds = ROUNDS_MAX_SUITE;
  if (o.out && mkdir(o.out, 0777) != 0 && errno != EEXIST) fail("%s: %s", o.out, strerror(errno));
  return o;
}

static void choose_peers(suite *u) {
  const peer *all[16];
  size_t count = peers_all(all, 16);
  for (size_t i = 0; i < count; i++)
    if (listed(u->options->systems, all[i]->name)) u->peers[u->peer_count++] = all[i];
}

static void print_systems(const suite *u) {
  puts("\nSystems\n");
  for (size_t i = 0; i < u->peer_count; i++) printf("  %-14s %-8s %s\n", u->peers[i]->name, u->peers[i]->version, u->peers[i]->setup);
}

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

/* Of this process and all its children that have ended. */
static double cpu_s(void) {
  struct rusage own, children;
  getrusage(RUSAGE_SELF, &own);
  getrusage(RUSAGE_CHILDREN, &children);
  return seconds(own.ru_utime) + seconds(own.ru_stime) + seconds(children.ru_utime) + seconds(children.ru_stime);
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "--in-callgrind") == 0) {
    codec_in_callgrind((uint32_t)atoi(argv[2]), (uint32_t)atoi(argv[3]));
    return 0;
  }
  suite_options options = read_options(argc, argv);
  suite u = {.options = &options};
  int64_t begun_ns = now_ns();
  choose_peers(&u);
  scratch_make();
  machine_print(stdout, "");
  machine_print_costs(stdout, "");
  print_systems(&u);
  for (size_t i = 0; i < sizeof benchmarks / sizeof benchmarks[0]; i++)
    if (listed(options.only, benchmarks[i].name)) {
      int64_t before_ns = now_ns();
      double before_s = cpu_s();
      benchmarks[i].run(&u);
      fprintf(stderr, "%s: %.0f s, %.0f s CPU\n", benchmarks[i].name, (double)(now_ns() - before_ns) / 1e9, cpu_s() - before_s);
    }
  scratch_remove();
  goals_print(stdout, &options);
  printf("%.0f s in all.%s%s\n", (double)(now_ns() - begun_ns) / 1e9, options.out ? " Raw results: " : "", options.out ? options.out : "");
  return 0;
}
