"""Device ids that stay the same: made when a device is first seen, and recognised by its hardware from then on.

What a platform calls a device (an adb serial, a host name) changes or repeats between runs, so it is no identity.
"""

import hashlib
import platform
import secrets
from datetime import UTC, datetime
from pathlib import Path

from rsocket_broker.state import State

_SCHEMA = (
    """
    CREATE TABLE devices (
        kind TEXT NOT NULL,
        hardware_key TEXT NOT NULL,
        device_id TEXT NOT NULL UNIQUE,
        first_seen TEXT NOT NULL,
        PRIMARY KEY (kind, hardware_key)
    ) WITHOUT ROWID
    """,
)

HOST = "host"
_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_ID_BYTES = 8
"""64 random bits: among a million devices, two the same is one chance in 37 million, and the table forbids it."""


class DeviceRegistry:
    """The devices that this broker has seen, in its `state.db`. May be called from any thread; waits for the disk."""

    def __init__(self, state: State) -> None:
        self.state = state
        """Where drivers may keep tables of their own (`State.migrate`)."""
        self._host: str | None = None
        """The id of this machine, which stays what it is while the broker runs."""
        state.migrate("devices", _SCHEMA)

    def device_id(self, kind: str, hardware_key: str) -> str:
        """The id of the device that `hardware_key` stands for, made if it is new: `<kind>-<16 hex digits>`.

        `kind` is a short word of a driver's own (`android`, `host`). `hardware_key` is whatever stays the same on one
        device and differs between two; it is kept only as a digest. It must not be empty.
        """
        if not hardware_key:
            raise ValueError("a device without a hardware key cannot be recognised again")
        digest = hashlib.sha256(hardware_key.encode("utf-8", "surrogateescape")).hexdigest()
        if known := self.state.read(
            "SELECT device_id FROM devices WHERE kind = ? AND hardware_key = ?", (kind, digest)
        ):
            return str(known[0]["device_id"])
        with self.state.transaction() as database:
            database.execute(
                "INSERT INTO devices VALUES (?, ?, ?, ?) ON CONFLICT (kind, hardware_key) DO NOTHING",
                (kind, digest, f"{kind}-{secrets.token_hex(_ID_BYTES)}", datetime.now(UTC).isoformat()),
            )
            row = database.execute(
                "SELECT device_id FROM devices WHERE kind = ? AND hardware_key = ?", (kind, digest)
            ).fetchone()
            return str(row["device_id"])

    def host_device_id(self) -> str:
        """The id of the machine that the broker runs on, which is the device of every app on its own file system."""
        if self._host is None:
            self._host = self.device_id(HOST, machine_key())
        return self._host


def machine_key() -> str:
    """What stays the same on this machine: its machine-id, or its name where the system keeps no such id."""
    for path in _MACHINE_IDS:
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text and text != "uninitialized":
            return text
    return platform.node() or "localhost"
