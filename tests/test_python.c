/* A worker in Python (tests/python/worker.py), written from the wire's documentation alone, among C peers. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../messaging.h"

static int encode(msgpack_packer *pk, const uint64_t *in) { return msgpack_pack_uint64(pk, *in); }
static int decode(const msgpack_object *obj, msgpack_zone *zone, uint64_t *out) {
  (void)zone;
  *out = obj->via.u64;
  return obj->type != MSGPACK_OBJECT_POSITIVE_INTEGER;
}
MESSAGING_MAKE(bus, uint64_t, encode, decode);

enum { KIND = 5, C_ID = -1, PYTHON_ID = -2, FROM_C = 100, FROM_IM = 20, FROM_PYTHON = 50, LINES_MAX = 1000, DEADLINE_MS = 60000, TICK_MS = 5 };

typedef struct {
  bus_ctx *im, *worker;
  messaging_addresses at;
  uint64_t numbers[LINES_MAX], values[LINES_MAX]; /* what everybody must see, by number; filled by the supervisor and its sends */
} system_under_test;

static void start(system_under_test *sut) {
  messaging_options options = {0};
  options.id = C_ID;
  memset(sut, 0, sizeof *sut);
  assert_int_equal(bus_init_im(&sut->im, &sut->at, NULL), MESSAGING_OK);
  messaging_child children[2] = {{C_ID, KIND}, {PYTHON_ID, KIND}};
  assert_int_equal(bus_run_im(sut->im, children, 2, NULL, NULL), MESSAGING_OK);
  assert_int_equal(bus_init_worker(&sut->worker, KIND, sut->at.pub, sut->at.pull, &options), MESSAGING_OK);
  assert_int_equal(bus_run_worker(sut->worker, NULL, NULL), MESSAGING_OK);
}

static FILE *python(const system_under_test *sut, int expect, int lose) {
  char command[1000];
  snprintf(command, sizeof command, "timeout 100 /usr/bin/python3 tests/python/worker.py %s %s %d %d %d %d %d 2>&1", sut->at.pub, sut->at.pull, PYTHON_ID,
           KIND, FROM_PYTHON, expect, lose);
  FILE *output = popen(command, "r");
  assert_non_null(output);
  return output;
}

static void await_joined(const bus_ctx *im, uint32_t workers) {
  messaging_stats stats;
  for (int waited = 0;; waited += TICK_MS) {
    struct timespec tick = {0, TICK_MS * 1000000L};
    assert_int_equal(bus_stats(im, &stats), MESSAGING_OK);
    if (stats.workers_joined == workers) return;
    assert_true(waited < DEADLINE_MS);
    nanosleep(&tick, NULL);
  }
}

static void send_all(system_under_test *sut) {
  for (uint64_t i = 0; i < FROM_C; i++) {
    uint64_t value = 1000 + i;
    assert_int_equal(bus_send_relay_message(sut->worker, &value), MESSAGING_OK);
    value = 9000 + i;
    if (i < FROM_IM) assert_int_equal(bus_send_relay_message(sut->im, &value), MESSAGING_OK);
  }
}

/* Receives until so many relay messages have come; notes them by number and gives the number of log messages from Python. */
static size_t receive(bus_ctx *ctx, uint64_t *values, size_t relays) {
  size_t outputs = 0;
  for (size_t got = 0; got < relays;) {
    bus_batch batch;
    assert_int_equal(bus_wait(ctx, DEADLINE_MS), MESSAGING_OK);
    assert_int_equal(bus_recv(ctx, &batch), MESSAGING_OK);
    for (size_t i = 0; i < batch.count; i++) {
      const bus_message *message = &batch.messages[i];
      if (message->type == MESSAGING_OUTPUT_MESSAGE) {
        assert_int_equal(message->pid, PYTHON_ID);
        assert_int_equal(message->output.value, PYTHON_ID);
        assert_int_equal(message->output.text_size, strlen("python was here"));
        assert_memory_equal(message->output.text, "python was here", message->output.text_size);
        outputs++;
      } else if (message->type == MESSAGING_RELAY_MESSAGE) {
        assert_true(message->relay.number < LINES_MAX);
        assert_int_equal(values[message->relay.number], 0);
        values[message->relay.number] = message->relay.message;
        got++;
      }
    }
    bus_batch_free(&batch);
  }
  return outputs;
}

/* How often it asked for repairs, how many batches of others it threw away, and whether it saw termination. */
typedef struct {
  int repairs, lost, terminated;
} told;

/* Reads what Python printed: numbers in order, values as everybody else has them. */
static told check_python(FILE *output, const uint64_t *im_values, const uint64_t *worker_values, size_t expect) {
  char line[300];
  unsigned long long number, value, last = 0;
  long sender;
  size_t got = 0;
  told end = {-1, -1, -1};
  while (fgets(line, sizeof line, output)) {
    if (sscanf(line, "repairs %d lost %d terminated %d", &end.repairs, &end.lost, &end.terminated) == 3) continue;
    if (sscanf(line, "%llu %ld %llu", &number, &sender, &value) != 3) fail_msg("python: %s", line);
    assert_true(number > last && number < LINES_MAX);
    last = number;
    assert_int_equal(value, sender == C_ID ? im_values[number] : worker_values[number]);
    got++;
  }
  assert_int_equal(pclose(output), 0);
  assert_int_equal(got, expect);
  return end;
}

static void finish(system_under_test *sut) {
  assert_int_equal(bus_exit(&sut->worker), MESSAGING_OK);
  assert_int_equal(bus_exit(&sut->im), MESSAGING_OK);
}

/* Python joins before anything is sent, or late. */
static told run(int lose, bool late) {
  system_under_test sut;
  uint64_t im_values[LINES_MAX] = {0}, worker_values[LINES_MAX] = {0};
  start(&sut);
  if (late) {
    send_all(&sut);
    assert_int_equal(bus_flush(sut.worker, DEADLINE_MS), MESSAGING_OK);
  }
  FILE *output = python(&sut, FROM_C + FROM_IM, lose);
  if (!late) {
    await_joined(sut.im, 2);
    send_all(&sut);
  }
  size_t outputs = receive(sut.im, im_values, FROM_C + FROM_PYTHON);
  receive(sut.worker, worker_values, FROM_IM + FROM_PYTHON);
  for (size_t i = 0; i < LINES_MAX; i++) /* both saw Python's messages under the same numbers */
    if (im_values[i] && worker_values[i]) assert_int_equal(im_values[i], worker_values[i]);
  told end = check_python(output, im_values, worker_values, FROM_C + FROM_IM);
  assert_int_equal(end.terminated, 0);
  if (outputs == 0) {
    bus_batch batch; /* the log came behind the last relay message */
    assert_int_equal(bus_recv(sut.im, &batch), MESSAGING_OK);
    assert_int_equal(batch.count, 1);
    assert_int_equal(batch.messages[0].type, MESSAGING_OUTPUT_MESSAGE);
    bus_batch_free(&batch);
  }
  finish(&sut);
  return end;
}

static void test_exactly_once_and_in_order(void **state) {
  (void)state;
  assert_int_equal(run(0, false).lost, 0);
}

static void test_late_joiner_gets_the_history(void **state) {
  (void)state;
  assert_true(run(0, true).repairs > 0); /* history comes as an answer to a negative acknowledgement */
}

static void test_repair_after_loss(void **state) {
  (void)state;
  told end = run(2, false);
  assert_true(end.lost > 0 && end.repairs > 0);
}

static void test_terminate(void **state) {
  system_under_test sut;
  uint64_t none[LINES_MAX] = {0};
  (void)state;
  start(&sut);
  assert_int_equal(bus_send_term_message(sut.im), MESSAGING_OK);
  FILE *output = python(&sut, 1, 0); /* would wait for a message for ever */
  assert_int_equal(check_python(output, none, none, 0).terminated, 1);
  finish(&sut);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_exactly_once_and_in_order),
      cmocka_unit_test(test_late_joiner_gets_the_history),
      cmocka_unit_test(test_repair_after_loss),
      cmocka_unit_test(test_terminate),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
