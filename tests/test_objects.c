/* Objects are read as msgpack-c reads them: same values, same types, the same bytes accepted, whatever a peer sent. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../messaging.h"

enum { SIZE_MAX_BYTES = 4096, DEPTH = MESSAGING__NESTING_MAX, ROUNDS = 200000 };

static uint64_t state = 88172645463325252u;

static uint64_t draw(uint64_t below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state % below;
}

typedef struct {
  uint8_t bytes[SIZE_MAX_BYTES];
  size_t size;
} text;

static void put(text *t, uint64_t value, size_t size) {
  if (t->size + size > sizeof t->bytes) return;
  messaging__store_be(t->bytes + t->size, value, size);
  t->size += size;
}

/* One object with a random tag; what it holds is as promised, unless there is no more room. */
static void put_object(text *t, unsigned depth) {
  uint8_t tag = depth > 6 ? (uint8_t)draw(0x80) : (uint8_t)draw(256);
  uint64_t elements = 0, body = 0;
  put(t, tag, 1);
  if (tag >= 0x80 && tag <= 0x8f) elements = (uint64_t)(tag & 15) * 2;
  else if (tag >= 0x90 && tag <= 0x9f) elements = tag & 15;
  else if (tag >= 0xa0 && tag <= 0xbf) body = tag & 31;
  else if (tag >= 0xc4 && tag <= 0xc9) put(t, body = draw(20), (size_t)1 << ((tag - 0xc4) % 3)), body += tag >= 0xc7;
  else if (tag >= 0xca && tag <= 0xd3) body = (const uint8_t[]){4, 8, 1, 2, 4, 8, 1, 2, 4, 8}[tag - 0xca];
  else if (tag >= 0xd4 && tag <= 0xd8) body = ((uint64_t)1 << (tag - 0xd4)) + 1;
  else if (tag >= 0xd9 && tag <= 0xdb) put(t, body = draw(40), (size_t)1 << (tag - 0xd9));
  else if (tag == 0xdc || tag == 0xdd) put(t, elements = draw(20), tag == 0xdc ? 2 : 4);
  else if (tag == 0xde || tag == 0xdf) put(t, elements = draw(10), tag == 0xde ? 2 : 4), elements *= 2;
  while (body--) put(t, draw(4) ? draw(256) : draw(2) * 255, 1);
  while (elements--) put_object(t, depth + 1);
}

static void assert_same(const msgpack_object *ours, const msgpack_object *theirs) {
  assert_int_equal(ours->type, theirs->type);
  switch (theirs->type) {
    case MSGPACK_OBJECT_NIL: return;
    case MSGPACK_OBJECT_BOOLEAN: assert_int_equal(ours->via.boolean, theirs->via.boolean); return;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
    case MSGPACK_OBJECT_NEGATIVE_INTEGER: assert_true(ours->via.u64 == theirs->via.u64); return;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64: assert_memory_equal(&ours->via.f64, &theirs->via.f64, sizeof(double)); return;
    case MSGPACK_OBJECT_STR:
    case MSGPACK_OBJECT_BIN:
      assert_int_equal(ours->via.bin.size, theirs->via.bin.size);
      if (theirs->via.bin.size) assert_ptr_equal(ours->via.bin.ptr, theirs->via.bin.ptr);
      return;
    case MSGPACK_OBJECT_EXT:
      assert_int_equal(ours->via.ext.type, theirs->via.ext.type);
      assert_int_equal(ours->via.ext.size, theirs->via.ext.size);
      if (theirs->via.ext.size) assert_ptr_equal(ours->via.ext.ptr, theirs->via.ext.ptr);
      return;
    case MSGPACK_OBJECT_ARRAY:
      assert_int_equal(ours->via.array.size, theirs->via.array.size);
      for (uint32_t i = 0; i < theirs->via.array.size; i++) assert_same(ours->via.array.ptr + i, theirs->via.array.ptr + i);
      return;
    case MSGPACK_OBJECT_MAP:
      assert_int_equal(ours->via.map.size, theirs->via.map.size);
      for (uint32_t i = 0; i < theirs->via.map.size; i++) {
        assert_same(&ours->via.map.ptr[i].key, &theirs->via.map.ptr[i].key);
        assert_same(&ours->via.map.ptr[i].val, &theirs->via.map.ptr[i].val);
      }
      return;
    default: fail_msg("type %d", (int)theirs->type);
  }
}

/* Whether the bytes begin with an object. What is accepted is what skip_object accepts, to the same end, and msgpack-c makes the same of it. */
static bool check(const uint8_t *bytes, size_t size, msgpack_zone *zone) {
  messaging__reader reader = {bytes, bytes + size, false}, skipped = reader;
  msgpack_object ours, theirs;
  size_t offset = 0;
  msgpack_zone_clear(zone);
  messaging_status status = messaging__read_object(&reader, zone, &ours);
  assert_int_equal(status, messaging__skip_object(&skipped) ? MESSAGING_OK : MESSAGING_EBADMSG);
  if (status != MESSAGING_OK) return false;
  assert_ptr_equal(reader.at, skipped.at);
  int unpacked = msgpack_unpack((const char *)bytes, size, &offset, zone, &theirs);
  assert_true(unpacked == MSGPACK_UNPACK_SUCCESS || unpacked == MSGPACK_UNPACK_EXTRA_BYTES);
  assert_ptr_equal(bytes + offset, reader.at);
  assert_same(&ours, &theirs);
  return true;
}

static void test_well_formed_and_not(void **unused) {
  (void)unused;
  msgpack_zone *zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
  size_t accepted = 0, refused = 0;
  for (int round = 0; round < ROUNDS; round++) {
    text t;
    t.size = 0;
    put_object(&t, 0);
    for (uint64_t faults = draw(3); faults; faults--) t.bytes[draw(t.size)] = (uint8_t)draw(256);
    *(check(t.bytes, t.size, zone) ? &accepted : &refused) += 1;
  }
  assert_true(accepted > ROUNDS / 8 && refused > ROUNDS / 8);
  msgpack_zone_free(zone);
}

/* Containers in each other that promise as much as is left, each of them, take no more memory than one that keeps its promise. */
static void test_nested_promises(void **unused) {
  (void)unused;
  enum { SIZE = 4 << 20, LEVELS = 20 };
  uint8_t *bytes = (uint8_t *)calloc(SIZE, 1);
  assert_non_null(bytes);
  for (size_t level = 0; level < LEVELS; level++) memcpy(bytes + 5 * level, level % 2 ? "\xdf\x00\x10\x00\x00" : "\xdd\x00\x30\x00\x00", 5);
  msgpack_zone *zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
  messaging__reader reader = {bytes, bytes + SIZE, false}, skipped = reader;
  msgpack_object object;
  struct mallinfo2 before = mallinfo2();
  assert_int_equal(messaging__read_object(&reader, zone, &object), MESSAGING_EBADMSG);
  struct mallinfo2 after = mallinfo2();
  assert_true(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd <= 2 * SIZE * sizeof object); /* a zone grows by doubling */
  assert_false(messaging__skip_object(&skipped));
  msgpack_zone_free(zone);
  free(bytes);
}

/* Each cut of each object is refused, and nothing behind its end is looked at. */
static void test_truncated(void **unused) {
  (void)unused;
  msgpack_zone *zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
  for (int round = 0; round < 2000; round++) {
    text t;
    t.size = 0;
    put_object(&t, 4);
    messaging__reader whole = {t.bytes, t.bytes + t.size, false};
    if (!messaging__skip_object(&whole)) continue;
    for (size_t size = 0; size < (size_t)(whole.at - t.bytes); size++) {
      uint8_t *copy = (uint8_t *)malloc(size + 1); /* of its own, so that the sanitizers see every step too far */
      assert_non_null(copy);
      memcpy(copy, t.bytes, size);
      assert_false(check(copy, size, zone));
      free(copy);
    }
  }
  msgpack_zone_free(zone);
}

static void test_nesting(void **unused) {
  (void)unused;
  msgpack_zone *zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
  for (size_t depth = 0; depth < DEPTH + 8; depth++) {
    uint8_t bytes[DEPTH + 10];
    memset(bytes, 0x91, depth);
    bytes[depth] = 0x2a;
    assert_int_equal(check(bytes, depth + 1, zone), depth <= DEPTH);
    bytes[depth] = 0x90; /* an empty container is a level, too */
    assert_int_equal(check(bytes, depth + 1, zone), depth < DEPTH);
  }
  msgpack_zone_free(zone);
}

/* A container that promises more than is there reserves nothing. */
static void test_promises(void **unused) {
  (void)unused;
  msgpack_zone *zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
  static const uint8_t tags[] = {0xdd, 0xdf};
  for (size_t i = 0; i < sizeof tags; i++) {
    uint8_t bytes[] = {tags[i], 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0};
    const void *before = zone->chunk_list.head;
    size_t left = zone->chunk_list.free;
    assert_false(check(bytes, sizeof bytes, zone));
    assert_ptr_equal(zone->chunk_list.head, before);
    assert_int_equal(zone->chunk_list.free, left);
  }
  msgpack_zone_free(zone);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_well_formed_and_not),
      cmocka_unit_test(test_truncated),
      cmocka_unit_test(test_nesting),
      cmocka_unit_test(test_promises),
      cmocka_unit_test(test_nested_promises),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
