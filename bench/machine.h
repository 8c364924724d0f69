/* machine.h - on what, and with which versions, something was measured. */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include <stdio.h>

/* Lines of text, each with the prefix. */
void machine_print(FILE *file, const char *prefix);
/* What a system call and a fresh page cost here, measured once: on virtual machines often more than all else. */
void machine_print_costs(FILE *file, const char *prefix);
/* A row, with its header. */
void machine_csv(FILE *file);

#endif
