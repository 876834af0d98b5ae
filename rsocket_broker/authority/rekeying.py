"""Other words for the same keys: the files of all generations change at one moment, and with them the note that says
where the passphrase is.

What shall be is written to `ca/.rekey.new/`; renaming that to `ca/.rekey/` is the moment. From then on the new files
only have to be moved into place, which whoever opens the home next goes on with where a killed process stopped.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from rsocket_broker import files
from rsocket_broker.errors import HomeError

KEY_FILE = "ca.key"
NOTE_FILE = "passphrase.json"
_WRITING, _DECIDED = ".rekey.new", ".rekey"
_NO_NOTE = "no-note"


def replace(ca: Path, keys: Mapping[int, bytes], note: bytes | None) -> None:
    """Give each generation the content of its key file, and the home its note, or none. Needs the lock on the home.

    Raises HomeError; then everything is as it was.
    """
    settle(ca)
    writing = ca / _WRITING
    files.ensure_private_directory(writing)
    for generation, content in keys.items():
        files.write_private(writing / str(generation), content)
    if note is None:
        files.write_private(writing / _NO_NOTE, b"")
    else:
        files.write_private(writing / NOTE_FILE, note)
    try:
        writing.rename(ca / _DECIDED)
    except OSError as error:
        raise HomeError(f"{ca} cannot be written: {error.strerror}.") from error
    files.sync_directory(ca)
    settle(ca)


def settle(ca: Path) -> None:
    """Finish what a killed process had decided, and drop what it had not. Needs the lock on the home."""
    if (ca / _WRITING).is_dir():
        shutil.rmtree(ca / _WRITING)
    decided = ca / _DECIDED
    if not decided.is_dir():
        return
    for path in sorted(decided.iterdir()):
        if path.name.isdigit():
            path.rename(ca / path.name / KEY_FILE)
            files.sync_directory(ca / path.name)
        elif path.name == NOTE_FILE:
            path.rename(ca / NOTE_FILE)
        else:
            (ca / NOTE_FILE).unlink(missing_ok=True)
    files.sync_directory(ca)
    shutil.rmtree(decided)
