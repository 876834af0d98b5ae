from datetime import timedelta

import pytest

from rsocket_broker.authority.ends import foreseen
from tests.authority.conftest import START
from tests.authority.operators_ca import make_ca

ROOT = make_ca("Root", number=150, life=timedelta(days=400))
OURS = make_ca("Ours", ROOT, number=151, life=timedelta(days=300))
CHAIN = [OURS.certificate, ROOT.certificate]


def told(days: float, chain: list[object] | None = None, imported: bool = True) -> list[tuple[bool, str]]:
    found = foreseen(chain or CHAIN, imported, START + timedelta(days=days))  # type: ignore[arg-type]
    return [(each.urgent, each.text) for each in found]


@pytest.mark.row("A-55")
def test_a_ca_made_here_is_told_of_before_its_end_only() -> None:
    own = [ROOT.certificate]
    assert told(100, own, imported=False) == []
    assert told(368, own, imported=False) == []
    ((urgent, text),) = told(370, own, imported=False)
    assert urgent
    assert "ends on 2027-04-04" in text
    assert "ca rotate prepare" in text
    assert "ended on" in told(401, own, imported=False)[0][1]


@pytest.mark.row("A-55")
def test_an_operators_ca_is_told_of_before_it_is_too_old_and_before_its_end() -> None:
    assert told(20) == []
    ((urgent, text),) = told(23)
    assert not urgent
    assert "from 2026-03-30 on" in text
    assert "ca import" in text
    assert "since 2026-03-30" in told(60)[0][1]
    assert [urgent for urgent, _ in told(280)] == [True, False]


def test_the_certificate_that_ends_first_counts() -> None:
    short = make_ca("Short", number=152, life=timedelta(days=50))
    ours = make_ca("Long", short, number=153, life=timedelta(days=300))
    text = told(30, [ours.certificate, short.certificate])[0][1]
    assert "CN=Short,O=Example ends on 2026-04-19" in text


def test_a_chain_that_android_never_takes_is_not_called_too_old() -> None:
    assert told(100, [OURS.certificate, OURS.certificate, ROOT.certificate]) == []
