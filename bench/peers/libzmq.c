/* The same hops on libzmq itself: workers PUSH, the supervisor hands on from PULL to XPUB, workers SUB. Five ways: one frame a
 * message; the same with everybody hearing itself; with libzmq's threads going first; with msgpack at both ends; messages gathered into frames by hand. */
#define _GNU_SOURCE
#include "../note.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zmq.h>

#include "../bench.h"
#include "../tools.h"

#define GATHER_BYTES 98304u /* what the library gathers, too */
#define TAG_BYTES 6u        /* with which a note begins, and which name its sender */
#define LAST_TOPIC 0xff     /* subscriptions are sent in the order of their bytes: who shows this one has shown all */

typedef struct {
  void *context, *in, *out;
  bool typed, gathers;
  int timeout_ms;
  scene *stamped;
  uint8_t *gathered;
  size_t gathered_size, gathered_max;
  msgpack_sbuffer buffer;
  msgpack_zone *zone;
} end_zmq;

static void *open_socket(void *context, int type) {
  int unlimited = 0, now = 0;
  void *socket = zmq_socket(context, type);
  if (!socket) fail("libzmq: socket: %s", zmq_strerror(zmq_errno()));
  zmq_setsockopt(socket, ZMQ_SNDHWM, &unlimited, sizeof unlimited);
  zmq_setsockopt(socket, ZMQ_RCVHWM, &unlimited, sizeof unlimited);
  zmq_setsockopt(socket, ZMQ_LINGER, &now, sizeof now);
  return socket;
}

/* Linux's struct sched_attr, not declared by glibc 2.36; slice_ns is its sched_runtime. */
typedef struct {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t slice_ns, deadline_ns, period_ns;
} attributes;

static void set_slice(attributes a, uint64_t slice_ns) {
  a.slice_ns = slice_ns;
  if (syscall(SYS_sched_setattr, 0, &a, 0) != 0) fail("libzmq-slice: sched_setattr failed");
}

/* With its first socket a context starts its threads, and they have the slice of the one that starts them. */
static void *open_first_socket(const scene *s, void *context, int type) {
  attributes a = {0};
  bool slice = s->system == &peer_libzmq_slice && syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) == 0 && a.slice_ns > 0;
  cpu_set_t cpus;
  bool many = sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) > 1;
  if (slice) set_slice(a, many ? a.slice_ns - a.slice_ns / 8 : a.slice_ns + a.slice_ns / 8); /* as the library does */
  void *socket = open_socket(context, type);
  if (slice) set_slice(a, a.slice_ns);
  return socket;
}

static void address(char *out, size_t size, const scene *s, const char *name) { scene_path(s, out, size, "ipc://", name, 0); }

/* ==== The relay ======================================================================================================= */

static bool is_last_topic(zmq_msg_t *frame) {
  const uint8_t *bytes = zmq_msg_data(frame);
  return zmq_msg_size(frame) > 1 && bytes[0] == 1 && bytes[1] == LAST_TOPIC;
}

static void await_subscriptions(scene *s, void *xpub) {
  zmq_msg_t frame;
  zmq_msg_init(&frame);
  for (uint32_t in = 0; in < s->workers;)
    if (zmq_msg_recv(&frame, xpub, 0) >= 0) in += is_last_topic(&frame);
  zmq_msg_close(&frame);
}

static void relay(scene *s) {
  char pull[256], pub[256];
  int verbose = 1;
  void *context = zmq_ctx_new(), *in = open_first_socket(s, context, ZMQ_PULL), *out = open_socket(context, ZMQ_XPUB);
  zmq_msg_t frame;
  address(pull, sizeof pull, s, "pull");
  address(pub, sizeof pub, s, "pub");
  zmq_setsockopt(out, ZMQ_XPUB_VERBOSE, &verbose, sizeof verbose);
  if (zmq_bind(in, pull) != 0 || zmq_bind(out, pub) != 0) fail("libzmq: bind: %s", zmq_strerror(zmq_errno()));
  sem_post(&s->bound);
  await_subscriptions(s, out);
  sem_post(&s->all_in);
  zmq_msg_init(&frame);
  for (;;) {
    if (zmq_msg_recv(&frame, in, 0) < 0) continue;
    scene_stamp(s, STAMP_RELAY_HAS);
    while (zmq_msg_send(&frame, out, 0) < 0 && zmq_errno() == EINTR) {
    }
    scene_stamp(s, STAMP_RELAY_SENT);
  }
}

/* ==== A worker ======================================================================================================== */

/* Nobody is sent its own messages: they begin with their sender's tag. */
static void subscribe(const scene *s, uint32_t worker, void *sub) {
  uint8_t last[5] = {LAST_TOPIC};
  packet m = packet_make(NOTE_SMALL, 0);
  bool all = s->actors[0].deaf || s->system == &peer_libzmq_echo;
  if (all && !s->actors[worker].deaf) zmq_setsockopt(sub, ZMQ_SUBSCRIBE, "", 0);
  for (uint32_t other = 0; other < s->workers && !all; other++) {
    if (!scene_hears(s, worker, other)) continue;
    m.tag = other;
    packet_mark(&m, 0);
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, m.bytes, TAG_BYTES);
  }
  memcpy(last + 1, &worker, sizeof worker);
  zmq_setsockopt(sub, ZMQ_SUBSCRIBE, last, sizeof last);
  free(m.bytes);
}

static void *join(scene *s, uint32_t worker) {
  char pull[256], pub[256];
  end_zmq *e = checked_calloc(1, sizeof *e);
  e->context = zmq_ctx_new();
  e->in = open_first_socket(s, e->context, ZMQ_SUB);
  e->out = open_socket(e->context, ZMQ_PUSH);
  e->typed = s->system == &peer_libzmq_typed;
  e->gathers = s->system == &peer_libzmq_batch;
  e->timeout_ms = -1;
  e->stamped = s;
  e->zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
  msgpack_sbuffer_init(&e->buffer);
  address(pull, sizeof pull, s, "pull");
  address(pub, sizeof pub, s, "pub");
  subscribe(s, worker, e->in);
  if (zmq_connect(e->out, pull) != 0 || zmq_connect(e->in, pub) != 0) fail("libzmq: connect: %s", zmq_strerror(zmq_errno()));
  return e;
}

static void send_frame(end_zmq *e, const void *bytes, size_t size) {
  while (zmq_send(e->out, bytes, size, 0) < 0)
    if (zmq_errno() != EINTR) fail("libzmq: send: %s", zmq_strerror(zmq_errno()));
  scene_stamp(e->stamped, STAMP_SENT);
}

static void flush(void *end) {
  end_zmq *e = end;
  if (e->gathered_size > 0) send_frame(e, e->gathered, e->gathered_size);
  e->gathered_size = 0;
}

/* A frame begins with its sender's tag, too, so that subscriptions are the same. */
static void gather(end_zmq *e, const packet *m) {
  if (e->gathered_max < GATHER_BYTES + TAG_BYTES + m->size + 4) {
    e->gathered_max = GATHER_BYTES + TAG_BYTES + m->size + 4;
    e->gathered = realloc(e->gathered, e->gathered_max);
    if (!e->gathered) fail("out of memory");
  }
  if (e->gathered_size == 0) {
    memcpy(e->gathered, m->bytes, m->size < TAG_BYTES ? m->size : TAG_BYTES);
    e->gathered_size = TAG_BYTES;
  }
  memcpy(e->gathered + e->gathered_size, &m->size, 4);
  memcpy(e->gathered + e->gathered_size + 4, m->bytes, m->size);
  e->gathered_size += m->size + 4;
  if (e->gathered_size >= GATHER_BYTES) flush(e);
}

static void put(void *end, const packet *m) {
  end_zmq *e = end;
  uint32_t body_size = note_body_size(m->size);
  note n = {m->tag, m->seq, m->size, (const char *)m->bytes + (m->size - body_size), body_size};
  if (e->gathers) {
    gather(e, m);
  } else if (e->typed) {
    msgpack_packer packer;
    msgpack_packer_init(&packer, &e->buffer, msgpack_sbuffer_write);
    msgpack_sbuffer_clear(&e->buffer);
    if (note_encode(&packer, &n) != 0) fail("out of memory");
    send_frame(e, e->buffer.data, e->buffer.size);
  } else {
    send_frame(e, m->bytes, m->size);
  }
}

/* ==== Receiving ======================================================================================================= */

static uint32_t take_gathered(const uint8_t *at, size_t size, note_fn *tell, void *user) {
  uint32_t count = 0, tag, seq, length;
  const uint8_t *last = at + size;
  for (at += TAG_BYTES; at < last; at += 4 + length, count++) {
    memcpy(&length, at, 4);
    packet_read(at + 4, length, &tag, &seq);
    tell(user, tag, seq);
  }
  return count;
}

static void take_typed(end_zmq *e, const void *bytes, size_t size, note_fn *tell, void *user) {
  size_t offset = 0;
  msgpack_object object;
  note n;
  msgpack_unpack_return got = msgpack_unpack(bytes, size, &offset, e->zone, &object);
  if (got < 0 || note_decode(&object, e->zone, &n) != 0) fail("libzmq: a message does not decode");
  tell(user, n.tag, n.seq);
  msgpack_zone_clear(e->zone);
}

static uint32_t take_frame(end_zmq *e, zmq_msg_t *frame, note_fn *tell, void *user) {
  const void *bytes = zmq_msg_data(frame);
  size_t size = zmq_msg_size(frame);
  uint32_t tag, seq;
  if (e->gathers) return take_gathered(bytes, size, tell, user);
  if (e->typed) {
    take_typed(e, bytes, size, tell, user);
  } else {
    packet_read(bytes, size, &tag, &seq);
    tell(user, tag, seq);
  }
  return 1;
}

static uint32_t recv_frame(void *end, note_fn *tell, void *user, int timeout_ms) {
  end_zmq *e = end;
  zmq_msg_t frame;
  uint32_t count = 0;
  if (timeout_ms != 0 && timeout_ms != e->timeout_ms) {
    zmq_setsockopt(e->in, ZMQ_RCVTIMEO, &timeout_ms, sizeof timeout_ms);
    e->timeout_ms = timeout_ms;
  }
  zmq_msg_init(&frame);
  if (zmq_msg_recv(&frame, e->in, timeout_ms == 0 ? ZMQ_DONTWAIT : 0) >= 0) {
    scene_stamp(e->stamped, STAMP_RECEIVER_HAS);
    count = take_frame(e, &frame, tell, user);
  }
  zmq_msg_close(&frame);
  return count;
}

#define VERSION_TEXT_(x) #x
#define VERSION_TEXT(x) VERSION_TEXT_(x)
#define LIBZMQ_VERSION VERSION_TEXT(ZMQ_VERSION_MAJOR) "." VERSION_TEXT(ZMQ_VERSION_MINOR) "." VERSION_TEXT(ZMQ_VERSION_PATCH)

#define COMMON .version = LIBZMQ_VERSION, .relay = relay, .join = join, .send = put, .recv = recv_frame

const peer peer_libzmq = {
    .name = "libzmq",
    .setup = "one frame a message, high-water marks 0, one I/O thread, blocking zmq_msg_recv; frames are counted, not decoded",
    COMMON,
};

const peer peer_libzmq_echo = {
    .name = "libzmq-echo",
    .setup = "libzmq, and everybody subscribes to everything, so who sends hears itself",
    COMMON,
};

const peer peer_libzmq_slice = {
    .name = "libzmq-slice",
    .setup = "libzmq, and its threads have the slice that the library gives them (Linux 6.12 and later)",
    COMMON,
};

const peer peer_libzmq_typed = {
    .name = "libzmq-typed",
    .setup = "libzmq, and msgpack-c at both ends: buffer and zone reused",
    COMMON,
};

const peer peer_libzmq_batch = {
    .name = "libzmq-batch",
    .setup = "libzmq, and the sender gathers 96 KB into a frame by hand; frames are counted, not decoded",
    .version = LIBZMQ_VERSION,
    .relay = relay,
    .join = join,
    .send = put,
    .flush = flush,
    .recv = recv_frame,
};
