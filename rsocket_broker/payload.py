"""The public payload types. They are rsocket-py's own, so that its handlers and routers fit unchanged.

`Payload.data` is always bytes when it comes from a peer (possibly empty); `Payload.metadata` is None when the
frame had no metadata, and b"" when it had an empty one: the specification keeps the two apart.
"""

from rsocket.error_codes import ErrorCode
from rsocket.payload import Payload

__all__ = ["ErrorCode", "Payload"]
