"""A session with a token in place of a certificate: what a page does, for programs and tests in Python."""

import contextlib
from collections.abc import AsyncIterator

from rsocket_broker.client.line import WebAddress, open_with_token
from rsocket_broker.client.responder import Refuser
from rsocket_broker.client.session import Session
from rsocket_broker.connection import Connection
from rsocket_broker.errors import ConnectionClosed


@contextlib.asynccontextmanager
async def connect_child(url: str, token: str) -> AsyncIterator[Session]:
    """A session below the one that asked for the token: `async with connect_child(url, token) as session:`.

    `url` is `ws://localhost:PORT/rsocket` with the number of the broker's HTTP port. The session ends with its line,
    with the one above it, and when its time is over: from then on its calls raise ConnectionClosed with the reason. As
    long as the token is good it may be used again. Nothing is served to the broker here.

    Raises ValueError for another kind of URL, SetupRefused with the broker's words when it does not take the token,
    OSError (TimeoutError is one) or ConnectionClosed when the line fails.
    """
    address = WebAddress.parse(url)
    if address.secure:
        raise ValueError(f"{url!r} asks for a certificate; a token alone is good at ws://localhost:PORT/rsocket")
    session = Session({})
    connection = await open_with_token(address, token, Refuser(), lambda opened: session.opened(opened, ""))
    connection.when_lost(lambda lost: session.end(_reason(lost)))
    session.accepted()
    try:
        yield session
    finally:
        session.end(ConnectionClosed("this session was closed by the app"))
        await connection.close()


def _reason(connection: Connection) -> ConnectionClosed:
    how = connection.closing
    return ConnectionClosed("the connection is closed") if how is None else ConnectionClosed(how.public, how.code)
