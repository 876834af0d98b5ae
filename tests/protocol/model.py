"""An RSocket connection, slow and obvious: what the specification says, with no table, no byte and no short cut.

One frame or one wish of the application goes in at a time; what happens and what is sent comes out. The engine is
held to it by random sequences (`test_against_model.py`). It shares no code with the engine.
"""

import attrs

from tests.playbook import IGNORE, C, F, N

RESPONSE, FIRE, STREAM, CHANNEL = 4, 5, 6, 7
REQUEST_N, CANCEL, PAYLOAD, ERROR, METADATA_PUSH, KEEPALIVE, SETUP, RESUME_OK = 8, 9, 10, 11, 12, 3, 1, 14
CONNECTION_ERROR, CONNECTION_CLOSE, REJECTED, CANCELED, INVALID = 0x101, 0x102, 0x202, 0x203, 0x204
SETUP_CODES = (0x1, 0x2, 0x3, 0x4)
MOST = 2**31 - 1


class Illegal(Exception):
    """The application may not do that on this stream."""


class Over(Exception):
    """The peer broke the connection's rules."""


@attrs.define
class Incoming:
    """A frame from the peer, taken apart. `metadata` None: no M flag. `broken`: its body ends too early."""

    kind: int
    stream_id: int
    flags: int = 0
    n: int = 1
    code: int = INVALID
    metadata: bytes | None = None
    data: bytes = b""
    broken: bool = False


@attrs.define
class OneStream:
    """A stream of either side."""

    interaction: int
    ours: bool
    sending: bool
    """We may still send payloads on it."""
    hearing: bool
    """The peer may."""
    credit: int = 0
    granted: int = 0
    partial: list[Incoming] = attrs.Factory(list)
    begun: bool = True
    """False while the request itself is still in pieces."""

    def counts(self) -> bool:
        return self.interaction in (STREAM, CHANNEL)


@attrs.define
class Model:
    """One side of an open connection. `happened` and `sent` grow; the tester takes them out."""

    is_server: bool
    most_streams: int
    longest: int
    streams: dict[int, OneStream] = attrs.Factory(dict)
    happened: list[tuple[object, ...]] = attrs.Factory(list)
    sent: list[tuple[object, ...]] = attrs.Factory(list)
    leaving: bool = False
    over: bool = False

    # ---- what the peer sends ---------------------------------------------------------------------------------

    def hear(self, frame: Incoming) -> None:
        if self.over:
            return
        try:
            self._hear(frame)
        except Over:
            self.sent.append(("error", 0, CONNECTION_ERROR))
            self._end(CONNECTION_ERROR, by_peer=False)

    def _hear(self, frame: Incoming) -> None:
        if frame.kind in (RESPONSE, FIRE, STREAM, CHANNEL):
            self._hear_request(frame)
        elif frame.kind == PAYLOAD:
            self._hear_payload(frame)
        elif frame.kind == REQUEST_N:
            self._hear_request_n(frame)
        elif frame.kind == CANCEL:
            self._hear_cancel(frame.stream_id)
        elif frame.kind == ERROR:
            self._hear_error(frame)
        else:
            self._hear_about_the_connection(frame)

    def _hear_about_the_connection(self, frame: Incoming) -> None:
        if frame.kind == METADATA_PUSH:
            if frame.stream_id == 0:
                self.happened.append(("push", frame.data))
        elif frame.kind == KEEPALIVE:
            self._hear_keepalive(frame)
        elif frame.kind in (SETUP, RESUME_OK):
            pass  # too late: to be ignored
        elif not frame.flags & IGNORE:
            raise Over

    def _hear_keepalive(self, frame: Incoming) -> None:
        if frame.stream_id:
            return
        if frame.broken:
            raise Over
        if frame.flags & F:
            self.sent.append(("keepalive", frame.data))

    def _readable(self, frame: Incoming) -> bool:
        """False: what does not fit may be ignored, and is."""
        if frame.metadata is not None and frame.broken:
            if frame.flags & IGNORE:
                return False
            raise Over
        return True

    def _hear_request(self, frame: Incoming) -> None:
        sid = frame.stream_id
        if frame.kind in (STREAM, CHANNEL) and not self.leaving and frame.broken and frame.metadata is None:
            raise Over  # not even the request-n is whole
        if sid in self.streams or not sid:
            return
        if (sid % 2 == 1) != self.is_server:
            self.sent.append(("error", sid, INVALID))
        elif self.leaving:
            self.sent.append(("error", sid, REJECTED))
        elif self._readable(frame):
            self._open(frame)

    def _open(self, frame: Incoming) -> None:
        sid, kind, in_pieces = frame.stream_id, frame.kind, bool(frame.flags & F)
        if kind in (STREAM, CHANNEL) and frame.n == 0:
            self.sent.append(("error", sid, INVALID))
            return
        theirs = sum(not one.ours for one in self.streams.values())
        if (in_pieces or kind != FIRE) and theirs >= self.most_streams:
            self.sent.append(("error", sid, REJECTED))
            return
        stream = OneStream(kind, ours=False, sending=kind != FIRE, hearing=False, begun=False)
        if stream.counts():
            stream.credit = frame.n
        self.streams[sid] = stream
        if in_pieces:
            self._add_piece(sid, stream, frame)
        else:
            self._begin(sid, stream, [frame])

    def _begin(self, sid: int, stream: OneStream, pieces: list[Incoming]) -> None:
        complete = stream.interaction == CHANNEL and bool(pieces[-1].flags & C)
        stream.begun, stream.partial = True, []
        stream.hearing = stream.interaction == CHANNEL and not complete
        stream.credit = stream.credit if stream.counts() else 0
        self.happened.append(("request", sid, stream.interaction, *whole(pieces), stream.credit, complete))
        if stream.interaction == FIRE:
            del self.streams[sid]

    def _add_piece(self, sid: int, stream: OneStream, frame: Incoming) -> None:
        """A fragment, the last one too."""
        pieces = [*stream.partial, frame]
        if sum(len(piece.data) + len(piece.metadata or b"") for piece in pieces) > self.longest:
            self._give_up(sid, stream)
            return
        stream.partial = pieces
        if frame.flags & F:
            return
        if not stream.begun:
            self._begin(sid, stream, pieces)
        else:
            stream.partial = []
            self._take(sid, stream, pieces)

    def _hear_payload(self, frame: Incoming) -> None:
        stream = self.streams.get(frame.stream_id)
        if stream is None or not self._readable(frame):
            return
        if frame.flags & F or stream.partial:
            if stream.hearing or not stream.begun:
                self._add_piece(frame.stream_id, stream, frame)
        else:
            self._take(frame.stream_id, stream, [frame])

    def _take(self, sid: int, stream: OneStream, pieces: list[Incoming]) -> None:
        has_next = any(piece.flags & N for piece in pieces)
        complete = bool(pieces[-1].flags & C)
        if not stream.hearing or not stream.begun:
            return
        if stream.interaction == RESPONSE:
            complete = True  # one answer is all there is, whatever the flags
        elif not has_next and not complete:
            return
        if has_next and stream.counts():
            if not stream.granted:
                self._give_up(sid, stream)
                return
            stream.granted -= 1
        self.happened.append(("payload", sid, *whole(pieces), has_next, complete))
        if complete:
            self._heard_all(sid, stream)

    def _heard_all(self, sid: int, stream: OneStream) -> None:
        stream.hearing, stream.partial = False, []
        if not stream.sending:
            del self.streams[sid]

    def _sent_all(self, sid: int, stream: OneStream) -> None:
        stream.sending, stream.credit = False, 0
        if not stream.hearing:
            del self.streams[sid]

    def _give_up(self, sid: int, stream: OneStream) -> None:
        """The peer broke a rule of this stream: whoever still owes it an answer says so, others cancel."""
        owes = not stream.ours and (stream.sending or not stream.begun)
        self.sent.append(("error", sid, INVALID) if owes else ("cancel", sid))
        if stream.begun:
            self.happened.append(("error", sid, INVALID))
        del self.streams[sid]

    def _hear_request_n(self, frame: Incoming) -> None:
        if frame.broken:
            raise Over
        stream = self.streams.get(frame.stream_id)
        if stream is None or (stream.begun and not (stream.counts() and stream.sending)):
            return
        if frame.n == 0:
            self._give_up(frame.stream_id, stream)
            return
        stream.credit = min(stream.credit + frame.n, MOST)
        if stream.begun:
            self.happened.append(("request-n", frame.stream_id, frame.n))

    def _hear_cancel(self, sid: int) -> None:
        stream = self.streams.get(sid)
        if stream is None:
            return
        if not stream.begun:
            del self.streams[sid]
        elif not stream.ours:
            self.happened.append(("cancel", sid))
            del self.streams[sid]
        elif stream.interaction == CHANNEL and stream.sending:
            self.happened.append(("cancel", sid))
            self._sent_all(sid, stream)

    def _hear_error(self, frame: Incoming) -> None:
        if frame.broken:
            raise Over
        if not frame.stream_id:
            if frame.code in SETUP_CODES:
                return
            if frame.code == CONNECTION_CLOSE and self.streams:
                self.leaving = True
            else:
                self._end(frame.code, by_peer=True)
            return
        stream = self.streams.get(frame.stream_id)
        if stream is None or (not stream.ours and stream.begun and stream.interaction != CHANNEL):
            return
        if stream.begun:
            self.happened.append(("error", frame.stream_id, frame.code))
        del self.streams[frame.stream_id]

    def _end(self, code: int, *, by_peer: bool) -> None:
        self.over = True
        self.streams.clear()
        self.happened.append(("end", code, by_peer))

    # ---- what the application wants --------------------------------------------------------------------------

    def ask(self, sid: int, interaction: int, n: int, data: bytes, complete: bool) -> None:
        """A request of ours, with the id that the engine gave it."""
        last = interaction == CHANNEL and complete
        self.sent.append(("request", interaction, sid, n if interaction in (STREAM, CHANNEL) else 0, data, complete))
        if interaction != FIRE:
            self.streams[sid] = OneStream(
                interaction, ours=True, sending=interaction == CHANNEL and not last, hearing=True, granted=n
            )

    def answer(self, sid: int, data: bytes, has_next: bool, complete: bool) -> None:
        """Raises Illegal for what may never be sent there."""
        stream = self.streams.get(sid)
        if stream is None:
            return
        if not (has_next or complete) or not stream.begun or (not stream.ours and not stream.sending):
            raise Illegal
        if stream.ours and stream.interaction != CHANNEL:
            raise Illegal
        if not stream.sending:
            return  # the peer's CANCEL has crossed it
        if stream.interaction == RESPONSE and not complete:
            raise Illegal
        if has_next and stream.counts():
            if not stream.credit:
                raise Illegal
            stream.credit -= 1
        self.sent.append(("payload", sid, data, has_next, complete))
        if complete:
            self._sent_all(sid, stream)

    def fail(self, sid: int, code: int) -> None:
        stream = self.streams.get(sid)
        if stream is None:
            return
        if stream.ours and stream.interaction == CHANNEL and not stream.sending:
            return
        if stream.begun and ((not stream.ours and not stream.sending) or (stream.ours and not stream.sending)):
            raise Illegal
        self.sent.append(("error", sid, code))
        del self.streams[sid]

    def grant(self, sid: int, n: int) -> None:
        stream = self.streams.get(sid)
        if stream is None:
            return
        if not stream.begun or not stream.counts() or (not stream.ours and stream.interaction == STREAM):
            raise Illegal
        if not stream.hearing:
            return
        more = min(n, MOST - stream.granted)
        stream.granted += more
        if more:
            self.sent.append(("request-n", sid, more))

    def cancel(self, sid: int) -> None:
        stream = self.streams.get(sid)
        if stream is None:
            return
        if not stream.begun or (not stream.ours and stream.interaction != CHANNEL):
            raise Illegal
        if stream.ours:
            self.sent.append(("cancel", sid))
            del self.streams[sid]
        elif stream.hearing:
            self.sent.append(("cancel", sid))
            self._heard_all(sid, stream)


def whole(pieces: list[Incoming]) -> tuple[bytes, bytes | None]:
    """Data and metadata of a message in pieces."""
    with_metadata = [piece.metadata for piece in pieces if piece.metadata is not None]
    return b"".join(piece.data for piece in pieces), b"".join(with_metadata) if with_metadata else None
