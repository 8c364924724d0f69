#!/usr/bin/env python3
"""Coverage of messaging.h and messaging_impl.h: usage: tests/coverage.py [--gcov GCOV] FOLDER

Every program has its own copy of each function, since all of them are static; what gcov says of the copies is added up line by line and
branch by branch. Branches are compared only among C programs: in C++ a call has branches of its own for exceptions."""
import glob
import json
import os
import re
import subprocess
import sys

HEADERS = ("messaging.h", "messaging_impl.h")
CORE = ("Rings", "Maps", "Buffers", "Cursor", "Objects", "Frames", "Outbox", "History", "Inbox", "Protocol", "Worker", "Supervisor")


def counters(folder, gcov):
    """Per header: {line: count} and {line: [count of each branch]}."""
    lines = {name: {} for name in HEADERS}
    branches = {name: {} for name in HEADERS}
    for data in sorted(glob.glob(os.path.join(folder, "*.gcda"))):
        out = subprocess.run([gcov, "--json-format", "--stdout", "--branch-probabilities", data], capture_output=True, check=False).stdout
        for text in out.splitlines():
            for entry in json.loads(text)["files"]:
                name = os.path.basename(entry["file"])
                if name in HEADERS:
                    add(entry["lines"], lines[name], branches[name], "cxx" not in os.path.basename(data))
    return lines, branches


def add(entries, lines, branches, plain):
    for entry in entries:
        number = entry["line_number"]
        lines[number] = lines.get(number, 0) + entry["count"]
        found = [branch["count"] for branch in entry["branches"]]
        if not plain or not found:
            continue
        known = branches.setdefault(number, [0] * len(found))
        if len(known) == len(found):
            branches[number] = [a + b for a, b in zip(known, found)]
        else:
            print("coverage: line", number, "has", len(known), "branches, and", len(found), "elsewhere", file=sys.stderr)


def sections(path):
    """[(title, first line, last line)] by the banners."""
    found = []
    source = open(path, encoding="utf-8").read().split("\n")
    for number, line in enumerate(source, 1):
        title = re.match(r"/\* ==== (.*?) =+", line)
        if title:
            found.append([title.group(1), number, len(source)])
            if len(found) > 1:
                found[-2][2] = number - 1
    return source, found


def percent(part, whole):
    return "     -" if whole == 0 else "%5.1f%%" % (100.0 * part / whole)


def row(title, numbers):
    line, line_all, branch, branch_all = numbers
    print("  %-34s %5d of %5d lines %s   %5d of %5d branches %s" % (title, line, line_all, percent(line, line_all), branch, branch_all, percent(branch, branch_all)))


def measure(lines, branches, first, last):
    hit = [number for number in lines if first <= number <= last]
    ways = [count for number in branches if first <= number <= last for count in branches[number]]
    return [sum(lines[n] > 0 for n in hit), len(hit), sum(count > 0 for count in ways), len(ways)]


def missing(source, lines, branches, first, last):
    for number in range(first, last + 1):
        if lines.get(number) == 0:
            print("  %5d  never run:        %s" % (number, source[number - 1].strip()))
        elif number in branches and 0 in branches[number]:
            print("  %5d  %d of %2d ways never: %s" % (number, branches[number].count(0), len(branches[number]), source[number - 1].strip()))


def main():
    arguments = sys.argv[1:]
    gcov = "gcov"
    if arguments[:1] == ["--gcov"]:
        gcov, arguments = arguments[1], arguments[2:]
    if len(arguments) != 1:
        sys.exit(__doc__)
    lines, branches = counters(arguments[0], gcov)
    core, rest = [0] * 4, [0] * 4
    parts = []
    for name in HEADERS:
        print(name)
        source, found = sections(name)
        for title, first, last in found:
            numbers = measure(lines[name], branches[name], first, last)
            if numbers[1] == 0:
                continue
            row(title, numbers)
            total = core if name == "messaging_impl.h" and title in CORE else rest
            total[:] = [a + b for a, b in zip(total, numbers)]
            parts.append((title, source, lines[name], branches[name], first, last, total is core))
    print("all")
    row("protocol core (Rings to Supervisor)", core)
    row("the rest", rest)
    for wanted, text in ((True, "the protocol core"), (False, "the rest")):
        print("\nnot covered in %s:" % text)
        for title, source, line, branch, first, last, is_core in parts:
            if is_core == wanted and (core if wanted else rest)[1]:
                print(" " + title)
                missing(source, line, branch, first, last)
    if core[1] == 0:
        sys.exit("coverage: no counters found")


main()
