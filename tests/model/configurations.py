"""What run.py checks: the bounds of each configuration, the rules that are removed one at a time, and what the model found."""

# By the number in CHECK of messaging.pml; 0 is the acceptance cycle.
PROPERTIES = ("complete", "prefix", "order", "once", "echo", "taken once", "era", "acknowledged", "trim", "exit", "termination", "refused", "silence")


def sends(*counts):
    """MESSAGES: how many messages the supervisor (nonce 0) and the incarnations with nonce 1, 2, ... send."""
    return sum(count << 3 * nonce for nonce, count in enumerate(counts))


def bits(*numbers):
    return sum(1 << n for n in numbers)


def message(nonce, number):
    return 2 * nonce + number


def live(**settings):
    return {"LIVENESS": True, "NET": 12, "LOSSES": 1, **settings}


# Lists are bits of ids: 1 is id 0 alone, 2 is id 1 alone, 3 both. Nonces 1, 3, 5 are incarnations of id 0; 2 and 4 of id 1.
ORDER = {"MESSAGES": sends(0, 1, 1), "NET": 3}
TWO = {"MESSAGES": sends(0, 2), "NET": 3}
OWN = {"MESSAGES": sends(1, 1), "NET": 3}
OUTPUT = {"MESSAGES": sends(0, 2, 1), "OUTPUTS": bits(message(1, 1), message(2, 1)), "INBOX": 1, "NET": 2}
TRIM = {"MESSAGES": sends(0, 2, 1), "HISTORY": 1, "NET": 2}
LATE = {"MESSAGES": sends(0, 2), "HISTORY": 1, "LIST": 1, "UPDATES": 1, "LISTS": bits(3), "NET": 2}
HEIR = {"MESSAGES": sends(0, 1, 0, 1), "WATCHED": 0, "NONCES": 3, "HEIRS": bits(3), "CRASHES": 1, "NET": 2}
WATCHED = {"MESSAGES": sends(0, 1, 0, 1), "NONCES": 3, "HEIRS": bits(3), "CRASHES": 1, "UPDATES": 1, "LISTS": bits(3), "GENERATIONS": 2, "NET": 2}
GENERATIONS = {"MESSAGES": sends(0, 1, 1), "UPDATES": 2, "LISTS": bits(1, 2, 3), "GENERATIONS": 3, "NET": 2}
RELISTED = {"MESSAGES": sends(0, 1, 0, 1), "WATCHED": 0, "NONCES": 3, "HEIRS": bits(3), "UPDATES": 2, "LISTS": bits(2, 3), "GENERATIONS": 3, "NET": 2}
TERMS = {"TERMS": bits(0, 1, 2), "UPDATES": 1, "GENERATIONS": 2, "NET": 2}
LEAVES = {"MESSAGES": sends(0, 1), "LEAVES": bits(0, 1), "NET": 2}

L_ORDER = live(MESSAGES=sends(0, 1, 1), LOSSES=2, DOUBLES=1)
L_ECHOES = live(MESSAGES=sends(0, 1, 1), DOUBLES=1, ECHOES=1)
L_TWO = live(MESSAGES=sends(0, 2, 1))
L_EARLY = live(MESSAGES=sends(0, 1, 1), EARLY=1)
L_REFUSED = live(MESSAGES=sends(2, 1), LIST=1, WORKERS=1, REFUSALS=1)
L_OUTPUT = live(MESSAGES=sends(0, 2, 1), OUTPUTS=bits(message(1, 1), message(1, 2)), INBOX=1)
L_LATE = live(MESSAGES=sends(0, 2), HISTORY=1, LIST=1, UPDATES=1, LISTS=bits(3))
L_HEIR = live(MESSAGES=sends(0, 1, 0, 1), WATCHED=0, NONCES=3, HEIRS=bits(3), CRASHES=1)
L_WATCHED = live(MESSAGES=sends(0, 1, 1, 1), NONCES=3, HEIRS=bits(3), CRASHES=1, UPDATES=1, LISTS=bits(3), GENERATIONS=2)
L_GENERATIONS = live(MESSAGES=sends(0, 1, 1), UPDATES=1, LISTS=bits(1, 2, 3), GENERATIONS=2)
L_TERMS = live(MESSAGES=sends(0, 1), TERMS=bits(1))
L_IM_TERMS = live(MESSAGES=sends(0, 1), TERMS=bits(0))
L_TERMS_TOO = live(TERMS=bits(0, 1))
L_TWO_TERMS = live(TERMS=bits(1, 2))
L_TERM_TO = live(MESSAGES=sends(0, 1), TERM_TO=1, LOSSES=2)
L_LEAVES = live(MESSAGES=sends(0, 1), LEAVES=bits(0, 1))


def entry(name, what, settings, violates=None):
    return {"name": name, "what": what, "settings": settings, "violates": violates}


CONFIGURATIONS = [
    entry("order", "two workers, a message each", ORDER),
    entry("two", "two messages of one worker", TWO),
    entry("own", "the supervisor sends too", OWN),
    entry("output", "output and relay messages in one stream, an inbox of one: the window closes", OUTPUT),
    entry("trim", "three messages, a history of one", TRIM),
    entry("late", "a worker is added when history was trimmed", LATE),
    entry("heir", "a worker crashes, another one takes its id; silence tells of deaths", HEIR),
    entry("watched", "likewise, pidfds tell, and the id is listed anew", WATCHED),
    entry("generations", "two updates with and without survivors", GENERATIONS),
    entry("relisted", "an id is left out, listed again, and has an heir", RELISTED),
    entry("terms", "everybody asks for termination, an update", TERMS),
    entry("leaves", "a worker and the supervisor leave", LEAVES),
    entry("leaves-lingers", "likewise, the worker answers on while its exit ends", LEAVES | {"LINGERS": 1}),
    entry("live-order", "as order: two losses, a doubled frame", L_ORDER),
    entry("live-echoes", "as order: a loss, a doubled frame; own broadcasts come or are left out, frame by frame", L_ECHOES),
    entry("live-two", "as two: a loss", L_TWO),
    entry("live-early", "as order: a loss, a timer that goes off early", L_EARLY),
    entry("live-output", "two output messages, an inbox of one; a loss", L_OUTPUT),
    entry("live-late", "as late: a loss", L_LATE),
    entry("live-heir", "as heir: a loss", L_HEIR),
    entry("live-watched", "as watched: a loss", L_WATCHED),
    entry("live-generations", "one update; a loss", L_GENERATIONS),
    entry("live-terms", "a worker asks for termination; a loss", L_TERMS),
    entry("live-im-terms", "the supervisor does; a loss", L_IM_TERMS),
    entry("live-terms-too", "a worker and the supervisor do; a loss", L_TERMS_TOO),
    entry("live-two-terms", "both workers do; a loss", L_TWO_TERMS),
    entry("live-term-to", "one worker alone is asked; two losses", L_TERM_TO),
    entry("live-leaves", "a worker and the supervisor leave; a loss", L_LEAVES),
    entry("live-leaves-lingers", "likewise, the worker answers on while its exit ends", L_LEAVES | {"LINGERS": 1}),
    entry("live-status-alone", "as live-order, neither a run nor its own batch is an acknowledgement: STATUS says it, too", L_ORDER | {"NO_OWN_ACKNOWLEDGES": True}),
    entry("live-no-run", "as live-order, no frame tells a run: repairs bring a worker its own", L_ORDER | {"NO_RUN": True}),
    entry("live-refused", "one worker and the supervisor: a loss, and once no room for what is early", L_REFUSED),
]


def without(rule, what, settings, *violates):
    return entry(rule.lower().replace("_", "-"), what, settings | {rule: True}, violates)


RULES = [
    without("NO_NONCE_UP", "a sender is told by its id alone", HEIR, "acknowledged", "taken once"),
    without("NO_NONCE_IN_ECHO", "its own batch is told by its id alone", HEIR, "acknowledged", "prefix"),
    without("NO_NONCE_IN_RUN", "a run is told by its id alone", HEIR, "acknowledged", "prefix"),
    without("NO_RUN_ANEW", "a run goes on where the sender changes", ORDER, "prefix"),
    without("NO_GAP_BEFORE_RUN", "a run ahead of a gap counts as delivered with all before it", ORDER, "prefix"),
    without("NO_LAST_OWN", "a repair leaves out own batches though nothing behind them tells of them", L_REFUSED, "complete"),
    without("NO_RUN", "likewise, and no frame tells a run", L_ORDER | {"NO_LAST_OWN": True}, "complete"),
    without("NO_NONCE_IN_TOPIC", "a worker's topic is its id alone", HEIR, "acknowledged", "refused"),
    without("NO_NONCE_IN_TERMS", "who asked for termination is told by its id alone", L_HEIR | {"TERMS": bits(1)}, "complete"),
    without("NO_EXPECTED_ANEW", "a new incarnation goes on in the old one's numbers", HEIR, "acknowledged"),
    without("NO_FORMER", "former incarnations are not remembered", RELISTED, "taken once"),
    without("NO_UNSEATED", "a late HELLO unseats an heir that was welcomed and has not spoken", HEIR, "refused"),
    without("NO_UNSEATED_WAITS", "who was unseated by one that has spoken, which may be dead, is refused for good", HEIR, "refused"),
    without("NO_STRUCK", "former incarnations of an id that was left out are forgotten", RELISTED, "taken once"),
    without("NO_SECOND_REFUSED", "a second claimant takes the id of a live worker", HEIR, "refused"),
    without("NO_DEATH_FIRST", "an heir is welcomed before its forebear's death was seen", WATCHED, "refused"),
    without("NO_ORDER_UP", "the supervisor takes a batch ahead of a gap", TWO, "taken once"),
    without("NO_DUPLICATES_DROPPED", "the supervisor takes a batch again", ORDER, "taken once"),
    without("NO_OWNED_BEFORE_ACKNOWLEDGED", "a batch that found no room is acknowledged", OUTPUT, "acknowledged"),
    without("NO_ORDER_DOWN", "a worker delivers a batch ahead of a gap", ORDER, "prefix"),
    without("NO_OWN_SKIPPED", "its own batch is delivered to it", ORDER, "echo"),
    without("NO_GENERATION_UP", "the supervisor takes frames of any generation", GENERATIONS, "era"),
    without("NO_GENERATION_DOWN", "a worker takes frames of any generation", GENERATIONS, "order", "prefix", "acknowledged", "termination"),
    without("NO_HISTORY_FOR_NEWCOMERS", "a worker starts at the number that is next", ORDER, "prefix"),
    without("NO_TRIM_BOUND", "history is trimmed whoever needs it", TRIM, "trim"),
    without("NO_TRIM_BOUND_UNJOINED", "who has not joined yet does not hold back history", TRIM, "trim"),
    without("NO_FLUSH", "exit does not wait for acknowledgements", LEAVES, "exit"),
    without("NO_HELLO_AGAIN", "HELLO is said once", L_TWO, "complete"),
    without("NO_WELCOME_AGAIN", "WELCOME is said once", L_TWO, "complete"),
    without("NO_PROBE", "a worker does not ask what has arrived", L_TWO, "complete"),
    without("NO_GO_BACK", "a lost batch is not sent again", L_TWO, "complete"),
    without("NO_AGAIN_ONCE", "each STATUS makes a worker send again", L_TWO, "complete"),
    without("NO_PROBE_OF_CLOSED_WINDOW", "nor whether a closed window is open", L_OUTPUT, "complete"),
    without("NO_HIGH_WATER_MARK", "heartbeats do not say how far the order goes", L_TWO, "complete"),
    without("NO_QUESTION_AGAIN", "what is missing is asked for once", L_TWO, "complete"),
    without("NO_FIRST", "nobody is told where history begins", L_LATE, "complete"),
    without("NO_END_OF_REMINDERS", "who has everything is reminded, too", L_TWO, "silence"),
    without("NO_REFUSAL", "who was left out is not told", L_GENERATIONS, "complete"),
    without("NO_TERM_AGAIN", "a worker asks for termination once", L_TERMS, "complete"),
    without("NO_TERMS_AGAIN", "the first heartbeat alone says who asked", L_TERMS, "complete"),
    without("NO_REMINDERS", "one worker alone is asked once", L_TERM_TO, "complete"),
    without("NO_TERM_SEEN", "a worker does not say that it knows", L_TERMS, "complete"),
    without("NO_BYE_AGAIN", "a worker says goodbye once", L_LEAVES, "complete"),
    without("NO_BYE_ANSWERED", "nobody answers it", L_LEAVES, "complete"),
    without("NO_BYE_SEEN", "nor the supervisor's", L_LEAVES, "complete"),
    without("NO_END_OF_BYES", "who hears the supervisor's goodbye goes on saying its own", L_LEAVES | {"LINGERS": 1}, "complete"),
]

# What the model finds in the protocol as it is, in the form of rules; nothing is open.
FINDINGS = []
