"""A secure endpoint and its clients on memory transports: all is real but the bytes' way and the certificates."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Self

import attrs

from rsocket_broker.audit.events import Event
from rsocket_broker.connection import Connection
from rsocket_broker.errors import ApplicationError, AuthorityError, ConnectionClosed
from rsocket_broker.identity import Identity, Principal, Proof
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import Plugin
from rsocket_broker.policy.default import default, relay_rule
from rsocket_broker.policy.policy import Policy
from rsocket_broker.protocol.authentication import bearer_metadata
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import PLAIN, SECURE
from rsocket_broker.protocol.metadata import COMPOSITE, route
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.protocol.relay import Relaying
from rsocket_broker.routing.access import Access
from rsocket_broker.routing.children import Children
from rsocket_broker.routing.endpoint import CERTIFIED, SecureEndpoint
from rsocket_broker.routing.hook import Hook
from rsocket_broker.routing.registry import LoadedPlugin, Registry
from rsocket_broker.routing.responder import SecureResponder
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.live import DuplicateRule, LiveSessions, SessionLimits
from rsocket_broker.transports.base import Channel, Peer, Receiver
from rsocket_broker.transports.memory import MemoryTransport
from tests.until import PATIENCE

LIMITS = attrs.evolve(SECURE, resume_seconds=60.0)
FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
FLIPPER_CLAIMS = {"os": "Android", "device": "Pixel", "app": "Demo", "sdk_version": 4, "medium": 1}


def identify(certificate: bytes) -> Identity:
    """`app|device|proof|serial` stands for a certificate; anything else is foreign."""
    try:
        app_id, device_id, proof, serial = certificate.decode().split("|")
    except ValueError:
        raise AuthorityError("This certificate was not issued here.") from None
    return Identity(Principal(app_id, device_id, Proof(proof)), "client", int(serial), "aa", 1, FOREVER)


def loaded(*plugins: Plugin | type[Plugin], **settings: dict[str, object]) -> list[LoadedPlugin]:
    registry = Registry(settings)
    for plugin in plugins:
        registry.add_plugin(plugin, "test")
    return list(registry.plugins.values())


Answer = object | Callable[[Any], Awaitable[object]]


class Peerside:
    """The client's own responder: a Flipper app that answers from a table, and echoes what has a route."""

    def __init__(self, answers: dict[str, Answer] | None = None) -> None:
        self.answers: dict[str, Answer] = answers or {}
        self.messages: list[Any] = []
        """JSON messages received, in order, without their ids."""
        self.routed: list[Payload] = []
        self.ended: ConnectionClosed | None = None

    def setup(self, connection: Connection, setup: object) -> None: ...

    async def request_response(self, payload: Payload) -> Payload:
        if payload.metadata is not None:
            self.routed.append(payload)
            if payload.data == b'"fail"':
                raise ApplicationError("the client says no")
            return Payload(payload.data, None)
        message = json.loads(payload.data or b"")
        assert isinstance(message.pop("id"), int)
        self.messages.append(message)
        return Payload(json.dumps(await self._answer(message)).encode(), None)

    async def _answer(self, message: dict[str, Any]) -> Any:
        method = message["method"]
        params = message.get("params", {})
        key = f"{params['api']}.{params['method']}" if method == "execute" else method
        if key not in self.answers:
            return {"error": {"message": f"Receiver {key} not found.", "name": "Unknown"}}
        answer = self.answers[key]
        return await answer(params) if callable(answer) else answer

    def fire_and_forget(self, payload: Payload) -> None:
        if payload.metadata is not None:
            self.routed.append(payload)
        else:
            message = json.loads(payload.data or b"")
            assert "id" not in message
            self.messages.append(message)

    def request_stream(self, payload: Payload) -> Iterable[Payload]:
        self.routed.append(payload)
        return iter([Payload(b"1", None), Payload(b"2", None)])

    async def request_channel(
        self, payload: Payload, incoming: AsyncIterator[Payload]
    ) -> AsyncGenerator[Payload, None]:
        self.routed.append(payload)
        yield payload
        async for one in incoming:
            yield one

    def metadata_push(self, metadata: bytes) -> None:
        self.routed.append(Payload(b"", metadata))

    def closed(self, error: ConnectionClosed) -> None:
        self.ended = error


@attrs.define(slots=False)
class Client:
    """One client of the endpoint."""

    connection: Connection
    side: Peerside
    served: Connection
    responder: SecureResponder

    @property
    def session(self) -> Session:
        session = self.responder.session
        assert session is not None
        return session

    async def ask(self, name: str, data: bytes = b"", timeout: float = PATIENCE) -> bytes:
        answer = await self.connection.request_response(Payload(data, route(name)), timeout)
        return bytes(answer.data or b"")

    async def json(self, name: str, value: object = None) -> Any:
        return json.loads(await self.ask(name, json.dumps({} if value is None else value).encode()))

    def fire(self, name: str, data: bytes = b"") -> None:
        self.connection.fire_and_forget(Payload(data, route(name)))

    def tell(self, message: object) -> None:
        """A Flipper message, one way."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.connection.fire_and_forget(Payload(data, None))

    def event(self, plugin: str, method: str, params: object = None) -> None:
        inner = {"api": plugin, "method": method, "params": {} if params is None else params}
        self.tell({"method": "execute", "params": inner})

    async def ask_json(self, message: object) -> Any:
        """A Flipper message by request-response."""
        payload = Payload(json.dumps(message).encode(), None)
        answer = await self.connection.request_response(payload, PATIENCE)
        return json.loads(answer.data or b"")

    async def settled(self) -> None:
        """Until everything sent so far was read and acted on, both ways (a keepalive there and back says so)."""
        await self.connection.wait_accepted()
        for _ in range(20):
            await asyncio.sleep(0)


def usual_policy(*, relay: bool = False) -> Policy:
    layer = default().layer
    return Policy([attrs.evolve(layer, rules=(*layer.rules, relay_rule())) if relay else layer])


class Line:
    """An endpoint, and whoever connects to it."""

    def __init__(
        self,
        *plugins: Plugin | type[Plugin],
        limits: SessionLimits | None = None,
        rule: DuplicateRule | None = None,
        relay: bool = False,
        children: Children | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Without a `policy`: the default one, all plugins being named by the operator, and `relay` the option."""
        self.protocol = Relaying if relay else Protocol
        self.now = 1000.0
        self.sessions = LiveSessions[Session](limits, rule)
        here = loaded(*plugins)
        self.records: list[dict[str, object]] = []
        """What was noted for the audit."""
        policy = policy or usual_policy(relay=relay)
        self.access = Access(policy, given=[plugin.id for plugin in here], note=self._note)
        self.endpoint = SecureEndpoint(
            identify, here, self.sessions, access=self.access, children=children, clock=lambda: self.now
        )
        self.clients: list[Client] = []
        self.tap: Callable[[Connection], Receiver] = lambda connection: connection
        """What a transport is given for its connection."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        for client in self.clients:
            for connection in (client.connection, client.served):
                if connection.closing is None:
                    await connection.close()
        await self.endpoint.stop(1.0)
        self.access.tasks.cancel()

    def _note(self, event: Event, **facts: object) -> None:
        self.records.append({"event": event, **facts})

    async def change(self, policy: Policy, hook: Hook | None = None) -> None:
        """Another policy is in force, for live sessions too."""
        self.access.replace(policy, hook)
        await self.endpoint.reapply()

    def attempt(
        self,
        certificate: bytes | None = b"com.demo|dev1|adb|255",
        claims: object = None,
        answers: dict[str, Answer] | None = None,
        metadata_mime: str = COMPOSITE,
        resume_token: bytes | None = None,
        metadata: bytes | None = None,
        channel: Channel = Channel.TLS,
    ) -> Client:
        """A client that has sent its SETUP, and does not know yet what becomes of it."""
        data = claims if isinstance(claims, bytes) else b"" if claims is None else json.dumps(claims).encode()
        setup = Setup(metadata_mime=metadata_mime, data=data, resume_token=resume_token, metadata=metadata)
        side = Peerside(answers)
        connection = Connection(Protocol.client(setup, LIMITS, 0.0), side, clock=lambda: 0.0)  # type: ignore[arg-type]
        client = Client(connection, side, *self.wire(certificate, connection, channel))
        self.clients.append(client)
        return client

    def child(self, token: str, certificate: bytes | None = None, channel: Channel = Channel.WS, **more: Any) -> Client:
        """A client that has sent a token in its SETUP."""
        return self.attempt(certificate, metadata=bearer_metadata(token), channel=channel, **more)

    async def connect_child(self, token: str, **options: Any) -> Client:
        """A client that was let in with a token. Raises ConnectionClosed when it was not."""
        client = self.child(token, **options)
        await client.connection.wait_accepted()
        return client

    def wire(
        self, certificate: bytes | None, connection: Connection, channel: Channel = Channel.TLS
    ) -> tuple[Connection, SecureResponder]:
        """A line between a client and the endpoint, which says that the client has shown `certificate`. On a channel
        without certificates the limits are those for strangers."""
        responder = self.endpoint.responder()
        limits = LIMITS if channel in CERTIFIED else PLAIN
        served = Connection(self.protocol.server(limits, 0.0), responder, clock=lambda: 0.0, resumer=responder.resume)
        ours, theirs = MemoryTransport(self.tap(served)), MemoryTransport(connection)
        ours.peer = Peer("memory", channel, certificate)
        ours.join(theirs)
        theirs.join(ours)
        for end in (ours, theirs):
            end.receiver.transport_ready(end)
        return served, responder

    async def connect(self, certificate: bytes = b"com.demo|dev1|adb|255", **options: Any) -> Client:
        """A client that has been let in. Raises ConnectionClosed when it was not."""
        client = self.attempt(certificate, **options)
        await client.connection.wait_accepted()
        return client

    async def app(self, plugins: Iterable[str] = (), background: Iterable[str] = (), **options: Any) -> Client:
        """A Flipper app that has these plugins, started up."""
        answers: dict[str, Answer] = {
            "getPlugins": {"success": {"plugins": list(plugins)}},
            "getBackgroundPlugins": {"success": {"plugins": list(background)}},
            **options.pop("answers", {}),
        }
        claims = {**FLIPPER_CLAIMS, **options.pop("claims", {})}
        client = await self.connect(claims=claims, answers=answers, metadata_mime="text/plain", **options)
        await until(lambda: client.session.started)
        await client.settled()
        return client


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Lets the loop turn until `condition` holds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0)
    assert condition()
