"""Errors that an app reports outside any request, on their way to the plugins that want to hear of them."""

import logging
from collections.abc import Callable, Sequence

from rsocket_broker.errors import RequestFailed
from rsocket_broker.quota import Holding
from rsocket_broker.routing.event_queue import EventQueue
from rsocket_broker.routing.flipper import ErrorReport
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.seat import Seat
from rsocket_broker.routing.tasks import Tasks

logger = logging.getLogger(__name__)


class AppErrors:
    """Of one session: one report after the other, as many as may wait as of any plugin's events."""

    def __init__(
        self,
        label: str,
        hosts: Sequence[PluginHost],
        seat: Callable[[PluginHost], Seat],
        may_talk: Callable[[str], bool],
        tasks: Tasks,
        holding: Holding | None = None,
    ) -> None:
        """`hosts` want to hear; `may_talk` says of a plugin whether the policy lets the app talk to it; `holding` is
        that of the line."""
        self._hosts = hosts
        self._seat = seat
        self._may_talk = may_talk
        self._queue = EventQueue[ErrorReport](f"error reports from {label}", self._tell, tasks, holding=holding)
        self._queue.open(served=bool(hosts))

    def put(self, report: ErrorReport, size: int) -> None:
        """`size` is that of the message, in bytes."""
        self._queue.put(report, size)

    def close(self) -> None:
        """The session has ended."""
        self._queue.close()

    async def _tell(self, report: ErrorReport) -> None:
        for host in self._hosts:
            if not self._may_talk(host.id):
                continue
            try:
                await self._seat(host).told(report.text, report.stack)
            except RequestFailed as error:
                logger.debug("%s was not told of an error: %s", host.id, error.public)
