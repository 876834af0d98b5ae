"""What a crash is, whoever tells of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugins.crash_reporter.crashes import MAX_STACK, Joiner, from_app, from_sdk
from tests.plugins.devices import line

STACK = "org.example.Cart.total(Cart.java:10)\n\tat org.example.Cart.show(Cart.java:20)"
LOGGED = [
    "FATAL EXCEPTION: main",
    "Process: org.example.shop, PID: 77",
    "java.lang.IllegalStateException: boom",
    "\tat org.example.Cart.total(Cart.java:10)",
    "\tat org.example.Cart.show(Cart.java:20)",
    "Caused by: java.io.IOException: no line",
    "\t... 3 more",
]
NATIVE = [
    "*** *** *** *** *** ***",
    "pid: 77, tid: 80, name: main  >>> org.example.shop <<<",
    "signal 11 (SIGSEGV), code 1 (SEGV_MAPERR), fault addr 0x0",
    "      #00 pc 0000000000012345  /data/app/lib/libcart.so (total+12)",
    "      #01 pc 0000000000012399  /data/app/lib/libcart.so (show+40)",
]


def told(lines: list[str], tag: str = "AndroidRuntime", level: str = "error") -> Joiner:
    joiner = Joiner()
    for number, text in enumerate(lines):
        assert joiner.take(line(text, time=1000.0 + number / 100, tag=tag, level=level)) is None
    return joiner


def test_an_app_tells_of_its_crash_with_or_without_a_reason() -> None:
    params = {"name": "java.lang.IllegalStateException: boom", "reason": "boom", "callstack": STACK}
    crash = from_app(params, 5.0)
    assert (crash.name, crash.reason, crash.callstack, crash.time, crash.source) == (*params.values(), 5.0, "app")
    assert from_app({"name": "x", "date": 1718000000000}, 5.0).time == 1718000000000
    assert from_app({}, 5.0).name == "The app gives no name."


@pytest.mark.row("M-7")
def test_what_is_no_crash_report_is_refused_and_what_is_too_long_is_cut() -> None:
    for params in ({"name": ["x"]}, {"callstack": {}}, {"date": "soon"}):
        with pytest.raises(Invalid):
            from_app(params, 5.0)
    assert len(from_app({"callstack": "x" * 1_000_000}, 0.0).callstack) == MAX_STACK
    assert len(from_sdk("x" * 5000, "y" * 1_000_000, 0.0).callstack) == MAX_STACK


def test_entries_within_50_ms_are_one_crash() -> None:
    joiner = told(LOGGED)
    crash = joiner.take(line("FATAL EXCEPTION: main", time=1001.0, tag="AndroidRuntime", level="error"))
    assert crash is not None
    assert (crash.name, crash.reason) == ("FATAL EXCEPTION: main", "Caused by: java.io.IOException: no line")
    assert (crash.process, crash.pid, crash.time, crash.source) == ("org.example.shop", 77, 1000_000.0, "logcat")
    assert crash.callstack == "\n".join(LOGGED)
    second = joiner.flush()
    assert second is not None
    assert second.time == 1001_000.0
    assert joiner.flush() is None


def test_other_entries_do_not_come_between() -> None:
    joiner = Joiner()
    joiner.take(line("one", level="fatal"))
    assert joiner.take(line("noise", level="error", tag="Other")) is None
    joiner.take(line("two", level="fatal", time=1000.04))
    crash = joiner.flush()
    assert crash is not None
    assert crash.callstack == "one\ntwo"


def test_the_same_crash_has_the_same_signature_whoever_tells_of_it() -> None:
    by_app = from_app({"name": "java.lang.IllegalStateException: boom", "callstack": STACK}, 0.0)
    by_log, native = told(LOGGED).flush(), told(NATIVE, "DEBUG", "fatal").flush()
    assert by_log is not None
    assert native is not None
    assert by_app.signature == by_log.signature
    assert native.process == "org.example.shop"
    other = from_app({"name": "java.lang.IllegalStateException: boom", "callstack": STACK.replace("total", "sum")}, 0.0)
    assert len({by_app.signature, native.signature, other.signature}) == 3
    moved = [text.replace("12345", "99999") for text in NATIVE]
    again = told(moved, "DEBUG", "fatal").flush()
    assert again is not None
    assert again.signature == native.signature
    assert from_sdk("code 17 at 3", "", 0.0).signature == from_sdk("code 18 at 4", "", 0.0).signature


@pytest.mark.row("M-7")
@given(st.lists(st.text(max_size=300), max_size=30))
def test_no_text_makes_it_fail(lines: list[str]) -> None:
    joiner = Joiner()
    for text in lines:
        joiner.take(line(text, level="fatal"))
    crash = joiner.flush()
    if crash is not None:
        assert len(crash.signature) == 12


@pytest.mark.row("M-7")
def test_a_crash_without_an_end_is_cut() -> None:
    joiner = Joiner()
    for _ in range(1000):
        joiner.take(line("x" * 1000, level="fatal"))
    crash = joiner.flush()
    assert crash is not None
    assert len(crash.callstack) <= MAX_STACK


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    "piece", ["\n", " ", "a.", "#1 pc 0 ", "(", "at a(", "x", "\ta", "Exception ", "pid 1 (", ">>> "]
)
def test_a_text_made_to_take_long_does_not(piece: str) -> None:
    whole = (piece * MAX_STACK)[:MAX_STACK]
    assert from_sdk(whole, whole, 0.0).signature
    joiner = Joiner()
    joiner.take(line(whole, level="fatal"))
    assert joiner.flush() is not None
