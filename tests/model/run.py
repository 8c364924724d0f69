#!/usr/bin/env python3
"""Checks the model of the protocol (messaging.pml) with spin, to exhaustion: each configuration holds, each rule is needed, each finding shows.

    run.py [--list] [--markdown] [NAME...]   all, or those whose name is given; what it builds goes into build/model/
    run.py --trail NAME                      tells the shortest counterexample found of a rule or finding

JOBS (2) searches run at once; together they take at most MEMORY_MB (3000) of memory. Anything but "holds" where it should hold and a
counterexample of the expected property where there should be one is a failure, as is a search that was not complete.
"""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import time

from configurations import CONFIGURATIONS, FINDINGS, PROPERTIES, RULES

JOBS = int(os.environ.get("JOBS") or 2)
MEMORY_MB = int(os.environ.get("MEMORY_MB") or 3000)
HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(os.environ.get("BUILD") or os.path.join(HERE, "..", "..", "build", "model"))
DEPTHS = (80, 130, 250, 10000)  # of the search for a counterexample: a short one is the easier one to read
PREFIX = ["nice", "-n", "15"]


def defines(settings):
    return [f"-D{name}" if value is True else f"-D{name}={value}" for name, value in settings.items()]


def build(name, settings, holds):
    """The folder with the verifier of a configuration."""
    folder = os.path.join(BUILD, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for source in ("messaging.pml", "worker.pml", "supervisor.pml", "world.pml"):
        shutil.copy(os.path.join(HERE, source), folder)
    spin = subprocess.run(PREFIX + ["spin", *defines(settings), "-a", "messaging.pml"], cwd=folder, capture_output=True, text=True, check=False)
    if spin.returncode or re.search(r"error", spin.stdout + spin.stderr, re.I):
        sys.exit(f"{name}: spin: {spin.stdout}{spin.stderr}")
    mode = ["-DNOFAIR"] if "LIVENESS" in settings else ["-DSAFETY"]
    cc = [os.environ.get("CC") or "cc", "-O1" if holds else "-O0", "-w", "-DNOREDUCE", f"-DMEMLIM={MEMORY_MB // JOBS}", *mode, "-o", "pan", "pan.c"]
    subprocess.run(PREFIX + cc, cwd=folder, check=True)
    return folder


def search(folder, settings, depth):
    """One run of the verifier: what it printed, and the seconds of processor it took."""
    options = ["-a"] if "LIVENESS" in settings else ["-E"]
    with open(os.path.join(folder, "log"), "w+", encoding="utf-8") as log:
        pan = subprocess.Popen(PREFIX + ["./pan", f"-m{depth}", "-w22", *options], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(pan.pid, 0)
        if os.WIFSIGNALED(status):
            log.write(f"\nkilled by signal {os.WTERMSIG(status)}\n")
        log.seek(0)
        return log.read(), usage.ru_utime + usage.ru_stime


def number(pattern, text):
    found = re.search(pattern, text)
    return float(found.group(1)) if found else 0.0


def violated(text):
    """The property that a counterexample violates; None: there is none."""
    found = re.search(r"assertion violated .*\|\|\(0\*(\d+)\)", text)
    if found:
        return PROPERTIES[int(found.group(1))]
    if "acceptance cycle" in text:
        return PROPERTIES[0]
    found = re.search(r"pan:1: (.*)", text)
    return f"UNEXPECTED {found.group(1)}" if found else None


def incomplete(text):
    for sign in ("killed by signal", "max search depth too small", "out of memory", "Search not completed", "reached -DMEMLIM", "VECTORSZ"):
        if sign in text:
            return sign
    return None if re.search(r"errors: 0\n.*states, stored", text) else "no result"


def story(folder, settings):
    """The trail, told: lists of frames and events."""
    run = subprocess.run(["spin", *defines(settings), "-t", "-k", "messaging.pml.trail", "messaging.pml"], cwd=folder, capture_output=True,
                         text=True, check=False)
    return re.findall(r"@ (\d+) (\d+) (-?\d+)|(START OF CYCLE)", run.stdout)


def check(case):
    """Searches one case: (name, settings, whether it is to hold)."""
    name, settings, holds = case
    folder = build(name, settings, holds)
    result = {"name": name}
    for depth in (DEPTHS[-1:] if holds else DEPTHS):
        text, seconds = search(folder, settings, depth)
        result.update(states=number(r"(\S+) states, stored", text), depth=number(r"depth reached (\d+)", text), seconds=seconds,
                      memory=number(r"(\S+)\s+total actual memory usage", text), violated=violated(text), incomplete=incomplete(text))
        if result["violated"]:
            break
    if result["violated"]:
        result["events"] = sum(1 for event in story(folder, settings) if not event[3])
    return result


FRAMES = ("?", "HELLO", "BATCH", "REPORT", "RELAY", "HEARTBEAT", "WELCOME", "STATUS", "REFUSE")
EVENTS = ("receives", "sends", "sends, and it is lost:", "receives, and it will come again:", "sends a message", "asks for termination", "exits",
          "ends, its goodbye unheard", "crashes", "begins", "new list", "takes all out of its inbox", "time passes", "a timer goes off early",
          "sees a death", "sees silence", "delivers", "leaves out", "has no room for what is early")
UP_FLAGS = ("answer", "term", "term seen", "bye", "bye seen")
DOWN_FLAGS = ("window open", "term", "bye", "bye seen", "gap")


def message(content):
    return f"{(content - 1) // 2}.{2 - (content & 1)}"


def flags(names, bits):
    return "".join(f", {name}" for i, name in enumerate(names) if bits >> i & 1)


def frame(f):
    """One frame in words."""
    kind, nonce = f & 15, f >> 7 & 7
    text = f"{FRAMES[kind]} generation {f >> 5 & 3}" + (f" nonce {nonce}" if nonce else "")
    if kind in (2, 4):
        return text + f", message {message(f >> 10 & 15)}, position {f >> 14 & 7}"
    if kind == 3:
        ranges = [str(i + 1) for i in range(5) if f >> 22 + i & 1]
        return text + f", position {f >> 14 & 7}, probe {f >> 12 & 3}" + flags(UP_FLAGS, f >> 17 & 31) + (f", missing {' '.join(ranges)}" if ranges else "")
    if kind in (5, 6, 7):
        terms = [str(i) for i in range(6) if f >> 25 + i & 1]
        stream = f", expected {f >> 10 & 3}, probe {f >> 12 & 3}" if kind != 5 else ""
        return (text + stream + f", next {f >> 14 & 7}, first {f >> 17 & 7}" + flags(DOWN_FLAGS if kind != 5 else ("",) + DOWN_FLAGS[1:], f >> 20 & 31)
                + (f", terms {' '.join(terms)}" if terms else ""))
    return text + (f", reason {('', 'ENOTRUNNING', 'EAUTH')[f >> 10 & 3]}" if kind == 8 else "")


def tell(event):
    """One event in words."""
    if event[3]:
        return "---- from here on, again and again:"
    what, who, f = (int(part) for part in event[:3])
    names = ("supervisor", "id 0", "id 1")
    if not f:
        if what == 10:
            return f"supervisor  new list: {('', 'id 0', 'id 1', 'id 0, id 1')[who]}"
        if what == 16:
            return f"{names[who % 16]:11} delivers {message(who // 16)}"
        return f"{names[who]:11} {EVENTS[what]}"
    down, nonce = f & 15 > 3, f >> 7 & 7
    other = names[who] if down else names[2 - (nonce & 1)]
    if what in (0, 3):
        return f"{names[who]:11} {EVENTS[what]} {frame(f)}"
    return f"{'supervisor' if down else other:11} {EVENTS[what]} {frame(f)}" + (f", to {other}" if down else "")


def tell_trail(name):
    for part in (RULES, FINDINGS):
        for entry in part:
            if entry["name"] == name:
                case = (name, entry["settings"], False)
                result = check(case)
                if not result["violated"]:
                    sys.exit(f"{name}: no counterexample")
                for event in story(os.path.join(BUILD, name), entry["settings"]):
                    print(tell(event))
                print(f"violated: {result['violated']}")
                return
    sys.exit(f"no rule or finding {name}")


def row(cells, widths, markdown):
    if markdown:
        print("| " + " | ".join(cells) + " |", flush=True)
    else:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip(), flush=True)


def head(cells, widths, markdown):
    row(cells, widths, markdown)
    if markdown:
        print("|" + "---|" * len(cells))


def figures(result):
    return [f"{result['states']:.0f}", f"{result['depth']:.0f}", f"{result['memory']:.0f}", f"{result['seconds']:.0f}"]


def show_held(entries, pool, markdown):
    widths = (24, 9, 6, 7, 5, 12, 60)
    head(("configuration", "states", "depth", "MB", "s", "result", "what happens in it"), widths, markdown)
    failures = []
    for entry, result in zip(entries, pool.map(check, [(e["name"], e["settings"], True) for e in entries])):
        verdict = result["violated"] or result["incomplete"] or "holds"
        if verdict != "holds":
            failures.append(entry["name"])
            verdict = f"FAILED: {verdict}"
        row([entry["name"], *figures(result), verdict, entry["what"]], widths, markdown)
    return failures


def show_violated(title, entries, pool, markdown):
    widths = (28, 9, 9, 8, 14, 60)
    head((title, "states", "events", "s", "violates", "what"), widths, markdown)
    failures = []
    for entry, result in zip(entries, pool.map(check, [(e["name"], e["settings"], False) for e in entries])):
        verdict = result["violated"] or "NOTHING"
        if verdict not in entry["violates"]:
            failures.append(entry["name"])
            verdict = f"FAILED: {verdict}, not {' or '.join(entry['violates'])}"
        row([entry["name"], f"{result['states']:.0f}", str(result.get("events", 0)), f"{result['seconds']:.0f}", verdict, entry["what"]], widths, markdown)
    return failures


def main():
    if not shutil.which("spin"):
        sys.exit("model: please install spin (Debian: apt install spin)")
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    if "--list" in sys.argv:
        for entry in CONFIGURATIONS + RULES + FINDINGS:
            print(f"{entry['name']:28} {' '.join(defines(entry['settings']))}")
        return
    if "--trail" in sys.argv:
        tell_trail(arguments[0])
        return
    started, markdown = time.monotonic(), "--markdown" in sys.argv
    unknown = set(arguments) - {e["name"] for e in CONFIGURATIONS + RULES + FINDINGS}
    if unknown:
        sys.exit(f"no such name: {' '.join(sorted(unknown))}")
    parts = [[e for e in part if not arguments or e["name"] in arguments] for part in (CONFIGURATIONS, RULES, FINDINGS)]
    failures = []
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        if parts[0]:
            failures += show_held(parts[0], pool, markdown)
        for title, part in (("without this rule", parts[1]), ("found in the protocol", parts[2])):
            if part:
                print()
                failures += show_violated(title, part, pool, markdown)
    print(f"\n{sum(map(len, parts))} searches, {len(failures)} failed, {time.monotonic() - started:.0f} s")
    if failures:
        sys.exit(f"failed: {' '.join(failures)}")


if __name__ == "__main__":
    main()
