/* The default transport can be reached by the same user only. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
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

enum { NOBODY = 65534, CANNOT_TRY = 254 };

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

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_other_users_are_kept_out), cmocka_unit_test(test_folder_is_private_and_removed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
