#define _GNU_SOURCE
#include "machine.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "../messaging.h"

#ifndef BENCH_FLAGS
#define BENCH_FLAGS "unknown flags"
#endif

static void machine_cpu(char *out, size_t size) {
  char line[256];
  FILE *file = fopen("/proc/cpuinfo", "r");
  snprintf(out, size, "unknown CPU");
  while (file && fgets(line, sizeof line, file)) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) != 0 || !colon) continue;
    snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    break;
  }
  if (file) fclose(file);
}

static int machine_cores(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

#define TEXT(x) #x
#define VERSION_TEXT(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

static const char *compiler(void) {
#ifdef __clang__
  return "clang " VERSION_TEXT(__clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  return "gcc " __VERSION__;
#endif
}

typedef struct {
  char cpu[128], zmq[32];
  struct utsname os;
} facts;

static facts find_out(void) {
  facts f = {0};
  int major, minor, patch;
  machine_cpu(f.cpu, sizeof f.cpu);
  zmq_version(&major, &minor, &patch);
  snprintf(f.zmq, sizeof f.zmq, "%d.%d.%d", major, minor, patch);
  if (uname(&f.os) != 0) memset(&f.os, 0, sizeof f.os);
  return f;
}

void machine_print(FILE *file, const char *prefix) {
  facts f = find_out();
  double load[1];
  if (getloadavg(load, 1) != 1) load[0] = -1;
  fprintf(file, "%smachine   %s, %d cores, %s %s, load average %.1f before\n", prefix, f.cpu, machine_cores(), f.os.sysname, f.os.release, load[0]);
  fprintf(file, "%sversions  messaging %s, libzmq %s, msgpack-c %s, %s, %s\n", prefix, MESSAGING_VERSION_STRING, f.zmq, msgpack_version(),
          compiler(), BENCH_FLAGS);
}

/* ==== What it charges ================================================================================================== */

#define CALLS 2000u
#define PAGES 512u

static double cpu_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
  return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static double system_call_ns(void) {
  double before = cpu_ns();
  for (unsigned i = 0; i < CALLS; i++) (void)getppid();
  return (cpu_ns() - before) / CALLS;
}

static double fresh_page_ns(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = PAGES * page;
  char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 0;
  double before = cpu_ns();
  for (size_t i = 0; i < PAGES; i++) memory[i * page] = 1;
  double ns = (cpu_ns() - before) / PAGES;
  munmap(memory, bytes);
  return ns;
}

void machine_print_costs(FILE *file, const char *prefix) {
  static double call_ns, page_ns;
  if (page_ns == 0) {
    call_ns = system_call_ns();
    page_ns = fresh_page_ns();
  }
  fprintf(file, "%scharges   %.0f ns CPU for a system call, %.0f ns for the first touch of a page\n", prefix, call_ns, page_ns);
}

void machine_csv(FILE *file) {
  facts f = find_out();
  fprintf(file, "cpu,cores,kernel,messaging,libzmq,msgpack_c,compiler,flags\n");
  fprintf(file, "\"%s\",%d,\"%s\",%s,%s,%s,\"%s\",\"%s\"\n", f.cpu, machine_cores(), f.os.release, MESSAGING_VERSION_STRING, f.zmq,
          msgpack_version(), compiler(), BENCH_FLAGS);
}
