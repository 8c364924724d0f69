#define _GNU_SOURCE
#include "trace.h"

#include <errno.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools.h"

typedef struct {
  const char *path;
  trace *t;
  size_t capacity; /* of t->events */
  size_t promised; /* events that the header promises */
} reader;

static _Noreturn void malformed(const reader *r, const char *what) {
  fail("%s, event %zu: %s", r->path, r->t->event_count, what);
}

/* ==== Fields ========================================================================================================== */

static int64_t get_int(const reader *r, const msgpack_object *o) {
  if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 <= INT64_MAX) return (int64_t)o->via.u64;
  if (o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER) return o->via.i64;
  malformed(r, "an integer is missing");
}

static span get_span(const reader *r, const msgpack_object *o) {
  if (o->type == MSGPACK_OBJECT_BIN) return (span){o->via.bin.ptr, o->via.bin.size};
  if (o->type == MSGPACK_OBJECT_STR) return (span){o->via.str.ptr, o->via.str.size};
  malformed(r, "a string is missing");
}

static int is_word(const msgpack_object *o, const char *word) {
  return o->type == MSGPACK_OBJECT_STR && o->via.str.size == strlen(word) && memcmp(o->via.str.ptr, word, o->via.str.size) == 0;
}

static uint32_t get_process(const reader *r, const msgpack_object *o) {
  int64_t index = get_int(r, o);
  if (index < 0 || index >= (int64_t)r->t->process_count) malformed(r, "no such process");
  return (uint32_t)index;
}

/* ==== The header ====================================================================================================== */

static uint32_t kind_number(const reader *r, span name) {
  trace *t = r->t;
  for (uint32_t i = 0; i < t->kind_count; i++)
    if (strlen(t->kinds[i]) == name.size && memcmp(t->kinds[i], name.data, name.size) == 0) return i;
  if (t->kind_count == TRACE_KINDS_MAX || name.size >= sizeof t->kinds[0]) malformed(r, "too many or too long kinds");
  memcpy(t->kinds[t->kind_count], name.data, name.size);
  return t->kind_count++;
}

static void read_processes(const reader *r, const msgpack_object *o) {
  trace *t = r->t;
  if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size < 2 || o->via.array.size > TRACE_PROCESSES_MAX)
    malformed(r, "processes");
  t->process_count = o->via.array.size;
  t->processes = checked_calloc(t->process_count, sizeof *t->processes);
  for (uint32_t p = 0; p < t->process_count; p++) {
    const msgpack_object *entry = &o->via.array.ptr[p];
    if (entry->type != MSGPACK_OBJECT_MAP || entry->via.map.size != 1 || !is_word(&entry->via.map.ptr[0].key, "kind"))
      malformed(r, "a process has no kind");
    t->processes[p].kind = kind_number(r, get_span(r, &entry->via.map.ptr[0].val));
    /* Kinds are numbered as they appear, so the supervisor's is 0, as the library wants it, and nobody else's may be. */
    if ((t->processes[p].kind == 0) != (p == 0)) malformed(r, "process 0 alone is the supervisor");
  }
}

static void read_original(const reader *r, const msgpack_object *o) {
  trace_original *to = &r->t->original;
  const struct {
    const char *name;
    int64_t *field;
  } fields[] = {{"relay_pairs", &to->pairs},
                {"relay_pairs_delivered", &to->pairs_delivered},
                {"latency_us_p50", &to->p50_us},
                {"latency_us_p99", &to->p99_us},
                {"latency_us_max", &to->max_us}};
  size_t found = 0;
  if (o->type != MSGPACK_OBJECT_MAP) malformed(r, "original");
  for (uint32_t i = 0; i < o->via.map.size; i++)
    for (size_t f = 0; f < sizeof fields / sizeof fields[0]; f++)
      if (is_word(&o->via.map.ptr[i].key, fields[f].name)) {
        *fields[f].field = get_int(r, &o->via.map.ptr[i].val);
        found++;
      }
  if (found != sizeof fields / sizeof fields[0]) malformed(r, "original lacks a figure");
}

static void read_header(reader *r, const msgpack_object *o) {
  int original = 0;
  if (o->type != MSGPACK_OBJECT_MAP) malformed(r, "the first object is not a map");
  for (uint32_t i = 0; i < o->via.map.size; i++) {
    const msgpack_object_kv *kv = &o->via.map.ptr[i];
    if (is_word(&kv->key, "processes")) read_processes(r, &kv->val);
    if (is_word(&kv->key, "events")) r->promised = (size_t)get_int(r, &kv->val);
    if (is_word(&kv->key, "original")) read_original(r, &kv->val), original = 1;
  }
  if (!r->t->processes || r->promised == 0 || !original) malformed(r, "the header lacks processes, events or original");
}

/* ==== Events ========================================================================================================== */

static const struct {
  const char *name;
  event_type type;
  uint32_t size; /* of the array */
} event_forms[] = {{"start", EVENT_START, 3},       {"list", EVENT_LIST, 3}, {"purge", EVENT_PURGE, 2},
                   {"relay", EVENT_RELAY, 4},       {"log", EVENT_LOG, 5},   {"stat", EVENT_STAT, 4},
                   {"progress", EVENT_PROGRESS, 4}, {"term", EVENT_TERM, 3}, {"exit", EVENT_EXIT, 3},
                   {"killed", EVENT_KILLED, 3}};

static void read_members(const reader *r, trace_event *e, const msgpack_object *o) {
  if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size >= r->t->process_count) malformed(r, "list");
  uint32_t *members = checked_calloc(o->via.array.size, sizeof *members);
  e->count = o->via.array.size;
  e->members = members;
  for (uint32_t i = 0; i < e->count; i++) members[i] = get_process(r, &o->via.array.ptr[i]);
}

static void read_parts(const reader *r, trace_event *e, const msgpack_object *o) {
  if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size > TRACE_PARTS_MAX) malformed(r, "relay");
  span *parts = checked_calloc(o->via.array.size, sizeof *parts);
  size_t total = 0;
  e->count = o->via.array.size;
  e->parts = parts;
  for (uint32_t i = 0; i < e->count; i++) {
    parts[i] = get_span(r, &o->via.array.ptr[i]);
    total += parts[i].size;
  }
  r->t->relay_bytes += total;
  if (total > r->t->relay_bytes_max) r->t->relay_bytes_max = (uint32_t)total;
}

static void read_fields(const reader *r, trace_event *e, const msgpack_object *field) {
  if (e->type == EVENT_LIST) read_members(r, e, &field[2]);
  if (e->type == EVENT_LIST || e->type == EVENT_PURGE) return;
  e->process = get_process(r, &field[2]);
  if (e->type == EVENT_RELAY) read_parts(r, e, &field[3]);
  if (e->type == EVENT_STAT) e->text = get_span(r, &field[3]);
  if (e->type == EVENT_PROGRESS) e->value = get_int(r, &field[3]);
  if (e->type != EVENT_LOG) return;
  e->value = get_int(r, &field[3]);
  e->text = get_span(r, &field[4]);
}

static void read_event(reader *r, const msgpack_object *o) {
  trace *t = r->t;
  size_t form = 0, forms = sizeof event_forms / sizeof event_forms[0];
  if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size < 2) malformed(r, "not an event");
  while (form < forms && !is_word(&o->via.array.ptr[0], event_forms[form].name)) form++;
  if (form == forms || o->via.array.size != event_forms[form].size) malformed(r, "unknown event");
  t->events = grow(t->events, t->event_count, &r->capacity, sizeof *t->events, TRACE_EVENTS_MAX);
  trace_event *e = &t->events[t->event_count];
  *e = (trace_event){.type = event_forms[form].type, .recorded_us = get_int(r, &o->via.array.ptr[1])};
  if (e->recorded_us < (t->event_count > 0 ? e[-1].recorded_us : 0)) malformed(r, "time runs backwards");
  read_fields(r, e, o->via.array.ptr);
  /* Recorded supervisors never relay anything themselves, and recorded workers never ask for termination. */
  int supervisor_only = e->type == EVENT_LIST || e->type == EVENT_PURGE || e->type == EVENT_TERM;
  if (supervisor_only != (e->process == 0)) malformed(r, "an event that this replay does not know of this process");
  t->event_count++;
}

/* ==== Layout ========================================================================================================== */

static void cut_idle_stretches(trace *t, int64_t idle_us_max) {
  int64_t last_us = t->event_count > 0 ? t->events[0].recorded_us : 0;
  t->skipped_us = last_us;
  for (size_t i = 0; i < t->event_count; i++) {
    int64_t idle_us = t->events[i].recorded_us - last_us;
    last_us = t->events[i].recorded_us;
    if (idle_us > idle_us_max) t->skipped_us += idle_us - idle_us_max;
    t->events[i].replay_us = last_us - t->skipped_us;
  }
  t->replay_us = last_us - t->skipped_us;
}

static void count_messages(trace *t) {
  for (size_t i = 0; i < t->event_count; i++) {
    trace_process *p = &t->processes[t->events[i].process];
    p->relay_count += t->events[i].type == EVENT_RELAY;
    p->output_count += (uint32_t)event_is_output(t->events[i].type);
    t->list_count += t->events[i].type == EVENT_LIST;
  }
}

static void collect_messages(trace *t) {
  count_messages(t);
  for (uint32_t i = 0; i < t->process_count; i++) {
    trace_process *p = &t->processes[i];
    p->messages = checked_calloc((size_t)p->relay_count + p->output_count, sizeof(trace_event *));
    p->relays = checked_calloc(p->relay_count, sizeof(trace_event *));
    p->outputs = checked_calloc(p->output_count, sizeof(trace_event *));
    t->relay_count += p->relay_count;
    t->output_count += p->output_count;
    p->relay_count = p->output_count = 0;
  }
  for (size_t i = 0; i < t->event_count; i++) {
    const trace_event *e = &t->events[i];
    trace_process *p = &t->processes[e->process];
    if (e->type == EVENT_RELAY) p->relays[p->relay_count++] = e;
    if (event_is_output(e->type)) p->outputs[p->output_count++] = e;
    if (e->type == EVENT_RELAY || event_is_output(e->type)) p->messages[p->message_count++] = e;
  }
}

/* A process lives once: started, then perhaps exit or killed, and says nothing before or after. */
static void check_lives(const reader *r) {
  const trace *t = r->t;
  uint8_t *state = checked_calloc(t->process_count, 1);
  for (size_t i = 0; i < t->event_count; i++) {
    const trace_event *e = &t->events[i];
    uint8_t *s = &state[e->process];
    if (e->process == 0) continue;
    if (*s != (e->type != EVENT_START)) fail("%s, event %zu: process %u is not alive", r->path, i + 1, e->process);
    *s = e->type == EVENT_EXIT || e->type == EVENT_KILLED ? 2 : 1;
  }
  free(state);
}

/* ==== The file ======================================================================================================== */

static char *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file) fail("%s: %s", path, strerror(errno));
  if (fseek(file, 0, SEEK_END) != 0) fail("%s: %s", path, strerror(errno));
  long end = ftell(file);
  if (end <= 0 || (size_t)end > TRACE_FILE_BYTES_MAX) fail("%s: empty, or above the limit of bytes", path);
  rewind(file);
  char *content = checked_calloc((size_t)end, 1);
  if (fread(content, 1, (size_t)end, file) != (size_t)end) fail("%s: short read", path);
  fclose(file);
  *size = (size_t)end;
  return content;
}

static void name_after(trace *t, const char *path) {
  const char *base = strrchr(path, '/');
  base = base ? base + 1 : path;
  snprintf(t->name, sizeof t->name, "%.*s", (int)strcspn(base, "."), base);
}

trace *trace_read(const char *path, int64_t idle_ms_max) {
  trace *t = checked_calloc(1, sizeof *t);
  reader r = {.path = path, .t = t};
  size_t size = 0, offset = 0;
  msgpack_unpacked object;
  name_after(t, path);
  t->file = read_file(path, &size);
  msgpack_unpacked_init(&object);
  while (offset < size) {
    if (msgpack_unpack_next(&object, t->file, size, &offset) != MSGPACK_UNPACK_SUCCESS) malformed(&r, "not msgpack");
    if (!t->processes)
      read_header(&r, &object.data);
    else
      read_event(&r, &object.data);
  }
  msgpack_unpacked_destroy(&object);
  if (t->event_count != r.promised) malformed(&r, "not as many events as the header promises");
  check_lives(&r);
  collect_messages(t);
  cut_idle_stretches(t, idle_ms_max * 1000);
  return t;
}

void trace_release(trace *t) {
  for (size_t i = 0; i < t->event_count; i++) {
    free((void *)(uintptr_t)t->events[i].parts);
    free((void *)(uintptr_t)t->events[i].members);
  }
  for (uint32_t p = 0; p < t->process_count; p++) {
    free(t->processes[p].messages);
    free(t->processes[p].relays);
    free(t->processes[p].outputs);
  }
  free(t->events);
  free(t->processes);
  free(t->file);
  free(t);
}
