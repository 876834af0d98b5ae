"""The passphrase of the CA's keys in the operating system's key ring, through the `keyring` library, which is an extra.

The home holds a note of the entry and never the passphrase: `ca/passphrase.json`. An entry is written once and under a
name of its own, so that the one before stays until nothing needs it any more.
"""

import secrets
from types import ModuleType

import attrs

from rsocket_broker import jsontext
from rsocket_broker.errors import AuthorityError, ConfigurationError

SERVICE = "rsocket-broker"
GENERATED_BYTES = 32
"""Of chance in a passphrase that nobody has to type."""
INSTALL = "pip install 'rsocket_broker[keyring]'"
INSTEAD = "Keep the passphrase in a file of mode 0600 outside the home instead, and name it with --passphrase-file."


@attrs.frozen(slots=True)
class Entry:
    """Where the passphrase is: what key rings call a service and a user name."""

    account: str
    service: str = SERVICE

    @classmethod
    def new(cls, name: str) -> "Entry":
        """A name that no entry has had, with a part that people recognise."""
        return cls(f"{name}-{secrets.token_hex(8)}")

    def to_json(self) -> bytes:
        return jsontext.dump({"service": self.service, "account": self.account}) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Entry":
        """Raises AuthorityError naming `where` for anything but what `to_json` writes."""
        try:
            value = jsontext.parse_object(data)
            service, account = value["service"], value["account"]
        except (ValueError, KeyError) as error:
            raise AuthorityError(f"{where} is damaged. Restore it from a backup.") from error
        if not isinstance(service, str) or not isinstance(account, str):
            raise AuthorityError(f"{where} is damaged. Restore it from a backup.")
        return cls(account, service)


def generated() -> bytes:
    return secrets.token_urlsafe(GENERATED_BYTES).encode()


def store(entry: Entry, passphrase: bytes) -> None:
    """Put it into the key ring, and look whether it is there.

    Raises AuthorityError when there is no key ring that keeps it; ConfigurationError without the library, or for a
    passphrase that is no text, which key rings do not take.
    """
    keyring = _library()
    try:
        text = passphrase.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError("A passphrase for the key ring must be UTF-8 text.") from error
    try:
        keyring.set_password(entry.service, entry.account, text)
        kept = keyring.get_password(entry.service, entry.account)
    except Exception as error:  # each key ring fails in its own way, and with classes of its own
        raise AuthorityError(
            f"The key ring of this machine does not take the passphrase{_why(error)}. {INSTEAD}"
        ) from error
    if kept != text:
        raise AuthorityError(f"This machine has no key ring that keeps a passphrase. {INSTEAD}")


def recall(entry: Entry) -> bytes:
    """The passphrase. Raises AuthorityError when the key ring does not give it; ConfigurationError without library."""
    keyring = _library()
    try:
        text = keyring.get_password(entry.service, entry.account)
    except Exception as error:  # as above
        raise AuthorityError(
            f"The key ring of this machine does not open{_why(error)}. Unlock it, or name a file with the passphrase "
            "of the CA's key (--passphrase-file)."
        ) from error
    if text is None:
        raise AuthorityError(
            f"This user's key ring has no entry {entry.account} of {entry.service}, which holds the passphrase of the "
            "CA's key. Run this as the user who made it, or name a file with the passphrase (--passphrase-file)."
        )
    return str(text).encode()


def forget(entry: Entry) -> bool:
    """Take an entry out of the key ring; whether that could be done."""
    try:
        _library().delete_password(entry.service, entry.account)
    except Exception:  # noqa: BLE001  it is not needed any more, wherever it is
        return False
    return True


def keeps_in_the_clear() -> bool:
    """Whether the key ring here is one that writes passphrases to a file as they are. Raises ConfigurationError."""
    return "Plaintext" in type(_library().get_keyring()).__name__


def _library() -> ModuleType:
    try:
        import keyring  # an extra, and slow: it looks for every key ring there could be
    except ImportError as error:
        raise ConfigurationError(
            f"The key ring of the operating system is reached through a library that is not installed. Run: {INSTALL}"
        ) from error
    module: ModuleType = keyring
    return module


def _why(error: Exception) -> str:
    """The name of what failed, never its words: they are a library's, and could repeat what they were given."""
    return f" ({type(error).__name__})"
