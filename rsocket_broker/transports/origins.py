"""Where the request for a WebSocket may come from, where the clients are apps: some of them name an Origin, their own.

A page that a browser has loaded from elsewhere is kept out. Its request names its site in `Origin`; a site that has
its own name resolved to this machine (DNS rebinding) is still known by that name, which is neither localhost nor an
address.
"""

import ipaddress
import re

from rsocket_broker.transports.http_request import Refusal, Request

LOCALHOST = "localhost"
_HOST = re.compile(r"(?:\[([0-9a-f:.]{2,45})\]|([0-9a-z._-]{1,253}))(?::\d{1,5})?", re.IGNORECASE | re.ASCII)
_OWN = ("none", "same-origin")


def host_name(host: str) -> str | None:
    """The name or address in a `Host` header, or behind the scheme of an origin, in lower case; None for neither."""
    found = _HOST.fullmatch(host)
    return None if found is None else (found[1] or found[2]).lower()


def is_literal(name: str) -> bool:
    """Whether a name means the same whatever a resolver says."""
    if name == LOCALHOST:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_app(request: Request, scheme: str) -> None:
    """Raises Refusal for the request of a page from elsewhere. `scheme` is what the port speaks, http or https.

    Devices reach the port under numbers and addresses of their own, so `Host` may be any that cannot be made to mean
    this machine, once an Origin shows that a browser may have sent it.
    """
    host, origin = request.one("host"), request.one("origin")
    if not host:
        raise Refusal(400, "The request has no Host header.")
    if (request.one("sec-fetch-site") or "none") not in _OWN:
        raise Refusal(403, "Pages of other sites may not use this port.")
    if origin is None:
        return
    name = host_name(host)
    if origin.lower() != f"{scheme}://{host.lower()}" or name is None or not (scheme == "https" or is_literal(name)):
        raise Refusal(403, "Pages of other sites may not use this port.")
