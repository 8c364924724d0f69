#include "oracle.h"

#include <stdlib.h>
#include <string.h>

#include "tools.h"

typedef struct { /* one message of the log */
  uint32_t sender, seq, generation, number;
  int64_t broadcast_ns;
} log_entry;

typedef struct {
  const record *r;
  verdict *v;
  size_t *first_slot;     /* of each process's messages in slot_log and at_supervisor */
  uint32_t *slot_log;     /* log index + 1 of each message; 0: not in the log */
  uint8_t *at_supervisor; /* each message: received there */
  log_entry *log;         /* of all generations, one after the other */
  size_t log_count;
  uint32_t *seen; /* the worker at hand: receipt + 1 for each log entry */
  int64_t *term_seen;
} judge;

static uint32_t receipts_of(const life *l) { return atomic_load(&l->receipt_count); }

/* What it sent, one more than confirmed included: a SIGKILL may come between acceptance and its confirmation. */
static uint32_t sent_by(const life *l) {
  uint32_t count = atomic_load(&l->sent_count);
  return l->left_by == LEFT_BY_KILL && count < l->sent_max && l->sent[count].sent_ns > 0 ? count + 1 : count;
}

static bool is_listed(const list_change *list, uint32_t p) {
  for (uint32_t i = 0; i < list->count; i++)
    if (list->members[i] == p) return true;
  return false;
}

static bool was_sent(const record *r, uint32_t sender, uint32_t seq) {
  return sender < r->process_count && seq > 0 && seq <= sent_by(&r->lives[sender]);
}

/* ==== The log ========================================================================================================= */

static void make_slots(judge *j) {
  size_t total = 0;
  j->first_slot = checked_calloc(j->r->process_count, sizeof *j->first_slot);
  for (uint32_t p = 0; p < j->r->process_count; p++) {
    j->first_slot[p] = total;
    total += j->r->lives[p].sent_max;
  }
  j->slot_log = checked_calloc(total, sizeof *j->slot_log);
  j->at_supervisor = checked_calloc(total, 1);
  j->log = checked_calloc(receipts_of(&j->r->lives[0]), sizeof *j->log);
  j->seen = checked_calloc(receipts_of(&j->r->lives[0]), sizeof *j->seen);
}

static size_t slot_of(const judge *j, uint32_t sender, uint32_t seq) { return j->first_slot[sender] + seq - 1; }

/* The supervisor itself sends no relay messages in these runs, so it sees each number of each generation. */
static void append_to_log(judge *j, const receipt *got) {
  const log_entry *last = j->log_count > 0 ? &j->log[j->log_count - 1] : NULL;
  uint32_t expected = last && last->generation == got->generation ? last->number + 1 : 1;
  if (got->number != expected) j->v->misnumbered++;
  j->log[j->log_count++] = (log_entry){got->sender, got->seq, got->generation, got->number, got->received_ns};
  j->slot_log[slot_of(j, got->sender, got->seq)] = (uint32_t)j->log_count;
}

static void read_supervisor(judge *j) {
  const life *im = &j->r->lives[0];
  uint32_t *next_seq = checked_calloc(j->r->process_count, sizeof *next_seq);
  for (uint32_t i = 0; i < receipts_of(im); i++) {
    const receipt *got = &im->receipts[i];
    if (got->type == RECEIPT_TERMINATE) continue; /* counted with the others */
    if (!was_sent(j->r, got->sender, got->seq)) {
      j->v->foreign++;
      continue;
    }
    size_t slot = slot_of(j, got->sender, got->seq);
    if (got->wrong) j->v->corrupt++;
    if (j->at_supervisor[slot]) {
      j->v->duplicated++;
      continue;
    }
    j->at_supervisor[slot] = 1;
    if (got->seq <= next_seq[got->sender]) j->v->disordered++;
    next_seq[got->sender] = got->seq;
    j->v->outputs += got->type == RECEIPT_OUTPUT;
    if (got->type == RECEIPT_RELAY) append_to_log(j, got);
  }
  j->v->messages = j->log_count;
  free(next_seq);
}

/* Whoever saw a message first proves that it had been broadcast by then. */
static void find_broadcast_times(judge *j) {
  for (uint32_t p = 1; p < j->r->process_count; p++)
    for (uint32_t i = 0; i < receipts_of(&j->r->lives[p]); i++) {
      const receipt *got = &j->r->lives[p].receipts[i];
      if (got->type != RECEIPT_RELAY || !was_sent(j->r, got->sender, got->seq)) continue;
      uint32_t index = j->slot_log[slot_of(j, got->sender, got->seq)];
      if (index > 0 && got->received_ns < j->log[index - 1].broadcast_ns) j->log[index - 1].broadcast_ns = got->received_ns;
    }
}

/* ==== What one worker received ======================================================================================== */

static void read_worker(judge *j, uint32_t p) {
  const life *l = &j->r->lives[p];
  size_t next = 0; /* the log index that nothing received from now on may be below */
  memset(j->seen, 0, j->log_count * sizeof *j->seen);
  for (uint32_t i = 0; i < receipts_of(l); i++) {
    const receipt *got = &l->receipts[i];
    if (got->type != RECEIPT_RELAY) continue;
    size_t index = was_sent(j->r, got->sender, got->seq) ? j->slot_log[slot_of(j, got->sender, got->seq)] : 0;
    if (index == 0) {
      j->v->foreign++;
      continue;
    }
    index--;
    if (got->wrong) j->v->corrupt++;
    if (got->sender == p) j->v->echoed++;
    if (got->number != j->log[index].number) j->v->misnumbered++;
    if (j->seen[index]) {
      j->v->duplicated++;
      continue;
    }
    j->seen[index] = i + 1;
    if (index < next) j->v->disordered++;
    if (index >= next) next = index + 1;
  }
}

/* ==== What it should have received ==================================================================================== */

typedef struct { /* a worker's part in a generation */
  bool is_member;
  int64_t left_ns;   /* died, left, or was left out of the list; INT64_MAX: none of these */
  bool alive_at_end; /* and listed */
} membership;

static membership membership_of(const record *r, uint32_t p, uint32_t generation) {
  const life *l = &r->lives[p];
  membership m = {.left_ns = l->left_ns > 0 ? l->left_ns : INT64_MAX};
  bool listed = false;
  for (uint32_t i = 0; i < r->list_count; i++) {
    const list_change *list = &r->lists[i];
    if (list->generation < generation) continue;
    bool stays = list->generation == generation && is_listed(list, p);
    if (listed && !stays) {
      m.alive_at_end = list->generation > generation && m.left_ns > list->before_ns && l->started_ns < list->before_ns;
      if (list->before_ns < m.left_ns) m.left_ns = list->before_ns;
      listed = false;
      break;
    }
    m.is_member |= stays;
    listed = stays;
    if (list->generation > generation) break;
  }
  if (listed) m.alive_at_end = m.left_ns == INT64_MAX;
  if (l->started_ns == 0) m.alive_at_end = false;
  return m;
}

static bool is_pair(const life *l, const membership *m, const log_entry *entry) {
  return l->started_ns > 0 && l->started_ns < entry->broadcast_ns &&
         (m->left_ns == INT64_MAX || m->left_ns >= entry->broadcast_ns + PAIR_LIFE_NS);
}

static void add_delivery(judge *j, uint32_t p, size_t index, bool pair) {
  const log_entry *e = &j->log[index];
  delivery *d = &j->v->deliveries[j->v->delivery_count++];
  *d = (delivery){e->generation, e->number, e->sender, e->seq, p, -1, pair};
  if (j->seen[index])
    d->latency_ns = j->r->lives[p].receipts[j->seen[index] - 1].received_ns - j->r->lives[e->sender].sent[e->seq - 1].sent_ns;
  if (pair && j->seen[index]) j->v->latency_ns[j->v->latency_count++] = d->latency_ns;
}

static void check_generation(judge *j, uint32_t p, size_t first, size_t end) {
  membership m = membership_of(j->r, p, j->log[first].generation);
  size_t last_seen = first; /* one behind the last that it received */
  for (size_t i = first; i < end; i++)
    if (j->seen[i]) last_seen = i + 1;
  for (size_t i = first; i < end; i++) {
    if (j->log[i].sender == p) continue;
    bool pair = m.is_member && is_pair(&j->r->lives[p], &m, &j->log[i]);
    bool missing = !j->seen[i] && (pair || i < last_seen || m.alive_at_end);
    j->v->pairs += pair;
    j->v->pairs_lost += pair && missing;
    j->v->lost += missing;
    j->v->hasty += missing && i >= last_seen && !m.alive_at_end;
    j->v->foreign += j->seen[i] && !m.is_member;
    if (pair || missing || j->seen[i]) add_delivery(j, p, i, pair);
  }
}

static void check_worker(judge *j, uint32_t p) {
  read_worker(j, p);
  for (size_t first = 0, end; first < j->log_count; first = end) {
    for (end = first; end < j->log_count && j->log[end].generation == j->log[first].generation;) end++;
    check_generation(j, p, first, end);
  }
}

/* ==== What should have reached the supervisor ========================================================================= */

static bool was_purged(const record *r, int64_t sent_ns) {
  for (uint32_t i = 0; i < r->purge_count; i++)
    if (r->purges_ns[i] >= sent_ns && r->purges_ns[i] - sent_ns < PAIR_LIFE_NS) return true;
  return false;
}

static void check_sender(judge *j, uint32_t p) {
  const life *l = &j->r->lives[p];
  bool is_tail = true; /* nothing sent later was received */
  for (uint32_t seq = atomic_load(&l->sent_count); seq > 0; seq--) {
    int64_t sent_ns = l->sent[seq - 1].sent_ns;
    if (j->at_supervisor[slot_of(j, p, seq)])
      is_tail = false;
    else if (is_tail && l->left_by == LEFT_BY_KILL && sent_ns > l->left_ns - PAIR_LIFE_NS)
      j->v->cut++;
    else if (is_tail && was_purged(j->r, sent_ns))
      j->v->purged++;
    else {
      j->v->lost++;
      j->v->hasty += is_tail && l->left_by == LEFT_BY_KILL;
    }
  }
}

/* ==== Termination, death, reports ===================================================================================== */

/* When the worker was first asked to terminate in some generation of its, or left out of a list; INT64_MAX: never. */
static int64_t first_asked(const record *r, uint32_t p, const term_request **by) {
  int64_t asked_ns = INT64_MAX;
  *by = NULL;
  for (uint32_t i = 0; i < r->term_count; i++)
    if (r->terms[i].at_ns < asked_ns && membership_of(r, p, r->terms[i].generation).is_member) {
      asked_ns = r->terms[i].at_ns;
      *by = &r->terms[i];
    }
  for (uint32_t i = 1; i < r->list_count; i++)
    if (is_listed(&r->lists[i - 1], p) && !is_listed(&r->lists[i], p) && r->lists[i].before_ns < asked_ns) {
      asked_ns = r->lists[i].before_ns;
      *by = NULL;
    }
  return asked_ns;
}

static void check_termination(judge *j, uint32_t p) {
  const life *l = &j->r->lives[p];
  const term_request *by;
  int64_t asked_ns = first_asked(j->r, p, &by), seen_ns = 0;
  for (uint32_t i = 0; i < receipts_of(l); i++) {
    if (l->receipts[i].type != RECEIPT_TERMINATE) continue;
    if (seen_ns > 0 || l->receipts[i].received_ns < asked_ns) j->v->misterminated++;
    seen_ns = l->receipts[i].received_ns;
  }
  if (!by || l->started_ns == 0) return;
  membership m = membership_of(j->r, p, by->generation);
  int64_t from_ns = asked_ns > l->started_ns ? asked_ns : l->started_ns;
  if (seen_ns == 0 && (m.left_ns == INT64_MAX || m.left_ns >= from_ns + PAIR_LIFE_NS)) {
    j->v->unterminated++;
    j->v->hasty += m.left_ns != INT64_MAX;
  }
  if (seen_ns > 0 && asked_ns > l->started_ns) j->v->term_ns[j->v->term_count++] = seen_ns - asked_ns;
}

static bool is_listed_at(const record *r, uint32_t p, int64_t at_ns) {
  bool listed = false;
  for (uint32_t i = 0; i < r->list_count && r->lists[i].after_ns <= at_ns; i++) listed = is_listed(&r->lists[i], p);
  return listed;
}

/* A process may be named on a list after its death; then that is reported, and should be. */
static bool is_listed_dead(const record *r, uint32_t p) {
  int64_t left_ns = r->lives[p].left_ns;
  for (uint32_t i = 0; i < r->list_count; i++)
    if (left_ns > 0 && r->lists[i].after_ns > left_ns && is_listed(&r->lists[i], p)) return true;
  return false;
}

static void check_reports(judge *j, uint32_t p) {
  const life *l = &j->r->lives[p];
  uint32_t told = atomic_load(&l->lost_count);
  j->v->misreported += atomic_load(&l->report_count);
  if (p == 0) return;
  if (told > 0 && l->left_by != LEFT_BY_KILL && !is_listed_dead(j->r, p)) {
    j->v->misreported++;
    j->v->hasty += receipts_of(l) == 0; /* it may have had no time to join, and so left without a goodbye */
  }
  if (l->left_by != LEFT_BY_KILL || !is_listed_at(j->r, p, l->left_ns)) return;
  if (told == 0)
    j->v->unreported++;
  else
    j->v->death_ns[j->v->death_count++] = atomic_load(&l->lost_ns) - l->left_ns;
}

static void check_conduct(judge *j, uint32_t p) {
  const life *l = &j->r->lives[p];
  j->v->overflowed += l->receipts_dropped;
  j->v->send_failures += l->send_failures;
  j->v->exit_failures += l->left_by == LEFT_BY_EXIT && (l->exit_status != 0 || atomic_load(&l->gone_ns) == 0);
}

/* ==== The verdict ===================================================================================================== */

verdict *oracle_judge(const record *r) {
  verdict *v = checked_calloc(1, sizeof *v);
  judge j = {.r = r, .v = v};
  make_slots(&j);
  read_supervisor(&j);
  find_broadcast_times(&j);
  v->deliveries = checked_calloc(j.log_count * r->process_count, sizeof *v->deliveries);
  v->latency_ns = checked_calloc(j.log_count * r->process_count, sizeof *v->latency_ns);
  v->death_ns = checked_calloc(r->process_count, sizeof *v->death_ns);
  v->term_ns = checked_calloc(r->process_count, sizeof *v->term_ns);
  for (uint32_t p = 0; p < r->process_count; p++) {
    if (p > 0) check_worker(&j, p);
    if (p > 0) check_sender(&j, p);
    check_termination(&j, p);
    check_reports(&j, p);
    check_conduct(&j, p);
  }
  v->hung = r->hung;
  sort_ns(v->latency_ns, v->latency_count);
  sort_ns(v->death_ns, v->death_count);
  sort_ns(v->term_ns, v->term_count);
  free(j.first_slot);
  free(j.slot_log);
  free(j.at_supervisor);
  free(j.log);
  free(j.seen);
  return v;
}

bool verdict_is_hasty(const verdict *v) { return v->hasty > 0 && v->hasty == verdict_violations(v); }

void verdict_trim(verdict *v) {
  free(v->deliveries);
  free(v->latency_ns);
  free(v->death_ns);
  free(v->term_ns);
  v->deliveries = NULL;
  v->latency_ns = v->death_ns = v->term_ns = NULL;
  v->delivery_count = v->latency_count = v->death_count = v->term_count = 0;
}

void verdict_release(verdict *v) {
  verdict_trim(v);
  free(v);
}

#define ORACLE_SUM(name, text) +v->name
uint64_t verdict_violations(const verdict *v) { return 0 ORACLE_VIOLATIONS(ORACLE_SUM); }

#define ORACLE_PRINT(name, text) \
  if (v->name > 0) fprintf(file, "  %s: %llu %s\n", run, (unsigned long long)v->name, text);
void verdict_print(FILE *file, const char *run, const verdict *v) { ORACLE_VIOLATIONS(ORACLE_PRINT) }
