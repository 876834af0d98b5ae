"""Keeps the way open from Android devices to the broker: reverse forwards, set on each device as long as it is there.

Apps dial fixed ports of their own device (8088, 8089); adb carries them to the ports that the broker really has. A
forward is gone when the device leaves or the adb server restarts, so each device has a watch of its own, which sets
the forwards, reads them back, and looks again from time to time.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping

import attrs

from rsocket_broker.claims import shown
from rsocket_broker.enrollment.mediums.adb_shell import AdbAbsent, AdbProblem, AdbServer, Address, Attached

FIRST_RETRY, LAST_RETRY = 0.5, 5.0
"""Seconds before the adb server is looked for again: quickly after it restarts, calmly where there is none."""
LOOK_AGAIN = 10.0
"""Seconds between two looks at forwards that are in order. Somebody may have removed them, and an adb server does not
report a device on Wi-Fi that drops and comes back by itself."""
TRY_AGAIN = 3.0
"""Seconds before another try on a device that refused: it may still be starting."""
READY = "device"

log = logging.getLogger(__name__)


@attrs.frozen(slots=True, kw_only=True)
class DeviceStatus:
    """One attached device. `forwards` (device port → broker port) were read back from it; `problem` is "" when all
    is in order, else one line that says what is wrong and what to do."""

    serial: str
    state: str
    forwards: Mapping[int, int] = attrs.field(factory=dict)
    problem: str = ""


_NOT_READY: Mapping[str, str] = {
    "unauthorized": "it has not authorised this computer: allow USB debugging on its screen",
    "authorizing": "it is still authorising this computer: allow USB debugging on its screen",
    "offline": "it is offline: plug it in again, or run `adb reconnect offline`",
}


class AdbMonitor:
    """Follows the devices of one adb server. Does nothing until `run`.

    `forwards` maps ports of the device to ports of this machine. `on_device(serial)` is awaited each time a device has
    come and its forwards have been tried; what it raises is logged.
    """

    def __init__(
        self,
        server: Address,
        forwards: Mapping[int, int],
        on_device: Callable[[str], Awaitable[None]] | None = None,
        *,
        look_again: float = LOOK_AGAIN,
        try_again: float = TRY_AGAIN,
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self._server = AdbServer(server)
        self._forwards = dict(forwards)
        self._on_device = on_device
        self._look_again, self._try_again, self._first_retry = look_again, try_again, first_retry
        self._devices: dict[str, DeviceStatus] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        """Set at the server's next report, which may be all that it says about a device that went and came back."""
        self.problem = "The adb server has not been looked at yet."
        """Why no device can be seen, as one sentence with what to do; "" while the adb server answers."""

    def status(self) -> list[DeviceStatus]:
        """All attached devices, in the order of their serials."""
        return [self._devices[serial] for serial in sorted(self._devices)]

    async def changed(self) -> None:
        """Returns at the next change of `status()` or `problem`."""
        await self._changed.wait()

    async def run(self) -> None:
        """Follows the adb server until cancelled, through its absences, which are logged once each."""
        async with asyncio.TaskGroup() as group:
            pause = self._first_retry
            while True:
                met = await self._follow(group)
                pause = self._first_retry if met else min(pause * 2, LAST_RETRY)
                await asyncio.sleep(pause)

    async def _follow(self, group: asyncio.TaskGroup) -> bool:
        """Follows the server until it goes; whether it was there at all."""
        met = False

        def changed(attached: list[Attached]) -> None:
            nonlocal met
            met = True
            self._set_problem("")
            self._compare(attached, group)
            self._news.set()
            self._news = asyncio.Event()

        try:
            await self._server.probe()
            await self._server.version()  # following has no time limit; this has, should the server hang
            await self._server.track(changed)
        except AdbProblem as problem:
            absent = isinstance(problem, AdbAbsent)
            self._set_problem(problem.public if absent else f"The adb server cannot be followed: {problem.public}.")
        self._compare([], group)
        return met

    def _compare(self, attached: list[Attached], group: asyncio.TaskGroup) -> None:
        """Starts a watch for each device that has become ready, and ends those of the ones that are not any more."""
        now = {device.serial: device.state for device in attached}
        for serial in list(self._devices):
            if now.get(serial) != self._devices[serial].state:
                del self._devices[serial]
                if watch := self._watches.pop(serial, None):
                    watch.cancel()
        self._told = {serial: text for serial, text in self._told.items() if serial in now}
        for serial, state in now.items():
            if serial in self._devices:
                continue
            problem = _NOT_READY.get(state, f"its state is {state}: check `adb devices`")
            self._devices[serial] = DeviceStatus(serial=serial, state=state, problem="" if state == READY else problem)
            work = self._watch(serial, group) if state == READY else self._wait_for(serial, group)
            self._watches[serial] = group.create_task(work, name=f"adb {serial}")
        self._notify()

    async def _wait_for(self, serial: str, group: asyncio.TaskGroup) -> None:
        """Watches a device that cannot be used yet. Ended by `_compare` when its state changes.

        Told of only when it stays so, since every device passes through such states when it comes. The server is asked
        again because it does not report each of these states by itself.
        """
        while True:
            await asyncio.sleep(self._try_again)
            await self._refresh(group)
            self._note(self._devices[serial])

    async def _refresh(self, group: asyncio.TaskGroup) -> None:
        """Asks the server for all devices; a change ends the watch that asked."""
        try:
            attached = await self._server.devices()
        except AdbProblem:
            return  # the one who follows the server sees it too
        self._compare(attached, group)
        await asyncio.sleep(0)

    async def _watch(self, serial: str, group: asyncio.TaskGroup) -> None:
        """Keeps the forwards of one device as long as it is attached."""
        in_order = await self._apply(serial, self._forwards, group)  # whoever had them before
        await self._arrived(serial)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_again if in_order else self._try_again):
                    await self._news.wait()
            in_order = await self._restore(serial, group)

    async def _arrived(self, serial: str) -> None:
        if self._on_device is not None:
            try:
                await self._on_device(serial)
            except Exception:  # the hook is the composition's; its failure must not end the watch
                log.exception("what follows the arrival of %s failed", shown(serial, 80))

    async def _restore(self, serial: str, group: asyncio.TaskGroup) -> bool:
        """Sets again what is missing. A port that leads elsewhere by now is left alone: two brokers would take it from
        each other for ever."""
        try:
            there = await self._server.reverses(serial)
        except AdbProblem as problem:
            return await self._failed(serial, problem, group)
        missing = {port: to for port, to in self._forwards.items() if f"tcp:{port}" not in there}
        in_order = await self._apply(serial, missing, group)
        if len(missing) == len(self._forwards):  # all gone: it has been away
            await self._arrived(serial)
        return in_order

    async def _apply(self, serial: str, wanted: Mapping[int, int], group: asyncio.TaskGroup) -> bool:
        """Sets the forwards `wanted`, and reads all of them back; whether they are in order."""
        try:
            for device_port, port in wanted.items():
                await self._server.reverse(serial, device_port, port)
            there = await self._server.reverses(serial)
        except AdbProblem as problem:
            return await self._failed(serial, problem, group)
        right = {port: to for port, to in self._forwards.items() if there.get(f"tcp:{port}") == f"tcp:{to}"}
        problem_text = self._missing(there) if len(right) < len(self._forwards) else ""
        self._note(DeviceStatus(serial=serial, state=READY, forwards=right, problem=problem_text))
        return not problem_text

    def _missing(self, there: Mapping[str, str]) -> str:
        elsewhere = [
            f"its port {port} leads to {there[f'tcp:{port}']}"
            for port, to in self._forwards.items()
            if there.get(f"tcp:{port}", f"tcp:{to}") != f"tcp:{to}"
        ]
        if elsewhere:
            return f"{' and '.join(elsewhere)}: another program has taken it; stop that, then plug the device in again"
        return "the forwards that were set are not there: its Android may be too old for `adb reverse` (it needs 5.0)"

    async def _failed(self, serial: str, problem: AdbProblem, group: asyncio.TaskGroup) -> bool:
        """Tells of a device that is still there and refuses; for one that has left, this watch ends here."""
        await self._refresh(group)
        text = (
            f"its ports {', '.join(map(str, self._forwards))} cannot be forwarded to this computer "
            f"({shown(problem.public)}): close what uses them on the device; `adb reverse` needs Android 5.0"
        )
        self._note(DeviceStatus(serial=serial, state=READY, problem=text))
        return False

    def _note(self, status: DeviceStatus) -> None:
        """Keeps a device's status, and logs what is new about it, once."""
        self._devices[status.serial] = status
        name = shown(status.serial, 80)
        if status.problem:
            if self._told.get(status.serial) != status.problem:
                log.warning("Android device %s: %s", name, status.problem)
            self._told[status.serial] = status.problem
        elif status.forwards:
            if self._told.pop(status.serial, None) is not None:
                log.info("Android device %s is in order again", name)
            ports = ", ".join(f"{port} to {to}" for port, to in status.forwards.items())
            log.debug("Android device %s: ports forwarded: %s", name, ports)
        self._notify()

    def _set_problem(self, text: str) -> None:
        if text != self.problem:
            self.problem = text
            if text:
                log.info("%s Android devices are looked for again from time to time.", text)
            self._notify()

    def _notify(self) -> None:
        """Wakes everyone who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()
