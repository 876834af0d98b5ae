"""What the TLS ports of a broker present and accept at one moment: plain values."""

import attrs

from rsocket_broker.credentials import Credentials


@attrs.frozen(slots=True)
class Serving:
    """One set for all ports, which fits together. `trust_pem` of both credentials is every CA whose clients are let in.

    `secure` is for the RSocket port: its chain may be longer while a rotation is under way, so that whoever trusts the
    older CA alone, or the newer alone, verifies it. `web` is for the WebSocket port, whose clients want exactly two
    certificates, the leaf and the CA that signed it. `crl_pem` holds a CRL of each trusted generation, or nothing.
    """

    secure: Credentials
    web: Credentials
    crl_pem: bytes = b""
