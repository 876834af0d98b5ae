"""What a certificate says is the same whether it was read or is known from its signing."""

from datetime import UTC, datetime

import attrs

from rsocket_broker.credentials import make_signing_request
from rsocket_broker.enrollment.leaf import Leaf, delivered
from rsocket_broker.enrollment.mediums.base import Bundle, Container, JournalEntry
from rsocket_broker.identity import Principal, Proof
from tests.enrollment.workshop import Workshop

CLIENT = Principal("org.example.demo", "device-1", Proof.ADB)


def test_what_was_signed_says_the_same_when_it_is_read(workshop: Workshop) -> None:
    authority, request = workshop.authority, make_signing_request(CLIENT.app_id)
    issued = authority.issue(authority.check_request(request.csr_pem), CLIENT)
    read = Leaf.read(issued.certificate_pem)
    assert Leaf.of(issued) == read
    assert (read.serial, read.generation) == (issued.serial, authority.generation)
    container = Container(medium="adb", principal=CLIENT, location={"device": "1"})
    bundle = Bundle(csr=request.csr_pem.decode(), trust_pem=b"anchors", certificate_pem=issued.certificate_pem)
    entry = JournalEntry(number=1, container=container, bundle=bundle, started=datetime.now(UTC))
    assert delivered(entry) == delivered(attrs.evolve(entry, leaf=Leaf.of(issued))) == read
    assert delivered(attrs.evolve(entry, bundle=attrs.evolve(bundle, certificate_pem=b""))) is None
