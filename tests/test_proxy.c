/*
 * Through stock proxies: libzmq's own zmq_proxy between supervisor and workers, two levels deep.
 *
 *      supervisor ── root ┬─ left  ── workers 0, 1
 *                         └─ right ── workers 2, 3, and 4, which comes late
 *
 * A proxy is two sockets in each direction: XSUB, which connects upwards, and XPUB, bound for those below, forward what the supervisor publishes, and
 * subscriptions the other way; PULL, bound, and PUSH, which connects, forward what workers send. It knows nothing of messaging.
 */
#define HARNESS_WORKERS_MAX 8
#include "harness.h"

#include "hosts/port.h"
#include "hosts/rounds.h"

enum { ROOT, LEFT, RIGHT, PROXIES, LIVES_MAX = 6, WORKERS = 4, LATE = 4, HEARTBEAT_MS = 100, SILENCE_MS = 1500, PATIENT_MS = 60000 };

/* ---- A proxy's process ---- */

typedef struct {
  messaging_addresses up, down; /* connects to, binds */
  char credential[MESSAGING_KEY_SIZE];
} proxy_order;

typedef struct {
  pid_t pid;
  int fd; /* takes its order, tells when it is done with it */
} proxy;

static proxy lives[LIVES_MAX]; /* processes that wait to become a proxy: all are forked before there are threads */
static size_t lives_used;
static proxy proxies[PROXIES];
static proxy_order orders[PROXIES];
static int held[2 * PROXIES]; /* sockets that keep the proxies' ports */
static char folder[] = "/tmp/messaging-proxy-XXXXXX";
static char secret[MESSAGING_KEY_SIZE], credential[MESSAGING_KEY_SIZE];

static void *proxy_socket(void *context, int type) {
  void *socket = zmq_socket(context, type);
  int linger = 0, unlimited = 0, interval = HEARTBEAT_MS, patience = 20 * HEARTBEAT_MS, reconnect = 50;
  if (!socket) _exit(3);
  (void)zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
  (void)zmq_setsockopt(socket, ZMQ_RECONNECT_IVL, &reconnect, sizeof reconnect);
  /* It sends subscriptions alone, and would drop those above the mark: with it, a thousand workers below are too many. */
  if (type == ZMQ_XSUB) (void)zmq_setsockopt(socket, ZMQ_SNDHWM, &unlimited, sizeof unlimited);
  /* So that it notices a connection that has died silently, like the library. */
  (void)zmq_setsockopt(socket, ZMQ_HEARTBEAT_IVL, &interval, sizeof interval);
  (void)zmq_setsockopt(socket, ZMQ_HEARTBEAT_TIMEOUT, &patience, sizeof patience);
  return socket;
}

/* A proxy next to a supervisor with keys is a client of it like a worker: a credential is the server's public key and the client's secret one. */
static void give_key(void *socket, const char *keys) {
  char server[41], client[41], client_public[41];
  if (!keys[0]) return;
  (void)snprintf(server, sizeof server, "%.40s", keys);
  (void)snprintf(client, sizeof client, "%.40s", keys + 40);
  bool done = zmq_curve_public(client_public, client) == 0 && zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server, sizeof server) == 0 &&
              zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, client_public, sizeof client_public) == 0 &&
              zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, client, sizeof client) == 0;
  if (!done) _exit(4);
}

static void *collect(void *sockets) {
  (void)zmq_proxy(((void **)sockets)[0], ((void **)sockets)[1], NULL);
  return NULL;
}

/* Until it is killed. */
static void be_a_proxy(int fd) {
  proxy_order order;
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (recv(fd, &order, sizeof order, 0) != (ssize_t)sizeof order) _exit(0); /* not needed */
  void *context = zmq_ctx_new(), *xsub = proxy_socket(context, ZMQ_XSUB), *xpub = proxy_socket(context, ZMQ_XPUB);
  void *collector[] = {proxy_socket(context, ZMQ_PULL), proxy_socket(context, ZMQ_PUSH)};
  pthread_t thread;
  give_key(xsub, order.credential);
  give_key(collector[1], order.credential);
  bool open = zmq_bind(xpub, order.down.pub) == 0 && zmq_bind(collector[0], order.down.pull) == 0 && zmq_connect(xsub, order.up.pub) == 0 &&
              zmq_connect(collector[1], order.up.pull) == 0;
  if (!open || pthread_create(&thread, NULL, collect, collector) != 0) _exit(5);
  if (send(fd, &order, sizeof order, MSG_NOSIGNAL) != (ssize_t)sizeof order) _exit(6);
  (void)zmq_proxy(xsub, xpub, NULL);
  _exit(7);
}

static void fork_lives(void) {
  for (lives_used = 0; lives_used < LIVES_MAX; lives_used++) {
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    proxy *life = &lives[lives_used];
    life->pid = fork();
    assert_true(life->pid >= 0);
    if (life->pid == 0) {
      for (size_t i = 0; i < lives_used; i++) (void)close(lives[i].fd);
      (void)close(pair[0]);
      be_a_proxy(pair[1]);
    }
    (void)close(pair[1]);
    life->fd = pair[0];
  }
}

/* Starts a proxy, or starts it again at the same addresses. */
static void start_proxy(int which) {
  proxy_order done;
  assert_true(lives_used > 0);
  proxy *p = &proxies[which];
  *p = lives[--lives_used];
  assert_int_equal(send(p->fd, &orders[which], sizeof orders[which], MSG_NOSIGNAL), sizeof orders[which]);
  if (recv(p->fd, &done, sizeof done, 0) != (ssize_t)sizeof done) fail_msg("a proxy does not start");
}

static void end_life(proxy *p) {
  if (p->pid <= 0) return;
  (void)kill(p->pid, SIGKILL);
  (void)waitpid(p->pid, NULL, 0);
  (void)close(p->fd);
  p->pid = 0;
}

/* ---- A world with proxies ---- */

typedef enum { OVER_IPC, OVER_TCP } transport;

static puppet late;

static int setup_proxies(void **state) {
  if (setup_world(state, THREADS) != 0 || messaging_make_keys(secret, credential) != MESSAGING_OK) return -1;
  world *w = *state;
  memset(proxies, 0, sizeof proxies);
  memset(held, 0xff, sizeof held);
  (void)strcpy(strrchr(folder, '-') + 1, "XXXXXX");
  if (!mkdtemp(folder)) return -1;
  fork_lives();
  for (size_t i = 0; i < WORKERS; i++) (void)add_puppet(w, 1 + (messaging_kind)(i % 3), far_puppet(w, i));
  late = far_puppet(w, LATE);
  return 0;
}

static int teardown_proxies(void **state) {
  world *w = *state;
  if (w->count <= LATE) (void)add_puppet(w, 1, late);
  for (int i = 0; i < PROXIES; i++) end_life(&proxies[i]);
  while (lives_used > 0) end_life(&lives[--lives_used]);
  for (int i = 0; i < 2 * PROXIES; i++)
    if (held[i] >= 0) (void)close(held[i]);
  static const char *const names[] = {"root", "left", "right"};
  char path[100];
  for (int i = 0; i < 2 * PROXIES; i++) {
    (void)snprintf(path, sizeof path, "%s/%s-%s", folder, names[i / 2], i % 2 ? "pub" : "pull");
    (void)unlink(path);
  }
  (void)rmdir(folder);
  return teardown(state);
}

static void plan_proxy(int which, const char *name, const messaging_addresses *up, transport over) {
  proxy_order *o = &orders[which];
  memset(o, 0, sizeof *o);
  o->up = *up;
  (void)snprintf(o->down.pub, sizeof o->down.pub, "ipc://%s/%s-pub", folder, name);
  (void)snprintf(o->down.pull, sizeof o->down.pull, "ipc://%s/%s-pull", folder, name);
  for (int i = 0; i < 2 && over == OVER_TCP; i++) {
    held[2 * which + i] = hold_port(i ? o->down.pull : o->down.pub, sizeof o->down.pub);
    assert_true(held[2 * which + i] >= 0);
  }
  if (which == ROOT && over == OVER_TCP) memcpy(o->credential, credential, sizeof o->credential);
}

static messaging_options options_at(bool im, transport over) {
  messaging_options options = {.heartbeat_ms = HEARTBEAT_MS, .silence_ms = (uint32_t)silence_ms};
  if (im && over == OVER_TCP) options.secret = secret;
  if (im && over == OVER_TCP) options.bind = "tcp://127.0.0.1:*";
  if (!im) options.plaintext_ok = true; /* keys protect one hop: to the supervisor; below the root there are none */
  return options;
}

/* The worker connects to the proxy above it. */
static void join_below(world *w, size_t index, int which, transport over) {
  messaging_addresses real = w->addresses;
  messaging_options options = options_at(false, over);
  w->addresses = orders[which].down;
  join(w, &w->workers[index], &options);
  w->addresses = real;
}

static world *start_tree(void **state, transport over, int silence) {
  world *w = *state;
  begin_rounds(silence);
  messaging_options im = options_at(true, over);
  open_im(w, &im);
  plan_proxy(ROOT, "root", &w->addresses, over);
  start_proxy(ROOT);
  plan_proxy(LEFT, "left", &orders[ROOT].down, over);
  plan_proxy(RIGHT, "right", &orders[ROOT].down, over);
  start_proxy(LEFT);
  start_proxy(RIGHT);
  run_im(w, 0, WORKERS);
  for (size_t i = 0; i < WORKERS; i++) join_below(w, i, i < 2 ? LEFT : RIGHT, over);
  wait_joined(w, WORKERS);
  return w;
}

/* ---- The tests ---- */

/* All that works without proxies: bursts in both directions, output messages, a late worker, large messages, termination, leaving. */
static void everything(void **state, transport over) {
  enum { BURST = 2000, LARGE = 1 << 20 };
  world *w = start_tree(state, over, PATIENT_MS);
  for (size_t i = 0; i < WORKERS; i++) post(&w->workers[i], TALK(.first = 1, .count = BURST, .size = 40, .spread = 200, .outputs = true));
  assert_ok(im_talk(w, TALK(.first = 1, .count = BURST, .size = 40, .outputs_in = WORKERS * BURST)).status);
  for (size_t i = 0; i < WORKERS; i++) assert_ok(await(&w->workers[i]).status);
  for (size_t i = 0; i < WORKERS; i++) sent_by[i] = BURST;
  sent = (WORKERS + 1) * BURST;
  sent_by_im = BURST;
  last_id = BURST;
  for (size_t i = 0; i < WORKERS; i++) post_one(w, i, LARGE);
  for (size_t i = 0; i < WORKERS; i++) assert_ok(await(&w->workers[i]).status);

  assert_ok(bus_add_child_process(w->im, (messaging_child){late.id, 1}));
  (void)add_puppet(w, 1, late);
  join_below(w, LATE, RIGHT, over);
  TALK_UNTIL(w, sent_by[LATE] >= 20);
  all_is_there(w);

  assert_ok(order(&w->workers[0], COMMAND(DO_TERMINATE)).status);
  for (size_t i = 1; i < w->count; i++) WAIT_FOR(terminates(&w->workers[i]));
  WAIT_FOR(bus_check_termination(w->im));
  check_reports(w, NOBODY);
  finish(w);
}

static void test_everything_over_ipc(void **state) { everything(state, OVER_IPC); }
static void test_everything_over_tcp(void **state) { everything(state, OVER_TCP); }

/* A proxy takes with it what it holds, in both directions; the protocol sends it again. */
static void killed_and_restarted(void **state, transport over) {
  enum { BURST = 300 };
  static const int victims[] = {LEFT, ROOT};
  world *w = start_tree(state, over, PATIENT_MS);
  for (size_t v = 0; v < 2; v++) {
    for (size_t i = 0; i < WORKERS; i++) {
      post(&w->workers[i], TALK(.first = last_id + 1, .count = BURST, .size = 2000));
      sent_by[i] += BURST;
    }
    sent += WORKERS * BURST;
    last_id += BURST;
    end_life(&proxies[victims[v]]);
    for (size_t i = 0; i < WORKERS; i++) assert_ok(await(&w->workers[i]).status);
    size_t wanted = sent + 20 * WORKERS;
    TALK_UNTIL(w, sent >= wanted);
    start_proxy(victims[v]);
    wanted = sent;
    TALK_UNTIL(w, everybody_has(w, wanted));
  }
  assert_true(repeated_by_all(w) > 0);
  all_is_there(w);
  check_reports(w, NOBODY);
  finish(w);
}

static void test_killed_and_restarted_over_ipc(void **state) { killed_and_restarted(state, OVER_IPC); }
static void test_killed_and_restarted_over_tcp(void **state) { killed_and_restarted(state, OVER_TCP); }

/* Those below it fall silent, and come back. */
static void test_gone_for_long(void **state) {
  enum { ON_RIGHT = 12 };
  world *w = start_tree(state, OVER_IPC, SILENCE_MS);
  TALK_UNTIL(w, sent >= 20 * WORKERS);
  end_life(&proxies[RIGHT]);
  TALK_UNTIL(w, are_lost(w, ON_RIGHT));
  others_go_on(w, ON_RIGHT);
  start_proxy(RIGHT);
  TALK_UNTIL(w, are_back(w));
  all_is_there(w);
  check_reports(w, ON_RIGHT);
  finish(w);
}

#define WITH_PROXIES(test)                                                                                                 \
  { #test, test, setup_proxies, teardown_proxies, NULL }

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_PROXIES(test_everything_over_ipc),           WITH_PROXIES(test_everything_over_tcp), WITH_PROXIES(test_killed_and_restarted_over_ipc),
      WITH_PROXIES(test_killed_and_restarted_over_tcp), WITH_PROXIES(test_gone_for_long),
  };
  return RUN_TESTS(proxy, tests);
}
