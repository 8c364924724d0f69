/* Built outside the repository against an installed tree, as C and as C++: a relay message from a worker to its supervisor. */
#include <messaging.h>

#include <unistd.h>

typedef struct {
  uint64_t value;
} fact;
static int fact_encode(msgpack_packer *pk, const fact *in) { return msgpack_pack_uint64(pk, in->value); }
static int fact_decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) {
  (void)zone;
  out->value = obj->via.u64;
  return obj->type != MSGPACK_OBJECT_POSITIVE_INTEGER;
}
MESSAGING_MAKE(bus, fact, fact_encode, fact_decode);

static int work(const messaging_addresses *at) {
  bus_ctx *worker;
  fact found = {42};
  if (bus_init_worker(&worker, 1, at->pub, at->pull, NULL) || bus_run_worker(worker, NULL, NULL)) return 1;
  if (bus_send_relay_message(worker, &found)) return 1;
  return bus_exit(&worker) != MESSAGING_OK;
}

int main(void) {
  bus_ctx *im;
  messaging_addresses at;
  messaging_status status = bus_init_im(&im, &at, NULL);
  if (status) {
    fprintf(stderr, "%s: %s\n", messaging_strerror(status), messaging_version_problem() ? messaging_version_problem() : "");
    return 1;
  }
  pid_t pid = fork();
  if (pid == 0) return work(&at);
  messaging_child child = {pid, 1};
  bus_batch news;
  if (bus_run_im(im, &child, 1, NULL, NULL) || bus_wait(im, 30000) || bus_recv(im, &news) || news.count != 1) return 1;
  printf("%s %llu\n", MESSAGING_VERSION_STRING, (unsigned long long)news.messages[0].relay.message.value);
  bus_batch_free(&news);
  return bus_exit(&im) != MESSAGING_OK;
}
