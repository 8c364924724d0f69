/* watched.h - what a test has to know when valgrind watches it; cmocka.h and messaging.h come before */
#ifndef WATCHED_H
#define WATCHED_H

/* A forked child has its parent's memory and none of its threads, on whose stacks pointers into it lie. valgrind would call that lost. */
#if defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#endif
#endif
static inline void inherits_memory(void) {
#ifdef VALGRIND_CLO_CHANGE
  VALGRIND_CLO_CHANGE("--leak-check=no");
#endif
}

/* A structure is about to go through a socket, with the holes between its members. */
static inline void padding_goes_along(const void *bytes, size_t size) {
#ifdef VALGRIND_MAKE_MEM_DEFINED
  (void)VALGRIND_MAKE_MEM_DEFINED(bytes, size);
#else
  (void)bytes, (void)size;
#endif
}

/* valgrind 3.19 knows no pidfd. The library does without and hears of a death by silence alone, which is not what such a test is about. */
static inline void needs_pidfd(void) {
  int fd = pidfd_open(getpid(), 0);
  if (fd < 0) skip();
  (void)close(fd);
}

#endif
