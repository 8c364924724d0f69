/*
 * harness.h - what the tests share: an instance, workers that the test directs, logs, deadlines, and a killer
 *
 * The test's own process is the supervisor (`world.im`). Its workers are puppets: each sits in a forked process, or in a thread of
 * this process under a negative id, and does one command at a time that comes through a socket. What a puppet receives and what its
 * error handler hears goes into memory that it shares with the test, so the test reads it there at any time.
 *
 * Nothing here hopes that a while is long enough: a test waits for a condition, at most for the deadline.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "messaging.h"
#include "watched.h"

/* For a status that does not matter here; gcc wants it to be used nevertheless. */
static inline void ignore(messaging_status status) { (void)status; }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* The exit status of a forked process: with AddressSanitizer, whether it leaked. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
static inline int leaked(void) { return __lsan_do_recoverable_leak_check(); }
#else
static inline int leaked(void) { return 0; }
#endif

/* ---- Time ------------------------------------------------------------------------------------------------------------ */

static inline int64_t now_ms(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline void pause_ms(int ms) {
  struct timespec t = {ms / 1000, (ms % 1000) * 1000000L};
  (void)nanosleep(&t, NULL);
}

/* Sanitizers and valgrind make everything slower by this factor. */
static inline int test_scale(void) {
  const char *scale = getenv("MESSAGING_TEST_SCALE");
  int n = scale ? atoi(scale) : 1;
  return n < 1 ? 1 : n;
}

static inline int deadline_ms(void) { return 20000 * test_scale(); }

/* Waits until the condition holds; a test that waits in vain fails. */
#define WAIT_FOR(condition)                                                                                                \
  do {                                                                                                                     \
    int64_t wait_until = now_ms() + deadline_ms();                                                                         \
    while (!(condition)) {                                                                                                 \
      if (now_ms() > wait_until) fail_msg("waited in vain for: %s", #condition);                                           \
      pause_ms(1);                                                                                                         \
    }                                                                                                                      \
  } while (0)

/* MESSAGING_TEST=pattern runs those tests only whose names match. */
#define RUN_TESTS(name, tests)                                                                                             \
  (setvbuf(stdout, NULL, _IOLBF, 0), cmocka_set_test_filter(getenv("MESSAGING_TEST")),                                     \
   cmocka_run_group_tests_name(#name, tests, NULL, NULL))

/* ---- The relay type -------------------------------------------------------------------------------------------------- */

/* What the codec does wrong on request. From NESTED + n on it writes n arrays, one in the other. */
enum trick { PLAIN, UNDECODABLE, WRITE_NOTHING, WRITE_TWO, WRITE_HALF, REFUSE, REFUSE_LATE, NESTED = 1000 };

typedef struct {
  uint32_t id;
  uint32_t trick;
  const char *text; /* when received, it points into the batch */
  size_t text_size;
} fact;

static inline int fact_encode(msgpack_packer *pk, const fact *in) {
  if (in->trick == REFUSE) return 1;
  if (in->trick == WRITE_NOTHING) return 0;
  if (in->trick >= NESTED) {
    int bad = 0;
    for (uint32_t i = NESTED; i < in->trick; i++) bad |= msgpack_pack_array(pk, 1);
    return bad | msgpack_pack_nil(pk);
  }
  int bad = msgpack_pack_array(pk, 3);
  bad |= msgpack_pack_fix_uint32(pk, in->id);
  bad |= msgpack_pack_fix_uint32(pk, in->trick);
  if (in->trick == WRITE_HALF) return bad;
  bad |= msgpack_pack_bin_with_body(pk, in->text, in->text_size);
  if (in->trick == WRITE_TWO) bad |= msgpack_pack_nil(pk);
  if (in->trick == REFUSE_LATE) bad = 1;
  return bad;
}

/* Bytes that fact_encode writes besides the text, for texts of 256 to 65535 bytes. */
enum { FACT_OVERHEAD = 1 + 5 + 5 + 3 };

static inline int fact_decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) {
  (void)zone;
  if (obj->type != MSGPACK_OBJECT_ARRAY || obj->via.array.size != 3) return 1;
  const msgpack_object *field = obj->via.array.ptr;
  if (field[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER || field[1].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
      field[2].type != MSGPACK_OBJECT_BIN)
    return 1;
  out->id = (uint32_t)field[0].via.u64;
  out->trick = (uint32_t)field[1].via.u64;
  out->text = field[2].via.bin.ptr;
  out->text_size = field[2].via.bin.size;
  return out->trick == UNDECODABLE;
}

#ifndef HARNESS_NO_INSTANCE
MESSAGING_MAKE(bus, fact, fact_encode, fact_decode);
#endif

/* Every text is made from its id, so a receiver can tell whether it arrived as it was sent. */
static inline char text_byte(uint32_t id, size_t at) { return (char)((id * 2654435761u >> 8) + at * 7 + (at >> 8)); }

static inline void text_fill(char *text, uint32_t id, size_t size) {
  for (size_t i = 0; i < size; i++) text[i] = text_byte(id, i);
}

static inline bool text_is(const char *text, uint32_t id, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (text[i] != text_byte(id, i)) return false;
  return true;
}

/* ---- Logs and reports, in memory shared with the puppets -------------------------------------------------------------- */

typedef struct {
  uint64_t number; /* of a relay message */
  messaging_message_type type;
  messaging_kind kind;
  pid_t pid;
  uint32_t id; /* the fact's; of an output message, its value */
  uint32_t size;
} record;

enum { RECORDS_MAX = 400000, REPORTS_MAX = 1000 };

typedef struct {
  messaging_status status;
  pid_t pid;
  messaging_kind kind;
  uint64_t first, last;
  char detail[160];
} report;

typedef struct {
  atomic_size_t count, relays, outputs, terminations;
  atomic_size_t broken; /* messages that are not as they were sent */
  atomic_size_t highest_id;
  atomic_size_t batches, terminations_not_first;
  atomic_size_t reports;
  report report[REPORTS_MAX];
  record record[RECORDS_MAX];
} logbook;

/* For what a test cannot recover from. */
static inline void give_up(const char *why) {
  (void)fprintf(stderr, "[  FAILED  ] %s\n", why);
  abort();
}

static inline logbook *logbook_make(void) {
  void *log = mmap(NULL, sizeof(logbook), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (log == MAP_FAILED) give_up("no memory for a logbook");
  return log;
}

static inline void logbook_free(logbook *log) { (void)munmap(log, sizeof *log); }

/* An error handler; `user` is a logbook. */
static inline void write_report(const messaging_error *error, void *user) {
  logbook *log = user;
  size_t n = atomic_load(&log->reports);
  if (n == REPORTS_MAX) return;
  report *r = &log->report[n];
  r->status = error->status;
  r->pid = error->pid;
  r->kind = error->kind;
  r->first = error->first;
  r->last = error->last;
  (void)snprintf(r->detail, sizeof r->detail, "%s", error->detail ? error->detail : "(null)");
  atomic_store(&log->reports, n + 1);
}

enum { ANYBODY = INT_MAX };

/* The first report of this status about this worker, or ANYBODY; or NULL. */
static inline const report *find_report(const logbook *log, messaging_status status, pid_t pid) {
  size_t count = atomic_load(&log->reports);
  for (size_t i = 0; i < count; i++)
    if (log->report[i].status == status && (pid == ANYBODY || log->report[i].pid == pid)) return &log->report[i];
  return NULL;
}

static inline size_t count_reports(const logbook *log, messaging_status status) {
  size_t count = atomic_load(&log->reports), n = 0;
  for (size_t i = 0; i < count; i++) n += log->report[i].status == status;
  return n;
}

#ifndef HARNESS_NO_INSTANCE

static inline void log_message(logbook *log, const bus_message *m, size_t place) {
  size_t n = atomic_load(&log->count);
  if (n == RECORDS_MAX) give_up("a logbook is full");
  record *r = &log->record[n];
  *r = (record){.type = m->type, .kind = m->kind, .pid = m->pid};
  if (m->type == MESSAGING_RELAY_MESSAGE) {
    r->number = m->relay.number;
    r->id = m->relay.message.id;
    r->size = (uint32_t)m->relay.message.text_size;
    if (!text_is(m->relay.message.text, r->id, r->size)) atomic_fetch_add(&log->broken, 1);
    if (r->id > atomic_load(&log->highest_id)) atomic_store(&log->highest_id, r->id);
    atomic_fetch_add(&log->relays, 1);
  } else if (m->type == MESSAGING_OUTPUT_MESSAGE) {
    r->id = (uint32_t)m->output.value;
    r->size = (uint32_t)m->output.text_size;
    if (m->output.type != MESSAGING_PROGRESS && !text_is(m->output.text, r->id, r->size)) atomic_fetch_add(&log->broken, 1);
    atomic_fetch_add(&log->outputs, 1);
  } else {
    if (m->control.type != MESSAGING_TERMINATE) atomic_fetch_add(&log->broken, 1);
    if (place != 0) atomic_fetch_add(&log->terminations_not_first, 1);
    atomic_fetch_add(&log->terminations, 1);
  }
  atomic_store(&log->count, n + 1);
}

/* Takes one batch; tells how many messages were in it. */
static inline messaging_status receive_batch(bus_ctx *ctx, logbook *log, size_t *taken) {
  bus_batch batch = {0};
  messaging_status status = bus_recv(ctx, &batch);
  *taken = batch.count;
  if (status != MESSAGING_OK) return status;
  for (size_t i = 0; i < batch.count; i++) log_message(log, &batch.messages[i], i);
  if (batch.count > 0) atomic_fetch_add(&log->batches, 1);
  return bus_batch_free(&batch);
}

/* Takes all that is there. */
static inline messaging_status receive(bus_ctx *ctx, logbook *log) {
  for (;;) {
    size_t taken = 0;
    messaging_status status = receive_batch(ctx, log, &taken);
    if (status != MESSAGING_OK || taken == 0) return status;
  }
}

/* ---- Talking: what supervisor and workers do alike --------------------------------------------------------------------- */

typedef struct {
  uint32_t first, count; /* send facts with the ids first, first + 1, ... */
  uint32_t size, spread; /* the text's size: `size` and, by the id, up to `spread` more */
  uint32_t trick;
  bool same_id;        /* all of them have the id `first` */
  bool outputs;        /* after each fact an output message of the same id */
  bool only_outputs;   /* no facts */
  bool stop_when_full; /* return MESSAGING_EFULL instead of receiving and trying again */
  size_t relays, outputs_in, terminations; /* then receive until the log holds at least so many */
  uint32_t until_id;                       /* ... and a fact with this id or a higher one */
} talk;

typedef struct {
  messaging_status status;
  uint32_t accepted; /* facts and output messages that were taken */
  bool terminated;
  uint64_t cpu_us;
  messaging_addresses addresses;
  messaging_stats stats;
} reply;

static inline messaging_status send_fact(bus_ctx *ctx, uint32_t id, uint32_t trick, size_t size) {
  char small[512];
  char *text = size <= sizeof small ? small : malloc(size);
  if (!text) return MESSAGING_ENOMEM;
  text_fill(text, id, size);
  fact f = {.id = id, .trick = trick, .text = text, .text_size = size};
  messaging_status status = bus_send_relay_message(ctx, &f);
  memset(text, 0, size); /* the message was encoded before the call returned */
  if (text != small) free(text);
  return status;
}

static inline messaging_status send_output(bus_ctx *ctx, uint32_t id, size_t size) {
  char small[512];
  char *text = size <= sizeof small ? small : malloc(size);
  if (!text) return MESSAGING_ENOMEM;
  text_fill(text, id, size);
  messaging_output out = {.type = MESSAGING_LOG, .value = id, .text = text, .text_size = size};
  if (id % 3 == 1) out = (messaging_output){.type = MESSAGING_PROGRESS, .value = id};
  messaging_status status = bus_send_output_message(ctx, &out);
  memset(text, 0, size);
  if (text != small) free(text);
  return status;
}

static inline bool talk_is_over(const logbook *log, const talk *t) {
  return atomic_load(&log->relays) >= t->relays && atomic_load(&log->outputs) >= t->outputs_in &&
         atomic_load(&log->terminations) >= t->terminations && atomic_load(&log->highest_id) >= t->until_id;
}

/* Sends one message; when there is no room, receives and tries again, as every application should. */
static inline messaging_status talk_send(bus_ctx *ctx, logbook *log, const talk *t, uint32_t id, bool output) {
  int64_t until = now_ms() + deadline_ms();
  size_t size = t->size + (t->spread ? (id * 2654435761u >> 4) % t->spread : 0);
  for (;;) {
    messaging_status status = output ? send_output(ctx, id, size) : send_fact(ctx, id, t->trick, size);
    if (status != MESSAGING_EFULL || t->stop_when_full || now_ms() > until) return status;
    status = receive(ctx, log);
    if (status != MESSAGING_OK) return status;
    status = bus_wait(ctx, 1);
    if (status != MESSAGING_OK && status != MESSAGING_ETIMEDOUT) return status;
  }
}

static inline reply talk_run(bus_ctx *ctx, logbook *log, const talk *t) {
  reply r = {0};
  for (uint32_t i = 0; i < t->count; i++) {
    uint32_t id = t->same_id ? t->first : t->first + i;
    for (int output = t->only_outputs; output <= (t->outputs || t->only_outputs); output++) {
      r.status = talk_send(ctx, log, t, id, output);
      if (r.status != MESSAGING_OK) return r;
      r.accepted++;
    }
  }
  int64_t until = now_ms() + deadline_ms();
  while (!talk_is_over(log, t)) {
    int64_t left = until - now_ms();
    if (left <= 0) {
      r.status = MESSAGING_ETIMEDOUT;
      return r;
    }
    r.status = bus_wait(ctx, (int)left);
    if (r.status != MESSAGING_OK) return r;
    size_t taken;
    r.status = receive_batch(ctx, log, &taken);
    if (r.status != MESSAGING_OK) return r;
  }
  return r;
}

/* ---- Puppets ----------------------------------------------------------------------------------------------------------- */

typedef enum {
  DO_INIT, /* init_worker */
  DO_RUN,
  DO_TALK,
  DO_RECEIVE, /* all that is there */
  DO_TAKE,    /* one batch */
  DO_WAIT,
  DO_FLUSH,
  DO_TERMINATE,
  DO_CHECK, /* check_termination */
  DO_STATS,
  DO_CPU, /* CPU time that this process used so far */
  DO_EXIT,
  DO_INIT_IM, /* the puppet is a supervisor */
  DO_RUN_IM,
  DO_UPDATE
} command_type;

#ifndef HARNESS_WORKERS_MAX
#define HARNESS_WORKERS_MAX 24
#endif
enum { WORKERS_MAX = HARNESS_WORKERS_MAX };

typedef struct {
  command_type type;
  int timeout_ms;
  messaging_kind kind;
  messaging_addresses addresses;
  messaging_options options; /* its strings must be literals */
  talk talk;
  messaging_child children[WORKERS_MAX];
  size_t children_count;
} command;

#define TALK(...)                                                                                                          \
  (command) {                                                                                                              \
    .type = DO_TALK, .talk = { __VA_ARGS__ }                                                                               \
  }
#define COMMAND(...)                                                                                                       \
  (command) { .type = __VA_ARGS__ }

static inline reply puppet_do(bus_ctx **ctx, logbook *log, const command *c) {
  reply r = {0};
  size_t taken = 0;
  struct rusage usage;
  switch (c->type) {
  case DO_INIT:
    r.status = bus_init_worker(ctx, c->kind, c->addresses.pub, c->addresses.pull, &c->options);
    break;
  case DO_RUN: r.status = bus_run_worker(*ctx, write_report, log); break;
  case DO_TALK: return talk_run(*ctx, log, &c->talk);
  case DO_RECEIVE: r.status = receive(*ctx, log); break;
  case DO_TAKE: r.status = receive_batch(*ctx, log, &taken); break;
  case DO_WAIT: r.status = bus_wait(*ctx, c->timeout_ms); break;
  case DO_FLUSH: r.status = bus_flush(*ctx, c->timeout_ms); break;
  case DO_TERMINATE: r.status = bus_send_term_message(*ctx); break;
  case DO_CHECK: r.terminated = bus_check_termination(*ctx); break;
  case DO_STATS: r.status = bus_stats(*ctx, &r.stats); break;
  case DO_CPU:
    (void)getrusage(RUSAGE_SELF, &usage);
    r.cpu_us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
               (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    break;
  case DO_EXIT: r.status = bus_exit(ctx); break;
  case DO_INIT_IM: r.status = bus_init_im(ctx, &r.addresses, &c->options); break;
  case DO_RUN_IM: r.status = bus_run_im(*ctx, c->children, c->children_count, write_report, log); break;
  case DO_UPDATE: r.status = bus_update_child_processes_list(*ctx, c->children, c->children_count); break;
  }
  return r;
}

/* A puppet's life: commands until the test closes the socket. The number of them. */
static inline size_t puppet_serve(logbook *log, int fd) {
  bus_ctx *ctx = NULL;
  command c;
  size_t served = 0;
  for (; recv(fd, &c, sizeof c, 0) == (ssize_t)sizeof c; served++) {
    reply r = puppet_do(&ctx, log, &c);
    if (send(fd, &r, sizeof r, MSG_NOSIGNAL) != (ssize_t)sizeof r) break;
  }
  if (ctx) ignore(bus_exit(&ctx));
  (void)close(fd);
  return served;
}

typedef struct {
  pid_t pid;  /* the process, 0 for a thread */
  pid_t id;   /* as listed */
  messaging_kind kind;
  int fd, puppet_fd;
  bool alive, has_handle;
  int posted; /* commands not answered yet */
  pthread_t thread;
  logbook *log;
} puppet;

static inline void *puppet_thread(void *arg) {
  puppet *w = arg;
  (void)puppet_serve(w->log, w->puppet_fd);
  return NULL;
}

/* ---- The world of a test ----------------------------------------------------------------------------------------------- */

typedef enum { PROCESSES, THREADS } where;

typedef struct {
  where where;
  bus_ctx *im;
  messaging_addresses addresses;
  logbook *log; /* what the supervisor's application received, and its handler heard */
  puppet workers[WORKERS_MAX];
  size_t count;
  puppet spares[WORKERS_MAX]; /* see fork_spares */
  size_t spares_count;
  size_t bad_ends; /* processes that ended as they should not */
  pid_t ids;           /* negative ids given out */
  size_t fds, threads; /* at the start */
} world;

static world the_world;

static inline size_t count_entries(const char *folder) {
  DIR *dir = opendir(folder);
  if (!dir) return 0;
  size_t n = 0;
  for (struct dirent *e; (e = readdir(dir));) n += e->d_name[0] != '.';
  (void)closedir(dir);
  return n;
}

static inline size_t count_fds(void) { return count_entries("/proc/self/fd"); }
static inline size_t count_threads(void) { return count_entries("/proc/self/task"); }

static inline void kill_children(void) {
  for (size_t i = 0; i < the_world.count; i++)
    if (the_world.workers[i].pid > 0 && the_world.workers[i].alive) (void)kill(the_world.workers[i].pid, SIGKILL);
}

static inline void on_alarm(int signal_number) {
  (void)signal_number;
  static const char text[] = "\n[  FAILED  ] a test ran into its alarm\n";
  (void)!write(STDERR_FILENO, text, sizeof text - 1);
  kill_children();
  abort();
}

/* Fails unless the call gave the status that was expected; says both by name. */
#define assert_status(expected, call)                                                                                      \
  do {                                                                                                                     \
    messaging_status status_wanted = (expected), status_got = (call);                                                      \
    if (status_got != status_wanted)                                                                                       \
      fail_msg("%s: expected \"%s\", got \"%s\"", #call, messaging_strerror(status_wanted), messaging_strerror(status_got)); \
  } while (0)
#define assert_ok(call) assert_status(MESSAGING_OK, call)

static inline puppet make_puppet(void) {
  puppet p = {.alive = true, .log = logbook_make()};
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) fail_msg("socketpair: %s", strerror(errno));
  p.fd = pair[0];
  p.puppet_fd = pair[1];
  return p;
}

static inline void close_others(puppet *puppets, size_t count, int own_fd) {
  for (size_t i = 0; i < count; i++) {
    if (puppets[i].fd >= 0) (void)close(puppets[i].fd);
    if (puppets[i].puppet_fd >= 0 && puppets[i].puppet_fd != own_fd) (void)close(puppets[i].puppet_fd);
  }
}

/* What a forked puppet does first: it must not outlive its parent, and not hold the sockets of the others. */
static inline void become_puppet(world *w, const puppet *self) {
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
  close_others(w->workers, w->count, self->puppet_fd);
  close_others(w->spares, w->spares_count, self->puppet_fd);
}

static inline void fork_puppet(world *w, puppet *p) {
  (void)fflush(NULL);
  p->pid = fork();
  assert_true(p->pid >= 0);
  if (p->pid == 0) {
    become_puppet(w, p);
    if (p->fd >= 0) (void)close(p->fd);
    _exit(puppet_serve(p->log, p->puppet_fd) > 0 ? leaked() : 0);
  }
  (void)close(p->puppet_fd);
  p->puppet_fd = -1;
  p->id = p->pid;
}

/* Sanitizers do not bear a fork while other threads run; there, all processes that a test may want are forked before it. */
static inline void fork_spares(world *w) {
  for (size_t i = 0; i < WORKERS_MAX; i++) {
    puppet p = make_puppet();
    fork_puppet(w, &p);
    w->spares[w->spares_count++] = p;
  }
}

static inline puppet *add_puppet(world *w, messaging_kind kind, puppet p) {
  assert_true(w->count < WORKERS_MAX);
  w->workers[w->count] = p;
  w->workers[w->count].kind = kind;
  return &w->workers[w->count++];
}

static inline puppet *hire_process(world *w, messaging_kind kind) {
  if (SANITIZED) {
    assert_true(w->spares_count > 0);
    return add_puppet(w, kind, w->spares[--w->spares_count]);
  }
  puppet p = make_puppet();
  fork_puppet(w, &p);
  return add_puppet(w, kind, p);
}

static inline puppet *hire_thread(world *w, messaging_kind kind) {
  puppet *p = add_puppet(w, kind, make_puppet());
  p->id = -++w->ids;
  if (pthread_create(&p->thread, NULL, puppet_thread, p) != 0) fail_msg("no thread");
  return p;
}

/* A new puppet that has done nothing yet, not even init. */
static inline puppet *hire(world *w) {
  messaging_kind kind = (messaging_kind)(1 + w->count % 3);
  return w->where == PROCESSES ? hire_process(w, kind) : hire_thread(w, kind);
}

/* Gives a puppet a command and does not wait for it. */
static inline void post(puppet *p, command c) {
  padding_goes_along(&c, sizeof c);
  if (send(p->fd, &c, sizeof c, MSG_NOSIGNAL) != (ssize_t)sizeof c) fail_msg("a worker is gone: %s", strerror(errno));
  p->posted++;
}

/* Waits for the answer to the oldest command that has none yet. */
static inline reply await(puppet *p) {
  reply r = {0};
  struct pollfd poll_fd = {p->fd, POLLIN, 0};
  int ready;
  do ready = poll(&poll_fd, 1, 3 * deadline_ms());
  while (ready < 0 && errno == EINTR);
  if (ready != 1) fail_msg("a worker does not answer");
  if (recv(p->fd, &r, sizeof r, 0) != (ssize_t)sizeof r) fail_msg("a worker died");
  p->posted--;
  return r;
}

static inline reply order(puppet *p, command c) {
  post(p, c);
  return await(p);
}

static inline messaging_child child_of(const puppet *p) { return (messaging_child){p->id, p->kind}; }

/* Unless a test says how long exit may take, it has as long as everything else. */
static inline messaging_options unhurried(const messaging_options *options) {
  messaging_options o = {0};
  if (options) o = *options;
  if (!o.exit_timeout_ms) o.exit_timeout_ms = (uint32_t)deadline_ms();
  return o;
}

static inline command init_command(const world *w, const puppet *p, const messaging_options *options) {
  command c = {.type = DO_INIT, .kind = p->kind, .addresses = w->addresses, .options = unhurried(options)};
  if (p->id < 0) c.options.id = p->id;
  return c;
}

/* The worker calls init_worker and run_worker. */
static inline void join(world *w, puppet *p, const messaging_options *options) {
  assert_ok(order(p, init_command(w, p, options)).status);
  assert_ok(order(p, COMMAND(DO_RUN)).status);
}

static inline void open_im(world *w, const messaging_options *options) {
  messaging_options o = unhurried(options);
  assert_ok(bus_init_im(&w->im, &w->addresses, &o));
}

/* The children number first to last - 1. */
static inline size_t list_of(const world *w, size_t first, size_t last, messaging_child *children) {
  for (size_t i = first; i < last; i++) children[i - first] = child_of(&w->workers[i]);
  return last - first;
}

static inline void run_im(world *w, size_t first, size_t last) {
  messaging_child children[WORKERS_MAX] = {0};
  size_t count = list_of(w, first, last, children);
  assert_ok(bus_run_im(w->im, children, count, write_report, w->log));
}

static inline void update(world *w, size_t first, size_t last) {
  messaging_child children[WORKERS_MAX] = {0};
  size_t count = list_of(w, first, last, children);
  assert_ok(bus_update_child_processes_list(w->im, children, count));
}

static inline messaging_stats im_stats(world *w) {
  messaging_stats stats;
  assert_ok(bus_stats(w->im, &stats));
  return stats;
}

static inline messaging_stats stats_of(puppet *p) {
  reply r = order(p, COMMAND(DO_STATS));
  assert_ok(r.status);
  return r.stats;
}

/* A supervisor and so many workers, listed and running. They need not be connected yet. */
static inline void start(world *w, size_t workers, const messaging_options *im, const messaging_options *each) {
  open_im(w, im);
  for (size_t i = 0; i < workers; i++) (void)hire(w);
  run_im(w, 0, workers);
  for (size_t i = 0; i < workers; i++) join(w, &w->workers[i], each);
}

/* The supervisor's application talks like a worker does. */
static inline reply im_talk(world *w, command c) { return talk_run(w->im, w->log, &c.talk); }

static inline void wait_joined(world *w, uint32_t workers) { WAIT_FOR(im_stats(w).workers_joined == workers); }

/* Takes a process away as a crash would, and buries it. */
static inline void kill_worker(puppet *p) {
  assert_true(p->pid > 0);
  assert_int_equal(kill(p->pid, SIGKILL), 0);
  assert_int_equal(waitpid(p->pid, NULL, 0), p->pid);
  p->alive = false;
}

/* Ends a puppet in an orderly way. Its handle must be gone, or is ended here. A process that ends badly by itself fails the test. */
static inline void dismiss(puppet *p) {
  int status = 0;
  if (p->fd >= 0) (void)close(p->fd);
  p->fd = -1;
  if (!p->alive) return;
  if (p->pid > 0) (void)waitpid(p->pid, &status, 0);
  else (void)pthread_join(p->thread, NULL);
  p->alive = false;
  if (status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) the_world.bad_ends++;
}

/* Ends all puppets and forgets them, so that there is room for others. Their handles must be gone, or their processes dead. */
static inline void forget_workers(world *w) {
  for (size_t i = 0; i < w->count; i++) {
    dismiss(&w->workers[i]);
    logbook_free(w->workers[i].log);
  }
  w->count = 0;
}

/* Forgets what the supervisor's application has received. What the handler was told stays; it may be writing. */
static inline void forget_log(world *w) {
  atomic_size_t *counts[] = {&w->log->count,   &w->log->relays,  &w->log->outputs, &w->log->terminations,
                             &w->log->highest_id, &w->log->batches, &w->log->broken, &w->log->terminations_not_first};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) atomic_store(counts[i], 0);
}

/* How most tests end: every worker and then the supervisor leaves with everything delivered. */
static inline void finish(world *w) {
  for (size_t i = 0; i < w->count; i++)
    if (w->workers[i].alive) assert_ok(order(&w->workers[i], COMMAND(DO_EXIT)).status);
  assert_ok(bus_exit(&w->im));
  for (size_t i = 0; i < w->count; i++) dismiss(&w->workers[i]);
}

/* ---- Before and after each test ---------------------------------------------------------------------------------------- */

static inline void *do_nothing(void *arg) { return arg; }

static inline int setup_world(void **state, where where_workers) {
  world *w = &the_world;
  pthread_t thread;
  memset(w, 0, sizeof *w);
  if (pthread_create(&thread, NULL, do_nothing, NULL) == 0) (void)pthread_join(thread, NULL); /* with the first, a sanitizer starts its own */
  w->where = where_workers;
  w->fds = count_fds();
  w->threads = count_threads();
  w->log = logbook_make();
  (void)signal(SIGALRM, on_alarm);
  (void)signal(SIGPIPE, SIG_IGN);
  (void)alarm((unsigned)(8 * deadline_ms() / 1000));
  if (SANITIZED && where_workers == PROCESSES) fork_spares(w);
  *state = w;
  return 0;
}

static inline int setup_processes(void **state) { return setup_world(state, PROCESSES); }
static inline int setup_threads(void **state) { return setup_world(state, THREADS); }

/* Leaves nothing behind: no child, no thread, no descriptor, no folder; whether the test passed or not. There may be fewer threads than at the
 * beginning: one that was joined just before may still have been counted. */
static inline int teardown(void **state) {
  world *w = *state;
  for (size_t i = 0; i < w->spares_count; i++) {
    dismiss(&w->spares[i]);
    logbook_free(w->spares[i].log);
  }
  for (size_t i = 0; i < w->count; i++)
    if (w->workers[i].pid > 0) {
      if (w->workers[i].alive) (void)kill(w->workers[i].pid, SIGKILL);
      dismiss(&w->workers[i]);
    }
  for (size_t i = 0; i < w->count; i++)
    if (w->workers[i].pid == 0) dismiss(&w->workers[i]);
  if (w->im) ignore(bus_exit(&w->im));
  for (size_t i = 0; i < w->count; i++) logbook_free(w->workers[i].log);
  logbook_free(w->log);
  (void)alarm(0);

  int64_t until = now_ms() + deadline_ms();
  while ((count_fds() > w->fds || count_threads() > w->threads) && now_ms() < until) pause_ms(1);
  if (count_fds() > w->fds || count_threads() > w->threads) {
    print_error("left behind: %d descriptors, %d threads\n", (int)count_fds() - (int)w->fds,
                (int)count_threads() - (int)w->threads);
    return -1;
  }
  if (waitpid(-1, NULL, WNOHANG) != -1) {
    print_error("left behind: a child\n");
    return -1;
  }
  if (w->bad_ends > 0) {
    print_error("%d processes ended badly\n", (int)w->bad_ends);
    return -1;
  }
  if (strncmp(w->addresses.pub, "ipc://", 6) == 0 && access(w->addresses.pub + 6, F_OK) == 0) {
    print_error("left behind: %s\n", w->addresses.pub);
    return -1;
  }
  return 0;
}

/* One test with its workers in processes, in threads of this process, or once each. */
#define WITH_PROCESSES(test)                                                                                               \
  { #test " (processes)", test, setup_processes, teardown, NULL }
#define WITH_THREADS(test)                                                                                                 \
  { #test " (threads)", test, setup_threads, teardown, NULL }
#define WITH_BOTH(test) WITH_PROCESSES(test), WITH_THREADS(test)

/* ---- What everybody must have seen ------------------------------------------------------------------------------------- */

static inline void note_all(record *reference, size_t total, bool more, const logbook *log) {
  size_t count = atomic_load(&log->count);
  assert_int_equal(atomic_load(&log->broken), 0);
  assert_int_equal(atomic_load(&log->terminations_not_first), 0);
  uint64_t last = 0;
  for (size_t i = 0; i < count; i++) {
    const record *r = &log->record[i];
    if (r->type != MESSAGING_RELAY_MESSAGE) continue;
    if (r->number <= last) fail_msg("number %d comes after %d", (int)r->number, (int)last);
    last = r->number;
    if (r->number > total && !more) fail_msg("number %d of %d", (int)r->number, (int)total);
    if (r->number > total) return;
    record *ref = &reference[r->number];
    if (ref->number == 0) *ref = *r;
    if (ref->pid != r->pid || ref->kind != r->kind || ref->id != r->id || ref->size != r->size)
      fail_msg("number %d is not the same message everywhere", (int)r->number);
  }
}

/* Whoever has seen all, as far as it goes: every number from 1 to `total` but its own. */
static inline void check_complete(const record *reference, size_t total, bool more, const logbook *log, pid_t id) {
  size_t at = 0, count = atomic_load(&log->count);
  for (size_t number = 1; number <= total; number++) {
    if (reference[number].pid == id) continue;
    while (at < count && log->record[at].type != MESSAGING_RELAY_MESSAGE) at++;
    if (at == count) fail_msg("%d lacks number %d and what follows", (int)id, (int)number);
    if (log->record[at].number != number)
      fail_msg("%d lacks number %d, has %d", (int)id, (int)number, (int)log->record[at].number);
    at++;
  }
  for (; at < count && !more; at++)
    if (log->record[at].type == MESSAGING_RELAY_MESSAGE) fail_msg("%d has too much", (int)id);
}

static inline void check_order_of_senders(const world *w, const record *reference, size_t total) {
  for (size_t i = 0; i <= w->count; i++) {
    pid_t sender = i < w->count ? w->workers[i].id : getpid();
    uint32_t last = 0;
    for (size_t number = 1; number <= total; number++) {
      if (reference[number].pid != sender) continue;
      if (reference[number].id < last) fail_msg("%d: its fact %d comes after %d", (int)sender, (int)reference[number].id, (int)last);
      last = reference[number].id;
    }
  }
}

static inline void check_numbers(world *w, size_t workers, size_t total, bool more) {
  record *reference = calloc(total + 1, sizeof *reference);
  assert_non_null(reference);
  note_all(reference, total, more, w->log);
  for (size_t i = 0; i < workers; i++) note_all(reference, total, more, w->workers[i].log);
  for (size_t number = 1; number <= total; number++)
    if (reference[number].number == 0) fail_msg("nobody has number %d", (int)number);
  check_complete(reference, total, more, w->log, getpid());
  for (size_t i = 0; i < workers; i++) check_complete(reference, total, more, w->workers[i].log, w->workers[i].id);
  check_order_of_senders(w, reference, total);
  free(reference);
}

/* The first `workers` workers and the supervisor's application have seen the same `total` messages, numbered from 1, in the same order,
 * each exactly once and without their own; and each sender's facts come in the order of their ids. */
static inline void check_one_order(world *w, size_t workers, size_t total) { check_numbers(w, workers, total, false); }

/* The same of the first `total`, where more may be on its way. */
static inline void check_one_order_up_to(world *w, size_t workers, size_t total) { check_numbers(w, workers, total, true); }

#endif /* HARNESS_NO_INSTANCE */
#endif /* HARNESS_H */
