"""Crash reports of a Mac."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsocket_broker.plugins.crash_reporter.reports import MAX_FILE, content_of, new_files, read_report

UDID = "0F5A0C6E-1111-2222-3333-444455556666"
PATH = f"/Users/x/Library/Developer/CoreSimulator/Devices/{UDID}/data/Containers/Bundle/Application/A/Shop.app/Shop"
IPS = "\n".join(
    [
        json.dumps({"app_name": "Shop", "bundleID": "com.example.shop", "bug_type": "309"}),
        json.dumps(
            {
                "procPath": PATH,
                "pid": 77,
                "captureTime": "2024-06-10 08:00:00.2500 +0200",
                "exception": {"type": "EXC_BREAKPOINT", "signal": "SIGTRAP"},
                "termination": {"indicator": "Trace/BPT trap: 5"},
                "asi": {"libswiftCore.dylib": ["Fatal error: Index out of range"]},
                "faultingThread": 0,
                "threads": [{"frames": [{"imageOffset": 4660, "symbol": "Cart.total()", "imageIndex": 0}]}],
                "usedImages": [{"name": "Shop"}],
            }
        ),
    ]
)
TEXT = f"""Process:               Shop [77]
Path:                  {PATH}
Identifier:            com.example.shop
Date/Time:             2024-06-10 08:00:00.250 +0200
Exception Type:        EXC_CRASH (SIGABRT)
Termination Reason:    Namespace SIGNAL, Code 6

Thread 0 Crashed:
0   Shop  0x1234 Cart.total() + 12
"""


def test_a_report_in_json() -> None:
    report = read_report("Shop.ips", IPS, 0.0)
    assert report is not None
    assert (report.udid, report.bundle) == (UDID, "com.example.shop")
    crash = report.crash
    assert (crash.name, crash.reason) == ("EXC_BREAKPOINT (SIGTRAP)", "Fatal error: Index out of range")
    assert crash.callstack == "#00 pc 1234 Shop (Cart.total())"
    assert (crash.time, crash.pid, crash.source) == (1717999200250.0, 77, "report")


def test_a_report_in_text() -> None:
    report = read_report("Shop.crash", TEXT, 0.0)
    assert report is not None
    assert (report.udid, report.bundle) == (UDID, "com.example.shop")
    assert (report.crash.name, report.crash.reason) == ("EXC_CRASH (SIGABRT)", "Namespace SIGNAL, Code 6")
    assert report.crash.time == 1717999200250.0
    late = read_report("Shop.crash", TEXT.replace("2024-06-10", "someday"), 7.0)
    assert late is not None
    assert late.crash.time == 7.0


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    "content", ["", "{}", "{}\n[]", "{}\n{}", "x", IPS.split("\n")[0], "[" * 50_000, "{}\n" + "[" * 50_000]
)
def test_what_is_no_report_is_passed_over(content: str) -> None:
    assert read_report("a.ips", content, 0.0) is None
    assert read_report("a.crash", content, 0.0) is None


@pytest.mark.row("M-7")
@settings(max_examples=12)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda s: (
            st.lists(s)
            | st.dictionaries(
                st.sampled_from(
                    ["procPath", "exception", "threads", "frames", "usedImages", "asi", "pid", "faultingThread"]
                ),
                s,
            )
        ),
    )
)
def test_no_json_makes_it_fail(body: object) -> None:
    read_report("a.ips", "{}\n" + json.dumps({"procPath": "x", **body} if isinstance(body, dict) else body), 0.0)


def test_new_files_are_found_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.ips").write_text(IPS)
    (tmp_path / "b.crash").symlink_to(tmp_path / "a.ips")
    (tmp_path / "c.txt").write_text("x")
    (tmp_path / "d.ips").mkdir()
    known = new_files(tmp_path, {})
    assert list(known) == ["a.ips"]
    assert new_files(tmp_path, known) == {}
    os.utime(tmp_path / "a.ips", (1, 1))
    assert list(new_files(tmp_path, known)) == ["a.ips"]
    assert new_files(tmp_path / "absent", {}) == {}
    assert content_of(tmp_path / "a.ips") == IPS
    assert content_of(tmp_path / "b.crash") == ""
    assert content_of(tmp_path / "absent") == ""
    os.mkfifo(tmp_path / "e.ips")
    assert content_of(tmp_path / "e.ips") == ""
    with (tmp_path / "f.ips").open("wb") as file:
        file.truncate(MAX_FILE + 1)
    assert content_of(tmp_path / "f.ips") == ""
