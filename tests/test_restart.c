/* Generations: what a new list of children begins, what goes on, and who is let in. */
#include "harness.h"

static void leave(puppet *p) {
  assert_ok(order(p, COMMAND(DO_EXIT)).status);
  dismiss(p);
}

/* Restart with purge: numbers begin with 1 again, and nothing of the old generation is seen by anybody. */
static void test_purge_and_update(void **state) {
  world *w = *state;
  enum { OLD = 2000, NEW = 300 };
  start(w, 2, NULL, NULL);
  for (uint32_t i = 0; i < 2; i++) post(&w->workers[i], TALK(.first = 1, .count = OLD, .size = 30, .outputs = true));
  for (uint32_t i = 0; i < 2; i++) assert_ok(await(&w->workers[i]).status);
  assert_ok(im_talk(w, TALK(.first = 1, .count = OLD, .relays = 5)).status); /* and leaves the rest */
  assert_ok(order(&w->workers[0], COMMAND(DO_TERMINATE)).status);
  WAIT_FOR(bus_check_termination(w->im));
  for (uint32_t i = 0; i < 2; i++) leave(&w->workers[i]);
  for (uint32_t i = 2; i < 4; i++) (void)hire(w);

  assert_ok(bus_purge_im_mailbox(w->im));
  update(w, 2, 4);
  forget_log(w);
  messaging_stats stats = im_stats(w);
  assert_int_equal(stats.generation, 2);
  assert_int_equal(stats.next_number, 1);
  assert_int_equal(stats.history_bytes, 0);
  assert_false(bus_check_termination(w->im));
  for (uint32_t i = 2; i < 4; i++) {
    join(w, &w->workers[i], NULL);
    post(&w->workers[i], TALK(.first = 1, .count = NEW, .size = 3, .relays = 2 * NEW));
  }
  assert_ok(im_talk(w, TALK(.first = 1, .count = NEW, .relays = 2 * NEW)).status);
  for (uint32_t i = 2; i < 4; i++) assert_ok(await(&w->workers[i]).status);
  world fresh = {.workers = {w->workers[2], w->workers[3]}, .log = w->log};
  check_one_order(&fresh, 2, 3 * NEW);
  for (size_t i = 0; i < w->log->count; i++) assert_int_equal(w->log->record[i].type, MESSAGING_RELAY_MESSAGE);
  finish(w);
}

/* Without purge, what the old generation left is received first, and whole. */
static void test_update_without_purge(void **state) {
  world *w = *state;
  enum { OLD = 3000, NEW = 200 };
  start(w, 1, NULL, NULL);
  puppet *old = &w->workers[0], *fresh = hire(w);
  assert_ok(order(old, TALK(.first = 1, .count = OLD, .size = 60, .outputs = true)).status);
  leave(old);
  update(w, 1, 2);
  join(w, fresh, NULL);
  assert_ok(order(fresh, TALK(.first = 1, .count = NEW, .size = 60, .outputs = true)).status);
  assert_ok(im_talk(w, TALK(.relays = OLD + NEW, .outputs_in = OLD + NEW)).status);
  const record *r = w->log->record;
  for (uint32_t i = 0; i < 2 * (OLD + NEW); i++) {
    uint32_t of_generation = i < 2 * OLD ? i : i - 2 * OLD; /* fact, output, fact, output, ... */
    assert_int_equal(r[i].pid, i < 2 * OLD ? old->id : fresh->id);
    assert_int_equal(r[i].type, of_generation % 2 ? MESSAGING_OUTPUT_MESSAGE : MESSAGING_RELAY_MESSAGE);
    assert_int_equal(r[i].id, 1 + of_generation / 2);
    if (of_generation % 2 == 0) assert_int_equal(r[i].number, 1 + of_generation / 2);
  }
  assert_int_equal(w->log->broken, 0);
  finish(w);
}

/* If anybody survives, the generation and its numbers go on; newcomers get its history. */
static void test_survivors_keep_the_numbering(void **state) {
  world *w = *state;
  enum { EACH = 100 };
  start(w, 3, NULL, NULL);
  for (size_t i = 0; i < 3; i++) assert_ok(order(&w->workers[i], TALK(.first = 1, .count = EACH)).status);
  leave(&w->workers[0]);
  puppet *newcomer = hire(w);
  update(w, 1, 4);
  update(w, 1, 4); /* the same list again changes nothing */
  assert_int_equal(im_stats(w).generation, 1);
  join(w, newcomer, NULL);
  for (size_t i = 1; i < 4; i++) assert_ok(order(&w->workers[i], TALK(.first = 1000, .count = EACH)).status);
  assert_ok(order(newcomer, TALK(.relays = 5 * EACH)).status);
  for (size_t i = 1; i < 3; i++) assert_ok(order(&w->workers[i], TALK(.relays = 4 * EACH)).status);
  assert_ok(im_talk(w, TALK(.relays = 6 * EACH)).status);
  assert_int_equal(newcomer->log->record[0].number, 1);
  world present = {.workers = {w->workers[1], w->workers[2], w->workers[3]}, .log = w->log};
  check_one_order(&present, 3, 6 * EACH);
  finish(w);
}

/* An update from an empty list begins a generation, too. */
static void test_update_from_an_empty_list(void **state) {
  world *w = *state;
  open_im(w, NULL);
  puppet *p = hire(w);
  run_im(w, 0, 0);
  assert_ok(im_talk(w, TALK(.first = 1, .count = 10)).status);
  assert_int_equal(im_stats(w).generation, 1);
  update(w, 0, 1);
  assert_int_equal(im_stats(w).generation, 2);
  join(w, p, NULL);
  assert_ok(im_talk(w, TALK(.first = 100, .count = 1)).status);
  assert_ok(order(p, TALK(.relays = 1)).status);
  assert_int_equal(p->log->record[0].number, 1);
  assert_int_equal(p->log->record[0].id, 100);
  update(w, 0, 0);
  assert_int_equal(im_stats(w).generation, 3);
  WAIT_FOR(order(p, COMMAND(DO_CHECK)).terminated);
  assert_status(MESSAGING_ELOST, order(p, COMMAND(DO_EXIT)).status);
  dismiss(p);
  finish(w);
}

/* Half of the workers are killed while all talk; the rest goes on with newcomers in one order. */
static void test_half_are_replaced_while_they_talk(void **state) {
  world *w = *state;
  if (w->where == PROCESSES) needs_pidfd();
  enum { ROUNDS = 4, WORKERS = 4, TALKS = 1500 };
  start(w, WORKERS, NULL, NULL);
  size_t first = 0; /* the list is first to first + WORKERS - 1; each round the older half is killed */
  for (uint32_t round = 0; round < ROUNDS; round++) {
    size_t received = w->log->relays;
    for (size_t i = 0; i < WORKERS; i++) {
      bool dies = i < WORKERS / 2;
      post(&w->workers[first + i], TALK(.first = 1 + 100000 * round, .count = dies ? 20000 : TALKS, .size = 10, .spread = 40));
    }
    assert_ok(im_talk(w, TALK(.relays = received + 500)).status);
    for (size_t i = 0; i < WORKERS / 2; i++) {
      kill_worker(&w->workers[first + i]);
      (void)hire(w);
    }
    first += WORKERS / 2;
    update(w, first, first + WORKERS);
    for (size_t i = WORKERS / 2; i < WORKERS; i++) join(w, &w->workers[first + i], NULL);
    for (size_t i = 0; i < WORKERS / 2; i++) assert_ok(await(&w->workers[first + i]).status);
  }
  assert_int_equal(im_stats(w).generation, 1);
  for (size_t i = 0; i < WORKERS; i++)
    assert_ok(order(&w->workers[first + i], (command){.type = DO_FLUSH, .timeout_ms = deadline_ms()}).status);
  uint32_t mark = 1000000;
  assert_ok(im_talk(w, TALK(.first = mark, .count = 1)).status);
  for (size_t i = 0; i < WORKERS; i++) assert_ok(order(&w->workers[first + i], TALK(.until_id = mark)).status);
  const logbook *log = w->workers[first].log;
  size_t at = log->count;
  while (log->record[at - 1].id != mark) at--;
  size_t total = log->record[at - 1].number;
  assert_ok(im_talk(w, TALK(.relays = total - 1)).status);
  world present = {.log = w->log};
  for (size_t i = 0; i < WORKERS; i++) present.workers[present.count++] = w->workers[first + i];
  check_one_order_up_to(&present, WORKERS, total);
  assert_int_equal(count_reports(w->log, MESSAGING_ELOST), ROUNDS * WORKERS / 2);
  finish(w);
}

/* All are killed while they talk, and a new generation begins at once: of the dead nothing is heard any more. */
static void test_nothing_crosses_generations(void **state) {
  world *w = *state;
  if (w->where == PROCESSES) needs_pidfd();
  enum { ROUNDS = SANITIZED ? 8 : 10, WORKERS = 3, EACH = 200 };
  open_im(w, NULL);
  run_im(w, 0, 0);
  for (uint32_t round = 0; round < ROUNDS; round++) {
    for (size_t i = 0; i < WORKERS; i++) (void)hire(w);
    assert_ok(bus_purge_im_mailbox(w->im));
    update(w, 0, WORKERS);
    forget_log(w);
    for (uint32_t i = 0; i < WORKERS; i++) {
      join(w, &w->workers[i], NULL);
      post(&w->workers[i], TALK(.first = 1, .count = EACH, .size = 30, .relays = WORKERS * EACH));
    }
    assert_ok(im_talk(w, TALK(.first = 1, .count = EACH, .relays = WORKERS * EACH)).status);
    for (size_t i = 0; i < WORKERS; i++) assert_ok(await(&w->workers[i]).status);
    check_one_order(w, WORKERS, (WORKERS + 1) * EACH);
    for (uint32_t i = 0; i < WORKERS; i++) post(&w->workers[i], TALK(.first = 5000, .count = 5000, .size = 30, .outputs = true));
    assert_ok(im_talk(w, TALK(.relays = WORKERS * EACH + 100 * round)).status);
    for (size_t i = 0; i < WORKERS; i++) kill_worker(&w->workers[i]);
    forget_workers(w);
  }
  assert_int_equal(im_stats(w).generation, ROUNDS + 1);
  finish(w);
}

static size_t count_socket_files(const world *w) {
  char folder[MESSAGING_ADDRESS_SIZE];
  (void)snprintf(folder, sizeof folder, "%s", w->addresses.pub + strlen("ipc://"));
  *strrchr(folder, '/') = 0;
  return count_entries(folder);
}

/* Generation after generation leaves no descriptor, thread or file behind. */
static void test_many_generations_leave_nothing(void **state) {
  world *w = *state;
  if (w->where == PROCESSES) needs_pidfd();
  enum { ROUNDS = SANITIZED ? 12 : 40, WARM_UP = 5, WORKERS = 2 };
  size_t fds = 0, threads = 0, files = 0;
  open_im(w, NULL);
  run_im(w, 0, 0);
  for (uint32_t round = 0; round < ROUNDS; round++) {
    for (size_t i = 0; i < WORKERS; i++) (void)hire(w);
    update(w, 0, WORKERS);
    for (size_t i = 0; i < WORKERS; i++) join(w, &w->workers[i], NULL);
    for (size_t i = 0; i < WORKERS; i++) assert_ok(order(&w->workers[i], TALK(.first = 1, .count = 20, .size = 100)).status);
    assert_ok(im_talk(w, TALK(.first = 1, .count = 20, .relays = (round + 1) * WORKERS * 20)).status);
    for (size_t i = 0; i < WORKERS; i++) assert_ok(order(&w->workers[i], TALK(.relays = WORKERS * 20)).status);
    for (size_t i = 0; i < WORKERS; i++)
      if (w->where == PROCESSES && round % 2) kill_worker(&w->workers[i]);
      else assert_ok(order(&w->workers[i], COMMAND(DO_EXIT)).status);
    forget_workers(w);
    if (round == WARM_UP) {
      assert_ok(bus_flush(w->im, deadline_ms()));
      pause_ms(100); /* connections of the round are closed by now, or the numbers below are looser than need be */
      fds = count_fds();
      threads = count_threads();
      files = count_socket_files(w);
    }
  }
  assert_int_equal(im_stats(w).generation, ROUNDS + 1);
  WAIT_FOR(count_fds() <= fds);
  WAIT_FOR(count_threads() <= threads);
  assert_int_equal(files, 2);
  assert_int_equal(count_socket_files(w), files);
  finish(w);
}

/* After its goodbye, the same worker may come again: a new incarnation, that gets the whole history. */
static void test_same_worker_comes_again(void **state) {
  world *w = *state;
  enum { LIVES = 3, EACH = 10 };
  start(w, 2, NULL, NULL);
  puppet *reborn = &w->workers[0], *other = &w->workers[1];
  for (uint32_t life = 1; life <= LIVES; life++) {
    logbook *log = reborn->log;
    size_t before = log->count;
    assert_ok(order(reborn, TALK(.first = 1000 * life, .count = EACH)).status);
    assert_ok(order(reborn, TALK(.relays = log->relays + EACH * (life - 1))).status);
    for (size_t i = before; i < log->count; i++) assert_int_equal(log->record[i].number, 1 + i - before);
    assert_ok(order(reborn, COMMAND(DO_EXIT)).status);
    if (life == LIVES) break;
    assert_ok(order(reborn, init_command(w, reborn, NULL)).status);
    assert_ok(order(reborn, COMMAND(DO_RUN)).status);
  }
  assert_ok(order(other, TALK(.relays = LIVES * EACH)).status);
  assert_ok(im_talk(w, TALK(.relays = LIVES * EACH)).status);
  assert_int_equal(im_stats(w).generation, 1);
  assert_null(find_report(w->log, MESSAGING_ELOST, ANYBODY));
  dismiss(reborn);
  world present = {.workers = {*other}, .log = w->log};
  check_one_order(&present, 1, LIVES * EACH);
  finish(w);
}

/* Two that claim one id: the second waits until the first has said goodbye. */
static void test_second_claimant_waits(void **state) {
  world *w = *state;
  start(w, 1, NULL, NULL);
  puppet *first = &w->workers[0], *second = hire(w);
  second->id = first->id;
  second->kind = first->kind;
  wait_joined(w, 1);
  assert_ok(order(first, TALK(.first = 1, .count = 5)).status);
  join(w, second, NULL);
  assert_ok(order(second, TALK(.first = 100, .count = 5)).status); /* kept until it is let in */
  WAIT_FOR(find_report(w->log, MESSAGING_EAUTH, first->id));
  WAIT_FOR(find_report(second->log, MESSAGING_EAUTH, ANYBODY));
  assert_true(im_stats(w).refused > 0);
  assert_ok(order(first, TALK(.first = 10, .count = 5)).status);
  assert_ok(im_talk(w, TALK(.relays = 10)).status);
  assert_ok(order(second, COMMAND(DO_RECEIVE)).status);
  assert_int_equal(second->log->count, 0);
  leave(first);
  assert_ok(order(second, TALK(.relays = 10)).status);
  assert_ok(im_talk(w, TALK(.relays = 15)).status);
  for (size_t i = 0; i < 15; i++) assert_int_equal(w->log->record[i].number, i + 1);
  finish(w);
}

/* A worker of another kind than listed is refused, for good, and both sides are told. */
static void test_wrong_kind_is_refused(void **state) {
  world *w = *state;
  start(w, 1, NULL, NULL);
  puppet *honest = &w->workers[0], *liar = hire(w);
  assert_ok(bus_add_child_process(w->im, (messaging_child){liar->id, liar->kind + 1}));
  join(w, liar, NULL);
  WAIT_FOR(find_report(w->log, MESSAGING_EKIND, liar->id));
  WAIT_FOR(find_report(liar->log, MESSAGING_EKIND, ANYBODY));
  assert_int_equal(find_report(w->log, MESSAGING_EKIND, liar->id)->kind, liar->kind);
  assert_status(MESSAGING_EKIND, order(liar, TALK(.first = 1, .count = 1)).status);
  assert_status(MESSAGING_EKIND, order(liar, COMMAND(DO_EXIT)).status);
  dismiss(liar);
  assert_ok(order(honest, TALK(.first = 1, .count = 1)).status);
  assert_ok(im_talk(w, TALK(.relays = 1)).status);
  assert_int_equal(w->log->record[0].pid, honest->id);
  assert_ok(order(honest, COMMAND(DO_EXIT)).status);
  dismiss(honest);
  finish(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_BOTH(test_purge_and_update),
      WITH_BOTH(test_update_without_purge),
      WITH_BOTH(test_survivors_keep_the_numbering),
      WITH_BOTH(test_update_from_an_empty_list),
      WITH_PROCESSES(test_half_are_replaced_while_they_talk),
      WITH_PROCESSES(test_nothing_crosses_generations),
      WITH_BOTH(test_many_generations_leave_nothing),
      WITH_BOTH(test_same_worker_comes_again),
      WITH_THREADS(test_second_claimant_waits),
      WITH_BOTH(test_wrong_kind_is_refused),
  };
  return RUN_TESTS(test_restart, tests);
}
