/* note.h - the suite's relay message: two numbers and bytes, encoded in exactly as many bytes as asked for. */
#ifndef BENCH_NOTE_H
#define BENCH_NOTE_H

#include <msgpack.h>
#include <stdint.h>
#include <string.h>

#define NOTE_SMALL 16u /* below this many bytes a note is a byte string, or one byte, without its numbers */

typedef struct {
  uint32_t tag, seq;
  uint32_t size; /* encoded */
  const char *body;
  uint32_t body_size;
} note;

static inline uint32_t note_body_size(uint32_t size) {
  if (size < NOTE_SMALL) return size < 2 ? 0 : size - 2;
  uint32_t rest = size - 11;
  return rest <= 2 + 255 ? rest - 2 : rest <= 3 + 65535 ? rest - 3 : rest - 5;
}

static inline int note_encode(msgpack_packer *pk, const note *in) {
  if (in->size < 2) return msgpack_pack_nil(pk);
  int failed = 0;
  if (in->size >= NOTE_SMALL) {
    failed |= msgpack_pack_array(pk, 3);
    failed |= msgpack_pack_fix_uint32(pk, in->tag);
    failed |= msgpack_pack_fix_uint32(pk, in->seq);
  }
  failed |= msgpack_pack_bin(pk, in->body_size);
  return failed | msgpack_pack_bin_body(pk, in->body, in->body_size);
}

/* The bytes stay where they were received. */
static inline int note_decode(const msgpack_object *obj, msgpack_zone *zone, note *out) {
  const msgpack_object *body = obj;
  (void)zone;
  memset(out, 0, sizeof *out);
  if (obj->type == MSGPACK_OBJECT_NIL) return 0;
  if (obj->type == MSGPACK_OBJECT_ARRAY) {
    const msgpack_object *parts = obj->via.array.ptr;
    if (obj->via.array.size != 3 || parts[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER || parts[1].type != MSGPACK_OBJECT_POSITIVE_INTEGER) return -1;
    out->tag = (uint32_t)parts[0].via.u64;
    out->seq = (uint32_t)parts[1].via.u64;
    body = &parts[2];
  }
  if (body->type != MSGPACK_OBJECT_BIN) return -1;
  out->body = body->via.bin.ptr;
  out->body_size = body->via.bin.size;
  return 0;
}

#endif
