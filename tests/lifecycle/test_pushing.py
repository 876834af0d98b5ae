"""What live sessions of our SDK are told over their lines, and what is said of those that cannot be told."""

import asyncio
from pathlib import Path

import pytest

from rsocket_broker.client.renewal import Renewal
from rsocket_broker.enrollment.containers import digest
from rsocket_broker.errors import ApplicationError
from rsocket_broker.lifecycle import pushing
from rsocket_broker.lifecycle.pushing import AWAY, Pusher
from rsocket_broker.lifecycle.rotation import Outcome
from tests.lifecycle.lab import Lab, lab


def pusher(here: Lab) -> Pusher:
    containers = here.containers
    return Pusher(here.authority, containers, here.upkeep.plugin.expecting)


def switched(here: Lab) -> None:
    here.authority.prepare()
    here.authority.switch()


@pytest.mark.row("A-14", "A-18")
async def test_anchors_and_a_certificate_reach_the_folder_of_the_app(tmp_path: Path, home: Path) -> None:
    async with lab(tmp_path, home) as here, here.app() as session:
        await here.until(lambda: len(here.containers.all()) == 1)
        push, live = pusher(here), here.session()
        assert push.can(live)
        here.authority.prepare()
        assert (await push.trust(live)).outcome is Outcome.DONE
        assert here.held().credentials.trust_pem == here.authority.trust_pem
        here.authority.switch()
        before = live.identity
        found = await push.certificate(live)
        assert found is not None
        assert found.outcome is Outcome.DONE
        assert await push.certificate(live) is None, "it has one"
        assert live.identity.generation == here.authority.generation != before.generation
        assert here.authority.holders(before.generation) == []
        kept = here.containers.by_serial([live.identity.serial])[live.identity.serial]
        assert kept.trust == digest(here.authority.trust_pem)
        assert session.connections == 1


@pytest.mark.row("A-13")
async def test_a_client_that_cannot_is_told_of_in_its_own_words(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: Renewal) -> str:
        raise ApplicationError("the disk is full")

    async with lab(tmp_path, home) as here, here.app():
        monkeypatch.setattr(Renewal, "renew_now", full)
        switched(here)
        found = await pusher(here).certificate(here.session())
        assert found is not None
        assert (found.outcome, found.reason) == (Outcome.FAILED, "the disk is full")


async def test_a_client_that_only_says_that_it_has_renewed_is_found_out(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(self: Renewal) -> str:
        return "1"

    async with lab(tmp_path, home) as here, here.app():
        monkeypatch.setattr(Renewal, "renew_now", nothing)
        switched(here)
        found = await pusher(here).certificate(here.session())
        assert found is not None
        assert (found.outcome, "has stored nothing" in found.reason) == (Outcome.FAILED, True)


async def test_one_that_is_silent_or_gone_gets_it_later(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: Renewal) -> str:
        await asyncio.Event().wait()
        return ""

    monkeypatch.setattr(pushing, "PUSH_S", 0.05)
    async with lab(tmp_path, home) as here:
        async with here.app():
            monkeypatch.setattr(Renewal, "renew_now", never)
            switched(here)
            live = here.session()
            found = await pusher(here).certificate(live)
            assert found is not None
            assert (found.outcome, found.reason) == (Outcome.LATER, "it does not answer")
        await here.until(lambda: not len(here.broker.sessions))
        found = await pusher(here).trust(live)
        assert (found.outcome, found.reason) == (Outcome.LATER, AWAY)
