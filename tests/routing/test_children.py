"""Sessions below others, with a real engine on both ends of each line."""

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from rsocket_broker.audit import Audit
from rsocket_broker.errors import ApplicationError, Canceled, ConnectionClosed, HomeError, Rejected
from rsocket_broker.payload import ErrorCode, Payload
from rsocket_broker.plugin_api import App, Plugin, method
from rsocket_broker.protocol.limits import PLAIN, SECURE
from rsocket_broker.protocol.metadata import AUTHENTICATION, route
from rsocket_broker.routing import children as children_module
from rsocket_broker.routing.children import UNKNOWN, Children
from rsocket_broker.sessions.live import DuplicateRule, SessionLimits
from rsocket_broker.sessions.store import Record, SessionStore
from rsocket_broker.sessions.tokens import new_token
from rsocket_broker.sessions.tree import NodeKind, Wish
from rsocket_broker.state import State
from rsocket_broker.transports.base import Channel
from tests.routing.line import Client, Line, until

ROOT = b"com.demo|dev1|adb|255"
HOUR = timedelta(hours=1)


class Echo(Plugin):
    id = "echo"

    @method("request")
    def request(self, app: App, payload: Payload) -> Payload:
        return payload

    @method("what")
    def what(self, app: App) -> list[str]:
        return [app.kind, app.user, app.identity.app_id]

    @method("never")
    async def never(self, app: App) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "home" / "state.db") as opened:
        yield opened


def wish(channel: Channel = Channel.WS, life: timedelta = HOUR, **fields: object) -> Wish:
    return attrs.evolve(Wish(kind=NodeKind.WEB, channel=channel, expires=datetime.now(UTC) + life), **fields)


async def login(line: Line, parent: Client, **fields: object) -> str:
    return (await line.endpoint.children.login(parent.session.node.id, wish(**fields)))[1]  # type: ignore[arg-type]


async def refused(client: Client) -> ConnectionClosed:
    error = await client.connection.wait_closed()
    assert client.responder.session is None
    return error


@pytest.mark.row("W-2", "W-6", "W-11")
async def test_a_token_opens_a_session_below_the_one_that_asked() -> None:
    async with Line(Echo) as line:
        parent = await line.connect()
        token = await login(line, parent, name="page", platform="Firefox", device_id="tab")
        child = await line.connect_child(token, claims={"app": "made up", "os": "x", "device": "y", "parent": "c9"})
        assert await child.ask("echo.request", b"hello") == b"hello"
        session = child.session
        assert [node.id for node in session.lineage] == [session.node.id, parent.session.id]
        assert (session.parent, session.node.parent) == (parent.session, parent.session.id)
        assert session.identity is parent.session.identity
        shown = session.describe()
        assert (shown["app"], shown["device"], shown["os"]) == ("", "page", "Firefox")
        assert (shown["session"], shown["parent"], shown["app_id"]) == ("web", parent.session.id, "com.demo")
        assert not session.speaks_json
        assert line.endpoint.descendants(parent.session) == [session]


@pytest.mark.row("M-10")
async def test_a_plugin_sees_whom_it_serves() -> None:
    async with Line(Echo) as line:
        parent = await line.connect()
        child = await line.connect_child(await login(line, parent, user="anna", kind=NodeKind.CLI))
        assert await parent.json("echo.what") == ["device", "", "com.demo"]
        assert await child.json("echo.what") == ["cli", "anna", "com.demo"]


async def test_the_token_may_be_the_whole_metadata_of_the_setup() -> None:
    async with Line(Echo) as line:
        token = await login(line, await line.connect())
        child = line.attempt(None, metadata=b"\x81" + token.encode(), metadata_mime=AUTHENTICATION, channel=Channel.WS)
        await child.connection.wait_accepted()
        assert child.session.is_child


@pytest.mark.row("A-33")
@pytest.mark.parametrize("made_for", [Channel.WS, Channel.TLS, Channel.WSS])
@pytest.mark.parametrize("used_on", [Channel.WS, Channel.TLS, Channel.WSS])
async def test_a_token_is_good_on_its_own_channel_alone(made_for: Channel, used_on: Channel) -> None:
    async with Line(Echo) as line:
        token = await login(line, await line.connect(), channel=made_for)
        child = line.child(token, None if used_on is Channel.WS else ROOT, used_on)
        if made_for is used_on:
            await child.connection.wait_accepted()
            assert child.session.is_child
        else:
            error = await refused(child)
            assert (error.code, error.public) == (ErrorCode.REJECTED_SETUP, UNKNOWN)


@pytest.mark.row("A-33", "A-26")
@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        (None, "certificate is needed"),
        (b"foreign", "not issued here"),
        (b"com.other|dev1|adb|1", "no session for this token"),
        (b"com.demo|dev1|filesystem|1", "no session for this token"),
    ],
)
async def test_where_there_are_certificates_a_token_needs_the_one_of_its_root(
    certificate: bytes | None, text: str
) -> None:
    async with Line(Echo) as line:
        token = await login(line, await line.connect(), channel=Channel.TLS)
        error = await refused(line.child(token, certificate, Channel.TLS))
        assert error.code == ErrorCode.REJECTED_SETUP
        assert text in error.public


@pytest.mark.parametrize("token", ["", "x", "rsb_" + "A" * 43, "€" * 100_000])
async def test_whoever_guesses_is_refused_in_the_same_words(token: str) -> None:
    async with Line(Echo) as line:
        await login(line, await line.connect())
        assert (await refused(line.child(token))).public == UNKNOWN


CUT_SHORT = b"\xfc\x00\x00\x09\x81"


async def test_metadata_that_is_cut_short_lets_nobody_in() -> None:
    async with Line(Echo) as line:
        error = await refused(line.attempt(None, metadata=CUT_SHORT, channel=Channel.WS))
        assert "metadata of SETUP" in error.public


async def test_beside_a_certificate_metadata_of_any_kind_says_nothing() -> None:
    """The specification leaves it to the two ends what SETUP carries."""
    async with Line(Echo) as line:
        for metadata in (CUT_SHORT, b"some metadata"):
            client = await line.connect(metadata=metadata)
            assert not client.session.is_child


async def test_another_kind_of_authentication_beside_a_certificate_says_nothing() -> None:
    async with Line(Echo) as line:
        client = await line.connect(metadata=b"\xfc\x00\x00\x03\x80\x00\x00")
        assert not client.session.is_child


@pytest.mark.row("A-60", "W-12", "A-59")
async def test_an_end_reaches_the_lines_below_and_the_tokens_at_once(state: State) -> None:
    async with Line(Echo, children=Children(SessionStore(state, Audit(state)))) as line:
        parent = await line.connect()
        tokens = [await login(line, parent)]
        clients = [await line.connect_child(tokens[0])]
        for _ in range(3):
            tokens.append(await login(line, clients[-1]))
            clients.append(await line.connect_child(tokens[-1]))
        open_calls = [asyncio.ensure_future(client.ask("echo.never")) for client in clients]
        for client in clients:
            await client.settled()
        sessions = [client.session for client in clients]
        ended = line.endpoint.children.end(sessions[0].node.id, "the operator said so")
        assert list(ended.lines) == sessions[::-1]
        for call in open_calls:
            with pytest.raises(Canceled, match="has ended"):
                await call
        for client in clients:
            error = await client.connection.wait_closed()
            assert error.code == ErrorCode.CONNECTION_ERROR
        assert "the operator said so" in clients[0].connection.closing.public  # type: ignore[union-attr]
        for token in tokens:
            assert "has ended: " in (await refused(line.child(token))).public
        assert await parent.ask("echo.request", b"still") == b"still"
        assert line.endpoint.descendants(parent.session) == []
        await line.endpoint.stop(5.0)
        store = line.endpoint.children.store
        assert store is not None
        assert sorted(record.reason for record in store.ended())[-1] == "the session above it has ended"
        assert len(store.ended()) == 4
        assert "the operator said so" in (await refused(line.child(tokens[0]))).public


async def test_nothing_is_served_between_the_end_and_the_goodbye() -> None:
    async with Line(Echo) as line:
        child = await line.connect_child(await login(line, await line.connect()))
        await child.ask("echo.request", b"learned")
        line.endpoint.children.end(child.session.node.id, "over", answering=child.session)
        with pytest.raises(Rejected, match="over"):
            await child.ask("echo.request", b"too late")
        assert "over" in (await child.connection.wait_closed()).public


@pytest.mark.row("A-59", "W-12")
async def test_a_child_dies_with_the_line_of_its_root_whoever_cut_it() -> None:
    async with Line(Echo) as line:
        parent = await line.connect()
        token = await login(line, parent)
        child = await line.connect_child(token)
        below = await line.connect_child(await login(line, child))
        parent.connection.abort()
        for one in (child, below):
            assert "has ended" in (await one.connection.wait_closed()).public
        assert (await refused(line.child(token))).public == UNKNOWN
        assert len(line.endpoint.children.tree) == 0


async def test_a_child_may_lose_its_line_and_come_back_with_its_token() -> None:
    async with Line(Echo) as line:
        parent = await line.connect()
        token = await login(line, parent)
        child = await line.connect_child(token)
        below = await line.connect_child(await login(line, child))
        node = child.session.node
        await child.connection.close()
        await child.served.wait_closed()
        assert await below.ask("echo.request", b"x") == b"x"
        again = await line.connect_child(token)
        assert again.session.node == node
        assert line.endpoint.children.line(node.id) is again.session


@pytest.mark.row("A-34")
@pytest.mark.parametrize("rule", [None, *DuplicateRule])
async def test_a_second_line_of_a_child_takes_the_place_of_the_first(rule: DuplicateRule | None) -> None:
    async with Line(Echo, rule=rule) as line:
        parent = await line.connect()
        token = await login(line, parent)
        first = await line.connect_child(token)
        second = await line.connect_child(token)
        assert "newer session" in (await first.connection.wait_closed()).public
        assert await second.ask("echo.request", b"x") == b"x"
        assert [session.id for session in line.sessions] == [parent.session.id, second.session.id]


@pytest.mark.row("A-34", "A-59")
async def test_a_root_that_is_replaced_takes_its_children_with_it() -> None:
    async with Line(Echo) as line:
        old = await line.app()
        child = await line.connect_child(await login(line, old))
        await line.app()
        assert "has ended" in (await child.connection.wait_closed()).public


@pytest.mark.row("A-30")
async def test_children_count_in_all_and_beside_each_other() -> None:
    async with Line(Echo, limits=SessionLimits(total=3, per_identity=1)) as line:
        parent = await line.connect()
        await line.connect_child(await login(line, parent))
        assert "1 child sessions" in (await refused(line.child(await login(line, parent)))).public
        other = await line.connect(b"com.other|dev1|adb|1")
        assert "its limit in all" in (await refused(line.child(await login(line, other)))).public


async def test_the_limits_for_strangers_hold_until_the_token_was_judged() -> None:
    async with Line(Echo) as line:
        child = line.child(await login(line, await line.connect()))
        assert child.served._protocol.limits == PLAIN
        await child.connection.wait_accepted()
        assert child.served._protocol.limits == SECURE
        large = bytes(3 * 1024 * 1024)
        assert await child.ask("echo.request", large) == large
        asked = [asyncio.ensure_future(child.ask("echo.never")) for _ in range(50)]
        await child.settled()
        assert child.served.streams_open == 50
        for call in asked:
            call.cancel()


async def test_a_session_with_a_token_is_not_resumed() -> None:
    async with Line(Echo) as line:
        token = await login(line, await line.connect(), channel=Channel.TLS)
        error = await refused(line.child(token, ROOT, Channel.TLS, resume_token=b"resume-me-please"))
        assert "not resumed" in error.public


@pytest.mark.row("W-7", "W-12")
async def test_a_child_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Line(Echo) as line:
        parent = await line.connect()
        token = await login(line, parent, life=timedelta(milliseconds=300))
        child = await line.connect_child(token)
        assert "its time is over" in (await child.connection.wait_closed()).public
        assert (await refused(line.child(token))).public == UNKNOWN
        assert [node.id for node in line.endpoint.children.tree] == [parent.session.id]


@pytest.mark.row("W-12")
async def test_a_token_whose_time_is_over_opens_nothing_even_before_anybody_has_looked() -> None:
    now = datetime.now(UTC)
    async with Line(Echo) as line:
        line.endpoint.children._clock = lambda: now
        token = await login(line, await line.connect())
        now += 2 * HOUR
        assert "its time is over" in (await refused(line.child(token))).public
        assert len(line.endpoint.children.tree) == 1


@pytest.mark.row("W-7")
async def test_no_child_outlives_the_certificate_that_its_root_shows_now() -> None:
    async with Line(Echo) as line:
        parent = await line.connect()
        soon = datetime.now(UTC) + timedelta(minutes=5)
        parent.session.identity = attrs.evolve(parent.session.identity, not_after=soon)
        node, _ = await line.endpoint.children.login(parent.session.id, wish())
        assert node.expires == soon
        child = await line.connect_child(await login(line, parent))
        parent.session.identity = attrs.evolve(parent.session.identity, serial=77)
        assert child.session.identity.serial == 77


async def test_a_rate_holds_for_a_session_and_all_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(children_module, "monotonic", lambda: now)
    monkeypatch.setattr("rsocket_broker.routing.reception.monotonic", lambda: now)
    async with Line(Echo) as line:
        parent = await line.connect()
        child = await line.connect_child(await login(line, parent, rate=4.0))
        below = await line.connect_child(await login(line, child, rate=9.0))
        assert below.session.node.rate == 4.0
        for client in (child, below, child, below):
            assert await client.ask("echo.request", b"x") == b"x"
        for client in (child, below):
            with pytest.raises(Rejected, match="more often"):
                await client.ask("echo.request", b"x")
        assert await parent.ask("echo.request", b"x") == b"x"
        now = 0.25
        assert await below.ask("echo.request", b"x") == b"x"
        with pytest.raises(Rejected):
            await child.connection.request_response(Payload(b"", route("echo.request")))


async def test_a_session_with_a_rate_passes_nothing_on() -> None:
    async with Line(Echo, relay=True) as line:
        parent = await line.connect()
        other = await line.connect(b"com.other|dev1|adb|1")
        address = [f"client:{other.session.id}", "echo.request"]
        for rate, passes in ((None, True), (100.0, False)):
            child = await line.connect_child(await login(line, parent, rate=rate))
            asked = child.connection.request_response(Payload(b"1", route(*address)), 5.0)
            if passes:
                assert (await asked).data == b"1"
            else:
                with pytest.raises(Rejected, match="limited rate"):
                    await asked


async def test_nobody_has_children_whose_root_is_gone() -> None:
    async with Line(Echo) as line:
        parent = await line.connect()
        node = parent.session.id
        await parent.connection.close()
        await parent.served.wait_closed()
        with pytest.raises(ApplicationError, match="no live session"):
            await line.endpoint.children.login(node, wish())


async def test_a_parent_that_goes_while_its_child_is_written_has_none(state: State) -> None:
    async with Line(Echo, children=Children(SessionStore(state, Audit(state)))) as line:
        parent = await line.connect()
        waiting = asyncio.ensure_future(line.endpoint.children.login(parent.session.id, wish()))
        await asyncio.sleep(0)
        line.endpoint.children.end(parent.session.id, "gone")
        with pytest.raises(ApplicationError, match="ended meanwhile"):
            await waiting
        store = line.endpoint.children.store
        assert store is not None
        await until(lambda: [record.reason for record in store.ended()])


@pytest.mark.parametrize("error", [HomeError("the disk is full"), sqlite3.DatabaseError("the disk is full")])
async def test_what_cannot_be_recorded_is_not_given_out(
    error: Exception, state: State, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SessionStore(state, Audit(state))

    def fail(*_: object) -> None:
        raise error

    async with Line(Echo, children=Children(store)) as line:
        parent = await line.connect()
        token = await login(line, parent)
        monkeypatch.setattr(store, "add", fail)
        with pytest.raises(type(error)):
            await login(line, parent)
        assert len(line.endpoint.children.tree) == 2
        monkeypatch.setattr(store, "end", fail)
        line.endpoint.children.end(parent.session.node.id, "over")
        await until(lambda: "could not be recorded" in caplog.text)
        assert (await refused(line.child(token))).public == UNKNOWN
        assert line.endpoint.children._tokens == {}


async def test_an_end_twice_is_one() -> None:
    async with Line(Echo) as line:
        parent = await line.connect()
        node, _ = await line.endpoint.children.login(parent.session.id, wish())
        assert len(line.endpoint.children.end(node.id, "over").nodes) == 1
        assert line.endpoint.children.end(node.id, "over").nodes == ()
        assert line.endpoint.children.end("s-nobody", "over").nodes == ()


async def test_no_token_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Line(Echo) as line:
        parent = await line.connect()
        token = await login(line, parent)
        await line.connect_child(token)
        line.endpoint.children.end(parent.session.node.id, "over")
        stranger = new_token()
        await refused(line.child(stranger))
    assert token not in caplog.text
    assert stranger not in caplog.text


def test_a_record_says_nothing_of_its_token() -> None:
    assert "token" not in {field.name for field in attrs.fields(Record)}
