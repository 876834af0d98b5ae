"""Talks to Android devices through a running adb server; never starts one.

adbutils blocks, so each piece of work has a daemon thread of its own and a hard time limit: one device that does not
answer costs one thread until its limit, and holds up neither the loop, nor the other devices, nor the exit.

A command is a list of arguments. It becomes one shell line in one place, `shell_line`, through shlex; contents go
through the command's standard input, which is closed behind them, and are never part of a line.
"""

import asyncio
import os
import secrets
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import attrs

from rsocket_broker.errors import BrokerError, ConfigurationError

if TYPE_CHECKING:
    from rsocket_broker.enrollment.mediums.adb_connection import DirectClient, DirectConnection, Leash

Address = tuple[str, int]
_T = TypeVar("_T")

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 5037
LIST_LIMIT = 3.0
"""Seconds for a question that the server answers by itself; it takes milliseconds unless the server hangs."""
COMMAND_LIMIT = 8.0
"""Seconds for one command on a device. `run-as` takes 0.1 s on a phone, the first `settings` one or two."""
THREAD_GRACE = 2.0
"""Seconds more that the loop waits for a thread: for the first import of adbutils, and for names to be looked up."""
MAX_OUTPUT = 256 * 1024
"""Bytes kept of one command. What we read is a few PEM files; a device that sends more is cut off."""
MAX_PORT = 65535

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
"""Packet kinds of `shell,v2`: each packet is a kind, a length in four little-endian bytes, and that many bytes."""
_INPUT_CHUNK = 16 * 1024


class AdbProblem(BrokerError):
    """Something about adb failed; the text says what, in one line that can be shown.

    AdbProblem
    ├── AdbAbsent       no adb server answers
    ├── AdbRefused      the adb server says no (device offline, unauthorized, gone); the text is its own
    ├── AdbTimedOut     a device or the server did not answer in time
    └── AdbLineLost     the line to the device dropped in the middle of a command
    """


class AdbAbsent(AdbProblem):
    pass


class AdbRefused(AdbProblem):
    pass


class AdbTimedOut(AdbProblem):
    pass


class AdbLineLost(AdbProblem):
    pass


@attrs.frozen(slots=True)
class Attached:
    """One line of `adb devices`: `state` is `device` when it can be used, else `offline`, `unauthorized`…"""

    serial: str
    state: str


@attrs.frozen(slots=True)
class Output:
    """What a command on a device left behind. `errors` is empty where the device cannot tell the two apart."""

    code: int
    output: bytes = attrs.field(repr=False)
    errors: bytes = attrs.field(repr=False, default=b"")

    @property
    def text(self) -> str:
        """All of it, for people."""
        return (self.output + b"\n" + self.errors).decode("utf-8", "replace").strip()


def server_address(setting: str, environ: Mapping[str, str] = os.environ) -> Address | None:
    """The adb server that `--adb` means: None for `off`; `auto` is where the `adb` command would look.

    Raises ConfigurationError for anything else that is not HOST:PORT.
    """
    if setting == "off":
        return None
    if setting != "auto":
        return _host_and_port(setting, "--adb")
    if server := environ.get("ADB_SERVER_SOCKET", ""):
        if not server.startswith("tcp:"):
            raise ConfigurationError(f"ADB_SERVER_SOCKET is {server!r}: only tcp:HOST:PORT and tcp:PORT can be used.")
        place = server.removeprefix("tcp:")
        return _host_and_port(place if ":" in place else f"{DEFAULT_HOST}:{place}", "ADB_SERVER_SOCKET")
    host = environ.get("ANDROID_ADB_SERVER_ADDRESS") or DEFAULT_HOST
    port = environ.get("ANDROID_ADB_SERVER_PORT") or str(DEFAULT_PORT)
    return _host_and_port(f"{host}:{port}", "ANDROID_ADB_SERVER_PORT")


def _host_and_port(text: str, name: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) <= MAX_PORT):
        raise ConfigurationError(f"{name} is {text!r}: it must be auto, off or HOST:PORT, as 127.0.0.1:{DEFAULT_PORT}.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def absent(address: Address) -> AdbAbsent:
    """No server: says whether adb is installed at all, and what to do."""
    where = f"No adb server answers at {address[0]}:{address[1]}"
    if shutil.which("adb") is None:
        return AdbAbsent(
            f"{where}, and adb is not installed: install Android's platform-tools (Debian: apt install adb), "
            "then run `adb start-server`."
        )
    return AdbAbsent(f"{where}: run `adb start-server` (the broker never starts one by itself).")


def shell_line(arguments: Sequence[str]) -> str:
    """The line that makes any POSIX shell see exactly these arguments. Raises ValueError for a NUL in one."""
    if any("\0" in argument for argument in arguments):
        raise ValueError("a NUL cannot be part of a command")
    return shlex.join(arguments)


class AdbServer:
    """The adb server at `address`. Every method raises AdbAbsent when it does not answer, and other AdbProblems."""

    def __init__(self, address: Address) -> None:
        self.address = address

    async def devices(self) -> list[Attached]:
        """Everything that is attached, in whatever state, in the order of serials."""

        def work(client: "DirectClient") -> list[Attached]:
            return sorted((Attached(item.serial, item.state) for item in client.list()), key=lambda item: item.serial)

        return await self.call(work, LIST_LIMIT)

    async def probe(self) -> None:
        """Returns when something listens at the address, and raises AdbAbsent otherwise. Does not load adbutils, for
        which a broker on a machine without adb has no use."""
        try:
            async with asyncio.timeout(LIST_LIMIT):
                _reader, writer = await asyncio.open_connection(*self.address)
        except OSError as error:  # TimeoutError is one
            raise absent(self.address) from error
        writer.close()

    async def version(self) -> int:
        """The server's protocol version, 41 for `adb` 1.0.41."""

        def work(client: "DirectClient") -> int:
            return int(client.server_version())  # type: ignore[no-untyped-call]

        return await self.call(work, LIST_LIMIT)

    async def run(
        self, serial: str, arguments: Sequence[str], stdin: bytes = b"", limit: float = COMMAND_LIMIT
    ) -> Output:
        """Runs one command on a device, with `stdin` as all of its input."""
        line = shell_line(arguments)

        def work(client: "DirectClient") -> Output:
            device = client.device(serial)
            if "shell_v2" in device.get_features().split(","):
                with device.open_transport() as connection:
                    return _run_v2(connection, line, stdin)
            with device.open_transport() as connection:
                return _run_plain(connection, line, stdin)

        return await self.call(work, limit)

    async def reverse(self, serial: str, device_port: int, port: int) -> None:
        """Makes connections to `device_port` of the device come out at `port` of the adb server's machine."""
        await self.call(
            lambda client: client.device(serial).reverse(f"tcp:{device_port}", f"tcp:{port}"), COMMAND_LIMIT
        )

    async def reverses(self, serial: str) -> dict[str, str]:
        """The reverse forwards of a device: `tcp:8088` → `tcp:40123`."""

        def work(client: "DirectClient") -> dict[str, str]:
            return {item.remote: item.local for item in client.device(serial).reverse_list()}

        return await self.call(work, COMMAND_LIMIT)

    async def track(self, changed: Callable[[list[Attached]], None]) -> None:
        """Calls `changed` on the loop with all that is attached, at once and at every change, until the server goes."""
        loop = asyncio.get_running_loop()

        def work(client: "DirectClient") -> None:
            with client.make_connection() as connection:
                connection.send_command("host:track-devices")
                connection.check_okay()
                while True:
                    lines = connection.read_string_block().splitlines()
                    pairs = [line.split("\t", 1) for line in lines if "\t" in line]
                    loop.call_soon_threadsafe(changed, [Attached(*pair) for pair in pairs])

        await self.call(work, None)

    async def call(self, work: "Callable[[DirectClient], _T]", limit: float | None) -> _T:
        """Runs `work` on a thread of its own, which is cut off after `limit` seconds or when this call is cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        leashes: list[Leash] = []

        def thread() -> None:
            from rsocket_broker.enrollment.mediums.adb_connection import DirectClient, Leash

            leash = Leash(None if limit is None else time.monotonic() + limit)
            leashes.append(leash)
            try:
                if future.cancelled():
                    return
                result = work(DirectClient(self.address, leash))
            except Exception as error:  # noqa: BLE001 - carried to the caller, whole
                explained = self._explain(error, limit)
                _deliver(loop, future, lambda: future.set_exception(explained))
            else:
                _deliver(loop, future, lambda: future.set_result(result))
            finally:
                leash.close()

        threading.Thread(target=thread, name="adb", daemon=True).start()
        try:
            async with asyncio.timeout(None if limit is None else limit + THREAD_GRACE):
                return await future
        except TimeoutError:
            raise AdbTimedOut(f"no answer within {limit or 0:g} seconds") from None
        finally:
            for leash in leashes:
                leash.cut()

    def _explain(self, error: Exception, limit: float | None) -> AdbProblem:
        """What went wrong on the thread, as an AdbProblem."""
        from adbutils import AdbError
        from adbutils.errors import AdbTimeout

        if isinstance(error, AdbProblem):
            return error
        if isinstance(error, TimeoutError | AdbTimeout):
            return AdbTimedOut(f"no answer within {limit or 0:g} seconds")
        if isinstance(error, AdbError):
            text = str(error)
            lost = "connection closed" in text or "Unknown data" in text
            return AdbLineLost("the line to the device dropped") if lost else AdbRefused(text)
        if isinstance(error, EOFError | ValueError):  # adbutils reads a number from what came last
            return AdbLineLost("the line to the device dropped")
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            return AdbLineLost("the adb server dropped the line")
        if isinstance(error, OSError):
            return absent(self.address)
        unforeseen = AdbProblem(f"adb could not be used: {type(error).__name__}")
        unforeseen.__cause__ = error
        return unforeseen


def _deliver(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[_T]", act: Callable[[], None]) -> None:
    """Hands a thread's result to the loop, unless nobody waits for it any more."""
    try:
        loop.call_soon_threadsafe(lambda: None if future.done() else act())
    except RuntimeError:
        return  # the loop has been closed: the program is ending


def _run_v2(connection: "DirectConnection", line: str, stdin: bytes) -> Output:
    """`shell,v2`: input that can be closed, the two outputs apart, and an exit code."""
    connection.send_command(f"shell,v2,raw:{line}")
    connection.check_okay()  # type: ignore[no-untyped-call]
    for start in range(0, len(stdin), _INPUT_CHUNK):
        _send_packet(connection, _STDIN, stdin[start : start + _INPUT_CHUNK])
    _send_packet(connection, _CLOSE_STDIN, b"")
    streams = {_STDOUT: bytearray(), _STDERR: bytearray()}
    while True:
        header = connection.read_exact(5)
        kind, size = header[0], int.from_bytes(header[1:], "little")
        if size + sum(map(len, streams.values())) > MAX_OUTPUT:
            raise AdbRefused(f"the device sent more than {MAX_OUTPUT} bytes")
        data = connection.read_exact(size)
        if kind == _EXIT:
            return Output(data[0], bytes(streams[_STDOUT]), bytes(streams[_STDERR]))
        if kind in streams:
            streams[kind] += data


def _send_packet(connection: "DirectConnection", kind: int, data: bytes) -> None:
    connection.conn.sendall(bytes([kind]) + len(data).to_bytes(4, "little") + data)


def _run_plain(connection: "DirectConnection", line: str, stdin: bytes) -> Output:
    """`exec:`, for devices before Android 7: one raw stream each way, no exit code, no end of input.

    So the device's own `dd` takes exactly as many bytes as are sent and ends the command's input behind them, and the
    exit code is printed behind a mark which nobody but this call can know.
    """
    mark = secrets.token_hex(8)
    fed = f"dd bs=1 count={len(stdin)} 2>/dev/null | {line}" if stdin else f"{line} </dev/null"
    connection.send_command(f"exec:{fed}; code=$?; echo; echo {mark}:$code")
    connection.check_okay()  # type: ignore[no-untyped-call]
    connection.conn.sendall(stdin)
    output = bytearray()
    while piece := connection.conn.recv(_INPUT_CHUNK):
        output += piece
        if len(output) > MAX_OUTPUT:
            raise AdbRefused(f"the device sent more than {MAX_OUTPUT} bytes")
    body, found, code = bytes(output).rpartition(f"\n{mark}:".encode())
    if not found or not code.strip().isdigit():
        raise AdbLineLost("the line to the device dropped")
    return Output(int(code), body)
