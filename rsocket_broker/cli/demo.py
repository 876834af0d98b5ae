"""`rsocket-broker demo`: the whole story in one command. Each step is verified, and the story ends at the first lie."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import click

from rsocket_broker import client
from rsocket_broker.admin.client import admin_line
from rsocket_broker.broker import Broker
from rsocket_broker.cli import impostors
from rsocket_broker.cli.render import note
from rsocket_broker.client.folder import AppFolder
from rsocket_broker.errors import BrokerError
from rsocket_broker.observability import logs
from rsocket_broker.settings import ListenSettings, Settings

APP_ID = "com.example.demo"
APP_NAME = "Demo App"
PATIENCE_S = 10.0
"""For each thing that must happen; all of them together take a second or two."""


class Greeter(client.AppPlugin):
    """The app's side of a plugin: what the broker calls."""

    id = "Greeter"

    @client.method("greet")
    def greet(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"greeting": f"Hello, {params['name']}. This is {APP_NAME}."}


class Traffic(client.AppPlugin):
    """The app's side of the network plugin, as the SDKs of apps have it: it tells what the app asks of its server."""

    id = "Network"
    background = True

    def __init__(self) -> None:
        self.used = asyncio.Event()

    async def on_init(self) -> None:
        self.used.set()

    def fetch(self) -> None:
        """One request and its answer, told as they happen."""
        began = int(time.time() * 1000)
        asked = {"id": "1", "timestamp": began, "method": "GET", "url": "https://api.example.com/cart", "headers": []}
        answered = {"id": "1", "timestamp": began + 40, "status": 200, "headers": [], "data": "W10="}
        self.emit("newRequest", asked)
        self.emit("newResponse", answered)


class Unverified(BrokerError):
    """A step did not do what the story says."""


def verify(holds: bool, what: str) -> None:
    if not holds:
        raise Unverified(f"this should be true and is not: {what}")


@attrs.frozen(slots=True)
class Stage:
    """What the steps share. The ports are the broker's own."""

    folder: Path
    broker: Broker
    app: Path

    @property
    def plain_port(self) -> int:
        return self.broker.ports.insecure_port or 0

    @property
    def secure_port(self) -> int:
        return self.broker.ports.secure_port or 0


class Narrator:
    """Numbers the steps, and says what was found."""

    def __init__(self) -> None:
        self._step = 0

    @contextlib.contextmanager
    def step(self, title: str) -> Any:
        self._step += 1
        click.echo(f"{self._step}. {title}")
        yield self.found

    def found(self, text: str) -> None:
        click.echo(f"   ✓ {logs.visible(text)}")


@click.command(short_help="See the whole story in a few seconds, with no device.")
@click.option("--verbose", is_flag=True, help="Show the broker's own log between the steps.")
def demo(verbose: bool) -> None:
    """Tell the whole story in a few seconds, with no device: enrol, connect, call both ways, refuse impostors.

    A broker is started on free ports in a temporary home, and an emulated desktop app uses it. Exits 0 only if every
    step was verified.

    \b
    Example:
      rsocket-broker demo
    """
    logs.configure(level="info" if verbose else "error")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rsocket-broker-demo-") as folder:
        asyncio.run(story(Path(folder).resolve(), Narrator()))
    click.echo(f"Every step was verified, in {time.monotonic() - began:.1f} s.")
    note("Next: rsocket-broker serve, and examples/ in the source for a plugin and an app of your own.")


async def story(folder: Path, narrator: Narrator) -> None:
    async with running(folder, narrator) as stage:
        traffic = Traffic()
        async with connected(stage, traffic, narrator) as session:
            await app_calls_broker(session, narrator)
            await broker_calls_app(stage, narrator)
            await broker_sees_traffic(stage, traffic, narrator)
            for scene in SCENES:
                await scene(stage, narrator)
            await rotation(stage, session, narrator)
            with narrator.step("Through all of that, the app's own session was left in peace") as found:
                verify(await session.request("echo.request", "still here") == "still here", "the session answers")
                verify(session.connections == 1, "the session was never interrupted")
                found("it answers, on the connection that it has had from the start")
            await revocation(stage, session, narrator)
        with narrator.step("The broker stops") as found:
            began = time.monotonic()
            await stage.broker.stop()
            verify(await impostors.is_closed(stage.secure_port), "nobody listens any more")
            verify(not (folder / "home" / "run" / "ports.json").exists(), "nothing points here any more")
            found(f"drained and closed in {time.monotonic() - began:.1f} s; ports.json is gone")


@contextlib.asynccontextmanager
async def running(folder: Path, narrator: Narrator) -> AsyncIterator[Stage]:
    home = folder / "home"
    broker = Broker(Settings(home=home, listen=ListenSettings(insecure_port=0, secure_port=0), adb="off"))
    try:
        with narrator.step("A broker starts in a new home, and makes its certificate authority") as found:
            await broker.start()
            verify((home / "ca" / "1" / "ca.key").stat().st_mode & 0o077 == 0, "the CA's key is for us alone")
            verify((home / "run" / "ports.json").exists(), "ports.json says where it listens")
            found(f"enrolment on port {broker.ports.insecure_port}, sessions on port {broker.ports.secure_port}")
        yield Stage(folder, broker, folder / "app")
    finally:
        await broker.stop()


@contextlib.asynccontextmanager
async def connected(stage: Stage, traffic: Traffic, narrator: Narrator) -> AsyncIterator[client.Session]:
    steps: list[client.Stage] = []
    line = client.connect(
        app_id=APP_ID,
        app=APP_NAME,
        directory=stage.app,
        insecure_port=stage.plain_port,
        secure_port=stage.secure_port,
        plugins=[Greeter(), traffic],
        timeout=PATIENCE_S,
        observer=lambda progress: steps.append(progress.stage),
    )
    async with line as session:
        with narrator.step("An app enrols on the plain port: it sends a signing request, never its key") as found:
            verify(steps[:2] == [client.Stage.ENROLLING, client.Stage.ENROLLED], "the app enrolled first")
            enrolled = await asyncio.to_thread(AppFolder(stage.app).load)
            names = ", ".join(sorted(path.name for path in stage.app.iterdir()))
            found(f"the broker read the request back from the app's own folder, and only then signed: {names}")
        with narrator.step("The app opens its session on the secure port, with mutual TLS") as found:
            verify(session.connected, "the app is connected")
            (live,) = sessions(stage)
            verify(live["app_id"] == APP_ID, "the certificate says which app it is")
            verify(live["device_id"] == enrolled.device_id, "the certificate says which device it is on")
            found(f"the broker knows it by its certificate: {APP_ID} on {live['device_id']}, proof {live['proof']}")
        yield session


def sessions(stage: Stage) -> list[dict[str, object]]:
    return [session.describe() for session in stage.broker.sessions]


async def app_calls_broker(session: client.Session, narrator: Narrator) -> None:
    with narrator.step("The app calls a plugin of the broker") as found:
        answer = await session.request("echo.request", {"hello": "broker"})
        verify(answer == {"hello": "broker"}, "echo gives back what it gets")
        found(f"echo.request answered {answer}")
        count = 0
        async for payload in session.stream_payloads("echo.stream", client.Payload(b"5:1000")):
            verify(len(payload.data or b"") == 1000, "each payload is whole")
            count += 1
        verify(count == 5, "the stream is whole")
        found(f"echo.stream sent {count} payloads, no faster than the app asked for them")


async def broker_calls_app(stage: Stage, narrator: Narrator) -> None:
    with narrator.step("The broker calls the app, on the same connection") as found:
        (live,) = stage.broker.sessions
        answer = await live.to_app.call("Greeter", "greet", {"name": "app"}, PATIENCE_S)
        verify(answer == {"greeting": f"Hello, app. This is {APP_NAME}."}, "the app answered")
        found(f'Greeter.greet answered "{answer["greeting"]}"')


async def broker_sees_traffic(stage: Stage, traffic: Traffic, narrator: Narrator) -> None:
    with narrator.step("The app asks its own server for something, and a plugin of the broker sees it") as found:
        app = await stage.broker.app(APP_ID, traffic.id)
        network: Any = stage.broker.plugin(traffic.id)
        await asyncio.wait_for(traffic.used.wait(), PATIENCE_S)
        traffic.fetch()
        entry = await network.wait(app, url="/cart", status=200, timeout=PATIENCE_S)
        har = await network.har(app)
        urls = [each["request"]["url"] for each in har["log"]["entries"]]
        verify(urls == [entry["request"]["url"]], "it is in the HAR file that the plugin makes")
        asked = entry["request"]
        found(
            f"{asked['method']} {asked['url']} was answered with {entry['response']['status']}: one entry of a HAR file"
        )


async def without_certificate(stage: Stage, narrator: Narrator) -> None:
    with narrator.step("A client without a certificate is refused") as found:
        trust = await asyncio.to_thread(AppFolder(stage.app).load)
        alert = await impostors.try_without_certificate(stage.secure_port, trust.credentials)
        verify("certificate" in alert.lower(), f"it is told that a certificate is wanted, not {alert!r}")
        found(f"in its TLS handshake: {alert}")


async def with_foreign_certificate(stage: Stage, narrator: Narrator) -> None:
    with narrator.step("A client with a certificate of another authority, for the same app, is refused") as found:
        own = await asyncio.to_thread(AppFolder(stage.app).load)
        home = stage.folder / "foreign"
        foreign = await asyncio.to_thread(impostors.foreign_credentials, home, APP_ID, own.credentials)
        alert = await impostors.try_credentials(stage.secure_port, foreign)
        verify(alert != "", "it is refused with an alert")
        found(f"in its TLS handshake: {alert}")


async def with_a_false_claim(stage: Stage, narrator: Narrator) -> None:
    with narrator.step("The right certificate with a claim to be another app is refused") as found:
        own = await asyncio.to_thread(AppFolder(stage.app).load)
        text = await impostors.try_claims(stage.secure_port, own.credentials, {"app_id": "com.example.bank"})
        verify("app_id" in text, f"the refusal names the claim: {text!r}")
        found(f"by its SETUP frame: {text}")


async def on_the_plain_port(stage: Stage, narrator: Narrator) -> None:
    with narrator.step("The plain port enrols, and does nothing else") as found:
        text = await impostors.try_plain_call(stage.plain_port, "echo.request")
        verify(text != "", "a call on the plain port fails")
        found(f"a call to a plugin is refused: {text}")


async def into_the_folder_of_another(stage: Stage, narrator: Narrator) -> None:
    with narrator.step("A stranger who asks in the app's name, and names the app's folder, gets nothing") as found:
        issued = len(stage.broker.certificates())
        before = (stage.app / "device.crt").read_bytes()
        text = await impostors.try_folder_of_another(stage.plain_port, APP_ID, stage.app)
        verify(text.startswith("proof: "), f"the refusal names the step: {text!r}")
        verify(len(stage.broker.certificates()) == issued, "nothing was signed")
        verify((stage.app / "device.crt").read_bytes() == before, "the app's certificate is untouched")
        found(f"refused before anything is signed, for want of {text}")


async def rotation(stage: Stage, session: client.Session, narrator: Narrator) -> None:
    with narrator.step("The authority is rotated: a new key signs from now on, while the app stays connected") as found:
        (before,) = sessions(stage)
        async with admin_line(stage.folder / "home") as operator:
            told = [said async for said in operator.stream("rotate.auto", {"patience": PATIENCE_S})]
        steps = [said["step"] for said in told if said["event"] == "phase" and said["step"] is not None]
        (after,) = sessions(stage)
        verify(steps == ["prepare", "switch", "finish"], "the rotation went through its steps")
        verify(before["serial"] != after["serial"], "the app has a new certificate")
        own = await asyncio.to_thread(AppFolder(stage.app).load)
        verify(own.credentials.trust_pem.count(b"BEGIN CERTIFICATE") == 1, "the app trusts the new authority alone")
        verify(not (stage.folder / "home" / "ca" / "1" / "ca.key").exists(), "the old key is destroyed")
        found(f"{', '.join(steps)}: the old key is destroyed, and nobody was refused meanwhile")
        found(f"the app's certificate was renewed over its own session: {before['serial']} became {after['serial']}")


async def revocation(stage: Stage, session: client.Session, narrator: Narrator) -> None:
    with narrator.step("The operator revokes the app: it gets nothing more, and no new certificate") as found:
        own = await asyncio.to_thread(AppFolder(stage.app).load)
        async with admin_line(stage.folder / "home") as operator:
            receipt = await operator.call("ca.revoke", {"by": "app", "value": APP_ID, "reason": "the story ends here"})
            verify(receipt["sessions"] == 1 and not session.connected, "its session has ended")
            found(f"{receipt['sessions']} session ended, the last frame after {receipt['last_frame_ms']:.0f} ms")
            alert = await impostors.try_credentials(stage.secure_port, own.credentials)
            verify("revoked" in alert, f"its certificate is refused for being revoked, not with {alert!r}")
            found(f"its next TLS handshake is refused: {alert}")
            text = await impostors.try_again(stage.plain_port, APP_ID, own.csr_pem, stage.app)
            verify("the story ends here" in text, f"the refusal gives the reason: {text!r}")
            found(f"it asks for a new one, and is refused: {text}")


Scene = Callable[[Stage, Narrator], Awaitable[None]]
SCENES: tuple[Scene, ...] = (
    without_certificate,
    with_foreign_certificate,
    with_a_false_claim,
    on_the_plain_port,
    into_the_folder_of_another,
)
