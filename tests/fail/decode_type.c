/* MESSAGING_MAKE(bus): the 4th argument, wrong, must be int (const msgpack_object *, msgpack_zone *, fact *) */
// same
#include "messaging.h"
typedef struct { int number; } fact;
static int encode(msgpack_packer *pk, const fact *in) { return msgpack_pack_int(pk, in->number); }
static int decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) { (void)zone; out->number = (int)obj->via.i64; return 0; }
static int wrong(const msgpack_object *obj, fact *out) { return decode(obj, NULL, out); }
MESSAGING_MAKE(bus, fact, encode, wrong);
