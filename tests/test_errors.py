"""Errors: what a peer may read, and the wire code each class travels under."""

import pytest

from rsocket_broker.errors import (
    ApplicationError,
    Canceled,
    EnrollmentRefused,
    Invalid,
    Rejected,
    RequestFailed,
    request_error,
)


@pytest.mark.parametrize(
    ("code", "kind"), [(0x201, ApplicationError), (0x202, Rejected), (0x203, Canceled), (0x204, Invalid)]
)
def test_a_wire_code_and_its_class_find_each_other(code: int, kind: type[RequestFailed]) -> None:
    error = request_error(code, "why")
    assert type(error) is kind
    assert (error.code, error.public) == (code, "why")
    assert kind("why").code == code


def test_an_unknown_code_is_kept() -> None:
    error = request_error(0x00000301, "custom")
    assert type(error) is RequestFailed
    assert error.code == 0x301


@pytest.mark.row("A-13")
def test_a_refused_enrolment_names_step_reason_and_remedy() -> None:
    error = EnrollmentRefused("proof", "no device holds this request.", "Attach the device.")
    assert error.public == "proof: no device holds this request. Attach the device."
