/* paced.h - replays a trace on real processes at the recorded pace. */
#ifndef BENCH_PACED_H
#define BENCH_PACED_H

#include "record.h"

/* One supervisor and all recorded workers: started, listed, talking, leaving and killed when they were. The record of it. */
record *paced_replay(const trace *t);

#endif
