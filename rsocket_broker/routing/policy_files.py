"""The files that a policy is made of: where they are, what is in them now, and whether they have changed.

vendor      `serve --vendor-policy FILE`, which other users may not change
operator    HOME/policy.toml; where there is none, the built-in default stands in its place
user        HOME/policy.user.toml
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.files import read_given, read_owned
from rsocket_broker.policy.default import default, relay_rule
from rsocket_broker.policy.policy import Policy
from rsocket_broker.policy.rules import Effect, Layer, Level, Written

if TYPE_CHECKING:
    from rsocket_broker.policy.hook import HookSettings

POLICY_FILE = "policy.toml"
USER_POLICY_FILE = "policy.user.toml"
LIMIT = 4 * 1024 * 1024
"""Bytes of one file: 10,000 rules of some hundred bytes each, with room for comments."""

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Of each file inode, time and size; None for one that is not there. It changes whenever the content does, or who may
change that. The time is the one that nobody can set, as copying and unpacking programs do with the other."""


@attrs.frozen(slots=True, eq=False)
class Loaded:
    """A policy with the hook that it asks, if it has one."""

    policy: Policy
    hook: "HookSettings | None"

    @property
    def digests(self) -> list[str]:
        """One line for each layer: its name, where it comes from, and the SHA-256 of its text."""
        return [f"{layer.level.value} {layer.source} {layer.digest}" for layer in self.policy.layers]


@attrs.frozen(slots=True)
class PolicyFiles:
    """The files of one broker. `operator` stands in the place of HOME/policy.toml where it is given."""

    home: Path
    vendor: Path | None = None
    allow_relay: bool = False
    operator: Path | None = None

    @property
    def paths(self) -> tuple[Path | None, Path, Path]:
        return self.vendor, self.operator or self.home / POLICY_FILE, self.home / USER_POLICY_FILE

    def stamp(self) -> Stamp:
        """Cheap enough to be taken every second."""
        return tuple(map(_stamp_of, self.paths))

    def read(self) -> Loaded:
        """The policy as the files have it now.

        Raises ConfigurationError for what is wrong in one, HomeError for one that is unsafe or cannot be read.
        """
        written = tuple(self._written())
        hook = next((_hook_of(one) for one in written if one.hook is not None), None)
        policy = Policy(self._with_relays(one) for one in written)
        if hook is None and policy.asks:
            rule = next(rule for rule in policy.rules if rule.effect is Effect.ASK)
            raise ConfigurationError(
                f'{rule.origin}: rule "{rule.id}": effect: "ask" needs a table [hook] in {POLICY_FILE} that says whom '
                "to ask."
            )
        return Loaded(policy, hook)

    def _written(self) -> Iterator[Written]:
        vendor, operator, user = self.paths
        if vendor is not None:
            yield _parsed(vendor, read_given(vendor, LIMIT), Level.VENDOR, hook=True)
        if self.operator is not None or os.path.lexists(operator):
            read = read_owned if self.operator is None else read_given
            yield _parsed(operator, read(operator, LIMIT), Level.OPERATOR, hook=True)
        else:
            yield default()
        if os.path.lexists(user):
            yield _parsed(user, read_owned(user, LIMIT), Level.USER)

    def _with_relays(self, written: Written) -> Layer:
        layer = written.layer
        if not self.allow_relay or layer.level is not Level.OPERATOR:
            return layer
        return attrs.evolve(layer, rules=(*layer.rules, relay_rule()))


def _hook_of(written: Written) -> "HookSettings":
    from rsocket_broker.policy.hook import HookSettings  # which few brokers have

    return HookSettings.parse(written.hook or {}, f"{written.layer.source}:{written.hook_line} [hook]")


def _parsed(path: Path, data: bytes, level: Level, *, hook: bool = False) -> Written:
    from rsocket_broker.policy.grammar import parse  # most brokers have no such file, and start sooner

    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text.") from error
    return parse(text, str(path), level, hook=hook)


def _stamp_of(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns, status.st_size
