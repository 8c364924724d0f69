/* watched.h - what a test has to know when valgrind watches it; cmocka.h and messaging.h come before */
#ifndef WATCHED_H
#define WATCHED_H

/* A forked child has its parent's memory and none of its threads, on whose stacks pointers into it lie. valgrind would call that lost. */
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
static inline void inherits_memory(void) {
#ifdef VALGRIND_CLO_CHANGE
  VALGRIND_CLO_CHANGE("--leak-check=no");
#endif
}

/* valgrind 3.19 knows no pidfd. The library does without and hears of a death by silence alone, which is not what such a test is about. */
static inline void needs_pidfd(void) {
  int fd = pidfd_open(getpid(), 0);
  if (fd < 0) skip();
  (void)close(fd);
}

#endif
