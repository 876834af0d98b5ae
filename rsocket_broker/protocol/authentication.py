"""Bearer tokens in metadata (RSocket Extensions, Security/Authentication): bytes in, a token out.

The metadata of a SETUP carries one entry of type `message/x.rsocket.authentication.v0`, or is that entry when it is the
connection's metadata type. The entry begins with the kind of authentication, as an id (the highest bit set) or spelled
out behind its length less one.
"""

from typing import Final

from rsocket_broker.errors import Invalid
from rsocket_broker.protocol.metadata import AUTHENTICATION, COMPOSITE, Entry, Mime, build_composite, first_content

_BY_ID: Final = 0x80
_BEARER: Final = 1
_SPELLED: Final = b"\x05bearer"


def bearer_token(mime: str, metadata: bytes | None) -> bytes | None:
    """The token in metadata of this type. None where there is none, or another kind of authentication.

    Raises Invalid for metadata that is cut short.
    """
    if not metadata or mime not in (COMPOSITE, AUTHENTICATION):
        return None
    content = metadata if mime == AUTHENTICATION else first_content(metadata, AUTHENTICATION)
    if content is None:
        return None
    if not content:
        raise Invalid("the authentication metadata is empty")
    if content[0] & _BY_ID:
        return content[1:] if content[0] & ~_BY_ID == _BEARER else None
    return content[len(_SPELLED) :] if content.startswith(_SPELLED) else None


def bearer_metadata(token: str) -> bytes:
    """Composite metadata with a token, for a SETUP."""
    return build_composite((Entry(Mime.of(AUTHENTICATION), bytes((_BY_ID | _BEARER,)) + token.encode()),))
