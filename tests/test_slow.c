/* Nobody waits for the slow, no queue grows without bound, and what was accepted is never dropped. */
#include "harness.h"

/* A stopped worker delays nobody, is not taken for dead, and catches up. */
static void test_stopped_worker(void **state) {
  world *w = *state;
  needs_pidfd();
  enum { COUNT = 5000 };
  messaging_options quick = {.heartbeat_ms = 20, .silence_ms = 100};
  start(w, 3, &quick, &quick);
  puppet *stopped = &w->workers[2];
  wait_joined(w, 3);
  assert_int_equal(kill(stopped->pid, SIGSTOP), 0);
  post(&w->workers[1], TALK(.relays = COUNT + COUNT));
  assert_ok(order(&w->workers[0], TALK(.first = 1, .count = COUNT, .size = 200, .spread = 400)).status);
  assert_ok(im_talk(w, TALK(.first = 1, .count = COUNT, .size = 100, .relays = COUNT)).status);
  assert_ok(await(&w->workers[1]).status);
  assert_ok(order(&w->workers[0], TALK(.relays = COUNT)).status);
  assert_int_equal(stopped->log->count, 0);
  assert_null(find_report(w->log, MESSAGING_ELOST, ANYBODY));
  assert_int_equal(kill(stopped->pid, SIGCONT), 0);
  assert_ok(order(stopped, TALK(.relays = 2 * COUNT)).status);
  check_one_order(w, 3, 2 * COUNT);
  finish(w);
}

/* Also when far more passes than fits into libzmq's queues and the socket's buffer. */
static void test_stopped_worker_misses_megabytes(void **state) {
  world *w = *state;
  enum { COUNT = 3000, SIZE = 20000 };
  start(w, 2, NULL, NULL);
  wait_joined(w, 2);
  assert_int_equal(kill(w->workers[1].pid, SIGSTOP), 0);
  post(&w->workers[0], TALK(.relays = COUNT));
  assert_ok(im_talk(w, TALK(.first = 1, .count = COUNT, .size = SIZE)).status);
  assert_ok(await(&w->workers[0]).status);
  assert_int_equal(kill(w->workers[1].pid, SIGCONT), 0);
  assert_ok(order(&w->workers[1], TALK(.relays = COUNT)).status);
  check_one_order(w, 2, COUNT);
  finish(w);
}

/* The supervisor's application never receives: relays among the workers pass, and wait for it. */
static void test_supervisor_that_does_not_receive(void **state) {
  world *w = *state;
  enum { COUNT = 20000 };
  messaging_options im = {.message_bytes_max = 2000, .inbox_bytes_max = 4000};
  messaging_options each = {.message_bytes_max = 2000};
  start(w, 2, &im, &each);
  post(&w->workers[1], TALK(.relays = COUNT));
  assert_ok(order(&w->workers[0], TALK(.first = 1, .count = COUNT, .size = 100)).status);
  assert_ok(await(&w->workers[1]).status);
  assert_int_equal(w->log->count, 0);
  assert_ok(im_talk(w, TALK(.relays = COUNT)).status);
  check_one_order(w, 2, COUNT);
  finish(w);
}

/* Workers that do not receive hold up nobody; each gets all when it wants, through an inbox for two messages. */
static void test_workers_that_do_not_receive(void **state) {
  world *w = *state;
  enum { COUNT = 4000 };
  messaging_options im = {.message_bytes_max = 2000};
  messaging_options each = {.message_bytes_max = 2000, .inbox_bytes_max = 4000};
  start(w, 3, &im, &each);
  post(&w->workers[0], TALK(.relays = COUNT));
  assert_ok(im_talk(w, TALK(.first = 1, .count = COUNT, .size = 300)).status);
  assert_ok(await(&w->workers[0]).status);
  for (size_t i = 1; i < 3; i++) {
    messaging_stats stats = stats_of(&w->workers[i]);
    assert_true(stats.inbox_bytes <= stats.inbox_bytes_max);
    assert_int_equal(w->workers[i].log->count, 0);
  }
  for (size_t i = 1; i < 3; i++) assert_ok(order(&w->workers[i], TALK(.relays = COUNT)).status);
  check_one_order(w, 3, COUNT);
  finish(w);
}

/* A full outbox is said at once and takes nothing; all that was accepted arrives once there is a supervisor. */
static void test_full_outbox(void **state) {
  world *w = *state;
  messaging_options im = {.message_bytes_max = 2000};
  messaging_options small = {.message_bytes_max = 2000, .outbox_bytes_max = 4000};
  open_im(w, &im);
  for (size_t i = 0; i < 2; i++) join(w, hire(w), &small);
  puppet *p = &w->workers[0];
  reply r = order(p, TALK(.first = 1, .count = 1000, .size = 500, .stop_when_full = true));
  assert_status(MESSAGING_EFULL, r.status);
  assert_true(r.accepted >= 4);
  assert_true(r.accepted <= 8);
  assert_status(MESSAGING_EFULL, order(p, TALK(.first = 1, .count = 1, .size = 500, .stop_when_full = true)).status);
  assert_status(MESSAGING_EFULL, order(p, TALK(.first = 3, .count = 1, .size = 500, .stop_when_full = true, .only_outputs = true)).status);
  messaging_stats stats = stats_of(p);
  assert_int_equal(stats.relays_sent, r.accepted);
  assert_true(stats.outbox_bytes <= stats.outbox_bytes_max);

  run_im(w, 0, 2);
  post(&w->workers[1], TALK(.relays = r.accepted + 3000));
  assert_ok(order(p, TALK(.first = r.accepted + 1, .count = 3000, .size = 500)).status);
  assert_ok(await(&w->workers[1]).status);
  assert_ok(im_talk(w, TALK(.relays = r.accepted + 3000)).status);
  check_one_order(w, 2, r.accepted + 3000);
  finish(w);
}

/* Everybody talks at once through queues that hold two messages. */
static void test_tiny_queues_everywhere(void **state) {
  world *w = *state;
  enum { WORKERS = 4, EACH = 1000, TOTAL = WORKERS * EACH + EACH };
  messaging_options tiny = {
      .message_bytes_max = 1000, .outbox_bytes_max = 2000, .inbox_bytes_max = 2000, .history_bytes_max = 64 * 1024};
  start(w, WORKERS, &tiny, &tiny);
  for (uint32_t i = 0; i < WORKERS; i++)
    post(&w->workers[i], TALK(.first = 1, .count = EACH, .size = 1, .spread = 800, .outputs = true, .relays = TOTAL - EACH));
  assert_ok(im_talk(w, TALK(.first = 1, .count = EACH, .size = 100, .relays = TOTAL - EACH, .outputs_in = WORKERS * EACH)).status);
  for (size_t i = 0; i < WORKERS; i++) assert_ok(await(&w->workers[i]).status);
  check_one_order(w, WORKERS, TOTAL);
  finish(w);
}

/* With send_timeout_ms a send waits for room, instead of saying so at once. */
static void test_sends_that_wait_for_room(void **state) {
  world *w = *state;
  enum { COUNT = 3000 };
  messaging_options im = {.message_bytes_max = 2000};
  messaging_options small = {.message_bytes_max = 2000, .outbox_bytes_max = 4000, .send_timeout_ms = (uint32_t)deadline_ms()};
  open_im(w, &im);
  join(w, hire(w), &small);
  puppet *p = &w->workers[0];
  post(p, TALK(.first = 1, .count = COUNT, .size = 500, .stop_when_full = true));
  WAIT_FOR(im_stats(w).generation == 0);
  run_im(w, 0, 1);
  assert_ok(await(p).status);
  assert_ok(im_talk(w, TALK(.relays = COUNT)).status);
  check_one_order(w, 1, COUNT);
  finish(w);
}

static void test_send_timeout_runs_out(void **state) {
  world *w = *state;
  messaging_options small = {.message_bytes_max = 2000, .outbox_bytes_max = 4000, .send_timeout_ms = 50, .exit_timeout_ms = 1};
  open_im(w, NULL);
  join(w, hire(w), &small);
  reply r = order(&w->workers[0], TALK(.first = 1, .count = 100, .size = 1000, .stop_when_full = true));
  assert_status(MESSAGING_EFULL, r.status);
  assert_true(r.accepted >= 2);
  int64_t before = now_ms();
  assert_status(MESSAGING_EFULL, order(&w->workers[0], TALK(.first = 1, .count = 1, .size = 1000, .stop_when_full = true)).status);
  assert_true(now_ms() - before >= 50);
  assert_status(MESSAGING_ETIMEDOUT, order(&w->workers[0], COMMAND(DO_EXIT)).status);
  dismiss(&w->workers[0]);
  finish(w);
}

/* ---- A full history ------------------------------------------------------------------------------------------------------ */

enum { HISTORY = 100 * 1000, OUTBOX = 10 * 1000, FACT = 500 };

static const messaging_options keep_all = {.message_bytes_max = 2000, .outbox_bytes_max = OUTBOX, .history_bytes_max = HISTORY};
static const messaging_options fence = {
    .message_bytes_max = 2000, .outbox_bytes_max = OUTBOX, .history_bytes_max = HISTORY, .fence_slow = true};
static const messaging_options plain = {.message_bytes_max = 2000, .outbox_bytes_max = OUTBOX};

/* Sends from the worker, or the supervisor if it is NULL, until there is no room for good; the number of messages accepted. */
static uint32_t fill(world *w, puppet *p) {
  uint32_t accepted = 0;
  for (int refusals = 0; refusals < 20; refusals++) { /* what is on its way may still make room */
    command c = TALK(.first = accepted + 1, .count = 10000, .size = FACT, .stop_when_full = true);
    reply r = p ? order(p, c) : im_talk(w, c);
    assert_status(MESSAGING_EFULL, r.status);
    if (r.accepted > 0) refusals = 0;
    accepted += r.accepted;
    pause_ms(5);
  }
  return accepted;
}

/* By default, new messages are refused while a listed worker still needs the oldest. */
static void test_full_history_refuses(void **state) {
  world *w = *state;
  open_im(w, &keep_all);
  for (size_t i = 0; i < 3; i++) (void)hire(w);
  puppet *absent = &w->workers[2];
  run_im(w, 0, 3);
  for (size_t i = 0; i < 2; i++) join(w, &w->workers[i], &plain);

  uint32_t mine = fill(w, NULL);
  assert_true(mine >= HISTORY / (FACT + FACT_OVERHEAD) / 2);
  assert_true(mine <= (HISTORY + OUTBOX) / FACT);
  assert_true(im_stats(w).history_bytes <= im_stats(w).history_bytes_max);
  uint32_t theirs = fill(w, &w->workers[0]); /* a worker is refused, too, once its outbox is full */

  join(w, absent, &plain); /* the one that holds everything back comes, and there is room again */
  for (uint32_t i = 1; i < 3; i++) post(&w->workers[i], TALK(.relays = mine + theirs + 1000));
  post(&w->workers[0], TALK(.first = 20000, .count = 1000, .size = FACT, .relays = mine));
  assert_ok(im_talk(w, TALK(.relays = theirs + 1000)).status); /* its application needs the history like a worker */
  for (uint32_t i = 0; i < 3; i++) assert_ok(await(&w->workers[i]).status);
  check_one_order(w, 3, mine + theirs + 1000);
  assert_true(im_stats(w).history_first > 1);
  assert_null(find_report(w->log, MESSAGING_EHISTORY, ANYBODY));
  finish(w);
}

/* When the worker that holds everything back dies, there is room again. */
static void test_full_history_until_the_slowest_dies(void **state) {
  world *w = *state;
  needs_pidfd();
  open_im(w, &keep_all);
  for (size_t i = 0; i < 2; i++) (void)hire(w);
  run_im(w, 0, 2);
  join(w, &w->workers[0], &plain);
  uint32_t mine = fill(w, NULL);
  kill_worker(&w->workers[1]);
  assert_ok(im_talk(w, TALK(.first = 20000, .count = 1000, .size = FACT)).status);
  assert_ok(order(&w->workers[0], TALK(.relays = mine + 1000)).status);
  check_one_order(w, 1, mine + 1000);
  finish(w);
}

/* A log has its numbers in order, and what is missing between 1 and `total` is just what was reported as gone. */
static void check_gaps_are_reported(const logbook *log, size_t total) {
  uint64_t next = 1;
  size_t at = 0;
  for (size_t i = 0; i < log->count; i++) {
    if (log->record[i].type != MESSAGING_RELAY_MESSAGE) continue;
    while (next < log->record[i].number) {
      for (;; at++) { /* the handler is told by another thread */
        WAIT_FOR(at < atomic_load(&log->reports));
        if (log->report[at].status == MESSAGING_EHISTORY) break;
      }
      assert_int_equal(log->report[at].first, next);
      assert_true(log->report[at].last >= next);
      next = log->report[at++].last + 1;
    }
    assert_int_equal(log->record[i].number, next);
    next++;
  }
  assert_int_equal(next, total + 1);
  assert_true(count_reports(log, MESSAGING_EHISTORY) > 0);
  assert_int_equal(log->broken, 0);
}

/* With fence_slow, whoever lags behind a full history misses its oldest part, is told which, and so is the supervisor. */
static void test_fence_an_absent_worker(void **state) {
  world *w = *state;
  enum { COUNT = 3000 };
  open_im(w, &fence);
  for (size_t i = 0; i < 2; i++) (void)hire(w);
  puppet *absent = &w->workers[1];
  run_im(w, 0, 2);
  join(w, &w->workers[0], &plain);
  post(&w->workers[0], TALK(.relays = COUNT));
  wait_joined(w, 1); /* this one acknowledges in time, so only the absent one is fenced */
  for (uint32_t sent = 0; sent < COUNT; sent += 50) {
    assert_ok(im_talk(w, TALK(.first = sent + 1, .count = 50, .size = FACT)).status);
    assert_ok(bus_flush(w->im, deadline_ms()));
  }
  assert_ok(await(&w->workers[0]).status);
  join(w, absent, &plain);
  assert_ok(order(absent, TALK(.relays = 1)).status);
  assert_ok(order(absent, TALK(.until_id = COUNT)).status);
  WAIT_FOR(find_report(absent->log, MESSAGING_EHISTORY, ANYBODY));
  check_gaps_are_reported(absent->log, COUNT);
  WAIT_FOR(find_report(w->log, MESSAGING_EHISTORY, absent->id));
  const report *told = find_report(w->log, MESSAGING_EHISTORY, absent->id);
  assert_int_equal(told->kind, absent->kind);
  assert_true(told->first >= 1);
  assert_true(told->last >= told->first);
  assert_null(find_report(w->log, MESSAGING_EHISTORY, w->workers[0].id));
  finish(w);
}

/* The same for one that is connected but does not receive, while a worker sends. */
static void test_fence_a_slow_worker(void **state) {
  world *w = *state;
  enum { COUNT = 3000 };
  messaging_options tiny = plain;
  tiny.inbox_bytes_max = 4000;
  start(w, 0, &fence, NULL);
  puppet *sender = hire(w), *slow = hire(w);
  for (size_t i = 0; i < 2; i++) assert_ok(bus_add_child_process(w->im, child_of(&w->workers[i])));
  join(w, sender, &plain);
  join(w, slow, &tiny);
  wait_joined(w, 2);
  post(sender, TALK(.first = 1, .count = COUNT, .size = FACT));
  assert_ok(im_talk(w, TALK(.until_id = COUNT)).status);
  assert_ok(await(sender).status);
  assert_ok(order(slow, TALK(.until_id = COUNT)).status);
  WAIT_FOR(find_report(slow->log, MESSAGING_EHISTORY, ANYBODY));
  check_gaps_are_reported(slow->log, COUNT);
  WAIT_FOR(find_report(w->log, MESSAGING_EHISTORY, slow->id));
  finish(w);
}

/* And for the supervisor's own application: its handler is told under its own pid. */
static void test_fence_the_supervisors_application(void **state) {
  world *w = *state;
  enum { COUNT = 3000 };
  start(w, 1, &fence, &plain);
  puppet *sender = &w->workers[0];
  assert_ok(order(sender, TALK(.first = 1, .count = COUNT, .size = FACT)).status);
  assert_ok(order(sender, (command){.type = DO_FLUSH, .timeout_ms = deadline_ms()}).status);
  assert_ok(im_talk(w, TALK(.until_id = COUNT)).status);
  WAIT_FOR(find_report(w->log, MESSAGING_EHISTORY, getpid()));
  check_gaps_are_reported(w->log, COUNT);
  finish(w);
}

/* Who joins after everybody else's acknowledgements let the history be cut is told what is gone. */
static void test_late_joiner_after_a_cut(void **state) {
  world *w = *state;
  enum { COUNT = 2000 };
  start(w, 1, &keep_all, &plain);
  post(&w->workers[0], TALK(.relays = COUNT));
  assert_ok(im_talk(w, TALK(.first = 1, .count = COUNT, .size = FACT)).status);
  assert_ok(await(&w->workers[0]).status);
  assert_true(im_stats(w).history_first > 1);

  puppet *late = hire(w);
  assert_ok(bus_add_child_process(w->im, child_of(late)));
  join(w, late, &plain);
  assert_ok(order(late, TALK(.until_id = COUNT)).status);
  WAIT_FOR(find_report(late->log, MESSAGING_EHISTORY, ANYBODY));
  check_gaps_are_reported(late->log, COUNT);
  assert_int_equal(find_report(late->log, MESSAGING_EHISTORY, ANYBODY)->first, 1);
  WAIT_FOR(find_report(w->log, MESSAGING_EHISTORY, late->id));
  finish(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_PROCESSES(test_stopped_worker),
      WITH_PROCESSES(test_stopped_worker_misses_megabytes),
      WITH_BOTH(test_supervisor_that_does_not_receive),
      WITH_BOTH(test_workers_that_do_not_receive),
      WITH_BOTH(test_full_outbox),
      WITH_BOTH(test_tiny_queues_everywhere),
      WITH_BOTH(test_sends_that_wait_for_room),
      WITH_BOTH(test_send_timeout_runs_out),
      WITH_BOTH(test_full_history_refuses),
      WITH_PROCESSES(test_full_history_until_the_slowest_dies),
      WITH_BOTH(test_fence_an_absent_worker),
      WITH_BOTH(test_fence_a_slow_worker),
      WITH_BOTH(test_fence_the_supervisors_application),
      WITH_BOTH(test_late_joiner_after_a_cut),
  };
  return RUN_TESTS(test_slow, tests);
}
