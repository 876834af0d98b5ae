"""The command line's end of the admin line: finds the broker that runs on a home, and asks it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from rsocket_broker import jsontext
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.connection import Connection
from rsocket_broker.errors import BrokerError, ConnectionClosed, HomeError, Rejected
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.events import SetupReceived
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import SECURE
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.transports.tcp import connect_tcp, connect_unix

CONNECT_TIMEOUT_S = 5.0
"""The broker is on this machine: one that takes longer hangs."""
ANSWER_TIMEOUT_S = 10.0
"""For verbs that only look something up."""
STREAM_CREDIT = 256

Params = Mapping[str, object]


class AdminLine:
    """An open admin line."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def call(self, verb: str, params: Params | None = None, patience: float = ANSWER_TIMEOUT_S) -> Any:
        """The answer of a verb. Raises RequestFailed with the broker's text, BrokerError when none comes in time."""
        try:
            answer = await self._connection.request_response(_request(verb, params), patience)
        except TimeoutError:
            raise BrokerError(f"the broker did not answer within {patience:g} s.") from None
        return jsontext.parse(answer.data or b"null")

    async def stream(self, verb: str, params: Params | None = None) -> AsyncGenerator[Any, None]:
        """The answers of a streaming verb as they come, until the broker ends them or the iterator is closed."""
        async with self._connection.request_stream(_request(verb, params), STREAM_CREDIT) as items:
            async for item in items:
                yield jsontext.parse(item.data or b"null")


@contextlib.asynccontextmanager
async def admin_line(home: Path) -> AsyncIterator[AdminLine]:
    """A line to the broker of `home`. Raises HomeError with the next step when none runs there."""
    connection = await _connect(RunFolder(home))
    try:
        yield AdminLine(connection)
    finally:
        await connection.close()


def ask(home: Path, verb: str, params: Params | None = None, *, patience: float = ANSWER_TIMEOUT_S) -> Any:
    """One question and its answer, for callers without an event loop."""

    async def once() -> Any:
        async with admin_line(home) as line:
            return await line.call(verb, params, patience)

    return asyncio.run(once())


def follow(home: Path, verb: str, params: Params, show: Callable[[Any], object]) -> None:
    """Calls `show` for each answer of a streaming verb until it ends, for callers without an event loop."""

    async def all_of_them() -> None:
        async with admin_line(home) as line, contextlib.aclosing(line.stream(verb, params)) as items:
            async for item in items:
                show(item)

    asyncio.run(all_of_them())


async def _connect(folder: RunFolder) -> Connection:
    ports = folder.ports()
    if ports is None:
        raise _nobody_there(folder)
    socket_path = folder.socket_path()
    over_tcp = socket_path is None or ports.admin != str(socket_path)
    data = jsontext.dump({"token": folder.token()}) if over_tcp else b""
    protocol = Protocol.client(Setup(data=data), SECURE, asyncio.get_running_loop().time())
    connection = Connection(protocol, _Silent())
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if over_tcp:
                host, _, port = ports.admin.rpartition(":")
                await connect_tcp(host, int(port), connection)
            else:
                await connect_unix(Path(ports.admin), connection)
    except (OSError, ValueError) as error:
        raise _nobody_there(folder) from error
    return connection


def _nobody_there(folder: RunFolder) -> HomeError:
    return HomeError(
        f"no broker runs on {folder.home}. Start one there with: rsocket-broker serve\n"
        "If it runs on another home, name that with --home."
    )


def _request(verb: str, params: Params | None) -> Payload:
    return Payload(jsontext.dump({"verb": verb, "params": dict(params or {})}))


class _Silent:
    """The Responder of this end: the broker asks nothing of the command line."""

    def setup(self, connection: Connection, setup: SetupReceived) -> None:
        """Never called at a client's end."""

    def request_response(self, payload: Payload) -> NoReturn:
        raise Rejected("the command line answers nothing")

    request_stream = request_response

    def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> NoReturn:
        raise Rejected("the command line answers nothing")

    def fire_and_forget(self, payload: Payload) -> None:
        """Ignored."""

    def metadata_push(self, metadata: bytes) -> None:
        """Ignored."""

    def closed(self, error: ConnectionClosed) -> None:
        """Whoever waits for an answer learns it there."""
