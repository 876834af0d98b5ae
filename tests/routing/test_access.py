"""The policy enforced: in every direction and model, for Flipper's JSON, for children, and by asking others."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsocket_broker.audit.events import Event
from rsocket_broker.errors import BrokerError, Invalid, Rejected, RequestFailed
from rsocket_broker.identity import Identity, Principal, Proof, unverified
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.policy.hook import HookSettings
from rsocket_broker.policy.policy import Policy
from rsocket_broker.policy.rules import CHANNELS, KINDS, Direction, Effect, Facts
from rsocket_broker.protocol.metadata import route
from rsocket_broker.routing import access as module
from rsocket_broker.routing.access import Access, facts_of, recorded
from rsocket_broker.routing.hook import Hook
from rsocket_broker.sessions.scope import allows
from rsocket_broker.sessions.tree import Node, NodeKind, Wish
from rsocket_broker.transports.base import Channel
from tests.policy.making import policy
from tests.routing.decider import deciding
from tests.routing.line import Client, Line, until

SECOND = b"com.maker|dev2|adb|7"


class Wifi(Plugin):
    """Has a method of every model, and notes what reaches it."""

    id = "wifi"

    def __init__(self) -> None:
        self.seen: list[object] = []

    async def on_connect(self, app: App) -> None:
        self.seen.append("connected")

    @method("set")
    def set(self, app: App, params: dict[str, Any]) -> dict[str, str]:
        self.seen.append("set")
        return {"done": "yes"}

    @method("get")
    async def get(self, app: App) -> dict[str, str]:
        self.seen.append("get")
        return {"ssid": "home"}

    @method("scan")
    async def scan(self, app: App) -> AsyncIterator[int]:
        self.seen.append("scan")
        yield 1

    @method("talk")
    async def talk(self, app: App, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        self.seen.append("talk")
        async for payload in incoming:
            yield payload

    @event("changed")
    def changed(self, app: App, n: int = 0) -> None:
        self.seen.append(n or "changed")

    @method("call-back")
    async def call_back(self, app: App, how: str) -> Any:
        if how == "call":
            return await app.call("secret")
        if how == "send":
            return await app.send("secret")
        if how == "push":
            return await app.push("secret")
        if how == "supports":
            return await app.supports("secret")

        async def values() -> AsyncIterator[object]:
            yield 1

        stream = app.stream("secret") if how == "stream" else app.channel("secret", values())
        return [value async for value in stream]


async def refusal(work: Any) -> str:
    with pytest.raises(Rejected) as raised:
        await work
    return raised.value.public


async def all_of(client: Client, name: str) -> list[bytes]:
    async with client.connection.request_stream(Payload(b"{}", route(name))) as stream:
        return [bytes(payload.data or b"") async for payload in stream]


async def echoed(client: Client, name: str) -> list[bytes]:
    async def more() -> AsyncIterator[Payload]:
        yield Payload(b"2", None)

    async with client.connection.request_channel(Payload(b"1", route(name)), more()) as stream:
        return [bytes(payload.data or b"") async for payload in stream]


@pytest.mark.row("A-27", "M-6", "M-23")
async def test_a_client_may_call_what_a_rule_names_by_every_model_and_nothing_else() -> None:
    plugin = Wifi()
    async with Line(plugin, policy=policy("allow wifi.set app=com.demo")) as line:
        client = await line.connect()
        assert await client.json("wifi.set", {"ssid": "x"}) == {"done": "yes"}
        assert await client.json("wifi.set", {"ssid": "x"}) == {"done": "yes"}
        plugin.seen.clear()
        words = "policy: this client may not call wifi.get. Ask the operator of the broker to allow it."
        assert await refusal(client.ask("wifi.get", b"{}")) == words
        assert "wifi.scan" in await refusal(all_of(client, "wifi.scan"))
        assert "wifi.talk" in await refusal(echoed(client, "wifi.talk"))
        client.fire("wifi.changed", b"{}")
        client.connection.metadata_push(route("wifi.changed"))
        await client.settled()
        assert plugin.seen == []


@pytest.mark.row("A-27", "M-22")
async def test_two_roles_and_every_method_called_by_both() -> None:
    rules = "allow wifi.get app=com.demo\nallow wifi.* app=com.maker\ndeny wifi.scan proof=adb app=com.maker"
    allowed = {}
    async with Line(Wifi, policy=policy(rules)) as line:
        clients = {"app": await line.connect(), "maker": await line.connect(SECOND)}
        for who, client in clients.items():
            allowed[who] = []
            calls = {
                "set": lambda one: one.json("wifi.set"),
                "get": lambda one: one.json("wifi.get"),
                "scan": lambda one: all_of(one, "wifi.scan"),
                "talk": lambda one: echoed(one, "wifi.talk"),
            }
            for name, call in calls.items():
                try:
                    await call(client)
                    allowed[who].append(name)
                except Rejected:
                    pass
    assert allowed == {"app": ["get"], "maker": ["set", "get", "talk"]}


@pytest.mark.row("A-27", "M-23")
async def test_a_refused_client_does_not_even_get_a_seat() -> None:
    plugin = Wifi()
    async with Line(plugin, policy=policy("allow echo.*")) as line:
        client = await line.connect()
        await refusal(client.ask("wifi.get"))
        assert plugin.seen == []
        assert list(client.session.plugins.events_waiting()) == []


@pytest.mark.row("A-27", "M-26")
async def test_flippers_json_is_held_to_the_same_rules() -> None:
    plugin = Wifi()
    async with Line(plugin, policy=policy("allow wifi.set\nallow wifi.changed\nallow - direction=out")) as line:
        app = await line.app(["wifi"])
        question = {"method": "execute", "params": {"api": "wifi", "method": "set", "params": {}}}
        for _ in range(3):
            assert await app.ask_json(question) == {"success": {"done": "yes"}}
        question["params"]["method"] = "get"  # type: ignore[index]
        for _ in range(3):
            answer = await app.ask_json(question)
            assert answer["error"]["name"] == "Rejected"
            assert answer["error"]["message"].startswith("policy: this client may not call wifi.get.")
        for n in (5, 6, 7):
            app.event("wifi", "changed", {"n": n})
            app.event("wifi", "set", {})
        app.event("wifi", "get", {})
        await app.settled()
        assert plugin.seen == ["connected", "set", "set", "set", 5, "set", 6, "set", 7, "set"] or 7 in plugin.seen
        assert "get" not in plugin.seen


@pytest.mark.row("A-29")
@pytest.mark.parametrize("how", ["call", "send", "push", "stream", "channel"])
async def test_calls_to_a_client_are_subject_to_rules_too(how: str) -> None:
    rules = "allow wifi.call-back direction=in\nallow wifi.secret direction=out app=com.maker"
    async with Line(Wifi, policy=policy(rules)) as line:
        demo, maker = await line.connect(), await line.connect(SECOND)
        words = await refusal(demo.json("wifi.call-back", {"how": how}))
        assert words == (
            "policy: wifi.secret may not be called on this client. `rsocket-broker policy explain` says why."
        )
        assert demo.side.routed == []
        await maker.json("wifi.call-back", {"how": how})
        await maker.settled()
        assert maker.side.routed
        await maker.json("wifi.call-back", {"how": how})


@pytest.mark.row("A-29")
async def test_an_operators_call_is_subject_to_rules_too() -> None:
    async with Line(Wifi, policy=policy("allow wifi.* direction=in")) as line:
        app = await line.app(["wifi"])
        assert "wifi.secret" in await refusal(app.session.to_app.call("wifi", "secret"))
        assert "wifi.secret" in await refusal(app.session.to_app.supports("wifi", "secret"))


@pytest.mark.row("M-20")
async def test_one_identity_and_method_may_be_open_on_one_channel_and_shut_on_another() -> None:
    async with Line(Wifi, policy=policy("allow wifi.get channel=tls")) as line:
        over_tls = await line.connect()
        assert await over_tls.json("wifi.get") == {"ssid": "home"}
        over_web = await line.connect(channel=Channel.WSS)
        assert "wifi.get" in await refusal(over_web.ask("wifi.get"))


@pytest.mark.row("M-7", "A-27")
async def test_an_apps_own_certificate_is_never_locked_out() -> None:
    class OwnIdentity(Plugin):
        id = "identity"

        @method("renew")
        def renew(self, app: App) -> None: ...

    class OwnSessions(Plugin):
        id = "sessions"

        @method("logout")
        def logout(self, app: App) -> None: ...

        @method("login")
        def login(self, app: App) -> None: ...

    async with Line(OwnIdentity, OwnSessions, policy=policy("deny -")) as line:
        client = await line.connect()
        await client.ask("identity.renew")
        await client.ask("sessions.logout")
        await refusal(client.ask("sessions.login"))
        assert await client.session.to_app.call("identity", "trust", "x") == "x"


# --- who is recorded -------------------------------------------------------------------------------------------------


@pytest.mark.row("D-14", "A-27")
async def test_the_first_allowed_call_and_refused_ones_are_recorded_with_their_rule() -> None:
    async with Line(Wifi, policy=policy("allow wifi.get\ndeny wifi.set")) as line:
        client = await line.connect()
        for _ in range(3):
            await client.json("wifi.get")
        await refusal(client.ask("wifi.set", b'{"password": "hunter2"}'))
        await refusal(client.ask("wifi.scan"))
        kinds = [(one["event"], one["method"], one.get("rule"), one.get("layer")) for one in line.records]
        assert kinds == [
            (Event.CALL_ALLOWED, "wifi.get", None, None),
            (Event.CALL_REFUSED, "wifi.set", "r1", "operator"),
            (Event.CALL_REFUSED, "wifi.scan", None, None),
        ]
        assert line.records[1]["app_id"] == "com.demo"
        assert line.records[1]["session"] == client.session.id
        assert "hunter2" not in str(line.records)
        assert line.access.refused == 2


@given(
    st.builds(
        Facts,
        app=st.text(max_size=5),
        device=st.text(max_size=5),
        method=st.text(max_size=5),
        direction=st.sampled_from(Direction),
        channel=st.sampled_from(CHANNELS),
        kind=st.sampled_from(KINDS),
        groups=st.frozensets(st.sampled_from(list(module.Group))),
    )
)
def test_a_record_is_read_back_as_the_call_that_it_tells_of(facts: Facts) -> None:
    assert facts_of(recorded(facts)) == facts


async def test_what_is_kept_of_a_client_that_makes_names_up_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 10)
    async with Line(Wifi, policy=policy("allow wifi.*")) as line:
        access = (await line.connect()).session.access
        for number in range(50):
            assert access.check(Direction.IN, "wifi", f"m{number}") is None
        assert len(access._allowed) == 10


# --- children --------------------------------------------------------------------------------------------------------

HOUR = timedelta(hours=1)


async def child_of(line: Line, parent: Client, **fields: Any) -> Client:
    wish = Wish(kind=NodeKind.WEB, channel=Channel.WS, expires=datetime.now(UTC) + HOUR)
    _, token = await line.endpoint.children.login(parent.session.node.id, attrs.evolve(wish, **fields))
    return await line.connect_child(token)


@pytest.mark.row("D-8", "A-27")
@pytest.mark.parametrize(
    ("rules", "scope", "allowed"),
    [
        ("allow wifi.get", None, True),
        ("allow wifi.get kind=web", None, False),
        ("allow wifi.get kind=device", None, False),
        ("allow wifi.get channel=loopback", None, False),
        ("allow wifi.get\ndeny wifi.get kind=web", None, False),
        ("allow wifi.get\ndeny wifi.get kind=device", None, False),
        ("allow wifi.get", ("wifi.*",), True),
        ("allow wifi.get", ("wifi.set",), False),
        ("allow wifi.get user=anna\nallow wifi.get kind=device", None, True),
    ],
)
async def test_a_child_may_do_what_it_and_its_parent_may(
    rules: str, scope: tuple[str, ...] | None, allowed: bool
) -> None:
    async with Line(Wifi, policy=policy(rules)) as line:
        parent = await line.connect()
        child = await child_of(line, parent, scope=scope, user="anna")
        if allowed:
            assert await child.json("wifi.get") == {"ssid": "home"}
        else:
            await refusal(child.ask("wifi.get"))


@pytest.mark.row("M-20")
async def test_what_a_child_may_on_loopback_may_differ_from_what_its_parent_may_over_tls() -> None:
    async with Line(Wifi, policy=policy("allow wifi.*\ndeny wifi.set channel=loopback")) as line:
        parent = await line.connect()
        child = await child_of(line, parent)
        assert await parent.json("wifi.set") == {"done": "yes"}
        await refusal(child.ask("wifi.set"))
        assert await child.json("wifi.get") == {"ssid": "home"}


@pytest.mark.row("D-8")
async def test_a_child_loses_what_its_parent_may_no_longer_do_since_its_plugins_have_changed() -> None:
    plugin = Wifi()
    async with Line(
        plugin, policy=policy("allow wifi.* plugin=announced kind=device\nallow wifi.get kind=web")
    ) as line:
        app = await line.app(["wifi"])
        child = await child_of(line, app)
        assert await child.json("wifi.get") == {"ssid": "home"}
        app.side.answers["getPlugins"] = {"success": {"plugins": []}}
        app.tell({"method": "refreshPlugins"})
        await until(lambda: app.session.announced == [])
        await refusal(child.ask("wifi.get"))


async def test_a_refusal_is_told_to_the_log_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    async with Line(Wifi, policy=policy("deny wifi.set")) as line:
        client = await line.connect()
        with caplog.at_level(logging.INFO):
            for _ in range(50):
                await refusal(client.ask("wifi.set", b"{}"))
        told = [message for message in caplog.messages if "is refused" in message]
        assert told[0] == (
            'c1 (com.demo@dev1 (adb)) is refused in wifi.set: rule "r0" of the operator layer (policy.toml:2)'
        )
        assert len(told) == 10


def identity() -> Identity:
    return Identity(Principal("com.demo", "dev1", Proof.ADB), "client", 1, "aa", 1, datetime(9999, 1, 1, tzinfo=UTC))


@attrs.define(eq=False)
class Bare:
    """As much of a session as access needs."""

    lineage: tuple[Node, ...]
    id: str = "c1"
    announced: list[str] = attrs.field(factory=list)
    parent: Any = None
    changed: Any = None
    identity: Identity = attrs.field(factory=identity)


@pytest.mark.row("M-9", "M-23")
@pytest.mark.parametrize("plugin", ["identity", "sessions"])
@pytest.mark.parametrize("kind", [NodeKind.DEVICE, NodeKind.UNVERIFIED])
def test_a_name_that_an_app_announces_is_no_key_to_certificates_and_sessions(kind: NodeKind, plugin: str) -> None:
    rules = "allow - plugin=announced\nallow - plugin=announced kind=unverified"
    node = Node(id="c1", kind=kind, channel=Channel.WS, since=datetime.now(UTC), expires=datetime.now(UTC) + HOUR)
    who = identity() if kind is NodeKind.DEVICE else unverified("com.demo", "dev1")
    access = Access(policy(rules)).of(Bare((node,), announced=[plugin, "Network"], identity=who))
    assert access.allows(Direction.IN, "Network", "any")
    own = kind is NodeKind.DEVICE and plugin == "identity"
    assert access.allows(Direction.IN, plugin, "login") is own
    assert access.allows(Direction.OUT, plugin, "login") is own
    assert access.allows(Direction.IN, "sessions", "introspect")


scopes = st.none() | st.lists(st.sampled_from(["a.*", "a.b", "b.*", "*"]), min_size=1, max_size=2).map(tuple)
nodes = st.builds(
    Node,
    id=st.just("n"),
    kind=st.sampled_from(NodeKind),
    channel=st.sampled_from([Channel.TLS, Channel.WSS, Channel.WS]),
    since=st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    expires=st.just(datetime(2027, 1, 1, tzinfo=UTC)),
    scope=scopes,
    user=st.sampled_from(["", "anna"]),
)
lines = st.builds(
    "{} {} {}".format,
    st.sampled_from(["allow", "allow", "deny"]),
    st.sampled_from(["a.*", "a.b", "b.*", "-"]),
    st.sampled_from(["", "kind=web", "channel=loopback", "user=anna", "direction=out"]),
)


@pytest.mark.row("D-8")
@settings(max_examples=200)
@given(st.lists(lines, max_size=6), st.lists(nodes, min_size=1, max_size=4), st.sampled_from(["a.b", "a.c", "b.c"]))
def test_a_child_can_never_do_what_one_above_it_cannot(rules: list[str], lineage: list[Node], name: str) -> None:
    found = Access(policy("\n".join(rules)) if rules else Policy([]))
    plugin, _, method_name = name.partition(".")

    def may(nodes: tuple[Node, ...], direction: Direction) -> bool:
        return found.of(Bare(nodes)).allows(direction, plugin, method_name) is True  # type: ignore[arg-type]

    for direction in (Direction.IN, Direction.OUT):
        each = [
            found.policy.decide(found.facts(Bare((node,)), node, direction, plugin, method_name)).effect is Effect.ALLOW  # type: ignore[arg-type]
            and (direction is Direction.OUT or allows(node.scope, name))
            for node in lineage
        ]
        assert may(tuple(lineage), direction) is all(each)


# --- asking others ---------------------------------------------------------------------------------------------------


def asking(url: str, **options: Any) -> Hook:
    return Hook(HookSettings(url=url, **options))


@pytest.mark.row("M-18")
async def test_every_model_waits_for_the_hook_and_is_served_when_it_says_yes() -> None:
    plugin = Wifi()
    async with Line(plugin) as line, deciding() as decider:
        await line.change(policy("ask wifi.*\nallow - direction=out"), asking(decider.url))
        client = await line.connect()
        assert await client.json("wifi.set") == {"done": "yes"}
        assert await client.json("wifi.get") == {"ssid": "home"}
        assert await all_of(client, "wifi.scan") == [b"1"]
        assert await echoed(client, "wifi.talk") == [b"1", b"2"]
        for n in range(1, 6):
            client.fire("wifi.changed", b'{"n": %d}' % n)
        await until(lambda: 5 in plugin.seen)
        client.connection.metadata_push(route("wifi.changed"))
        await client.settled()
        assert plugin.seen == ["connected", "set", "get", "scan", "talk", 1, 2, 3, 4, 5, "changed"]
        assert len(decider.asked) == 5, "each method once, while the answer holds"
        app = await line.app(["wifi"])
        question = {"method": "execute", "params": {"api": "wifi", "method": "get", "params": {}}}
        assert await app.ask_json(question) == {"success": {"ssid": "home"}}
        app.event("wifi", "changed", {"n": 9})
        await until(lambda: 9 in plugin.seen)


@pytest.mark.row("M-18")
async def test_messages_that_wait_for_the_hook_stay_in_order() -> None:
    plugin = Wifi()
    async with Line(plugin) as line, deciding() as decider:
        decider.gate.clear()
        await line.change(policy("ask wifi.changed"), asking(decider.url))
        client = await line.connect()
        for n in range(1, 20):
            client.fire("wifi.changed", b'{"n": %d}' % n)
        await until(lambda: decider.asked)
        decider.gate.set()
        for n in range(20, 300):
            client.fire("wifi.changed", b'{"n": %d}' % n)
            await asyncio.sleep(0)
        await until(lambda: 299 in plugin.seen)
        assert plugin.seen == ["connected", *range(1, 300)], plugin.seen


@pytest.mark.row("M-18")
@pytest.mark.parametrize("how", ["no", "down", "slow", "without a hook"])
async def test_where_nobody_says_yes_the_answer_is_no(how: str) -> None:
    plugin = Wifi()
    async with Line(plugin) as line, deciding(lambda question: False) as decider:
        if how == "slow":
            decider.gate.clear()
        hook = asking("unix:/nowhere" if how == "down" else decider.url, timeout=0.05)
        await line.change(policy("ask wifi.*"), None if how == "without a hook" else hook)
        client = await line.connect()
        await refusal(client.ask("wifi.set", b"{}"))
        await refusal(all_of(client, "wifi.scan"))
        client.fire("wifi.changed", b"{}")
        await asyncio.sleep(0.1)
        assert "set" not in plugin.seen
        assert "changed" not in plugin.seen
        assert all(one["event"] is Event.CALL_REFUSED for one in line.records)


async def test_calls_that_wait_are_bounded_and_end_with_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 5)
    async with Line(Wifi) as line, deciding() as decider:
        decider.gate.clear()
        await line.change(policy("ask wifi.*"), asking(decider.url))
        client = await line.connect()
        calls = [asyncio.ensure_future(client.ask("wifi.get")) for _ in range(7)]
        await until(lambda: sum(call.done() for call in calls) >= 2)
        waiting = [call for call in calls if not call.done()]
        done = [call for call in calls if call.done()]
        assert (len(done), len(waiting)) == (2, 5)
        assert all("too many calls" in str(call.exception()) for call in done)
        await line.change(policy("allow wifi.*"))
        for call in waiting:
            with pytest.raises(RequestFailed, match="policy"):
                await call
        assert await client.json("wifi.get") == {"ssid": "home"}


@pytest.mark.row("M-18", "A-29")
async def test_calls_to_a_client_wait_for_the_hook_too() -> None:
    async with Line(Wifi) as line, deciding(lambda question: question["method"] == "wifi.yes") as decider:
        await line.change(policy("ask - direction=out"), asking(decider.url))
        client = await line.connect()
        assert await client.session.to_app.call("wifi", "yes", "x") == "x"
        assert "wifi.no" in await refusal(client.session.to_app.call("wifi", "no"))


async def test_a_waiter_that_gives_up_costs_the_others_nothing() -> None:
    async with Line(Wifi) as line, deciding() as decider:
        decider.gate.clear()
        await line.change(policy("ask wifi.*"), asking(decider.url))
        client = await line.connect()
        first, second = (asyncio.ensure_future(client.ask("wifi.get")) for _ in range(2))
        await until(lambda: decider.asked)
        first.cancel()
        await asyncio.wait([first])
        decider.gate.set()
        assert await second
        assert len(decider.asked) == 1


@pytest.mark.row("M-18")
async def test_a_question_that_is_stopped_half_way_is_a_no() -> None:
    plugin = Wifi()
    async with Line(plugin) as line, deciding() as decider:
        decider.gate.clear()
        await line.change(policy("ask wifi.*"), asking(decider.url))
        client = await line.connect()
        client.fire("wifi.changed", b"{}")
        call = asyncio.ensure_future(client.ask("wifi.set", b"{}"))
        await until(lambda: len(decider.asked) == 2)
        line.access.tasks.cancel()  # as at the end of the broker, before that of its sessions
        await refusal(call)
        await client.settled()
        assert plugin.seen == []


@pytest.mark.row("M-18")
@pytest.mark.parametrize("verb", ["allow", "ask", "deny"])
async def test_no_rule_and_no_hook_is_asked_about_names_that_no_route_could_hold(verb: str) -> None:
    async with Line(Wifi) as line, deciding() as decider:
        hook = asking(decider.url)
        await line.change(policy(f"{verb} wifi.*\nallow - direction=out"), hook)
        app = await line.app(["wifi"])
        question = {"method": "execute", "params": {"api": "wifi", "method": "m" * 100_000, "params": {}}}
        answer = await app.ask_json(question)
        assert answer["error"] == {"message": module.TOO_LONG, "name": "Invalid"}
        with pytest.raises(Invalid):
            await app.session.to_app.call("wifi", "m" * 100_000)
        app.event("wifi", "m" * 100_000)
        await app.settled()
        assert decider.asked == []
        assert hook.results == {}


@pytest.mark.row("A-60", "M-18")
@pytest.mark.parametrize("itself", [True, False])
async def test_what_waits_for_the_hook_ends_with_its_session(itself: bool) -> None:
    plugin = Wifi()
    async with Line(plugin) as line, deciding() as decider:
        child = await child_of(line, await line.connect())
        decider.gate.clear()
        await line.change(policy("ask wifi.*"), asking(decider.url))
        child.fire("wifi.changed", b"{}")
        calls = [asyncio.ensure_future(work) for work in (child.ask("wifi.set", b"{}"), all_of(child, "wifi.scan"))]
        await until(lambda: len(decider.asked) == 3)
        line.endpoint.children.end(child.session.node.id, "logged out", answering=child.session if itself else None)
        decider.gate.set()
        await asyncio.wait(calls)
        assert all(isinstance(call.exception(), BrokerError) for call in calls)
        await until(lambda: not line.access.tasks)
        assert plugin.seen == []
