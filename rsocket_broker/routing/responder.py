"""What answers on one connection of the secure port: takes each message to the plugin it is for.

A message is JSON of Flipper's when the client said that it speaks that and sends no metadata; else it has a route.

reception   where a request goes, and whether        routing/reception.py
learned     the shortcuts for what repeats           routing/learned.py
intake      what is told                             routing/intake.py
questions   what is asked in Flipper's JSON          routing/questions.py
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Protocol

from rsocket_broker.claims import Claims
from rsocket_broker.connection import Connection
from rsocket_broker.errors import ConnectionClosed, RequestFailed
from rsocket_broker.flow import as_async, close_source
from rsocket_broker.line import Line
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.handlers import Model
from rsocket_broker.policy.rules import Direction
from rsocket_broker.protocol.codes import SETUP_ERRORS, ErrorCode
from rsocket_broker.protocol.events import ResumeReceived, SetupReceived
from rsocket_broker.routing.access import Waiting
from rsocket_broker.routing.intake import Intake
from rsocket_broker.routing.learned import Learned
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.questions import Questions
from rsocket_broker.routing.reception import Reception, is_flippers
from rsocket_broker.routing.router import Router
from rsocket_broker.routing.session import Session


class Admission(Protocol):
    """The endpoint that a responder belongs to, as the responder needs it."""

    router: Router
    setups: Counter[str]

    def admit(self, connection: Line, setup: SetupReceived | Claims) -> Session: ...

    def resume(self, door: Connection, resume: ResumeReceived) -> None: ...

    def leave(self, session: Session, error: ConnectionClosed) -> None: ...


class SecureResponder:
    """The Responder of one connection."""

    def __init__(self, endpoint: Admission) -> None:
        self._endpoint = endpoint
        self._reception = Reception(endpoint.router)
        self.learned = Learned(self._ask, self._tell)
        intake = Intake(self._reception, self.learned)
        self._questions = Questions(self._reception, self.learned, intake)
        self._gave_line_away = False
        self.fire_and_forget = intake.fire_and_forget
        self.metadata_push = intake.metadata_push

    @property
    def session(self) -> Session | None:
        """The session, once the client was let in."""
        return self._reception.session

    def setup(self, connection: Line, setup: SetupReceived | Claims) -> None:
        """Lets the client in, or raises SetupRefused. Where there is no SETUP, its claims stand for it."""
        session = self._endpoint.admit(connection, setup)
        self.learned.shortcuts = connection.shortcuts
        session.changed = self.learned.forget
        self._reception.session = session
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
        session, self._reception.session = self._reception.session, None
        self.learned.forget()
        if session is not None:
            self._endpoint.leave(session, error)
        elif not self._gave_line_away:
            self._endpoint.setups[_code_name(error.code)] += 1

    # --- request-response --------------------------------------------------------------------------------------------

    def request_response(self, payload: Payload) -> Payload | Awaitable[Payload]:
        session = self._reception.live()
        if is_flippers(session, payload):
            return self._questions.answer(session, payload)
        host, name = self._reception.place(session, payload.metadata)
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
        answer = seat.answers.to(name)
        if session.observed:
            session.note("in", Model.RESPONSE.value, host.id, name, len(payload.data or b""), payload.data)
        if session.tracing is not None:
            return session.tracing.answer(host.id, name, answer, payload)
        self.learned.call(session, seat, name, payload.metadata)
        return answer(payload)

    def _ask(self, data: bytes) -> object:
        """A question in Flipper's JSON that no shortcut was found for."""
        try:
            return self._questions.answer(self._reception.live(), Payload(data, None))
        except RequestFailed as error:
            return error

    def _tell(self, data: bytes) -> None:
        """An event in Flipper's JSON that no shortcut was found for."""
        session = self._reception.session
        if session is not None and not session.over:
            self.fire_and_forget(Payload(data, None))

    # --- streams -----------------------------------------------------------------------------------------------------

    def request_stream(self, payload: Payload) -> AsyncIterator[Payload] | Iterator[Payload | bytes]:
        session = self._reception.live()
        host, name = self._reception.place(session, payload.metadata)
        session.note("in", Model.STREAM.value, host.id, name, len(payload.data or b""))
        waiting = session.access.check(Direction.IN, host.id, name)

        def begin() -> AsyncIterator[Payload] | Iterator[Payload | bytes]:
            answers = session.seat(host).streams.stream(name, payload)
            if session.tracing is None:
                return answers
            return session.tracing.stream(host.id, name, Model.STREAM.value, payload.metadata, answers)

        return begin() if waiting is None else _begun_later(waiting, begin)

    def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncGenerator[Payload, None]:
        session = self._reception.live()
        host, name = self._reception.place(session, payload.metadata)
        session.note("in", Model.CHANNEL.value, host.id, name, len(payload.data or b""))
        waiting = session.access.check(Direction.IN, host.id, name)

        def begin() -> AsyncGenerator[Payload, None]:
            answers = session.seat(host).streams.channel(name, payload, incoming)
            if session.tracing is None:
                return answers
            return session.tracing.stream(host.id, name, Model.CHANNEL.value, payload.metadata, answers)

        return begin() if waiting is None else _begun_later(waiting, begin)


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
