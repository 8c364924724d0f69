/* nanomsg: workers PUSH to the supervisor's PULL, the supervisor PUSHes to a socket of its own for each worker. Its PUB drops what a
 * slow subscriber has no room for, so a burst does not arrive; PUSH waits. */
#define _GNU_SOURCE
#include <nanomsg/nn.h>
#include <nanomsg/pipeline.h>
#include <stdlib.h>
#include <string.h>

#include "../bench.h"
#include "../tools.h"

#define BUFFER_BYTES (8 << 20)

typedef struct {
  int in, out;
  int timeout_ms;
} end_nanomsg;

static int checked(int result, const char *what) {
  if (result < 0) fail("nanomsg: %s: %s", what, nn_strerror(nn_errno()));
  return result;
}

static int open_socket(int protocol) {
  int bytes = BUFFER_BYTES, unlimited = -1;
  int socket = checked(nn_socket(AF_SP, protocol), "socket");
  nn_setsockopt(socket, NN_SOL_SOCKET, NN_SNDBUF, &bytes, sizeof bytes);
  nn_setsockopt(socket, NN_SOL_SOCKET, NN_RCVBUF, &bytes, sizeof bytes);
  nn_setsockopt(socket, NN_SOL_SOCKET, NN_RCVMAXSIZE, &unlimited, sizeof unlimited);
  return socket;
}

static int receive(int socket, void **bytes, int flags) {
  int size;
  do size = nn_recv(socket, bytes, NN_MSG, flags);
  while (size < 0 && nn_errno() == EINTR);
  return size;
}

/* A message that is handed over is gone, so all but the last get a copy. */
static void hand_on(const scene *s, const int *down, void *bytes, size_t size) {
  uint32_t tag, seq, last = s->workers;
  packet_read(bytes, size, &tag, &seq);
  for (uint32_t w = 0; w < s->workers; w++) {
    if (!scene_hears(s, w, tag)) continue;
    if (last < s->workers) checked(nn_send(down[last], bytes, size, 0), "send");
    last = w;
  }
  if (last < s->workers) checked(nn_send(down[last], &bytes, NN_MSG, 0), "send");
  else nn_freemsg(bytes);
}

static void relay(scene *s) {
  char path[256];
  void *bytes;
  int size, in = open_socket(NN_PULL), *down = checked_calloc(s->workers, sizeof *down);
  scene_path(s, path, sizeof path, "ipc://", "pull", 0);
  checked(nn_bind(in, path), "bind");
  for (uint32_t w = 0; w < s->workers; w++) {
    down[w] = open_socket(NN_PUSH);
    scene_path(s, path, sizeof path, "ipc://", "down", w);
    checked(nn_bind(down[w], path), "bind");
  }
  sem_post(&s->bound);
  for (uint32_t w = 0; w < s->workers; w++) { /* each worker says that it is there */
    checked(receive(in, &bytes, 0), "recv");
    nn_freemsg(bytes);
  }
  sem_post(&s->all_in);
  for (;;)
    if ((size = receive(in, &bytes, 0)) >= 0) hand_on(s, down, bytes, (size_t)size);
}

static void *join(scene *s, uint32_t worker) {
  char path[256];
  end_nanomsg *e = checked_calloc(1, sizeof *e);
  e->in = open_socket(NN_PULL);
  e->out = open_socket(NN_PUSH);
  e->timeout_ms = -1;
  scene_path(s, path, sizeof path, "ipc://", "down", worker);
  checked(nn_connect(e->in, path), "connect");
  scene_path(s, path, sizeof path, "ipc://", "pull", 0);
  checked(nn_connect(e->out, path), "connect");
  checked(nn_send(e->out, path, 1, 0), "send");
  return e;
}

static void put(void *end, const packet *m) {
  end_nanomsg *e = end;
  void *bytes = nn_allocmsg(m->size, 0);
  if (!bytes) fail("out of memory");
  memcpy(bytes, m->bytes, m->size);
  checked(nn_send(e->out, &bytes, NN_MSG, 0), "send");
}

static uint32_t take(void *end, note_fn *tell, void *user, int timeout_ms) {
  end_nanomsg *e = end;
  void *bytes;
  uint32_t tag, seq;
  if (timeout_ms != 0 && timeout_ms != e->timeout_ms) {
    nn_setsockopt(e->in, NN_SOL_SOCKET, NN_RCVTIMEO, &timeout_ms, sizeof timeout_ms);
    e->timeout_ms = timeout_ms;
  }
  int size = receive(e->in, &bytes, timeout_ms == 0 ? NN_DONTWAIT : 0);
  if (size < 0) return 0;
  packet_read(bytes, (size_t)size, &tag, &seq);
  nn_freemsg(bytes);
  tell(user, tag, seq);
  return 1;
}

#define VERSION_TEXT_(x) #x
#define VERSION_TEXT(x) VERSION_TEXT_(x)

const peer peer_nanomsg = {
    .name = "nanomsg",
    .setup = "PUSH to PULL, then a PUSH for each worker, since its PUB drops; buffers of 8 MB, no limit on sizes; messages handed over without copy",
    .version = "ABI " VERSION_TEXT(NN_VERSION_CURRENT) "." VERSION_TEXT(NN_VERSION_REVISION) "." VERSION_TEXT(NN_VERSION_AGE),
    .deliveries_max = 8000,
    .relay = relay,
    .join = join,
    .send = put,
    .recv = take,
};
