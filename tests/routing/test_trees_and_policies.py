"""Random trees of real sessions under random policies, against a slow reference that keeps the links and the wishes."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsocket_broker.errors import BrokerError
from rsocket_broker.plugin_api import App, Plugin, method
from rsocket_broker.policy.grammar import parse
from rsocket_broker.policy.policy import Policy
from rsocket_broker.policy.rules import Level
from rsocket_broker.sessions.tree import NodeKind, Wish
from rsocket_broker.transports.base import Channel
from tests.routing.line import Client, Line

METHODS = ("echo.a", "echo.b", "notes.a")


class Echo(Plugin):
    id = "echo"

    @method("a")
    def a(self, app: App) -> str:
        return "echo.a"

    @method("b")
    async def b(self, app: App) -> str:
        return "echo.b"


class Notes(Plugin):
    id = "notes"

    @method("a")
    def a(self, app: App) -> str:
        return "notes.a"


@attrs.frozen
class Rule:
    effect: str
    method: str
    kind: str
    user: str
    channel: str

    def text(self, number: int) -> str:
        fields = {"id": f"r{number}", "effect": self.effect, "method": self.method}
        fields |= {name: value for name in ("kind", "user", "channel") if (value := getattr(self, name)) != "*"}
        return "[[rule]]\n" + "".join(f'{name} = "{value}"\n' for name, value in fields.items())


@attrs.frozen
class Asked:
    """What one login asked for; its parent is the session of that number, as far as there are so many."""

    parent: int
    kind: str
    user: str
    scope: tuple[str, ...] | None


patterns = st.sampled_from(["*", "echo.*", "notes.*", "echo.a", "echo.b", "notes.a"])
rules = st.builds(
    Rule,
    effect=st.sampled_from(["allow", "allow", "allow", "deny"]),
    method=patterns,
    kind=st.sampled_from(["*", "*", "device", "web", "cli"]),
    user=st.sampled_from(["*", "*", "*", "anna"]),
    channel=st.sampled_from(["*", "*", "*", "loopback", "tls"]),
)
logins = st.builds(
    Asked,
    parent=st.integers(0, 5),
    kind=st.sampled_from(["web", "cli", "plugin"]),
    user=st.sampled_from(["", "", "anna"]),
    scope=st.none() | st.none() | st.lists(patterns, min_size=1, max_size=2).map(tuple),
)


def fits(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None


class Reference:
    """Slow, and says only what is written: nothing is cut, cached or indexed."""

    def __init__(self, policy: list[Rule]) -> None:
        self.policy = policy
        self.made: list[tuple[int | None, Asked]] = [(None, Asked(0, "device", "", None))]

    def above(self, number: int) -> list[int]:
        found = [number]
        while (parent := self.made[found[-1]][0]) is not None:
            found.append(parent)
        return found

    def user(self, number: int) -> str:
        return next((user for one in self.above(number) if (user := self.made[one][1].user)), "")

    def allows(self, number: int, name: str) -> bool:
        return all(self.allows_alone(one, name) for one in self.above(number))

    def allows_alone(self, number: int, name: str) -> bool:
        asked = self.made[number][1]
        if asked.scope is not None and not any(fits(pattern, name) for pattern in asked.scope):
            return False
        facts = {"kind": asked.kind, "user": self.user(number), "channel": "tls" if number == 0 else "loopback"}
        hits = [
            rule.effect
            for rule in self.policy
            if fits(rule.method, name) and all(getattr(rule, field) in ("*", value) for field, value in facts.items())
        ]
        return "allow" in hits and "deny" not in hits


async def answers(client: Client, name: str) -> bool:
    try:
        return bool(await client.json(name) == name)
    except BrokerError:
        return False


async def live(policy: list[Rule], asked: list[Asked], top: int) -> None:
    text = "version = 1\n" + "".join(rule.text(number) for number, rule in enumerate(policy))
    reference = Reference(policy)
    async with Line(Echo, Notes, policy=Policy([parse(text, "test", Level.OPERATOR).layer])) as line:
        clients, tokens = [await line.connect()], [""]
        for one in asked:
            parent = one.parent % len(clients)
            wish = Wish(
                kind=NodeKind(one.kind),
                channel=Channel.WS,
                expires=datetime.now(UTC) + timedelta(hours=1),
                scope=one.scope,
                user=one.user,
            )
            try:
                _, token = await line.endpoint.children.login(clients[parent].session.node.id, wish)
            except BrokerError:
                continue  # nothing of its scope is in its parent's
            clients.append(await line.connect_child(token))
            tokens.append(token)
            reference.made.append((parent, one))
        wanted = {(n, name): reference.allows(n, name) for n in range(len(clients)) for name in METHODS}
        assert {key: await answers(clients[key[0]], key[1]) for key in wanted} == wanted
        top %= len(clients)
        line.endpoint.children.end(clients[top].session.node.id, "revoked")
        for number, client in enumerate(clients):
            gone = top in reference.above(number)
            for name in METHODS:
                assert await answers(client, name) == (not gone and wanted[number, name])
            if gone and number:
                error: Any = await line.child(tokens[number]).connection.wait_closed()
                assert "session" in error.public


@pytest.mark.row("D-8", "A-59", "A-60", "A-27")
@settings(max_examples=25, deadline=None)
@given(st.lists(rules, max_size=5), st.lists(logins, max_size=6), st.integers(0, 6))
def test_no_descendant_answers_after_a_revoke_and_none_may_more_than_the_one_above(
    policy: list[Rule], asked: list[Asked], top: int
) -> None:
    asyncio.run(live(policy, asked, top))


def test_the_reference_tells_the_cases_apart() -> None:
    asked = [Asked(0, "web", "anna", ("echo.*",)), Asked(1, "cli", "", None)]
    policy = [Rule("allow", "*", "*", "*", "*"), Rule("deny", "echo.b", "web", "*", "*")]
    reference = Reference(policy)
    reference.made += [(0, asked[0]), (1, asked[1])]
    assert [[reference.allows(number, name) for name in METHODS] for number in range(3)] == [
        [True, True, True],
        [True, False, False],
        [True, False, False],
    ]
    asyncio.run(live(policy, asked, 1))
