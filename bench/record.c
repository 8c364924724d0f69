#include "record.h"

#include <string.h>

#include "tools.h"

/* Hands out aligned pieces of the mapping; with base NULL it only adds up what they need. */
static void *carve(char *base, size_t *used, size_t count, size_t item_bytes) {
  size_t at = *used;
  *used += (count * item_bytes + 63) / 64 * 64;
  return base ? base + at : NULL;
}

static size_t lay_out(record *r, char *base, const uint32_t *sent_max, uint32_t receipts_max) {
  size_t used = (sizeof *r + 63) / 64 * 64;
  life *lives = carve(base, &used, r->process_count, sizeof *lives);
  list_change *lists = carve(base, &used, r->lists_max, sizeof *lists);
  if (base) r->lives = lives, r->lists = lists;
  for (uint32_t p = 0; p < r->process_count; p++) {
    receipt *receipts = carve(base, &used, receipts_max, sizeof *receipts);
    sending *sent = carve(base, &used, sent_max[p], sizeof *sent);
    if (!base) continue;
    lives[p].receipts = receipts, lives[p].receipts_max = receipts_max;
    lives[p].sent = sent, lives[p].sent_max = sent_max[p];
  }
  return used;
}

record *record_make(uint32_t process_count, const uint32_t *sent_max, uint32_t receipts_max, uint32_t lists_max) {
  record plan = {.process_count = process_count, .lists_max = lists_max};
  size_t total = lay_out(&plan, NULL, sent_max, receipts_max);
  record *r = shared_make(total);
  *r = plan;
  r->bytes = total;
  lay_out(r, (char *)r, sent_max, receipts_max);
  return r;
}

record *record_copy(const record *from) {
  record *to = shared_make(from->bytes);
  ptrdiff_t moved = (char *)to - (const char *)from;
  memcpy(to, from, from->bytes);
  to->lives = (life *)(void *)((char *)from->lives + moved);
  to->lists = (list_change *)(void *)((char *)from->lists + moved);
  for (uint32_t p = 0; p < to->process_count; p++) {
    life *l = &to->lives[p];
    l->receipts = (receipt *)(void *)((char *)l->receipts + moved);
    l->sent = (sending *)(void *)((char *)l->sent + moved);
  }
  return to;
}

void record_release(record *r) { shared_release(r, r->bytes); }

void record_receipt(life *l, const receipt *entry) {
  uint32_t count = atomic_load_explicit(&l->receipt_count, memory_order_relaxed);
  if (count == l->receipts_max) {
    l->receipts_dropped++;
    return;
  }
  l->receipts[count] = *entry;
  /* Released last, so that a SIGKILL in between leaves no half-written receipt that counts. */
  atomic_store_explicit(&l->receipt_count, count + 1, memory_order_release);
}

uint32_t record_sending(life *l, bool is_output) {
  uint32_t count = atomic_load_explicit(&l->sent_count, memory_order_relaxed);
  if (count == l->sent_max) fail("a process sends more than was planned");
  l->sent[count] = (sending){.sent_ns = now_ns(), .is_output = is_output};
  return count + 1;
}

void record_accepted(life *l) { atomic_fetch_add_explicit(&l->sent_count, 1, memory_order_release); }

void record_list(record *r, const list_change *change) {
  if (r->list_count == r->lists_max) fail("more changes of the list than were planned");
  r->lists[r->list_count++] = *change;
}

void record_term(record *r, uint32_t generation) {
  if (r->term_count == RECORD_TERMS_MAX) fail("more than %u terminations", RECORD_TERMS_MAX);
  r->terms[r->term_count++] = (term_request){.at_ns = now_ns(), .generation = generation};
}

void record_purge(record *r) {
  if (r->purge_count == RECORD_PURGES_MAX) fail("more than %u purges", RECORD_PURGES_MAX);
  r->purges_ns[r->purge_count++] = now_ns();
}

int64_t record_lag_ns(const record *r) {
  int64_t most_ns = r->lag_ns;
  for (uint32_t p = 1; p < r->process_count; p++) {
    const life *l = &r->lives[p];
    int64_t came_ns = l->started_ns > 0 ? l->started_ns : l->left_ns; /* killed before it could start */
    if (l->due_ns > 0 && came_ns - l->due_ns > most_ns) most_ns = came_ns - l->due_ns;
  }
  return most_ns;
}

void record_print_reports(FILE *file, const record *r) {
  for (uint32_t p = 0; p < r->process_count; p++) {
    const life *l = &r->lives[p];
    uint32_t reports = atomic_load(&l->report_count), lost = atomic_load(&l->lost_count);
    if (reports > 0) fprintf(file, "  process %u: %u reports, first: %s\n", p, reports, l->report_text);
    if (l->exit_status != 0) fprintf(file, "  process %u: exit gave status %d\n", p, l->exit_status);
    if (lost > 0 && l->left_by != LEFT_BY_KILL) fprintf(file, "  process %u: reported as lost, but was not killed\n", p);
  }
}
