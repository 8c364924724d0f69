/* libzmq's thread goes before the application's on a processor that both want, or last where there is one only; the application's own threads stay as
 * they are. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_bool no_more_threads;

static int create_thread(pthread_t *thread, const pthread_attr_t *attributes, void *run(void *), void *argument) {
  return atomic_load(&no_more_threads) ? EAGAIN : pthread_create(thread, attributes, run, argument);
}
#define pthread_create create_thread
#include "harness.h"
#undef pthread_create

/* Of a thread, 0 for the one that calls; all 0 where there is no such thread. */
static messaging__sched_attr attributes_of(pid_t thread) {
  messaging__sched_attr attr;
  memset(&attr, 0, sizeof attr);
  if (syscall(SYS_sched_getattr, thread, &attr, sizeof attr, 0) != 0) memset(&attr, 0, sizeof attr);
  return attr;
}

static uint64_t slice_of(pid_t thread) { return attributes_of(thread).runtime_ns; }

/* Of this process's threads, those that libzmq named its I/O threads (each does so for itself, some time after init); returns how many, of at most max. */
static size_t find_io_threads(pid_t *found, size_t max) {
  size_t count = 0;
  DIR *tasks = opendir("/proc/self/task");
  assert_non_null(tasks);
  for (struct dirent *e; (e = readdir(tasks)) && count < max;) {
    char path[300], name[32] = "";
    (void)snprintf(path, sizeof path, "/proc/self/task/%s/comm", e->d_name);
    FILE *comm = fopen(path, "r");
    if (!comm) continue;
    if (fgets(name, sizeof name, comm) && strstr(name, "/IO/")) found[count++] = (pid_t)atoi(e->d_name);
    (void)fclose(comm);
  }
  (void)closedir(tasks);
  return count;
}

static void *set_slice(void *done) {
  messaging__sched_attr attr = attributes_of(0);
  attr.runtime_ns /= 2;
  *(bool *)done = attr.runtime_ns && syscall(SYS_sched_setattr, 0, &attr, 0) == 0 && slice_of(0) == attr.runtime_ns;
  return NULL;
}

/* Whether this kernel has slices (from Linux 6.12 on), and lets us have another one. */
static bool can_set_slice(void) {
  bool done = false;
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, set_slice, &done), 0);
  assert_int_equal(pthread_join(thread, NULL), 0);
  return done;
}

static void test_goes_first(void **state) {
  (void)state;
  cpu_set_t all;
  pid_t found[4];
  bus_ctx *im, *worker;
  messaging_addresses addresses;
  messaging_options options = {.id = -1};
  assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
  if (!can_set_slice() || CPU_COUNT(&all) < 2) skip();
  messaging__sched_attr before = attributes_of(0);
  assert_ok(bus_init_im(&im, &addresses, NULL));
  assert_ok(bus_init_worker(&worker, 1, addresses.pub, addresses.pull, &options));
  messaging__sched_attr after = attributes_of(0);
  assert_memory_equal(&after, &before, sizeof after);
  WAIT_FOR(find_io_threads(found, sizeof found / sizeof found[0]) == 2);
  for (size_t i = 0; i < 2; i++) {
    messaging__sched_attr attr = attributes_of(found[i]);
    assert_true(attr.runtime_ns > 0 && attr.runtime_ns < before.runtime_ns);
    attr.runtime_ns = before.runtime_ns;
    assert_memory_equal(&attr, &before, sizeof attr); /* nothing but the slice is different */
  }
  pid_t child = fork();
  if (child == 0) {
    inherits_memory();
    _exit(slice_of(0) == before.runtime_ns ? 0 : 1);
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  assert_ok(bus_exit(&worker));
  assert_ok(bus_exit(&im));
}

/* Where there is one processor only, whoever sends makes libzmq's thread wait. */
static void test_one_processor(void **state) {
  (void)state;
  cpu_set_t all, one;
  pid_t found[4];
  bus_ctx *im;
  messaging_addresses addresses;
  if (!can_set_slice()) skip();
  assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
  CPU_ZERO(&one);
  for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
  assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
  assert_ok(bus_init_im(&im, &addresses, NULL));
  assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
  WAIT_FOR(find_io_threads(found, sizeof found / sizeof found[0]) == 1);
  messaging__sched_attr before = attributes_of(0), attr = attributes_of(found[0]);
  assert_true(attr.runtime_ns > before.runtime_ns && attr.runtime_ns < 2 * before.runtime_ns);
  attr.runtime_ns = before.runtime_ns;
  assert_memory_equal(&attr, &before, sizeof attr);
  assert_ok(bus_exit(&im));
}

/* Where no thread can be started, init says so, before libzmq comes upon it, which would end the process. */
static void test_no_more_threads(void **state) {
  (void)state;
  bus_ctx *im, *again, *worker;
  messaging_addresses addresses, none;
  messaging_options options = {.id = -1};
  assert_ok(bus_init_im(&im, &addresses, NULL));
  atomic_store(&no_more_threads, true);
  messaging_status supervisors = bus_init_im(&again, &none, NULL);
  messaging_status workers = bus_init_worker(&worker, 1, addresses.pub, addresses.pull, &options);
  atomic_store(&no_more_threads, false);
  assert_status(MESSAGING_ESYS, supervisors);
  assert_status(MESSAGING_ESYS, workers);
  assert_null(again);
  assert_null(worker);
  assert_ok(bus_exit(&im));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_goes_first),
      cmocka_unit_test(test_one_processor),
      cmocka_unit_test(test_no_more_threads),
  };
  return RUN_TESTS(test_scheduling, tests);
}
