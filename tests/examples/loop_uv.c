/* messaging in a libuv loop: a poll handle around bus_fd, and a timer that would notice a missed wake-up. */
#include "loop.h"

#include <uv.h>

static supervisor self;
static uv_poll_t readable;
static uv_timer_t silence;

static void stop(void) {
  uv_close((uv_handle_t *)&readable, NULL); /* before bus_exit, which closes the descriptor */
  uv_close((uv_handle_t *)&silence, NULL);
}

static void on_readable(uv_poll_t *handle, int status, int events) {
  (void)handle;
  (void)events;
  self.wakeups++;
  if (status < 0) self.failed = true;
  supervisor_take(&self);
  uv_timer_again(&silence);
  if (supervisor_done(&self)) stop();
}

static void on_silence(uv_timer_t *timer) {
  (void)timer;
  supervisor_silence(&self);
  stop();
}

int main(void) {
  if (!supervisor_start(&self)) return 1;
  uv_loop_t *loop = uv_default_loop();
  if (uv_poll_init(loop, &readable, bus_fd(self.im)) || uv_poll_start(&readable, UV_READABLE, on_readable)) return 1;
  if (uv_timer_init(loop, &silence) || uv_timer_start(&silence, on_silence, DEADLINE_MS, DEADLINE_MS)) return 1;
  uv_run(loop, UV_RUN_DEFAULT);
  uv_loop_close(loop);
  return supervisor_end(&self, "libuv");
}
