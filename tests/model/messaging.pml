/*
 * messaging.pml - the protocol of messaging_impl.h for spin: one supervisor, two ids, up to five incarnations of workers
 *
 * Names are the code's: worker.pml follows the section Worker of messaging_impl.h, supervisor.pml the section Supervisor. run.py says with
 * which -D each configuration is built. The defaults below are a system that does nothing: a configuration switches on what it looks at.
 *
 * Wire version 2: a worker's own broadcast may be left out for it or arrive nevertheless; the frames downwards tell whose the relay messages
 * before them are. That run takes no bits of a frame: it follows from the order and the frame's position (run_before).
 *
 * Two modes. Safety: every frame may be lost, doubled and overtaken without limit, and every timer may go off at any time; the network
 * holds at most NET frames at once. Liveness (-DLIVENESS): LOSSES, DOUBLES and EARLY say how many frames are lost and doubled, and how many
 * timers go off early; order is free. When no frame is on its way, time passes: every timer that is set goes off (round). So each
 * endless run is a fair one, and in its cycle nothing is lost.
 */
#ifndef NET
#define NET 3        /* frames on their way at once */
#endif
#ifndef MESSAGES
#define MESSAGES 0   /* three bits for each nonce, the lowest those of nonce 0, the supervisor: how many messages it sends, 0 to 2 */
#endif
#ifndef OUTPUTS
#define OUTPUTS 0    /* a bit for each message that is an output message */
#endif
#ifndef LIST
#define LIST 3       /* the first list: bit 0 is id 0, bit 1 is id 1 */
#endif
#ifndef WORKERS
#define WORKERS 3    /* which ids have a process at the beginning */
#endif
#ifndef HEIRS
#define HEIRS 0      /* incarnations that may come after the first ones, a bit for each nonce: odd nonces are of id 0, even ones of id 1 */
#endif
#ifndef NONCES
#define NONCES 2     /* the highest nonce */
#endif
#ifndef CRASHES
#define CRASHES 0    /* how many workers crash */
#endif
#ifndef UPDATES
#define UPDATES 0    /* how often the list changes, each time to one of LISTS (a bit for each) */
#endif
#ifndef LISTS
#define LISTS 14
#endif
#ifndef WATCHED
#define WATCHED 1    /* pidfds tell of deaths; else silence does */
#endif
#ifndef HISTORY
#define HISTORY 0    /* relay messages that history holds; 0: all */
#endif
#ifndef INBOX
#define INBOX 0      /* output messages that the supervisor's inbox holds; 0: all */
#endif
#ifndef TERMS
#define TERMS 0      /* who asks for termination, a bit for each nonce */
#endif
#ifndef TERM_TO
#define TERM_TO 0    /* whom alone the supervisor asks to terminate, a bit for each id */
#endif
#ifndef LEAVES
#define LEAVES 0     /* which workers exit, a bit for each nonce; bit 0: the supervisor */
#endif
#ifndef LINGERS
#define LINGERS 0    /* 1: a worker that exits goes on answering when it has heard the supervisor's goodbye */
#endif
#ifndef REFUSALS
#define REFUSALS 0   /* how often there is no room or memory for what came ahead of a gap */
#endif
#ifndef LOSSES
#define LOSSES 0
#endif
#ifndef DOUBLES
#define DOUBLES 0
#endif
#ifndef EARLY
#define EARLY 0
#endif
#ifndef ECHOES
#define ECHOES 0     /* 1: own broadcasts may come, each of them; 0: they are left out */
#endif

#define IDS 2
#ifdef LIVENESS
#define OUT 12       /* frames that one step sends */
#else
#define OUT 6
#endif
#ifndef POSITIONS
#define POSITIONS 4  /* relay messages of a generation */
#endif
#ifndef GENERATIONS
#define GENERATIONS 1
#endif
#define ID_OF(nonce) (1 - ((nonce) & 1))

/* A message is (nonce, number): 1 + 2 * nonce + number - 1. So are all messages told apart, whatever their content. */
#define MESSAGE(nonce, number) (2 * (nonce) + (number))
#define NONCE_OF(m) (((m) - 1) / 2)
#define NUMBER_OF(m) (2 - ((m) & 1))
#define SENDS(nonce) ((MESSAGES >> (3 * (nonce))) & 7)
#define IS_OUTPUT(m) ((OUTPUTS >> (m)) & 1)

/* ---- Frames: one int each. 0 is none. ---- */

#define HELLO 1
#define BATCH 2      /* RELAY or OUTPUT upwards */
#define REPORT 3
#define RELAY 4      /* downwards; nonce 0: to all, else a batch of a REPAIR to one */
#define HEARTBEAT 5
#define WELCOME 6
#define STATUS 7
#define REFUSE 8

#define TYPE(f) ((f) & 15)
#define UPWARDS(f) (TYPE(f) <= REPORT)
#define TO(f) (((f) >> 4) & 1)        /* downwards: at whose socket it arrives; a broadcast is a frame for each */
#define GENERATION(f) (((f) >> 5) & 3)
#define NONCE(f) (((f) >> 7) & 7)     /* upwards the sender's, downwards whom it is for, 0: all */
#define CONTENT(f) (((f) >> 10) & 15) /* BATCH, RELAY: the message */
#define EXPECTED(f) (((f) >> 10) & 3) /* WELCOME, STATUS */
#define PROBE(f) (((f) >> 12) & 3)    /* REPORT, WELCOME, STATUS */
#define POSITION(f) (((f) >> 14) & 7) /* BATCH, RELAY, REPORT: position. HEARTBEAT, WELCOME, STATUS: next */
#define FIRST(f) (((f) >> 17) & 7)    /* HEARTBEAT, WELCOME, STATUS */
#define UP(f) (((f) >> 17) & 31)      /* REPORT: flags */
#define RANGES(f) (((f) >> 22) & 31)  /* REPORT: missing numbers, a bit for each */
#define DOWN(f) (((f) >> 20) & 31)    /* HEARTBEAT, WELCOME, STATUS: flags */
#define NEWS_TERMS(f) (((f) >> 25) & 63) /* of whoever asked for termination, a bit for each nonce */
#define REASON(f) (((f) >> 10) & 3)   /* REFUSE */

#define UP_ANSWER 1
#define UP_TERM 2
#define UP_TERM_SEEN 4
#define UP_BYE 8
#define UP_BYE_SEEN 16

#define DOWN_WINDOW 1 /* the window is open */
#define DOWN_TERM 2
#define DOWN_BYE 4
#define DOWN_BYE_SEEN 8
#define DOWN_GAP 16

#define ENOTRUNNING 1
#define EAUTH 2

/* ---- State ---- */

#define ENDED 0      /* no process */
#define ANNOUNCING 1
#define JOINED 2
#define OVER 3

typedef worker_state {
  unsigned state : 2;
  unsigned nonce : 3;
  unsigned generation : 2;
  unsigned next : 3;           /* the number that is delivered next */
  unsigned known : 3;          /* numbers below this one exist */
  unsigned number : 2;         /* of the next batch */
  unsigned acknowledged : 2;   /* batches up to this one are accepted */
  unsigned flights_sent : 2;   /* number of the last batch that was sent since the last fault */
  unsigned again_number : 2;   /* first batch that was last sent again, until time has passed */
  unsigned position_1 : 3;     /* the position in batch 1 and in batch 2: repetitions are the same bytes */
  unsigned position_2 : 3;
  unsigned window : 1;
  unsigned probe : 2;
  unsigned probe_answered : 2;
  unsigned term_wanted : 1;
  unsigned term_echoed : 1;
  unsigned terminated : 1;
  unsigned leaving : 1;
  unsigned left : 1;
  unsigned bye_seen : 1;
  unsigned said : 1;           /* for rules that say something once only */
  unsigned start : 3;          /* the application was told where its history begins */
  int early;                   /* four bits for each position: a message that came ahead of a gap */
  short delivered;             /* to the application: a bit for each message */
};

#define UNLISTED 0
#define LISTED 1
#define ACTIVE 2
#define LEFT 3
#define GONE 4

typedef peer_state {
  unsigned state : 3;
  unsigned nonce : 3;
  unsigned confirmed : 1;
  unsigned silent : 1;         /* nothing heard for silence_ms */
  unsigned unseated : 3;       /* one that was welcomed and has not spoken, when another announced itself */
  unsigned watch : 3;          /* the incarnation that a pidfd watches */
  unsigned expected : 2;
  unsigned has : 3;
  unsigned probe : 2;
  unsigned blocked : 1;
  unsigned gap : 1;
  unsigned bye_heard : 1;
  unsigned term_asked : 1;
  unsigned term_seen : 1;
  unsigned bye_seen : 1;
  unsigned former : 6;         /* a bit for each nonce */
};

typedef im_state {
  unsigned generation : 2;
  unsigned next : 3;           /* log.next */
  unsigned first : 3;          /* log.first */
  unsigned own_number : 2;
  unsigned terms : 6;
  unsigned parked : 6;
  unsigned leaving : 1;
  unsigned gone : 1;           /* its process has ended */
  unsigned unread : 2;         /* output messages in the inbox */
};

worker_state worker[IDS];
peer_state peer[IDS];
im_state im;

int net[NET];                  /* frames on their way: a set, sorted */
int frame;                     /* the one that is being received */
int out[OUT];                  /* what this step sends */
byte outs;
#if REFUSALS
byte refuse;                   /* what this step finds no room for: RUN_REFUSED, BATCH_REFUSED */
byte refusals = REFUSALS;
#define REFUSED_NOW(what) (refuse == (what))
#else
#define REFUSED_NOW(what) false
#endif
#define RUN_REFUSED 1
#define BATCH_REFUSED 2

/* What is left of what happens from outside. */
byte crashes = CRASHES, updates = UPDATES, term_to = TERM_TO;
#ifdef LIVENESS
byte losses = LOSSES, doubles = DOUBLES, early = EARLY;
bit quiet;                     /* all is done: heartbeats only from now on */
#endif

/* What the checks remember. */
int order[GENERATIONS + 1];                /* of each generation: four bits for each position, the message that has this number */
short taken;                   /* two bits for each nonce: how many of its batches the supervisor has taken */
byte asked[GENERATIONS + 1];                /* of each generation: who asked for termination, a bit for each nonce */
byte struck;                   /* incarnations that an update left out, or that were replaced when they had died */

hidden byte i, n, p;           /* within one d_step */
hidden int v, to_send;
hidden byte to_keep, run_nonce, run_first, run_batch;
hidden byte known, report_due, answer_due, ask_due, status_due, survives, enters_0, enters_1;
hidden byte who;

#define AT(log, position) (((log) >> (4 * ((position) - 1))) & 15)
#define OWN 15 /* among those that came ahead of a gap: one of its own */
#define TAKEN(nonce) ((taken >> (2 * (nonce))) & 3)
#define ALIVE(id) (worker[id].state != ENDED)
#define IS_LIVE(id) (peer[id].state == LISTED || peer[id].state == ACTIVE)

/* What a downward frame tells of the relay messages of a log before end: the last ones are run_nonce's, from run_first on, up to its batch run_batch.
 * The supervisor's run is the same thing, kept up to date. */
inline run_before(log, end) {
  run_nonce = 0;
  run_first = end;
  run_batch = 0;
  if
  :: end > 1 ->
    run_nonce = NONCE_OF(AT(log, end - 1));
    run_batch = NUMBER_OF(AT(log, end - 1));
    do
#ifdef NO_RUN_ANEW
    :: run_first > 1 -> run_first-- /* where the sender changes, it goes on */
#else
    :: run_first > 1 && NONCE_OF(AT(log, run_first - 1)) == run_nonce -> run_first--
#endif
    :: else -> break
    od
  :: else
  fi
}

/* ---- What is checked, by number, which pan repeats when it finds one violated ---- */

#define CHECK(property, condition) assert((condition) || 0 * property)
#define PREFIX 1       /* what is the application's or its own is a prefix of the one order, without a gap */
#define ORDER 2        /* a number is the same message everywhere */
#define ONCE 3         /* no message is delivered twice */
#define ECHO 4         /* nor to its sender */
#define TAKEN_ONCE 5   /* the supervisor takes each batch once, in its sender's order */
#define ERA 6          /* nothing that was sent in one generation is taken in another */
#define ACKNOWLEDGED 7 /* what a worker takes for accepted, the supervisor has taken */
#define TRIM 8         /* history that a live listed worker needs is kept */
#define EXIT 9         /* an exit that is OK: everything was accepted */
#define TERMINATION 10 /* who terminates was asked to, by somebody else, in this generation */
#define REFUSED 11     /* nobody is sent away who is listed */
#define SILENCE 12     /* once all is done, heartbeats only */

/* ---- Network ---- */

/* For reading a trail: spin -t prints these lines. run.py makes names of the numbers. */
#define show(what, f) printf("@ %d %d %d\n", what, (UPWARDS(f) -> 0 : 1 + TO(f)), f)
#define RECEIVED 0
#define SENT 1
#define LOST 2
#define DOUBLED 3
#define tell(what, id) printf("@ %d %d 0\n", what, id)
#define APPLICATION_SENDS 4
#define ASKS_TERMINATION 5
#define EXITS 6
#define GOODBYE_UNHEARD 7
#define CRASHES_NOW 8
#define BEGINS 9
#define NEW_LIST 10
#define TAKES_INBOX 11
#define TIME_PASSES 12
#define TIMER_EARLY 13
#define SEES_DEATH 14
#define FALLS_SILENT 15
#define DELIVERED 16
#define LEFT_OUT 17
#define NO_ROOM 18

/* What is said when there is nothing to say. */
#define PLAIN(f) (TYPE(f) == HEARTBEAT || (TYPE(f) == REPORT && RANGES(f) == 0 && !(UP(f) & (UP_ANSWER | UP_TERM | UP_BYE))) || \
                  (TYPE(f) == HELLO && !IS_LIVE(ID_OF(NONCE(f)))))

#define emit(f) to_send = (f); say()

inline say() {
#ifdef LIVENESS
  CHECK(SILENCE, !quiet || PLAIN(to_send));
#endif
  assert(outs < OUT);
  out[outs] = to_send;
  outs++
}

/* Puts a frame on its way. Two equal ones are one. */
inline put(f) {
  i = 0;
  do
  :: i < NET && net[i] > f -> i++
  :: else -> break
  od;
#ifdef LIVENESS
  assert(net[NET - 1] == 0); /* NET is large enough */
#endif
  if
  :: net[NET - 1] == 0 && net[i] != f && (UPWARDS(f) || ALIVE(TO(f))) ->
    p = NET - 1;
    do
    :: p > i -> net[p] = net[p - 1]; p--
    :: else -> break
    od;
    net[i] = f
  :: else
  fi
}

inline take_off(f) {
  i = 0;
  do
  :: i < NET && net[i] != f -> i++
  :: else -> break
  od;
  do
  :: i + 1 < NET -> net[i] = net[i + 1]; i++
  :: else -> break
  od;
  net[NET - 1] = 0
}

/* A broadcast of the worker's own batch. The publisher leaves it out, unless the worker has no slot, or was just given it: with ECHOES, and in
 * safety, where each frame may be lost, it may come. */
#define IS_ECHO(f) (TYPE(f) == RELAY && NONCE(f) == 0 && NONCE_OF(CONTENT(f)) == worker[TO(f)].nonce)

/* Sends what the step has to say, or loses it. What finds the network full is lost. */
inline transmit() {
  do
  :: outs > 0 ->
    if
    :: d_step {
        outs--;
        show(SENT, out[outs]);
        put(out[outs]);
        out[outs] = 0
      }
#ifdef LIVENESS
    :: losses > 0 ->
      d_step {
        losses--;
        outs--;
        show(LOST, out[outs]);
        out[outs] = 0
      }
#if ECHOES
    :: IS_ECHO(out[outs - 1]) ->
      d_step {
        outs--;
        show(LEFT_OUT, out[outs]);
        out[outs] = 0
      }
#endif
#else
    :: d_step {
        outs--;
        show(LOST, out[outs]);
        out[outs] = 0
      }
#endif
    fi
  :: else -> break
  od
}

/* Receives: the frame is taken off, or stays to come again. */
inline arrive() {
  if
  :: d_step { take_off(frame); show(RECEIVED, frame) }
#ifdef LIVENESS
  :: doubles > 0 -> doubles--; show(DOUBLED, frame)
#else
  :: show(DOUBLED, frame)
#endif
  fi
}

#define NONE (net[0] == 0)

#include "worker.pml"
#include "supervisor.pml"
#include "world.pml"
