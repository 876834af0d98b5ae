"""AppPlugin: the app's half of one Flipper plugin, and the habits in which the SDKs of the two systems write JSON.

Nothing here knows how an app is connected: a plugin is handed messages, and hands out events.
"""

import base64
import enum
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

Params: TypeAlias = Mapping[str, Any]
Receiver: TypeAlias = Callable[[Params], object]
"""Gives the value of `success` (or an awaitable of it), NO_REPLY, or raises ReceiverError."""

Emit: TypeAlias = Callable[[str, object], object]
"""Sends one event: its name and its parameters."""


class Platform(enum.Enum):
    """Whose shapes an app speaks. The value is the `os` that such an app names when it connects."""

    ANDROID = "Android"
    IOS = "iOS"


class NoReply(enum.Enum):
    """What a receiver gives that forgets to answer: nothing is ever sent over WebSocket, `{}` over RSocket."""

    NO_REPLY = enum.auto()


NO_REPLY = NoReply.NO_REPLY


class ReceiverError(Exception):
    """A receiver's own answer in the field `error`."""

    def __init__(self, error: Mapping[str, object]) -> None:
        super().__init__(str(error.get("message", error)))
        self.error = dict(error)


class AppPlugin:
    """Subclass it: `id`, `background`, and `receivers` by the names under which a server calls them."""

    id: ClassVar[str] = ""
    background: ClassVar[bool] = False

    def __init__(self, platform: Platform = Platform.ANDROID) -> None:
        self.platform = platform
        self._emit: Emit | None = None

    def receivers(self) -> Mapping[str, Receiver]:
        """The calls that a server may make."""
        return {}

    def on_connect(self) -> None:
        """A server has sent `init`: events go out from here on."""

    def on_disconnect(self) -> None:
        """It has sent `deinit`, or its connection is lost."""

    @property
    def active(self) -> bool:
        """Between `init` and `deinit`."""
        return self._emit is not None

    def emit(self, event: str, params: object) -> bool:
        """Sends an event. False, and nothing is sent, while the plugin is not active."""
        if self._emit is None:
            return False
        self._emit(event, params)
        return True

    def attach(self, emit: Emit | None) -> None:
        """For whoever connects the app: `init` with a way out for events, `deinit` with None. Twice is harmless."""
        if (emit is None) == (self._emit is None):
            return
        self._emit = emit
        if emit is None:
            self.on_disconnect()
        else:
            self.on_connect()

    def fields(self, **values: object) -> dict[str, object]:
        """A JSON object in the habit of the system: Android's builder leaves out what is null, iOS writes it."""
        if self.platform is Platform.IOS:
            return values
        return {name: value for name, value in values.items() if value is not None}

    def base64(self, data: bytes | None) -> str | None:
        """Android breaks the line after every 76 characters and at the end; iOS does not."""
        if data is None:
            return None
        encode = base64.b64encode if self.platform is Platform.IOS else base64.encodebytes
        return encode(data).decode("ascii")

    def call(self, method: str, params: Params) -> object:
        """What a receiver gives. Raises ReceiverError, also for one that there is not or that raised."""
        receiver = self.receivers().get(method)
        if receiver is None:
            raise ReceiverError({"message": f"Receiver {method} not found."})
        try:
            return receiver(params)
        except ReceiverError:
            raise
        except Exception as error:
            raise failed(method, f"{type(error).__name__}: {error}") from error


def failed(method: str, reason: str) -> ReceiverError:
    """What the SDK says about a receiver that raised."""
    return ReceiverError({"message": f"Receiver {method} failed with error. Error: '{reason}'."})
