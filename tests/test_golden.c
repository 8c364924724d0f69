/* The frames in tests/wire are what the machines write, byte for byte, and what they understand. Whoever changes the wire changes these
 * files, and MESSAGING_WIRE_VERSION. tests/python/golden.py reads and writes them without the library. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../messaging.h"

enum { FRAME_MAX = 1000, FRAMES_MAX = 16, NOW = 1000 };

typedef struct {
  uint8_t bytes[FRAME_MAX];
  size_t size;
} frame;

/* What a machine has sent since it was last looked at. */
typedef struct {
  frame frames[FRAMES_MAX];
  size_t count;
} sent;

typedef struct {
  sent up, down;
  messaging__outbox worker_outbox, im_outbox;
  messaging__inbox worker_inbox, im_inbox;
  messaging__worker worker;
  messaging__im im;
} world;

static frame golden(const char *name) {
  char path[100];
  frame f = {{0}, 0};
  snprintf(path, sizeof path, "tests/wire/%s.hex", name);
  FILE *file = fopen(path, "r");
  if (!file) fail_msg("%s is missing", path);
  for (char line[300]; fgets(line, sizeof line, file);) {
    line[strcspn(line, "#\n")] = 0;
    for (char *at = line; *at; at++) {
      if (isspace((unsigned char)*at)) continue;
      unsigned byte;
      if (sscanf(at, "%2x", &byte) != 1 || !isxdigit((unsigned char)at[1]) || f.size == FRAME_MAX) fail_msg("%s: %s", path, line);
      f.bytes[f.size++] = (uint8_t)byte;
      at++;
    }
  }
  fclose(file);
  assert_true(f.size > 0);
  return f;
}

static bool keep(void *self, messaging__slice slice) {
  sent *all = (sent *)self;
  assert_true(all->count < FRAMES_MAX && slice.size <= FRAME_MAX);
  memcpy(all->frames[all->count].bytes, slice.data, slice.size);
  all->frames[all->count++].size = slice.size;
  return true;
}

static void report(void *self, const messaging_error *error) {
  (void)self;
  fail_msg("%s: %s", messaging_strerror(error->status), error->detail);
}

static int no_watch(void *self, pid_t id) {
  (void)self;
  (void)id;
  return MESSAGING__UNWATCHED;
}

/* One of the frames sent is the golden one. */
static void check_sent(sent *all, const char *name) {
  frame f = golden(name);
  for (size_t i = 0; i < all->count; i++)
    if (all->frames[i].size == f.size && memcmp(all->frames[i].bytes, f.bytes, f.size) == 0) {
      all->count = 0;
      return;
    }
  for (size_t i = 0; i < all->count; i++) {
    fprintf(stderr, "sent:");
    for (size_t k = 0; k < all->frames[i].size; k++) fprintf(stderr, " %02x", all->frames[i].bytes[k]);
    fprintf(stderr, "\n");
  }
  fail_msg("none of them is tests/wire/%s.hex", name);
}

/* Gives a golden frame to a machine, as a buffer of its own. */
static messaging__slice received(const char *name) {
  frame f = golden(name);
  messaging__buffer *buffer = messaging__buffer_new(f.size);
  assert_non_null(buffer);
  memcpy(buffer->data, f.bytes, f.size);
  buffer->size = f.size;
  return messaging__slice_of(buffer);
}

static void to_worker(world *w, const char *name) {
  messaging__slice slice = received(name);
  messaging__worker_receive(&w->worker, slice, NOW);
  messaging__buffer_drop(slice.owner);
  assert_int_equal(w->worker.stats.malformed, 0);
  assert_int_equal(w->worker.stats.stale, 0);
}

static void to_im(world *w, const char *name) {
  messaging__slice slice = received(name);
  messaging__im_receive(&w->im, slice, NOW);
  messaging__buffer_drop(slice.owner);
  assert_int_equal(w->im.stats.malformed, 0);
  assert_int_equal(w->im.stats.stale, 0);
}

/* Supervisor 1234 with the nonce 11..11 and the session 00 01 .. 0f, and worker -7 of kind 5 with the nonce 22..22. */
static world *make(void) {
  static const uint8_t session[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  static const messaging__who im_who = {1234, 0, UINT64_C(0x1111111111111111)}, worker_who = {-7, 5, UINT64_C(0x2222222222222222)};
  messaging_options options = {0};
  options.heartbeat_ms = 1000;
  options.silence_ms = 60000;
  options.message_bytes_max = 16 << 20;
  options.outbox_bytes_max = options.inbox_bytes_max = 64 << 20;
  options.history_bytes_max = 256 << 20;
  world *w = (world *)calloc(1, sizeof *w);
  assert_non_null(w);
  assert_true(messaging__outbox_init(&w->worker_outbox, options.outbox_bytes_max, options.message_bytes_max));
  assert_true(messaging__outbox_init(&w->im_outbox, options.outbox_bytes_max, options.message_bytes_max));
  assert_true(messaging__inbox_init(&w->worker_inbox, options.inbox_bytes_max));
  assert_true(messaging__inbox_init(&w->im_inbox, options.inbox_bytes_max));
  messaging__port up = {&w->up, keep, report, NULL, NULL, NULL}, down = {&w->down, keep, report, no_watch, NULL, NULL};
  messaging__worker_init(&w->worker, &up, &w->worker_outbox, &w->worker_inbox, &worker_who, &options, NOW);
  messaging__im_init(&w->im, &down, &w->im_outbox, &w->im_inbox, &im_who, session, &options);
  messaging_child child = {-7, 5};
  assert_int_equal(messaging__im_run(&w->im, &child, 1, NOW), MESSAGING_OK);
  return w;
}

static void drop(world *w) {
  messaging__worker_free(&w->worker);
  messaging__im_free(&w->im);
  messaging__outbox_free(&w->worker_outbox);
  messaging__outbox_free(&w->im_outbox);
  messaging__inbox_free(&w->worker_inbox);
  messaging__inbox_free(&w->im_inbox);
  free(w);
}

static int encode_number(msgpack_packer *pk, const void *in) { return msgpack_pack_uint64(pk, *(const uint64_t *)in); }

static void put(messaging__outbox *outbox, uint8_t type, messaging__encode_fn *encode, const void *message) {
  bool urgent;
  assert_int_equal(messaging__outbox_put(outbox, type, encode, message, &urgent), MESSAGING_OK);
}

static void put_number(messaging__outbox *outbox, uint64_t number) { put(outbox, MESSAGING__RELAY, encode_number, &number); }

/* The worker announces itself and is welcomed. */
static world *joined(void) {
  world *w = make();
  messaging__worker_hello(&w->worker, NOW);
  check_sent(&w->up, "hello");
  to_im(w, "hello");
  check_sent(&w->down, "welcome");
  to_worker(w, "welcome");
  assert_int_equal(w->worker.state, MESSAGING__JOINED);
  assert_memory_equal(w->worker.era.session, w->im.era.session, 16);
  assert_int_equal(w->worker.era.generation, 1);
  messaging__worker_report(&w->worker, NOW, false, 0);
  check_sent(&w->up, "report");
  to_im(w, "report");
  assert_int_equal(w->im.joined, 1);
  return w;
}

/* Two batches go up. The relay batch goes to all, behind one of the supervisor that comes late; the output batch is acknowledged. */
static void test_batches(void **state) {
  (void)state;
  world *w = joined();
  put_number(&w->im_outbox, 7);
  messaging__im_pump(&w->im, NOW);
  check_sent(&w->down, "relay_own");
  put_number(&w->worker_outbox, 42);
  put_number(&w->worker_outbox, 1000);
  messaging__worker_pump(&w->worker, NOW);
  check_sent(&w->up, "relay_up");
  to_im(w, "relay_up");
  messaging__im_pump(&w->im, NOW);
  check_sent(&w->down, "relay_down");
  to_worker(w, "relay_down");
  assert_int_equal(w->worker.next, 1);
  to_worker(w, "relay_own");
  assert_int_equal(w->worker.next, 4);
  assert_int_equal(w->worker.flights.count, 0);

  messaging_output log = {MESSAGING_LOG, -2, "hello", 5};
  put(&w->worker_outbox, MESSAGING__OUTPUT, messaging__encode_output, &log);
  messaging__worker_pump(&w->worker, NOW);
  check_sent(&w->up, "output");
  to_im(w, "output");
  messaging__im_status(&w->im, messaging__im_peer(&w->im, 0), MESSAGING__STATUS);
  check_sent(&w->down, "status");
  to_worker(w, "status");
  assert_int_equal(w->worker.flights.count, 0);
  assert_int_equal(w->im_inbox.items.count, 1);
  drop(w);
}

/* The supervisor's own batch is lost; a heartbeat tells of it, the worker asks and is given it. */
static void test_repair(void **state) {
  (void)state;
  world *w = joined();
  put_number(&w->im_outbox, 7);
  messaging__im_pump(&w->im, NOW);
  check_sent(&w->down, "relay_own");
  messaging__im_heartbeat(&w->im, NOW);
  check_sent(&w->down, "heartbeat");
  to_worker(w, "heartbeat");
  messaging__worker_report(&w->worker, NOW, true, 65536);
  check_sent(&w->up, "report_ask");
  to_im(w, "report_ask");
  messaging__im_pump(&w->im, NOW);
  check_sent(&w->down, "repair");
  to_worker(w, "repair");
  assert_int_equal(w->worker.next, 2);
  to_worker(w, "relay_own"); /* once more: known already */
  assert_int_equal(w->worker.next, 2);
  assert_int_equal(w->worker.stats.duplicates, 1);
  drop(w);
}

/* The supervisor asks for termination; the worker says goodbye, and then so does the supervisor. */
static void test_termination_and_goodbyes(void **state) {
  (void)state;
  world *w = joined();
  messaging__im_term(&w->im, &w->im.self, NOW);
  messaging__im_heartbeat(&w->im, NOW);
  check_sent(&w->down, "heartbeat_term");
  to_worker(w, "heartbeat_term");
  assert_true(w->worker_inbox.terminated);
  w->worker.leaving = true;
  messaging__worker_report(&w->worker, NOW, false, 0);
  check_sent(&w->up, "report_bye");
  to_im(w, "report_bye");
  messaging__im_pump(&w->im, NOW);
  check_sent(&w->down, "status_bye");
  to_worker(w, "status_bye");
  assert_true(w->worker.left);
  drop(w);

  w = joined();
  messaging__im_leave(&w->im, NOW);
  messaging__im_heartbeat(&w->im, NOW);
  check_sent(&w->down, "heartbeat_bye");
  w->worker.term_wanted = w->worker.answer_due = true;
  messaging__worker_report(&w->worker, NOW, false, 0);
  check_sent(&w->up, "report_term");
  to_im(w, "report_term");
  assert_int_equal(w->im.term_count, 1);
  drop(w);
}

static void note(void *self, const messaging_error *error) {
  (void)self;
  assert_int_equal(error->status, MESSAGING_EAUTH);
}

static void test_refusal(void **state) {
  (void)state;
  world *w = make();
  w->worker.port.report = note;
  messaging__im_refuse(&w->im, &w->worker.self, MESSAGING_EAUTH);
  check_sent(&w->down, "refuse");
  to_worker(w, "refuse");
  assert_int_equal(w->worker.state, MESSAGING__ANNOUNCING); /* it tries again */
  drop(w);
}

static void test_numbers_of_statuses(void **state) {
  (void)state;
  assert_int_equal(MESSAGING_EINVAL, 1);
  assert_int_equal(MESSAGING_EKIND, 6);
  assert_int_equal(MESSAGING_ENOTRUNNING, 7);
  assert_int_equal(MESSAGING_EAUTH, 15);
  assert_int_equal(MESSAGING_EVERSION, 16);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_batches),
      cmocka_unit_test(test_repair),
      cmocka_unit_test(test_termination_and_goodbyes),
      cmocka_unit_test(test_refusal),
      cmocka_unit_test(test_numbers_of_statuses),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
