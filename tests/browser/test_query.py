"""What a browser or Node app says of itself."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.browser.query import browser_claims
from rsocket_broker.claims import MAX_TEXT, Claims
from rsocket_broker.errors import SetupRefused

AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"


def js_flipper_query(device_id: str, device: str, app: str, os: str) -> str:
    """As js-flipper writes it: `encodeURI` of the whole address, which leaves ; , / ? : @ & = + $ # as they are."""
    return quote(f"device_id={device}{device_id}&device={device}&app={app}&os={os}", safe=";,/?:@&=+$#-_.!~*'()")


@pytest.mark.row("F-25")
def test_js_flipper_says_four_things_and_the_rest_is_known() -> None:
    assert browser_claims(js_flipper_query("17.25", AGENT, "My cool app", "Browser")) == Claims(
        os="Browser", device=AGENT, device_id=f"{AGENT}17.25", app="My cool app", sdk_version=4, medium=3
    )


@pytest.mark.row("F-25")
def test_what_older_apps_leave_out_is_what_flipper_takes_for_it() -> None:
    assert browser_claims("deviceId=d1&device=My+page") == Claims(
        os="MacOS", device="My page", device_id="d1", app="My page", sdk_version=4, medium=3
    )
    assert browser_claims("device=x&os=&app=&device_id=&sdk_version=") == Claims(
        os="MacOS", device="x", app="x", sdk_version=4, medium=3
    )


def test_what_is_said_counts_but_for_the_medium_and_a_certificate() -> None:
    claims = browser_claims("device=x&app=y&app_id=com.y&os=Linux&sdk_version=2&medium=1&csr=%00&csr_path=/etc&z=1")
    assert claims == Claims(os="Linux", device="x", app="y", app_id="com.y", sdk_version=2, medium=3)


@pytest.mark.row("F-25", "F-26")
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "device"),
        ("app=x", "device"),
        ("device=&app=x", "device"),
        ("device=x&sdk_version=new", "sdk_version"),
        ("device=x&sdk_version=-1", "sdk_version"),
        ("device=x&device=y", "device"),
        (f"device={'x' * (MAX_TEXT + 1)}", "device"),
        (f"device=x&app={'x' * (MAX_TEXT + 1)}", "app"),
        ("device=%ff", "UTF-8"),
        ("&".join(f"a{number}=1" for number in range(100)), "fields"),
    ],
)
def test_what_is_missing_or_wrong_is_refused_by_its_name(query: str, field: str) -> None:
    with pytest.raises(SetupRefused, match=field):
        browser_claims(query)


@given(st.text(max_size=60) | st.text(max_size=20).map("device=x&{}".format))
def test_any_query_is_read_or_refused(query: str) -> None:
    try:
        claims = browser_claims(query)
    except SetupRefused:
        return
    assert claims.medium == 3
    assert claims.os
    assert claims.app
    assert claims.device
    assert not claims.csr
