"""What can be wrong with a device or with one of its packages."""

from enum import Enum


class Trouble(Enum):
    """Why `run-as` fails for one package. The value is what it prints; {package} and {home} are filled in."""

    UNKNOWN = "run-as: unknown package: {package}"
    UNKNOWN_OLD = "run-as: Package '{package}' is unknown"
    NOT_AN_APPLICATION = "run-as: Package '{package}' is not an application"
    NOT_DEBUGGABLE = "run-as: package not debuggable: {package}"
    NOT_PERMITTED = "run-as: Operation not permitted"
    NO_CAPABILITIES = "run-as: Could not set capabilities: Operation not permitted"
    PERMISSION_DENIED = "/system/bin/sh: run-as: can't execute: Permission denied"
    WRONG_OWNER = "run-as: {home} has wrong owner"
    CORRUPT = "run-as: Package '{package}' has corrupt installation: {home} is corrupt or inaccessible"
    NO_RUN_AS = "/system/bin/sh: run-as: inaccessible or not found"
    READ_ONLY = "(run-as works, but no byte can be written)"
    """Stands for SELinux and full disks: `run-as` works, every write fails."""


class Fault(Enum):
    """What happens to the device at a chosen command."""

    VANISH_BEFORE = "the line drops before the command is run"
    VANISH_MIDWAY = "half of the command's input arrives, then the line drops"
    VANISH_AFTER = "the command is run, and the line drops before its answer is sent"
    HANG = "the command is never run and never answered"
