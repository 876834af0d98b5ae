import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rsocket_broker.cli import main
from rsocket_broker.cli.context import Context
from rsocket_broker.errors import HomeError

FAILURES: dict[str, BaseException] = {
    "home": HomeError("the home is bad.\nMend it."),
    "forged": HomeError("peer says \x1b[2J"),
    "unforeseen": ZeroDivisionError("secret words"),
    "disk": PermissionError(13, "Permission denied", "/some/file"),
    "abort": KeyboardInterrupt(),
    "click": click.ClickException("no such thing."),
}


@click.command("doctor")
@click.option("--port", type=int, default=1)
@click.option("--fail", "failure")
@click.option("--dry-run", "as_if", is_flag=True)
@click.pass_obj
def sample(obj: Context, port: int, failure: str | None, as_if: bool) -> None:
    if failure in FAILURES:
        raise FAILURES[failure]
    click.echo(f"{obj.home} {port}" + " dry" * as_if)


@click.group("clients")
def group() -> None:
    """Holds the sample once more, one step deeper."""


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Puts the samples where the modules of two commands would be."""
    for name in ("serve", "clients", "doctor"):
        command: click.Command = click.Command(name, callback=sample.callback, params=copy.deepcopy(sample.params))
        if name == "clients":
            command = click.Group("clients", commands={"list": command})
        module = type(sys)(f"rsocket_broker.cli.{name}")
        setattr(module, name, command)
        monkeypatch.setitem(sys.modules, f"rsocket_broker.cli.{name}", module)
    monkeypatch.setenv("RSOCKET_BROKER_HOME", str(tmp_path / "from-environment"))
    yield


def ran(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out.strip(), captured.err


def config(home: Path, text: str) -> Path:
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "config.toml").write_text(text, encoding="utf-8")
    (home / "config.toml").chmod(0o600)
    return home


def test_the_home_stands_before_or_after_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments in (
        ["--home", tmp_path, "serve"],
        ["serve", "--home", tmp_path],
        ["serve", "--port", 1, "--home", tmp_path],
        ["clients", "--home", tmp_path, "list"],
        ["clients", "list", "--home", tmp_path],
        ["--home", "elsewhere", "clients", "list", "--home", tmp_path],
    ):
        assert ran(capsys, *arguments) == (0, f"{tmp_path} 1", ""), arguments


def test_the_environment_names_a_home(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert ran(capsys, "serve")[1] == f"{tmp_path / 'from-environment'} 1"


def test_a_home_is_made_absolute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ran(capsys, "serve", "--home", "here")[1] == f"{tmp_path / 'here'} 1"


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    assert ran(capsys, "serve", "--home", home)[1].endswith(" 1")
    config(home, "[serve]\nport = 2\n[clients.list]\nport = 5\n")
    assert ran(capsys, "serve", "--home", home)[1].endswith(" 2")
    assert ran(capsys, "clients", "list", "--home", home)[1].endswith(" 5")
    monkeypatch.setenv("RSOCKET_BROKER_SERVE_PORT", "3")
    monkeypatch.setenv("RSOCKET_BROKER_CLIENTS_LIST_PORT", "6")
    assert ran(capsys, "serve", "--home", home)[1].endswith(" 3")
    assert ran(capsys, "clients", "list", "--home", home)[1].endswith(" 6")
    assert ran(capsys, "serve", "--home", home, "--port", 4)[1].endswith(" 4")


def test_a_variable_and_a_key_are_named_after_the_flag(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = config(tmp_path / "home", "[clients.list]\ndry-run = true\n")
    assert ran(capsys, "clients", "list", "--home", home)[1].endswith(" dry")
    monkeypatch.setenv("RSOCKET_BROKER_CLIENTS_LIST_DRY_RUN", "no")
    assert not ran(capsys, "clients", "list", "--home", home)[1].endswith(" dry")


def test_a_group_that_does_something_itself_has_options_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for text, words in (('patience = "x"', '"patience" must be a number'), ("patence = 1", 'Did you mean "patience"?')):
        home = config(tmp_path / "home", f"[ca.rotate]\n{text}\n[ca.rotate.prepare]\npassphrase-file = 'x'\n")
        code, _, err = ran(capsys, "ca", "rotate", "--auto", "--home", home)
        assert code == 1 and words in err, err
    home = config(tmp_path / "home", "[ca.rotate]\npatience = 3\n[ca.rotate.status]\njson = true\n")
    assert "certificate authority" in ran(capsys, "ca", "rotate", "--auto", "--home", home)[2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[serve]\nprt = 2\n", 'unknown key "prt". Did you mean "port"?'),
        ("[serve]\nport = '2'\n", '"port" must be a whole number'),
        ("[server]\nport = 2\n", 'unknown table "server". Did you mean "serve"?'),
        ("port = 2\n", 'unknown table "port"'),
        ("[serve\n", "not TOML"),
    ],
)
def test_a_wrong_config_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, words: str
) -> None:
    code, out, err = ran(capsys, "serve", "--home", config(tmp_path / "home", text))
    assert (code, out) == (1, "")
    assert words in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


def test_the_doctor_runs_whatever_the_config_says(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert ran(capsys, "doctor", "--home", config(tmp_path / "home", "[serve\n"))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serv"], 'No such command "serv". Did you mean "serve"?'),
        (["clients", "lst"], "No such command"),
        (["serve", "--prt", "1"], "--port"),
        (["serve", "--port", "x"], "not a valid integer"),
        (["serve", "extra"], "unexpected extra argument"),
        (["serve", "--home"], "requires an argument"),
    ],
)
def test_wrong_usage_exits_2_in_two_lines(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    code, out, err = ran(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "--help" in err
    assert err.count("\n") <= 2


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("home", "Error: the home is bad.\nMend it.\n"),
        ("forged", "Error: peer says \\x1b[2J\n"),
        ("disk", "Error: /some/file: Permission denied.\n"),
        ("abort", "\nError: stopped.\n"),
        ("click", "Error: no such thing.\n"),
    ],
)
def test_a_failure_exits_1_with_its_reason(capsys: pytest.CaptureFixture[str], failure: str, words: str) -> None:
    assert ran(capsys, "serve", "--fail", failure) == (1, "", words)


@pytest.mark.parametrize("before", [True, False])
def test_an_unforeseen_error_shows_its_traceback_only_when_asked(
    capsys: pytest.CaptureFixture[str], before: bool
) -> None:
    code, _, err = ran(capsys, "serve", "--fail", "unforeseen")
    assert code == 1
    assert "unexpected ZeroDivisionError" in err
    assert "--debug" in err
    assert "Traceback" not in err
    assert "secret words" not in err
    arguments = ["--debug", "serve"] if before else ["serve", "--debug"]
    code, _, err = ran(capsys, *arguments, "--fail", "unforeseen")
    assert code == 1
    assert "Traceback" in err


def test_no_arguments_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ran(capsys)
    assert code == 2
    assert out == ""
    assert all(name in err for name in ("serve", "clients", "doctor"))


def test_every_command_has_help_and_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name in ("serve", "clients", "doctor"):
        sys.modules.pop(f"rsocket_broker.cli.{name}", None)
    context = click.Context(main.root)
    for name in main.COMMANDS:
        command = main.root.get_command(context, name)
        assert command is not None
        leaves = list(command.commands.values()) if isinstance(command, click.Group) else [command]
        for leaf in leaves:
            assert leaf.help, f"{name} {leaf.name} has no help"
            assert {"home", "debug"} <= {option.name for option in leaf.params}
        assert any("rsocket-broker " in (leaf.help or "") for leaf in [command, *leaves]), f"{name} shows no example"


def test_the_list_of_commands_cuts_no_sentence_short(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for group in ([], ["ca"], ["ca", "passphrase"], ["policy"], ["enrollment"], ["audit"]):
        assert "..." not in ran(capsys, *group, "--help")[1].split("Commands:")[1]
    assert "while every client goes on being served." in " ".join(ran(capsys, "ca", "--help")[1].split())


def test_a_closed_pipe_is_no_disaster() -> None:
    done = subprocess.run(
        f"{sys.executable} -m rsocket_broker --help | true", shell=True, capture_output=True, text=True, timeout=30
    )
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_the_version_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rsocket_broker", "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    assert re.fullmatch(r"rsocket-broker, version [\d.]+ \(frames: (compiled|python)\)", done.stdout.strip())


def test_a_bad_value_is_said_with_the_place_where_it_was_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RSOCKET_BROKER_CLIENTS_LIST_PORT", "many")
    code, _, err = ran(capsys, "clients", "list")
    assert code == 2
    assert "'many' is not a valid integer, in the environment variable RSOCKET_BROKER_CLIENTS_LIST_PORT." in err
    monkeypatch.delenv("RSOCKET_BROKER_CLIENTS_LIST_PORT")
    monkeypatch.setenv("RSOCKET_BROKER_DEBUG", "perhaps")
    assert "in the environment variable RSOCKET_BROKER_DEBUG." in ran(capsys, "serve")[2]
    monkeypatch.delenv("RSOCKET_BROKER_DEBUG")
    assert "environment" not in ran(capsys, "serve", "--port", "many")[2]


def test_a_misspelt_variable_is_not_ignored_in_silence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSOCKET_BROKER_SERVE_PROT", "9000")
    monkeypatch.setenv("RSOCKET_BROKER_TEST_SEED", "1")
    code, out, err = ran(capsys, "serve")
    assert (code, out.endswith(" 1")) == (0, True)
    assert err == (
        "Warning: the environment variable RSOCKET_BROKER_SERVE_PROT sets nothing. "
        'Did you mean "RSOCKET_BROKER_SERVE_PORT"?\n'
    )
    assert ran(capsys, "clients", "list")[2] == ""


@pytest.mark.parametrize("name", ["RSOCKET_BROKER_SERV_PORT", "RSOCKET_BROKER_SERVEPORT"])
def test_a_variable_without_a_command_of_ours_is_not_ignored_either(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "9000")
    monkeypatch.setenv("RSOCKET_BROKER_CLIENTS_LIST_PORT", "7")  # of another command
    code, _, err = ran(capsys, "serve")
    assert code == 0
    assert err == f'Warning: the environment variable {name} sets nothing. Did you mean "RSOCKET_BROKER_SERVE_PORT"?\n'


def test_variables_of_commands_below_a_group_are_theirs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSOCKET_BROKER_CLIENTS_LIST_PORT", "7")
    code, out, err = ran(capsys, "clients", "list")
    assert (code, out.endswith(" 7"), err) == (0, True, "")
