"""The files of a policy: layers by their places, safe modes, and stamps that change with them."""

import os
from pathlib import Path

import pytest

from rsocket_broker.errors import ConfigurationError, HomeError
from rsocket_broker.policy.rules import Direction, Effect, Facts, Level
from rsocket_broker.routing.policy_files import LIMIT, POLICY_FILE, USER_POLICY_FILE, PolicyFiles

CALL = Facts(app="com.demo", device="dev1", proof="adb", method="wifi.set")


def rule(effect: str, name: str = "x") -> str:
    return f'version = 1\n[[rule]]\nid = "{name}"\neffect = "{effect}"\nmethod = "wifi.set"\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.row("M-21")
def test_a_read_only_vendor_policy_wins_over_operator_and_user_and_says_where_it_is(home: Path) -> None:
    vendor = write(home.parent / "vendor.toml", rule("deny", "sealed"), 0o444)
    operator = write(home / POLICY_FILE, rule("allow", "mine"))
    user = write(home / USER_POLICY_FILE, rule("deny", "theirs"))
    loaded = PolicyFiles(home, vendor).read()
    explained = loaded.policy.explain(CALL)
    assert explained.decision.reason == f'rule "sealed" of the vendor layer ({vendor}:2)'
    assert explained.without.reason == f'rule "mine" of the operator layer ({operator}:2)'
    assert [each.level for each, _ in explained.fits] == [Level.VENDOR, Level.OPERATOR, Level.USER]
    assert [line.split()[:2] for line in loaded.digests] == [
        ["vendor", str(vendor)],
        ["operator", str(operator)],
        ["user", str(user)],
    ]


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_vendor_policy_that_others_may_change_is_refused(home: Path, mode: int) -> None:
    vendor = write(home.parent / "vendor.toml", rule("deny"), mode)
    with pytest.raises(HomeError, match=r"Run: chmod 644"):
        PolicyFiles(home, vendor).read()


def test_a_vendor_policy_that_is_not_there_is_no_policy(home: Path) -> None:
    with pytest.raises(HomeError, match="is missing"):
        PolicyFiles(home, home.parent / "none.toml").read()
    with pytest.raises(HomeError, match="not a regular file"):
        PolicyFiles(home, home.parent).read()


def test_without_a_file_the_default_stands_in_its_place_and_the_user_may_add_to_it(home: Path) -> None:
    assert [layer.source for layer in PolicyFiles(home).read().policy.layers] == ["built-in default"]
    write(home / USER_POLICY_FILE, rule("allow"))
    decision = PolicyFiles(home).read().policy.decide(CALL)
    assert (decision.effect, decision.layer and decision.layer.level) == (Effect.ALLOW, Level.USER)


def test_the_option_lets_clients_reach_each_other_beside_any_file(home: Path) -> None:
    relay = Facts(app="com.demo", direction=Direction.RELAY, to="com.other@x")
    for text in (None, rule("allow")):
        if text:
            write(home / POLICY_FILE, text)
        assert PolicyFiles(home).read().policy.decide(relay).effect is Effect.DENY
        assert PolicyFiles(home, allow_relay=True).read().policy.decide(relay).effect is Effect.ALLOW
    write(home / POLICY_FILE, 'version = 1\n[[rule]]\nid = "no"\neffect = "deny"\ndirection = "relay"\n')
    assert PolicyFiles(home, allow_relay=True).read().policy.decide(relay).effect is Effect.DENY


def test_whoever_asks_must_say_whom(home: Path) -> None:
    write(home / POLICY_FILE, rule("ask"))
    with pytest.raises(ConfigurationError, match=r'policy.toml:2: rule "x": effect: "ask" needs a table \[hook\]'):
        PolicyFiles(home).read()
    write(home / POLICY_FILE, rule("ask") + '[hook]\nurl = "http://decide.example"\n')
    with pytest.raises(ConfigurationError, match=r"policy.toml:6 \[hook\]: what goes to decide.example"):
        PolicyFiles(home).read()
    write(home / POLICY_FILE, rule("ask") + '[hook]\nurl = "http://localhost:1/"\nttl = 5\n')
    hook = PolicyFiles(home).read().hook
    assert hook is not None
    assert hook.ttl == 5


@pytest.mark.parametrize("content", [b"\xff", b"#" * (LIMIT + 1)])
def test_what_is_no_policy_is_refused(home: Path, content: bytes) -> None:
    (home / POLICY_FILE).write_bytes(content)
    with pytest.raises((ConfigurationError, HomeError), match=POLICY_FILE):
        PolicyFiles(home).read()


def test_the_users_file_names_no_hook(home: Path) -> None:
    write(home / USER_POLICY_FILE, 'version = 1\n[hook]\nurl = "http://localhost:1/"\n')
    with pytest.raises(ConfigurationError, match='unknown key "hook"'):
        PolicyFiles(home).read()


def changed_time(path: Path) -> None:
    """Until the clock by which the system stamps changes of a file has gone on."""
    before, other = path.stat().st_ctime_ns, path.with_name("clock")
    while not other.exists() or other.stat().st_ctime_ns <= before:
        other.write_bytes(b"")
    other.unlink()


def test_a_stamp_changes_with_the_file(home: Path) -> None:
    files = PolicyFiles(home)
    stamps = [files.stamp()]
    write(home / POLICY_FILE, rule("allow"))
    stamps.append(files.stamp())
    time = (home / POLICY_FILE).stat().st_mtime_ns
    changed_time(home / POLICY_FILE)
    write(home / POLICY_FILE, rule("allow").replace("allow", "ask  "))
    os.utime(home / POLICY_FILE, ns=(time, time))
    stamps.append(files.stamp())
    changed_time(home / POLICY_FILE)
    (home / POLICY_FILE).chmod(0o666)
    stamps.append(files.stamp())
    (home / POLICY_FILE).unlink()
    assert files.stamp() == stamps[0]
    assert len(set(stamps)) == 4, "another content of the same size and time is seen, and another mode"


def test_another_file_may_stand_in_the_operators_place(home: Path) -> None:
    candidate = write(home.parent / "candidate.toml", rule("deny", "new"), 0o644)
    write(home / POLICY_FILE, rule("allow"))
    decision = PolicyFiles(home, operator=candidate).read().policy.decide(CALL)
    assert (decision.effect, decision.rule and decision.rule.id) == (Effect.DENY, "new")
