/* Death is noticed on both sides, an orderly end is not taken for it, and a killed sender leaves the same prefix everywhere. */
#define _GNU_SOURCE
#include <sched.h>

#include "harness.h"

static void test_killed_worker_is_reported(void **state) {
  world *w = *state;
  needs_pidfd();
  start(w, 3, NULL, NULL);
  puppet *victim = &w->workers[1];
  wait_joined(w, 3);
  kill_worker(victim);
  WAIT_FOR(find_report(w->log, MESSAGING_ELOST, victim->id));
  assert_int_equal(find_report(w->log, MESSAGING_ELOST, victim->id)->kind, victim->kind);
  assert_int_equal(w->log->reports, 1);
  assert_int_equal(im_stats(w).workers_listed, 2);
  assert_int_equal(im_stats(w).workers_joined, 2);
  assert_ok(order(&w->workers[0], TALK(.first = 1, .count = 10)).status); /* the others go on */
  assert_ok(order(&w->workers[2], TALK(.relays = 10)).status);
  assert_ok(im_talk(w, TALK(.relays = 10)).status);
  assert_status(MESSAGING_EKIND, bus_send_term_message_to(w->im, victim->id)); /* it has left the list */
  finish(w);
}

/* Also when it dies before it was ever heard of. */
static void test_worker_that_dies_before_it_joins(void **state) {
  world *w = *state;
  needs_pidfd();
  open_im(w, NULL);
  puppet *victim = hire(w);
  run_im(w, 0, 1);
  kill_worker(victim);
  WAIT_FOR(find_report(w->log, MESSAGING_ELOST, victim->id));
  finish(w);
}

/* A worker that exits is not lost. The death of another, later, shows that the report would have come. */
static void test_worker_that_exits_is_not_reported(void **state) {
  world *w = *state;
  needs_pidfd();
  start(w, 2, NULL, NULL);
  puppet *leaver = &w->workers[0], *victim = &w->workers[1];
  assert_ok(order(leaver, TALK(.first = 1, .count = 100, .size = 50)).status);
  assert_ok(order(leaver, COMMAND(DO_EXIT)).status);
  dismiss(leaver);
  assert_ok(im_talk(w, TALK(.relays = 100)).status);
  assert_ok(order(victim, TALK(.relays = 100)).status);
  kill_worker(victim);
  WAIT_FOR(find_report(w->log, MESSAGING_ELOST, victim->id));
  assert_null(find_report(w->log, MESSAGING_ELOST, leaver->id));
  finish(w);
}

/* A pid on the list that is dead already, buried or not, is reported, and the update succeeds. */
static void test_listed_pid_is_dead_already(void **state) {
  world *w = *state;
  needs_pidfd();
  start(w, 1, NULL, NULL);
  pid_t dead[2];
  for (size_t i = 0; i < 2; i++) {
    dead[i] = fork();
    if (dead[i] == 0) _exit(0);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)dead[i], &info, WEXITED | WNOWAIT), 0);
  }
  assert_int_equal(waitpid(dead[0], NULL, 0), dead[0]); /* the other stays a zombie */
  messaging_child children[] = {child_of(&w->workers[0]), {dead[0], 5}, {dead[1], 6}};
  assert_ok(bus_update_child_processes_list(w->im, children, 3));
  for (size_t i = 0; i < 2; i++) {
    WAIT_FOR(find_report(w->log, MESSAGING_ELOST, dead[i]));
    assert_int_equal(find_report(w->log, MESSAGING_ELOST, dead[i])->kind, 5 + i);
  }
  assert_int_equal(im_stats(w).workers_listed, 1);
  assert_ok(bus_add_child_process(w->im, (messaging_child){dead[1], 6}));
  WAIT_FOR(count_reports(w->log, MESSAGING_ELOST) == 3);
  assert_int_equal(waitpid(dead[1], NULL, 0), dead[1]);
  assert_ok(order(&w->workers[0], TALK(.first = 1, .count = 1)).status);
  assert_ok(im_talk(w, TALK(.relays = 1)).status);
  finish(w);
}

/* The number that the supervisor's fact with this id has, by the log of a worker that has it. */
static size_t number_of(const logbook *log, uint32_t id) {
  for (size_t i = log->count; i > 0; i--)
    if (log->record[i - 1].id == id && log->record[i - 1].pid == getpid()) return log->record[i - 1].number;
  fail_msg("fact %d was not received", (int)id);
  return 0;
}

static size_t count_from(const logbook *log, pid_t id) {
  size_t count = 0;
  for (size_t i = 0; i < log->count; i++) count += log->record[i].pid == id;
  return count;
}

/* A fact of the supervisor that comes after all that a dead worker's processed frames held (some may still be on their way). */
static size_t mark(world *w, uint32_t id, size_t workers) {
  size_t number = 0;
  assert_ok(im_talk(w, TALK(.first = id, .count = 1)).status);
  for (size_t i = 0; i < workers; i++) {
    assert_ok(order(&w->workers[i], TALK(.until_id = id)).status);
    number = number_of(w->workers[i].log, id);
  }
  return number;
}

/* Kills a sender in the middle of a burst, several times: all others have the same beginning of what it sent, without a gap. */
static void test_sender_killed_in_mid_burst(void **state) {
  world *w = *state;
  needs_pidfd();
  enum { ROUNDS = 10, BYSTANDERS = 2, MARK = 1000000 };
  start(w, BYSTANDERS, NULL, NULL);
  for (uint32_t round = 0; round < ROUNDS; round++) {
    puppet *victim = hire(w);
    assert_ok(bus_add_child_process(w->im, child_of(victim)));
    join(w, victim, NULL);
    post(victim, TALK(.first = 1, .count = 30000, .size = 30, .spread = 50));
    while (count_from(w->log, victim->id) < 1 + 300 * round) assert_ok(im_talk(w, TALK(.relays = w->log->relays + 1)).status);
    kill_worker(victim);
    WAIT_FOR(find_report(w->log, MESSAGING_ELOST, victim->id));
    size_t total = mark(w, MARK + round, BYSTANDERS);
    assert_ok(im_talk(w, TALK(.relays = total - round - 1)).status);
    check_one_order_up_to(w, BYSTANDERS, total);
    uint32_t expected = 1;
    for (size_t k = 0; k < w->log->count; k++)
      if (w->log->record[k].pid == victim->id) assert_int_equal(w->log->record[k].id, expected++);
  }
  finish(w);
}

/* Many die at once while all talk. */
static void test_half_of_the_workers_die(void **state) {
  world *w = *state;
  needs_pidfd();
  enum { WORKERS = 8, LIVE = WORKERS / 2, EACH = 2000, MARK = 1000000 };
  start(w, WORKERS, NULL, NULL);
  wait_joined(w, WORKERS);
  for (uint32_t i = 0; i < WORKERS; i++) post(&w->workers[i], TALK(.first = 1, .count = i < LIVE ? EACH : 30000, .size = 40));
  assert_ok(im_talk(w, TALK(.relays = 3000)).status);
  for (size_t i = LIVE; i < WORKERS; i++) kill_worker(&w->workers[i]);
  for (size_t i = LIVE; i < WORKERS; i++) WAIT_FOR(find_report(w->log, MESSAGING_ELOST, w->workers[i].id));
  for (size_t i = 0; i < LIVE; i++) assert_ok(await(&w->workers[i]).status);
  for (size_t i = 0; i < LIVE; i++)
    assert_ok(order(&w->workers[i], (command){.type = DO_FLUSH, .timeout_ms = deadline_ms()}).status);
  size_t total = mark(w, MARK, LIVE);
  assert_ok(im_talk(w, TALK(.relays = total - 1)).status);
  check_one_order_up_to(w, LIVE, total);
  for (size_t i = 0; i < LIVE; i++) assert_int_equal(count_from(w->log, w->workers[i].id), EACH);
  finish(w);
}

/* ---- A supervisor that dies --------------------------------------------------------------------------------------------- */

/* The workers are blocked in wait and see its death as termination; then every call gives ELOST. */
static void check_orphan(puppet *p) {
  assert_ok(order(p, TALK(.terminations = 1)).status);
  assert_true(order(p, COMMAND(DO_CHECK)).terminated);
  WAIT_FOR(order(p, TALK(.first = 1, .count = 1)).status == MESSAGING_ELOST);
  assert_status(MESSAGING_ELOST, order(p, (command){.type = DO_WAIT, .timeout_ms = -1}).status);
  assert_status(MESSAGING_ELOST, order(p, COMMAND(DO_RECEIVE)).status);
  assert_status(MESSAGING_ELOST, order(p, (command){.type = DO_FLUSH, .timeout_ms = -1}).status);
  assert_status(MESSAGING_ELOST, order(p, TALK(.first = 3, .count = 1, .only_outputs = true)).status);
  assert_status(MESSAGING_ELOST, order(p, COMMAND(DO_TERMINATE)).status);
  assert_ok(order(p, COMMAND(DO_STATS)).status);
  WAIT_FOR(find_report(p->log, MESSAGING_ELOST, ANYBODY));
}

/* What a killed supervisor leaves: its folder with two sockets. */
static void remove_folder(messaging_addresses *at) {
  assert_int_equal(unlink(at->pub + strlen("ipc://")), 0);
  assert_int_equal(unlink(at->pull + strlen("ipc://")), 0);
  *strrchr(at->pub, '/') = 0;
  assert_int_equal(rmdir(at->pub + strlen("ipc://")), 0);
}

/* Supervisor and workers are siblings. */
static void test_supervisor_is_killed(void **state) {
  world *w = *state;
  needs_pidfd();
  puppet *im = hire(w), *first = hire(w), *second = hire(w);
  reply r = order(im, COMMAND(DO_INIT_IM));
  assert_ok(r.status);
  w->addresses = r.addresses;
  command run = {.type = DO_RUN_IM};
  run.children_count = list_of(w, 1, 3, run.children);
  assert_ok(order(im, run).status);
  join(w, first, NULL);
  join(w, second, NULL);
  assert_ok(order(first, TALK(.first = 1, .count = 10)).status);
  assert_ok(order(second, TALK(.relays = 10)).status);
  post(second, (command){.type = DO_WAIT, .timeout_ms = -1});
  kill_worker(im);
  assert_int_not_equal(await(second).status, MESSAGING_ETIMEDOUT);
  check_orphan(first);
  check_orphan(second);
  assert_status(MESSAGING_ELOST, order(first, COMMAND(DO_EXIT)).status);
  assert_status(MESSAGING_ELOST, order(second, COMMAND(DO_EXIT)).status);
  remove_folder(&w->addresses);
}

/* The usual case: it forks its workers while itself and the first of them are connected already, so they inherit its descriptors. */
static void be_a_supervisor_that_forks(world *w, puppet *self, size_t workers) {
  open_im(w, NULL);
  run_im(w, 0, 0);
  for (size_t i = 0; i < workers; i++) {
    puppet *p = &w->workers[i];
    p->pid = fork();
    if (p->pid == 0) {
      become_puppet(w, p);
      (void)prctl(PR_SET_PDEATHSIG, 0); /* it is to see its parent die */
      (void)puppet_serve(p->log, p->puppet_fd);
      _exit(0);
    }
    p->id = p->pid;
    assert_ok(bus_add_child_process(w->im, child_of(p)));
    reply r = {.addresses = w->addresses, .accepted = (uint32_t)p->pid};
    if (send(self->puppet_fd, &r, sizeof r, 0) != (ssize_t)sizeof r) _exit(1);
    command go; /* once this worker is connected */
    if (recv(self->puppet_fd, &go, sizeof go, 0) != (ssize_t)sizeof go) _exit(1);
  }
  for (;;) pause();
}

static void test_supervisor_that_forked_its_workers_is_killed(void **state) {
  world *w = *state;
  needs_pidfd();
  enum { WORKERS = 3 };
  if (SANITIZED) skip(); /* it forks while threads run */
  (void)prctl(PR_SET_CHILD_SUBREAPER, 1); /* so the workers become this process's children, and are cleared away with it */
  for (size_t i = 0; i < WORKERS; i++) (void)add_puppet(w, (messaging_kind)(i + 1), make_puppet());
  puppet *im = add_puppet(w, 9, make_puppet());
  im->pid = fork();
  assert_true(im->pid >= 0);
  if (im->pid == 0) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    be_a_supervisor_that_forks(w, im, WORKERS);
  }
  for (size_t i = 0; i < WORKERS; i++) {
    puppet *p = &w->workers[i];
    reply r = await(im);
    w->addresses = r.addresses;
    p->id = p->pid = (pid_t)r.accepted;
    join(w, p, NULL);
    assert_ok(order(p, TALK(.first = 1, .count = 1, .relays = i)).status);
    if (i > 0) assert_ok(order(&w->workers[0], TALK(.relays = i)).status);
    post(im, COMMAND(DO_STATS)); /* "go" */
  }
  kill_worker(im);
  for (size_t i = 0; i < WORKERS; i++) check_orphan(&w->workers[i]);
  for (size_t i = 0; i < WORKERS; i++) assert_status(MESSAGING_ELOST, order(&w->workers[i], COMMAND(DO_EXIT)).status);
  for (size_t i = 0; i <= WORKERS; i++) (void)close(w->workers[i].puppet_fd);
  remove_folder(&w->addresses);
}

/* The goodbye of a supervisor is termination to its workers; what they had left unsaid it has no use for. */
static void test_supervisor_exits(void **state) {
  world *w = *state;
  start(w, 2, NULL, NULL);
  wait_joined(w, 2);
  assert_ok(im_talk(w, TALK(.first = 1, .count = 50, .size = 10)).status);
  assert_ok(bus_exit(&w->im));
  assert_null(w->im);
  for (size_t i = 0; i < 2; i++) {
    puppet *p = &w->workers[i];
    assert_ok(order(p, TALK(.relays = 50, .terminations = 1)).status); /* what it had sent is there */
    assert_true(order(p, COMMAND(DO_CHECK)).terminated);
    WAIT_FOR(order(p, TALK(.first = 1, .count = 1)).status != MESSAGING_OK);
    assert_int_equal(p->log->broken, 0);
    ignore(order(p, COMMAND(DO_EXIT)).status);
  }
}

/* ---- Silence ------------------------------------------------------------------------------------------------------------ */

/* Without a pidfd (the worker has an id of its own, and no pid is known to belong to it) silence is all that there is. */
static void test_silent_worker_without_a_pid(void **state) {
  world *w = *state;
  needs_pidfd();
  messaging_options quick = {.heartbeat_ms = 20, .silence_ms = 200};
  messaging_options with_id = quick;
  with_id.id = -500;
  open_im(w, &quick);
  puppet *remote = hire(w), *local = hire(w);
  assert_ok(bus_run_im(w->im, (messaging_child[]){{-500, remote->kind}, child_of(local)}, 2, write_report, w->log));
  join(w, remote, &with_id);
  join(w, local, &quick);
  wait_joined(w, 2);
  assert_int_equal(kill(local->pid, SIGSTOP), 0);
  assert_int_equal(kill(remote->pid, SIGKILL), 0);
  WAIT_FOR(find_report(w->log, MESSAGING_ELOST, -500));
  assert_null(find_report(w->log, MESSAGING_ELOST, local->id)); /* stopped, but its pid is watched */
  assert_int_equal(kill(local->pid, SIGCONT), 0);
  kill_worker(remote);
  finish(w);
}

/* ---- Two pid namespaces ------------------------------------------------------------------------------------------------- */

typedef struct {
  messaging_addresses addresses;
  atomic_int pid; /* of the last that was made, as the test sees it */
  atomic_bool bound, joined, terminated, refused;
} shared;

/* Forks a process that forks another, which is number 1 of a pid namespace of its own and does that. */
static pid_t in_a_namespace(shared *m, void act(shared *m)) {
  pid_t keeper = fork();
  assert_true(keeper >= 0);
  if (keeper > 0) return keeper;
  inherits_memory();
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the test give up */
  if (unshare(CLONE_NEWPID) != 0) {
    m->refused = true;
    _exit(0);
  }
  pid_t first = fork();
  if (first == 0) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    act(m);
    _exit(0);
  }
  m->pid = first;
  (void)waitpid(first, NULL, 0);
  _exit(0);
}

static void supervise(shared *m) {
  static const messaging_child child = {-1, 7};
  bus_ctx *im;
  if (bus_init_im(&im, &m->addresses, NULL) != MESSAGING_OK || bus_run_im(im, &child, 1, NULL, NULL) != MESSAGING_OK) _exit(1);
  while (!m->pid) pause_ms(1);
  m->bound = true;
  while (true) pause();
}

static void work(shared *m) {
  messaging_options options = {.id = -1, .heartbeat_ms = 100, .silence_ms = 500, .exit_timeout_ms = 100};
  fact message = {.id = 1, .text = "", .text_size = 0};
  bus_ctx *worker;
  if (bus_init_worker(&worker, 7, m->addresses.pub, m->addresses.pull, &options) != MESSAGING_OK) _exit(1);
  if (bus_run_worker(worker, NULL, NULL) != MESSAGING_OK || bus_send_relay_message(worker, &message) != MESSAGING_OK) _exit(1);
  m->joined = bus_flush(worker, deadline_ms()) == MESSAGING_OK;
  while (!bus_check_termination(worker)) pause_ms(1);
  m->terminated = true;
  ignore(bus_exit(&worker));
}

/* A supervisor and a worker in containers of their own that share a folder, each of them number 1: the worker does not take itself, which has the
 * number in the folder's name, for its supervisor, and notices that one's death by its silence. */
static void test_same_pid_in_another_namespace(void **state) {
  (void)state;
  shared *m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_ptr_not_equal(m, MAP_FAILED);
  pid_t supervisor = in_a_namespace(m, supervise);
  WAIT_FOR(m->bound || m->refused);
  bool refused = m->refused;
  if (!refused) {
    pid_t pid = m->pid, worker = in_a_namespace(m, work);
    WAIT_FOR(m->joined);
    assert_int_equal(kill(pid, SIGKILL), 0);
    WAIT_FOR(m->terminated);
    assert_int_equal(waitpid(worker, NULL, 0), worker);
    remove_folder(&m->addresses);
  }
  assert_int_equal(waitpid(supervisor, NULL, 0), supervisor);
  (void)munmap(m, sizeof *m);
  if (refused) skip(); /* only root may */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_PROCESSES(test_killed_worker_is_reported),
      WITH_PROCESSES(test_worker_that_dies_before_it_joins),
      WITH_PROCESSES(test_worker_that_exits_is_not_reported),
      WITH_PROCESSES(test_listed_pid_is_dead_already),
      WITH_PROCESSES(test_sender_killed_in_mid_burst),
      WITH_PROCESSES(test_half_of_the_workers_die),
      WITH_PROCESSES(test_supervisor_is_killed),
      WITH_PROCESSES(test_supervisor_that_forked_its_workers_is_killed),
      WITH_BOTH(test_supervisor_exits),
      WITH_PROCESSES(test_silent_worker_without_a_pid),
      WITH_PROCESSES(test_same_pid_in_another_namespace),
  };
  return RUN_TESTS(test_death, tests);
}
