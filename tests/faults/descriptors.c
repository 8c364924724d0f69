/* Few descriptors. libzmq aborts where they run out, so the library refuses before; each limit is tried in a child of its own. */
#include "faults.h"

enum { LIMIT_FROM = 3, WORKERS_FEW = 10, WORKERS_MANY = 100 };

static void limit_descriptors(rlim_t soft, rlim_t hard) {
  struct rlimit limit = {soft, hard};
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) _exit(125);
}

/* What one process does under a limit; its exit status is the messaging status. */
typedef messaging_status attempt(void);

static messaging_status attempt_im(void) {
  bus_ctx *im = NULL;
  messaging_addresses addresses;
  messaging_status status = bus_init_im(&im, &addresses, NULL);
  if (status != MESSAGING_OK) return im ? MESSAGING_EINVAL : status;
  status = bus_run_im(im, NULL, 0, NULL, NULL);
  if (status == MESSAGING_OK) status = send_fact(im, 1, PLAIN, 10);
  messaging_status left = bus_exit(&im);
  return status ? status : left;
}

/* Nobody is at the address, so libzmq goes on trying to connect, which needs descriptors, too. */
static messaging_status attempt_worker(void) {
  bus_ctx *worker = NULL;
  messaging_status status = bus_init_worker(&worker, 1, "ipc:///tmp/nobody-here/pub", "ipc:///tmp/nobody-here/pull", NULL);
  if (status != MESSAGING_OK) return worker ? MESSAGING_EINVAL : status;
  status = bus_run_worker(worker, NULL, NULL);
  if (status == MESSAGING_OK && bus_wait(worker, 60) != MESSAGING_ETIMEDOUT) status = MESSAGING_EINVAL;
  ignore(bus_exit(&worker));
  return status;
}

static messaging_status in_a_child(attempt *try, rlim_t soft, rlim_t hard) {
  int status = -1;
  (void)fflush(NULL);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    (void)alarm((unsigned)deadline_ms() / 1000);
    (void)signal(SIGALRM, SIG_DFL);
    limit_descriptors(soft, hard);
    _exit((int)try());
  }
  assert_int_equal(waitpid(pid, &status, 0), pid);
  if (!WIFEXITED(status)) fail_msg("with %d descriptors it ends by signal %d", (int)hard, WTERMSIG(status));
  return (messaging_status)WEXITSTATUS(status);
}

/* From some limit on it works, below it is refused, and never anything else. */
static void tiny_limits(const char *what, attempt *try, rlim_t needed) {
  rlim_t works_from = 0, limit_to = needed + (rlim_t)count_fds();
  injected("%s with %d to %d descriptors", what, LIMIT_FROM, (int)limit_to);
  for (rlim_t limit = LIMIT_FROM; limit <= limit_to; limit++) {
    messaging_status status = in_a_child(try, limit, limit);
    if (status != MESSAGING_OK && status != MESSAGING_ESYS) fail_msg("with %d descriptors: %s", (int)limit, status_name(status));
    if (status == MESSAGING_OK && works_from == 0) works_from = limit;
    if (status != MESSAGING_OK && works_from != 0) fail_msg("%d descriptors are enough, %d are not", (int)works_from, (int)limit);
  }
  assert_true(works_from > LIMIT_FROM);
  happened("3 to %d: ESYS; %d to %d: OK", (int)works_from - 1, (int)works_from, (int)limit_to);
}

static void tiny_limits_im(void **state) {
  (void)state;
  tiny_limits("init_im, run_im, send, exit", attempt_im, 90);
}

static void tiny_limits_worker(void **state) {
  (void)state;
  tiny_limits("init_worker, run_worker, exit", attempt_worker, 40);
}

static void soft_limit_is_raised(void **state) {
  (void)state;
  assert_status(MESSAGING_ESYS, in_a_child(attempt_im, 20, 20));
  assert_ok(in_a_child(attempt_im, 20, 200));
  assert_ok(in_a_child(attempt_worker, 20, 200));
  happened("refused with 20 and 20, works with 20 and 200");
}

/* ---- More workers than fit ------------------------------------------------------------------------------------------------ */

static bool says_how_many(const logbook *log, size_t reports) {
  char number[20];
  const report *r = find_report(log, MESSAGING_ESYS, 0);
  (void)snprintf(number, sizeof number, "%d workers", WORKERS_MANY);
  return atomic_load(&log->reports) == reports && r && strstr(r->detail, number);
}

static void children_of(messaging_child *children, size_t count) {
  for (size_t i = 0; i < count; i++) children[i] = (messaging_child){-1 - (pid_t)i, 1};
}

static messaging_status refuse_many(logbook *log) {
  bus_ctx *im;
  messaging_addresses addresses;
  messaging_child many[WORKERS_MANY];
  messaging_stats stats;
  children_of(many, WORKERS_MANY);
  if (bus_init_im(&im, &addresses, NULL) != MESSAGING_OK) return MESSAGING_EBIND;
  if (bus_run_im(im, many, WORKERS_MANY, write_report, log) != MESSAGING_ESYS || !says_how_many(log, 1)) return MESSAGING_EINVAL;
  if (bus_run_im(im, many, WORKERS_FEW, write_report, log) != MESSAGING_OK) return MESSAGING_ENOTRUNNING;
  if (bus_update_child_processes_list(im, many, WORKERS_MANY) != MESSAGING_ESYS) return MESSAGING_EFULL;
  if (bus_stats(im, &stats) != MESSAGING_OK || stats.workers_listed != WORKERS_FEW || stats.generation != 1) return MESSAGING_EHISTORY;
  for (int64_t until = now_ms() + deadline_ms(); !says_how_many(log, 2); pause_ms(1))
    if (now_ms() > until) return MESSAGING_ETIMEDOUT;
  return bus_exit(&im);
}

static logbook *shared_log;

static messaging_status attempt_many(void) { return refuse_many(shared_log); }

static void more_workers_than_fit(void **state) {
  world *w = *state;
  shared_log = w->log;
  messaging_status status = in_a_child(attempt_many, 180, 180);
  happened("\"%s\"; then %d run", atomic_load(&w->log->reports) ? w->log->report[0].detail : "nothing", WORKERS_FEW);
  assert_ok(status);
}

static const row descriptors_rows[] = {
    ROW(tiny_limits_im, .must = "ESYS or OK, never a signal", .quick = true),
    ROW(tiny_limits_worker, .must = "ESYS or OK, never a signal"),
    ROW(soft_limit_is_raised, .injected = "soft limit 20, hard limit 200", .must = "the soft one is raised: OK"),
    ROW(more_workers_than_fit, .injected = "run_im and update with 100 workers and 180 descriptors",
        .must = "ESYS, says how many; nothing changed, 10 run", .quick = true),
};

GROUP(descriptors_group, "7. Few descriptors", descriptors_rows);
