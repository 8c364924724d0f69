#define _GNU_SOURCE
#include "bare.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zmq.h>

#include "fact.h"
#include "tools.h"

#define BARE_LIMIT_S 300u

typedef struct {
  void *context, *in, *out;
} bare_sockets;

static char folder[80];

static void address(char *out, size_t size, const char *name) { snprintf(out, size, "ipc://%s/%s", folder, name); }

static void *open_socket(void *context, int type) {
  int unlimited = 0, now = 0, timeout_ms = ROUND_DEADLINE_MS;
  void *socket = zmq_socket(context, type);
  if (!socket) fail("bare libzmq: socket: %s", zmq_strerror(zmq_errno()));
  zmq_setsockopt(socket, ZMQ_SNDHWM, &unlimited, sizeof unlimited);
  zmq_setsockopt(socket, ZMQ_RCVHWM, &unlimited, sizeof unlimited);
  zmq_setsockopt(socket, ZMQ_LINGER, &now, sizeof now);
  zmq_setsockopt(socket, ZMQ_RCVTIMEO, &timeout_ms, sizeof timeout_ms);
  return socket;
}

static bare_sockets open_relay(void) {
  char pull[128], pub[128];
  bare_sockets z = {.context = zmq_ctx_new()};
  address(pull, sizeof pull, "pull");
  address(pub, sizeof pub, "pub");
  z.in = open_socket(z.context, ZMQ_PULL);
  z.out = open_socket(z.context, ZMQ_PUB);
  if (zmq_bind(z.in, pull) != 0 || zmq_bind(z.out, pub) != 0) fail("bare libzmq: bind: %s", zmq_strerror(zmq_errno()));
  return z;
}

static bare_sockets open_worker(void) {
  char pull[128], pub[128];
  bare_sockets z = {.context = zmq_ctx_new()};
  address(pull, sizeof pull, "pull");
  address(pub, sizeof pub, "pub");
  z.in = open_socket(z.context, ZMQ_SUB);
  z.out = open_socket(z.context, ZMQ_PUSH);
  zmq_setsockopt(z.in, ZMQ_SUBSCRIBE, "", 0);
  if (zmq_connect(z.out, pull) != 0 || zmq_connect(z.in, pub) != 0) fail("bare libzmq: connect: %s", zmq_strerror(zmq_errno()));
  return z;
}

/* ==== The relay ======================================================================================================= */

static bool all_joined(const rounds *s) {
  for (uint32_t p = 1; p < s->process_count; p++)
    if (!s->processes[p].joined) return false;
  return true;
}

/* PUB says nothing of its subscribers, so an empty frame goes round until each has seen one; ever more seldom, since each wakes
 * everybody who is there already. */
static void greet(const rounds *s, void *pub) {
  int64_t deadline_ns = now_ns() + ROUND_DEADLINE_MS * NS_PER_MS, pause_ns = NS_PER_MS;
  while (!all_joined(s) && now_ns() < deadline_ns) {
    zmq_send(pub, "", 0, 0);
    sleep_until_ns(now_ns() + pause_ns);
    if (pause_ns < 64 * NS_PER_MS) pause_ns *= 2;
  }
}

static _Noreturn void run_relay(rounds *s) {
  bare_sockets z = open_relay();
  zmq_msg_t frame;
  int forever = -1;
  zmq_setsockopt(z.in, ZMQ_RCVTIMEO, &forever, sizeof forever);
  zmq_msg_init(&frame);
  sem_post(&s->bound);
  greet(s, z.out);
  for (;;) {
    if (zmq_msg_recv(&frame, z.in, 0) < 0) {
      if (zmq_errno() == EINTR) continue;
      fail("bare libzmq: relay: %s", zmq_strerror(zmq_errno()));
    }
    while (zmq_msg_send(&frame, z.out, 0) < 0)
      if (zmq_errno() != EINTR) fail("bare libzmq: publish: %s", zmq_strerror(zmq_errno()));
  }
}

/* ==== A worker ======================================================================================================== */

/* Encodes as the other side does, into a buffer that it reuses. */
static void send_all(const trace *t, uint32_t p, uint32_t passes, uint32_t *seq, void *push) {
  msgpack_sbuffer buffer;
  msgpack_packer packer;
  msgpack_sbuffer_init(&buffer);
  msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
  for (uint32_t pass = 0; pass < passes; pass++)
    for (uint32_t i = 0; i < t->processes[p].relay_count; i++) {
      const trace_event *e = t->processes[p].relays[i];
      msgpack_sbuffer_clear(&buffer);
      if (fact_encode(&packer, &(fact){p, ++*seq, e->count, e->parts}) != 0) fail("out of memory");
      while (zmq_send(push, buffer.data, buffer.size, 0) < 0)
        if (zmq_errno() != EINTR) fail("bare libzmq: send: %s", zmq_strerror(zmq_errno()));
    }
  msgpack_sbuffer_destroy(&buffer);
}

/* Returns how many of the expected did not come; greetings do not count. */
static uint64_t count_all(void *sub, uint64_t expected) {
  zmq_msg_t frame;
  uint64_t count = 0;
  zmq_msg_init(&frame);
  while (count < expected) {
    if (zmq_msg_recv(&frame, sub, 0) >= 0)
      count += zmq_msg_size(&frame) > 0;
    else if (zmq_errno() != EINTR)
      break;
  }
  zmq_msg_close(&frame);
  return expected - count;
}

static void await_greeting(rounds *s, uint32_t p, void *sub) {
  char ignored[1];
  while (zmq_recv(sub, ignored, sizeof ignored, 0) < 0)
    if (zmq_errno() != EINTR) fail("bare libzmq: no greeting: %s", zmq_strerror(zmq_errno()));
  s->processes[p].joined = true;
  sem_post(&s->ready);
}

static _Noreturn void run_worker(const trace *t, rounds *s, uint32_t p) {
  bare_sockets z = open_worker();
  uint32_t seq = 0;
  await_greeting(s, p, z.in);
  for (uint32_t round = 0; round_await(s, p); round++) {
    send_all(t, p, s->passes, &seq, z.out);
    round_finish(s, p, round, count_all(z.in, (uint64_t)t->relay_count * s->passes));
  }
  _exit(0);
}

/* ==== The system ====================================================================================================== */

static void raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

/* All of it lives below one process, so that killing that one ends the rest. The relay binds before any worker connects. */
static _Noreturn void run_system(const trace *t, rounds *s) {
  raise_descriptor_limit();
  if (fork_limited(BARE_LIMIT_S, false) == 0) run_relay(s);
  if (!take_until(&s->bound, now_ns() + ROUND_DEADLINE_MS * NS_PER_MS)) fail("bare libzmq: the relay did not bind");
  for (uint32_t p = 1; p < t->process_count; p++)
    if (fork_limited(BARE_LIMIT_S, false) == 0) run_worker(t, s, p);
  for (;;) pause();
}

void bare_begin(const trace *t, rounds *s) {
  const char *below = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%.60s/bare-XXXXXX", below && *below ? below : "/tmp");
  if (!mkdtemp(folder)) fail("%s: %s", folder, strerror(errno));
  pid_t top = fork_limited(BARE_LIMIT_S, false);
  if (top == 0) run_system(t, s);
  s->top = top;
  rounds_await_join(s, "bare libzmq");
}

void bare_end(rounds *s) {
  char path[128];
  rounds_end(s);
  kill(s->top, SIGKILL);
  reap_until(s->top, now_ns() + NS_PER_S, NULL);
  snprintf(path, sizeof path, "%s/pull", folder);
  unlink(path);
  snprintf(path, sizeof path, "%s/pub", folder);
  unlink(path);
  rmdir(folder);
}
