import io
import json
import logging
import time
from collections.abc import Iterator

import pytest

from rsocket_broker.observability.logs import (
    MESSAGE_LIMIT,
    configure,
    spare_what_is_not_shown,
    visible,
    without_secrets,
)

log = logging.getLogger("rsocket_broker.enrollment.endpoint")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    yield io.StringIO()
    root = logging.getLogger()
    for handler in [
        handler for handler in root.handlers if type(handler).__module__ == "rsocket_broker.observability.logs"
    ]:
        root.removeHandler(handler)
    logging.getLogger("rsocket_broker").setLevel(logging.NOTSET)


def test_a_text_line_says_when_how_bad_where_and_what(stream: io.StringIO) -> None:
    configure("text", stream=stream)
    log.warning("refused %s", "com.example", extra={"peer": "127.0.0.1:5", "step": "proof"})
    date, clock, level, rest = stream.getvalue().split(" ", 3)
    assert len(date) == 10
    assert len(clock) == 12
    assert level == "warning"
    assert rest == "enrollment.endpoint: refused com.example peer=127.0.0.1:5 step=proof\n"


def test_a_json_line_is_one_object_with_the_fields_as_keys(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    log.info("signed", extra={"serial": 7, "app": "com.example", "since": None})
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "source": "enrollment.endpoint",
        "message": "signed",
        "serial": 7,
        "app": "com.example",
        "since": None,
    }


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_lines_are_the_same_when_no_record_says_where_it_was_made(
    stream: io.StringIO, log_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing"):
        monkeypatch.setattr(logging, name, getattr(logging, name))  # to be put back
    moment = logging.makeLogRecord({}).created
    monkeypatch.setattr(time, "time", lambda: moment)
    configure(log_format, stream=stream)
    log.warning("refused %s", "com.example", extra={"peer": "127.0.0.1:5"})
    spare_what_is_not_shown()
    log.warning("refused %s", "com.example", extra={"peer": "127.0.0.1:5"})
    before, after = stream.getvalue().splitlines()
    assert before == after


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_peer_cannot_forge_a_line_or_move_the_cursor(stream: io.StringIO, log_format: str) -> None:
    configure(log_format, stream=stream)
    log.info("app says %s", "x\n2026 info forged\r\x1b[2J\u202e\u2028\x9b", extra={"peer": "a\nb\x1b"})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert not set(text) & set("\r\x1b\u202e\u2028\x9b")


def test_a_long_message_is_cut(stream: io.StringIO) -> None:
    configure("text", stream=stream)
    log.info("%s", "x" * 10 * MESSAGE_LIMIT)
    assert len(stream.getvalue()) < MESSAGE_LIMIT + 200


@pytest.mark.row("A-57")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_private_key_never_reaches_the_log(stream: io.StringIO, log_format: str) -> None:
    configure(log_format, stream=stream)
    name = "EC PRIVATE" + " KEY"
    pem = f"-----BEGIN {name}-----\nc2VjcmV0\n-----END {name}-----"
    log.info("bundle %s end", pem, extra={"bundle": pem})
    try:
        raise ValueError(pem)
    except ValueError:
        log.exception("failed")
    assert "c2VjcmV0" not in stream.getvalue()
    assert "[private key]" in stream.getvalue()


def test_half_a_private_key_is_taken_out_too() -> None:
    assert without_secrets("a -----BEGIN PRIVATE" + " KEY-----\nc2Vj") == "a [private key]"


def test_a_traceback_is_kept_for_the_operator(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    try:
        raise KeyError("a\x1bb")
    except KeyError:
        log.exception("handler failed")
    error = json.loads(stream.getvalue())["error"]
    assert "KeyError" in error
    assert "\x1b" not in error


def test_the_level_counts_for_us_and_others_only_warn(stream: io.StringIO) -> None:
    configure("text", "debug", stream)
    log.debug("ours")
    logging.getLogger("asyncio").info("theirs")
    assert "ours" in stream.getvalue()
    assert "theirs" not in stream.getvalue()


def test_a_second_call_replaces_the_first(stream: io.StringIO) -> None:
    configure("text", stream=io.StringIO())
    configure("text", stream=stream)
    log.info("once")
    assert stream.getvalue().count("once") == 1


def test_a_closed_log_stops_nobody(stream: io.StringIO) -> None:
    configure("text", stream=stream)
    stream.close()
    log.info("nobody reads this")


def test_ordinary_text_stays_as_it_is() -> None:
    assert visible("Grüße, 世界 – ok") == "Grüße, 世界 – ok"
