/* ignoring return value|warn_unused_result */
// same
#include "messaging.h"
typedef struct { int number; } fact;
static int encode(msgpack_packer *pk, const fact *in) { return msgpack_pack_int(pk, in->number); }
static int decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) { (void)zone; out->number = (int)obj->via.i64; return 0; }
MESSAGING_MAKE(bus, fact, encode, decode);
int main(void) { bus_send_term_message(NULL); return 0; }
