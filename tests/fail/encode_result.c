/* MESSAGING_MAKE(bus): the 3rd argument, wrong, must be int */
// same
#include "messaging.h"
typedef struct { int number; } fact;
static int encode(msgpack_packer *pk, const fact *in) { return msgpack_pack_int(pk, in->number); }
static int decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) { (void)zone; out->number = (int)obj->via.i64; return 0; }
static void wrong(msgpack_packer *pk, const fact *in) { encode(pk, in); }
MESSAGING_MAKE(bus, fact, wrong, decode);
