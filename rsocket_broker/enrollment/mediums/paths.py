"""Rules for the paths that strangers send, and for whose container they name. Pure text: no file is looked at.

A path that breaks a rule is refused, never mended: what an app did not mean is not what the broker should guess.
"""

import re

import attrs

from rsocket_broker.claims import shown
from rsocket_broker.credentials import APP_ID, FALLBACK_COMMON_NAME, MAX_APP_ID, MAX_COMMON_NAME
from rsocket_broker.enrollment.exchange import SignRequest
from rsocket_broker.enrollment.mediums.base import unproven
from rsocket_broker.errors import EnrollmentRefused

_DATA_DIRECTORY = re.compile(r"/data/(?:user/(0|[1-9]\d{0,8})|data)/([^/]+)/(.+)")
_QUOTES = "'\"`"

_REMEDY = "The app must send the folder that it keeps its own app.csr in."


@attrs.frozen(slots=True)
class AndroidPath:
    """A folder in a package's container: `/data/user/<user>/<package>/<inner>`; `inner` has no slash at its ends."""

    user: int
    package: str
    inner: str

    @property
    def directory(self) -> str:
        return f"/data/user/{self.user}/{self.package}/{self.inner}"


def check_destination(destination: str) -> str:
    """`destination` without the slash at its end. Nothing about where it leads: only that it means one place.

    Raises EnrollmentRefused (step "proof") for control characters, quotes, `.` and `..` steps, and doubled slashes.
    """
    if not destination:
        raise unproven("the request names no destination.", _REMEDY)
    if not ((destination.isascii() and destination.isprintable()) or all(map(_is_plain, destination))):
        raise _refused(destination, "holds a control character")
    if any(quote in destination for quote in _QUOTES):
        raise _refused(destination, "holds a quote")
    path = destination.removesuffix("/")
    steps = path.removeprefix("/").split("/")
    if "" in steps:
        raise _refused(destination, "has an empty step")
    if ".." in steps or "." in steps:
        raise _refused(destination, "has a step . or ..")
    return path


def android_path(destination: str, package: str) -> AndroidPath:
    """Where `destination` lies in the container of `package`: two packages never get one place from the same text.

    A relative path is joined to the container of user 0 (its data folder); an absolute one must lie inside
    `/data/user/N/<package>/` or `/data/data/<package>/`. Raises EnrollmentRefused (step "proof").
    """
    path = check_destination(destination)
    if not path.startswith("/"):
        return AndroidPath(0, package, path)
    found = _DATA_DIRECTORY.fullmatch(path)
    if not found:
        raise _refused(destination, f"lies in no container: it must be /data/user/N/{package}/… or relative")
    if found[2] != package:
        raise _refused(destination, f"lies outside the container of {package}")
    return AndroidPath(int(found[1] or 0), package, found[3])


def claimed_app_id(request: SignRequest, common_name: str) -> str:
    """The app id that a request is made for: its common name, or for a long id what stands in for it.

    An id of 64 characters or more does not fit: the SDK writes `com.flipper`, and the id is taken from the claim
    `app_id`, else from an Android path. The driver still has to prove it.
    Raises EnrollmentRefused (step "proof") when the claim contradicts the name, or says nothing usable.
    """
    claimed = request.claims.app_id
    if common_name != FALLBACK_COMMON_NAME:
        if claimed not in ("", "unknown", FALLBACK_COMMON_NAME, common_name):
            raise unproven(
                f"app_id is {shown(claimed)}, but the signing request is for {common_name}.",
                "The app must make its request with its own id as common name.",
            )
        return common_name
    app_id = claimed if claimed not in ("", "unknown") else _package_in(request.destination)
    if len(app_id) <= MAX_COMMON_NAME or not APP_ID.fullmatch(app_id):
        raise unproven(
            f"the signing request is for {FALLBACK_COMMON_NAME}, which stands for an id of {MAX_COMMON_NAME + 1} to "
            f"{MAX_APP_ID} characters, and neither app_id nor the destination gives such an id.",
            "Send app_id in SETUP, or make the request with the app's own id as common name.",
        )
    return app_id


def _package_in(destination: str) -> str:
    found = _DATA_DIRECTORY.fullmatch(destination)
    return found[2] if found else ""


def _is_plain(char: str) -> bool:
    """Not a control character, a line or paragraph separator, or half of a surrogate pair."""
    return char.isprintable() or (char >= "\u00a0" and char not in "\u2028\u2029" and not "\ud800" <= char <= "\udfff")


def _refused(destination: str, why: str) -> EnrollmentRefused:
    return unproven(f"the destination {shown(destination)} {why}.", _REMEDY)
