/* Two instances with different relay types in one binary, used side by side, and in each other's company. */
#include "harness.h"

typedef struct {
  double value;
  int64_t column;
} bound;

static int bound_encode(msgpack_packer *pk, const bound *in) {
  return msgpack_pack_map(pk, 1) | msgpack_pack_int64(pk, in->column) | msgpack_pack_double(pk, in->value);
}

static int bound_decode(const msgpack_object *obj, msgpack_zone *zone, bound *out) {
  (void)zone;
  if (obj->type != MSGPACK_OBJECT_MAP || obj->via.map.size != 1) return 1;
  const msgpack_object_kv *pair = &obj->via.map.ptr[0];
  if (pair->val.type != MSGPACK_OBJECT_FLOAT) return 1;
  if (pair->key.type != MSGPACK_OBJECT_POSITIVE_INTEGER && pair->key.type != MSGPACK_OBJECT_NEGATIVE_INTEGER) return 1;
  *out = (bound){pair->val.via.f64, pair->key.via.i64};
  return 0;
}

MESSAGING_MAKE(bounds, bound, bound_encode, bound_decode);

/* The same type again under another name is another system. */
MESSAGING_MAKE(other_bounds, bound, bound_encode, bound_decode);

static const messaging_child child = {-1, 1};
static const messaging_options as_child = {.id = -1};

static void test_side_by_side(void **state) {
  world *w = *state;
  enum { COUNT = 2000 };
  start(w, 1, NULL, NULL); /* facts, as in all tests */

  bounds_ctx *im, *here; /* and bounds, in this process */
  messaging_addresses at;
  assert_ok(bounds_init_im(&im, &at, NULL));
  assert_ok(bounds_run_im(im, &child, 1, NULL, NULL));
  assert_ok(bounds_init_worker(&here, 1, at.pub, at.pull, &as_child));
  assert_ok(bounds_run_worker(here, NULL, NULL));

  post(&w->workers[0], TALK(.first = 1, .count = COUNT, .size = 10, .relays = COUNT));
  for (int64_t i = 0; i < COUNT; i++) {
    assert_ok(bounds_send_relay_message(here, &(bound){(double)i / 2, -i}));
    assert_ok(send_fact(w->im, (uint32_t)i + 1, PLAIN, 10));
  }
  for (int64_t i = 0; i < COUNT;) {
    bounds_batch batch = {0};
    assert_ok(bounds_wait(im, deadline_ms()));
    assert_ok(bounds_recv(im, &batch));
    for (size_t k = 0; k < batch.count; k++, i++) {
      assert_int_equal(batch.messages[k].relay.number, i + 1);
      assert_true(batch.messages[k].relay.message.column == -i);
      assert_true(batch.messages[k].relay.message.value == (double)i / 2);
    }
    assert_ok(bounds_batch_free(&batch));
  }
  assert_ok(await(&w->workers[0]).status);
  assert_ok(im_talk(w, TALK(.relays = COUNT)).status);
  check_one_order(w, 1, 2 * COUNT);
  assert_ok(bounds_exit(&here));
  assert_ok(bounds_exit(&im));
  finish(w);
}

/* Another instance's messages do not decode, and are skipped. (Types are checked by decode, not by name.) */
static void test_a_stranger_is_not_understood(void **state) {
  world *w = *state;
  start(w, 0, NULL, NULL);
  assert_ok(bus_add_child_process(w->im, child));
  other_bounds_ctx *stranger;
  assert_ok(other_bounds_init_worker(&stranger, 1, w->addresses.pub, w->addresses.pull, &as_child));
  assert_ok(other_bounds_run_worker(stranger, NULL, NULL));
  assert_ok(other_bounds_send_relay_message(stranger, &(bound){1, 2}));
  assert_ok(other_bounds_send_output_message(stranger, &(messaging_output){MESSAGING_PROGRESS, 5, NULL, 0}));
  assert_ok(im_talk(w, TALK(.outputs_in = 1)).status);
  WAIT_FOR(find_report(w->log, MESSAGING_EBADMSG, ANYBODY));
  assert_int_equal(w->log->relays, 0);
  assert_int_equal(im_stats(w).next_number, 2);
  assert_ok(other_bounds_exit(&stranger));
  finish(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_BOTH(test_side_by_side),
      WITH_THREADS(test_a_stranger_is_not_understood),
  };
  return RUN_TESTS(test_two_instances, tests);
}
