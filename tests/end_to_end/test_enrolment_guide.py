"""docs/howto/let-devices-in.md, run from its top to its end: what it prints is what the commands print."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsocket_broker.enrollment.modes import GUESSES, Mode
from tests.end_to_end.processes import BrokerProcess, run_here, start_broker

GUIDE = Path(__file__).parent.parent.parent / "docs" / "howto" / "let-devices-in.md"
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAME = (
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?"), "TIME"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "GRANT"),
    (re.compile(r"\bhost-[0-9a-f]{16}\b"), "DEVICE"),
    (re.compile(r"\b[1-9]\d{3,4}\b"), "PORT"),
    (re.compile(r"9m \d+s"), "10m"),
    (re.compile(r" +"), " "),
)
"""What differs from machine to machine and from day to day."""


def steps() -> list[tuple[str, str]]:
    """Each command with what it prints."""
    text = "".join(CONSOLE.findall(GUIDE.read_text(encoding="utf-8")))
    found = re.split(r"^\$ rsocket-broker (.*)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(found[::2], found[1::2], strict=True))


def said(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Each command, what the guide says that it prints, and what it prints."""
    running: BrokerProcess | None = None
    home = folder / "home"
    try:
        for command, expected in steps():
            words = [
                str(folder / word) if word in ("app", "token", "token-of-the-emulator") else word
                for word in command.split()
            ]
            if words[0] == "serve":
                if running is not None:
                    running.stop()
                running = start_broker(home, *command.split()[1:])
                yield command, expected, ""
                continue
            _, said_of_it = run_here(home, *words)
            yield command, expected, said_of_it.replace(str(folder), "/home/op")
    finally:
        if running is not None:
            assert running.stop() == 0


def plain(text: str) -> str:
    for pattern, word in SAME:
        text = pattern.sub(word, text)
    return text


@pytest.mark.row("A-07", "A-11", "A-13", "M-17")
def test_the_guide_prints_what_the_commands_print(tmp_path: Path) -> None:
    count = 0
    for command, expected, real in said(tmp_path):
        assert plain(real) == plain(expected), command
        count += 1
    assert count > 15


def test_the_guide_names_every_mode_and_the_figures_of_the_code() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    for mode in Mode:
        assert f"| `{mode.value}` |" in text
    assert f"after {GUESSES.burst:g} wrong ones in a row, one in {1 / GUESSES.per_second:g} s" in text
