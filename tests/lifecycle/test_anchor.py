import asyncio
import logging
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from rsocket_broker.authority import Authority
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.imported import make_issuer
from rsocket_broker.errors import HomeError
from rsocket_broker.lifecycle.anchor import LONGEST, SHORTEST, AnchorKeeper
from rsocket_broker.lifecycle.contexts import CurrentContexts
from rsocket_broker.state import State
from tests.authority.conftest import Clock
from tests.authority.operators_ca import make_ca


class Enough(Exception):
    pass


class Sleep:
    """Passes the time on the clock at once, and ends the test after `most` naps."""

    def __init__(self, clock: Clock, most: int) -> None:
        self.clock, self.most = clock, most
        self.naps: list[float] = []

    async def __call__(self, seconds: float) -> None:
        if len(self.naps) == self.most:
            raise Enough
        self.naps.append(seconds)
        self.clock.advance(seconds=seconds)


@pytest.mark.row("A-17", "F-16")
async def test_what_is_presented_never_grows_old_though_nobody_connects(tmp_path: Path) -> None:
    clock = Clock()
    with State.open(tmp_path / "home" / "state.db") as state:
        authority = Authority.open(tmp_path / "home", state, clock=clock)
        contexts = CurrentContexts(authority)
        sleep = Sleep(clock, 24 * 60)
        serial, key = authority.certificate.serial_number, authority.certificate.public_key()
        with pytest.raises(Enough):
            await AnchorKeeper(authority, contexts, now=clock, sleep=sleep).run()
        assert max(sleep.naps) == LONGEST and min(sleep.naps) >= SHORTEST
        assert authority.certificate.serial_number != serial
        assert authority.certificate.public_key() == key
        served = contexts._serving  # made by the keeper alone: nobody has asked for it
        for each in x509.load_pem_x509_certificates(served.web.chain_pem):
            assert clock() - each.not_valid_before_utc < timedelta(days=26)


async def test_a_failure_is_tried_again_in_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with State.open(tmp_path / "home" / "state.db") as state:
        authority = Authority.open(tmp_path / "home", state, clock=clock)
        contexts = CurrentContexts(authority)
        clock.now = authority.due

        def fail() -> None:
            raise HomeError("The disk is full.")

        monkeypatch.setattr(contexts, "prepare", fail)
        sleep = Sleep(clock, 3)
        with pytest.raises(Enough):
            await asyncio.wait_for(AnchorKeeper(authority, contexts, now=clock, sleep=sleep).run(), 10)
        assert sleep.naps == [SHORTEST] * 3
        assert "The disk is full" in caplog.text


async def test_what_only_the_operator_can_renew_is_told_once_a_day(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    root = make_ca("Root", number=154, life=timedelta(days=90))
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    CaHome(home).prepare()
    CaHome(home).add_generation(make_issuer(root.certificate, root.key, [], clock()))
    with State.open(home / "state.db") as state:
        authority = Authority.open(home, state, clock=clock)
        clock.advance(days=70)
        with pytest.raises(Enough), caplog.at_level(logging.INFO, "rsocket_broker.lifecycle.anchor"):
            sleep = Sleep(clock, 49)
            await AnchorKeeper(authority, CurrentContexts(authority), now=clock, sleep=sleep).run()
    ends = [record for record in caplog.records if "ends on" in record.message]
    assert [record.levelname for record in ends] == ["WARNING"] * 3
    assert "ca import" in ends[0].message
    assert len([record for record in caplog.records if "too old" in record.message]) == 3
