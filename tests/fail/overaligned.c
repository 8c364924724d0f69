/* MESSAGING_MAKE(bus): the 2nd argument, wide, must not be aligned more strictly than max_align_t */
// same
#include "messaging.h"
typedef struct { int number; } __attribute__((aligned(64))) wide;
static int encode(msgpack_packer *pk, const wide *in) { return msgpack_pack_int(pk, in->number); }
static int decode(const msgpack_object *obj, msgpack_zone *zone, wide *out) { (void)zone; out->number = (int)obj->via.i64; return 0; }
MESSAGING_MAKE(bus, wide, encode, decode);
