#!/usr/bin/python3
"""Compiles and runs what README.md and the headers show: the first program with its compile line against its output, the snippet at the top
of messaging.h, and every make target and file that README.md names.

usage: readme.py      CC, CXX and PKG_CONFIG as everywhere
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
HEADER = (ROOT / "messaging.h").read_text()
PKG_CONFIG = os.environ.get("PKG_CONFIG", "pkg-config")
MSGPACK = "msgpack-c" if subprocess.run([PKG_CONFIG, "--exists", "msgpack-c"]).returncode == 0 else "msgpack"
WARNINGS = "-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"


def say(text):
    print("test_readme: " + text, flush=True)


def fail(text):
    say("FAILED: " + text)
    sys.exit(1)


def blocks(language):
    return re.findall(r"^```" + language + r"\n(.*?)^```", README, re.M | re.S)


def shell(command, folder, environment=None):
    done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode:
        fail("%s\n%s%s" % (command, done.stdout, done.stderr))
    return done.stdout


def for_this_system(line):
    """Another name of msgpack-c, and the compiler that was asked for; what stands behind # is for people."""
    line = line.split(" #")[0].split("//")[-1].strip()
    line = re.sub(r"\bmsgpack(-c)?\)", MSGPACK + ")", line).replace("pkg-config", PKG_CONFIG)
    return re.sub(r"^cc\b", os.environ.get("CC", "cc"), line)


def first_screen(folder):
    """The program, its compile line and its output, the way they follow each other."""
    program, lines, output = blocks("c")[0], blocks("sh")[0].strip().splitlines(), blocks("text")[0]
    if len(program.splitlines()) > 45:
        fail("the first program has %d lines" % len(program.splitlines()))
    (folder / "first.c").write_text(program)
    for name in ("messaging.h", "messaging_impl.h"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    for line in lines[:-1]:
        shell(for_this_system(line) + " -I. " + WARNINGS, folder)
    for turn in range(5):
        said = shell(for_this_system(lines[-1]), folder)
        if said != output:
            fail("the program says %r, README.md %r" % (said, output))
    say("the first program compiles as README.md says, and says what it says")


def installed(folder):
    """The same against an installed tree, by its pkg-config name."""
    tree = folder / "tree"
    makefile = "Makefile" if (ROOT / "Makefile").exists() else "tests/install.mk"
    environment = dict(os.environ, MAKEFLAGS="", PKG_CONFIG_PATH=str(tree / "lib/pkgconfig"))
    shell("make -s -f %s install PREFIX=%s" % (makefile, tree), ROOT, environment)
    for name in ("messaging.h", "messaging_impl.h"):
        (folder / name).unlink()
    compiler = os.environ.get("CC", "cc")
    shell("%s first.c -o second %s $(%s --cflags --libs messaging)" % (compiler, WARNINGS, PKG_CONFIG), folder, environment)
    if shell("./second", folder) != blocks("text")[0]:
        fail("against the installed headers the program says something else")
    say("and against the installed headers")


COMPLETION = """
static int fact_encode(msgpack_packer *pk, const fact *in) {
  return msgpack_pack_array(pk, 2) || msgpack_pack_uint32(pk, in->id) || msgpack_pack_str(pk, in->text_size) ||
         msgpack_pack_str_body(pk, in->text, in->text_size);
}

static int fact_decode(const msgpack_object *obj, msgpack_zone *zone, fact *out) {
  (void)zone;
  if (obj->type != MSGPACK_OBJECT_ARRAY || obj->via.array.size != 2) return 1;
  const msgpack_object *fields = obj->via.array.ptr;
  if (fields[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER || fields[1].type != MSGPACK_OBJECT_STR) return 1;
  out->id = (uint32_t)fields[0].via.u64;
  out->text = fields[1].via.str.ptr;
  out->text_size = fields[1].via.str.size;
  return 0;
}

int main(void) {
  bus_ctx *im, *worker;
  messaging_addresses at;
  messaging_child child = {-1, 1};
  static messaging_options options;
  bus_batch batch;
  options.id = child.pid;
  if (bus_init_im(&im, &at, NULL) || bus_run_im(im, &child, 1, NULL, NULL)) return 1;
  if (bus_init_worker(&worker, 1, at.pub, at.pull, &options) || bus_run_worker(worker, NULL, NULL)) return 1;
  fact sent = {7, "seven", 5};
  if (bus_send_relay_message(worker, &sent) || bus_wait(im, 30000) || bus_recv(im, &batch) || batch.count != 1) return 1;
  const fact *got = &batch.messages[0].relay.message;
  printf("%u %.*s\\n", got->id, (int)got->text_size, got->text);
  bus_batch_free(&batch);
  return bus_exit(&worker) || bus_exit(&im);
}
"""


def top_of_the_header(folder):
    """The snippet that messaging.h begins with, completed in the obvious way; its compile line stands in it."""
    lines = re.findall(r"^ \*     (\S.*)$", HEADER[:HEADER.index("*/")], re.M)
    compile_line = next(line for line in lines if line.startswith("#include"))
    if "//" not in compile_line:
        fail("the snippet of messaging.h has no compile line")
    snippet = "\n".join(line.split("//")[0].rstrip() for line in lines)
    for suffix, compiler in ((".c", os.environ.get("CC", "cc")), (".cpp", os.environ.get("CXX", "c++"))):
        (folder / ("app" + suffix)).write_text(snippet + "\n" + COMPLETION)
        command = re.sub(r"^\S+ app\.c", compiler + " app" + suffix, for_this_system(compile_line))
        shell("%s -o app -I%s %s" % (command, ROOT, WARNINGS), folder)
        if shell("./app", folder) != "7 seven\n":
            fail("the snippet of messaging.h, completed, says something else")
    say("the snippet of messaging.h compiles and runs, as C and C++")


def what_is_named():
    """Every make target that README.md tells to run exists, and every file that it names."""
    targets = set(re.findall(r"`make ([a-z -]+)`", README)) | set(re.findall(r"^make ([a-z -]+)$", "\n".join(blocks("sh")), re.M))
    targets = sorted({target for line in targets for target in line.split()})
    if (ROOT / "Makefile").exists():
        for target in targets:
            done = subprocess.run(["make", "-n", target], cwd=ROOT, env=dict(os.environ, MAKEFLAGS=""), capture_output=True, text=True)
            if done.returncode:
                fail("README.md says make %s: %s" % (target, done.stderr.strip()))
    names = set(re.findall(r"`((?:tests|bench)/[\w./-]+|\w+\.[hc]|\w+\.md)`", README)) | set(re.findall(r"\]\(([\w./-]+)\)", README))
    for name in sorted(names):
        if not (ROOT / name).exists():
            fail("README.md names %s, which does not exist" % name)
    say("%d make targets and %d files that README.md names exist" % (len(targets), len(names)))


def nothing_left_out():
    """Every block in README.md is one that is looked at here."""
    known = {"c": 1, "sh": 2, "text": 1}
    for language in re.findall(r"^```(\w+)$", README, re.M):
        known[language] = known.get(language, 0) - 1
    for language, left in known.items():
        if left < 0:
            fail("README.md has a new block of %s, which no test looks at: see tests/readme/readme.py" % language)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        first_screen(folder)
        installed(folder)
        top_of_the_header(folder)
    what_is_named()
    nothing_left_out()
    say("OK")


if __name__ == "__main__":
    main()
