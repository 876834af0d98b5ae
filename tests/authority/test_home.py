from pathlib import Path

import attrs
import pytest

from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.issue import Issuer
from rsocket_broker.authority.keys import to_pem
from rsocket_broker.errors import AuthorityError, HomeError
from tests.authority.conftest import some_key
from tests.authority.operators_ca import make_ca


def test_generations_are_the_folders_with_a_number(home: Path) -> None:
    found = CaHome(home)
    (home / "ca" / "10").mkdir(mode=0o700)
    (home / "ca" / "2").mkdir(mode=0o700)
    (home / "ca" / "notes").mkdir(mode=0o700)
    assert found.generations() == [1, 2, 10]
    (home / "ca" / "2").chmod(0o755)
    with pytest.raises(HomeError, match=r"ca/2 has mode 0755"):
        found.generations()


def test_what_a_killed_broker_left_is_removed_and_nothing_else(home: Path) -> None:
    unfinished = home / "ca" / ".new"
    unfinished.mkdir(mode=0o700)
    (unfinished / "ca.key").write_text("half")
    (unfinished / ".ca.crt.0.tmp").write_text("half")
    (home / "ca" / "1" / ".ca.key.0.tmp").write_text("half")
    (home / "server" / ".server.key.0.tmp").write_text("half")
    (home / "server" / "notes.txt").write_text("mine")
    CaHome(home).prepare()
    assert [
        str(path.relative_to(home)) for path in sorted(home.rglob("*")) if path.is_file() and "state" not in path.name
    ] == [
        "ca/1/ca.crt",
        "ca/1/ca.key",
        "server/notes.txt",
        "server/server.crt",
        "server/server.key",
    ]


def test_a_generation_is_never_put_over_another(home: Path) -> None:
    found = CaHome(home)
    issuer = found.load_generation(1)
    with pytest.raises(HomeError, match="cannot be made"):
        found.add_generation(issuer)
    assert found.load_generation(1).key.private_numbers() == issuer.key.private_numbers()


def test_server_files_that_are_damaged_count_as_none(home: Path) -> None:
    found = CaHome(home)
    assert found.load_server_key() is not None
    assert len(found.load_server_chain()) == 2
    found.save_server_key(some_key())
    assert found.server_key.read_bytes() == to_pem(some_key())
    for path in (found.server_key, found.server_certificate):
        path.write_bytes(b"damaged")
    assert found.load_server_key() is None
    assert found.load_server_chain() == []
    found.server_key.unlink()
    found.server_key.symlink_to(found.ca_key(1))
    with pytest.raises(HomeError, match="symbolic link"):
        found.load_server_key()


def test_an_operators_ca_is_kept_with_the_chain_above_it(home: Path) -> None:
    root = make_ca("Root", number=101)
    ours = make_ca("Intermediate", root, number=102)
    found = CaHome(home)
    assert found.load_above(1) is None
    assert not found.load_generation(1).imported
    found.add_generation(Issuer(2, ours.certificate, ours.key, (root.certificate,), imported=True))
    again = found.load_generation(2)
    assert (again.certificate, again.above, again.imported) == (ours.certificate, (root.certificate,), True)
    assert again.anchor == root.certificate
    assert found.ca_chain(2).stat().st_mode & 0o777 == 0o600
    found.add_generation(Issuer(3, root.certificate, root.key, imported=True))
    assert found.load_generation(3).imported
    assert found.load_generation(3).anchor == root.certificate
    found.ca_chain(2).write_bytes(found.ca_chain(3).read_bytes() + found.ca_certificate(1).read_bytes())
    with pytest.raises(AuthorityError, match=r"chain\.crt does not hold a sound chain"):
        found.load_above(2)
    found.ca_chain(2).unlink()
    with pytest.raises(AuthorityError, match="sound CA certificate"):
        found.load_ca_certificate(2)


def test_a_staged_generation_counts_for_nothing_until_it_is_placed(home: Path) -> None:
    found = CaHome(home)
    issuer = attrs.evolve(found.load_generation(1), generation=2)
    assert found.staged() is None
    found.stage_generation(issuer)
    assert (found.generations(), found.staged()) == ([1], issuer.certificate)
    found.place_generation(2)
    assert (found.generations(), found.staged()) == ([1, 2], None)
    found.stage_generation(attrs.evolve(issuer, generation=3))
    (home / "ca" / ".new" / "ca.crt").write_bytes(b"damaged")
    assert found.staged() is None


@pytest.mark.row("A-24")
def test_a_generation_is_destroyed_key_first_and_may_be_gone_already(home: Path, tmp_path: Path) -> None:
    found = CaHome(home)
    kept = tmp_path / "kept"
    kept.hardlink_to(found.ca_key(1))
    size = kept.stat().st_size
    found.destroy_generation(1)
    assert kept.read_bytes() == bytes(size)
    assert found.generations() == []
    found.destroy_generation(1)
