#!/bin/sh
# Installs into build/install, and builds a program against it outside the repository: in C and C++, by pkg-config and by CMake.
set -eu
cd "$(dirname "$0")/.."
repository=$PWD
make=${MAKE:-make} cc=${CC:-cc} cxx=${CXX:-c++} pc=${PKG_CONFIG:-pkg-config}
makefile=Makefile
grep -qs install.mk Makefile || makefile=tests/install.mk # the fragment works by itself, too
flags="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
tree=$repository/build/install
outside=$(mktemp -d)
trap 'rm -rf "$outside" "$tree"' EXIT

say() { echo "test_install: $*"; }
fail() {
  say "FAILED: $*" >&2
  exit 1
}
run_make() { MAKEFLAGS='' "$make" -s -f "$makefile" "$@" > "$outside/make.log" 2>&1 || { cat "$outside/make.log"; fail "make $*"; }; }
installed_files() { find "$1" -type f | sed "s|^$1||" | sort; }

version=$(sed -n 's/^#define MESSAGING_VERSION_STRING "\(.*\)"/\1/p' messaging.h)
rm -rf "$tree"

# DESTDIR stands before the folders and in no file; uninstall takes everything back.
run_make install DESTDIR="$tree/staged" PREFIX=/opt/here
installed_files "$tree/staged" > "$outside/files"
cat > "$outside/expected" << END
/opt/here/include/messaging.h
/opt/here/include/messaging_impl.h
/opt/here/lib/cmake/messaging/messagingConfig.cmake
/opt/here/lib/cmake/messaging/messagingConfigVersion.cmake
/opt/here/lib/pkgconfig/messaging.pc
/opt/here/share/man/man3/messaging.3
/opt/here/share/man/man7/messaging.7
END
diff "$outside/expected" "$outside/files" || fail "these files were not expected"
if grep -rl "staged\|$repository\|@[A-Z]*@" "$tree/staged"; then fail "these name a folder of the build"; fi
run_make uninstall DESTDIR="$tree/staged" PREFIX=/opt/here
[ -z "$(installed_files "$tree/staged")" ] || fail "uninstall left something"
say "install and uninstall with DESTDIR"

# The pkg-config file asks for msgpack-c under the name that the system has.
mkdir "$outside/newer"
printf 'Name: msgpack-c\nDescription: of tomorrow\nVersion: 6.0.0\n' > "$outside/newer/msgpack-c.pc"
PKG_CONFIG_PATH=$outside/newer run_make install PREFIX="$tree/newer"
grep -q '^Requires:.* msgpack-c >=' "$tree/newer/lib/pkgconfig/messaging.pc" || fail "msgpack-c is there and not required"
run_make install PREFIX="$tree/usr"
if $pc --exists msgpack-c; then name=msgpack-c; else name=msgpack; fi
grep -q "^Requires: libzmq >= .* $name >=" "$tree/usr/lib/pkgconfig/messaging.pc" || fail "$name is not required"
say "messaging.pc requires $name"

# By pkg-config.
export PKG_CONFIG_PATH="$tree/usr/lib/pkgconfig"
[ "$($pc --modversion messaging)" = "$version" ] || fail "pkg-config gives another version"
cp tests/install/program.c tests/install/CMakeLists.txt "$outside"
cp tests/install/program.c "$outside/program.cpp"
cd "$outside"
check() { # a program, its name
  [ "$(timeout 60 "$1")" = "$version 42" ] || fail "$2 does not run"
  say "$2 runs"
}
# shellcheck disable=SC2046,SC2086 # words are wanted
{
  $cc -std=c11 -D_POSIX_C_SOURCE=200809L $flags program.c -o by_pkgconfig $($pc --cflags --libs messaging)
  $cxx -std=c++17 $flags program.cpp -o by_pkgconfig_cxx $($pc --cflags --libs messaging)
}
check ./by_pkgconfig "a C program by pkg-config"
check ./by_pkgconfig_cxx "a C++ program by pkg-config"

# By CMake, from a tree that was moved since.
if command -v cmake > /dev/null; then
  mv "$tree/usr" "$tree/moved"
  PKG_CONFIG_PATH='' cmake -S . -B built -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_PREFIX_PATH="$tree/moved" \
    > cmake.log 2>&1 && cmake --build built >> cmake.log 2>&1 || { cat cmake.log; fail "cmake"; }
  check built/by_cmake "a C program by CMake"
  check built/by_cmake_cxx "a C++ program by CMake"
  mv "$tree/moved" "$tree/usr"
else
  say "SKIPPED by CMake: no cmake here"
fi

# Libraries that are too old: the compiler says so, and so does init at run time.
too_old() { # header, macro, value, message
  mkdir -p old
  printf '#include_next <%s>\n#undef %s\n#define %s %s\n' "$1" "$2" "$2" "$3" > "old/$1"
  # shellcheck disable=SC2046
  if $cc -Iold -fsyntax-only program.c $($pc --cflags messaging) 2> old.log; then fail "$1 with $2 $3 compiles"; fi
  grep -q "error: .*$4" old.log || { cat old.log; fail "$1 with $2 $3: not the message '$4'"; }
  rm -r old
  say "$2 $3: $(grep -o 'messaging.h needs.*newer' old.log | head -n 1)"
}
too_old zmq.h ZMQ_VERSION_PATCH 2 "messaging.h needs libzmq 4.3.3 or newer"
too_old msgpack.h MSGPACK_VERSION_MAJOR 3 "messaging.h needs msgpack-c 4.0 or newer"

cat > old.c << 'END'
void zmq_version(int *major, int *minor, int *patch);
void zmq_version(int *major, int *minor, int *patch) { *major = 4, *minor = 2, *patch = 5; }
END
$cc -shared -fPIC old.c -o old.so
if LD_PRELOAD=$outside/old.so ./by_pkgconfig > run.log 2>&1; then fail "a libzmq that is too old at run time was taken"; fi
grep -q "libzmq" run.log || { cat run.log; fail "no word about the libzmq at run time"; }
say "libzmq 4.2.5 at run time: $(cat run.log)"
cat > old.c << 'END'
int msgpack_version_major(void);
int msgpack_version_major(void) { return 3; }
END
$cc -shared -fPIC old.c -o old.so
if LD_PRELOAD=$outside/old.so ./by_pkgconfig > run.log 2>&1; then fail "a msgpack-c that is too old at run time was taken"; fi
grep -q "msgpack-c" run.log || { cat run.log; fail "no word about the msgpack-c at run time"; }
say "msgpack-c 3 at run time: $(cat run.log)"

# The manual pages are proper ones.
for page in 3 7; do
  file=$tree/usr/share/man/man$page/messaging.$page
  grep -q '^\.SH NAME' "$file" || fail "messaging.$page is empty"
  if command -v man > /dev/null; then
    LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -l "$file" > page.txt 2> page.log || fail "man does not take messaging.$page"
    [ ! -s page.log ] || { cat page.log; fail "man complains about messaging.$page"; }
    [ "$(wc -l < page.txt)" -gt 80 ] || fail "messaging.$page is short"
  fi
done
say "manual pages"
say "OK"
