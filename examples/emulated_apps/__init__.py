"""Emulated apps: what Flipper's SDKs and their plugins do on a phone, in Python, for tests and for trying things out.

Written from a description of the protocol, with no code of the broker's: it can disagree with the broker.
"""

from .databases import Databases
from .images import Fresco, Image
from .network import Network, Reply
from .plugin import NO_REPLY, AppPlugin, Platform, ReceiverError
from .preferences import Preferences
from .reports import CrashReporter, LeakCanary, Navigation
from .views import Inspector, UiDebugger, View

__all__ = [
    "NO_REPLY",
    "AppPlugin",
    "CrashReporter",
    "Databases",
    "Fresco",
    "Image",
    "Inspector",
    "LeakCanary",
    "Navigation",
    "Network",
    "Platform",
    "Preferences",
    "ReceiverError",
    "Reply",
    "UiDebugger",
    "View",
]
