#define _GNU_SOURCE
#include "rounds.h"

#include <unistd.h>

#include "tools.h"

rounds *rounds_make(uint32_t process_count, uint32_t passes, bool relay_counts) {
  size_t size = sizeof(rounds) + process_count * sizeof(round_process);
  rounds *s = shared_make(size);
  s->bytes = size;
  s->process_count = process_count;
  s->passes = passes;
  s->relay_counts = relay_counts;
  sem_init(&s->bound, 1, 0);
  sem_init(&s->ready, 1, 0);
  sem_init(&s->done, 1, 0);
  for (uint32_t p = 0; p < process_count; p++) sem_init(&s->processes[p].go, 1, 0);
  return s;
}

void rounds_release(rounds *s) { shared_release(s, s->bytes); }

bool round_await(rounds *s, uint32_t p) {
  if (!take_until(&s->processes[p].go, now_ns() + 4 * ROUND_DEADLINE_MS * NS_PER_MS)) _exit(4);
  return !s->over;
}

void round_finish(rounds *s, uint32_t p, uint32_t round, uint64_t missed) {
  s->processes[p].finished_ns[round] = now_ns();
  s->processes[p].missed[round] = missed;
  sem_post(&s->done);
}

static uint32_t first_process(const rounds *s) { return s->relay_counts ? 0 : 1; }

void rounds_await_join(rounds *s, const char *what) {
  int64_t deadline_ns = now_ns() + ROUND_DEADLINE_MS * NS_PER_MS;
  for (uint32_t p = first_process(s); p < s->process_count; p++)
    if (!take_until(&s->ready, deadline_ns)) fail("%s: not every process joined in time", what);
}

int64_t round_run(rounds *s, uint32_t round, uint64_t *missed) {
  int64_t begun_ns = now_ns(), last_ns = begun_ns;
  int64_t deadline_ns = begun_ns + 2 * ROUND_DEADLINE_MS * NS_PER_MS;
  for (uint32_t p = first_process(s); p < s->process_count; p++) sem_post(&s->processes[p].go);
  for (uint32_t p = first_process(s); p < s->process_count; p++)
    if (!take_until(&s->done, deadline_ns)) fail("a process did not finish its round");
  *missed = 0;
  for (uint32_t p = first_process(s); p < s->process_count; p++) {
    const round_process *process = &s->processes[p];
    if (process->finished_ns[round] > last_ns) last_ns = process->finished_ns[round];
    *missed += process->missed[round];
  }
  return last_ns - begun_ns;
}

void rounds_end(rounds *s) {
  s->over = true;
  for (uint32_t p = 0; p < s->process_count; p++) sem_post(&s->processes[p].go);
}
