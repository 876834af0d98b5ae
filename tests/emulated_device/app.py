"""AppSandbox: what a Flipper-like SDK does in its own folder on the device."""

import base64
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from tests.emulated_device.device import EmulatedDevice
from tests.emulated_device.faults import Trouble

KEY_BITS = 2048


class AppSandbox:
    """An installed app, its container, and the folder where its SDK keeps keys and certificates.

    `destination` is what the app tells the broker; `folder` is where that is on this machine.
    """

    def __init__(
        self,
        device: EmulatedDevice,
        package: str,
        *,
        user: int = 0,
        key: rsa.RSAPrivateKey | None = None,
        common_name: str | None = None,
        version_1: bool = False,
    ) -> None:
        self.device, self.package, self.user = device, package, user
        self.uid = user * 100000 + next(device.uids)
        self.container = device.sandbox.install(package, user, self.uid)
        self.destination = f"/data/user/{user}/{package}/files/sonar/"
        self.folder = self.container / "files" / "sonar"
        self.common_name = common_name or (package if len(package) < 64 else "com.flipper")
        self.version_1 = version_1
        self.key = key or rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
        self.csr = ""
        self.make_request()

    def make_request(self) -> None:
        """Empties the folder and writes a key and a request, as the SDK does before each exchange."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for path in self.folder.iterdir():
            path.unlink()
        key_pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (self.folder / "privateKey.pem").write_bytes(key_pem)
        self.csr = (
            version_1_request(self.key, self.common_name) if self.version_1 else request(self.key, self.common_name)
        )
        (self.folder / "app.csr").write_text(self.csr, encoding="ascii")

    def trouble(self, trouble: Trouble | None) -> None:
        """What `run-as` says about this package from now on."""
        self.device.sandbox.set_trouble(self.package, self.user, trouble)

    def keep_answer(self, answer: dict[str, object], medium: int = 1) -> None:
        """Writes the broker's answer where the SDK keeps it."""
        config = json.dumps({**answer, "medium": medium})
        (self.folder / "connection_config.json").write_text(config, encoding="utf-8")

    def file(self, name: str) -> Path:
        return self.folder / name

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


def subject(common_name: str) -> x509.Name:
    """The name in the order in which the SDK writes it."""
    parts = [
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.STATE_OR_PROVINCE_NAME, "CA"),
        (NameOID.LOCALITY_NAME, "Menlo Park"),
        (NameOID.ORGANIZATION_NAME, "Flipper"),
        (NameOID.COMMON_NAME, common_name),
    ]
    return x509.Name([x509.NameAttribute(kind, value, _validate=False) for kind, value in parts])


def request(key: rsa.RSAPrivateKey, common_name: str) -> str:
    """A request as RFC 2986 wants it."""
    made = x509.CertificateSigningRequestBuilder().subject_name(subject(common_name)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode("ascii")


def version_1_request(key: rsa.RSAPrivateKey, common_name: str) -> str:
    """A request as the SDK makes it: its version field says 1 where 0 is due, and the signature covers that."""
    made = x509.CertificateSigningRequestBuilder().subject_name(subject(common_name)).sign(key, hashes.SHA256())
    der = made.public_bytes(serialization.Encoding.DER)
    inner = made.tbs_certrequest_bytes
    version = inner.index(b"\x02\x01\x00")
    wrong = inner[:version] + b"\x02\x01\x01" + inner[version + 3 :]
    changed = der.replace(inner, wrong).replace(made.signature, key.sign(wrong, padding.PKCS1v15(), hashes.SHA256()))
    return pem(changed)


def pem(der: bytes) -> str:
    text = base64.b64encode(der).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE REQUEST-----", *lines, "-----END CERTIFICATE REQUEST-----", ""])
