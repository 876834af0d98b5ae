"""The exchange as values: any bytes are a request, an acknowledgement or a refusal that names what is wrong."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.authority.profiles import load_profile
from rsocket_broker.claims import Claims
from rsocket_broker.enrollment.exchange import (
    CLOCK_TOLERANCE,
    Acknowledgement,
    SignRequest,
    check_clock,
    log_lines,
    parse_message,
)
from rsocket_broker.errors import EnrollmentRefused

CLAIMS = Claims(os="Android", device="Pixel", app="Demo")
SIGN = {
    "method": "signCertificate",
    "csr": "-----BEGIN CERTIFICATE REQUEST-----\r\nMIIB\r\n-----END CERTIFICATE REQUEST-----\r\n",
    "destination": "/data/user/0/org.example.demo/files/sonar/",
}
NOW = datetime(2024, 6, 10, 0, 5, tzinfo=UTC)


def parse(fields: object, claims: Claims = CLAIMS) -> SignRequest | Acknowledgement:
    return parse_message(json.dumps(fields).encode(), claims)


def refusal(fields: object) -> EnrollmentRefused:
    with pytest.raises(EnrollmentRefused) as caught:
        parse(fields)
    return caught.value


@pytest.mark.row("F-26")
def test_a_request_with_all_its_fields() -> None:
    lines = ["1718000000001:info:[conn] Connect and exchange certificate"]
    assert parse({**SIGN, "medium": 1, "timestamp": 1718000000123, "logs": lines}) == SignRequest(
        csr="-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----",
        claims=CLAIMS,
        destination="/data/user/0/org.example.demo/files/sonar/",
        medium=1,
        timestamp=datetime(2024, 6, 10, 6, 13, 20, tzinfo=UTC),
        logs=tuple(lines),
    )


@pytest.mark.row("A-57")
def test_a_grant_is_kept_and_never_shown() -> None:
    request = parse({**SIGN, "grant": "0123456789ab.proof"})
    assert isinstance(request, SignRequest) and request.grant == "0123456789ab.proof"
    assert "proof" not in repr(request)
    assert parse({**SIGN, "grant": None}) == parse(SIGN)


@pytest.mark.row("A-33", "A-57", "M-8")
@pytest.mark.parametrize("token", ["0123456789ab.secret", 5, None, ["secret"]])
def test_whoever_sends_a_token_itself_is_told_what_to_send(token: object) -> None:
    refused = refusal({**SIGN, "token": token})
    assert refused.step == "message"
    assert '"grant": "ID.PROOF"' in refused.public and "withdraw" in refused.public
    assert "secret" not in refused.public + repr(refused)


@pytest.mark.row("F-34")
def test_medium_1_is_meant_when_none_is_named() -> None:
    assert parse(SIGN).medium == 1  # type: ignore[union-attr]


@pytest.mark.row("F-12", "F-34")
@pytest.mark.parametrize(("in_setup", "in_message", "meant"), [(2, None, 2), (2, 1, 1), (None, "4", 4)])
def test_the_message_has_the_last_word_on_the_medium(in_setup: int | None, in_message: object, meant: int) -> None:
    request = parse({**SIGN, "medium": in_message}, Claims(medium=in_setup))
    assert request.medium == meant  # type: ignore[union-attr]


@pytest.mark.row("F-26", "A-13")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"csr": None}, "the field csr is missing or empty"),
        ({"csr": " \r\n "}, "the field csr is missing or empty"),
        ({"csr": 5}, "the field csr must be text"),
        ({"csr": "x" * 1024 * 1024}, "the field csr is longer than 65536 characters"),
        ({"destination": ["/"]}, "the field destination must be text"),
        ({"destination": "/" * 1024 * 1024}, "the field destination is longer than 4096 characters"),
        ({"medium": "one"}, "the field medium must be a whole number"),
        ({"medium": True}, "the field medium must be a whole number"),
        ({"medium": -1}, "the field medium must be a whole number"),
        ({"timestamp": "yesterday"}, "the field timestamp must be the milliseconds since 1970"),
        ({"timestamp": 10**40}, "the field timestamp must be the milliseconds since 1970"),
        ({"timestamp": 1.5}, "the field timestamp must be the milliseconds since 1970"),
        ({"logs": "1:info:x"}, "the field logs must be a list of lines"),
        ({"grant": ["x"]}, "the field grant must be text"),
        ({"grant": "x" * 257}, "the field grant is longer than 256 characters"),
    ],
)
def test_a_field_at_fault_is_named(change: dict[str, object], words: str) -> None:
    refused = refusal({**SIGN, **change})
    assert refused.step == "message"
    assert words in refused.public
    assert refused.remedy


@pytest.mark.row("F-26")
@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"signCertificate", b"[]", b"null", b'{"method":', b"1" * 9999])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(EnrollmentRefused, match="This port only signs certificates") as caught:
        parse_message(data, CLAIMS)
    assert caught.value.step == "message"


@pytest.mark.row("A-01")
@pytest.mark.parametrize(
    "method", ["execute", "getPlugins", "signcertificate", "", "\n\x1b[2J" + "x" * 500, 7, None, {}]
)
def test_any_other_method_is_told_what_this_port_is_for(method: object) -> None:
    refused = refusal({**SIGN, "method": method})
    assert "This port only signs certificates" in refused.public
    assert len(refused.public) < 300
    assert refused.public.isprintable()


@pytest.mark.row("F-26")
def test_an_acknowledgement() -> None:
    fields = {"method": "signCertificateAck", "isError": False, "hasRequiredFiles": False, "config": {}, "logs": ["x"]}
    assert parse(fields) == Acknowledgement(is_error=False, has_required_files=False, logs=("x",))
    assert parse({"method": "signCertificateAck"}) == Acknowledgement(is_error=False, has_required_files=None)
    for name in ("isError", "hasRequiredFiles"):
        assert f"the field {name} must be true or false" in refusal({**fields, name: "no"}).public


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
nearly_right = st.fixed_dictionaries(
    {"method": st.sampled_from(["signCertificate", "signCertificateAck", "execute"])},
    optional={
        name: json_values | st.text(min_size=1)
        for name in ("csr", "destination", "medium", "timestamp", "logs", "isError", "hasRequiredFiles")
    },
)


@pytest.mark.row("F-26")
@given(st.binary() | (json_values | nearly_right).map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_message_or_a_named_refusal(data: bytes) -> None:
    try:
        message = parse_message(data, CLAIMS)
    except EnrollmentRefused as refused:
        assert refused.step == "message"
        assert refused.reason
        assert refused.remedy
        assert refused.public.isprintable()
    else:
        assert isinstance(message, Acknowledgement) or message.csr.strip() == message.csr != ""


@pytest.mark.row("A-08")
@pytest.mark.parametrize("hours", [-6, -1, 0, 1, 6])
def test_a_clock_that_is_off_by_hours_passes_around_midnight_too(hours: int) -> None:
    check_clock(SignRequest(csr="x", claims=CLAIMS, timestamp=NOW + timedelta(hours=hours)), NOW)


@pytest.mark.row("A-08")
def test_a_device_that_does_not_tell_its_time_passes() -> None:
    check_clock(SignRequest(csr="x", claims=CLAIMS), NOW)


@pytest.mark.row("A-08", "A-13")
@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (timedelta(hours=7), "2024-06-10 07:05 UTC, the clock of the broker says 2024-06-10 00:05 UTC: "
         "the device is 7 hours ahead of the broker"),
        (-timedelta(days=400), "the device is 400 days behind the broker"),
        (datetime(1970, 1, 1, tzinfo=UTC) - NOW, "the device says 1970-01-01 00:00 UTC"),
    ],
)  # fmt: skip
def test_a_clock_that_is_off_further_is_told_with_both_clocks(difference: timedelta, words: str) -> None:
    with pytest.raises(EnrollmentRefused) as caught:
        check_clock(SignRequest(csr="x", claims=CLAIMS, timestamp=NOW + difference), NOW)
    assert caught.value.step == "clock"
    assert words in caught.value.public
    assert "Set the date and time" in caught.value.remedy


@pytest.mark.row("A-08")
@pytest.mark.parametrize("profile", ["root", "broker", "client"])
def test_who_passes_finds_every_certificate_valid_already(profile: str) -> None:
    assert load_profile(profile).backdate > CLOCK_TOLERANCE


def test_log_lines_of_a_device_are_fit_for_our_log() -> None:
    lines = ["1718:info:[conn] fine", "1718:debug:x", "no", "1:error:bad\n2024 FAKE\x1b[31m", "1:warning:" + "y" * 9999]
    found = list(log_lines(lines))
    assert found[0] == ("info", "[conn] fine")
    assert found[1] == ("error", "bad\\n2024 FAKE\\x1b[31m")
    assert found[2] == ("warning", "y" * 500 + "…")
    assert len(found) == 3


def test_no_more_log_lines_are_kept_than_an_sdk_sends() -> None:
    assert len(parse({**SIGN, "logs": ["1:info:x"] * 5000}).logs) == 512
