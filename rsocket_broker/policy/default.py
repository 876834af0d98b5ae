"""What is allowed where no policy.toml says otherwise."""

from typing import Final

from rsocket_broker.policy.grammar import Written, parse
from rsocket_broker.policy.rules import Direction, Effect, Level, Origin, Rule

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

# What no rule allows is denied: other methods, and reaching another client.
"""


def default() -> Written:
    """The layer that stands in the place of a missing policy.toml."""
    return parse(TEXT, SOURCE, Level.OPERATOR)


def relay_rule() -> Rule:
    """What `serve --allow-relay` adds to the operator's layer."""
    origin = Origin(f"option {ALLOW_RELAY}")
    return Rule(id="allow-relay", effect=Effect.ALLOW, origin=origin, direction=frozenset({Direction.RELAY}))
