/* worker.pml - messaging_impl.h, section Worker. Everything here runs within a d_step and leaves frames in out. */

#define W worker[id]

/* Rules that a run may switch off, to see what goes wrong without them. */
#ifdef NO_NONCE_IN_ECHO
#define IS_OWN(m) (ID_OF(NONCE_OF(m)) == id)             /* by id */
#else
#define IS_OWN(m) (NONCE_OF(m) == W.nonce)
#endif
#ifdef NO_NONCE_IN_RUN
#define IS_OWN_RUN (run_nonce != 0 && ID_OF(run_nonce) == id)
#else
#define IS_OWN_RUN (run_nonce == W.nonce && run_batch < W.number)
#endif
#ifdef NO_OWN_SKIPPED
#define IS_SKIPPED(m) false
#else
#define IS_SKIPPED(m) IS_OWN(m)
#endif
#ifdef NO_NONCE_IN_TOPIC
#define IS_MINE(f) (NONCE(f) != 0)                       /* by id */
#else
#define IS_MINE(f) (NONCE(f) == W.nonce)
#endif
#ifdef NO_GENERATION_DOWN
#define IS_MY_GENERATION(f) true
#else
#define IS_MY_GENERATION(f) (GENERATION(f) == W.generation)
#endif

#ifdef NO_FLUSH
#define FLUSHED(id) true
#else
#define FLUSHED(id) (W.acknowledged == SENDS(W.nonce))
#endif

/* ---- What goes up ---- */

#ifdef NO_PROBE
#define PROBES(id) false
#elif defined(NO_PROBE_OF_CLOSED_WINDOW)
#define PROBES(id) (W.acknowledged + 1 < W.number && W.window)
#else
#define PROBES(id) (W.acknowledged + 1 < W.number || !W.window)
#endif
#define SAYS_AGAIN(id) ((W.term_wanted && !W.term_echoed) || W.leaving)

inline worker_hello(id) { emit(HELLO | W.nonce << 7) }

/* The missing ranges of numbers, a bit for each. */
inline worker_ranges(id) {
  v = 0;
  p = W.next;
  do
  :: p < W.known ->
    if
    :: AT(W.early, p) == 0 -> v = v | 1 << (p - 1)
    :: else
    fi;
    p++
  :: else -> break
  od
}

/* Flags 2 and 8 stand in every report until they are answered; the mutants say them once. */
inline worker_report(id, answer, ask) {
  v = 0;
  if
  :: ask -> worker_ranges(id)
  :: else
  fi;
  n = 0;
  if
  :: answer -> n = UP_ANSWER
  :: else
  fi;
#ifdef NO_TERM_AGAIN
  if
  :: W.term_wanted && !W.term_echoed && !W.said -> n = n | UP_TERM; W.said = 1
  :: else
  fi;
#else
  if
  :: W.term_wanted && !W.term_echoed -> n = n | UP_TERM
  :: else
  fi;
#endif
#ifdef NO_BYE_AGAIN
  if
  :: W.leaving && !W.said -> n = n | UP_BYE; W.said = 1
  :: else
  fi;
#else
  if
#ifdef NO_END_OF_BYES
  :: W.leaving -> n = n | UP_BYE
#else
  :: W.leaving && W.state == JOINED -> n = n | UP_BYE
#endif
  :: else
  fi;
#endif
#ifndef NO_TERM_SEEN
  if
  :: W.terminated -> n = n | UP_TERM_SEEN
  :: else
  fi;
#endif
#ifndef NO_BYE_SEEN
  if
  :: W.bye_seen -> n = n | UP_BYE_SEEN
  :: else
  fi;
#endif
  emit(REPORT | W.generation << 5 | W.nonce << 7 | W.probe << 12 | W.next << 14 | n << 17 | v << 22)
}

/* Sends batch k: the position stays what it was the first time. */
inline worker_send_batch(id, k) {
  if
  :: k == 1 && W.position_1 == 0 -> W.position_1 = W.next
  :: k == 2 && W.position_2 == 0 -> W.position_2 = W.next
  :: else
  fi;
  p = (k == 1 -> W.position_1 : W.position_2);
  emit(BATCH | W.generation << 5 | W.nonce << 7 | MESSAGE(W.nonce, k) << 10 | p << 14)
}

/* All that the window allows: here it is open for everything or closed. */
inline worker_send_batches(id) {
  do
  :: W.state == JOINED && W.window && W.flights_sent + 1 < W.number ->
    W.flights_sent = W.flights_sent + 1;
    i = W.flights_sent;
    worker_send_batch(id, i)
  :: else -> break
  od
}

/* Sends again from the first batch on that is not acknowledged; once for each of them and round trip. */
inline worker_go_back(id) {
#ifndef NO_GO_BACK
  if
#ifndef NO_AGAIN_ONCE
  :: W.again_number == W.acknowledged + 1 -> skip
#endif
  :: else ->
    W.again_number = (W.flights_sent > W.acknowledged -> W.acknowledged + 1 : W.again_number);
    W.flights_sent = W.acknowledged
  fi
#else
  skip
#endif
}

/* The supervisor has accepted all batches below expected. Checked: it has. */
inline worker_acknowledged(id, below) {
  if
  :: below > W.number -> n = W.number - 1
  :: else -> n = below - 1
  fi;
  if
  :: n > W.acknowledged ->
    CHECK(ACKNOWLEDGED, n <= TAKEN(W.nonce));
    W.acknowledged = n;
    if
    :: W.flights_sent < n -> W.flights_sent = n
    :: else
    fi
  :: else
  fi
}

inline worker_end(id) {
  W.state = OVER;
  W.terminated = 1
}

/* ---- What comes down ---- */

/* All below next is the application's or its own: one order, no gap. */
inline check_prefix(id) {
  p = W.start;
  do
  :: p < W.next ->
    v = AT(order[W.generation], p);
    CHECK(PREFIX, NONCE_OF(v) == W.nonce || (W.delivered >> v) & 1);
    p++
  :: else -> break
  od
}

/* Gives a batch that is next to the application; its own is only counted. */
inline worker_deliver(id, m, position) {
  if
  :: m != OWN ->
    CHECK(ORDER, AT(order[W.generation], position) == m);
    CHECK(ONCE, ((W.delivered >> m) & 1) == 0);
    CHECK(ECHO, NONCE_OF(m) != W.nonce);
    W.delivered = W.delivered | 1 << m;
    tell(DELIVERED, 16 * m + 1 + id)
  :: else
  fi;
  W.next = position + 1;
  check_prefix(id)
}

/* Delivers early batches that have become next. */
inline worker_drain_early(id) {
  do
  :: W.next <= POSITIONS && AT(W.early, W.next) != 0 ->
    i = W.next;
    n = AT(W.early, i);
    W.early = W.early & ~(15 << (4 * (i - 1)));
    worker_deliver(id, n, i)
  :: else -> break
  od
}

/* The relay messages from run_first up to end are its own: they count as delivered. */
inline worker_own(id, end) {
  if
  :: W.known < end -> W.known = end
  :: else
  fi;
  if
#ifndef NO_GAP_BEFORE_RUN
  :: run_first > W.next ->
    if
    :: REFUSED_NOW(RUN_REFUSED) -> skip
    :: else ->
      do
      :: run_first < end ->
        if
        :: AT(W.early, run_first) == 0 -> W.early = W.early | OWN << (4 * (run_first - 1))
        :: else
        fi;
        run_first++
      :: else -> break
      od
    fi
#endif
  :: else ->
    W.next = end;
    check_prefix(id);
    worker_drain_early(id)
  fi
}

/* Whose the relay messages before end are. */
inline worker_run(id, end) {
  run_before(order[GENERATION(frame)], end);
  if
  :: IS_OWN_RUN ->
#ifndef NO_OWN_ACKNOWLEDGES
    worker_acknowledged(id, run_batch + 1);
#endif
    if
    :: end > W.next -> worker_own(id, end)
    :: else
    fi
  :: else
  fi
}

inline worker_batch(id, m, position) {
#ifndef NO_RUN
  worker_run(id, position);
#endif
  if
#ifdef NO_OWN_ACKNOWLEDGES
  :: false
#else
  :: IS_OWN(m) -> worker_acknowledged(id, NUMBER_OF(m) + 1)
#endif
  :: else
  fi;
  if
  :: position < W.next -> skip
  :: else ->
    if
    :: W.known < position + 1 -> W.known = position + 1
    :: else
    fi;
    to_keep = (IS_SKIPPED(m) -> OWN : m);
    if
#ifndef NO_ORDER_DOWN
    :: position > W.next ->
      if
      :: AT(W.early, position) == 0 && !REFUSED_NOW(BATCH_REFUSED) -> W.early = W.early | to_keep << (4 * (position - 1))
      :: else
      fi
#endif
    :: else ->
      worker_deliver(id, to_keep, position);
      worker_drain_early(id)
    fi
  fi
}

/* History below first is gone. Checked: only a newcomer finds it so, since nothing that a live listed worker needs is trimmed. */
inline worker_cut(id, first, welcome) {
  if
  :: first > W.next ->
    CHECK(TRIM, welcome);
    W.next = first;
    W.start = first;
    if
    :: W.known < first -> W.known = first
    :: else
    fi;
    do
    :: W.early != 0 && (W.early & ((1 << (4 * (first - 1))) - 1)) != 0 -> W.early = W.early & ~((1 << (4 * (first - 1))) - 1)
    :: else -> break
    od;
    worker_drain_early(id)
  :: else
  fi
}

/* Who asked for termination. Two others fill the list: that is as good as an echo. */
inline worker_terms(id, terms) {
  n = 0;
  p = 0;
  do
  :: p <= NONCES ->
    if
    :: (terms >> p) & 1 ->
      n++;
      if
#ifndef NO_NONCE_IN_TERMS
      :: p == W.nonce -> W.term_echoed = 1
#else
      :: p != 0 && ID_OF(p) == id -> W.term_echoed = 1
#endif
      :: else ->
        if
        :: !W.terminated -> report_due = 1
        :: else
        fi;
        CHECK(TERMINATION, asked[W.generation] & (1 << p));
        W.terminated = 1
      fi
    :: else
    fi;
    p++
  :: else -> break
  od;
  if
  :: n == 2 -> W.term_echoed = 1
  :: else
  fi
}

/* What HEARTBEAT, STATUS and WELCOME end with. */
inline worker_news(id, f, welcome) {
#ifndef NO_HIGH_WATER_MARK
  if
  :: W.known < POSITION(f) -> W.known = POSITION(f)
  :: else
  fi;
#endif
  worker_terms(id, NEWS_TERMS(f));
  if
  :: DOWN(f) & DOWN_TERM ->
    if
    :: !W.terminated -> report_due = 1
    :: else
    fi;
    W.terminated = 1
  :: else
  fi;
#ifndef NO_RUN
  worker_run(id, POSITION(f));
#endif
#ifndef NO_FIRST
  worker_cut(id, FIRST(f), welcome);
#endif
  if
  :: DOWN(f) & DOWN_BYE_SEEN -> W.left = 1
  :: else
  fi;
  if
  :: DOWN(f) & DOWN_BYE ->
    W.bye_seen = 1;
    report_due = 1;
    worker_end(id)
  :: else
  fi
}

inline worker_join(id, f) {
  W.generation = GENERATION(f);
  W.state = JOINED;
#ifdef NO_HISTORY_FOR_NEWCOMERS
  W.next = POSITION(f);
#endif
  report_due = 1
}

inline worker_status(id, f) {
  if
  :: EXPECTED(f) <= W.number ->
    if
    :: TYPE(f) == WELCOME && W.state == ANNOUNCING -> worker_join(id, f); i = 1
    :: else -> i = 0
    fi;
    known = i;
    worker_acknowledged(id, EXPECTED(f));
    if
    :: !W.window && DOWN(f) & DOWN_WINDOW -> worker_go_back(id)
    :: else
    fi;
    W.window = DOWN(f) & DOWN_WINDOW;
#ifdef LIVENESS
    if
    :: PROBE(f) == W.probe && W.probe != W.probe_answered -> W.probe_answered = W.probe; worker_go_back(id)
    :: else
    fi;
    if
    :: DOWN(f) & DOWN_GAP -> worker_go_back(id)
    :: else
    fi;
#endif
    worker_news(id, f, known)
  :: else
  fi
}

/* Refused. Checked: nobody is sent away who is listed and was not replaced after its death. */
inline worker_refuse(id, f) {
  if
  :: REASON(f) == ENOTRUNNING && W.state == JOINED ->
    CHECK(REFUSED, struck & (1 << W.nonce));
    worker_end(id)
  :: else
  fi
}

inline worker_dispatch(id, f) {
  if
  :: TYPE(f) == RELAY && W.state == JOINED -> worker_batch(id, CONTENT(f), POSITION(f))
  :: TYPE(f) == HEARTBEAT ->
    if
    :: W.state == JOINED -> worker_news(id, f, 0)
    :: W.state == ANNOUNCING && DOWN(f) & DOWN_BYE -> worker_end(id)
    :: else
    fi
  :: TYPE(f) == WELCOME || (TYPE(f) == STATUS && W.state == JOINED) -> worker_status(id, f)
  :: TYPE(f) == REFUSE -> worker_refuse(id, f)
  :: else
  fi
}

/* One frame from the supervisor, and what there is to say to it. */
inline worker_receive(id, f) {
  report_due = 0;
  if
  :: W.state == OVER -> report_due = W.bye_seen
  :: W.state == ENDED -> skip
  :: else ->
    if
    :: NONCE(f) != 0 && !IS_MINE(f) -> skip
    :: W.state == JOINED && !IS_MY_GENERATION(f) && TYPE(f) != REFUSE -> skip
    :: else -> worker_dispatch(id, f)
    fi
  fi;
#ifdef LIVENESS
  if
  :: W.state == JOINED -> worker_send_batches(id)
  :: else
  fi;
#endif
  if
  :: report_due && W.generation -> worker_report(id, 0, 0)
  :: else
  fi;
  if
  :: W.left || (W.leaving && W.state == OVER && !LINGERS) -> worker_exit(id) /* its exit has nothing left to wait for */
  :: else
  fi
}
