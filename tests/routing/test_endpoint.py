"""The secure endpoint over memory transports, a real engine on both ends."""

import asyncio
import logging
from typing import Any

import pytest

from rsocket_broker.errors import ApplicationError, ConnectionClosed
from rsocket_broker.payload import ErrorCode
from rsocket_broker.quiet_log import BURST
from rsocket_broker.sessions.live import DuplicateRule, SessionLimits
from tests.routing.line import FLIPPER_CLAIMS, Client, Line
from tests.routing.plugins import Echo

# --- who comes in ----------------------------------------------------------------------------------------------------


async def refused(line: Line, *arguments: Any, **options: Any) -> ConnectionClosed:
    client = line.attempt(*arguments, **options)
    error = await client.connection.wait_closed()
    assert client.responder.session is None
    return error


@pytest.mark.row("A-26", "M-1")
@pytest.mark.parametrize("certificate", [None, b"foreign"])
async def test_nobody_comes_in_without_a_certificate_of_ours(certificate: bytes | None) -> None:
    async with Line(Echo) as line:
        error = await refused(line, certificate)
        assert error.code == ErrorCode.REJECTED_SETUP
        assert "certificate" in error.public
        assert len(line.sessions) == 0


@pytest.mark.row("A-26")
@pytest.mark.parametrize(
    ("claims", "field"),
    [
        ({"app_id": "com.other"}, "app_id"),
        ({"device_id": "dev2"}, "device_id"),
        ({**FLIPPER_CLAIMS, "app_id": "com.other"}, "app_id"),
        ({"os": 5}, "os"),
        (b"not json", "SETUP"),
    ],
)
async def test_a_claim_that_cannot_be_true_is_refused_by_its_name(claims: object, field: str) -> None:
    async with Line(Echo) as line:
        error = await refused(line, claims=claims)
        assert error.code == ErrorCode.REJECTED_SETUP
        assert field in error.public


@pytest.mark.row("A-26")
@pytest.mark.parametrize(
    "claims", [None, {}, {"device_id": "unknown"}, {"device_id": "", "app_id": "com.demo"}, {"app": "Any label"}]
)
async def test_claims_that_say_nothing_wrong_are_let_in_and_the_identity_is_the_certificates(claims: object) -> None:
    async with Line(Echo) as line:
        client = await line.connect(claims=claims)
        assert str(client.session.identity.principal) == "com.demo@dev1 (adb)"


@pytest.mark.row("A-34")
async def test_a_flipper_app_takes_the_place_of_its_older_self_and_only_of_that() -> None:
    async with Line(Echo) as line:
        old = await line.app()
        routed = await line.connect()
        stranger = await line.app(certificate=b"com.demo|dev1|filesystem|7")
        new = await line.app()
        error = await old.connection.wait_closed()
        assert (error.code, error.public) == (
            ErrorCode.CONNECTION_ERROR,
            "a newer session of the same identity has taken the place of this one",
        )
        assert [session.id for session in line.sessions] == [
            routed.session.id,
            stranger.session.id,
            new.session.id,
        ]


@pytest.mark.row("A-34")
async def test_two_with_one_identity_that_push_each_other_out_are_told() -> None:
    async with Line(Echo) as line:
        for _ in range(5):
            await line.app()
        error = await refused(line, claims=FLIPPER_CLAIMS)
        assert "push each other out" in error.public
        assert len(line.sessions) == 1


@pytest.mark.row("M-15", "A-34")
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"limits": SessionLimits(per_identity=1)}, "the limit for one identity"),
        ({"limits": SessionLimits(total=1)}, "its limit in all"),
        ({"rule": DuplicateRule.REFUSE}, "has a session already"),
    ],
)
async def test_a_limit_of_one_refuses_the_second_and_leaves_the_first_alone(options: Any, text: str) -> None:
    async with Line(Echo, **options) as line:
        first = await line.connect()
        assert text in (await refused(line)).public
        assert await first.ask("echo.request", b"still here") == b"still here"
        await first.connection.close()
        await first.served.wait_closed()
        assert await (await line.connect()).ask("echo.request", b"room again") == b"room again"


# --- coming back -----------------------------------------------------------------------------------------------------

TOKEN = b"0123456789abcdef"
MINE, RENEWED, OTHERS = b"com.demo|dev1|adb|255", b"com.demo|dev1|adb|256", b"com.demo|dev2|adb|257"


async def lost(client: Client) -> None:
    client.served.drop_line()
    client.connection.drop_line()


@pytest.mark.row("A-41", "A-43")
async def test_a_client_that_comes_back_has_its_session_with_all_that_belongs_to_it() -> None:
    async with Line(Echo) as line:
        app = await line.app(["echo"], resume_token=TOKEN)
        session = app.session
        await lost(app)
        assert (session.suspended, session.describe()["state"]) == (True, "suspended")
        call = asyncio.ensure_future(session.to_app.call("echo", "nothing"))
        door, _ = line.wire(RENEWED, app.connection)
        await app.connection.wait_resumed()
        with pytest.raises(ApplicationError):
            await call
        assert list(line.sessions) == [session]
        assert (session.suspended, session.identity.serial) == (False, 256)
        assert door.closing is not None
        assert line.endpoint.setups == {"accepted": 1, "resumed": 1}
        assert [message["method"] for message in app.side.messages].count("getPlugins") == 1


async def test_who_comes_back_over_and_over_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with Line(Echo) as line:
            app = await line.connect(resume_token=TOKEN)
            for _ in range(2 * BURST):
                await lost(app)
                line.wire(RENEWED, app.connection)
                await app.connection.wait_resumed()
    assert caplog.text.count("goes on from") == BURST
    assert caplog.text.count("c1 (com.demo@dev1 (adb)) has lost its line, and may come back") == BURST


@pytest.mark.row("A-43", "D-4")
@pytest.mark.parametrize("certificate", [OTHERS, b"foreign", None], ids=["another", "foreign", "none"])
async def test_nobody_else_comes_back_to_it(certificate: bytes | None) -> None:
    async with Line(Echo) as line:
        client = await line.connect(resume_token=TOKEN)
        await lost(client)
        line.wire(certificate, client.connection)
        with pytest.raises(ConnectionClosed) as refusal:
            await client.connection.wait_resumed()
        assert refusal.value.code == ErrorCode.REJECTED_RESUME
        assert client.served.suspended
        assert line.endpoint.setups["resumed"] == 0


@pytest.mark.row("A-41")
async def test_a_second_session_needs_a_token_of_its_own() -> None:
    async with Line(Echo) as line:
        first = await line.connect(resume_token=TOKEN)
        with pytest.raises(ConnectionClosed, match="in use"):
            await line.connect(resume_token=TOKEN)
        await line.connect(OTHERS, resume_token=TOKEN)
        await first.connection.close()
        await first.served.wait_closed()
        await line.connect(resume_token=TOKEN)
        assert len(line.endpoint.resumptions) == 2


async def test_a_setup_that_is_refused_keeps_no_token() -> None:
    async with Line(Echo, limits=SessionLimits(total=1)) as line:
        await line.connect(resume_token=TOKEN)
        with pytest.raises(ConnectionClosed):
            await line.connect(OTHERS, resume_token=TOKEN)
        assert len(line.endpoint.resumptions) == 1


@pytest.mark.row("A-41", "A-34")
async def test_whose_session_is_replaced_cannot_come_back_to_it() -> None:
    async with Line(Echo) as line:
        old = await line.app(["echo"], resume_token=TOKEN)
        await lost(old)
        new = await line.app(["echo"])
        await old.served.wait_closed()
        assert list(line.sessions) == [new.session]
        assert len(line.endpoint.resumptions) == 0
        line.wire(MINE, old.connection)
        with pytest.raises(ConnectionClosed):
            await old.connection.wait_resumed()


@pytest.mark.row("A-41")
async def test_what_is_forgotten_ends_if_it_is_away_and_dies_with_its_line_if_it_is_not() -> None:
    async with Line(Echo) as line:
        away, here, other = [
            await line.connect(certificate, resume_token=TOKEN + certificate) for certificate in (MINE, RENEWED, OTHERS)
        ]
        await lost(away)
        assert line.endpoint.forget(lambda identity: identity.device_id == "dev1") == 2
        await away.served.wait_closed()
        assert await here.ask("echo.request", b"still here") == b"still here"
        here.served.drop_line()
        assert here.served.closing is not None
        other.served.drop_line()
        assert other.served.suspended
        assert list(line.sessions) == [other.session]
