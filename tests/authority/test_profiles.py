import tomllib
from datetime import timedelta
from pathlib import Path

import pytest

from rsocket_broker.authority import profiles
from rsocket_broker.errors import ConfigurationError

TABLE: dict[str, object] = tomllib.loads(
    """
    subject = "x"
    names = "hosts"
    key = "p-256"
    validity_days = 3
    backdate_hours = 1
    ca = false
    key_usage = ["digital_signature"]
    extended_key_usage = ["server_auth"]
    """
)


def test_the_bundled_profiles_say_what_the_design_says() -> None:
    root, broker, client, operator = map(profiles.load_profile, ("root", "broker", "client", "operator"))
    assert root.ca
    assert root.key_usage == {"key_cert_sign", "crl_sign"}
    assert root.validity > timedelta(days=365 * 5)
    assert root.key == broker.key == "rsa-2048"
    assert client.validity == timedelta(days=30)
    assert client.key is None
    for profile in (client, operator):
        assert profile.extended_key_usage == ("client_auth",)
        assert profile.names is profiles.Names.IDENTITY
    assert broker.extended_key_usage == ("server_auth",)
    assert not any(profile.ca for profile in (broker, client, operator))
    assert all(timedelta() < profile.backdate <= timedelta(days=1) for profile in (root, broker, client, operator))


def test_every_file_is_a_profile_and_no_key_lies_there() -> None:
    folder = Path(__file__).parents[2] / "certs"
    assert {profiles.load_profile(path.stem).name for path in folder.glob("profiles/*.toml")} == {
        "root",
        "broker",
        "client",
        "operator",
    }
    for path in folder.rglob("*"):
        assert not path.is_file() or b"-----BEGIN" not in path.read_bytes()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"valid": 3}, "no key 'valid'"),
        ({"subject": ""}, "subject must be"),
        ({"names": "dns"}, "names"),
        ({"key": "rsa-1024"}, "key must be one of"),
        ({"validity_days": 0}, "validity_days must be a whole number"),
        ({"validity_days": True}, "validity_days"),
        ({"validity_days": "3"}, "validity_days"),
        ({"backdate_hours": 1000}, "backdate_hours"),
        ({"ca": "no"}, "ca must be true or false"),
        ({"key_usage": "digital_signature"}, "key_usage must be a list"),
        ({"key_usage": ["sign"]}, "key_usage"),
        ({"extended_key_usage": ["code_signing"]}, "extended_key_usage"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Profile it: .*{why}"):
        profiles.parse_profile("it", TABLE | change)


def test_only_the_key_may_be_left_out() -> None:
    assert profiles.parse_profile("it", TABLE).key == "p-256"
    for name in TABLE:
        rest = {key: value for key, value in TABLE.items() if key != name}
        if name == "key":
            assert profiles.parse_profile("it", rest).key is None
        else:
            with pytest.raises(ConfigurationError, match=f"'{name}' is missing"):
                profiles.parse_profile("it", rest)


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no certificate profile 'nobody'"):
        profiles.load_profile("nobody")
