"""Requests that wait for an operator: bounded, named by their key, used once, and signed only if they were let in."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rsocket_broker.authority.requests import CheckedRequest, check_request
from rsocket_broker.claims import Claims
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.enrollment.approvals import LIFE, MAX_OF_PEER, MAX_WAITING, Approvals
from rsocket_broker.enrollment.exchange import Step, Voucher
from rsocket_broker.enrollment.mediums.base import Medium
from rsocket_broker.enrollment.mediums.qr_bundle import QrBundleMedium
from rsocket_broker.enrollment.mediums.upload import UploadMedium
from rsocket_broker.enrollment.modes import Mode
from rsocket_broker.errors import ApplicationError, EnrollmentRefused
from tests.enrollment.mediums.vouched import medium
from tests.enrollment.workshop import Clock, Workshop, open_workshop

CLAIMS = Claims(os="iOS", device="Pho\x1bne", app="Demo")


@pytest.fixture
def opened(home: Path) -> Iterator[Workshop]:
    with open_workshop(home) as workshop:
        yield workshop


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def upload(opened: Workshop) -> Medium:
    return medium(UploadMedium, opened.state, {"uploader": "pickup"})


def request() -> CheckedRequest:
    return check_request(make_signing_request("org.example.demo").csr_pem)


async def ask(approvals: Approvals, checked: CheckedRequest, driver: Medium, peer: str = "192.0.2.7") -> Voucher:
    return await approvals.voucher(checked, checked.common_name, CLAIMS, peer, driver)


async def waiting(approvals: Approvals, checked: CheckedRequest, driver: Medium) -> "asyncio.Task[Voucher]":
    task = asyncio.create_task(ask(approvals, checked, driver))
    await asyncio.sleep(0)
    assert [one["id"] for one in approvals.list()][-1] == checked.key_fingerprint
    return task


@pytest.mark.row("F-21")
async def test_it_is_let_in_by_the_fingerprint_of_its_key_and_used_once(clock: Clock, upload: Medium) -> None:
    approvals, checked, other = Approvals(None, clock), request(), request()
    first, second = await waiting(approvals, checked, upload), await waiting(approvals, other, upload)
    described = approvals.approve(checked.key_fingerprint[:16].upper(), can_show_key=False)
    assert (described["state"], described["key"], described["on_the_line"]) == ("approved", None, True)
    assert "\x1b" not in str(described["device"])
    voucher = await first
    assert (voucher.by, voucher.csr, voucher.key) == ("operator", checked.csr_pem, b"")
    with pytest.raises(EnrollmentRefused, match="is being used"):
        await ask(approvals, checked, upload)
    approvals.used(checked, issued=False)
    assert (await ask(approvals, checked, upload)).csr == checked.csr_pem, "it failed, and the word still holds"
    approvals.used(checked, issued=True)
    assert [one["id"] for one in approvals.list()] == [other.key_fingerprint]
    assert not second.done()
    approvals.refuse(other.key_fingerprint)
    with pytest.raises(EnrollmentRefused, match="has refused it"):
        await second
    with pytest.raises(EnrollmentRefused, match="has refused it"):
        await ask(approvals, other, upload)


async def test_who_is_kept_waiting_too_long_takes_up_where_it_was(clock: Clock, upload: Medium) -> None:
    approvals, checked = Approvals(None, clock, hold_s=0), request()
    with pytest.raises(EnrollmentRefused, match="not approved it yet") as caught:
        await ask(approvals, checked, upload)
    assert caught.value.step is Step.APPROVAL
    assert checked.key_fingerprint[:16] in caught.value.remedy
    assert approvals.list()[0]["on_the_line"] is False
    approvals.approve(checked.key_fingerprint, can_show_key=False)
    assert (await ask(approvals, checked, upload)).by == "operator"


async def test_what_was_said_ends(clock: Clock, upload: Medium) -> None:
    approvals, checked = Approvals(None, clock, hold_s=0), request()
    with pytest.raises(EnrollmentRefused):
        await ask(approvals, checked, upload)
    approvals.approve(checked.key_fingerprint, can_show_key=False)
    clock.seconds += LIFE + 1
    assert approvals.list() == []
    with pytest.raises(EnrollmentRefused, match="not approved it yet"):
        await ask(approvals, checked, upload)


async def test_the_places_are_bounded_in_all_and_for_each_address(clock: Clock, upload: Medium) -> None:
    approvals = Approvals(None, clock, hold_s=0)
    requests = [request() for _ in range(MAX_WAITING + 1)]
    for number, checked in enumerate(requests[:-1]):
        peer = f"192.0.2.{number // MAX_OF_PEER}"
        with pytest.raises(EnrollmentRefused, match="not approved"):
            await ask(approvals, checked, upload, peer)
        if number == MAX_OF_PEER - 1:
            with pytest.raises(EnrollmentRefused, match="too many"):
                await ask(approvals, requests[-1], upload, peer)
    with pytest.raises(EnrollmentRefused, match="too many") as caught:
        await ask(approvals, requests[-1], upload, "192.0.2.200")
    assert caught.value.step is Step.LIMITS


async def test_only_what_waits_can_be_decided_and_once(clock: Clock, upload: Medium) -> None:
    approvals, checked = Approvals(None, clock, hold_s=0), request()
    with pytest.raises(EnrollmentRefused):
        await ask(approvals, checked, upload)
    for wrong in ("", "ab", checked.key_fingerprint[:15], "g" * 16, "../" * 8):
        with pytest.raises(ApplicationError, match="16 or more hex digits"):
            approvals.approve(wrong, can_show_key=False)
    with pytest.raises(ApplicationError, match="No request with that fingerprint"):
        approvals.refuse("0" * 64)
    approvals.refuse(checked.key_fingerprint)
    with pytest.raises(ApplicationError, match="refused already"):
        approvals.approve(checked.key_fingerprint, can_show_key=False)


async def test_a_key_is_made_only_where_it_can_be_shown(clock: Clock, opened: Workshop) -> None:
    driver = medium(QrBundleMedium, opened.state, {"enabled": True})
    approvals, checked = Approvals(None, clock), request()
    task = await waiting(approvals, checked, driver)
    with pytest.raises(ApplicationError, match="--show-qr"):
        approvals.approve(checked.key_fingerprint, can_show_key=False)
    described = approvals.approve(checked.key_fingerprint, can_show_key=True)
    assert len((await task).key) == 32
    assert described["key"]
    assert all("key" not in one for one in approvals.list()), "it is shown once"


def message(csr: str, **fields: object) -> bytes:
    asked: Mapping[str, object] = {"method": "signCertificate", "csr": csr, "medium": 2, **fields}
    return json.dumps(asked).encode()


@pytest.mark.row("F-21", "F-12")
async def test_where_tokens_are_wanted_no_operator_is_asked(home: Path) -> None:
    with open_workshop(home, mode=Mode.TOKEN) as workshop:
        driver = medium(UploadMedium, workshop.state, {"uploader": "pickup"})
        workshop.mediums.offered["upload"] = driver  # type: ignore[index]  # a dict in truth
        csr = make_signing_request("org.example.demo").csr_pem.decode()
        with pytest.raises(EnrollmentRefused, match="enrols by token"):
            await workshop.enroller.serve(message(csr), CLAIMS, "192.0.2.7")
        assert workshop.enroller.approvals.list() == []
        assert workshop.issued("org.example.demo") == 0


async def test_where_no_window_is_open_nobody_waits(home: Path) -> None:
    with open_workshop(home, mode=Mode.WINDOW) as workshop:
        driver = medium(UploadMedium, workshop.state, {"uploader": "pickup"})
        workshop.mediums.offered["upload"] = driver  # type: ignore[index]
        csr = make_signing_request("org.example.demo").csr_pem.decode()
        with pytest.raises(EnrollmentRefused, match="no window is open"):
            await workshop.enroller.serve(message(csr), CLAIMS, "192.0.2.7")
        assert workshop.enroller.approvals.list() == []


@pytest.mark.row("F-21", "A-02")
async def test_a_yes_for_one_app_signs_for_no_other(opened: Workshop, upload: Medium) -> None:
    """The id of an app with a long one is no part of its request, and could be another at each question."""
    opened.mediums.offered["upload"] = upload  # type: ignore[index]
    harmless, bank = "org.example." + "a" * 60, "org.example." + "b" * 60
    csr = make_signing_request(harmless).csr_pem.decode()
    key, peer = check_request(csr).key_fingerprint, "192.0.2.7"
    waiting = asyncio.create_task(
        opened.enroller.serve(message(csr), Claims(os="iOS", app="Demo", app_id=harmless), peer)
    )
    async with asyncio.timeout(20):
        while not opened.enroller.approvals.list():
            await asyncio.sleep(0.01)
    assert opened.enroller.approvals.list()[0]["app_id"] == harmless
    other = Claims(os="iOS", app="Demo", app_id=bank)
    with pytest.raises(EnrollmentRefused, match="another request with that key"):
        await opened.enroller.serve(message(csr), other, peer)
    opened.enroller.approvals.approve(key, can_show_key=False)
    with pytest.raises(EnrollmentRefused, match="another request with that key"):
        await opened.enroller.serve(message(csr), other, peer)
    assert "deviceId" in await waiting
    assert (opened.issued(bank), opened.issued(harmless)) == (0, 1)


async def test_who_was_refused_holds_no_place_however_often_it_asks(clock: Clock, upload: Medium) -> None:
    approvals = Approvals(None, clock, hold_s=0)
    flood = [request() for _ in range(MAX_OF_PEER)]
    for checked in flood:
        with pytest.raises(EnrollmentRefused, match="not approved"):
            await ask(approvals, checked, upload)
    for checked in flood:
        approvals.refuse(checked.key_fingerprint)
    with pytest.raises(EnrollmentRefused, match="not approved"):
        await ask(approvals, request(), upload)
    clock.seconds += LIFE - 1
    for checked in flood:
        with pytest.raises(EnrollmentRefused, match="has refused it"):
            await ask(approvals, checked, upload)
    clock.seconds += 2
    assert all(one["state"] != "refused" for one in approvals.list())
