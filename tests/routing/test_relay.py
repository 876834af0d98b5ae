"""Clients of one endpoint that send each other requests."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest

from rsocket_broker.errors import Canceled, Invalid, Rejected, RequestFailed
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, method
from rsocket_broker.policy.policy import Policy
from rsocket_broker.policy.rules import Decision, Facts
from rsocket_broker.protocol.metadata import AUTHENTICATION, ROUTING, Entry, Mime, build_composite, build_tags, route
from rsocket_broker.routing.relay import MAX_REMEMBERED
from rsocket_broker.routing.router import NO_RELAY, NOT_IN_TIME
from tests.policy.making import policy
from tests.routing.line import Client, Line, until
from tests.routing.test_access import child_of
from tests.until import PATIENCE

ALICE, BOB = b"com.alice|dev1|adb|1", b"com.bob|dev1|adb|2"


class Here(Plugin):
    id = "here"

    @method("ask")
    async def ask(self, app: App) -> str:
        return "here"


async def two(line: Line) -> tuple[Client, Client]:
    return await line.connect(ALICE), await line.connect(BOB)


@pytest.mark.row("A-37", "A-46")
@pytest.mark.parametrize("name", ["c2", "com.bob", "com.bob@dev1"])
async def test_all_interactions_reach_a_client_by_each_of_its_names(name: str) -> None:
    """Metadata, with whatever it says of the sender, comes as it was sent."""
    async with Line(relay=True) as line:
        alice, bob = await two(line)
        auth = Entry(Mime.of(AUTHENTICATION), b"\x81whoever")
        metadata = build_composite([Entry(Mime.of(ROUTING), build_tags([f"client:{name}", "notes.add"])), auth])

        def asked(data: bytes) -> Payload:
            return Payload(data, metadata)

        assert (await alice.connection.request_response(asked(b"call"), 5)).data == b"call"
        alice.connection.fire_and_forget(asked(b"fire"))
        async with alice.connection.request_stream(asked(b"stream")) as answers:
            assert [answer.data async for answer in answers] == [b"1", b"2"]

        async def more() -> AsyncIterator[Payload]:
            for n in range(100):
                yield Payload(b"%d" % n)

        async with alice.connection.request_channel(asked(b"channel"), more(), 5) as answers:
            assert [answer.data async for answer in answers] == [b"channel", *(b"%d" % n for n in range(100))]
        alice.connection.metadata_push(metadata)
        await until(lambda: len(bob.side.routed) == 5)
        assert [payload.data for payload in bob.side.routed] == [b"call", b"fire", b"stream", b"channel", b""]
        assert {payload.metadata for payload in bob.side.routed} == {metadata}
        assert alice.served.streams_open == bob.served.streams_open == 0
        assert (await bob.ask("client:com.alice", b"back")) == b"back", "and the other way round"


async def test_plugins_are_asked_as_before() -> None:
    async with Line(Here(), relay=True) as line:
        alice, _ = await two(line)
        assert await alice.json("here.ask") == "here"
        assert await alice.ask("client:com.bob", b"there") == b"there"
        assert await alice.json("here.ask") == "here"


async def test_an_error_of_the_other_client_comes_as_it_was_sent() -> None:
    async with Line(relay=True) as line:
        alice, _ = await two(line)
        with pytest.raises(RequestFailed, match="the client says no"):
            await alice.ask("client:com.bob", b'"fail"')


async def test_without_leave_nothing_is_passed_on_and_nothing_is_told() -> None:
    """Whether the other client is there or not, the answer is the same."""
    async with Line() as line:
        alice, bob = await two(line)
        for name in ("com.bob", "c2", "nobody", "com.alice", ""):
            with pytest.raises(Rejected) as refusal:
                await alice.ask(f"client:{name}")
            assert refusal.value.public == NO_RELAY
        alice.fire("client:com.bob")
        alice.connection.metadata_push(route("client:com.bob"))
        await alice.settled()
        assert bob.side.routed == []


async def test_addresses_that_lead_nowhere() -> None:
    async with Line(relay=True) as line:
        alice, _ = await two(line)
        await line.connect(b"com.many|dev1|adb|3")
        await line.connect(b"com.many|dev2|adb|4")
        with pytest.raises(Rejected, match=r'^No client "com\.nobody" is connected that this client may reach\.$'):
            await alice.ask("client:com.nobody")
        with pytest.raises(Rejected, match="No client"):
            await alice.ask("client:com.bob@dev2")
        with pytest.raises(Invalid, match="to itself"):
            await alice.ask("client:com.alice")
        with pytest.raises(Invalid, match="more than one client") as refusal:
            await alice.ask("client:com.many")
        assert not {"c3", "c4", "dev1", "dev2"} & set(refusal.value.public.replace(":", " ").split())
        assert await alice.ask("client:com.many@dev2", b"x") == b"x"
        with pytest.raises(Invalid, match="UTF-8"):
            tag = bytes((8,)) + b"client:\xff"
            metadata = build_composite([Entry(Mime.of(ROUTING), tag)])
            await alice.connection.request_response(Payload(b"", metadata), 5)


async def test_a_client_that_reads_no_routes_can_be_sent_nothing_and_sends_nothing() -> None:
    async with Line(relay=True) as line:
        alice = await line.connect(ALICE)
        app = await line.app(certificate=BOB)
        with pytest.raises(Rejected, match=r'"com\.bob" reads no routes'):
            await alice.ask("client:com.bob")
        assert b"error" in await app.ask("client:com.alice")
        assert alice.side.routed == []


async def test_a_route_must_be_known_with_the_first_fragment() -> None:
    async with Line(relay=True) as line:
        alice, _ = await two(line)
        long = Entry(Mime("x/long", None), bytes(200))
        metadata = build_composite([long, Entry(Mime.of(ROUTING), build_tags(["client:com.bob"]))])
        assert (await alice.connection.request_response(Payload(b"", metadata), 5)).data == b""
        alice.connection._protocol._fragment = 64
        with pytest.raises(Rejected, match=NOT_IN_TIME):
            await alice.connection.request_response(Payload(b"", metadata), 5)
        assert await alice.ask("client:com.bob", bytes(1000)) == bytes(1000), "other fragments pass"


async def test_what_a_name_means_follows_those_who_come_and_go() -> None:
    async with Line(relay=True) as line:
        alice, bob = await two(line)
        assert await alice.ask("client:com.bob", b"1") == b"1"
        second = await line.connect(BOB)
        with pytest.raises(Invalid, match="more than one"):
            await alice.ask("client:com.bob", b"2")
        await bob.connection.close()
        await until(lambda: len(line.sessions) == 2)
        assert await alice.ask("client:com.bob", b"3") == b"3"
        assert [payload.data for payload in second.side.routed] == [b"3"]
        await second.connection.close()
        await until(lambda: len(line.sessions) == 1)
        with pytest.raises(Rejected, match="No client"):
            await alice.ask("client:com.bob", b"4")


async def test_what_is_remembered_of_addresses_is_bounded() -> None:
    async with Line(relay=True) as line:
        alice, _ = await two(line)
        for n in range(MAX_REMEMBERED + 10):
            await line.connect(f"com.app{n}|dev|adb|{n + 10}".encode())
        for n in range(MAX_REMEMBERED + 10):
            assert await alice.ask(f"client:com.app{n}", b"x") == b"x"


@pytest.mark.row("A-45")
async def test_calls_under_way_end_with_the_other_client() -> None:
    async with Line(relay=True) as line:
        alice, bob = await two(line)
        held = asyncio.Event()

        async def hold(payload: Payload) -> Payload:
            await held.wait()
            return payload

        bob.side.request_response = hold  # type: ignore[method-assign]
        call = asyncio.ensure_future(alice.ask("client:com.bob"))
        await until(lambda: bob.served.streams_open)
        bob.connection.abort()
        with pytest.raises(Canceled, match="The other client has gone"):
            await call
        assert alice.served.streams_open == 0


@pytest.mark.row("A-45")
async def test_a_caller_that_goes_cancels_what_it_asked_for() -> None:
    async with Line(relay=True) as line:
        alice, bob = await two(line)
        cancelled = asyncio.Event()

        async def hold(payload: Payload) -> Payload:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return payload

        bob.side.request_response = hold  # type: ignore[method-assign]
        call = asyncio.ensure_future(alice.ask("client:com.bob"))
        await until(lambda: bob.served.streams_open)
        alice.connection.abort()
        async with asyncio.timeout(5):
            await cancelled.wait()
        assert bob.served.streams_open == 0
        with pytest.raises(Exception, match="cut"):
            await call


async def test_a_broker_that_stops_lets_calls_under_way_end() -> None:
    async with Line(relay=True) as line:
        alice, bob = await two(line)
        under_way, let_go = asyncio.Event(), asyncio.Event()

        async def slow(payload: Payload) -> Payload:
            under_way.set()
            await let_go.wait()
            return payload

        bob.side.request_response = slow  # type: ignore[method-assign]
        call = asyncio.ensure_future(alice.ask("client:com.bob", b"x"))
        await under_way.wait()
        asyncio.get_running_loop().call_later(0.02, let_go.set)
        await asyncio.gather(*(client.served.drain_requests(PATIENCE) for client in (alice, bob)))
        assert await call == b"x"
        with pytest.raises(Rejected):
            await alice.ask("client:com.bob", b"x")


async def test_those_who_follow_either_client_see_each_request() -> None:
    async with Line(relay=True) as line:
        alice, bob = await two(line)
        await alice.ask("client:com.bob", b"unseen")
        seen: dict[str, list[object]] = {"c1": [], "c2": []}
        for client in (alice, bob):
            stop = client.session.followers.observe(lambda message: seen[str(message["client"])].append(message))
        await asyncio.gather(*(alice.ask("client:com.bob", b"seen") for _ in range(3)))
        alice.connection.metadata_push(route("client:com.bob"))
        await until(lambda: len(seen["c2"]) == 4)
        call, *_, push = seen["c1"]
        size = len(b"seen") + 3 + len(route("client:com.bob"))
        assert call == {
            "client": "c1",
            "direction": "in",
            "kind": "request-response",
            "plugin": "client:com.bob",
            "method": "",
            "bytes": size,
        }
        assert push["kind"] == "metadata-push"  # type: ignore[index]
        assert {(one["direction"], one["plugin"]) for one in seen["c2"]} == {("out", "client:c1")}  # type: ignore[index]
        stop()
        await alice.ask("client:com.bob", b"still seen, by who follows the other")
        assert (len(seen["c1"]), len(seen["c2"])) == (5, 4)


async def test_who_has_left_is_not_kept_by_those_who_asked_for_it() -> None:
    async with Line(relay=True) as line:
        alice, bob = await two(line)
        await alice.ask("client:com.bob", b"x")
        gone = weakref.ref(bob.session)
        line.clients.remove(bob)
        await bob.connection.close()
        await until(lambda: len(line.sessions) == 1)
        del bob
        await asyncio.sleep(0.01)
        gc.collect()
        assert gone() is None


@pytest.mark.row("A-59")
async def test_who_was_logged_out_reaches_nobody_and_is_reached_by_nobody_while_its_line_is_open() -> None:
    async with Line(relay=True) as line:
        other = await line.connect(b"com.other|dev1|adb|2")
        child = await child_of(line, await line.connect())
        assert await child.ask("client:com.other", b"x") == b"x"
        assert await other.ask(f"client:{child.session.id}", b"x") == b"x"
        for client in (child, other):
            client.side.routed.clear()
        line.endpoint.children.end(child.session.node.id, "it was logged out", answering=child.session)
        with pytest.raises(Rejected, match="it was logged out"):
            await child.ask("client:com.other", b"x")
        with pytest.raises(Rejected, match="that this client may reach"):
            await other.ask(f"client:{child.session.id}", b"x")
        assert child.side.routed == other.side.routed == []


@pytest.mark.row("A-27")
async def test_an_address_of_many_that_is_asked_for_over_and_over_is_judged_once() -> None:
    decided: list[str] = []

    class Counting(Policy):
        def decide(self, facts: Facts) -> Decision:
            decided.append(facts.to)
            return super().decide(facts)

    def counting(rules: str) -> Policy:
        return Counting(policy(rules).layers)

    async with Line(relay=True, policy=counting("allow - direction=relay to=com.many@dev1")) as line:
        for number in range(10):
            await line.connect(b"com.many|dev%d|adb|%d" % (number, number))
        client = await line.connect()
        for _ in range(3):
            assert await client.ask("client:com.many", b"x") == b"x"
            with pytest.raises(Rejected, match="that this client may reach"):
                await client.ask("client:com.many@dev2", b"x")
            line.sessions.version += 1  # as whenever somebody comes or goes
        assert len(decided) <= 10 + 2, decided
        await line.change(counting("allow - direction=relay to=com.many@dev2"))
        assert await client.ask("client:com.many@dev2", b"x") == b"x"
        with pytest.raises(Rejected, match="that this client may reach"):
            await client.ask("client:com.many@dev1", b"x")
