/* Raw connections that speak broken ZMTP (ZeroMQ RFC 23) at a supervisor's sockets and, from a listener in a supervisor's place, at a worker's, over
 * unix sockets and tcp: the connection is refused or what it says is counted, and the system goes on. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../messaging.h"
#include "hosts/port.h"

static int encode(msgpack_packer *pk, const uint64_t *in) { return msgpack_pack_uint64(pk, *in); }
static int decode(const msgpack_object *obj, msgpack_zone *zone, uint64_t *out) {
  (void)zone;
  *out = obj->via.u64;
  return obj->type != MSGPACK_OBJECT_POSITIVE_INTEGER;
}
MESSAGING_MAKE(bus, uint64_t, encode, decode);

enum { KIND = 4, ID = -1, DEADLINE_MS = 60000, TICK_MS = 2, GREETING = 64, HANGING = 8, STORM = 200, PARTS = 2000, TOPICS = 2000 };
enum { MORE = 1, LONG = 2, COMMAND = 4 }; /* flags of a frame */

static void pause_a_tick(void) {
  struct timespec tick = {0, TICK_MS * 1000000L};
  nanosleep(&tick, NULL);
}

#define WAIT_FOR(condition)                               \
  for (int waited = 0; !(condition); waited += TICK_MS) { \
    assert_true(waited < DEADLINE_MS);                    \
    pause_a_tick();                                       \
  }

static messaging_stats stats_of(const bus_ctx *ctx) {
  messaging_stats stats;
  assert_int_equal(bus_stats(ctx, &stats), MESSAGING_OK);
  return stats;
}

static size_t open_descriptors(void) {
  size_t count = 0;
  DIR *folder = opendir("/proc/self/fd");
  assert_non_null(folder);
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

static void expect_message(bus_ctx *ctx, uint64_t value) {
  for (bool got = false; !got;) {
    bus_batch batch;
    assert_int_equal(bus_wait(ctx, DEADLINE_MS), MESSAGING_OK);
    assert_int_equal(bus_recv(ctx, &batch), MESSAGING_OK);
    if (batch.count) {
      assert_int_equal(batch.count, 1);
      assert_int_equal(batch.messages[0].type, MESSAGING_RELAY_MESSAGE);
      assert_int_equal(batch.messages[0].relay.message, value);
      got = true;
    }
    assert_int_equal(bus_batch_free(&batch), MESSAGING_OK);
  }
}

/* ---- Streams ---- */

/* The socket address that an address of ours means. */
static socklen_t parse_address(const char *address, struct sockaddr_storage *out) {
  memset(out, 0, sizeof *out);
  if (strncmp(address, "ipc://", 6) == 0) {
    struct sockaddr_un *name = (struct sockaddr_un *)out;
    name->sun_family = AF_UNIX;
    snprintf(name->sun_path, sizeof name->sun_path, "%s", address + 6);
    return sizeof *name;
  }
  struct sockaddr_in *name = (struct sockaddr_in *)out;
  name->sin_family = AF_INET;
  name->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  name->sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
  return sizeof *name;
}

/* Bounds every call on a stream by the deadline. */
static void bound(int fd) {
  struct timeval limit = {DEADLINE_MS / 1000, 0};
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), 0);
}

static int dial(const char *address) {
  struct sockaddr_storage name;
  socklen_t size = parse_address(address, &name);
  int fd = socket(name.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  bound(fd);
  int connected;
  for (int waited = 0; (connected = connect(fd, (struct sockaddr *)&name, size)) != 0 && waited < DEADLINE_MS; waited += TICK_MS) pause_a_tick();
  assert_int_equal(connected, 0);
  return fd;
}

/* A call with a time limit is interrupted when this process is stopped and goes on (signal(7)). */
#define AGAIN_IF_INTERRUPTED(result, call)                        \
  do (result) = (call);                                           \
  while ((result) < 0 && errno == EINTR)

/* Writes all, unless the other end hangs up before. */
static void put(int fd, const void *bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t sent;
    AGAIN_IF_INTERRUPTED(sent, send(fd, (const uint8_t *)bytes + done, size - done, MSG_NOSIGNAL));
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) return;
    assert_true(sent > 0); /* else the other end took nothing for the whole deadline */
    done += (size_t)sent;
  }
}

/* Reads what comes until the other end hangs up. */
static void expect_hang_up(int fd) {
  char bytes[4096];
  ssize_t got;
  do AGAIN_IF_INTERRUPTED(got, recv(fd, bytes, sizeof bytes, 0));
  while (got > 0);
  assert_true(got == 0 || errno == ECONNRESET);
}

static void read_exactly(int fd, void *bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t got;
    AGAIN_IF_INTERRUPTED(got, recv(fd, (uint8_t *)bytes + done, size - done, 0));
    assert_true(got > 0);
    done += (size_t)got;
  }
}

/* A greeting that says which mechanism follows. */
static void put_greeting(int fd, const char *mechanism, size_t size) {
  uint8_t bytes[GREETING] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0};
  snprintf((char *)bytes + 12, 20, "%s", mechanism);
  put(fd, bytes, size);
}

static void put_frame(int fd, unsigned flags, const void *bytes, size_t size) {
  uint8_t head[9] = {(uint8_t)flags, (uint8_t)size};
  bool large = size > 255 || (flags & LONG);
  if (large) {
    head[0] |= LONG;
    for (size_t i = 0; i < 8; i++) head[1 + i] = (uint8_t)((uint64_t)size >> (8 * (7 - i)));
  }
  put(fd, head, large ? 9 : 2);
  put(fd, bytes, size);
}

/* READY, with one property. */
static void put_ready(int fd, const char *type) {
  uint8_t bytes[64] = "\5READY\13Socket-Type";
  size_t at = 18, size = strlen(type);
  bytes[at + 3] = (uint8_t)size;
  memcpy(bytes + at + 4, type, size);
  put_frame(fd, COMMAND, bytes, at + 4 + size);
}

/* A whole handshake, as a socket of this type. */
static void shake_hands(int fd, const char *type) {
  uint8_t greeting[GREETING], head[2], body[255];
  put_greeting(fd, "NULL", GREETING);
  read_exactly(fd, greeting, sizeof greeting);
  put_ready(fd, type);
  read_exactly(fd, head, sizeof head);
  assert_int_equal(head[0], COMMAND);
  read_exactly(fd, body, head[1]);
  assert_memory_equal(body, "\5READY", 6);
}

/* ---- What a stream is made to say. Type is that of a socket which the other end talks to. ---- */

typedef void attack_fn(int fd, const char *type);

/* No greeting at all. What does not begin like one may be taken for a greeting of ZMTP 1, so that the connection need not be refused. */
static void say_garbage(int fd, const char *type) {
  uint8_t bytes[2000];
  (void)type;
  srand(1);
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)rand();
  put(fd, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 36);
  put(fd, bytes, sizeof bytes);
}

static void say_garbage_behind_signature(int fd, const char *type) {
  uint8_t bytes[GREETING] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 0xff, 0xff};
  (void)type;
  memset(bytes + 12, 0xff, sizeof bytes - 12);
  put(fd, bytes, sizeof bytes);
  expect_hang_up(fd);
}

static void say_other_mechanism(int fd, const char *type) {
  (void)type;
  put_greeting(fd, "PLAIN", GREETING);
  expect_hang_up(fd);
}

static void say_other_type(int fd, const char *type) {
  (void)type;
  put_greeting(fd, "NULL", GREETING);
  put_ready(fd, "REQ");
  expect_hang_up(fd);
}

/* Commands in the handshake that are none, too long for what they say, or too early. */
static void say_broken_ready(int fd, const char *type) {
  (void)type;
  put_greeting(fd, "NULL", GREETING);
  put_frame(fd, COMMAND, "\5READY\13Socket-Type\xff\xff\xff\xff?", 23);
  expect_hang_up(fd);
}

static void say_message_before_ready(int fd, const char *type) {
  (void)type;
  put_greeting(fd, "NULL", GREETING);
  put_frame(fd, 0, "message", 7);
  expect_hang_up(fd);
}

static void say_oversize(int fd, uint64_t size, const char *type) {
  uint8_t head[9] = {LONG};
  shake_hands(fd, type);
  for (size_t i = 0; i < 8; i++) head[1 + i] = (uint8_t)(size >> (8 * (7 - i)));
  put(fd, head, sizeof head);
  expect_hang_up(fd);
}

static void say_endless(int fd, const char *type) { say_oversize(fd, UINT64_MAX, type); }
static void say_negative(int fd, const char *type) { say_oversize(fd, (uint64_t)1 << 63, type); }
/* One byte more than is taken; by a worker in a repair. */
static void say_large(int fd, const char *type) {
  bool to_worker = strcmp(type, "XPUB") == 0 || strcmp(type, "PULL") == 0;
  say_oversize(fd, ((uint64_t)16 << 20) + MESSAGING__FRAME_SLACK + (to_worker ? MESSAGING__CONTROL_SIZE : 0) + 1, type);
}

/* Commands where messages belong, of which the last is none that there is. */
static void say_commands(int fd, const char *type) {
  shake_hands(fd, type);
  put_frame(fd, COMMAND, "\4PING\0\1context", 14);
  put_frame(fd, COMMAND, "\4PING", 5);
  put_frame(fd, COMMAND, "\5ERROR\4nope", 11);
  put_frame(fd, COMMAND, "\xffunknown", 8);
  put_frame(fd, COMMAND, "", 0);
  put_frame(fd, COMMAND | MORE, "\4PONG", 5);
}

static void say_reserved_flags(int fd, const char *type) {
  shake_hands(fd, type);
  for (unsigned flags = 8; flags < 256; flags += 8) put_frame(fd, flags, "x", 1);
}

/* Parts without an end, up to a bound; then the connection is gone. */
static void say_parts_without_end(int fd, const char *type) {
  shake_hands(fd, type);
  for (int i = 0; i < PARTS; i++) put_frame(fd, MORE, "part", 4);
}

/* Half of a frame; then the connection is gone. */
static void say_half_a_frame(int fd, const char *type) {
  uint8_t head[9] = {LONG, 0, 0, 0, 0, 0, 16};
  shake_hands(fd, type);
  put(fd, head, sizeof head);
  put(fd, head, sizeof head);
}

typedef struct {
  attack_fn *say;
  bool again; /* a worker connects again; libzmq does not after what it takes for a fault in the protocol */
} attack;

static const attack attacks[] = {
    {say_garbage, true},
    {say_garbage_behind_signature, false},
    {say_other_mechanism, false},
    {say_other_type, false},
    {say_broken_ready, false},
    {say_message_before_ready, false},
    {say_endless, false},
    {say_negative, false},
    {say_large, false},
    {say_commands, true},
    {say_reserved_flags, true},
    {say_parts_without_end, true},
    {say_half_a_frame, true},
};
enum { ATTACKS = sizeof attacks / sizeof attacks[0] };

/* ---- At a supervisor ---- */

typedef struct {
  bus_ctx *im, *worker;
  messaging_addresses at;
  uint64_t value;
  int reports;
} system_;

static void count_malformed(const messaging_error *error, void *user) {
  if (error->status == MESSAGING_EBADMSG) __atomic_add_fetch((int *)user, 1, __ATOMIC_SEQ_CST);
}

/* Messages in both directions. */
static void check_alive(system_ *s) {
  s->value++;
  assert_int_equal(bus_send_relay_message(s->worker, &s->value), MESSAGING_OK);
  expect_message(s->im, s->value);
  s->value++;
  assert_int_equal(bus_send_relay_message(s->im, &s->value), MESSAGING_OK);
  expect_message(s->worker, s->value);
}

static void start(system_ *s, const char *bind) {
  messaging_child child = {ID, KIND};
  messaging_options options = {.bind = bind, .plaintext_ok = true};
  memset(s, 0, sizeof *s);
  assert_int_equal(bus_init_im(&s->im, &s->at, &options), MESSAGING_OK);
  assert_int_equal(bus_run_im(s->im, &child, 1, count_malformed, &s->reports), MESSAGING_OK);
  options.id = ID;
  assert_int_equal(bus_init_worker(&s->worker, KIND, s->at.pub, s->at.pull, &options), MESSAGING_OK);
  assert_int_equal(bus_run_worker(s->worker, NULL, NULL), MESSAGING_OK);
  check_alive(s);
}

static void finish(system_ *s) {
  check_alive(s);
  assert_int_equal(bus_exit(&s->worker), MESSAGING_OK);
  assert_int_equal(bus_exit(&s->im), MESSAGING_OK);
}

/* What arrives as a message is counted, each once: those of one part that are no frame of ours, those of several parts whatever they are. */
static void check_counting(system_ *s) {
  uint64_t before = stats_of(s->im).malformed;
  int fd = dial(s->at.pull);
  shake_hands(fd, "PUSH");
  put_frame(fd, 0, "garbage", 7);
  put_frame(fd, 0, "", 0);
  for (int i = 0; i < PARTS; i++) put_frame(fd, i < PARTS - 1 ? MORE : 0, "part", 4);
  put_frame(fd, LONG, "long", 4);
  WAIT_FOR(stats_of(s->im).malformed >= before + 4);
  close(fd);
  check_alive(s);
  assert_int_equal(stats_of(s->im).malformed, before + 4);
}

/* A subscriber that is none: topics without end (up to a bound), the last of them everything; what it hears it never reads. */
static int open_deaf_subscriber(system_ *s) {
  uint8_t topic[21] = {1};
  int fd = dial(s->at.pub);
  shake_hands(fd, "SUB");
  srand(2);
  for (int i = 0; i < TOPICS; i++) {
    for (size_t k = 1; k < sizeof topic; k++) topic[k] = (uint8_t)rand();
    topic[0] = (uint8_t)(i % 3); /* subscribed, taken back, and what is neither */
    put_frame(fd, 0, topic, (size_t)rand() % sizeof topic);
  }
  put_frame(fd, 0, "\1", 1);
  return fd;
}

static void attack_supervisor(const char *bind) {
  system_ s;
  int hanging[2 * HANGING];
  start(&s, bind);
  size_t descriptors = open_descriptors();
  for (int i = 0; i < 2 * HANGING; i++) { /* half a greeting, or nothing, and silence: held off until the handshake's time is over */
    hanging[i] = dial(i % 2 ? s.at.pub : s.at.pull);
    if (i % 4 < 2) put_greeting(hanging[i], "NULL", (size_t)i);
  }
  for (size_t i = 0; i < ATTACKS; i++) {
    for (int pub = 0; pub < 2; pub++) {
      int fd = dial(pub ? s.at.pub : s.at.pull);
      attacks[i].say(fd, pub ? "SUB" : "PUSH");
      close(fd);
    }
    check_alive(&s);
  }
  check_counting(&s);
  for (int i = 0; i < STORM; i++) close(dial(i % 2 ? s.at.pub : s.at.pull));
  check_alive(&s);
  int deaf = open_deaf_subscriber(&s);
  for (int i = 0; i < 100; i++) check_alive(&s);
  close(deaf);
  for (int i = 0; i < 2 * HANGING; i++) expect_hang_up(hanging[i]), close(hanging[i]);
  WAIT_FOR(open_descriptors() <= descriptors);
  assert_int_equal(stats_of(s.im).workers_joined, 1);
  finish(&s);
}

static void test_supervisor_ipc(void **state) {
  (void)state;
  attack_supervisor(NULL);
}

static void test_supervisor_tcp(void **state) {
  (void)state;
  attack_supervisor("tcp://127.0.0.1:*");
}

/* A supervisor with keys: who does not know them says nothing that counts. */
static void test_supervisor_with_keys(void **state) {
  char secret[MESSAGING_KEY_SIZE], credential[MESSAGING_KEY_SIZE];
  messaging_child child = {ID, KIND};
  messaging_options options = {.bind = "tcp://127.0.0.1:*", .secret = secret};
  uint8_t hello[200] = "\5HELLO\1";
  system_ s = {0};
  (void)state;
  assert_int_equal(messaging_make_keys(secret, credential), MESSAGING_OK);
  assert_int_equal(bus_init_im(&s.im, &s.at, &options), MESSAGING_OK);
  assert_int_equal(bus_run_im(s.im, &child, 1, count_malformed, &s.reports), MESSAGING_OK);
  options = (messaging_options){.id = ID, .credential = credential};
  assert_int_equal(bus_init_worker(&s.worker, KIND, s.at.pub, s.at.pull, &options), MESSAGING_OK);
  assert_int_equal(bus_run_worker(s.worker, NULL, NULL), MESSAGING_OK);
  check_alive(&s);
  for (int pub = 0; pub < 2; pub++) {
    const char *address = pub ? s.at.pub : s.at.pull;
    int fd = dial(address);
    put_greeting(fd, "NULL", GREETING); /* no mechanism */
    put_ready(fd, pub ? "SUB" : "PUSH");
    put_frame(fd, 0, "garbage", 7);
    expect_hang_up(fd);
    close(fd);
    fd = dial(address);
    put_greeting(fd, "CURVE", GREETING);
    put_frame(fd, COMMAND, hello, sizeof hello); /* a box that does not open */
    expect_hang_up(fd);
    close(fd);
    fd = dial(address);
    put_greeting(fd, "CURVE", GREETING);
    put_frame(fd, COMMAND, hello, 8);
    expect_hang_up(fd);
    close(fd);
    check_alive(&s);
  }
  assert_int_equal(stats_of(s.im).malformed, 0);
  finish(&s);
}

/* ---- At a worker ---- */

/* Sockets in a supervisor's place: raw ones first, then libzmq's at the same addresses. */
typedef struct {
  char folder[40], pub[80], pull[80];
  int pub_fd, pull_fd, held[2];
  bool tcp;
  bus_ctx *worker;
  int reports;
} place;

static int listen_at(const char *address) {
  struct sockaddr_storage name;
  int yes = 1;
  socklen_t length = parse_address(address, &name);
  int fd = socket(name.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  bound(fd);
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes), 0);
  assert_int_equal(bind(fd, (struct sockaddr *)&name, length), 0);
  assert_int_equal(listen(fd, 16), 0);
  return fd;
}

static void open_place(place *p, bool tcp) {
  messaging_options options = {.id = ID, .plaintext_ok = true, .exit_timeout_ms = 50, .heartbeat_ms = 100};
  memset(p, 0, sizeof *p);
  p->tcp = tcp;
  strcpy(p->folder, "/tmp/messaging-test-XXXXXX");
  assert_non_null(mkdtemp(p->folder));
  snprintf(p->pub, sizeof p->pub, "ipc://%s/pub", p->folder);
  snprintf(p->pull, sizeof p->pull, "ipc://%s/pull", p->folder);
  for (int i = 0; i < 2 && tcp; i++) {
    p->held[i] = hold_port(i ? p->pull : p->pub, sizeof p->pub);
    assert_true(p->held[i] >= 0);
  }
  p->pub_fd = listen_at(p->pub);
  p->pull_fd = listen_at(p->pull);
  assert_int_equal(bus_init_worker(&p->worker, KIND, p->pub, p->pull, &options), MESSAGING_OK);
  assert_int_equal(bus_run_worker(p->worker, count_malformed, &p->reports), MESSAGING_OK);
}

static void remove_sockets(const place *p) {
  if (!p->tcp) unlink(p->pub + 6), unlink(p->pull + 6);
}

static void close_raw(place *p) {
  close(p->pub_fd);
  close(p->pull_fd);
  remove_sockets(p);
}

static void leave_place(place *p) {
  for (int i = 0; i < 2 && p->tcp; i++) close(p->held[i]);
  remove_sockets(p); /* libzmq leaves its own */
  assert_int_equal(rmdir(p->folder), 0);
}

static int answer(int listener) {
  int fd;
  AGAIN_IF_INTERRUPTED(fd, accept(listener, NULL, NULL));
  assert_true(fd >= 0);
  bound(fd);
  return fd;
}

/* A sound supervisor's part, on libzmq's sockets at the same addresses: welcomes the worker and sends it a message. */
static void check_worker_goes_on(place *p) {
  /* slot, expected, window, probe, next, first, no run, ack_ms, flags, terms */
  static const uint8_t welcome[] = {0x9c, 0, 1, 0xcd, 0x40, 0, 0, 1, 1, 0, 0, 0, 25, 0, 0x90};
  static const uint8_t goodbye[] = {0x98, 2, 1, 0, 0, 0, 25, 4, 0x90}; /* next, first, no run, ack_ms, flags, terms: exit need not wait for an answer */
  messaging__who who = {ID, KIND, 0};
  messaging__era era = {{1}, 1};
  messaging__writer writer;
  uint8_t bytes[200], topics = 0;
  void *context = zmq_ctx_new(), *pub = zmq_socket(context, ZMQ_XPUB), *pull = zmq_socket(context, ZMQ_PULL);
  int deadline = DEADLINE_MS, none = 0;
  zmq_setsockopt(pub, ZMQ_RCVTIMEO, &deadline, sizeof deadline);
  zmq_setsockopt(pull, ZMQ_RCVTIMEO, &deadline, sizeof deadline);
  zmq_setsockopt(pub, ZMQ_LINGER, &none, sizeof none);
  assert_true(zmq_bind(pub, p->pub) == 0 && zmq_bind(pull, p->pull) == 0);
  for (; topics < 3; topics++) assert_true(zmq_recv(pub, bytes, sizeof bytes, 0) > 0);
  who.nonce = messaging__load_be(bytes + 1 + 12, 8); /* the third is its own */
  assert_true(zmq_recv(pull, bytes, sizeof bytes, 0) > 0);
  assert_int_equal(bytes[4], MESSAGING__HELLO);
  messaging__frame_begin(&writer, &who, 0, MESSAGING__WELCOME, &era);
  memcpy(writer.bytes + writer.size, welcome, sizeof welcome);
  assert_true(zmq_send(pub, writer.bytes, writer.size + sizeof welcome, 0) > 0);
  messaging__batch batch = {MESSAGING__RELAY, -2, KIND, 77, 1, 1, 1, 0, 1, {0, 0, 0}};
  messaging__batch_write(bytes, &era, &batch);
  bytes[MESSAGING__AT_PAYLOAD] = 0x11;
  assert_true(zmq_send(pub, bytes, MESSAGING__AT_PAYLOAD + 1, 0) > 0);
  expect_message(p->worker, 0x11);
  messaging__frame_begin(&writer, NULL, 'B', MESSAGING__HEARTBEAT, &era);
  memcpy(writer.bytes + writer.size, goodbye, sizeof goodbye);
  assert_true(zmq_send(pub, writer.bytes, writer.size + sizeof goodbye, 0) > 0);
  WAIT_FOR(bus_check_termination(p->worker));
  assert_int_equal(bus_exit(&p->worker), MESSAGING_OK);
  zmq_close(pub);
  zmq_close(pull);
  zmq_ctx_term(context);
}

/* It is cut off, but not stuck: messages are taken, nothing comes, exit says what was not accepted, in its time. */
static void check_worker_is_cut_off(place *p) {
  uint64_t value = 1;
  assert_int_equal(bus_send_relay_message(p->worker, &value), MESSAGING_OK);
  assert_int_equal(bus_wait(p->worker, 0), MESSAGING_ETIMEDOUT);
  assert_int_equal(bus_exit(&p->worker), MESSAGING_ETIMEDOUT);
}

static void attack_worker(const attack *a, bool tcp) {
  for (int pub = 0; pub < 2; pub++) {
    place p;
    open_place(&p, tcp);
    int fd = answer(pub ? p.pub_fd : p.pull_fd);
    a->say(fd, pub ? "XPUB" : "PULL");
    close(fd);
    close_raw(&p);
    if (a->again) check_worker_goes_on(&p);
    else check_worker_is_cut_off(&p);
    leave_place(&p);
  }
}

static void attack_workers(bool tcp) {
  place silent;
  size_t descriptors = open_descriptors();
  open_place(&silent, tcp); /* half a greeting and silence: it hangs up and connects again */
  int pub = answer(silent.pub_fd), pull = answer(silent.pull_fd);
  put_greeting(pub, "NULL", GREETING / 2);
  for (size_t i = 0; i < ATTACKS; i++) attack_worker(&attacks[i], tcp);
  expect_hang_up(pub);
  expect_hang_up(pull);
  close(pub);
  close(pull);
  close_raw(&silent);
  check_worker_goes_on(&silent);
  leave_place(&silent);
  WAIT_FOR(open_descriptors() <= descriptors);
}

static void test_worker_ipc(void **state) {
  (void)state;
  attack_workers(false);
}

static void test_worker_tcp(void **state) {
  (void)state;
  attack_workers(true);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_supervisor_ipc), cmocka_unit_test(test_supervisor_tcp), cmocka_unit_test(test_supervisor_with_keys),
                                     cmocka_unit_test(test_worker_ipc), cmocka_unit_test(test_worker_tcp)};
  setvbuf(stdout, NULL, _IOLBF, 0);
  cmocka_set_test_filter(getenv("MESSAGING_TEST"));
  return cmocka_run_group_tests(tests, NULL, NULL);
}
