/* Relay messages: exactly once, in one order, numbered from 1, from the start to the end, for everybody. */
#include "harness.h"

/* Every worker and the supervisor send at once, in bursts, and receive whenever they like. */
static void test_all_see_one_order(void **state) {
  world *w = *state;
  enum { WORKERS = 3, EACH = 1000, TOTAL = (WORKERS + 1) * EACH };
  start(w, WORKERS, NULL, NULL);
  for (uint32_t i = 0; i < WORKERS; i++)
    post(&w->workers[i], TALK(.first = 10000 * (i + 1), .count = EACH, .size = 20, .spread = 100, .relays = TOTAL - EACH));
  assert_ok(im_talk(w, TALK(.first = 1, .count = EACH, .size = 64, .relays = TOTAL - EACH)).status);
  for (size_t i = 0; i < WORKERS; i++) assert_ok(await(&w->workers[i]).status);
  check_one_order(w, WORKERS, TOTAL);
  assert_int_equal(im_stats(w).next_number, TOTAL + 1);
  assert_int_equal(im_stats(w).relays_sent, EACH);
  assert_int_equal(im_stats(w).relays_received, TOTAL - EACH);
  finish(w);
}

static void test_many_senders(void **state) {
  world *w = *state;
  enum { WORKERS = 10, EACH = 300, ROUNDS = 3, TOTAL = WORKERS * EACH * ROUNDS };
  start(w, WORKERS, NULL, NULL);
  for (uint32_t round = 0; round < ROUNDS; round++) {
    size_t others = (WORKERS - 1) * EACH * (round + 1);
    for (uint32_t i = 0; i < WORKERS; i++)
      post(&w->workers[i], TALK(.first = 1000 * (round + 1), .count = EACH, .size = 1, .spread = 900, .relays = others));
    for (size_t i = 0; i < WORKERS; i++) assert_ok(await(&w->workers[i]).status);
  }
  assert_ok(im_talk(w, TALK(.relays = TOTAL)).status);
  check_one_order(w, WORKERS, TOTAL);
  finish(w);
}

/* A sender's own messages take numbers but are not delivered to it. */
static void test_own_messages_are_not_echoed(void **state) {
  world *w = *state;
  start(w, 2, NULL, NULL);
  assert_ok(order(&w->workers[0], TALK(.first = 1, .count = 10, .size = 5)).status);
  assert_ok(order(&w->workers[1], TALK(.relays = 10)).status);
  assert_ok(order(&w->workers[1], TALK(.first = 100, .count = 1, .size = 5)).status);
  assert_ok(order(&w->workers[0], TALK(.relays = 1)).status);
  assert_int_equal(w->workers[0].log->count, 1);
  assert_int_equal(w->workers[0].log->record[0].number, 11);
  assert_int_equal(w->workers[0].log->record[0].id, 100);
  assert_int_equal(w->workers[0].log->record[0].pid, w->workers[1].id);
  assert_int_equal(w->workers[0].log->record[0].kind, w->workers[1].kind);
  assert_ok(im_talk(w, TALK(.relays = 11)).status);
  check_one_order(w, 2, 11);
  finish(w);
}

/* The same bytes sent again, by the same or by another process, are another message. */
static void test_equal_payloads_are_different_messages(void **state) {
  world *w = *state;
  enum { EACH = 50 };
  start(w, 2, NULL, NULL);
  for (size_t i = 0; i < 2; i++)
    post(&w->workers[i], TALK(.first = 7, .same_id = true, .count = EACH, .size = 9, .relays = 2 * EACH));
  assert_ok(im_talk(w, TALK(.first = 7, .same_id = true, .count = EACH, .size = 9, .relays = 2 * EACH)).status);
  for (size_t i = 0; i < 2; i++) assert_ok(await(&w->workers[i]).status);
  check_one_order(w, 2, 3 * EACH);
  finish(w);
}

/* The supervisor is a sender like any other, also when nobody is listed yet. */
static void test_supervisor_sends_before_anybody_is_listed(void **state) {
  world *w = *state;
  open_im(w, NULL);
  run_im(w, 0, 0);
  assert_ok(im_talk(w, TALK(.first = 1, .count = 100, .size = 10)).status);
  puppet *p = hire(w);
  assert_ok(bus_add_child_process(w->im, child_of(p)));
  join(w, p, NULL);
  assert_ok(order(p, TALK(.relays = 100)).status);
  assert_int_equal(p->log->record[0].number, 1);
  assert_int_equal(p->log->record[0].pid, getpid());
  assert_int_equal(p->log->record[0].kind, MESSAGING_SUPERVISOR);
  check_one_order(w, 1, 100);
  finish(w);
}

static void test_sizes_from_nothing_to_megabytes(void **state) {
  world *w = *state;
  static const uint32_t sizes[] = {0, 1, 2, 255, 256, 4095, 4096, 8191, 8192, 32768, 65535, 65536, 1000000, 9000000, 3};
  enum { COUNT = sizeof sizes / sizeof sizes[0] };
  start(w, 2, NULL, NULL);
  for (uint32_t i = 0; i < COUNT; i++) {
    assert_ok(order(&w->workers[0], TALK(.first = 2 * i + 1, .count = 1, .size = sizes[i])).status);
    assert_ok(im_talk(w, TALK(.first = 2 * i + 2, .count = 1, .size = sizes[i])).status);
  }
  assert_ok(order(&w->workers[0], TALK(.relays = COUNT)).status);
  assert_ok(order(&w->workers[1], TALK(.relays = 2 * COUNT)).status);
  assert_ok(im_talk(w, TALK(.relays = COUNT)).status);
  check_one_order(w, 2, 2 * COUNT);
  for (uint32_t i = 0; i < COUNT; i++) {
    assert_int_equal(w->log->record[i].size, sizes[i]);
    assert_int_equal(w->workers[0].log->record[i].size, sizes[i]);
  }
  finish(w);
}

/* Bursts of messages of all sizes at once: in frames of many small ones and of a few large ones, some too large for what is left of a frame's memory. */
static void test_bursts_of_all_sizes(void **state) {
  world *w = *state;
  enum { WORKERS = 3, FEW = 120, MANY = 1500, TOTAL = 2 * FEW + MANY };
  start(w, WORKERS, NULL, NULL);
  post(&w->workers[0], TALK(.first = 10000, .count = FEW, .spread = 400000, .relays = TOTAL - FEW));
  post(&w->workers[1], TALK(.first = 20000, .count = MANY, .spread = 12000, .relays = TOTAL - MANY));
  post(&w->workers[2], TALK(.relays = TOTAL));
  assert_ok(im_talk(w, TALK(.first = 30000, .count = FEW, .size = 60000, .spread = 100000, .relays = TOTAL - FEW)).status);
  for (size_t i = 0; i < WORKERS; i++) assert_ok(await(&w->workers[i]).status);
  check_one_order(w, WORKERS, TOTAL);
  finish(w);
}

/* message_bytes_max is exact, on both sides, and what it refuses disturbs nothing. */
static void test_too_big(void **state) {
  world *w = *state;
  enum { MAX = 2000, FITS = MAX - FACT_OVERHEAD };
  messaging_options options = {.message_bytes_max = MAX};
  start(w, 1, &options, &options);
  puppet *p = &w->workers[0];
  for (uint32_t i = 1; i <= 3; i++) {
    assert_ok(order(p, TALK(.first = 10 * i, .count = 5, .size = FITS)).status);
    assert_status(MESSAGING_ETOOBIG, order(p, TALK(.first = 999, .count = 1, .size = FITS + 1)).status);
    assert_status(MESSAGING_ETOOBIG, order(p, TALK(.first = 999, .count = 1, .size = 1000000)).status);
    assert_ok(im_talk(w, TALK(.first = 10 * i, .count = 5, .size = FITS)).status);
    assert_status(MESSAGING_ETOOBIG, im_talk(w, TALK(.first = 999, .count = 1, .size = FITS + 1)).status);
  }
  char text[3 * MAX] = {0};
  messaging_output out = {.type = MESSAGING_LOG, .text = text, .text_size = sizeof text};
  assert_status(MESSAGING_ETOOBIG, bus_send_output_message(w->im, &out));
  assert_ok(order(p, TALK(.relays = 15)).status);
  assert_ok(im_talk(w, TALK(.relays = 15)).status);
  check_one_order(w, 1, 30);
  finish(w);
}

/* What an encoder does wrong is said at once and leaves the messages around it as they are. */
static void test_encode_that_fails_is_rolled_back(void **state) {
  world *w = *state;
  static const uint32_t tricks[] = {REFUSE, REFUSE_LATE, WRITE_NOTHING, WRITE_TWO, WRITE_HALF, NESTED + 33, NESTED + 500};
  enum { COUNT = sizeof tricks / sizeof tricks[0], EACH = 20 };
  start(w, 1, NULL, NULL);
  puppet *p = &w->workers[0];
  for (uint32_t i = 0; i < COUNT; i++) {
    assert_ok(order(p, TALK(.first = 1000 * i + 1, .count = EACH, .size = 30)).status);
    assert_status(MESSAGING_EENCODE, order(p, TALK(.first = 999, .count = 1, .size = 30, .trick = tricks[i])).status);
    assert_ok(im_talk(w, TALK(.first = 1000 * i + 1, .count = EACH, .size = 30)).status);
    assert_status(MESSAGING_EENCODE, im_talk(w, TALK(.first = 999, .count = 1, .size = 30, .trick = tricks[i])).status);
  }
  assert_ok(order(p, TALK(.relays = COUNT * EACH)).status);
  assert_ok(im_talk(w, TALK(.relays = COUNT * EACH)).status);
  check_one_order(w, 1, 2 * COUNT * EACH);
  assert_int_equal(im_stats(w).relays_sent, COUNT * EACH);
  assert_null(find_report(w->log, MESSAGING_EBADMSG, ANYBODY));
  finish(w);
}

/* Arrays nested 32 deep are the deepest that may be sent. fact_decode refuses them, which is what shows that they arrived. */
static void test_deepest_nesting_arrives(void **state) {
  world *w = *state;
  start(w, 1, NULL, NULL);
  assert_ok(im_talk(w, TALK(.first = 1, .count = 1, .trick = NESTED + 32)).status);
  assert_ok(im_talk(w, TALK(.first = 2, .count = 1)).status);
  assert_ok(order(&w->workers[0], TALK(.relays = 1)).status);
  assert_int_equal(w->workers[0].log->record[0].number, 2);
  WAIT_FOR(find_report(w->workers[0].log, MESSAGING_EBADMSG, ANYBODY));
  finish(w);
}

/* A message that does not decode is skipped alike everywhere: its number is used up, its receivers' handlers are told. */
static void test_undecodable_messages_are_skipped(void **state) {
  world *w = *state;
  enum { ROUNDS = 10, GOOD = 5 };
  start(w, 2, NULL, NULL);
  puppet *sender = &w->workers[0], *receiver = &w->workers[1];
  for (uint32_t i = 0; i < ROUNDS; i++) {
    assert_ok(order(sender, TALK(.first = 100 * i + 1, .count = GOOD, .size = 40)).status);
    assert_ok(order(sender, TALK(.first = 100 * i + 90, .count = 1, .size = 40, .trick = UNDECODABLE)).status);
  }
  assert_ok(order(sender, TALK(.first = 5000, .count = 1)).status);
  const logbook *logs[] = {w->log, receiver->log};
  assert_ok(order(receiver, TALK(.relays = ROUNDS * GOOD + 1)).status);
  assert_ok(im_talk(w, TALK(.relays = ROUNDS * GOOD + 1)).status);
  for (size_t i = 0; i < 2; i++) {
    assert_int_equal(logs[i]->relays, ROUNDS * GOOD + 1);
    for (size_t k = 0; k <= ROUNDS * GOOD; k++) assert_int_equal(logs[i]->record[k].number, k + 1 + k / GOOD);
    WAIT_FOR(count_reports(logs[i], MESSAGING_EBADMSG) == ROUNDS);
  }
  assert_int_equal(im_stats(w).malformed, ROUNDS);
  assert_int_equal(stats_of(receiver).malformed, ROUNDS);
  finish(w);
}

/* A worker that connects late, or is added later, gets all from number 1. */
static void test_late_joiners_get_the_history(void **state) {
  world *w = *state;
  enum { FIRST = 400, SECOND = 300, OWN = 200, TOTAL = FIRST + SECOND + OWN };
  open_im(w, NULL);
  for (size_t i = 0; i < 3; i++) (void)hire(w);
  run_im(w, 0, 2);
  join(w, &w->workers[0], NULL);
  assert_ok(order(&w->workers[0], TALK(.first = 1, .count = FIRST, .size = 500)).status);
  assert_ok(im_talk(w, TALK(.first = 1, .count = SECOND, .size = 50, .relays = FIRST)).status);

  join(w, &w->workers[1], NULL); /* listed from the start, but late */
  assert_ok(order(&w->workers[1], TALK(.relays = FIRST + SECOND)).status);

  assert_ok(bus_add_child_process(w->im, child_of(&w->workers[2]))); /* added later */
  join(w, &w->workers[2], NULL);
  assert_ok(order(&w->workers[2], TALK(.first = 9000, .count = OWN, .size = 5, .relays = FIRST + SECOND)).status);
  assert_ok(order(&w->workers[1], TALK(.relays = TOTAL)).status);
  assert_ok(order(&w->workers[0], TALK(.relays = SECOND + OWN)).status);
  assert_ok(im_talk(w, TALK(.relays = FIRST + OWN)).status);
  check_one_order(w, 3, TOTAL);
  assert_int_equal(im_stats(w).generation, 1);
  finish(w);
}

/* What a worker sends before it is listed is neither served nor forgotten. */
static void test_worker_sends_before_it_is_listed(void **state) {
  world *w = *state;
  enum { EACH = 150 };
  open_im(w, NULL);
  for (size_t i = 0; i < 3; i++) join(w, hire(w), NULL);
  for (uint32_t i = 0; i < 3; i++) assert_ok(order(&w->workers[i], TALK(.first = 1, .count = EACH, .size = 33)).status);
  run_im(w, 0, 1);
  assert_ok(im_talk(w, TALK(.relays = EACH)).status);
  update(w, 0, 2);
  assert_ok(im_talk(w, TALK(.relays = 2 * EACH)).status);
  assert_ok(bus_add_child_process(w->im, child_of(&w->workers[2])));
  assert_ok(im_talk(w, TALK(.relays = 3 * EACH)).status);
  for (size_t i = 0; i < 3; i++) assert_ok(order(&w->workers[i], TALK(.relays = 2 * EACH)).status);
  check_one_order(w, 3, 3 * EACH);
  finish(w);
}

/* The steps by which supervisor and worker come together, in every order that is possible. */
enum { FORK, OPEN, INIT, RUN, SEND, RUN_IM, LIST, STEPS };

static bool order_is_possible(const int *steps) {
  int at[STEPS];
  for (int i = 0; i < STEPS; i++) at[steps[i]] = i;
  return at[FORK] < at[INIT] && at[OPEN] < at[INIT] && at[INIT] < at[RUN] && at[RUN] < at[SEND] && at[OPEN] < at[RUN_IM] &&
         at[RUN_IM] < at[LIST] && at[FORK] < at[LIST];
}

static void come_together(world *w, const int *steps) {
  puppet *p = NULL;
  for (int i = 0; i < STEPS; i++) switch (steps[i]) {
    case FORK: p = hire(w); break;
    case OPEN: open_im(w, NULL); break;
    case INIT: assert_ok(order(p, init_command(w, p, NULL)).status); break;
    case RUN: assert_ok(order(p, COMMAND(DO_RUN)).status); break;
    case SEND: assert_ok(order(p, TALK(.first = 10, .count = 3)).status); break;
    case RUN_IM:
      run_im(w, 0, 0);
      assert_ok(im_talk(w, TALK(.first = 1, .count = 2)).status);
      break;
    case LIST: assert_ok(bus_add_child_process(w->im, child_of(p))); break;
    }
  assert_ok(order(p, TALK(.relays = 2)).status);
  assert_ok(im_talk(w, TALK(.relays = 3)).status);
  check_one_order(w, 1, 5);
  assert_ok(order(p, COMMAND(DO_EXIT)).status);
  assert_ok(bus_exit(&w->im));
  forget_workers(w);
  forget_log(w);
}

static int try_orders(world *w, int *steps, int from) {
  if (from == STEPS) {
    if (!order_is_possible(steps)) return 0;
    come_together(w, steps);
    return 1;
  }
  int tried = 0;
  for (int i = from; i < STEPS; i++) {
    int first = steps[from];
    steps[from] = steps[i];
    steps[i] = first;
    tried += try_orders(w, steps, from + 1);
    steps[i] = steps[from];
    steps[from] = first;
  }
  return tried;
}

static void test_order_of_coming_together_never_matters(void **state) {
  int steps[STEPS] = {FORK, OPEN, INIT, RUN, SEND, RUN_IM, LIST};
  assert_int_equal(try_orders(*state, steps, 0), 24);
}

/* Batches and what decode kept pointers to live until they are freed, in any order. */
static void test_batches_live_until_freed(void **state) {
  world *w = *state;
  enum { COUNT = 300, KEPT = 64 };
  start(w, 1, NULL, NULL);
  puppet *p = &w->workers[0];
  bus_batch kept[KEPT];
  size_t batches = 0, messages = 0;
  memset(kept, 0, sizeof kept);
  for (uint32_t sent = 0; messages < COUNT;) {
    if (sent < COUNT) {
      assert_ok(order(p, TALK(.first = sent + 1, .count = COUNT / 10, .size = 700)).status);
      sent += COUNT / 10;
    }
    assert_ok(bus_wait(w->im, deadline_ms()));
    assert_true(batches < KEPT);
    assert_ok(bus_recv(w->im, &kept[batches]));
    messages += kept[batches++].count;
  }
  uint32_t id = 1;
  for (size_t i = 0; i < batches; i++)
    for (size_t k = 0; k < kept[i].count; k++, id++) {
      const bus_message *m = &kept[i].messages[k];
      assert_int_equal(m->relay.message.id, id);
      assert_int_equal(m->relay.message.text_size, 700);
      assert_true(text_is(m->relay.message.text, id, 700));
    }
  for (size_t i = 0; i < batches; i += 2) assert_ok(bus_batch_free(&kept[i]));
  for (size_t i = 1; i < batches; i += 2) assert_ok(bus_batch_free(&kept[i]));
  finish(w);
}

/* The last message of a burst is as safe as any other: it arrives though nothing follows it. */
static void test_tail_of_a_burst(void **state) {
  world *w = *state;
  enum { BURSTS = 50 };
  start(w, 2, NULL, NULL);
  size_t total = 0;
  for (uint32_t i = 0; i < BURSTS; i++) {
    uint32_t count = 1 + i * 7 % 120;
    total += count;
    assert_ok(order(&w->workers[0], TALK(.first = 1000 * (i + 1), .count = count, .size = 100)).status);
    assert_ok(order(&w->workers[1], TALK(.relays = total)).status);
  }
  assert_ok(im_talk(w, TALK(.relays = total)).status);
  check_one_order(w, 2, total);
  finish(w);
}

static int room_of(int fd) {
  int bytes = 0;
  socklen_t size = sizeof bytes;
  return getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &size) == 0 ? bytes : -1;
}

/* Sockets of this process with so much room, among those that were accepted, or made, at an address. */
static size_t connections_with(int room, const char *address, bool made) {
  size_t found = 0;
  for (int fd = 0; fd < 1024; fd++) {
    struct sockaddr_un own, peer;
    messaging__path_of(fd, false, &own);
    messaging__path_of(fd, true, &peer);
    found += strcmp((made ? peer : own).sun_path, address + strlen("ipc://")) == 0 && room_of(fd) == room;
  }
  return found;
}

/* Both ends give the connections on which they send more room than is usual, as far as the system allows it (net.core.wmem_max). All others stay as
 * they are; also one that has the number of a connection which has ended. */
static void test_connections_hold_whole_frames(void **state) {
  world *w = *state;
  enum { WORKERS = 3 };
  int others[2], wanted = MESSAGING__SOCKET_BYTES;
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, others), 0);
  assert_int_equal(setsockopt(others[1], SOL_SOCKET, SO_SNDBUF, &wanted, sizeof wanted), 0);
  int usual = room_of(others[0]), wide = room_of(others[1]);
  start(w, WORKERS, NULL, NULL);
  if (wide > usual) {
    WAIT_FOR(connections_with(wide, w->addresses.pub, false) == WORKERS);
    WAIT_FOR(connections_with(wide, w->addresses.pull, true) == WORKERS);
    messaging__widen(&w->im->handle, others[0]);
    assert_int_equal(room_of(others[0]), usual);
    assert_int_equal(connections_with(usual, w->addresses.pub, true), WORKERS);
    assert_int_equal(connections_with(usual, w->addresses.pull, false), WORKERS + 1); /* and who listens */
  } else {
    print_message("this system's sockets have %d bytes of room, and may not have more\n", usual);
  }
  for (int i = 0; i < 2; i++) assert_int_equal(close(others[i]), 0);
  finish(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_BOTH(test_all_see_one_order),
      WITH_BOTH(test_many_senders),
      WITH_BOTH(test_own_messages_are_not_echoed),
      WITH_BOTH(test_equal_payloads_are_different_messages),
      WITH_BOTH(test_supervisor_sends_before_anybody_is_listed),
      WITH_BOTH(test_sizes_from_nothing_to_megabytes),
      WITH_BOTH(test_bursts_of_all_sizes),
      WITH_BOTH(test_too_big),
      WITH_BOTH(test_encode_that_fails_is_rolled_back),
      WITH_THREADS(test_deepest_nesting_arrives),
      WITH_BOTH(test_undecodable_messages_are_skipped),
      WITH_BOTH(test_late_joiners_get_the_history),
      WITH_BOTH(test_worker_sends_before_it_is_listed),
      WITH_BOTH(test_order_of_coming_together_never_matters),
      WITH_BOTH(test_batches_live_until_freed),
      WITH_BOTH(test_tail_of_a_burst),
      WITH_THREADS(test_connections_hold_whole_frames),
  };
  return RUN_TESTS(test_relay, tests);
}
