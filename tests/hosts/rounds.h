/*
 * rounds.h - for tests whose workers are far away: rounds of messages while something is wrong, and what everybody has to see of it
 *
 * In a round each worker sends one message and receives what is there. Workers are named by their index in the world, sets of them by bits.
 */
#ifndef ROUNDS_H
#define ROUNDS_H

#include "../harness.h"

enum { ROUND_SIZE = 100, NOBODY = 0 };

static size_t sent, sent_by[WORKERS_MAX], sent_by_im; /* messages that everybody is to have */
static uint32_t last_id;                              /* of them */
static int silence_ms;                                /* of everybody in this test */
static int64_t last_round_ms, longest_round_ms;       /* the longest time without a round: this machine itself may stand still */

/* Called once at least in each round. */
static inline void note_time(void) {
  int64_t now = now_ms();
  if (now - last_round_ms > longest_round_ms) longest_round_ms = now - last_round_ms;
  last_round_ms = now;
}

static inline void begin_rounds(int silence) {
  silence_ms = silence * test_scale();
  sent = sent_by_im = 0;
  last_id = 0;
  memset(sent_by, 0, sizeof sent_by);
  last_round_ms = now_ms();
  longest_round_ms = 0;
}

/* A process of this test that lives where the caller says, and is known by a number of its own. It is forked before there are threads. */
static inline puppet far_puppet(world *w, size_t index) {
  puppet p = make_puppet();
  fork_puppet(w, &p);
  p.id = -1 - (pid_t)index;
  return p;
}

static inline void round_of_messages(world *w) {
  note_time();
  last_id++;
  for (size_t i = 0; i < w->count; i++) post(&w->workers[i], TALK(.first = last_id, .count = 1, .size = ROUND_SIZE));
  for (size_t i = 0; i < w->count; i++) assert_ok(await(&w->workers[i]).status);
  for (size_t i = 0; i < w->count; i++) post(&w->workers[i], COMMAND(DO_RECEIVE));
  for (size_t i = 0; i < w->count; i++) assert_ok(await(&w->workers[i]).status);
  assert_ok(receive(w->im, w->log));
  for (size_t i = 0; i < w->count; i++) sent_by[i]++;
  sent += w->count;
}

/* A message of this size by one worker; the answer is awaited later. */
static inline void post_one(world *w, size_t worker, uint32_t size) {
  post(&w->workers[worker], TALK(.first = ++last_id, .count = 1, .size = size));
  sent_by[worker]++;
  sent++;
}

/* Round after round until the condition holds. */
#define TALK_UNTIL(w, condition)                                                                                           \
  do {                                                                                                                     \
    int64_t talk_until = now_ms() + deadline_ms();                                                                         \
    while (!(condition)) {                                                                                                 \
      if (now_ms() > talk_until) fail_msg("talked in vain until: %s", #condition);                                         \
      round_of_messages(w);                                                                                                \
      pause_ms(2);                                                                                                         \
    }                                                                                                                      \
  } while (0)

static inline bool everybody_has(const world *w, size_t total) {
  for (size_t i = 0; i < w->count; i++)
    if (atomic_load(&w->workers[i].log->relays) + sent_by[i] < total) return false;
  return atomic_load(&w->log->relays) + sent_by_im >= total;
}

/* ---- Who is lost, and back ---- */

static inline bool is_in(unsigned set, size_t worker) { return set >> worker & 1; }

static inline bool terminates(puppet *p) { return order(p, COMMAND(DO_CHECK)).terminated; }

static inline bool is_silent(world *w, const puppet *p) {
  messaging_worker_stats stats;
  assert_ok(bus_worker_stats(w->im, p->id, &stats));
  return stats.silent;
}

/* Both ends have noticed: the supervisor misses each of them, and each sees termination. */
static inline bool are_lost(world *w, unsigned set) {
  for (size_t i = 0; i < w->count; i++) {
    puppet *p = &w->workers[i];
    if (is_in(set, i) && (!is_silent(w, p) || count_reports(p->log, MESSAGING_ELOST) == 0 || !terminates(p))) return false;
  }
  return true;
}

static inline bool are_back(world *w) {
  for (size_t i = 0; i < w->count; i++)
    if (is_silent(w, &w->workers[i]) || terminates(&w->workers[i])) return false;
  return true;
}

/* Those who are not cut off hear each other meanwhile. */
static inline void others_go_on(world *w, unsigned cut) {
  for (size_t i = 0; i < w->count; i++) {
    size_t wanted = atomic_load(&w->workers[i].log->relays) + 20;
    if (!is_in(cut, i)) TALK_UNTIL(w, atomic_load(&w->workers[i].log->relays) >= wanted);
  }
}

/* Each of the cut was reported once at both ends, and nobody else; unless this machine itself stood still for so long that it may have
 * looked like silence. */
static inline void check_reports(world *w, unsigned cut) {
  note_time();
  bool stood_still = longest_round_ms > silence_ms / 4;
  if (stood_still) print_message("this machine stood still for %d ms: more silence than was made may have been seen\n", (int)longest_round_ms);
  for (size_t i = 0; i < w->count; i++) {
    const puppet *p = &w->workers[i];
    size_t at_im = 0, at_worker = count_reports(p->log, MESSAGING_ELOST), expected = is_in(cut, i);
    for (size_t r = 0; r < atomic_load(&w->log->reports); r++) at_im += w->log->report[r].status == MESSAGING_ELOST && w->log->report[r].pid == p->id;
    if (stood_still ? at_im < expected || at_worker < expected : at_im != expected || at_worker != expected)
      fail_msg("worker %d: lost %d times at the supervisor, %d times at itself", (int)p->id, (int)at_im, (int)at_worker);
  }
}

static inline uint64_t repeated_by_all(world *w) {
  uint64_t repeated = im_stats(w).batches_repeated;
  for (size_t i = 0; i < w->count; i++) repeated += stats_of(&w->workers[i]).batches_repeated;
  return repeated;
}

/* ---- The end ---- */

/* Everybody has everything, once and in one order, and nothing was malformed. */
static inline void all_is_there(world *w) {
  for (size_t i = 0; i < w->count; i++) post(&w->workers[i], TALK(.relays = sent - sent_by[i]));
  assert_ok(im_talk(w, TALK(.relays = sent - sent_by_im)).status);
  for (size_t i = 0; i < w->count; i++) assert_ok(await(&w->workers[i]).status);
  check_one_order(w, w->count, sent);
  for (size_t i = 0; i < w->count; i++) assert_int_equal(stats_of(&w->workers[i]).malformed, 0);
  assert_int_equal(im_stats(w).malformed, 0);
}

#endif /* ROUNDS_H */
