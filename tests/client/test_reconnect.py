"""Waits are bounded and spread; two refused handshakes, and nothing else, cost the certificate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.client.reconnect import (
    LONGEST_DELAY,
    REFUSALS_BEFORE_NEW_CERTIFICATE,
    STEADY_AFTER,
    Backoff,
    Failure,
    Reconnector,
    Step,
)
from rsocket_broker.errors import ConfigurationError


@pytest.mark.row("A-09", "F-5")
@given(failures=st.integers(0, 10**9), draw=st.floats(0, 1))
def test_no_wait_is_longer_than_the_ceiling(failures: int, draw: float) -> None:
    assert 0 <= Backoff().delay(failures, draw) <= LONGEST_DELAY


@pytest.mark.row("A-09")
def test_waits_double_up_to_the_ceiling() -> None:
    backoff = Backoff(first=0.5, longest=3.0)
    assert [backoff.ceiling(failures) for failures in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@pytest.mark.row("A-09")
def test_jitter_uses_the_whole_interval() -> None:
    backoff = Backoff(first=2.0, longest=8.0)
    assert backoff.delay(1, 0.0) == 0.0
    assert backoff.delay(1, 0.25) == 1.0
    assert backoff.delay(1, 1.0) == 4.0


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_a_delay_that_is_no_delay_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="longest"):
        Backoff(longest=seconds)


@pytest.mark.row("A-09")
def test_repeated_tls_refusals_lead_to_a_new_certificate() -> None:
    client = Reconnector()
    steps = []
    for _ in range(REFUSALS_BEFORE_NEW_CERTIFICATE):
        steps.append(client.next_step(enrolled=True))
        client.failed(Failure.TLS)
    assert steps == [Step.CONNECT] * REFUSALS_BEFORE_NEW_CERTIFICATE
    assert client.next_step(enrolled=True) is Step.ENROLL
    client.enrolled()
    assert client.next_step(enrolled=True) is Step.CONNECT


@pytest.mark.row("A-09")
@pytest.mark.parametrize("failure", [Failure.NETWORK, Failure.REFUSED])
def test_other_failures_never_cost_the_certificate(failure: Failure) -> None:
    client = Reconnector()
    for _ in range(1000):
        client.failed(failure)
    assert client.next_step(enrolled=True) is Step.CONNECT


def test_a_network_failure_between_two_refusals_does_not_clear_the_first() -> None:
    client = Reconnector()
    for failure in (Failure.TLS, Failure.NETWORK, Failure.TLS):
        client.failed(failure)
    assert client.next_step(enrolled=True) is Step.ENROLL


def test_an_accepted_session_clears_the_refusals_before_it() -> None:
    client = Reconnector()
    client.failed(Failure.TLS)
    client.accepted()
    client.failed(Failure.TLS)
    assert client.next_step(enrolled=True) is Step.CONNECT


def test_without_credentials_the_next_step_is_to_enrol() -> None:
    assert Reconnector().next_step(enrolled=False) is Step.ENROLL


def test_an_enrolment_does_not_make_the_waits_small_again() -> None:
    client = Reconnector()
    for _ in range(10):
        client.failed(Failure.TLS)
    before = client.delay(1.0)
    client.enrolled()
    assert client.delay(1.0) == before == LONGEST_DELAY


@pytest.mark.parametrize(("lasted", "failures"), [(STEADY_AFTER, 0), (STEADY_AFTER - 0.1, 4)])
def test_only_a_session_that_held_makes_the_waits_small_again(lasted: float, failures: int) -> None:
    client = Reconnector()
    for _ in range(3):
        client.failed(Failure.NETWORK)
    client.accepted()
    client.session_ended(lasted)
    assert client.failures == failures


@pytest.mark.row("A-09")
def test_while_nobody_enrols_the_old_certificate_is_tried_in_between() -> None:
    client = Reconnector(tls_refusals=REFUSALS_BEFORE_NEW_CERTIFICATE)
    client.enrollment_unreachable()
    assert client.next_step(enrolled=True) is Step.CONNECT
    client.failed(Failure.TLS)
    assert client.next_step(enrolled=True) is Step.ENROLL


def test_nobody_to_enrol_with_is_no_refusal() -> None:
    client = Reconnector()
    client.enrollment_unreachable()
    assert client.tls_refusals == 0
