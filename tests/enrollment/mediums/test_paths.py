"""Paths of strangers: a rule for each trick, and one place for each package."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.claims import Claims
from rsocket_broker.enrollment.exchange import SignRequest
from rsocket_broker.enrollment.mediums.paths import AndroidPath, android_path, check_destination, claimed_app_id
from rsocket_broker.errors import EnrollmentRefused

DEMO = "org.example.demo"
LONG = "org.example." + "long" * 14


@pytest.mark.row("A-03")
@pytest.mark.parametrize(
    ("destination", "why"),
    [
        ("", "names no destination"),
        ("/", "has an empty step"),
        ("/home//me", "has an empty step"),
        ("/home/me//", "has an empty step"),
        ("/home/../etc", "has a step . or .."),
        ("..", "has a step . or .."),
        ("a/..", "has a step . or .."),
        ("/home/./me", "has a step . or .."),
        ("/home/o'hara", "holds a quote"),
        ('/home/"x"', "holds a quote"),
        ("/home/`id`", "holds a quote"),
        ("/home/me\x00/etc", "holds a control character"),
        ("/home/me\n", "holds a control character"),
        ("/home/\x7f", "holds a control character"),
        ("/home/\x85", "holds a control character"),
        ("/home/\u2028", "holds a control character"),
        ("/home/\ud800", "holds a control character"),
        ("/home/\udc80", "holds a control character"),
    ],
)
def test_a_path_that_breaks_a_rule_is_refused_with_the_rule(destination: str, why: str) -> None:
    with pytest.raises(EnrollmentRefused) as caught:
        check_destination(destination)
    assert caught.value.step == "proof"
    assert why in caught.value.public
    assert caught.value.public.isprintable()


@pytest.mark.parametrize(
    "path",
    ["/Users/me/Library/Application Support/sonar", "/home/名/naïve\u00a0one", "files/sonar", "/a/..b/c..", "/a/👩‍💻"],
)
def test_an_honest_path_loses_only_its_last_slash(path: str) -> None:
    assert check_destination(f"{path}/") == path
    assert check_destination(path) == path


@pytest.mark.row("F-31", "A-03")
@pytest.mark.parametrize(
    ("destination", "directory"),
    [
        ("/data/user/0/org.example.demo/files/sonar/", "/data/user/0/org.example.demo/files/sonar"),
        ("/data/user/10/org.example.demo/files/sonar", "/data/user/10/org.example.demo/files/sonar"),
        ("/data/data/org.example.demo/files/sonar/", "/data/user/0/org.example.demo/files/sonar"),
        ("files/sonar/", "/data/user/0/org.example.demo/files/sonar"),
    ],
)
def test_a_place_in_the_container_of_the_package(destination: str, directory: str) -> None:
    assert android_path(destination, DEMO).directory == directory


@pytest.mark.row("F-31", "F-15", "A-03")
@pytest.mark.parametrize(
    "destination",
    [
        "/data/user/0/org.example.other/files/sonar/",
        "/data/user/0/org.example.demo.evil/files/",
        "/data/user/0/org.example.demo",
        "/data/user/0/org.example.demo/",
        "/data/user/0/org.example.demo/../org.example.other/files",
        "/data/user/-1/org.example.demo/files",
        "/data/user/٣/org.example.demo/files",
        "/data/user/00/org.example.demo/files",
        "/data/user_de/0/org.example.demo/files",
        "/data/data/../data/org.example.demo/files",
        "/sdcard/org.example.demo/files",
        "/etc",
        "../org.example.other/files",
    ],
)
def test_a_place_anywhere_else_is_refused(destination: str) -> None:
    with pytest.raises(EnrollmentRefused) as caught:
        android_path(destination, DEMO)
    assert caught.value.step == "proof"


@pytest.mark.row("F-29")
def test_one_relative_path_is_two_places_for_two_packages() -> None:
    assert android_path("files/sonar/", "org.example.one") == AndroidPath(0, "org.example.one", "files/sonar")
    assert android_path("files/sonar/", "org.example.two") == AndroidPath(0, "org.example.two", "files/sonar")


@pytest.mark.row("A-03", "F-31")
@given(st.text(alphabet=st.sampled_from("./ax'\\\0\n ~$"), max_size=30) | st.text(max_size=30))
def test_whatever_is_accepted_stays_inside_the_container(tail: str) -> None:
    for destination in (tail, f"/data/user/0/{DEMO}/{tail}"):
        try:
            directory = android_path(destination, DEMO).directory
        except EnrollmentRefused:
            continue
        assert directory.startswith(f"/data/user/0/{DEMO}/")
        assert ".." not in directory.split("/")
        assert not set(directory) & set("'\"`\0\n")


def ask(common_name: str, app_id: str = "", destination: str = "") -> str:
    return claimed_app_id(SignRequest(csr="x", claims=Claims(app_id=app_id), destination=destination), common_name)


@pytest.mark.parametrize("app_id", ["", "unknown", DEMO, "com.flipper"])
def test_the_common_name_is_the_app(app_id: str) -> None:
    assert ask(DEMO, app_id) == DEMO


def test_a_claim_for_another_app_is_refused() -> None:
    with pytest.raises(EnrollmentRefused, match=r"app_id is org\.example\.other, but the signing request is for"):
        ask(DEMO, "org.example.other")


def test_a_long_id_is_taken_from_the_claim_or_else_from_the_path() -> None:
    assert ask("com.flipper", LONG) == LONG
    assert ask("com.flipper", "", f"/data/user/0/{LONG}/files/sonar/") == LONG
    assert ask("com.flipper", "unknown", f"/data/data/{LONG}/files/sonar/") == LONG


@pytest.mark.parametrize("app_id", ["", "org.example.short", "com.flipper", LONG + "'; id", "-" + LONG, LONG * 5])
def test_the_name_for_long_ids_does_not_stand_for_anything_else(app_id: str) -> None:
    with pytest.raises(EnrollmentRefused, match="stands for an id of 64 to 255 characters"):
        ask("com.flipper", app_id, "/data/user/0/org.example.short/files/sonar/")
