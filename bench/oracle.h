/* oracle.h - what should have been delivered in a run, against what was.
 *
 * The order in which the supervisor's application received the relay messages of a generation is that generation's log. Then:
 *
 *   order     What a worker received is a prefix of the log without its own messages, in the log's order, with the log's
 *             numbers, which count from 1 without a gap.
 *   end       A worker that was alive and listed when the generation ended has all of it.
 *   pairs     Every (message, other worker) where the worker had started before the message was broadcast and lived at least
 *             40 ms longer is delivered. The first sight of the message anywhere is taken for the time of the broadcast.
 *   senders   Everything that a process sent is in the log, relay and output messages in the order in which it sent them. Only a
 *             killed one may take along what it sent in its last 40 ms; what remains is a prefix.
 *   once      Nobody receives anything twice, nor its own, nor what nobody sent, nor with another content, pid or kind.
 *   reports   Each killed worker is reported to the supervisor, nobody else is, and each asked to terminate sees that. */
#ifndef BENCH_ORACLE_H
#define BENCH_ORACLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "record.h"

#define PAIR_LIFE_NS (INT64_C(40) * 1000000)

typedef struct { /* one relay message at one worker */
  uint32_t generation, number, sender, seq, receiver;
  int64_t latency_ns; /* from just before the sender's call until the receiver's application had it; -1: never */
  bool is_pair;
} delivery;

/* Each is a count of violations; all zero is a clean run. */
#define ORACLE_VIOLATIONS(X)                                                       \
  X(lost, "messages that somebody should have received and did not")               \
  X(duplicated, "messages that somebody received again")                           \
  X(disordered, "messages out of the log's or their sender's order")               \
  X(misnumbered, "sequence numbers that are not the log's, or leave a gap")        \
  X(echoed, "messages that came back to their sender")                             \
  X(foreign, "messages that are not in the log")                                   \
  X(corrupt, "messages with another content, pid or kind than sent")               \
  X(overflowed, "messages beyond anything that was sent")                          \
  X(unterminated, "workers that did not see the termination asked for")            \
  X(misterminated, "terminations that nobody asked for, or seen twice")            \
  X(unreported, "killed workers that the supervisor's handler was not told about") \
  X(misreported, "error reports without a cause")                                  \
  X(send_failures, "sends that failed")                                            \
  X(exit_failures, "exits that failed although the supervisor lived")              \
  X(hung, "processes that did not end by themselves")

#define ORACLE_FIELD(name, text) uint64_t name;
typedef struct {
  ORACLE_VIOLATIONS(ORACLE_FIELD)
  uint64_t hasty;      /* of all these, the ones that rest on how long 40 ms are, and thus on the machine's keeping the pace */
  uint64_t messages;   /* relay messages in all logs */
  uint64_t outputs;    /* output messages that the supervisor's application received */
  uint64_t pairs;      /* see above */
  uint64_t pairs_lost; /* of these, not delivered; they count as lost, too */
  uint64_t cut;        /* messages that a killed sender took along, as it may */
  uint64_t purged;     /* messages of the time of a purge that the supervisor did not receive, as it asked */
  delivery *deliveries;
  size_t delivery_count;
  int64_t *latency_ns; /* of the pairs, sorted */
  size_t latency_count;
  int64_t *death_ns; /* from each kill to the supervisor's handler, sorted */
  size_t death_count;
  int64_t *term_ns; /* from the supervisor's request to each worker, sorted */
  size_t term_count;
} verdict;

verdict *oracle_judge(const record *r);
void verdict_release(verdict *v);
/* Keeps the counts alone. */
void verdict_trim(verdict *v);
uint64_t verdict_violations(const verdict *v);
/* There are violations, but none that a machine which does not keep the pace could not cause by itself. */
bool verdict_is_hasty(const verdict *v);
/* One line for each violation that there is; nothing for a clean run. */
void verdict_print(FILE *file, const char *name, const verdict *v);

#endif
