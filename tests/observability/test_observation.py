"""What is made for what was asked for, and nothing for what was not."""

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from rsocket_broker.authority.rotation import Phase, Rotation
from rsocket_broker.connection import Connection
from rsocket_broker.histogram import Histogram
from rsocket_broker.observability.frame_log import FrameTap
from rsocket_broker.observability.observation import Observation, Subject
from rsocket_broker.transports.base import Receiver
from tests.routing.line import Line, identify


def subject(line: Line) -> Subject:
    return Subject(
        endpoint=line.endpoint,
        identify=identify,
        certificates=lambda soon: [],
        rotation=lambda: Rotation(Phase.STEADY, 1, datetime(2026, 1, 1, tzinfo=UTC)),
        renewals=dict,
        enrollment=lambda: ("open", True),
        enrollments={},
        enrollment_seconds=Histogram(),
    )


@pytest.mark.parametrize(("frames", "metrics"), [((), False), (("com.demo",), False), ((), True), (("all",), True)])
async def test_a_connection_gets_what_was_asked_for(frames: tuple[str, ...], metrics: bool) -> None:
    async with Line() as line:
        observation = Observation(subject(line), frames=frames, metrics=metrics)
        given: list[Receiver] = []

        def tap(connection: Connection) -> Receiver:
            given.append(observation.receiver("secure", connection))
            return given[-1]

        line.tap = tap
        client = await line.connect()
        assert (given[0] is client.served) is not bool(frames)
        assert isinstance(given[0], FrameTap) is bool(frames)
        assert (client.served.answer_seconds is not None) is metrics
        if metrics:
            assert b'rsocket_broker_connections{port="secure"} 1.0' in (await observation.page())[1]
        observation.stop()


async def test_only_where_plugins_are_asked_are_answers_observed() -> None:
    async with Line() as line:
        observation = Observation(subject(line), metrics=True)
        client = await line.connect()
        observation.receiver("insecure", client.served)
        assert client.served.answer_seconds is None
        observation.stop()


def test_a_broker_that_nobody_watches_loads_no_library_for_it() -> None:
    """The libraries take a tenth of a second together, a quarter of what a start may take."""
    program = "import sys, rsocket_broker.broker; print([name for name in UNWANTED if name in sys.modules])"
    ours = [f"rsocket_broker.observability.{name}" for name in ("frame_log", "metrics", "traffic")]
    program = program.replace("UNWANTED", str(["prometheus_client", "opentelemetry", "opentelemetry.trace", *ours]))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"
