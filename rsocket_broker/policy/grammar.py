"""The text of a policy file, read strictly: an error names the file, the line, the rule and the key, and what to do.

    version = 1

    [hook]                              only in policy.toml: whom rules with the effect "ask" ask
    url = "http://127.0.0.1:9900/decide"

    [[rule]]
    id = "provisioning"
    effect = "allow"
    app = "com.example.setup"
    method = "wifi.set"

Every rule is a table of its own, `[[rule]]` alone on its line, so that each has a line to be found by.
"""

import hashlib
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import attrs

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.policy.patterns import Pattern, compiled
from rsocket_broker.policy.rules import (
    AT,
    CHANNELS,
    KINDS,
    PROOFS,
    Direction,
    Effect,
    Group,
    Layer,
    Level,
    Origin,
    Rule,
    Written,
)
from rsocket_broker.spelling import nearest

VERSION = 1
"""The version of this grammar, which every file names: what a later one means, an older broker must not guess at."""
MAX_RULES = 10_000
"""Rules of one file: ten times what a fleet with a rule for each of its apps has."""
MAX_VALUES = 1000
"""Values of one condition: the apps of a company, say."""
SHOWN = 80
"""Characters of a wrong value that an error repeats."""

RULE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_NOT_IN_APPS = re.compile(r"[^A-Za-z0-9_.*-]", re.ASCII)
"""A letter of another alphabet that looks like one of ours, or a device behind an @: a rule that denies would be read
as one that holds, and never fit."""
_RULE = "rule"
_HEADER = re.compile(r"[ \t]*\[\[[ \t]*rule[ \t]*\]\][ \t]*(#.*)?", re.ASCII)
_LONG_STRING = re.compile(r'"""|\'\'\'')
_PATTERNS = ("app", "device", "profile", "method", "user")
_WORDS: Mapping[str, Collection[str]] = {
    "proof": PROOFS,
    "direction": tuple(one.value for one in Direction),
    "channel": CHANNELS,
    "kind": KINDS,
    "plugin": tuple(one.value for one in Group),
}
_AS: Mapping[str, Callable[[str], Any]] = {"direction": Direction, "plugin": Group}
KEYS = ("id", "effect", *_PATTERNS, "to", *_WORDS)
"""What a rule may have."""

TALKING = frozenset({Direction.IN, Direction.OUT})
"""What an allowing rule means that names no direction: who may reach another client must be written down."""


class _Problem(Exception):
    """What is wrong with one key; `key` is empty for the rule as a whole."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def parse(text: str, source: str, level: Level, *, hook: bool = False) -> Written:
    """The layer in `text`, which comes from `source`. `hook` lets it have a table of that name.

    Raises ConfigurationError for the first thing that is wrong.
    """
    document = _document(text, source)
    lines = text.splitlines()
    for key in document:
        if key not in ("version", _RULE, *(["hook"] if hook else [])):
            known = nearest(key, ("version", "rule", *(["hook"] if hook else [])))
            raise ConfigurationError(f'{source}{_line_of(lines, key)}: unknown key "{_shown(key)}". {known}')
    if "version" not in document:
        raise ConfigurationError(f"{source}: it must begin with a line that says: version = {VERSION}")
    if document["version"] != VERSION or isinstance(document["version"], bool):
        raise ConfigurationError(
            f"{source}{_line_of(lines, 'version')}: version must be {VERSION}, which is what this broker reads, "
            f"not {_shown(document['version'])}."
        )
    rules = tuple(_rules(document.get(_RULE, []), lines, source))
    digest = hashlib.sha256(text.encode()).hexdigest()
    table = document.get("hook")
    if table is not None and not isinstance(table, dict):
        raise ConfigurationError(f"{source}: hook must be a table: [hook]")
    at = next((number for number, line in enumerate(lines, 1) if re.match(r"\s*\[\s*hook\s*\]", line)), 0)
    return Written(Layer(level, source, digest, rules), table, at)


def _document(text: str, source: str) -> dict[str, Any]:
    for number, line in enumerate(text.splitlines(), 1):
        if _LONG_STRING.search(line):
            raise ConfigurationError(
                f"{source}:{number}: strings of several lines have no use here; write one on a line."
            )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source} is not TOML: {error}.") from error
    except RecursionError:
        raise ConfigurationError(f"{source} is not TOML of any use: it is nested too deeply.") from None


def _rules(tables: object, lines: list[str], source: str) -> Iterator[Rule]:
    starts = [number for number, line in enumerate(lines, 1) if _HEADER.fullmatch(line)]
    if not isinstance(tables, list) or len(starts) != len(tables):
        raise ConfigurationError(f"{source}: every rule must begin with [[rule]], alone on its line.")
    if len(tables) > MAX_RULES:
        raise ConfigurationError(f"{source}: it has {len(tables)} rules, and {MAX_RULES} are the limit.")
    seen: dict[str, int] = {}
    for at, table in zip(starts, tables, strict=True):
        try:
            rule = _rule(table, Origin(source, at))
        except _Problem as problem:
            raise ConfigurationError(_located(problem, table, lines, source, at)) from None
        if rule.id in seen:
            raise ConfigurationError(f'{source}:{at}: rule "{rule.id}": line {seen[rule.id]} has a rule of that id.')
        seen[rule.id] = at
        yield rule


def _located(problem: _Problem, table: Mapping[str, object], lines: list[str], source: str, at: int) -> str:
    name = table.get("id")
    of = f'rule "{_shown(name)}"' if isinstance(name, str) and name else "a rule without an id"
    line = next(
        (
            number
            for number, text in enumerate(lines[at:], at + 1)
            if problem.key and re.match(rf"\s*[\"']?{re.escape(problem.key)}[\"']?\s*=", text)
        ),
        at,
    )
    key = f"{problem.key}: " if problem.key else ""
    return f"{source}:{line}: {of}: {key}{problem}"


def _rule(table: Mapping[str, object], origin: Origin) -> Rule:
    """Raises _Problem."""
    for key in table:
        if key not in KEYS:
            raise _Problem(key, f"there is no such key. {nearest(key, KEYS)}")
    name = table.get("id")
    if not isinstance(name, str) or not RULE_ID.fullmatch(name):
        raise _Problem(
            "id" if "id" in table else "",
            "every rule needs an id: up to 64 letters, digits, dots, hyphens and underscores.",
        )
    conditions: dict[str, Any] = {key: _patterns(table, key) for key in _PATTERNS if key in table}
    conditions |= {key: _words(table, key) for key in _WORDS if key in table}
    if "to" in table:
        conditions["to"] = tuple(_target(value) for value in _values(table, "to"))
    effect = Effect(_word("effect", table.get("effect"), [one.value for one in Effect]))
    rule = Rule(id=name, effect=effect, origin=origin, **conditions)
    return _directed(rule)


def _directed(rule: Rule) -> Rule:
    """What the rule says of directions, also where it says nothing. Raises _Problem for what can never fit."""
    if rule.to:
        if rule.direction - {Direction.RELAY}:
            raise _Problem("to", 'only a relay leads to another client: the direction must be "relay".')
        rule = attrs.evolve(rule, direction=frozenset({Direction.RELAY}))
    if Direction.RELAY in rule.direction and (rule.plugin or not _fits_a_relay(rule)):
        raise _Problem(
            "plugin" if rule.plugin else "method",
            "a relay has no plugin and no method that the broker looks at: take it out, or the direction relay.",
        )
    if not rule.direction and rule.effect is not Effect.DENY:
        return attrs.evolve(rule, direction=TALKING)
    return rule


def _fits_a_relay(rule: Rule) -> bool:
    return not rule.method or any(pattern.matches("") for pattern in rule.method)


def _values(table: Mapping[str, object], key: str) -> list[str]:
    """One string, or a list of them, as a list."""
    value = table[key]
    values: list[object] = value if isinstance(value, list) else [value]
    if not values:
        raise _Problem(key, "an empty list fits nothing; take the key out to let it fit everything.")
    if len(values) > MAX_VALUES:
        raise _Problem(key, f"it has {len(values)} values, and {MAX_VALUES} are the limit.")
    texts = [one for one in values if isinstance(one, str)]
    if len(texts) < len(values):
        other = next(one for one in values if not isinstance(one, str))
        raise _Problem(key, f"it must be a string or a list of strings, and {_shown(other)} is neither.")
    return texts


def _patterns(table: Mapping[str, object], key: str) -> tuple[Pattern, ...]:
    made = {"app": _app, "method": _method}.get(key, _pattern)
    return tuple(made(key, value) for value in _values(table, key))


def _pattern(key: str, text: str) -> Pattern:
    try:
        return compiled(text)
    except ValueError as error:
        raise _Problem(key, f'"{_shown(text)}" must {error}.') from None


def _app(key: str, text: str) -> Pattern:
    pattern, other = _pattern(key, text), _NOT_IN_APPS.search(text)
    if other is not None:
        raise _Problem(key, f'"{_shown(text)}" fits no app: ids of apps have no {other.group()!a}.')
    return pattern


def _method(key: str, text: str) -> Pattern:
    pattern = _pattern(key, text)
    if not pattern.rest and "." not in text:
        raise _Problem(key, f'"{_shown(text)}" fits no method: one is plugin.method.')
    return pattern


def _words(table: Mapping[str, object], key: str) -> frozenset[Any]:
    made = _AS.get(key, str)
    return frozenset(made(_word(key, value, _WORDS[key])) for value in _values(table, key))


def _word(key: str, value: object, known: Collection[str]) -> str:
    if not isinstance(value, str) or value not in known:
        problem = f"{key} is missing." if value is None else f'"{_shown(value)}" is none of its values.'
        raise _Problem("" if value is None else key, f"{problem} {nearest(str(value)[:SHOWN], known)}")
    return value


def _target(text: str) -> tuple[Pattern, Pattern | None]:
    app, at, device = text.partition(AT)
    return _app("to", app), _pattern("to", device) if at else None


def _line_of(lines: list[str], key: str) -> str:
    wanted = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[\]=.]")
    number = next((number for number, line in enumerate(lines, 1) if wanted.match(line)), None)
    return "" if number is None else f":{number}"


def _shown(value: object) -> str:
    text = str(value)
    cut = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    return "".join(char if char.isprintable() else "?" for char in cut)
