"""`state.db`: what the broker must not forget. SQLite in WAL mode, shared by threads and by processes.

One connection writes, behind a lock, so that writers in one process queue instead of polling; readers have their own
connections and never wait for a writer. A transaction that has ended is on the disk (`synchronous=FULL`).
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from rsocket_broker.errors import HomeError
from rsocket_broker.files import PRIVATE_FILE, check_private_file, ensure_private_directory, locked, sync_directory

STATE_FILE = "state.db"
"""Its name in a home."""
BUSY_TIMEOUT_S = 10.0
"""How long to wait for another process (the CLI, a second broker starting) to end its transaction."""
MAX_IDLE_READERS = 8
"""More threads than this may read at once; only this many connections are kept afterwards."""

LOG_SIZE = 4 * 1024 * 1024
"""Bytes that the write-ahead log reaches anyhow before SQLite begins it anew (1,000 pages)."""
_FILLER = 64 * 1024
_CACHE_KIB, _SMALL_CACHE_KIB = 2000, 100
"""What SQLite's cache may hold: as it comes, and so little that a large transaction does not wait in it."""

Parameters = Sequence[object] | Mapping[str, object]


class _Enough(Exception):
    """Ends a transaction of which nothing is to stay."""


class State:
    """The home's database. Every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Use `State.open`; this connects to a database that has been prepared."""
        self._path = path
        self._write_lock = threading.RLock()
        self._readers: list[sqlite3.Connection] = []
        self._readers_lock = threading.Lock()
        self._closed = False
        self._writer = self._connect()

    @classmethod
    def open(cls, path: Path) -> Self:
        """The database at `path`, made with mode 0600 when missing (its folder with 0700).

        Raises HomeError when a mode or owner is unsafe, or the file is damaged or no database.
        """
        ensure_private_directory(path.parent)
        # Turning WAL on does not wait for other processes by itself, hence the lock around the first opening.
        with locked(path.parent):
            _create(path)
            try:
                state = cls(path)
            except sqlite3.Error as error:
                raise _damaged(path, error) from error
            try:
                state._prepare()
            except sqlite3.Error as error:
                state.close()
                raise _damaged(path, error) from error
        return state

    def migrate(self, component: str, steps: Sequence[str]) -> None:
        """Bring the tables of `component` up to date: each step (SQL, one or more statements) runs once, in order.

        All the steps that are due run in one transaction. Append steps; never change one that was released.
        Raises HomeError when the database was written by a later version of the broker.
        """
        known = self.read("SELECT version FROM schema_version WHERE component = ?", (component,))
        if known and known[0]["version"] == len(steps):
            return
        with self.transaction() as database:
            row = database.execute("SELECT version FROM schema_version WHERE component = ?", (component,)).fetchone()
            done = row["version"] if row else 0
            if done > len(steps):
                raise HomeError(f"{self._path} was written by a later rsocket-broker. Update this one to use it.")
            for step in steps[done:]:
                for statement in _statements(step):
                    database.execute(statement)
            database.execute("INSERT OR REPLACE INTO schema_version VALUES (?, ?)", (component, len(steps)))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed to the disk at the end of the block, undone if the block raises.

        Raises HomeError when another process holds the database for longer than BUSY_TIMEOUT_S, or the disk fails.
        """
        with self._write_lock:
            if self._writer.in_transaction:
                raise RuntimeError("a transaction of this thread is already open")
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                self._writer.execute("COMMIT")
            except sqlite3.OperationalError as error:
                self._roll_back()
                raise HomeError(f"{self._path} cannot be written: {error}.") from error
            except BaseException:
                self._roll_back()
                raise

    def read(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """All rows of one query, seeing everything that was committed before the call."""
        with self._reader() as database:
            return database.execute(sql, parameters).fetchall()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with, for which nothing changes until the end of the block."""
        with self._reader() as database:
            database.execute("BEGIN")
            try:
                yield database
            finally:
                database.execute("ROLLBACK")

    def grow_log(self) -> None:
        """Let the write-ahead log have at once the size that it comes to anyhow.

        A file that does not grow is on the disk as soon as its content is; one that grows waits for whatever the file
        system was just told of other files.
        """
        try:
            with self._write_lock, contextlib.suppress(_Enough):
                self._writer.execute(f"PRAGMA cache_size = -{_SMALL_CACHE_KIB}")  # what does not fit goes to the log
                try:
                    with self.transaction() as database:
                        database.execute("CREATE TABLE enough (filler BLOB)")
                        for _ in range(LOG_SIZE // _FILLER):
                            database.execute("INSERT INTO enough VALUES (zeroblob(?))", (_FILLER,))
                        raise _Enough  # nothing of it is to stay
                finally:
                    self._writer.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        except HomeError:  # no room, or somebody else writes: then it grows by and by
            return

    def integrity_problems(self) -> list[str]:
        """What SQLite itself finds wrong with the file; empty when it is sound."""
        found = [str(row[0]) for row in self.read("PRAGMA quick_check")]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Close every connection. Calling it again does nothing."""
        with self._write_lock, self._readers_lock:
            self._closed = True
            for connection in (*self._readers, self._writer):
                connection.close()
            self._readers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        with self._readers_lock:
            if self._closed:
                raise RuntimeError("the state is closed")
            connection = self._readers.pop() if self._readers else None
        if connection is None:
            connection = self._connect()
        try:
            yield connection
        finally:
            with self._readers_lock:
                keep = not self._closed and len(self._readers) < MAX_IDLE_READERS
                if keep:
                    self._readers.append(connection)
            if not keep:
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        """A connection to the file that exists; one that has gone is an error, never silently made anew."""
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(
            uri, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=True
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self) -> None:
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute(
            "CREATE TABLE IF NOT EXISTS schema_version (component TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT"
        )

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")


def _create(path: Path) -> None:
    """Make the file before SQLite does, since SQLite would use the umask; its WAL files copy this mode."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE))
        sync_directory(path.parent)
        return
    # Looked at, never opened: closing any descriptor of the file drops the locks that SQLite holds in this process.
    check_private_file(path)


def _statements(script: str) -> Iterator[str]:
    """The single statements of a script, so that they can run inside a transaction (`executescript` would end it)."""
    pending = ""
    for piece in script.split(";"):
        pending += piece + ";"
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending:
        yield pending


def _damaged(path: Path, error: sqlite3.Error) -> HomeError:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
        return HomeError(f"{path} cannot be written: {error}. Run: chmod u+rwx {path.parent} && chmod u+rw {path}")
    return HomeError(f"{path} cannot be used: {error}. Restore it from a backup, or move the home away to begin anew.")
