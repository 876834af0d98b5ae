"""Policies for tests, from few words."""

from rsocket_broker.policy.grammar import parse
from rsocket_broker.policy.policy import Policy
from rsocket_broker.policy.rules import Layer, Level


def layer(rules: str, level: Level = Level.OPERATOR, source: str = "policy.toml") -> Layer:
    """From rules without `version`: `[[rule]]` tables, or lines such as `allow echo.*`, one rule each.

    A line is an effect, a method, and conditions as `key=value`.
    """
    if "[[rule]]" not in rules:
        rules = "\n".join(
            _table(number, line.split()) for number, line in enumerate(filter(str.strip, rules.splitlines()))
        )
    return parse("version = 1\n" + rules, source, level).layer


def _table(number: int, words: list[str]) -> str:
    effect, method, *conditions = words
    pairs = [one.partition("=") for one in conditions]
    lines = [f'id = "r{number}"', f'effect = "{effect}"', *([f'method = "{method}"'] if method != "-" else [])]
    lines += [f'{key} = "{value}"' for key, _, value in pairs]
    return "[[rule]]\n" + "\n".join(lines)


def policy(rules: str) -> Policy:
    return Policy([layer(rules)])
