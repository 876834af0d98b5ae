"""What a client tells and waits for no answer to: messages with a route, events in Flipper's JSON, metadata pushed.

Messages of one client keep their order: those that come while a large one is being read wait behind it.
"""

import logging
from functools import partial
from typing import Final

from rsocket_broker.errors import RequestFailed
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.handlers import Model
from rsocket_broker.policy.rules import Direction
from rsocket_broker.quota import Kind
from rsocket_broker.routing import cost, flipper
from rsocket_broker.routing.apart import arguments_of_payload, parses
from rsocket_broker.routing.aside import BRIEF, is_large
from rsocket_broker.routing.event_queue import EventQueue
from rsocket_broker.routing.large import Ready, permitted, read_large
from rsocket_broker.routing.learned import Learned
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.reception import Reception, drop, is_flippers
from rsocket_broker.routing.session import Session

EXCESSIVE: Final = 5 * 1024 * 1024
"""Bytes of a message that are worth a warning: what Flipper's own server warns of."""
HUGE: Final = "%s (%s) sends messages of %d bytes, which cost it and us time: fewer or smaller ones do both good"

BEHIND: Final = 128 * 1024 * 1024
"""Bytes of a large message that is being read and of what came behind it, together: two of the largest."""
BEHIND_UNVERIFIED: Final = 16 * 1024 * 1024
"""The same for a client that has proved nothing, whose messages are smaller."""


class Intake:
    """Of one connection. What is wrong with a message is logged: its sender has no stream to be told on."""

    __slots__ = ("_behind", "_learned", "_reception")

    def __init__(self, reception: Reception, learned: Learned) -> None:
        self._reception = reception
        self._learned = learned
        self._behind: EventQueue[Payload] | None = None
        """A large message that is being read, and what came behind it; None mostly."""

    def fire_and_forget(self, payload: Payload) -> None:
        """As `Handlers`. Raises Invalid, Rejected."""
        session, size = self._reception.live(), len(payload.data or b"")
        if size > EXCESSIVE:
            session.log.write(logging.WARNING, "huge messages", HUGE, session.id, session.identity.app_id, size)
        if self._behind is not None or (size > BRIEF and is_large(payload.data or b"")):
            self._put_behind(session, payload)
        else:
            self._take(session, payload)

    def metadata_push(self, metadata: bytes) -> None:
        """As `Handlers`. Raises Invalid, Rejected."""
        session = self._reception.live()
        try:
            host, name = self._reception.place(session, metadata)
            session.note("in", Model.PUSH.value, host.id, name, len(metadata))
            waiting = session.access.check(Direction.IN, host.id, name)

            def deliver() -> None:
                session.seat(host).events.fire(name, Payload(b"", metadata), Model.PUSH)

            if waiting is not None:
                self._reception.later(session, waiting, deliver)
            else:
                deliver()
        except RequestFailed as error:
            drop(session, error)

    def _take(self, session: Session, payload: Payload) -> None:
        try:
            if is_flippers(session, payload):
                self.message(session, flipper.one_way(payload.data), payload)
                return
            host, name = self._reception.place(session, payload.metadata)
            session.note("in", Model.FIRE.value, host.id, name, len(payload.data or b""), payload.data)
            waiting = session.access.check(Direction.IN, host.id, name)
            if waiting is not None:
                self._reception.later(session, waiting, partial(self._fire, session, host, name, payload))
            else:
                self._fire(session, host, name, payload)
        except RequestFailed as error:
            drop(session, error)

    def _fire(self, session: Session, host: PluginHost, name: str, payload: Payload) -> None:
        """A message with a route, which is allowed. Raises RequestFailed."""
        seat, tracing, metadata = session.seat(host), session.tracing, payload.metadata
        follow = None if tracing is None else tracing.fire(host.id, name, metadata)
        seat.events.fire(name, payload, follow=follow)
        self._learned.fire(session, seat, name, metadata, lambda data: self.fire_and_forget(Payload(data, metadata)))

    # --- Flipper's JSON ----------------------------------------------------------------------------------------------

    def message(self, session: Session, message: flipper.Message, payload: Payload) -> None:
        """What an app tells us. Raises RequestFailed for an event that leads nowhere."""
        size = len(payload.data or b"")
        if isinstance(message, flipper.Execute):
            session.note("in", "event", message.plugin, message.method, size, message.params)
            host = self._reception.host(message.plugin)
            waiting = session.access.check(Direction.IN, host.id, message.method)
            if waiting is not None:
                self._reception.later(session, waiting, partial(self._event, session, host, message, size))
            else:
                self._event(session, host, message, size)
        elif isinstance(message, flipper.RefreshPlugins):
            session.note("in", "refreshPlugins", "", "", size)
            session.plugins.refresh()
        elif isinstance(message, flipper.ErrorReport):
            session.note("in", "error report", "", "", size, message.text)
            session.log.write(logging.WARNING, "reports", "%s reports an error: %r", session.id, message.text)
            session.plugins.app_errors.put(message, size)

    def _event(self, session: Session, host: PluginHost, message: flipper.Execute, size: int) -> None:
        """An event that is allowed. Raises RequestFailed."""
        seat, tracing = session.seat(host), session.tracing
        follow = None if tracing is None else tracing.fire(host.id, message.method, None)
        seat.events.event(message.method, message.params, size, follow)
        self._learned.event(session, seat, message.method)

    # --- large messages ----------------------------------------------------------------------------------------------

    def _put_behind(self, session: Session, payload: Payload) -> None:
        """A large message, or one that came while such a one is being read: they keep their order."""
        if self._behind is None:
            self._learned.forget()  # what is remembered leads past those that wait
            self._learned.paused = True
            label = f"{session.id}, behind a large one,"
            most = BEHIND if session.identity.principal.certified else BEHIND_UNVERIFIED
            holding = session.connection.holding
            self._behind = EventQueue(
                label, self._take_behind, session.tasks, most=most, holding=holding, kind=Kind.LARGE
            )
            self._behind.open(served=True)
        self._behind.put(payload, len(payload.data or b""))

    async def _take_behind(self, payload: Payload) -> None:
        session, queue = self._reception.session, self._behind
        try:
            if session is None or session.over:
                return
            data = payload.data or b""
            if len(data) > BRIEF and is_large(data):
                await self._take_large(session, payload)
            else:
                self._take(session, payload)
        except RequestFailed as error:
            if session is not None:
                drop(session, error)
        finally:
            if queue is not None and not queue.load[0]:
                self._behind, self._learned.paused = None, False

    async def _take_large(self, session: Session, payload: Payload) -> None:
        """Raises RequestFailed."""
        data = bytes(payload.data or b"")
        if not is_flippers(session, payload):
            await self._fire_large(session, payload)
            return
        taken = await self._cost(data)  # first: once it is read and judged, nothing may come in between
        found = await read_large(self._reception, session, data, Model.FIRE)
        if not isinstance(found, Ready):
            self.message(session, found, payload)
            return
        tracing, host, name = session.tracing, found.host, found.handler.name
        follow = None if tracing is None else tracing.fire(host.id, name, None)
        session.seat(host).events.arguments(found.handler, found.arguments, taken, follow)

    async def _fire_large(self, session: Session, payload: Payload) -> None:
        size = len(payload.data or b"")
        host, name = self._reception.place(session, payload.metadata)
        session.note("in", Model.FIRE.value, host.id, name, size, None)
        await permitted(session, host, name)
        session.seat(host)
        handler = host.routes.find(name, Model.FIRE)
        if not parses(handler):
            self._fire(session, host, name, payload)
            return
        taken = await self._cost(bytes(payload.data or b""))
        arguments = await arguments_of_payload(self._reception.router.aside, handler, payload)
        await permitted(session, host, name)
        tracing = session.tracing
        follow = None if tracing is None else tracing.fire(host.id, name, payload.metadata)
        session.seat(host).events.arguments(handler, arguments, taken, follow)

    async def _cost(self, text: bytes) -> int:
        """What it takes in memory, once it is parsed."""
        return await self._reception.router.aside.run(lambda turn: cost.of_text(text, turn))
