#!/usr/bin/python3
"""Reads the golden frames of tests/wire with a decoder of another make, compares them with what they mean, and writes them again.

usage: golden.py [FOLDER]

The wire is described in the section "Frames" of messaging_impl.h. Whoever changes the wire changes these files.
"""
import pathlib
import struct
import sys

import msgpack

VERSION = 2
HELLO, RELAY, OUTPUT, REPORT, HEARTBEAT, WELCOME, STATUS, REPAIR, REFUSE = range(1, 10)
UP_ANSWER, UP_TERM, UP_TERM_SEEN, UP_BYE = 1, 2, 4, 8
DOWN_BYE, DOWN_BYE_SEEN = 4, 8
SESSION = bytes(range(16))
WORKER, WORKER_NONCE, KIND = -7, 0x2222222222222222, 5
SUPERVISOR, SUPERVISOR_NONCE = 1234, 0x1111111111111111
TOPIC = b"W" + struct.pack(">qQ", WORKER, WORKER_NONCE)
HEAD = struct.Struct(">BB7sBBBB16sBIBBqBIBQBQBQBQBQBQBIBBI")  # a batch frame up to its payload
WINDOW, ACK_MS = 2 << 20, 1000
ASKED = [[SUPERVISOR, 0, SUPERVISOR_NONCE]]


def batch(type_of_frame, sender, kind, nonce, number, position, objects, slot="000000", run=(0, 0, 0)):
    payload = b"".join(msgpack.packb(o, use_bin_type=True) for o in objects)
    return ["B" + slot, VERSION, type_of_frame, SESSION, 1, [sender, kind, nonce, number, position, *run, len(objects), 0, payload]]


def up(type_of_frame, body):
    return ["U", VERSION, type_of_frame, SESSION, 1, body]


def down(type_of_frame, body, topic=TOPIC):
    return [topic, VERSION, type_of_frame, SESSION, 1, body]


OWN = batch(RELAY, SUPERVISOR, 0, SUPERVISOR_NONCE, 1, 1, [7])
MEANING = {
    "hello": ["U", VERSION, HELLO, bytes(16), 0, [WORKER, KIND, WORKER_NONCE, 16 << 20]],
    "welcome": down(WELCOME, [1, 1, WINDOW, 0, 1, 1, 0, 0, 0, ACK_MS, 0, []]),
    "report": up(REPORT, [WORKER, WORKER_NONCE, 1, 0, 0, 0, []]),
    "relay_up": batch(RELAY, WORKER, KIND, WORKER_NONCE, 1, 1, [42, 1000]),
    "relay_down": batch(RELAY, WORKER, KIND, WORKER_NONCE, 1, 2, [42, 1000], "000001", (SUPERVISOR_NONCE, 1, 1)),
    "relay_own": OWN,
    "output": batch(OUTPUT, WORKER, KIND, WORKER_NONCE, 2, 4, [[0, -2, b"hello"]]),
    "status": down(STATUS, [1, 3, WINDOW, 0, 4, 1, WORKER_NONCE, 2, 1, ACK_MS, 0, []]),
    "heartbeat": down(HEARTBEAT, [2, 1, SUPERVISOR_NONCE, 1, 1, ACK_MS, 0, []], "B"),
    "report_ask": up(REPORT, [WORKER, WORKER_NONCE, 1, 0, 0, 65536, [[1, 1]]]),
    "repair": down(REPAIR, [1, 1, OWN]),
    "heartbeat_term": down(HEARTBEAT, [1, 1, 0, 0, 0, ACK_MS, 0, ASKED], "B"),
    "report_term": up(REPORT, [WORKER, WORKER_NONCE, 1, 0, UP_ANSWER | UP_TERM, 0, []]),
    "report_bye": up(REPORT, [WORKER, WORKER_NONCE, 1, 0, UP_TERM_SEEN | UP_BYE, 0, []]),
    "status_bye": down(STATUS, [0, 1, WINDOW, 0, 1, 1, 0, 0, 0, ACK_MS, DOWN_BYE_SEEN, ASKED]),
    "heartbeat_bye": down(HEARTBEAT, [1, 1, 0, 0, 0, ACK_MS, DOWN_BYE, []], "B"),
    "refuse": down(REFUSE, [15]),
}


def write_int(value):
    """Not negative: as short as can be. Negative: always in nine bytes."""
    return msgpack.packb(value) if value >= 0 else b"\xd3" + struct.pack(">q", value)


def write(value):
    if isinstance(value, list):
        return bytes([0x90 + len(value)]) + b"".join(map(write, value))
    return write_int(value) if isinstance(value, int) else msgpack.packb(value, use_bin_type=True)


def write_frame(frame):
    """A frame as the C library writes it: some widths are fixed where a reader takes any."""
    topic, version, type_of_frame, session, generation, body = frame
    if type_of_frame in (RELAY, OUTPUT):
        sender, kind, nonce, number, position, run_nonce, run_first, run_batch, count, flags, payload = body
        return HEAD.pack(0x96, 0xa0 + len(topic), topic.encode(), version, type_of_frame, 0xc4, 16, session, 0xce, generation,
                         0x9b, 0xd3, sender, 0xce, kind, 0xcf, nonce, 0xcf, number, 0xcf, position,
                         0xcf, run_nonce, 0xcf, run_first, 0xcf, run_batch, 0xce, count, flags, 0xc6, len(payload)) + payload
    head = b"\x96" + b"".join(map(write, frame[:5]))
    if type_of_frame == REPORT:
        ranges = body[6]
        return head + b"\x97" + b"".join(map(write, body[:6])) + b"\xdc" + struct.pack(">H", len(ranges)) + b"".join(map(write, ranges))
    if type_of_frame == REPAIR:
        last, count, frames = body
        return head + b"\x93" + write(last) + b"\xce" + struct.pack(">I", count) + b"\xc6" + struct.pack(">I", len(frames)) + frames
    return head + write(body)


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[1] / "wire")
    files = {path.stem: path for path in folder.glob("*.hex")}
    assert files.keys() == MEANING.keys(), "these files and meanings do not match: %s" % sorted(files.keys() ^ MEANING.keys())
    for name, path in sorted(files.items()):
        frame = bytes.fromhex("".join(line.split("#")[0] for line in path.read_text().splitlines()))
        value = msgpack.unpackb(frame, raw=False)
        if name == "repair":
            value[5][2] = msgpack.unpackb(value[5][2], raw=False)
        assert value == MEANING[name], "%s: %r is not %r" % (path, value, MEANING[name])
        if name == "repair":
            value[5][2] = write_frame(value[5][2])
        again = write_frame(value)
        assert again == frame, "%s: written again it is %s" % (path, again.hex(" "))
    print("%d golden frames read, compared and written again" % len(files))


if __name__ == "__main__":
    main()
