#include "shared.h"

messaging_status other_unit_sends(shared_ctx *ctx, int64_t number) { return shared_send_relay_message(ctx, &(shared_fact){number}); }

messaging_status other_unit_receives(shared_ctx *ctx, shared_batch *batch) { return shared_recv(ctx, batch); }

messaging_status other_unit_frees(shared_batch *batch) { return shared_batch_free(batch); }

messaging_status other_unit_leaves(shared_ctx **ctx) { return shared_exit(ctx); }
