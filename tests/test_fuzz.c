/* The inputs that fuzzing has found worth keeping, and those that once made something fail, run again through the targets of tests/fuzz/. */
#define FUZZ_REPLAY 1

#include "fuzz/bytes.c"
#include "fuzz/supervisor.c"
#include "fuzz/worker.c"

#include <dirent.h>
#include <setjmp.h>
#include <stddef.h>

#include <cmocka.h>

typedef int target_fn(const uint8_t *data, size_t size);

enum { INPUT_MAX = 1 << 16 };

static void replay_file(target_fn *target, const char *path) {
  uint8_t *input = malloc(INPUT_MAX);
  FILE *file = fopen(path, "rb");
  assert_non_null(input);
  assert_non_null(file);
  size_t size = fread(input, 1, INPUT_MAX, file);
  assert_int_equal(fgetc(file), EOF);
  assert_int_equal(fclose(file), 0);
  uint8_t *exact = realloc(input, size ? size : 1); /* so that reading behind the end shows */
  assert_non_null(exact);
  fuzz_input = path;
  printf("[ RUN      ] %s\n", path); /* the last one that was said is the one that crashed */
  target(exact, size);
  free(exact);
}

/* Runs the files of a folder whose names begin with a prefix. */
static int replay_folder(target_fn *target, const char *folder, const char *prefix) {
  struct dirent **entries;
  int replayed = 0, count = scandir(folder, &entries, NULL, alphasort);
  for (int i = 0; i < count; i++) {
    char path[512];
    snprintf(path, sizeof path, "%s/%.200s", folder, entries[i]->d_name);
    if (entries[i]->d_name[0] != '.' && strncmp(entries[i]->d_name, prefix, strlen(prefix)) == 0) {
      replay_file(target, path);
      replayed++;
    }
    free(entries[i]);
  }
  if (count >= 0) free(entries);
  return replayed;
}

static void replay(target_fn *target, const char *corpus, const char *prefix) {
  assert_true(replay_folder(target, corpus, "") > 0);
  replay_folder(target, "tests/fuzz/regressions", prefix);
}

static void test_supervisor(void **state) {
  (void)state;
  replay(fuzz_supervisor, "tests/fuzz/corpus/supervisor", "supervisor");
}

static void test_worker(void **state) {
  (void)state;
  replay(fuzz_worker, "tests/fuzz/corpus/worker", "worker");
}

static void test_bytes(void **state) {
  (void)state;
  replay(fuzz_other_bytes, "tests/fuzz/corpus/bytes", "bytes");
  bytes_close_sockets();
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_supervisor), cmocka_unit_test(test_worker), cmocka_unit_test(test_bytes)};
  setvbuf(stdout, NULL, _IOLBF, 0);
  cmocka_set_test_filter(getenv("MESSAGING_TEST"));
  return cmocka_run_group_tests(tests, NULL, NULL);
}
