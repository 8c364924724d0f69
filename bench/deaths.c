#define _GNU_SOURCE
#include "deaths.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bus.h"
#include "tools.h"

#define WORKERS_KILLED 20u
#define SUPERVISORS_KILLED 5u
#define WORKERS_LEFT 8u /* of each killed supervisor */
#define PATIENCE_MS 10000
#define LIMIT_S 120u
#define KIND 1u

_Static_assert(WORKERS_KILLED <= DEATHS_MAX && SUPERVISORS_KILLED * WORKERS_LEFT <= DEATHS_MAX, "room for every death");

typedef struct { /* in shared memory */
  _Atomic pid_t pids[DEATHS_MAX];
  _Atomic int64_t killed_ns[DEATHS_MAX];
  _Atomic int64_t noticed_ns[DEATHS_MAX];
  sem_t noticed; /* once for each */
  sem_t joined;  /* all workers */
} scene;

static scene *scene_make(void) {
  scene *s = shared_make(sizeof *s);
  sem_init(&s->noticed, 1, 0);
  sem_init(&s->joined, 1, 0);
  return s;
}

static void notice(scene *s, uint32_t which) {
  atomic_store(&s->noticed_ns[which], now_ns());
  sem_post(&s->noticed);
}

static deaths collect(scene *s, uint32_t count) {
  deaths d = {0};
  for (uint32_t i = 0; i < count; i++) {
    int64_t noticed_ns = atomic_load(&s->noticed_ns[i]);
    if (noticed_ns > 0)
      d.ns[d.count++] = noticed_ns - atomic_load(&s->killed_ns[i]);
    else
      d.unseen++;
  }
  sort_ns(d.ns, d.count);
  shared_release(s, sizeof *s);
  return d;
}

/* ==== A system that does nothing ====================================================================================== */

static bus_ctx *start_worker(const messaging_addresses *at) {
  bus_ctx *ctx;
  if (bus_init_worker(&ctx, KIND, at->pub, at->pull, NULL) != MESSAGING_OK) fail("init_worker");
  if (bus_run_worker(ctx, NULL, NULL) != MESSAGING_OK) fail("run_worker");
  return ctx;
}

static _Noreturn void idle_worker(const messaging_addresses *at) {
  bus_ctx *ctx = start_worker(at);
  for (;;)
    if (bus_wait(ctx, -1) != MESSAGING_OK) pause();
}

/* The supervisor's death must not be noticed by another way than the library's, hence no signal at the parent's death. */
static _Noreturn void watching_worker(scene *s, uint32_t which, const messaging_addresses *at) {
  bus_ctx *ctx = start_worker(at);
  int64_t deadline_ns = now_ns() + 2 * PATIENCE_MS * NS_PER_MS;
  while (!bus_check_termination(ctx) && now_ns() < deadline_ns)
    if (bus_wait(ctx, PATIENCE_MS) != MESSAGING_OK && !bus_check_termination(ctx)) sleep_until_ns(now_ns() + NS_PER_MS);
  if (bus_check_termination(ctx)) notice(s, which);
  _exit(bus_exit(&ctx) == MESSAGING_OK ? 0 : 1);
}

static void await_join(bus_ctx *im, uint32_t count) {
  int64_t deadline_ns = now_ns() + PATIENCE_MS * NS_PER_MS;
  messaging_stats stats = {0};
  while (bus_stats(im, &stats) == MESSAGING_OK && stats.workers_joined < count) {
    if (now_ns() > deadline_ns) fail("%u of %u workers joined in time", stats.workers_joined, count);
    sleep_until_ns(now_ns() + NS_PER_MS);
  }
}

/* ==== Killed workers ================================================================================================== */

static void on_worker_lost(const messaging_error *error, void *user) {
  scene *s = user;
  for (uint32_t i = 0; i < WORKERS_KILLED; i++)
    if (error->status == MESSAGING_ELOST && atomic_load(&s->pids[i]) == error->pid && atomic_load(&s->killed_ns[i]) > 0)
      notice(s, i);
}

static _Noreturn void supervisor_of_the_killed(scene *s) {
  messaging_child children[WORKERS_KILLED];
  messaging_addresses at;
  bus_ctx *im;
  if (bus_init_im(&im, &at, NULL) != MESSAGING_OK) fail("init_im");
  for (uint32_t i = 0; i < WORKERS_KILLED; i++) {
    pid_t child = fork_limited(LIMIT_S, false);
    if (child == 0) idle_worker(&at);
    atomic_store(&s->pids[i], child);
    children[i] = (messaging_child){child, KIND};
  }
  if (bus_run_im(im, children, WORKERS_KILLED, on_worker_lost, s) != MESSAGING_OK) fail("run_im");
  await_join(im, WORKERS_KILLED);
  for (uint32_t i = 0; i < WORKERS_KILLED; i++) {
    atomic_store(&s->killed_ns[i], now_ns());
    kill(atomic_load(&s->pids[i]), SIGKILL);
    if (!take_until(&s->noticed, now_ns() + PATIENCE_MS * NS_PER_MS)) break;
  }
  _exit(bus_exit(&im) == MESSAGING_OK ? 0 : 1);
}

deaths deaths_of_workers(void) {
  scene *s = scene_make();
  pid_t supervisor = fork_limited(LIMIT_S, false);
  if (supervisor == 0) supervisor_of_the_killed(s);
  reap_until(supervisor, now_ns() + (WORKERS_KILLED + 2) * PATIENCE_MS * NS_PER_MS, NULL);
  return collect(s, WORKERS_KILLED);
}

/* ==== Killed supervisors ============================================================================================== */

static _Noreturn void supervisor_to_kill(scene *s, uint32_t first) {
  messaging_child children[WORKERS_LEFT];
  messaging_addresses at;
  bus_ctx *im;
  if (bus_init_im(&im, &at, NULL) != MESSAGING_OK) fail("init_im");
  for (uint32_t i = 0; i < WORKERS_LEFT; i++) {
    pid_t child = fork_limited(LIMIT_S, true);
    if (child == 0) watching_worker(s, first + i, &at);
    children[i] = (messaging_child){child, KIND};
  }
  if (bus_run_im(im, children, WORKERS_LEFT, NULL, NULL) != MESSAGING_OK) fail("run_im");
  await_join(im, WORKERS_LEFT);
  sem_post(&s->joined);
  for (;;) pause();
}

static void kill_one_supervisor(scene *s, uint32_t first) {
  pid_t supervisor = fork_limited(LIMIT_S, false);
  if (supervisor == 0) supervisor_to_kill(s, first);
  if (!take_until(&s->joined, now_ns() + 2 * PATIENCE_MS * NS_PER_MS)) fail("the workers of a supervisor did not join");
  for (uint32_t i = 0; i < WORKERS_LEFT; i++) atomic_store(&s->killed_ns[first + i], now_ns());
  kill(supervisor, SIGKILL);
  for (uint32_t i = 0; i < WORKERS_LEFT; i++)
    if (!take_until(&s->noticed, now_ns() + PATIENCE_MS * NS_PER_MS)) break;
  reap_until(supervisor, now_ns() + NS_PER_S, NULL);
}

/* Orphans come to this process for the time being, so that it can see them end. */
static void reap_orphans(int64_t deadline_ns) {
  for (;;) {
    pid_t got = waitpid(-1, NULL, WNOHANG);
    if (got < 0 && errno != EINTR) return;
    if (got <= 0 && now_ns() > deadline_ns) return;
    if (got <= 0) sleep_until_ns(now_ns() + NS_PER_MS);
  }
}

deaths deaths_of_supervisors(void) {
  scene *s = scene_make();
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  for (uint32_t i = 0; i < SUPERVISORS_KILLED; i++) kill_one_supervisor(s, i * WORKERS_LEFT);
  reap_orphans(now_ns() + PATIENCE_MS * NS_PER_MS);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  return collect(s, SUPERVISORS_KILLED * WORKERS_LEFT);
}
