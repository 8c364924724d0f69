#!/bin/bash
# Tests the portfolio: bench/portfolio/test.sh build/portfolio/portfolio. Every wait is for a line of output, with a deadline.
set -u
portfolio=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export TMPDIR=$folder # where the unix sockets go
cd "$folder" || exit 1
passed=0 failures=0

check() { # check WHAT COMMAND...
  local what=$1
  shift
  if "$@"; then
    echo "[       OK ] $what" && passed=$((passed + 1))
  else
    echo "[  FAILED  ] $what" && failures=$((failures + 1))
  fi
}

# run EXIT_STATUS ARGUMENT...: the output goes to out
run() {
  local expected=$1 status=0
  shift
  timeout -k 1 10 "$portfolio" "$@" >out 2>&1 || status=$?
  [ "$status" -eq "$expected" ] && return 0
  echo "portfolio $*: exit status $status, not $expected" && cat out && return 1
}

# ---- results ----
right_product() { awk '/^c seed/ { n = $NF + 0 } / \* / { found = $2 * $4 } END { exit !(n > 1 && found == n && n < 2 ^ 53) }' out; }
for workers in 1 2 5; do
  check "$workers workers find the factors" run 10 -n $workers factor:10:1
  check "... and say so" grep -qx 's SATISFIABLE' out
  check "... which are right" right_product
  check "$workers workers find that a prime has none" run 20 -n $workers prime:10:1
  check "... and say so" grep -qx 's UNSATISFIABLE' out
done

printf 'c a comment\np cnf 3 4\n1 -2\n0 2 -3 0\n3 -1 0 1 2 3 0\n' >sat.cnf
printf 'p cnf 2 4\n1 2 0\n-1 2 0\n1 -2 0\n-1 -2 0\n' >unsat.cnf
printf 'p cnf 0 0\n' >nothing.cnf
printf 'p cnf 1 1\n0\n' >empty_clause.cnf
printf 'p cnf 3 1\n1 2 3 0\n%%\n0\n' >satlib.cnf
check 'a satisfiable file' run 10 sat.cnf
check 'an unsatisfiable file' run 20 unsat.cnf
check 'no clauses' run 10 nothing.cnf
check 'an empty clause' run 20 empty_clause.cnf
check "SATLIB's end" run 10 satlib.cnf

# ---- broken files ----
broken() { # broken WHERE WHAT CONTENT
  # shellcheck disable=SC2059
  printf "$3" >broken.cnf
  check "broken file: $2" run 1 broken.cnf
  check "... says where" grep -qF "broken.cnf:$1: " out
  check "... and what" grep -qF "$2" out
}
broken 0 'before its header' ''
broken 1:1 'header' '1 2 0\n'
broken 1:1 'header' 'p cnf 3\n'
broken 1:1 'header' 'p cnf -3 1\n'
broken 1:1 'header' 'p cnf 3 1 1\n'
broken 1:1 'more than 10000000 variables' 'p cnf 99999999999 1\n'
broken 3:3 'beyond' 'c x\np cnf 3 1\n1 4 0\n'
broken 2:1 'beyond' 'p cnf 3 1\n-99999999999999999999 0\n'
broken 2:5 'literal was expected' 'p cnf 3 1\n1 2 x 0\n'
broken 2:3 'literal was expected' 'p cnf 3 1\n1 2- 0\n'
broken 2 'within a clause' 'p cnf 3 1\n1 2\n'
broken 3 'fewer clauses' 'p cnf 3 3\n1 2 0\n3 0\n'
broken 3:1 'more clauses' 'p cnf 3 1\n1 2 0\n3 0\n'
broken 2:1 'zero byte' 'p cnf 3 1\n1 \0 2 0\n'
check 'a missing file' run 1 no_such.cnf
check '... says so' grep -qF 'no_such.cnf:0: No such file' out
check 'a folder' run 1 .
check 'a file for what is shared that cannot be made' run 1 -o no_such_folder/shared.txt

# ---- what is shared follows from the formula: it and the negation of a shared clause are unsatisfiable together ----
awk 'BEGIN { s = 7; n = 120; m = 500; printf "p cnf %d %d\n", n, m
  for (i = 0; i < m; i++) { for (k = 0; k < 3; k++) { s = (s * 16807) % 2147483647; printf "%d ", (int(s / 256) % 2 ? -1 : 1) * (1 + int(s / 512) % n) }; print 0 } }' >random.cnf
"$portfolio" -n 3 -s 8 -o shared.txt random.cnf >out 2>&1
check 'something is shared' test -s shared.txt
follow() { # every clause of a sample
  local clause
  grep -o '\[.*\]' shared.txt | tr -d '[],' | awk 'NR % 97 == 1' | head -n 8 >sample
  while read -r clause; do
    awk -v clause="$clause" 'NR == 1 { count = split(clause, literals, " "); print $1, $2, $3, $4 + count; next } { print }
      END { for (i = 1; i <= count; i++) print -literals[i], 0 }' random.cnf >negated.cnf
    run 20 -n 1 negated.cnf || return 1
  done <sample
}
check 'what is shared follows from the formula' follow

# ---- deaths and Ctrl-C ----
# start ARGUMENT...: in a process group of its own, as on a terminal; its output comes line by line
start() {
  rm -f lines && mkfifo lines
  setsid timeout -s KILL 30 "$portfolio" "$@" >lines 2>&1 &
  job=$!
  disown "$job" # the shell does not comment on its end
  exec 3<lines
}
await() { # await PATTERN: the first line that matches, in $line
  local until=$((SECONDS + 8))
  while [ $SECONDS -lt $until ] && read -r -t 8 -u 3 line; do
    [[ $line =~ $1 ]] && return 0
  done
  return 1
}
finish() { # finish EXIT_STATUS: it ends with it, and nothing is left
  local status=0
  cat <&3 >rest
  exec 3<&-
  wait "$job" || status=$?
  [ "$status" -eq "$1" ] && [ -z "$(find . -name 'messaging*')" ]
}
hard=prime:25:1

start -n 3 $hard
check 'a worker says its pid' await '^c worker 2 \(pid ([0-9]+),'
kill -KILL "${BASH_REMATCH[1]}"
check 'its death is said' await '^c worker 2 died: Killed; 2 go on'
check 'the others go on' await '^c worker 3 .* [1-9][0-9]* conflicts'
kill -INT -- -"$job"
check 'Ctrl-C is said' await '^c stopping: Interrupt'
check '... and ends it cleanly' finish 0
check '... with why each stopped' grep -q '^c worker 1 .* it was told to stop' rest
check '... the dead one, too' grep -q '^c worker 2 .* it died: Killed' rest
check '... and no result' grep -qx 's UNKNOWN' rest

start -n 2 $hard
check 'two workers' await '^c worker 1 \(pid ([0-9]+),' && first=${BASH_REMATCH[1]}
check '...' await '^c worker 2 \(pid ([0-9]+),' && second=${BASH_REMATCH[1]}
kill -KILL "$first" "$second"
check 'without workers it ends' finish 0

start -n 2 $hard
check 'two workers' await '^c worker 1 \(pid ([0-9]+),' && first=${BASH_REMATCH[1]}
parent=$(ps -o ppid= -p "$first")
kill -KILL "$parent"
check "when the supervisor dies, its workers end" timeout 8 cat <&3 >rest
exec 3<&-
wait "$job" 2>/dev/null

echo "[  PASSED  ] $passed test(s)."
[ "$failures" -eq 0 ] || { echo "[  FAILED  ] $failures test(s)"; exit 1; }
