from datetime import timedelta
from pathlib import Path

from rsocket_broker.authority import Authority
from rsocket_broker.authority.holders import Holder
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.lifecycle.standing import describe, named
from rsocket_broker.state import State
from tests.authority.conftest import START, Clock

END = START + timedelta(days=30)
HOLDERS = [
    Holder(Principal("org.example.app", "phone", Proof.ADB), (1,), None, END),
    Holder(Principal("org.example.app", "tablet", Proof.ADB), (2,), None, END),
    Holder(Principal("org.example.app", "tablet", Proof.FILESYSTEM), (3,), None, END),
    Holder(Principal("org.example.tool", "", Proof.OPERATOR), (4,), None, END),
]


def serials(*names: str) -> set[int]:
    chosen = named(HOLDERS, names)
    return {each.serials[0] for each in HOLDERS if each.principal in chosen}


def test_clients_are_named_by_app_and_device() -> None:
    assert serials("org.example.app") == {1, 2, 3}
    assert serials("org.example.app@tablet") == {2, 3}
    assert serials("org.example.tool@", "org.example.app@phone") == {1, 4}
    assert serials("org.example.tool@-") == {4}
    assert serials("org.example.nobody", "org.example.app@") == set()


def test_who_is_left_is_said_in_the_middle_of_a_rotation_only(tmp_path: Path) -> None:
    clock = Clock()
    with State.open(tmp_path / "home" / "state.db") as state:
        authority = Authority.open(tmp_path / "home", state, clock=clock)
        csr = authority.check_request(make_signing_request("org.example.app").csr_pem)
        issued = authority.issue(csr, Principal("org.example.app", "phone", Proof.ADB))
        assert describe(authority) == {
            "phase": "steady",
            "generation": 1,
            "next": None,
            "previous": None,
            "since": START.isoformat(),
            "left": [],
        }
        clock.advance(hours=1)
        authority.arrived(issued.serial)
        authority.prepare()
        authority.switch()
        found = describe(authority)
    assert (found["phase"], found["generation"], found["previous"]) == ("switched", 2, 1)
    assert found["left"] == [
        {
            "client": "org.example.app@phone (adb)",
            "app_id": "org.example.app",
            "device_id": "phone",
            "proof": "adb",
            "serials": [f"{issued.serial:x}"],
            "seen": (START + timedelta(hours=1)).isoformat(),
            "not_after": issued.not_after.isoformat(),
        }
    ]
