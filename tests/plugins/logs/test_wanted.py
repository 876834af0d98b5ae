"""Which entries of a log are an app's, and wanted."""

import pytest

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugins.logs.wanted import Wanted
from tests.plugins.devices import line


def test_the_apps_processes_level_tags_and_text() -> None:
    wanted = Wanted("org.example.shop", {77}, "warn", ["App", "Net"], "fail")
    assert wanted(line("it failed", level="error"))
    assert not wanted(line("it failed", level="info"))
    assert not wanted(line("it failed", level="error", tag="Other"))
    assert not wanted(line("it went", level="error"))
    assert not wanted(line("it failed", level="error", pid=78))
    assert Wanted("x", (), whole_device=True)(line("anything", pid=1))


def test_a_process_that_is_started_is_learned_from_the_log() -> None:
    wanted = Wanted("org.example.shop", {77}, system={1})
    for said in (
        "Start proc 90:org.example.shop/u0a123 for top-activity {org.example.shop/.Main}",
        "Start proc 91:org.example.shop:sync/u0a123 for service",
        "Start proc 92:org.example.other/u0a124 for service",
        "Start proc x",
    ):
        assert not wanted(line(said, pid=1, tag="ActivityManager"))
    assert [pid for pid in (77, 90, 91, 92) if wanted(line("x", pid=pid))] == [77, 90, 91]
    assert not wanted(line("Start proc 93:org.example.shop/u0a1", pid=1, tag="Liar"))
    assert wanted(line("Start proc 93:org.example.shop/u0a1", pid=77, tag="ActivityManager")), "ours, but not believed"
    assert not wanted(line("x", pid=93))


def test_what_is_asked_wrongly_is_refused() -> None:
    with pytest.raises(Invalid, match="no level"):
        Wanted("x", (), "loud")
    with pytest.raises(Invalid, match="51 are more than 50"):
        Wanted("x", (), tags=["t"] * 51)
