/*
 * forwarder.h - forwards tcp connections on loopback and, when told to, resets one in the middle of a frame
 *
 * A thread takes connections on two ports of its own, one for the supervisor's publisher and one for its collector, connects each on and forwards
 * bytes. It follows ZMTP's framing (a greeting of 64 bytes; then flags, a length of 1 or 8 bytes, and as many bytes: ZeroMQ RFC 23), which
 * CURVE leaves alone, so it knows when half of a large frame has passed: there it sends a reset both ways (SO_LINGER 0).
 */
#ifndef FORWARDER_H
#define FORWARDER_H

#include "../harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>

enum { GREETING = 64, LINKS_MAX = 64, LARGE_FRAME = 128 * 1024 };

/* Where a stream of ZMTP is. */
typedef struct {
  uint8_t head[9];
  size_t greeting, head_size, left, size; /* bytes so far of the greeting and of a frame's head; of its body, those to come and all */
} framing;

typedef struct {
  int fds[2]; /* the worker's and the supervisor's end */
  framing from[2]; /* what each end says */
} forwarded;

static struct {
  int listeners[2];
  struct sockaddr_in targets[2];
  forwarded links[LINKS_MAX];
  size_t count;
  pthread_t thread;
  atomic_bool stop;
  atomic_int wanted[2]; /* resets: of large frames to the supervisor (0) and from it (1) */
  atomic_int resets, connections;
} forwarding;

/* Takes the next byte of a frame's head. */
static inline void take_head(framing *f, uint8_t byte) {
  f->head[f->head_size++] = byte;
  size_t head = (f->head[0] & 2) ? 9 : 2;
  if (f->head_size < head) return;
  f->size = 0;
  for (size_t i = 1; i < head; i++) f->size = f->size << 8 | f->head[i];
  f->left = f->size;
  f->head_size = 0;
}

/* Follows a chunk of a stream. Where in it a large frame is half over; the chunk's size if nowhere. */
static inline size_t follow(framing *f, const uint8_t *bytes, size_t size) {
  size_t middle = size;
  for (size_t at = 0; at < size;) {
    if (f->greeting < GREETING) {
      f->greeting++;
      at++;
    } else if (f->left == 0) {
      take_head(f, bytes[at++]);
    } else {
      size_t part = f->left < size - at ? f->left : size - at;
      if (f->size >= LARGE_FRAME && f->left > f->size / 2 && f->left - part <= f->size / 2) middle = at + f->left - f->size / 2;
      f->left -= part;
      at += part;
    }
  }
  return middle;
}

static inline bool pass_on(int fd, const uint8_t *bytes, size_t size) {
  while (size > 0) {
    ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes += n;
    size -= (size_t)n;
  }
  return true;
}

static inline void drop_link(size_t index, bool reset) {
  struct linger now = {1, 0};
  for (int end = 0; end < 2; end++) {
    if (reset) (void)setsockopt(forwarding.links[index].fds[end], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    (void)close(forwarding.links[index].fds[end]);
  }
  forwarding.links[index] = forwarding.links[--forwarding.count];
}

/* Forwards one chunk, or half of it and then a reset. False: the link is gone. */
static inline bool forward_chunk(size_t index, int end) {
  forwarded *l = &forwarding.links[index];
  uint8_t chunk[16384];
  ssize_t n = recv(l->fds[end], chunk, sizeof chunk, 0);
  size_t size = n > 0 ? (size_t)n : 0, middle = follow(&l->from[end], chunk, size);
  bool strike = middle < size && atomic_load(&forwarding.wanted[end]) > 0;
  if (pass_on(l->fds[!end], chunk, middle) && !strike && pass_on(l->fds[!end], chunk + middle, size - middle) && n > 0) return true;
  if (strike) {
    atomic_fetch_sub(&forwarding.wanted[end], 1);
    atomic_fetch_add(&forwarding.resets, 1);
  }
  drop_link(index, strike);
  return false;
}

static inline void accept_link(int which) {
  forwarded l = {.fds = {accept(forwarding.listeners[which], NULL, NULL), socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)}};
  const struct sockaddr_in *target = &forwarding.targets[which];
  bool connected = l.fds[0] >= 0 && l.fds[1] >= 0 && connect(l.fds[1], (const struct sockaddr *)target, sizeof *target) == 0;
  if (connected && forwarding.count < LINKS_MAX) {
    forwarding.links[forwarding.count++] = l;
    atomic_fetch_add(&forwarding.connections, 1);
    return;
  }
  for (int end = 0; end < 2; end++)
    if (l.fds[end] >= 0) (void)close(l.fds[end]);
}

static inline void *forward(void *unused) {
  while (!atomic_load(&forwarding.stop)) {
    struct pollfd fds[2 + 2 * LINKS_MAX];
    size_t links = forwarding.count;
    for (size_t i = 0; i < 2; i++) fds[i] = (struct pollfd){forwarding.listeners[i], POLLIN, 0};
    for (size_t i = 0; i < 2 * links; i++) fds[2 + i] = (struct pollfd){forwarding.links[i / 2].fds[i % 2], POLLIN, 0};
    if (poll(fds, 2 + 2 * links, 20) <= 0) continue;
    for (size_t i = links; i-- > 0;) { /* from behind, since the last takes the place of one that is gone */
      if (fds[2 + 2 * i].revents && !forward_chunk(i, 0)) continue;
      if (fds[3 + 2 * i].revents) (void)forward_chunk(i, 1);
    }
    for (int i = 0; i < 2; i++)
      if (fds[i].revents) accept_link(i);
  }
  while (forwarding.count) drop_link(0, false);
  return unused;
}

static inline struct sockaddr_in address_of(const char *address) {
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1))};
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return name;
}

/* Begins to forward to the supervisor's addresses, and says what workers are to connect to. */
static inline messaging_addresses forward_to(const messaging_addresses *real) {
  messaging_addresses own;
  memset(&forwarding, 0, sizeof forwarding);
  for (int i = 0; i < 2; i++) {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof name;
    forwarding.targets[i] = address_of(i == 0 ? real->pub : real->pull);
    int fd = forwarding.listeners[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&name, sizeof name) != 0 || listen(fd, 64) != 0 || getsockname(fd, (struct sockaddr *)&name, &size) != 0)
      give_up("the forwarder cannot listen");
    (void)snprintf(i == 0 ? own.pub : own.pull, MESSAGING_ADDRESS_SIZE, "tcp://127.0.0.1:%d", ntohs(name.sin_port));
  }
  if (pthread_create(&forwarding.thread, NULL, forward, NULL) != 0) give_up("no thread");
  return own;
}

static inline void stop_forwarding(void) {
  if (!forwarding.thread) return;
  atomic_store(&forwarding.stop, true);
  (void)pthread_join(forwarding.thread, NULL);
  for (int i = 0; i < 2; i++) (void)close(forwarding.listeners[i]);
  forwarding.thread = 0;
}

#endif /* FORWARDER_H */
