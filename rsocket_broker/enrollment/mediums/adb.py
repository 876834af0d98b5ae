"""Medium 1 on Android: proves and delivers through adb, whatever device the app is on.

The request names no device, so every attached one is asked at the same time, each with a time limit, and the first
that holds the very same signing request in the container of the very same package is the one. Which device that is,
is told by its hardware (`ro.serialno`, `android_id`) and not by its adb serial, which emulators swap between runs.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

import attrs

from rsocket_broker.authority.requests import same_request
from rsocket_broker.claims import shown
from rsocket_broker.credentials import CA_FILE, CSR_FILE
from rsocket_broker.enrollment.exchange import SignRequest, check_clock
from rsocket_broker.enrollment.mediums.adb_container import INNER_PATH, PACKAGE, AppContainer, ContainerProblem
from rsocket_broker.enrollment.mediums.adb_shell import (
    AdbAbsent,
    AdbProblem,
    AdbServer,
    Attached,
    Output,
    server_address,
)
from rsocket_broker.enrollment.mediums.base import (
    TEMPORARY_SUFFIX,
    Bundle,
    Container,
    JournalEntry,
    Medium,
    MediumContext,
    Outcome,
    Settled,
    StillPending,
    undelivered,
    unproven,
)
from rsocket_broker.enrollment.mediums.paths import AndroidPath, android_path, claimed_app_id
from rsocket_broker.errors import ConfigurationError, EnrollmentRefused
from rsocket_broker.identity import Principal, Proof

if TYPE_CHECKING:
    from rsocket_broker.authority.requests import CheckedRequest

DEVICE_KIND = "android"
ASK_LIMIT = 10.0
"""Seconds in which a device must have said whether it holds the request: `run-as`, `su` and once more."""
RE_READ_PAUSE = 0.3
"""Seconds before a request that was absent or another one is read again: an app that has just been restarted is
writing a new one. The SDK sends it right after."""
MAX_REPORT = 2000
"""Characters of a refusal that tell what each device said."""

AWAY = "the device is not attached"
READY = "device"
_STATES: Mapping[str, tuple[str, str]] = {
    "offline": ("it is offline.", "Plug it in again, or run `adb reconnect offline`."),
    "unauthorized": ("it has not authorised this computer.", "Allow USB debugging on its screen."),
    "authorizing": ("it is still authorising this computer.", "Allow USB debugging on its screen."),
    "connecting": ("it is still connecting.", "Wait until `adb devices` shows it as device."),
    "no permissions": ("this user may not use its USB port.", "Add the udev rules for Android devices."),
    "recovery": ("it is in recovery mode.", "Start Android on it."),
    "sideload": ("it is in sideload mode.", "Start Android on it."),
    "bootloader": ("it is in its bootloader.", "Start Android on it."),
}
"""What a state other than READY means, and what to do."""


class _NotHere(Exception):
    """One device does not hold the request. `remedy` is empty when there is nothing wrong with that."""

    def __init__(self, reason: str, remedy: str = "", *, again: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.remedy, self.again = reason, remedy, again


@attrs.frozen(slots=True)
class _Hardware:
    """What a device says of itself. `clock` is aware, or None when it says nothing usable."""

    device_id: str
    clock: datetime | None


class AdbMedium(Medium):
    """Apps on Android devices. `settings`: `server`, as `--adb`: auto, off or HOST:PORT."""

    name: ClassVar[str] = "adb"
    number: ClassVar[int] = 1
    systems: ClassVar[frozenset[str]] = frozenset({"Android"})
    places: ClassVar[bool] = True
    writes_nonces: ClassVar[bool] = True

    def __init__(self, context: MediumContext) -> None:
        super().__init__(context)
        if unknown := sorted(set(context.settings) - {"server"}):
            raise ConfigurationError(f'[mediums.adb] has no setting "{unknown[0]}"; it has "server".')
        setting = context.settings.get("server", "auto")
        if not isinstance(setting, str):
            raise ConfigurationError("[mediums.adb] server must be text: auto, off or HOST:PORT.")
        address = server_address(setting)
        self._server = None if address is None else AdbServer(address)
        self._serials: dict[str, str] = {}
        """Device id → the adb serial it had last: where to look first, and never believed."""

    async def prove(self, request: SignRequest, checked: "CheckedRequest") -> Container:
        package = claimed_app_id(request, checked.common_name)
        place = _place(request.destination, package)
        server = self._adb()
        devices = await _listed(server)
        serial = await self._find(server, devices, place, checked.csr_pem)
        try:
            hardware = await self._hardware(server, serial)
        except AdbProblem as problem:
            raise unproven(f"{serial}: {problem.public}.", "Check that the device answers, and try again.") from problem
        if request.timestamp is None and hardware.clock is not None:
            check_clock(attrs.evolve(request, timestamp=hardware.clock), datetime.now(UTC))
        self._serials[hardware.device_id] = serial
        return Container(
            medium=self.name,
            principal=Principal(app_id=package, device_id=hardware.device_id, proof=Proof.ADB),
            location={"device": hardware.device_id, "package": package, "user": str(place.user), "inner": place.inner},
            device_names=(serial,),
        )

    async def deploy(self, container: Container, bundle: Bundle) -> None:
        server = self._adb()
        serial = self._serials.get(container.location["device"], "")
        place = _location(container)
        try:
            entered, files = await AppContainer.enter(server, serial, place)
            if not _holds(files, bundle.csr):
                raise undelivered("the app has made another request meanwhile.", "It will ask again by itself.")
            await entered.deliver(bundle)
        except ContainerProblem as problem:
            raise undelivered(f"{serial}: {_with_raw(problem)}", problem.remedy) from problem
        except AdbProblem as problem:
            raise undelivered(f"{serial}: {problem.public}.", "Check that the device is attached.") from problem

    async def holds(self, container: Container, csr: str) -> bool | StillPending:
        try:
            serial = await self._where(container.location["device"])
            if serial is None:
                return StillPending(AWAY)
            _entered, files = await AppContainer.enter(self._adb(), serial, _location(container))
            return _holds(files, csr)
        except ContainerProblem as problem:
            return False if problem.gone else StillPending(_with_raw(problem))
        except (AdbProblem, EnrollmentRefused) as problem:
            return StillPending(problem.public)

    async def place(self, container: Container, bundle: Bundle) -> None:
        """On the device as `holds` found it; on another one by now, the request that is read again is not there."""
        await self.deploy(container, bundle)

    async def write_nonce(self, container: Container, name: str, content: bytes) -> None:
        serial = self._serials.get(container.location["device"], "")
        try:
            entered, _files = await AppContainer.enter(self._adb(), serial, _location(container))
            await entered.write_nonce(name, content)
        except ContainerProblem as problem:
            raise unproven(f"{serial}: {_with_raw(problem)}", problem.remedy) from problem
        except AdbProblem as problem:
            raise unproven(f"{serial}: {problem.public}.", "Check that the device is attached.") from problem

    async def remove_nonce(self, container: Container, name: str) -> StillPending | None:
        try:
            serial = await self._likely(container.location["device"])
            if serial is None:
                return StillPending(AWAY)
            entered, _files = await AppContainer.enter(self._adb(), serial, _location(container))
            await entered.remove(name)
        except ContainerProblem as problem:
            return None if problem.gone else StillPending(_with_raw(problem))
        except (AdbProblem, EnrollmentRefused) as problem:
            return StillPending(problem.public)
        return None

    async def settle(self, entry: JournalEntry) -> Settled | StillPending:
        try:
            serial = await self._where(entry.container.location["device"])
            if serial is None:
                return StillPending(AWAY)
            return Settled(await self._settle(serial, entry))
        except ContainerProblem as problem:
            return Settled(Outcome.UNDONE) if problem.gone else StillPending(_with_raw(problem))
        except (AdbProblem, EnrollmentRefused) as problem:
            return StillPending(problem.public)

    async def _settle(self, serial: str, entry: JournalEntry) -> Outcome:
        container, files = await AppContainer.enter(self._adb(), serial, _location(entry.container))
        bundle = entry.bundle
        anchor_in_place = CA_FILE + TEMPORARY_SUFFIX not in files and files.get(CA_FILE) == bundle.trust_pem.strip()
        if _holds(files, bundle.csr) and (anchor_in_place or len(bundle.files()) == 1):
            await container.deliver(bundle)
            return Outcome.FINISHED
        await container.undo()
        return Outcome.UNDONE

    async def _find(self, server: AdbServer, devices: Sequence[Attached], place: AndroidPath, csr: str) -> str:
        """The adb serial of the device that holds the request. Raises EnrollmentRefused that tells of each device."""
        if not devices:
            raise unproven(
                f"no Android device is attached to the adb server at {server.address[0]}:{server.address[1]}.",
                "Attach one, and check that `adb devices` shows it.",
            )
        asked = [asyncio.ensure_future(self._ask(server, device, place, csr)) for device in devices]
        reasons: dict[str, _NotHere] = {}
        try:
            for answer in asyncio.as_completed(asked):
                found = await answer
                if isinstance(found, str):
                    return found
                reasons.update(found)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise _nowhere(place, reasons)

    async def _ask(
        self, server: AdbServer, device: Attached, place: AndroidPath, csr: str
    ) -> str | dict[str, _NotHere]:
        """The serial of a device that holds the request, or what is to be said of one that does not."""
        try:
            async with asyncio.timeout(ASK_LIMIT):
                try:
                    await _check_holds(server, device, place, csr)
                except _NotHere as reason:
                    if not reason.again:
                        raise
                    await asyncio.sleep(RE_READ_PAUSE)
                    await _check_holds(server, device, place, csr)
            return device.serial
        except _NotHere as reason:
            return {device.serial: reason}
        except TimeoutError:
            silent = _NotHere(f"it did not answer within {ASK_LIMIT:g} seconds.", "Unlock or restart the device.")
            return {device.serial: silent}

    async def attached(self, device_id: str) -> tuple[AdbServer, str | None]:
        """The adb server, and the serial that a device has there now, None while it is not attached.

        Raises AdbProblem, or EnrollmentRefused while adb is switched off.
        """
        return self._adb(), await self._where(device_id)

    async def _where(self, device_id: str) -> str | None:
        """The adb serial that a device has now, or None while it is not attached."""
        server = self._adb()
        ready = [device.serial for device in await server.devices() if device.state == READY]
        asked = [asyncio.ensure_future(self._is(server, serial, device_id)) for serial in ready]
        try:
            for answer in asyncio.as_completed(asked):
                if found := await answer:
                    self._serials[device_id] = found
                    return found
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return None

    async def _likely(self, device_id: str) -> str | None:
        """As `_where`, asking the device that it was a moment ago before all the others."""
        last = self._serials.get(device_id)
        if last is not None and await self._is(self._adb(), last, device_id):
            return last
        return await self._where(device_id)

    async def _is(self, server: AdbServer, serial: str, device_id: str) -> str | None:
        with contextlib.suppress(AdbProblem, EnrollmentRefused):
            if (await self._hardware(server, serial)).device_id == device_id:
                return serial
        return None

    async def _hardware(self, server: AdbServer, serial: str) -> _Hardware:
        """Raises AdbProblem, or EnrollmentRefused when the device tells nothing that it could be recognised by."""
        number, android_id, clock = await asyncio.gather(
            server.run(serial, ["getprop", "ro.serialno"]),
            server.run(serial, ["settings", "get", "secure", "android_id"]),
            server.run(serial, ["date", "+%s"]),
        )
        known = [text if text != "null" else "" for text in map(_answer, (number, android_id))]
        if not any(known):
            raise unproven(
                f"{serial}: the device has neither a serial number nor an android_id, and could not be told apart.",
                "Set its android_id: adb shell settings put secure android_id <16 hex digits>.",
            )
        device_id = await asyncio.to_thread(self.context.devices.device_id, DEVICE_KIND, "\n".join(known))
        seconds = _answer(clock)
        in_range = seconds.isascii() and seconds.isdigit() and len(seconds) <= 10
        return _Hardware(device_id, datetime.fromtimestamp(int(seconds), UTC) if in_range else None)

    def _adb(self) -> AdbServer:
        if self._server is None:
            raise unproven("adb is switched off on this broker.", "Start it with --adb auto.")
        return self._server


async def _listed(server: AdbServer) -> list[Attached]:
    """What is attached. Raises EnrollmentRefused when the adb server cannot say."""
    try:
        return await server.devices()
    except AdbAbsent as problem:
        raise unproven(problem.public, "") from problem  # it says what to do itself
    except AdbProblem as problem:
        raise unproven(
            f"the adb server at {server.address[0]}:{server.address[1]} cannot be used: {problem.public}.",
            "Restart it: `adb kill-server`, then `adb start-server`.",
        ) from problem


async def _check_holds(server: AdbServer, device: Attached, place: AndroidPath, csr: str) -> None:
    """Raises _NotHere unless the device holds the request where the app says."""
    if device.state != READY:
        reason, remedy = _STATES.get(device.state, (f"its state is {device.state}.", "Check `adb devices`."))
        raise _NotHere(reason, remedy)
    try:
        _container, files = await AppContainer.enter(server, device.serial, place)
    except ContainerProblem as problem:
        raise _NotHere(_with_raw(problem), problem.remedy, again=problem.gone) from problem
    except AdbProblem as problem:
        raise _NotHere(f"{problem.public}.", "Check that the device answers, and try again.") from problem
    if CSR_FILE not in files:
        raise _NotHere(f"the folder holds no {CSR_FILE}.", again=True)
    if not _holds(files, csr):
        raise _NotHere(f"the {CSR_FILE} there is another request.", again=True)


def _answer(output: Output) -> str:
    """The last line of a command that succeeded, else "". Before it, some devices warn of this or that."""
    lines = output.output.decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if output.code == 0 and said else ""


def _holds(files: Mapping[str, bytes], csr: str) -> bool:
    return same_request(files.get(CSR_FILE, b""), csr)


def _place(destination: str, package: str) -> AndroidPath:
    """Where the app keeps its request, held to what Android allows. Raises EnrollmentRefused (step "proof")."""
    if not PACKAGE.fullmatch(package):
        raise unproven(f"{shown(package)} is not a name that an Android app can have.", "Send the package name.")
    place = android_path(destination, package)
    if not INNER_PATH.fullmatch(place.inner):
        raise unproven(
            f"the destination {shown(destination)} holds a character that is not accepted in a path on Android.",
            "Use letters, digits, spaces and . , _ - + = @ % ~ only.",
        )
    return place


def _location(container: Container) -> AndroidPath:
    location = container.location
    return AndroidPath(int(location["user"]), location["package"], location["inner"])


def _with_raw(problem: ContainerProblem) -> str:
    return f"{problem.explanation} (the device said: {shown(problem.raw)})" if problem.raw else problem.explanation


def _nowhere(place: AndroidPath, reasons: Mapping[str, _NotHere]) -> EnrollmentRefused:
    """No device holds the request: what each of them said, and the remedies, each once."""
    told = " ".join(f"{serial}: {reason.reason}" for serial, reason in sorted(reasons.items()))
    remedies = dict.fromkeys(reason.remedy for _, reason in sorted(reasons.items()) if reason.remedy)
    return unproven(
        f"no attached device holds this request in {shown(place.directory)}. {shown(told, MAX_REPORT)}",
        " ".join(remedies) or "Check that the app runs on an attached device, and start it again.",
    )
