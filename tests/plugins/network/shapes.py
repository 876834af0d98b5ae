"""Messages in the shapes of real SDKs, and short ways to a Traffic that holds some."""

import base64
from typing import Any

from rsocket_broker.plugins.network import messages
from rsocket_broker.plugins.network.traffic import Exchange, Shelf, Traffic

UUID = "6d1f2c3e-0d7c-4c7e-9df9-0e2d7f0a1b2c"
IOS_ID = -9_007_199_254_740_993
"""Below -2^53: no double holds it."""


def base64_lines(data: bytes) -> str:
    """As Android writes it."""
    return base64.encodebytes(data).decode()


def pairs(**headers: str) -> list[dict[str, str]]:
    return [{"key": name.replace("_", "-"), "value": value} for name, value in headers.items()]


def asked(key: object = UUID, url: str = "https://api.example.org/v1/cart", **more: Any) -> dict[str, Any]:
    """`newRequest`."""
    return {"id": key, "timestamp": 1_718_000_000_000, "method": "GET", "url": url, "headers": [], **more}


def answered(key: object = UUID, status: object = 200, **more: Any) -> dict[str, Any]:
    """`newResponse`, 420 ms later."""
    return {"id": key, "timestamp": 1_718_000_000_420, "status": status, "headers": [], **more}


def traffic(*told: dict[str, Any], **bounds: int) -> Traffic:
    """One app's, of requests and responses in this order."""
    made = Traffic(Shelf(bounds.pop("total", 1 << 30)), **bounds)
    for params in told:
        tell(made, params)
    return made


def tell(to: Traffic, params: dict[str, Any], now: float = 5.0) -> Exchange:
    if "url" in params:
        return to.add_request(messages.request(params), now)
    return to.add_response(messages.response(params), now)
