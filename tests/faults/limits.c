/* Applications that never receive, and messages at the limit and one byte beyond it. */
#include "faults.h"

/* ---- Never receiving ------------------------------------------------------------------------------------------------------ */

enum { COUNT = 6000, SIZE = 5000, INBOX = 64 * 1024, SLACK_KB = 16 * 1024, TINY = 2000 };

static const messaging_options large = {.message_bytes_max = 2 * SIZE, .exit_timeout_ms = 60000};
static const messaging_options small_inbox = {.message_bytes_max = 2 * SIZE, .inbox_bytes_max = INBOX, .exit_timeout_ms = 60000};

/* 30 MB pass by a worker that does not receive, whose inbox holds 64 kB. */
static void worker_never_receives(void **state) {
  world *w = *state;
  start(w, 2, &large, &large);
  puppet *idle = hire(w);
  assert_ok(bus_add_child_process(w->im, child_of(idle)));
  join(w, idle, &small_inbox);
  wait_joined(w, 3);
  size_t before = process_field(idle->pid, "RssAnon");
  post(&w->workers[1], TALK(.relays = COUNT));
  assert_ok(order(&w->workers[0], TALK(.first = 1, .count = COUNT, .size = SIZE)).status);
  assert_ok(await(&w->workers[1]).status);
  assert_ok(im_talk(w, TALK(.relays = COUNT)).status);
  size_t after = process_field(idle->pid, "RssAnon");
  messaging_stats stats = stats_of(idle);
  assert_int_equal(atomic_load(&idle->log->count), 0);
  happened("the others had all %d MB; its inbox %d of %d bytes, its memory %+d kB", COUNT * SIZE / 1000000, (int)stats.inbox_bytes, INBOX,
           (int)after - (int)before);
  assert_true(stats.inbox_bytes <= INBOX);
  if (!SANITIZED) assert_true(after <= before + SLACK_KB);
  assert_ok(order(idle, TALK(.relays = COUNT)).status); /* and if it wants them after all */
  check_one_order(w, 3, COUNT);
  finish(w);
}

/* Sends until there is no room for good; how many were taken. */
static uint32_t fill(world *w, puppet *p, uint32_t first) {
  uint32_t accepted = 0;
  for (int refusals = 0; refusals < 20; refusals++) { /* what is on its way may still make room */
    command c = TALK(.first = first + accepted, .count = 10000, .size = 500, .stop_when_full = true);
    reply r = p ? order(p, c) : im_talk(w, c);
    assert_status(MESSAGING_EFULL, r.status);
    if (r.accepted > 0) refusals = 0;
    accepted += r.accepted;
    pause_ms(5);
  }
  return accepted;
}

/* With a small history, whoever sends is told that it is full; the one that does not receive, which sends nothing, is told nothing. */
static void worker_holds_back_a_full_history(void **state) {
  world *w = *state;
  messaging_options im = {.exit_timeout_ms = 60000, .message_bytes_max = TINY, .history_bytes_max = 100 * 1000, .outbox_bytes_max = 10 * 1000};
  messaging_options each = {.exit_timeout_ms = 60000, .message_bytes_max = TINY, .outbox_bytes_max = 10 * 1000, .inbox_bytes_max = 2 * TINY};
  start(w, 2, &im, &each);
  wait_joined(w, 2);
  puppet *idle = &w->workers[1];
  uint32_t mine = fill(w, NULL, 1), theirs = fill(w, &w->workers[0], 1);
  messaging_stats stats = im_stats(w);
  assert_true(stats.history_bytes <= stats.history_bytes_max);
  assert_int_equal(atomic_load(&idle->log->reports), 0);
  messaging_status own = order(idle, TALK(.first = 1, .count = 1, .size = 100)).status; /* goes to its own outbox, which is empty */
  happened("after %u and %u sends EFULL at supervisor and sender; the idle one's send: %s; then all arrive", mine, theirs, status_name(own));
  assert_ok(own);
  post(idle, TALK(.relays = mine + theirs));
  post(&w->workers[0], TALK(.relays = mine + 1));
  assert_ok(im_talk(w, TALK(.relays = theirs + 1)).status);
  for (size_t i = 0; i < 2; i++) assert_ok(await(&w->workers[i]).status);
  check_one_order(w, 2, mine + theirs + 1);
  finish(w);
}

/* The supervisor's application takes nothing: who sends it output messages is told, relays among the others pass. */
static void supervisor_never_receives(void **state) {
  world *w = *state;
  messaging_options im = {.exit_timeout_ms = 60000, .message_bytes_max = TINY, .inbox_bytes_max = 2 * TINY};
  messaging_options each = {.exit_timeout_ms = 60000, .message_bytes_max = TINY, .outbox_bytes_max = 2 * TINY};
  enum { RELAYS = 20000 };
  start(w, 3, &im, &each);
  wait_joined(w, 3);
  size_t before = process_field(getpid(), "RssAnon");
  command outputs = TALK(.first = 1, .count = 10000, .size = 500, .only_outputs = true, .stop_when_full = true);
  uint32_t accepted = 0;
  for (int refusals = 0; refusals < 20; refusals++) {
    outputs.talk.first = 1 + accepted;
    reply r = order(&w->workers[0], outputs);
    assert_status(MESSAGING_EFULL, r.status);
    if (r.accepted > 0) refusals = 0;
    accepted += r.accepted;
    pause_ms(5);
  }
  post(&w->workers[2], TALK(.relays = RELAYS));
  assert_ok(order(&w->workers[1], TALK(.first = 1, .count = RELAYS, .size = 100)).status);
  assert_ok(await(&w->workers[2]).status);
  size_t after = process_field(getpid(), "RssAnon");
  messaging_stats stats = im_stats(w);
  assert_int_equal(atomic_load(&w->log->count), 0);
  assert_true(stats.inbox_bytes <= stats.inbox_bytes_max);
  happened("EFULL to the sender of outputs after %u; %d relays pass; %+d kB for %d kB of history", accepted, RELAYS, (int)after - (int)before,
           (int)(stats.history_bytes / 1000));
  if (!SANITIZED) assert_true(after <= before + stats.history_bytes / 1000 * 2 + SLACK_KB);
  assert_ok(order(&w->workers[0], TALK(.relays = RELAYS)).status);
  assert_ok(im_talk(w, TALK(.relays = RELAYS, .outputs_in = accepted)).status);
  check_one_order(w, 3, RELAYS);
  finish(w);
}

/* ---- One byte too large --------------------------------------------------------------------------------------------------- */

/* The text of a fact whose encoding has so many bytes. */
static uint32_t text_for(size_t bytes) { return (uint32_t)(bytes - FACT_OVERHEAD - (bytes > 65535 + FACT_OVERHEAD ? 2 : 0)); }

static messaging_status output_of(bus_ctx *ctx, size_t bytes) {
  char *text = malloc(bytes);
  if (!text) return MESSAGING_ENOMEM;
  text_fill(text, 1, bytes);
  messaging_output out = {.type = MESSAGING_LOG, .value = 1, .text = text, .text_size = bytes};
  messaging_status status = bus_send_output_message(ctx, &out);
  free(text);
  return status;
}

static void at_the_limit(void **state) {
  world *w = *state;
  size_t limit = the_row->argument;
  messaging_options options = {.exit_timeout_ms = 60000, .message_bytes_max = limit == (size_t)16 << 20 ? 0 : limit};
  uint32_t fits = text_for(limit), small = 10;
  start(w, 2, &options, &options);
  puppet *p = &w->workers[0], *q = &w->workers[1];
  for (uint32_t i = 1; i <= 2; i++) {
    assert_ok(order(p, TALK(.first = 100 * i, .count = small, .size = 30)).status);
    assert_status(MESSAGING_ETOOBIG, order(p, TALK(.first = 999, .count = 1, .size = fits + 1)).status);
    assert_ok(order(p, TALK(.first = 100 * i + 50, .count = 1, .size = fits)).status);
    assert_status(MESSAGING_ETOOBIG, im_talk(w, TALK(.first = 999, .count = 1, .size = fits + 1)).status);
    assert_ok(im_talk(w, TALK(.first = 100 * i + 50, .count = 1, .size = fits)).status);
  }
  assert_status(MESSAGING_ETOOBIG, output_of(w->im, limit));
  assert_ok(output_of(w->im, limit - 32));
  assert_ok(order(q, TALK(.relays = 2 * small + 4)).status);
  assert_ok(order(p, TALK(.relays = 2)).status);
  assert_ok(im_talk(w, TALK(.relays = 2 * small + 2)).status);
  check_one_order(w, 2, 2 * small + 4);
  assert_int_equal(atomic_load(&w->log->reports), 0);
  injected("a message of %zu bytes, and one of %zu", limit + 1, limit);
  happened("ETOOBIG at worker and supervisor; the exact one and the %u others arrive, no report", 2 * small);
  finish(w);
}

static const row idle_rows[] = {
    ROW(worker_never_receives, .injected = "a worker never receives while 30 MB pass",
        .must = "the others are not delayed; its inbox and memory (16 MB) are bounded"),
    ROW(worker_holds_back_a_full_history, .injected = "it never receives, and the history is small",
        .must = "EFULL to who sends, not to it; then all arrive", .quick = true),
    ROW(supervisor_never_receives, .injected = "the supervisor's application never receives",
        .must = "relays pass; EFULL to the sender of outputs; memory is bounded"),
};

static const row largest_rows[] = {
    ROW(at_the_limit, .must = "ETOOBIG and OK; nothing else is disturbed", .argument = 2000, .quick = true),
    ROW(at_the_limit, .must = "ETOOBIG and OK; nothing else is disturbed", .argument = (size_t)16 << 20),
};

GROUP(idle_group, "9. Applications that never receive", idle_rows);
GROUP(largest_group, "10. The largest message", largest_rows);
