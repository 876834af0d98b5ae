"""What an app asks in Flipper's JSON: it gets its answer in that way, an error included."""

from collections.abc import Awaitable
from typing import Final

from rsocket_broker.errors import Invalid, RequestFailed
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.handlers import Model
from rsocket_broker.policy.rules import Direction
from rsocket_broker.routing import flipper
from rsocket_broker.routing.apart import fits, is_json
from rsocket_broker.routing.aside import BRIEF, is_large
from rsocket_broker.routing.intake import Intake
from rsocket_broker.routing.large import Ready, read_large
from rsocket_broker.routing.learned import Learned
from rsocket_broker.routing.reception import Reception
from rsocket_broker.routing.session import Session

DONE: Final = flipper.success({})
"""The answer to what is told in the way in which one asks."""


class Questions:
    """Of one connection."""

    __slots__ = ("_intake", "_learned", "_reception")

    def __init__(self, reception: Reception, learned: Learned, intake: Intake) -> None:
        self._reception = reception
        self._learned = learned
        self._intake = intake

    async def answer(self, session: Session, payload: Payload) -> Payload:
        """Raises nothing that is the app's business."""
        data = payload.data or b""
        try:
            if len(data) > BRIEF and is_large(data):
                return Payload(await self._answer_large(session, payload), None)
            message = flipper.asked(data)
            if isinstance(message, flipper.Execute):
                return Payload(await self._execute(session, message, len(data)), None)
            self._intake.message(session, message, payload)
            return Payload(DONE, None)
        except RequestFailed as error:
            return Payload(flipper.refused(error), None)

    async def _execute(self, session: Session, message: flipper.Execute, size: int) -> bytes:
        session.note("in", Model.RESPONSE.value, message.plugin, message.method, size, message.params)
        host = self._reception.host(message.plugin)
        waiting = session.access.check(Direction.IN, host.id, message.method)
        if waiting is not None:
            await waiting.over()
        seat = session.seat(host)
        self._learned.question(session, seat, message.method)
        work = seat.answers.to_json(message.method, message.params)
        if session.tracing is not None:
            work = session.tracing.awaited(message.plugin, message.method, work)
        answer = await work
        if fits(answer):
            return flipper.success_of(message.plugin, message.method, answer)
        return await self._success_apart(message.plugin, message.method, answer)

    async def _success_apart(self, plugin: str, method: str, answer: Payload) -> bytes:
        data = bytes(answer.data or b"")
        if not await is_json(self._reception.router.aside, data):
            raise Invalid(flipper.NOT_JSON.format(f"{plugin}.{method}"))
        return flipper.success_in(data)

    async def _answer_large(self, session: Session, payload: Payload) -> bytes:
        """The same for a question that is read beside the loop. Raises RequestFailed."""
        found = await read_large(self._reception, session, bytes(payload.data or b""), Model.RESPONSE)
        if not isinstance(found, Ready):
            self._intake.message(session, found, payload)
            return DONE
        work: Awaitable[Payload] = session.seat(found.host).answers.to_arguments(found.handler, found.arguments)
        if session.tracing is not None:
            work = session.tracing.awaited(found.host.id, found.handler.name, work)
        return await self._success_apart(found.host.id, found.handler.name, await work)
