/*
 * sim.c - a deterministic simulator of supervisor and workers, on the protocol core that ships
 *
 * One seed makes one world: some workers, a mix of messages, a set of faults with their rates ("swarm": each world switches on another
 * set). The world has a chaos phase, in which the invariants below are checked after every call into the core, and a healing phase
 * without faults, at whose end everything must be complete within HEAL_MS (and HEAL_TRIPS round trips) of simulated time and traffic
 * must have fallen to heartbeats. No thread, no socket, no clock: the same seed is the same world, byte for byte.
 *
 *     sim SEEDS=100000 [FROM=1]     so many worlds
 *     sim --quick SECONDS           as many as fit
 *     sim --seed S [--faults MASK]  one world again, with what happened
 *
 * A failing world is shrunk by switching off one kind of fault after the other while it still fails.
 *
 * What is checked (the names are those of fail()):
 *   order        delivered is a prefix of the log, in order, and all logs agree: each number is one message, everywhere
 *   sender       of each sender, the supervisor takes each message once, contiguously, relay and output messages in one order
 *   lost         nothing accepted is lost: what is acknowledged, or flushed, has been taken; what is taken arrives; EHISTORY names each gap exactly
 *   trim         history that a live worker needs is not trimmed, unless it is fenced and the handler told
 *   generation   nothing crosses generations
 *   memory       every queue within its limit, all memory within a multiple of the limits, none left at the end
 *   terminate    reaches every live worker but its originator, once, and nobody that was not asked
 *   complete     after healing every live listed worker is joined and has everything, every sender is confirmed
 *   quiet        then heartbeats alone are sent
 *   cost         with loss alone, what is sent again is at most so many times what was lost (COST_REPAIRS down, COST_BATCHES up)
 *   hang         no world takes more than STEPS_MAX steps
 * Worlds with bit errors check memory, hang and the absence of crashes alone: a flipped bit in a payload is beyond a sum-less wire.
 */
#include <malloc.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>

static size_t memory_now, memory_peak;

static bool starves(void); /* whether there is no memory for the core, this time */

static void *counted(void *pointer) {
  if (pointer) memory_now += malloc_usable_size(pointer);
  if (memory_now > memory_peak) memory_peak = memory_now;
  return pointer;
}

static void counted_free(void *pointer) {
  if (pointer) memory_now -= malloc_usable_size(pointer);
  free(pointer);
}

static void *counted_malloc(size_t size) { return starves() ? NULL : counted(malloc(size)); }

static void *counted_realloc(void *pointer, size_t size) {
  if (starves()) return NULL;
  if (pointer) memory_now -= malloc_usable_size(pointer);
  return counted(realloc(pointer, size));
}

#define MESSAGING_MALLOC(size) counted_malloc(size)
#define MESSAGING_REALLOC(pointer, size) counted_realloc(pointer, size)
#define MESSAGING_FREE(pointer) counted_free(pointer)

#ifdef SIM_HEADER /* a copy with a bug, see sim_mutants.py */
#include SIM_HEADER
#else
#include "../messaging.h"
#endif

#include <inttypes.h>

enum {
  IDS_MAX = 8,           /* ids that a world's lists choose from */
  INCARNATIONS_MAX = 40, /* of workers in one world, and the supervisor, which is number 0 */
  GENERATIONS_MAX = 12,
  HEAL_MS = 20000,       /* by then, and after HEAL_TRIPS round trips, everything is complete */
  HEAL_TRIPS = 150,
  SETTLE_MS = 2500,      /* last repetitions of what was said more seldom */
  QUIET_BEATS = 4,       /* heartbeats for which traffic is counted */
  STEPS_MAX = 400000,
  COST_REPAIRS = 2,     /* batches in repairs for each batch lost, at most */
  COST_BATCHES = 48,    /* batches sent up again for each frame lost, at most */
  COST_FREE = 64
};

/* Kinds of fault, and of things that may happen. Each is a bit of the mask. */
#define FAULTS(X)                                                                                                          \
  X(LOSS) X(DUPLICATE) X(REORDER) X(DELAY) X(TRUNCATE) X(CUT) X(PAUSE_SUPERVISOR) X(PAUSE_WORKER) X(CRASH) X(RESTART)      \
  X(LATE) X(ADD) X(UPDATE) X(RENEW) X(PURGE) X(TERM) X(TERM_TO) X(LEAVE) X(TINY_QUEUES) X(TINY_HISTORY) X(FENCE)           \
  X(SLOW_APPS) X(CLOCK) X(STALL) X(UNWATCHED) X(LARGE) X(CLAIM) X(OUTPUTS) X(OWN) X(HURRY) X(GOODBYE) X(BITS) X(FAR)      \
  X(NO_MEMORY) X(CROWD)

#define FAULT_BIT(name) BIT_##name,
#define FAULT_NAME(name) #name,
enum { FAULTS(FAULT_BIT) FAULT_COUNT };
static const char *const fault_names[] = {FAULTS(FAULT_NAME)};

/* What was reached, summed over all worlds: a path that stays at 0 is not tested. */
#define COVERS(X)                                                                                                          \
  X(hello) X(welcome) X(joined) X(joined_late) X(relay_sent) X(output_sent) X(efull) X(etoobig) X(relay_received)          \
  X(output_received) X(own_echo) X(own_left_out) X(frame_lost) X(frame_doubled) X(frame_swapped) X(frame_truncated) X(frame_bits)          \
  X(frame_overflow) X(link_cut) X(port_stalled) X(gap_kept_early) X(early_full) X(repair_asked) X(repair_sent)             \
  X(repair_ranges) X(go_back) X(probe) X(duplicate) X(window_closed_relay) X(window_closed_output) X(window_opened)        \
  X(inbox_full) X(history_trimmed) X(history_fenced) X(gap_worker) X(gap_supervisor) X(terminate_worker)                   \
  X(terminate_supervisor) X(terminate_one) X(terminate_two) X(left) X(left_unheard) X(reincarnated) X(died) X(died_listed) \
  X(relisted) X(silent) X(silent_back) X(supervisor_silent) X(supervisor_back) X(struck) X(update_survivors) X(generation_new)                \
  X(generation_kept_items) X(purged) X(parked) X(refused_kind) X(refused_taken) X(refused_unlisted) X(stale) X(malformed)  \
  X(clock_jump) X(large_frame) X(whole_chunk) X(supervisor_left) X(own_output_dropped) X(complete) X(paused)                \
  X(no_memory) X(no_seat) X(flushed_worker) X(flushed_supervisor)

#define COVER_ENUM(name) COVER_##name,
#define COVER_NAME(name) #name,
enum { COVERS(COVER_ENUM) COVER_COUNT };
static const char *const cover_names[] = {COVERS(COVER_NAME)};
static uint64_t covered[COVER_COUNT], worker_moves[3][3], peer_moves[5][5];
#define COVER(name) (covered[COVER_##name]++)
#define COVER_N(name, n) (covered[COVER_##name] += (uint64_t)(n))

/* ---- the model ---- */

enum { IS_RELAY = 1, IS_VOID = 2 }; /* VOID: need not reach the supervisor's application: purged, or named in a gap */

typedef struct {
  uint64_t number; /* of a relay message, once it has one */
  uint8_t flags;
} note;

typedef struct {
  uint64_t first, next;
} gap;

typedef struct {
  uint64_t at;
  messaging__buffer *buffer;
} packet;

/* One process and its handle. Number 0 is the supervisor's. */
typedef struct {
  bool alive; /* of a process's first handle: the process lives */
  unsigned seat; /* whose batches its subscriptions leave out, and how they begin */
  uint8_t letters[MESSAGING__LETTERS];
  bool open, subscribed, claimant, was_joined, was_lost, term_told, term_wanted;
  messaging__state state;
  uint8_t leaving; /* 1: flushes, 2: has said goodbye */
  unsigned slot, process; /* the number of the first handle of its process */
  messaging__who who;
  messaging__outbox outbox;
  messaging__inbox inbox;
  messaging__worker core;
  messaging__ring up, down; /* of packet */
  uint64_t paused_until, cut_until, clock_ms, wake_at, subscribe_at, notice_at, leave_by;

  messaging__ring notes;      /* of note: every message that this one's application had accepted, in order */
  uint64_t taken;             /* messages that the supervisor has taken */
  uint64_t seen;              /* messages that the supervisor's application has got or been excused from */
  messaging__ring batch_ends; /* of uint64_t: how many messages the batches up to here hold */
  uint64_t app_next;          /* number that the application is to get next */
  messaging__ring gaps;       /* of gap */
  unsigned generation;        /* that it joined */
} node;

typedef struct {
  messaging__ring ids;   /* of uint64_t, by number - 1: what has this number */
  uint64_t first;        /* of the history, when it was last looked at */
  uint64_t app_next;     /* the supervisor's application */
  messaging__ring gaps;  /* of gap: the supervisor's own */
  bool term_wanted[INCARNATIONS_MAX];
} generation_model;

typedef struct {
  uint64_t seed, random, now, mask;
  bool healing, lenient, shutting;
  unsigned ids, count, generation;
  uint32_t rate[FAULT_COUNT]; /* per 10,000 */
  uint32_t delay_ms, far_ms, tick_ms, chaos_ms, burst, text_max, hwm;
  messaging_options options;
  messaging__im im;
  node nodes[INCARNATIONS_MAX];
  generation_model generations[GENERATIONS_MAX];
  bool term_asked[IDS_MAX], term_asked_ever[IDS_MAX];
  uint64_t floors[IDS_MAX]; /* history's first number when an id was listed or taken again */
  unsigned peer_states[IDS_MAX];
  bool blocked[IDS_MAX], silent[IDS_MAX];
  uint64_t nonces[IDS_MAX]; /* of the incarnation that each id has at the supervisor */
  size_t items_known, inbox_allowed;
  uint64_t app_at, steps, frames_up, frames_down, frames_lost, batches_lost, fence_reports;
} world;

static world w;
static jmp_buf failed;
static char failure[400];
static bool verbose;

/* ---- chance ---- */

static uint64_t chance_next(void) {
  uint64_t z = (w.random += UINT64_C(0x9E3779B97F4A7C15));
  z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
  return z ^ (z >> 31);
}

static uint32_t below(uint32_t bound) { return (uint32_t)(((chance_next() >> 32) * bound) >> 32); }
static uint32_t between(uint32_t low, uint32_t high) { return low + below(high - low + 1); }
static bool on(unsigned fault) { return (w.mask >> fault & 1) != 0; }
static bool happens(unsigned fault) { return on(fault) && below(10000) < w.rate[fault]; }

/* A call into the core, in which memory may run out. */
static bool in_core;
#define CORE(call)   \
  do {               \
    in_core = true;  \
    call;            \
    in_core = false; \
  } while (0)

static bool starves(void) {
  if (!in_core || w.healing || !happens(BIT_NO_MEMORY)) return false;
  COVER(no_memory);
  return true;
}

/* ---- failing and telling ---- */

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
  va_list arguments;
  int head = snprintf(failure, sizeof failure, "at %" PRIu64 " ms, generation %u: ", w.now, w.generation);
  va_start(arguments, format);
  vsnprintf(failure + head, sizeof failure - (size_t)head, format, arguments);
  va_end(arguments);
  longjmp(failed, 1);
}

#define CHECK(condition, ...) \
  do {                        \
    if (!(condition)) fail(__VA_ARGS__); \
  } while (0)

#define TELL(...)                             \
  do {                                        \
    if (verbose) {                            \
      printf("%8" PRIu64 "  ", w.now);        \
      printf(__VA_ARGS__);                    \
      putchar('\n');                          \
    }                                         \
  } while (0)

static unsigned index_of(const node *n) { return (unsigned)(n - w.nodes); }

/* ---- memory of the model itself, which the bound on the core's does not cover ---- */

static size_t model_memory;

static void model_push(messaging__ring *ring, const void *element) {
  size_t before = memory_now;
  bool core = in_core;
  in_core = false;
  bool pushed = messaging__ring_push(ring, element);
  in_core = core;
  model_memory += memory_now - before;
  CHECK(pushed, "out of memory");
}

static void model_free(messaging__ring *ring) {
  size_t before = memory_now;
  messaging__ring_free(ring);
  model_memory -= before - memory_now;
}

static note *note_at(node *n, uint64_t index) { return (note *)messaging__ring_at(&n->notes, (size_t)index); }

static bool in_gaps(const messaging__ring *gaps, uint64_t number) {
  for (size_t i = 0; i < gaps->count; i++) {
    const gap *g = (const gap *)messaging__ring_at(gaps, i);
    if (number >= g->first && number < g->next) return true;
  }
  return false;
}

static uint64_t log_count(unsigned generation) { return w.generations[generation].ids.count; }
static uint64_t log_at(unsigned generation, uint64_t number) {
  return *(uint64_t *)messaging__ring_at(&w.generations[generation].ids, (size_t)(number - 1));
}

/* ---- messages: a binary of the sender's index, the number among its messages, and filling that depends on them ---- */

enum { ID_BYTES = 8 };

typedef struct {
  uint64_t id;
  uint32_t size;
} text;

static int text_encode(msgpack_packer *pk, const void *message) {
  const text *t = (const text *)message;
  static uint8_t bytes[1 << 20];
  messaging__store_be(bytes, t->id, ID_BYTES);
  memset(bytes + ID_BYTES, (uint8_t)t->id, t->size - ID_BYTES);
  if (msgpack_pack_bin(pk, t->size) != 0) return -1;
  return msgpack_pack_bin_body(pk, bytes, t->size);
}

static uint64_t text_read(messaging__reader *reader) {
  size_t size;
  const uint8_t *bytes = messaging__read_bytes(reader, &size);
  CHECK(!reader->bad && size >= ID_BYTES, "order: a payload is damaged");
  uint64_t id = messaging__load_be(bytes, ID_BYTES);
  CHECK(size == ID_BYTES || bytes[size - 1] == (uint8_t)id, "order: a payload is damaged at its end");
  return id;
}

/* ---- links ---- */

static void packet_release(messaging__buffer *buffer) { free(buffer); }

/* Bytes of their own, as after a passage through the kernel. */
static messaging__buffer *packet_of(const uint8_t *data, size_t size) {
  messaging__buffer *buffer = (messaging__buffer *)malloc(sizeof *buffer + size);
  CHECK(buffer, "out of memory");
  messaging__buffer_init(buffer, (uint8_t *)(buffer + 1), size, size);
  buffer->release = packet_release;
  if (size) memcpy(buffer->data, data, size);
  return buffer;
}

static void link_pop(messaging__ring *link) {
  messaging__buffer_drop(((packet *)messaging__ring_at(link, 0))->buffer);
  messaging__ring_pop(link);
}

static void link_clear(messaging__ring *link) {
  while (link->count) link_pop(link);
}

static void link_put(messaging__ring *link, messaging__buffer *buffer) {
  packet p = {w.now + 1 + (on(BIT_FAR) ? w.far_ms : 0) + (on(BIT_DELAY) && !w.healing ? below(w.delay_ms) : 0), buffer};
  if (link->count) p.at = messaging__later(p.at, ((packet *)messaging__ring_at(link, link->count - 1))->at);
  messaging__buffer_keep(buffer);
  model_push(link, &p);
  if (w.healing || !happens(BIT_REORDER)) return;
  packet *last = (packet *)messaging__ring_at(link, link->count - 1);
  packet *other = (packet *)messaging__ring_at(link, link->count - 1 - below((uint32_t)(link->count < 40 ? link->count : 40)));
  messaging__buffer *swapped = last->buffer;
  last->buffer = other->buffer;
  other->buffer = swapped;
  COVER(frame_swapped);
}

/* How many batches a frame to a worker holds. */
static uint64_t batches_in(const uint8_t *data) {
  if (data[1] == 0xa1) return 0;
  if (data[1] == 0xa1 + MESSAGING__LETTERS) return data[MESSAGING__AT_TYPE] == MESSAGING__RELAY;
  if (data[21] != MESSAGING__REPAIR) return 0;
  messaging__reader reader = {data + 1, data + MESSAGING__CONTROL_SIZE, false};
  size_t size;
  messaging__read_bytes(&reader, &size);
  for (int i = 0; i < 2; i++) messaging__read_uint(&reader, UINT64_MAX);
  messaging__read_bytes(&reader, &size);
  messaging__read_uint(&reader, UINT64_MAX);
  messaging__read_array(&reader);
  messaging__read_uint(&reader, 1);
  return messaging__read_uint(&reader, UINT64_MAX);
}

/* Puts a frame on a link, through the faults of this world. */
static void link_send(messaging__ring *link, const uint8_t *data, size_t size, bool down) {
  if (!w.healing && happens(BIT_LOSS)) {
    w.frames_lost++;
    if (down) w.batches_lost += batches_in(data);
    COVER(frame_lost);
    return;
  }
  messaging__buffer *buffer = packet_of(data, size);
  if (!w.healing && happens(BIT_TRUNCATE)) {
    buffer->size = below((uint32_t)size);
    w.frames_lost++;
    COVER(frame_truncated);
  }
  if (!w.healing && happens(BIT_BITS) && buffer->size) {
    for (uint32_t bits = between(1, 4); bits; bits--) buffer->data[below((uint32_t)buffer->size)] ^= (uint8_t)(1u << below(8));
    COVER(frame_bits);
  }
  link_put(link, buffer);
  if (!w.healing && happens(BIT_DUPLICATE)) {
    messaging__buffer *copy = packet_of(buffer->data, buffer->size);
    link_put(link, copy);
    messaging__buffer_drop(copy);
    COVER(frame_doubled);
  }
  messaging__buffer_drop(buffer);
}

/* Lends the first frame of a link that has arrived, as the shell does: large ones may be kept, small ones are gone after the call. */
static bool link_take(messaging__ring *link, messaging__slice *frame, messaging__buffer **buffer) {
  if (link->count == 0 || ((packet *)messaging__ring_at(link, 0))->at > w.now) return false;
  *buffer = ((packet *)messaging__ring_at(link, 0))->buffer;
  messaging__ring_pop(link);
  frame->owner = (*buffer)->size >= MESSAGING__WRAP_BYTES ? *buffer : NULL;
  frame->data = (*buffer)->data;
  frame->size = (*buffer)->size;
  if (frame->owner) COVER(large_frame);
  return true;
}

/* ---- observing the supervisor: what it takes, numbers and keeps ---- */

/* A message that the supervisor has taken: the next one of its sender, and nothing else. */
static void taken(uint64_t id, const messaging__batch *batch, bool relay, uint64_t number) {
  uint64_t index = id >> 32, sequence = id & UINT32_MAX;
  CHECK(index < w.count, "sender: a message of nobody");
  node *n = &w.nodes[index];
  CHECK(batch->nonce == n->who.nonce && batch->id == n->who.id, "sender: a message of %u in a batch of another", (unsigned)index);
  CHECK(sequence == n->taken, "sender: of %u, message %" PRIu64 " is taken after %" PRIu64, (unsigned)index, sequence, n->taken);
  CHECK(sequence < n->notes.count, "sender: %u never sent message %" PRIu64, (unsigned)index, sequence);
  CHECK(index == 0 || n->generation == w.generation, "generation: %u of generation %u is taken", (unsigned)index, n->generation);
  CHECK(((note_at(n, sequence)->flags & IS_RELAY) != 0) == relay, "sender: message %" PRIu64 " of %u changed its type", sequence, (unsigned)index);
  note_at(n, sequence)->number = number;
  n->taken++;
}

/* Outputs that came into the supervisor's inbox since the last look. */
static void observe_items(void) {
  messaging__inbox *inbox = &w.nodes[0].inbox;
  while (w.items_known < inbox->items.count) {
    const messaging__item *item = (const messaging__item *)messaging__ring_at(&inbox->items, w.items_known++);
    if (w.lenient) continue;
    messaging__reader reader = {item->frame.data + MESSAGING__AT_PAYLOAD, item->frame.data + item->frame.size, false};
    for (uint32_t i = 0; i < item->batch.count; i++) taken(text_read(&reader), &item->batch, false, 0);
  }
}

/* A relay batch as it is published: its numbers are given now. */
static void observe_published(messaging__slice frame) {
  messaging__batch batch;
  observe_items();
  if (w.lenient) return;
  generation_model *g = &w.generations[w.generation];
  CHECK(messaging__batch_read(frame.data, frame.size, &batch), "order: a published batch cannot be read");
  CHECK(messaging__load_be(frame.data + MESSAGING__AT_GENERATION, 4) == w.generation, "generation: a batch of another is published");
  CHECK(batch.position == g->ids.count + 1, "order: number %" PRIu64 " is given after %zu", batch.position, g->ids.count);
  messaging__reader reader = {frame.data + MESSAGING__AT_PAYLOAD, frame.data + frame.size, false};
  for (uint32_t i = 0; i < batch.count; i++) {
    uint64_t id = text_read(&reader);
    taken(id, &batch, true, batch.position + i);
    model_push(&g->ids, &id);
  }
}

static bool supervisor_send(void *self, messaging__slice frame) {
  (void)self;
  bool relay = frame.data[1] == 0xa1 + MESSAGING__LETTERS, all = relay || frame.data[1] == 0xa1;
  if (w.healing) TELL("down: type %d", frame.data[relay ? MESSAGING__AT_TYPE : all ? 4 : 21]);
  if (relay) observe_published(frame);
  if (!all && frame.data[21] == MESSAGING__REPAIR) COVER(repair_sent);
  if (!all && frame.data[21] == MESSAGING__WELCOME) COVER(welcome);
  w.frames_down++;
  if (!w.healing && happens(BIT_STALL)) {
    w.frames_lost++;
    COVER(port_stalled);
    return false;
  }
  uint64_t nonce = all ? 0 : messaging__load_be(frame.data + 12, 8);
  for (unsigned i = 1; i < w.count; i++) {
    node *n = &w.nodes[i];
    if (!n->open || (nonce && n->who.nonce != nonce)) continue;
    if (relay && n->seat && memcmp(frame.data + MESSAGING__AT_LETTERS, n->letters, sizeof n->letters) == 0) {
      COVER(own_left_out);
      continue;
    }
    if (!n->subscribed) {
      w.frames_lost++;
      w.batches_lost += batches_in(frame.data);
      continue;
    }
    if (n->down.count < w.hwm) {
      link_send(&n->down, frame.data, frame.size, true);
    } else {
      w.frames_lost++;
      w.batches_lost += batches_in(frame.data);
      COVER(frame_overflow);
    }
  }
  return true;
}

static unsigned slot_of(pid_t id) { return (unsigned)(id > 0 ? id - 101 : -id - 1); }
static pid_t id_of(unsigned slot) { return on(BIT_UNWATCHED) && slot % 2 ? -1 - (pid_t)slot : 101 + (pid_t)slot; }

/* A gap that the supervisor tells of: its own application's, or a worker's. */
static void supervisor_gap(const messaging_error *error) {
  generation_model *g = &w.generations[w.generation];
  CHECK(error->last + 1 <= w.nodes[0].inbox.log.first, "lost: a gap is reported of numbers that history holds");
  if (error->pid != w.im.self.id) {
    CHECK(slot_of(error->pid) < IDS_MAX, "lost: a gap of nobody is reported");
    w.floors[slot_of(error->pid)] = messaging__later(w.floors[slot_of(error->pid)], error->last + 1);
    w.fence_reports++;
    return;
  }
  COVER(gap_supervisor);
  gap gone = {error->first, error->last + 1};
  CHECK(gone.first >= g->app_next, "lost: a gap is reported of numbers that were received");
  model_push(&g->gaps, &gone);
  for (uint64_t number = gone.first; number < gone.next; number++) {
    uint64_t id = log_at(w.generation, number);
    note_at(&w.nodes[id >> 32], id & UINT32_MAX)->flags |= IS_VOID;
  }
}

static void supervisor_report(void *self, const messaging_error *error) {
  (void)self;
  TELL("supervisor: %s of %d: %s %" PRIu64 "-%" PRIu64, messaging_strerror(error->status), (int)error->pid, error->detail, error->first, error->last);
  switch (error->status) {
    case MESSAGING_EHISTORY:
      if (!w.lenient) supervisor_gap(error);
      break;
    case MESSAGING_EBADMSG: COVER(malformed); break;
    case MESSAGING_EKIND: COVER(refused_kind); break;
    case MESSAGING_EAUTH: COVER(refused_taken); break;
    case MESSAGING_ELOST:
      if (strcmp(error->detail, "a worker died") == 0) COVER(died);
      else COVER(silent);
      break;
    default: break;
  }
}

/* A pidfd: the number of the process that has the id now. */
static int supervisor_watch(void *self, pid_t id) {
  (void)self;
  if (id < 0) return MESSAGING__UNWATCHED;
  for (unsigned i = w.count; i-- > 1;)
    if (w.nodes[i].alive && w.nodes[i].who.id == id) return (int)i;
  COVER(died_listed);
  return MESSAGING__DEAD;
}

static void supervisor_unwatch(void *self, int watch) {
  (void)self;
  CHECK(watch > 0 && (unsigned)watch < w.count, "memory: a watch is dropped that is none");
}

static bool supervisor_died(void *self, int watch) {
  (void)self;
  return !w.nodes[watch].alive;
}

/* Counts what a peer goes through, so that a path that no world takes shows. 4 is: not on the list. */
static void count_peer(const messaging__peer *peer, unsigned slot) {
  unsigned *before = &w.peer_states[slot];
  unsigned state = peer ? (unsigned)peer->state : 4;
  bool anew = peer && peer->who.nonce && peer->who.nonce != w.nonces[slot];
  if (state != *before || (anew && state == MESSAGING__ACTIVE)) peer_moves[*before][state]++;
  *before = state;
  if (!peer) return;
  if (peer->blocked && !w.blocked[slot]) covered[peer->blocked_type == MESSAGING__RELAY ? COVER_window_closed_relay : COVER_window_closed_output]++;
  if (!peer->blocked && w.blocked[slot]) COVER(window_opened);
  if (!peer->silent && w.silent[slot]) COVER(silent_back);
  if (peer->repair_count > 1) COVER(repair_ranges);
  w.blocked[slot] = peer->blocked;
  w.silent[slot] = peer->silent;
}

/* History is trimmed only below what each live worker has, or was listed with, or was told of. */
static void check_trim(void) {
  generation_model *g = &w.generations[w.generation];
  uint64_t first = w.nodes[0].inbox.log.first;
  bool moved = first != g->first;
  g->first = first;
  if (moved) COVER(history_trimmed);
  for (size_t i = 0; i < w.im.peers.count; i++) {
    messaging__peer *peer = messaging__im_peer(&w.im, i);
    unsigned slot = slot_of(peer->who.id);
    count_peer(peer, slot);
    if (peer->who.nonce && peer->who.nonce != w.nonces[slot]) {
      w.nonces[slot] = peer->who.nonce;
      w.floors[slot] = first; /* a new incarnation gets what history holds by now */
    }
    if (!messaging__peer_live(peer)) continue;
    if (peer->silent) w.floors[slot] = messaging__later(w.floors[slot], first);
    if (!moved || peer->silent) continue;
    uint64_t floor = w.floors[slot];
    for (unsigned k = 1; k < w.count; k++)
      if (w.nodes[k].who.nonce == peer->who.nonce) floor = messaging__later(floor, w.nodes[k].core.next);
    CHECK(first <= floor, "trim: history begins at %" PRIu64 ", but worker %d has all below %" PRIu64 " only", first, (int)peer->who.id, floor);
  }
}

/* Flushed is: the supervisor's own is in the history, and who is there has all of that, or was told what is gone. */
static void check_flushed(void) {
  const node *own = &w.nodes[0];
  if (!messaging__im_flushed(&w.im)) return;
  COVER(flushed_supervisor);
  CHECK(own->taken == own->notes.count, "lost: the supervisor is flushed, taken are %" PRIu64 " of its %zu", own->taken, own->notes.count);
  for (unsigned i = 1; i < w.count; i++) {
    const node *n = &w.nodes[i];
    const messaging__peer *peer = n->open ? (messaging__peer *)messaging__map_get(&w.im.by_nonce, n->who.nonce) : NULL;
    if (!peer || n->claimant || peer->state != MESSAGING__ACTIVE || !peer->confirmed || peer->silent) continue;
    CHECK(n->core.next == messaging__im_next(&w.im) || n->core.next < own->inbox.log.first,
          "lost: the supervisor is flushed, %u has all below %" PRIu64 " of %" PRIu64, i, n->core.next, messaging__im_next(&w.im));
  }
}

/* After every call into the supervisor. */
static void observe_supervisor(void) {
  const messaging__inbox *inbox = &w.nodes[0].inbox;
  const messaging__log *log = &inbox->log;
  observe_items();
  CHECK(inbox->bytes <= inbox->bytes_max || inbox->bytes <= w.inbox_allowed || inbox->items.count == 1, "memory: the supervisor's inbox holds %zu", inbox->bytes);
  w.inbox_allowed = inbox->bytes < w.inbox_allowed ? inbox->bytes : w.inbox_allowed; /* what a new generation kept only shrinks */
  CHECK(log->bytes <= log->bytes_max || log->chunks.count == 1, "memory: history holds %zu", log->bytes);
  CHECK(w.im.parked.count <= MESSAGING__PARKED_MAX, "memory: too many parked");
  CHECK(w.im.busy.count <= w.im.peers.count, "memory: too many busy");
  if (w.im.parked.count) COVER(parked);
  if (log->chunks.count && messaging__log_chunk(log, log->chunks.count - 1)->whole) COVER(whole_chunk);
  if (w.lenient) return;
  CHECK(log->next == log_count(w.generation) + 1, "order: history ends at %" PRIu64 ", published are %" PRIu64, log->next, log_count(w.generation));
  CHECK(w.im.era.generation == w.generation, "generation: the supervisor is in %u", (unsigned)w.im.era.generation);
  check_trim();
  check_flushed();
  if (!inbox->terminated) return;
  bool asked = false;
  for (unsigned i = 1; i < w.count; i++) asked = asked || w.generations[w.generation].term_wanted[i];
  CHECK(asked, "terminate: nobody asked the supervisor");
}

/* ---- observing workers ---- */

/* A batch goes up for the first time: how many messages all batches up to it hold. */
static void observe_batch(node *n, messaging__slice frame) {
  messaging__batch batch;
  if (w.lenient || frame.data[1] != 0xa1 + MESSAGING__LETTERS) return;
  uint8_t type = frame.data[MESSAGING__AT_TYPE];
  if (type != MESSAGING__RELAY && type != MESSAGING__OUTPUT) return;
  CHECK(messaging__batch_read(frame.data, frame.size, &batch), "order: a batch that is sent cannot be read");
  if (batch.number != n->batch_ends.count + 1) return;
  uint64_t end = batch.count;
  if (n->batch_ends.count) end += *(uint64_t *)messaging__ring_at(&n->batch_ends, n->batch_ends.count - 1);
  model_push(&n->batch_ends, &end);
}

static bool worker_send(void *self, messaging__slice frame) {
  node *n = (node *)self;
  if (!w.healing && (w.now < n->cut_until || n->up.count >= w.hwm || happens(BIT_STALL))) {
    COVER(port_stalled);
    return false;
  }
  uint8_t type = frame.data[frame.data[1] == 0xa1 ? 4 : MESSAGING__AT_TYPE];
  if (w.healing) TELL("up from %u: type %d", index_of(n), type);
  if (type == MESSAGING__HELLO) COVER(hello);
  observe_batch(n, frame);
  w.frames_up++;
  link_send(&n->up, frame.data, frame.size, false);
  return true;
}

static void observe_joined(node *n) {
  if (n->was_joined || n->core.state != MESSAGING__JOINED) return;
  n->was_joined = true;
  n->generation = n->core.era.generation;
  if (w.lenient && n->generation >= GENERATIONS_MAX) n->generation = 0; /* a welcome with flipped bits */
  if (n->term_wanted) w.generations[n->generation].term_wanted[index_of(n)] = true;
  COVER(joined);
  if (n->core.known > 1) COVER(joined_late);
  w.batches_lost += w.im.stats.batches_sent; /* as good as lost: they were published before */
  CHECK(w.lenient || (n->generation >= 1 && n->generation <= w.generation), "generation: %u joined %u", index_of(n), n->generation);
}

static void worker_gap(node *n, const messaging_error *error) {
  gap gone = {error->first, error->last + 1};
  observe_joined(n); /* a welcome may tell of a gap */
  generation_model *g = &w.generations[n->generation];
  COVER(gap_worker);
  CHECK(gone.first == n->core.next, "lost: a gap from %" PRIu64 " is reported at %" PRIu64, gone.first, n->core.next);
  CHECK(gone.next > gone.first && gone.next <= g->first, "lost: %u is told of a gap up to %" PRIu64 ", history begins at %" PRIu64, index_of(n), gone.next, g->first);
  model_push(&n->gaps, &gone);
}

static void worker_report(void *self, const messaging_error *error) {
  node *n = (node *)self;
  TELL("%u (%d): %s: %s %" PRIu64 "-%" PRIu64, index_of(n), (int)n->who.id, messaging_strerror(error->status), error->detail, error->first, error->last);
  switch (error->status) {
    case MESSAGING_EHISTORY:
      if (!w.lenient) worker_gap(n, error);
      break;
    case MESSAGING_EBADMSG: COVER(malformed); break;
    case MESSAGING_ELOST: COVER(supervisor_silent); break;
    case MESSAGING_ENOTRUNNING: COVER(refused_unlisted); break;
    default: break;
  }
}

/* How many of a worker's messages it knows to be accepted. */
static uint64_t acknowledged(node *n) {
  uint64_t batches = n->core.number - 1;
  if (n->core.flights.count) batches = ((messaging__flight *)messaging__ring_at(&n->core.flights, 0))->number - 1;
  if (batches == 0) return 0;
  CHECK(batches <= n->batch_ends.count, "lost: %u takes a batch for accepted that it never sent", index_of(n));
  return *(uint64_t *)messaging__ring_at(&n->batch_ends, (size_t)batches - 1);
}

/* Termination is for those alone whom somebody else asked, those whose handle has ended, and those who do not hear their supervisor. */
static void check_terminated(node *n) {
  if (!n->inbox.terminated || n->core.state == MESSAGING__OVER || n->core.lost) return;
  bool asked = w.term_asked_ever[n->slot];
  const generation_model *g = &w.generations[n->generation];
  for (unsigned i = 0; i < w.count; i++) asked = asked || (g->term_wanted[i] && i != index_of(n));
  CHECK(asked, "terminate: nobody else asked %u", index_of(n));
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* After every call into a worker. */
static void observe_worker(node *n) {
  const messaging__worker *core = &n->core;
  observe_joined(n);
  if (n->state != core->state) worker_moves[n->state][core->state]++;
  n->state = core->state;
  size_t frame_max = w.options.message_bytes_max + 2 * MESSAGING__SEAL_BYTES + MESSAGING__AT_PAYLOAD;
  CHECK(n->inbox.bytes <= n->inbox.bytes_max || n->inbox.items.count == 1, "memory: the inbox of %u holds %zu", index_of(n), n->inbox.bytes);
  CHECK(core->early.count <= MESSAGING__REORDER_MAX && core->early_bytes <= n->inbox.bytes_max / 4, "memory: %u keeps %zu early", index_of(n), core->early.count);
  CHECK(core->flights_bytes <= MESSAGING__WINDOW_BYTES + frame_max, "memory: %u has %zu on the wire", index_of(n), core->flights_bytes);
  CHECK(n->outbox.bytes <= larger(n->outbox.bytes_max, frame_max) + MESSAGING__AT_PAYLOAD, "memory: the outbox of %u holds %zu", index_of(n), n->outbox.bytes);
  if (n->was_lost && !core->lost) {
    COVER(supervisor_back);
    n->term_told = n->inbox.terminated && !n->inbox.term_due;
  }
  n->was_lost = core->lost;
  if (core->early.count) COVER(gap_kept_early);
  if (core->early.count == MESSAGING__REORDER_MAX) COVER(early_full);
  if (w.lenient) return;
  uint64_t accepted = acknowledged(n);
  CHECK(accepted <= n->taken, "lost: %u takes %" PRIu64 " messages for accepted, taken are %" PRIu64, index_of(n), accepted, n->taken);
  if (messaging__worker_flushed(&n->core)) {
    COVER(flushed_worker);
    CHECK(n->taken == n->notes.count, "lost: all of %u is said to be accepted, taken are %" PRIu64 " of %zu", index_of(n), n->taken, n->notes.count);
  }
  if (n->was_joined) {
    if (on(BIT_CROWD) && core->state == MESSAGING__JOINED && core->slot == 0) COVER(no_seat);
    CHECK(core->next <= log_count(n->generation) + 1, "order: %u has more than there is", index_of(n));
    check_terminated(n);
  }
}

/* ---- applications that receive ---- */

/* The numbers that an application skips are its own, or it was told that they are gone. */
static void check_skipped(const node *n, unsigned generation, uint64_t from, uint64_t to, const messaging__ring *gaps) {
  for (uint64_t number = from; number < to; number++)
    CHECK(log_at(generation, number) >> 32 == index_of(n) || in_gaps(gaps, number), "lost: %u did not get number %" PRIu64 " of generation %u",
          index_of(n), number, generation);
}

static void receive_relay(node *n, unsigned generation, const messaging__item *item, messaging__reader *reader, uint64_t *app_next, const messaging__ring *gaps) {
  uint64_t number = item->batch.position;
  CHECK(number >= *app_next, "order: %u gets number %" PRIu64 " again, after %" PRIu64, index_of(n), number, *app_next);
  CHECK(number + item->batch.count <= log_count(generation) + 1, "order: %u gets a number that was not given", index_of(n));
  check_skipped(n, generation, *app_next, number, gaps);
  for (uint32_t i = 0; i < item->batch.count; i++, number++) {
    uint64_t id = text_read(reader);
    CHECK(id == log_at(generation, number), "order: %u gets another message as number %" PRIu64, index_of(n), number);
    CHECK(id >> 32 != index_of(n), "sender: %u gets its own message", index_of(n));
    CHECK(!in_gaps(gaps, number), "lost: %u gets number %" PRIu64 ", which it was told is gone", index_of(n), number);
  }
  *app_next = number;
  COVER_N(relay_received, item->batch.count);
}

/* The supervisor's application gets a message of somebody: in order, and what it skips was purged or told of. */
static void receive_seen(uint64_t id) {
  node *n = &w.nodes[id >> 32];
  uint64_t sequence = id & UINT32_MAX;
  CHECK(sequence >= n->seen, "sender: the supervisor gets message %" PRIu64 " of %u again", sequence, index_of(n));
  for (; n->seen < sequence; n->seen++) {
    uint8_t flags = note_at(n, n->seen)->flags;
    CHECK((flags & IS_VOID) || (index_of(n) == 0 && (flags & IS_RELAY)), "lost: the supervisor did not get message %" PRIu64 " of %u", n->seen, index_of(n));
  }
  n->seen++;
}

static void receive_at_supervisor(const messaging__item *item) {
  unsigned generation = (unsigned)messaging__load_be(item->frame.data + MESSAGING__AT_GENERATION, 4);
  const uint8_t *payload = item->frame.data + MESSAGING__AT_PAYLOAD;
  messaging__reader reader = {payload, item->frame.data + item->frame.size, false}, again = reader;
  CHECK(generation >= 1 && generation <= w.generation, "generation: the supervisor gets a message of %u", generation);
  generation_model *g = &w.generations[generation];
  if (item->batch.type == MESSAGING__RELAY) receive_relay(&w.nodes[0], generation, item, &reader, &g->app_next, &g->gaps);
  else COVER_N(output_received, item->batch.count);
  for (uint32_t i = 0; i < item->batch.count; i++) receive_seen(text_read(&again));
}

static void receive_at_worker(node *n, const messaging__item *item) {
  CHECK(messaging__load_be(item->frame.data + MESSAGING__AT_GENERATION, 4) == n->generation, "generation: %u gets a message of another", index_of(n));
  CHECK(item->batch.type == MESSAGING__RELAY, "order: %u gets an output message", index_of(n));
  messaging__reader reader = {item->frame.data + MESSAGING__AT_PAYLOAD, item->frame.data + item->frame.size, false};
  receive_relay(n, n->generation, item, &reader, &n->app_next, &n->gaps);
}

static void pump(node *n);

/* What recv does: termination first, then so many batches. */
static void app_receive(node *n, uint32_t batches) {
  messaging__inbox *inbox = &n->inbox;
  messaging__item item;
  if (inbox->term_due) {
    CHECK(!n->term_told, "terminate: %u is told twice", index_of(n));
    n->term_told = true;
    inbox->term_due = false;
  }
  for (; batches; batches--) {
    size_t before = inbox->items.count;
    if (!messaging__inbox_next(inbox, &item)) break;
    if (index_of(n) == 0) w.items_known -= before - inbox->items.count;
    if (w.lenient) {
    } else if (index_of(n) == 0) {
      receive_at_supervisor(&item);
    } else {
      receive_at_worker(n, &item);
    }
    messaging__buffer_drop(item.frame.owner);
  }
  messaging__inbox_settle(inbox);
  if (!inbox->wanted) return;
  inbox->wanted = false;
  pump(n);
}

/* ---- processes ---- */

static uint64_t clock_of(const node *n) { return w.now + n->clock_ms; }

static void observe(node *n) {
  if (index_of(n) == 0) observe_supervisor();
  else observe_worker(n);
}

/* What the background thread does after frames, at a deadline, and when it is kicked. */
static void pump(node *n) {
  if (w.now < n->paused_until) return;
  uint64_t now = clock_of(n), deadline;
  if (index_of(n) == 0) {
    CORE(messaging__im_pump(&w.im, now));
    deadline = messaging__im_deadline(&w.im, now);
  } else {
    if (!n->open) return;
    CORE(messaging__worker_pump(&n->core, now));
    deadline = messaging__worker_deadline(&n->core, now);
  }
  observe(n);
  n->wake_at = deadline == MESSAGING__NEVER ? deadline : messaging__later(deadline, now) - n->clock_ms;
}

static messaging_kind kind_of(unsigned slot) { return 1 + slot % 3; }

static void node_prepare(node *n) {
  memset(n, 0, sizeof *n);
  messaging__ring_init(&n->up, sizeof(packet));
  messaging__ring_init(&n->down, sizeof(packet));
  messaging__ring_init(&n->notes, sizeof(note));
  messaging__ring_init(&n->batch_ends, sizeof(uint64_t));
  messaging__ring_init(&n->gaps, sizeof(gap));
  bool ready = messaging__outbox_init(&n->outbox, w.options.outbox_bytes_max, w.options.message_bytes_max) &&
               messaging__inbox_init(&n->inbox, w.options.inbox_bytes_max);
  CHECK(ready, "out of memory");
  n->app_next = 1;
  n->subscribe_at = n->notice_at = MESSAGING__NEVER;
  n->open = true;
}

/* A worker's handle, in a new process or in one whose former handle is closed. */
static node *open_worker(unsigned slot, messaging_kind kind, unsigned process) {
  if (w.count >= INCARNATIONS_MAX - (w.healing ? 0 : 2 * IDS_MAX)) return NULL;
  node *n = &w.nodes[w.count];
  node_prepare(n);
  n->process = process ? process : w.count;
  n->alive = !process;
  n->slot = slot;
  n->who.id = id_of(slot);
  n->who.kind = kind;
  n->who.nonce = chance_next() | 1;
  messaging__port port = {n, worker_send, worker_report, NULL, NULL, NULL};
  n->clock_ms = on(BIT_CLOCK) ? below(100000) : 0;
  messaging__worker_init(&n->core, &port, &n->outbox, &n->inbox, &n->who, &w.options, clock_of(n));
  n->core.watched = n->who.id > 0;
  n->subscribe_at = w.now + between(1, 20);
  n->wake_at = w.now;
  TELL("process %u has handle %u, id %d", n->process, w.count, (int)n->who.id);
  w.count++;
  return n;
}

static void close_worker(node *n) {
  if (!n->open) return;
  n->open = n->subscribed = false;
  COVER_N(go_back, n->core.stats.batches_repeated);
  COVER_N(probe, n->core.probe);
  COVER_N(inbox_full, n->core.stats.refused);
  COVER_N(duplicate, n->core.stats.duplicates);
  if (n->leaving == 2 && n->inbox.terminated) w.term_asked[n->slot] = false; /* it left with that: who follows under its id need not hear of it */
  n->leaving = 0;
  n->subscribe_at = n->wake_at = MESSAGING__NEVER;
  messaging__worker_free(&n->core);
  messaging__outbox_free(&n->outbox);
  messaging__inbox_free(&n->inbox);
  link_clear(&n->down);
}

static bool process_alive(const node *n) { return w.nodes[n->process].alive; }

/* The end of a process, and of what had not left it. */
static void kill_process(node *n) {
  node *process = &w.nodes[n->process];
  TELL("process %u of id %d dies", n->process, (int)n->who.id);
  process->alive = false;
  process->notice_at = process->who.id > 0 ? w.now + below(100) : MESSAGING__NEVER;
  for (unsigned i = 1; i < w.count; i++)
    if (w.nodes[i].process == n->process) close_worker(&w.nodes[i]);
}

static node *living(unsigned slot) {
  for (unsigned i = w.count; i-- > 1;) {
    node *n = &w.nodes[i];
    if (n->slot == slot && n->open && !n->claimant && process_alive(n)) return n;
  }
  return NULL;
}

/* ---- one step of the world ---- */

static bool supervisor_takes(void) {
  bool any = false, more = true;
  unsigned frames = 0;
  while (more && frames < MESSAGING__STEP_FRAMES) {
    more = false;
    for (unsigned i = 1; i < w.count; i++) {
      messaging__slice frame;
      messaging__buffer *buffer;
      if (!link_take(&w.nodes[i].up, &frame, &buffer)) continue;
      CORE(messaging__im_receive(&w.im, frame, clock_of(&w.nodes[0])));
      messaging__buffer_drop(buffer);
      observe_supervisor();
      any = more = true;
      frames++;
    }
  }
  return any;
}

/* Subscriptions come to the publisher as frames do: "B" first. */
static bool take_subscription(node *n) {
  if (w.now < n->subscribe_at) return false;
  uint8_t bytes[1 + MESSAGING__TOPIC_SIZE] = {1};
  n->subscribe_at = MESSAGING__NEVER;
  n->subscribed = true;
  messaging__topic_of(bytes + 1, &n->who);
  CORE(messaging__im_subscribed(&w.im, bytes, sizeof bytes));
  observe_supervisor();
  return true;
}

/* A worker's own batches are left out from some time on after it was told its slot. */
static void tune(node *n) {
  if (!n->core.tune || below(3) == 0) return;
  n->core.tune = false;
  n->seat = n->core.slot;
  messaging__put_letters(n->letters, n->seat);
}

/* A pidfd has become readable. */
static bool take_notice(node *n) {
  if (w.now < n->notice_at) return false;
  n->notice_at = MESSAGING__NEVER;
  messaging__peer *peer = (messaging__peer *)messaging__map_get(&w.im.by_id, messaging__id_key(n->who.id));
  if (peer && peer->watch >= 0 && supervisor_died(NULL, peer->watch)) messaging__im_dead(&w.im, peer);
  observe_supervisor();
  return true;
}

static void supervisor_turn(void) {
  node *n = &w.nodes[0];
  if (w.now < n->paused_until) return;
  bool due = supervisor_takes();
  for (unsigned i = 1; i < w.count; i++) {
    if (take_subscription(&w.nodes[i])) due = true;
    if (take_notice(&w.nodes[i])) due = true;
  }
  if (due || w.now >= n->wake_at) pump(n);
}

static void worker_turn(node *n) {
  messaging__slice frame;
  messaging__buffer *buffer;
  bool due = w.now >= n->wake_at;
  if (w.now < n->paused_until) return;
  for (unsigned frames = 0; frames < MESSAGING__STEP_FRAMES && link_take(&n->down, &frame, &buffer); frames++) {
    bool own = frame.size > MESSAGING__AT_PAYLOAD && frame.data[1] == 0xa1 + MESSAGING__LETTERS && messaging__load_be(frame.data + MESSAGING__AT_NONCE, 8) == n->who.nonce;
    if (own) COVER(own_echo);
    CORE(messaging__worker_receive(&n->core, frame, clock_of(n)));
    tune(n);
    messaging__buffer_drop(buffer);
    observe_worker(n);
    due = true;
  }
  if (due) pump(n);
  if (w.healing && n->inbox.readable) app_receive(n, 1000);
}

static uint64_t link_due(const messaging__ring *link) {
  return link->count ? ((packet *)messaging__ring_at(link, 0))->at : MESSAGING__NEVER;
}

/* When something happens next. */
static uint64_t next_event(void) {
  const node *supervisor = &w.nodes[0];
  uint64_t at = supervisor->wake_at, due = w.app_at;
  for (unsigned i = 1; i < w.count; i++) {
    const node *n = &w.nodes[i];
    at = messaging__earlier(at, link_due(&n->up));
    at = messaging__earlier(at, messaging__earlier(n->subscribe_at, n->notice_at));
    if (n->open) due = messaging__earlier(due, messaging__later(n->paused_until, messaging__earlier(n->wake_at, link_due(&n->down))));
  }
  return messaging__earlier(due, messaging__later(at, supervisor->paused_until));
}

static void app_tick(void);

static void step(void) {
  CHECK(++w.steps < STEPS_MAX, "hang: more than %d steps", STEPS_MAX);
  w.now = messaging__later(w.now, next_event());
  supervisor_turn();
  if (w.healing && w.nodes[0].inbox.readable) app_receive(&w.nodes[0], 1000);
  for (unsigned i = 1; i < w.count; i++)
    if (w.nodes[i].open) worker_turn(&w.nodes[i]);
  if (w.now >= w.app_at) {
    w.app_at = w.now + (w.healing ? 100 : between(1, w.tick_ms));
    app_tick();
  }
}

/* ---- what applications do ---- */

static void send_one(node *n, bool output) {
  text t = {(uint64_t)index_of(n) << 32 | n->notes.count, ID_BYTES + below(w.text_max)};
  if (on(BIT_LARGE) && below(8) == 0) t.size = ID_BYTES + below((uint32_t)w.options.message_bytes_max + 64);
  bool urgent = false;
  messaging_status status;
  CORE(status = messaging__outbox_put(&n->outbox, output ? MESSAGING__OUTPUT : MESSAGING__RELAY, text_encode, &t, &urgent));
  if (status == MESSAGING_EFULL) COVER(efull);
  if (status == MESSAGING_ETOOBIG) COVER(etoobig);
  CHECK(status == MESSAGING_OK || status == MESSAGING_EFULL || (status == MESSAGING_ETOOBIG && t.size + 5 > w.options.message_bytes_max) ||
            (status == MESSAGING_ENOTRUNNING && n->outbox.closed) || (status == MESSAGING_ENOMEM && on(BIT_NO_MEMORY)),
        "lost: a send is refused: %s", messaging_strerror(status));
  if (status != MESSAGING_OK) return;
  note sent = {0, output ? 0 : IS_RELAY};
  model_push(&n->notes, &sent);
  if (output) COVER(output_sent);
  else COVER(relay_sent);
  if (!urgent) return;
  if (below(8)) pump(n);
  else n->wake_at = w.now; /* another thread held the core */
}

static void send_some(node *n) {
  for (uint32_t count = between(1, w.burst); count; count--) send_one(n, on(BIT_OUTPUTS) && below(4) == 0);
}

static void ask_termination(node *n) {
  n->term_wanted = true;
  TELL("%u asks for termination", index_of(n));
  if (index_of(n) == 0) {
    w.generations[w.generation].term_wanted[0] = true;
    messaging__im_term(&w.im, &w.im.self, clock_of(n));
  } else {
    if (n->was_joined) w.generations[n->generation].term_wanted[index_of(n)] = true;
    messaging__worker_terminate(&n->core, clock_of(n));
  }
  pump(n);
}

/* The application of a worker whose handle has ended receives what is left, then its process ends, or opens another handle. */
static void quit(node *n) {
  unsigned slot = n->slot, process = n->process;
  app_receive(n, 100000);
  if (n->claimant) {
    close_worker(n);
    return;
  }
  bool again = on(BIT_RESTART) && below(2) && !w.shutting;
  if (!again || w.count >= INCARNATIONS_MAX - 2 * IDS_MAX) {
    kill_process(n);
    return;
  }
  close_worker(n);
  open_worker(slot, kind_of(slot), process);
  COVER(reincarnated);
}

/* Exit: flushed, goodbye, closed. A clean one says that all was taken. */
static void leave_on(node *n) {
  bool flushed = messaging__worker_flushed(&n->core), late = w.now >= n->leave_by;
  if (n->leaving == 1 && !flushed && !late) {
    CORE(messaging__worker_hurry(&n->core, clock_of(n)));
    pump(n);
    return;
  }
  if (n->leaving == 1) {
    CHECK(w.lenient || !flushed || n->taken == n->notes.count, "lost: exit of %u says that all is accepted, taken are %" PRIu64 " of %zu", index_of(n), n->taken, n->notes.count);
    n->leaving = 2;
    n->leave_by = w.now + MESSAGING__GOODBYE_MS;
    if (n->core.state == MESSAGING__JOINED) messaging__worker_leave(&n->core, clock_of(n));
    pump(n);
    return;
  }
  if (!n->core.left && n->core.state == MESSAGING__JOINED && !late) return;
  if (n->core.left) COVER(left);
  else COVER(left_unheard);
  quit(n);
}

static void start_leaving(node *n) {
  TELL("%u leaves", index_of(n));
  n->leaving = 1;
  n->leave_by = w.now + w.options.exit_timeout_ms;
}

static void worker_misfortune(node *n) {
  if (!n->claimant && happens(BIT_CRASH)) {
    unsigned slot = n->slot;
    kill_process(n);
    if (on(BIT_RESTART)) open_worker(slot, kind_of(slot), 0);
    return;
  }
  if (happens(BIT_PAUSE_WORKER)) {
    n->paused_until = w.now + between(1, 3000);
    COVER(paused);
  }
  if (happens(BIT_CUT)) {
    n->cut_until = w.now + between(1, 1500);
    n->subscribed = false;
    n->subscribe_at = n->cut_until + between(1, 50);
    w.frames_lost += n->up.count + n->down.count;
    link_clear(&n->up);
    link_clear(&n->down);
    COVER(link_cut);
  }
  if (happens(BIT_CLOCK)) {
    n->clock_ms += below(below(4) ? 500 : 20000);
    n->wake_at = w.now;
    COVER(clock_jump);
  }
}

static void worker_app(node *n) {
  if (!w.healing) {
    worker_misfortune(n);
    if (!n->open) return;
  }
  if (w.now < n->paused_until) return;
  if (n->core.state == MESSAGING__OVER) {
    if (w.healing || below(4) == 0) quit(n);
    return;
  }
  if (n->leaving) leave_on(n);
  if (!n->open || w.healing) return;
  if (!n->leaving && below(4) == 0) send_some(n);
  if (below(10000) < (on(BIT_SLOW_APPS) ? 300u : 4000u)) app_receive(n, between(1, 50));
  if (happens(BIT_TERM)) ask_termination(n);
  if (happens(BIT_HURRY)) {
    CORE(messaging__worker_hurry(&n->core, clock_of(n)));
    pump(n);
  }
  if (!n->leaving && !n->claimant && happens(BIT_LEAVE)) start_leaving(n);
}

/* ---- the supervisor's list ---- */

static messaging__peer *peer_of(unsigned slot) { return (messaging__peer *)messaging__map_get(&w.im.by_id, messaging__id_key(id_of(slot))); }

static bool listed(unsigned slot) {
  const messaging__peer *peer = peer_of(slot);
  return peer && peer->state != MESSAGING__GONE;
}

/* A process for an id that is listed now: mostly at once, sometimes later. */
static void see_to_process(unsigned slot) {
  if (living(slot) || (on(BIT_LATE) && below(2))) return;
  open_worker(slot, kind_of(slot), 0);
}

/* An id has come onto the list: what it gets is what history holds now. */
static void newly_listed(unsigned slot) {
  const messaging__peer *peer = peer_of(slot);
  CHECK(peer, "complete: an id that was listed is not on the list");
  w.term_asked[slot] = false;
  w.floors[slot] = w.nodes[0].inbox.log.first;
  w.nonces[slot] = peer->who.nonce;
}

static void void_unseen(node *n, uint64_t end) {
  for (uint64_t i = n->seen; i < end; i++) note_at(n, i)->flags |= IS_VOID;
}

/* What a purge drops: all that the supervisor's application has not received, and its own that was not taken. */
static void model_purge(void) {
  node *own = &w.nodes[0];
  for (unsigned i = 0; i < w.count; i++) void_unseen(&w.nodes[i], w.nodes[i].taken);
  void_unseen(own, own->notes.count);
  own->taken = own->notes.count;
  generation_model *g = &w.generations[w.generation];
  g->app_next = log_count(w.generation) + 1;
}

static void purge(void) {
  node *own = &w.nodes[0];
  pump(own);
  model_purge();
  messaging__im_purge(&w.im);
  w.items_known = own->inbox.items.count;
  own->term_told = own->term_told || own->inbox.terminated;
  COVER(purged);
  pump(own);
}

/* A new generation has begun: what its history did not take of the supervisor's own is dropped with it. */
static void model_renew(bool purged) {
  node *own = &w.nodes[0];
  if (purged) model_purge();
  if (own->taken < own->notes.count) COVER(own_output_dropped);
  for (uint64_t i = own->taken; i < own->notes.count; i++) note_at(own, i)->flags |= IS_VOID;
  own->taken = own->notes.count;
  w.generation++;
  CHECK(w.im.era.generation == w.generation, "generation: none began");
  w.generations[w.generation].first = w.generations[w.generation].app_next = 1;
  w.items_known = own->inbox.items.count;
  w.inbox_allowed = own->inbox.bytes;
  own->term_told = own->term_wanted = false;
  if (w.items_known) COVER(generation_kept_items);
  COVER(generation_new);
}

/* Whether an id would survive an update: on the list, not dead, and meant with the same kind. */
static bool survives(unsigned slot) {
  const messaging__peer *peer = peer_of(slot);
  return listed(slot) && !(peer->watch >= 0 && supervisor_died(NULL, peer->watch));
}

static void update(uint32_t slots) {
  messaging_child children[IDS_MAX];
  bool was[IDS_MAX], any = false, purged;
  size_t count = 0;
  pump(&w.nodes[0]);
  for (unsigned slot = 0; slot < w.ids; slot++) {
    if (!(slots >> slot & 1)) continue;
    was[slot] = survives(slot);
    any = any || was[slot];
    children[count].pid = id_of(slot);
    children[count++].kind = kind_of(slot);
    if (!on(BIT_LATE) || below(2)) see_to_process(slot);
  }
  if (!any && w.generation + 1 >= GENERATIONS_MAX) return;
  purged = w.im.purged;
  TELL("update to %zu ids, mask %x%s", count, slots, any ? "" : ", a new generation");
  messaging_status status;
  CORE(status = messaging__im_update(&w.im, children, count, clock_of(&w.nodes[0])));
  if (status == MESSAGING_ENOMEM && on(BIT_NO_MEMORY)) {
    observe_supervisor(); /* all is as it was */
    return;
  }
  CHECK(status == MESSAGING_OK, "complete: update failed");
  if (any) COVER(update_survivors);
  else model_renew(purged);
  for (unsigned slot = 0; slot < w.ids; slot++) {
    if (!(slots >> slot & 1)) {
      CHECK(!peer_of(slot), "complete: an id that was struck is on the list");
      if (w.peer_states[slot] == MESSAGING__ACTIVE) COVER(struck);
      count_peer(NULL, slot);
    }
    if ((slots >> slot & 1) && (!was[slot] || !any)) newly_listed(slot);
  }
  observe_supervisor();
  pump(&w.nodes[0]);
  for (unsigned slot = 0; slot < w.ids; slot++)
    if (slots >> slot & 1) see_to_process(slot);
}

static void add(unsigned slot) {
  messaging_child child = {id_of(slot), kind_of(slot)};
  bool before = peer_of(slot) != NULL;
  see_to_process(slot);
  messaging_status status;
  CORE(status = messaging__im_add(&w.im, child, clock_of(&w.nodes[0])));
  TELL("add %d: %s", (int)child.pid, messaging_strerror(status));
  if (status == MESSAGING_OK) newly_listed(slot);
  if (status == MESSAGING_OK && before) COVER(relisted);
  CHECK(status == MESSAGING_OK || (status == MESSAGING_EINVAL && before) || (status == MESSAGING_ENOMEM && on(BIT_NO_MEMORY)), "complete: add failed");
  observe_supervisor();
  pump(&w.nodes[0]);
}

static uint32_t some_slots(void) {
  uint32_t slots = (uint32_t)chance_next() & ((1u << w.ids) - 1);
  return below(2) ? slots : slots | 1u << below(w.ids);
}

static uint32_t listed_slots(bool yes) {
  uint32_t slots = 0;
  for (unsigned slot = 0; slot < w.ids; slot++)
    if (listed(slot) == yes) slots |= 1u << slot;
  return slots;
}

static void supervisor_list(void) {
  if (happens(BIT_ADD)) add(below(w.ids));
  if (happens(BIT_UPDATE)) update(some_slots() | (below(2) ? listed_slots(true) : 0));
  if (happens(BIT_RENEW) && w.generation + 2 < GENERATIONS_MAX) update(some_slots() & listed_slots(false));
  if (happens(BIT_PURGE)) purge();
  if (happens(BIT_TERM_TO)) {
    unsigned slot = below(w.ids);
    messaging_status status = messaging__im_term_to(&w.im, id_of(slot), clock_of(&w.nodes[0]));
    CHECK((status == MESSAGING_OK) == listed(slot), "terminate: asking one gives %s", messaging_strerror(status));
    if (status == MESSAGING_OK) {
      w.term_asked[slot] = w.term_asked_ever[slot] = true;
      COVER(terminate_one);
    }
    pump(&w.nodes[0]);
  }
  if (happens(BIT_CLAIM)) {
    unsigned slot = below(w.ids);
    node *first = living(slot), *n = first ? open_worker(slot, below(2) ? kind_of(slot) : 99, first->process) : NULL;
    if (n) n->claimant = true;
  }
}

static void supervisor_app(void) {
  node *n = &w.nodes[0];
  if (happens(BIT_PAUSE_SUPERVISOR)) {
    n->paused_until = w.now + between(1, 3000);
    COVER(paused);
  }
  if (happens(BIT_CLOCK)) {
    n->clock_ms += below(below(4) ? 500 : 20000);
    n->wake_at = w.now;
    COVER(clock_jump);
  }
  if (w.now < n->paused_until) return;
  supervisor_list();
  if (on(BIT_OWN) && below(4) == 0) send_some(n);
  if (below(10000) < (on(BIT_SLOW_APPS) ? 300u : 4000u)) app_receive(n, between(1, 50));
  if (happens(BIT_TERM)) ask_termination(n);
  if (happens(BIT_HURRY)) {
    CORE(messaging__im_hurry(&w.im, clock_of(n)));
    pump(n);
  }
}

/* The healing supervisor lists whoever lives, and sees to a process for each listed id. */
static void heal_list(void) {
  for (unsigned slot = 0; slot < w.ids; slot++) {
    node *n = living(slot);
    if (n && !listed(slot) && !n->leaving && n->core.state == MESSAGING__ANNOUNCING) add(slot);
    const messaging__peer *peer = peer_of(slot);
    if (!n && listed(slot) && peer->state != MESSAGING__LEFT && !peer->silent && w.count < INCARNATIONS_MAX) {
      bool dies = peer->watch >= 0 && supervisor_died(NULL, peer->watch);
      if (!dies) open_worker(slot, kind_of(slot), 0);
    }
  }
}

static void app_tick(void) {
  if (!w.healing) supervisor_app();
  else if (!w.shutting) heal_list();
  for (unsigned i = 1; i < w.count; i++)
    if (w.nodes[i].open) worker_app(&w.nodes[i]);
}

/* ---- complete, and quiet ---- */

static bool term_expected(const node *n) {
  for (size_t i = 0; i < w.im.term_count; i++)
    if (w.im.terms[i].nonce != n->who.nonce) return true;
  return w.term_asked[n->slot];
}

static const char *unfinished_peer(const messaging__peer *peer) {
  if (peer->state == MESSAGING__GONE) return NULL;
  node *n = living(slot_of(peer->who.id));
  if (!n) return peer->state == MESSAGING__LEFT || peer->silent ? NULL : "a listed worker has no process";
  if (n->leaving || n->core.state == MESSAGING__OVER) return "a worker is leaving";
  if (peer->who.nonce != n->who.nonce || peer->state != MESSAGING__ACTIVE) return "a live worker is not accepted";
  if (n->core.state != MESSAGING__JOINED) return "a live worker has no welcome";
  if (!peer->confirmed) return "a live worker is not confirmed";
  if (n->core.next != messaging__im_next(&w.im)) return "a live worker has not everything";
  if (peer->has != n->core.next) return "the supervisor does not know that a worker has everything";
  if (n->core.flights.count || n->outbox.bytes) return "a worker's messages are not confirmed";
  if (n->inbox.readable) return "a worker's application has not everything";
  if (term_expected(n) && !n->inbox.terminated) return "a worker has not heard of termination";
  if (!term_expected(n) && n->inbox.terminated && !w.term_asked_ever[n->slot]) return "a worker is terminated, and nobody asked for it";
  if (n->term_wanted && !n->core.term_echoed) return "a worker's termination was not heard";
  if (term_expected(n) && !peer->term_seen) return "the supervisor does not know that a worker terminates";
  return NULL;
}

static void tell_state(void) {
  TELL("supervisor: next %" PRIu64 ", history from %" PRIu64 ", %zu bytes", messaging__im_next(&w.im), w.nodes[0].inbox.log.first, w.nodes[0].inbox.log.bytes);
  for (size_t i = 0; i < w.im.peers.count; i++) {
    const messaging__peer *p = messaging__im_peer(&w.im, i);
    TELL("  peer %d: state %d, nonce %" PRIx64 ", has %" PRIu64 ", expected %" PRIu64 "%s%s%s%s", (int)p->who.id, (int)p->state, p->who.nonce, p->has, p->expected,
         p->confirmed ? ", confirmed" : "", p->silent ? ", silent" : "", p->blocked ? ", blocked" : "", p->term_seen ? ", terminates" : "");
  }
  for (unsigned i = 1; i < w.count; i++) {
    const node *n = &w.nodes[i];
    if (n->open)
      TELL("  %u (%d): state %d, nonce %" PRIx64 ", generation %u, next %" PRIu64 " of %" PRIu64 ", number %" PRIu64 ", flights %zu from %" PRIu64 ", window %" PRIu64 ", outbox %zu%s%s",
           i, (int)n->who.id, (int)n->core.state, n->who.nonce, n->generation, n->core.next, n->core.known, n->core.number, n->core.flights.count,
           n->core.flights.count ? ((messaging__flight *)messaging__ring_at(&n->core.flights, 0))->number : 0, n->core.window, n->outbox.bytes,
           n->leaving ? ", leaves" : "", n->inbox.terminated ? ", terminated" : "");
  }
}

static const char *unfinished(void) {
  const node *own = &w.nodes[0];
  if (own->outbox.bytes) return "the supervisor's messages are not out";
  if (own->inbox.readable) return "the supervisor's application has not everything";
  for (unsigned i = 1; i < w.count; i++) {
    const node *n = &w.nodes[i];
    if (n->open && n->leaving) return "a worker is leaving";
    if (!n->open && n->up.count) return "frames of a closed handle are under way";
    if (!n->open || listed(n->slot)) continue;
    if (n->core.state != MESSAGING__ANNOUNCING) return "a worker that was struck is not told";
  }
  for (size_t i = 0; i < w.im.peers.count; i++) {
    const char *reason = unfinished_peer(messaging__im_peer(&w.im, i));
    if (reason) return reason;
  }
  return NULL;
}

/* All that was accepted of those who live was taken, and all that was taken has arrived. */
static void check_complete(void) {
  for (unsigned i = 0; i < w.count; i++) {
    node *n = &w.nodes[i];
    if (i == 0 || (n->open && n->core.state == MESSAGING__JOINED))
      CHECK(n->taken == n->notes.count, "lost: of %u, %" PRIu64 " of %zu messages were taken", i, n->taken, n->notes.count);
    if (i && n->open && n->core.state == MESSAGING__JOINED) {
      check_skipped(n, n->generation, n->app_next, log_count(n->generation) + 1, &n->gaps);
      if (n->inbox.terminated) COVER(terminate_worker);
    }
    for (; n->seen < n->taken; n->seen++) {
      uint8_t flags = note_at(n, n->seen)->flags;
      CHECK((flags & IS_VOID) || (i == 0 && (flags & IS_RELAY)), "lost: the supervisor did not get message %" PRIu64 " of %u", n->seen, i);
    }
  }
  if (w.im.term_count == 2) COVER(terminate_two);
  bool asked = false;
  for (size_t i = 0; i < w.im.term_count; i++) asked = asked || w.im.terms[i].nonce != w.im.self.nonce;
  CHECK(w.nodes[0].inbox.terminated == asked, "terminate: the supervisor's application has not heard of it");
  if (asked) COVER(terminate_supervisor);
}

/* ---- a world ---- */

/* All memory of the core, as a multiple of the limits. A handle also has chunks for small frames, and rings. */
static void check_memory(void) {
  const messaging_options *o = &w.options;
  size_t handles = 1, allowed = 4 * o->history_bytes_max + (1u << 20);
  for (unsigned i = 1; i < w.count; i++) handles += w.nodes[i].open;
  allowed += handles * (6 * o->outbox_bytes_max + 4 * o->inbox_bytes_max + (1u << 19));
  CHECK(memory_now - model_memory <= allowed, "memory: %zu bytes, with limits for %zu", memory_now - model_memory, allowed);
}

/* Which kinds of fault a world has. Some worlds have loss alone, for the cost of repair; some have bit errors, for safety alone. */
static uint64_t choose_mask(void) {
  const uint64_t one = 1;
  uint64_t mask = 0, kind = below(32);
  if (kind < 3) return one << BIT_LOSS | one << BIT_OUTPUTS | one << BIT_OWN | one << BIT_LARGE | (uint64_t)below(2) << BIT_FAR;
  uint32_t share = between(1, 6);
  for (unsigned i = 0; i < FAULT_COUNT; i++)
    if (below(8) < share) mask |= one << i;
  if (kind >= 5) mask &= ~(one << BIT_BITS);
  return mask;
}

static bool loss_alone(void) {
  const uint64_t one = 1;
  return on(BIT_LOSS) && (w.mask & ~(one << BIT_LOSS | one << BIT_OUTPUTS | one << BIT_OWN | one << BIT_LARGE | one << BIT_FAR)) == 0;
}

static void choose_rates(void) {
  static const uint32_t severe[] = {50, 200, 1000, 3000};
  static const unsigned frames[] = {BIT_LOSS, BIT_DUPLICATE, BIT_REORDER, BIT_TRUNCATE, BIT_STALL, BIT_BITS, BIT_NO_MEMORY};
  for (unsigned i = 0; i < FAULT_COUNT; i++) w.rate[i] = 1u << below(9); /* of what happens to a process, at each tick */
  for (unsigned i = 0; i < sizeof frames / sizeof frames[0]; i++) w.rate[frames[i]] = severe[below(4)];
  if (w.rate[BIT_TERM] > 16) w.rate[BIT_TERM] = 16;
  if (w.rate[BIT_RENEW] > 64) w.rate[BIT_RENEW] = 64;
  w.delay_ms = 1u << between(1, 9);
  w.far_ms = 1u << between(1, on(BIT_TINY_QUEUES) ? 2 : 7); /* a tiny queue takes one batch in a round trip */
  w.tick_ms = 1u << between(1, 5);
  w.chaos_ms = 100u << below(5);
  w.burst = 1u << below(6);
  w.text_max = 1u << between(1, 6);
  w.hwm = below(4) ? 1000 : between(8, 100);
}

static void choose_options(void) {
  static const uint32_t heartbeats[] = {200, 500, 1000, 2000};
  messaging_options *o = &w.options;
  o->heartbeat_ms = heartbeats[below(4)];
  o->silence_ms = o->heartbeat_ms * between(3, 5);
  o->exit_timeout_ms = between(0, 3) * 1000;
  o->message_bytes_max = on(BIT_LARGE) ? 1u << between(8, 15) : 256;
  o->outbox_bytes_max = on(BIT_TINY_QUEUES) ? o->message_bytes_max * between(2, 8) : 1u << 18;
  o->inbox_bytes_max = on(BIT_TINY_QUEUES) ? o->message_bytes_max * between(2, 8) : 1u << 18;
  o->history_bytes_max = on(BIT_TINY_HISTORY) ? o->message_bytes_max * between(2, 64) : 1u << 24;
  /* What waits passes through a full history at one history's worth in about 50 ms; healing has to have the time for it. */
  if (o->outbox_bytes_max > 8 * o->history_bytes_max) o->outbox_bytes_max = 8 * o->history_bytes_max;
  o->fence_slow = on(BIT_FENCE);
}

static void begin_world(uint64_t seed, uint64_t removed) {
  memset(&w, 0, sizeof w);
  in_core = false;
  w.seed = w.random = seed;
  w.mask = choose_mask() & ~removed;
  w.lenient = on(BIT_BITS);
  choose_rates();
  choose_options();
  w.ids = between(1, on(BIT_ADD) || on(BIT_RENEW) ? IDS_MAX : 6);
  node *own = &w.nodes[0];
  node_prepare(own);
  own->alive = true;
  w.count = 1;
  own->who.id = 100;
  own->who.nonce = chance_next() | 1;
  messaging__port port = {own, supervisor_send, supervisor_report, supervisor_watch, supervisor_unwatch, supervisor_died};
  uint8_t session[16];
  messaging__store_be(session, chance_next(), 8);
  messaging__store_be(session + 8, chance_next(), 8);
  messaging__im_init(&w.im, &port, &own->outbox, &own->inbox, &own->who, session, &w.options);
  if (on(BIT_LARGE)) w.im.large_bytes = w.options.message_bytes_max / 2;
  if (on(BIT_CROWD)) w.im.slots = ~(uint64_t)0 << between(1, 4); /* as if others had them */
  for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
    messaging__ring_init(&w.generations[i].ids, sizeof(uint64_t));
    messaging__ring_init(&w.generations[i].gaps, sizeof(gap));
    w.generations[i].first = w.generations[i].app_next = 1;
  }
  for (unsigned i = 0; i < IDS_MAX; i++) w.peer_states[i] = 4;
  own->wake_at = MESSAGING__NEVER;
}

static void run_supervisor(void) {
  messaging_child children[IDS_MAX];
  size_t count = 0;
  uint32_t slots = on(BIT_ADD) || on(BIT_RENEW) || on(BIT_UPDATE) ? some_slots() : (1u << w.ids) - 1;
  for (unsigned slot = 0; slot < w.ids; slot++) {
    if (!(slots >> slot & 1)) continue;
    see_to_process(slot);
    children[count].pid = id_of(slot);
    children[count++].kind = kind_of(slot);
  }
  w.generation = 1;
  CHECK(messaging__im_run(&w.im, children, count, clock_of(&w.nodes[0])) == MESSAGING_OK, "complete: run failed");
  for (unsigned slot = 0; slot < w.ids; slot++)
    if (slots >> slot & 1) newly_listed(slot);
  observe_supervisor();
  pump(&w.nodes[0]);
}

static void end_world(void) {
  node *own = &w.nodes[0];
  messaging__im_free(&w.im);
  messaging__outbox_free(&own->outbox);
  messaging__inbox_free(&own->inbox);
  for (unsigned i = 0; i < w.count; i++) {
    node *n = &w.nodes[i];
    if (i) close_worker(n);
    link_clear(&n->up);
    model_free(&n->up);
    model_free(&n->down);
    model_free(&n->notes);
    model_free(&n->batch_ends);
    model_free(&n->gaps);
  }
  for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
    model_free(&w.generations[i].ids);
    model_free(&w.generations[i].gaps);
  }
  CHECK(memory_now == 0, "memory: %zu bytes were not freed", memory_now);
}

static void run_until(uint64_t end) {
  while (w.now < end) {
    step();
    check_memory();
  }
}

/* The faults end: links, processes and clocks are well. Second claimants go, so that it is clear who must be served. */
static void heal(void) {
  TELL("healing");
  w.healing = true;
  w.hwm = 1000;
  for (unsigned i = 0; i < w.count; i++) {
    node *n = &w.nodes[i];
    n->paused_until = n->cut_until = 0;
    if (i && n->claimant) close_worker(n);
    if (i && n->open && !n->subscribed) n->subscribe_at = w.now + 1;
    n->wake_at = w.now;
  }
  w.app_at = w.now;
}

static void check_quiet(void) {
  run_until(w.now + SETTLE_MS);
  uint64_t before = w.frames_up + w.frames_down, handles = 1;
  run_until(w.now + QUIET_BEATS * w.options.heartbeat_ms);
  for (unsigned i = 1; i < w.count; i++) handles += w.nodes[i].open;
  uint64_t frames = w.frames_up + w.frames_down - before;
  if (frames > handles * (QUIET_BEATS + 2)) tell_state();
  CHECK(frames <= handles * (QUIET_BEATS + 2), "quiet: %" PRIu64 " frames of %" PRIu64 " handles in %d heartbeats", frames, handles, QUIET_BEATS);
}

static struct {
  uint64_t lost, repeated, worst; /* worst: tenths of what was lost, in the worst world that lost enough to tell */
} cost_repairs, cost_batches;

static void check_one_cost(const char *what, uint64_t lost, uint64_t repeated, uint64_t factor, uint64_t *worst) {
  if (lost >= COST_FREE && *worst < repeated * 10 / lost) *worst = repeated * 10 / lost;
  CHECK(repeated <= COST_FREE + factor * lost, "cost: %" PRIu64 " batches %s for %" PRIu64 " lost", repeated, what, lost);
}

/* Downwards, what is lost is sent again, and little else: batches against batches; what a worker had no room for, or what was published before it joined, is as good as lost.
 * Upwards, all that is on the wire behind a lost frame is sent again: batches against frames. */
static void check_cost(void) {
  uint64_t repaired = w.im.stats.batches_repeated, repeated = 0;
  for (unsigned i = 1; i < w.count; i++) {
    repeated += w.nodes[i].core.stats.batches_repeated;
    w.batches_lost += w.nodes[i].core.stats.refused;
  }
  cost_repairs.lost += w.batches_lost, cost_repairs.repeated += repaired;
  cost_batches.lost += w.frames_lost, cost_batches.repeated += repeated;
  check_one_cost("in repairs", w.batches_lost, repaired, COST_REPAIRS, &cost_repairs.worst);
  check_one_cost("sent up again", w.frames_lost, repeated, COST_BATCHES, &cost_batches.worst);
}

static void count_stats(void) {
  COVER_N(stale, w.im.stats.stale);
  COVER_N(repair_asked, w.im.stats.repairs_asked);
  COVER_N(duplicate, w.im.stats.duplicates);
  COVER_N(history_fenced, w.fence_reports);
}

/* The supervisor says goodbye: all who are connected hear of it, and end. */
static void part(void) {
  uint64_t end = w.now + 5000;
  w.shutting = true;
  messaging__im_leave(&w.im, clock_of(&w.nodes[0]));
  pump(&w.nodes[0]);
  while (!messaging__im_parted(&w.im) && w.now < end) step();
  CHECK(messaging__im_parted(&w.im), "complete: a worker does not know that the supervisor leaves");
  COVER(supervisor_left);
}

static void live_world(void) {
  run_supervisor();
  run_until(w.chaos_ms);
  heal();
  uint64_t end = w.now + HEAL_MS + (on(BIT_FAR) ? HEAL_TRIPS * 2 * w.far_ms : 0);
  if (w.lenient) {
    run_until(end / 4);
    return;
  }
  const char *reason;
  do {
    if (w.now >= end) tell_state();
    CHECK(w.now < end, "complete: %s", unfinished());
    run_until(w.now + 50);
  } while ((reason = unfinished()) != NULL);
  TELL("complete");
  COVER(complete);
  check_complete();
  check_quiet();
  if (loss_alone()) check_cost();
  if (on(BIT_GOODBYE)) part();
}

/* Lives one world. False: it failed, and failure says how. */
static bool try_world(uint64_t seed, uint64_t removed) {
  memory_now = model_memory = 0;
  if (setjmp(failed)) return false;
  begin_world(seed, removed);
  live_world();
  count_stats();
  end_world();
  return true;
}

static void print_mask(uint64_t mask) {
  for (unsigned i = 0; i < FAULT_COUNT; i++)
    if (mask >> i & 1) printf(" %s", fault_names[i]);
  putchar('\n');
}

/* Switches off one kind of fault after the other while the world still fails. */
static bool fails_alike(uint64_t seed, uint64_t removed, const char *invariant) {
  if (try_world(seed, removed)) return false;
  const char *name = strstr(failure, ": ") + 2;
  return strncmp(name, invariant, strcspn(invariant, ":") + 1) == 0;
}

static uint64_t shrink(uint64_t seed, uint64_t removed) {
  uint64_t mask = w.mask;
  char invariant[sizeof failure];
  snprintf(invariant, sizeof invariant, "%s", strstr(failure, ": ") + 2);
  for (unsigned i = 0; i < 2 * FAULT_COUNT; i++) {
    uint64_t bit = (uint64_t)1 << i % FAULT_COUNT;
    if ((mask & ~removed & bit) && fails_alike(seed, removed | bit, invariant)) removed |= bit;
  }
  return removed;
}

static void explain(uint64_t seed, uint64_t removed) {
  printf("FAILED seed %" PRIu64 ": %s\n  with", seed, failure);
  print_mask(w.mask);
  removed = shrink(seed, removed);
  if (try_world(seed, removed)) return;
  printf("  shrunk: %s\n  with", failure);
  print_mask(w.mask);
  printf("  again: sim --seed %" PRIu64 " --without 0x%" PRIx64 " --tell\n", seed, removed);
  fflush(stdout);
}

static void print_moves(void) {
  static const char *const workers[] = {"announcing", "joined", "over"}, *const peers[] = {"listed", "active", "left", "gone", "unlisted"};
  for (unsigned i = 0; i < 3; i++)
    for (unsigned k = 0; k < 3; k++)
      if (worker_moves[i][k]) printf("worker %s to %-24s %12" PRIu64 "\n", workers[i], workers[k], worker_moves[i][k]);
  for (unsigned i = 0; i < 5; i++)
    for (unsigned k = 0; k < 5; k++)
      if (peer_moves[i][k]) printf("peer %s to %-24s %12" PRIu64 "\n", peers[i], peers[k], peer_moves[i][k]);
}

static void print_covered(void) {
  print_moves();
  for (unsigned i = 0; i < COVER_COUNT; i++) printf("%-24s %12" PRIu64 "%s\n", cover_names[i], covered[i], covered[i] ? "" : "   NOT REACHED");
}

static uint64_t seconds_ms(void) { return messaging__now_ms(); }

static volatile uint64_t running_seed;

/* A crash of the core is a finding: say which world. */
static void crashed(int sig) {
  char line[64];
  int size = snprintf(line, sizeof line, "CRASHED (signal %d) seed %" PRIu64 "\n", sig, running_seed);
  if (write(STDOUT_FILENO, line, (size_t)size) < 0) _exit(3);
  _exit(2);
}

int main(int argc, char **argv) {
  uint64_t from = 1, seeds = 1000, seconds = 0, removed = 0, failures = 0, failures_max = 10, ran = 0;
  bool one = false, plain = false;
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : "0";
    if (strncmp(argv[i], "SEEDS=", 6) == 0) seeds = strtoull(argv[i] + 6, NULL, 0);
    else if (strncmp(argv[i], "FROM=", 5) == 0) from = strtoull(argv[i] + 5, NULL, 0);
    else if (strncmp(argv[i], "FAILURES=", 9) == 0) failures_max = strtoull(argv[i] + 9, NULL, 0);
    else if (strcmp(argv[i], "--quick") == 0) seconds = strtoull(value, NULL, 0), seeds = UINT64_MAX, i++;
    else if (strcmp(argv[i], "--seed") == 0) from = strtoull(value, NULL, 0), seeds = 1, one = true, i++;
    else if (strcmp(argv[i], "--without") == 0) removed = strtoull(value, NULL, 0), i++;
    else if (strcmp(argv[i], "--tell") == 0) verbose = true;
    else if (strcmp(argv[i], "--plain") == 0) plain = true; /* no shrinking, no counts */
    else return fprintf(stderr, "sim [SEEDS=n] [FROM=n] [FAILURES=n] [--quick seconds] [--seed n [--without mask] [--tell]]\n"), 64;
  }
  signal(SIGSEGV, crashed);
  signal(SIGABRT, crashed);
  signal(SIGFPE, crashed);
  mallopt(M_TRIM_THRESHOLD, 256 << 20); /* one world after the other: what one gave back, the next one takes */
  mallopt(M_MMAP_THRESHOLD, 64 << 20);
  uint64_t start = seconds_ms();
  for (uint64_t i = 0; i < seeds && failures < failures_max; i++) {
    if (seconds && (ran & 63) == 0 && seconds_ms() - start >= seconds * 1000) break;
    running_seed = from + i;
    ran++;
    if (try_world(from + i, removed)) continue;
    failures++;
    if (one || plain) printf("FAILED seed %" PRIu64 ": %s\n", from + i, failure);
    else explain(from + i, removed);
  }
  double spent = (double)(seconds_ms() - start) / 1000.0, busy = (double)clock() / CLOCKS_PER_SEC;
  if (!one && !plain) print_covered();
  printf("cost of loss downwards: %" PRIu64 " batches lost, %" PRIu64 " in repairs; worst world %.1f times\n", cost_repairs.lost, cost_repairs.repeated,
         (double)cost_repairs.worst / 10);
  printf("cost of loss upwards: %" PRIu64 " frames lost (both ways), %" PRIu64 " batches sent again; worst world %.1f times\n", cost_batches.lost,
         cost_batches.repeated, (double)cost_batches.worst / 10);
  printf("%" PRIu64 " worlds in %.1f s, %.0f a second of processor time; seeds from %" PRIu64 "; %" PRIu64 " failed; memory at most %zu bytes\n", ran, spent,
         (double)ran / (busy > 0 ? busy : 1), from, failures, memory_peak);
  return failures ? 1 : 0;
}
