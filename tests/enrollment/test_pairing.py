"""Pairing windows, through the whole road to a certificate: what it takes, how often it may fail, and when it ends."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
from cryptography import x509

from rsocket_broker.claims import Claims
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.enrollment.modes import Mode
from rsocket_broker.enrollment.nonce import Line
from rsocket_broker.enrollment.pairing import MAX_BEGUN, MAX_LIFE, MAX_TRIES, MAX_WINDOWS, Pairings, Window
from rsocket_broker.errors import ApplicationError, ConfigurationError, EnrollmentRefused
from rsocket_broker.identity import Proof
from rsocket_broker.pairing_sides import AppSide, Paired
from tests.enrollment.workshop import DesktopApp, Workshop, open_workshop

DEMO, PEER = "org.example.demo", "192.0.2.7"
CLAIMS = Claims(os="Android", device="Phone", app="Demo")


@attrs.define
class App:
    """An app that pairs over one connection."""

    workshop: Workshop
    window: Window
    app_id: str = DEMO
    secret: str = ""
    line: Line = attrs.field(init=False)
    side: AppSide = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.line = Line(self.workshop.enroller.nonces)
        offer = attrs.evolve(self.window.offer, secret=self.secret or self.window.offer.secret)
        csr = make_signing_request(self.app_id).csr_pem.decode()
        self.side = AppSide(offer, csr=csr, app_id=self.app_id, device="Phone", os="Android")

    async def ask(self, message: Mapping[str, object]) -> dict[str, object]:
        return await self.workshop.enroller.serve(json.dumps(message).encode(), CLAIMS, PEER, self.line)

    async def digits(self) -> str:
        begun = await self.ask(self.side.begin())
        return self.side.compare(await self.ask(self.side.reveal(begun)))

    async def finish(self) -> Paired:
        return self.side.complete(await self.ask(self.side.confirm()))


@attrs.define
class Desk:
    """The operator in front of one window."""

    pairings: Pairings
    window: Window

    async def event(self, name: str) -> dict[str, object]:
        async with asyncio.timeout(5):
            while (event := await self.window.events.get()) is None or event["event"] != name:
                assert event is not None, f"the window is closed, and nothing was {name}"
        return event

    def answer(self, number: object, *, yes: bool = True) -> None:
        assert isinstance(number, int)
        self.pairings.decide(self.window.offer.code, number, yes=yes)


@pytest.fixture(params=list(Mode), ids=str)
def workshop(home: Path, request: pytest.FixtureRequest) -> Iterator[Workshop]:
    with open_workshop(home, mode=request.param) as opened:
        yield opened


@pytest.fixture
def open_mode(home: Path) -> Iterator[Workshop]:
    with open_workshop(home) as opened:
        yield opened


def desk_of(workshop: Workshop, app_id: str = "") -> Desk:
    if workshop.enroller.pairings is None:
        workshop.enroller.pairings = Pairings(workshop.authority.audit, workshop.clock)
    window = workshop.enroller.pairings.open(
        life=timedelta(minutes=5), host="localhost", insecure_port=1, secure_port=2, app_id=app_id
    )
    return Desk(workshop.enroller.pairings, window)


@pytest.fixture
async def desk(open_mode: Workshop) -> AsyncIterator[Desk]:
    made = desk_of(open_mode)
    yield made
    made.pairings.close_all("the test is over")


@pytest.mark.row("D-10", "M-5")
async def test_what_both_sides_confirm_is_signed_in_every_mode(workshop: Workshop) -> None:
    desk = desk_of(workshop, DEMO)
    app = App(workshop, desk.window)
    digits = await app.digits()
    compared = await desk.event("compare")
    assert (compared["digits"], compared["app_id"], compared["device"], compared["peer"]) == (
        digits,
        DEMO,
        "Phone",
        PEER,
    )
    assert workshop.issued(DEMO) == 0
    desk.answer(compared["number"])
    paired = await app.finish()
    assert paired.trust_pem == workshop.authority.trust_pem
    certificate = x509.load_pem_x509_certificate(paired.certificate_pem)
    record = workshop.authority.certificates(DEMO)[0]
    assert record.principal.proof is Proof.PAIRING and record.serial == certificate.serial_number
    assert paired.device_id == record.principal.device_id
    assert (await desk.event("enrolled"))["device_id"] == paired.device_id
    assert (await desk.event("closed"))["reason"] == "an app was paired"
    with pytest.raises(EnrollmentRefused, match="pairing: the code is of no pairing"):
        await App(workshop, desk.window).digits()
    await workshop.enroller.drain(10)
    assert workshop.enroller.outcomes.results == {("pairing", "ok"): 1}


@pytest.mark.row("D-10", "M-5")
@pytest.mark.parametrize("who", ["operator", "app"])
async def test_without_a_yes_of_both_nothing_is_signed(open_mode: Workshop, desk: Desk, who: str) -> None:
    app = App(open_mode, desk.window)
    await app.digits()
    number = (await desk.event("compare"))["number"]
    if who == "operator":
        waiting = asyncio.ensure_future(app.finish())
        await desk.event("app_confirmed")
        desk.answer(number, yes=False)
        with pytest.raises(EnrollmentRefused, match="the operator has seen other digits, or has said no"):
            await waiting
    else:
        desk.answer(number)
        app.line.close()
        assert "gone away" in str((await desk.event("failed"))["reason"])
        with pytest.raises(EnrollmentRefused):
            await app.finish()
    assert open_mode.issued(DEMO) == 0
    with pytest.raises(ApplicationError, match="over already"):
        desk.answer(number)


@pytest.mark.row("D-10", "M-5", "A-13")
async def test_a_wrong_code_enrols_nothing_and_tries_are_counted(open_mode: Workshop, desk: Desk) -> None:
    wrong = "A" * 22
    for _ in range(MAX_TRIES):
        with pytest.raises(EnrollmentRefused, match="the code is wrong") as caught:
            await App(open_mode, desk.window, secret=wrong).digits()
        assert caught.value.step == "pairing" and caught.value.remedy
    assert desk.window.closed and desk.window.tries == MAX_TRIES
    with pytest.raises(EnrollmentRefused, match="no pairing that goes on"):
        await App(open_mode, desk.window).digits()
    assert open_mode.issued(DEMO) == 0


@pytest.mark.row("D-10")
async def test_one_app_at_a_time_is_compared(open_mode: Workshop, desk: Desk) -> None:
    first, second = App(open_mode, desk.window), App(open_mode, desk.window)
    await first.digits()
    await desk.event("compare")
    begun = await second.ask(second.side.begin())
    reveal = second.side.reveal(begun)
    with pytest.raises(EnrollmentRefused, match="limits: another app is being paired"):
        await second.ask(reveal)
    first.line.close()
    second.side.compare(await second.ask(reveal))
    compared = await desk.event("compare")
    with pytest.raises(ApplicationError, match="over already"):
        desk.answer(1)  # meant for the first
    desk.answer(compared["number"])
    assert (await second.finish()).device_id


@pytest.mark.row("D-10")
async def test_the_code_of_one_app_is_none_for_another(open_mode: Workshop) -> None:
    desk = desk_of(open_mode, "org.example.other")
    with pytest.raises(EnrollmentRefused, match="the code is for another app than org"):
        await App(open_mode, desk.window).digits()
    assert desk.window.seat is None and desk.window.tries == 1


@pytest.mark.row("D-10")
async def test_who_comes_without_a_code_cannot_fill_or_close_a_window(open_mode: Workshop, desk: Desk) -> None:
    strangers = [App(open_mode, desk.window) for _ in range(MAX_BEGUN)]
    for app in strangers:
        await app.ask(app.side.begin())
    late = App(open_mode, desk.window)
    with pytest.raises(EnrollmentRefused, match="limits: too many apps"):
        await late.ask(late.side.begin())
    for app in strangers:
        app.line.close()
    assert desk.window.tries == 0
    assert await App(open_mode, desk.window).digits()


@pytest.mark.row("D-10")
async def test_a_pairing_that_nobody_answers_ends(
    open_mode: Workshop, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsocket_broker.enrollment.pairing.COMPARE_S", 0.05)
    app = App(open_mode, desk.window)
    await app.digits()
    assert "in time" in str((await desk.event("failed"))["reason"])
    with pytest.raises(EnrollmentRefused):
        await app.finish()


async def test_a_window_ends_with_its_time(open_mode: Workshop) -> None:
    pairings = open_mode.enroller.pairings = Pairings(None, open_mode.clock)
    window = pairings.open(life=timedelta(milliseconds=20), host="localhost", insecure_port=1, secure_port=2)
    app = App(open_mode, window)
    await app.digits()
    desk = Desk(pairings, window)
    assert "its time was over" in str((await desk.event("failed"))["reason"])
    assert (await desk.event("closed"))["reason"] == "its time was over"
    assert await window.events.get() is None
    pairings.close(window, "twice")
    assert window.events.empty()


@pytest.mark.parametrize("life", [timedelta(0), timedelta(seconds=-1), MAX_LIFE * 2])
async def test_a_life_that_is_none_is_refused(open_mode: Workshop, life: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="good for up to 1h"):
        Pairings(None, open_mode.clock).open(life=life, host="localhost", insecure_port=1, secure_port=2)


async def test_so_many_windows_and_no_more(open_mode: Workshop) -> None:
    desks = [desk_of(open_mode) for _ in range(MAX_WINDOWS)]
    with pytest.raises(ApplicationError, match="shown already"):
        desk_of(open_mode)
    desks[0].pairings.close_all("enough")
    desk_of(open_mode).pairings.close_all("enough")


@pytest.mark.row("D-10", "A-13")
async def test_steps_out_of_turn_and_lines_without_pairing_are_refused(open_mode: Workshop, app: DesktopApp) -> None:
    async def refused(message: dict[str, object], line: Line | None = None) -> str:
        with pytest.raises(EnrollmentRefused) as caught:
            await open_mode.enroller.serve(json.dumps(message).encode(), CLAIMS, PEER, line)
        return caught.value.public

    line = Line(open_mode.enroller.nonces)
    assert "nobody pairs here" in await refused({"method": "pairBegin"}, line)
    desk = desk_of(open_mode)
    assert "nobody pairs here" in await refused({"method": "pairBegin", "code": desk.window.offer.code})
    assert "no pairing has begun" in await refused({"method": "pairConfirm"}, line)
    assert "no pairing that goes on" in await refused({"method": "pairBegin", "code": 7}, line)
    assert "commitment must be 32 bytes" in await refused({"method": "pairBegin", "code": desk.window.offer.code}, line)
    unconfirmed = json.loads(app.message(medium=4))
    assert "proof: medium 4 is for requests that were confirmed" in await refused(unconfirmed, line)
    assert open_mode.issued(DEMO) == 0
    desk.pairings.close_all("the test is over")


@pytest.mark.row("D-10")
async def test_beginning_anew_over_the_same_line_ends_what_was(open_mode: Workshop, desk: Desk) -> None:
    app = App(open_mode, desk.window)
    await app.digits()
    again = App(open_mode, desk.window)
    again.line = app.line
    assert await again.digits()
    assert len(desk.window.begun) == 1


@pytest.mark.row("D-10")
async def test_a_request_that_no_certificate_fits_never_reaches_a_person(open_mode: Workshop, desk: Desk) -> None:
    app = App(open_mode, desk.window)
    app.side = AppSide(desk.window.offer, csr="no request", app_id=DEMO, device="Phone", os="Android")
    with pytest.raises(EnrollmentRefused, match="signing request: "):
        await app.digits()
    assert desk.window.seat is None


@pytest.mark.row("D-10")
async def test_a_yes_that_comes_with_the_end_signs_nothing(open_mode: Workshop, desk: Desk) -> None:
    app = App(open_mode, desk.window)
    await app.digits()
    number = (await desk.event("compare"))["number"]
    waiting = asyncio.ensure_future(app.finish())
    await desk.event("app_confirmed")
    exchange = desk.window.seat
    assert exchange is not None
    desk.answer(number)
    desk.pairings.fail(exchange, "not both sides have said yes in time.")
    with pytest.raises(EnrollmentRefused, match="ended before it could be signed"):
        await waiting
    assert open_mode.issued(DEMO) == 0
