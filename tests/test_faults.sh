#!/bin/sh
# The quick rows of the table of faults (tests/faults); make faults plays all. Compiled without optimisation, which is soon done.
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}/quick
"${MAKE:-make}" --no-print-directory -s -j"${JOBS:-2}" -f tests/faults.mk BUILD="$build" CFLAGS="${CFLAGS:-} -O0" ${CC:+"CC=$CC"} \
  "$build/faults/faults" && exec "$build/faults/faults" --quick
