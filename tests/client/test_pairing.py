"""Pairing by the SDK with a whole broker over real sockets; and with somebody between the two."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from rsocket_broker import client
from rsocket_broker.admin.client import AdminLine, admin_line
from rsocket_broker.broker import Broker
from rsocket_broker.client.enroll import enroll
from rsocket_broker.client.folder import AppFolder, Enrolled
from rsocket_broker.client.line import Address, open_plain
from rsocket_broker.client.pairing import Confirm, parse_offer
from rsocket_broker.client.profile import AppProfile
from rsocket_broker.client.responder import Refuser
from rsocket_broker.connection import Connection
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.errors import ConfigurationError, ConnectionClosed, EnrollmentRefused
from rsocket_broker.identity import Proof
from rsocket_broker.jsontext import dump, parse_object
from rsocket_broker.pairing_sides import AppSide, BrokerSide, Offer, Paired, fingerprint
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.limits import PLAIN
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.settings import ListenSettings, Settings
from rsocket_broker.transports.tcp import listen_tcp

DEMO = "org.example.demo"


@attrs.define
class Operator:
    """Runs `enrollment pair`, and answers as told once it sees digits."""

    line: AdminLine
    offer: Offer
    events: Any
    seen: str = ""

    async def compare(self) -> dict[str, Any]:
        async for event in self.events:
            if event["event"] == "compare":
                self.seen = event["digits"]
                return dict(event)
        raise AssertionError("the code was closed")

    async def says(self, verb: str, number: int) -> None:
        await self.line.call(verb, {"code": self.offer.code, "number": number})


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    listen = ListenSettings(insecure_port=0, secure_port=0, ws_secure_port=None)
    made = Broker(Settings(home=tmp_path / "home", listen=listen, adb="off"))
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


@pytest.fixture
async def operator(broker: Broker) -> AsyncIterator[Operator]:
    async with (
        admin_line(broker.settings.home) as line,
        contextlib.aclosing(line.stream("pairing.open", {"seconds": 60, "app_id": DEMO})) as events,
    ):
        async for event in events:
            if event["event"] == "open":
                yield Operator(line, parse_offer(event["text"]), events)
                return


def issued(broker: Broker) -> int:
    return len([each for each in broker.certificates() if each.principal and each.principal.app_id == DEMO])


async def enrol(
    operator: Operator, folder: Path, offer: Offer | None = None, confirm: Confirm = lambda digits: True
) -> Enrolled:
    pairing = client.Pairing((offer or operator.offer).text(), confirm)
    return await enroll(app_id=DEMO, app="Demo", directory=folder, pairing=pairing)


@pytest.mark.row("D-10", "M-5", "F-12")
async def test_a_paired_app_has_a_session_and_renews_like_any_other(
    broker: Broker, operator: Operator, tmp_path: Path
) -> None:
    steps: list[str] = []

    async def confirm(digits: str) -> bool:
        compared = await operator.compare()
        assert compared["digits"] == digits
        await operator.says("pairing.confirm", compared["number"])
        return True

    connecting = client.connect(
        app_id=DEMO,
        app="Demo",
        directory=tmp_path / "app",
        secure_port=broker.ports.secure_port or 0,
        pairing=client.Pairing(operator.offer.text(), confirm),
        timeout=20,
        observer=lambda progress: steps.append(progress.stage.value),
    )
    async with connecting as session:
        assert await session.request("echo.request", {"hello": 1}) == {"hello": 1}
        (live,) = broker.sessions
        assert live.identity.proof is Proof.PAIRING and live.identity.app_id == DEMO
        assert live.identity.device_id == session.device_id
    assert list(dict.fromkeys(steps))[:3] == ["enrolling", "enrolled", "connecting"]
    held = AppFolder(tmp_path / "app").load()
    assert held.credentials.trust_pem == broker._authority.trust_pem  # type: ignore[union-attr]
    again = client.connect(
        app_id=DEMO, app="Demo", directory=tmp_path / "app", secure_port=broker.ports.secure_port or 0, timeout=20
    )
    async with again as session:
        assert await session.request("echo.request", 1) == 1, "the code is not needed twice"


@pytest.mark.row("D-10", "M-5")
@pytest.mark.parametrize("no", ["app", "operator"])
async def test_a_no_on_either_side_enrols_nothing(broker: Broker, operator: Operator, tmp_path: Path, no: str) -> None:
    folder = tmp_path / "app"

    async def confirm(digits: str) -> bool:
        compared = await operator.compare()
        await operator.says("pairing.deny" if no == "operator" else "pairing.confirm", compared["number"])
        return no != "app"

    with pytest.raises(EnrollmentRefused, match="pairing: ") as caught:
        await enrol(operator, folder, confirm=confirm)
    assert ("not confirmed on this side" in caught.value.public) == (no == "app")
    assert not folder.exists()
    assert issued(broker) == 0


# ---- somebody between the two ------------------------------------------------------------------------------------


class Between(Refuser):
    """An active man in the middle: pairs with the app as if it were the broker, and with the broker as if it were the
    app, in its own name on both sides. It has seen the operator's code."""

    def __init__(self, genuine: Offer) -> None:
        self.key = X25519PrivateKey.generate()
        self.genuine = genuine
        self.towards_app = BrokerSide(genuine.code, genuine.secret, self.key)
        csr = make_signing_request(DEMO).csr_pem.decode()
        self.towards_broker = AppSide(genuine, csr=csr, app_id=DEMO, device="Phone", os="Linux")
        self.line: Connection | None = None
        self.taken: list[str] = []
        self.stolen: Paired | None = None

    async def request_response(self, payload: Payload) -> Payload:
        message = parse_object(bytes(payload.data or b""))
        self.taken.append(str(message["method"]))
        return Payload(dump(await getattr(self, str(message["method"]))(message)))

    async def _ask(self, message: dict[str, object]) -> dict[str, object]:
        if self.line is None:
            claims = AppProfile(app_id=DEMO, app="Demo").plain_claims()
            self.line = await open_plain(Address("127.0.0.1", self.genuine.insecure_port), claims, Refuser())
        answer = await self.line.request_response(Payload(dump(message)), timeout=20)
        return parse_object(bytes(answer.data or b""))

    async def pairBegin(self, message: dict[str, object]) -> dict[str, object]:
        return self.towards_app.begin(message)

    async def pairReveal(self, message: dict[str, object]) -> dict[str, object]:
        answer = self.towards_app.reveal(message)  # it knows what the app shows, before it says anything to the broker
        begun = await self._ask(self.towards_broker.begin())
        self.towards_broker.compare(await self._ask(self.towards_broker.reveal(begun)))
        return answer

    async def pairConfirm(self, message: dict[str, object]) -> dict[str, object]:
        self.towards_app.app_confirms(message)
        self.towards_app.operator_confirms()
        return self.towards_app.seal(Paired("its device", b"its certificate", b"its anchor"))


@pytest.fixture
async def between(operator: Operator) -> AsyncIterator[tuple[Between, int]]:
    made = Between(operator.offer)
    listener = await listen_tcp("127.0.0.1", 0, lambda: Connection(Protocol.server(PLAIN, time.monotonic()), made))
    yield made, listener.port
    listener.close()
    listener.abort()
    if made.line is not None:
        await made.line.close()
    await listener.wait_closed()


@pytest.mark.row("D-10")
async def test_a_man_in_the_middle_with_a_code_of_his_own_makes_the_digits_differ(
    broker: Broker, operator: Operator, between: tuple[Between, int], tmp_path: Path
) -> None:
    """The app was given his text in the place of the operator's: nothing but the people can notice now, and they do."""
    he, port = between
    his = attrs.evolve(
        operator.offer,
        host="127.0.0.1",
        insecure_port=port,
        fingerprint=fingerprint(he.key.public_key().public_bytes_raw()),
    )
    shown: list[str] = []

    async def person(digits: str) -> bool:
        compared = await operator.compare()
        shown.extend([digits, compared["digits"]])
        same = digits == compared["digits"]
        await operator.says("pairing.confirm" if same else "pairing.deny", compared["number"])
        return same

    with pytest.raises(EnrollmentRefused, match="not confirmed on this side"):
        await enrol(operator, tmp_path / "app", his, confirm=person)
    assert he.taken == ["pairBegin", "pairReveal"] and len(shown) == 2 and shown[0] != shown[1]
    assert not (tmp_path / "app").exists()
    assert issued(broker) == 0


@pytest.mark.row("D-10")
async def test_a_man_in_the_middle_of_the_line_is_noticed_by_his_key(
    broker: Broker, operator: Operator, between: tuple[Between, int], tmp_path: Path
) -> None:
    """The app has the operator's text, and its line leads to somebody else: nobody needs to compare anything."""
    he, port = between
    diverted = attrs.evolve(operator.offer, host="127.0.0.1", insecure_port=port)
    with pytest.raises(EnrollmentRefused, match="somebody may stand between"):
        await enrol(operator, tmp_path / "app", diverted)
    assert he.taken == ["pairBegin"], "he has learnt nothing of the app"
    assert issued(broker) == 0


@pytest.mark.row("D-10")
async def test_even_who_says_yes_to_other_digits_on_the_apps_side_gives_nobody_a_certificate_of_the_broker(
    broker: Broker, operator: Operator, between: tuple[Between, int], tmp_path: Path
) -> None:
    he, port = between
    key = fingerprint(he.key.public_key().public_bytes_raw())
    his = attrs.evolve(operator.offer, host="127.0.0.1", insecure_port=port, fingerprint=key)
    with pytest.raises(EnrollmentRefused, match="pairing: what the broker has sent cannot be stored"):
        await enrol(operator, tmp_path / "app", his)
    assert not (tmp_path / "app").exists(), "what he sends is no pair of certificate and anchor"
    assert issued(broker) == 0


# ---- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.row("A-13")
async def test_what_is_no_code_asks_nobody(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no text for pairing"):
        client.Pairing("https://example.org", lambda digits: True)
    without = client.Pairing(None, lambda digits: True)
    with pytest.raises(EnrollmentRefused, match="no code to get one with"):
        async with client.connect(app_id=DEMO, app="Demo", directory=tmp_path / "app", pairing=without, timeout=5):
            pass
    assert not (tmp_path / "app").exists()


async def test_a_certificate_stays_until_there_is_another(broker: Broker, operator: Operator, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    before = await enroll(app_id=DEMO, app="Demo", directory=folder, insecure_port=broker.ports.insecure_port or 0)
    with pytest.raises(EnrollmentRefused):
        await enrol(operator, folder, confirm=lambda digits: False)
    with pytest.raises(OSError):
        await enrol(operator, folder, attrs.evolve(operator.offer, insecure_port=1))
    assert AppFolder(folder).load() == before


async def test_a_broker_that_goes_away_is_told(broker: Broker, operator: Operator, tmp_path: Path) -> None:
    async def confirm(digits: str) -> bool:
        await broker.stop()
        return True

    with pytest.raises((EnrollmentRefused, ConnectionClosed)):
        async with asyncio.timeout(20):
            await enrol(operator, tmp_path / "app", confirm=confirm)
