"""Deployments that are on their way to the disk: the journal keeps them until they are there."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.enrollment import securing
from rsocket_broker.enrollment.journal import Journal
from rsocket_broker.enrollment.mediums.base import Bundle, Container, JournalEntry
from rsocket_broker.enrollment.securing import Securing
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State

BUNDLE = Bundle(csr="request", trust_pem=b"anchor", certificate_pem=b"certificate")


class Disk:
    """A driver that waits for a disk of its own."""

    def __init__(self, name: str = "disk") -> None:
        self.name = name
        self.secured: list[list[str]] = []
        self.fails = False

    async def secure(self, containers: Sequence[Container]) -> None:
        if self.fails:
            raise OSError("the disk is broken")
        self.secured.append([container.location["slot"] for container in containers])


class Bench:
    """Securing on a real journal."""

    def __init__(self, state: State) -> None:
        self.journal = Journal(state)
        self.tasks: list[asyncio.Task[None]] = []
        self.securing = Securing(self.end, lambda work: self.tasks.append(asyncio.ensure_future(work)))

    async def end(self, *entries: JournalEntry) -> None:
        await asyncio.to_thread(self.journal.end, *entries)

    def deploy(self, driver: Any, slot: str) -> JournalEntry:
        container = Container(
            medium=driver.name, principal=Principal("app", "device", Proof.FILESYSTEM), location={"slot": slot}
        )
        entry = self.journal.begin(container, BUNDLE, datetime.now(UTC))
        self.securing.add(driver, entry)
        return entry

    async def finish(self) -> None:
        self.securing.hurry()
        await asyncio.gather(*self.tasks)


async def test_those_of_a_moment_are_secured_together_and_then_leave_the_journal(tmp_path: Path) -> None:
    with State.open(tmp_path / "state.db") as state:
        bench, disk, other = Bench(state), Disk(), Disk("other")
        entries = [bench.deploy(disk, "1"), bench.deploy(other, "2"), bench.deploy(disk, "3")]
        await asyncio.sleep(0)
        assert bench.journal.pending() == entries
        await bench.finish()
        assert (disk.secured, other.secured) == ([["1", "3"]], [["2"]])
        assert bench.journal.pending() == []
        assert len(bench.tasks) == 1
        bench.deploy(disk, "4")
        await bench.finish()
        assert disk.secured[1:] == [["4"]]


async def test_a_batch_that_is_large_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(securing, "MAX_BATCH", 2)
    monkeypatch.setattr(securing, "PAUSE", 3600)
    with State.open(tmp_path / "state.db") as state:
        bench, disk = Bench(state), Disk()
        bench.deploy(disk, "1")
        bench.deploy(disk, "2")
        await asyncio.wait_for(asyncio.gather(*bench.tasks), 10)
        assert disk.secured == [["1", "2"]]
        bench.deploy(disk, "3")
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(disk.secured) == 1, "the next batch has its pause again"
        await bench.finish()
        assert disk.secured[1:] == [["3"]]


async def test_the_pause_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(securing, "PAUSE", 0.01)
    with State.open(tmp_path / "state.db") as state:
        bench, disk = Bench(state), Disk()
        bench.deploy(disk, "1")
        await asyncio.wait_for(asyncio.gather(*bench.tasks), 10)
        assert disk.secured == [["1"]]


async def test_what_a_failing_disk_did_not_take_stays_in_the_journal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with State.open(tmp_path / "state.db") as state:
        bench, disk, other = Bench(state), Disk(), Disk("other")
        disk.fails = True
        kept = bench.deploy(disk, "1")
        bench.deploy(other, "2")
        await bench.finish()
        assert bench.journal.pending() == [kept]
        assert "the disk is broken" in caplog.text
