"""What a browser or Node app says of itself: the query of its WebSocket's address, with what js-flipper leaves out.

js-flipper sends `device_id`, `device`, `app` and `os`; before it, some apps sent `deviceId` and `device` alone. What is
missing, or blank, is what Flipper's own server takes for it:

    os            MacOS
    app           as `device`
    device_id     as `deviceId`
    sdk_version   4: it knows getBackgroundPlugins, and starts no plugin by itself
    medium        3, whatever is said: no certificate comes into it, so neither do `csr` and `csr_path`
"""

from typing import Final
from urllib.parse import urlencode

from rsocket_broker.claims import Claims, query_fields

OS: Final = "MacOS"
SDK_VERSION: Final = "4"
MEDIUM: Final = "3"
"""No exchange of certificates."""
OLDER_DEVICE_ID: Final = "deviceId"

_IGNORED: Final = ("csr", "csr_path")


def browser_claims(query: str) -> Claims:
    """The claims in a query. Raises SetupRefused, whose text names the field at fault."""
    fields = query_fields(query)
    instead = {
        "os": OS,
        "app": fields.get("device", ""),
        "device_id": fields.get(OLDER_DEVICE_ID, ""),
        "sdk_version": SDK_VERSION,
    }
    found = fields | {name: value for name, value in instead.items() if not fields.get(name)} | {"medium": MEDIUM}
    return Claims.from_query(urlencode({name: text for name, text in found.items() if name not in _IGNORED}))
