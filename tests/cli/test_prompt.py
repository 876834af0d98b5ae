"""Questions to a terminal, or to a script, while something else goes on."""

import asyncio
import os
import pty
from collections.abc import Iterator
from typing import IO

import pytest

from rsocket_broker.cli.prompt import MAX_ANSWER, Lines


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[bytes]]:
    """What is written here is stdin."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb", buffering=0) as out:
        monkeypatch.setattr("sys.stdin", stdin)
        yield out
        out.close()


async def test_lines_are_answers_in_their_order_and_the_end_is_a_no(
    pipe: IO[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    pipe.write(b"the code\r\nyes\nn")
    lines = Lines()
    assert await lines.ask("Code: ") == "the code"
    assert await lines.agrees("Same?")
    pipe.close()
    assert not await lines.agrees("Same?")
    assert not await lines.agrees("Same?"), "after the end too"
    assert "Code: Same? [y/N] " in capfd.readouterr().err


async def test_the_loop_goes_on_while_nobody_answers_and_a_question_can_be_given_up(pipe: IO[bytes]) -> None:
    lines = Lines()
    asking = asyncio.ensure_future(lines.ask(""))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await asyncio.shield(asking)
    asking.cancel()
    pipe.write(b"x" * 5000 + b"\n")
    assert await lines.ask("") == "x" * MAX_ANSWER
    pipe.close()
    assert await lines.ask("") == ""


@pytest.mark.row("D-10")
async def test_what_was_typed_before_a_question_is_no_answer_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a yes that was meant for the digits of an app that has gone would be said to the next one."""
    master, slave = pty.openpty()
    with os.fdopen(slave) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        lines = Lines()
        os.write(master, b"first\n")
        assert await lines.ask("") == "first"
        os.write(master, b"y\n")
        async with asyncio.timeout(5):
            while lines._lines.empty():
                await asyncio.sleep(0.01)
        asking = asyncio.ensure_future(lines.agrees("Same?"))
        await asyncio.sleep(0)
        os.write(master, b"n\n")
        assert not await asking
        os.write(master, b"\x04")
        assert await lines.ask("") == ""
    os.close(master)


@pytest.mark.row("D-10")
async def test_what_was_typed_while_the_code_was_shown_is_no_yes_to_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        os.write(master, b"y\n")
        lines = Lines()
        asking = asyncio.ensure_future(lines.agrees("Same?"))
        await asyncio.sleep(0)
        os.write(master, b"n\n")
        assert not await asking
        os.write(master, b"\x04")
        assert await lines.ask("") == ""
    os.close(master)
