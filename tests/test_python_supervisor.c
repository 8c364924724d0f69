/* A supervisor in Python (tests/python/supervisor.py), which shares no code with the library, over C workers and the Python one. */
#include <stdlib.h>
#include <string.h>
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

enum { KIND = 5, WORKERS = 2, PYTHON_ID = -3, FROM_C = 100, FROM_PYTHON = 50, FROM_IM = 20, LINES_MAX = 1000, DEADLINE_MS = 60000 };

/* What one process saw, by number. */
typedef struct {
  uint64_t values[LINES_MAX];
  long senders[LINES_MAX];
  size_t count, outputs;
  int repairs;
} seen;

typedef struct {
  char folder[64];
  FILE *supervisor, *python;
  messaging_addresses at;
  bus_ctx *workers[WORKERS];
  seen im, by_worker[WORKERS], by_python;
} system_under_test;

static FILE *run(const char *program, const char *arguments) {
  char command[1000];
  snprintf(command, sizeof command, "timeout 100 /usr/bin/python3 tests/python/%s %s", program, arguments);
  FILE *output = popen(command, "r");
  assert_non_null(output);
  return output;
}

static void start(system_under_test *sut, const char *end, int lose) {
  char arguments[300], line[600];
  memset(sut, 0, sizeof *sut);
  snprintf(sut->folder, sizeof sut->folder, "/tmp/messaging-python-XXXXXX");
  assert_non_null(mkdtemp(sut->folder));
  snprintf(arguments, sizeof arguments, "%s %d -1,-2,%d %d %d %s %d", sut->folder, KIND, PYTHON_ID, FROM_IM,
           WORKERS * FROM_C + FROM_PYTHON, end, lose);
  sut->supervisor = run("supervisor.py", arguments);
  assert_non_null(fgets(line, sizeof line, sut->supervisor));
  if (sscanf(line, "%255s %255s", sut->at.pub, sut->at.pull) != 2 || strncmp(line, "ipc:", 4)) fail_msg("supervisor: %s", line);
  for (int i = 0; i < WORKERS; i++) {
    messaging_options options = {0};
    options.id = -1 - i;
    assert_int_equal(bus_init_worker(&sut->workers[i], KIND, sut->at.pub, sut->at.pull, &options), MESSAGING_OK);
    assert_int_equal(bus_run_worker(sut->workers[i], NULL, NULL), MESSAGING_OK);
  }
}

static void start_python(system_under_test *sut, int expect, int lose) {
  char arguments[700];
  snprintf(arguments, sizeof arguments, "%s %s %d %d %d %d %d", sut->at.pub, sut->at.pull, PYTHON_ID, KIND, FROM_PYTHON, expect, lose);
  sut->python = run("worker.py", arguments);
}

static void send_all(system_under_test *sut) {
  for (uint64_t i = 0; i < FROM_C; i++)
    for (uint64_t w = 0; w < WORKERS; w++) {
      uint64_t value = 1000 * (w + 1) + i;
      assert_int_equal(bus_send_relay_message(sut->workers[w], &value), MESSAGING_OK);
    }
  messaging_output hello = {MESSAGING_LOG, 3, "C was here", 10};
  assert_int_equal(bus_send_output_message(sut->workers[0], &hello), MESSAGING_OK);
}

static void note(seen *what, uint64_t number, long sender, uint64_t value) {
  assert_in_range(number, 1, LINES_MAX - 1);
  assert_int_equal(what->senders[number], 0);
  what->values[number] = value;
  what->senders[number] = sender ? sender : 1; /* the supervisor's pid is of no interest */
  what->count++;
}

/* Receives until that many relay messages have come: in order, with the right sender beside each. */
static void receive(bus_ctx *ctx, seen *what, size_t relays) {
  uint64_t last = 0;
  while (what->count < relays) {
    bus_batch batch;
    assert_int_equal(bus_wait(ctx, DEADLINE_MS), MESSAGING_OK);
    assert_int_equal(bus_recv(ctx, &batch), MESSAGING_OK);
    for (size_t i = 0; i < batch.count; i++) {
      const bus_message *message = &batch.messages[i];
      if (message->type == MESSAGING_CONTROL_MESSAGE) continue;
      assert_int_equal(message->type, MESSAGING_RELAY_MESSAGE);
      assert_true(message->relay.number > last);
      last = message->relay.number;
      assert_int_equal(message->kind, message->pid < 0 ? KIND : MESSAGING_SUPERVISOR);
      note(what, last, message->pid, message->relay.message);
    }
    bus_batch_free(&batch);
  }
}

/* Reads what a Python process printed. */
static void read_lines(FILE *output, seen *what) {
  char line[300];
  unsigned long long number, value, last = 0;
  long sender;
  what->repairs = -1;
  while (fgets(line, sizeof line, output)) {
    if (sscanf(line, "repairs %d", &what->repairs) == 1) continue;
    if (strstr(line, "0 3 C was here") || strstr(line, "python was here")) {
      what->outputs++;
      continue;
    }
    if (sscanf(line, "%llu %ld %llu", &number, &sender, &value) != 3) fail_msg("python: %s", line);
    assert_true(number > last);
    last = number;
    note(what, number, sender, value);
  }
  assert_int_equal(pclose(output), 0);
  assert_true(what->repairs >= 0);
}

/* All who saw a number saw the same message there, from the same sender, and each sender's messages came in its order. */
static void compare(const system_under_test *sut) {
  const seen *all[] = {&sut->im, &sut->by_worker[0], &sut->by_worker[1], &sut->by_python};
  enum { TOTAL = WORKERS * FROM_C + FROM_PYTHON + FROM_IM };
  uint64_t after[WORKERS + 2] = {0};
  for (size_t number = 1; number <= TOTAL; number++) {
    uint64_t value = 0;
    long sender = 0;
    size_t witnesses = 0;
    for (size_t i = 0; i < 4; i++) {
      if (!all[i]->senders[number]) continue;
      if (witnesses++ && all[i]->values[number] != value) fail_msg("number %zu: two messages", number);
      value = all[i]->values[number];
      sender = all[i]->senders[number] < 0 ? all[i]->senders[number] : 0;
    }
    assert_int_equal(witnesses, 3); /* everybody but the sender */
    assert_true(value >= after[-sender]);
    after[-sender] = value + 1;
  }
}

static void finish(system_under_test *sut) {
  char command[100];
  read_lines(sut->supervisor, &sut->im);
  assert_int_equal(sut->im.count, WORKERS * FROM_C + FROM_PYTHON);
  assert_int_equal(sut->im.outputs, 2);
  compare(sut);
  snprintf(command, sizeof command, "rm -r %s", sut->folder);
  assert_int_equal(system(command), 0);
}

static void receive_everything(system_under_test *sut) {
  receive(sut->workers[0], &sut->by_worker[0], FROM_C + FROM_PYTHON + FROM_IM);
  receive(sut->workers[1], &sut->by_worker[1], FROM_C + FROM_PYTHON + FROM_IM);
  read_lines(sut->python, &sut->by_python);
  assert_int_equal(sut->by_python.count, WORKERS * FROM_C + FROM_IM);
}

/* The workers stay until they are told to terminate, and leave with everything acknowledged. */
static void leave_on_termination(system_under_test *sut) {
  for (int i = 0; i < WORKERS; i++) {
    while (!bus_check_termination(sut->workers[i])) {
      bus_batch batch;
      assert_int_equal(bus_wait(sut->workers[i], DEADLINE_MS), MESSAGING_OK);
      assert_int_equal(bus_recv(sut->workers[i], &batch), MESSAGING_OK);
      bus_batch_free(&batch);
    }
    assert_int_equal(bus_exit(&sut->workers[i]), MESSAGING_OK);
  }
}

static void relay_everything(int lose, bool late) {
  system_under_test sut;
  start(&sut, "term", lose);
  if (!late) start_python(&sut, WORKERS * FROM_C + FROM_IM, lose);
  send_all(&sut);
  if (late) {
    for (int i = 0; i < WORKERS; i++) assert_int_equal(bus_flush(sut.workers[i], DEADLINE_MS), MESSAGING_OK);
    start_python(&sut, WORKERS * FROM_C + FROM_IM, 0);
  }
  receive_everything(&sut);
  leave_on_termination(&sut);
  finish(&sut);
  if (lose || late) assert_true(sut.im.repairs > 0);
}

static void test_exactly_once_and_in_order(void **state) {
  (void)state;
  relay_everything(0, false);
}

static void test_late_joiner_gets_the_history(void **state) {
  (void)state;
  relay_everything(0, true);
}

static void test_repair_after_loss(void **state) {
  (void)state;
  relay_everything(3, false);
}

/* One worker asks for termination: the Python worker, which would wait for ever, and the other one hear of it. */
static void test_terminate_of_a_worker(void **state) {
  system_under_test sut;
  (void)state;
  start(&sut, "term", 0);
  start_python(&sut, LINES_MAX, 0);
  send_all(&sut);
  receive(sut.workers[0], &sut.by_worker[0], FROM_C + FROM_PYTHON + FROM_IM);
  receive(sut.workers[1], &sut.by_worker[1], FROM_C + FROM_PYTHON + FROM_IM);
  assert_int_equal(bus_send_term_message(sut.workers[0]), MESSAGING_OK);
  read_lines(sut.python, &sut.by_python);
  while (!bus_check_termination(sut.workers[1])) assert_int_equal(bus_wait(sut.workers[1], DEADLINE_MS), MESSAGING_OK);
  for (int i = 0; i < WORKERS; i++) assert_int_equal(bus_exit(&sut.workers[i]), MESSAGING_OK);
  read_lines(sut.supervisor, &sut.im);
  assert_int_equal(sut.im.count, WORKERS * FROM_C + FROM_PYTHON);
  assert_int_equal(rmdir(sut.folder), -1); /* what the sockets left */
  char command[100];
  snprintf(command, sizeof command, "rm -r %s", sut.folder);
  assert_int_equal(system(command), 0);
}

/* The supervisor leaves with a goodbye: termination for those who stayed, and their handles have ended. */
static void test_goodbye_of_the_supervisor(void **state) {
  system_under_test sut;
  (void)state;
  start(&sut, "bye", 0);
  start_python(&sut, WORKERS * FROM_C + FROM_IM, 0);
  send_all(&sut);
  receive_everything(&sut);
  for (int i = 0; i < WORKERS; i++) {
    while (!bus_check_termination(sut.workers[i])) assert_int_equal(bus_wait(sut.workers[i], DEADLINE_MS), MESSAGING_OK);
    uint64_t value = 0;
    assert_int_equal(bus_send_relay_message(sut.workers[i], &value), MESSAGING_ENOTRUNNING);
    assert_int_equal(bus_exit(&sut.workers[i]), MESSAGING_OK);
  }
  finish(&sut);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_exactly_once_and_in_order), cmocka_unit_test(test_late_joiner_gets_the_history),
      cmocka_unit_test(test_repair_after_loss),         cmocka_unit_test(test_terminate_of_a_worker),
      cmocka_unit_test(test_goodbye_of_the_supervisor),
  };
  if (getenv("MESSAGING_TEST")) cmocka_set_test_filter(getenv("MESSAGING_TEST"));
  return cmocka_run_group_tests(tests, NULL, NULL);
}
