/*
 * supervisor.c - the supervisor's machine against workers that are made of the input's bytes
 *
 * The program says what up to SUP_SLOTS worker ids send (right or wrong), what the application calls, what the clock does, who dies,
 * and when memory runs out. Beside the machine a model keeps what each incarnation of a worker has claimed to have and what was taken of
 * it, and what the application is to receive.
 */
#include "fuzz.h"

enum { SUP_SLOTS = 6, SUP_KIND = 7, SUP_SELF = 100, SUP_CLAIMS = 2048, SUP_OPS_MAX = 600, SUP_PUMPS_MAX = 200 };

/* 104 cannot be watched, as ids below zero. */
static const pid_t sup_ids[SUP_SLOTS] = {101, 102, 103, 104, -1, -2};

/* What one incarnation of one id has said, and what was taken of it. */
typedef struct {
  pid_t id;
  uint64_t nonce, has, taken;
} sup_claim;

typedef struct {
  uint64_t nonce; /* of the incarnation that speaks when the program says nothing else */
  uint64_t floor; /* history below was gone when this id was listed, or it was told that it is */
  uint64_t accepted;
  bool dead;
} sup_slot;

typedef struct {
  fuzz_end end;
  messaging__im *im;
  messaging__who self;
  messaging_options options;
  sup_slot slots[SUP_SLOTS];
  size_t claim_count;
  uint32_t watches, ops;
  uint64_t nonces, next, first;
  messaging__run run; /* whose the last numbers are */
  uint32_t generation;
  size_t carried;  /* bytes that a new generation kept in the inbox */
  sup_claim speaks; /* what the frame that is being received claims */
  bool purged;     /* before the update that goes on */
  bool stalled;    /* the socket takes nothing */
  uint64_t frames;
} sup_world;

static sup_world sup;
static sup_claim sup_claims[SUP_CLAIMS];

static const uint8_t sup_session[16] = {1, 2, 3};

static sup_claim *sup_claim_of(pid_t id, uint64_t nonce) {
  for (size_t i = 0; i < sup.claim_count; i++)
    if (sup_claims[i].id == id && sup_claims[i].nonce == nonce) return &sup_claims[i];
  fuzz_check(sup.claim_count < SUP_CLAIMS, "too many incarnations for this target");
  sup_claim *claim = &sup_claims[sup.claim_count++];
  memset(claim, 0, sizeof *claim);
  claim->id = id;
  claim->nonce = nonce;
  return claim;
}

static sup_slot *sup_slot_of(pid_t id) {
  for (size_t i = 0; i < SUP_SLOTS; i++)
    if (sup_ids[i] == id) return &sup.slots[i];
  return NULL;
}

static messaging__peer *sup_peer(pid_t id) { return (messaging__peer *)messaging__map_get(&sup.im->by_id, messaging__id_key(id)); }

/* ---- What the machine does: frames down, reports, watches ---- */

/* A batch is taken: the next one of its sender, nothing else. */
static void sup_taken(const messaging__batch *batch) {
  sup_claim *claim = sup_claim_of((pid_t)batch->id, batch->nonce);
  fuzz_check(batch->number == claim->taken + 1, "of %d, batch %" PRIu64 " is taken after %" PRIu64, (int)batch->id, batch->number, claim->taken);
  claim->taken++;
}

/* Outputs that came into the inbox since the last look. */
static void sup_observe_items(void) {
  messaging__inbox *inbox = &sup.end.handle->inbox;
  for (size_t i = sup.end.items_seen; i < inbox->items.count; i++) {
    const messaging__item *item = (const messaging__item *)messaging__ring_at(&inbox->items, i);
    fuzz_check(item->batch.type == MESSAGING__OUTPUT && item->after == sup.next, "an output batch is queued in the wrong place");
    sup_taken(&item->batch);
  }
  fuzz_observe_items(&sup.end);
}

/* What a batch is told when it is published: whose the numbers before it are, and of whom it is. Its sender's slot is in its topic. */
static void sup_check_told(const uint8_t *frame, const messaging__batch *batch) {
  uint8_t letters[MESSAGING__LETTERS];
  const messaging__peer *peer = (const messaging__peer *)messaging__map_get(&sup.im->by_nonce, batch->nonce);
  fuzz_check(memcmp(&batch->run, &sup.run, sizeof sup.run) == 0, "number %" PRIu64 " tells a false run", batch->position);
  messaging__put_letters(letters, peer ? peer->slot : 0);
  fuzz_check(memcmp(frame + MESSAGING__AT_LETTERS, letters, sizeof letters) == 0, "number %" PRIu64 " is of another slot", batch->position);
  fuzz_check(peer || batch->nonce == sup.self.nonce, "number %" PRIu64 " is of nobody", batch->position);
}

static messaging__run sup_run_after(messaging__run run, const messaging__batch *batch) {
  return (messaging__run){batch->nonce, run.nonce == batch->nonce ? run.first : batch->position, batch->number};
}

/* A relay batch is published: its numbers follow. */
static void sup_published(messaging__slice frame) {
  messaging__batch batch;
  sup_observe_items();
  fuzz_check(messaging__batch_read(frame.data, frame.size, &batch), "a published batch cannot be read");
  fuzz_check(batch.position == sup.next, "number %" PRIu64 " is given where %" PRIu64 " follows", batch.position, sup.next);
  fuzz_check(messaging__load_be(frame.data + MESSAGING__AT_GENERATION, 4) == sup.im->era.generation, "a batch of another generation is published");
  sup_check_told(frame.data, &batch);
  sup.run = sup_run_after(sup.run, &batch);
  sup.next += batch.count;
  sup_taken(&batch);
  if (batch.nonce != sup.self.nonce) fuzz_expect(&sup.end.dues, frame.data, frame.size);
}

/* A repair holds whole batches of the history, in order. */
static void sup_check_repair(messaging__reader *reader) {
  size_t size;
  uint64_t at = sup.im->inbox->log.first, end = at;
  fuzz_check(messaging__read_array(reader) == 3, "a repair has a false shape");
  messaging__read_uint(reader, 1);
  uint64_t count = messaging__read_uint(reader, UINT32_MAX);
  const uint8_t *frames = messaging__read_bytes(reader, &size);
  fuzz_check(!reader->bad && reader->at == reader->end, "a repair has a false shape");
  for (; count; count--) {
    messaging__batch batch;
    fuzz_check(messaging__batch_read(frames, size, &batch) && batch.type == MESSAGING__RELAY, "a repair holds something else than batches");
    fuzz_check(batch.position >= at, "a repair is not in order, or of what is not in history");
    at = batch.position; /* ranges that meet within a batch bring it twice */
    end = batch.position + batch.count;
    frames += MESSAGING__AT_PAYLOAD + batch.payload_size;
    size -= MESSAGING__AT_PAYLOAD + batch.payload_size;
  }
  fuzz_check(size == 0 && end <= sup.next, "a repair holds more than it says, or than there is");
}

/* STATUS and WELCOME say what is so. */
static void sup_check_status(messaging__reader *reader, pid_t id, uint64_t nonce) {
  messaging__news news;
  fuzz_check(messaging__read_array(reader) == 12, "a status has a false shape");
  const messaging__peer *peer = sup_peer(id);
  uint64_t slot = messaging__read_uint(reader, MESSAGING__SLOTS - 1);
  fuzz_check(peer && slot == peer->slot, "%d is told a false slot", (int)id);
  uint64_t expected = messaging__read_uint(reader, MESSAGING__NUMBER_MAX), window = messaging__read_uint(reader, UINT32_MAX);
  messaging__read_uint(reader, UINT32_MAX);
  fuzz_check(messaging__news_read(reader, &news), "a status has a false shape");
  sup_observe_items();
  fuzz_check(news.next == sup.next && news.first == sup.im->inbox->log.first, "a status tells false numbers");
  fuzz_check(memcmp(&news.run, &sup.run, sizeof sup.run) == 0, "a status tells a false run");
  fuzz_check(window == 0 || window == MESSAGING__WINDOW_BYTES, "a status tells a false window");
  fuzz_check(expected == sup_claim_of(id, nonce)->taken + 1, "%d is told to send batch %" PRIu64, (int)id, expected);
}

static void sup_accepted(pid_t id, uint64_t nonce);

/* A new generation: numbers from 1, and what the application had not received of the old one is kept or purged. */
static void sup_renewed(void) {
  messaging__inbox *inbox = &sup.end.handle->inbox;
  if (sup.im->era.generation == sup.generation) return;
  sup.generation = sup.im->era.generation;
  sup.next = sup.first = 1;
  memset(&sup.run, 0, sizeof sup.run);
  sup.end.term_told = false;
  if (sup.purged) fuzz_emptied(&sup.end);
  sup.end.items_seen = inbox->items.count;
  sup.carried = inbox->bytes;
  fuzz_check(!sup.purged || inbox->bytes == 0, "what was purged is back");
}

static bool sup_send(void *self, messaging__slice frame) {
  messaging__reader reader = {frame.data, frame.data + frame.size, false};
  messaging__envelope envelope;
  (void)self;
  sup_renewed();
  sup.frames++;
  fuzz_check(messaging__envelope_read(&reader, &envelope) && envelope.version == MESSAGING_WIRE_VERSION, "a frame without an envelope is sent");
  fuzz_check(memcmp(envelope.session, sup_session, 16) == 0 && envelope.generation == sup.im->era.generation, "a frame of another time is sent");
  bool all = envelope.topic_size == 1 && envelope.topic[0] == 'B', one = envelope.topic_size == 17 && envelope.topic[0] == 'W';
  pid_t id = one ? (pid_t)messaging__load_be(envelope.topic + 1, 8) : 0;
  uint64_t nonce = one ? messaging__load_be(envelope.topic + 9, 8) : 0;
  messaging__news news;
  switch (envelope.type) {
    case MESSAGING__RELAY:
      fuzz_check(frame.data[MESSAGING__AT_TYPE] == MESSAGING__RELAY, "a batch changed its type");
      sup_published(frame);
      break;
    case MESSAGING__HEARTBEAT:
      fuzz_check(all && messaging__read_array(&reader) == 8 && messaging__news_read(&reader, &news), "a heartbeat has a false shape");
      fuzz_check(news.next == sup.next && news.first == sup.im->inbox->log.first, "a heartbeat tells false numbers");
      fuzz_check(memcmp(&news.run, &sup.run, sizeof sup.run) == 0, "a heartbeat tells a false run");
      break;
    case MESSAGING__WELCOME:
      sup_accepted(id, nonce); /* fall through */
    case MESSAGING__STATUS:
      fuzz_check(one, "a status is sent to all");
      sup_check_status(&reader, id, nonce);
      break;
    case MESSAGING__REPAIR:
      fuzz_check(one, "a repair is sent to all");
      sup_check_repair(&reader);
      break;
    case MESSAGING__REFUSE:
      fuzz_check(one && messaging__read_array(&reader) == 1 && messaging__read_uint(&reader, MESSAGING__STATUS_COUNT - 1) && !reader.bad, "a refusal has a false shape");
      break;
    default: fuzz_fail("a frame of type %d is sent", envelope.type);
  }
  return !sup.stalled;
}

static void sup_report(void *self, const messaging_error *error) {
  (void)self;
  sup_renewed();
  if (error->status == MESSAGING_EHISTORY) {
    fuzz_check(error->first <= error->last && error->last < sup.im->inbox->log.first, "a gap is told that is none");
    sup_slot *slot = sup_slot_of(error->pid);
    if (slot && error->last + 1 > slot->floor) slot->floor = error->last + 1;
    if (error->pid == SUP_SELF) fuzz_dues_cut(&sup.end.dues, sup.im->era.generation, error->first, error->last);
  }
  messaging__shell_report(sup.end.handle, error);
}

static int sup_watch(void *self, pid_t id) {
  (void)self;
  fuzz_check(id > 0, "an id that is no pid is watched");
  sup_slot *slot = sup_slot_of(id);
  size_t at = slot ? (size_t)(slot - sup.slots) : SUP_SLOTS;
  if (at >= 3) return MESSAGING__UNWATCHED;
  if (slot->dead) return MESSAGING__DEAD;
  fuzz_check(!(sup.watches >> at & 1), "%d is watched twice", (int)id);
  sup.watches |= 1u << at;
  return (int)at;
}

static void sup_unwatch(void *self, int watch) {
  (void)self;
  fuzz_check(watch >= 0 && watch < 3 && (sup.watches >> watch & 1), "a watch is dropped that is none");
  sup.watches &= ~(1u << watch);
}

static bool sup_died(void *self, int watch) {
  (void)self;
  fuzz_check(watch >= 0 && watch < 3 && (sup.watches >> watch & 1), "a watch is asked that is none");
  return sup.slots[watch].dead;
}

/* ---- Invariants ---- */

/* An incarnation is welcomed: for the first time, or again since its listing, it begins anew. */
static void sup_accepted(pid_t id, uint64_t nonce) {
  sup_slot *slot = sup_slot_of(id);
  fuzz_check(slot, "%d is welcomed, which nobody listed", (int)id);
  if (slot->accepted == nonce) return;
  slot->accepted = nonce;
  sup_claim *claim = sup_claim_of(id, nonce);
  claim->taken = 0;
  claim->has = sup.speaks.id == id && sup.speaks.nonce == nonce ? sup.speaks.has : 0;
}

/* trim <= acknowledged <= high-water mark, for each who counts. */
static void sup_check_peer(const messaging__peer *peer) {
  const messaging__log *log = &sup.im->inbox->log;
  sup_slot *slot = sup_slot_of(peer->who.id);
  fuzz_check(slot && messaging__map_get(&sup.im->by_id, messaging__id_key(peer->who.id)) == peer, "a peer is not found by its id");
  slot->accepted = peer->who.nonce;
  fuzz_check(peer->has <= log->next, "%d has %" PRIu64 " of %" PRIu64, (int)peer->who.id, peer->has, log->next);
  fuzz_check(peer->repair_count <= MESSAGING__RANGES_MAX, "too many ranges");
  if (!messaging__peer_live(peer)) return;
  fuzz_check(peer->silent || peer->has >= log->first, "%d lacks what is trimmed", (int)peer->who.id);
  fuzz_check(peer->silent || peer->has >= sup.im->held, "%d lacks what is not held for it", (int)peer->who.id);
  uint64_t claimed = 1;
  if (peer->who.nonce) {
    const sup_claim *claim = sup_claim_of(peer->who.id, peer->who.nonce);
    fuzz_check(peer->expected == claim->taken + 1, "of %d batch %" PRIu64 " is expected after %" PRIu64, (int)peer->who.id, peer->expected, claim->taken);
    claimed = messaging__later(claimed, claim->has);
  }
  fuzz_check(peer->has <= messaging__later(claimed, log->first), "%d is taken to have more than it said", (int)peer->who.id);
  if (peer->silent) slot->floor = messaging__later(slot->floor, log->first); /* told when it is back */
  fuzz_check(log->first <= messaging__later(claimed, slot->floor), "history is trimmed to %" PRIu64 ", %d has all below %" PRIu64, log->first,
             (int)peer->who.id, claimed);
}

/* Those who are connected have slots, each its own. */
static void sup_check_slots(void) {
  uint64_t slots = 0;
  for (size_t i = 0; i < sup.im->peers.count; i++) {
    const messaging__peer *peer = messaging__im_peer(sup.im, i);
    uint64_t bit = (uint64_t)1 << peer->slot;
    fuzz_check((peer->slot != 0) == (peer->state == MESSAGING__ACTIVE), "%d has slot %u", (int)peer->who.id, peer->slot);
    fuzz_check(peer->slot == 0 || !(slots & bit), "two have slot %u", peer->slot);
    slots |= bit;
  }
  fuzz_check((slots & ~(uint64_t)1) == sup.im->slots, "slots are taken by nobody");
}

static void sup_check_peers(void) {
  const messaging__im *im = sup.im;
  sup_check_slots();
  uint32_t live = 0, joined = 0;
  size_t busy = 0;
  for (size_t i = 0; i < SUP_SLOTS; i++)
    if (!sup_peer(sup_ids[i])) sup.slots[i].accepted = 0;
  for (size_t i = 0; i < im->peers.count; i++) {
    const messaging__peer *peer = messaging__im_peer(im, i);
    sup_check_peer(peer);
    live += messaging__peer_live(peer);
    joined += peer->state == MESSAGING__ACTIVE && peer->confirmed;
    busy += peer->busy;
    fuzz_check((peer->watch >= 0) == (peer->watch >= 0 && (sup.watches >> peer->watch & 1)), "a watch is lost");
  }
  fuzz_check(live == im->live && joined == im->joined, "%u live and %u joined are counted as %u and %u", live, joined, im->live, im->joined);
  fuzz_check(busy == im->busy.count, "%zu busy peers, and a list of %zu", busy, im->busy.count);
  for (size_t i = 0; i < im->busy.count; i++)
    fuzz_check((*(messaging__peer **)messaging__ring_at(&im->busy, i))->busy, "one on the busy list is not busy");
  for (size_t i = 0; i < im->by_nonce.capacity; i++) {
    const messaging__slot *slot = &im->by_nonce.slots[i];
    fuzz_check(!slot->key || ((const messaging__peer *)slot->value)->who.nonce == slot->key, "a nonce finds a peer that has another");
  }
}

/* The history from end to end: numbers without a gap, each batch saying whose those before it are, sizes that add up. */
static void sup_check_log(void) {
  const messaging__log *log = &sup.im->inbox->log;
  messaging__place place = {0, 0};
  messaging__slice frame;
  messaging__batch batch;
  messaging__run run = sup.run;
  uint64_t at = log->first;
  size_t bytes = 0;
  for (size_t i = 0; i < log->chunks.count; i++) bytes += messaging__log_chunk(log, i)->size;
  fuzz_check(bytes == log->bytes, "history counts %zu bytes and holds %zu", log->bytes, bytes);
  while (messaging__log_read(log, &place, &frame)) {
    fuzz_check(messaging__batch_read(frame.data, frame.size, &batch) && batch.position == at, "history has a hole at %" PRIu64, at);
    if (at == log->first) run = batch.run;
    fuzz_check(memcmp(&batch.run, &run, sizeof run) == 0, "history tells a false run at %" PRIu64, at);
    run = sup_run_after(run, &batch);
    at += batch.count;
  }
  fuzz_check(at == log->next, "history ends at %" PRIu64 " instead of %" PRIu64, at, log->next);
  fuzz_check(memcmp(&run, &sup.run, sizeof run) == 0, "history ends with a false run");
}

static void sup_check(void) {
  const messaging__inbox *inbox = &sup.end.handle->inbox;
  const messaging__log *log = &inbox->log;
  sup_observe_items();
  fuzz_check(log->next == sup.next, "history ends at %" PRIu64 ", published are %" PRIu64, log->next, sup.next);
  fuzz_check(log->first >= sup.first && log->first <= log->next, "history begins at %" PRIu64 " after %" PRIu64, log->first, sup.first);
  sup.first = log->first;
  fuzz_check(log->bytes <= log->bytes_max || log->chunks.count == 1, "history holds %zu", log->bytes);
  size_t bytes = 0;
  for (size_t i = 0; i < inbox->items.count; i++) bytes += ((const messaging__item *)messaging__ring_at(&inbox->items, i))->frame.size;
  fuzz_check(bytes == inbox->bytes, "the inbox counts %zu bytes and holds %zu", inbox->bytes, bytes);
  fuzz_check(bytes <= inbox->bytes_max || bytes <= sup.carried || inbox->items.count == 1, "the inbox holds %zu", bytes);
  if (bytes < sup.carried) sup.carried = bytes;
  fuzz_check(sup.im->parked.count <= MESSAGING__PARKED_MAX, "%zu announcements are parked", sup.im->parked.count);
  fuzz_check_outbox(&sup.end.handle->outbox, 0);
  sup_check_peers();
  if (sup.ops % 16 == 0) sup_check_log();
  /* Limits and what stands beside them: copies being made, chunks that are not full, rings, announcements; a frame of any size in each queue. */
  size_t limit = 3 * (sup.options.history_bytes_max + sup.options.inbox_bytes_max + sup.options.outbox_bytes_max) + (size_t)1048576 + 8 * (size_t)MESSAGING__BLOCK_BYTES * (sup.options.history_bytes_max >= 1 << 25);
  fuzz_check(fuzz_memory <= limit, "%zu bytes are held", fuzz_memory);
}

/* Lets the machine do what is due. It comes to rest: no deadline stays in the past. */
static void sup_pump(void) {
  uint64_t now = fuzz_now();
  for (int rounds = 0;; rounds++) {
    messaging__im_pump(sup.im, now);
    sup_observe_items();
    if (messaging__im_deadline(sup.im, now) > now) break;
    fuzz_check(rounds < SUP_PUMPS_MAX, "a deadline stays in the past");
  }
}

/* ---- What workers send ---- */

/* Hands a frame to the machine, once what it claims is noted. */
static void sup_receive(messaging__slice frame) {
  messaging__reader reader = {frame.data, frame.data + frame.size, false};
  messaging__envelope envelope;
  messaging__batch batch;
  uint64_t malformed = sup.im->stats.malformed, stale = sup.im->stats.stale, errors = sup.end.errors;
  if (messaging__envelope_read(&reader, &envelope) && memcmp(envelope.session, sup_session, 16) == 0 && envelope.generation == sup.generation) {
    int64_t id = 0;
    uint64_t nonce = 0, has = 0;
    if ((envelope.type == MESSAGING__RELAY || envelope.type == MESSAGING__OUTPUT) && messaging__batch_read(frame.data, frame.size, &batch))
      id = batch.id, nonce = batch.nonce, has = batch.position;
    if (envelope.type == MESSAGING__REPORT && messaging__read_array(&reader) == 7) {
      id = messaging__read_int(&reader);
      nonce = messaging__read_uint(&reader, UINT64_MAX);
      has = messaging__read_uint(&reader, MESSAGING__NUMBER_MAX);
    }
    sup_slot *slot = id >= INT32_MIN && id <= INT32_MAX ? sup_slot_of((pid_t)id) : NULL;
    if (slot && nonce && has <= sup.next) {
      sup.speaks = (sup_claim){(pid_t)id, nonce, has, 0};
      if (slot->accepted == nonce) sup_claim_of((pid_t)id, nonce)->has = messaging__later(sup_claim_of((pid_t)id, nonce)->has, has);
    }
  }
  messaging__im_receive(sup.im, frame, fuzz_now());
  sup.speaks.nonce = 0;
  messaging__dispatch(sup.end.handle);
  fuzz_check(sup.im->stats.malformed + sup.im->stats.stale <= malformed + stale + 1, "one frame is counted twice");
  fuzz_check(sup.im->stats.malformed == malformed || sup.end.errors > errors || sup.end.handle->reports_dropped, "a malformed frame is not reported");
}

static void sup_deliver(const uint8_t *data, size_t size) { fuzz_lend(data, size, sup_receive); }

/* The session and generation that the next frame claims: most often the present ones. */
static messaging__era sup_era(uint8_t style) {
  messaging__era era = sup.im->era;
  if (style == 1) era.generation = (uint32_t)fuzz_near(era.generation);
  if (style == 2) era.session[fuzz_below(16)] ^= 1;
  if (style == 3) memset(&era, 0, sizeof era);
  return era;
}

/* Who sends: a slot, and its incarnation: that of now, a new one, another's, or any. */
static messaging__who sup_who(void) {
  uint8_t by = fuzz_byte();
  sup_slot *slot = &sup.slots[by % SUP_SLOTS];
  messaging__who who = {sup_ids[slot - sup.slots], SUP_KIND, 0};
  if (slot->nonce == 0 || by / SUP_SLOTS == 1) slot->nonce = ++sup.nonces;
  who.nonce = slot->nonce;
  if (by / SUP_SLOTS == 2) who.nonce = sup.slots[fuzz_below(SUP_SLOTS)].nonce;
  if (by / SUP_SLOTS == 3) who.nonce = fuzz_near(slot->nonce);
  if (by / SUP_SLOTS == 4) who.kind = (messaging_kind)fuzz_near(SUP_KIND);
  if (by / SUP_SLOTS == 5) who.id = (pid_t)fuzz_near((uint64_t)who.id);
  return who;
}

static void sup_op_hello(void) {
  messaging__writer writer;
  messaging__who who = sup_who();
  uint8_t style = fuzz_byte() % 16;
  messaging__era era = sup_era(style);
  messaging__frame_begin(&writer, NULL, 'U', MESSAGING__HELLO, style ? &era : NULL);
  if (style == 4) writer.bytes[3] = fuzz_byte();
  messaging__put_tag(&writer, style == 5 ? fuzz_byte() : 0x94u);
  messaging__put_who(&writer, &who);
  messaging__put_uint(&writer, style == 6 ? fuzz_near(sup.options.message_bytes_max) : sup.options.message_bytes_max);
  if (style == 7) messaging__put_tag(&writer, fuzz_byte());
  sup_deliver(writer.bytes, writer.size);
}

static void sup_op_batch(uint8_t type) {
  messaging__who who = sup_who();
  const messaging__peer *peer = sup_peer(who.id);
  uint8_t style = fuzz_byte() % 8;
  messaging__era era = sup_era(style);
  messaging__batch batch = {type, who.id, who.kind, who.nonce, 0, 0, 0, 0, 0, {0, 0, 0}};
  size_t size = fuzz_payload(fuzz_frame + MESSAGING__AT_PAYLOAD, FUZZ_FRAME_MAX - MESSAGING__AT_PAYLOAD, type, &batch.count);
  uint64_t number = fuzz_near(peer ? peer->expected : 1), position = fuzz_near(peer ? peer->has : 1);
  batch.number = number;
  batch.position = position;
  batch.flags = fuzz_byte() & 0x81;
  batch.payload_size = (uint32_t)(style == 4 ? fuzz_near(size) : size);
  messaging__batch_write(fuzz_frame, &era, &batch);
  if (style == 5) fuzz_frame[MESSAGING__AT_TYPE - 1] = fuzz_byte(); /* the version */
  if (style == 6) messaging__put_letters(fuzz_frame + MESSAGING__AT_LETTERS, fuzz_byte());
  if (style == 7) { /* as if it came from above */
    messaging__run run = {sup.run.nonce, fuzz_near(sup.run.first), fuzz_near(sup.run.batch)};
    messaging__put_run(fuzz_frame, &run);
  }
  sup_deliver(fuzz_frame, MESSAGING__AT_PAYLOAD + size);
}

static void sup_op_report(void) {
  messaging__writer writer;
  messaging__who who = sup_who();
  const messaging__peer *peer = sup_peer(who.id);
  uint8_t style = fuzz_byte() % 8;
  messaging__era era = sup_era(style);
  uint8_t how = fuzz_byte();
  messaging__frame_begin(&writer, NULL, 'U', MESSAGING__REPORT, &era);
  messaging__put_tag(&writer, style == 4 ? fuzz_byte() : 0x97u);
  messaging__put_int(&writer, who.id);
  messaging__put_uint(&writer, who.nonce);
  messaging__put_uint(&writer, how & 1 ? fuzz_near(peer ? peer->has : 1) : sup.next);
  messaging__put_uint(&writer, how & 2 ? fuzz_near(0) : 1);
  messaging__put_uint(&writer, how & 4 ? fuzz_byte() : 0);
  messaging__put_uint(&writer, how & 8 ? fuzz_near(2000) : sup.options.inbox_bytes_max);
  unsigned ranges = how & 16 ? fuzz_below(18) : 0;
  uint64_t at = sup.first;
  messaging__put_tag(&writer, 0xdc);
  messaging__put_tag(&writer, 0);
  messaging__put_tag(&writer, ranges);
  for (unsigned i = 0; i < ranges; i++) {
    uint64_t first = fuzz_near(at), last = fuzz_near(first);
    messaging__put_tag(&writer, style == 5 ? fuzz_byte() : 0x92u);
    messaging__put_uint(&writer, first);
    messaging__put_uint(&writer, last);
    at = last + 1;
  }
  if (style == 6) messaging__put_tag(&writer, fuzz_byte());
  sup_deliver(writer.bytes, writer.size);
}

/* Any bytes, or a sound frame of a type that nobody sends upwards. */
static void sup_op_raw(void) {
  size_t size = fuzz_byte();
  if (size >= 0xf0) {
    messaging__writer writer;
    messaging__frame_begin(&writer, NULL, 'U', (uint8_t)(size & 15), &sup.im->era);
    sup_deliver(writer.bytes, writer.size);
    return;
  }
  const uint8_t *bytes = fuzz_bytes(&size);
  sup_deliver(bytes, size);
}

static void sup_op_mutate(void) {
  fuzz_mutate();
  sup_deliver(fuzz_last, fuzz_last_size);
}

/* A subscription as the publisher shows it. */
static void sup_op_subscribed(void) {
  uint8_t bytes[1 + MESSAGING__TOPIC_SIZE + 4];
  messaging__who who = sup_who();
  uint8_t by = fuzz_byte();
  size_t size = by % 8 == 1 ? fuzz_below(sizeof bytes) : 1 + MESSAGING__TOPIC_SIZE;
  memset(bytes, 0, sizeof bytes);
  bytes[0] = by % 8 == 2 ? fuzz_byte() : 1;
  messaging__topic_of(bytes + 1, &who);
  uint8_t *exact = (uint8_t *)malloc(size ? size : 1);
  fuzz_check(exact, "out of memory");
  memcpy(exact, bytes, size);
  messaging__im_subscribed(sup.im, exact, size);
  free(exact);
}

/* ---- What the application and the world do ---- */

static void sup_op_send(uint8_t type) {
  uint8_t by = fuzz_byte();
  fuzz_fact fact = {fuzz_value++, 0, by >= 0xf0 ? fuzz_byte() * fuzz_scale / 2 : by >= 0xc0 ? by : 0, by == 0xbf && type == MESSAGING__RELAY};
  messaging_output output = {(messaging_output_type)(by % 3u), by, "some text that is said", by % 23u};
  uint64_t starved = fuzz_starved;
  pthread_mutex_lock(&sup.end.handle->core); /* as if the background thread were in the protocol: pump comes later */
  messaging_status status = type == MESSAGING__RELAY ? fuzzed_send_relay_message(fuzz_ctx(&sup.end), &fact) : fuzzed_send_output_message(fuzz_ctx(&sup.end), &output);
  pthread_mutex_unlock(&sup.end.handle->core);
  bool fine = status == MESSAGING_OK || status == MESSAGING_EFULL || (status == MESSAGING_ETOOBIG && by >= 0xf0) || (status == MESSAGING_EENCODE && fact.refuse) ||
              (status == MESSAGING_ENOMEM && fuzz_starved > starved);
  fuzz_check(fine, "send says %s", messaging_strerror(status));
}

/* The children that a byte and a kind name. */
static size_t sup_list(messaging_child list[SUP_SLOTS]) {
  uint8_t which = fuzz_byte(), kinds = fuzz_byte();
  size_t count = 0;
  for (size_t i = 0; i < SUP_SLOTS; i++)
    if (which >> i & 1) list[count++] = (messaging_child){sup_ids[i], kinds >= 0xc0 && (kinds >> i & 1) ? SUP_KIND + 1 : SUP_KIND};
  return count;
}

/* Who was not on the list before gets what history holds from now on. */
static void sup_entered(const uint64_t known) {
  for (size_t i = 0; i < SUP_SLOTS; i++)
    if (!(known >> i & 1)) sup.slots[i].floor = sup.im->inbox->log.first;
}

/* Those of the slots whose peer stays if it is listed again. */
static uint64_t sup_known(const messaging_child *list, size_t count) {
  uint64_t known = 0;
  for (size_t i = 0; i < count; i++) {
    const messaging__peer *peer = sup_peer(list[i].pid);
    bool dead = peer && peer->watch >= 0 && sup.slots[peer->watch].dead;
    if (peer && !dead && peer->state != MESSAGING__GONE && peer->who.kind == list[i].kind) known |= 1u << (sup_slot_of(list[i].pid) - sup.slots);
  }
  return known;
}

static void sup_op_update(void) {
  messaging_child list[SUP_SLOTS];
  size_t count = sup_list(list);
  uint64_t now = fuzz_now(), known = sup_known(list, count), starved = fuzz_starved;
  uint32_t starve = fuzz_starve, generation = sup.im->era.generation;
  /* What the update takes of the application's own is taken before, so that the model sees it before the queue is made anew. */
  fuzz_starve = 0;
  messaging__im_send_own(sup.im, now);
  sup_observe_items();
  fuzz_starve = starve;
  sup.purged = sup.im->purged;
  messaging_status status = messaging__im_update(sup.im, list, count, now);
  fuzz_check(status == MESSAGING_OK || (status == MESSAGING_ENOMEM && fuzz_starved > starved), "update says %s", messaging_strerror(status));
  if (status != MESSAGING_OK) {
    fuzz_check(sup.im->era.generation == generation, "an update that failed begins a generation");
    return;
  }
  fuzz_check(sup.im->era.generation == generation + (known ? 0u : 1u), "a generation goes on or ends where it should not");
  fuzz_check(sup.im->peers.count == count, "%zu of %zu are listed", sup.im->peers.count, count);
  sup_renewed();
  sup_entered(known);
}

static void sup_op_add(void) {
  uint8_t by = fuzz_byte();
  messaging_child child = {sup_ids[by % SUP_SLOTS], by >= 0xf0 ? SUP_KIND + 1 : SUP_KIND};
  const messaging__peer *peer = sup_peer(child.pid);
  bool dead = peer && (peer->state == MESSAGING__GONE || (peer->watch >= 0 && sup.slots[peer->watch].dead));
  uint64_t starved = fuzz_starved;
  messaging_status status = messaging__im_add(sup.im, child, fuzz_now());
  if (status == MESSAGING_EINVAL) fuzz_check(peer && !dead, "add refuses a newcomer");
  else fuzz_check(status == MESSAGING_OK || (status == MESSAGING_ENOMEM && fuzz_starved > starved), "add says %s", messaging_strerror(status));
  if (status == MESSAGING_OK) sup_entered(~(uint64_t)(1u << by % SUP_SLOTS));
}

static void sup_op_purge(void) {
  messaging__im_purge(sup.im);
  fuzz_emptied(&sup.end);
  sup.carried = 0;
}

/* A process dies, or its id is that of another process from now on. The shell tells of a death, or an update or announcement finds it. */
static void sup_op_death(void) {
  uint8_t by = fuzz_byte();
  sup_slot *slot = &sup.slots[by % 3u];
  slot->dead = !slot->dead;
  messaging__peer *peer = sup_peer(sup_ids[by % 3u]);
  bool watched = peer && peer->watch >= 0;
  if (!slot->dead && watched) slot->dead = true; /* the process that is watched stays dead */
  if (slot->dead && watched && by < 128) messaging__im_dead(sup.im, peer);
}

static void sup_op_terminate(void) {
  uint8_t by = fuzz_byte();
  if (by % 2 == 0) {
    messaging__im_term(sup.im, &sup.self, fuzz_now());
    return;
  }
  pid_t id = sup_ids[by / 2 % SUP_SLOTS];
  const messaging__peer *peer = sup_peer(id);
  messaging_status status = messaging__im_term_to(sup.im, id, fuzz_now());
  fuzz_check(status == (peer && peer->state != MESSAGING__GONE ? MESSAGING_OK : MESSAGING_EKIND), "term_to says %s", messaging_strerror(status));
}

static void sup_op_look(void) {
  messaging_stats stats;
  messaging_worker_stats worker;
  uint64_t next = sup.next;
  fuzz_check(fuzzed_stats(fuzz_ctx(&sup.end), &stats) == MESSAGING_OK && stats.next_number == next, "stats are false");
  fuzz_check(stats.acknowledged >= stats.history_first && stats.acknowledged <= stats.next_number, "acknowledged is out of bounds");
  pid_t id = sup_ids[fuzz_below(SUP_SLOTS)];
  messaging_status status = fuzzed_worker_stats(fuzz_ctx(&sup.end), id, &worker);
  fuzz_check(status == (sup_peer(id) ? MESSAGING_OK : MESSAGING_EKIND), "worker_stats says %s", messaging_strerror(status));
  if (messaging__im_flushed(sup.im)) fuzz_check(messaging__outbox_empty(&sup.end.handle->outbox), "flushed with messages left");
  else messaging__im_hurry(sup.im, fuzz_now());
  messaging__im_parted(sup.im);
}

static void sup_op(uint8_t op) {
  switch (op) {
    case 0: fuzz_advance(messaging__im_deadline(sup.im, fuzz_now())); break;
    case 1: sup_op_hello(); break;
    case 2: case 3: sup_op_batch(MESSAGING__RELAY); break;
    case 4: sup_op_batch(MESSAGING__OUTPUT); break;
    case 5: case 6: sup_op_report(); break;
    case 7: sup_op_mutate(); break;
    case 8: sup_op_raw(); break;
    case 9: sup_op_subscribed(); break;
    case 10: sup_op_send(MESSAGING__RELAY); break;
    case 11: sup_op_send(MESSAGING__OUTPUT); break;
    case 12: fuzz_receive(&sup.end, false); break;
    case 13: fuzz_receive_all(&sup.end, true); break;
    case 14: sup_op_update(); break;
    case 15: sup_op_add(); break;
    case 16: sup_op_purge(); break;
    case 17: sup_op_death(); break;
    case 18: sup_op_terminate(); break;
    case 19: sup_op_look(); break;
    case 20: sup.stalled = !sup.stalled; break;
    case 21: fuzz_starve = fuzz_byte(); break;
    case 22: messaging__im_leave(sup.im, fuzz_now()); break;
    default: sup_op_batch(MESSAGING__RELAY); break;
  }
}

static void sup_open(void) {
  uint8_t world = fuzz_byte();
  memset(&sup, 0, sizeof sup);
  sup.options = (messaging_options){.heartbeat_ms = 1000, .silence_ms = 5000, .message_bytes_max = 4096, .outbox_bytes_max = 16384, .inbox_bytes_max = 16384,
                                    .history_bytes_max = world & 1 ? 8192 : 1 << 19, .fence_slow = (world & 2) != 0};
  if ((world & 0x79) == 0x78) { /* large enough for history and outbox to go on in blocks */
    sup.options.message_bytes_max = 1 << 17;
    sup.options.outbox_bytes_max = sup.options.inbox_bytes_max = 1 << 20;
    sup.options.history_bytes_max = 1 << 25;
    fuzz_scale = 640;
  }
  sup.next = sup.first = 1;
  sup.self = (messaging__who){SUP_SELF, MESSAGING_SUPERVISOR, 0xffff};
  fuzz_open(&sup.end, &sup.options, true);
  sup.im = &sup.end.handle->im;
  messaging__port port = {&sup.end, sup_send, sup_report, sup_watch, sup_unwatch, sup_died};
  messaging__im_init(sup.im, &port, &sup.end.handle->outbox, &sup.end.handle->inbox, &sup.self, sup_session, &sup.options);
  messaging_child list[SUP_SLOTS];
  for (size_t i = 0; i < SUP_SLOTS; i++) list[i] = (messaging_child){sup_ids[i], SUP_KIND};
  sup.purged = false;
  fuzz_check(messaging__im_run(sup.im, list, world & 4 ? SUP_SLOTS : 2, fuzz_now()) == MESSAGING_OK, "run fails");
  sup_renewed();
  for (size_t i = 0; i < SUP_SLOTS; i++) sup.slots[i].floor = 1;
}

static int fuzz_supervisor(const uint8_t *data, size_t size) {
  fuzz_begin(data, size);
  sup_open();
  for (sup.ops = 0; fuzz_more() && sup.ops < SUP_OPS_MAX; sup.ops++) {
    uint8_t op = fuzz_byte();
    sup_op(op & 31);
    sup_observe_items();
    if (!(op & 0x80)) sup_pump(); /* else more is to come before the next step */
    messaging__dispatch(sup.end.handle);
    sup_check();
  }
  fuzz_starve = 0;
  sup_check_log();
  fuzz_receive_all(&sup.end, false);
  messaging__outbox_close(&sup.end.handle->outbox);
  fuzz_close(&sup.end);
  fuzz_check(sup.watches == 0, "a watch is left behind");
  return 0;
}

#ifndef FUZZ_REPLAY
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_supervisor(data, size); }
#endif
