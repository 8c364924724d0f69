/* bus.h - the instance of the library under test. Comes first wherever it is included: gcc warns of names in the library that
 * shadow a type of ours when it has seen ours before. */
#ifndef BENCH_BUS_H
#define BENCH_BUS_H

#include "../messaging.h"
#include "fact.h"

MESSAGING_MAKE(bus, fact, fact_encode, fact_decode);

#endif
