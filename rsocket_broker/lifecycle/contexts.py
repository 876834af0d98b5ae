"""The TLS contexts of the moment: whatever the authority presents, trusts and has revoked when a hello comes."""

import ssl
import threading

from rsocket_broker.authority import Authority
from rsocket_broker.transports.client_hello import ClientHello
from rsocket_broker.transports.tls_contexts import Remembered, ServerContexts


class CurrentContexts:
    """Contexts for what the authority serves by now: made anew at every change of it, a revocation among them.

    TLS sessions of before cannot be resumed then. `pick` and `pick_web` are called from handshake threads.
    """

    def __init__(self, authority: Authority) -> None:
        """Raises HomeError and AuthorityError when the authority has nothing to serve with."""
        self._authority = authority
        self._lock = threading.Lock()
        self._remembered = Remembered()
        self._serving = authority.serving()
        self._contexts = self._make()

    def pick(self, hello: ClientHello) -> ssl.SSLContext:
        return self._current().pick(hello)

    def pick_web(self, hello: ClientHello) -> ssl.SSLContext:
        return self._current().pick_web(hello)

    def prepare(self) -> None:
        """Makes contexts for what has changed now, so that no client waits for them. May be called from any thread."""
        self._current()

    def _current(self) -> ServerContexts:
        with self._lock:
            serving = self._authority.serving()
            if serving is not self._serving:
                self._serving = serving
                self._contexts = self._make()
            return self._contexts

    def _make(self) -> ServerContexts:
        serving = self._serving
        return ServerContexts(serving.secure, web=serving.web, crl_pem=serving.crl_pem, remembered=self._remembered)

    def renew(self) -> None:
        """Ends all that TLS sessions could be resumed with; see `ServerContexts.renew`."""
        self._current().renew()
