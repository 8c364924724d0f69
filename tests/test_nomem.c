/* Memory runs out at the Nth allocation of the library's own code, N = 1, 2, 3 ..., until a whole scenario gets by without it. In each round: no
 * crash, no hang, no leak; a call succeeds or says MESSAGING_ENOMEM; and everything that was accepted arrives, once and in order. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* The allocation that fails, counted from when it was set; 0: none. And how many blocks are held. */
static long fail_at, blocks_held;

static bool fails(void) { return __atomic_load_n(&fail_at, __ATOMIC_SEQ_CST) > 0 && __atomic_sub_fetch(&fail_at, 1, __ATOMIC_SEQ_CST) == 0; }

static void *counted_malloc(size_t size) {
  void *block = fails() ? NULL : malloc(size);
  if (block) __atomic_add_fetch(&blocks_held, 1, __ATOMIC_SEQ_CST);
  return block;
}

static __thread bool no_memory; /* for this thread to grow anything */

static void *counted_realloc(void *block, size_t size) {
  void *grown = fails() || no_memory ? NULL : realloc(block, size);
  if (grown && !block) __atomic_add_fetch(&blocks_held, 1, __ATOMIC_SEQ_CST);
  return grown;
}

static void counted_free(void *block) {
  if (block) __atomic_sub_fetch(&blocks_held, 1, __ATOMIC_SEQ_CST);
  free(block);
}

#define MESSAGING_MALLOC(size) counted_malloc(size)
#define MESSAGING_REALLOC(pointer, size) counted_realloc(pointer, size)
#define MESSAGING_FREE(pointer) counted_free(pointer)

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../messaging.h"

enum { KIND = 3, SMALL = 40, LARGE_BYTES = 20000, DEADLINE_MS = 60000, ROUNDS_MAX = 2000, SPINS_MAX = 1000000 };

/* A number and some bytes, so that frames are small and large. */
typedef struct {
  uint32_t number;
  size_t size;
} fact;

static int encode(msgpack_packer *pk, const fact *in) {
  static const char filling[LARGE_BYTES];
  return msgpack_pack_array(pk, 2) || msgpack_pack_uint32(pk, in->number) || msgpack_pack_bin(pk, in->size) ||
         msgpack_pack_bin_body(pk, filling, in->size);
}

static int decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) {
  (void)zone;
  if (obj->type != MSGPACK_OBJECT_ARRAY || obj->via.array.size != 2) return 1;
  out->number = (uint32_t)obj->via.array.ptr[0].via.u64;
  out->size = obj->via.array.ptr[1].via.bin.size;
  return 0;
}

MESSAGING_MAKE(bus, fact, encode, decode);

/* Calls until there is memory; every other failure is one of the test. */
#define INSIST(call)                                       \
  do {                                                     \
    messaging_status insisted;                             \
    long spins = 0;                                        \
    while ((insisted = (call)) == MESSAGING_ENOMEM) assert_true(++spins < SPINS_MAX); \
    assert_int_equal(insisted, MESSAGING_OK);              \
  } while (0)

static void send_all(bus_ctx *ctx, uint32_t first) {
  for (uint32_t i = 0; i < SMALL; i++) {
    fact message = {first + i, i % 8 == 7 ? LARGE_BYTES : i};
    messaging_output output = {MESSAGING_LOG, (int64_t)(first + i), "text", 4};
    INSIST(bus_send_relay_message(ctx, &message));
    if (i % 4 == 0) INSIST(bus_send_output_message(ctx, &output));
  }
}

/* Receives the relay messages that began with the numbers given, each sender's in order; and so many outputs. */
static void receive_all(bus_ctx *ctx, size_t senders, const uint32_t *firsts, size_t outputs) {
  uint32_t expected[3] = {0, 0, 0};
  uint64_t last = 0;
  size_t got_outputs = 0;
  for (size_t got = 0; got < senders * SMALL || got_outputs < outputs;) {
    bus_batch batch;
    assert_int_equal(bus_wait(ctx, DEADLINE_MS), MESSAGING_OK);
    INSIST(bus_recv(ctx, &batch));
    for (size_t i = 0; i < batch.count; i++) {
      const bus_message *message = &batch.messages[i];
      if (message->type == MESSAGING_OUTPUT_MESSAGE) got_outputs++;
      if (message->type != MESSAGING_RELAY_MESSAGE) continue;
      assert_true(message->relay.number > last);
      last = message->relay.number;
      size_t sender = 0;
      while (sender < senders && message->relay.message.number - firsts[sender] >= SMALL) sender++;
      assert_true(sender < senders);
      assert_int_equal(message->relay.message.number, firsts[sender] + expected[sender]++);
      got++;
    }
    bus_batch_free(&batch);
  }
  assert_int_equal(got_outputs, outputs);
}

static bus_ctx *open_worker(const messaging_addresses *at, pid_t id) {
  bus_ctx *worker;
  messaging_options options = {0};
  options.id = id;
  INSIST(bus_init_worker(&worker, KIND, at->pub, at->pull, &options));
  INSIST(bus_run_worker(worker, NULL, NULL));
  return worker;
}

static void expect_no_fault(const messaging_error *error, void *user) {
  (void)user;
  if (error->status != MESSAGING_ENOMEM) fail_msg("%s: %s", messaging_strerror(error->status), error->detail);
}

/* Everything once: a supervisor, two workers, one more that joins late, an update that begins a new generation, exits. */
static void scenario(void) {
  bus_ctx *im;
  messaging_addresses at;
  messaging_stats stats;
  messaging_child children[2] = {{-1, KIND}, {-2, KIND}}, late = {-3, KIND};
  const uint32_t to_first[] = {2000, 3000}, to_second[] = {1000, 3000}, to_late[] = {1000, 2000, 3000}, to_im[] = {1000, 2000};
  INSIST(bus_init_im(&im, &at, NULL));
  INSIST(bus_run_im(im, children, 2, expect_no_fault, NULL));
  bus_ctx *first = open_worker(&at, -1), *second = open_worker(&at, -2);
  send_all(first, 1000);
  send_all(second, 2000);
  send_all(im, 3000);
  receive_all(first, 2, to_first, 0);
  receive_all(second, 2, to_second, 0);
  INSIST(bus_add_child_process(im, late));
  bus_ctx *third = open_worker(&at, -3);
  receive_all(third, 3, to_late, 0);
  INSIST(bus_update_child_processes_list(im, NULL, 0)); /* what the supervisor has not received goes along */
  receive_all(im, 2, to_im, 3 * SMALL / 4);
  INSIST(bus_stats(im, &stats));
  assert_int_equal(stats.generation, 2);
  assert_int_equal(bus_wait(first, DEADLINE_MS), MESSAGING_OK); /* left out: termination */
  assert_int_equal(bus_exit(&first), MESSAGING_ELOST);
  (void)!bus_exit(&second);
  (void)!bus_exit(&third);
  INSIST(bus_exit(&im));
}

static void test_every_allocation_fails_once(void **state) {
  (void)state;
  long rounds = 0;
  for (bool failed = true; failed; rounds++) {
    assert_true(rounds < ROUNDS_MAX);
    __atomic_store_n(&fail_at, rounds + 1, __ATOMIC_SEQ_CST);
    scenario();
    failed = __atomic_load_n(&fail_at, __ATOMIC_SEQ_CST) <= 0;
    assert_int_equal(__atomic_load_n(&blocks_held, __ATOMIC_SEQ_CST), 0);
  }
  assert_true(rounds > 20); /* it was really the library that asked for memory */
  print_message("%ld allocations failed in turn\n", rounds - 1);
}

/* A batch that recv has taken and could not decode is part of the mailbox until it can: a purge drops it, and a new generation its termination. */
static void test_what_waits_for_memory(void **state) {
  (void)state;
  __atomic_store_n(&fail_at, 0, __ATOMIC_SEQ_CST);
  for (int purge = 0; purge < 2; purge++) {
    bus_ctx *im;
    messaging_addresses at;
    messaging_child children[2] = {{-1, KIND}, {-2, KIND}};
    bus_batch batch;
    fact message = {7, 1};
    assert_int_equal(bus_init_im(&im, &at, NULL), MESSAGING_OK);
    assert_int_equal(bus_run_im(im, children, 1, NULL, NULL), MESSAGING_OK);
    bus_ctx *worker = open_worker(&at, -1);
    assert_int_equal(bus_send_relay_message(worker, &message), MESSAGING_OK);
    assert_int_equal(bus_send_term_message(worker), MESSAGING_OK);
    assert_int_equal(bus_flush(worker, DEADLINE_MS), MESSAGING_OK);
    for (bool asked = false; !asked; asked = bus_check_termination(im)) assert_int_equal(bus_wait(im, DEADLINE_MS), MESSAGING_OK);
    no_memory = true;
    assert_int_equal(bus_recv(im, &batch), MESSAGING_ENOMEM);
    no_memory = false;
    if (purge) assert_int_equal(bus_purge_im_mailbox(im), MESSAGING_OK);
    assert_int_equal(bus_update_child_processes_list(im, children + 1, 1), MESSAGING_OK);
    assert_int_equal(bus_recv(im, &batch), MESSAGING_OK);
    assert_int_equal(batch.count, purge ? 0 : 1);
    if (!purge) assert_int_equal(batch.messages[0].type, MESSAGING_RELAY_MESSAGE);
    bus_batch_free(&batch);
    assert_int_equal(bus_wait(im, 0), MESSAGING_ETIMEDOUT);
    (void)!bus_exit(&worker);
    assert_int_equal(bus_exit(&im), MESSAGING_OK);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation_fails_once), cmocka_unit_test(test_what_waits_for_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
