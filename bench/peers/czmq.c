/* libzmq by way of czmq: the same sockets, with czmq's frames. */
#define _GNU_SOURCE
#include <czmq.h>

#include "../bench.h"
#include "../tools.h"

#define LAST_TOPIC 0xff /* subscriptions are sent in the order of their bytes: who shows this one has shown all */

typedef struct {
  zsock_t *in, *out;
  int timeout_ms;
} end_czmq;

static zsock_t *open_socket(int type) {
  zsock_t *socket = zsock_new(type);
  if (!socket) fail("czmq: no socket");
  zsock_set_sndhwm(socket, 0);
  zsock_set_rcvhwm(socket, 0);
  zsock_set_linger(socket, 0);
  return socket;
}

static void begin(void) {
  zsys_init();
  zsys_handler_set(NULL);
}

static void relay(scene *s) {
  char pull[256], pub[256];
  begin();
  zsock_t *in = open_socket(ZMQ_PULL), *out = open_socket(ZMQ_XPUB);
  zframe_t *frame;
  scene_path(s, pull, sizeof pull, "ipc://", "pull", 0);
  scene_path(s, pub, sizeof pub, "ipc://", "pub", 0);
  zsock_set_xpub_verbose(out, 1);
  if (zsock_bind(in, "%s", pull) < 0 || zsock_bind(out, "%s", pub) < 0) fail("czmq: bind");
  sem_post(&s->bound);
  for (uint32_t ready = 0; ready < s->workers;) {
    if (!(frame = zframe_recv(out))) continue;
    ready += zframe_size(frame) > 1 && zframe_data(frame)[1] == LAST_TOPIC;
    zframe_destroy(&frame);
  }
  sem_post(&s->all_in);
  for (;;)
    if ((frame = zframe_recv(in))) zframe_send(&frame, out, 0);
}

/* czmq's own call takes text; topics are bytes. */
static void subscribe(zsock_t *sub, const void *topic, size_t size) { zmq_setsockopt(zsock_resolve(sub), ZMQ_SUBSCRIBE, topic, size); }

static void *join(scene *s, uint32_t worker) {
  char pull[256], pub[256];
  uint8_t last[5] = {LAST_TOPIC};
  end_czmq *e = checked_calloc(1, sizeof *e);
  packet m = packet_make(16, 0);
  begin();
  e->in = open_socket(ZMQ_SUB);
  e->out = open_socket(ZMQ_PUSH);
  e->timeout_ms = -1;
  if (s->actors[0].deaf && worker != 0) subscribe(e->in, "", 0);
  for (m.tag = 0; m.tag < s->workers && !s->actors[0].deaf; m.tag++) {
    packet_mark(&m, 0);
    if (scene_hears(s, worker, m.tag)) subscribe(e->in, m.bytes, 6);
  }
  memcpy(last + 1, &worker, sizeof worker);
  subscribe(e->in, last, sizeof last);
  scene_path(s, pull, sizeof pull, "ipc://", "pull", 0);
  scene_path(s, pub, sizeof pub, "ipc://", "pub", 0);
  if (zsock_connect(e->out, "%s", pull) != 0 || zsock_connect(e->in, "%s", pub) != 0) fail("czmq: connect");
  free(m.bytes);
  return e;
}

static void put(void *end, const packet *m) {
  end_czmq *e = end;
  zframe_t *frame = zframe_new(m->bytes, m->size);
  if (zframe_send(&frame, e->out, 0) != 0) fail("czmq: send");
}

static uint32_t take(void *end, note_fn *tell, void *user, int timeout_ms) {
  end_czmq *e = end;
  uint32_t tag, seq;
  if (timeout_ms != e->timeout_ms) zsock_set_rcvtimeo(e->in, timeout_ms);
  e->timeout_ms = timeout_ms;
  zframe_t *frame = zframe_recv(e->in);
  if (!frame) return 0;
  packet_read(zframe_data(frame), zframe_size(frame), &tag, &seq);
  zframe_destroy(&frame);
  tell(user, tag, seq);
  return 1;
}

#define VERSION_TEXT_(x) #x
#define VERSION_TEXT(x) VERSION_TEXT_(x)

const peer peer_czmq = {
    .name = "czmq",
    .setup = "as libzmq, with zsock and zframe: a zframe a message, high-water marks 0, no signal handler",
    .version = VERSION_TEXT(CZMQ_VERSION_MAJOR) "." VERSION_TEXT(CZMQ_VERSION_MINOR) "." VERSION_TEXT(CZMQ_VERSION_PATCH),
    .relay = relay,
    .join = join,
    .send = put,
    .recv = take,
};
