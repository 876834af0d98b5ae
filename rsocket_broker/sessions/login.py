"""What a client says when it asks for a session below its own, and how sessions look in JSON. Pure.

    name         text, needed: what people call it
    kind         "web" (unless given), "cli" or "plugin"
    device_id    text: where it runs
    platform     text: on what, such as a browser
    expires_in   seconds, cut to what is left of the session that asks; 8 hours unless given
    scope        a list of patterns over plugin.method, cut to that of the session that asks
    rate         requests a second, no higher than that of the session that asks
    user         text: whose it is; whoever ends all sessions of that user ends it
    audience     where its token is good: "loopback" (unless given), "tls" or "wss"

Whose child it will be is not said here: it is the session that asks.
"""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from rsocket_broker.claims import shown
from rsocket_broker.errors import Invalid
from rsocket_broker.moments import timestamp
from rsocket_broker.sessions.scope import parse_scope
from rsocket_broker.sessions.tree import ROOTS, Node, NodeKind, Wish
from rsocket_broker.transports.base import Channel

DEFAULT_LIFE: Final = 8 * 3600.0
"""Seconds: a working day, in which a page should not have to ask again."""
LONGEST_LIFE: Final = 365 * 86400.0
"""Seconds: what is longer means for ever, and is cut to the life of the session that asks anyhow."""
MAX_NAME: Final = 128
"""Characters of a name, a device id, a platform or a user: they are shown in lists."""
LOWEST_RATE, HIGHEST_RATE = 0.01, 1_000_000.0
"""Requests a second: from one in a hundred seconds to what no connection reaches."""

AUDIENCES: Final = {"loopback": Channel.WS, "tls": Channel.TLS, "wss": Channel.WSS}
"""Where a token may be shown: at /rsocket of the loopback HTTP port, on the secure port, on the WebSocket port."""
_NAMES: Final = {channel: name for name, channel in AUDIENCES.items()}

KINDS: Final = tuple(kind.value for kind in NodeKind if kind not in ROOTS)
FIELDS: Final = ("name", "kind", "device_id", "platform", "expires_in", "scope", "rate", "user", "audience")

_PARENTS: Final = ("parent", "parent_id", "parentId")


def parse_wish(body: Mapping[str, object], now: datetime) -> Wish:
    """The wish in a login. Raises Invalid that names the field at fault."""
    for name in body:
        if name in _PARENTS:
            raise Invalid(f"{name}: the session that asks is the parent, and no other can be named.")
        if name not in FIELDS:
            raise Invalid(f"{shown(name, 64)} is unknown; a login takes {', '.join(FIELDS)}.")
    life = _number(body, "expires_in", DEFAULT_LIFE, 0.001, math.inf)
    rate = None if body.get("rate") is None else _number(body, "rate", 0, LOWEST_RATE, HIGHEST_RATE)
    return Wish(
        kind=NodeKind(_one_of(body, "kind", KINDS, NodeKind.WEB.value)),
        channel=AUDIENCES[_one_of(body, "audience", tuple(AUDIENCES), "loopback")],
        expires=now + timedelta(seconds=min(life, LONGEST_LIFE)),
        scope=None if body.get("scope") is None else parse_scope(body["scope"]),
        rate=rate,
        user=_text(body, "user"),
        device_id=_text(body, "device_id"),
        name=_text(body, "name", needed=True),
        platform=_text(body, "platform"),
    )


def describe_node(node: Node) -> dict[str, object]:
    """One session, as introspection and `sessions list --json` show it."""
    return {
        "id": node.id,
        "kind": node.kind.value,
        "parent": node.parent,
        "audience": _NAMES.get(node.channel, node.channel.value),
        "scope": ["*"] if node.scope is None else list(node.scope),
        "rate": node.rate,
        "user": node.user,
        "name": node.name,
        "device_id": node.device_id,
        "platform": node.platform,
        "since": timestamp(node.since),
        "expires": timestamp(node.expires),
    }


def _text(body: Mapping[str, object], name: str, *, needed: bool = False) -> str:
    value = body.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or not needed <= len(value) <= MAX_NAME or not value.isprintable():
        raise Invalid(f"{name} must be text of {int(needed)} to {MAX_NAME} characters that can be shown.")
    return value


def _one_of(body: Mapping[str, object], name: str, known: tuple[str, ...], default: str) -> str:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or value not in known:
        raise Invalid(f"{name} must be one of {', '.join(known)}.")
    return value


def _number(body: Mapping[str, object], name: str, default: float, lowest: float, highest: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        most = "" if highest == math.inf else f" to {highest:g}"
        raise Invalid(f"{name} must be a number from {lowest:g}{most}.")
    return float(min(value, LONGEST_LIFE))
