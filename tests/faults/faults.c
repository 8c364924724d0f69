/* Faults on real processes: plays every row of the table, each in a process of its own, and prints what happened.
 *   usage: faults [--quick] [PATTERN]     PATTERN: of the rows' functions
 * Unless --quick, two processes that only spin keep both cores busy all the while. */
#define _GNU_SOURCE
#include "faults.h"

#include <fnmatch.h>
#include <ftw.h>
#include <sched.h>
#include <sys/pidfd.h>

const row *the_row;
story *the_story;

static const row_group *const groups[] = {&kill_worker_group, &kill_supervisor_group, &restart_group, &stop_group,    &proxy_group,
                                          &inject_group,      &interrupt_group,       &files_group,   &descriptors_group, &storm_group,
                                          &idle_group,        &largest_group,         &crowd_group,   &fork_group,    &hasty_group};

enum { CORES = 2, ROW_SECONDS = 150, LOG_LINES = 12 };

static pid_t spinners[CORES], row_group_pid;
static char folder[PATH_MAX], log_path[PATH_MAX + 16];
static unsigned passed, failed, skipped, limits, lines;

/* ---- Load ---------------------------------------------------------------------------------------------------------------- */

/* On a machine with more cores than that, everything happens on two of them. */
static void stay_on_two_cores(void) {
  cpu_set_t all, two;
  CPU_ZERO(&two);
  if (sched_getaffinity(0, sizeof all, &all) != 0) return;
  for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&two) < CORES; cpu++)
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &two);
  (void)sched_setaffinity(0, sizeof two, &two);
}

static void start_spinners(void) {
  for (int i = 0; i < CORES; i++) {
    spinners[i] = fork();
    if (spinners[i] == 0) {
      (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (volatile unsigned n = 0;; n++) {}
    }
  }
}

static void stop_spinners(void) {
  for (int i = 0; i < CORES; i++) {
    if (spinners[i] <= 0) continue;
    (void)kill(spinners[i], SIGKILL);
    (void)waitpid(spinners[i], NULL, 0);
    spinners[i] = 0;
  }
}

static void on_end(int signal_number) {
  for (int i = 0; i < CORES; i++)
    if (spinners[i] > 0) (void)kill(spinners[i], SIGKILL);
  if (row_group_pid > 0) (void)kill(-row_group_pid, SIGKILL);
  _exit(128 + signal_number);
}

/* ---- One row ------------------------------------------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at) {
  (void)info;
  (void)type;
  return at->level == 0 ? 0 : remove(path);
}

static void empty_folder(void) { (void)nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

static int be_the_row(const row *r) {
  (void)setpgid(0, 0);
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
  (void)signal(SIGINT, SIG_DFL);
  (void)signal(SIGTERM, SIG_DFL);
  if (!freopen(log_path, "w", stdout) || dup2(STDOUT_FILENO, STDERR_FILENO) < 0) return 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  const struct CMUnitTest tests[] = {r->test};
  return cmocka_run_group_tests_name("row", tests, NULL, NULL) == 0 ? 0 : 1;
}

/* Waits for a process to end; false: not in time. */
static bool ends_in_time(pid_t pid, int seconds) {
  struct pollfd entry = {pidfd_open(pid, 0), POLLIN, 0};
  int64_t until = now_ms() + (int64_t)seconds * 1000, left;
  int ready = 0;
  if (entry.fd < 0) return true; /* no pidfd here: the row's own alarm has to do */
  while (ready <= 0 && (left = until - now_ms()) > 0) ready = poll(&entry, 1, (int)left);
  (void)close(entry.fd);
  return ready > 0;
}

/* What the row's log says went wrong, in one line. */
static void find_complaint(char *line, size_t size, int status) {
  char text[300];
  FILE *file = fopen(log_path, "r");
  if (WIFSIGNALED(status)) (void)snprintf(line, size, "the row ended by signal %d", WTERMSIG(status));
  else (void)snprintf(line, size, "the row failed");
  while (file && fgets(text, sizeof text, file)) {
    char *error = strstr(text, "ERROR: ");
    if (!error) error = strstr(text, "left behind: ");
    if (!error && strstr(text, "ended badly")) error = text;
    if (!error && (error = strstr(text, "[  ERROR   ] --- "))) error += 17;
    if (!error && strstr(text, " error: ")) error = strstr(text, " error: ") + 1;
    if (!error) continue;
    error[strcspn(error, "\n")] = 0;
    if (strncmp(error, "ERROR: ", 7) == 0) error += 7;
    (void)snprintf(line, size, "%s", error);
    break;
  }
  if (file) (void)fclose(file);
}

static void print_log(void) {
  char text[LOG_LINES][300];
  unsigned count = 0;
  FILE *file = fopen(log_path, "r");
  while (file && fgets(text[count % LOG_LINES], sizeof text[0], file)) count++;
  if (file) (void)fclose(file);
  for (unsigned i = count > LOG_LINES ? count - LOG_LINES : 0; i < count; i++) print_message("      > %s", text[i % LOG_LINES]);
}

static void print_row(const row *r, int status, bool in_time, int64_t took_ms) {
  const char *verdict = "ok";
  bool fine = in_time && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (!in_time) {
    happened("hangs: not over after %d s", ROW_SECONDS * test_scale());
  } else if (!fine) {
    char line[300];
    find_complaint(line, sizeof line, status);
    size_t at = strlen(the_story->happened);
    if (at + strlen(line) + 3 < sizeof the_story->happened) and_then("%s%s", at ? "; " : "", line);
  }
  if (!fine) verdict = "FAILED", failed++;
  else if (the_story->verdict == SKIPPED) verdict = "skipped", skipped++;
  else if (the_story->verdict == LIBZMQ) verdict = "libzmq", limits++;
  else passed++;
  print_message("%3u | %-58s | %-60s | %-50s | %-7s | %4.1f s\n", ++lines, the_story->injected[0] ? the_story->injected : r->injected,
                the_story->must[0] ? the_story->must : r->must,
                the_story->happened, verdict, (double)took_ms / 1000);
  if (!fine) print_log();
}

/* True: if the row is numbered, the next number may be reached, too. */
static bool play(const row *r, size_t argument) {
  memset(the_story, 0, sizeof *the_story);
  the_story->argument = argument;
  the_row = r;
  int64_t before = now_ms();
  (void)fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) exit(be_the_row(r));
  if (pid < 0) {
    perror("faults: fork");
    exit(1);
  }
  (void)setpgid(pid, pid);
  row_group_pid = pid;
  bool in_time = ends_in_time(pid, ROW_SECONDS * test_scale());
  (void)kill(-pid, SIGKILL);
  row_group_pid = 0;
  int status = 0;
  (void)waitpid(pid, &status, 0);
  print_row(r, status, in_time, now_ms() - before);
  while (waitpid(-pid, NULL, 0) > 0) {} /* what the row left */
  empty_folder();
  return in_time && the_story->verdict != SKIPPED && atomic_load(&the_story->reached);
}

/* ---- The table ----------------------------------------------------------------------------------------------------------- */

static void play_group(const row_group *group, bool quick, const char *pattern) {
  bool titled = false;
  for (size_t i = 0; i < group->count; i++) {
    const row *r = &group->rows[i];
    if ((quick && !r->quick) || (pattern && fnmatch(pattern, r->test.name, 0) != 0)) continue;
    if (!titled) print_message("---- %s\n", group->title);
    titled = true;
    if (!r->numbered_to) (void)play(r, r->argument);
    for (size_t n = 1; n <= r->numbered_to && play(r, n); n++) {}
  }
}

static bool prepare(void) {
  const char *base = getenv("TMPDIR");
  (void)snprintf(folder, sizeof folder, "%s/faults-XXXXXX", base && base[0] == '/' && strlen(base) < 40 ? base : "/tmp");
  if (!mkdtemp(folder) || setenv("TMPDIR", folder, 1) != 0) return false;
  (void)snprintf(log_path, sizeof log_path, "%s.log", folder);
  void *memory = mmap(NULL, sizeof *the_story, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  the_story = memory;
  return true;
}

int main(int argc, char **argv) {
  bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
  const char *pattern = argc > 1 + quick ? argv[1 + quick] : NULL;
  setvbuf(stdout, NULL, _IOLBF, 0);
  (void)signal(SIGINT, on_end);
  (void)signal(SIGTERM, on_end);
  if (!prepare()) {
    perror("faults");
    return 1;
  }
  (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
  stay_on_two_cores();
  if (!quick) start_spinners();
  print_message("  # | injected | must happen | happened | ok, FAILED, skipped, or libzmq: a known limit of libzmq\n");
  for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) play_group(groups[i], quick, pattern);
  stop_spinners();
  (void)unlink(log_path);
  (void)rmdir(folder);
  int major, minor, patch;
  zmq_version(&major, &minor, &patch);
  print_message("faults: %u passed, %u failed, %u skipped, %u known limits of libzmq %d.%d.%d\n", passed, failed, skipped, limits,
                major, minor, patch);
  return failed > 0 || passed == 0;
}
