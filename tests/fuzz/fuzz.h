/*
 * fuzz.h - what the fuzz targets share
 *
 * The bytes of an input are a program: operations and their fields, read one after the other, zeros behind the end. A field of zero
 * is the value that fits (the right session, the next number), so that short programs go deep and other values go astray. The
 * library runs as it ships, with three things put in its place: memory is counted and may run out on request, the clock is the
 * program's, and frames come from and go to the target instead of sockets. The same program does the same, byte for byte.
 *
 * Each target checks its invariants after every operation (fuzz_check), and at the end that all memory is released.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define FUZZ_SHARED __attribute__((unused)) static /* not every target uses everything */

/* ---- What the library gets instead of the system ---- */

static size_t fuzz_memory;       /* bytes that the library holds */
static uint32_t fuzz_starve;     /* the allocation that fails, counted from here; 0: none */
static uint64_t fuzz_starved;    /* how many have failed */
static uint64_t fuzz_clock_us;

FUZZ_SHARED void *fuzz_counted(void *pointer) {
  if (pointer) fuzz_memory += malloc_usable_size(pointer);
  return pointer;
}

FUZZ_SHARED bool fuzz_starves(void) {
  if (fuzz_starve == 0 || --fuzz_starve > 0) return false;
  fuzz_starved++;
  return true;
}

FUZZ_SHARED void *fuzz_malloc(size_t size) { return fuzz_starves() ? NULL : fuzz_counted(malloc(size)); }

FUZZ_SHARED void *fuzz_realloc(void *pointer, size_t size) {
  if (fuzz_starves()) return NULL;
  size_t before = pointer ? malloc_usable_size(pointer) : 0;
  void *moved = realloc(pointer, size);
  if (moved) fuzz_memory -= before;
  return fuzz_counted(moved);
}

FUZZ_SHARED void fuzz_release(void *pointer) {
  if (pointer) fuzz_memory -= malloc_usable_size(pointer);
  free(pointer);
}

FUZZ_SHARED int fuzz_clock(clockid_t clock, struct timespec *now) {
  (void)clock;
  now->tv_sec = (time_t)(fuzz_clock_us / 1000000u);
  now->tv_nsec = (long)(fuzz_clock_us % 1000000u) * 1000;
  return 0;
}

/* The page that tells a forked child is refused, since it costs a third of the time of a short program; larger ones are counted. */
FUZZ_SHARED void *fuzz_map(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  if (size <= 4096 || fuzz_starves()) return MAP_FAILED;
  void *mapped = mmap(at, size, protection, flags, fd, offset);
  if (mapped != MAP_FAILED) fuzz_memory += size;
  return mapped;
}

FUZZ_SHARED int fuzz_unmap(void *at, size_t size) {
  fuzz_memory -= size;
  return munmap(at, size);
}

#define MESSAGING_MALLOC(size) fuzz_malloc(size)
#define MESSAGING_REALLOC(pointer, size) fuzz_realloc(pointer, size)
#define MESSAGING_FREE(pointer) fuzz_release(pointer)
#define clock_gettime fuzz_clock
#define mmap fuzz_map
#define munmap fuzz_unmap
#include "messaging.h"
#undef clock_gettime
#undef mmap
#undef munmap

FUZZ_SHARED uint64_t fuzz_now(void) { return fuzz_clock_us / 1000u; }

/* ---- Failing ---- */

static const char *fuzz_input; /* the name of the file that is replayed */

__attribute__((noreturn, format(printf, 1, 2))) static void fuzz_fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "fuzz: %s: ", fuzz_input ? fuzz_input : "this input");
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  abort();
}

#define fuzz_check(condition, ...)          \
  do {                                      \
    if (!(condition)) fuzz_fail(__VA_ARGS__); \
  } while (0)

/* ---- The program ---- */

typedef struct {
  const uint8_t *at, *end;
} fuzz_program;

static fuzz_program fuzz_in;

FUZZ_SHARED bool fuzz_more(void) { return fuzz_in.at < fuzz_in.end; }
FUZZ_SHARED uint8_t fuzz_byte(void) { return fuzz_more() ? *fuzz_in.at++ : 0; }
FUZZ_SHARED uint32_t fuzz_below(uint32_t bound) { return fuzz_byte() % bound; }

FUZZ_SHARED uint64_t fuzz_wide(size_t size) {
  uint64_t value = 0;
  while (size--) value = value << 8 | fuzz_byte();
  return value;
}

/* Bytes of the program as they stand there, at most so many. */
FUZZ_SHARED const uint8_t *fuzz_bytes(size_t *size) {
  size_t left = (size_t)(fuzz_in.end - fuzz_in.at);
  if (*size > left) *size = left;
  const uint8_t *bytes = fuzz_in.at;
  fuzz_in.at += *size;
  return bytes;
}

/* A number that most often is this one, or close to it. */
FUZZ_SHARED uint64_t fuzz_near(uint64_t value) {
  uint8_t by = fuzz_byte();
  if (by < 100) return value + by;
  if (by < 200) return value - (uint64_t)(by - 99);
  switch (by) {
    case 255: return UINT64_MAX;
    case 254: return MESSAGING__NUMBER_MAX;
    case 253: return MESSAGING__NUMBER_MAX + 1;
    case 252: return fuzz_wide(8);
    case 251: return INT64_MAX;
    case 250: return UINT32_MAX;
    default: return by - 200u;
  }
}

/* ---- The relay type: an integer, or one with filling; whatever else comes is kept by its digest ---- */

enum { FUZZ_REFUSED = 0xdead, FUZZ_FILLING_MAX = 1 << 18 };

typedef struct {
  uint64_t value, digest;
  size_t filling;
  bool refuse; /* by encode */
} fuzz_fact;

FUZZ_SHARED uint64_t fuzz_mix(uint64_t digest, uint64_t value) { return (digest ^ value) * UINT64_C(0x100000001b3); }

FUZZ_SHARED uint64_t fuzz_mix_bytes(uint64_t digest, const char *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) digest = fuzz_mix(digest, (uint8_t)bytes[i]);
  return fuzz_mix(digest, size);
}

/* Touches every byte of an object, so that a pointer astray shows. */
FUZZ_SHARED uint64_t fuzz_digest(uint64_t digest, const msgpack_object *object) {
  digest = fuzz_mix(digest, object->type);
  switch (object->type) {
    case MSGPACK_OBJECT_BOOLEAN: return fuzz_mix(digest, object->via.boolean);
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
    case MSGPACK_OBJECT_NEGATIVE_INTEGER: return fuzz_mix(digest, object->via.u64);
    case MSGPACK_OBJECT_STR: return fuzz_mix_bytes(digest, object->via.str.ptr, object->via.str.size);
    case MSGPACK_OBJECT_BIN: return fuzz_mix_bytes(digest, object->via.bin.ptr, object->via.bin.size);
    case MSGPACK_OBJECT_EXT: return fuzz_mix_bytes(fuzz_mix(digest, (uint8_t)object->via.ext.type), object->via.ext.ptr, object->via.ext.size);
    case MSGPACK_OBJECT_ARRAY:
      for (uint32_t i = 0; i < object->via.array.size; i++) digest = fuzz_digest(digest, &object->via.array.ptr[i]);
      return digest;
    case MSGPACK_OBJECT_MAP:
      for (uint32_t i = 0; i < object->via.map.size; i++) {
        digest = fuzz_digest(digest, &object->via.map.ptr[i].key);
        digest = fuzz_digest(digest, &object->via.map.ptr[i].val);
      }
      return digest;
    default: return digest;
  }
}

FUZZ_SHARED int fuzz_encode(msgpack_packer *packer, const fuzz_fact *in) {
  static char filling[FUZZ_FILLING_MAX];
  if (in->refuse) return 1;
  if (in->filling == 0) return msgpack_pack_uint64(packer, in->value);
  return msgpack_pack_array(packer, 2) | msgpack_pack_uint64(packer, in->value) | msgpack_pack_bin(packer, in->filling) |
         msgpack_pack_bin_body(packer, filling, in->filling);
}

FUZZ_SHARED int fuzz_decode(const msgpack_object *object, msgpack_zone *zone, fuzz_fact *out) {
  memset(out, 0, sizeof *out);
  if (!msgpack_zone_malloc(zone, 1)) return 1;
  out->digest = fuzz_digest(1, object);
  if (object->type == MSGPACK_OBJECT_POSITIVE_INTEGER) out->value = object->via.u64;
  return object->type == MSGPACK_OBJECT_POSITIVE_INTEGER && object->via.u64 == FUZZ_REFUSED;
}

MESSAGING_MAKE(fuzzed, fuzz_fact, fuzz_encode, fuzz_decode);

/* ---- What an application is to receive, kept beside the library's own queues ---- */

typedef struct {
  messaging_message_type type;
  pid_t pid;
  messaging_kind kind;
  uint32_t generation;
  uint64_t number, digest; /* of a relay message; digest: of what was sent, whatever it is */
  int64_t value;           /* of an output message */
  messaging_output_type output;
} fuzz_due;

typedef struct {
  fuzz_due *items;
  size_t head, count, capacity;
} fuzz_dues;

FUZZ_SHARED void fuzz_dues_push(fuzz_dues *dues, const fuzz_due *due) {
  if (dues->count == dues->capacity) {
    dues->capacity = dues->capacity ? dues->capacity * 2 : 64;
    fuzz_due *items = (fuzz_due *)realloc(dues->items, dues->capacity * sizeof *items);
    fuzz_check(items, "out of memory");
    dues->items = items;
  }
  dues->items[dues->count++] = *due;
}

FUZZ_SHARED void fuzz_dues_clear(fuzz_dues *dues) {
  free(dues->items);
  memset(dues, 0, sizeof *dues);
}

/* History was cut before the application had these. */
FUZZ_SHARED void fuzz_dues_cut(fuzz_dues *dues, uint32_t generation, uint64_t first, uint64_t last) {
  size_t kept = dues->head;
  for (size_t i = dues->head; i < dues->count; i++) {
    const fuzz_due *due = &dues->items[i];
    bool gone = due->type == MESSAGING_RELAY_MESSAGE && due->generation == generation && due->number >= first && due->number <= last;
    if (!gone) dues->items[kept++] = *due;
  }
  dues->count = kept;
}

/* What the object of an output message means, as msgpack-c sees it. False: it is none. */
FUZZ_SHARED bool fuzz_read_output(const msgpack_object *object, fuzz_due *due) {
  if (object->type != MSGPACK_OBJECT_ARRAY || object->via.array.size != 3) return false;
  const msgpack_object *type = &object->via.array.ptr[0], *value = &object->via.array.ptr[1], *text = &object->via.array.ptr[2];
  if (type->type != MSGPACK_OBJECT_POSITIVE_INTEGER || type->via.u64 > MESSAGING_PROGRESS) return false;
  bool fits = value->type == MSGPACK_OBJECT_NEGATIVE_INTEGER || (value->type == MSGPACK_OBJECT_POSITIVE_INTEGER && value->via.u64 <= INT64_MAX);
  if (!fits || (text->type != MSGPACK_OBJECT_STR && text->type != MSGPACK_OBJECT_BIN)) return false;
  due->output = (messaging_output_type)type->via.u64;
  due->value = value->via.i64;
  due->digest = text->type == MSGPACK_OBJECT_STR ? fuzz_mix_bytes(1, text->via.str.ptr, text->via.str.size)
                                                 : fuzz_mix_bytes(1, text->via.bin.ptr, text->via.bin.size);
  return true;
}

/* Whether an application gets this message, and as what. */
FUZZ_SHARED bool fuzz_due_of(const uint8_t *bytes, size_t size, fuzz_due *due) {
  msgpack_zone *zone = msgpack_zone_new(1024);
  msgpack_object object;
  size_t offset = 0;
  fuzz_fact fact;
  fuzz_check(zone, "out of memory");
  bool whole = msgpack_unpack((const char *)bytes, size, &offset, zone, &object) == MSGPACK_UNPACK_SUCCESS && offset == size;
  fuzz_check(whole, "msgpack-c does not take what was found to be one object");
  bool taken;
  if (due->type == MESSAGING_OUTPUT_MESSAGE) {
    taken = fuzz_read_output(&object, due) && bytes[0] != 0xdd; /* an array of three has no size of four bytes here */
  } else {
    taken = fuzz_decode(&object, zone, &fact) == 0;
    due->digest = fact.digest;
  }
  msgpack_zone_free(zone);
  return taken;
}

/* A batch is on its way to the application: what it is to get of it. */
FUZZ_SHARED void fuzz_expect(fuzz_dues *dues, const uint8_t *frame, size_t size) {
  messaging__batch batch;
  fuzz_check(messaging__batch_read(frame, size, &batch), "a batch that was taken cannot be read");
  const uint8_t *payload = frame + MESSAGING__AT_PAYLOAD;
  if (!messaging__holds(payload, batch.payload_size, batch.count)) return;
  messaging__reader reader = {payload, payload + batch.payload_size, false};
  for (uint32_t i = 0; i < batch.count; i++) {
    fuzz_due due = {batch.type == MESSAGING__RELAY ? MESSAGING_RELAY_MESSAGE : MESSAGING_OUTPUT_MESSAGE, (pid_t)batch.id, batch.kind,
                    (uint32_t)messaging__load_be(frame + MESSAGING__AT_GENERATION, 4), batch.position + i, 0, 0, MESSAGING_LOG};
    const uint8_t *object = reader.at;
    fuzz_check(messaging__skip_object(&reader), "an object that was counted is none");
    if (due.type == MESSAGING_OUTPUT_MESSAGE) due.number = 0;
    if (fuzz_due_of(object, (size_t)(reader.at - object), &due)) fuzz_dues_push(dues, &due);
  }
}

/* ---- One end: a handle without sockets and thread ---- */

typedef struct {
  messaging__handle *handle;
  fuzz_dues dues;
  size_t items_seen;    /* of the inbox: those whose messages are expected already */
  uint64_t errors;
  bool term_told;       /* the application had its Terminate in this generation */
  uint64_t batches_given;
} fuzz_end;

FUZZ_SHARED void fuzz_on_error(const messaging_error *error, void *user) {
  fuzz_check(error->status > MESSAGING_OK && error->status < MESSAGING__STATUS_COUNT && error->detail, "an error that says nothing");
  ((fuzz_end *)user)->errors++;
}

/* The port's self is the end. */
FUZZ_SHARED void fuzz_open(fuzz_end *end, const messaging_options *options, bool is_im) {
  memset(end, 0, sizeof *end);
  fuzz_starve = 0;
  end->handle = messaging__handle_new(options, is_im);
  fuzz_check(end->handle, "out of memory");
  end->handle->on_error = fuzz_on_error;
  end->handle->user = end;
  end->handle->started = 1;
}

FUZZ_SHARED void fuzz_close(fuzz_end *end) {
  fuzz_starve = 0;
  messaging__dispatch(end->handle);
  messaging__handle_free(end->handle);
  fuzz_dues_clear(&end->dues);
  fuzz_check(fuzz_memory == 0, "%zu bytes are left behind", fuzz_memory);
}

FUZZ_SHARED fuzzed_ctx *fuzz_ctx(fuzz_end *end) { return (fuzzed_ctx *)(void *)end->handle; }

/* Frames that came into the inbox since the last look are due to the application. */
FUZZ_SHARED void fuzz_observe_items(fuzz_end *end) {
  messaging__inbox *inbox = &end->handle->inbox;
  while (end->items_seen < inbox->items.count) {
    const messaging__item *item = (const messaging__item *)messaging__ring_at(&inbox->items, end->items_seen++);
    fuzz_expect(&end->dues, item->frame.data, item->frame.size);
  }
}

FUZZ_SHARED void fuzz_check_message(fuzz_end *end, const fuzzed_message *message) {
  fuzz_dues *dues = &end->dues;
  fuzz_check(dues->head < dues->count, "a message is received that nobody sent, or again");
  const fuzz_due *due = &dues->items[dues->head++];
  fuzz_check(message->type == due->type, "a message of type %d is received where one of type %d was due", (int)message->type, (int)due->type);
  fuzz_check(message->pid == due->pid && message->kind == due->kind, "a message of %d is received where one of %d was due", (int)message->pid, (int)due->pid);
  if (message->type == MESSAGING_RELAY_MESSAGE) {
    fuzz_check(message->relay.number == due->number, "number %" PRIu64 " is received where %" PRIu64 " was due", message->relay.number, due->number);
    fuzz_check(message->relay.message.digest == due->digest, "number %" PRIu64 " is another message", due->number);
  } else {
    uint64_t digest = fuzz_mix_bytes(1, message->output.text, message->output.text_size);
    fuzz_check(message->output.type == due->output && message->output.value == due->value && digest == due->digest, "an output message is another");
  }
}

/* Prints a message to nowhere: that reads all of it once more. */
FUZZ_SHARED void fuzz_print(const fuzzed_message *message) {
  char text[1 << 16];
  FILE *file = fmemopen(text, sizeof text, "w");
  fuzz_check(file, "out of memory");
  fuzzed_print_message(file, message);
  fclose(file);
}

/* recv as it goes while another thread is in the protocol: the target's own pump comes later. */
FUZZ_SHARED messaging_status fuzz_recv_alone(fuzz_end *end, fuzzed_batch *batch) {
  pthread_mutex_lock(&end->handle->core);
  messaging_status status = fuzzed_recv(fuzz_ctx(end), batch);
  end->items_seen = end->handle->inbox.items.count;
  pthread_mutex_unlock(&end->handle->core);
  return status;
}

/* The application receives once: what is due and nothing else, in order, termination first and once. True: there may be more. */
FUZZ_SHARED bool fuzz_receive(fuzz_end *end, bool print) {
  messaging__inbox *inbox = &end->handle->inbox;
  fuzzed_batch batch;
  bool again = inbox->retry && inbox->retry->has_term && !inbox->purged && !inbox->renewed, due = inbox->term_due;
  uint64_t starved = fuzz_starved;
  messaging_status status = fuzz_recv_alone(end, &batch);
  bool taken = due && !inbox->term_due, term = again || taken;
  fuzz_check(!taken || !end->term_told, "a second Terminate");
  if (taken) end->term_told = true;
  if (status == MESSAGING_ENOMEM) {
    fuzz_check(fuzz_starved > starved, "there was memory");
    return true;
  }
  bool fine = status == MESSAGING_OK || (inbox->ended && status == inbox->cause);
  fuzz_check(fine, "recv says %s", messaging_strerror(status));
  for (size_t i = 0; i < batch.count; i++) {
    const fuzzed_message *message = &batch.messages[i];
    if (print) fuzz_print(message);
    if (message->type != MESSAGING_CONTROL_MESSAGE) {
      fuzz_check_message(end, message);
      continue;
    }
    fuzz_check(i == 0 && term && message->control.type == MESSAGING_TERMINATE, "a Terminate is received that was not due");
  }
  bool more = batch.count > 0 || inbox->readable;
  if (batch.count) end->batches_given++;
  fuzz_check(fuzzed_batch_free(&batch) == MESSAGING_OK && fuzzed_batch_free(&batch) == MESSAGING_OK, "a batch is not taken back");
  if (status != MESSAGING_OK) more = false;
  return more;
}

/* Receives until there is nothing more: then nothing is due any more. */
FUZZ_SHARED void fuzz_receive_all(fuzz_end *end, bool print) {
  int rounds = 0;
  while (fuzz_receive(end, print)) fuzz_check(++rounds < 10000, "recv never comes to an end");
  fuzz_check(end->dues.head == end->dues.count, "%zu messages are not received", end->dues.count - end->dues.head);
}

/* The queue was emptied, and what recv had taken and could not decode for want of memory is part of it. */
FUZZ_SHARED void fuzz_emptied(fuzz_end *end) {
  fuzz_dues_clear(&end->dues);
  end->items_seen = end->handle->inbox.items.count;
}

/* ---- Frames ---- */

enum { FUZZ_FRAME_MAX = 1 << 19, FUZZ_LAST_MAX = 4096 };

static uint8_t fuzz_frame[FUZZ_FRAME_MAX]; /* where large frames are made */
static uint8_t fuzz_last[FUZZ_LAST_MAX];   /* the last one that was delivered, if it is small: to be mutated */
static size_t fuzz_last_size;
static uint64_t fuzz_value; /* of the next message */
static size_t fuzz_scale;   /* of large messages */

/* Hands a frame over as the shell does: a large one in a buffer that may be kept, a small one only lent, and gone after the call. */
FUZZ_SHARED void fuzz_lend(const uint8_t *data, size_t size, void (*receive)(messaging__slice frame)) {
  uint32_t starve = fuzz_starve;
  fuzz_starve = 0;
  messaging__buffer *buffer = messaging__buffer_new(size ? size : 1);
  fuzz_starve = starve;
  fuzz_check(buffer, "out of memory");
  if (size) memcpy(buffer->data, data, size);
  buffer->size = size;
  if (data != fuzz_last) fuzz_last_size = size <= FUZZ_LAST_MAX ? size : 0;
  if (data != fuzz_last && fuzz_last_size) memcpy(fuzz_last, data, fuzz_last_size);
  messaging__slice frame = {size >= MESSAGING__WRAP_BYTES ? buffer : NULL, buffer->data, size};
  receive(frame);
  messaging__buffer_drop(buffer);
}

/* Changes the last frame: bytes set or flipped, some cut out or put in, the end cut off. */
FUZZ_SHARED void fuzz_mutate(void) {
  for (uint32_t edits = 1 + fuzz_below(4); edits; edits--) {
    uint32_t what = fuzz_below(5);
    size_t at = fuzz_last_size ? (size_t)fuzz_wide(2) % fuzz_last_size : 0;
    uint8_t by = fuzz_byte();
    size_t count = 1 + by % 16u;
    if (fuzz_last_size == 0 && what != 3) continue;
    if (what == 0) {
      fuzz_last[at] = by;
    } else if (what == 1) {
      fuzz_last[at] ^= by;
    } else if (what == 2) {
      if (count > fuzz_last_size - at) count = fuzz_last_size - at;
      memmove(fuzz_last + at, fuzz_last + at + count, fuzz_last_size - at - count);
      fuzz_last_size -= count;
    } else if (what == 3) {
      if (fuzz_last_size + count > FUZZ_LAST_MAX) continue;
      memmove(fuzz_last + at + count, fuzz_last + at, fuzz_last_size - at);
      for (size_t i = 0; i < count; i++) fuzz_last[at + i] = fuzz_byte();
      fuzz_last_size += count;
    } else {
      fuzz_last_size = at;
    }
  }
}

/* Packs straight to where a frame is made. */
typedef struct {
  uint8_t *at;
  size_t size, size_max;
} fuzz_packed;

FUZZ_SHARED int fuzz_pack(void *data, const char *bytes, size_t size) {
  fuzz_packed *packed = (fuzz_packed *)data;
  if (size > packed->size_max - packed->size) return -1;
  memcpy(packed->at + packed->size, bytes, size);
  packed->size += size;
  return 0;
}

/* Messages as a peer would pack them, from the program: so many integers, filled ones, any object, or bytes that need not be any. */
FUZZ_SHARED size_t fuzz_payload(uint8_t *at, size_t size_max, uint8_t type, uint32_t *count) {
  fuzz_packed packed = {at, 0, size_max};
  msgpack_packer packer;
  uint8_t how = fuzz_byte();
  uint32_t wanted = 1 + how % 4u;
  msgpack_packer_init(&packer, &packed, fuzz_pack);
  for (*count = 0; *count < wanted; ++*count) {
    fuzz_fact fact = {fuzz_value++ & 0xffff, 0, how >= 0xf8 ? (size_t)fuzz_byte() * fuzz_scale : how >= 0xe0 ? fuzz_byte() : 0, false};
    messaging_output output = {(messaging_output_type)fuzz_below(3), (int64_t)fact.value - 100, "text", how % 5u};
    int bad = type == MESSAGING__RELAY ? fuzz_encode(&packer, &fact) : messaging__encode_output(&packer, &output);
    if (bad != 0) break;
  }
  if (how < 0xc0 || how >= 0xe0) return packed.size;
  size_t size = how & 0x1f;
  const uint8_t *bytes = fuzz_bytes(&size);
  if (size) memcpy(at, bytes, size);
  *count = (uint32_t)fuzz_near(1);
  return size;
}

/* ---- What both machines have ---- */

/* Moves the clock: by milliseconds, to the next deadline, or far. */
FUZZ_SHARED void fuzz_advance(uint64_t deadline) {
  uint8_t by = fuzz_byte();
  uint64_t now = fuzz_now(), to = now + by;
  if (by >= 200) to = deadline;
  if (by >= 240) to = now + (by - 239u) * 500u;
  if (to == MESSAGING__NEVER || to < now) to = now;
  fuzz_clock_us = to * 1000u;
}

FUZZ_SHARED void fuzz_check_outbox(const messaging__outbox *outbox, size_t elsewhere) {
  size_t bytes = elsewhere + (outbox->open.buffer ? outbox->open.buffer->size : 0);
  for (size_t i = 0; i < outbox->ready.count; i++) bytes += ((const messaging__outgoing *)messaging__ring_at(&outbox->ready, i))->buffer->size;
  fuzz_check(bytes == outbox->bytes, "the outbox counts %zu bytes and holds %zu", outbox->bytes, bytes);
  /* One message may be as large as it is allowed to be in an empty queue, and each batch has a header. */
  fuzz_check(bytes <= outbox->bytes_max + outbox->message_bytes_max + MESSAGING__AT_PAYLOAD, "the outbox holds %zu", bytes);
}

FUZZ_SHARED void fuzz_begin(const uint8_t *data, size_t size) {
  fuzz_in.at = data;
  fuzz_in.end = data + size;
  fuzz_clock_us = 1000000;
  fuzz_starve = 0;
  fuzz_last_size = 0;
  fuzz_value = 1;
  fuzz_scale = 80;
}

#endif
