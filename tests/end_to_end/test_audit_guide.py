"""docs/howto/audit-a-broker.md, run from its top to its end: what it prints is what the commands print."""

import re
import subprocess
from pathlib import Path

import pytest

from rsocket_broker.audit import Event, waiting
from rsocket_broker.audit import audit as audit_module
from tests.end_to_end.processes import clean_environment, program

GUIDE = Path(__file__).parent.parent.parent / "docs" / "howto" / "audit-a-broker.md"
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (`[^|]+`) \| (\w+) \|", re.MULTILINE)


def steps() -> list[tuple[str, str]]:
    """Each command with what it prints."""
    text = "".join(CONSOLE.findall(GUIDE.read_text(encoding="utf-8")))
    found = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(found[::2], found[1::2], strict=True))


def plain(text: str, home: Path) -> str:
    """What is the same on every machine and every day."""
    text = text.replace(str(home), "HOME").replace("/home/op/broker", "HOME")
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d\.\d{3}Z)?", "TIME", text)
    return re.sub(r"\b(?=[0-9a-f]*[1-9a-f])[0-9a-f]{30,64}\b", "HEX", re.sub(r" +", " ", text))


@pytest.mark.row("D-14")
@pytest.mark.timeout(180)
def test_the_guide_prints_what_the_commands_print(tmp_path: Path) -> None:
    home, marks = tmp_path / "home", dict[str, str]()
    for command, expected in steps():
        for shown, real in marks.items():
            command = command.replace(shown, real)
        words = command.split()
        line = program(home, *words[1:]) if words[0] == "rsocket-broker" else words
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, env=clean_environment())
        said = done.stdout + done.stderr
        assert plain(said, home) == plain(expected, home), command
        assert done.returncode == (1 if "FAIL" in expected else 0), command
        marks |= dict(zip(re.findall(r"mark (\S+)", expected), re.findall(r"mark (\S+)", said), strict=True))
    assert len(marks) == 2


def test_the_table_names_every_kind_and_its_book() -> None:
    rows = {
        name: book
        for names, book in ROW.findall(GUIDE.read_text(encoding="utf-8"))
        for name in re.findall("[a-z-]+", names)
    }
    rows.pop("--event", None)
    assert rows == {event.value: event.book.value for event in Event}


def test_the_figures_are_those_of_the_code() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    for figure in (
        f"within {waiting.PERIOD_S / 60:.0f} minutes",
        f"has {waiting.MAX_OF_ONE} different records",
        f"together have {waiting.MAX_ALL}.",
        f"newest {audit_module.MAX_TRAFFIC} records",
        f"oldest {audit_module.TRIMMED_AT_ONCE} are",
    ):
        assert figure in text, figure
