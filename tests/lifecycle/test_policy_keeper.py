"""The policy of a running broker: read at the start, read again when it changes, kept when the new one is broken."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.audit import Audit, Event
from rsocket_broker.errors import ApplicationError, ConfigurationError, Invalid, Rejected
from rsocket_broker.lifecycle import policy_keeper as module
from rsocket_broker.lifecycle.policy_keeper import PolicyKeeper
from rsocket_broker.plugin_api import App, Plugin, method
from rsocket_broker.policy.rules import Effect, Facts
from rsocket_broker.routing.policy_files import POLICY_FILE, PolicyFiles
from rsocket_broker.state import State
from tests.routing.line import Line, until

CALL = Facts(app="com.demo", method="wifi.set")
GOOD = 'version = 1\n[[rule]]\nid = "x"\neffect = "{}"\nmethod = "wifi.set"\n'


class Wifi(Plugin):
    id = "wifi"

    @method("set")
    def set(self, app: App) -> None: ...

    @method("wait", deadline=None)
    async def wait(self, app: App) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    with State.open(tmp_path / "home" / "state.db") as state:
        audit = Audit(state)
        yield audit
        audit.close()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "home" / POLICY_FILE


@pytest.fixture
async def keeper(audit: Audit, policy: Path) -> AsyncIterator[PolicyKeeper]:
    policy.write_text(GOOD.format("allow"))
    keeper = PolicyKeeper(PolicyFiles(policy.parent), ["given"], audit)
    yield keeper
    keeper.stop()


def noted(audit: Audit) -> list[dict[str, Any]]:
    import json

    audit.flush(all_of_it=True)
    rows = audit._state.read("SELECT body FROM audit WHERE event = ? ORDER BY number", (Event.POLICY.value,))
    return [json.loads(row["body"])["facts"] for row in rows]


@pytest.mark.row("A-28")
async def test_a_broker_does_not_start_with_a_broken_policy(audit: Audit, policy: Path) -> None:
    policy.write_text(GOOD.format("allowx"))
    with pytest.raises(ConfigurationError, match=r'policy.toml:4: rule "x": effect: "allowx" is none of its values'):
        PolicyKeeper(PolicyFiles(policy.parent), [], audit)


@pytest.mark.row("A-28", "D-14")
async def test_a_change_is_in_force_and_recorded_with_the_digest_of_each_layer(
    keeper: PolicyKeeper, audit: Audit, policy: Path
) -> None:
    before = keeper.describe()["layers"]
    policy.write_text(GOOD.format("deny"))
    described = await keeper.reload()
    assert keeper.access.policy.decide(CALL).effect is Effect.DENY
    assert described["problem"] is None
    assert described["layers"] != before
    await keeper.reload()
    found = noted(audit)
    assert [one["outcome"] for one in found] == ["in force", "in force"]
    assert [len(one["layers"]) for one in found] == [1, 1]
    assert found[0]["layers"] != found[1]["layers"]
    assert found[1]["layers"][0].startswith(f"operator {policy} ")


@pytest.mark.row("A-28")
async def test_a_broken_change_leaves_the_policy_as_it_is_and_says_so_everywhere(
    keeper: PolicyKeeper, audit: Audit, policy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy.write_text("version = 1\n[[rule]]\n")
    described = await keeper.reload()
    assert keeper.access.policy.decide(CALL).effect is Effect.ALLOW
    assert "every rule needs an id" in str(described["problem"])
    assert keeper.access.problem == described["problem"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "the one before stays in force" in caplog.text
    (_, refused) = noted(audit)
    assert (refused["outcome"], refused["reason"]) == ("refused", described["problem"])
    policy.write_text(GOOD.format("allow"))
    assert (await keeper.reload())["problem"] is None
    assert keeper.access.problem == ""


@pytest.mark.row("A-28", "M-21")
async def test_files_that_have_changed_are_read_by_themselves_once_they_stay_as_they_are(
    audit: Audit, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.02)
    keeper = PolicyKeeper(PolicyFiles(policy.parent), [], audit)
    async with Line(Wifi) as line:
        line.endpoint.access = line.endpoint.router.access = keeper.access
        keeper.start(line.endpoint)
        policy.write_text(GOOD.format("allow") + '[[rule]]\nid = "y"\neffect = "allow"\nmethod = "wifi.wait"\n')
        await until(lambda: keeper.access.policy.decide(CALL).effect is Effect.ALLOW)
        client = await line.connect()
        await client.ask("wifi.set")
        work = asyncio.ensure_future(client.ask("wifi.wait", timeout=60))
        await until(lambda: client.session.plugins.seats["wifi"].running)
        policy.write_text(GOOD.format("deny"))
        with pytest.raises(Rejected, match="policy"):
            await work
        with pytest.raises(Rejected, match="policy"):
            await client.ask("wifi.set")
        policy.write_text("broken")
        await until(lambda: keeper.access.problem)
        policy.unlink()
        await until(lambda: not keeper.access.problem)
        keeper.stop()
        assert keeper.describe()["layers"][0]["source"] == "built-in default"  # type: ignore[index]


async def test_the_hook_and_what_it_has_said_stay_unless_it_changes(keeper: PolicyKeeper, policy: Path) -> None:
    hook = '[hook]\nurl = "unix:/nowhere"\n'
    policy.write_text(GOOD.format("ask") + hook)
    assert (await keeper.reload())["hook"] == "unix:/nowhere"
    first = keeper.access.hook
    policy.write_text(GOOD.format("ask") + hook + "# a word\n")
    await keeper.reload()
    assert keeper.access.hook is first
    policy.write_text(GOOD.format("ask") + hook + "ttl = 1\n")
    await keeper.reload()
    assert keeper.access.hook is not first
    policy.write_text(GOOD.format("allow"))
    await keeper.reload()
    assert keeper.access.hook is None


async def test_the_command_line_may_ask(keeper: PolicyKeeper, policy: Path) -> None:
    verbs = keeper.verbs()
    assert set(verbs) == {"policy.reload", "policy.status", "policy.facts"}
    assert verbs["policy.status"].run({}) == keeper.describe()
    policy.write_text(GOOD.format("deny"))
    await verbs["policy.reload"].run({})  # type: ignore[misc]
    assert keeper.access.policy.decide(CALL).effect is Effect.DENY
    policy.write_text(GOOD.format("allow"))
    keeper.reload_soon()
    await until(lambda: keeper.access.policy.decide(CALL).effect is Effect.ALLOW)


@pytest.mark.row("D-5")
async def test_a_live_session_says_what_its_calls_look_like_to_rules(keeper: PolicyKeeper) -> None:
    async with Line(Wifi) as line:
        keeper._endpoint = line.endpoint
        ask = keeper.verbs()["policy.facts"].run
        await line.connect()
        about = {"client": "c1", "direction": "in", "method": "wifi.set"}
        (found,) = ask(about)  # type: ignore[misc,attr-defined]
        assert (found["app_id"], found["method"], found["session"], found["in_scope"]) == (
            "com.demo",
            "wifi.set",
            "c1",
            True,
        )
        (relayed,) = ask(about | {"direction": "relay", "to": "com.other@x"})  # type: ignore[misc,attr-defined]
        assert (relayed["method"], relayed["to"]) == ("", "com.other@x")
        (elsewhere,) = ask(about | {"direction": "out", "method": "Nobody.here"})  # type: ignore[misc,attr-defined]
        assert elsewhere["method"] == "Nobody.here"
        with pytest.raises(ApplicationError):
            ask(about | {"client": "c9"})
        with pytest.raises(Invalid):
            ask(about | {"direction": "up"})
