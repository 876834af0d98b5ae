import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rsocket_broker.admin.run_folder import SOCKET_PATH_LIMIT, Ports, RunFolder
from rsocket_broker.errors import HomeError

HOLD = """
import sys, time
from pathlib import Path
from rsocket_broker.admin.run_folder import Ports, RunFolder
folder = RunFolder(Path(sys.argv[1]))
folder.acquire()
folder.make_token()
folder.publish(Ports(pid=1, started=2.0, host="localhost", admin="x"))
print("held", flush=True)
time.sleep(60)
"""


def some_ports() -> Ports:
    return Ports(pid=7, started=12.5, host="localhost", admin="/x/admin.sock", insecure_port=8089, secure_port=8088)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "home")


@pytest.fixture
def holder(folder: RunFolder):  # type: ignore[no-untyped-def]
    """Another process that holds the home."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder.home)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_ports_are_written_in_full_with_null_for_what_is_closed(folder: RunFolder) -> None:
    folder.acquire()
    folder.publish(some_ports())
    assert json.loads(folder.ports_path.read_bytes()) == {
        "pid": 7,
        "started": 12.5,
        "host": "localhost",
        "insecure_port": 8089,
        "secure_port": 8088,
        "http_port": None,
        "ws_insecure_port": None,
        "ws_secure_port": None,
        "browser_port": None,
        "admin": "/x/admin.sock",
    }
    assert folder.ports() == some_ports()
    folder.release()


@pytest.mark.row("A-58")
def test_nobody_else_can_enter_or_read(folder: RunFolder) -> None:
    folder.acquire()
    folder.publish(some_ports())
    folder.make_token()
    assert mode(folder.path) == mode(folder.home) == 0o700
    assert {mode(path) for path in (folder.ports_path, folder.token_path, folder.lock_path)} == {0o600}
    folder.release()


@pytest.mark.row("A-58")
def test_a_token_that_others_can_read_is_not_used(folder: RunFolder) -> None:
    folder.acquire()
    token = folder.make_token()
    assert folder.token() == token
    assert len(token) >= 43
    folder.token_path.chmod(0o644)
    with pytest.raises(HomeError, match="chmod 600"):
        folder.token()
    folder.release()


def test_everything_is_taken_away_at_the_end(folder: RunFolder) -> None:
    folder.acquire()
    folder.publish(some_ports())
    folder.make_token()
    folder.release()
    folder.release()
    assert list(folder.path.iterdir()) == []
    assert folder.ports() is None
    assert folder.holder() is None


def test_a_second_broker_is_refused_by_the_pid_of_the_first(folder: RunFolder, holder: subprocess.Popen[bytes]) -> None:
    assert folder.holder() == holder.pid
    with pytest.raises(HomeError, match=rf"\(pid {holder.pid}\) already runs on .*--home"):
        folder.acquire()
    folder.release()
    assert folder.ports() is not None


def test_after_kill_9_the_next_one_takes_over(folder: RunFolder, holder: subprocess.Popen[bytes]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert folder.holder() is None
    assert {path.name for path in folder.leftovers()} == {"lock", "ports.json", "admin.token"}
    folder.acquire()
    assert folder.ports() is None
    assert folder.holder() == os.getpid()
    assert not folder.token_path.exists()
    folder.release()


def test_many_at_once_make_one_holder(folder: RunFolder) -> None:
    """Each releases at once, so the lock file comes and goes under the others."""
    inside = 0
    most = 0
    refused = 0
    guard = threading.Lock()

    def one() -> None:
        nonlocal inside, most, refused
        for _ in range(20):
            own = RunFolder(folder.home)
            try:
                own.acquire()
            except HomeError:
                with guard:
                    refused += 1
                continue
            with guard:
                inside += 1
                most = max(most, inside)
            with guard:
                inside -= 1
            own.release()

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused < 6 * 20


def test_a_long_home_has_no_room_for_a_socket(tmp_path: Path) -> None:
    def home_of(socket_bytes: int) -> RunFolder:
        return RunFolder(Path("/" + "h" * (socket_bytes - len("//run/admin.sock"))))

    longest = home_of(SOCKET_PATH_LIMIT).socket_path()
    assert longest is not None
    assert len(os.fsencode(longest)) == SOCKET_PATH_LIMIT
    assert home_of(SOCKET_PATH_LIMIT + 1).socket_path() is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"pid":1}', some_ports().to_json().decode().replace("7", '"7"')]
)
def test_a_ports_file_of_another_shape_is_refused(folder: RunFolder, text: str) -> None:
    folder.acquire()
    folder.ports_path.write_text(text)
    folder.ports_path.chmod(0o600)
    with pytest.raises(HomeError, match="not what a broker writes"):
        folder.ports()
    folder.release()


def test_a_home_of_a_loose_mode_is_refused(folder: RunFolder) -> None:
    folder.home.mkdir(mode=0o755)
    with pytest.raises(HomeError, match="chmod 700"):
        folder.acquire()
