"""Compiled policies against the plain definition, and what an explanation is worth."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.policy.patterns import compiled
from rsocket_broker.policy.policy import Policy
from rsocket_broker.policy.rules import (
    NOTHING_FITS,
    Decision,
    Direction,
    Effect,
    Facts,
    Group,
    Layer,
    Level,
    Origin,
    Rule,
    fitting,
)
from tests.policy.making import layer, policy

names = st.sampled_from(["a", "b", "a.b", "b.a", "a.b.a", "a.a", ""])
patterns = st.sampled_from(["a", "b", "a.b", "b.a", "a.*", "b.*", "*", "*.a", "a*", "a.b.a", "*.b.*"]).map(compiled)
some_patterns = st.lists(patterns, max_size=2).map(tuple)


def some(values: list[str]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values), max_size=2)


rules = st.builds(
    Rule,
    id=st.just("x"),
    effect=st.sampled_from(Effect),
    origin=st.builds(Origin, st.just("file"), st.integers(1, 99)),
    app=some_patterns,
    device=st.lists(patterns, max_size=1).map(tuple),
    method=some_patterns,
    proof=some(["adb", "filesystem"]),
    direction=st.frozensets(st.sampled_from(Direction), max_size=2),
    channel=some(["tls", "loopback"]),
    kind=some(["device", "web"]),
    plugin=st.frozensets(st.sampled_from(Group), max_size=1),
    to=st.lists(st.tuples(patterns, st.none() | patterns), max_size=1).map(tuple),
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    levels = [level for level in Level if draw(st.booleans())]
    return Policy(Layer(level, level.value, "", tuple(draw(st.lists(rules, max_size=5)))) for level in levels)


facts = st.builds(
    Facts,
    app=names,
    device=names,
    proof=st.sampled_from(["adb", "filesystem"]),
    method=names,
    direction=st.sampled_from(Direction),
    channel=st.sampled_from(["tls", "loopback"]),
    kind=st.sampled_from(["device", "web"]),
    to=st.sampled_from(["", "a@b", "b@a"]),
    groups=st.frozensets(st.sampled_from(Group)),
)


def reference(policy: Policy, facts: Facts) -> Decision:
    """As slow and as plain as can be."""
    for each in policy.layers:
        for effect in (Effect.DENY, Effect.ASK, Effect.ALLOW):
            for rule in each.rules:
                if rule.effect is effect and rule.fits(facts):
                    return Decision(effect, rule, each)
    return NOTHING_FITS


def same(one: Decision, other: Decision) -> bool:
    return one.effect is other.effect and one.rule is other.rule and one.layer == other.layer


@pytest.mark.row("A-27", "M-21", "D-5")
@given(policies(), facts)
def test_a_compiled_policy_decides_as_the_slow_reference(policy: Policy, facts: Facts) -> None:
    assert same(policy.decide(facts), reference(policy, facts))


@pytest.mark.row("D-5")
@given(policies(), facts)
def test_the_rule_of_an_explanation_removed_changes_the_decision(policy: Policy, facts: Facts) -> None:
    explained = policy.explain(facts)
    assert same(explained.decision, policy.decide(facts))
    rule = explained.decision.rule
    if rule is None:
        assert explained.fits == ()
        return
    rest = policy.without(rule)
    after = rest.decide(facts)
    assert after.rule is not rule
    assert (after.effect, after.rule) == (explained.without.effect, explained.without.rule)
    layer = explained.decision.layer
    twins = [one for each, one in explained.fits if each is layer and one.effect is rule.effect]
    for twin in twins[1:]:
        rest = rest.without(twin)
    last = rest.decide(facts)
    assert last.effect is not rule.effect or last.layer is None or last.layer.level is not layer.level  # type: ignore[union-attr]
    assert [one for _, one in explained.fits] == [one for _, one in fitting(policy.layers, facts)]


@pytest.mark.row("M-23")
def test_what_no_rule_names_is_denied() -> None:
    decision = policy("allow wifi.set").decide(Facts(app="a", method="wifi.new"))
    assert (decision.effect, decision.rule) == (Effect.DENY, None)
    assert decision.reason == "no rule fits, and what no rule allows is denied"


@pytest.mark.row("M-21")
def test_the_vendor_decides_before_the_operator_and_the_operator_before_the_user() -> None:
    call = Facts(app="a", method="wifi.set")
    found = []
    layers = [
        layer(text, level, f"{level.value}.toml")
        for level, text in ((Level.VENDOR, "deny wifi.set"), (Level.OPERATOR, "allow wifi.*"), (Level.USER, "deny -"))
    ]
    while True:
        decision = Policy(layers).decide(call)
        found.append(decision.reason)
        if not layers:
            break
        del layers[0]
    assert found == [
        'rule "r0" of the vendor layer (vendor.toml:2)',
        'rule "r0" of the operator layer (operator.toml:2)',
        'rule "r0" of the user layer (user.toml:2)',
        NOTHING_FITS.reason,
    ]


@pytest.mark.parametrize(
    ("rules", "relays"),
    [
        ("allow -", False),
        ("allow - direction=relay", True),
        ("ask - to=com.x", True),
        ("deny -", False),
        ("allow a.b", False),
    ],
)
def test_whether_anybody_might_reach_another_client_is_known(rules: str, relays: bool) -> None:
    assert policy(rules).relays is relays
    assert policy(rules).asks is rules.startswith("ask")


def test_a_layer_stands_once_and_in_its_place() -> None:
    with pytest.raises(AssertionError):
        Policy([layer("", Level.USER), layer("", Level.VENDOR)])


def test_the_indexed_rules_are_found_by_each_of_their_keys() -> None:
    found = policy('[[rule]]\nid = "x"\neffect = "allow"\nmethod = ["a.b", "c.d", "a.b"]')
    assert [found.decide(Facts(app="a", method=name)).effect for name in ("a.b", "c.d", "a.c")] == [
        Effect.ALLOW,
        Effect.ALLOW,
        Effect.DENY,
    ]
    assert len(list(found.rules)) == 1
    assert attrs.asdict(Facts(app="a"))["kind"] == "device"
