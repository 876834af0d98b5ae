import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsocket_broker import state as state_module
from rsocket_broker.errors import HomeError
from rsocket_broker.state import State

TABLE = "CREATE TABLE fruit (name TEXT PRIMARY KEY) STRICT"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "state.db"


@pytest.fixture
def state(path: Path) -> Iterator[State]:
    with State.open(path) as opened:
        opened.migrate("test", [TABLE])
        yield opened


def names(state: State) -> list[str]:
    return [row["name"] for row in state.read("SELECT name FROM fruit ORDER BY name")]


@pytest.mark.row("A-24")
def test_every_file_of_the_database_is_private(state: State, path: Path) -> None:
    with state.transaction() as database:
        database.execute("INSERT INTO fruit VALUES ('apple')")
    found = {item.name: stat.S_IMODE(item.stat().st_mode) for item in path.parent.iterdir()}
    assert set(found) == {"state.db", "state.db-wal", "state.db-shm"}
    assert set(found.values()) == {0o600}


@pytest.mark.row("A-24")
def test_a_loose_database_is_refused(state: State, path: Path) -> None:
    state.close()
    path.chmod(0o640)
    with pytest.raises(HomeError, match=r"0640.*chmod 600"):
        State.open(path)


def test_a_transaction_is_whole_or_nothing(state: State) -> None:
    with pytest.raises(ZeroDivisionError), state.transaction() as database:
        database.execute("INSERT INTO fruit VALUES ('apple')")
        _ = 1 / 0
    assert names(state) == []
    with state.transaction() as database:
        database.execute("INSERT INTO fruit VALUES ('apple')")
    assert names(state) == ["apple"]
    with pytest.raises(sqlite3.IntegrityError), state.transaction() as database:
        database.execute("INSERT INTO fruit VALUES ('apple')")
    with pytest.raises(RuntimeError, match="already open"), state.transaction(), state.transaction():
        pass
    with state.transaction() as database:
        database.execute("INSERT INTO fruit VALUES ('pear')")
    assert names(state) == ["apple", "pear"]


def test_a_reader_sees_only_what_is_committed_and_does_not_wait(state: State) -> None:
    with state.transaction() as database:
        database.execute("INSERT INTO fruit VALUES ('apple')")
        assert names(state) == []
    assert names(state) == ["apple"]


def test_nothing_changes_for_a_snapshot(state: State) -> None:
    with state.snapshot() as before:
        assert before.execute("SELECT name FROM fruit").fetchall() == []
        with state.transaction() as database:
            database.execute("INSERT INTO fruit VALUES ('apple')")
        assert before.execute("SELECT name FROM fruit").fetchall() == []
    assert names(state) == ["apple"]


def test_steps_run_once_and_in_order(state: State, path: Path) -> None:
    steps = [
        TABLE,
        "INSERT INTO fruit VALUES ('a;b'); INSERT INTO fruit VALUES ('c');",
        "DELETE FROM fruit WHERE name = 'c'",
    ]
    state.migrate("test", steps)
    assert names(state) == ["a;b"]
    state.migrate("test", steps)
    assert names(state) == ["a;b"]
    with State.open(path) as again:
        again.migrate("test", steps)
        with pytest.raises(HomeError, match="later rsocket-broker"):
            again.migrate("test", steps[:1])


def test_a_failing_step_leaves_nothing_behind(state: State) -> None:
    with pytest.raises(HomeError):
        state.migrate("test", [TABLE, "INSERT INTO fruit VALUES ('a')", "INSERT INTO nothing VALUES (1)"])
    assert names(state) == []
    with pytest.raises(HomeError):
        state.migrate("test", [TABLE, "INSERT INTO fruit VALUES ('no end"])
    state.migrate("test", [TABLE, "INSERT INTO fruit VALUES ('a')"])
    assert names(state) == ["a"]


def test_many_threads_write_and_read(state: State) -> None:
    def work(number: int) -> None:
        for step in range(20):
            with state.transaction() as database:
                database.execute("INSERT INTO fruit VALUES (?)", (f"{number}-{step}",))
            assert f"{number}-{step}" in names(state)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(state)) == 160


def test_processes_that_open_at_once_all_get_in(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rsocket_broker.state import State\n"
        "state = State.open(Path(sys.argv[1]))\n"
        f"state.migrate('test', [{TABLE!r}])\n"
        "with state.transaction() as database: database.execute('INSERT INTO fruit VALUES (?)', (sys.argv[2],))\n"
        "state.close()"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), str(number)]) for number in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    with State.open(path) as state:
        assert names(state) == ["0", "1", "2", "3"]


def test_a_commit_outlives_the_process_that_made_it(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from rsocket_broker.state import State\n"
        "state = State.open(Path(sys.argv[1]))\n"
        f"state.migrate('test', [{TABLE!r}])\n"
        "with state.transaction() as database: database.execute(\"INSERT INTO fruit VALUES ('kept')\")\n"
        "with state.transaction() as database:\n"
        "    database.execute(\"INSERT INTO fruit VALUES ('lost')\")\n"
        "    os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    with State.open(path) as state:
        assert names(state) == ["kept"]


def test_a_database_held_by_another_process_is_reported(
    state: State, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "BUSY_TIMEOUT_S", 0.05)
    with State.open(path) as other, state.transaction(), pytest.raises(HomeError, match="locked"), other.transaction():
        pass


def test_a_file_that_is_no_database_is_reported(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"not a database " * 100)
    path.chmod(0o600)
    with pytest.raises(HomeError, match=r"not a database.*Restore"):
        State.open(path)


def test_a_closed_state_stays_closed(state: State, path: Path) -> None:
    assert state.integrity_problems() == []
    state.close()
    state.close()
    with pytest.raises(RuntimeError):
        state.read("SELECT 1")
    with pytest.raises(sqlite3.ProgrammingError), state.transaction():
        pass
    assert path.exists()


def test_a_database_that_may_not_be_written_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.close()
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    with pytest.raises(sqlite3.Error) as caught:
        database.execute("INSERT INTO t VALUES (1)")
    database.close()
    assert f"chmod u+rwx {tmp_path}" in state_module._damaged(path, caught.value).public


def test_the_log_is_grown_ahead_and_nothing_of_it_stays(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with State.open(path) as state:
        state.migrate("notes", ("CREATE TABLE notes (text TEXT)",))
        state.grow_log()
        log = path.with_name("state.db-wal")
        size = log.stat().st_size
        assert size > state_module.LOG_SIZE
        with state.transaction() as database:
            database.execute("INSERT INTO notes VALUES ('kept')")
        assert log.stat().st_size == size, "it is written into the room that was made"
        assert state.read("SELECT name FROM sqlite_master WHERE name = 'enough'") == []
        assert state.integrity_problems() == []
        with State.open(path) as other:
            assert [row[0] for row in other.read("SELECT text FROM notes")] == ["kept"]


def test_a_log_that_cannot_grow_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsocket_broker.state.BUSY_TIMEOUT_S", 0.01)
    with State.open(tmp_path / "state.db") as state, State.open(tmp_path / "state.db") as other:
        with other.transaction():
            state.grow_log()
        with state.transaction() as database:
            database.execute("CREATE TABLE notes (text TEXT)")
