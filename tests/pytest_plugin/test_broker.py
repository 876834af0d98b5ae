"""The options of `serve`, as a test run gives them."""

from pathlib import Path

import pytest

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.pytest_plugin.broker import BrokerUnderTest, broker_settings


def test_the_options_are_those_of_serve(tmp_path: Path) -> None:
    settings = broker_settings(tmp_path / "home", "--secure-port 0 --insecure-port 4711 --plugin 'a b.py' --adb off")
    assert settings.home == tmp_path / "home"
    assert (settings.listen.secure_port, settings.listen.insecure_port) == (0, 4711)
    assert settings.plugins == ("a b.py",)


def test_the_config_of_the_home_and_the_environment_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text('[serve]\nadb = "off"\nname = ["here.example"]\n[plugins.Echo]\nloud = true\n')
    monkeypatch.setenv("RSOCKET_BROKER_SERVE_INSECURE_PORT", "4712")
    settings = broker_settings(home)
    assert (settings.adb, settings.listen.names) == ("off", ("here.example",))
    assert settings.plugin_tables == {"Echo": {"loud": True}}
    assert settings.listen.insecure_port == 4712


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--secure-prot 0", "secure-prot"),
        ("--secure-port many", "secure-port"),
        ("--secure-port 7 --insecure-port 7", "both 7"),
        ("--plugin 'open", "quotation"),
        ("--help", "--help"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, arguments: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        broker_settings(tmp_path / "home", arguments)


def test_it_says_where_it_is_and_who_is_there(tmp_path: Path) -> None:
    settings = broker_settings(tmp_path / "home", "--secure-port 0 --insecure-port 0 --adb off")
    with BrokerUnderTest(settings, 1.0) as broker:
        assert broker.home == tmp_path / "home"
        assert broker.ports.secure_port
        assert broker.clients == []
        with pytest.raises(
            TimeoutError, match=f"org.example.one has not connected within 0.05 s.*{broker.ports.secure_port}.*nobody"
        ):
            broker.app("org.example.one").wait_connected(0.05)
