#define _GNU_SOURCE
#include "endpoint.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tools.h"

#define SEND_DEADLINE_MS 10000

endpoint endpoint_make(const trace *t, record *r, uint32_t process, bool relays_only) {
  endpoint e = {.t = t, .r = r, .process = process, .relays_only = relays_only};
  e.outputs_seen = checked_calloc(t->process_count, sizeof *e.outputs_seen);
  return e;
}

/* ==== Receiving ======================================================================================================= */

static const trace_event *recorded_relay(const endpoint *e, uint32_t sender, uint32_t seq) {
  const trace_process *from = &e->t->processes[sender];
  if (e->relays_only) return from->relay_count > 0 && seq > 0 ? from->relays[(seq - 1) % from->relay_count] : NULL;
  return seq > 0 && seq <= from->message_count ? from->messages[seq - 1] : NULL;
}

/* The library says who sent it and with which kind; the message says so itself; the trace knows what it said. */
static void note_relay(endpoint *e, const bus_message *m, receipt *got) {
  const fact *f = &m->relay.message;
  got->type = RECEIPT_RELAY;
  got->sender = f->sender;
  got->seq = f->seq;
  got->number = m->relay.number > UINT32_MAX ? UINT32_MAX : (uint32_t)m->relay.number;
  got->wrong = true;
  e->relay_receipts++;
  if (f->sender >= e->t->process_count) return;
  const trace_event *recorded = recorded_relay(e, f->sender, f->seq);
  got->wrong = !recorded || recorded->type != EVENT_RELAY || !fact_is(f, recorded) || m->pid != e->r->lives[f->sender].pid ||
               m->kind != e->t->processes[f->sender].kind;
}

static uint32_t process_with_pid(const record *r, pid_t pid) {
  uint32_t p = 0;
  while (p < r->process_count && r->lives[p].pid != pid) p++;
  return p;
}

static bool output_is(const messaging_output *got, const trace_event *recorded) {
  span text = {got->text, (uint32_t)got->text_size};
  if (recorded->type == EVENT_PROGRESS) return got->type == MESSAGING_PROGRESS && got->value == recorded->value;
  if (recorded->type == EVENT_STAT) return got->type == MESSAGING_STAT && span_equal(text, recorded->text);
  return got->type == MESSAGING_LOG && got->value == recorded->value && span_equal(text, recorded->text);
}

static uint32_t running_number(const trace_process *from, const trace_event *e) {
  uint32_t i = 0;
  while (i < from->message_count && from->messages[i] != e) i++;
  return i + 1;
}

/* An output message carries nothing but what was recorded, so the sender's next one is what it has to be. Should one be lost or
 * doubled, the contents tell which one came instead. */
static void note_output(endpoint *e, const bus_message *m, receipt *got) {
  uint32_t sender = process_with_pid(e->r, m->pid);
  got->type = RECEIPT_OUTPUT;
  got->sender = sender;
  got->wrong = true;
  if (sender >= e->t->process_count) return;
  const trace_process *from = &e->t->processes[sender];
  uint32_t next = e->outputs_seen[sender];
  for (uint32_t tried = 0; tried < from->output_count && got->wrong; tried++) {
    uint32_t which = (next + tried) % from->output_count;
    if (!output_is(&m->output, from->outputs[which])) continue;
    got->wrong = m->kind != from->kind;
    got->seq = running_number(from, from->outputs[which]);
    e->outputs_seen[sender] = which + 1;
    return;
  }
}

static void note(endpoint *e, const bus_message *m, int64_t received_ns, uint32_t generation) {
  receipt got = {.received_ns = received_ns, .type = RECEIPT_TERMINATE};
  if (m->type == MESSAGING_OUTPUT_MESSAGE) note_output(e, m, &got);
  if (m->type == MESSAGING_RELAY_MESSAGE) {
    note_relay(e, m, &got);
    /* What an old generation left comes out first after an update; a new one shows by its number 1. */
    if (e->generation == 0 || got.number == 1) e->generation = generation;
  }
  got.generation = (uint16_t)e->generation;
  record_receipt(&e->r->lives[e->process], &got);
}

void endpoint_drain(endpoint *e) {
  bus_batch batch = {0};
  messaging_stats stats;
  for (;;) {
    uint32_t generation = bus_stats(e->ctx, &stats) == MESSAGING_OK ? (uint32_t)stats.generation : 0;
    messaging_status status = bus_recv(e->ctx, &batch);
    int64_t received_ns = now_ns();
    if (status != MESSAGING_OK) e->has_ended = true;
    if (status != MESSAGING_OK || batch.count == 0) break;
    for (size_t i = 0; i < batch.count; i++) note(e, &batch.messages[i], received_ns, generation);
    bus_batch_free(&batch);
  }
  bus_batch_free(&batch);
}

/* ==== Waiting ========================================================================================================= */

/* The library waits in milliseconds; the rest of the way, where a send is near, is waited for on its descriptor. */
void endpoint_await(endpoint *e, int64_t at_ns) {
  int64_t left_ns = at_ns - now_ns();
  if (left_ns <= 0) return;
  if (e->has_ended) {
    sleep_until_ns(at_ns);
    return;
  }
  if (left_ns >= 2 * NS_PER_MS) {
    int64_t ms = left_ns / NS_PER_MS - 1;
    messaging_status status = bus_wait(e->ctx, ms > 10000 ? 10000 : (int)ms);
    if (status != MESSAGING_OK && status != MESSAGING_ETIMEDOUT) e->has_ended = true;
    if (status != MESSAGING_OK) return;
  } else {
    struct timespec left = {.tv_nsec = (long)left_ns};
    struct pollfd fd = {.fd = bus_fd(e->ctx), .events = POLLIN};
    if (ppoll(&fd, 1, &left, NULL) <= 0) return;
  }
  endpoint_drain(e);
}

void endpoint_run_until(endpoint *e, int64_t at_ns) {
  while (now_ns() < at_ns) endpoint_await(e, at_ns);
}

/* ==== Sending ========================================================================================================= */

static messaging_status send_once(endpoint *e, const trace_event *what, uint32_t seq) {
  if (what->type == EVENT_RELAY) return bus_send_relay_message(e->ctx, &(fact){e->process, seq, what->count, what->parts});
  messaging_output output = {.value = what->value, .text = what->text.data, .text_size = what->text.size};
  output.type = what->type == EVENT_LOG ? MESSAGING_LOG : what->type == EVENT_STAT ? MESSAGING_STAT : MESSAGING_PROGRESS;
  return bus_send_output_message(e->ctx, &output);
}

void endpoint_send(endpoint *e, const trace_event *what) {
  life *own = &e->r->lives[e->process];
  uint32_t seq = record_sending(own, what->type != EVENT_RELAY);
  int64_t deadline_ns = now_ns() + SEND_DEADLINE_MS * NS_PER_MS;
  messaging_status status = send_once(e, what, seq);
  while (status == MESSAGING_EFULL && now_ns() < deadline_ns) {
    own->refusals++;
    endpoint_await(e, now_ns() + NS_PER_MS);
    status = send_once(e, what, seq);
  }
  if (status == MESSAGING_OK)
    record_accepted(own);
  else
    own->send_failures++;
}

/* ==== Reports ========================================================================================================= */

void endpoint_on_error(const messaging_error *error, void *user) {
  endpoint *e = user;
  uint32_t p = process_with_pid(e->r, error->pid);
  if (e->process == 0 && error->status == MESSAGING_ELOST && p > 0 && p < e->r->process_count) {
    if (atomic_fetch_add(&e->r->lives[p].lost_count, 1) == 0) atomic_store(&e->r->lives[p].lost_ns, now_ns());
    return;
  }
  life *own = &e->r->lives[e->process];
  if (atomic_fetch_add(&own->report_count, 1) == 0)
    snprintf(own->report_text, sizeof own->report_text, "%s, about process %u: %s", messaging_strerror(error->status), p,
             error->detail ? error->detail : "");
}
