#!/usr/bin/python3
"""A supervisor that speaks the wire of the section "Frames" of messaging_impl.h, to try workers against.

usage: supervisor.py FOLDER KIND IDS SEND EXPECT END [LOSE]
The ipc addresses in FOLDER come on the first line: the one for SUB, the one for PUSH. KIND is that of all workers, IDS are negative and
separated by commas. SEND integers from 9000 on go out as relay messages, EXPECT ones (integers) of the workers are awaited. END is "term"
(ask all for termination, await their goodbyes) or "bye" (say goodbye, await the answers). With LOSE > 0 one broadcast RELAY and one batch
from below in LOSE get lost, at random with a fixed seed. Prints "NUMBER ID VALUE" for each relay message of a worker, "output ID TYPE VALUE
TEXT" for each output message (line breaks as \\n), "repairs R gaps G". Exits with 0; with 1 after 90 s, bad arguments or without sockets.
"""
import bisect, itertools, os, random, secrets, struct, sys, time
import msgpack, zmq

VERSION, GENERATION, MESSAGE_BYTES_MAX, SLOTS_MAX = 2, 1, 16777216, 63
HELLO, RELAY, OUTPUT, REPORT, HEARTBEAT, WELCOME, STATUS, REPAIR, REFUSE = range(1, 10)
UP_ANSWER, UP_TERMINATE, UP_KNOW_TERMINATION, UP_LEAVE, UP_KNOW_LEAVE = 1, 2, 4, 8, 16
DOWN_ANSWER, DOWN_LEAVE, DOWN_KNOW_LEAVE, DOWN_AHEAD = 1, 4, 8, 16
BAD_BYTES_MAX, BAD_KIND, NOT_LISTED, ID_TAKEN, BAD_VERSION = 1, 6, 7, 15, 16
WINDOW, FIRST, ACK_MS = 1 << 20, 1, 50      # bytes on the wire for each worker; the history is kept whole
BEAT_MIN, BEAT_MAX, SILENCE, DEADLINE, QUIET, PATIENCE = 0.05, 1.0, 60.0, 90.0, 1.0, 5.0    # seconds; beats are dense after news only
SIGNED, NATURAL, POSITIVE, INTEGER = range(-1 << 63, 1 << 63), range(1 << 64), range(1, 1 << 64), range(-1 << 63, 1 << 64)
# a batch begins with slot, version, type, session, generation, id, kind, nonce, number, position, run (nonce, first, batch), count, flags,
# size amid tags
HEADER, NO_SLOT, NO_RUN = struct.Struct(">3x6sBB2x16sxI2xqxIxQxQxQxQxQxQxIBxI"), 0, (0, 0, 0)
TAGS = bytes.fromhex("96a742%012x0000c410%032xce%08x9bd3%016xce%08xcf%016xcf%016xcf%016xcf%016xcf%016xcf%016xce%08x00c6%08x" % (13 * (0,)))

def need(condition):
    if not condition:
        raise ValueError("not as described")
def fields(value, *kinds):
    """The value, if it is an array of these: each a range of integers (true is none) or a type."""
    need(type(value) is list and len(value) == len(kinds) and all(
        type(part) is int and part in kind if type(kind) is range else type(part) is kind for part, kind in zip(value, kinds)))
    return value

def decode(data):
    """All objects in data, strings as bytes. The limits keep false lengths from reserving memory."""
    unpacker = msgpack.Unpacker(raw=True, max_buffer_size=max(1, len(data)), max_array_len=64, max_map_len=0, max_ext_len=0)
    unpacker.feed(data)
    found = list(unpacker)
    need(unpacker.tell() == len(data))                              # at a torn end the iterator just stops
    return found
def header(slot, *values):
    return bytes(tag | value for tag, value in zip(TAGS, HEADER.pack(f"{slot:06b}".encode(), *values)))

class Worker:
    """An incarnation. told: the expected number in the last STATUS; ahead: the highest above the expected one since; said: all flags it
    ever sent."""
    def __init__(self, ident, nonce, slot):
        self.id, self.nonce, self.slot, self.heard, self.spoken, self.left, self.status_due = ident, nonce, slot, 0.0, False, False, False
        self.expected, self.told, self.ahead, self.position, self.probe, self.said = 1, 1, 0, 1, 0, 0

class Supervisor:
    """wanted_at: when somebody last said what wants an answer; phase_at: when the present step to the end began."""
    def __init__(self, folder, kind, ids, send, expect, end, lose):
        self.kind, self.ids, self.own, self.expect, self.end, self.lose = kind, ids, range(9000, 9000 + send), expect, end, lose
        self.id, self.nonce, self.session = os.getpid(), secrets.randbits(64) or 1, secrets.token_bytes(16)
        self.incarnations, self.holders = {}, {}                    # workers by (id, nonce); by id, those who have it
        self.frames, self.firsts, self.next = [], [], 1             # the history, and the number each frame begins with
        self.run = NO_RUN                                           # whose the last messages are, since which number, and their last batch
        self.relayed, self.outputs, self.terms = [], [], []
        self.leaving, self.own_number, self.repairs, self.gaps, self.skipped = False, 1, 0, 0, 0
        self.now = self.wanted_at = self.phase_at = self.beat_at = self.own_at = time.monotonic()
        self.interval, self.random, self.context, self.poller = BEAT_MAX, random.Random(1), zmq.Context(), zmq.Poller()
        self.down, self.up = self.context.socket(zmq.XPUB), self.context.socket(zmq.PULL)
        self.down.sndhwm, self.up.maxmsgsize = 100000, MESSAGE_BYTES_MAX + 256 * 1024   # what goes beyond is lost, and repaired
        for socket, name in (self.down, "down"), (self.up, "up"):
            socket.linger = 1000
            socket.bind(f"ipc://{os.path.abspath(folder)}/{name}")
            self.poller.register(socket, zmq.POLLIN)

    def send(self, topic, frame_type, *body):
        self.down.send(msgpack.packb([topic, VERSION, frame_type, self.session, GENERATION, body]))
    def send_to(self, ident, nonce, frame_type, *body):
        self.send(b"W" + struct.pack(">qQ", ident, nonce), frame_type, *body)
    def send_state(self, worker, frame_type):
        """WELCOME or STATUS. After the goodbye of either side nothing is accepted: the window is shut."""
        flags = DOWN_LEAVE * self.leaving | DOWN_KNOW_LEAVE * worker.left | DOWN_AHEAD * (worker.ahead >= worker.expected)
        self.send_to(worker.id, worker.nonce, frame_type, worker.slot, worker.expected, 0 if self.leaving or worker.left else WINDOW,
                     worker.probe, self.next, FIRST, *self.run, ACK_MS, flags, self.terms)
        worker.told, worker.ahead, worker.status_due = worker.expected, 0, False

    def loses(self):
        return self.lose > 0 and self.random.randrange(self.lose) == 0
    def publish(self, slot, ident, kind, nonce, number, count, payload):
        """Numbers the messages of a RELAY, keeps it for repairs and sends it to all, but for its sender if that one leaves out its slot."""
        self.frames.append(header(slot, VERSION, RELAY, self.session, GENERATION, ident, kind, nonce, number, self.next, *self.run, count, 0,
                                  len(payload)) + payload)
        self.firsts.append(self.next)
        self.run = nonce, self.run[1] if nonce == self.run[0] else self.next, number
        self.next += count
        if not self.loses():
            self.down.send(self.frames[-1])
        self.interval, self.beat_at = BEAT_MIN, min(self.beat_at, self.now + BEAT_MIN)      # tells it to who has missed it
    def send_own(self):
        """They start with the first worker and come little by little, so that some are live and some history for others."""
        if self.own and self.holders and self.now >= self.own_at:
            count = min(max(1, len(self.own) // 20), 10000)
            payload = b"".join(map(msgpack.packb, self.own[:count]))
            self.publish(NO_SLOT, self.id, 0, self.nonce, self.own_number, count, payload)
            self.own, self.own_number, self.own_at = self.own[count:], self.own_number + 1, self.now + 0.01
    def repair(self, worker, spans, credit):
        """Answers at once, with the first batch and as far as the credit goes: a later REPORT finds nothing to replace."""
        frames = [self.frames[index] for index in sorted({index for first, last in spans if first < self.next for index in range(
            bisect.bisect_right(self.firsts, first) - 1, bisect.bisect_right(self.firsts, last))})]
        frames = frames[:max(1, bisect.bisect_right(list(itertools.accumulate(map(len, frames))), credit))]
        size = 16 if max(map(len, frames), default=0) < 1 << 16 else 1
        for start in range(0, len(frames) or 1, size):              # nothing found is an answer, too
            part = frames[start:start + size]
            self.send_to(worker.id, worker.nonce, REPAIR, int(start + size >= len(frames)), len(part), b"".join(part))
            self.repairs += 1

    def beat(self):
        if self.now >= self.beat_at:
            known = bool(self.terms) * UP_KNOW_TERMINATION | self.leaving * UP_KNOW_LEAVE       # what each should say by now
            waiting = any(not worker.left and (worker.position < self.next or known & ~worker.said) for worker in self.holders.values())
            flags = DOWN_ANSWER * waiting | DOWN_LEAVE * self.leaving
            self.send("B", HEARTBEAT, self.next, FIRST, *self.run, ACK_MS, flags, self.terms)
            self.beat_at = self.now + self.interval
            self.interval = min(2 * self.interval, BEAT_MAX) if waiting else BEAT_MAX

    def taken(self, worker):
        """Whether the id is the worker's, for others: until it has left, or been silent for long."""
        return worker is not None and not worker.left and self.now - worker.heard < SILENCE
    def hello(self, version, body):
        body = body if version == VERSION else body[:3] + [0]       # whose rest may be anything
        ident, kind, nonce, bytes_max = fields(body, SIGNED, NATURAL, POSITIVE, NATURAL)
        if ident not in self.ids:
            return                                                  # silence: it may be listed one day
        holder, self.wanted_at = self.holders.get(ident), self.now
        status = (BAD_VERSION if version != VERSION else BAD_KIND if kind != self.kind else BAD_BYTES_MAX
                  if bytes_max != MESSAGE_BYTES_MAX else ID_TAKEN if self.taken(holder) and holder.nonce != nonce else 0)
        if status:
            return self.send_to(ident, nonce, REFUSE, status)
        slot = len(self.incarnations) + 1 if len(self.incarnations) < SLOTS_MAX else NO_SLOT
        worker = self.incarnations.setdefault((ident, nonce), Worker(ident, nonce, slot))
        worker.heard = self.now
        if not worker.spoken:
            self.send_state(worker, WELCOME)
    def speaker(self, ident, nonce, position, goodbye=False):
        """The incarnation that speaks in this session; None if nobody is to be listened to. The first to speak has the id."""
        worker, holder = self.incarnations.get((ident, nonce)), self.holders.get(ident)
        if not worker:
            return self.send_to(ident, nonce, REFUSE, NOT_LISTED) if goodbye or ident not in self.ids else None
        if not worker.left and not self.taken(holder):
            self.holders[ident] = worker
        elif not worker.left and worker is not holder and not goodbye:
            return self.send_to(ident, nonce, REFUSE, ID_TAKEN)
        worker.heard, worker.spoken, worker.position = self.now, True, max(worker.position, min(position, self.next))
        return worker

    def batch(self, raw):
        values = HEADER.unpack_from(raw)
        _, version, frame_type, session, generation, ident, kind, nonce, number, position, *run, count, flags, size = values
        need((version, session, generation) == (VERSION, self.session, GENERATION) and size == len(raw) - HEADER.size)
        need(header(NO_SLOT, *values[1:]) == raw[:HEADER.size] and tuple(run) == NO_RUN)
        need(frame_type in (RELAY, OUTPUT) and nonce and number and count and flags < 128)
        self.wanted_at = self.now
        worker = None if self.loses() else self.speaker(ident, nonce, position)
        if not worker:
            return
        need(kind == self.kind)
        accepted = number == worker.expected and not worker.left and not self.leaving
        if accepted:
            found = decode(raw[HEADER.size:])
            need(len(found) == count and all(fields(item, range(3), INTEGER, bytes) if frame_type == OUTPUT else type(item) is int
                                             for item in found))
            worker.expected += 1
            if frame_type == RELAY:
                self.relayed += [(self.next + index, ident, value) for index, value in enumerate(found)]
                self.publish(worker.slot, ident, kind, nonce, number, count, raw[HEADER.size:])
            else:
                self.outputs += [("output", ident, kind_of_output, value, text.decode("utf-8", "backslashreplace").replace("\n", "\\n"))
                                 for kind_of_output, value, text in found]
        elif number > worker.expected:
            self.gaps, worker.ahead = self.gaps + 1, max(worker.ahead, number)
        worker.status_due |= not accepted or flags & UP_ANSWER or frame_type == OUTPUT      # else a run says it
    def report(self, body):
        ident, nonce, position, probe, flags, credit, spans = fields(body, SIGNED, POSITIVE, *[NATURAL] * 4, list)
        need(len(spans) <= 16 and all(fields(span, POSITIVE, POSITIVE) for span in spans))
        worker = self.speaker(ident, nonce, position, flags & UP_LEAVE)
        if worker:
            worker.probe, worker.said, worker.left = probe, worker.said | flags, worker.left or flags & UP_LEAVE > 0
            if flags & UP_TERMINATE:
                self.ask_termination([ident, self.kind, nonce])
            if flags & (UP_ANSWER | UP_LEAVE):
                self.wanted_at, worker.status_due = self.now, True
            if spans:
                self.repair(worker, spans, credit)
    def ask_termination(self, who):
        if who not in self.terms and len(self.terms) < 2:           # with two, everybody finds another than itself
            self.terms.append(who)
            self.interval, self.beat_at = BEAT_MIN, self.now
    def take(self, parts):
        """Raises what receive counts if the frame is malformed or not of this session."""
        raw, = parts
        if raw.startswith(TAGS[:3]):
            return self.batch(raw)
        frame, = decode(raw)
        topic, version, frame_type, session, generation, body = fields(frame, bytes, NATURAL, NATURAL, bytes, NATURAL, list)
        if frame_type == HELLO:
            need((topic, session, generation) == (b"U", bytes(16), 0))
            return self.hello(version, body)
        need((topic, version, frame_type, session, generation) == (b"U", VERSION, REPORT, self.session, GENERATION))
        self.report(body)
    def receive(self):
        ready = dict(self.poller.poll(10))                          # no longer, for the other duties look at the clock
        self.now = time.monotonic()
        for socket in [socket for socket in ready for _ in range(500)]:     # a part only, for heartbeats must go out
            try:
                parts = socket.recv_multipart(zmq.NOBLOCK)
                if socket is self.up:                               # the other tells subscriptions: HELLO says enough
                    self.take(parts)
            except zmq.Again:
                pass
            except (ValueError, TypeError, struct.error, msgpack.UnpackException):
                self.skipped += 1
        for worker in self.incarnations.values():                   # one answer to a burst
            last = worker.nonce == self.run[0] and worker.told < worker.expected        # no RELAY behind its run tells of it
            if worker.status_due or last:
                self.send_state(worker, STATUS)

    def finished(self):
        """Takes the steps to the end. Before each it stays until nobody wants an answer: a goodbye's may have got lost."""
        workers, still = self.holders.values(), self.now - self.wanted_at > QUIET or self.now - self.phase_at > PATIENCE
        if self.leaving:
            return still and all(worker.left or worker.said & UP_KNOW_LEAVE for worker in workers)
        if (len(workers) < len(self.ids) or len(self.relayed) < self.expect or self.own
                or any(not worker.left and worker.position < self.next for worker in workers)):
            self.phase_at = self.now
        elif (self.end == "term" or self.terms) and not all(worker.left for worker in workers):
            self.ask_termination([self.id, 0, self.nonce])          # reaches also the worker that asked first
        elif still or self.end == "term" or self.terms:             # before "bye" output may still be on its way
            self.leaving, self.phase_at, self.interval, self.beat_at = True, self.now, BEAT_MIN, self.now

def main(arguments):
    try:
        folder, kind, ids, send, expect, end, lose = arguments + ["0"] * (len(arguments) == 6)
        ids, (kind, send, expect, lose) = {int(ident) for ident in ids.split(",")}, map(int, (kind, send, expect, lose))
        need(end in ("term", "bye") and max(ids) < 0 and min(ids) in SIGNED and kind in range(1 << 32))
        supervisor = Supervisor(folder, kind, ids, send, expect, end, lose)
    except (ValueError, zmq.ZMQError) as error:
        sys.exit(f"{error}\n{__doc__}")
    print(supervisor.down.last_endpoint.decode(), supervisor.up.last_endpoint.decode(), flush=True)
    deadline = supervisor.now + DEADLINE
    while not supervisor.finished():
        if supervisor.now > deadline:
            sys.exit(f"not done in time: {len(supervisor.relayed)} of {expect} relay messages; "
                     f"joined: {sorted(supervisor.holders)}; frames skipped: {supervisor.skipped}")
        supervisor.send_own()
        supervisor.beat()
        supervisor.receive()
    supervisor.context.destroy(linger=1000)
    for line in supervisor.relayed + supervisor.outputs + [("repairs", supervisor.repairs, "gaps", supervisor.gaps)]:
        print(*line)

if __name__ == "__main__":
    main(sys.argv[1:])
