/* SIGSTOP and SIGCONT. A stopped process is not a dead one, nobody waits for it, and it catches up. */
#include "faults.h"

enum { WORKERS = 3, COUNT = 3000 };

static const messaging_options quick = {.heartbeat_ms = 20, .silence_ms = 100, .exit_timeout_ms = 60000};

static void stop(const puppet *p) { assert_int_equal(kill(p->pid, SIGSTOP), 0); }
static void go_on(const puppet *p) { assert_int_equal(kill(p->pid, SIGCONT), 0); }

static void worker_stopped(void **state) {
  world *w = *state;
  uint32_t size = (uint32_t)the_row->argument;
  start(w, WORKERS, &quick, &quick);
  puppet *stopped = &w->workers[2];
  wait_joined(w, WORKERS);
  stop(stopped);
  post(&w->workers[1], TALK(.relays = 2 * COUNT));
  assert_ok(order(&w->workers[0], TALK(.first = 1, .count = COUNT, .size = size)).status);
  assert_ok(im_talk(w, TALK(.first = 1, .count = COUNT, .size = size, .relays = COUNT)).status);
  assert_ok(await(&w->workers[1]).status);
  assert_ok(order(&w->workers[0], TALK(.relays = COUNT)).status);
  assert_int_equal(atomic_load(&stopped->log->count), 0);
  assert_null(find_report(w->log, MESSAGING_ELOST, ANYBODY));
  go_on(stopped);
  assert_ok(order(stopped, TALK(.relays = 2 * COUNT)).status);
  check_one_order(w, WORKERS, 2 * COUNT);
  happened("the others had all %d (%d MB) before it went on; it has them, too", 2 * COUNT, (int)(2u * COUNT * size / 1000000));
  finish(w);
}

/* The supervisor is a process of its own here, stopped for several times its silence. */
static void supervisor_stopped(void **state) {
  world *w = *state;
  enum { SILENCES = 5 };
  puppet *im = hire(w);
  for (size_t i = 0; i < WORKERS; i++) (void)hire(w);
  command c = {.type = DO_INIT_IM, .options = quick};
  reply r = order(im, c);
  assert_ok(r.status);
  w->addresses = r.addresses;
  c = (command){.type = DO_RUN_IM};
  c.children_count = list_of(w, 1, 1 + WORKERS, c.children);
  assert_ok(order(im, c).status);
  for (size_t i = 1; i <= WORKERS; i++) join(w, &w->workers[i], &quick);
  for (size_t i = 1; i <= WORKERS; i++) post(&w->workers[i], TALK(.first = 1, .count = 1, .relays = WORKERS - 1));
  for (size_t i = 1; i <= WORKERS; i++) assert_ok(await(&w->workers[i]).status);
  stop(im);
  pause_ms((int)(SILENCES * quick.silence_ms));
  for (size_t i = 1; i <= WORKERS; i++) assert_ok(order(&w->workers[i], TALK(.first = 2, .count = COUNT, .size = 50)).status);
  for (size_t i = 1; i <= WORKERS; i++) {
    assert_status(MESSAGING_ETIMEDOUT, order(&w->workers[i], (command){.type = DO_FLUSH, .timeout_ms = 10}).status);
    assert_false(order(&w->workers[i], COMMAND(DO_CHECK)).terminated);
    assert_int_equal(atomic_load(&w->workers[i].log->reports), 0);
  }
  go_on(im);
  for (size_t i = 1; i <= WORKERS; i++) assert_ok(order(&w->workers[i], TALK(.relays = (WORKERS - 1) * (COUNT + 1))).status);
  assert_ok(order(im, TALK(.relays = WORKERS * (COUNT + 1))).status);
  world seen = {.log = im->log, .count = WORKERS};
  memcpy(seen.workers, &w->workers[1], WORKERS * sizeof(puppet));
  check_one_order(&seen, WORKERS, WORKERS * (COUNT + 1));
  happened("%d sends were taken meanwhile, flush timed out, nobody saw an end; then all arrived", WORKERS * COUNT);
  for (size_t i = 1; i <= WORKERS; i++) assert_ok(order(&w->workers[i], COMMAND(DO_EXIT)).status);
  assert_ok(order(im, COMMAND(DO_EXIT)).status);
}

/* Every worker is stopped and goes on again, one after the other, while all talk. */
static void stops_all_the_while(void **state) {
  world *w = *state;
  enum { MANY = 6, EACH = 4000, ROUNDS = 40 };
  start(w, MANY, &quick, &quick);
  wait_joined(w, MANY);
  for (uint32_t i = 0; i < MANY; i++)
    post(&w->workers[i], TALK(.first = 1, .count = EACH, .size = 20, .spread = 200, .relays = MANY * EACH));
  for (uint32_t i = 0; i < ROUNDS; i++) {
    puppet *p = &w->workers[i * 5 % MANY], *q = &w->workers[(i * 5 + 2) % MANY];
    stop(p);
    stop(q);
    pause_ms(5 + (int)(i % 4) * 20);
    go_on(p);
    assert_ok(receive(w->im, w->log));
    go_on(q);
  }
  assert_ok(im_talk(w, TALK(.first = 1, .count = EACH, .relays = MANY * EACH)).status);
  for (size_t i = 0; i < MANY; i++) assert_ok(await(&w->workers[i]).status);
  check_one_order(w, MANY, (MANY + 1) * EACH);
  assert_null(find_report(w->log, MESSAGING_ELOST, ANYBODY));
  happened("%d stops; all %d relays everywhere, once, in one order", 2 * ROUNDS, (MANY + 1) * EACH);
  finish(w);
}

static const row stop_rows[] = {
    ROW(worker_stopped, .injected = "SIGSTOP of a worker while the others relay, SIGCONT",
        .must = "the others do not wait; no ELOST; it gets everything", .argument = 200, .quick = true),
    ROW(worker_stopped, .injected = "the same, while more passes than fits into any queue of libzmq",
        .must = "the others do not wait; no ELOST; it gets everything", .argument = 12000),
    ROW(supervisor_stopped, .injected = "SIGSTOP of the supervisor for 5 silences, SIGCONT",
        .must = "sends go on, no call hangs, no termination; then all arrives", .quick = true),
    ROW(stops_all_the_while, .injected = "SIGSTOP, SIGCONT of 2 of 6 workers, 40 times, while all talk",
        .must = "no ELOST; everything once and in one order"),
};

GROUP(stop_group, "3. Stopped processes", stop_rows);
