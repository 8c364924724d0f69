/* The same system over tcp: refused without keys, encrypted and authenticated with them. Loopback only. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <zmq.h>

/* On request libzmq is one that was built without CURVE: it does then what its sources say. */
static bool without_curve;

static int unsupported(int error) {
  errno = error;
  return -1;
}

static int curve_keypair(char *public_key, char *secret_key) { return without_curve ? unsupported(ENOTSUP) : zmq_curve_keypair(public_key, secret_key); }
static int curve_public(char *public_key, const char *secret_key) { return without_curve ? unsupported(ENOTSUP) : zmq_curve_public(public_key, secret_key); }

static int set_option(void *socket, int option, const void *value, size_t size) {
  bool curve = option == ZMQ_CURVE_SERVER || option == ZMQ_CURVE_PUBLICKEY || option == ZMQ_CURVE_SECRETKEY || option == ZMQ_CURVE_SERVERKEY;
  return without_curve && curve ? unsupported(EINVAL) : zmq_setsockopt(socket, option, value, size);
}

#define zmq_curve_keypair(public_key, secret_key) curve_keypair(public_key, secret_key)
#define zmq_curve_public(public_key, secret_key) curve_public(public_key, secret_key)
#define zmq_setsockopt(socket, option, value, size) set_option(socket, option, value, size)

#include "../messaging.h"
#include "watched.h"

static int encode(msgpack_packer *pk, const uint64_t *in) { return msgpack_pack_uint64(pk, *in); }
static int decode(const msgpack_object *obj, msgpack_zone *zone, uint64_t *out) {
  (void)zone;
  *out = obj->via.u64;
  return obj->type != MSGPACK_OBJECT_POSITIVE_INTEGER;
}
MESSAGING_MAKE(bus, uint64_t, encode, decode);

enum { KIND = 5, COUNT = 1000, DEADLINE_MS = 60000, TICK_MS = 20 };

static const messaging_child children[] = {{-1, KIND}, {-2, KIND}};

/* Errors by status, as the handler of the supervisor counts them. */
static void count_error(const messaging_error *error, void *user) { __atomic_add_fetch((int *)user + error->status, 1, __ATOMIC_SEQ_CST); }

static bus_ctx *open_im(messaging_addresses *at, const messaging_options *options, int errors[MESSAGING__STATUS_COUNT]) {
  bus_ctx *im;
  assert_int_equal(bus_init_im(&im, at, options), MESSAGING_OK);
  assert_int_equal(bus_run_im(im, children, 2, count_error, errors), MESSAGING_OK);
  return im;
}

static bus_ctx *open_worker(const messaging_addresses *at, pid_t id, messaging_options options) {
  bus_ctx *worker;
  options.id = id;
  assert_int_equal(bus_init_worker(&worker, KIND, at->pub, at->pull, &options), MESSAGING_OK);
  assert_int_equal(bus_run_worker(worker, NULL, NULL), MESSAGING_OK);
  return worker;
}

static void pause_a_tick(void) {
  struct timespec tick = {0, TICK_MS * 1000000L};
  nanosleep(&tick, NULL);
}

/* Waits for an error that is counted. */
static void await_error(int errors[MESSAGING__STATUS_COUNT], messaging_status status) {
  for (int waited = 0; __atomic_load_n(&errors[status], __ATOMIC_SEQ_CST) == 0; waited += TICK_MS) {
    assert_true(waited < DEADLINE_MS);
    pause_a_tick();
  }
}

static uint32_t joined(const bus_ctx *im) {
  messaging_stats stats;
  assert_int_equal(bus_stats(im, &stats), MESSAGING_OK);
  return stats.workers_joined;
}

static void receive_in_order(bus_ctx *ctx) {
  for (uint64_t got = 0; got < COUNT;) {
    bus_batch batch;
    assert_int_equal(bus_wait(ctx, DEADLINE_MS), MESSAGING_OK);
    assert_int_equal(bus_recv(ctx, &batch), MESSAGING_OK);
    for (size_t i = 0; i < batch.count; i++) {
      assert_int_equal(batch.messages[i].relay.number, ++got);
      assert_int_equal(batch.messages[i].relay.message, got);
    }
    bus_batch_free(&batch);
  }
}

static void talk(const messaging_options *im_options, const messaging_options *worker_options) {
  messaging_addresses at;
  int errors[MESSAGING__STATUS_COUNT] = {0};
  bus_ctx *im = open_im(&at, im_options, errors);
  bool named = strncmp(im_options->bind, "tcp://localhost", 15) == 0, ipv6 = strncmp(im_options->bind, "tcp://[", 7) == 0;
  const char *host = named ? "tcp://localhost:" : ipv6 ? "tcp://[::1]:" : "tcp://127.0.0.1:";
  assert_int_equal(strncmp(at.pub, host, strlen(host)), 0);
  assert_int_equal(strncmp(at.pull, host, strlen(host)), 0);
  uint64_t began = messaging__now_ms();
  bus_ctx *first = open_worker(&at, -1, *worker_options), *second = open_worker(&at, -2, *worker_options);
  for (uint64_t i = 1; i <= COUNT; i++) assert_int_equal(bus_send_relay_message(first, &i), MESSAGING_OK);
  receive_in_order(second);
  receive_in_order(im);
  bool stood_still = messaging__now_ms() - began >= MESSAGING__HANDSHAKE_MS; /* then a handshake may have been given up, and made anew */
  assert_int_equal(bus_exit(&first), MESSAGING_OK);
  assert_int_equal(bus_exit(&second), MESSAGING_OK);
  assert_int_equal(bus_exit(&im), MESSAGING_OK);
  if (stood_still) print_message("this machine stood still for so long that a handshake may have been given up\n");
  for (int i = 0; i < MESSAGING__STATUS_COUNT; i++)
    if (i != MESSAGING_EAUTH || !stood_still) assert_int_equal(errors[i], 0);
}

static void test_refused_without_keys(void **state) {
  bus_ctx *ctx;
  messaging_addresses at;
  messaging_options options = {0};
  (void)state;
  options.bind = "tcp://127.0.0.1:*";
  assert_int_equal(bus_init_im(&ctx, &at, &options), MESSAGING_EAUTH);
  assert_null(ctx);
  assert_int_equal(bus_init_worker(&ctx, KIND, "tcp://127.0.0.1:9", "tcp://127.0.0.1:10", NULL), MESSAGING_EAUTH);
  assert_null(ctx);
  static const char *const wrong[] = {"too short", "env:MESSAGING_TEST_UNSET", "file:/nonexistent/secret", "file:/dev/null"};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    options.secret = options.credential = wrong[i];
    assert_int_equal(bus_init_im(&ctx, &at, &options), MESSAGING_EAUTH);
    assert_int_equal(bus_init_worker(&ctx, KIND, "tcp://127.0.0.1:9", "tcp://127.0.0.1:10", &options), MESSAGING_EAUTH);
  }
}

/* A clear error, not a connection without keys. */
static void test_without_curve(void **state) {
  char secret[MESSAGING_KEY_SIZE], credential[MESSAGING_KEY_SIZE];
  bus_ctx *ctx;
  messaging_addresses at;
  messaging_options options = {0};
  (void)state;
  assert_int_equal(messaging_make_keys(secret, credential), MESSAGING_OK);
  options.bind = "tcp://127.0.0.1:*";
  options.secret = secret;
  options.credential = credential;
  without_curve = true;
  messaging_status made = messaging_make_keys(secret, credential), im = bus_init_im(&ctx, &at, &options);
  messaging_status worker = bus_init_worker(&ctx, KIND, "tcp://127.0.0.1:9", "tcp://127.0.0.1:10", &options);
  without_curve = false;
  assert_int_equal(made, MESSAGING_ESYS);
  assert_int_equal(im, MESSAGING_ESYS);
  assert_int_equal(worker, MESSAGING_ESYS);
}

static void test_addresses(void **state) {
  static const char *const wrong[] = {"tcp://*:*", "tcp://0.0.0.0:*", "tcp://[::]:*", "tcp://0:*", "tcp://0x0:*", "tcp://[::0]:*", "tcp://[::ffff:0.0.0.0]:*",
                                       "tcp://:5000", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65535", "tcp://127.0.0.1:x", "tcp://127.0.0.1", "udp://127.0.0.1:5000"};
  bus_ctx *im;
  messaging_addresses at;
  messaging_options options = {0};
  (void)state;
  options.plaintext_ok = true;
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    options.bind = wrong[i];
    assert_int_equal(bus_init_im(&im, &at, &options), MESSAGING_EINVAL);
  }
  options.bind = "tcp://203.0.113.1:5000"; /* documentation address: not of this host */
  assert_int_equal(bus_init_im(&im, &at, &options), MESSAGING_EBIND);
}

/* ---- What is on the wire ---- */

enum { TAPPED_MAX = 32 };
static const uint8_t marker[] = "MARKERMK";

/* Forwards the connections of two ports, and looks for the marker in what passes. */
static struct {
  pthread_t thread;
  int listeners[2], ports[2], fds[TAPPED_MAX];
  size_t count;
  bool stop, seen;
} tap;

static int loopback(int port, bool listens) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  bool fine = fd >= 0 && (listens ? bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 16) == 0 : connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
  return fine ? fd : -1;
}

static void pass_on(size_t i) {
  uint8_t bytes[16384];
  ssize_t size = read(tap.fds[i], bytes, sizeof bytes);
  for (ssize_t at = 0; at + 8 <= size; at++)
    if (memcmp(bytes + at, marker, 8) == 0) __atomic_store_n(&tap.seen, true, __ATOMIC_SEQ_CST);
  for (ssize_t at = 0, wrote = 0; at < size && wrote >= 0; at += wrote) wrote = send(tap.fds[i ^ 1], bytes + at, (size_t)(size - at), MSG_NOSIGNAL);
  if (size > 0) return;
  shutdown(tap.fds[i ^ 1], SHUT_WR);
  close(tap.fds[i]);
  tap.fds[i] = -1;
}

static void *run_tap(void *unused) {
  (void)unused;
  while (!__atomic_load_n(&tap.stop, __ATOMIC_SEQ_CST)) {
    struct pollfd entries[TAPPED_MAX + 2];
    for (size_t i = 0; i < tap.count; i++) entries[i] = (struct pollfd){tap.fds[i], POLLIN, 0};
    for (size_t i = 0; i < 2; i++) entries[tap.count + i] = (struct pollfd){tap.count < TAPPED_MAX ? tap.listeners[i] : -1, POLLIN, 0};
    size_t before = tap.count;
    if (poll(entries, (nfds_t)before + 2, TICK_MS) <= 0) continue;
    for (size_t i = 0; i < before; i++)
      if (entries[i].revents && tap.fds[i] >= 0) pass_on(i);
    for (size_t i = 0; i < 2; i++)
      if (entries[before + i].revents && tap.count < TAPPED_MAX) {
        tap.fds[tap.count++] = accept(tap.listeners[i], NULL, NULL);
        tap.fds[tap.count++] = loopback(tap.ports[i], false);
      }
  }
  return NULL;
}

static void begin_tap(messaging_addresses *at) {
  char *addresses[] = {at->pub, at->pull};
  memset(&tap, 0, sizeof tap);
  for (size_t i = 0; i < 2; i++) {
    struct sockaddr_in own;
    socklen_t size = sizeof own;
    tap.ports[i] = atoi(strrchr(addresses[i], ':') + 1);
    tap.listeners[i] = loopback(0, true);
    assert_true(tap.listeners[i] >= 0 && getsockname(tap.listeners[i], (struct sockaddr *)&own, &size) == 0);
    snprintf(addresses[i], MESSAGING_ADDRESS_SIZE, "tcp://127.0.0.1:%d", ntohs(own.sin_port));
  }
  assert_int_equal(pthread_create(&tap.thread, NULL, run_tap, NULL), 0);
}

static void end_tap(void) {
  __atomic_store_n(&tap.stop, true, __ATOMIC_SEQ_CST);
  assert_int_equal(pthread_join(tap.thread, NULL), 0);
  for (size_t i = 0; i < tap.count; i++)
    if (tap.fds[i] >= 0) close(tap.fds[i]);
  for (size_t i = 0; i < 2; i++) close(tap.listeners[i]);
}

/* What a worker sends can be read on the wire without keys, and not with them. */
static void test_wire_is_encrypted(void **state) {
  char secret[MESSAGING_KEY_SIZE], credential[MESSAGING_KEY_SIZE];
  (void)state;
  assert_int_equal(messaging_make_keys(secret, credential), MESSAGING_OK);
  for (int keys = 0; keys < 2; keys++) {
    messaging_options im_options = {0}, worker_options = {0};
    messaging_addresses at;
    int errors[MESSAGING__STATUS_COUNT] = {0};
    uint64_t value = messaging__load_be(marker, 8);
    im_options.bind = "tcp://127.0.0.1:*";
    im_options.plaintext_ok = worker_options.plaintext_ok = !keys;
    im_options.secret = keys ? secret : NULL;
    worker_options.credential = keys ? credential : NULL;
    bus_ctx *im = open_im(&at, &im_options, errors);
    begin_tap(&at);
    bus_ctx *worker = open_worker(&at, -1, worker_options);
    for (int i = 0; i < COUNT; i++) assert_int_equal(bus_send_relay_message(worker, &value), MESSAGING_OK);
    for (size_t got = 0; got < COUNT;) {
      bus_batch batch;
      assert_int_equal(bus_wait(im, DEADLINE_MS), MESSAGING_OK);
      assert_int_equal(bus_recv(im, &batch), MESSAGING_OK);
      for (size_t i = 0; i < batch.count; i++, got++) assert_true(batch.messages[i].relay.message == value);
      bus_batch_free(&batch);
    }
    assert_int_equal(bus_exit(&worker), MESSAGING_OK);
    assert_int_equal(bus_exit(&im), MESSAGING_OK);
    end_tap();
    assert_int_equal(tap.seen, !keys);
  }
}

/* A host's name is looked up, and handed over as it was given; one that nobody knows is not. */
static void test_host_name(void **state) {
  messaging_options im = {0}, worker = {0};
  messaging_addresses at;
  bus_ctx *ctx;
  struct addrinfo *found;
  (void)state;
  if (getaddrinfo("localhost", NULL, NULL, &found) != 0) {
    print_message("skipped: this machine does not know localhost (no /etc/hosts, as in a bare chroot)\n");
    skip();
  }
  freeaddrinfo(found);
  im.bind = "tcp://localhost:*";
  im.plaintext_ok = worker.plaintext_ok = true;
  assert_int_equal(bus_init_im(&ctx, &at, &im), MESSAGING_OK);
  assert_memory_equal(at.pub, "tcp://localhost:", 16);
  assert_memory_equal(at.pull, "tcp://localhost:", 16);
  assert_string_not_equal(at.pub, at.pull);
  assert_int_equal(bus_exit(&ctx), MESSAGING_OK);
  talk(&im, &worker);
  im.bind = "tcp://no-such-host.invalid:*";
  assert_int_equal(bus_init_im(&ctx, &at, &im), MESSAGING_EBIND);
}

/* An interface's name stands for its address. */
static void test_interface(void **state) {
  messaging_options im = {0}, worker = {0};
  (void)state;
  im.bind = "tcp://lo:*";
  im.plaintext_ok = worker.plaintext_ok = true;
  talk(&im, &worker);
}

static void test_ipv6(void **state) {
  char secret[MESSAGING_KEY_SIZE], credential[MESSAGING_KEY_SIZE];
  messaging_options im = {0}, worker = {0};
  struct sockaddr_in6 name = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  (void)state;
  int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool usable = fd >= 0 && bind(fd, (struct sockaddr *)&name, sizeof name) == 0;
  if (fd >= 0) close(fd);
  if (!usable) {
    print_message("skipped: no IPv6 on loopback\n");
    skip();
  }
  assert_int_equal(messaging_make_keys(secret, credential), MESSAGING_OK);
  im.bind = "tcp://[::1]:*";
  im.secret = secret;
  worker.credential = credential;
  talk(&im, &worker);
}

/* A worker of this host that is listed by its pid is watched by a pidfd on tcp as well: its death is known long before its silence is. */
static void test_death_of_a_local_worker(void **state) {
  messaging_addresses at;
  messaging_options options = {0};
  int errors[MESSAGING__STATUS_COUNT] = {0}, pipes[2];
  bus_ctx *im, *worker;
  (void)state;
  needs_pidfd();
  options.plaintext_ok = true;
  options.bind = "tcp://127.0.0.1:*";
  assert_int_equal(pipe(pipes), 0);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    close(pipes[1]);
    if (read(pipes[0], &at, sizeof at) != (ssize_t)sizeof at) _exit(1);
    if (bus_init_worker(&worker, KIND, at.pub, at.pull, &options) || bus_run_worker(worker, NULL, NULL)) _exit(1);
    while (read(pipes[0], &at, sizeof at) < 0) {} /* until it is killed, or its parent is gone */
    _exit(1);
  }
  close(pipes[0]);
  const messaging_child child = {pid, KIND};
  assert_int_equal(bus_init_im(&im, &at, &options), MESSAGING_OK);
  assert_int_equal(bus_run_im(im, &child, 1, count_error, errors), MESSAGING_OK);
  assert_int_equal(write(pipes[1], &at, sizeof at), sizeof at);
  for (int waited = 0; joined(im) == 0; waited += TICK_MS) {
    assert_true(waited < DEADLINE_MS);
    pause_a_tick();
  }
  assert_int_equal(kill(pid, SIGKILL), 0);
  struct timespec before, after;
  clock_gettime(CLOCK_MONOTONIC, &before);
  await_error(errors, MESSAGING_ELOST);
  clock_gettime(CLOCK_MONOTONIC, &after);
  assert_true(after.tv_sec - before.tv_sec < DEADLINE_MS / 1000 / 2); /* silence_ms is 60000 */
  assert_int_equal(waitpid(pid, NULL, 0), pid);
  assert_int_equal(bus_exit(&im), MESSAGING_OK);
  assert_int_equal(errors[MESSAGING_ELOST], 1);
  close(pipes[1]);
}

static void test_plaintext_when_asked_for(void **state) {
  messaging_options options = {0};
  (void)state;
  options.bind = "tcp://127.0.0.1:*";
  options.plaintext_ok = true;
  talk(&options, &options);
}

static void test_keys(void **state) {
  char secret[MESSAGING_KEY_SIZE], credential[MESSAGING_KEY_SIZE];
  messaging_options im = {0}, worker = {0};
  (void)state;
  assert_int_equal(messaging_make_keys(secret, credential), MESSAGING_OK);
  assert_int_equal(strlen(secret), MESSAGING_KEY_SIZE - 1);
  assert_int_equal(strlen(credential), MESSAGING_KEY_SIZE - 1);
  im.bind = "tcp://127.0.0.1:*";
  im.secret = secret;
  worker.credential = credential;
  talk(&im, &worker);
}

static void test_keys_from_elsewhere(void **state) {
  char secret[MESSAGING_KEY_SIZE], credential[MESSAGING_KEY_SIZE], path[] = "/tmp/messaging-test-XXXXXX", option[64];
  messaging_options im = {0}, worker = {0};
  (void)state;
  assert_int_equal(messaging_make_keys(secret, credential), MESSAGING_OK);
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  assert_int_equal(dprintf(fd, "%s\n", credential), MESSAGING_KEY_SIZE);
  close(fd);
  snprintf(option, sizeof option, "file:%s", path);
  assert_int_equal(setenv("MESSAGING_TEST_SECRET", secret, 1), 0);
  im.bind = "tcp://127.0.0.1:*";
  im.secret = "env:MESSAGING_TEST_SECRET";
  worker.credential = option;
  talk(&im, &worker);
  unlink(path);
}

/* Strangers are refused and reported, and disturb nobody. */
static void test_strangers(void **state) {
  char secret[MESSAGING_KEY_SIZE], credential[MESSAGING_KEY_SIZE], other_secret[MESSAGING_KEY_SIZE], other[MESSAGING_KEY_SIZE], mixed[MESSAGING_KEY_SIZE];
  messaging_options im_options = {0}, right = {0}, wrong_pair = {0}, wrong_client = {0}, none = {0};
  messaging_addresses at;
  int errors[MESSAGING__STATUS_COUNT] = {0};
  (void)state;
  assert_int_equal(messaging_make_keys(secret, credential), MESSAGING_OK);
  assert_int_equal(messaging_make_keys(other_secret, other), MESSAGING_OK);
  snprintf(mixed, sizeof mixed, "%.40s%s", credential, other + 40); /* knows the supervisor's key, but is none of its workers */
  im_options.bind = "tcp://127.0.0.1:*";
  im_options.secret = secret;
  right.credential = credential;
  wrong_pair.credential = other;
  wrong_client.credential = mixed;
  none.plaintext_ok = true;
  bus_ctx *im = open_im(&at, &im_options, errors);
  bus_ctx *stranger = open_worker(&at, -2, wrong_client), *another = open_worker(&at, -2, wrong_pair), *naked = open_worker(&at, -2, none);
  bus_ctx *worker = open_worker(&at, -1, right);
  for (uint64_t i = 1; i <= COUNT; i++) assert_int_equal(bus_send_relay_message(worker, &i), MESSAGING_OK);
  receive_in_order(im);
  await_error(errors, MESSAGING_EAUTH);
  messaging_stats stats;
  assert_int_equal(bus_stats(im, &stats), MESSAGING_OK);
  assert_true(stats.refused > 0);
  assert_int_equal(stats.workers_joined, 1);
  bus_ctx **all[] = {&stranger, &another, &naked, &worker};
  for (size_t i = 0; i < 4; i++) assert_int_equal(bus_exit(all[i]), MESSAGING_OK); /* with nothing sent it is OK at once */
  assert_int_equal(bus_exit(&im), MESSAGING_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_refused_without_keys),
      cmocka_unit_test(test_without_curve),
      cmocka_unit_test(test_addresses),
      cmocka_unit_test(test_interface),
      cmocka_unit_test(test_host_name),
      cmocka_unit_test(test_wire_is_encrypted),
      cmocka_unit_test(test_ipv6),
      cmocka_unit_test(test_death_of_a_local_worker),
      cmocka_unit_test(test_plaintext_when_asked_for),
      cmocka_unit_test(test_keys),
      cmocka_unit_test(test_keys_from_elsewhere),
      cmocka_unit_test(test_strangers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
