"""Which rules fit a call, condition by condition, and in which order they count."""

import attrs
import pytest

from rsocket_broker.identity import Proof
from rsocket_broker.policy.rules import (
    KINDS,
    PROOFS,
    UNVERIFIED,
    Direction,
    Effect,
    Facts,
    Group,
    Level,
    Origin,
    fitting,
)
from rsocket_broker.sessions.tree import NodeKind
from tests.policy.making import layer

FACTS = Facts(
    app="com.demo",
    device="dev1",
    proof="adb",
    profile="client",
    method="wifi.set",
    channel="tls",
    kind="device",
    user="anna",
    groups=frozenset({Group.GIVEN}),
)


@pytest.mark.row("A-27", "M-20")
@pytest.mark.parametrize(
    ("condition", "other"),
    [
        ('app = "com.*"', {"app": "org.demo"}),
        ('device = ["dev1", "dev2"]', {"device": "dev3"}),
        ('proof = "adb"', {"proof": "filesystem"}),
        ('profile = "client"', {"profile": "other"}),
        ('method = "wifi.*"', {"method": "echo.set"}),
        ('direction = "in"', {"direction": Direction.OUT}),
        ('channel = ["tls", "wss"]', {"channel": "loopback"}),
        ('kind = "device"', {"kind": "web"}),
        ('user = "anna"', {"user": ""}),
        ('plugin = "given"', {"groups": frozenset()}),
    ],
)
def test_a_condition_holds_for_what_it_names_and_nothing_else(condition: str, other: dict[str, object]) -> None:
    (rule,) = layer(f'[[rule]]\nid = "x"\neffect = "allow"\n{condition}').rules
    assert rule.fits(FACTS)
    assert not rule.fits(attrs.evolve(FACTS, **other))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("to", "fits"),
    [
        ("com.other", True),
        ("com.*", True),
        ("com.other@dev9", True),
        ("com.other@dev1", False),
        ("com.demo@*", False),
        ("*@dev9", True),
    ],
)
def test_where_a_relay_leads_is_a_condition(to: str, fits: bool) -> None:
    (rule,) = layer(f'[[rule]]\nid = "x"\neffect = "allow"\nto = "{to}"').rules
    facts = attrs.evolve(FACTS, method="", direction=Direction.RELAY, to="com.other@dev9")
    assert rule.fits(facts) is fits
    assert not rule.fits(FACTS), "what names another client says nothing of plugins"


def test_an_allowing_rule_lets_nobody_reach_another_client_unless_it_says_so() -> None:
    relay = attrs.evolve(FACTS, method="", direction=Direction.RELAY, to="com.other@dev9")
    open_, shut = layer("allow -\ndeny -").rules
    assert (open_.fits(FACTS), open_.fits(relay)) == (True, False)
    assert (shut.fits(FACTS), shut.fits(relay)) == (True, True)


def test_higher_layers_come_first_and_in_each_deny_then_ask_then_allow() -> None:
    text = "allow wifi.set\nask wifi.set\ndeny wifi.set\nallow wifi.*\nallow echo.*"
    layers = (layer(text, Level.VENDOR), layer(text, Level.USER))
    found = [(each.level, rule.id) for each, rule in fitting(layers, FACTS)]
    assert found == [(level, name) for level in (Level.VENDOR, Level.USER) for name in ("r2", "r1", "r0", "r3")]


def test_the_words_of_a_policy_are_those_of_identities() -> None:
    assert set(PROOFS) == {proof.value for proof in Proof if proof is not Proof.UNVERIFIED}
    assert set(KINDS) == {kind.value for kind in NodeKind}
    assert Proof.UNVERIFIED.value == NodeKind.UNVERIFIED.value == UNVERIFIED


CLAIMED = attrs.evolve(FACTS, proof=UNVERIFIED, profile="", kind=UNVERIFIED, channel="loopback")


@pytest.mark.row("M-9", "M-20", "M-23")
@pytest.mark.parametrize("effect", ["allow", "ask", "deny"])
@pytest.mark.parametrize(
    ("condition", "names_it"),
    [
        ("", False),
        ('app = "com.*"', False),
        ('method = "wifi.*"', False),
        ('channel = "loopback"', False),
        ('kind = ["device", "web"]', None),
        ('kind = "unverified"', True),
        ('kind = ["device", "unverified"]', True),
    ],
)
def test_what_has_proved_nothing_gets_nothing_that_does_not_name_it(
    effect: str, condition: str, names_it: bool | None
) -> None:
    (rule,) = layer(f'[[rule]]\nid = "x"\neffect = "{effect}"\n{condition}').rules
    assert rule.fits(CLAIMED) is (names_it or (names_it is False and effect == "deny"))


@pytest.mark.row("M-9")
@pytest.mark.parametrize("to", ["", 'to = "*"', 'to = "*@dev9"'])
def test_nobody_is_led_to_what_has_proved_nothing(to: str) -> None:
    facts = attrs.evolve(FACTS, method="", direction=Direction.RELAY, to="unverified:com.other@dev9")
    for effect, fits in (("allow", False), ("ask", False), ("deny", True)):
        (rule,) = layer(f'[[rule]]\nid = "x"\neffect = "{effect}"\ndirection = "relay"\n{to}').rules
        assert rule.fits(facts) is fits


def test_an_origin_is_a_place_that_can_be_opened() -> None:
    assert str(Origin("policy.toml", 7)) == "policy.toml:7"
    assert str(Origin("option --allow-relay")) == "option --allow-relay"
    assert Effect("ask") is Effect.ASK
