#!/bin/sh
# Makes the plots, and the tables of the README between its marks, from the CSV files of a run of the suite.
#   plots.sh CSV_FOLDER PLOTS_FOLDER README
set -eu

in=$1 out=$2 readme=$3
here=$(dirname "$0")
command -v gnuplot > /dev/null || { echo "plots: gnuplot is missing (Debian: gnuplot-nox)" >&2; exit 1; }
[ -f "$in/throughput_summary.csv" ] || { echo "plots: no results in $in: make bench first" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# One row a system and size, one column a process and thread; what all receivers together cost.
stages() {
  awk -F, -v OFS='\t' '
    /^#/ || $1 == "system" { next }
    { row = $1 " " $3 " B"; if (!(row in seen)) { seen[row]; order[++rows] = row }
      cost[row, $4, $5] = $6 * ($4 == "receiver" ? $2 : 1) }
    END {
      split("sender,supervisor,receiver", p, ","); split("application,background,libzmq I/O", t, ",")
      line = "\"\""; for (i = 1; i <= 3; i++) for (k = 1; k <= 3; k++) line = line OFS "\"" p[i] ", " t[k] "\""
      print line
      for (r = 1; r <= rows; r++) {
        line = "\"" order[r] "\""
        for (i = 1; i <= 3; i++) for (k = 1; k <= 3; k++) line = line OFS cost[order[r], p[i], t[k]] + 0
        print line } }' "$in/stages.csv"
}
stages > "$work/stages.tsv"

gnuplot -e "in='$in'; out='$out'; stages='$work/stages.tsv'" "$here/plots.gp"

# ---- Tables ----

table_machine() { sed -n '/^# systems/d; s/^# //p' "$in/throughput_summary.csv"; }

table_goals() {
  echo '| goal | | median | from, to | wanted | |'
  echo '|---|---|---|---|---|---|'
  awk -F'","|",|,"' '/^[0-9]/ { split($3, v, ","); n = split($0, f, ",")
    printf "| %s | %s | %s | %s to %s | %s %s | %s |\n", f[1], $2, v[1], v[2], v[3], v[4], v[5], v[6] }' "$in/goals.csv"
}

table_systems() {
  echo '| 140 bytes to 4 | messages/s over libzmq | CPU a delivery over libzmq | messages/s | ns CPU a delivery |'
  echo '|---|---|---|---|---|'
  awk -F, '$2 == 4 && $3 == 140 { printf "| %s | %.2f (%.2f to %.2f) | %.2f (%.2f to %.2f) | %d | %d |\n", $1, $4, $5, $6, $7, $8, $9, $10, $11 }' \
    "$in/throughput_summary.csv"
}

table_latency() {
  echo '| round trip of 64 bytes | cores | p50 over libzmq | p99 over libzmq | p50, us | p99, us | us CPU | sleeps |'
  echo '|---|---|---|---|---|---|---|---|'
  awk -F, '$2 == "idle" || $2 == "load" { printf "| %s%s | %s | %.2f (%.2f to %.2f) | %.2f (%.2f to %.2f) | %d | %d | %d | %.1f |\n", $1,
    $2 == "load" ? ", under load" : "", $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 }' "$in/latency_summary.csv"
}

table_stages() {
  echo '| ns CPU a message to 4 receivers | messaging, 64 B | libzmq, 64 B | messaging, 140 B | libzmq, 140 B |'
  echo '|---|---|---|---|---|'
  awk -F'\t' '{ gsub(/"/, ""); rows = NR; for (i = 1; i <= NF; i++) cell[NR, i] = $i; columns = NF }
    END { for (i = 2; i <= columns; i++) { line = "| " cell[1, i]; for (r = 2; r <= rows; r++) { line = line " | " int(cell[r, i] + 0.5); sum[r] += cell[r, i] }
            print line " |" }
          line = "| **all**"; for (r = 2; r <= rows; r++) line = line " | " int(sum[r] + 0.5); print line " |" }' "$work/stages.tsv"
  echo
  echo '| one message among sleepers, us | messaging | libzmq |'
  echo '|---|---|---|'
  awk -F, '/^"/ { gsub(/"/, ""); printf "| %s | %s | %s |\n", $1, $2, $3 }' "$in/way.csv"
}

table_idle() {
  echo '| one message to 4 workers, all asleep: sleeps of all threads | until delivered | afterwards, beyond heartbeats |'
  echo '|---|---|---|'
  awk -F, '/^#/ || $1 == "system" { next } { if (!($1 in n)) order[++s] = $1; n[$1]++; b[$1] += $5; a[$1] += $6 - $7 }
    END { for (i = 1; i <= s; i++) printf "| %s | %.1f | %.1f |\n", order[i], b[order[i]] / n[order[i]], a[order[i]] / n[order[i]] }' "$in/idle.csv"
}

table_codec() {
  echo '| what a call costs its caller, 140 bytes | ns CPU | rounds | instructions |'
  echo '|---|---|---|---|'
  awk -F'","|",|,"' '/^140/ { split($3, v, ","); printf "| %s | %.1f | %.1f to %.1f | %s |\n", $2, v[1], v[2], v[3], v[4] < 0 ? "" : int(v[4] + 0.5) }' "$in/codec.csv"
}

for name in machine goals systems latency stages idle codec; do
  { table_$name; } > "$work/$name"
done

awk -v work="$work" '
  /^<!-- from the last run: / { print; name = $6; while ((getline line < (work "/" name)) > 0) print (name == "machine" ? "    " line : line); skipping = 1; next }
  /^<!-- end -->/ { skipping = 0 }
  !skipping' "$readme" > "$work/README.md"
cat "$work/README.md" > "$readme"
ls "$out"/*.svg
