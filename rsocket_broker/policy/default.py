"""What is allowed where no policy.toml says otherwise."""

import hashlib
from typing import Any, Final

from rsocket_broker.policy.patterns import compiled
from rsocket_broker.policy.rules import UNVERIFIED, Direction, Effect, Group, Layer, Level, Origin, Rule, Written

SOURCE: Final = "built-in default"

ALLOW_RELAY: Final = "--allow-relay"

TEXT: Final = """\
version = 1

# Every enrolled client may call echo, and the plugins that `serve --plugin` names.
[[rule]]
id = "echo"
effect = "allow"
direction = "in"
method = "echo.*"

[[rule]]
id = "given-plugins"
effect = "allow"
direction = "in"
plugin = "given"

# An app may talk to the plugins that it has too, by its own account.
[[rule]]
id = "announced-plugins"
effect = "allow"
direction = "in"
plugin = "announced"

# Plugins, and `rsocket-broker clients call`, may call every client.
[[rule]]
id = "calls-to-clients"
effect = "allow"
direction = "out"

# The holder of a certificate may make sessions below its own; those may not make more.
[[rule]]
id = "login"
effect = "allow"
direction = "in"
kind = "device"
method = "sessions.login"

# A browser or Node app of `serve --browser-port`, which has proved nothing, may talk to the plugins that it has too.
[[rule]]
id = "unverified-apps"
effect = "allow"
kind = "unverified"
plugin = "announced"

# What no rule allows is denied: other methods, and reaching another client.
"""


def default() -> Written:
    """The layer that stands in the place of a missing policy.toml: what `parse` makes of TEXT.

    It is written down once more since most brokers have no such file, and start sooner without a parser.
    """
    out, inside = frozenset({Direction.OUT}), frozenset({Direction.IN})
    nothing_proved = {"kind": frozenset({UNVERIFIED}), "plugin": frozenset({Group.ANNOUNCED})}
    rules = (
        _rule("echo", direction=inside, method=(compiled("echo.*"),)),
        _rule("given-plugins", direction=inside, plugin=frozenset({Group.GIVEN})),
        _rule("announced-plugins", direction=inside, plugin=frozenset({Group.ANNOUNCED})),
        _rule("calls-to-clients", direction=out),
        _rule("login", direction=inside, kind=frozenset({"device"}), method=(compiled("sessions.login"),)),
        _rule("unverified-apps", direction=inside | out, **nothing_proved),
    )
    return Written(Layer(Level.OPERATOR, SOURCE, hashlib.sha256(TEXT.encode()).hexdigest(), rules), None)


def _rule(name: str, **conditions: Any) -> Rule:
    line = TEXT.count("\n", 0, TEXT.index(f'id = "{name}"'))  # its [[rule]] stands on the line before
    return Rule(id=name, effect=Effect.ALLOW, origin=Origin(SOURCE, line), **conditions)


def relay_rule() -> Rule:
    """What `serve --allow-relay` adds to the operator's layer."""
    origin = Origin(f"option {ALLOW_RELAY}")
    return Rule(id="allow-relay", effect=Effect.ALLOW, origin=origin, direction=frozenset({Direction.RELAY}))
