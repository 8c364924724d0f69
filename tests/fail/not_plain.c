/* - */
// MESSAGING_MAKE(bus): the 2nd argument, text, must be a complete, plain type
#include "messaging.h"
struct text { text() {} text(const text &) {} int number; };
static int encode(msgpack_packer *pk, const text *in) { return msgpack_pack_int(pk, in->number); }
static int decode(const msgpack_object *obj, msgpack_zone *, text *out) { out->number = (int)obj->via.i64; return 0; }
MESSAGING_MAKE(bus, text, encode, decode);
