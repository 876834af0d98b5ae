"""The two directions of a stream between two clients: what may still be sent on each.

    state of a way       PAYLOAD with N           C without F       F                    other end: REQUEST_N, CANCEL
    REQUEST              passed                   the way opens*    passed               as when open
    open                 one credit, passed       passed, ended     passed, one message  credit; ended
    ended                dropped                  dropped           dropped              dropped
                         * or ends, where the requester has nothing more to send

The FOLLOWS flag comes before COMPLETE, as in `fragments`.
"""

from typing import Final

from rsocket_broker.protocol.codes import COMPLETE, FOLLOWS, NEXT, Interaction

OVERRUN: Final = "More payloads were sent than were asked for."

REQUEST: Final = -1
_BARE, _COUNTED = 1, 2


class Way:
    """One direction. `credit`: payloads that its sender may still send."""

    __slots__ = ("credit", "message", "open", "stays")

    def __init__(self, credit: int, *, is_open: bool, stays: bool = False, message: int = 0) -> None:
        self.credit = credit
        self.open = is_open
        self.stays = stays
        """Whether the way stays open when the request, of which fragments are still coming, is whole."""
        self.message = message
        """What fragments belong to: 0 none, REQUEST the request, _BARE a payload that has had no N flag yet,
        _COUNTED one that has."""

    def along(self, flags: int) -> str | None:
        """Moves on by the flags of a PAYLOAD. None: pass it on; else what to complain of, "" for nothing."""
        if not self.open:
            return ""
        message = self.message
        if message == REQUEST:
            if not flags & FOLLOWS:
                self.message = 0
                self.open = self.stays and not flags & COMPLETE
            return None
        if not message and not flags & (NEXT | COMPLETE | FOLLOWS):
            return ""
        if flags & NEXT and message != _COUNTED:
            if self.credit < 1:
                return OVERRUN
            self.credit -= 1
            message = _COUNTED
        if flags & FOLLOWS:
            self.message = message or _BARE
        else:
            self.message = 0
            self.open = not flags & COMPLETE
        return None


Ways = tuple[Way | None, Way | None]


def ways(interaction: Interaction, flags: int, initial_n: int) -> Ways:
    """The ways up (from the requester) and down of a new stream, by the flags of its request.

    None: there is nothing to count. A request-response in one piece needs no way up, and its first answer ends it.
    """
    channel = interaction is Interaction.REQUEST_CHANNEL
    response = interaction is Interaction.REQUEST_RESPONSE
    up: Way | None = None
    if flags & FOLLOWS:
        up = Way(0, is_open=True, stays=channel, message=REQUEST)
    elif channel:
        up = Way(0, is_open=not flags & COMPLETE, stays=True)
    elif not response:
        up = Way(0, is_open=False)
    return up, None if response else Way(initial_n, is_open=interaction is not Interaction.FIRE_AND_FORGET)


def are_over(heard: Way | None, sent: Way | None, flags: int) -> bool:
    """Whether a PAYLOAD with these flags, which was passed on, was the last frame of its stream. `heard` is the way
    on which it came, `sent` the other one."""
    if heard is None:
        return not flags & FOLLOWS
    return not heard.open and sent is not None and not sent.open
