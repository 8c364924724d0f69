/* Each call by itself: out of place, with impossible arguments, in a forked child, in the error handler, from many threads. */
#include <sys/epoll.h>

#include "harness.h"

static bus_ctx *worker_here(world *w, const messaging_options *options, pid_t id) {
  messaging_options with_id = options ? *options : (messaging_options){0};
  bus_ctx *worker = NULL;
  with_id.id = id;
  assert_ok(bus_init_worker(&worker, 7, w->addresses.pub, w->addresses.pull, &with_id));
  return worker;
}

static const messaging_child someone = {-1, 7};
static const fact a_fact = {.id = 1, .text = "x", .text_size = 1};
static const messaging_output an_output = {MESSAGING_LOG, 1, "x", 1};

/* A supervisor and a worker in this process, joined. */
static bus_ctx *join_here(world *w) {
  start(w, 0, NULL, NULL);
  bus_ctx *worker = worker_here(w, NULL, someone.pid);
  assert_ok(bus_add_child_process(w->im, someone));
  assert_ok(bus_run_worker(worker, NULL, NULL));
  wait_joined(w, 1);
  return worker;
}

/* What every call that has a handle gives, be it a supervisor's call or not. */
static void check_every_call(bus_ctx *ctx, messaging_status expected, messaging_status expected_of_supervisors_calls) {
  bus_batch batch = {.count = 99};
  assert_status(expected, bus_send_relay_message(ctx, &a_fact));
  assert_status(expected, bus_send_output_message(ctx, &an_output));
  assert_status(expected, bus_send_term_message(ctx));
  assert_status(expected, bus_recv(ctx, &batch));
  assert_int_equal(batch.count, 0);
  assert_status(expected, bus_wait(ctx, -1));
  assert_status(expected, bus_flush(ctx, -1));
  assert_false(bus_check_termination(ctx));
  assert_status(expected_of_supervisors_calls, bus_send_term_message_to(ctx, -1));
  assert_status(expected_of_supervisors_calls, bus_update_child_processes_list(ctx, &someone, 1));
  assert_status(expected_of_supervisors_calls, bus_add_child_process(ctx, someone));
  assert_status(expected_of_supervisors_calls, bus_purge_im_mailbox(ctx));
}

static void test_before_run(void **state) {
  world *w = *state;
  messaging_stats stats;
  open_im(w, NULL);
  check_every_call(w->im, MESSAGING_ENOTRUNNING, MESSAGING_ENOTRUNNING);
  assert_ok(bus_stats(w->im, &stats));
  assert_int_equal(stats.generation, 0);
  assert_true(bus_fd(w->im) >= 0);
  bus_ctx *worker = worker_here(w, NULL, -1);
  check_every_call(worker, MESSAGING_ENOTRUNNING, MESSAGING_EROLE);
  assert_ok(bus_stats(worker, &stats));
  assert_true(bus_fd(worker) >= 0);
  assert_ok(bus_exit(&worker));
  assert_ok(bus_exit(&w->im));
}

static void test_wrong_role(void **state) {
  world *w = *state;
  messaging_worker_stats stats;
  open_im(w, NULL);
  bus_ctx *worker = worker_here(w, NULL, -1);
  for (int running = 0; running < 2; running++) {
    assert_status(MESSAGING_EROLE, bus_run_worker(w->im, NULL, NULL));
    assert_status(MESSAGING_EROLE, bus_run_im(worker, NULL, 0, NULL, NULL));
    assert_status(MESSAGING_EROLE, bus_send_term_message_to(worker, -1));
    assert_status(MESSAGING_EROLE, bus_update_child_processes_list(worker, &someone, 1));
    assert_status(MESSAGING_EROLE, bus_add_child_process(worker, someone));
    assert_status(MESSAGING_EROLE, bus_purge_im_mailbox(worker));
    assert_status(MESSAGING_EROLE, bus_worker_stats(worker, -1, &stats));
    if (!running) {
      assert_ok(bus_run_im(w->im, &someone, 1, NULL, NULL));
      assert_ok(bus_run_worker(worker, NULL, NULL));
    }
  }
  assert_status(MESSAGING_EINVAL, bus_run_im(w->im, &someone, 1, NULL, NULL)); /* once only */
  assert_status(MESSAGING_EINVAL, bus_run_worker(worker, NULL, NULL));
  assert_ok(bus_exit(&worker));
  assert_ok(bus_exit(&w->im));
}

static void test_null_arguments(void **state) {
  world *w = *state;
  messaging_stats stats;
  messaging_worker_stats worker_stats;
  bus_ctx *none = NULL;
  bus_batch batch = {0};
  messaging_addresses addresses;
  assert_status(MESSAGING_EINVAL, bus_init_im(NULL, &addresses, NULL));
  assert_status(MESSAGING_EINVAL, bus_init_im(&none, NULL, NULL));
  assert_status(MESSAGING_EINVAL, bus_init_worker(NULL, 1, "ipc:///x", "ipc:///y", NULL));
  assert_status(MESSAGING_EINVAL, bus_init_worker(&none, 1, NULL, "ipc:///y", NULL));
  assert_status(MESSAGING_EINVAL, bus_init_worker(&none, 1, "ipc:///x", NULL, NULL));
  assert_null(none);
  check_every_call(NULL, MESSAGING_EINVAL, MESSAGING_EINVAL);
  assert_status(MESSAGING_EINVAL, bus_run_im(NULL, NULL, 0, NULL, NULL));
  assert_status(MESSAGING_EINVAL, bus_run_worker(NULL, NULL, NULL));
  assert_status(MESSAGING_EINVAL, bus_stats(NULL, &stats));
  assert_status(MESSAGING_EINVAL, bus_worker_stats(NULL, -1, &worker_stats));
  assert_int_equal(bus_fd(NULL), -1);
  assert_status(MESSAGING_EINVAL, bus_exit(NULL));
  assert_status(MESSAGING_EINVAL, bus_batch_free(NULL));
  assert_true(bus_print_message(stdout, NULL) < 0);

  start(w, 0, NULL, NULL);
  assert_status(MESSAGING_EINVAL, bus_send_relay_message(w->im, NULL));
  assert_status(MESSAGING_EINVAL, bus_send_output_message(w->im, NULL));
  assert_status(MESSAGING_EINVAL, bus_recv(w->im, NULL));
  assert_status(MESSAGING_EINVAL, bus_stats(w->im, NULL));
  assert_status(MESSAGING_EINVAL, bus_worker_stats(w->im, -1, NULL));
  assert_status(MESSAGING_EINVAL, bus_update_child_processes_list(w->im, NULL, 1));
  assert_ok(bus_update_child_processes_list(w->im, NULL, 0));
  assert_ok(bus_recv(w->im, &batch));
  assert_int_equal(batch.count, 0);
  finish(w);
}

static void test_impossible_lists(void **state) {
  world *w = *state;
  const messaging_child twice[] = {{-1, 1}, {-2, 1}, {-1, 2}}, nobody[] = {{0, 1}}, supervisor[] = {{-1, 1}, {-2, MESSAGING_SUPERVISOR}};
  open_im(w, NULL);
  for (int running = 0; running < 2; running++) {
    for (int i = 0; i < 3; i++) {
      const messaging_child *list = i == 0 ? twice : i == 1 ? nobody : supervisor;
      size_t count = i == 0 ? 3 : i == 1 ? 1 : 2;
      messaging_status status =
          running ? bus_update_child_processes_list(w->im, list, count) : bus_run_im(w->im, list, count, NULL, NULL);
      assert_status(i == 2 ? MESSAGING_EKIND : MESSAGING_EINVAL, status);
    }
    if (!running) assert_ok(bus_run_im(w->im, &someone, 1, NULL, NULL));
  }
  assert_status(MESSAGING_EINVAL, bus_add_child_process(w->im, someone)); /* listed already */
  assert_status(MESSAGING_EINVAL, bus_add_child_process(w->im, nobody[0]));
  assert_status(MESSAGING_EKIND, bus_add_child_process(w->im, supervisor[1]));
  assert_status(MESSAGING_EKIND, bus_send_term_message_to(w->im, -2));
  assert_int_equal(im_stats(w).workers_listed, 1); /* nothing was changed */
  assert_int_equal(im_stats(w).generation, 1);
  assert_ok(bus_exit(&w->im));
}

static void test_impossible_options(void **state) {
  world *w = *state;
  const messaging_options bad[] = {
      {.id = 5},
      {.heartbeat_ms = 9},
      {.heartbeat_ms = 60001, .silence_ms = 1000000},
      {.heartbeat_ms = 1000, .silence_ms = 2999},
      {.silence_ms = 1},
      {.message_bytes_max = ((size_t)1 << 30) + 1},
      {.message_bytes_max = 1000, .outbox_bytes_max = 1999},
      {.message_bytes_max = 1000, .inbox_bytes_max = 1999},
      {.message_bytes_max = 1000, .history_bytes_max = 1999},
  };
  const messaging_options good[] = {
      {0},
      {.heartbeat_ms = 10, .silence_ms = 30},
      {.heartbeat_ms = 60000, .silence_ms = 180000},
      {.message_bytes_max = (size_t)1 << 30},
      {.message_bytes_max = 1000, .outbox_bytes_max = 2000, .inbox_bytes_max = 2000, .history_bytes_max = 2000},
      {.exit_timeout_ms = 1, .send_timeout_ms = 1},
  };
  messaging_addresses addresses;
  bus_ctx *worker = (bus_ctx *)w;
  open_im(w, NULL);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    bus_ctx *im = (bus_ctx *)w;
    if (i > 0) assert_status(MESSAGING_EINVAL, bus_init_im(&im, &addresses, &bad[i]));
    if (i > 0) assert_null(im);
    assert_status(MESSAGING_EINVAL, bus_init_worker(&worker, 1, w->addresses.pub, w->addresses.pull, &bad[i]));
    assert_null(worker);
  }
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    bus_ctx *im = NULL;
    assert_ok(bus_init_im(&im, &addresses, &good[i]));
    assert_ok(bus_init_worker(&worker, 1, addresses.pub, addresses.pull, &good[i]));
    assert_ok(bus_exit(&worker));
    assert_ok(bus_exit(&im));
  }
  assert_ok(bus_exit(&w->im));
}

static void test_impossible_addresses(void **state) {
  world *w = *state;
  char longest[2 * MESSAGING_ADDRESS_SIZE] = "ipc:///";
  bus_ctx *ctx = NULL;
  messaging_addresses addresses;
  memset(longest + 7, 'x', sizeof longest - 8);
  open_im(w, NULL);
  const char *pub = w->addresses.pub, *pull = w->addresses.pull;
  assert_status(MESSAGING_EKIND, bus_init_worker(&ctx, MESSAGING_SUPERVISOR, pub, pull, NULL));
  assert_status(MESSAGING_ECONNECT, bus_init_worker(&ctx, 1, "nonsense", pull, NULL));
  assert_status(MESSAGING_ECONNECT, bus_init_worker(&ctx, 1, pub, "nonsense://x", NULL));
  assert_status(MESSAGING_ECONNECT, bus_init_worker(&ctx, 1, "", "", NULL));
  assert_status(MESSAGING_EINVAL, bus_init_worker(&ctx, 1, longest, pull, NULL));
  assert_status(MESSAGING_EBIND, bus_init_im(&ctx, &addresses, &(messaging_options){.bind = "ipc:///no/such/folder"}));
  assert_status(MESSAGING_EINVAL, bus_init_im(&ctx, &addresses, &(messaging_options){.bind = "nonsense"}));
  assert_null(ctx);
  assert_ok(bus_exit(&w->im));
}

/* ---- Fork --------------------------------------------------------------------------------------------------------------- */

/* In a forked child: the number of calls that gave something else than EFORK. */
static int count_wrong_in_child(bus_ctx *im, bus_ctx *worker) {
  int wrong = 0;
  messaging_stats stats;
  messaging_worker_stats worker_stats;
  bus_ctx *both[] = {im, worker};
  inherits_memory();
  for (int i = 0; i < 2; i++) {
    bus_ctx *ctx = both[i];
    bus_batch batch = {0};
    wrong += bus_run_im(ctx, NULL, 0, NULL, NULL) != MESSAGING_EFORK;
    wrong += bus_run_worker(ctx, NULL, NULL) != MESSAGING_EFORK;
    wrong += bus_send_relay_message(ctx, &a_fact) != MESSAGING_EFORK;
    wrong += bus_send_output_message(ctx, &an_output) != MESSAGING_EFORK;
    wrong += bus_send_term_message(ctx) != MESSAGING_EFORK;
    wrong += bus_send_term_message_to(ctx, -1) != MESSAGING_EFORK;
    wrong += bus_recv(ctx, &batch) != MESSAGING_EFORK;
    wrong += bus_wait(ctx, -1) != MESSAGING_EFORK;
    wrong += bus_flush(ctx, -1) != MESSAGING_EFORK;
    wrong += bus_update_child_processes_list(ctx, &someone, 1) != MESSAGING_EFORK;
    wrong += bus_add_child_process(ctx, someone) != MESSAGING_EFORK;
    wrong += bus_purge_im_mailbox(ctx) != MESSAGING_EFORK;
    wrong += bus_stats(ctx, &stats) != MESSAGING_EFORK;
    wrong += bus_worker_stats(ctx, -1, &worker_stats) != MESSAGING_EFORK;
    wrong += bus_fd(ctx) != -1;
    wrong += bus_check_termination(ctx);
    wrong += bus_exit(&ctx) != MESSAGING_EFORK;
    wrong += ctx != NULL;
  }
  return wrong;
}

/* An inherited handle answers EFORK to every call and never blocks, however busy the parent's threads were at the fork. */
static void test_forked_use(void **state) {
  world *w = *state;
  enum { FORKS = 100 };
  start(w, 1, NULL, NULL);
  bus_ctx *here = worker_here(w, NULL, -50);
  assert_ok(bus_add_child_process(w->im, (messaging_child){-50, 7}));
  assert_ok(bus_run_worker(here, NULL, NULL));
  post(&w->workers[0], TALK(.first = 1, .count = 100000, .size = 20));
  for (uint32_t i = 0; i < FORKS; i++) {
    assert_ok(send_fact(w->im, 1 + i, PLAIN, 10));
    assert_ok(send_fact(here, 1 + i, PLAIN, 10));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
      (void)alarm((unsigned)deadline_ms() / 1000); /* it ends by a signal if a call blocks */
      (void)signal(SIGALRM, SIG_DFL);
      _exit(count_wrong_in_child(w->im, here));
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
  }
  assert_ok(await(&w->workers[0]).status);
  assert_ok(im_talk(w, TALK(.relays = 100000 + FORKS)).status);
  assert_ok(bus_exit(&here));
  finish(w);
}

/* ---- The error handler -------------------------------------------------------------------------------------------------- */

typedef struct {
  world *w;
  atomic_int calls;
  messaging_status wait, flush, exit, relay, output, term, update, add, purge, stats;
  bus_ctx *after_exit;
} handler_record;

static void call_from_handler(const messaging_error *error, void *user) {
  handler_record *r = user;
  bus_ctx *im = r->w->im;
  messaging_stats stats;
  if (error->status != MESSAGING_ELOST || atomic_load(&r->calls) > 0) return;
  r->wait = bus_wait(im, -1);
  r->flush = bus_flush(im, -1);
  r->after_exit = im;
  r->exit = bus_exit(&r->after_exit);
  r->relay = bus_send_relay_message(im, &(fact){.id = 1, .text = "", .text_size = 0});
  r->output = bus_send_output_message(im, &(messaging_output){MESSAGING_PROGRESS, 3, NULL, 0});
  r->add = bus_add_child_process(im, (messaging_child){-9, 1});
  r->update = bus_update_child_processes_list(im, (messaging_child[]){child_of(&r->w->workers[0]), {-8, 1}}, 2);
  r->term = bus_send_term_message_to(im, -8);
  r->stats = bus_stats(im, &stats);
  r->purge = bus_purge_im_mailbox(im);
  atomic_fetch_add(&r->calls, 1);
}

static void test_calls_in_the_error_handler(void **state) {
  world *w = *state;
  needs_pidfd();
  handler_record r = {.w = w};
  open_im(w, NULL);
  puppet *p = hire(w);
  messaging_child child = child_of(p);
  assert_ok(bus_run_im(w->im, &child, 1, call_from_handler, &r));
  join(w, p, NULL);
  wait_joined(w, 1);
  pid_t dead = fork();
  if (dead == 0) _exit(0);
  assert_int_equal(waitpid(dead, NULL, 0), dead);
  assert_ok(bus_add_child_process(w->im, (messaging_child){dead, 3}));
  WAIT_FOR(atomic_load(&r.calls) == 1);
  assert_status(MESSAGING_EINVAL, r.wait);
  assert_status(MESSAGING_EINVAL, r.flush);
  assert_status(MESSAGING_EINVAL, r.exit);
  assert_ptr_equal(r.after_exit, w->im);
  assert_ok(r.relay);
  assert_ok(r.output);
  assert_ok(r.add);
  assert_ok(r.update);
  assert_ok(r.term);
  assert_ok(r.stats);
  assert_ok(r.purge);
  assert_ok(im_talk(w, TALK(.first = 2, .count = 1)).status);
  assert_ok(order(p, TALK(.until_id = 2)).status);
  assert_int_equal(im_stats(w).workers_listed, 2);
  finish(w);
}

/* ---- Leaving ------------------------------------------------------------------------------------------------------------ */

static void test_exit_twice(void **state) {
  world *w = *state;
  start(w, 0, NULL, NULL);
  bus_ctx *worker = worker_here(w, NULL, -1);
  assert_ok(bus_run_worker(worker, NULL, NULL));
  assert_ok(bus_exit(&worker));
  assert_null(worker);
  assert_ok(bus_exit(&worker));
  assert_ok(bus_exit(&w->im));
  assert_null(w->im);
  assert_ok(bus_exit(&w->im));
}

/* With nothing sent exit is OK at once, also with nobody there: its timeout, which would be longer than this test may take, plays no part. */
static void test_exit_with_nothing_sent(void **state) {
  world *w = *state;
  messaging_options patient = {.exit_timeout_ms = 100 * (uint32_t)deadline_ms()};
  open_im(w, &patient);
  bus_ctx *worker = worker_here(w, &patient, -1);
  assert_ok(bus_run_worker(worker, NULL, NULL)); /* the supervisor does not run */
  assert_ok(bus_exit(&worker));
  run_im(w, 0, 0);
  worker = worker_here(w, &patient, -1);
  assert_ok(bus_run_worker(worker, NULL, NULL)); /* it runs, but does not list this one */
  assert_ok(bus_exit(&worker));
  assert_ok(bus_add_child_process(w->im, (messaging_child){-2, 1})); /* one that never comes */
  assert_ok(im_talk(w, TALK(.first = 1, .count = 10)).status);
  assert_ok(bus_exit(&w->im));
}

/* With something sent that nobody takes, exit waits for exit_timeout_ms, says so, and the handler is told. */
static void test_exit_runs_out_of_time(void **state) {
  world *w = *state;
  enum { TIMEOUT = 60 };
  open_im(w, NULL);
  bus_ctx *worker = worker_here(w, &(messaging_options){.exit_timeout_ms = TIMEOUT}, -1);
  assert_ok(bus_run_worker(worker, write_report, w->log));
  assert_ok(send_fact(worker, 1, PLAIN, 100));
  int64_t before = now_ms();
  assert_status(MESSAGING_ETIMEDOUT, bus_exit(&worker));
  assert_true(now_ms() - before >= TIMEOUT);
  assert_null(worker);
  assert_non_null(find_report(w->log, MESSAGING_ETIMEDOUT, ANYBODY));
  assert_ok(bus_exit(&w->im));
}

/* exit is OK only when all is accepted: whatever was sent just before has arrived, from workers that were never heard of before, too. */
static void test_exit_flushes(void **state) {
  world *w = *state;
  enum { WORKERS = 5, EACH = 3000 };
  open_im(w, NULL);
  for (size_t i = 0; i < WORKERS; i++) (void)hire(w);
  run_im(w, 0, WORKERS);
  for (size_t i = 0; i < WORKERS; i++) {
    join(w, &w->workers[i], NULL);
    post(&w->workers[i], TALK(.first = 1, .count = EACH, .size = 100));
    post(&w->workers[i], COMMAND(DO_EXIT));
  }
  for (size_t i = 0; i < WORKERS; i++) {
    assert_ok(await(&w->workers[i]).status);
    assert_ok(await(&w->workers[i]).status);
    dismiss(&w->workers[i]);
  }
  assert_ok(im_talk(w, TALK(.relays = WORKERS * EACH)).status);
  assert_int_equal(im_stats(w).next_number, WORKERS * EACH + 1);
  finish(w);
}

static void test_flush(void **state) {
  world *w = *state;
  start(w, 0, NULL, NULL);
  bus_ctx *worker = worker_here(w, NULL, -1);
  assert_ok(bus_run_worker(worker, NULL, NULL));
  assert_ok(bus_flush(worker, 0)); /* nothing to flush */
  assert_ok(send_fact(worker, 1, PLAIN, 100));
  assert_status(MESSAGING_ETIMEDOUT, bus_flush(worker, 0)); /* not listed, so not accepted */
  assert_status(MESSAGING_ETIMEDOUT, bus_flush(worker, 30));
  assert_status(MESSAGING_EINVAL, bus_flush(worker, -2));
  assert_ok(bus_add_child_process(w->im, someone));
  assert_ok(bus_flush(worker, -1));
  assert_int_equal(im_stats(w).next_number, 2);
  assert_ok(im_talk(w, TALK(.first = 1, .count = 1000, .size = 10)).status);
  assert_ok(bus_flush(w->im, -1));
  messaging_stats stats;
  assert_ok(bus_stats(worker, &stats));
  assert_int_equal(stats.next_number, 1002); /* it is in the worker's inbox */
  assert_ok(bus_exit(&worker));
  finish(w);
}

/* ---- What the end says --------------------------------------------------------------------------------------------------- */

/* A worker whose largest message differs is refused; exit says ELOST, since it says EINVAL of its own argument and of where it is called. */
static void test_exit_of_who_was_refused(void **state) {
  world *w = *state;
  messaging_options other = {.message_bytes_max = 1000};
  start(w, 0, NULL, NULL);
  bus_ctx *worker = worker_here(w, &other, someone.pid);
  assert_ok(bus_add_child_process(w->im, someone));
  assert_ok(bus_run_worker(worker, NULL, NULL));
  WAIT_FOR(bus_check_termination(worker));
  assert_status(MESSAGING_EINVAL, bus_send_relay_message(worker, &a_fact));
  assert_status(MESSAGING_ELOST, bus_exit(&worker));
  assert_null(worker);
  finish(w);
}

/* recv gives an empty batch when nothing is left, and not because nothing of the first megabyte could be decoded. */
static void test_recv_goes_on_behind_what_does_not_decode(void **state) {
  enum { BAD = 3000, SIZE = 1000 };
  world *w = *state;
  bus_batch batch;
  bus_ctx *worker = join_here(w);
  for (uint32_t i = 0; i < BAD; i++) assert_ok(send_fact(w->im, i, UNDECODABLE, SIZE));
  assert_ok(send_fact(w->im, BAD, PLAIN, SIZE));
  assert_ok(bus_flush(w->im, -1));
  assert_ok(bus_recv(worker, &batch));
  assert_int_equal(batch.count, 1);
  assert_int_equal(batch.messages[0].relay.message.id, BAD);
  bus_batch_free(&batch);
  assert_ok(bus_exit(&worker));
  finish(w);
}

/* ---- Waiting ------------------------------------------------------------------------------------------------------------ */

static void *send_one(void *ctx) {
  pause_ms(20);
  ignore(send_fact(ctx, 1, PLAIN, 1));
  return NULL;
}

static void test_wait(void **state) {
  world *w = *state;
  bus_ctx *worker = join_here(w);
  bus_ctx *both[] = {w->im, worker};
  for (int i = 0; i < 2; i++) {
    assert_status(MESSAGING_ETIMEDOUT, bus_wait(both[i], 0));
    int64_t before = now_ms();
    assert_status(MESSAGING_ETIMEDOUT, bus_wait(both[i], 50));
    assert_true(now_ms() - before >= 50);
    assert_status(MESSAGING_EINVAL, bus_wait(both[i], -2));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_one, both[1 - i]), 0);
    assert_ok(bus_wait(both[i], -1));
    assert_ok(bus_wait(both[i], 0)); /* it takes nothing */
    assert_int_equal(pthread_join(thread, NULL), 0);
    bus_batch batch = {0};
    assert_ok(bus_recv(both[i], &batch));
    assert_int_equal(batch.count, 1);
    assert_ok(bus_batch_free(&batch));
    assert_status(MESSAGING_ETIMEDOUT, bus_wait(both[i], 0));
  }
  assert_ok(bus_exit(&worker));
  finish(w);
}

static bool readable(int fd, int timeout_ms) {
  struct pollfd entry = {fd, POLLIN, 0};
  int ready;
  do ready = poll(&entry, 1, timeout_ms);
  while (ready < 0 && errno == EINTR);
  return ready == 1;
}

static bool readable_by_epoll(int epoll_fd, int timeout_ms) {
  struct epoll_event event;
  int ready;
  do ready = epoll_wait(epoll_fd, &event, 1, timeout_ms);
  while (ready < 0 && errno == EINTR);
  return ready == 1;
}

/* 100,000 messages by a descriptor alone, one recv for each time it is readable: a single missed wake-up would end this. */
static void test_fd(void **state) {
  world *w = *state;
  enum { COUNT = 100000 };
  start(w, 1, NULL, NULL);
  int fd = bus_fd(w->im), epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  assert_true(fd >= 0);
  assert_int_equal(bus_fd(w->im), fd);
  assert_false(readable(fd, 0));
  struct epoll_event event = {.events = EPOLLIN};
  assert_int_equal(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), 0);
  post(&w->workers[0], TALK(.first = 1, .count = COUNT, .size = 8));
  for (size_t turn = 0; w->log->relays < COUNT; turn++) {
    bool ready = turn % 2 ? readable(fd, deadline_ms()) : readable_by_epoll(epoll_fd, deadline_ms());
    if (!ready) fail_msg("not readable after %d messages", (int)w->log->relays);
    size_t taken = 0;
    assert_ok(receive_batch(w->im, w->log, &taken));
  }
  assert_ok(await(&w->workers[0]).status);
  assert_ok(receive(w->im, w->log));
  assert_false(readable(fd, 0)); /* there is nothing */
  for (uint32_t i = 0; i < 2000; i++) { /* now one after the other */
    assert_ok(order(&w->workers[0], TALK(.first = COUNT + 1 + i, .count = 1)).status);
    assert_true(readable(fd, deadline_ms()));
    size_t taken = 0;
    do assert_ok(receive_batch(w->im, w->log, &taken));
    while (taken == 0);
    assert_false(readable(fd, 0));
  }
  assert_int_equal(w->log->relays, COUNT + 2000);
  assert_ok(order(&w->workers[0], COMMAND(DO_TERMINATE)).status); /* it fires on termination, too */
  assert_true(readable(fd, deadline_ms()));
  (void)close(epoll_fd);
  finish(w);
}

/* ---- Many threads on one handle ------------------------------------------------------------------------------------------ */

enum { THREADS_SENDING = 4, EACH_SENDS = 4000 };

typedef struct {
  bus_ctx *ctx;
  uint32_t first;
  atomic_bool *over;
  messaging_status status;
} thread_job;

static void *send_many(void *arg) {
  thread_job *job = arg;
  for (uint32_t i = 0; i < EACH_SENDS && job->status == MESSAGING_OK; i++) {
    job->status = i % 4 ? send_fact(job->ctx, job->first + i, PLAIN, 20) : send_output(job->ctx, job->first + i, 20);
    if (job->status == MESSAGING_EFULL) job->status = MESSAGING_OK, i--;
  }
  return NULL;
}

static void *look_and_wait(void *arg) {
  thread_job *job = arg;
  messaging_stats stats;
  while (!atomic_load(job->over)) {
    messaging_status status = bus_wait(job->ctx, 5);
    if (status != MESSAGING_OK && status != MESSAGING_ETIMEDOUT) job->status = status;
    if (bus_check_termination(job->ctx)) job->status = MESSAGING_EINVAL;
    if (bus_stats(job->ctx, &stats) != MESSAGING_OK) job->status = MESSAGING_EINVAL;
    status = bus_flush(job->ctx, 0);
    if (status != MESSAGING_OK && status != MESSAGING_ETIMEDOUT) job->status = status;
  }
  return NULL;
}

/* The block that the supervisor's history goes on in, or is to go on in. */
static const messaging__buffer *history_block(bus_ctx *im, bool next) {
  messaging__handle *handle = &im->handle;
  const messaging__log *log = &handle->inbox.log;
  messaging__lock(handle);
  pthread_mutex_lock(&handle->inbox.lock);
  const messaging__buffer *block = next ? log->stock.spare : log->chunks.count ? messaging__log_chunk(log, log->chunks.count - 1)->buffer : NULL;
  pthread_mutex_unlock(&handle->inbox.lock);
  messaging__unlock(handle);
  return block;
}

static bool relay_large(bus_ctx *worker, world *w) {
  messaging_status sent = send_fact(worker, 1, PLAIN, 100000), waited = bus_wait(w->im, 100);
  return sent == MESSAGING_OK && (waited == MESSAGING_OK || waited == MESSAGING_ETIMEDOUT) && receive(w->im, w->log) == MESSAGING_OK;
}

/* Once one thread, which waits, has relayed a large frame, the background thread makes a block ready for the next. */
static void test_history_made_ready(void **state) {
  world *w = *state;
  bus_ctx *worker = join_here(w);
  const messaging__buffer *spare = NULL;
  assert_true(relay_large(worker, w));
  WAIT_FOR((spare = history_block(w->im, true)) != NULL);
  assert_true(relay_large(worker, w));
  WAIT_FOR(history_block(w->im, false) == spare);
  assert_ok(bus_exit(&worker));
  finish(w);
}

/* Who sent a moment ago sends a burst, unless it has received since. */
static void test_burst_ends_with_recv(void **state) {
  world *w = *state;
  bus_ctx *worker = join_here(w);
  bus_ctx *ends[] = {w->im, worker};
  for (uint32_t i = 1; i <= 4; i++) {
    bus_ctx *sender = ends[i % 2], *receiver = ends[(i + 1) % 2];
    logbook *log = logbook_make();
    assert_ok(send_fact(sender, i, PLAIN, 10));
    assert_true(sender->handle.sent_us > 0);
    receiver->handle.sent_us = 1;
    WAIT_FOR(receive(receiver, log) == MESSAGING_OK && log->relays > 0);
    assert_int_equal(receiver->handle.sent_us, 0);
    sender->handle.sent_us = messaging__now_us(); /* all the same it arrives */
    assert_ok(send_fact(sender, 100 + i, PLAIN, 10));
    WAIT_FOR(receive(receiver, log) == MESSAGING_OK && log->relays > 1);
    logbook_free(log);
  }
  assert_ok(bus_exit(&worker));
  finish(w);
}

/* Threads send, wait, look and flush on both ends at once while one of each end receives. */
static void test_many_threads(void **state) {
  world *w = *state;
  enum { ENDS = 2, PER_END = THREADS_SENDING + 1 };
  bus_ctx *worker = join_here(w);
  bus_ctx *ends[ENDS] = {w->im, worker};
  logbook *logs[ENDS] = {w->log, logbook_make()};
  pthread_t threads[ENDS * PER_END];
  thread_job jobs[ENDS * PER_END];
  atomic_bool over = false;
  for (uint32_t i = 0; i < ENDS * PER_END; i++) {
    jobs[i] = (thread_job){.ctx = ends[i / PER_END], .first = 100000 * (i % PER_END), .over = &over};
    assert_int_equal(pthread_create(&threads[i], NULL, i % PER_END ? send_many : look_and_wait, &jobs[i]), 0);
  }
  size_t relays = THREADS_SENDING * (EACH_SENDS - EACH_SENDS / 4), outputs = 2 * THREADS_SENDING * (EACH_SENDS / 4);
  WAIT_FOR(receive(worker, logs[1]) == MESSAGING_OK && receive(w->im, w->log) == MESSAGING_OK && logs[1]->relays >= relays &&
           w->log->relays >= relays && w->log->outputs >= outputs);
  atomic_store(&over, true);
  for (size_t i = 0; i < ENDS * PER_END; i++) {
    assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_ok(jobs[i].status);
  }
  for (int end = 0; end < ENDS; end++) { /* each thread's messages are whole and in its order */
    uint32_t next[PER_END] = {0}, seen = 0;
    for (size_t i = 0; i < logs[end]->count; i++) {
      const record *r = &logs[end]->record[i];
      if (r->type != MESSAGING_RELAY_MESSAGE) continue;
      uint32_t thread = r->id / 100000, index = r->id % 100000;
      assert_in_range(thread, 1, THREADS_SENDING);
      assert_true(index >= next[thread]);
      next[thread] = index + 1;
      seen++;
    }
    assert_int_equal(seen, relays);
    assert_int_equal(logs[end]->broken, 0);
  }
  logbook_free(logs[1]);
  assert_ok(bus_exit(&worker));
  finish(w);
}

/* ---- Seen from outside --------------------------------------------------------------------------------------------------- */

static void test_stats(void **state) {
  world *w = *state;
  enum { COUNT = 500 };
  messaging_options im = {.message_bytes_max = 5000, .outbox_bytes_max = 200000, .inbox_bytes_max = 300000, .history_bytes_max = 400000};
  messaging_options each = {.message_bytes_max = 5000};
  start(w, 2, &im, &each);
  puppet *sender = &w->workers[0];
  assert_ok(order(sender, TALK(.first = 1, .count = COUNT, .size = 100, .outputs = true)).status);
  assert_ok(order(&w->workers[1], TALK(.relays = COUNT)).status);
  assert_ok(order(sender, (command){.type = DO_FLUSH, .timeout_ms = deadline_ms()}).status);
  messaging_stats s = im_stats(w);
  assert_int_equal(s.generation, 1);
  assert_int_equal(s.next_number, COUNT + 1);
  assert_int_equal(s.relays_received, 0);
  assert_true(s.inbox_bytes > COUNT * 30);
  assert_int_equal(s.outbox_bytes_max, im.outbox_bytes_max);
  assert_int_equal(s.inbox_bytes_max, im.inbox_bytes_max);
  assert_int_equal(s.history_bytes_max, im.history_bytes_max);
  assert_true(s.history_bytes >= COUNT * 100);
  assert_true(s.history_bytes <= im.history_bytes_max);
  assert_int_equal(s.history_first, 1);
  assert_int_equal(s.workers_listed, 2);
  assert_int_equal(s.workers_joined, 2);
  assert_true(s.frames_received > 0 && s.bytes_received > COUNT * 200);
  assert_true(s.frames_sent > 0 && s.bytes_sent > COUNT * 100);
  assert_true(s.batches_sent > 0 && s.batches_sent <= COUNT);
  assert_int_equal(s.malformed + s.errors_dropped, 0);
  assert_ok(im_talk(w, TALK(.relays = COUNT, .outputs_in = COUNT)).status);
  s = im_stats(w);
  assert_int_equal(s.relays_received, COUNT);
  assert_int_equal(s.outputs_received, COUNT);
  assert_int_equal(s.inbox_bytes, 0);
  uint64_t relay_bytes = s.relay_bytes_received, output_bytes = s.output_bytes_received;
  assert_true(relay_bytes > COUNT * 100 && output_bytes > COUNT);
  assert_true(s.wakeups > 0);
  s = stats_of(sender);
  assert_int_equal(s.generation, 1);
  assert_int_equal(s.next_number, COUNT + 1);
  assert_int_equal(s.relays_sent, COUNT);
  assert_int_equal(s.outputs_sent, COUNT);
  assert_true(s.relay_bytes_sent == relay_bytes && s.output_bytes_sent == output_bytes);
  assert_int_equal(s.outbox_bytes, 0);
  s = stats_of(&w->workers[1]);
  assert_int_equal(s.relays_received, COUNT);
  assert_true(s.relay_bytes_received == relay_bytes && s.output_bytes_received == 0);
  assert_int_equal(s.relays_sent, 0);
  assert_ok(bus_flush(w->im, deadline_ms()));
  WAIT_FOR(im_stats(w).acknowledged == COUNT + 1);

  messaging_worker_stats about;
  assert_ok(bus_worker_stats(w->im, sender->id, &about));
  assert_int_equal(about.kind, sender->kind);
  assert_true(about.joined);
  assert_false(about.dead || about.silent || about.blocked);
  assert_int_equal(about.next_number, COUNT + 1);
  assert_int_equal(about.lag, 0);
  assert_true(about.batches > 0);
  assert_status(MESSAGING_EKIND, bus_worker_stats(w->im, -4711, &about));
  finish(w);
}

/* Prints a message and compares. */
static void check_print(const bus_message *m, const char *expected) {
  char *text = NULL;
  size_t size = 0;
  FILE *file = open_memstream(&text, &size);
  assert_non_null(file);
  int printed = bus_print_message(file, m);
  assert_int_equal(fclose(file), 0);
  assert_int_equal(printed, size);
  assert_string_equal(text, expected);
  free(text);
}

static void test_print_message(void **state) {
  (void)state;
  bus_message m = {.type = MESSAGING_RELAY_MESSAGE, .kind = 3, .pid = 42};
  m.relay.number = 17;
  m.relay.message = (fact){.id = 5, .text = "a\nb", .text_size = 3};
  check_print(&m, "from 42 (kind 3): relay 17 [5, 0, \"a\\x0ab\"]");
  m = (bus_message){.type = MESSAGING_OUTPUT_MESSAGE, .kind = 1, .pid = -2};
  m.output = (messaging_output){MESSAGING_LOG, -3, "50% done\0\n", 10};
  check_print(&m, "from -2 (kind 1): log -3 50% done\\x00\\x0a");
  m.output = (messaging_output){MESSAGING_STAT, 0, "<x/>", 4};
  check_print(&m, "from -2 (kind 1): stat <x/>");
  m.output = (messaging_output){MESSAGING_PROGRESS, 99, NULL, 0};
  check_print(&m, "from -2 (kind 1): progress 99 ");
  m = (bus_message){.type = MESSAGING_CONTROL_MESSAGE, .kind = 0, .pid = 1};
  m.control = (messaging_control){MESSAGING_TERMINATE, 0};
  check_print(&m, "from 1 (kind 0): control terminate");
}

static void test_strerror(void **state) {
  (void)state;
  for (int i = -3; i < 100; i++) assert_true(strlen(messaging_strerror((messaging_status)i)) > 0);
  for (int i = 0; i <= MESSAGING_ESYS; i++)
    for (int k = 0; k < i; k++)
      assert_string_not_equal(messaging_strerror((messaging_status)i), messaging_strerror((messaging_status)k));
  assert_int_equal(MESSAGING_OK, 0);
  assert_string_equal(messaging_strerror(MESSAGING_OK), "success");
  assert_null(messaging_version_problem());
}

static void test_freeing_a_batch(void **state) {
  world *w = *state;
  start(w, 0, NULL, NULL);
  bus_batch batch = {0};
  assert_ok(bus_batch_free(&batch));
  assert_ok(send_output(w->im, 3, 10));
  assert_ok(bus_wait(w->im, deadline_ms()));
  assert_ok(bus_recv(w->im, &batch));
  assert_int_equal(batch.count, 1);
  assert_ok(bus_batch_free(&batch));
  assert_int_equal(batch.count, 0);
  assert_null(batch.messages);
  assert_ok(bus_batch_free(&batch));
  finish(w);
}

/* ---- Where the sockets are ----------------------------------------------------------------------------------------------- */

static void check_folder(const char *bind, const char *parent) {
  bus_ctx *im = NULL;
  messaging_addresses at;
  char folder[MESSAGING_ADDRESS_SIZE], pid[20];
  struct stat about;
  assert_ok(bus_init_im(&im, &at, &(messaging_options){.bind = bind}));
  const char *addresses[] = {at.pub, at.pull};
  for (int i = 0; i < 2; i++) {
    assert_memory_equal(addresses[i], "ipc:///", 7);
    assert_true(strlen(addresses[i] + 6) <= 107);
    (void)snprintf(folder, sizeof folder, "%s", addresses[i] + 6);
    assert_int_equal(stat(folder, &about), 0);
    assert_true(S_ISSOCK(about.st_mode));
    *strrchr(folder, '/') = 0;
    assert_int_equal(stat(folder, &about), 0);
    assert_int_equal(about.st_mode, S_IFDIR | 0700);
    assert_int_equal(about.st_uid, geteuid());
    (void)snprintf(pid, sizeof pid, "%ld", (long)getpid());
    assert_non_null(strstr(strrchr(folder, '/'), pid));
    assert_memory_equal(folder, parent, strlen(parent));
    assert_int_equal(folder[strlen(parent)], '/');
  }
  assert_string_not_equal(at.pub, at.pull);
  pid_t child = fork(); /* a child that leaves does not remove it */
  if (child == 0) {
    inherits_memory();
    ignore(bus_exit(&im));
    _exit(0);
  }
  assert_int_equal(waitpid(child, NULL, 0), child);
  assert_int_equal(stat(folder, &about), 0);
  assert_ok(bus_exit(&im));
  assert_int_equal(stat(folder, &about), -1);
  assert_int_equal(errno, ENOENT);
}

static void test_socket_folder(void **state) {
  (void)state;
  char *before = getenv("TMPDIR") ? strdup(getenv("TMPDIR")) : NULL;
  char parent[] = "/tmp/messaging-test-XXXXXX", bind[100], deep[200];
  assert_non_null(mkdtemp(parent));
  assert_int_equal(unsetenv("TMPDIR"), 0);
  check_folder(NULL, "/tmp");
  check_folder("ipc", "/tmp");
  assert_int_equal(setenv("TMPDIR", parent, 1), 0);
  check_folder(NULL, parent);
  assert_int_equal(unsetenv("TMPDIR"), 0);
  (void)snprintf(bind, sizeof bind, "ipc://%s", parent);
  check_folder(bind, parent);

  bus_ctx *im = NULL;
  messaging_addresses at;
  (void)snprintf(deep, sizeof deep, "%s/%.100d", parent, 7); /* no room for a socket's name in 107 bytes */
  assert_int_equal(mkdir(deep, 0700), 0);
  (void)snprintf(bind, sizeof bind, "%s", parent);
  char too_deep[210];
  (void)snprintf(too_deep, sizeof too_deep, "ipc://%s", deep);
  assert_status(MESSAGING_EBIND, bus_init_im(&im, &at, &(messaging_options){.bind = too_deep}));
  assert_int_equal(count_entries(deep), 0);
  assert_int_equal(rmdir(deep), 0);
  assert_int_equal(rmdir(parent), 0); /* nothing was left in it */
  if (before) assert_int_equal(setenv("TMPDIR", before, 1), 0);
  free(before);
}

/* Many supervisors beside each other have nothing in common. */
static void test_supervisors_beside_each_other(void **state) {
  (void)state;
  enum { COUNT = 8 };
  bus_ctx *im[COUNT], *worker[COUNT];
  messaging_addresses at[COUNT];
  logbook *log = logbook_make();
  for (int i = 0; i < COUNT; i++) {
    assert_ok(bus_init_im(&im[i], &at[i], NULL));
    assert_ok(bus_run_im(im[i], &someone, 1, NULL, NULL));
    assert_ok(bus_init_worker(&worker[i], 7, at[i].pub, at[i].pull, &(messaging_options){.id = -1}));
    assert_ok(bus_run_worker(worker[i], NULL, NULL));
  }
  for (uint32_t i = 0; i < COUNT; i++) assert_ok(send_fact(worker[i], 100 + i, PLAIN, 10));
  for (uint32_t i = 0; i < COUNT; i++) {
    talk t = {.relays = i + 1};
    assert_ok(talk_run(im[i], log, &t).status);
    assert_int_equal(log->record[i].id, 100 + i);
    assert_int_equal(log->record[i].number, 1);
  }
  for (int i = 0; i < COUNT; i++) assert_ok(bus_exit(&worker[i]));
  for (int i = 0; i < COUNT; i++) assert_ok(bus_exit(&im[i]));
  logbook_free(log);
}

/* ---- A worker in another program ------------------------------------------------------------------------------------------ */

static const char *this_program;

static int be_an_executed_worker(char **argv) {
  bus_ctx *worker;
  logbook *log = logbook_make();
  messaging_status status = bus_init_worker(&worker, 9, argv[2], argv[3], NULL);
  if (status == MESSAGING_OK) status = bus_run_worker(worker, NULL, NULL);
  talk t = {.first = 1, .count = 500, .size = 30, .relays = 500, .terminations = 1};
  if (status == MESSAGING_OK) status = talk_run(worker, log, &t).status;
  if (status == MESSAGING_OK) status = bus_exit(&worker);
  return (int)status;
}

static void test_executed_worker(void **state) {
  world *w = *state;
  start(w, 0, NULL, NULL);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)execl(this_program, this_program, "--worker", w->addresses.pub, w->addresses.pull, (char *)NULL);
    _exit(127);
  }
  assert_ok(bus_add_child_process(w->im, (messaging_child){child, 9}));
  assert_ok(im_talk(w, TALK(.first = 1, .count = 500, .size = 30, .relays = 500)).status);
  assert_ok(bus_send_term_message(w->im));
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  assert_ok((messaging_status)WEXITSTATUS(status));
  assert_int_equal(w->log->record[0].pid, child);
  finish(w);
}

int main(int argc, char **argv) {
  this_program = argv[0];
  if (argc == 4 && strcmp(argv[1], "--worker") == 0) return be_an_executed_worker(argv);
  const struct CMUnitTest tests[] = {
      WITH_THREADS(test_before_run),
      WITH_THREADS(test_wrong_role),
      WITH_THREADS(test_null_arguments),
      WITH_THREADS(test_impossible_lists),
      WITH_THREADS(test_impossible_options),
      WITH_THREADS(test_impossible_addresses),
      WITH_BOTH(test_forked_use),
      WITH_PROCESSES(test_calls_in_the_error_handler),
      WITH_THREADS(test_exit_twice),
      WITH_THREADS(test_exit_with_nothing_sent),
      WITH_THREADS(test_exit_runs_out_of_time),
      WITH_BOTH(test_exit_flushes),
      WITH_THREADS(test_flush),
      WITH_THREADS(test_exit_of_who_was_refused),
      WITH_THREADS(test_recv_goes_on_behind_what_does_not_decode),
      WITH_THREADS(test_wait),
      WITH_BOTH(test_fd),
      WITH_THREADS(test_history_made_ready),
      WITH_THREADS(test_burst_ends_with_recv),
      WITH_THREADS(test_many_threads),
      WITH_BOTH(test_stats),
      WITH_THREADS(test_print_message),
      WITH_THREADS(test_strerror),
      WITH_THREADS(test_freeing_a_batch),
      WITH_THREADS(test_socket_folder),
      WITH_THREADS(test_supervisors_beside_each_other),
      WITH_PROCESSES(test_executed_worker),
  };
  return RUN_TESTS(test_calls, tests);
}
