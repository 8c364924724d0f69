/* Nothing polls: a supervisor and a worker that have nothing to do sleep but for their heartbeats, libzmq's threads included. */
#include "harness.h"

enum { WINDOW_MS = 5000, WINDOWS = 3, WAKEUPS_PER_SECOND = 30, CPU_PERMILLE = 2 };

/* Times that any thread of a process went to sleep, which it did once for each time that it woke. */
static uint64_t count_sleeps(pid_t pid) {
  char path[64], line[256];
  uint64_t total = 0;
  (void)snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
  DIR *dir = opendir(path);
  assert_non_null(dir);
  for (struct dirent *e; (e = readdir(dir));) {
    if (e->d_name[0] == '.') continue;
    char file[400];
    (void)snprintf(file, sizeof file, "%s/%s/status", path, e->d_name);
    FILE *status = fopen(file, "r");
    if (!status) continue;
    while (fgets(line, sizeof line, status)) {
      unsigned long long n;
      if (sscanf(line, "voluntary_ctxt_switches: %llu", &n) == 1) total += n;
    }
    (void)fclose(status);
  }
  (void)closedir(dir);
  return total;
}

static void test_idle_pair(void **state) {
  world *w = *state;
  if (test_scale() > 1 || SANITIZED) skip(); /* the bar is for the library, not for what watches it */
  puppet *im = hire(w), *p = hire(w);
  reply r = order(im, COMMAND(DO_INIT_IM));
  assert_ok(r.status);
  w->addresses = r.addresses;
  command run = {.type = DO_RUN_IM, .children = {child_of(p)}, .children_count = 1};
  assert_ok(order(im, run).status);
  join(w, p, NULL);
  assert_ok(order(im, TALK(.first = 1, .count = 100, .size = 100)).status); /* some traffic before */
  assert_ok(order(p, TALK(.first = 1, .count = 100, .size = 100, .relays = 100)).status);
  assert_ok(order(im, TALK(.relays = 100)).status);

  uint64_t best_wakeups = UINT64_MAX, best_cpu_us = UINT64_MAX;
  for (int i = 0; i < WINDOWS; i++) {
    uint64_t cpu_us = order(im, COMMAND(DO_CPU)).cpu_us + order(p, COMMAND(DO_CPU)).cpu_us;
    uint64_t sleeps = count_sleeps(im->pid) + count_sleeps(p->pid);
    int64_t before = now_ms();
    pause_ms(WINDOW_MS);
    uint64_t elapsed_ms = (uint64_t)(now_ms() - before);
    sleeps = count_sleeps(im->pid) + count_sleeps(p->pid) - sleeps;
    cpu_us = order(im, COMMAND(DO_CPU)).cpu_us + order(p, COMMAND(DO_CPU)).cpu_us - cpu_us;
    if (sleeps * 1000 / elapsed_ms < best_wakeups) best_wakeups = sleeps * 1000 / elapsed_ms;
    if (cpu_us * 1000 / elapsed_ms < best_cpu_us) best_cpu_us = cpu_us * 1000 / elapsed_ms;
    if (best_wakeups < WAKEUPS_PER_SECOND && best_cpu_us < CPU_PERMILLE * 1000) break;
  }
  print_message("an idle pair: %d wake-ups a second, %d.%02d %% of a core\n", (int)best_wakeups, (int)(best_cpu_us / 10000),
                (int)(best_cpu_us / 100 % 100));
  assert_true(best_wakeups < WAKEUPS_PER_SECOND);
  assert_true(best_cpu_us < CPU_PERMILLE * 1000);
  assert_ok(order(p, COMMAND(DO_EXIT)).status);
  assert_ok(order(im, COMMAND(DO_EXIT)).status);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_PROCESSES(test_idle_pair),
  };
  return RUN_TESTS(test_idle, tests);
}
