/* Output messages: as reliable as relay messages, and in order with those of the same sender. */
#include "harness.h"

/* A worker's facts and outputs reach the supervisor's application in the order in which they were sent. */
static void test_outputs_keep_the_order_with_relays(void **state) {
  world *w = *state;
  enum { WORKERS = 3, EACH = 1000 };
  start(w, WORKERS, NULL, NULL);
  for (uint32_t i = 0; i < WORKERS; i++)
    post(&w->workers[i], TALK(.first = 1, .count = EACH, .size = 10, .spread = 300, .outputs = true, .relays = (WORKERS - 1) * EACH));
  assert_ok(im_talk(w, TALK(.relays = WORKERS * EACH, .outputs_in = WORKERS * EACH)).status);
  for (size_t i = 0; i < WORKERS; i++) assert_ok(await(&w->workers[i]).status);
  check_one_order(w, WORKERS, WORKERS * EACH);
  for (size_t i = 0; i < WORKERS; i++) {
    uint32_t seen = 0; /* fact 1, output 1, fact 2, output 2, ... */
    for (size_t k = 0; k < w->log->count; k++) {
      const record *r = &w->log->record[k];
      if (r->pid != w->workers[i].id) continue;
      assert_int_equal(r->kind, w->workers[i].kind);
      assert_int_equal(r->type, seen % 2 ? MESSAGING_OUTPUT_MESSAGE : MESSAGING_RELAY_MESSAGE);
      assert_int_equal(r->id, 1 + seen / 2);
      seen++;
    }
    assert_int_equal(seen, 2 * EACH);
    assert_int_equal(w->workers[i].log->outputs, 0); /* they are for the supervisor alone */
  }
  assert_int_equal(im_stats(w).outputs_received, WORKERS * EACH);
  finish(w);
}

static void test_many_outputs(void **state) {
  world *w = *state;
  enum { WORKERS = 2, EACH = 20000 };
  start(w, WORKERS, NULL, NULL);
  for (uint32_t i = 0; i < WORKERS; i++)
    post(&w->workers[i], TALK(.first = 1, .count = EACH, .size = 1, .spread = 60, .only_outputs = true));
  assert_ok(im_talk(w, TALK(.outputs_in = WORKERS * EACH)).status);
  for (size_t i = 0; i < WORKERS; i++) {
    assert_int_equal(await(&w->workers[i]).accepted, EACH);
    assert_int_equal(stats_of(&w->workers[i]).outputs_sent, EACH);
    uint32_t seen = 0;
    for (size_t k = 0; k < w->log->count; k++)
      if (w->log->record[k].pid == w->workers[i].id) assert_int_equal(w->log->record[k].id, ++seen);
    assert_int_equal(seen, EACH);
  }
  assert_int_equal(w->log->broken, 0);
  finish(w);
}

/* Sends an output message from a worker's handle in this process and receives it at the supervisor. */
static void check_output(world *w, bus_ctx *sender, pid_t pid, messaging_kind kind, messaging_output out) {
  assert_ok(bus_send_output_message(sender, &out));
  assert_ok(bus_wait(w->im, deadline_ms()));
  bus_batch batch = {0};
  assert_ok(bus_recv(w->im, &batch));
  assert_int_equal(batch.count, 1);
  const bus_message *m = &batch.messages[0];
  assert_int_equal(m->type, MESSAGING_OUTPUT_MESSAGE);
  assert_int_equal(m->pid, pid);
  assert_int_equal(m->kind, kind);
  assert_int_equal(m->output.type, out.type);
  if (out.type != MESSAGING_STAT) assert_true(m->output.value == out.value);
  if (out.type != MESSAGING_PROGRESS) {
    assert_int_equal(m->output.text_size, out.text_size);
    if (out.text_size > 0) assert_memory_equal(m->output.text, out.text, out.text_size);
  }
  assert_ok(bus_batch_free(&batch));
}

static void check_outputs(world *w, bus_ctx *sender, pid_t pid, messaging_kind kind) {
  char bytes[256];
  for (int i = 0; i < 256; i++) bytes[i] = (char)i;
  size_t large_size = 3 * 1000 * 1000;
  char *large = malloc(large_size);
  assert_non_null(large);
  text_fill(large, 5, large_size);
  check_output(w, sender, pid, kind, (messaging_output){MESSAGING_LOG, 3, "a line", 6});
  check_output(w, sender, pid, kind, (messaging_output){MESSAGING_LOG, INT64_MIN, bytes, sizeof bytes});
  check_output(w, sender, pid, kind, (messaging_output){MESSAGING_LOG, INT64_MAX, large, large_size});
  check_output(w, sender, pid, kind, (messaging_output){MESSAGING_LOG, -1, "", 0});
  check_output(w, sender, pid, kind, (messaging_output){MESSAGING_LOG, 0, NULL, 0});
  check_output(w, sender, pid, kind, (messaging_output){MESSAGING_STAT, 0, "<x/>\0\xff\n", 7});
  check_output(w, sender, pid, kind, (messaging_output){MESSAGING_STAT, 0, bytes, sizeof bytes});
  check_output(w, sender, pid, kind, (messaging_output){MESSAGING_PROGRESS, 17, NULL, 0});
  check_output(w, sender, pid, kind, (messaging_output){MESSAGING_PROGRESS, INT64_MIN, NULL, 0});
  free(large);
}

static bus_ctx *worker_here(world *w, pid_t id, messaging_kind kind) {
  bus_ctx *here = NULL;
  messaging_options options = {.id = id};
  assert_ok(bus_init_worker(&here, kind, w->addresses.pub, w->addresses.pull, &options));
  assert_ok(bus_add_child_process(w->im, (messaging_child){id, kind}));
  assert_ok(bus_run_worker(here, NULL, NULL));
  return here;
}

/* Any level, any bytes; from a worker, and from the supervisor to its own application. */
static void test_contents(void **state) {
  world *w = *state;
  start(w, 0, NULL, NULL);
  bus_ctx *here = worker_here(w, -77, 4);
  check_outputs(w, here, -77, 4);
  check_outputs(w, w->im, getpid(), MESSAGING_SUPERVISOR);
  assert_ok(bus_exit(&here));
  finish(w);
}

static void test_impossible_outputs_are_refused(void **state) {
  world *w = *state;
  start(w, 0, NULL, NULL);
  bus_ctx *here = worker_here(w, -77, 4);
  bus_ctx *both[] = {here, w->im};
  for (size_t i = 0; i < 2; i++) {
    assert_status(MESSAGING_EINVAL, bus_send_output_message(both[i], NULL));
    assert_status(MESSAGING_EINVAL, bus_send_output_message(both[i], &(messaging_output){(messaging_output_type)3, 0, "x", 1}));
    assert_status(MESSAGING_EINVAL, bus_send_output_message(both[i], &(messaging_output){MESSAGING_LOG, 0, NULL, 1}));
    assert_status(MESSAGING_EINVAL, bus_send_output_message(both[i], &(messaging_output){MESSAGING_STAT, 0, NULL, 9}));
  }
  check_output(w, here, -77, 4, (messaging_output){MESSAGING_LOG, 1, "still there", 11});
  assert_ok(bus_exit(&here));
  finish(w);
}

/* What a worker said just before it left is not lost. */
static void test_last_words(void **state) {
  world *w = *state;
  enum { WORKERS = 4, EACH = 500 };
  start(w, WORKERS, NULL, NULL);
  for (size_t i = 0; i < WORKERS; i++) {
    assert_ok(order(&w->workers[i], TALK(.first = 1, .count = EACH, .size = 200, .only_outputs = true)).status);
    assert_ok(order(&w->workers[i], COMMAND(DO_EXIT)).status);
    dismiss(&w->workers[i]);
  }
  assert_ok(im_talk(w, TALK(.outputs_in = WORKERS * EACH)).status);
  assert_int_equal(w->log->broken, 0);
  finish(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_BOTH(test_outputs_keep_the_order_with_relays),
      WITH_BOTH(test_many_outputs),
      WITH_THREADS(test_contents),
      WITH_THREADS(test_impossible_outputs_are_refused),
      WITH_BOTH(test_last_words),
  };
  return RUN_TESTS(test_output, tests);
}
