"""The page of metrics: its families, what they count, and that its reference says the same."""

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rsocket_broker.authority.rotation import Phase, Rotation
from rsocket_broker.errors import ApplicationError, Rejected
from rsocket_broker.histogram import Histogram
from rsocket_broker.observability.loop_lag import LoopLag
from rsocket_broker.observability.metrics import FAMILIES, PREFIX, REST, Metrics, Sources, _setups
from rsocket_broker.observability.traffic import TURN, Traffic
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.policy.hook import HookSettings
from rsocket_broker.protocol.metadata import route
from rsocket_broker.routing.hook import Hook
from rsocket_broker.sessions.live import SessionLimits
from rsocket_broker.settings import ListenSettings
from rsocket_broker.transports.listener import Counters
from tests.policy.making import policy
from tests.routing.decider import deciding
from tests.routing.line import Line, until
from tests.test_broker import app, running

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


class Busy(Plugin):
    id = "Busy"
    concurrency = 1

    def __init__(self) -> None:
        self.go = asyncio.Event()

    @method("plain")
    def plain(self, app: App, payload: Payload) -> Payload:
        return payload

    @method("breaks")
    def breaks(self, app: App) -> None:
        raise ZeroDivisionError

    @method("waits")
    async def waits(self, app: App) -> None:
        await self.go.wait()

    @method("stream")
    async def stream(self, app: App) -> AsyncIterator[int]:
        yield 1

    @method("asks")
    async def asks(self, app: App) -> Any:
        return await app.call("answer")

    @event("happened")
    async def happened(self, app: App, params: dict[str, Any]) -> None:
        await self.go.wait()

    @event("noted")
    def noted(self, app: App, params: dict[str, Any]) -> None:
        if params.get("bad"):
            raise ZeroDivisionError


class Listener:
    """As much of a listener as a page looks at."""

    def __init__(self) -> None:
        self.listening = True
        self.counters = Counters(accepted=3, handshakes=2, refused=1, failed=1)
        self.counters.reasons["peer:unknown_ca"] += 1
        self.counters.handshake_seconds.observe(0.02, 2)


def metrics(line: Line, clock: Any = None) -> Metrics:
    traffic = Traffic()
    line.tap = lambda connection: traffic.follow(connection) or connection  # type: ignore[func-returns-value]
    sources = Sources(
        endpoint=line.endpoint,
        listeners={"secure": Listener()},  # type: ignore[dict-item]
        traffic={"secure": traffic},
        enrollment=lambda: ("window", False),
        enrollments={("adb", "proof"): 4},
        enrollment_seconds=Histogram(),
        answer_seconds=Histogram(),
        certificates=lambda soon: [("client", "active", 5, 4, 1), ("client", "revoked", 2, 0, 0)],
        rotation=lambda: Rotation(Phase.PREPARED, 3, datetime(2026, 1, 1, tzinfo=UTC), next=4),
        renewals=lambda: {("session", "done"): 2, ("container", "failed"): 1},
        lag=LoopLag(),
    )
    return Metrics(sources) if clock is None else Metrics(sources, clock)


def read(page: bytes) -> dict[str, float]:
    """Samples by their name with labels."""
    found = {}
    for family in text_string_to_metric_families(page.decode()):
        for name, labels, value, *_ in family.samples:
            shown = ",".join(f"{key}={labels[key]}" for key in sorted(labels))
            found[f"{name.removeprefix(PREFIX)}{{{shown}}}"] = value
    return found


async def now(made: Metrics) -> dict[str, float]:
    made._good_until = float("-inf")
    return read((await made.page())[1])


async def until_seen(made: Metrics, sample: str, value: float) -> None:
    async with asyncio.timeout(5):
        while (await now(made))[sample] != value:
            await asyncio.sleep(0.001)


@pytest.mark.row("A-53")
async def test_sessions_and_calls_are_counted() -> None:
    plugin = Busy()
    async with Line(plugin) as line:
        made = metrics(line)
        client = await line.connect()
        await line.app(["Busy"], certificate=b"com.app|dev1|adb|7", answers={"Busy.answer": {"success": 1}})
        strange = line.attempt(b"forged")
        await strange.connection.wait_closed()
        await client.ask("Busy.plain")
        await client.ask("Busy.plain")
        with pytest.raises(ApplicationError):
            await client.json("Busy.breaks")
        stream = client.connection.request_stream(Payload(b"{}", route("Busy.stream")))
        assert [payload.data async for payload in stream] == [b"1"]
        asked = asyncio.ensure_future(client.json("Busy.waits"))
        await until_seen(made, "handlers_running{plugin=Busy}", 1)
        second = asyncio.ensure_future(client.json("Busy.waits"))
        await until_seen(made, "calls_waiting{plugin=Busy}", 1)
        for _ in range(3):
            client.fire("Busy.happened", b"{}")
        await until_seen(made, "events_waiting{plugin=Busy}", 2)
        seen = await now(made)
        plugin.go.set()
        await asyncio.gather(asked, second)
        await client.json("Busy.asks")
        later = await now(made)
    assert seen["sessions{kind=routed,os=none,transport=tls}"] == 1
    assert seen["sessions{kind=flipper,os=Android,transport=tls}"] == 1
    assert seen["setups_total{result=accepted}"] == 2 == seen["setup_seconds_count{}"]
    assert seen["setups_total{result=rejected_setup}"] == 1
    assert seen["calls_total{plugin=Busy,result=ok}"] == 3
    assert seen["calls_total{plugin=Busy,result=internal}"] == 1
    assert seen["call_seconds_count{plugin=Busy}"] == 0
    assert seen["events_waiting_bytes{plugin=Busy}"] > 4
    assert seen["connections{port=secure}"] == 2
    assert seen["streams_open{port=secure}"] == 2
    assert seen["received_bytes_total{port=secure}"] > 0
    assert later["call_seconds_count{plugin=Busy}"] >= 3
    assert later["app_calls_total{plugin=Busy,result=ok}"] == 1 == later["app_call_seconds_count{plugin=Busy}"]


async def test_events_that_are_handled_at_once_count_as_calls() -> None:
    async with Line(Busy) as line:
        made = metrics(line)
        client = await line.connect()
        for data in (b"{}", b"{}", b"{}", b'{"bad": true}'):
            client.fire("Busy.noted", data)
        await client.settled()
        app = await line.app(["Busy"], certificate=b"com.app|dev1|adb|7")
        app.event("Busy", "noted")
        app.event("Busy", "noted")
        await app.settled()
        seen = await now(made)
    assert seen["calls_total{plugin=Busy,result=ok}"] == 5
    assert seen["calls_total{plugin=Busy,result=internal}"] == 1


async def test_what_others_have_counted_is_passed_on() -> None:
    async with Line(Busy) as line:
        seen = await now(metrics(line))
    assert seen["tls_handshakes_total{port=secure,result=ok}"] == 2
    assert seen["tls_handshakes_total{port=secure,result=peer:unknown_ca}"] == 1
    assert seen["tls_handshakes_total{port=secure,result=failed}"] == 1
    assert seen["tls_handshake_seconds_bucket{le=0.025,port=secure}"] == 2
    assert seen["tls_handshake_seconds_sum{port=secure}"] == pytest.approx(0.04)
    assert seen["enrollments_total{medium=adb,result=proof}"] == 4
    assert seen["certificates{profile=client,status=revoked}"] == 2
    assert seen["certificates_valid{profile=client}"] == 4
    assert seen["certificates_expiring{profile=client}"] == 1
    assert seen["event_loop_lag_seconds_count{}"] == 0
    assert any(name.startswith("build_info{") and "frames=" in name for name in seen)
    assert seen["process_resident_memory_bytes{}"] > 0
    assert seen["process_open_fds{}"] > 0


def test_what_became_of_setups_is_told_as_it_was_counted() -> None:
    counts = {"accepted": 2, "gone": 3, "resumed": 1, "rejected_setup": 4}
    assert {sample.labels[0]: sample.value for sample in _setups(counts)} == counts


async def test_no_client_has_a_series_of_its_own() -> None:
    async with Line(Busy) as line:
        made = metrics(line)
        client = await line.app([], certificate=b"com.secret|dev-secret|adb|9", claims={"os": "SecretOS"})
        with pytest.raises(ApplicationError):
            await client.session.to_app.call("com.secret.plugin", "x")
        page = (await made.page())[1].decode()
    assert "secret" not in page.lower()
    assert 'os="other"' in page


async def test_whoever_asks_without_pause_gets_the_page_that_was_made() -> None:
    ticks = iter([0.0, 0.0, 0.0, 0.1, 0.1 + REST * 0.1 - 0.01, 5.0, 5.0, 5.0, 5.1])
    async with Line(Busy) as line:
        made = metrics(line, lambda: next(ticks))
        kind, first = await made.page()
        assert kind.startswith("text/plain; version=")
        assert (await made.page())[1] is first
        assert (await made.page())[1] is not first


async def test_a_crowd_is_counted_in_turns_and_for_all_who_ask_at_once() -> None:
    async with Line(Busy, limits=SessionLimits(1000, 1000)) as line:
        made = metrics(line)
        for number in range(2 * TURN + 1):
            line.attempt(b"com.a%d|dev|adb|%d" % (number, number))
        await until(lambda: len(line.sessions) == 2 * TURN + 1)
        turns = 0
        asked = [asyncio.ensure_future(made.page()) for _ in range(3)]
        while not asked[0].done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 4
        pages = await asyncio.gather(*asked)
        assert pages[0][1] is pages[1][1] is pages[2][1]
        assert read(pages[0][1])["connections{port=secure}"] == 2 * TURN + 1
        for client in line.clients:
            client.connection.abort()


async def test_a_page_that_could_not_be_made_is_made_the_next_time() -> None:
    async with Line(Busy) as line:
        made = metrics(line)
        sources, made._sources = made._sources, attrs.evolve(made._sources, certificates=lambda soon: 1 / 0)  # type: ignore[arg-type, return-value]
        with pytest.raises(ZeroDivisionError):
            await made.page()
        made._sources = sources
        assert b"certificates_valid" in (await made.page())[1]


async def test_nobody_waits_for_a_page_of_a_broker_that_stops() -> None:
    async with Line(Busy) as line:
        made = metrics(line)
        made.stop()
        asked = asyncio.ensure_future(made.page())
        await asyncio.sleep(0)
        made.stop()
        with pytest.raises(asyncio.CancelledError):
            await asked


def test_names_follow_the_conventions_of_prometheus() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert re.fullmatch(r"[a-z][a-z_]*", family.name)
        assert family.name.endswith("_total") is (family.kind == "counter"), family.name
        assert family.kind != "histogram" or family.name.endswith("_seconds")
        assert family.help.endswith(".")


@pytest.mark.row("A-28", "M-18")
async def test_the_policy_is_counted() -> None:
    async with Line(Busy) as line, deciding(lambda question: False) as decider:
        made = metrics(line)
        await line.change(policy("ask Busy.*"), Hook(HookSettings(url=decider.url)))
        line.access.problem = "policy.toml:2: …"
        client = await line.connect()
        with pytest.raises(Rejected):
            await client.ask("Busy.plain")
        found = await now(made)
        assert found["calls_refused_total{}"] == 1
        assert found["policy_rules{layer=operator}"] == 1
        assert found["policy_outdated{}"] == 1
        assert found["policy_hook_total{result=denied}"] == 1


async def test_a_rotation_and_renewals_are_told() -> None:
    async with Line(Busy) as line:
        found = await now(metrics(line))
    assert {phase: found[f"rotation_phase{{phase={phase}}}"] for phase in ("steady", "prepared", "switched")} == {
        "steady": 0,
        "prepared": 1,
        "switched": 0,
    }
    assert found["ca_generation{}"] == 3
    assert found["renewals_total{result=done,way=session}"] == 2
    assert found["renewals_total{result=failed,way=container}"] == 1


def documented() -> dict[str, tuple[str, str, str]]:
    rows = {}
    for line in REFERENCE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith(f"`{PREFIX}"):
            rows[cells[0].strip("`").removeprefix(PREFIX)] = (cells[1], cells[2], cells[3])
    return rows


@pytest.mark.row("A-53")
def test_the_reference_names_every_family_and_no_other() -> None:
    expected = {
        family.name: (family.kind, ", ".join(f"`{label}`" for label in family.labels), family.help)
        for family in FAMILIES
    }
    assert documented() == expected


@pytest.mark.row("A-53")
async def test_the_page_of_a_running_broker(tmp_path: Path) -> None:
    listen = ListenSettings(insecure_port=0, secure_port=0, http_port=0)
    async with running(tmp_path / "home", listen=listen) as broker, app(broker, tmp_path / "app") as session:
        await session.request("echo.request", {})
        url = f"http://localhost:{broker.ports.http_port}/metrics"
        with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
            page = read(answer.read())
    assert page["sessions{kind=flipper,os=Linux,transport=tls}"] == 1
    assert page["enrollments_total{medium=filesystem,result=ok}"] == 1 == page["enrollment_seconds_count{}"]
    assert page["tls_handshakes_total{port=secure,result=ok}"] == 1 == page["tls_handshake_seconds_count{port=secure}"]
    assert page["calls_total{plugin=echo,result=ok}"] == 1
    assert page["answer_seconds_count{}"] == 1
    assert page["certificates_valid{profile=client}"] == 1
    assert page["accepted_total{port=insecure}"] == 1
    assert page["ca_generation{}"] == 1 == page["rotation_phase{phase=steady}"]
