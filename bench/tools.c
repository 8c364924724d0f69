#define _GNU_SOURCE
#include "tools.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int64_t now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

void sleep_until_ns(int64_t at_ns) {
  struct timespec ts = {.tv_sec = (time_t)(at_ns / NS_PER_S), .tv_nsec = (long)(at_ns % NS_PER_S)};
  while (at_ns > 0 && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR) {
  }
}

static void (*failure_clean_up)(void);
static pid_t failure_owner;

void on_failure(void (*clean_up)(void)) {
  failure_clean_up = clean_up;
  failure_owner = getpid();
}

_Noreturn void fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fputs("bench: ", stderr);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  if (failure_clean_up && failure_owner == getpid()) failure_clean_up();
  _exit(2);
}

void *shared_make(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) fail("cannot map %zu bytes: %s", bytes, strerror(errno));
  return memory;
}

void shared_release(void *memory, size_t bytes) { munmap(memory, bytes); }

void *checked_calloc(size_t count, size_t bytes) {
  void *memory = calloc(count > 0 ? count : 1, bytes);
  if (!memory) fail("out of memory (%zu times %zu bytes)", count, bytes);
  return memory;
}

pid_t fork_limited(unsigned limit_s, bool outlives_parent) {
  pid_t parent = getpid();
  fflush(NULL);
  pid_t child = fork();
  if (child < 0) fail("fork: %s", strerror(errno));
  if (child > 0) return child;
  alarm(limit_s);
  if (outlives_parent) return 0;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(3); /* it died before prctl */
  return 0;
}

bool reap_until(pid_t child, int64_t deadline_ns, int64_t *lag_ns) {
  int status = 0;
  for (;;) {
    pid_t got = waitpid(child, &status, WNOHANG);
    if (got == child) return WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (got < 0 && errno != EINTR) return false;
    if (now_ns() > deadline_ns) break;
    int64_t until_ns = now_ns() + NS_PER_MS;
    sleep_until_ns(until_ns);
    int64_t overslept_ns = now_ns() - until_ns;
    if (lag_ns && overslept_ns > *lag_ns) *lag_ns = overslept_ns;
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return false;
}

bool take_until(sem_t *semaphore, int64_t deadline_ns) {
  struct timespec ts = {.tv_sec = (time_t)(deadline_ns / NS_PER_S), .tv_nsec = (long)(deadline_ns % NS_PER_S)};
  for (;;) {
    if (sem_clockwait(semaphore, CLOCK_MONOTONIC, &ts) == 0) return true;
    if (errno != EINTR) return false;
  }
}

static int compare_ns(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

void sort_ns(int64_t *values, size_t count) {
  if (count > 0) qsort(values, count, sizeof *values, compare_ns);
}

int64_t quantile_ns(const int64_t *sorted, size_t count, double q) {
  if (count == 0) return 0;
  size_t rank = (size_t)(q * (double)count);
  return sorted[rank < count ? rank : count - 1];
}

static int compare_double(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double median(double *values, size_t count) {
  if (count == 0) return 0;
  qsort(values, count, sizeof *values, compare_double);
  return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

void *grow(void *memory, size_t count, size_t *capacity, size_t item_bytes, size_t count_max) {
  if (count < *capacity) return memory;
  size_t wanted = *capacity > 0 ? 2 * *capacity : 256;
  if (wanted > count_max) wanted = count_max;
  if (count >= wanted) fail("more than %zu items", count_max);
  memory = realloc(memory, wanted * item_bytes);
  if (!memory) fail("out of memory (%zu times %zu bytes)", wanted, item_bytes);
  *capacity = wanted;
  return memory;
}
