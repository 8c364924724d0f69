/*
 * faults.h - what the rows of the table share
 *
 * A row is one fault: a cmocka test that runs in a process of its own, so that nothing that a fault breaks reaches the next one. What the
 * row has to say goes into memory that it shares with the program that prints the table (faults.c).
 */
#ifndef FAULTS_H
#define FAULTS_H

#include "../harness.h"

enum verdict { UNTOLD, SKIPPED, LIBZMQ }; /* UNTOLD: ok, unless the test failed */

typedef struct {
  struct CMUnitTest test;
  const char *injected, *must;
  size_t argument;
  const void *data;
  size_t numbered_to; /* run with the arguments 1, 2, ... until one is not reached, at most to this one */
  bool quick;         /* is in `make test`, too */
} row;

#define ROW(function, ...)                                                                                                 \
  { .test = {#function, function, setup_processes, teardown, NULL}, __VA_ARGS__ }

typedef struct {
  char injected[200], must[120], happened[400];
  size_t argument;
  enum verdict verdict;
  atomic_bool reached;        /* the numbered point was there */
  atomic_bool goodbye_unheard; /* perhaps: exit took as long as it waits for the answer to its goodbye */
} story;

/* Of the row that runs. Defined in faults.c. */
extern const row *the_row;
extern story *the_story;

typedef struct {
  const char *title;
  const row *rows;
  size_t count;
} row_group;

extern const row_group kill_worker_group, kill_supervisor_group, restart_group, stop_group, proxy_group, inject_group, interrupt_group,
    files_group, descriptors_group, storm_group, idle_group, largest_group, crowd_group, fork_group, hasty_group;

#define GROUP(name, title_text, table) const row_group name = {title_text, table, sizeof table / sizeof table[0]}

__attribute__((format(printf, 1, 2))) static inline void injected(const char *format, ...) {
  va_list args;
  va_start(args, format);
  (void)vsnprintf(the_story->injected, sizeof the_story->injected, format, args);
  va_end(args);
}

__attribute__((format(printf, 1, 2))) static inline void happened(const char *format, ...) {
  va_list args;
  va_start(args, format);
  (void)vsnprintf(the_story->happened, sizeof the_story->happened, format, args);
  va_end(args);
}

/* In place of what the row's entry says. */
static inline void must(const char *what) { (void)snprintf(the_story->must, sizeof the_story->must, "%s", what); }

/* Adds to what happened. */
__attribute__((format(printf, 1, 2))) static inline void and_then(const char *format, ...) {
  size_t at = strlen(the_story->happened);
  va_list args;
  va_start(args, format);
  (void)vsnprintf(the_story->happened + at, sizeof the_story->happened - at, format, args);
  va_end(args);
}

/* The row cannot be played here. Return from it afterwards. */
static inline void skip_row(const char *why) {
  happened("%s", why);
  the_story->verdict = SKIPPED;
}

static inline const char *const *status_names(void) {
  static const char *const names[] = {"OK",      "EINVAL", "ENOMEM", "EBIND",    "ECONNECT", "EBADMSG",   "EKIND", "ENOTRUNNING", "EROLE", "EFORK",
                                      "EFULL",   "ETOOBIG", "EENCODE", "ETIMEDOUT", "ELOST",  "EAUTH",    "EVERSION", "EHISTORY", "ESYS"};
  return names;
}

static inline const char *status_name(messaging_status status) { return (unsigned)status <= MESSAGING_ESYS ? status_names()[status] : "no status"; }

/* ---- Exit ----------------------------------------------------------------------------------------------------------------- */

/* On two cores that are busy, time decides nothing. */
static const messaging_options patient = {.exit_timeout_ms = 60000};

/* Leaves, and notes whether the supervisor may not have heard the goodbye: then its ELOST is right, too. */
static inline messaging_status leave(bus_ctx **ctx) {
  enum { GOODBYE_MS = 500 };
  int64_t before = now_ms();
  messaging_status status = bus_exit(ctx);
  if (now_ms() - before >= GOODBYE_MS) atomic_store(&the_story->goodbye_unheard, true);
  return status;
}

/* ---- Workers with a script of their own ---------------------------------------------------------------------------------- */

typedef int script(const puppet *self, const command *cue);

/* Forks a process that waits for its cue (a command that brings the addresses, and whatever else) and then follows its script. Unlike other
 * puppets it takes no further commands; it may answer with tell. */
static inline puppet *cast(world *w, messaging_kind kind, script *play) {
  puppet p = make_puppet();
  (void)fflush(NULL);
  p.pid = fork();
  assert_true(p.pid >= 0);
  if (p.pid == 0) {
    command cue;
    become_puppet(w, &p);
    (void)close(p.fd);
    p.id = getpid();
    p.kind = kind;
    _exit(recv(p.puppet_fd, &cue, sizeof cue, 0) == (ssize_t)sizeof cue ? play(&p, &cue) : 0);
  }
  (void)close(p.puppet_fd);
  p.puppet_fd = -1;
  p.id = p.pid;
  return add_puppet(w, kind, p);
}

static inline void tell(const puppet *self, reply r) { (void)!send(self->puppet_fd, &r, sizeof r, MSG_NOSIGNAL); }

static inline void give_cue(const world *w, puppet *p) {
  command c = {.addresses = w->addresses};
  post(p, c);
}

/* Waits until a process has ended and buries it; what wait says. */
static inline int bury(puppet *p) {
  int status = -1;
  pid_t ended = 0;
  for (int64_t until = now_ms() + 3 * (int64_t)deadline_ms(); (ended = waitpid(p->pid, &status, WNOHANG)) == 0 && now_ms() < until;) pause_ms(1);
  if (ended != p->pid) fail_msg("a process hangs");
  p->alive = false;
  return status;
}

/* ---- What the rows count -------------------------------------------------------------------------------------------------- */

/* Numbers below this are facts of everyday; the supervisor's marks begin here. */
enum { MARKS = 1000000 };

static inline uint32_t count_relays_from(const logbook *log, pid_t id) {
  uint32_t count = 0;
  size_t end = atomic_load(&log->count);
  for (size_t i = 0; i < end; i++) count += log->record[i].pid == id && log->record[i].type == MESSAGING_RELAY_MESSAGE;
  return count;
}

/* The facts of one sender are 1, 2, 3, ... without a gap; how many. */
static inline uint32_t check_prefix(const logbook *log, pid_t id) {
  uint32_t expected = 1;
  size_t end = atomic_load(&log->count);
  for (size_t i = 0; i < end; i++) {
    const record *r = &log->record[i];
    if (r->pid != id || r->type != MESSAGING_RELAY_MESSAGE) continue;
    if (r->id != expected) fail_msg("of %d, fact %d comes where %d should", (int)id, (int)r->id, (int)expected);
    expected++;
  }
  return expected - 1;
}

/* The supervisor sends a mark, the first `workers` workers and the supervisor's application receive all up to it, and all have the same. */
static inline size_t check_up_to_a_mark(world *w, size_t workers) {
  static uint32_t marks;
  uint32_t id = MARKS + ++marks;
  uint64_t number = 0, others = 0;
  assert_ok(im_talk(w, TALK(.first = id, .count = 1)).status);
  for (size_t i = 0; i < workers; i++) {
    const logbook *log = w->workers[i].log;
    assert_ok(order(&w->workers[i], TALK(.until_id = id)).status);
    for (size_t k = log->count; k > 0 && number == 0; k--)
      if (log->record[k - 1].id == id && log->record[k - 1].pid == getpid()) number = log->record[k - 1].number;
  }
  assert_true(number > 0);
  messaging_stats stats = im_stats(w);
  others = number - stats.relays_sent; /* its own do not come back */
  assert_ok(im_talk(w, TALK(.relays = others)).status);
  check_one_order_up_to(w, workers, number);
  return number;
}

/* A field of /proc/PID/status, in kB or as a number; 0 where it is not there. RssAnon: resident memory of its own, without what is shared. */
static inline size_t process_field(pid_t pid, const char *name) {
  char path[64], line[256];
  size_t value = 0, length = strlen(name);
  (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  while (fgets(line, sizeof line, file))
    if (strncmp(line, name, length) == 0 && line[length] == ':') value = strtoul(line + length + 1, NULL, 10);
  (void)fclose(file);
  return value;
}

static inline const char *socket_path(const char *address) { return address + strlen("ipc://"); }

#endif /* FAULTS_H */
