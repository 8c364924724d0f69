/* The sockets' files are deleted. Who is connected goes on; who comes late waits, and each of its calls ends by its own time. */
#include "faults.h"

enum { WORKERS = 2, COUNT = 300 };

static void remove_files(const world *w) {
  assert_int_equal(unlink(socket_path(w->addresses.pub)), 0);
  assert_int_equal(unlink(socket_path(w->addresses.pull)), 0);
}

/* Everybody sends and receives. */
static void all_talk(world *w, size_t workers, uint32_t first) {
  for (size_t i = 0; i < workers; i++)
    post(&w->workers[i], TALK(.first = first, .count = COUNT, .size = 50, .relays = w->workers[i].log->relays + workers * COUNT));
  assert_ok(im_talk(w, TALK(.first = first, .count = COUNT, .size = 50, .relays = w->log->relays + workers * COUNT)).status);
  for (size_t i = 0; i < workers; i++) assert_ok(await(&w->workers[i]).status);
}

static void files_deleted_while_connected(void **state) {
  world *w = *state;
  start(w, WORKERS, &patient, &patient);
  wait_joined(w, WORKERS);
  all_talk(w, WORKERS, 1);
  remove_files(w);
  all_talk(w, WORKERS, 1 + COUNT);
  check_one_order(w, WORKERS, 2 * (WORKERS + 1) * COUNT);
  finish(w);
  assert_int_equal(count_entries(getenv("TMPDIR")), 0);
  happened("%d relays before and after, exit OK, the folder is removed", 2 * (WORKERS + 1) * COUNT);
}

/* The late one is listed, and its supervisor lives: so it goes on trying, and nothing but the time it is given ends its calls. */
static void files_deleted_before_a_late_worker(void **state) {
  world *w = *state;
  messaging_options impatient = {.exit_timeout_ms = 300};
  start(w, WORKERS, &patient, &patient);
  wait_joined(w, WORKERS);
  remove_files(w);
  puppet *late = hire(w);
  assert_ok(bus_add_child_process(w->im, child_of(late)));
  join(w, late, &impatient);
  all_talk(w, WORKERS, 1);
  assert_ok(order(late, TALK(.first = 1, .count = 1)).status); /* kept until there is somebody to send it to */
  assert_status(MESSAGING_ETIMEDOUT, order(late, (command){.type = DO_WAIT, .timeout_ms = 200}).status);
  assert_status(MESSAGING_ETIMEDOUT, order(late, (command){.type = DO_FLUSH, .timeout_ms = 200}).status);
  assert_int_equal(im_stats(w).workers_joined, WORKERS);
  int64_t before = now_ms();
  messaging_status left = order(late, COMMAND(DO_EXIT)).status;
  happened("init, run and send OK, wait and flush ETIMEDOUT, exit %s after %d of 300 ms", status_name(left), (int)(now_ms() - before));
  assert_status(MESSAGING_ETIMEDOUT, left);
  dismiss(late);
  WAIT_FOR(find_report(w->log, MESSAGING_ELOST, late->id)); /* its goodbye was not heard either */
  finish(w);
}

/* A late one that waits for ever, when the supervisor's process ends. */
static void files_deleted_and_the_supervisor_ends(void **state) {
  world *w = *state;
  bool killed = the_row->argument != 0;
  puppet *im = hire(w), *late = hire(w);
  reply r = order(im, COMMAND(DO_INIT_IM));
  assert_ok(r.status);
  w->addresses = r.addresses;
  command run = {.type = DO_RUN_IM, .children = {child_of(late)}, .children_count = 1};
  assert_ok(order(im, run).status);
  remove_files(w);
  join(w, late, NULL);
  post(late, (command){.type = DO_WAIT, .timeout_ms = -1});
  if (!killed) ignore(order(im, COMMAND(DO_EXIT)).status);
  if (killed) kill_worker(im);
  else dismiss(im);
  assert_int_not_equal(await(late).status, MESSAGING_ETIMEDOUT);
  assert_true(order(late, COMMAND(DO_CHECK)).terminated);
  assert_status(MESSAGING_ELOST, order(late, COMMAND(DO_RECEIVE)).status);
  happened("its wait ended; termination, then ELOST");
  ignore(order(late, COMMAND(DO_EXIT)).status);
}

/* The files are put back: somebody had moved them. */
static void files_moved_and_put_back(void **state) {
  world *w = *state;
  char pub[MESSAGING_ADDRESS_SIZE + 8], pull[MESSAGING_ADDRESS_SIZE + 8];
  start(w, WORKERS, &patient, &patient);
  wait_joined(w, WORKERS);
  (void)snprintf(pub, sizeof pub, "%s.away", socket_path(w->addresses.pub));
  (void)snprintf(pull, sizeof pull, "%s.away", socket_path(w->addresses.pull));
  assert_int_equal(rename(socket_path(w->addresses.pub), pub), 0);
  assert_int_equal(rename(socket_path(w->addresses.pull), pull), 0);
  puppet *late = hire(w);
  assert_ok(bus_add_child_process(w->im, child_of(late)));
  join(w, late, &patient);
  all_talk(w, WORKERS, 1);
  assert_int_equal(im_stats(w).workers_joined, WORKERS);
  assert_int_equal(rename(pub, socket_path(w->addresses.pub)), 0);
  assert_int_equal(rename(pull, socket_path(w->addresses.pull)), 0);
  assert_ok(order(late, TALK(.first = 1, .count = COUNT, .relays = (WORKERS + 1) * COUNT)).status);
  for (size_t i = 0; i < WORKERS; i++) assert_ok(order(&w->workers[i], TALK(.relays = (WORKERS + 1) * COUNT)).status);
  assert_ok(im_talk(w, TALK(.relays = (WORKERS + 1) * COUNT)).status);
  check_one_order(w, WORKERS + 1, (WORKERS + 2) * COUNT);
  happened("it joined by itself and has all %d relays", (WORKERS + 2) * COUNT);
  finish(w);
}

static const row files_rows[] = {
    ROW(files_deleted_while_connected, .injected = "both sockets' files deleted while workers are connected",
        .must = "they go on; exit OK, nothing is left behind", .quick = true),
    ROW(files_deleted_before_a_late_worker, .injected = "files deleted before a late worker connects",
        .must = "its calls end by their own deadlines, exit ETIMEDOUT", .quick = true),
    ROW(files_moved_and_put_back, .injected = "files away while a late worker connects, then back", .must = "it joins and gets everything"),
    ROW(files_deleted_and_the_supervisor_ends, .injected = "files deleted, the late one waits, the supervisor is killed",
        .must = "its wait for ever ends: termination, ELOST", .argument = 1),
    ROW(files_deleted_and_the_supervisor_ends, .injected = "files deleted, the late one waits, the supervisor's process ends",
        .must = "its wait for ever ends: termination, ELOST"),
};

GROUP(files_group, "6. The sockets' files are deleted", files_rows);
