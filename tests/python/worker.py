#!/usr/bin/python3
"""A worker in another language, written from the section "Frames" of messaging_impl.h.

usage: worker.py PUB PULL ID KIND SEND EXPECT [LOSE]

Joins the supervisor as worker ID of kind KIND, sends SEND relay messages (integers 1000000 * -ID + i, two in a batch) and one log message,
receives until it has EXPECT relay messages of others or is told to terminate, prints one line for each ("number id value"), and
leaves with a goodbye. With LOSE it throws every LOSE-th broadcast away on arrival, so that it has to ask for repairs.
"""
import os
import struct
import sys
import time

import msgpack
import zmq

VERSION = 1
HELLO, RELAY, OUTPUT, REPORT, HEARTBEAT, WELCOME, STATUS, REPAIR, REFUSE = range(1, 10)
UP_ANSWER, UP_TERM, UP_TERM_SEEN, UP_BYE, UP_BYE_SEEN = 1, 2, 4, 8, 16
DOWN_ANSWER, DOWN_TERM, DOWN_BYE, DOWN_BYE_SEEN, DOWN_GAP = 1, 2, 4, 8, 16
HEAD = struct.Struct(">BBBBBBB16sBIBBqBIBQBQBQBIBBI")  # a batch frame up to its payload
MESSAGE_BYTES_MAX = 16 << 20
AGAIN_SECONDS = 0.1


class Worker:
    def __init__(self, pub, pull, worker_id, kind, lose):
        self.id, self.kind, self.lose = worker_id, kind, lose
        self.nonce = int.from_bytes(os.urandom(8), "big") | 1
        self.topic = b"W" + struct.pack(">qQ", self.id, self.nonce)
        context = zmq.Context()
        self.sub, self.push = context.socket(zmq.SUB), context.socket(zmq.PUSH)
        self.sub.linger = self.push.linger = 0
        self.sub.subscribe(b"\x96\xa1B")
        self.sub.subscribe(b"\x96\xc4\x11" + self.topic)
        self.sub.connect(pub)
        self.push.connect(pull)
        self.session, self.generation = bytes(16), 0
        self.next = self.known = 1  # relay numbers: the next to be delivered, and those below which exist
        self.early = {}  # batches that came ahead of a gap, by their first number
        self.batches, self.number = [], 1  # not acknowledged: (number, frame); number of the next
        self.window, self.asked_at, self.sent_at = 0, 0.0, 0.0
        self.terminated = self.leaving = self.left = False
        self.broadcasts = self.repairs = 0
        self.received = []

    # Upwards.

    def push_frame(self, kind_of_frame, body):
        frame = ["U", VERSION, kind_of_frame, self.session, self.generation, body]
        self.push.send(msgpack.packb(frame, use_bin_type=True))

    def hello(self):
        self.push_frame(HELLO, [self.id, self.kind, self.nonce, MESSAGE_BYTES_MAX])

    def report(self, ask=False, answer=False):
        flags = UP_ANSWER if answer else 0
        flags |= UP_TERM_SEEN if self.terminated else 0
        flags |= UP_BYE if self.leaving else 0
        ranges, start = [], self.next
        for first in sorted(self.early) + [self.known] if ask else []:
            if first > start:
                ranges.append([start, first - 1])
            start = self.early[first][0] if first in self.early else first
        self.repairs += bool(ranges)
        self.push_frame(REPORT, [self.id, self.nonce, self.next, 0, flags, 1 << 20, ranges[:16]])

    def batch(self, type_of_batch, objects):
        payload = b"".join(msgpack.packb(o, use_bin_type=True) for o in objects)
        self.batches.append((self.number, type_of_batch, len(objects), payload))
        self.number += 1

    def send_batches(self):
        for number, type_of_batch, count, payload in self.batches if self.window else []:
            self.push.send(HEAD.pack(
                0x96, 0xa1, ord("B"), VERSION, type_of_batch, 0xc4, 16, self.session, 0xce, self.generation,
                0x98, 0xd3, self.id, 0xce, self.kind, 0xcf, self.nonce, 0xcf, number, 0xcf, self.next, 0xce, count, 0,
                0xc6, len(payload)) + payload)
        self.sent_at = time.monotonic()

    # Downwards.

    def take_batch(self, body):
        sender, _, nonce, number, first, count, _, payload = body
        if nonce == self.nonce:  # its own broadcast acknowledges a batch
            self.acknowledged(number + 1)
        after = first + count
        self.known = max(self.known, after)
        if after <= self.next:
            return
        self.early[first] = (after, sender, b"" if nonce == self.nonce else payload)
        while self.next in self.early:
            first = self.next
            self.next, sender, payload = self.early.pop(first)
            unpacker = msgpack.Unpacker(raw=False)
            unpacker.feed(payload)
            self.received += [(first + i, sender, value) for i, value in enumerate(unpacker)]

    def acknowledged(self, expected):
        self.batches = [b for b in self.batches if b[0] >= expected]

    def news(self, following, first, _ack_ms, flags, terms):
        self.known = max(self.known, following)
        self.next = max(self.next, first)
        if flags & (DOWN_TERM | DOWN_BYE) or any(t[2] != self.nonce for t in terms):
            self.terminated = True
        if flags & DOWN_BYE_SEEN:
            self.left = True
        if flags & DOWN_ANSWER:
            self.report()

    def take(self, frame):
        topic, version, type_of_frame, session, generation, body = msgpack.unpackb(frame, raw=False)
        assert version == VERSION and topic in ("B", self.topic)
        if type_of_frame == WELCOME and self.generation == 0:
            self.session, self.generation = session, generation
        if type_of_frame == REFUSE:
            sys.exit("refused: status %d" % body[0])
        if (session, generation) != (self.session, self.generation):
            return
        if type_of_frame == RELAY:
            self.broadcasts += 1
            if not self.lose or self.broadcasts % self.lose:
                self.take_batch(body)
        elif type_of_frame == HEARTBEAT:
            self.news(*body)
        elif type_of_frame in (WELCOME, STATUS):
            self.acknowledged(body[0])
            opened = self.window == 0 and body[1] > 0
            self.window = body[1]
            if opened:
                self.send_batches()
            self.news(*body[3:])
        elif type_of_frame == REPAIR:
            unpacker = msgpack.Unpacker(raw=False, max_buffer_size=1 << 30)
            unpacker.feed(body[2])
            for inner in unpacker:
                self.take_batch(inner[5])

    def step(self):
        """Waits a moment for frames, then says again what was not answered."""
        if self.sub.poll(20):
            while self.sub.poll(0):
                self.take(self.sub.recv())
            if self.generation:
                self.report(ask=self.known > self.next)
                self.asked_at = time.monotonic()
        now = time.monotonic()
        if now < max(self.asked_at, self.sent_at) + AGAIN_SECONDS:
            return
        if not self.generation:
            self.hello()
        else:
            self.report(ask=self.known > self.next, answer=True)
            self.send_batches()
        self.asked_at = now


def main():
    pub, pull, worker_id, kind, send, expect = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
    worker = Worker(pub, pull, worker_id, kind, int(sys.argv[7]) if len(sys.argv) > 7 else 0)
    values = [1000000 * -worker_id + i for i in range(send)]
    for at in range(0, send, 2):
        worker.batch(RELAY, values[at:at + 2])
    worker.batch(OUTPUT, [[0, worker_id, b"python was here"]])
    while worker.batches or (len(worker.received) < expect and not worker.terminated):
        worker.step()
    worker.leaving = True
    while not worker.left:
        worker.step()
    for line in worker.received:
        print(*line)
    print("repairs", worker.repairs, "terminated", int(worker.terminated))


if __name__ == "__main__":
    main()
