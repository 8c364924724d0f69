#!/bin/sh
# The golden frames (tests/wire) as a program in another language reads and writes them; tests/test_golden.c is the library's part.
set -eu
cd "$(dirname "$0")/.."
python=/usr/bin/python3 # the distribution's, whose modules these are
$python -c 'import msgpack' 2> /dev/null || { echo "test_golden: SKIPPED: no python3-msgpack here"; exit 0; }
$python tests/python/golden.py
