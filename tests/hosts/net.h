/*
 * net.h - hosts of our own: network namespaces, joined by a bridge in one more
 *
 *      HUB: bridge br0 ── h1 ═ eth0 of SUPERVISOR_HOST (10.77.0.1)
 *                      ── h2 ═ eth0 of HOST_A          (10.77.0.2)
 *                      ── h3 ═ eth0 of HOST_B          (10.77.0.3)
 *
 * The namespaces have no names: they exist as long as this process and its children do, so that nothing is left behind however a test ends.
 * Root makes them as such; another user within a user namespace of his own, where the system allows that.
 */
#ifndef NET_H
#define NET_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE first"
#endif
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HUB, SUPERVISOR_HOST, HOST_A, HOST_B, HOSTS };

static int net_of[HOSTS] = {-1, -1, -1, -1}; /* descriptors of the namespaces */

/* This thread, and whatever it forks and starts from now on, is on that host. */
static inline bool enter_host(int host) { return setns(net_of[host], CLONE_NEWNET) == 0; }

/* Runs a shell command on a host; its exit status. */
__attribute__((format(printf, 2, 3))) static inline int run_on(int host, const char *format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  pid_t child = fork();
  if (child == 0) {
    if (!enter_host(host)) _exit(126);
    (void)execl("/bin/sh", "sh", "-c", line, (char *)NULL);
    _exit(127);
  }
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline bool write_to(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  bool written = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
  (void)close(fd);
  return written;
}

/* In a user namespace of his own a user may make networks. */
static inline bool become_root(void) {
  char map[40];
  (void)snprintf(map, sizeof map, "0 %ld 1", (long)geteuid());
  return unshare(CLONE_NEWUSER) == 0 && write_to("/proc/self/setgroups", "deny") && write_to("/proc/self/uid_map", map);
}

static inline bool make_namespaces(void) {
  for (int host = HUB; host < HOSTS; host++) {
    if (unshare(CLONE_NEWNET) != 0) return false;
    net_of[host] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (net_of[host] < 0) return false;
  }
  return true;
}

static inline bool plug_in(int host) {
  return run_on(HUB, "ip link add h%d type veth peer name eth0 netns /proc/%ld/fd/%d && ip link set h%d master br0 up", host, (long)getpid(),
                net_of[host], host) == 0 &&
         run_on(host, "ip link set lo up && ip addr add 10.77.0.%d/24 dev eth0 && ip link set eth0 up", host) == 0;
}

/* Makes the hosts, once. NULL, or why it cannot be done here. The caller finds itself on the supervisor's host. */
static inline const char *make_hosts(void) {
  if (system("ip -V > /dev/null 2>&1") != 0) return "there is no ip command (package iproute2)";
  if (geteuid() != 0 && !become_root()) return "this user may not make network namespaces";
  if (!make_namespaces()) return "network namespaces are not allowed here";
  if (run_on(HUB, "ip link add br0 type bridge stp_state 0 forward_delay 0 2> /dev/null && ip link set br0 up") != 0) return "this kernel has no bridges";
  for (int host = SUPERVISOR_HOST; host < HOSTS; host++)
    if (!plug_in(host)) return "a link between two namespaces cannot be made here";
  return enter_host(SUPERVISOR_HOST) ? NULL : "namespaces cannot be entered";
}

#endif /* NET_H */
