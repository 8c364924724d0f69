/* notebus.h - this library stamped for notes. Comes first wherever it is included: gcc warns of names in the library that shadow
 * a type of ours when it has seen ours before. */
#ifndef BENCH_NOTEBUS_H
#define BENCH_NOTEBUS_H

#include "../messaging.h"
#include "note.h"

MESSAGING_MAKE(bus, note, note_encode, note_decode);

#endif
