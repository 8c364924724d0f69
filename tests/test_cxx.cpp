// The same from C++17: an instance for a C++ type, with lambdas as codec, a supervisor, a forked worker and one in a thread.
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>

extern "C" {
#include <cmocka.h>
}

#include <atomic>
#include <cstdlib>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include "messaging.h"

namespace {

struct clause {
  std::int32_t glue = 0;
  std::string_view literals; // when received, it points into the batch
};

int clause_encode(msgpack_packer *pk, const clause *in) {
  return msgpack_pack_array(pk, 2) | msgpack_pack_int32(pk, in->glue) |
         msgpack_pack_str_with_body(pk, in->literals.data(), in->literals.size());
}

int clause_decode(const msgpack_object *obj, msgpack_zone *, clause *out) noexcept {
  if (obj->type != MSGPACK_OBJECT_ARRAY || obj->via.array.size != 2) return 1;
  const msgpack_object *field = obj->via.array.ptr;
  if (field[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER || field[1].type != MSGPACK_OBJECT_STR) return 1;
  out->glue = static_cast<std::int32_t>(field[0].via.i64);
  out->literals = {field[1].via.str.ptr, field[1].via.str.size};
  return 0;
}

MESSAGING_MAKE(bus, clause, clause_encode, clause_decode);

constexpr int count = 1000;
constexpr messaging_kind kind = 3;

int deadline_ms() {
  const char *scale = std::getenv("MESSAGING_TEST_SCALE");
  return 20000 * (scale ? std::atoi(scale) : 1);
}

// A handle that ends with its scope.
class bus {
public:
  bus() = default;
  bus(const bus &) = delete;
  bus &operator=(const bus &) = delete;
  ~bus() {
    if (handle && bus_exit(&handle) != MESSAGING_OK) std::abort();
  }
  bus_ctx *handle = nullptr;
};

// Sends its clauses, and receives until it has those of all others; their glues in order of arrival, or nothing if something went wrong.
std::vector<int> talk(bus_ctx *ctx, int first, std::size_t expected) {
  std::vector<int> glues;
  for (int i = 0; i < count; i++) {
    const std::string text = std::to_string(first + i);
    const clause c{first + i, text};
    if (bus_send_relay_message(ctx, &c) != MESSAGING_OK) return {};
  }
  std::uint64_t last = 0;
  while (glues.size() < expected) {
    bus_batch batch{};
    if (bus_wait(ctx, deadline_ms()) != MESSAGING_OK || bus_recv(ctx, &batch) != MESSAGING_OK) return {};
    for (std::size_t i = 0; i < batch.count; i++) {
      const bus_message &m = batch.messages[i];
      if (m.type != MESSAGING_RELAY_MESSAGE || m.relay.number <= last) return {};
      if (m.relay.message.literals != std::to_string(m.relay.message.glue)) return {};
      last = m.relay.number;
      glues.push_back(m.relay.message.glue);
    }
    if (bus_batch_free(&batch) != MESSAGING_OK) return {};
  }
  return glues;
}

bool be_a_worker(const messaging_addresses &at, pid_t id, int first) {
  bus worker;
  messaging_options options{};
  options.id = id;
  if (bus_init_worker(&worker.handle, kind, at.pub, at.pull, &options) != MESSAGING_OK) return false;
  if (bus_run_worker(worker.handle, nullptr, nullptr) != MESSAGING_OK) return false;
  return talk(worker.handle, first, 2 * count).size() == 2 * count;
}

void test_cxx(void **) {
  bus im;
  messaging_addresses at;
  assert_int_equal(bus_init_im(&im.handle, &at, nullptr), MESSAGING_OK);
  const pid_t child = fork();
  if (child == 0) _exit(be_a_worker(at, 0, 10000) ? 0 : 1);
  std::atomic<bool> thread_is_fine{false};
  std::thread thread([&] { thread_is_fine = be_a_worker(at, -1, 20000); });
  const std::vector<messaging_child> children{{child, kind}, {-1, kind}};
  static std::atomic<int> errors;
  const auto on_error = [](const messaging_error *, void *) { errors++; };
  assert_int_equal(bus_run_im(im.handle, children.data(), children.size(), on_error, nullptr), MESSAGING_OK);
  const std::vector<int> glues = talk(im.handle, 30000, 2 * count);
  assert_int_equal(glues.size(), 2 * count);
  int next[2] = {10000, 20000};
  for (const int glue : glues) assert_int_equal(glue, next[glue / 20000]++);
  thread.join();
  assert_true(thread_is_fine);
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  assert_int_equal(errors, 0);
}

} // namespace

int main() {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_cxx)};
  return cmocka_run_group_tests_name("test_cxx", tests, nullptr, nullptr);
}
