/* As little as it takes: a Unix stream socket, or a pair of pipes, between the supervisor and each worker, and the same batching
 * as this library's: up to 48 KB are gathered, then written at once. The supervisor writes each batch to everybody else.
 * Nothing is numbered, acknowledged or decoded, and a reader that stops stops everybody. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../bench.h"
#include "../tools.h"

#define GATHER_BYTES 49152u
#define READ_BYTES (256u << 10)
#define SOCKET_BYTES (1 << 20)

typedef struct { /* in front of a batch */
  uint32_t size; /* behind this */
  uint32_t tag;
} batch_head;

typedef struct {
  int up_read, up_write, down_read, down_write; /* one socket's ends twice, or two pipes */
} link_fds;

/* Bytes that were read and are not used up. */
typedef struct {
  uint8_t *bytes;
  size_t used, size, max;
} inflow;

typedef struct {
  int in, out;
  inflow inflow;
  uint8_t *gathered;
  size_t gathered_size, gathered_max;
} end_stream;

/* ==== Before the fork ================================================================================================= */

static void make_socket(link_fds *l) {
  int pair[2], bytes = SOCKET_BYTES;
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) fail("socketpair: %s", strerror(errno));
  for (int i = 0; i < 2; i++) setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  *l = (link_fds){pair[0], pair[1], pair[1], pair[0]};
}

static void make_pipes(link_fds *l) {
  int up[2], down[2];
  if (pipe(up) != 0 || pipe(down) != 0) fail("pipe: %s", strerror(errno));
  fcntl(up[1], F_SETPIPE_SZ, SOCKET_BYTES);
  fcntl(down[1], F_SETPIPE_SZ, SOCKET_BYTES);
  *l = (link_fds){up[0], up[1], down[0], down[1]};
}

static void prepare(scene *s) {
  link_fds *links = checked_calloc(s->workers, sizeof *links);
  for (uint32_t w = 0; w < s->workers; w++) {
    if (s->system == &peer_pipe) make_pipes(&links[w]);
    else make_socket(&links[w]);
  }
  s->system_data = links;
}

static void release(scene *s) {
  link_fds *links = s->system_data;
  for (uint32_t w = 0; w < s->workers; w++) {
    close(links[w].up_read);
    close(links[w].up_write);
    if (s->system != &peer_pipe) continue;
    close(links[w].down_read);
    close(links[w].down_write);
  }
  free(links);
}

/* ==== Bytes =========================================================================================================== */

static void write_all(int fd, const uint8_t *bytes, size_t size) {
  while (size > 0) {
    ssize_t written = write(fd, bytes, size);
    if (written < 0 && errno != EINTR) fail("write: %s", strerror(errno));
    if (written <= 0) continue;
    bytes += written;
    size -= (size_t)written;
  }
}

/* Reads what is there, behind what is kept. */
static void read_more(inflow *f, int fd) {
  if (f->used > 0) memmove(f->bytes, f->bytes + f->used, f->size - f->used);
  f->size -= f->used;
  f->used = 0;
  if (f->max < f->size + READ_BYTES) {
    f->max = 2 * (f->size + READ_BYTES);
    f->bytes = realloc(f->bytes, f->max);
    if (!f->bytes) fail("out of memory");
  }
  ssize_t got = read(fd, f->bytes + f->size, f->max - f->size);
  if (got == 0 || (got < 0 && errno != EINTR)) fail("the other end is gone");
  if (got > 0) f->size += (size_t)got;
}

/* How many bytes from the first unused one on are whole batches. */
static size_t whole_batches(const inflow *f) {
  size_t at = f->used;
  batch_head head;
  while (f->size - at >= sizeof head) {
    memcpy(&head, f->bytes + at, sizeof head);
    if (f->size - at - sizeof head < head.size) break;
    at += sizeof head + head.size;
  }
  return at - f->used;
}

/* ==== The relay ======================================================================================================= */

static void hand_on(const scene *s, inflow *f, uint32_t from) {
  const link_fds *links = s->system_data;
  size_t size = whole_batches(f);
  for (uint32_t w = 0; w < s->workers && size > 0; w++)
    if (scene_hears(s, w, from)) write_all(links[w].down_write, f->bytes + f->used, size);
  f->used += size;
}

static void relay(scene *s) {
  const link_fds *links = s->system_data;
  inflow *inflows = checked_calloc(s->workers, sizeof *inflows);
  struct epoll_event events[64];
  int epoll = epoll_create1(0);
  for (uint32_t w = 0; w < s->workers; w++) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = w};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, links[w].up_read, &event) != 0) fail("epoll: %s", strerror(errno));
  }
  sem_post(&s->bound);
  sem_post(&s->all_in);
  for (;;) {
    int count = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < count; i++) {
      uint32_t w = events[i].data.u32;
      read_more(&inflows[w], links[w].up_read);
      hand_on(s, &inflows[w], w);
    }
  }
}

/* ==== A worker ======================================================================================================== */

static void *join(scene *s, uint32_t worker) {
  const link_fds *links = s->system_data;
  end_stream *e = checked_calloc(1, sizeof *e);
  e->in = links[worker].down_read;
  e->out = links[worker].up_write;
  return e;
}

static void flush(void *end) {
  end_stream *e = end;
  if (e->gathered_size == 0) return;
  batch_head head = {(uint32_t)(e->gathered_size - sizeof head), 0};
  memcpy(e->gathered, &head, sizeof head);
  write_all(e->out, e->gathered, e->gathered_size);
  e->gathered_size = 0;
}

static void put(void *end, const packet *m) {
  end_stream *e = end;
  size_t wanted = GATHER_BYTES + sizeof(batch_head) + 4 + m->size;
  if (e->gathered_max < wanted) {
    e->gathered = realloc(e->gathered, wanted);
    e->gathered_max = wanted;
    if (!e->gathered) fail("out of memory");
  }
  if (e->gathered_size == 0) e->gathered_size = sizeof(batch_head);
  memcpy(e->gathered + e->gathered_size, &m->size, 4);
  memcpy(e->gathered + e->gathered_size + 4, m->bytes, m->size);
  e->gathered_size += 4 + m->size;
  if (e->gathered_size >= GATHER_BYTES) flush(e);
}

static uint32_t take_batch(const uint8_t *at, const uint8_t *last, note_fn *tell, void *user) {
  uint32_t count = 0, size, tag, seq;
  for (; at < last; at += 4 + size, count++) {
    memcpy(&size, at, 4);
    packet_read(at + 4, size, &tag, &seq);
    tell(user, tag, seq);
  }
  return count;
}

static uint32_t take_batches(inflow *f, note_fn *tell, void *user) {
  uint32_t count = 0;
  batch_head head;
  for (size_t size = whole_batches(f); size > 0; size -= sizeof head + head.size) {
    memcpy(&head, f->bytes + f->used, sizeof head);
    const uint8_t *at = f->bytes + f->used + sizeof head;
    count += take_batch(at, at + head.size, tell, user);
    f->used += sizeof head + head.size;
  }
  return count;
}

/* Reads right away where it may block, for the last timeout is the suite's. */
static uint32_t take(void *end, note_fn *tell, void *user, int timeout_ms) {
  end_stream *e = end;
  struct pollfd entry = {e->in, POLLIN, 0};
  uint32_t count = 0;
  while (count == 0) {
    if (timeout_ms < RECEIVE_TIMEOUT_MS && poll(&entry, 1, timeout_ms) <= 0) return 0;
    read_more(&e->inflow, e->in);
    count = take_batches(&e->inflow, tell, user);
  }
  return count;
}

const peer peer_unix = {
    .name = "unix",
    .setup = "stream sockets, 1 MB of send buffer, blocking; batches of up to 48 KB written by hand; not numbered, not acknowledged",
    .version = "",
    .prepare = prepare,
    .relay = relay,
    .join = join,
    .send = put,
    .flush = flush,
    .recv = take,
    .release = release,
};

const peer peer_pipe = {
    .name = "pipe",
    .setup = "two pipes of 1 MB for each worker, blocking; batches as over unix",
    .version = "",
    .prepare = prepare,
    .relay = relay,
    .join = join,
    .send = put,
    .flush = flush,
    .recv = take,
    .release = release,
};
