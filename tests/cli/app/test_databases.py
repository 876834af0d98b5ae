"""`app databases …` with an app that is connected."""

import csv
import json
from pathlib import Path

from rsocket_broker.cli.app.databases import shown
from tests.cli.app.conftest import Phone


def test_databases_tables_and_their_structure_are_listed(phone: Phone) -> None:
    assert phone.say("databases", "list").stdout.splitlines()[1].split() == ["app.db", "users"]
    assert phone.say("databases", "tables").stdout.splitlines()[1].split() == ["app.db", "users"]
    assert json.loads(phone.say("databases", "tables", "--json").stdout)[0]["tables"] == ["users"]
    assert phone.say("databases", "tables", "--database", "x").returncode == 2
    said = phone.say("databases", "structure", "users").stdout
    assert "COLUMN_NAME" in said
    assert "photo" in said
    done = phone.say("databases", "structure", "nope")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no columns of nope" in done.stderr
    found = json.loads(phone.say("databases", "structure", "users", "--json").stdout)
    assert found["definition"].startswith("CREATE TABLE users")


def test_queries_read_and_writing_must_be_said(phone: Phone) -> None:
    done = phone.say("databases", "query", "SELECT id, name, hex(photo) AS h FROM users ORDER BY id")
    assert done.stdout.splitlines()[0].split() == ["id", "name", "h"]
    assert "\x1b" not in done.stdout
    assert "00FF" in done.stdout
    assert done.stdout.splitlines()[2].split()[1] == "NULL"
    assert "There are more rows than 1" in phone.say("databases", "query", "SELECT 1 FROM users", "--limit", "1").stderr
    done = phone.say("databases", "query", "DELETE FROM users WHERE id = 99")
    assert (done.returncode, "Use execute" in done.stderr) == (1, True)
    done = phone.say("databases", "query", "UPDATE users SET name = name WHERE id = 1", "--write")
    assert "1 rows were changed" in done.stderr
    done = phone.say("databases", "query", "CREATE TABLE IF NOT EXISTS more (a)", "--write")
    assert "no more of such a statement" in done.stderr
    assert (
        "The new row has the id 1" in phone.say("databases", "query", "INSERT INTO more VALUES (1)", "--write").stderr
    )
    phone.say("databases", "query", "DROP TABLE more", "--write")
    found = json.loads(phone.say("databases", "query", "SELECT 9007199254740993 AS n", "--json").stdout)
    assert found["rows"] == [[9007199254740993]]
    done = phone.say("databases", "query", "SELECT * FROM missing")
    assert (done.returncode, "no such table: missing" in done.stderr) == (1, True)


def test_a_table_is_exported_by_the_ending_of_its_file(phone: Phone, tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    done = phone.say("databases", "export", "users", "--out", str(path), "--page", "2", "--order", "id")
    assert (done.returncode, done.stdout) == (0, "")
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "name", "photo"]
    assert rows[1][2] == "X'00FF'"
    assert len(rows) == 4
    phone.say("databases", "export", "users", "--out", str(tmp_path / "users.json"))
    assert json.loads((tmp_path / "users.json").read_text())[0]["photo"] == {"hex": "00FF"}
    lines = phone.say("databases", "export", "users", "--format", "jsonl").stdout.splitlines()
    assert json.loads(lines[1]) == {"id": 2, "name": None, "photo": None}
    done = phone.say("databases", "export", "missing", "--out", str(tmp_path / "none.csv"))
    assert done.returncode == 1
    assert not (tmp_path / "none.csv").exists()


def test_values_are_told_apart() -> None:
    assert [shown(value) for value in (None, "", "x", 1.5, {"hex": "00"}, {"text": "t"})] == [
        *["NULL", "''", "x", "1.5", "X'00'", "blob t"]
    ]
