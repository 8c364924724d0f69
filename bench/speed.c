#define _GNU_SOURCE
#include "endpoint.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "speed.h"
#include "tools.h"

#define SPEED_LIMIT_S 300u
#define GRACE_MS 10000

/* ==== A worker ======================================================================================================== */

static void send_all(endpoint *e, uint32_t passes) {
  const trace_process *own = &e->t->processes[e->process];
  for (uint32_t pass = 0; pass < passes; pass++)
    for (uint32_t i = 0; i < own->relay_count; i++) endpoint_send(e, own->relays[i]);
}

/* Returns how many of the expected did not come. */
static uint64_t receive_all(endpoint *e, uint64_t expected) {
  int64_t deadline_ns = now_ns() + ROUND_DEADLINE_MS * NS_PER_MS;
  while (e->relay_receipts < expected && !e->has_ended && now_ns() < deadline_ns) endpoint_await(e, deadline_ns);
  uint64_t missed = e->relay_receipts < expected ? expected - e->relay_receipts : 0;
  e->relay_receipts = 0;
  return missed;
}

static void take_part(endpoint *e, rounds *s) {
  const trace *t = e->t;
  uint64_t expected = (uint64_t)(t->relay_count - t->processes[e->process].relay_count) * s->passes;
  for (uint32_t round = 0; round_await(s, e->process); round++) {
    send_all(e, s->passes);
    round_finish(s, e->process, round, receive_all(e, expected));
  }
}

/* After the last round everybody stays until the supervisor has gone, so that what should not come any more has its time. */
static _Noreturn void worker_main(const trace *t, record *r, rounds *s, uint32_t p, const messaging_addresses *at) {
  endpoint e = endpoint_make(t, r, p, true);
  int64_t deadline_ns;
  r->lives[p].started_ns = now_ns();
  if (bus_init_worker(&e.ctx, t->processes[p].kind, at->pub, at->pull, NULL) != MESSAGING_OK) fail("init_worker");
  if (bus_run_worker(e.ctx, NULL, NULL) != MESSAGING_OK) fail("run_worker");
  take_part(&e, s);
  deadline_ns = now_ns() + GRACE_MS * NS_PER_MS;
  while (!e.has_ended && now_ns() < deadline_ns) endpoint_await(&e, deadline_ns);
  _exit(bus_exit(&e.ctx) == MESSAGING_OK ? 0 : 1);
}

/* ==== The supervisor ================================================================================================== */

static void fork_workers(const trace *t, record *r, rounds *s, const messaging_addresses *at) {
  for (uint32_t p = 1; p < t->process_count; p++) {
    pid_t child = fork_limited(SPEED_LIMIT_S, false);
    if (child == 0) worker_main(t, r, s, p, at);
    r->lives[p].pid = child;
  }
}

static void list_everybody(endpoint *e) {
  uint32_t count = e->t->process_count - 1;
  messaging_child *children = checked_calloc(count, sizeof *children);
  for (uint32_t i = 0; i < count; i++) children[i] = (messaging_child){e->r->lives[i + 1].pid, e->t->processes[i + 1].kind};
  if (bus_run_im(e->ctx, children, count, endpoint_on_error, e) != MESSAGING_OK) fail("run_im");
  free(children);
}

static void await_everybody(endpoint *e, rounds *s) {
  int64_t deadline_ns = now_ns() + ROUND_DEADLINE_MS * NS_PER_MS;
  messaging_stats stats = {0};
  while (bus_stats(e->ctx, &stats) == MESSAGING_OK && stats.workers_joined < e->t->process_count - 1) {
    if (now_ns() > deadline_ns) fail("%u of %u workers joined in time", stats.workers_joined, e->t->process_count - 1);
    endpoint_await(e, now_ns() + 3 * NS_PER_MS);
  }
  for (uint32_t p = 0; p < e->t->process_count; p++) sem_post(&s->ready);
}

static void reap_workers(endpoint *e) {
  int64_t deadline_ns = now_ns() + 2 * GRACE_MS * NS_PER_MS;
  for (uint32_t p = 1; p < e->t->process_count; p++)
    if (!reap_until(e->r->lives[p].pid, deadline_ns, NULL)) e->r->hung++;
}

static _Noreturn void supervisor_main(const trace *t, record *r, rounds *s) {
  endpoint e = endpoint_make(t, r, 0, true);
  life *own = &r->lives[0];
  messaging_addresses at;
  own->pid = getpid();
  own->started_ns = now_ns();
  if (bus_init_im(&e.ctx, &at, NULL) != MESSAGING_OK) fail("init_im");
  fork_workers(t, r, s, &at);
  list_everybody(&e);
  await_everybody(&e, s);
  take_part(&e, s);
  if (bus_flush(e.ctx, GRACE_MS) != MESSAGING_OK) own->send_failures++;
  endpoint_drain(&e);
  record_term(r, 1); /* the supervisor's goodbye is termination to the others */
  own->left_by = LEFT_BY_EXIT;
  own->exit_status = (int32_t)bus_exit(&e.ctx);
  atomic_store(&own->gone_ns, now_ns());
  reap_workers(&e);
  _exit(0);
}

/* ==== The system ====================================================================================================== */

record *speed_begin(const trace *t, rounds *s, uint32_t round_count) {
  uint32_t *sent_max = checked_calloc(t->process_count, sizeof *sent_max);
  for (uint32_t p = 0; p < t->process_count; p++) sent_max[p] = t->processes[p].relay_count * s->passes * round_count;
  uint32_t receipts_max = (uint32_t)t->relay_count * s->passes * round_count + 1024;
  record *r = record_make(t->process_count, sent_max, receipts_max, 1);
  uint32_t *everybody = checked_calloc(t->process_count - 1, sizeof *everybody);
  for (uint32_t i = 0; i + 1 < t->process_count; i++) everybody[i] = i + 1;
  record_list(r, &(list_change){now_ns(), now_ns(), 1, t->process_count - 1, everybody}); /* the record keeps it */
  pid_t top = fork_limited(SPEED_LIMIT_S, false);
  if (top == 0) supervisor_main(t, r, s);
  s->top = top;
  free(sent_max);
  rounds_await_join(s, "the library");
  return r;
}

void speed_end(rounds *s, record *r) {
  rounds_end(s);
  if (!reap_until(s->top, now_ns() + 4 * GRACE_MS * NS_PER_MS, NULL)) r->hung++;
}
