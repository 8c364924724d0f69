/* Stamps an instance and names every call, so that each is compiled with warnings on: C11, C17 and C++17. Never run. */
#include <string.h>

#include "messaging.h"

typedef struct {
  uint32_t id;
  const char *text;
  size_t text_size;
} fact;

static int fact_encode(msgpack_packer *pk, const fact *in) {
  return msgpack_pack_array(pk, 2) || msgpack_pack_uint32(pk, in->id) || msgpack_pack_str(pk, in->text_size) ||
         msgpack_pack_str_body(pk, in->text, in->text_size);
}

static int fact_decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) {
  (void)zone;
  if (obj->type != MSGPACK_OBJECT_ARRAY || obj->via.array.size != 2) return 1;
  out->id = (uint32_t)obj->via.array.ptr[0].via.u64;
  out->text = obj->via.array.ptr[1].via.str.ptr;
  out->text_size = obj->via.array.ptr[1].via.str.size;
  return 0;
}

MESSAGING_MAKE(bus, fact, fact_encode, fact_decode);

static void on_error(const messaging_error *error, void *user) {
  fprintf((FILE *)user, "%s %ld %s\n", messaging_strerror(error->status), (long)error->pid, error->detail);
}

static messaging_status supervise(const messaging_child *children, size_t count) {
  bus_ctx *im;
  messaging_addresses at;
  messaging_options options;
  messaging_stats stats;
  messaging_worker_stats worker;
  memset(&options, 0, sizeof options);
  messaging_status status = bus_init_im(&im, &at, &options);
  if (status == MESSAGING_OK) status = bus_run_im(im, children, count, on_error, stderr);
  if (status == MESSAGING_OK) status = bus_purge_im_mailbox(im);
  if (status == MESSAGING_OK) status = bus_update_child_processes_list(im, children, count);
  if (status == MESSAGING_OK) status = bus_add_child_process(im, children[0]);
  if (status == MESSAGING_OK) status = bus_send_term_message_to(im, children[0].pid);
  if (status == MESSAGING_OK) status = bus_stats(im, &stats);
  if (status == MESSAGING_OK) status = bus_worker_stats(im, children[0].pid, &worker);
  messaging_status last = bus_exit(&im);
  return status == MESSAGING_OK ? last : status;
}

static messaging_status work(const messaging_addresses *at) {
  bus_ctx *worker;
  bus_batch batch = {0, NULL, NULL};
  fact sent = {1, "one", 3};
  messaging_output output = {MESSAGING_LOG, 1, "log", 3};
  messaging_status status = bus_init_worker(&worker, 1, at->pub, at->pull, NULL);
  if (status == MESSAGING_OK) status = bus_run_worker(worker, on_error, stderr);
  if (status == MESSAGING_OK) status = bus_send_relay_message(worker, &sent);
  if (status == MESSAGING_OK) status = bus_send_output_message(worker, &output);
  if (status == MESSAGING_OK) status = bus_send_term_message(worker);
  if (status == MESSAGING_OK) status = bus_flush(worker, 1000);
  if (status == MESSAGING_OK) status = bus_wait(worker, bus_fd(worker) < 0 ? 0 : -1);
  if (status == MESSAGING_OK && !bus_check_termination(worker)) status = bus_recv(worker, &batch);
  for (size_t i = 0; i < batch.count; i++)
    if (batch.messages[i].type == MESSAGING_RELAY_MESSAGE && batch.messages[i].relay.message.id) bus_print_message(stdout, &batch.messages[i]);
  bus_batch_free(&batch);
  messaging_status last = bus_exit(&worker);
  return status == MESSAGING_OK ? last : status;
}

int main(void) {
  char secret[MESSAGING_KEY_SIZE], credential[MESSAGING_KEY_SIZE];
  messaging_child child = {1, 1};
  messaging_addresses at = {"", ""};
  if (messaging_version_problem() || messaging_make_keys(secret, credential) != MESSAGING_OK) return 1;
  return supervise(&child, 1) != MESSAGING_OK || work(&at) != MESSAGING_OK;
}
