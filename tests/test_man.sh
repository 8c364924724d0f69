#!/bin/sh
# The documentation names what is there: reference, README tables, table of contents (make man-check).
cd "$(dirname "$0")/.." && exec python3 tests/man/man.py check
