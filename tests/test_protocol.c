/* Supervisor and workers over a link in memory: the protocol step by step, without thread, socket or clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../messaging.h"

enum { WORKERS_MAX = 4, REPORTS_MAX = 64, CAPTURED_MAX = 64, TYPES = 10 };

typedef struct {
  messaging_status status;
  pid_t pid;
  uint64_t first, last;
} report;

typedef struct link link;

/* One end: number 0 is the supervisor, the others are workers. */
typedef struct {
  link *home;
  bool open, deaf, mute, dead; /* deaf: nothing comes down, mute: nothing goes up */
  messaging__who who;
  messaging__outbox outbox;
  messaging__inbox inbox;
  messaging__worker core;
  messaging__ring down; /* of messaging__buffer *, to a worker */
  report reports[REPORTS_MAX];
  size_t report_count;
} end;

struct link {
  uint64_t now;
  messaging_options options;
  messaging__im im;
  end ends[1 + WORKERS_MAX];
  messaging__ring up;       /* of messaging__buffer * */
  size_t lose_down[TYPES];  /* so many of each type are lost */
  size_t lose_up[TYPES];
  size_t sent_down[TYPES], sent_up[TYPES];
  messaging__buffer *captured[CAPTURED_MAX]; /* one frame of each kind that passed */
  bool captured_up[CAPTURED_MAX];
  size_t captured_count;
};

static uint8_t type_of(messaging__slice frame) { return frame.data[frame.data[1] == 0xa1 ? 4 : 21]; }

static messaging__buffer *copy_of(messaging__slice frame) {
  messaging__buffer *buffer = messaging__buffer_new(frame.size ? frame.size : 1);
  memcpy(buffer->data, frame.data, frame.size);
  buffer->size = frame.size;
  return buffer;
}

static void capture(link *l, messaging__slice frame, bool up) {
  size_t same = 0;
  for (size_t i = 0; i < l->captured_count; i++)
    same += l->captured_up[i] == up && type_of(messaging__slice_of(l->captured[i])) == type_of(frame);
  if (same >= 4 || l->captured_count == CAPTURED_MAX) return;
  l->captured_up[l->captured_count] = up;
  l->captured[l->captured_count++] = copy_of(frame);
}

static bool send_up(void *self, messaging__slice frame) {
  end *e = self;
  uint8_t type = type_of(frame);
  e->home->sent_up[type]++;
  capture(e->home, frame, true);
  if (e->mute) return true;
  if (e->home->lose_up[type]) {
    e->home->lose_up[type]--;
    return true;
  }
  messaging__buffer *buffer = copy_of(frame);
  assert_true(messaging__ring_push(&e->home->up, &buffer));
  return true;
}

static bool send_down(void *self, messaging__slice frame) {
  link *l = ((end *)self)->home;
  uint8_t type = type_of(frame);
  l->sent_down[type]++;
  capture(l, frame, false);
  if (l->lose_down[type]) {
    l->lose_down[type]--;
    return true;
  }
  for (size_t i = 1; i <= WORKERS_MAX; i++) {
    end *e = &l->ends[i];
    uint8_t topic[MESSAGING__TOPIC_SIZE];
    messaging__topic_of(topic, &e->who);
    if (!e->open || e->deaf || (frame.data[1] != 0xa1 && memcmp(topic, frame.data, sizeof topic) != 0)) continue;
    messaging__buffer *buffer = copy_of(frame);
    assert_true(messaging__ring_push(&e->down, &buffer));
  }
  return true;
}

static void take_report(void *self, const messaging_error *error) {
  end *e = self;
  report r = {error->status, error->pid, error->first, error->last};
  assert_true(e->report_count < REPORTS_MAX);
  e->reports[e->report_count++] = r;
}

static int watch(void *self, pid_t id) {
  link *l = ((end *)self)->home;
  for (size_t i = WORKERS_MAX; id > 0 && i > 0; i--)
    if (l->ends[i].who.id == id) return l->ends[i].dead ? MESSAGING__DEAD : (int)i;
  return MESSAGING__UNWATCHED;
}

static void unwatch(void *self, int number) {
  (void)self;
  assert_in_range(number, 1, WORKERS_MAX);
}

static bool died(void *self, int number) { return ((end *)self)->home->ends[number].dead; }

static size_t count_reports(const end *e, messaging_status status) {
  size_t count = 0;
  for (size_t i = 0; i < e->report_count; i++) count += e->reports[i].status == status;
  return count;
}

static void check_gap(const end *e, pid_t pid, uint64_t first, uint64_t last) {
  for (size_t i = 0; i < e->report_count; i++)
    if (e->reports[i].status == MESSAGING_EHISTORY && e->reports[i].pid == pid && e->reports[i].first == first && e->reports[i].last == last) return;
  fail_msg("no EHISTORY of %d, %llu to %llu", (int)pid, (unsigned long long)first, (unsigned long long)last);
}

/* ---- making and moving ---- */

static link *new_link(void) {
  link *l = calloc(1, sizeof *l);
  assert_non_null(l);
  l->now = 1000;
  l->options = (messaging_options){.heartbeat_ms = 1000, .silence_ms = 5000, .message_bytes_max = 1000, .outbox_bytes_max = 20000,
                                   .inbox_bytes_max = 20000, .history_bytes_max = 1 << 20};
  messaging__ring_init(&l->up, sizeof(messaging__buffer *));
  return l;
}

static void open_im(link *l) {
  end *e = &l->ends[0];
  static const uint8_t session[16] = {1, 2, 3};
  e->home = l;
  e->who = (messaging__who){100, MESSAGING_SUPERVISOR, 1};
  assert_true(messaging__outbox_init(&e->outbox, l->options.outbox_bytes_max, l->options.message_bytes_max));
  assert_true(messaging__inbox_init(&e->inbox, l->options.inbox_bytes_max));
  messaging__port port = {e, send_down, take_report, watch, unwatch, died};
  messaging__im_init(&l->im, &port, &e->outbox, &e->inbox, &e->who, session, &l->options);
}

static end *open_as(link *l, size_t i, pid_t id, messaging_kind kind) {
  end *e = &l->ends[i];
  e->home = l;
  e->open = true;
  e->who = (messaging__who){id, kind, 1000 + l->now * 10 + i};
  assert_true(messaging__outbox_init(&e->outbox, l->options.outbox_bytes_max, l->options.message_bytes_max));
  assert_true(messaging__inbox_init(&e->inbox, l->options.inbox_bytes_max));
  messaging__ring_init(&e->down, sizeof(messaging__buffer *));
  messaging__port port = {e, send_up, take_report, NULL, NULL, NULL};
  messaging__worker_init(&e->core, &port, &e->outbox, &e->inbox, &e->who, &l->options, l->now);
  e->core.watched = true;
  return e;
}

static end *open_worker(link *l, size_t i) { return open_as(l, i, (pid_t)(100 + i), 7); }

static void close_worker(end *e) {
  if (!e->open) return;
  e->open = false;
  while (e->down.count) {
    messaging__buffer_drop(*(messaging__buffer **)messaging__ring_at(&e->down, 0));
    messaging__ring_pop(&e->down);
  }
  messaging__ring_free(&e->down);
  messaging__worker_free(&e->core);
  messaging__outbox_free(&e->outbox);
  messaging__inbox_free(&e->inbox);
}

static void free_link(link *l) {
  for (size_t i = 1; i <= WORKERS_MAX; i++) close_worker(&l->ends[i]);
  messaging__im_free(&l->im);
  messaging__outbox_free(&l->ends[0].outbox);
  messaging__inbox_free(&l->ends[0].inbox);
  while (l->up.count) {
    messaging__buffer_drop(*(messaging__buffer **)messaging__ring_at(&l->up, 0));
    messaging__ring_pop(&l->up);
  }
  messaging__ring_free(&l->up);
  for (size_t i = 0; i < l->captured_count; i++) messaging__buffer_drop(l->captured[i]);
  free(l);
}

/* Hands over the first frame of a queue. */
static bool hand_over(link *l, messaging__ring *queue, end *to) {
  if (queue->count == 0) return false;
  messaging__buffer *buffer = *(messaging__buffer **)messaging__ring_at(queue, 0);
  messaging__ring_pop(queue);
  messaging__slice frame = {NULL, buffer->data, buffer->size};
  if (to == &l->ends[0]) messaging__im_receive(&l->im, frame, l->now);
  else messaging__worker_receive(&to->core, frame, l->now);
  messaging__buffer_drop(buffer);
  return true;
}

/* Lets everything happen that happens at this moment. */
static void settle(link *l) {
  bool more = true;
  for (int turns = 0; more; turns++) {
    assert_true(turns < 10000);
    more = false;
    messaging__im_pump(&l->im, l->now);
    for (size_t i = 1; i <= WORKERS_MAX; i++)
      if (l->ends[i].open) messaging__worker_pump(&l->ends[i].core, l->now);
    while (hand_over(l, &l->up, &l->ends[0])) more = true;
    for (size_t i = 1; i <= WORKERS_MAX; i++)
      while (l->ends[i].open && hand_over(l, &l->ends[i].down, &l->ends[i])) more = true;
  }
}

/* Lets time pass, from deadline to deadline. */
static void pass(link *l, uint64_t ms) {
  uint64_t until = l->now + ms;
  settle(l);
  for (;;) {
    uint64_t at = messaging__im_deadline(&l->im, l->now);
    for (size_t i = 1; i <= WORKERS_MAX; i++)
      if (l->ends[i].open) at = messaging__earlier(at, messaging__worker_deadline(&l->ends[i].core, l->now));
    if (at >= until) break;
    l->now = messaging__later(at, l->now + 1);
    settle(l);
  }
  l->now = until;
  settle(l);
}

static void run(link *l, size_t count) {
  messaging_child children[WORKERS_MAX];
  for (size_t i = 0; i < count; i++) children[i] = (messaging_child){(pid_t)(101 + i), 7};
  assert_int_equal(messaging__im_run(&l->im, children, count, l->now), MESSAGING_OK);
}

/* A supervisor and so many workers, joined. */
static link *joined(size_t count) {
  link *l = new_link();
  open_im(l);
  run(l, count);
  for (size_t i = 1; i <= count; i++) open_worker(l, i);
  settle(l);
  for (size_t i = 1; i <= count; i++) assert_int_equal(l->ends[i].core.state, MESSAGING__JOINED);
  assert_int_equal(l->im.joined, count);
  return l;
}
