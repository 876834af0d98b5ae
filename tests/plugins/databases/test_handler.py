"""The plugin with apps of both systems, over real SQLite files."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulated_apps import Databases, Platform
from emulated_apps.bench import on_bench
from rsocket_broker.plugin_api import ApplicationError, Invalid
from rsocket_broker.plugin_api.testing import running
from rsocket_broker.plugins.databases import Databases as Plugin
from rsocket_broker.plugins.databases import plugin
from tests.routing.line import Line

BYTES = bytes(range(256))


@pytest.fixture(params=list(Platform), ids=lambda platform: str(platform.value))
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Databases:
    """With one database."""
    made = Databases(tmp_path / "databases", request.param)
    with made.open("app.db") as database:
        database.execute('CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL, "the size" REAL, raw BLOB)')
        for number in range(1, 121):
            row = (number, f"thing {number}", number / 2, BYTES if number == 1 else None)
            database.execute("INSERT INTO things VALUES (?, ?, ?, ?)", row)
        database.execute("CREATE UNIQUE INDEX by_name ON things (name)")
        database.execute('CREATE TABLE "my order" ("select" INTEGER, big INTEGER)')
        database.execute('INSERT INTO "my order" VALUES (1, 9223372036854775807), (2, -9223372036854775808)')
    return made


async def test_databases_are_listed_and_described(app: Databases) -> None:
    async with running(plugin) as bench, on_bench(bench, app) as on:
        (found,) = (await on.client.request("list"))["databases"]
        assert found == {"id": "1", "name": "app.db", "tables": ["my order", "things"]}
        structure = await on.client.request("structure", {"table": "things"})
        assert [one["column_name"] for one in structure["columns"]] == ["id", "name", "the size", "raw"]
        assert structure["columns"][1] | {"nullable": ""} == {
            "column_name": "name",
            "data_type": "TEXT",
            "nullable": "",
            "default": None,
            "primary_key": structure["columns"][1]["primary_key"],
            "foreign_key": None,
        }
        assert structure["indexes"][0]["indexed_column_name"] == "name"
        info = await on.client.request("info", {"table": "my order", "database": "app.db"})
        assert info["definition"].startswith('CREATE TABLE "my order"')


async def test_a_table_is_read_page_by_page(app: Databases) -> None:
    async with running(plugin) as bench, on_bench(bench, app) as on:
        page = await on.client.request("rows", {"table": "things", "start": 100, "count": 50})
        assert (page["count"], page["total"], page["start"]) == (20, 120, 100)
        assert page["rows"][0] == [101, "thing 101", 50.5, None]
        page = await on.client.request("rows", {"table": "things", "order": "the size", "reverse": True, "count": 1})
        assert page["rows"][0][0] == 120
        page = await on.client.request("rows", {"table": "my order", "order": "select"})
        assert page["rows"] == [[1, 2**63 - 1], [2, -(2**63)]]


async def test_blobs_are_exact_where_that_is_asked_for(app: Databases) -> None:
    async with running(plugin) as bench, on_bench(bench, app) as on:
        lossy = await on.client.request("rows", {"table": "things", "count": 1})
        assert lossy["rows"][0][3] != {"hex": BYTES.hex().upper()}
        exact = await on.client.request("rows", {"table": "things", "count": 2, "exact": True, "order": "id"})
        assert exact["columns"] == lossy["columns"]
        assert exact["total"] == 120
        assert exact["rows"] == [[1, "thing 1", 0.5, {"hex": BYTES.hex().upper()}], [2, "thing 2", 1.0, None]]
        found = await on.client.request("query", {"sql": "SELECT hex(raw) AS digits FROM things WHERE id = 1"})
        assert bytes.fromhex(found["rows"][0][0]) == BYTES


async def test_types_come_back_as_they_went(app: Databases) -> None:
    async with running(plugin) as bench, on_bench(bench, app) as on:
        await on.client.request("execute", {"sql": "CREATE TABLE typed (a, b, c, d, e)"})
        values = "9007199254740993, 0.1, 'it''s', NULL, x'00ff'"
        done = await on.client.request("execute", {"sql": f"INSERT INTO typed\nVALUES ({values})"})
        assert (done["type"], done["inserted_id"]) == ("insert", 1)
        page = await on.client.request("rows", {"table": "typed", "exact": True})
        assert page["rows"] == [[9007199254740993, 0.1, "it's", None, {"hex": "00FF"}]]
        assert [type(one) for one in page["rows"][0]] == [int, float, str, type(None), dict]
        done = await on.client.request("execute", {"sql": "UPDATE typed SET c = 'x'"})
        assert (done["type"], done["affected"], done["rows"]) == ("update_delete", 1, [])
        assert (await on.client.request("execute", {"sql": "DROP TABLE typed"}))["type"] == "raw"


async def test_queries_read_and_have_an_end(app: Databases) -> None:
    async with running(plugin) as bench, on_bench(bench, app) as on:

        async def query(sql: str, **more: Any) -> Any:
            return await on.client.request("query", {"sql": sql, **more})

        found = await query("SELECT\n id FROM things", limit=100)
        assert (len(found["rows"]), found["truncated"]) == (100, True)
        found = await query("select id from things limit 7", limit=5)
        assert (len(found["rows"]), found["truncated"]) == (7, False)
        assert (await query("WITH t(a) AS (VALUES (1), (2)) SELECT sum(a) AS s FROM t"))["rows"] == [[3]]
        assert (await query("values (1, 'a')"))["rows"] == [[1, "a"]]
        assert (await query("PRAGMA user_version"))["rows"] == [[0]]
        assert (await query("EXPLAIN DELETE FROM things"))["rows"]
        for sql in ("DELETE FROM things", "PRAGMA user_version = 3", "WITH t AS (SELECT 1) DELETE FROM things"):
            with pytest.raises(Invalid, match="Use execute"):
                await query(sql)
        for limit in (0, 10_001):
            with pytest.raises(Invalid, match="limit"):
                await query("SELECT 1", limit=limit)
        assert (await query("SELECT count(*) FROM things"))["rows"] == [[120]]
        assert (await on.client.request("execute", {"sql": "SELECT 1 AS one"}))["columns"] == ["one"]


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
async def test_a_table_is_exported_whole(app: Databases, kind: str) -> None:
    async with running(plugin) as bench, on_bench(bench, app) as on:
        about = {"table": "things", "format": kind, "order": "id", "page": 50}
        text = "".join([piece async for piece in on.client.stream("export", about)])
    if kind == "csv":
        lines = text.split("\r\n")
        assert (lines[0], lines[2], len(lines)) == ("id,name,the size,raw", "2,thing 2,1.0,", 122)
        return
    rows = json.loads(text) if kind == "json" else [json.loads(line) for line in text.splitlines()]
    assert len(rows) == 120
    assert rows[0]["raw"] == {"hex": BYTES.hex().upper()}


async def test_which_database_is_meant(app: Databases) -> None:
    async with running(plugin) as bench, on_bench(bench, app) as on:
        with app.open("other.db") as database:
            database.execute("CREATE TABLE t (a)")
        with pytest.raises(Invalid, match="2 databases that may be meant"):
            await on.client.request("rows", {"table": "t"})
        with pytest.raises(Invalid, match=r'no database "third\.db"; it has'):
            await on.client.request("rows", {"table": "t", "database": "third.db"})
        assert (await on.client.request("rows", {"table": "t", "database": "other.db"}))["total"] == 0
        assert (await on.client.request("rows", {"table": "t", "database": "2"}))["total"] == 0


@pytest.mark.row("A-56")
async def test_numbers_of_databases_are_never_kept(app: Databases) -> None:
    """Another database comes first now; the app forgets all numbers with its session."""
    async with running(plugin) as bench:
        async with on_bench(bench, app) as on:
            assert (await on.client.request("rows", {"table": "things", "database": "app.db"}))["total"] == 120
            with app.open("aaa.db") as database:
                database.execute("CREATE TABLE things (a)")
            assert (await on.client.request("rows", {"table": "things", "database": "app.db"}))["total"] == 120
        async with on_bench(bench, app) as on:
            assert (await on.client.request("rows", {"table": "things", "database": "app.db"}))["total"] == 120


async def test_questions_wait_for_each_other_so_that_no_number_changes_in_between() -> None:
    under_way = 0

    async def answer(params: Any) -> Any:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(0)
        under_way -= 1
        return [{"id": 1, "name": "a", "tables": []}] if not params else {"columns": [], "values": [], "total": 0}

    async with running(Plugin) as bench:
        client = await bench.connect(answers={"databaseList": answer, "getTableData": answer})
        await asyncio.gather(*(client.request("rows", {"table": "t"}) for _ in range(5)))


@pytest.mark.parametrize(
    ("method", "params", "word"),
    [
        ("rows", {"table": "t", "start": -1}, "A page"),
        ("rows", {"table": "t", "count": 0}, "A page"),
        ("rows", {"table": "t", "count": 10_001}, "A page"),
        ("rows", {"table": "t", "reverse": True}, "name the column"),
        ("rows", {"table": ""}, "A name"),
        ("query", {"sql": "SELECT 1; SELECT 2"}, "One statement"),
    ],
)
async def test_what_cannot_be_asked_is_named(app: Databases, method: str, params: dict[str, Any], word: str) -> None:
    async with running(plugin) as bench, on_bench(bench, app) as on:
        with pytest.raises(Invalid, match=word):
            await on.client.request(method, params)
        with pytest.raises(Invalid, match="format"):
            async for _ in on.client.stream("export", {"table": "things", "format": "xls"}):
                pass
        with pytest.raises(ApplicationError, match="no such table"):
            await on.client.request("rows", {"table": "missing"})


async def test_an_app_without_databases_says_so(tmp_path: Path) -> None:
    async with running(plugin) as bench, on_bench(bench, Databases(tmp_path)) as on:
        with pytest.raises(Invalid, match="It has no database"):
            await on.client.request("query", {"sql": "SELECT 1"})


ERRORS = [
    (1, "The app takes the request for invalid: no"),
    (2, "The database is not there, or no longer: no"),
    (3, "SQLite refuses it: no"),
    (4, "no"),
]


@pytest.mark.parametrize(("code", "text"), ERRORS)
async def test_an_apps_numbers_have_words(code: int, text: str) -> None:
    async def answer(params: object) -> dict[str, object]:
        return {"error": {"code": code, "message": "no"}}

    async with Line(Plugin) as line:
        client = await line.app(["Databases"], answers={"Databases.databaseList": answer})
        found = (await client.session.plugins.seat_of("Databases")).app
        with pytest.raises(ApplicationError) as failed:
            await Plugin().databases(found)
        assert failed.value.public == text


@pytest.fixture
def odd() -> Iterator[list[Any]]:
    yield [None, [], {}, 5, "x", [{"id": []}], {"columns": ["a"], "values": [[]]}, {"columns": 5}]


@pytest.mark.row("M-7")
async def test_answers_that_make_no_sense_are_errors_and_nothing_else_suffers(odd: list[Any]) -> None:
    good = [{"id": 1, "name": "a", "tables": []}]
    async with running(Plugin) as bench:
        for answer in odd:
            answers = {"databaseList": good} | dict.fromkeys(("getTableData", "execute", "getTableStructure"), answer)
            client = await bench.connect(answers={name: (lambda p, a=value: a) for name, value in answers.items()})
            for method, params in (
                ("rows", {"table": "t"}),
                ("query", {"sql": "SELECT 1"}),
                ("structure", {"table": "t"}),
            ):
                if answer == {} or (answer == {"columns": 5} and method == "structure"):
                    await client.request(method, params)  # nothing is missing that must be there
                    continue
                if isinstance(answer, dict) and method == "structure":
                    continue
                with pytest.raises(ApplicationError, match="none that is understood"):
                    await client.request(method, params)
            assert (await client.request("list"))["databases"]


async def test_a_caller_asks_about_another_client(app: Databases) -> None:
    async with running(plugin) as bench, on_bench(bench, app) as on:
        caller = await bench.connect()
        about = {"client": on.client.app.id}
        assert (await caller.request("list", about))["databases"]
        assert (await caller.request("query", {"sql": "SELECT 1", **about}))["rows"] == [[1]]


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    ("structure", "pages"),
    [
        (([], [[]]), ([], [])),
        ((["column_name"], [["a"]]), ([], [[]])),
        ((["column_name"], [["a"]]), (["x", "y", "z"], [["text", "b", "c"]])),
        ((["column_name"], [["a"]]), (["x", "y", "z", "w"], [["text", "b", "c", "d"]])),
    ],
    ids=["no columns", "no values", "odd", "too many"],
)
async def test_answers_that_fit_no_question_are_the_apps_fault(structure: Any, pages: Any) -> None:
    answers = {
        "databaseList": [{"id": 1, "name": "a.db", "tables": ["t"]}],
        "getTableStructure": {"structureColumns": structure[0], "structureValues": structure[1]}
        | {"indexesColumns": [], "indexesValues": []},
        "execute": {"type": "select", "columns": pages[0], "values": pages[1]},
    }
    async with running(plugin) as bench:
        client = await bench.connect(answers=answers)
        with pytest.raises((ApplicationError, Invalid)):
            await client.request("rows", {"table": "t", "exact": True})
