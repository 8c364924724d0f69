# plots.gp - the suite's plots. plots.sh sets in (the folder of the CSV files), out, and stages (a table that it makes).
set terminal svg size 760,480 dynamic enhanced font "sans-serif,13" background rgb "white"
set datafile separator ","
set datafile commentschars "#"
set grid ytics lc rgb "#dddddd"
set border 3
set tics nomirror
set key outside right top

names = "messaging libzmq libzmq-typed libzmq-batch czmq nng nanomsg unix pipe ring"
colour(name) = name eq "messaging" ? "#c1272d" : name eq "libzmq" ? "#000000" : name eq "libzmq-typed" ? "#777777" : \
  name eq "libzmq-batch" ? "#aaaaaa" : name eq "czmq" ? "#0071bc" : name eq "nng" ? "#29abe2" : name eq "nanomsg" ? "#2e7d32" : \
  name eq "unix" ? "#f7931e" : name eq "pipe" ? "#8e44ad" : "#7a5230"
width(name) = name eq "messaging" || name eq "libzmq" ? 2.5 : 1.3

# The systems of a file with at least two rows that meet a condition of awk's.
has(file, condition) = system(sprintf("awk -F, '%s { n[$1]++ } END { for (s in n) if (n[s] > 1) printf \"%%s \", s }' %s", condition, file))
rows(file, name, condition, key) = sprintf("< awk -F, '$1 == \"%s\" && %s' %s | sort -t, -k%dn", name, condition, file, key)
among(list, name) = strstrt(" ".list, " ".name." ") > 0
in_order = "list = ''; do for [s in names] { if (among(present, s)) { list = list.' '.s } }"

by_size = in."/throughput_summary.csv"
present = has(by_size, "$2 == 4")
eval in_order
set logscale xy
set format x "%.0s %cB"
set xlabel "size of a message"

set output out."/throughput.svg"
set title "A burst to 4 receivers: messages a second over bare libzmq's (higher is better)"
plot for [s in list] rows(by_size, s, "$2 == 4", 3) using 3:4:5:6 with yerrorlines pt 7 ps 0.5 lw width(s) lc rgb colour(s) title s

set output out."/throughput_cpu.svg"
set title "A burst to 4 receivers: CPU a delivery over bare libzmq's (lower is better)"
plot for [s in list] rows(by_size, s, "$2 == 4", 3) using 3:7:8:9 with yerrorlines pt 7 ps 0.5 lw width(s) lc rgb colour(s) title s

fan_out = in."/fan_out_summary.csv"
present = has(fan_out, "NR > 0")
eval in_order
set format x "%g"
set xlabel "receivers"
set output out."/fan_out.svg"
set title "A burst of 140 bytes: CPU a delivery, ns (lower is better)"
plot for [s in list] rows(fan_out, s, "NR > 0", 2) using 2:6:7:8 with yerrorlines pt 7 ps 0.5 lw width(s) lc rgb colour(s) title s

unset logscale
set logscale y
unset xlabel
set format x "%s"
set style fill solid 0.8
set boxwidth 0.35
set xtics rotate by -30
set output out."/latency.svg"
set title "Round trip of 64 bytes through the supervisor, idle, all cores, us (lower is better)"
idle = "< awk -F, '$2 == \"idle\" && $3 == 2' ".in."/latency_summary.csv"
plot idle using ($0-0.2):10:xtic(1) with boxes lc rgb "#555555" title "p50", idle using ($0+0.2):11 with boxes lc rgb "#c1272d" title "p99"

unset logscale
set style data histograms
set style histogram rowstacked
set boxwidth 0.7
set xtics nomirror rotate by -15
set datafile separator tab
set output out."/stages.svg"
set title "Where the time goes: CPU for a message to 4 receivers, ns"
shades = "#9ecae1 #4292c6 #08519c #fcae91 #fb6a4a #a50f15 #c7e9c0 #74c476 #006d2c"
plot for [i=2:10] stages using i:xtic(1) title columnheader(i) lc rgb word(shades, i - 1)
