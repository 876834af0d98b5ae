"""Every error that crosses a module boundary, and what each one means to a peer.

    BrokerError                    `public` may be shown to anyone; the cause (`__cause__`) stays in our log
    ├── ConnectionClosed           the connection has ended; no request on it can be answered
    ├── TlsRefused                 one side refused the other in TLS; a network that failed stays an OSError
    ├── ProtocolViolation          a peer broke the RSocket specification; its connection ends
    ├── RequestFailed              one request failed; the connection lives on
    │   ├── ApplicationError       a handler said no, in words meant for the caller
    │   ├── Rejected               refused before any work was done; the caller may try again
    │   │   └── Unavailable        a plugin is down for now; says when it is tried again
    │   ├── Canceled               work was stopped after it may have begun
    │   └── Invalid                the request itself is malformed
    ├── SetupRefused               a SETUP frame that we will not serve
    ├── EnrollmentRefused          a certificate request that we will not sign; names the step and the remedy
    ├── AuthorityError             a key, certificate or CA home that cannot be used
    ├── HomeError                  a file or folder of the home that is unsafe, missing or in use
    └── ConfigurationError         a setting, plugin or option that makes no sense

A class carries the wire code it travels under, so that looking one up works in both directions.
"""

from typing import ClassVar

from rsocket.error_codes import ErrorCode


class BrokerError(Exception):
    """Base of all errors. `public` is safe to show to a peer or a user: it holds no secret and no internals."""

    def __init__(self, public: str) -> None:
        super().__init__(public)
        self.public = public


class ConnectionClosed(BrokerError):
    """The connection has ended. `code` is the wire code if one was sent or received, else None."""

    def __init__(self, public: str, code: int | None = None) -> None:
        super().__init__(public)
        self.code = code


class TlsRefused(BrokerError):
    """TLS ended the connection, in the handshake or (TLS 1.3 tells a client late) after it.

    `alert` is the name that the TLS specification gives to the reason (`certificate_expired`, `unknown_ca`), None
    where none was said. `by_peer` tells who refused: True when the other side sent the alert.
    """

    def __init__(self, public: str, alert: str | None, *, by_peer: bool) -> None:
        super().__init__(public)
        self.alert = alert
        self.by_peer = by_peer


class ProtocolViolation(BrokerError):
    """A peer broke the specification; `code` goes out in the ERROR frame on stream 0."""

    def __init__(self, public: str, code: int = ErrorCode.CONNECTION_ERROR) -> None:
        super().__init__(public)
        self.code = code


class RequestFailed(BrokerError):
    """One request failed. Raised to callers for an ERROR frame received, and by handlers to send one."""

    wire_code: ClassVar[int] = ErrorCode.APPLICATION_ERROR

    def __init__(self, public: str, code: int | None = None) -> None:
        super().__init__(public)
        self.code = self.wire_code if code is None else code


class ApplicationError(RequestFailed):
    """The handler's own refusal. Its text reaches the caller word for word."""

    app_code: int | None = None
    """The number that an app has given to an error of its own, where it has."""


class Rejected(RequestFailed):
    """Refused before any work was done (a limit, a drain, a policy); safe to try again elsewhere or later."""

    wire_code = ErrorCode.REJECTED


class Unavailable(Rejected):
    """The plugin that was asked is down for now. `retry_after`: seconds until it is tried again."""

    def __init__(self, public: str, retry_after: float) -> None:
        super().__init__(public)
        self.retry_after = retry_after


class Canceled(RequestFailed):
    """Stopped after work may have begun: a deadline passed, or the session that asked has ended."""

    wire_code = ErrorCode.CANCELED


class Invalid(RequestFailed):
    """The request is malformed: no route, bad JSON, a parameter of the wrong type."""

    wire_code = ErrorCode.INVALID


class SetupRefused(BrokerError):
    """A SETUP that is well formed but not welcome; the text names the field at fault."""

    def __init__(self, public: str, code: int = ErrorCode.REJECTED_SETUP) -> None:
        super().__init__(public)
        self.code = code


class EnrollmentRefused(BrokerError):
    """A signing request that is refused. `step` is where it failed, `remedy` what the asker can do about it."""

    def __init__(self, step: str, reason: str, remedy: str) -> None:
        super().__init__(f"{step}: {reason} {remedy}".strip())
        self.step = step
        self.reason = reason
        self.remedy = remedy


class AuthorityError(BrokerError):
    """A key, a certificate or the CA's home cannot be used; the text says which and how to mend it."""


class HomeError(BrokerError):
    """A file or folder of the home is unsafe, missing, or held by another broker."""


class ConfigurationError(BrokerError):
    """A setting, a plugin or an option that makes no sense; the text names it."""


_BY_CODE: dict[int, type[RequestFailed]] = {
    error.wire_code: error for error in (ApplicationError, Rejected, Canceled, Invalid)
}


def request_error(code: int, text: str) -> RequestFailed:
    """The error that a caller sees for an ERROR frame on its stream; unknown codes stay `RequestFailed`."""
    return _BY_CODE.get(code, RequestFailed)(text, code)
