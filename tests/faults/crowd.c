/* Many workers on two cores. */
#define HARNESS_WORKERS_MAX 260
#include "faults.h"

/* Under sanitizers, which want all processes forked before the row, fewer. */
static const size_t crowd = SANITIZED ? 64 : 256;

static void many_workers(void **state) {
  world *w = *state;
  struct rlimit limit;
  int64_t began = now_ms();
  injected("%d workers, one relay from each", (int)crowd);
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max < crowd * 5 + 100) { /* its own, 3 of the library's, one for the harness; some */
    skip_row("the hard limit of descriptors is too low (ulimit -Hn)");
    return;
  }
  limit.rlim_cur = limit.rlim_max;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
  open_im(w, &patient);
  for (size_t i = 0; i < crowd; i++) (void)hire(w);
  run_im(w, 0, crowd);
  for (size_t i = 0; i < crowd; i++) post(&w->workers[i], init_command(w, &w->workers[i], &patient));
  for (size_t i = 0; i < crowd; i++) assert_ok(await(&w->workers[i]).status);
  for (size_t i = 0; i < crowd; i++) post(&w->workers[i], COMMAND(DO_RUN));
  for (size_t i = 0; i < crowd; i++) assert_ok(await(&w->workers[i]).status);
  wait_joined(w, (uint32_t)crowd);
  int64_t joined = now_ms();
  for (size_t i = 0; i < crowd; i++) post(&w->workers[i], TALK(.first = (uint32_t)i + 1, .count = 1, .size = 40, .relays = crowd - 1));
  assert_ok(im_talk(w, TALK(.relays = crowd)).status);
  for (size_t i = 0; i < crowd; i++) assert_ok(await(&w->workers[i]).status);
  check_one_order(w, crowd, crowd);
  int64_t relayed = now_ms();
  for (size_t i = 0; i < crowd; i++) post(&w->workers[i], COMMAND(DO_EXIT));
  for (size_t i = 0; i < crowd; i++) assert_ok(await(&w->workers[i]).status);
  assert_null(find_report(w->log, MESSAGING_ELOST, ANYBODY));
  assert_ok(bus_exit(&w->im));
  for (size_t i = 0; i < crowd; i++) dismiss(&w->workers[i]);
  happened("joined in %.1f s, %d deliveries in %.1f s, left in %.1f s", (double)(joined - began) / 1000, (int)(crowd * crowd),
           (double)(relayed - joined) / 1000, (double)(now_ms() - relayed) / 1000);
}

static const row crowd_rows[] = {
    ROW(many_workers, .must = "each reaches all others and the supervisor once; all exit OK"),
};

GROUP(crowd_group, "11. A crowd", crowd_rows);
