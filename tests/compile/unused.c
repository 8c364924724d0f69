/* Stamps two instances and uses nothing of them: no warning may be left behind. */
#include "messaging.h"

typedef struct {
  int number;
} fact;

static int encode(msgpack_packer *pk, const fact *in) { return msgpack_pack_int(pk, in->number); }

static int decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) {
  (void)zone;
  out->number = (int)obj->via.i64;
  return obj->type != MSGPACK_OBJECT_POSITIVE_INTEGER;
}

MESSAGING_MAKE(one, fact, encode, decode);
MESSAGING_MAKE(two, fact, encode, decode);

int main(void) { return 0; }
