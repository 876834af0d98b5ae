"""The default policy: what a broker allows when nobody has written one."""

import attrs
import pytest

from rsocket_broker.policy.default import SOURCE, TEXT, default, relay_rule
from rsocket_broker.policy.grammar import parse
from rsocket_broker.policy.policy import Policy
from rsocket_broker.policy.rules import Direction, Effect, Facts, Group, Level

CALL = Facts(app="com.demo", device="dev1", proof="adb")
GIVEN, ANNOUNCED = frozenset({Group.GIVEN}), frozenset({Group.ANNOUNCED})


@pytest.mark.row("A-27", "M-23")
@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        ({"method": "echo.request"}, "echo"),
        ({"method": "own.thing", "groups": GIVEN}, "given-plugins"),
        ({"method": "Network.newRequest", "groups": ANNOUNCED}, "announced-plugins"),
        ({"method": "any.thing", "direction": Direction.OUT}, "calls-to-clients"),
        ({"method": "sessions.login"}, "login"),
        ({"method": "sessions.login", "kind": "web"}, None),
        ({"method": "sessions.list"}, None),
        ({"method": "own.thing"}, None),
        ({"direction": Direction.RELAY, "to": "com.other@dev1"}, None),
        ({"method": "Network.newRequest", "kind": "unverified", "groups": ANNOUNCED}, "unverified-apps"),
        (
            {"method": "a.b", "kind": "unverified", "groups": ANNOUNCED, "direction": Direction.OUT},
            "unverified-apps",
        ),
        ({"method": "any.thing", "kind": "unverified", "direction": Direction.OUT}, None),
        ({"method": "echo.request", "kind": "unverified"}, None),
        ({"method": "own.thing", "kind": "unverified", "groups": GIVEN}, None),
        ({"method": "sessions.login", "kind": "unverified"}, None),
    ],
)
def test_what_is_allowed_unless_somebody_says_otherwise(facts: dict[str, object], rule: str | None) -> None:
    decision = Policy([default().layer]).decide(attrs.evolve(CALL, **facts))  # type: ignore[arg-type]
    assert (decision.rule.id if decision.rule else None) == rule
    assert decision.effect is (Effect.ALLOW if rule else Effect.DENY)


def test_the_option_allows_every_relay_and_says_that_it_did() -> None:
    layer = attrs.evolve(default().layer, rules=(*default().layer.rules, relay_rule()))
    decision = Policy([layer]).decide(attrs.evolve(CALL, direction=Direction.RELAY, to="com.other@dev1"))
    assert decision.effect is Effect.ALLOW
    assert decision.reason == 'rule "allow-relay" of the operator layer (option --allow-relay)'
    for claimed in ({"kind": "unverified"}, {"to": "unverified:com.other@dev1"}):
        facts = attrs.evolve(CALL, **{"direction": Direction.RELAY, "to": "com.other@dev1"} | claimed)  # type: ignore[arg-type]
        assert Policy([layer]).decide(facts).effect is Effect.DENY


def test_the_text_is_a_policy_file_to_begin_with() -> None:
    assert default() == parse(TEXT, SOURCE, Level.OPERATOR)
    assert TEXT.startswith("version = 1\n")
    assert default().layer.level is Level.OPERATOR
