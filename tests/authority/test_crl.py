"""Revocation lists: what is in them, and that OpenSSL verifies clients by them as we mean it."""

import shutil
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from rsocket_broker.authority.crl import LIFE, NEVER, Entry, issue_crl, issue_inner_crl, to_der, to_pem
from rsocket_broker.authority.home import certificate_pem
from rsocket_broker.authority.issue import Issuer, issue_root
from rsocket_broker.authority.profiles import ROOT, load_profile
from tests.authority.conftest import START, some_key

MANY = 10_000
PATIENCE = 2.0
"""Seconds for a list of MANY; it takes a tenth of one."""


def issuer(kind: str = "rsa-2048", generation: int = 1) -> Issuer:
    key = some_key(kind)
    return Issuer(generation, issue_root(load_profile(ROOT), key, generation, 1, START), key)


@pytest.mark.row("A-23")
@pytest.mark.parametrize("kind", ["rsa-2048", "p-256", "p-384"])
def test_a_list_for_others_names_what_is_revoked_and_when_the_next_is_due(kind: str) -> None:
    ours = issuer(kind)
    entries = [Entry(7, START, "key-compromise"), Entry(1 << 158, START, "he left"), Entry(9, START)]
    found = x509.load_der_x509_crl(to_der(issue_crl(ours, entries, START, 5)))
    assert found.is_signature_valid(ours.key.public_key())
    assert found.issuer == ours.certificate.subject
    assert {each.serial_number for each in found} == {7, 9, 1 << 158}
    assert found.next_update_utc == START + LIFE and found.last_update_utc < START
    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 5
    reasons = {
        each.serial_number: each.extensions.get_extension_for_class(x509.CRLReason).value.reason
        for each in found
        if len(each.extensions)
    }
    assert reasons == {7: x509.ReasonFlags.key_compromise}, "our own words are not for others"


def test_the_list_for_ourselves_is_good_from_the_first_day_and_never_ends() -> None:
    ours = issuer()
    found = issue_inner_crl(ours, [], 1)
    assert found.last_update_utc == ours.certificate.not_valid_before_utc
    assert found.next_update_utc == NEVER
    assert len(found) == 0


def test_ten_thousand_are_listed_in_no_time() -> None:
    entries = [Entry((1 << 150) + number, START) for number in range(MANY)]
    begin = time.perf_counter()
    found = issue_inner_crl(issuer(), entries, 1)
    assert time.perf_counter() - begin < PATIENCE
    assert len(found) == MANY


@pytest.mark.row("A-23")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_openssl_reads_and_verifies_a_list(tmp_path: Path) -> None:
    ours = issuer()
    (tmp_path / "ca.pem").write_bytes(certificate_pem(ours.certificate))
    (tmp_path / "crl.pem").write_bytes(to_pem([issue_crl(ours, [Entry(0xABC, START)], START + timedelta(days=1), 2)]))
    done = subprocess.run(
        ["openssl", "crl", "-in", "crl.pem", "-CAfile", "ca.pem", "-noout", "-text"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "verify OK" in done.stderr
    assert "Serial Number: 0ABC" in done.stdout
