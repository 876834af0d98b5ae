from datetime import timedelta

import pytest

from rsocket_broker.authority import server
from rsocket_broker.authority.issue import Issuer, host_names, issue_cross, issue_leaf, issue_root
from rsocket_broker.authority.profiles import load_profile
from tests.authority.conftest import START, some_key

KEY = some_key("rsa-2048", 9)
HOSTS = host_names(["localhost"])


def make_root(number: int) -> Issuer:
    key = some_key("rsa-2048", number)
    return Issuer(number, issue_root(load_profile("root"), key, number, number, START), key)


ROOT, OTHER = make_root(1), make_root(2)
LEAF = issue_leaf(load_profile("broker"), KEY.public_key(), HOSTS, ROOT, 7, START)
CHAIN = [LEAF, ROOT.certificate]


@pytest.mark.row("F-16")
def test_a_good_pair_lasts_for_two_thirds_of_its_life_and_never_grows_old() -> None:
    due = server.renewal_date(LEAF)
    assert server.problem(KEY, CHAIN, ROOT.certificate, HOSTS, START) is None
    assert server.problem(KEY, CHAIN, ROOT.certificate, None, due - timedelta(seconds=1)) is None
    assert server.problem(KEY, CHAIN, ROOT.certificate, HOSTS, due) == "the old one nears its end"
    assert due - LEAF.not_valid_before_utc < timedelta(days=25)
    assert LEAF.not_valid_after_utc - due > timedelta(days=5)


def test_every_other_pair_has_its_reason() -> None:
    early = LEAF.not_valid_before_utc - timedelta(seconds=1)
    ca, other = ROOT.certificate, OTHER.certificate
    for reason, found in {
        "held none": server.problem(None, CHAIN, ca, HOSTS, START),
        "the home held": server.problem(KEY, [], ca, HOSTS, START),
        "another key": server.problem(some_key(), CHAIN, ca, HOSTS, START),
        "not signed by this CA": server.problem(KEY, CHAIN, other, HOSTS, START),
        "signed by this CA": server.problem(KEY, [LEAF, other], other, HOSTS, START),
        "by this CA": server.problem(KEY, [LEAF], ca, HOSTS, START),
        "other host names": server.problem(KEY, CHAIN, ca, host_names(["localhost", "10.0.2.2"]), START),
        "not valid yet": server.problem(KEY, CHAIN, ca, HOSTS, early),
    }.items():
        assert found is not None
        assert reason in found


def test_who_signed_what() -> None:
    assert server.is_issued_by(LEAF, ROOT.certificate)
    assert not server.is_issued_by(LEAF, OTHER.certificate)
    assert not server.is_issued_by(ROOT.certificate, LEAF)


@pytest.mark.row("A-14")
def test_what_the_secure_port_presents_by_what_stands_above_the_leaf() -> None:
    root, other = ROOT.certificate, OTHER.certificate
    cross = issue_cross(load_profile("root"), other, ROOT, 9, START)
    assert server.secure_chain(LEAF, root) == CHAIN
    assert server.secure_chain(LEAF, root, (), cross, (other,)) == [LEAF, cross]
    assert server.secure_chain(LEAF, root, (other,)) == [LEAF, root], "a root that is not the issuer stays at home"
    assert server.secure_chain(LEAF, root, (other,), cross, (other,)) == [LEAF, root, cross]
    assert server.secure_chain(LEAF, root, (), cross, (other, root)) == [LEAF, cross, other]
