from rsocket_broker.authority.serving import Serving
from rsocket_broker.credentials import Credentials


def test_no_private_key_is_shown() -> None:
    credentials = Credentials(b"a private key", b"chain", b"trust")
    assert "private" not in repr(Serving(credentials, credentials))
