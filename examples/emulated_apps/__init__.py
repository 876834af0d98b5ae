"""Emulated apps: what Flipper's SDKs and their plugins do on a phone, in Python, for tests and for trying things out.

Written from a description of the protocol, with no code of the broker's: it can disagree with the broker.
"""

from .databases import Databases
from .network import Network, Reply
from .plugin import NO_REPLY, AppPlugin, Platform, ReceiverError
from .preferences import Preferences

__all__ = [
    "NO_REPLY",
    "AppPlugin",
    "Databases",
    "Network",
    "Platform",
    "Preferences",
    "ReceiverError",
    "Reply",
]
