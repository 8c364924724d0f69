/* supervisor.pml - messaging_impl.h, section Supervisor. Everything here runs within a d_step and leaves frames in out. */

#define P peer[id]

#ifdef NO_GENERATION_UP
#define IS_THIS_GENERATION(f) true
#else
#define IS_THIS_GENERATION(f) (GENERATION(f) == im.generation)
#endif
#ifdef NO_NONCE_UP
#define IS_HIS(f) (P.nonce != 0) /* who sent a frame is told by the id alone */
#else
#define IS_HIS(f) (P.nonce == NONCE(f))
#endif
#define TERMINATES(id) ((im.terms & ~(1 << peer[id].nonce)) != 0 || peer[id].term_asked)

/* ---- What goes down ---- */

#define BYE_FLAG (im.leaving -> DOWN_BYE : 0)

/* Who asked for termination stands in every heartbeat and status, not in the first heartbeat alone. */
#ifdef NO_TERMS_AGAIN
#define TERMS_AGAIN 0
#else
#define TERMS_AGAIN im.terms
#endif

inline im_heartbeat(first_time) {
  p = 0;
  do
  :: p < IDS ->
    if
    :: ALIVE(p) -> emit(HEARTBEAT | p << 4 | im.generation << 5 | im.next << 14 | im.first << 17 | BYE_FLAG << 20 | (first_time -> im.terms : TERMS_AGAIN) << 25)
    :: else
    fi;
    p++
  :: else -> break
  od
}

inline im_status(id, type) {
  n = (P.blocked -> 0 : DOWN_WINDOW) | BYE_FLAG | (P.term_asked -> DOWN_TERM : 0) | (P.bye_heard -> DOWN_BYE_SEEN : 0) |
      (P.gap -> DOWN_GAP : 0);
  emit(type | id << 4 | im.generation << 5 | P.nonce << 7 | P.expected << 10 | P.probe << 12 | im.next << 14 | im.first << 17 | n << 20 |
       (type == WELCOME -> im.terms : TERMS_AGAIN) << 25);
  P.gap = 0
}

inline im_refuse(whom, reason) { emit(REFUSE | ID_OF(whom) << 4 | im.generation << 5 | (whom) << 7 | reason << 10) }

#if defined(LIVENESS) && !ECHOES
#define IS_LEFT_OUT(id, m) (NONCE_OF(m) == worker[id].nonce)
#else
#define IS_LEFT_OUT(id, m) false
#endif

inline im_publish(content) {
  p = 0;
  do
  :: p < IDS ->
    if
    :: ALIVE(p) && !IS_LEFT_OUT(p, content) -> emit(RELAY | p << 4 | im.generation << 5 | content << 10 | (im.next - 1) << 14)
    :: else
    fi;
    p++
  :: else -> break
  od
}

/* ---- History ---- */

/* The lowest number that somebody on the list still needs: into n. */
inline im_needed() {
  n = im.next;
  p = 0;
  do
  :: p < IDS ->
    if
#ifdef NO_TRIM_BOUND_UNJOINED
    :: peer[p].state == ACTIVE && peer[p].confirmed && !peer[p].silent && peer[p].has < n -> n = peer[p].has
#else
#ifndef NO_TRIM_BOUND
    :: IS_LIVE(p) && !peer[p].silent && peer[p].has < n -> n = peer[p].has
#endif
#endif
    :: else
    fi;
    p++
  :: else -> break
  od
}

/* Whether the oldest message is in the inbox of a live listed worker, whatever the supervisor believes. One that is yet to join has nothing. */
#define NEEDS_NO_MORE(id) (!IS_LIVE(id) || !ALIVE(id) || worker[id].state == OVER || (worker[id].state == JOINED && worker[id].next > im.first))

/* Sees to room for one more relay message, trimming what nobody needs any more: into known. */
inline im_room() {
#if HISTORY
  if
  :: im.next - im.first >= HISTORY ->
    im_needed();
    if
    :: n > im.first ->
      CHECK(TRIM, NEEDS_NO_MORE(0) && NEEDS_NO_MORE(1));
      im.first = im.first + 1
    :: else
    fi
  :: else
  fi;
  known = (im.next - im.first < HISTORY)
#else
  known = 1
#endif
}

/* Numbers a relay message, keeps and publishes it. */
inline im_append(content) {
  assert(im.next <= POSITIONS);
  order[im.generation] = order[im.generation] | content << (4 * (im.next - 1));
  im.next = im.next + 1;
  im_publish(content)
}

/* ---- Who is there ---- */

/* An incarnation is over. One that never spoke may yet. */
inline peer_forget_nonce(id) {
#ifndef NO_FORMER
  if
  :: P.nonce != 0 && (P.confirmed || !IS_LIVE(id)) -> P.former = P.former | 1 << P.nonce
  :: else
  fi;
#endif
  P.nonce = 0
}

inline peer_reset(id) {
  P.confirmed = 0; P.silent = 0; P.blocked = 0; P.gap = 0; P.bye_heard = 0; P.term_seen = 0; P.bye_seen = 0;
  P.has = im.first
}

/* A new incarnation of a listed worker. */
inline im_accept(id, heir) {
#ifndef NO_UNSEATED
  P.unseated = (P.state == ACTIVE && !P.confirmed -> P.nonce : 0);
#endif
  peer_forget_nonce(id);
  peer_reset(id);
  P.nonce = heir;
  P.state = ACTIVE;
#ifndef NO_EXPECTED_ANEW
  P.expected = 1;
#endif
  P.probe = 0;
  im_status(id, WELCOME)
}

/* Whether an incarnation has its id for good, until it falls silent. */
#define CLAIMED(id) (peer[id].confirmed)

/* A worker announces itself to the peer that it claims to be. known: it need not be parked. */
inline im_admit(id, heir) {
  known = 1;
  if
  :: (P.former >> (heir)) & 1 -> skip
  :: P.state == LEFT && P.nonce == heir -> skip
  :: P.state == ACTIVE && P.nonce == heir ->
#ifndef NO_WELCOME_AGAIN
    im_status(id, WELCOME)
#else
    skip
#endif
#ifndef NO_SECOND_REFUSED
  :: P.state == ACTIVE && P.nonce != heir && CLAIMED(id) && !P.silent -> im_refuse(heir, EAUTH); known = 0
#endif
  :: else -> im_accept(id, heir)
  fi
}

inline im_park(nonce) { im.parked = im.parked | 1 << (nonce) }

/* Takes parked announcements of a peer that was listed just now. */
inline im_unpark(id) {
  i = 1;
  do
  :: i <= NONCES ->
    if
    :: ID_OF(i) == id && (im.parked >> i) & 1 ->
      im_admit(id, i);
      if
      :: known -> im.parked = im.parked & ~(1 << i)
      :: else
      fi
    :: else
    fi;
    i++
  :: else -> break
  od
}

/* A watched process has died. What it sent is still taken. */
inline im_dead(id) {
  peer_reset(id);
  P.state = GONE;
  P.watch = 0;
  im.parked = im.parked & (id == 0 -> 20 : 42) /* those of the other id */
}

#define DIED(id) (peer[id].watch != 0 && (!ALIVE(id) || worker[id].nonce != peer[id].watch))

/* ---- What comes up ---- */

inline im_hello(f, id) {
  n = NONCE(f);
  if
  :: im.leaving -> im_heartbeat(0)
  :: else
  fi;
#ifndef NO_DEATH_FIRST
  if
  :: P.state != UNLISTED && P.nonce != n && DIED(id) -> im_dead(id)
  :: else
  fi;
#endif
  if
  :: P.state == UNLISTED || P.state == GONE -> im_park(n)
  :: else ->
    i = n;
    im_admit(id, i);
    if
    :: !known -> im_park(i)
    :: else
    fi
  fi
}

inline im_has(id, number) {
  if
  :: number > P.has && number <= im.next -> P.has = number
  :: else
  fi
}

/* Takes a batch. Checked: it is the sender's next one, and of this generation. */
inline im_take(id, m, f) {
  CHECK(TAKEN_ONCE, TAKEN(NONCE_OF(m)) == NUMBER_OF(m) - 1);
  CHECK(ERA, GENERATION(f) == im.generation);
  taken = taken + (1 << (2 * NONCE_OF(m)));
  if
  :: IS_OUTPUT(m) ->
#if INBOX
    im.unread = im.unread + 1;
#endif
    status_due = 1
  :: else -> im_append(m)
  fi;
#ifdef NO_ORDER_UP
  P.expected = NUMBER_OF(m) + 1;
#else
  P.expected = P.expected + 1;
#endif
  P.blocked = 0
}

/* Whether there is room for a batch: into known. */
inline im_fits(m) {
  if
  :: IS_OUTPUT(m) ->
#if INBOX
    known = (im.unread < INBOX)
#else
    known = 1
#endif
  :: else -> im_room()
  fi
}

inline im_batch(id, f) {
  im_has(id, POSITION(f));
  v = CONTENT(f);
  if
#ifndef NO_DUPLICATES_DROPPED
  :: NUMBER_OF(v) < P.expected -> status_due = 1
#endif
#ifndef NO_ORDER_UP
  :: NUMBER_OF(v) > P.expected ->
#ifdef LIVENESS
    if
    :: !P.blocked -> P.gap = 1
    :: else
    fi;
#endif
    status_due = 1
#endif
  :: else ->
    im_fits(v);
    if
    :: known -> im_take(id, v, f)
    :: else ->
#ifdef NO_OWNED_BEFORE_ACKNOWLEDGED
      P.expected = P.expected + 1;
#endif
      P.blocked = (P.state == GONE -> 0 : 1);
      status_due = 1
    fi
  fi
}

inline im_term(nonce) {
  if
  :: (im.terms >> (nonce)) & 1 -> skip
  :: else ->
    i = 0;
    v = im.terms;
    do
    :: v != 0 -> i = i + (v & 1); v = v >> 1
    :: else -> break
    od;
    if
    :: i < 2 -> im.terms = im.terms | 1 << (nonce); im_heartbeat(1)
    :: else
    fi
  fi
}

/* Its own need not go: the batch behind them, which goes, tells it of them. */
#ifdef NO_LAST_OWN
#define IS_TOLD(id, ranges) (NONCE_OF(v) == P.nonce)
#else
#define IS_TOLD(id, ranges) (NONCE_OF(v) == P.nonce && i + 1 < im.next && ((ranges) >> i) & 1)
#endif

/* A repair: each batch a frame of its own. */
inline im_repair(id, ranges) {
  i = 1;
  do
  :: i < im.next ->
    if
    :: i >= im.first && ((ranges) >> (i - 1)) & 1 ->
      v = AT(order[im.generation], i);
      if
      :: IS_TOLD(id, ranges) -> skip
      :: else -> emit(RELAY | id << 4 | im.generation << 5 | P.nonce << 7 | v << 10 | i << 14)
      fi
    :: else
    fi;
    i++
  :: else -> break
  od
}

inline im_left(id) {
  if
  :: P.state == ACTIVE ->
    if
    :: P.term_seen -> P.term_asked = 0
    :: else
    fi;
    peer_reset(id); P.state = LEFT
  :: else
  fi;
#ifndef NO_BYE_ANSWERED
  P.bye_heard = 1;
#endif
  status_due = 1
}

inline im_report(id, f) {
  im_has(id, POSITION(f));
  if
  :: UP(f) & UP_ANSWER -> P.probe = PROBE(f); status_due = 1
  :: else
  fi;
  if
  :: UP(f) & UP_TERM -> im_term(NONCE(f)); status_due = 1
  :: else
  fi;
  if
  :: UP(f) & UP_TERM_SEEN -> P.term_seen = 1
  :: else
  fi;
  if
  :: UP(f) & UP_BYE_SEEN -> P.bye_seen = 1
  :: else
  fi;
  if
  :: UP(f) & UP_BYE -> im_left(id)
  :: else
  fi;
  if
  :: RANGES(f) != 0 ->
    im_repair(id, RANGES(f));
    if
    :: RANGES(f) & ((1 << (im.first - 1)) - 1) -> status_due = 1 /* which says where history begins */
    :: else
    fi
  :: else
  fi
}

/* A frame of this generation from a peer: it is alive, and has its welcome. */
inline im_heard(id) {
  P.silent = 0;
  if
  :: P.state == ACTIVE -> P.confirmed = 1
  :: else
  fi
}

/* Blocked peers' windows open when their batch would find room: the one after those that were taken. */
inline im_unblock(id) {
  if
  :: P.blocked ->
    v = MESSAGE(P.nonce, P.expected);
    im_fits(v);
    if
    :: known -> P.blocked = 0;
#ifndef NO_OPENING_TOLD
      im_status(id, STATUS)
#endif
    :: else
    fi
  :: else
  fi
}

/* Whoever speaks first in the session has the id: an incarnation whose welcome was followed by another's announcement takes its place again,
 * unless the other has spoken: then it waits, as one that announces itself does, until the other is silent or has left. */
#ifdef NO_UNSEATED_WAITS
#define MAY_RETURN(id) (peer[id].state == ACTIVE && !peer[id].confirmed)
#define WAITS(id, heir) false
#else
#define MAY_RETURN(id) (peer[id].state == LEFT || (peer[id].state == ACTIVE && (!peer[id].confirmed || peer[id].silent)))
#define WAITS(id, heir) (peer[id].state == ACTIVE && peer[id].nonce != (heir) && peer[id].unseated == (heir))
#endif

inline im_unseated(f, id) {
  if
  :: TYPE(f) != HELLO && GENERATION(f) == im.generation && P.nonce != NONCE(f) && P.unseated == NONCE(f) && MAY_RETURN(id) ->
    i = NONCE(f);
    im_accept(id, i)
  :: else
  fi
}

/* One frame from a worker. Somebody who is not on the list is told so. */
inline im_receive(f, id) {
  status_due = 0;
  im_unseated(f, id);
  if
  :: TYPE(f) == HELLO -> im_hello(f, id)
  :: TYPE(f) != HELLO && IS_HIS(f) && IS_THIS_GENERATION(f) ->
    im_heard(id);
    if
    :: TYPE(f) == BATCH -> im_batch(id, f)
    :: else -> im_report(id, f)
    fi
  :: else ->
#ifndef NO_REFUSAL
    if
    :: (!IS_HIS(f) && !(GENERATION(f) == im.generation && WAITS(id, NONCE(f)))) || GENERATION(f) != im.generation -> im_refuse(NONCE(f), ENOTRUNNING)
    :: else
    fi
#else
    skip
#endif
  fi;
  if
  :: status_due && P.nonce != 0 -> im_status(id, STATUS)
  :: else
  fi;
#if HISTORY
  im_unblock(0);
  im_unblock(1)
#endif
}

/* ---- The list ---- */

/* Strikes a peer. Its worker is told; an heir of the id learns of the former incarnations. */
inline im_strike(id, heir) {
  struck = struck | (!heir || !ALIVE(id) || W.nonce != P.nonce -> 1 << P.nonce : 0) | (!heir && ALIVE(id) -> 1 << W.nonce : 0);
#ifndef NO_REFUSAL
  if
  :: P.state == ACTIVE -> n = P.nonce; im_refuse(n, ENOTRUNNING)
  :: else
  fi;
#endif
  peer_forget_nonce(id);
  peer_reset(id);
#ifdef NO_STRUCK
  if
  :: !heir -> P.former = 0
  :: else
  fi;
#endif
  P.state = UNLISTED; P.watch = 0; P.unseated = 0; P.expected = 0; P.has = 0; P.probe = 0; P.term_asked = 0
}

/* Enters a newcomer. */
inline im_enter(id) {
  P.has = im.first;
  P.state = LISTED;
  P.expected = 1;
#if WATCHED
  if
  :: ALIVE(id) -> P.watch = W.nonce; im_unpark(id)
  :: else -> im_dead(id)
  fi
#else
  im_unpark(id)
#endif
}

/* A new list. If nobody survives, a new generation begins. */
inline im_update(list) {
  known = 0;
  i = 0;
  do
  :: i < IDS ->
    if
    :: peer[i].watch != 0 && (!ALIVE(i) || worker[i].nonce != peer[i].watch) -> im_dead(i)
    :: else
    fi;
    if
    :: ((list) >> i) & 1 && peer[i].state != UNLISTED && peer[i].state != GONE -> known = 1
    :: else
    fi;
    i++
  :: else -> break
  od;
  survives = known;
  i = 0;
  do
  :: i < IDS ->
    if
    :: peer[i].state != UNLISTED && (peer[i].state == GONE || !(((list) >> i) & 1)) -> im_strike(i, (((list) >> i) & 1))
    :: else
    fi;
    i++
  :: else -> break
  od;
  if
  :: !survives ->
    im.generation = im.generation + 1;
    im.next = 1; im.first = 1; im.terms = 0
  :: else
  fi;
  enters_0 = ((list) & 1) && peer[0].state == UNLISTED;
  enters_1 = ((list) & 2) && peer[1].state == UNLISTED;
  if
  :: enters_0 -> im_enter(0)
  :: else
  fi;
  if
  :: enters_1 -> im_enter(1)
  :: else
  fi;
  im_heartbeat(0)
}
