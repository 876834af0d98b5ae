"""`app preferences …` with an app that is connected."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rsocket_broker.cli.app.preferences import show_change
from tests.cli.app.conftest import Phone
from tests.end_to_end.processes import clean_environment, program


def test_preferences_are_read(phone: Phone) -> None:
    lines = phone.say("preferences", "list").stdout.splitlines()
    assert [line.split() for line in lines] == [["FILE", "KEYS"], ["settings", "3"], ["other", "2"]]
    assert phone.say("preferences", "get", "only").stdout == "1\n"
    assert ["settings", "name", '"n"'] in [line.split() for line in phone.say("preferences", "get").stdout.splitlines()]
    assert len(phone.say("preferences", "get", "--file", "other").stdout.splitlines()) == 3
    found = json.loads(phone.say("preferences", "get", "--json").stdout)
    assert found["files"]["other"] == {"dark": True, "only": 1}
    done = phone.say("preferences", "get", "dark")
    assert (done.returncode, "is in 2 files" in done.stderr) == (1, True)


def test_preferences_are_changed_and_put_back(phone: Phone, tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    assert "Wrote 5 keys" in phone.say("preferences", "snapshot", "--out", str(path)).stderr
    assert path.stat().st_mode & 0o777 == 0o600
    before = {name: dict(content) for name, content in phone.preferences.files.items()}
    assert "count of settings is 7 now. It was 5." in phone.say("preferences", "set", "count", "7").stderr
    done = phone.say("preferences", "set", "name", "0000", "--text", "--json")
    assert json.loads(done.stdout)["value"] == "0000"
    done = phone.say("preferences", "set", "new", "1", "--file", "other")
    assert (done.returncode, "make none" in done.stderr) == (1, True)
    done = phone.say("preferences", "set", "count", "many")
    assert (done.returncode, "is a whole number, and stays one" in done.stderr) == (1, True)
    done = phone.say("preferences", "restore", str(path))
    assert (done.returncode, done.stderr) == (0, "2 keys were set, 0 deleted.\n")
    assert phone.preferences.files == before


def test_what_cannot_be_put_back_is_told(phone: Phone, tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    path.write_text(json.dumps({"preferences": {"settings": {"gone": 1}}}))
    done = phone.say("preferences", "restore", str(path), "--keep-new")
    assert done.returncode == 1
    assert done.stderr.startswith("0 keys were set, 0 deleted.\nsettings gone:")
    assert json.loads(phone.say("preferences", "restore", str(path), "--keep-new", "--json").stdout)["failed"]
    for text in ("no json", "[]", '{"preferences": []}', '{"preferences": {"a": 1}}'):
        path.write_text(text)
        assert phone.say("preferences", "restore", str(path)).returncode == 2


def test_a_key_is_deleted(phone: Phone) -> None:
    phone.do(lambda: phone.preferences.put("other", "extra", "x"))
    assert 'extra of other is gone; it was "x".' in phone.say("preferences", "delete", "extra").stderr
    done = phone.say("preferences", "delete", "extra", "--json")
    assert (done.returncode, "is not in any file" in done.stderr) == (1, True)


async def test_changes_are_followed(phone: Phone) -> None:
    command = program(phone.broker.home, "app", "preferences", "follow")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=sys.stderr, env=clean_environment()
    )
    assert process.stdout is not None
    stop = False

    async def change() -> None:
        """Until it is seen: the command takes a while to begin."""
        number = 100
        while not stop:
            number += 1
            await asyncio.to_thread(phone.do, lambda now=number: phone.preferences.put("other", "only", now))
            await asyncio.sleep(0.05)

    async with asyncio.timeout(20):
        changing = asyncio.create_task(change())
        line = (await process.stdout.readline()).decode()
        stop = True
        await changing
        process.terminate()
        await process.wait()
    assert line.startswith("other  only = ")


def test_changes_are_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    show_change({"file": "F", "key": "k", "deleted": False, "value": "\x1b[2J"})
    show_change({"file": "F", "key": "k", "deleted": True, "value": None})
    show_change({"file": "F", "key": None, "deleted": True, "value": None})
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert said.endswith("F  k is gone\nF was emptied\n")
