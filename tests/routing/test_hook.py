"""The external hook, against a real HTTP server: whatever is no clear yes is a no."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import attrs
import pytest

from rsocket_broker.policy.hook import HookSettings
from rsocket_broker.policy.rules import Direction, Facts
from rsocket_broker.routing import hook as module
from rsocket_broker.routing.hook import FAILURE_TTL, MAX_BODY, MAX_HEAD, MAX_OF_ONE, MAX_WAITING, Hook
from tests.routing.decider import deciding, http

FACTS = Facts(app="com.demo", device="dev1", proof="adb", method="wifi.set", user="anna")


def hook(url: str, **options: Any) -> Hook:
    return Hook(HookSettings(url=url, **options))


@pytest.mark.row("M-18")
async def test_the_service_is_told_the_call_and_decides_it() -> None:
    async with deciding(lambda question: question["method"] == "wifi.set") as decider:
        asking = hook(decider.url)
        assert await asking.ask(FACTS)
        assert not await asking.ask(attrs.evolve(FACTS, method="wifi.get", direction=Direction.OUT))
        assert decider.asked[0] == {
            "app": "com.demo",
            "device": "dev1",
            "proof": "adb",
            "profile": "client",
            "method": "wifi.set",
            "direction": "in",
            "channel": "tls",
            "kind": "device",
            "user": "anna",
            "to": "",
        }
        assert decider.heads[0].startswith("POST /decide?x=1 HTTP/1.0\r\nHost: 127.0.0.1:")
        assert asking.results == {"allowed": 1, "denied": 1}


async def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    async with deciding(socket=tmp_path / "s") as decider:
        assert await hook(decider.url).ask(FACTS)


@pytest.mark.row("M-18")
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http({"allow": "yes"}), 'has no "allow" that is true or false'),
        (http({}), 'has no "allow"'),
        (http(b"yes"), "is not JSON"),
        (http(b"[true]"), "its answer is"),
        (http({"allow": True}, "500 Oops"), "it answers 500, not 200"),
        (http({"allow": True}, "204 No Content"), "it answers 204"),
        (b"HTTP/1.1\r\n\r\n", "answers nothing"),
        (b"hello\r\n\r\n", "it answers nothing"),
        (b"", "no HTTP"),
        (b"x" * (MAX_HEAD + 100), "no HTTP"),
        (http(b" " * (MAX_BODY + 1)), "longer than"),
    ],
)
async def test_whatever_is_no_clear_yes_is_a_no(answer: bytes, why: str, caplog: pytest.LogCaptureFixture) -> None:
    async with deciding() as decider:
        decider.answer = lambda question: answer
        asking = hook(decider.url)
        assert not await asking.ask(FACTS)
        assert asking.results == {"failed": 1}
        assert why in caplog.text


@pytest.mark.row("M-18")
async def test_a_service_that_is_down_or_slow_says_no(caplog: pytest.LogCaptureFixture) -> None:
    async with deciding() as decider:
        decider.gate.clear()
        slow = hook(decider.url, timeout=0.05)
        assert not await slow.ask(FACTS)
        assert "did not answer in time" in caplog.text
    assert not await hook(decider.url).ask(FACTS)
    assert not await hook("unix:/nowhere/at/all").ask(FACTS)


async def test_an_answer_holds_for_its_time_and_a_failure_for_a_moment() -> None:
    now = 100.0
    async with deciding() as decider:
        asking = Hook(HookSettings(url=decider.url, ttl=10), clock=lambda: now)
        assert asking.known(FACTS) is None
        await asking.ask(FACTS)
        assert asking.known(FACTS) is True
        assert asking.known(attrs.evolve(FACTS, user="otto")) is None
        now += 10
        assert asking.known(FACTS) is None
        decider.answer = lambda question: b""
        await asking.ask(FACTS)
        assert asking.known(FACTS) is False
        now += FAILURE_TTL
        assert asking.known(FACTS) is None
        once = Hook(HookSettings(url=decider.url, ttl=0), clock=lambda: now)
        decider.answer = None
        assert await once.ask(FACTS)
        assert once.known(FACTS) is None


async def test_questions_are_asked_so_many_at_once_and_answers_kept_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 5)
    monkeypatch.setattr(module, "MAX_WAITING", 20)
    async with deciding() as decider:
        asking = hook(decider.url, concurrency=3, timeout=5)
        questions = [attrs.evolve(FACTS, method=f"m.{number}") for number in range(30)]
        answers = await asyncio.gather(*map(asking.ask, questions))
        assert answers.count(True) == 20
        assert decider.most_at_once == 3
        assert sum(asking.known(each) is not None for each in questions) == 5


async def test_https_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    async with deciding() as decider:
        asking = hook(decider.url.replace("http:", "https:"), timeout=1)
        assert not await asking.ask(FACTS)
        assert isinstance(asking._tls, ssl.SSLContext)
        assert asking._tls.verify_mode is ssl.CERT_REQUIRED
        assert asking._tls.check_hostname


@pytest.mark.row("M-18")
async def test_one_client_that_asks_for_everything_shuts_nobody_else_out() -> None:
    async with deciding() as decider:
        decider.gate.clear()
        asked = hook(decider.url, timeout=30)
        greedy = [asyncio.ensure_future(asked.ask(Facts("com.a", "dev", method=f"a.{n}"))) for n in range(MAX_WAITING)]
        await asyncio.wait(greedy, timeout=0.05)
        assert sum(each.done() for each in greedy) == MAX_WAITING - MAX_OF_ONE
        others = [asyncio.ensure_future(asked.ask(Facts(f"com.{n}", "dev", method="a.b"))) for n in range(10)]
        await asyncio.sleep(0)
        decider.gate.set()
        assert all(await asyncio.gather(*others))
        assert sum(await asyncio.gather(*greedy)) == MAX_OF_ONE
        assert not asked._waiting_of
