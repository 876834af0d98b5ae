"""What the command line may ask of a running broker. Each verb is one small function over the broker's parts."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

from rsocket_broker.admin.endpoint import Kinds, Params, Stream, Verb
from rsocket_broker.errors import ApplicationError
from rsocket_broker.line import Line
from rsocket_broker.moments import timestamp
from rsocket_broker.plugin_api.plugin import Kind
from rsocket_broker.routing.registry import LoadedPlugin
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.live import LiveSessions
from rsocket_broker.spelling import nearest

TAIL_BACKLOG = 1000
"""Messages kept for a follower that reads slower than they come; the oldest are dropped, and counted for it."""
MAX_CALL_S = 3600.0
"""Longest that one call to an app may be asked to take."""

Status = Callable[[], Mapping[str, object]]


About = Callable[[Session], Mapping[str, object]]


def verbs(
    sessions: LiveSessions[Session],
    plugins: Sequence[LoadedPlugin],
    status: Status,
    about: About = lambda session: {},
    state_of: Callable[[str], Mapping[str, object]] = lambda plugin: {},
) -> dict[str, Verb | Stream]:
    """The table for AdminEndpoint. `status` gives what the broker says of itself, `about` what else there is to say of
    one client, `state_of` how a plugin does, all as JSON."""
    clients = _Clients(sessions, about)
    one: Kinds = {"client": str}
    return {
        "status": Verb(lambda params: status()),
        "plugins.list": Verb(lambda params: [{**describe_plugin(plugin), **state_of(plugin.id)} for plugin in plugins]),
        "plugins.schema": Verb(lambda params: _schema(plugins, params["plugin"]), {"plugin": str}),
        "clients.list": Verb(lambda params: [session.describe() for session in sessions]),
        "clients.show": Verb(clients.show, one),
        "clients.call": Verb(
            clients.call, {"client": str, "plugin": str, "method": str}, {"params": object, "timeout": (int, float)}
        ),
        "clients.kick": Verb(clients.kick, one, {"reason": str}),
        "clients.tail": Stream(clients.tail, one),
    }


def _schema(plugins: Sequence[LoadedPlugin], plugin: str) -> dict[str, object]:
    from rsocket_broker.plugin_api.schema import schema_of  # seldom asked for

    for one in plugins:
        if one.id == plugin:
            return schema_of(one.plugin)
    known = nearest(plugin, [one.id for one in plugins])
    raise ApplicationError(f'This broker has no plugin "{plugin[:100]}". {known}')


def describe_plugin(loaded: LoadedPlugin) -> dict[str, object]:
    """One plugin as `plugins list --json` shows it. A plugin that takes whatever comes lists nothing."""
    handlers = loaded.routes.handlers()
    return {
        "id": loaded.id,
        "methods": [handler.name for handler in handlers if handler.kind is Kind.METHOD],
        "events": [handler.name for handler in handlers if handler.kind is Kind.EVENT],
        "origin": loaded.origin,
        "via": loaded.via,
    }


def describe_connection(connection: Line) -> dict[str, object]:
    """What one connection has counted since it began, and how it stands now. Times in seconds."""
    relaying, pressure, holding = connection.relaying, connection.pressure, connection.holding
    quota = holding.quota
    return {
        "keepalive_seconds": connection.keepalive,
        "silent_seconds": round(connection.silence, 3),
        "resumable": connection.resumable,
        "times_resumed": connection.times_resumed,
        "bytes_in": connection.bytes_in,
        "bytes_out": connection.bytes_out,
        "frames_in": connection.frames_in,
        "frames_out": connection.frames_out,
        "requests_served": connection.requests_served,
        "streams_open": connection.streams_open,
        "streams_waiting": connection.streams_waiting,
        "bytes_waiting": connection.bytes_waiting,
        "bytes_held": holding.describe(),
        "identity_bytes_held": 0 if quota is None else quota.used,
        "identity_bytes": 0 if quota is None else quota.limit,
        "waits_for_room": holding.crowded,
        "stalled_seconds": round(pressure.stalled_seconds, 3),
        "fed_too_fast_by": sorted(pressure.feeders),
        "held_seconds": round(pressure.held_seconds, 3),
        "held_for": sorted(pressure.held_by),
        "requests_relayed": 0 if relaying is None else relaying.relayed,
        "relays_failed": 0 if relaying is None else relaying.relays_failed,
        "relays_with": sorted(connection.partners),
    }


class _Clients:
    """The verbs on one client. Each raises ApplicationError when the name of the client fits none, or several."""

    def __init__(self, sessions: LiveSessions[Session], about: About) -> None:
        self._sessions = sessions
        self._about = about

    def show(self, params: Params) -> dict[str, object]:
        session = self._sessions.find(params["client"])
        connection, peer = session.connection, session.connection.peer
        return session.describe() | {
            "kind": session.kind.value,
            "background_plugins": list(session.background),
            "address": peer.address,
            "tls": peer.tls_version,
            "alpn": peer.alpn,
            "key_fingerprint": session.identity.key_fingerprint,
            "certificate_until": _certificate_until(session),
            **self._about(session),
            **describe_connection(connection),
        }

    def call(self, params: Params) -> Awaitable[object]:
        session = self._sessions.find(params["client"])
        timeout = min(max(float(params.get("timeout", 30.0)), 0.0), MAX_CALL_S)
        return session.to_app.call(params["plugin"], params["method"], params.get("params"), timeout)

    async def kick(self, params: Params) -> dict[str, object]:
        session = self._sessions.find(params["client"])
        await session.connection.close(params.get("reason", "closed by the operator"))
        return {"id": session.id, "app_id": session.identity.app_id}

    def tail(self, params: Params) -> AsyncGenerator[object, None]:
        return follow(self._sessions.find(params["client"]))


def _certificate_until(session: Session) -> str | None:
    return timestamp(session.identity.not_after) if session.identity.principal.certified else None


async def follow(session: Session) -> AsyncGenerator[object, None]:
    """The session's messages until it ends. `{"dropped": N}` stands for N that the follower was too slow for."""
    waiting: deque[object] = deque(maxlen=TAIL_BACKLOG)
    news = asyncio.Event()
    dropped = 0

    def note(message: dict[str, object]) -> None:
        nonlocal dropped
        dropped += len(waiting) == TAIL_BACKLOG
        waiting.append(message)
        news.set()

    stop = session.followers.observe(note)
    over = asyncio.ensure_future(session.connection.wait_closed())
    over.add_done_callback(lambda _: news.set())
    try:
        while waiting or not over.done():
            if dropped:
                count, dropped = dropped, 0
                yield {"dropped": count}
            while waiting:
                yield waiting.popleft()
            news.clear()
            if not over.done():
                await news.wait()
    finally:
        stop()
        over.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await over
