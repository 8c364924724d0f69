/* messaging in a program's own poll loop. bus_fd stays readable while there is something, so one batch for each turn is enough. */
#include "loop.h"

#include <poll.h>

int main(void) {
  supervisor self = {0};
  if (!supervisor_start(&self)) return 1;
  struct pollfd watched[] = {{bus_fd(self.im), POLLIN, 0} /* , the program's other descriptors */};
  while (!supervisor_done(&self)) {
    if (poll(watched, 1, DEADLINE_MS) <= 0) {
      supervisor_silence(&self);
      continue;
    }
    self.wakeups++;
    if (watched[0].revents & POLLIN) supervisor_take(&self);
  }
  return supervisor_end(&self, "poll");
}
