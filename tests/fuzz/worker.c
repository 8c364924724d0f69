/*
 * worker.c - the worker's machine against a supervisor that is made of the input's bytes
 *
 * The program says what the supervisor sends (right or wrong), what the application calls, what the clock does, and when memory runs out.
 * Beside the machine a model keeps the supervisor's log. As long as everything the supervisor said fits it, the model is strict: each number
 * is delivered exactly once, is the worker's own, or was told to be gone; and what a run tells of its own batches is taken at once. Once a
 * lie was told (astray), what holds against anybody remains: order, no number twice, nothing of its own, limits, no memory left behind.
 */
#include "fuzz.h"

enum { WRK_ID = 101, WRK_KIND = 7, WRK_NONCE = 0x1234, WRK_GENERATION = 3, WRK_LOG = 256, WRK_UP = 1024, WRK_GAPS = 1024, WRK_OPS_MAX = 600, WRK_PUMPS_MAX = 64 };

typedef struct {
  uint8_t *frame;
  size_t size;
  messaging__batch batch;
} wrk_entry;

/* A message that the application has sent. */
typedef struct {
  uint8_t type;
  uint64_t digest;
} wrk_note;

typedef struct {
  fuzz_end end;
  messaging__worker *core;
  messaging_options options;
  messaging__who self;
  wrk_entry log[WRK_LOG]; /* what the supervisor has published, in order */
  size_t log_count;
  uint64_t next, first;   /* of the log */
  messaging__run run;     /* whose the last numbers of the log are */
  unsigned slot;          /* that the supervisor gives the worker */
  uint64_t taken;         /* batches of this worker that it has taken */
  wrk_entry up[WRK_UP];   /* batches of this worker as they were sent first, by number - 1 */
  size_t up_count;
  wrk_note *notes;
  size_t note_count, notes_capacity, notes_sent;
  messaging__range gaps[WRK_GAPS]; /* told to be gone */
  size_t gap_count;
  uint64_t due_next;      /* of the next item: numbers below were delivered, or passed */
  bool astray, stalled, notes_lost;
  uint32_t ops;
} wrk_world;

static wrk_world wrk;

static const uint8_t wrk_session[16] = {4, 5, 6};

static messaging__era wrk_era(void) {
  messaging__era era;
  memcpy(era.session, wrk_session, 16);
  era.generation = WRK_GENERATION;
  return era;
}

static wrk_entry wrk_copy(const uint8_t *frame, size_t size) {
  wrk_entry entry = {(uint8_t *)malloc(size), size, {0}};
  fuzz_check(entry.frame, "out of memory");
  memcpy(entry.frame, frame, size);
  fuzz_check(messaging__batch_read(frame, size, &entry.batch), "a batch cannot be read");
  return entry;
}

/* ---- What the machine does: frames up, reports ---- */

static void wrk_note_sent(uint8_t type, uint64_t digest) {
  if (wrk.note_count == wrk.notes_capacity) {
    wrk.notes_capacity = wrk.notes_capacity ? wrk.notes_capacity * 2 : 64;
    wrk.notes = (wrk_note *)realloc(wrk.notes, wrk.notes_capacity * sizeof *wrk.notes);
    fuzz_check(wrk.notes, "out of memory");
  }
  wrk.notes[wrk.note_count++] = (wrk_note){type, digest};
}

/* A batch that goes up for the first time holds the next messages of the application. A repetition is the same bytes. */
static void wrk_check_batch(messaging__slice frame) {
  messaging__batch batch;
  fuzz_check(messaging__batch_read(frame.data, frame.size, &batch) && frame.size == MESSAGING__AT_PAYLOAD + batch.payload_size, "a batch is sent that is none");
  fuzz_check(batch.id == WRK_ID && batch.kind == WRK_KIND && batch.nonce == WRK_NONCE, "a batch of somebody else is sent");
  fuzz_check(wrk.core->state == MESSAGING__JOINED, "a batch is sent outside a generation");
  while (wrk.astray && batch.number > wrk.up_count + 1 && wrk.up_count < WRK_UP) {
    wrk.up_count++; /* taken for accepted on the word of a liar, and never sent */
    wrk.notes_lost = true;
  }
  if (batch.number <= wrk.up_count) {
    const wrk_entry *before = &wrk.up[batch.number - 1];
    fuzz_check(before->size == frame.size && memcmp(before->frame, frame.data, frame.size) == 0, "batch %" PRIu64 " is repeated as another", batch.number);
    return;
  }
  fuzz_check(batch.number == wrk.up_count + 1 && wrk.up_count < WRK_UP, "batch %" PRIu64 " is sent after %zu", batch.number, wrk.up_count);
  wrk.up[wrk.up_count++] = wrk_copy(frame.data, frame.size);
  if (wrk.notes_lost) return;
  fuzz_dues dues = {NULL, 0, 0, 0};
  fuzz_expect(&dues, frame.data, frame.size);
  fuzz_check(dues.count == batch.count && wrk.notes_sent + dues.count <= wrk.note_count, "a batch holds something else than what was sent");
  for (size_t i = 0; i < dues.count; i++) {
    const wrk_note *note = &wrk.notes[wrk.notes_sent++];
    fuzz_check(note->type == batch.type && note->digest == dues.items[i].digest, "a message is sent out of order, or changed");
  }
  fuzz_dues_clear(&dues);
}

/* A report says what is so: what is in the inbox, and ranges of what is missing. */
static void wrk_check_report(messaging__reader *reader) {
  const messaging__worker *core = wrk.core;
  fuzz_check(messaging__read_array(reader) == 7 && messaging__read_int(reader) == WRK_ID, "a report has a false shape");
  fuzz_check(messaging__read_uint(reader, UINT64_MAX) == WRK_NONCE, "a report of somebody else is sent");
  fuzz_check(messaging__read_uint(reader, UINT64_MAX) == core->next, "a report acknowledges something else than what is there");
  fuzz_check(messaging__read_uint(reader, UINT32_MAX) == core->probe && messaging__read_uint(reader, 31) < 32, "a report has a false shape");
  uint64_t credit = messaging__read_uint(reader, UINT64_MAX), at = core->next;
  fuzz_check(credit <= core->inbox->bytes_max, "a report grants more than there is room for");
  uint32_t ranges = messaging__read_array(reader);
  fuzz_check(ranges <= MESSAGING__RANGES_MAX && (ranges == 0 || credit > 0), "a report asks too much");
  for (uint32_t i = 0; i < ranges; i++) {
    fuzz_check(messaging__read_array(reader) == 2, "a report has a false shape");
    uint64_t first = messaging__read_uint(reader, UINT64_MAX), last = messaging__read_uint(reader, UINT64_MAX);
    fuzz_check(first >= at && last >= first && last < core->known, "a report asks for what is not missing");
    at = last + 1;
  }
  fuzz_check(!reader->bad && reader->at == reader->end, "a report has a false shape");
}

static bool wrk_send(void *self, messaging__slice frame) {
  messaging__reader reader = {frame.data, frame.data + frame.size, false};
  messaging__envelope envelope;
  (void)self;
  fuzz_check(messaging__envelope_read(&reader, &envelope) && envelope.version == MESSAGING_WIRE_VERSION, "a frame without an envelope is sent");
  bool batch = envelope.type == MESSAGING__RELAY || envelope.type == MESSAGING__OUTPUT;
  fuzz_check(envelope.topic_size == (batch ? 7 : 1) && memcmp(envelope.topic, batch ? "B000000" : "U", envelope.topic_size) == 0, "a frame has a false topic");
  if (wrk.stalled) return false;
  if (envelope.type == MESSAGING__HELLO) {
    fuzz_check(wrk.core->state == MESSAGING__ANNOUNCING, "an announcement comes late");
    fuzz_check(messaging__read_array(&reader) == 4 && messaging__read_int(&reader) == WRK_ID, "an announcement has a false shape");
    return true;
  }
  fuzz_check(memcmp(envelope.session, wrk.core->era.session, 16) == 0 && envelope.generation == wrk.core->era.generation, "a frame of another time is sent");
  if (batch) wrk_check_batch(frame);
  else if (envelope.type == MESSAGING__REPORT) wrk_check_report(&reader);
  else fuzz_fail("a frame of type %d is sent", envelope.type);
  return true;
}

static void wrk_report(void *self, const messaging_error *error) {
  (void)self;
  if (error->status == MESSAGING_EHISTORY) {
    fuzz_check(error->first == wrk.core->next && error->last >= error->first, "a gap is told that is none");
    fuzz_check(wrk.astray || error->last < wrk.first, "a gap is told of what history holds");
    fuzz_check(wrk.gap_count < WRK_GAPS, "too many gaps for this target");
    wrk.gaps[wrk.gap_count++] = (messaging__range){error->first, error->last + 1};
  }
  messaging__shell_report(wrk.end.handle, error);
}

/* ---- Invariants ---- */

/* Whether the application is not to get a number: it is its own, or was told to be gone. */
static bool wrk_excused(uint64_t number) {
  for (size_t i = 0; i < wrk.gap_count; i++)
    if (number >= wrk.gaps[i].first && number < wrk.gaps[i].next) return true;
  for (size_t i = 0; i < wrk.log_count; i++) {
    const messaging__batch *batch = &wrk.log[i].batch;
    if (number >= batch->position && number < batch->position + batch->count) return batch->nonce == WRK_NONCE;
  }
  return false;
}

/* Numbers were passed over without being delivered. */
static void wrk_check_passed(uint64_t to) {
  for (uint64_t number = wrk.due_next; !wrk.astray && number < to; number++)
    fuzz_check(wrk_excused(number), "number %" PRIu64 " is passed over", number);
  wrk.due_next = to;
}

/* Frames that came into the inbox since the last look. */
static void wrk_observe_items(void) {
  messaging__inbox *inbox = &wrk.end.handle->inbox;
  for (size_t i = wrk.end.items_seen; i < inbox->items.count; i++) {
    const messaging__item *item = (const messaging__item *)messaging__ring_at(&inbox->items, i);
    const messaging__batch *batch = &item->batch;
    fuzz_check(batch->nonce != WRK_NONCE, "a message of its own is delivered");
    fuzz_check(batch->position >= wrk.due_next, "number %" PRIu64 " is delivered after %" PRIu64, batch->position, wrk.due_next);
    wrk_check_passed(batch->position);
    wrk.due_next = batch->position + batch->count;
    bool same = wrk.astray;
    for (size_t k = 0; !same && k < wrk.log_count; k++)
      same = wrk.log[k].batch.position == batch->position && wrk.log[k].size == item->frame.size && memcmp(wrk.log[k].frame, item->frame.data, item->frame.size) == 0;
    fuzz_check(same, "number %" PRIu64 " is delivered as another batch", batch->position);
  }
  fuzz_observe_items(&wrk.end);
}

/* Batches ahead of a gap: in order, within their limits. */
static void wrk_check_early(void) {
  const messaging__worker *core = wrk.core;
  uint64_t at = core->next;
  size_t bytes = 0;
  for (size_t i = 0; i < core->early.count; i++) {
    const messaging__early *early = (const messaging__early *)messaging__ring_at(&core->early, i);
    fuzz_check(early->batch.position >= at || wrk.astray, "early batches are not in order");
    fuzz_check(early->batch.count > 0 && (early->frame.owner == NULL) == (early->batch.nonce == WRK_NONCE), "its own is kept, or another's is not");
    at = early->batch.position;
    bytes += early->frame.size;
  }
  fuzz_check(bytes == core->early_bytes && bytes <= core->inbox->bytes_max / 4 && core->early.count <= MESSAGING__REORDER_MAX, "%zu bytes are kept early", bytes);
}

/* Batches on the wire: one number after the other, and the outbox counts them. */
static void wrk_check_flights(void) {
  const messaging__worker *core = wrk.core;
  size_t bytes = 0;
  for (size_t i = 0; i < core->flights.count; i++) {
    const messaging__flight *flight = (const messaging__flight *)messaging__ring_at(&core->flights, i);
    fuzz_check(flight->number == core->number - core->flights.count + i, "batches on the wire are not in order");
    bytes += flight->batch.buffer->size;
  }
  fuzz_check(bytes == core->flights_bytes && core->flights_sent <= core->flights.count, "%zu bytes on the wire are counted as %zu", bytes, core->flights_bytes);
  fuzz_check(wrk.astray || core->number - core->flights.count <= wrk.taken + 1, "a batch is taken for accepted that is not");
  fuzz_check_outbox(&wrk.end.handle->outbox, bytes);
}

static void wrk_check_inbox(void) {
  const messaging__inbox *inbox = &wrk.end.handle->inbox;
  size_t bytes = 0;
  for (size_t i = 0; i < inbox->items.count; i++) {
    const messaging__slice *frame = &((const messaging__item *)messaging__ring_at(&inbox->items, i))->frame;
    bytes += frame->size;
    fuzz_check(frame->owner->size <= 2 * frame->size + MESSAGING__CHUNK_BYTES, "a frame of %zu bytes holds one of %zu in memory", frame->size, frame->owner->size);
  }
  fuzz_check(bytes == inbox->bytes, "the inbox counts %zu bytes and holds %zu", inbox->bytes, bytes);
  fuzz_check(bytes <= inbox->bytes_max || inbox->items.count == 1, "the inbox holds %zu", bytes);
}

static void wrk_check(void) {
  const messaging__worker *core = wrk.core;
  wrk_observe_items();
  fuzz_check(core->next <= core->known && core->next >= wrk.due_next, "%" PRIu64 " is next, %" PRIu64 " known, %" PRIu64 " delivered", core->next, core->known, wrk.due_next);
  wrk_check_passed(core->next);
  wrk_check_early();
  wrk_check_flights();
  wrk_check_inbox();
  fuzz_check((core->state == MESSAGING__OVER) == core->inbox->ended, "the handle has ended, and has not");
  fuzz_check(core->state != MESSAGING__JOINED || core->era.generation > 0, "joined to nothing");
  size_t limit = 3 * (wrk.options.inbox_bytes_max + wrk.options.outbox_bytes_max) + (size_t)1048576 + 4 * (size_t)MESSAGING__BLOCK_BYTES;
  fuzz_check(fuzz_memory <= limit, "%zu bytes are held", fuzz_memory);
}

/* Lets the machine do what is due. It comes to rest: no deadline stays in the past. */
static void wrk_pump(void) {
  uint64_t now = fuzz_now();
  for (int rounds = 0;; rounds++) {
    messaging__worker_pump(wrk.core, now);
    wrk_observe_items();
    if (messaging__worker_deadline(wrk.core, now) > now) break;
    fuzz_check(rounds < WRK_PUMPS_MAX, "a deadline stays in the past");
  }
}

/* ---- What the supervisor sends ---- */

/* What a frame that is sound told: of its own batches, none on the wire is below the last that it was told of; its slot, which the shell
 * subscribes by. */
static void wrk_check_told(messaging__slice frame, uint64_t malformed) {
  messaging__worker *core = wrk.core;
  messaging__reader reader = {frame.data, frame.data + frame.size, false};
  messaging__envelope envelope;
  messaging__batch batch;
  messaging__news news;
  if (wrk.astray || core->state != MESSAGING__JOINED || core->stats.malformed != malformed) return;
  fuzz_check(messaging__envelope_read(&reader, &envelope), "a frame without an envelope is taken");
  const messaging__run *run = NULL;
  uint64_t end = 0;
  if (envelope.type == MESSAGING__RELAY && messaging__batch_read(frame.data, frame.size, &batch)) {
    run = &batch.run;
    end = batch.position;
  } else if (envelope.type == MESSAGING__HEARTBEAT || envelope.type == MESSAGING__STATUS || envelope.type == MESSAGING__WELCOME) {
    if (messaging__read_array(&reader) == 12) {
      unsigned slot = (unsigned)messaging__read_uint(&reader, MESSAGING__SLOTS - 1);
      fuzz_check((core->slot == slot || core->leaving) && (core->tune || core->slot == wrk.slot), "a slot is not taken");
      for (int i = 0; i < 3; i++) messaging__read_uint(&reader, UINT32_MAX);
    }
    if (!messaging__news_read(&reader, &news)) return; /* a number of 64 bits among the three */
    run = &news.run;
    end = news.next;
  }
  wrk.slot = core->slot;
  core->tune = false;
  if (!run || run->nonce != WRK_NONCE) return;
  fuzz_check(core->number - core->flights.count > run->batch, "batch %" PRIu64 " is told to be accepted, and kept", run->batch);
  fuzz_check(core->known >= end, "numbers below %" PRIu64 " are told, and not known", end);
  bool kept = fuzz_starved == 0 && core->early.count < MESSAGING__REORDER_MAX;
  fuzz_check(!kept || core->next < run->first || core->next >= end, "%" PRIu64 " is next, which is its own", core->next);
}

static void wrk_receive(messaging__slice frame) {
  uint64_t malformed = wrk.core->stats.malformed, errors = wrk.end.errors;
  bool lost = wrk.core->lost;
  messaging__worker_receive(wrk.core, frame, fuzz_now());
  wrk_check_told(frame, malformed);
  if (lost && !wrk.core->lost && wrk.core->lost_shown) wrk.end.term_told = false; /* that was for its silence, which is over */
  wrk_observe_items();
  messaging__dispatch(wrk.end.handle);
  fuzz_check(wrk.core->stats.malformed == malformed || wrk.end.errors > errors || wrk.end.handle->reports_dropped, "a malformed frame is not reported");
}

static void wrk_deliver(const uint8_t *data, size_t size) { fuzz_lend(data, size, wrk_receive); }

/* A value that is the true one unless the program says otherwise; then nothing strict holds any more. */
static uint64_t wrk_near(uint64_t value) {
  uint64_t given = fuzz_near(value);
  if (given != value) wrk.astray = true;
  return given;
}

/* Begins a frame of this session and generation, or of others, or to others. */
static void wrk_frame_begin(messaging__writer *writer, bool one, uint8_t type, uint8_t style) {
  messaging__era era = wrk_era();
  messaging__who to = wrk.self;
  if (style != 0) wrk.astray = true;
  if (style == 1) era.generation = (uint32_t)fuzz_near(era.generation);
  if (style == 2) era.session[fuzz_below(16)] ^= 1;
  if (style == 3) to.nonce = fuzz_near(to.nonce);
  if (style == 4) one = !one;
  messaging__frame_begin(writer, one ? &to : NULL, style == 5 ? (char)fuzz_byte() : 'B', style == 6 ? fuzz_byte() & 0x7f : type, &era);
  if (style == 7) writer->bytes[one ? MESSAGING__TOPIC_SIZE : 3] = fuzz_byte();
}

/* Whose the numbers below the log's end are: as it is, from a later number on only, or otherwise. A lie is one about the worker alone. */
static messaging__run wrk_tell_run(uint8_t what) {
  static const uint64_t nonces[] = {WRK_NONCE, 77, 0xffff};
  const messaging__run *so = &wrk.run;
  messaging__run run = *so;
  if (what & 3) run.nonce = nonces[(what & 3) - 1];
  if (what & 4) run.first += (what >> 3 & 7) % (wrk.next - run.first + 1);
  if (what & 64) run.first = fuzz_near(run.first);
  if (what & 128) run.batch = fuzz_near(run.batch);
  bool true_one = so->nonce == WRK_NONCE && run.first >= so->first && run.batch == so->batch;
  if (run.nonce == WRK_NONCE && !true_one) wrk.astray = true;
  return run;
}

static void wrk_put_news(messaging__writer *writer, uint8_t how) {
  static const messaging__who others[2] = {{102, WRK_KIND, 77}, {100, MESSAGING_SUPERVISOR, 1}};
  messaging__put_uint(writer, how & 1 ? wrk_near(wrk.next) : wrk.next);
  messaging__put_uint(writer, how & 2 ? wrk_near(wrk.first) : wrk.first);
  uint8_t what = how & 32 ? fuzz_byte() : 0;
  messaging__run run = wrk_tell_run(what);
  messaging__put_uint(writer, run.nonce);
  messaging__put_uint(writer, run.first);
  messaging__put_uint(writer, run.batch);
  messaging__put_uint(writer, how & 4 ? fuzz_near(60000) : 25);
  messaging__put_uint(writer, how & 8 ? fuzz_byte() : 0);
  unsigned terms = how & 16 ? fuzz_below(4) : 0;
  messaging__put_tag(writer, 0x90u | terms);
  for (unsigned i = 0; i < terms; i++) {
    uint8_t by = fuzz_byte();
    messaging__put_tag(writer, by >= 0xf0 ? by : 0x93u);
    messaging__put_who(writer, by % 3 == 0 ? &wrk.self : &others[by % 3 - 1]);
  }
  if (what == 0xff) messaging__put_tag(writer, fuzz_byte());
}

static void wrk_op_status(uint8_t type) {
  static const uint32_t windows[] = {MESSAGING__WINDOW_BYTES, 0, 1000, UINT32_MAX};
  messaging__writer writer;
  uint8_t style = fuzz_byte(), how = fuzz_byte();
  wrk_frame_begin(&writer, true, type, style < 240 ? 0 : style & 7);
  messaging__put_tag(&writer, style == 239 ? fuzz_byte() : 0x9cu);
  messaging__put_uint(&writer, style == 238 ? fuzz_byte() : style < 4 ? wrk.slot : style >> 2 & (MESSAGING__SLOTS - 1)); /* 0 among them */
  messaging__put_uint(&writer, how & 64 ? wrk_near(wrk.taken + 1) : wrk.taken + 1);
  messaging__put_uint(&writer, windows[style & 3]);
  messaging__put_uint(&writer, how & 128 ? fuzz_near(wrk.core->probe) : wrk.core->probe);
  wrk_put_news(&writer, how & 63);
  wrk_deliver(writer.bytes, writer.size);
}

static void wrk_op_heartbeat(void) {
  messaging__writer writer;
  uint8_t style = fuzz_byte(), how = fuzz_byte();
  wrk_frame_begin(&writer, false, MESSAGING__HEARTBEAT, style < 240 ? 0 : style & 7);
  messaging__put_tag(&writer, style == 239 ? fuzz_byte() : 0x98u);
  wrk_put_news(&writer, how & 63);
  wrk_deliver(writer.bytes, writer.size);
}

static void wrk_op_refuse(void) {
  messaging__writer writer;
  uint8_t style = fuzz_byte();
  wrk_frame_begin(&writer, true, MESSAGING__REFUSE, style < 240 ? 0 : style & 7);
  messaging__put_tag(&writer, style == 239 ? fuzz_byte() : 0x91u);
  messaging__put_uint(&writer, fuzz_byte() % (MESSAGING__STATUS_COUNT + 1u));
  wrk_deliver(writer.bytes, writer.size);
}

/* The supervisor publishes a batch; it arrives now, or has to be asked for. */
static void wrk_publish(uint8_t *frame, size_t size, uint64_t position, unsigned slot, uint8_t what, bool arrives) {
  messaging__run run = wrk_tell_run(what);
  messaging__store_be(frame + MESSAGING__AT_POSITION, position, 8);
  messaging__put_letters(frame + MESSAGING__AT_LETTERS, slot);
  messaging__put_run(frame, &run);
  messaging__batch again;
  if (!messaging__batch_read(frame, size, &again)) { /* the run tells of what no number can be */
    wrk.astray = true;
    wrk_deliver(frame, size);
    return;
  }
  if (wrk.log_count < WRK_LOG && position == wrk.next) {
    wrk.log[wrk.log_count] = wrk_copy(frame, size);
    const messaging__batch *batch = &wrk.log[wrk.log_count++].batch;
    if (wrk.run.nonce != batch->nonce) wrk.run.first = batch->position;
    wrk.run.nonce = batch->nonce;
    wrk.run.batch = batch->number;
    wrk.next += batch->count;
  } else {
    wrk.astray = true;
  }
  if (arrives) wrk_deliver(frame, size);
}

/* A batch of another worker. */
static void wrk_op_publish(bool arrives) {
  messaging__era era = wrk_era();
  uint8_t style = fuzz_byte();
  messaging__batch batch = {MESSAGING__RELAY, 102, WRK_KIND, 77, 1 + fuzz_value, 0, 0, 0, 0, {0, 0, 0}};
  uint8_t *payload = fuzz_frame + MESSAGING__AT_PAYLOAD;
  size_t size = fuzz_payload(payload, FUZZ_FRAME_MAX - MESSAGING__AT_PAYLOAD, MESSAGING__RELAY, &batch.count);
  if (style == 1) batch.nonce = WRK_NONCE, wrk.astray = true; /* as if it were the worker's own */
  if (style == 2) batch.type = MESSAGING__OUTPUT, wrk.astray = true;
  if (style == 3) era.generation++, wrk.astray = true;
  batch.payload_size = (uint32_t)size;
  uint64_t position = style == 4 ? wrk_near(wrk.next) : wrk.next;
  messaging__batch_write(fuzz_frame, &era, &batch);
  messaging__batch again;
  bool sound = style != 2 && style != 3 && messaging__batch_read(fuzz_frame, MESSAGING__AT_PAYLOAD + size, &again);
  if (sound) {
    wrk_publish(fuzz_frame, MESSAGING__AT_PAYLOAD + size, position, wrk.slot % 60 + 1, style >= 128 ? fuzz_byte() : 0, arrives);
    return;
  }
  messaging__store_be(fuzz_frame + MESSAGING__AT_POSITION, position, 8);
  wrk_deliver(fuzz_frame, MESSAGING__AT_PAYLOAD + size);
}

/* The supervisor takes the worker's next batch: a relay batch it publishes, which the worker hears only where it has no slot, or has not
 * subscribed by it yet; of an output batch only a status tells. */
static void wrk_op_take(void) {
  uint8_t by = fuzz_byte();
  if (wrk.taken >= wrk.up_count) return;
  const wrk_entry *entry = &wrk.up[wrk.taken++];
  if (!entry->frame || entry->batch.type != MESSAGING__RELAY) return;
  memcpy(fuzz_frame, entry->frame, entry->size);
  wrk_publish(fuzz_frame, entry->size, wrk.next, wrk.slot, by % 8u == 7 ? fuzz_byte() : 0, by < 192 && (wrk.slot == 0 || by >= 64));
}

/* An entry of the log, counted from its end: late, again, out of order. */
static void wrk_op_late(void) {
  size_t back = fuzz_byte();
  if (wrk.log_count == 0) return;
  const wrk_entry *entry = &wrk.log[wrk.log_count - 1 - back % wrk.log_count];
  wrk_deliver(entry->frame, entry->size);
}

/* Entries of the log in one frame, as an answer; more may be promised than is there, and something else may follow. */
static void wrk_op_repair(void) {
  messaging__writer writer;
  uint8_t style = fuzz_byte(), from = fuzz_byte(), count = fuzz_byte(), how = fuzz_byte();
  size_t at = wrk.log_count ? wrk.log_count - 1 - from % wrk.log_count : 0, held = 0;
  wrk_frame_begin(&writer, true, MESSAGING__REPAIR, style < 240 ? 0 : style & 7);
  messaging__put_tag(&writer, style == 239 ? fuzz_byte() : 0x93u);
  messaging__put_uint(&writer, how & 1 ? 0 : 1);
  memcpy(fuzz_frame, writer.bytes, writer.size);
  size_t payload = writer.size + 10, end = payload;
  for (; held < count && at + held < wrk.log_count; held++) {
    const wrk_entry *entry = &wrk.log[at + held];
    if (end + entry->size > FUZZ_FRAME_MAX / 4) break;
    memcpy(fuzz_frame + end, entry->frame, entry->size);
    end += entry->size;
  }
  if (how & 2) {
    size_t more = (size_t)fuzz_byte() * (how & 4 ? 1024u : 1u);
    memset(fuzz_frame + end, 0x96, more);
    end += more;
  }
  fuzz_frame[writer.size] = 0xce;
  messaging__store_be(fuzz_frame + writer.size + 1, how & 8 ? fuzz_near(held) : held, 4);
  fuzz_frame[writer.size + 5] = 0xc6;
  messaging__store_be(fuzz_frame + writer.size + 6, how & 16 ? fuzz_near(end - payload) : end - payload, 4);
  wrk_deliver(fuzz_frame, end);
}

static void wrk_op_mutate(void) {
  wrk.astray = true;
  fuzz_mutate();
  wrk_deliver(fuzz_last, fuzz_last_size);
}

static void wrk_op_raw(void) {
  size_t size = fuzz_byte();
  const uint8_t *bytes = fuzz_bytes(&size);
  wrk.astray = true;
  wrk_deliver(bytes, size);
}

/* ---- What the application and the world do ---- */

/* What a message is known by when it is seen again in a batch. */
static uint64_t wrk_digest(uint8_t type, const void *message) {
  msgpack_sbuffer packed;
  msgpack_packer packer;
  fuzz_due due = {type == MESSAGING__RELAY ? MESSAGING_RELAY_MESSAGE : MESSAGING_OUTPUT_MESSAGE, 0, 0, 0, 0, 0, 0, MESSAGING_LOG};
  msgpack_sbuffer_init(&packed);
  msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
  int bad = type == MESSAGING__RELAY ? fuzz_encode(&packer, (const fuzz_fact *)message) : messaging__encode_output(&packer, message);
  fuzz_check(bad == 0 && fuzz_due_of((const uint8_t *)packed.data, packed.size, &due), "a message cannot be read again");
  msgpack_sbuffer_destroy(&packed);
  return due.digest;
}

static void wrk_op_send(uint8_t type) {
  uint8_t by = fuzz_byte();
  fuzz_fact fact = {fuzz_value++, 0, by >= 0xf0 ? fuzz_byte() * fuzz_scale / 2 : by >= 0xc0 ? by : 0, by == 0xbf && type == MESSAGING__RELAY};
  messaging_output output = {(messaging_output_type)(by % 3u), by, "some text that is said", by % 23u};
  const void *message = type == MESSAGING__RELAY ? (const void *)&fact : (const void *)&output;
  uint64_t digest = fact.refuse ? 0 : wrk_digest(type, message), starved = fuzz_starved;
  bool ended = wrk.core->inbox->ended;
  pthread_mutex_lock(&wrk.end.handle->core); /* as if the background thread were in the protocol: pump comes later */
  messaging_status status = type == MESSAGING__RELAY ? fuzzed_send_relay_message(fuzz_ctx(&wrk.end), &fact) : fuzzed_send_output_message(fuzz_ctx(&wrk.end), &output);
  pthread_mutex_unlock(&wrk.end.handle->core);
  bool fine = status == MESSAGING_OK || status == MESSAGING_EFULL || (status == MESSAGING_ETOOBIG && by >= 0xf0) || (status == MESSAGING_EENCODE && fact.refuse) ||
              (status == MESSAGING_ENOMEM && fuzz_starved > starved) || (ended && status == wrk.core->inbox->cause);
  fuzz_check(fine, "send says %s", messaging_strerror(status));
  if (status == MESSAGING_OK) wrk_note_sent(type, digest);
}

static void wrk_op_look(void) {
  messaging_stats stats;
  fuzz_check(fuzzed_stats(fuzz_ctx(&wrk.end), &stats) == MESSAGING_OK, "stats fail");
  fuzz_check(stats.outbox_bytes <= stats.outbox_bytes_max + wrk.options.message_bytes_max + MESSAGING__AT_PAYLOAD, "stats are false");
  if (messaging__worker_flushed(wrk.core)) fuzz_check(wrk.astray || wrk.taken == wrk.core->number - 1, "flushed with batches left");
  else messaging__worker_hurry(wrk.core, fuzz_now());
}

/* The number of the log's entry from which on history is kept. */
static void wrk_op_trim(void) {
  size_t back = fuzz_byte();
  uint64_t first = back < wrk.log_count ? wrk.log[wrk.log_count - 1 - back].batch.position : wrk.first;
  if (back == 0) first = wrk.next;
  wrk.first = messaging__later(wrk.first, first);
}

static void wrk_op(uint8_t op) {
  switch (op) {
    case 0: fuzz_advance(messaging__worker_deadline(wrk.core, fuzz_now())); break;
    case 1: wrk_op_status(MESSAGING__WELCOME); break;
    case 2: wrk_op_status(MESSAGING__STATUS); break;
    case 3: wrk_op_heartbeat(); break;
    case 4: case 5: wrk_op_publish(true); break;
    case 6: wrk_op_publish(false); break;
    case 7: wrk_op_take(); break;
    case 8: wrk_op_late(); break;
    case 9: wrk_op_repair(); break;
    case 10: wrk_op_refuse(); break;
    case 11: wrk_op_mutate(); break;
    case 12: wrk_op_raw(); break;
    case 13: wrk_op_send(MESSAGING__RELAY); break;
    case 14: wrk_op_send(MESSAGING__OUTPUT); break;
    case 15: fuzz_receive(&wrk.end, false); break;
    case 16: fuzz_receive_all(&wrk.end, true); break;
    case 17: messaging__worker_terminate(wrk.core, fuzz_now()); break;
    case 18: messaging__worker_leave(wrk.core, fuzz_now()); break;
    case 19: wrk_op_look(); break;
    case 20: wrk.stalled = !wrk.stalled; break;
    case 21: fuzz_starve = fuzz_byte(); break;
    case 22: wrk_op_trim(); break;
    case 23: messaging__worker_end(wrk.core, MESSAGING_ELOST, "the supervisor died"); break; /* a pidfd tells */
    default: wrk_op_publish(op & 1); break;
  }
}

static void wrk_open(void) {
  uint8_t world = fuzz_byte();
  memset(&wrk, 0, sizeof wrk);
  wrk.options = (messaging_options){.heartbeat_ms = 1000, .silence_ms = 5000, .message_bytes_max = 4096, .outbox_bytes_max = world & 1 ? 16384 : 1 << 19,
                                    .inbox_bytes_max = world & 2 ? 16384 : 1 << 17, .history_bytes_max = 65536};
  if ((world & 0x79) == 0x78) { /* large enough for the outbox to go on in blocks */
    wrk.options.message_bytes_max = 1 << 17;
    wrk.options.outbox_bytes_max = 1 << 20;
    fuzz_scale = 640;
  }
  wrk.self = (messaging__who){WRK_ID, WRK_KIND, WRK_NONCE};
  wrk.next = wrk.first = wrk.due_next = 1;
  fuzz_open(&wrk.end, &wrk.options, false);
  wrk.core = &wrk.end.handle->worker;
  messaging__port port = {&wrk.end, wrk_send, wrk_report, NULL, NULL, NULL};
  messaging__worker_init(wrk.core, &port, &wrk.end.handle->outbox, &wrk.end.handle->inbox, &wrk.self, &wrk.options, fuzz_now());
  wrk.core->watched = (world & 4) != 0;
}

static void wrk_close(void) {
  fuzz_starve = 0;
  wrk_observe_items();
  fuzz_receive_all(&wrk.end, false);
  fuzz_close(&wrk.end);
  for (size_t i = 0; i < wrk.log_count; i++) free(wrk.log[i].frame);
  for (size_t i = 0; i < wrk.up_count; i++) free(wrk.up[i].frame);
  free(wrk.notes);
}

static int fuzz_worker(const uint8_t *data, size_t size) {
  fuzz_begin(data, size);
  wrk_open();
  for (wrk.ops = 0; fuzz_more() && wrk.ops < WRK_OPS_MAX; wrk.ops++) {
    uint8_t op = fuzz_byte();
    wrk_op(op & 31);
    wrk_observe_items();
    if (!(op & 0x80)) wrk_pump(); /* else more is to come before the next step */
    messaging__dispatch(wrk.end.handle);
    wrk_check();
  }
  wrk_close();
  return 0;
}

#ifndef FUZZ_REPLAY
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_worker(data, size); }
#endif
