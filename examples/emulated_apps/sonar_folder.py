"""SonarFolder: the folder in an app's private files where the SDK keeps its key, its request and its certificates."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

REQUIRED = ("sonarCA.crt", "device.crt", "privateKey.pem", "connection_config.json")
PASSWORD = b"fl1pp3r"
"""Of `device.p12`."""
LONGEST_NAME = 63
"""Characters of an app id that go into a request; a longer one is called LONG_NAME there."""
LONG_NAME = "com.flipper"
SHA256_WITH_RSA = bytes.fromhex("300d06092a864886f70d01010b0500")


class SonarFolder:
    """`destination` is what the app calls the folder, with a separator at its end; `path` is where it is."""

    def __init__(self, path: Path, destination: str | None = None) -> None:
        self.path = path
        self.destination = destination or f"{path}/"

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def renew(self, app_id: str) -> str:
        """Deletes everything, and makes a new key and a request, whose PEM text is given back."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in self.path.iterdir():
            file.unlink()
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (self / "privateKey.pem").write_bytes(private)
        text = signing_request(key, app_id if len(app_id) <= LONGEST_NAME else LONG_NAME)
        (self / "app.csr").write_text(text, encoding="ascii")
        return text

    @property
    def request(self) -> str:
        return (self / "app.csr").read_text(encoding="ascii")

    def complete(self) -> bool:
        """All files are there that a session needs, none of them empty."""
        return all((self / name).is_file() and (self / name).stat().st_size for name in REQUIRED)

    def keep(self, config: Mapping[str, object]) -> None:
        (self / "connection_config.json").write_text(json.dumps(config), encoding="utf-8")

    def config(self) -> dict[str, object] | None:
        """None where there is none, or none with a medium."""
        try:
            found = json.loads((self / "connection_config.json").read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and type(found.get("medium")) is int else None

    def anchor(self) -> x509.Certificate:
        """The first certificate of `sonarCA.crt`: some SDKs read no other."""
        return x509.load_pem_x509_certificates((self / "sonarCA.crt").read_bytes())[0]

    def make_p12(self) -> Path:
        """Writes `device.p12`, as SDKs of the WebSocket era do at each secure connection."""
        key = serialization.load_pem_private_key((self / "privateKey.pem").read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        leaf = x509.load_pem_x509_certificate((self / "device.crt").read_bytes())
        encryption = serialization.BestAvailableEncryption(PASSWORD)
        made = pkcs12.serialize_key_and_certificates(b"device.p12", key, leaf, [self.anchor()], encryption)
        (self / "device.p12").write_bytes(made)
        return self / "device.p12"


def signing_request(key: rsa.RSAPrivateKey, common_name: str) -> str:
    """A PEM request whose version says 1, where RFC 2986 knows only 0: so the SDK makes it."""
    parts = {
        NameOID.COUNTRY_NAME: "US",
        NameOID.STATE_OR_PROVINCE_NAME: "CA",
        NameOID.LOCALITY_NAME: "Menlo Park",
        NameOID.ORGANIZATION_NAME: "Flipper",
        NameOID.COMMON_NAME: common_name,
    }
    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in parts.items()]).public_bytes()
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    info = der(0x30, b"\x02\x01\x01" + name + public + b"\xa0\x00")
    signature = key.sign(info, padding.PKCS1v15(), hashes.SHA256())
    text = base64.encodebytes(der(0x30, info + SHA256_WITH_RSA + der(0x03, b"\x00" + signature))).decode("ascii")
    joined = text.replace("\n", "")
    lines = [joined[start : start + 64] for start in range(0, len(joined), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE REQUEST-----", *lines, "-----END CERTIFICATE REQUEST-----", ""])


def der(tag: int, content: bytes) -> bytes:
    """One DER element."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
