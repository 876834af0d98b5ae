"""The environment variables by which Flipper's own server was told its ports, for whoever has set them already.

    FLIPPER_PORTS          INSECURE,SECURE   RSocket
    FLIPPER_ALT_PORTS      INSECURE,SECURE   WebSocket
    FLIPPER_BROWSER_PORT   PORT              browser and Node apps

They are weaker than whatever is set for this broker itself, and the last one only says which port `--browser-port on`
is. Apps dial what they were told by settings of the same form,
so the ports that devices dial follow. One that is malformed is ignored, as Flipper did, and named in the log.
"""

from collections.abc import Mapping
from typing import Final

HIGHEST: Final = 65535
PAIRS: Final = {
    "FLIPPER_PORTS": ("insecure_port", "secure_port", "device_ports"),
    "FLIPPER_ALT_PORTS": ("ws_insecure_port", "ws_secure_port", "device_web_ports"),
}
"""Of each variable: the options for its two numbers, and the one for both."""
BROWSER: Final = ("FLIPPER_BROWSER_PORT", "browser_port")


def flipper_ports(environment: Mapping[str, str]) -> tuple[dict[str, object], list[str]]:
    """What the variables say, by the names of the options of `serve`; and a sentence for each that says nothing."""
    found: dict[str, object] = {}
    problems = []
    for variable, (insecure, secure, both) in PAIRS.items():
        if variable not in environment:
            continue
        text = environment[variable]
        numbers = [_number(part) for part in text.split(",")]
        if len(numbers) != 2 or None in numbers or numbers[0] == numbers[1]:
            problems.append(f"{variable} is ignored: it must be two port numbers such as 9089,9088, not {text[:40]!r}")
        else:
            found |= {insecure: numbers[0], secure: numbers[1], both: ",".join(map(str, numbers))}
    variable, option = BROWSER
    if variable in environment:
        number = _number(environment[variable])
        if number is None:
            problems.append(f"{variable} is ignored: it must be a port number, not {environment[variable][:40]!r}")
        else:
            found[option] = number
    return found, problems


def _number(text: str) -> int | None:
    """A port number in decimal digits; None for anything else."""
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > len(str(HIGHEST)):
        return None
    return int(text) if 0 < int(text) <= HIGHEST else None
