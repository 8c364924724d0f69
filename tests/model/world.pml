/* world.pml - the processes, time, and what happens from outside. */

#ifdef LIVENESS
#define SOMETHING quiet = 0
#else
#define SOMETHING skip
#endif

/* ---- Beginning and end of a worker's process ---- */

inline worker_clear(id) {
  W.state = ENDED; W.generation = 0; W.next = 0; W.known = 0; W.number = 0; W.acknowledged = 0; W.flights_sent = 0; W.again_number = 0;
  W.position_1 = 0; W.position_2 = 0; W.window = 0; W.probe = 0; W.probe_answered = 0; W.term_wanted = 0; W.term_echoed = 0; W.terminated = 0; W.leaving = 0;
  W.left = 0; W.bye_seen = 0; W.said = 0; W.start = 0; W.early = 0; W.delivered = 0
}

/* The incarnation that may come next. */
#define HEIR(id) (worker[id].nonce != 0 -> worker[id].nonce + 2 : 1 + id)

#define COMES(id) ((worker[id].state == ENDED || worker[id].state == OVER) && (HEIRS >> HEIR(id)) & 1)

inline worker_begin(id, incarnation) {
  W.state = ANNOUNCING; W.nonce = incarnation; W.next = 1; W.known = 1; W.start = 1;
#ifdef LIVENESS
  W.number = 1
#else
  W.number = SENDS(incarnation) + 1 /* its application has sent everything: when it goes out is open anyway */
#endif
}

/* The process ends; what was on its way to it is nobody's. */
inline worker_exit(id) {
  worker_clear(id);
  i = 0;
  do
  :: i < NET ->
    if
    :: net[i] != 0 && !UPWARDS(net[i]) && TO(net[i]) == id -> frame = net[i]; n = i; take_off(frame); i = n
    :: else -> i++
    fi
  :: else -> break
  od;
  frame = 0
}

/* ---- Time ---- */

/* What a worker's pump says when every timer that is set goes off. */
inline worker_timers(id) {
  if
  :: W.state == ANNOUNCING ->
#ifdef NO_HELLO_AGAIN
    if
    :: !W.said -> worker_hello(id); W.said = 1
    :: else
    fi
#else
    worker_hello(id)
#endif
  :: W.state == JOINED ->
    W.again_number = 0;
    known = PROBES(id);
    if
    :: known -> W.probe = W.probe + 1
    :: else
    fi;
    answer_due = (known || SAYS_AGAIN(id));
    ask_due = (W.next < W.known);
#ifdef NO_QUESTION_AGAIN
    if
    :: ask_due && W.said -> ask_due = 0
    :: ask_due && !W.said -> W.said = 1
    :: else
    fi;
#endif
    worker_report(id, answer_due, ask_due)
  :: else
  fi
}

#ifdef NO_REMINDERS
#define LAGS(id) false
#else
#define LAGS(id) (peer[id].state == ACTIVE && peer[id].confirmed && !peer[id].silent && (peer[id].has LESS im.next || (TERMINATES(id) && !peer[id].term_seen) || (im.leaving && !peer[id].bye_seen)))
#endif
#ifdef NO_END_OF_REMINDERS
#define LESS <=
#else
#define LESS <
#endif

inline im_timers() {
  i = 0;
  do
  :: i < IDS ->
    if
    :: DIED(i) && peer[i].state != GONE -> im_dead(i)
    :: (!WATCHED || !peer[i].confirmed) && peer[i].state == ACTIVE && (!ALIVE(i) || worker[i].nonce != peer[i].nonce) -> peer[i].silent = 1
    :: else
    fi;
    if
    :: LAGS(i) -> im_status(i, STATUS)
    :: else
    fi;
    i++
  :: else -> break
  od;
#if INBOX
  im.unread = 0; /* its application receives, sooner or later */
#endif
#if INBOX || HISTORY
  im_unblock(0);
  im_unblock(1);
#endif
  im_heartbeat(0)
}

/* ---- Everything is done ---- */

#define KNOWS(id) (!TERMINATES(id) || (worker[id].terminated && peer[id].term_seen))
#define HAS_ALL(id) (worker[id].generation == im.generation && peer[id].nonce == worker[id].nonce && peer[id].confirmed && worker[id].next == im.next && peer[id].has == im.next && \
                     worker[id].acknowledged + 1 == worker[id].number && worker[id].window && KNOWS(id) && (!worker[id].term_wanted || worker[id].term_echoed) && !worker[id].leaving)
#define IS_WELL(id) (!ALIVE(id) || worker[id].state == OVER || (worker[id].state == ANNOUNCING && !IS_LIVE(id)) || (worker[id].state == JOINED && IS_LIVE(id) && HAS_ALL(id)))
#define IS_PARTED(id) (peer[id].state != ACTIVE || !peer[id].confirmed || peer[id].silent || peer[id].bye_seen)
#define DONE (im.gone || (!im.leaving && IS_WELL(0) && IS_WELL(1)))

/* ---- Processes ---- */

#define UP_FRAME(k) net[k] != 0 && UPWARDS(net[k]) -> frame = net[k]
#define DOWN_FRAME(k) net[k] != 0 && !UPWARDS(net[k]) && TO(net[k]) == id -> frame = net[k]

/* Any frame that is for the caller: a set has no order. */
#define ANY_OF_2(F) :: F(0) :: F(1)
#if NET == 2
#define ANY_OF(F) ANY_OF_2(F)
#elif NET == 3
#define ANY_OF(F) ANY_OF_2(F) :: F(2)
#elif NET == 4
#define ANY_OF(F) ANY_OF_2(F) :: F(2) :: F(3)
#else
#define ANY_OF(F) ANY_OF_2(F) :: F(2) :: F(3) :: F(4) :: F(5) :: F(6) :: F(7) :: F(8) :: F(9) :: F(10) :: F(11)
#endif

proctype supervisor() {
  byte id;
  do
  :: atomic {
      if
      ANY_OF(UP_FRAME)
      fi;
      arrive();
      d_step {
        who = ID_OF(NONCE(frame));
        im_receive(frame, who);
        frame = 0
      }
      transmit()
    }
  :: atomic {
      im.own_number <= SENDS(0) ->
      d_step {
        SOMETHING;
        tell(APPLICATION_SENDS, 0);
        im_room();
        if
        :: known -> v = MESSAGE(0, im.own_number); im_append(v); im.own_number = im.own_number + 1
        :: else
        fi
      }
      transmit()
    }
#if INBOX
  :: atomic {
      im.unread != 0 ->
      d_step {
        SOMETHING;
        tell(TAKES_INBOX, 0);
        im.unread = 0;
        im_unblock(0);
        im_unblock(1)
      }
      transmit()
    }
#endif
#if TERMS & 1
  :: atomic {
      !(asked[im.generation] & 1) ->
      d_step {
        SOMETHING;
        tell(ASKS_TERMINATION, 0);
        asked[im.generation] = asked[im.generation] | 1;
        im_term(0)
      }
      transmit()
    }
#endif
#if TERM_TO
  :: atomic {
      term_to != 0 ->
      d_step {
        SOMETHING;
        who = (term_to & 1 -> 0 : 1);
        term_to = 0;
        tell(ASKS_TERMINATION, 1 + who);
        if
        :: IS_LIVE(who) ->
          peer[who].term_asked = 1;
          if
          :: peer[who].nonce != 0 -> im_status(who, STATUS)
          :: else
          fi
        :: else
        fi
      }
      transmit()
    }
#endif
#if LEAVES & 1
  :: atomic {
      !im.leaving ->
      d_step {
        SOMETHING;
        tell(EXITS, 0);
        im.leaving = 1;
        im_heartbeat(0)
      }
      transmit()
    }
#endif
#ifndef LIVENESS
  :: atomic { d_step { im_heartbeat(0) } transmit() }
  :: atomic {
      if
      :: id = 0
      :: id = 1
      fi;
      if
      :: P.nonce != 0 -> d_step { im_status(id, STATUS) } transmit()
      :: P.blocked -> d_step { im_unblock(id) } transmit()
      :: DIED(id) && P.state != GONE -> d_step { tell(SEES_DEATH, 1 + id); im_dead(id) }
      :: (!WATCHED || !P.confirmed) && P.state == ACTIVE && (!ALIVE(id) || W.nonce != P.nonce) -> tell(FALLS_SILENT, 1 + id); P.silent = 1
      :: else
      fi;
      id = 0
    }
#endif
  od
}

proctype a_worker(byte id) {
  do
  :: atomic {
      if
      ANY_OF(DOWN_FRAME)
      fi;
      arrive();
#if REFUSALS
      if
      :: true -> skip
      :: refusals > 0 && TYPE(frame) == RELAY -> tell(NO_ROOM, 1 + id); refusals--; refuse = RUN_REFUSED
      :: refusals > 0 && TYPE(frame) == RELAY -> tell(NO_ROOM, 1 + id); refusals--; refuse = BATCH_REFUSED
      fi;
#endif
      d_step {
        worker_receive(id, frame);
#if REFUSALS
        refuse = 0;
#endif
        frame = 0
      }
      transmit()
    }
#ifdef LIVENESS
  /* The application sends one more message. */
  :: atomic {
      ALIVE(id) && W.state != OVER && !W.leaving && W.number <= SENDS(W.nonce) ->
      d_step {
        SOMETHING;
        tell(APPLICATION_SENDS, 1 + id);
        W.number = W.number + 1;
        worker_send_batches(id)
      }
      transmit()
    }
#endif
#if TERMS > 1
  :: atomic {
      W.state == JOINED && !W.term_wanted && (TERMS >> W.nonce) & 1 ->
      d_step {
        SOMETHING;
        tell(ASKS_TERMINATION, 1 + id);
        W.term_wanted = 1;
        asked[W.generation] = asked[W.generation] | 1 << W.nonce;
        worker_report(id, 1, 0)
      }
      transmit()
    }
#endif
#if LEAVES > 1
  /* Exit: once everything is acknowledged. Checked: OK implies accepted. */
  :: atomic {
      W.state == JOINED && !W.leaving && (LEAVES >> W.nonce) & 1 && W.number == SENDS(W.nonce) + 1 && FLUSHED(id) ->
      d_step {
        SOMETHING;
        tell(EXITS, 1 + id);
        CHECK(EXIT, TAKEN(W.nonce) == SENDS(W.nonce));
        W.leaving = 1;
        worker_report(id, 1, 0)
      }
      transmit()
    }
#endif
#ifndef LIVENESS
  :: atomic { W.state == ANNOUNCING -> d_step { worker_hello(id) } transmit() }
  :: atomic {
      W.state == JOINED ->
      if
      :: d_step { worker_report(id, 0, 0) }
      :: W.next < W.known -> d_step { worker_report(id, 0, 1) }
      :: W.window && W.acknowledged < 1 && W.number > 1 -> d_step { worker_send_batch(id, 1) }
      :: W.window && W.acknowledged < 2 && W.number > 2 && W.position_1 != 0 -> d_step { worker_send_batch(id, 2) }
      :: W.leaving -> d_step { tell(GOODBYE_UNHEARD, 1 + id); worker_exit(id) } /* a goodbye that nobody hears loses nothing */
      fi;
      transmit()
    }
#endif
  od
}

#ifdef LIVENESS
/* Nothing is on its way: every timer that is set goes off. Or one goes off early. */
proctype passing_time() {
  byte whose;
  do
  :: atomic {
      NONE ->
      d_step {
        tell(TIME_PASSES, 0);
        if
        :: DONE -> quiet = 1
        :: else
        fi;
        if
        :: im.leaving && IS_PARTED(0) && IS_PARTED(1) -> /* the supervisor's process ends, which its workers' pidfds tell */
          im.gone = 1;
          if
          :: ALIVE(0) -> worker_end(0)
          :: else
          fi;
          if
          :: ALIVE(1) -> worker_end(1)
          :: else
          fi
        :: else ->
          worker_timers(0);
          worker_timers(1);
          im_timers()
        fi
      }
      transmit()
    }
#if EARLY
  :: atomic {
      !NONE && early > 0 ->
      if
      :: whose = 0
      :: whose = 1
      :: whose = 2
      fi;
      d_step {
        early--;
        tell(TIMER_EARLY, whose);
        if
        :: whose == 0 -> im_timers()
        :: whose == 1 -> worker_timers(0)
        :: whose == 2 -> worker_timers(1)
        fi;
        whose = 0
      }
      transmit()
    }
#endif
  od
}
#endif

#if CRASHES || UPDATES || HEIRS
proctype outside() {
  byte id;
  do
#if CRASHES
  :: atomic {
      crashes > 0 && (ALIVE(0) || ALIVE(1)) ->
      if
      :: ALIVE(0) -> id = 0
      :: ALIVE(1) -> id = 1
      fi;
      d_step {
        SOMETHING;
        tell(CRASHES_NOW, 1 + id);
        crashes--;
        worker_exit(id);
        id = 0
      }
    }
#endif
#if HEIRS
  :: atomic {
      COMES(0) || COMES(1) ->
      if
      :: COMES(0) -> id = 0
      :: COMES(1) -> id = 1
      fi;
      d_step {
        SOMETHING;
        tell(BEGINS, 1 + id);
        n = HEIR(id);
        worker_clear(id);
        worker_begin(id, n);
        id = 0
      }
    }
#endif
#if UPDATES
  :: atomic {
      updates > 0 && !im.leaving ->
      if
#if LISTS & 2
      :: id = 1
#endif
#if LISTS & 4
      :: id = 2
#endif
#if LISTS & 8
      :: id = 3
#endif
      fi;
      d_step {
        SOMETHING;
        tell(NEW_LIST, id);
        updates--;
        im_update(id);
        id = 0
      }
      transmit()
    }
#endif
  od
}
#endif

init {
  atomic {
    d_step {
#if WORKERS & 1
      worker_begin(0, 1);
#endif
#if WORKERS & 2
      worker_begin(1, 2);
#endif
      im.own_number = 1;
      im_update(LIST);
      do
      :: outs > 0 -> outs--; out[outs] = 0
      :: else -> break
      od
    }
    run supervisor();
    run a_worker(0);
    run a_worker(1);
#ifdef LIVENESS
    run passing_time();
#endif
#if CRASHES || UPDATES || HEIRS
    run outside()
#endif
  }
}

#ifdef LIVENESS
ltl complete { [] <> quiet }
#endif
