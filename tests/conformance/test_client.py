"""Our own client against a server made of bytes: the rules that bind clients.

What a requester makes of odd answers is judged in `test_requester.py`, through the broker, whose engine is the same.
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import attrs
import pytest

from rsocket_broker import client
from rsocket_broker.errors import ApplicationError, ConnectionClosed, SetupRefused
from tests.client.stub_broker import StubBroker
from tests.conformance import wire
from tests.conformance.raw_server import Client, RawServer, raw_server
from tests.conformance.wire import COMPLETE, NEXT

LAST = NEXT | COMPLETE
QUICK = client.Backoff(first=0.01, longest=0.05)


@attrs.frozen
class Said:
    """What a SETUP says."""

    stream: int
    flags: int
    version: tuple[int, int]
    keepalive_ms: int
    lifetime_ms: int
    token: bytes | None
    mimes: tuple[bytes, bytes]

    @classmethod
    def read(cls, one: wire.Frame) -> "Said":
        assert one.kind == wire.SETUP, wire.shown(one)
        major, minor, interval, lifetime = struct.unpack(">HHII", one.body[:12])
        rest, token = one.body[12:], None
        if one.flags & wire.RESUME_ENABLE:
            length = int.from_bytes(rest[:2], "big")
            token, rest = rest[2 : 2 + length], rest[2 + length :]
        first, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
        return cls(one.stream, one.flags, (major, minor), interval, lifetime, token, (first, rest[1 : 1 + rest[0]]))


Connect = Callable[..., AbstractAsyncContextManager[client.Session]]


@pytest.fixture
async def stub() -> AsyncIterator[StubBroker]:
    """Whom the client asks for its certificate."""
    async with StubBroker() as running:
        yield running


@pytest.fixture
async def server(stub: StubBroker, tmp_path: Path) -> AsyncIterator[RawServer]:
    async with raw_server(stub.authority.server_credentials(), tmp_path) as running:
        yield running


@pytest.fixture
def app(stub: StubBroker, server: RawServer, tmp_path: Path) -> Connect:
    settings: dict[str, Any] = {
        "app_id": "org.example.judged",
        "app": "Judged",
        "directory": tmp_path / "app",
        "host": "127.0.0.1",
        "insecure_port": stub.insecure_port,
        "secure_port": server.port,
        "backoff": QUICK,
        "timeout": 10,
    }
    return lambda **changes: client.connect(**(settings | changes))


@contextlib.asynccontextmanager
async def joined(app: Connect, server: RawServer, **changes: Any) -> AsyncIterator[tuple[client.Session, Client, Said]]:
    """A session, and the server's end of it."""
    async with app(**changes) as session:
        peer = await server.client()
        first = await peer.next()
        assert first is not None
        yield session, peer, Said.read(first)


def positions(said: bytes) -> tuple[bytes, int, int]:
    """Token, last received and first available position of a RESUME."""
    length = int.from_bytes(said[4:6], "big")
    received, available = struct.unpack(">QQ", said[6 + length :])
    return said[6 : 6 + length], received, available


# ---- connection establishment ----------------------------------------------------------------------------------------


async def test_the_first_frame_is_a_setup(app: Connect, server: RawServer) -> None:
    """SETUP Frame, Connection Establishment: on stream 0, version 1.0, times above 0, MIME types in ASCII, and no flag
    that means nothing."""
    async with joined(app, server) as (_, _, said):
        assert said.stream == 0
        assert said.version == (1, 0)
        assert 0 < said.keepalive_ms <= wire.MAX_31
        assert 0 < said.lifetime_ms <= wire.MAX_31
        assert all(mime.decode("ascii") and not mime.endswith(b"\0") for mime in said.mimes)
        assert not said.flags & ~(wire.METADATA | wire.RESUME_ENABLE | wire.LEASE_ENABLE)


async def test_a_lease_is_asked_for_by_a_flag(app: Connect, server: RawServer) -> None:
    """Connection Establishment: L says that the client will honour leases; not set unless the app wants them."""
    async with joined(app, server) as (_, _, said):
        assert not said.flags & wire.LEASE_ENABLE


@pytest.mark.parametrize("code", sorted(wire.SETUP_CODES))
async def test_a_rejected_setup_is_told_to_the_app(app: Connect, server: RawServer, code: int) -> None:
    """Connection Establishment: a client assumes that its SETUP is rejected if it receives an ERROR."""
    server.answers = False

    async def refuse() -> None:
        peer = await server.client()
        await peer.expect(wire.SETUP)
        peer.send(wire.error(0, code, b"not you"))
        peer.close()

    refusing = asyncio.create_task(refuse())
    with pytest.raises(SetupRefused, match="not you"):
        async with app():
            pass
    await refusing


async def test_a_request_of_the_server_shows_acceptance(app: Connect, server: RawServer) -> None:
    """Connection Establishment: a client assumes that SETUP is accepted if it sees a REQUEST, among others."""
    server.answers = False

    async def ask() -> Client:
        peer = await server.client()
        await peer.expect(wire.SETUP)
        peer.send(wire.request(wire.REQUEST_RESPONSE, 2, b'{"id": 1, "method": "getPlugins"}'))
        assert (await peer.expect(wire.PAYLOAD, 2)).flags & COMPLETE
        return peer

    asking = asyncio.create_task(ask())
    async with app(timeout=3) as session:
        assert session.connected
        await asking


# ---- what a client sends ---------------------------------------------------------------------------------------------


async def test_ids_are_odd_and_ascend_by_two(app: Connect, server: RawServer) -> None:
    """Stream Identifiers, Generation: a client must start at 1 and go on with 3, 5, 7."""
    async with joined(app, server) as (session, peer, _):
        calls = [asyncio.create_task(session.request(f"any.{number}")) for number in range(5)]
        streams = [(await peer.expect(wire.REQUEST_RESPONSE)).stream for _ in calls]
        assert streams == [1, 3, 5, 7, 9]
        for stream in reversed(streams):
            peer.send(wire.payload(stream, b"%d" % stream, flags=LAST))
        assert await asyncio.gather(*calls) == streams


async def test_a_request_has_its_route_and_no_odd_flags(app: Connect, server: RawServer) -> None:
    """Routing, Frame Header Format: composite metadata with a routing entry; bits without a meaning are zero."""
    async with joined(app, server) as (session, peer, said):
        await session.send("echo.fire", {"a": 1})
        one = await peer.expect(wire.REQUEST_FNF, 1)
        assert one.flags == wire.METADATA
        assert wire.payload_metadata(one) == wire.routed("echo.fire")
        assert wire.request_data(one) == b'{"a":1}'
        assert said.mimes[0] == wire.COMPOSITE


async def test_a_stream_asks_for_items_and_for_more_as_they_are_taken(app: Connect, server: RawServer) -> None:
    """REQUEST_STREAM and REQUEST_N Frames: credit above 0, more of it as items are taken, and CANCEL in the end."""
    async with joined(app, server) as (session, peer, _):
        async with contextlib.aclosing(session.stream("any.stream", credit=4)) as items:
            first = asyncio.ensure_future(anext(items))
            asked = await peer.expect(wire.REQUEST_STREAM, 1)
            credit = wire.number(asked)
            assert credit == 4
            for number in range(40):
                while credit < 1:
                    credit += wire.number(await peer.expect(wire.REQUEST_N, 1))
                peer.send(wire.payload(1, b"%d" % number))
                credit -= 1
                assert await (first if number == 0 else anext(items)) == number
        kinds = {one.kind for one in await peer.settle(1)}
        assert kinds - {wire.REQUEST_N} == {wire.CANCEL}


async def test_a_channel_waits_for_credit(app: Connect, server: RawServer) -> None:
    """REQUEST_CHANNEL Frame: no PAYLOAD before the responder has sent REQUEST_N, and no more than that."""

    async def values() -> AsyncIterator[int]:
        for number in range(9):
            yield number

    async with joined(app, server) as (session, peer, _):
        taking = asyncio.create_task(_all(session.channel("any.channel", values())))
        await peer.expect(wire.REQUEST_CHANNEL, 1)
        assert await peer.settle(1) == []
        peer.send(wire.request_n(1, 2))
        assert [wire.payload_data(one) for one in await peer.settle(1)] == [b"1", b"2"]
        peer.send(wire.request_n(1, 100), wire.payload(1, b"7", flags=LAST))
        sent = await peer.settle(1)
        assert sent[-1].flags & COMPLETE
        assert [wire.payload_data(one) for one in sent if one.flags & NEXT] == [b"%d" % n for n in range(3, 9)]
        assert await taking == [7]


async def _all(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def test_an_app_that_gives_up_cancels(app: Connect, server: RawServer) -> None:
    """CANCEL Frame: a requester that wants no answer any more says so."""
    async with joined(app, server) as (session, peer, _):
        with pytest.raises(TimeoutError):
            await session.request("any.slow", timeout=0.05)
        assert (await peer.expect(wire.REQUEST_RESPONSE)).stream == 1
        await peer.expect(wire.CANCEL, 1)


# ---- what a client takes ---------------------------------------------------------------------------------------------


async def test_a_keepalive_is_answered_with_its_data(app: Connect, server: RawServer) -> None:
    """KEEPALIVE Frame: a client, too, must answer one that has R set, without R."""
    async with joined(app, server) as (_, peer, _):
        peer.send(wire.keepalive(b"from the server"))
        answer = await peer.expect(wire.KEEPALIVE, 0)
        assert (answer.flags, answer.body[8:]) == (0, b"from the server")


async def test_a_setup_is_ignored(app: Connect, server: RawServer) -> None:
    """Handling the Unexpected: a client must ignore a SETUP frame."""
    async with joined(app, server) as (_, peer, _):
        peer.send(wire.setup())
        assert await peer.settle() == []


@pytest.mark.parametrize("code", sorted({*wire.SETUP_CODES, wire.REJECTED_RESUME}))
async def test_errors_about_setup_are_ignored_later(app: Connect, server: RawServer, code: int) -> None:
    """Handling the Unexpected: a client must ignore them after it has completed connection establishment."""
    async with joined(app, server) as (session, peer, _):
        peer.send(wire.error(0, code))
        assert await peer.settle() == []
        assert session.connected


ODD = {
    "cancel": wire.cancel(7),
    "payload": wire.payload(7, b"x", flags=LAST),
    "payload on 0": wire.payload(0, b"x"),
    "error": wire.error(7, wire.APPLICATION_ERROR),
    "request n": wire.request_n(8, 3),
    "lease": wire.lease(1000, 5),
    "resume": wire.resume(b"token", 0, 0),
    "resume ok": wire.frame(0, wire.RESUME_OK, 0, bytes(8)),
    "metadata push": wire.frame(0, wire.METADATA_PUSH, wire.METADATA, b"x"),
    "metadata push on a stream": wire.frame(4, wire.METADATA_PUSH, wire.METADATA, b"x"),
    "extension": wire.frame(0, wire.EXT, wire.IGNORE, b"\0\0\0\x01"),
    "unknown": wire.frame(2, 0x2A, wire.IGNORE, b"x"),
    "request on 0": wire.request(wire.REQUEST_RESPONSE, 0, b"x"),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
async def test_what_makes_no_sense_is_ignored(app: Connect, server: RawServer, odd: bytes) -> None:
    """Handling the Unexpected: the same rules bind a client."""
    async with joined(app, server) as (session, peer, _):
        peer.send(odd)
        assert await peer.settle() == []
        asking = asyncio.create_task(session.request("any.thing"))
        one = await peer.expect(wire.REQUEST_RESPONSE)
        peer.send(wire.payload(one.stream, b"1", flags=LAST))
        assert await asking == 1


async def test_an_answer_without_complete_is_one(app: Connect, server: RawServer) -> None:
    """Handling the Unexpected: a PAYLOAD for a request-response is taken as complete."""
    async with joined(app, server) as (session, peer, _):
        asking = asyncio.create_task(session.request("any.thing"))
        await peer.expect(wire.REQUEST_RESPONSE, 1)
        peer.send(wire.payload(1, b'"yes"', flags=NEXT))
        assert await asking == "yes"


async def test_an_error_reaches_its_caller_only(app: Connect, server: RawServer) -> None:
    """ERROR Frame: with a stream id above 0 it is of that stream."""
    async with joined(app, server) as (session, peer, _):
        bad, good = asyncio.create_task(session.request("any.a")), asyncio.create_task(session.request("any.b"))
        await peer.expect(wire.REQUEST_RESPONSE, 1)
        await peer.expect(wire.REQUEST_RESPONSE, 3)
        peer.send(wire.error(1, wire.APPLICATION_ERROR, b"no"), wire.payload(3, b"2", flags=LAST))
        with pytest.raises(ApplicationError, match="no"):
            await bad
        assert await good == 2


async def test_metadata_longer_than_its_frame_ends_the_connection(app: Connect, server: RawServer) -> None:
    """Metadata Optional Header: the receiver must send ERROR[CONNECTION_ERROR] and close."""
    async with joined(app, server) as (session, peer, _):
        asking = asyncio.create_task(session.request("any.thing"))
        await peer.expect(wire.REQUEST_RESPONSE, 1)
        peer.send(wire.frame(1, wire.PAYLOAD, wire.METADATA | LAST, b"\x00\x00\x09short"))
        last = (await peer.ends())[-1]
        assert (last.kind, last.stream, wire.code(last)) == (wire.ERROR, 0, wire.CONNECTION_ERROR)
        with pytest.raises(ConnectionClosed):
            await asking


async def test_a_request_that_the_app_does_not_know_gets_an_error(app: Connect, server: RawServer) -> None:
    """Error Codes: an ERROR on its stream, and the connection goes on."""
    async with joined(app, server) as (_, peer, _):
        peer.send(wire.request(wire.REQUEST_RESPONSE, 2, b"{}", wire.routed("no.such")))
        answer = await peer.expect(wire.ERROR, 2)
        assert wire.code(answer) in wire.STREAM_CODES
        assert await peer.settle() == []


async def test_after_a_connection_error_a_new_session_begins(app: Connect, server: RawServer) -> None:
    """Error Codes: the connection is over, and is not resumed; a client of ours comes back with a SETUP of its own."""
    async with joined(app, server) as (_, peer, said):
        peer.send(wire.error(0, wire.CONNECTION_ERROR))
        peer.close()
        again = await server.client()
        first = await again.next()
        assert first is not None
        other = Said.read(first)
        assert other.token is None or other.token != said.token


# ---- leases ----------------------------------------------------------------------------------------------------------


async def test_a_client_with_leases_grants_one_and_waits_for_one(app: Connect, server: RawServer) -> None:
    """Connection Establishment, Lease Semantics: with L set, the client must send a LEASE, and must wait for that of
    the server before it sends a request."""
    async with joined(app, server, lease=client.Lease(7, 5)) as (session, peer, said):
        assert said.flags & wire.LEASE_ENABLE
        granted = await peer.expect(wire.LEASE, 0)
        ttl, number = struct.unpack(">II", granted.body[:8])
        assert ttl > 0
        assert number == 7
        asking = asyncio.create_task(session.request("any.thing", timeout=5))
        assert [one for one in await peer.settle() if one.kind in wire.REQUESTS] == []
        peer.send(wire.lease(wire.LONG_MS, 1))
        one = await peer.expect(wire.REQUEST_RESPONSE)
        peer.send(wire.payload(one.stream, b"1", flags=LAST))
        assert await asking == 1


# ---- resumption ------------------------------------------------------------------------------------------------------


async def lost(server: RawServer, peer: Client) -> tuple[Client, tuple[bytes, int, int]]:
    """Cuts the line; the next one, and the RESUME on it."""
    peer.close()
    again = await server.client()
    again.received = peer.received
    one = await again.next()
    assert one is not None
    assert (one.kind, one.stream) == (wire.RESUME, 0), wire.shown(one)
    assert one.body[:4] == b"\x00\x01\x00\x00"
    return again, positions(one.body)


@pytest.mark.row("A-41")
async def test_a_client_resumes_with_its_token_and_positions(app: Connect, server: RawServer) -> None:
    """Resume Operation: RESUME has the token of SETUP, the position of what was received, and that of the first frame
    that can be sent again; nothing else is sent until it has succeeded."""
    async with joined(app, server) as (session, peer, said):
        asking = asyncio.create_task(session.request("any.thing"))
        await peer.expect(wire.REQUEST_RESPONSE, 1)
        answer = wire.payload(1, b'"before"', flags=LAST)
        peer.send(answer)
        assert await asking == "before"
        again, (token, received, available) = await lost(server, peer)
        assert token == said.token
        assert received == len(answer) - 3
        assert available <= peer.received
        later = asyncio.create_task(session.request("any.other"))
        with pytest.raises(TimeoutError):
            await again.next(0.05)
        again.send(wire.frame(0, wire.RESUME_OK, 0, struct.pack(">Q", peer.received)))
        one = await again.expect(wire.REQUEST_RESPONSE, 3)
        again.send(wire.payload(one.stream, b'"after"', flags=LAST))
        assert await later == "after"


@pytest.mark.row("A-41")
async def test_a_client_sends_again_what_was_lost(app: Connect, server: RawServer) -> None:
    """Resume Operation: it retransmits from the position in RESUME_OK on, frame by frame as they were."""
    async with joined(app, server) as (session, peer, _):
        asking = asyncio.create_task(session.request("any.thing", {"a": 1}))
        sent = await peer.expect(wire.REQUEST_RESPONSE, 1)
        again, _ = await lost(server, peer)
        again.send(wire.frame(0, wire.RESUME_OK, 0, struct.pack(">Q", 0)))
        assert await again.expect(wire.REQUEST_RESPONSE, 1) == sent
        again.send(wire.payload(1, b'"once"', flags=LAST))
        assert await asking == "once"


async def test_a_client_whose_resumption_is_rejected_begins_anew(app: Connect, server: RawServer) -> None:
    """Resume Operation: on ERROR[REJECTED_RESUME] a client must not try to resume again: what was under way has
    failed, and a SETUP with another token follows."""
    async with joined(app, server) as (session, peer, said):
        asking = asyncio.create_task(session.request("any.thing"))
        await peer.expect(wire.REQUEST_RESPONSE, 1)
        again, _ = await lost(server, peer)
        again.send(wire.error(0, wire.REJECTED_RESUME, b"unknown"))
        with pytest.raises(ConnectionClosed):
            await asking
        third = await server.client()
        first = await third.next()
        assert first is not None
        assert Said.read(first).token != said.token


async def test_a_client_falls_back_where_there_is_no_resumption(app: Connect, server: RawServer) -> None:
    """SETUP Frame: a server without resumption must reject the R flag with ERROR[REJECTED_SETUP]; the client may ask
    again without it."""
    server.answers = False

    async def refuse_then_take() -> tuple[Said, Said]:
        peer = await server.client()
        first = await peer.expect(wire.SETUP)
        server.answers = True
        peer.send(wire.error(0, wire.REJECTED_SETUP, b"resumption is not supported"))
        peer.close()
        again = await server.client()
        return Said.read(first), Said.read(await again.expect(wire.SETUP))

    refusing = asyncio.create_task(refuse_then_take())
    async with app() as session:
        first, second = await refusing
        assert first.token is not None
        assert second.token is None
        assert session.connected
