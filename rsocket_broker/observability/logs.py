"""Log lines for people and for machines, on stderr. What peers send cannot forge a line, and secrets stay out.

A module logs with `logging.getLogger(__name__)`; facts that a program may want go in `extra={...}` and appear as
`key=value` in text and as keys of their own in JSON.
"""

import functools
import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

MESSAGE_LIMIT = 8192
"""Characters of one message: a peer that can make us log its words must not be able to fill the disk with one."""

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Control characters, what turns or hides the reading order, and halves of characters that no stream can carry."""

_SECRET = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def visible(text: str) -> str:
    """`text` with every character that could move a cursor, end a line or turn the reading order written out."""
    return text if text.isascii() and text.isprintable() else UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def without_secrets(text: str) -> str:
    """`text` with private keys taken out, should one ever get into a message or a traceback."""
    return _SECRET.sub("[private key]", text) if "PRIVATE KEY-----" in text else text


def fields(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra`, in the order given."""
    given = vars(record)
    if given.keys() <= _OWN_FIELDS:  # as nearly always
        return {}
    return {name: value for name, value in given.items() if name not in _OWN_FIELDS}


def message(record: logging.LogRecord) -> str:
    """The message on one line, cut to MESSAGE_LIMIT."""
    text = visible(without_secrets(record.getMessage()))
    return text if len(text) <= MESSAGE_LIMIT else f"{text[:MESSAGE_LIMIT]}… ({len(text)} characters)"


def error_text(record: logging.LogRecord) -> str | None:
    """The traceback of the record's exception, each line made visible; None where there is none."""
    if not record.exc_info:
        return None
    text = without_secrets(logging.Formatter().formatException(record.exc_info))
    return "\n".join(visible(line) for line in text.split("\n"))


def _source(record: logging.LogRecord) -> str:
    return record.name.removeprefix("rsocket_broker.")


@functools.lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    """A second of local time as text: lines come many a second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00.123 warning enrollment.endpoint: words key=value`, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        moment = _second(int(record.created))
        parts = [f"{moment}.{int(record.msecs):03d} {record.levelname.lower()} {_source(record)}: {message(record)}"]
        parts += [f"{name}={visible(without_secrets(str(value)))}" for name, value in fields(record).items()]
        line = " ".join(parts)
        trace = error_text(record)
        return line if trace is None else f"{line}\n{trace}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (UTC, RFC 3339), `level`, `source`, `message`, the extra fields, `error`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": moment.replace("+00:00", "Z"), "level": record.levelname.lower()}
        line |= {"source": _source(record), "message": message(record)}
        line |= {name: _plain(value) for name, value in fields(record).items() if name not in line}
        trace = error_text(record)
        if trace is not None:
            line["error"] = trace
        return json.dumps(line, ensure_ascii=False)


def _plain(value: object) -> object:
    """A field as JSON can hold it: numbers, truth and null stay, all else becomes visible text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return visible(without_secrets(str(value)))


class _Handler(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        """As StreamHandler's, without taking its lock, which the caller holds, once more to flush."""
        try:
            self.stream.write(f"{self.format(record)}\n")
            self.stream.flush()
        except Exception:  # noqa: BLE001  whatever it is, it is the log's own affair
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the standard library's name
        """A log that cannot be written (a closed pipe, a full disk) must not take the broker with it."""


FORMATTERS: Mapping[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def configure(log_format: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Sends all logs to `stream` (stderr) in one of FORMATS; other libraries only from warnings upwards.

    Replaces what an earlier call set up.
    """
    handler = _Handler(sys.stderr if stream is None else stream)
    handler.setFormatter(FORMATTERS[log_format]())
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("rsocket_broker").setLevel(level.upper())


def spare_what_is_not_shown() -> None:
    """No record of this process says any more where in the source, in which thread and which process it was made: none
    of our formats shows it, and to find it out is a third of what a line costs. Each session makes two."""
    logging._srcfile = None  # as Python's guide to logging has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
