/* scratch.h - one folder, TMPDIR from then on, for whatever killed processes leave behind. */
#ifndef BENCH_SCRATCH_H
#define BENCH_SCRATCH_H

void scratch_make(void);
void scratch_remove(void);

#endif
