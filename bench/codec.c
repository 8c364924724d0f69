/* What a call costs its caller: packing, unpacking, sending, receiving, and asking in vain. */
#define _GNU_SOURCE
#include "notebus.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "codec.h"
#include "tools.h"

#define LOOP 200000u
#define QUEUED 50000u  /* messages that wait in an outbox */
#define BURST 40000u
#define IDLE_CALLS 2000000u

static int64_t thread_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
  return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

/* ==== Operations ======================================================================================================
 *
 * Functions of their own, so that callgrind can tell them apart.
 */

#define OPERATION __attribute__((noinline)) static void

static note note_of(const packet *m) {
  uint32_t body_size = note_body_size(m->size);
  return (note){m->tag, m->seq, m->size, (const char *)m->bytes + (m->size - body_size), body_size};
}

OPERATION op_pack_reused(const packet *m, uint32_t times) {
  note n = note_of(m);
  msgpack_sbuffer buffer;
  msgpack_packer packer;
  msgpack_sbuffer_init(&buffer);
  msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
  for (uint32_t i = 0; i < times; i++) {
    msgpack_sbuffer_clear(&buffer);
    if (note_encode(&packer, &n) != 0) fail("pack");
  }
  msgpack_sbuffer_destroy(&buffer);
}

OPERATION op_pack_fresh(const packet *m, uint32_t times) {
  note n = note_of(m);
  for (uint32_t i = 0; i < times; i++) {
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    if (note_encode(&packer, &n) != 0) fail("pack");
    msgpack_sbuffer_destroy(&buffer);
  }
}

OPERATION op_unpack_reused(const packet *m, uint32_t times) {
  msgpack_zone *zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
  for (uint32_t i = 0; i < times; i++) {
    size_t offset = 0;
    msgpack_object object;
    note n;
    if (msgpack_unpack((const char *)m->bytes, m->size, &offset, zone, &object) < 0 || note_decode(&object, zone, &n) != 0) fail("unpack");
    msgpack_zone_clear(zone);
  }
  msgpack_zone_free(zone);
}

OPERATION op_unpack_next(const packet *m, uint32_t times) {
  msgpack_unpacked unpacked;
  msgpack_unpacked_init(&unpacked);
  for (uint32_t i = 0; i < times; i++) {
    note n;
    if (msgpack_unpack_next(&unpacked, (const char *)m->bytes, m->size, NULL) != MSGPACK_UNPACK_SUCCESS ||
        note_decode(&unpacked.data, unpacked.zone, &n) != 0)
      fail("unpack");
  }
  msgpack_unpacked_destroy(&unpacked);
}

OPERATION op_send(bus_ctx *ctx, const packet *m, uint32_t times) {
  note n = note_of(m);
  for (uint32_t i = 0; i < times; i++)
    if (bus_send_relay_message(ctx, &n) != MESSAGING_OK) fail("send");
}

OPERATION op_recv(bus_ctx *ctx, uint32_t *count) {
  bus_batch batch;
  if (bus_recv(ctx, &batch) != MESSAGING_OK) fail("recv");
  *count += (uint32_t)batch.count;
  bus_batch_free(&batch);
}

OPERATION op_recv_empty(bus_ctx *ctx, uint32_t times) {
  bus_batch batch;
  for (uint32_t i = 0; i < times; i++)
    if (bus_recv(ctx, &batch) != MESSAGING_OK || batch.count > 0) fail("recv was to be empty");
}

OPERATION op_check_termination(bus_ctx *ctx, uint32_t times) {
  uint32_t seen = 0;
  for (uint32_t i = 0; i < times; i++) seen += bus_check_termination(ctx);
  if (seen > 0) fail("nobody asked to terminate");
}

/* ==== In one process, for callgrind and for what needs no peer ========================================================= */

typedef struct {
  bus_ctx *im, *worker;
} pair;

static pair pair_make(bool listed) {
  pair p;
  messaging_addresses at;
  messaging_options options = {.id = -1, .heartbeat_ms = 10000, .send_timeout_ms = 5000, .exit_timeout_ms = 1};
  messaging_child child = {-1, 1};
  if (bus_init_im(&p.im, &at, NULL) != MESSAGING_OK || bus_init_worker(&p.worker, 1, at.pub, at.pull, &options) != MESSAGING_OK) fail("init");
  if (bus_run_im(p.im, &child, listed, NULL, NULL) != MESSAGING_OK || bus_run_worker(p.worker, NULL, NULL) != MESSAGING_OK) fail("run");
  return p;
}

static void pair_end(pair *p) {
  messaging_status ignored = bus_exit(&p->worker);
  ignored = bus_exit(&p->im);
  (void)ignored;
}

/* Each operation once; what it costs, callgrind knows. */
void codec_in_callgrind(uint32_t size, uint32_t times) {
  packet m = packet_make(size, 1);
  uint32_t count = 0;
  op_pack_reused(&m, times);
  op_pack_fresh(&m, times);
  op_unpack_reused(&m, times);
  op_unpack_next(&m, times);
  pair waiting = pair_make(false);
  op_send(waiting.worker, &m, times);
  pair_end(&waiting);
  pair p = pair_make(true);
  op_recv_empty(p.im, times);
  op_check_termination(p.worker, times);
  note n = note_of(&m);
  for (uint32_t i = 0; i < times; i++)
    if (bus_send_relay_message(p.worker, &n) != MESSAGING_OK) fail("send");
  if (bus_flush(p.worker, 60000) != MESSAGING_OK) fail("flush");
  while (count < times)
    if (bus_wait(p.im, 60000) == MESSAGING_OK) op_recv(p.im, &count);
  pair_end(&p);
}

/* ==== In a scene: sending and receiving with company ==================================================================== */

typedef struct {
  double send_ns, recv_ns, recv_batch, empty_ns, check_ns;
} call_costs;

static void send_role(scene *s, uint32_t worker, void *end) {
  call_costs *c = s->role_data;
  packet m = packet_make(s->size, worker);
  int64_t before_ns = thread_ns();
  op_send(end, &m, s->count);
  c->send_ns = (double)(thread_ns() - before_ns) / s->count;
  free(m.bytes);
}

static double timed(void (*operation)(bus_ctx *, uint32_t), bus_ctx *ctx, uint32_t times) {
  int64_t before_ns = thread_ns();
  operation(ctx, times);
  return (double)(thread_ns() - before_ns) / times;
}

static void recv_role(scene *s, uint32_t worker, void *end) {
  call_costs *c = s->role_data;
  uint32_t count = 0, calls = 0;
  int64_t spent_ns = 0;
  (void)worker;
  while (count < s->count && bus_wait(end, RECEIVE_TIMEOUT_MS) == MESSAGING_OK) {
    int64_t before_ns = thread_ns();
    op_recv(end, &count);
    spent_ns += thread_ns() - before_ns;
    calls++;
  }
  c->recv_ns = (double)spent_ns / s->count;
  c->recv_batch = (double)s->count / calls;
  sleep_until_ns(now_ns() + 100 * NS_PER_MS); /* acknowledgements are over */
  c->empty_ns = timed(op_recv_empty, end, IDLE_CALLS);
  c->check_ns = timed(op_check_termination, end, IDLE_CALLS);
}

static void take_part(scene *s, uint32_t worker, void *end) {
  if (worker == 0) send_role(s, worker, end);
  else recv_role(s, worker, end);
}

static call_costs measure_calls(uint32_t size) {
  call_costs *shared = shared_make(sizeof *shared), costs = {0};
  scene_plan plan = {.system = &peer_messaging, .workers = 2, .size = size, .deaf = 1, .role = take_part, .role_data = shared};
  scene *s = scene_begin(&plan);
  for (uint32_t run = 0; s && run < 2; run++) { /* the first warms up */
    s->count = run == 0 ? BURST / 10 : BURST;
    scene_go(s, 1);
    scene_go(s, 0);
    if (!scene_await(s, 2)) break;
    costs = *shared;
  }
  if (s) scene_end(s);
  shared_release(shared, sizeof *shared);
  return costs;
}

/* ==== The benchmark =================================================================================================== */

enum { PACK_REUSED, PACK_FRESH, UNPACK_REUSED, UNPACK_NEXT, SEND_QUEUED, SEND, RECV, EMPTY, CHECK, OPERATIONS };

static const struct {
  const char *what, *function; /* function: under callgrind */
} operations[OPERATIONS] = {
    {"msgpack-c: pack, buffer reused", "op_pack_reused"},
    {"msgpack-c: pack, fresh buffer", "op_pack_fresh"},
    {"msgpack-c: unpack, zone reused", "op_unpack_reused"},
    {"msgpack-c: unpack_next", "op_unpack_next"},
    {"send_relay_message, into a queue", "op_send"},
    {"send_relay_message, in a burst", NULL},
    {"recv and batch_free, in a burst", "op_recv"},
    {"recv with nothing there", "op_recv_empty"},
    {"check_termination", "op_check_termination"},
};

static double timed_packet(void (*operation)(const packet *, uint32_t), const packet *m) {
  operation(m, LOOP / 10);
  int64_t before_ns = thread_ns();
  operation(m, LOOP);
  return (double)(thread_ns() - before_ns) / LOOP;
}

static double timed_queue(const packet *m) {
  pair p = pair_make(false);
  int64_t before_ns = thread_ns();
  op_send(p.worker, m, QUEUED);
  double ns = (double)(thread_ns() - before_ns) / QUEUED;
  pair_end(&p);
  return ns;
}

static void run_round(series *ns, uint32_t size) {
  packet m = packet_make(size, 1);
  series_add(&ns[PACK_REUSED], timed_packet(op_pack_reused, &m));
  series_add(&ns[PACK_FRESH], timed_packet(op_pack_fresh, &m));
  series_add(&ns[UNPACK_REUSED], timed_packet(op_unpack_reused, &m));
  series_add(&ns[UNPACK_NEXT], timed_packet(op_unpack_next, &m));
  series_add(&ns[SEND_QUEUED], timed_queue(&m));
  call_costs c = measure_calls(size);
  series_add(&ns[SEND], c.send_ns);
  series_add(&ns[RECV], c.recv_ns);
  series_add(&ns[EMPTY], c.empty_ns);
  series_add(&ns[CHECK], c.check_ns);
  free(m.bytes);
}

static void judge(const series *ns) {
  goal_at_most(3, "send_relay_message of 140 bytes in a burst, ns CPU of the caller", series_spread(&ns[SEND]), 150);
  goal_at_most(3, "recv of 140 bytes in a burst, ns CPU a message", series_spread(&ns[RECV]), 200);
  goal_at_most(3, "recv with nothing there, ns", series_spread(&ns[EMPTY]), 10);
  goal_at_most(3, "check_termination, ns", series_spread(&ns[CHECK]), 10);
}

static void run_size(const suite *u, uint32_t size, FILE *csv) {
  if (!listed_number(u->options->sizes, size)) return;
  series *ns = checked_calloc(OPERATIONS, sizeof *ns);
  for (uint32_t round = 0; round < u->options->rounds; round++) run_round(ns, size);
  printf("\n%u bytes\n  %-34s %27s %14s\n", size, "", "ns CPU of the calling thread", "instructions");
  callgrind_costs instructions = callgrind_run(size);
  for (int i = 0; i < OPERATIONS; i++) {
    spread s = series_spread(&ns[i]);
    double count = operations[i].function ? callgrind_cost(&instructions, operations[i].function) : -1;
    printf("  %-34s %8.1f (%7.1f..%8.1f) ", operations[i].what, s.median, s.min, s.max);
    if (count >= 0) printf("%13.1f\n", count);
    else printf("%13s\n", "-");
    if (csv) fprintf(csv, "%u,\"%s\",%.2f,%.2f,%.2f,%.1f\n", size, operations[i].what, s.median, s.min, s.max, count);
  }
  if (size == 140) judge(ns);
  free(ns);
}

void bench_codec(const suite *u) {
  puts("\nCodec and calls: what each costs its caller, a message or call; medians (lowest..highest round)");
  FILE *csv = csv_open(u->options, "codec", "size,operation,ns,ns_min,ns_max,instructions");
  run_size(u, 64, csv);
  run_size(u, 140, csv);
  csv_close(csv);
}
