"""A policy that changes under live sessions: what it does not allow any more ends, and both sides are told."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import pytest

from rsocket_broker.errors import Canceled, Rejected
from rsocket_broker.identity import Identity
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.policy.hook import HookSettings
from rsocket_broker.policy.rules import Direction
from rsocket_broker.protocol.metadata import route
from rsocket_broker.routing.endpoint import TURN
from rsocket_broker.routing.hook import Hook
from rsocket_broker.routing.reapply import running
from tests.policy.making import policy
from tests.routing.decider import deciding
from tests.routing.line import Client, Line, until
from tests.routing.test_access import child_of

ALL = "allow -\nallow - direction=relay"
TOKEN = b"0123456789abcdef"


class Busy(Plugin):
    """Everything that it is asked goes on for ever."""

    id = "busy"

    def __init__(self) -> None:
        self.notes: list[str] = []

    async def on_disconnect(self, app: App) -> None:
        self.notes.append("bye")

    @method("wait", deadline=None)
    async def wait(self, app: App) -> None:
        await self._for_ever("wait")

    @method("other", deadline=None)
    async def other(self, app: App) -> None:
        await self._for_ever("other")

    @method("plain")
    def plain(self, app: App, payload: Payload) -> Payload:
        return payload

    @method("numbers", deadline=None)
    async def numbers(self, app: App) -> AsyncIterator[int]:
        yield 1
        await self._for_ever("numbers")

    @method("count")
    def count(self, app: App) -> Iterator[int]:
        yield from range(1_000_000)

    @method("talk", deadline=None)
    async def talk(self, app: App, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        async for payload in incoming:
            yield payload

    @event("told")
    def told(self, app: App) -> None:
        self.notes.append("told")

    @method("ask-back", deadline=None)
    async def ask_back(self, app: App, how: str) -> Any:
        try:
            if how == "call":
                return await app.call("never", "slow", timeout=None)
            return [value async for value in app.stream("never")]
        except Rejected as error:
            self.notes.append(error.public)
            raise

    async def _for_ever(self, name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.notes.append(f"{name} stopped")


async def stream_of(client: Client, name: str, got: list[bytes]) -> None:
    async with client.connection.request_stream(Payload(b"{}", route(name)), initial_n=2) as stream:
        async for payload in stream:
            got.append(bytes(payload.data or b""))


async def channel_of(client: Client, name: str, got: list[bytes]) -> None:
    async def more() -> AsyncIterator[Payload]:
        await asyncio.Event().wait()
        yield Payload(b"2", None)

    async with client.connection.request_channel(Payload(b"1", route(name)), more()) as stream:
        async for payload in stream:
            got.append(bytes(payload.data or b""))


@pytest.mark.row("A-28")
@pytest.mark.parametrize("name", ["wait", "numbers", "talk"])
async def test_what_is_open_and_not_allowed_any_more_ends_and_the_rest_goes_on(name: str) -> None:
    plugin = Busy()
    async with Line(plugin, policy=policy(ALL)) as line:
        client = await line.connect()
        got: list[bytes] = []
        works = {"wait": client.ask("busy.wait", timeout=60), "numbers": stream_of(client, "busy.numbers", got)}
        works["talk"] = channel_of(client, "busy.talk", got)
        for other in works.keys() - {name}:
            works[other].close()
        work = asyncio.ensure_future(works[name])
        other = asyncio.ensure_future(client.ask("busy.other", timeout=60))
        await until(lambda: got or name == "wait")
        await until(lambda: len(running(client.session.plugins.seats)) == 2)
        await line.change(policy(f"allow busy.*\ndeny busy.{name}"))
        with pytest.raises(Rejected, match=f"policy: this client may not call busy.{name}"):
            await work
        await client.settled()
        assert not other.done()
        assert [name for _, _, name in running(client.session.plugins.seats)] == ["other"]
        assert await client.ask("busy.plain", b"x") == b"x"
        assert name == "talk" or f"{name} stopped" in plugin.notes
        other.cancel()


@pytest.mark.row("A-28")
async def test_a_plain_stream_that_waits_for_credit_ends_too() -> None:
    async with Line(Busy, policy=policy(ALL)) as line:
        client = await line.connect()
        stream = client.connection.request_stream(Payload(b"{}", route("busy.count")), initial_n=2)
        assert (await anext(stream)).data == b"0"
        await line.change(policy("deny busy.count"))
        with pytest.raises(Rejected, match=r"policy: .*busy\.count"):
            while True:
                await anext(stream)
        assert running(client.session.plugins.seats) == []


@pytest.mark.row("A-28")
async def test_a_request_whose_first_step_is_yet_to_come_is_found_as_well() -> None:
    async with Line(Busy, policy=policy(ALL)) as line:
        client = await line.connect()
        await client.ask("busy.plain")
        work = asyncio.ensure_future(client.ask("busy.wait", timeout=60))
        await until(lambda: len(client.served._work) == 1)
        await line.change(policy("deny -"))
        with pytest.raises(Rejected, match="policy"):
            await work


@pytest.mark.row("A-28")
async def test_short_cuts_are_dropped() -> None:
    async with Line(Busy, policy=policy(ALL)) as line:
        client = await line.connect()
        for _ in range(3):
            await client.ask("busy.plain", b"x")
        assert client.served.shortcuts.calls
        await line.change(policy("deny busy.plain"))
        assert not client.served.shortcuts.calls
        with pytest.raises(Rejected, match="policy"):
            await client.ask("busy.plain", b"x")
        await line.change(policy(ALL))
        assert await client.ask("busy.plain", b"x") == b"x"


@pytest.mark.row("A-28")
async def test_nobody_is_served_by_a_short_cut_while_others_are_gone_through() -> None:
    async with Line(Busy, policy=policy(ALL)) as line:
        clients = [await line.connect(b"com.demo|dev%d|adb|%d" % (n, n)) for n in range(TURN + 5)]
        for client in clients:
            for _ in range(2):
                await client.ask("busy.plain", b"x")
        line.access.replace(policy("deny -"), None)
        assert not any(client.served.shortcuts.calls for client in clients)
        for client in clients:
            with pytest.raises(Rejected, match="policy"):
                await client.ask("busy.plain", b"x")
        await line.endpoint.reapply()
        assert not any(client.session.plugins.seats for client in clients)


@pytest.mark.row("A-28")
async def test_flippers_short_cuts_are_dropped_too() -> None:
    plugin = Busy()
    async with Line(plugin, policy=policy(ALL)) as line:
        app = await line.app(["busy"])
        for _ in range(3):
            app.event("busy", "told")
        await app.settled()
        assert plugin.notes == ["told"] * 3
        await line.change(policy("allow -\ndeny busy.told"))
        for _ in range(3):
            app.event("busy", "told")
        await app.settled()
        assert plugin.notes == ["told"] * 3


@pytest.mark.row("A-28", "A-29")
@pytest.mark.parametrize("how", ["call", "stream"])
async def test_calls_to_a_client_end_as_well(how: str) -> None:
    plugin = Busy()

    async with Line(plugin, policy=policy(ALL)) as line:
        client = await line.connect()
        held = asyncio.Event()

        async def hold(payload: Payload) -> Payload:
            await held.wait()
            return payload

        async def hold_stream(payload: Payload) -> AsyncIterator[Payload]:
            await held.wait()
            yield payload

        client.side.request_response = hold  # type: ignore[method-assign]
        client.side.request_stream = hold_stream  # type: ignore[method-assign,assignment]
        work = asyncio.ensure_future(client.ask("busy.ask-back", b'{"how": "%s"}' % how.encode(), timeout=60))
        session = client.session
        await until(lambda: session.to_app.waiting or len(session.to_app.flows))
        await line.change(policy("allow - direction=in\nallow busy.other direction=out"))
        with pytest.raises(Rejected, match=r"policy: busy\.never may not be called on this client"):
            await work
        assert "policy: busy.never may not be called" in plugin.notes[0]
        assert not session.to_app.waiting
        held.set()


@pytest.mark.row("A-28")
async def test_an_app_is_deinited_from_what_it_may_not_talk_to_and_inited_when_it_may_again() -> None:
    plugin = Busy()
    async with Line(plugin, policy=policy(ALL)) as line:
        app = await line.app(["busy", "elsewhere"])

        def said() -> list[str]:
            return [message["method"] for message in app.side.messages if message["method"] in ("init", "deinit")]

        assert said() == ["init"]
        await line.change(policy("allow other.*"))
        await until(lambda: said() == ["init", "deinit"])
        assert plugin.notes == ["bye"]
        assert list(app.session.plugins.events_waiting()) == []
        await line.change(policy("allow busy.special direction=out"))
        await until(lambda: said() == ["init", "deinit", "init"])


@pytest.mark.row("A-27")
async def test_an_app_is_not_inited_for_what_it_may_not_talk_to() -> None:
    async with Line(Busy, policy=policy("allow busy.*\ndeny busy.* app=com.demo")) as line:
        app = await line.app(["busy"])
        assert all(message["method"] != "init" for message in app.side.messages)
        other = await line.app(["busy"], certificate=b"com.other|dev2|adb|9")
        assert any(message["method"] == "init" for message in other.side.messages)


@pytest.mark.row("A-28")
async def test_a_routed_client_loses_its_seat_at_a_plugin_that_is_shut() -> None:
    plugin = Busy()
    async with Line(plugin, policy=policy(ALL)) as line:
        client = await line.connect()
        await client.ask("busy.plain")
        await line.change(policy("deny -"))
        await until(lambda: plugin.notes == ["bye"])


@pytest.mark.row("A-28")
async def test_who_leaves_while_others_are_gone_through_keeps_nothing_open_for_those_behind() -> None:
    plugin = Busy()
    async with Line(plugin, policy=policy(ALL)) as line:
        for number in range(TURN):
            await line.connect(b"com.demo|dev%d|adb|%d" % (number, number))
        app = await line.app(["busy"], certificate=b"com.app|dev1|adb|1000")
        last = await line.connect(b"com.last|dev1|adb|1001")
        gone, got = app.session, []
        stream = asyncio.ensure_future(stream_of(last, "busy.count", got))
        await until(lambda: got)
        await line.change(policy("allow busy.* app=com.last"))
        line.access.replace(policy("allow busy.* app=com.app\nallow - direction=out"), None)
        work = asyncio.ensure_future(line.endpoint.reapply())
        await asyncio.sleep(0)
        assert not gone.plugins.seats, "its turn is yet to come"
        app.served.abort()
        await work
        with pytest.raises(Rejected, match=r"policy: .*busy\.count"):
            await stream
        assert not gone.plugins.seats


@pytest.mark.row("A-28")
async def test_a_client_that_lets_nobody_ask_it_keeps_nothing_open_for_those_behind() -> None:
    async with Line(Busy, policy=policy(ALL)) as line:
        app = await line.app(["busy"], resume_token=TOKEN)
        last = await line.connect(b"com.last|dev1|adb|1001")
        stream = asyncio.ensure_future(stream_of(last, "busy.count", got := []))
        await until(lambda: got)
        app.served.drop_line()
        app.connection.drop_line()
        await until(lambda: app.session.suspended)
        for size in (100_000, 10):
            with pytest.raises(Rejected, match="too much is waiting"):
                while True:
                    app.served.fire_and_forget(Payload(bytes(size), None))
        await line.change(policy("allow busy.* app=com.nobody"))
        with pytest.raises(Rejected, match=r"policy: .*busy\.count"):
            await stream


@pytest.mark.row("A-28", "A-29")
async def test_a_call_that_waits_for_room_is_judged_again_before_it_goes() -> None:
    async with Line(Busy, policy=policy(ALL)) as line:
        client = await line.connect()
        client.served.writing_paused()
        calls = [asyncio.ensure_future(client.session.to_app.call("busy", name, "x")) for name in ("shut", "open")]
        await asyncio.sleep(0.01)
        await line.change(policy("allow busy.open direction=out"))
        client.served.writing_resumed()
        with pytest.raises(Rejected, match=r"policy: busy\.shut"):
            await calls[0]
        assert await calls[1] == "x"
        assert len(client.side.routed) == 1


@pytest.mark.row("A-28", "A-29")
@pytest.mark.parametrize("rules", ["deny -", "allow -\nallow wifi.*"])
async def test_a_channel_that_waits_for_its_first_value_is_judged_again_before_it_goes(rules: str) -> None:
    first = asyncio.Event()

    async def values() -> AsyncIterator[object]:
        await first.wait()
        yield 1
        yield 2

    async with Line(Busy, policy=policy(ALL)) as line:
        client = await line.connect()

        async def talk() -> list[object]:
            return [value async for value in client.session.to_app.channel("busy", "shut", values())]

        work = asyncio.ensure_future(talk())
        await asyncio.sleep(0.01)
        await line.change(policy(rules))
        first.set()
        if rules == "deny -":
            with pytest.raises(Rejected, match=r"policy: busy\.shut"):
                await work
            assert client.side.routed == []
        else:
            assert await work == [1, 2]


@pytest.mark.row("A-28", "A-22")
async def test_a_session_that_comes_back_with_a_certificate_of_another_profile_may_do_what_that_one_may() -> None:
    async with Line(Busy, policy=policy("allow busy.* profile=operator\nallow busy.plain")) as line:
        plain, line.endpoint._identify = line.endpoint._identify, lambda certificate: operators(certificate)

        def operators(certificate: bytes) -> Identity:
            return attrs.evolve(plain(certificate), profile="operator")

        client = await line.connect(resume_token=TOKEN)
        child = await child_of(line, client)
        works = [asyncio.ensure_future(one.ask("busy.wait", timeout=60)) for one in (client, child)]
        await until(lambda: all(running(one.session.plugins.seats) for one in (client, child)))
        client.served.drop_line()
        client.connection.drop_line()
        line.endpoint._identify = plain
        line.wire(b"com.demo|dev1|adb|256", client.connection)
        await client.connection.wait_resumed()
        for work in works:
            with pytest.raises(Rejected, match=r"policy: .*busy\.wait"):
                await work
        with pytest.raises(Rejected, match=r"policy: .*busy\.wait"):
            await client.ask("busy.wait")
        assert await client.ask("busy.plain", b"x") == b"x"


@pytest.mark.row("A-28")
async def test_a_suspended_session_learns_of_it_when_it_comes_back() -> None:
    async with Line(Busy, policy=policy(ALL)) as line:
        client = await line.connect(resume_token=TOKEN)
        work = asyncio.ensure_future(client.ask("busy.wait", timeout=60))
        await until(lambda: running(client.session.plugins.seats))
        client.served.drop_line()
        client.connection.drop_line()
        assert client.session.suspended
        await line.change(policy("deny busy.wait\nallow busy.*"))
        line.wire(b"com.demo|dev1|adb|255", client.connection)
        await client.connection.wait_resumed()
        with pytest.raises(Rejected, match=r"policy: .*busy\.wait"):
            await work
        assert await client.ask("busy.plain", b"x") == b"x"


@pytest.mark.row("A-28", "A-27")
async def test_relays_end_at_both_ends_and_are_found_again() -> None:
    async with Line(relay=True, policy=policy("allow - direction=relay app=com.alice to=com.bob")) as line:
        alice = await line.connect(b"com.alice|dev1|adb|1")
        bob = await line.connect(b"com.bob|dev1|adb|2")
        await line.connect(b"com.carol|dev1|adb|3")
        assert await alice.ask("client:com.bob", b"x") == b"x"
        for client, name in ((alice, "com.carol"), (bob, "com.alice"), (bob, "com.nobody")):
            with pytest.raises(Rejected, match=f'^No client "{name}" is connected that this client may reach.$'):
                await client.ask(f"client:{name}", b"x")
        began, cancelled = asyncio.Event(), asyncio.Event()

        async def hold(payload: Payload) -> Payload:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            return payload

        bob.side.request_response = hold  # type: ignore[method-assign]
        work = asyncio.ensure_future(alice.ask("client:com.bob", b"x", timeout=60))
        await until(began.is_set)
        await line.change(policy("allow - direction=relay app=com.alice to=com.carol"))
        with pytest.raises(Rejected, match="policy: this client may not reach"):
            await work
        await until(cancelled.is_set)
        assert await alice.ask("client:com.carol", b"y") == b"y"
        refused = [one["to"] for one in line.records if one["event"].value == "call-refused"]  # type: ignore[attr-defined]
        assert list(dict.fromkeys(refused)) == ["com.carol@dev1", "com.alice@dev1"]


@pytest.mark.row("M-18", "A-28")
async def test_what_is_open_is_asked_about_where_the_new_policy_asks() -> None:
    async with Line(Busy, policy=policy(ALL)) as line, deciding(lambda question: "other" in question["method"]) as who:
        client = await line.connect()
        ends, stays = (asyncio.ensure_future(client.ask(f"busy.{name}", timeout=60)) for name in ("wait", "other"))
        await until(lambda: len(running(client.session.plugins.seats)) == 2)
        await line.change(policy("ask busy.*"), Hook(HookSettings(url=who.url)))
        with pytest.raises(Rejected, match="policy"):
            await ends
        await client.settled()
        assert not stays.done()
        stays.cancel()
        with pytest.raises((asyncio.CancelledError, Canceled)):
            await stays


@pytest.mark.row("M-18")
async def test_a_relay_that_the_hook_must_allow_is_refused_until_it_has() -> None:
    async with Line(relay=True) as line, deciding() as who:
        await line.change(policy("ask - direction=relay"), Hook(HookSettings(url=who.url)))
        alice = await line.connect(b"com.alice|dev1|adb|1")
        await line.connect(b"com.bob|dev1|adb|2")
        with pytest.raises(Rejected, match="this is being decided"):
            await alice.ask("client:com.bob", b"x")
        await until(lambda: who.asked and alice.session.access.allows(Direction.RELAY, "com.bob@dev1", ""))
        await asyncio.sleep(0.01)
        assert await alice.ask("client:com.bob", b"x") == b"x"
