"""Flipper's own variables: what they say, and what is stronger."""

from pathlib import Path

import pytest

from rsocket_broker.cli.context import Context
from rsocket_broker.cli.flipper_ports import flipper_ports
from rsocket_broker.cli.serve import serve, settings_of, use_flipper_ports


def test_each_variable_sets_its_ports_and_what_devices_dial() -> None:
    found, problems = flipper_ports(
        {"FLIPPER_PORTS": "1111,2222", "FLIPPER_ALT_PORTS": " 3333 ,4444", "FLIPPER_BROWSER_PORT": "5555", "PATH": "/"}
    )
    assert found == {
        "insecure_port": 1111,
        "secure_port": 2222,
        "device_ports": "1111,2222",
        "ws_insecure_port": 3333,
        "ws_secure_port": 4444,
        "device_web_ports": "3333,4444",
        "browser_port": 5555,
    }
    assert problems == []
    assert flipper_ports({}) == ({}, [])


@pytest.mark.parametrize("text", ["", "1111", "1,2,3", "1111,", "a,b", "0,1", "1,65536", "-1,2", "1;2", "²,³", "7,7"])
def test_a_malformed_pair_is_named_and_ignored(text: str) -> None:
    found, problems = flipper_ports({"FLIPPER_ALT_PORTS": text})
    assert found == {}
    assert len(problems) == 1
    assert problems[0].startswith("FLIPPER_ALT_PORTS is ignored")


def test_a_malformed_browser_port_is_named_and_ignored() -> None:
    found, (problem,) = flipper_ports({"FLIPPER_BROWSER_PORT": "8333,1"})
    assert found == {}
    assert problem.startswith("FLIPPER_BROWSER_PORT is ignored")


def test_what_is_set_for_this_broker_is_stronger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIPPER_PORTS", "1111,2222")
    monkeypatch.setenv("FLIPPER_ALT_PORTS", "3333,4444")
    with serve.make_context("serve", ["--secure-port", "7"], obj=Context(tmp_path)) as context:
        options = {name: value for name, value in context.params.items() if not name.startswith("log_")}
        assert use_flipper_ports(context, options) == []
        settings = settings_of(Context(tmp_path), options)
    assert (settings.listen.insecure_port, settings.listen.secure_port) == (1111, 7)
    assert (settings.listen.ws_insecure_port, settings.listen.ws_secure_port) == (3333, 4444)
    assert (settings.device_ports, settings.device_web_ports) == ((1111, 2222), (3333, 4444))


@pytest.mark.parametrize(
    ("arguments", "variable", "port"),
    [
        ([], "5555", None),
        (["--browser-port"], None, 8333),
        (["--browser-port"], "5555", 5555),
        (["--browser-port", "on"], "5555", 5555),
        (["--browser-port", "on"], "x", 8333),
        (["--browser-port", "6666"], "5555", 6666),
        (["--browser-port", "off"], "5555", None),
        (["--browser-port", "0"], "5555", 0),
    ],
)
def test_a_variable_moves_the_browser_port_and_opens_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], variable: str | None, port: int | None
) -> None:
    if variable is not None:
        monkeypatch.setenv("FLIPPER_BROWSER_PORT", variable)
    with serve.make_context("serve", arguments, obj=Context(tmp_path)) as context:
        options = {name: value for name, value in context.params.items() if not name.startswith("log_")}
        assert len(use_flipper_ports(context, options)) == (variable == "x")
        assert settings_of(Context(tmp_path), options).listen.browser_port == port


@pytest.mark.parametrize(("listed", "found"), [("Dev.Example.org", "dev.example.org"), ("::1", "[::1]")])
def test_listed_hosts_are_kept_in_the_form_in_which_they_are_compared(tmp_path: Path, listed: str, found: str) -> None:
    with serve.make_context("serve", ["--browser-origin", listed], obj=Context(tmp_path)) as context:
        options = {name: value for name, value in context.params.items() if not name.startswith("log_")}
        assert settings_of(Context(tmp_path), options).listen.browser_origins == (found,)
