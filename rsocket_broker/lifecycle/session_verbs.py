"""What the operator does with the tree of sessions: look at it, cut it, and add to it."""

import asyncio
from collections.abc import Mapping
from time import perf_counter

from rsocket_broker.admin.endpoint import Params, Stream, Verb
from rsocket_broker.errors import ApplicationError
from rsocket_broker.lifecycle.sessions_plugin import describe_ended
from rsocket_broker.moments import timestamp, utc_now
from rsocket_broker.routing.children import Children
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.live import LiveSessions
from rsocket_broker.sessions.login import describe_node, parse_wish
from rsocket_broker.sessions.store import Record
from rsocket_broker.sessions.tree import Node

BY_OPERATOR = "the operator ended it"
USER_LOGGED_OUT = "its user was logged out by the operator"
CLOSED_WITHIN = 5.0
"""Seconds for the lines of sessions that were ended to be gone; they are cut long before."""


def session_verbs(children: Children, sessions: LiveSessions[Session]) -> dict[str, Verb | Stream]:
    """The part of AdminEndpoint's table that is about sessions."""
    verbs = _Sessions(children, sessions)
    return {
        "sessions.list": Verb(verbs.show, {}, {"all": object}),
        "sessions.login": Verb(verbs.login, {"parent": str, "wish": dict}),
        "sessions.revoke": Verb(verbs.revoke, {}, {"id": str, "user": str}),
    }


class _Sessions:
    def __init__(self, children: Children, sessions: LiveSessions[Session]) -> None:
        self._children = children
        self._sessions = sessions

    async def show(self, params: Params) -> list[Mapping[str, object]]:
        """The live sessions, parents before their children; with `all` those too that have ended, before them."""
        tree = self._children.tree
        live: list[Mapping[str, object]] = [self._live(node) for node in tree]
        store = self._children.store
        if params.get("all") is not True or store is None:
            return live
        return [_gone(record) for record in await asyncio.to_thread(store.ended)] + live

    async def login(self, params: Params) -> dict[str, object]:
        """Raises ApplicationError for a session that is not there, or a wish that cannot be granted, Invalid."""
        node, token = await self._children.login(self._find(params["parent"]).id, parse_wish(params["wish"], utc_now()))
        return {**self._live(node), "token": token}

    async def revoke(self, params: Params) -> dict[str, object]:
        """A receipt: what has ended, and how long it took. Nothing is served for it when this returns."""
        began = perf_counter()
        user = params.get("user")
        if (user is None) == ("id" not in params):
            raise ApplicationError("Name a session, or a user.")
        nodes = [self._find(params["id"])] if user is None else self._children.tree.of_user(user)
        if not nodes:
            raise ApplicationError(f"No session belongs to the user {user}.")
        reason = BY_OPERATOR if user is None else USER_LOGGED_OUT
        ended = [self._children.end(node.id, reason) for node in nodes]
        served_until = perf_counter() - began
        lines = [line for each in ended for line in each.lines]
        closing = [asyncio.ensure_future(line.connection.wait_closed()) for line in lines]
        if closing:
            await asyncio.wait(closing, timeout=CLOSED_WITHIN)
        return {
            "sessions": [node.id for each in ended for node in each.nodes],
            "lines": len(lines),
            "streams": sum(each.streams for each in ended),
            "refused_after_ms": round(served_until * 1000, 3),
            "closed_after_ms": round((perf_counter() - began) * 1000, 3),
        }

    def _find(self, spec: str) -> Node:
        """By the id of its node or its line, or as `app_id[@device_id]`. Raises ApplicationError."""
        node = self._children.tree.get(spec)
        if node is not None:
            return node
        if not self._sessions.named(spec, 1):
            raise ApplicationError(
                f"No session {spec!r} lives. See: rsocket-broker sessions list (--all shows those that have ended)"
            )
        return self._sessions.find(spec).node

    def _live(self, node: Node) -> dict[str, object]:
        lineage = self._children.tree.lineage(node.id)
        root = None if not lineage else self._children.line(lineage[-1].id)
        line = self._children.line(node.id)
        shown = describe_node(node)
        if line is not None and not line.is_child:
            shown |= {"name": line.claims.app, "device_id": line.identity.device_id, "platform": line.claims.os}
            ends = timestamp(line.identity.not_after)
            shown |= {"expires": ends if line.identity.principal.certified else None}
        return {
            **shown,
            "client": "" if root is None else str(root.identity.principal),
            "line": None if line is None else line.id,
            "address": None if line is None else line.connection.peer.address,
            "ended": None,
            "reason": None,
        }


def _gone(record: Record) -> Mapping[str, object]:
    shown = describe_ended(record)
    del shown["active"]
    return {**shown, "client": record.principal, "line": None, "address": None}
