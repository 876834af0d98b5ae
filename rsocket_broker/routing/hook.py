"""Asks an external service where the policy says "ask". Whatever goes wrong, the answer is no.

The question is one HTTP POST with the facts of the call as JSON; the answer is 200 with `{"allow": true}`, and anything
else means no. One connection for each question: nothing is shared that could be taken over or left half read.
"""

import asyncio
import logging
import ssl
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from rsocket_broker import __version__
from rsocket_broker.jsontext import JsonError, dump, parse_object
from rsocket_broker.policy.hook import UNIX, HookSettings
from rsocket_broker.policy.rules import Facts
from rsocket_broker.quiet_log import QuietLog

MAX_HEAD = 16 * 1024
"""Bytes of an answer before its body: an ordinary one has a few hundred."""
MAX_BODY = 64 * 1024
"""Bytes of the body, of which one word is read."""
MAX_REMEMBERED = 4096
"""Answers that are held to; the one not used for longest gives way."""
FAILURE_TTL = 1.0
"""Seconds for which a failure holds: a service that is down is asked once a second for each question, not more."""
MAX_WAITING = 1024
"""Questions that wait for their turn. More than that is a service that cannot keep up, and the answer is no."""

MAX_OF_ONE = 128
"""Of these, questions about one client: one that makes names up with all its sessions shuts nobody else out."""

_log = logging.getLogger(__name__)


class HookFailed(Exception):
    """No answer that counts; the text says why, for the log."""


def question(facts: Facts) -> dict[str, object]:
    """What the service is told."""
    return {
        "app": facts.app,
        "device": facts.device,
        "proof": facts.proof,
        "profile": facts.profile,
        "method": facts.method,
        "direction": facts.direction.value,
        "channel": facts.channel,
        "kind": facts.kind,
        "user": facts.user,
        "to": facts.to,
    }


class Hook:
    """The service, and what it has said of late. One per policy that asks."""

    def __init__(self, settings: HookSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.results: Counter[str] = Counter()
        """Answers by what they were: `allowed`, `denied`, `failed`."""
        self._clock = clock
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._waiting = 0
        self._waiting_of: Counter[tuple[str, str, str]] = Counter()
        """The same by app, device and proof."""
        self._said: OrderedDict[Facts, tuple[bool, float]] = OrderedDict()
        """Answers, and until when each holds."""
        self._tls: ssl.SSLContext | None = None
        self._quiet = QuietLog(_log)

    def known(self, facts: Facts) -> bool | None:
        """What was said of this very question lately."""
        found = self._said.get(facts)
        if found is None:
            return None
        if found[1] <= self._clock():
            del self._said[facts]
            return None
        self._said.move_to_end(facts)
        return found[0]

    async def ask(self, facts: Facts) -> bool:
        """The service's answer, by `timeout` at the latest; False for whatever is no answer."""
        who = facts.app, facts.device, facts.proof
        if self._waiting >= MAX_WAITING or self._waiting_of[who] >= MAX_OF_ONE:
            self.results["failed"] += 1
            return False
        self._waiting += 1
        self._waiting_of[who] += 1
        try:
            async with asyncio.timeout(self.settings.timeout), self._turns:
                allowed = await self._post(dump(question(facts)))
        except (HookFailed, OSError, TimeoutError, ValueError, EOFError) as error:
            self.results["failed"] += 1
            why = "it did not answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            self._quiet.write(logging.WARNING, "hook", "the policy hook %s: %s", self.settings.url, why)
            self._remember(facts, False, FAILURE_TTL)
            return False
        finally:
            self._waiting -= 1
            self._waiting_of[who] -= 1
            if not self._waiting_of[who]:
                del self._waiting_of[who]
        self.results["allowed" if allowed else "denied"] += 1
        self._remember(facts, allowed, self.settings.ttl)
        return allowed

    def _remember(self, facts: Facts, allowed: bool, seconds: float) -> None:
        if seconds <= 0:
            return
        self._said[facts] = allowed, self._clock() + seconds
        self._said.move_to_end(facts)
        if len(self._said) > MAX_REMEMBERED:
            self._said.popitem(last=False)

    async def _post(self, body: bytes) -> bool:
        reader, writer, host, path = await self._open()
        try:
            # HTTP/1.0: the answer then comes in one piece, and its end is the end of the connection
            head = f"POST {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: rsocket-broker/{__version__}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode("ascii") + body)
            await writer.drain()
            return await _answer(reader)
        finally:
            writer.transport.abort()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str, str]:
        url = self.settings.url
        if url.startswith(UNIX):
            reader, writer = await asyncio.open_unix_connection(url.removeprefix(UNIX), limit=MAX_HEAD)
            return reader, writer, "localhost", "/"
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        if secure and self._tls is None:
            self._tls = ssl.create_default_context()
        port = parts.port or (443 if secure else 80)
        reader, writer = await asyncio.open_connection(
            host, port, limit=MAX_HEAD, ssl=self._tls if secure else None, server_hostname=host if secure else None
        )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return reader, writer, parts.netloc, path


async def _answer(reader: asyncio.StreamReader) -> bool:
    """Whether an HTTP answer says yes. Raises HookFailed for one that says nothing of use."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise HookFailed("its answer is no HTTP") from None
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if not status[0].startswith(b"HTTP/1.") or len(status) < 2 or status[1] != b"200":
        shown = status[1][:3].decode("ascii", "replace") if len(status) > 1 else "nothing"
        raise HookFailed(f"it answers {shown}, not 200")
    body = bytearray()
    while piece := await reader.read(MAX_BODY):
        body += piece
        if len(body) > MAX_BODY:
            raise HookFailed(f"its answer is longer than {MAX_BODY} bytes")
    return _allows(bytes(body))


def _allows(body: bytes) -> bool:
    try:
        said: Mapping[str, object] = parse_object(body)
    except JsonError as error:
        raise HookFailed(f"its answer is {error}") from None
    allow = said.get("allow")
    if not isinstance(allow, bool):
        raise HookFailed('its answer has no "allow" that is true or false')
    return allow
