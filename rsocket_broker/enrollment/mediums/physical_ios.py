"""Medium 1 for physical iOS devices, by a command that the operator has installed: `idb`, or `pymobiledevice3`.

    pull app.csr from each device, and compare  ->  sign  ->  push sonarCA.crt, then device.crt, and read each back

Only apps that were signed for development have a container that such commands can read. They have no rename, so that a
file is overwritten in its place; `settle` pushes both again, which ends a deployment wherever it was cut off.
"""

import asyncio
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, Protocol

from rsocket_broker.authority.requests import same_request
from rsocket_broker.credentials import CSR_FILE
from rsocket_broker.enrollment.command import CommandFailed, run
from rsocket_broker.enrollment.exchange import FILE_SYSTEM_ACCESS, SignRequest, Step
from rsocket_broker.enrollment.mediums.base import (
    MAX_REQUEST_FILE,
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
from rsocket_broker.enrollment.mediums.paths import check_destination, claimed_app_id
from rsocket_broker.enrollment.mediums.simulator import DEVICE_PATH
from rsocket_broker.errors import EnrollmentRefused
from rsocket_broker.identity import Principal, Proof

if TYPE_CHECKING:
    from rsocket_broker.authority.requests import CheckedRequest

DEVICE_KIND: Final = "ios"
MAX_DEVICES: Final = 16
"""Asked one after the other: as many as a hub has ports."""
MAX_ASKING: Final = 4
"""Requests that look, or wait to look, for their device. Each takes seconds, and anybody may send them: more would take
all the turns that there are for enrolments of any kind."""
_CONTAINER: Final = re.compile(r"/Application/[0-9A-Fa-f-]{36}/(.+)")
_UDID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{16}|-[0-9A-Fa-f]{4}-.{4}-.{4}-.{12})|[0-9a-f]{40}")
_BUNDLE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,254}", re.ASCII)
_SEE_LOG: Final = "The log of the broker has what the command said."
"""Not the asker: it may be anybody, and would learn which devices are here, and where our files are."""
INSTALL: Final = (
    "Install one of them: `pip install pymobiledevice3`, or `brew install idb-companion` and `pip install fb-idb`; or "
    "let the operator send the certificates sealed ([mediums.qr_bundle])."
)


class Device(NamedTuple):
    """One that is attached."""

    udid: str
    name: str


class Tool(Protocol):
    """A command that reaches devices. All raise CommandFailed with its own words."""

    program: str

    async def devices(self) -> list[Device]: ...

    async def pull(self, udid: str, bundle: str, path: str, folder: Path) -> bytes:
        """A file of the app's container; `path` is relative to it, and `folder` a new one of ours."""

    async def push(self, udid: str, bundle: str, source: Path, directory: str) -> None:
        """Puts a file into a folder of the container under the name it has here."""


class Idb:
    """Facebook's `idb`. Its versions differ in what the destination of a pull is: a folder, or the file itself."""

    def __init__(self, program: str) -> None:
        self.program = program

    async def devices(self) -> list[Device]:
        listed = await run(self.program, ["list-targets", "--json"])
        return [
            Device(str(one.get("udid")), str(one.get("name")))
            for one in _objects(listed.stdout.splitlines())
            if str(one.get("type") or one.get("target_type")) == "device" and one.get("state") == "Booted"
        ]

    async def pull(self, udid: str, bundle: str, path: str, folder: Path) -> bytes:
        where, target = ["--udid", udid, "--bundle-id", bundle], folder / path.rpartition("/")[2]
        try:
            await run(self.program, ["file", "pull", *where, path, str(folder)])
        except CommandFailed:
            await run(self.program, ["file", "pull", *where, path, str(target)])
        return _content(target)

    async def push(self, udid: str, bundle: str, source: Path, directory: str) -> None:
        await run(self.program, ["file", "push", "--udid", udid, "--bundle-id", bundle, str(source), directory])


class PyMobileDevice:
    """`pymobiledevice3`, which works on every system."""

    def __init__(self, program: str) -> None:
        self.program = program

    async def devices(self) -> list[Device]:
        listed = await run(self.program, ["usbmux", "list"])
        try:
            found = json.loads(listed.stdout)
        except (ValueError, RecursionError):
            found = None
        ones = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        return [
            Device(str(one.get("Identifier") or one.get("UniqueDeviceID")), str(one.get("DeviceName"))) for one in ones
        ]

    async def pull(self, udid: str, bundle: str, path: str, folder: Path) -> bytes:
        target = folder / path.rpartition("/")[2]
        await run(self.program, ["apps", "pull", "--udid", udid, bundle, path, str(target)])
        return _content(target)

    async def push(self, udid: str, bundle: str, source: Path, directory: str) -> None:
        target = f"{directory}/{source.name}"
        await run(self.program, ["apps", "push", "--udid", udid, bundle, str(source), target])


def find_tool() -> Tool | None:
    """What is installed here; it is looked for at each exchange, so that nothing has to be started anew."""
    if (program := shutil.which("idb")) is not None:
        return Idb(program)
    program = shutil.which("pymobiledevice3")
    return None if program is None else PyMobileDevice(program)


class PhysicalIosMedium(Medium):
    """Apps on iOS devices that are attached to this machine."""

    name: ClassVar[str] = "physical_ios"
    number: ClassVar[int] = FILE_SYSTEM_ACCESS
    systems: ClassVar[frozenset[str]] = frozenset({"iOS"})

    def __init__(self, context: MediumContext) -> None:
        super().__init__(context)
        self._one_at_a_time = asyncio.Lock()
        """The commands share one tunnel to each device, and get into each other's way."""
        self._asking = 0

    def handles(self, request: SignRequest) -> bool:
        there = request.destination
        return super().handles(request) and DEVICE_PATH.search(there) is None and _CONTAINER.search(there) is not None

    async def prove(self, request: SignRequest, checked: "CheckedRequest") -> Container:
        app_id = claimed_app_id(request, checked.common_name)
        inner = inner_path(request.destination)
        if not _BUNDLE.fullmatch(app_id):
            raise unproven("the app id is not a name that an iOS app can have.", "Use the app's bundle id.")
        tool = find_tool()
        if tool is None:
            raise unproven(
                "physical iOS devices are reached by `idb` or `pymobiledevice3`, and neither is here.", INSTALL
            )
        if self._asking >= MAX_ASKING:
            raise EnrollmentRefused(
                Step.LIMITS, "too many apps on iOS devices ask at once.", "Try again in some seconds."
            )
        self._asking += 1
        try:
            async with self._one_at_a_time:
                device = await self._search(tool, app_id, inner, checked.csr_pem)
        finally:
            self._asking -= 1
        device_id = await asyncio.to_thread(self.context.devices.device_id, DEVICE_KIND, device.udid)
        return Container(
            medium=self.name,
            principal=Principal(app_id, device_id, Proof.FILESYSTEM),
            location={"udid": device.udid, "bundle": app_id, "directory": inner},
            device_names=(device.udid, device.name),
        )

    async def _search(self, tool: Tool, app_id: str, inner: str, csr: str) -> Device:
        """The first device whose app holds the very same request."""
        problems: list[str] = []
        try:
            devices = [one for one in await tool.devices() if _UDID.fullmatch(one.udid)][:MAX_DEVICES]
        except CommandFailed as error:
            raise unproven("the iOS devices cannot be listed.", _SEE_LOG) from error
        for device in devices:
            try:
                if same_request(await _read(tool, device.udid, app_id, f"{inner}/{CSR_FILE}"), csr):
                    return device
            except CommandFailed as error:
                problems.append(f"{device.udid}: {error.public}")
        said = CommandFailed("; ".join(problems) or f"{len(devices)} devices are attached, and none holds it")
        raise unproven(
            f"no iOS device that is attached has this request of {app_id}.",
            f"Attach the device, unlock it and trust this machine; the app must be signed for development. {_SEE_LOG}",
        ) from said

    async def deploy(self, container: Container, bundle: Bundle) -> None:
        tool = find_tool()
        if tool is None:
            raise undelivered("the command that reaches the device has gone.", INSTALL)
        try:
            async with self._one_at_a_time:
                if not await self._holds(tool, container, bundle.csr):
                    raise undelivered("the app has made another request since.", "It asks again by itself.")
                await self._put(tool, container, bundle)
        except CommandFailed as error:
            raise undelivered(
                "the certificates could not be put on the device.", f"Unlock it, and try again. {_SEE_LOG}"
            ) from error

    async def settle(self, entry: JournalEntry) -> Settled | StillPending:
        """Both files are put there again; of those, nothing is left over that has another name."""
        tool = find_tool()
        if tool is None:
            return StillPending("neither idb nor pymobiledevice3 is here")
        try:
            async with self._one_at_a_time:
                if not await self._holds(tool, entry.container, entry.bundle.csr):
                    return Settled(Outcome.UNDONE)
                await self._put(tool, entry.container, entry.bundle)
        except CommandFailed as error:
            return StillPending(error.public)
        return Settled(Outcome.FINISHED)

    async def _holds(self, tool: Tool, container: Container, csr: str) -> bool:
        where = container.location
        found = await _read(tool, where["udid"], where["bundle"], f"{where['directory']}/{CSR_FILE}")
        return same_request(found, csr)

    async def _put(self, tool: Tool, container: Container, bundle: Bundle) -> None:
        """Raises CommandFailed unless what is read back is what was sent."""
        where = container.location
        with tempfile.TemporaryDirectory(prefix="rsocket-broker-") as folder:
            for name, content in bundle.files():
                source = Path(folder) / name
                await asyncio.to_thread(source.write_bytes, content)
                await tool.push(where["udid"], where["bundle"], source, where["directory"])
                found = await _read(tool, where["udid"], where["bundle"], f"{where['directory']}/{name}")
                if found != content:
                    raise CommandFailed(f"{name} is not there as it was sent.")


def inner_path(destination: str) -> str:
    """What follows the app's container in `destination`. Raises EnrollmentRefused (step "proof")."""
    found = _CONTAINER.search(check_destination(destination))
    if found is None:
        raise unproven(
            "the destination lies in no container of an iOS app.",
            "Send the path of the app's own folder, from the root.",
        )
    if found[1].startswith("-"):
        raise unproven("the destination begins with a dash in its container.", "Use another folder.")
    return found[1]


async def _read(tool: Tool, udid: str, bundle: str, path: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="rsocket-broker-") as folder:
        return await tool.pull(udid, bundle, path, Path(folder))


def _content(path: Path) -> bytes:
    """What was pulled: a small regular file. Raises CommandFailed."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_REQUEST_FILE:
        raise CommandFailed(f"{path.name} did not come as a small file.")
    return path.read_bytes()


def _objects(lines: list[bytes]) -> list[dict[str, object]]:
    """One JSON object a line; others are passed over."""
    found = []
    for line in lines:
        try:
            one = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(one, dict):
            found.append(one)
    return found
