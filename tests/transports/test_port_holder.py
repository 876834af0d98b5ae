import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rsocket_broker.transports.port_holder import Holder, port_holder

needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")

LISTEN = """
import socket, sys
listening = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print(listening.getsockname()[1], flush=True)
sys.stdin.read()
"""


@needs_proc
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_holder_of_a_port_is_named(host: str) -> None:
    command = [sys.executable, "-c", LISTEN, host]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        holder = port_holder(int(process.stdout.readline()))
        process.communicate("")
    assert holder is not None
    assert holder.pid == process.pid
    assert holder.command.startswith(sys.executable)


@needs_proc
def test_a_port_that_nobody_listens_on_has_no_holder() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert port_holder(bound.getsockname()[1]) is None


def made_proc(root: Path, cmdline: bytes) -> Path:
    """A /proc in which process 77 listens on port 8089."""
    (root / "net").mkdir()
    row = "   0: 0100007F:1F99 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n"
    (root / "net/tcp").write_text("  sl  local_address ...\n" + row)
    (root / "77/fd").mkdir(parents=True)
    (root / "77/fd/3").symlink_to("socket:[4711]")
    (root / "77/cmdline").write_bytes(cmdline)
    (root / "self").mkdir()
    return root


def test_a_command_is_shown_short_and_printable(tmp_path: Path) -> None:
    proc = made_proc(tmp_path, b"node\0ser\x1bver.js\0--quiet\0--password=hunter2\0")
    assert port_holder(8089, proc) == Holder(77, "node ser?ver.js --quiet")
    assert port_holder(8088, proc) is None


def test_a_process_that_cannot_be_looked_into_is_not_named(tmp_path: Path) -> None:
    proc = made_proc(tmp_path, b"")
    assert port_holder(8089, proc) == Holder(77, "name not known")
    (proc / "77/fd/3").unlink()
    assert port_holder(8089, proc) is None


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert port_holder(8089, tmp_path / str(os.getpid())) is None
