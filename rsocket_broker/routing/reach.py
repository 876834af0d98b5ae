"""How a plugin comes from the client that asks it to the client that is asked about.

    caller ── Network.har {"client": "com.example.app"} ──> plugin ── App.reach ──> that client's App

What the caller needs is the right to the method, and the right to send requests to that client (direction `relay`): by
that it could ask the client itself. A refusal says no more than its sender needs, as with relays.
"""

import contextlib

from rsocket_broker.errors import Invalid, Rejected
from rsocket_broker.plugin_api.app import App
from rsocket_broker.policy.rules import Direction
from rsocket_broker.routing.relay import LOOKED_AT, SHOWN, may_reach, name_of
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.live import LiveSessions


class Reach:
    """Finds other clients for plugins. One per broker."""

    def __init__(self, sessions: LiveSessions[Session]) -> None:
        self._sessions = sessions

    async def __call__(self, caller: Session, plugin: str, client: str, method: str) -> App:
        """That client as the plugin sees it. Raises as `App.reach`."""
        await _allowed(caller, Direction.IN, plugin, method)
        other = self._find(caller, client)
        if other is not caller:
            await _allowed(caller, Direction.RELAY, name_of(other), "")
        return (await other.plugins.seat_of(plugin)).app

    def _find(self, caller: Session, client: str) -> Session:
        shown = client[:SHOWN]
        named = self._sessions.named(client, LOOKED_AT)
        found = [other for other in named if not other.over and may_reach(caller, other)]
        if not found:
            with contextlib.suppress(Rejected):
                for other in named[:1]:
                    caller.access.check(Direction.RELAY, name_of(other), "")  # which is recorded
            raise Rejected(f'No client "{shown}" is connected that this client may reach.')
        if len(found) > 1:
            raise Invalid(f'"{shown}" means more than one client: say <app id>@<device id>, or a session\'s id.')
        return found[0]


async def _allowed(caller: Session, direction: Direction, plugin: str, method: str) -> None:
    waiting = caller.access.check(direction, plugin, method)
    if waiting is not None:
        await waiting.over()
