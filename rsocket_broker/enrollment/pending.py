"""Exchanges that are under way, so that those of a client that is revoked meanwhile can be dropped and told why."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from rsocket_broker.errors import EnrollmentRefused
from rsocket_broker.identity import Principal


@attrs.define(slots=True, eq=False)
class Exchange:
    """One exchange: what is known of it by now. `serial` is that of the certificate once there is one."""

    app_id: str
    task: "asyncio.Task[Any]"
    principal: Principal | None = None
    serial: int | None = None
    refusal: EnrollmentRefused | None = None


class Pending:
    """The exchanges of one broker. Lives on the event loop."""

    def __init__(self) -> None:
        self._all: dict[Exchange, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    @contextlib.contextmanager
    def track(self, app_id: str) -> Iterator[Exchange]:
        """For the block in which the exchange is served, by the task that runs it. Raises the EnrollmentRefused with
        which it was dropped, in the place of whatever it would have come to."""
        task = asyncio.current_task()
        assert task is not None
        mine = Exchange(app_id, task)
        self._all[mine] = None
        try:
            yield mine
        except asyncio.CancelledError:
            if mine.refusal is None:
                raise
            task.uncancel()
            raise mine.refusal from None
        else:
            if mine.refusal is not None:  # it was done before it was told
                task.uncancel()
                raise mine.refusal
        finally:
            del self._all[mine]

    def drop(self, refusal: Callable[[Exchange], EnrollmentRefused | None]) -> int:
        """Ends every exchange for which `refusal` has one; what it has begun to deploy comes to its end by itself.

        Returns how many there were.
        """
        dropped = 0
        for exchange in list(self._all):
            if exchange.refusal is None and (found := refusal(exchange)) is not None:
                exchange.refusal = found
                exchange.task.cancel()
                dropped += 1
        return dropped
