/* kill -9 of a worker at every numbered point of joining and leaving: between the calls, at each of its frames, at each frame of its exit.
 * Frames are counted by the option `trace`, which calls the process itself back under the handle's lock. */
#include "faults.h"

enum { BYSTANDERS = 2, EACH = 200, BURST = 600 };

enum point {
  BEFORE_INIT = 1,
  AFTER_INIT,
  AFTER_RUN,
  AFTER_FIRST_SEND,
  AFTER_JOINING,
  IN_A_BURST,
  AFTER_FLUSH,
  AFTER_RECEIVING,
  AFTER_TERMINATE,
  AFTER_EXIT
};

static const char *const point_names[] = {
    [BEFORE_INIT] = "before init_worker",
    [AFTER_INIT] = "after init_worker",
    [AFTER_RUN] = "after run_worker",
    [AFTER_FIRST_SEND] = "after its first send",
    [AFTER_JOINING] = "after it joined",
    [IN_A_BURST] = "in a burst of sends",
    [AFTER_FLUSH] = "after flush",
    [AFTER_RECEIVING] = "after receiving",
    [AFTER_TERMINATE] = "after send_term_message",
    [AFTER_EXIT] = "after exit",
};

/* Where this process kills itself; 0: nowhere. */
static size_t die_at_point, die_at_frame, die_at_exit_frame;
static atomic_size_t frames;
static atomic_bool leaving;

static void die(void) {
  atomic_store(&the_story->reached, true);
  (void)kill(getpid(), SIGKILL);
  for (;;) (void)pause();
}

static void at(enum point point) {
  if (die_at_point == point) die();
}

/* A line is: time, role, id, direction, type, ... */
static void count_frame(const char *line, void *user) {
  (void)user;
  char direction[16] = "", type[16] = "";
  size_t frame = atomic_fetch_add(&frames, 1) + 1;
  bool exits = atomic_load(&leaving);
  if (frame != (exits ? die_at_exit_frame : die_at_frame)) return;
  (void)sscanf(line, "%*s %*s %*s %15s %15s", direction, type);
  injected("worker, kill -9 at frame %d%s: %s %s", (int)frame, exits ? " of its exit" : "", direction, type);
  die();
}

static messaging_status live(bus_ctx **ctx, const puppet *self, const command *cue) {
  messaging_options options = {.trace = count_frame, .exit_timeout_ms = patient.exit_timeout_ms};
  messaging_stats stats = {0};
  at(BEFORE_INIT);
  messaging_status status = bus_init_worker(ctx, self->kind, cue->addresses.pub, cue->addresses.pull, &options);
  if (status != MESSAGING_OK) return status;
  at(AFTER_INIT);
  status = bus_run_worker(*ctx, write_report, self->log);
  at(AFTER_RUN);
  if (status == MESSAGING_OK) status = send_fact(*ctx, 1, PLAIN, 30);
  at(AFTER_FIRST_SEND);
  for (int64_t until = now_ms() + deadline_ms(); stats.generation == 0 && now_ms() < until && status == MESSAGING_OK; pause_ms(1))
    status = bus_stats(*ctx, &stats);
  at(AFTER_JOINING);
  for (uint32_t i = 2; i <= BURST && status == MESSAGING_OK; i++) {
    status = send_fact(*ctx, i, PLAIN, 200);
    if (i == BURST / 2) at(IN_A_BURST);
  }
  if (status == MESSAGING_OK) status = send_output(*ctx, 1, 20);
  if (status == MESSAGING_OK) status = bus_flush(*ctx, deadline_ms());
  at(AFTER_FLUSH);
  talk t = {.relays = BYSTANDERS * EACH};
  if (status == MESSAGING_OK) status = talk_run(*ctx, self->log, &t).status;
  at(AFTER_RECEIVING);
  return status;
}

static int victim(const puppet *self, const command *cue) {
  bus_ctx *ctx = NULL;
  messaging_status status = live(&ctx, self, cue);
  if (status == MESSAGING_OK && die_at_point == AFTER_TERMINATE) {
    status = bus_send_term_message(ctx);
    at(AFTER_TERMINATE);
  }
  atomic_store(&frames, 0);
  atomic_store(&leaving, true);
  messaging_status left = leave(&ctx);
  at(AFTER_EXIT);
  tell(self, (reply){.status = status ? status : left});
  return 0;
}

static int unharmed(const puppet *self, const command *cue) {
  die_at_point = die_at_frame = die_at_exit_frame = 0;
  return victim(self, cue);
}

/* The one that comes after the killed one gets everything and leaves in order. */
static void check_successor(world *w, puppet *p) {
  assert_ok(bus_add_child_process(w->im, child_of(p)));
  give_cue(w, p);
  assert_ok(await(p).status);
  assert_int_equal(bury(p), 0);
  assert_int_equal(check_prefix(p->log, w->workers[0].id), EACH);
  assert_int_equal(check_prefix(p->log, w->workers[1].id), EACH);
  assert_ok(im_talk(w, TALK(.relays = w->log->relays)).status);
  (void)check_up_to_a_mark(w, BYSTANDERS);
  assert_int_equal(check_prefix(w->log, p->id), BURST);
}

/* Of a dead worker all have the same beginning; its death is reported, unless it had left. */
static void check_death(world *w, puppet *p) {
  bool said_goodbye = die_at_exit_frame || die_at_point == AFTER_EXIT;
  if (!said_goodbye) WAIT_FOR(find_report(w->log, MESSAGING_ELOST, p->id));
  WAIT_FOR(im_stats(w).workers_joined == BYSTANDERS);
  (void)check_up_to_a_mark(w, BYSTANDERS);
  uint32_t prefix = check_prefix(w->log, p->id);
  bool flushed = die_at_point >= AFTER_FLUSH || die_at_exit_frame;
  if (flushed) assert_int_equal(prefix, BURST);
  if (die_at_point && die_at_point < AFTER_FIRST_SEND) assert_int_equal(prefix, 0);
  if (die_at_point == AFTER_JOINING) assert_true(prefix <= 1);
  if (die_at_point == AFTER_EXIT && !atomic_load(&the_story->goodbye_unheard)) assert_null(find_report(w->log, MESSAGING_ELOST, p->id));
  bool reported = find_report(w->log, MESSAGING_ELOST, p->id) != NULL;
  happened("%s, all have its first %u of %u facts, the next one joined", reported ? "ELOST" : "taken for left", prefix, (unsigned)BURST);
  assert_int_equal(count_reports(w->log, MESSAGING_ELOST), reported);
}

/* Sanitizers want the processes forked before there are threads; otherwise it is done as supervisors do it. */
static void play_a_killed_worker(world *w) {
  puppet *doomed = NULL, *successor = NULL;
  for (size_t i = 0; i < BYSTANDERS; i++) (void)hire(w);
  if (SANITIZED) doomed = cast(w, 7, victim);
  if (SANITIZED) successor = cast(w, 8, unharmed);
  open_im(w, &patient);
  if (!doomed) doomed = cast(w, 7, victim);
  run_im(w, 0, BYSTANDERS + 1);
  for (size_t i = 0; i < BYSTANDERS; i++) {
    join(w, &w->workers[i], &patient);
    post(&w->workers[i], TALK(.first = 1, .count = EACH, .size = 40, .spread = 100));
  }
  give_cue(w, doomed);
  int status = bury(doomed);
  bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  for (size_t i = 0; i < BYSTANDERS; i++) assert_ok(await(&w->workers[i]).status);
  if (killed) {
    check_death(w, doomed);
  } else {
    assert_int_equal(status, 0);
    assert_ok(await(doomed).status);
    injected("worker, no such frame: it is not killed");
    (void)check_up_to_a_mark(w, BYSTANDERS);
    assert_int_equal(check_prefix(w->log, doomed->id), BURST);
    if (!atomic_load(&the_story->goodbye_unheard)) assert_int_equal(count_reports(w->log, MESSAGING_ELOST), 0);
    must("nothing: it sends and leaves, without ELOST");
    happened("all have its %u facts; the next one joined", (unsigned)BURST);
  }
  if (!successor) successor = cast(w, 8, unharmed);
  check_successor(w, successor);
  finish(w);
}

/* A death that nobody was to watch: the pid is listed when it is dead. */
static void unlisted_worker_killed(void **state) {
  world *w = *state;
  die_at_point = AFTER_FIRST_SEND;
  puppet *p = hire(w), *other = hire(w), *doomed = cast(w, 7, victim);
  open_im(w, &patient);
  run_im(w, 0, BYSTANDERS);
  join(w, p, &patient);
  join(w, other, &patient);
  give_cue(w, doomed);
  assert_true(WIFSIGNALED(bury(doomed)));
  (void)check_up_to_a_mark(w, BYSTANDERS);
  assert_int_equal(atomic_load(&w->log->reports), 0);
  assert_ok(bus_add_child_process(w->im, child_of(doomed)));
  WAIT_FOR(find_report(w->log, MESSAGING_ELOST, doomed->id));
  (void)check_up_to_a_mark(w, BYSTANDERS);
  assert_int_equal(count_relays_from(w->log, doomed->id), 0);
  happened("no report; ELOST once it is listed; nothing of it was relayed");
  finish(w);
}

static void worker_killed_at_point(void **state) {
  die_at_point = the_story->argument;
  injected("worker, kill -9 %s", point_names[die_at_point]);
  play_a_killed_worker(*state);
  assert_true(atomic_load(&the_story->reached));
}

static void worker_killed_at_frame(void **state) {
  die_at_frame = the_story->argument;
  play_a_killed_worker(*state);
}

static void worker_killed_in_exit(void **state) {
  die_at_exit_frame = the_story->argument;
  play_a_killed_worker(*state);
}

#define GO_ON "ELOST, the others go on with the same prefix, the next joins"
#define POINT(n, is_quick) ROW(worker_killed_at_point, .must = GO_ON, .argument = n, .quick = is_quick)

static const row kill_worker_rows[] = {
    POINT(BEFORE_INIT, false),
    POINT(AFTER_INIT, true),
    POINT(AFTER_RUN, true),
    POINT(AFTER_FIRST_SEND, true),
    POINT(AFTER_JOINING, false),
    POINT(IN_A_BURST, true),
    POINT(AFTER_FLUSH, false),
    POINT(AFTER_RECEIVING, false),
    POINT(AFTER_TERMINATE, false),
    ROW(worker_killed_at_point, .must = "no ELOST, since it had left; the others go on", .argument = AFTER_EXIT, .quick = true),
    ROW(unlisted_worker_killed, .injected = "worker, kill -9 while it is not listed, listed afterwards",
        .must = "no report, then ELOST; the others go on"),
    ROW(worker_killed_at_frame, .must = GO_ON, .numbered_to = 40),
    ROW(worker_killed_in_exit, .must = "ELOST, or left; the others have all that it sent", .numbered_to = 12),
};

GROUP(kill_worker_group, "1a. A worker is killed at every point of joining and leaving", kill_worker_rows);
