"""One plugin in this broker: its routes, its places, its log, and what becomes of its errors."""

import logging
from types import TracebackType

from rsocket_broker.errors import ApplicationError, RequestFailed
from rsocket_broker.plugin_api.plugin import Plugin
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.routing.calls import Calls
from rsocket_broker.routing.gate import Gate
from rsocket_broker.routing.registry import LoadedPlugin
from rsocket_broker.routing.tasks import Tasks

logger = logging.getLogger(__name__)

_OURS = tuple(f"rsocket_broker/{package}/" for package in ("routing", "plugin_api"))


class PluginHost:
    """One plugin in this broker. `tasks` runs what outlives a session: the farewells."""

    def __init__(self, loaded: LoadedPlugin, tasks: Tasks) -> None:
        self.id = loaded.id
        self.origin = loaded.origin
        self.plugin: Plugin = loaded.plugin
        self.routes = loaded.routes
        self.gate = Gate(loaded.id, loaded.plugin.concurrency)
        self.tasks = tasks
        self.log = QuietLog(logger)
        self.calls = Calls()
        """What clients ask of the plugin."""
        self.app_calls = Calls()
        """What is asked of its side in the apps."""
        self.events_dropped = 0

    def lost(self, events: int) -> None:
        """So many found their queue full."""
        self.events_dropped += events

    def greets(self) -> bool:
        """Whether the author wrote an on_connect."""
        return type(self.plugin).on_connect is not Plugin.on_connect

    def failed(self, what: str, error: BaseException) -> RequestFailed:
        """The error that the peer gets. Words meant for it go out; anything else is logged here, and only here."""
        if isinstance(error, RequestFailed):
            return error
        place = (type(error), error, own_frames(error.__traceback__))
        self.log.write(logging.ERROR, what, "%s failed", what, error=place)
        return ApplicationError(f"internal error in {what}")


def own_frames(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not the broker's; the whole when there is no such frame."""
    at = traceback
    while at is not None:
        if not any(ours in at.tb_frame.f_code.co_filename for ours in _OURS):
            return at
        at = at.tb_next
    return traceback
