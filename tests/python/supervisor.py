#!/usr/bin/python3
"""A supervisor in another language; the wire is described in the section "Frames" of messaging_impl.h.

usage: supervisor.py FOLDER KIND IDS SEND EXPECT END [LOSE]

Binds two ipc addresses in FOLDER and prints them. Lists the workers IDS (separated by commas), all of kind KIND; sends SEND relay messages
(integers from 9000); takes EXPECT relay messages from its workers and prints a line for each ("number id value"), and one for each output
message ("output id type value text"). Once every worker has joined and has everything, it asks for termination and waits for their
goodbyes (END is term), or leaves with a goodbye of its own (END is bye). With LOSE it keeps one broadcast in LOSE to itself and throws
one batch in LOSE that comes up away (by chance, with a fixed seed), so that both sides have to repair.
"""
import os
import random
import struct
import sys
import time

import msgpack
import zmq

VERSION = 1
HELLO, RELAY, OUTPUT, REPORT, HEARTBEAT, WELCOME, STATUS, REPAIR, REFUSE = range(1, 10)
UP_ANSWER, UP_TERM, UP_TERM_SEEN, UP_BYE, UP_BYE_SEEN = 1, 2, 4, 8, 16
DOWN_ANSWER, DOWN_TERM, DOWN_BYE, DOWN_BYE_SEEN, DOWN_GAP = 1, 2, 4, 8, 16
EINVAL, EKIND, EAUTH, EVERSION = 1, 6, 15, 16  # of messaging_status
HEAD = struct.Struct(">BBBBBBB16sBIBBqBIBQBQBQBIBBI")  # a batch frame up to its payload
AT_POSITION = 62
MESSAGE_BYTES_MAX, WINDOW, REPAIR_BYTES = 16 << 20, 256 << 10, 64 << 10
HEARTBEAT_SECONDS, ACK_MS, AGAIN_SECONDS = 1.0, 25, 0.1


class Peer:
    def __init__(self, worker_id, kind):
        self.id, self.kind, self.nonce = worker_id, kind, 0
        self.joined = self.left = self.bye_seen = self.term_seen = False
        self.expected = self.has = 1  # its next batch; all relay messages below are in its inbox
        self.probe = 0

    def topic(self):
        return b"W" + struct.pack(">qQ", self.id, self.nonce)


class Supervisor:
    def __init__(self, folder, kind, ids, lose):
        self.id, self.nonce = os.getpid(), int.from_bytes(os.urandom(8), "big") | 1
        self.session, self.generation, self.lose = os.urandom(16), 1, lose
        context = zmq.Context()
        self.pub, self.pull = context.socket(zmq.XPUB), context.socket(zmq.PULL)
        self.pub.linger, self.pull.linger = 500, 0
        self.addresses = ["ipc://%s/%s" % (folder, name) for name in ("pub", "pull")]
        self.pub.bind(self.addresses[0])
        self.pull.bind(self.addresses[1])
        self.peers = {i: Peer(i, kind) for i in ids}
        self.history, self.next, self.number = [], 1, 1  # (first, after, frame); next relay number; of our own next batch
        self.terms, self.leaving = [], False
        self.heartbeat_at = self.again_at = 0.0
        self.chance = random.Random(7)
        self.repairs = self.gaps = 0
        self.relays, self.outputs = [], []

    def lost(self):
        return self.lose > 0 and self.chance.randrange(self.lose) == 0

    # Downwards.

    def publish(self, topic, type_of_frame, body):
        frame = [topic, VERSION, type_of_frame, self.session, self.generation, body]
        self.pub.send(msgpack.packb(frame, use_bin_type=True))

    def news(self, flags):
        return [self.next, 1, ACK_MS, flags | (DOWN_BYE if self.leaving else 0), self.terms]

    def heartbeat(self):
        self.publish("B", HEARTBEAT, self.news(0))
        self.heartbeat_at = time.monotonic() + HEARTBEAT_SECONDS

    def status(self, peer, type_of_frame=STATUS, flags=0):
        flags |= DOWN_BYE_SEEN if peer.left else 0
        self.publish(peer.topic(), type_of_frame, [peer.expected, WINDOW, peer.probe] + self.news(flags))

    def relay(self, frame, count):
        """Gives a batch its number, keeps it and sends it to all."""
        frame = frame[:AT_POSITION] + struct.pack(">Q", self.next) + frame[AT_POSITION + 8:]
        self.history.append((self.next, self.next + count, frame))
        self.next += count
        if not self.lost():
            self.pub.send(frame)

    def send(self, objects):
        payload = b"".join(msgpack.packb(o, use_bin_type=True) for o in objects)
        self.relay(HEAD.pack(
            0x96, 0xa1, ord("B"), VERSION, RELAY, 0xc4, 16, self.session, 0xce, self.generation,
            0x98, 0xd3, self.id, 0xce, 0, 0xcf, self.nonce, 0xcf, self.number, 0xcf, 0, 0xce, len(objects), 0,
            0xc6, len(payload)) + payload, len(objects))
        self.number += 1

    def repair(self, peer, ranges, credit):
        wanted = [f for first, after, f in self.history if any(a < after and first <= z for a, z in ranges)]
        chosen = wanted[:1]  # the first goes whatever the credit is
        for frame in wanted[1:]:
            if sum(map(len, chosen)) + len(frame) > min(credit, REPAIR_BYTES):
                break
            chosen.append(frame)
        self.repairs += 1
        self.publish(peer.topic(), REPAIR, [1, len(chosen), b"".join(chosen)])

    # Upwards.

    def hello(self, worker_id, kind, nonce, message_bytes_max):
        peer, stranger = self.peers.get(worker_id), Peer(worker_id, kind)
        stranger.nonce = nonce
        if peer is None:
            return  # not listed: it announces itself again
        if kind != peer.kind or message_bytes_max != MESSAGE_BYTES_MAX:
            self.publish(stranger.topic(), REFUSE, [EKIND if kind != peer.kind else EINVAL])
        elif peer.nonce and nonce != peer.nonce and not peer.left:
            self.publish(stranger.topic(), REFUSE, [EAUTH])
        else:
            if nonce != peer.nonce:  # a new incarnation begins anew
                peer = self.peers[worker_id] = stranger
            self.status(peer, WELCOME)

    def heard(self, worker_id, nonce, position):
        """The peer that speaks; None if it is none of ours."""
        peer = self.peers.get(worker_id)
        if peer is None or peer.nonce != nonce:
            return None
        peer.joined = True
        peer.has = max(peer.has, position)
        return peer

    def batch(self, frame, type_of_frame, body):
        worker_id, _, nonce, number, position, count, _, payload = body
        peer = self.heard(worker_id, nonce, position)
        if peer is None or self.lost():
            return
        if number != peer.expected:
            self.gaps += number > peer.expected
            self.status(peer, flags=DOWN_GAP if number > peer.expected else 0)
            return
        peer.expected += 1
        unpacker = msgpack.Unpacker(raw=False, max_buffer_size=1 << 30)
        unpacker.feed(payload)
        if type_of_frame == RELAY:
            self.relays += [(self.next + i, worker_id, value) for i, value in enumerate(unpacker)]
            self.relay(frame, count)  # its own broadcast is the acknowledgement
        else:
            self.outputs += [(worker_id, *output) for output in unpacker]
            self.status(peer)

    def report(self, worker_id, nonce, position, probe, flags, credit, ranges):
        peer = self.heard(worker_id, nonce, position)
        if peer is None:
            return
        peer.probe = probe
        if flags & UP_TERM and all(t[2] != nonce for t in self.terms) and len(self.terms) < 2:
            self.terms.append([peer.id, peer.kind, peer.nonce])
            self.heartbeat()
        peer.term_seen |= bool(flags & UP_TERM_SEEN)
        peer.bye_seen |= bool(flags & UP_BYE_SEEN)
        peer.left |= bool(flags & UP_BYE)
        if ranges:
            self.repair(peer, ranges, credit)
        if flags & (UP_ANSWER | UP_TERM | UP_BYE):
            self.status(peer)

    def take(self, frame):
        _, version, type_of_frame, session, generation, body = msgpack.unpackb(frame, raw=False)
        if version != VERSION:
            return
        if type_of_frame == HELLO:
            self.hello(*body)
        elif (session, generation) != (self.session, self.generation):
            return
        elif type_of_frame in (RELAY, OUTPUT):
            self.batch(frame, type_of_frame, body)
        elif type_of_frame == REPORT:
            self.report(*body)

    def lagging(self):
        return [p for p in self.peers.values() if not p.left and (not p.joined or p.has < self.next)]

    def step(self):
        """Waits a moment for frames, then reminds those who have not answered."""
        if self.pull.poll(20):
            while self.pull.poll(0):
                self.take(self.pull.recv())
        while self.pub.poll(0):
            self.pub.recv()  # subscriptions: a worker announces itself again until it hears its welcome
        now = time.monotonic()
        if now >= self.heartbeat_at:
            self.heartbeat()
        if now < self.again_at:
            return
        self.again_at = now + AGAIN_SECONDS
        for peer in self.lagging():
            if peer.joined:
                self.status(peer, flags=DOWN_ANSWER)
        if self.leaving or any(not p.term_seen for p in self.peers.values() if self.terms and not p.left):
            self.heartbeat()

    def over(self):
        return all(p.left or (self.leaving and p.bye_seen) for p in self.peers.values())


def main():
    folder, kind, ids, send, expect, end = sys.argv[1:7]
    lose = int(sys.argv[7]) if len(sys.argv) > 7 else 0
    supervisor = Supervisor(folder, int(kind), [int(i) for i in ids.split(",")], lose)
    print(*supervisor.addresses, flush=True)
    for at in range(0, int(send), 2):
        supervisor.send(list(range(9000 + at, min(9000 + at + 2, 9000 + int(send)))))
    while len(supervisor.relays) < int(expect) or supervisor.lagging():
        supervisor.step()
    if end == "bye":
        supervisor.leaving = True
    elif not supervisor.terms:
        supervisor.terms.append([supervisor.id, 0, supervisor.nonce])
    supervisor.heartbeat()
    while not supervisor.over():
        supervisor.step()
    for line in supervisor.relays:
        print(*line)
    for worker_id, type_of_output, value, text in supervisor.outputs:
        print("output", worker_id, type_of_output, value, text if isinstance(text, str) else text.decode())
    print("repairs", supervisor.repairs, "gaps", supervisor.gaps)


if __name__ == "__main__":
    main()
