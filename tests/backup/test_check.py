from pathlib import Path

import pytest

from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.keys import to_pem
from rsocket_broker.backup.check import check, check_database, check_generations
from rsocket_broker.backup.take import take
from rsocket_broker.errors import HomeError
from tests.authority.conftest import START, some_key


def of_ca(home: Path) -> dict[str, bytes]:
    return {f"ca/1/{path.name}": path.read_bytes() for path in (home / "ca" / "1").iterdir()}


def test_it_says_which_keys_are_encrypted_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert check(take(home, tmp_path / "a", START).path, None, scratch).generations == {1: False}
    CaHome(home).rekey(None, b"open sesame", None)
    found = check(take(home, tmp_path / "b", START).path, None, scratch)
    assert found.generations == {1: True}
    assert found.manifest.made == START
    assert list(scratch.iterdir()) == []


def test_a_generation_must_be_whole_and_fit(home: Path) -> None:
    files = of_ca(home)
    assert check_generations(files) == {1: False}
    assert check_generations({}) == {}
    with pytest.raises(HomeError, match="only a part of generation 1"):
        check_generations({"ca/1/ca.crt": files["ca/1/ca.crt"]})
    with pytest.raises(HomeError, match="does not belong to its certificate"):
        check_generations(files | {"ca/1/ca.key": to_pem(some_key("rsa-2048", 77))})
    with pytest.raises(HomeError, match="Generation 1 of the CA in the backup is damaged"):
        check_generations(files | {"ca/1/ca.crt": b"damaged"})


def test_a_damaged_database_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"no database" * 1000)
    with pytest.raises(HomeError, match="database in the backup is damaged"):
        check_database(tmp_path / "state.db")
