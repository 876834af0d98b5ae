from pathlib import Path

import pytest

from rsocket_broker.cli.ca_shared import check_made, opened, read_certificate, read_input, read_passphrase, write_public
from rsocket_broker.errors import AuthorityError, ConfigurationError, HomeError
from rsocket_broker.files import DEFAULT_LIMIT


@pytest.mark.row("A-24")
def test_a_passphrase_is_read_without_its_line_end_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(b" open sesame \r\n")
    path.chmod(0o644)
    with pytest.raises(HomeError, match="chmod 600"):
        read_passphrase(path)
    path.chmod(0o600)
    assert read_passphrase(path) == b" open sesame "
    assert read_passphrase(None) is None
    path.write_bytes(b"\n")
    with pytest.raises(ConfigurationError, match="holds no passphrase"):
        read_passphrase(path)


def test_what_comes_in_is_bounded_and_must_be_a_certificate(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(bytes(DEFAULT_LIMIT + 1))
    with pytest.raises(AuthorityError, match="is larger than"):
        read_input(path)
    path.write_bytes(b"hello")
    assert read_input(path) == b"hello"
    with pytest.raises(AuthorityError, match=f"{path} does not hold a PEM certificate"):
        read_certificate(path)


def test_what_goes_out_is_for_everybody(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_public(tmp_path / "out", b"public")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o644
    write_public(Path("-"), b"public")
    assert capfd.readouterr().out == "public"


def test_a_home_without_authority_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="ca init"):
        check_made(tmp_path / "none")
    with pytest.raises(AuthorityError, match="ca init"), opened(tmp_path / "none"):
        pass
    assert not (tmp_path / "none").exists()
