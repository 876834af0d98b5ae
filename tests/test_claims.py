"""Claims: what SETUP data may say, and when it cannot be true."""

import base64
import contextlib
import json
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.claims import MAX_FIELDS, Claims, contradiction, shown
from rsocket_broker.credentials import clean
from rsocket_broker.errors import SetupRefused
from rsocket_broker.identity import Identity, Principal, Proof

FLIPPER = {"os": "Android", "device": "Pixel 6 - 13 - API 33", "device_id": "unknown", "app": "Demo"}
PRINCIPAL = Principal("org.example.demo", "android-1", Proof.ADB)


def parse(fields: object, *, required: bool = True) -> Claims:
    return Claims.parse(json.dumps(fields).encode(), required=required)


@pytest.mark.row("F-25")
def test_the_claims_of_a_flipper_app() -> None:
    claims = parse(
        {**FLIPPER, "app_id": "org.example.demo", "sdk_version": 4, "medium": 1, "csr": "C", "csr_path": "/p/"}
    )
    assert claims == Claims(
        os="Android",
        device="Pixel 6 - 13 - API 33",
        device_id="unknown",
        app="Demo",
        app_id="org.example.demo",
        sdk_version=4,
        medium=1,
        csr="C",
        csr_path="/p/",
    )
    assert claims.is_flipper


@pytest.mark.row("F-25")
def test_what_an_old_sdk_leaves_out_has_a_default() -> None:
    claims = parse(FLIPPER)
    assert (claims.sdk_version, claims.medium, claims.app_id, claims.csr) == (0, None, "", "")


@pytest.mark.row("F-25")
def test_numbers_may_be_decimal_text_and_null_is_absent() -> None:
    claims = parse({**FLIPPER, "sdk_version": "4", "medium": "1", "app_id": None})
    assert (claims.sdk_version, claims.medium, claims.app_id) == (4, 1, "")


@pytest.mark.row("F-25")
def test_unknown_fields_are_ignored() -> None:
    assert parse({**FLIPPER, "foreground": "true", "rsocket": True, "more": {"a": []}}) == parse(FLIPPER)


@pytest.mark.row("F-25")
@pytest.mark.parametrize("name", ["os", "device", "app"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_field_is_named(name: str, value: str | None) -> None:
    with pytest.raises(SetupRefused, match=rf"The field {name} is missing"):
        parse({**FLIPPER, name: value})


@pytest.mark.row("F-25")
@pytest.mark.parametrize("name", ["os", "device", "device_id", "app", "app_id", "csr", "csr_path"])
@pytest.mark.parametrize("value", [1, True, [], {}])
def test_a_field_that_is_not_text_is_named(name: str, value: object) -> None:
    with pytest.raises(SetupRefused, match=rf"The field {name} of the SETUP data must be text"):
        parse({**FLIPPER, name: value})


@pytest.mark.row("F-25")
@pytest.mark.parametrize("name", ["sdk_version", "medium"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "", "four", "-1", "٤", [], 10**30, "9" * 5000])
def test_a_field_that_is_no_number_is_named(name: str, value: object) -> None:
    with pytest.raises(SetupRefused, match=rf"The field {name} of the SETUP data must be a whole number"):
        parse({**FLIPPER, name: value})


@pytest.mark.row("F-25")
def test_an_unknown_system_is_named_with_the_known_ones() -> None:
    with pytest.raises(SetupRefused, match=r"os of the SETUP data is Plan9, not one of Android, iOS, MacOS"):
        parse({**FLIPPER, "os": "Plan9"})
    Claims.parse(json.dumps({**FLIPPER, "os": "Plan9"}).encode(), required=True, known_os=["Plan9"])


@pytest.mark.row("F-25")
@pytest.mark.parametrize("name", ["device", "csr", "csr_path"])
def test_a_field_too_long_is_named(name: str) -> None:
    with pytest.raises(SetupRefused, match=rf"The field {name} of the SETUP data is longer than"):
        parse({**FLIPPER, name: "x" * 1_000_000})


@pytest.mark.parametrize("data", [b"[]", b"hello", b"\xff", b'"text"', b"{"])
def test_data_that_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(SetupRefused, match="must be one JSON object"):
        Claims.parse(data, required=False)


def test_a_plain_rsocket_client_claims_nothing() -> None:
    claims = Claims.parse(b"", required=False)
    assert claims == Claims()
    assert not claims.is_flipper
    with pytest.raises(SetupRefused, match="The field os is missing"):
        Claims.parse(b"", required=True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
fields_of_any_kind = st.dictionaries(st.sampled_from([*FLIPPER, "sdk_version", "medium", "csr", "x"]), json_values)


@given(st.binary() | (fields_of_any_kind | json_values).map(lambda value: json.dumps(value).encode()), st.booleans())
def test_any_data_is_claims_or_the_one_refusal(data: bytes, required: bool) -> None:
    try:
        claims = Claims.parse(data, required=required)
    except SetupRefused as refusal:
        assert refusal.public.endswith(".")
    else:
        assert claims.is_flipper or not required


@pytest.mark.parametrize("who", [PRINCIPAL, Identity(PRINCIPAL, "client", 1, "ab", 1, datetime.now(UTC))])
@pytest.mark.parametrize("value", ["", "unknown"])
def test_a_claim_that_says_nothing_contradicts_nothing(who: Principal | Identity, value: str) -> None:
    assert contradiction(Claims(app_id=value, device_id=value, app="Any label"), who) is None


def test_a_claim_that_agrees_contradicts_nothing() -> None:
    assert contradiction(Claims(app_id="org.example.demo", device_id="android-1"), PRINCIPAL) is None
    assert contradiction(Claims(app_id="com.flipper"), PRINCIPAL) is None
    assert contradiction(Claims(device_id="mine"), Principal("org.example.demo", "", Proof.OPERATOR)) is None


@pytest.mark.parametrize(
    ("claims", "field"),
    [(Claims(app_id="org.example.other"), "app_id"), (Claims(device_id="android-2"), "device_id")],
)
def test_a_claim_that_cannot_be_true_is_named(claims: Claims, field: str) -> None:
    text = contradiction(claims, PRINCIPAL)
    assert text is not None
    assert text.startswith(f"{field} is ")


@given(st.text(max_size=40))
def test_text_of_a_peer_is_shown_on_one_line(text: str) -> None:
    assert shown(text).isprintable()


def test_text_of_a_peer_is_shown_shortened_and_readable() -> None:
    assert shown("naïve 名\r\n\x1b[31m\u202e") == "naïve 名\\r\\n\\x1b[31m\\u202e"
    assert shown("x" * 50, 10) == "x" * 10 + "…"


# ---- in the query of an address --------------------------------------------------------------------------------------

PEM = "-----BEGIN CERTIFICATE REQUEST-----\nMIIC%s==\n-----END CERTIFICATE REQUEST-----\n"


def as_sdks_send_it(pem: str) -> str:
    """Base64 without its last character, whatever that is."""
    return base64.b64encode(pem.encode()).decode()[:-1]


@pytest.mark.row("F-25")
@pytest.mark.parametrize("filler", ["", "a", "ab", "abc"])
def test_a_query_says_what_a_setup_says(filler: str) -> None:
    pem = PEM % filler
    claims = Claims.from_query(
        "os=Android&device=Pixel+6+-+13+-+API+33&device_id=&app=D%C3%A9mo+%23%20%F0%9F%99%82&app_id=com.demo"
        f"&sdk_version=4&medium=1&csr={as_sdks_send_it(pem)}&csr_path=%2Fdata%2Ffiles%2Fsonar%2F&foreground=true"
    )
    assert claims == Claims(
        os="Android",
        device="Pixel 6 - 13 - API 33",
        app="Démo # 🙂",
        app_id="com.demo",
        sdk_version=4,
        medium=1,
        csr=claims.csr,
        csr_path="/data/files/sonar/",
    )
    assert clean(claims.csr) == clean(pem)
    assert claims.is_flipper


def test_all_forms_of_base64_are_read() -> None:
    whole = base64.b64encode(b"aa>aa?x").decode()
    assert "+" in whole and "/" in whole
    for form in (whole, whole.rstrip("="), quote(whole), f"{whole[:4]}%0A{whole[4:]}", whole + "A"[: len(whole) % 4]):
        assert Claims.from_query(f"csr={form}", required=False).csr == "aa>aa?x"
    assert Claims.from_query("csr=YWJjZ", required=False).csr == "abc"
    assert Claims.from_query("csr=", required=False).csr == ""


@pytest.mark.row("F-25")
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "os"),
        ("os=Android&app=A", "device"),
        ("os=Android&device=D", "app"),
        ("os=Android&device=D&app=", "app"),
        ("os=Android&device=D&app=A&sdk_version=four", "sdk_version"),
        ("os=Android&device=D&app=A&medium=-1", "medium"),
        ("os=Android&device=D&app=A&medium=%C2%B2", "medium"),
        ("os=Android&device=D&app=A&csr=%21%21", "csr"),
        ("os=Android&device=D&app=A&csr=/////w", "csr"),
        ("os=Android&device=D&app=A&app=B", "app"),
        (f"os=Android&device={'D' * 1025}&app=A", "device"),
        ("os=BeOS&device=D&app=A", "os"),
    ],
)
def test_what_is_wrong_with_a_query_is_named(query: str, field: str) -> None:
    with pytest.raises(SetupRefused, match=f"The field {field} .*query"):
        Claims.from_query(query, known_os=("Android",))


@pytest.mark.parametrize("query", ["app=%FF", "&".join(f"{n}=1" for n in range(MAX_FIELDS + 1))])
def test_a_query_that_cannot_be_read_is_refused(query: str) -> None:
    with pytest.raises(SetupRefused, match="The query"):
        Claims.from_query(query, required=False)


def test_old_sdks_say_less_and_blank_numbers_say_nothing() -> None:
    claims = Claims.from_query("os=iOS&device=iPhone&device_id=unknown&app=Old&sdk_version=&unknown=1&identity=1")
    assert (claims.sdk_version, claims.medium, claims.csr, claims.identity) == (0, None, "", False)


@given(st.text(max_size=60))
def test_any_query_gives_claims_or_a_refusal(query: str) -> None:
    with contextlib.suppress(SetupRefused):
        Claims.from_query(query)
