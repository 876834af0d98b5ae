"""Rules, what they are asked about, and what comes of it.

Layers stand one above the other: vendor, operator, user. The first one with a rule that fits decides; inside a layer
deny beats ask, and ask beats allow. Where no rule fits, the answer is deny.

Whoever has proved nothing (the kind `unverified`) gets nothing from a rule that does not name that kind: rules were
written with certified clients in mind. Nor does one let anybody reach such a client, whatever it calls itself.
"""

import enum
from collections.abc import Iterator, Mapping

import attrs

from rsocket_broker.identity import UNVERIFIED_NAME
from rsocket_broker.policy.patterns import Pattern

AT = "@"


class Effect(enum.Enum):
    """What a rule says."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"
    """The external hook decides."""


RANK: Mapping[Effect, int] = {Effect.DENY: 0, Effect.ASK: 1, Effect.ALLOW: 2}
"""Which effect beats which inside a layer: the lower number."""


class Direction(enum.StrEnum):
    """Who asks whom. Strings, since those are looked up in sets without a call of Python."""

    IN = "in"
    """The client asks a plugin, or tells it of an event."""
    OUT = "out"
    """A plugin, or the operator's `clients call`, asks the client."""
    RELAY = "relay"
    """The client asks another client."""


class Group(enum.StrEnum):
    """Plugins that are not known by name when a rule is written."""

    GIVEN = "given"
    """Named by `serve --plugin`."""
    ANNOUNCED = "announced"
    """Those that the app has too, by its own account."""


CHANNELS = ("tls", "wss", "loopback")
"""How the client is connected: by RSocket over TLS, the same over WebSocket, or over this machine's HTTP port."""

UNVERIFIED = "unverified"
KINDS = ("device", "plugin", "web", "cli", UNVERIFIED)
"""Kinds of sessions: of a certificate's holder, or made by such a session for a plugin, a page or a command line; or of
a browser or Node app that has proved nothing."""

PROOFS = ("adb", "filesystem", "upload", "pairing", "operator")
"""What was seen before the client's certificate was signed."""


@attrs.frozen(slots=True)
class Facts:
    """One call, as rules see it. `method` is `<plugin>.<name>`, and empty for a relay, whose inside nobody looks at.

    `app`, `device`, `proof` and `profile` are of the client's certificate, or of that of the session that it was made
    by; of an unverified one, app and device are what it says. `to` is the other client of a relay, as
    `app_id@device_id`.
    """

    app: str
    device: str = ""
    proof: str = ""
    profile: str = "client"
    method: str = ""
    direction: Direction = Direction.IN
    channel: str = "tls"
    kind: str = "device"
    user: str = ""
    to: str = ""
    groups: frozenset[Group] = frozenset()
    """Of the plugin that the method belongs to."""


@attrs.frozen(slots=True)
class Origin:
    """Where a rule was written: a file and the line of its `[[rule]]`, or an option of the command line and no line."""

    name: str
    line: int | None = None

    def __str__(self) -> str:
        return self.name if self.line is None else f"{self.name}:{self.line}"


@attrs.frozen(slots=True, kw_only=True)
class Rule:
    """One rule. A condition that is empty holds for all; one with several values holds when one of them fits.

    `to` has pairs of patterns: of the app id, and of the device id where the pattern names one.
    """

    id: str
    effect: Effect
    origin: Origin
    app: tuple[Pattern, ...] = ()
    device: tuple[Pattern, ...] = ()
    profile: tuple[Pattern, ...] = ()
    method: tuple[Pattern, ...] = ()
    user: tuple[Pattern, ...] = ()
    to: tuple[tuple[Pattern, Pattern | None], ...] = ()
    proof: frozenset[str] = frozenset()
    direction: frozenset[Direction] = frozenset()
    channel: frozenset[str] = frozenset()
    kind: frozenset[str] = frozenset()
    plugin: frozenset[Group] = frozenset()

    def fits(self, facts: Facts) -> bool:
        """Whether every condition holds, the cheapest and choosiest first."""
        return (
            (not self.direction or facts.direction in self.direction)
            and (not self.method or _one(self.method, facts.method))
            and (not self.app or _one(self.app, facts.app))
            and (not self.plugin or not self.plugin.isdisjoint(facts.groups))
            and (facts.kind in self.kind if self.kind else facts.kind != UNVERIFIED or self.effect is Effect.DENY)
            and (not self.channel or facts.channel in self.channel)
            and (not self.proof or facts.proof in self.proof)
            and (not self.device or _one(self.device, facts.device))
            and (not self.profile or _one(self.profile, facts.profile))
            and (not self.user or _one(self.user, facts.user))
            and (not self.to or self._leads_to(facts.to))
            and (not facts.to.startswith(UNVERIFIED_NAME) or self.effect is Effect.DENY)
        )

    def _leads_to(self, to: str) -> bool:
        app, _, device = to.partition(AT)
        return any(one.matches(app) and (other is None or other.matches(device)) for one, other in self.to)


def _one(patterns: tuple[Pattern, ...], text: str) -> bool:
    for pattern in patterns:  # noqa: SIM110  a generator for any() would cost more than all the rest
        if pattern.matches(text):
            return True
    return False


class Level(enum.Enum):
    """The layers by name, highest first."""

    VENDOR = "vendor"
    OPERATOR = "operator"
    USER = "user"


@attrs.frozen(slots=True)
class Layer:
    """The rules of one file, as they stand there. `digest` is the SHA-256 of its text in hex."""

    level: Level
    source: str
    digest: str
    rules: tuple[Rule, ...]


@attrs.frozen(slots=True)
class Written:
    """A file as it was written: its rules, and its table `[hook]`, unread, where it has one."""

    layer: Layer
    hook: Mapping[str, object] | None
    hook_line: int = 0


@attrs.frozen(slots=True)
class Decision:
    """What was decided, by which rule of which layer; without a rule it is a deny, since nothing fits."""

    effect: Effect
    rule: Rule | None = None
    layer: Layer | None = None

    @property
    def reason(self) -> str:
        if self.rule is None or self.layer is None:
            return "no rule fits, and what no rule allows is denied"
        return f'rule "{self.rule.id}" of the {self.layer.level.value} layer ({self.rule.origin})'


NOTHING_FITS = Decision(Effect.DENY)


def fitting(layers: tuple[Layer, ...], facts: Facts) -> Iterator[tuple[Layer, Rule]]:
    """Every rule that fits, the one that decides first. The definition of a decision, written plainly and slowly."""
    for layer in layers:
        fit = [rule for rule in layer.rules if rule.fits(facts)]
        for rule in sorted(fit, key=lambda rule: RANK[rule.effect]):
            yield layer, rule
