#!/bin/sh
# The SAT portfolio in bench/portfolio: satisfiable, unsatisfiable and broken files, killed workers, Ctrl-C. Skipped without CaDiCaL.
cd "$(dirname "$0")/.." && exec "${MAKE:-make}" --no-print-directory -f bench/portfolio/portfolio.mk test-portfolio ${CC:+"CC=$CC"}
