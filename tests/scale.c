/*
 * scale.c - what a supervisor and N workers cost, for N up to 10,000, on the protocol core that ships
 *
 * One supervisor's and N workers' state machines in simulated time, over links that lose nothing and take LINK_MS each way. No thread, no
 * socket: frames and bytes are counted, not estimated; processor time is that of the supervisor's core alone, measured around its calls
 * (what libzmq and the kernel take for each copy comes on top). A step of the supervisor takes up to MESSAGING__STEP_FRAMES frames, as in the shell.
 *
 *     scale [N...]        the table, a column for each N; default 2 10 100 1000 10000
 *
 * Each row says how it may grow: not at all, or with N. A figure that grew faster from one column to the next is marked with "!", and the
 * last line counts them. Counts decide by themselves; times are marked only when far beyond, and never decide the exit status.
 */
#include <malloc.h>
#include <stdlib.h>

static size_t *memory_of; /* whose memory is counted; NULL: nobody's */

static void *counted(void *pointer) {
  if (pointer && memory_of) *memory_of += malloc_usable_size(pointer);
  return pointer;
}

static void counted_free(void *pointer) {
  if (pointer && memory_of) *memory_of -= malloc_usable_size(pointer);
  free(pointer);
}

static void *counted_realloc(void *pointer, size_t size) {
  if (pointer && memory_of) *memory_of -= malloc_usable_size(pointer);
  return counted(realloc(pointer, size));
}

#define MESSAGING_MALLOC(size) counted(malloc(size))
#define MESSAGING_REALLOC(pointer, size) counted_realloc(pointer, size)
#define MESSAGING_FREE(pointer) counted_free(pointer)
#include "../messaging.h"

#include <inttypes.h>

enum { LINK_MS = 1, KIND = 1, TEXT = 62, COLUMNS_MAX = 8, TO_ALL = -1 };

/* ---- the world ---- */

typedef struct {
  uint64_t at;
  int peer; /* from or to; TO_ALL */
  size_t size;
  uint8_t bytes[];
} packet;

typedef struct {
  messaging__outbox outbox;
  messaging__inbox inbox;
  messaging__worker core;
  uint64_t wake_at, received; /* received: the last number that its application got */
  uint64_t taken, said;       /* messages that it got, and sent */
  bool cut, dirty;
} node;

/* What went over the links since the last look. */
typedef struct {
  uint64_t up, up_bytes, peak;                      /* peak: the most in one millisecond */
  uint64_t down, copies, copies_bytes, singles, singles_bytes; /* down: frames published; copies: one for each who gets it; singles: to one alone */
  uint64_t up_busy, up_busy_at;                     /* of the millisecond that goes on */
  double cpu_us;
} traffic;

static struct {
  int count;
  node *nodes;
  messaging_options options;
  messaging__im im;
  messaging__outbox outbox;
  messaging__inbox inbox;
  uint64_t now, wake_at, reports, died_asked, said;
  messaging__ring up, down; /* of packet * */
  traffic traffic;
  size_t im_bytes;
  double clock_us; /* what reading the processor's clock takes */
  bool watched;
  bool (*after_step)(void);
} w;

static void give_up(const char *what) {
  fprintf(stderr, "scale: %s\n", what);
  exit(2);
}

static double cpu_now_us(void) {
  struct timespec t;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) != 0) give_up("no processor clock");
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double im_begins(void) {
  memory_of = &w.im_bytes;
  return cpu_now_us();
}

static void im_ended(double began) {
  double took = cpu_now_us() - began - w.clock_us;
  memory_of = NULL;
  w.traffic.cpu_us += took > 0 ? took : 0;
}

static void put_packet(messaging__ring *ring, int peer, messaging__slice frame) {
  size_t *before = memory_of;
  memory_of = NULL;
  packet *p = malloc(sizeof *p + frame.size);
  if (!p) give_up("no memory");
  p->at = w.now + LINK_MS;
  p->peer = peer;
  p->size = frame.size;
  memcpy(p->bytes, frame.data, frame.size);
  if (!messaging__ring_push(ring, &p)) give_up("no memory");
  memory_of = before;
}

static bool is_batch(const uint8_t *frame) { return frame[1] == 0xa1 + MESSAGING__LETTERS; }

/* Whose batch it is, if he has left its topic out of his subscriptions; -1: everybody hears it. */
static int deaf_to(const uint8_t *frame) {
  static const uint8_t nobodys[MESSAGING__LETTERS] = {'0', '0', '0', '0', '0', '0'};
  if (!is_batch(frame) || memcmp(frame + MESSAGING__AT_LETTERS, nobodys, sizeof nobodys) == 0) return -1;
  uint8_t letters[MESSAGING__LETTERS];
  int sender = (int)-(int64_t)messaging__load_be(frame + MESSAGING__AT_ID, 8) - 1;
  if (sender < 0 || sender >= w.count) return -1;
  messaging__put_letters(letters, w.nodes[sender].core.slot);
  return memcmp(frame + MESSAGING__AT_LETTERS, letters, sizeof letters) == 0 ? sender : -1;
}

static bool im_sends(void *self, messaging__slice frame) {
  (void)self;
  bool to_all = is_batch(frame.data) || frame.data[1] == 0xa1;
  uint64_t hearers = (uint64_t)w.count - (deaf_to(frame.data) >= 0);
  int peer = to_all ? TO_ALL : (int)-(int64_t)messaging__load_be(frame.data + 4, 8) - 1;
  if (peer >= w.count) return true; /* to somebody who is not there: nobody subscribed */
  w.traffic.down++;
  w.traffic.copies += to_all ? hearers : 1;
  w.traffic.copies_bytes += frame.size * (to_all ? hearers : 1);
  w.traffic.singles += !to_all;
  w.traffic.singles_bytes += to_all ? 0 : frame.size;
  put_packet(&w.down, peer, frame);
  return true;
}

static bool worker_sends(void *self, messaging__slice frame) {
  const node *n = self;
  if (!n->cut) put_packet(&w.up, (int)(n - w.nodes), frame);
  return true;
}

static void count_report(void *self, const messaging_error *error) {
  (void)self;
  (void)error;
  w.reports++;
}

static int no_watch(void *self, pid_t id) {
  (void)self;
  (void)id;
  return w.watched ? 0 : MESSAGING__UNWATCHED;
}

static void no_unwatch(void *self, int watch) {
  (void)self;
  (void)watch;
}

static bool not_died(void *self, int watch) {
  (void)self;
  (void)watch;
  w.died_asked++;
  return false;
}

/* ---- time ---- */

static packet *front(messaging__ring *ring) { return ring->count ? *(packet **)messaging__ring_at(ring, 0) : NULL; }

static void drop_front(messaging__ring *ring) {
  free(front(ring));
  messaging__ring_pop(ring);
}

static void count_up(const packet *p) {
  if (w.traffic.up_busy_at != w.now) w.traffic.up_busy = 0;
  w.traffic.up_busy_at = w.now;
  if (++w.traffic.up_busy > w.traffic.peak) w.traffic.peak = w.traffic.up_busy;
  w.traffic.up++;
  w.traffic.up_bytes += p->size;
}

/* One step of the supervisor: some frames, then what is due. */
static void im_step(void) {
  packet *taken[MESSAGING__STEP_FRAMES];
  int count = 0;
  for (packet *p; count < MESSAGING__STEP_FRAMES && (p = front(&w.up)) != NULL && p->at <= w.now; messaging__ring_pop(&w.up)) {
    count_up(p);
    taken[count++] = p;
  }
  double began = im_begins();
  for (int i = 0; i < count; i++) messaging__im_receive(&w.im, (messaging__slice){NULL, taken[i]->bytes, taken[i]->size}, w.now);
  messaging__im_pump(&w.im, w.now);
  w.wake_at = messaging__im_deadline(&w.im, w.now);
  im_ended(began);
  for (int i = 0; i < count; i++) free(taken[i]);
  if (w.after_step) w.after_step();
}

static void im_application(void) {
  messaging__item item;
  memory_of = &w.im_bytes;
  while (messaging__inbox_next(&w.inbox, &item)) messaging__buffer_drop(item.frame.owner);
  memory_of = NULL;
}

static void im_turn(void) {
  for (int steps = 0; w.wake_at <= w.now || (front(&w.up) && front(&w.up)->at <= w.now); steps++) {
    if (steps > 1000000) give_up("the supervisor never sleeps");
    im_step();
  }
  im_application();
}

static void give(node *n, const packet *p) {
  if (n->cut) return;
  messaging__worker_receive(&n->core, (messaging__slice){NULL, (uint8_t *)(uintptr_t)p->bytes, p->size}, w.now);
  n->dirty = true;
}

static void node_application(node *n) {
  messaging__item item;
  while (messaging__inbox_next(&n->inbox, &item)) {
    if (item.batch.position <= n->received) give_up("a message came twice, or out of order");
    n->received = item.batch.position + item.batch.count - 1;
    n->taken += item.batch.count;
    messaging__buffer_drop(item.frame.owner);
  }
}

static void nodes_turn(void) {
  for (packet *p; (p = front(&w.down)) != NULL && p->at <= w.now; drop_front(&w.down)) {
    if (p->peer != TO_ALL) give(&w.nodes[p->peer], p);
    else
      for (int i = 0, deaf = deaf_to(p->bytes); i < w.count; i++)
        if (i != deaf) give(&w.nodes[i], p);
  }
  for (node *n = w.nodes; n < w.nodes + w.count; n++) {
    if (!n->dirty && n->wake_at > w.now) continue;
    node_application(n);
    messaging__worker_pump(&n->core, w.now);
    n->wake_at = messaging__worker_deadline(&n->core, w.now);
    n->dirty = false;
  }
}

static uint64_t next_event(void) {
  uint64_t at = w.wake_at;
  if (front(&w.up)) at = messaging__earlier(at, front(&w.up)->at);
  if (front(&w.down)) at = messaging__earlier(at, front(&w.down)->at);
  for (int i = 0; i < w.count; i++) at = messaging__earlier(at, w.nodes[i].wake_at);
  return at;
}

static void run_until(uint64_t until) {
  while (w.now < until) {
    w.now = messaging__later(w.now + 1, messaging__earlier(next_event(), until));
    im_turn();
    nodes_turn();
  }
}

/* Runs until a condition holds; the milliseconds that it took. */
static uint64_t run_for(bool (*done)(void)) {
  uint64_t began = w.now;
  while (!done()) {
    if (w.now > began + 120000) give_up("something never became true");
    run_until(messaging__later(w.now + 1, next_event()));
  }
  return w.now - began;
}

/* ---- worlds ---- */

static int encode(msgpack_packer *pk, const void *message) {
  const size_t *size = message;
  static const char text[1024];
  return msgpack_pack_bin(pk, *size) | msgpack_pack_bin_body(pk, text, *size);
}

/* A node sends so many messages, which go out as its window allows. */
static void say(node *n, int messages, size_t size) {
  bool urgent;
  for (int i = 0; i < messages; i++)
    if (messaging__outbox_put(&n->outbox, MESSAGING__RELAY, encode, &size, &urgent) != MESSAGING_OK) give_up("a message was not taken");
  w.said += (uint64_t)messages;
  n->said += (uint64_t)messages;
  n->dirty = true;
  nodes_turn();
}

static void open_nodes(int first, int count) {
  for (int i = first; i < count; i++) {
    node *n = &w.nodes[i];
    messaging__who who = {-1 - i, KIND, (uint64_t)(2 * i + 3)};
    messaging__port port = {n, worker_sends, count_report, no_watch, no_unwatch, not_died};
    bool made = messaging__outbox_init(&n->outbox, w.options.outbox_bytes_max, w.options.message_bytes_max) &&
                messaging__inbox_init(&n->inbox, w.options.inbox_bytes_max);
    if (!made) give_up("no memory");
    messaging__worker_init(&n->core, &port, &n->outbox, &n->inbox, &who, &w.options, w.now);
    n->wake_at = w.now;
  }
}

static messaging_child *children_from(int first, int count) {
  messaging_child *children = malloc((size_t)(count + 1) * sizeof *children);
  if (!children) give_up("no memory");
  for (int i = 0; i < count; i++) children[i] = (messaging_child){-1 - first - i, KIND};
  return children;
}

/* A supervisor that lists some of the nodes; all of them begin to announce themselves. */
static void open_world(int nodes, int listed, uint32_t heartbeat_ms, size_t message_max, size_t history_max) {
  static const uint8_t session[16] = {1};
  messaging_options given = {.heartbeat_ms = heartbeat_ms, .silence_ms = 180000, .message_bytes_max = message_max, .history_bytes_max = history_max};
  double clock_us = w.clock_us;
  memset(&w, 0, sizeof w);
  w.clock_us = clock_us;
  w.now = 1000;
  w.count = nodes;
  w.nodes = calloc((size_t)nodes, sizeof *w.nodes);
  messaging_child *children = children_from(0, listed);
  if (!w.nodes || messaging__fill_options(&given, &w.options) != MESSAGING_OK) give_up("no memory, or false options");
  messaging__ring_init(&w.up, sizeof(packet *));
  messaging__ring_init(&w.down, sizeof(packet *));
  memory_of = &w.im_bytes;
  messaging__who self = {1, MESSAGING_SUPERVISOR, 1};
  messaging__port port = {NULL, im_sends, count_report, no_watch, no_unwatch, not_died};
  if (!messaging__outbox_init(&w.outbox, w.options.outbox_bytes_max, w.options.message_bytes_max) ||
      !messaging__inbox_init(&w.inbox, w.options.inbox_bytes_max))
    give_up("no memory");
  messaging__im_init(&w.im, &port, &w.outbox, &w.inbox, &self, session, &w.options);
  if (messaging__im_run(&w.im, children, (size_t)listed, w.now) != MESSAGING_OK) give_up("the supervisor does not run");
  memory_of = NULL;
  free(children);
  w.wake_at = w.now;
  open_nodes(0, nodes);
  nodes_turn();
}

static void close_world(void) {
  for (int i = 0; i < w.count; i++) {
    messaging__worker_free(&w.nodes[i].core);
    messaging__outbox_free(&w.nodes[i].outbox);
    messaging__inbox_free(&w.nodes[i].inbox);
  }
  memory_of = &w.im_bytes;
  messaging__im_free(&w.im);
  messaging__outbox_free(&w.outbox);
  messaging__inbox_free(&w.inbox);
  memory_of = NULL;
  while (front(&w.up)) drop_front(&w.up);
  while (front(&w.down)) drop_front(&w.down);
  messaging__ring_free(&w.up);
  messaging__ring_free(&w.down);
  free(w.nodes);
  if (w.im_bytes != 0) give_up("the supervisor's core lost memory");
}

static bool all_joined(void) { return w.im.joined == w.im.live && w.im.live > 0; }

/* Every application has the messages of all others. */
static bool all_have_all(void) {
  if (messaging__im_next(&w.im) != w.said + 1) return false;
  for (int i = 0; i < w.count; i++)
    if (w.nodes[i].taken + w.nodes[i].said != w.said) return false;
  return true;
}

/* Likewise, the supervisor knows of it, and each sender that its own were accepted. */
static bool all_is_known(void) {
  for (size_t i = 0; i < w.im.peers.count; i++)
    if (messaging__im_peer(&w.im, i)->has != messaging__im_next(&w.im)) return false;
  for (int i = 0; i < w.count; i++)
    if (!messaging__worker_flushed(&w.nodes[i].core) || w.nodes[i].core.next != messaging__im_next(&w.im)) return false;
  return all_have_all();
}

static traffic look(void) {
  traffic seen = w.traffic;
  memset(&w.traffic, 0, sizeof w.traffic);
  return seen;
}

/* ---- what is measured ---- */

typedef enum { FLAT, WITH_N, TIME_FLAT, TIME_WITH_N } growth; /* what a figure may do; the latter two are times of this machine */

#define ROWS(X)                                                                                                            \
  X(JOIN_MS, FLAT, "all start at once: all have joined after, ms")                                                         \
  X(JOIN_UP, FLAT, "  frames up for each worker")                                                                          \
  X(MEMORY, FLAT, "supervisor's core: bytes for each worker")                                                              \
  X(IDLE_UP, WITH_N, "idle, heartbeat 1 s: frames up a second")                                                            \
  X(IDLE_PEAK, WITH_N, "  in the busiest ms")                                                                              \
  X(IDLE_DOWN, FLAT, "  frames published a second")                                                                        \
  X(IDLE_COPIES, WITH_N, "  copies down a second")                                                                         \
  X(IDLE_CPU, TIME_WITH_N, "  supervisor's core, us a second")                                                             \
  X(REST_MS, FLAT, "one relay of 64 B at rest: all have it after, ms")                                                     \
  X(REST_KNOWN, WITH_N, "  the supervisor knows after, ms")                                                                \
  X(REST_UP, WITH_N, "  frames up (acknowledgements)")                                                                     \
  X(REST_PEAK, WITH_N, "  of them in the busiest ms")                                                                      \
  X(REST_UP_BYTES, WITH_N, "  bytes up")                                                                                   \
  X(REST_DOWN, FLAT, "  frames published")                                                                                 \
  X(REST_COPIES, WITH_N, "  copies down")                                                                                  \
  X(REST_BYTES, WITH_N, "  bytes down")                                                                                    \
  X(REST_CPU, TIME_WITH_N, "  supervisor's core, us")                                                                      \
  X(BURST_MS, FLAT, "burst of 10,000 of 64 B by one: all have it after, ms")                                               \
  X(BURST_UP, WITH_N, "  frames up")                                                                                       \
  X(BURST_DOWN, FLAT, "  frames published")                                                                                \
  X(BURST_COPIES, WITH_N, "  copies down")                                                                                 \
  X(BURST_BYTES, WITH_N, "  bytes down")                                                                                   \
  X(BURST_CPU, TIME_WITH_N, "  supervisor's core, us")                                                                     \
  X(STORM_MS, FLAT, "10 each by 100 (or all) at once: all have it after, ms")                                              \
  X(STORM_UP, WITH_N, "  frames up")                                                                                       \
  X(STORM_CPU, TIME_WITH_N, "  supervisor's core, us")                                                                     \
  X(FLUSH_CPU, TIME_WITH_N, "flush after one relay: supervisor's core, us")                                                \
  X(STOPPED_SINGLES, FLAT, "one is stopped, 100 relays a second: frames to single workers a second")                       \
  X(STOPPED_UP, WITH_N, "  frames up a second")                                                                            \
  X(STOPPED_CPU, TIME_WITH_N, "  supervisor's core, us a second")                                                          \
  X(HEAL1_MS, FLAT, "one lost 1 s of 200 relays: healed after, ms")                                                        \
  X(HEAL1_BYTES, FLAT, "  bytes down to single workers")                                                                   \
  X(HEAL10_MS, FLAT, "a tenth lost them: healed after, ms")                                                                \
    X(HEAL10_BYTES, WITH_N, "  bytes down to single workers")                                                              \
  X(HEAL10_CPU, TIME_WITH_N, "  supervisor's core, us")                                                                    \
  X(FULL_UP, WITH_N, "history full, all blocked: frames up a second")                                                      \
  X(FULL_CPU, TIME_WITH_N, "  supervisor's core, us a second")                                                             \
  X(ADD_LOOKS, WITH_N, "added one by one (local): looks at pidfds")                                                        \
  X(ADD_CPU, TIME_WITH_N, "  supervisor's core, us")                                                                       \
  X(UPDATE_CPU, TIME_WITH_N, "a list of N others: supervisor's core, us")                                                  \
  X(TERM_UP, WITH_N, "termination: frames up")                                                                             \
  X(TERM_COPIES, WITH_N, "  copies down")                                                                                  \
  X(LEAVE_DOWN, WITH_N, "goodbye while 2 N announce themselves: frames published")

#define ROW_ENUM(name, may, text) name,
#define ROW_MAY(name, may, text) may,
#define ROW_TEXT(name, may, text) text,
enum { ROWS(ROW_ENUM) ROW_COUNT };
static const growth row_may[] = {ROWS(ROW_MAY)};
static const char *const row_texts[] = {ROWS(ROW_TEXT)};
static double table[ROW_COUNT][COLUMNS_MAX];

/* ---- scenarios, each for one column ---- */

static void idle(int c) {
  enum { SECONDS = 10 };
  look();
  run_until(w.now + SECONDS * 1000);
  traffic t = look();
  table[IDLE_UP][c] = (double)t.up / SECONDS;
  table[IDLE_PEAK][c] = (double)t.peak;
  table[IDLE_DOWN][c] = (double)t.down / SECONDS;
  table[IDLE_COPIES][c] = (double)t.copies / SECONDS;
  table[IDLE_CPU][c] = t.cpu_us / SECONDS;
}

/* One neither hears nor says anything, as when it is stopped, while others work. */
static void stopped(int c) {
  enum { SECONDS = 2 };
  w.nodes[0].cut = true;
  for (int i = 0; i < 500; i++) {
    if (i == 500 - SECONDS * 100) look();
    say(&w.nodes[w.count - 1], 1, TEXT);
    run_until(w.now + 10);
  }
  traffic t = look();
  table[STOPPED_SINGLES][c] = (double)t.singles / SECONDS;
  table[STOPPED_UP][c] = (double)t.up / SECONDS;
  table[STOPPED_CPU][c] = t.cpu_us / SECONDS;
  w.nodes[0].cut = false;
  run_for(all_is_known);
  run_until(w.now + 5000);
}

/* A connection is there again: libzmq subscribes anew. */
static void reconnect(node *n) {
  uint8_t bytes[1 + MESSAGING__TOPIC_SIZE] = {1};
  n->cut = false;
  messaging__topic_of(bytes + 1, &n->core.self);
  messaging__im_subscribed(&w.im, bytes, sizeof bytes);
  w.wake_at = w.now;
}

/* The first ones are cut off for a second, in which another sends (with two workers, the first of the second half). */
static uint64_t lose_a_second(int losers, traffic *healing) {
  node *sender = &w.nodes[w.count - 1];
  for (int i = 0; i < losers; i++) w.nodes[i].cut = true;
  for (int i = 0; i < 200; i++) {
    say(sender, 1, TEXT);
    if (i == 100) say(&w.nodes[0], 1, TEXT);
    run_until(w.now + 5);
  }
  look();
  for (int i = 0; i < losers; i++) reconnect(&w.nodes[i]);
  uint64_t took = run_for(all_have_all);
  run_for(all_is_known);
  *healing = look();
  return took;
}

static void everyday(int n, int c) {
  traffic t;
  open_world(n, n, 1000, 0, 0);
  table[JOIN_MS][c] = (double)run_for(all_joined);
  t = look();
  table[JOIN_UP][c] = (double)t.up / n;
  table[MEMORY][c] = (double)w.im_bytes / n;
  run_until(w.now + 5000);
  idle(c);
  stopped(c);
  table[HEAL1_MS][c] = (double)lose_a_second(1, &t);
  table[HEAL1_BYTES][c] = (double)t.singles_bytes;
  run_until(w.now + 5000);
  table[HEAL10_MS][c] = (double)lose_a_second(n < 10 ? 1 : n / 10, &t);
  table[HEAL10_BYTES][c] = (double)t.singles_bytes;
  table[HEAL10_CPU][c] = t.cpu_us;
  close_world();
}

/* Single messages and bursts. Heartbeats are so seldom that what is counted is there because of the messages. */
static void messages(int n, int c) {
  traffic t;
  enum { TIMES = 10 };
  open_world(n, n, 60000, 0, 0);
  run_for(all_joined);
  run_until(w.now + 10000);
  node *sender = &w.nodes[n - 1];
  uint64_t has = 0, known = 0;
  look();
  for (int i = 0; i < TIMES; i++) {
    say(sender, 1, TEXT);
    has += run_for(all_have_all);
    known += run_for(all_is_known);
  }
  t = look();
  table[REST_MS][c] = (double)has / TIMES;
  table[REST_KNOWN][c] = (double)(has + known) / TIMES;
  table[REST_UP][c] = (double)t.up / TIMES;
  table[REST_PEAK][c] = (double)t.peak;
  table[REST_UP_BYTES][c] = (double)t.up_bytes / TIMES;
  table[REST_DOWN][c] = (double)t.down / TIMES;
  table[REST_COPIES][c] = (double)t.copies / TIMES;
  table[REST_BYTES][c] = (double)t.copies_bytes / TIMES;
  table[REST_CPU][c] = t.cpu_us / TIMES;

  say(sender, 10000, TEXT);
  table[BURST_MS][c] = (double)run_for(all_have_all);
  run_for(all_is_known);
  t = look();
  table[BURST_UP][c] = (double)t.up;
  table[BURST_DOWN][c] = (double)t.down;
  table[BURST_COPIES][c] = (double)t.copies;
  table[BURST_BYTES][c] = (double)t.copies_bytes;
  table[BURST_CPU][c] = t.cpu_us;

  for (int i = 0; i < n && i < 100; i++) say(&w.nodes[i], 10, TEXT);
  table[STORM_MS][c] = (double)run_for(all_have_all);
  run_for(all_is_known);
  t = look();
  table[STORM_UP][c] = (double)t.up;
  table[STORM_CPU][c] = t.cpu_us;
  close_world();
}

/* What bus_flush asks after each step. */
static bool flushed(void) {
  double began = im_begins();
  bool done = messaging__im_flushed(&w.im);
  im_ended(began);
  return done;
}

static void flush(int n, int c) {
  open_world(n, n, 60000, 0, 0);
  run_for(all_joined);
  run_until(w.now + 10000);
  say(&w.nodes[0], 1, TEXT);
  run_for(all_have_all);
  look();
  messaging__im_hurry(&w.im, w.now);
  w.wake_at = w.now;
  w.after_step = flushed;
  run_for(flushed);
  w.after_step = NULL;
  table[FLUSH_CPU][c] = look().cpu_us;

  messaging__im_term(&w.im, &w.im.self, w.now);
  w.wake_at = w.now;
  run_until(w.now + 10000);
  traffic t = look();
  for (int i = 0; i < n; i++)
    if (!w.nodes[i].inbox.terminated) give_up("a worker was not told of the termination");
  table[TERM_UP][c] = (double)t.up;
  table[TERM_COPIES][c] = (double)t.copies;
  close_world();
}

/* One worker hears nothing, and the history that it needs fills up; then each of the others has a batch that finds no room. */
static void full(int n, int c) {
  enum { BUDGET_US = 5000000 };
  open_world(n, n, 1000, 16384, 256 * 1024);
  run_for(all_joined);
  run_until(w.now + 5000);
  w.nodes[0].cut = true;
  say(&w.nodes[n - 1], 512, 1000);
  run_until(w.now + 3000);
  for (int i = 1; i < n - 1; i++) say(&w.nodes[i], 20, 1000);
  look();
  uint64_t began = w.now, until = began + 1000;
  while (w.now < until && w.traffic.cpu_us < BUDGET_US) run_until(w.now + 1);
  double share = 1000.0 / (double)(w.now - began);
  traffic t = look();
  int blocked = 0;
  for (int i = 1; i < n; i++) blocked += messaging__im_peer(&w.im, (size_t)i)->blocked;
  if (blocked < n - 1 && w.now == until) give_up("somebody is not blocked");
  table[FULL_UP][c] = (double)t.up * share;
  table[FULL_CPU][c] = t.cpu_us * share;
  close_world();
}

static void lists(int n, int c) {
  open_world(1, 1, 60000, 0, 0);
  run_for(all_joined);
  w.watched = true;
  double began = im_begins();
  for (int i = 1; i < n; i++)
    if (messaging__im_add(&w.im, (messaging_child){1 + i, KIND}, w.now) != MESSAGING_OK) give_up("cannot add");
  im_ended(began);
  table[ADD_LOOKS][c] = (double)w.died_asked;
  table[ADD_CPU][c] = look().cpu_us;
  messaging_child *children = children_from(n, n);
  began = im_begins();
  if (messaging__im_update(&w.im, children, (size_t)n, w.now) != MESSAGING_OK) give_up("cannot update");
  im_ended(began);
  table[UPDATE_CPU][c] = look().cpu_us;
  free(children);
  close_world();
}

/* N listed workers and N others are on their way with an announcement each when the supervisor leaves. */
static void leave(int n, int c) {
  open_world(2 * n, n, 1000, 0, 0);
  look();
  messaging__im_leave(&w.im, w.now);
  w.wake_at = w.now;
  run_until(w.now + 1000);
  table[LEAVE_DOWN][c] = (double)look().down;
  close_world();
}

/* ---- the table ---- */

/* Whether a figure grew faster than it may, from one column to the next: with N means with those who hear one. Small counts wobble, times do so always. */
static bool too_fast(int row, int c, const int *counts) {
  growth may = row_may[row];
  bool time = may == TIME_FLAT || may == TIME_WITH_N;
  double before = table[row][c - 1], now = table[row][c], ratio = may == WITH_N || may == TIME_WITH_N ? (double)(counts[c] - 1) / (counts[c - 1] - 1) : 1;
  return now > before * ratio * (time ? 3 : 1.5) + (time ? 200 : 8) * ratio;
}

static int print_table(const int *counts, int columns) {
  int fast = 0;
  printf("%-70s", "N =");
  for (int c = 0; c < columns; c++) printf(" %11d ", counts[c]);
  printf("\n");
  for (int row = 0; row < ROW_COUNT; row++) {
    printf("%-70s", row_texts[row]);
    for (int c = 0; c < columns; c++) {
      bool flag = c > 0 && too_fast(row, c, counts);
      printf(table[row][c] < 100 && table[row][c] != (double)(long)table[row][c] ? " %11.1f%c" : " %11.0f%c", table[row][c], flag ? '!' : ' ');
      fast += flag;
    }
    printf("\n");
  }
  printf("%d figures grew faster than they may\n", fast);
  return fast;
}

static void calibrate(void) {
  double began = cpu_now_us();
  for (int i = 0; i < 1000; i++) (void)cpu_now_us();
  w.clock_us = (cpu_now_us() - began) / 1001;
}

int main(int argc, char **argv) {
  static const int standard[] = {2, 10, 100, 1000, 10000};
  int counts[COLUMNS_MAX], columns = 0;
  for (int i = 1; i < argc && columns < COLUMNS_MAX; i++) counts[columns++] = atoi(argv[i]);
  if (columns == 0)
    for (; columns < 5; columns++) counts[columns] = standard[columns];
  calibrate();
  for (int c = 0; c < columns; c++) {
    if (counts[c] < 2) give_up("at least 2 workers");
    everyday(counts[c], c);
    messages(counts[c], c);
    flush(counts[c], c);
    full(counts[c], c);
    lists(counts[c], c);
    leave(counts[c], c);
  }
  print_table(counts, columns);
  return 0;
}
