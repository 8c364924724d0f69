/* speed.h - replays all relay messages of a trace at full speed, in one generation with everybody present, again and again. */
#ifndef BENCH_SPEED_H
#define BENCH_SPEED_H

#include "record.h"
#include "rounds.h"

/* Forks supervisor and workers, and returns when all have joined. The record is complete after speed_end. */
record *speed_begin(const trace *t, rounds *shared, uint32_t round_count);
void speed_end(rounds *shared, record *r);

#endif
