#!/bin/sh
# Installs what the tests and the benchmarks need from the distribution, if it is missing.
set -eu

packages="gcc g++ clang libclang-rt-dev libc6-dev pkg-config libzmq3-dev libmsgpack-dev libcmocka-dev valgrind cmake python3 python3-zmq python3-msgpack libuv1-dev libcadical-dev strace iproute2 spin libnng-dev libnanomsg-dev libczmq-dev gnuplot-nox"

if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
  missing=""
  for tool in gcc g++ clang pkg-config valgrind cmake python3; do
    command -v $tool > /dev/null || missing="$missing $tool"
  done
  for library in libzmq cmocka; do
    pkg-config --exists $library 2> /dev/null || missing="$missing $library"
  done
  pkg-config --exists msgpack-c 2> /dev/null || pkg-config --exists msgpack 2> /dev/null || missing="$missing msgpack-c"
  [ -z "$missing" ] && echo "deps: everything is here" && exit 0
  echo "deps: this is no Debian; please install:$missing" >&2
  exit 1
fi

missing=""
for package in $packages; do
  dpkg-query -W -f '${Status}\n' "$package" 2> /dev/null | grep -q '^install ok installed$' || missing="$missing $package"
done
if [ -z "$missing" ]; then
  echo "deps: everything is here"
  exit 0
fi

echo "deps: missing:$missing"
if [ "$(id -u)" -ne 0 ]; then
  echo "deps: please run, as root: apt-get update && apt-get install -y --no-install-recommends$missing" >&2
  exit 1
fi
echo "deps: apt-get update"
apt-get -q update
echo "deps: apt-get install --no-install-recommends$missing"
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing
