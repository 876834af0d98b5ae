"""The plugin `sessions`: a client that has a session makes others below it, looks at them, and ends them.

    sessions.login        see `sessions/login.py` -> the new session, and its token, this once
    sessions.introspect   {} | {"id": ID} | {"token": TOKEN} -> the session itself, or one below it, live or ended
    sessions.logout       {} | {"id": ID} | {"user": NAME} -> {"ended": [ID]}; a user's sessions: those below this one

Who asks is the session on whose line the request has come. What is not below it does not exist for it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from rsocket_broker.enrollment.throttle import Rate, RateLimiter
from rsocket_broker.errors import ApplicationError, Invalid, Rejected
from rsocket_broker.moments import timestamp, utc_now
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.plugin import Plugin, method
from rsocket_broker.routing.children import Children
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.login import describe_node, parse_wish
from rsocket_broker.sessions.store import Record
from rsocket_broker.sessions.tree import Node

LOGGED_OUT = "it was logged out"
RATE = Rate(64, 2)
"""Sessions that one client makes: as many as one session has, then two a second in the long run. Each is written to the
disk, where everybody else's records wait for it."""

NOBODY = "There is no such session below this one."


class SessionsPlugin(Plugin):
    """One per broker. `find` gives a live session by its id, None where there is none."""

    id: ClassVar[str] = "sessions"

    def __init__(
        self,
        children: Children,
        find: Callable[[str], Session | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._children = children
        self._find = find
        self._clock = clock
        self._rates = RateLimiter(RATE)

    @method("login")
    async def login(self, app: App, params: dict[str, Any]) -> dict[str, object]:
        session = self._caller(app)
        wish = parse_wish(params, utc_now())
        if wait := self._rates.take(session.identity.principal, self._clock()):
            raise Rejected(f"{session.identity.principal} makes sessions too fast. Try again in {wait:.1f} seconds.")
        node, token = await self._children.login(session.node.id, wish)
        return {**self._live(node), "token": token}

    @method("introspect")
    def introspect(self, app: App, params: dict[str, Any]) -> dict[str, object]:
        session = self._caller(app)
        name, value = _one_of(params, "id", "token")
        if name is None:
            return self._live(session.node)
        node = self._children.tree.get(value) if name == "id" else self._children.holder(value.encode())
        if node is not None and self._is_below(node, session):
            return self._live(node)
        record = self._children.ended(value) if name == "id" else self._children.ended_by_token(value.encode())
        if record is None or session.node.id not in record.path:
            raise ApplicationError(NOBODY)
        return describe_ended(record)

    @method("logout")
    def logout(self, app: App, params: dict[str, Any]) -> dict[str, object]:
        session = self._caller(app)
        name, value = _one_of(params, "id", "user")
        if name == "user":
            mine = [node for node in self._children.tree.of_user(value) if self._is_below(node, session)]
            reason = "its user was logged out"
        else:
            node = session.node if name is None else self._children.tree.get(value)
            if node is None or not self._is_below(node, session):
                raise ApplicationError(NOBODY)
            mine, reason = [node], LOGGED_OUT
        ended = [each for node in mine for each in self._children.end(node.id, reason, answering=session).nodes]
        return {"ended": [node.id for node in ended]}

    def _caller(self, app: App) -> Session:
        session = self._find(app.id)
        if session is None or session.over:
            raise ApplicationError("The session has ended.")
        return session

    def _is_below(self, node: Node, session: Session) -> bool:
        """Or is the session's own."""
        return any(one.id == session.node.id for one in self._children.tree.lineage(node.id))

    def _live(self, node: Node) -> dict[str, object]:
        below = [child.id for child in self._children.tree.children(node.id)]
        connected = self._children.line(node.id) is not None
        return {"active": True, **describe_node(node), "connected": connected, "children": below}


def describe_ended(record: Record) -> dict[str, object]:
    """A session that has ended, as introspection and `sessions list --all --json` show it."""
    ended = None if record.ended is None else timestamp(record.ended)
    return {"active": False, **describe_node(record.node), "ended": ended, "reason": record.reason}


def _one_of(params: Mapping[str, Any], *names: str) -> tuple[str | None, str]:
    """The one parameter that was given, if any, and its text. Raises Invalid."""
    given = [name for name in params if params[name] is not None]
    for name in given:
        if name not in names or len(given) > 1 or not isinstance(params[name], str) or not params[name]:
            raise Invalid(f"This takes nothing, or one text: {' or '.join(names)}.")
    return (given[0], params[given[0]]) if given else (None, "")
