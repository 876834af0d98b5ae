"""An app's container on an Android device: what is read there, and how the two certificates are put there.

Every script is a constant. What differs from call to call, paths included, goes in as its arguments, so that no text
of a stranger is ever part of a shell's program; contents go through standard input.
"""

import re
import secrets
from collections.abc import Mapping

import attrs

from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE, CSR_FILE
from rsocket_broker.enrollment.mediums.adb_shell import AdbServer, Output
from rsocket_broker.enrollment.mediums.base import PUBLIC_FILE_MODE, TEMPORARY_SUFFIX, Bundle
from rsocket_broker.enrollment.mediums.paths import AndroidPath
from rsocket_broker.enrollment.mediums.run_as import Refusal, RunAs, Su, is_app_of, recognise

PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*", re.ASCII)
"""What Android accepts as a package name (PackageParser.validateName)."""
INNER_PATH = re.compile(r"[\w.,+=@%~ -]+(?:/[\w.,+=@%~ -]+)*", re.ASCII)
"""A folder inside a container. Quoting would carry more; no SDK uses more, so no more is taken."""
MAX_RAW = 300
"""Characters of a device's own words that are kept for a message: its first lines say what is wrong."""

_ENTER = (
    'cd "$1" || exit 41; top=$(pwd -P); cd "./$2" || exit 42; here=$(pwd -P); '
    'case "$here/" in "$top"/*) ;; *) exit 43;; esac; '
)
"""Into folder $2 of container $1; refuses when a link on the way leads out of the container. $3 is this call's mark.
`./` since a folder may be called `-`, which `cd` takes for another one."""
_LOOK = (
    f"for f in {CSR_FILE} {CA_FILE} {CA_FILE}{TEMPORARY_SUFFIX}; do "
    'if [ -f "$f" ] && [ ! -h "$f" ]; then echo; echo "$3:$f"; cat "$f" 2>/dev/null; fi; done'
)
_FLUSH = '{ fsync "$f" 2>/dev/null || sync; }'
"""Onto the flash. `fsync` came with Android 8; `sync` flushes everything, and may take seconds."""
_WRITE = (
    f'f="$4"; {{ rm -f "$f" && umask 077 && cat > "$f" && chmod {PUBLIC_FILE_MODE:o} "$f" && {_FLUSH}; }} || exit 46; '
    'echo; echo "$3:$f"; cat "$f" 2>/dev/null'
)
_WRITE_NONCE = 'f="$4"; { umask 077 && set -C && cat > "$f"; } || exit 47; echo; echo "$3:$f"; cat "$f" 2>/dev/null'
"""`set -C`: nothing that stands there is written over, and no link followed."""
_REMOVE = 'rm -f "$4" || exit 46'
_RENAME = (
    'mark="$3"; shift 3; '
    f'for f in "$@"; do [ -d "$f" ] && exit 44; [ -f "$f{TEMPORARY_SUFFIX}" ] || exit 45; done; '
    f'for f in "$@"; do mv -f "$f{TEMPORARY_SUFFIX}" "$f" || exit 46; done; '
    f"f=.; {_FLUSH} || exit 46; "
    'for f in "$@"; do echo; echo "$mark:$f"; cat "$f" 2>/dev/null; done'
)
"""The files that the further arguments name, in their order; all of them must be there before the first is renamed."""
_UNDO = f"rm -f {CERTIFICATE_FILE}{TEMPORARY_SUFFIX} && rm -f {CA_FILE}{TEMPORARY_SUFFIX} || exit 46"
"""The last file first: while the first one's temporary file exists, nothing has been renamed."""

_SEND_OWN_FOLDER = "The app must send the folder that it keeps its own app.csr in."


@attrs.frozen(slots=True)
class _ExitCode:
    explanation: str
    remedy: str
    gone: bool = False


_EXIT_CODES: Mapping[int, _ExitCode] = {
    41: _ExitCode("the app has no container.", "Install and start the app once.", gone=True),
    42: _ExitCode("the app's container has no such folder.", _SEND_OWN_FOLDER, gone=True),
    43: _ExitCode("a link in the destination leads out of the app's container.", _SEND_OWN_FOLDER),
    44: _ExitCode("a folder stands where a certificate should be.", "Clear the app's data and start it again."),
    45: _ExitCode("a file that had been written has gone again.", "Start the app again."),
    46: _ExitCode(
        "the device did not let a file be written in the app's folder.",
        "Check that there is room on the device; where its SELinux rules forbid run-as to write, use a device or "
        "emulator image that allows it.",
    ),
    47: _ExitCode(
        "the device did not let a nonce be written in the app's folder.",
        "Check that there is room on the device, and try again.",
    ),
}


class ContainerProblem(Exception):
    """Why a container cannot be entered or used. `raw` is what the device said; `gone`: there is nothing to use."""

    def __init__(
        self, explanation: str, remedy: str, raw: str = "", *, su_may_help: bool = False, gone: bool = False
    ) -> None:
        super().__init__(explanation)
        self.explanation, self.remedy, self.raw = explanation, remedy, raw
        self.su_may_help, self.gone = su_may_help, gone

    @classmethod
    def of(cls, output: Output) -> "ContainerProblem":
        """What a command that failed says about the container."""
        raw = " ".join(output.text.split())[:MAX_RAW]
        if known := _EXIT_CODES.get(output.code):
            return cls(known.explanation, known.remedy, raw, gone=known.gone)
        if refusal := recognise(raw):
            return cls.refused(refusal, raw)
        return cls(
            "the app's container could not be entered.",
            "Try the same with `adb shell run-as`, and see what it says.",
            raw or f"exit code {output.code}",
        )

    @classmethod
    def refused(cls, refusal: Refusal, raw: str) -> "ContainerProblem":
        return cls(
            refusal.explanation, refusal.remedy, raw, su_may_help=refusal.su_may_help, gone=not refusal.installed
        )


@attrs.frozen(slots=True)
class AppContainer:
    """The folder `place` on the device `serial`, entered by `way`. Use `AppContainer.enter`.

    Every method raises ContainerProblem, or an AdbProblem when the device does not answer.
    """

    server: AdbServer
    serial: str
    place: AndroidPath
    way: RunAs | Su

    @classmethod
    async def enter(cls, server: AdbServer, serial: str, place: AndroidPath) -> "tuple[AppContainer, dict[str, bytes]]":
        """The container, and what `look` sees in it; by `run-as`, or by `su` where that may help."""
        container = cls(server, serial, place, RunAs(place.package, place.user))
        try:
            return container, await container.look()
        except ContainerProblem as problem:
            if not problem.su_may_help:
                raise
            way = await _su(server, serial, place)
            if way is None:
                raise
            container = attrs.evolve(container, way=way)
            return container, await container.look()

    async def look(self) -> dict[str, bytes]:
        """File name → content, of the request, the anchor and its temporary file; links and what is absent left out."""
        return await self._run(_LOOK)

    async def write(self, name: str, content: bytes) -> None:
        """Writes one file beside its place, onto the flash, and reads it back."""
        temporary = name + TEMPORARY_SUFFIX
        found = await self._run(_WRITE, temporary, stdin=content)
        _compare(found, temporary, content)

    async def deliver(self, bundle: Bundle) -> None:
        """The bundle's files, written beside and verified; then renamed, the certificate last, and read once more in
        place."""
        for name, content in bundle.files():
            await self.write(name, content)
        found = await self._run(_RENAME, *(name for name, _ in bundle.files()))
        for name, content in bundle.files():
            _compare(found, name, content)

    async def write_nonce(self, name: str, content: bytes) -> None:
        """A new file for the app's own user alone, read back."""
        _compare(await self._run(_WRITE_NONCE, name, stdin=content), name, content)

    async def remove(self, name: str) -> None:
        """Takes one file away, if it is there."""
        await self._run(_REMOVE, name)

    async def undo(self) -> None:
        """Removes the temporary files."""
        await self._run(_UNDO)

    async def _run(self, script: str, *arguments: str, stdin: bytes = b"") -> dict[str, bytes]:
        """Runs a script inside the folder; answers the files that it printed behind this call's mark."""
        mark = secrets.token_hex(8)
        container = f"/data/user/{self.place.user}/{self.place.package}"
        command = ["sh", "-c", _ENTER + script, "sh", container, self.place.inner, mark, *arguments]
        output = await self.server.run(self.serial, self.way.arguments(command), stdin)
        if output.code != 0:
            raise ContainerProblem.of(output)
        pieces = output.output.split(f"\n{mark}:".encode())[1:]
        parted = (piece.partition(b"\n") for piece in pieces)
        return {name.decode("ascii", "replace").strip(): content.strip() for name, _, content in parted}


def _compare(found: Mapping[str, bytes], name: str, content: bytes) -> None:
    if found.get(name) != content.strip():
        raise ContainerProblem(
            f"{name} does not read back as it was written.", "Check that there is room on the device.", ""
        )


async def _su(server: AdbServer, serial: str, place: AndroidPath) -> Su | None:
    """The way through `su`, as the app's own user; None where there is no su that works.

    Raises ContainerProblem when the container belongs to the system: its user may do more than any app.
    """
    ask = ["stat", "-c", "%u", f"/data/user/{place.user}/{place.package}"]
    for line in (False, True):
        output = await server.run(serial, Su(0, line).arguments(ask))
        words = output.text.split()
        if output.code != 0 or not words or not words[-1].isdigit():
            continue
        uid = int(words[-1])
        if not is_app_of(uid, place.user):
            raise ContainerProblem(
                f"the app's folder belongs to user {uid}, who is no app of user {place.user}.",
                "Apps that share a user with the system cannot be enrolled.",
            )
        return Su(uid, line)
    return None
