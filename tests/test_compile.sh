#!/bin/sh
# The headers compile without a warning wherever they promise to, and misuse is refused with the message that helps.
#   tests/compile/*.c  must compile with every compiler, standard and optimisation
#   tests/fail/*.c     must not; the first line has the message expected in C, the second that in C++ ("same": as in C; "-": not in this language)
set -u
cd "$(dirname "$0")/.." || exit 1
# shellcheck disable=SC2046
flags="-I. $(pkg-config --cflags libzmq $(pkg-config --exists msgpack-c && echo msgpack-c || echo msgpack))"
warnings="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
passed=0 failed=0
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

judge() { # name, status of what should have been 0
  if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $1"; cat "$work/said"; fi
}

compile() { # file, optimisation, compiler and its standard
  file=$1 level=$2
  shift 2
  # shellcheck disable=SC2086
  "$@" $level $warnings $flags -c -o "$work/object" "$file" > "$work/said" 2>&1
  judge "$* $level $file" $?
}

refuse() { # file, expected message, compiler and its standard
  file=$1 expected=$2
  shift 2
  # shellcheck disable=SC2086
  if "$@" -Wall -Werror=unused-result -Werror=incompatible-pointer-types $flags -c "$file" -o "$work/object" > "$work/said" 2>&1; then
    echo "it compiled" >> "$work/said"
    judge "$* $file" 1
  else
    grep -Eq -e "$expected" "$work/said"
    judge "$* $file: expected '$expected'" $?
  fi
}

# The first standard of each compiler is compiled to the end at both levels; the others differ in the front end alone, which -fsyntax-only runs.
for file in tests/compile/*.c; do
  for level in -O0 -O2; do
    for c in gcc clang; do
      compile "$file" $level $c -std=c11 -D_POSIX_C_SOURCE=200809L
      compile "$file" $level $c -fsyntax-only -std=gnu11
      compile "$file" $level $c -fsyntax-only -std=gnu17
      compile "$file" $level $c -fsyntax-only -std=c17 -D_POSIX_C_SOURCE=200809L
    done
    for cxx in g++ clang++; do
      compile "$file" $level $cxx -std=c++17 -x c++
      compile "$file" $level $cxx -fsyntax-only -std=gnu++17 -x c++
    done
  done
done

for file in tests/fail/*.c; do
  in_c=$(sed -n '1s|^/\* \(.*\) \*/$|\1|p' "$file" | sed 's/[()*]/\\&/g; s/\.\\\*/.*/g')
  in_cxx=$(sed -n '2s|^// ||p' "$file" | sed 's/[()*]/\\&/g')
  [ "$in_cxx" = same ] && in_cxx=$in_c
  for c in gcc clang; do [ "$in_c" = - ] || refuse "$file" "$in_c" $c -std=gnu11; done
  for cxx in g++ clang++; do [ "$in_cxx" = - ] || refuse "$file" "$in_cxx" $cxx -std=gnu++17 -x c++; done
done

echo "compile: $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
