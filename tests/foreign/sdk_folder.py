"""The folder of a desktop app with Flipper's SDK, and its exchange done by hand: no code of ours takes part."""

import json
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from tests.end_to_end.wire import APPLICATION_ERROR, ERROR, REQUEST_RESPONSE, Line, payload_data, request, setup

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER


class EnrollmentFailed(Exception):
    """The broker's words."""


def claims(app_id: str, app: str = "Demo", **more: object) -> dict[str, object]:
    return {"os": "MacOS", "device": "host", "app": app, "app_id": app_id, "sdk_version": 4, "medium": 1, **more}


def make_folder(path: Path, app_id: str) -> Path:
    """Key and request as the SDK makes them: RSA 2048, PKCS#1, and a request whose version says 1 instead of 0."""
    path.mkdir(mode=0o700, parents=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Menlo Park"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Flipper"),
            x509.NameAttribute(NameOID.COMMON_NAME, app_id),
        ]
    )
    proper = x509.CertificateSigningRequestBuilder(subject).sign(key, hashes.SHA256())
    (path / "privateKey.pem").write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )
    (path / "privateKey.pem").chmod(0o600)
    (path / "app.csr").write_bytes(_as_version_1(proper, key))
    return path


def enrol(path: Path, app_id: str, port: int, **fields: object) -> dict[str, object]:
    """The exchange over the plain port; `fields` replace those of the message. Raises EnrollmentFailed."""
    message = {
        "method": "signCertificate",
        "csr": (path / "app.csr").read_text(),
        "destination": f"{path}/",
        "medium": 1,
    } | fields
    with Line.open(port) as line:
        line.send(
            setup(claims(app_id, device_id="unknown")), request(REQUEST_RESPONSE, 1, json.dumps(message).encode())
        )
        answer = line.answer(1)
    if answer.kind == ERROR:
        code, text = answer.error
        assert code == APPLICATION_ERROR, answer
        raise EnrollmentFailed(text)
    found: dict[str, object] = json.loads(payload_data(answer))
    return found


def client_context(path: Path) -> ssl.SSLContext:
    """TLS with the certificate of an enrolled folder, trusting its CA and nothing else."""
    context = ssl.create_default_context(cafile=path / "sonarCA.crt")
    context.load_cert_chain(path / "device.crt", path / "privateKey.pem")
    return context


def enrolled_folder(path: Path, app_id: str, port: int) -> Path:
    make_folder(path, app_id)
    enrol(path, app_id, port)
    return path


def _as_version_1(proper: x509.CertificateSigningRequest, key: rsa.RSAPrivateKey) -> bytes:
    """The same request with version 1, signed anew. DER: SEQUENCE { info, algorithm, BIT STRING signature }."""
    info = bytearray(proper.tbs_certrequest_bytes)
    version = info.index(b"\x02\x01\x00")
    info[version + 2] = 1
    signature = key.sign(bytes(info), padding.PKCS1v15(), hashes.SHA256())
    whole = proper.public_bytes(DER)
    start = whole.index(proper.tbs_certrequest_bytes)
    algorithm = whole[start + len(info) : whole.index(b"\x03\x82\x01\x01\x00", start + len(info))]
    content = bytes(info) + algorithm + b"\x03\x82\x01\x01\x00" + signature
    der = b"\x30\x82" + len(content).to_bytes(2, "big") + content
    return ssl.DER_cert_to_PEM_cert(der).replace("CERTIFICATE", "CERTIFICATE REQUEST").encode()
