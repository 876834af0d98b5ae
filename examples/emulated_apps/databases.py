"""The app's half of `Databases`, over real SQLite files."""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from .plugin import AppPlugin, Params, Platform, Receiver, ReceiverError

INVALID, UNKNOWN_DATABASE, SQL_FAILED = 1, 2, 3
"""The codes in error answers."""

LARGE_BLOB = 102_400
"""Bytes over which a blob is shown by its size alone."""

SIDE_FILES = ("-journal", "-shm", "-wal", "-uid")
READS = ("SELECT", "PRAGMA", "EXPLAIN")
STRUCTURE_COLUMNS = ["column_name", "data_type", "nullable", "default", "primary_key", "foreign_key"]
INDEX_COLUMNS = ["index_name", "unique", "indexed_column_name"]


class Databases(AppPlugin):
    """`folder` is where the app keeps its databases: every file there is one, side files apart."""

    id: ClassVar[str] = "Databases"

    def __init__(self, folder: Path, platform: Platform = Platform.ANDROID) -> None:
        super().__init__(platform)
        self.folder = folder
        self._ids: dict[int, Path] = {}

    def path(self, name: str) -> Path:
        """Where the app keeps its database of this name."""
        return self.folder / name

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[sqlite3.Connection]:
        """For the app itself: one transaction on a database of its own, made where it is not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with opened(self.path(name)) as database:
            yield database

    def on_disconnect(self) -> None:
        self._ids = {}

    def receivers(self) -> Mapping[str, Receiver]:
        return {
            "databaseList": self._list,
            "getTableData": self._data,
            "getTableStructure": self._structure,
            "getTableInfo": self._info,
            "execute": self._execute,
        }

    def _list(self, params: Params) -> object:
        """Gives out ids, anew at each call. Text on iOS, numbers on Android."""
        files = sorted(path for path in self.folder.glob("*") if not path.name.endswith(SIDE_FILES))
        self._ids = dict(enumerate(files, 1))
        answer = []
        for number, path in self._ids.items():
            with opened(path) as database:
                names = database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
                tables = [name for (name,) in names]
            identifier: object = number if self.platform is Platform.ANDROID else str(number)
            answer.append({"id": identifier, "name": path.name, "tables": tables})
        return answer if self.platform is Platform.ANDROID else answer[::-1]

    def _data(self, params: Params) -> object:
        """One page. The names of table and column are pasted into the statement as they are."""
        table = required(params, "table")
        with self._database(params) as database:
            order = (
                f" ORDER BY {params['order']}{' DESC' if params.get('reverse') else ''}" if params.get("order") else ""
            )
            start, count = int(params.get("start") or 0), int(params.get("count") or 0)
            (total,) = database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
            found = database.execute(f"SELECT * FROM {table}{order} LIMIT {start}, {count}")
            values = [self._row(row) for row in found]
            return {
                "columns": columns(found),
                "values": values,
                "start": start,
                "count": len(values),
                "total": total,
            }

    def _structure(self, params: Params) -> object:
        table = required(params, "table")
        with self._database(params) as database:
            foreign = {row[3]: f"{row[2]}({row[4]})" for row in database.execute(f"PRAGMA foreign_key_list({table})")}
            fields = [
                self._row((name, kind, not strict, default, bool(key), foreign.get(name)))
                for _, name, kind, strict, default, key in database.execute(f"PRAGMA table_info({table})")
            ]
            indexes = []
            for _, name, unique, *_rest in list(database.execute(f"PRAGMA index_list({table})")):
                parts = [str(part) for _, _, part in database.execute(f'PRAGMA index_info("{name}")')]
                indexes.append(self._row((name, bool(unique), ",".join(parts))))
            return {
                "structureColumns": STRUCTURE_COLUMNS,
                "structureValues": fields,
                "indexesColumns": INDEX_COLUMNS,
                "indexesValues": indexes,
            }

    def _info(self, params: Params) -> object:
        """The one call in which the table's name is bound, not pasted."""
        table = required(params, "table")
        with self._database(params) as database:
            row = database.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
            return self.fields(definition=None if row is None else row[0])

    def _execute(self, params: Params) -> object:
        """The first word, up to a space, decides what is answered."""
        statement = required(params, "value").strip()
        word = statement.split(" ")[0].upper()
        with self._database(params) as database:
            done = database.execute(statement)
            if word in READS:
                return {"type": "select", "columns": columns(done), "values": [self._row(row) for row in done]}
            if word == "INSERT":
                return {"type": "insert", "columns": [], "values": [], "insertedId": done.lastrowid}
            if word in ("UPDATE", "DELETE"):
                return {"type": "update_delete", "columns": [], "values": [], "affectedCount": done.rowcount}
            if done.description is not None:
                raise sqlite3.OperationalError(
                    "Queries can be performed using SQLiteDatabase query or rawQuery methods only."
                )
            return {"type": "raw", "columns": [], "values": []}

    @contextlib.contextmanager
    def _database(self, params: Params) -> Iterator[sqlite3.Connection]:
        """The file is opened and closed for each call. On iOS a statement does not say for which database it is."""
        number = int(params.get("databaseId") or 0)
        if number <= 0:
            refuse(INVALID, "The request received was invalid")
        if self.platform is Platform.IOS and "value" in params:
            number = 1
        if number not in self._ids:
            refuse(UNKNOWN_DATABASE, "Could not access database")
        try:
            with opened(self._ids[number]) as database:
                yield database
        except sqlite3.Error as error:
            text = str(error)
            refuse(SQL_FAILED, f"SQL error: {text}" if self.platform is Platform.IOS else text)

    def _row(self, row: Sequence[Any]) -> list[dict[str, object]]:
        return [self._value(value) for value in row]

    def _value(self, value: object) -> dict[str, object]:
        if value is None:
            return {"type": "null"}
        if isinstance(value, bytes):
            return {"type": "blob", "value": self._blob(value)}
        kinds = {bool: "boolean", int: "integer", float: "float", str: "string"}
        if type(value) is bool and self.platform is Platform.IOS:
            return {"type": "integer", "value": int(value)}
        return {"type": kinds[type(value)], "value": value}

    def _blob(self, value: bytes) -> str:
        if len(value) > LARGE_BLOB:
            return f"{{{len(value)}-byte {'large' if self.platform is Platform.ANDROID else 'binary'} blob}}"
        return value.decode("ascii" if value.isascii() else "utf-8", "replace")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction; a locked file is an error at once."""
    database = sqlite3.connect(path, timeout=0)
    try:
        with database:
            yield database
    finally:
        database.close()


def columns(found: sqlite3.Cursor) -> list[str]:
    return [column[0] for column in found.description or ()]


def required(params: Params, name: str) -> str:
    if not params.get(name):
        refuse(INVALID, "The request received was invalid")
    return str(params[name])


def refuse(code: int, message: str) -> NoReturn:
    raise ReceiverError({"code": code, "message": message})
