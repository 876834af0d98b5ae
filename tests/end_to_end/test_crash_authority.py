"""`kill -9` at any point of what changes the authority: the next start finds the old state or the new one, never half.

The command line runs in a process of its own, forked from one that has everything imported, and is killed either right
before one of its steps (a file it opens, renames or removes; an SQL statement) or after a random part of its time.
"""

import contextlib
import functools
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import attrs
import pytest

from rsocket_broker import lifecycle  # noqa: F401  (imported before the fork)
from rsocket_broker.authority import Authority
from rsocket_broker.authority.inventory import Status
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State
from tests.authority.crash import count_steps, in_background, run_and_kill, run_and_kill_after
from tests.conftest import SEED
from tests.end_to_end.processes import run_here, start_broker
from tests.foreign.sdk_folder import EnrollmentFailed, enrol, make_folder

KILLS = 45
"""Of each kind of work in the long run; with those of the broker below there are 500."""
BROKER_KILLS = 50
EVERYDAY_BROKER_KILLS = 3
"""Outside of it: the whole module is to take half a minute then."""

APPS = ("org.example.one", "org.example.two", "org.example.three")

Act = Callable[[Path], object]


def must(home: Path, *arguments: str) -> str:
    code, said = run_here(home, *arguments)
    assert code == 0, said
    return said


@attrs.frozen
class Situation:
    """What a home holds, as its database says."""

    phase: str
    serials: list[str]
    revoked: frozenset[str]
    blocks: int

    @classmethod
    def of(cls, home: Path) -> "Situation":
        """After a restart. Whatever the audit tells has happened, and whatever happened is told."""
        with State.open(home / "state.db") as state:
            authority = Authority.open(home, state)
            records = authority.certificates()
            rotation = f"{authority.phase.value} {authority.rotation.current} {authority.rotation.other}"
            blocks = len(authority.revocations.blocks())
            rows = state.read("SELECT body FROM audit WHERE book = 'changes' ORDER BY number")
        told = [json.loads(row["body"]) for row in rows]
        issued = [each["facts"]["serial"] for each in told if each["event"] in ("issue", "renew")]
        revoked = {serial for each in told if each["event"] == "revoke" for serial in each["facts"]["serials"]}
        serials = [record.serial_hex for record in records]
        assert Counter(serials) == Counter(issued)
        assert revoked == {record.serial_hex for record in records if record.status is Status.REVOKED}
        assert blocks == len({each["facts"]["whom"] for each in told if each["event"] == "block"})
        return cls(rotation, serials, frozenset(revoked), blocks)


def check_sound(home: Path) -> Situation:
    """A restart, and then every check that there is."""
    situation = Situation.of(home)
    assert len(set(situation.serials)) == len(situation.serials), "serial numbers never repeat"
    must(home, "ca", "verify")
    must(home, "audit", "verify")
    assert [path.name for path in home.rglob(".*")] == [], "no leftovers"
    return situation


# What is done


def issue(home: Path) -> None:
    must(home, "ca", "issue", "--app-id", "org.example.new", "--out", str(home.parent / f"new-{time.time_ns()}"))


def renew(home: Path) -> None:
    """What a broker does for a client that asks over its session; no command does it."""
    with State.open(home / "state.db") as state:
        authority = Authority.open(home, state)
        old = next(record for record in authority.certificates(APPS[0]) if record.status is Status.ACTIVE)
        request = authority.check_request(make_signing_request(APPS[0]).csr_pem)
        authority.issue(request, Principal(APPS[0], "", Proof.OPERATOR), renews=old.serial)


def cli(*arguments: str) -> Act:
    return lambda home: must(home, *arguments)


def revoke_one(home: Path) -> None:
    (first, *_) = json.loads(must(home, "ca", "list", "--app", APPS[0], "--json"))
    must(home, "ca", "revoke", first["serial"], "--reason", "key-compromise")


PREPARE, SWITCH = cli("ca", "rotate", "prepare"), cli("ca", "rotate", "switch")
EVERYBODY = [word for app in APPS for word in ("--without", app)]
ROTATION: dict[str, tuple[Act, ...]] = {"steady": (), "prepared": (PREPARE,), "switched": (PREPARE, SWITCH)}


@attrs.frozen
class Work:
    """Something that is done to a home which stands in a phase; `again` says whether it can be done twice."""

    name: str
    phase: str
    act: Act
    again: bool = True
    new_home: bool = False


WORKS = [
    Work("init", "steady", cli("ca", "init"), new_home=True),
    Work("issue", "steady", issue),
    Work("renew", "switched", renew),
    Work("revoke-one", "steady", revoke_one),
    Work("revoke-app", "switched", cli("ca", "revoke", "--app", APPS[1])),
    Work("prepare", "steady", PREPARE, again=False),
    Work("switch", "prepared", SWITCH, again=False),
    Work("finish", "switched", cli("ca", "rotate", "finish", *EVERYBODY), again=False),
    Work("rollback-prepared", "prepared", cli("ca", "rotate", "rollback"), again=False),
    Work("rollback-switched", "switched", cli("ca", "rotate", "rollback"), again=False),
]


def todays(cases: list[int]) -> list[int]:
    """All of them in the long run, else the first that is killed at a step and the first that is killed at a time."""
    if len(cases) == KILLS:
        return cases
    return [case for kind in (1, 0) for case in [case for case in cases if case % 2 == kind][:1]]


class Bench:
    """A home before a piece of work, and how long that is."""

    def __init__(self, folder: Path, work: Work) -> None:
        self.folder = folder
        self.work = work
        self.home = folder / "before" / "home"
        if not work.new_home:
            must(self.home, "ca", "init")
            for app in APPS:
                must(self.home, "ca", "issue", "--app-id", app, "--out", str(folder / app))
            for act in ROTATION[work.phase]:
                act(self.home)

    def copy(self, name: str) -> Path:
        home = self.folder / name / "home"
        if self.work.new_home:
            home.parent.mkdir()
        else:
            shutil.copytree(self.home, home)
        return home

    def of(self, home: Path) -> Callable[[], bytes]:
        def do() -> bytes:
            self.work.act(home)
            return b"done"

        return do

    @cached_property
    def whole(self) -> tuple[int, float, Situation]:
        """Steps, seconds, and the situation after all of it."""
        home = self.copy("counted")
        steps = count_steps(self.of(home), home)
        home = self.copy("timed")
        began = time.monotonic()
        killed, _ = run_and_kill_after(self.of(home), 60)
        assert not killed
        return steps, time.monotonic() - began, check_sound(home)


@pytest.mark.row("D-15", "A-25")
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_a_kill_at_any_point_leaves_the_old_state_or_the_new_one(
    work: Work, portion: Callable[[int], list[int]], tmp_path: Path
) -> None:
    bench = Bench(tmp_path, work)
    before = None if work.new_home else check_sound(bench.home)
    steps, seconds, after = bench.whole
    kills = 0
    for case in todays(portion(KILLS)):
        chance = random.Random(f"{SEED} {work.name} {case}")
        home = bench.copy(f"case-{case}")
        if case % 2:
            killed, answer = run_and_kill(bench.of(home), home, chance.randint(1, steps))
        else:
            killed, answer = run_and_kill_after(bench.of(home), chance.uniform(0, seconds))
        kills += killed
        check_case(work, home, before, after, done=bool(answer))
        shutil.rmtree(home.parent)
    assert kills, "none came in time"


def check_case(work: Work, home: Path, before: Situation | None, after: Situation, *, done: bool) -> None:
    found = check_sound(home)
    if before is None:
        unused = len(found.serials) - len(after.serials)
        assert unused in (0, 1), "a certificate is recorded before it is there: a kill in between makes another"
        return
    assert set(found.serials) >= set(before.serials), "what was issued stays known"
    assert found.phase in (before.phase, after.phase)
    revoked = (len(found.revoked), found.blocks)
    assert revoked in ((len(before.revoked), before.blocks), (len(after.revoked), after.blocks))
    if done:
        assert found.phase == after.phase
        assert len(found.serials) == len(after.serials)
        assert revoked == (len(after.revoked), after.blocks)
    if work.again or found.phase == before.phase:
        work.act(home)
        last = check_sound(home)
        assert len(last.revoked) == len(after.revoked)
        assert last.phase == after.phase
        assert set(last.serials) >= set(found.serials)


# A broker that is told what to do, and killed while it does it

NEXT = {
    "steady": ("prepare",),
    "prepared": ("switch", "switch", "rollback"),
    "switched": ("finish", "finish", "rollback"),
}


def quietly(*arguments: str) -> Callable[[Path], bytes]:
    """A command whose failure is no failure: the broker that serves it is about to be killed."""

    def work(home: Path) -> bytes:
        return b"done" if run_here(home, *arguments)[0] == 0 else b""

    return work


def enrol_often(folders: list[Path], port: int) -> Callable[[Path], bytes]:
    def work(home: Path) -> bytes:
        with contextlib.suppress(OSError, EnrollmentFailed, AssertionError):
            for folder in folders:
                enrol(folder, folder.name, port)
        return b""

    return work


class Turmoil:
    """A broker on a home, a step of a rotation under way in it, and others who change the home meanwhile."""

    def __init__(self, home: Path, folders: list[Path], phase: str, chance: random.Random) -> None:
        self.step = chance.choice(NEXT[phase.split()[0]])
        self.broker = start_broker(home)
        given_up = [word for folder in folders for word in ("--without", folder.name)] if self.step == "finish" else []
        works = [
            quietly("ca", "rotate", self.step, *given_up),
            quietly("ca", "issue", "--app-id", "org.example.hand", "--out", f"{home}-{chance.random()}"),
            quietly("ca", "revoke", "--all-before", chance.choice(["2020-01-01", "2020-01-01", "2100-01-01"])),
            enrol_often(folders, self.broker.insecure_port),
        ]
        self._waiting = [in_background(functools.partial(work, home)) for work in works]

    def wait(self) -> bool:
        """Until all have ended; whether the step was taken, as far as the one who asked for it knows."""
        rotated, *_ = [bool(wait()) for wait in self._waiting]
        return rotated

    def kill(self) -> bool:
        self.broker.process.kill()
        self.broker.stop()
        return self.wait()


@pytest.mark.row("D-15", "A-25")
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_broker_killed_under_commands_and_clients_starts_in_the_old_phase_or_the_new_one(
    portion: Callable[[int], list[int]], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    folders = [make_folder(tmp_path / f"org.example.app{n}", f"org.example.app{n}") for n in range(3)]
    must(home, "ca", "init")
    whole = Turmoil(home, folders, "steady", random.Random(SEED))
    began = time.monotonic()
    assert whole.wait()
    longest = time.monotonic() - began
    assert whole.broker.stop() == 0
    known, moves = check_sound(home), Counter[bool]()
    cases = portion(BROKER_KILLS)
    cases = cases if len(cases) == BROKER_KILLS else cases[:EVERYDAY_BROKER_KILLS]
    for case in cases:
        chance = random.Random(f"{SEED} broker {case}")
        turmoil = Turmoil(home, folders, known.phase, chance)
        time.sleep(chance.uniform(0, longest))
        told = turmoil.kill()
        found = check_sound(home)
        assert set(found.serials) >= set(known.serials)
        assert found.revoked >= known.revoked
        moved = found.phase != known.phase
        assert moved or not told, "what the command line was told is so"
        moves[moved] += 1
        known = found
    assert len(cases) < BROKER_KILLS or len(moves) == 2, "each came too late, or too early"
    broker = start_broker(home)
    for folder in folders:
        enrol(folder, folder.name, broker.insecure_port)
    assert broker.stop() == 0
    check_sound(home)


# Two at once


def all_at_once(home: Path, *works: Callable[[Path], bytes]) -> int:
    """How many of these, begun together in processes of their own, succeed."""
    waiting = [in_background(functools.partial(work, home)) for work in works]
    return sum(bool(wait()) for wait in waiting)


@pytest.mark.row("A-25")
@pytest.mark.parametrize("with_broker", [False, True], ids=["alone", "broker"])
def test_two_that_rotate_at_once_make_one_new_generation(with_broker: bool, tmp_path: Path) -> None:
    home = tmp_path / "home"
    must(home, "ca", "init")
    broker = start_broker(home) if with_broker else None
    for step, phase in (("prepare", "prepared 1 2"), ("switch", "switched 2 1"), ("finish", "steady 2 None")):
        assert all_at_once(home, *[quietly("ca", "rotate", step)] * 3) == 1
        assert Situation.of(home).phase == phase
    if broker is not None:
        assert broker.stop() == 0
    check_sound(home)
    assert [path.name for path in (home / "ca").iterdir()] == ["2"]


@pytest.mark.row("A-25")
def test_a_command_beside_a_broker_that_starts_does_its_work_once_or_says_why_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for step, phases in (("prepare", ("steady 1 None", "prepared 1 2")), ("switch", ("prepared 1 2", "switched 2 1"))):
        waiting = in_background(functools.partial(quietly("ca", "rotate", step), home))
        broker = start_broker(home)
        done = bool(waiting())
        if not done:
            must(home, "ca", "rotate", step) if Situation.of(home).phase == phases[0] else None
        assert Situation.of(home).phase == phases[1]
        assert broker.stop() == 0
        check_sound(home)


@pytest.mark.row("A-25")
def test_brokers_and_commands_that_start_on_an_empty_home_make_one_ca(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert all_at_once(home, *[quietly("ca", "init")] * 4) == 4
    assert len(check_sound(home).serials) == 2, "one for the CA, one for the broker"
