/* Termination: passes every queue, reaches everybody but its originator, once, and is remembered. */
#include "harness.h"

static bool terminated(puppet *p) { return order(p, COMMAND(DO_CHECK)).terminated; }

static void test_from_a_worker(void **state) {
  world *w = *state;
  start(w, 3, NULL, NULL);
  puppet *originator = &w->workers[0];
  wait_joined(w, 3);
  assert_ok(order(originator, COMMAND(DO_TERMINATE)).status);
  for (size_t i = 1; i < 3; i++) {
    WAIT_FOR(terminated(&w->workers[i]));
    assert_ok(order(&w->workers[i], TALK(.terminations = 1)).status);
    const record *r = &w->workers[i].log->record[0];
    assert_int_equal(r->type, MESSAGING_CONTROL_MESSAGE);
    assert_int_equal(r->pid, originator->id);
    assert_int_equal(r->kind, originator->kind);
  }
  assert_ok(im_talk(w, TALK(.terminations = 1)).status);
  assert_true(bus_check_termination(w->im));
  assert_int_equal(w->log->record[0].pid, originator->id);

  assert_ok(im_talk(w, TALK(.first = 1, .count = 1)).status); /* what comes after it has passed the originator by */
  assert_ok(order(originator, TALK(.relays = 1)).status);
  assert_false(terminated(originator));
  assert_int_equal(originator->log->terminations, 0);
  finish(w);
}

static void test_from_the_supervisor(void **state) {
  world *w = *state;
  start(w, 2, NULL, NULL);
  assert_ok(bus_send_term_message(w->im));
  for (size_t i = 0; i < 2; i++) {
    assert_ok(order(&w->workers[i], TALK(.terminations = 1)).status);
    assert_true(terminated(&w->workers[i]));
    assert_int_equal(w->workers[i].log->record[0].pid, getpid());
    assert_int_equal(w->workers[i].log->record[0].kind, MESSAGING_SUPERVISOR);
  }
  assert_ok(order(&w->workers[0], TALK(.first = 1, .count = 1)).status);
  assert_ok(im_talk(w, TALK(.relays = 1)).status);
  assert_false(bus_check_termination(w->im));
  assert_int_equal(w->log->terminations, 0);
  finish(w);
}

static void test_of_one_worker(void **state) {
  world *w = *state;
  start(w, 3, NULL, NULL);
  puppet *chosen = &w->workers[1];
  assert_ok(bus_send_term_message_to(w->im, chosen->id));
  assert_ok(order(chosen, TALK(.terminations = 1)).status);
  assert_true(terminated(chosen));
  assert_ok(im_talk(w, TALK(.first = 1, .count = 1)).status);
  for (size_t i = 0; i < 3; i++) assert_ok(order(&w->workers[i], TALK(.relays = 1)).status);
  assert_false(terminated(&w->workers[0]));
  assert_false(terminated(&w->workers[2]));
  assert_false(bus_check_termination(w->im));
  assert_status(MESSAGING_EKIND, bus_send_term_message_to(w->im, -12345));
  assert_status(MESSAGING_EROLE, order(&w->workers[0], COMMAND(DO_UPDATE)).status);
  finish(w);
}

/* It is the first message of the next batch, whatever had been delivered before, and comes once however often it is sent. */
static void test_comes_first_and_once(void **state) {
  world *w = *state;
  enum { QUEUED = 500 };
  start(w, 2, NULL, NULL);
  puppet *p = &w->workers[0];
  wait_joined(w, 2);
  assert_ok(im_talk(w, TALK(.first = 1, .count = QUEUED, .size = 50)).status);
  assert_ok(bus_flush(w->im, deadline_ms())); /* it is in both inboxes, nobody has received it */
  assert_ok(bus_send_term_message(w->im));
  WAIT_FOR(terminated(p));
  assert_ok(order(p, COMMAND(DO_TAKE)).status);
  assert_int_equal(p->log->record[0].type, MESSAGING_CONTROL_MESSAGE);

  assert_ok(bus_send_term_message(w->im));
  assert_ok(order(&w->workers[1], COMMAND(DO_TERMINATE)).status);
  assert_ok(im_talk(w, TALK(.terminations = 1)).status);
  assert_ok(im_talk(w, TALK(.first = 9000, .count = 10)).status);
  assert_ok(order(p, TALK(.relays = QUEUED + 10)).status);
  assert_ok(order(&w->workers[1], TALK(.relays = QUEUED + 10)).status);
  assert_int_equal(p->log->terminations, 1);
  assert_int_equal(w->workers[1].log->terminations, 1);
  assert_int_equal(p->log->terminations_not_first, 0);
  check_one_order(w, 2, QUEUED + 10);
  finish(w);
}

/* An inbox that is full, with as much again on its way, does not keep it out. */
static void test_passes_a_full_inbox(void **state) {
  world *w = *state;
  enum { COUNT = 2000 };
  messaging_options small = {.message_bytes_max = 2000, .inbox_bytes_max = 4000, .outbox_bytes_max = 4000};
  messaging_options im = {.message_bytes_max = 2000};
  start(w, 2, &im, &small);
  puppet *p = &w->workers[0], *other = &w->workers[1];
  assert_ok(order(p, TALK(.first = 1, .count = 1)).status);
  post(other, TALK(.relays = COUNT + 1));
  assert_ok(im_talk(w, TALK(.first = 1, .count = COUNT, .size = 500)).status);
  assert_ok(await(other).status);
  assert_ok(bus_send_term_message(w->im));
  WAIT_FOR(terminated(p));
  assert_ok(order(p, COMMAND(DO_TAKE)).status);
  assert_int_equal(p->log->record[0].type, MESSAGING_CONTROL_MESSAGE);
  assert_true(p->log->relays < COUNT);
  assert_ok(order(p, TALK(.relays = COUNT)).status);
  assert_ok(im_talk(w, TALK(.relays = 1)).status);
  check_one_order(w, 2, COUNT + 1);
  finish(w);
}

/* An outbox that is full because the supervisor's application takes no output messages does not keep it in. */
static void test_passes_a_full_outbox(void **state) {
  world *w = *state;
  messaging_options small = {.message_bytes_max = 2000, .inbox_bytes_max = 4000, .outbox_bytes_max = 4000};
  start(w, 1, &small, &small);
  puppet *p = &w->workers[0];
  uint32_t accepted = 0, more;
  do { /* full for good: the supervisor's inbox and this outbox */
    (void)order(p, (command){.type = DO_FLUSH, .timeout_ms = 200});
    more = order(p, TALK(.first = accepted + 1, .count = 10000, .size = 500, .only_outputs = true, .stop_when_full = true)).accepted;
    accepted += more;
  } while (more > 0);
  assert_ok(order(p, COMMAND(DO_TERMINATE)).status);
  WAIT_FOR(bus_check_termination(w->im));
  assert_ok(im_talk(w, TALK(.outputs_in = accepted, .terminations = 1)).status);
  assert_int_equal(w->log->record[0].type, MESSAGING_CONTROL_MESSAGE);
  finish(w);
}

/* It stays until a new generation begins; sending and receiving go on meanwhile; who joins later is told. */
static void test_holds_until_the_next_generation(void **state) {
  world *w = *state;
  start(w, 2, NULL, NULL);
  for (size_t i = 0; i < 3; i++) (void)hire(w);
  puppet *originator = &w->workers[0], *other = &w->workers[1], *late = &w->workers[2], *next = &w->workers[3];
  assert_ok(order(originator, COMMAND(DO_TERMINATE)).status);
  assert_ok(im_talk(w, TALK(.terminations = 1)).status);

  assert_ok(order(originator, TALK(.first = 1, .count = 10)).status);
  assert_ok(order(other, TALK(.first = 1, .count = 10, .relays = 10, .terminations = 1)).status);
  assert_ok(order(originator, TALK(.relays = 10)).status);
  assert_ok(im_talk(w, TALK(.relays = 20)).status);
  assert_true(terminated(other));
  assert_true(bus_check_termination(w->im));

  assert_ok(bus_add_child_process(w->im, child_of(late)));
  join(w, late, NULL);
  assert_ok(order(late, TALK(.relays = 20, .terminations = 1)).status);
  assert_true(terminated(late));
  assert_int_equal(late->log->record[0].type, MESSAGING_CONTROL_MESSAGE);
  check_one_order(w, 3, 20);
  for (size_t i = 0; i < 3; i++) assert_ok(order(&w->workers[i], COMMAND(DO_EXIT)).status);
  for (size_t i = 0; i < 3; i++) dismiss(&w->workers[i]);

  update(w, 3, 5);
  assert_int_equal(im_stats(w).generation, 2);
  assert_false(bus_check_termination(w->im));
  for (size_t i = 3; i < 5; i++) join(w, &w->workers[i], NULL);
  assert_ok(im_talk(w, TALK(.first = 1, .count = 1)).status);
  for (size_t i = 3; i < 5; i++) {
    assert_ok(order(&w->workers[i], TALK(.relays = 1)).status);
    assert_false(terminated(&w->workers[i]));
  }
  assert_ok(order(next, COMMAND(DO_TERMINATE)).status); /* and it works again */
  assert_ok(im_talk(w, TALK(.terminations = 2)).status);
  assert_true(bus_check_termination(w->im));
  finish(w);
}

/* Who is left out by an update sees termination; it cannot send any more, and its exit says so. */
static void test_worker_left_out_by_an_update(void **state) {
  world *w = *state;
  start(w, 3, NULL, NULL);
  puppet *left_out = &w->workers[2];
  wait_joined(w, 3);
  update(w, 0, 2);
  assert_int_not_equal(order(left_out, (command){.type = DO_WAIT, .timeout_ms = deadline_ms()}).status, MESSAGING_ETIMEDOUT);
  WAIT_FOR(terminated(left_out));
  WAIT_FOR(order(left_out, TALK(.first = 1, .count = 1)).status == MESSAGING_ENOTRUNNING);
  assert_status(MESSAGING_ELOST, order(left_out, COMMAND(DO_EXIT)).status);
  dismiss(left_out);
  assert_ok(order(&w->workers[0], TALK(.first = 1, .count = 5)).status);
  assert_ok(order(&w->workers[1], TALK(.relays = 5)).status);
  assert_false(terminated(&w->workers[0]));
  assert_false(terminated(&w->workers[1]));
  assert_null(find_report(w->log, MESSAGING_ELOST, ANYBODY)); /* nobody died */
  finish(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_BOTH(test_from_a_worker),
      WITH_BOTH(test_from_the_supervisor),
      WITH_BOTH(test_of_one_worker),
      WITH_BOTH(test_comes_first_and_once),
      WITH_BOTH(test_passes_a_full_inbox),
      WITH_BOTH(test_passes_a_full_outbox),
      WITH_BOTH(test_holds_until_the_next_generation),
      WITH_BOTH(test_worker_left_out_by_an_update),
  };
  return RUN_TESTS(test_terminate, tests);
}
