"""Those without a certificate, and those who do not follow the specification, on the two ports of a live broker."""

import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end import wire
from tests.end_to_end.conftest import StartBroker
from tests.end_to_end.meddlers import ThrowawayAuthority
from tests.end_to_end.processes import BrokerProcess
from tests.end_to_end.wire import Line
from tests.foreign.sdk_folder import EnrollmentFailed, claims, client_context, enrolled_folder

APP_ID = "org.example.stranger"
CLAIMS = claims(APP_ID, device_id="unknown")
CALL = json.dumps({"method": "execute", "params": {"api": "Recorder", "method": "noted", "params": {"n": 1}}}).encode()
HTTP = b"POST /Recorder/noted HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(scope="module")
def folder(broker: BrokerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return enrolled_folder(tmp_path_factory.mktemp("stranger") / "sonar", APP_ID, broker.insecure_port)


@pytest.fixture
def secure(broker: BrokerProcess, folder: Path) -> Iterator[Line]:
    with Line.open(broker.secure_port, client_context(folder)) as line:
        yield line


def recorded(broker: BrokerProcess, folder: Path) -> list[object]:
    """What the recorder plugin has been told so far."""
    with Line.open(broker.secure_port, client_context(folder)) as line:
        line.send(
            wire.setup(mime=wire.COMPOSITE), wire.request(wire.REQUEST_RESPONSE, 1, b"", wire.routed("Recorder.events"))
        )
        found: list[object] = json.loads(wire.payload_data(line.answer(1)))
        return found


@pytest.mark.row("F-8")
def test_a_setup_is_accepted_on_the_plain_port(broker: BrokerProcess) -> None:
    with Line.open(broker.insecure_port) as line:
        line.send(wire.setup(CLAIMS), wire.keepalive(b"still there?"))
        answer = line.next()
    assert answer is not None
    assert (answer.kind, answer.flags, answer.body[8:]) == (wire.KEEPALIVE, 0, b"still there?")


@pytest.mark.row("F-8", "M-9")
def test_tls_on_the_plain_port_is_closed_and_named_in_the_log(broker: BrokerProcess) -> None:
    context = ssl.create_default_context()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Line.open(broker.insecure_port, context)
    assert "TLS" in broker.log.read_text()


@pytest.mark.row("M-1", "M-9", "A-58")
@pytest.mark.parametrize("port", ["insecure_port", "secure_port"])
@pytest.mark.parametrize("tool", ["curl", "bytes"])
def test_http_runs_nothing(broker: BrokerProcess, folder: Path, port: str, tool: str) -> None:
    before = recorded(broker, folder)
    number = getattr(broker, port)
    if tool == "curl":
        scheme = "http" if port == "insecure_port" else "https"
        command = ["curl", "-sk", "-m", "5", "-d", "{}", f"{scheme}://localhost:{number}/Recorder/noted"]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("needs curl: apt-get install curl")
        assert done.returncode != 0
        assert done.stdout == b""
    else:
        with Line.open(number) as line:
            line.send(HTTP)
            left = line.rest()
        assert all(one.kind == wire.ERROR for one in left)
    assert recorded(broker, folder) == before


@pytest.mark.row("M-1", "A-01")
@pytest.mark.parametrize("route", ["echo.request", "Recorder.events", "Recorder.noted"])
def test_a_raw_client_without_a_certificate_calls_nothing(broker: BrokerProcess, folder: Path, route: str) -> None:
    before = recorded(broker, folder)
    with Line.open(broker.insecure_port) as line:
        line.send(
            wire.setup(CLAIMS, wire.COMPOSITE),
            wire.request(wire.REQUEST_FNF, 1, CALL),
            wire.request(wire.REQUEST_FNF, 3, b"{}", wire.routed(route)),
            wire.request(wire.REQUEST_STREAM, 5, b"3:1", wire.routed(route), n=10),
            wire.request(wire.REQUEST_CHANNEL, 7, b"x", wire.routed(route), n=10),
            wire.request(wire.REQUEST_RESPONSE, 9, b"{}", wire.routed(route)),
        )
        code, text = line.answer(9).error
    assert code >= wire.APPLICATION_ERROR
    assert "secure" in text or "sign" in text
    assert recorded(broker, folder) == before


@pytest.mark.row("M-1", "M-11", "F-4")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", ["no certificate", "a foreign certificate"])
def test_the_secure_port_wants_a_certificate_of_ours(
    broker: BrokerProcess, folder: Path, tmp_path: Path, version: ssl.TLSVersion, kind: str
) -> None:
    if kind == "no certificate":
        context = ssl.create_default_context(cafile=folder / "sonarCA.crt")
    else:
        context = ThrowawayAuthority(tmp_path).client_context(tmp_path, trusting=folder / "sonarCA.crt")
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError) as refused, Line.open(broker.secure_port, context) as line:
        line.send(
            wire.setup(mime=wire.COMPOSITE), wire.request(wire.REQUEST_RESPONSE, 1, b"x", wire.routed("echo.request"))
        )
        line.rest()  # under TLS 1.3 the refusal comes after our own handshake
    assert "ALERT" in str(refused.value.reason)


@pytest.mark.row("M-1")
def test_a_certificate_of_ours_does_call(secure: Line) -> None:
    """The other side of the coin: the frames of these tests do reach a handler when they come from a client."""
    with secure as line:
        line.send(
            wire.setup(mime=wire.COMPOSITE), wire.request(wire.REQUEST_RESPONSE, 1, b"x", wire.routed("echo.request"))
        )
        assert wire.payload_data(line.answer(1)) == b"x"


@pytest.mark.row("A-35")
@pytest.mark.parametrize(
    "kind", [wire.REQUEST_RESPONSE, wire.REQUEST_FNF, wire.KEEPALIVE, wire.METADATA_PUSH, wire.CANCEL]
)
def test_a_frame_before_setup_is_refused_and_the_connection_closed(
    secure: Line, broker: BrokerProcess, folder: Path, kind: int
) -> None:
    before = recorded(broker, folder)
    with secure as line:
        line.send(
            wire.frame(0 if kind in (wire.KEEPALIVE, wire.METADATA_PUSH) else 1, kind, 0, CALL),
            wire.setup(mime=wire.COMPOSITE),
        )
        frames = line.rest()
    assert [one.kind for one in frames] == [wire.ERROR]
    assert frames[0].stream == 0
    assert frames[0].error[0] == wire.INVALID_SETUP
    assert recorded(broker, folder) == before


@pytest.mark.row("A-35")
def test_a_request_before_setup_is_refused_on_the_plain_port_too(broker: BrokerProcess) -> None:
    with Line.open(broker.insecure_port) as line:
        line.send(wire.request(wire.REQUEST_RESPONSE, 1, b"{}"), wire.setup(CLAIMS))
        frames = line.rest()
    assert [(one.stream, one.error[0]) for one in frames] == [(0, wire.INVALID_SETUP)]


@pytest.mark.row("A-26", "A-36")
@pytest.mark.parametrize("field", ["app_id", "device_id"])
def test_nothing_after_a_refused_setup_reaches_a_handler(
    secure: Line, broker: BrokerProcess, folder: Path, field: str
) -> None:
    before = recorded(broker, folder)
    with secure as line:
        line.send(
            wire.setup(claims(APP_ID) | {field: "org.example.somebody.else"}, wire.COMPOSITE),
            wire.request(wire.REQUEST_FNF, 1, CALL),
            wire.request(wire.REQUEST_FNF, 3, b'{"n": 2}', wire.routed("Recorder.noted")),
        )
        frames = line.rest()
    assert [(one.kind, one.stream) for one in frames] == [(wire.ERROR, 0)]
    code, text = frames[0].error
    assert code == wire.REJECTED_SETUP
    assert field in text
    assert recorded(broker, folder) == before


@pytest.mark.row("F-25")
@pytest.mark.parametrize(
    ("changes", "named"),
    [({"os": None}, "os"), ({"app": 7}, "app"), ({"device": ""}, "device"), ({"sdk_version": "new"}, "sdk_version")],
)
def test_wrong_claims_are_refused_by_name(broker: BrokerProcess, changes: dict[str, object], named: str) -> None:
    fields = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    with Line.open(broker.insecure_port) as line:
        line.send(wire.setup(fields))
        frames = line.rest()
    assert frames[-1].stream == 0
    assert named in frames[-1].error[1]


@pytest.mark.row("A-10", "A-13")
def test_the_operator_says_how_many_may_enrol(start: StartBroker, tmp_path: Path) -> None:
    broker = start("--enrollments-per-minute", "1")
    for number in range(5):
        enrolled_folder(tmp_path / str(number), f"org.example.crowd{number}", broker.insecure_port)
    with pytest.raises(EnrollmentFailed, match=r"^limits: .* Try again in"):
        enrolled_folder(tmp_path / "last", "org.example.last", broker.insecure_port)
    assert not (tmp_path / "last" / "device.crt").exists()
