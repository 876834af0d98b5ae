"""The benchmarks, at a size that says nothing of speed: every measure runs, and none can be won by work not done."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks look at servers through /proc")

FOLDER = Path(__file__).parent.parent / "benchmarks"
ALL_RUN_WITHIN = 150

REFERENCES = {
    "JSON call, window 64": {"node", "rsocket-py", "floor"},
    "JSON call, window 512": {"node", "rsocket-py", "floor"},
    "JSON call, 16 sessions": {"node", "rsocket-py", "floor"},
    "JSON call, window 1": {"node", "rsocket-py", "floor"},
    "JSON call in Flipper's words": {"node", "rsocket-py"},
    "routed call, 64 opaque bytes": {"node", "rsocket-py", "floor"},
    "routed call, 16 KiB": {"node", "rsocket-py", "floor"},
    "app events": {"node", "rsocket-py"},
    "request-stream, 64 opaque bytes": {"node", "rsocket-py"},
    "request-stream, JSON": {"node", "rsocket-py"},
    "the broker calls the app": {"node", "rsocket-py"},
    "relay of calls, 64 bytes": {"node", "floor"},
    "relay of calls, 16 KiB": {"node", "floor"},
    "new sessions, 1 at a time, tickets off": {"node", "floor"},
    "new sessions, 4 at a time, tickets off": {"node", "floor"},
    "new sessions, 1 at a time, tickets on": {"node", "floor"},
    "new sessions, 4 at a time, tickets on": {"node", "floor"},
    "memory of 1,000 idle sessions": {"node", "floor"},
    "enrolments, file system, 1 at a time": {"signing loop", "openssl tool"},
    "enrolments, file system, 4 at a time": {"signing loop", "openssl tool"},
    "enrolments, file system, 32 at a time": {"signing loop", "openssl tool"},
    "a session at 1,000 calls/s, alone": {"node", "floor"},
    "a session at 1,000 calls/s while 20 others connect": {"node", "floor"},
    "a session at 1,000 calls/s while 5 stream flat out": {"node"},
    "rotation, new anchors over live sessions": {"files alone"},
    "rotation, new certificates over live sessions": {"signing loop"},
    "a bystander at 1,000 calls/s, alone": set(),
    "a bystander while messages of 60 MB come": set(),
    "a bystander while one app sends 10,000 events/s": set(),
    "a bystander while a plugin leaks, hangs and fails": set(),
    "one revocation while": set(),
    "revocation of 1,000 sessions": set(),
    "policy decision, 1 rule": {"plain scan"},
    "policy decision, 100 rules": {"plain scan"},
    "policy decision, 1,000 rules": {"plain scan"},
    "start to ready, cold home": {"bare Python"},
    "start to ready, warm home": {"bare Python"},
}
"""What is measured (the beginnings of the names), and whom the broker is compared with in each."""


def run(*options: str) -> tuple[int, str]:
    """The command with all its contestants, none of which outlives it: exit code and output."""
    command = [sys.executable, str(FOLDER / "run.py"), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=ALL_RUN_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output


@pytest.mark.timeout(ALL_RUN_WITHIN + 20)
def test_every_measure_runs_against_its_references_and_every_answer_is_right(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    code, output = run("--tiny", "--out", str(out))
    assert code == 0, output[-5000:]
    measures = json.loads(out.read_text())["measures"]
    missing = set().union(*REFERENCES.values()) - {name for one in measures for name in one["figures"]}
    for name, references in REFERENCES.items():
        (found,) = [one for one in measures if one["name"].startswith(name)]
        assert {"broker", *references} - missing == set(found["figures"]) | ({"broker"} if missing else set()), name
        assert all(value >= 0 for figures in found["figures"].values() for value in figures.values()), name
        assert len(found["reaches"]) or "alone" in name or "1 at a time" in name or missing, name
        assert name[:20] in output
    assert len(measures) == len(REFERENCES)
    for tool, names in (("node", {"node"}), ("openssl", {"openssl tool"})):
        if missing & names:
            assert shutil.which(tool) is None or "packages" in output, output[:2000]
            pytest.skip(f"needs {tool}: without it the broker was compared with the other references only")
    assert not missing


# --- the generator is not deceived -----------------------------------------------------------------------------------


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of the benchmarks, which are no package: scripts that import each other."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("wire", "servers", "helpers", "measures", "load", "flows", "sessions", "prober")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = ModuleType("benchmarks")
    for name in names:
        setattr(found, name, __import__(name))
    yield found
    for name in names:
        sys.modules.pop(name, None)


class Wire(asyncio.Transport):
    """What a generator has sent, and nobody at the other end."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()

    def write(self, data: Any) -> None:
        self.sent += data


def begun(line: Any, modules: Any) -> Any:
    """A line that has been greeted and has begun."""
    line.connection_made(Wire())
    line.data_received(modules.wire.GREETING_ANSWER)
    assert line.ready.done()
    line.begin()
    return line


def failure(line: Any) -> str:
    assert line.done.done()
    error = line.done.exception()
    return "" if error is None else str(error)


async def caller(modules: Any, total: int = 4) -> Any:
    batch = modules.load.Batch(modules.load.JSON_CALL, total)
    return begun(modules.load.Caller(batch, window=2), modules)


def answers(line: Any, modules: Any, *numbers: int) -> list[bytes]:
    wire, call = modules.wire, modules.load.JSON_CALL
    return [wire.frame(2 * n + 3, wire.PAYLOAD, call.answer(n), wire.NEXT | wire.COMPLETE) for n in numbers]


async def test_right_answers_end_a_batch_in_any_cut(modules: Any) -> None:
    for size in (1, 7, 36):
        line = await caller(modules)
        text = b"".join(answers(line, modules, 0, 1, 2, 3))
        for at in range(0, len(text), size):
            line.data_received(text[at : at + size])
        assert failure(line) == ""
        frames = modules.wire.cut(line.transport.sent)
        assert [modules.wire.HEADER.unpack_from(one)[0] for one in frames] == [0, 1, 3, 5, 7, 9]


async def test_no_more_calls_are_under_way_than_the_window(modules: Any) -> None:
    line = await caller(modules)
    assert line.sent == 2
    line.data_received(answers(line, modules, 0)[0])
    assert line.sent == 3


async def test_answers_may_come_in_another_order(modules: Any) -> None:
    line = await caller(modules)
    for one in answers(line, modules, 1, 0, 2, 3):
        line.data_received(one)
    assert failure(line) == ""


async def test_an_answer_left_out_is_waited_for(modules: Any) -> None:
    line = await caller(modules)
    for one in answers(line, modules, 1, 2, 3):
        line.data_received(one)
    assert not line.done.done()


async def test_a_wrong_answer_fails_the_round(modules: Any) -> None:
    line = await caller(modules)
    right = answers(line, modules, 0)[0]
    line.data_received(right.replace(b"2", b"3"))
    assert "wrong answer on stream 3" in failure(line)


async def test_an_answer_given_twice_fails_the_round(modules: Any) -> None:
    line = await caller(modules)
    for one in answers(line, modules, 0, 0):
        line.data_received(one)
    assert "wrong answer on stream 3" in failure(line)


async def test_an_answer_to_what_was_not_asked_yet_fails_the_round(modules: Any) -> None:
    line = await caller(modules)
    line.data_received(answers(line, modules, 3)[0])
    assert "wrong answer on stream 9" in failure(line)


async def test_an_error_fails_the_round(modules: Any) -> None:
    line = await caller(modules)
    line.data_received(modules.wire.frame(3, modules.wire.ERROR, b"\0\0\2\1no"))
    assert "with an error" in failure(line)


async def test_a_session_that_is_ended_fails_the_misuse_of_a_plugin(modules: Any) -> None:
    """What a plugin did not answer is counted there, and the end of the session is none of that."""
    line, wire = begun(modules.prober.Misuser(), modules), modules.wire
    line.data_received(wire.frame(5, wire.ERROR, b"\0\0\2\1no"))
    assert line.refused == 1 and not line.done.done()
    line.data_received(wire.frame(0, wire.ERROR, b"\0\0\1\2replaced"))
    assert line.refused == 1 and "replaced" in failure(line)


async def consumer(modules: Any, count: int = 8, credit: int = 4) -> tuple[Any, bytes, bytes]:
    """A consumer, an item, and the end."""
    items = modules.flows.ITEMS[0]
    line = begun(modules.flows.Consumer(items, count, credit), modules)
    wire = modules.wire
    return line, wire.frame(3, wire.PAYLOAD, items.item, wire.NEXT), wire.frame(3, wire.PAYLOAD, b"", wire.COMPLETE)


async def test_a_stream_is_drawn_to_its_end(modules: Any) -> None:
    line, item, end = await consumer(modules)
    for _ in range(8):
        line.data_received(item)
    line.data_received(end)
    assert failure(line) == ""


async def test_a_stream_that_ends_early_fails_the_round(modules: Any) -> None:
    line, item, end = await consumer(modules)
    line.data_received(item + end)
    assert "ends after 1 items" in failure(line)


async def test_items_beyond_the_credit_fail_the_round(modules: Any) -> None:
    line, item, _ = await consumer(modules)
    line.data_received(item * 5)
    assert "4 were asked for" in failure(line)


async def test_a_wrong_item_fails_the_round(modules: Any) -> None:
    line, item, _ = await consumer(modules)
    line.data_received(item.replace(b"x", b"y"))
    assert "wrong item 0" in failure(line)


# --- the judge -------------------------------------------------------------------------------------------------------


def test_a_reach_is_met_by_rate_and_by_cpu(modules: Any) -> None:
    reach = modules.measures.Outdo(2, "node")
    found = {"broker": {"rate": 30, "cpu": 1}, "node": {"rate": 10, "cpu": 2}}
    assert reach.judge(found).met
    found["broker"]["cpu"] = 1.5
    assert not reach.judge(found).met
    assert "met by rate only" in reach.judge(found).text
    assert reach.judge({"broker": found["broker"]}) is None


def test_a_limit_is_a_number_or_a_share_of_another(modules: Any) -> None:
    found = {"broker": {"p50": 1.0}, "node": {"p50": 0.9}}
    assert modules.measures.Limit("p50", 1.2, against="node").judge(found).met
    assert not modules.measures.Limit("p50", 1.1, against="node").judge(found).met
    assert not modules.measures.Limit("p50", 0.9, "ms").judge(found).met


def test_the_cpu_of_a_server_is_what_proc_says(modules: Any) -> None:
    """The clock in nanoseconds and the ticks of /proc are the same count."""
    busy = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        meter = modules.servers.CpuMeter(process.pid)
        before = meter._before
        assert process.stdout is not None
        process.stdout.readline()
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = (int(fields[11]) + int(fields[12])) / 100
        assert meter.seconds() + before == pytest.approx(ticks, abs=0.03)
        process.communicate(b"")
