"""Spans and the context that ties them together: alone, over memory, and through a whole broker over TLS."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rsocket_broker import client, tracing
from rsocket_broker.client import AppPlugin
from rsocket_broker.errors import ApplicationError, Canceled, Rejected, request_error
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.protocol.metadata import Entry, Mime, build_composite, parse_composite, route
from rsocket_broker.routing.learned import MAX_REMEMBERED
from rsocket_broker.tracing import LONGEST, TRACEPARENT, TRACESTATE, carrier, context_of, kind_of, tracer
from tests.end_to_end.processes import start_broker
from tests.routing.line import Line, until
from tests.test_broker import running

TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736
PARENT_ID = 0x00F067AA0BA902B7
PARENT = f"00-{TRACE_ID:032x}-{PARENT_ID:016x}-01".encode()


def entry(name: str, content: bytes) -> bytes:
    return build_composite([Entry(Mime(name, None), content)])


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """This process has an SDK, for the length of a test; whatever ends is in the exporter."""
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def named(spans: InMemorySpanExporter, name: str, kind: SpanKind = SpanKind.SERVER) -> ReadableSpan:
    found = [span for span in spans.get_finished_spans() if span.name == name and span.kind is kind]
    assert len(found) == 1, [(span.name, span.kind) for span in spans.get_finished_spans()]
    return found[0]


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def number(span: ReadableSpan) -> int:
    return span.get_span_context().span_id


class Story(Plugin):
    id = "Story"

    @method("plain")
    def plain(self, app: App, payload: Payload) -> Payload:
        return Payload(str(trace.get_current_span().get_span_context().trace_id).encode(), None)

    @method("task")
    async def task(self, app: App) -> str:
        await asyncio.sleep(0)
        return f"{trace.get_current_span().get_span_context().trace_id:x}"

    @method("asks")
    async def asks(self, app: App) -> Any:
        return await app.call("answer", {"secret": "hunter2"})

    @method("refuses")
    def refuses(self, app: App) -> None:
        raise Rejected("not today")

    @method("breaks")
    async def breaks(self, app: App) -> None:
        raise ZeroDivisionError("hunter2")

    @method("counts")
    async def counts(self, app: App, count: int) -> AsyncIterator[str]:
        for _ in range(count):
            yield f"{trace.get_current_span().get_span_context().trace_id:x}"

    @method("plain_counts")
    def plain_counts(self, app: App) -> Iterator[str]:
        yield f"{trace.get_current_span().get_span_context().trace_id:x}"

    @method("relays")
    async def relays(self, app: App) -> AsyncIterator[object]:
        async for value in app.stream("many"):
            yield value

    @method("waits", deadline=None)
    async def waits(self, app: App) -> None:
        await asyncio.get_running_loop().create_future()

    @event("happened")
    async def happened(self, app: App, params: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        heard.append(trace.get_current_span().get_span_context().trace_id)
        if params.get("bad"):
            raise Canceled("enough")


heard: list[int] = []


# ---- context ---------------------------------------------------------------------------------------------------------


def test_without_an_sdk_there_is_no_tracer_and_nothing_to_carry() -> None:
    assert tracer() is None
    assert carrier() == b""


def test_with_one_there_is_and_it_is_kept(spans: InMemorySpanExporter) -> None:
    assert tracer() is not None
    assert tracer() is tracer()


def test_the_current_context_travels_as_two_entries(spans: InMemorySpanExporter) -> None:
    assert carrier() == b"", "no span, no context"
    parsed = context_of(route("a.b") + entry(TRACEPARENT, PARENT) + entry(TRACESTATE, b"vendor=1"))
    assert parsed is not None
    found = trace.get_current_span(parsed).get_span_context()
    assert (found.trace_id, found.span_id, found.is_remote) == (TRACE_ID, PARENT_ID, True)
    with trace.use_span(trace.get_current_span(parsed)):
        entries = parse_composite(carrier())
    assert [(one.mime.name, one.mime.id, one.content) for one in entries] == [
        (TRACEPARENT, None, PARENT),
        (TRACESTATE, None, b"vendor=1"),
    ]


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        b"",
        route("a.b"),
        b"traceparent",
        entry(TRACEPARENT, PARENT)[:-1],
        entry(TRACEPARENT, b"\xff" * 55),
        entry(TRACEPARENT, b"0" * (LONGEST + 1)),
    ],
)
def test_no_context_or_a_damaged_one_is_none(
    metadata: bytes | None, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert context_of(metadata) is None
    assert caplog.records == []


def test_a_context_of_another_making_starts_a_trace_of_its_own(spans: InMemorySpanExporter) -> None:
    parsed = context_of(entry(TRACEPARENT, b"nonsense") + entry(TRACESTATE, b"x" * (LONGEST + 1)))
    assert not trace.get_current_span(parsed).get_span_context().is_valid


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncio.CancelledError(), "CANCELED"),
        (Rejected("no"), "REJECTED"),
        (ApplicationError("no"), "APPLICATION_ERROR"),
        (KeyError("hunter2"), "internal"),
        (request_error(0x301, "no"), "custom"),
        (request_error(0xFFFF_FFFE, "no"), "custom"),
    ],
)
def test_the_kind_of_an_error(error: BaseException, kind: str) -> None:
    assert kind_of(error) == kind


# ---- one session -----------------------------------------------------------------------------------------------------


@pytest.mark.row("A-54")
@pytest.mark.parametrize("name", ["plain", "task"])
async def test_a_handler_runs_within_the_trace_of_its_caller(spans: InMemorySpanExporter, name: str) -> None:
    async with Line(Story) as line:
        client = await line.connect()
        for _ in range(2):
            answer = await client.connection.request_response(
                Payload(b"{}", route(f"Story.{name}") + entry(TRACEPARENT, PARENT)), 5
            )
            assert answer.data in (str(TRACE_ID).encode(), b'"%x"' % TRACE_ID)
            span = named(spans, f"Story.{name}")
            assert span.context is not None
            assert (span.context.trace_id, parent(span)) == (TRACE_ID, PARENT_ID)
            assert span.status.status_code is StatusCode.UNSET
            assert span.attributes == {
                "rpc.system": "rsocket",
                "rpc.service": "Story",
                "rpc.method": name,
                "rsocket.interaction": "request-response",
                "rsocket_broker.session": "c1",
                "rsocket_broker.app_id": "com.demo",
            }
            spans.clear()
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_request_without_a_context_begins_a_trace(spans: InMemorySpanExporter) -> None:
    async with Line(Story) as line:
        client = await line.connect()
        await client.ask("Story.plain")
        await client.ask("Story.plain")
    one, other = spans.get_finished_spans()
    assert parent(one) is parent(other) is None
    assert one.get_span_context().trace_id != other.get_span_context().trace_id


async def test_an_error_is_written_down_without_its_private_part(spans: InMemorySpanExporter) -> None:
    async with Line(Story) as line:
        client = await line.connect()
        for name, kind, words in (
            ("refuses", "REJECTED", "not today"),
            ("breaks", "APPLICATION_ERROR", "internal error in Story.breaks"),
        ):
            with pytest.raises((Rejected, ApplicationError)):
                await client.json(f"Story.{name}")
            span = named(spans, f"Story.{name}")
            assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, words)
            assert (span.attributes or {})["error.type"] == kind
            assert "hunter2" not in span.to_json()


async def test_a_call_to_the_app_belongs_to_the_trace(spans: InMemorySpanExporter) -> None:
    async with Line(Story) as line:
        client = await line.connect()
        payload = Payload(b"{}", route("Story.asks") + entry(TRACEPARENT, PARENT))
        await client.connection.request_response(payload, 5)
        asked = client.side.routed[-1]
    server, call = named(spans, "Story.asks"), named(spans, "Story.answer", SpanKind.CLIENT)
    assert parent(call) == number(server)
    parsed = context_of(asked.metadata)
    assert trace.get_current_span(parsed).get_span_context().span_id == number(call)
    assert "hunter2" not in server.to_json() + call.to_json()


async def test_streams_live_as_long_as_their_spans(spans: InMemorySpanExporter) -> None:
    async with Line(Story) as line:
        client = await line.connect()
        for name, data, count in (("counts", b'{"count": 3}', 3), ("plain_counts", b"{}", 1)):
            metadata = route(f"Story.{name}") + entry(TRACEPARENT, PARENT)
            stream = client.connection.request_stream(Payload(data, metadata))
            assert [payload.data async for payload in stream] == [b'"%x"' % TRACE_ID] * count
            assert parent(named(spans, f"Story.{name}")) == PARENT_ID
        spans.clear()
        early = client.connection.request_stream(Payload(b'{"count": 100}', route("Story.counts")), 2)
        await anext(early)
        early.close()
        await until(spans.get_finished_spans)
        await client.settled()
    assert parent(named(spans, "Story.counts")) is None


async def test_what_the_app_streams_is_a_span_of_its_own(spans: InMemorySpanExporter) -> None:
    async with Line(Story) as line:
        client = await line.connect()
        stream = client.connection.request_stream(Payload(b"{}", route("Story.relays")))
        assert [payload.data async for payload in stream] == [b"1", b"2"]
        await until(lambda: len(spans.get_finished_spans()) == 2)
    assert parent(named(spans, "Story.many", SpanKind.CLIENT)) == number(named(spans, "Story.relays"))
    assert trace.get_current_span(context_of(client.side.routed[-1].metadata)).get_span_context().is_valid


async def test_one_way_messages_keep_their_trace_until_their_turn(spans: InMemorySpanExporter) -> None:
    heard.clear()
    async with Line(Story) as line:
        client = await line.connect()
        for data in (b"{}", b'{"bad": true}'):
            payload = Payload(data, route("Story.happened") + entry(TRACEPARENT, PARENT))
            client.connection.fire_and_forget(payload)
        await until(lambda: len(spans.get_finished_spans()) == 2)
    assert heard == [TRACE_ID, TRACE_ID]
    good, bad = spans.get_finished_spans()
    assert parent(good) == parent(bad) == PARENT_ID
    assert (good.status.status_code, bad.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)


async def test_flipper_messages_have_spans_on_our_side_alone(spans: InMemorySpanExporter) -> None:
    heard.clear()
    async with Line(Story) as line:
        client = await line.app(["Story"], answers={"Story.answer": {"success": 1}})
        client.event("Story", "happened")
        await until(lambda: heard)
        execute = {"method": "execute", "params": {"api": "Story", "method": "asks"}}
        assert await client.ask_json(execute) == {"success": 1}
        assert {"method", "params"} >= set(client.side.messages[-1])
    assert parent(named(spans, "Story.happened")) is None
    assert parent(named(spans, "Story.answer", SpanKind.CLIENT)) == number(named(spans, "Story.asks"))


async def test_a_call_that_is_given_up_ends_its_span(spans: InMemorySpanExporter) -> None:
    async with Line(Story) as line:
        client = await line.connect()
        with pytest.raises(TimeoutError):
            await client.ask("Story.waits", timeout=0.05)
        await until(spans.get_finished_spans)
    span = named(spans, "Story.waits")
    assert (span.attributes or {})["error.type"] == "CANCELED"
    assert span.status.status_code is StatusCode.UNSET, "whoever asked did not wait: no fault of the handler"


async def test_work_that_nobody_awaits_ends_its_span(spans: InMemorySpanExporter) -> None:
    found = tracer()
    assert found is not None
    work = tracing.Tracing(found, {}).awaited("Story", "lost", asyncio.sleep(1))
    work.close()  # type: ignore[attr-defined]  # as `abandon` does
    assert named(spans, "Story.lost").status.status_code is StatusCode.UNSET


async def test_a_context_does_not_crowd_out_what_is_remembered() -> None:
    """Without an SDK too: every such request has metadata of its own."""
    async with Line(Story) as line:
        client = await line.connect()
        await client.ask("Story.plain")
        remembered = client.served.shortcuts.calls
        assert set(remembered) == {route("Story.plain")}
        for each in range(2 * MAX_REMEMBERED):
            metadata = route("Story.plain") + entry(TRACEPARENT, PARENT[:-2] + b"%02x" % (each % 256))
            await client.connection.request_response(Payload(b"", metadata), 5)
        assert set(remembered) == {route("Story.plain")}


# ---- everything ------------------------------------------------------------------------------------------------------


class AppSide(AppPlugin):
    id = "Asking"

    @client.method("answer")
    def answer(self, params: Any) -> int:
        """Asked by Flipper's JSON, which carries no context."""
        return trace.get_current_span().get_span_context().trace_id

    @client.method("trail")
    async def trail(self, params: Any) -> AsyncIterator[str]:
        """A stream has a route, and with it a context."""
        yield f"{trace.get_current_span().get_span_context().trace_id:x}"


def connected(ports: Any, folder: Path, *plugins: AppPlugin, app_id: str = "com.example.app") -> Any:
    return client.connect(
        app_id=app_id,
        app="Example",
        directory=folder,
        insecure_port=ports.insecure_port,
        secure_port=ports.secure_port,
        plugins=plugins,
        timeout=10,
    )


@pytest.mark.row("A-54")
async def test_one_trace_spans_caller_broker_handler_and_app_over_tls(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    plugin = tmp_path / "story.py"
    plugin.write_text(ASKING)
    found = tracer()
    assert found is not None
    async with (
        running(tmp_path / "home", plugins=(str(plugin),)) as broker,
        connected(broker.ports, tmp_path / "app", AppSide()) as session,
    ):
        with found.start_as_current_span("caller") as caller:
            answered = await session.request("Asking.asks", {})
    context = caller.get_span_context()
    assert answered == [0, f"{context.trace_id:x}"]
    served = named(spans, "Asking.asks")
    called, streamed = (named(spans, f"Asking.{name}", SpanKind.CLIENT) for name in ("answer", "trail"))
    in_app = named(spans, "Asking.trail")
    assert {span.get_span_context().trace_id for span in (served, called, streamed, in_app)} == {context.trace_id}
    assert parent(served) == context.span_id
    assert parent(called) == parent(streamed) == number(served)
    assert parent(in_app) == number(streamed)


@pytest.mark.row("A-46", "A-54")
async def test_a_trace_goes_from_client_to_client_through_the_broker(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    """What is passed on keeps its metadata, so the broker has no part in it, and no span."""
    found = tracer()
    assert found is not None
    async with (
        running(tmp_path / "home", allow_relay=True) as broker,
        connected(broker.ports, tmp_path / "one") as one,
        connected(broker.ports, tmp_path / "other", AppSide(), app_id="com.other"),
    ):
        with found.start_as_current_span("caller") as caller:
            context = caller.get_span_context()
            assert await one.request("client:com.other/Asking.answer", {}) == context.trace_id
    assert parent(named(spans, "Asking.answer")) == context.span_id
    assert {span.name for span in spans.get_finished_spans()} == {"caller", "Asking.answer"}


ASKING = """
from rsocket_broker.plugin_api import App, Plugin, method

class Asking(Plugin):
    id = "Asking"

    @method("asks")
    async def asks(self, app: App) -> object:
        return [await app.call("answer"), *[value async for value in app.stream("trail")]]
"""

EXPORTING = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

provider = TracerProvider()
provider.add_span_processor(
    SimpleSpanProcessor(
        ConsoleSpanExporter(out=open(__file__ + ".spans", "a"), formatter=lambda span: span.to_json(None) + chr(10))
    )
)
trace.set_tracer_provider(provider)
"""


@pytest.mark.row("A-54")
def test_a_plugin_may_set_up_the_exporter_of_a_real_broker(tmp_path: Path) -> None:
    plugin = tmp_path / "asking.py"
    plugin.write_text(EXPORTING + ASKING)
    broker = start_broker(tmp_path / "home", "--plugin", str(plugin))

    async def ask() -> None:
        async with connected(broker, tmp_path / "app") as session:
            payload = Payload(b"{}", entry(TRACEPARENT, PARENT))
            with pytest.raises(ApplicationError):
                await session.request_payload("Asking.asks", payload)

    try:
        asyncio.run(ask())
    finally:
        assert broker.stop() == 0, broker.log.read_text()
    written = [json.loads(line) for line in Path(f"{plugin}.spans").read_text().splitlines()]
    assert [(span["name"], span["kind"]) for span in written] == [
        ("Asking.answer", "SpanKind.CLIENT"),
        ("Asking.asks", "SpanKind.SERVER"),
    ]
    assert {span["context"]["trace_id"] for span in written} == {f"0x{TRACE_ID:032x}"}
