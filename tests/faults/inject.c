/* System calls that fail: strace attaches to one worker, or to the supervisor, and makes the n-th call of each thread fail, or every few of
 * them. All others run undisturbed, and must go on. */
#include "faults.h"

#include <sys/syscall.h>

enum { COUNT = 150, BYSTANDERS = 2, PROBE = 77 };

typedef struct {
  const char *calls, *error, *name;
  const char *limit; /* the source of libzmq that is known to abort then; NULL: none is */
  const char *when;  /* NULL: the n-th, by the row's number */
  bool supervisor;
  bool after_init; /* strace comes after init_worker or init_im, in which signals are blocked */
  messaging_status expected; /* OK: where `when` is given, that; else any that check_status lets pass */
} fault;

typedef struct {
  messaging_addresses addresses;
  messaging_child children[BYSTANDERS];
  atomic_bool at_gate, open, over;
  char call[40]; /* that it is in, or that failed */
  messaging_status status;
} stage;

static stage *the_stage;
static pid_t tracer;

/* ---- The process whose calls fail ---------------------------------------------------------------------------------------- */

static const char *path_of(char *path, size_t size, const char *name) {
  (void)snprintf(path, size, "%s/%s", getenv("TMPDIR"), name);
  return path;
}

/* Waits until the tracer is there, which it shows by what it makes of a call that is of no use otherwise. */
static void wait_at_gate(void) {
  char path[PATH_MAX];
  if (!freopen(path_of(path, sizeof path, "stderr"), "w", stderr)) _exit(9);
  (void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
  atomic_store(&the_stage->at_gate, true);
  for (int64_t until = now_ms() + deadline_ms(); syscall(SYS_sched_yield) != PROBE;)
    if (now_ms() > until) _exit(8);
}

/* Notes a call before it is made, and how it ended. */
#define STEP(name, expression)                                                                                             \
  do {                                                                                                                     \
    if (the_stage->status != MESSAGING_OK) break;                                                                          \
    (void)snprintf(the_stage->call, sizeof the_stage->call, "%s", name);                                                    \
    the_stage->status = (expression);                                                                                      \
  } while (0)

static void talk_and_leave(bus_ctx *ctx, logbook *log, size_t relays) {
  talk send = {.first = 1, .count = COUNT, .size = 40, .spread = 100}, receive_all = {.relays = relays};
  STEP("send", talk_run(ctx, log, &send).status);
  STEP("recv", talk_run(ctx, log, &receive_all).status);
  STEP("flush", bus_flush(ctx, deadline_ms()));
  messaging_status left = bus_exit(&ctx);
  STEP("exit", left);
}

static bool after_init(void) { return ((const fault *)the_row->data)->after_init; }

static int worker(const puppet *self, const command *cue) {
  bus_ctx *ctx = NULL;
  if (!after_init()) wait_at_gate();
  STEP("init_worker", bus_init_worker(&ctx, self->kind, cue->addresses.pub, cue->addresses.pull, &patient));
  if (after_init()) wait_at_gate();
  STEP("run_worker", bus_run_worker(ctx, write_report, self->log));
  talk_and_leave(ctx, self->log, BYSTANDERS * COUNT);
  atomic_store(&the_stage->over, true);
  return 0;
}

static int supervisor(const puppet *self, const command *cue) {
  bus_ctx *ctx = NULL;
  (void)cue;
  if (!after_init()) wait_at_gate();
  STEP("init_im", bus_init_im(&ctx, &the_stage->addresses, &patient));
  if (the_stage->status == MESSAGING_OK) atomic_store(&the_stage->open, true);
  if (after_init()) wait_at_gate();
  STEP("run_im", bus_run_im(ctx, the_stage->children, BYSTANDERS, write_report, self->log));
  talk_and_leave(ctx, self->log, BYSTANDERS * COUNT);
  atomic_store(&the_stage->over, true);
  return 0;
}

/* ---- strace -------------------------------------------------------------------------------------------------------------- */

static void attach(const puppet *target, const fault *f) {
  char trace[200], inject[300], pid[20], log[PATH_MAX], when[40];
  WAIT_FOR(atomic_load(&the_stage->at_gate));
  (void)snprintf(when, sizeof when, "%d", (int)the_story->argument);
  (void)snprintf(trace, sizeof trace, "trace=sched_yield,%s", f->calls);
  (void)snprintf(inject, sizeof inject, "inject=%s:error=%s:when=%s", f->calls, f->error, f->when ? f->when : when);
  (void)snprintf(pid, sizeof pid, "%d", (int)target->pid);
  (void)path_of(log, sizeof log, "strace");
  tracer = fork();
  assert_true(tracer >= 0);
  if (tracer == 0) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)execlp("strace", "strace", "-f", "-qq", "-o", log, "-e", trace, "-e", "inject=sched_yield:retval=77", "-e", inject, "-e",
                 "signal=none", "-p", pid, (char *)NULL);
    _exit(127);
  }
}

static size_t count_injected(void) {
  char path[PATH_MAX], line[500];
  size_t count = 0;
  FILE *file = fopen(path_of(path, sizeof path, "strace"), "r");
  while (file && fgets(line, sizeof line, file)) count += strstr(line, "(INJECTED)") && !strstr(line, "sched_yield");
  if (file) (void)fclose(file);
  return count;
}

/* NULL, or why nothing can be injected here. */
static const char *why_not(void) {
  static char why[120];
  if (SANITIZED) return "sanitizers do not bear a tracer";
  int status = system("strace -qq -e trace=none true > /dev/null 2>&1"); /* NOLINT: this very program is to be found */
  if (status == 0) return NULL;
  (void)snprintf(why, sizeof why, "%s", WIFEXITED(status) && WEXITSTATUS(status) == 127 ? "no strace here" : "strace may not trace here");
  return why;
}

/* ---- What came of it ----------------------------------------------------------------------------------------------------- */

/* The line by which libzmq says why it aborts, or NULL. It names its own source file. */
static const char *last_words(void) {
  static char line[300];
  char path[PATH_MAX];
  bool found = false;
  FILE *file = fopen(path_of(path, sizeof path, "stderr"), "r");
  while (file && !found && fgets(line, sizeof line, file)) found = strstr(line, "src/") || strstr(line, "std::bad_alloc");
  if (file) (void)fclose(file);
  line[strcspn(line, "\n")] = 0;
  return found ? line : NULL;
}

static void bury_tracer(void) {
  assert_int_equal(waitpid(tracer, NULL, 0), tracer);
  tracer = 0;
}

/* True: the target came to its end; the_stage says how. False: libzmq aborted it. */
static bool judge(puppet *target, const fault *f) {
  int status = bury(target);
  bury_tracer();
  size_t count = count_injected();
  atomic_store(&the_story->reached, count > 0);
  const char *who = f->supervisor ? "supervisor" : "worker";
  if (f->when) injected("%s: %s from every %s%s", who, f->error, strcmp(f->when, "1+") == 0 ? "" : "few ", f->name);
  else injected("%s: %s from call %d of %s", who, f->error, (int)the_story->argument, f->name);
  if (count == 0 && f->when) fail_msg("nothing was injected");
  if (WIFSIGNALED(status)) {
    const char *words = last_words();
    happened("aborts in %s: %s", the_stage->call, words ? words : "without a word");
    if (WTERMSIG(status) != SIGABRT || !words || !f->limit || !strstr(words, f->limit)) fail_msg("no known limit: signal %d", WTERMSIG(status));
    the_story->verdict = LIBZMQ;
    return false;
  }
  assert_int_equal(WEXITSTATUS(status), 0);
  assert_true(atomic_load(&the_stage->over));
  if (count == 0) {
    assert_ok(the_stage->status);
    must("everything arrives, exit OK");
    happened("there is no such call: undisturbed");
  } else if (the_stage->status != MESSAGING_OK) {
    happened("%s gives %s", the_stage->call, status_name(the_stage->status));
  } else {
    happened("%d failed; it goes on, everything arrives", (int)count);
  }
  return true;
}

static void make_stage(void) {
  the_stage = mmap(NULL, sizeof *the_stage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(the_stage != MAP_FAILED);
}

/* The statuses by which a call may say that the system failed it. */
static void check_status(const fault *f, messaging_status status) {
  if (f->when) assert_status(f->expected, status);
  bool clear = status == MESSAGING_OK || status == MESSAGING_ESYS || status == MESSAGING_ENOMEM || status == MESSAGING_EBIND ||
               status == MESSAGING_ECONNECT;
  if (!clear) fail_msg("%s gives %s", the_stage->call, status_name(status));
}

static void failing_worker(world *w, const fault *f) {
  open_im(w, &patient);
  for (size_t i = 0; i < BYSTANDERS; i++) (void)hire(w);
  puppet *target = cast(w, 7, worker);
  run_im(w, 0, BYSTANDERS + 1);
  for (size_t i = 0; i < BYSTANDERS; i++) join(w, &w->workers[i], &patient);
  give_cue(w, target);
  attach(target, f);
  for (size_t i = 0; i < BYSTANDERS; i++) post(&w->workers[i], TALK(.first = 1, .count = COUNT, .size = 40, .relays = COUNT));
  bool ended = judge(target, f);
  for (size_t i = 0; i < BYSTANDERS; i++) assert_ok(await(&w->workers[i]).status);
  (void)check_up_to_a_mark(w, BYSTANDERS);
  uint32_t prefix = check_prefix(w->log, target->id);
  if (ended) check_status(f, the_stage->status);
  if (ended && the_stage->status == MESSAGING_OK) {
    assert_int_equal(prefix, COUNT);
    assert_int_equal(atomic_load(&target->log->relays), BYSTANDERS * COUNT);
  } else {
    WAIT_FOR(find_report(w->log, MESSAGING_ELOST, target->id));
  }
  finish(w);
}

static void failing_supervisor(world *w, const fault *f) {
  puppet *target = cast(w, 9, supervisor);
  siginfo_t info = {0};
  for (size_t i = 0; i < BYSTANDERS; i++) the_stage->children[i] = child_of(hire(w));
  give_cue(w, target);
  attach(target, f);
  WAIT_FOR(atomic_load(&the_stage->open) || (waitid(P_PID, (id_t)target->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid));
  bool opened = atomic_load(&the_stage->open);
  w->addresses = the_stage->addresses;
  for (size_t i = 1; i <= BYSTANDERS && opened; i++) {
    join(w, &w->workers[i], &patient);
    post(&w->workers[i], TALK(.first = 1, .count = COUNT, .size = 40, .relays = BYSTANDERS * COUNT));
  }
  bool ended = judge(target, f), fine = ended && the_stage->status == MESSAGING_OK;
  if (ended) check_status(f, the_stage->status);
  for (size_t i = 1; i <= BYSTANDERS && opened; i++) {
    puppet *p = &w->workers[i];
    reply r = await(p);
    if (fine) assert_ok(r.status);
    else ignore(order(p, TALK(.terminations = 1)).status);
    WAIT_FOR(order(p, COMMAND(DO_CHECK)).terminated);
    ignore(order(p, COMMAND(DO_EXIT)).status);
    if (fine) assert_int_equal(atomic_load(&p->log->relays), BYSTANDERS * COUNT);
  }
  if (fine) assert_int_equal(atomic_load(&target->log->relays), BYSTANDERS * COUNT);
  if (!ended) *w->addresses.pub = 0; /* what an aborted process leaves is no fault of ours */
}

static void call_fails(void **state) {
  const fault *f = the_row->data;
  const char *why = why_not();
  if (why) {
    injected("%s: %s from %s", f->supervisor ? "supervisor" : "worker", f->error, f->name);
    skip_row(why);
    return;
  }
  make_stage();
  if (f->supervisor) failing_supervisor(*state, f);
  else failing_worker(*state, f);
  (void)munmap(the_stage, sizeof *the_stage);
}

/* ---- The rows ------------------------------------------------------------------------------------------------------------ */

#define FAILS "a clear status, or it goes on; the others are not disturbed"
#define NTH(limit, ...) ROW(call_fails, .must = FAILS, .numbered_to = limit, .data = &(const fault){__VA_ARGS__})
#define NTH_OF_WORKER(limit, ...) NTH(limit, __VA_ARGS__)
#define NTH_OF_SUPERVISOR(limit, ...) NTH(limit, __VA_ARGS__, .supervisor = true)
#define NTH_OF_BOTH(limit, ...) NTH_OF_WORKER(limit, __VA_ARGS__), NTH_OF_SUPERVISOR(limit, __VA_ARGS__)
#define STORM(...) \
  ROW(call_fails, .must = "everything arrives, exit OK", .data = &(const fault){__VA_ARGS__, .error = "EINTR", .when = "2+3", .after_init = true})
#define STORM_AT_BOTH(...) STORM(__VA_ARGS__), STORM(__VA_ARGS__, .supervisor = true)

static const row inject_rows[] = {
    NTH_OF_BOTH(8, .calls = "socket", .error = "EMFILE", .name = "socket"),
    NTH_OF_BOTH(10, .calls = "eventfd2", .error = "EMFILE", .name = "eventfd"),
    NTH_OF_BOTH(3, .calls = "timerfd_create", .error = "EMFILE", .name = "timerfd_create"),
    NTH_OF_BOTH(6, .calls = "epoll_create1,?epoll_create", .error = "EMFILE", .name = "epoll_create", .limit = "src/epoll.cpp"),
    NTH_OF_BOTH(4, .calls = "pidfd_open", .error = "EMFILE", .name = "pidfd_open"),
    NTH_OF_SUPERVISOR(2, .calls = "accept4,?accept", .error = "EMFILE", .name = "accept", .limit = "src/ipc_listener.cpp"),
    NTH_OF_BOTH(5, .calls = "?clone,?clone3", .error = "EAGAIN", .name = "clone", .limit = "src/thread.cpp"),
    NTH_OF_BOTH(16, .calls = "mmap", .error = "ENOMEM", .name = "mmap", .limit = "src/thread.cpp"),
    NTH_OF_WORKER(3, .calls = "connect", .error = "ECONNREFUSED", .name = "connect"),
    NTH_OF_SUPERVISOR(3, .calls = "?mkdir,mkdirat", .error = "ENOSPC", .name = "mkdir of the socket folder"),
    ROW(call_fails, .must = "init_im gives EBIND, at $TMPDIR and /tmp",
        .data = &(const fault){.calls = "?mkdir,mkdirat", .error = "ENOSPC", .name = "mkdir", .when = "1+", .supervisor = true,
                                .expected = MESSAGING_EBIND}),
    NTH_OF_SUPERVISOR(3, .calls = "bind", .error = "ENOSPC", .name = "bind in the socket folder"),
    STORM_AT_BOTH(.calls = "?poll,ppoll", .name = "poll"),
    STORM_AT_BOTH(.calls = "?epoll_wait,epoll_pwait", .name = "epoll_wait"),
    STORM_AT_BOTH(.calls = "read", .name = "read", .limit = "src/signaler.cpp"),
    STORM_AT_BOTH(.calls = "write", .name = "write", .limit = "src/signaler.cpp"),
    STORM_AT_BOTH(.calls = "sendto", .name = "sendto"),
    STORM_AT_BOTH(.calls = "recvfrom", .name = "recvfrom"),
};

GROUP(inject_group, "5a. System calls that fail (strace)", inject_rows);
