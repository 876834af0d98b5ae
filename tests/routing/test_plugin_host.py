"""What becomes of a handler's error: words for the caller, a traceback of the plugin's own frames for the log."""

import sys
from types import TracebackType

import pytest

from rsocket_broker.errors import ApplicationError, Canceled, ConnectionClosed, Invalid
from rsocket_broker.plugin_api import App, Plugin, method
from rsocket_broker.plugin_api.testing import fake_identity
from rsocket_broker.quiet_log import WINDOW
from rsocket_broker.routing.plugin_host import PluginHost, own_frames
from rsocket_broker.routing.tasks import Tasks
from tests.routing.line import loaded


class Quiet(Plugin):
    id = "quiet"

    @method("fail")
    def fail(self, app: App) -> None:
        raise KeyError("secret")


class Greeting(Quiet):
    async def on_connect(self, app: App) -> None: ...


def host_of(plugin: Plugin) -> PluginHost:
    return PluginHost(loaded(plugin)[0], Tasks())


def caught() -> BaseException:
    try:
        raise KeyError("secret")
    except KeyError as error:
        return error


async def test_the_log_shows_the_plugins_own_frames(caplog: pytest.LogCaptureFixture) -> None:
    error = host_of(Quiet()).failed("quiet.fail", caught())
    assert (type(error), error.public) == (ApplicationError, "internal error in quiet.fail")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[2], TracebackType)
    assert record.exc_info[2].tb_frame.f_code.co_filename == __file__


async def test_words_for_the_caller_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    refusal = Invalid("no")
    assert host_of(Quiet()).failed("quiet.fail", refusal) is refusal
    assert caplog.records == []


async def test_a_client_that_leaves_in_the_middle_is_no_failure_of_the_plugin(caplog: pytest.LogCaptureFixture) -> None:
    host = host_of(Quiet())
    found = host.failed("quiet.fail", ConnectionClosed("its certificate was revoked"), fake_identity("com.demo", ""))
    assert (type(found), found.public) == (Canceled, "A client that had to be asked for this has left.")
    assert not [record for record in caplog.records if record.levelname != "INFO"]
    assert not host.supervisor.last_error


async def test_a_handler_that_always_fails_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    host = host_of(Quiet())
    for _ in range(100):
        host.failed("quiet.fail", caught())
    assert len(caplog.records) == 10


async def test_a_traceback_is_shown_once_a_minute_for_failures_at_one_place(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    host = PluginHost(loaded(Quiet())[0], Tasks(), clock=lambda: now)
    other = ValueError("secret")
    for what, error in (("quiet.fail", caught()), ("quiet.fail", caught()), ("quiet.fail", other)):
        host.failed(what, error)
    now += WINDOW / 2
    host.failed("quiet.fail", other)
    now += WINDOW
    host.failed("quiet.fail", other)
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, True, False, True]
    assert caplog.messages[1] == "quiet.fail failed once more, as before: KeyError"
    assert "secret" not in " ".join(caplog.messages)


def test_a_traceback_without_frames_of_a_plugin_is_shown_whole() -> None:
    assert own_frames(None) is None
    try:
        loaded(5)  # type: ignore[arg-type]
    except Exception:
        traceback = sys.exc_info()[2]
    assert own_frames(traceback) is traceback


async def test_only_a_plugin_that_wants_to_greet_is_asked_to() -> None:
    assert [host_of(plugin).greets() for plugin in (Quiet(), Greeting())] == [False, True]
    host = host_of(Quiet())
    host.lost(3)
    assert host.events_dropped == 3
