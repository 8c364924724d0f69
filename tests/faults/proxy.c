/* A proxy on the sockets. A worker is given the proxy's addresses; what passes is forwarded to the supervisor's, but for what the proxy does to
 * it: it cuts connections between two chunks, or in the middle of one, and holds chunks back. */
#include "faults.h"

#include <sys/un.h>

enum { CUT = 1, TRUNCATE = 2, DELAY = 4, PUB = 8, PULL = 16 };
enum { BREAKS_MAX = 25, BREAKS_QUICK = 8, DELAYS_MAX = 300, CHUNK = 8192 };

typedef struct {
  messaging_addresses real, own;
  unsigned what; /* of the above, for both or one of the streams */
  unsigned breaks_max;
  atomic_bool open;
  atomic_uint seed, connections, cuts, truncations, delays;
} proxy_state;

static proxy_state *the_proxy;

/* ---- The proxy's process ------------------------------------------------------------------------------------------------- */

static unsigned dice(void) {
  unsigned x = atomic_fetch_add(&the_proxy->seed, 0x9E3779B9u);
  x = (x ^ x >> 16) * 0x85EBCA6Bu;
  x = (x ^ x >> 13) * 0xC2B2AE35u;
  return x ^ x >> 16;
}

typedef struct {
  int from, to;
  bool pub;
  atomic_int *users; /* of the pair of descriptors */
} stream;

static bool write_all(int fd, const char *bytes, size_t size) {
  while (size > 0) {
    ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes += n;
    size -= (size_t)n;
  }
  return true;
}

/* Now and then a connection ends early, in its handshake perhaps. */
static size_t bytes_until_the_break(void) { return dice() % 5 == 0 ? 1 + dice() % 150 : 2000 + dice() % 40000; }

static bool may_break(void) { return atomic_load(&the_proxy->cuts) + atomic_load(&the_proxy->truncations) < the_proxy->breaks_max; }

/* Forwards a chunk; false: the connection is to end here. */
static bool forward(const stream *s, const char *chunk, size_t size, size_t *left) {
  unsigned what = the_proxy->what;
  bool struck = (what & (s->pub ? PUB : PULL)) != 0;
  if (struck && (what & DELAY) && dice() % 4 == 0 && atomic_fetch_add(&the_proxy->delays, 1) < DELAYS_MAX) pause_ms(1 + (int)(dice() % 30));
  if (!struck || !(what & (CUT | TRUNCATE)) || size < *left || !may_break()) {
    *left = size < *left ? *left - size : *left;
    return write_all(s->to, chunk, size);
  }
  if ((what & TRUNCATE) && size > 1 && (!(what & CUT) || dice() % 2)) {
    atomic_fetch_add(&the_proxy->truncations, 1);
    (void)write_all(s->to, chunk, 1 + dice() % (size - 1));
  } else {
    atomic_fetch_add(&the_proxy->cuts, 1);
    (void)write_all(s->to, chunk, size);
  }
  return false;
}

static void *pump(void *arg) {
  stream s = *(stream *)arg;
  char chunk[CHUNK];
  size_t left = bytes_until_the_break();
  ssize_t n;
  free(arg);
  while ((n = recv(s.from, chunk, sizeof chunk, 0)) > 0)
    if (!forward(&s, chunk, (size_t)n, &left)) break;
  (void)shutdown(s.from, SHUT_RDWR);
  (void)shutdown(s.to, SHUT_RDWR);
  if (atomic_fetch_sub(s.users, 1) == 1) {
    (void)close(s.from);
    (void)close(s.to);
    free(s.users);
  }
  return NULL;
}

static struct sockaddr_un name_of(const char *address) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  (void)snprintf(name.sun_path, sizeof name.sun_path, "%s", socket_path(address));
  return name;
}

static void start_pump(int from, int to, bool pub, atomic_int *users) {
  pthread_t thread;
  stream *s = malloc(sizeof *s);
  if (!s) give_up("no memory");
  *s = (stream){from, to, pub, users};
  if (pthread_create(&thread, NULL, pump, s) != 0 || pthread_detach(thread) != 0) give_up("no thread");
}

static void take_connection(int listener, bool pub) {
  int near = accept(listener, NULL, NULL), far = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_un name = name_of(pub ? the_proxy->real.pub : the_proxy->real.pull);
  if (near < 0 || far < 0 || connect(far, (struct sockaddr *)&name, sizeof name) != 0) {
    if (near >= 0) (void)close(near);
    if (far >= 0) (void)close(far);
    return;
  }
  atomic_fetch_add(&the_proxy->connections, 1);
  atomic_int *users = malloc(sizeof *users);
  if (!users) give_up("no memory");
  atomic_init(users, 2);
  start_pump(near, far, pub, users);
  start_pump(far, near, pub, users);
}

static int listen_at(const char *address) {
  struct sockaddr_un name = name_of(address);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&name, sizeof name) != 0 || listen(fd, 20) != 0) give_up("the proxy cannot listen");
  return fd;
}

static int proxy(const puppet *self, const command *cue) {
  the_proxy->real = cue->addresses;
  struct pollfd fds[] = {{listen_at(the_proxy->own.pub), POLLIN, 0}, {listen_at(the_proxy->own.pull), POLLIN, 0}, {self->puppet_fd, POLLIN, 0}};
  atomic_store(&the_proxy->open, true);
  while (poll(fds, 3, -1) > 0 && !fds[2].revents) /* until the test closes the socket */
    for (int i = 0; i < 2; i++)
      if (fds[i].revents) take_connection(fds[i].fd, i == 0);
  _exit(0);
}

/* ---- The rows ------------------------------------------------------------------------------------------------------------ */

static puppet *cast_proxy(world *w, unsigned what) {
  the_proxy = mmap(NULL, sizeof *the_proxy, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(the_proxy != MAP_FAILED);
  the_proxy->what = what;
  the_proxy->breaks_max = the_row->quick ? BREAKS_QUICK : BREAKS_MAX;
  atomic_store(&the_proxy->seed, (unsigned)getpid() * 2654435761u);
  const char *base = getenv("TMPDIR");
  (void)snprintf(the_proxy->own.pub, sizeof the_proxy->own.pub, "ipc://%s/proxy-pub", base);
  (void)snprintf(the_proxy->own.pull, sizeof the_proxy->own.pull, "ipc://%s/proxy-pull", base);
  return cast(w, 1, proxy);
}

static void describe(unsigned what) {
  static const char *const breaks_names[] = {"", "cuts", "truncates mid-frame", "cuts, truncates mid-frame"};
  const char *breaks = breaks_names[what & (CUT | TRUNCATE)], *streams = !(what & PULL) ? "pub" : !(what & PUB) ? "pull" : "pub and pull";
  const char *delays = what & DELAY ? "delays" : "";
  injected("proxy %s%s%s on %s", breaks, *breaks && *delays ? ", " : "", delays, streams);
}

/* Both workers and the supervisor talk; the first worker's bytes pass the proxy. */
static void proxy_between(void **state) {
  world *w = *state;
  unsigned what = (unsigned)the_row->argument;
  uint32_t each = the_row->quick ? 1500 : 4000;
  describe(what);
  puppet *p = cast_proxy(w, what);
  open_im(w, &patient);
  give_cue(w, p);
  WAIT_FOR(atomic_load(&the_proxy->open));
  puppet *far = hire(w), *near = hire(w);
  run_im(w, 1, 3);
  messaging_addresses real = w->addresses;
  w->addresses = the_proxy->own;
  join(w, far, &patient);
  w->addresses = real;
  join(w, near, &patient);
  post(far, TALK(.first = 1, .count = each, .size = 50, .spread = 500, .outputs = true, .relays = 2 * each));
  post(near, TALK(.first = 1, .count = each, .size = 50, .spread = 500, .relays = 2 * each));
  assert_ok(im_talk(w, TALK(.first = 1, .count = each, .size = 50, .spread = 500, .relays = 2 * each, .outputs_in = each)).status);
  assert_ok(await(far).status);
  assert_ok(await(near).status);
  assert_int_equal(atomic_load(&w->log->outputs), each);
  assert_null(find_report(w->log, MESSAGING_ELOST, ANYBODY));
  unsigned breaks = atomic_load(&the_proxy->cuts) + atomic_load(&the_proxy->truncations), delays = atomic_load(&the_proxy->delays);
  assert_true(what & (CUT | TRUNCATE) ? breaks >= 3 : delays >= 3); /* the fault was there */
  world seen = {.log = w->log, .count = 2};
  memcpy(seen.workers, &w->workers[1], 2 * sizeof(puppet));
  check_one_order(&seen, 2, 3 * each);
  messaging_stats im = im_stats(w), worker = stats_of(far);
  happened("%u cut, %u truncated, %u delayed, %u connections, %u + %u batches again; %u relays once, in order", atomic_load(&the_proxy->cuts),
           atomic_load(&the_proxy->truncations), delays < DELAYS_MAX ? delays : DELAYS_MAX, atomic_load(&the_proxy->connections),
           (unsigned)worker.batches_repeated, (unsigned)im.batches_repeated, 3 * each);
  assert_ok(order(far, COMMAND(DO_EXIT)).status);
  assert_ok(order(near, COMMAND(DO_EXIT)).status);
  assert_ok(bus_exit(&w->im));
  (void)munmap(the_proxy, sizeof *the_proxy);
}

#define BETWEEN(what_it_does, is_quick) \
  ROW(proxy_between, .must = "everything exactly once and in order; no ELOST; exit OK", .argument = what_it_does, .quick = is_quick)

static const row proxy_rows[] = {
    BETWEEN(CUT | PUB, false),      BETWEEN(CUT | PULL, false),      BETWEEN(TRUNCATE | PUB, true),
    BETWEEN(TRUNCATE | PULL, true), BETWEEN(DELAY | PUB, false),     BETWEEN(DELAY | PULL, false),
    BETWEEN(CUT | TRUNCATE | DELAY | PUB | PULL, false),
};

GROUP(proxy_group, "4. A proxy on the sockets", proxy_rows);
