/* tools.h - what every part of the benchmark needs: time, memory shared by processes, children, order statistics. */
#ifndef BENCH_TOOLS_H
#define BENCH_TOOLS_H

#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

/* CLOCK_MONOTONIC is one clock for all processes of a machine, so that times of different processes can be compared. */
int64_t now_ns(void);
void sleep_until_ns(int64_t at_ns);

/* Prints to stderr and ends the process with status 2: the benchmark itself could not go on. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What fail does before it ends this process; not its children. */
void on_failure(void (*clean_up)(void));

/* Zeroed memory that this process and all that it forks share, and that outlives a SIGKILL of any of them. Its pages are
 * there already, so that touching one costs nothing in a timed stretch. Fails instead of returning NULL. */
void *shared_make(size_t bytes);
void shared_release(void *memory, size_t bytes);

/* Zeroed, or the process fails. */
void *checked_calloc(size_t count, size_t bytes);

/* Forks a child that nobody can leave behind: SIGALRM ends it after limit_s, and SIGKILL when its parent dies unless it is to
 * outlive its parent. 0 in the child, its pid in the parent. */
pid_t fork_limited(unsigned limit_s, bool outlives_parent);

/* True when the child ended by itself with status 0 before the deadline; past it, the child is killed. Until then this process
 * sleeps for a millisecond at a time; lag_ns, unless NULL, grows to the longest that it overslept. */
bool reap_until(pid_t child, int64_t deadline_ns, int64_t *lag_ns);

/* Waits for a semaphore in shared memory. False: the deadline came first. */
bool take_until(sem_t *semaphore, int64_t deadline_ns);

/* Sorts, then picks by nearest rank; 0 for an empty array. */
void sort_ns(int64_t *values, size_t count);
int64_t quantile_ns(const int64_t *sorted, size_t count, double q);
double median(double *values, size_t count);

/* Grows a vector by doubling up to a limit; returns its new place. */
void *grow(void *memory, size_t count, size_t *capacity, size_t item_bytes, size_t count_max);

#endif
