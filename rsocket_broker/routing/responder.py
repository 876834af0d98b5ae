"""What answers on one connection of the secure port: takes each message to the plugin it is for.

A message is JSON of Flipper's when the client said that it speaks that and sends no metadata; else it has a route.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Protocol

from rsocket_broker.claims import Claims
from rsocket_broker.connection import Connection
from rsocket_broker.errors import ConnectionClosed, Invalid, Rejected, RequestFailed
from rsocket_broker.flow import as_async, close_source
from rsocket_broker.jsontext import SHORT, JsonError, parse, parse_bytes, skim
from rsocket_broker.line import Line
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.handlers import Handler, Model
from rsocket_broker.policy.rules import Direction
from rsocket_broker.protocol.codes import SETUP_ERRORS, ErrorCode
from rsocket_broker.protocol.events import ResumeReceived, SetupReceived
from rsocket_broker.protocol.metadata import COMPOSITE, first_tag
from rsocket_broker.protocol.runs import Shortcut, Shortcuts
from rsocket_broker.routing import flipper
from rsocket_broker.routing.access import Waiting
from rsocket_broker.routing.apart import (
    Arguments,
    arguments_of_payload,
    arguments_of_text,
    arguments_of_value,
    is_json,
    message_in,
    parses,
)
from rsocket_broker.routing.aside import LARGE
from rsocket_broker.routing.event_queue import EventQueue
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.router import Router
from rsocket_broker.routing.seat import Seat
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.rate import take_from_all
from rsocket_broker.tracing import MARK

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 64
MAX_REMEMBERED_SIZE = 512
"""Metadata that a session's requests repeat, and its longest: a client has a handful of routes. What is remembered of
one session is at most 32 KiB, and a client that never repeats itself only loses the short cut."""
EXCESSIVE = 5 * 1024 * 1024
"""Bytes of a message that are worth a warning: what Flipper's own server warns of."""

BEHIND = 128 * 1024 * 1024
"""Bytes of a large message that is being read and of what came behind it, together: two of the largest."""

BEHIND_UNVERIFIED = 16 * 1024 * 1024
"""The same for a client that has proved nothing, whose messages are smaller."""

NOT_JSON = "{} answers in bytes that are not JSON: ask by route."
NO_SESSION = "There is no session."
TOO_OFTEN = "This session, or one above it, has asked more often than it may. Try again in a second."


def _unknown(value: object, text: bytes, size: int) -> None:
    """Stands where no shortcut is known; never called."""


NOTHING_YET: tuple[bytes, Callable[[object, bytes, int], None]] = (b"\0", _unknown)
"""No JSON text begins so."""


class Ready(NamedTuple):
    """A large message that was read: what takes it, with what."""

    host: PluginHost
    handler: Handler
    arguments: Arguments


NO_QUESTION: tuple[bytes, Shortcut, str, str] = (b"\0", lambda data: None, "", "")


class Admission(Protocol):
    """The endpoint that a responder belongs to, as the responder needs it."""

    router: Router
    setups: Counter[str]

    def admit(self, connection: Line, setup: SetupReceived | Claims) -> Session: ...

    def resume(self, door: Connection, resume: ResumeReceived) -> None: ...

    def leave(self, session: Session, error: ConnectionClosed) -> None: ...


class SecureResponder:
    """The Responder of one connection.

    The first request with some metadata is looked up; what answers it is remembered under these very bytes, since
    clients send the same metadata over and over. Nothing is remembered while somebody follows the messages.
    """

    def __init__(self, endpoint: Admission) -> None:
        self._endpoint = endpoint
        self._session: Session | None = None
        self._gave_line_away = False
        self._shortcuts = Shortcuts()
        self._asked: dict[tuple[object, object], Callable[[object], bytes | Payload]] = {}
        self._told: dict[tuple[object, object], Callable[[object, int], None]] = {}
        """What answers, and takes, the methods that an app has named in JSON: by plugin and method."""
        self._envelopes: dict[bytes, Callable[[object, bytes, int], None]] = {}
        """What takes events, by their text up to the parameters."""
        self._questions: dict[bytes, tuple[bytes, Shortcut, str, str]] = {}
        """What answers questions, by their text from behind the number to the parameters."""
        self._usual_question = NO_QUESTION
        self._looked_at: set[bytes] = set()
        """Texts that were learned, or cannot be."""
        self._usual = NOTHING_YET
        """What the last event began with, and what took it."""
        self._behind: EventQueue[Payload] | None = None
        """A large message that is being read, and what came behind it; None mostly."""

    @property
    def session(self) -> Session | None:
        """The session, once the client was let in."""
        return self._session

    def setup(self, connection: Line, setup: SetupReceived | Claims) -> None:
        """Lets the client in, or raises SetupRefused. Where there is no SETUP, its claims stand for it."""
        session = self._endpoint.admit(connection, setup)
        self._shortcuts = connection.shortcuts
        session.changed = self._forget
        self._session = session
        session.start()

    def resume(self, door: Connection, resume: ResumeReceived) -> None:
        """As `Resumer`: the session that this is for goes on over the line of our connection, which ends."""
        self._gave_line_away = True
        try:
            self._endpoint.resume(door, resume)
        except BaseException:
            self._gave_line_away = False
            raise

    def closed(self, error: ConnectionClosed) -> None:
        session, self._session = self._session, None
        self._forget()
        if session is not None:
            self._endpoint.leave(session, error)
        elif not self._gave_line_away:
            self._endpoint.setups[_code_name(error.code)] += 1

    # --- request-response --------------------------------------------------------------------------------------------

    def request_response(self, payload: Payload) -> Payload | Awaitable[Payload]:
        session = self._live()
        if self._is_json(session, payload):
            return self._answer_json(session, payload)
        host, name = self._place(session, payload.metadata)
        waiting = session.access.check(Direction.IN, host.id, name)
        if waiting is None:
            return self._answer(session, host, name, payload)
        return self._answer_later(waiting, session, host, name, payload)

    async def _answer_later(
        self, waiting: Waiting, session: Session, host: PluginHost, name: str, payload: Payload
    ) -> Payload:
        await waiting.over()
        answer = self._answer(session, host, name, payload)
        return answer if isinstance(answer, Payload) else await answer

    def _answer(self, session: Session, host: PluginHost, name: str, payload: Payload) -> Payload | Awaitable[Payload]:
        """Of a request that is allowed."""
        seat = session.seat(host)
        answer = seat.answers(name)
        if session.observed:
            session.note("in", Model.RESPONSE.value, host.id, name, len(payload.data or b""), payload.data)
        if session.tracing is not None:
            return session.tracing.answer(host.id, name, answer, payload)
        metadata = payload.metadata
        if (
            type(metadata) is bytes
            and metadata not in self._shortcuts.calls
            and self._may_remember(session, seat, metadata)
            and session.access.is_fixed(Direction.IN, host.id, name)
        ):
            self._shortcuts.calls[metadata] = seat.shortcut(name, metadata)
        return answer(payload)

    async def _answer_json(self, session: Session, payload: Payload) -> Payload:
        """An app asks in Flipper's way, and gets its answer in that way, an error included."""
        try:
            if len(payload.data or b"") > LARGE:
                return Payload(await self._answer_large(session, payload), None)
            message = flipper.asked(payload.data)
            if isinstance(message, flipper.Execute):
                return Payload(await self._execute(session, message, len(payload.data or b"")), None)
            self._take_in(session, message, payload)
            return Payload(flipper.success({}), None)
        except RequestFailed as error:
            return Payload(flipper.refusal(error.public, type(error).__name__), None)

    async def _execute(self, session: Session, message: flipper.Execute, size: int) -> bytes:
        session.note("in", Model.RESPONSE.value, message.plugin, message.method, size, message.params)
        host = self._host(message.plugin)
        waiting = session.access.check(Direction.IN, host.id, message.method)
        if waiting is not None:
            await waiting.over()
        seat = session.seat(host)
        fixed = session.access.is_fixed(Direction.IN, host.id, message.method)
        if fixed and self._may_remember(session, seat, b""):
            shortcut = seat.json_shortcut(message.method)
            if shortcut is not None:
                self._asked[message.plugin, message.method] = shortcut
                self._shortcuts.calls[None] = self._answer_json_at_once
        work = seat.answer_json(message.method, message.params)
        if session.tracing is not None:
            work = session.tracing.awaited(message.plugin, message.method, work)
        answer = await work
        if len(answer.data or b"") <= LARGE:
            return _success(message.plugin, message.method, answer)
        return await self._success_apart(message.plugin, message.method, answer)

    async def _success_apart(self, plugin: str, method: str, answer: Payload) -> bytes:
        data = bytes(answer.data or b"")
        if not await is_json(self._endpoint.router.aside, data):
            raise Invalid(NOT_JSON.format(f"{plugin}.{method}"))
        return flipper.success_in(data)

    async def _answer_large(self, session: Session, payload: Payload) -> bytes:
        """The same for a question that is read beside the loop. Raises RequestFailed."""
        found = await self._read_large(session, bytes(payload.data or b""), Model.RESPONSE)
        if not isinstance(found, Ready):
            self._take_in(session, found, payload)
            return flipper.success({})
        work: Awaitable[Payload] = session.seat(found.host).answer_ready(found.handler, found.arguments)
        if session.tracing is not None:
            work = session.tracing.awaited(found.host.id, found.handler.name, work)
        return await self._success_apart(found.host.id, found.handler.name, await work)

    async def _read_large(self, session: Session, data: bytes, model: Model) -> Ready | flipper.Message:
        """A large message: what it is for, with its parameters made arguments, beside the loop. Raises RequestFailed.

        Where the ends of its text say what it is for, nothing is parsed for a plugin that is not here or not allowed.
        """
        aside, found = self._endpoint.router.aside, flipper.parted(data)
        if found is not None and found.numbered and model is Model.FIRE:
            return flipper.Ignored()
        if found is not None:
            host, handler = await self._find_large(session, found.plugin, found.method, model, len(data))
            with suppress(JsonError):  # then the whole is parsed: it may be JSON all the same, or says where it is not
                return Ready(host, handler, await arguments_of_text(aside, handler, found.params))
        message = await message_in(aside, data, flipper.one_way_of if model is Model.FIRE else flipper.message_of)
        if not isinstance(message, flipper.Execute):
            return message
        host, handler = await self._find_large(session, message.plugin, message.method, model, len(data))
        return Ready(host, handler, await arguments_of_value(aside, handler, message.params))

    async def _find_large(
        self, session: Session, plugin: str, method: str, model: Model, size: int
    ) -> tuple[PluginHost, Handler]:
        session.note("in", "event" if model is Model.FIRE else model.value, plugin, method, size)
        host = self._host(plugin)
        waiting = session.access.check(Direction.IN, host.id, method)
        if waiting is not None:
            await waiting.over()
        return host, session.seat(host).json_handler(method, model)

    def _answer_json_at_once(self, data: bytes) -> object:
        """The shortcut for `_answer_json`, which does whatever is not known here.

        Of a question too only the parameters are parsed where the rest, but for its number, is known.
        """
        begin = flipper.number_ends(data)
        question = self._usual_question
        if begin < 0 or not data.startswith(question[0], begin):
            if len(data) > LARGE:
                return self._answer_known(data)
            question = self._questions.get(data[begin : flipper.parameters_begin(data)], NO_QUESTION)
        if question is NO_QUESTION or begin < 0 or not data.endswith(b"}}") or len(data) > LARGE:
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
        return flipper.refusal(answer.public, type(answer).__name__)

    def _answer_known(self, data: bytes) -> object:
        """A question whose plugin and method may be known, but not the way in which it is written."""
        try:
            if len(data) > LARGE:
                return self._answer_json(self._live(), Payload(data, None))
        except RequestFailed as error:
            return error
        try:
            message: Any = parse_bytes(data)
            asked = message["params"]
            plugin, method, params = asked["api"], asked["method"], asked["params"]
            answers = self._asked[plugin, method]
            known = message["method"] == "execute"
        except (JsonError, KeyError, TypeError):
            known = False
        if not known:
            try:
                return self._answer_json(self._live(), Payload(data, None))
            except RequestFailed as error:
                return error
        begin = flipper.number_ends(data)
        if begin >= 0:
            self._learn_question(data[begin : flipper.parameters_begin(data)])
        try:
            answer = answers({} if params is None else params)
            return flipper.success_in(answer) if isinstance(answer, bytes) else _success(plugin, method, answer)
        except RequestFailed as error:
            return flipper.refusal(error.public, type(error).__name__)

    def _learn_question(self, text: bytes) -> None:
        """Remembers what answers questions that go on so behind their number, where that can be done in a hurry."""
        if text in self._questions or not self._may_learn(text, len(self._questions)):
            return
        found = flipper.envelope(b"{" + text[1:])
        if found is None or found not in self._asked or self._session is None:
            return
        plugin, method = found
        seat = self._session.seat(self._host(plugin))
        if seat.skims(method):
            self._questions[text] = text, seat.shortcut(method, b""), plugin, method

    def _may_learn(self, text: bytes, known: int) -> bool:
        """Whether to look if `text` can be learned, which is done once for each text."""
        full = known >= MAX_REMEMBERED or len(self._looked_at) >= MAX_REMEMBERED
        if full or len(text) > MAX_REMEMBERED_SIZE or text in self._looked_at:
            return False
        self._looked_at.add(text)
        return True

    # --- one way -----------------------------------------------------------------------------------------------------

    def fire_and_forget(self, payload: Payload) -> None:
        session, size = self._live(), len(payload.data or b"")
        if size > EXCESSIVE:
            words = "%s (%s) sends messages of %d bytes, which cost it and us time: fewer or smaller ones do both good"
            session.log.write(logging.WARNING, "huge messages", words, session.id, session.identity.app_id, size)
        if self._behind is not None or size > LARGE:
            self._put_behind(session, payload)
        else:
            self._fire_now(session, payload)

    def _put_behind(self, session: Session, payload: Payload) -> None:
        """A large message, or one that came while such a one is being read: they keep their order."""
        if self._behind is None:
            self._forget()  # what is remembered leads past those that wait
            label = f"{session.id}, behind a large one,"
            most = BEHIND if session.identity.principal.certified else BEHIND_UNVERIFIED
            self._behind = EventQueue(label, self._take_behind, session.tasks, most=most)
            self._behind.open(served=True)
        self._behind.put(payload, len(payload.data or b""))

    async def _take_behind(self, payload: Payload) -> None:
        session, queue = self._session, self._behind
        try:
            if session is None or session.over:
                return
            if len(payload.data or b"") > LARGE:
                await self._take_large(session, payload)
            else:
                self._fire_now(session, payload)
        except RequestFailed as error:
            if session is not None:
                self._drop(session, error)
        finally:
            if queue is not None and not queue.load[0]:
                self._behind = None

    async def _take_large(self, session: Session, payload: Payload) -> None:
        """Raises RequestFailed."""
        size = len(payload.data or b"")
        if not self._is_json(session, payload):
            await self._fire_large(session, payload)
            return
        found = await self._read_large(session, bytes(payload.data or b""), Model.FIRE)
        if not isinstance(found, Ready):
            self._take_in(session, found, payload)
            return
        tracing, host, name = session.tracing, found.host, found.handler.name
        follow = None if tracing is None else tracing.fire(host.id, name, None)
        session.seat(host).event_ready(found.handler, found.arguments, size, follow)

    async def _fire_large(self, session: Session, payload: Payload) -> None:
        host, name = self._place(session, payload.metadata)
        session.note("in", Model.FIRE.value, host.id, name, len(payload.data or b""), None)
        waiting = session.access.check(Direction.IN, host.id, name)
        if waiting is not None:
            await waiting.over()
        handler = session.seat(host).handler(name, Model.FIRE)
        if not parses(handler):
            self._fire(session, host, name, payload)
            return
        arguments = await arguments_of_payload(self._endpoint.router.aside, handler, payload)
        tracing, size = session.tracing, len(payload.data or b"")
        follow = None if tracing is None else tracing.fire(host.id, name, payload.metadata)
        session.seat(host).event_ready(handler, arguments, size, follow)

    def _fire_now(self, session: Session, payload: Payload) -> None:
        try:
            if self._is_json(session, payload):
                self._take_in(session, flipper.one_way(payload.data), payload)
                return
            host, name = self._place(session, payload.metadata)
            session.note("in", Model.FIRE.value, host.id, name, len(payload.data or b""), payload.data)
            waiting = session.access.check(Direction.IN, host.id, name)
            if waiting is not None:
                self._later(session, waiting, partial(self._fire, session, host, name, payload))
            else:
                self._fire(session, host, name, payload)
        except RequestFailed as error:
            self._drop(session, error)

    def _fire(self, session: Session, host: PluginHost, name: str, payload: Payload) -> None:
        """A message with a route, which is allowed. Raises RequestFailed."""
        seat, tracing, metadata = session.seat(host), session.tracing, payload.metadata
        follow = None if tracing is None else tracing.fire(host.id, name, metadata)
        seat.fire(name, payload, follow=follow)
        known = metadata in self._shortcuts.fires or not session.access.is_fixed(Direction.IN, host.id, name)
        if type(metadata) is bytes and not known and self._may_remember(session, seat, metadata):
            self._shortcuts.fires[metadata] = seat.fire_shortcut(
                name, metadata, lambda data: self.fire_and_forget(Payload(data, metadata))
            )

    def _later(self, session: Session, waiting: Waiting, deliver: Callable[[], None]) -> None:
        """Delivers a message that nobody answers once it is allowed; those that wait keep their order."""

        def decided(refusal: Rejected | None) -> None:
            if self._session is not session:
                return
            try:
                if refusal is not None:
                    raise refusal
                deliver()
            except RequestFailed as error:
                self._drop(session, error)

        waiting.then(decided)

    def _take_in_at_once(self, data: bytes) -> None:
        """The shortcut for events of an app; `fire_and_forget` does whatever is not known here.

        Nearly all the text of an event is the same each time, so only its parameters are parsed where that is known.
        """
        text, deliver = self._usual
        if not data.startswith(text):
            if len(data) > LARGE:
                self._take_in_known(data)
                return
            text = data[: flipper.parameters_begin(data)]
            deliver = self._envelopes.get(text, _unknown)
            if deliver is not _unknown:
                self._usual = text, deliver
        if deliver is _unknown or not data.endswith(b"}}") or len(data) > SHORT:
            self._take_in_known(data)
            return
        params = data[len(text) : -2]
        try:
            value = skim(params)
        except ValueError:
            value = None
        if value is None:
            self._take_in_known(data)
        else:
            deliver(value, params, len(data))

    def _take_in_known(self, data: bytes) -> None:
        """An event whose plugin and method may be known, but not the way in which it is written."""
        if len(data) > LARGE:
            if self._session is not None and not self._session.over:
                self.fire_and_forget(Payload(data, None))
            return
        try:
            message: Any = parse_bytes(data)
            told = message["params"]
            params = told["params"]
            deliver = self._told[told["api"], told["method"]]
            known = message["method"] == "execute" and "id" not in message
        except (JsonError, KeyError, TypeError):
            known = False
        if known:
            self._learn(data[: flipper.parameters_begin(data)])
            deliver({} if params is None else params, len(data))
        elif self._session is not None and not self._session.over:
            self.fire_and_forget(Payload(data, None))

    def _learn(self, text: bytes) -> None:
        """Remembers what takes events that begin so, where they may be taken in a hurry."""
        if text in self._envelopes or not self._may_learn(text, len(self._envelopes)):
            return
        found = flipper.envelope(text)
        if found is None or found not in self._told or self._session is None:
            return
        plugin, method = found
        deliver = self._session.seat(self._host(plugin)).skimmed_shortcut(method)
        if deliver is not None:
            self._envelopes[text] = deliver

    def metadata_push(self, metadata: bytes) -> None:
        session = self._live()
        try:
            host, name = self._place(session, metadata)
            session.note("in", Model.PUSH.value, host.id, name, len(metadata))
            waiting = session.access.check(Direction.IN, host.id, name)

            def deliver() -> None:
                session.seat(host).fire(name, Payload(b"", metadata), Model.PUSH)

            if waiting is not None:
                self._later(session, waiting, deliver)
            else:
                deliver()
        except RequestFailed as error:
            self._drop(session, error)

    def _take_in(self, session: Session, message: flipper.Message, payload: Payload) -> None:
        """What an app tells us. Raises RequestFailed for an event that leads nowhere."""
        size = len(payload.data or b"")
        if isinstance(message, flipper.Execute):
            session.note("in", "event", message.plugin, message.method, size, message.params)
            waiting = session.access.check(Direction.IN, self._host(message.plugin).id, message.method)
            if waiting is not None:
                self._later(session, waiting, partial(self._event, session, message, size))
            else:
                self._event(session, message, size)
        elif isinstance(message, flipper.RefreshPlugins):
            session.note("in", "refreshPlugins", "", "", size)
            session.plugins.refresh()
        elif isinstance(message, flipper.ErrorReport):
            session.note("in", "error report", "", "", size, message.text)
            session.log.write(logging.WARNING, "reports", "%s reports an error: %r", session.id, message.text)
            session.plugins.app_errors.put(message, size)

    def _event(self, session: Session, message: flipper.Execute, size: int) -> None:
        """An event that is allowed. Raises RequestFailed."""
        seat, tracing = session.seat(self._host(message.plugin)), session.tracing
        follow = None if tracing is None else tracing.fire(message.plugin, message.method, None)
        seat.event(message.method, message.params, size, follow)
        fixed = session.access.is_fixed(Direction.IN, message.plugin, message.method)
        if fixed and self._may_remember(session, seat, b""):
            shortcut = seat.event_shortcut(message.method)
            if shortcut is not None:
                self._told[message.plugin, message.method] = shortcut
                self._shortcuts.fires[None] = self._take_in_at_once

    def _drop(self, session: Session, error: RequestFailed) -> None:
        """A bad message costs its sender that message, and us a line in the log."""
        session.log.write(logging.WARNING, "bad messages", "a message of %s was dropped: %s", session.id, error.public)

    # --- streams -----------------------------------------------------------------------------------------------------

    def request_stream(self, payload: Payload) -> AsyncIterator[Payload] | Iterator[Payload | bytes]:
        session = self._live()
        host, name = self._place(session, payload.metadata)
        session.note("in", Model.STREAM.value, host.id, name, len(payload.data or b""))
        waiting = session.access.check(Direction.IN, host.id, name)

        def begin() -> AsyncIterator[Payload] | Iterator[Payload | bytes]:
            answers = session.seat(host).streams(name, payload)
            if session.tracing is None:
                return answers
            return session.tracing.stream(host.id, name, Model.STREAM.value, payload.metadata, answers)

        return begin() if waiting is None else _begun_later(waiting, begin)

    def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncGenerator[Payload, None]:
        session = self._live()
        host, name = self._place(session, payload.metadata)
        session.note("in", Model.CHANNEL.value, host.id, name, len(payload.data or b""))
        waiting = session.access.check(Direction.IN, host.id, name)

        def begin() -> AsyncGenerator[Payload, None]:
            answers = session.seat(host).channels(name, payload, incoming)
            if session.tracing is None:
                return answers
            return session.tracing.stream(host.id, name, Model.CHANNEL.value, payload.metadata, answers)

        return begin() if waiting is None else _begun_later(waiting, begin)

    # --- where to ----------------------------------------------------------------------------------------------------

    def _live(self) -> Session:
        session = self._session
        if session is None:
            raise Invalid(NO_SESSION)
        if session.over:
            raise Rejected(session.over)
        if session.buckets and not take_from_all(session.buckets, monotonic()):
            raise Rejected(TOO_OFTEN)
        return session

    def _may_remember(self, session: Session, seat: Seat, metadata: bytes) -> bool:
        """Whether a shortcut may be kept under `metadata`. One that carries a trace context never comes again."""
        if session.observed or session.tracing is not None or not seat.ready or session.buckets:
            return False
        if self._behind is not None:
            return False
        if len(metadata) > MAX_REMEMBERED_SIZE or MARK in metadata:
            return False
        if len(self._shortcuts.calls) + len(self._shortcuts.fires) >= MAX_REMEMBERED:
            self._forget()
        return True

    def _forget(self) -> None:
        self._shortcuts.clear()
        self._asked.clear()
        self._told.clear()
        self._envelopes.clear()
        self._questions.clear()
        self._looked_at.clear()
        self._usual_question = NO_QUESTION
        self._usual = NOTHING_YET

    @staticmethod
    def _is_json(session: Session, payload: Payload) -> bool:
        """Flipper's SDKs declare `text/plain` metadata and send none; some of their kin send an empty one."""
        return session.speaks_json and (not payload.metadata or session.connection.metadata_mime != COMPOSITE)

    def _place(self, session: Session, metadata: Any) -> tuple[PluginHost, str]:
        """The plugin, and what is asked of it. Raises RequestFailed when the metadata leads nowhere."""
        if session.connection.metadata_mime != COMPOSITE:
            raise Invalid(f"The request has no route: SETUP must declare {COMPOSITE} as its metadata type.")
        return self._endpoint.router.resolve(first_tag(metadata) if metadata else None)

    def _host(self, plugin: str) -> PluginHost:
        host = self._endpoint.router.hosts.get(plugin)
        if host is None:
            raise Invalid(f'There is no plugin "{plugin[:100]}" here.')
        return host


async def _begun_later(
    waiting: Waiting, begin: Callable[[], AsyncIterator[Payload] | Iterator[Payload | bytes]]
) -> AsyncGenerator[Payload, None]:
    """A stream that begins once it is allowed."""
    await waiting.over()
    source = begin()
    async with aclosing(_each_of(source)) as payloads:
        async for payload in payloads:
            yield payload


async def _each_of(source: AsyncIterator[Payload] | Iterator[Payload | bytes]) -> AsyncGenerator[Payload, None]:
    try:
        async for payload in source if isinstance(source, AsyncIterator) else as_async(source):
            yield payload
    finally:
        await close_source(source)


def _code_name(code: int | None) -> str:
    """A code of a connection that never became a session, for people; peers may send us any number."""
    if code is None:
        return "gone"
    return ErrorCode(code).name.lower() if code in SETUP_ERRORS else "failed"


def _success(plugin: str, method: str, answer: Payload) -> bytes:
    """A handler's answer in Flipper's way. Raises Invalid when the handler has made its own, and it is no JSON."""
    try:
        return flipper.success(parse(answer.data) if answer.data else {})
    except JsonError:
        raise Invalid(NOT_JSON.format(f"{plugin}.{method}")) from None


def _success_or_refusal(plugin: str, method: str, answer: Payload) -> bytes:
    try:
        return _success(plugin, method, answer)
    except RequestFailed as error:
        return flipper.refusal(error.public, type(error).__name__)


def _is_object(params: bytes) -> bool:
    """Whether the text is JSON that may have gone to a handler, or been refused by the look of it."""
    try:
        return parse_bytes(params) is not None
    except JsonError:
        return False
