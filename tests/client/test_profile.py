"""What an app claims about itself on the two ports."""

import json

import pytest

from rsocket_broker.claims import Claims
from rsocket_broker.client.profile import AppProfile, os_name
from rsocket_broker.errors import ConfigurationError

PROFILE = AppProfile(app_id="org.example.demo", app="Demo ✓", device="desk", os="Linux")


@pytest.mark.row("F-25")
def test_the_plain_claims_are_what_the_endpoint_wants() -> None:
    claims = Claims.parse(PROFILE.plain_claims(), required=True)
    assert (claims.os, claims.device, claims.app, claims.app_id) == ("Linux", "desk", "Demo ✓", "org.example.demo")
    assert (claims.device_id, claims.sdk_version, claims.medium) == ("unknown", 4, 1)


def test_the_secure_claims_add_device_and_request() -> None:
    claims = Claims.parse(PROFILE.secure_claims("d1", "PEM", "/apps/demo/"), required=False)
    assert (claims.device_id, claims.csr, claims.csr_path) == ("d1", "PEM", "/apps/demo/")
    assert claims.is_flipper
    assert claims.identity
    plain = Claims.parse(PROFILE.secure_claims("d1", "PEM", "/apps/demo/", renews=False), required=False)
    assert not plain.identity


def test_nothing_secret_is_claimed() -> None:
    assert set(json.loads(PROFILE.plain_claims())) == {
        "os", "device", "device_id", "app", "app_id", "sdk_version", "medium",
    }  # fmt: skip


def test_an_app_without_a_name_is_called_by_its_id() -> None:
    nameless = AppProfile(app_id="org.example.demo", app="", device="")
    fields = json.loads(nameless.plain_claims())
    assert fields["app"] == "org.example.demo"
    assert fields["device"]


@pytest.mark.parametrize(
    ("platform", "name"),
    [("linux", "Linux"), ("darwin", "MacOS"), ("win32", "Windows"), ("freebsd14", "Linux")],
)
def test_the_platform_has_its_name_on_the_wire(platform: str, name: str) -> None:
    assert os_name(platform) == name


@pytest.mark.parametrize("app_id", ["", "-x", ".x", "a b", "a/b", "a" * 256, "é", "a\n"])
def test_an_app_id_that_no_certificate_could_carry_is_refused(app_id: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an app id"):
        AppProfile(app_id=app_id, app="Demo")
