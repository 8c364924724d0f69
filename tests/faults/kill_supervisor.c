/* kill -9 of the supervisor at every numbered point: between its calls, and at each of its frames. It forks its workers itself (under
 * sanitizers, which do not bear that, they are its siblings); this process inherits them when it dies. */
#include "faults.h"

enum { WORKERS = 3, EACH = 40, OWN = 40, TOTAL = WORKERS * EACH + OWN };

enum point {
  AFTER_INIT_IM = 1,
  AFTER_FIRST_FORK,
  AFTER_FORKS,
  AFTER_RUN_IM,
  AFTER_FIRST_SEND,
  AFTER_FIRST_JOIN,
  AFTER_ALL_JOINED,
  AFTER_RECEIVING,
  AFTER_FLUSH,
  AFTER_TERMINATE,
  AFTER_EXIT
};

static const char *const point_names[] = {
    [AFTER_INIT_IM] = "after init_im",
    [AFTER_FIRST_FORK] = "after the first fork",
    [AFTER_FORKS] = "after all forks",
    [AFTER_RUN_IM] = "after run_im",
    [AFTER_FIRST_SEND] = "after its first send",
    [AFTER_FIRST_JOIN] = "after the first worker joined",
    [AFTER_ALL_JOINED] = "after all joined",
    [AFTER_RECEIVING] = "after receiving everything",
    [AFTER_FLUSH] = "after flush",
    [AFTER_TERMINATE] = "after send_term_message",
    [AFTER_EXIT] = "after exit",
};

typedef struct {
  messaging_status made, ran, end, send, exit; /* end: what ended its wait for the end */
  uint32_t accepted;
  bool terminated;
} outcome;

typedef struct {
  messaging_addresses addresses;
  atomic_bool open;
  pid_t pids[WORKERS];
  outcome outcomes[WORKERS];
  atomic_bool leaving;     /* it is in exit, where its goodbye may come before its death */
  messaging_status status; /* its status, if it gets that far */
} stage;

static stage *the_stage;
static size_t die_at_point, die_at_frame, frames;

static void die(void) {
  atomic_store(&the_story->reached, true);
  (void)kill(getpid(), SIGKILL);
  for (;;) (void)pause();
}

static void at(enum point point) {
  if (die_at_point == point) die();
}

static void count_frame(const char *line, void *user) {
  (void)user;
  char direction[16] = "", type[16] = "";
  if (++frames != die_at_frame) return;
  (void)sscanf(line, "%*s %*s %*s %15s %15s", direction, type);
  injected("supervisor, kill -9 at frame %d%s: %s %s", (int)frames, atomic_load(&the_stage->leaving) ? ", in exit" : "", direction, type);
  die();
}

/* A worker that sends and then waits for the end, whatever it will be. */
static void be_an_orphan(outcome *o, messaging_kind kind, logbook *log) {
  bus_ctx *ctx = NULL;
  o->made = bus_init_worker(&ctx, kind, the_stage->addresses.pub, the_stage->addresses.pull, NULL);
  if (o->made != MESSAGING_OK) return;
  o->ran = bus_run_worker(ctx, write_report, log);
  while (o->accepted < EACH && send_fact(ctx, o->accepted + 1, PLAIN, 30) == MESSAGING_OK) o->accepted++;
  o->end = MESSAGING_OK;
  for (int64_t until = now_ms() + deadline_ms(), left; o->end == MESSAGING_OK;) {
    left = until - now_ms();
    o->end = left > 0 ? bus_wait(ctx, (int)left) : MESSAGING_ETIMEDOUT;
    if (o->end == MESSAGING_OK) o->end = receive(ctx, log);
  }
  o->terminated = bus_check_termination(ctx);
  o->send = send_fact(ctx, EACH + 1, PLAIN, 30);
  o->exit = bus_exit(&ctx);
}

static int orphan(const puppet *self, const command *cue) {
  (void)cue;
  be_an_orphan(&the_stage->outcomes[self->kind - 1], self->kind, self->log);
  return leaked();
}

static void fork_orphan(size_t i, logbook *log) {
  (void)fflush(NULL);
  pid_t pid = fork();
  if (pid != 0) {
    the_stage->pids[i] = pid;
    return;
  }
  be_an_orphan(&the_stage->outcomes[i], (messaging_kind)(i + 1), log);
  _exit(0);
}

static messaging_status wait_for_workers(bus_ctx *im, uint32_t workers) {
  messaging_stats stats = {0};
  for (int64_t until = now_ms() + deadline_ms(); now_ms() < until; pause_ms(1)) {
    messaging_status status = bus_stats(im, &stats);
    if (status != MESSAGING_OK || stats.workers_joined >= workers) return status;
  }
  return MESSAGING_ETIMEDOUT;
}

static messaging_status supervise(bus_ctx *im, logbook *log) {
  messaging_child children[WORKERS];
  for (size_t i = 0; i < WORKERS; i++) children[i] = (messaging_child){the_stage->pids[i], (messaging_kind)(i + 1)};
  messaging_status status = bus_run_im(im, children, WORKERS, write_report, log);
  at(AFTER_RUN_IM);
  for (uint32_t i = 1; i <= OWN && status == MESSAGING_OK; i++) {
    status = send_fact(im, i, PLAIN, 50);
    if (i == 1) at(AFTER_FIRST_SEND);
  }
  if (status == MESSAGING_OK) status = wait_for_workers(im, 1);
  at(AFTER_FIRST_JOIN);
  if (status == MESSAGING_OK) status = wait_for_workers(im, WORKERS);
  at(AFTER_ALL_JOINED);
  talk t = {.relays = WORKERS * EACH};
  if (status == MESSAGING_OK) status = talk_run(im, log, &t).status;
  at(AFTER_RECEIVING);
  if (status == MESSAGING_OK) status = bus_flush(im, deadline_ms());
  at(AFTER_FLUSH);
  if (status == MESSAGING_OK) status = bus_send_term_message(im);
  at(AFTER_TERMINATE);
  return status;
}

static world *the_row_world;

static int supervisor(const puppet *self, const command *cue) {
  (void)cue;
  bus_ctx *im;
  messaging_options options = {.trace = count_frame, .exit_timeout_ms = patient.exit_timeout_ms};
  messaging_status status = bus_init_im(&im, &the_stage->addresses, &options);
  if (status != MESSAGING_OK) return 1;
  atomic_store(&the_stage->open, true);
  at(AFTER_INIT_IM);
  for (size_t i = 0; i < WORKERS && !SANITIZED; i++) {
    fork_orphan(i, the_row_world->workers[i].log);
    if (i == 0) at(AFTER_FIRST_FORK);
  }
  at(AFTER_FORKS);
  status = supervise(im, self->log);
  atomic_store(&the_stage->leaving, true);
  messaging_status left = bus_exit(&im);
  the_stage->status = status ? status : left;
  at(AFTER_EXIT);
  return leaked();
}

/* All logs agree, and none has a gap but for what its owner sent. */
static void check_alike(world *w) {
  record reference[TOTAL + 1];
  memset(reference, 0, sizeof reference);
  for (size_t i = 0; i <= WORKERS; i++) note_all(reference, TOTAL, false, w->workers[i].log);
  for (size_t i = 0; i < WORKERS; i++) {
    const logbook *log = w->workers[i].log;
    size_t own = 0, next = 1;
    for (size_t k = 0; k < log->count; k++) {
      if (log->record[k].type != MESSAGING_RELAY_MESSAGE) continue;
      for (; next < log->record[k].number; next++) {
        if (reference[next].number && reference[next].pid != w->workers[i].id) fail_msg("worker %d lacks number %d", (int)i, (int)next);
        own++;
      }
      next = log->record[k].number + 1;
    }
    if (own > the_stage->outcomes[i].accepted) fail_msg("worker %d lacks %d numbers", (int)i, (int)own);
  }
}

static void check_orphan(const outcome *o, bool killed) {
  assert_ok(o->made);
  assert_ok(o->ran);
  if (o->end == MESSAGING_ETIMEDOUT) fail_msg("a worker waits for ever");
  assert_true(o->terminated);
  assert_status(o->end, o->send);
  if (killed && !(atomic_load(&the_stage->leaving) && o->end == MESSAGING_ENOTRUNNING)) assert_status(MESSAGING_ELOST, o->end);
  assert_true(o->exit == MESSAGING_ELOST || o->exit == MESSAGING_OK);
}

static void tell_what_happened(const world *w, bool killed) {
  size_t least = SIZE_MAX, most = 0;
  for (size_t i = 0; i < WORKERS; i++) {
    size_t relays = atomic_load(&w->workers[i].log->relays);
    if (relays < least) least = relays;
    if (relays > most) most = relays;
  }
  const char *then = !killed ? "a goodbye" : atomic_load(&the_stage->leaving) ? "then ELOST or a goodbye" : "then ELOST";
  happened("%d of %d saw termination, %s; they have %d to %d relays, alike", WORKERS, WORKERS, then, (int)least, (int)most);
}

static void play_a_killed_supervisor(world *w) {
  (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
  the_row_world = w;
  the_stage = mmap(NULL, sizeof *the_stage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(the_stage != MAP_FAILED);
  for (messaging_kind i = 0; i < WORKERS; i++) {
    if (SANITIZED) the_stage->pids[i] = cast(w, i + 1, orphan)->pid;
    else (void)add_puppet(w, i + 1, make_puppet());
  }
  puppet *im = cast(w, 9, supervisor);
  give_cue(w, im);
  WAIT_FOR(atomic_load(&the_stage->open));
  for (size_t i = 0; i < WORKERS && SANITIZED; i++) give_cue(w, &w->workers[i]);
  int status = bury(im);
  bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  if (!killed) assert_int_equal(status, 0);
  for (size_t i = 0; i < WORKERS; i++) {
    puppet *p = &w->workers[i];
    if (the_stage->pids[i] == 0) fork_orphan(i, p->log); /* one that comes when its supervisor is dead already */
    p->pid = p->id = the_stage->pids[i];
    assert_int_equal(bury(p), 0);
    if (!SANITIZED) (void)close(p->puppet_fd);
    p->puppet_fd = -1;
  }
  bool polite = !killed || die_at_point == AFTER_EXIT;
  for (size_t i = 0; i < WORKERS; i++) check_orphan(&the_stage->outcomes[i], !polite);
  check_alike(w);
  if (polite) assert_ok(the_stage->status);
  if (!killed) injected("supervisor, no such frame: it is not killed");
  if (!killed) must("nothing: its exit is OK, its goodbye is termination");
  tell_what_happened(w, !polite);
  (void)munmap(the_stage, sizeof *the_stage);
}

static void supervisor_killed_at_point(void **state) {
  die_at_point = the_story->argument;
  injected("supervisor, kill -9 %s", point_names[die_at_point]);
  if (SANITIZED && die_at_point == AFTER_FIRST_FORK) {
    skip_row("sanitizers do not bear a fork while threads run");
    return;
  }
  play_a_killed_supervisor(*state);
  assert_true(atomic_load(&the_story->reached));
}

static void supervisor_killed_at_frame(void **state) {
  die_at_frame = the_story->argument;
  play_a_killed_supervisor(*state);
}

/* ---- A fork that still holds its sockets ---------------------------------------------------------------------------------- */

/* Dies at once, but for a child that was forked before and has called nothing yet. */
static int supervisor_with_a_heavy_sleeper(const puppet *self, const command *cue) {
  bus_ctx *im;
  (void)self;
  (void)cue;
  if (bus_init_im(&im, &the_stage->addresses, NULL) != MESSAGING_OK) return 1;
  pid_t pid = fork();
  while (pid == 0) (void)pause();
  the_stage->pids[0] = pid;
  die();
  return 0;
}

/* The address answers, since the sleeper has inherited the listening socket; the supervisor is dead all the same. */
static void supervisor_killed_while_a_fork_sleeps(void **state) {
  world *w = *state;
  if (SANITIZED) {
    skip_row("sanitizers do not bear a fork while threads run");
    return;
  }
  (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
  the_stage = mmap(NULL, sizeof *the_stage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(the_stage != MAP_FAILED);
  puppet *im = cast(w, 9, supervisor_with_a_heavy_sleeper), *late = cast(w, 1, orphan);
  give_cue(w, im);
  assert_true(WIFSIGNALED(bury(im)));
  give_cue(w, late);
  int status = bury(late);
  (void)kill(the_stage->pids[0], SIGKILL);
  assert_int_equal(waitpid(the_stage->pids[0], NULL, 0), the_stage->pids[0]);
  assert_int_equal(status, 0);
  check_orphan(&the_stage->outcomes[0], true);
  happened("termination, then ELOST");
  (void)munmap(the_stage, sizeof *the_stage);
}

#define SEEN "every worker sees termination, then ELOST; they agree"
#define POINT(n, is_quick) ROW(supervisor_killed_at_point, .must = SEEN, .argument = n, .quick = is_quick)

static const row kill_supervisor_rows[] = {
    POINT(AFTER_INIT_IM, true),    POINT(AFTER_FIRST_FORK, false), POINT(AFTER_FORKS, true),      POINT(AFTER_RUN_IM, true),
    POINT(AFTER_FIRST_SEND, false), POINT(AFTER_FIRST_JOIN, true),  POINT(AFTER_ALL_JOINED, false), POINT(AFTER_RECEIVING, false),
    POINT(AFTER_FLUSH, false),     POINT(AFTER_TERMINATE, true),
    ROW(supervisor_killed_at_point, .must = "every worker sees termination: it had left", .argument = AFTER_EXIT),
    ROW(supervisor_killed_while_a_fork_sleeps, .injected = "supervisor, kill -9 while a fork of it holds its sockets",
        .must = "a worker that comes then sees termination, then ELOST"),
    ROW(supervisor_killed_at_frame, .must = SEEN, .numbered_to = 40),
};

GROUP(kill_supervisor_group, "1b. The supervisor is killed at every point", kill_supervisor_rows);
