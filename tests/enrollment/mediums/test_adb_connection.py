"""The changed habits of adbutils: it never starts a server, and a piece of work has one deadline."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsocket_broker.enrollment.mediums.adb_connection import DirectClient, DirectConnection, Leash
from tests.emulated_device.server import free_port


def leash(seconds: float = 5.0) -> Leash:
    return Leash(time.monotonic() + seconds)


@contextlib.contextmanager
def listener(answer: bytes = b"", every: float = 0.0) -> Iterator[tuple[str, int]]:
    """A server that accepts, and sends `answer` byte by byte, one in `every` seconds; then says nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                line, _ = server.accept()
                accepted.append(line)
                for value in answer:
                    line.sendall(bytes([value]))
                    time.sleep(every)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)
        for line in accepted:
            line.close()
        thread.join()


def test_no_server_is_started_when_none_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to start a program leaves a trace here: an `adb` first on the PATH, and adbutils' own copy of it."""
    trap = tmp_path / "adb"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    trap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(trap))
    client = DirectClient(("127.0.0.1", free_port()), leash())
    asked = [client.list, client.server_version, lambda: client.device("x").reverse_list(), client.make_connection]
    for ask in asked:
        with pytest.raises(OSError, match="refused"):
            ask()
    assert not (tmp_path / "started").exists()


def test_the_deadline_is_for_the_whole_and_not_for_each_byte() -> None:
    with listener(b"OKAY" * 1000, every=0.02) as address:
        started = time.monotonic()
        connection = DirectConnection(*address, leash(0.3))
        with pytest.raises(Exception, match="timeout"):  # adbutils' own word for it
            connection.read_exact(4000)
        connection.close()
        assert 0.2 < time.monotonic() - started < 2


def test_a_leash_without_a_deadline_is_cut_from_another_thread() -> None:
    endless = Leash(None)
    with listener() as address:
        connection = DirectConnection(*address, endless)
        threading.Timer(0.05, endless.cut).start()
        with pytest.raises(Exception, match="timeout"):
            connection.read_exact(1)
        connection.close()
        connection.close()
    with pytest.raises(TimeoutError):
        endless.remaining()


def test_a_leash_that_was_cut_before_holds_no_line() -> None:
    cut = Leash(None)
    cut.cut()
    with listener() as address, pytest.raises(TimeoutError):
        DirectConnection(*address, cut)
