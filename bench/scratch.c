#define _GNU_SOURCE
#include "scratch.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools.h"

static char scratch[256];

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at) {
  (void)st, (void)type, (void)at;
  return remove(path);
}

void scratch_remove(void) { nftw(scratch, remove_entry, 8, FTW_DEPTH | FTW_PHYS); }

void scratch_make(void) {
  const char *below = getenv("TMPDIR");
  snprintf(scratch, sizeof scratch, "%.200s/bench-XXXXXX", below && *below ? below : "/tmp");
  if (!mkdtemp(scratch)) fail("%s: %s", scratch, strerror(errno));
  setenv("TMPDIR", scratch, 1);
  on_failure(scratch_remove);
}
