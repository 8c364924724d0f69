#define _GNU_SOURCE
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "note.h"
#include "tools.h"

#define SCENE_LIMIT_S 300u
#define JOIN_TIMEOUT_MS 60000

/* ==== A message ======================================================================================================= */

static void put32(uint8_t *at, uint32_t value) {
  uint32_t big = __builtin_bswap32(value);
  memcpy(at, &big, sizeof big);
}

void packet_mark(packet *m, uint32_t seq) {
  m->seq = seq;
  if (m->size < NOTE_SMALL) return;
  put32(m->bytes + 2, m->tag);
  put32(m->bytes + 7, seq);
}

void packet_read(const void *bytes, size_t size, uint32_t *tag, uint32_t *seq) {
  *tag = *seq = 0;
  if (size < NOTE_SMALL) return;
  memcpy(tag, (const uint8_t *)bytes + 2, sizeof *tag);
  memcpy(seq, (const uint8_t *)bytes + 7, sizeof *seq);
  *tag = __builtin_bswap32(*tag);
  *seq = __builtin_bswap32(*seq);
}

packet packet_make(uint32_t size, uint32_t tag) {
  uint32_t body_size = note_body_size(size);
  char *body = checked_calloc(body_size, 1);
  msgpack_sbuffer buffer;
  msgpack_packer packer;
  msgpack_sbuffer_init(&buffer);
  msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
  for (uint32_t i = 0; i < body_size; i++) body[i] = (char)(i * 7);
  note n = {tag, 0, size, body, body_size};
  if (note_encode(&packer, &n) != 0 || buffer.size != size) fail("a note of %u bytes became %zu", size, buffer.size);
  free(body);
  return (packet){.tag = tag, .size = size, .bytes = (uint8_t *)buffer.data};
}

/* ==== Beginning ======================================================================================================= */

bool scene_hears(const scene *s, uint32_t worker, uint32_t tag) { return !s->actors[worker].deaf && tag != worker; }

void scene_stamp(scene *s, int stamp) {
  if (s->stamps) s->stamps[stamp] = now_ns();
}

void scene_path(const scene *s, char *out, size_t size, const char *prefix, const char *name, uint32_t worker) {
  snprintf(out, size, "%s%s/%s%u", prefix, s->folder, name, worker);
}

static scene *scene_make(const scene_plan *plan) {
  size_t bytes = sizeof(scene) + plan->workers * sizeof(actor);
  scene *s = shared_make(bytes);
  const char *below = getenv("TMPDIR");
  s->bytes = bytes;
  s->system = plan->system;
  s->workers = plan->workers;
  s->size = plan->size;
  s->role = plan->role;
  s->role_data = plan->role_data;
  s->stamps = plan->stamps;
  snprintf(s->folder, sizeof s->folder, "%.90s/scene-XXXXXX", below && *below ? below : "/tmp");
  if (!mkdtemp(s->folder)) fail("%s: no folder", s->folder);
  sem_t *semaphores[] = {&s->bound, &s->listed, &s->joined, &s->all_in, &s->done};
  for (size_t i = 0; i < sizeof semaphores / sizeof semaphores[0]; i++) sem_init(semaphores[i], 1, 0);
  for (uint32_t w = 0; w < s->workers; w++) {
    sem_init(&s->actors[w].go, 1, 0);
    s->actors[w].deaf = w < plan->deaf;
  }
  return s;
}

static void stay_on_one_core(void) {
  cpu_set_t set;
  size_t core = 0;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return;
  while (core < CPU_SETSIZE - 1 && !CPU_ISSET(core, &set)) core++;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof set, &set);
}

static pid_t fork_one(const scene_plan *plan, const char *name) {
  pid_t child = fork_limited(SCENE_LIMIT_S, false);
  if (child == 0) prctl(PR_SET_NAME, name);
  if (child == 0 && plan->one_core) stay_on_one_core();
  return child;
}

static _Noreturn void worker_main(scene *s, uint32_t w) {
  void *end = s->system->join(s, w);
  sem_post(&s->joined);
  for (;;) {
    if (!take_until(&s->actors[w].go, now_ns() + SCENE_LIMIT_S * NS_PER_S)) _exit(4);
    if (s->over) _exit(0);
    s->role(s, w, end);
    sem_post(&s->done);
  }
}

static bool everybody_is_in(scene *s) {
  int64_t deadline_ns = now_ns() + JOIN_TIMEOUT_MS * NS_PER_MS;
  for (uint32_t w = 0; w < s->workers; w++)
    if (!take_until(&s->joined, deadline_ns)) return false;
  return take_until(&s->all_in, deadline_ns);
}

scene *scene_begin(const scene_plan *plan) {
  scene *s = scene_make(plan);
  if (s->system->prepare) s->system->prepare(s);
  pid_t supervisor = fork_one(plan, "supervisor");
  if (supervisor == 0) {
    s->system->relay(s);
    _exit(0);
  }
  s->supervisor = supervisor;
  bool fine = take_until(&s->bound, now_ns() + JOIN_TIMEOUT_MS * NS_PER_MS);
  s->begun_ns = now_ns();
  for (uint32_t w = 0; fine && w < s->workers; w++) {
    pid_t child = fork_one(plan, w < plan->deaf ? "sender" : "worker");
    if (child == 0) worker_main(s, w);
    s->actors[w].pid = child;
  }
  sem_post(&s->listed);
  fine = fine && everybody_is_in(s);
  s->ready_ns = now_ns();
  if (fine) return s;
  fprintf(stderr, "bench: %s with %u workers did not get ready\n", s->system->name, s->workers);
  scene_end(s);
  return NULL;
}

/* ==== Running and ending ============================================================================================== */

void scene_go(scene *s, uint32_t worker) { sem_post(&s->actors[worker].go); }

bool scene_await(scene *s, uint32_t so_many) {
  int64_t deadline_ns = now_ns() + 4 * RECEIVE_TIMEOUT_MS * NS_PER_MS;
  for (uint32_t i = 0; i < so_many; i++)
    if (!take_until(&s->done, deadline_ns)) return false;
  return true;
}

static void end_process(pid_t pid) {
  if (pid <= 0) return;
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}

static void remove_folder(const char *folder) {
  DIR *dir = opendir(folder);
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    unlink(path);
  }
  if (dir) closedir(dir);
  rmdir(folder);
}

void scene_end(scene *s) {
  for (uint32_t w = 0; w < s->workers; w++)
    if (s->actors[w].pid > 0) kill(s->actors[w].pid, SIGKILL);
  for (uint32_t w = 0; w < s->workers; w++) end_process(s->actors[w].pid);
  end_process(s->supervisor);
  if (s->system->release) s->system->release(s);
  remove_folder(s->folder);
  shared_release(s, s->bytes);
}

/* ==== What it costs =================================================================================================== */

static int64_t process_cpu_ns(pid_t pid) {
  clockid_t clock;
  struct timespec ts;
  if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &ts) != 0) return 0;
  return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int64_t scene_supervisor_cpu_ns(const scene *s) { return process_cpu_ns(s->supervisor); }

int64_t scene_cpu_ns(const scene *s) {
  int64_t sum = scene_supervisor_cpu_ns(s);
  for (uint32_t w = 0; w < s->workers; w++) sum += process_cpu_ns(s->actors[w].pid);
  return sum;
}

/* The sum, or the first if only that is asked for, of the numbers behind a name in a file of /proc. */
static uint64_t proc_number(const char *path, const char *name) {
  char line[256];
  uint64_t sum = 0;
  size_t length = strlen(name);
  FILE *file = fopen(path, "r");
  while (file && fgets(line, sizeof line, file))
    if (strncmp(line, name, length) == 0) sum += strtoull(line + length, NULL, 10);
  if (file) fclose(file);
  return sum;
}

static uint64_t process_sleeps(pid_t pid) {
  char path[128];
  uint64_t sum = 0;
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *dir = opendir(path);
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "/proc/%d/task/%.20s/status", pid, entry->d_name);
    sum += proc_number(path, "voluntary_ctxt_switches:");
  }
  if (dir) closedir(dir);
  return sum;
}

uint64_t scene_sleeps(const scene *s) {
  uint64_t sum = process_sleeps(s->supervisor);
  for (uint32_t w = 0; w < s->workers; w++) sum += process_sleeps(s->actors[w].pid);
  return sum;
}

/* ==== Threads ========================================================================================================= */

static int thread_kind(pid_t pid, pid_t thread) {
  char path[64], name[32] = "";
  if (thread == pid) return ON_APPLICATION;
  snprintf(path, sizeof path, "/proc/%d/task/%d/comm", pid, thread);
  FILE *file = fopen(path, "r");
  if (file && !fgets(name, sizeof name, file)) name[0] = 0;
  if (file) fclose(file);
  return strncmp(name, "ZMQbg", 5) == 0 ? ON_LIBZMQ_IO : ON_BACKGROUND;
}

static double thread_cpu_ns(pid_t pid, pid_t thread) {
  char path[64];
  unsigned long long ns = 0;
  snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", pid, thread);
  FILE *file = fopen(path, "r");
  if (file && fscanf(file, "%llu", &ns) != 1) ns = 0;
  if (file) fclose(file);
  return (double)ns;
}

static double process_faults(pid_t pid) {
  char path[64];
  unsigned long long faults = 0;
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *file = fopen(path, "r");
  if (file && fscanf(file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %llu", &faults) != 1) faults = 0;
  if (file) fclose(file);
  return (double)faults;
}

static void threads_add(pid_t pid, int role, scene_threads *sum, double factor) {
  char path[128];
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *dir = opendir(path);
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    pid_t thread = (pid_t)atoi(entry->d_name);
    if (thread == 0) continue;
    int kind = thread_kind(pid, thread);
    snprintf(path, sizeof path, "/proc/%d/task/%d/status", pid, thread);
    sum->cpu_ns[role][kind] += factor * thread_cpu_ns(pid, thread);
    sum->sleeps[role][kind] += factor * (double)proc_number(path, "voluntary_ctxt_switches:");
  }
  if (dir) closedir(dir);
  sum->faults[role] += factor * process_faults(pid);
}

void scene_threads_add(const scene *s, scene_threads *sum, double factor) {
  threads_add(s->supervisor, OF_SUPERVISOR, sum, factor);
  for (uint32_t w = 0; w < s->workers; w++) threads_add(s->actors[w].pid, s->actors[w].deaf ? OF_SENDERS : OF_RECEIVERS, sum, factor);
}

size_t process_private_bytes(pid_t pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
  return (size_t)(proc_number(path, "Private_Clean:") + proc_number(path, "Private_Dirty:")) * 1024;
}
