/* trace.h - reads a recorded message stream (see traces/README.md) and lays it out for a replay. */
#ifndef BENCH_TRACE_H
#define BENCH_TRACE_H

#include <stddef.h>
#include <stdint.h>

#define TRACE_FILE_BYTES_MAX ((size_t)64 << 20)
#define TRACE_EVENTS_MAX ((size_t)1 << 20)
#define TRACE_PROCESSES_MAX 1024u
#define TRACE_KINDS_MAX 64u
#define TRACE_PARTS_MAX 64u

typedef struct {
  const char *data;
  uint32_t size;
} span;

typedef enum {
  EVENT_START,
  EVENT_LIST,
  EVENT_PURGE,
  EVENT_RELAY,
  EVENT_LOG,
  EVENT_STAT,
  EVENT_PROGRESS,
  EVENT_TERM,
  EVENT_EXIT,
  EVENT_KILLED
} event_type;

typedef struct {
  event_type type;
  uint32_t process;    /* who; unused by LIST and PURGE */
  int64_t recorded_us; /* since the start of the recording */
  int64_t replay_us;   /* the same with long idle stretches cut */
  int64_t value;       /* LOG: level; PROGRESS: the progress */
  span text;           /* LOG, STAT */
  uint32_t count;      /* RELAY: parts; LIST: members */
  const span *parts;
  const uint32_t *members;
} trace_event;

/* What a process sent, in its order: numbered from 1 over relay and output messages alike. */
typedef struct {
  uint32_t kind;
  uint32_t message_count, relay_count, output_count;
  const trace_event **messages; /* message_count */
  const trace_event **relays;   /* relay_count: those of the messages that are relays */
  const trace_event **outputs;  /* output_count: the others */
} trace_process;

/* How the messaging layer of the recorded program did on this stream. */
typedef struct {
  int64_t pairs, pairs_delivered;
  int64_t p50_us, p99_us, max_us;
} trace_original;

typedef struct {
  char name[64];
  uint32_t process_count; /* number 0 is the supervisor */
  trace_process *processes;
  uint32_t kind_count;
  char kinds[TRACE_KINDS_MAX][32];
  size_t event_count;
  trace_event *events;
  size_t relay_count, relay_bytes, output_count, list_count;
  uint32_t relay_bytes_max;
  int64_t skipped_us; /* idle time that the replay leaves out */
  int64_t replay_us;  /* time of the last event in the replay */
  trace_original original;
  char *file; /* texts and parts point into it */
} trace;

/* Reads one file. Stretches without any event that are longer than idle_ms_max are cut to that. Every malformed file ends the
 * process with a message that names it. */
trace *trace_read(const char *path, int64_t idle_ms_max);
void trace_release(trace *t);

static inline int event_is_output(event_type type) { return type == EVENT_LOG || type == EVENT_STAT || type == EVENT_PROGRESS; }

#endif
