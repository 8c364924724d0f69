/* The limit: rings in shared memory. Each worker writes into one of its own, the supervisor copies into one that all workers read.
 * Who finds nothing, or no room, sleeps on a futex. Nothing is numbered, acknowledged or decoded, a reader that stops stops everybody,
 * and one that dies leaves whatever state it was in. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../bench.h"
#include "../tools.h"

#define RING_BYTES (UINT64_C(4) << 20)
#define ALONE UINT64_MAX /* the position of a reader that does not take part */
#define PADDING UINT32_MAX
#define GATHER_BYTES 49152u

/* Whoever waits for something sleeps on value; whoever brings it about changes value if there are sleepers. */
typedef struct {
  _Atomic uint32_t value, sleepers;
} bell;

typedef struct {
  uint64_t size;
  _Atomic uint64_t head;
  bell filled, emptied;
  uint32_t readers;
  _Atomic uint64_t tails[WORKERS_MAX];
  _Alignas(64) uint8_t bytes[RING_BYTES];
} ring;

typedef struct { /* in front of each message, which is followed by padding to a multiple of 8 */
  uint32_t size, tag;
} ring_head;

typedef struct {
  ring *down;
  ring *up[WORKERS_MAX];
  bell work; /* for the supervisor */
} rings;

typedef struct {
  rings *all;
  ring *up, *down;
  uint32_t worker;
  uint64_t head, known; /* up: written, and how far the supervisor was */
} end_ring;

/* ==== Sleeping ======================================================================================================== */

static bool bell_wait(bell *b, uint32_t value, int timeout_ms) {
  struct timespec ts = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
  return syscall(SYS_futex, &b->value, FUTEX_WAIT, value, timeout_ms < 0 ? NULL : &ts, NULL, 0) == 0;
}

static void bell_ring(bell *b) {
  atomic_thread_fence(memory_order_seq_cst);
  if (atomic_load(&b->sleepers) == 0) return;
  atomic_fetch_add(&b->value, 1);
  syscall(SYS_futex, &b->value, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

typedef bool condition(const void *of, uint64_t argument);

static bool bell_await(bell *b, condition *holds, const void *of, uint64_t argument, int timeout_ms) {
  int64_t deadline_ns = now_ns() + timeout_ms * NS_PER_MS;
  bool held = holds(of, argument);
  while (!held && timeout_ms != 0) {
    uint32_t value = atomic_load(&b->value);
    atomic_fetch_add(&b->sleepers, 1);
    held = holds(of, argument);
    if (!held) bell_wait(b, value, timeout_ms);
    atomic_fetch_sub(&b->sleepers, 1);
    held = held || holds(of, argument);
    if (timeout_ms > 0 && now_ns() > deadline_ns) break;
  }
  return held;
}

/* ==== A ring ========================================================================================================== */

static uint64_t slowest(const ring *r) {
  uint64_t lowest = atomic_load_explicit(&r->head, memory_order_relaxed);
  for (uint32_t i = 0; i < r->readers; i++) {
    uint64_t tail = atomic_load_explicit(&r->tails[i], memory_order_acquire);
    if (tail < lowest) lowest = tail;
  }
  return lowest;
}

static bool has_room(const void *of, uint64_t bytes) {
  const ring *r = of;
  return atomic_load_explicit(&r->head, memory_order_relaxed) + bytes - slowest(r) <= RING_BYTES;
}

static bool has_more(const void *of, uint64_t tail) { return atomic_load_explicit(&((const ring *)of)->head, memory_order_acquire) != tail; }

static uint64_t padded(uint32_t size) { return (sizeof(ring_head) + size + 7) & ~UINT64_C(7); }

static void ring_publish(ring *r, uint64_t head, bell *waiting) {
  atomic_store_explicit(&r->head, head, memory_order_release);
  bell_ring(waiting);
}

/* Writes behind *head, which readers see once it is published. known: how far the slowest reader was when somebody looked last. */
static void ring_write(ring *r, const void *bytes, uint32_t size, uint32_t tag, uint64_t *head, uint64_t *known, bell *waiting) {
  uint64_t at = *head % RING_BYTES, wanted = padded(size);
  uint64_t skip = at + wanted > RING_BYTES ? RING_BYTES - at : 0;
  if (*head + wanted + skip - *known > RING_BYTES) {
    ring_publish(r, *head, waiting);
    bell_await(&r->emptied, has_room, r, wanted + skip, -1);
    *known = slowest(r);
  }
  if (skip > 0) memcpy(r->bytes + at, &(ring_head){PADDING, 0}, sizeof(ring_head));
  at = (at + skip) % RING_BYTES;
  memcpy(r->bytes + at, &(ring_head){size, tag}, sizeof(ring_head));
  memcpy(r->bytes + at + sizeof(ring_head), bytes, size);
  *head += skip + wanted;
}

/* The next message from *tail on; false: there is none. */
static bool ring_next(const ring *r, uint64_t *tail, uint64_t head, ring_head *out, const uint8_t **bytes) {
  while (*tail != head) {
    const uint8_t *at = r->bytes + *tail % RING_BYTES;
    memcpy(out, at, sizeof *out);
    *bytes = at + sizeof *out;
    *tail += out->size == PADDING ? RING_BYTES - *tail % RING_BYTES : padded(out->size);
    if (out->size != PADDING) return true;
  }
  return false;
}

/* A page of shared memory costs each process its own fault, which is not to be measured. */
static void ring_touch(const ring *r) {
  volatile uint8_t seen = 0;
  for (uint64_t i = 0; i < RING_BYTES; i += 4096) seen = (uint8_t)(seen | r->bytes[i]);
}

/* ==== Before the fork ================================================================================================= */

static ring *ring_make(uint32_t readers) {
  ring *r = mmap(NULL, sizeof *r, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (r == MAP_FAILED) fail("cannot map a ring");
  r->readers = readers;
  return r;
}

static void prepare(scene *s) {
  rings *all = shared_make(sizeof *all);
  all->down = ring_make(s->workers);
  memset(all->down->bytes, 0, RING_BYTES);
  for (uint32_t w = 0; w < s->workers; w++) {
    all->up[w] = ring_make(1);
    if (s->actors[w].deaf) {
      all->down->tails[w] = ALONE;
      memset(all->up[w]->bytes, 0, RING_BYTES);
    }
  }
  s->system_data = all;
}

static void release(scene *s) {
  rings *all = s->system_data;
  for (uint32_t w = 0; w < s->workers; w++) munmap(all->up[w], sizeof(ring));
  munmap(all->down, sizeof(ring));
  shared_release(all, sizeof *all);
}

/* ==== The relay ======================================================================================================= */

/* Readers are told when there is something to do for them, or nothing more for this one. */
static bool hand_on(rings *all, uint32_t w, uint64_t *known) {
  ring *up = all->up[w];
  uint64_t tail = up->tails[0], head = atomic_load_explicit(&up->head, memory_order_acquire);
  uint64_t written = atomic_load_explicit(&all->down->head, memory_order_relaxed);
  ring_head h;
  const uint8_t *bytes;
  if (tail == head) return false;
  while (ring_next(up, &tail, head, &h, &bytes)) {
    ring_write(all->down, bytes, h.size, h.tag, &written, known, &all->down->filled);
    if (written - atomic_load_explicit(&all->down->head, memory_order_relaxed) >= GATHER_BYTES) ring_publish(all->down, written, &all->down->filled);
  }
  ring_publish(all->down, written, &all->down->filled);
  atomic_store_explicit(&up->tails[0], tail, memory_order_release);
  bell_ring(&up->emptied);
  return true;
}

static bool has_work(const void *of, uint64_t workers) {
  const rings *all = of;
  for (uint32_t w = 0; w < workers; w++)
    if (atomic_load_explicit(&all->up[w]->head, memory_order_acquire) != all->up[w]->tails[0]) return true;
  return false;
}

static void relay(scene *s) {
  rings *all = s->system_data;
  uint64_t known = 0;
  ring_touch(all->down);
  for (uint32_t w = 0; w < s->workers; w++)
    if (s->actors[w].deaf) ring_touch(all->up[w]);
  sem_post(&s->bound);
  sem_post(&s->all_in);
  for (;;) {
    bool found = false;
    for (uint32_t w = 0; w < s->workers; w++) found |= hand_on(all, w, &known);
    if (!found) bell_await(&all->work, has_work, all, s->workers, -1);
  }
}

/* ==== A worker ======================================================================================================== */

static void *join(scene *s, uint32_t worker) {
  end_ring *e = checked_calloc(1, sizeof *e);
  e->all = s->system_data;
  e->up = e->all->up[worker];
  e->down = e->all->down;
  e->worker = worker;
  if (s->actors[worker].deaf) ring_touch(e->up);
  else ring_touch(e->down);
  return e;
}

static void flush(void *end) {
  end_ring *e = end;
  ring_publish(e->up, e->head, &e->all->work);
}

static void put(void *end, const packet *m) {
  end_ring *e = end;
  ring_write(e->up, m->bytes, m->size, e->worker, &e->head, &e->known, &e->all->work);
  if (e->head - atomic_load_explicit(&e->up->head, memory_order_relaxed) >= GATHER_BYTES) flush(e);
}

static uint32_t take(void *end, note_fn *tell, void *user, int timeout_ms) {
  end_ring *e = end;
  uint64_t tail = e->down->tails[e->worker];
  uint32_t count = 0, tag, seq;
  ring_head h;
  const uint8_t *bytes;
  while (count == 0) {
    if (!bell_await(&e->down->filled, has_more, e->down, tail, timeout_ms)) return 0;
    uint64_t head = atomic_load_explicit(&e->down->head, memory_order_acquire);
    while (ring_next(e->down, &tail, head, &h, &bytes)) {
      if (h.tag == e->worker) continue;
      packet_read(bytes, h.size, &tag, &seq);
      tell(user, tag, seq);
      count++;
    }
    atomic_store_explicit(&e->down->tails[e->worker], tail, memory_order_release);
    bell_ring(&e->down->emptied);
  }
  return count;
}

const peer peer_ring = {
    .name = "ring",
    .setup = "4 MB of shared memory up from each worker, 4 MB down to all, published every 48 KB, futexes; not numbered, not acknowledged",
    .version = "",
    .prepare = prepare,
    .relay = relay,
    .join = join,
    .send = put,
    .flush = flush,
    .recv = take,
    .release = release,
};
