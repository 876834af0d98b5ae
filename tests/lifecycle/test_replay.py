"""A recorded app over a line of its own, with a receiver in the place of a session."""

import asyncio
from pathlib import Path

import pytest

from rsocket_broker.errors import HomeError, Invalid
from rsocket_broker.jsontext import dump, parse
from rsocket_broker.lifecycle.replay import ReplayedLine, read_recording
from rsocket_broker.recording.entries import Entry
from rsocket_broker.recording.recorded_app import RecordedApp
from rsocket_broker.transports.base import Channel, Peer, TextTransport
from tests.recording.test_entries import HEADER


class Listener:
    """The TextReceiver above the line."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.lost = 0
        self.news = asyncio.Event()

    def transport_ready(self, transport: TextTransport) -> None: ...

    def heard(self, size: int) -> None:
        self.news.set()

    def message_received(self, text: bytes) -> None:
        self.texts.append(text)

    def eof_received(self) -> None: ...

    def writing_paused(self) -> None: ...

    def writing_resumed(self) -> None: ...

    def transport_lost(self, error: Exception | None) -> None:
        self.lost += 1


def line_of(*entries: Entry, speed: float = 0.0) -> tuple[ReplayedLine, Listener]:
    line, listener = ReplayedLine(RecordedApp(HEADER, entries, speed), Peer("a recording", Channel.MEMORY)), Listener()
    line.start(listener)
    return line, listener


def event(at: float, number: int) -> Entry:
    return Entry(at, True, "event", "Network", "newRequest", {"id": number})


def init(line: ReplayedLine) -> None:
    line.send(dump({"method": "init", "params": {"plugin": "Network"}}))


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def ids(listener: Listener) -> list[int]:
    return [parse(text)["params"]["params"]["id"] for text in listener.texts]  # type: ignore[index,call-overload]


async def test_everything_is_said_in_its_order() -> None:
    line, listener = line_of(*(event(0.001 * number, number) for number in range(5)))
    init(line)
    await asyncio.wait_for(line.over, 5)
    await turns()
    assert ids(listener) == [0, 1, 2, 3, 4]


async def test_who_is_held_back_says_nothing_and_forgets_nothing() -> None:
    line, listener = line_of(event(0, 1), event(0, 2))
    line.pause_reading()
    init(line)
    await turns()
    assert listener.texts == []
    line.resume_reading()
    await turns()
    assert ids(listener) == [1, 2]


async def test_nothing_is_said_after_the_end() -> None:
    line, listener = line_of(event(0, 1), event(3600, 2), speed=1)
    init(line)
    line.close(1000, "enough")
    line.abort()
    await turns()
    assert (listener.texts, listener.lost) == ([], 1)
    assert line.over.done()


async def test_a_recorded_app_gives_signs_of_life() -> None:
    line, listener = line_of()
    line.ping()
    await asyncio.wait_for(listener.news.wait(), 5)
    assert line.over.done(), "it has nothing to say by itself"


def test_a_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "shop.jsonl"
    path.write_bytes(
        HEADER.line() + b'\n{"at": 1, "kind": "event", "direction": "in", "plugin": "P"}\n{"dropped": 1}\n'
    )
    found = read_recording(path)
    assert found.header == HEADER
    assert found.entries == (Entry(1.0, True, "event", "P", "", None),)
    claims = found.claims
    assert (claims.app, claims.os, claims.sdk_version, claims.is_flipper) == ("Shop", "Android", 4, True)


def test_a_fault_is_named_by_its_line_and_a_loose_file_by_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "shop.jsonl"
    path.write_bytes(HEADER.line() + b"\nnonsense\n")
    with pytest.raises(Invalid, match="line 2"):
        read_recording(path)
    path.chmod(0o666)
    with pytest.raises(HomeError, match="chmod"):
        read_recording(path)
