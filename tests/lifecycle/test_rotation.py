"""A rotation on a broker that runs: its rounds, who is waited for, who is ended, and what a restart takes up."""

import asyncio
import contextlib
import errno
import shutil
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from rsocket_broker.admin.client import admin_line
from rsocket_broker.authority import Authority
from rsocket_broker.authority.home import certificate_pem
from rsocket_broker.authority.keys import to_pem
from rsocket_broker.authority.rotation import Phase, Step
from rsocket_broker.broker import Broker
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.errors import ApplicationError, AuthorityError, HomeError, Invalid
from rsocket_broker.files import locked
from rsocket_broker.lifecycle import rotation
from rsocket_broker.lifecycle.rotation import MAX_FAULTS, Rotator
from rsocket_broker.lifecycle.spreader import Informed, Outcome, Spread, Which
from rsocket_broker.moments import utc_now
from rsocket_broker.state import STATE_FILE, State
from tests.authority.operators_ca import make_ca
from tests.end_to_end.wire import ERROR
from tests.lifecycle.holders import TLS, authority_of, enrol, running
from tests.lifecycle.lab import lab

version = pytest.mark.parametrize("version", TLS)


@pytest.fixture(scope="module")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("made") / "home"
    with State.open(home / STATE_FILE) as state:
        Authority.open(home, state)
    return home


@pytest.fixture
def home(made_home: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made_home, tmp_path / "home")


@pytest.fixture
async def broker(home: Path) -> AsyncIterator[Broker]:
    async with running(home) as one:
        yield one


class Script:
    """A spreader that does what it is told, and tells in which order it was asked."""

    def __init__(self, *spreads: Spread) -> None:
        self.spreads = spreads
        self.asked: list[str] = []
        self.hold: asyncio.Event | None = None

    async def spread_trust(self) -> AsyncGenerator[Spread, None]:
        self.asked.append("trust")
        for each in self.spreads:
            yield each

    async def spread_pairs(self, which: Which) -> AsyncGenerator[Spread, None]:
        self.asked.append(which.value)
        if self.hold is not None and which is Which.ALL:
            await self.hold.wait()
        for each in self.spreads if which is Which.ALL else ():
            yield each

    async def informed(self) -> Informed:
        return Informed(1, 3)


def rotator_of(broker: Broker, spreader: Script) -> Rotator:
    assert broker._endpoint is not None and broker.contexts is not None
    return Rotator(authority_of(broker), spreader, broker._endpoint, broker.contexts)


async def every(said: AsyncGenerator[dict[str, object], None]) -> list[dict[str, Any]]:
    return [each async for each in said]


# Rounds


@pytest.mark.row("A-14", "D-1")
async def test_after_a_step_everybody_is_brought_along_the_web_first(broker: Broker) -> None:
    done, later = Spread("a", Outcome.DONE), Spread("b", Outcome.LATER, "asleep")
    failed = [Spread(f"c{number}", Outcome.FAILED, "no room") for number in range(MAX_FAULTS + 5)]
    script = Script(done, done, later, *failed)
    events = await every(rotator_of(broker, script).take(Step.PREPARE))
    assert script.asked == ["web", "trust", "all"]
    assert [events[0][name] for name in ("event", "step", "phase", "generation", "next")] == [
        "phase",
        "prepare",
        "prepared",
        1,
        2,
    ]
    last = events[-1]
    assert (last["event"], last["over"]) == ("round", True)
    assert [part["what"] for part in last["parts"]] == ["pairs for the WebSocket port", "anchors", "certificates"]
    anchors = last["parts"][1]
    assert (anchors["done"], anchors["later"], anchors["failed"]) == (2, 1, MAX_FAULTS + 5)
    assert len(anchors["faults"]) == MAX_FAULTS and anchors["faults"][0] == "c0: no room"


@pytest.mark.row("A-16")
async def test_who_was_brought_its_certificate_before_the_round_came_to_it_is_counted(
    home: Path, tmp_path: Path
) -> None:
    """A session that has just come is seen to at once, and not by the round."""
    async with lab(tmp_path, home) as one, one.app():
        script = Script()
        rotator = rotator_of(one.broker, script)
        await every(rotator.take(Step.PREPARE))

        async def renewed() -> AsyncGenerator[Spread, None]:
            await one.upkeep.spreader._pusher.certificate(one.session())
            return
            yield

        script.spread_trust = renewed  # type: ignore[method-assign]
        events = await every(rotator.take(Step.SWITCH))
        assert events[-1]["parts"][2] == {"what": "certificates", "done": 1, "later": 0, "failed": 0, "faults": []}


async def test_a_round_goes_on_when_nobody_looks_and_gives_way_to_the_next_step(broker: Broker) -> None:
    script = Script()
    script.hold = asyncio.Event()
    rotator = rotator_of(broker, script)
    async with contextlib.aclosing(rotator.take(Step.PREPARE)) as said:
        await anext(said)
    assert not (await rotator.status())["round"]["over"]  # type: ignore[index]
    rotator_hold, script.hold = script.hold, None
    events = await every(rotator.take(Step.SWITCH))
    assert events[-1]["over"]
    assert script.asked.count("web") == 2
    rotator_hold.set()
    await rotator.stop()


@pytest.mark.row("D-15", "A-15")
async def test_a_broker_that_starts_in_the_middle_goes_on(home: Path) -> None:
    async with running(home) as broker:
        for step in (Step.PREPARE, Step.SWITCH):
            await every(rotator_of(broker, Script()).take(step))
    async with running(home) as broker:
        assert authority_of(broker).phase is Phase.SWITCHED
        script = Script()
        rotator = rotator_of(broker, script)
        rotator.start()
        assert (await every(rotator._follow()))[-1]["over"]
        await rotator.stop()
        assert script.asked == ["web", "trust", "all"]
        await every(rotator.take(Step.FINISH))
    async with running(home) as broker:
        rotator = rotator_of(broker, script := Script())
        rotator.start()
        await rotator.stop()
        assert script.asked == [], "nothing is under way"


async def test_a_step_that_is_refused_begins_no_round(broker: Broker) -> None:
    script = Script()
    with pytest.raises(AuthorityError, match="Nothing is prepared"):
        await every(rotator_of(broker, script).take(Step.SWITCH))
    assert script.asked == []


# Over the admin line, with an app of our SDK


@pytest.mark.row("A-14", "A-15", "A-17", "D-1", "D-2")
async def test_a_whole_rotation_keeps_the_session_of_a_client(home: Path, tmp_path: Path) -> None:
    async with lab(tmp_path, home) as all_of_it, all_of_it.app() as session, admin_line(home) as line:
        await all_of_it.until(lambda: bool(all_of_it.containers.all()))
        before = all_of_it.session().identity.serial
        events = [each async for each in line.stream("rotate.auto", {"patience": 30})]
        assert [each["step"] for each in events if each["event"] == "phase"] == ["prepare", "switch", "finish"]
        live = all_of_it.session()
        assert (live.identity.generation, live.identity.serial == before) == (2, False)
        assert await session.request("echo.request", 7) == 7
        status = await line.call("rotate.status")
        assert (status["phase"], status["generation"], status["sessions"]) == ("steady", 2, {"2": 1})
        assert status["bundle"] == {"have": 1, "known": 1}
        assert all_of_it.held().credentials.trust_pem == all_of_it.authority.trust_pem
    async with lab(tmp_path, home) as all_of_it, all_of_it.app() as session:
        assert await session.request("echo.request", 8) == 8


@pytest.mark.row("A-16", "D-1")
async def test_who_is_left_is_waited_for_and_named(broker: Broker, home: Path, tmp_path: Path) -> None:
    await enrol(broker, tmp_path / "sleeper", "org.example.sleeper")
    async with admin_line(home) as line:
        events = [each async for each in line.stream("rotate.auto", {"patience": 0})]
        assert events[-1] == {"event": "left", "count": 1, "clients": ["org.example.sleeper@d1 (adb)"]}
        assert authority_of(broker).phase is Phase.SWITCHED
        status = await line.call("rotate.status")
        assert [each["client"] for each in status["left"]] == ["org.example.sleeper@d1 (adb)"]
        with pytest.raises(ApplicationError, match=r"org\.example\.sleeper@d1"):
            [each async for each in line.stream("rotate.finish")]
        with pytest.raises(ApplicationError, match=r"org\.example\.sleeper@d1"):
            [each async for each in line.stream("rotate.finish", {"without": ["org.example.other", 7]})]
        again = [each async for each in line.stream("rotate.auto", {"patience": 0})]
        assert (again[0]["event"], again[0]["step"]) == ("phase", None), "it goes on from where it is"
        [each async for each in line.stream("rotate.rollback")]
        once_more = [each async for each in line.stream("rotate.auto", {"patience": 0})]
        steps = [each["step"] for each in once_more if each["event"] == "phase"]
        assert steps == [None, "switch"]


@pytest.mark.row("A-15")
async def test_a_rollback_brings_everybody_back(home: Path, tmp_path: Path) -> None:
    async with lab(tmp_path, home) as all_of_it, all_of_it.app() as session, admin_line(home) as line:
        for step in ("prepare", "switch", "rollback", "rollback"):
            [each async for each in line.stream(f"rotate.{step}")]
        live = all_of_it.session()
        assert (all_of_it.authority.rotation.trusted, live.identity.generation) == ((1,), 1)
        assert await session.request("echo.request", 7) == 7
        assert all_of_it.held().credentials.trust_pem == all_of_it.authority.trust_pem


# Those who are given up


@pytest.mark.row("A-14", "A-16")
@version
async def test_who_was_given_up_is_ended_and_gets_in_neither_anew_nor_by_an_old_ticket(
    broker: Broker, home: Path, tmp_path: Path, version: str
) -> None:
    lost = await enrol(broker, tmp_path / "lost", "org.example.lost")
    context = lost.context(version)
    wire = await asyncio.to_thread(lost.connect, context)
    ticket = wire.socket.session  # type: ignore[union-attr]
    authority = authority_of(broker)
    async with admin_line(home) as line:
        for step in ("prepare", "switch"):
            [each async for each in line.stream(f"rotate.{step}")]
        fresh = await enrol(broker, tmp_path / "fresh", "org.example.fresh")
        kept = await asyncio.to_thread(fresh.connect)
        [each async for each in line.stream("rotate.finish", {"without": ["org.example.lost@d1"]})]
    assert authority.phase is Phase.STEADY
    frames = await asyncio.to_thread(wire.frames)
    assert frames[-1].kind == ERROR and "given up with the CA" in frames[-1].error[1]
    anchors = tmp_path / "new.pem"
    anchors.write_bytes(authority.trust_pem)
    context.load_verify_locations(anchors)

    wire.socket.close()

    def resume() -> bytes:
        raw = socket.create_connection(("127.0.0.1", lost.port), 10)
        with context.wrap_socket(raw, server_hostname="localhost", session=ticket) as tls:
            assert not tls.session_reused
            return tls.recv(1)

    with pytest.raises((ssl.SSLError, ConnectionError)):
        assert await asyncio.to_thread(resume) == b""
        raise ConnectionError
    kept.send(b"")  # whoever was not named goes on
    assert [one.identity.app_id for one in broker.sessions] == ["org.example.fresh"]
    kept.socket.close()


async def test_who_has_moved_on_keeps_the_session_of_before(broker: Broker, tmp_path: Path) -> None:
    """An app reads its files when it connects: its session is of the old certificate until then."""
    holder = await enrol(broker, tmp_path / "app")
    wire = await asyncio.to_thread(holder.connect)
    rotator, authority = rotator_of(broker, Script()), authority_of(broker)
    for step in (Step.PREPARE, Step.SWITCH):
        await every(rotator.take(step))
    record = authority.record(holder.serial)
    assert record is not None
    request = authority.check_request(make_signing_request(holder.principal.app_id).csr_pem)
    renewed = authority.issue(request, holder.principal, renews=holder.serial)
    authority.arrived(renewed.serial)
    await every(rotator.take(Step.FINISH))
    assert [one.identity.generation for one in broker.sessions] == [1]
    wire.socket.close()


# An operator's own CA


async def test_an_operators_ca_becomes_the_next_generation(broker: Broker, home: Path, tmp_path: Path) -> None:
    now = utc_now()
    root = make_ca("Root", now=now)
    issuing = make_ca("Issuing", root, number=101, now=now)
    files = {"certificate": tmp_path / "ca.crt", "key": tmp_path / "ca.key", "chain": tmp_path / "chain.crt"}
    files["certificate"].write_bytes(certificate_pem(issuing.certificate))
    files["chain"].write_bytes(certificate_pem(root.certificate))
    files["key"].write_bytes(to_pem(issuing.key))
    files["key"].chmod(0o600)
    async with admin_line(home) as line:
        answer = await line.call("rotate.import", {"import": {name: str(path) for name, path in files.items()}})
        assert (answer["phase"], answer["next"]) == ("prepared", 2)
        with pytest.raises(Invalid, match="import names the files"):
            await line.call("rotate.import", {"import": {"certificate": "/nowhere"}})
        for step in ("switch", "finish"):
            [each async for each in line.stream(f"rotate.{step}")]
    assert x509.load_pem_x509_certificates(authority_of(broker).trust_pem) == [root.certificate]


@pytest.mark.row("A-14", "A-16")
async def test_a_command_that_is_ended_in_the_middle_leaves_nothing_half_done(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the database by then has its consequences: who was given up is ended, and the round begins."""
    lost = await enrol(broker, tmp_path / "lost", "org.example.lost")
    wire = await asyncio.to_thread(lost.connect)
    script = Script()
    rotator, authority = rotator_of(broker, script), authority_of(broker)
    for step in (Step.PREPARE, Step.SWITCH):
        await every(rotator.take(step))
    script.asked.clear()
    reached, go_on, finish = threading.Event(), threading.Event(), authority.finish

    def slow_finish(without: Any = ()) -> Any:
        done = finish(without)
        reached.set()
        go_on.wait(10)
        return done

    monkeypatch.setattr(authority, "finish", slow_finish)
    taking = asyncio.ensure_future(anext(rotator.take(Step.FINISH, ["org.example.lost@d1"])))
    await asyncio.to_thread(reached.wait, 10)
    taking.cancel()
    await asyncio.wait([taking])
    assert taking.cancelled()
    go_on.set()
    async with asyncio.timeout(10):
        while [*broker.sessions] or len(script.asked) < 3:
            await asyncio.sleep(0.01)
    assert authority.phase is Phase.STEADY
    await rotator.stop()
    wire.socket.close()


async def test_a_step_that_is_refused_lets_the_round_go_on(broker: Broker, tmp_path: Path) -> None:
    holder = await enrol(broker, tmp_path / "app")
    script = Script()
    rotator = rotator_of(broker, script)
    await every(rotator.take(Step.PREPARE))
    script.hold = asyncio.Event()
    async with contextlib.aclosing(rotator.take(Step.SWITCH)) as said:
        await anext(said)
    with pytest.raises(AuthorityError, match=holder.principal.app_id):
        await every(rotator.take(Step.FINISH))
    assert not (await rotator.status())["round"]["over"]  # type: ignore[index]
    script.hold.set()
    assert (await every(rotator._follow()))[-1]["over"]
    await rotator.stop()


async def test_a_generation_whose_key_cannot_be_destroyed_is_dropped_all_the_same(
    broker: Broker, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator is told to remove it; whoever was given up is ended, and its CA is trusted by no port."""
    lost = await enrol(broker, tmp_path / "lost", "org.example.lost")
    wire = await asyncio.to_thread(lost.connect)
    rotator, authority = rotator_of(broker, script := Script()), authority_of(broker)
    for step in (Step.PREPARE, Step.SWITCH):
        await every(rotator.take(step))
    script.asked.clear()
    monkeypatch.setattr("os.fsync", _no_room)
    with pytest.raises(HomeError, match="Remove it, its key above all"):
        await every(rotator.take(Step.FINISH, ["org.example.lost@d1"]))
    monkeypatch.undo()
    assert authority.phase is Phase.STEADY and not [*broker.sessions]
    assert authority.serving().secure.trust_pem == authority.trust_pem
    await every(rotator._follow())
    assert script.asked == ["web", "trust", "all"]
    wire.socket.close()


def _no_room(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_step_that_hangs_does_not_keep_the_broker_from_stopping(
    broker: Broker, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else holds the lock on the home."""
    monkeypatch.setattr(rotation, "STEP_S", 0.1)
    rotator = rotator_of(broker, script := Script())
    with locked(home):
        taking = asyncio.ensure_future(anext(rotator.take(Step.PREPARE)))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await rotator.stop()
        assert not taking.done()
    assert (await taking)["phase"] == "prepared"
    assert script.asked == [], "nothing is begun after the stop"
