"""Sessions and the ends of their certificates, by a clock that the test moves."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from rsocket_broker.identity import Identity, Principal, Proof
from rsocket_broker.lifecycle import expiry
from rsocket_broker.lifecycle.expiry import SLACK, Expiry
from tests.lifecycle.holders import authority_of, enrol, running

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
WHO = Principal("org.example.app", "d1", Proof.ADB)


@attrs.define(eq=False, slots=False)
class Line:
    closing: object = None


@attrs.define(eq=False, slots=False)
class FakeSession:
    """What Expiry needs to know of a session."""

    id: str
    identity: Identity
    is_child: bool = False
    connection: Line = attrs.field(factory=Line)


class Ward:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(expiry, "LONGEST_SLEEP", 0.005)
        self.now = START
        self.sessions: list[FakeSession] = []
        self.ended: list[tuple[str, str]] = []
        self.expiry = Expiry(self.end, lambda: self.sessions, lambda: self.now)  # type: ignore[arg-type,return-value]

    def end(self, session: FakeSession, reason: str) -> None:  # type: ignore[override]
        self.ended.append((session.id, reason))
        session.connection.closing = "ended"

    def session(self, name: str, hours: float, **more: object) -> FakeSession:
        identity = Identity(WHO, "client", 1, "ab", 1, START + timedelta(hours=hours))
        one = FakeSession(name, identity, **more)  # type: ignore[arg-type]
        self.sessions.append(one)
        self.expiry.watch(one)  # type: ignore[arg-type]
        return one

    async def pass_to(self, hours: float, holds: Callable[[], bool] = lambda: True) -> None:
        self.now = START + timedelta(hours=hours)
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)


@pytest.fixture
async def ward(monkeypatch: pytest.MonkeyPatch) -> Ward:
    return Ward(monkeypatch)


@pytest.mark.row("A-22")
async def test_a_session_ends_when_its_certificate_does_and_not_before(ward: Ward) -> None:
    ward.session("late", 3), ward.session("early", 1), ward.session("middle", 2)
    await ward.pass_to(1)
    assert ward.ended == [], "it is good through its last second"
    await ward.pass_to(1.001, lambda: bool(ward.ended))
    assert ward.ended == [("early", "its certificate ended on 2026-03-01 13:00 UTC")]
    await ward.pass_to(5, lambda: len(ward.ended) == 3)
    assert [name for name, _ in ward.ended] == ["early", "middle", "late"]
    ward.expiry.stop()


@pytest.mark.row("A-22", "D-2")
async def test_a_session_that_was_renewed_ends_with_its_new_certificate(ward: Ward) -> None:
    one = ward.session("one", 1)
    one.identity = attrs.evolve(one.identity, not_after=START + timedelta(hours=2))
    ward.expiry.watch(one)  # type: ignore[arg-type]
    await ward.pass_to(1.5)
    assert ward.ended == []
    await ward.pass_to(2.1, lambda: bool(ward.ended))
    assert len(ward.ended) == 1
    ward.expiry.stop()


async def test_children_and_those_that_have_gone_are_nobodys_business(ward: Ward) -> None:
    ward.session("child", 1, is_child=True)
    gone = ward.session("gone", 1)
    gone.connection.closing = "left"
    await ward.pass_to(2)
    assert ward.ended == []
    ward.session("after the end of the broker", 3)
    ward.expiry.stop()
    await ward.pass_to(4)
    assert ward.ended == []


async def test_what_is_noted_of_sessions_that_have_gone_does_not_grow(ward: Ward) -> None:
    stays = ward.session("stays", 1)
    for number in range(5 * SLACK):
        ward.session(f"s{number}", 700)
        ward.sessions.pop()
    assert len(ward.expiry._due) <= SLACK + 3
    await ward.pass_to(1.1, lambda: bool(ward.ended))
    assert [name for name, _ in ward.ended] == [stays.id]
    ward.expiry.stop()


@pytest.mark.row("A-22")
async def test_a_real_session_is_told_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "LONGEST_SLEEP", 0.01)
    async with running(tmp_path / "home") as broker:
        holder = await enrol(broker, tmp_path)
        line = await asyncio.to_thread(holder.connect)
        with line:
            record = authority_of(broker).record(holder.serial)
            assert record is not None and broker._expiry is not None
            monkeypatch.setattr(broker._expiry, "_clock", lambda: record.not_after + timedelta(seconds=2))
            (session,) = broker.sessions
            broker._expiry.watch(session)
            broker._expiry._set_timer()
            (end,) = await asyncio.to_thread(line.frames)
        assert "its certificate ended on" in end.error[1]
