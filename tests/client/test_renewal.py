"""The certificate is renewed in good time and when the broker says so, never twice at once and never too often."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509

from rsocket_broker.client import renewal
from rsocket_broker.client.app_plugin import AppPlugin
from rsocket_broker.client.folder import AppFolder
from rsocket_broker.client.renewal import DUE, SPREAD, Renewal, Schedule, check_free, serial_of
from rsocket_broker.errors import ApplicationError, AuthorityError, ConfigurationError, Invalid, Rejected
from tests.client.stub_broker import StubAuthority

BEGIN = datetime(2024, 6, 10, tzinfo=UTC)


@attrs.define
class Broker:
    """Signs what it is asked to, and notes what it is told."""

    authority: StubAuthority = attrs.field(factory=StubAuthority)
    asked: list[tuple[str, Any]] = attrs.field(factory=list)
    refuse: Exception | None = None
    answer: Callable[[dict[str, str]], dict[str, str]] = lambda answer: answer
    pause: asyncio.Event | None = None

    async def ask(self, route: str, value: Any) -> Any:
        self.asked.append((route, value))
        if self.pause is not None:
            await self.pause.wait()
        if self.refuse is not None:
            raise self.refuse
        if route == "identity.stored":
            return {}
        request = x509.load_pem_x509_csr(value["csr"].encode())
        made = self.authority.issue(request.subject, request.public_key())
        return self.answer({"certificate": made.decode(), "trust": self.authority.pem.decode()})


@attrs.frozen
class Client:
    broker: Broker
    folder: AppFolder
    renewal: Renewal
    clock: list[datetime]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    broker, folder = Broker(), AppFolder(tmp_path / "app")
    csr = folder.begin("org.example.demo")
    broker.authority.deploy({"destination": str(folder.path), "csr": csr})
    clock = [datetime.now(UTC)]
    made = Renewal(folder, broker.ask, now=lambda: clock[0], draw=lambda: 0.0)
    made.enrolled = folder.complete("d1")
    return Client(broker, folder, made, clock)


def test_a_certificate_is_due_after_two_thirds_of_its_life_spread_a_little() -> None:
    schedule = Schedule(BEGIN, BEGIN + timedelta(days=30))
    assert schedule.due(0.0) == BEGIN + timedelta(days=30) * DUE == BEGIN + timedelta(days=20)
    assert schedule.due(1.0) == BEGIN + timedelta(days=30) * (DUE + SPREAD) == BEGIN + timedelta(days=21)


@pytest.mark.row("A-18")
async def test_a_renewal_is_stored_and_then_said_to_be(client: Client) -> None:
    before = client.renewal.current
    told: list[str] = []
    client.renewal.renewed = lambda enrolled: told.append(serial_of(enrolled))
    serial = await client.renewal.renew_now()
    after = client.renewal.current
    assert serial == serial_of(after) != serial_of(before)
    assert told == [serial]
    assert after == client.folder.load()
    assert (after.credentials.key_pem, after.csr_pem) == (before.credentials.key_pem, before.csr_pem)
    assert client.broker.asked == [
        ("identity.renew", {"csr": before.csr_pem}),
        ("identity.stored", {"serial": serial}),
    ]


@pytest.mark.row("A-18")
async def test_two_who_want_a_renewal_at_once_get_one(client: Client) -> None:
    client.broker.pause = asyncio.Event()
    both = [asyncio.ensure_future(client.renewal.renew_now()), asyncio.ensure_future(client.renewal.renew_now())]
    await asyncio.sleep(0)
    client.broker.pause.set()
    one, other = await asyncio.gather(*both)
    assert one == other
    assert [route for route, _ in client.broker.asked] == ["identity.renew", "identity.stored"]


@pytest.mark.row("A-18", "A-09")
async def test_it_is_renewed_when_it_is_time_and_after_a_failure_again_and_less_often(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        client.clock[0] += timedelta(seconds=seconds)
        if len(slept) > 400:
            raise asyncio.CancelledError

    monkeypatch.setattr(renewal.asyncio, "sleep", sleep)
    due = Schedule.of(client.renewal.current.credentials.chain_pem).due(0.0)
    client.broker.refuse = Rejected("come again")
    with pytest.raises(asyncio.CancelledError):
        await client.renewal.keep()
    until = [seconds for seconds in slept if seconds <= renewal.LOOK]
    assert client.clock[0] > due
    assert sum(until[:-1]) <= (due - datetime.now(UTC)).total_seconds() + renewal.LOOK
    failed = slept[len(until) - 1 :]
    assert failed[:4] == [60.0, 120.0, 240.0, 480.0]
    assert set(failed[8:]) == {renewal.LONGEST_PAUSE}


async def test_a_clock_that_is_far_ahead_has_the_broker_asked_once_a_minute_and_not_more(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.clock[0] += timedelta(days=3650)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(renewal.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await client.renewal.keep()
    assert pauses == [renewal.FIRST_PAUSE] * 3
    assert [route for route, _ in client.broker.asked].count("identity.renew") == 3


@pytest.mark.row("A-18")
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda answer: {}, Invalid),
        (lambda answer: {**answer, "trust": 7}, Invalid),
        (lambda answer: {**answer, "certificate": "x" * 70_000}, Invalid),
        (lambda answer: {**answer, "certificate": "words"}, AuthorityError),
        (lambda answer: {**answer, "trust": StubAuthority().pem.decode()}, AuthorityError),
    ],
)
async def test_an_answer_that_is_no_renewal_changes_nothing(
    client: Client, answer: Callable[[dict[str, str]], dict[str, str]], error: type[Exception]
) -> None:
    before = client.renewal.current
    client.broker.answer = answer
    with pytest.raises(error):
        await client.renewal.renew_now()
    assert client.renewal.current == client.folder.load() == before
    assert [route for route, _ in client.broker.asked] == ["identity.renew"]


@pytest.mark.row("A-14")
async def test_the_broker_may_have_anchors_stored_and_a_renewal_made(client: Client) -> None:
    both = StubAuthority().pem + client.broker.authority.pem
    assert await client.renewal.told_to_trust({"trust": both.decode()}) == {}
    assert client.folder.load().credentials.trust_pem == both == client.renewal.current.credentials.trust_pem
    answer = await client.renewal.told_to_renew()
    assert answer == {"serial": serial_of(client.folder.load())}


async def test_what_it_cannot_do_it_says_in_words(client: Client) -> None:
    with pytest.raises(ApplicationError, match="was not issued by the authority"):
        await client.renewal.told_to_trust({"trust": StubAuthority().pem.decode()})
    for bad in ({}, [], {"trust": 5}, {"trust": "ä"}):
        with pytest.raises(Invalid, match="the field trust"):
            await client.renewal.told_to_trust(bad)
    client.broker.refuse = TimeoutError("no answer")
    with pytest.raises(ApplicationError, match="no answer"):
        await client.renewal.told_to_renew()


def test_no_plugin_of_an_app_has_its_id() -> None:
    class Mine(AppPlugin):
        id = "identity"

    class Other(AppPlugin):
        id = "identity.mine"

    check_free([Other()])
    with pytest.raises(ConfigurationError, match="the SDK's own"):
        check_free([Mine()])
