/* record.h - what every process of a run did and saw, in shared memory, so that it survives whatever happens to the process.
 *
 * Each process writes to its own part only. The supervisor also writes when it forked or killed a child, and what its error
 * handler was told about it. The oracle reads when all of them are gone. */
#ifndef BENCH_RECORD_H
#define BENCH_RECORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "trace.h"

typedef enum { RECEIPT_RELAY, RECEIPT_OUTPUT, RECEIPT_TERMINATE } receipt_type;

typedef struct { /* one message that the library gave to the application */
  int64_t received_ns;
  uint32_t sender, seq; /* the sender's running number, over relay and output messages alike; from 1 */
  uint32_t number;      /* relay: the library's sequence number */
  uint16_t generation;  /* supervisor: as its library numbers them */
  uint8_t type;
  bool wrong; /* content, pid or kind are not what the sender sent */
} receipt;

typedef struct {   /* one message that the application gave to the library */
  int64_t sent_ns; /* just before the call */
  bool is_output;
} sending;

typedef enum { LEFT_NOT, LEFT_BY_EXIT, LEFT_BY_KILL } left_how;

typedef struct {
  pid_t pid;
  left_how left_by;
  int64_t due_ns;                /* when it should start, where a replay says so */
  int64_t started_ns;            /* just before init_worker; 0: never */
  int64_t left_ns;               /* just before exit, or the supervisor's before kill; 0: stayed to the end */
  _Atomic int64_t gone_ns;       /* exit had returned */
  int32_t exit_status;           /* what exit returned */
  _Atomic uint32_t sent_count;   /* messages that the library accepted */
  uint32_t refusals;             /* sends answered with EFULL, and tried again */
  uint32_t send_failures;        /* sends answered with another error */
  _Atomic int64_t lost_ns;       /* the supervisor's handler was told that this process is lost; first time */
  _Atomic uint32_t lost_count;   /* how often */
  _Atomic uint32_t report_count; /* calls of this process's handler about anything else */
  char report_text[160];         /* the first of these */
  _Atomic uint32_t receipt_count;
  uint32_t receipts_dropped; /* found no room: far more than anybody sent */
  uint32_t receipts_max, sent_max;
  receipt *receipts;
  sending *sent;
} life;

typedef struct { /* one update of the list */
  int64_t before_ns, after_ns;
  uint32_t generation; /* that it begins or goes on in */
  uint32_t count;
  const uint32_t *members;
} list_change;

typedef struct {
  int64_t at_ns;
  uint32_t generation;
} term_request;

#define RECORD_TERMS_MAX 256u
#define RECORD_PURGES_MAX 256u

typedef struct {
  size_t bytes; /* of the whole mapping */
  uint32_t process_count;
  life *lives; /* 0 is the supervisor */
  uint32_t list_count, lists_max;
  list_change *lists;
  uint32_t term_count, purge_count;
  term_request terms[RECORD_TERMS_MAX];
  int64_t purges_ns[RECORD_PURGES_MAX];
  uint32_t hung;        /* processes that had to be killed at the deadline */
  int64_t lag_ns;       /* the longest that a process overslept that only slept */
  int64_t origin_ns;    /* when the replay began */
  uint64_t generations; /* that the supervisor saw */
} record;

/* sent_max has an entry a process; receipts_max holds for each. */
record *record_make(uint32_t process_count, const uint32_t *sent_max, uint32_t receipts_max, uint32_t lists_max);
record *record_copy(const record *from);
void record_release(record *r);

void record_receipt(life *l, const receipt *entry);
/* Notes a message before it is sent; record_accepted confirms it. Returns its running number. */
uint32_t record_sending(life *l, bool is_output);
void record_accepted(life *l);
void record_list(record *r, const list_change *change);
void record_term(record *r, uint32_t generation);
void record_purge(record *r);

/* The longest that any process started behind its time, or that the waiting one overslept. Nothing but the machine is to blame for
 * that: they slept until then, and had not met the library. */
int64_t record_lag_ns(const record *r);

/* What the error handlers of the processes were told, and exits that failed; one line each. */
void record_print_reports(FILE *file, const record *r);

#endif
