#!/bin/sh
# What README.md and the headers show compiles, runs and says what they say.
cd "$(dirname "$0")/.." && exec python3 tests/readme/readme.py
