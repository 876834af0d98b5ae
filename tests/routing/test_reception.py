"""Where requests lead, and what is said to those that lead nowhere."""

import pytest

from rsocket_broker.errors import Invalid, Rejected
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.metadata import AUTHENTICATION, Entry, Mime, build_composite, route
from tests.routing.line import Line
from tests.routing.plugins import Echo, Network


@pytest.mark.parametrize(
    ("metadata", "error", "text"),
    [
        (None, Invalid, "has no route"),
        (b"", Invalid, "has no route"),
        (b"\xff\x00", Invalid, "ends inside an entry"),
        (build_composite([Entry(Mime.of(AUTHENTICATION), b"x")]), Invalid, "has no route"),
        (route("nobody.here"), Invalid, 'No plugin serves the route "nobody.here"'),
        (route("echo"), Invalid, 'No plugin serves the route "echo"'),
        (route("echo.absent"), Invalid, 'The plugin "echo" has no "absent"'),
        (route("echo.stream"), Invalid, "use request-stream"),
        (route("client:c1"), Rejected, "passes no requests on"),
    ],
)
async def test_a_request_that_leads_nowhere_says_why(metadata: bytes | None, error: type[Exception], text: str) -> None:
    async with Line(Echo) as line:
        client = await line.connect()
        with pytest.raises(error, match=text):
            await client.connection.request_response(Payload(b"", metadata), 5.0)
        assert await client.ask("echo.request", b"x") == b"x"


async def test_a_plain_client_is_never_sent_a_flipper_message() -> None:
    async with Line(Network) as line:
        client = await line.connect()
        with pytest.raises(Invalid, match="has no route"):
            await client.ask_json({"method": "execute", "params": {"api": "Network", "method": "add"}})
        assert await client.session.to_app.call("Network", "getAll", {}) == {}
        assert client.side.messages == []
