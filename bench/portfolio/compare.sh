#!/bin/bash
# Compares one solver, two that share nothing, and two that share: bench/portfolio/compare.sh build/portfolio/portfolio [ROUNDS]
# Each round runs every instance in the three ways, one after the other. Results: comparison.csv beside the program, a table on stdout.
set -eu
portfolio=$1 rounds=${2:-5} workers=${WORKERS:-2}
folder=$(dirname "$portfolio")
csv=$folder/comparison.csv

random() { # random VARIABLES SEED: 3-SAT with 4.26 clauses a variable, where it is hardest
  awk -v n="$1" -v s="$2" 'function next_random() { s = (s * 16807) % 2147483647; return int(s / 256) }
    BEGIN { m = int(n * 4.26); s = s * 7919 + 1; for (i = 0; i < 20; i++) next_random(); printf "p cnf %d %d\n", n, m
      for (i = 0; i < m; i++) {
        do for (k = 0; k < 3; k++) v[k] = 1 + next_random() % n; while (v[0] == v[1] || v[0] == v[2] || v[1] == v[2])
        for (k = 0; k < 3; k++) printf "%d ", next_random() % 2 ? v[k] : -v[k]
        print 0 } }' >"$folder/random-$1-$2.cnf"
  echo "$folder/random-$1-$2.cnf"
}
pigeons() { # pigeons HOLES: one pigeon more
  awk -v h="$1" 'BEGIN { printf "p cnf %d %d\n", h * (h + 1), h + 1 + h * h * (h + 1) / 2
      for (p = 0; p <= h; p++) { for (i = 1; i <= h; i++) printf "%d ", p * h + i; print 0 }
      for (i = 1; i <= h; i++) for (p = 0; p <= h; p++) for (q = 0; q < p; q++) print -(p * h + i), -(q * h + i), 0 }' >"$folder/pigeons-$1.cnf"
  echo "$folder/pigeons-$1.cnf"
}

instances=(factor:20:11 factor:20:12 factor:20:13 factor:20:14 prime:18:11 prime:19:12 prime:20:13 prime:21:14
  "$(random 250 1)" "$(random 250 2)" "$(random 260 4)" "$(random 270 5)" "$(pigeons 9)")

echo "$workers workers; $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1); load $(cut -d' ' -f1-3 /proc/loadavg);" \
  "$(cc --version | head -n 1); libzmq $(pkg-config --modversion libzmq); CaDiCaL $(dpkg-query -W -f '${Version}' libcadical-dev 2>/dev/null || echo '(version unknown)')"
echo 'instance,answer,way,round,wall_s,cpu_s,conflicts,shared_clauses' >"$csv"
for ((round = 1; round <= rounds; round++)); do
  for instance in "${instances[@]}"; do
    for way in one apart shared; do
      case $way in one) options='-n 1 -s 0' ;; apart) options="-n $workers -s 0" ;; shared) options="-n $workers" ;; esac
      status=0
      # shellcheck disable=SC2086
      output=$(timeout -s INT 120 "$portfolio" $options "$instance") || status=$?
      awk -v start="$(basename "$instance" .cnf),$way,$round" '
        / CPU time, / { measured = $2 "," $4 "," $(NF - 1) } /^c shared:/ { shared = $3 + $5 + $8 } /^s / { answer = tolower($2) }
        END { sub(",", "," answer ",", start); print start "," measured "," shared }' <<<"$output" >>"$csv"
      [ $status -eq 10 ] || [ $status -eq 20 ] || echo "$instance, $way: no answer" >&2
    done
  done
done

# Medians over the rounds; the last columns: how many times less two that share need than two that do not.
awk -F, 'NR > 1 {
    if (!($1 in answer)) order[++count] = $1
    if ($1 in answer && answer[$1] != $2 || $2 == "unknown") bad = bad " " $1
    answer[$1] = $2
    for (i = 5; i <= 8; i++) value[$1, $3, i, ++taken[$1, $3, i]] = $i }
  function median(instance, way, column,    n, i, j, sorted, t) {
    n = taken[instance, way, column]
    for (i = 1; i <= n; i++) { t = value[instance, way, column, i] + 0
      for (j = i; j > 1 && sorted[j - 1] > t; j--) sorted[j] = sorted[j - 1]
      sorted[j] = t }
    return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2 }
  function ratio(a, b) { return b > 0 ? a / b : 1 }
  END {
    print "| instance | answer | wall s: one | apart | shared | CPU s: one | apart | shared | kconflicts: one | apart | shared | clauses shared | apart / shared: wall | CPU | conflicts |"
    print "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for (k = 1; k <= count; k++) {
      name = order[k]; line = "| " name " | " answer[name]
      for (i = 5; i <= 7; i++) {
        split("one apart shared", ways, " ")
        for (w = 1; w <= 3; w++) { m[i, w] = median(name, ways[w], i); line = line sprintf(i < 7 ? " | %.2f" : " | %.1f", i < 7 ? m[i, w] : m[i, w] / 1000) } }
      line = line sprintf(" | %d", median(name, "shared", 8))
      for (i = 5; i <= 7; i++) { line = line sprintf(" | %.2f", ratio(m[i, 2], m[i, 3])); sum[i] += log(ratio(m[i, 2], m[i, 3])); single[i] += log(ratio(m[i, 1], m[i, 3])) }
      print line " |" }
    printf "\ngeometric means, apart / shared: wall %.2f, CPU %.2f, conflicts %.2f; one / shared: wall %.2f, CPU %.2f, conflicts %.2f\n",
      exp(sum[5] / count), exp(sum[6] / count), exp(sum[7] / count), exp(single[5] / count), exp(single[6] / count), exp(single[7] / count)
    if (bad != "") { print "answers differ or are missing:" bad; exit 1 } }' "$csv"
