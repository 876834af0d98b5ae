"""What went wrong in TLS, out of OpenSSL's words into ours: the alert, who sent it, what it means."""

import ssl

from rsocket_broker.errors import TlsRefused

_BY_VERIFY_CODE = {
    # Codes of X509_verify_cert (openssl-verification-options) → the alert that OpenSSL sends for them.
    2: "unknown_ca",
    9: "bad_certificate",
    10: "certificate_expired",
    18: "unknown_ca",
    19: "unknown_ca",
    20: "unknown_ca",
    21: "unknown_ca",
    23: "certificate_revoked",
    26: "unsupported_certificate",
    62: "bad_certificate",
    64: "bad_certificate",
}
_BY_REASON = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": ("certificate_required", "it shows no certificate"),
    "UNSUPPORTED_PROTOCOL": ("protocol_version", "no TLS version in common (1.2 or 1.3 is needed)"),
    "WRONG_VERSION_NUMBER": (None, "it does not speak TLS on this port"),
    "WRONG_SSL_VERSION": ("protocol_version", "no TLS version in common (1.2 or 1.3 is needed)"),
    "NO_SHARED_CIPHER": ("handshake_failure", "no cipher in common"),
    "HTTP_REQUEST": (None, "it speaks HTTP, not TLS"),
}
_ALERT_MEANINGS = {
    "bad_certificate": "the certificate is damaged or not acceptable",
    "certificate_expired": "the certificate has expired",
    "certificate_required": "a certificate is needed",
    "certificate_revoked": "the certificate has been revoked",
    "certificate_unknown": "the certificate is not acceptable",
    "handshake_failure": "there is nothing that both sides accept; under TLS 1.2 also: a certificate is needed",
    "no_application_protocol": "no application protocol in common",
    "protocol_version": "no TLS version in common",
    "unknown_ca": "the certificate comes from an authority that is not trusted",
    "unsupported_certificate": "the certificate is not meant for this use",
}
_ALERT = "_ALERT_"


def tls_refused(error: ssl.SSLError) -> TlsRefused:
    """`error` as ours. The text says who refused and why, and holds nothing of the peer's own making."""
    reason = error.reason or ""
    if _ALERT in reason:
        alert = reason.partition(_ALERT)[2].lower()
        meaning = _ALERT_MEANINGS.get(alert, "it gives no other reason")
        return TlsRefused(f"The other side refused us in TLS ({alert}): {meaning}.", alert, by_peer=True)
    if isinstance(error, ssl.SSLCertVerificationError):
        said = _BY_VERIFY_CODE.get(error.verify_code, "certificate_unknown")
        return TlsRefused(f"We refused the other side's certificate: {error.verify_message}.", said, by_peer=False)
    said_or_not, meaning = _BY_REASON.get(
        reason, (None, f"TLS failed ({reason.lower().replace('_', ' ') or 'unknown'})")
    )
    return TlsRefused(f"We refused the other side: {meaning}.", said_or_not, by_peer=False)
