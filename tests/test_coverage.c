/* What no other test comes by: memory and system calls that fail in the middle of something, limits that are reached from one side only, libzmq that
 * gives up, a supervisor that is killed, and what the trace says of each kind of frame. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

/* What fails: the allocation with this number, counted from when it was set; and one of these calls. */
static long fail_at;
static enum { NOTHING, MAP, ADVICE, MUTEX, CONDATTR, CLOCK, COND } fail_call;

static bool fails(void) { return __atomic_load_n(&fail_at, __ATOMIC_SEQ_CST) > 0 && __atomic_sub_fetch(&fail_at, 1, __ATOMIC_SEQ_CST) == 0; }
static void *hooked_malloc(size_t size) { return fails() ? NULL : malloc(size); }
static void *hooked_realloc(void *pointer, size_t size) { return fails() ? NULL : realloc(pointer, size); }

/* Addresses of large areas are multiples of this on request, at the cost of some that is never given back. */
static size_t map_alignment;

static void *hooked_map(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  if (fail_call == MAP) return MAP_FAILED;
  uint8_t *area = (uint8_t *)mmap(at, size + map_alignment, protection, flags, fd, offset);
  if (map_alignment == 0 || area == MAP_FAILED) return area;
  return area + (map_alignment - (uintptr_t)area % map_alignment) % map_alignment;
}

static unsigned huge_asked, touches; /* times that the system was asked for huge pages, and for pages ahead */

static int hooked_advice(void *address, size_t length, int advice) {
  huge_asked += advice == MADV_HUGEPAGE;
  touches += advice == 23; /* MADV_POPULATE_WRITE, from Linux 5.14 on */
  return fail_call == ADVICE ? -1 : madvise(address, length, advice);
}
static int hooked_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes) { return fail_call == MUTEX ? 12 : pthread_mutex_init(mutex, attributes); }
static int hooked_condattr_init(pthread_condattr_t *attributes) { return fail_call == CONDATTR ? 12 : pthread_condattr_init(attributes); }
static int hooked_setclock(pthread_condattr_t *attributes, clockid_t id) { return fail_call == CLOCK ? 22 : pthread_condattr_setclock(attributes, id); }
static int hooked_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes) { return fail_call == COND ? 12 : pthread_cond_init(cond, attributes); }

#define MESSAGING_MALLOC(size) hooked_malloc(size)
#define MESSAGING_REALLOC(pointer, size) hooked_realloc(pointer, size)
#define MESSAGING_FREE(pointer) free(pointer)
#define mmap hooked_map
#define madvise hooked_advice
#define pthread_mutex_init hooked_mutex_init
#define pthread_condattr_init hooked_condattr_init
#define pthread_condattr_setclock hooked_setclock
#define pthread_cond_init hooked_cond_init
#include "../messaging.h"
#undef mmap
#undef madvise
#undef pthread_mutex_init
#undef pthread_condattr_init
#undef pthread_condattr_setclock
#undef pthread_cond_init

#include <sys/wait.h>

#include <cmocka.h>

enum { KIND = 4, ID = -1, DEADLINE_MS = 60000, TICK_MS = 2, MESSAGE_BYTES = 1000, LARGE_BYTES = 900 };

typedef struct {
  uint64_t value;
  size_t size;
} fact;

static int encode(msgpack_packer *pk, const fact *in) {
  static const char filling[LARGE_BYTES];
  return msgpack_pack_array(pk, 2) | msgpack_pack_uint64(pk, in->value) | msgpack_pack_bin(pk, in->size) | msgpack_pack_bin_body(pk, filling, in->size);
}

static int decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) {
  (void)zone;
  if (obj->type != MSGPACK_OBJECT_ARRAY || obj->via.array.size != 2) return 1;
  out->value = obj->via.array.ptr[0].via.u64;
  out->size = obj->via.array.ptr[1].via.bin.size;
  return 0;
}

MESSAGING_MAKE(bus, fact, encode, decode);

#define WAIT_FOR(condition)                               \
  for (int waited = 0; !(condition); waited += TICK_MS) { \
    struct timespec tick = {0, TICK_MS * 1000000L};       \
    assert_true(waited < DEADLINE_MS);                    \
    nanosleep(&tick, NULL);                               \
  }

/* ---- Containers ---- */

/* Against a table that cannot be wrong: keys that share homes, also across the end. */
static void test_map_against_a_table(void **state) {
  enum { KEYS = 24, ROUNDS = 20000 };
  messaging__map map = {NULL, 0, 0};
  bool there[KEYS] = {false};
  int values[KEYS];
  (void)state;
  srand(1);
  for (int round = 0; round < ROUNDS; round++) {
    int i = rand() % KEYS;
    uint64_t key = (uint64_t)(i + 1) * 7919;
    if (there[i] || map.count >= 8) messaging__map_remove(&map, key), there[i] = false;
    else assert_true(messaging__map_put(&map, key, &values[i])), there[i] = true;
    size_t count = 0;
    for (int k = 0; k < KEYS; k++) {
      assert_ptr_equal(messaging__map_get(&map, (uint64_t)(k + 1) * 7919), there[k] ? &values[k] : NULL);
      count += there[k];
    }
    assert_int_equal(map.count, count);
  }
  messaging__map_free(&map);
  fail_at = 1;
  assert_false(messaging__map_put(&map, 1, &map));
  assert_true(map.count == 0 && !messaging__map_get(&map, 1));
  messaging__map_free(&map);
}

/* A block is whole pages, wherever it comes to lie; without memory there is none, and the outbox does with less. */
static void test_blocks(void **state) {
  (void)state;
  for (long at = 1; at <= 2; at++) {
    fail_at = at == 1 ? 1 : 0;
    fail_call = at == 2 ? MAP : NOTHING;
    assert_null(messaging__block_new(1));
    fail_call = NOTHING;
  }
  for (int aligned = 0; aligned < 2; aligned++) {
    map_alignment = aligned ? MESSAGING__BLOCK_BYTES : 0;
    messaging__buffer *block = messaging__block_new(MESSAGING__BLOCK_BYTES + 1);
    map_alignment = 0;
    assert_non_null(block);
    assert_int_equal(block->capacity, 2 * MESSAGING__BLOCK_BYTES);
    assert_int_equal((uintptr_t)block->data % MESSAGING__BLOCK_BYTES, 0);
    memset(block->data, 1, block->capacity);
    fail_at = 1;
    assert_null(messaging__part_new(block));
    messaging__buffer_drop(block);
  }
}

/* What is written to a block arrives, and a larger piece's pages are touched just before, once, if the kernel can do so; what lies before it stays. */
static void test_block_write(void **state) {
  (void)state;
  enum { PIECES = 3, LARGE = PIECES * MESSAGING__TOUCH_BYTES + 5, SMALL = 700, LITTLE = MESSAGING__TOUCH_BYTES / 2 - 1, SIZES = 7, PREFIX = 4, PAGE = 4096 };
  static const size_t sizes[SIZES] = {SMALL, LARGE, LITTLE, SMALL, LARGE, 0, 2 * MESSAGING__TOUCH_BYTES}; /* 0: up to two bytes before a page's end */
  uint8_t *bytes = malloc(LARGE);
  assert_non_null(bytes);
  for (size_t i = 0; i < LARGE; i++) bytes[i] = (uint8_t)(i * 31 >> 3);
  for (int fails = 0; fails < 2; fails++) {
    messaging__buffer *block = messaging__block_new(MESSAGING__BLOCK_BYTES);
    assert_non_null(block);
    for (int again = 0; again < 2; again++) {
      size_t at = 0, before = block->touched;
      touches = 0;
      fail_call = fails ? ADVICE : NOTHING;
      for (size_t i = 0; i < SIZES; i++) {
        memset(block->data + at, 0xff, PREFIX);
        at += PREFIX;
        size_t size = sizes[i] ? sizes[i] : 2 * PAGE - 2 - at % PAGE;
        messaging__block_write(block, block->data + at, bytes, size);
        for (size_t k = 1; k <= PREFIX; k++) assert_int_equal(block->data[at - k], 0xff);
        assert_memory_equal(block->data + at, bytes, size);
        at += size;
        assert_true(again ? block->touched == before : block->touched >= at && block->touched < at + MESSAGING__TOUCH_BYTES);
      }
      fail_call = NOTHING;
      assert_int_equal(touches, again ? 0 : 2 * PIECES + 2);
    }
    messaging__buffer_drop(block);
  }
  free(bytes);
}

/* The beginning of a new block is in memory when it was touched, and then the next huge page, whether the kernel can do so ahead or not. */
static void test_page_in(void **state) {
  (void)state;
  enum { PAGE = 4096, PAGES = 3 * MESSAGING__BLOCK_BYTES / PAGE };
  unsigned char there[PAGES];
  for (int fails = 0; fails < 2; fails++)
    for (int huge = 0; huge < 2; huge++) {
      messaging__buffer *block = messaging__block_new((size_t)PAGES * PAGE);
      assert_non_null(block);
      for (size_t times = 1; times <= (huge ? 2 : 1); times++) {
        fail_call = fails ? ADVICE : NOTHING;
        assert_true(messaging__page_in(block, huge) > 0);
        fail_call = NOTHING;
        assert_int_equal(block->touched, huge ? times * MESSAGING__BLOCK_BYTES : 4 * MESSAGING__TOUCH_BYTES);
        assert_int_equal(mincore(block->data, block->capacity, there), 0);
        for (size_t i = 0; i < PAGES; i++) assert_int_equal(there[i] & 1, i < block->touched / PAGE);
      }
      messaging__buffer_drop(block);
    }
}

/* Blocks that are taken until another one is wanted, which is then made; what small pages had cost is made up. */
static unsigned blocks_before_order(messaging__stock *stock, pthread_mutex_t *lock, uint64_t small_ns) {
  unsigned count = 0;
  while (stock->order != MESSAGING__STOCK_WANTED) {
    messaging__buffer *spare = stock->spare, *block = messaging__stock_take(stock, 1000, 1000);
    assert_non_null(block);
    assert_true(!spare || block == spare);
    assert_null(stock->spare);
    messaging__buffer_drop(block);
    count++;
  }
  if (count > 1) assert_true(stock->small_ns > 0 && stock->small_ns < UINT64_MAX); /* measured anew */
  stock->small_ns = small_ns;
  huge_asked = 0;
  messaging__stock_make(stock, lock);
  assert_true(huge_asked == 0 && !stock->spare); /* nobody has asked */
  assert_true(messaging__stock_ask(stock));
  assert_false(messaging__stock_ask(stock));
  messaging__stock_make(stock, lock);
  assert_int_equal(stock->order, MESSAGING__STOCKED);
  assert_int_equal(huge_asked, 1);
  assert_true(stock->spare && stock->spare->touched == stock->spare->capacity);
  return count;
}

/* A block of huge pages is made ready after the first in small ones, and the next for each that is taken, until one was dearer: then after many in small
 * ones. Who takes one never makes it. */
static void test_pages_by_cost(void **state) {
  (void)state;
  enum { CHEAPER = 3, MANY = MESSAGING__HUGE_BYTES + MESSAGING__BLOCK_BYTES };
  const uint64_t dear = 1, cheap = UINT64_MAX;
  messaging__stock stock = {0};
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  for (int i = 0; i < CHEAPER; i++) assert_int_equal(blocks_before_order(&stock, &lock, cheap), 1);
  for (int i = 0; i < CHEAPER; i++) assert_int_equal(blocks_before_order(&stock, &lock, dear), i ? 2 + MESSAGING__DEAR_PATIENCE : 1); /* one was there all the same */
  assert_int_equal(blocks_before_order(&stock, &lock, cheap), 2 + MESSAGING__DEAR_PATIENCE);
  messaging__buffer *large = messaging__stock_take(&stock, MANY, MANY); /* not the one that is ready */
  assert_true(large && large->capacity >= MANY && !stock.spare && stock.bytes == MANY);
  assert_true(messaging__stock_ask(&stock));
  stock.spare = large; /* is used again meanwhile */
  for (int is_cheap = 0; is_cheap < 2; is_cheap++) {
    messaging__buffer *before = stock.spare;
    stock.small_ns = is_cheap ? cheap : dear;
    stock.order = MESSAGING__STOCK_ASKED;
    messaging__stock_make(&stock, &lock);
    assert_true(stock.spare && stock.spare != before && stock.spare->capacity >= MANY);
    assert_int_equal(stock.spare->touched, is_cheap ? MESSAGING__HUGE_BYTES : MESSAGING__BLOCK_BYTES); /* no other one behind a dear page */
    assert_int_equal(stock.cheap, is_cheap);
  }
  for (int fails = 0; fails < 2; fails++) {
    messaging__buffer *spare = fails ? NULL : stock.spare;
    if (fails) messaging__buffer_drop(messaging__stock_clear(&stock));
    stock.order = MESSAGING__STOCK_ASKED;
    fail_at = 1;
    messaging__stock_make(&stock, &lock);
    assert_true(stock.order == MESSAGING__STOCKED && stock.spare == spare && !stock.cheap);
  }
  stock.small_ns = 0; /* without memory to try small pages it stays unknown what they cost */
  stock.order = MESSAGING__STOCK_ASKED;
  fail_at = 1;
  messaging__stock_make(&stock, &lock);
  assert_true(stock.spare && stock.small_ns == 0);
  messaging__buffer_drop(messaging__stock_clear(&stock));
}

static int encode_bytes(msgpack_packer *pk, const void *message) {
  static const char filling[MESSAGING__GROWN_BYTES];
  size_t size = *(const size_t *)message;
  return msgpack_pack_bin(pk, size) | msgpack_pack_bin_body(pk, filling, size);
}

static messaging_status put(messaging__outbox *outbox, size_t size) {
  bool urgent;
  return messaging__outbox_put(outbox, MESSAGING__RELAY, encode_bytes, &size, &urgent);
}

enum { LARGE_BATCH = MESSAGING__GROWN_BYTES / 2 }; /* closed whatever waits: two are too much for one batch */

/* Large batches that wait lie in a block; whichever allocation fails, a message is taken whole or not at all. */
static void test_outbox_in_blocks_without_memory(void **state) {
  messaging__outbox outbox;
  size_t taken = 0;
  (void)state;
  for (long at = 0; at < 24; at++) {
    assert_true(messaging__outbox_init(&outbox, 1 << 24, 1 << 20));
    taken = 0;
    for (int i = 0; i < 8; i++) {
      if (i == (at % 2 ? 1 : 4)) fail_at = at / 2; /* before its block is made, and after */
      messaging_status status = put(&outbox, LARGE_BATCH);
      assert_true(status == MESSAGING_OK || (status == MESSAGING_ENOMEM && at > 1));
      taken += status == MESSAGING_OK;
    }
    assert_true(taken >= 7 && outbox.ready.count == taken);
    assert_int_equal(outbox.bytes, taken * (MESSAGING__AT_PAYLOAD + LARGE_BATCH + 5));
    messaging__outbox_free(&outbox);
    fail_at = 0;
  }
}

/* A message that is to go to the next batch, with no memory for that: it is not taken, and those before it are. */
static void test_outbox_moves_on_without_memory(void **state) {
  messaging__outbox outbox;
  (void)state;
  for (long at = 1; at <= 3; at++) { /* the batch; its place in the queue; room for the message */
    assert_true(messaging__outbox_init(&outbox, 1 << 24, 1 << 20));
    size_t count = 0, small = 20000, large = MESSAGING__GROWN_BYTES;
    for (; outbox.ready.count + 1 != outbox.ready.capacity || !outbox.open.buffer || outbox.open.buffer->size < 2 * MESSAGING__SEAL_BYTES; count++)
      assert_int_equal(put(&outbox, small), MESSAGING_OK);
    size_t ready = outbox.ready.count, bytes = outbox.bytes;
    fail_at = at;
    assert_int_equal(put(&outbox, large), MESSAGING_ENOMEM);
    fail_at = 0;
    assert_null(outbox.open.buffer);
    assert_int_equal(outbox.ready.count, ready + 1);
    assert_int_equal(outbox.bytes, bytes);
    assert_int_equal(outbox.relays, count);
    assert_int_equal(put(&outbox, large), MESSAGING_OK);
    messaging__outbox_free(&outbox);
  }
}

static void test_outbox_limits(void **state) {
  messaging__outbox outbox;
  (void)state;
  assert_true(messaging__outbox_init(&outbox, 20, 10)); /* smaller than a batch's header: one message is taken all the same */
  assert_int_equal(put(&outbox, 5), MESSAGING_OK);
  assert_int_equal(put(&outbox, 5), MESSAGING_EFULL);
  assert_int_equal(put(&outbox, 9), MESSAGING_EFULL);
  messaging__outbox_free(&outbox);
  for (fail_call = MUTEX; fail_call <= COND; fail_call++) assert_false(messaging__outbox_init(&outbox, 1000, 100));
  fail_call = NOTHING;
}

/* What may go is given; else who sends next is told what holds it. */
static void test_outbox_holds(void **state) {
  messaging__outbox outbox;
  messaging__outgoing batch = {NULL, 0, 0, false};
  (void)state;
  assert_true(messaging__outbox_init(&outbox, 10000, 1000));
  assert_int_equal(put(&outbox, 5), MESSAGING_OK);
  for (int hold = MESSAGING__HOLDS_ALL; hold > MESSAGING__FLOWS; hold--) {
    assert_false(messaging__outbox_take(&outbox, (messaging__hold)hold, &batch));
    assert_int_equal(outbox.hold, hold);
    assert_int_equal(outbox.ready.count, 0);
  }
  assert_true(messaging__outbox_front(&outbox, MESSAGING__FLOWS, &batch)); /* the open one, which is closed */
  assert_int_equal(outbox.hold, MESSAGING__HOLDS_OPEN);
  assert_false(batch.crowded);
  assert_false(messaging__outbox_take(&outbox, MESSAGING__HOLDS_ALL, &batch));
  assert_true(messaging__outbox_take(&outbox, MESSAGING__HOLDS_OPEN, &batch));
  messaging__buffer_drop(batch.buffer); /* its bytes still count */
  for (int i = 0; i < 6; i++) assert_int_equal(put(&outbox, 900), MESSAGING_OK);
  while (messaging__outbox_take(&outbox, MESSAGING__FLOWS, &batch)) {
    assert_true(batch.crowded);
    messaging__buffer_drop(batch.buffer);
  }
  assert_int_equal(outbox.hold, MESSAGING__FLOWS);
  messaging__outbox_free(&outbox);
}

/* What ended a handle first stays its cause. */
static void test_cause_is_sticky(void **state) {
  messaging__inbox inbox;
  (void)state;
  assert_true(messaging__inbox_init(&inbox, 1000));
  messaging__inbox_end(&inbox, MESSAGING_ELOST);
  messaging__inbox_end(&inbox, MESSAGING_ESYS);
  assert_int_equal(inbox.cause, MESSAGING_ELOST);
  messaging__inbox_free(&inbox);
}

/* ---- The supervisor's machine without memory ---- */

static size_t sent_frames, told_errors;

static bool count_frame(void *self, messaging__slice frame) {
  (void)self, (void)frame;
  sent_frames++;
  return true;
}

static void count_error(void *self, const messaging_error *error) {
  (void)self, (void)error;
  told_errors++;
}

static int watch_nobody(void *self, pid_t id) {
  (void)self, (void)id;
  return MESSAGING__UNWATCHED;
}

typedef struct {
  messaging__im im;
  messaging__outbox outbox;
  messaging__inbox inbox;
} machine;

static void open_machine(machine *m, const messaging_child *children, size_t count) {
  static const uint8_t session[16] = {1};
  messaging_options options = {.heartbeat_ms = 1000, .silence_ms = 5000, .message_bytes_max = 1 << 20, .history_bytes_max = 1 << 24};
  messaging__who self = {100, MESSAGING_SUPERVISOR, 1};
  messaging__port port = {m, count_frame, count_error, watch_nobody, NULL, NULL};
  sent_frames = told_errors = 0;
  assert_true(messaging__outbox_init(&m->outbox, 1 << 22, options.message_bytes_max) && messaging__inbox_init(&m->inbox, 1 << 22));
  messaging__im_init(&m->im, &port, &m->outbox, &m->inbox, &self, session, &options);
  /* Before it runs, nothing is sent and nothing is due. */
  messaging__im_pump(&m->im, 1000);
  assert_true(sent_frames == 0 && messaging__im_deadline(&m->im, 1000) == MESSAGING__NEVER);
  assert_int_equal(messaging__im_run(&m->im, children, count, 1000), MESSAGING_OK);
}

static void close_machine(machine *m) {
  messaging__im_free(&m->im);
  messaging__outbox_free(&m->outbox);
  messaging__inbox_free(&m->inbox);
}

/* Whichever allocation fails, a list that cannot be grown stays as it was, and the next try succeeds. */
static void test_list_without_memory(void **state) {
  enum { MANY = 16 };
  messaging_child list[MANY + 1];
  (void)state;
  for (int i = 0; i <= MANY; i++) list[i] = (messaging_child){-1 - i, KIND};
  for (int update = 0; update < 2; update++) {
    int failed = 0;
    for (long at = 1;; at++) {
      machine m;
      open_machine(&m, list, MANY / 2);
      fail_at = at;
      messaging_status status = update ? messaging__im_update(&m.im, list, MANY + 1, 1000) : messaging__im_add(&m.im, list[MANY], 1000);
      bool reached = fail_at == 0;
      fail_at = 0;
      if (status == MESSAGING_OK) {
        assert_false(reached);
        close_machine(&m);
        break;
      }
      failed++;
      assert_int_equal(status, MESSAGING_ENOMEM);
      assert_true(m.im.live == MANY / 2 && m.im.peers.count == MANY / 2 && m.im.era.generation == 1);
      assert_int_equal(update ? messaging__im_update(&m.im, list, MANY + 1, 1000) : messaging__im_add(&m.im, list[MANY], 1000), MESSAGING_OK);
      assert_int_equal(m.im.live, update ? MANY + 1 : MANY / 2 + 1);
      close_machine(&m);
    }
    assert_true(failed >= 3);
  }
}

/* One whose batch is too large for the buffer that a repair is made in gets it once there is memory for it. */
static void test_repair_without_memory(void **state) {
  machine m;
  messaging_child child = {ID, KIND};
  uint8_t topic[MESSAGING__TOPIC_SIZE];
  (void)state;
  open_machine(&m, &child, 1);
  messaging__parked hello = {{ID, KIND, 77}, 1 << 20};
  messaging__peer *peer = messaging__im_peer(&m.im, 0);
  assert_true(messaging__im_admit(&m.im, peer, &hello, 1000));
  messaging__topic_of(topic, &peer->who);
  assert_int_equal(put(&m.outbox, 100000), MESSAGING_OK);
  messaging__im_pump(&m.im, 1000);
  assert_int_equal(messaging__im_next(&m.im), 2);
  for (long at = 2; at >= 1; at--) { /* the second allocation is the one that grows the buffer */
    peer->repairs[0] = (messaging__range){1, 2};
    peer->repair_count = 1;
    peer->repair_credit = 1 << 20;
    peer->repair_fresh = true;
    fail_at = at;
    messaging__im_repair(&m.im, peer);
    assert_true(fail_at == 0 && peer->repair_count == 0 && m.im.stats.batches_repeated == 0);
  }
  peer->repairs[0] = (messaging__range){1, 2};
  peer->repair_count = 1;
  peer->repair_fresh = true;
  messaging__im_repair(&m.im, peer);
  assert_true(peer->repair_count == 0 && m.im.stats.batches_repeated == 1);
  close_machine(&m);
}

/* ---- Handles ---- */

static void remember_error(const messaging_error *error, void *user) { __atomic_store_n((int *)user, (int)error->status, __ATOMIC_SEQ_CST); }

typedef struct {
  bus_ctx *im, *worker;
  messaging_addresses at;
  int im_error, worker_error;
} pair;

static void start(pair *p, const messaging_options *given) {
  messaging_child child = {ID, KIND};
  messaging_options options = given ? *given : (messaging_options){0};
  memset(p, 0, sizeof *p);
  assert_int_equal(bus_init_im(&p->im, &p->at, &options), MESSAGING_OK);
  assert_int_equal(bus_run_im(p->im, &child, 1, remember_error, &p->im_error), MESSAGING_OK);
  options.id = ID;
  assert_int_equal(bus_init_worker(&p->worker, KIND, p->at.pub, p->at.pull, &options), MESSAGING_OK);
}

static void run_worker(pair *p) { assert_int_equal(bus_run_worker(p->worker, remember_error, &p->worker_error), MESSAGING_OK); }

static void expect(bus_ctx *ctx, uint64_t value) {
  for (bool got = false; !got;) {
    bus_batch batch;
    assert_int_equal(bus_wait(ctx, DEADLINE_MS), MESSAGING_OK);
    assert_int_equal(bus_recv(ctx, &batch), MESSAGING_OK);
    if (batch.count) assert_true(batch.count == 1 && batch.messages[0].relay.message.value == value);
    got = batch.count > 0;
    assert_int_equal(bus_batch_free(&batch), MESSAGING_OK);
  }
}

typedef struct {
  bus_ctx *im;
  int sent;
  messaging_status worst;
} sender;

enum { LARGE_ONES = 12 };

static void *send_large(void *argument) {
  sender *s = (sender *)argument;
  fact message = {1, LARGE_BYTES};
  for (int i = 0; i < LARGE_ONES; i++) {
    messaging_status status = bus_send_relay_message(s->im, &message);
    if (status != MESSAGING_OK) s->worst = status;
    __atomic_add_fetch(&s->sent, 1, __ATOMIC_SEQ_CST);
  }
  return NULL;
}

static uint32_t blocked_in(bus_ctx *ctx) {
  messaging__outbox *outbox = &ctx->handle.outbox;
  pthread_mutex_lock(&outbox->lock);
  uint32_t blocked = outbox->blocked;
  pthread_mutex_unlock(&outbox->lock);
  return blocked;
}

/* A thread that waits for room gets it when the mailbox is purged. */
static void test_purge_makes_room(void **state) {
  messaging_options options = {.message_bytes_max = MESSAGE_BYTES, .outbox_bytes_max = 2 * MESSAGE_BYTES, .history_bytes_max = 2 * MESSAGE_BYTES,
                               .send_timeout_ms = DEADLINE_MS, .exit_timeout_ms = 50};
  messaging_child child = {ID, KIND};
  messaging_addresses at;
  sender s = {NULL, 0, MESSAGING_OK};
  pthread_t thread;
  int purges = 0;
  (void)state;
  assert_int_equal(bus_init_im(&s.im, &at, &options), MESSAGING_OK);
  assert_int_equal(bus_run_im(s.im, &child, 1, NULL, NULL), MESSAGING_OK); /* the child never comes: its history fills, then the outbox */
  assert_int_equal(pthread_create(&thread, NULL, send_large, &s), 0);
  while (__atomic_load_n(&s.sent, __ATOMIC_SEQ_CST) < LARGE_ONES) {
    WAIT_FOR(blocked_in(s.im) == 1 || __atomic_load_n(&s.sent, __ATOMIC_SEQ_CST) == LARGE_ONES);
    purges += __atomic_load_n(&s.sent, __ATOMIC_SEQ_CST) < LARGE_ONES;
    assert_int_equal(bus_purge_im_mailbox(s.im), MESSAGING_OK);
  }
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_int_equal(s.worst, MESSAGING_OK);
  assert_true(purges >= 2);
  assert_int_equal(bus_purge_im_mailbox(s.im), MESSAGING_OK); /* the last one too, so that exit has nothing to wait for */
  assert_int_equal(bus_exit(&s.im), MESSAGING_OK);
}

/* libzmq gives up: the handle has ended, every call says so, the handler too, and exit still releases everything. */
static void test_libzmq_gives_up(void **state) {
  (void)state;
  for (int which = 0; which < 2; which++) {
    pair p;
    messaging_stats stats;
    start(&p, NULL);
    run_worker(&p);
    WAIT_FOR(bus_stats(p.im, &stats) == MESSAGING_OK && stats.workers_joined == 1);
    bus_ctx **broken = which ? &p.worker : &p.im, **other = which ? &p.im : &p.worker;
    assert_int_equal(zmq_ctx_shutdown((*broken)->handle.context), 0);
    fact message = {1, 1};
    for (messaging_status status = MESSAGING_OK; status != MESSAGING_ESYS;) { /* at the worker behind a Terminate */
      bus_batch batch;
      status = bus_wait(*broken, DEADLINE_MS);
      assert_true(status == MESSAGING_OK || status == MESSAGING_ESYS);
      assert_int_equal(bus_recv(*broken, &batch), status);
      assert_int_equal(bus_batch_free(&batch), MESSAGING_OK);
    }
    assert_int_equal(bus_send_relay_message(*broken, &message), MESSAGING_ESYS);
    assert_int_equal(bus_flush(*broken, 0), MESSAGING_ESYS);
    WAIT_FOR(__atomic_load_n(which ? &p.worker_error : &p.im_error, __ATOMIC_SEQ_CST) == MESSAGING_ESYS);
    assert_int_equal(bus_exit(broken), MESSAGING_ESYS);
    messaging_status status = bus_exit(other); /* nobody is left to say goodbye to */
    assert_true(status == MESSAGING_OK || status == MESSAGING_ETIMEDOUT || status == MESSAGING_ELOST);
  }
}

static void *wait_long(void *argument) {
  static messaging_status status;
  status = bus_wait((bus_ctx *)argument, DEADLINE_MS);
  return &status;
}

static bool driven(bus_ctx *ctx) {
  messaging__lock(&ctx->handle);
  bool driven_now = MESSAGING__LOAD(&ctx->handle.driven) != 0;
  messaging__unlock(&ctx->handle);
  return driven_now;
}

/* Two threads wait: one reads the socket, the other is woken as well. */
static void test_two_wait(void **state) {
  pair p;
  pthread_t thread;
  void *status;
  (void)state;
  start(&p, NULL);
  run_worker(&p);
  assert_int_equal(pthread_create(&thread, NULL, wait_long, p.worker), 0);
  WAIT_FOR(driven(p.worker));
  assert_int_equal(bus_wait(p.worker, 1), MESSAGING_ETIMEDOUT);
  fact message = {5, 1};
  assert_int_equal(bus_send_relay_message(p.im, &message), MESSAGING_OK);
  assert_int_equal(bus_wait(p.worker, DEADLINE_MS), MESSAGING_OK);
  assert_int_equal(pthread_join(thread, &status), 0);
  assert_int_equal(*(messaging_status *)status, MESSAGING_OK);
  expect(p.worker, 5);
  assert_int_equal(bus_exit(&p.worker), MESSAGING_OK);
  assert_int_equal(bus_exit(&p.im), MESSAGING_OK);
}

/* Reads addresses that a forked supervisor wrote. */
static pid_t fork_supervisor(messaging_addresses *at) {
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    messaging_child child = {ID, KIND};
    bus_ctx *im;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bool fine = bus_init_im(&im, at, NULL) == MESSAGING_OK && bus_run_im(im, &child, 1, NULL, NULL) == MESSAGING_OK;
    if (!fine || write(ends[1], at, sizeof *at) != (ssize_t)sizeof *at) _exit(1);
    for (;;) pause();
  }
  close(ends[1]); /* so that the read ends with the child */
  assert_int_equal(read(ends[0], at, sizeof *at), sizeof *at);
  close(ends[0]);
  return pid;
}

static void remove_folder_of(const messaging_addresses *at) {
  char path[MESSAGING_ADDRESS_SIZE];
  unlink(at->pub + 6);
  unlink(at->pull + 6);
  snprintf(path, sizeof path, "%s", at->pub + 6);
  *strrchr(path, '/') = 0;
  assert_int_equal(rmdir(path), 0);
}

/* A supervisor in another process is killed: the worker here sees termination and the cause, what it sent last is not accepted. Who comes
 * after that sees it at once, by the folder's name, unless somebody listens there: then the pid may be one of another namespace. */
static void test_supervisor_is_killed(void **state) {
  messaging_options options = {.id = ID};
  messaging_addresses at;
  int error = 0;
  bus_ctx *worker;
  fact message = {1, 1};
  (void)state;
  int watch = pidfd_open(getpid(), 0);
  if (watch < 0) skip(); /* valgrind knows no pidfd */
  close(watch);
  pid_t pid = fork_supervisor(&at);
  assert_int_equal(bus_init_worker(&worker, KIND, at.pub, at.pull, &options), MESSAGING_OK);
  assert_int_equal(bus_run_worker(worker, remember_error, &error), MESSAGING_OK);
  assert_int_equal(bus_send_relay_message(worker, &message), MESSAGING_OK);
  assert_int_equal(bus_flush(worker, DEADLINE_MS), MESSAGING_OK);
  assert_int_equal(kill(pid, SIGKILL), 0);
  assert_int_equal(waitpid(pid, NULL, 0), pid);
  WAIT_FOR(bus_check_termination(worker));
  WAIT_FOR(__atomic_load_n(&error, __ATOMIC_SEQ_CST) == MESSAGING_ELOST);
  assert_int_equal(bus_send_relay_message(worker, &message), MESSAGING_ELOST);
  assert_int_equal(bus_exit(&worker), MESSAGING_ELOST);
  for (int listening = 0; listening < 2; listening++) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (listening) {
      unlink(at.pub + 6);
      snprintf(name.sun_path, sizeof name.sun_path, "%.100s", at.pub + 6);
      assert_true(bind(fd, (struct sockaddr *)&name, sizeof name) == 0 && listen(fd, 4) == 0);
    }
    options.exit_timeout_ms = 20;
    assert_int_equal(bus_init_worker(&worker, KIND, at.pub, at.pull, &options), MESSAGING_OK);
    error = 0;
    assert_int_equal(bus_run_worker(worker, remember_error, &error), MESSAGING_OK);
    if (!listening) WAIT_FOR(__atomic_load_n(&error, __ATOMIC_SEQ_CST) == MESSAGING_ELOST); /* found before there was a handler */
    assert_int_equal(bus_send_relay_message(worker, &message), listening ? MESSAGING_OK : MESSAGING_ELOST);
    assert_int_equal(bus_exit(&worker), listening ? MESSAGING_ETIMEDOUT : MESSAGING_ELOST);
    close(fd);
  }
  remove_folder_of(&at);
}

/* A handler that run_im itself calls is in the handler all the same. */
static void try_to_exit(const messaging_error *error, void *user) {
  bus_ctx **im = (bus_ctx **)user;
  bool refused = error->status == MESSAGING_ESYS && bus_exit(im) == MESSAGING_EINVAL && bus_flush(*im, 0) != MESSAGING_OK;
  if (!refused) *im = NULL;
}

/* In a process that may open few descriptors: the soft limit is raised to the hard one, and more workers than fit are refused with a report. */
static void test_descriptor_limit(void **state) {
  (void)state;
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    enum { MANY = 100 };
    struct rlimit limit = {64, 256};
    messaging_child list[MANY];
    messaging_addresses at;
    bus_ctx *im;
    int error = 0;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max != 256) _exit(2);
    bool fine = bus_init_im(&im, &at, NULL) == MESSAGING_OK;
    fine = fine && getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == 256;
    for (int i = 0; i < MANY; i++) list[i] = (messaging_child){-1 - i, KIND};
    fine = fine && bus_run_im(im, list, MANY, remember_error, &error) == MESSAGING_ESYS && error == MESSAGING_ESYS;
    fine = fine && bus_run_im(im, list, MANY, try_to_exit, &im) == MESSAGING_ESYS && im != NULL;
    fine = fine && bus_run_im(im, list, 1, NULL, NULL) == MESSAGING_OK;
    int first = dup(0), last = first;
    for (int next = first; fine && next >= 0; next = dup(0)) last = next; /* until there is none left: who is listed needs none, another one three and some */
    fine = fine && bus_update_child_processes_list(im, list, 1) == MESSAGING_OK && bus_update_child_processes_list(im, list, 2) == MESSAGING_ESYS;
    messaging_child other = {list[0].pid, KIND + 1}; /* which would be another worker */
    fine = fine && bus_update_child_processes_list(im, &other, 1) == MESSAGING_ESYS;
    fine = fine && bus_add_child_process(im, list[1]) == MESSAGING_ESYS && bus_update_child_processes_list(im, NULL, 0) == MESSAGING_OK;
    while (last >= first) close(last--);
    fine = fine && bus_exit(&im) == MESSAGING_OK;
    _exit(fine ? 0 : 1);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFEXITED(status));
  if (WEXITSTATUS(status) == 2) skip(); /* valgrind keeps limits of its own */
  assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- The trace ---- */

typedef struct {
  pthread_mutex_t lock;
  char text[1 << 16];
  size_t size;
} lines;

static void take_line(const char *line, void *user) {
  lines *all = (lines *)user;
  pthread_mutex_lock(&all->lock);
  int more = snprintf(all->text + all->size, sizeof all->text - all->size, "%s\n", line);
  if (more > 0 && all->size + (size_t)more < sizeof all->text) all->size += (size_t)more;
  pthread_mutex_unlock(&all->lock);
}

static bool traced(lines *all, const char *what) {
  pthread_mutex_lock(&all->lock);
  bool found = strstr(all->text, what) != NULL;
  pthread_mutex_unlock(&all->lock);
  return found;
}

/* Every kind of frame as a line, at the function that asks for lines and in the file that the environment names. A worker that comes late is the
 * one that needs a repair. */
static void test_trace(void **state) {
  static lines all = {.lock = PTHREAD_MUTEX_INITIALIZER};
  static const char *const wanted[] = {"receives HELLO generation 0", "sends WELCOME generation 1", "sends RELAY generation 1", " id -1 kind 4 nonce ", " number 1 position 1 count 1",
                                       "sends OUTPUT", "receives REPORT", "sends REPAIR", " batches 1 from position 1", "sends HEARTBEAT", "receives malformed"};
  char path[] = "/tmp/messaging-trace-XXXXXX", line[500];
  messaging_options options = {.trace = take_line, .trace_user = &all};
  messaging_output output = {MESSAGING_LOG, 1, "text", 4};
  fact message = {3, 1};
  pair p;
  (void)state;
  int fd = mkstemp(path);
  assert_true(fd >= 0 && setenv("MESSAGING_TRACE", path, 1) == 0);
  start(&p, &options);
  assert_int_equal(unsetenv("MESSAGING_TRACE"), 0);
  assert_int_equal(bus_send_relay_message(p.im, &message), MESSAGING_OK);
  messaging_stats stats;
  WAIT_FOR(bus_stats(p.im, &stats) == MESSAGING_OK && stats.next_number == 2);
  run_worker(&p);
  expect(p.worker, 3);
  assert_int_equal(bus_send_output_message(p.worker, &output), MESSAGING_OK);
  message.value = 4;
  assert_int_equal(bus_send_relay_message(p.worker, &message), MESSAGING_OK);
  assert_int_equal(bus_flush(p.worker, DEADLINE_MS), MESSAGING_OK);
  messaging__slice nothing = {NULL, (uint8_t *)line, 0};
  messaging__trace(&p.im->handle, "receives", nothing);
  for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) WAIT_FOR(traced(&all, wanted[i]));
  assert_int_equal(bus_exit(&p.worker), MESSAGING_OK);
  assert_int_equal(bus_exit(&p.im), MESSAGING_OK);
  size_t in_file = 0, told = 0;
  FILE *file = fdopen(fd, "r");
  assert_non_null(file);
  while (fgets(line, sizeof line, file)) {
    in_file++;
    assert_non_null(strstr(all.text, line));
  }
  fclose(file);
  unlink(path);
  for (size_t i = 0; i < all.size; i++) told += all.text[i] == '\n';
  assert_int_equal(in_file, told);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_map_against_a_table),
      cmocka_unit_test(test_blocks),
      cmocka_unit_test(test_block_write),
      cmocka_unit_test(test_page_in),
      cmocka_unit_test(test_pages_by_cost),
      cmocka_unit_test(test_outbox_in_blocks_without_memory),
      cmocka_unit_test(test_outbox_moves_on_without_memory),
      cmocka_unit_test(test_outbox_limits), cmocka_unit_test(test_outbox_holds),
      cmocka_unit_test(test_cause_is_sticky),
      cmocka_unit_test(test_list_without_memory),
      cmocka_unit_test(test_repair_without_memory),
      cmocka_unit_test(test_purge_makes_room),
      cmocka_unit_test(test_libzmq_gives_up),
      cmocka_unit_test(test_two_wait),
      cmocka_unit_test(test_supervisor_is_killed),
      cmocka_unit_test(test_descriptor_limit),
      cmocka_unit_test(test_trace),
  };
  setvbuf(stdout, NULL, _IOLBF, 0);
  cmocka_set_test_filter(getenv("MESSAGING_TEST"));
  return cmocka_run_group_tests(tests, NULL, NULL);
}
