import logging

import pytest

from rsocket_broker.quiet_log import BURST, MAX_KINDS, WINDOW, QuietLog


def test_what_strangers_cause_is_written_a_few_times_and_then_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    log = QuietLog(logging.getLogger("quiet"), lambda: now)
    for number in range(BURST + 20):
        log.write(logging.INFO, "knocks", "knock %d", number)
    log.write(logging.WARNING, "other", "something else")
    assert [record.getMessage() for record in caplog.records] == [
        *(f"knock {number}" for number in range(BURST)),
        "something else",
    ]

    caplog.clear()
    now = WINDOW
    log.write(logging.INFO, "knocks", "knock again")
    assert [record.getMessage() for record in caplog.records] == [
        "20 more lines like the last about knocks were left out",
        "knock again",
    ]


def test_a_cause_is_shown_with_its_line(caplog: pytest.LogCaptureFixture) -> None:
    QuietLog(logging.getLogger("quiet")).write(logging.ERROR, "defects", "it broke", error=RuntimeError("a defect"))
    assert "RuntimeError: a defect" in caplog.text


def test_a_quiet_window_leaves_no_note(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    log = QuietLog(logging.getLogger("quiet"), lambda: now)
    log.write(logging.INFO, "knocks", "first")
    now = WINDOW
    log.write(logging.INFO, "knocks", "second")
    assert [record.getMessage() for record in caplog.records] == ["first", "second"]


def test_kinds_made_up_by_a_peer_share_one_burst_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = QuietLog(logging.getLogger("quiet"), lambda: 0.0)
    for number in range(MAX_KINDS * 4):
        log.write(logging.INFO, str(number), "x")
    assert len(caplog.messages) == MAX_KINDS + BURST
