/* fact.h - the relay message of the benchmark: a recorded list of byte strings, and what the oracle needs to know of it. */
#ifndef BENCH_FACT_H
#define BENCH_FACT_H

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "trace.h"

typedef struct {
  uint32_t sender, seq; /* process number in the trace, and its running number from 1 */
  uint32_t part_count;
  const span *parts;
} fact;

static inline int fact_encode(msgpack_packer *pk, const fact *in) {
  int failed = msgpack_pack_array(pk, 3);
  failed |= msgpack_pack_uint32(pk, in->sender);
  failed |= msgpack_pack_uint32(pk, in->seq);
  failed |= msgpack_pack_array(pk, in->part_count);
  for (uint32_t i = 0; i < in->part_count; i++) {
    failed |= msgpack_pack_bin(pk, in->parts[i].size);
    failed |= msgpack_pack_bin_body(pk, in->parts[i].data, in->parts[i].size);
  }
  return failed;
}

static inline bool fact__uint32(const msgpack_object *obj, uint32_t *out) {
  if (obj->type != MSGPACK_OBJECT_POSITIVE_INTEGER || obj->via.u64 > UINT32_MAX) return false;
  *out = (uint32_t)obj->via.u64;
  return true;
}

/* The byte strings stay where they were unpacked; their array goes into the batch's zone. */
static inline int fact_decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) {
  if (obj->type != MSGPACK_OBJECT_ARRAY || obj->via.array.size != 3) return -1;
  const msgpack_object *list = &obj->via.array.ptr[2];
  if (!fact__uint32(&obj->via.array.ptr[0], &out->sender) || !fact__uint32(&obj->via.array.ptr[1], &out->seq)) return -1;
  if (list->type != MSGPACK_OBJECT_ARRAY || list->via.array.size > TRACE_PARTS_MAX) return -1;
  span *parts = (span *)msgpack_zone_malloc(zone, (list->via.array.size + 1) * sizeof *parts);
  if (!parts) return -1;
  for (uint32_t i = 0; i < list->via.array.size; i++) {
    const msgpack_object *part = &list->via.array.ptr[i];
    if (part->type != MSGPACK_OBJECT_BIN) return -1;
    parts[i] = (span){part->via.bin.ptr, part->via.bin.size};
  }
  out->part_count = list->via.array.size;
  out->parts = parts;
  return 0;
}

static inline bool span_equal(span a, span b) {
  return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* Whether the message carries exactly what was recorded. */
static inline bool fact_is(const fact *got, const trace_event *recorded) {
  if (got->part_count != recorded->count) return false;
  for (uint32_t i = 0; i < got->part_count; i++)
    if (!span_equal(got->parts[i], recorded->parts[i])) return false;
  return true;
}

#endif
