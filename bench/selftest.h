/* selftest.h - does the oracle see what it promises to see? */
#ifndef BENCH_SELFTEST_H
#define BENCH_SELFTEST_H

#include "record.h"

#define SELFTEST_CORRUPTIONS_MAX 64u

typedef struct {
  unsigned tried;                             /* corruptions applied to some record */
  unsigned missed;                            /* of these, the ones that the oracle did not complain of */
  unsigned applied[SELFTEST_CORRUPTIONS_MAX]; /* to how many records each was applied */
} selftest;

/* Corrupts copies of a clean record in every way that the oracle promises to see, and says on stderr which it did not. Not every
 * record has what every corruption needs; selftest_untried then tells. A record that is not clean to begin with is a miss. */
void selftest_record(selftest *st, const record *clean, const char *name);

/* How many kinds of corruption no record so far had room for; they are named on stderr. */
unsigned selftest_untried(const selftest *st);

/* A record as a perfect relay of the trace would leave it, made without any process. */
record *selftest_perfect_record(const trace *t);

#endif
