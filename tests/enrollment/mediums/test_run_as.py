"""The table of ways in which a container stays closed."""

import pytest

from rsocket_broker.enrollment.mediums.run_as import NO_SU, REFUSALS, RunAs, Su, is_app_of, recognise
from tests.emulated_device import Trouble


@pytest.mark.row("A-13")
def test_each_phrase_is_recognised_as_its_own_entry_in_any_case() -> None:
    for refusal in (*REFUSALS, NO_SU):
        for phrase in refusal.phrases:
            assert recognise(phrase) is refusal, phrase
            assert recognise(f"run-as: {phrase.upper()}!") is refusal or refusal is NO_SU, phrase


@pytest.mark.row("A-13")
def test_every_entry_says_what_it_means_and_what_to_do() -> None:
    names = [refusal.name for refusal in (*REFUSALS, NO_SU)]
    assert len(set(names)) == len(names)
    for refusal in (*REFUSALS, NO_SU):
        assert refusal.explanation.endswith("."), refusal.name
        assert refusal.remedy.endswith("."), refusal.name


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("run-as: Could not set capabilities: Operation not permitted", "no capabilities"),
        ("run-as: package not debuggable: org.example", "not debuggable"),
        ("run-as: Package 'org.example' is not debuggable", "not debuggable"),
        ("run-as: Package 'org.example' is not an application", "not an application"),
        ("run-as: unknown package: org.example", "unknown package"),
        ("run-as: Package 'org.example' is unknown", "unknown package"),
        ("/system/bin/sh: run-as: Permission denied", "permission denied"),
        ("/system/bin/sh: su: not found", "no su"),
        ("/system/bin/sh: su: inaccessible or not found", "no su"),
        ("run-as: exec failed for --user Error:No such file or directory", "no such option"),
    ],
)
def test_what_devices_really_say(said: str, name: str) -> None:
    found = recognise(said)
    assert found is not None
    assert found.name == name


def test_every_trouble_of_the_emulated_device_is_in_the_table() -> None:
    for trouble in set(Trouble) - {Trouble.READ_ONLY}:
        assert recognise(trouble.value) is not None, trouble


def test_other_words_are_not_guessed_at() -> None:
    assert recognise("") is None
    assert recognise("cat: app.csr: No such file or directory") is None


def test_an_app_that_is_not_there_is_not_looked_for_with_su() -> None:
    for refusal in REFUSALS:
        assert refusal.su_may_help is refusal.installed, refusal.name


def test_run_as_names_the_user_only_where_it_must() -> None:
    assert RunAs("org.example", 0).arguments(["sh", "-c", "id"]) == ["run-as", "org.example", "sh", "-c", "id"]
    assert RunAs("org.example", 10).arguments(["id"]) == ["run-as", "org.example", "--user", "10", "id"]


def test_su_takes_a_command_or_a_line() -> None:
    assert Su(10123, line=False).arguments(["echo", "a b"]) == ["su", "10123", "echo", "a b"]
    assert Su(10123, line=True).arguments(["echo", "a b"]) == ["su", "10123", "-c", "echo 'a b'"]


@pytest.mark.parametrize(
    ("uid", "user", "expected"),
    [(10000, 0, True), (19999, 0, True), (1010123, 10, True), (0, 0, False), (1000, 0, False), (2000, 0, False)],
)
def test_only_an_apps_own_number_will_do(uid: int, user: int, expected: bool) -> None:
    assert is_app_of(uid, user) is expected


def test_an_app_of_another_user_will_not_do() -> None:
    assert not is_app_of(10123, 10)
    assert not is_app_of(1010123, 0)
    assert not is_app_of(20000, 0)
