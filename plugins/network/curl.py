"""A request as a curl command that sends it again, for a POSIX shell."""

import base64
import shlex

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugins.network import redaction
from rsocket_broker.plugins.network.bodies import as_text, decoded, joined
from rsocket_broker.plugins.network.messages import Body, Headers, Request, header, size

MAX_BODY = 96 * 1024
"""Bytes of a body that go into a command: systems take 128 KiB in one argument, and quotes and base64 need room."""

_MADE_BY_CURL = frozenset({"content-length", "host", "accept-encoding", "content-encoding", "transfer-encoding"})
"""Headers that curl writes itself, or that would be untrue: the body goes out as it is shown, without compression."""


def command(request: Request, *, secrets: bool) -> str:
    """One line. Raises Invalid for a body that fits no command line."""
    words = ["curl", "--globoff"]
    if header(request.headers, "accept-encoding"):
        words.append("--compressed")
    if request.method == "HEAD":
        words.append("--head")
    elif request.method != ("GET" if request.body is None else "POST"):
        words += ["--request", request.method]
    headers = request.headers if secrets else redaction.headers(request.headers)
    for name, value in headers:
        if name.lower() not in _MADE_BY_CURL and not name.startswith("@"):  # curl would read a file of that name
            words += ["--header", f"{_line(name)}: {_line(value)}" if value else f"{_line(name)};"]
    piped = ""
    if request.body is not None:
        piped, more = _body(request.body, request.headers, secrets=secrets)
        words += more
    url = _line(request.url if secrets else redaction.url(request.url))
    words += ["--url", f"http://{url}" if url.startswith("@") else url]  # for the same reason
    return piped + shlex.join(words)


def _body(body: Body, headers: Headers, *, secrets: bool) -> tuple[str, list[str]]:
    """What is piped into curl, and the options that send the body."""
    found = decoded(joined([body]), headers).data if size(body) <= MAX_BODY else b""
    if max(size(body), len(found)) > MAX_BODY:
        raise Invalid(f"The body has more bytes than a command takes, {MAX_BODY}: export a HAR instead.")
    kind = header(headers, "content-type")
    text = as_text(found, kind)
    if text is None or "\0" in text:
        return f"printf %s {base64.b64encode(found).decode()} | base64 --decode | ", ["--data-binary", "@-"]
    return "", ["--data-raw", text if secrets else redaction.body(text, kind)]


def _line(text: str) -> str:
    """Without what could end the line of a header, or act on a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
