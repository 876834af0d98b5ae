"""What is told of enrolments, in the log and in numbers, and what is not told again and again."""

import contextlib
import json
import logging
from pathlib import Path

import attrs
import pytest

from rsocket_broker.claims import Claims
from rsocket_broker.enrollment.throttle import EnrollmentLimits, Rate
from rsocket_broker.errors import EnrollmentRefused
from tests.enrollment.workshop import LOCALHOST, DesktopApp, Workshop, open_workshop, refused


@pytest.mark.row("A-53")
async def test_requests_are_counted_by_driver_and_by_how_they_ended(workshop: Workshop, app: DesktopApp) -> None:
    await workshop.enroller.serve(app.message(), app.claims, LOCALHOST)
    await refused(workshop, app, medium=99)
    await refused(workshop, app, csr="nonsense")
    await refused(workshop, app, destination="/nowhere/")
    assert workshop.enroller.outcomes.results == {
        ("filesystem", "ok"): 1,
        ("none", "medium"): 1,
        ("none", "signing_request"): 1,
        ("filesystem", "proof"): 1,
    }
    assert workshop.enroller.outcomes.seconds.count == 1


def lines(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


@pytest.mark.row("A-13")
async def test_the_same_refusal_again_and_again_is_one_line(
    workshop: Workshop, app: DesktopApp, caplog: pytest.LogCaptureFixture
) -> None:
    (app.folder / "app.csr").unlink()
    for _ in range(8):
        await refused(workshop, app)
        workshop.clock.seconds += 2
    assert lines(caplog, "refused to enrol Demo on bench (127.0.0.1): proof: ") == 1
    assert lines(caplog, f"({app.folder} holds no app.csr)") == 1
    assert lines(caplog, "asks again and again and is refused for the same reason each time") == 1
    assert len(caplog.records) == 2


async def test_refusals_for_asking_too_often_are_one_line_whatever_names_the_asker_goes_by(
    home: Path, app: DesktopApp, caplog: pytest.LogCaptureFixture
) -> None:
    with open_workshop(home, limits=EnrollmentLimits(per_peer=Rate(1, 0.1))) as workshop:
        for number in range(9):
            claims = attrs.evolve(app.claims, app=f"App {number}", device=f"phone {number}")
            with contextlib.suppress(EnrollmentRefused):
                await workshop.enroller.serve(app.message(), claims, LOCALHOST)
            workshop.clock.seconds += 1
    assert lines(caplog, "asked too often") == 1


def test_a_stranger_with_a_new_story_each_time_does_not_fill_the_log(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        workshop.enroller.outcomes.report(Claims(app="x" * number), f"127.0.{number}.1", "there is no such thing.")
    assert 20 < len(caplog.records) <= 100
    workshop.clock.seconds += 61
    workshop.enroller.outcomes.report(Claims(app="Demo"), LOCALHOST, "there is no such thing.")
    assert lines(caplog, "900 more lines like the last about enrolments that were refused were left out") == 1
    assert lines(caplog, "refused to enrol Demo") == 1


async def test_an_app_that_enrols_again_and_again_with_success_is_noticed(
    workshop: Workshop, app: DesktopApp, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(6):
        await workshop.enroller.serve(app.message(), app.claims, LOCALHOST)
    assert lines(caplog, "enrols again and again although each time succeeds") == 1


async def test_no_request_and_no_certificate_is_ever_logged(
    workshop: Workshop, app: DesktopApp, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await workshop.enroller.serve(app.message(), app.claims, LOCALHOST)
        await refused(workshop, app, destination="/etc")
        await refused(workshop, app, csr=app.csr.replace("M", "N"))
    body = app.csr.splitlines()[2]
    assert body not in caplog.text
    assert "BEGIN" not in caplog.text


async def test_lines_of_the_device_are_logged_for_diagnosis_and_cannot_forge_ours(
    workshop: Workshop, app: DesktopApp, caplog: pytest.LogCaptureFixture
) -> None:
    forged = "1:info:fine\nWARNING rsocket_broker forged"
    with caplog.at_level(logging.DEBUG):
        claims = attrs.evolve(app.claims, app="De\nmo")
        await workshop.enroller.serve(app.message(logs=[forged, "garbage"]), claims, LOCALHOST)
    assert lines(caplog, "De\\nmo on bench says (info): fine\\nWARNING rsocket_broker forged") == 1
    assert not any("\n" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("fields", "level", "words"),
    [
        ({"hasRequiredFiles": False}, logging.WARNING, "does not find its certificates. Check that the files"),
        ({"isError": True}, logging.WARNING, "does not find its certificates"),
        ({"hasRequiredFiles": True}, logging.DEBUG, "has its certificates"),
    ],
)
async def test_what_the_app_found_is_logged(
    workshop: Workshop,
    app: DesktopApp,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, object],
    level: int,
    words: str,
) -> None:
    message = json.dumps({"method": "signCertificateAck", **fields}).encode()
    with caplog.at_level(logging.DEBUG):
        assert await workshop.enroller.serve(message, app.claims, LOCALHOST) == {}
    found = [record for record in caplog.records if words in record.getMessage()]
    assert [record.levelno for record in found] == [level]
