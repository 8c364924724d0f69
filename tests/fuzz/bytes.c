/*
 * bytes.c - whatever else reads bytes of a peer: payloads in recv, whole and multipart messages as they come out of libzmq, subscriptions, the
 * lines that tracing makes of frames, the questions that libzmq asks about keys, and keys where an option says that they are
 *
 * The first byte chooses one of them. Sockets are inproc, made once and empty again after each input.
 */
#define _GNU_SOURCE 1
#include "fuzz.h"

enum { BYTES_KEY = 32, BYTES_PARTS_MAX = 12, BYTES_LINE_MAX = 400 };

/* An instance whose messages are any object, so that printing shows every object. */
static int bytes_encode(msgpack_packer *packer, const msgpack_object *in) { return msgpack_pack_object(packer, *in); }

static int bytes_decode(const msgpack_object *object, msgpack_zone *zone, msgpack_object *out) {
  (void)zone;
  *out = *object;
  return object->type == MSGPACK_OBJECT_NIL; /* refused */
}

MESSAGING_MAKE(rawly, msgpack_object, bytes_encode, bytes_decode);

static const messaging_options bytes_options = {.heartbeat_ms = 1000, .silence_ms = 5000, .message_bytes_max = 4096, .outbox_bytes_max = 16384,
                                                .inbox_bytes_max = 65536, .history_bytes_max = 65536};
static const uint8_t bytes_session[16] = {7, 8, 9};

/* ---- One end, of either role ---- */

static bool bytes_send(void *self, messaging__slice frame) {
  (void)self, (void)frame;
  return true;
}

static void bytes_report(void *self, const messaging_error *error) { messaging__shell_report(((fuzz_end *)self)->handle, error); }

static int bytes_watch(void *self, pid_t id) {
  (void)self, (void)id;
  return MESSAGING__UNWATCHED;
}

static void bytes_open(fuzz_end *end, bool is_im) {
  messaging__who self = {is_im ? 100 : 101, is_im ? MESSAGING_SUPERVISOR : 7u, 1};
  fuzz_open(end, &bytes_options, is_im);
  messaging__port port = {end, bytes_send, bytes_report, bytes_watch, NULL, NULL};
  messaging__handle *handle = end->handle;
  if (is_im) messaging__im_init(&handle->im, &port, &handle->outbox, &handle->inbox, &self, bytes_session, &bytes_options);
  else messaging__worker_init(&handle->worker, &port, &handle->outbox, &handle->inbox, &self, &bytes_options, fuzz_now());
}

static void bytes_close(fuzz_end *end) {
  end->handle->in = end->handle->out = end->handle->gate_keeper = NULL;
  fuzz_close(end);
}

/* ---- Payloads ---- */

/* The library makes the objects that msgpack-c makes of the same bytes. Packed again, so that a NaN is like itself. */
static void bytes_check_objects(const uint8_t *bytes, size_t size, msgpack_zone *zone, const msgpack_object *theirs) {
  msgpack_object ours;
  messaging__reader reader = {bytes, bytes + size, false};
  fuzz_check(messaging__read_object(&reader, zone, &ours) == MESSAGING_OK && reader.at == reader.end, "an object is not made");
  msgpack_sbuffer packed[2];
  for (int i = 0; i < 2; i++) {
    msgpack_packer packer;
    msgpack_sbuffer_init(&packed[i]);
    msgpack_packer_init(&packer, &packed[i], msgpack_sbuffer_write);
    fuzz_check(msgpack_pack_object(&packer, i == 0 ? ours : *theirs) == 0, "out of memory");
  }
  fuzz_check(packed[0].size == packed[1].size && memcmp(packed[0].data, packed[1].data, packed[0].size) == 0, "another object is made");
  for (int i = 0; i < 2; i++) msgpack_sbuffer_destroy(&packed[i]);
}

/* Validation says yes to what msgpack-c unpacks, and to nothing else. What it refuses is not unpacked when it may be a container of any size:
 * msgpack-c reserves gigabytes for five bytes. */
static void bytes_check_agreement(const uint8_t *bytes, size_t size) {
  msgpack_object object;
  size_t offset = 0;
  bool holds = messaging__holds(bytes, size, 1), sized = false;
  for (size_t i = 0; i < size; i++) sized = sized || (bytes[i] >= 0xdc && bytes[i] <= 0xdf);
  if (!holds && sized) return;
  msgpack_zone *zone = msgpack_zone_new(1024);
  fuzz_check(zone, "out of memory");
  bool whole = size > 0 && msgpack_unpack((const char *)bytes, size, &offset, zone, &object) == MSGPACK_UNPACK_SUCCESS && offset == size;
  fuzz_check(holds == whole, "validation says %d, msgpack-c %d", holds, whole);
  if (whole) bytes_check_objects(bytes, size, zone, &object);
  if (whole) fuzz_digest(1, &object);
  msgpack_zone_free(zone);
}

static void bytes_print(const rawly_message *message) {
  static char text[1 << 20];
  FILE *file = fmemopen(text, sizeof text, "w");
  fuzz_check(file, "out of memory");
  rawly_print_message(file, message);
  long size = ftell(file);
  fclose(file);
  for (long i = 0; i < size && i < (long)sizeof text - 1; i++)
    fuzz_check((uint8_t)text[i] >= 0x20 && (uint8_t)text[i] < 0x7f, "a line that is printed holds byte %02x", (uint8_t)text[i]);
}

/* A frame with the rest of the input as its payload is received. */
static void bytes_payload(void) {
  fuzz_end end;
  uint8_t how = fuzz_byte();
  bool relay = how & 1;
  messaging__era era = {{0}, 1};
  messaging__batch batch = {relay ? MESSAGING__RELAY : MESSAGING__OUTPUT, 102, 7, 5, 1, 1, how & 2 ? (uint32_t)fuzz_near(1) : 1u + (uint32_t)(how >> 2 & 7), 0, 0, {0, 0, 0}};
  size_t size = FUZZ_LAST_MAX;
  const uint8_t *bytes = fuzz_bytes(&size);
  bytes_check_agreement(bytes, size);
  uint8_t *frame = (uint8_t *)malloc(MESSAGING__AT_PAYLOAD + size);
  fuzz_check(frame, "out of memory");
  batch.payload_size = (uint32_t)size;
  messaging__batch_write(frame, &era, &batch);
  if (size) memcpy(frame + MESSAGING__AT_PAYLOAD, bytes, size);
  bytes_open(&end, !relay);
  if (messaging__batch_read(frame, MESSAGING__AT_PAYLOAD + size, &batch)) {
    messaging__slice slice = {NULL, frame, MESSAGING__AT_PAYLOAD + size};
    fuzz_check(messaging__inbox_put(&end.handle->inbox, slice, &batch) == MESSAGING__PUT, "there is room");
    rawly_batch batches;
    fuzz_check(rawly_recv((rawly_ctx *)(void *)end.handle, &batches) == MESSAGING_OK, "recv fails");
    bool sound = messaging__holds(frame + MESSAGING__AT_PAYLOAD, size, batch.count);
    fuzz_check(sound ? batches.count <= batch.count : batches.count == 0, "%zu messages come out of %u", batches.count, (unsigned)batch.count);
    for (size_t i = 0; i < batches.count; i++) bytes_print(&batches.messages[i]);
    fuzz_check(batches.count + MESSAGING__LOAD(&end.handle->inbox.malformed) == (sound ? batch.count : 1), "what is skipped is not counted");
    fuzz_check(rawly_batch_free(&batches) == MESSAGING_OK, "a batch is not taken back");
  }
  free(frame);
  bytes_close(&end);
}

/* ---- Lines of the trace ---- */

static void bytes_check_line(const char *line, void *user) {
  size_t size = strlen(line);
  ++*(int *)user;
  fuzz_check(size < BYTES_LINE_MAX, "a line of %zu bytes", size);
  for (size_t i = 0; i < size; i++) fuzz_check((uint8_t)line[i] >= 0x20 && (uint8_t)line[i] != 0x7f, "a line of the trace holds byte %02x", (uint8_t)line[i]);
}

static void bytes_trace(void) {
  fuzz_end end;
  int lines = 0;
  size_t size = FUZZ_LAST_MAX;
  uint8_t how = fuzz_byte();
  const uint8_t *bytes = fuzz_bytes(&size);
  bytes_open(&end, how & 1);
  end.handle->options.trace = bytes_check_line;
  end.handle->options.trace_user = &lines;
  size_t head = 0;
  messaging__writer writer = {{0}, 0};
  if (how & 2) { /* behind a sound envelope */
    messaging__era era = {{0}, 3};
    messaging__frame_begin(&writer, NULL, 'B', how >> 2 & 15, &era);
    head = writer.size;
  }
  if (how & 0x40) { /* a batch, as its header says */
    messaging__era era = {{0}, 3};
    messaging__batch batch = {how >> 2 & 15, 102, 7, 5, 1, 1, 1, 0, (uint32_t)size, {6, 1, 1}};
    messaging__batch_write(writer.bytes, &era, &batch);
    head = MESSAGING__AT_PAYLOAD;
  }
  uint8_t *exact = (uint8_t *)malloc(head + size + 1);
  fuzz_check(exact, "out of memory");
  memcpy(exact, writer.bytes, head);
  if (size) memcpy(exact + head, bytes, size);
  uint8_t *frame = (uint8_t *)realloc(exact, head + size ? head + size : 1);
  messaging__slice slice = {NULL, frame, head + size};
  messaging__trace(end.handle, "receives", slice);
  fuzz_check(lines == 1, "%d lines for a frame", lines);
  free(frame);
  bytes_close(&end);
}

/* ---- Sockets: made once, empty after each input ---- */

typedef struct {
  void *context;
  void *push, *pull;     /* frames to either role */
  void *subscriber, *publisher; /* XSUB to XPUB */
  void *asker, *keeper;  /* DEALER to REP, as libzmq and the supervisor's gate keeper */
  void *spare_in, *spare_out;
} bytes_sockets;

static bytes_sockets bytes_zmq;

static void bytes_connect(const char *address, void **binding, int binding_type, void **other, int other_type) {
  int none = 0, forever = 0;
  *binding = zmq_socket(bytes_zmq.context, binding_type);
  *other = zmq_socket(bytes_zmq.context, other_type);
  fuzz_check(*binding && *other, "no socket");
  void *both[] = {*binding, *other};
  for (int i = 0; i < 2; i++) {
    zmq_setsockopt(both[i], ZMQ_SNDHWM, &forever, sizeof forever);
    zmq_setsockopt(both[i], ZMQ_RCVHWM, &forever, sizeof forever);
    zmq_setsockopt(both[i], ZMQ_LINGER, &none, sizeof none);
  }
  fuzz_check(zmq_bind(*binding, address) == 0 && zmq_connect(*other, address) == 0, "no connection");
}

static void bytes_open_sockets(void) {
  int verbose = 1;
  if (bytes_zmq.context) return;
  bytes_zmq.context = zmq_ctx_new();
  fuzz_check(bytes_zmq.context, "no context");
  bytes_connect("inproc://frames", &bytes_zmq.pull, ZMQ_PULL, &bytes_zmq.push, ZMQ_PUSH);
  bytes_connect("inproc://subscriptions", &bytes_zmq.publisher, ZMQ_XPUB, &bytes_zmq.subscriber, ZMQ_XSUB);
  bytes_connect("inproc://questions", &bytes_zmq.keeper, ZMQ_REP, &bytes_zmq.asker, ZMQ_DEALER);
  zmq_setsockopt(bytes_zmq.publisher, ZMQ_XPUB_VERBOSE, &verbose, sizeof verbose);
  bytes_zmq.spare_in = zmq_socket(bytes_zmq.context, ZMQ_SUB);
  bytes_zmq.spare_out = zmq_socket(bytes_zmq.context, ZMQ_PUSH);
}

MESSAGING__UNUSED static void bytes_close_sockets(void) {
  void *sockets[] = {bytes_zmq.push, bytes_zmq.pull, bytes_zmq.subscriber, bytes_zmq.publisher, bytes_zmq.asker, bytes_zmq.keeper, bytes_zmq.spare_in, bytes_zmq.spare_out};
  if (!bytes_zmq.context) return;
  for (size_t i = 0; i < sizeof sockets / sizeof sockets[0]; i++) zmq_close(sockets[i]);
  zmq_ctx_term(bytes_zmq.context);
  memset(&bytes_zmq, 0, sizeof bytes_zmq);
}

/* Sends the next part of the input: its size, then its bytes; some large. */
static void bytes_send_part(void *socket, bool more) {
  static uint8_t large[1 << 17];
  size_t size = fuzz_byte();
  if (size >= 0xf0) {
    size = (size - 0xefu) * 8000u;
    fuzz_check(zmq_send(socket, large, size, more ? ZMQ_SNDMORE : 0) >= 0, "a part is not sent");
    return;
  }
  const uint8_t *bytes = fuzz_bytes(&size);
  fuzz_check(zmq_send(socket, bytes, size, more ? ZMQ_SNDMORE : 0) >= 0, "a part is not sent");
}

/* Messages of one part and of several come out of the socket: the latter are skipped whole and counted once. */
static void bytes_messages(void) {
  fuzz_end end;
  uint64_t single = 0, several = 0;
  uint8_t how = fuzz_byte();
  bytes_open_sockets();
  bytes_open(&end, how & 1);
  end.handle->in = bytes_zmq.pull;
  while (fuzz_more()) {
    uint32_t parts = fuzz_below(BYTES_PARTS_MAX) + 1;
    if (parts > 1 && fuzz_byte() < 128) parts = 1;
    for (uint32_t i = 1; i <= parts; i++) bytes_send_part(bytes_zmq.push, i < parts);
    if (parts == 1) single++;
    else several++;
  }
  while (messaging__take_frames(end.handle, fuzz_now())) {}
  messaging__dispatch(end.handle);
  const messaging_stats *stats = messaging__stats_of(end.handle);
  fuzz_check(stats->frames_received == single, "%" PRIu64 " frames are received of %" PRIu64, stats->frames_received, single);
  fuzz_check(stats->malformed >= several && stats->malformed <= several + single && !end.handle->in_parts, "%" PRIu64 " malformed of %" PRIu64, stats->malformed, several);
  fuzz_check(!end.handle->inbox.ended, "the handle ends");
  bytes_close(&end);
}

/* Subscriptions, and messages that no subscriber sends, come out of the publisher. */
static void bytes_subscriptions(void) {
  fuzz_end end;
  char message[256];
  bytes_open_sockets();
  bytes_open(&end, true);
  messaging_child child = {102, 7};
  fuzz_check(messaging__im_run(&end.handle->im, &child, 1, fuzz_now()) == MESSAGING_OK, "run fails");
  end.handle->out = bytes_zmq.publisher;
  for (int i = 0; i < 32 && fuzz_more(); i++) bytes_send_part(bytes_zmq.subscriber, false);
  messaging__look_at_out(end.handle);
  fuzz_check(zmq_recv(bytes_zmq.publisher, message, sizeof message, ZMQ_DONTWAIT) < 0, "a subscription is left");
  bytes_close(&end);
}

/* ---- Keys ---- */

/* Questions about a key, as libzmq asks them and as it does not. Each is answered; yes for the one key alone. */
static void bytes_questions(void) {
  fuzz_end end;
  bytes_open_sockets();
  bytes_open(&end, true);
  memset(end.handle->allowed, 'k', BYTES_KEY);
  end.handle->gate_keeper = bytes_zmq.keeper;
  while (fuzz_more()) {
    uint8_t how = fuzz_byte();
    int parts = 1 + (how & 0x80 ? how % BYTES_PARTS_MAX : 6);
    char key[BYTES_KEY + 1], reply[300];
    memset(key, 'k', sizeof key);
    bool right = how & 1;
    zmq_send(bytes_zmq.asker, "", 0, ZMQ_SNDMORE);
    for (int i = 0; i < parts; i++) {
      bool last = i + 1 == parts;
      if (i == 6 && right) zmq_send(bytes_zmq.asker, key, BYTES_KEY, last ? 0 : ZMQ_SNDMORE);
      else if (i == 6 && how & 2) zmq_send(bytes_zmq.asker, key, how & 4 ? BYTES_KEY + 1 : BYTES_KEY - 1, last ? 0 : ZMQ_SNDMORE);
      else bytes_send_part(bytes_zmq.asker, !last);
    }
    messaging__keep_gate(end.handle);
    int answer = 0, size;
    while ((size = zmq_recv(bytes_zmq.asker, reply, sizeof reply, ZMQ_DONTWAIT)) >= 0)
      if (++answer == 4) fuzz_check(size == 3 && memcmp(reply, "200", 3) == 0 ? parts > 6 : size == 3 && memcmp(reply, "400", 3) == 0 && !(right && parts > 6), "the gate opens to the wrong");
    fuzz_check(answer == 7, "an answer of %d parts", answer);
  }
  messaging__dispatch(end.handle);
  bytes_close(&end);
}

/* A key string where the option says that it is: itself, in the environment, in a file. */
static void bytes_keys(void) {
  fuzz_end end;
  uint8_t how = fuzz_byte();
  char first[MESSAGING__HALF_KEY + 1], second[MESSAGING__HALF_KEY + 1], given[300], name[64];
  size_t size = 200;
  const uint8_t *bytes = fuzz_bytes(&size);
  if (size) memcpy(given, bytes, size);
  given[size] = 0;
  int fd = -1;
  const char *place = given;
  if (how % 3 == 1) {
    fuzz_check(setenv("FUZZ_KEY", given, 1) == 0, "out of memory");
    place = "env:FUZZ_KEY";
  } else if (how % 3 == 2) {
    fd = memfd_create("key", MFD_CLOEXEC);
    fuzz_check(fd >= 0 && write(fd, given, size) == (ssize_t)size, "no file");
    snprintf(name, sizeof name, "file:/proc/self/fd/%d", fd);
    place = name;
  }
  bool found = messaging__read_key(place, first, second);
  if (found) fuzz_check(strlen(first) == MESSAGING__HALF_KEY && strlen(second) == MESSAGING__HALF_KEY && memcmp(given, first, MESSAGING__HALF_KEY) == 0, "a key is read that is none");
  if (found && how & 0x80) {
    bytes_open_sockets();
    bytes_open(&end, false);
    end.handle->in = bytes_zmq.spare_in;
    end.handle->out = bytes_zmq.spare_out;
    end.handle->options.credential = place;
    messaging_status status = messaging__secure_worker(end.handle);
    fuzz_check(status == MESSAGING_OK || status == MESSAGING_EAUTH, "keys are refused with %s", messaging_strerror(status));
    uint8_t allowed[BYTES_KEY];
    (void)zmq_z85_decode(allowed, second);
    bytes_close(&end);
  }
  if (fd >= 0) close(fd);
}

static int fuzz_other_bytes(const uint8_t *data, size_t size) {
  fuzz_begin(data, size);
  switch (fuzz_byte() % 8) {
    case 0: case 1: bytes_payload(); break;
    case 2: case 3: bytes_trace(); break;
    case 4: bytes_messages(); break;
    case 5: bytes_subscriptions(); break;
    case 6: bytes_questions(); break;
    default: bytes_keys(); break;
  }
  return 0;
}

#ifndef FUZZ_REPLAY
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return fuzz_other_bytes(data, size); }
#endif
