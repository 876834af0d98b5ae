"""What a client that has proved nothing is called in lists, logs and rules: its own words, made fit for that. Pure.

Two names that differ in more than blanks and signs stay two: what is cut, or beyond ASCII, leaves a digest behind.
"""

import hashlib
import re
from typing import Final

from rsocket_broker.claims import Claims
from rsocket_broker.identity import Identity, unverified

MAX_APP: Final = 64
MAX_DEVICE: Final = 128
"""Characters of the two labels: as many as names in certificates have."""
DIGEST: Final = 8
"""Hexadecimal digits of a digest behind a label: nobody gains by having another's label, so this is against chance."""
NAMELESS: Final = "app"
"""For a name of which nothing is left."""

_NOT_IN_IDS: Final = re.compile(r"[^A-Za-z0-9_.]+", re.ASCII)
_NOT_PRINTED: Final = re.compile(r"[^\x20-\x7e]")


def identity_of(claims: Claims) -> Identity:
    """The identity of a browser or Node app, from what it claims."""
    return unverified(app_label(claims.app_id or claims.app), device_label(claims.device_id, claims.device))


def app_label(name: str) -> str:
    """In the form of an app id, so that rules and commands can name it: `My app` is `My-app`."""
    label = _NOT_IN_IDS.sub("-", name).strip("-.")
    if name.isascii() and label and len(label) <= MAX_APP:
        return label
    return f"{label[: MAX_APP - DIGEST - 1] or NAMELESS}-{_digest(name)}"


def device_label(device_id: str, device: str) -> str:
    """In printable ASCII. js-flipper writes the name of the device before the id, which says nothing more."""
    bare = device_id.removeprefix(device) or device_id
    label = _NOT_PRINTED.sub("?", bare)
    if label == bare and len(label) <= MAX_DEVICE:
        return label
    return f"{label[: MAX_DEVICE - DIGEST - 1]}-{_digest(device_id)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]
