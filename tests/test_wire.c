/* The bytes and the stores below the protocol: cursor, validation, frames, log, map, ring, outbox, inbox. No thread, no socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../messaging.h"

static uint64_t seed = 1;

static uint32_t below(uint32_t bound) {
  seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint32_t)(((seed >> 33) * bound) >> 31);
}

/* ---- cursor ---- */

/* A reader on a copy of exactly that size, so that a read behind the end shows under AddressSanitizer and valgrind. */
typedef struct {
  uint8_t *copy;
  messaging__reader reader;
} exact;

static exact exact_of(const void *bytes, size_t size) {
  exact e = {malloc(size ? size : 1), {NULL, NULL, false}};
  assert_non_null(e.copy);
  memcpy(e.copy, bytes, size);
  e.reader.at = e.copy;
  e.reader.end = e.copy + size;
  return e;
}

static void check_int(const msgpack_sbuffer *packed, int64_t value) {
  exact e = exact_of(packed->data, packed->size);
  assert_true(messaging__read_int(&e.reader) == value);
  assert_false(e.reader.bad);
  assert_ptr_equal(e.reader.at, e.reader.end);
  free(e.copy);
  for (size_t cut = 0; cut < packed->size; cut++) {
    e = exact_of(packed->data, cut);
    assert_true(messaging__read_int(&e.reader) == 0);
    assert_true(e.reader.bad);
    free(e.copy);
  }
}

/* Every value near a power of two, in every width that holds it, signed and unsigned. */
static void test_integers_of_all_widths(void **state) {
  (void)state;
  for (unsigned shift = 0; shift < 64; shift++)
    for (int near = -2; near <= 2; near++)
      for (int sign = 0; sign < 2; sign++) {
        uint64_t bits = ((uint64_t)1 << shift) + (uint64_t)(int64_t)near;
        int64_t value = (int64_t)(sign ? 0 - bits : bits);
        msgpack_sbuffer out;
        msgpack_packer pk;
        msgpack_sbuffer_init(&out);
        msgpack_packer_init(&pk, &out, msgpack_sbuffer_write);
#define AS(width, type)                                        \
  if (value == (int64_t)(type)value && !(value < 0 && (type)-1 > 0)) { \
    out.size = 0;                                              \
    msgpack_pack_fix_##width(&pk, (type)value);                \
    check_int(&out, value);                                    \
  }
        AS(int8, int8_t) AS(int16, int16_t) AS(int32, int32_t) AS(int64, int64_t)
        AS(uint8, uint8_t) AS(uint16, uint16_t) AS(uint32, uint32_t) AS(uint64, uint64_t)
#undef AS
        out.size = 0;
        msgpack_pack_int64(&pk, value);
        check_int(&out, value);
        msgpack_sbuffer_destroy(&out);
      }
}

static void test_unsigned_limits(void **state) {
  (void)state;
  const uint8_t most[] = {0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, minus[] = {0xff}, text[] = {0xa0};
  exact e = exact_of(most, sizeof most);
  assert_true(messaging__read_uint(&e.reader, UINT64_MAX) == UINT64_MAX);
  e.reader.at = e.copy;
  assert_true(messaging__read_uint(&e.reader, UINT64_MAX - 1) == 0 && e.reader.bad);
  e.reader.at = e.copy, e.reader.bad = false;
  assert_true(messaging__read_int(&e.reader) == 0 && e.reader.bad);
  assert_true(messaging__read_uint(&e.reader, UINT64_MAX) == 0 && e.reader.bad); /* bad stays */
  free(e.copy);
  e = exact_of(minus, 1);
  assert_true(messaging__read_uint(&e.reader, UINT64_MAX) == 0 && e.reader.bad);
  free(e.copy);
  e = exact_of(text, 1);
  assert_true(messaging__read_uint(&e.reader, UINT64_MAX) == 0 && e.reader.bad);
  free(e.copy);
}

/* Strings and binaries of each header, whole and cut at every byte. */
static void test_bytes(void **state) {
  (void)state;
  static const struct { uint8_t head[5]; size_t head_size, length; } forms[] = {
      {{0xa0}, 1, 0}, {{0xbf}, 1, 31}, {{0xc4, 200}, 2, 200}, {{0xd9, 200}, 2, 200}, {{0xc5, 1, 44}, 3, 300}, {{0xda, 1, 44}, 3, 300},
      {{0xc6, 0, 0, 1, 44}, 5, 300}, {{0xdb, 0, 0, 1, 44}, 5, 300}};
  for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
    uint8_t bytes[400] = {0};
    size_t size = forms[i].head_size + forms[i].length, read_size;
    memcpy(bytes, forms[i].head, forms[i].head_size);
    for (size_t cut = 0; cut <= size; cut++) {
      exact e = exact_of(bytes, cut);
      const uint8_t *at = messaging__read_bytes(&e.reader, &read_size);
      assert_int_equal(e.reader.bad, cut < size);
      assert_int_equal(read_size, cut < size ? 0 : forms[i].length);
      if (cut == size) assert_ptr_equal(at, e.copy + forms[i].head_size);
      else assert_null(at);
      free(e.copy);
    }
  }
}

/* Lengths that no frame can hold are refused before anything is done with them. */
static void test_huge_lengths(void **state) {
  (void)state;
  static const uint8_t tags[] = {0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf};
  for (size_t i = 0; i < sizeof tags; i++) {
    uint8_t bytes[16];
    size_t size;
    memset(bytes, 0xff, sizeof bytes);
    bytes[0] = tags[i];
    exact e = exact_of(bytes, sizeof bytes);
    assert_false(messaging__holds(e.copy, sizeof bytes, 1));
    assert_null(messaging__read_bytes(&e.reader, &size));
    assert_true(e.reader.bad);
    free(e.copy);
  }
}

/* ---- validation ---- */

/* Whether msgpack-c unpacks the bytes as exactly one object. */
static bool unpacks(const uint8_t *bytes, size_t size) {
  msgpack_unpacked result;
  msgpack_unpacked_init(&result);
  size_t offset = 0;
  bool fine = msgpack_unpack_next(&result, (const char *)bytes, size, &offset) == MSGPACK_UNPACK_SUCCESS && offset == size;
  msgpack_unpacked_destroy(&result);
  return fine;
}

static void test_nesting(void **state) {
  (void)state;
  for (size_t depth = 0; depth < 40; depth++)
    for (unsigned kind = 0; kind < 4; kind++) {
      static const uint8_t opens[4][5] = {{0x91}, {0x81, 0xc0}, {0xdc, 0, 1}, {0xdd, 0, 0, 0, 1}};
      static const size_t sizes[4] = {1, 2, 3, 5};
      uint8_t bytes[256];
      size_t size = 0;
      for (size_t i = 0; i < depth; i++, size += sizes[kind]) memcpy(bytes + size, opens[kind], sizes[kind]);
      bytes[size++] = 0xc0;
      exact e = exact_of(bytes, size);
      assert_int_equal(messaging__holds(e.copy, size, 1), depth <= 32);
      assert_int_equal(unpacks(e.copy, size), depth <= 32);
      free(e.copy);
    }
}

/* An empty container counts as a level, in msgpack-c and so here. */
static void test_nesting_of_empty_containers(void **state) {
  (void)state;
  for (size_t depth = 28; depth < 38; depth++) {
    uint8_t bytes[64];
    memset(bytes, 0x91, depth);
    bytes[depth] = 0x90;
    assert_int_equal(messaging__holds(bytes, depth + 1, 1), unpacks(bytes, depth + 1));
  }
}

/* Random bytes: whatever is accepted here, msgpack-c unpacks too; what it refuses that we do not is only what promises too much. */
static void test_validation_agrees_with_msgpack(void **state) {
  (void)state;
  size_t accepted = 0;
  for (int round = 0; round < 400000; round++) {
    uint8_t bytes[24];
    size_t size = 1 + below(sizeof bytes);
    for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)(below(3) ? 0x80 + below(0x80) : below(256));
    if (below(2)) bytes[0] = (uint8_t)(0x90 + below(16));
    bool ours = messaging__holds(bytes, size, 1);
    accepted += ours;
    if (ours) assert_true(unpacks(bytes, size));
    /* msgpack-c reserves memory for what a header promises, before it looks: only small promises are put to it. */
    bool small = memchr(bytes, 0xdd, size) == NULL && memchr(bytes, 0xdf, size) == NULL;
    if (!ours && small) assert_false(unpacks(bytes, size));
  }
  assert_true(accepted > 1000);
}

static void test_count_of_objects(void **state) {
  (void)state;
  const uint8_t three[] = {0x01, 0x92, 0x01, 0x02, 0xa1, 'x'};
  for (uint64_t count = 0; count < 6; count++) assert_int_equal(messaging__holds(three, sizeof three, count), count == 3);
  for (size_t cut = 0; cut < sizeof three; cut++) assert_false(messaging__holds(three, cut, 3));
  assert_true(messaging__holds(three, 0, 0));
}

/* ---- batch frames ---- */

static const messaging__era era = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, 0x01020304};
static const messaging__batch golden = {MESSAGING__RELAY, -2, 7, 0x1122334455667788, 0x0a0b, 0x0c0d0e, 2, 1, 3,
                                        {0x99aabbccddeeff00, 0x0c0d00, 0x77}};
static const char golden_hex[] =
    "96a7423030303030300202"               /* ["B000000", 2, RELAY, */
    "c410000102030405060708090a0b0c0d0e0f" /* session, */
    "ce01020304"                           /* generation, [ */
    "9bd3fffffffffffffffe"                 /* id, */
    "ce00000007"                           /* kind, */
    "cf1122334455667788"                   /* nonce, */
    "cf0000000000000a0b"                   /* number, */
    "cf00000000000c0d0e"                   /* position, */
    "cf99aabbccddeeff00"                   /* run: nonce, */
    "cf00000000000c0d00"                   /* first, */
    "cf0000000000000077"                   /* batch, */
    "ce00000002"                           /* count, */
    "01"                                   /* flags, */
    "c600000003"                           /* payload */
    "01a178";

static size_t unhex(const char *hex, uint8_t *bytes) {
  size_t size = strlen(hex) / 2;
  for (size_t i = 0; i < size; i++) {
    unsigned value;
    assert_int_equal(sscanf(hex + 2 * i, "%2x", &value), 1);
    bytes[i] = (uint8_t)value;
  }
  return size;
}

static void test_golden_batch(void **state) {
  (void)state;
  uint8_t expected[160], frame[160] = {0};
  size_t size = unhex(golden_hex, expected);
  assert_int_equal(size, MESSAGING__AT_PAYLOAD + 3);
  messaging__batch_write(frame, &era, &golden);
  memcpy(frame + MESSAGING__AT_PAYLOAD, "\x01\xa1x", 3);
  assert_memory_equal(frame, expected, size);
  assert_true(unpacks(frame, size));
  messaging__batch read;
  assert_true(messaging__batch_read(frame, size, &read));
  assert_true(read.type == golden.type && read.id == golden.id && read.kind == golden.kind && read.nonce == golden.nonce);
  assert_true(read.number == golden.number && read.position == golden.position && read.count == golden.count);
  assert_true(read.flags == golden.flags && read.payload_size == golden.payload_size);
  assert_true(read.run.nonce == golden.run.nonce && read.run.first == golden.run.first && read.run.batch == golden.run.batch);
}

/* A slot in the topic: its binary digits, so that any other slot's differ from it somewhere. */
static void test_letters(void **state) {
  (void)state;
  for (unsigned slot = 0; slot < MESSAGING__SLOTS; slot++) {
    uint8_t letters[MESSAGING__LETTERS];
    unsigned value = 0;
    messaging__put_letters(letters, slot);
    for (size_t i = 0; i < sizeof letters; i++) {
      assert_true(letters[i] == '0' || letters[i] == '1');
      value = value << 1 | (letters[i] & 1u);
    }
    assert_int_equal(value, slot);
  }
}

enum { DEADLINE_MS = 60000 };

/* A worker's input socket, and a publisher that it is connected to. */
typedef struct {
  messaging__handle *handle;
  void *context, *pub;
} receiver;

static receiver open_receiver(void) {
  receiver r = {calloc(1, sizeof *r.handle), zmq_ctx_new(), NULL};
  int deadline = DEADLINE_MS;
  assert_non_null(r.handle);
  r.pub = zmq_socket(r.context, ZMQ_XPUB);
  r.handle->in = zmq_socket(r.context, ZMQ_SUB);
  zmq_setsockopt(r.handle->in, ZMQ_RCVTIMEO, &deadline, sizeof deadline);
  zmq_setsockopt(r.pub, ZMQ_RCVTIMEO, &deadline, sizeof deadline);
  assert_true(zmq_bind(r.pub, "inproc://receiver") == 0 && zmq_connect(r.handle->in, "inproc://receiver") == 0);
  return r;
}

static void close_receiver(receiver *r) {
  zmq_close(r->handle->in);
  zmq_close(r->pub);
  zmq_ctx_term(r->context);
  free(r->handle);
}

/* The subscriptions that a slot brings about, as the publisher sees them: exactly one for each other slot's batches, none for its own; they
 * all begin as batches do, and end as they came. */
static void test_subscriptions(void **state) {
  (void)state;
  receiver r = open_receiver();
  messaging__handle *handle = r.handle;
  for (unsigned slot = 0; slot < MESSAGING__SLOTS; slot++) {
    size_t heard[MESSAGING__SLOTS] = {0}, topics = slot ? MESSAGING__LETTERS : 1;
    uint8_t seen[20];
    assert_true(messaging__subscribe(handle, ZMQ_SUBSCRIBE, slot));
    for (size_t i = 0; i < topics; i++) {
      int size = zmq_recv(r.pub, seen, sizeof seen, 0);
      assert_in_range(size, 1 + 3, 1 + 3 + MESSAGING__LETTERS);
      assert_memory_equal(seen, "\x01\x96\xa7\x42", 4);
      for (unsigned other = 0; other < MESSAGING__SLOTS; other++) {
        uint8_t letters[MESSAGING__LETTERS];
        messaging__put_letters(letters, other);
        heard[other] += memcmp(letters, seen + 4, (size_t)size - 4) == 0;
      }
    }
    for (unsigned other = 0; other < MESSAGING__SLOTS; other++) assert_int_equal(heard[other], slot == 0 || other != slot);
    assert_true(messaging__subscribe(handle, ZMQ_UNSUBSCRIBE, slot));
    for (size_t i = 0; i < topics; i++) assert_true(zmq_recv(r.pub, seen, sizeof seen, 0) > 0 && seen[0] == 0);
  }
  close_receiver(&r);
}

/* From one slot to another, nothing is unsubscribed from that the new one needs. */
static void test_tuning(void **state) {
  (void)state;
  receiver r = open_receiver();
  messaging__handle *handle = r.handle;
  static const unsigned slots[] = {0, 1, 2, 63, 62, 1, 0, 32, 33, 5, 0};
  assert_true(messaging__subscribe(handle, ZMQ_SUBSCRIBE, 0));
  for (size_t i = 0; i < sizeof slots / sizeof slots[0]; i++) {
    handle->worker.slot = slots[i];
    handle->worker.tune = true;
    messaging__tune(handle);
    assert_true(!handle->worker.tune && handle->slot == slots[i]);
    char last[] = {'m', (char)('a' + i)}, seen[20] = {0}; /* when the publisher has seen it, it has seen all before it */
    assert_int_equal(zmq_setsockopt(handle->in, ZMQ_SUBSCRIBE, last, sizeof last), 0);
    while (memcmp(seen + 1, last, sizeof last) != 0) assert_true(zmq_recv(r.pub, seen, sizeof seen, 0) > 0);
    for (unsigned other = 0; other < MESSAGING__SLOTS; other++) {
      uint8_t topic[3 + MESSAGING__LETTERS] = {0x96, 0xa7, 0x42}, got[20];
      messaging__put_letters(topic + 3, other);
      assert_int_equal(zmq_send(r.pub, topic, sizeof topic, 0), (int)sizeof topic);
      if (slots[i] && other == slots[i]) continue;
      assert_int_equal(zmq_recv(handle->in, got, sizeof got, 0), (int)sizeof topic);
      assert_memory_equal(got, topic, sizeof topic); /* so its own did not come before it */
    }
  }
  close_receiver(&r);
}

/* What is not exactly that layout is refused: cut at any byte, or any tag another. */
static void test_batch_is_refused(void **state) {
  (void)state;
  uint8_t frame[160];
  messaging__batch read;
  size_t size = unhex(golden_hex, frame);
  for (size_t cut = 0; cut < size; cut++) {
    exact e = exact_of(frame, cut);
    assert_false(messaging__batch_read(e.copy, cut, &read));
    free(e.copy);
  }
  static const size_t tags[] = {1, 34, 35, 44, 49, 58, 67, 76, 85, 94, 103, 109};
  for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
    frame[tags[i]] ^= 1;
    assert_false(messaging__batch_read(frame, size, &read));
    frame[tags[i]] ^= 1;
  }
  assert_true(messaging__batch_read(frame, size, &read));
  messaging__batch wrong = golden;
  wrong.count = 0, messaging__batch_write(frame, &era, &wrong), assert_false(messaging__batch_read(frame, size, &read));
  wrong.count = 4, messaging__batch_write(frame, &era, &wrong), assert_false(messaging__batch_read(frame, size, &read));
  wrong = golden, wrong.nonce = 0, messaging__batch_write(frame, &era, &wrong), assert_false(messaging__batch_read(frame, size, &read));
  wrong = golden, wrong.number = UINT64_MAX, messaging__batch_write(frame, &era, &wrong), assert_false(messaging__batch_read(frame, size, &read));
  wrong = golden, wrong.position = UINT64_MAX, messaging__batch_write(frame, &era, &wrong), assert_false(messaging__batch_read(frame, size, &read));
  wrong = golden, wrong.run.first = UINT64_MAX, messaging__batch_write(frame, &era, &wrong), assert_false(messaging__batch_read(frame, size, &read));
  wrong = golden, wrong.run.batch = UINT64_MAX, messaging__batch_write(frame, &era, &wrong), assert_false(messaging__batch_read(frame, size, &read));
  wrong = golden, wrong.payload_size = UINT32_MAX, messaging__batch_write(frame, &era, &wrong), assert_false(messaging__batch_read(frame, size, &read));
}

static void test_topics(void **state) {
  (void)state;
  uint8_t topic[MESSAGING__TOPIC_SIZE], expected[64];
  messaging__who who = {-2, 7, 0x1122334455667788};
  messaging__writer writer;
  messaging__topic_of(topic, &who);
  assert_int_equal(unhex("96c41157fffffffffffffffe1122334455667788", expected), sizeof topic);
  assert_memory_equal(topic, expected, sizeof topic);
  messaging__frame_begin(&writer, &who, 0, MESSAGING__REFUSE, &era);
  messaging__put_tag(&writer, 0x91);
  messaging__put_uint(&writer, MESSAGING_EKIND);
  assert_memory_equal(writer.bytes, topic, sizeof topic);
  assert_true(unpacks(writer.bytes, writer.size));
  messaging__reader reader = {writer.bytes, writer.bytes + writer.size, false};
  messaging__envelope envelope;
  assert_true(messaging__envelope_read(&reader, &envelope));
  assert_int_equal(envelope.topic_size, 17);
  assert_int_equal(envelope.type, MESSAGING__REFUSE);
  assert_true(envelope.generation == era.generation);
}

/* Whatever is read at fixed places is what the other way of reading finds, byte by byte of the header, with a mistake in none or one of the others. */
static void test_envelope_at_fixed_places(void **state) {
  (void)state;
  uint8_t frame[MESSAGING__AT_PAYLOAD + 32];
  size_t read = 0, size = sizeof frame;
  memset(frame, 0xc0, size);
  messaging__batch batch = golden;
  batch.payload_size = 32;
  for (size_t at = 0; at < MESSAGING__AT_GENERATION + 4; at++)
    for (unsigned value = 0; value < 256 * 4; value++) {
      messaging__batch_write(frame, &era, &batch);
      frame[at] = (uint8_t)value;
      if (value >= 256) frame[below(MESSAGING__AT_GENERATION + 4)] = (uint8_t)below(256);
      messaging__reader fixed = {frame, frame + size, false}, any = fixed;
      messaging__envelope by_place, by_reading;
      if (!messaging__envelope_of_batch(&fixed, &by_place)) {
        assert_ptr_equal(fixed.at, frame);
        continue;
      }
      read++;
      assert_true(messaging__envelope_of_any(&any, &by_reading));
      assert_ptr_equal(fixed.at, any.at);
      assert_ptr_equal(by_place.topic, by_reading.topic);
      assert_ptr_equal(by_place.session, by_reading.session);
      assert_int_equal(by_place.topic_size, by_reading.topic_size);
      assert_int_equal(by_place.version, by_reading.version);
      assert_int_equal(by_place.type, by_reading.type);
      assert_int_equal(by_place.generation, by_reading.generation);
    }
  assert_in_range(read, 10000, 34 * 256 * 4);
  messaging__batch_write(frame, &era, &batch);
  messaging__reader cut = {frame, frame + MESSAGING__AT_PAYLOAD - 1, false};
  messaging__envelope envelope;
  assert_false(messaging__envelope_of_batch(&cut, &envelope));
  assert_true(messaging__envelope_read(&cut, &envelope));
}

/* ---- maps and rings against naive models ---- */

enum { KEYS = 97 };

static void test_map(void **state) {
  (void)state;
  messaging__map map = {NULL, 0, 0};
  void *model[KEYS] = {NULL};
  size_t count = 0;
  for (int round = 0; round < 200000; round++) {
    size_t k = below(KEYS);
    uint64_t key = k % 3 == 0 ? k + 1 : k % 3 == 1 ? (uint64_t)(int64_t)-(int)k : (k + 1) << 32; /* these collide in places */
    if (below(round / 1000 % 2 ? 3 : 2)) {
      messaging__map_remove(&map, key);
      count -= model[k] != NULL;
      model[k] = NULL;
    } else {
      void *value = &model[below(KEYS)];
      assert_true(messaging__map_put(&map, key, value));
      count += model[k] == NULL;
      model[k] = value;
    }
    assert_ptr_equal(messaging__map_get(&map, key), model[k]);
    assert_int_equal(map.count, count);
    assert_true(map.capacity >= 2 * count);
    if (round % 1000) continue;
    for (size_t i = 0; i < KEYS; i++) {
      uint64_t other = i % 3 == 0 ? i + 1 : i % 3 == 1 ? (uint64_t)(int64_t)-(int)i : (i + 1) << 32;
      assert_ptr_equal(messaging__map_get(&map, other), model[i]);
    }
  }
  assert_null(messaging__map_get(&map, 0));
  messaging__map_free(&map);
  assert_null(messaging__map_get(&map, 1));
}

static void test_ring(void **state) {
  (void)state;
  messaging__ring ring;
  uint32_t pushed = 0, popped = 0;
  messaging__ring_init(&ring, sizeof pushed);
  for (int round = 0; round < 100000; round++) {
    uint32_t many = below(20);
    bool grows = round / 500 % 2;
    for (; many; many--) {
      if (below(grows ? 3 : 2) && pushed - popped < 3000) {
        assert_true(messaging__ring_push(&ring, &pushed));
        pushed++;
      } else if (popped < pushed) {
        assert_int_equal(*(uint32_t *)messaging__ring_at(&ring, 0), popped);
        messaging__ring_pop(&ring);
        popped++;
      }
    }
    assert_int_equal(ring.count, pushed - popped);
    if (ring.count) assert_int_equal(*(uint32_t *)messaging__ring_at(&ring, ring.count - 1), pushed - 1);
    if (ring.count) assert_int_equal(*(uint32_t *)messaging__ring_at(&ring, ring.count / 2), popped + ring.count / 2);
  }
  messaging__ring_free(&ring);
}

/* ---- log ---- */

/* A frame of the log: count messages, of this size in all; its numbers are where the log ends. */
static messaging__buffer *log_frame(const messaging__log *log, uint32_t count, size_t size) {
  assert_true(size > MESSAGING__AT_PAYLOAD);
  messaging__buffer *buffer = messaging__buffer_new(size);
  assert_non_null(buffer);
  messaging__batch batch = golden;
  batch.count = count;
  batch.position = log->next;
  batch.payload_size = (uint32_t)(size - MESSAGING__AT_PAYLOAD);
  memset(buffer->data, 0xc0, size);
  messaging__batch_write(buffer->data, &era, &batch);
  buffer->size = size;
  return buffer;
}

static void check_find(const messaging__log *log, uint64_t number) {
  messaging__place place = messaging__log_find(log, number);
  messaging__slice frame;
  messaging__batch batch;
  bool found = messaging__log_read(log, &place, &frame);
  assert_int_equal(found, number < log->next);
  if (!found) return;
  assert_true(messaging__batch_read(frame.data, frame.size, &batch));
  uint64_t wanted = number < log->first ? log->first : number;
  assert_true(batch.position <= wanted && wanted < batch.position + batch.count);
}

static void check_walk(const messaging__log *log) {
  messaging__place place = {0, 0}, end = messaging__log_end(log);
  messaging__slice frame;
  messaging__batch batch;
  uint64_t next = log->first;
  while (messaging__log_read(log, &place, &frame)) {
    assert_true(messaging__batch_read(frame.data, frame.size, &batch));
    assert_true(batch.position == next && frame.size == MESSAGING__AT_PAYLOAD + (size_t)batch.payload_size);
    next += batch.count;
  }
  assert_true(next == log->next);
  assert_true(place.chunk == end.chunk && place.offset == end.offset);
}

/* Appends, finds, walks and trims; how many of the chunks that were seen were blocks, and how many of these had been used before. */
static size_t use_log(size_t limit, int rounds, uint32_t small, uint32_t large, size_t *used_blocks) {
  messaging__log log = {0};
  messaging__buffer *used = NULL;
  size_t blocks = 0;
  *used_blocks = 0;
  messaging__log_init(&log, limit);
  check_walk(&log);
  check_find(&log, 1);
  for (int round = 0; round < rounds; round++) {
    size_t size = MESSAGING__AT_PAYLOAD + 40 + (below(10) ? below(small) : below(large));
    while (!messaging__log_fits(&log, size)) messaging__log_drop(&log);
    messaging__buffer *buffer = log_frame(&log, 1 + below(40), size);
    messaging__slice kept, lent = messaging__slice_of(buffer);
    if (below(2)) lent.owner = NULL;
    assert_true(messaging__log_append(&log, lent, (uint32_t)messaging__load_be(buffer->data + MESSAGING__AT_COUNT, 4), &kept));
    assert_int_equal(kept.size, size);
    assert_memory_equal(kept.data, buffer->data, size);
    assert_int_equal(buffer->references, 1 + (kept.data == buffer->data));
    messaging__buffer_drop(buffer);
    assert_true(log.bytes <= log.bytes_max);
    for (int i = 0; i < 4; i++) check_find(&log, log.first + below((uint32_t)(log.next - log.first) + 2));
    check_find(&log, log.first);
    check_find(&log, log.next - 1);
    if (round % 100 == 0) check_walk(&log);
    if (below(50) == 0) messaging__log_drop(&log);
    if (log.chunks.count == 0) assert_true(log.first == log.next && log.bytes == 0);
    else blocks += kept.owner->capacity >= MESSAGING__BLOCK_BYTES;
    if (used && kept.owner == used && kept.data == used->data + 4) ++*used_blocks;
    used = log.stock.spare;
    if (used) assert_true(used->references == 1 && used->capacity >= MESSAGING__BLOCK_BYTES);
  }
  assert_true(log.first > 1);
  messaging__log_free(&log);
  return blocks;
}

/* Small frames behind each other, large ones in chunks of their own, all found by number, across chunks and after trimming. */
static void test_log(void **state) {
  (void)state;
  size_t used;
  assert_int_equal(use_log(1 << 20, 4000, 400, 90000, &used), 0);
  assert_int_equal(used, 0);
}

/* A large log goes on in blocks, which take all but the very large frames, and are used again. */
static void test_log_in_blocks(void **state) {
  (void)state;
  size_t used;
  assert_true(use_log((size_t)64 << 20, 1500, 60000, 3 << 20, &used) > 100);
  assert_true(used > 3);
}

/* Appends a frame of this size, which a message of libzmq's owns, and says where it lies. */
static messaging__slice append_frame(messaging__log *log, size_t size) {
  messaging__slice kept;
  messaging__buffer *buffer = log_frame(log, 1, size);
  assert_true(messaging__log_append(log, messaging__slice_of(buffer), 1, &kept));
  assert_memory_equal(kept.data, buffer->data, size);
  messaging__buffer_drop(buffer);
  return kept;
}

/* The first frame of a burst orders a block, in which a young log goes on as soon as it is ready; one of another size does not. */
static void test_young_log_in_blocks(void **state) {
  (void)state;
  enum { BURSTS = 150000, TOO_SMALL = MESSAGING__TOUCH_BYTES - 1, TOO_LARGE = MESSAGING__BLOCK_BYTES / 8 + 1 };
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  messaging__log log = {0};
  messaging__log_init(&log, (size_t)64 << 20);
  append_frame(&log, TOO_SMALL);
  append_frame(&log, TOO_LARGE);
  assert_false(messaging__stock_ask(&log.stock));
  append_frame(&log, BURSTS);
  assert_true(messaging__stock_ask(&log.stock));
  append_frame(&log, BURSTS); /* not ready yet */
  assert_int_equal(log.chunks.count, 4);
  assert_true(messaging__log_chunk(&log, 3)->whole);
  messaging__stock_make(&log.stock, &lock);
  const messaging__buffer *block = log.stock.spare;
  assert_true(block && block->capacity >= 8 * BURSTS && log.stock.small_ns > 0);
  assert_ptr_equal(append_frame(&log, BURSTS).owner, block);
  assert_ptr_equal(append_frame(&log, 1000).owner, block);
  assert_true(log.chunks.count == 5 && !log.stock.spare);
  append_frame(&log, 2 << 20); /* too large for blocks, and what follows begins none */
  assert_int_equal(append_frame(&log, 1000).owner->capacity, log.chunk_bytes);
  assert_int_equal(log.chunks.count, 7);
  check_walk(&log);
  while (log.chunks.count) messaging__log_drop(&log);
  assert_true(append_frame(&log, BURSTS).owner->capacity >= MESSAGING__BLOCK_BYTES); /* not young any more */
  messaging__log_free(&log);
  messaging__log_init(&log, 1 << 20); /* one that will never be large */
  append_frame(&log, BURSTS);
  messaging__buffer_drop(messaging__stock_clear(&log.stock));
  log.stock.order = MESSAGING__STOCKED;
  append_frame(&log, BURSTS);
  assert_false(messaging__stock_ask(&log.stock));
  messaging__log_free(&log);
}

/* A place at the end finds what is appended later. */
static void test_log_place_at_the_end(void **state) {
  (void)state;
  messaging__log log = {0};
  messaging__slice kept, frame;
  messaging__log_init(&log, 1 << 16);
  messaging__place place = messaging__log_end(&log);
  for (int round = 0; round < 300; round++) {
    assert_false(messaging__log_read(&log, &place, &frame));
    messaging__buffer *buffer = log_frame(&log, 1, MESSAGING__AT_PAYLOAD + 1 + below(5000));
    assert_true(messaging__log_append(&log, messaging__slice_of(buffer), 1, &kept));
    assert_true(messaging__log_read(&log, &place, &frame));
    assert_ptr_equal(frame.data, kept.data);
    messaging__buffer_drop(buffer);
  }
  messaging__log_free(&log);
}

/* ---- outbox ---- */

typedef struct {
  size_t size; /* of the binary */
  int fault;   /* 1: refuse, after writing; 2: two objects; 3: nothing */
} blob;

static int blob_encode(msgpack_packer *pk, const void *message) {
  static const char bytes[3 << 20];
  const blob *b = (const blob *)message;
  if (b->fault == 3) return 0;
  if (msgpack_pack_bin(pk, b->size) != 0 || msgpack_pack_bin_body(pk, bytes, b->size) != 0) return -1;
  if (b->fault == 2) msgpack_pack_nil(pk);
  return b->fault == 1;
}

static messaging_status put(messaging__outbox *outbox, uint8_t type, size_t size, int fault) {
  blob b = {size, fault};
  bool urgent = false;
  return messaging__outbox_put(outbox, type, blob_encode, &b, &urgent);
}

/* What is not taken leaves no byte behind, first in a batch or not. */
static void test_outbox_rolls_back(void **state) {
  (void)state;
  messaging__outbox outbox;
  messaging__outgoing batch = {NULL, 0, 0, false};
  assert_true(messaging__outbox_init(&outbox, 4000, 1000));
  for (int before = 0; before < 3; before++) {
    size_t bytes = outbox.bytes;
    assert_int_equal(put(&outbox, MESSAGING__RELAY, 10, 1), MESSAGING_EENCODE);
    assert_int_equal(put(&outbox, MESSAGING__RELAY, 10, 2), MESSAGING_EENCODE);
    assert_int_equal(put(&outbox, MESSAGING__RELAY, 10, 3), MESSAGING_EENCODE);
    assert_int_equal(put(&outbox, MESSAGING__RELAY, 998, 0), MESSAGING_ETOOBIG);
    assert_int_equal(outbox.bytes, bytes);
    assert_int_equal(outbox.relays, before);
    assert_int_equal(put(&outbox, MESSAGING__RELAY, 10, 0), MESSAGING_OK);
  }
  assert_true(messaging__outbox_front(&outbox, MESSAGING__FLOWS, &batch));
  assert_int_equal(batch.count, 3);
  assert_int_equal(batch.buffer->size, MESSAGING__AT_PAYLOAD + 3 * 12);
  assert_true(messaging__holds(batch.buffer->data + MESSAGING__AT_PAYLOAD, 36, 3));
  messaging__outbox_free(&outbox);
}

/* The limit: in bytes, but one message always goes into an empty outbox; released bytes make room again. */
static void test_outbox_limits(void **state) {
  (void)state;
  messaging__outbox outbox;
  messaging__outgoing batch = {NULL, 0, 0, false};
  assert_true(messaging__outbox_init(&outbox, 2000, 1000));
  assert_int_equal(put(&outbox, MESSAGING__RELAY, 997, 0), MESSAGING_OK); /* 1000 with its head: the largest */
  assert_int_equal(put(&outbox, MESSAGING__OUTPUT, 997, 0), MESSAGING_EFULL);
  assert_int_equal(put(&outbox, MESSAGING__OUTPUT, 700, 0), MESSAGING_OK);
  assert_int_equal(put(&outbox, MESSAGING__OUTPUT, 200, 0), MESSAGING_EFULL);
  assert_true(outbox.bytes <= outbox.bytes_max);
  assert_true(messaging__outbox_front(&outbox, MESSAGING__HOLDS_OPEN, &batch));
  assert_int_equal(batch.type, MESSAGING__RELAY);
  size_t size = batch.buffer->size;
  messaging__outbox_pop(&outbox);
  messaging__buffer_drop(batch.buffer);
  assert_int_equal(put(&outbox, MESSAGING__OUTPUT, 200, 0), MESSAGING_EFULL); /* on the wire it still counts */
  messaging__outbox_release(&outbox, size);
  assert_int_equal(put(&outbox, MESSAGING__OUTPUT, 200, 0), MESSAGING_OK);
  messaging__outbox_close(&outbox);
  assert_int_equal(put(&outbox, MESSAGING__OUTPUT, 1, 0), MESSAGING_ENOTRUNNING);
  messaging__outbox_clear(&outbox);
  assert_int_equal(outbox.bytes, 0);
  assert_true(messaging__outbox_empty(&outbox));
  messaging__outbox_free(&outbox);
}

static void take_front(messaging__outbox *outbox) {
  messaging__outgoing batch = {NULL, 0, 0, false};
  assert_true(messaging__outbox_front(outbox, MESSAGING__FLOWS, &batch));
  size_t size = batch.buffer->size;
  messaging__outbox_pop(outbox);
  messaging__buffer_drop(batch.buffer);
  messaging__outbox_release(outbox, size);
}

/* What batches a burst makes of messages of this size, all of which wait. */
static void check_batches(size_t bytes, uint32_t messages, size_t messages_max, size_t least_of_most) {
  messaging__outbox outbox;
  messaging__outgoing batch = {NULL, 0, 0, false};
  uint32_t taken = 0, largest = 0;
  assert_true(messaging__outbox_init(&outbox, (size_t)64 << 20, 16 << 20));
  for (uint32_t i = 0; i < messages; i++) assert_int_equal(put(&outbox, MESSAGING__RELAY, bytes, 0), MESSAGING_OK);
  while (messaging__outbox_take(&outbox, MESSAGING__FLOWS, &batch)) {
    size_t size = batch.buffer->size;
    assert_true(messaging__holds(batch.buffer->data + MESSAGING__AT_PAYLOAD, size - MESSAGING__AT_PAYLOAD, batch.count));
    assert_true(batch.count <= messages_max || size < 2 * MESSAGING__SEAL_BYTES + bytes);
    assert_true(batch.count == 1 || size <= MESSAGING__GROWN_BYTES);
    assert_true(batch.count == 1 || size < 2 * MESSAGING__SEAL_BYTES + bytes || batch.buffer->block); /* it was not moved while it grew */
    if (batch.count > largest) largest = batch.count;
    taken += batch.count;
    messaging__buffer_drop(batch.buffer);
    messaging__outbox_release(&outbox, size);
  }
  assert_int_equal(taken, messages);
  assert_true(largest >= least_of_most);
  messaging__outbox_free(&outbox);
}

/* While much waits, batches grow: those of small messages to twice the size that they have otherwise, others as long as they have few messages. */
static void test_outbox_batches_grow(void **state) {
  (void)state;
  check_batches(100, 50000, MESSAGING__GROWN_MESSAGES, 2 * MESSAGING__SEAL_BYTES / 110);
  check_batches(4096, 4000, MESSAGING__GROWN_MESSAGES, MESSAGING__GROWN_MESSAGES);
  check_batches(16384, 2000, MESSAGING__GROWN_MESSAGES, 40);
  check_batches(262144, 100, 3, 3);
  check_batches(500000, 60, 1, 1);
}

/* A message for which a batch that is large enough has no room, in its block or by its limit, goes to the next one, be it taken in the end or not. */
static void test_outbox_moves_on(void **state) {
  (void)state;
  for (int large = 0; large < 2; large++)
    for (int fault = 0; fault < 3; fault++) {
      messaging__outbox outbox;
      messaging__outgoing batch = {NULL, 0, 0, false};
      uint32_t count = 0, taken = 0;
      assert_true(messaging__outbox_init(&outbox, (size_t)64 << 20, 2 << 20));
      for (; outbox.bytes < (size_t)8 << 20 || outbox.open.buffer == NULL || outbox.open.count < 3 || outbox.open.buffer->size < 2 * MESSAGING__SEAL_BYTES; count++)
        assert_int_equal(put(&outbox, MESSAGING__RELAY, 30000, 0), MESSAGING_OK);
      messaging__buffer *before = outbox.open.buffer;
      size_t size = before->size, ready = outbox.ready.count, bytes = outbox.bytes;
      uint32_t open = outbox.open.count;
      size_t message = large ? (2u << 20) - 5 : MESSAGING__GROWN_BYTES;
      messaging_status expected = fault == 0 ? MESSAGING_OK : fault == 1 ? MESSAGING_EENCODE : MESSAGING_ETOOBIG;
      assert_int_equal(put(&outbox, MESSAGING__RELAY, fault == 2 ? 2u << 20 : message, fault == 1), expected);
      assert_int_equal(outbox.ready.count, ready + 1 + (fault == 0));
      assert_int_equal(outbox.bytes, bytes + (fault == 0 ? MESSAGING__AT_PAYLOAD + message + 5 : 0));
      const messaging__outgoing *full = (const messaging__outgoing *)messaging__ring_at(&outbox.ready, ready);
      assert_true(full->buffer == before && before->size == size && full->count == open);
      assert_int_equal(put(&outbox, MESSAGING__RELAY, 30000, 0), MESSAGING_OK);
      while (messaging__outbox_take(&outbox, MESSAGING__FLOWS, &batch)) {
        assert_true(messaging__holds(batch.buffer->data + MESSAGING__AT_PAYLOAD, batch.buffer->size - MESSAGING__AT_PAYLOAD, batch.count));
        taken += batch.count;
        messaging__outbox_release(&outbox, batch.buffer->size);
        messaging__buffer_drop(batch.buffer);
      }
      assert_int_equal(taken, count + 1 + (fault == 0));
      assert_int_equal(outbox.bytes, 0);
      messaging__outbox_free(&outbox);
    }
}

/* In a burst batches share blocks; the last one that is dropped takes its block along. The blocks are kept for
 * the next burst, which begins in them, until there is none for many batches, or nothing at all for a heartbeat. */
static void test_outbox_burst(void **state) {
  (void)state;
  messaging__outbox outbox;
  messaging__outgoing batch = {NULL, 0, 0, false};
  size_t messages = 0, parts = 0;
  assert_true(messaging__outbox_init(&outbox, (size_t)64 << 20, 1 << 20));
  for (size_t i = 0; i < 3000; i++) assert_int_equal(put(&outbox, MESSAGING__RELAY, i % 500 == 499 ? 131000 : 3000 + i, 0), MESSAGING_OK);
  assert_true(outbox.blocks.count > 2);
  while (messaging__outbox_take(&outbox, MESSAGING__FLOWS, &batch)) {
    size_t size = batch.buffer->size;
    assert_true(messaging__holds(batch.buffer->data + MESSAGING__AT_PAYLOAD, size - MESSAGING__AT_PAYLOAD, batch.count));
    messages += batch.count;
    parts += batch.buffer->block != NULL;
    messaging__buffer_drop(batch.buffer);
    messaging__outbox_release(&outbox, size);
  }
  assert_int_equal(messages, 3000);
  assert_true(parts > 30);
  assert_int_equal(outbox.bytes, 0);
  size_t kept = outbox.blocks.count;
  assert_true(kept > 2);
  assert_int_equal(put(&outbox, MESSAGING__RELAY, 5, 0), MESSAGING_OK); /* as after a burst */
  assert_non_null(outbox.open.buffer->block);
  assert_ptr_equal(outbox.open.buffer->data, outbox.open.buffer->block->data); /* which is all free again */
  take_front(&outbox);
  for (int i = 1; i <= MESSAGING__CALM_BATCHES; i++) { /* large or small: both are lone */
    assert_int_equal(outbox.blocks.count, kept);
    assert_int_equal(put(&outbox, MESSAGING__RELAY, i < MESSAGING__CALM_BATCHES / 2 ? 5 : 60000, 0), MESSAGING_OK);
    if (i < MESSAGING__CALM_BATCHES) take_front(&outbox);
  }
  messaging__outbox_rest(&outbox);
  assert_int_equal(outbox.blocks.count, kept - 1);
  for (size_t i = 0; i < kept; i++) {
    take_front(&outbox);
    assert_int_equal(put(&outbox, MESSAGING__RELAY, 60000, 0), MESSAGING_OK);
  }
  assert_int_equal(outbox.blocks.count, 0);
  assert_null(outbox.open.buffer->block);
  messaging__outbox_clear(&outbox);
  messaging__outbox_rest(&outbox);
  assert_int_equal(outbox.blocks.count, 0);
  messaging__outbox_free(&outbox);
}

/* A burst that is taken as fast as it comes goes round in the same few blocks, in larger ones when its messages grow, and nothing is
 * overwritten that somebody still holds. */
static void test_outbox_blocks_go_round(void **state) {
  (void)state;
  messaging__outbox outbox;
  messaging__outgoing batch = {NULL, 0, 0, false}, held = {NULL, 0, 0, false};
  uint8_t *before = NULL;
  size_t blocks_max = 0, held_at = 0;
  assert_true(messaging__outbox_init(&outbox, (size_t)64 << 20, 4 << 20));
  for (size_t i = 0; i < 600; i++) {
    assert_int_equal(put(&outbox, MESSAGING__RELAY, i < 400 ? 300000 : 3000000, 0), MESSAGING_OK);
    if (i < 4) continue;
    assert_true(messaging__outbox_take(&outbox, MESSAGING__FLOWS, &batch));
    size_t size = batch.buffer->size;
    assert_true(messaging__holds(batch.buffer->data + MESSAGING__AT_PAYLOAD, size - MESSAGING__AT_PAYLOAD, batch.count));
    if (i == 200) { /* libzmq takes its time with this one */
      held = batch;
      held_at = size;
      before = (uint8_t *)malloc(size);
      assert_non_null(before);
      memcpy(before, batch.buffer->data, size);
    } else {
      messaging__buffer_drop(batch.buffer);
    }
    messaging__outbox_release(&outbox, size);
    if (i == 250) {
      assert_memory_equal(held.buffer->data, before, held_at);
      messaging__buffer_drop(held.buffer);
    }
    if (i < 200 && outbox.blocks.count > blocks_max) blocks_max = outbox.blocks.count;
  }
  free(before);
  assert_in_range(blocks_max, 1, 4);
  assert_in_range(outbox.blocks.count, 1, 8);
  for (size_t i = 0; i < outbox.blocks.count; i++)
    assert_true((*(messaging__buffer **)messaging__ring_at(&outbox.blocks, i))->capacity >= 3000000);
  messaging__outbox_free(&outbox);
}

/* A part of a block that needs more than is left goes on in memory of its own, with what it has. */
static void test_part_outgrows_its_block(void **state) {
  (void)state;
  messaging__buffer *block = messaging__block_new(1), *first = block ? messaging__part_new(block) : NULL;
  assert_non_null(first);
  assert_int_equal((uintptr_t)block->data % MESSAGING__BLOCK_BYTES, 0);
  assert_int_equal(block->capacity, MESSAGING__BLOCK_BYTES);
  memcpy(first->data, "first", first->size = 5);
  messaging__part_close(first);
  messaging__buffer *second = messaging__part_new(block);
  assert_ptr_equal(second->data, block->data + 16);
  memcpy(second->data, "second", second->size = 6);
  assert_int_equal(block->references, 3);
  assert_true(messaging__buffer_reserve(second, MESSAGING__BLOCK_BYTES));
  assert_int_equal(block->references, 2);
  assert_memory_equal(second->data, "second", 6);
  assert_true(second->block == NULL && second->capacity >= MESSAGING__BLOCK_BYTES);
  messaging__buffer_drop(block);
  assert_memory_equal(first->data, "first", 5);
  messaging__buffer_drop(first);
  messaging__buffer_drop(second);
}

/* Types never share a batch, and the order between them stays. */
static void test_outbox_order(void **state) {
  (void)state;
  messaging__outbox outbox;
  messaging__outgoing batch = {NULL, 0, 0, false};
  static const uint8_t types[] = {MESSAGING__RELAY, MESSAGING__RELAY, MESSAGING__OUTPUT, MESSAGING__RELAY, MESSAGING__OUTPUT, MESSAGING__OUTPUT};
  static const uint32_t counts[] = {2, 1, 1, 2};
  assert_true(messaging__outbox_init(&outbox, 1 << 20, 1000));
  for (size_t i = 0; i < sizeof types; i++) assert_int_equal(put(&outbox, types[i], 5, 0), MESSAGING_OK);
  for (size_t i = 0; i < 4; i++) {
    assert_true(messaging__outbox_front(&outbox, MESSAGING__FLOWS, &batch));
    assert_int_equal(batch.type, i % 2 ? MESSAGING__OUTPUT : MESSAGING__RELAY);
    assert_int_equal(batch.count, counts[i]);
    messaging__outbox_pop(&outbox);
    messaging__outbox_release(&outbox, batch.buffer->size);
    messaging__buffer_drop(batch.buffer);
  }
  assert_false(messaging__outbox_front(&outbox, MESSAGING__FLOWS, &batch));
  assert_true(messaging__outbox_empty(&outbox));
  messaging__outbox_free(&outbox);
}

/* ---- inbox ---- */

enum { OWN_NONCE = 77 };

static void inbox_relay(messaging__inbox *inbox, uint64_t nonce, uint32_t count) {
  messaging__buffer *buffer = log_frame(&inbox->log, count, 200);
  messaging__batch batch;
  messaging__slice kept;
  messaging__store_be(buffer->data + MESSAGING__AT_NONCE, nonce, 8);
  assert_true(messaging__batch_read(buffer->data, buffer->size, &batch));
  assert_true(messaging__inbox_log(inbox, messaging__slice_of(buffer), &batch, &kept));
  messaging__buffer_drop(buffer);
}

static messaging__put_result inbox_output(messaging__inbox *inbox, uint64_t number, size_t size) {
  messaging__buffer *buffer = log_frame(&inbox->log, 1, size);
  messaging__batch batch = golden;
  batch.type = MESSAGING__OUTPUT;
  batch.number = number;
  messaging__put_result result = messaging__inbox_put(inbox, messaging__slice_of(buffer), &batch);
  messaging__buffer_drop(buffer);
  return result;
}

/* The next frame is this: a relay batch from a position on, or an output batch of a number; 0: there is none. */
static void check_next(messaging__inbox *inbox, uint8_t type, uint64_t which) {
  messaging__item item;
  bool found = messaging__inbox_next(inbox, &item);
  assert_int_equal(found, which != 0);
  if (!found) return;
  assert_int_equal(item.batch.type, type);
  assert_true((type == MESSAGING__RELAY ? item.batch.position : item.batch.number) == which);
  messaging__buffer_drop(item.frame.owner);
}

static void supervisor_inbox(messaging__inbox *inbox, size_t bytes_max) {
  assert_true(messaging__inbox_init(inbox, bytes_max));
  inbox->has_log = true;
  inbox->own_nonce = OWN_NONCE;
  messaging__log_init(&inbox->log, 1 << 16);
}

/* Outputs and relays come out as they came in; the application's own relays do not. */
static void test_supervisor_inbox_order(void **state) {
  (void)state;
  messaging__inbox inbox;
  supervisor_inbox(&inbox, 1 << 16);
  check_next(&inbox, 0, 0);
  inbox_output(&inbox, 1, 120);
  inbox_relay(&inbox, 5, 3);          /* 1 to 3 */
  inbox_relay(&inbox, OWN_NONCE, 2);  /* 4, 5 */
  inbox_output(&inbox, 2, 120);
  inbox_output(&inbox, 3, 120);
  inbox_relay(&inbox, 5, 1);          /* 6 */
  inbox_relay(&inbox, OWN_NONCE, 1);  /* 7 */
  check_next(&inbox, MESSAGING__OUTPUT, 1);
  check_next(&inbox, MESSAGING__RELAY, 1);
  check_next(&inbox, MESSAGING__OUTPUT, 2);
  check_next(&inbox, MESSAGING__OUTPUT, 3);
  check_next(&inbox, MESSAGING__RELAY, 6);
  check_next(&inbox, 0, 0);
  assert_int_equal(inbox.bytes, 0);
  inbox_relay(&inbox, OWN_NONCE, 1); /* 8 */
  inbox_output(&inbox, 4, 120);
  inbox_relay(&inbox, 5, 1); /* 9 */
  messaging__inbox_settle(&inbox);
  assert_true(inbox.readable);
  check_next(&inbox, MESSAGING__OUTPUT, 4);
  check_next(&inbox, MESSAGING__RELAY, 9);
  check_next(&inbox, 0, 0);
  messaging__inbox_settle(&inbox);
  assert_false(inbox.readable);
  messaging__inbox_free(&inbox);
}

/* Trimming under the application's cursor moves it behind what is gone, and counts what is left right. */
static void test_supervisor_inbox_trimmed(void **state) {
  (void)state;
  messaging__inbox inbox;
  supervisor_inbox(&inbox, 1 << 16);
  for (int i = 0; i < 100; i++) inbox_relay(&inbox, i % 5 ? 5 : OWN_NONCE, 2); /* chunks of 4096 bytes hold 20 */
  check_next(&inbox, MESSAGING__RELAY, 3);
  messaging__inbox_log_drop(&inbox);
  assert_true(inbox.log.first == 41 && inbox.cursor_number == 41 && inbox.cursor_batches == 64);
  for (uint64_t i = 20; i < 100; i++)
    if (i % 5) check_next(&inbox, MESSAGING__RELAY, 2 * i + 1);
  check_next(&inbox, 0, 0);
  messaging__inbox_log_drop(&inbox); /* what was read already */
  inbox_relay(&inbox, 5, 1);
  check_next(&inbox, MESSAGING__RELAY, 201);
  messaging__inbox_free(&inbox);
}

/* A new generation: what was not received of the old one comes first, then numbers begin anew. A purge drops it. */
static void test_supervisor_inbox_renewed(void **state) {
  (void)state;
  for (int purge = 0; purge < 2; purge++) {
    messaging__inbox inbox;
    supervisor_inbox(&inbox, 1 << 16);
    inbox_relay(&inbox, 5, 3);
    inbox_output(&inbox, 1, 120);
    inbox_relay(&inbox, OWN_NONCE, 1);
    inbox_relay(&inbox, 5, 1);
    assert_true(messaging__inbox_renew(&inbox, purge));
    assert_true(inbox.log.next == 1);
    inbox_relay(&inbox, 6, 2);
    inbox_output(&inbox, 2, 120);
    if (!purge) {
      check_next(&inbox, MESSAGING__RELAY, 1);
      check_next(&inbox, MESSAGING__OUTPUT, 1);
      check_next(&inbox, MESSAGING__RELAY, 5);
    }
    check_next(&inbox, MESSAGING__RELAY, 1);
    check_next(&inbox, MESSAGING__OUTPUT, 2);
    check_next(&inbox, 0, 0);
    assert_int_equal(inbox.bytes, 0);
    messaging__inbox_free(&inbox);
  }
}

/* Bounded in bytes; an empty inbox takes one frame of any size; credit is room, and none while little is left. */
static void test_inbox_limits(void **state) {
  (void)state;
  messaging__inbox inbox;
  supervisor_inbox(&inbox, 1000);
  assert_int_equal(messaging__inbox_credit(&inbox), 1000);
  assert_false(inbox.wanted);
  assert_int_equal(inbox_output(&inbox, 1, 2000), MESSAGING__PUT);
  assert_int_equal(inbox_output(&inbox, 2, 120), MESSAGING__NO_ROOM);
  assert_true(inbox.wanted);
  assert_int_equal(messaging__inbox_credit(&inbox), 0);
  check_next(&inbox, MESSAGING__OUTPUT, 1);
  assert_int_equal(inbox_output(&inbox, 2, 400), MESSAGING__PUT);
  assert_int_equal(messaging__inbox_credit(&inbox), 600);
  assert_int_equal(inbox_output(&inbox, 3, 400), MESSAGING__PUT);
  assert_int_equal(messaging__inbox_credit(&inbox), 0);
  assert_int_equal(inbox_output(&inbox, 4, 201), MESSAGING__NO_ROOM);
  assert_int_equal(inbox_output(&inbox, 4, 200), MESSAGING__PUT);
  for (uint64_t i = 2; i < 5; i++) check_next(&inbox, MESSAGING__OUTPUT, i);
  check_next(&inbox, 0, 0);
  messaging__inbox_free(&inbox);
}

/* Small frames share chunks, large ones are kept as they came; references come and go evenly. */
static void test_slices_are_kept(void **state) {
  (void)state;
  messaging__buffer *chunk = NULL;
  messaging__slice kept[200];
  size_t sizes[] = {1, 100, 8191, 8192, 16384, 16385, 70000};
  for (size_t i = 0; i < 200; i++) {
    messaging__buffer *buffer = messaging__buffer_new(sizes[i % 7]);
    buffer->size = sizes[i % 7];
    memset(buffer->data, (int)i, buffer->size);
    messaging__slice lent = messaging__slice_of(buffer);
    if (i % 2) lent.owner = NULL;
    assert_true(messaging__slice_keep(lent, &chunk, &kept[i]));
    assert_int_equal(kept[i].owner == buffer, lent.owner && lent.size >= MESSAGING__WRAP_BYTES);
    messaging__buffer_drop(buffer);
  }
  for (size_t i = 0; i < 200; i++) {
    assert_int_equal(kept[i].size, sizes[i % 7]);
    assert_true(kept[i].data[0] == (uint8_t)i && kept[i].data[kept[i].size - 1] == (uint8_t)i);
    messaging__buffer_drop(kept[i].owner);
  }
  assert_int_equal(chunk->references, 1);
  messaging__buffer_drop(chunk);
}

/* A part that is less than half of its frame is copied: else a frame of any size would be held by a few of its bytes. */
static void test_small_parts_are_copied(void **state) {
  (void)state;
  messaging__buffer *chunk = NULL, *frame = messaging__buffer_new(100000);
  messaging__slice kept = {NULL, NULL, 0};
  frame->size = 100000;
  memset(frame->data, 7, frame->size);
  messaging__slice small = {frame, frame->data + 10, 49999}, large = {frame, frame->data + 10, 50000};
  assert_true(messaging__slice_keep(small, &chunk, &kept));
  assert_true(kept.owner != frame && kept.size == 49999 && kept.data[49998] == 7);
  messaging__buffer_drop(kept.owner);
  assert_true(messaging__slice_keep(large, &chunk, &kept));
  assert_true(kept.owner == frame && frame->references == 2);
  messaging__buffer_drop(kept.owner);
  messaging__buffer_drop(frame);
  messaging__buffer_drop(chunk);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_integers_of_all_widths),
      cmocka_unit_test(test_unsigned_limits),
      cmocka_unit_test(test_bytes),
      cmocka_unit_test(test_huge_lengths),
      cmocka_unit_test(test_nesting),
      cmocka_unit_test(test_nesting_of_empty_containers),
      cmocka_unit_test(test_validation_agrees_with_msgpack),
      cmocka_unit_test(test_count_of_objects),
      cmocka_unit_test(test_golden_batch),
      cmocka_unit_test(test_letters),
      cmocka_unit_test(test_subscriptions),
      cmocka_unit_test(test_tuning),
      cmocka_unit_test(test_batch_is_refused),
      cmocka_unit_test(test_topics),
      cmocka_unit_test(test_envelope_at_fixed_places),
      cmocka_unit_test(test_map),
      cmocka_unit_test(test_ring),
      cmocka_unit_test(test_log),
      cmocka_unit_test(test_log_in_blocks),
      cmocka_unit_test(test_young_log_in_blocks),
      cmocka_unit_test(test_log_place_at_the_end),
      cmocka_unit_test(test_outbox_batches_grow),
      cmocka_unit_test(test_outbox_moves_on),
      cmocka_unit_test(test_outbox_burst),
      cmocka_unit_test(test_outbox_blocks_go_round),
      cmocka_unit_test(test_part_outgrows_its_block),
      cmocka_unit_test(test_outbox_rolls_back),
      cmocka_unit_test(test_outbox_limits),
      cmocka_unit_test(test_outbox_order),
      cmocka_unit_test(test_supervisor_inbox_order),
      cmocka_unit_test(test_supervisor_inbox_trimmed),
      cmocka_unit_test(test_supervisor_inbox_renewed),
      cmocka_unit_test(test_inbox_limits),
      cmocka_unit_test(test_slices_are_kept),
      cmocka_unit_test(test_small_parts_are_copied),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
