/* Several threads that use one handle while one of them waits in flush. A hook on the wait for progress counts, and has another thread act at that instant. */
#include <pthread.h>
#include <time.h>

static int wait_for_progress(pthread_cond_t *cond, pthread_mutex_t *lock);
static int wait_for_progress_until(pthread_cond_t *cond, pthread_mutex_t *lock, const struct timespec *until);
#define pthread_cond_wait wait_for_progress
#define pthread_cond_timedwait wait_for_progress_until
#include "harness.h"
#undef pthread_cond_wait
#undef pthread_cond_timedwait

static atomic_long waits;
static void (*_Atomic just_before)(void); /* done once, by the thread that is about to wait */

static void about_to_wait(void) {
  void (*act)(void) = atomic_exchange(&just_before, NULL);
  atomic_fetch_add(&waits, 1);
  if (act) act();
}

static int wait_for_progress(pthread_cond_t *cond, pthread_mutex_t *lock) {
  about_to_wait();
  return pthread_cond_wait(cond, lock);
}

static int wait_for_progress_until(pthread_cond_t *cond, pthread_mutex_t *lock, const struct timespec *until) {
  about_to_wait();
  return pthread_cond_timedwait(cond, lock, until);
}

enum { FLUSHERS = 3, FLUSH_MS = 300, WAITS_MAX = 200 };

static void *flush_in_vain(void *ctx) { return bus_flush(ctx, FLUSH_MS) == MESSAGING_ETIMEDOUT ? ctx : NULL; }
static void *flush_for_ever(void *ctx) { return bus_flush(ctx, -1) == MESSAGING_OK ? ctx : NULL; }

static void begin(pthread_t threads[FLUSHERS], void *flush(void *), bus_ctx *worker) {
  atomic_store(&waits, 0);
  for (int i = 0; i < FLUSHERS; i++) assert_int_equal(pthread_create(&threads[i], NULL, flush, worker), 0);
}

static void end(const pthread_t threads[FLUSHERS]) {
  for (int i = 0; i < FLUSHERS; i++) {
    void *as_expected;
    assert_int_equal(pthread_join(threads[i], &as_expected), 0);
    assert_non_null(as_expected);
  }
}

/* What one of them does to find out is nothing new for the others: they would look in turn for ever, thousands of times. But all are told when it is so. */
static void test_flushers(void **state) {
  world *w = *state;
  messaging_options options = {.id = -1};
  pthread_t threads[FLUSHERS];
  bus_ctx *worker;
  start(w, 0, NULL, NULL);
  assert_ok(bus_init_worker(&worker, 7, w->addresses.pub, w->addresses.pull, &options));
  assert_ok(bus_run_worker(worker, NULL, NULL));
  assert_ok(send_fact(worker, 1, PLAIN, 10)); /* nobody accepts it, since this worker is not listed */
  begin(threads, flush_in_vain, worker);
  end(threads);
  assert_in_range(atomic_load(&waits), FLUSHERS, WAITS_MAX);
  begin(threads, flush_for_ever, worker);
  WAIT_FOR(atomic_load(&waits) >= FLUSHERS);
  assert_ok(bus_add_child_process(w->im, (messaging_child){-1, 7}));
  end(threads);
  assert_ok(bus_exit(&worker));
  finish(w);
}

/* ---- A send while core is about to be let go of without a look ---------------------------------------------------------- */

static bool seen_to;

static void *send_an_output(void *ctx) {
  pause_ms(1); /* who sends more often leaves it to the background thread anyway */
  ignore(send_output(ctx, 1, 10));
  return NULL;
}

/* The one that waits holds core, so this send leaves word; then somebody has to have been woken for it. */
static void send_from_another_thread(void) {
  messaging__handle *handle = &the_world.im->handle;
  uint64_t before = MESSAGING__LOAD(&handle->wakeups);
  pthread_t sender;
  if (pthread_create(&sender, NULL, send_an_output, the_world.im) != 0) return;
  (void)pthread_join(sender, NULL);
  seen_to = messaging__readable_now(handle->wake_fd) || MESSAGING__LOAD(&handle->wakeups) != before;
}

static void test_word_left_with_a_waiter_is_seen_to(void **state) {
  world *w = *state;
  messaging_options quiet = {.heartbeat_ms = 20000, .silence_ms = 60000};
  start(w, 1, &quiet, &quiet);
  wait_joined(w, 1);
  assert_int_equal(kill(w->workers[0].pid, SIGSTOP), 0);
  assert_int_equal(waitpid(w->workers[0].pid, NULL, WUNTRACED), w->workers[0].pid); /* it has stopped */
  assert_ok(send_fact(w->im, 1, PLAIN, 10)); /* so flush has something to wait for */
  atomic_store(&just_before, send_from_another_thread);
  assert_status(MESSAGING_ETIMEDOUT, bus_flush(w->im, FLUSH_MS));
  assert_true(seen_to);
  WAIT_FOR(receive(w->im, w->log) == MESSAGING_OK && w->log->count == 1);
  assert_int_equal(kill(w->workers[0].pid, SIGCONT), 0);
  finish(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_THREADS(test_flushers),
      WITH_PROCESSES(test_word_left_with_a_waiter_is_seen_to),
  };
  return RUN_TESTS(test_waiters, tests);
}
