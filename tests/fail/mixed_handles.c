/* incompatible.*pointer type */
// cannot convert|no matching function
#include "messaging.h"
typedef struct { int number; } fact;
static int encode(msgpack_packer *pk, const fact *in) { return msgpack_pack_int(pk, in->number); }
static int decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) { (void)zone; out->number = (int)obj->via.i64; return 0; }
MESSAGING_MAKE(one, fact, encode, decode);
MESSAGING_MAKE(two, fact, encode, decode);
int main(void) { one_ctx *ctx = NULL; return (int)two_send_term_message(ctx); }
