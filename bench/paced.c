#define _GNU_SOURCE
#include "endpoint.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "paced.h"
#include "tools.h"

#define FORK_LEAD_US 20000 /* a process is there this long before anything names it */
#define ORIGIN_LEAD_MS 100 /* from the supervisor's start to the trace's time 0 */
#define GRACE_MS 10000     /* after the last event, for everybody to end */
#define REPORT_MS 2000     /* and for the last reports of deaths */
#define LIMIT_S 300u

/* ==== A worker ======================================================================================================== */

static int64_t due_ns(const record *r, const trace_event *e) { return r->origin_ns + e->replay_us * NS_PER_US; }

static _Noreturn void worker_leave(endpoint *e) {
  life *own = &e->r->lives[e->process];
  endpoint_drain(e);
  own->left_ns = now_ns();
  own->left_by = LEFT_BY_EXIT;
  own->exit_status = (int32_t)bus_exit(&e->ctx);
  atomic_store(&own->gone_ns, now_ns());
  _exit(0);
}

static void worker_start(endpoint *e, const messaging_addresses *at) {
  messaging_kind kind = e->t->processes[e->process].kind;
  e->r->lives[e->process].started_ns = now_ns();
  if (bus_init_worker(&e->ctx, kind, at->pub, at->pull, NULL) != MESSAGING_OK) fail("init_worker");
  if (bus_run_worker(e->ctx, endpoint_on_error, e) != MESSAGING_OK) fail("run_worker");
}

static _Noreturn void worker_main(const trace *t, record *r, uint32_t p, const messaging_addresses *at) {
  endpoint e = endpoint_make(t, r, p, false);
  for (size_t i = 0; i < t->event_count; i++) {
    const trace_event *next = &t->events[i];
    if (next->process != p || next->type == EVENT_KILLED) continue;
    if (next->type == EVENT_START) {
      sleep_until_ns(due_ns(r, next));
      worker_start(&e, at);
      continue;
    }
    endpoint_run_until(&e, due_ns(r, next));
    if (next->type == EVENT_EXIT) worker_leave(&e);
    endpoint_send(&e, next);
  }
  /* Nothing more is recorded of it: it listens until it is killed, or until the supervisor says goodbye. */
  while (!e.has_ended) endpoint_await(&e, now_ns() + NS_PER_S);
  bus_exit(&e.ctx) == MESSAGING_OK ? _exit(0) : _exit(1);
}

/* ==== The supervisor ================================================================================================== */

typedef struct {
  endpoint e;
  messaging_addresses at;
  size_t next_event;
  int64_t *fork_us; /* when each process is due; INT64_MAX once it is there */
} supervisor;

static void plan_forks(supervisor *s) {
  const trace *t = s->e.t;
  s->fork_us = checked_calloc(t->process_count, sizeof *s->fork_us);
  for (uint32_t p = 0; p < t->process_count; p++) s->fork_us[p] = INT64_MAX;
  for (size_t i = t->event_count; i-- > 0;) { /* backwards: the first mention wins */
    const trace_event *e = &t->events[i];
    if (e->type == EVENT_START) {
      s->fork_us[e->process] = e->replay_us - FORK_LEAD_US;
      s->e.r->lives[e->process].due_ns = due_ns(s->e.r, e);
    }
    for (uint32_t k = 0; e->type == EVENT_LIST && k < e->count; k++) s->fork_us[e->members[k]] = e->replay_us - FORK_LEAD_US;
  }
}

static void fork_worker(supervisor *s, uint32_t p) {
  record *r = s->e.r;
  pid_t child = fork_limited(LIMIT_S, false);
  if (child == 0) {
    r->lives[p].pid = getpid();
    worker_main(s->e.t, r, p, &s->at);
  }
  r->lives[p].pid = child;
  s->fork_us[p] = INT64_MAX;
}

static uint32_t next_fork(const supervisor *s) {
  uint32_t first = 0;
  for (uint32_t p = 1; p < s->e.t->process_count; p++)
    if (s->fork_us[p] < s->fork_us[first]) first = p;
  return first; /* number 0 is never forked: none is left */
}

static uint64_t current_generation(const supervisor *s) {
  messaging_stats stats;
  return bus_stats(s->e.ctx, &stats) == MESSAGING_OK ? stats.generation : 0;
}

static bool contains(const trace_event *list, uint32_t p) {
  for (uint32_t i = 0; i < list->count; i++)
    if (list->members[i] == p) return true;
  return false;
}

static bool is_dead(pid_t pid) {
  siginfo_t info = {0};
  return pid <= 0 || waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == pid;
}

/* The recorded supervisor left a process out because it had seen it end. On a machine that lags behind the recording, a process
 * may still be about to end, so the list waits for it; what was asked of it and when stays as recorded. */
static void await_ends(supervisor *s, const trace_event *list) {
  int64_t deadline_ns = now_ns() + GRACE_MS * NS_PER_MS;
  for (const trace_event *e = s->e.t->events; e < list; e++) {
    if ((e->type != EVENT_EXIT && e->type != EVENT_KILLED) || contains(list, e->process)) continue;
    while (!is_dead(s->e.r->lives[e->process].pid) && now_ns() < deadline_ns) endpoint_await(&s->e, now_ns() + NS_PER_MS);
  }
}

static void change_list(supervisor *s, const trace_event *e) {
  messaging_child *children = checked_calloc(e->count, sizeof *children);
  list_change change = {.count = e->count, .members = e->members};
  for (uint32_t i = 0; i < e->count; i++)
    children[i] = (messaging_child){s->e.r->lives[e->members[i]].pid, s->e.t->processes[e->members[i]].kind};
  await_ends(s, e);
  endpoint_drain(&s->e);
  change.before_ns = now_ns();
  if (bus_update_child_processes_list(s->e.ctx, children, e->count) != MESSAGING_OK) fail("update_child_processes_list");
  change.after_ns = now_ns();
  change.generation = (uint32_t)current_generation(s);
  record_list(s->e.r, &change);
  free(children);
}

static void kill_worker(const supervisor *s, uint32_t p) {
  life *l = &s->e.r->lives[p];
  l->left_ns = now_ns();
  l->left_by = LEFT_BY_KILL;
  if (l->pid > 0) kill(l->pid, SIGKILL);
}

static void supervisor_event(supervisor *s, const trace_event *e) {
  if (e->type == EVENT_LIST) change_list(s, e);
  if (e->type == EVENT_KILLED) kill_worker(s, e->process);
  if (e->type == EVENT_TERM) {
    record_term(s->e.r, (uint32_t)current_generation(s));
    if (bus_send_term_message(s->e.ctx) != MESSAGING_OK) fail("send_term_message");
  }
  if (e->type == EVENT_PURGE) {
    record_purge(s->e.r);
    if (bus_purge_im_mailbox(s->e.ctx) != MESSAGING_OK) fail("purge_im_mailbox");
  }
}

static bool is_supervisors(const trace_event *e) {
  return e->type == EVENT_LIST || e->type == EVENT_PURGE || e->type == EVENT_KILLED || e->type == EVENT_TERM;
}

static void supervisor_replay(supervisor *s) {
  const trace *t = s->e.t;
  int64_t origin_ns = s->e.r->origin_ns;
  for (;;) {
    while (s->next_event < t->event_count && !is_supervisors(&t->events[s->next_event])) s->next_event++;
    uint32_t p = next_fork(s);
    bool ended = s->next_event == t->event_count;
    if (ended && p == 0) break;
    int64_t event_us = ended ? INT64_MAX : t->events[s->next_event].replay_us;
    bool forks = p > 0 && s->fork_us[p] <= event_us;
    endpoint_run_until(&s->e, origin_ns + (forks ? s->fork_us[p] : event_us) * NS_PER_US);
    if (forks)
      fork_worker(s, p);
    else
      supervisor_event(s, &t->events[s->next_event++]);
  }
}

/* Children stay zombies up to here, so that no pid comes twice in a replay. */
static void supervisor_reap(supervisor *s) {
  int64_t end_ns = s->e.r->origin_ns + s->e.t->replay_us * NS_PER_US;
  endpoint_run_until(&s->e, end_ns);
  for (uint32_t p = 1; p < s->e.t->process_count; p++) {
    pid_t pid = s->e.r->lives[p].pid;
    if (pid <= 0) continue;
    while (waitpid(pid, NULL, WNOHANG) == 0) {
      if (now_ns() > end_ns + GRACE_MS * NS_PER_MS) {
        s->e.r->hung++;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        break;
      }
      endpoint_await(&s->e, now_ns() + 5 * NS_PER_MS);
    }
  }
}

static bool is_reported(const supervisor *s, uint32_t p) {
  const life *l = &s->e.r->lives[p];
  bool listed = false;
  for (uint32_t i = 0; i < s->e.r->list_count; i++)
    for (uint32_t k = 0; k < s->e.r->lists[i].count; k++) listed |= s->e.r->lists[i].members[k] == p;
  return l->left_by != LEFT_BY_KILL || !listed || atomic_load(&l->lost_count) > 0;
}

/* Some are killed just before the recording ends; their deaths still have to come through before this process leaves. */
static void supervisor_await_reports(supervisor *s) {
  int64_t deadline_ns = now_ns() + REPORT_MS * NS_PER_MS;
  for (uint32_t p = 1; p < s->e.t->process_count; p++)
    while (!is_reported(s, p) && now_ns() < deadline_ns) endpoint_await(&s->e, now_ns() + NS_PER_MS);
}

static _Noreturn void supervisor_main(const trace *t, record *r) {
  supervisor s = {.e = endpoint_make(t, r, 0, false)};
  life *own = &r->lives[0];
  if (bus_init_im(&s.e.ctx, &s.at, NULL) != MESSAGING_OK) fail("init_im");
  if (bus_run_im(s.e.ctx, NULL, 0, endpoint_on_error, &s.e) != MESSAGING_OK) fail("run_im");
  own->pid = getpid();
  own->started_ns = now_ns();
  r->origin_ns = now_ns() + ORIGIN_LEAD_MS * NS_PER_MS;
  plan_forks(&s);
  supervisor_replay(&s);
  supervisor_reap(&s);
  supervisor_await_reports(&s);
  endpoint_drain(&s.e);
  r->generations = current_generation(&s);
  own->left_ns = now_ns();
  own->left_by = LEFT_BY_EXIT;
  own->exit_status = (int32_t)bus_exit(&s.e.ctx);
  atomic_store(&own->gone_ns, now_ns());
  _exit(0);
}

record *paced_replay(const trace *t) {
  uint32_t *sent_max = checked_calloc(t->process_count, sizeof *sent_max);
  for (uint32_t p = 0; p < t->process_count; p++) sent_max[p] = t->processes[p].message_count;
  /* Room for all that a process can rightly receive, and as much again to see what it wrongly does. */
  uint32_t receipts_max = 2 * (uint32_t)(t->relay_count + t->output_count) + 64;
  record *r = record_make(t->process_count, sent_max, receipts_max, (uint32_t)t->list_count);
  int64_t deadline_ns = now_ns() + (t->replay_us / 1000 + ORIGIN_LEAD_MS + 3 * GRACE_MS) * NS_PER_MS;
  pid_t child = fork_limited(LIMIT_S, false);
  if (child == 0) supervisor_main(t, r);
  if (!reap_until(child, deadline_ns, &r->lag_ns)) r->hung++;
  free(sent_max);
  return r;
}
