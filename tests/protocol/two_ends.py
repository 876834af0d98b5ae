"""A client and a server without I/O, on a line that can be cut at any byte; each notes what it says and hears."""

import random
from collections import Counter
from typing import Any

from rsocket_broker.errors import Rejected
from rsocket_broker.protocol.codes import MAX_31, Interaction
from rsocket_broker.protocol.events import (
    Event,
    LineResumed,
    MetadataPushReceived,
    PayloadReceived,
    RequestReceived,
    ResumeReceived,
    SetupReceived,
)
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import Limits
from rsocket_broker.protocol.protocol import Protocol

RESUMING = Limits(resume_seconds=60.0, fragment=200)
"""Small fragments, so that cuts fall between them."""


class End:
    """One side: its protocol, what its application was told, and what it told the other one."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.heard: list[Any] = []
        self.said: list[Any] = []
        self.events: Counter[type] = Counter()
        self.owed: list[tuple[int, Interaction]] = []
        self.line = bytearray()
        """What is on its way to the other side."""

    def write(self) -> None:
        for piece in self.protocol.data_to_send():
            self.line += piece

    def act(self, events: list[Event]) -> None:
        for event in events:
            self.events[type(event)] += 1
            if isinstance(event, RequestReceived):
                self.heard.append((event.interaction.name, event.stream_id, event.data, event.metadata))
                if event.interaction is not Interaction.FIRE_AND_FORGET:
                    self.owed.append((event.stream_id, event.interaction))
                if event.interaction is Interaction.REQUEST_CHANNEL:
                    self.protocol.send_request_n(event.stream_id, MAX_31)
            elif isinstance(event, PayloadReceived):
                self.heard.append(("PAYLOAD", event.stream_id, event.data, event.metadata, event.complete))
            elif isinstance(event, MetadataPushReceived):
                self.heard.append(("PUSH", event.metadata))

    def ask(self, interaction: Interaction, data: bytes, metadata: bytes | None) -> None:
        try:
            stream_id = self.protocol.request(interaction, data, metadata, MAX_31)
        except Rejected:
            return
        self.said.append((interaction.name, stream_id, data, metadata))

    def answer(self, dice: random.Random, data: bytes, metadata: bytes | None) -> None:
        """A payload on one of the streams that it owes something."""
        if not self.owed:
            return
        stream_id, interaction = chosen = dice.choice(self.owed)
        last = interaction is Interaction.REQUEST_RESPONSE or dice.random() < 0.3
        if last:
            self.owed.remove(chosen)
        self.protocol.send_payload(stream_id, data, metadata, complete=last)
        self.said.append(("PAYLOAD", stream_id, data, metadata, last))


class TwoEnds:
    """Both sides, established, and the line between them."""

    def __init__(
        self, limits: Limits = RESUMING, client_limits: Limits | None = None, setup: Setup | None = None
    ) -> None:
        self.now = 100.0
        setup = setup or Setup(resume_token=b"a token of 16 B.", keepalive_ms=1000, lifetime_ms=20_000)
        self.limits = limits
        self.client = End(Protocol.client(setup, client_limits or limits, self.now))
        self.server = End(Protocol.server(limits, self.now))
        self.client.write()
        (event,) = self.server.protocol.receive_data(bytes(self.client.line), self.now)
        assert isinstance(event, SetupReceived)
        self.client.line.clear()
        self.server.act(self.server.protocol.accept_setup(self.now))
        self.client.protocol.send_keepalive(self.now)
        self.settle()
        self.cuts = 0

    def deliver(self, sender: End, receiver: End, size: int) -> None:
        """Up to `size` bytes arrive."""
        sender.write()
        data = bytes(sender.line[:size])
        del sender.line[:size]
        if data:
            receiver.act(receiver.protocol.receive_data(data, self.now))

    def settle(self) -> None:
        """Everything arrives."""
        while True:
            self.client.write()
            self.server.write()
            if not self.client.line and not self.server.line:
                return
            self.deliver(self.client, self.server, 1 << 30)
            self.deliver(self.server, self.client, 1 << 30)

    def cut(self) -> None:
        """The line is lost with all that was on its way; each side notices."""
        for end in (self.client, self.server):
            end.write()
            end.line.clear()
            assert end.protocol.suspend(self.now)

    def resume(self, first_bytes: int = 1 << 30) -> Event | None:
        """The client comes back. Returns what it is told, once up to `first_bytes` have come from the server."""
        client, server = self.client.protocol, self.server.protocol
        client.begin_resume(self.now)
        self.client.write()
        door = Protocol.server(self.limits, self.now)
        (event,) = door.receive_data(bytes(self.client.line), self.now)
        assert isinstance(event, ResumeReceived)
        self.client.line.clear()
        server.resume(event.received, event.available, self.now)
        assert door.surrender() == b""
        before = self.client.events[LineResumed]
        self.deliver(self.server, self.client, first_bytes)
        self.cuts += 1
        return LineResumed() if self.client.events[LineResumed] > before else None
