"""Keeps the policy of a running broker: reads its files at the start, and again when they change.

A file that has changed is read once it has stayed as it is for a second, so that one that is being written is let be.
A policy with a fault does not start a broker; a running one keeps what it has, and says so until that is mended: in the
log, the audit, the metrics, `policy status` and `doctor`.
"""

import asyncio
import logging
from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rsocket_broker.admin.endpoint import Params, Stream, Verb
from rsocket_broker.audit import Audit, Event
from rsocket_broker.errors import BrokerError, Invalid, RequestFailed
from rsocket_broker.moments import timestamp
from rsocket_broker.policy.rules import Direction
from rsocket_broker.routing.access import Access, recorded
from rsocket_broker.routing.endpoint import SecureEndpoint
from rsocket_broker.routing.policy_files import Loaded, PolicyFiles
from rsocket_broker.routing.tasks import Tasks
from rsocket_broker.sessions.scope import allows

LOOK_EVERY = 1.0
"""Seconds between two looks at the files' times: three calls of the system, and soon enough for an operator."""

if TYPE_CHECKING:
    from rsocket_broker.routing.hook import Hook

_log = logging.getLogger(__name__)


class PolicyKeeper:
    """One per broker. `access` is what enforces the policy."""

    def __init__(self, files: PolicyFiles, given: Collection[str], audit: Audit) -> None:
        """`given` are the ids of plugins named by `--plugin`. Raises ConfigurationError or HomeError for a fault."""
        self._files = files
        self._audit = audit
        self._stamp = files.stamp()
        self._seen = self._stamp
        self._loaded = files.read()
        self._since = datetime.now(UTC)
        self.access = Access(self._loaded.policy, given=given, hook=_hook_of(self._loaded), note=audit.note)
        self._endpoint: SecureEndpoint | None = None
        self._reloading = asyncio.Lock()
        self._tasks = Tasks()
        self._timer: asyncio.TimerHandle | None = None
        audit.note(Event.POLICY, outcome="in force", layers=self._loaded.digests)

    def start(self, endpoint: SecureEndpoint) -> None:
        """From now on the files are looked at, and changes are applied to the sessions of `endpoint`."""
        self._endpoint = endpoint
        self._look_later()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tasks.cancel()
        self.access.tasks.cancel()

    def reload_soon(self) -> None:
        """For a signal: as `reload`."""
        self._tasks.spawn(self.reload())

    async def reload(self) -> dict[str, object]:
        """Reads the files now, and applies what has changed. Says as `describe` how it stands then."""
        async with self._reloading:
            stamp = self._files.stamp()
            try:
                loaded = await asyncio.to_thread(self._files.read)
            except BrokerError as error:
                self._refuse(error)
            else:
                await self._apply(loaded)
            self._stamp = self._seen = stamp
        return self.describe()

    def describe(self) -> dict[str, object]:
        """What is in force, since when, and what is wrong with the files if something is."""
        return {
            "since": timestamp(self._since),
            "problem": self.access.problem or None,
            "allow_relay": self._files.allow_relay,
            "hook": None if self._loaded.hook is None else self._loaded.hook.url,
            "layers": [
                {
                    "layer": layer.level.value,
                    "source": layer.source,
                    "rules": len(layer.rules),
                    "digest": layer.digest,
                }
                for layer in self._loaded.policy.layers
            ],
        }

    def verbs(self) -> dict[str, Verb | Stream]:
        """What the command line may ask."""
        return {
            "policy.reload": Verb(lambda params: self._reload_for_operator()),
            "policy.status": Verb(lambda params: self.describe()),
            "policy.facts": Verb(self._facts, {"client": str, "direction": str}, {"method": str, "to": str}),
        }

    async def _reload_for_operator(self) -> dict[str, object]:
        described = await self.reload()
        await asyncio.to_thread(self._audit.flush)  # so that `audit list` shows it at once
        return described

    def _facts(self, params: Params) -> list[dict[str, object]]:
        """A call of a live session as rules see it: of its own node, and of each above it up to the root.

        Raises ApplicationError when the name fits no session, or several, Invalid for a direction that is none.
        """
        if self._endpoint is None or params["direction"] not in [each.value for each in Direction]:
            raise Invalid("direction must be in, out or relay")
        session, direction = self._endpoint.sessions.find(params["client"]), Direction(params["direction"])
        plugin, method = self._place(params.get("method", ""))
        if direction is Direction.RELAY:
            plugin, method = params.get("to", ""), ""
        found = []
        for node in session.lineage:
            facts = self.access.facts(session, node, direction, plugin, method)
            reached = direction is Direction.OUT or allows(node.scope, facts.method)
            found.append({**recorded(facts), "session": node.id, "in_scope": reached})
        return found

    def _place(self, route: str) -> tuple[str, str]:
        """Plugin and method of a route, also where no such plugin is here."""
        assert self._endpoint is not None
        try:
            host, name = self._endpoint.router.resolve(route)
        except RequestFailed:
            plugin, _, name = route.rpartition(".")
            return plugin, name
        return host.id, name

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        stamp = self._files.stamp()
        if stamp != self._stamp and stamp == self._seen and not self._reloading.locked():
            self.reload_soon()
        self._seen = stamp
        self._look_later()

    def _refuse(self, error: BrokerError) -> None:
        self.access.problem = error.public
        _log.error("the policy has changed and cannot be used, so the one before stays in force: %s", error.public)
        self._audit.note(Event.POLICY, outcome="refused", reason=error.public, layers=self._loaded.digests)

    async def _apply(self, loaded: Loaded) -> None:
        if self.access.problem:
            _log.info("the policy files are sound again")
        self.access.problem = ""
        if (loaded.digests, loaded.hook) == (self._loaded.digests, self._loaded.hook):
            return
        kept = self.access.hook if loaded.hook == self._loaded.hook else _hook_of(loaded)
        self._loaded, self._since = loaded, datetime.now(UTC)
        self.access.replace(loaded.policy, kept)
        self._audit.note(Event.POLICY, outcome="in force", layers=loaded.digests)
        if self._endpoint is not None:
            await self._endpoint.reapply()
        rules = sum(len(layer.rules) for layer in loaded.policy.layers)
        _log.info("another policy is in force, of %d rules in %d layers", rules, len(loaded.policy.layers))


def _hook_of(loaded: Loaded) -> "Hook | None":
    if loaded.hook is None:
        return None
    from rsocket_broker.routing.hook import Hook  # which few brokers have

    return Hook(loaded.hook)
