from datetime import timedelta
from pathlib import Path

import click
import pytest

from rsocket_broker.cli.context import Context, Duration, PortNumber, UsualPort, configurable, default_home, wanted
from rsocket_broker.errors import ConfigurationError


@click.command()
@click.option("--secure-port", "secure", type=click.IntRange(0, 65535), default=8088)
@click.option("--plugin", "plugins", multiple=True)
@click.option("--adb", default="auto")
@click.option("--wait", type=float)
@click.option("--duplicate", type=click.Choice(["replace", "refuse"]))
@click.option("--json", "as_json", is_flag=True)
@click.option("--http-port", type=PortNumber(), default=PortNumber.OFF)
@click.option("--browser-port", type=UsualPort(), is_flag=False, flag_value=UsualPort.ON, default=UsualPort.OFF)
@click.option("--home", expose_value=False)
@click.argument("name")
def sample(**values: object) -> None:
    """Has an option of every type."""


def context(tmp_path: Path, config: str) -> Context:
    (tmp_path / "config.toml").write_text(config, encoding="utf-8")
    (tmp_path / "config.toml").chmod(0o600)
    return Context(tmp_path)


def test_the_default_home_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_home().is_relative_to(tmp_path)
    assert "rsocket-broker" in default_home().name


def test_config_keys_are_the_long_option_names() -> None:
    ports = {"secure-port", "http-port", "browser-port"}
    assert set(configurable(sample)) == ports | {"plugin", "adb", "wait", "duplicate", "json"}


def test_values_come_under_the_parameter_names(tmp_path: Path) -> None:
    obj = context(tmp_path, '[sample]\nsecure-port = 1\nplugin = ["a", "b"]\njson = true\nwait = 1\n')
    assert obj.defaults(sample, ("sample",)) == {"secure": 1, "plugins": ["a", "b"], "as_json": True, "wait": 1}


@pytest.mark.parametrize(("text", "value"), [("off", "off"), ("0", 0), ("65535", 65535), ("70000", None), ("on", None)])
def test_a_port_is_a_number_or_off(tmp_path: Path, text: str, value: object) -> None:
    if value is None:
        with pytest.raises(click.UsageError, match=f"{text}"):
            PortNumber().convert(text, None, None)
        return
    assert PortNumber().convert(text, None, None) == value
    written = f'"{text}"' if text == "off" else text
    obj = context(tmp_path, f"[sample]\nhttp-port = {written}\n")
    assert obj.defaults(sample, ("sample",)) == {"http_port": value}


@pytest.mark.parametrize(("text", "value"), [("on", "on"), ("off", "off"), ("1", 1), ("yes", None)])
def test_a_port_that_strangers_dial_may_be_the_usual_one(tmp_path: Path, text: str, value: object) -> None:
    obj = context(tmp_path, f'[sample]\nbrowser-port = "{text}"\n')
    if value in ("on", "off"):
        assert UsualPort().convert(text, None, None) == value
        assert obj.defaults(sample, ("sample",)) == {"browser_port": value}
    elif value is not None:
        assert UsualPort().convert(text, None, None) == value
    else:
        with pytest.raises(click.UsageError, match=text):
            UsualPort().convert(text, None, None)
        with pytest.raises(ConfigurationError, match='a whole number, "on" or "off"'):
            obj.defaults(sample, ("sample",))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('secure-port = "x"', '"secure-port" must be a whole number, not a string'),
        ("plugin = [1]", '"plugin" must be a list (a string each), not a list with a whole number (1)'),
        ("wait = true", '"wait" must be a number'),
        ('duplicate = "sometimes"', '"duplicate" must be one of "replace", "refuse"'),
        ('http-port = "on"', '"http-port" must be a whole number or "off", not a string'),
        ("http-port = true", '"http-port" must be a whole number or "off"'),
        ("json = 1", '"json" must be true or false'),
        ('home = "/"', 'unknown key "home"'),
        ("secure_port = 1", 'Did you mean "secure-port"?'),
    ],
)
def test_a_wrong_key_or_type_is_named_with_its_file_and_table(tmp_path: Path, config: str, words: str) -> None:
    obj = context(tmp_path, f"[sample]\n{config}\n")
    with pytest.raises(ConfigurationError) as caught:
        obj.defaults(sample, ("sample",))
    assert words in caught.value.public
    assert caught.value.public.startswith(f"{tmp_path / 'config.toml'} [sample]: ")


def test_another_home_has_another_config(tmp_path: Path) -> None:
    obj = context(tmp_path, "[sample]\nwait = 2\n")
    assert obj.defaults(sample, ("sample",)) == {"wait": 2}
    obj.use_home(tmp_path / "other")
    assert obj.home == tmp_path / "other"
    assert obj.defaults(sample, ("sample",)) == {}


def test_every_option_type_has_a_toml_type() -> None:
    kinds = {key: wanted(option).kind for key, option in configurable(sample).items()}
    assert kinds == {
        "secure-port": int,
        "plugin": list,
        "adb": str,
        "wait": float,
        "duplicate": str,
        "json": bool,
        "http-port": int,
        "browser-port": int,
    }


def test_a_duration_is_a_number_and_a_unit(tmp_path: Path) -> None:
    @click.command()
    @click.option("--for", "duration", type=Duration(), default="1h")
    def wait(duration: timedelta) -> None:
        """Takes its time."""

    assert context(tmp_path, '[wait]\nfor = "10m"\n').defaults(wait, ("wait",)) == {"duration": "10m"}
    with pytest.raises(ConfigurationError, match="must be a string"):
        context(tmp_path, "[wait]\nfor = 10\n").defaults(wait, ("wait",))
    assert wait.make_context("wait", []).params == {"duration": timedelta(hours=1)}
    assert wait.make_context("wait", ["--for", "90s"]).params == {"duration": timedelta(seconds=90)}
    with pytest.raises(click.BadParameter, match="90s, 10m, 1h or 2d"):
        wait.make_context("wait", ["--for", "10"])
