"""`rsocket-broker`: finds the command, runs it, and alone turns what went wrong into words and an exit code.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
"""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path

import click
from click.core import ParameterSource

from rsocket_broker import __version__
from rsocket_broker.cli.context import MEDIUMS, Context, configurable, default_home
from rsocket_broker.cli.render import note
from rsocket_broker.errors import BrokerError
from rsocket_broker.observability.logs import visible
from rsocket_broker.settings import nearest

PROGRAM = "rsocket-broker"
ENVIRONMENT = "RSOCKET_BROKER"
CLOSE = 0.8
"""From 0 to 1: how alike two names must be for one to be taken for a slip of the other. Others may have variables too
that begin as ours do."""


COMMANDS = (
    "serve",
    "demo",
    "enroll",
    "clients",
    "app",
    "sessions",
    "policy",
    "enrollment",
    "listeners",
    "plugins",
    "ca",
    "audit",
    "home",
    "doctor",
)
"""Each lives in the module of `rsocket_broker.cli` that has its name, imported when it is used: a short start."""

WITHOUT_CONFIG = frozenset({"demo", "doctor"})
"""Commands that must work where config.toml is wrong: one needs no home, the other reports what is wrong."""


class RootGroup(click.Group):
    """The commands of COMMANDS, in that order, each with `--home` and `--debug` of its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"rsocket_broker.cli.{cmd_name}"), cmd_name)
        add_common_options(command, (cmd_name,))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f'No such command "{args[0]}". {nearest(args[0], COMMANDS)}')
        return super().resolve_command(ctx, args)


def add_common_options(command: click.Command, path: tuple[str, ...]) -> None:
    """Gives the command at `path`, and all below it, what every command has. Safe to repeat.

    That is: the options that may stand before or after its name, and an environment variable for each option
    that is named after the flag and not after the Python argument (`--json` is often `as_json`).
    """
    if not any(option.name == "home" and not option.expose_value for option in command.params):
        for key, option in configurable(command).items():
            option.envvar = option.envvar or "_".join([ENVIRONMENT, *path, key]).upper().replace("-", "_")
        command.params += common_options()
    command.short_help = command.short_help or first_sentence(command.help or "")
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            add_common_options(child, (*path, name))


def first_sentence(text: str) -> str:
    """For the list of commands: whole, and wrapped, where click would cut it short."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return f"{paragraph.removesuffix('.').split('. ')[0]}." if paragraph else ""


def common_options() -> list[click.Parameter]:
    home = click.Option(
        ["--home"],
        type=click.Path(file_okay=False),
        metavar="DIR",
        is_eager=True,
        expose_value=False,
        allow_from_autoenv=False,
        callback=take_home,
        help="Folder with the keys, certificates and settings.",
    )
    debug = click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        allow_from_autoenv=False,
        callback=take_debug,
        help="Show the traceback of an unexpected error.",
    )
    return [home, debug]


def take_home(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    """Runs before every other option of the command is read: only now is it known which config.toml counts."""
    obj = ctx.find_object(Context)
    if obj is None or ctx.resilient_parsing or ctx.parent is None:  # the last: by a program, not by our command line
        return
    if value is not None:
        obj.use_home(value)
    path = command_path(ctx)
    for variable, hint in unknown_variables(ctx.command, path):
        note(f"Warning: the environment variable {variable} sets nothing. {hint}")
    acts = not isinstance(ctx.command, click.Group) or ctx.command.invoke_without_command
    if acts and path[0] not in WITHOUT_CONFIG:
        check_tables(obj)
        ctx.default_map = obj.defaults(ctx.command, path)


def take_debug(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    obj = ctx.find_object(Context)
    if obj is not None and value:
        obj.debug = True


def command_path(ctx: click.Context) -> tuple[str, ...]:
    """The names below the program's own: ("clients", "list")."""
    names: list[str] = []
    while ctx.parent is not None:
        names.insert(0, ctx.info_name or "")
        ctx = ctx.parent
    return tuple(names)


def unknown_variables(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Variables that are named as if they set an option of the command at `path`, which has none of that name.

    Each with a sentence that offers the nearest. They are no error: the same environment may serve another version.
    """
    if isinstance(command, click.Group):
        return
    prefix = "_".join([ENVIRONMENT, *path, ""]).upper().replace("-", "_")
    known = {str(option.envvar) for option in configurable(command).values()}
    for name in sorted(os.environ):
        if name.startswith(prefix) and name not in known:
            yield name, nearest(name, known)
        elif (meant := meant_variable(name, known)) is not None:
            yield name, f'Did you mean "{meant}"?'


def meant_variable(name: str, known: Collection[str]) -> str | None:
    """That of `known` which a variable of no command of ours comes close to: its command is missing or misspelt."""
    rest = name.removeprefix(f"{ENVIRONMENT}_")
    if rest == name or rest.startswith(tuple(f"{command.upper()}_" for command in COMMANDS)):
        return None
    endings = {variable.removeprefix(f"{ENVIRONMENT}_"): variable for variable in known}
    close = difflib.get_close_matches(rest, endings, n=1, cutoff=CLOSE)
    return endings[close[0]] if close else None


def leaves() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its path. Imports all of them."""
    context = click.Context(root)
    pending: list[tuple[tuple[str, ...], click.Command | None]] = [
        ((name,), root.get_command(context, name)) for name in COMMANDS
    ]
    while pending:
        path, command = pending.pop(0)
        if isinstance(command, click.Group):
            pending += [((*path, name), child) for name, child in command.commands.items()]
        elif command is not None:
            yield path, command


def check_tables(obj: Context) -> None:
    """Raises ConfigurationError for a table of config.toml that belongs to no command and no plugin."""
    obj.config.check_names((), (*COMMANDS, MEDIUMS))


def tell_version(ctx: click.Context) -> None:
    """The version, and which engine cuts frames: the compiled one, or Python's where there was no compiler."""
    from rsocket_broker.protocol.starts import ENGINE

    click.echo(f"{PROGRAM}, version {__version__} (frames: {ENGINE})")
    ctx.exit()


@click.group(
    cls=RootGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": ENVIRONMENT},
    epilog=f"Options can also be set in HOME/config.toml ([serve] secure-port = 9000) and in the environment "
    f"({ENVIRONMENT}_SERVE_SECURE_PORT=9000); a flag is the strongest.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: tell_version(ctx) if wanted else None,
    help="Show the version and exit.",
)
@click.option(
    "--home",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help=f"Folder with the keys, certificates and settings (or {ENVIRONMENT}_HOME).  "
    "[default: the user data folder of this platform]",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
@click.pass_context
def root(ctx: click.Context, home: str | None, debug: bool) -> None:
    """Gives apps an identity, and one secure, two-way line to Python code.

    \b
    First steps:
      rsocket-broker demo            see the whole story, no device needed
      rsocket-broker serve           run the broker
      rsocket-broker clients list    who is connected
      rsocket-broker doctor          what is wrong here, and how to mend it
    """
    ctx.obj = Context(default_home() if home is None else Path(home).expanduser().absolute(), debug)


def main(arguments: list[str] | None = None) -> None:
    """The console script. Never lets a traceback out unless `--debug` asks for it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code; errors are told on stderr in one or two lines."""
    try:
        code = root.main(arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        return fail(usage_text(error), code=2, hint=usage_hint(error))
    except click.ClickException as error:
        return fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return fail("stopped.")
    except BrokerError as error:
        return fail(error.public)
    except BrokenPipeError:
        # The reader of our output has gone (`… | head`); Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return fail(os_error_text(error)) if not wants_debug(arguments) else unexpected(error, arguments)
    except Exception as error:  # noqa: BLE001  the last line of defence: no traceback reaches a user unasked
        return unexpected(error, arguments)
    return code if isinstance(code, int) else 0


def fail(text: str, *, code: int = 1, hint: str = "") -> int:
    """Tells an error on stderr and returns the exit code. Peers' words in `text` cannot move the cursor."""
    for line in filter(None, [*f"Error: {text}".split("\n"), *hint.split("\n")]):
        click.echo(visible(line), err=True)
    return code


def usage_text(error: click.UsageError) -> str:
    """What is wrong, and where the value was set when it was not typed."""
    text, ctx, option = error.format_message(), error.ctx, getattr(error, "param", None)
    if ctx is None or not isinstance(option, click.Option) or option.name is None:
        return text
    source = ctx.get_parameter_source(option.name)
    if source is ParameterSource.ENVIRONMENT:
        variable = option.envvar or f"{ctx.auto_envvar_prefix}_{option.name}".upper()
        return f"{text.removesuffix('.')}, in the environment variable {variable}."
    obj = ctx.find_object(Context)
    if source is ParameterSource.DEFAULT_MAP and obj is not None:
        return f"{text.removesuffix('.')}, in {obj.config.where(command_path(ctx))}."
    return text


def usage_hint(error: click.UsageError) -> str:
    return f"Try '{error.ctx.command_path} --help'." if error.ctx is not None else f"Try '{PROGRAM} --help'."


def os_error_text(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}."


def wants_debug(arguments: list[str]) -> bool:
    return "--debug" in arguments


def unexpected(error: Exception, arguments: list[str]) -> int:
    """An error that nobody foresaw is a defect of ours: say so, and what to send to those who can mend it."""
    if wants_debug(arguments):
        traceback.print_exception(error)
        return 1
    return fail(
        f"unexpected {type(error).__name__}; this is a defect of {PROGRAM} {__version__}.",
        hint="Run the same command with --debug, and report what it prints.",
    )
