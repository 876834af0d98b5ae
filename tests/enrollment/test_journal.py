"""The journal of deployments: whole again after a restart, one row per container."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from rsocket_broker.enrollment.journal import KEEP, Journal
from rsocket_broker.enrollment.mediums.base import Bundle, Container
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State

NOW = datetime(2024, 6, 10, tzinfo=UTC)
BUNDLE = Bundle(csr="request", trust_pem=b"anchor", certificate_pem=b"certificate")
CONTAINER = Container(
    medium="adb",
    principal=Principal("org.example.demo", "android-1", Proof.ADB),
    location={"directory": "/data/user/0/org.example.demo/files/sonar", "user": "0"},
    answer={"note": ["x"]},
)


@pytest.mark.row("D-7")
def test_a_deployment_that_was_begun_is_whole_after_a_restart(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / "state.db") as state:
        begun = Journal(state).begin(CONTAINER, BUNDLE, NOW)
    with State.open(tmp_path / "home" / "state.db") as state:
        journal = Journal(state)
        assert journal.pending() == [begun]
        journal.end(begun)
        assert journal.pending() == []


@pytest.mark.row("D-7")
def test_a_new_deployment_takes_the_place_of_one_into_the_same_container(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / "state.db") as state:
        journal = Journal(state)
        old = journal.begin(CONTAINER, BUNDLE, NOW)
        turned = dict(reversed(CONTAINER.location.items()))
        new = journal.begin(attrs.evolve(CONTAINER, location=turned), BUNDLE, NOW)
        other = journal.begin(attrs.evolve(CONTAINER, location={"directory": "/elsewhere"}), BUNDLE, NOW)
        assert [entry.number for entry in journal.pending()] == [new.number, other.number]
        journal.end(old)
        assert [entry.number for entry in journal.pending()] == [new.number, other.number]


def test_what_waits_for_a_device_for_too_long_is_forgotten(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / "state.db") as state:
        journal = Journal(state)
        old = journal.begin(CONTAINER, BUNDLE, NOW)
        assert journal.expire(NOW + KEEP) == []
        assert journal.expire(NOW + KEEP + timedelta(seconds=1)) == [old]
        assert journal.pending() == []
