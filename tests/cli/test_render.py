import json

import pytest

from rsocket_broker.cli.render import cell, facts, note, print_json, table


def test_a_table_has_columns_as_wide_as_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    table([("1", "com.example", None), (22, "b", ["x", "y"])], ["ID", "APP", "PLUGINS"])
    assert capsys.readouterr().out == "ID  APP          PLUGINS\n1   com.example  -\n22  b            x, y\n"


def test_an_empty_table_is_its_headers(capsys: pytest.CaptureFixture[str]) -> None:
    table([], ["ID", "APP"])
    assert capsys.readouterr().out == "ID  APP\n"


def test_what_an_app_calls_itself_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    table([("\x1b[2Jevil\nrow",)], ["APP"])
    facts([("app", "a\rb")])
    assert not set(capsys.readouterr().out) & {"\x1b", "\r"}


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), ("", "-"), (True, "yes"), (False, "no"), ([], "-"), (0, "0"), (1.5, "1.5")]
)
def test_values_read_as_people_read_them(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_json_is_for_programs_and_people(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "Grüße", "empty": None})
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": "Grüße", "empty": None}
    assert "Grüße" in out
    assert out.endswith("}\n")


def test_json_of_a_peer_cannot_move_the_cursor_either(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "\x1b[2J\u202e\u009b", "half": "\ud800"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": "\x1b[2J\u202e\u009b", "half": "\ud800"}
    assert not set(out) & {"\x1b", "\u202e", "\u009b"}


def test_notes_stay_out_of_results(capsys: pytest.CaptureFixture[str]) -> None:
    note("one thing")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "one thing\n"


def test_a_note_with_a_peers_words_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    note("The device says \x1b[2J\r.\nTry again.")
    assert capsys.readouterr().err == "The device says \\x1b[2J\\x0d.\nTry again.\n"


def test_facts_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    facts([("id", 3), ("device", None)])
    assert capsys.readouterr().out == "id      3\ndevice  -\n"
