/* One instance, stamped by a header that several translation units include. A handle made in one may be used in the other. */
#ifndef SHARED_H
#define SHARED_H

#include "messaging.h"

typedef struct {
  int64_t number;
} shared_fact;

static inline int shared_encode(msgpack_packer *pk, const shared_fact *in) { return msgpack_pack_int64(pk, in->number); }

static inline int shared_decode(const msgpack_object *obj, msgpack_zone *zone, shared_fact *out) {
  (void)zone;
  out->number = obj->via.i64;
  return obj->type != MSGPACK_OBJECT_POSITIVE_INTEGER && obj->type != MSGPACK_OBJECT_NEGATIVE_INTEGER;
}

MESSAGING_MAKE(shared, shared_fact, shared_encode, shared_decode);

/* In units/other.c. */
messaging_status other_unit_sends(shared_ctx *ctx, int64_t number);
messaging_status other_unit_receives(shared_ctx *ctx, shared_batch *batch);
messaging_status other_unit_frees(shared_batch *batch);
messaging_status other_unit_leaves(shared_ctx **ctx);

#endif
