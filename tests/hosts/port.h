/*
 * port.h - a tcp port on loopback that stays this test's while nobody listens there
 *
 * A port that is given up and wanted again may be another program's by then. One that a socket is bound to, not listening, is given to nobody who
 * asks for any; who wants this one can have it, since all of them set SO_REUSEADDR (socket(7)). libzmq does.
 */
#ifndef PORT_H
#define PORT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* The socket, to be closed when the port is not needed any more, and libzmq's address; -1: there is none. */
static inline int hold_port(char *address, size_t size) {
  struct sockaddr_in name;
  socklen_t length = sizeof name;
  int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  memset(&name, 0, sizeof name);
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 || bind(fd, (struct sockaddr *)&name, sizeof name) != 0 ||
      getsockname(fd, (struct sockaddr *)&name, &length) != 0)
    return -1;
  (void)snprintf(address, size, "tcp://127.0.0.1:%d", ntohs(name.sin_port));
  return fd;
}

#endif /* PORT_H */
