"""`policy …`, with a broker and without one."""

import asyncio
import contextlib
import io
import json
import re
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from rsocket_broker.audit import Audit, Event
from rsocket_broker.cli.main import run
from rsocket_broker.policy.default import TEXT
from rsocket_broker.policy.rules import Direction, Facts
from rsocket_broker.routing.access import recorded
from rsocket_broker.state import State
from tests.cli.conftest import Start
from tests.end_to_end.processes import BrokerProcess, run_command

RULES = """\
version = 1

[[rule]]
id = "wifi"
effect = "allow"
app = "com.example.*"
method = ["wifi.*", "echo.*"]

[[rule]]
id = "no-reset"
effect = "deny"
method = "wifi.reset"

[[rule]]
id = "calls"
effect = "allow"
direction = "out"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


def said(home: Path, *words: str, code: int = 0) -> str:
    """What the command prints: its result, or what went wrong."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = run(["--home", str(home), "policy", *words])
    assert found == code, err.getvalue()
    return out.getvalue() + err.getvalue() if code == 0 else err.getvalue()


def as_json(home: Path, *words: str) -> Any:
    out = said(home, *words, "--json")
    return json.JSONDecoder().raw_decode(out)[0]


@pytest.mark.row("A-27", "M-21")
def test_check_says_what_would_be_in_force_and_from_where(home: Path) -> None:
    assert [each["source"] for each in as_json(home, "check")["layers"]] == ["built-in default"]
    (home / "policy.toml").write_text(RULES)
    (vendor := home.parent / "vendor.toml").write_text("version = 1\n")
    vendor.chmod(0o444)
    (home / "config.toml").write_text(f'[serve]\nvendor-policy = "{vendor}"\n')
    described = as_json(home, "check")
    assert [(each["layer"], each["source"], each["rules"]) for each in described["layers"]] == [
        ("vendor", str(vendor), 0),
        ("operator", str(home / "policy.toml"), 3),
    ]
    assert described["in_force"] is None
    assert "vendor" in said(home, "check")


def test_check_names_the_fault_and_its_place(home: Path, tmp_path: Path) -> None:
    (candidate := tmp_path / "new.toml").write_text(RULES.replace("method = ", "methodx = ", 1))
    error = said(home, "check", str(candidate), code=1)
    assert error == f'Error: {candidate}:7: rule "wifi": methodx: there is no such key. Did you mean "method"?\n'


def test_the_default_can_be_printed_to_begin_with(home: Path) -> None:
    assert said(home, "check", "--show-default") == TEXT


@pytest.mark.row("M-21", "D-5")
def test_explain_names_the_rule_with_file_and_line_and_what_would_hold_without_it(home: Path) -> None:
    (home / "policy.toml").write_text(RULES)
    text = said(home, "explain", "com.example.app@dev1", "wifi.reset", "--proof", "adb")
    assert f'denied: rule "no-reset" of the operator layer ({home}/policy.toml:9)' in text
    assert f'without it: allowed: rule "wifi" of the operator layer ({home}/policy.toml:3)' in text
    assert f'also fits: allow, rule "wifi" of the operator layer ({home}/policy.toml:3)' in text
    found = as_json(home, "explain", "com.example.app@dev1", "wifi.reset", "--channel", "loopback", "--kind", "web")
    assert (found["effect"], found["rule"], found["file"], found["line"]) == (
        "deny",
        "no-reset",
        str(home / "policy.toml"),
        9,
    )
    assert found["without"]["rule"] == "wifi"
    assert [rule["rule"] for rule in found["fits"]] == ["no-reset", "wifi"]
    assert (found["call"]["channel"], found["call"]["kind"], found["call"]["device_id"]) == ("loopback", "web", "dev1")
    nothing = as_json(home, "explain", "org.other", "wifi.set")
    assert (nothing["effect"], nothing["rule"], nothing["reason"]) == (
        "deny",
        None,
        "no rule fits, and what no rule allows is denied",
    )


def test_explain_takes_another_file_another_direction_and_groups(home: Path, tmp_path: Path) -> None:
    (candidate := tmp_path / "new.toml").write_text(
        'version = 1\n[[rule]]\nid = "r"\neffect = "allow"\nto = "com.b"\n[[rule]]\nid = "g"\neffect = "allow"\n'
        'plugin = "given"\n'
    )
    file = ("--file", str(candidate))
    assert as_json(home, "explain", "com.a", "--direction", "relay", "--to", "com.b@x", *file)["rule"] == "r"
    assert as_json(home, "explain", "com.a", "x.y", *file)["rule"] is None
    assert as_json(home, "explain", "com.a", "x.y", "--plugin", "given", *file)["rule"] == "g"
    assert "METHOD must be plugin.method" in said(home, "explain", "com.a", "xy", code=2)


@pytest.mark.row("D-5", "M-9")
def test_explain_tells_what_an_app_without_a_certificate_may_do(home: Path) -> None:
    kind = ("--kind", "unverified")
    denied = as_json(home, "explain", "com.a", "net.log", *kind)
    assert (denied["effect"], denied["rule"]) == ("deny", None)
    about = {name: denied["call"][name] for name in ("proof", "profile", "channel")}
    assert about == {"proof": "unverified", "profile": "", "channel": "loopback"}
    allowed = as_json(home, "explain", "com.a", "net.log", "--plugin", "announced", *kind)
    assert (allowed["effect"], allowed["rule"]) == ("allow", "unverified-apps")
    for method in ("identity.renew", "sessions.login"):
        assert as_json(home, "explain", "com.a", method, *kind)["effect"] == "deny"
    (home / "policy.toml").write_text('version = 1\n[[rule]]\nid = "all"\neffect = "allow"\n')
    assert as_json(home, "explain", "com.a", "net.log")["rule"] == "all"
    assert as_json(home, "explain", "com.a", "net.log", *kind)["rule"] is None


@pytest.mark.row("D-5", "M-7")
def test_what_no_rule_is_asked_about_is_explained_and_replayed_as_it_is(home: Path) -> None:
    (home / "policy.toml").write_text('version = 1\n[[rule]]\nid = "scope-of-none"\neffect = "deny"\n')
    for method in ("identity.renew", "sessions.introspect"):
        assert "allowed: a client's own certificate and session" in said(home, "explain", "com.a", method)
        found = as_json(home, "explain", "com.a", method)
        assert (found["effect"], found["rule"], found["without"]["effect"]) == ("allow", None, "allow")
    for words in (("identity.renew", "--kind", "web"), ("sessions.login",), ("sessions.logout", "--direction", "out")):
        assert as_json(home, "explain", "com.a", *words)["rule"] == "scope-of-none"
    with State.open(home / "state.db") as state:
        audit = Audit(state)
        audit.note(Event.CALL_ALLOWED, session="c1", **recorded(Facts(app="com.a", method="identity.renew")))
        reason = 'rule "scope-of-none" of the operator layer (…)'
        refused = recorded(Facts(app="com.a", method="a.b"))
        audit.note(Event.CALL_REFUSED, session="c1", rule="scope-of-none", reason=reason, **refused)
        audit.close()
    found = as_json(home, "replay")
    assert (found["calls"], found["left_out"], found["changes"]) == (2, 0, [])


@pytest.mark.row("D-5")
def test_replay_says_what_another_policy_would_change(home: Path, tmp_path: Path) -> None:
    call = Facts(app="com.example.app", device="dev1", proof="adb", method="wifi.set")
    with State.open(home / "state.db") as state:
        audit = Audit(state)
        audit.note(Event.CALL_ALLOWED, session="c1", **recorded(call))
        for _ in range(3):
            audit.note(Event.CALL_REFUSED, session="c1", rule=None, reason="x", **recorded(_other(call)))
        audit.note(
            Event.CALL_REFUSED, session="c2", rule=None, reason="the session's scope does not …", **recorded(call)
        )
        audit.note(Event.CALL_REFUSED, session="c2", reason="of an older version")
        audit.close()
    (candidate := tmp_path / "new.toml").write_text(RULES.replace("wifi.*", "wifi.reset").replace('"deny"', '"allow"'))
    found = as_json(home, "replay", str(candidate))
    changes = [
        (each["was"], each["would_be"], each["method"], each["times"], each["rule"]) for each in found["changes"]
    ]
    assert changes == [("allow", "deny", "wifi.set", 1, None), ("deny", "allow", "wifi.reset", 3, "wifi")]
    assert (found["calls"], found["left_out"]) == (2, 2)
    text = said(home, "replay", str(candidate))
    assert "2 of 2 different calls" in text
    assert "com.example.app@dev1 (adb)" in text
    (home / "policy.toml").write_text(RULES)
    assert as_json(home, "replay", "--since", "1h")["changes"] == []
    assert "no record yet" in said(tmp_path / "elsewhere", "replay", code=1)


def _other(call: Facts) -> Facts:
    return Facts(app=call.app, device=call.device, proof=call.proof, method="wifi.reset", direction=Direction.IN)


async def _ask(broker: BrokerProcess, folder: Path, *routes: str) -> list[str]:
    """What comes of requests of one app, and what `policy explain` says of it while it is connected."""
    found = []
    async with client.connect(
        app_id="com.example.app",
        app="Example",
        device="desk",
        directory=folder,
        insecure_port=broker.insecure_port,
        secure_port=broker.secure_port,
    ) as session:
        for name in routes:
            try:
                await session.request(name, {})
                found.append("allowed")
            except client.RequestFailed as error:
                found.append(error.public)
        done = await asyncio.to_thread(broker.command, "policy", "explain", "com.example.app", "echo.request", "--json")
        found.append(json.loads(done.stdout)["call"]["session"])
    return found


@pytest.mark.row("A-27", "A-28", "D-14", "M-23")
def test_a_running_broker_enforces_reloads_and_records(start: Start, home: Path, tmp_path: Path) -> None:
    (home / "policy.toml").write_text(RULES)
    broker = start()
    allowed, refused, session = asyncio.run(_ask(broker, tmp_path / "app", "echo.request", "sessions.login"))
    assert (allowed, session) == ("allowed", "c1")
    assert refused.startswith("policy: this client may not call sessions.login.")
    assert as_json(home, "check")["in_force"] is True
    records = json.loads(broker.command("audit", "list", "--json").stdout)
    calls = {(one["event"], one["facts"]["method"]) for one in records if one["event"].startswith("call-")}
    assert calls == {("call-allowed", "echo.request"), ("call-refused", "sessions.login")}
    assert as_json(home, "replay")["changes"] == []

    (home / "policy.toml").write_text(RULES.replace('"wifi.*", "echo.*"', '"wifi.*"'))
    assert as_json(home, "replay")["changes"][0]["method"] == "echo.request"
    assert as_json(home, "reload")["problem"] is None
    assert asyncio.run(_ask(broker, tmp_path / "app", "echo.request"))[0].startswith("policy: ")

    (home / "policy.toml").write_text(RULES)
    broker.process.send_signal(signal.SIGHUP)
    until(lambda: as_json(home, "check")["in_force"])
    (home / "policy.toml").write_text("version = 1\n[[rule]]\n")
    assert "every rule needs an id" in said(home, "reload", code=1)
    assert "every rule needs an id" in as_json(home, "status")["problem"]
    (home / "policy.toml").write_text(RULES + "# mended\n")
    until(lambda: as_json(home, "status")["problem"] is None)
    outcomes = [
        one["facts"]["outcome"]
        for one in json.loads(broker.command("audit", "list", "--event", "policy", "--json").stdout)
    ]
    assert outcomes[:3] == ["in force"] * 3
    assert "refused" in outcomes


@pytest.mark.row("A-28", "M-21")
def test_a_broker_does_not_start_with_a_policy_that_has_a_fault_or_that_others_may_change(home: Path) -> None:
    (home / "policy.toml").write_text("version = 1\n[[rule]]\n")
    serve = ("serve", "--adb", "off", "--insecure-port", "0", "--secure-port", "0")
    done = run_command(home, *serve)
    assert (done.returncode, "policy.toml:2" in done.stderr) == (1, True)
    (home / "policy.toml").unlink()
    (vendor := home.parent / "vendor.toml").write_text("version = 1\n")
    vendor.chmod(0o666)
    done = run_command(home, *serve, "--vendor-policy", str(vendor))
    assert (done.returncode, "chmod 644" in done.stderr) == (1, True)


def until(condition: Any, seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


# --- the pages -------------------------------------------------------------------------------------------------------

PAGES = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(toml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.row("M-6", "M-22")
def test_the_guide_shows_what_its_policies_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (PAGES / "howto" / "restrict-what-apps-may-call.md").read_text(encoding="utf-8")
    asked = 0
    for language, text in BLOCK.findall(page):
        if language == "toml":
            (home / "policy.toml").write_text(text)
            continue
        for part in text.split("$ rsocket-broker policy explain ")[1:]:
            command, _, shown = part.partition("\n")
            answer = said(home, "explain", *shlex.split(command)).partition("\n\n")[2]
            assert answer.replace(f"{home}/", "") == shown.partition("$ ")[0], command
            asked += 1
    assert asked == 9


def test_the_reference_has_the_default_and_policies_that_can_be_read(home: Path) -> None:
    page = (PAGES / "reference" / "policy.md").read_text(encoding="utf-8")
    assert f"```toml\n{TEXT}```" in page
    for _, text in BLOCK.findall(page):
        whole = text if text.startswith("version") else f"version = 1\n{text}"
        (home / "policy.toml").write_text(whole)
        said(home, "check")
