"""HAR 1.2, the format in which browsers' tools save and load traffic (http://www.softwareishard.com/blog/har-12-spec/).

Fields that the format does not know begin with an underscore, as it asks: `_id`, `_state`, `_mock`. An exchange without
a response has the status 0, as browsers write it; one without a request has no place in a HAR, and is counted in the
log's comment. Only waiting is timed, from the request to the response's head: an app tells no more.
"""

import base64
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from rsocket_broker.plugins.network import redaction
from rsocket_broker.plugins.network.bodies import as_text, decoded, joined
from rsocket_broker.plugins.network.messages import Headers, header, size
from rsocket_broker.plugins.network.traffic import Seen

VERSION = "1.2"
MAX_TEXT = 44 * 1024 * 1024
"""Characters of all bodies of one HAR, which travels as one message of up to 64 MiB. Further ones are left out."""
LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp() * 1000

_UNKNOWN = "unknown"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.")
_IPV6 = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?)%5B([0-9A-Fa-f:.]+)%5D")
_LEFT_OUT = "left out: the file would be too large. Narrow what is exported"


class Writer:
    """Makes one HAR. `secrets` leaves them in."""

    def __init__(self, *, secrets: bool, room: int = MAX_TEXT) -> None:
        self._secrets = secrets
        self._room = room

    def har(self, exchanges: Iterable[Seen], *, creator: str, dropped: int) -> dict[str, Any]:
        """`creator` is our version; `dropped` exchanges are known to be missing."""
        found = list(exchanges)
        entries = [self.entry(one) for one in found if one.request is not None]
        notes = [f"{dropped} older exchanges were dropped to make room"] if dropped else []
        orphans = len(found) - len(entries)
        notes += [f"{orphans} responses without a request are left out"] if orphans else []
        notes += [] if self._secrets else [f"secrets are replaced by {redaction.REDACTED}"]
        log = {"version": VERSION, "creator": {"name": "rsocket-broker", "version": creator}, "entries": entries}
        return {"log": {**log, **({"comment": "; ".join(notes)} if notes else {})}}

    def shown(self, exchange: Seen) -> dict[str, Any]:
        """One exchange as an entry, also without a request; with what stands in a list of exchanges besides."""
        known = exchange.request is not None
        entry = {**self._around(exchange), "response": self._response(exchange)}
        entry |= {"request": self._request(exchange)} if known else {}
        return {**entry, "_number": exchange.number}

    def entry(self, exchange: Seen) -> dict[str, Any]:
        """One exchange that has a request."""
        return {**self._around(exchange), "request": self._request(exchange), "response": self._response(exchange)}

    def _around(self, exchange: Seen) -> dict[str, Any]:
        waited = exchange.duration or 0
        return {
            "startedDateTime": iso(exchange.time),
            "time": waited,
            "cache": {},
            "timings": {"blocked": -1, "dns": -1, "connect": -1, "ssl": -1, "send": 0, "wait": waited, "receive": 0},
            "_id": exchange.key,
            "_state": exchange.state,
            **({"_mock": True} if exchange.head is not None and exchange.head.mock else {}),
        }

    def _request(self, exchange: Seen) -> dict[str, Any]:
        request = exchange.request
        assert request is not None
        url = uri(request.url if self._secrets else redaction.url(request.url))
        return {
            "method": request.method,
            "url": url,
            "httpVersion": _UNKNOWN,
            "cookies": [],
            "headers": self._headers(request.headers),
            "queryString": _query(url),
            "headersSize": -1,
            "bodySize": size(request.body),
            **({} if request.body is None else {"postData": self._posted(joined([request.body]), request.headers)}),
        }

    def _response(self, exchange: Seen) -> dict[str, Any]:
        head = exchange.head
        headers = () if head is None else head.headers
        return {
            "status": 0 if head is None else head.status,
            "statusText": "" if head is None else head.reason,
            "httpVersion": _UNKNOWN,
            "cookies": [],
            "headers": self._headers(headers),
            "content": self._content(exchange, headers),
            "redirectURL": self._redirect(headers),
            "headersSize": -1,
            "bodySize": sum(map(size, exchange.parts)) if exchange.parts else -1,
        }

    def _headers(self, pairs: Headers) -> list[dict[str, str]]:
        shown = pairs if self._secrets else redaction.headers(pairs)
        return [{"name": name, "value": value} for name, value in shown]

    def _redirect(self, headers: Headers) -> str:
        found = header(headers, "location")
        return found if self._secrets else redaction.url(found)

    def _posted(self, data: bytes, headers: Headers) -> dict[str, Any]:
        """The format has no place for bytes in a request: what is no text is written in base64, and says so."""
        text, encoding, note, _ = self._text(data, headers)
        posted = {"mimeType": header(headers, "content-type"), "text": text}
        notes = [note] if note else []
        if encoding:
            posted["_encoding"] = encoding
            notes.append("the text is base64")
        return posted | ({"comment": "; ".join(notes)} if notes else {})

    def _content(self, exchange: Seen, headers: Headers) -> dict[str, Any]:
        kind = header(headers, "content-type") or "x-unknown"
        if not exchange.parts:
            note = "the app shows no body" if exchange.head is not None else ""
            return {"size": 0, "mimeType": kind, **({"comment": note} if note else {})}
        raw = joined(exchange.parts)
        text, encoding, note, length = self._text(raw, headers)
        missing = f"{exchange.missing} parts of the body are missing" if exchange.missing else ""
        notes = "; ".join(filter(None, (note, missing)))
        return {
            "size": length,
            "compression": max(0, length - len(raw)),
            "mimeType": kind,
            "text": text,
            **({"encoding": encoding} if encoding else {}),
            **({"comment": notes} if notes else {}),
        }

    def _text(self, data: bytes, headers: Headers) -> tuple[str, str, str, int]:
        """A body as text, how that is encoded ("" or base64), what is to be said of it, and its bytes."""
        found, note = decoded(data, headers)
        kind = header(headers, "content-type")
        text, encoding = as_text(found, kind), ""
        if text is None:
            text, encoding = base64.b64encode(found).decode(), "base64"
        elif not self._secrets:
            text = redaction.body(text, kind)
        if len(text) > self._room:
            return "", "", _LEFT_OUT, len(found)
        self._room -= len(text)
        return text, encoding, note, len(found)


def uri(url: str) -> str:
    """A URL as RFC 3986 has it, which the format asks for: what an app tells may hold blanks, or be none at all."""
    kept = quote(url, safe="%/:?#@!$&'()*+,;=~")
    kept = _IPV6.sub(r"\1[\2]", kept)
    return kept if _SCHEME.match(kept) else f"{_UNKNOWN}:{kept or 'none'}"


def iso(milliseconds: float) -> str:
    """Milliseconds since 1970 as an ISO 8601 time in UTC; what no calendar has becomes the nearest that it has."""
    kept = min(max(0.0, milliseconds), LATEST)
    return datetime.fromtimestamp(kept / 1000, UTC).isoformat(timespec="milliseconds")


def _query(url: str) -> list[dict[str, str]]:
    try:
        pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    except ValueError:
        return []
    return [{"name": name, "value": value} for name, value in pairs]
