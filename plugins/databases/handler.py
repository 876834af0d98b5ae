"""The plugin `Databases`: asks apps for what is in their databases.

An app gives its databases new numbers whenever it lists them, and takes no other name for them. So they are listed
before each question, and one question of a session waits for the one before it.

Every broker loads this module at its start: what few need, such as the reading of SQL, is imported where it is used.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from rsocket_broker.plugin_api import App, ApplicationError, Invalid, Plugin, method
from rsocket_broker.plugins.databases import values
from rsocket_broker.plugins.databases.values import Database

MAX_ROWS = 10_000
"""Rows that one question may be answered with: the app makes one message of them, and SDKs send up to 16 MiB."""
ROWS = 1000
"""Rows of a query that says nothing of their number."""
PAGE = 50
EXPORT_PAGE = 500
"""Rows of one page, and of one while a table is exported."""

_WORDS = {
    1: "the app takes the request for invalid",
    2: "the database is not there, or no longer",
    3: "SQLite refuses it",
}
"""The numbers of an app's errors."""


class Databases(Plugin):
    """What is in the SQLite databases of apps, and SQL on them.

    `app.state` is the lock behind which an app is asked.
    """

    id = "Databases"

    def on_connect(self, app: App) -> None:
        app.state = asyncio.Lock()

    @method("list")
    async def databases(self, app: App, client: str = "") -> dict[str, Any]:
        """The app's databases, each with its tables and views."""
        app = await app.reach(client, "list")
        async with self._lock(app):
            return {"databases": [one.shown() for one in await _listed(app)]}

    @method("structure")
    async def structure(self, app: App, table: str, database: str = "", client: str = "") -> dict[str, Any]:
        """Columns and indexes of a table, as the app describes them. `database` may be left out where there is one."""
        app = await app.reach(client, "structure")
        async with self._chosen(app, database) as chosen:
            return await _structure(app, chosen, table)

    @method("info")
    async def info(self, app: App, table: str, database: str = "", client: str = "") -> dict[str, Any]:
        """The statement that a table was made with; None where the app has none."""
        app = await app.reach(client, "info")
        async with self._chosen(app, database) as chosen:  # here the name is bound, and not pasted into SQL
            answer = await _ask(app, "getTableInfo", {"databaseId": chosen.id, "table": table})
        return {"definition": values.fields_of(answer).get("definition")}

    @method("rows")
    async def rows(
        self,
        app: App,
        table: str,
        database: str = "",
        order: str = "",
        reverse: bool = False,
        start: int = 0,
        count: int = PAGE,
        exact: bool = False,
        client: str = "",
    ) -> dict[str, Any]:
        """One page of a table. `order` is a column. With `exact` blobs come as their bytes, `{"hex": "00FF"}`."""
        from rsocket_broker.plugins.databases.statements import quoted

        app = await app.reach(client, "rows")
        _check_page(start, count, reverse=reverse, order=order)
        async with self._chosen(app, database) as chosen:
            if exact:
                return await _exact_rows(app, chosen, table, order=order, reverse=reverse, start=start, count=count)
            about: dict[str, Any] = {"databaseId": chosen.id, "table": quoted(table), "start": start, "count": count}
            if order:
                about |= {"order": quoted(order), "reverse": reverse}
            answer = values.fields_of(await _ask(app, "getTableData", about))
        columns, found = values.rows(answer.get("columns"), answer.get("values"))
        total = values.whole_number(answer.get("total"))
        return {"columns": columns, "rows": found, "start": start, "count": len(found), "total": total}

    @method("query")
    async def query(
        self, app: App, sql: str, database: str = "", limit: int = ROWS, client: str = ""
    ) -> dict[str, Any]:
        """What a statement that only reads (SELECT, PRAGMA, EXPLAIN, WITH) answers, cut after `limit` rows unless it
        has a LIMIT of its own. Raises Invalid for one that might change something: that is for `execute`."""
        from rsocket_broker.plugins.databases.statements import statement

        app = await app.reach(client, "query")
        asked = statement(sql)
        if not asked.reads:
            raise Invalid(
                "query only reads: SELECT, WITH, VALUES, EXPLAIN, PRAGMAs that set nothing. Use execute (or --write)."
            )
        if not 1 <= limit <= MAX_ROWS:
            raise Invalid(f"limit: wanted 1 to {MAX_ROWS} rows.")
        async with self._chosen(app, database) as chosen:
            answer = await _run(app, chosen, asked.limited(limit + 1))
        cut = answer["rows"][:limit] if not asked.has_limit else answer["rows"]
        return {**answer, "rows": cut, "truncated": len(cut) < len(answer["rows"])}

    @method("execute")
    async def execute(self, app: App, sql: str, database: str = "", client: str = "") -> dict[str, Any]:
        """Runs any one statement, and gives what the app says of it: rows, the id of a row that was inserted, how many
        were changed. What is no SELECT, PRAGMA, EXPLAIN, INSERT, UPDATE or DELETE is run, and answered with nothing."""
        from rsocket_broker.plugins.databases.statements import statement

        app = await app.reach(client, "execute")
        asked = statement(sql)
        async with self._chosen(app, database) as chosen:
            return await _run(app, chosen, asked.limited(MAX_ROWS))

    @method("export")
    async def export(
        self,
        app: App,
        table: str,
        database: str = "",
        format: str = "csv",  # noqa: A002
        order: str = "",
        page: int = EXPORT_PAGE,
        client: str = "",
    ) -> AsyncIterator[str]:
        """A whole table as text, `page` rows at a time, exact: `csv`, `json`, or `jsonl` with a row to a line."""
        from rsocket_broker.plugins.databases.export import FORMATS, Writer

        app = await app.reach(client, "export")
        if format not in FORMATS:
            raise Invalid(f"format: wanted one of {', '.join(FORMATS)}.")
        start, writer = 0, None
        while True:
            found = await self.rows(app, table, database, order, start=start, count=page, exact=True)
            if writer is None:
                writer = Writer(format, found["columns"])
                yield writer.begin()
            yield writer.rows(found["rows"])
            start += found["count"]
            if found["count"] < page:
                break
        yield writer.end()

    def _lock(self, app: App) -> asyncio.Lock:
        found: asyncio.Lock = app.state
        return found

    @asynccontextmanager
    async def _chosen(self, app: App, name: str) -> AsyncIterator[Database]:
        """The database that is meant, while nobody else makes the app list them anew."""
        async with self._lock(app):
            found = await _listed(app)
            chosen = [one for one in found if name in ("", one.name)] or [one for one in found if str(one.id) == name]
            if len(chosen) == 1:
                yield chosen[0]
                return
        known = ", ".join(one.name for one in found[:20]) or "none"
        if not chosen:
            raise Invalid(f'The app has no database "{name[:100]}"; it has {known}.' if name else "It has no database.")
        raise Invalid(f"The app has {len(chosen)} databases that may be meant; name one: {known}.")


def _check_page(start: int, count: int, *, reverse: bool, order: str) -> None:
    if start < 0 or not 1 <= count <= MAX_ROWS:
        raise Invalid(f"A page has 1 to {MAX_ROWS} rows, and begins at 0 or later.")
    if reverse and not order:
        raise Invalid("reverse turns an order around: name the column in order.")


async def _listed(app: App) -> list[Database]:
    return values.databases(await _ask(app, "databaseList", {}))


async def _structure(app: App, chosen: Database, table: str) -> dict[str, Any]:
    from rsocket_broker.plugins.databases.statements import quoted

    about = {"databaseId": chosen.id, "table": quoted(table)}
    answer = values.fields_of(await _ask(app, "getTableStructure", about))
    columns = values.rows(answer.get("structureColumns"), answer.get("structureValues"))
    indexes = values.rows(answer.get("indexesColumns"), answer.get("indexesValues"))
    return {"columns": values.named(*columns), "indexes": values.named(*indexes)}


async def _run(app: App, chosen: Database, sql: str, width: int | None = None) -> dict[str, Any]:
    """`width`: the columns that the statement asks for."""
    answer = values.fields_of(await _ask(app, "execute", {"databaseId": chosen.id, "value": sql}))
    columns, found = values.rows(answer.get("columns"), answer.get("values"), width)
    return {
        "type": str(answer.get("type", "raw")),
        "columns": columns,
        "rows": found,
        "inserted_id": values.whole_number(answer.get("insertedId")),
        "affected": values.whole_number(answer.get("affectedCount")),
    }


async def _exact_rows(
    app: App, chosen: Database, table: str, *, order: str, reverse: bool, start: int, count: int
) -> dict[str, Any]:
    from rsocket_broker.plugins.databases.statements import exact_page, quoted

    structure = await _structure(app, chosen, table)
    columns = [str(one.get("column_name", next(iter(one.values())))) for one in structure["columns"] if one]
    if not columns:
        raise Invalid(f'"{table[:100]}" has no columns that the app could tell.')
    wanted = [quoted(name) for name in columns]
    page = exact_page(table, wanted, order=order, reverse=reverse, start=start, count=count)
    counted = await _run(app, chosen, f"SELECT COUNT(*) FROM {quoted(table)}", 1)  # noqa: S608
    found = [_exact(row) for row in (await _run(app, chosen, page, 2 * len(columns)))["rows"]]
    total = values.whole_number(counted["rows"][0][0]) if counted["rows"] else None
    return {"columns": columns, "rows": found, "start": start, "count": len(found), "total": total}


def _exact(row: values.Row) -> values.Row:
    """Values from pairs of a type and a value."""
    pairs = zip(row[::2], row[1::2], strict=True)
    return [{"hex": str(value or "")} if kind == "blob" else value for kind, value in pairs]


async def _ask(app: App, name: str, params: dict[str, Any]) -> Any:
    """Raises ApplicationError with the app's words, and ours for its number."""
    try:
        return await app.call(name, params)
    except ApplicationError as error:
        words = _WORDS.get(error.app_code or 0)
        if words is None:
            raise
        raise ApplicationError(f"{words[0].upper()}{words[1:]}: {error.public}") from error
