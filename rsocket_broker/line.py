"""What a session needs of the line to its client, whatever is spoken there: RSocket, or messages alone.

`Connection` has all of it. `MessageLine` has what can be said in messages, and refuses the rest in words.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from typing import Protocol as Interface

from rsocket_broker.errors import ConnectionClosed, RequestFailed
from rsocket_broker.flow import RequestedStream
from rsocket_broker.payload import Payload
from rsocket_broker.pressure import Pressure
from rsocket_broker.protocol.frames import Octets
from rsocket_broker.protocol.limits import Limits
from rsocket_broker.protocol.relay import Find, Relaying
from rsocket_broker.protocol.runs import Shortcuts
from rsocket_broker.quota import Holding
from rsocket_broker.transports.base import Peer


class Line(Interface):
    """A live line to one client. Each member is described where `Connection` and its storeys define it."""

    metadata_mime: str
    data_mime: str
    pressure: Pressure
    holding: Holding
    on_suspended: Callable[[], None] | None

    # ---- what it is ------------------------------------------------------------------------------------------

    @property
    def peer(self) -> Peer: ...

    @property
    def certificate(self) -> bytes | None: ...

    @property
    def opened(self) -> float: ...

    @property
    def closing(self) -> ConnectionClosed | None: ...

    @property
    def shortcuts(self) -> Shortcuts: ...

    @property
    def relaying(self) -> Relaying | None: ...

    def relay(self, name: str, find: Find | None) -> None: ...

    def widen(self, limits: Limits) -> None: ...

    # ---- how it stands ---------------------------------------------------------------------------------------

    @property
    def keepalive(self) -> float: ...

    @property
    def silence(self) -> float: ...

    @property
    def suspended(self) -> bool: ...

    @property
    def resumable(self) -> bool: ...

    @property
    def times_resumed(self) -> int: ...

    def forget_resumption(self) -> None: ...

    @property
    def bytes_in(self) -> int: ...

    @property
    def bytes_out(self) -> int: ...

    @property
    def frames_in(self) -> int: ...

    @property
    def frames_out(self) -> int: ...

    @property
    def requests_served(self) -> int: ...

    @property
    def streams_open(self) -> int: ...

    @property
    def streams_waiting(self) -> int: ...

    @property
    def bytes_waiting(self) -> int: ...

    @property
    def bytes_unwritten(self) -> int: ...

    @property
    def partners(self) -> set[str]: ...

    # ---- asking the client -----------------------------------------------------------------------------------

    @property
    def may_ask(self) -> bool: ...

    async def wait_to_ask(self, timeout: float | None) -> float | None: ...

    def ask(
        self,
        data: Octets,
        metadata: Octets | None,
        timeout: float | None,
        ends: float | None = None,
        about: object = None,
    ) -> "tuple[int, asyncio.Future[Payload | bytes]]": ...

    def asked(self) -> "list[tuple[asyncio.Future[Payload | bytes], Any]]": ...

    def unask(self, stream_id: int) -> None: ...

    async def request_response(self, payload: Payload, timeout: float | None = None) -> Payload: ...

    def fire_and_forget(self, payload: Payload) -> None: ...

    def request_stream(self, payload: Payload) -> RequestedStream: ...

    def request_channel(self, payload: Payload, outgoing: AsyncIterator[Payload]) -> RequestedStream: ...

    def metadata_push(self, metadata: bytes) -> None: ...

    async def drain(self) -> None: ...

    # ---- its end ---------------------------------------------------------------------------------------------

    def end_work(self, refused: "Mapping[asyncio.Task[Any], RequestFailed]") -> None: ...

    async def drain_requests(self, timeout: float) -> None: ...

    async def close(self, text: str = "", code: int | None = None, grace: float = ...) -> None: ...

    def expel(self, text: str) -> int: ...

    def abort(self) -> None: ...

    async def wait_closed(self) -> ConnectionClosed: ...

    def when_lost(self, callback: "Callable[[Any], object]") -> None: ...
