/* Supervisor and workers over a net in memory: the protocol step by step, without thread, socket or clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../messaging.h"

enum { WORKERS_MAX = 4, REPORTS_MAX = 64, CAPTURED_MAX = 64, TYPES = 10 };
enum { LEISURE_MS = MESSAGING__ACK_MAX_MS }; /* the longest that an acknowledgement waits for which nobody does */

typedef struct {
  messaging_status status;
  pid_t pid;
  uint64_t first, last;
} report;

typedef struct net net;

/* One end: number 0 is the supervisor, the others are workers. */
typedef struct {
  net *home;
  bool open, deaf, mute, dead; /* deaf: nothing comes down, mute: nothing goes up */
  messaging__who who;
  messaging__outbox outbox;
  messaging__inbox inbox;
  messaging__worker core;
  messaging__ring down; /* of messaging__buffer *, to a worker */
  report reports[REPORTS_MAX];
  size_t report_count;
} end;

struct net {
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

static bool is_batch(messaging__slice frame) { return frame.data[1] == 0xa1 + MESSAGING__LETTERS; }

static uint8_t type_of(messaging__slice frame) { return frame.data[is_batch(frame) ? MESSAGING__AT_TYPE : frame.data[1] == 0xa1 ? 4 : 21]; }

static messaging__buffer *copy_of(messaging__slice frame) {
  messaging__buffer *buffer = messaging__buffer_new(frame.size ? frame.size : 1);
  memcpy(buffer->data, frame.data, frame.size);
  buffer->size = frame.size;
  return buffer;
}

static void capture(net *l, messaging__slice frame, bool up) {
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

/* Whether a worker's subscriptions bring it a frame. */
static bool hears(const end *e, messaging__slice frame) {
  uint8_t topic[MESSAGING__TOPIC_SIZE], letters[MESSAGING__LETTERS];
  messaging__put_letters(letters, e->core.slot);
  messaging__topic_of(topic, &e->who);
  if (is_batch(frame)) return e->core.slot == 0 || memcmp(frame.data + MESSAGING__AT_LETTERS, letters, sizeof letters) != 0;
  return frame.data[1] == 0xa1 || memcmp(topic, frame.data, sizeof topic) == 0;
}

static bool send_down(void *self, messaging__slice frame) {
  net *l = ((end *)self)->home;
  uint8_t type = type_of(frame);
  l->sent_down[type]++;
  capture(l, frame, false);
  if (l->lose_down[type]) {
    l->lose_down[type]--;
    return true;
  }
  for (size_t i = 1; i <= WORKERS_MAX; i++) {
    end *e = &l->ends[i];
    if (!e->open || e->deaf || !hears(e, frame)) continue;
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
  net *l = ((end *)self)->home;
  if (id <= 100 || id > 100 + WORKERS_MAX) return MESSAGING__UNWATCHED;
  return l->ends[id - 100].dead ? MESSAGING__DEAD : (int)id - 100;
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

static net *new_net(void) {
  net *l = calloc(1, sizeof *l);
  assert_non_null(l);
  l->now = 1000;
  l->options = (messaging_options){.heartbeat_ms = 1000, .silence_ms = 5000, .message_bytes_max = 1000, .outbox_bytes_max = 20000,
                                   .inbox_bytes_max = 20000, .history_bytes_max = 1 << 20};
  messaging__ring_init(&l->up, sizeof(messaging__buffer *));
  return l;
}

static void open_im(net *l) {
  end *e = &l->ends[0];
  static const uint8_t session[16] = {1, 2, 3};
  e->home = l;
  e->who = (messaging__who){100, MESSAGING_SUPERVISOR, 1};
  assert_true(messaging__outbox_init(&e->outbox, l->options.outbox_bytes_max, l->options.message_bytes_max));
  assert_true(messaging__inbox_init(&e->inbox, l->options.inbox_bytes_max));
  messaging__port port = {e, send_down, take_report, watch, unwatch, died};
  messaging__im_init(&l->im, &port, &e->outbox, &e->inbox, &e->who, session, &l->options);
}

static end *open_as(net *l, size_t i, pid_t id, messaging_kind kind) {
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

static end *open_worker(net *l, size_t i) { return open_as(l, i, (pid_t)(100 + i), 7); }

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

static void free_net(net *l) {
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
static bool hand_over(net *l, messaging__ring *queue, end *to) {
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
static void settle(net *l) {
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
static void pass(net *l, uint64_t ms) {
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

static void run(net *l, size_t count) {
  messaging_child children[WORKERS_MAX];
  for (size_t i = 0; i < count; i++) children[i] = (messaging_child){(pid_t)(101 + i), 7};
  assert_int_equal(messaging__im_run(&l->im, children, count, l->now), MESSAGING_OK);
}

/* A supervisor and so many workers, joined. */
static void join(net *l, size_t count) {
  open_im(l);
  run(l, count);
  for (size_t i = 1; i <= count; i++) open_worker(l, i);
  settle(l);
  for (size_t i = 1; i <= count; i++) assert_int_equal(l->ends[i].core.state, MESSAGING__JOINED);
  assert_int_equal(l->im.joined, count);
}

static net *joined(size_t count) {
  net *l = new_net();
  join(l, count);
  return l;
}

/* ---- applications ---- */

typedef struct {
  uint32_t value;
  size_t size; /* of the whole payload, at least 5 */
} note;

static int note_encode(msgpack_packer *pk, const void *message) {
  static const char filling[MESSAGING__ACK_BYTES];
  const note *n = message;
  if (n->size <= 5) return msgpack_pack_fix_uint32(pk, n->value);
  msgpack_pack_array(pk, 2);
  msgpack_pack_fix_uint32(pk, n->value);
  msgpack_pack_bin(pk, n->size);
  return msgpack_pack_bin_body(pk, filling, n->size);
}

static messaging_status put(end *e, uint8_t type, uint32_t value, size_t size) {
  note n = {value, size};
  bool urgent;
  return messaging__outbox_put(&e->outbox, type, note_encode, &n, &urgent);
}

static void tell(end *e, uint32_t value) { assert_int_equal(put(e, MESSAGING__RELAY, value, 5), MESSAGING_OK); }

/* A message that one end does not hear. */
static void tell_unheard(net *l, end *sender, uint32_t value, end *deaf) {
  deaf->deaf = true;
  tell(sender, value);
  settle(l);
  deaf->deaf = false;
}

/* The supervisor sees a worker's subscription to what is for it alone. */
static void subscribe(net *l, const end *e) {
  uint8_t bytes[1 + MESSAGING__TOPIC_SIZE] = {1};
  messaging__topic_of(bytes + 1, &e->who);
  messaging__im_subscribed(&l->im, bytes, sizeof bytes);
}

/* Takes one message; 0 when there is none. A batch of several is taken apart by the caller's next calls. */
typedef struct {
  uint32_t values[256];
  size_t count;
} received;

static received take(end *e) {
  received r = {{0}, 0};
  messaging__item item;
  while (messaging__inbox_next(&e->inbox, &item)) {
    messaging__reader reader = {item.frame.data + MESSAGING__AT_PAYLOAD, item.frame.data + item.frame.size, false};
    for (uint32_t i = 0; i < item.batch.count; i++) {
      messaging__reader value = reader;
      if (*value.at == 0x92) value.at++;
      assert_true(r.count < 256);
      r.values[r.count++] = (uint32_t)messaging__read_uint(&value, UINT32_MAX);
      assert_true(messaging__skip_object(&reader));
    }
    messaging__buffer_drop(item.frame.owner);
  }
  messaging__inbox_settle(&e->inbox);
  MESSAGING__STORE(&e->inbox.wanted, false);
  return r;
}

static void check_take(end *e, size_t count, const uint32_t *values) {
  received r = take(e);
  assert_int_equal(r.count, count);
  for (size_t i = 0; i < count; i++) assert_int_equal(r.values[i], values[i]);
}

#define CHECK_TAKE(e, ...)                                                         \
  do {                                                                             \
    const uint32_t wanted_values[] = {__VA_ARGS__};                                \
    check_take(e, sizeof wanted_values / sizeof wanted_values[0], wanted_values);  \
  } while (0)

#define CHECK_NONE(e) check_take(e, 0, NULL)

/* ---- join ---- */

static void test_join(void **state) {
  (void)state;
  net *l = joined(2);
  assert_true(l->ends[1].core.era.generation == 1 && l->ends[1].core.window > 0);
  assert_int_equal(l->sent_up[MESSAGING__HELLO], 2);
  tell(&l->ends[1], 11);
  tell(&l->ends[0], 12);
  settle(l);
  tell(&l->ends[2], 13);
  settle(l);
  received r = take(&l->ends[0]);
  assert_int_equal(r.count, 2);
  CHECK_TAKE(&l->ends[1], 12, 13);
  r = take(&l->ends[2]);
  assert_int_equal(r.count, 2);
  free_net(l);
}

/* Whatever of the handshake is lost is said again; what the worker sends before is kept. */
static void test_join_with_loss(void **state) {
  (void)state;
  net *l = new_net();
  open_im(l);
  run(l, 1);
  end *e = open_worker(l, 1);
  l->lose_up[MESSAGING__HELLO] = 3;
  l->lose_down[MESSAGING__WELCOME] = 3;
  tell(e, 1);
  pass(l, 4000);
  assert_int_equal(e->core.state, MESSAGING__JOINED);
  CHECK_TAKE(&l->ends[0], 1);
  free_net(l);
}

/* The subscription comes after the announcement: the welcome that nobody heard is repeated when it shows. */
static void test_join_by_subscription(void **state) {
  (void)state;
  net *l = new_net();
  open_im(l);
  run(l, 1);
  end *e = open_worker(l, 1);
  e->deaf = true;
  settle(l);
  assert_int_equal(e->core.state, MESSAGING__ANNOUNCING);
  e->deaf = false;
  subscribe(l, e);
  settle(l);
  assert_int_equal(e->core.state, MESSAGING__JOINED);
  assert_int_equal(l->sent_up[MESSAGING__HELLO], 1);
  free_net(l);
}

/* Announced before it is listed: parked, and welcomed when it is. It gets the history from 1. */
static void test_late_join(void **state) {
  (void)state;
  net *l = joined(1);
  for (uint32_t i = 1; i <= 5; i++) tell(&l->ends[1], i), settle(l);
  end *e = open_worker(l, 2);
  settle(l);
  assert_int_equal(e->core.state, MESSAGING__ANNOUNCING);
  assert_int_equal(l->im.parked.count, 1);
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){102, 7}, l->now), MESSAGING_OK);
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){102, 7}, l->now), MESSAGING_EINVAL);
  settle(l);
  assert_int_equal(e->core.state, MESSAGING__JOINED);
  CHECK_TAKE(e, 1, 2, 3, 4, 5);
  assert_int_equal(l->im.parked.count, 0);
  free_net(l);
}

/* ---- order, acknowledgement, repair ---- */

/* Nobody hears himself. When nothing is published behind it, the next heartbeat tells that a batch was taken; a worker in a burst asks, and is told
 * by a status. */
static void test_own_told_by_heartbeat(void **state) {
  (void)state;
  net *l = joined(1);
  end *e = &l->ends[1];
  size_t statuses = l->sent_down[MESSAGING__STATUS], beats = l->sent_down[MESSAGING__HEARTBEAT];
  for (uint32_t i = 1; i <= 3; i++) tell(e, i), settle(l);
  assert_int_equal(l->sent_down[MESSAGING__STATUS], statuses + 1); /* with two on the wire it asked */
  assert_false(messaging__worker_flushed(&e->core));
  for (uint32_t i = 4; i <= 5; i++) {
    pass(l, LEISURE_MS + 1);
    assert_true(messaging__worker_flushed(&e->core));
    tell(e, i);
  }
  pass(l, LEISURE_MS + 1);
  assert_int_equal(l->sent_down[MESSAGING__STATUS], statuses + 1);
  assert_int_equal(l->sent_down[MESSAGING__HEARTBEAT], beats + 3);
  CHECK_NONE(e);
  assert_int_equal(e->core.next, 6);
  assert_int_equal(e->core.stats.duplicates, 0);
  assert_int_equal(e->core.probe, 0);
  free_net(l);
}

/* Where heartbeats are far between, a status tells, to all who wait for it at once. */
static void test_own_told_by_status(void **state) {
  (void)state;
  net *l = new_net();
  l->options.heartbeat_ms = 60000;
  l->options.silence_ms = 180000;
  join(l, 2);
  size_t statuses = l->sent_down[MESSAGING__STATUS], beats = l->sent_down[MESSAGING__HEARTBEAT];
  assert_int_equal(put(&l->ends[2], MESSAGING__OUTPUT, 1, 5), MESSAGING_OK);
  settle(l);
  pass(l, LEISURE_MS / 2);
  tell(&l->ends[1], 2);
  settle(l);
  assert_false(messaging__worker_flushed(&l->ends[1].core) || messaging__worker_flushed(&l->ends[2].core));
  pass(l, LEISURE_MS / 2);
  assert_true(messaging__worker_flushed(&l->ends[1].core) && messaging__worker_flushed(&l->ends[2].core));
  assert_int_equal(l->sent_down[MESSAGING__STATUS], statuses + 2);
  assert_int_equal(l->sent_down[MESSAGING__HEARTBEAT], beats);
  free_net(l);
}

/* One now and then asks for no answer, until one more would have to wait for it. */
static void test_own_now_and_then(void **state) {
  (void)state;
  net *l = joined(1);
  size_t statuses = l->sent_down[MESSAGING__STATUS];
  for (uint32_t i = 1; i <= 9; i++) {
    tell(&l->ends[1], i);
    settle(l);
    assert_int_equal(messaging__im_next(&l->im), i + 1);
    assert_int_equal(l->sent_down[MESSAGING__STATUS], statuses + i / 3);
    pass(l, 2 * MESSAGING__ACK_MS);
  }
  messaging__worker *core = &l->ends[1].core;
  for (uint32_t i = 10; i <= 11; i++) tell(&l->ends[1], i), pass(l, 2 * MESSAGING__ACK_MS);
  assert_int_equal(core->flights.count, 2);
  messaging__worker_acknowledged(core, 11, l->now); /* the other one need not be asked about before its time */
  pass(l, 2 * MESSAGING__PROBE_MS);
  assert_true(core->flights.count == 1 && core->probe == 0);
  pass(l, LEISURE_MS);
  assert_true(messaging__worker_flushed(core) && core->probe == 0);
  free_net(l);
}

/* What is published behind a batch tells its sender, who needs no status then. */
static void test_own_told_by_another(void **state) {
  (void)state;
  net *l = joined(2);
  end *e = &l->ends[1];
  size_t statuses = l->sent_down[MESSAGING__STATUS];
  tell(e, 1);
  settle(l);
  assert_false(messaging__worker_flushed(&e->core));
  tell(&l->ends[2], 2);
  settle(l);
  assert_true(messaging__worker_flushed(&e->core));
  assert_int_equal(e->core.next, 3);
  CHECK_TAKE(e, 2);
  CHECK_TAKE(&l->ends[2], 1);
  pass(l, LEISURE_MS + 1);
  assert_true(messaging__worker_flushed(&l->ends[2].core));
  assert_int_equal(l->sent_down[MESSAGING__STATUS], statuses);
  assert_int_equal(l->ends[2].core.next, 3);
  free_net(l);
}

/* Its own lie behind a gap, and become more before that is closed: they are skipped when it is their turn. */
static void test_own_behind_a_gap(void **state) {
  (void)state;
  net *l = joined(2);
  end *e = &l->ends[1];
  l->lose_down[MESSAGING__REPAIR] = 1000;
  tell_unheard(l, &l->ends[2], 1, e);
  for (uint32_t i = 2; i <= 3; i++) {
    tell(e, i);
    settle(l);
    messaging__im_heartbeat(&l->im, l->now);
    settle(l);
    assert_int_equal(e->core.early.count, 1);
    assert_int_equal(((messaging__early *)messaging__ring_at(&e->core.early, 0))->batch.count, i - 1);
  }
  assert_true(messaging__worker_flushed(&e->core));
  tell(&l->ends[2], 4);
  settle(l);
  assert_int_equal(e->core.early.count, 2);
  assert_int_equal(e->core.next, 1);
  CHECK_NONE(e);
  l->lose_down[MESSAGING__REPAIR] = 0;
  pass(l, 2000);
  CHECK_TAKE(e, 1, 4);
  assert_int_equal(e->core.next, 5);
  CHECK_TAKE(&l->ends[0], 1, 2, 3, 4);
  CHECK_TAKE(&l->ends[2], 2, 3);
  free_net(l);
}

/* What is missing are another's, with its own between them: those are not sent to it. */
static void test_own_left_out_of_repairs(void **state) {
  (void)state;
  net *l = joined(2);
  end *e = &l->ends[1];
  e->deaf = true;
  for (uint32_t i = 1; i <= 4; i++) tell(&l->ends[1 + (i & 1)], i), settle(l);
  e->deaf = false;
  tell(&l->ends[2], 5);
  pass(l, 1000);
  CHECK_TAKE(e, 1, 3, 5);
  assert_true(messaging__worker_flushed(&e->core));
  assert_int_equal(e->core.next, 6);
  assert_int_equal(l->im.stats.batches_repeated, 2);
  free_net(l);
}

/* The report of a worker that misses numbers from first to last. */
static void ask(net *l, const end *e, uint64_t first, uint64_t last) {
  messaging__writer writer;
  messaging__frame_begin(&writer, NULL, 'U', MESSAGING__REPORT, &l->im.era);
  messaging__put_tag(&writer, 0x97);
  messaging__put_int(&writer, e->who.id);
  messaging__put_uint(&writer, e->who.nonce);
  messaging__put_uint(&writer, 1); /* position */
  messaging__put_uint(&writer, 0); /* probe, flags, credit */
  messaging__put_uint(&writer, 0);
  messaging__put_uint(&writer, 1000000);
  messaging__put_tag(&writer, 0x91);
  messaging__put_tag(&writer, 0x92);
  messaging__put_uint(&writer, first);
  messaging__put_uint(&writer, last);
  messaging__im_receive(&l->im, (messaging__slice){NULL, writer.bytes, writer.size}, l->now);
}

/* Its own at the end of what it asks for go, since nothing goes behind them that would tell of them. */
static void test_own_at_the_end_of_a_repair(void **state) {
  (void)state;
  static const struct {
    uint64_t last, batches;
  } asks[] = {{1, 1}, {2, 2}, {3, 2}, {4, 3}, {5, 3}, {6, 3}};
  net *l = joined(2);
  end *e = &l->ends[1];
  for (uint32_t i = 1; i <= 6; i++) tell(&l->ends[i == 2 || i == 4 || i == 5 ? 1 : 2], i), settle(l); /* so that 4 and 5 are a run of two */
  pass(l, 1000);
  for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
    uint64_t before = l->im.stats.batches_repeated;
    ask(l, e, 1, asks[i].last);
    settle(l);
    assert_int_equal(l->im.stats.batches_repeated - before, asks[i].batches);
  }
  CHECK_TAKE(e, 1, 3, 6);
  assert_int_equal(e->core.next, 7);
  free_net(l);
}

/* Runs that are a lie: another's nonce, a batch that was never sent. Nothing is taken for its own. */
static void test_false_runs(void **state) {
  (void)state;
  net *l = joined(1);
  end *e = &l->ends[1];
  const messaging__run runs[] = {{e->who.nonce + 1, 1, 1}, {0, 1, 1}, {e->who.nonce, 1, 1}, {e->who.nonce, 1, MESSAGING__NUMBER_MAX - 1}};
  for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
    messaging__worker_run(&e->core, &runs[i], 5, l->now);
    assert_int_equal(e->core.next, 1);
    assert_int_equal(e->core.early.count, 0);
  }
  free_net(l);
}

/* A run that claims for the worker what was another's and waits behind a gap: that comes as it was sent, and nothing is passed over with it. */
static void test_run_over_another(void **state) {
  (void)state;
  net *l = joined(2);
  end *e = &l->ends[1];
  tell(e, 1);
  settle(l);
  tell_unheard(l, &l->ends[2], 2, e);
  l->lose_down[MESSAGING__REPAIR] = 1000;
  for (uint32_t i = 3; i <= 4; i++) tell(&l->ends[2], i), settle(l);
  assert_int_equal(e->core.early.count, 2);
  const messaging__run lie = {e->who.nonce, 3, 1};
  messaging__worker_run(&e->core, &lie, 5, l->now);
  assert_int_equal(((messaging__early *)messaging__ring_at(&e->core.early, 0))->batch.count, 1);
  l->lose_down[MESSAGING__REPAIR] = 0;
  pass(l, 2000);
  CHECK_TAKE(e, 2, 3, 4);
  assert_int_equal(e->core.next, 5);
  free_net(l);
}

static messaging__peer *announce(net *l, pid_t id) {
  messaging__writer writer;
  messaging__who who = {id, 7, (uint64_t)(5000 - id)};
  messaging__frame_begin(&writer, NULL, 'U', MESSAGING__HELLO, NULL);
  messaging__put_tag(&writer, 0x94);
  messaging__put_who(&writer, &who);
  messaging__put_uint(&writer, l->options.message_bytes_max);
  messaging__im_receive(&l->im, (messaging__slice){NULL, writer.bytes, writer.size}, l->now);
  for (size_t i = 0; i < l->im.peers.count; i++)
    if (messaging__im_peer(&l->im, i)->who.id == id) return messaging__im_peer(&l->im, i);
  return NULL;
}

/* Many who are owed an acknowledgement get it some at a time, so that relays pass in between. */
static void test_many_are_owed(void **state) {
  (void)state;
  enum { MANY = MESSAGING__LOOK_RATE + 44 };
  net *l = joined(0);
  for (pid_t id = -1; id >= -MANY; id--) {
    assert_int_equal(messaging__im_add(&l->im, (messaging_child){id, 7}, l->now), MESSAGING_OK);
    messaging__im_owe(&l->im, announce(l, id), l->now);
  }
  settle(l);
  size_t statuses = l->sent_down[MESSAGING__STATUS];
  l->now += LEISURE_MS;
  messaging__im_pump(&l->im, l->now);
  assert_int_equal(l->sent_down[MESSAGING__STATUS], statuses + MESSAGING__LOOK_RATE);
  assert_true(l->im.owed_count == MANY - MESSAGING__LOOK_RATE && messaging__im_deadline(&l->im, l->now) == l->now + 1);
  messaging__im_pump(&l->im, l->now + 1);
  assert_int_equal(l->sent_down[MESSAGING__STATUS], statuses + MANY);
  assert_true(l->im.owed_count == 0 && l->im.owed_at == MESSAGING__NEVER);
  free_net(l);
}

/* Each of the first has a slot of its own, the others none; what becomes free is given out again. */
static void test_slots(void **state) {
  (void)state;
  net *l = new_net();
  bool given[MESSAGING__SLOTS] = {false};
  open_im(l);
  run(l, 0);
  for (pid_t id = -1; id >= -70; id--) {
    assert_int_equal(messaging__im_add(&l->im, (messaging_child){id, 7}, l->now), MESSAGING_OK);
    const messaging__peer *peer = announce(l, id);
    assert_non_null(peer);
    assert_int_equal(peer->state, MESSAGING__ACTIVE);
    assert_int_equal(peer->slot > 0, id > -MESSAGING__SLOTS);
    if (peer->slot) assert_false(given[peer->slot]);
    given[peer->slot] = true;
  }
  messaging_child list[] = {{-1, 7}, {-70, 7}, {-80, 7}};
  unsigned first = messaging__im_peer(&l->im, 0)->slot;
  assert_int_equal(messaging__im_update(&l->im, list, 3, l->now), MESSAGING_OK);
  const messaging__peer *peer = announce(l, -80);
  assert_int_equal(announce(l, -1)->slot, first);
  assert_true(peer->slot > 0 && peer->slot != first);
  assert_int_equal(announce(l, -70)->slot, 0);
  free_net(l);
}

/* Where slots have run out, a worker hears its own batches: that is an acknowledgement, and no message. */
static void test_own_heard(void **state) {
  (void)state;
  net *l = new_net();
  open_im(l);
  run(l, 0);
  for (pid_t id = -1; id > -MESSAGING__SLOTS; id--) {
    assert_int_equal(messaging__im_add(&l->im, (messaging_child){id, 7}, l->now), MESSAGING_OK);
    assert_int_equal(announce(l, id)->slot, -id);
  }
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){101, 7}, l->now), MESSAGING_OK);
  end *e = open_worker(l, 1);
  settle(l);
  assert_int_equal(e->core.state, MESSAGING__JOINED);
  assert_int_equal(e->core.slot, 0);
  assert_false(e->core.tune);
  size_t statuses = l->sent_down[MESSAGING__STATUS];
  for (uint32_t i = 1; i <= 2; i++) {
    tell(e, i);
    settle(l);
    assert_int_equal(e->core.next, i + 1);
    assert_int_equal(e->core.flights.count, 0);
  }
  pass(l, LEISURE_MS + 1);
  assert_true(l->sent_down[MESSAGING__STATUS] <= statuses + 1); /* the second asked for an answer if the first was still out */
  CHECK_NONE(e);
  assert_int_equal(e->core.stats.duplicates, 0);
  tell_unheard(l, e, 3, e); /* an echo is lost as any other frame: then it asks */
  assert_false(messaging__worker_flushed(&e->core));
  pass(l, LEISURE_MS + MESSAGING__PROBE_MS + 1);
  assert_true(messaging__worker_flushed(&e->core));
  assert_int_equal(e->core.next, 4);
  CHECK_TAKE(&l->ends[0], 1, 2, 3);
  free_net(l);
}

/* Another slot: what was published before it, its own too, may still come, and batches of whoever has the former slot do. */
static void test_slot_changes(void **state) {
  (void)state;
  net *l = joined(2);
  end *e = &l->ends[1], *other = &l->ends[2];
  messaging__peer *peer = messaging__im_peer(&l->im, 0), *second = messaging__im_peer(&l->im, 1);
  assert_true(peer->who.id == e->who.id && e->core.slot == peer->slot && other->core.slot == second->slot);
  assert_true(peer->slot > 0 && second->slot > 0 && peer->slot != second->slot);
  assert_true(e->core.tune); /* for the shell, which has none here */
  e->core.tune = false;
  messaging__im_status(&l->im, peer, MESSAGING__STATUS);
  settle(l);
  assert_false(e->core.tune);
  unsigned former = peer->slot;
  tell(e, 1);
  messaging__worker_pump(&e->core, l->now);
  assert_true(hand_over(l, &l->up, &l->ends[0])); /* published with the former slot */
  peer->slot = 5;
  second->slot = former;
  messaging__im_status(&l->im, peer, MESSAGING__STATUS);
  messaging__im_status(&l->im, second, MESSAGING__STATUS);
  settle(l);
  assert_true(e->core.tune && e->core.slot == 5 && other->core.slot == former);
  assert_true(messaging__worker_flushed(&e->core));
  tell(other, 2);
  settle(l);
  tell(e, 3);
  pass(l, MESSAGING__ACK_MS + 1);
  CHECK_TAKE(e, 2);
  CHECK_TAKE(other, 1, 3);
  CHECK_TAKE(&l->ends[0], 1, 2, 3);
  for (size_t i = 0; i < l->captured_count; i++) /* all that was published comes once more, its own among it */
    if (!l->captured_up[i] && type_of(messaging__slice_of(l->captured[i])) == MESSAGING__RELAY)
      messaging__worker_receive(&e->core, messaging__slice_of(l->captured[i]), l->now);
  CHECK_NONE(e);
  assert_int_equal(e->core.next, 4);
  assert_int_equal(e->core.stats.malformed, 0);
  unsigned slot = e->core.slot; /* who leaves keeps the one it has */
  e->core.tune = false;
  messaging__worker_leave(&e->core, l->now);
  settle(l);
  assert_true(e->core.left && e->core.slot == slot && !e->core.tune);
  assert_int_equal(peer->slot, 0);
  free_net(l);
}

/* The batch that would have told it is lost: nothing else is said in the time that an acknowledgement takes, so it asks. */
static void test_own_told_and_lost(void **state) {
  (void)state;
  net *l = joined(2);
  end *e = &l->ends[1];
  tell(e, 1);
  settle(l);
  tell_unheard(l, &l->ends[2], 2, e);
  assert_false(messaging__worker_flushed(&e->core));
  pass(l, LEISURE_MS + MESSAGING__PROBE_MS + 1);
  assert_true(messaging__worker_flushed(&e->core));
  pass(l, MESSAGING__PROBE_MAX_MS);
  CHECK_TAKE(e, 2);
  assert_int_equal(e->core.next, 3);
  assert_int_equal(e->core.stats.batches_repeated, 0);
  free_net(l);
}

/* Output messages are acknowledged by a status, and come in the sender's order with its relays. */
static void test_output(void **state) {
  (void)state;
  net *l = joined(1);
  end *e = &l->ends[1];
  tell(e, 1);
  assert_int_equal(put(e, MESSAGING__OUTPUT, 2, 5), MESSAGING_OK);
  tell(e, 3);
  assert_int_equal(put(e, MESSAGING__OUTPUT, 4, 5), MESSAGING_OK);
  pass(l, 100);
  CHECK_TAKE(&l->ends[0], 1, 2, 3, 4);
  assert_true(messaging__worker_flushed(&e->core));
  assert_int_equal(l->im.inbox->log.next, 3);
  free_net(l);
}

/* A hole in the middle: what comes behind it is kept, the hole alone is asked for, at once. */
static void test_gap_and_repair(void **state) {
  (void)state;
  net *l = joined(2);
  for (uint32_t i = 1; i <= 9; i++) {
    if (i == 3 || i == 6 || i == 7) l->ends[2].deaf = true;
    tell(&l->ends[1], i);
    settle(l);
    if (i == 3 || i == 7) assert_int_equal(l->ends[2].core.next, i == 3 ? 3 : 6);
    l->ends[2].deaf = false;
  }
  CHECK_TAKE(&l->ends[2], 1, 2, 3, 4, 5, 6, 7, 8, 9);
  assert_int_equal(l->im.stats.repairs_asked, 2);
  assert_int_equal(l->im.stats.batches_repeated, 3);
  assert_int_equal(l->ends[2].core.early.count, 0);
  free_net(l);
}

/* The question or the answer is lost: asked again. */
static void test_repair_with_loss(void **state) {
  (void)state;
  net *l = joined(2);
  tell_unheard(l, &l->ends[1], 1, &l->ends[2]);
  l->lose_up[MESSAGING__REPORT] = 2;
  l->lose_down[MESSAGING__REPAIR] = 2;
  tell(&l->ends[1], 2);
  pass(l, 2000);
  CHECK_TAKE(&l->ends[2], 1, 2);
  free_net(l);
}

/* The last message is lost and nothing follows: a reminder tells of it within 100 ms. Then all is quiet. */
static void test_tail(void **state) {
  (void)state;
  net *l = joined(2);
  tell_unheard(l, &l->ends[1], 1, &l->ends[2]);
  CHECK_NONE(&l->ends[2]);
  pass(l, LEISURE_MS + 1);
  CHECK_TAKE(&l->ends[2], 1);
  pass(l, 2000);
  memset(l->sent_up, 0, sizeof l->sent_up);
  memset(l->sent_down, 0, sizeof l->sent_down);
  pass(l, 10000);
  for (int type = 1; type < TYPES; type++) {
    assert_true(l->sent_up[type] <= (type == MESSAGING__REPORT ? 22u : 0u));
    assert_true(l->sent_down[type] <= (type == MESSAGING__HEARTBEAT ? 11u : 0u));
  }
  free_net(l);
}

/* A message at rest costs no frames but its own: acknowledgements go along with heartbeats, of which there are no more than without it. */
static void test_acknowledged_by_heartbeats(void **state) {
  (void)state;
  enum { HEARTBEATS = 10 };
  net *l = joined(3);
  size_t up[2], down[2];
  for (int sends = 0; sends < 2; sends++) {
    memset(l->sent_up, 0, sizeof l->sent_up);
    memset(l->sent_down, 0, sizeof l->sent_down);
    for (uint32_t i = 0; i < HEARTBEATS; i++) {
      if (sends) tell(&l->ends[1], i);
      pass(l, l->options.heartbeat_ms);
    }
    up[sends] = l->sent_up[MESSAGING__REPORT];
    down[sends] = l->sent_down[MESSAGING__HEARTBEAT] + l->sent_down[MESSAGING__STATUS];
  }
  assert_in_range(up[0], 3 * HEARTBEATS, 3 * HEARTBEATS + 6);
  assert_in_range(up[1], 2 * HEARTBEATS, up[0] + 1); /* the sender's own batches are heartbeats, too */
  assert_true(down[0] >= HEARTBEATS && down[1] <= down[0] + 1);
  assert_int_equal(l->sent_down[MESSAGING__STATUS], 0);
  pass(l, l->options.heartbeat_ms + LEISURE_MS);
  assert_true(messaging__worker_flushed(&l->ends[1].core) && messaging__im_flushed(&l->im));
  free_net(l);
}

/* Who gets much says soon that it has it, so that a burst's history can be trimmed behind it, and the slow are told from the others. */
static void test_acknowledged_by_bytes(void **state) {
  (void)state;
  enum { SIZE = 4000, MESSAGES = MESSAGING__ACK_BYTES / SIZE };
  net *l = new_net();
  l->options.message_bytes_max = 2 * SIZE;
  l->options.inbox_bytes_max = l->options.outbox_bytes_max = 1 << 20;
  l->options.history_bytes_max = 64 << 20;
  join(l, 2);
  for (uint32_t i = 0; i < MESSAGES - 10; i++) {
    assert_int_equal(put(&l->ends[0], MESSAGING__RELAY, i, SIZE), MESSAGING_OK);
    settle(l);
  }
  pass(l, 2 * MESSAGING__ACK_MS);
  assert_false(messaging__im_flushed(&l->im));
  for (uint32_t i = 0; i < 20; i++) {
    assert_int_equal(put(&l->ends[0], MESSAGING__RELAY, i, SIZE), MESSAGING_OK);
    settle(l);
  }
  pass(l, MESSAGING__ACK_MS);
  assert_true(messaging__im_flushed(&l->im));
  assert_int_equal(l->ends[1].core.unsaid_bytes, 0);
  free_net(l);
}

/* Of large batches the sender hears one by one, before the supervisor takes the next, of small ones together. */
static void test_large_batches_acknowledged_at_once(void **state) {
  (void)state;
  enum { BATCHES = 4, SMALL = MESSAGING__ACK_BYTES / 2 };
  for (int large = 0; large < 2; large++) {
    size_t asked = 0;
    net *l = new_net();
    l->options.message_bytes_max = 1 << 20;
    l->options.inbox_bytes_max = l->options.outbox_bytes_max = l->options.history_bytes_max = 64 << 20;
    join(l, 2);
    for (uint32_t i = 0; i < BATCHES; i++) assert_int_equal(put(&l->ends[1], MESSAGING__RELAY, i, large ? MESSAGING__ACK_BYTES : SMALL), MESSAGING_OK);
    messaging__worker_pump(&l->ends[1].core, l->now);
    assert_int_equal(l->up.count, BATCHES);
    while (l->up.count) {
      messaging__batch batch;
      messaging__buffer *first = *(messaging__buffer **)messaging__ring_at(&l->up, 0);
      assert_true(messaging__batch_read(first->data, first->size, &batch));
      asked += (batch.flags & MESSAGING__UP_ANSWER) != 0;
      hand_over(l, &l->up, &l->ends[0]);
      assert_int_equal(l->sent_down[MESSAGING__STATUS], large ? asked : 0);
    }
    assert_true(asked > 1);
    messaging__im_pump(&l->im, l->now);
    assert_int_equal(l->sent_down[MESSAGING__STATUS], large ? asked : 1); /* nothing is said twice */
    settle(l);
    assert_true(messaging__worker_flushed(&l->ends[1].core));
    free_net(l);
  }
}

/* Who waits for acknowledgements asks for them, and again soon where the question or its answer is lost. */
static void test_flush_asks(void **state) {
  (void)state;
  for (int lost = 0; lost < 3; lost++) {
    net *l = joined(3);
    tell(&l->ends[1], 1);
    settle(l);
    if (lost == 1) l->lose_down[MESSAGING__STATUS] = 2;
    if (lost == 2) l->lose_up[MESSAGING__REPORT] = 2;
    assert_false(messaging__im_flushed(&l->im));
    messaging__im_hurry(&l->im, l->now);
    pass(l, lost ? MESSAGING__TAIL_MS + 1 : 0);
    assert_true(messaging__im_flushed(&l->im));
    tell(&l->ends[0], 2); /* not published yet when somebody waits for it */
    messaging__im_hurry(&l->im, l->now);
    settle(l);
    assert_true(messaging__im_flushed(&l->im));
    free_net(l);
    l = joined(1);
    tell(&l->ends[1], 1); /* likewise, not on the wire */
    if (lost == 0) messaging__worker_hurry(&l->ends[1].core, l->now);
    settle(l);
    assert_int_equal(messaging__worker_flushed(&l->ends[1].core), lost == 0);
    if (lost == 1) l->lose_down[MESSAGING__STATUS] = 1;
    if (lost == 2) l->lose_up[MESSAGING__REPORT] = 1;
    messaging__worker_hurry(&l->ends[1].core, l->now);
    pass(l, lost ? MESSAGING__PROBE_MS + 1 : 0);
    assert_true(messaging__worker_flushed(&l->ends[1].core));
    free_net(l);
  }
}

/* A worker that subscribes again was cut off: what it missed, and what was lost of what it sent, goes again at once. */
static void test_cut_off(void **state) {
  (void)state;
  net *l = joined(2);
  end *e = &l->ends[1];
  e->mute = true;
  tell(e, 1);
  tell_unheard(l, &l->ends[2], 2, e);
  e->mute = false;
  CHECK_NONE(e);
  subscribe(l, e);
  settle(l);
  CHECK_TAKE(e, 2);
  CHECK_TAKE(&l->ends[2], 1);
  assert_int_equal(e->core.stats.batches_repeated, 1);
  assert_int_equal(e->core.next, messaging__im_next(&l->im));
  free_net(l);
}

/* Ranges that meet within a batch bring it once. */
static void test_ranges_within_a_batch(void **state) {
  (void)state;
  net *l = joined(1);
  messaging__writer writer;
  l->lose_down[MESSAGING__RELAY] = 1;
  for (uint32_t i = 1; i <= 3; i++) tell(&l->ends[0], i);
  settle(l);
  assert_true(messaging__im_next(&l->im) == 4 && l->im.stats.batches_sent == 1);
  messaging__frame_begin(&writer, NULL, 'U', MESSAGING__REPORT, &l->im.era);
  messaging__put_tag(&writer, 0x97);
  messaging__put_int(&writer, l->ends[1].who.id);
  messaging__put_uint(&writer, l->ends[1].who.nonce);
  messaging__put_uint(&writer, 1);
  messaging__put_uint(&writer, 0);
  messaging__put_uint(&writer, 0);
  messaging__put_uint(&writer, 1000000);
  messaging__put_tag(&writer, 0x93);
  for (uint64_t i = 1; i <= 3; i++) {
    messaging__put_tag(&writer, 0x92);
    messaging__put_uint(&writer, i);
    messaging__put_uint(&writer, i);
  }
  messaging__slice frame = {NULL, writer.bytes, writer.size};
  messaging__im_receive(&l->im, frame, l->now);
  settle(l);
  assert_int_equal(l->im.stats.batches_repeated, 1);
  CHECK_TAKE(&l->ends[1], 1, 2, 3);
  free_net(l);
}

/* The worker's last batch is lost: it asks, and sends it again, once. */
static void test_lost_upwards(void **state) {
  (void)state;
  net *l = joined(1);
  l->lose_up[MESSAGING__RELAY] = 2;
  tell(&l->ends[1], 1);
  settle(l);
  tell(&l->ends[1], 2);
  settle(l);
  pass(l, 1000);
  CHECK_TAKE(&l->ends[0], 1, 2);
  assert_true(messaging__worker_flushed(&l->ends[1].core));
  assert_int_equal(l->ends[1].core.stats.batches_repeated, 2);
  free_net(l);
}

/* Each batch that comes up ahead of a gap is answered: what was said before the repetition arrived does not bring about another. */
static void test_sent_again_once_in_a_round_trip(void **state) {
  (void)state;
  net *l = joined(1);
  messaging__worker *core = &l->ends[1].core;
  l->lose_up[MESSAGING__RELAY] = 3;
  for (uint32_t i = 1; i <= 3; i++) {
    tell(&l->ends[1], i);
    messaging__worker_pump(core, l->now);
  }
  assert_int_equal(core->flights_sent, 3);
  uint32_t before = core->probe;
  messaging__worker_told(core, before, true, l->now);
  messaging__worker_pump(core, l->now);
  assert_int_equal(core->stats.batches_repeated, 3);
  messaging__worker_told(core, before, true, l->now);
  messaging__worker_pump(core, l->now);
  assert_int_equal(core->stats.batches_repeated, 3);
  l->lose_up[MESSAGING__RELAY] = 0;
  messaging__worker_told(core, core->probe, false, l->now); /* the repetition did not arrive either */
  assert_int_equal(core->stats.batches_repeated, 6);
  pass(l, 1000);
  CHECK_TAKE(&l->ends[0], 1, 2, 3);
  free_net(l);
}

/* The window was closed; the word that it opens is lost, and what was on the wire is acknowledged by its broadcast. The worker asks. */
static void test_opening_is_lost(void **state) {
  (void)state;
  net *l = joined(1);
  end *e = &l->ends[1];
  messaging__worker_set_window(&e->core, 0, l->now);
  messaging__worker_acknowledged(&e->core, 1, l->now);
  tell(e, 1);
  settle(l);
  CHECK_NONE(&l->ends[0]);
  pass(l, 500);
  CHECK_TAKE(&l->ends[0], 1);
  free_net(l);
  l = joined(1); /* likewise with a batch on the wire as it closes */
  e = &l->ends[1];
  tell(e, 1);
  messaging__worker_pump(&e->core, l->now);
  messaging__worker_set_window(&e->core, 0, l->now);
  settle(l);
  tell(e, 2);
  pass(l, 3000);
  CHECK_TAKE(&l->ends[0], 1, 2);
  free_net(l);
}

/* ---- limits ---- */

/* The supervisor's application takes no outputs: the window closes, the worker keeps the rest and says EFULL in the end; nothing is lost. */
static void test_window(void **state) {
  (void)state;
  net *l = joined(1);
  end *e = &l->ends[1], *im = &l->ends[0];
  uint32_t sent = 0;
  messaging_status status;
  while ((status = put(e, MESSAGING__OUTPUT, sent + 1, 900)) == MESSAGING_OK) {
    sent++;
    settle(l);
    assert_true(sent < 100);
  }
  assert_int_equal(status, MESSAGING_EFULL);
  pass(l, 100);
  assert_int_equal(e->core.window, 0);
  assert_true(im->inbox.bytes <= im->inbox.bytes_max && e->outbox.bytes <= e->outbox.bytes_max);
  tell(im, 1000); /* others are not delayed */
  settle(l);
  CHECK_TAKE(e, 1000);
  size_t frames = l->sent_up[MESSAGING__OUTPUT];
  pass(l, 20000);
  assert_int_equal(l->sent_up[MESSAGING__OUTPUT], frames); /* a closed window is asked about, not pushed against */
  uint32_t got = 0;
  for (int round = 0; round < 50 && got < sent; round++) {
    received r = take(im);
    for (size_t i = 0; i < r.count; i++) assert_int_equal(r.values[i], ++got);
    pass(l, 100);
  }
  assert_int_equal(got, sent);
  pass(l, LEISURE_MS + 1);
  assert_true(e->core.window > 0 && messaging__worker_flushed(&e->core));
  free_net(l);
}

/* A worker whose inbox is full takes the rest from history later, and holds up nobody. */
static void test_full_inbox(void **state) {
  (void)state;
  net *l = joined(2);
  uint32_t got = 0, sent = 100;
  for (uint32_t i = 1; i <= sent; i++) {
    assert_int_equal(put(&l->ends[1], MESSAGING__RELAY, i, 900), MESSAGING_OK);
    settle(l);
  }
  assert_true(messaging__worker_flushed(&l->ends[1].core));
  assert_true(l->ends[2].inbox.bytes <= l->ends[2].inbox.bytes_max);
  for (int round = 0; round < 50 && got < sent; round++) {
    received r = take(&l->ends[2]);
    for (size_t i = 0; i < r.count; i++) assert_int_equal(r.values[i], ++got);
    pass(l, 10);
  }
  assert_int_equal(got, sent);
  free_net(l);
}

static net *small_history(bool fence) {
  net *l = new_net();
  l->options.history_bytes_max = 8192;
  l->options.fence_slow = fence;
  l->options.outbox_bytes_max = 1 << 16;
  l->options.inbox_bytes_max = 1 << 16;
  open_im(l);
  run(l, 3);
  for (size_t i = 1; i <= 2; i++) open_worker(l, i);
  settle(l);
  return l;
}

/* Nobody has said of late what it has. When a quarter of the history is new, all are asked to say it soon; those who hold back a full one, to say it
 * at once. So nobody waits long for room. */
static void test_history_in_haste(void **state) {
  (void)state;
  net *l = new_net();
  l->options.history_bytes_max = 8192;
  join(l, 3);
  size_t beats = l->sent_down[MESSAGING__HEARTBEAT], reports = l->sent_up[MESSAGING__REPORT];
  uint32_t i = 0;
  for (; l->sent_down[MESSAGING__HEARTBEAT] == beats; i++) {
    assert_true(i < 10);
    assert_int_equal(l->sent_up[MESSAGING__REPORT], reports);
    assert_int_equal(put(&l->ends[0], MESSAGING__RELAY, i, 900), MESSAGING_OK);
    settle(l);
  }
  assert_in_range(l->im.inbox->log.bytes, 8192 / 4, 8192 / 2);
  pass(l, MESSAGING__ACK_MS + 1);
  assert_true(messaging__im_flushed(&l->im)); /* all have said so */
  assert_int_equal(l->sent_up[MESSAGING__REPORT], reports + 3);
  for (size_t w = 1; w <= 3; w++) assert_int_equal(take(&l->ends[w]).count, i);
  for (; i < 100; i++) { /* in no time */
    assert_int_equal(put(&l->ends[0], MESSAGING__RELAY, i, 900), MESSAGING_OK);
    settle(l);
    for (size_t w = 1; w <= 3; w++) assert_int_equal(take(&l->ends[w]).count, 1);
  }
  assert_int_equal(messaging__im_next(&l->im), 101);
  free_net(l);
}

/* One whose application pauses holds the history. It is asked in vain, and says what it has as soon as it goes on: nobody waits for a heartbeat. */
static void test_history_held_by_a_pause(void **state) {
  (void)state;
  net *l = new_net();
  l->options.history_bytes_max = 8192;
  l->options.outbox_bytes_max = 1 << 16;
  l->options.inbox_bytes_max = 12288; /* so that it is given the rest in one answer, and does not ask again */
  join(l, 2);
  for (uint32_t i = 1; i <= 40; i++) assert_int_equal(put(&l->ends[0], MESSAGING__RELAY, i, 900), MESSAGING_OK);
  size_t others = 0;
  for (int i = 0; i < 10; i++) pass(l, 500), others += take(&l->ends[1]).count;
  uint64_t next = messaging__im_next(&l->im);
  assert_true(next < 40 && others == next - 1 && l->ends[2].core.next < next);
  take(&l->ends[2]);
  settle(l);
  assert_int_equal(l->ends[2].core.next, next);
  assert_int_equal(messaging__im_next(&l->im), next);
  pass(l, MESSAGING__ACK_MS);
  assert_true(messaging__im_next(&l->im) > next);
  free_net(l);
}

/* One that is listed and has not joined holds the history; it is full, nothing more is taken, nothing is lost, and all goes on once it is gone. */
static void test_full_history_refuses(void **state) {
  (void)state;
  net *l = small_history(false);
  for (uint32_t i = 1; i <= 20; i++) assert_int_equal(put(&l->ends[1], MESSAGING__RELAY, i, 900), MESSAGING_OK);
  pass(l, 500);
  uint64_t next = l->im.inbox->log.next;
  assert_true(next > 1 && next < 20);
  assert_int_equal(l->im.inbox->log.first, 1);
  assert_int_equal(l->ends[1].core.window, 0);
  assert_int_equal(take(&l->ends[2]).count, next - 1);
  assert_int_equal(take(&l->ends[0]).count, next - 1);
  messaging_child two[] = {{101, 7}, {102, 7}};
  assert_int_equal(messaging__im_update(&l->im, two, 2, l->now), MESSAGING_OK);
  for (int round = 0; round < 20; round++) pass(l, 200), take(&l->ends[0]);
  assert_true(l->im.inbox->log.next == 21 && l->im.inbox->log.first > 1);
  assert_int_equal(take(&l->ends[2]).count, 20 - (next - 1));
  assert_int_equal(count_reports(&l->ends[0], MESSAGING_EHISTORY), 0);
  assert_int_equal(count_reports(&l->ends[2], MESSAGING_EHISTORY), 0);
  free_net(l);
}

/* With fencing it is told what it missed, and so is the handler, with the same numbers; nobody else misses anything. */
static void test_full_history_fences(void **state) {
  (void)state;
  net *l = small_history(true);
  size_t got = 0;
  for (uint32_t i = 1; i <= 30; i++) {
    assert_int_equal(put(&l->ends[1], MESSAGING__RELAY, i, 900), MESSAGING_OK);
    pass(l, 30);
    got += take(&l->ends[0]).count;
  }
  pass(l, 500);
  got += take(&l->ends[0]).count;
  assert_int_equal(got, 30);
  assert_int_equal(take(&l->ends[2]).count, 30);
  uint64_t first = l->im.inbox->log.first, told = 1;
  assert_true(l->im.inbox->log.next == 31 && first > 1 && first < 31);
  for (size_t i = 0; i < l->ends[0].report_count; i++) {
    const report *r = &l->ends[0].reports[i];
    assert_true(r->status == MESSAGING_EHISTORY && r->pid == 103 && r->first == told);
    told = r->last + 1;
  }
  assert_true(told > 1 && told <= first);
  l->ends[0].report_count = 0;
  end *late = open_worker(l, 3);
  pass(l, 500);
  check_gap(late, 0, 1, first - 1);
  check_gap(&l->ends[0], 103, 1, first - 1);
  received r = take(late);
  assert_int_equal(r.count, 31 - first);
  for (size_t i = 0; i < r.count; i++) assert_int_equal(r.values[i], first + i);
  free_net(l);
}

/* The supervisor's own application can be the slow one. */
static void test_full_history_fences_the_supervisor(void **state) {
  (void)state;
  net *l = joined(0);
  free_net(l);
  l = new_net();
  l->options.history_bytes_max = 8192;
  l->options.fence_slow = true;
  open_im(l);
  run(l, 1);
  open_worker(l, 1);
  settle(l);
  for (uint32_t i = 1; i <= 30; i++) {
    assert_int_equal(put(&l->ends[1], MESSAGING__RELAY, i, 900), MESSAGING_OK);
    pass(l, 100);
  }
  uint64_t told = 1, next = l->im.inbox->log.next;
  assert_int_equal(next, 31);
  for (size_t i = 0; i < l->ends[0].report_count; i++) {
    assert_true(l->ends[0].reports[i].pid == 100 && l->ends[0].reports[i].first == told);
    told = l->ends[0].reports[i].last + 1;
  }
  received r = take(&l->ends[0]);
  assert_int_equal(r.count, 31 - told);
  assert_int_equal(r.values[0], told);
  free_net(l);
}

/* ---- termination and leaving ---- */

static void check_terminated(net *l, size_t count, const bool *wanted) {
  for (size_t i = 0; i <= count; i++) assert_int_equal(l->ends[i].inbox.terminated, wanted[i]);
}

static void test_terminate_by_worker(void **state) {
  (void)state;
  net *l = joined(3);
  l->lose_up[MESSAGING__REPORT] = 1;
  l->lose_down[MESSAGING__HEARTBEAT] = 1;
  l->lose_down[MESSAGING__STATUS] = 1;
  messaging__worker_terminate(&l->ends[2].core, l->now);
  pass(l, 3000);
  check_terminated(l, 3, (const bool[]){true, true, false, true});
  assert_true(l->ends[2].core.term_echoed);
  end *late = open_worker(l, 4);
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){104, 7}, l->now), MESSAGING_OK);
  pass(l, 100);
  assert_true(late->inbox.terminated);
  assert_int_equal(late->inbox.term_by.id, 102);
  messaging__worker_terminate(&l->ends[1].core, l->now);
  pass(l, 3000);
  check_terminated(l, 4, (const bool[]){true, true, true, true, true});
  free_net(l);
}

static void test_terminate_by_supervisor(void **state) {
  (void)state;
  net *l = joined(3);
  assert_int_equal(messaging__im_term_to(&l->im, 104, l->now), MESSAGING_EKIND);
  l->lose_down[MESSAGING__STATUS] = 2;
  assert_int_equal(messaging__im_term_to(&l->im, 102, l->now), MESSAGING_OK);
  pass(l, 3000);
  check_terminated(l, 3, (const bool[]){false, false, true, false});
  l->lose_down[MESSAGING__HEARTBEAT] = 1;
  messaging__im_term(&l->im, &l->im.self, l->now);
  pass(l, 3000);
  check_terminated(l, 3, (const bool[]){false, true, true, true});
  free_net(l);
}

/* Who is asked to terminate while it joins is looked after once it has joined, though the request was lost. */
static void test_terminate_one_that_joins(void **state) {
  (void)state;
  net *l = new_net();
  open_im(l);
  run(l, 1);
  end *e = open_worker(l, 1);
  l->lose_up[MESSAGING__REPORT] = 1;
  settle(l);
  assert_int_equal(e->core.state, MESSAGING__JOINED);
  assert_int_equal(l->im.joined, 0);
  l->lose_down[MESSAGING__STATUS] = 1;
  assert_int_equal(messaging__im_term_to(&l->im, 101, l->now), MESSAGING_OK);
  pass(l, 500);
  assert_int_equal(l->im.joined, 0);
  assert_false(e->inbox.terminated);
  pass(l, 2000);
  assert_int_equal(l->im.joined, 1);
  assert_true(e->inbox.terminated);
  free_net(l);
}

/* A worker whose silence was forgiven is watched again: its next silence is reported too. */
static void test_silent_twice(void **state) {
  (void)state;
  net *l = new_net();
  open_im(l);
  messaging_child list[] = {{-2, 7}};
  assert_int_equal(messaging__im_run(&l->im, list, 1, l->now), MESSAGING_OK);
  end *far = open_as(l, 2, -2, 7);
  settle(l);
  for (size_t times = 1; times <= 3; times++) {
    far->mute = true;
    pass(l, 8000);
    assert_int_equal(count_reports(&l->ends[0], MESSAGING_ELOST), times);
    far->mute = false;
    pass(l, 3000);
  }
  free_net(l);
}

/* A worker leaves: heard although the first words are lost, gone from those who are waited for, and its id can come again. */
static void test_worker_leaves(void **state) {
  (void)state;
  net *l = joined(2);
  tell(&l->ends[1], 1);
  settle(l);
  assert_int_equal(messaging__im_term_to(&l->im, 101, l->now), MESSAGING_OK);
  pass(l, 1000);
  assert_true(l->ends[1].inbox.terminated);
  l->lose_up[MESSAGING__REPORT] = 1;
  l->lose_down[MESSAGING__STATUS] = 1;
  messaging__worker_leave(&l->ends[1].core, l->now);
  pass(l, 1000);
  assert_true(l->ends[1].core.left);
  assert_true(l->im.joined == 1 && l->im.live == 1);
  close_worker(&l->ends[1]);
  messaging__who before = l->ends[1].who;
  l->now += 10;
  end *again = open_worker(l, 1);
  assert_true(again->who.nonce != before.nonce);
  settle(l);
  assert_int_equal(again->core.state, MESSAGING__JOINED);
  CHECK_TAKE(again, 1); /* the whole history, its forebear's too */
  pass(l, 3000);
  assert_false(again->inbox.terminated); /* that was asked of its forebear */
  assert_int_equal(count_reports(&l->ends[0], MESSAGING_ELOST), 0);
  free_net(l);
}

static void test_supervisor_leaves(void **state) {
  (void)state;
  net *l = joined(3);
  l->ends[3].deaf = true;
  l->lose_up[MESSAGING__REPORT] = 1;
  messaging__im_leave(&l->im, l->now);
  pass(l, 300);
  assert_false(messaging__im_parted(&l->im));
  l->ends[3].deaf = false;
  pass(l, 3000);
  assert_true(messaging__im_parted(&l->im));
  for (size_t i = 1; i <= 3; i++) {
    assert_true(l->ends[i].core.bye_seen && l->ends[i].inbox.terminated && l->ends[i].inbox.ended);
    assert_int_equal(l->ends[i].inbox.cause, MESSAGING_ENOTRUNNING);
    assert_int_equal(put(&l->ends[i], MESSAGING__RELAY, 1, 5), MESSAGING_ENOTRUNNING);
  }
  free_net(l);
}

/* ---- the list ---- */

static void test_update_with_survivors(void **state) {
  (void)state;
  net *l = joined(2);
  tell(&l->ends[1], 1);
  settle(l);
  messaging_child list[] = {{102, 7}, {103, 7}};
  end *newcomer = open_worker(l, 3);
  assert_int_equal(messaging__im_update(&l->im, list, 2, l->now), MESSAGING_OK);
  settle(l);
  assert_int_equal(l->im.era.generation, 1);
  assert_int_equal(l->ends[1].core.state, MESSAGING__OVER);
  assert_int_equal(l->ends[1].inbox.cause, MESSAGING_ENOTRUNNING);
  assert_true(l->ends[1].inbox.terminated && !l->ends[2].inbox.terminated);
  tell(&l->ends[2], 2);
  pass(l, LEISURE_MS + 1);
  CHECK_TAKE(newcomer, 1, 2);
  CHECK_TAKE(&l->ends[2], 1);
  CHECK_TAKE(&l->ends[0], 1, 2);
  assert_int_equal(l->ends[2].core.next, 3);
  free_net(l);
}

/* The word that it is off the list is lost: it learns it by what it sends next. */
static void test_struck_learns_late(void **state) {
  (void)state;
  net *l = joined(2);
  messaging_child list[] = {{102, 7}};
  l->lose_down[MESSAGING__REFUSE] = 1;
  assert_int_equal(messaging__im_update(&l->im, list, 1, l->now), MESSAGING_OK);
  settle(l);
  pass(l, 2000);
  assert_int_equal(l->ends[1].core.state, MESSAGING__OVER);
  free_net(l);
}

/* A new generation: numbers from 1, what was not received comes first, nothing of the old ones' is taken any more. */
static void test_update_without_survivors(void **state) {
  (void)state;
  for (int purge = 0; purge < 2; purge++) {
    net *l = joined(1);
    tell(&l->ends[1], 1);
    settle(l);
    messaging__worker_terminate(&l->ends[1].core, l->now);
    settle(l);
    assert_true(l->ends[0].inbox.terminated);
    tell(&l->ends[1], 2);
    messaging__worker_pump(&l->ends[1].core, l->now); /* on its way when the list changes */
    if (purge) messaging__im_purge(&l->im);
    messaging_child list[] = {{102, 7}};
    assert_int_equal(messaging__im_update(&l->im, list, 1, l->now), MESSAGING_OK);
    assert_int_equal(l->im.era.generation, 2);
    assert_false(l->ends[0].inbox.terminated);
    end *e = open_worker(l, 2);
    settle(l);
    assert_true(l->im.stats.stale > 0);
    assert_int_equal(l->ends[1].core.state, MESSAGING__OVER);
    assert_true(e->core.era.generation == 2 && e->core.next == 1 && !e->inbox.terminated);
    tell(e, 3);
    pass(l, LEISURE_MS + 1);
    if (purge) CHECK_TAKE(&l->ends[0], 3);
    else CHECK_TAKE(&l->ends[0], 1, 3);
    assert_int_equal(e->core.next, 2);
    free_net(l);
  }
}

/* An old announcement that is parked when its id is listed anew must not leave its worker, of the old generation, waiting for ever. */
static void test_late_announcement_of_a_struck_worker(void **state) {
  (void)state;
  net *l = joined(1);
  end *e = &l->ends[1];
  messaging_child other[] = {{102, 7}}, again[] = {{101, 7}};
  e->deaf = true;
  messaging__buffer *hello = NULL;
  for (size_t i = 0; i < l->captured_count; i++)
    if (l->captured_up[i] && type_of(messaging__slice_of(l->captured[i])) == MESSAGING__HELLO) hello = l->captured[i];
  assert_non_null(hello);
  assert_int_equal(messaging__im_update(&l->im, other, 1, l->now), MESSAGING_OK);
  messaging__im_receive(&l->im, messaging__slice_of(hello), l->now);
  assert_int_equal(l->im.parked.count, 1);
  assert_int_equal(messaging__im_update(&l->im, again, 1, l->now), MESSAGING_OK);
  e->deaf = false;
  pass(l, 3000);
  assert_int_equal(e->core.state, MESSAGING__OVER);
  free_net(l);
}

static void test_death(void **state) {
  (void)state;
  net *l = joined(2);
  tell(&l->ends[1], 1);
  messaging__worker_pump(&l->ends[1].core, l->now); /* its last words */
  l->ends[1].dead = true;
  close_worker(&l->ends[1]);
  messaging__im_dead(&l->im, messaging__im_peer(&l->im, 0));
  settle(l);
  assert_int_equal(count_reports(&l->ends[0], MESSAGING_ELOST), 1);
  CHECK_TAKE(&l->ends[2], 1);
  assert_true(l->im.live == 1 && l->im.joined == 1);
  messaging_child list[] = {{101, 7}, {102, 7}};
  assert_int_equal(messaging__im_update(&l->im, list, 2, l->now), MESSAGING_OK); /* dead still: said again, and it succeeds */
  assert_int_equal(count_reports(&l->ends[0], MESSAGING_ELOST), 2);
  l->ends[1].dead = false;
  l->now += 10;
  end *e = open_worker(l, 1);
  settle(l);
  assert_int_equal(e->core.state, MESSAGING__ANNOUNCING); /* a pid that died must be listed again */
  assert_int_equal(messaging__im_add(&l->im, list[0], l->now), MESSAGING_OK);
  pass(l, 100);
  assert_int_equal(e->core.state, MESSAGING__JOINED);
  CHECK_TAKE(e, 1);
  free_net(l);
}

/* The new process of a reused pid announces itself before the old one's death was seen: it must not be struck for it. */
static void test_reused_pid(void **state) {
  (void)state;
  net *l = joined(1);
  l->ends[1].dead = true;
  end *e = open_as(l, 2, 101, 7);
  settle(l);
  assert_int_equal(count_reports(&l->ends[0], MESSAGING_ELOST), 1);
  l->ends[1].dead = false; /* the pid is another process's now */
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){101, 7}, l->now), MESSAGING_OK);
  pass(l, 100);
  assert_int_equal(e->core.state, MESSAGING__JOINED);
  free_net(l);
}

/* ---- who may come in ---- */

static void test_second_claimant(void **state) {
  (void)state;
  net *l = joined(1);
  end *second = open_as(l, 2, 101, 7);
  pass(l, 300);
  assert_int_equal(second->core.state, MESSAGING__ANNOUNCING);
  assert_int_equal(count_reports(&l->ends[0], MESSAGING_EAUTH), 1); /* told once, however often it asks */
  assert_int_equal(count_reports(second, MESSAGING_EAUTH), 1);
  tell(&l->ends[1], 1);
  settle(l);
  CHECK_TAKE(&l->ends[0], 1);
  messaging__worker_leave(&l->ends[1].core, l->now);
  pass(l, 2000);
  assert_int_equal(second->core.state, MESSAGING__JOINED);
  free_net(l);
}

/* Nonces can be seen by all. Who announces itself with another's is refused, and the other one is not disturbed. */
static void test_claimed_nonce(void **state) {
  (void)state;
  net *l = joined(2);
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){103, 7}, l->now), MESSAGING_OK);
  end *thief = open_worker(l, 3);
  thief->who.nonce = thief->core.self.nonce = l->ends[1].who.nonce;
  pass(l, 300);
  assert_int_equal(thief->core.state, MESSAGING__ANNOUNCING);
  assert_int_equal(count_reports(&l->ends[0], MESSAGING_EAUTH), 1);
  thief->who.nonce = thief->core.self.nonce = l->im.self.nonce;
  pass(l, 2000);
  assert_int_equal(thief->core.state, MESSAGING__ANNOUNCING);
  tell(&l->ends[1], 5);
  pass(l, LEISURE_MS + 1);
  CHECK_TAKE(&l->ends[2], 5);
  assert_true(messaging__worker_flushed(&l->ends[1].core));
  free_net(l);
}

/* Of two that claim an id and have not answered, the first to answer has it, also when the other's announcement came last. */
static void test_two_announcements(void **state) {
  (void)state;
  net *l = new_net();
  open_im(l);
  run(l, 1);
  end *first = open_as(l, 1, 101, 7), *second = open_as(l, 2, 101, 7);
  first->deaf = second->deaf = true;
  settle(l);
  close_worker(second);
  first->deaf = false;
  pass(l, 2000);
  assert_int_equal(first->core.state, MESSAGING__JOINED);
  free_net(l);
}

/* The late announcement of an incarnation of 101 that is dead. */
static void announce_dead(net *l, uint64_t nonce) {
  messaging__who dead = {101, 7, nonce};
  messaging__writer hello;
  messaging__frame_begin(&hello, NULL, 'U', MESSAGING__HELLO, NULL);
  messaging__put_tag(&hello, 0x94);
  messaging__put_who(&hello, &dead);
  messaging__put_uint(&hello, l->options.message_bytes_max);
  messaging__slice frame = {NULL, hello.bytes, hello.size};
  messaging__im_receive(&l->im, frame, l->now);
}

/* An announcement of a dead incarnation that comes late does not unseat its heir, which was welcomed before and speaks first. */
static void test_late_announcement_of_the_dead(void **state) {
  (void)state;
  net *l = new_net();
  open_im(l);
  run(l, 1);
  end *heir = open_worker(l, 1);
  l->lose_up[MESSAGING__REPORT] = 1;
  settle(l);
  assert_int_equal(heir->core.state, MESSAGING__JOINED);
  assert_int_equal(l->im.joined, 0);
  for (uint64_t nonce = 77; nonce < 79; nonce++) announce_dead(l, nonce); /* of two that were there before */
  tell(heir, 1);
  pass(l, 2000);
  assert_int_equal(heir->core.state, MESSAGING__JOINED);
  CHECK_TAKE(&l->ends[0], 1);
  announce_dead(l, 77); /* later still: the seat is taken */
  pass(l, 2000);
  tell(heir, 2);
  settle(l);
  CHECK_TAKE(&l->ends[0], 2);
  free_net(l);
}

/* The first frame that passed upwards of this type. */
static messaging__slice passed_up(const net *l, uint8_t type) {
  for (size_t i = 0; i < l->captured_count; i++)
    if (l->captured_up[i] && type_of(messaging__slice_of(l->captured[i])) == type) return messaging__slice_of(l->captured[i]);
  fail_msg("no frame of type %d went up", type);
  return (messaging__slice){NULL, NULL, 0};
}

/* A worker that nobody watches dies when its first frame is still on its way, and that one arrives when its heir has been welcomed: the heir is not
 * sent away for it, and has the id once the silence of the dead has lasted long enough. */
static void test_heir_waits(void **state) {
  (void)state;
  net *l = new_net();
  messaging_child child = {-5, 7};
  open_im(l);
  assert_int_equal(messaging__im_run(&l->im, &child, 1, l->now), MESSAGING_OK);
  end *dead = open_as(l, 1, -5, 7);
  messaging__worker_pump(&dead->core, l->now);
  while (hand_over(l, &l->up, &l->ends[0])) {}
  while (hand_over(l, &dead->down, dead)) {}
  assert_int_equal(dead->core.state, MESSAGING__JOINED);
  dead->mute = true;
  messaging__worker_pump(&dead->core, l->now);
  close_worker(dead);
  end *heir = open_as(l, 2, -5, 7);
  messaging__worker_pump(&heir->core, l->now);
  while (hand_over(l, &l->up, &l->ends[0])) {}
  while (hand_over(l, &heir->down, heir)) {}
  assert_int_equal(heir->core.state, MESSAGING__JOINED);
  messaging__im_receive(&l->im, passed_up(l, MESSAGING__REPORT), l->now);
  tell(heir, 1);
  pass(l, 1000);
  assert_int_equal(l->sent_down[MESSAGING__REFUSE], 0);
  assert_int_equal(heir->core.state, MESSAGING__JOINED);
  CHECK_NONE(&l->ends[0]);
  pass(l, l->options.silence_ms + 3000u);
  CHECK_TAKE(&l->ends[0], 1);
  assert_true(messaging__worker_flushed(&heir->core));
  free_net(l);
}

/* Left out while another survives, and listed again: what is still on its way of the incarnation that was there is not taken a second time. */
static void test_left_out_and_listed_again(void **state) {
  (void)state;
  net *l = joined(2);
  messaging_child list[] = {{102, 7}};
  tell(&l->ends[1], 1);
  pass(l, 100);
  assert_int_equal(messaging__im_update(&l->im, list, 1, l->now), MESSAGING_OK);
  settle(l);
  assert_int_equal(l->ends[1].core.state, MESSAGING__OVER);
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){101, 7}, l->now), MESSAGING_OK);
  messaging__im_receive(&l->im, passed_up(l, MESSAGING__HELLO), l->now);
  messaging__slice late = passed_up(l, MESSAGING__RELAY);
  messaging__im_receive(&l->im, late, l->now);
  assert_int_equal(messaging__im_peer(&l->im, l->im.peers.count - 1)->state, MESSAGING__LISTED);
  CHECK_TAKE(&l->ends[0], 1);
  close_worker(&l->ends[1]);
  end *anew = open_worker(l, 1);
  settle(l);
  assert_int_equal(anew->core.state, MESSAGING__JOINED);
  CHECK_TAKE(anew, 1);
  free_net(l);
}

/* A worker and the supervisor leave at the same time: each is answered, and no answer is answered. */
static void test_both_leave(void **state) {
  (void)state;
  net *l = joined(1);
  messaging__worker_leave(&l->ends[1].core, l->now);
  messaging__worker_pump(&l->ends[1].core, l->now);
  messaging__im_leave(&l->im, l->now);
  memset(l->sent_up, 0, sizeof l->sent_up);
  memset(l->sent_down, 0, sizeof l->sent_down);
  pass(l, 400);
  assert_true(l->sent_up[MESSAGING__REPORT] > 0 && l->sent_up[MESSAGING__REPORT] <= 8);
  assert_true(l->sent_down[MESSAGING__STATUS] <= 8);
  assert_int_equal(l->ends[1].core.state, MESSAGING__OVER);
  free_net(l);
}

static void speak(net *l, const messaging__peer *peer, uint64_t position) {
  messaging__writer writer;
  messaging__frame_begin(&writer, NULL, 'U', MESSAGING__REPORT, &l->im.era);
  messaging__put_tag(&writer, 0x97);
  messaging__put_int(&writer, peer->who.id);
  messaging__put_uint(&writer, peer->who.nonce);
  messaging__put_uint(&writer, position);
  for (int i = 0; i < 3; i++) messaging__put_uint(&writer, 0); /* probe, flags, credit */
  messaging__put_tag(&writer, 0x90);
  messaging__im_receive(&l->im, (messaging__slice){NULL, writer.bytes, writer.size}, l->now);
}

static void send_one(net *l, const messaging__peer *peer, uint32_t size) {
  uint8_t frame[MESSAGING__AT_PAYLOAD + 1000] = {0};
  messaging__batch batch = {MESSAGING__RELAY, peer->who.id, peer->who.kind, peer->who.nonce, 1, 1, 1, 0, size, {0, 0, 0}};
  assert_true(size <= 1000);
  messaging__batch_write(frame, &l->im.era, &batch);
  frame[MESSAGING__AT_PAYLOAD] = 1;
  messaging__im_receive(&l->im, (messaging__slice){NULL, frame, MESSAGING__AT_PAYLOAD + size}, l->now);
}

static size_t count_blocked(const net *l) {
  size_t count = 0;
  for (size_t i = 0; i < l->im.peers.count; i++) count += messaging__im_peer(&l->im, i)->blocked;
  return count;
}

/* With many workers room is looked for at a rate, and once more when that was put off: the windows open, the supervisor's own goes out, and nothing
 * is looked for when nothing has happened. */
static void test_many_blocked(void **state) {
  (void)state;
  enum { MANY = 600, SENDERS = 400 };
  net *l = new_net();
  l->options.history_bytes_max = 8000;
  open_im(l);
  run(l, 0);
  for (pid_t id = -1; id >= -MANY; id--) {
    assert_int_equal(messaging__im_add(&l->im, (messaging_child){id, 7}, l->now), MESSAGING_OK);
    speak(l, announce(l, id), 1);
  }
  assert_int_equal(l->im.joined, MANY);
  for (uint32_t i = 1; i <= 12; i++) assert_int_equal(put(&l->ends[0], MESSAGING__RELAY, i, 900), MESSAGING_OK), messaging__im_pump(&l->im, l->now);
  assert_false(messaging__outbox_empty(&l->ends[0].outbox));
  for (size_t i = 0; i < SENDERS; i++) send_one(l, messaging__im_peer(&l->im, i), 1);
  size_t blocked = count_blocked(l); /* a few found room for their little */
  assert_in_range(blocked, SENDERS - 20, SENDERS);
  pass(l, 100);
  assert_int_equal(count_blocked(l), blocked);
  uint64_t next = messaging__im_next(&l->im), looked = l->im.needed_at;
  for (size_t i = 0; i < MANY; i++) {
    speak(l, messaging__im_peer(&l->im, i), next);
    messaging__im_pump(&l->im, l->now);
    assert_true(messaging__im_deadline(&l->im, l->now) <= l->now + MANY);
  }
  assert_true(l->im.needed_at <= looked + MANY / MESSAGING__LOOK_RATE + 100);
  for (int i = 0; i < 20; i++) take(&l->ends[0]), pass(l, 10);
  assert_int_equal(count_blocked(l), 0);
  assert_true(messaging__outbox_empty(&l->ends[0].outbox));
  free_net(l);
}

/* What a dead worker had sent is taken if there is room. If not, nobody need make room for it any more, since it will not be sent again. */
static void test_dead_are_not_blocked(void **state) {
  (void)state;
  net *l = small_history(false);
  messaging__peer *peer = messaging__im_peer(&l->im, 1);
  for (uint32_t i = 1; i <= 20; i++) assert_int_equal(put(&l->ends[0], MESSAGING__RELAY, i, 900), MESSAGING_OK), settle(l);
  assert_false(messaging__outbox_empty(&l->ends[0].outbox)); /* the history is full */
  messaging__im_dead(&l->im, peer);
  uint64_t refused = l->im.stats.refused, next = messaging__im_next(&l->im);
  send_one(l, peer, 1000);
  assert_int_equal(l->im.stats.refused, refused + 1);
  assert_int_equal(messaging__im_next(&l->im), next);
  assert_int_equal(count_blocked(l), 0);
  assert_int_equal(l->im.blocked.count, 0);
  free_net(l);
}

static void test_wrong_kind(void **state) {
  (void)state;
  net *l = joined(0);
  messaging_child list[] = {{101, 7}};
  assert_int_equal(messaging__im_update(&l->im, list, 1, l->now), MESSAGING_OK);
  end *e = open_as(l, 1, 101, 8);
  settle(l);
  assert_int_equal(e->core.state, MESSAGING__OVER);
  assert_int_equal(e->inbox.cause, MESSAGING_EKIND);
  assert_int_equal(count_reports(&l->ends[0], MESSAGING_EKIND), 1);
  l->now += 10;
  end *right = open_as(l, 2, 101, 7);
  settle(l);
  assert_int_equal(right->core.state, MESSAGING__JOINED);
  free_net(l);
}

/* A supervisor of another version refuses with its own: the worker ends with that cause instead of announcing itself for ever. What else it sends
 * is reported and not looked at. */
static void test_other_version(void **state) {
  (void)state;
  net *l = new_net();
  open_im(l);
  run(l, 0);
  end *e = open_worker(l, 1);
  messaging__writer writer;
  for (int refuses = 0; refuses < 2; refuses++) {
    messaging__frame_begin(&writer, &e->who, 0, refuses ? MESSAGING__REFUSE : MESSAGING__WELCOME, &l->im.era);
    writer.bytes[MESSAGING__TOPIC_SIZE] = MESSAGING_WIRE_VERSION + 1;
    messaging__put_tag(&writer, 0x91);
    messaging__put_uint(&writer, MESSAGING_EVERSION);
    messaging__worker_receive(&e->core, (messaging__slice){NULL, writer.bytes, writer.size}, l->now);
    assert_int_equal(e->core.state, refuses ? MESSAGING__OVER : MESSAGING__ANNOUNCING);
    assert_int_equal(count_reports(e, MESSAGING_EVERSION), 1 + refuses);
    assert_int_equal(e->core.stats.malformed, 0);
  }
  assert_int_equal(e->inbox.cause, MESSAGING_EVERSION);
  free_net(l);
}

static void test_other_message_limit(void **state) {
  (void)state;
  net *l = joined(0);
  messaging_child list[] = {{101, 7}};
  assert_int_equal(messaging__im_update(&l->im, list, 1, l->now), MESSAGING_OK);
  l->options.message_bytes_max = 2000;
  end *e = open_worker(l, 1);
  settle(l);
  assert_true(e->core.state == MESSAGING__OVER && e->inbox.cause == MESSAGING_EINVAL);
  free_net(l);
}

/* Silence is death only where no pidfd watches; who speaks again is back, and is told what was cut meanwhile. */
static void test_silence(void **state) {
  (void)state;
  net *l = new_net();
  l->options.history_bytes_max = 8192;
  open_im(l);
  messaging_child list[] = {{101, 7}, {-2, 7}};
  assert_int_equal(messaging__im_run(&l->im, list, 2, l->now), MESSAGING_OK);
  end *e = open_worker(l, 1), *far = open_as(l, 2, -2, 7);
  settle(l);
  e->mute = e->deaf = far->mute = far->deaf = true;
  pass(l, 6000);
  assert_int_equal(count_reports(&l->ends[0], MESSAGING_ELOST), 1);
  e->mute = e->deaf = false;
  pass(l, 3000);
  for (uint32_t i = 1; i <= 30; i++) {
    assert_int_equal(put(e, MESSAGING__RELAY, i, 900), MESSAGING_OK);
    pass(l, 100);
    take(&l->ends[0]);
  }
  uint64_t first = l->im.inbox->log.first;
  assert_true(l->im.inbox->log.next == 31 && first > 1);
  far->mute = far->deaf = false;
  pass(l, 3000);
  check_gap(&l->ends[0], -2, 1, first - 1);
  check_gap(far, 0, 1, first - 1);
  received r = take(far);
  assert_int_equal(r.count, 31 - first);
  free_net(l);
}

/* A worker cannot tell a supervisor that is gone from one that is cut off: it shows termination, goes on, and takes it back. */
static void test_silent_supervisor(void **state) {
  (void)state;
  net *l = joined(2);
  end *e = &l->ends[1], *other = &l->ends[2];
  e->core.watched = false;
  e->mute = e->deaf = true;
  tell(e, 1);
  pass(l, 6000);
  assert_true(e->inbox.terminated && !e->inbox.ended);
  assert_int_equal(count_reports(e, MESSAGING_ELOST), 1);
  pass(l, 6000);
  assert_int_equal(count_reports(e, MESSAGING_ELOST), 1);
  tell(other, 2);
  pass(l, 1000);
  e->mute = e->deaf = false;
  pass(l, 5000);
  assert_false(e->inbox.terminated);
  CHECK_TAKE(e, 2);
  CHECK_TAKE(other, 1);
  assert_true(messaging__worker_flushed(&e->core));
  messaging__im_term(&l->im, &l->im.self, l->now);
  pass(l, 5000);
  assert_true(e->inbox.terminated && l->im.peers.count == 2);
  assert_int_equal(count_reports(e, MESSAGING_ELOST), 1);
  free_net(l);
}

/* Connections that bring nothing, or take nothing anywhere, are made anew; those that are only idle are not. */
static void test_useless_connections(void **state) {
  (void)state;
  net *l = joined(1);
  messaging__worker *core = &l->ends[1].core;
  pass(l, 30000);
  assert_false(core->renew);
  l->ends[1].mute = true;
  tell(&l->ends[1], 1);
  pass(l, LEISURE_MS + 4000);
  assert_false(core->renew);
  pass(l, 2000);
  assert_true(core->renew); /* heartbeats come, and no answer */
  l->ends[1].mute = core->renew = false;
  pass(l, 3000);
  CHECK_TAKE(&l->ends[0], 1);
  l->ends[1].deaf = true;
  pass(l, 3000);
  assert_false(core->renew);
  pass(l, 4000);
  assert_true(core->renew);
  core->renew = l->ends[1].deaf = false;
  pass(l, 30000);
  assert_false(core->renew);
  free_net(l);
}

/* Termination that was asked for is not taken back by a silence. */
static void test_silence_after_termination(void **state) {
  (void)state;
  net *l = joined(1);
  end *e = &l->ends[1];
  e->core.watched = false;
  messaging__im_term(&l->im, &l->im.self, l->now);
  pass(l, 100);
  assert_true(e->inbox.terminated);
  e->mute = e->deaf = true;
  pass(l, 6000);
  assert_int_equal(count_reports(e, MESSAGING_ELOST), 1);
  e->mute = e->deaf = false;
  pass(l, 5000);
  assert_true(e->inbox.terminated);
  free_net(l);
}

/* ---- frames that are none of ours ---- */

/* Frames of another session, generation or incarnation change nothing but a counter. */
static void test_stale_frames(void **state) {
  (void)state;
  net *l = joined(2);
  end *e = &l->ends[1];
  size_t relays = 0;
  tell(e, 1);
  settle(l);
  take(&l->ends[0]);
  for (size_t i = 0; i < l->captured_count; i++) {
    messaging__slice frame = messaging__slice_of(l->captured[i]);
    bool to_all = is_batch(frame) || frame.data[1] == 0xa1;
    size_t session = is_batch(frame) ? MESSAGING__AT_SESSION : to_all ? 7 : 24, stale_im = l->im.stats.stale, stale_worker = e->core.stats.stale;
    uint8_t type = type_of(frame);
    if (type == MESSAGING__HELLO) continue;
    frame.data[session] ^= 0x40;
    messaging__im inside = l->im;
    messaging__worker worker = e->core;
    if (l->captured_up[i]) {
      messaging__im_receive(&l->im, frame, l->now);
      assert_int_equal(l->im.stats.stale, stale_im + 1);
      assert_int_equal(messaging__im_next(&l->im), 2);
      assert_int_equal(l->im.joined, inside.joined);
    } else if (to_all || memcmp(frame.data + 4 + 6, &(uint8_t[]){0, 101}, 2) == 0) {
      relays += type == MESSAGING__RELAY;
      messaging__worker_receive(&e->core, frame, l->now);
      assert_int_equal(e->core.stats.stale, stale_worker + 1);
      assert_true(e->core.next == worker.next && e->core.known == worker.known && e->core.window == worker.window);
    }
    frame.data[session] ^= 0x40;
  }
  assert_int_equal(count_reports(&l->ends[0], MESSAGING_EBADMSG), 0);
  assert_int_equal(count_reports(e, MESSAGING_EBADMSG), 0);
  assert_int_equal(relays, 1);
  settle(l);
  CHECK_NONE(&l->ends[0]);
  free_net(l);
}

/* A net over which frames of every type have passed. */
static net *well_travelled(void) {
  net *l = joined(2);
  tell(&l->ends[1], 1);
  assert_int_equal(put(&l->ends[1], MESSAGING__OUTPUT, 2, 5), MESSAGING_OK);
  settle(l);
  tell_unheard(l, &l->ends[1], 3, &l->ends[2]);
  tell(&l->ends[1], 4);
  pass(l, 3000);
  assert_int_equal(put(&l->ends[1], MESSAGING__OUTPUT, 5, 5), MESSAGING_OK); /* acknowledged by a status */
  pass(l, 100);
  open_as(l, 3, 102, 8);
  pass(l, 100);
  return l;
}

/* Every frame, cut at every byte, is counted as malformed and changes nothing; so is one with a byte too many. */
static void test_truncated_frames(void **state) {
  (void)state;
  net *l = well_travelled();
  bool seen[TYPES] = {false};
  messaging__im *im = &l->im;
  for (size_t i = 0; i < l->captured_count; i++) {
    const messaging__buffer *whole = l->captured[i];
    seen[type_of(messaging__slice_of(l->captured[i]))] = true;
    for (size_t size = 0; size <= whole->size + 1; size++) {
      if (size == whole->size) continue;
      uint8_t *bytes = calloc(1, size ? size : 1);
      assert_non_null(bytes);
      memcpy(bytes, whole->data, size < whole->size ? size : whole->size);
      messaging__slice frame = {NULL, bytes, size};
      for (size_t to = 0; to <= 2; to++) {
        end *e = &l->ends[to];
        uint64_t malformed = to ? e->core.stats.malformed : im->stats.malformed, next = to ? e->core.next : messaging__im_next(im);
        if ((to == 0) != l->captured_up[i]) continue;
        if (to) messaging__worker_receive(&e->core, frame, l->now);
        else messaging__im_receive(im, frame, l->now);
        uint64_t refused = (to ? e->core.stats.malformed : im->stats.malformed) - malformed;
        assert_true(refused == 1 || whole->data[1] == 0xc4); /* a frame that another worker is meant by is not even looked at */
        assert_true((to ? e->core.next : messaging__im_next(im)) == next);
        e->report_count = 0;
      }
      free(bytes);
    }
  }
  for (int type = 1; type < TYPES; type++)
    if (!seen[type]) fail_msg("no frame of type %d passed", type);
  free_net(l);
}

/* Random damage: nothing crashes, and no queue passes its limit. Meant for the sanitizers. */
static void test_damaged_frames(void **state) {
  (void)state;
  uint64_t seed = 1;
  for (int round = 0; round < 300; round++) {
    net *l = well_travelled();
    size_t count = l->captured_count;
    for (int hit = 0; hit < 100; hit++) {
      seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
      size_t i = (size_t)(seed >> 33) % count;
      messaging__buffer *copy = copy_of(messaging__slice_of(l->captured[i]));
      for (uint64_t flips = 1 + (seed >> 20) % 3; flips; flips--) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        copy->data[(size_t)(seed >> 33) % copy->size] ^= (uint8_t)(1u << (seed >> 30 & 7));
      }
      messaging__slice frame = {NULL, copy->data, copy->size};
      if (l->captured_up[i]) messaging__im_receive(&l->im, frame, l->now);
      else messaging__worker_receive(&l->ends[1 + i % 2].core, frame, l->now);
      messaging__buffer_drop(copy);
      for (size_t to = 0; to <= WORKERS_MAX; to++) l->ends[to].report_count = 0;
    }
    messaging__im_pump(&l->im, l->now);
    assert_true(l->ends[0].inbox.bytes <= l->ends[0].inbox.bytes_max && l->im.inbox->log.bytes <= l->im.inbox->log.bytes_max);
    free_net(l);
  }
}

/* Announcements of workers that nobody lists are kept up to a bound; beyond it the oldest is dropped, which is safe since it is said again. */
static void test_many_announcements(void **state) {
  (void)state;
  net *l = joined(1);
  for (uint32_t i = 0; i <= MESSAGING__PARKED_MAX; i++) {
    messaging__writer writer;
    messaging__who who = {-1000 - (pid_t)i, 7, 5000 + i};
    messaging__frame_begin(&writer, NULL, 'U', MESSAGING__HELLO, NULL);
    messaging__put_tag(&writer, 0x94);
    messaging__put_who(&writer, &who);
    messaging__put_uint(&writer, l->options.message_bytes_max);
    messaging__im_receive(&l->im, (messaging__slice){NULL, writer.bytes, writer.size}, l->now);
  }
  assert_int_equal(l->im.parked.count, MESSAGING__PARKED_MAX);
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){-1001, 7}, l->now), MESSAGING_OK);
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){-1000, 7}, l->now), MESSAGING_OK);
  assert_int_equal(l->im.parked.count, MESSAGING__PARKED_MAX - 1);
  size_t peers = l->im.peers.count;
  assert_true(messaging__im_peer(&l->im, peers - 2)->state == MESSAGING__ACTIVE && messaging__im_peer(&l->im, peers - 1)->state == MESSAGING__LISTED);
  free_net(l);
}

/* An id that is on the list is not added again, unless its process has died, also when nobody has noticed that yet. */
static void test_add_again(void **state) {
  (void)state;
  net *l = joined(2);
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){-5, 7}, l->now), MESSAGING_OK);
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){-5, 7}, l->now), MESSAGING_EINVAL);
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){101, 7}, l->now), MESSAGING_EINVAL);
  l->ends[1].dead = true;
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){101, 7}, l->now), MESSAGING_OK);
  assert_int_equal(count_reports(&l->ends[0], MESSAGING_ELOST), 2); /* as it was, and as it is listed: it is dead still */
  assert_int_equal(l->im.live, 2);
  l->ends[1].dead = false;
  assert_int_equal(messaging__im_add(&l->im, (messaging_child){101, 7}, l->now), MESSAGING_OK);
  assert_int_equal(l->im.live, 3);
  free_net(l);
}

/* What every downward frame ends with, cut off or of no generation: skipped, and nothing is taken of it. */
static void test_damaged_news(void **state) {
  (void)state;
  net *l = joined(1);
  end *e = &l->ends[1];
  messaging__era none = e->core.era;
  messaging__who other = {102, 7, 77};
  none.generation = 0;
  for (int what = 0; what < 4; what++) {
    messaging__writer writer;
    uint64_t malformed = e->core.stats.malformed;
    if (what == 2) e->core.state = MESSAGING__ANNOUNCING;
    messaging__frame_begin(&writer, what == 2 ? &e->who : NULL, 'B', what == 2 ? MESSAGING__WELCOME : MESSAGING__HEARTBEAT, what == 2 ? &none : &e->core.era);
    messaging__put_tag(&writer, what == 2 ? 0x9c : 0x98);
    for (int i = 0; i < (what == 2 ? 4 : 0); i++) messaging__put_uint(&writer, 1); /* slot, expected, window, probe */
    messaging__put_uint(&writer, what == 3 ? 0 : 1);                              /* next, which is never 0 */
    messaging__put_uint(&writer, what == 3 ? 0 : 1);
    for (int i = 0; i < 5; i++) messaging__put_uint(&writer, 0); /* run, ack_ms, flags */
    messaging__put_tag(&writer, what < 2 ? 0x91 : 0x90);
    if (what < 2) {
      messaging__put_tag(&writer, 0x93);
      messaging__put_who(&writer, &other);
    }
    messaging__worker_receive(&e->core, (messaging__slice){NULL, writer.bytes, writer.size - (what == 0)}, l->now);
    if (what == 2) e->core.state = MESSAGING__JOINED;
    assert_int_equal(e->core.stats.malformed, malformed + (what != 1));
    assert_int_equal(e->inbox.terminated, what >= 1);
  }
  assert_int_equal(e->core.era.generation, 1);
  free_net(l);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_join),
      cmocka_unit_test(test_join_with_loss),
      cmocka_unit_test(test_join_by_subscription),
      cmocka_unit_test(test_late_join),
      cmocka_unit_test(test_own_told_by_status),
      cmocka_unit_test(test_own_now_and_then),
      cmocka_unit_test(test_own_told_by_another),
      cmocka_unit_test(test_own_told_by_heartbeat),
      cmocka_unit_test(test_own_heard),
      cmocka_unit_test(test_own_behind_a_gap),
      cmocka_unit_test(test_own_told_and_lost),
      cmocka_unit_test(test_own_left_out_of_repairs),
      cmocka_unit_test(test_own_at_the_end_of_a_repair),
      cmocka_unit_test(test_false_runs),
      cmocka_unit_test(test_run_over_another),
      cmocka_unit_test(test_slot_changes),
      cmocka_unit_test(test_slots),
      cmocka_unit_test(test_many_are_owed),
      cmocka_unit_test(test_output),
      cmocka_unit_test(test_gap_and_repair),
      cmocka_unit_test(test_repair_with_loss),
      cmocka_unit_test(test_tail),
      cmocka_unit_test(test_acknowledged_by_heartbeats),
      cmocka_unit_test(test_acknowledged_by_bytes),
      cmocka_unit_test(test_large_batches_acknowledged_at_once),
      cmocka_unit_test(test_flush_asks),
      cmocka_unit_test(test_cut_off),
      cmocka_unit_test(test_ranges_within_a_batch),
      cmocka_unit_test(test_lost_upwards),
      cmocka_unit_test(test_sent_again_once_in_a_round_trip),
      cmocka_unit_test(test_opening_is_lost),
      cmocka_unit_test(test_window),
      cmocka_unit_test(test_full_inbox),
      cmocka_unit_test(test_history_in_haste),
      cmocka_unit_test(test_history_held_by_a_pause),
      cmocka_unit_test(test_full_history_refuses),
      cmocka_unit_test(test_full_history_fences),
      cmocka_unit_test(test_full_history_fences_the_supervisor),
      cmocka_unit_test(test_terminate_by_worker),
      cmocka_unit_test(test_terminate_by_supervisor),
      cmocka_unit_test(test_terminate_one_that_joins),
      cmocka_unit_test(test_silent_twice),
      cmocka_unit_test(test_worker_leaves),
      cmocka_unit_test(test_supervisor_leaves),
      cmocka_unit_test(test_update_with_survivors),
      cmocka_unit_test(test_struck_learns_late),
      cmocka_unit_test(test_update_without_survivors),
      cmocka_unit_test(test_late_announcement_of_a_struck_worker),
      cmocka_unit_test(test_death),
      cmocka_unit_test(test_reused_pid),
      cmocka_unit_test(test_second_claimant),
      cmocka_unit_test(test_claimed_nonce),
      cmocka_unit_test(test_two_announcements),
      cmocka_unit_test(test_late_announcement_of_the_dead),
      cmocka_unit_test(test_heir_waits),
      cmocka_unit_test(test_left_out_and_listed_again),
      cmocka_unit_test(test_both_leave),
      cmocka_unit_test(test_many_blocked),
      cmocka_unit_test(test_dead_are_not_blocked),
      cmocka_unit_test(test_wrong_kind),
      cmocka_unit_test(test_other_version),
      cmocka_unit_test(test_other_message_limit),
      cmocka_unit_test(test_silence),
      cmocka_unit_test(test_silent_supervisor),
      cmocka_unit_test(test_useless_connections),
      cmocka_unit_test(test_silence_after_termination),
      cmocka_unit_test(test_stale_frames),
      cmocka_unit_test(test_truncated_frames),
      cmocka_unit_test(test_damaged_frames),
      cmocka_unit_test(test_many_announcements),
      cmocka_unit_test(test_add_again),
      cmocka_unit_test(test_damaged_news),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
