"""The shapes of Databases, on both systems, over a real file."""

from pathlib import Path
from typing import Any

import pytest

from emulated_apps import Databases, Platform, ReceiverError


@pytest.fixture(params=list(Platform), ids=lambda platform: str(platform.value))
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Databases:
    made = Databases(tmp_path, request.param)
    with made.open("shop.db") as database:
        database.executescript(
            """
            CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
            CREATE TABLE "order" (id INTEGER, customer INTEGER REFERENCES customer(id), price REAL, raw BLOB);
            CREATE UNIQUE INDEX by_both ON "order" (id, price);
            INSERT INTO customer VALUES (1, 'Ada'), (2, 'Bo'), (3, 'Cy');
            """
        )
        database.execute('INSERT INTO "order" VALUES (9223372036854775807, 1, 2.25, ?)', (b"\xff\x00",))
        database.execute('INSERT INTO "order" VALUES (2, NULL, NULL, ?)', (b"x" * 102_401,))
    (tmp_path / "shop.db-journal").touch()
    return made


def ask(databases: Databases, method: str, **params: object) -> Any:
    return databases.call(method, {"databaseId": 1, **params})


def test_ids_come_from_the_list(databases: Databases) -> None:
    with pytest.raises(ReceiverError) as caught:
        ask(databases, "execute", value="SELECT 1")
    assert caught.value.error["code"] == 2
    identifier = 1 if databases.platform is Platform.ANDROID else "1"
    assert databases.call("databaseList", {}) == [
        {"id": identifier, "name": "shop.db", "tables": ["customer", "order"]}
    ]


def test_a_page_of_a_table_has_its_rows_and_their_number(databases: Databases) -> None:
    databases.call("databaseList", {})
    page = ask(databases, "getTableData", table="customer", order="name", reverse=True, start=1, count=5)
    assert page == {
        "columns": ["id", "name"],
        "values": [
            [{"type": "integer", "value": 2}, {"type": "string", "value": "Bo"}],
            [{"type": "integer", "value": 1}, {"type": "string", "value": "Ada"}],
        ],
        "start": 1,
        "count": 2,
        "total": 3,
    }
    with pytest.raises(ReceiverError, match="syntax") as caught:
        ask(databases, "getTableData", table="order", start=0, count=5)
    assert caught.value.error["code"] == 3
    values = ask(databases, "getTableData", table='"order"', start=0, count=5)["values"]
    assert values[0][0] == {"type": "integer", "value": 9223372036854775807}
    assert values[0][3] == {"type": "blob", "value": "\ufffd\x00"}
    label = "large" if databases.platform is Platform.ANDROID else "binary"
    assert values[1][1:] == [
        {"type": "null"},
        {"type": "null"},
        {"type": "blob", "value": f"{{102401-byte {label} blob}}"},
    ]


def test_a_tables_columns_and_indexes_are_told(databases: Databases) -> None:
    databases.call("databaseList", {})
    told = ask(databases, "getTableStructure", table='"order"')
    assert told["structureColumns"][0] == "column_name"
    assert [row[0]["value"] for row in told["structureValues"]] == ["id", "customer", "price", "raw"]
    assert told["structureValues"][1][5] == {"type": "string", "value": "customer(id)"}
    assert told["indexesValues"][0][0] == {"type": "string", "value": "by_both"}
    assert told["indexesValues"][0][2] == {"type": "string", "value": "id,price"}
    assert ask(databases, "getTableInfo", table="customer")["definition"].startswith("CREATE TABLE customer")


@pytest.mark.parametrize(
    ("statement", "answer"),
    [
        ("select 7 AS n", {"type": "select", "columns": ["n"], "values": [[{"type": "integer", "value": 7}]]}),
        ("INSERT INTO customer VALUES (9, 'Di')", {"type": "insert", "columns": [], "values": [], "insertedId": 9}),
        ("DELETE FROM customer", {"type": "update_delete", "columns": [], "values": [], "affectedCount": 3}),
        ("CREATE TABLE t (a)", {"type": "raw", "columns": [], "values": []}),
    ],
)
def test_a_statement_is_answered_by_its_kind(databases: Databases, statement: str, answer: dict[str, object]) -> None:
    databases.call("databaseList", {})
    assert ask(databases, "execute", value=statement) == answer


def test_only_the_first_word_up_to_a_space_counts(databases: Databases) -> None:
    databases.call("databaseList", {})
    with pytest.raises(ReceiverError, match="rawQuery"):
        ask(databases, "execute", value="WITH x AS (SELECT 1) SELECT * FROM x")
    with pytest.raises(ReceiverError, match="rawQuery"):
        ask(databases, "execute", value="SELECT\n1")


def test_a_wrong_statement_is_refused_with_its_number(databases: Databases) -> None:
    databases.call("databaseList", {})
    for params, code in (({"databaseId": 0, "value": "x"}, 1), ({"value": ""}, 1), ({"value": "SELEC"}, 3)):
        with pytest.raises(ReceiverError) as caught:
            ask(databases, "execute", **params)
        assert caught.value.error["code"] == code
