/* EINTR from every third of the library's own calls, one call after the other: the library is compiled here with macros in front of them. (From
 * below, by strace, libzmq's calls of the same name fail as well, and it aborts where the kernel never gives EINTR.) */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <msgpack.h>
#include <zmq.h>

enum call { NONE, READ, WRITE, POLL, EPOLL_WAIT, MSG_SEND, MSG_RECV, GET_EVENTS, BIND, CONNECT, CTX_TERM };

static const char *const call_names[] = {"nothing",      "read",         "write",                       "poll",     "epoll_wait", "zmq_msg_send",
                                         "zmq_msg_recv", "zmq_getsockopt(ZMQ_EVENTS)", "zmq_bind", "zmq_connect", "zmq_ctx_term"};

static enum call interrupted_call;
static atomic_uint *interruptions; /* of all processes of the row: those that were, and those that no signal could interrupt */
static atomic_uint calls;

static bool signals_are_blocked(void) {
  sigset_t blocked;
  if (pthread_sigmask(SIG_BLOCK, NULL, &blocked) != 0) return false;
  return sigismember(&blocked, SIGUSR1) && sigismember(&blocked, SIGALRM) && sigismember(&blocked, SIGINT);
}

/* Sockets are bound and connected with all signals blocked, or else with a second attempt. All other calls are ready for EINTR at any time. */
static bool interrupted(enum call call) {
  if (call != interrupted_call || atomic_fetch_add(&calls, 1) % 3 != 0) return false;
  bool blocked = (call == BIND || call == CONNECT) && signals_are_blocked();
  atomic_fetch_add(&interruptions[blocked], 1);
  if (blocked) return false;
  errno = EINTR;
  return true;
}

#define read(fd, bytes, size) (interrupted(READ) ? -1 : (read)(fd, bytes, size))
#define write(fd, bytes, size) (interrupted(WRITE) ? -1 : (write)(fd, bytes, size))
#define poll(entries, count, timeout) (interrupted(POLL) ? -1 : (poll)(entries, count, timeout))
#define epoll_wait(fd, events, count, timeout) (interrupted(EPOLL_WAIT) ? -1 : (epoll_wait)(fd, events, count, timeout))
#define zmq_msg_send(message, socket, flags) (interrupted(MSG_SEND) ? -1 : (zmq_msg_send)(message, socket, flags))
#define zmq_msg_recv(message, socket, flags) (interrupted(MSG_RECV) ? -1 : (zmq_msg_recv)(message, socket, flags))
#define zmq_getsockopt(socket, option, value, size) \
  ((option) == ZMQ_EVENTS && interrupted(GET_EVENTS) ? -1 : (zmq_getsockopt)(socket, option, value, size))
#define zmq_bind(socket, address) (interrupted(BIND) ? -1 : (zmq_bind)(socket, address))
#define zmq_connect(socket, address) (interrupted(CONNECT) ? -1 : (zmq_connect)(socket, address))
#define zmq_ctx_term(context) (interrupted(CTX_TERM) ? -1 : (zmq_ctx_term)(context))

#include "../../messaging.h"

#undef read
#undef write
#undef poll
#undef epoll_wait
#undef zmq_msg_send
#undef zmq_msg_recv
#undef zmq_getsockopt
#undef zmq_bind
#undef zmq_connect
#undef zmq_ctx_term

#include "faults.h"

static void calls_interrupted(void **state) {
  world *w = *state;
  enum { WORKERS = 2, EACH = 500, TOTAL = (WORKERS + 1) * EACH };
  interruptions = mmap(NULL, 2 * sizeof *interruptions, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(interruptions != MAP_FAILED);
  interrupted_call = (enum call)the_row->argument;
  if (SANITIZED && interrupted_call != NONE) { /* the spare processes are there already, and know nothing of it */
    for (size_t i = 0; i < w->spares_count; i++) dismiss(&w->spares[i]);
    w->spares_count = 0;
    fork_spares(w);
  }
  injected("EINTR from every third %s of the library", call_names[interrupted_call]);
  start(w, WORKERS, &patient, &patient);
  for (size_t i = 0; i < WORKERS; i++) post(&w->workers[i], TALK(.first = 1, .count = EACH, .size = 30, .outputs = true, .relays = WORKERS * EACH));
  assert_ok(im_talk(w, TALK(.first = 1, .count = EACH, .size = 30, .relays = WORKERS * EACH, .outputs_in = WORKERS * EACH)).status);
  for (size_t i = 0; i < WORKERS; i++) assert_ok(await(&w->workers[i]).status);
  assert_ok(bus_flush(w->im, deadline_ms()));
  check_one_order(w, WORKERS, TOTAL);
  finish(w);
  unsigned count = atomic_load(&interruptions[0]), blocked = atomic_load(&interruptions[1]);
  if (blocked) happened("%u interrupted, at %u no signal could; all %d relays once, exit OK", count, blocked, TOTAL);
  else happened("%u interrupted; all %d relays once, exit OK", count, TOTAL);
  assert_true(count + blocked > 0);
  (void)munmap(interruptions, 2 * sizeof *interruptions);
}

#define INTERRUPTED(call) ROW(calls_interrupted, .must = "no call fails by it; everything arrives, exit OK", .argument = call)

static const row interrupt_rows[] = {
    INTERRUPTED(READ),     INTERRUPTED(WRITE),      INTERRUPTED(POLL), INTERRUPTED(EPOLL_WAIT), INTERRUPTED(MSG_SEND),
    INTERRUPTED(MSG_RECV), INTERRUPTED(GET_EVENTS), INTERRUPTED(BIND), INTERRUPTED(CONNECT),    INTERRUPTED(CTX_TERM),
};

GROUP(interrupt_group, "5b. The library's own calls are interrupted", interrupt_rows);
