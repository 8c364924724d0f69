#define _GNU_SOURCE
#include "selftest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle.h"
#include "tools.h"

/* ==== A perfect relay ================================================================================================= */

#define PERFECT_LATENCY_NS (INT64_C(100) * NS_PER_US)

typedef struct { /* a relay in one's head: messages appear everywhere a fixed time after they could be sent */
  const trace *t;
  record *r;
  int64_t at_ns;
  uint32_t generation, log_count;
  uint32_t *log_sender, *log_seq; /* of this generation */
  uint32_t *taken;                /* messages of each process that the supervisor has */
  uint32_t *position;             /* each worker's place in this generation's log */
  bool *listed;
} perfect;

static void perfect_receive(perfect *x, uint32_t p, receipt_type type, uint32_t sender, uint32_t seq, uint32_t number) {
  record_receipt(&x->r->lives[p], &(receipt){.received_ns = x->at_ns + PERFECT_LATENCY_NS,
                                             .sender = sender,
                                             .seq = seq,
                                             .number = number,
                                             .generation = (uint16_t)x->generation,
                                             .type = (uint8_t)type});
}

static bool perfect_is_connected(const perfect *x, uint32_t p) {
  const life *l = &x->r->lives[p];
  return x->listed[p] && l->started_ns > 0 && l->left_by == LEFT_NOT;
}

/* The supervisor takes what listed processes sent, and from one that exits also what it sent before it was listed. */
static void perfect_collect(perfect *x, uint32_t p) {
  const life *l = &x->r->lives[p];
  while (x->listed[p] && l->started_ns > 0 && l->left_by != LEFT_BY_KILL && x->taken[p] < atomic_load(&l->sent_count)) {
    uint32_t seq = ++x->taken[p];
    if (l->sent[seq - 1].is_output) {
      perfect_receive(x, 0, RECEIPT_OUTPUT, p, seq, 0);
      continue;
    }
    x->log_sender[x->log_count] = p;
    x->log_seq[x->log_count++] = seq;
    perfect_receive(x, 0, RECEIPT_RELAY, p, seq, x->log_count);
  }
}

static void perfect_distribute(perfect *x, uint32_t p) {
  for (; perfect_is_connected(x, p) && x->position[p] < x->log_count; x->position[p]++) {
    uint32_t i = x->position[p];
    if (x->log_sender[i] != p) perfect_receive(x, p, RECEIPT_RELAY, x->log_sender[i], x->log_seq[i], i + 1);
  }
}

static void perfect_settle(perfect *x) {
  for (uint32_t p = 1; p < x->t->process_count; p++) perfect_collect(x, p);
  for (uint32_t p = 1; p < x->t->process_count; p++) perfect_distribute(x, p);
}

static void perfect_list(perfect *x, const trace_event *e) {
  bool survivor = false;
  for (uint32_t i = 0; i < e->count; i++)
    survivor |= x->listed[e->members[i]] && x->r->lives[e->members[i]].left_by == LEFT_NOT;
  if (!survivor) {
    x->generation++;
    x->log_count = 0;
    memset(x->position, 0, x->t->process_count * sizeof *x->position);
  }
  memset(x->listed, 0, x->t->process_count * sizeof *x->listed);
  for (uint32_t i = 0; i < e->count; i++) {
    life *l = &x->r->lives[e->members[i]];
    x->listed[e->members[i]] = true;
    if (l->left_by != LEFT_NOT) atomic_fetch_add(&l->lost_count, 1);
  }
  record_list(x->r, &(list_change){x->at_ns, x->at_ns, x->generation, e->count, e->members});
}

static void perfect_leave(perfect *x, uint32_t p, left_how how) {
  life *l = &x->r->lives[p];
  l->left_by = how;
  l->left_ns = x->at_ns;
  atomic_store(&l->gone_ns, x->at_ns);
  if (how != LEFT_BY_KILL || !x->listed[p]) return;
  atomic_store(&l->lost_ns, x->at_ns + PERFECT_LATENCY_NS);
  atomic_store(&l->lost_count, 1);
}

static void perfect_term(perfect *x) {
  record_term(x->r, x->generation);
  x->r->terms[x->r->term_count - 1].at_ns = x->at_ns;
  for (uint32_t i = 0; i + 1 < x->r->term_count; i++)
    if (x->r->terms[i].generation == x->generation) return; /* seen once a generation */
  for (uint32_t p = 1; p < x->t->process_count; p++)
    if (perfect_is_connected(x, p)) perfect_receive(x, p, RECEIPT_TERMINATE, 0, 0, 0);
}

static void perfect_event(perfect *x, const trace_event *e) {
  life *l = &x->r->lives[e->process];
  x->at_ns = (e->replay_us + 1) * NS_PER_US; /* zero means never */
  if (e->type == EVENT_START) l->started_ns = x->at_ns;
  if (e->type == EVENT_LIST) perfect_list(x, e);
  if (e->type == EVENT_TERM) perfect_term(x);
  if (e->type == EVENT_RELAY || event_is_output(e->type)) {
    uint32_t seq = record_sending(l, e->type != EVENT_RELAY);
    l->sent[seq - 1].sent_ns = x->at_ns;
    record_accepted(l);
  }
  perfect_settle(x);
  if (e->type == EVENT_EXIT) perfect_leave(x, e->process, LEFT_BY_EXIT);
  if (e->type == EVENT_KILLED) perfect_leave(x, e->process, LEFT_BY_KILL);
}

record *selftest_perfect_record(const trace *t) {
  uint32_t *sent_max = checked_calloc(t->process_count, sizeof *sent_max);
  for (uint32_t p = 0; p < t->process_count; p++) sent_max[p] = t->processes[p].message_count;
  uint32_t receipts_max = (uint32_t)(t->relay_count + t->output_count) + 64;
  perfect x = {.t = t, .r = record_make(t->process_count, sent_max, receipts_max, (uint32_t)t->list_count + 1)};
  x.log_sender = checked_calloc(t->relay_count, sizeof *x.log_sender);
  x.log_seq = checked_calloc(t->relay_count, sizeof *x.log_seq);
  x.taken = checked_calloc(t->process_count, sizeof *x.taken);
  x.position = checked_calloc(t->process_count, sizeof *x.position);
  x.listed = checked_calloc(t->process_count, sizeof *x.listed);
  x.generation = 1;
  for (size_t i = 0; i < t->event_count; i++) perfect_event(&x, &t->events[i]);
  free(sent_max);
  free(x.log_sender);
  free(x.log_seq);
  free(x.taken);
  free(x.position);
  free(x.listed);
  return x.r;
}

/* ==== Corruptions ===================================================================================================== */

typedef struct {
  record *r;
  life *victim; /* a worker in the middle of its life, and in its receipts */
  uint32_t at;  /* a relay message that it received, counted as a pair, with others on both sides */
  life *supervisor;
  uint32_t at_supervisor; /* an output message of a sender that exits, and that sent something else before and after */
} scene;

static void remove_receipt(life *l, uint32_t at) {
  uint32_t count = atomic_load(&l->receipt_count);
  memmove(&l->receipts[at], &l->receipts[at + 1], (count - at - 1) * sizeof *l->receipts);
  atomic_store(&l->receipt_count, count - 1);
}

static void insert_receipt(life *l, uint32_t at, receipt what) {
  uint32_t count = atomic_load(&l->receipt_count);
  if (count == l->receipts_max) fail("self-test: a record without room");
  memmove(&l->receipts[at + 1], &l->receipts[at], (count - at) * sizeof *l->receipts);
  l->receipts[at] = what;
  atomic_store(&l->receipt_count, count + 1);
}

static uint32_t find_receipt(const life *l, uint32_t sender, uint32_t seq) {
  uint32_t at = 0, count = atomic_load(&l->receipt_count);
  while (at < count && (l->receipts[at].sender != sender || l->receipts[at].seq != seq)) at++;
  return at;
}

static void remove_message(record *r, uint32_t sender, uint32_t seq) {
  for (uint32_t p = 0; p < r->process_count; p++) {
    uint32_t at = find_receipt(&r->lives[p], sender, seq);
    if (at < atomic_load(&r->lives[p].receipt_count)) remove_receipt(&r->lives[p], at);
  }
}

/* Each corruption returns false when the record has no place for it. */
static bool lose_one(scene *s) {
  remove_receipt(s->victim, s->at);
  return true;
}

static bool lose_tail(scene *s) {
  atomic_store(&s->victim->receipt_count, s->at);
  return true;
}

static bool repeat_one(scene *s) {
  insert_receipt(s->victim, s->at, s->victim->receipts[s->at]);
  return true;
}

static bool repeat_later(scene *s) {
  receipt again = s->victim->receipts[s->at];
  uint32_t end = atomic_load(&s->victim->receipt_count);
  again.number = s->victim->receipts[end - 1].number + 1;
  insert_receipt(s->victim, end, again);
  return true;
}

static bool swap_neighbours(scene *s) {
  receipt first = s->victim->receipts[s->at];
  s->victim->receipts[s->at] = s->victim->receipts[s->at + 1];
  s->victim->receipts[s->at + 1] = first;
  return true;
}

/* Two processes see the same numbers with different messages behind them. */
static bool disagree(scene *s) {
  receipt *first = &s->victim->receipts[s->at], *second = first + 1;
  uint32_t first_number = first->number;
  swap_neighbours(s);
  second->number = first->number;
  first->number = first_number;
  return true;
}

static bool count_from_two(scene *s) {
  for (uint32_t i = 0; i < atomic_load(&s->victim->receipt_count); i++) s->victim->receipts[i].number++;
  return true;
}

/* A gap in the numbers that all agree on, though no message is missing. */
static bool skip_a_number(scene *s) {
  receipt from = s->victim->receipts[s->at];
  uint32_t generation = s->supervisor->receipts[find_receipt(s->supervisor, from.sender, from.seq)].generation;
  for (uint32_t p = 0; p < s->r->process_count; p++)
    for (uint32_t i = 0; i < atomic_load(&s->r->lives[p].receipt_count); i++) {
      receipt *got = &s->r->lives[p].receipts[i];
      if (got->type == RECEIPT_RELAY && got->generation == generation && got->number >= from.number) got->number++;
    }
  return true;
}

static bool echo(scene *s) {
  receipt *got = &s->victim->receipts[s->at];
  life *sender = &s->r->lives[got->sender];
  insert_receipt(sender, atomic_load(&sender->receipt_count), *got);
  return true;
}

static bool invent(scene *s) {
  receipt made_up = s->victim->receipts[s->at];
  made_up.seq = s->r->lives[made_up.sender].sent_max + 1;
  insert_receipt(s->victim, s->at, made_up);
  return true;
}

static bool deliver_elsewhere(scene *s) {
  const receipt *got = &s->victim->receipts[s->at];
  uint32_t generation = s->supervisor->receipts[find_receipt(s->supervisor, got->sender, got->seq)].generation;
  for (uint32_t p = 1; p < s->r->process_count; p++) {
    bool member = false;
    for (uint32_t i = 0; i < s->r->list_count; i++)
      for (uint32_t k = 0; s->r->lists[i].generation == generation && k < s->r->lists[i].count; k++)
        member |= s->r->lists[i].members[k] == p;
    if (!member) {
      insert_receipt(&s->r->lives[p], 0, *got);
      return true;
    }
  }
  return false;
}

static bool alter(scene *s) {
  s->victim->receipts[s->at].wrong = true;
  return true;
}

static bool alter_at_supervisor(scene *s) {
  s->supervisor->receipts[s->at_supervisor].wrong = true;
  return true;
}

/* No worker's log shows it: the last message of a generation vanishes for all, though its sender had time to hand it over. */
static bool lose_everywhere(scene *s) {
  for (uint32_t i = atomic_load(&s->supervisor->receipt_count); i-- > 0;) {
    const receipt *got = &s->supervisor->receipts[i];
    if (got->type != RECEIPT_RELAY) continue;
    const life *sender = &s->r->lives[got->sender];
    if (sender->left_by == LEFT_BY_KILL && sender->left_ns - sender->sent[got->seq - 1].sent_ns < PAIR_LIFE_NS) return false;
    remove_message(s->r, got->sender, got->seq);
    return true;
  }
  return false;
}

/* Everybody else has it, the supervisor's application does not. */
static bool lose_at_supervisor(scene *s) {
  const receipt *got = &s->victim->receipts[s->at];
  remove_receipt(s->supervisor, find_receipt(s->supervisor, got->sender, got->seq));
  return true;
}

/* It started too late for any pair, but lives until the generation ends, so it must have everything; it lacks the last one. */
static bool lose_at_the_end(scene *s) {
  uint32_t last = atomic_load(&s->victim->receipt_count);
  while (last > 0 && s->victim->receipts[last - 1].type != RECEIPT_RELAY) last--;
  s->victim->left_by = LEFT_NOT;
  s->victim->left_ns = 0;
  s->victim->started_ns = s->victim->receipts[last - 1].received_ns;
  remove_receipt(s->victim, last - 1);
  return true;
}

static bool lose_output(scene *s) {
  remove_receipt(s->supervisor, s->at_supervisor);
  return true;
}

static bool repeat_output(scene *s) {
  insert_receipt(s->supervisor, s->at_supervisor, s->supervisor->receipts[s->at_supervisor]);
  return true;
}

static bool overtake(scene *s) {
  receipt moved = s->supervisor->receipts[s->at_supervisor];
  for (uint32_t i = s->at_supervisor + 1; i < atomic_load(&s->supervisor->receipt_count); i++)
    if (s->supervisor->receipts[i].sender == moved.sender) {
      insert_receipt(s->supervisor, i + 1, moved);
      remove_receipt(s->supervisor, s->at_supervisor);
      return true;
    }
  return false;
}

static bool overflow(scene *s) {
  s->victim->receipts_dropped = 1;
  return true;
}

static bool find_terminated(const scene *s, uint32_t *process, uint32_t *at) {
  for (uint32_t p = 1; p < s->r->process_count; p++) {
    const life *l = &s->r->lives[p];
    for (uint32_t i = 0; i < atomic_load(&l->receipt_count); i++)
      if (l->receipts[i].type == RECEIPT_TERMINATE && l->left_ns - l->receipts[i].received_ns > 2 * PAIR_LIFE_NS) {
        *process = p;
        *at = i;
        return true;
      }
  }
  return false;
}

static bool lose_termination(scene *s) {
  uint32_t p, at;
  if (!find_terminated(s, &p, &at)) return false;
  remove_receipt(&s->r->lives[p], at);
  return true;
}

static bool repeat_termination(scene *s) {
  uint32_t p, at;
  if (!find_terminated(s, &p, &at)) return false;
  insert_receipt(&s->r->lives[p], at, s->r->lives[p].receipts[at]);
  return true;
}

static bool terminate_early(scene *s) {
  uint32_t p, at;
  if (!find_terminated(s, &p, &at)) return false;
  s->r->lives[p].receipts[at].received_ns = s->r->lives[p].started_ns;
  return true;
}

static bool is_named_later(const record *r, uint32_t p) {
  for (uint32_t i = 0; i < r->list_count; i++)
    for (uint32_t k = 0; k < r->lists[i].count; k++)
      if (r->lists[i].members[k] == p && r->lists[i].after_ns > r->lives[p].left_ns) return true;
  return false;
}

/* Somebody who left so, and was reported as dead if and only if killed; no list named it afterwards. */
static life *find_left(const scene *s, left_how how) {
  for (uint32_t p = 1; p < s->r->process_count; p++) {
    life *l = &s->r->lives[p];
    bool reported = atomic_load(&l->lost_count) > 0;
    if (l->left_by == how && reported == (how == LEFT_BY_KILL) && !is_named_later(s->r, p)) return l;
  }
  return NULL;
}

static bool forget_report(scene *s) {
  life *l = find_left(s, LEFT_BY_KILL);
  if (l) atomic_store(&l->lost_count, 0);
  return l != NULL;
}

static bool slander(scene *s) {
  life *l = find_left(s, LEFT_BY_EXIT);
  if (l) atomic_store(&l->lost_count, 1);
  return l != NULL;
}

static bool complain(scene *s) {
  atomic_store(&s->victim->report_count, 1);
  return true;
}

static bool fail_send(scene *s) {
  s->victim->send_failures = 1;
  return true;
}

static bool fail_exit(scene *s) {
  life *l = find_left(s, LEFT_BY_EXIT);
  if (l) l->exit_status = 1;
  return l != NULL;
}

static bool hang(scene *s) {
  s->r->hung = 1;
  return true;
}

#define EXPECT(field) offsetof(verdict, field)

static const struct {
  const char *name;
  bool (*apply)(scene *);
  size_t expected;
  uint64_t exactly; /* 0: at least one */
} corruptions[] = {
    {"a message lost in the middle", lose_one, EXPECT(lost), 1},
    {"the same, as a pair", lose_one, EXPECT(pairs_lost), 1},
    {"the tail lost", lose_tail, EXPECT(pairs_lost), 0},
    {"the end lost at one who lives", lose_at_the_end, EXPECT(lost), 0},
    {"a message lost everywhere", lose_everywhere, EXPECT(lost), 1},
    {"a message lost at the supervisor", lose_at_supervisor, EXPECT(lost), 1},
    {"an output message lost", lose_output, EXPECT(lost), 1},
    {"a message repeated", repeat_one, EXPECT(duplicated), 1},
    {"a message repeated later with a new number", repeat_later, EXPECT(duplicated), 1},
    {"an output message repeated", repeat_output, EXPECT(duplicated), 1},
    {"two messages swapped", swap_neighbours, EXPECT(disordered), 1},
    {"two messages swapped under the same numbers", disagree, EXPECT(disordered), 1},
    {"an output message overtaken by its sender's next", overtake, EXPECT(disordered), 1},
    {"the same numbers, other messages", disagree, EXPECT(misnumbered), 2},
    {"numbers from 2 on", count_from_two, EXPECT(misnumbered), 0},
    {"a gap in the numbers", skip_a_number, EXPECT(misnumbered), 0},
    {"a message back at its sender", echo, EXPECT(echoed), 1},
    {"a message that nobody sent", invent, EXPECT(foreign), 1},
    {"a message of another generation", deliver_elsewhere, EXPECT(foreign), 1},
    {"content altered", alter, EXPECT(corrupt), 1},
    {"content altered at the supervisor", alter_at_supervisor, EXPECT(corrupt), 1},
    {"more messages than room", overflow, EXPECT(overflowed), 1},
    {"termination not seen", lose_termination, EXPECT(unterminated), 1},
    {"termination seen twice", repeat_termination, EXPECT(misterminated), 1},
    {"termination seen too early", terminate_early, EXPECT(misterminated), 1},
    {"a death not reported", forget_report, EXPECT(unreported), 1},
    {"a leave reported as a death", slander, EXPECT(misreported), 1},
    {"an error report without a cause", complain, EXPECT(misreported), 1},
    {"a send that failed", fail_send, EXPECT(send_failures), 1},
    {"an exit that failed", fail_exit, EXPECT(exit_failures), 1},
    {"a process that hangs", hang, EXPECT(hung), 1},
};
#define CORRUPTION_COUNT (sizeof corruptions / sizeof corruptions[0])
_Static_assert(CORRUPTION_COUNT <= SELFTEST_CORRUPTIONS_MAX, "room for every corruption");

/* ==== Trying them ===================================================================================================== */

static bool is_neighbour(const delivery *a, const delivery *b) {
  return a->receiver == b->receiver && a->generation == b->generation && a->is_pair && b->is_pair && a->latency_ns >= 0 &&
         b->latency_ns >= 0;
}

/* The middle one of all pairs with a pair on each side at the same worker, so that nothing here rests on an edge. */
static bool find_victim(scene *s, const verdict *v) {
  for (size_t i = 0; i < v->delivery_count; i++) {
    size_t at = (v->delivery_count / 2 + i) % v->delivery_count;
    if (at == 0 || at + 1 >= v->delivery_count) continue;
    const delivery *d = &v->deliveries[at];
    if (!is_neighbour(d - 1, d) || !is_neighbour(d, d + 1)) continue;
    s->victim = &s->r->lives[d->receiver];
    s->at = find_receipt(s->victim, d->sender, d->seq);
    if (s->victim->receipts[s->at + 1].type == RECEIPT_RELAY) return true; /* no termination in between */
  }
  return false;
}

static bool find_output(scene *s) {
  for (uint32_t i = 0; i < atomic_load(&s->supervisor->receipt_count); i++) {
    const receipt *got = &s->supervisor->receipts[i];
    const life *sender = &s->r->lives[got->sender];
    s->at_supervisor = i;
    if (got->type == RECEIPT_OUTPUT && sender->left_by == LEFT_BY_EXIT && got->seq > 1 &&
        got->seq < atomic_load(&sender->sent_count))
      return true;
  }
  return false;
}

static bool try_one(size_t which, const record *clean, const verdict *v, unsigned *missed, const char *name) {
  scene s = {.r = record_copy(clean)};
  s.supervisor = &s.r->lives[0];
  bool applied = find_victim(&s, v) && find_output(&s) && corruptions[which].apply(&s);
  if (applied) {
    verdict *got = oracle_judge(s.r);
    uint64_t count = *(const uint64_t *)(const void *)((const char *)got + corruptions[which].expected);
    bool noticed =
        verdict_violations(got) > 0 && (corruptions[which].exactly > 0 ? count == corruptions[which].exactly : count > 0);
    if (!noticed) {
      fprintf(stderr, "self-test: %s: %s: counted %llu\n", name, corruptions[which].name, (unsigned long long)count);
      verdict_print(stderr, name, got);
      (*missed)++;
    }
    verdict_release(got);
  }
  record_release(s.r);
  return applied;
}

void selftest_record(selftest *st, const record *clean, const char *name) {
  verdict *v = oracle_judge(clean);
  if (verdict_violations(v) > 0) {
    fprintf(stderr, "self-test: %s is not clean to begin with\n", name);
    verdict_print(stderr, name, v);
    st->missed++;
  }
  for (size_t i = 0; i < CORRUPTION_COUNT && verdict_violations(v) == 0; i++)
    if (try_one(i, clean, v, &st->missed, name)) {
      st->tried++;
      st->applied[i]++;
    }
  verdict_release(v);
}

unsigned selftest_untried(const selftest *st) {
  unsigned untried = 0;
  for (size_t i = 0; i < CORRUPTION_COUNT; i++)
    if (st->applied[i] == 0) {
      fprintf(stderr, "self-test: no record had room for: %s\n", corruptions[i].name);
      untried++;
    }
  return untried;
}
