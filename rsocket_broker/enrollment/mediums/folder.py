"""An app's own folder on this machine, held by descriptor: what is done to it is done to the folder that was checked.

The path comes from a stranger. Its parents are resolved once; after that nothing looks at a path again and no link is
followed. The calls block, so that they belong in a thread.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Self

from rsocket_broker.authority.requests import same_request
from rsocket_broker.credentials import CSR_FILE
from rsocket_broker.enrollment.mediums.base import (
    FILES,
    MAX_REQUEST_FILE,
    PUBLIC_FILE_MODE,
    TEMPORARY_SUFFIX,
    Bundle,
    Outcome,
)

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_MAY_ENTER = stat.S_IXGRP | stat.S_IXOTH
_MAX_CERTIFICATE_FILE = 1024 * 1024
"""Bytes read of a certificate in place, to compare it. Ours have a few thousand."""

SUPPORTED = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW") and hasattr(os, "geteuid")
"""Whether this system can hold a folder by descriptor. Windows cannot."""


class FolderProblem(Exception):
    """Why a folder is not the app's own, or cannot take the files. For the log: a stranger could use it to spy.

    The asker may be any user of this machine, and would learn what exists in folders that it cannot enter itself.
    """


class FolderGone(FolderProblem):
    """The folder is not there, or another one is in its place."""


class AppFolder:
    """The folder of one app. Use `AppFolder.open` or `reopen`, and the result as a context manager."""

    def __init__(self, path: str) -> None:
        """`path` is absolute, with every parent resolved. Raises FolderProblem, see `open`."""
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise FolderGone(f"{path} does not exist") from error
        except (OSError, ValueError) as error:
            raise _explain(path, error) from error
        self._about = os.fstat(self._descriptor)

    @classmethod
    def open(cls, path: str) -> Self:
        """The folder at the absolute `path`, whose last step must not be a link.

        Raises FolderProblem unless it is a folder of the broker's own user that nobody else may write to.
        """
        parent, _, last = path.rpartition("/")
        try:
            real = os.path.realpath(parent or "/", strict=True).rstrip("/")
        except FileNotFoundError as error:
            raise FolderGone(f"{path} does not exist") from error
        except (OSError, ValueError) as error:
            raise _explain(path, error) from error
        return cls(f"{real}/{last}")._checked()

    @classmethod
    def reopen(cls, location: Mapping[str, str]) -> Self:
        """The folder that `location` was made of. Raises FolderGone when another one is there now, and as `open`.

        Its path was resolved then; wherever that leads now, the folder must be the very same one.
        """
        folder = cls(location["directory"])
        if folder.location() != location:
            folder.close()
            raise FolderGone(f"{folder.path} is another folder than the one that was proven")
        return folder._checked()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def location(self) -> dict[str, str]:
        """What names this very folder, so that it is found again and not mistaken for another."""
        return {"directory": self.path, "device": str(self._about.st_dev), "inode": str(self._about.st_ino)}

    def holds_request(self, csr: str) -> bool:
        """Whether the folder holds the very same signing request. Raises FolderProblem when what it holds is no file
        of the app's own."""
        found = self._read(CSR_FILE, MAX_REQUEST_FILE)
        return found is not None and same_request(found, csr)

    def check_request(self, csr: str) -> None:
        """Raises FolderProblem unless the folder holds the very same signing request (`same_request`)."""
        found = self._read(CSR_FILE, MAX_REQUEST_FILE)
        if found is None:
            raise FolderProblem(f"{self.path} holds no {CSR_FILE}")
        if not same_request(found, csr):
            raise FolderProblem(f"the {CSR_FILE} in {self.path} is not the request that was sent")

    def place(self, bundle: Bundle) -> None:
        """Deliver the files of the bundle: written beside, read back; then renamed, the certificate last. None of it
        waits for the disk: until `secure` has, a loss of power may leave anything, which `settle` mends.

        Raises FolderProblem when the request in the folder is another one by now, or a file cannot be written.
        """
        with _explained(self.path):
            self.check_request(bundle.csr)
            contents, wanted = dict(bundle.files()), []
            for name in FILES:
                there = self._stat(name)
                self._check_replaceable(name, there)
                self._remove(name + TEMPORARY_SUFFIX)
                if (content := contents.get(name)) is not None and not self._is_in_place(name, content, there):
                    wanted.append((name, content))
            for name, content in wanted:
                self._write_beside(name, content)
            self.check_request(bundle.csr)
            for name, _ in wanted:
                os.rename(name + TEMPORARY_SUFFIX, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def secure(self) -> None:
        """Wait until what was placed is on the disk, as far as it is there still. Raises OSError if the disk fails."""
        for name in FILES:
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._descriptor)
            except OSError:  # the app has taken it away, or put something else there
                continue
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        os.fsync(self._descriptor)

    def write_nonce(self, name: str, content: bytes) -> None:
        """A new file that only the folder's user can read. Raises FolderProblem when it cannot be written."""
        with _explained(self.path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(name, flags, 0o600, dir_fd=self._descriptor), "wb") as file:
                file.write(content)

    def remove_nonce(self, name: str) -> None:
        """Raises FolderProblem when it is there and stays."""
        with _explained(self.path):
            self._remove(name)

    def settle(self, bundle: Bundle) -> Outcome:
        """Bring a delivery that was cut off anywhere to its end (see `Medium.settle`), onto the disk.

        It is finished wherever that can be: after a loss of power what lies there does not tell how far it had come.
        Raises FolderProblem when it can neither be finished nor undone.
        """
        with _explained(self.path):
            try:
                self.check_request(bundle.csr)
            except FolderProblem:
                return self._undo()
            try:
                self.place(bundle)
            except FolderProblem:
                if self._first_file_is_in_place(bundle):
                    raise
                return self._undo()
            self.secure()
            return Outcome.FINISHED

    def _first_file_is_in_place(self, bundle: Bundle) -> bool:
        """True after the first rename. Also before anything was written, where the old anchor is the new one already;
        finishing is then as right as undoing."""
        name, content = bundle.files()[0]
        unfinished = self._stat(name + TEMPORARY_SUFFIX) is not None
        return not unfinished and self._is_in_place(name, content, self._stat(name))

    def _is_in_place(self, name: str, content: bytes, there: os.stat_result | None) -> bool:
        """Such a file is not written again: finishing would otherwise pass through states that look like the start."""
        if there is None or stat.S_IMODE(there.st_mode) != PUBLIC_FILE_MODE:
            return False
        try:
            return self._read(name, _MAX_CERTIFICATE_FILE) == content
        except FolderProblem:
            return False

    def _stat(self, name: str) -> os.stat_result | None:
        """None where there is nothing of that name."""
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _undo(self) -> Outcome:
        for name in FILES:
            self._remove(name + TEMPORARY_SUFFIX)
        os.fsync(self._descriptor)
        return Outcome.UNDONE

    def _write_beside(self, name: str, content: bytes) -> None:
        temporary = name + TEMPORARY_SUFFIX
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600, dir_fd=self._descriptor)
        try:
            _write_all(descriptor, content)
            os.fchmod(descriptor, PUBLIC_FILE_MODE)
            found = os.pread(descriptor, len(content) + 1, 0)
        finally:
            os.close(descriptor)
        if found != content:
            raise FolderProblem(f"{temporary} in {self.path} does not read back as it was written")

    def _check_replaceable(self, name: str, there: os.stat_result | None) -> None:
        """A folder in the place of a file would stop the renaming half-way."""
        if there is not None and stat.S_ISDIR(there.st_mode):
            raise FolderProblem(f"{name} in {self.path} is a folder")

    def _checked(self) -> Self:
        """Itself, if it is a folder of our user that nobody else may write to."""
        about, why = self._about, ""
        if about.st_uid != os.geteuid():
            why = f"belongs to user {about.st_uid}, the broker runs as {os.geteuid()}"
        elif about.st_mode & _OTHERS_MAY_WRITE:
            why = f"has mode {about.st_mode & 0o7777:04o}: others may write to it"
        if why:
            self.close()
            raise FolderProblem(f"{self.path} {why}")
        return self

    def _read(self, name: str, limit: int) -> bytes | None:
        """The content of a plain file; None when there is no such file.

        Raises FolderProblem for a link, a device, a file longer than `limit`, and one that others can change.
        """
        try:
            # Without O_NONBLOCK, a pipe in the place of the file would hold this thread for ever.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise FolderProblem(f"{name} in {self.path} is a link") from None
            raise FolderProblem(f"{name} in {self.path} cannot be read: {error.strerror}") from error
        try:
            about = os.fstat(descriptor)
            self._check_file(name, about)
            content = _read_all(descriptor, about.st_size, limit + 1)
        finally:
            os.close(descriptor)
        if len(content) > limit:
            raise FolderProblem(f"{name} in {self.path} is longer than {limit} bytes")
        return content

    def _check_file(self, name: str, about: os.stat_result) -> None:
        if not stat.S_ISREG(about.st_mode):
            raise FolderProblem(f"{name} in {self.path} is not a plain file")
        if about.st_uid != os.geteuid():
            raise FolderProblem(f"{name} in {self.path} belongs to user {about.st_uid}")
        # Many systems make files group-writable by default, which harms nobody inside a closed folder.
        if about.st_mode & _OTHERS_MAY_WRITE and os.fstat(self._descriptor).st_mode & _OTHERS_MAY_ENTER:
            raise FolderProblem(f"{name} in {self.path} has mode {about.st_mode & 0o7777:04o}: others may change it")

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)


def _read_all(descriptor: int, size: int, limit: int) -> bytes:
    """What is in an open file of `size` bytes, up to `limit`. Python's file objects cost more than our small files."""
    content = b""
    while piece := os.read(descriptor, limit - len(content)):
        content += piece
        if len(content) >= size:
            break
    return content


def _write_all(descriptor: int, content: bytes) -> None:
    written = os.write(descriptor, content)
    while written < len(content):
        written += os.write(descriptor, content[written:])


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Errors of the system as FolderProblem, in words."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise _explain(path, error) from error


def _explain(path: str, error: OSError | ValueError) -> FolderProblem:
    if not isinstance(error, OSError) or isinstance(error, NotADirectoryError):
        return FolderProblem(f"{path} is not a folder")
    if error.errno == errno.ELOOP:
        return FolderProblem(f"{path} is a link")
    return FolderProblem(f"{path} cannot be used: {error.strerror}")
