"""The authority's files in a home: which there are, and in which order they are written, so that a crash hurts none.

    ca/<generation>/ca.key, ca.crt      a folder that appears whole, by one rename, or not at all
    ca/<generation>/chain.crt           only of an operator's own CA: its certificate, then those above it, root last
    ca/passphrase.json                  where the passphrase of the keys is, if that is the key ring; see `rekeying`
    server/server.key, server.crt       written one after the other; a pair that does not fit is made again

Nothing here decides what a certificate holds.
"""

import os
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from rsocket_broker import files
from rsocket_broker.authority import key_ring, rekeying
from rsocket_broker.authority.issue import Issuer
from rsocket_broker.authority.keys import SigningKey, from_pem, is_encrypted, to_pem
from rsocket_broker.errors import AuthorityError, HomeError

KEY_FILE = "ca.key"
CERTIFICATE_FILE = "ca.crt"
CHAIN_FILE = "chain.crt"
SERVER_KEY_FILE = "server.key"
SERVER_CERTIFICATE_FILE = "server.crt"
_UNFINISHED = ".new"


@attrs.frozen(slots=True)
class CaHome:
    """The part of a broker's home that belongs to the authority. Writing is done under `files.locked(root)`."""

    root: Path

    @property
    def ca(self) -> Path:
        return self.root / "ca"

    @property
    def server(self) -> Path:
        return self.root / "server"

    @property
    def server_key(self) -> Path:
        return self.server / SERVER_KEY_FILE

    @property
    def server_certificate(self) -> Path:
        return self.server / SERVER_CERTIFICATE_FILE

    def ca_key(self, generation: int) -> Path:
        return self.ca / str(generation) / KEY_FILE

    def ca_certificate(self, generation: int) -> Path:
        return self.ca / str(generation) / CERTIFICATE_FILE

    def ca_chain(self, generation: int) -> Path:
        return self.ca / str(generation) / CHAIN_FILE

    def prepare(self) -> None:
        """Make the folders, check those that exist, and remove what a killed broker left unfinished.

        Raises HomeError when a folder is unsafe.
        """
        for folder in (self.ca, self.server):
            files.ensure_private_directory(folder)
            files.remove_leftovers(folder)
        self._remove_unfinished()
        self.settle()
        for generation in self.generations():
            files.remove_leftovers(self.ca / str(generation))

    def settle(self) -> None:
        """Finish a change of the passphrase that was decided and not carried out."""
        rekeying.settle(self.ca)

    def generations(self) -> list[int]:
        """The numbers of the generations that have a folder, in order. Raises HomeError for an unsafe folder."""
        if not self.ca.is_dir():
            return []
        files.check_private_directory(self.ca)
        found = sorted(int(path.name) for path in self.ca.iterdir() if path.name.isascii() and path.name.isdigit())
        for number in found:
            files.check_private_directory(self.ca / str(number))
        return found

    def load_generation(self, generation: int, passphrase: bytes | None = None) -> Issuer:
        """A generation's key and certificate. Without a passphrase, an encrypted key is opened by the key ring's.

        Raises HomeError for a missing or unsafe file; AuthorityError for one that is damaged or does not fit the
        other, and when the passphrase is needed and wrong or not to be had.
        """
        key_path, certificate_path = self.ca_key(generation), self.ca_certificate(generation)
        content = files.read_private(key_path)
        if is_encrypted(content):
            passphrase = passphrase or self.recalled()
        key = from_pem(content, str(key_path), passphrase)
        certificate = self.load_ca_certificate(generation)
        if certificate.public_key() != key.public_key():
            raise AuthorityError(f"{certificate_path} does not belong to {key_path}. Restore both from one backup.")
        above = self.load_above(generation)
        return Issuer(generation, certificate, key, above or (), imported=above is not None)

    def load_ca_certificate(self, generation: int) -> x509.Certificate:
        """A generation's certificate alone, which needs no passphrase. Raises HomeError, AuthorityError."""
        path = self.ca_certificate(generation)
        try:
            certificate = x509.load_pem_x509_certificate(files.read_private(path))
            certificate.verify_directly_issued_by((self.load_above(generation) or (certificate,))[0])
        except (ValueError, TypeError, InvalidSignature) as error:
            raise AuthorityError(f"{path} does not hold a sound CA certificate. Restore it from a backup.") from error
        return certificate

    def load_above(self, generation: int) -> tuple[x509.Certificate, ...] | None:
        """The certificates above a generation's own, nearest first, root last. They are empty for an operator's own
        root, None for a generation that was made here.

        Raises HomeError for an unsafe file, AuthorityError for one whose certificates do not sign each other.
        """
        path = self.ca_chain(generation)
        content = _read_if_there(path)
        if content is None:
            return None
        try:
            chain = x509.load_pem_x509_certificates(content)
            for lower, upper in zip(chain, [*chain[1:], chain[-1]], strict=True):
                lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise AuthorityError(f"{path} does not hold a sound chain. Restore it from a backup.") from error
        return tuple(chain[1:])

    def add_generation(self, issuer: Issuer, passphrase: bytes | None = None) -> None:
        """Put a new generation's key and certificate in place with one rename. Without a passphrase, the one that the
        home has in the key ring encrypts the key. Raises HomeError, and AuthorityError as `recalled` does."""
        self.stage_generation(issuer, passphrase)
        self.place_generation(issuer.generation)

    def stage_generation(self, issuer: Issuer, passphrase: bytes | None = None) -> None:
        """Write a generation's files where they count for nothing until `place_generation`; a start that finds them
        there, and does not know the generation, removes them. Raises as `add_generation` does."""
        passphrase = passphrase or self.recalled()
        unfinished = self.ca / _UNFINISHED
        self._remove_unfinished()
        files.ensure_private_directory(unfinished)
        files.write_private(unfinished / KEY_FILE, to_pem(issuer.key, passphrase))
        files.write_private(unfinished / CERTIFICATE_FILE, certificate_pem(issuer.certificate))
        if issuer.imported:
            chain = b"".join(map(certificate_pem, (issuer.certificate, *issuer.above)))
            files.write_private(unfinished / CHAIN_FILE, chain)
        files.sync_directory(self.ca)

    def place_generation(self, generation: int) -> None:
        """Put what was staged in its place, with one rename. Raises HomeError."""
        try:
            (self.ca / _UNFINISHED).rename(self.ca / str(generation))
        except OSError as error:
            raise HomeError(f"{self.ca / str(generation)} cannot be made: {error.strerror}.") from error
        files.sync_directory(self.ca)

    def staged(self) -> x509.Certificate | None:
        """The certificate of the generation that was staged and not placed; None when there is none."""
        content = _read_if_there(self.ca / _UNFINISHED / CERTIFICATE_FILE)
        try:
            return None if content is None else x509.load_pem_x509_certificate(content)
        except ValueError:
            return None

    def save_ca_certificate(self, generation: int, certificate: x509.Certificate) -> None:
        """Put a new certificate of a generation's key in the place of the one before. Raises HomeError."""
        files.write_private(self.ca_certificate(generation), certificate_pem(certificate))

    def destroy_generation(self, generation: int) -> None:
        """Take the files of a generation away, its key first and overwritten. Nothing of it may be there already.

        Raises HomeError.
        """
        folder = self.ca / str(generation)
        try:
            if not folder.is_dir() or folder.is_symlink():
                return
            _destroy(self.ca_key(generation))
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
            files.sync_directory(self.ca)
        except OSError as error:
            raise HomeError(f"{folder} cannot be removed: {error.strerror}. Remove it, its key above all.") from error

    def encrypt_keys(self, passphrase: bytes) -> bool:
        """Encrypt the keys of all generations if one is not; whether that was needed. Raises as `rekey` does."""
        if all(self.encrypted().values()):
            return False
        self.rekey(passphrase, passphrase, self.note())
        return True

    def encrypted(self) -> dict[int, bool]:
        """Whether its key is encrypted, by generation. Raises HomeError for a missing or unsafe file."""
        return {number: is_encrypted(files.read_private(self.ca_key(number))) for number in self.generations()}

    def rekey(self, old: bytes | None, new: bytes | None, note: key_ring.Entry | None) -> None:
        """Write the keys of all generations again, encrypted with `new` or, where that is None, in the clear, and the
        note with them: all at one moment. `old` opens those that are encrypted; None is the key ring's.

        Raises HomeError and AuthorityError as `load_generation` does; then nothing was changed.
        """
        issuers = [self.load_generation(number, old) for number in self.generations()]
        keys = {issuer.generation: to_pem(issuer.key, new) for issuer in issuers}
        rekeying.replace(self.ca, keys, None if note is None else note.to_json())

    def note(self) -> key_ring.Entry | None:
        """The entry of the key ring that holds the passphrase; None when the home has none there."""
        path = self.ca / rekeying.NOTE_FILE
        content = _read_if_there(path)
        return None if content is None else key_ring.Entry.from_json(content, str(path))

    def recalled(self) -> bytes | None:
        """The passphrase from the key ring; None when the home has none there. Raises as `key_ring.recall` does."""
        entry = self.note()
        return None if entry is None else key_ring.recall(entry)

    def load_server_key(self) -> SigningKey | None:
        """The endpoint's private key; None when there is none or it is damaged. Raises HomeError when unsafe."""
        content = _read_if_there(self.server_key)
        try:
            return from_pem(content, str(self.server_key)) if content is not None else None
        except AuthorityError:
            return None

    def load_server_chain(self) -> list[x509.Certificate]:
        """The endpoint's certificate and the CA's; empty when there are none or the file is damaged.

        Raises HomeError when the file is unsafe.
        """
        content = _read_if_there(self.server_certificate)
        try:
            return x509.load_pem_x509_certificates(content) if content is not None else []
        except ValueError:
            return []

    def save_server_key(self, key: SigningKey) -> None:
        files.write_private(self.server_key, to_pem(key))

    def save_server_chain(self, chain: list[x509.Certificate]) -> None:
        files.write_private(self.server_certificate, b"".join(map(certificate_pem, chain)))

    def _remove_unfinished(self) -> None:
        unfinished = self.ca / _UNFINISHED
        if unfinished.is_dir() and not unfinished.is_symlink():
            for path in unfinished.iterdir():
                path.unlink()
            unfinished.rmdir()


def _destroy(path: Path) -> None:
    """Overwrite a file and remove it: what a file system writes in place is gone then, whatever keeps its blocks."""
    if not path.is_file() or path.is_symlink():
        return
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    files.sync_directory(path.parent)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _read_if_there(path: Path) -> bytes | None:
    return files.read_private(path) if path.is_symlink() or path.exists() else None
