"""The link: what it does next after each way to fail, and how it ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from rsocket_broker import client
from rsocket_broker.client import Stage
from rsocket_broker.errors import ApplicationError, ConfigurationError, EnrollmentRefused, HomeError, SetupRefused
from rsocket_broker.payload import Payload
from tests.client.conftest import Connect
from tests.client.stub_broker import StubAuthority, StubBroker


class Diary:
    """An observer that can be waited for."""

    def __init__(self) -> None:
        self.entries: list[client.Progress] = []
        self._changed = asyncio.Event()

    def __call__(self, progress: client.Progress) -> None:
        self.entries.append(progress)
        self._changed.set()

    @property
    def stages(self) -> list[Stage]:
        return [entry.stage for entry in self.entries]

    async def reaches(self, stage: Stage, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.stages.count(stage) < times:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def diary() -> Diary:
    return Diary()


@contextlib.asynccontextmanager
async def trying(connecting: contextlib.AbstractAsyncContextManager[client.Session]) -> AsyncIterator[None]:
    """An app that keeps trying while the block runs."""

    async def run() -> None:
        async with connecting:
            pass

    task = asyncio.create_task(run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Screen(client.AppPlugin):
    id = "Screen"

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def on_init(self) -> None:
        self.calls.append("init")

    async def on_deinit(self) -> None:
        self.calls.append("deinit")


INIT = Payload(b'{"method": "init", "params": {"plugin": "Screen"}}')


@pytest.mark.row("F-7", "F-36")
async def test_a_first_run(app: Connect, stub: StubBroker, diary: Diary) -> None:
    async with app(observer=diary) as session:
        assert diary.stages == [Stage.ENROLLING, Stage.ENROLLED, Stage.CONNECTING, Stage.CONNECTED]
        assert (session.connected, session.connections, session.device_id) == (True, 1, "stub-1")
    assert stub.setups[0]["device_id"] == "stub-1"
    assert "BEGIN CERTIFICATE REQUEST" in str(stub.setups[0]["csr"])


async def test_a_second_run_uses_what_is_there(app: Connect, stub: StubBroker, diary: Diary) -> None:
    async with app():
        pass
    async with app(observer=diary, insecure_port=1):
        assert diary.stages == [Stage.CONNECTING, Stage.CONNECTED]
    assert len(stub.plain_setups) == 1


@pytest.mark.row("A-09")
async def test_two_refusals_lead_to_a_new_certificate(app: Connect, stub: StubBroker, diary: Diary) -> None:
    """The broker's CA is another now: its certificate is not trusted, until the app has enrolled anew."""
    async with app(observer=diary) as session:
        ports = stub.insecure_port, stub.secure_port
        await stub.stop()
        stub.authority = StubAuthority()
        await stub.start(*ports)
        await diary.reaches(Stage.CONNECTED, 2)
        assert session.connections == 2
    after = diary.stages[diary.stages.index(Stage.LOST) :]
    assert after.count(Stage.ENROLLING) == 1
    assert after[: after.index(Stage.ENROLLING)].count(Stage.CONNECTING) >= 2


@pytest.mark.row("A-09")
async def test_while_nobody_enrols_the_certificate_is_kept(
    app: Connect, stub: StubBroker, diary: Diary, tmp_path: Path
) -> None:
    async with app():
        before = (tmp_path / "app" / "device.crt").read_bytes()
    ports = stub.insecure_port, stub.secure_port
    await stub.stop()
    real, stub.authority = stub.authority, StubAuthority()
    await stub.start(secure_port=ports[1])
    async with trying(app(observer=diary, insecure_port=1, timeout=None)):
        await diary.reaches(Stage.ENROLLING, 2)
        assert (tmp_path / "app" / "device.crt").read_bytes() == before
        await stub.stop()
        stub.authority = real
        await stub.start(secure_port=ports[1])
        await diary.reaches(Stage.CONNECTED)


@pytest.mark.row("F-5", "A-09")
async def test_waits_are_drawn_from_the_backoff(app: Connect, stub: StubBroker, diary: Diary) -> None:
    await stub.stop()
    backoff = client.Backoff(first=0.01, longest=0.04)
    async with trying(app(observer=diary, backoff=backoff, draw=lambda: 1.0, timeout=None)):
        await diary.reaches(Stage.WAITING, 4)
    waits = [entry.detail for entry in diary.entries if entry.stage is Stage.WAITING]
    assert waits[:4] == ["0.02 s", "0.04 s", "0.04 s", "0.04 s"]


async def test_a_broker_that_never_comes(app: Connect, stub: StubBroker) -> None:
    await stub.stop()
    with pytest.raises(TimeoutError, match=r"not connected after 0\.2 s"):
        async with app(timeout=0.2):
            pass


def refusing(text: str, times: int, stub: StubBroker) -> Callable[[dict[str, object]], object]:
    """Refuses so many times, then signs."""
    left = times

    def answer(message: dict[str, object]) -> object:
        nonlocal left
        if left:
            left -= 1
            raise ApplicationError(text)
        stub.authority.deploy(message)
        return {"deviceId": "late"}

    return answer


async def test_a_refused_enrolment_is_told(app: Connect, stub: StubBroker) -> None:
    stub.answer = refusing("proof: not you. Ask somebody.", 99, stub)
    with pytest.raises(EnrollmentRefused, match=r"proof: not you. Ask somebody."):
        async with app():
            pass


async def test_a_refused_enrolment_can_be_tried_again(app: Connect, stub: StubBroker) -> None:
    stub.answer = refusing("proof: not yet.", 3, stub)
    async with app(retry_refusals=True) as session:
        assert session.device_id == "late"


@pytest.mark.row("A-10")
async def test_a_broker_that_was_asked_too_often_is_asked_again(app: Connect, stub: StubBroker) -> None:
    stub.answer = refusing("limits: asked too often. Try again in 1 s.", 2, stub)
    async with app() as session:
        assert session.device_id == "late"


async def test_a_refused_setup_is_told_and_can_be_tried_again(app: Connect, stub: StubBroker, diary: Diary) -> None:
    stub.refuse_setup = "too many sessions"
    with pytest.raises(SetupRefused, match="too many sessions"):
        async with app():
            pass
    async with trying(app(retry_refusals=True, observer=diary)):
        await diary.reaches(Stage.FAILED, 3)
        stub.refuse_setup = ""
        await diary.reaches(Stage.CONNECTED)
    assert Stage.ENROLLING not in diary.stages  # words say nothing about certificates


async def test_a_refusal_after_the_first_session_is_not_the_end(app: Connect, stub: StubBroker, diary: Diary) -> None:
    async with app(observer=diary) as session:
        stub.refuse_setup = "going down"
        await stub.cut()
        await diary.reaches(Stage.FAILED, 2)
        stub.refuse_setup = ""
        assert await session.request("a.b", 1) == ["a.b", 1]


async def test_an_unsafe_folder_ends_it(app: Connect, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app").chmod(0o777)
    with pytest.raises(HomeError, match="0777"):
        async with app(retry_refusals=True):
            pass


async def test_wrong_settings_are_refused_before_anything_is_opened(app: Connect, stub: StubBroker) -> None:
    with pytest.raises(ConfigurationError, match="two app plugins"):
        async with app(plugins=[Screen(), Screen()]):
            pass
    assert stub.plain_setups == []


@pytest.mark.row("A-56")
async def test_plugins_are_told_when_the_line_breaks_and_when_the_app_leaves(
    app: Connect, stub: StubBroker, diary: Diary
) -> None:
    plugin = Screen()
    async with app(plugins=[plugin], observer=diary):
        await stub.live[0].request_response(INIT, 5)
        await stub.cut()
        await diary.reaches(Stage.CONNECTED, 2)
        assert plugin.calls == ["init", "deinit"]
        await stub.live[0].request_response(INIT, 5)
    assert plugin.calls == ["init", "deinit", "init", "deinit"]


async def test_a_goodbye_is_said(app: Connect, stub: StubBroker) -> None:
    async with app():
        line = stub.live[0]
    assert (await asyncio.wait_for(line.wait_closed(), 5)).code is not None


async def test_an_exception_in_the_block_comes_out_as_it_is(app: Connect) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with app():
            raise KeyError("mine")


async def test_an_observer_that_fails_changes_nothing(app: Connect, caplog: pytest.LogCaptureFixture) -> None:
    def fail(progress: client.Progress) -> None:
        raise RuntimeError("observer broken")

    async with app(observer=fail) as session:
        assert session.connected
    assert "observer broken" in caplog.text


async def test_one_failure_is_logged_once(
    app: Connect, stub: StubBroker, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    await stub.stop()
    async with trying(app(observer=diary, timeout=None)):
        await diary.reaches(Stage.FAILED, 5)
    assert len([one for one in caplog.records if one.levelname == "WARNING"]) == 1


# ---- a line that is lost -------------------------------------------------------------------------------------------


@pytest.mark.row("A-41")
async def test_a_session_goes_on_over_the_next_line(app: Connect, stub: StubBroker, diary: Diary) -> None:
    stub.resumes = True
    async with app(observer=diary) as session:
        waiting = asyncio.create_task(session.request("stub.never"))
        async with asyncio.timeout(10):
            await stub.under_way.wait()
        begun = len(diary.stages)
        await stub.lose_lines()
        await diary.reaches(Stage.INTERRUPTED)
        assert not session.connected
        assert await session.request("stub.echo", 1) == ["stub.echo", 1]
        assert diary.stages[begun:] == [Stage.INTERRUPTED, Stage.WAITING, Stage.CONNECTING, Stage.RESUMED]
        assert not waiting.done()
        assert (session.connections, len(stub.setups)) == (1, 1)
        waiting.cancel()


@pytest.mark.row("A-41")
async def test_a_session_that_is_refused_gives_way_to_a_new_one(app: Connect, stub: StubBroker, diary: Diary) -> None:
    stub.resumes = True
    async with app(observer=diary) as session:
        waiting = asyncio.create_task(session.request("stub.never"))
        async with asyncio.timeout(10):
            await stub.under_way.wait()
        stub.sessions.clear()
        await stub.lose_lines()
        with pytest.raises(client.ConnectionClosed, match="no such session"):
            await waiting
        assert await session.request("stub.echo", 1) == ["stub.echo", 1]
        assert session.connections == 2
        await diary.reaches(Stage.CONNECTED, 2)
    assert Stage.RESUMED not in diary.stages
    assert diary.stages.count(Stage.LOST) == 1


@pytest.mark.row("A-09", "A-41")
async def test_a_certificate_that_is_refused_on_the_way_back_counts(
    app: Connect, stub: StubBroker, diary: Diary
) -> None:
    """The broker's CA is another now: a new line is not trusted, and the app enrols anew after two of them."""
    stub.resumes = True
    async with app(observer=diary) as session:
        ports = stub.insecure_port, stub.secure_port
        await stub.lose_lines()
        await stub.stop()
        stub.authority = StubAuthority()
        await stub.start(*ports)
        await diary.reaches(Stage.CONNECTED, 2)
        assert session.connections == 2
    assert diary.stages.count(Stage.ENROLLED) == 2
    assert diary.stages.count(Stage.LOST) == 1


async def test_an_app_that_leaves_while_its_line_is_away(app: Connect, stub: StubBroker, diary: Diary) -> None:
    stub.resumes = True
    async with app(observer=diary, backoff=client.Backoff(first=5, longest=5)) as session:
        plugin_waits = asyncio.create_task(session.request("stub.never"))
        async with asyncio.timeout(10):
            await stub.under_way.wait()
        await stub.lose_lines()
        await diary.reaches(Stage.WAITING)
    with pytest.raises(client.ConnectionClosed):
        await plugin_waits


async def test_without_resume_a_session_ends_with_its_line(app: Connect, stub: StubBroker, diary: Diary) -> None:
    stub.resumes = True
    async with app(observer=diary, resume=False) as session:
        assert stub.sessions == {}
        await stub.cut()
        await diary.reaches(Stage.CONNECTED, 2)
        assert session.connections == 2
    assert Stage.INTERRUPTED not in diary.stages


@pytest.mark.row("A-44")
async def test_a_lease_is_asked_for_and_given(app: Connect, stub: StubBroker) -> None:
    async with app(lease=client.Lease(requests=2, seconds=30)) as session:
        assert await session.request("stub.echo", 1) == ["stub.echo", 1]
        (served,) = stub.live
        for _ in range(2):
            served.fire_and_forget(Payload(b"{}"))
        with pytest.raises(client.Rejected, match="lease"):
            served.fire_and_forget(Payload(b"{}"))


async def test_the_id_of_the_sdks_own_plugin_is_taken(app: Connect) -> None:
    class Identity(client.AppPlugin):
        id = "identity"

    with pytest.raises(ConfigurationError, match="the SDK's own"):
        async with app(plugins=[Identity()]):
            pass


@pytest.mark.row("A-18")
async def test_what_was_renewed_by_whomever_is_used_on_the_way_back(
    app: Connect, stub: StubBroker, diary: Diary, tmp_path: Path
) -> None:
    """A broker may have put another certificate into the folder meanwhile; it is read when it is needed."""
    stub.resumes = True
    async with app(observer=diary):
        csr = (tmp_path / "app" / "app.csr").read_text()
        stub.authority.deploy({"destination": str(tmp_path / "app"), "csr": csr})
        renewed = (tmp_path / "app" / "device.crt").read_bytes()
        first = stub.live[0]
        first.drop_line()
        await diary.reaches(Stage.RESUMED)
        shown = stub.live[0].peer.certificate
        assert shown == x509.load_pem_x509_certificate(renewed).public_bytes(serialization.Encoding.DER)
