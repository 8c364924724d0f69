/*
 * Across hosts: a supervisor and six workers on three hosts of our own (hosts/net.h), over tcp with keys. Links go down, hosts are cut off,
 * addresses change, connections are reset. While it lasts everybody sends; the silence is noticed once by each who can notice it, and when it is
 * over everybody has everything, once and in one order.
 */
#define _GNU_SOURCE
#define HARNESS_WORKERS_MAX 6
#include "harness.h"

#include "hosts/forwarder.h"
#include "hosts/net.h"
#include "hosts/rounds.h"

enum { WORKERS = 6, ON_A = 7, ON_B = 56, EVERYBODY = 63 }; /* half of the workers are on either host */
enum { HEARTBEAT_MS = 100, SILENCE_MS = 1500, PATIENT_MS = 30000, LARGE = 1 << 18 };

static char secret[MESSAGING_KEY_SIZE], credential[MESSAGING_KEY_SIZE];
static const char *no_hosts; /* why there are none */

static int setup_hosts(void **state) {
  return setup_world(state, THREADS) == 0 && messaging_make_keys(secret, credential) == MESSAGING_OK ? 0 : -1;
}

/* Everybody is forked where he is to live. */
static void hire_on_hosts(world *w, bool apart) {
  for (size_t i = 0; i < WORKERS; i++) {
    if (apart) assert_true(enter_host(is_in(ON_A, i) ? HOST_A : HOST_B));
    (void)add_puppet(w, 1 + (messaging_kind)(i % 3), far_puppet(w, i));
  }
  if (apart) assert_true(enter_host(SUPERVISOR_HOST));
}

static void start_on(world *w, const char *bind, bool forwarded_too, int silence) {
  begin_rounds(silence);
  messaging_options im = {.bind = bind, .secret = secret, .heartbeat_ms = HEARTBEAT_MS, .silence_ms = (uint32_t)silence_ms};
  messaging_options worker = {.credential = credential, .heartbeat_ms = HEARTBEAT_MS, .silence_ms = (uint32_t)silence_ms};
  open_im(w, &im);
  if (forwarded_too) w->addresses = forward_to(&w->addresses);
  run_im(w, 0, WORKERS);
  for (size_t i = 0; i < WORKERS; i++) join(w, &w->workers[i], &worker);
  wait_joined(w, WORKERS);
}

static world *start_apart(void **state, int silence) {
  world *w = *state;
  if (no_hosts) {
    print_message("skipped: %s\n", no_hosts);
    skip();
  }
  hire_on_hosts(w, true);
  start_on(w, "tcp://10.77.0.1:*", false, silence);
  return w;
}

/* It is seen in the statistics that those who were cut off asked for what they missed. */
static void check_repairs(world *w, unsigned cut) {
  for (size_t i = 0; i < WORKERS; i++)
    if (is_in(cut, i)) assert_true(stats_of(&w->workers[i]).repairs_asked > 0);
  assert_true(im_stats(w).batches_repeated > 0);
}

/* Some are cut off until that is noticed, and healed. Both are commands on a host. */
static void cut_and_heal(world *w, unsigned cut, int host, const char *do_cut, const char *do_heal) {
  TALK_UNTIL(w, sent >= 20 * WORKERS);
  assert_int_equal(run_on(host, "%s", do_cut), 0);
  TALK_UNTIL(w, are_lost(w, cut));
  others_go_on(w, cut);
  assert_int_equal(run_on(host, "%s", do_heal), 0);
  int64_t healed = now_ms();
  TALK_UNTIL(w, are_back(w));
  print_message("everybody was back %d ms after the link\n", (int)(now_ms() - healed));
  all_is_there(w);
  check_reports(w, cut);
  if (cut != EVERYBODY) check_repairs(w, cut);
  finish(w);
}

static void test_link_down_and_up(void **state) {
  cut_and_heal(start_apart(state, SILENCE_MS), ON_A, HUB, "ip link set h2 down", "ip link set h2 up");
}

/* Nobody sees a link go down here. */
static void test_host_cut_off(void **state) {
  cut_and_heal(start_apart(state, SILENCE_MS), ON_B, HUB, "ip link set h3 nomaster", "ip link set h3 master br0");
}

static void test_supervisor_cut_off(void **state) {
  cut_and_heal(start_apart(state, SILENCE_MS), EVERYBODY, HUB, "ip link set h1 nomaster", "ip link set h1 master br0");
}

/* What is sent from the old address reaches nobody any more; the connections are made anew. */
static void test_address_changes(void **state) {
  cut_and_heal(start_apart(state, SILENCE_MS), ON_A, HOST_A, "ip addr del 10.77.0.2/24 dev eth0", "ip addr add 10.77.0.12/24 dev eth0");
}

/* The kernel resets all connections of the supervisor. False: none. */
static bool reset_connections(const world *w) {
  const char *pub = strrchr(w->addresses.pub, ':') + 1, *pull = strrchr(w->addresses.pull, ':') + 1;
  return run_on(SUPERVISOR_HOST, "ss -HK 'sport = :%s or sport = :%s' 2> /dev/null | grep -q .", pub, pull) == 0;
}

/* The kernel resets connections under everybody's hands, while large and small messages are on their way. */
static void test_connections_reset_by_the_kernel(void **state) {
  world *w = start_apart(state, PATIENT_MS);
  for (int i = 0; i < 6; i++) {
    for (size_t j = 0; j < 3; j++) post_one(w, j, LARGE);
    bool reset = reset_connections(w);
    for (size_t j = 0; j < 3; j++) assert_ok(await(&w->workers[j]).status);
    if (!reset && i == 0) {
      print_message("skipped: this kernel resets no connections (ss -K)\n");
      skip();
    }
    TALK_UNTIL(w, reset || (reset = reset_connections(w))); /* none may have been there for a moment */
    size_t total = sent;
    TALK_UNTIL(w, everybody_has(w, total));
  }
  all_is_there(w);
  check_reports(w, NOBODY);
  finish(w);
}

/* A connection ends with a reset when half of a large frame has passed: upwards its batch is sent again, downwards it is asked for. On loopback. */
static void test_reset_in_mid_frame(void **state) {
  enum { RESETS_UP = 3, RESETS_DOWN = 6 };
  world *w = *state;
  hire_on_hosts(w, false);
  start_on(w, "tcp://127.0.0.1:*", true, PATIENT_MS);
  for (int i = 0; i < RESETS_UP + RESETS_DOWN; i++) {
    uint64_t repeated = repeated_by_all(w);
    atomic_fetch_add(&forwarding.wanted[i < RESETS_UP ? 0 : 1], 1);
    post_one(w, 0, LARGE);
    assert_ok(await(&w->workers[0]).status);
    TALK_UNTIL(w, atomic_load(&forwarding.resets) == i + 1);
    size_t total = sent;
    TALK_UNTIL(w, repeated_by_all(w) > repeated && everybody_has(w, total));
    TALK_UNTIL(w, atomic_load(&forwarding.connections) > 2 * WORKERS + i); /* who was hit may lack nothing: a sender has his own message */
  }
  all_is_there(w);
  check_reports(w, NOBODY);
  finish(w);
}

static int teardown_forwarding(void **state) {
  stop_forwarding();
  return teardown(state);
}

#define ON_HOSTS(test)                                                                                                     \
  { #test, test, setup_hosts, teardown, NULL }

int main(void) {
  no_hosts = make_hosts();
  const struct CMUnitTest tests[] = {
      ON_HOSTS(test_link_down_and_up),
      ON_HOSTS(test_host_cut_off),
      ON_HOSTS(test_supervisor_cut_off),
      ON_HOSTS(test_address_changes),
      ON_HOSTS(test_connections_reset_by_the_kernel),
      {"test_reset_in_mid_frame", test_reset_in_mid_frame, setup_hosts, teardown_forwarding, NULL},
  };
  return RUN_TESTS(hosts, tests);
}
