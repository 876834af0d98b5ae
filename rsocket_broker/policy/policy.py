"""The rules of all layers, compiled so that one decision looks at few of them."""

from collections.abc import Iterable, Iterator

import attrs

from rsocket_broker.policy.rules import (
    NOTHING_FITS,
    RANK,
    Decision,
    Direction,
    Effect,
    Facts,
    Layer,
    Level,
    Rule,
    fitting,
)

_Ranked = tuple[int, Rule, Decision]
"""A rule, its place in the order of its layer (the lowest that fits decides), and what it then says."""


class _Index:
    """The rules of one layer, filed under the rarest thing that each asks for.

    A rule that names methods or plugins is filed under these, one that names apps under those, and the rest in one
    list that every decision goes through. Each list is in the order of its layer.
    """

    __slots__ = ("_apps", "_count", "_methods", "_others", "_plugins")

    def __init__(self, layer: Layer) -> None:
        self._count = len(layer.rules)
        self._methods: dict[str, list[_Ranked]] = {}
        self._plugins: dict[str, list[_Ranked]] = {}
        self._apps: dict[str, list[_Ranked]] = {}
        self._others: list[_Ranked] = []
        ordered = sorted(layer.rules, key=lambda rule: RANK[rule.effect])
        for rank, rule in enumerate(ordered):
            self._file((rank, rule, Decision(rule.effect, rule, layer)))

    def _file(self, ranked: _Ranked) -> None:
        rule = ranked[1]
        if rule.method and all(pattern.exact for pattern in rule.method):
            _add(self._methods, (pattern.text for pattern in rule.method), ranked)
        elif rule.app and all(pattern.exact for pattern in rule.app):
            _add(self._apps, (pattern.text for pattern in rule.app), ranked)
        elif rule.method and all("." in pattern.head for pattern in rule.method):
            _add(self._plugins, (pattern.head.partition(".")[0] for pattern in rule.method), ranked)
        else:
            self._others.append(ranked)

    def first(self, facts: Facts) -> Decision | None:
        """What the layer decides, if one of its rules fits."""
        best, found = self._count, None
        method = facts.method
        for ranked in (
            self._methods.get(method),
            self._plugins.get(method.partition(".")[0]),
            self._apps.get(facts.app),
            self._others,
        ):
            if ranked is None:
                continue
            for rank, rule, decision in ranked:
                if rank >= best:
                    break
                if rule.fits(facts):
                    best, found = rank, decision
                    break
        return found


def _add(index: dict[str, list[_Ranked]], keys: Iterable[str], ranked: _Ranked) -> None:
    for key in dict.fromkeys(keys):
        index.setdefault(key, []).append(ranked)


@attrs.frozen(slots=True, eq=False)
class Explanation:
    """A decision with all that bears on it: every rule that fits, the deciding one first, and what there would be
    without that one."""

    decision: Decision
    fits: tuple[tuple[Layer, Rule], ...]
    without: Decision


class Policy:
    """What is allowed. Never changes: a reload makes another one."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        """`layers` from the highest down; one of them per level."""
        self.layers = tuple(layers)
        order = [list(Level).index(layer.level) for layer in self.layers]
        assert order == sorted(set(order)), "each layer once, the highest first"
        self._indexes = tuple(_Index(layer) for layer in self.layers if layer.rules)
        self.relays = any(map(_may_relay, self.rules))
        """Whether any rule might let one client reach another."""

    def decide(self, facts: Facts) -> Decision:
        for index in self._indexes:
            decision = index.first(facts)
            if decision is not None:
                return decision
        return NOTHING_FITS

    def explain(self, facts: Facts) -> Explanation:
        fits = tuple(fitting(self.layers, facts))
        first, without = (_decision(*pair) for pair in (fits[:1], fits[1:2]))
        return Explanation(first, fits, without)

    def without(self, rule: Rule) -> "Policy":
        """The same without that one rule."""
        return Policy(
            attrs.evolve(layer, rules=tuple(other for other in layer.rules if other is not rule))
            for layer in self.layers
        )

    @property
    def rules(self) -> Iterator[Rule]:
        for layer in self.layers:
            yield from layer.rules

    @property
    def asks(self) -> bool:
        """Whether any rule leaves the decision to the hook."""
        return any(rule.effect is Effect.ASK for rule in self.rules)


def _may_relay(rule: Rule) -> bool:
    return rule.effect is not Effect.DENY and (not rule.direction or Direction.RELAY in rule.direction)


def _decision(*found: tuple[Layer, Rule]) -> Decision:
    return Decision(found[0][1].effect, found[0][1], found[0][0]) if found else NOTHING_FITS
