"""SQL as an app understands it, and what it may do."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as some

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugins.databases.statements import MAX_SQL, exact_page, quoted, statement


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("SELECT\n*\tFROM a;", "SELECT * FROM a"),
        ("select*from a", "select *from a"),
        ("SELECT(1)", "SELECT (1)"),
        ("-- why\n/* and\n how */ SELECT 1 -- so\n ;; ", "SELECT 1"),
        ("SELECT 'a  --b', \"c  /*d*/\", `e  f`, [g  h]", "SELECT 'a  --b', \"c  /*d*/\", `e  f`, [g  h]"),
        ("SELECT 'it''s;'", "SELECT 'it''s;'"),
        ("SELECT 1 /* without end", "SELECT 1"),
        ("with x as (select 1) select * from x", "SELECT * FROM (with x as (select 1) select * from x)"),
        ("VALUES(1, 2)", "SELECT * FROM (VALUES (1, 2))"),
        ("BEGIN", "BEGIN"),
    ],
)
def test_a_statement_gets_the_form_that_apps_understand(text: str, sql: str) -> None:
    assert statement(text).sql == sql


@pytest.mark.parametrize(
    "text",
    [
        "SELECT replace(a, 'b', 'c') FROM t",
        "select 1",
        "EXPLAIN DELETE FROM t",
        "WITH x AS (SELECT 1) SELECT replace(1, 2, 3) FROM x",
        "VALUES (1)",
        "PRAGMA user_version",
        "PRAGMA main.table_info('t')",
        "PRAGMA table_info(t);",
        "pragma Foreign_Keys",
    ],
)
def test_what_reads_is_known(text: str) -> None:
    assert statement(text).reads


@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM t",
        "delete from t",
        "/* SELECT */ DELETE FROM t",
        "WITH x AS (SELECT 1) DELETE FROM t",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "WITH replace AS (SELECT 1) DELETE FROM t",
        "PRAGMA user_version = 5",
        "PRAGMA user_version(5)",
        "PRAGMA main.user_version=5",
        "PRAGMA writable_schema",
        "PRAGMA wal_checkpoint",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA optimize",
        "PRAGMA",
        "REPLACE INTO t VALUES (1)",
        "CREATE TABLE t (a)",
        "VACUUM",
        "ATTACH 'x' AS y",
        "SELECTED",
    ],
)
def test_what_may_change_something_is_known(text: str) -> None:
    assert not statement(text).reads


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "begins with a word"),
        ("; ;", "begins with a word"),
        ("-- nothing", "begins with a word"),
        ("(SELECT 1)", "begins with a word"),
        ("SELECT 1; DELETE FROM t", "One statement"),
        ("SELECT 1;;SELECT 2", "One statement"),
        ("SELECT 'a", "never ends"),
        ("SELECT '5", "never ends"),
        ('SELECT "a', "never ends"),
        ("SELECT [a", "never ends"),
        ("SELECT \0", "zero character"),
        ("SELECT " + "1" * MAX_SQL, "up to"),
    ],
)
def test_what_is_no_statement_is_named(text: str, word: str) -> None:
    with pytest.raises(Invalid, match=word):
        statement(text)


def test_a_trigger_has_statements_of_its_own() -> None:
    text = "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; SELECT 1; END;"
    assert statement(text).verb == "CREATE"


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("SELECT 1", "SELECT 1 LIMIT 5"),
        ("SELECT 1 LIMIT 3", "SELECT 1 LIMIT 3"),
        ("SELECT (SELECT 1 LIMIT 1), 'limit', \"LIMIT\"", "SELECT (SELECT 1 LIMIT 1), 'limit', \"LIMIT\" LIMIT 5"),
        (
            "WITH x AS (SELECT 1) SELECT * FROM x LIMIT 1",
            "SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x LIMIT 1) LIMIT 5",
        ),
        ("PRAGMA user_version", "PRAGMA user_version"),
        ("DELETE FROM t", "DELETE FROM t"),
        ("WITH x AS (SELECT 1) DELETE FROM t", "WITH x AS (SELECT 1) DELETE FROM t"),
    ],
)
def test_what_gives_rows_gets_an_end(text: str, sql: str) -> None:
    assert statement(text).limited(5) == sql


@pytest.mark.parametrize(
    ("name", "sql"),
    [("plain_1", "plain_1"), ("my table", '"my table"'), ("order", '"order"'), ('a"b', '"a""b"'), ("é", '"é"')],
)
def test_names_are_quoted_where_that_is_needed(name: str, sql: str) -> None:
    assert quoted(name) == sql
    database = sqlite3.connect(":memory:")
    database.execute(f"CREATE TABLE {quoted(name)} (a)")
    assert database.execute("SELECT name FROM sqlite_master").fetchall() == [(name,)]
    database.close()


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="A name"):
        quoted(name)


def test_a_page_with_the_bytes_of_blobs() -> None:
    sql = exact_page("t", ["a", '"b c"'], order="b c", reverse=True, start=10, count=5)
    database = sqlite3.connect(":memory:")
    database.execute('CREATE TABLE t (a, "b c")')
    for number in range(20):
        database.execute("INSERT INTO t VALUES (?, ?)", (b"\xff\x00", number))
    assert database.execute(sql).fetchmany(2) == [("blob", "FF00", "integer", 9), ("blob", "FF00", "integer", 8)]
    database.close()


SQL = some.text(alphabet="SELECT()'\"`[];-/*\n 1a,", max_size=60)


@given(SQL)
def test_whatever_is_taken_means_the_same_to_sqlite(text: str) -> None:
    """A statement of ours that SQLite takes gives what the original gives; and it is one."""
    try:
        asked = statement(f"SELECT {text}")
    except Invalid:
        return
    database = sqlite3.connect(":memory:")
    try:
        before = database.execute(f"SELECT {text}").fetchall()
    except (sqlite3.Error, sqlite3.Warning):
        return
    else:
        assert database.execute(asked.sql).fetchall() == before
    finally:
        database.close()
