"""What may happen when, as tables: (state, input) -> (effect, next state).

A row that is missing is a protocol error. The specification asks that frames which make no sense in their context
be ignored ("Handling the Unexpected"), so every frame that a peer can send on an open stream has a row, and most
of the odd ones say IGNORE; what is missing are our own mistakes.
"""

import enum
from typing import Any, Final

from rsocket_broker.protocol.codes import FrameType


class ConnectionState(enum.IntEnum):
    """Where the whole connection is."""

    EXPECTING = 0
    """Server: nothing has come yet; only SETUP (or RESUME) may."""
    DECIDING = 1
    """Server: SETUP has come and nobody has said yes or no; nothing more is read."""
    SERVING = 2
    """Server: open."""
    JOINING = 3
    """Client: SETUP is sent; requests may follow, but the server has not shown that it accepts."""
    JOINED = 4
    """Client: open, and the server has shown it."""
    LEAVING = 5
    """The peer said CONNECTION_CLOSE: open streams may finish, new ones are refused."""
    SUSPENDED = 6
    """The line was lost; the connection waits to be resumed, and nothing is read."""
    RESUMING = 7
    """Client: RESUME is sent over a new line; only its answer is read."""
    CLOSED = 8


class Action(enum.Enum):
    """What to do with a frame, by its type. The value names the method of Protocol that does it."""

    SETUP = "_on_setup"
    RESUME = "_on_resume"
    OUT_OF_ORDER = "_on_frame_before_setup"
    LATE_RESUME = "_on_late_resume"
    JOIN = "_on_sign_of_acceptance"
    JOIN_OR_END = "_on_error_while_joining"
    REQUEST_RESPONSE = "_on_request_response"
    FIRE_AND_FORGET = "_on_fire_and_forget"
    REQUEST_STREAM = "_on_request_stream"
    REQUEST_CHANNEL = "_on_request_channel"
    REFUSE = "_on_request_too_late"
    REQUEST_N = "_on_request_n"
    CANCEL = "_on_cancel"
    PAYLOAD = "_on_payload"
    ERROR = "_on_error"
    KEEPALIVE = "_on_keepalive"
    METADATA_PUSH = "_on_metadata_push"
    IGNORE = "_on_nothing"
    LEASE = "_on_lease"
    RESUMED = "_on_resume_ok"
    RESUME_REFUSED = "_on_resume_refused"
    NOT_RESUMED = "_on_frame_before_resume_ok"
    UNKNOWN = "_on_unknown"


_REQUESTS: Final = {
    FrameType.REQUEST_RESPONSE: Action.REQUEST_RESPONSE,
    FrameType.REQUEST_FNF: Action.FIRE_AND_FORGET,
    FrameType.REQUEST_STREAM: Action.REQUEST_STREAM,
    FrameType.REQUEST_CHANNEL: Action.REQUEST_CHANNEL,
}
_REST: Final = {
    FrameType.SETUP: Action.IGNORE,
    FrameType.LEASE: Action.LEASE,
    FrameType.RESUME_OK: Action.IGNORE,
    FrameType.KEEPALIVE: Action.KEEPALIVE,
    FrameType.REQUEST_N: Action.REQUEST_N,
    FrameType.CANCEL: Action.CANCEL,
    FrameType.PAYLOAD: Action.PAYLOAD,
    FrameType.ERROR: Action.ERROR,
    FrameType.METADATA_PUSH: Action.METADATA_PUSH,
}

_CLIENT: Final = {**_REST, FrameType.RESUME: Action.IGNORE}

CONNECTION: Final[dict[ConnectionState, dict[FrameType, Action]]] = {
    ConnectionState.EXPECTING: {FrameType.SETUP: Action.SETUP, FrameType.RESUME: Action.RESUME},
    ConnectionState.SERVING: {**_REQUESTS, **_REST, FrameType.RESUME: Action.LATE_RESUME},
    ConnectionState.JOINING: {
        **dict.fromkeys(_REQUESTS, Action.JOIN),
        **_CLIENT,
        FrameType.PAYLOAD: Action.JOIN,
        FrameType.KEEPALIVE: Action.JOIN,
        FrameType.LEASE: Action.JOIN,
        FrameType.ERROR: Action.JOIN_OR_END,
    },
    ConnectionState.JOINED: {**_REQUESTS, **_CLIENT},
    ConnectionState.LEAVING: {**dict.fromkeys(_REQUESTS, Action.REFUSE), **_CLIENT},
    ConnectionState.RESUMING: {FrameType.RESUME_OK: Action.RESUMED, FrameType.ERROR: Action.RESUME_REFUSED},
}
"""Frame types without a row are out of order where the state expects something definite, else unknown (`action`)."""

_MISSING: Final = {
    ConnectionState.EXPECTING: Action.OUT_OF_ORDER,
    ConnectionState.RESUMING: Action.NOT_RESUMED,
}


def action(state: ConnectionState, kind: int) -> Action:
    """What a frame of type `kind` (0 to 63) means in `state`. DECIDING, SUSPENDED and CLOSED read no frames and have
    no rows."""
    rows = CONNECTION[state]
    missing = _MISSING.get(state, Action.UNKNOWN)
    return {int(known): what for known, what in rows.items()}.get(kind, missing)


class StreamState(enum.IntEnum):
    """One stream as we see it. ASKED: we sent the request; OWES: the peer did."""

    ASSEMBLING = 0
    """The request itself is still arriving in fragments."""
    ASKED_RESPONSE = 1
    OWES_RESPONSE = 2
    ASKED_STREAM = 3
    OWES_STREAM = 4
    ASKED_CHANNEL = 5
    ASKED_CHANNEL_SENT_ALL = 6
    ASKED_CHANNEL_HEARD_ALL = 7
    OWES_CHANNEL = 8
    OWES_CHANNEL_SENT_ALL = 9
    OWES_CHANNEL_HEARD_ALL = 10
    CLOSED = 11


class Input(enum.IntEnum):
    """What happens to a stream. The first four are the N and C bits of a PAYLOAD, as the number they make."""

    HEARD_NOTHING = 0
    HEARD_NEXT = 1
    HEARD_COMPLETE = 2
    HEARD_LAST = 3
    HEARD_REQUEST_N = 4
    HEARD_CANCEL = 5
    HEARD_ERROR = 6
    SENT_NEXT = 7
    SENT_COMPLETE = 8
    SENT_LAST = 9
    SENT_REQUEST_N = 10
    SENT_CANCEL = 11
    SENT_ERROR = 12


class Effect(enum.IntEnum):
    """What a row does besides moving on."""

    IGNORE = 0
    PASS = 1
    """Report it, or send it."""
    SPEND = 2
    """As PASS, and it uses one credit of request-n."""
    BANK = 3
    """Only add the credit: the request that it belongs to is not known yet."""


Row = tuple[Effect, StreamState]
_S, _I, _E = StreamState, Input, Effect
HEARD: Final = [one for one in Input if one <= Input.HEARD_ERROR]


def _ignoring(state: StreamState, rows: dict[Input, Row]) -> dict[Input, Row]:
    """`rows`, and IGNORE for every other frame that the peer may send."""
    return {**dict.fromkeys(HEARD, (Effect.IGNORE, state)), **rows}


STREAM: Final[dict[StreamState, dict[Input, Row]]] = {
    _S.ASSEMBLING: _ignoring(
        _S.ASSEMBLING,
        {
            _I.HEARD_REQUEST_N: (_E.BANK, _S.ASSEMBLING),
            _I.HEARD_CANCEL: (_E.IGNORE, _S.CLOSED),
            _I.HEARD_ERROR: (_E.IGNORE, _S.CLOSED),
            _I.SENT_ERROR: (_E.PASS, _S.CLOSED),
        },
    ),
    _S.ASKED_RESPONSE: _ignoring(
        _S.ASKED_RESPONSE,
        {
            # "If a PAYLOAD for a REQUEST_RESPONSE does not have COMPLETE set, assume that it is."
            _I.HEARD_NOTHING: (_E.PASS, _S.CLOSED),
            _I.HEARD_NEXT: (_E.PASS, _S.CLOSED),
            _I.HEARD_COMPLETE: (_E.PASS, _S.CLOSED),
            _I.HEARD_LAST: (_E.PASS, _S.CLOSED),
            _I.HEARD_ERROR: (_E.PASS, _S.CLOSED),
            _I.SENT_CANCEL: (_E.PASS, _S.CLOSED),
        },
    ),
    _S.OWES_RESPONSE: _ignoring(
        _S.OWES_RESPONSE,
        {
            _I.HEARD_CANCEL: (_E.PASS, _S.CLOSED),
            _I.SENT_COMPLETE: (_E.PASS, _S.CLOSED),
            _I.SENT_LAST: (_E.PASS, _S.CLOSED),
            _I.SENT_ERROR: (_E.PASS, _S.CLOSED),
        },
    ),
    _S.ASKED_STREAM: _ignoring(
        _S.ASKED_STREAM,
        {
            _I.HEARD_NEXT: (_E.SPEND, _S.ASKED_STREAM),
            _I.HEARD_COMPLETE: (_E.PASS, _S.CLOSED),
            _I.HEARD_LAST: (_E.SPEND, _S.CLOSED),
            _I.HEARD_ERROR: (_E.PASS, _S.CLOSED),
            _I.SENT_REQUEST_N: (_E.PASS, _S.ASKED_STREAM),
            _I.SENT_CANCEL: (_E.PASS, _S.CLOSED),
        },
    ),
    _S.OWES_STREAM: _ignoring(
        _S.OWES_STREAM,
        {
            _I.HEARD_REQUEST_N: (_E.PASS, _S.OWES_STREAM),
            _I.HEARD_CANCEL: (_E.PASS, _S.CLOSED),
            _I.SENT_NEXT: (_E.SPEND, _S.OWES_STREAM),
            _I.SENT_COMPLETE: (_E.PASS, _S.CLOSED),
            _I.SENT_LAST: (_E.SPEND, _S.CLOSED),
            _I.SENT_ERROR: (_E.PASS, _S.CLOSED),
        },
    ),
    _S.ASKED_CHANNEL: _ignoring(
        _S.ASKED_CHANNEL,
        {
            _I.HEARD_NEXT: (_E.SPEND, _S.ASKED_CHANNEL),
            _I.HEARD_COMPLETE: (_E.PASS, _S.ASKED_CHANNEL_HEARD_ALL),
            _I.HEARD_LAST: (_E.SPEND, _S.ASKED_CHANNEL_HEARD_ALL),
            _I.HEARD_REQUEST_N: (_E.PASS, _S.ASKED_CHANNEL),
            # The specification lets only requesters cancel; the Java, JS and Python engines also cancel as
            # responders, and mean that they want no more of what the requester sends.
            _I.HEARD_CANCEL: (_E.PASS, _S.ASKED_CHANNEL_SENT_ALL),
            _I.HEARD_ERROR: (_E.PASS, _S.CLOSED),
            _I.SENT_NEXT: (_E.SPEND, _S.ASKED_CHANNEL),
            _I.SENT_COMPLETE: (_E.PASS, _S.ASKED_CHANNEL_SENT_ALL),
            _I.SENT_LAST: (_E.SPEND, _S.ASKED_CHANNEL_SENT_ALL),
            _I.SENT_REQUEST_N: (_E.PASS, _S.ASKED_CHANNEL),
            _I.SENT_CANCEL: (_E.PASS, _S.CLOSED),
            _I.SENT_ERROR: (_E.PASS, _S.CLOSED),
        },
    ),
    _S.ASKED_CHANNEL_SENT_ALL: _ignoring(
        _S.ASKED_CHANNEL_SENT_ALL,
        {
            _I.HEARD_NEXT: (_E.SPEND, _S.ASKED_CHANNEL_SENT_ALL),
            _I.HEARD_COMPLETE: (_E.PASS, _S.CLOSED),
            _I.HEARD_LAST: (_E.SPEND, _S.CLOSED),
            _I.HEARD_ERROR: (_E.PASS, _S.CLOSED),
            # A CANCEL may have crossed what the producer sends.
            _I.SENT_NEXT: (_E.IGNORE, _S.ASKED_CHANNEL_SENT_ALL),
            _I.SENT_COMPLETE: (_E.IGNORE, _S.ASKED_CHANNEL_SENT_ALL),
            _I.SENT_LAST: (_E.IGNORE, _S.ASKED_CHANNEL_SENT_ALL),
            _I.SENT_REQUEST_N: (_E.PASS, _S.ASKED_CHANNEL_SENT_ALL),
            _I.SENT_CANCEL: (_E.PASS, _S.CLOSED),
            _I.SENT_ERROR: (_E.IGNORE, _S.ASKED_CHANNEL_SENT_ALL),
        },
    ),
    _S.ASKED_CHANNEL_HEARD_ALL: _ignoring(
        _S.ASKED_CHANNEL_HEARD_ALL,
        {
            _I.HEARD_REQUEST_N: (_E.PASS, _S.ASKED_CHANNEL_HEARD_ALL),
            _I.HEARD_CANCEL: (_E.PASS, _S.CLOSED),
            _I.HEARD_ERROR: (_E.PASS, _S.CLOSED),
            _I.SENT_NEXT: (_E.SPEND, _S.ASKED_CHANNEL_HEARD_ALL),
            _I.SENT_COMPLETE: (_E.PASS, _S.CLOSED),
            _I.SENT_LAST: (_E.SPEND, _S.CLOSED),
            _I.SENT_REQUEST_N: (_E.IGNORE, _S.ASKED_CHANNEL_HEARD_ALL),
            _I.SENT_CANCEL: (_E.PASS, _S.CLOSED),
            _I.SENT_ERROR: (_E.PASS, _S.CLOSED),
        },
    ),
    _S.OWES_CHANNEL: _ignoring(
        _S.OWES_CHANNEL,
        {
            _I.HEARD_NEXT: (_E.SPEND, _S.OWES_CHANNEL),
            _I.HEARD_COMPLETE: (_E.PASS, _S.OWES_CHANNEL_HEARD_ALL),
            _I.HEARD_LAST: (_E.SPEND, _S.OWES_CHANNEL_HEARD_ALL),
            _I.HEARD_REQUEST_N: (_E.PASS, _S.OWES_CHANNEL),
            _I.HEARD_CANCEL: (_E.PASS, _S.CLOSED),
            _I.HEARD_ERROR: (_E.PASS, _S.CLOSED),
            _I.SENT_NEXT: (_E.SPEND, _S.OWES_CHANNEL),
            _I.SENT_COMPLETE: (_E.PASS, _S.OWES_CHANNEL_SENT_ALL),
            _I.SENT_LAST: (_E.SPEND, _S.OWES_CHANNEL_SENT_ALL),
            _I.SENT_REQUEST_N: (_E.PASS, _S.OWES_CHANNEL),
            # As above: "send me no more", without which a requester would wait for credit for ever.
            _I.SENT_CANCEL: (_E.PASS, _S.OWES_CHANNEL_HEARD_ALL),
            _I.SENT_ERROR: (_E.PASS, _S.CLOSED),
        },
    ),
    _S.OWES_CHANNEL_SENT_ALL: _ignoring(
        _S.OWES_CHANNEL_SENT_ALL,
        {
            _I.HEARD_NEXT: (_E.SPEND, _S.OWES_CHANNEL_SENT_ALL),
            _I.HEARD_COMPLETE: (_E.PASS, _S.CLOSED),
            _I.HEARD_LAST: (_E.SPEND, _S.CLOSED),
            _I.HEARD_CANCEL: (_E.PASS, _S.CLOSED),
            _I.HEARD_ERROR: (_E.PASS, _S.CLOSED),
            _I.SENT_REQUEST_N: (_E.PASS, _S.OWES_CHANNEL_SENT_ALL),
            _I.SENT_CANCEL: (_E.PASS, _S.CLOSED),
        },
    ),
    _S.OWES_CHANNEL_HEARD_ALL: _ignoring(
        _S.OWES_CHANNEL_HEARD_ALL,
        {
            _I.HEARD_REQUEST_N: (_E.PASS, _S.OWES_CHANNEL_HEARD_ALL),
            _I.HEARD_CANCEL: (_E.PASS, _S.CLOSED),
            _I.HEARD_ERROR: (_E.PASS, _S.CLOSED),
            _I.SENT_NEXT: (_E.SPEND, _S.OWES_CHANNEL_HEARD_ALL),
            _I.SENT_COMPLETE: (_E.PASS, _S.CLOSED),
            _I.SENT_LAST: (_E.SPEND, _S.CLOSED),
            _I.SENT_REQUEST_N: (_E.IGNORE, _S.OWES_CHANNEL_HEARD_ALL),
            _I.SENT_CANCEL: (_E.IGNORE, _S.OWES_CHANNEL_HEARD_ALL),
            _I.SENT_ERROR: (_E.PASS, _S.CLOSED),
        },
    ),
}

ROWS: Final[Any] = tuple(
    tuple(STREAM[state].get(given) for given in Input) for state in StreamState if state is not StreamState.CLOSED
)
"""STREAM as the engine reads it: ROWS[state][input] is a Row, or None where there is none."""

GIVING_UP: Final[dict[StreamState, Input]] = {
    state: Input.SENT_ERROR
    if state.name in {"ASSEMBLING", "OWES_RESPONSE", "OWES_STREAM", "OWES_CHANNEL"}
    or state is StreamState.OWES_CHANNEL_HEARD_ALL
    else Input.SENT_CANCEL
    for state in STREAM
}
"""How we end a stream whose peer broke a rule: a requester cancels, a responder that still owes an answer errs."""
