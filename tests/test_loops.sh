#!/bin/sh
# Event loops of other makes around bus_fd (tests/examples): 100,000 messages each, no wake-up missed.
set -eu
cd "$(dirname "$0")/.."
cc=${CC:-cc} pc=${PKG_CONFIG:-pkg-config}
flags="-std=gnu11 -O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
build=${BUILD:-build}/examples
mkdir -p "$build"
if $pc --exists msgpack-c; then msgpack=msgpack-c; else msgpack=msgpack; fi
for name in poll epoll uv; do
  packages="libzmq $msgpack"
  if [ $name = uv ]; then
    $pc --exists libuv || { echo "test_loops: SKIPPED libuv: not here"; continue; }
    packages="$packages libuv"
  fi
  # shellcheck disable=SC2046,SC2086 # words are wanted
  $cc $flags ${CFLAGS:-} -I. tests/examples/loop_$name.c -o "$build/loop_$name" $($pc --cflags --libs $packages) -pthread
  timeout 120 "$build/loop_$name" || { echo "test_loops: FAILED $name" >&2; exit 1; }
done
echo "test_loops: OK"
