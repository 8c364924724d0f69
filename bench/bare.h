/* bare.h - the same relay messages over bare libzmq: what a plain PULL to PUB relay does, one frame a message.
 *
 * Its settings are the best that lose nothing: high-water marks of 0 everywhere, that is, queues without a limit, since PUB drops
 * at any finite one; unix sockets as on the other side; the relay hands each frame on without a copy; subscribers look into
 * nothing, they count. Nothing is numbered, acknowledged, repaired or kept. */
#ifndef BENCH_BARE_H
#define BENCH_BARE_H

#include "rounds.h"
#include "trace.h"

/* Forks the relay and the workers of the trace, and returns when every worker receives what the relay publishes. */
void bare_begin(const trace *t, rounds *shared);
void bare_end(rounds *shared);

#endif
