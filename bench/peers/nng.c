/* nng: workers PUSH to the supervisor's PULL, the supervisor PUSHes to a socket of its own for each worker. Its PUB drops what a
 * slow subscriber has no room for, so a burst does not arrive; PUSH waits. */
#define _GNU_SOURCE
#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <stdlib.h>
#include <string.h>

#include "../bench.h"
#include "../tools.h"

#define BUFFERED 8192 /* messages; the most it takes */

typedef struct {
  nng_socket in, out;
  int timeout_ms;
} end_nng;

static void check(int failed, const char *what) {
  if (failed) fail("nng: %s: %s", what, nng_strerror(failed));
}

static void set_up(nng_socket socket, bool sends) {
  nng_socket_set_size(socket, NNG_OPT_RECVMAXSZ, 0);
  /* Not every protocol has both buffers. */
  if (sends) nng_socket_set_int(socket, NNG_OPT_SENDBUF, BUFFERED);
  else nng_socket_set_int(socket, NNG_OPT_RECVBUF, BUFFERED);
}

static void hand_on(const scene *s, const nng_socket *down, nng_msg *msg) {
  uint32_t tag, seq, last = s->workers;
  packet_read(nng_msg_body(msg), nng_msg_len(msg), &tag, &seq);
  for (uint32_t w = 0; w < s->workers; w++) {
    if (!scene_hears(s, w, tag)) continue;
    if (last < s->workers) {
      nng_msg *copy;
      check(nng_msg_dup(&copy, msg), "copy");
      check(nng_sendmsg(down[last], copy, 0), "send");
    }
    last = w;
  }
  if (last < s->workers) check(nng_sendmsg(down[last], msg, 0), "send");
  else nng_msg_free(msg);
}

static void relay(scene *s) {
  char path[256];
  nng_socket in, *down = checked_calloc(s->workers, sizeof *down);
  nng_msg *msg;
  check(nng_pull0_open(&in), "open");
  set_up(in, false);
  scene_path(s, path, sizeof path, "ipc://", "pull", 0);
  check(nng_listen(in, path, NULL, 0), "listen");
  for (uint32_t w = 0; w < s->workers; w++) {
    check(nng_push0_open(&down[w]), "open");
    set_up(down[w], true);
    scene_path(s, path, sizeof path, "ipc://", "down", w);
    check(nng_listen(down[w], path, NULL, 0), "listen");
  }
  sem_post(&s->bound);
  for (uint32_t w = 0; w < s->workers; w++) { /* each worker says that it is there */
    check(nng_recvmsg(in, &msg, 0), "recv");
    nng_msg_free(msg);
  }
  sem_post(&s->all_in);
  for (;;)
    if (nng_recvmsg(in, &msg, 0) == 0) hand_on(s, down, msg);
}

static void *join(scene *s, uint32_t worker) {
  char path[256];
  end_nng *e = checked_calloc(1, sizeof *e);
  check(nng_pull0_open(&e->in), "open");
  check(nng_push0_open(&e->out), "open");
  set_up(e->in, false);
  set_up(e->out, true);
  scene_path(s, path, sizeof path, "ipc://", "down", worker);
  check(nng_dial(e->in, path, NULL, 0), "dial");
  scene_path(s, path, sizeof path, "ipc://", "pull", 0);
  check(nng_dial(e->out, path, NULL, 0), "dial");
  check(nng_send(e->out, (void *)path, 1, 0), "send");
  e->timeout_ms = -1;
  return e;
}

static void put(void *end, const packet *m) {
  end_nng *e = end;
  nng_msg *msg;
  check(nng_msg_alloc(&msg, m->size), "alloc");
  memcpy(nng_msg_body(msg), m->bytes, m->size);
  check(nng_sendmsg(e->out, msg, 0), "send");
}

static uint32_t take(void *end, note_fn *tell, void *user, int timeout_ms) {
  end_nng *e = end;
  nng_msg *msg;
  uint32_t tag, seq;
  if (timeout_ms != 0 && timeout_ms != e->timeout_ms) {
    nng_socket_set_ms(e->in, NNG_OPT_RECVTIMEO, timeout_ms);
    e->timeout_ms = timeout_ms;
  }
  if (nng_recvmsg(e->in, &msg, timeout_ms == 0 ? NNG_FLAG_NONBLOCK : 0) != 0) return 0;
  packet_read(nng_msg_body(msg), nng_msg_len(msg), &tag, &seq);
  nng_msg_free(msg);
  tell(user, tag, seq);
  return 1;
}

#define VERSION_TEXT_(x) #x
#define VERSION_TEXT(x) VERSION_TEXT_(x)

const peer peer_nng = {
    .name = "nng",
    .setup = "PUSH to PULL, then a PUSH for each worker, since its PUB drops; send and receive buffers of 8192 messages; nng_msg handed on",
    .version = VERSION_TEXT(NNG_MAJOR_VERSION) "." VERSION_TEXT(NNG_MINOR_VERSION) "." VERSION_TEXT(NNG_PATCH_VERSION),
    .deliveries_max = 8000,
    .relay = relay,
    .join = join,
    .send = put,
    .recv = take,
};
