"""What the commands of apps share."""

import contextlib
import io
import json
from pathlib import Path

import pytest

from rsocket_broker.cli.app.shared import json_value, moment, safe, show_line, show_rows, writing
from rsocket_broker.errors import HomeError
from tests.cli.app.conftest import Phone

NASTY = "a\x1b[2J\tb\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_is_drawn_on_a_terminal_and_moves_no_cursor() -> None:
    with contextlib.redirect_stdout(Terminal()) as terminal:
        show_rows([[1, "a\x1b[2J [bold]", None]], ["ONE", "TWO", "THREE"])
    said = terminal.getvalue()
    assert "[bold]" in said  # of the app's, and no markup
    assert "\x1b[2J" not in said
    assert all(word in said for word in ("ONE", "TWO", "THREE", "-"))


def test_a_table_is_plain_text_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([[1, "a"]], ["ONE", "TWO"])
    assert capsys.readouterr().out == "ONE  TWO\n1    a\n"


def test_what_an_app_calls_its_columns_moves_no_cursor_and_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    headers = ["[/red]", "a\x1b[2Jb\n", "[link=file:///x]c[/link]", ""]  # the last column has no name
    show_rows([[1, 2, 3, 4]], headers)
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["[/red]", r"a\x1b[2Jb\x0a", "[link=file:///x]c[/link]"]
    assert said[1].split() == ["1", "2", "3", "4"]
    with contextlib.redirect_stdout(Terminal()) as terminal:
        show_rows([[1, 2, 3, 4]], headers)
    drawn = terminal.getvalue()
    assert "[/red]" in drawn
    assert "[link=file:///x]c[/link]" in drawn
    assert "\x1b[2J" not in drawn
    assert "\x1b]8" not in drawn


def test_text_acts_on_no_terminal_and_is_exact_elsewhere(tmp_path: Path) -> None:
    with contextlib.redirect_stdout(Terminal()) as terminal:
        assert safe(NASTY) == "a\\u001b[2J\tb\n"
        with writing(None) as write:
            write(NASTY)
    assert terminal.getvalue() == "a\\u001b[2J\tb\n"
    with contextlib.redirect_stdout(io.StringIO()):
        assert safe(NASTY) == NASTY
    path = tmp_path / "out.txt"
    with writing(path) as write:
        write(NASTY)
        write("é\ud83d")
        assert not path.exists()
    assert path.read_bytes() == NASTY.encode() + "é\ud83d".encode("utf-8", "surrogatepass")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="none/out cannot be written"), writing(tmp_path / "none" / "out"):
        pass
    with pytest.raises(KeyError), writing(tmp_path / "out"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_is_typed_is_json_or_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert [json_value(text) for text in ("true", "5", "0.5", '"x"', "null", "plain", "[1", "é")] == [
        *[True, 5, 0.5, "x", None, "plain", "[1", "é"]
    ]
    show_line({"a": NASTY})
    line = capsys.readouterr().out
    assert "\x1b" not in line
    assert json.loads(line) == {"a": NASTY}


def test_the_client_may_be_left_out_while_one_has_the_plugin(phone: Phone) -> None:
    named = phone.say("databases", "list", "--json", "--client", "com.example.shop")
    assert named.returncode == 0
    assert phone.say("databases", "list", "--json").stdout == named.stdout
    done = phone.say("databases", "list", "--client", "com.nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert 'No client "com.nobody" is connected' in done.stderr


@pytest.mark.parametrize("milliseconds", [1e300, -1e300, float("nan"), float("inf")])
def test_a_time_that_no_calendar_has_is_none(milliseconds: float) -> None:
    assert moment(milliseconds) == "-"
    assert moment(1_718_000_000_250, "%H:%M:%S") == "06:13:20"
