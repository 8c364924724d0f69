/* The default transport can be reached by the same user only, and what he does there harms nobody. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../messaging.h"
#include "watched.h"

static int encode(msgpack_packer *pk, const int *in) { return msgpack_pack_int(pk, *in); }
static int decode(const msgpack_object *obj, msgpack_zone *zone, int *out) {
  (void)zone;
  *out = (int)obj->via.i64;
  return 0;
}
MESSAGING_MAKE(bus, int, encode, decode);

enum { NOBODY = 65534, CANNOT_TRY = 254, DEADLINE_MS = 60000 };

/* What connecting to a socket gives another user: 0 or an errno. */
static int connect_as(uid_t user, const char *address) {
  pid_t child = fork();
  if (child == 0) {
    inherits_memory();
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strncpy(name.sun_path, address + strlen("ipc://"), sizeof name.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) _exit(255);
    if (setgid(user) != 0 || setuid(user) != 0) _exit(CANNOT_TRY); /* root of a namespace without that user */
    _exit(connect(fd, (struct sockaddr *)&name, sizeof name) == 0 ? 0 : errno);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  return WEXITSTATUS(status);
}

static void test_other_users_are_kept_out(void **state) {
  bus_ctx *im;
  messaging_addresses at;
  (void)state;
  if (geteuid() != 0) {
    print_message("skipped: only root can try as another user\n");
    skip();
  }
  assert_int_equal(bus_init_im(&im, &at, NULL), MESSAGING_OK);
  assert_int_equal(connect_as(0, at.pub), 0); /* the check itself works */
  int barred[] = {connect_as(NOBODY, at.pub), connect_as(NOBODY, at.pull)};
  assert_int_equal(bus_exit(&im), MESSAGING_OK);
  if (barred[0] == CANNOT_TRY) {
    print_message("skipped: this root cannot be another user\n");
    skip();
  }
  assert_int_equal(barred[0], EACCES);
  assert_int_equal(barred[1], EACCES);
}

static void test_folder_is_private_and_removed(void **state) {
  bus_ctx *im;
  messaging_addresses at;
  char folder[sizeof at], pid[40];
  struct stat info;
  (void)state;
  assert_int_equal(bus_init_im(&im, &at, NULL), MESSAGING_OK);
  snprintf(folder, sizeof folder, "%s", at.pub + strlen("ipc://"));
  *strrchr(folder, '/') = 0;
  snprintf(pid, sizeof pid, "/messaging-%ld-", (long)getpid());
  assert_int_equal(folder[0], '/');
  assert_non_null(strstr(folder, pid));
  assert_true(strlen(at.pull) - strlen("ipc://") <= 107);
  assert_int_equal(stat(folder, &info), 0);
  assert_int_equal(info.st_mode & 0777, 0700);
  assert_int_equal(bus_exit(&im), MESSAGING_OK);
  assert_int_equal(stat(folder, &info), -1);
}

/* Connects to the publisher's address, and hangs up, until it is told to stop. */
typedef struct {
  struct sockaddr_un name;
  atomic_int connected;
  atomic_bool stop;
} caller;

static void *call_again_and_again(void *argument) {
  caller *c = argument;
  while (!atomic_load(&c->stop)) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) break;
    atomic_fetch_add(&c->connected, connect(fd, (struct sockaddr *)&c->name, sizeof c->name) == 0);
    close(fd);
  }
  return NULL;
}

/* The library is told of each connection. What comes while it leaves neither holds it up nor stays in memory, which the sanitizers look after. */
static void test_exit_while_strangers_connect(void **state) {
  enum { TIMES = 20, CONNECTED = 10 };
  (void)state;
  for (int i = 0; i < TIMES; i++) {
    bus_ctx *im;
    messaging_addresses at;
    messaging_child child = {-1, 1};
    caller c = {.name.sun_family = AF_UNIX};
    pthread_t thread;
    assert_int_equal(bus_init_im(&im, &at, NULL), MESSAGING_OK);
    assert_int_equal(bus_run_im(im, &child, 1, NULL, NULL), MESSAGING_OK);
    strncpy(c.name.sun_path, at.pub + strlen("ipc://"), sizeof c.name.sun_path - 1);
    assert_int_equal(pthread_create(&thread, NULL, call_again_and_again, &c), 0);
    for (uint64_t until = messaging__now_ms() + DEADLINE_MS; atomic_load(&c.connected) < CONNECTED; sched_yield()) assert_true(messaging__now_ms() < until);
    messaging_status status = bus_exit(&im);
    atomic_store(&c.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(status, MESSAGING_OK);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_other_users_are_kept_out), cmocka_unit_test(test_folder_is_private_and_removed),
                                     cmocka_unit_test(test_exit_while_strangers_connect)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
