/* messaging in a program's own epoll loop, here edge-triggered: then every batch has to be taken until none is left. */
#include "loop.h"

#include <sys/epoll.h>

int main(void) {
  supervisor self = {0};
  if (!supervisor_start(&self)) return 1;
  int loop = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {0};
  event.events = EPOLLIN | EPOLLET;
  event.data.ptr = &self;
  if (loop < 0 || epoll_ctl(loop, EPOLL_CTL_ADD, bus_fd(self.im), &event)) return 1;
  while (!supervisor_done(&self)) {
    if (epoll_wait(loop, &event, 1, DEADLINE_MS) <= 0) {
      supervisor_silence(&self);
      continue;
    }
    self.wakeups++;
    while (supervisor_take(&self) > 0) continue;
  }
  close(loop);
  return supervisor_end(&self, "epoll");
}
