"""The ways into an app's container on Android, and what it means when a way is closed.

`run-as PACKAGE` becomes the user of a debuggable app. Where it is refused or broken, `su` on a rooted device or an
emulator image does the same: it is only ever used to become *the app's own user*, never to touch an app's files as
root, since an app may have laid a link there.
"""

from collections.abc import Sequence

import attrs

FIRST_APP_ID, LAST_APP_ID = 10000, 19999
"""Android gives apps user numbers in this range (android_filesystem_config.h); lower ones belong to the system."""
IDS_PER_USER = 100000
"""User number of an app = 100000 × the device's user + the app's id."""


@attrs.frozen(slots=True)
class Refusal:
    """A recognised failure. `explanation` and `remedy` are sentences; `su_may_help` says whether to try `su` next."""

    name: str
    phrases: tuple[str, ...]
    explanation: str
    remedy: str
    su_may_help: bool = True
    installed: bool = True
    """Whether the package is on the device at all, for this user."""


_DEBUG_BUILD = "Install a debug build of the app, or use an emulator image or rooted device, where `su` works."

REFUSALS = (
    Refusal(
        "no capabilities",
        ("could not set capabilities", "couldn't set capabilities"),
        "run-as could not set its capabilities, a fault of some Samsung models.",
        "Choose the app under Developer options > Select debug app, or update Android.",
    ),
    Refusal(
        "not debuggable",
        ("not debuggable", "isn't debuggable"),
        "the app is not debuggable.",
        _DEBUG_BUILD,
    ),
    Refusal(
        "not an application",
        ("not an application",),
        "the package is not an application.",
        "Check that the app, and not only a library or test package, is installed.",
    ),
    Refusal(
        "unknown package",
        ("unknown package", "is unknown", "unknown user"),
        "the app is not installed for that user of the device.",
        "Check the app's id, and for which user or work profile it is installed.",
        su_may_help=False,
        installed=False,
    ),
    Refusal(
        "wrong owner",
        ("wrong owner",),
        "run-as does not accept the owner of the app's folder (storage adopted from an SD card, some Xiaomi models).",
        "Move the app to the internal storage.",
    ),
    Refusal(
        "corrupt",
        ("corrupt or inaccessible", "corrupt installation"),
        "run-as finds the app's installation corrupt or out of reach.",
        "Install the app again; on a locked device, unlock it once after the start.",
    ),
    Refusal(
        "not permitted",
        ("not permitted",),
        "run-as is not permitted, a fault of some Samsung models.",
        "Choose the app under Developer options > Select debug app, or update Android.",
    ),
    Refusal(
        "no such option",
        ("exec failed for --user",),
        "this Android's run-as cannot enter another user's apps.",
        "Install the app for the owner of the device (user 0).",
    ),
    Refusal(
        "no run-as",
        ("run-as: not found", "run-as: inaccessible or not found"),
        "the device has no run-as.",
        _DEBUG_BUILD,
    ),
    Refusal(
        "permission denied",
        ("permission denied",),
        "the device forbids run-as.",
        _DEBUG_BUILD,
    ),
)
"""Looked through in order, without regard to case: the more particular phrase stands first."""

NO_SU = Refusal(
    "no su",
    ("su: not found", "su: inaccessible or not found", "su: can't execute", "su: permission denied"),
    "the device has no su.",
    _DEBUG_BUILD,
    su_may_help=False,
)


def recognise(text: str) -> Refusal | None:
    """The failure that a way's output speaks of; None when it is none that is known."""
    lowered = text.lower()
    for refusal in (NO_SU, *REFUSALS):
        if any(phrase in lowered for phrase in refusal.phrases):
            return refusal
    return None


@attrs.frozen(slots=True)
class RunAs:
    """Through `run-as`. `--user` is not said for user 0: before Android 7 it is not understood."""

    package: str
    user: int
    name: str = "run-as"

    def arguments(self, command: Sequence[str]) -> list[str]:
        other = ["--user", str(self.user)] if self.user else []
        return ["run-as", self.package, *other, *command]


@attrs.frozen(slots=True)
class Su:
    """Through `su`, as the user number `uid`. There are two kinds, which tell users and commands apart differently:

    `su UID COMMAND ARGUMENT…` on images made for development, `su UID -c LINE` where the owner added su (`line`).
    """

    uid: int
    line: bool
    name: str = "su"

    def arguments(self, command: Sequence[str]) -> list[str]:
        from rsocket_broker.enrollment.mediums.adb_shell import shell_line

        return ["su", str(self.uid), *(["-c", shell_line(command)] if self.line else command)]


def is_app_of(uid: int, user: int) -> bool:
    """Whether a user number belongs to an app of one user of the device, and not to the system."""
    return uid // IDS_PER_USER == user and FIRST_APP_ID <= uid % IDS_PER_USER <= LAST_APP_ID
