"""The parts of a broker that keep its clients' certificates good, put together."""

import asyncio
import logging
from collections.abc import Collection, Mapping

from rsocket_broker.authority import Authority
from rsocket_broker.enrollment.containers import NO_RENEWAL
from rsocket_broker.enrollment.delivery import Delivery
from rsocket_broker.errors import ConnectionClosed
from rsocket_broker.lifecycle.identity_plugin import IdentityPlugin
from rsocket_broker.lifecycle.pushing import Pusher
from rsocket_broker.lifecycle.renewal import Renewer
from rsocket_broker.lifecycle.spreading import ClientSpreader
from rsocket_broker.moments import utc_now
from rsocket_broker.routing.endpoint import SecureEndpoint
from rsocket_broker.routing.session import Session

log = logging.getLogger(__name__)


class Upkeep:
    """Made before the endpoint, which is given `plugin`; then `serve`, and `start` once clients may come."""

    def __init__(self, authority: Authority, delivery: Delivery) -> None:
        self._containers = containers = delivery.containers
        self._endpoint: SecureEndpoint | None = None
        self._task: asyncio.Task[None] | None = None
        self.plugin = IdentityPlugin(authority, containers, self._find, self._served)
        pusher = Pusher(authority, containers, self.plugin.expecting)
        self._renewer = renewer = Renewer(authority, delivery, lambda: self.spreader.live_serials(), now=utc_now)
        self.spreader = ClientSpreader(
            authority, containers, renewer, pusher, lambda: self._served().sessions, now=utc_now
        )
        """What a rotation is brought to the clients with."""

    def serve(self, endpoint: SecureEndpoint) -> None:
        """These are the clients."""
        self._endpoint = endpoint
        endpoint.watchers.append(self.spreader.came)

    def start(self) -> None:
        """From now on whoever comes, and whatever is due, is seen to."""
        self._task = asyncio.create_task(self.spreader.run(), name="upkeep of certificates")
        self._task.add_done_callback(_log_failure)

    def describe(self, session: Session) -> Mapping[str, object]:
        """What `clients show` tells of the renewal of a session's certificate, as JSON. Reads one row."""
        serial = session.identity.serial
        kept = self._containers.by_serial([serial]).get(serial)
        by_session = session.claims.identity and not session.is_child
        return {"renews_over_session": by_session, **(NO_RENEWAL if kept is None else kept.describe())}

    def renewals(self) -> Mapping[tuple[str, str], int]:
        """How many tries to renew clients' certificates there were, by the way that each went and what came of it."""
        ways = {"session": self.plugin.results, "container": self._renewer.results}
        return {(way, result): count for way, results in ways.items() for result, count in results.items()}

    async def reachable(self, mediums: Collection[str]) -> None:
        """A device is back, which drivers of these names could not reach."""
        await self.spreader.reachable(mediums)

    async def stop(self) -> None:
        """Begins nothing more. What has been begun is waited for by `Delivery.drain`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _served(self) -> SecureEndpoint:
        assert self._endpoint is not None
        return self._endpoint

    def _find(self, session_id: str) -> Session:
        found = self._served().sessions.get(session_id)  # by its id alone: an app may be called like the id of another
        if found is None or found.over:
            raise ConnectionClosed("The session has ended.")
        return found


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s has failed: certificates are not renewed any more", task.get_name(), exc_info=error)
