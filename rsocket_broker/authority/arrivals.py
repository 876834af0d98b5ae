"""Which certificates are known to have reached their holders, and when each was last seen in use.

A certificate that was signed need not have arrived: the container may have been gone, the line may have broken. Only
one that was seen may stand in for an older one when the CA that signed that one is dropped.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from rsocket_broker.errors import HomeError
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.state import State

_COMPONENT = "arrivals"
_STEPS = (
    """
    CREATE TABLE arrivals (
        serial TEXT PRIMARY KEY,    -- hex, as in the inventory
        arrived INTEGER NOT NULL,   -- seconds since 1970: when it was known first
        seen INTEGER NOT NULL       -- and when it was seen last
    ) STRICT, WITHOUT ROWID;
    """,
)
_WRITE = "INSERT INTO arrivals VALUES (?, ?, ?) ON CONFLICT (serial) DO UPDATE SET seen = max(seen, excluded.seen)"
AGAIN_S = 600.0
"""A certificate that is seen over and over costs one row in so many seconds."""
DELAY_S = 1.0
"""From the first certificate that is seen to the disk: one transaction then takes all that came meanwhile."""
MAX_REMEMBERED = 65536
"""Certificates of which it is remembered that they were noted just now; past that all are noted again."""

_log = logging.getLogger(__name__)


class Arrivals:
    """The table. Every method may be called from any thread; `note` never waits for the disk."""

    def __init__(self, state: State, clock: Callable[[], datetime]) -> None:
        self._state = state
        self._clock = clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._noted: dict[int, float] = {}
        self._waiting: dict[int, int] = {}
        self._timer: threading.Timer | None = None
        self._quiet = QuietLog(_log)
        state.migrate(_COMPONENT, _STEPS)

    def note(self, serial: int, ago: float = 0.0) -> None:
        """The certificate with this serial number is in its holder's hands, or was `ago` seconds before now: on the
        disk within a second or two."""
        now = time.monotonic()
        noted = self._noted.get(serial)
        if noted is not None and now - noted < AGAIN_S:
            return
        with self._lock:
            if len(self._noted) >= MAX_REMEMBERED:
                self._noted.clear()
            self._noted[serial] = now
            self._waiting[serial] = max(int(self._clock().timestamp() - ago), self._waiting.get(serial, 0))
            if self._timer is None:
                self._timer = threading.Timer(DELAY_S, self._write_in_time)
                self._timer.daemon = True
                self._timer.start()

    def forget_recent(self) -> None:
        """Note every certificate anew that is seen from now on: the order of what follows matters."""
        with self._lock:
            self._noted.clear()

    def flush(self) -> None:
        """Returns when all that was noted is on the disk. Raises HomeError when it cannot be written."""
        with self._writing:
            with self._lock:
                waiting, self._waiting = self._waiting, {}
                timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
            if not waiting:
                return
            try:
                self._write(waiting)
            except BaseException:
                with self._lock:
                    self._waiting = waiting | self._waiting
                raise

    def all(self) -> Mapping[int, datetime]:
        """When each certificate was seen last, by serial number; aware and in UTC. Counts what is not written yet, and
        may be asked inside a transaction."""
        with self._lock:
            waiting = dict(self._waiting)
        rows = self._state.read("SELECT serial, seen FROM arrivals")
        seen = {int(row["serial"], 16): row["seen"] for row in rows} | waiting
        return {serial: datetime.fromtimestamp(at, UTC) for serial, at in seen.items()}

    def write(self, database: sqlite3.Connection, serial: int) -> None:
        """As `note`, within a transaction of the caller's: for what is known once and must not be lost with a crash."""
        at = int(self._clock().timestamp())
        database.execute(_WRITE, (f"{serial:x}", at, at))

    def _write(self, waiting: Mapping[int, int]) -> None:
        with self._state.transaction() as database:
            database.executemany(_WRITE, [(f"{serial:x}", at, at) for serial, at in waiting.items()])

    def close(self) -> None:
        """Write what waits; what cannot be written is told to the log."""
        self._write_in_time()

    def _write_in_time(self) -> None:
        try:
            self.flush()
        except (sqlite3.ProgrammingError, RuntimeError):
            return  # the home is closed: whoever closed it has written what counts
        except (HomeError, sqlite3.Error) as error:
            self._quiet.write(logging.WARNING, "arrivals", "which certificates arrived could not be written: %s", error)
