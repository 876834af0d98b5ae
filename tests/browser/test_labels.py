"""What a client that has proved nothing is called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.authority.names import check_app_id, check_device_id
from rsocket_broker.browser.labels import app_label, device_label, identity_of
from rsocket_broker.claims import Claims
from rsocket_broker.identity import Proof
from rsocket_broker.policy.patterns import compiled

AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"


def test_names_are_labels_that_rules_and_commands_can_name() -> None:
    assert app_label("com.example.app") == "com.example.app"
    assert app_label("My cool nodejs app") == "My-cool-nodejs-app"
    assert app_label("#1 shop!") == "1-shop"
    assert app_label("-rf") == "rf"
    assert app_label("../..") == app_label("../..")
    assert app_label("日本") != app_label("中国")
    assert app_label("Bücher") != app_label("B cher")


def test_the_id_of_a_browser_is_what_js_flipper_keeps_of_it() -> None:
    assert device_label(f"{AGENT}1700000000000.0.25", AGENT) == "1700000000000.0.25"
    assert device_label("5.10.01700", "5.10.0") == "1700"
    assert device_label("pixel", "pixel") == "pixel"
    assert device_label("", "") == ""
    assert device_label("a\nb", "") != device_label("a?b", "")


@pytest.mark.row("M-9", "F-25")
def test_an_identity_is_made_of_claims_and_says_so() -> None:
    claims = Claims(os="Browser", app="My shop", device=AGENT, device_id=f"{AGENT}17.5")
    found = identity_of(claims)
    assert (found.app_id, found.device_id, found.proof) == ("My-shop", "17.5", Proof.UNVERIFIED)
    assert identity_of(Claims(app="Label", app_id="com.example")).app_id == "com.example"


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_name_makes_a_label_that_differs_where_letters_were_lost(name: str, other: str) -> None:
    label, device = app_label(name), device_label(name, other)
    check_app_id(label)
    check_device_id(device)
    compiled(label)
    if not name.isascii() and not other.isascii() and name != other:
        assert label != app_label(other)


@given(st.text(max_size=300), st.text(max_size=300))
def test_ids_that_differ_stay_apart(one: str, other: str) -> None:
    if one != other:
        assert device_label(one, "") != device_label(other, "")
