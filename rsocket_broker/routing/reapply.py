"""What becomes of a live session when the policy changes: what is not allowed any more ends, in so many words."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rsocket_broker.errors import Rejected, RequestFailed
from rsocket_broker.policy.rules import Direction
from rsocket_broker.routing.seat import Seat
from rsocket_broker.routing.session import Session


def reapply(session: Session) -> None:
    """Goes through all that the session has open. A suspended one too: it learns of it when it comes back.

    Raises RequestFailed or ConnectionClosed where its client cannot be told which plugins it loses or gets.
    """
    session.changed()
    seats = session.plugins.seats
    _end_what_is_refused(session, seats)
    # Requests that came just before have not taken their first step, and are not known before that.
    asyncio.get_running_loop().call_soon(_end_what_is_refused, session, seats)
    session.plugins.refit()


def running(seats: Mapping[str, Seat]) -> list[tuple[asyncio.Task[Any], str, str]]:
    """Requests of a client that are being served: by which task, plugin and method."""
    return [(task, plugin, name) for plugin, seat in seats.items() for task, name in seat.running.items()]


def _end_what_is_refused(session: Session, seats: Mapping[str, Seat]) -> None:
    for task, plugin, method in running(seats):
        _judge(session, Direction.IN, plugin, method, partial(_end_task, session, task))
    for answer, (plugin, method) in tuple(session.to_app.waiting.items()):
        _judge(session, Direction.OUT, plugin, method, partial(_end_call, answer))
    for stream, (plugin, method) in tuple(session.to_app.flows.items()):
        _judge(session, Direction.OUT, plugin, method, stream.fail)


def _judge(
    session: Session, direction: Direction, plugin: str, method: str, end: Callable[[RequestFailed], object]
) -> None:
    try:
        waiting = session.access.check(direction, plugin, method)
    except Rejected as refusal:
        end(refusal)
        return
    if waiting is not None:

        async def wait() -> None:
            try:
                await waiting.over()
            except Rejected as refusal:
                end(refusal)

        session.tasks.spawn(wait())


def _end_task(session: Session, task: asyncio.Task[Any], error: RequestFailed) -> None:
    session.connection.end_work({task: error})


def _end_call(answer: asyncio.Future[Any], error: RequestFailed) -> None:
    if not answer.done():
        answer.set_exception(error)
