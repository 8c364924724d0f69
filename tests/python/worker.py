#!/usr/bin/python3
"""A worker in Python: joins a supervisor, relays integers, logs a line, receives what others relay, and says goodbye.

    worker.py PUB PULL ID KIND SEND EXPECT [LOSE]

PUB, PULL   the supervisor's two libzmq addresses: SUB is connected to the first, PUSH to the second
ID, KIND    of this worker, as the supervisor lists it (ID is negative)
SEND        so many relay messages are sent, two in a batch: the integers 1000000 * -ID + i; then one log message of level ID
EXPECT      so many relay messages of others are awaited, unless the supervisor tells the worker to terminate
LOSE        every LOSE-th broadcast RELAY frame of others is thrown away on arrival, as if lost; 0 or absent: none

At the end it prints a line "number id value" for each relay message of others in the order delivered, then "repairs R lost L terminated T": how
often it asked for missing messages, how many frames it threw away, and whether it was told to terminate. Written from the section "Frames" of messaging_impl.h alone.
"""
import contextlib
import itertools
import secrets
import struct
import sys
import time

import msgpack
import zmq

WIRE_VERSION, RANGES_MAX = 2, 16
HELLO, RELAY, OUTPUT, REPORT, HEARTBEAT, WELCOME, STATUS, REPAIR, REFUSE = range(1, 10)
UP_ANSWER, UP_KNOW_TERMINATION, UP_LEAVE, UP_KNOW_LEAVE = 1, 4, 8, 16
DOWN_ANSWER, DOWN_TERMINATE, DOWN_LEAVE, DOWN_KNOW_LEAVE = 1, 2, 4, 8
BATCH_ANSWER, OUTPUT_LOG = 1, 0
REFUSED_UNLISTED, REFUSED_TAKEN = 7, 15
MESSAGE_BYTES_MAX = 16777216        # must be the supervisor's
ROOM = 2 * MESSAGE_BYTES_MAX        # bytes of relay batches kept ahead of a gap
AGAIN, SELDOM, SILENCE = 0.1, 0.4, 30.0     # seconds until something unanswered is said again: first, and at most; until it is given up
HEADER = struct.Struct(">3s6sBB 2s16s cI 2sq cI cQ cQ cQ cQ cQ cQ cI B cI")    # of a batch: tags (c, s) and the values behind them
assert HEADER.size == 114
ALL, BATCHES = b"\x96\xa1\x42", b"\x96\xa7\x42"      # how frames begin that are for all, and batches


def unpack(data, count):
    unpacker = msgpack.Unpacker(raw=True, max_buffer_size=0)
    unpacker.feed(data)
    return [unpacker.unpack() for _ in range(count)]


class Worker:
    def __init__(self, pub, pull, id, kind, batches, expect, lose):
        self.id, self.kind, self.expect, self.lose = id, kind, expect, lose
        self.nonce = secrets.randbelow(2**64 - 1) + 1
        self.session, self.generation = None, 0
        self.terminated = self.supervisor_leaves = self.leaving = self.answered = False

        # Own batches, numbered from 1: those below accepted are accepted, those below sent are sent.
        self.batches = batches                      # (type, count, payload) of each
        self.frames = {}                            # number -> frame, from the first time it is sent: repetitions are the same bytes
        self.accepted, self.sent, self.window = 1, 1, 0
        self.probe, self.probed = 0, 0              # the last probe, and what was sent when it was; 0: its answer is known

        # Relay messages: all below position are delivered (or gone), none from next on is known to exist, none below first can be had.
        self.position = self.next = self.first = 1
        self.kept, self.kept_bytes = {}, 0          # batches of others ahead of a gap: position -> (id, count, payload)
        self.own = {}                               # messages of one's own, not yet passed over: position -> the one behind the last
        self.delivered, self.broadcasts, self.repairs, self.lost = [], 0, 0, 0      # delivered: (number, id, value)

        # Times. The tick says again whatever is not answered, and keeps this worker alive.
        self.tick_at, self.ask_at, self.pause = 0.0, 0.0, AGAIN     # missing messages are not asked for before ask_at
        self.reported, self.reported_at, self.ack = 1, 0.0, 0.0     # position in the last REPORT, its time; least time to the next
        self.report_due, self.heard_at = False, 0.0

        self.sub, self.push = zmq.Context.instance().socket(zmq.SUB), zmq.Context.instance().socket(zmq.PUSH)
        self.slots = {""}                           # how the slots begin whose batches come
        self.sub.subscribe(ALL)
        self.sub.subscribe(BATCHES)
        self.sub.subscribe(b"\x96\xc4\x11W" + struct.pack(">qQ", id, self.nonce))
        self.push.set(zmq.IMMEDIATE, 1)             # nothing piles up before there is a connection
        self.push.set(zmq.LINGER, 1000)
        self.sub.connect(pub)
        self.push.connect(pull)

    def run(self):
        while not self.answered:
            now = time.monotonic()
            if self.session and now > self.heard_at + SILENCE:
                sys.exit("the supervisor is silent")
            done = (self.terminated or len(self.delivered) >= self.expect) and self.accepted > len(self.batches)
            if done and not self.leaving:
                self.leaving, self.tick_at, self.pause = True, now, AGAIN
            due = self.speak(now)
            if self.supervisor_leaves:              # it was told so just now; nothing is left to wait for
                return None if done else sys.exit("the supervisor leaves")
            wait = max(0, due - time.monotonic()) * 1000 + 1
            for _ in range(100):                    # not all, lest a stream of frames keep this worker from speaking
                if self.answered or not self.sub.poll(wait):
                    break
                self.receive(*unpack(self.sub.recv(), 1), self.lose)
                wait = 0

    def send(self, frame):
        with contextlib.suppress(zmq.Again):        # as if lost on the way: it is said again
            self.push.send(frame, zmq.NOBLOCK)

    def send_plain(self, type, body):
        self.send(msgpack.packb(["U", WIRE_VERSION, type, self.session or bytes(16), self.generation, body]))

    def due(self):
        ask, acknowledge = self.position < self.next and not self.leaving, self.position != self.reported
        return min([self.tick_at] + [self.ask_at] * ask + [self.reported_at + self.ack] * acknowledge)

    def speak(self, now):
        """Says what is due, and returns when something will be due again."""
        if self.report_due or now >= self.due():
            tick = now >= self.tick_at
            if tick:    # PUSH keeps the order: when this probe is answered, all batches sent so far have come or are lost
                self.probe, self.probed = self.probe + 1, self.sent
                self.tick_at, self.pause = now + self.pause, min(2 * self.pause, SELDOM)
            if self.session:
                self.report(now, UP_ANSWER * tick, self.missing() if now >= self.ask_at and not self.leaving else [])
            else:
                self.send_plain(HELLO, [self.id, self.kind, self.nonce, MESSAGE_BYTES_MAX])
        self.send_batches()
        return self.due()

    def report(self, now, flags, ranges):
        flags |= UP_KNOW_TERMINATION * self.terminated | UP_LEAVE * self.leaving | UP_KNOW_LEAVE * self.supervisor_leaves
        self.send_plain(REPORT, [self.id, self.nonce, self.position, self.probe, flags, max(0, ROOM - self.kept_bytes), ranges])
        self.reported, self.reported_at, self.report_due = self.position, now, False
        if ranges:
            self.repairs += 1
            self.ask_at = now + self.pause

    def send_batches(self):
        flying = sum(len(self.frames[number]) for number in range(self.accepted, self.sent))
        while self.window and self.sent <= len(self.batches):
            frame = self.frames.get(self.sent) or self.batch_frame(self.sent)
            if flying and flying + len(frame) > self.window:
                break
            self.frames[self.sent] = frame
            self.send(frame)
            self.sent += 1
            flying += len(frame)

    def batch_frame(self, number):
        type, count, payload = self.batches[number - 1]
        flags = BATCH_ANSWER * (number == len(self.batches))
        return HEADER.pack(
            BATCHES, b"000000", WIRE_VERSION, type, b"\xc4\x10", self.session, b"\xce", self.generation, b"\x9b\xd3", self.id, b"\xce", self.kind,
            b"\xcf", self.nonce, b"\xcf", number, b"\xcf", self.position, b"\xcf", 0, b"\xcf", 0, b"\xcf", 0, b"\xce", count, flags,
            b"\xc6", len(payload)) + payload

    def receive(self, frame, lose=0):
        _, version, type, session, generation, body = frame
        if type == REFUSE and self.session in (None, session):
            return self.on_refuse(*body)
        if type == WELCOME and version == WIRE_VERSION and not self.session:
            self.session, self.generation = session, generation
        if (version, session, generation) != (WIRE_VERSION, self.session, self.generation):
            return
        self.heard_at = time.monotonic()
        if type == RELAY:
            self.broadcasts += lose > 0 and body[2] != self.nonce
            if lose and body[2] != self.nonce and self.broadcasts % lose == 0:
                self.lost += 1
            else:
                self.on_relay(*body)
        elif type == REPAIR:
            self.on_repair(*body)
        elif type == HEARTBEAT:
            self.on_news(*body)
        elif type in (WELCOME, STATUS):
            self.report_due |= type == WELCOME
            self.on_status(*body)

    def on_refuse(self, status):
        if status == REFUSED_UNLISTED and self.leaving:
            self.answered = True                    # it has let this worker go, and said so in vain
        elif status != REFUSED_TAKEN or self.session:       # taken for now: HELLO again
            sys.exit("refused with status %d" % status)

    def on_status(self, slot, expected, window, probe, *news):
        self.window = window
        self.on_slot(slot)
        self.on_accepted(expected)
        if probe == self.probe:
            if self.accepted < self.probed:         # lost: all from there on once more
                self.sent = self.accepted
            self.probed = 0
        self.on_news(*news)

    def on_slot(self, slot):
        """Leaves one's own batches out: with a slot, those come that begin like it and then differ."""
        bits = format(slot, "06b")
        slots = {bits[:i] + "10"[int(bit)] for i, bit in enumerate(bits)} if slot else {""}
        for begin in slots - self.slots:
            self.sub.subscribe(BATCHES + begin.encode())
        for begin in self.slots - slots:
            self.sub.unsubscribe(BATCHES + begin.encode())
        self.slots = slots

    def on_news(self, next, first, run_nonce, run_first, run_batch, ack_ms, flags, terms):
        self.answered |= self.leaving and bool(flags & DOWN_KNOW_LEAVE)
        terminate = bool(flags & DOWN_TERMINATE) or any(nonce != self.nonce for _, _, nonce in terms)
        self.report_due |= bool(flags & (DOWN_ANSWER | DOWN_LEAVE)) or terminate and not self.terminated
        self.terminated |= terminate
        self.supervisor_leaves |= bool(flags & DOWN_LEAVE)
        self.ack = ack_ms / 1000
        self.next, self.first = max(self.next, next), max(self.first, first)
        self.on_run(run_nonce, run_first, next, run_batch)
        self.deliver()

    def on_run(self, nonce, first, end, batch):
        """Relay messages of one sender, the last of them in this batch: one's own have arrived, and count as delivered."""
        if nonce == self.nonce:
            self.on_accepted(batch + 1)
            self.own[first] = max(end, self.own.get(first, 0))

    def on_relay(self, id, kind, nonce, number, position, run_nonce, run_first, run_batch, count, flags, payload):
        self.next = max(self.next, position + count)
        self.on_run(run_nonce, run_first, position, run_batch)
        self.on_run(nonce, position, position + count, number)
        self.deliver()                              # this may close the gap before the batch
        fits = position == self.position or self.kept_bytes + len(payload) <= ROOM
        if nonce != self.nonce and fits and position >= self.position and position not in self.kept:
            self.kept[position] = (id, count, payload)
            self.kept_bytes += len(payload)
            self.deliver()
            self.progress()

    def on_repair(self, last, count, frames):
        before = self.missing()
        for frame in unpack(frames, count):
            self.receive(frame)
        if before != self.missing():     # after the last, ask at once for what is still missing
            self.ask_at = 0.0 if last else time.monotonic() + self.pause

    def on_accepted(self, expected):
        if expected > self.accepted:
            self.accepted, self.sent = expected, max(self.sent, expected)
            self.progress()

    def progress(self):
        self.tick_at, self.pause = min(self.tick_at, time.monotonic() + AGAIN), AGAIN

    def deliver(self):
        """Delivers what can be delivered in order, and passes over what is gone for good."""
        while True:
            self.position = max([self.position] + [end for begin, end in self.own.items() if begin <= self.position])
            self.own = {begin: end for begin, end in self.own.items() if end > self.position}
            if self.position in self.kept:
                id, count, payload = self.kept.pop(self.position)
                self.kept_bytes -= len(payload)
                self.delivered += [(self.position + i, id, value) for i, value in enumerate(unpack(payload, count))]
                self.position += count
            elif self.position < self.first:
                end = min([self.first, *self.kept, *self.own])
                print("relay messages %d to %d are gone" % (self.position, end - 1), file=sys.stderr)
                self.position = end
            else:
                return

    def missing(self):
        there = sorted([(begin, begin + count) for begin, (_, count, _) in self.kept.items()] + list(self.own.items()))
        ends = itertools.accumulate([self.position] + [end for _, end in there], max)       # runs may overlap
        begins = [begin for begin, _ in there] + [self.next]
        return [[end, begin - 1] for end, begin in zip(ends, begins) if end < begin][:RANGES_MAX]


def main():
    if len(sys.argv) not in (7, 8):
        sys.exit("usage: worker.py PUB PULL ID KIND SEND EXPECT [LOSE]")
    id, kind, send, expect, lose = map(int, (sys.argv[3:] + ["0"])[:5])
    values = [msgpack.packb(1000000 * -id + i) for i in range(send)]
    batches = [(RELAY, len(values[i:i + 2]), b"".join(values[i:i + 2])) for i in range(0, send, 2)]
    batches.append((OUTPUT, 1, msgpack.packb([OUTPUT_LOG, id, b"python was here"])))
    worker = Worker(sys.argv[1], sys.argv[2], id, kind, batches, expect, lose)
    worker.run()
    for number, sender, value in worker.delivered:
        print(number, sender, value)
    print("repairs %d lost %d terminated %d" % (worker.repairs, worker.lost, worker.terminated))


if __name__ == "__main__":
    main()
