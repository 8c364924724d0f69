#!/usr/bin/env python3
"""Shows that the simulator finds bugs: applies each of the deliberate bugs below to a copy of messaging_impl.h, builds the simulator on
it, and counts the worlds until it fails. Fails when a bug is not found, or when its text is no longer in the header.

    sim_mutants.py [--table] [NAME...]      in the folder of messaging.h; what it builds goes into build/mutants/
"""
import os
import re
import subprocess
import sys

WORLDS_MAX = 60000  # in which a bug must show
FOUND = 20          # failing worlds, after which the mean is taken

# Name, invariant that it breaks, what is replaced (must be there exactly once), by what.
MUTANTS = [
    ("gap-ignored", "order", "if (batch->position > worker->next) {", "if (batch->position > worker->next + 4) {"),
    ("echo-delivered", "sender", "  if (batch->nonce == worker->self.nonce) {\n    messaging__worker_own(", "  if (false) {\n    messaging__worker_own("),
    ("run-ignored", "complete", "if (run->nonce == worker->self.nonce && run->batch < worker->number)", "if (false)"),
    ("run-of-anyone", "lost", "if (run->nonce == worker->self.nonce && run->batch < worker->number)", "if (run->batch < worker->number)"),
    ("run-misplaced", "lost", "  if (im->run.nonce != batch->nonce) im->run.first = batch->position;\n", ""),
    ("slot-twice", "cost", "  im->slots |= (uint64_t)1 << slot;\n", ""),
    ("duplicate-taken", "sender", "if (batch->number < peer->expected) {", "if (batch->number + 1 < peer->expected) {"),
    ("output-before-relay", "sender", "item->after = inbox->has_log ? inbox->log.next : 0;", "item->after = 0;"),
    ("acknowledged-unowned", "lost", "    messaging__im_block(im, peer, batch->type, frame.size);\n",
     "    messaging__im_block(im, peer, batch->type, frame.size);\n    peer->expected++;\n"),
    ("gap-misnumbered", "lost", "&worker->supervisor, worker->next, first, ", "&worker->supervisor, worker->next + 1, first, "),
    ("purge-forgets-outbox", "sender", "  messaging__outbox_clear(im->outbox);\n  im->purged = true;", "  im->purged = true;"),
    ("trim-unjoined", "trim", "if (messaging__peer_live(peer) && !peer->silent) needed",
     "if (peer->confirmed && !peer->silent) needed"),
    ("trim-cached", "trim", "  im->held = messaging__earlier(im->held, peer->has);\n  peer->who.nonce = nonce;", "  peer->who.nonce = nonce;"),
    ("trim-silent-back", "trim", "  im->held = messaging__earlier(im->held, peer->has);\n}", "}"),
    ("fence-untold", "trim", '    messaging__report_gap(&im->port, &peer->who, peer->has, first, "a worker is slow and the history is full");\n', ""),
    ("stale-relay-heard", "generation", "(envelope.generation == worker->era.generation || envelope.type == MESSAGING__REFUSE)", "true"),
    ("stale-batch-taken", "generation", "peer->who.id == id && envelope->generation == im->era.generation)", "peer->who.id == id)"),
    ("inbox-unbounded", "memory", "return inbox->bytes == 0 || inbox->bytes + size <= inbox->bytes_max;", "return size > 0;"),
    ("early-unbounded", "memory",
     "if (worker->early.count >= MESSAGING__REORDER_MAX || worker->early_bytes + frame.size > worker->inbox->bytes_max / 4) {", "if (false) {"),
    ("early-leaked", "memory", "  while (worker->early.count) messaging__worker_drop_early(worker);\n  while (worker->flights",
     "  while (worker->flights"),
    ("originator-terminated", "terminate", "    if (news->terms[i].nonce == worker->self.nonce) {", "    if (false) {"),
    ("term-one-not-repeated", "complete", "(messaging__im_terminates(im, peer) && !peer->term_seen) || ", ""),
    ("tail-unknown", "complete", "  worker->known = messaging__later(worker->known, news->next);\n", ""),
    ("probe-missing", "complete", "      worker->probe_at = messaging__earlier(worker->probe_at, messaging__worker_probes(worker, answer, now));\n", ""),
    ("window-stays-closed", "complete", "  if (!room) return;\n  peer->blocked = false;", "  if (!room || peer->blocked) return;\n  peer->blocked = false;"),
    ("former-unconfirmed", "complete", "bool over = peer->confirmed || !messaging__peer_live(peer);", "bool over = true;"),
    ("heir-struck", "complete", "  if (heir && im->port.died(im->port.self, peer->watch)) messaging__im_dead(im, peer);\n", "  (void)heir;\n"),
    ("old-era-untold", "complete", "if (ours && !waits && (!peer || envelope->generation != im->era.generation) && ",
     "if (ours && !waits && !peer && "),
    ("reminders-go-on", "quiet", "return peer->has < im->marked ||", "return peer->has <= im->marked ||"),
    ("repair-all-behind", "cost", "           batch.position < range->next) {", "           batch.position < im->inbox->log.next) {"),
    ("repair-from-start", "cost", "  memcpy(peer->repairs, ranges, count * sizeof ranges[0]);\n",
     "  memcpy(peer->repairs, ranges, count * sizeof ranges[0]);\n  peer->repairs[0].first = im->inbox->log.first;\n"),
    ("acknowledgement-spins", "hang", "  peer->status_due = peer->answer_due = peer->gap = false;\n  messaging__im_settle(im, peer);\n",
     "  peer->status_due = peer->answer_due = peer->gap = false;\n"),
]


def mutate(source, name, old, new):
    count = source.count(old)
    if count != 1:
        sys.exit(f"mutant {name}: its text is there {count} times, not once; the header has changed, mend the mutant")
    return source.replace(old, new)


def build(folder, source):
    os.makedirs(folder, exist_ok=True)
    with open("messaging.h", encoding="utf-8") as header, open(f"{folder}/messaging.h", "w", encoding="utf-8") as copy:
        copy.write(header.read())
    with open(f"{folder}/messaging_impl.h", "w", encoding="utf-8") as copy:
        copy.write(source)
    packages = "libzmq msgpack-c" if subprocess.run(["pkg-config", "--exists", "msgpack-c"], check=False).returncode == 0 else "libzmq msgpack"
    flags = subprocess.run(f"pkg-config --cflags --libs {packages}", shell=True, capture_output=True, text=True, check=True).stdout.split()
    header_path = os.path.abspath(f"{folder}/messaging.h")
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-w", f'-DSIM_HEADER="{header_path}"', "tests/sim.c", "-o",
                    f"{folder}/sim", *flags, "-pthread"], check=True)


def hunt(folder):
    """The worlds it took on average, and which invariants failed how often."""
    run = subprocess.run([f"{folder}/sim", f"SEEDS={WORLDS_MAX}", f"FAILURES={FOUND}", "--plain"], capture_output=True, text=True, check=False)
    found = re.findall(r"^FAILED seed (\d+): at \d+ ms, generation \d+: (\w+)", run.stdout, re.M)
    crash = re.search(r"^CRASHED .* seed (\d+)", run.stdout, re.M)
    if crash:
        found.append((crash.group(1), "crash"))
    names = {}
    for _, name in found:
        names[name] = names.get(name, 0) + 1
    return (int(found[-1][0]) / len(found) if found else None), names


def main():
    table = "--table" in sys.argv
    wanted = [a for a in sys.argv[1:] if not a.startswith("--")]
    with open("messaging_impl.h", encoding="utf-8") as header:
        source = header.read()
    mutated = {name: mutate(source, name, old, new) for name, _, old, new in MUTANTS}
    missed = []
    if table:
        print("| bug | breaks | found by | worlds until found, mean |\n|---|---|---|---|")
    for name, invariant, _, _ in MUTANTS:
        if wanted and name not in wanted:
            continue
        folder = f"build/mutants/{name}"
        build(folder, mutated[name])
        mean, names = hunt(folder)
        by = ", ".join(sorted(names, key=lambda n: -names[n]))
        if mean is None:
            missed.append(name)
        worlds = "NOT FOUND" if mean is None else f"{mean:.0f}" if mean >= 10 else f"{mean:.1f}"
        print(f"| `{name}` | {invariant} | {by} | {worlds} |" if table else f"{name:24} {invariant:12} {worlds:>10}   {by}", flush=True)
    if missed:
        sys.exit(f"not found in {WORLDS_MAX} worlds: {', '.join(missed)}")


if __name__ == "__main__":
    main()
