"""Which process holds a listening TCP port, as far as Linux's /proc lets this user see."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import attrs

PROC = Path("/proc")
_LISTEN = "0A"
_SHOWN_WORDS = 3
"""Enough to tell `python3 -m rsocket_broker` from `node server.js`; later words may hold what is not ours to show."""
_SHOWN_LENGTH = 80


@attrs.frozen(slots=True)
class Holder:
    """A process that listens on the port; `command` is the start of its command line."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


def port_holder(port: int, proc: Path = PROC) -> Holder | None:
    """The process that listens on `port`, or None where that cannot be known (another user's, or not Linux)."""
    inodes = set(_listening(port, proc))
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in _processes(proc):
        if not wanted.isdisjoint(_open_files(folder)):
            return Holder(int(folder.name), _command(folder))
    return None


def _listening(port: int, proc: Path) -> Iterator[str]:
    """The inodes of the sockets that listen on `port`; the columns are those of proc(5), /proc/net/tcp."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / name).read_text(encoding="ascii").splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                    yield columns[9]


def _processes(proc: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (folder for folder in proc.iterdir() if folder.name.isdigit())


def _open_files(folder: Path) -> Iterator[str]:
    """What the descriptors of a process point at; processes end and descriptors close while we look."""
    with contextlib.suppress(OSError):
        for link in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(link.readlink())


def _command(folder: Path) -> str:
    with contextlib.suppress(OSError):
        words = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")[:_SHOWN_WORDS]
        text = b" ".join(words).decode("utf-8", "replace")
        if printable := "".join(letter if letter.isprintable() else "?" for letter in text)[:_SHOWN_LENGTH]:
            return printable
    return "name not known"
