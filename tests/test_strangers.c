/*
 * Strangers at a tcp supervisor with keys: without a key, with another session's, with a key that is none of its workers', with rubbish, with nothing to
 * say; one after another, as many at once as the descriptors that are kept for them, and more. They are kept out, and the work goes on.
 */
#define _GNU_SOURCE
#define HARNESS_WORKERS_MAX 4
#include "harness.h"

#include "hosts/rounds.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>

enum { WORKERS = 3, EARLY = 2, KINDS = 5, STRANGERS = 10000, HEARTBEAT_MS = 100, PATIENT_MS = 60000 };

static char secret[MESSAGING_KEY_SIZE], credential[MESSAGING_KEY_SIZE], foreign[MESSAGING_KEY_SIZE], mixed[MESSAGING_KEY_SIZE];

/* ---- A process full of strangers ---- */

typedef enum { SILENT_ONE, RUBBISH, NO_KEY, FOREIGN_KEY, WRONG_KEY } kind_of_stranger;

typedef struct {
  messaging_addresses at;
  int count;
} visit;

typedef struct {
  atomic_int came[KINDS], kept_out, failed;
  atomic_bool done;
} visitors_book;

static visitors_book *book;
static int visitors_fd;
static pid_t visitors_pid;

static struct sockaddr_in name_of(const char *address) {
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1))};
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return name;
}

static int connect_raw(const char *address, int flags) {
  struct sockaddr_in name = name_of(address);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  if (fd < 0) return -1;
  if (connect(fd, (struct sockaddr *)&name, sizeof name) == 0 || errno == EINPROGRESS) return fd;
  (void)close(fd);
  return -1;
}

/* Whether the supervisor ends the connection before the deadline. What it says is read. */
static bool is_shown_out(int fd) {
  char bytes[256];
  struct pollfd entry = {fd, POLLIN, 0};
  int64_t until = now_ms() + deadline_ms();
  while (now_ms() < until) {
    if (poll(&entry, 1, (int)(until - now_ms())) <= 0) continue;
    ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return true;
  }
  return false;
}

/* Strangers who speak no CURVE are shown out; one who says nothing leaves by himself here (the crowds below wait for it). */
static bool visit_raw(kind_of_stranger kind, const char *address) {
  static const uint8_t rubbish[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n................................";
  uint8_t greeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
  int fd = connect_raw(address, 0);
  if (fd < 0) return false;
  bool out = true;
  if (kind != SILENT_ONE) {
    const void *says = kind == RUBBISH ? (const void *)rubbish : greeting;
    size_t size = kind == RUBBISH ? sizeof rubbish : sizeof greeting;
    out = send(fd, says, size, MSG_NOSIGNAL) == (ssize_t)size && is_shown_out(fd);
  }
  (void)close(fd);
  return out;
}

static bool take_keys(void *socket, const char *keys) {
  char server[41], client[41], client_public[41];
  (void)snprintf(server, sizeof server, "%.40s", keys);
  (void)snprintf(client, sizeof client, "%.40s", keys + 40);
  return zmq_curve_public(client_public, client) == 0 && zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server, sizeof server) == 0 &&
         zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, client_public, sizeof client_public) == 0 &&
         zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, client, sizeof client) == 0;
}

/* The next event of a monitored socket; 0: none before the deadline. */
static uint16_t next_event(void *monitor) {
  uint16_t event = 0;
  zmq_msg_t message;
  (void)zmq_msg_init(&message);
  if (zmq_msg_recv(&message, monitor, 0) > 0) memcpy(&event, zmq_msg_data(&message), sizeof event);
  if (zmq_msg_more(&message)) (void)zmq_msg_recv(&message, monitor, 0);
  (void)zmq_msg_close(&message);
  return event;
}

/* Strangers with keys, the wrong ones: the handshake fails. They try once. */
static bool visit_with_keys(void *context, const char *keys, const char *address) {
  static unsigned visits;
  char events[40];
  (void)snprintf(events, sizeof events, "inproc://events-%u", visits++);
  void *socket = zmq_socket(context, ZMQ_PUSH), *monitor = zmq_socket(context, ZMQ_PAIR);
  int never = -1, linger = 0, deadline = deadline_ms();
  uint16_t event = 0;
  bool out = false;
  if (socket && monitor && take_keys(socket, keys) && zmq_setsockopt(socket, ZMQ_RECONNECT_IVL, &never, sizeof never) == 0 &&
      zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger) == 0 && zmq_setsockopt(monitor, ZMQ_LINGER, &linger, sizeof linger) == 0 &&
      zmq_setsockopt(monitor, ZMQ_RCVTIMEO, &deadline, sizeof deadline) == 0 &&
      zmq_socket_monitor(socket, events, ZMQ_EVENT_ALL) == 0 && zmq_connect(monitor, events) == 0 && zmq_connect(socket, address) == 0) {
    do event = next_event(monitor);
    while (event && event != ZMQ_EVENT_DISCONNECTED && event != ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    out = event == ZMQ_EVENT_DISCONNECTED;
  }
  if (socket) (void)zmq_socket_monitor(socket, NULL, 0);
  if (socket) (void)zmq_close(socket);
  if (monitor) (void)zmq_close(monitor);
  return out;
}

/* Sends one stranger after the other, of all kinds, to both sockets. */
static void be_visitors(const world *w, int fd) {
  visit v;
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
  close_others((puppet *)(uintptr_t)w->workers, w->count, -1);
  if (recv(fd, &v, sizeof v, 0) != (ssize_t)sizeof v) _exit(0); /* not needed */
  void *context = zmq_ctx_new();
  for (int i = 0; i < v.count; i++) {
    kind_of_stranger kind = (kind_of_stranger)(i % 10 < KINDS ? i % 10 : i % FOREIGN_KEY); /* those with keys take the most time */
    const char *address = i / 10 % 2 ? v.at.pub : v.at.pull;
    bool out = kind < FOREIGN_KEY ? visit_raw(kind, address) : visit_with_keys(context, kind == FOREIGN_KEY ? foreign : mixed, address);
    atomic_fetch_add(&book->came[kind], 1);
    atomic_fetch_add(out ? &book->kept_out : &book->failed, 1);
  }
  while (zmq_ctx_term(context) != 0 && errno == EINTR) {}
  atomic_store(&book->done, true);
  _exit(leaked());
}

static void fork_visitors(const world *w) {
  int pair[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
  visitors_pid = fork();
  assert_true(visitors_pid >= 0);
  if (visitors_pid == 0) {
    (void)close(pair[0]);
    be_visitors(w, pair[1]);
  }
  (void)close(pair[1]);
  visitors_fd = pair[0];
}

/* ---- The world ---- */

static puppet lonely; /* a supervisor in a process of its own, with a limit of descriptors of its own */

/* All processes are forked before there are threads. */
static int setup_workers(void **state) {
  char foreign_secret[MESSAGING_KEY_SIZE];
  if (setup_world(state, THREADS) != 0 || messaging_make_keys(secret, credential) != MESSAGING_OK ||
      messaging_make_keys(foreign_secret, foreign) != MESSAGING_OK)
    return -1;
  (void)snprintf(mixed, sizeof mixed, "%.40s%s", credential, foreign + 40); /* knows the supervisor's key, but is none of its workers */
  world *w = *state;
  for (size_t i = 0; i < WORKERS; i++) (void)add_puppet(w, 1 + (messaging_kind)i, far_puppet(w, i));
  return 0;
}

static int setup_visitors(void **state) {
  if (setup_workers(state) != 0) return -1;
  book = mmap(NULL, sizeof *book, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (book == MAP_FAILED) return -1;
  fork_visitors(*state);
  return 0;
}

static int teardown_visitors(void **state) {
  int status = 0, bad = 0;
  bool done = atomic_load(&book->done);
  (void)close(visitors_fd);
  if (!done) (void)kill(visitors_pid, SIGKILL); /* the test has failed */
  if (waitpid(visitors_pid, &status, 0) != visitors_pid || (done && status != 0)) bad = -1;
  (void)munmap(book, sizeof *book);
  int left = teardown(state);
  return bad ? bad : left;
}

static int setup_crowd(void **state) {
  if (setup_workers(state) != 0) return -1;
  lonely = far_puppet(*state, WORKERS);
  return 0;
}

static int teardown_crowd(void **state) {
  (void)add_puppet(*state, 1, lonely);
  return teardown(state);
}

static messaging_options options_at(bool im) {
  messaging_options options = {.heartbeat_ms = HEARTBEAT_MS, .silence_ms = (uint32_t)silence_ms};
  if (im) options.bind = "tcp://127.0.0.1:*";
  if (im) options.secret = secret;
  else options.credential = credential;
  return options;
}

/* ---- The tests ---- */

static void test_one_after_another(void **state) {
  world *w = *state;
  begin_rounds(PATIENT_MS);
  messaging_options im = options_at(true), worker = options_at(false);
  open_im(w, &im);
  run_im(w, 0, WORKERS);
  for (size_t i = 0; i < WORKERS; i++) join(w, &w->workers[i], &worker);
  wait_joined(w, WORKERS);
  visit v = {w->addresses, STRANGERS / test_scale()};
  int64_t began = now_ms();
  assert_int_equal(send(visitors_fd, &v, sizeof v, MSG_NOSIGNAL), sizeof v);
  while (!atomic_load(&book->done)) {
    int before = atomic_load(&book->kept_out) + atomic_load(&book->failed);
    TALK_UNTIL(w, atomic_load(&book->done) || atomic_load(&book->kept_out) + atomic_load(&book->failed) > before);
  }
  size_t wanted = sent;
  TALK_UNTIL(w, everybody_has(w, wanted));

  assert_int_equal(atomic_load(&book->failed), 0);
  assert_int_equal(atomic_load(&book->kept_out), v.count);
  /* Of those who speak no ZMTP libzmq tells nothing. Everybody else is counted, and reported unless there were too many in that second; of the silent it
   * may say nothing when they leave before their time is over. */
  uint64_t wrong = (uint64_t)(atomic_load(&book->came[NO_KEY]) + atomic_load(&book->came[FOREIGN_KEY]) + atomic_load(&book->came[WRONG_KEY]));
  WAIT_FOR(im_stats(w).refused >= wrong);
  WAIT_FOR(atomic_load(&w->log->reports) == REPORTS_MAX || count_reports(w->log, MESSAGING_EAUTH) + im_stats(w).errors_dropped >= wrong);
  messaging_stats stats = im_stats(w);
  size_t told = count_reports(w->log, MESSAGING_EAUTH);
  print_message("%d strangers in %d ms, %d counted as refused, %d reports\n", v.count, (int)(now_ms() - began), (int)stats.refused, (int)told);
  assert_in_range(stats.refused, wrong, (uint64_t)v.count);
  assert_in_range(told, 1, (uint64_t)MESSAGING__REPORTS_FLOOD * (uint64_t)((now_ms() - began) / 1000 + 2));
  assert_int_equal(stats.workers_joined, WORKERS);
  all_is_there(w);
  check_reports(w, NOBODY);
  finish(w);
}

/* ---- Many at once ---- */

/* One of a crowd that connects and says nothing. libzmq greets who is accepted. */
typedef struct {
  int fd; /* -1: shown out */
  bool greeted;
} guest;

enum { CROWD_MAX = 140 };

static guest crowd[CROWD_MAX];

static void bring(const world *w, size_t index) {
  crowd[index].fd = connect_raw(index % 2 ? w->addresses.pub : w->addresses.pull, SOCK_NONBLOCK);
  assert_true(crowd[index].fd >= 0);
}

static void bring_crowd(const world *w, size_t count) {
  memset(crowd, 0, sizeof crowd);
  for (size_t i = 0; i < count; i++) bring(w, i);
}

/* Looks after everybody; how many are still there. Those who were shown out come again, if they are to. */
static size_t look_after_crowd(const world *w, size_t count, bool again) {
  size_t there = 0;
  for (size_t i = 0; i < count; i++) {
    char bytes[256];
    ssize_t n = -1;
    if (crowd[i].fd < 0) continue;
    while ((n = recv(crowd[i].fd, bytes, sizeof bytes, 0)) > 0) crowd[i].greeted = true;
    bool out = n == 0 || (errno != EAGAIN && errno != EINTR);
    if (out) (void)close(crowd[i].fd);
    if (out) crowd[i].fd = -1;
    if (out && again) bring(w, i);
    there += crowd[i].fd >= 0;
  }
  return there;
}

static size_t greeted(size_t count) {
  size_t n = 0;
  for (size_t i = 0; i < count; i++) n += crowd[i].greeted;
  return n;
}

/* The supervisor's open descriptors below a limit. Higher ones may have been inherited. */
static size_t descriptors_below(size_t limit) {
  char path[40];
  (void)snprintf(path, sizeof path, "/proc/%ld/fd", (long)lonely.pid);
  DIR *dir = opendir(path);
  assert_non_null(dir);
  size_t count = 0;
  for (struct dirent *e; (e = readdir(dir)) != NULL;) count += e->d_name[0] != '.' && strtoul(e->d_name, NULL, 10) < limit;
  (void)closedir(dir);
  return count;
}

/* As few descriptors as the supervisor is content with, which is 3 for each worker and 64 (and the 3 entries of the folder that it counts itself). */
static size_t start_lonely(world *w) {
  enum { KEPT = 64 + 3 };
  begin_rounds(PATIENT_MS);
  reply r = order(&lonely, (command){.type = DO_INIT_IM, .options = options_at(true)});
  assert_ok(r.status);
  w->addresses = r.addresses;
  size_t used = descriptors_below(SIZE_MAX), limit = used + 3 * WORKERS + KEPT;
  struct rlimit limits = {limit, limit};
  assert_int_equal(prlimit(lonely.pid, RLIMIT_NOFILE, &limits, NULL), 0);
  command run = {.type = DO_RUN_IM, .children_count = WORKERS};
  for (size_t i = 0; i < WORKERS; i++) run.children[i] = child_of(&w->workers[i]);
  assert_ok(order(&lonely, run).status);
  messaging_options worker = options_at(false);
  for (size_t i = 0; i < EARLY; i++) join(w, &w->workers[i], &worker);
  WAIT_FOR(stats_of(&lonely).workers_joined == EARLY);
  return limit;
}

/* The early workers and their supervisor get on with it. */
static void lonely_round(world *w) {
  int64_t began = now_ms();
  last_id++;
  for (size_t i = 0; i < EARLY; i++) assert_ok(order(&w->workers[i], TALK(.first = last_id, .count = 1, .size = ROUND_SIZE)).status);
  sent += EARLY;
  assert_ok(order(&lonely, TALK(.relays = sent)).status);
  for (size_t i = 0; i < EARLY; i++) assert_ok(order(&w->workers[i], TALK(.relays = sent / EARLY * (EARLY - 1))).status);
  if (now_ms() - began > longest_round_ms) longest_round_ms = now_ms() - began;
}

#define ROUNDS_UNTIL(w, condition)                                                                                         \
  do {                                                                                                                     \
    int64_t rounds_until = now_ms() + deadline_ms();                                                                       \
    while (!(condition)) {                                                                                                 \
      if (now_ms() > rounds_until) fail_msg("rounds in vain until: %s", #condition);                                       \
      lonely_round(w);                                                                                                     \
      pause_ms(2);                                                                                                         \
    }                                                                                                                      \
  } while (0)

static void join_late(world *w) {
  messaging_options worker = options_at(false);
  join(w, &w->workers[EARLY], &worker);
  ROUNDS_UNTIL(w, stats_of(&lonely).workers_joined == WORKERS);
}

/* Everybody has everything, nobody was lost, and the strangers have left nothing behind. */
static void finish_lonely(world *w, size_t before, size_t limit) {
  assert_ok(order(&w->workers[EARLY], TALK(.relays = sent)).status);
  WAIT_FOR(descriptors_below(limit) == before);
  logbook *own = w->log;
  w->log = lonely.log;
  check_one_order(w, WORKERS, sent);
  w->log = own;
  assert_int_equal(count_reports(lonely.log, MESSAGING_ELOST), 0);
  for (size_t i = 0; i < WORKERS; i++) {
    assert_int_equal(count_reports(w->workers[i].log, MESSAGING_ELOST), 0);
    assert_ok(order(&w->workers[i], COMMAND(DO_EXIT)).status);
  }
  assert_ok(order(&lonely, COMMAND(DO_EXIT)).status);
}

/* As many as the descriptors that are kept beyond the workers' own: they are shown out in time, and meanwhile a listed worker gets in. */
static void test_as_many_as_it_bears(void **state) {
  enum { CROWD = 64 };
  world *w = *state;
  size_t limit = start_lonely(w), before = descriptors_below(limit);
  bring_crowd(w, CROWD);
  ROUNDS_UNTIL(w, look_after_crowd(w, CROWD, greeted(CROWD) < CROWD) > 0 && greeted(CROWD) == CROWD);
  join_late(w);
  int64_t began = now_ms();
  ROUNDS_UNTIL(w, look_after_crowd(w, CROWD, false) == 0);
  print_message("all %d were gone after %d ms more; the longest round took %d ms\n", CROWD, (int)(now_ms() - began), (int)longest_round_ms);
  finish_lonely(w, before + 2, limit);
}

/* More than that: while the supervisor has no descriptor left, libzmq's thread spins, since there is always one more to accept, until those who say
 * nothing are shown out. Who is in does not suffer, and who comes later gets in. */
static void test_more_than_it_bears(void **state) {
  world *w = *state;
  size_t limit = start_lonely(w), before = descriptors_below(limit);
  bring_crowd(w, CROWD_MAX);
  ROUNDS_UNTIL(w, look_after_crowd(w, CROWD_MAX, true) > 0 && descriptors_below(limit) == limit); /* they come again until that was seen */
  uint64_t cpu = order(&lonely, COMMAND(DO_CPU)).cpu_us;
  int64_t began = now_ms();
  ROUNDS_UNTIL(w, look_after_crowd(w, CROWD_MAX, false) == 0);
  cpu = order(&lonely, COMMAND(DO_CPU)).cpu_us - cpu;
  print_message("%d with %d descriptors for them: gone after %d ms, in which the supervisor used %d ms of processor time; the longest round took %d ms\n",
                CROWD_MAX, (int)(limit - before), (int)(now_ms() - began), (int)(cpu / 1000), (int)longest_round_ms);
  assert_int_equal(greeted(CROWD_MAX), CROWD_MAX);
  join_late(w);
  finish_lonely(w, before + 2, limit);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      {"test_one_after_another", test_one_after_another, setup_visitors, teardown_visitors, NULL},
      {"test_as_many_as_it_bears", test_as_many_as_it_bears, setup_crowd, teardown_crowd, NULL},
      {"test_more_than_it_bears", test_more_than_it_bears, setup_crowd, teardown_crowd, NULL},
  };
  return RUN_TESTS(strangers, tests);
}
