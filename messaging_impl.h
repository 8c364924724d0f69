/*
 * messaging_impl.h - the machine behind messaging.h
 *
 * The picture
 *
 *      application threads              background thread                 libzmq's thread
 *      typed stamp           ->  outbox: open batch, sealed batches  ->  protocol  ->  XPUB (supervisor), PUSH (worker)
 *                            <-  inbox: frames, decoded in recv      <-  core      <-  PULL (supervisor), SUB (worker)
 *
 * A worker's message is encoded into its outbox's open batch. The batch travels as one frame over PUSH to the supervisor's PULL. The
 * supervisor takes each worker's batches in order, gives a relay batch the next numbers, writes the first of them into the frame where
 * it lies, keeps the frame in its history, and publishes it over XPUB to all others. Every worker delivers batches in the order of the numbers and
 * asks for what is missing; the supervisor answers from the history on a topic that only this worker hears. The payload is encoded
 * once, by the sender, and decoded once by each receiver, in recv, on the thread that asked for it.
 *
 * The threads
 *
 * Each handle has one background thread of its own, and a libzmq context with one I/O thread. The background thread takes a bounded
 * step (some frames in, what is due and what can go out) and then sleeps in epoll on descriptors: of the two sockets (a worker's output while it takes
 * nothing), of a timer, of a wake-up, of libzmq's word of connections, of a pidfd for each process to be watched. It never sleeps inside libzmq and
 * nothing ever polls.
 *   Whoever holds the lock `core` may take a step, which is how the background thread is kept out of the way when it is not needed:
 *   - A thread that sends and finds core free puts the batch on the socket itself. When it is taken, it leaves word in `work`, and whoever
 *     lets go of core looks there (kick, unlock); where that may be to wait for progress, the background thread is woken instead. So no send
 *     waits for a step, and no message is left behind. What it sends a moment later it leaves to the background thread, too (hurry_out).
 *   - A thread in wait reads the socket itself. While it sleeps, the kernel wakes it in the background thread's place (share).
 * Where libzmq's thread and another want the same one of several processors, libzmq's goes first, and where there is only one, last (set_slice).
 *   An operation on a libzmq socket swallows the edge of its ZMQ_FD for everybody else. So: the input socket is read until it is empty, or
 * whoever stops earlier sees to another step; the output socket is looked at again after everything that was sent (look_at_out).
 *
 * Who owns what
 *
 * Three locks, in this order: core (protocol and sockets), then the outbox's or the inbox's, each held for moments. gate stands before core
 * and makes it fair. Everything hangs off the handle, and the handle belongs to the process that made it: its page is wiped in a
 * forked child, so that every call there knows without a lock or a system call. Frames are buffers with a reference count; the history,
 * the inbox, a batch of recv and libzmq's threads may hold the same one. Small frames are copied behind each other into chunks, since a
 * small frame as libzmq hands it over pins the 8 KB block that it was received in. A burst's batches lie in blocks that are used again, a large history in
 * blocks, too.
 *
 * The wire
 *
 * Documented at "Frames", for whoever writes a peer in another language.
 *
 * The protocol's invariants
 *
 *   1. A relay number is given once, by the supervisor, to a message that it has in its history; numbers of a generation have no gap.
 *   2. A worker's batches are taken in the order of their numbers, each once: the next one or none. Identity is (nonce, number), never
 *      content; the nonce is new with each incarnation of a worker, so a reused pid is not mistaken for its former owner.
 *   3. A batch is acknowledged when the supervisor owns it: when a relay batch is in the history, an output batch in the inbox. Its sender
 *      learns so from a status, or from the next batch or heartbeat that it hears, which says whose the numbers before it are (the run).
 *      Until then the worker keeps it and will send it again.
 *   4. A worker delivers number n only after n - 1 was delivered or is known to be its own. It acknowledges what is in its inbox.
 *   5. History below what somebody live on the list has acknowledged is never trimmed, unless that somebody is fenced and told.
 *   6. Nothing depends on a frame arriving: what is not answered is said again, ever more seldom (hello, probe, ask, reminders, terminate,
 *      goodbye), and each repetition is idempotent. Once everybody has everything, heartbeats alone are left.
 *   7. Termination is a state of the generation, carried by every status and heartbeat, not a place in the order.
 *   8. Frames of another session, generation or incarnation are counted and ignored.
 *
 * Why it is so
 *
 * - A pure core: a state machine without socket, thread and clock runs in a simulator that loses, doubles, delays and kills by a
 *   seed, thousands of worlds a second. The shell around it only moves bytes.
 * - Own acknowledgements: libzmq drops silently at a high-water mark (PUB) and loses what it accepted when a peer goes (PUSH), measured; no
 *   option changes that without letting one stopped subscriber stop all others.
 * - Batches form while something else is on its way, not by time. A lone message leaves at once; a burst's next ones gather until the background thread is
 *   awake; and while four batches are on the wire, the open one waits and grows, until the answer to the second takes it along. So a burst leaves in frames
 *   of 96 to 192 KB (of large messages, up to 800), and no timer delays anything.
 * - Nobody wakes to acknowledge: for most acknowledgements nobody waits, so they go with the heartbeats that go anyway. Whoever needs one asks: a
 *   sender in a burst, or whose queue fills, or that flushes; a supervisor whose history fills. Who has received much says so unasked, since a question
 *   would stand in the same queue. What got lost shows by the next batch; or else, downwards, by the next heartbeat; upwards, when its sender asks, after
 *   a second and a bit. That is soon enough, since a connection loses nothing while it holds, but at a high-water mark; and one that was cut mostly shows
 *   as a new subscription, upon which both ends say how far they are.
 * - Nobody hears himself: two thirds of what a round trip cost beyond bare libzmq was that the sender's threads woke for its own broadcast,
 *   before the receiver's. So each of the first 63 workers has a slot, the topic of a batch spells its sender's, and a worker subscribes to
 *   all others. What became of its batches it is told by the run, which rides on what is sent anyway.
 * - Silence is a guess, and it may be wrong: whoever fell silent is reported once, and everything is kept so that it can go on where it was
 *   (a worker shows its application termination meanwhile). Only a pidfd, a goodbye or the list ends somebody for good.
 * - What is lost on the way up is sent again with all that is behind it: at most 32 batches or 2 MB are on the wire, and once in a round
 *   trip is enough, which a numbered question behind the repetition makes sure of. Downwards, where a gap may have gigabytes behind it,
 *   ranges are asked for.
 * - The supervisor is one writer and the order is its log. Workers need no agreement among themselves, and recovery is one question: from
 *   which number on.
 * - New memory may cost a burst, or a large message, more than all else that happens to its bytes. So blocks are used again, what is
 *   written next is touched 64 KB at a time, and the next block is made ready by the background thread, in huge pages, as long as those are cheap.
 * - A socket whose buffer holds less than a frame makes its sender and its reader take turns, which costs more than copying the bytes. So unix sockets get
 *   room for a large frame or two, as far as the system allows it; but a supervisor of more than 128 workers, whose slowest could fill much memory, leaves
 *   its connections as they are.
 * - Whoever sends is about to sleep, and libzmq's thread, woken on the same processor, waited until it did, or was moved to another one, which takes
 *   longer still. With a slice a little shorter than others' it goes first: on two cores a round trip takes 0.79 to 0.94 times what libzmq's takes, in
 *   place of 1.08. On a single core that would cost a switch whenever somebody sends, so there it has a longer one: whoever sends goes on until it sleeps,
 *   and beside workers that compute all the time messages arrive sooner. Slices are Linux's means for this (from 6.12 on), and need no
 *   privilege; they change who is first, not who gets how much. libzmq's thread inherits its own from one that makes the sockets and ends; no thread of
 *   the application's has it.
 * - Limits are on bytes that wait, everywhere, and a full queue says so to whoever could stop: the sending application (EFULL), the worker
 *   (a window of 0), the supervisor (a credit of 0).
 *
 * Contents
 *   Platform
 *   Limits
 *   Rings
 *   Maps
 *   Buffers
 *   Cursor
 *   Objects
 *   Frames
 *   Outbox
 *   History
 *   Inbox
 *   Protocol
 *   Worker
 *   Supervisor
 *   Shell
 *   Keys
 *   Calls
 */
#ifndef MESSAGING__IN_MESSAGING_H
#error "include messaging.h, not messaging_impl.h"
#endif

#include <asm/socket.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#ifdef __cplusplus
extern "C" { /* glibc 2.36 forgot */
#endif
#include <sys/pidfd.h>
#ifdef __cplusplus
}
#endif
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifdef __cplusplus
#include <type_traits>
#endif

/* ==== Platform ======================================================================================================== */

#define MESSAGING__UNUSED __attribute__((unused))
#define MESSAGING__STAMP MESSAGING__UNUSED static inline
#define MESSAGING__CALL MESSAGING__UNUSED __attribute__((warn_unused_result)) static inline messaging_status
/* Compiled into each of its callers, for which its arguments are constants. */
#ifdef __OPTIMIZE__
#define MESSAGING__UNFOLD __attribute__((always_inline))
#else
#define MESSAGING__UNFOLD
#endif

/* MESSAGING_MAKE's compile-time checks. A callback is compared by type in C and by conversion in C++, where noexcept is a type. */
#ifdef __cplusplus
#define MESSAGING__CHECK(condition, text) static_assert(condition, text)
#define MESSAGING__HAS_TYPE(function, ...) (std::is_convertible<decltype(&function), __VA_ARGS__>::value)
#define MESSAGING__IS_PLAIN(type) __is_trivially_copyable(type)
#else
#define MESSAGING__CHECK(condition, text) _Static_assert(condition, text)
#define MESSAGING__HAS_TYPE(function, ...) _Generic((function), __VA_ARGS__ : 1, default : 0)
#define MESSAGING__IS_PLAIN(type) 1
#endif
#define MESSAGING__IS_ALIGNED(type) (__alignof__(type) <= __alignof__(max_align_t)) /* as malloc's memory is */

/* <stdatomic.h> is not C++17; these are in every gcc and clang. */
#define MESSAGING__LOAD(pointer) __atomic_load_n(pointer, __ATOMIC_ACQUIRE)
#define MESSAGING__STORE(pointer, value) __atomic_store_n(pointer, value, __ATOMIC_RELEASE)
#define MESSAGING__SWAP(pointer, value) __atomic_exchange_n(pointer, value, __ATOMIC_SEQ_CST)
/* User-level probes for perf, bpftrace and SystemTap, where <sys/sdt.h> is installed: a no-op instruction each. */
#if defined(__has_include)
#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#ifdef __clang__ /* -Wpedantic minds how that header's macros call each other */
#define MESSAGING__PROBE(name, a, b)                                                                                       \
  _Pragma("clang diagnostic push") _Pragma("clang diagnostic ignored \"-Wgnu-zero-variadic-macro-arguments\"")             \
  DTRACE_PROBE2(messaging, name, a, b) _Pragma("clang diagnostic pop")
#else
#define MESSAGING__PROBE(name, a, b) DTRACE_PROBE2(messaging, name, a, b)
#endif
#endif
#endif
#ifndef MESSAGING__PROBE
#define MESSAGING__PROBE(name, a, b) ((void)0)
#endif

#define MESSAGING__ADD(pointer, value) __atomic_add_fetch(pointer, value, __ATOMIC_ACQ_REL)

/* Not declared by strict builds (-std=c11 -D_POSIX_C_SOURCE=200809L), though the C library has them. */
#ifndef __cplusplus
int madvise(void *address, size_t length, int advice);
long syscall(long number, ...);
#endif
#ifdef MAP_ANONYMOUS
#define MESSAGING__MAP_ANONYMOUS MAP_ANONYMOUS
#else
#define MESSAGING__MAP_ANONYMOUS 0x20
#endif
#define MESSAGING__MADV_WIPEONFORK 18
#define MESSAGING__MADV_HUGEPAGE 14
#define MESSAGING__MADV_NOHUGEPAGE 15
#define MESSAGING__MADV_POPULATE_WRITE 23 /* from Linux 5.14 on */

/* The kernel's struct sched_attr. glibc declares it from 2.41 on; Linux 6.1's own header declares sched_param as well, as <sched.h> does. */
typedef struct {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime_ns, deadline_ns, period_ns;
} messaging__sched_attr;

/* The kernel's struct ucred. */
typedef struct {
  pid_t pid;
  uid_t uid;
  gid_t gid;
} messaging__credentials;

/* ==== Limits ====================================================================================================== */

/* Bounds that no option sets, each where it was measured to be enough or is a bound on a peer. */
enum {
  MESSAGING__SEAL_BYTES = 96 * 1024,        /* an open batch of this size is closed and goes out; */
  MESSAGING__SEAL_WAITING = 3,              /* while so many times as much waits, it grows to twice that size, */
  MESSAGING__GROWN_BYTES = 800 * 1024,      /* or to this one, */
  MESSAGING__GROWN_MESSAGES = 64,           /* as long as it has less than so many messages */
  MESSAGING__CHUNK_BYTES = 64 * 1024,       /* of history at first, and of copies in a worker's inbox */
  MESSAGING__BLOCK_BYTES = 2 * 1024 * 1024, /* of history later on, and of a burst's batches: as much as a huge page */
  MESSAGING__TOUCH_BYTES = 64 * 1024,       /* of new memory that are touched at once, in small pages, */
  MESSAGING__HUGE_BYTES = 16 << 20,         /* and of a block, ahead, in huge ones: one for the largest messages may be of gigabytes */
  MESSAGING__DEAR_PATIENCE = 64,            /* blocks in small pages until a huge one is tried again, after one that was dearer */
  MESSAGING__CHUNKS_MAX = 8,                /* chunks of history, at most, before it goes on in blocks */
  MESSAGING__WRAP_BYTES = 8 * 1024,         /* a frame from this size on is kept as it came, a smaller one is copied */
  MESSAGING__WINDOW_BYTES = 2048 * 1024,    /* of one worker on the wire, not acknowledged: more than one of 1 MB */
  MESSAGING__FLIGHTS_MAX = 4,               /* batches on the wire before an open batch waits for an acknowledgement */
  MESSAGING__ACK_BYTES = 256 * 1024,        /* received and not acknowledged, until a worker does so soon; a supervisor, of one batch, at once */
  MESSAGING__CALM_BATCHES = 64,             /* without a burst before the blocks of the last one are given back */
  MESSAGING__WINDOW_BATCHES = 32,           /* batches on the wire, at most: all of them are sent again when the first is lost */
  MESSAGING__FRAME_SLACK = 256 * 1024,      /* a frame may exceed message_bytes_max by this: an open batch and headers */
  MESSAGING__REPAIR_BYTES = 64 * 1024,      /* of history in one repair frame */
  MESSAGING__REPAIR_BURST = 4 * 1024 * 1024, /* in answer to one negative acknowledgement */
  MESSAGING__REPAIR_STEP = 256 * 1024,      /* of it in one step, so that others get their turn */
  MESSAGING__SOCKET_BYTES = 512 * 1024,     /* of a unix socket's buffer, if the system allows it (net.core.wmem_max); the kernel doubles it */
  MESSAGING__WIDE_WORKERS = 128,            /* listed, at most, if the supervisor's connections are to have it */
  MESSAGING__HEAP_BYTES = 2 * 1024 * 1024,  /* half of what may stay free at the end of a heap */
  MESSAGING__RANGES_MAX = 16,               /* in one negative acknowledgement */
  MESSAGING__REORDER_MAX = 256,             /* batches kept ahead of a gap */
  MESSAGING__PARKED_MAX = 1024,             /* announcements kept of workers that are not listed */
  MESSAGING__LOOK_RATE = 256,               /* workers that are looked at in a millisecond, on average, for reminders, and for room if blocked */
  MESSAGING__NONCES_MAX = 4,                /* former incarnations remembered of a worker, and as many that lost its seat */
  MESSAGING__STRUCK_MAX = 64,               /* and of those that are not on the list any more, all together */
  MESSAGING__NESTING_MAX = 32,              /* of payloads: what msgpack-c takes */
  MESSAGING__FRAMES_HWM = 1000,             /* libzmq's high-water marks */
  MESSAGING__CPUS_MAX = 8192,               /* as many processors as Linux can be built for */
  MESSAGING__PATIENCE_HEARTBEATS = 5,       /* heartbeats without an answer until a tcp connection counts as dead */
  MESSAGING__LAST_ROUNDS = 64,              /* steps in which frames are taken before a death is handled */
  MESSAGING__STEP_FRAMES = 64,              /* taken from the socket in one step */
  MESSAGING__REPORTS_MAX = 16384,           /* errors waiting for the handler */
  MESSAGING__REPORTS_FLOOD = 64,            /* of them, and in a second, those that a peer can cause at will */
  MESSAGING__RECV_MESSAGES = 4096,          /* in one batch of recv, if more than one frame is there */
  MESSAGING__RECV_BYTES = 1024 * 1024,
  MESSAGING__ZONE_BYTES_MAX = 1024 * 1024   /* of what is kept from one batch of recv to the next */
};

/* Times of the protocol, in milliseconds, and one of the shell, in microseconds. */
enum {
  MESSAGING__BURST_US = 200,     /* who sends again so soon may send more: longer than a thread takes to wake up */
  MESSAGING__ACK_MS = 25,        /* an acknowledgement that somebody may wait for waits so long for company; */
  MESSAGING__ACK_MAX_MS = 1000,  /* one that nobody waits for: so long, or for a heartbeat */
  MESSAGING__TAIL_MS = 60,       /* without an acknowledgement until the first reminder; doubles */
  MESSAGING__NAK_MS = 60,        /* until a negative acknowledgement is repeated; doubles */
  MESSAGING__NAK_MAX_MS = 1000,
  MESSAGING__PROBE_MS = 200,     /* without an acknowledgement until the worker asks; doubles */
  MESSAGING__PROBE_MAX_MS = 2000,
  MESSAGING__HELLO_MS = 50,      /* until an announcement is repeated; doubles up to a heartbeat */
  MESSAGING__AGAIN_MS = 40,      /* until terminate or goodbye is repeated; doubles */
  MESSAGING__AGAIN_MAX_MS = 1000,
  MESSAGING__STALL_MS = 100,     /* until a socket that took nothing is tried again, should its descriptor stay silent */
  MESSAGING__GOODBYE_MS = 500,   /* the longest that exit waits for its goodbye alone */
  MESSAGING__CLOSE_MS = 100,     /* that libzmq gets to send a supervisor's goodbye to those who never joined */
  MESSAGING__HANDSHAKE_MS = 2000
};

/* The largest message_bytes_max. The objects of a frame are many times larger than it, and have to be addressed. */
#define MESSAGING__MESSAGE_BYTES_MAX ((size_t)1 << (sizeof(size_t) < 8 ? 26 : 30))

#define MESSAGING__NEVER UINT64_MAX

static inline uint64_t messaging__now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static inline uint64_t messaging__now_ms(void) { return messaging__now_us() / 1000u; }

static inline uint64_t messaging__earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t messaging__later(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Fills a buffer of at most 256 bytes, which getrandom does whole. */
static inline bool messaging__random(void *bytes, size_t size) { return getrandom(bytes, size, 0) == (ssize_t)size; }

/* ==== Rings ===========================================================================================================
 *
 * A queue of elements of one size, growing by doubling. Elements are moved with memcpy.
 */

typedef struct {
  uint8_t *elements;
  size_t element_size, head, count, capacity;
} messaging__ring;

static inline void messaging__ring_init(messaging__ring *ring, size_t element_size) {
  memset(ring, 0, sizeof *ring);
  ring->element_size = element_size;
}

static inline void messaging__ring_free(messaging__ring *ring) {
  MESSAGING_FREE(ring->elements);
  messaging__ring_init(ring, ring->element_size);
}

static inline void *messaging__ring_at(const messaging__ring *ring, size_t index) {
  return ring->elements + ((ring->head + index) & (ring->capacity - 1)) * ring->element_size;
}

/* Makes room for so many in all, so that pushes up to there cannot fail. */
static inline bool messaging__ring_grow(messaging__ring *ring, size_t count) {
  if (count <= ring->capacity) return true;
  size_t capacity = ring->capacity ? ring->capacity : 8;
  while (capacity < count) capacity *= 2;
  uint8_t *elements = (uint8_t *)MESSAGING_MALLOC(capacity * ring->element_size);
  if (!elements) return false;
  for (size_t i = 0; i < ring->count; i++)
    memcpy(elements + i * ring->element_size, messaging__ring_at(ring, i), ring->element_size);
  MESSAGING_FREE(ring->elements);
  ring->elements = elements;
  ring->head = 0;
  ring->capacity = capacity;
  return true;
}

static inline bool messaging__ring_reserve(messaging__ring *ring) { return messaging__ring_grow(ring, ring->count + 1); }

/* The place behind the last element, which exists once it is counted. The room was reserved. */
static inline void *messaging__ring_end(const messaging__ring *ring) { return messaging__ring_at(ring, ring->count); }

static inline bool messaging__ring_push(messaging__ring *ring, const void *element) {
  if (!messaging__ring_reserve(ring)) return false;
  memcpy(messaging__ring_end(ring), element, ring->element_size);
  ring->count++;
  return true;
}

static inline void messaging__ring_pop(messaging__ring *ring) {
  ring->head = (ring->head + 1) & (ring->capacity - 1);
  ring->count--;
}

/* ==== Maps ============================================================================================================
 *
 * From a nonzero 64-bit key to a pointer: open addressing, deletion by shifting back, at most half full.
 */

typedef struct {
  uint64_t key;
  void *value;
} messaging__slot;

typedef struct {
  messaging__slot *slots;
  size_t count, capacity;
} messaging__map;

static inline size_t messaging__map_home(const messaging__map *map, uint64_t key) {
  return (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & (map->capacity - 1);
}

static inline void *messaging__map_get(const messaging__map *map, uint64_t key) {
  if (map->capacity == 0 || key == 0) return NULL;
  size_t i = messaging__map_home(map, key);
  while (map->slots[i].key != 0 && map->slots[i].key != key) i = (i + 1) & (map->capacity - 1);
  return map->slots[i].key == key ? map->slots[i].value : NULL;
}

static inline void messaging__map_place(messaging__map *map, uint64_t key, void *value) {
  size_t i = messaging__map_home(map, key);
  while (map->slots[i].key != 0 && map->slots[i].key != key) i = (i + 1) & (map->capacity - 1);
  if (map->slots[i].key == 0) map->count++;
  map->slots[i].key = key;
  map->slots[i].value = value;
}

/* Makes room for so many keys in all, so that puts up to there cannot fail. */
static inline bool messaging__map_reserve(messaging__map *map, size_t keys) {
  size_t capacity = map->capacity ? map->capacity : 16;
  while (capacity < keys * 2) capacity *= 2;
  if (capacity == map->capacity) return true;
  messaging__map grown = {NULL, 0, capacity};
  grown.slots = (messaging__slot *)MESSAGING_MALLOC(capacity * sizeof(messaging__slot));
  if (!grown.slots) return false;
  memset(grown.slots, 0, capacity * sizeof(messaging__slot));
  for (size_t i = 0; i < map->capacity; i++)
    if (map->slots[i].key) messaging__map_place(&grown, map->slots[i].key, map->slots[i].value);
  MESSAGING_FREE(map->slots);
  *map = grown;
  return true;
}

static inline bool messaging__map_put(messaging__map *map, uint64_t key, void *value) {
  if (!messaging__map_reserve(map, map->count + 1)) return false;
  messaging__map_place(map, key, value);
  return true;
}

static inline void messaging__map_remove(messaging__map *map, uint64_t key) {
  if (!messaging__map_get(map, key)) return;
  size_t hole = messaging__map_home(map, key);
  while (map->slots[hole].key != key) hole = (hole + 1) & (map->capacity - 1);
  map->count--;
  for (size_t i = (hole + 1) & (map->capacity - 1); map->slots[i].key != 0; i = (i + 1) & (map->capacity - 1)) {
    size_t home = messaging__map_home(map, map->slots[i].key);
    bool stays = hole <= i ? (home > hole && home <= i) : (home > hole || home <= i);
    if (stays) continue;
    map->slots[hole] = map->slots[i];
    hole = i;
  }
  map->slots[hole].key = 0;
  map->slots[hole].value = NULL;
}

static inline void messaging__map_free(messaging__map *map) {
  MESSAGING_FREE(map->slots);
  memset(map, 0, sizeof *map);
}

/* ==== Buffers =========================================================================================================
 *
 * Bytes with a reference count, which libzmq's threads may drop too. A slice is a view of some of them; its owner is NULL when the bytes are
 * somebody else's and only lent for a call.
 */

typedef struct messaging__buffer messaging__buffer;
struct messaging__buffer {
  uint32_t references;
  void (*release)(messaging__buffer *); /* NULL: data is an allocation of its own */
  messaging__buffer *block;             /* that data is a part of */
  uint8_t *data;
  size_t size, capacity;
  size_t touched; /* of a block: so much from its beginning has been */
};

typedef struct {
  messaging__buffer *owner;
  uint8_t *data;
  size_t size;
} messaging__slice;

/* The first reference is stored atomically too: the next access may be by libzmq's thread, whose locks ThreadSanitizer does not see. */
static inline void messaging__buffer_init(messaging__buffer *buffer, uint8_t *data, size_t size, size_t capacity) {
  MESSAGING__STORE(&buffer->references, 1u);
  buffer->release = NULL;
  buffer->block = NULL;
  buffer->data = data;
  buffer->size = size;
  buffer->capacity = capacity;
  buffer->touched = 0;
}

static inline void messaging__joined_free(messaging__buffer *buffer) { MESSAGING_FREE(buffer); }

/* Its bytes lie behind it, until it has to grow. */
static inline messaging__buffer *messaging__buffer_new(size_t capacity) {
  messaging__buffer *buffer = (messaging__buffer *)MESSAGING_MALLOC(sizeof *buffer + capacity);
  if (!buffer) return NULL;
  messaging__buffer_init(buffer, (uint8_t *)(buffer + 1), 0, capacity);
  buffer->release = messaging__joined_free;
  return buffer;
}

static inline void messaging__buffer_keep(messaging__buffer *buffer) { MESSAGING__ADD(&buffer->references, 1u); }

static inline void messaging__buffer_drop(messaging__buffer *buffer) {
  if (!buffer || MESSAGING__ADD(&buffer->references, (uint32_t)-1) != 0) return;
  if (buffer->release) {
    buffer->release(buffer);
    return;
  }
  MESSAGING_FREE(buffer->data);
  MESSAGING_FREE(buffer);
}

static inline void messaging__block_free(messaging__buffer *block) {
  munmap(block->data, block->capacity);
  MESSAGING_FREE(block);
}

/* Memory of at least so many bytes, for many buffers, in small pages until page_in has others. */
static inline messaging__buffer *messaging__block_new(size_t least) {
  const size_t page = MESSAGING__BLOCK_BYTES;
  size_t size = (least + page - 1) / page * page;
  messaging__buffer *block = (messaging__buffer *)MESSAGING_MALLOC(sizeof *block);
  if (!block) return NULL;
  uint8_t *data = (uint8_t *)mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MESSAGING__MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    MESSAGING_FREE(block);
    return NULL;
  }
  size_t excess = page - ((uintptr_t)data & (page - 1));
  munmap(data, excess);
  if (excess < page) munmap(data + excess + size, page - excess);
  messaging__buffer_init(block, data + excess, 0, size);
  madvise(block->data, size, MESSAGING__MADV_NOHUGEPAGE);
  block->release = messaging__block_free;
  return block;
}

static inline uint64_t messaging__thread_cpu_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Touches a new block's next huge page, or as its first ones some small ones, and says what CPU a huge page's bytes took, or would have taken. */
static inline uint64_t messaging__page_in(messaging__buffer *block, bool huge) {
  const size_t size = huge ? (size_t)MESSAGING__BLOCK_BYTES : (size_t)4 * MESSAGING__TOUCH_BYTES;
  uint8_t *next = block->data + block->touched;
  if (huge) madvise(next, size, MESSAGING__MADV_HUGEPAGE);
  uint64_t begun_ns = messaging__thread_cpu_ns();
  bool touched = madvise(next, size, MESSAGING__MADV_POPULATE_WRITE) == 0;
  for (size_t at = 0; !touched && at < size; at += 4096) next[at] = 0;
  block->touched += size;
  return (messaging__thread_cpu_ns() - begun_ns) * MESSAGING__BLOCK_BYTES / size;
}

/* Touches new memory up to there, if the kernel can do that ahead: it costs less than a page fault for each page. Else that happens as it is written. */
static inline void messaging__block_touch(messaging__buffer *block, size_t end) {
  const size_t page = 4096, step = MESSAGING__TOUCH_BYTES;
  if (end <= block->touched) return;
  size_t from = (block->touched + page - 1) & ~(page - 1), to = (end + step - 1) / step * step;
  madvise(block->data + from, to - from, MESSAGING__MADV_POPULATE_WRITE);
  block->touched = to;
}

/* Copies to somewhere in a block: larger pieces touch its memory just before, so that it is still in the processor's cache when they are written. */
static inline void messaging__block_write(messaging__buffer *block, uint8_t *to, const uint8_t *from, size_t size) {
  for (size_t piece; size > 0; to += piece, from += piece, size -= piece) {
    piece = (size_t)messaging__earlier(size, MESSAGING__TOUCH_BYTES);
    size_t end = (size_t)(to - block->data) + piece;
    if (piece >= MESSAGING__TOUCH_BYTES / 2) messaging__block_touch(block, end);
    if (end > block->touched) block->touched = end;
    memcpy(to, from, piece);
  }
}

typedef enum { MESSAGING__STOCKED, MESSAGING__STOCK_WANTED, MESSAGING__STOCK_ASKED } messaging__order;

/* The next block, made ready. To touch new memory for the first time, 4 KB at a time, may cost more than all else that happens to the bytes that are written
 * there; in huge pages, if the system has some to give, a fifth of that; but where a virtual machine has to get them from its host first, six times as
 * much, milliseconds. No call tells. So whoever needs a block takes small pages, and the background thread makes one of huge pages ready: the next for each
 * that is taken, or, after one that was dearer, for another try after some in small pages. Under the lock of whoever has it. */
typedef struct {
  messaging__buffer *spare;
  size_t bytes;      /* so large is the next to be */
  uint32_t order;    /* of messaging__order */
  uint64_t small_ns; /* CPU that a huge page's bytes took in small ones; 0: not known */
  uint32_t small;    /* blocks in small pages since the last try, */
  uint32_t patience; /* and at most so many before the next */
  bool cheap;        /* the last one was */
} messaging__stock;

/* So large a block is to be made ready. */
static inline void messaging__stock_order(messaging__stock *stock, size_t bytes) {
  stock->bytes = bytes;
  if (MESSAGING__LOAD(&stock->order) == MESSAGING__STOCKED) MESSAGING__STORE(&stock->order, (uint32_t)MESSAGING__STOCK_WANTED);
}

/* A block with so much room, or a new one of so many bytes. There should be another one by the time that it is full. */
static inline messaging__buffer *messaging__stock_take(messaging__stock *stock, size_t room, size_t bytes) {
  messaging__buffer *block = stock->spare;
  stock->spare = NULL;
  if (!block || block->capacity < room) {
    messaging__buffer_drop(block);
    block = messaging__block_new(bytes);
    if (!block) return NULL;
    stock->small_ns = messaging__page_in(block, false);
    stock->small++;
  }
  if (stock->cheap || stock->small > stock->patience) messaging__stock_order(stock, bytes);
  return block;
}

/* Whether the background thread has to be told. */
static inline bool messaging__stock_ask(messaging__stock *stock) {
  bool wanted = MESSAGING__LOAD(&stock->order) == MESSAGING__STOCK_WANTED;
  if (wanted) MESSAGING__STORE(&stock->order, (uint32_t)MESSAGING__STOCK_ASKED);
  return wanted;
}

/* Tries what a huge page's bytes cost in small ones, before a block was needed. */
static inline uint64_t messaging__small_pages_ns(void) {
  messaging__buffer *block = messaging__block_new(MESSAGING__BLOCK_BYTES);
  uint64_t cost_ns = block ? messaging__page_in(block, false) : 0;
  messaging__buffer_drop(block);
  return cost_ns;
}

/* The background thread's: makes a block ready, if it was asked to, in huge pages up to the first that is dear, since most behind it would be as well. That
 * one is as good as others, once it is there. */
static inline void messaging__stock_make(messaging__stock *stock, pthread_mutex_t *lock) {
  if (MESSAGING__LOAD(&stock->order) != MESSAGING__STOCK_ASKED) return;
  pthread_mutex_lock(lock);
  size_t bytes = stock->bytes;
  uint64_t small_ns = stock->small_ns;
  pthread_mutex_unlock(lock);
  if (small_ns == 0) small_ns = messaging__small_pages_ns();
  messaging__buffer *block = messaging__block_new(bytes);
  bool cheap = block != NULL;
  while (cheap && block->touched < messaging__earlier(block->capacity, MESSAGING__HUGE_BYTES)) cheap = messaging__page_in(block, true) <= small_ns;
  pthread_mutex_lock(lock);
  if (stock->small_ns == 0) stock->small_ns = small_ns;
  messaging__buffer *other = stock->spare;
  stock->spare = block ? block : other;
  stock->cheap = cheap;
  stock->small = 0;
  stock->patience = MESSAGING__DEAR_PATIENCE;
  MESSAGING__STORE(&stock->order, (uint32_t)MESSAGING__STOCKED);
  pthread_mutex_unlock(lock);
  if (block) messaging__buffer_drop(other);
}

/* The block that is ready, which the caller may use again or drop. */
static inline messaging__buffer *messaging__stock_clear(messaging__stock *stock) {
  messaging__buffer *block = stock->spare;
  stock->spare = NULL;
  return block;
}

static inline void messaging__part_free(messaging__buffer *part) {
  messaging__buffer_drop(part->block);
  MESSAGING_FREE(part);
}

/* A buffer at the end of a block, which may grow up to the block's end until it is closed. */
static inline messaging__buffer *messaging__part_new(messaging__buffer *block) {
  messaging__buffer *part = (messaging__buffer *)MESSAGING_MALLOC(sizeof *part);
  if (!part) return NULL;
  messaging__buffer_init(part, block->data + block->size, 0, block->capacity - block->size);
  part->release = messaging__part_free;
  part->block = block;
  messaging__buffer_keep(block);
  return part;
}

/* What it has not used is the block's again. */
static inline void messaging__part_close(messaging__buffer *part) {
  if (!part->block) return;
  part->capacity = (part->size + 15) & ~(size_t)15;
  part->block->size += part->capacity;
}

/* For a buffer that nobody else refers to yet. */
static inline bool messaging__buffer_reserve(messaging__buffer *buffer, size_t capacity) {
  if (capacity <= buffer->capacity) return true;
  size_t grown = buffer->capacity * 2 > capacity ? buffer->capacity * 2 : capacity;
  uint8_t *data = buffer->release ? (uint8_t *)MESSAGING_MALLOC(grown) : (uint8_t *)MESSAGING_REALLOC(buffer->data, grown);
  if (!data) return false;
  if (buffer->release) {
    memcpy(data, buffer->data, buffer->size);
    messaging__buffer_drop(buffer->block);
    buffer->block = NULL;
    buffer->release = NULL;
  }
  buffer->data = data;
  buffer->capacity = grown;
  return true;
}

static inline messaging__slice messaging__slice_of(messaging__buffer *buffer) {
  messaging__slice slice = {buffer, buffer->data, buffer->size};
  return slice;
}

/* Bytes that outlive the call: a reference to the owner of large ones, a copy of small ones at the end of a shared chunk (or in a
 * buffer of their own). A reference to a small frame would pin the block in which libzmq received it, one to a small part of a frame the
 * whole frame. */
static inline bool messaging__slice_keep(messaging__slice lent, messaging__buffer **chunk, messaging__slice *kept) {
  if (lent.owner && lent.size >= MESSAGING__WRAP_BYTES && lent.size >= lent.owner->size / 2) {
    messaging__buffer_keep(lent.owner);
    *kept = lent;
    return true;
  }
  bool alone = lent.size > MESSAGING__CHUNK_BYTES / 4;
  messaging__buffer *into = alone ? NULL : *chunk;
  if (!into || into->capacity - into->size < lent.size) {
    into = messaging__buffer_new(alone ? lent.size : (size_t)MESSAGING__CHUNK_BYTES);
    if (!into) return false;
    if (!alone) {
      messaging__buffer_drop(*chunk);
      *chunk = into;
    }
  }
  if (!alone) messaging__buffer_keep(into);
  kept->owner = into;
  kept->data = into->data + into->size;
  kept->size = lent.size;
  memcpy(kept->data, lent.data, lent.size);
  into->size += lent.size;
  return true;
}

/* ==== Cursor ==========================================================================================================
 *
 * Reads msgpack from bytes that a peer sent. Every length is checked against the bytes that are there; after the first fault every
 * read gives 0 and bad stays set.
 */

typedef struct {
  const uint8_t *at, *end;
  bool bad;
} messaging__reader;

/* Written so that compilers make two instructions of it. */
static inline uint64_t messaging__load_be64(const uint8_t *at) {
  return (uint64_t)at[0] << 56 | (uint64_t)at[1] << 48 | (uint64_t)at[2] << 40 | (uint64_t)at[3] << 32 | (uint64_t)at[4] << 24 |
         (uint64_t)at[5] << 16 | (uint64_t)at[6] << 8 | (uint64_t)at[7];
}

/* Of 1, 2, 4 or 8 bytes. */
static inline uint64_t messaging__load_be(const uint8_t *at, size_t size) {
  switch (size) {
    case 1: return at[0];
    case 2: return (uint64_t)at[0] << 8 | at[1];
    case 4: return (uint64_t)at[0] << 24 | (uint64_t)at[1] << 16 | (uint64_t)at[2] << 8 | (uint64_t)at[3];
    default: return messaging__load_be64(at);
  }
}

static inline void messaging__store_be32(uint8_t *at, uint32_t value) {
  at[0] = (uint8_t)(value >> 24);
  at[1] = (uint8_t)(value >> 16);
  at[2] = (uint8_t)(value >> 8);
  at[3] = (uint8_t)value;
}

static inline void messaging__store_be64(uint8_t *at, uint64_t value) {
  messaging__store_be32(at, (uint32_t)(value >> 32));
  messaging__store_be32(at + 4, (uint32_t)value);
}

static inline void messaging__store_be(uint8_t *at, uint64_t value, size_t size) {
  switch (size) {
    case 1: at[0] = (uint8_t)value; break;
    case 2:
      at[0] = (uint8_t)(value >> 8);
      at[1] = (uint8_t)value;
      break;
    case 4: messaging__store_be32(at, (uint32_t)value); break;
    default: messaging__store_be64(at, value);
  }
}

static inline uint64_t messaging__read_be(messaging__reader *reader, size_t size) {
  size_t left = (size_t)(reader->end - reader->at);
  if (reader->bad || left < size) {
    reader->bad = true;
    return 0;
  }
  uint64_t value = left >= 8 ? messaging__load_be64(reader->at) >> (64 - 8 * size) : messaging__load_be(reader->at, size);
  reader->at += size;
  return value;
}

/* An integer of any width and sign, as two's complement. */
static inline int64_t messaging__read_int(messaging__reader *reader) {
  uint8_t tag = (uint8_t)messaging__read_be(reader, 1);
  if (reader->bad) return 0;
  if (tag <= 0x7f) return tag;
  if (tag >= 0xe0) return (int8_t)tag;
  if (tag >= 0xcc && tag <= 0xcf) {
    uint64_t value = messaging__read_be(reader, (size_t)1 << (tag - 0xcc));
    if (value > INT64_MAX) reader->bad = true;
    return reader->bad ? 0 : (int64_t)value;
  }
  if (tag >= 0xd0 && tag <= 0xd3) {
    size_t size = (size_t)1 << (tag - 0xd0);
    uint64_t value = messaging__read_be(reader, size);
    unsigned shift = (unsigned)(64 - 8 * size);
    return (int64_t)(value << shift) >> shift;
  }
  reader->bad = true;
  return 0;
}

/* An unsigned integer of any width, at most limit. */
static inline uint64_t messaging__read_uint(messaging__reader *reader, uint64_t limit) {
  if (!reader->bad && reader->at < reader->end && *reader->at == 0xcf) {
    reader->at++;
    uint64_t value = messaging__read_be(reader, 8);
    if (value > limit) reader->bad = true;
    return reader->bad ? 0 : value;
  }
  int64_t value = messaging__read_int(reader);
  if (value < 0 || (uint64_t)value > limit) reader->bad = true;
  return reader->bad ? 0 : (uint64_t)value;
}

static inline uint32_t messaging__read_array(messaging__reader *reader) {
  uint8_t tag = (uint8_t)messaging__read_be(reader, 1);
  if (reader->bad) return 0;
  if ((tag & 0xf0) == 0x90) return tag & 0x0f;
  if (tag == 0xdc) return (uint32_t)messaging__read_be(reader, 2);
  reader->bad = true;
  return 0;
}

/* A string or binary; the bytes stay where they are. */
static inline const uint8_t *messaging__read_bytes(messaging__reader *reader, size_t *size) {
  uint8_t tag = (uint8_t)messaging__read_be(reader, 1);
  *size = 0;
  if (reader->bad) return NULL;
  uint64_t length = 0;
  if ((tag & 0xe0) == 0xa0) length = tag & 0x1f;
  else if (tag == 0xc4 || tag == 0xd9) length = messaging__read_be(reader, 1);
  else if (tag == 0xc5 || tag == 0xda) length = messaging__read_be(reader, 2);
  else if (tag == 0xc6 || tag == 0xdb) length = messaging__read_be(reader, 4);
  else reader->bad = true;
  if (reader->bad || (uint64_t)(reader->end - reader->at) < length) {
    reader->bad = true;
    return NULL;
  }
  const uint8_t *bytes = reader->at;
  reader->at += length;
  *size = (size_t)length;
  return bytes;
}

/* ==== Objects =========================================================================================================
 *
 * Steps over msgpack's objects in bytes that a peer sent, or makes msgpack-c's of them, as msgpack_unpack does. That cannot be used on such
 * bytes: it reserves what a container promises, so a pass of its own would have to check them before. Here one pass does both, in half the
 * time. Strings, binaries and extensions stay where they are.
 */

/* A string, binary or extension. The length of an extension counts its type, which comes first. */
static inline void messaging__make_bytes(msgpack_object *object, msgpack_object_type type, const uint8_t *bytes, uint64_t size) {
  object->type = type;
  if (type == MSGPACK_OBJECT_STR) {
    object->via.str.size = (uint32_t)size;
    object->via.str.ptr = (const char *)bytes;
  } else if (type == MSGPACK_OBJECT_BIN) {
    object->via.bin.size = (uint32_t)size;
    object->via.bin.ptr = (const char *)bytes;
  } else {
    object->via.ext.type = (int8_t)bytes[0];
    object->via.ext.size = (uint32_t)(size - 1);
    object->via.ext.ptr = (const char *)bytes + 1;
  }
}

static inline void messaging__make_unsigned(msgpack_object *object, uint64_t value) {
  object->type = MSGPACK_OBJECT_POSITIVE_INTEGER;
  object->via.u64 = value;
}

/* Only those below zero are negative to msgpack-c. */
static inline void messaging__make_signed(msgpack_object *object, int64_t value) {
  object->type = value < 0 ? MSGPACK_OBJECT_NEGATIVE_INTEGER : MSGPACK_OBJECT_POSITIVE_INTEGER;
  object->via.i64 = value;
}

static inline void messaging__make_float(msgpack_object *object, const uint8_t *bytes, uint64_t size) {
  uint64_t bits = messaging__load_be(bytes, (size_t)size);
  uint32_t narrow = (uint32_t)bits;
  float single;
  memcpy(&single, &narrow, sizeof single);
  memcpy(&object->via.f64, &bits, sizeof bits);
  object->type = size == 4 ? MSGPACK_OBJECT_FLOAT32 : MSGPACK_OBJECT_FLOAT64;
  if (size == 4) object->via.f64 = (double)single;
}

static inline void messaging__make_boolean(msgpack_object *object, bool value) {
  object->type = MSGPACK_OBJECT_BOOLEAN;
  object->via.boolean = value;
}

/* Room for the elements of a container: of a map, keys and values in turn. NULL: no memory. */
static inline msgpack_object *messaging__make_container(msgpack_object *object, msgpack_zone *zone, bool map, uint64_t elements) {
  static msgpack_object none;
  void *room = elements ? msgpack_zone_malloc(zone, (size_t)elements * sizeof(msgpack_object)) : &none;
  object->type = map ? MSGPACK_OBJECT_MAP : MSGPACK_OBJECT_ARRAY;
  if (map) {
    object->via.map.size = (uint32_t)(elements / 2);
    object->via.map.ptr = elements ? (msgpack_object_kv *)room : NULL;
  } else {
    object->via.array.size = (uint32_t)elements;
    object->via.array.ptr = elements ? (msgpack_object *)room : NULL;
  }
  return (msgpack_object *)room;
}

/* The cases of what follows: an object that is its tag alone; has so many bytes behind it; a length in so many bytes, and as many as it says, and more;
 * a count in so many bytes, of so many objects each. */
#define MESSAGING__TAG(make_it)                                            \
  if (make) {                                                              \
    make_it;                                                               \
    object++;                                                              \
  }                                                                        \
  continue
#define MESSAGING__FIXED(bytes, make_it)                                   \
  if ((size_t)(end - at) < (bytes)) return MESSAGING_EBADMSG;              \
  if (make) {                                                              \
    make_it;                                                               \
    object++;                                                              \
  }                                                                        \
  at += (bytes);                                                           \
  continue
#define MESSAGING__SIZED(width, more, type)                                \
  if ((size_t)(end - at) < (width)) return MESSAGING_EBADMSG;              \
  size = messaging__load_be(at, width) + (more);                           \
  at += (width);                                                           \
  MESSAGING__FIXED(size, messaging__make_bytes(object, type, at, size))
#define MESSAGING__COUNTED(width, factor)                                  \
  if ((size_t)(end - at) < (width)) return MESSAGING_EBADMSG;              \
  size = messaging__load_be(at, width) * (factor);                         \
  at += (width);                                                           \
  break

/* Steps over one object and, when told so, makes it in a zone: OK, EBADMSG or ENOMEM. It is malformed, too, when it is nested deeper than msgpack-c
 * unpacks, or when its open containers promise more elements than bytes are left: so memory is in proportion to the frame. Each tag has its own code, so
 * that a processor that guesses the tag goes on to the next object before it has read this one; by a table of sizes it waited. */
MESSAGING__UNFOLD static inline messaging_status messaging__walk_object(messaging__reader *reader, bool make, msgpack_zone *zone, msgpack_object *object) {
  struct {
    msgpack_object *next;
    uint64_t wanted;
  } outer[MESSAGING__NESTING_MAX];
  const uint8_t *at = reader->at, *end = reader->end;
  uint64_t wanted = 1, pending = 1; /* objects still to come: in the innermost container, in all */
  size_t depth = 0;
  for (;;) {
    while (wanted == 0) {
      if (depth == 0) {
        reader->at = at;
        return MESSAGING_OK;
      }
      wanted = outer[--depth].wanted;
      object = outer[depth].next;
    }
    wanted--;
    pending--;
    if (at == end) return MESSAGING_EBADMSG;
    uint8_t tag = *at++;
    uint64_t size; /* in bytes; of a container in objects */
    if (tag <= 0x7f || tag >= 0xe0) {
      MESSAGING__TAG(messaging__make_signed(object, (int8_t)tag));
    }
    if (tag <= 0x8f) {
      size = 2u * (tag & 0x0fu);
    } else if (tag <= 0x9f) {
      size = tag & 0x0f;
    } else if (tag <= 0xbf) {
      size = tag & 0x1f;
      MESSAGING__FIXED(size, messaging__make_bytes(object, MSGPACK_OBJECT_STR, at, size));
    } else {
      switch (tag) {
        case 0xc0: MESSAGING__TAG(object->type = MSGPACK_OBJECT_NIL);
        case 0xc2: MESSAGING__TAG(messaging__make_boolean(object, false));
        case 0xc3: MESSAGING__TAG(messaging__make_boolean(object, true));
        case 0xc4: MESSAGING__SIZED(1u, 0u, MSGPACK_OBJECT_BIN);
        case 0xc5: MESSAGING__SIZED(2u, 0u, MSGPACK_OBJECT_BIN);
        case 0xc6: MESSAGING__SIZED(4u, 0u, MSGPACK_OBJECT_BIN);
        case 0xc7: MESSAGING__SIZED(1u, 1u, MSGPACK_OBJECT_EXT);
        case 0xc8: MESSAGING__SIZED(2u, 1u, MSGPACK_OBJECT_EXT);
        case 0xc9: MESSAGING__SIZED(4u, 1u, MSGPACK_OBJECT_EXT);
        case 0xca: MESSAGING__FIXED(4u, messaging__make_float(object, at, 4));
        case 0xcb: MESSAGING__FIXED(8u, messaging__make_float(object, at, 8));
        case 0xcc: MESSAGING__FIXED(1u, messaging__make_unsigned(object, messaging__load_be(at, 1)));
        case 0xcd: MESSAGING__FIXED(2u, messaging__make_unsigned(object, messaging__load_be(at, 2)));
        case 0xce: MESSAGING__FIXED(4u, messaging__make_unsigned(object, messaging__load_be(at, 4)));
        case 0xcf: MESSAGING__FIXED(8u, messaging__make_unsigned(object, messaging__load_be(at, 8)));
        case 0xd0: MESSAGING__FIXED(1u, messaging__make_signed(object, (int8_t)messaging__load_be(at, 1)));
        case 0xd1: MESSAGING__FIXED(2u, messaging__make_signed(object, (int16_t)messaging__load_be(at, 2)));
        case 0xd2: MESSAGING__FIXED(4u, messaging__make_signed(object, (int32_t)messaging__load_be(at, 4)));
        case 0xd3: MESSAGING__FIXED(8u, messaging__make_signed(object, (int64_t)messaging__load_be(at, 8)));
        case 0xd4: MESSAGING__FIXED(2u, messaging__make_bytes(object, MSGPACK_OBJECT_EXT, at, 2));
        case 0xd5: MESSAGING__FIXED(3u, messaging__make_bytes(object, MSGPACK_OBJECT_EXT, at, 3));
        case 0xd6: MESSAGING__FIXED(5u, messaging__make_bytes(object, MSGPACK_OBJECT_EXT, at, 5));
        case 0xd7: MESSAGING__FIXED(9u, messaging__make_bytes(object, MSGPACK_OBJECT_EXT, at, 9));
        case 0xd8: MESSAGING__FIXED(17u, messaging__make_bytes(object, MSGPACK_OBJECT_EXT, at, 17));
        case 0xd9: MESSAGING__SIZED(1u, 0u, MSGPACK_OBJECT_STR);
        case 0xda: MESSAGING__SIZED(2u, 0u, MSGPACK_OBJECT_STR);
        case 0xdb: MESSAGING__SIZED(4u, 0u, MSGPACK_OBJECT_STR);
        case 0xdc: MESSAGING__COUNTED(2u, 1u);
        case 0xdd: MESSAGING__COUNTED(4u, 1u);
        case 0xde: MESSAGING__COUNTED(2u, 2u);
        case 0xdf: MESSAGING__COUNTED(4u, 2u);
        default: return MESSAGING_EBADMSG; /* 0xc1 is not msgpack */
      }
    }
    pending += size;
    if (pending > (uint64_t)(end - at)) return MESSAGING_EBADMSG;
    if (depth == MESSAGING__NESTING_MAX) return MESSAGING_EBADMSG; /* an empty one too: msgpack-c counts it */
    outer[depth].wanted = wanted;
    outer[depth++].next = make ? object + 1 : NULL;
    wanted = size;
    if (make) object = messaging__make_container(object, zone, tag <= 0x8f || tag >= 0xde, size);
    if (make && !object) return MESSAGING_ENOMEM;
  }
}
#undef MESSAGING__TAG
#undef MESSAGING__FIXED
#undef MESSAGING__SIZED
#undef MESSAGING__COUNTED

static inline bool messaging__skip_object(messaging__reader *reader) {
  return messaging__walk_object(reader, false, NULL, NULL) == MESSAGING_OK;
}

static inline messaging_status messaging__read_object(messaging__reader *reader, msgpack_zone *zone, msgpack_object *object) {
  return messaging__walk_object(reader, true, zone, object);
}

/* Whether the bytes are exactly count objects. */
static inline bool messaging__holds(const uint8_t *bytes, size_t size, uint64_t count) {
  messaging__reader reader = {bytes, bytes + size, false};
  for (; count && reader.at < reader.end; count--)
    if (!messaging__skip_object(&reader)) return false;
  return count == 0 && reader.at == reader.end;
}

/* ==== Frames ==========================================================================================================
 *
 * The wire, for whoever writes a peer in another language. The supervisor binds an XPUB and a PULL socket; a worker connects SUB and PUSH,
 * having subscribed first to 96 a1 42 (what is for all) and 96 a7 42 (batches), then to 96 c4 11 57 id nonce (itself). A frame is one libzmq
 * message of one part and one msgpack array of six:
 *
 *     [topic, version, type, session, generation, body]
 *
 * topic       every batch in both directions: the string "B" and the six letters of a slot: its binary digits, the highest first, as '0' and '1';
 *             000000 upwards, for the supervisor's own and for workers without a slot. All else downwards to all: "B". To one worker: a binary of
 *             17 bytes: 'W', id and nonce as big-endian 64 bits.
 *             All else upwards: the string "U". Publishers match subscriptions by prefix.
 * version     integer: 2 (MESSAGING_WIRE_VERSION)
 * type        integer: HELLO 1, RELAY 2, OUTPUT 3, REPORT 4, HEARTBEAT 5, WELCOME 6, STATUS 7, REPAIR 8, REFUSE 9
 * session     binary of 16 bytes, random for each supervisor; zeros in HELLO
 * generation  integer from 1; 0 in HELLO
 *
 * Integers may have any msgpack width, numbers go up to 2^60, and strings and binaries are taken for each other. But a batch (RELAY, OUTPUT) has a
 * fixed layout, because the supervisor writes slot, position and run into the frame where it lies: 114 bytes of header, then the payload. In
 * hex, with the tags as they must be, big-endian values of the size shown in between (the body is an array of eleven, the last being the payload, a
 * binary):
 *
 *     96 a7 42 slot:6 02 type:1 c4 10 session:16 ce generation:4 9b d3 id:8 ce kind:4 cf nonce:8 cf number:8 cf position:8
 *     cf run_nonce:8 cf run_first:8 cf run_batch:8 ce count:4 flags:1 c6 size:4
 *
 * id          of a worker: as the supervisor lists it (pid, or a negative number); of the supervisor: its pid
 * kind        the worker's, as listed; the supervisor's is 0
 * nonce       64 bits, not 0, random for each incarnation of a worker and for each supervisor: who sent a batch is told by it
 * number      of the batch in its sender's one stream of batches (RELAY and OUTPUT alike), from 1 without a gap
 * position    upwards: all relay messages below it are in my inbox (from 1: nothing yet). Downwards: the number of the first relay message in the batch
 * run         downwards: the relay messages from run_first up to position - 1 are those of the sender run_nonce, and run_batch is the number of the
 *             batch that the last of them came in: the longest such stretch, whatever OUTPUT came between. Upwards, and before the first relay
 *             message of a generation: zeros
 * count       of messages in the payload, at least 1. RELAY: so many objects as encode wrote them, one behind the other. OUTPUT: so many arrays
 *             [type, value, text]: type 0 log, 1 statistics, 2 progress; value an integer (level, unused, progress); text a binary
 *
 * Upwards (PUSH to PULL), bodies:
 *   HELLO      [id, kind, nonce, message_bytes_max]     the last must be the supervisor's (16777216 unless it was configured); frames may be larger by
 *                                                       256 KiB, and a REPAIR by 512 bytes more. Nothing else is sent before the WELCOME
 *   RELAY, OUTPUT                                       batches. flags 1: answer with a STATUS at once. Repetitions are the same bytes
 *   REPORT     [id, nonce, position, probe, flags, credit, ranges]   probe: a number that the next STATUS repeats; flags UP_*: 1 answer with a STATUS,
 *                                                       2 I ask for termination, 4 I know of the termination, 8 I leave, 16 I know that you leave;
 *                                                       ranges: at most 16 [first, last] of missing relay numbers, ascending; credit: bytes of
 *                                                       repairs that I have room for. The first batch of an answer comes whatever the credit
 * Downwards (XPUB to SUB), bodies:
 *   RELAY                                               to all: as it came up, with slot, position and run
 *   HEARTBEAT  [next, first, run_nonce, run_first, run_batch, ack_ms, flags, terms]   to all. next: one more than the highest relay number given out;
 *                                                       first: the lowest that history holds; run_*: as in a RELAY, up to next - 1; ack_ms:
 *                                                       acknowledge at most so often (see below); flags DOWN_*: 1 send a REPORT at once, 2 you alone are asked
 *                                                       to terminate, 4 I leave, 8 I know that you leave, 16 a later batch than the expected one
 *                                                       came; terms: who asked for termination, at most two [id, kind, nonce]
 *   WELCOME    [slot, expected, window, probe, next, first, run_nonce, run_first, run_batch, ack_ms, flags, terms]   to one. The session and the
 *                                                       generation of the first WELCOME are yours from then on
 *   STATUS     likewise                                 slot: of your batches downwards, 1 to 63; 0: none of your own; expected: the number of your next
 *                                                       batch, all below are accepted; window: bytes of batches that may be on the wire, one batch
 *                                                       always may unless it is 0
 *   REPAIR     [last, count, frames]                    to one: a binary of count whole RELAY frames, as they were published; last 1: this answer is
 *                                                       complete
 *   REFUSE     [status]                                 to one. For good: 1 your message_bytes_max differs, 6 your kind differs from the list, 16 your
 *                                                       version; 7 you are not on the list (any more), of any generation. 15: your id is taken, for now
 *
 * Who hears this does that; whatever is not answered is said again, ever more seldom:
 *   HELLO, listed               WELCOME, each time, until the worker speaks in the session (an earlier one may have been sent before the subscription)
 *   HELLO, not listed           nothing, until it is listed: then WELCOME
 *   WELCOME                     a REPORT at once, asking for 1 to next - 1 from first on, if there is anything; then batches as the window allows
 *   the next batch              RELAY: publish it; and STATUS (within a second, or at once if flagged). Other numbers: STATUS, with flag 16 if higher
 *   a run with one's own nonce  batches up to run_batch are accepted; the messages of the run count as delivered, but are not. It may begin
 *                               below what is delivered, lie ahead of a gap, overlap what is kept, and be longer when it is told of again
 *   one's own RELAY             likewise: it and all batches below are accepted; its messages count as delivered, but are not
 *   RELAY ahead of a gap, or next above what is known    keep it if there is room, and REPORT with the missing ranges
 *   first above what is known   those between are gone: tell the application, and go on from first
 *   REPORT with ranges          REPAIR
 *   UP_ANSWER, DOWN_ANSWER      STATUS, REPORT
 *   a subscription, again       whoever makes it was cut off: STATUS flagged 1
 *   flag 2 upwards              add it to terms, HEARTBEAT; repeat terms to each until it has sent flag 4. Who finds another's nonce than its own in terms
 *                               is to terminate
 *   flag 8 upwards, 4 downwards the same flag shifted: 8 downwards, 16 upwards
 *
 * Fine print. A frame whose session or generation is not one's own is ignored, as is one of another version, but for REFUSE 16; before the first
 * WELCOME, which alone is adopted, a REFUSE or a goodbye of any session counts, later a REFUSE of any generation. A malformed frame is counted and
 * skipped.
 *   Slots: who has been given one may leave its own batches out, by subscribing, in place of 96 a7 42, to the six topics that begin like its own and
 * then differ: for 000101 these are 1, 01, 001, 0000, 00011 and 000100, each behind 96 a7 42 (subscribe to the new before unsubscribing from the
 * old). It need not: own batches may always come, and do where there is no slot. A slot is one incarnation's, and nobody else has it meanwhile; it
 * may change with a STATUS, and is 0 for who has said goodbye. What a STATUS would say of unflagged relay batches can be left to the run of another's
 * RELAY that was published behind them, or of a HEARTBEAT.
 *   Batches: they are never split, so ranges begin and end where batches do, and a repair may bring more than was asked for. Header bytes count in
 * windows and credits. No order is relied upon; the supervisor keeps the highest position it has heard. On flag 16 downwards, or when the answer to a
 * probe (start anywhere, raise it with each REPORT flagged 1; a STATUS carries the last it heard) shows an expected number that was sent before, send
 * again from there. At window 0 send no batch, but REPORTs flagged 1, ever more seldom; an opening window is announced. Sending again wants a REPORT
 * flagged 1 behind, with the next probe: until its answer comes, or that of a later one, flag 16 tells of the time before. Flags in a downward RELAY
 * mean nothing. An earlier incarnation with the same id is somebody else: the nonce tells.
 *   Repairs: a REPORT with ranges replaces what was asked for before, one without leaves it alone. "Last 1" means that this answer ends, at the
 * credit or at the end of the ranges; ask again for what is still missing.
 *   Acknowledgements: ack_ms is for REPORTs that only acknowledge: send one when something new has waited so long (from half of it on, if it is more
 * than 25, lest all do it at once), or 25 after 256 KiB; a shorter one shortens a wait that has begun. Every other REPORT and every batch upwards
 * acknowledges as well. Who is in a hurry flags a batch, or a REPORT behind it. Ask by yourself for a lone unflagged batch when a second has passed.
 * Flag 4 stands in every REPORT once termination is known, from terms or from flag 2, which comes in STATUS and WELCOME alone, as does flag 8.
 *   Goodbye: flag 8 upwards is answered each time, also after the worker is gone from the supervisor's view, by flag 8 in a STATUS, or by REFUSE 7.
 * After flag 4 downwards nothing more is accepted: it is termination, and what was not accepted by then will not be.
 *   Any frame of a worker is a sign of life; let there be one each heartbeat_ms (1000). Who is silent for silence_ms (60000) and not watched by a
 * pidfd counts as lost until it is heard again: nothing is forgotten, the others go on, and the conversation goes on where it was. On ipc the
 * folder's name, messaging-PID-XXXXXX, tells whom to watch.
 *   REFUSE 1, 6, 7 and 16 are final; after 15, which answers HELLO alone, go on announcing: an id is taken by the first frame in the session that its
 * worker sent after the WELCOME, until that one's goodbye or death, or silence_ms of silence. A REFUSE carries the version, the session and the
 * generation of the supervisor that sends it.
 *   Ids are in two's complement, kinds below 2^32. A batch with a false count keeps its numbers and is not delivered; one whose header is broken is not
 * answered. The window counts from the expected batch on. "The last probe heard" is the latest in time. A REPAIR may be empty. The supervisor sends a
 * HEARTBEAT each heartbeat_ms, and to who has not acknowledged in time a STATUS flagged 1, ever more seldom. Who asked for termination leaves when it
 * likes: nobody tells it. The answer to the last goodbye may be lost; whoever leaves waits for it half a second, no longer.
 */

enum {
  MESSAGING__HELLO = 1,
  MESSAGING__RELAY = 2,
  MESSAGING__OUTPUT = 3,
  MESSAGING__REPORT = 4,
  MESSAGING__HEARTBEAT = 5,
  MESSAGING__WELCOME = 6,
  MESSAGING__STATUS = 7,
  MESSAGING__REPAIR = 8,
  MESSAGING__REFUSE = 9
};

enum {
  MESSAGING__UP_ANSWER = 1,    /* answer with a STATUS at once */
  MESSAGING__UP_TERM = 2,      /* I ask for termination */
  MESSAGING__UP_TERM_SEEN = 4, /* I know of the termination */
  MESSAGING__UP_BYE = 8,       /* I leave */
  MESSAGING__UP_BYE_SEEN = 16  /* I know that you leave */
};

enum {
  MESSAGING__DOWN_ANSWER = 1,   /* acknowledge at once */
  MESSAGING__DOWN_TERM = 2,     /* you alone are asked to terminate */
  MESSAGING__DOWN_BYE = 4,      /* I leave */
  MESSAGING__DOWN_BYE_SEEN = 8, /* I know that you leave */
  MESSAGING__DOWN_GAP = 16      /* a later batch than the expected one came: send again from there */
};

/* Offsets of a batch frame. Each is that of the value, behind its msgpack tag. */
enum messaging__batch_offsets {
  MESSAGING__AT_LETTERS = 3,
  MESSAGING__AT_TYPE = 10,
  MESSAGING__AT_SESSION = 13,
  MESSAGING__AT_GENERATION = 30,
  MESSAGING__AT_ID = 36,
  MESSAGING__AT_KIND = 45,
  MESSAGING__AT_NONCE = 50,
  MESSAGING__AT_NUMBER = 59,
  MESSAGING__AT_POSITION = 68,
  MESSAGING__AT_RUN_NONCE = 77,
  MESSAGING__AT_RUN_FIRST = 86,
  MESSAGING__AT_RUN_BATCH = 95,
  MESSAGING__AT_COUNT = 104,
  MESSAGING__AT_FLAGS = 108,
  MESSAGING__AT_PAYLOAD_SIZE = 110,
  MESSAGING__AT_PAYLOAD = 114
};

enum { MESSAGING__TOPIC_SIZE = 20, MESSAGING__CONTROL_SIZE = 512 };

/* Slots: the topic of a batch says in so many letters, each '0' or '1', whose it is, so that its sender can subscribe to all others. */
enum { MESSAGING__LETTERS = 6, MESSAGING__SLOTS = 1 << MESSAGING__LETTERS };

/* Highest number that a peer may speak of; far from where sums wrap. */
#define MESSAGING__NUMBER_MAX ((uint64_t)1 << 60)

/* Whose the last relay messages are, those from first on: a sender hears so what became of its batches, which it need not hear again. */
typedef struct {
  uint64_t nonce, first;
  uint64_t batch; /* the number of the last one, with the sender */
} messaging__run;

typedef struct {
  uint8_t type;
  int64_t id;
  uint32_t kind;
  uint64_t nonce, number, position;
  uint32_t count;
  uint8_t flags;
  uint32_t payload_size;
  messaging__run run; /* up to position */
} messaging__batch;

/* A worker or supervisor as messages name it. */
typedef struct {
  pid_t id;
  messaging_kind kind;
  uint64_t nonce;
} messaging__who;

/* The place of a generation in the world. */
typedef struct {
  uint8_t session[16];
  uint32_t generation;
} messaging__era;

/* The letters of a slot in the topic of a batch, MESSAGING__LETTERS of them. */
static inline void messaging__put_letters(uint8_t *at, unsigned slot) {
  at[0] = (uint8_t)('0' + (slot >> 5 & 1));
  at[1] = (uint8_t)('0' + (slot >> 4 & 1));
  at[2] = (uint8_t)('0' + (slot >> 3 & 1));
  at[3] = (uint8_t)('0' + (slot >> 2 & 1));
  at[4] = (uint8_t)('0' + (slot >> 1 & 1));
  at[5] = (uint8_t)('0' + (slot & 1));
}

static inline void messaging__put_run(uint8_t *at, const messaging__run *run) {
  messaging__store_be(at + MESSAGING__AT_RUN_NONCE, run->nonce, 8);
  messaging__store_be(at + MESSAGING__AT_RUN_FIRST, run->first, 8);
  messaging__store_be(at + MESSAGING__AT_RUN_BATCH, run->batch, 8);
}

/* The msgpack tags that stand before the values of a batch's body, and where. */
#define MESSAGING__BATCH_TAGS(X)                                                                                           \
  X(ID - 2, 0x9b)                                                                                                          \
  X(ID - 1, 0xd3)                                                                                                          \
  X(KIND - 1, 0xce)                                                                                                        \
  X(NONCE - 1, 0xcf)                                                                                                       \
  X(NUMBER - 1, 0xcf)                                                                                                      \
  X(POSITION - 1, 0xcf)                                                                                                    \
  X(RUN_NONCE - 1, 0xcf)                                                                                                   \
  X(RUN_FIRST - 1, 0xcf)                                                                                                   \
  X(RUN_BATCH - 1, 0xcf)                                                                                                   \
  X(COUNT - 1, 0xce)                                                                                                       \
  X(PAYLOAD_SIZE - 1, 0xc6)
#define MESSAGING__PUT_BATCH_TAG(place, tag) at[MESSAGING__AT_##place] = tag;
#define MESSAGING__OR_NO_BATCH_TAG(place, tag) || at[MESSAGING__AT_##place] != tag

static inline void messaging__batch_write(uint8_t *at, const messaging__era *era, const messaging__batch *batch) {
  static const uint8_t head[] = {0x96, 0xa1 + MESSAGING__LETTERS, 'B'};
  memcpy(at, head, sizeof head);
  messaging__put_letters(at + MESSAGING__AT_LETTERS, 0);
  at[MESSAGING__AT_TYPE - 1] = MESSAGING_WIRE_VERSION;
  at[MESSAGING__AT_SESSION - 2] = 0xc4;
  at[MESSAGING__AT_SESSION - 1] = sizeof era->session;
  at[MESSAGING__AT_GENERATION - 1] = 0xce;
  MESSAGING__BATCH_TAGS(MESSAGING__PUT_BATCH_TAG)
  at[MESSAGING__AT_TYPE] = batch->type;
  memcpy(at + MESSAGING__AT_SESSION, era->session, sizeof era->session);
  messaging__store_be(at + MESSAGING__AT_GENERATION, era->generation, 4);
  messaging__store_be(at + MESSAGING__AT_ID, (uint64_t)batch->id, 8);
  messaging__store_be(at + MESSAGING__AT_KIND, batch->kind, 4);
  messaging__store_be(at + MESSAGING__AT_NONCE, batch->nonce, 8);
  messaging__store_be(at + MESSAGING__AT_NUMBER, batch->number, 8);
  messaging__store_be(at + MESSAGING__AT_POSITION, batch->position, 8);
  messaging__put_run(at, &batch->run);
  messaging__store_be(at + MESSAGING__AT_COUNT, batch->count, 4);
  at[MESSAGING__AT_FLAGS] = batch->flags;
  messaging__store_be(at + MESSAGING__AT_PAYLOAD_SIZE, batch->payload_size, 4);
}

/* Reads the body of a batch frame whose envelope was read. The frame may be followed by others. */
static inline bool messaging__batch_read(const uint8_t *at, size_t size, messaging__batch *batch) {
  if (size < MESSAGING__AT_PAYLOAD || at[1] != 0xa1 + MESSAGING__LETTERS || at[MESSAGING__AT_FLAGS] > 0x7f) return false;
  if (false MESSAGING__BATCH_TAGS(MESSAGING__OR_NO_BATCH_TAG)) return false;
  batch->type = at[MESSAGING__AT_TYPE];
  batch->id = (int64_t)messaging__load_be(at + MESSAGING__AT_ID, 8);
  batch->kind = (uint32_t)messaging__load_be(at + MESSAGING__AT_KIND, 4);
  batch->nonce = messaging__load_be(at + MESSAGING__AT_NONCE, 8);
  batch->number = messaging__load_be(at + MESSAGING__AT_NUMBER, 8);
  batch->position = messaging__load_be(at + MESSAGING__AT_POSITION, 8);
  batch->run.nonce = messaging__load_be(at + MESSAGING__AT_RUN_NONCE, 8);
  batch->run.first = messaging__load_be(at + MESSAGING__AT_RUN_FIRST, 8);
  batch->run.batch = messaging__load_be(at + MESSAGING__AT_RUN_BATCH, 8);
  batch->count = (uint32_t)messaging__load_be(at + MESSAGING__AT_COUNT, 4);
  batch->flags = at[MESSAGING__AT_FLAGS];
  batch->payload_size = (uint32_t)messaging__load_be(at + MESSAGING__AT_PAYLOAD_SIZE, 4);
  return batch->payload_size <= size - MESSAGING__AT_PAYLOAD && batch->count > 0 && batch->count <= batch->payload_size &&
         batch->number <= MESSAGING__NUMBER_MAX && batch->position <= MESSAGING__NUMBER_MAX && batch->nonce != 0 &&
         batch->run.first <= MESSAGING__NUMBER_MAX && batch->run.batch < MESSAGING__NUMBER_MAX;
}

/* What every frame begins with. */
typedef struct {
  const uint8_t *topic;
  size_t topic_size;
  uint8_t version, type;
  const uint8_t *session;
  uint32_t generation;
} messaging__envelope;

/* That of a batch, whose fields have fixed places. */
static inline bool messaging__envelope_of_batch(messaging__reader *reader, messaging__envelope *envelope) {
  const uint8_t *at = reader->at;
  if (reader->end - at < MESSAGING__AT_PAYLOAD || at[0] != 0x96 || at[1] != 0xa1 + MESSAGING__LETTERS || at[MESSAGING__AT_TYPE - 1] > 0x7f ||
      at[MESSAGING__AT_TYPE] > 0x7f || at[MESSAGING__AT_SESSION - 2] != 0xc4 || at[MESSAGING__AT_SESSION - 1] != 16 ||
      at[MESSAGING__AT_GENERATION - 1] != 0xce)
    return false;
  envelope->topic = at + 2;
  envelope->topic_size = 1 + MESSAGING__LETTERS;
  envelope->version = at[MESSAGING__AT_TYPE - 1];
  envelope->type = at[MESSAGING__AT_TYPE];
  envelope->session = at + MESSAGING__AT_SESSION;
  envelope->generation = (uint32_t)messaging__load_be(at + MESSAGING__AT_GENERATION, 4);
  reader->at = at + MESSAGING__AT_GENERATION + 4;
  return true;
}

static inline bool messaging__envelope_of_any(messaging__reader *reader, messaging__envelope *envelope) {
  size_t session_size;
  memset(envelope, 0, sizeof *envelope);
  if (messaging__read_array(reader) != 6) return false;
  envelope->topic = messaging__read_bytes(reader, &envelope->topic_size);
  envelope->version = (uint8_t)messaging__read_uint(reader, 255);
  envelope->type = (uint8_t)messaging__read_uint(reader, 127);
  envelope->session = messaging__read_bytes(reader, &session_size);
  envelope->generation = (uint32_t)messaging__read_uint(reader, UINT32_MAX);
  return !reader->bad && session_size == 16;
}

static inline bool messaging__envelope_read(messaging__reader *reader, messaging__envelope *envelope) {
  return messaging__envelope_of_batch(reader, envelope) || messaging__envelope_of_any(reader, envelope);
}

/* Writes control frames, which are small: the buffer of MESSAGING__CONTROL_SIZE bytes holds the largest. */
typedef struct {
  uint8_t bytes[MESSAGING__CONTROL_SIZE];
  size_t size;
} messaging__writer;

static inline void messaging__put_tag(messaging__writer *writer, unsigned tag) { writer->bytes[writer->size++] = (uint8_t)tag; }

static inline void messaging__put_uint(messaging__writer *writer, uint64_t value) {
  size_t size = value <= 0x7f ? 0 : value <= 0xff ? 1 : value <= 0xffff ? 2 : value <= UINT32_MAX ? 4 : 8;
  if (size == 0) {
    messaging__put_tag(writer, (unsigned)value);
    return;
  }
  messaging__put_tag(writer, size == 1 ? 0xcc : size == 2 ? 0xcd : size == 4 ? 0xce : 0xcf);
  messaging__store_be(writer->bytes + writer->size, value, size);
  writer->size += size;
}

static inline void messaging__put_int(messaging__writer *writer, int64_t value) {
  if (value >= 0) {
    messaging__put_uint(writer, (uint64_t)value);
    return;
  }
  messaging__put_tag(writer, 0xd3);
  messaging__store_be(writer->bytes + writer->size, (uint64_t)value, 8);
  writer->size += 8;
}

static inline void messaging__put_who(messaging__writer *writer, const messaging__who *who) {
  messaging__put_int(writer, who->id);
  messaging__put_uint(writer, who->kind);
  messaging__put_uint(writer, who->nonce);
}

/* The subscription prefix of one worker, which is also how frames to it begin. */
static inline void messaging__topic_of(uint8_t topic[MESSAGING__TOPIC_SIZE], const messaging__who *who) {
  static const uint8_t head[] = {0x96, 0xc4, 17, 'W'};
  memcpy(topic, head, sizeof head);
  messaging__store_be(topic + 4, (uint64_t)(int64_t)who->id, 8);
  messaging__store_be(topic + 12, who->nonce, 8);
}

/* Begins a frame: to one worker, or with the topic letter when to is NULL. */
static inline void messaging__frame_begin(messaging__writer *writer, const messaging__who *to, char topic, uint8_t type,
                                          const messaging__era *era) {
  writer->size = 0;
  if (to) {
    messaging__topic_of(writer->bytes, to);
    writer->size = MESSAGING__TOPIC_SIZE;
  } else {
    messaging__put_tag(writer, 0x96);
    messaging__put_tag(writer, 0xa1);
    messaging__put_tag(writer, (uint8_t)topic);
  }
  messaging__put_uint(writer, MESSAGING_WIRE_VERSION);
  messaging__put_uint(writer, type);
  messaging__put_tag(writer, 0xc4);
  messaging__put_tag(writer, 16);
  if (era) memcpy(writer->bytes + writer->size, era->session, 16);
  else memset(writer->bytes + writer->size, 0, 16);
  writer->size += 16;
  messaging__put_uint(writer, era ? era->generation : 0);
}

/* ==== Outbox ==========================================================================================================
 *
 * Between the threads that send and the protocol. Messages are encoded behind each other into the open batch, under a lock
 * that is held for no longer than that. The protocol takes a batch when it can put it on the wire.
 */

typedef struct {
  messaging__buffer *buffer; /* MESSAGING__AT_PAYLOAD bytes for the header, then the payload */
  uint32_t count;
  uint8_t type;
  bool crowded; /* the queue was half full when this was taken from it */
} messaging__outgoing;

typedef enum {
  MESSAGING__FLOWS,      /* a batch can go out as soon as it has a message */
  MESSAGING__HOLDS_OPEN, /* acknowledgements are on their way; the open batch waits for them, unless it is full */
  MESSAGING__HOLDS_ALL   /* nothing can go out before something arrives */
} messaging__hold;

typedef struct {
  pthread_mutex_t lock;
  pthread_cond_t room;
  messaging__outgoing open;
  messaging__ring ready; /* of messaging__outgoing */
  size_t bytes, bytes_max, message_bytes_max;
  size_t seal_bytes, grown_bytes; /* an open batch of this size is closed, or may be at most this large: small where messages and queues are */
  size_t hint, each; /* size of the last batch, and of a message in it */
  messaging__ring blocks; /* of messaging__buffer *, where a burst's batches lie, in order; kept until the next pause */
  messaging__stock stock; /* of new ones */
  uint32_t calm;          /* so many batches in a row were no burst's */
  messaging__hold hold;
  bool closed; /* nothing more is taken: the handle is ending */
  uint32_t blocked; /* threads that wait for room */
  uint64_t relays, outputs, relay_bytes, output_bytes;
} messaging__outbox;

/* A monotonic condition variable. */
static inline bool messaging__cond_init(pthread_cond_t *cond) {
  pthread_condattr_t attributes;
  if (pthread_condattr_init(&attributes) != 0) return false;
  bool done = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 && pthread_cond_init(cond, &attributes) == 0;
  pthread_condattr_destroy(&attributes);
  return done;
}

static inline void messaging__cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline_ms) {
  if (deadline_ms == MESSAGING__NEVER) {
    pthread_cond_wait(cond, lock);
    return;
  }
  struct timespec until;
  until.tv_sec = (time_t)(deadline_ms / 1000u);
  until.tv_nsec = (long)(deadline_ms % 1000u) * 1000000L;
  pthread_cond_timedwait(cond, lock, &until);
}

static inline bool messaging__outbox_init(messaging__outbox *outbox, size_t bytes_max, size_t message_bytes_max) {
  memset(outbox, 0, sizeof *outbox);
  messaging__ring_init(&outbox->ready, sizeof(messaging__outgoing));
  messaging__ring_init(&outbox->blocks, sizeof(messaging__buffer *));
  outbox->bytes_max = bytes_max;
  outbox->message_bytes_max = message_bytes_max;
  outbox->seal_bytes = (size_t)messaging__earlier(message_bytes_max, MESSAGING__SEAL_BYTES);
  outbox->grown_bytes = (size_t)messaging__earlier(message_bytes_max, MESSAGING__GROWN_BYTES);
  outbox->hold = MESSAGING__HOLDS_ALL;
  if (pthread_mutex_init(&outbox->lock, NULL) != 0) return false;
  if (messaging__cond_init(&outbox->room)) return true;
  pthread_mutex_destroy(&outbox->lock);
  return false;
}

/* Drops everything that no batch on the wire holds. */
static inline void messaging__outbox_clear(messaging__outbox *outbox) {
  pthread_mutex_lock(&outbox->lock);
  while (outbox->ready.count) {
    messaging__outgoing *batch = (messaging__outgoing *)messaging__ring_at(&outbox->ready, 0);
    outbox->bytes -= batch->buffer->size;
    messaging__buffer_drop(batch->buffer);
    messaging__ring_pop(&outbox->ready);
  }
  if (outbox->open.buffer) {
    outbox->bytes -= outbox->open.buffer->size;
    messaging__buffer_drop(outbox->open.buffer);
    outbox->open.buffer = NULL;
  }
  if (outbox->blocked) pthread_cond_broadcast(&outbox->room);
  pthread_mutex_unlock(&outbox->lock);
}

static inline void messaging__drop_blocks(messaging__ring *blocks) {
  for (; blocks->count; messaging__ring_pop(blocks)) messaging__buffer_drop(*(messaging__buffer **)messaging__ring_at(blocks, 0));
  messaging__ring_free(blocks);
}

static inline void messaging__outbox_free(messaging__outbox *outbox) {
  messaging__outbox_clear(outbox);
  messaging__drop_blocks(&outbox->blocks);
  messaging__buffer_drop(messaging__stock_clear(&outbox->stock));
  messaging__ring_free(&outbox->ready);
  pthread_cond_destroy(&outbox->room);
  pthread_mutex_destroy(&outbox->lock);
}

/* Closes the open batch. It cannot fail: the push has its room since the batch was opened. */
static inline void messaging__outbox_seal(messaging__outbox *outbox) {
  if (!outbox->open.buffer) return;
  messaging__ring_push(&outbox->ready, &outbox->open);
  messaging__part_close(outbox->open.buffer);
  outbox->hint = outbox->open.buffer->size;
  outbox->each = outbox->hint / outbox->open.count;
  outbox->open.buffer = NULL;
}

/* Whether the open batch is large enough. A frame costs much the same whatever its size, so a burst goes in larger ones: but for many small messages,
 * which a receiver would have to wait for. One that is as long as the others should still fit behind it. */
static inline bool messaging__outbox_full_batch(const messaging__outbox *outbox) {
  const messaging__buffer *buffer = outbox->open.buffer;
  size_t size = buffer->size, waiting = outbox->bytes - size, each = size / outbox->open.count;
  if (size < outbox->seal_bytes) return false;
  if (waiting < MESSAGING__SEAL_WAITING * size || buffer->capacity - size < each + each / 8 + outbox->seal_bytes / 16) return true;
  return size >= 2 * outbox->seal_bytes && (outbox->open.count >= MESSAGING__GROWN_MESSAGES || size + each > outbox->grown_bytes);
}

/* The first block, if nobody refers to its batches any more. It is the caller's. */
static inline messaging__buffer *messaging__outbox_used(messaging__outbox *outbox) {
  if (outbox->blocks.count == 0) return NULL;
  messaging__buffer *first = *(messaging__buffer **)messaging__ring_at(&outbox->blocks, 0);
  if (MESSAGING__LOAD(&first->references) > 1) return NULL;
  messaging__ring_pop(&outbox->blocks);
  first->size = 0;
  return first;
}

/* A block with so much room: the last one, from its beginning if it is used; the first that is used; or a new one. A burst that the other end keeps up
 * with goes round in few of them; fresh memory would cost more than all else that happens to a large message. NULL: no memory. */
static inline messaging__buffer *messaging__outbox_block(messaging__outbox *outbox, size_t room) {
  size_t count = outbox->blocks.count;
  messaging__buffer *block = count ? *(messaging__buffer **)messaging__ring_at(&outbox->blocks, count - 1) : NULL;
  if (block && MESSAGING__LOAD(&block->references) == 1) block->size = 0;
  if (block && block->capacity - block->size >= room) return block;
  if (!messaging__ring_reserve(&outbox->blocks)) return NULL;
  while ((block = messaging__outbox_used(outbox)) && block->capacity < room) messaging__buffer_drop(block);
  if (!block) block = messaging__stock_take(&outbox->stock, room, 2 * outbox->hint);
  if (!block) return NULL;
  messaging__ring_push(&outbox->blocks, &block);
  return block;
}

/* Memory for a batch: in a block while batches are large and more of them wait than go out at once (a burst), or blocks of the burst before are kept; else
 * as much as the last one took. After many batches without a burst blocks are given back one by one; in a pause all at once (rest). */
static inline messaging__buffer *messaging__outbox_memory(messaging__outbox *outbox) {
  size_t capacity = outbox->hint < 256 ? 256 : outbox->hint < MESSAGING__SEAL_BYTES ? outbox->hint + outbox->hint / 4 : (size_t)MESSAGING__SEAL_BYTES;
  capacity += MESSAGING__AT_PAYLOAD;
  bool large = outbox->hint >= MESSAGING__SEAL_BYTES / 2, burst = large && outbox->bytes >= MESSAGING__SEAL_BYTES;
  if (burst) outbox->calm = 0;
  else if (++outbox->calm > MESSAGING__CALM_BATCHES) messaging__buffer_drop(messaging__outbox_used(outbox));
  if (!burst && (!large || outbox->blocks.count == 0)) return messaging__buffer_new(capacity);
  size_t least = outbox->each > MESSAGING__SEAL_BYTES ? outbox->each : (size_t)MESSAGING__SEAL_BYTES;
  messaging__buffer *block = messaging__outbox_block(outbox, least + MESSAGING__SEAL_BYTES / 2);
  messaging__buffer *part = block ? messaging__part_new(block) : NULL;
  return part ? part : messaging__buffer_new(capacity);
}

/* Opens a batch in this memory. */
static inline void messaging__outbox_begin(messaging__outbox *outbox, uint8_t type, messaging__buffer *buffer) {
  memset(buffer->data, 0, MESSAGING__AT_PAYLOAD);
  buffer->size = MESSAGING__AT_PAYLOAD;
  outbox->bytes += buffer->size;
  outbox->open.buffer = buffer;
  outbox->open.count = 0;
  outbox->open.type = type;
}

/* Sees to an open batch of this type. */
static inline bool messaging__outbox_open(messaging__outbox *outbox, uint8_t type) {
  if (outbox->open.buffer && outbox->open.type != type) messaging__outbox_seal(outbox);
  if (outbox->open.buffer) return true;
  if (!messaging__ring_reserve(&outbox->ready)) return false;
  messaging__buffer *buffer = messaging__outbox_memory(outbox);
  if (!buffer) return false;
  messaging__outbox_begin(outbox, type, buffer);
  return true;
}

/* Puts the batch back as it was before a message that was not taken, if there is one. */
static inline void messaging__outbox_roll_back(messaging__outbox *outbox, size_t size) {
  messaging__buffer *buffer = outbox->open.buffer;
  if (!buffer) return;
  buffer->size = size;
  if (outbox->open.count) return;
  outbox->bytes -= size;
  messaging__buffer_drop(buffer);
  outbox->open.buffer = NULL;
}

/* Where msgpack writes to: the end of the open batch, up to a limit. The buffer's size is true again when all is written, or there was a fault. */
typedef struct {
  uint8_t *at;
  size_t room; /* what can be written without a second thought: it is there, and touched; 0 after a fault */
  messaging__outbox *outbox;
  size_t before, size_max; /* of the batch, without the message and with it */
  messaging_status fault;
} messaging__sink;

static inline void messaging__sink_begin(messaging__sink *sink) {
  const messaging__buffer *buffer = sink->outbox->open.buffer, *block = buffer->block;
  sink->at = buffer->data + buffer->size;
  sink->room = (size_t)messaging__earlier(buffer->capacity, sink->size_max) - buffer->size;
  if (!block) return;
  size_t at = (size_t)(sink->at - block->data);
  sink->room = (size_t)messaging__earlier(sink->room, block->touched > at ? block->touched - at : 0);
}

static inline void messaging__sink_end(messaging__sink *sink) {
  messaging__buffer *buffer = sink->outbox->open.buffer;
  if (buffer) buffer->size = (size_t)(sink->at - buffer->data);
}

/* The batch is large enough without the message, which goes to another one; rather than that all of it is moved to where there is more room. */
static inline bool messaging__sink_move_on(messaging__sink *sink) {
  messaging__outbox *outbox = sink->outbox;
  messaging__outgoing full = outbox->open;
  size_t written = full.buffer->size - sink->before;
  messaging__buffer *buffer = messaging__buffer_new(MESSAGING__AT_PAYLOAD + written);
  full.buffer->size = sink->before;
  messaging__outbox_seal(outbox);
  if (!buffer || !messaging__ring_reserve(&outbox->ready)) {
    messaging__buffer_drop(buffer);
    return false;
  }
  messaging__outbox_begin(outbox, full.type, buffer);
  memcpy(buffer->data + buffer->size, full.buffer->data + full.buffer->size, written);
  buffer->size += written;
  sink->before = MESSAGING__AT_PAYLOAD;
  sink->size_max = MESSAGING__AT_PAYLOAD + outbox->message_bytes_max;
  return true;
}

/* Makes room in the open batch for so much more, as far as it may grow. */
static inline messaging_status messaging__sink_reserve(messaging__sink *sink, size_t size) {
  const messaging__outbox *outbox = sink->outbox;
  messaging__buffer *buffer = outbox->open.buffer;
  if (size > (size_t)messaging__earlier(buffer->capacity, sink->size_max) - buffer->size) {
    if (outbox->open.count && sink->before >= outbox->seal_bytes && !messaging__sink_move_on(sink)) return MESSAGING_ENOMEM;
    buffer = outbox->open.buffer;
    if (size > sink->size_max - buffer->size) return MESSAGING_ETOOBIG;
    if (!messaging__buffer_reserve(buffer, buffer->size + size)) return MESSAGING_ENOMEM;
  }
  messaging__buffer *block = buffer->block;
  if (block) messaging__block_touch(block, (size_t)(buffer->data - block->data) + buffer->size + size);
  return MESSAGING_OK;
}

/* A write for which there is no room yet. Apart, so that the common case stays small. */
MESSAGING__UNUSED __attribute__((noinline)) static int messaging__sink_grow(messaging__sink *sink, const char *bytes, size_t size) {
  messaging__sink_end(sink);
  sink->room = 0;
  if (sink->fault == MESSAGING_OK) sink->fault = messaging__sink_reserve(sink, size);
  if (sink->fault != MESSAGING_OK) return -1;
  messaging__sink_begin(sink);
  memcpy(sink->at, bytes, size);
  sink->at += size;
  sink->room -= size;
  return 0;
}

/* A tag and so many bytes, read in the pieces in which msgpack-c has written them just before: a read across two writes waits until both have left the
 * processor, which was a seventh of what encoding cost. */
static inline void messaging__copy_tagged(uint8_t *to, const char *bytes, size_t size) {
  *to = *(const volatile uint8_t *)bytes;
  memcpy(to + 1, bytes + 1, size);
}

static inline int messaging__sink_write(void *data, const char *bytes, size_t size) {
  messaging__sink *sink = (messaging__sink *)data;
  if (size > sink->room) return messaging__sink_grow(sink, bytes, size);
  uint8_t *to = sink->at;
  sink->at += size;
  sink->room -= size;
  switch (size) { /* of msgpack's tags, with a number behind them: copies without a call */
    case 1: *to = (uint8_t)*bytes; break;
    case 2: messaging__copy_tagged(to, bytes, 1); break;
    case 3: messaging__copy_tagged(to, bytes, 2); break;
    case 5: messaging__copy_tagged(to, bytes, 4); break;
    case 9: messaging__copy_tagged(to, bytes, 8); break;
    default: memcpy(to, bytes, size);
  }
  return 0;
}

typedef int messaging__encode_fn(msgpack_packer *pk, const void *message);

/* Encodes one message into the open batch. *urgent says whether the protocol should look at the outbox now. */
static inline messaging_status messaging__outbox_put(messaging__outbox *outbox, uint8_t type, messaging__encode_fn *encode,
                                                     const void *message, bool *urgent) {
  if (outbox->closed) return MESSAGING_ENOTRUNNING;
  if (outbox->bytes >= outbox->bytes_max) return MESSAGING_EFULL;
  size_t sealed = outbox->ready.count;
  if (!messaging__outbox_open(outbox, type)) return MESSAGING_ENOMEM;
  size_t before = outbox->open.buffer->size;
  messaging__sink sink = {NULL, 0, outbox, before, before < 2 * outbox->seal_bytes ? before + outbox->message_bytes_max : outbox->grown_bytes, MESSAGING_OK};
  messaging__sink_begin(&sink);
  msgpack_packer packer;
  msgpack_packer_init(&packer, &sink, messaging__sink_write);
  messaging_status status = encode(&packer, message) == 0 ? MESSAGING_OK : MESSAGING_EENCODE;
  messaging__sink_end(&sink);
  const messaging__buffer *buffer = outbox->open.buffer;
  size_t size = buffer ? buffer->size - sink.before : 0;
  if (sink.fault != MESSAGING_OK) status = sink.fault;
  else if (status == MESSAGING_OK && !messaging__holds(buffer->data + sink.before, size, 1)) status = MESSAGING_EENCODE;
  else if (status == MESSAGING_OK && outbox->bytes + size > outbox->bytes_max && outbox->bytes > MESSAGING__AT_PAYLOAD) status = MESSAGING_EFULL;
  if (status != MESSAGING_OK) {
    messaging__outbox_roll_back(outbox, sink.before);
    return status;
  }
  outbox->bytes += size;
  outbox->open.count++;
  bool relay = type == MESSAGING__RELAY;
  *(relay ? &outbox->relays : &outbox->outputs) += 1;
  *(relay ? &outbox->relay_bytes : &outbox->output_bytes) += size;
  if (messaging__outbox_full_batch(outbox)) messaging__outbox_seal(outbox);
  *urgent = outbox->hold == MESSAGING__FLOWS || (outbox->hold == MESSAGING__HOLDS_OPEN && outbox->ready.count > sealed);
  return MESSAGING_OK;
}

/* The next batch, if one may go: a sealed one or, when all may, the open one. Else says so, and whoever sends then has the protocol look again. */
static inline bool messaging__outbox_look(messaging__outbox *outbox, messaging__hold hold, messaging__outgoing *batch) {
  if (hold == MESSAGING__FLOWS && outbox->ready.count == 0) messaging__outbox_seal(outbox);
  bool found = hold != MESSAGING__HOLDS_ALL && outbox->ready.count > 0;
  if (found) {
    *batch = *(messaging__outgoing *)messaging__ring_at(&outbox->ready, 0);
    batch->crowded = outbox->bytes > outbox->bytes_max / 2;
  } else {
    outbox->hold = hold;
  }
  return found;
}

/* A batch that stays until pop. */
static inline bool messaging__outbox_front(messaging__outbox *outbox, messaging__hold hold, messaging__outgoing *batch) {
  pthread_mutex_lock(&outbox->lock);
  bool found = messaging__outbox_look(outbox, hold, batch);
  pthread_mutex_unlock(&outbox->lock);
  return found;
}

static inline void messaging__outbox_pop(messaging__outbox *outbox) {
  pthread_mutex_lock(&outbox->lock);
  messaging__ring_pop(&outbox->ready);
  pthread_mutex_unlock(&outbox->lock);
}

/* Both at once. */
static inline bool messaging__outbox_take(messaging__outbox *outbox, messaging__hold hold, messaging__outgoing *batch) {
  pthread_mutex_lock(&outbox->lock);
  bool found = messaging__outbox_look(outbox, hold, batch);
  if (found) messaging__ring_pop(&outbox->ready);
  pthread_mutex_unlock(&outbox->lock);
  return found;
}

/* A batch that was popped is no longer this process's concern. */
static inline void messaging__outbox_release(messaging__outbox *outbox, size_t bytes) {
  pthread_mutex_lock(&outbox->lock);
  outbox->bytes -= bytes;
  if (outbox->blocked) pthread_cond_broadcast(&outbox->room);
  pthread_mutex_unlock(&outbox->lock);
}

/* A heartbeat is due and nothing waits: the blocks of the last burst are not kept for another one. */
static inline void messaging__outbox_rest(messaging__outbox *outbox) {
  messaging__ring blocks;
  messaging__buffer *spare = NULL;
  messaging__ring_init(&blocks, sizeof(messaging__buffer *));
  pthread_mutex_lock(&outbox->lock);
  if (outbox->bytes == 0) {
    messaging__ring none = blocks;
    blocks = outbox->blocks;
    outbox->blocks = none;
    spare = messaging__stock_clear(&outbox->stock);
  }
  pthread_mutex_unlock(&outbox->lock);
  messaging__drop_blocks(&blocks);
  messaging__buffer_drop(spare);
}

static inline bool messaging__outbox_empty(messaging__outbox *outbox) {
  pthread_mutex_lock(&outbox->lock);
  bool empty = outbox->bytes == 0;
  pthread_mutex_unlock(&outbox->lock);
  return empty;
}

/* Says how far the protocol has got, to whoever sends. */
static inline void messaging__outbox_hold(messaging__outbox *outbox, messaging__hold hold) {
  pthread_mutex_lock(&outbox->lock);
  outbox->hold = hold;
  pthread_mutex_unlock(&outbox->lock);
}

static inline void messaging__outbox_close(messaging__outbox *outbox) {
  pthread_mutex_lock(&outbox->lock);
  outbox->closed = true;
  pthread_cond_broadcast(&outbox->room);
  pthread_mutex_unlock(&outbox->lock);
}

/* ==== History =========================================================================================================
 *
 * The relay messages of a generation: an append-only log of RELAY frames in chunks, found by number. Small frames lie in a chunk
 * behind each other, each behind its size in four bytes; a large one is a chunk of its own and stays where libzmq put it. A history
 * that has grown goes on in blocks, into which large ones are copied too: a copy costs less than new memory for libzmq's next frame. So
 * does a young one as soon as there is a block, which a burst's first frame orders.
 */

typedef struct {
  messaging__buffer *buffer;
  uint8_t *data; /* a whole frame, when whole */
  size_t size;
  uint64_t first, next; /* numbers */
  bool whole;
} messaging__chunk;

typedef struct {
  messaging__ring chunks; /* of messaging__chunk */
  uint64_t first, next;   /* numbers held: first <= number < next */
  size_t bytes, bytes_max, chunk_bytes;
  size_t block_bytes; /* of the largest block; 0: it never grows so large that blocks serve it */
  bool in_blocks;     /* it has gone on in one */
  messaging__stock stock; /* of blocks */
} messaging__log;

/* A place in a log: the chunk, counted from the front, and the offset in it. Trimming moves it. */
typedef struct {
  size_t chunk, offset;
} messaging__place;

/* For a new log, all zero, or for one that was freed. */
static inline void messaging__log_init(messaging__log *log, size_t bytes_max) {
  log->bytes = 0;
  messaging__ring_init(&log->chunks, sizeof(messaging__chunk));
  log->first = log->next = 1;
  log->bytes_max = bytes_max;
  log->chunk_bytes = bytes_max / 16 < 4096 ? 4096 : bytes_max / 16 < MESSAGING__CHUNK_BYTES ? bytes_max / 16 : (size_t)MESSAGING__CHUNK_BYTES;
  log->block_bytes = bytes_max / 16 / MESSAGING__BLOCK_BYTES * MESSAGING__BLOCK_BYTES;
  log->in_blocks = false;
}

static inline messaging__chunk *messaging__log_chunk(const messaging__log *log, size_t index) {
  return (messaging__chunk *)messaging__ring_at(&log->chunks, index);
}

/* Drops the front chunk. A block that nobody refers to any more is used again. */
static inline void messaging__log_drop(messaging__log *log) {
  messaging__chunk *chunk = messaging__log_chunk(log, 0);
  bool again = chunk->buffer->release == messaging__block_free && !log->stock.spare && MESSAGING__LOAD(&chunk->buffer->references) == 1;
  log->first = chunk->next;
  log->bytes -= chunk->size;
  if (again) log->stock.spare = chunk->buffer;
  else messaging__buffer_drop(chunk->buffer);
  messaging__ring_pop(&log->chunks);
}

static inline void messaging__log_free(messaging__log *log) {
  while (log->chunks.count) messaging__log_drop(log);
  messaging__ring_free(&log->chunks);
  messaging__buffer_drop(messaging__stock_clear(&log->stock));
}

/* Whether a frame fits within the limit; one always fits into an empty log. */
static inline bool messaging__log_fits(const messaging__log *log, size_t size) {
  return log->bytes == 0 || log->bytes + size + 4 <= log->bytes_max;
}

/* Whether it goes on in blocks, into which all but the largest frames are copied. */
static inline bool messaging__log_large(const messaging__log *log) {
  return log->block_bytes && (log->in_blocks || log->stock.spare || log->chunks.count >= MESSAGING__CHUNKS_MAX);
}

/* A block for a frame and some more like it. One of small frames fills slowly, and whoever waits for one of them would wait for its memory as well. */
static inline messaging__buffer *messaging__log_block(messaging__log *log, size_t frame_bytes) {
  size_t bytes = (size_t)messaging__earlier(frame_bytes * 8, log->block_bytes);
  if (bytes >= MESSAGING__TOUCH_BYTES) return messaging__stock_take(&log->stock, bytes, bytes);
  messaging__buffer *block = messaging__stock_clear(&log->stock);
  return block ? block : messaging__block_new(bytes);
}

/* A frame stays where it is. If it may be one of a burst's, large, but small enough for a block with others, there should be one for the next. */
static inline void messaging__log_foresee(messaging__log *log, size_t frame_bytes) {
  if (log->block_bytes && frame_bytes >= MESSAGING__TOUCH_BYTES && frame_bytes * 8 <= MESSAGING__BLOCK_BYTES) messaging__stock_order(&log->stock, frame_bytes * 8);
}

/* Opens a chunk for a frame: one that shares it with others, or a whole one. One that was filled is followed by a block; so is any, for the first time. */
static inline bool messaging__log_open(messaging__log *log, messaging__slice frame, bool whole) {
  messaging__chunk chunk = {frame.owner, frame.data, 0, log->next, log->next, whole};
  if (!messaging__ring_reserve(&log->chunks)) return false;
  if (whole && frame.owner) {
    messaging__buffer_keep(chunk.buffer);
    if (!log->in_blocks) messaging__log_foresee(log, frame.size);
  } else {
    size_t count = log->chunks.count, capacity = !whole && frame.size + 4 < log->chunk_bytes ? log->chunk_bytes : frame.size + 4;
    bool block = !whole && messaging__log_large(log) && (!log->in_blocks || count == 0 || !messaging__log_chunk(log, count - 1)->whole);
    chunk.buffer = block ? messaging__log_block(log, frame.size) : NULL;
    log->in_blocks = log->in_blocks || chunk.buffer;
    if (!chunk.buffer) chunk.buffer = messaging__buffer_new(capacity);
    if (!chunk.buffer) return false;
    chunk.data = chunk.buffer->data;
  }
  return messaging__ring_push(&log->chunks, &chunk);
}

/* Appends a frame and says where it lies from now on. */
static inline bool messaging__log_append(messaging__log *log, messaging__slice frame, uint32_t count, messaging__slice *kept) {
  bool whole = messaging__log_large(log) ? frame.size > log->block_bytes / 4
                                         : frame.size + 4 > log->chunk_bytes || (frame.owner && frame.size >= MESSAGING__WRAP_BYTES);
  size_t prefix = whole ? 0 : 4;
  messaging__chunk *last = log->chunks.count ? messaging__log_chunk(log, log->chunks.count - 1) : NULL;
  if (whole || !last || last->whole || last->buffer->capacity - last->size < frame.size + prefix) {
    if (!messaging__log_open(log, frame, whole)) return false;
    last = messaging__log_chunk(log, log->chunks.count - 1);
  }
  kept->owner = last->buffer;
  kept->data = last->data + last->size + prefix;
  kept->size = frame.size;
  if (prefix) messaging__store_be(last->data + last->size, frame.size, prefix);
  if (last->buffer->release == messaging__block_free) messaging__block_write(last->buffer, kept->data, frame.data, frame.size);
  else if (kept->data != frame.data) memcpy(kept->data, frame.data, frame.size);
  last->size += frame.size + prefix;
  log->bytes += frame.size + prefix;
  log->next += count;
  last->next = log->next;
  return true;
}

/* The frame at a place, which moves behind it. False at the end; a frame that is appended later is found from there. */
static inline bool messaging__log_read(const messaging__log *log, messaging__place *place, messaging__slice *frame) {
  const messaging__chunk *chunk;
  for (;;) {
    if (place->chunk >= log->chunks.count) return false;
    chunk = messaging__log_chunk(log, place->chunk);
    if (place->offset < chunk->size) break;
    if (place->chunk + 1 == log->chunks.count) return false;
    place->chunk++;
    place->offset = 0;
  }
  size_t prefix = chunk->whole ? 0 : 4;
  frame->owner = chunk->buffer;
  frame->size = chunk->whole ? chunk->size : (size_t)messaging__load_be(chunk->data + place->offset, prefix);
  frame->data = chunk->data + place->offset + prefix;
  place->offset += frame->size + prefix;
  return true;
}

/* The place behind the last frame. */
static inline messaging__place messaging__log_end(const messaging__log *log) {
  messaging__place place = {0, 0};
  if (log->chunks.count == 0) return place;
  place.chunk = log->chunks.count - 1;
  place.offset = messaging__log_chunk(log, place.chunk)->size;
  return place;
}

/* The place of the batch that holds a number, or of the first one behind it. */
static inline messaging__place messaging__log_find(const messaging__log *log, uint64_t number) {
  size_t low = 0, high = log->chunks.count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (messaging__log_chunk(log, middle)->next <= number) low = middle + 1;
    else high = middle;
  }
  messaging__place place = {low, 0}, before = place;
  messaging__slice frame;
  messaging__batch batch;
  while (messaging__log_read(log, &place, &frame) && messaging__batch_read(frame.data, frame.size, &batch) &&
         batch.position + batch.count <= number)
    before = place;
  return before;
}

/* ==== Inbox ===========================================================================================================
 *
 * Between the protocol and the thread that receives. A worker's inbox is a bounded queue of frames. A supervisor's is a bounded
 * queue of frames with output messages, merged with a cursor that walks the history: each output frame remembers the number that
 * the next relay message was to get when it came.
 */

/* A frame to be decoded, with what its header says. */
typedef struct {
  messaging__slice frame;
  messaging__batch batch;
  uint64_t after; /* supervisor: to be received once the cursor is here */
} messaging__item;

typedef struct messaging__arena messaging__arena;

typedef struct {
  pthread_mutex_t lock;
  messaging__ring items; /* of messaging__item */
  size_t bytes, bytes_max;
  messaging__buffer *chunk; /* for copies of small frames */

  bool has_log; /* a supervisor's */
  messaging__log log;
  messaging__place cursor;
  uint64_t cursor_number;  /* of the next relay message for the application */
  uint64_t cursor_batches; /* batches of others in the log from there on */
  uint64_t own_nonce;

  bool term_due; /* a Terminate is to be given to the application */
  messaging__who term_by;
  bool terminated;
  bool ended;
  messaging_status cause;
  bool wanted; /* the protocol waits for room here */
  bool readable;

  int event_fd; /* readable while readable, once somebody watches */
  bool signaled, watched; /* watched: the application has asked for the descriptor */
  uint32_t watchers;

  messaging__arena *retry; /* taken from the queue, not yet decoded for want of memory */
  bool purged, renewed;    /* since something was taken from the queue */
  uint64_t relays, outputs, relay_bytes, output_bytes, malformed;
} messaging__inbox;

static inline bool messaging__inbox_init(messaging__inbox *inbox, size_t bytes_max) {
  memset(inbox, 0, sizeof *inbox);
  messaging__ring_init(&inbox->items, sizeof(messaging__item));
  inbox->bytes_max = bytes_max;
  inbox->event_fd = -1;
  inbox->cursor_number = 1;
  return pthread_mutex_init(&inbox->lock, NULL) == 0;
}

static inline void messaging__inbox_clear(messaging__inbox *inbox) {
  while (inbox->items.count) {
    messaging__item *item = (messaging__item *)messaging__ring_at(&inbox->items, 0);
    inbox->bytes -= item->frame.size;
    messaging__buffer_drop(item->frame.owner);
    messaging__ring_pop(&inbox->items);
  }
}

static inline void messaging__inbox_free(messaging__inbox *inbox) {
  messaging__inbox_clear(inbox);
  messaging__ring_free(&inbox->items);
  messaging__buffer_drop(inbox->chunk);
  if (inbox->has_log) messaging__log_free(&inbox->log);
  pthread_mutex_destroy(&inbox->lock);
}

/* Frames for the application. Under the lock. */
static inline size_t messaging__inbox_frames(const messaging__inbox *inbox) { return inbox->items.count + (size_t)inbox->cursor_batches; }

/* Whether there is something for the application. Under the lock. */
static inline bool messaging__inbox_holds(const messaging__inbox *inbox) {
  return messaging__inbox_frames(inbox) > 0 || inbox->term_due || inbox->retry;
}

/* Keeps readable true to what recv would find. Under the lock. */
static inline void messaging__inbox_settle(messaging__inbox *inbox) {
  MESSAGING__STORE(&inbox->readable, messaging__inbox_holds(inbox) || inbox->ended);
}

static inline bool messaging__inbox_fits(const messaging__inbox *inbox, size_t size) {
  return inbox->bytes == 0 || inbox->bytes + size <= inbox->bytes_max;
}

typedef enum { MESSAGING__PUT, MESSAGING__NO_ROOM, MESSAGING__NO_MEMORY } messaging__put_result;

/* Queues a frame whose header was read. */
static inline messaging__put_result messaging__inbox_put(messaging__inbox *inbox, messaging__slice frame, const messaging__batch *batch) {
  messaging__put_result result = MESSAGING__NO_ROOM;
  messaging__slice kept;
  pthread_mutex_lock(&inbox->lock);
  if (!messaging__inbox_fits(inbox, frame.size)) {
    MESSAGING__STORE(&inbox->wanted, true);
  } else if (!messaging__ring_reserve(&inbox->items) || !messaging__slice_keep(frame, &inbox->chunk, &kept)) {
    result = MESSAGING__NO_MEMORY;
  } else {
    messaging__item *item = (messaging__item *)messaging__ring_end(&inbox->items);
    item->frame = kept;
    item->batch = *batch;
    item->after = inbox->has_log ? inbox->log.next : 0;
    inbox->items.count++;
    inbox->bytes += frame.size;
    messaging__inbox_settle(inbox);
    result = MESSAGING__PUT;
  }
  pthread_mutex_unlock(&inbox->lock);
  return result;
}

/* Bytes that a negative acknowledgement may ask for; 0 when it is better to wait for the application. */
static inline size_t messaging__inbox_credit(messaging__inbox *inbox) {
  pthread_mutex_lock(&inbox->lock);
  size_t room = inbox->bytes < inbox->bytes_max ? inbox->bytes_max - inbox->bytes : 0;
  if (inbox->bytes && room < inbox->bytes_max / 2) room = 0;
  MESSAGING__STORE(&inbox->wanted, inbox->bytes != 0);
  pthread_mutex_unlock(&inbox->lock);
  return room;
}

/* Termination, by somebody. Given to the application once. */
static inline void messaging__inbox_terminate(messaging__inbox *inbox, const messaging__who *by) {
  pthread_mutex_lock(&inbox->lock);
  if (!inbox->terminated) {
    inbox->term_due = true;
    inbox->term_by = *by;
    MESSAGING__STORE(&inbox->terminated, true);
    messaging__inbox_settle(inbox);
  }
  pthread_mutex_unlock(&inbox->lock);
}

/* There is no termination after all. */
static inline void messaging__inbox_resume(messaging__inbox *inbox) {
  pthread_mutex_lock(&inbox->lock);
  inbox->term_due = false;
  MESSAGING__STORE(&inbox->terminated, false);
  messaging__inbox_settle(inbox);
  pthread_mutex_unlock(&inbox->lock);
}

/* The handle has ended: what is queued can still be received, then every call gives the cause. */
static inline void messaging__inbox_end(messaging__inbox *inbox, messaging_status cause) {
  pthread_mutex_lock(&inbox->lock);
  if (!inbox->ended) {
    inbox->cause = cause;
    MESSAGING__STORE(&inbox->ended, true);
    messaging__inbox_settle(inbox);
  }
  pthread_mutex_unlock(&inbox->lock);
}

/* Appends a relay frame to a supervisor's history. The application's own batches are passed by its cursor. */
static inline bool messaging__inbox_log(messaging__inbox *inbox, messaging__slice frame, const messaging__batch *batch,
                                        messaging__slice *kept) {
  pthread_mutex_lock(&inbox->lock);
  bool at_end = inbox->cursor_batches == 0;
  bool done = messaging__log_append(&inbox->log, frame, batch->count, kept);
  if (done && batch->nonce != inbox->own_nonce) {
    inbox->cursor_batches++;
    messaging__inbox_settle(inbox);
  } else if (done && at_end) {
    inbox->cursor = messaging__log_end(&inbox->log);
    inbox->cursor_number = inbox->log.next;
  }
  pthread_mutex_unlock(&inbox->lock);
  return done;
}

/* Drops the front chunk of the history, with the cursor moving along: to behind what the application has not read, if need be. */
static inline void messaging__inbox_log_drop(messaging__inbox *inbox) {
  messaging__log_drop(&inbox->log);
  if (inbox->cursor.chunk > 0) inbox->cursor.chunk--;
  else inbox->cursor.offset = 0;
  if (inbox->cursor_number >= inbox->log.first) return;
  inbox->cursor_number = inbox->log.first;
  inbox->cursor_batches = 0;
  messaging__place place = {0, 0};
  messaging__slice frame;
  messaging__batch batch;
  while (messaging__log_read(&inbox->log, &place, &frame) && messaging__batch_read(frame.data, frame.size, &batch))
    if (batch.nonce != inbox->own_nonce) inbox->cursor_batches++;
  messaging__inbox_settle(inbox);
}

/* The next frame for the application of a supervisor; a reference is the caller's. */
static inline bool messaging__inbox_next(messaging__inbox *inbox, messaging__item *next) {
  const messaging__item *output = inbox->items.count ? (const messaging__item *)messaging__ring_at(&inbox->items, 0) : NULL;
  while (inbox->cursor_batches && !(output && output->after <= inbox->cursor_number)) {
    if (!messaging__log_read(&inbox->log, &inbox->cursor, &next->frame)) break;
    if (!messaging__batch_read(next->frame.data, next->frame.size, &next->batch)) break;
    inbox->cursor_number = next->batch.position + next->batch.count;
    if (next->batch.nonce == inbox->own_nonce) continue;
    inbox->cursor_batches--;
    messaging__buffer_keep(next->frame.owner);
    return true;
  }
  if (!output) return false;
  *next = *output;
  inbox->bytes -= output->frame.size;
  messaging__ring_pop(&inbox->items);
  return true;
}

/* Begins a new generation's history. What the application has not received of the old one stays, as items, ahead of all that comes. */
static inline bool messaging__inbox_renew(messaging__inbox *inbox, bool purge) {
  messaging__ring kept;
  messaging__item item;
  messaging__ring_init(&kept, sizeof item);
  if (purge) messaging__inbox_clear(inbox);
  else if (!messaging__ring_grow(&kept, messaging__inbox_frames(inbox))) return false;
  while (!purge && messaging__inbox_next(inbox, &item)) {
    item.after = 0;
    inbox->bytes += item.frame.size;
    messaging__ring_push(&kept, &item);
  }
  messaging__ring_free(&inbox->items);
  inbox->items = kept;
  size_t bytes_max = inbox->log.bytes_max;
  messaging__log_free(&inbox->log);
  messaging__log_init(&inbox->log, bytes_max);
  memset(&inbox->cursor, 0, sizeof inbox->cursor);
  inbox->cursor_number = 1;
  inbox->cursor_batches = 0;
  inbox->term_due = false;
  inbox->renewed = true;
  inbox->purged = inbox->purged || purge;
  MESSAGING__STORE(&inbox->terminated, false);
  messaging__inbox_settle(inbox);
  return true;
}

/* ==== Protocol ========================================================================================================
 *
 * Two state machines, pure: they are given frames, the time and the outbox, and hand frames to the port and batches to the inbox.
 * They own no socket, no thread and no clock. One caller at a time.
 */

typedef struct {
  void *self;
  /* Sends a frame, which is lent. False: not now. What was taken may be lost. */
  bool (*send)(void *self, messaging__slice frame);
  /* Tells the application. */
  void (*report)(void *self, const messaging_error *error);
  /* Supervisor: watches a process. A number from 0 on; MESSAGING__UNWATCHED: cannot be watched; MESSAGING__DEAD: is no more. */
  int (*watch)(void *self, pid_t id);
  void (*unwatch)(void *self, int watch);
  /* Whether a watched process has died. */
  bool (*died)(void *self, int watch);
} messaging__port;

enum { MESSAGING__UNWATCHED = -1, MESSAGING__DEAD = -2 };

static inline void messaging__report(const messaging__port *port, messaging_status status, const messaging__who *who, const char *detail) {
  messaging_error error = {status, 0, 0, 0, 0, detail};
  if (who) {
    error.pid = who->id;
    error.kind = who->kind;
  }
  port->report(port->self, &error);
}

static inline void messaging__report_gap(const messaging__port *port, const messaging__who *who, uint64_t first, uint64_t next, const char *detail) {
  messaging_error error = {MESSAGING_EHISTORY, who->id, who->kind, first, next - 1, detail};
  port->report(port->self, &error);
}

static inline bool messaging__send_control(const messaging__port *port, messaging__writer *writer) {
  messaging__slice frame = {NULL, writer->bytes, writer->size};
  return port->send(port->self, frame);
}

/* Doubles a time up to a limit. */
static inline uint32_t messaging__doubled(uint32_t ms, uint32_t ms_max) { return ms * 2 < ms_max ? ms * 2 : ms_max; }

/* ==== Worker ==========================================================================================================
 *
 * Announces itself until it is welcomed. Then: upwards one numbered stream of batches, kept until they are acknowledged; downwards
 * relay batches in order, gaps asked for, the tail known from heartbeats.
 */

/* A batch on the wire. */
typedef struct {
  messaging__outgoing batch;
  uint64_t number;
} messaging__flight;

/* A batch that came ahead of a gap. */
typedef struct {
  messaging__slice frame; /* owner NULL: our own, which is not delivered */
  messaging__batch batch;
} messaging__early;

typedef enum { MESSAGING__ANNOUNCING, MESSAGING__JOINED, MESSAGING__OVER } messaging__state;

typedef struct {
  messaging__port port;
  messaging__outbox *outbox;
  messaging__inbox *inbox;
  messaging__state state;
  messaging__who self;
  messaging__who supervisor;
  messaging__era era;
  uint32_t heartbeat_ms, silence_ms;
  size_t message_bytes_max;
  bool watched; /* a pidfd watches the supervisor, so that its silence means nothing */

  /* Downwards. */
  uint64_t next;             /* the number that is delivered next */
  uint64_t known;            /* numbers below this one exist */
  uint64_t ack_at;           /* when to tell it */
  size_t unsaid_bytes;       /* delivered since it was last told */
  uint32_t ack_ms;
  messaging__ring early;     /* of messaging__early, in order */
  size_t early_bytes;
  uint64_t nak_at, nak_next; /* when to ask (again) for what is missing, and next when it was last asked */
  uint32_t nak_ms, answer_ms; /* time to the next question; how long answers take, 0: not known */
  uint64_t asked_ms;         /* when the first question was asked that is not answered; 0: there is none */
  bool asking;               /* a gap is known and was asked for */

  /* Upwards. */
  messaging__ring flights;   /* of messaging__flight, in order */
  size_t flights_bytes, flights_sent; /* how many of them have been sent since the last fault */
  uint64_t number;           /* of the next batch */
  uint64_t hastened;         /* number of the last batch that asked for an answer */
  uint64_t hurried;          /* number when a flush last asked for an answer */
  uint64_t window;
  uint64_t probe_at;         /* when to ask what has arrived */
  uint32_t probe_ms;
  uint32_t probe;            /* number of the last question */
  uint32_t probe_answered;
  uint64_t probe_number;     /* of the next batch then: those below it are lost if the answer does not know them */
  bool again;                /* batches were sent again and the question behind them is not answered yet */
  uint32_t again_probe;      /* that question: what was said before it tells of the time before */

  /* Control. */
  uint64_t hello_at;
  uint32_t hello_ms;
  uint64_t heard_ms, spoken_ms;
  uint64_t asked_up_ms;        /* when the first question was asked that no STATUS has answered; 0: there is none */
  uint64_t renewed_ms;         /* when the connections were last found useless, */
  bool renew;                  /* which is for the shell to see to */
  unsigned slot;               /* own batches need not be heard: their topic has these letters; 0: none */
  bool tune;                   /* it has changed, so the shell has to subscribe anew */
  bool report_due, answer_due; /* a REPORT is to go out; it asks for an answer */
  bool term_wanted, term_echoed;
  bool lost, lost_shown;       /* the supervisor has fallen silent; the application sees termination for that alone */
  bool leaving, left, bye_seen;
  uint64_t again_at;           /* terminate or goodbye is repeated then */
  uint32_t control_ms;
  bool stalled;                /* the socket took nothing */
  bool rejected;               /* told once that the id is taken */
  messaging_stats stats;
} messaging__worker;

static inline void messaging__worker_init(messaging__worker *worker, const messaging__port *port, messaging__outbox *outbox,
                                          messaging__inbox *inbox, const messaging__who *self, const messaging_options *options,
                                          uint64_t now) {
  memset(worker, 0, sizeof *worker);
  worker->port = *port;
  worker->outbox = outbox;
  worker->inbox = inbox;
  worker->self = *self;
  worker->heartbeat_ms = options->heartbeat_ms - (uint32_t)(self->nonce % (options->heartbeat_ms / 8 + 1)); /* not all at once */
  worker->silence_ms = options->silence_ms;
  worker->message_bytes_max = options->message_bytes_max;
  worker->next = worker->known = worker->number = 1;
  worker->ack_ms = MESSAGING__ACK_MAX_MS;
  worker->ack_at = worker->nak_at = worker->probe_at = worker->again_at = MESSAGING__NEVER;
  worker->probe_ms = MESSAGING__PROBE_MS;
  worker->hello_ms = MESSAGING__HELLO_MS;
  worker->hello_at = worker->heard_ms = worker->spoken_ms = now;
  messaging__ring_init(&worker->early, sizeof(messaging__early));
  messaging__ring_init(&worker->flights, sizeof(messaging__flight));
}

static inline void messaging__worker_drop_early(messaging__worker *worker) {
  messaging__early *early = (messaging__early *)messaging__ring_at(&worker->early, 0);
  worker->early_bytes -= early->frame.size;
  messaging__buffer_drop(early->frame.owner);
  messaging__ring_pop(&worker->early);
}

static inline void messaging__worker_drop_flight(messaging__worker *worker) {
  messaging__flight *flight = (messaging__flight *)messaging__ring_at(&worker->flights, 0);
  size_t bytes = flight->batch.buffer->size;
  messaging__buffer_drop(flight->batch.buffer);
  messaging__ring_pop(&worker->flights);
  worker->flights_bytes -= bytes;
  if (worker->flights_sent) worker->flights_sent--;
  messaging__outbox_release(worker->outbox, bytes);
}

static inline void messaging__worker_free(messaging__worker *worker) {
  while (worker->early.count) messaging__worker_drop_early(worker);
  while (worker->flights.count) messaging__worker_drop_flight(worker);
  messaging__ring_free(&worker->early);
  messaging__ring_free(&worker->flights);
}

/* The end of this handle, whatever the cause: the application sees termination, its calls the cause. */
static inline void messaging__worker_end(messaging__worker *worker, messaging_status cause, const char *detail) {
  if (worker->state == MESSAGING__OVER) return;
  worker->state = MESSAGING__OVER;
  messaging__outbox_close(worker->outbox);
  messaging__inbox_terminate(worker->inbox, &worker->supervisor);
  messaging__inbox_end(worker->inbox, cause);
  messaging__report(&worker->port, cause, &worker->supervisor, detail);
}

/* ---- Worker: what goes up ---- */

/* Puts the missing ranges into a report: from next to the first early batch, between early batches, and up to what is known. */
static inline void messaging__worker_put_ranges(messaging__worker *worker, messaging__writer *writer, bool ask) {
  size_t tag_at = writer->size;
  uint64_t from = worker->next;
  unsigned count = 0;
  messaging__put_tag(writer, 0xdc);
  messaging__put_tag(writer, 0);
  messaging__put_tag(writer, 0);
  for (size_t i = 0; ask && i <= worker->early.count && count < MESSAGING__RANGES_MAX; i++) {
    const messaging__early *early = i < worker->early.count ? (const messaging__early *)messaging__ring_at(&worker->early, i) : NULL;
    uint64_t to = early ? early->batch.position : worker->known;
    if (to > from) {
      messaging__put_tag(writer, 0x92);
      messaging__put_uint(writer, from);
      messaging__put_uint(writer, to - 1);
      count++;
    }
    if (early) from = messaging__later(from, early->batch.position + early->batch.count);
  }
  writer->bytes[tag_at + 2] = (uint8_t)count;
}

/* What is in the inbox was said. */
static inline void messaging__worker_said(messaging__worker *worker) {
  worker->ack_at = MESSAGING__NEVER;
  worker->unsaid_bytes = 0;
}

/* Sends a report: acknowledgement, flags, and what is missing when ask is set. */
static inline bool messaging__worker_report(messaging__worker *worker, uint64_t now, bool ask, size_t credit) {
  messaging__writer writer;
  unsigned flags = worker->answer_due ? MESSAGING__UP_ANSWER : 0;
  if (worker->term_wanted && !worker->term_echoed) flags |= MESSAGING__UP_TERM;
  if (MESSAGING__LOAD(&worker->inbox->terminated) && !worker->lost) flags |= MESSAGING__UP_TERM_SEEN;
  if (worker->leaving && worker->state == MESSAGING__JOINED) flags |= MESSAGING__UP_BYE; /* who has ended answers alone: two goodbyes would answer each other */
  if (worker->bye_seen) flags |= MESSAGING__UP_BYE_SEEN;
  messaging__frame_begin(&writer, NULL, 'U', MESSAGING__REPORT, &worker->era);
  messaging__put_tag(&writer, 0x97);
  messaging__put_int(&writer, worker->self.id);
  messaging__put_uint(&writer, worker->self.nonce);
  messaging__put_uint(&writer, worker->next);
  messaging__put_uint(&writer, worker->probe);
  messaging__put_uint(&writer, flags);
  messaging__put_uint(&writer, credit);
  messaging__worker_put_ranges(worker, &writer, ask);
  if (!messaging__send_control(&worker->port, &writer)) {
    worker->stalled = true;
    return false;
  }
  worker->report_due = worker->answer_due = false;
  messaging__worker_said(worker);
  worker->spoken_ms = now;
  return true;
}

static inline void messaging__worker_hello(messaging__worker *worker, uint64_t now) {
  messaging__writer writer;
  messaging__frame_begin(&writer, NULL, 'U', MESSAGING__HELLO, NULL);
  messaging__put_tag(&writer, 0x94);
  messaging__put_who(&writer, &worker->self);
  messaging__put_uint(&writer, worker->message_bytes_max);
  if (!messaging__send_control(&worker->port, &writer)) {
    worker->stalled = true;
    return;
  }
  worker->spoken_ms = now;
  worker->hello_at = now + worker->hello_ms;
  worker->hello_ms = messaging__doubled(worker->hello_ms, worker->heartbeat_ms);
}

/* Fills in the header of a batch and sends it. */
static inline bool messaging__worker_send_flight(messaging__worker *worker, messaging__flight *flight, bool answer, uint64_t now) {
  messaging__buffer *buffer = flight->batch.buffer;
  messaging__batch batch = {flight->batch.type, worker->self.id, worker->self.kind, worker->self.nonce, flight->number, worker->next,
                            flight->batch.count, (uint8_t)(answer ? MESSAGING__UP_ANSWER : 0),
                            (uint32_t)(buffer->size - MESSAGING__AT_PAYLOAD), {0, 0, 0}};
  /* libzmq may still be sending an earlier copy of these bytes by reference: they are written once, then a repetition is the same. */
  bool fresh = buffer->data[0] == 0;
  if (fresh) messaging__batch_write(buffer->data, &worker->era, &batch);
  if (!worker->port.send(worker->port.self, messaging__slice_of(buffer))) {
    worker->stalled = true;
    return false;
  }
  if (fresh) messaging__worker_said(worker); /* by the position in it */
  worker->stats.batches_sent++;
  worker->spoken_ms = now;
  return true;
}

/* Whether the next batch may go on the wire, and of which kind: sealed ones within the window, the open one only while few are out. */
static inline messaging__hold messaging__worker_flow(const messaging__worker *worker) {
  if (worker->state != MESSAGING__JOINED || worker->stalled || worker->window == 0) return MESSAGING__HOLDS_ALL;
  if (worker->flights.count >= MESSAGING__WINDOW_BATCHES) return MESSAGING__HOLDS_ALL;
  if (worker->flights.count && worker->flights_bytes >= worker->window) return MESSAGING__HOLDS_ALL;
  return worker->flights.count < MESSAGING__FLIGHTS_MAX ? MESSAGING__FLOWS : MESSAGING__HOLDS_OPEN;
}

/* Whether the next batch asks for an answer. A burst's does, since more may wait behind what is on its way, and so does one for which the queue was
 * half full. Of a lone one there is time to hear, as long as another may follow. */
static inline bool messaging__worker_hastens(const messaging__worker *worker, const messaging__flight *flight, uint64_t now) {
  size_t flights = worker->flights_sent + 1;
  bool burst = now < worker->spoken_ms + MESSAGING__ACK_MS;
  if (flights >= (burst ? MESSAGING__FLIGHTS_MAX / 2 : MESSAGING__FLIGHTS_MAX - 1)) return true;
  return worker->flights_bytes >= worker->window / 2 || flight->batch.crowded;
}

/* When to ask about a batch, if nothing is heard of it by then. One that asked for no answer is acknowledged at leisure. */
static inline uint64_t messaging__worker_probes(const messaging__worker *worker, bool hastened, uint64_t now) {
  return now + worker->probe_ms + (hastened ? 0 : messaging__earlier(worker->ack_ms, MESSAGING__ACK_MAX_MS));
}

/* Sends what was sent and lost again, then new batches as far as they may go. */
static inline void messaging__worker_send_batches(messaging__worker *worker, uint64_t now) {
  for (;;) {
    while (worker->flights_sent < worker->flights.count && !worker->stalled && worker->window) {
      messaging__flight *flight = (messaging__flight *)messaging__ring_at(&worker->flights, worker->flights_sent);
      bool answer = messaging__worker_hastens(worker, flight, now);
      if (!messaging__worker_send_flight(worker, flight, answer, now)) break;
      worker->flights_sent++;
      if (answer) worker->hastened = flight->number;
      worker->probe_at = messaging__earlier(worker->probe_at, messaging__worker_probes(worker, answer, now));
    }
    if (!messaging__ring_reserve(&worker->flights)) worker->stalled = true;
    messaging__flight flight;
    if (!messaging__outbox_take(worker->outbox, messaging__worker_flow(worker), &flight.batch)) return;
    flight.number = worker->number++;
    worker->flights_bytes += flight.batch.buffer->size;
    messaging__ring_push(&worker->flights, &flight);
  }
}

/* A REPORT that asks how far the supervisor is. It goes out behind the batches that can be sent now. */
static inline void messaging__worker_question(messaging__worker *worker, uint64_t now) {
  if (worker->asked_up_ms == 0) worker->asked_up_ms = now;
  worker->probe++;
  worker->probe_number = worker->number;
  worker->answer_due = worker->report_due = true;
}

/* Sends again from the first batch on that is not acknowledged, with a question behind: at most once in a round trip. */
static inline void messaging__worker_go_back(messaging__worker *worker, uint64_t now) {
  if (worker->flights_sent == 0) return;
  worker->stats.batches_repeated += worker->flights_sent;
  worker->flights_sent = 0;
  messaging__worker_question(worker, now);
  worker->again = true;
  worker->again_probe = worker->probe;
}

/* A STATUS shows what the supervisor had when it had heard that question. */
static inline void messaging__worker_told(messaging__worker *worker, uint32_t probe, bool gap, uint64_t now) {
  bool answered = probe == worker->probe && probe != worker->probe_answered;
  if (answered) worker->probe_answered = probe;
  if (answered) worker->asked_up_ms = 0;
  if ((int32_t)(probe - worker->again_probe) >= 0) worker->again = false;
  if (worker->again || worker->flights.count == 0) return;
  const messaging__flight *first = (const messaging__flight *)messaging__ring_at(&worker->flights, 0);
  if (gap || (answered && first->number < worker->probe_number)) messaging__worker_go_back(worker, now);
}

/* The supervisor has accepted all batches below expected. */
static inline void messaging__worker_acknowledged(messaging__worker *worker, uint64_t expected, uint64_t now) {
  bool progress = false;
  while (worker->flights.count) {
    const messaging__flight *flight = (const messaging__flight *)messaging__ring_at(&worker->flights, 0);
    if (flight->number >= expected) break;
    worker->stats.acknowledged = flight->number;
    worker->asked_up_ms = 0;
    messaging__worker_drop_flight(worker);
    progress = true;
  }
  if (!progress) return;
  worker->probe_ms = MESSAGING__PROBE_MS;
  bool hastened = worker->window == 0 || worker->hastened >= expected || worker->hurried > expected;
  worker->probe_at = worker->flights.count || worker->window == 0 ? messaging__worker_probes(worker, hastened, now) : MESSAGING__NEVER;
}

/* What the supervisor allows on the wire. A closed window is asked about, should the word that it opens be lost. */
static inline void messaging__worker_set_window(messaging__worker *worker, uint64_t window, uint64_t now) {
  if (worker->window == 0 && window > 0) messaging__worker_go_back(worker, now);
  worker->window = window;
  if (window == 0) worker->probe_at = messaging__earlier(worker->probe_at, now + worker->probe_ms);
  else if (worker->flights.count == 0) worker->probe_at = MESSAGING__NEVER; /* nothing is left to ask about */
}

/* ---- Worker: what comes down ---- */

/* How long to wait for an answer: twice as long as answers take of late. While that is not known, long: a question that is repeated too
 * early has everything sent twice. */
static inline uint32_t messaging__worker_patience(const messaging__worker *worker) {
  if (worker->answer_ms == 0) return MESSAGING__NAK_MAX_MS / 2;
  return worker->answer_ms * 2 > MESSAGING__NAK_MS ? worker->answer_ms * 2 : (uint32_t)MESSAGING__NAK_MS;
}

/* An answer took that long. */
static inline void messaging__worker_took(messaging__worker *worker, uint64_t ms) {
  uint32_t took = 1 + (uint32_t)messaging__earlier(ms, MESSAGING__NAK_MAX_MS / 2 - 1);
  worker->answer_ms = took > worker->answer_ms ? took : (worker->answer_ms * 7 + took) / 8;
}

/* What was asked for begins to come. */
static inline void messaging__worker_answered(messaging__worker *worker, uint64_t now) {
  if (worker->asked_ms) {
    messaging__worker_took(worker, now - worker->asked_ms);
    worker->asked_ms = 0;
  }
  worker->nak_ms = messaging__worker_patience(worker);
  worker->nak_at = now + worker->nak_ms;
}

/* When to acknowledge, if no batch and no heartbeat does it before. The same broadcast begins the wait of all: where it is long, they spread. After
 * many bytes it is short, however many workers there are: those who get so much are few, or get it seldom. */
static inline void messaging__worker_acknowledge(messaging__worker *worker, uint64_t now) {
  uint32_t half = worker->ack_ms / 2, ms = half + (uint32_t)(worker->self.nonce % (half + 1));
  if (worker->ack_ms == MESSAGING__ACK_MS || worker->unsaid_bytes > MESSAGING__ACK_BYTES) ms = MESSAGING__ACK_MS;
  worker->ack_at = messaging__earlier(worker->ack_at, now + ms);
}

/* Something new was delivered or is known: see to an acknowledgement, and to what is missing. */
static inline void messaging__worker_advanced(messaging__worker *worker, uint64_t now) {
  if (worker->asking && worker->nak_at != MESSAGING__NEVER) messaging__worker_answered(worker, now);
  if (worker->ack_at == MESSAGING__NEVER || worker->unsaid_bytes > MESSAGING__ACK_BYTES) messaging__worker_acknowledge(worker, now);
  if (worker->asking && worker->next >= worker->known) {
    worker->asking = false;
    worker->nak_at = MESSAGING__NEVER;
  }
}

static inline void messaging__worker_missing(messaging__worker *worker, uint64_t now) {
  if (worker->asking || worker->next >= worker->known) return;
  worker->asking = true;
  worker->nak_ms = messaging__worker_patience(worker);
  worker->nak_at = now;
}

/* Gives a batch that is next in order to the application. False: no room, it will be asked for again. */
static inline bool messaging__worker_deliver(messaging__worker *worker, messaging__slice frame, const messaging__batch *batch) {
  messaging__put_result result = messaging__inbox_put(worker->inbox, frame, batch);
  if (result == MESSAGING__NO_MEMORY) messaging__report(&worker->port, MESSAGING_ENOMEM, NULL, "no memory for a batch; it will be asked for again");
  if (result != MESSAGING__PUT) {
    worker->stats.refused++;
    return false;
  }
  worker->next = batch->position + batch->count;
  worker->unsaid_bytes += frame.size;
  return true;
}

/* Keeps a batch that came ahead of a gap, in order, within bounds. */
static inline void messaging__worker_keep_early(messaging__worker *worker, messaging__slice frame, const messaging__batch *batch) {
  messaging__early early = {{NULL, NULL, 0}, *batch};
  bool own = batch->nonce == worker->self.nonce;
  size_t at = worker->early.count;
  while (at > 0) {
    messaging__early *other = (messaging__early *)messaging__ring_at(&worker->early, at - 1);
    if (other->batch.position == batch->position) {
      bool both = own && other->frame.owner == NULL;
      if (both && other->batch.count < batch->count) other->batch.count = batch->count; /* a run that has grown */
      else worker->stats.duplicates++;
      return;
    }
    if (other->batch.position < batch->position) break;
    at--;
  }
  if (worker->early.count >= MESSAGING__REORDER_MAX || worker->early_bytes + frame.size > worker->inbox->bytes_max / 4) {
    worker->stats.refused++;
    return;
  }
  pthread_mutex_lock(&worker->inbox->lock);
  bool kept = messaging__ring_reserve(&worker->early) && (own || messaging__slice_keep(frame, &worker->inbox->chunk, &early.frame));
  pthread_mutex_unlock(&worker->inbox->lock);
  if (!kept) return;
  worker->early_bytes += early.frame.size;
  messaging__ring_push(&worker->early, &early);
  for (size_t i = worker->early.count - 1; i > at; i--) {
    messaging__early *after = (messaging__early *)messaging__ring_at(&worker->early, i);
    messaging__early *before = (messaging__early *)messaging__ring_at(&worker->early, i - 1);
    *after = *before;
    *before = early;
  }
}

/* Delivers early batches that have become next, and drops those that are past. */
static inline void messaging__worker_drain_early(messaging__worker *worker, uint64_t now) {
  uint64_t before = worker->next;
  while (worker->early.count) {
    const messaging__early *early = (const messaging__early *)messaging__ring_at(&worker->early, 0);
    if (early->batch.position > worker->next) break;
    if (early->frame.owner == NULL) worker->next = messaging__later(worker->next, early->batch.position + early->batch.count);
    else if (early->batch.position == worker->next && !messaging__worker_deliver(worker, early->frame, &early->batch)) break;
    messaging__worker_drop_early(worker);
  }
  if (worker->next > before) messaging__worker_advanced(worker, now);
}

/* Asks for what is missing, unless the inbox has no room for it: then the application's next recv asks. */
static inline void messaging__worker_ask(messaging__worker *worker, uint64_t now) {
  worker->nak_at = MESSAGING__NEVER;
  messaging__worker_drain_early(worker, now);
  if (!worker->asking) return;
  size_t credit = messaging__inbox_credit(worker->inbox);
  if (credit == 0) return;
  if (!messaging__worker_report(worker, now, true, credit)) {
    worker->nak_at = now;
    return;
  }
  worker->nak_next = worker->next;
  if (worker->asked_ms == 0) worker->asked_ms = now; /* which of two questions is answered cannot be told */
  worker->nak_at = now + worker->nak_ms;
  worker->nak_ms = messaging__doubled(worker->nak_ms, MESSAGING__NAK_MAX_MS);
  worker->stats.repairs_asked++;
}

/* Numbers from first on, up to end, went to this worker's own batches, the last of which is batch: they count as delivered. */
static inline void messaging__worker_own(messaging__worker *worker, uint64_t first, uint64_t end, uint64_t batch, uint64_t now) {
  messaging__worker_acknowledged(worker, batch + 1, now);
  if (first >= end || end <= worker->next) return;
  worker->known = messaging__later(worker->known, end);
  if (first > worker->next) {
    messaging__slice none = {NULL, NULL, 0};
    messaging__batch own = {MESSAGING__RELAY, 0, 0, worker->self.nonce, batch, first, 0, 0, 0, {0, 0, 0}};
    own.count = (uint32_t)messaging__earlier(end - first, UINT32_MAX);
    messaging__worker_keep_early(worker, none, &own);
    return;
  }
  worker->next = end;
  messaging__worker_advanced(worker, now);
  messaging__worker_drain_early(worker, now);
}

/* Whose the relay messages before end are. */
static inline void messaging__worker_run(messaging__worker *worker, const messaging__run *run, uint64_t end, uint64_t now) {
  if (run->nonce == worker->self.nonce && run->batch < worker->number) messaging__worker_own(worker, run->first, end, run->batch, now);
}

static inline void messaging__worker_batch(messaging__worker *worker, messaging__slice frame, const messaging__batch *batch, uint64_t now) {
  uint64_t end = batch->position + batch->count;
  messaging__worker_run(worker, &batch->run, batch->position, now);
  if (end <= worker->next) worker->stats.duplicates++;
  if (batch->nonce == worker->self.nonce) {
    messaging__worker_own(worker, batch->position, end, batch->number, now);
  } else if (end > worker->next && batch->position < worker->next) {
    worker->stats.malformed++;
    messaging__report(&worker->port, MESSAGING_EBADMSG, &worker->supervisor, "a batch overlaps another");
  } else if (end > worker->next) {
    worker->known = messaging__later(worker->known, end);
    if (batch->position > worker->next) {
      messaging__worker_keep_early(worker, frame, batch);
    } else if (messaging__worker_deliver(worker, frame, batch)) {
      messaging__worker_advanced(worker, now);
      messaging__worker_drain_early(worker, now);
    }
  }
  messaging__worker_missing(worker, now);
}

/* History below first is gone: go on from there, and say so. */
static inline void messaging__worker_cut(messaging__worker *worker, uint64_t first, uint64_t now) {
  if (first <= worker->next) return;
  messaging__report_gap(&worker->port, &worker->supervisor, worker->next, first, "history was cut before these numbers arrived");
  worker->next = first;
  worker->known = messaging__later(worker->known, first);
  messaging__worker_advanced(worker, now);
  messaging__worker_drain_early(worker, now);
}

/* What every downward control frame ends with. */
typedef struct {
  uint64_t next, first;
  messaging__run run; /* up to next */
  uint32_t ack_ms;
  unsigned flags;
  messaging__who terms[2];
  size_t term_count;
} messaging__news;

static inline bool messaging__news_read(messaging__reader *reader, messaging__news *news) {
  news->next = messaging__read_uint(reader, MESSAGING__NUMBER_MAX);
  news->first = messaging__read_uint(reader, MESSAGING__NUMBER_MAX);
  news->run.nonce = messaging__read_uint(reader, UINT64_MAX);
  news->run.first = messaging__read_uint(reader, MESSAGING__NUMBER_MAX);
  news->run.batch = messaging__read_uint(reader, MESSAGING__NUMBER_MAX);
  news->ack_ms = (uint32_t)messaging__read_uint(reader, 60000);
  news->flags = (unsigned)messaging__read_uint(reader, 127);
  news->term_count = messaging__read_array(reader);
  if (reader->bad || news->term_count > 2) return false;
  for (size_t i = 0; i < news->term_count; i++) {
    if (messaging__read_array(reader) != 3) return false;
    news->terms[i].id = (pid_t)messaging__read_int(reader);
    news->terms[i].kind = (uint32_t)messaging__read_uint(reader, UINT32_MAX);
    news->terms[i].nonce = messaging__read_uint(reader, UINT64_MAX);
  }
  return !reader->bad && reader->at == reader->end && news->first <= news->next && news->next > 0;
}

/* Termination, if it is for this worker: asked for by somebody else, or of this worker alone. */
static inline void messaging__worker_terms(messaging__worker *worker, const messaging__news *news) {
  for (size_t i = 0; i < news->term_count; i++) {
    if (news->terms[i].nonce == worker->self.nonce) {
      worker->term_echoed = true;
      continue;
    }
    if (!MESSAGING__LOAD(&worker->inbox->terminated)) worker->report_due = true;
    messaging__inbox_terminate(worker->inbox, &news->terms[i]);
  }
  /* Two others who asked fill the list: the state that was asked for holds, that is as good as an echo. */
  if (news->term_count == 2) worker->term_echoed = true;
  if (!(news->flags & MESSAGING__DOWN_TERM)) return;
  if (!MESSAGING__LOAD(&worker->inbox->terminated)) worker->report_due = true;
  messaging__inbox_terminate(worker->inbox, &worker->supervisor);
}

static inline void messaging__worker_news(messaging__worker *worker, const messaging__news *news, uint64_t now) {
  worker->ack_ms = news->ack_ms > MESSAGING__ACK_MS ? news->ack_ms : (uint32_t)MESSAGING__ACK_MS;
  if (worker->ack_at != MESSAGING__NEVER) messaging__worker_acknowledge(worker, now); /* sooner, perhaps */
  worker->known = messaging__later(worker->known, news->next);
  messaging__worker_terms(worker, news);
  messaging__worker_run(worker, &news->run, news->next, now);
  messaging__worker_cut(worker, news->first, now);
  messaging__worker_missing(worker, now);
  if (news->flags & MESSAGING__DOWN_ANSWER) {
    worker->report_due = true;
    if (worker->flights.count && worker->window) messaging__worker_question(worker, now); /* they may have been lost */
  }
  if (news->flags & MESSAGING__DOWN_BYE_SEEN) worker->left = true;
  if (news->flags & MESSAGING__DOWN_BYE) {
    worker->bye_seen = true;
    worker->report_due = true;
    messaging__worker_end(worker, MESSAGING_ENOTRUNNING, "the supervisor has left");
  }
}

/* WELCOME and STATUS: how this worker's own stream stands, then the news. */
static inline bool messaging__worker_status(messaging__worker *worker, messaging__reader *reader, bool welcome,
                                            const messaging__envelope *envelope, uint64_t now) {
  messaging__news news;
  if (messaging__read_array(reader) != 12) return false;
  unsigned slot = (unsigned)messaging__read_uint(reader, MESSAGING__SLOTS - 1);
  uint64_t expected = messaging__read_uint(reader, MESSAGING__NUMBER_MAX);
  uint64_t window = messaging__read_uint(reader, UINT32_MAX);
  uint32_t probe = (uint32_t)messaging__read_uint(reader, UINT32_MAX);
  if (!messaging__news_read(reader, &news) || expected > worker->number || envelope->generation == 0) return false;
  if (welcome && worker->state == MESSAGING__ANNOUNCING) {
    memcpy(worker->era.session, envelope->session, 16);
    worker->era.generation = envelope->generation;
    worker->stats.generation = envelope->generation;
    worker->state = MESSAGING__JOINED;
    worker->report_due = true;
    worker->hello_at = MESSAGING__NEVER;
    if (worker->hello_ms == 2 * MESSAGING__HELLO_MS) messaging__worker_took(worker, now - worker->spoken_ms); /* to the only one */
  }
  if (slot != worker->slot && !worker->leaving) { /* who leaves has none any more, and need not hear itself for that */
    worker->slot = slot;
    worker->tune = true;
  }
  messaging__worker_acknowledged(worker, expected, now);
  messaging__worker_set_window(worker, window, now);
  messaging__worker_told(worker, probe, (news.flags & MESSAGING__DOWN_GAP) != 0, now);
  messaging__worker_news(worker, &news, now);
  return true;
}

static inline bool messaging__worker_heartbeat(messaging__worker *worker, messaging__reader *reader, uint64_t now) {
  messaging__news news;
  if (messaging__read_array(reader) != 8 || !messaging__news_read(reader, &news)) return false;
  if (worker->state == MESSAGING__JOINED) messaging__worker_news(worker, &news, now);
  else if (news.flags & MESSAGING__DOWN_BYE) messaging__worker_end(worker, MESSAGING_ENOTRUNNING, "the supervisor has left");
  return true;
}

static inline bool messaging__worker_repair(messaging__worker *worker, messaging__slice frame, messaging__reader *reader, uint64_t now) {
  if (messaging__read_array(reader) != 3) return false;
  bool last = messaging__read_uint(reader, 1) == 1;
  uint64_t count = messaging__read_uint(reader, UINT32_MAX);
  size_t size;
  const uint8_t *payload = messaging__read_bytes(reader, &size);
  if (reader->bad || reader->at != reader->end) return false;
  for (; count; count--) {
    messaging__batch batch;
    if (!messaging__batch_read(payload, size, &batch) || batch.type != MESSAGING__RELAY) return false;
    messaging__slice inner = {frame.owner, frame.data + (payload - frame.data), MESSAGING__AT_PAYLOAD + (size_t)batch.payload_size};
    messaging__worker_batch(worker, inner, &batch, now);
    payload += inner.size;
    size -= inner.size;
  }
  /* The answer is complete and there is more: ask on at once, if this round brought something. */
  if (last && worker->asking && worker->next > worker->nak_next) worker->nak_at = now;
  return size == 0;
}

static inline bool messaging__worker_refuse(messaging__worker *worker, messaging__reader *reader) {
  if (messaging__read_array(reader) != 1) return false;
  uint64_t status = messaging__read_uint(reader, MESSAGING__STATUS_COUNT - 1);
  if (reader->bad) return false;
  if (status == MESSAGING_EKIND) messaging__worker_end(worker, MESSAGING_EKIND, "refused: the supervisor lists this worker with another kind");
  else if (status == MESSAGING_EVERSION) messaging__worker_end(worker, MESSAGING_EVERSION, "refused: the supervisor speaks another version of the wire");
  else if (status == MESSAGING_EINVAL) messaging__worker_end(worker, MESSAGING_EINVAL, "refused: message_bytes_max differs from the supervisor's");
  else if (status == MESSAGING_ENOTRUNNING && worker->state == MESSAGING__JOINED)
    messaging__worker_end(worker, MESSAGING_ENOTRUNNING, "not on the supervisor's list any more");
  else if (status == MESSAGING_EAUTH && worker->state == MESSAGING__ANNOUNCING && !worker->rejected) {
    worker->rejected = true;
    messaging__report(&worker->port, MESSAGING_EAUTH, &worker->self, "refused for now: another live worker has this id");
  }
  return true;
}

/* Nothing tells a supervisor that is gone from one that is cut off for a while. So its silence is shown to the application as termination,
 * and the handle goes on: if the supervisor is heard again, everything is as if nothing had been. */
static inline void messaging__worker_silence(messaging__worker *worker) {
  worker->lost = true;
  worker->lost_shown = !MESSAGING__LOAD(&worker->inbox->terminated);
  messaging__inbox_terminate(worker->inbox, &worker->supervisor);
  messaging__report(&worker->port, MESSAGING_ELOST, &worker->supervisor, "the supervisor has fallen silent");
}

static inline void messaging__worker_heard(messaging__worker *worker, uint64_t now) {
  worker->heard_ms = now;
  if (!worker->lost) return;
  worker->lost = false;
  worker->report_due = true;
  if (worker->lost_shown) messaging__inbox_resume(worker->inbox);
}

/* Whether a frame is for this worker alone. */
static inline bool messaging__worker_meant(const messaging__worker *worker, const messaging__envelope *envelope) {
  uint8_t topic[MESSAGING__TOPIC_SIZE];
  if (envelope->topic_size != sizeof topic - 3) return false;
  messaging__topic_of(topic, &worker->self);
  return memcmp(envelope->topic, topic + 3, envelope->topic_size) == 0;
}

/* One frame from the supervisor. It is lent for the call. */
static inline void messaging__worker_receive(messaging__worker *worker, messaging__slice frame, uint64_t now) {
  messaging__reader reader = {frame.data, frame.data + frame.size, false};
  messaging__envelope envelope;
  messaging__batch batch;
  worker->stats.frames_received++;
  worker->stats.bytes_received += frame.size;
  if (worker->state == MESSAGING__OVER) {
    worker->report_due = worker->bye_seen; /* the supervisor repeats its goodbye until it is answered */
    return;
  }
  bool fine = messaging__envelope_read(&reader, &envelope);
  bool mine = fine && messaging__worker_meant(worker, &envelope);
  if (fine && envelope.version != MESSAGING_WIRE_VERSION && !(mine && envelope.type == MESSAGING__REFUSE)) {
    messaging__report(&worker->port, MESSAGING_EVERSION, &worker->supervisor, "a frame of another wire version");
    return;
  }
  if (fine && !mine && (envelope.topic_size == 0 || envelope.topic[0] != 'B')) fine = false;
  if (fine) {
    /* Who is not on the list of a new generation is told so by that one. */
    bool known = worker->state == MESSAGING__JOINED && memcmp(envelope.session, worker->era.session, 16) == 0 &&
                 (envelope.generation == worker->era.generation || envelope.type == MESSAGING__REFUSE);
    bool first = worker->state == MESSAGING__ANNOUNCING &&
                 (envelope.type == MESSAGING__WELCOME || envelope.type == MESSAGING__REFUSE || envelope.type == MESSAGING__HEARTBEAT);
    if (!known && !first) {
      if (worker->state == MESSAGING__JOINED) worker->stats.stale++;
      return;
    }
    messaging__worker_heard(worker, now);
    switch (envelope.type) {
      case MESSAGING__RELAY:
        fine = !mine && messaging__batch_read(frame.data, frame.size, &batch) && frame.size == MESSAGING__AT_PAYLOAD + (size_t)batch.payload_size;
        if (fine) messaging__worker_batch(worker, frame, &batch, now);
        break;
      case MESSAGING__HEARTBEAT: fine = !mine && messaging__worker_heartbeat(worker, &reader, now); break;
      case MESSAGING__WELCOME:
      case MESSAGING__STATUS:
        fine = mine && messaging__worker_status(worker, &reader, envelope.type == MESSAGING__WELCOME, &envelope, now);
        break;
      case MESSAGING__REPAIR: fine = mine && messaging__worker_repair(worker, frame, &reader, now); break;
      case MESSAGING__REFUSE: fine = mine && messaging__worker_refuse(worker, &reader); break;
      default: fine = false;
    }
  }
  if (fine) return;
  worker->stats.malformed++;
  messaging__report(&worker->port, MESSAGING_EBADMSG, &worker->supervisor, "a malformed frame was skipped");
}

/* ---- Worker: time ---- */

/* Asks what has arrived, ever more seldom. */
static inline void messaging__worker_probe(messaging__worker *worker, uint64_t now) {
  messaging__worker_question(worker, now);
  worker->probe_ms = messaging__doubled(worker->probe_ms, MESSAGING__PROBE_MAX_MS);
  worker->probe_at = now + worker->probe_ms;
}

/* Terminate and goodbye are said again until they are answered. */
static inline void messaging__worker_say_again(messaging__worker *worker, uint64_t now) {
  bool open = (worker->term_wanted && !worker->term_echoed) || (worker->leaving && !worker->left);
  worker->again_at = MESSAGING__NEVER;
  if (!open) return;
  worker->answer_due = worker->report_due = true;
  worker->control_ms = worker->control_ms ? messaging__doubled(worker->control_ms, MESSAGING__AGAIN_MAX_MS) : (uint32_t)MESSAGING__AGAIN_MS;
  worker->again_at = now + worker->control_ms;
}

/* When the connections count as useless: nothing was heard, or no question answered, for so long. libzmq gives a connection up for good
 * when the other end once spoke something that is not its protocol, as another program at the same address does. */
static inline uint64_t messaging__worker_renews(const messaging__worker *worker) {
  uint64_t since = worker->asked_up_ms ? messaging__earlier(worker->asked_up_ms, worker->heard_ms) : worker->heard_ms;
  return messaging__later(since, worker->renewed_ms) + worker->silence_ms;
}

/* Does what is due and sends what can go. */
static inline void messaging__worker_pump(messaging__worker *worker, uint64_t now) {
  worker->stalled = false;
  if (worker->state != MESSAGING__OVER && now >= messaging__worker_renews(worker)) {
    worker->renew = true;
    worker->renewed_ms = now;
  }
  if (worker->state == MESSAGING__ANNOUNCING && now >= worker->hello_at) messaging__worker_hello(worker, now);
  if (worker->state == MESSAGING__JOINED) {
    if (!worker->watched && !worker->lost && now >= worker->heard_ms + worker->silence_ms) messaging__worker_silence(worker);
    if (now >= worker->again_at) messaging__worker_say_again(worker, now);
    if (now >= worker->probe_at) messaging__worker_probe(worker, now);
    if (worker->asking && worker->nak_at == MESSAGING__NEVER && !MESSAGING__LOAD(&worker->inbox->wanted)) worker->nak_at = now;
    if (now >= worker->nak_at) messaging__worker_ask(worker, now);
    messaging__worker_send_batches(worker, now);
    bool quiet = now >= worker->spoken_ms + worker->heartbeat_ms;
    if (quiet) messaging__outbox_rest(worker->outbox);
    if (quiet || now >= worker->ack_at) worker->report_due = true;
  }
  if (worker->report_due && !worker->stalled && worker->era.generation) messaging__worker_report(worker, now, false, 0);
}

/* When pump has to be called again at the latest. */
static inline uint64_t messaging__worker_deadline(const messaging__worker *worker, uint64_t now) {
  if (worker->state == MESSAGING__OVER) return MESSAGING__NEVER;
  if (worker->stalled) return now + MESSAGING__STALL_MS;
  if (worker->state == MESSAGING__ANNOUNCING) return messaging__earlier(worker->hello_at, messaging__worker_renews(worker));
  uint64_t at = messaging__earlier(worker->spoken_ms + worker->heartbeat_ms, messaging__worker_renews(worker));
  at = messaging__earlier(at, worker->ack_at);
  at = messaging__earlier(at, worker->nak_at);
  at = messaging__earlier(at, worker->probe_at);
  at = messaging__earlier(at, worker->again_at);
  return worker->watched || worker->lost ? at : messaging__earlier(at, worker->heard_ms + worker->silence_ms);
}

/* Asks for termination of everybody. */
static inline void messaging__worker_terminate(messaging__worker *worker, uint64_t now) {
  worker->term_wanted = true;
  worker->control_ms = 0;
  worker->again_at = now;
}

/* Says goodbye; left tells when it was heard. */
static inline void messaging__worker_leave(messaging__worker *worker, uint64_t now) {
  worker->leaving = true;
  worker->control_ms = 0;
  worker->again_at = now;
}

/* Whether everything that was sent is accepted. */
static inline bool messaging__worker_flushed(messaging__worker *worker) {
  return worker->flights.count == 0 && messaging__outbox_empty(worker->outbox);
}

/* Somebody waits for that: have the supervisor say how far it is, once for each batch that is the last. */
static inline void messaging__worker_hurry(messaging__worker *worker, uint64_t now) {
  if (worker->state != MESSAGING__JOINED) return;
  messaging__worker_send_batches(worker, now);
  if (worker->hurried == worker->number) return;
  worker->hurried = worker->number;
  if (worker->flights.count) worker->probe_at = messaging__earlier(worker->probe_at, now + worker->probe_ms);
  messaging__worker_question(worker, now);
}

/* ==== Supervisor ======================================================================================================
 *
 * Knows the listed workers as peers. Takes each one's stream in order, numbers relay batches, keeps and publishes them; answers
 * negative acknowledgements from the history; reminds those that lag; carries termination and goodbyes.
 */

typedef enum {
  MESSAGING__LISTED, /* not connected */
  MESSAGING__ACTIVE, /* welcomed */
  MESSAGING__LEFT,   /* said goodbye; another incarnation may come */
  MESSAGING__GONE    /* died; what was on its way is still taken, until the id is listed again */
} messaging__peer_state;

typedef struct {
  uint64_t first, next;
} messaging__range;

typedef struct messaging__peer messaging__peer;
struct messaging__peer {
  messaging__who who; /* nonce 0: no incarnation known */
  messaging__peer_state state;
  uint64_t former[MESSAGING__NONCES_MAX]; /* nonces of incarnations that are over: their late announcements are ignored */
  uint64_t unseated[MESSAGING__NONCES_MAX]; /* nonces of those that were welcomed and had not spoken when another announced itself */
  uint64_t refused;                       /* nonce that was last refused, and reported */
  unsigned slot;                          /* of its batches' topic; 0: none of its own */
  bool confirmed;                         /* it has spoken in this generation: it has its welcome */
  bool silent;                            /* reported as lost, may come back */
  bool fenced;                            /* history was cut before it, and it has not acknowledged anything since */
  bool newcomer, dropped;                 /* during an update */
  int watch;
  uint64_t expected;                      /* number of its next batch */
  uint64_t has;                           /* all relay messages below are in its inbox */
  uint64_t heard_ms;
  uint32_t probe;
  bool waits;                             /* on the list of the blocked, from which it is taken when that is looked through */
  bool busy;                              /* on the list of those with something to do: */
  bool status_due, answer_due, gap, bye_heard;
  bool owed, owed_listed;                 /* it has not been told of a batch that was taken; it is on the list of such */
  bool blocked;                           /* its next batch found no room: window 0 */
  uint8_t blocked_type;
  size_t blocked_size;
  messaging__range repairs[MESSAGING__RANGES_MAX];
  size_t repair_count, repair_credit;
  bool repair_fresh;                      /* nothing of it was sent yet */
  bool term_asked, term_seen, bye_seen;
  uint64_t remind_at, reminded_next; /* the next of the last reminder */
  uint32_t remind_ms;
};

/* An announcement or subscription of a worker that is not listed. */
typedef struct {
  messaging__who who;
  uint64_t message_bytes_max;
} messaging__parked;

typedef struct {
  messaging__port port;
  messaging__outbox *outbox;
  messaging__inbox *inbox;
  messaging__who self;
  messaging__era era;
  uint32_t heartbeat_ms, silence_ms;
  size_t message_bytes_max;
  size_t large_bytes; /* a batch of this size gets the answer that it wants before the next is taken */
  bool fence_slow, running;

  messaging__ring peers;   /* of messaging__peer * */
  messaging__ring busy;    /* of messaging__peer *: those with something to do */
  messaging__ring blocked; /* of messaging__peer *: those whose batch found no room */
  messaging__ring owed;    /* of messaging__peer *: those who may be owed an acknowledgement; */
  uint32_t owed_count;     /* who are, and */
  uint64_t owed_at;        /* when they begin to get it, at the latest */
  messaging__map by_id, by_nonce;
  uint64_t struck[MESSAGING__STRUCK_MAX]; /* nonces of incarnations whose ids were left out: theirs may be listed again */
  size_t struck_count;
  uint32_t live, joined;   /* peers that are listed or active; of these, confirmed */
  messaging__ring parked;  /* of messaging__parked, oldest first */

  messaging__who terms[2];
  size_t term_count;
  uint64_t own_number;
  messaging__run run;      /* the last relay messages */
  uint64_t slots;          /* those that peers have: a bit each */
  uint64_t asked_next, asked_end; /* when history was full, those who held it back were asked about this next, who lacked something below this end */
  size_t unasked_bytes;    /* published since all were last asked to acknowledge soon, */
  bool hasty;              /* which they are until the next heartbeat, which is not put off then */
  uint64_t held;           /* lowest number that somebody needs, as of the last look; it only grows */
  uint64_t heartbeat_at, scan_at;
  uint64_t now_ms;         /* of the call that is going on */
  uint64_t fence_at;       /* when those who hold back the full history have had their time */
  uint64_t marked;         /* who does not have all below this is reminded */
  uint64_t marking, marked_at; /* what marked becomes then: by that time everybody in time has acknowledged it */
  uint64_t unblock_at;     /* the blocked are looked at then at the earliest: with many of them not in every pump */
  bool unblock_due;        /* that was put off */
  uint64_t needed_at;      /* likewise, when held is looked at again; */
  bool looked;             /* that was done, and nothing has happened since */
  size_t full_for;         /* in this pump, a frame of so many bytes found no room in the history */
  bool heartbeat_due;
  bool leaving, flushing;
  uint64_t flushed_next;   /* those who lag were asked about this next */
  bool purged;
  messaging_stats stats;
} messaging__im;

static inline messaging__peer *messaging__im_peer(const messaging__im *im, size_t index) {
  return *(messaging__peer **)messaging__ring_at(&im->peers, index);
}

/* Ids are nonzero as map keys, pids and negative ids apart. */
static inline uint64_t messaging__id_key(pid_t id) { return (uint64_t)(int64_t)id; }

static inline void messaging__im_init(messaging__im *im, const messaging__port *port, messaging__outbox *outbox, messaging__inbox *inbox,
                                      const messaging__who *self, const uint8_t session[16], const messaging_options *options) {
  memset(im, 0, sizeof *im);
  im->port = *port;
  im->outbox = outbox;
  im->inbox = inbox;
  im->self = *self;
  memcpy(im->era.session, session, 16);
  im->heartbeat_ms = options->heartbeat_ms;
  im->silence_ms = options->silence_ms;
  im->message_bytes_max = options->message_bytes_max;
  im->large_bytes = MESSAGING__ACK_BYTES;
  im->fence_slow = options->fence_slow;
  im->own_number = 1;
  im->held = im->marked = im->marking = 1;
  im->marked_at = MESSAGING__NEVER;
  im->heartbeat_at = im->scan_at = im->fence_at = im->owed_at = MESSAGING__NEVER;
  messaging__ring_init(&im->peers, sizeof(messaging__peer *));
  messaging__ring_init(&im->busy, sizeof(messaging__peer *));
  messaging__ring_init(&im->blocked, sizeof(messaging__peer *));
  messaging__ring_init(&im->owed, sizeof(messaging__peer *));
  messaging__ring_init(&im->parked, sizeof(messaging__parked));
  inbox->has_log = true;
  inbox->own_nonce = self->nonce;
  messaging__log_init(&inbox->log, options->history_bytes_max);
}

static inline uint64_t messaging__im_next(const messaging__im *im) { return im->inbox->log.next; }

/* Puts a peer on the list of those with something to do. Room for every peer is seen to when it is listed. */
static inline void messaging__im_busy(messaging__im *im, messaging__peer *peer) {
  if (peer->busy) return;
  peer->busy = true;
  messaging__ring_push(&im->busy, &peer);
}

/* Has a peer told how far it is, and how far its own batches came, now. */
static inline void messaging__im_ask(messaging__im *im, messaging__peer *peer) {
  peer->answer_due = peer->status_due = true;
  messaging__im_busy(im, peer);
}

static inline bool messaging__peer_live(const messaging__peer *peer) {
  return peer->state == MESSAGING__LISTED || peer->state == MESSAGING__ACTIVE;
}

/* Whether termination concerns a peer: somebody else asked for it, or it alone was asked. */
static inline bool messaging__im_terminates(const messaging__im *im, const messaging__peer *peer) {
  for (size_t i = 0; i < im->term_count; i++)
    if (im->terms[i].nonce != peer->who.nonce) return true;
  return peer->term_asked;
}

/* ---- Supervisor: what goes down ---- */

/* How long an acknowledgement may wait. When nobody waits for it, most go along with a heartbeat. */
static inline uint32_t messaging__im_leisure_ms(const messaging__im *im, bool hasty) {
  if (hasty || im->heartbeat_ms < MESSAGING__ACK_MS) return MESSAGING__ACK_MS;
  return im->heartbeat_ms < MESSAGING__ACK_MAX_MS ? im->heartbeat_ms : (uint32_t)MESSAGING__ACK_MAX_MS;
}

/* At most so often may each worker acknowledge, but for who gets much, so that thousands of them do not drown their supervisor. */
static inline uint32_t messaging__im_ack_ms(const messaging__im *im, bool hasty) {
  uint32_t ms = messaging__im_leisure_ms(im, hasty);
  return im->live / 4 < ms ? ms : im->live / 4;
}

/* A peer's batch was taken: it is to be told, together with all who are owed that. */
static inline void messaging__im_owe(messaging__im *im, messaging__peer *peer, uint64_t now) {
  if (peer->owed) return;
  peer->owed = true;
  im->owed_count++;
  im->owed_at = messaging__earlier(im->owed_at, now + messaging__im_leisure_ms(im, im->hasty));
  if (peer->owed_listed) return;
  peer->owed_listed = true;
  messaging__ring_push(&im->owed, &peer);
}

/* It was told, or is not there any more. */
static inline void messaging__im_settle(messaging__im *im, messaging__peer *peer) {
  if (peer->owed && --im->owed_count == 0) im->owed_at = MESSAGING__NEVER;
  peer->owed = false;
}

/* A broadcast tells whose the messages before it are, and so that peer which of its batches were taken. */
static inline void messaging__im_told(messaging__im *im) {
  messaging__peer *peer = (messaging__peer *)messaging__map_get(&im->by_nonce, im->run.nonce);
  if (peer && peer->expected == im->run.batch + 1) messaging__im_settle(im, peer);
}

static inline void messaging__im_put_news(messaging__im *im, messaging__writer *writer, unsigned flags) {
  messaging__put_uint(writer, messaging__im_next(im));
  messaging__put_uint(writer, im->inbox->log.first);
  messaging__put_uint(writer, im->run.nonce);
  messaging__put_uint(writer, im->run.first);
  messaging__put_uint(writer, im->run.batch);
  messaging__put_uint(writer, messaging__im_ack_ms(im, im->hasty));
  messaging__put_uint(writer, flags | (im->leaving ? (unsigned)MESSAGING__DOWN_BYE : 0u));
  messaging__put_tag(writer, 0x90u | (unsigned)im->term_count);
  for (size_t i = 0; i < im->term_count; i++) {
    messaging__put_tag(writer, 0x93);
    messaging__put_who(writer, &im->terms[i]);
  }
}

/* Whether a quarter of the history was published since all were last asked to acknowledge soon. */
static inline bool messaging__im_quarter(const messaging__im *im) { return im->unasked_bytes > im->inbox->log.bytes_max / 4; }

static inline void messaging__im_heartbeat(messaging__im *im, uint64_t now) {
  messaging__writer writer;
  bool quarter = messaging__im_quarter(im), full = im->asked_next == messaging__im_next(im);
  im->hasty = quarter || full;
  if (quarter) im->unasked_bytes = 0;
  messaging__frame_begin(&writer, NULL, 'B', MESSAGING__HEARTBEAT, &im->era);
  messaging__put_tag(&writer, 0x98);
  messaging__im_put_news(im, &writer, 0);
  messaging__send_control(&im->port, &writer);
  messaging__im_told(im);
  if (now >= im->marked_at) im->scan_at = now;
  if (now >= im->heartbeat_at) messaging__outbox_rest(im->outbox);
  im->heartbeat_due = false;
  im->heartbeat_at = now + im->heartbeat_ms;
}

static inline void messaging__im_status(messaging__im *im, messaging__peer *peer, uint8_t type) {
  messaging__writer writer;
  unsigned flags = 0;
  if (peer->answer_due) flags |= MESSAGING__DOWN_ANSWER;
  if (peer->term_asked) flags |= MESSAGING__DOWN_TERM;
  if (peer->bye_heard) flags |= MESSAGING__DOWN_BYE_SEEN;
  if (peer->gap) flags |= MESSAGING__DOWN_GAP;
  messaging__frame_begin(&writer, &peer->who, 0, type, &im->era);
  messaging__put_tag(&writer, 0x9c);
  messaging__put_uint(&writer, peer->slot);
  messaging__put_uint(&writer, peer->expected);
  messaging__put_uint(&writer, peer->blocked ? 0 : MESSAGING__WINDOW_BYTES);
  messaging__put_uint(&writer, peer->probe);
  messaging__im_put_news(im, &writer, flags);
  messaging__send_control(&im->port, &writer);
  peer->status_due = peer->answer_due = peer->gap = false;
  messaging__im_settle(im, peer);
}

static inline void messaging__im_refuse(messaging__im *im, const messaging__who *who, messaging_status status) {
  messaging__writer writer;
  messaging__frame_begin(&writer, who, 0, MESSAGING__REFUSE, &im->era);
  messaging__put_tag(&writer, 0x91);
  messaging__put_uint(&writer, status);
  messaging__send_control(&im->port, &writer);
}

/* When those who have not acknowledged by then are to be reminded. */
static inline uint64_t messaging__im_tail(const messaging__im *im, uint64_t now) {
  return now + messaging__im_ack_ms(im, false) + MESSAGING__TAIL_MS;
}

/* Where heartbeats are frequent, that waits for one, so that nobody wakes for it alone. */
static inline uint64_t messaging__im_looks_at(const messaging__im *im) {
  return im->heartbeat_ms > MESSAGING__ACK_MAX_MS ? im->marked_at : MESSAGING__NEVER;
}

static inline void messaging__im_publish(messaging__im *im, messaging__slice frame, uint64_t now) {
  im->port.send(im->port.self, frame);
  im->stats.batches_sent++;
  im->unasked_bytes += frame.size;
  if (!im->hasty && messaging__im_quarter(im)) im->heartbeat_due = true;
  if (!im->hasty) im->heartbeat_at = now + im->heartbeat_ms;
  if (im->marked_at != MESSAGING__NEVER) return;
  im->marking = messaging__im_next(im);
  im->marked_at = messaging__im_tail(im, now);
  im->scan_at = messaging__earlier(im->scan_at, messaging__im_looks_at(im));
}

/* ---- Supervisor: history ---- */

/* The lowest number that somebody on the list, or the application, still needs. */
static inline uint64_t messaging__im_needed(const messaging__im *im) {
  uint64_t needed = im->inbox->cursor_batches ? im->inbox->cursor_number : messaging__im_next(im);
  for (size_t i = 0; i < im->peers.count; i++) {
    const messaging__peer *peer = messaging__im_peer(im, i);
    if (messaging__peer_live(peer) && !peer->silent) needed = messaging__earlier(needed, peer->has);
  }
  return needed;
}

/* Whether all who hold back the oldest chunk are slow: absent, or fenced before and no further since. */
static inline bool messaging__im_only_slow(const messaging__im *im) {
  uint64_t end = messaging__log_chunk(&im->inbox->log, 0)->next;
  for (size_t i = 0; i < im->peers.count; i++) {
    const messaging__peer *peer = messaging__im_peer(im, i);
    if (peer->state == MESSAGING__ACTIVE && !peer->silent && !peer->fenced && peer->has < end) return false;
  }
  return true;
}

/* Tells those who will never get what was cut. */
static inline void messaging__im_tell_fenced(messaging__im *im) {
  uint64_t first = im->inbox->log.first;
  for (size_t i = 0; i < im->peers.count; i++) {
    messaging__peer *peer = messaging__im_peer(im, i);
    if (!messaging__peer_live(peer) || peer->has >= first) continue;
    messaging__report_gap(&im->port, &peer->who, peer->has, first, "a worker is slow and the history is full");
    peer->has = first;
    peer->fenced = true;
    messaging__im_ask(im, peer);
  }
}

/* Makes room in a full history against the slow, an eighth of it at a time. Others who hold it back get the time that an acknowledgement takes
 * which was asked for; who has not acknowledged by then is slow as well. */
static inline void messaging__im_fence(messaging__im *im, size_t size) {
  messaging__log *log = &im->inbox->log;
  uint64_t before = im->inbox->cursor_number;
  bool unread = im->inbox->cursor_batches > 0, overdue = im->now_ms >= im->fence_at;
  size_t target = log->bytes_max - log->bytes_max / 8;
  while (log->chunks.count && (log->bytes > target || !messaging__log_fits(log, size))) {
    if (!messaging__im_only_slow(im) && (!overdue || messaging__log_fits(log, size))) break;
    messaging__inbox_log_drop(im->inbox);
  }
  if (im->fence_at == MESSAGING__NEVER) im->fence_at = im->now_ms + 2 * messaging__im_ack_ms(im, true);
  if (unread && before < log->first)
    messaging__report_gap(&im->port, &im->self, before, log->first, "the supervisor's application is slow and the history is full");
  messaging__im_tell_fenced(im);
}

/* Who holds back a full history may only not have said what it has, or not know that the last messages, which are its own, are taken. They are
 * asked, once for each state of the history, and all are told to say soon what they get from now on. Before anybody is fenced, all are asked. */
static inline void messaging__im_ask_holders(messaging__im *im) {
  uint64_t next = messaging__im_next(im), asked = im->asked_next == next ? im->asked_end : 0;
  uint64_t end = im->fence_slow ? next : messaging__log_chunk(&im->inbox->log, 0)->next;
  if (asked >= end) return;
  if (!im->hasty) im->heartbeat_due = true;
  im->asked_next = next;
  im->asked_end = end;
  im->hasty = true;
  for (size_t i = 0; i < im->peers.count; i++) {
    messaging__peer *peer = messaging__im_peer(im, i);
    bool holds = peer->has < end && peer->has >= asked;
    if (peer->state == MESSAGING__ACTIVE && !peer->silent && holds) messaging__im_ask(im, peer);
  }
}

/* Sees to room in the history for a frame, trimming what nobody needs any more. */
static inline bool messaging__im_room(messaging__im *im, size_t size) {
  messaging__log *log = &im->inbox->log;
  bool early = false, held = false; /* too early for another look at what is needed; that was done, in vain */
  if (messaging__log_fits(log, size)) { /* which changes under core alone */
    im->fence_at = MESSAGING__NEVER;
    return true;
  }
  pthread_mutex_lock(&im->inbox->lock);
  while (log->chunks.count && !messaging__log_fits(log, size)) {
    uint64_t end = messaging__log_chunk(log, 0)->next;
    early = im->held < end && im->now_ms < im->needed_at;
    if (im->held < end && !early) {
      im->held = messaging__im_needed(im);
      im->needed_at = im->now_ms + im->peers.count / MESSAGING__LOOK_RATE;
      im->looked = true;
    }
    held = im->held < end && !early;
    if (im->held < end) break;
    messaging__inbox_log_drop(im->inbox);
  }
  if (im->fence_slow && !messaging__log_fits(log, size)) messaging__im_fence(im, size);
  bool fits = messaging__log_fits(log, size);
  if (fits) im->fence_at = MESSAGING__NEVER;
  else MESSAGING__STORE(&im->inbox->wanted, true);
  pthread_mutex_unlock(&im->inbox->lock);
  if (fits) return true;
  if (held) messaging__im_ask_holders(im);
  if (early && !im->looked) { /* somebody may need less by now */
    im->unblock_due = true;
    im->unblock_at = im->needed_at;
  }
  return false;
}

/* Copies what a peer asked for behind each other, up to the size of one repair frame. The number of batches. The first batch goes whatever the
 * credit: an empty inbox takes one of any size. */
static inline uint32_t messaging__im_fill(messaging__im *im, messaging__peer *peer, messaging__buffer *buffer) {
  uint32_t count = 0;
  while (peer->repair_count) {
    messaging__range *range = &peer->repairs[0];
    messaging__place place = messaging__log_find(&im->inbox->log, range->first);
    messaging__slice frame;
    messaging__batch batch;
    while (messaging__log_read(&im->inbox->log, &place, &frame) && messaging__batch_read(frame.data, frame.size, &batch) &&
           batch.position < range->next) {
      /* Its own need not go: the batch behind them, which goes, tells it of them. */
      if (batch.nonce == peer->who.nonce && batch.position + batch.count < range->next) continue;
      if (count && buffer->size + frame.size > MESSAGING__REPAIR_BYTES) return count;
      bool first = count == 0 && peer->repair_fresh;
      if ((frame.size > peer->repair_credit && !first) || !messaging__buffer_reserve(buffer, buffer->size + frame.size)) {
        peer->repair_count = 0;
        return count;
      }
      peer->repair_fresh = false;
      memcpy(buffer->data + buffer->size, frame.data, frame.size);
      buffer->size += frame.size;
      peer->repair_credit -= frame.size < peer->repair_credit ? frame.size : peer->repair_credit;
      range->first = batch.position + batch.count;
      count++;
    }
    uint64_t end = range->first;
    memmove(&peer->repairs[0], &peer->repairs[1], --peer->repair_count * sizeof *range);
    if (peer->repair_count) range->first = messaging__later(range->first, end); /* ranges may meet within a batch */
  }
  return count;
}

/* Sends one repair frame. False when it could not be made or sent: the peer will ask again. */
static inline bool messaging__im_send_repair(messaging__im *im, messaging__peer *peer, size_t *size) {
  messaging__writer writer;
  messaging__frame_begin(&writer, &peer->who, 0, MESSAGING__REPAIR, &im->era);
  messaging__put_tag(&writer, 0x93);
  size_t head = writer.size;
  messaging__buffer *buffer = messaging__buffer_new(MESSAGING__REPAIR_BYTES + MESSAGING__CONTROL_SIZE);
  if (!buffer) return false;
  buffer->size = head + 11; /* last, count in five bytes, tag and size of the payload */
  pthread_mutex_lock(&im->inbox->lock);
  uint32_t count = messaging__im_fill(im, peer, buffer);
  pthread_mutex_unlock(&im->inbox->lock);
  memcpy(buffer->data, writer.bytes, head);
  buffer->data[head] = peer->repair_count == 0;
  buffer->data[head + 1] = 0xce;
  messaging__store_be(buffer->data + head + 2, count, 4);
  buffer->data[head + 6] = 0xc6;
  messaging__store_be(buffer->data + head + 7, buffer->size - head - 11, 4);
  bool sent = im->port.send(im->port.self, messaging__slice_of(buffer));
  *size = buffer->size;
  im->stats.batches_repeated += count;
  messaging__buffer_drop(buffer);
  return sent;
}

/* Sends a part of what a peer asked for, so that others get their turn. */
static inline void messaging__im_repair(messaging__im *im, messaging__peer *peer) {
  size_t size;
  for (size_t burst = 0; peer->repair_count && burst < MESSAGING__REPAIR_STEP; burst += size)
    if (!messaging__im_send_repair(im, peer, &size)) {
      peer->repair_count = 0;
      return;
    }
}

/* ---- Supervisor: who is there ---- */

/* Where a nonce stands; count when it does not. */
static inline size_t messaging__nonces_find(const uint64_t *nonces, size_t count, uint64_t nonce) {
  size_t i = 0;
  while (i < count && nonces[i] != nonce) i++;
  return i;
}

/* The oldest is forgotten for it. */
static inline void messaging__nonces_add(uint64_t nonces[MESSAGING__NONCES_MAX], uint64_t nonce) {
  memmove(&nonces[1], &nonces[0], (MESSAGING__NONCES_MAX - 1) * sizeof nonces[0]);
  nonces[0] = nonce;
}

/* Remembers that an incarnation is over. */
static inline void messaging__peer_forget_nonce(messaging__im *im, messaging__peer *peer) {
  if (peer->who.nonce == 0) return;
  messaging__map_remove(&im->by_nonce, peer->who.nonce);
  /* One that never spoke may yet: of two that claim an id, the first to answer its welcome has it. */
  bool over = peer->confirmed || !messaging__peer_live(peer);
  if (over) messaging__nonces_add(peer->former, peer->who.nonce);
  peer->who.nonce = 0;
}

static inline bool messaging__peer_was(const messaging__peer *peer, uint64_t nonce) {
  return messaging__nonces_find(peer->former, MESSAGING__NONCES_MAX, nonce) < MESSAGING__NONCES_MAX;
}

static inline bool messaging__im_struck(const messaging__im *im, uint64_t nonce) {
  return messaging__nonces_find(im->struck, MESSAGING__STRUCK_MAX, nonce) < MESSAGING__STRUCK_MAX;
}

/* What a peer was doing is void: it has died, left, or begins anew. */
static inline void messaging__peer_reset(messaging__im *im, messaging__peer *peer) {
  if (peer->confirmed && peer->state == MESSAGING__ACTIVE) im->joined--;
  peer->confirmed = peer->silent = peer->fenced = peer->blocked = peer->gap = peer->answer_due = peer->bye_heard = false;
  peer->term_seen = peer->bye_seen = false;
  peer->repair_count = 0;
  peer->remind_at = MESSAGING__NEVER;
  messaging__im_settle(im, peer);
  peer->has = im->inbox->log.first;
  im->slots &= ~((uint64_t)1 << peer->slot);
  peer->slot = 0;
}

/* The lowest slot that nobody has; 0 when all are taken. Slot 0 is everybody's. */
static inline void messaging__im_seat(messaging__im *im, messaging__peer *peer) {
  unsigned slot = 1;
  while (slot < MESSAGING__SLOTS && im->slots >> slot & 1) slot++;
  if (slot == MESSAGING__SLOTS) return;
  im->slots |= (uint64_t)1 << slot;
  peer->slot = slot;
}

/* A new incarnation of a listed worker. */
static inline void messaging__im_accept(messaging__im *im, messaging__peer *peer, uint64_t nonce, uint64_t now) {
  if (!messaging__map_reserve(&im->by_nonce, im->by_nonce.count + 1)) return; /* it announces itself again */
  if (peer->state == MESSAGING__LEFT) im->live++;
  size_t again = messaging__nonces_find(peer->unseated, MESSAGING__NONCES_MAX, nonce);
  if (again < MESSAGING__NONCES_MAX) peer->unseated[again] = 0;
  if (peer->state == MESSAGING__ACTIVE && !peer->confirmed) messaging__nonces_add(peer->unseated, peer->who.nonce);
  messaging__peer_forget_nonce(im, peer);
  messaging__peer_reset(im, peer);
  messaging__im_seat(im, peer);
  im->held = messaging__earlier(im->held, peer->has);
  peer->who.nonce = nonce;
  peer->state = MESSAGING__ACTIVE;
  peer->expected = 1;
  peer->probe = 0;
  peer->heard_ms = now;
  messaging__map_put(&im->by_nonce, nonce, peer);
  if (peer->watch < 0) im->scan_at = messaging__earlier(im->scan_at, now + im->silence_ms);
  if (peer->has > 1) messaging__report_gap(&im->port, &peer->who, 1, peer->has, "a worker joins after history was cut");
  messaging__im_status(im, peer, MESSAGING__WELCOME);
}

static inline void messaging__im_report_refusal(messaging__im *im, messaging__peer *peer, const messaging__who *who, messaging_status status,
                                                const char *detail) {
  im->stats.refused++;
  messaging__im_refuse(im, who, status);
  if (peer->refused == who->nonce) return;
  peer->refused = who->nonce;
  messaging__report(&im->port, status, who, detail);
}

/* A worker announces itself to the peer that it claims to be. False: it may try again later. */
static inline bool messaging__im_admit(messaging__im *im, messaging__peer *peer, const messaging__parked *hello, uint64_t now) {
  const messaging__who *who = &hello->who;
  if (messaging__peer_was(peer, who->nonce) || messaging__im_struck(im, who->nonce)) return true;
  if (peer->state == MESSAGING__LEFT && peer->who.nonce == who->nonce) return true;
  if (peer->state == MESSAGING__ACTIVE && peer->who.nonce == who->nonce) {
    messaging__im_status(im, peer, MESSAGING__WELCOME);
  } else if (who->kind != peer->who.kind) {
    messaging__im_report_refusal(im, peer, who, MESSAGING_EKIND, "a worker's kind differs from its listing");
  } else if (hello->message_bytes_max != im->message_bytes_max) {
    messaging__im_report_refusal(im, peer, who, MESSAGING_EINVAL, "a worker's message_bytes_max differs from the supervisor's");
  } else if (peer->state == MESSAGING__ACTIVE && peer->confirmed && now < peer->heard_ms + im->silence_ms) {
    messaging__im_report_refusal(im, peer, who, MESSAGING_EAUTH, "a second worker claims the id of a live one");
    return false;
  } else if (who->nonce == im->self.nonce || messaging__map_get(&im->by_nonce, who->nonce)) {
    messaging__im_report_refusal(im, peer, who, MESSAGING_EAUTH, "a worker claims to be another one");
  } else {
    messaging__im_accept(im, peer, who->nonce, now);
  }
  return true;
}

/* Keeps an announcement for the day its worker is listed; dropping the oldest is safe, since announcements repeat. */
static inline void messaging__im_park(messaging__im *im, const messaging__parked *hello) {
  for (size_t i = 0; i < im->parked.count; i++) {
    messaging__parked *parked = (messaging__parked *)messaging__ring_at(&im->parked, i);
    if (parked->who.nonce != hello->who.nonce) continue;
    *parked = *hello;
    return;
  }
  if (im->parked.count == MESSAGING__PARKED_MAX) messaging__ring_pop(&im->parked);
  messaging__ring_push(&im->parked, hello);
}

/* Takes parked announcements of a peer that was listed just now. */
static inline void messaging__im_unpark(messaging__im *im, messaging__peer *peer, uint64_t now) {
  for (size_t left = im->parked.count; left; left--) {
    messaging__parked hello = *(messaging__parked *)messaging__ring_at(&im->parked, 0);
    messaging__ring_pop(&im->parked);
    bool done = hello.who.id == peer->who.id && messaging__im_admit(im, peer, &hello, now);
    if (!done) messaging__ring_push(&im->parked, &hello);
  }
}

/* A watched process has died, or is found dead. Its place on the list is gone; what it sent is still taken. */
static inline void messaging__im_dead(messaging__im *im, messaging__peer *peer) {
  if (peer->state == MESSAGING__GONE) return;
  bool lost = peer->state != MESSAGING__LEFT;
  if (lost) im->live--;
  messaging__peer_reset(im, peer);
  peer->state = MESSAGING__GONE;
  if (peer->watch >= 0) im->port.unwatch(im->port.self, peer->watch);
  peer->watch = MESSAGING__UNWATCHED;
  for (size_t left = im->parked.count; left; left--) {
    messaging__parked hello = *(messaging__parked *)messaging__ring_at(&im->parked, 0);
    messaging__ring_pop(&im->parked);
    if (hello.who.id != peer->who.id) messaging__ring_push(&im->parked, &hello);
  }
  /* Who dies after the supervisor said goodbye has left as it should. */
  if (lost && !im->leaving) messaging__report(&im->port, MESSAGING_ELOST, &peer->who, "a worker died");
}

/* ---- Supervisor: what comes up ---- */

static inline bool messaging__im_hello(messaging__im *im, messaging__reader *reader, uint8_t version, uint64_t now) {
  messaging__parked hello;
  if (messaging__read_array(reader) < 3) return false;
  hello.who.id = (pid_t)messaging__read_int(reader);
  hello.who.kind = (uint32_t)messaging__read_uint(reader, UINT32_MAX);
  hello.who.nonce = messaging__read_uint(reader, UINT64_MAX);
  if (reader->bad || hello.who.id == 0 || hello.who.nonce == 0) return false;
  messaging__peer *peer = (messaging__peer *)messaging__map_get(&im->by_id, messaging__id_key(hello.who.id));
  if (version != MESSAGING_WIRE_VERSION) {
    im->stats.refused++;
    messaging__im_refuse(im, &hello.who, MESSAGING_EVERSION);
    if (!peer || peer->refused != hello.who.nonce)
      messaging__report(&im->port, MESSAGING_EVERSION, &hello.who, "a worker speaks another version of the wire");
    if (peer) peer->refused = hello.who.nonce;
    return true;
  }
  hello.message_bytes_max = messaging__read_uint(reader, UINT64_MAX);
  if (reader->bad || reader->at != reader->end) return false;
  if (im->leaving) im->heartbeat_due = true;
  /* A death is seen before an heir of the id: else the heir would be struck for its forebear's death. */
  bool heir = peer && peer->watch >= 0 && peer->who.nonce != hello.who.nonce;
  if (heir && im->port.died(im->port.self, peer->watch)) messaging__im_dead(im, peer);
  if (!peer || peer->state == MESSAGING__GONE || !messaging__im_admit(im, peer, &hello, now)) messaging__im_park(im, &hello);
  return true;
}

/* A peer that had fallen silent is back. History was trimmed without regard to it; from now on it counts again. */
static inline void messaging__im_back(messaging__im *im, messaging__peer *peer) {
  uint64_t first = im->inbox->log.first;
  peer->silent = false;
  if (peer->has < first) {
    messaging__report_gap(&im->port, &peer->who, peer->has, first, "a worker that was silent is back after history was cut");
    peer->has = first;
    peer->status_due = true; /* which says where history begins */
    messaging__im_busy(im, peer);
  }
  im->held = messaging__earlier(im->held, peer->has);
}

/* A frame of this generation from a peer: it is alive, and has its welcome. */
static inline void messaging__im_heard(messaging__im *im, messaging__peer *peer, uint64_t now) {
  bool back = peer->silent, new_here = !peer->confirmed && peer->state == MESSAGING__ACTIVE;
  peer->heard_ms = now;
  if (back) messaging__im_back(im, peer);
  if (new_here) {
    peer->confirmed = true;
    im->joined++;
  }
  /* The last scan passed it over: it may lack something, and its silence counts from now on. */
  if (back || new_here) im->scan_at = messaging__earlier(im->scan_at, now + MESSAGING__TAIL_MS);
}

/* A peer has everything below a number. */
static inline void messaging__im_has(messaging__im *im, messaging__peer *peer, uint64_t number, uint64_t now) {
  if (number <= peer->has || number > messaging__im_next(im)) return;
  peer->has = number;
  peer->fenced = false;
  peer->remind_ms = MESSAGING__TAIL_MS;
  if (peer->remind_at != MESSAGING__NEVER) peer->remind_at = now + peer->remind_ms;
}

/* There was no room for a peer's next batch: its window closes until there is. The dead will not send it again, so nothing need make room for it. */
static inline void messaging__im_block(messaging__im *im, messaging__peer *peer, uint8_t type, size_t size) {
  im->stats.refused++;
  if (peer->state == MESSAGING__GONE) return;
  peer->blocked = peer->status_due = true;
  peer->blocked_type = type;
  peer->blocked_size = size;
  messaging__im_busy(im, peer);
  if (!peer->waits) messaging__ring_push(&im->blocked, &peer);
  peer->waits = true;
}

/* Numbers, keeps and publishes a relay batch. What it is told is written where the frame lies; its payload is not looked at. */
static inline bool messaging__im_relay(messaging__im *im, messaging__slice frame, messaging__batch *batch, unsigned slot, uint64_t now) {
  messaging__slice kept;
  if (!messaging__im_room(im, frame.size)) return false;
  batch->position = messaging__im_next(im);
  messaging__store_be(frame.data + MESSAGING__AT_POSITION, batch->position, 8);
  messaging__put_letters(frame.data + MESSAGING__AT_LETTERS, slot);
  messaging__put_run(frame.data, &im->run);
  if (!messaging__inbox_log(im->inbox, frame, batch, &kept)) return false;
  if (im->run.nonce != batch->nonce) messaging__im_told(im);
  if (im->run.nonce != batch->nonce) im->run.first = batch->position;
  im->run.nonce = batch->nonce;
  im->run.batch = batch->number;
  messaging__im_publish(im, kept, now);
  return true;
}

static inline bool messaging__im_batch(messaging__im *im, messaging__peer *peer, messaging__slice frame, messaging__batch *batch, uint64_t now) {
  if (batch->id != peer->who.id || batch->kind != peer->who.kind) return false;
  messaging__im_has(im, peer, batch->position, now);
  messaging__im_busy(im, peer);
  if (batch->flags & MESSAGING__UP_ANSWER) peer->status_due = true;
  if (batch->number < peer->expected) {
    im->stats.duplicates++;
    peer->status_due = true;
    return true;
  }
  if (batch->number > peer->expected) {
    if (!peer->blocked) peer->gap = true;
    peer->status_due = true;
    return true;
  }
  bool relay = batch->type == MESSAGING__RELAY;
  bool taken = relay ? messaging__im_relay(im, frame, batch, peer->slot, now) : messaging__inbox_put(im->inbox, frame, batch) == MESSAGING__PUT;
  if (!taken) {
    messaging__im_block(im, peer, batch->type, frame.size);
    return true;
  }
  peer->expected++;
  peer->blocked = false;
  if (relay && peer->slot == 0) messaging__im_settle(im, peer); /* it hears its own broadcast */
  else messaging__im_owe(im, peer, now);
  /* The window holds few large ones. Were they answered together, both ends would wait for each other in turn. */
  if (peer->status_due && frame.size >= im->large_bytes) messaging__im_status(im, peer, MESSAGING__STATUS);
  return true;
}

/* Somebody asks for termination of the generation. */
static inline void messaging__im_term(messaging__im *im, const messaging__who *who, uint64_t now) {
  for (size_t i = 0; i < im->term_count; i++)
    if (im->terms[i].nonce == who->nonce) return;
  if (im->term_count == 2) return;
  im->terms[im->term_count++] = *who;
  im->heartbeat_due = true;
  im->scan_at = messaging__earlier(im->scan_at, now + MESSAGING__TAIL_MS);
  if (who->nonce != im->self.nonce) messaging__inbox_terminate(im->inbox, who);
}

/* What a peer misses; it replaces what it asked for before. */
static inline bool messaging__im_asked(messaging__im *im, messaging__peer *peer, messaging__reader *reader, size_t credit) {
  messaging__range ranges[MESSAGING__RANGES_MAX];
  uint32_t count = messaging__read_array(reader);
  if (reader->bad || count > MESSAGING__RANGES_MAX) return false;
  for (uint32_t i = 0; i < count; i++) {
    if (messaging__read_array(reader) != 2) return false;
    ranges[i].first = messaging__read_uint(reader, MESSAGING__NUMBER_MAX);
    ranges[i].next = messaging__read_uint(reader, MESSAGING__NUMBER_MAX) + 1;
    if (reader->bad || ranges[i].first >= ranges[i].next || ranges[i].next > messaging__im_next(im)) return false;
    if (i && ranges[i].first < ranges[i - 1].next) return false;
  }
  if (reader->bad || reader->at != reader->end) return false;
  if (count == 0) return true;
  memcpy(peer->repairs, ranges, count * sizeof ranges[0]);
  peer->repair_count = count;
  peer->repair_fresh = true;
  peer->repair_credit = credit < MESSAGING__REPAIR_BURST ? credit : (size_t)MESSAGING__REPAIR_BURST;
  if (ranges[0].first < im->inbox->log.first) peer->status_due = true; /* which says where history begins */
  im->stats.repairs_asked++;
  return true;
}

static inline void messaging__im_left(messaging__im *im, messaging__peer *peer) {
  if (peer->state == MESSAGING__ACTIVE) {
    im->live--;
    if (peer->term_seen) peer->term_asked = false; /* who comes back under its id is not asked again */
    messaging__peer_reset(im, peer);
    peer->state = MESSAGING__LEFT;
  }
  peer->bye_heard = peer->status_due = true;
}

static inline bool messaging__im_report(messaging__im *im, messaging__peer *peer, messaging__reader *reader, uint64_t has, uint64_t now) {
  uint32_t probe = (uint32_t)messaging__read_uint(reader, UINT32_MAX);
  unsigned flags = (unsigned)messaging__read_uint(reader, 127);
  size_t credit = (size_t)messaging__read_uint(reader, MESSAGING__NUMBER_MAX);
  if (reader->bad || has > messaging__im_next(im) || !messaging__im_asked(im, peer, reader, credit)) return false;
  messaging__im_has(im, peer, has, now);
  if (flags & MESSAGING__UP_ANSWER) {
    peer->probe = probe;
    peer->status_due = true;
  }
  if (flags & MESSAGING__UP_TERM) {
    messaging__im_term(im, &peer->who, now);
    peer->status_due = true;
  }
  if (flags & MESSAGING__UP_TERM_SEEN) peer->term_seen = true;
  if (flags & MESSAGING__UP_BYE_SEEN) peer->bye_seen = true;
  if (flags & MESSAGING__UP_BYE) messaging__im_left(im, peer);
  messaging__im_busy(im, peer);
  return true;
}

/* Whoever speaks first in the session has the id. So an incarnation whose welcome was followed by another's announcement, which may be a late
 * one of the dead, takes its place again. If the other has spoken, it waits, as one that announces itself does: what spoke may have been late, too. */
static inline messaging__peer *messaging__im_unseated(messaging__im *im, int64_t id, uint64_t nonce, uint64_t now, bool *waits) {
  if (id < INT32_MIN || id > INT32_MAX) return NULL;
  messaging__peer *peer = (messaging__peer *)messaging__map_get(&im->by_id, messaging__id_key((pid_t)id));
  if (!peer || (peer->state != MESSAGING__ACTIVE && peer->state != MESSAGING__LEFT) || nonce == 0) return NULL;
  if (messaging__nonces_find(peer->unseated, MESSAGING__NONCES_MAX, nonce) == MESSAGING__NONCES_MAX) return NULL;
  *waits = true;
  if (peer->confirmed && now < peer->heard_ms + im->silence_ms) return NULL;
  messaging__im_accept(im, peer, nonce, now);
  return peer->who.nonce == nonce ? peer : NULL;
}

/* Finds who sent a frame. Somebody of this session who is not on the list is told so. */
static inline messaging__peer *messaging__im_sender(messaging__im *im, const messaging__envelope *envelope, int64_t id, uint64_t nonce,
                                                    uint64_t now) {
  messaging__peer *peer = (messaging__peer *)messaging__map_get(&im->by_nonce, nonce);
  bool ours = memcmp(envelope->session, im->era.session, 16) == 0;
  bool waits = false;
  if (ours && !peer && envelope->generation == im->era.generation) peer = messaging__im_unseated(im, id, nonce, now, &waits);
  if (ours && peer && peer->who.id == id && envelope->generation == im->era.generation) {
    messaging__im_heard(im, peer, now);
    return peer;
  }
  im->stats.stale++;
  /* Also when a late announcement put it on the list of a new generation: its handle is that of the old one. */
  if (ours && !waits && (!peer || envelope->generation != im->era.generation) && id >= INT32_MIN && id <= INT32_MAX) {
    messaging__who who = {(pid_t)id, 0, nonce};
    messaging__im_refuse(im, &who, MESSAGING_ENOTRUNNING);
  }
  return NULL;
}

/* One frame from a worker. It is lent for the call; a batch is written to. */
static inline void messaging__im_receive(messaging__im *im, messaging__slice frame, uint64_t now) {
  messaging__reader reader = {frame.data, frame.data + frame.size, false};
  messaging__envelope envelope;
  messaging__batch batch;
  messaging__who who = {0, 0, 0};
  messaging__peer *peer;
  im->now_ms = now;
  im->looked = false;
  im->stats.frames_received++;
  im->stats.bytes_received += frame.size;
  bool fine = messaging__envelope_read(&reader, &envelope);
  if (fine && envelope.type == MESSAGING__HELLO) {
    fine = messaging__im_hello(im, &reader, envelope.version, now);
  } else if (fine && envelope.version != MESSAGING_WIRE_VERSION) {
    im->stats.stale++;
  } else if (fine && (envelope.type == MESSAGING__RELAY || envelope.type == MESSAGING__OUTPUT)) {
    fine = messaging__batch_read(frame.data, frame.size, &batch) && frame.size == MESSAGING__AT_PAYLOAD + (size_t)batch.payload_size;
    peer = fine ? messaging__im_sender(im, &envelope, batch.id, batch.nonce, now) : NULL;
    if (peer) {
      who = peer->who;
      fine = messaging__im_batch(im, peer, frame, &batch, now);
    }
  } else if (fine && envelope.type == MESSAGING__REPORT) {
    fine = messaging__read_array(&reader) == 7;
    int64_t id = messaging__read_int(&reader);
    uint64_t nonce = messaging__read_uint(&reader, UINT64_MAX);
    uint64_t has = messaging__read_uint(&reader, MESSAGING__NUMBER_MAX);
    fine = fine && !reader.bad;
    peer = fine ? messaging__im_sender(im, &envelope, id, nonce, now) : NULL;
    if (peer) {
      who = peer->who;
      fine = messaging__im_report(im, peer, &reader, has, now);
    }
  } else {
    fine = false;
  }
  if (fine) return;
  im->stats.malformed++;
  messaging__report(&im->port, MESSAGING_EBADMSG, &who, "a malformed frame was skipped");
}

/* A subscription has come to the publisher: 1, then the prefix. A listed worker that waits for its welcome can hear it now. One that had it was
 * cut off: what went either way meanwhile may be lost. */
static inline void messaging__im_subscribed(messaging__im *im, const uint8_t *bytes, size_t size) {
  if (size != 1 + MESSAGING__TOPIC_SIZE || bytes[0] != 1) return;
  uint64_t nonce = messaging__load_be(bytes + 1 + 12, 8);
  messaging__peer *peer = (messaging__peer *)messaging__map_get(&im->by_nonce, nonce);
  if (!peer || peer->state != MESSAGING__ACTIVE) return;
  if (peer->confirmed) messaging__im_ask(im, peer);
  else messaging__im_status(im, peer, MESSAGING__WELCOME);
}

/* ---- Supervisor: time ---- */

/* Whether a connected peer has to be reminded of something. */
static inline bool messaging__im_lags(const messaging__im *im, const messaging__peer *peer) {
  if (peer->state != MESSAGING__ACTIVE || !peer->confirmed) return false;
  return peer->has < im->marked || (messaging__im_terminates(im, peer) && !peer->term_seen) || (im->leaving && !peer->bye_seen);
}

/* Silence is death only where no pidfd tells of it. */
static inline void messaging__im_listen(messaging__im *im, messaging__peer *peer, uint64_t now) {
  if (peer->state != MESSAGING__ACTIVE || peer->watch >= 0 || peer->silent) return;
  uint64_t silent_at = peer->heard_ms + im->silence_ms;
  if (now < silent_at) {
    im->scan_at = messaging__earlier(im->scan_at, silent_at);
    return;
  }
  peer->silent = true;
  messaging__report(&im->port, MESSAGING_ELOST, &peer->who, "a worker has fallen silent");
}

/* Reminds a peer that lags, ever more seldom while nothing new is there. */
static inline void messaging__im_remind(messaging__im *im, messaging__peer *peer, uint64_t now) {
  if (!messaging__im_lags(im, peer) || peer->silent) {
    peer->remind_at = MESSAGING__NEVER;
    peer->remind_ms = MESSAGING__TAIL_MS;
    return;
  }
  if (peer->reminded_next != messaging__im_next(im)) peer->remind_ms = MESSAGING__TAIL_MS;
  if (peer->remind_at == MESSAGING__NEVER || now >= peer->remind_at) {
    peer->reminded_next = messaging__im_next(im);
    peer->remind_at = now + peer->remind_ms;
    peer->remind_ms = messaging__doubled(peer->remind_ms, im->heartbeat_ms);
    peer->answer_due = true;
    messaging__im_status(im, peer, MESSAGING__STATUS);
  }
  im->scan_at = messaging__earlier(im->scan_at, peer->remind_at);
}

/* Looks after every peer. */
static inline void messaging__im_scan(messaging__im *im, uint64_t now) {
  if (now >= im->marked_at) {
    im->marked = im->marking;
    im->marking = messaging__im_next(im);
    im->marked_at = im->marking > im->marked ? messaging__im_tail(im, now) : MESSAGING__NEVER;
  }
  im->scan_at = messaging__im_looks_at(im);
  for (size_t i = 0; i < im->peers.count; i++) {
    messaging__peer *peer = messaging__im_peer(im, i);
    messaging__im_listen(im, peer, now);
    messaging__im_remind(im, peer, now);
  }
  im->scan_at = messaging__later(im->scan_at, now + im->peers.count / MESSAGING__LOOK_RATE);
}

/* Whether the inbox has room for an output batch. */
static inline bool messaging__im_output_room(messaging__im *im, size_t size) {
  pthread_mutex_lock(&im->inbox->lock);
  bool room = messaging__inbox_fits(im->inbox, size);
  if (!room) MESSAGING__STORE(&im->inbox->wanted, true);
  pthread_mutex_unlock(&im->inbox->lock);
  return room;
}

/* A blocked peer's window opens when its batch would find room. */
static inline void messaging__im_unblock(messaging__im *im, messaging__peer *peer) {
  bool room;
  if (peer->blocked_type == MESSAGING__RELAY) {
    room = peer->blocked_size < im->full_for && messaging__im_room(im, peer->blocked_size);
    if (!room && peer->blocked_size < im->full_for) im->full_for = peer->blocked_size;
  } else {
    room = messaging__im_output_room(im, peer->blocked_size);
  }
  if (!room) return;
  peer->blocked = false;
  peer->status_due = true;
  messaging__im_busy(im, peer);
}

/* Looks for room for all who are blocked. With many it is not done in every pump, but so seldom that all looks together cost the same for any number. */
static inline void messaging__im_unblock_all(messaging__im *im, uint64_t now) {
  if (im->blocked.count > 0 && now < im->unblock_at) im->unblock_due = true;
  if (im->unblock_due) return;
  for (size_t left = im->blocked.count; left; left--) {
    messaging__peer *peer = *(messaging__peer **)messaging__ring_at(&im->blocked, 0);
    messaging__ring_pop(&im->blocked);
    if (peer->blocked) messaging__im_unblock(im, peer);
    peer->waits = peer->blocked;
    if (peer->waits) messaging__ring_push(&im->blocked, &peer);
  }
  im->unblock_at = messaging__later(im->unblock_at, now + im->blocked.count / MESSAGING__LOOK_RATE);
}

/* Takes what the supervisor's own application sent. False when it has to wait for room or memory. */
static inline bool messaging__im_take_own(messaging__im *im, const messaging__outgoing *own, uint64_t now) {
  messaging__slice frame = messaging__slice_of(own->buffer);
  messaging__batch batch = {own->type, im->self.id, im->self.kind, im->self.nonce, im->own_number, messaging__im_next(im), own->count, 0,
                            (uint32_t)(own->buffer->size - MESSAGING__AT_PAYLOAD), {0, 0, 0}};
  messaging__batch_write(own->buffer->data, &im->era, &batch);
  bool taken = own->type == MESSAGING__RELAY ? messaging__im_relay(im, frame, &batch, 0, now)
                                             : messaging__im_output_room(im, frame.size) && messaging__inbox_put(im->inbox, frame, &batch) == MESSAGING__PUT;
  if (taken) im->own_number++;
  return taken;
}

static inline void messaging__im_send_own(messaging__im *im, uint64_t now) {
  messaging__outgoing own;
  while (messaging__outbox_front(im->outbox, MESSAGING__FLOWS, &own)) {
    if (!messaging__im_take_own(im, &own, now)) {
      messaging__outbox_hold(im->outbox, MESSAGING__HOLDS_ALL);
      return;
    }
    size_t bytes = own.buffer->size;
    messaging__outbox_pop(im->outbox);
    messaging__buffer_drop(own.buffer);
    messaging__outbox_release(im->outbox, bytes);
  }
}

/* Tells those who are owed an acknowledgement; where there are many, some at a time. The sender of the last messages, which learns so that it has all, is
 * asked to say it, since it would be reminded soon. */
static inline void messaging__im_acknowledge(messaging__im *im, uint64_t now) {
  for (int count = 0; im->owed.count && count < MESSAGING__LOOK_RATE; count++) {
    messaging__peer *peer = *(messaging__peer **)messaging__ring_at(&im->owed, 0);
    messaging__ring_pop(&im->owed);
    peer->owed_listed = false;
    if (!peer->owed) continue;
    peer->status_due = true;
    if (peer->who.nonce == im->run.nonce) peer->answer_due = true;
    messaging__im_busy(im, peer);
  }
  im->owed_at = im->owed.count ? now + 1 : im->owed_at;
}

/* One turn for a peer with something to do. True: it has more. */
static inline bool messaging__im_serve(messaging__im *im, messaging__peer *peer) {
  if (peer->who.nonce == 0) return false;
  if (peer->status_due) messaging__im_status(im, peer, MESSAGING__STATUS);
  messaging__im_repair(im, peer);
  return peer->repair_count > 0;
}

/* Does what is due and sends what can go. */
static inline void messaging__im_pump(messaging__im *im, uint64_t now) {
  if (!im->running) return;
  im->now_ms = now;
  im->full_for = SIZE_MAX;
  im->unblock_due = im->looked = false;
  messaging__im_send_own(im, now);
  messaging__im_unblock_all(im, now);
  if (im->heartbeat_due || now >= im->heartbeat_at) messaging__im_heartbeat(im, now);
  if (now >= im->owed_at) messaging__im_acknowledge(im, now);
  for (size_t left = im->busy.count; left; left--) {
    messaging__peer *peer = *(messaging__peer **)messaging__ring_at(&im->busy, 0);
    messaging__ring_pop(&im->busy);
    peer->busy = false;
    if (messaging__im_serve(im, peer)) messaging__im_busy(im, peer);
  }
  if (now >= im->fence_at) im->fence_at = MESSAGING__NEVER; /* whoever needs room has tried by now */
  if (now >= im->scan_at) messaging__im_scan(im, now);
}

/* When pump has to be called again at the latest. */
static inline uint64_t messaging__im_deadline(const messaging__im *im, uint64_t now) {
  if (!im->running) return MESSAGING__NEVER;
  uint64_t at = messaging__earlier(messaging__earlier(im->heartbeat_at, im->scan_at), im->fence_at);
  if (im->unblock_due) at = messaging__earlier(at, im->unblock_at);
  return im->busy.count ? now : messaging__earlier(at, im->owed_at);
}

/* Whether all live, listed, connected workers have everything, and nothing waits to be sent. */
static inline bool messaging__im_flushed(messaging__im *im) {
  for (size_t i = 0; i < im->peers.count; i++) {
    const messaging__peer *peer = messaging__im_peer(im, i);
    bool waits = peer->state == MESSAGING__ACTIVE && peer->confirmed && !peer->silent;
    if (waits && peer->has < messaging__im_next(im)) return false;
  }
  return messaging__outbox_empty(im->outbox);
}

/* Somebody waits for that: ask those who lag, once for each state of the history, and remind them soon. */
static inline void messaging__im_hurry(messaging__im *im, uint64_t now) {
  im->now_ms = now;
  messaging__im_send_own(im, now);
  if (im->flushed_next == messaging__im_next(im)) return;
  im->flushed_next = messaging__im_next(im);
  for (size_t i = 0; i < im->peers.count; i++) {
    messaging__peer *peer = messaging__im_peer(im, i);
    if (peer->state == MESSAGING__ACTIVE && peer->has < messaging__im_next(im)) messaging__im_ask(im, peer);
  }
  im->marked = im->marking = messaging__im_next(im);
  im->scan_at = messaging__earlier(im->scan_at, now + MESSAGING__TAIL_MS);
}

/* Says goodbye; parted tells whether all connected workers know. */
static inline void messaging__im_leave(messaging__im *im, uint64_t now) {
  im->leaving = im->heartbeat_due = true;
  im->scan_at = messaging__earlier(im->scan_at, now + MESSAGING__TAIL_MS);
}

static inline bool messaging__im_parted(const messaging__im *im) {
  for (size_t i = 0; i < im->peers.count; i++) {
    const messaging__peer *peer = messaging__im_peer(im, i);
    if (peer->state == MESSAGING__ACTIVE && peer->confirmed && !peer->silent && !peer->bye_seen) return false;
  }
  return true;
}

/* ---- Supervisor: the list ---- */

/* Handles deaths that a pidfd shows already. */
static inline void messaging__im_reap(messaging__im *im) {
  for (size_t i = 0; i < im->peers.count; i++) {
    messaging__peer *peer = messaging__im_peer(im, i);
    if (peer->watch >= 0 && im->port.died(im->port.self, peer->watch)) messaging__im_dead(im, peer);
  }
}

static inline messaging__peer *messaging__peer_new(messaging_child child) {
  messaging__peer *peer = (messaging__peer *)MESSAGING_MALLOC(sizeof *peer);
  if (!peer) return NULL;
  memset(peer, 0, sizeof *peer);
  peer->who.id = child.pid;
  peer->who.kind = child.kind;
  peer->watch = MESSAGING__UNWATCHED;
  peer->expected = 1;
  peer->remind_at = MESSAGING__NEVER;
  peer->remind_ms = MESSAGING__TAIL_MS;
  return peer;
}

/* Takes a peer off one of the lists, which keeps its order. */
static inline void messaging__im_unlist(messaging__ring *ring, const messaging__peer *peer) {
  for (size_t left = ring->count; left; left--) {
    messaging__peer *other = *(messaging__peer **)messaging__ring_at(ring, 0);
    messaging__ring_pop(ring);
    if (other != peer) messaging__ring_push(ring, &other);
  }
}

/* Strikes a peer from the list. Its worker is told, and a newcomer of the same id learns of its former incarnations. */
static inline void messaging__im_strike(messaging__im *im, messaging__peer *peer, messaging__peer *heir) {
  if (messaging__peer_live(peer)) im->live--;
  if (peer->state == MESSAGING__ACTIVE) messaging__im_refuse(im, &peer->who, MESSAGING_ENOTRUNNING);
  messaging__peer_forget_nonce(im, peer);
  messaging__peer_reset(im, peer);
  if (peer->watch >= 0) im->port.unwatch(im->port.self, peer->watch);
  if (heir) memcpy(heir->former, peer->former, sizeof heir->former);
  for (size_t i = 0; !heir && i < MESSAGING__NONCES_MAX; i++)
    if (peer->former[i]) im->struck[im->struck_count++ % MESSAGING__STRUCK_MAX] = peer->former[i];
  messaging__map_remove(&im->by_id, messaging__id_key(peer->who.id));
  if (peer->busy) messaging__im_unlist(&im->busy, peer);
  if (peer->waits) messaging__im_unlist(&im->blocked, peer);
  if (peer->owed_listed) messaging__im_unlist(&im->owed, peer);
  MESSAGING_FREE(peer);
}

/* Enters a newcomer, for whom there is room. */
static inline void messaging__im_enter(messaging__im *im, messaging__peer *peer, uint64_t now) {
  messaging__ring_push(&im->peers, &peer);
  messaging__map_put(&im->by_id, messaging__id_key(peer->who.id), peer);
  peer->has = im->inbox->log.first;
  peer->state = MESSAGING__LISTED;
  im->live++;
  im->held = im->inbox->log.first;
  if (peer->who.id > 0) peer->watch = im->port.watch(im->port.self, peer->who.id);
  if (peer->watch == MESSAGING__DEAD) messaging__im_dead(im, peer);
  else messaging__im_unpark(im, peer, now);
}

/* Makes room for so many peers, so that entering them cannot fail. */
static inline bool messaging__im_prepare(messaging__im *im, size_t count) {
  return messaging__ring_grow(&im->peers, count) && messaging__ring_grow(&im->busy, count) && messaging__ring_grow(&im->blocked, count) &&
         messaging__ring_grow(&im->owed, count) && messaging__map_reserve(&im->by_id, count);
}

/* Makes the newcomers of a new list, and marks the peers that are not on it. */
static inline bool messaging__im_plan(messaging__im *im, const messaging_child *children, size_t count, messaging__ring *newcomers,
                                      messaging__map *heirs, size_t *survivors) {
  if (count && !messaging__map_reserve(heirs, count)) return false;
  for (size_t i = 0; i < im->peers.count; i++) messaging__im_peer(im, i)->dropped = true;
  for (size_t i = 0; i < count; i++) {
    messaging__peer *peer = (messaging__peer *)messaging__map_get(&im->by_id, messaging__id_key(children[i].pid));
    if (peer && peer->state != MESSAGING__GONE && peer->who.kind == children[i].kind) {
      peer->dropped = false;
      ++*survivors;
      continue;
    }
    peer = messaging__peer_new(children[i]);
    if (!peer || !messaging__ring_push(newcomers, &peer)) {
      MESSAGING_FREE(peer);
      return false;
    }
    messaging__map_put(heirs, messaging__id_key(children[i].pid), peer);
  }
  return true;
}

/* Begins a new generation, once the old peers are struck. */
static inline void messaging__im_renew(messaging__im *im) {
  messaging__outbox_clear(im->outbox);
  im->era.generation++;
  im->term_count = 0;
  im->held = im->marked = im->marking = 1;
  im->marked_at = MESSAGING__NEVER;
  im->flushed_next = im->asked_next = 0;
  im->unasked_bytes = 0;
  im->hasty = false;
  memset(&im->run, 0, sizeof im->run);
}

/* A new list. It cannot fail half-way: what needs memory comes first. */
static inline messaging_status messaging__im_update(messaging__im *im, const messaging_child *children, size_t count, uint64_t now) {
  messaging__ring newcomers, kept;
  messaging__map heirs = {NULL, 0, 0}; /* the newcomers by id */
  size_t survivors = 0;
  messaging__ring_init(&newcomers, sizeof(messaging__peer *));
  messaging__ring_init(&kept, sizeof(messaging__peer *));
  im->now_ms = now;
  messaging__im_send_own(im, now);
  messaging__im_reap(im);
  bool done = messaging__im_plan(im, children, count, &newcomers, &heirs, &survivors) && messaging__im_prepare(im, count) &&
              messaging__ring_grow(&kept, count);
  if (done && survivors == 0) {
    pthread_mutex_lock(&im->inbox->lock);
    done = messaging__inbox_renew(im->inbox, im->purged);
    pthread_mutex_unlock(&im->inbox->lock);
  }
  if (done) {
    for (size_t i = 0; i < im->peers.count; i++) {
      messaging__peer *peer = messaging__im_peer(im, i);
      if (peer->dropped) messaging__im_strike(im, peer, (messaging__peer *)messaging__map_get(&heirs, messaging__id_key(peer->who.id)));
      else messaging__ring_push(&kept, &peer);
    }
    messaging__ring_free(&im->peers);
    im->peers = kept;
    if (survivors == 0) messaging__im_renew(im);
    im->purged = false;
    im->heartbeat_due = true;
  }
  for (size_t i = 0; i < newcomers.count; i++) {
    messaging__peer *peer = *(messaging__peer **)messaging__ring_at(&newcomers, i);
    if (done) messaging__im_enter(im, peer, now);
    else MESSAGING_FREE(peer);
  }
  if (!done) messaging__ring_free(&kept);
  messaging__ring_free(&newcomers);
  messaging__map_free(&heirs);
  return done ? MESSAGING_OK : MESSAGING_ENOMEM;
}

/* One more worker for this generation. */
static inline messaging_status messaging__im_add(messaging__im *im, messaging_child child, uint64_t now) {
  messaging__peer *old = (messaging__peer *)messaging__map_get(&im->by_id, messaging__id_key(child.pid));
  if (old && old->watch >= 0 && im->port.died(im->port.self, old->watch)) messaging__im_dead(im, old);
  if (old && old->state != MESSAGING__GONE) return MESSAGING_EINVAL;
  messaging__peer *peer = messaging__peer_new(child);
  if (!peer || !messaging__im_prepare(im, im->peers.count + 1)) {
    MESSAGING_FREE(peer);
    return MESSAGING_ENOMEM;
  }
  for (size_t left = old ? im->peers.count : 0; left; left--) {
    messaging__peer *other = messaging__im_peer(im, 0);
    messaging__ring_pop(&im->peers);
    if (other == old) messaging__im_strike(im, old, peer);
    else messaging__ring_push(&im->peers, &other);
  }
  messaging__im_enter(im, peer, now);
  im->heartbeat_due = true;
  return MESSAGING_OK;
}

/* How many of these are not on the list, or not as they are. */
static inline size_t messaging__im_newcomers(const messaging__im *im, const messaging_child *children, size_t count) {
  size_t newcomers = 0;
  for (size_t i = 0; i < count; i++) {
    const messaging__peer *peer = (const messaging__peer *)messaging__map_get(&im->by_id, messaging__id_key(children[i].pid));
    newcomers += !peer || peer->state == MESSAGING__GONE || peer->who.kind != children[i].kind;
  }
  return newcomers;
}

/* The first generation is an update from an empty list. */
static inline messaging_status messaging__im_run(messaging__im *im, const messaging_child *children, size_t count, uint64_t now) {
  messaging_status status = messaging__im_update(im, children, count, now);
  if (status != MESSAGING_OK) return status;
  im->running = true;
  im->heartbeat_at = now;
  messaging__outbox_hold(im->outbox, MESSAGING__FLOWS);
  return MESSAGING_OK;
}

/* Empties the mailbox: what the application has not received, what it has not sent. */
static inline void messaging__im_purge(messaging__im *im) {
  messaging__inbox *inbox = im->inbox;
  pthread_mutex_lock(&inbox->lock);
  messaging__inbox_clear(inbox);
  inbox->cursor = messaging__log_end(&inbox->log);
  inbox->cursor_number = inbox->log.next;
  inbox->cursor_batches = 0;
  inbox->term_due = false;
  inbox->purged = true;
  messaging__inbox_settle(inbox);
  pthread_mutex_unlock(&inbox->lock);
  messaging__outbox_clear(im->outbox);
  im->purged = true;
}

static inline void messaging__im_free(messaging__im *im) {
  for (size_t i = 0; i < im->peers.count; i++) {
    messaging__peer *peer = messaging__im_peer(im, i);
    if (peer->watch >= 0) im->port.unwatch(im->port.self, peer->watch);
    MESSAGING_FREE(peer);
  }
  messaging__ring_free(&im->peers);
  messaging__ring_free(&im->busy);
  messaging__ring_free(&im->blocked);
  messaging__ring_free(&im->owed);
  messaging__ring_free(&im->parked);
  messaging__map_free(&im->by_id);
  messaging__map_free(&im->by_nonce);
}

/* Asks one listed worker to terminate. */
static inline messaging_status messaging__im_term_to(messaging__im *im, pid_t id, uint64_t now) {
  messaging__peer *peer = (messaging__peer *)messaging__map_get(&im->by_id, messaging__id_key(id));
  if (!peer || peer->state == MESSAGING__GONE) return MESSAGING_EKIND;
  peer->term_asked = peer->status_due = true;
  messaging__im_busy(im, peer);
  im->scan_at = messaging__earlier(im->scan_at, now + MESSAGING__TAIL_MS);
  return MESSAGING_OK;
}

/* ==== Shell ===========================================================================================================
 *
 * A handle: one end's sockets, descriptors, locks and background thread around one protocol state machine. Locks are taken in the
 * order gate, core, then outbox or inbox or reports. core guards the protocol and the sockets; whoever holds it may take a step.
 * gate makes core fair: who wants core waits in front of it, so that a thread that steps again and again lets others in.
 */

typedef struct {
  messaging_error error;
  char detail[120];
} messaging__reported;

typedef struct {
  volatile uint32_t *page; /* one word that a forked child finds zero */
  pid_t owner;             /* where the kernel cannot do that */
  bool is_im;
  uint32_t started;        /* run was called */
  messaging_options options;

  void *context, *in, *out; /* in: PULL or SUB; out: XPUB or PUSH */
  FILE *trace_file;         /* named by MESSAGING_TRACE */
  bool tracing;
  void *gate_keeper;        /* tcp with keys: where libzmq asks who may come */
  void *porters[2];         /* where it tells of connections: with keys, of those who did not get so far; ipc: of those that are made, on out */
  uint8_t allowed[32];      /* the public key that may */
  int in_fd, out_fd, epoll_fd, wake_fd, timer_fd;
  int wait_fd; /* what a thread in wait sleeps on, in place of epoll_fd */
  int peer_fd; /* pidfd of a worker's supervisor */
  char folder[MESSAGING_ADDRESS_SIZE];
  messaging_addresses peer; /* a worker's supervisor */
  unsigned slot;            /* a worker's: whose batches its subscriptions leave out */
  bool in_parts;            /* in the middle of a frame of several parts, which nobody sends */
  bool out_woken;
  bool out_watched; /* a worker's: see watch_out */

  pthread_mutex_t gate, core;
  pthread_cond_t progress;  /* with core: after every step while somebody waits */
  uint32_t waiting;         /* threads in await */
  bool asking;              /* one of them takes a look, which alone is no progress for the others */
  uint32_t work;            /* somebody found core taken; whoever lets go of it takes another step */
  uint32_t driven;          /* a thread in wait reads the socket in place of the background thread */
  bool stop;
  uint64_t armed_ms;        /* the timer fires then */
  uint64_t sent_us;         /* when an application thread last brought a message on its way; 0: it has received since */

  pthread_t thread;
  bool threaded;
  messaging__outbox outbox;
  messaging__inbox inbox;
  union {
    messaging__im im;
    messaging__worker worker;
  };

  pthread_mutex_t reports_lock;
  messaging__ring reports; /* of messaging__reported */
  uint32_t reports_count;
  uint64_t reports_dropped, wakeups;
  uint64_t flood_second, flood; /* reports in that second that a peer can cause at will */
  messaging_error_fn *on_error;
  void *user;
  messaging__arena *spare; /* an arena to be used again */
} messaging__handle;

static inline messaging_stats *messaging__stats_of(messaging__handle *handle) {
  return handle->is_im ? &handle->im.stats : &handle->worker.stats;
}

static inline bool messaging__inherited(const messaging__handle *handle) {
  return handle->page ? *handle->page == 0 : handle->owner != getpid();
}

static inline bool messaging__on_background(const messaging__handle *handle) {
  return handle->threaded && pthread_equal(pthread_self(), handle->thread);
}

static inline void messaging__ring_bell(int fd, uint64_t count) {
  while (write(fd, &count, sizeof count) < 0 && errno == EINTR) {}
}

/* The sum of what the bell was rung with since it was last read. */
static inline uint64_t messaging__drain(int fd) {
  uint64_t count = 0;
  while (read(fd, &count, sizeof count) < 0 && errno == EINTR) {}
  return count;
}

static inline void messaging__wake(messaging__handle *handle) { messaging__ring_bell(handle->wake_fd, 1); }

/* ---- Shell: what the protocol asks of it ---- */

/* Whether this second still has room for a report that a peer can cause at will. */
static inline bool messaging__calm(messaging__handle *handle) {
  uint64_t second = messaging__now_ms() / 1000;
  if (handle->flood_second != second) handle->flood = 0;
  handle->flood_second = second;
  return ++handle->flood <= MESSAGING__REPORTS_FLOOD;
}

static inline void messaging__shell_report(void *self, const messaging_error *error) {
  messaging__handle *handle = (messaging__handle *)self;
  messaging__reported entry;
  if (!handle->on_error && MESSAGING__LOAD(&handle->started)) return; /* before, a handler may still come */
  memset(&entry, 0, sizeof entry);
  entry.error = *error;
  snprintf(entry.detail, sizeof entry.detail, "%s", error->detail ? error->detail : "");
  bool flood = error->status == MESSAGING_EBADMSG || error->status == MESSAGING_EAUTH || error->status == MESSAGING_EVERSION;
  pthread_mutex_lock(&handle->reports_lock);
  size_t limit = flood ? MESSAGING__REPORTS_FLOOD : MESSAGING__REPORTS_MAX;
  bool kept = (!flood || messaging__calm(handle)) && handle->reports.count < limit && messaging__ring_push(&handle->reports, &entry);
  if (!kept) handle->reports_dropped++;
  bool first = kept && handle->reports.count == 1;
  MESSAGING__STORE(&handle->reports_count, (uint32_t)handle->reports.count);
  pthread_mutex_unlock(&handle->reports_lock);
  if (first && !messaging__on_background(handle)) messaging__wake(handle);
}

/* ---- Shell: tracing ---- */

/* What a frame says, behind its envelope: a batch's header, or the body as msgpack shows it. */
static inline int messaging__describe(char *line, size_t size, uint8_t type, messaging__slice frame, const messaging__reader *body) {
  messaging__batch batch;
  bool holds_batch = type == MESSAGING__RELAY || type == MESSAGING__OUTPUT;
  if (holds_batch && messaging__batch_read(frame.data, frame.size, &batch))
    return snprintf(line, size, "id %lld kind %lu nonce %llu number %llu position %llu count %lu", (long long)batch.id, (unsigned long)batch.kind,
                    (unsigned long long)batch.nonce, (unsigned long long)batch.number, (unsigned long long)batch.position, (unsigned long)batch.count);
  if (type == MESSAGING__REPAIR) {
    messaging__reader repair = *body;
    size_t payload;
    bool three = messaging__read_array(&repair) == 3;
    bool last = messaging__read_uint(&repair, 1) == 1;
    uint64_t count = messaging__read_uint(&repair, UINT32_MAX);
    const uint8_t *frames = messaging__read_bytes(&repair, &payload);
    if (!three || repair.bad || !messaging__batch_read(frames, payload, &batch)) return snprintf(line, size, "last %d, empty", last);
    return snprintf(line, size, "last %d batches %llu from position %llu", last, (unsigned long long)count, (unsigned long long)batch.position);
  }
  if (frame.size > MESSAGING__CONTROL_SIZE || !messaging__holds(body->at, (size_t)(body->end - body->at), 1)) return 0;
  msgpack_unpacked unpacked;
  msgpack_unpacked_init(&unpacked);
  int written = 0;
  if (msgpack_unpack_next(&unpacked, (const char *)body->at, (size_t)(body->end - body->at), NULL) == MSGPACK_UNPACK_SUCCESS)
    written = msgpack_object_print_buffer(line, size, unpacked.data);
  msgpack_unpacked_destroy(&unpacked);
  return written;
}

/* Gives a frame as one line to whoever asked for it: seconds, direction, type, bytes, what it says. */
static inline void messaging__trace(messaging__handle *handle, const char *direction, messaging__slice frame) {
  static const char *const names[] = {"?", "HELLO", "RELAY", "OUTPUT", "REPORT", "HEARTBEAT", "WELCOME", "STATUS", "REPAIR", "REFUSE"};
  char line[400];
  uint64_t now = messaging__now_us();
  messaging__envelope envelope;
  messaging__reader reader = {frame.data, frame.data + frame.size, false};
  bool fine = messaging__envelope_read(&reader, &envelope) && envelope.type < sizeof names / sizeof names[0];
  int head = snprintf(line, sizeof line, "%llu.%06llu %s %ld %s %s generation %lu bytes %zu ", (unsigned long long)(now / 1000000u),
                      (unsigned long long)(now % 1000000u), handle->is_im ? "supervisor" : "worker",
                      (long)(handle->is_im ? handle->im.self.id : handle->worker.self.id), direction, fine ? names[envelope.type] : "malformed",
                      (unsigned long)(fine ? envelope.generation : 0), frame.size);
  if (fine && head > 0 && (size_t)head < sizeof line) messaging__describe(line + head, sizeof line - (size_t)head, envelope.type, frame, &reader);
  line[sizeof line - 1] = 0;
  for (char *at = line; *at; at++)
    if (*at < ' ' || *at > '~') *at = '?'; /* a peer's strings end neither lines nor colours */
  if (handle->options.trace) handle->options.trace(line, handle->options.trace_user);
  if (handle->trace_file) {
    fprintf(handle->trace_file, "%s\n", line);
    fflush(handle->trace_file);
  }
}

/* ---- Shell: sending ---- */

/* libzmq is done with bytes that were sent by reference. On its thread. */
static inline void messaging__sent(void *data, void *hint) {
  (void)data;
  messaging__buffer_drop((messaging__buffer *)hint);
}

enum { MESSAGING__REFERENCE_BYTES = 4096 }; /* below, copying is as cheap as sending by reference */

static inline bool messaging__shell_send(void *self, messaging__slice frame) {
  messaging__handle *handle = (messaging__handle *)self;
  zmq_msg_t message;
  if (frame.owner && frame.size >= MESSAGING__REFERENCE_BYTES) {
    messaging__buffer_keep(frame.owner);
    if (zmq_msg_init_data(&message, frame.data, frame.size, messaging__sent, frame.owner) != 0) {
      messaging__buffer_drop(frame.owner);
      return false;
    }
  } else {
    if (zmq_msg_init_size(&message, frame.size) != 0) return false;
    memcpy(zmq_msg_data(&message), frame.data, frame.size);
  }
  int sent;
  do sent = zmq_msg_send(&message, handle->out, ZMQ_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) {
    zmq_msg_close(&message);
    return false;
  }
  messaging__stats_of(handle)->frames_sent++;
  messaging__stats_of(handle)->bytes_sent += frame.size;
  MESSAGING__PROBE(frame_sent, handle, frame.size);
  if (handle->tracing) messaging__trace(handle, "sends", frame);
  return true;
}

/* libzmq's events of a connection that is made, and of those that were turned away before the gate keeper hears of them: silent or gone; no key, another's. */
enum { MESSAGING__CONNECTED = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_CONNECTED,
       MESSAGING__TURNED_AWAY = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL };

/* What an epoll event is about, in its upper half; the lower holds a child's id. */
enum { MESSAGING__EVENT_IN = 1, MESSAGING__EVENT_OUT = 2, MESSAGING__EVENT_WAKE = 3, MESSAGING__EVENT_TIMER = 4, MESSAGING__EVENT_PEER = 5,
       MESSAGING__EVENT_CHILD = 6, MESSAGING__EVENT_GATE = 7, MESSAGING__EVENT_PORTER = 8 };

static inline bool messaging__epoll_in(int set, int operation, int fd, uint32_t events, uint64_t what, uint32_t id) {
  struct epoll_event event;
  memset(&event, 0, sizeof event);
  event.events = events;
  event.data.u64 = what << 32 | id;
  return epoll_ctl(set, operation, fd, &event) == 0;
}

static inline bool messaging__epoll(messaging__handle *handle, int operation, int fd, uint32_t events, uint64_t what, uint32_t id) {
  return messaging__epoll_in(handle->epoll_fd, operation, fd, events, what, id);
}

/* Has a socket wake the thread that is in wait, if there is one, else the background thread: of those who share a descriptor with EPOLLEXCLUSIVE
 * the kernel wakes the first that sleeps, in the order in which they were added. */
static inline bool messaging__share(messaging__handle *handle, int fd, uint64_t what) {
  uint32_t events = EPOLLIN | EPOLLEXCLUSIVE;
  return messaging__epoll_in(handle->wait_fd, EPOLL_CTL_ADD, fd, events, what, 0) && messaging__epoll(handle, EPOLL_CTL_ADD, fd, events, what, 0);
}

/* A supervisor hears of subscriptions by its output socket. A worker waits for its own only while that takes nothing (watch_out): a descriptor also
 * tells that libzmq has sent 500 frames, which nobody has to wake for. */
static inline bool messaging__share_sockets(messaging__handle *handle) {
  return messaging__share(handle, handle->in_fd, MESSAGING__EVENT_IN) &&
         messaging__epoll_in(handle->wait_fd, EPOLL_CTL_ADD, handle->inbox.event_fd, EPOLLIN, MESSAGING__EVENT_WAKE, 0) &&
         (handle->is_im ? messaging__share(handle, handle->out_fd, MESSAGING__EVENT_OUT)
                        : messaging__epoll(handle, EPOLL_CTL_ADD, handle->out_fd, 0, MESSAGING__EVENT_OUT, 0));
}

static inline void messaging__watch_out(messaging__handle *handle, bool watched) {
  if (handle->out_watched == watched) return;
  uint32_t events = watched ? EPOLLIN : 0u;
  if (messaging__epoll(handle, EPOLL_CTL_MOD, handle->out_fd, events, MESSAGING__EVENT_OUT, 0)) handle->out_watched = watched;
}

static inline bool messaging__readable_now(int fd) {
  struct pollfd entry = {fd, POLLIN, 0};
  int ready;
  do ready = poll(&entry, 1, 0);
  while (ready < 0 && errno == EINTR);
  return ready > 0;
}

static inline int messaging__shell_watch(void *self, pid_t id) {
  messaging__handle *handle = (messaging__handle *)self;
  int fd = pidfd_open(id, 0);
  if (fd < 0) return errno == ESRCH ? MESSAGING__DEAD : MESSAGING__UNWATCHED;
  if (!messaging__readable_now(fd) && messaging__epoll(handle, EPOLL_CTL_ADD, fd, EPOLLIN, MESSAGING__EVENT_CHILD, (uint32_t)id)) return fd;
  bool dead = messaging__readable_now(fd);
  close(fd);
  return dead ? MESSAGING__DEAD : MESSAGING__UNWATCHED;
}

static inline void messaging__shell_unwatch(void *self, int watch) {
  messaging__epoll((messaging__handle *)self, EPOLL_CTL_DEL, watch, 0, 0, 0);
  close(watch);
}

static inline bool messaging__shell_died(void *self, int watch) {
  (void)self;
  return messaging__readable_now(watch);
}

/* ---- Shell: a step ---- */

/* A frame that stays as libzmq received it. */
typedef struct {
  messaging__buffer buffer;
  zmq_msg_t message;
} messaging__wrapped;

static inline void messaging__unwrap(messaging__buffer *buffer) {
  messaging__wrapped *wrapped = (messaging__wrapped *)(void *)buffer;
  zmq_msg_close(&wrapped->message);
  MESSAGING_FREE(wrapped);
}

/* Moves a large message into a buffer that can be kept. NULL: too small for that, or no memory; then it is lent and copied. */
static inline messaging__buffer *messaging__wrap(zmq_msg_t *message) {
  if (zmq_msg_size(message) < MESSAGING__WRAP_BYTES) return NULL;
  messaging__wrapped *wrapped = (messaging__wrapped *)MESSAGING_MALLOC(sizeof *wrapped);
  if (!wrapped) return NULL;
  zmq_msg_init(&wrapped->message);
  zmq_msg_move(&wrapped->message, message);
  size_t size = zmq_msg_size(&wrapped->message);
  messaging__buffer_init(&wrapped->buffer, (uint8_t *)zmq_msg_data(&wrapped->message), size, size);
  wrapped->buffer.release = messaging__unwrap;
  return &wrapped->buffer;
}

/* A worker's subscriptions, or their end, to all batches but those of its slot: to each topic that begins like its own and then differs. */
static inline bool messaging__subscribe(messaging__handle *handle, int option, unsigned slot) {
  uint8_t prefix[MESSAGING__AT_LETTERS + MESSAGING__LETTERS] = {0x96, 0xa1 + MESSAGING__LETTERS, 'B'};
  if (slot == 0) return zmq_setsockopt(handle->in, option, prefix, MESSAGING__AT_LETTERS) == 0;
  messaging__put_letters(prefix + MESSAGING__AT_LETTERS, slot);
  for (size_t at = MESSAGING__AT_LETTERS; at < sizeof prefix; at++) {
    prefix[at] ^= '0' ^ '1';
    if (zmq_setsockopt(handle->in, option, prefix, at + 1) != 0) return false;
    prefix[at] ^= '0' ^ '1';
  }
  return true;
}

/* Subscribes as its slot says, before the former subscriptions end, so that nothing is missed meanwhile. */
static inline void messaging__tune(messaging__handle *handle) {
  if (!messaging__subscribe(handle, ZMQ_SUBSCRIBE, handle->worker.slot)) return;
  messaging__subscribe(handle, ZMQ_UNSUBSCRIBE, handle->slot);
  handle->slot = handle->worker.slot;
  handle->worker.tune = false;
}

static inline void messaging__take_frame(messaging__handle *handle, zmq_msg_t *message, uint64_t now) {
  messaging__buffer *owner = messaging__wrap(message);
  messaging__slice frame = {owner, (uint8_t *)zmq_msg_data(message), zmq_msg_size(message)};
  if (owner) frame = messaging__slice_of(owner);
  MESSAGING__PROBE(frame_received, handle, frame.size);
  if (handle->tracing) messaging__trace(handle, "receives", frame);
  if (handle->is_im) messaging__im_receive(&handle->im, frame, now);
  else messaging__worker_receive(&handle->worker, frame, now);
  if (!handle->is_im && handle->worker.tune) messaging__tune(handle);
  messaging__buffer_drop(owner);
}

/* Nobody sends frames of several parts; such a one is skipped whole. */
static inline bool messaging__one_part(messaging__handle *handle, zmq_msg_t *message) {
  bool more = zmq_msg_more(message) != 0, part = more || handle->in_parts;
  if (part && !handle->in_parts) {
    messaging__stats_of(handle)->malformed++;
    messaging_error error = {MESSAGING_EBADMSG, 0, 0, 0, 0, "a frame of several parts was skipped"};
    messaging__shell_report(handle, &error);
  }
  handle->in_parts = more;
  return !part;
}

static inline void messaging__end(messaging__handle *handle, messaging_status cause, const char *detail) {
  if (!handle->is_im) {
    messaging__worker_end(&handle->worker, cause, detail);
    return;
  }
  messaging_error error = {cause, 0, 0, 0, 0, detail};
  messaging__outbox_close(&handle->outbox);
  messaging__inbox_end(&handle->inbox, cause);
  messaging__shell_report(handle, &error);
}

/* Takes what has arrived, up to a bound. True: there may be more. */
static inline bool messaging__take_frames(messaging__handle *handle, uint64_t now) {
  for (int taken = 0; taken < MESSAGING__STEP_FRAMES;) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    if (zmq_msg_recv(&message, handle->in, ZMQ_DONTWAIT) < 0) {
      int fault = errno;
      zmq_msg_close(&message);
      if (fault == EINTR) continue;
      if (fault != EAGAIN && !MESSAGING__LOAD(&handle->inbox.ended)) messaging__end(handle, MESSAGING_ESYS, zmq_strerror(fault));
      return false;
    }
    if (messaging__one_part(handle, &message)) messaging__take_frame(handle, &message, now);
    zmq_msg_close(&message);
    taken++;
  }
  return true;
}

/* What a socket is ready for. Asking takes the edge of its descriptor, also when a signal interrupts. */
static inline int messaging__events_of(void *socket) {
  int events = 0;
  size_t size = sizeof events;
  while (zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) != 0)
    if (errno != EINTR) return 0;
  return events;
}

/* Sending swallows the edge by which a socket's descriptor tells of other events. A supervisor looks for them afterwards while it awaits
 * somebody, whose subscription may be among them. */
static inline void messaging__look_at_out(messaging__handle *handle) {
  if (!handle->is_im) {
    if (handle->out_woken) (void)messaging__events_of(handle->out);
    handle->out_woken = false;
    return;
  }
  zmq_msg_t message;
  zmq_msg_init(&message);
  while (zmq_msg_recv(&message, handle->out, ZMQ_DONTWAIT) >= 0 || errno == EINTR)
    messaging__im_subscribed(&handle->im, (const uint8_t *)zmq_msg_data(&message), zmq_msg_size(&message));
  zmq_msg_close(&message);
  handle->out_woken = false;
}

/* A timer that is early is left alone, since another deadline may come before it, unless its own thread is awake anyway and sees much more time. */
static inline void messaging__arm(messaging__handle *handle, uint64_t deadline_ms) {
  bool much_later = deadline_ms > handle->armed_ms && deadline_ms - handle->armed_ms > MESSAGING__ACK_MS;
  if (deadline_ms >= handle->armed_ms && !(much_later && messaging__on_background(handle))) return;
  struct itimerspec when;
  memset(&when, 0, sizeof when);
  when.it_value.tv_sec = (time_t)(deadline_ms / 1000u);
  when.it_value.tv_nsec = (long)(deadline_ms % 1000u) * 1000000L + 1;
  if (timerfd_settime(handle->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) == 0) handle->armed_ms = deadline_ms;
}

/* Keeps the public descriptor true to readable, while somebody watches it other than the caller. Whoever changes readable, or begins to watch, holds the
 * lock for that and comes here afterwards, the last of them with all of it seen; so whether there is something to do can be told without the lock. */
static inline void messaging__notify(messaging__handle *handle, uint32_t own) {
  messaging__inbox *inbox = &handle->inbox;
  bool signaled = MESSAGING__LOAD(&inbox->signaled);
  if (MESSAGING__LOAD(&inbox->readable) ? signaled || MESSAGING__LOAD(&inbox->watchers) <= own : !signaled) return;
  pthread_mutex_lock(&inbox->lock);
  if (inbox->readable && !inbox->signaled && MESSAGING__LOAD(&inbox->watchers) > own) {
    messaging__ring_bell(inbox->event_fd, 1);
    MESSAGING__STORE(&inbox->signaled, true);
  } else if (!inbox->readable && inbox->signaled) {
    messaging__drain(inbox->event_fd);
    MESSAGING__STORE(&inbox->signaled, false);
  }
  pthread_mutex_unlock(&inbox->lock);
}

/* While a thread is started, libzmq's too, so that it takes none of the application's signals; and while libzmq binds and connects, which an
 * interruption makes fail. */
static inline void messaging__block_signals(sigset_t *before) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, before);
}

/* New connections in place of those that bring nothing. What was on the old ones is asked for and sent again. */
static inline void messaging__renew(messaging__handle *handle) {
  sigset_t before;
  messaging__block_signals(&before);
  zmq_disconnect(handle->in, handle->peer.pub);
  zmq_disconnect(handle->out, handle->peer.pull);
  bool connected = zmq_connect(handle->in, handle->peer.pub) == 0;
  handle->worker.renew = zmq_connect(handle->out, handle->peer.pull) != 0 || !connected;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Sends what can go, and sees to timer and waiting threads. Under core. */
static inline void messaging__pump(messaging__handle *handle, uint64_t now, uint32_t own) {
  uint64_t deadline;
  if (handle->is_im) {
    messaging__im_pump(&handle->im, now);
    /* The background thread looks each time: what was sent may have swallowed the edge of a subscription. Others look when somebody is to join. */
    if (handle->out_woken || handle->im.joined < handle->im.live || messaging__on_background(handle)) messaging__look_at_out(handle);
    deadline = messaging__im_deadline(&handle->im, now);
    /* History goes on in a new block. */
    if (messaging__stock_ask(&handle->inbox.log.stock) && !messaging__on_background(handle)) messaging__wake(handle);
  } else {
    messaging__look_at_out(handle);
    messaging__worker_pump(&handle->worker, now);
    if (handle->worker.renew) messaging__renew(handle);
    messaging__watch_out(handle, handle->worker.stalled);
    deadline = messaging__worker_deadline(&handle->worker, now);
  }
  messaging__arm(handle, deadline);
  messaging__notify(handle, own);
  if (MESSAGING__LOAD(&handle->waiting) && !handle->asking) pthread_cond_broadcast(&handle->progress);
}

/* One bounded step. True: there may be more to do at once. */
static inline bool messaging__step(messaging__handle *handle, uint32_t own) {
  uint64_t now = messaging__now_ms();
  bool more = messaging__take_frames(handle, now);
  messaging__pump(handle, now, own);
  return more;
}

static inline void messaging__lock(messaging__handle *handle) {
  pthread_mutex_lock(&handle->gate);
  pthread_mutex_lock(&handle->core);
  pthread_mutex_unlock(&handle->gate);
}

/* Has somebody look at the outbox and at room in the inbox now: this thread, or the one that holds core once it lets go. Whoever lets go of it to wait for
 * progress does not look, so the background thread has to. */
static inline void messaging__kick(messaging__handle *handle) {
  MESSAGING__SWAP(&handle->work, 1u);
  while (MESSAGING__LOAD(&handle->work) && pthread_mutex_trylock(&handle->core) == 0) {
    MESSAGING__SWAP(&handle->work, 0u);
    messaging__pump(handle, messaging__now_ms(), 0);
    pthread_mutex_unlock(&handle->core);
  }
  if (MESSAGING__LOAD(&handle->waiting) && __atomic_fetch_add(&handle->work, 0u, __ATOMIC_SEQ_CST)) messaging__wake(handle);
}

static inline void messaging__unlock(messaging__handle *handle) {
  pthread_mutex_unlock(&handle->core);
  if (__atomic_fetch_add(&handle->work, 0u, __ATOMIC_SEQ_CST)) messaging__kick(handle);
}

/* Reads one question: version, request, domain, address, identity, mechanism, key. True: that key may come. */
static inline bool messaging__read_question(messaging__handle *handle, char *request, size_t *request_size) {
  bool allowed = false;
  *request_size = 0;
  for (int part = 0;; part++) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    if (zmq_msg_recv(&message, handle->gate_keeper, ZMQ_DONTWAIT) < 0) {
      zmq_msg_close(&message);
      return false;
    }
    size_t size = zmq_msg_size(&message);
    if (part == 1 && size <= 255) memcpy(request, zmq_msg_data(&message), *request_size = size);
    if (part == 6) allowed = size == sizeof handle->allowed && memcmp(zmq_msg_data(&message), handle->allowed, size) == 0;
    bool more = zmq_msg_more(&message) != 0;
    zmq_msg_close(&message);
    if (!more) return allowed;
  }
}

static inline void messaging__refused(messaging__handle *handle, const char *detail) {
  messaging_error error = {MESSAGING_EAUTH, 0, 0, 0, 0, detail};
  handle->im.stats.refused++;
  messaging__shell_report(handle, &error);
}

/* Answers every question that waits. */
static inline void messaging__keep_gate(messaging__handle *handle) {
  while (messaging__events_of(handle->gate_keeper) & ZMQ_POLLIN) {
    char request[255];
    size_t request_size;
    bool allowed = messaging__read_question(handle, request, &request_size);
    zmq_send(handle->gate_keeper, "1.0", 3, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(handle->gate_keeper, request, request_size, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(handle->gate_keeper, allowed ? "200" : "400", 3, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(handle->gate_keeper, "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(handle->gate_keeper, "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(handle->gate_keeper, "", 0, ZMQ_DONTWAIT);
    if (!allowed) messaging__refused(handle, "a connection without the right key was refused");
  }
}

/* The path that a unix socket is bound to, or its peer; empty: none, or no such socket. */
static inline void messaging__path_of(int fd, bool peer, struct sockaddr_un *name) {
  socklen_t size = sizeof *name;
  struct sockaddr *any = (struct sockaddr *)name;
  memset(name, 0, sizeof *name);
  if ((peer ? getpeername(fd, any, &size) : getsockname(fd, any, &size)) != 0 || name->sun_family != AF_UNIX) name->sun_path[0] = 0;
  name->sun_path[sizeof name->sun_path - 1] = 0;
}

/* Whoever listens at the other end of a worker's connection may have another pid here than its folder's name says, namely in another pid namespace. Then
 * the process that is watched is somebody else. */
static inline void messaging__check_watched(messaging__handle *handle, int fd) {
  messaging__credentials listener = {0, 0, 0};
  socklen_t size = sizeof listener;
  if (!handle->worker.watched || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &listener, &size) != 0) return;
  if (listener.pid == handle->worker.supervisor.id) return;
  messaging__epoll(handle, EPOLL_CTL_DEL, handle->peer_fd, 0, 0, 0);
  handle->worker.watched = false;
}

/* Gives a connection on which this end sends a larger buffer than the kernel's default. libzmq does that for tcp alone (ZMQ_SNDBUF), where the kernel
 * finds the size by itself. The descriptor is libzmq's, which may have closed it by now; should somebody else have its number then, the path tells. */
static inline void messaging__widen(messaging__handle *handle, int fd) {
  char path[MESSAGING_ADDRESS_SIZE + 8];
  struct sockaddr_un name;
  int has, wanted = MESSAGING__SOCKET_BYTES;
  socklen_t size = sizeof has;
  if (handle->is_im && handle->im.live > MESSAGING__WIDE_WORKERS) return;
  if (handle->is_im) snprintf(path, sizeof path, "%s/pub", handle->folder);
  else snprintf(path, sizeof path, "%s", handle->peer.pull + strlen("ipc://"));
  messaging__path_of(fd, !handle->is_im, &name);
  if (strcmp(name.sun_path, path) != 0) return;
  if (!handle->is_im) messaging__check_watched(handle, fd);
  if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &has, &size) != 0) return;
  if (has < wanted) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &wanted, sizeof wanted);
}

/* Hears what libzmq tells of connections: in two parts, the first of which is the event's number (16 bits) and value (32; zmq_socket_monitor(3)). Those that
 * failed did not even ask: without a key, with another supervisor's, or silent. */
static inline void messaging__hear_porter(messaging__handle *handle, void *porter) {
  while (messaging__events_of(porter) & ZMQ_POLLIN) {
    zmq_msg_t message;
    uint16_t event;
    int32_t value;
    zmq_msg_init(&message);
    if (zmq_msg_recv(&message, porter, ZMQ_DONTWAIT) == sizeof event + sizeof value && zmq_msg_more(&message)) {
      memcpy(&event, zmq_msg_data(&message), sizeof event);
      memcpy(&value, (uint8_t *)zmq_msg_data(&message) + sizeof event, sizeof value);
      if (event & MESSAGING__CONNECTED) messaging__widen(handle, value);
      else messaging__refused(handle, "a connection that showed no key of this supervisor was refused");
    }
    zmq_msg_close(&message);
  }
}

/* ---- Shell: the background thread ---- */

/* Hands errors to the application, with no lock held. */
static inline void messaging__dispatch(messaging__handle *handle) {
  while (MESSAGING__LOAD(&handle->reports_count)) {
    messaging__reported entry;
    pthread_mutex_lock(&handle->reports_lock);
    entry = *(messaging__reported *)messaging__ring_at(&handle->reports, 0);
    messaging__ring_pop(&handle->reports);
    MESSAGING__STORE(&handle->reports_count, (uint32_t)handle->reports.count);
    pthread_mutex_unlock(&handle->reports_lock);
    entry.error.detail = entry.detail;
    if (handle->on_error) handle->on_error(&entry.error, handle->user);
  }
}

/* A worker's supervisor has died. What it had sent is taken first, a goodbye perhaps. */
static inline void messaging__peer_died(messaging__handle *handle) {
  if (!handle->worker.watched) return; /* it was somebody else: check_watched, a moment before */
  messaging__epoll(handle, EPOLL_CTL_DEL, handle->peer_fd, 0, 0, 0);
  uint64_t now = messaging__now_ms();
  for (int rounds = 0; rounds < MESSAGING__LAST_ROUNDS && messaging__take_frames(handle, now); rounds++) {}
  messaging__worker_end(&handle->worker, MESSAGING_ELOST, "the supervisor died");
}

/* A worker has died. What had arrived of it is taken first, a goodbye perhaps. */
static inline void messaging__child_died(messaging__handle *handle, pid_t id) {
  uint64_t now = messaging__now_ms();
  for (int rounds = 0; rounds < MESSAGING__LAST_ROUNDS && messaging__take_frames(handle, now); rounds++) {}
  messaging__peer *peer = (messaging__peer *)messaging__map_get(&handle->im.by_id, messaging__id_key(id));
  if (peer && peer->watch >= 0 && messaging__shell_died(handle, peer->watch)) messaging__im_dead(&handle->im, peer);
}

static inline void messaging__take_event(messaging__handle *handle, uint64_t event) {
  switch (event >> 32) {
    case MESSAGING__EVENT_OUT: handle->out_woken = true; break;
    case MESSAGING__EVENT_WAKE: messaging__drain(handle->wake_fd); break;
    case MESSAGING__EVENT_TIMER:
      messaging__drain(handle->timer_fd);
      handle->armed_ms = MESSAGING__NEVER;
      break;
    case MESSAGING__EVENT_PEER: messaging__peer_died(handle); break;
    case MESSAGING__EVENT_GATE: messaging__keep_gate(handle); break;
    case MESSAGING__EVENT_PORTER: messaging__hear_porter(handle, handle->porters[(uint32_t)event]); break;
    case MESSAGING__EVENT_CHILD: messaging__child_died(handle, (pid_t)(uint32_t)event); break;
    default: break;
  }
}

static inline void *messaging__main(void *argument) {
  messaging__handle *handle = (messaging__handle *)argument;
  struct epoll_event events[16];
  int count = 0;
  for (;;) {
    messaging__lock(handle);
    MESSAGING__SWAP(&handle->work, 0u);
    for (int i = 0; i < count; i++) messaging__take_event(handle, events[i].data.u64);
    bool stop = handle->stop;
    bool more = messaging__step(handle, 0);
    pthread_mutex_unlock(&handle->core);
    messaging__dispatch(handle);
    count = 0;
    if (stop) return NULL;
    if (more || __atomic_fetch_add(&handle->work, 0u, __ATOMIC_SEQ_CST)) continue;
    messaging__stock_make(&handle->outbox.stock, &handle->outbox.lock);
    messaging__stock_make(&handle->inbox.log.stock, &handle->inbox.lock);
    count = epoll_wait(handle->epoll_fd, events, (int)(sizeof events / sizeof events[0]), -1);
    MESSAGING__ADD(&handle->wakeups, (uint64_t)1);
  }
}

/* Starts the thread, which takes none of the application's signals. */
static inline messaging_status messaging__start(messaging__handle *handle) {
  sigset_t before;
  messaging__block_signals(&before);
  /* Held so that the thread does not run before it is known by its id. */
  messaging__lock(handle);
  bool done = pthread_create(&handle->thread, NULL, messaging__main, handle) == 0;
  handle->threaded = done;
  MESSAGING__STORE(&handle->started, done ? 1u : 0u);
  messaging__unlock(handle);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return done ? MESSAGING_OK : MESSAGING_ESYS;
}

/* ---- Shell: making and releasing a handle ---- */

/* What an option is when it is given as 0. */
static inline size_t messaging__or(size_t given, size_t otherwise) { return given ? given : otherwise; }

/* A queue's limit: at least twice the message's. Given too small, it is a mistake if both were given, else it is raised. */
static inline bool messaging__queue_max(size_t *bytes_max, size_t otherwise, size_t message_bytes_max, bool message_given) {
  if (*bytes_max && *bytes_max / 2 < message_bytes_max && message_given) return false;
  *bytes_max = messaging__or(*bytes_max, otherwise);
  if (*bytes_max / 2 < message_bytes_max) *bytes_max = message_bytes_max * 2;
  return true;
}

static inline messaging_status messaging__fill_options(const messaging_options *given, messaging_options *options) {
  memset(options, 0, sizeof *options);
  if (given) *options = *given;
  bool message_given = options->message_bytes_max != 0;
  options->heartbeat_ms = (uint32_t)messaging__or(options->heartbeat_ms, 1000);
  options->silence_ms = (uint32_t)messaging__or(options->silence_ms, 60000);
  options->exit_timeout_ms = (uint32_t)messaging__or(options->exit_timeout_ms, 5000);
  options->message_bytes_max = messaging__or(options->message_bytes_max, (size_t)16 << 20);
  bool fine = options->heartbeat_ms >= 10 && options->heartbeat_ms <= 60000 && options->silence_ms / 3 >= options->heartbeat_ms &&
              options->message_bytes_max <= MESSAGING__MESSAGE_BYTES_MAX && options->id <= 0;
  fine = fine && messaging__queue_max(&options->outbox_bytes_max, (size_t)64 << 20, options->message_bytes_max, message_given);
  fine = fine && messaging__queue_max(&options->inbox_bytes_max, (size_t)64 << 20, options->message_bytes_max, message_given);
  fine = fine && messaging__queue_max(&options->history_bytes_max, (size_t)256 << 20, options->message_bytes_max, message_given);
  return fine ? MESSAGING_OK : MESSAGING_EINVAL;
}

/* Whether so many more descriptors fit; raises the soft limit to the hard one first. libzmq aborts where they do not. */
static inline bool messaging__descriptors_fit(size_t wanted) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return true;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
  }
  size_t used = 0;
  DIR *folder = opendir("/proc/self/fd");
  if (!folder) return errno != EMFILE && errno != ENFILE;
  while (readdir(folder)) used++;
  closedir(folder);
  return limit.rlim_cur == RLIM_INFINITY || used + wanted <= limit.rlim_cur;
}

static inline void messaging__handle_free(messaging__handle *handle);

/* The word that a forked child finds zero. */
static inline void messaging__mark_process(messaging__handle *handle) {
  handle->owner = getpid();
  void *page = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MESSAGING__MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return;
  if (madvise(page, (size_t)sysconf(_SC_PAGESIZE), MESSAGING__MADV_WIPEONFORK) != 0) {
    munmap(page, (size_t)sysconf(_SC_PAGESIZE));
    return;
  }
  handle->page = (volatile uint32_t *)page;
  *handle->page = 1;
}

static inline messaging__handle *messaging__handle_new(const messaging_options *options, bool is_im) {
  messaging__handle *handle = (messaging__handle *)MESSAGING_MALLOC(sizeof *handle);
  if (!handle) return NULL;
  memset(handle, 0, sizeof *handle);
  handle->is_im = is_im;
  handle->options = *options;
  handle->in_fd = handle->out_fd = handle->epoll_fd = handle->wake_fd = handle->timer_fd = handle->wait_fd = handle->peer_fd = -1;
  handle->armed_ms = MESSAGING__NEVER;
  messaging__ring_init(&handle->reports, sizeof(messaging__reported));
  bool outbox = messaging__outbox_init(&handle->outbox, options->outbox_bytes_max, options->message_bytes_max);
  bool inbox = messaging__inbox_init(&handle->inbox, options->inbox_bytes_max);
  bool locks = pthread_mutex_init(&handle->gate, NULL) == 0 && pthread_mutex_init(&handle->core, NULL) == 0 &&
               pthread_mutex_init(&handle->reports_lock, NULL) == 0 && messaging__cond_init(&handle->progress);
  if (outbox && inbox && locks && messaging__ring_reserve(&handle->reports)) {
    messaging__mark_process(handle);
    const char *trace = getenv("MESSAGING_TRACE");
    if (trace && *trace) handle->trace_file = fopen(trace, "ae");
    handle->tracing = options->trace || handle->trace_file;
    return handle;
  }
  /* On Linux the initialisers above fail for want of memory alone, and hold nothing then. */
  if (outbox) messaging__outbox_free(&handle->outbox);
  if (inbox) messaging__inbox_free(&handle->inbox);
  MESSAGING_FREE(handle);
  return NULL;
}

/* libzmq takes each frame from malloc and frees it soon after. By default glibc gives memory back to the kernel as soon as 128 KB at a heap's end are
 * free, and takes it anew for the next frame: 24 page faults for each. Its thresholds adapt (mallopt(3), M_MMAP_THRESHOLD): once an
 * area as large as this has been freed, twice as much stays. Whoever has set them keeps what was set. */
static inline void messaging__keep_heap(void) {
  void *volatile area = malloc(MESSAGING__HEAP_BYTES);
  free(area);
}

/* How many processors this thread may run on; 0: more than we can count. */
static inline int messaging__processors(void) {
  unsigned long set[MESSAGING__CPUS_MAX / (8 * sizeof(unsigned long))] = {0};
  if (syscall(SYS_sched_getaffinity, 0, sizeof set, set) < 0) return 0;
  int count = 0;
  for (size_t i = 0; i < sizeof set / sizeof set[0]; i++) count += __builtin_popcountl(set[i]);
  return count;
}

/* Gives this thread a somewhat shorter slice than others have, or on a single processor a longer one, which from Linux 6.12 on is the sched_runtime of
 * SCHED_OTHER (sched_setattr(2)). It gets no more or less of a processor by that, but when it wakes where a longer slice runs, it goes first. All else
 * stays as it is; so does the slice, where the kernel has none or does not let us. */
static inline void messaging__set_slice(void) {
  messaging__sched_attr attr;
  memset(&attr, 0, sizeof attr);
  if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) != 0 || attr.policy != SCHED_OTHER || attr.runtime_ns == 0) return;
  uint64_t change_ns = attr.runtime_ns / 8;
  attr.runtime_ns = messaging__processors() == 1 ? attr.runtime_ns + change_ns : attr.runtime_ns - change_ns;
  (void)syscall(SYS_sched_setattr, 0, &attr, 0);
}

/* Makes the sockets, on a thread of its own: with the first of them libzmq starts its threads, which have the slice of the one that starts them. */
static inline void *messaging__make_sockets(void *argument) {
  messaging__handle *handle = (messaging__handle *)argument;
  messaging__set_slice();
  handle->in = zmq_socket(handle->context, handle->is_im ? ZMQ_PULL : ZMQ_SUB);
  handle->out = handle->in ? zmq_socket(handle->context, handle->is_im ? ZMQ_XPUB : ZMQ_PUSH) : NULL; /* after a failure libzmq would begin anew, and abort */
  return NULL;
}

static inline bool messaging__start_libzmq(messaging__handle *handle) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, messaging__make_sockets, handle) != 0) return false;
  pthread_join(thread, NULL);
  return handle->in && handle->out;
}

/* Sockets, descriptors and the epoll set. */
static inline messaging_status messaging__open(messaging__handle *handle) {
  if (messaging_version_problem()) return MESSAGING_ESYS;
  if (!messaging__descriptors_fit(29)) return MESSAGING_ESYS;
  messaging__keep_heap();
  handle->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  handle->wait_fd = epoll_create1(EPOLL_CLOEXEC);
  handle->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  handle->inbox.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  handle->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  handle->context = zmq_ctx_new();
  if (handle->epoll_fd < 0 || handle->wait_fd < 0 || handle->wake_fd < 0 || handle->inbox.event_fd < 0 || handle->timer_fd < 0 || !handle->context) return MESSAGING_ESYS;
  zmq_ctx_set(handle->context, ZMQ_MAX_SOCKETS, 16);
  if (!messaging__start_libzmq(handle)) return MESSAGING_ESYS;
  int linger = 0, hwm = MESSAGING__FRAMES_HWM, handshake = MESSAGING__HANDSHAKE_MS, yes = 1, reconnect = 50, reconnect_max = 1000;
  /* A repair holds a whole frame, and may be as large as that one. */
  int64_t frame_max = (int64_t)handle->options.message_bytes_max + MESSAGING__FRAME_SLACK + (handle->is_im ? 0 : MESSAGING__CONTROL_SIZE);
  void *sockets[] = {handle->in, handle->out};
  for (int i = 0; i < 2; i++) {
    zmq_setsockopt(sockets[i], ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(sockets[i], ZMQ_SNDHWM, &hwm, sizeof hwm);
    zmq_setsockopt(sockets[i], ZMQ_RCVHWM, &hwm, sizeof hwm);
    zmq_setsockopt(sockets[i], ZMQ_MAXMSGSIZE, &frame_max, sizeof frame_max);
    zmq_setsockopt(sockets[i], ZMQ_HANDSHAKE_IVL, &handshake, sizeof handshake);
    zmq_setsockopt(sockets[i], ZMQ_RECONNECT_IVL, &reconnect, sizeof reconnect);
    zmq_setsockopt(sockets[i], ZMQ_RECONNECT_IVL_MAX, &reconnect_max, sizeof reconnect_max);
  }
  zmq_setsockopt(handle->out, handle->is_im ? ZMQ_XPUB_VERBOSE : ZMQ_IMMEDIATE, &yes, sizeof yes);
  size_t size = sizeof(int);
  if (zmq_getsockopt(handle->in, ZMQ_FD, &handle->in_fd, &size) != 0 || zmq_getsockopt(handle->out, ZMQ_FD, &handle->out_fd, &size) != 0)
    return MESSAGING_ESYS;
  bool added = messaging__share_sockets(handle) &&
               messaging__epoll(handle, EPOLL_CTL_ADD, handle->wake_fd, EPOLLIN, MESSAGING__EVENT_WAKE, 0) &&
               messaging__epoll(handle, EPOLL_CTL_ADD, handle->timer_fd, EPOLLIN, MESSAGING__EVENT_TIMER, 0);
  return added ? MESSAGING_OK : MESSAGING_ESYS;
}

static inline void messaging__close_fd(int fd) {
  if (fd >= 0) close(fd);
}

static inline void messaging__arena_free(messaging__arena *arena);

static inline void messaging__handle_free(messaging__handle *handle) {
  void *told_of[] = {handle->in, handle->out};
  for (int i = 0; i < 2; i++)
    if (handle->porters[i]) zmq_socket_monitor(told_of[i], NULL, 0); /* else a connection at this moment would find nobody to tell, and wait */
  if (handle->in) zmq_close(handle->in);
  if (handle->out) zmq_close(handle->out);
  if (handle->gate_keeper) zmq_close(handle->gate_keeper);
  for (int i = 0; i < 2; i++)
    if (handle->porters[i]) zmq_close(handle->porters[i]);
  if (handle->context)
    while (zmq_ctx_term(handle->context) != 0 && errno == EINTR) {}
  if (handle->is_im) messaging__im_free(&handle->im);
  else messaging__worker_free(&handle->worker);
  messaging__arena_free(handle->spare);
  messaging__arena_free(handle->inbox.retry);
  messaging__close_fd(handle->peer_fd);
  messaging__close_fd(handle->epoll_fd);
  messaging__close_fd(handle->wait_fd);
  messaging__close_fd(handle->wake_fd);
  messaging__close_fd(handle->inbox.event_fd);
  messaging__close_fd(handle->timer_fd);
  if (handle->folder[0]) {
    char path[MESSAGING_ADDRESS_SIZE + 8];
    snprintf(path, sizeof path, "%s/pub", handle->folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/pull", handle->folder);
    unlink(path);
    rmdir(handle->folder);
  }
  messaging__outbox_free(&handle->outbox);
  messaging__inbox_free(&handle->inbox);
  messaging__ring_free(&handle->reports);
  pthread_mutex_destroy(&handle->reports_lock);
  pthread_cond_destroy(&handle->progress);
  pthread_mutex_destroy(&handle->core);
  pthread_mutex_destroy(&handle->gate);
  if (handle->trace_file) fclose(handle->trace_file);
  if (handle->page) munmap((void *)(uintptr_t)handle->page, (size_t)sysconf(_SC_PAGESIZE));
  MESSAGING_FREE(handle);
}

static inline messaging__port messaging__shell_port(messaging__handle *handle) {
  messaging__port port = {handle, messaging__shell_send, messaging__shell_report, messaging__shell_watch, messaging__shell_unwatch,
                          messaging__shell_died};
  return port;
}

/* ---- Shell: addresses ---- */

/* Has libzmq tell of events of one of the sockets' connections. Its thread must never wait for a reader, so what waits has no limit but the rate at which
 * connections can be made. */
static inline bool messaging__post_porter(messaging__handle *handle, uint32_t index, int events) {
  const char *address = index ? "inproc://messaging.out" : "inproc://messaging.in";
  int fd, unlimited = 0;
  size_t size = sizeof fd;
  void *porter = handle->porters[index] = zmq_socket(handle->context, ZMQ_PAIR);
  bool posted = porter && zmq_setsockopt(porter, ZMQ_RCVHWM, &unlimited, sizeof unlimited) == 0 &&
                zmq_socket_monitor(index ? handle->out : handle->in, address, events) == 0 && zmq_connect(porter, address) == 0 &&
                zmq_getsockopt(porter, ZMQ_FD, &fd, &size) == 0 && messaging__epoll(handle, EPOLL_CTL_ADD, fd, EPOLLIN, MESSAGING__EVENT_PORTER, index);
  if (posted) messaging__hear_porter(handle, porter); /* the descriptor tells of what comes after a look that found nothing */
  return posted;
}

/* Makes the private folder, whose name tells the supervisor's pid, and binds both sockets in it. */
static inline messaging_status messaging__bind_ipc(messaging__handle *handle, const char *where, messaging_addresses *addresses) {
  const char *base = where ? where : getenv("TMPDIR");
  struct sockaddr_un limits;
  for (int attempt = 0; attempt < 2; attempt++, base = "/tmp") {
    if (!base || base[0] != '/') {
      if (where) return MESSAGING_EINVAL;
      continue;
    }
    int size = snprintf(handle->folder, sizeof handle->folder, "%s/messaging-%ld-XXXXXX", base, (long)getpid());
    bool made = size > 0 && (size_t)size + sizeof "/pull" <= sizeof limits.sun_path && mkdtemp(handle->folder) != NULL;
    if (made) break;
    handle->folder[0] = 0;
    if (where || attempt == 1) return MESSAGING_EBIND;
  }
  if (!handle->folder[0]) return MESSAGING_EBIND;
  snprintf(addresses->pub, sizeof addresses->pub, "ipc://%.120s/pub", handle->folder);
  snprintf(addresses->pull, sizeof addresses->pull, "ipc://%.120s/pull", handle->folder);
  if (!messaging__post_porter(handle, 1, MESSAGING__CONNECTED)) return MESSAGING_ESYS;
  bool bound = zmq_bind(handle->out, addresses->pub) == 0 && zmq_bind(handle->in, addresses->pull) == 0;
  return bound ? MESSAGING_OK : MESSAGING_EBIND;
}

/* Whether what was bound is no host's address. There are many ways to write that ("*", "0", "0x0", "[0::0]"); libzmq tells it in one of three. */
static inline bool messaging__is_wildcard(const char *bound) {
  return strncmp(bound, "tcp://0.0.0.0:", 14) == 0 || strncmp(bound, "tcp://[::]:", 11) == 0 || strncmp(bound, "tcp://[::ffff:0.0.0.0]:", 23) == 0;
}

/* The number of a named host, IPv4 first, as libzmq's connect looks it up; a number stays. It may ask the network. */
static inline bool messaging__host_number(const char *name, char number[MESSAGING_ADDRESS_SIZE]) {
  static const int families[] = {AF_INET, AF_INET6};
  struct addrinfo hints, *found = NULL;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  for (size_t i = 0; i < sizeof families / sizeof families[0] && !found; i++) {
    hints.ai_family = families[i];
    if (getaddrinfo(name, NULL, &hints, &found) != 0) found = NULL;
  }
  if (!found) return false;
  char digits[MESSAGING_ADDRESS_SIZE - 2];
  bool told = getnameinfo(found->ai_addr, found->ai_addrlen, digits, sizeof digits, NULL, 0, NI_NUMERICHOST) == 0;
  if (told && found->ai_family == AF_INET6) snprintf(number, MESSAGING_ADDRESS_SIZE, "[%s]", digits);
  else if (told) snprintf(number, MESSAGING_ADDRESS_SIZE, "%s", digits);
  freeaddrinfo(found);
  return told;
}

/* Binds both sockets at a host, to this port and the next, or with 0 to two that the system picks. */
static inline bool messaging__bind_ports(messaging__handle *handle, const char *host, unsigned long port, messaging_addresses *addresses) {
  char at[2][MESSAGING_ADDRESS_SIZE + 32];
  int ipv6 = host[0] == '[';
  for (unsigned i = 0; i < 2; i++)
    if (port) snprintf(at[i], sizeof at[i], "tcp://%s:%lu", host, port + i);
    else snprintf(at[i], sizeof at[i], "tcp://%s:*", host);
  zmq_setsockopt(handle->in, ZMQ_IPV6, &ipv6, sizeof ipv6);
  zmq_setsockopt(handle->out, ZMQ_IPV6, &ipv6, sizeof ipv6);
  if (zmq_bind(handle->out, at[0]) != 0 || zmq_bind(handle->in, at[1]) != 0) return false;
  size_t pub_size = sizeof addresses->pub, pull_size = sizeof addresses->pull;
  return zmq_getsockopt(handle->out, ZMQ_LAST_ENDPOINT, addresses->pub, &pub_size) == 0 &&
         zmq_getsockopt(handle->in, ZMQ_LAST_ENDPOINT, addresses->pull, &pull_size) == 0;
}

/* Puts the name back in place of the number that was bound. */
static inline void messaging__name_host(char address[MESSAGING_ADDRESS_SIZE], const char *name) {
  unsigned long port = strtoul(strrchr(address, ':') + 1, NULL, 10);
  snprintf(address, MESSAGING_ADDRESS_SIZE, "tcp://%.*s:%lu", MESSAGING_ADDRESS_SIZE - 32, name, port);
}

/* Binds host:port and host:port+1, or two ports that the system picks. The host is an address, an interface, whose address is returned, or a name, which
 * is. Other hosts must be able to use what is returned, so that a wildcard is refused. */
static inline messaging_status messaging__bind_tcp(messaging__handle *handle, const char *address, messaging_addresses *addresses) {
  char host[MESSAGING_ADDRESS_SIZE], number[MESSAGING_ADDRESS_SIZE], *end;
  if (strlen(address) >= MESSAGING_ADDRESS_SIZE - 32) return MESSAGING_EINVAL;
  snprintf(host, sizeof host, "%s", address + strlen("tcp://"));
  char *colon = strrchr(host, ':');
  if (!colon || colon == host) return MESSAGING_EINVAL;
  *colon = 0;
  bool any = strcmp(colon + 1, "*") == 0;
  unsigned long port = any ? 0 : strtoul(colon + 1, &end, 10);
  if (!any && (end == colon + 1 || *end || port == 0 || port >= 65535)) return MESSAGING_EINVAL;
  if (!messaging__bind_ports(handle, host, port, addresses)) {
    if (errno == EADDRINUSE || host[0] == '[' || !messaging__host_number(host, number) || strcmp(host, number) == 0) return MESSAGING_EBIND;
    if (!messaging__bind_ports(handle, number, port, addresses)) return MESSAGING_EBIND;
    if (messaging__is_wildcard(addresses->pub)) return MESSAGING_EINVAL;
    messaging__name_host(addresses->pub, host);
    messaging__name_host(addresses->pull, host);
  }
  return messaging__is_wildcard(addresses->pub) ? MESSAGING_EINVAL : MESSAGING_OK;
}

/* The path of an ipc address; NULL: it is of another transport. */
static inline const char *messaging__ipc_path(const char *address) {
  return strncmp(address, "ipc://", 6) == 0 ? address + 6 : NULL;
}

/* Whether a descriptor is a unix socket bound to one of two paths. */
static inline bool messaging__bound_to(int fd, const char *pub, const char *pull) {
  struct sockaddr_un name;
  messaging__path_of(fd, false, &name);
  return strcmp(name.sun_path, pub) == 0 || strcmp(name.sun_path, pull) == 0;
}

/* Calls for every open descriptor that is one end of the supervisor's. */
typedef bool messaging__fd_fn(int fd);

static inline bool messaging__each_bound(const char *pub, const char *pull, messaging__fd_fn *call) {
  DIR *folder = opendir("/proc/self/fd");
  bool any = false;
  if (!folder) return false;
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    int fd = atoi(entry->d_name);
    if (entry->d_name[0] < '0' || entry->d_name[0] > '9' || fd == dirfd(folder)) continue;
    if (messaging__bound_to(fd, pub, pull) && call(fd)) any = true;
  }
  closedir(folder);
  return any;
}

/* Whether a listening socket was made by another process: then this one is its child. */
static inline bool messaging__is_foreign_listener(int fd) {
  int listening = 0;
  messaging__credentials creator = {0, 0, 0};
  socklen_t size = sizeof listening, creator_size = sizeof creator;
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || !listening) return false;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &creator, &creator_size) == 0 && creator.pid != getpid();
}

static inline bool messaging__close_bound(int fd) { return close(fd) == 0; }

/* A child forked while peers are connected holds their connections open: nobody would see their end when the supervisor dies. */
static inline void messaging__close_inherited(const char *pub, const char *pull) {
  if (messaging__each_bound(pub, pull, messaging__is_foreign_listener)) messaging__each_bound(pub, pull, messaging__close_bound);
}

/* Whether somebody listens on a path who is not that dead process. */
static inline bool messaging__listens(const char *path, pid_t dead) {
  struct sockaddr_un name;
  memset(&name, 0, sizeof name);
  name.sun_family = AF_UNIX;
  if (strlen(path) >= sizeof name.sun_path) return false;
  memcpy(name.sun_path, path, strlen(path));
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return true;
  bool listens = connect(fd, (struct sockaddr *)&name, sizeof name) == 0 || errno == EAGAIN;
  messaging__credentials creator = {0, 0, 0};
  socklen_t size = sizeof creator;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &creator, &size) == 0 && creator.pid == dead) listens = false; /* a fork of it holds the socket */
  close(fd);
  return listens;
}

/* Watches the supervisor whose pid the folder's name tells. One that does not exist is dead, unless somebody listens all the same: then
 * it lives in another pid namespace, and its silence has to tell. */
static inline void messaging__watch_supervisor(messaging__handle *handle, const char *pub_path) {
  const char *name = NULL;
  for (const char *at = pub_path; (at = strstr(at, "/messaging-")) != NULL; at++) name = at;
  long pid = name ? strtol(name + strlen("/messaging-"), NULL, 10) : 0;
  if (pid <= 0) return;
  handle->worker.supervisor.id = (pid_t)pid;
  handle->peer_fd = pidfd_open((pid_t)pid, 0);
  bool dead = handle->peer_fd < 0 && errno == ESRCH && !messaging__listens(pub_path, (pid_t)pid);
  if (handle->peer_fd >= 0) {
    handle->worker.watched = messaging__epoll(handle, EPOLL_CTL_ADD, handle->peer_fd, EPOLLIN, MESSAGING__EVENT_PEER, 0);
  } else if (dead) {
    messaging__worker_end(&handle->worker, MESSAGING_ELOST, "the supervisor died");
  }
}

/* ==== Keys ============================================================================================================
 *
 * On tcp, libzmq's CURVE encrypts every connection and proves to each end who the other is. A secret is the supervisor's secret key
 * and its workers' public key, a credential the supervisor's public key and the workers' secret key: 40 characters (Z85) each.
 * The supervisor answers libzmq's questions who may come (ZAP, ZeroMQ RFC 27) in its background thread.
 */

enum { MESSAGING__HALF_KEY = 40 };

static inline messaging_status messaging_make_keys(char secret[MESSAGING_KEY_SIZE], char credential[MESSAGING_KEY_SIZE]) {
  char server_public[41], server_secret[41], client_public[41], client_secret[41];
  if (!secret || !credential) return MESSAGING_EINVAL;
  if (zmq_curve_keypair(server_public, server_secret) != 0 || zmq_curve_keypair(client_public, client_secret) != 0) return MESSAGING_ESYS;
  snprintf(secret, MESSAGING_KEY_SIZE, "%.40s%.40s", server_secret, client_public);
  snprintf(credential, MESSAGING_KEY_SIZE, "%.40s%.40s", server_public, client_secret);
  return MESSAGING_OK;
}

/* Reads a key string from where the option says, and splits it. */
static inline bool messaging__read_key(const char *given, char first[MESSAGING__HALF_KEY + 1], char second[MESSAGING__HALF_KEY + 1]) {
  char text[MESSAGING_KEY_SIZE + 1] = "";
  if (strncmp(given, "file:", 5) == 0) {
    FILE *file = fopen(given + 5, "re");
    if (!file) return false;
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    while (size && (text[size - 1] == '\n' || text[size - 1] == '\r')) size--;
    text[size] = 0;
  } else {
    const char *value = strncmp(given, "env:", 4) == 0 ? getenv(given + 4) : given;
    if (!value || strlen(value) >= sizeof text) return false;
    memcpy(text, value, strlen(value) + 1);
  }
  if (strlen(text) != 2 * MESSAGING__HALF_KEY) return false;
  memcpy(first, text, MESSAGING__HALF_KEY);
  memcpy(second, text + MESSAGING__HALF_KEY, MESSAGING__HALF_KEY);
  first[MESSAGING__HALF_KEY] = second[MESSAGING__HALF_KEY] = 0;
  return true;
}

/* Across hosts a connection may be dead without either end being told: the kernel finds out, and libzmq connects anew. What was lost meanwhile the
 * protocol repairs. (libzmq's own pings would do, too; but it aborts when one is due on a connection that failed while its input was held back.) */
static inline void messaging__watch_connections(messaging__handle *handle) {
  int patience = (int)handle->options.heartbeat_ms * MESSAGING__PATIENCE_HEARTBEATS, yes = 1;
  int interval = (int)(handle->options.heartbeat_ms + 999) / 1000, count = MESSAGING__PATIENCE_HEARTBEATS; /* in seconds */
  void *sockets[] = {handle->in, handle->out};
  for (int i = 0; i < 2; i++) {
    zmq_setsockopt(sockets[i], ZMQ_TCP_KEEPALIVE, &yes, sizeof yes);
    zmq_setsockopt(sockets[i], ZMQ_TCP_KEEPALIVE_IDLE, &interval, sizeof interval);
    zmq_setsockopt(sockets[i], ZMQ_TCP_KEEPALIVE_INTVL, &interval, sizeof interval);
    zmq_setsockopt(sockets[i], ZMQ_TCP_KEEPALIVE_CNT, &count, sizeof count);
    zmq_setsockopt(sockets[i], ZMQ_TCP_MAXRT, &patience, sizeof patience);
  }
}

/* Makes both sockets servers, and opens the socket on which libzmq asks who may come. */
static inline messaging_status messaging__secure_im(messaging__handle *handle) {
  messaging__watch_connections(handle);
  if (!handle->options.secret) return handle->options.plaintext_ok ? MESSAGING_OK : MESSAGING_EAUTH;
  char server_secret[MESSAGING__HALF_KEY + 1], client_public[MESSAGING__HALF_KEY + 1];
  int yes = 1;
  if (!messaging__read_key(handle->options.secret, server_secret, client_public) || !zmq_z85_decode(handle->allowed, client_public))
    return MESSAGING_EAUTH;
  void *sockets[] = {handle->in, handle->out};
  for (int i = 0; i < 2; i++)
    if (zmq_setsockopt(sockets[i], ZMQ_CURVE_SERVER, &yes, sizeof yes) != 0 ||
        zmq_setsockopt(sockets[i], ZMQ_CURVE_SECRETKEY, server_secret, sizeof server_secret) != 0 ||
        zmq_setsockopt(sockets[i], ZMQ_ZAP_DOMAIN, "messaging", 9) != 0)
      return MESSAGING_ESYS;
  int fd;
  size_t size = sizeof fd;
  handle->gate_keeper = zmq_socket(handle->context, ZMQ_REP);
  bool open = handle->gate_keeper && zmq_bind(handle->gate_keeper, "inproc://zeromq.zap.01") == 0 &&
              zmq_getsockopt(handle->gate_keeper, ZMQ_FD, &fd, &size) == 0 &&
              messaging__epoll(handle, EPOLL_CTL_ADD, fd, EPOLLIN, MESSAGING__EVENT_GATE, 0) &&
              messaging__post_porter(handle, 0, MESSAGING__TURNED_AWAY) && messaging__post_porter(handle, 1, MESSAGING__TURNED_AWAY);
  return open ? MESSAGING_OK : MESSAGING_ESYS;
}

static inline messaging_status messaging__secure_worker(messaging__handle *handle) {
  messaging__watch_connections(handle);
  if (!handle->options.credential) return handle->options.plaintext_ok ? MESSAGING_OK : MESSAGING_EAUTH;
  char server_public[MESSAGING__HALF_KEY + 1], client_secret[MESSAGING__HALF_KEY + 1], client_public[MESSAGING__HALF_KEY + 1];
  if (!messaging__read_key(handle->options.credential, server_public, client_secret)) return MESSAGING_EAUTH;
  if (zmq_curve_public(client_public, client_secret) != 0) return errno == ENOTSUP ? MESSAGING_ESYS : MESSAGING_EAUTH;
  void *sockets[] = {handle->in, handle->out};
  for (int i = 0; i < 2; i++)
    if (zmq_setsockopt(sockets[i], ZMQ_CURVE_SERVERKEY, server_public, sizeof server_public) != 0 ||
        zmq_setsockopt(sockets[i], ZMQ_CURVE_PUBLICKEY, client_public, sizeof client_public) != 0 ||
        zmq_setsockopt(sockets[i], ZMQ_CURVE_SECRETKEY, client_secret, sizeof client_secret) != 0)
      return MESSAGING_EAUTH;
  return MESSAGING_OK;
}

/* ==== Calls ===========================================================================================================
 *
 * What the stamped functions call, type-erased. Results that are typed pointers in the stamp are copied as bytes.
 */

/* How an instance encodes and decodes, and where its message struct keeps what. */
typedef struct {
  messaging__encode_fn *encode;
  int (*decode)(const msgpack_object *object, msgpack_zone *zone, void *out);
  size_t message_size, output_at, control_at, number_at, relay_at;
} messaging__codec;

enum { MESSAGING__EITHER, MESSAGING__IM_ONLY };

/* What is wrong with calling a handle at all. */
static inline messaging_status messaging__check(const messaging__handle *handle, int role) {
  if (!handle) return MESSAGING_EINVAL;
  if (messaging__inherited(handle)) return MESSAGING_EFORK;
  if (role == MESSAGING__IM_ONLY && !handle->is_im) return MESSAGING_EROLE;
  return MESSAGING_OK;
}

/* What is wrong with using it: not run, or ended. */
static inline messaging_status messaging__check_running(const messaging__handle *handle, int role) {
  messaging_status status = messaging__check(handle, role);
  if (status != MESSAGING_OK) return status;
  if (!MESSAGING__LOAD(&handle->started)) return MESSAGING_ENOTRUNNING;
  return MESSAGING__LOAD(&handle->inbox.ended) ? handle->inbox.cause : MESSAGING_OK;
}

static inline messaging_status messaging__make_im(void *out, messaging_addresses *addresses, const messaging_options *given) {
  messaging_options options;
  messaging_addresses bound;
  uint8_t session[16];
  messaging__who self = {getpid(), MESSAGING_SUPERVISOR, 0};
  if (!out || !addresses) return MESSAGING_EINVAL;
  memset(out, 0, sizeof(void *));
  messaging_status status = messaging__fill_options(given, &options);
  if (status != MESSAGING_OK) return status;
  memset(&bound, 0, sizeof bound);
  if (!messaging__random(session, sizeof session) || !messaging__random(&self.nonce, sizeof self.nonce)) return MESSAGING_ESYS;
  self.nonce |= 1; /* not zero */
  const char *bind = options.bind ? options.bind : "ipc";
  bool tcp = strncmp(bind, "tcp://", 6) == 0, ipc = strcmp(bind, "ipc") == 0 || strncmp(bind, "ipc://", 6) == 0;
  if (!tcp && !ipc) return MESSAGING_EINVAL;
  messaging__handle *handle = messaging__handle_new(&options, true);
  if (!handle) return MESSAGING_ENOMEM;
  messaging__port port = messaging__shell_port(handle);
  messaging__im_init(&handle->im, &port, &handle->outbox, &handle->inbox, &self, session, &options);
  status = messaging__open(handle);
  if (status == MESSAGING_OK && tcp) status = messaging__secure_im(handle);
  if (status == MESSAGING_OK) status = tcp ? messaging__bind_tcp(handle, bind, &bound) : messaging__bind_ipc(handle, messaging__ipc_path(bind), &bound);
  if (status != MESSAGING_OK) {
    messaging__handle_free(handle);
    return status;
  }
  *addresses = bound;
  memcpy(out, &handle, sizeof handle);
  return MESSAGING_OK;
}

static inline messaging_status messaging__init_im(void *out, messaging_addresses *addresses, const messaging_options *given) {
  sigset_t before;
  messaging__block_signals(&before);
  messaging_status status = messaging__make_im(out, addresses, given);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return status;
}

/* Subscribes to the broadcasts and to this worker's own topic, in this order, then connects. */
static inline messaging_status messaging__connect(messaging__handle *handle, const char *pub, const char *pull) {
  static const uint8_t broadcast[] = {0x96, 0xa1, 'B'};
  uint8_t topic[MESSAGING__TOPIC_SIZE];
  messaging__topic_of(topic, &handle->worker.self);
  int ipv6 = strchr(pub, '[') != NULL;
  zmq_setsockopt(handle->in, ZMQ_IPV6, &ipv6, sizeof ipv6);
  zmq_setsockopt(handle->out, ZMQ_IPV6, &ipv6, sizeof ipv6);
  snprintf(handle->peer.pub, sizeof handle->peer.pub, "%s", pub);
  snprintf(handle->peer.pull, sizeof handle->peer.pull, "%s", pull);
  if (messaging__ipc_path(pull) && !messaging__post_porter(handle, 1, MESSAGING__CONNECTED)) return MESSAGING_ESYS;
  bool connected = zmq_setsockopt(handle->in, ZMQ_SUBSCRIBE, broadcast, sizeof broadcast) == 0 &&
                   messaging__subscribe(handle, ZMQ_SUBSCRIBE, handle->slot) &&
                   zmq_setsockopt(handle->in, ZMQ_SUBSCRIBE, topic, sizeof topic) == 0 && zmq_connect(handle->in, pub) == 0 &&
                   zmq_connect(handle->out, pull) == 0;
  return connected ? MESSAGING_OK : MESSAGING_ECONNECT;
}

static inline messaging_status messaging__make_worker(void *out, messaging_kind kind, const char *pub, const char *pull,
                                                      const messaging_options *given) {
  messaging_options options;
  if (!out || !pub || !pull) return MESSAGING_EINVAL;
  memset(out, 0, sizeof(void *));
  messaging_status status = messaging__fill_options(given, &options);
  if (status != MESSAGING_OK) return status;
  if (kind == MESSAGING_SUPERVISOR) return MESSAGING_EKIND;
  if (strlen(pub) >= MESSAGING_ADDRESS_SIZE || strlen(pull) >= MESSAGING_ADDRESS_SIZE) return MESSAGING_EINVAL;
  messaging__who self = {options.id ? options.id : getpid(), kind, 0};
  if (!messaging__random(&self.nonce, sizeof self.nonce)) return MESSAGING_ESYS;
  self.nonce |= 1; /* not zero */
  const char *pub_path = messaging__ipc_path(pub), *pull_path = messaging__ipc_path(pull);
  if (pub_path && pull_path) messaging__close_inherited(pub_path, pull_path);
  messaging__handle *handle = messaging__handle_new(&options, false);
  if (!handle) return MESSAGING_ENOMEM;
  messaging__port port = messaging__shell_port(handle);
  messaging__worker_init(&handle->worker, &port, &handle->outbox, &handle->inbox, &self, &options, messaging__now_ms());
  status = messaging__open(handle);
  if (status == MESSAGING_OK && strncmp(pub, "tcp://", 6) == 0) status = messaging__secure_worker(handle);
  if (status == MESSAGING_OK) status = messaging__connect(handle, pub, pull);
  if (status != MESSAGING_OK) {
    messaging__handle_free(handle);
    return status;
  }
  if (pub_path) messaging__watch_supervisor(handle, pub_path);
  memcpy(out, &handle, sizeof handle);
  return MESSAGING_OK;
}

static inline messaging_status messaging__init_worker(void *out, messaging_kind kind, const char *pub, const char *pull,
                                                      const messaging_options *given) {
  sigset_t before;
  messaging__block_signals(&before);
  messaging_status status = messaging__make_worker(out, kind, pub, pull, given);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return status;
}

/* A list in which no id stands twice, and none is 0. */
static inline messaging_status messaging__check_children(const messaging_child *children, size_t count) {
  messaging__map seen = {NULL, 0, 0};
  messaging_status status = MESSAGING_OK;
  if (count && !children) return MESSAGING_EINVAL;
  if (count && !messaging__map_reserve(&seen, count)) return MESSAGING_ENOMEM;
  for (size_t i = 0; i < count && status == MESSAGING_OK; i++) {
    if (children[i].pid == 0 || messaging__map_get(&seen, messaging__id_key(children[i].pid))) status = MESSAGING_EINVAL;
    else if (children[i].kind == MESSAGING_SUPERVISOR) status = MESSAGING_EKIND;
    else messaging__map_put(&seen, messaging__id_key(children[i].pid), &seen);
  }
  messaging__map_free(&seen);
  return status;
}

/* Two connections and a pidfd for each worker that is not there yet, and some to spare. Under core. */
static inline messaging_status messaging__check_descriptors(messaging__handle *handle, const messaging_child *children, size_t count) {
  size_t workers = messaging__im_newcomers(&handle->im, children, count), wanted = workers * 3 + 64;
  if (workers == 0 || messaging__descriptors_fit(wanted)) return MESSAGING_OK;
  char detail[100];
  snprintf(detail, sizeof detail, "%zu more descriptors are needed for %zu workers: raise the limit (ulimit -n)", wanted, workers);
  messaging_error error = {MESSAGING_ESYS, 0, 0, 0, 0, detail};
  messaging__shell_report(handle, &error);
  return MESSAGING_ESYS;
}

static inline messaging_status messaging__run_im(messaging__handle *handle, const messaging_child *children, size_t count,
                                                 messaging_error_fn *on_error, void *user) {
  messaging_status status = messaging__check(handle, MESSAGING__IM_ONLY);
  if (status == MESSAGING_OK && handle->started) status = MESSAGING_EINVAL;
  if (status == MESSAGING_OK) status = messaging__check_children(children, count);
  if (status != MESSAGING_OK) return status;
  handle->on_error = on_error;
  handle->user = user;
  status = messaging__check_descriptors(handle, children, count);
  if (status == MESSAGING_OK) status = messaging__im_run(&handle->im, children, count, messaging__now_ms());
  if (status == MESSAGING_OK) status = messaging__start(handle);
  if (status == MESSAGING_OK) return status;
  handle->thread = pthread_self(); /* there is no other to do what the background thread does */
  handle->threaded = true;
  messaging__dispatch(handle);
  handle->threaded = false;
  return status;
}

static inline messaging_status messaging__run_worker(messaging__handle *handle, messaging_error_fn *on_error, void *user) {
  messaging_status status = messaging__check(handle, MESSAGING__EITHER);
  if (status == MESSAGING_OK && handle->is_im) status = MESSAGING_EROLE;
  if (status == MESSAGING_OK && handle->started) status = MESSAGING_EINVAL;
  if (status != MESSAGING_OK) return status;
  handle->on_error = on_error;
  handle->user = user;
  return messaging__start(handle);
}

/* ---- Calls: sending ---- */

/* After a message was queued: who brings it on its way. This thread, unless somebody sent one a moment ago, and has received nothing since. That is a
 * burst, which is left to the background thread: batches gather while it wakes up. */
static inline void messaging__hurry_out(messaging__handle *handle) {
  uint64_t now = messaging__now_us(), before = MESSAGING__SWAP(&handle->sent_us, now);
  if (now - before >= MESSAGING__BURST_US) {
    messaging__kick(handle);
  } else {
    messaging__outbox_hold(&handle->outbox, MESSAGING__HOLDS_OPEN);
    messaging__wake(handle);
  }
}

static inline messaging_status messaging__send(messaging__handle *handle, uint8_t type, messaging__encode_fn *encode, const void *message) {
  messaging__outbox *outbox = &handle->outbox;
  bool urgent = false;
  pthread_mutex_lock(&outbox->lock);
  messaging_status status = messaging__outbox_put(outbox, type, encode, message, &urgent);
  if (status == MESSAGING_EFULL && handle->options.send_timeout_ms && !messaging__on_background(handle)) {
    uint64_t deadline = messaging__now_ms() + handle->options.send_timeout_ms;
    outbox->blocked++;
    while (status == MESSAGING_EFULL && messaging__now_ms() < deadline) {
      messaging__cond_wait_until(&outbox->room, &outbox->lock, deadline);
      status = messaging__outbox_put(outbox, type, encode, message, &urgent);
    }
    outbox->blocked--;
  }
  bool ask = messaging__stock_ask(&outbox->stock);
  pthread_mutex_unlock(&outbox->lock);
  if (status == MESSAGING_OK && urgent) messaging__hurry_out(handle);
  if (ask) messaging__wake(handle);
  if (status == MESSAGING_ENOTRUNNING && MESSAGING__LOAD(&handle->inbox.ended)) return handle->inbox.cause;
  return status;
}

static inline messaging_status messaging__send_relay(messaging__handle *handle, const messaging__codec *codec, const void *message) {
  messaging_status status = messaging__check_running(handle, MESSAGING__EITHER);
  if (status == MESSAGING_OK && !message) status = MESSAGING_EINVAL;
  return status == MESSAGING_OK ? messaging__send(handle, MESSAGING__RELAY, codec->encode, message) : status;
}

static inline int messaging__encode_output(msgpack_packer *pk, const void *message) {
  const messaging_output *output = (const messaging_output *)message;
  size_t size = output->type == MESSAGING_PROGRESS ? 0 : output->text_size;
  int fault = msgpack_pack_array(pk, 3) | msgpack_pack_uint8(pk, (uint8_t)output->type) | msgpack_pack_int64(pk, output->value) |
              msgpack_pack_bin(pk, size);
  return size ? fault | msgpack_pack_bin_body(pk, output->text, size) : fault;
}

static inline messaging_status messaging__send_output(messaging__handle *handle, const messaging_output *output) {
  messaging_status status = messaging__check_running(handle, MESSAGING__EITHER);
  if (status != MESSAGING_OK) return status;
  if (!output || (unsigned)output->type > MESSAGING_PROGRESS) return MESSAGING_EINVAL;
  if (output->type != MESSAGING_PROGRESS && output->text_size && !output->text) return MESSAGING_EINVAL;
  if (output->type != MESSAGING_PROGRESS && output->text_size > UINT32_MAX) return MESSAGING_ETOOBIG;
  return messaging__send(handle, MESSAGING__OUTPUT, messaging__encode_output, output);
}

static inline messaging_status messaging__send_term(messaging__handle *handle) {
  messaging_status status = messaging__check_running(handle, MESSAGING__EITHER);
  if (status != MESSAGING_OK) return status;
  uint64_t now = messaging__now_ms();
  messaging__lock(handle);
  if (handle->is_im) messaging__im_term(&handle->im, &handle->im.self, now);
  else messaging__worker_terminate(&handle->worker, now);
  messaging__pump(handle, now, 0);
  messaging__unlock(handle);
  return MESSAGING_OK;
}

static inline messaging_status messaging__send_term_to(messaging__handle *handle, pid_t pid) {
  messaging_status status = messaging__check_running(handle, MESSAGING__IM_ONLY);
  if (status != MESSAGING_OK) return status;
  uint64_t now = messaging__now_ms();
  messaging__lock(handle);
  status = messaging__im_term_to(&handle->im, pid, now);
  messaging__pump(handle, now, 0);
  messaging__unlock(handle);
  return status;
}

/* ---- Calls: receiving ---- */

/* What a batch lives in: the frames, the objects that point into them, the messages. Used again when it is freed. */
struct messaging__arena {
  messaging__handle *home;
  msgpack_zone *zone;
  const void *zone_head; /* its first piece, of so many bytes */
  size_t zone_bytes;
  messaging__ring items; /* of messaging__item */
  messaging__item term;  /* kept while decoding has to be tried again */
  bool has_term;
  messaging__who term_by;
  uint8_t *messages;
  size_t capacity;
  uint64_t relays, outputs; /* given to the application */
};

/* How the stamped batch looks from here. */
typedef struct {
  size_t count;
  const void *messages;
  void *arena;
} messaging__batch_view;

static inline void messaging__arena_clear(messaging__arena *arena) {
  while (arena->items.count) {
    messaging__buffer_drop(((messaging__item *)messaging__ring_at(&arena->items, 0))->frame.owner);
    messaging__ring_pop(&arena->items);
  }
  arena->has_term = false;
  if (arena->zone) msgpack_zone_clear(arena->zone);
}

/* A zone that did not suffice in one piece frees its other pieces when it is cleared: make it larger, so that memory is touched once. */
static inline void messaging__arena_adapt(messaging__arena *arena) {
  if (arena->zone->chunk_list.head == arena->zone_head || arena->zone_bytes * 4 > MESSAGING__ZONE_BYTES_MAX) return;
  msgpack_zone *larger = msgpack_zone_new(arena->zone_bytes * 4);
  if (!larger) return;
  msgpack_zone_free(arena->zone);
  arena->zone = larger;
  arena->zone_bytes *= 4;
  arena->zone_head = larger->chunk_list.head;
}

static inline void messaging__arena_free(messaging__arena *arena) {
  if (!arena) return;
  messaging__arena_clear(arena);
  messaging__ring_free(&arena->items);
  if (arena->zone) msgpack_zone_free(arena->zone);
  MESSAGING_FREE(arena->messages);
  MESSAGING_FREE(arena);
}

static inline messaging__arena *messaging__arena_get(messaging__handle *handle) {
  messaging__arena *arena = MESSAGING__SWAP(&handle->spare, (messaging__arena *)NULL);
  if (arena) return arena;
  arena = (messaging__arena *)MESSAGING_MALLOC(sizeof *arena);
  if (!arena) return NULL;
  memset(arena, 0, sizeof *arena);
  arena->home = handle;
  messaging__ring_init(&arena->items, sizeof(messaging__item));
  arena->zone_bytes = 4 * MSGPACK_ZONE_CHUNK_SIZE;
  arena->zone = msgpack_zone_new(arena->zone_bytes);
  arena->zone_head = arena->zone ? arena->zone->chunk_list.head : NULL;
  if (arena->zone && messaging__ring_grow(&arena->items, 64)) return arena;
  messaging__arena_free(arena);
  return NULL;
}

static inline messaging_status messaging__batch_free(void *out) {
  messaging__batch_view view;
  if (!out) return MESSAGING_EINVAL;
  memcpy(&view, out, sizeof view);
  memset(out, 0, sizeof view);
  messaging__arena *arena = (messaging__arena *)view.arena;
  if (!arena) return MESSAGING_OK;
  if (messaging__inherited(arena->home)) return MESSAGING_EFORK;
  messaging__arena_adapt(arena);
  messaging__arena_clear(arena);
  messaging__arena_free(MESSAGING__SWAP(&arena->home->spare, arena));
  return MESSAGING_OK;
}

/* Takes termination and frames from the queue, as many as make a good batch. Under the inbox's lock. */
static inline bool messaging__collect(messaging__handle *handle, messaging__arena *arena) {
  messaging__inbox *inbox = &handle->inbox;
  size_t messages = 0, bytes = 0;
  arena->has_term = inbox->term_due;
  arena->term_by = inbox->term_by;
  inbox->term_due = inbox->purged = inbox->renewed = false;
  while (messages < MESSAGING__RECV_MESSAGES && bytes < MESSAGING__RECV_BYTES) {
    if (!messaging__ring_reserve(&arena->items)) return arena->items.count > 0 || arena->has_term;
    messaging__item *item = (messaging__item *)messaging__ring_end(&arena->items);
    if (!messaging__inbox_next(inbox, item)) break;
    arena->items.count++;
    messages += item->batch.count;
    bytes += item->frame.size;
  }
  return true;
}

static inline void messaging__skipped(messaging__handle *handle, const messaging__batch *batch, const char *detail) {
  messaging_error error = {MESSAGING_EBADMSG, (pid_t)batch->id, batch->kind, 0, 0, detail};
  MESSAGING__ADD(&handle->inbox.malformed, (uint64_t)1);
  messaging__shell_report(handle, &error);
}

/* Decodes one relay message into its slot: OK, or ENOMEM. *whole is false when the bytes are no object, *taken when decode refuses it. */
static inline messaging_status messaging__decode_relay(messaging__arena *arena, const messaging__codec *codec, messaging__reader *reader,
                                                       msgpack_object *object, uint64_t number, uint8_t *slot, bool *whole, bool *taken) {
  messaging_status status = messaging__read_object(reader, arena->zone, object);
  if (status == MESSAGING_ENOMEM) return status;
  *whole = status == MESSAGING_OK;
  if (!*whole) return MESSAGING_OK;
  memcpy(slot + codec->number_at, &number, sizeof number);
  *taken = codec->decode(object, arena->zone, slot + codec->relay_at) == 0;
  return MESSAGING_OK;
}

/* Likewise one output message; its text stays in the frame. */
static inline void messaging__decode_output(const messaging__codec *codec, messaging__reader *reader, uint8_t *slot, bool *whole, bool *taken) {
  messaging__reader object = *reader;
  messaging_output output;
  memset(&output, 0, sizeof output);
  *whole = messaging__skip_object(reader);
  if (!*whole) return;
  bool fine = messaging__read_array(&object) == 3;
  output.type = (messaging_output_type)messaging__read_uint(&object, MESSAGING_PROGRESS);
  output.value = messaging__read_int(&object);
  output.text = (const char *)messaging__read_bytes(&object, &output.text_size);
  memcpy(slot + codec->output_at, &output, sizeof output);
  *taken = fine && !object.bad && object.at == reader->at;
}

/* The fields that every message begins with. */
typedef struct {
  messaging_message_type type;
  messaging_kind kind;
  pid_t pid;
} messaging__head;

/* Decodes the messages of one frame. Each has an object, which is smaller than its slot. A frame whose payload is not what the header says gives none.
 * ENOMEM: nothing of the batch was given away, try again later. */
static inline messaging_status messaging__decode_item(messaging__arena *arena, const messaging__codec *codec, const messaging__item *item, size_t *count) {
  bool relay = item->batch.type == MESSAGING__RELAY, whole = true;
  const uint8_t *payload = item->frame.data + MESSAGING__AT_PAYLOAD;
  messaging__reader reader = {payload, payload + item->batch.payload_size, false};
  messaging__head head = {relay ? MESSAGING_RELAY_MESSAGE : MESSAGING_OUTPUT_MESSAGE, item->batch.kind, (pid_t)item->batch.id};
  size_t begun = *count;
  msgpack_object *objects = relay ? (msgpack_object *)msgpack_zone_malloc(arena->zone, item->batch.count * sizeof *objects) : NULL;
  if (relay && !objects) return MESSAGING_ENOMEM;
  for (uint32_t i = 0; i < item->batch.count && whole; i++) {
    uint8_t *slot = arena->messages + *count * codec->message_size;
    bool taken = false;
    memset(slot, 0, codec->message_size);
    memcpy(slot, &head, sizeof head);
    messaging_status status = MESSAGING_OK;
    if (relay) status = messaging__decode_relay(arena, codec, &reader, &objects[i], item->batch.position + i, slot, &whole, &taken);
    else messaging__decode_output(codec, &reader, slot, &whole, &taken);
    if (status != MESSAGING_OK) return status;
    if (taken) ++*count;
    else if (whole) messaging__skipped(arena->home, &item->batch, "a message that does not decode was skipped");
  }
  if (whole && reader.at == reader.end) {
    *(relay ? &arena->relays : &arena->outputs) += *count - begun;
    return MESSAGING_OK;
  }
  *count = begun;
  messaging__skipped(arena->home, &item->batch, "a batch with a false count was skipped");
  return MESSAGING_OK;
}

/* Makes room for the messages. No more memory is taken for a frame before its payload is what the header says. */
static inline bool messaging__prepare_messages(messaging__arena *arena, const messaging__codec *codec) {
  size_t count = arena->has_term ? 1 : 0, room = arena->capacity / codec->message_size, kept = 0;
  for (size_t i = 0; i < arena->items.count; i++) {
    messaging__item *item = (messaging__item *)messaging__ring_at(&arena->items, i);
    if (count + item->batch.count <= room || messaging__holds(item->frame.data + MESSAGING__AT_PAYLOAD, item->batch.payload_size, item->batch.count)) {
      count += item->batch.count;
      if (kept < i) *(messaging__item *)messaging__ring_at(&arena->items, kept) = *item;
      kept++;
    } else {
      messaging__skipped(arena->home, &item->batch, "a batch with a false count was skipped");
      messaging__buffer_drop(item->frame.owner);
    }
  }
  arena->items.count = kept;
  if (count > SIZE_MAX / codec->message_size) return false;
  if (count * codec->message_size <= arena->capacity) return true;
  uint8_t *messages = (uint8_t *)MESSAGING_REALLOC(arena->messages, count * codec->message_size);
  if (!messages) return false;
  arena->messages = messages;
  arena->capacity = count * codec->message_size;
  return true;
}

static inline messaging_status messaging__decode(messaging__arena *arena, const messaging__codec *codec, messaging__batch_view *view) {
  size_t count = 0;
  arena->relays = arena->outputs = 0;
  if (!messaging__prepare_messages(arena, codec)) return MESSAGING_ENOMEM;
  if (arena->has_term) {
    messaging__head head = {MESSAGING_CONTROL_MESSAGE, arena->term_by.kind, arena->term_by.id};
    messaging_control control = {MESSAGING_TERMINATE, 0};
    memset(arena->messages, 0, codec->message_size);
    memcpy(arena->messages, &head, sizeof head);
    memcpy(arena->messages + codec->control_at, &control, sizeof control);
    count = 1;
  }
  for (size_t i = 0; i < arena->items.count; i++) {
    messaging_status status = messaging__decode_item(arena, codec, (const messaging__item *)messaging__ring_at(&arena->items, i), &count);
    if (status != MESSAGING_OK) {
      msgpack_zone_clear(arena->zone);
      return status;
    }
  }
  view->count = count;
  view->messages = arena->messages;
  view->arena = arena;
  return MESSAGING_OK;
}

/* Counts what was given to the application. */
static inline void messaging__count_received(messaging__handle *handle, const messaging__arena *arena) {
  MESSAGING__ADD(&handle->inbox.relays, arena->relays);
  MESSAGING__ADD(&handle->inbox.outputs, arena->outputs);
  for (size_t i = 0; i < arena->items.count; i++) {
    const messaging__batch *batch = &((const messaging__item *)messaging__ring_at(&arena->items, i))->batch;
    MESSAGING__ADD(batch->type == MESSAGING__RELAY ? &handle->inbox.relay_bytes : &handle->inbox.output_bytes, (uint64_t)batch->payload_size);
  }
}

/* What was taken before and could not be decoded: the mailbox may have been purged since, or a generation begun that nobody has asked to terminate. */
static inline void messaging__arena_renew(messaging__inbox *inbox, messaging__arena *arena) {
  pthread_mutex_lock(&inbox->lock);
  bool purged = inbox->purged, renewed = inbox->renewed;
  inbox->purged = inbox->renewed = false;
  pthread_mutex_unlock(&inbox->lock);
  if (purged) messaging__arena_clear(arena);
  if (renewed) arena->has_term = false;
}

/* Takes a batch from the queue, or the one that was taken before, and decodes it. *left: how many of the frames that were there the first time are still. */
static inline messaging_status messaging__take_batch(messaging__handle *handle, const messaging__codec *codec, messaging__batch_view *view, size_t *left) {
  messaging__inbox *inbox = &handle->inbox;
  messaging__arena *arena = inbox->retry;
  bool retried = arena != NULL;
  if (retried) {
    messaging__arena_renew(inbox, arena);
  } else {
    arena = messaging__arena_get(handle);
    if (!arena) return MESSAGING_ENOMEM;
    pthread_mutex_lock(&inbox->lock);
    if (*left == SIZE_MAX) *left = messaging__inbox_frames(inbox);
    bool collected = messaging__collect(handle, arena);
    messaging__inbox_settle(inbox);
    pthread_mutex_unlock(&inbox->lock);
    *left -= arena->items.count < *left ? arena->items.count : *left;
    if (!collected) {
      messaging__arena_free(arena);
      return MESSAGING_ENOMEM;
    }
  }
  bool empty = arena->items.count == 0 && !arena->has_term;
  messaging_status status = empty ? MESSAGING_OK : messaging__decode(arena, codec, view);
  if (status != MESSAGING_OK || retried) {
    pthread_mutex_lock(&inbox->lock);
    inbox->retry = status == MESSAGING_OK ? NULL : arena;
    messaging__inbox_settle(inbox);
    pthread_mutex_unlock(&inbox->lock);
  }
  messaging__notify(handle, 0);
  if (MESSAGING__LOAD(&inbox->wanted)) {
    MESSAGING__STORE(&inbox->wanted, false);
    messaging__kick(handle);
  }
  if (status != MESSAGING_OK) return status;
  if (view->count > 0) {
    messaging__count_received(handle, arena);
    return MESSAGING_OK;
  }
  messaging__arena_clear(arena);
  messaging__arena_free(MESSAGING__SWAP(&handle->spare, arena));
  return empty && !retried && MESSAGING__LOAD(&inbox->ended) ? inbox->cause : MESSAGING_OK;
}

static inline messaging_status messaging__recv(messaging__handle *handle, const messaging__codec *codec, void *out) {
  messaging__batch_view view = {0, NULL, NULL};
  messaging_status status = messaging__check(handle, MESSAGING__EITHER);
  if (out) memset(out, 0, sizeof view);
  if (status != MESSAGING_OK || !out) return status != MESSAGING_OK ? status : MESSAGING_EINVAL;
  if (!MESSAGING__LOAD(&handle->started)) return MESSAGING_ENOTRUNNING;
  size_t left = SIZE_MAX; /* what does not decode is passed over, but not for ever: it may come as fast as that */
  while (status == MESSAGING_OK && view.count == 0 && left > 0 && MESSAGING__LOAD(&handle->inbox.readable))
    status = messaging__take_batch(handle, codec, &view, &left);
  if (view.count == 0) return status;
  MESSAGING__STORE(&handle->sent_us, (uint64_t)0);
  memcpy(out, &view, sizeof view);
  return status;
}

/* ---- Calls: waiting ---- */

/* Milliseconds until a deadline, as poll wants them. */
static inline int messaging__remaining(uint64_t deadline) {
  if (deadline == MESSAGING__NEVER) return -1;
  uint64_t now = messaging__now_ms();
  if (now >= deadline) return 0;
  return deadline - now < 60000 ? (int)(deadline - now) : 60000;
}

static inline uint64_t messaging__deadline(int timeout_ms) {
  return timeout_ms < 0 ? MESSAGING__NEVER : messaging__now_ms() + (uint64_t)timeout_ms;
}

/* Waits as the one who reads the socket: what arrives is in the inbox without a change of threads. The descriptor tells of what is there
 * already, since whoever read before has read until nothing was left. False: the time is over. */
static inline bool messaging__wait_driving(messaging__handle *handle, int timeout_ms, uint64_t deadline) {
  bool more = false, found;
  struct epoll_event events[3];
  while (!(found = MESSAGING__LOAD(&handle->inbox.readable))) {
    int count = more ? 0 : epoll_wait(handle->wait_fd, events, 3, timeout_ms);
    if (!more && count == 0 && timeout_ms == 0) break;
    messaging__lock(handle);
    for (int i = 0; i < count; i++) handle->out_woken = handle->out_woken || events[i].data.u64 >> 32 == MESSAGING__EVENT_OUT;
    more = messaging__step(handle, 1);
    messaging__unlock(handle);
    if (!MESSAGING__LOAD(&handle->inbox.readable)) timeout_ms = messaging__remaining(deadline);
  }
  MESSAGING__STORE(&handle->driven, 0u);
  if (more) messaging__wake(handle); /* for what is left there is no edge to come any more */
  return found;
}

/* Waits for the one who reads the socket. */
static inline bool messaging__wait_beside(messaging__handle *handle, int timeout_ms, uint64_t deadline) {
  struct pollfd entry = {handle->inbox.event_fd, POLLIN, 0};
  for (;; timeout_ms = messaging__remaining(deadline)) {
    if (MESSAGING__LOAD(&handle->inbox.readable)) return true;
    if (poll(&entry, 1, timeout_ms) == 0 && timeout_ms == 0) return false;
  }
}

/* Until there is something to receive, or the end. */
static inline bool messaging__wait_readable(messaging__handle *handle, int timeout_ms) {
  messaging__inbox *inbox = &handle->inbox;
  uint64_t deadline = messaging__deadline(timeout_ms);
  pthread_mutex_lock(&inbox->lock);
  MESSAGING__ADD(&inbox->watchers, 1u);
  pthread_mutex_unlock(&inbox->lock);
  bool driving = MESSAGING__SWAP(&handle->driven, 1u) == 0;
  messaging__notify(handle, driving);
  bool found = driving ? messaging__wait_driving(handle, timeout_ms, deadline) : messaging__wait_beside(handle, timeout_ms, deadline);
  MESSAGING__ADD(&inbox->watchers, (uint32_t)-1);
  return found;
}

static inline messaging_status messaging__wait(messaging__handle *handle, int timeout_ms) {
  messaging_status status = messaging__check(handle, MESSAGING__EITHER);
  if (status != MESSAGING_OK) return status;
  if (!MESSAGING__LOAD(&handle->started)) return MESSAGING_ENOTRUNNING;
  if (timeout_ms < -1 || messaging__on_background(handle)) return MESSAGING_EINVAL;
  messaging__inbox *inbox = &handle->inbox;
  if (!MESSAGING__LOAD(&inbox->readable) && (timeout_ms == 0 || !messaging__wait_readable(handle, timeout_ms))) return MESSAGING_ETIMEDOUT;
  if (!MESSAGING__LOAD(&inbox->ended)) return MESSAGING_OK;
  pthread_mutex_lock(&inbox->lock);
  status = messaging__inbox_holds(inbox) ? MESSAGING_OK : inbox->cause;
  pthread_mutex_unlock(&inbox->lock);
  return status;
}

static inline int messaging__fd(const messaging__handle *constant) {
  messaging__handle *handle = (messaging__handle *)(uintptr_t)constant;
  if (messaging__check(handle, MESSAGING__EITHER) != MESSAGING_OK) return -1;
  pthread_mutex_lock(&handle->inbox.lock);
  if (!handle->inbox.watched) MESSAGING__ADD(&handle->inbox.watchers, 1u);
  handle->inbox.watched = true;
  pthread_mutex_unlock(&handle->inbox.lock);
  messaging__notify(handle, 0);
  return handle->inbox.event_fd;
}

static inline bool messaging__check_termination(const messaging__handle *handle) {
  return handle && !messaging__inherited(handle) && MESSAGING__LOAD(&handle->started) && MESSAGING__LOAD(&handle->inbox.terminated);
}

static inline bool messaging__all_arrived(messaging__handle *handle) {
  return handle->is_im ? messaging__im_flushed(&handle->im) : messaging__worker_flushed(&handle->worker);
}

/* Whether everything this process sent has arrived where it must; asks for it to be said soon. Under core. Several threads may wait for that: whoever
 * looks tells the others what has changed, and not that it has looked, since they would look in their turn for ever. */
static inline bool messaging__flushed(messaging__handle *handle) {
  if (messaging__all_arrived(handle)) return true;
  uint64_t now = messaging__now_ms();
  if (handle->is_im) messaging__im_hurry(&handle->im, now);
  else messaging__worker_hurry(&handle->worker, now);
  handle->asking = true;
  messaging__pump(handle, now, 0);
  handle->asking = false;
  bool arrived = messaging__all_arrived(handle);
  if (arrived || MESSAGING__LOAD(&handle->inbox.ended)) pthread_cond_broadcast(&handle->progress);
  return arrived;
}

typedef bool messaging__condition(messaging__handle *handle);

/* Waits until a condition holds, the handle ends, or the time is over. */
static inline messaging_status messaging__await(messaging__handle *handle, messaging__condition *holds, uint64_t deadline) {
  messaging__lock(handle);
  MESSAGING__ADD(&handle->waiting, 1u);
  bool done;
  while (!(done = holds(handle)) && !MESSAGING__LOAD(&handle->inbox.ended) && messaging__now_ms() < deadline)
    messaging__cond_wait_until(&handle->progress, &handle->core, deadline);
  MESSAGING__ADD(&handle->waiting, (uint32_t)-1);
  messaging__unlock(handle);
  if (done) return MESSAGING_OK;
  return MESSAGING__LOAD(&handle->inbox.ended) ? handle->inbox.cause : MESSAGING_ETIMEDOUT;
}

static inline messaging_status messaging__flush(messaging__handle *handle, int timeout_ms) {
  messaging_status status = messaging__check_running(handle, MESSAGING__EITHER);
  if (status != MESSAGING_OK) return status;
  if (timeout_ms < -1 || messaging__on_background(handle)) return MESSAGING_EINVAL;
  return messaging__await(handle, messaging__flushed, messaging__deadline(timeout_ms));
}

/* ---- Calls: the list ---- */

static inline messaging_status messaging__update(messaging__handle *handle, const messaging_child *children, size_t count) {
  messaging_status status = messaging__check_running(handle, MESSAGING__IM_ONLY);
  if (status == MESSAGING_OK) status = messaging__check_children(children, count);
  if (status != MESSAGING_OK) return status;
  uint64_t now = messaging__now_ms();
  messaging__lock(handle);
  status = messaging__check_descriptors(handle, children, count);
  if (status == MESSAGING_OK) status = messaging__im_update(&handle->im, children, count, now);
  messaging__pump(handle, now, 0);
  messaging__unlock(handle);
  return status;
}

static inline messaging_status messaging__add(messaging__handle *handle, messaging_child child) {
  messaging_status status = messaging__check_running(handle, MESSAGING__IM_ONLY);
  if (status == MESSAGING_OK) status = messaging__check_children(&child, 1);
  if (status != MESSAGING_OK) return status;
  uint64_t now = messaging__now_ms();
  messaging__lock(handle);
  status = messaging__check_descriptors(handle, &child, 1);
  if (status == MESSAGING_OK) status = messaging__im_add(&handle->im, child, now);
  messaging__pump(handle, now, 0);
  messaging__unlock(handle);
  return status;
}

static inline messaging_status messaging__purge(messaging__handle *handle) {
  messaging_status status = messaging__check_running(handle, MESSAGING__IM_ONLY);
  if (status != MESSAGING_OK) return status;
  messaging__lock(handle);
  messaging__im_purge(&handle->im);
  messaging__pump(handle, messaging__now_ms(), 0);
  messaging__unlock(handle);
  return MESSAGING_OK;
}

/* ---- Calls: seen from outside ---- */

static inline messaging_status messaging__get_stats(const messaging__handle *constant, messaging_stats *stats) {
  messaging__handle *handle = (messaging__handle *)(uintptr_t)constant;
  if (stats) memset(stats, 0, sizeof *stats);
  messaging_status status = messaging__check(handle, MESSAGING__EITHER);
  if (status != MESSAGING_OK) return status;
  if (!stats) return MESSAGING_EINVAL;
  messaging__lock(handle);
  *stats = *messaging__stats_of(handle);
  pthread_mutex_lock(&handle->outbox.lock);
  stats->relays_sent = handle->outbox.relays;
  stats->outputs_sent = handle->outbox.outputs;
  stats->relay_bytes_sent = handle->outbox.relay_bytes;
  stats->output_bytes_sent = handle->outbox.output_bytes;
  stats->outbox_bytes = handle->outbox.bytes;
  stats->outbox_bytes_max = handle->outbox.bytes_max;
  pthread_mutex_unlock(&handle->outbox.lock);
  pthread_mutex_lock(&handle->inbox.lock);
  stats->relays_received = MESSAGING__LOAD(&handle->inbox.relays);
  stats->outputs_received = MESSAGING__LOAD(&handle->inbox.outputs);
  stats->relay_bytes_received = MESSAGING__LOAD(&handle->inbox.relay_bytes);
  stats->output_bytes_received = MESSAGING__LOAD(&handle->inbox.output_bytes);
  stats->inbox_bytes = handle->inbox.bytes;
  stats->inbox_bytes_max = handle->inbox.bytes_max;
  stats->malformed += MESSAGING__LOAD(&handle->inbox.malformed);
  if (handle->is_im) {
    stats->generation = handle->im.era.generation;
    stats->next_number = handle->inbox.log.next;
    stats->history_first = handle->inbox.log.first;
    stats->history_bytes = handle->inbox.log.bytes;
    stats->history_bytes_max = handle->inbox.log.bytes_max;
    stats->acknowledged = messaging__im_needed(&handle->im);
    stats->workers_listed = handle->im.live;
    stats->workers_joined = handle->im.joined;
  } else {
    stats->next_number = handle->worker.next;
  }
  pthread_mutex_unlock(&handle->inbox.lock);
  pthread_mutex_lock(&handle->reports_lock);
  stats->errors_dropped = handle->reports_dropped;
  pthread_mutex_unlock(&handle->reports_lock);
  stats->wakeups = MESSAGING__LOAD(&handle->wakeups);
  messaging__unlock(handle);
  return MESSAGING_OK;
}

static inline messaging_status messaging__get_worker_stats(const messaging__handle *constant, pid_t id, messaging_worker_stats *stats) {
  messaging__handle *handle = (messaging__handle *)(uintptr_t)constant;
  if (stats) memset(stats, 0, sizeof *stats);
  messaging_status status = messaging__check(handle, MESSAGING__IM_ONLY);
  if (status != MESSAGING_OK) return status;
  if (!stats) return MESSAGING_EINVAL;
  uint64_t now = messaging__now_ms();
  messaging__lock(handle);
  const messaging__peer *peer = (const messaging__peer *)messaging__map_get(&handle->im.by_id, messaging__id_key(id));
  if (peer) {
    stats->kind = peer->who.kind;
    stats->joined = peer->state == MESSAGING__ACTIVE && peer->confirmed;
    stats->dead = peer->state == MESSAGING__GONE;
    stats->silent = peer->silent;
    stats->blocked = peer->blocked;
    stats->next_number = peer->has;
    stats->lag = peer->state == MESSAGING__ACTIVE || peer->state == MESSAGING__LISTED ? messaging__im_next(&handle->im) - peer->has : 0;
    stats->batches = peer->expected - 1;
    stats->heard_ms = peer->heard_ms && now > peer->heard_ms ? now - peer->heard_ms : 0;
  }
  messaging__unlock(handle);
  return peer ? MESSAGING_OK : MESSAGING_EKIND;
}

/* Prints bytes on one line: what is no printable ASCII as \xNN. */
static inline int messaging__print_bytes(FILE *file, const char *bytes, size_t size) {
  int printed = 0;
  for (size_t i = 0; i < size; i++) {
    unsigned char byte = (unsigned char)bytes[i];
    int more = byte >= 0x20 && byte < 0x7f ? fprintf(file, "%c", byte) : fprintf(file, "\\x%02x", byte);
    if (more < 0) return more;
    printed += more;
  }
  return printed;
}

/* A relay message as msgpack shows it: encoded once more, unpacked, printed. */
static inline int messaging__print_relay(FILE *file, const messaging__codec *codec, const void *message) {
  msgpack_sbuffer packed;
  msgpack_packer packer;
  msgpack_unpacked unpacked;
  int printed = -1;
  char *text = NULL;
  size_t size = 0;
  msgpack_sbuffer_init(&packed);
  msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
  msgpack_unpacked_init(&unpacked);
  bool fine = codec->encode(&packer, message) == 0 && messaging__holds((const uint8_t *)packed.data, packed.size, 1) &&
              msgpack_unpack_next(&unpacked, packed.data, packed.size, NULL) == MSGPACK_UNPACK_SUCCESS;
  FILE *memory = fine ? open_memstream(&text, &size) : NULL;
  if (memory) {
    msgpack_object_print(memory, unpacked.data);
    if (fclose(memory) == 0) printed = messaging__print_bytes(file, text, size);
    free(text);
  }
  msgpack_unpacked_destroy(&unpacked);
  msgpack_sbuffer_destroy(&packed);
  return printed;
}

static inline int messaging__print_output(FILE *file, const messaging_output *output) {
  static const char *const names[] = {"log", "stat", "progress"};
  int head = (unsigned)output->type > MESSAGING_PROGRESS ? -1
             : output->type == MESSAGING_STAT              ? fprintf(file, "%s ", names[output->type])
                                                           : fprintf(file, "%s %lld ", names[output->type], (long long)output->value);
  if (head < 0) return head;
  int text = messaging__print_bytes(file, output->text, output->text_size);
  return text < 0 ? text : head + text;
}

static inline int messaging__print(FILE *file, const messaging__codec *codec, const void *message) {
  static const char *const controls[] = {"ready", "ping", "terminate", "resend"};
  messaging__head head;
  if (!file || !message) return -1;
  const uint8_t *bytes = (const uint8_t *)message;
  memcpy(&head, bytes, sizeof head);
  int from = fprintf(file, "from %ld (kind %lu): ", (long)head.pid, (unsigned long)head.kind), rest = -1;
  if (from < 0) return from;
  if (head.type == MESSAGING_OUTPUT_MESSAGE) {
    messaging_output output;
    memcpy(&output, bytes + codec->output_at, sizeof output);
    rest = messaging__print_output(file, &output);
  } else if (head.type == MESSAGING_CONTROL_MESSAGE) {
    messaging_control control;
    memcpy(&control, bytes + codec->control_at, sizeof control);
    if ((unsigned)control.type <= MESSAGING_RESEND) rest = fprintf(file, "control %s", controls[control.type]);
  } else if (head.type == MESSAGING_RELAY_MESSAGE) {
    uint64_t number;
    memcpy(&number, bytes + codec->number_at, sizeof number);
    int relay = fprintf(file, "relay %llu ", (unsigned long long)number);
    rest = relay < 0 ? relay : messaging__print_relay(file, codec, bytes + codec->relay_at);
    if (rest >= 0) rest += relay;
  }
  return rest < 0 ? rest : from + rest;
}

/* ---- Calls: leaving ---- */

static inline bool messaging__parted(messaging__handle *handle) {
  return handle->is_im ? messaging__im_parted(&handle->im) : handle->worker.left || handle->worker.state != MESSAGING__JOINED;
}

/* Tells the handler how much was not accepted. */
static inline void messaging__report_rest(messaging__handle *handle, messaging_status status) {
  char detail[120];
  pthread_mutex_lock(&handle->outbox.lock);
  size_t bytes = handle->outbox.bytes;
  pthread_mutex_unlock(&handle->outbox.lock);
  if (bytes == 0 && !handle->is_im) return;
  snprintf(detail, sizeof detail, "exit: %zu bytes of messages were not accepted", bytes);
  messaging_error error = {status, 0, 0, 0, 0, handle->is_im ? "exit: not every worker has everything" : detail};
  messaging__shell_report(handle, &error);
}

/* What exit says of a handle that had ended before: with a polite supervisor everything may well have been accepted. */
static inline messaging_status messaging__ended_status(messaging__handle *handle) {
  if (handle->is_im) return handle->inbox.cause;
  if (handle->worker.bye_seen && messaging__worker_flushed(&handle->worker)) return MESSAGING_OK;
  bool refused = handle->inbox.cause == MESSAGING_ENOTRUNNING || handle->inbox.cause == MESSAGING_EINVAL; /* exit says these of other things */
  return refused ? MESSAGING_ELOST : handle->inbox.cause;
}

/* Whether there is nothing left that exit should wait for: everything is accepted, or nobody is heard who could accept it. */
static inline bool messaging__flushed_or_lost(messaging__handle *handle) {
  return messaging__flushed(handle) || (!handle->is_im && handle->worker.lost);
}

/* Flushes, then says goodbye. */
static inline messaging_status messaging__depart(messaging__handle *handle) {
  uint64_t now = messaging__now_ms(), deadline = now + handle->options.exit_timeout_ms;
  messaging_status status = messaging__await(handle, messaging__flushed_or_lost, deadline);
  messaging__lock(handle);
  if (MESSAGING__LOAD(&handle->inbox.ended)) {
    status = messaging__ended_status(handle);
    messaging__unlock(handle);
  } else if (!handle->is_im && handle->worker.lost) {
    status = messaging__worker_flushed(&handle->worker) ? MESSAGING_OK : MESSAGING_ELOST;
    messaging__unlock(handle);
  } else {
    now = messaging__now_ms();
    if (handle->is_im) messaging__im_leave(&handle->im, now);
    else if (handle->worker.state == MESSAGING__JOINED) messaging__worker_leave(&handle->worker, now);
    messaging__pump(handle, now, 0);
    messaging__unlock(handle);
    messaging_status parted = messaging__await(handle, messaging__parted, now + MESSAGING__GOODBYE_MS);
    (void)parted; /* a goodbye that nobody heard loses nothing */
  }
  if (status != MESSAGING_OK) messaging__report_rest(handle, status);
  return status;
}

static inline messaging_status messaging__exit(void *out) {
  messaging__handle *handle;
  if (!out) return MESSAGING_EINVAL;
  memcpy(&handle, out, sizeof handle);
  if (!handle) return MESSAGING_OK;
  if (!messaging__inherited(handle) && messaging__on_background(handle)) return MESSAGING_EINVAL;
  memset(out, 0, sizeof handle);
  if (messaging__inherited(handle)) return MESSAGING_EFORK;
  messaging_status status = MESSAGING_OK;
  if (handle->threaded) {
    status = messaging__depart(handle);
    messaging__lock(handle);
    handle->stop = true;
    messaging__unlock(handle);
    messaging__wake(handle);
    pthread_join(handle->thread, NULL);
    handle->threaded = false;
  }
  int linger = handle->is_im ? MESSAGING__CLOSE_MS : 0;
  zmq_setsockopt(handle->out, ZMQ_LINGER, &linger, sizeof linger);
  messaging__handle_free(handle);
  return status;
}

/* ---- Calls: without an instance ---- */

static inline const char *messaging_version_problem(void) {
  int major, minor, patch;
  zmq_version(&major, &minor, &patch);
  if (ZMQ_MAKE_VERSION(major, minor, patch) < ZMQ_MAKE_VERSION(4, 3, 3)) return "the libzmq found at run time is older than 4.3.3";
  if (msgpack_version_major() < 4) return "the msgpack-c found at run time is older than 4.0";
  return NULL;
}

static inline const char *messaging_strerror(messaging_status status) {
  switch (status) {
#define MESSAGING__STATUS_TEXT(name, text) \
  case MESSAGING_##name: return text;
    MESSAGING__STATUS_MAP(MESSAGING__STATUS_TEXT)
#undef MESSAGING__STATUS_TEXT
    case MESSAGING__STATUS_COUNT: break;
  }
  return "not a status";
}

