/* The library under test, as an application uses it. */
#define _GNU_SOURCE
#include "../notebus.h"

#include <stdlib.h>
#include <string.h>

#include "../bench.h"
#include "../tools.h"

/* ==== Stamps ========================================================================================================== */

static void stamp_relay(const char *line, void *user) {
  if (strstr(line, " receives RELAY ")) scene_stamp(user, STAMP_RELAY_HAS);
  if (strstr(line, " sends RELAY ")) scene_stamp(user, STAMP_RELAY_SENT);
}

static void stamp_sender(const char *line, void *user) {
  if (strstr(line, " sends RELAY ")) scene_stamp(user, STAMP_SENT);
}

static void stamp_receiver(const char *line, void *user) {
  if (strstr(line, " receives RELAY ")) scene_stamp(user, STAMP_RECEIVER_HAS);
}

/* For the systems on tcp; made before the processes are forked, who inherit them. */
static char secret[MESSAGING_KEY_SIZE], credential[MESSAGING_KEY_SIZE];

static void make_keys(scene *s) {
  (void)s;
  if (messaging_make_keys(secret, credential) != MESSAGING_OK) fail("make_keys");
}

static messaging_options options_for(scene *s, messaging_trace_fn *stamp) {
  messaging_options options = {.trace = s->stamps ? stamp : NULL, .trace_user = s};
  bool curve = s->system == &peer_messaging_curve, tcp = curve || s->system == &peer_messaging_tcp;
  if (tcp) options.bind = "tcp://127.0.0.1:*";
  options.plaintext_ok = tcp && !curve;
  options.secret = curve ? secret : NULL;
  return options;
}

/* ==== The supervisor ================================================================================================== */

static void run(bus_ctx *im, const scene *s) {
  messaging_child *children = checked_calloc(s->workers, sizeof *children);
  for (uint32_t w = 0; w < s->workers; w++) children[w] = (messaging_child){s->actors[w].pid, 1};
  if (bus_run_im(im, children, s->workers, NULL, NULL) != MESSAGING_OK) fail("run_im");
  free(children);
}

static void await_all(bus_ctx *im, scene *s) {
  messaging_stats stats = {0};
  while (bus_stats(im, &stats) == MESSAGING_OK && stats.workers_joined < s->workers) sleep_until_ns(now_ns() + NS_PER_MS / 2);
  sem_post(&s->all_in);
}

/* The supervisor's application takes all that it is given, like any other. */
static void relay(scene *s) {
  bus_ctx *im;
  messaging_addresses at;
  messaging_options options = options_for(s, stamp_relay);
  bus_batch batch = {0};
  if (bus_init_im(&im, &at, &options) != MESSAGING_OK) fail("init_im");
  snprintf(s->pub, sizeof s->pub, "%s", at.pub);
  snprintf(s->pull, sizeof s->pull, "%s", at.pull);
  sem_post(&s->bound);
  if (!take_until(&s->listed, now_ns() + 60 * NS_PER_S)) fail("no workers");
  run(im, s);
  await_all(im, s);
  while (bus_wait(im, -1) == MESSAGING_OK) {
    if (bus_recv(im, &batch) != MESSAGING_OK) break;
    bus_batch_free(&batch);
  }
}

/* ==== A worker ======================================================================================================== */

static void *join(scene *s, uint32_t worker) {
  bus_ctx *ctx;
  messaging_options options = options_for(s, s->actors[worker].deaf ? stamp_sender : stamp_receiver);
  options.send_timeout_ms = RECEIVE_TIMEOUT_MS;
  options.bind = options.secret = NULL;
  options.credential = s->system == &peer_messaging_curve ? credential : NULL;
  if (bus_init_worker(&ctx, 1, s->pub, s->pull, &options) != MESSAGING_OK) fail("init_worker");
  if (bus_run_worker(ctx, NULL, NULL) != MESSAGING_OK) fail("run_worker");
  return ctx;
}

static void put(void *end, const packet *m) {
  uint32_t body_size = note_body_size(m->size);
  note out = {m->tag, m->seq, m->size, (const char *)m->bytes + (m->size - body_size), body_size};
  messaging_status status = bus_send_relay_message(end, &out);
  if (status != MESSAGING_OK) fail("send: %s", messaging_strerror(status));
}

static uint32_t recv_notes(void *end, note_fn *tell, void *user, int timeout_ms) {
  bus_batch batch;
  uint32_t count = 0;
  if (bus_wait(end, timeout_ms) != MESSAGING_OK || bus_recv(end, &batch) != MESSAGING_OK) return 0;
  for (size_t i = 0; i < batch.count; i++) {
    if (batch.messages[i].type != MESSAGING_RELAY_MESSAGE) continue;
    tell(user, batch.messages[i].relay.message.tag, batch.messages[i].relay.message.seq);
    count++;
  }
  bus_batch_free(&batch);
  return count;
}

#define COMMON .version = MESSAGING_VERSION_STRING, .beats = true, .relay = relay, .join = join, .send = put, .recv = recv_notes

const peer peer_messaging = {
    .name = "messaging",
    .setup = "defaults; typed notes, encoded and decoded with msgpack-c; the supervisor's application receives, too",
    COMMON,
};

const peer peer_messaging_tcp = {
    .name = "messaging-tcp",
    .setup = "the same over tcp on the loopback interface, in plain text",
    COMMON,
};

const peer peer_messaging_curve = {
    .name = "messaging-curve",
    .setup = "the same over tcp on the loopback interface, with keys: encrypted and authenticated at every hop",
    .prepare = make_keys,
    COMMON,
};
