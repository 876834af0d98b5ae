"""Identity: the same app proven in another way is another client."""

from datetime import UTC, datetime

import pytest

from rsocket_broker.identity import Identity, Principal, Proof, unverified


@pytest.mark.row("A-34")
def test_a_proof_is_part_of_who_a_client_is() -> None:
    by_adb = Principal("org.example.demo", "pixel", Proof.ADB)
    by_file = Principal("org.example.demo", "pixel", Proof.FILESYSTEM)
    assert by_adb != by_file
    assert by_adb == Principal("org.example.demo", "pixel", Proof.ADB)


def test_an_identity_reads_as_its_principal() -> None:
    principal = Principal("org.example.demo", "", Proof.FILESYSTEM)
    identity = Identity(principal, "client", 7, "ab" * 32, 1, datetime(2026, 1, 1, tzinfo=UTC))
    assert (identity.app_id, identity.device_id, identity.proof) == ("org.example.demo", "", Proof.FILESYSTEM)
    assert str(identity.principal) == "org.example.demo@- (filesystem)"


@pytest.mark.row("M-9")
def test_what_proves_nothing_is_never_who_a_certificate_names() -> None:
    claimed = unverified("org.example.demo", "pixel")
    for proof in set(Proof) - {Proof.UNVERIFIED}:
        real = Principal("org.example.demo", "pixel", proof)
        assert claimed.principal != real
        assert not set(claimed.principal.names) & set(real.names)
        assert real.certified
    assert not claimed.principal.certified
    assert claimed.principal.names == ("unverified:org.example.demo", "unverified:org.example.demo@pixel")
    assert str(claimed.principal) == "org.example.demo@pixel (unverified)"
    assert (claimed.serial, claimed.generation, claimed.key_fingerprint) == (0, 0, "")
