/* codec.h - instructions, as callgrind counts them. */
#ifndef BENCH_CODEC_H
#define BENCH_CODEC_H

#include <stdint.h>

#define CALLGRIND_MAX 16u

typedef struct {
  uint32_t times; /* 0: there is no valgrind here */
  uint32_t count;
  char function[CALLGRIND_MAX][32];
  double instructions[CALLGRIND_MAX];
} callgrind_costs;

/* Runs this program again, under valgrind. */
callgrind_costs callgrind_run(uint32_t size);
/* Of one call or message; negative: not known. */
double callgrind_cost(const callgrind_costs *c, const char *function);

/* What that program does. */
void codec_in_callgrind(uint32_t size, uint32_t times);

#endif
