/* One instance in two translation units: made here, used and ended in the other, and the reverse. */
#define HARNESS_NO_INSTANCE
#include "harness.h"

#include "units/shared.h"

static shared_ctx *im, *here;

static int open_both(void **state) {
  (void)state;
  messaging_addresses at;
  const messaging_child child = {-1, 1};
  if (shared_init_im(&im, &at, NULL) || shared_run_im(im, &child, 1, NULL, NULL)) return -1;
  return (int)shared_init_worker(&here, 1, at.pub, at.pull, &(messaging_options){.id = -1}) || shared_run_worker(here, NULL, NULL);
}

static int close_both(void **state) {
  (void)state;
  return other_unit_leaves(&here) || shared_exit(&im);
}

static void test_a_handle_is_good_in_both_units(void **state) {
  (void)state;
  shared_batch batch = {0};
  assert_int_equal(other_unit_sends(here, -5), MESSAGING_OK);
  assert_int_equal(shared_wait(im, deadline_ms()), MESSAGING_OK);
  assert_int_equal(shared_recv(im, &batch), MESSAGING_OK);
  assert_int_equal(batch.count, 1);
  assert_true(batch.messages[0].relay.message.number == -5);
  assert_int_equal(other_unit_frees(&batch), MESSAGING_OK);

  assert_int_equal(shared_send_relay_message(im, &(shared_fact){77}), MESSAGING_OK);
  assert_int_equal(shared_wait(here, deadline_ms()), MESSAGING_OK);
  assert_int_equal(other_unit_receives(here, &batch), MESSAGING_OK);
  assert_int_equal(batch.count, 1);
  assert_int_equal(batch.messages[0].relay.number, 2);
  assert_true(batch.messages[0].relay.message.number == 77);
  assert_int_equal(shared_batch_free(&batch), MESSAGING_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_a_handle_is_good_in_both_units, open_both, close_both),
  };
  return RUN_TESTS(test_units, tests);
}
