#!/bin/sh
# Runs tests, JOBS at a time, prints what each said once it is over, and at the end the sum.
#   usage: tests/run.sh FOLDER "COMMAND [ARGUMENT...]"...
# A program that prints no summary, in cmocka's manner or as "name: N passed, N failed", counts as one test; one that ends badly without saying so, as one that failed.
# WRAPPER: a command to run each program with. LIMIT: seconds for each.
set -u

if [ "$1" = --one ]; then
  name=$(basename "${3%% *}")
  log=$2/$name.log
  # shellcheck disable=SC2086
  timeout --kill-after=10 "${LIMIT:-1500}" ${WRAPPER:-} $3 > "$log" 2>&1 < /dev/null
  code=$?
  awk -v code=$code -v name="$name" '
    /^\[  PASSED  \] [0-9]+ test/ { passed += $4; said = 1 }
    /^\[  FAILED  \] [0-9]+ test/ { failed += $4; said = 1 }
    /^[a-z_]+: [0-9]+ passed, [0-9]+ failed/ { passed += $2; failed += $4; said = 1 }
    END {
      if (!said && code == 0) passed = 1
      if (code != 0 && !failed) failed = 1
      printf "%d %d %s %d\n", passed, failed, name, code
    }' "$log" > "$2/$name.sum"
  exec 9> "$2/lock" && flock 9
  echo "== $name"
  grep -v '^\[ RUN      \]\|^\[       OK \]' "$log"
  [ $code -eq 0 ] || echo "== $name ended with status $code; all it said is in $log"
  exit 0
fi

folder=$1/logs
shift
rm -rf "$folder"
mkdir -p "$folder"
printf '%s\0' "$@" | xargs -0 -P "${JOBS:-2}" -n 1 "$0" --one "$folder"
cat "$folder"/*.sum | awk '{ passed += $1; failed += $2 } END { printf "%d passed, %d failed\n", passed, failed; exit failed > 0 || passed == 0 }'
