/* A worker that forks and uses its handle in the child; workers, and a supervisor, that leave right after sending. */
#include "faults.h"

enum { BYSTANDERS = 2 };

/* ---- Fork ------------------------------------------------------------------------------------------------------------------ */

/* Calls every call with an inherited handle; how many did not say EFORK. */
static int count_wrong(bus_ctx *ctx) {
  messaging_stats stats;
  messaging_worker_stats worker_stats;
  messaging_child someone = {-4, 1};
  bus_batch batch = {0};
  fact f = {.id = 1, .text = "", .text_size = 0};
  messaging_output out = {.type = MESSAGING_PROGRESS};
  messaging_status got[] = {bus_run_im(ctx, NULL, 0, NULL, NULL), bus_run_worker(ctx, NULL, NULL), bus_send_relay_message(ctx, &f),
                            bus_send_output_message(ctx, &out), bus_send_term_message(ctx), bus_send_term_message_to(ctx, -4), bus_recv(ctx, &batch),
                            bus_wait(ctx, -1), bus_flush(ctx, -1), bus_update_child_processes_list(ctx, &someone, 1),
                            bus_add_child_process(ctx, someone),
                            bus_purge_im_mailbox(ctx), bus_stats(ctx, &stats), bus_worker_stats(ctx, -4, &worker_stats)};
  int wrong = bus_fd(ctx) != -1 || bus_check_termination(ctx);
  for (size_t i = 0; i < sizeof got / sizeof got[0]; i++) wrong += got[i] != MESSAGING_EFORK;
  wrong += bus_exit(&ctx) != MESSAGING_EFORK || ctx != NULL;
  return wrong;
}

enum { FORKS = 50 };

static int forking_worker(const puppet *self, const command *cue) {
  bus_ctx *ctx;
  int wrong = 0;
  messaging_status status = bus_init_worker(&ctx, self->kind, cue->addresses.pub, cue->addresses.pull, &patient);
  if (status == MESSAGING_OK) status = bus_run_worker(ctx, write_report, self->log);
  for (uint32_t i = 1; i <= FORKS && status == MESSAGING_OK; i++) {
    status = send_fact(ctx, 2 * i - 1, PLAIN, 30); /* its threads are busy at the fork */
    pid_t pid = fork();
    if (pid == 0) {
      (void)alarm((unsigned)deadline_ms() / 1000); /* it ends by a signal if a call blocks */
      (void)signal(SIGALRM, SIG_DFL);
      _exit(count_wrong(ctx));
    }
    int ended = -1;
    if (status == MESSAGING_OK) status = send_fact(ctx, 2 * i, PLAIN, 30);
    if (pid < 0 || waitpid(pid, &ended, 0) != pid || !WIFEXITED(ended)) wrong += 1000;
    else wrong += WEXITSTATUS(ended);
  }
  messaging_status left = leave(&ctx);
  tell(self, (reply){.status = status ? status : left, .accepted = (uint32_t)wrong});
  return leaked();
}

static void worker_forks(void **state) {
  world *w = *state;
  puppet *p = hire(w), *forks = cast(w, 7, forking_worker);
  open_im(w, &patient);
  run_im(w, 0, 2);
  join(w, p, &patient);
  give_cue(w, forks);
  reply r = await(forks);
  assert_ok(r.status);
  assert_int_equal(r.accepted, 0);
  assert_int_equal(bury(forks), 0);
  assert_ok(order(p, TALK(.relays = 2 * FORKS)).status);
  assert_ok(im_talk(w, TALK(.relays = 2 * FORKS)).status);
  assert_int_equal(check_prefix(w->log, forks->id), 2 * FORKS);
  check_one_order(w, 1, 2 * FORKS);
  if (!atomic_load(&the_story->goodbye_unheard)) assert_null(find_report(w->log, MESSAGING_ELOST, ANYBODY));
  happened("EFORK from every call in %d children; the worker's %d relays arrive", FORKS, 2 * FORKS);
  finish(w);
}

/* ---- Exit right after send ------------------------------------------------------------------------------------------------ */

static size_t burst;

static int hasty_worker(const puppet *self, const command *cue) {
  bus_ctx *ctx;
  messaging_status status = bus_init_worker(&ctx, self->kind, cue->addresses.pub, cue->addresses.pull, &patient);
  if (status == MESSAGING_OK) status = bus_run_worker(ctx, write_report, self->log);
  for (uint32_t i = 1; i <= burst && status == MESSAGING_OK; i++) {
    status = send_fact(ctx, i, PLAIN, 60);
    if (status == MESSAGING_OK) status = send_output(ctx, i, 20);
  }
  messaging_status left = bus_exit(&ctx);
  _exit(status ? 100 + (int)status : (int)left);
}

static void worker_exits_right_after_send(void **state) {
  world *w = *state;
  enum { TIMES = SANITIZED ? 4 : 16 };
  burst = the_row->argument;
  injected("a worker sends %d, exits, %d times", (int)burst, (int)TIMES);
  for (size_t i = 0; i < BYSTANDERS; i++) (void)hire(w);
  for (size_t i = 0; i < TIMES; i++) (void)cast(w, 7, hasty_worker);
  open_im(w, &patient);
  run_im(w, 0, BYSTANDERS);
  for (size_t i = 0; i < BYSTANDERS; i++) join(w, &w->workers[i], &patient);
  for (size_t i = BYSTANDERS; i < w->count; i++) {
    if (i % 2) assert_ok(bus_add_child_process(w->im, child_of(&w->workers[i])));
    give_cue(w, &w->workers[i]);
    if (i % 2 == 0) assert_ok(bus_add_child_process(w->im, child_of(&w->workers[i]))); /* it may be at work already */
  }
  for (size_t i = BYSTANDERS; i < w->count; i++) assert_int_equal(bury(&w->workers[i]), MESSAGING_OK);
  assert_ok(im_talk(w, TALK(.relays = TIMES * burst, .outputs_in = TIMES * burst)).status);
  for (size_t i = 0; i < BYSTANDERS; i++) assert_ok(order(&w->workers[i], TALK(.relays = TIMES * burst)).status);
  for (size_t i = BYSTANDERS; i < w->count; i++) assert_int_equal(check_prefix(w->log, w->workers[i].id), burst);
  check_one_order(w, BYSTANDERS, TIMES * burst);
  assert_int_equal(atomic_load(&w->log->outputs), TIMES * burst);
  happened("exit OK each time, all %d relays and as many outputs arrive", (int)(TIMES * burst));
  finish(w);
}

static void supervisor_exits_right_after_send(void **state) {
  world *w = *state;
  start(w, BYSTANDERS, &patient, &patient);
  wait_joined(w, BYSTANDERS);
  size_t count = the_row->argument;
  assert_ok(im_talk(w, TALK(.first = 1, .count = (uint32_t)count, .size = 60)).status);
  assert_ok(bus_exit(&w->im));
  for (size_t i = 0; i < BYSTANDERS; i++) {
    assert_ok(order(&w->workers[i], TALK(.relays = count, .terminations = 1)).status);
    assert_int_equal(check_prefix(w->workers[i].log, getpid()), count);
    ignore(order(&w->workers[i], COMMAND(DO_EXIT)).status);
  }
  happened("exit OK; both workers have all %d, then termination", (int)count);
}

static const row fork_rows[] = {
    ROW(worker_forks, .injected = "a worker forks 50 times, the children use its handle",
        .must = "EFORK from every call; the parent goes on", .quick = true),
};

static const row hasty_rows[] = {
    ROW(worker_exits_right_after_send, .must = "exit OK, and everything sent arrives", .argument = 1, .quick = true),
    ROW(worker_exits_right_after_send, .must = "exit OK, and everything sent arrives", .argument = 2000),
    ROW(supervisor_exits_right_after_send, .injected = "the supervisor sends 5000, exits", .must = "exit OK, and everything sent arrives",
        .argument = 5000, .quick = true),
};

GROUP(fork_group, "12. A handle in a forked child", fork_rows);
GROUP(hasty_group, "13. Exit right after sending", hasty_rows);
