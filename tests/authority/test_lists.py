"""The lists that an authority hands out, and those that it serves by."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from rsocket_broker.authority import Authority, CheckedRequest
from rsocket_broker.authority.crl import KEPT, NEVER
from rsocket_broker.authority.lists import FRESH
from rsocket_broker.authority.revocation import Selector
from rsocket_broker.identity import Principal
from rsocket_broker.state import State
from tests.authority.conftest import Clock


def numbers(revoked: x509.CertificateRevocationList) -> set[int]:
    return {each.serial_number for each in revoked}


def number(revoked: x509.CertificateRevocationList) -> int:
    return revoked.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def inner(authority: Authority) -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl(authority.serving().crl_pem)


@pytest.mark.row("A-20", "A-23")
def test_there_is_a_list_from_the_start_and_a_revocation_makes_another(
    authority: Authority, request_of_app: CheckedRequest, principal: Principal, clock: Clock
) -> None:
    before = authority.serving()
    assert numbers(inner(authority)) == set() and inner(authority).next_update_utc == NEVER
    (first,) = authority.revocation_lists()
    issued = authority.issue(request_of_app, principal)
    authority.revocations.revoke(Selector.serial(issued.serial))
    assert authority.serving() is before, "nobody has said so yet"
    authority.changed()
    assert numbers(inner(authority)) == {issued.serial}
    (second,) = authority.revocation_lists()
    assert numbers(second) == {issued.serial} and number(second) > number(first)
    assert second.issuer == authority.certificate.subject


@pytest.mark.row("A-23")
def test_a_list_is_handed_out_again_for_a_while(authority: Authority, clock: Clock) -> None:
    (first,) = authority.revocation_lists()
    clock.advance(minutes=59)
    assert authority.revocation_lists() == [first]
    clock.advance(minutes=2)
    (second,) = authority.revocation_lists()
    assert second.last_update_utc - first.last_update_utc > FRESH
    clock.advance(hours=-3)
    (third,) = authority.revocation_lists()
    assert third.last_update_utc < first.last_update_utc, "a clock that was put back makes a list of its own"
    assert number(third) > number(second), "and its number grows all the same"


def test_what_has_ended_leaves_the_lists(
    authority: Authority, request_of_app: CheckedRequest, principal: Principal, clock: Clock
) -> None:
    issued = authority.issue(request_of_app, principal)
    authority.revocations.revoke(Selector.serial(issued.serial))
    clock.now = issued.not_after + timedelta(seconds=1)
    authority.changed()
    assert numbers(inner(authority)) == set(), "its dates refuse it"
    assert numbers(authority.revocation_lists()[0]) == {issued.serial}, "others may be late"
    clock.now = issued.not_after + KEPT + timedelta(seconds=1)
    authority.changed()
    assert numbers(authority.revocation_lists()[0]) == set()


def test_lists_survive_a_restart(
    home: Path, authority: Authority, state: State, request_of_app: CheckedRequest, principal: Principal, clock: Clock
) -> None:
    issued = authority.issue(request_of_app, principal)
    authority.revocations.revoke(Selector.serial(issued.serial))
    clock.advance(seconds=1)
    again = Authority.open(home, state, clock=clock)
    assert numbers(inner(again)) == {issued.serial}
    assert number(again.revocation_lists()[0]) > number(inner(authority))
