"""`rsocket-broker serve`: runs the broker until a signal stops it."""

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click
from click.core import ParameterSource

from rsocket_broker import event_loop
from rsocket_broker.broker import Broker
from rsocket_broker.browser.origin import listed_host
from rsocket_broker.cli.ca_shared import passphrase_option, read_passphrase
from rsocket_broker.cli.context import Context, PathOrName, PortNumber, UsualPort, WholeNumber
from rsocket_broker.cli.flipper_ports import flipper_ports
from rsocket_broker.credentials import APP_ID
from rsocket_broker.enrollment.mediums.adb_shell import server_address
from rsocket_broker.enrollment.modes import Mode
from rsocket_broker.enrollment.throttle import PER_MINUTE, EnrollmentLimits
from rsocket_broker.errors import ConfigurationError
from rsocket_broker.observability import logs
from rsocket_broker.protocol.codes import MAX_31
from rsocket_broker.protocol.limits import LEASE_PERIOD, LEASE_REQUESTS, RESUME_BYTES, RESUME_SECONDS
from rsocket_broker.quota import ALL, MODEST, PER_IDENTITY
from rsocket_broker.sessions.live import MAX_PER_IDENTITY, MAX_SESSIONS, DuplicateRule, SessionLimits
from rsocket_broker.settings import (
    BROWSER_PORT,
    INSECURE_PORT,
    LOCALHOST,
    SECURE_PORT,
    WS_INSECURE_PORT,
    WS_SECURE_PORT,
    ListenSettings,
    Settings,
    is_loopback,
)

STOP_LIMIT_S = 4.5
"""From the first signal to the end of the process, whatever hangs: whoever stops us is promised 5 seconds."""

COLLECTING = (700, 10, 10)
"""How often Python looks for cycles, from the moment on in which the broker is ready: its own default."""

SPARE_FILES = 1024
"""Open files beside the sessions: listeners, the database, the admin line, adb, and connections on their way out."""

PORT = WholeNumber(0, 65535)
COUNT = WholeNumber(min=1)
BYTES = WholeNumber(min=MODEST)
LEASED = WholeNumber(1, MAX_31)
"""What the number of a LEASE frame can say."""

CLIENT = re.compile(rf"{APP_ID.pattern}(@[!-~]+)?", re.ASCII)
"""What `--trace-frames` takes: app id, app id@device id; ids of sessions and `all` have the shape of app ids."""

_log = logging.getLogger(__name__)


HOST_HELP = (
    "Where to listen for sessions: localhost is 127.0.0.1 and ::1, 0.0.0.0 all of IPv4, :: all of IPv6 and no IPv4."
)


@click.command()
@click.option("--host", default=LOCALHOST, show_default=True, metavar="HOST", help=HOST_HELP)
@click.option(
    "--insecure-host",
    metavar="HOST",
    help="Where to listen for enrolment. Anyone who reaches this port may ask for a certificate, so it stays on "
    "localhost, whatever --host says, unless you name another host here.",
)
@click.option(
    "--insecure-port",
    type=PORT,
    metavar="PORT",
    default=INSECURE_PORT,
    show_default=True,
    help="Port for enrolment; 0 is any free one.",
)
@click.option(
    "--secure-port",
    type=PORT,
    metavar="PORT",
    default=SECURE_PORT,
    show_default=True,
    help="Port for sessions; 0 is any free one.",
)
@click.option(
    "--ws-insecure-port",
    type=PortNumber(),
    metavar="PORT|off",
    help="Port for enrolment over WebSocket, where --insecure-host says; 0 is any free one.  "
    f"[default: {WS_INSECURE_PORT} while --insecure-port is {INSECURE_PORT}, else any free one]",
)
@click.option(
    "--ws-secure-port",
    type=PortNumber(),
    metavar="PORT|off",
    help="Port for sessions over WebSocket with TLS up to 1.2: Flipper's JSON, and RSocket at /rsocket; 0 is any free "
    f"one.  [default: {WS_SECURE_PORT} while --secure-port is {SECURE_PORT}, else any free one]",
)
@click.option(
    "--http-port",
    type=PortNumber(),
    metavar="PORT|off",
    default=PortNumber.OFF,
    show_default=True,
    help="Port for HTTP on this machine's loopback alone: /metrics, and /rsocket over WebSocket; 0 is any free one.",
)
@click.option(
    "--browser-port",
    type=UsualPort(),
    metavar="PORT|on|off",
    is_flag=False,
    flag_value=UsualPort.ON,
    default=UsualPort.OFF,
    show_default=True,
    help="Port for browser and Node apps with js-flipper, on this machine's loopback alone; on is the one that they "
    f"dial, {BROWSER_PORT}, 0 any free one. Such apps prove nothing: see the kind unverified of the policy.",
)
@click.option(
    "--browser-origin",
    "browser_origins",
    multiple=True,
    metavar="HOST",
    help="A host besides localhost whose pages may use the browser port, whatever their port. Repeatable.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOST",
    help="A further name or address under which clients reach the broker; goes into its certificate. Repeatable.",
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=PathOrName(),
    metavar="PATH-OR-NAME",
    help="A plugin to load: a file, a folder, or a module. Repeatable. Installed ones, the bundled ones too, and "
    "those in HOME/plugins are always loaded.",
)
@click.option(
    "--adb",
    default="auto",
    show_default=True,
    metavar="auto|off|HOST:PORT",
    help="The adb server through which Android apps enrol. auto: the usual one, once it runs; it is never started. "
    "Devices' ports are forwarded to the machine on which that server runs.",
)
@click.option(
    "--device-ports",
    default=f"{INSECURE_PORT},{SECURE_PORT}",
    show_default=True,
    metavar="INSECURE,SECURE",
    help="The ports that apps on Android devices dial; forwarded to the two ports for RSocket.",
)
@click.option(
    "--device-web-ports",
    default=f"{WS_INSECURE_PORT},{WS_SECURE_PORT}",
    show_default=True,
    metavar="INSECURE,SECURE",
    help="The same for apps that dial over WebSocket, as all do whose SDK is 0.134 or newer.",
)
@click.option(
    "--duplicate",
    type=click.Choice([rule.value for rule in DuplicateRule]),
    help="When a client connects twice.  [default: a Flipper app replaces its older session, others coexist]",
)
@click.option(
    "--allow-relay",
    is_flag=True,
    help="Let any client send requests to any other, by the route client:<id, app id or app id@device id>, unless the "
    "policy denies it.",
)
@click.option(
    "--vendor-policy",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Rules that stand above HOME/policy.toml: what they allow or deny, no other file can change. Other users must "
    "not be able to write it.",
)
@click.option(
    "--resume-seconds",
    type=WholeNumber(min=0),
    metavar="S",
    default=int(RESUME_SECONDS),
    show_default=True,
    help="How long a session whose line was lost waits for its client to come back and resume it; 0 is not at all. "
    "Clients that never ask for it, as Flipper's SDKs, are not affected.",
)
@click.option(
    "--resume-bytes",
    type=COUNT,
    metavar="N",
    default=RESUME_BYTES,
    show_default=True,
    help="What one session retains for such a client, in bytes.",
)
@click.option(
    "--lease-requests",
    type=LEASED,
    metavar="N",
    default=LEASE_REQUESTS,
    show_default=True,
    help=f"Requests that a client which asks for leases may send in {LEASE_PERIOD:g} s.",
)
@click.option(
    "--max-sessions", type=COUNT, metavar="N", default=MAX_SESSIONS, show_default=True, help="Sessions in all."
)
@click.option(
    "--max-sessions-per-identity",
    type=COUNT,
    metavar="N",
    default=MAX_PER_IDENTITY,
    show_default=True,
    help="Sessions that one client may hold at once.",
)
@click.option(
    "--identity-bytes",
    type=BYTES,
    metavar="N",
    default=PER_IDENTITY,
    show_default=True,
    help="What one client may have the broker hold at once, in bytes, over all of its sessions: messages on their way "
    "in and out, requests, events. One that sends more is made to wait, and loses what it sends after that.",
)
@click.option(
    "--total-bytes",
    type=BYTES,
    metavar="N",
    default=ALL,
    show_default=True,
    help="The same of all clients together: beyond it, those that hold more than an equal share get no more.",
)
@click.option(
    "--enrollments-per-minute",
    type=COUNT,
    metavar="N",
    default=PER_MINUTE,
    show_default=True,
    help="Requests for certificates that are served; a tenth of them at once, and a quarter from one address.",
)
@click.option(
    "--enrollment",
    type=click.Choice([mode.value for mode in Mode]),
    help="Who may enrol: whoever reaches the port (open), whoever comes while you hold it open with `enrollment open` "
    "(window), or whoever shows a token of `enrollment grant` (token).  [default: open where the port for enrolment is "
    "on localhost, else window]",
)
@click.option(
    "--require-nonce",
    is_flag=True,
    help="Sign through files only for apps that read a nonce in their own folder and sign it: those with this "
    "package's SDK, which do so anyway. Flipper's SDKs cannot, and are refused.",
)
@click.option(
    "--trace-frames",
    "trace_frames",
    multiple=True,
    metavar="CLIENT",
    help="Show the frames of a client in the log, with routes and sizes, never what they say. CLIENT is APP_ID, "
    "APP_ID@DEVICE_ID, the id of a session to come (c1, c2, ...), or all. Repeatable.",
)
@passphrase_option
@click.option("--log-format", type=click.Choice(logs.FORMATS), default="text", show_default=True)
@click.option("--log-level", type=click.Choice(logs.LEVELS), default="info", show_default=True)
@click.pass_obj
def serve(obj: Context, /, log_format: str, log_level: str, **options: Any) -> None:
    """Run the broker.

    Prints one line, "ready ...", when all ports accept connections. Logs go to stderr. SIGTERM or Ctrl-C lets what is
    under way finish, then ends within 5 seconds; a second one ends at once.

    \b
    Examples:
      rsocket-broker serve
      rsocket-broker serve --plugin ./network_plugin.py --adb off
      rsocket-broker serve --insecure-port 0 --secure-port 0 --log-format json
      rsocket-broker serve --host 0.0.0.0 --name broker.example

    The last one serves sessions to the network, and enrols only what asks on this machine.

    FLIPPER_PORTS and FLIPPER_ALT_PORTS (INSECURE,SECURE) set the ports where nothing of this broker's own does, and
    FLIPPER_BROWSER_PORT says which --browser-port on means.
    """
    problems = use_flipper_ports(click.get_current_context(), options)
    check_usage(options)
    settings = settings_of(obj, options)
    logs.configure(log_format, log_level)
    logs.spare_what_is_not_shown()
    for problem in problems:
        _log.warning("%s", problem)
    warn_about_exposure(settings.listen, settings.adb, settings.mode)
    allow_open_files(settings.sessions.total + SPARE_FILES)
    event_loop.run(run(settings))


def use_flipper_ports(context: click.Context, options: dict[str, Any]) -> list[str]:
    """Takes the ports of Flipper's own variables where neither flag nor variable nor file has set them. Returns what is
    wrong with those variables, for the log.

    None of them opens the browser port, which lets strangers in: a profile of the shell may have set it long ago.
    """
    found, problems = flipper_ports(os.environ)
    browser_port = found.pop("browser_port", UsualPort.ON)
    if options["browser_port"] == UsualPort.ON:
        options["browser_port"] = browser_port
    unset = [name for name in found if context.get_parameter_source(name) is ParameterSource.DEFAULT]
    options.update({name: found[name] for name in unset})
    return problems


def check_usage(options: Mapping[str, Any]) -> None:
    """Raises click.UsageError for values that are of the right type and make no sense all the same."""
    try:
        all_device_ports(options)
        if options["adb"] != "auto":
            server_address(options["adb"])
        check_ports(options)
        for host in options["browser_origins"]:
            listed_host(host)
        check_traced(options["trace_frames"])
    except ConfigurationError as error:
        raise click.UsageError(error.public, click.get_current_context(silent=True)) from error


def check_ports(options: Mapping[str, Any]) -> None:
    """Raises ConfigurationError for two ports of one number, where that can be told without asking the system."""
    names = ["secure_port", "ws_secure_port"]
    names += ["insecure_port", "ws_insecure_port"] if options["insecure_host"] is None else []
    names += ["http_port", "browser_port"] if is_loopback(options["host"]) else []
    for one, other in itertools.combinations(sorted(names), 2):
        number = options[one]
        if isinstance(number, int) and number and number == options[other]:
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in (one, other))
            raise ConfigurationError(f"{flags} are both {number}: choose two numbers.")


def check_traced(clients: Sequence[str]) -> None:
    """Raises ConfigurationError for a name that no client can have: the log would stay silent for ever."""
    for client in clients:
        if not CLIENT.fullmatch(client):
            shapes = "APP_ID, APP_ID@DEVICE_ID, the id of a session (c1, c2, ...) or all"
            raise ConfigurationError(f'--trace-frames must be {shapes}, not "{client}".')


def settings_of(obj: Context, options: Mapping[str, Any]) -> Settings:
    """The options, with the tables of config.toml that belong to plugins and media. Raises ConfigurationError."""
    return Settings(
        home=obj.home,
        listen=listen_settings(options),
        sessions=SessionLimits(options["max_sessions"], options["max_sessions_per_identity"]),
        enrollment=EnrollmentLimits.of(options["enrollments_per_minute"]),
        enrollment_mode=Mode(options["enrollment"]) if options["enrollment"] else None,
        require_nonce=options["require_nonce"],
        duplicate=DuplicateRule(options["duplicate"]) if options["duplicate"] else None,
        allow_relay=options["allow_relay"],
        vendor_policy=None if options["vendor_policy"] is None else options["vendor_policy"].absolute(),
        resume_seconds=options["resume_seconds"],
        resume_bytes=options["resume_bytes"],
        lease_requests=options["lease_requests"],
        identity_bytes=options["identity_bytes"],
        total_bytes=options["total_bytes"],
        adb=options["adb"],
        plugins=tuple(options["plugins"]),
        plugin_tables=obj.plugin_tables(),
        medium_tables=obj.medium_tables(),
        **all_device_ports(options),
        passphrase=read_passphrase(options["passphrase_file"]),
        trace_frames=tuple(options["trace_frames"]),
    )


def settings_of_words(home: Path, words: Sequence[str]) -> Settings:
    """What `rsocket-broker --home HOME serve WORDS` runs with: its defaults, HOME/config.toml, the environment.

    Raises ConfigurationError that names the option at fault.
    """
    obj = Context(home.expanduser().absolute())
    try:
        with serve.make_context(
            "serve",
            list(words),
            obj=obj,
            default_map=obj.defaults(serve, ("serve",)),
            auto_envvar_prefix="RSOCKET_BROKER_SERVE",
            help_option_names=[],
        ) as context:
            check_usage(context.params)
            return settings_of(obj, context.params)
    except click.ClickException as error:
        raise ConfigurationError(error.format_message()) from error


def listen_settings(options: Mapping[str, Any]) -> ListenSettings:
    web: dict[str, Any] = {
        name: open_port(options[name]) for name in ("ws_insecure_port", "ws_secure_port") if options[name] is not None
    }
    return ListenSettings(
        host=options["host"],
        insecure_host=options["insecure_host"],
        insecure_port=options["insecure_port"],
        secure_port=options["secure_port"],
        http_port=open_port(options["http_port"]),
        browser_port=BROWSER_PORT if options["browser_port"] == UsualPort.ON else open_port(options["browser_port"]),
        browser_origins=tuple(map(listed_host, options["browser_origins"])),
        names=tuple(options["names"]),
        **web,
    )


def open_port(value: int | str) -> int | None:
    """From the value of a `PortNumber`."""
    return None if isinstance(value, str) else value


def all_device_ports(options: Mapping[str, Any]) -> dict[str, Any]:
    """The pairs that devices dial, by their names in Settings. Raises ConfigurationError."""
    pairs = {name: device_ports(options[name], name) for name in ("device_ports", "device_web_ports")}
    if len({number for pair in pairs.values() for number in pair}) < 4:
        raise ConfigurationError("--device-ports and --device-web-ports must be four different numbers.")
    return pairs


def device_ports(text: str, name: str = "device_ports") -> tuple[int, int]:
    """INSECURE,SECURE, the order that the SDKs' own settings have. Raises ConfigurationError."""
    option = f"--{name.replace('_', '-')}"
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and 0 < int(part[:6]) < 65536 for part in parts):
        raise ConfigurationError(f'{option} must be two port numbers such as 8089,8088, not "{text}".')
    if parts[0] == parts[1]:
        raise ConfigurationError(f"{option} must be two different numbers.")
    return int(parts[0]), int(parts[1])


def warn_about_exposure(listen: ListenSettings, adb: str, mode: Mode) -> None:
    """Says what the hosts mean for strangers and for devices, where that is not what everybody would expect."""
    if mode is Mode.WINDOW:
        _log.info("the port for enrolment is closed until you run: rsocket-broker enrollment open --for 10m")
    elif not is_loopback(listen.plain_host):
        if mode is Mode.OPEN:
            _log.warning("anyone who reaches port %d on %s may enrol", listen.insecure_port, listen.plain_host)
    elif not is_loopback(listen.host):
        _log.info("enrolment stays on %s; --insecure-host opens it to the network", listen.plain_host)
    if adb != "off" and not listen.on_loopback:
        _log.warning(
            "Android devices come in from localhost, where --host %s serves no sessions: "
            "use --host 0.0.0.0, or --adb off",
            listen.host,
        )


def allow_open_files(wanted: int) -> None:
    """Raises this process's limit of open files to `wanted`, each session being one; says so when it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        _log.warning(
            "this process may open %d files and wants %d: lower --max-sessions, or raise the limit (ulimit -Hn %d)",
            allowed,
            wanted,
            wanted,
        )


async def run(settings: Settings) -> None:
    """Starts a broker, says so, and stops it at the first signal. Raises BrokerError when it cannot start."""
    broker = Broker(settings)
    stopping = asyncio.Event()
    with on_signals(stopping, broker.abandon), on_hangup(broker.reload_policy):
        starting = asyncio.ensure_future(broker.start())
        waiting = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                gc.freeze()  # what is there now stays: it need not be looked through again and again
                gc.set_threshold(*COLLECTING)
                announce(broker)
                await waiting
        finally:
            starting.cancel()
            waiting.cancel()
            await broker.stop()


def announce(broker: Broker) -> None:
    """The one line on stdout. That nobody reads it must not stop the broker."""
    ports = broker.ports
    listening = {
        "insecure-port": ports.insecure_port,
        "secure-port": ports.secure_port,
        "ws-insecure-port": ports.ws_insecure_port,
        "ws-secure-port": ports.ws_secure_port,
        "http-port": ports.http_port,
        "browser-port": ports.browser_port,
    }
    words = " ".join(f"{name}={number}" for name, number in listening.items() if number is not None)
    home = logs.visible(str(broker.settings.home))
    with contextlib.suppress(OSError):
        click.echo(f"ready {words} host={ports.host} pid={ports.pid} home={home}")


@contextlib.contextmanager
def on_hangup(do: Callable[[], None]) -> Iterator[None]:
    """Calls `do` on the loop for each SIGHUP, the signal by which daemons are told to read their files anew."""
    loop = asyncio.get_running_loop()
    before = signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(do))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@contextlib.contextmanager
def on_signals(stopping: asyncio.Event, abandon: Callable[[], None]) -> Iterator[None]:
    """Sets `stopping` at the first SIGTERM or SIGINT, and ends the process at the second, or after STOP_LIMIT_S.

    These are signal handlers of Python's own and not of the loop: a plugin that blocks the loop blocks no signal.
    """
    loop = asyncio.get_running_loop()
    seen = 0

    def end(reason: str) -> None:
        _log.warning("%s: what was under way is cut off", reason)
        abandon()
        os._exit(0)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            end("a second signal")
        loop.call_soon_threadsafe(stopping.set)
        last = threading.Timer(STOP_LIMIT_S, end, [f"not stopped within {STOP_LIMIT_S} s"])
        last.daemon = True
        last.start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
