/* Signals at a high rate, with handlers that restart nothing, at the application's threads of a supervisor and of a worker. The library's
 * threads and libzmq's take none. */
#include "faults.h"

#include <sys/time.h>

enum { EACH = 30000, PERIOD_US = 200, SIGNALS = 50 };

typedef struct {
  atomic_uint here, elsewhere; /* signals taken by threads of the application, by others */
} taken;

typedef struct {
  atomic_bool stop, ready, over;
  pid_t targets[2];
  taken supervisor, worker;
  messaging_status status;
} stage;

static stage *the_stage;
static taken *mine;
static _Thread_local volatile sig_atomic_t of_the_application;

static void on_storm(int signal_number) {
  int before = errno;
  (void)signal_number;
  atomic_fetch_add(of_the_application ? &mine->here : &mine->elsewhere, 1);
  errno = before;
}

static void start_storm(taken *counts) {
  struct sigaction action = {.sa_handler = on_storm}; /* no SA_RESTART */
  struct itimerval every = {{0, PERIOD_US}, {0, PERIOD_US}};
  mine = counts;
  of_the_application = 1;
  assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
  assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
  assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
}

static void end_storm(void) {
  struct itimerval never = {{0, 0}, {0, 0}};
  (void)setitimer(ITIMER_REAL, &never, NULL);
  (void)signal(SIGUSR1, SIG_IGN);
  (void)signal(SIGALRM, SIG_IGN);
}

/* A process that shoots at the others without a pause. */
static int shooter(const puppet *self, const command *cue) {
  (void)self;
  (void)cue;
  while (!atomic_load(&the_stage->stop)) {
    for (int i = 0; i < 2; i++)
      if (the_stage->targets[i] > 0) (void)kill(the_stage->targets[i], SIGUSR1);
    struct timespec moment = {0, 20000};
    (void)nanosleep(&moment, NULL);
  }
  return leaked();
}

/* Threads of this process that take SIGUSR1 or SIGALRM; 0: it cannot be told. */
static unsigned count_open_threads(void) {
  unsigned count = 0;
  DIR *dir = opendir("/proc/self/task");
  for (struct dirent *e; dir && (e = readdir(dir));) {
    char path[320], line[200];
    unsigned long long blocked;
    (void)snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
    FILE *file = e->d_name[0] == '.' ? NULL : fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
      if (sscanf(line, "SigBlk: %llx", &blocked) == 1)
        count += !(blocked >> (SIGUSR1 - 1) & 1) || !(blocked >> (SIGALRM - 1) & 1);
    if (file) (void)fclose(file);
  }
  if (dir) (void)closedir(dir);
  return count;
}

typedef struct {
  bus_ctx *ctx;
  logbook *log;
  messaging_status status;
  sigset_t signals;
} sender;

/* It is made with the signals blocked, so that none comes before it is known as one of the application's. */
static void *send_from_a_thread(void *arg) {
  sender *s = arg;
  of_the_application = 1;
  (void)pthread_sigmask(SIG_UNBLOCK, &s->signals, NULL);
  for (uint32_t i = 1; i <= EACH; i++)
    while ((s->status = send_fact(s->ctx, i, PLAIN, 30)) == MESSAGING_EFULL) pause_ms(1);
  return NULL;
}

static int worker(const puppet *self, const command *cue) {
  bus_ctx *ctx;
  pthread_t thread;
  start_storm(&the_stage->worker);
  atomic_store(&the_stage->ready, true);
  messaging_status status = bus_init_worker(&ctx, self->kind, cue->addresses.pub, cue->addresses.pull, &patient);
  if (status == MESSAGING_OK) status = bus_run_worker(ctx, write_report, self->log);
  if (status == MESSAGING_OK && count_open_threads() != 1) status = MESSAGING_EINVAL; /* this one alone */
  sender s = {.ctx = ctx, .log = self->log};
  (void)sigemptyset(&s.signals);
  (void)sigaddset(&s.signals, SIGUSR1);
  (void)sigaddset(&s.signals, SIGALRM);
  (void)pthread_sigmask(SIG_BLOCK, &s.signals, NULL);
  if (status == MESSAGING_OK && pthread_create(&thread, NULL, send_from_a_thread, &s) != 0) status = MESSAGING_ESYS;
  (void)pthread_sigmask(SIG_UNBLOCK, &s.signals, NULL);
  talk t = {.relays = 2 * EACH};
  if (status == MESSAGING_OK) {
    status = talk_run(ctx, self->log, &t).status;
    (void)pthread_join(thread, NULL);
  }
  if (status == MESSAGING_OK) status = s.status;
  if (status == MESSAGING_OK) status = bus_flush(ctx, deadline_ms());
  while (status == MESSAGING_OK && atomic_load(&mine->here) < SIGNALS) /* on a slow machine they may come late */
    if (bus_wait(ctx, 1) != MESSAGING_ETIMEDOUT) status = MESSAGING_EINVAL;
  messaging_status left = bus_exit(&ctx);
  end_storm();
  the_stage->status = status ? status : left;
  atomic_store(&the_stage->over, true);
  while (!atomic_load(&the_stage->stop)) pause_ms(1);
  return leaked();
}

static void signal_storm(void **state) {
  world *w = *state;
  the_stage = mmap(NULL, sizeof *the_stage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(the_stage != MAP_FAILED);
  puppet *shoots = cast(w, 1, shooter), *stormed = cast(w, 2, worker), *calm = hire(w);
  (void)signal(SIGUSR1, SIG_IGN);
  the_stage->targets[0] = getpid();
  the_stage->targets[1] = stormed->pid;
  (void)alarm(0);
  start_storm(&the_stage->supervisor);
  open_im(w, &patient);
  run_im(w, 1, 3);
  assert_int_equal(count_open_threads(), 1);
  join(w, calm, &patient);
  give_cue(w, stormed);
  WAIT_FOR(atomic_load(&the_stage->ready));
  give_cue(w, shoots);
  post(calm, TALK(.first = 1, .count = EACH, .size = 30, .relays = 2 * EACH));
  reply r = im_talk(w, TALK(.first = 1, .count = EACH, .size = 30, .relays = 2 * EACH));
  assert_ok(r.status);
  assert_ok(bus_flush(w->im, deadline_ms()));
  WAIT_FOR(atomic_load(&mine->here) >= SIGNALS);
  end_storm();
  assert_ok(await(calm).status);
  WAIT_FOR(atomic_load(&the_stage->over));
  atomic_store(&the_stage->stop, true);
  assert_int_equal(bury(shoots), 0); /* before its target's pid may become another's */
  assert_int_equal(bury(stormed), 0);
  assert_ok(the_stage->status);
  world seen = {.log = w->log, .count = 2};
  memcpy(seen.workers, &w->workers[1], 2 * sizeof(puppet));
  check_one_order(&seen, 2, 3 * EACH);
  taken *s = &the_stage->supervisor, *t = &the_stage->worker;
  happened("%u and %u signals taken, %u by other threads; %d relays once, exit OK", s->here, t->here, s->elsewhere + t->elsewhere, 3 * EACH);
  assert_int_equal(s->elsewhere + t->elsewhere, 0);
  assert_true(s->here >= SIGNALS && t->here >= SIGNALS); /* there was a storm */
  finish(w);
  (void)munmap(the_stage, sizeof *the_stage);
}

/* Handles are made and released in the storm: no call fails by it, and threads that are only beginning take no signal either. */
static void signals_during_init(void **state) {
  const size_t rounds = the_row->argument;
  taken counts = {0};
  (void)state;
  injected("the same while handles are made and released, %d times", (int)rounds);
  (void)alarm(0);
  start_storm(&counts);
  messaging_status status = MESSAGING_OK;
  size_t round = 0;
  const char *call = "";
  for (; round < rounds && status == MESSAGING_OK; round++) {
    bus_ctx *im = NULL, *worker = NULL;
    messaging_addresses at;
    messaging_options options = {.id = -7};
    status = bus_init_im(&im, &at, NULL);
    call = "init_im";
    if (status != MESSAGING_OK) break;
    status = bus_init_worker(&worker, 1, at.pub, at.pull, &options);
    call = "init_worker";
    if (status == MESSAGING_OK) status = bus_run_im(im, &(messaging_child){-7, 1}, 1, NULL, NULL);
    if (status == MESSAGING_OK) status = bus_run_worker(worker, NULL, NULL);
    if (worker) ignore(bus_exit(&worker));
    ignore(bus_exit(&im));
  }
  end_storm();
  unsigned elsewhere = atomic_load(&counts.elsewhere);
  if (status != MESSAGING_OK)
    happened("in round %d %s gives %s; %u signals taken by other threads", (int)round + 1, call, status_name(status), elsewhere);
  else
    happened("all OK; %u signals taken, %u by other threads", atomic_load(&counts.here), elsewhere);
  assert_ok(status);
  assert_int_equal(elsewhere, 0);
  assert_true(atomic_load(&counts.here) >= 50);
}

static const row storm_rows[] = {
    ROW(signal_storm, .injected = "SIGALRM (5 kHz) and SIGUSR1, no SA_RESTART, at supervisor and worker",
        .must = "calls give no other status; no background thread takes one", .quick = true),
    ROW(signals_during_init, .must = "every call OK; no background thread takes one", .argument = 10, .quick = true),
    ROW(signals_during_init, .must = "every call OK; no background thread takes one", .argument = 60),
};

GROUP(storm_group, "8. Signals", storm_rows);
