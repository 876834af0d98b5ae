"""The admin line on real sockets, with a table of verbs of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.admin.client import AdminLine, _Silent
from rsocket_broker.admin.endpoint import AdminEndpoint, Stream, Verb
from rsocket_broker.connection import Connection
from rsocket_broker.errors import ApplicationError, BrokerError, ConnectionClosed, Invalid, RequestFailed
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import SECURE
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.transports.tcp import connect_unix, listen_unix

TOKEN = "the-token-that-nobody-guesses"


async def numbers(params: Any) -> AsyncIterator[object]:
    for number in range(params["count"]):
        yield number


async def later(params: Any) -> object:
    await asyncio.sleep(0)
    return "later"


def refuse(params: Any) -> object:
    raise ApplicationError("not today")


def crash(params: Any) -> object:
    raise ZeroDivisionError("secret of the broker")


class Calls:
    """What reached a verb."""

    def __init__(self) -> None:
        self.seen: list[dict[str, object]] = []

    def note(self, params: Any) -> object:
        self.seen.append(dict(params))
        return {"ok": True}


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def table(calls: Calls) -> dict[str, Verb | Stream]:
    return {
        "note": Verb(calls.note, {"name": str}, {"count": int, "any": object, "seconds": (int, float)}),
        "later": Verb(later),
        "refuse": Verb(refuse),
        "crash": Verb(crash),
        "numbers": Stream(numbers, {"count": int}),
    }


@asynccontextmanager
async def serving(path: Path, make: Callable[[], AdminEndpoint]) -> AsyncIterator[None]:
    def receiver() -> Connection:
        return Connection(Protocol.server(SECURE, time.monotonic()), make())

    listener = await listen_unix(path, receiver)
    yield
    listener.abort()
    await listener.wait_closed()


@asynccontextmanager
async def line_to(path: Path, setup: bytes = b"") -> AsyncIterator[Connection]:
    connection = Connection(Protocol.client(Setup(data=setup), SECURE, time.monotonic()), _Silent())
    await connect_unix(path, connection)
    yield connection
    await connection.close()


@pytest.fixture
async def line(tmp_path: Path, table: dict[str, Verb | Stream]) -> AsyncIterator[Connection]:
    async with serving(tmp_path / "s", lambda: AdminEndpoint(table)), line_to(tmp_path / "s") as connection:
        yield connection


async def test_a_verb_answers_at_once_or_later(line: Connection, calls: Calls) -> None:
    admin = AdminLine(line)
    assert await admin.call("note", {"name": "x", "any": [1, {"a": None}], "seconds": 1.5}) == {"ok": True}
    assert calls.seen == [{"name": "x", "any": [1, {"a": None}], "seconds": 1.5}]
    assert await admin.call("later") == "later"


async def test_a_stream_gives_many_and_can_be_left(line: Connection) -> None:
    admin = AdminLine(line)
    assert [item async for item in admin.stream("numbers", {"count": 3})] == [0, 1, 2]
    async for item in admin.stream("numbers", {"count": 10**9}):
        if item == 1000:
            break
    assert await admin.call("later") == "later"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "UTF-8"),
        (b"[]", "not a JSON object"),
        (b"{}", "no such verb"),
        (b'{"verb":["note"]}', "no such verb"),
        (b'{"verb":"__class__"}', "no such verb"),
        (b'{"verb":"note","params":[]}', "params must be an object"),
        (b'{"verb":"note"}', "name is missing"),
        (b'{"verb":"note","params":{"name":1}}', "name is of a wrong type"),
        (b'{"verb":"note","params":{"name":"x","count":true}}', "count is of a wrong type"),
        (b'{"verb":"note","params":{"name":"x","seconds":"1"}}', "seconds is of a wrong type"),
        (b'{"verb":"note","params":{"name":"x","other":1}}', "other is unknown"),
        (b'{"verb":"numbers","params":{"count":1}}', "answers with a stream"),
    ],
)
async def test_a_bad_request_is_refused_by_name_and_reaches_nothing(
    line: Connection, calls: Calls, data: bytes, words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        await line.request_response(Payload(data), 5)
    assert calls.seen == []


async def test_one_answer_is_no_stream_and_there_are_no_channels(line: Connection) -> None:
    async def nothing() -> AsyncIterator[Payload]:
        return
        yield

    with pytest.raises(Invalid, match="answers once"):
        async for _ in line.request_stream(Payload(b'{"verb":"later"}')):
            pass
    with pytest.raises(Invalid, match="no channels"):
        async for _ in line.request_channel(Payload(b'{"verb":"later"}'), nothing()):
            pass


async def test_what_expects_no_answer_does_nothing(line: Connection, calls: Calls) -> None:
    line.fire_and_forget(Payload(b'{"verb":"note","params":{"name":"x"}}'))
    line.metadata_push(b"x")
    assert await AdminLine(line).call("later") == "later"
    assert calls.seen == []


async def test_a_refusal_comes_in_its_own_words_and_a_defect_in_none(line: Connection) -> None:
    with pytest.raises(ApplicationError, match="not today"):
        await AdminLine(line).call("refuse")
    with pytest.raises(RequestFailed) as caught:
        await AdminLine(line).call("crash")
    assert "secret" not in str(caught.value)


@pytest.mark.row("A-58")
@pytest.mark.parametrize(
    "setup",
    [
        b"",
        b"{}",
        b"[]",
        b'{"token":null}',
        b'{"token":""}',
        b'{"token":"the-token-that-nobody-guesse"}',
        b'{"token":"the-token-that-nobody-guesses\\u0000"}',
        b'{"token":["the-token-that-nobody-guesses"]}',
        '{"token":"tökén"}'.encode(),
        b'{"token":"\\ud800"}',
    ],
)
async def test_without_the_token_nothing_is_answered(
    tmp_path: Path, table: dict[str, Verb | Stream], calls: Calls, setup: bytes
) -> None:
    async with serving(tmp_path / "s", lambda: AdminEndpoint(table, TOKEN)), line_to(tmp_path / "s", setup) as line:
        with pytest.raises(BrokerError, match="token"):
            await AdminLine(line).call("note", {"name": "x"})
        assert isinstance(line.closing, ConnectionClosed)
    assert calls.seen == []


@pytest.mark.row("A-58")
async def test_with_the_token_everything_is(tmp_path: Path, table: dict[str, Verb | Stream]) -> None:
    setup = b'{"token":"%s"}' % TOKEN.encode()
    async with serving(tmp_path / "s", lambda: AdminEndpoint(table, TOKEN)), line_to(tmp_path / "s", setup) as line:
        assert await AdminLine(line).call("later") == "later"
