"""Medium 1 on this machine: desktop apps that keep their files where the broker can reach them.

The proof is that the broker's own user, and nobody else, could have put the request where it was found. It says nothing
about *which* program of that user did; such an identity is marked `filesystem` and never equals one proven by adb.

The app is told the id of this machine as its `deviceId`. Flipper's desktop told desktop apps "" instead; the SDK only
stores the text and sends it back as `device_id`, which then agrees with the certificate.
"""

import asyncio
import contextlib
import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rsocket_broker.credentials import CSR_FILE
from rsocket_broker.enrollment.exchange import FILE_SYSTEM_ACCESS, SignRequest
from rsocket_broker.enrollment.mediums.base import (
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
from rsocket_broker.enrollment.mediums.folder import SUPPORTED, AppFolder, FolderGone, FolderProblem
from rsocket_broker.enrollment.mediums.paths import check_destination, claimed_app_id
from rsocket_broker.errors import ConfigurationError
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.threads import Threads

if TYPE_CHECKING:
    from rsocket_broker.authority.requests import CheckedRequest

_THREADS = Threads("app folders", 1, spare=7)
"""Their own, since a folder may lie on a disk that does not answer: whoever signs must not wait for that. One does all
as long as disks answer, which takes it a tenth of a millisecond; two would fight over Python's lock."""


class FilesystemMedium(Medium):
    """Apps on the broker's own file system: the destination is an absolute path to the app's folder."""

    name: ClassVar[str] = "filesystem"
    number: ClassVar[int] = FILE_SYSTEM_ACCESS
    systems: ClassVar[frozenset[str]] = frozenset({"Linux", "MacOS", "Windows"})
    secures_later: ClassVar[bool] = True
    places: ClassVar[bool] = True
    writes_nonces: ClassVar[bool] = True

    def __init__(self, context: MediumContext) -> None:
        super().__init__(context)
        if not SUPPORTED:
            raise ConfigurationError("This system cannot hold a folder by descriptor, which safe delivery needs.")

    async def prove(self, request: SignRequest, checked: "CheckedRequest") -> Container:
        return await _THREADS.run(self._prove, request, checked.common_name)

    async def deploy(self, container: Container, bundle: Bundle) -> None:
        await _THREADS.run(self._deploy, container, bundle)

    async def holds(self, container: Container, csr: str) -> bool | StillPending:
        return await asyncio.to_thread(self._holds, container, csr)

    async def place(self, container: Container, bundle: Bundle) -> None:
        await _THREADS.run(self._deploy, container, bundle)

    async def secure(self, containers: Sequence[Container]) -> None:
        await asyncio.to_thread(self._secure, containers)

    async def write_nonce(self, container: Container, name: str, content: bytes) -> None:
        try:
            await asyncio.to_thread(self._write_nonce, container, name, content)
        except FolderProblem as problem:
            raise unproven(
                "the broker could not write a nonce into the app's folder.", "The log of the broker says why."
            ) from problem

    async def remove_nonce(self, container: Container, name: str) -> StillPending | None:
        return await asyncio.to_thread(self._remove_nonce, container, name)

    async def settle(self, entry: JournalEntry) -> Settled | StillPending:
        return await asyncio.to_thread(self._settle, entry)

    def device_id(self, directory: str) -> str:
        """The device that a folder (resolved) is on."""
        del directory  # every folder here is on this machine
        return self.context.devices.host_device_id()

    def device_names(self) -> tuple[str, ...]:
        """What this machine is called."""
        return (platform.node(),)

    def _prove(self, request: SignRequest, common_name: str) -> Container:
        directory = check_destination(request.destination)
        app_id = claimed_app_id(request, common_name)
        if not directory.startswith("/"):
            raise unproven(
                "the destination is not an absolute path.",
                "An app on the broker's own machine must send the whole path of its folder.",
            )
        try:
            with AppFolder.open(directory) as folder:
                folder.check_request(request.csr)
                principal = Principal(app_id, self.device_id(folder.path), Proof.FILESYSTEM)
                names = (platform.node(),)
                return Container(medium=self.name, principal=principal, location=folder.location(), device_names=names)
        except FolderProblem as problem:
            raise unproven(
                "the destination is not shown to be this app's own folder.",
                "It must be a folder, not a link, owned by the user that the broker runs as, writable by nobody else, "
                f"and hold the very request that was sent as {CSR_FILE}. The log of the broker says what is wrong.",
            ) from problem

    def _holds(self, container: Container, csr: str) -> bool | StillPending:
        try:
            with AppFolder.reopen(container.location) as folder:
                return folder.holds_request(csr)
        except FolderGone as problem:
            # A disk that is not mounted comes back; another folder in the same place is another app's.
            return False if os.path.lexists(container.location["directory"]) else StillPending(str(problem))
        except FolderProblem as problem:
            return StillPending(str(problem))

    def _deploy(self, container: Container, bundle: Bundle) -> None:
        try:
            with AppFolder.reopen(container.location) as folder:
                folder.place(bundle)
        except FolderProblem as problem:
            raise undelivered(
                "the certificates could not be put into the app's folder.",
                "Ask again; if it stays so, the log of the broker says what is in the way.",
            ) from problem

    def _write_nonce(self, container: Container, name: str, content: bytes) -> None:
        with AppFolder.reopen(container.location) as folder:
            folder.write_nonce(name, content)

    def _remove_nonce(self, container: Container, name: str) -> StillPending | None:
        try:
            with AppFolder.reopen(container.location) as folder:
                folder.remove_nonce(name)
        except FolderGone:
            return None
        except FolderProblem as problem:
            return StillPending(str(problem))
        return None

    def _secure(self, containers: Sequence[Container]) -> None:
        for container in containers:
            with contextlib.suppress(FolderProblem), AppFolder.reopen(container.location) as folder:
                folder.secure()

    def _settle(self, entry: JournalEntry) -> Settled | StillPending:
        try:
            with AppFolder.reopen(entry.container.location) as folder:
                return Settled(folder.settle(entry.bundle))
        except FolderGone:
            return Settled(Outcome.UNDONE)
        except FolderProblem as problem:
            return StillPending(str(problem))
