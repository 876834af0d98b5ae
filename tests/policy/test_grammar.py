"""Policy files, read strictly: every error names the file, the line, the rule, the key, and what to do."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.policy import grammar
from rsocket_broker.policy.grammar import MAX_RULES, MAX_VALUES, parse
from rsocket_broker.policy.rules import Direction, Effect, Level

HEAD = "version = 1\n"
RULE = '[[rule]]\nid = "x"\neffect = "allow"\n'


def read(text: str, **options: bool) -> grammar.Written:
    return parse(text, "p.toml", Level.OPERATOR, **options)


@pytest.mark.row("A-27")
def test_a_rule_has_all_that_was_written_and_the_line_where_it_begins() -> None:
    text = (
        HEAD
        + "# a comment\n\n"
        + RULE
        + 'app = ["a", "b.*"]\nproof = "adb"\nkind = ["web", "cli"]\n\n  [[ rule ]] # 2\n'
    )
    text += 'id = "y"\neffect = "deny"\nto = "com.other@dev"\n'
    written = read(text)
    first, second = written.layer.rules
    assert [pattern.text for pattern in first.app] == ["a", "b.*"]
    assert (first.proof, first.kind) == (frozenset({"adb"}), frozenset({"web", "cli"}))
    assert (str(first.origin), str(second.origin)) == ("p.toml:4", "p.toml:11")
    assert (first.effect, second.effect) == (Effect.ALLOW, Effect.DENY)
    assert second.direction == frozenset({Direction.RELAY})
    assert (len(written.layer.digest), written.hook) == (64, None)


@pytest.mark.row("A-27", "M-23")
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "p.toml: it must begin with a line that says: version = 1"),
        ("version = 2", "p.toml:1: version must be 1, which is what this broker reads, not 2."),
        ("version = true", "p.toml:1: version must be 1, which is what this broker reads, not True."),
        ("version = ", "p.toml is not TOML: Invalid value (at end of document)."),
        (HEAD + "[rules]", 'p.toml:2: unknown key "rules". Did you mean "rule"?'),
        (HEAD + "[hook]", 'p.toml:2: unknown key "hook". Known: rule, version.'),
        (HEAD + "rule = 1", "p.toml: every rule must begin with [[rule]], alone on its line."),
        (HEAD + "rule = [{}]", "p.toml: every rule must begin with [[rule]], alone on its line."),
        (HEAD + 'x = """\n"""', "p.toml:2: strings of several lines have no use here; write one on a line."),
        (
            HEAD + "[[rule]]",
            "p.toml:2: a rule without an id: every rule needs an id: up to 64 letters, digits, dots, "
            "hyphens and underscores.",
        ),
        (
            HEAD + '[[rule]]\nid = "a b"',
            'p.toml:3: rule "a b": id: every rule needs an id: up to 64 letters, digits, dots, '
            "hyphens and underscores.",
        ),
        (HEAD + '[[rule]]\nid = "x"', 'p.toml:2: rule "x": effect is missing. Known: allow, ask, deny.'),
        (
            HEAD + '[[rule]]\nid = "x"\neffect = "allowx"',
            'p.toml:4: rule "x": effect: "allowx" is none of its values. Did you mean "allow"?',
        ),
        (HEAD + RULE + 'methodx = "a.b"', 'p.toml:5: rule "x": methodx: there is no such key. Did you mean "method"?'),
        (
            HEAD + RULE + "method = 5",
            'p.toml:5: rule "x": method: it must be a string or a list of strings, and 5 is neither.',
        ),
        (
            HEAD + RULE + 'method = ["a", 5]',
            'p.toml:5: rule "x": method: it must be a string or a list of strings, and 5 is neither.',
        ),
        (
            HEAD + RULE + "method = []",
            'p.toml:5: rule "x": method: an empty list fits nothing; take the key out to let it fit everything.',
        ),
        (HEAD + RULE + 'method = ""', 'p.toml:5: rule "x": method: "" must not be empty.'),
        (
            HEAD + RULE + 'method = "delete"',
            'p.toml:5: rule "x": method: "delete" fits no method: one is plugin.method.',
        ),
        (
            HEAD + RULE + 'method = "*reset"',
            'p.toml:5: rule "x": method: "*reset" fits no method: one is plugin.method.',
        ),
        (
            HEAD + RULE + 'app = "c\u043em.example"',
            'p.toml:5: rule "x": app: "c\u043em.example" fits no app: ids of apps have no \'\\u043e\'.',
        ),
        (
            HEAD + RULE + 'app = ["com.a", "com.b@dev"]',
            'p.toml:5: rule "x": app: "com.b@dev" fits no app: ids of apps have no \'@\'.',
        ),
        (
            HEAD + RULE + 'to = "com/b@dev"',
            'p.toml:5: rule "x": to: "com/b" fits no app: ids of apps have no \'/\'.',
        ),
        (HEAD + RULE + 'to = "com.b@"', 'p.toml:5: rule "x": to: "" must not be empty.'),
        (
            HEAD + RULE + 'proof = "adbb"',
            'p.toml:5: rule "x": proof: "adbb" is none of its values. Did you mean "adb"?',
        ),
        (
            HEAD + RULE + 'direction = "in"\nto = "a"',
            'p.toml:6: rule "x": to: only a relay leads to another client: the direction must be "relay".',
        ),
        (
            HEAD + RULE + 'direction = "relay"\nmethod = "a.b"',
            'p.toml:6: rule "x": method: a relay has no plugin and no '
            "method that the broker looks at: take it out, or the direction relay.",
        ),
        (
            HEAD + RULE + 'direction = "relay"\nplugin = "given"',
            'p.toml:6: rule "x": plugin: a relay has no plugin and no '
            "method that the broker looks at: take it out, or the direction relay.",
        ),
        (HEAD + RULE + RULE, 'p.toml:5: rule "x": line 2 has a rule of that id.'),
        ("a=" + "[" * 5000, "p.toml is not TOML of any use: it is nested too deeply."),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_its_remedy(text: str, error: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read(text)
    assert raised.value.public == error


def test_there_is_an_end_to_rules_and_values() -> None:
    with pytest.raises(ConfigurationError, match=f"{MAX_RULES} are the limit"):
        read(HEAD + "[[rule]]\n" * (MAX_RULES + 1))
    with pytest.raises(ConfigurationError, match=f"{MAX_VALUES} are the limit"):
        read(HEAD + RULE + "app = [" + '"a",' * (MAX_VALUES + 1) + "]")


def test_a_hook_is_a_table_where_one_may_stand() -> None:
    written = read(HEAD + '[hook]\nurl = "http://localhost/"\n' + RULE, hook=True)
    assert (written.hook, written.hook_line) == ({"url": "http://localhost/"}, 2)
    with pytest.raises(ConfigurationError, match="hook must be a table"):
        read(HEAD + "hook = 1", hook=True)


def test_the_same_text_has_the_same_digest() -> None:
    assert read(HEAD).layer.digest == read(HEAD).layer.digest != read(HEAD + "#").layer.digest


@given(st.text(max_size=200) | st.text(max_size=100).map(lambda text: HEAD + RULE + text))
def test_any_text_is_a_policy_or_an_error_in_words(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        read(text, hook=True)
