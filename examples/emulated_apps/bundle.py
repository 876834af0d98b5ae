"""The encrypted bundle that an iOS app is sent when nobody can reach its files: opened with a key that it reads from a
screen by its camera."""

import base64
import contextlib
import io
import zipfile

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from .sonar_folder import SonarFolder

IV = 16
BUNDLE, ARCHIVE = "certificates.enc", "certificates.zip"


class WrongKey(Exception):
    """What comes out is no archive: the app asks for another scan."""


def unpack(folder: SonarFolder, key: str) -> None:
    """Decrypts BUNDLE with the base64 text of a QR code, unzips it into the folder, and deletes both archives.

    The padding is left where it is, behind the archive. Raises WrongKey.
    """
    blob = base64.b64decode((folder / BUNDLE).read_bytes())
    try:
        cipher = Cipher(algorithms.AES256(base64.b64decode(key)), modes.CBC(blob[:IV]))
        decryptor = cipher.decryptor()
        (folder / ARCHIVE).write_bytes(decryptor.update(blob[IV:]) + decryptor.finalize())
        with zipfile.ZipFile(io.BytesIO((folder / ARCHIVE).read_bytes())) as archive:
            archive.extractall(folder.path)
    except (ValueError, zipfile.BadZipFile) as error:
        raise WrongKey(str(error)) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            (folder / ARCHIVE).unlink()
    (folder / BUNDLE).unlink()
