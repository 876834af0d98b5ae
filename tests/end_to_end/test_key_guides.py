"""The guides on backups, on a CA of one's own and on production, run from top to end: what they print is real."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsocket_broker.cli import production
from tests.end_to_end.processes import clean_environment, run_command, start_broker

HOWTO = Path(__file__).parent.parent.parent / "docs" / "howto"
BLOCK = re.compile(r"^```(console|toml|ini)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ETC = "/etc/rsocket-broker"
SHOWN_HOME, SHOWN_FOLDER = "/var/lib/rsocket-broker", "/home/op"
"""What stands in the guides for the home, and for the folder in which the commands are given."""


def steps(page: str) -> Iterator[tuple[str, str]]:
    """Each command with what it prints, and each file (named by the comment in its first line) with its content."""
    for kind, text in BLOCK.findall((HOWTO / page).read_text(encoding="utf-8")):
        if kind == "console":
            found = re.split(r"^\$ ((?:.*\\\n)*.*)\n", text, flags=re.MULTILINE)[1:]
            yield from zip(found[::2], found[1::2], strict=True)
        else:
            name, _, content = text.partition("\n")
            yield f"write {name.removeprefix('# ')}", content


class Reader:
    """Follows a guide in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        (folder / "etc").mkdir(mode=0o700)
        (folder / "bin").mkdir()
        program = folder / "bin" / "rsocket-broker"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rsocket_broker --home "{self.home}" "$@"\n')
        program.chmod(0o755)

    def follow(self, command: str, content: str = "") -> tuple[int, str]:
        """The exit code, and stdout followed by stderr."""
        if command.startswith("write "):
            path = self.folder / command.removeprefix("write ").replace("HOME", str(self.home))
            path.write_text(content.replace(ETC, str(self.folder / "etc")))
            return 0, ""
        environment = clean_environment() | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        line = command.replace(ETC, str(self.folder / "etc"))
        shell = ["bash", "-c", line]
        done = subprocess.run(shell, cwd=self.folder, capture_output=True, text=True, timeout=60, env=environment)
        return done.returncode, done.stdout + done.stderr

    def shown(self, text: str) -> str:
        """As the guides have it."""
        text = text.replace(str(self.home), SHOWN_HOME).replace(str(self.folder / "etc"), ETC)
        return text.replace(str(self.folder), SHOWN_FOLDER)


def plain(text: str) -> str:
    """What is the same on every machine and every day."""
    text = re.sub(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d\+00:00| \d\d:\d\d:\d\d| \d\d:\d\d)?", "TIME", text)
    text = re.sub(r"\b[0-9a-f]{36,64}\b", "HEX", text)
    text = re.sub(r"\b\d{4,}\b", "N", text)
    text = re.sub(r"^should  user .*\n", "ok      user  it is not root\n", text, flags=re.MULTILINE)
    return re.sub(r" +", " ", text)


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def check(reader: Reader, page: str) -> None:
    for command, expected in steps(page):
        code, said = reader.follow(command, expected)
        if not command.startswith("write "):
            assert plain(reader.shown(said)) == plain(expected), command
        assert code == 0, command


@pytest.mark.row("A-24", "D-15")
def test_the_guide_to_backups(reader: Reader) -> None:
    check(reader, "back-up-a-home.md")
    assert start_broker(reader.folder / "again").stop() == 0


@pytest.mark.row("A-14")
def test_the_guide_to_a_ca_of_ones_own(reader: Reader) -> None:
    check(reader, "use-your-own-ca.md")


@pytest.mark.row("M-4", "A-24")
def test_the_guide_to_production_ends_with_a_home_that_passes(reader: Reader) -> None:
    assert run_command(reader.home, "doctor", "--production").returncode == 1
    check(reader, "harden-for-production.md")
    broker = start_broker(reader.home)
    try:
        assert broker.command("doctor", "--production").returncode == 0, "while it runs, too"
    finally:
        assert broker.stop() == 0


def test_the_figures_are_those_of_the_code() -> None:
    text = (HOWTO / "harden-for-production.md").read_text(encoding="utf-8")
    rows = [
        (production.LEAF_LIFE.days + 1, production.LONGEST_LEAF_LIFE.days + 1, "{} days | {} days"),
        (production.KEY_AGE.days // 365, production.OLDEST_KEY.days // 365, "{} year | {} years"),
        (production.CA_LEFT.days, production.CA_LEAST_LEFT.days, "{} days before | {} days before"),
        (production.ROTATION_OPEN.days, production.ROTATION_STUCK.days, "{} days | {} days"),
        (production.IMPORT_AHEAD.days, 0, "{} days before | |"),
        (production.BACKUP_AGE.days, 0, "{} days | |"),
    ]
    for should, must, words in rows:
        assert words.format(should, must) in text, words
