/* Whatever bytes a peer sends: counted, reported as EBADMSG, and the system goes on. A raw libzmq peer stands in for a broken worker and for a
 * broken supervisor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../messaging.h"

static int encode(msgpack_packer *pk, const uint64_t *in) { return msgpack_pack_uint64(pk, *in); }
static int decode(const msgpack_object *obj, msgpack_zone *zone, uint64_t *out) {
  (void)zone;
  *out = obj->via.u64;
  return obj->type != MSGPACK_OBJECT_POSITIVE_INTEGER;
}
MESSAGING_MAKE(bus, uint64_t, encode, decode);

enum { KIND = 4, SOUND_ID = -1, BROKEN_ID = -2, DEADLINE_MS = 60000, TICK_MS = 5, FRAME_MAX = 400, FLIPS = 2000, PARTS = 1000 };

/* The handler's count of EBADMSG; any other status is a fault. */
static void count_malformed(const messaging_error *error, void *user) {
  if (error->status == MESSAGING_EBADMSG) __atomic_add_fetch((int *)user, 1, __ATOMIC_SEQ_CST);
}

static messaging_stats stats_of(const bus_ctx *ctx) {
  messaging_stats stats;
  assert_int_equal(bus_stats(ctx, &stats), MESSAGING_OK);
  return stats;
}

static uint64_t malformed_of(const bus_ctx *ctx) { return stats_of(ctx).malformed; }

#define WAIT_FOR(condition)                                       \
  for (int waited = 0; !(condition); waited += TICK_MS) {         \
    struct timespec tick = {0, TICK_MS * 1000000L};               \
    assert_true(waited < DEADLINE_MS);                            \
    nanosleep(&tick, NULL);                                       \
  }

/* Receives one relay message and compares it. */
static void expect_message(bus_ctx *ctx, uint64_t value) {
  for (bool got = false; !got;) {
    bus_batch batch;
    assert_int_equal(bus_wait(ctx, DEADLINE_MS), MESSAGING_OK);
    assert_int_equal(bus_recv(ctx, &batch), MESSAGING_OK);
    if (batch.count) {
      assert_int_equal(batch.count, 1);
      assert_int_equal(batch.messages[0].type, MESSAGING_RELAY_MESSAGE);
      assert_int_equal(batch.messages[0].relay.message, value);
      got = true;
    }
    bus_batch_free(&batch);
  }
}

/* ---- A broken worker ---- */

typedef struct {
  bus_ctx *im, *worker;
  messaging_addresses at;
  int reports;
  void *context, *push;
  uint64_t value;
} broken_worker;

static void start(broken_worker *test) {
  messaging_child children[2] = {{SOUND_ID, KIND}, {BROKEN_ID, KIND}};
  messaging_options options = {0};
  memset(test, 0, sizeof *test);
  options.id = SOUND_ID;
  assert_int_equal(bus_init_im(&test->im, &test->at, NULL), MESSAGING_OK);
  assert_int_equal(bus_run_im(test->im, children, 2, count_malformed, &test->reports), MESSAGING_OK);
  assert_int_equal(bus_init_worker(&test->worker, KIND, test->at.pub, test->at.pull, &options), MESSAGING_OK);
  assert_int_equal(bus_run_worker(test->worker, NULL, NULL), MESSAGING_OK);
  test->context = zmq_ctx_new();
  test->push = zmq_socket(test->context, ZMQ_PUSH);
  assert_int_equal(zmq_connect(test->push, test->at.pull), 0);
}

/* The system goes on: messages in both directions. */
static void check_alive(broken_worker *test) {
  test->value++;
  assert_int_equal(bus_send_relay_message(test->worker, &test->value), MESSAGING_OK);
  expect_message(test->im, test->value);
  test->value++;
  assert_int_equal(bus_send_relay_message(test->im, &test->value), MESSAGING_OK);
  expect_message(test->worker, test->value);
}

static void finish(broken_worker *test) {
  int linger = 0;
  check_alive(test);
  zmq_setsockopt(test->push, ZMQ_LINGER, &linger, sizeof linger);
  zmq_close(test->push);
  zmq_ctx_term(test->context);
  assert_int_equal(bus_exit(&test->worker), MESSAGING_OK);
  assert_int_equal(bus_exit(&test->im), MESSAGING_OK);
}

static void push(broken_worker *test, const void *bytes, size_t size) { assert_int_equal(zmq_send(test->push, bytes, size, 0), (int)size); }

/* A sound batch frame of the broken worker, in a session that is not the supervisor's. */
static size_t sample(uint8_t frame[FRAME_MAX]) {
  messaging__era era = {{1, 2, 3}, 1};
  messaging__batch batch = {MESSAGING__RELAY, BROKEN_ID, KIND, 77, 1, 1, 3, 0, 3, {0, 0, 0}};
  messaging__batch_write(frame, &era, &batch);
  memcpy(frame + MESSAGING__AT_PAYLOAD, "\x01\x02\x03", 3);
  return MESSAGING__AT_PAYLOAD + 3;
}

static void test_garbage(void **state) {
  static const char *const garbage[] = {"",
                                        "garbage",
                                        "\x96",
                                        "\xc1",
                                        "\x96\xa1U\x01",
                                        "\xdd\xff\xff\xff\xff",                 /* an array of four thousand million */
                                        "\x96\xdb\xff\xff\xff\xff",             /* a topic of four gigabytes */
                                        "\x96\xa1U\x01\x04\xc6\xff\xff\xff\xf0" /* a session of four gigabytes */};
  broken_worker test;
  (void)state;
  start(&test);
  check_alive(&test);
  size_t count = sizeof garbage / sizeof garbage[0];
  for (size_t i = 0; i < count; i++) push(&test, garbage[i], strlen(garbage[i]));
  WAIT_FOR(malformed_of(test.im) == count);
  WAIT_FOR(__atomic_load_n(&test.reports, __ATOMIC_SEQ_CST) == (int)count);
  finish(&test);
}

static void test_truncated_and_padded(void **state) {
  uint8_t frame[FRAME_MAX] = {0};
  broken_worker test;
  (void)state;
  start(&test);
  size_t size = sample(frame);
  for (size_t cut = 0; cut < size; cut++) push(&test, frame, cut);
  push(&test, frame, size + 1);
  WAIT_FOR(malformed_of(test.im) == size + 1);
  finish(&test);
}

static void test_flipped_bits(void **state) {
  uint8_t frame[FRAME_MAX];
  broken_worker test;
  (void)state;
  start(&test);
  check_alive(&test); /* the sound worker is there */
  uint64_t heard = stats_of(test.im).frames_received;
  size_t size = sample(frame);
  srand(1);
  for (int i = 0; i < FLIPS; i++) {
    for (int flips = 1 + rand() % 3; flips; flips--) frame[(size_t)rand() % size] ^= (uint8_t)(1 << rand() % 8);
    push(&test, frame, size);
    if (i % 10 == 0) sample(frame);
  }
  WAIT_FOR(stats_of(test.im).frames_received >= heard + FLIPS);
  assert_true(malformed_of(test.im) > 0);
  assert_int_equal(stats_of(test.im).workers_joined, 1); /* nobody got in by that */
  finish(&test);
}

static void test_other_session_is_stale(void **state) {
  uint8_t frame[FRAME_MAX];
  broken_worker test;
  (void)state;
  start(&test);
  push(&test, frame, sample(frame));
  WAIT_FOR(stats_of(test.im).stale > 0);
  assert_int_equal(malformed_of(test.im), 0);
  finish(&test);
}

static void test_many_parts(void **state) {
  broken_worker test;
  (void)state;
  start(&test);
  for (int i = 0; i < PARTS; i++) assert_int_equal(zmq_send(test.push, "part", 4, i < PARTS - 1 ? ZMQ_SNDMORE : 0), 4);
  push(&test, "alone", 5);
  WAIT_FOR(malformed_of(test.im) == 2); /* the message of many parts counts once */
  finish(&test);
}

/* ---- A broken supervisor ---- */

typedef struct {
  void *context, *pub, *pull;
  char folder[40], pub_address[80], pull_address[80];
  bus_ctx *worker;
  int reports;
  messaging__who who;
  messaging__era era;
} broken_im;

/* Waits for a frame of the worker, of one type. */
static messaging__reader pulled(broken_im *test, uint8_t type, zmq_msg_t *message) {
  for (;;) {
    messaging__envelope envelope = {0};
    zmq_msg_init(message);
    assert_true(zmq_msg_recv(message, test->pull, 0) >= 0);
    const uint8_t *bytes = (const uint8_t *)zmq_msg_data(message);
    messaging__reader reader = {bytes, bytes + zmq_msg_size(message), false};
    assert_true(messaging__envelope_read(&reader, &envelope));
    if (envelope.type == type) return reader;
    zmq_msg_close(message);
  }
}

static void publish(broken_im *test, const void *bytes, size_t size) { assert_int_equal(zmq_send(test->pub, bytes, size, 0), (int)size); }

/* Welcomes the worker once it has subscribed and announced itself. */
static void welcome(broken_im *test) {
  zmq_msg_t message;
  messaging__writer writer;
  char subscription[64];
  for (int i = 0; i < 3; i++) assert_true(zmq_recv(test->pub, subscription, sizeof subscription, 0) > 0);
  messaging__reader reader = pulled(test, MESSAGING__HELLO, &message);
  assert_int_equal(messaging__read_array(&reader), 4);
  test->who.id = (pid_t)messaging__read_int(&reader);
  test->who.kind = (uint32_t)messaging__read_uint(&reader, UINT32_MAX);
  test->who.nonce = messaging__read_uint(&reader, UINT64_MAX);
  assert_int_equal(test->who.id, SOUND_ID);
  zmq_msg_close(&message);
  messaging__frame_begin(&writer, &test->who, 0, MESSAGING__WELCOME, &test->era);
  /* slot 0, expected 1, window 16384, probe 0, next 1, first 1, no run, ack 25, flags 0, terms */
  static const uint8_t rest[] = {0x9c, 0, 1, 0xcd, 0x40, 0, 0, 1, 1, 0, 0, 0, 25, 0, 0x90};
  memcpy(writer.bytes + writer.size, rest, sizeof rest);
  publish(test, writer.bytes, writer.size + sizeof rest);
  pulled(test, MESSAGING__REPORT, &message);
  zmq_msg_close(&message);
}

static void start_im(broken_im *test) {
  messaging_options options = {0};
  memset(test, 0, sizeof *test);
  strcpy(test->folder, "/tmp/messaging-test-XXXXXX");
  assert_non_null(mkdtemp(test->folder));
  snprintf(test->pub_address, sizeof test->pub_address, "ipc://%s/pub", test->folder);
  snprintf(test->pull_address, sizeof test->pull_address, "ipc://%s/pull", test->folder);
  test->era.generation = 1;
  test->context = zmq_ctx_new();
  test->pub = zmq_socket(test->context, ZMQ_XPUB);
  test->pull = zmq_socket(test->context, ZMQ_PULL);
  int deadline = DEADLINE_MS;
  zmq_setsockopt(test->pull, ZMQ_RCVTIMEO, &deadline, sizeof deadline);
  zmq_setsockopt(test->pub, ZMQ_RCVTIMEO, &deadline, sizeof deadline);
  assert_int_equal(zmq_bind(test->pub, test->pub_address), 0);
  assert_int_equal(zmq_bind(test->pull, test->pull_address), 0);
  options.id = SOUND_ID;
  assert_int_equal(bus_init_worker(&test->worker, KIND, test->pub_address, test->pull_address, &options), MESSAGING_OK);
  assert_int_equal(bus_run_worker(test->worker, count_malformed, &test->reports), MESSAGING_OK);
  welcome(test);
}

static void finish_im(broken_im *test) {
  int linger = 0;
  assert_int_equal(bus_exit(&test->worker), MESSAGING_OK);
  zmq_setsockopt(test->pub, ZMQ_LINGER, &linger, sizeof linger);
  zmq_close(test->pub);
  zmq_close(test->pull);
  zmq_ctx_term(test->context);
  unlink(test->pub_address + strlen("ipc://")); /* libzmq leaves them */
  unlink(test->pull_address + strlen("ipc://"));
  assert_int_equal(rmdir(test->folder), 0);
}

/* Publishes a relay batch with any payload and any count. */
static void relay(broken_im *test, uint64_t position, uint32_t count, const char *payload, size_t size) {
  uint8_t frame[FRAME_MAX];
  messaging__batch batch = {MESSAGING__RELAY, BROKEN_ID, KIND, 77, position, position, count, 0, (uint32_t)size, {0, 0, 0}};
  messaging__batch_write(frame, &test->era, &batch);
  memcpy(frame + MESSAGING__AT_PAYLOAD, payload, size);
  publish(test, frame, MESSAGING__AT_PAYLOAD + size);
}

/* A batch whose payload is not what its header says is skipped, its numbers are consumed, and what follows arrives. */
static void test_false_payloads(void **state) {
  broken_im test;
  (void)state;
  start_im(&test);
  relay(&test, 1, 1, "\x11", 1);
  expect_message(test.worker, 0x11);
  relay(&test, 2, 2, "\x01\x02\x03", 3);              /* three objects, not two */
  relay(&test, 4, 3, "\x01\xc1\x03", 3);              /* not msgpack */
  relay(&test, 7, 1, "\xdd\xff\xff\xff\xff", 5);      /* an array that is not there */
  relay(&test, 8, 3, "\x01\xa1x\x03", 4);             /* the second does not decode: a string */
  relay(&test, 11, 1, "\x22", 1);
  bus_batch batch;
  uint64_t numbers[3] = {8, 10, 11}, values[3] = {1, 3, 0x22};
  for (size_t got = 0; got < 3;) {
    assert_int_equal(bus_wait(test.worker, DEADLINE_MS), MESSAGING_OK);
    assert_int_equal(bus_recv(test.worker, &batch), MESSAGING_OK);
    for (size_t i = 0; i < batch.count; i++, got++) {
      assert_true(got < 3);
      assert_int_equal(batch.messages[i].relay.number, numbers[got]);
      assert_int_equal(batch.messages[i].relay.message, values[got]);
    }
    bus_batch_free(&batch);
  }
  assert_int_equal(malformed_of(test.worker), 4);
  WAIT_FOR(__atomic_load_n(&test.reports, __ATOMIC_SEQ_CST) == 4);
  finish_im(&test);
}

static void test_garbage_from_the_supervisor(void **state) {
  broken_im test;
  uint8_t frame[FRAME_MAX] = {0x96, 0xa1, 'B'};
  messaging__writer writer;
  (void)state;
  start_im(&test);
  size_t expected = 0;
  for (size_t size = 3; size < 60; size++, expected++) publish(&test, frame, size); /* zeros where the rest should be */
  for (uint8_t type = 0; type < 20; type++, expected++) {                           /* every type, with no body */
    messaging__frame_begin(&writer, &test.who, 0, type, &test.era);
    publish(&test, writer.bytes, writer.size);
  }
  relay(&test, 1, 1, "\x11", 1);
  expect_message(test.worker, 0x11);
  assert_int_equal(malformed_of(test.worker), expected);
  finish_im(&test);
}

/* A batch of the largest size that the supervisor takes, as no worker of this library makes it, reaches who joins later, too: in a frame around it. */
static void test_largest_batch_as_a_repair(void **state) {
  messaging_options small = {.message_bytes_max = 4096};
  messaging_child children[2] = {{SOUND_ID, KIND}, {BROKEN_ID, KIND}};
  messaging__who sender = {BROKEN_ID, KIND, 77};
  messaging__writer hello;
  broken_worker test = {.value = 5};
  (void)state;
  assert_int_equal(bus_init_im(&test.im, &test.at, &small), MESSAGING_OK);
  assert_int_equal(bus_run_im(test.im, children, 2, NULL, NULL), MESSAGING_OK);
  test.context = zmq_ctx_new();
  test.push = zmq_socket(test.context, ZMQ_PUSH);
  assert_int_equal(zmq_connect(test.push, test.at.pull), 0);
  messaging__frame_begin(&hello, NULL, 'U', MESSAGING__HELLO, NULL);
  messaging__put_tag(&hello, 0x94);
  messaging__put_who(&hello, &sender);
  messaging__put_uint(&hello, small.message_bytes_max);
  push(&test, hello.bytes, hello.size);
  uint32_t payload = (uint32_t)(small.message_bytes_max + MESSAGING__FRAME_SLACK - MESSAGING__AT_PAYLOAD);
  messaging__batch batch = {MESSAGING__RELAY, sender.id, sender.kind, sender.nonce, 1, 1, 1, 0, payload, {0, 0, 0}};
  uint8_t *frame = calloc(1, MESSAGING__AT_PAYLOAD + payload);
  assert_non_null(frame);
  messaging__batch_write(frame, &test.im->handle.im.era, &batch);
  frame[MESSAGING__AT_PAYLOAD] = 0xc6; /* one object: bytes, which the decoder refuses */
  messaging__store_be(frame + MESSAGING__AT_PAYLOAD + 1, payload - 5, 4);
  push(&test, frame, MESSAGING__AT_PAYLOAD + payload);
  free(frame);
  WAIT_FOR(stats_of(test.im).next_number == 2);
  assert_int_equal(bus_send_relay_message(test.im, &test.value), MESSAGING_OK);
  small.id = SOUND_ID;
  assert_int_equal(bus_init_worker(&test.worker, KIND, test.at.pub, test.at.pull, &small), MESSAGING_OK);
  assert_int_equal(bus_run_worker(test.worker, NULL, NULL), MESSAGING_OK);
  expect_message(test.worker, test.value);
  assert_int_equal(malformed_of(test.worker), 1);
  bus_batch rest;
  assert_int_equal(bus_recv(test.im, &rest), MESSAGING_OK); /* here it does not decode either */
  assert_int_equal(rest.count, 0);
  assert_int_equal(bus_update_child_processes_list(test.im, children, 1), MESSAGING_OK); /* nobody waits for the other */
  finish(&test);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_garbage),        cmocka_unit_test(test_truncated_and_padded),
      cmocka_unit_test(test_flipped_bits),   cmocka_unit_test(test_other_session_is_stale),
      cmocka_unit_test(test_many_parts),     cmocka_unit_test(test_false_payloads),
      cmocka_unit_test(test_garbage_from_the_supervisor), cmocka_unit_test(test_largest_batch_as_a_repair),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
