"""The page with the scores is there, and says what the suite says; the servers that are compared can be started."""

import re

import pytest

from tests.conformance import score, targets
from tests.conformance.deviations import DEVIATIONS, LENIENT
from tests.conformance.targets import FOREIGN

ROW = re.compile(r"^\| (.+?) \| (\d+)/(\d+) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def page() -> str:
    return score.PAGE.read_text(encoding="utf-8")


def test_every_module_of_the_suite_is_a_section() -> None:
    found = {path.stem.removeprefix("test_") for path in score.HERE.glob("test_*.py") if "SECTION" in path.read_text()}
    assert found == {*score.ORDER, "score"}
    assert all(section.title and section.rules for section in score.sections())


def test_every_rule_cites_the_specification() -> None:
    for section in score.sections():
        text = (score.HERE / f"test_{section.module}.py").read_text(encoding="utf-8")
        for rule in section.rules:
            docstring = re.search(rf'def {rule}\([^)]*\) -> None:\n    """([^"]+)"""', text)
            assert docstring is not None, f"{rule} does not say which rule it is"
            assert ":" in docstring[1], f"{rule} does not name its section"


@pytest.mark.row("D-12")
def test_the_page_has_every_section_and_every_server(page: str) -> None:
    for title in score.TITLES.values():
        assert title in page
    for section in score.sections():
        assert f"| {section.title} |" in page, "run: make scores"


@pytest.mark.row("D-12")
def test_the_page_counts_the_rules_that_there_are(page: str) -> None:
    """The broker is the first column: all that apply to it, and all are kept but those it breaks on purpose."""
    shown = {title: (int(kept), int(all_)) for title, kept, all_ in ROW.findall(page)}
    for section in score.sections():
        applying = [rule for rule, lacking in section.rules.items() if not lacking]
        broken = [rule for rule in applying if rule in DEVIATIONS]
        assert shown[section.title] == (len(applying) - len(broken), len(applying)), (
            f"{section.title}: run: make scores"
        )


@pytest.mark.row("D-12")
def test_the_page_says_what_is_done_otherwise(page: str) -> None:
    for rule, reason in DEVIATIONS.items():
        assert score.words(rule) in page
        assert reason in page
    for text in LENIENT:
        assert text in page


@pytest.mark.row("D-12")
@pytest.mark.parametrize("name", FOREIGN)
def test_a_server_of_another_library_starts_and_serves(name: str) -> None:
    """Only that it can be judged; how, `make scores` says."""
    try:
        target, process = targets.start_foreign(FOREIGN[name], name)
    except targets.Unavailable as reason:
        pytest.skip(str(reason))
    try:
        target.join().is_served()
    finally:
        target.hang_up()
        process.kill()
        process.wait()
