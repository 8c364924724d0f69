/*
 * messaging.h - a typed, reliable relay between a supervisor process and its workers
 *
 * A supervisor starts workers; each worker is an engine that finds facts which every other engine should have.
 * MESSAGING_MAKE stamps a messaging system for one type of such facts (the relay messages) into your translation unit:
 *
 *     #include "messaging.h"                // cc app.c $(pkg-config --cflags --libs libzmq msgpack) -pthread
 *
 *     typedef struct { uint32_t id; const char *text; size_t text_size; } fact;
 *     static int fact_encode(msgpack_packer *pk, const fact *in);
 *     static int fact_decode(const msgpack_object *obj, msgpack_zone *zone, fact *out);
 *     MESSAGING_MAKE(bus, fact, fact_encode, fact_decode);
 *
 * From then on bus_init_im, bus_send_relay_message, bus_recv, ... are functions of your program. What they promise, within one
 * generation (it begins with bus_run_im, or with an update of the list that no listed worker survives):
 *
 *   1. Every relay message that was accepted reaches every other listed process and the supervisor's own application exactly
 *      once, and all see the same order. Equal payloads are different messages; a sender does not get its own back.
 *   2. A worker that connects late, or is added later, gets the generation's whole history.
 *   3. The last message of a burst is as safe as any other; exit says whether everything was accepted. Output messages (log,
 *      statistics, progress) are as reliable as relay messages, and keep each sender's order with them.
 *   4. Termination passes every queue.
 *   5. Nobody waits for the slow: every queue is bounded, a full one is said at once (MESSAGING_EFULL), and nothing that was
 *      accepted is dropped.
 *   6. Death is noticed, on both sides.
 *   7. The default transport is reachable by the same user only, and no byte that a peer sends crashes or blocks anybody.
 *
 * Contents
 *   Requirements
 *   Version
 *   Configuration
 *   Status codes
 *   Options
 *   Message types
 *   Functions that need no instance
 *   The machine
 *   Reference of the stamped calls
 *   MESSAGING_MAKE
 *   Helpers end here
 */
#ifndef MESSAGING_H
#define MESSAGING_H

/* ==== Requirements ====================================================================================================
 *
 * Linux 5.3 or newer (pidfd), glibc 2.36 or newer, gcc or clang; C11, C17 or C++17, with or without GNU extensions (in strict C:
 * -D_POSIX_C_SOURCE=200809L). libzmq 4.3.3 or newer and msgpack-c 4.0 or newer, found by pkg-config as libzmq and msgpack-c
 * (msgpack-c 6) or msgpack (up to 5). Link with -pthread.
 */

#if !defined(__linux__) || !(defined(__GNUC__) || defined(__clang__))
#error "messaging.h needs Linux and gcc or clang"
#endif

#include <msgpack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <zmq.h>

#if !defined(_POSIX_C_SOURCE) || _POSIX_C_SOURCE < 200809L
#error "messaging.h needs POSIX 2008: compile with -std=gnu11, or add -D_POSIX_C_SOURCE=200809L"
#endif
#if ZMQ_VERSION < ZMQ_MAKE_VERSION(4, 3, 3)
#error "messaging.h needs libzmq 4.3.3 or newer"
#endif
#if MSGPACK_VERSION_MAJOR < 4
#error "messaging.h needs msgpack-c 4.0 or newer"
#endif

/* ==== Version ========================================================================================================= */

#define MESSAGING_VERSION_MAJOR 1
#define MESSAGING_VERSION_MINOR 0
#define MESSAGING_VERSION_PATCH 0
#define MESSAGING_VERSION_STRING "1.0.0"

/* Version of the wire: every frame carries it. Peers that speak another are refused with MESSAGING_EVERSION. */
#define MESSAGING_WIRE_VERSION 2

/* ==== Configuration ===================================================================================================
 *
 * Define these before including the header, alike in every translation unit that uses the same instance.
 */

/* Memory for what the library itself keeps (libzmq and msgpack-c use malloc; large histories and bursts lie in blocks of 2 MB and more, from
 * mmap). Failure is reported, never fatal. */
#ifndef MESSAGING_MALLOC
#define MESSAGING_MALLOC(size) malloc(size)
#define MESSAGING_REALLOC(pointer, size) realloc(pointer, size)
#define MESSAGING_FREE(pointer) free(pointer)
#endif

/* Longest address that init_im returns, its terminating zero included. */
#define MESSAGING_ADDRESS_SIZE 256

/* Size of a key string (see messaging_make_keys), its terminating zero included. */
#define MESSAGING_KEY_SIZE 81

/* ==== Status codes ====================================================================================================
 *
 * Every call that can fail returns one of these. What ended a handle is sticky: later calls return that first cause.
 */

#define MESSAGING__STATUS_MAP(X)                                                                                           \
  X(OK, "success")                                                                                                         \
  X(EINVAL, "an argument is out of range, or the call is not allowed here")                                                \
  X(ENOMEM, "out of memory; nothing was changed, try again")                                                               \
  X(EBIND, "the addresses cannot be bound")                                                                                \
  X(ECONNECT, "the address cannot be connected to")                                                                        \
  X(EBADMSG, "a frame or payload is malformed; it was skipped")                                                            \
  X(EKIND, "no such kind or worker, or the worker's kind differs from its listing")                                        \
  X(ENOTRUNNING, "run_im or run_worker was not called, or the handle has ended")                                           \
  X(EROLE, "the call belongs to the other role")                                                                           \
  X(EFORK, "the handle was inherited through fork; make one of your own")                                                  \
  X(EFULL, "a limit is reached and the message was not taken; receive, then try again")                                    \
  X(ETOOBIG, "the message is larger than message_bytes_max")                                                               \
  X(EENCODE, "the encoder refused, or did not write exactly one object")                                                   \
  X(ETIMEDOUT, "the time is over")                                                                                         \
  X(ELOST, "a peer died or fell silent")                                                                                   \
  X(EAUTH, "a peer was refused, or a tcp address has no keys (messaging_make_keys) and no plaintext_ok")                    \
  X(EVERSION, "a peer speaks another version of the wire")                                                                 \
  X(EHISTORY, "history was cut; the numbers say what is gone")                                                             \
  X(ESYS, "the system or libzmq failed, or libzmq has no CURVE for the keys")

#define MESSAGING__STATUS_ENUM(name, text) MESSAGING_##name,
typedef enum { MESSAGING__STATUS_MAP(MESSAGING__STATUS_ENUM) MESSAGING__STATUS_COUNT } messaging_status;

/* ==== Options ========================================================================================================= */

/* Sees one line of text, valid during the call, for each frame. Called under the handle's lock: it must be quick and make no messaging calls. */
typedef void messaging_trace_fn(const char *line, void *user);

/* All zero, or a NULL pointer, is every default. Times are in milliseconds, sizes in bytes. init_* copies what it needs. */
typedef struct {
  /* Supervisor. NULL or "ipc": unix sockets in a private folder (0700) of their own under $TMPDIR or /tmp. "ipc:///folder": the
   * private folder is made in that folder. "tcp://host:port": publishes on port and pulls on port + 1; "tcp://host:*" picks both.
   * host: an address of this host, an interface (its address is returned), or a name (it is looked up, and returned). No wildcard. */
  const char *bind;

  /* Worker: its identity where a pid does not tell (several workers in one process, other hosts): a negative number that the
   * supervisor lists as the child's pid. 0: the pid of this process. */
  pid_t id;

  uint32_t heartbeat_ms;    /* 1000; 10 to 60000: at least one frame goes each way in this time */
  uint32_t silence_ms;      /* 60000; at least 3 heartbeats, and 3 of the peer's: without a pidfd it counts as lost after this, until it is heard again */
  uint32_t exit_timeout_ms; /* 5000: the longest that exit waits for acknowledgements */
  uint32_t send_timeout_ms; /* 0: sends never block. Else the longest that a send waits for room before MESSAGING_EFULL */

  size_t message_bytes_max; /* 16 MiB, at most 1 GiB (32 bits: 64 MiB): the largest encoded message; alike in all processes of a system */
  size_t outbox_bytes_max;  /* 64 MiB: sent here, not yet accepted by the supervisor. Each queue: at least twice the message */
  size_t inbox_bytes_max;   /* 64 MiB: delivered here, not yet received by the application */
  size_t history_bytes_max; /* 256 MiB, supervisor: the generation's relay messages; from 32 MiB on a block of up to a sixteenth comes on top */

  /* Supervisor: what to do when the history is full and somebody still needs its oldest part. false: new relay messages are
   * refused (MESSAGING_EFULL) until the slowest has caught up or is gone. true: the slow are fenced; they are told
   * MESSAGING_EHISTORY with the numbers that they miss, and go on behind them. */
  bool fence_slow;

  /* tcp only. Supervisor: the secret, worker: the credential, both from messaging_make_keys; "env:NAME" and "file:PATH" name a place
   * to read it from. Without keys a tcp address is refused (MESSAGING_EAUTH) unless plaintext_ok says that anybody on the network
   * may read, send and forge everything. */
  const char *secret;
  const char *credential;
  bool plaintext_ok;

  /* Sees every frame that is sent or received; NULL: off, at no cost. Whoever cannot recompile sets MESSAGING_TRACE=file in the
   * environment, to which every process that it reaches appends the same lines. */
  messaging_trace_fn *trace;
  void *trace_user;
} messaging_options;

/* ==== Message types =================================================================================================== */

/* Which module a process runs. MESSAGING_SUPERVISOR is the supervisor's, every other number is yours. */
typedef uint32_t messaging_kind;
#define MESSAGING_SUPERVISOR ((messaging_kind)0)

/* A worker as the supervisor lists it: its pid (positive) or the id that it was given in its options (negative). */
typedef struct {
  pid_t pid;
  messaging_kind kind;
} messaging_child;

/* What workers connect to: two strings that may be passed on in any way. */
typedef struct {
  char pub[MESSAGING_ADDRESS_SIZE];
  char pull[MESSAGING_ADDRESS_SIZE];
} messaging_addresses;

typedef enum { MESSAGING_LOG, MESSAGING_STAT, MESSAGING_PROGRESS } messaging_output_type;

/* A message to the supervisor, for the user. */
typedef struct {
  messaging_output_type type;
  int64_t value;    /* LOG: level; PROGRESS: the progress; STAT: unused */
  const char *text; /* LOG, STAT: any bytes, not necessarily terminated; in a received message they live as long as its batch */
  size_t text_size;
} messaging_output;

typedef enum { MESSAGING_READY, MESSAGING_PING, MESSAGING_TERMINATE, MESSAGING_RESEND } messaging_control_type;

/* A message of the messaging system itself. Applications see MESSAGING_TERMINATE alone. */
typedef struct {
  messaging_control_type type;
  uint64_t number; /* RESEND: from this number on */
} messaging_control;

typedef enum { MESSAGING_OUTPUT_MESSAGE, MESSAGING_CONTROL_MESSAGE, MESSAGING_RELAY_MESSAGE } messaging_message_type;

/* Why the error handler was called. */
typedef struct {
  messaging_status status;
  pid_t pid; /* 0: nobody in particular */
  messaging_kind kind;
  uint64_t first, last; /* EHISTORY: the first and the last number that are gone; else 0 */
  const char *detail;   /* one line of English, valid during the call */
} messaging_error;

/* Called on the background thread with no lock held. Sends, update, add and purge are allowed in it; exit, wait and flush are
 * not (MESSAGING_EINVAL). A long stay delays every message of this process. */
typedef void messaging_error_fn(const messaging_error *error, void *user);

/* Counters since init, and sizes at the time of the call. */
typedef struct {
  uint64_t generation;        /* 1 is the first; 0: not in one yet */
  uint64_t next_number;       /* supervisor: the number that the next relay message gets; worker: the next one that it expects */
  uint64_t relays_sent;       /* relay messages accepted from this process's application */
  uint64_t outputs_sent;      /* output messages likewise */
  uint64_t relays_received;   /* relay messages that recv gave to this process's application */
  uint64_t outputs_received;  /* supervisor: output messages likewise */
  uint64_t relay_bytes_sent;  /* encoded bytes of all these messages, by kind and direction */
  uint64_t output_bytes_sent;
  uint64_t relay_bytes_received;
  uint64_t output_bytes_received;
  uint64_t frames_sent;       /* frames handed to libzmq, and their bytes */
  uint64_t bytes_sent;
  uint64_t frames_received;   /* frames taken from libzmq, and their bytes */
  uint64_t bytes_received;
  uint64_t batches_sent;      /* worker: batches sent up, repetitions included; supervisor: batches published */
  uint64_t batches_repeated;  /* worker: of these, sent again; supervisor: batches sent again as repairs */
  uint64_t repairs_asked;     /* worker: negative acknowledgements sent; supervisor: received */
  uint64_t duplicates;        /* batches that had arrived before */
  uint64_t stale;             /* frames of another session or generation, or of an unlisted worker */
  uint64_t malformed;         /* frames and payloads that were skipped as MESSAGING_EBADMSG */
  uint64_t refused;           /* announcements and connections that were refused (of these, who knows the supervisor's key and has a wrong one of
                                 its own: what fails before, libzmq refuses and does not tell), batches that found no room */
  uint64_t wakeups;           /* times that the background thread woke */
  uint64_t errors_dropped;    /* reports that found the queue to the error handler full, or of EBADMSG, EAUTH or EVERSION the 65th of a second on */
  size_t outbox_bytes, outbox_bytes_max;   /* sent here, not yet known to be accepted by the supervisor; and the limit */
  size_t inbox_bytes, inbox_bytes_max;     /* delivered here, not yet received by the application; and the limit */
  size_t history_bytes, history_bytes_max; /* supervisor: relay messages kept; and the limit */
  uint64_t history_first;     /* supervisor: the lowest number that the history still holds */
  uint64_t acknowledged;      /* supervisor: its application and all live listed workers have all below; worker: batches accepted; as far as is known (see lag) */
  uint32_t workers_listed;    /* supervisor: live workers on the list, and how many of them are connected */
  uint32_t workers_joined;
} messaging_stats;

/* How a supervisor sees one listed worker. */
typedef struct {
  messaging_kind kind;  /* as listed */
  bool joined;          /* connected in this generation */
  bool dead;            /* died; must be listed again to come back */
  bool silent;          /* not watched by a pidfd, and nothing heard for silence_ms */
  bool blocked;         /* its next batch found no room here (history or inbox full) */
  uint64_t next_number; /* it has all relay messages below this */
  uint64_t lag;         /* relay messages that it has not acknowledged; where nobody waits for that (flush does), it says so with heartbeats, one or two late */
  uint64_t batches;     /* batches accepted from this incarnation */
  uint64_t heard_ms;    /* milliseconds since its last frame; 0: now or never */
} messaging_worker_stats;

/* ==== Functions that need no instance ================================================================================= */

/* The sentence for a status; never NULL, also for numbers that are none. */
static inline const char *messaging_strerror(messaging_status status);

/* NULL, or what is wrong with the libraries found at run time (too old). init_* then returns MESSAGING_ESYS. */
static inline const char *messaging_version_problem(void);

/* Makes a fresh secret for a supervisor and the credential for its workers (tcp addresses, see messaging_options). Both are printable
 * strings of MESSAGING_KEY_SIZE - 1 characters. Pass the credential in a file or in the environment, not on a command line, which
 * every user of the host can read. MESSAGING_ESYS when libzmq was built without CURVE. */
static inline messaging_status messaging_make_keys(char secret[MESSAGING_KEY_SIZE], char credential[MESSAGING_KEY_SIZE]);

/* ==== The machine ===================================================================================================== */

#define MESSAGING__IN_MESSAGING_H
#include "messaging_impl.h"
#undef MESSAGING__IN_MESSAGING_H

/* ==== Reference of the stamped calls ==================================================================================
 *
 * For the prefix bus. Types: bus_ctx (a handle), bus_message, bus_batch. Every call that returns a status may also return:
 *   EINVAL       a NULL handle or a NULL argument that is needed
 *   EFORK        the handle was made by another process (the caller is its forked child)
 *   EROLE        a supervisor's call on a worker's handle or the reverse
 *   ENOTRUNNING  before run_im or run_worker (except init, run, exit, fd, stats)
 *   the cause    of the handle's end (ELOST, ENOTRUNNING, EKIND, EVERSION, ESYS; EINVAL: its message_bytes_max is not the
 *                supervisor's), once it has ended
 * Unless a line says otherwise: any thread may call, and the call does not block.
 *
 * bus_init_im(bus_ctx **im, messaging_addresses *addresses, const messaging_options *)
 *   Makes a supervisor's end and binds its addresses. Call it before forking; the parent alone uses the handle, the children use the
 *   addresses. *im is the caller's, to be given to bus_exit. EINVAL options; EBIND; EAUTH tcp without keys; ESYS; ENOMEM.
 *
 * bus_init_worker(bus_ctx **worker, messaging_kind, const char *pub, const char *pull, const messaging_options *)
 *   Makes a worker's end and connects to the addresses, in the process that will use it. Closes descriptors of the supervisor's
 *   sockets that this process inherited through fork. Does not wait for the supervisor. EKIND kind 0; ECONNECT; EINVAL; ESYS; ENOMEM.
 *
 * bus_run_im(bus_ctx *im, const messaging_child *children, size_t count, messaging_error_fn *, void *user)
 *   Starts the supervisor's background thread and the first generation with these children (none is fine). The handler may be NULL.
 *   Once only (EINVAL). EINVAL an id twice, or 0; EKIND kind 0; ESYS when descriptors for so many workers do not fit.
 *
 * bus_run_worker(bus_ctx *worker, messaging_error_fn *, void *user)
 *   Starts the worker's background thread. The worker may send at once; what it sends is kept until the supervisor lists it.
 *
 * bus_send_relay_message(bus_ctx *, const fact *)
 *   Sends to every other process of the generation. The message is encoded before the call returns and may then be changed. encode
 *   runs under a lock and makes no messaging calls. EFULL no room (blocks for up to send_timeout_ms first), ETOOBIG, EENCODE, ENOMEM:
 *   the message was not taken.
 *
 * bus_send_output_message(bus_ctx *, const messaging_output *)
 *   Sends to the supervisor's application; at the supervisor, to itself. Otherwise like bus_send_relay_message.
 *
 * bus_send_term_message(bus_ctx *)
 *   Asks every other process of the generation to terminate, the supervisor included. Passes every queue; may be repeated.
 *
 * bus_send_term_message_to(bus_ctx *im, pid_t)
 *   Supervisor: asks one listed worker to terminate, also before it joins. Who has heard of it, has left and comes back under its id is
 *   not asked again. EKIND: not listed.
 *
 * bus_recv(bus_ctx *, bus_batch *)
 *   Takes messages that have arrived: as many as make a good batch, in order; call again until count is 0. Never blocks. The batch
 *   is the caller's, to be given to bus_batch_free before bus_exit; the messages and all that decode kept pointers to live as long as it.
 *   Terminate comes first in the next batch, once a generation. One thread at a time.
 *
 * bus_batch_free(bus_batch *)
 *   Releases a batch and zeroes it. {0} and twice are fine. Any thread.
 *
 * bus_wait(bus_ctx *, int timeout_ms)
 *   Blocks until bus_recv would give something: OK, or ETIMEDOUT. -1 is for ever, 0 just looks. EINVAL in the error handler.
 *
 * bus_flush(bus_ctx *, int timeout_ms)
 *   Blocks until the supervisor has accepted all that this process sent; at the supervisor, until all live, listed, connected
 *   workers have everything, but for what history does not hold any more, of which EHISTORY tells. OK or ETIMEDOUT. EINVAL in the
 *   error handler.
 *
 * int bus_fd(const bus_ctx *)
 *   A descriptor that is readable while bus_recv would give something or the handle has ended: for poll, epoll, libuv. It is
 *   level-triggered, belongs to the handle, and is to be watched only, never read or closed. -1: no such handle here.
 *
 * bool bus_check_termination(const bus_ctx *)
 *   Whether a Terminate has arrived in this generation. Takes nothing from the queue; sending and receiving go on. Also true at a worker
 *   while its supervisor, on another host, has been silent for silence_ms (the handler was given ELOST); false again when it is heard again.
 *
 * bus_update_child_processes_list(bus_ctx *im, const messaging_child *, size_t count)
 *   Supervisor: the new list of children. If any worker is on both lists and alive, the generation goes on: the missing are gone and
 *   see termination, newcomers get the history. Otherwise a new generation begins, and what this end sent and found no room for yet
 *   is dropped with the old one. A worker that has exited counts until it is off the list or dead. Done when it returns; a pid that is
 *   dead already is reported as ELOST. EINVAL, EKIND, ESYS as in bus_run_im: nothing was changed.
 *
 * bus_add_child_process(bus_ctx *im, messaging_child)
 *   Supervisor: one more worker for this generation; it gets the history. EINVAL: listed already.
 *
 * bus_purge_im_mailbox(bus_ctx *im)
 *   Supervisor: drops what its application has not received and what it has not sent on, now and again at the next update if
 *   that begins a generation. Call it before the update to get rid of what the previous generation left.
 *
 * bus_stats(const bus_ctx *, messaging_stats *)
 *   Counters and sizes. Works before run_* and after the end, too.
 *
 * bus_worker_stats(const bus_ctx *im, pid_t, messaging_worker_stats *)
 *   Supervisor: how it sees one worker. EKIND: not listed.
 *
 * int bus_print_message(FILE *, const bus_message *)
 *   Prints one line without its end: type, sender, content (a relay payload as msgpack shows it). The number of characters; negative on failure.
 *
 * bus_exit(bus_ctx **)
 *   Waits until everything that this process sent is accepted (at most exit_timeout_ms), says goodbye, stops the thread and releases
 *   the handle, which becomes NULL whatever is returned (except EINVAL). OK: everything was accepted. ETIMEDOUT or ELOST: the handler was told how much was
 *   not. At the supervisor it waits for the live, listed, connected workers, and its goodbye is termination to them. Nothing else may
 *   run on the handle during the call.
 */

/* ==== MESSAGING_MAKE ================================================================================================== */

/* Stamps an instance: MESSAGING_MAKE(prefix, relay_type, encode, decode);
 *   relay_type  a complete type (in C++: trivially copyable), aligned no more strictly than max_align_t; several instances may share it
 *   encode      int (msgpack_packer *, const relay_type *): writes exactly one object of any shape; nonzero refuses (EENCODE)
 *   decode      int (const msgpack_object *, msgpack_zone *, relay_type *): nonzero means malformed. It may keep pointers into the
 *               object and allocate in the zone; both live as long as the batch. */
#define MESSAGING_MAKE(prefix, relay_type, encode, decode)                                                                 \
  MESSAGING__CHECK(sizeof(relay_type) > 0 && MESSAGING__IS_PLAIN(relay_type),                                              \
                   "MESSAGING_MAKE(" #prefix "): the 2nd argument, " #relay_type ", must be a complete, plain type");      \
  MESSAGING__CHECK(MESSAGING__IS_ALIGNED(relay_type),                                                                      \
                   "MESSAGING_MAKE(" #prefix "): the 2nd argument, " #relay_type                                           \
                   ", must not be aligned more strictly than max_align_t");                                                \
  MESSAGING__CHECK(MESSAGING__HAS_TYPE(encode, int (*)(msgpack_packer *, const relay_type *)),                             \
                   "MESSAGING_MAKE(" #prefix "): the 3rd argument, " #encode ", must be int (msgpack_packer *, const "     \
                   #relay_type " *)");                                                                                     \
  MESSAGING__CHECK(MESSAGING__HAS_TYPE(decode, int (*)(const msgpack_object *, msgpack_zone *, relay_type *)),             \
                   "MESSAGING_MAKE(" #prefix "): the 4th argument, " #decode                                               \
                   ", must be int (const msgpack_object *, msgpack_zone *, " #relay_type " *)");                           \
  typedef struct prefix##_ctx {                                                                                            \
    messaging__handle handle;                                                                                              \
  } prefix##_ctx;                                                                                                          \
  typedef struct {                                                                                                         \
    uint64_t number;                                                                                                       \
    relay_type message;                                                                                                    \
  } prefix##__relay;                                                                                                       \
  typedef struct {                                                                                                         \
    messaging_message_type type;                                                                                           \
    messaging_kind kind;                                                                                                   \
    pid_t pid;                                                                                                             \
    union {                                                                                                                \
      messaging_output output;                                                                                             \
      messaging_control control;                                                                                           \
      prefix##__relay relay;                                                                                               \
    };                                                                                                                     \
  } prefix##_message;                                                                                                      \
  typedef struct {                                                                                                         \
    size_t count;                                                                                                          \
    const prefix##_message *messages;                                                                                      \
    void *arena;                                                                                                           \
  } prefix##_batch;                                                                                                        \
  MESSAGING__STAMP int prefix##__encode(msgpack_packer *pk, const void *in) {                                              \
    return (encode)(pk, (const relay_type *)in);                                                                           \
  }                                                                                                                        \
  MESSAGING__STAMP int prefix##__decode(const msgpack_object *obj, msgpack_zone *zone, void *out) {                        \
    return (decode)(obj, zone, (relay_type *)out);                                                                         \
  }                                                                                                                        \
  MESSAGING__UNUSED static const messaging__codec prefix##__codec = {                                                      \
      prefix##__encode,                                                                                                    \
      prefix##__decode,                                                                                                    \
      sizeof(prefix##_message),                                                                                            \
      offsetof(prefix##_message, output),                                                                                  \
      offsetof(prefix##_message, control),                                                                                 \
      offsetof(prefix##_message, relay) + offsetof(prefix##__relay, number),                                               \
      offsetof(prefix##_message, relay) + offsetof(prefix##__relay, message),                                              \
  };                                                                                                                       \
  MESSAGING__CALL prefix##_init_im(prefix##_ctx **im, messaging_addresses *addresses, const messaging_options *options) {  \
    return messaging__init_im((void *)im, addresses, options);                                                             \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_init_worker(prefix##_ctx **worker, messaging_kind kind, const char *pub, const char *pull,      \
                                       const messaging_options *options) {                                                 \
    return messaging__init_worker((void *)worker, kind, pub, pull, options);                                               \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_run_im(prefix##_ctx *im, const messaging_child *children, size_t count,                         \
                                  messaging_error_fn *on_error, void *user) {                                              \
    return messaging__run_im((messaging__handle *)im, children, count, on_error, user);                                    \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_run_worker(prefix##_ctx *worker, messaging_error_fn *on_error, void *user) {                    \
    return messaging__run_worker((messaging__handle *)worker, on_error, user);                                             \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_send_relay_message(prefix##_ctx *ctx, const relay_type *message) {                              \
    return messaging__send_relay((messaging__handle *)ctx, &prefix##__codec, message);                                     \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_send_output_message(prefix##_ctx *ctx, const messaging_output *output) {                        \
    return messaging__send_output((messaging__handle *)ctx, output);                                                       \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_send_term_message(prefix##_ctx *ctx) {                                                          \
    return messaging__send_term((messaging__handle *)ctx);                                                                 \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_send_term_message_to(prefix##_ctx *im, pid_t pid) {                                             \
    return messaging__send_term_to((messaging__handle *)im, pid);                                                          \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_recv(prefix##_ctx *ctx, prefix##_batch *batch) {                                                \
    return messaging__recv((messaging__handle *)ctx, &prefix##__codec, (void *)batch);                                     \
  }                                                                                                                        \
  MESSAGING__STAMP messaging_status prefix##_batch_free(prefix##_batch *batch) {                                           \
    return messaging__batch_free((void *)batch);                                                                           \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_wait(prefix##_ctx *ctx, int timeout_ms) {                                                       \
    return messaging__wait((messaging__handle *)ctx, timeout_ms);                                                          \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_flush(prefix##_ctx *ctx, int timeout_ms) {                                                      \
    return messaging__flush((messaging__handle *)ctx, timeout_ms);                                                         \
  }                                                                                                                        \
  MESSAGING__STAMP int prefix##_fd(const prefix##_ctx *ctx) {                                                              \
    return messaging__fd((const messaging__handle *)ctx);                                                                  \
  }                                                                                                                        \
  MESSAGING__STAMP bool prefix##_check_termination(const prefix##_ctx *ctx) {                                              \
    return messaging__check_termination((const messaging__handle *)ctx);                                                   \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_update_child_processes_list(prefix##_ctx *im, const messaging_child *children, size_t count) {  \
    return messaging__update((messaging__handle *)im, children, count);                                                    \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_add_child_process(prefix##_ctx *im, messaging_child child) {                                    \
    return messaging__add((messaging__handle *)im, child);                                                                 \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_purge_im_mailbox(prefix##_ctx *im) {                                                            \
    return messaging__purge((messaging__handle *)im);                                                                      \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_stats(const prefix##_ctx *ctx, messaging_stats *stats) {                                        \
    return messaging__get_stats((const messaging__handle *)ctx, stats);                                                    \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_worker_stats(const prefix##_ctx *im, pid_t pid, messaging_worker_stats *stats) {                \
    return messaging__get_worker_stats((const messaging__handle *)im, pid, stats);                                         \
  }                                                                                                                        \
  MESSAGING__STAMP int prefix##_print_message(FILE *file, const prefix##_message *message) {                               \
    return messaging__print(file, &prefix##__codec, (const void *)message);                                                \
  }                                                                                                                        \
  MESSAGING__CALL prefix##_exit(prefix##_ctx **ctx) { return messaging__exit((void *)ctx); }                               \
  struct prefix##_ctx

/* ==== Helpers end here ================================================================================================ */

#undef MESSAGING__STATUS_MAP
#undef MESSAGING__STATUS_ENUM

#endif /* MESSAGING_H */
