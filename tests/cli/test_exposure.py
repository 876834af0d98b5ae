import os
from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest

from rsocket_broker.cli import exposure
from rsocket_broker.cli.production import Judgement, Level
from rsocket_broker.enrollment.modes import Mode
from rsocket_broker.errors import ConfigurationError
from rsocket_broker.routing.registry import load_plugins
from rsocket_broker.settings import ListenSettings, Settings


def levels(judgements: Iterable[Judgement]) -> dict[str, Level]:
    return {each.what: each.level for each in judgements}


def settings(home: Path, *, listen: ListenSettings | None = None, **options: object) -> Settings:
    return Settings(home=home, listen=listen or ListenSettings(), **options)  # type: ignore[arg-type]


NETWORK = ListenSettings(host="0.0.0.0", insecure_host="0.0.0.0")


@pytest.mark.row("M-4")
@pytest.mark.parametrize(
    ("listen", "mode", "level"),
    [
        (ListenSettings(), None, Level.MUST),
        (ListenSettings(), Mode.WINDOW, Level.OK),
        (ListenSettings(), Mode.TOKEN, Level.OK),
        (NETWORK, Mode.OPEN, Level.MUST),
        (NETWORK, None, Level.SHOULD),
        (NETWORK, Mode.TOKEN, Level.OK),
    ],
)
def test_who_may_enrol_is_judged(tmp_path: Path, listen: ListenSettings, mode: Mode | None, level: Level) -> None:
    (found,) = exposure.judge_enrollment(settings(tmp_path, listen=listen, enrollment_mode=mode), None)
    assert found.level is level
    assert level is Level.OK or "enrollment =" in found.detail


@pytest.mark.row("M-4")
def test_a_broker_that_runs_counts_for_what_it_does(tmp_path: Path) -> None:
    safe = settings(tmp_path, enrollment_mode=Mode.WINDOW)
    status = {"enrollment": {"mode": "open", "window": None}}
    assert levels(exposure.judge_enrollment(safe, status)) == {"enrolment": Level.MUST}
    status = {"enrollment": {"mode": "window", "window": {"uses": 1}}}
    assert levels(exposure.judge_enrollment(safe, status)) == {"enrolment": Level.OK, "window": Level.SHOULD}


@pytest.mark.row("M-4")
def test_open_doors_are_named(tmp_path: Path) -> None:
    listen = attrs.evolve(NETWORK, http_port=0, browser_port=0)
    found = levels(exposure.judge_ports(settings(tmp_path, listen=listen), None))
    open_ports = {"HTTP port": Level.SHOULD, "browser port": Level.MUST, "session ports": Level.OK}
    assert found == {**open_ports, "adb": Level.SHOULD}
    found = levels(exposure.judge_ports(settings(tmp_path, adb="off", trace_frames=("all",)), None))
    closed_ports = {"HTTP port": Level.OK, "browser port": Level.OK, "session ports": Level.OK}
    assert found == {**closed_ports, "adb": Level.OK, "frames": Level.SHOULD}


RULE = 'version = 1\n[[rule]]\nid = "one"\neffect = "allow"\n'


@pytest.mark.row("M-4")
@pytest.mark.parametrize(
    ("rule", "level"),
    [
        ('direction = "in"\napp = "org.example.app"\nmethod = "wifi.*"\n', Level.OK),
        ('direction = "out"\n', Level.OK),
        ('direction = "in"\n', Level.MUST),
        ('direction = "in"\napp = "*"\nmethod = "*"\n', Level.MUST),
        ("", Level.MUST),
    ],
)
def test_a_policy_of_ones_own_is_asked_for_that_names_something(tmp_path: Path, rule: str, level: Level) -> None:
    assert levels(exposure.judge_policy(settings(tmp_path), None))["policy"] is Level.MUST, "the default"
    (tmp_path / "policy.toml").write_text(RULE + rule)
    assert levels(exposure.judge_policy(settings(tmp_path), None))["policy"] is level


def test_a_policy_that_does_not_load_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("version = 2\n")
    with pytest.raises(ConfigurationError):
        list(exposure.judge_policy(settings(tmp_path), None))


@pytest.mark.row("M-4")
def test_relays_for_all_are_a_must(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(RULE + 'direction = "in"\napp = "a"\n')
    found = list(exposure.judge_policy(settings(tmp_path, allow_relay=True), None))
    assert [each.level for each in found if "allow-relay" in each.detail] == [Level.MUST]


@pytest.mark.row("M-4")
def test_a_plugin_that_others_may_change_is_a_must(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    (folder / "mine.py").write_text(
        "from rsocket_broker.plugin_api import Plugin\n\n\nclass Mine(Plugin):\n    id = 'Mine'\n"
    )
    plugins = load_plugins(folder, (), {})
    assert levels(exposure.judge_plugins(plugins)) == {"plugins": Level.OK}
    folder.chmod(0o777)
    (found,) = exposure.judge_plugins(plugins)
    assert (found.what, found.level) == ("plugin Mine", Level.MUST)
    assert found.detail.endswith(f"chmod go-w {folder}")
    folder.chmod(0o755)
    (folder / "mine.py").chmod(0o666)
    assert levels(exposure.judge_plugins(plugins)) == {"plugin Mine": Level.MUST}


def test_a_folder_of_someone_else_counts_as_open(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = tmp_path / "theirs.py"
    path.write_text("")
    os.chown(path, 12345, -1)
    assert exposure.writable_part(path) == path
    assert exposure.writable_part(Path("module.name")) is None


@pytest.mark.row("M-4")
def test_what_a_broker_says_of_itself_outweighs_the_files(tmp_path: Path) -> None:
    status = {"ports": {"host": "0.0.0.0", "http_port": 8080, "browser_port": 8333}}
    found = {each.what: each for each in exposure.judge_ports(settings(tmp_path, adb="off"), status)}
    assert found["HTTP port"].level is Level.SHOULD
    assert found["browser port"].level is Level.MUST
    assert "whoever reaches 0.0.0.0" in found["session ports"].detail
    (tmp_path / "policy.toml").write_text(RULE + 'direction = "in"\napp = "a"\n')
    by_default = {"policy": {"problem": None, "layers": [{"layer": "operator", "source": "built-in default"}]}}
    assert levels(exposure.judge_policy(settings(tmp_path), by_default))["policy"] is Level.MUST
    broken = {"policy": {"problem": "line 3", "layers": []}}
    assert levels(exposure.judge_policy(settings(tmp_path), broken))["policy in force"] is Level.MUST


@pytest.mark.row("M-4", "M-21")
def test_a_vendors_file_that_the_broker_may_change_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vendor.toml"
    path.write_text(RULE)
    owner = path.stat().st_uid or 12345
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    assert exposure.judge_vendor(None).level is Level.OK
    if path.stat().st_uid == 0:
        assert exposure.judge_vendor(path).level is Level.OK
        os.chown(path, owner, -1)
    found = exposure.judge_vendor(path)
    assert (found.level, f"chown root {path}" in found.detail) == (Level.SHOULD, True)
