"""The emulated device's own programs: `run-as`, `su`, `getprop`, `settings`, `date`, `stat`, `id`, `fsync`, `am`,
`logcat`, `ps`, `screencap`.

Run as `python -I -S android_tools.py TOOL ROOT ARGUMENTS…`, by the little scripts that `sandbox.py` puts on the
device's PATH. It runs ten times in an exchange, so it imports only what is built into the interpreter or loaded anyway.
`ROOT/device.facts` (marshal) says how the device behaves.

An app's container is kept in `ROOT/vault/USER/PACKAGE`, out of the shell user's sight. `run-as` and `su` show a
container by replacing its path in the arguments of the command that they run, and nowhere else; so a command run as
one app cannot reach another app's container.
"""

import marshal
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

READ_ONLY = "READ_ONLY"
FIRST_APP_UID = 10000
PER_USER = 100000


def fail(text: str, code: int = 1) -> "NoReturn":
    sys.stderr.write(text + "\n")
    sys.exit(code)


class Device:
    def __init__(self, root: str) -> None:
        self.root = root
        with open(f"{root}/device.facts", "rb") as file:  # noqa: PTH123 - pathlib would cost more than all the rest
            self.facts: dict[str, Any] = marshal.load(file)

    def package(self, name: str, user: int) -> "dict[str, Any] | None":
        found: dict[str, Any] | None = self.facts["packages"].get(f"{user}/{name}")
        return found

    def container(self, name: str, user: int) -> str:
        return f"{self.root}/vault/{user}/{name}"

    def show(self, argument: str, package: str, user: int) -> str:
        """`argument` with the public paths of one container replaced by where it really is."""
        public = [f"{self.root}/data/user/{user}/{package}"]
        if user == 0:
            public.append(f"{self.root}/data/data/{package}")
        for path in public:
            argument = replace_path(argument, path, self.container(package, user))
        return argument

    def show_all(self, argument: str) -> str:
        for key in self.facts["packages"]:
            user, _, package = key.partition("/")
            argument = self.show(argument, package, int(user))
        return argument


def replace_path(text: str, path: str, by: str) -> str:
    """Every `path` in `text` that is not the beginning of a longer name."""
    for end in "/ '\"":
        text = text.replace(path + end, by + end)
    return text.removesuffix(path) + by if text.endswith(path) else text


def run(arguments: list[str], uid: int) -> "NoReturn":
    os.environ["EMULATED_UID"] = str(uid)
    try:
        os.execvp(arguments[0], arguments)
    except OSError as error:
        fail(f"exec failed for {arguments[0]} Error:{error.strerror}")


def run_as(device: Device, arguments: list[str]) -> "NoReturn":
    """run-as PACKAGE [--user N] COMMAND…: as the real one, it changes to the container and runs the command."""
    name, rest, user = arguments[0], arguments[1:], 0
    if rest[:1] == ["--user"]:
        if not device.facts["run_as_knows_users"]:
            fail("run-as: exec failed for --user Error:No such file or directory")
        user, rest = int(rest[1]), rest[2:]
    package = device.package(name, user)
    if package is None:
        fail(f"run-as: unknown package: {name}")
    trouble = package["trouble"]
    if trouble == READ_ONLY:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    elif trouble is not None:
        fail(trouble.format(package=name, home=f"/data/user/{user}/{name}"))
    os.chdir(device.container(name, user))
    run([device.show(argument, name, user) for argument in rest] or ["sh"], package["uid"])


def su(device: Device, arguments: list[str]) -> "NoReturn":
    """`su UID COMMAND…` on images made for development ("aosp"); `su UID -c LINE` if the owner added it ("magisk")."""
    flavour = device.facts["su"]
    if flavour is None:
        fail("/system/bin/sh: su: inaccessible or not found", 127)
    uid, rest = int(arguments[0]), arguments[1:]
    if flavour == "magisk":
        rest = ["sh", "-c", rest[1]] if rest[:1] == ["-c"] else ["sh", *rest]
    owner = next((key for key, item in device.facts["packages"].items() if item["uid"] == uid), None)
    if uid == 0:
        run([device.show_all(argument) for argument in rest], uid)
    if owner is None:
        run(rest, uid)
    user, _, package = owner.partition("/")
    run([device.show(argument, package, int(user)) for argument in rest], uid)


def stat(device: Device, arguments: list[str]) -> None:
    """stat -c %u PATH: the owner's number, which on this machine is not the real one."""
    real = os.path.realpath(arguments[-1])
    for key, item in device.facts["packages"].items():
        if real == f"{device.root}/vault/{key}":
            sys.stdout.write(f"{item['uid']}\n")
            return
    fail(f"stat: '{arguments[-1]}': No such file or directory")


def am(device: Device, arguments: list[str]) -> None:
    """am start -a android.intent.action.VIEW -d URI PACKAGE: notes URI and package in `ROOT/opened`, one a line.

    As the real one, it tells of an app that is not there on standard error, and with code 0 on old devices.
    """
    action, uri, package = arguments[2], arguments[4], arguments[5]
    sys.stdout.write(f"Starting: Intent {{ act={action} dat={uri} pkg={package} }}\n")
    sys.stdout.flush()
    if arguments[:2] != ["start", "-a"] or arguments[3] != "-d" or device.package(package, 0) is None:
        sys.stderr.write(f"Error: Activity not started, unable to resolve Intent {{ dat={uri} }}\n")
        sys.exit(device.facts["am_fails"])
    with open(f"{device.root}/opened", "a", encoding="utf-8") as file:  # noqa: PTH123
        file.write(f"{package}\t{uri}\n")


def logcat(device: Device, arguments: list[str]) -> None:
    """logcat -v threadtime [-T TIME] [*:LEVEL]: what `ROOT/log` holds from TIME on, and what is added, without end."""
    since = arguments[arguments.index("-T") + 1] if "-T" in arguments else ""
    wanted = arguments[-1].removeprefix("*:") if arguments[-1].startswith("*:") else "V"
    sys.stdout.write("--------- beginning of main\n")
    with open(f"{device.root}/log", encoding="utf-8") as file:  # noqa: PTH123
        while True:
            while line := file.readline():
                if line[: len(since)] >= since and "VDIWEF".index(line.split()[4]) >= "VDIWEF".index(wanted):
                    sys.stdout.write(line)
            sys.stdout.flush()
            time.sleep(0.01)


def ps(device: Device, arguments: list[str]) -> None:
    """ps -A -o PID,NAME; a device before Android 8 knows `ps` alone."""
    if device.facts["old_ps"]:
        if arguments:
            fail("bad pid '-A'")
        sys.stdout.write("USER     PID   PPID  VSIZE  RSS     WCHAN    PC        NAME\n")
        for pid, name in device.facts["processes"].items():
            sys.stdout.write(f"u0_a1    {pid}  99  1 1 ffffffff 00000000 S {name}\n")
        return
    sys.stdout.write("  PID NAME\n")
    for pid, name in device.facts["processes"].items():
        sys.stdout.write(f"{pid:5} {name}\n")


def date(device: Device, arguments: list[str]) -> None:
    now = time.time() + device.facts["clock_offset"]
    sys.stdout.write(time.strftime(arguments[0][1:].replace("%s", str(int(now))), time.gmtime(now)) + "\n")


def getprop(device: Device, arguments: list[str]) -> None:
    sys.stdout.write(device.facts["properties"].get(arguments[0], "") + "\n")


def settings(device: Device, arguments: list[str]) -> None:
    sys.stdout.write(device.facts["settings"].get(" ".join(arguments), "null") + "\n")


def fsync(device: Device, arguments: list[str]) -> None:
    for name in arguments:
        descriptor = os.open(name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def show_id(device: Device, arguments: list[str]) -> None:
    sys.stdout.write(os.environ.get("EMULATED_UID", "2000") + "\n")


def screencap(device: Device, arguments: list[str]) -> None:
    sys.stdout.buffer.write(device.facts["picture"])


PROGRAMS = {
    "run-as": run_as,
    "su": su,
    "stat": stat,
    "getprop": getprop,
    "settings": settings,
    "date": date,
    "fsync": fsync,
    "id": show_id,
    "am": am,
    "logcat": logcat,
    "ps": ps,
    "screencap": screencap,
}


def main(tool: str, root: str, arguments: list[str]) -> None:
    PROGRAMS[tool](Device(root), arguments)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
