#!/bin/sh
# What a supervisor and its workers cost grows no faster than it may (tests/scale.c); here up to 600 workers, make scale goes to 10,000.
cd "$(dirname "$0")/.." && make --no-print-directory -s build/tests/scale && exec build/tests/scale 2 600
