import ssl

import pytest

from rsocket_broker.transports.tls_refusals import tls_refused


def openssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] words of OpenSSL (_ssl.c:1000)")
    error.reason = reason
    return error


def verify_error(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.reason, error.verify_code, error.verify_message = "CERTIFICATE_VERIFY_FAILED", code, message
    return error


@pytest.mark.parametrize(
    ("reason", "alert"),
    [
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "certificate_expired"),
        ("SSLV3_ALERT_CERTIFICATE_REVOKED", "certificate_revoked"),
        ("TLSV1_ALERT_UNKNOWN_CA", "unknown_ca"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "certificate_required"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "protocol_version"),
        ("TLSV1_ALERT_SOMETHING_NEW", "something_new"),
    ],
)
def test_an_alert_of_the_peer_is_its_refusal(reason: str, alert: str) -> None:
    refused = tls_refused(openssl_error(reason))
    assert (refused.alert, refused.by_peer) == (alert, True)
    assert alert in refused.public and "_ssl.c" not in refused.public


@pytest.mark.parametrize(
    ("code", "message", "alert"),
    [
        (10, "certificate has expired", "certificate_expired"),
        (19, "self-signed certificate in certificate chain", "unknown_ca"),
        (23, "certificate revoked", "certificate_revoked"),
        (9999, "something new", "certificate_unknown"),
    ],
)
def test_a_certificate_that_we_do_not_take_is_our_refusal(code: int, message: str, alert: str) -> None:
    refused = tls_refused(verify_error(code, message))
    assert (refused.alert, refused.by_peer) == (alert, False)
    assert message in refused.public


@pytest.mark.parametrize(
    ("reason", "alert", "says"),
    [
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "certificate_required", "no certificate"),
        ("UNSUPPORTED_PROTOCOL", "protocol_version", "1.2 or 1.3"),
        ("NO_SHARED_CIPHER", "handshake_failure", "cipher"),
        ("WRONG_VERSION_NUMBER", None, "does not speak TLS"),
        ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", None, "decryption failed or bad record mac"),
        ("", None, "unknown"),
    ],
)
def test_what_we_do_not_take_is_our_refusal(reason: str, alert: str | None, says: str) -> None:
    refused = tls_refused(openssl_error(reason))
    assert (refused.alert, refused.by_peer) == (alert, False)
    assert says in refused.public
