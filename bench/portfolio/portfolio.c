/* portfolio.c - a SAT portfolio whose solvers share what they learn: a supervisor and its workers, each a CaDiCaL of its own. */
#include <ccadical.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../messaging.h"
#include "formula.h"

#define WORKERS_MAX 64
#define ROUND_CONFLICTS 2000 /* the first round; each is an eighth longer, since a new round restarts CaDiCaL's schedules */
#define REPORT_US 200000
#define STOP_US 5000000 /* who has not stopped by then is killed */

/* ---- what is shared: clauses that follow from the formula ---- */

typedef struct {
  size_t size;
  const int *literals;
} fact;

static int fact_encode(msgpack_packer *pk, const fact *in) {
  int failed = msgpack_pack_array(pk, in->size);
  for (size_t i = 0; i < in->size; i++) failed |= msgpack_pack_int(pk, in->literals[i]);
  return failed;
}

static int fact_decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) {
  if (obj->type != MSGPACK_OBJECT_ARRAY || !obj->via.array.size) return -1;
  int *literals = msgpack_zone_malloc(zone, obj->via.array.size * sizeof *literals);
  *out = (fact){obj->via.array.size, literals};
  for (size_t i = 0; literals && i < out->size; i++) literals[i] = (int)obj->via.array.ptr[i].via.i64;
  return literals ? 0 : -1;
}
MESSAGING_MAKE(bus, fact, fact_encode, fact_decode);

/* ---- a worker ---- */

static const struct {
  const char *name, *option;
  int value;
} strategies[] = {{"default", "seed", 0}, {"sat", "stabilizeonly", 1}, {"unsat", "stabilize", 0}, {"negative", "phase", 0}};
#define STRATEGY(number) strategies[(size_t)(number - 1) % (sizeof strategies / sizeof *strategies)]

typedef struct {
  bus_ctx *bus;
  CCaDiCaL *solver;
  void *watch;
  size_t share_size; /* of the longest clause that is shared */
  int64_t conflicts;
  size_t sent, taken;
  uint64_t reported_us;
} worker;

static void on_learned(void *state, int *clause) { /* called by CaDiCaL at every conflict */
  worker *w = state;
  size_t size = 0;
  while (clause[size]) size++;
  w->conflicts++;
  if (!size || size > w->share_size) return;
  if (!bus_send_relay_message(w->bus, &(fact){size, clause})) w->sent++; /* a full outbox costs a clause, no more */
}

static int on_tick(void *state) { /* called by CaDiCaL often; nonzero ends the round */
  worker *w = state;
  if (zmq_stopwatch_intermediate(w->watch) >= w->reported_us + REPORT_US) {
    w->reported_us = zmq_stopwatch_intermediate(w->watch);
    char text[96];
    const int size = snprintf(text, sizeof text, "%zu sent, %zu taken", w->sent, w->taken);
    (void)!bus_send_output_message(w->bus, &(messaging_output){MESSAGING_PROGRESS, w->conflicts, "", 0});
    (void)!bus_send_output_message(w->bus, &(messaging_output){MESSAGING_STAT, 0, text, (size_t)size});
  }
  return bus_check_termination(w->bus);
}

static void take(worker *w) { /* what the others learned: CaDiCaL takes clauses between two rounds only */
  for (bus_batch batch; !bus_recv(w->bus, &batch) && batch.count; (void)!bus_batch_free(&batch))
    for (size_t i = 0; i < batch.count; i++) {
      const fact *f = &batch.messages[i].relay.message;
      if (batch.messages[i].type != MESSAGING_RELAY_MESSAGE) continue;
      for (size_t k = 0; k < f->size; k++) ccadical_add(w->solver, f->literals[k]);
      ccadical_add(w->solver, 0);
      w->taken++;
    }
}

static int work(worker *w, int number, const formula *f, const messaging_addresses *at) {
  messaging_status status = bus_init_worker(&w->bus, (messaging_kind)number, at->pub, at->pull, NULL);
  if (!status) status = bus_run_worker(w->bus, NULL, NULL);
  if (status) return fprintf(stderr, "c worker %d: %s\n", number, messaging_strerror(status)), 1;
  w->solver = ccadical_init();
  ccadical_set_option(w->solver, "quiet", 1);
  ccadical_set_option(w->solver, "seed", number - 1);
  ccadical_set_option(w->solver, "restartint", 2 + (number - 1) / 4); /* so that no two workers are alike */
  ccadical_set_option(w->solver, STRATEGY(number).option, STRATEGY(number).value);
  ccadical_set_learn(w->solver, w, INT32_MAX, on_learned);
  ccadical_set_terminate(w->solver, w, on_tick);
  for (size_t i = 0; i < f->size; i++) ccadical_add(w->solver, f->literals[i]);
  int result = 0; /* 10: there is a model, 20: there is none, 0: it was told to stop */
  for (int limit = ROUND_CONFLICTS; !result && !bus_check_termination(w->bus); limit += limit / 8) {
    take(w);
    if (w->share_size) ccadical_limit(w->solver, "conflicts", limit);
    result = ccadical_solve(w->solver);
  }
  w->reported_us = 0 - (uint64_t)REPORT_US; /* the last report is due now */
  on_tick(w);
  const size_t size = result == 10 ? (size_t)f->variables : 0;
  char *model = malloc(size + 1); /* the last words: the result, and the model if there is one */
  for (size_t v = 0; model && v < size; v++) model[v] = ccadical_val(w->solver, (int)v + 1) > 0;
  status = bus_send_output_message(w->bus, &(messaging_output){MESSAGING_LOG, result, model, size});
  return status || bus_exit(&w->bus);
}

/* ---- the supervisor ---- */

typedef struct {
  pid_t pid;
  int64_t conflicts;
  char stat[96], end[96]; /* end: its last words, or how it died */
} seat;

typedef struct {
  bus_ctx *bus;
  formula formula;
  seat seats[WORKERS_MAX + 1]; /* by the workers' kinds, which are their numbers from 1 */
  int count, living, result;   /* result: 10 or 20 as CaDiCaL gives it; -1: a model is wrong, or two workers differ */
  size_t shared[4];            /* clauses of size 1, of size 2, longer */
  FILE *shared_file;
  void *watch;
  const char *line_end;
} portfolio;

/* Called on the bus's own thread: a death goes as a message from the supervisor to itself, so that the loop gets it. */
static void on_error(const messaging_error *error, void *user) {
  if (error->status != MESSAGING_ELOST) fprintf(stderr, "c %s: %s\n", messaging_strerror(error->status), error->detail);
  else (void)!bus_send_output_message(((portfolio *)user)->bus, &(messaging_output){MESSAGING_LOG, error->kind, "", 0});
}

static void hear_end(portfolio *p, seat *s, bool died, const messaging_output *o) {
  static const char *const ends[] = {"was told to stop", "found a model", "found that there is no model"};
  p->living--;
  if (died) {
    int status = 0;
    waitpid(s->pid, &status, 0);
    snprintf(s->end, sizeof s->end, "died: %s", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "it exited");
    printf("c worker %td %s; %d go on%s", s - p->seats, s->end, p->living, p->line_end);
    return;
  }
  const bool right = o->value != 10 || formula_check(&p->formula, o->text);
  snprintf(s->end, sizeof s->end, "%s", right ? ends[o->value / 10] : "is WRONG: its model does not satisfy the formula");
  if (!p->result && o->value) printf("c solved: worker %td %s%s", s - p->seats, s->end, p->line_end);
  if (o->value) p->result = !right || (p->result && p->result != o->value) ? -1 : (int)o->value;
}

static void hear(portfolio *p, const bus_message *m) {
  const messaging_output *o = &m->output;
  if (m->type == MESSAGING_RELAY_MESSAGE) {
    p->shared[m->relay.message.size < 3 ? m->relay.message.size : 3]++;
    if (p->shared_file && bus_print_message(p->shared_file, m) > 0) fputc('\n', p->shared_file);
  } else if (m->type == MESSAGING_OUTPUT_MESSAGE) {
    seat *s = &p->seats[m->kind == MESSAGING_SUPERVISOR ? o->value : m->kind];
    if (o->type == MESSAGING_PROGRESS) s->conflicts = o->value;
    if (o->type == MESSAGING_STAT) snprintf(s->stat, sizeof s->stat, "%.*s", (int)o->text_size, o->text);
    if (o->type == MESSAGING_LOG && !*s->end) hear_end(p, s, m->kind == MESSAGING_SUPERVISOR, o);
  }
}

static void show(const portfolio *p, bool last) { /* a line for each worker; on a terminal the next ones go over them */
  static unsigned long shown_us;
  if (!last && zmq_stopwatch_intermediate(p->watch) < shown_us + (p->line_end[1] ? 100000 : 2000000)) return;
  shown_us = zmq_stopwatch_intermediate(p->watch);
  for (int i = 1; i <= p->count; i++)
    printf("c worker %d (pid %d, %s): %" PRId64 " conflicts, %s%s%s%s", i, (int)p->seats[i].pid, STRATEGY(i).name,
           p->seats[i].conflicts, p->seats[i].stat, *p->seats[i].end ? "; it " : "", p->seats[i].end, p->line_end);
  if (!last && p->line_end[1]) printf("\033[%dA", p->count);
  fflush(stdout);
}

static void attend(portfolio *p, int signals) { /* until every worker has said its last words or is dead */
  unsigned long stopped_us = 0;
  messaging_status status = MESSAGING_OK;
  for (const char *why = NULL; p->living && !status; show(p, false)) {
    struct signalfd_siginfo info;
    struct pollfd fds[] = {{.fd = bus_fd(p->bus), .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    poll(fds, 2, 100);
    if (fds[1].revents && read(signals, &info, sizeof info) > 0) why = strsignal((int)info.ssi_signo);
    for (bus_batch batch; !(status = bus_recv(p->bus, &batch)) && batch.count; (void)!bus_batch_free(&batch))
      for (size_t i = 0; i < batch.count; i++) hear(p, &batch.messages[i]);
    if (!stopped_us && (why || p->result)) {
      if (why) printf("c stopping: %s%s", why, p->line_end);
      stopped_us = zmq_stopwatch_intermediate(p->watch);
      (void)!bus_send_term_message(p->bus);
    }
    for (int i = 1; stopped_us && zmq_stopwatch_intermediate(p->watch) > stopped_us + STOP_US && i <= p->count; i++)
      if (!*p->seats[i].end) kill(p->seats[i].pid, SIGKILL);
  }
  if (status) printf("c supervisor: %s%s", messaging_strerror(status), p->line_end); /* its end is the workers' end, too */
}

static int finish(portfolio *p) {
  struct tms used;
  int64_t conflicts = 0;
  const bool failed = bus_exit(&p->bus) || (p->shared_file && fclose(p->shared_file));
  while (wait(NULL) > 0) continue;
  times(&used);
  show(p, true);
  for (int i = 1; i <= p->count; i++) conflicts += p->seats[i].conflicts;
  printf("c shared: %zu units, %zu binary and %zu longer clauses\n", p->shared[1], p->shared[2], p->shared[3]);
  printf("c %.2f s, %.2f s of CPU time, %" PRId64 " conflicts\n", 1e-6 * (double)zmq_stopwatch_stop(p->watch),
         (double)(used.tms_cutime + used.tms_cstime) / (double)sysconf(_SC_CLK_TCK), conflicts);
  if (p->result == 10 && p->formula.bits) printf("c %" PRIu64 " * %" PRIu64 "\n", p->formula.numbers[0], p->formula.numbers[1]);
  printf("s %s\n", p->result == 10 ? "SATISFIABLE" : p->result == 20 ? "UNSATISFIABLE" : "UNKNOWN");
  return failed || p->result < 0 ? 1 : p->result;
}

int main(int argc, char **argv) {
  static portfolio p;
  worker w = {.share_size = 6, .watch = zmq_stopwatch_start()};
  p = (portfolio){.count = (int)sysconf(_SC_NPROCESSORS_ONLN), .watch = w.watch, .line_end = isatty(1) ? "\033[K\n" : "\n"};
  for (int o; (o = getopt(argc, argv, "n:s:o:")) != -1;)
    if (o == 'n') p.count = atoi(optarg);
    else if (o == 's') w.share_size = (size_t)atoi(optarg);
    else if (o == '?' || !(p.shared_file = fopen(optarg, "w"))) p.count = 0;
  if (p.count == 1) w.share_size = 0; /* nobody to share with */
  if (p.count < 1 || p.count > WORKERS_MAX || argc > optind + 1)
    return fputs("usage: portfolio [-n WORKERS] [-s LONGEST SHARED CLAUSE, 0: none] [-o FILE FOR WHAT IS SHARED]"
                 " [FILE.cnf | factor:BITS:SEED | prime:BITS:SEED]\n", stderr), 1;
  const char *name = argc > optind ? argv[optind] : "factor:20:1";
  if (!formula_make(&p.formula, name) && !formula_read(&p.formula, name)) return 1;
  printf("c %s: %d variables, %zu clauses, %d workers\n", name, p.formula.variables, p.formula.clauses, p.count);
  fflush(stdout);
  sigset_t set; /* blocked in the workers, too: a terminal sends Ctrl-C to all of them, and they stop when they are told */
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, NULL);
  messaging_addresses at;
  messaging_child children[WORKERS_MAX];
  messaging_status status = bus_init_im(&p.bus, &at, NULL);
  for (int i = 1; !status && i <= p.count; i++, p.living++) {
    if (!(p.seats[i].pid = fork())) _exit(work(&w, i, &p.formula, &at));
    if (p.seats[i].pid < 0) return perror("fork"), 1;
    children[i - 1] = (messaging_child){p.seats[i].pid, (messaging_kind)i};
  }
  if (!status) status = bus_run_im(p.bus, children, (size_t)p.count, on_error, &p);
  if (status) return fprintf(stderr, "c supervisor: %s\n", messaging_strerror(status)), 1;
  attend(&p, signalfd(-1, &set, SFD_CLOEXEC));
  return finish(&p);
}
