"""What a handler is handed: one `App` per session of a client, as each plugin sees it."""

import abc
from collections.abc import AsyncGenerator, AsyncIterable
from types import SimpleNamespace
from typing import Any

from rsocket_broker.errors import ApplicationError
from rsocket_broker.identity import Identity
from rsocket_broker.plugin_api.device import Device

CALL_TIMEOUT = 30.0
"""Seconds that a call to an app may take when the caller does not say. Some shipped apps never answer some calls."""


class App(abc.ABC):
    """A connected client, seen by one plugin. Hashable; equal only to itself; the same object for a whole session.

    `state` is the author's own: any attribute may be set on it, or it may be replaced by an object of a class of
    their own. The broker never looks at it, and drops it with the session.
    """

    state: Any

    def __init__(self) -> None:
        self.state = SimpleNamespace()

    @property
    @abc.abstractmethod
    def id(self) -> str:
        """The session's id, as `clients list` shows it; another one after a reconnect."""

    @property
    @abc.abstractmethod
    def identity(self) -> Identity:
        """Who the client is, from its certificate. The only thing here that a client cannot make up."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The label that the app gives itself; for display only. The app id when it gave none."""

    @property
    @abc.abstractmethod
    def os(self) -> str:
        """The operating system that the app claims (`Android`, `iOS`, ...); "" when it claims none."""

    @property
    @abc.abstractmethod
    def device(self) -> str:
        """The device name that the app claims; "" when it claims none."""

    @property
    def kind(self) -> str:
        """What the client's session is for: `device` has the certificate itself; `web`, `cli` and `plugin` were let in
        by a session with it, and have a token."""
        return "device"

    @property
    def user(self) -> str:
        """The user that the session was bound to by whoever let it in; "" for nobody."""
        return ""

    @property
    @abc.abstractmethod
    def data_mime(self) -> str:
        """The MIME type of request data that the client declared when it connected."""

    @abc.abstractmethod
    async def call(self, method: str, params: object = None, *, timeout: float | None = CALL_TIMEOUT) -> Any:
        """Call `method` of this plugin's app side; the answer as JSON. `params` of None is sent as `{}`.

        Raises ApplicationError with the app's text when it answers with an error, Canceled when `timeout` seconds
        pass first, ConnectionClosed when the session ends.
        """

    @abc.abstractmethod
    async def send(self, method: str, params: object = None) -> None:
        """Send `method` one way: returns once it is on its way, waiting while the app reads slower than we send."""

    @abc.abstractmethod
    async def push(self, method: str) -> None:
        """Send the bare name `method` one way, as a metadata push: a signal that carries no parameters.

        Raises ApplicationError for an app that speaks Flipper JSON only: that protocol has no such thing.
        """

    @abc.abstractmethod
    def stream(self, method: str, params: object = None) -> AsyncGenerator[Any, None]:
        """The JSON values that the app streams back for `method`; closing the generator cancels the stream.

        Raises ApplicationError for an app that speaks Flipper JSON only: that protocol has no streams.
        """

    @abc.abstractmethod
    def channel(self, method: str, values: AsyncIterable[object]) -> AsyncGenerator[Any, None]:
        """Like `stream`, and `values` go to the app meanwhile, no faster than it asks for them."""

    @abc.abstractmethod
    async def supports(self, method: str) -> bool:
        """False only when the app says that its side of this plugin has no `method`."""

    @abc.abstractmethod
    async def reach(self, client: str, method: str) -> "App":
        """Another client, as this plugin sees it, on behalf of this one; itself for "".

        `client` is a session's id, or `app_id[@device_id]` that fits one session. `method` is what is to be asked of
        this plugin there. For methods that take `client: str = ""`: whoever may call them, and may send requests to
        that client (the policy's direction `relay`), may ask about it.

        Raises Rejected when the policy does not let it, or nobody of that name is connected (the two look alike),
        Invalid when the name fits several, ApplicationError when that client has no such plugin.
        """

    @property
    def leaving(self) -> bool:
        """The client, or the broker, is about to go: whoever has left something switched on in the app must put it
        right now. For handlers that wait for long."""
        return False

    async def wake(self) -> bool:
        """Start the app's side of a plugin that is not `eager`, unless it runs. True when it was started by this: what
        it pushed before is of an earlier run. It is stopped again when nothing was asked of it for a while."""
        return False

    async def device_access(self) -> Device:
        """The device that the app runs on. Raises ApplicationError that says why it cannot be reached."""
        raise ApplicationError("The device of this client cannot be reached from here.")
