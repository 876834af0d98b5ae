"""Secrets, taken out of what leaves the plugin unless somebody asks for them.

By name, wherever a name stands beside a value: headers, cookies, parameters of a URL, fields of a form, keys of JSON.
What a secret is called otherwise, or a body that is neither form nor JSON, is beyond this.
"""

import json
import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from rsocket_broker.plugins.network.messages import Headers

REDACTED = "[redacted]"
"""What stands in a secret's place."""
MAX_JSON = 4 * 1024 * 1024
"""Characters of JSON that are looked through; a larger body is redacted as a whole."""

MAX_URL = 64 * 1024
"""Characters of an address that are looked through, the same: servers take 8 KiB."""

_NAMES = re.compile(
    r"authori[sz]ation|cookie|passw|passphrase|secret|credential|session|token|signature|private|otp$|^pin$|^sid$|^sig$"
    r"|^auth(?:$|[_-])|api[_-]?key|access[_-]?key|csrf|xsrf|jwt|^pwd$",
    re.IGNORECASE,
)
_ALSO_IN_FORMS = frozenset({"code", "key"})
"""Secrets of addresses and forms (OAuth's code, Google's key), and words of every day in JSON."""
_FORM = "application/x-www-form-urlencoded"


def is_secret(name: str) -> bool:
    """Whether what is called so is likely to be one."""
    return _NAMES.search(name) is not None


def headers(pairs: Headers) -> Headers:
    """Headers, those that are secret without their values, and addresses in others without their secrets."""
    return tuple((name, REDACTED if is_secret(name) else _url(value)) for name, value in pairs)


def _url(value: str) -> str:
    """Headers such as Referer and Location hold addresses."""
    return url(value) if "://" in value else value


def url(text: str) -> str:
    """Without user and password, and without the values of secret parameters."""
    if len(text) > MAX_URL:
        return REDACTED
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")
    except ValueError:  # no address that anybody could look into
        return text.partition("?")[0]
    found = parts.query and form(parts.query)
    fragment = form(parts.fragment) if "=" in parts.fragment else parts.fragment
    if not host[1] and found == parts.query and fragment == parts.fragment:
        return text
    netloc = f"{quote(REDACTED)}@{host[2]}" if host[1] else parts.netloc
    return parts._replace(netloc=netloc, query=found, fragment=fragment).geturl()


def form(text: str) -> str:
    """Parameters of a URL or a form, those that are not secret as they were."""
    pieces = []
    for piece in text.split("&"):
        pairs = parse_qsl(piece, keep_blank_values=True)
        secret = bool(pairs) and (is_secret(pairs[0][0]) or pairs[0][0].lower() in _ALSO_IN_FORMS)
        pieces.append(f"{piece.partition('=')[0]}={quote(REDACTED)}" if secret else piece)
    return "&".join(pieces)


def body(text: str, content_type: str) -> str:
    """A body's text without its secrets."""
    kind = content_type.lower().partition(";")[0].strip()
    if kind == _FORM:
        return form(text)
    if "json" not in kind and text[:1] not in ("{", "["):
        return text
    if len(text) > MAX_JSON:
        return REDACTED
    try:
        value = json.loads(text)
        cleaned = _cleaned(value)
    except (ValueError, RecursionError):
        return REDACTED if "json" in kind and _NAMES.search(text) else text
    return text if cleaned == value else json.dumps(cleaned, ensure_ascii=False)


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hidden(one) if is_secret(key) else _cleaned(one) for key, one in value.items()}
    return [_cleaned(one) for one in value] if isinstance(value, list) else value


def _hidden(value: Any) -> Any:
    """All that is below a secret name is one; nothing, yes and no are none."""
    if isinstance(value, dict):
        return {key: _hidden(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_hidden(one) for one in value]
    return value if value is None or isinstance(value, bool) else REDACTED
