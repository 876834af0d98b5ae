"""What the messages of one session have taught: shortcuts for those that repeat.

The first request with some metadata is looked up; what answers it is kept under these very bytes, since clients send
the same metadata over and over. Nearly all the text of Flipper's JSON is the same each time as well, so of a message
that begins and ends like one before it only the parameters are parsed. Nothing is kept while somebody follows the
messages, nor where a large one is being read, whose place no other may take.
"""

from collections.abc import Callable
from typing import Any, Final

from rsocket_broker.errors import RequestFailed
from rsocket_broker.jsontext import JsonError, parse_bytes
from rsocket_broker.payload import Payload
from rsocket_broker.policy.rules import Direction
from rsocket_broker.protocol.runs import Shortcut, Shortcuts
from rsocket_broker.routing import flipper
from rsocket_broker.routing.aside import BRIEF, is_large
from rsocket_broker.routing.seat import Seat
from rsocket_broker.routing.session import Session
from rsocket_broker.tracing import MARK

MAX_REMEMBERED: Final = 64
MAX_REMEMBERED_SIZE: Final = 512
"""Metadata that a session's requests repeat, and its longest: a client has a handful of routes. What is remembered of
one session is at most 32 KiB, and a client that never repeats itself only loses the short cut."""

NO_EVENT: Final[tuple[bytes, Shortcut]] = (b"\0", lambda data: None)
"""No JSON text begins so."""
NO_QUESTION: Final[tuple[bytes, Shortcut, str, str]] = (b"\0", lambda data: None, "", "")


class Learned:
    """Of one session."""

    def __init__(self, ask: Callable[[bytes], object], tell: Callable[[bytes], object]) -> None:
        """`ask` and `tell` go the long way, with the text of a question and of an event; they raise nothing."""
        self.shortcuts = Shortcuts()
        self.paused = False
        """While nothing may be kept."""
        self._ask = ask
        self._tell = tell
        self._asked: dict[tuple[object, object], tuple[Seat, Callable[[object], bytes | Payload]]] = {}
        self._told: dict[tuple[object, object], tuple[Seat, Callable[[object, int], None]]] = {}
        """What answers, and takes, the methods that an app has named in JSON: by plugin and method."""
        self._envelopes: dict[bytes, Shortcut] = {}
        """What takes events, by their text up to the parameters."""
        self._questions: dict[bytes, tuple[bytes, Shortcut, str, str]] = {}
        """What answers questions, by their text from behind the number to the parameters."""
        self._looked_at: set[bytes] = set()
        """Texts that were learned, or cannot be."""
        self._usual = NO_EVENT
        """What the last event began with, and what took it."""
        self._usual_question = NO_QUESTION

    def forget(self) -> None:
        """What was found out is no longer true."""
        self.shortcuts.clear()
        self._asked.clear()
        self._told.clear()
        self._envelopes.clear()
        self._questions.clear()
        self._looked_at.clear()
        self._usual_question = NO_QUESTION
        self._usual = NO_EVENT

    # --- what came the long way --------------------------------------------------------------------------------------

    def call(self, session: Session, seat: Seat, name: str, metadata: object) -> None:
        """A request with a route is about to be answered."""
        if type(metadata) is not bytes or metadata in self.shortcuts.calls:
            return
        if self._may_keep(session, seat, name, metadata):
            self.shortcuts.calls[metadata] = seat.answers.shortcut(name, metadata)

    def fire(self, session: Session, seat: Seat, name: str, metadata: object, large: Callable[[bytes], object]) -> None:
        """A message with a route was delivered. `large` takes those that are too large for a shortcut."""
        if type(metadata) is not bytes or metadata in self.shortcuts.fires:
            return
        if self._may_keep(session, seat, name, metadata):
            self.shortcuts.fires[metadata] = seat.events.fire_shortcut(name, metadata, large)

    def question(self, session: Session, seat: Seat, method: str) -> None:
        """An app is about to be answered in Flipper's JSON."""
        if self._may_keep(session, seat, method):
            shortcut = seat.answers.json_shortcut(method)
            if shortcut is not None:
                self._asked[seat.host.id, method] = seat, shortcut
                self.shortcuts.calls[None] = self._answer

    def event(self, session: Session, seat: Seat, method: str) -> None:
        """An app's event was delivered."""
        if self._may_keep(session, seat, method):
            shortcut = seat.events.event_shortcut(method)
            if shortcut is not None:
                self._told[seat.host.id, method] = seat, shortcut
                self.shortcuts.fires[None] = self._take

    def _may_keep(self, session: Session, seat: Seat, name: str, metadata: bytes = b"") -> bool:
        """Whether a shortcut may be kept under `metadata`. One that carries a trace context never comes again."""
        if session.observed or session.tracing is not None or not seat.ready or session.buckets or self.paused:
            return False
        if len(metadata) > MAX_REMEMBERED_SIZE or MARK in metadata:
            return False
        if not session.access.is_fixed(Direction.IN, seat.host.id, name):
            return False
        if len(self.shortcuts.calls) + len(self.shortcuts.fires) >= MAX_REMEMBERED:
            self.forget()
        return True

    # --- questions in Flipper's JSON ---------------------------------------------------------------------------------

    def _answer(self, data: bytes) -> object:
        """The shortcut for questions; the long way does whatever is not known here.

        Only the parameters are parsed where the rest, but for the question's number, is known.
        """
        begin = flipper.number_ends(data)
        question = self._usual_question
        if begin < 0 or not data.startswith(question[0], begin):
            if len(data) > BRIEF and is_large(data):
                return self._ask(data)
            question = self._questions.get(data[begin : flipper.parameters_begin(data)], NO_QUESTION)
        if question is NO_QUESTION or begin < 0 or not data.endswith(b"}}") or (len(data) > BRIEF and is_large(data)):
            return self._answer_known(data)
        self._usual_question = question
        text, answers, plugin, method = question
        params = data[begin + len(text) : -2]
        answer = answers(params) if params else None
        if type(answer) is bytes:
            return flipper.success_in(answer)
        if isinstance(answer, Payload):
            return _success_or_refusal(plugin, method, answer)
        if answer is None or not _is_object(params):
            return self._answer_known(data)  # nothing that a handler has seen
        assert isinstance(answer, RequestFailed)
        return flipper.refused(answer)

    def _answer_known(self, data: bytes) -> object:
        """A question whose plugin and method may be known, but not the way in which it is written."""
        if len(data) > BRIEF and is_large(data):
            return self._ask(data)
        try:
            message: Any = parse_bytes(data)
            asked = message["params"]
            plugin, method, params = asked["api"], asked["method"], asked["params"]
            _, answers = self._asked[plugin, method]
            known = message["method"] == "execute"
        except (JsonError, KeyError, TypeError):
            known = False
        if not known:
            return self._ask(data)
        begin = flipper.number_ends(data)
        if begin >= 0:
            self._learn_question(data[begin : flipper.parameters_begin(data)])
        try:
            answer = answers({} if params is None else params)
            if isinstance(answer, bytes):
                return flipper.success_in(answer)
            return flipper.success_of(plugin, method, answer)
        except RequestFailed as error:
            return flipper.refused(error)

    def _learn_question(self, text: bytes) -> None:
        """Remembers what answers questions that go on so behind their number, where that can be done in a hurry."""
        if text in self._questions or not self._may_learn(text, len(self._questions)):
            return
        found = flipper.envelope(b"{" + text[1:])
        if found is None or found not in self._asked:
            return
        plugin, method = found
        seat = self._asked[found][0]
        if seat.answers.skims(method):
            self._questions[text] = text, seat.answers.shortcut(method, b""), plugin, method

    # --- events in Flipper's JSON ------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        """The shortcut for events; the long way does whatever is not known here.

        What takes events like the last two comes first from then on, until one begins otherwise.
        """
        text, take = self._usual
        if data.startswith(text):
            self.shortcuts.fires[None] = take
            take(data)
            return
        if len(data) > BRIEF and is_large(data):
            self._tell(data)
            return
        text = data[: flipper.parameters_begin(data)]
        known = self._envelopes.get(text)
        if known is None:
            self._take_known(data)
            return
        self._usual = text, known
        self.shortcuts.fires[None] = self._take
        known(data)

    def _take_known(self, data: bytes) -> None:
        """An event whose plugin and method may be known, but not the way in which it is written."""
        if len(data) > BRIEF and is_large(data):
            self._tell(data)
            return
        try:
            message: Any = parse_bytes(data)
            told = message["params"]
            params = told["params"]
            _, deliver = self._told[told["api"], told["method"]]
            known = message["method"] == "execute" and "id" not in message
        except (JsonError, KeyError, TypeError):
            known = False
        if not known:
            self._tell(data)
            return
        self._learn_event(data[: flipper.parameters_begin(data)])
        deliver({} if params is None else params, len(data))

    def _learn_event(self, text: bytes) -> None:
        """Remembers what takes events that begin so, where they may be taken in a hurry."""
        if text in self._envelopes or not self._may_learn(text, len(self._envelopes)):
            return
        found = flipper.envelope(text)
        if found is None or found not in self._told:
            return
        events, kept = self._told[found][0].events, self.shortcuts.fires
        take = events.envelope_shortcut(found[1], text, kept, self._take, self._take_known)
        if take is not None:
            self._envelopes[text] = take

    def _may_learn(self, text: bytes, known: int) -> bool:
        """Whether to look if `text` can be learned, which is done once for each text."""
        full = known >= MAX_REMEMBERED or len(self._looked_at) >= MAX_REMEMBERED
        if full or len(text) > MAX_REMEMBERED_SIZE or text in self._looked_at:
            return False
        self._looked_at.add(text)
        return True


def _success_or_refusal(plugin: str, method: str, answer: Payload) -> bytes:
    try:
        return flipper.success_of(plugin, method, answer)
    except RequestFailed as error:
        return flipper.refused(error)


def _is_object(params: bytes) -> bool:
    """Whether the text is JSON that may have gone to a handler, or been refused by the look of it."""
    try:
        return parse_bytes(params) is not None
    except JsonError:
        return False
