"""What a recorder keeps; that a recording is served again is in tests/cli/test_clients_record.py."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from rsocket_broker.jsontext import parse
from rsocket_broker.lifecycle import recording_verbs
from rsocket_broker.lifecycle.recording_verbs import Recorder, as_json, header_of
from tests.test_broker import running


async def lines_of(recorder: Recorder) -> list[Any]:
    return [parse(line) if isinstance(line, bytes) else line async for line in recorder.lines()]


async def recorded(tmp_path: Path, work: Any) -> tuple[Any, list[Any]]:
    """The header and the lines of a session in which `work` was done."""
    async with running(tmp_path / "home") as broker:
        app = client.connect(
            app_id="org.example.one",
            app="One",
            directory=tmp_path / "app",
            insecure_port=broker.ports.insecure_port,
            secure_port=broker.ports.secure_port,
        )
        async with app:
            (session,) = broker.sessions
            recorder = Recorder(session)
            work(session)
            reading = asyncio.ensure_future(lines_of(recorder))
            header = header_of(session)
        return header, await reading


async def test_it_ends_with_its_session_and_begins_with_whose_it_is(tmp_path: Path) -> None:
    header, lines = await recorded(
        tmp_path, lambda session: session.note("in", "event", "P", "told", 3, {"a": [1, None]})
    )
    assert (header.app_id, header.app) == ("org.example.one", "One")
    assert lines[0]["recording"] == 1
    assert [(line["kind"], line["plugin"], line["method"], line["content"]) for line in lines[1:]] == [
        ("event", "P", "told", {"a": [1, None]})
    ]


async def test_what_is_too_much_to_hold_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_verbs, "BACKLOG_BYTES", 300)

    def too_much(session: Any) -> None:
        for number in range(3):
            session.note("in", "event", "P", "told", 200, str(number) * 100)

    _, lines = await recorded(tmp_path, too_much)
    assert [line.get("dropped") or line["content"][0] for line in lines[1:]] == ["0", 2]


async def test_what_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    _, lines = await recorded(tmp_path, lambda session: session.note("out", "call", "P", "ask", None, object()))
    assert len(lines) == 1


def test_bytes_are_written_as_text() -> None:
    assert as_json(b"\xff\x00") == {"base64": "/wA="}
    assert as_json({"a": 1}) == {"a": 1}
