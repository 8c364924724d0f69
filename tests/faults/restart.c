/* A worker is restarted a thousand times, and nothing grows. */
#include "faults.h"

enum { AT_ONCE = 10, WARM_UP = 200, SLACK_KB = 2048 };

typedef struct {
  size_t fds, threads, files, memory_kb;
} size_of_things;

static size_of_things measure(const world *w) {
  char path[MESSAGING_ADDRESS_SIZE];
  (void)snprintf(path, sizeof path, "%s", socket_path(w->addresses.pub));
  *strrchr(path, '/') = 0;
  return (size_of_things){count_fds(), count_threads(), count_entries(path), process_field(getpid(), "RssAnon")};
}

/* Joins, sends one fact whose id is its number among the lives, and leaves or is killed. */
static void live_once(world *w, const puppet *self, bool leaves) {
  bus_ctx *ctx;
  close_others(w->workers, w->count, -1);
  messaging_status status = bus_init_worker(&ctx, self->kind, w->addresses.pub, w->addresses.pull, &patient);
  if (status == MESSAGING_OK) status = bus_run_worker(ctx, NULL, NULL);
  if (status == MESSAGING_OK) status = send_fact(ctx, 1, PLAIN, 20);
  if (status == MESSAGING_OK && leaves) _exit((int)bus_exit(&ctx));
  if (status == MESSAGING_OK) status = bus_flush(ctx, deadline_ms());
  if (status == MESSAGING_OK) (void)kill(getpid(), SIGKILL);
  _exit(100 + (int)status);
}

static pid_t start_a_life(world *w, uint32_t number) {
  puppet self = {.kind = 1 + number % 3};
  (void)fflush(NULL);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    live_once(w, &self, number % 2 == 0);
  }
  assert_ok(bus_add_child_process(w->im, (messaging_child){pid, self.kind}));
  return pid;
}

static void end_a_life(world *w, pid_t pid) {
  int status = -1;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  if (WIFSIGNALED(status)) assert_int_equal(WTERMSIG(status), SIGKILL);
  else if (WEXITSTATUS(status) != 0) fail_msg("a worker ended with %d", WEXITSTATUS(status));
  assert_ok(receive(w->im, w->log));
}

/* The same number of relays from each life, no matter how it ended, and nothing twice. */
static void check_lives(const world *w, uint32_t lives) {
  assert_int_equal(atomic_load(&w->log->relays), lives);
  for (size_t i = 0; i < lives; i++) assert_int_equal(w->log->record[i].number, i + 1);
  assert_int_equal(atomic_load(&w->log->broken), 0);
}

static void workers_restarted(void **state) {
  world *w = *state;
  uint32_t lives = (uint32_t)the_row->argument, warm_up = lives < 2 * WARM_UP ? lives / 2 : WARM_UP;
  size_of_things before = {0}, after;
  pid_t pids[AT_ONCE];
  injected("%u workers fork, join, send one, leave or are killed", lives);
  if (SANITIZED) {
    skip_row("sanitizers do not bear a fork while threads run");
    return;
  }
  start(w, 1, &patient, &patient);
  for (uint32_t done = 0; done < lives;) {
    for (uint32_t i = 0; i < AT_ONCE; i++) pids[i] = start_a_life(w, done + i);
    for (uint32_t i = 0; i < AT_ONCE; i++) end_a_life(w, pids[i]);
    done += AT_ONCE;
    bool warm = before.fds == 0 && done >= warm_up;
    if (!warm && done < lives) continue;
    WAIT_FOR(im_stats(w).workers_joined == 1);
    if (warm) before = measure(w);
  }
  assert_ok(im_talk(w, TALK(.relays = lives)).status);
  check_lives(w, lives);
  assert_ok(order(&w->workers[0], TALK(.relays = lives)).status);
  check_one_order(w, 1, lives);
  WAIT_FOR(count_fds() <= before.fds);
  WAIT_FOR(count_threads() <= before.threads);
  after = measure(w);
  happened("%u relays once each; %d descriptors, %d threads, %d files, %+d kB", lives, (int)after.fds, (int)after.threads, (int)after.files,
           (int)after.memory_kb - (int)before.memory_kb);
  assert_int_equal(after.files, before.files);
  assert_true(after.memory_kb <= before.memory_kb + SLACK_KB);
  assert_int_equal(im_stats(w).workers_listed, 1);
  finish(w);
}

#define BOUND "all relays once; no descriptor, thread, file more; at most 2 MB"

static const row restart_rows[] = {
    ROW(workers_restarted, .must = BOUND, .argument = 40, .quick = true),
    ROW(workers_restarted, .must = BOUND, .argument = 1000),
};

GROUP(restart_group, "2. Restarts", restart_rows);
