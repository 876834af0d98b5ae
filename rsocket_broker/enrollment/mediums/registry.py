"""Finds the medium drivers and picks one for a request. Bundled drivers come through the same door as any other."""

import importlib.metadata
import logging
from collections.abc import Collection, Iterable, Mapping

import attrs

from rsocket_broker.claims import KNOWN_OS, shown
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.exchange import NO_EXCHANGE, SignRequest, Step
from rsocket_broker.enrollment.mediums.base import Medium, MediumContext
from rsocket_broker.errors import BrokerError, ConfigurationError, EnrollmentRefused

ENTRY_POINTS = "rsocket_broker.mediums"

_MEANINGS = {1: "file-system access", 2: "upload service", 4: "pairing"}
"""Mediums with a meaning of their own, whether or not a driver offers them here."""

_SWITCHED_ON = {2: " Medium 2 is offered once its operator has written [mediums.upload] in config.toml."}
"""What makes a medium of ours offered that is not: who is refused can tell the operator."""

OPT_IN = frozenset({"upload", "qr_bundle"})
"""Drivers of ours that are offered only where the configuration has a table for them: what they do is to be wanted."""

log = logging.getLogger(__name__)


@attrs.frozen(slots=True)
class Mediums:
    """The drivers on offer, by name, and why each of the others is not."""

    offered: Mapping[str, Medium] = attrs.field(factory=dict)
    broken: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def load(
        cls,
        devices: DeviceRegistry,
        settings: Mapping[str, Mapping[str, object]] | None = None,
        without: Collection[str] = (),
        entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
    ) -> "Mediums":
        """Every driver of the group `rsocket_broker.mediums`, except those named in `without`.

        `settings` holds each driver's own table by its name. A driver that cannot be loaded or made is logged and
        kept in `broken` by name; the others are offered all the same.
        """
        found = importlib.metadata.entry_points(group=ENTRY_POINTS) if entry_points is None else entry_points
        offered: dict[str, Medium] = {}
        broken: dict[str, str] = {}
        for entry in sorted(found, key=lambda entry: (entry.name, entry.value)):
            if entry.name in without or (entry.name in OPT_IN and entry.name not in (settings or {})):
                continue
            if entry.name in offered:
                broken[entry.value] = f"another driver is called {entry.name} already."
                log.error("medium driver %s is not offered: %s", entry.value, broken[entry.value])
                continue
            context = MediumContext(
                devices=devices,
                log=log.getChild(entry.name),
                settings=(settings or {}).get(entry.name, {}),
            )
            try:
                offered[entry.name] = _make(entry, context)
            except BrokerError as error:
                broken[entry.name] = error.public
                log.error("medium driver %s is not offered: %s", entry.name, error.public)
            except Exception as error:  # a stranger's module may raise anything, and must not stop us
                broken[entry.name] = f"{entry.value} failed with {type(error).__name__}: {error}"
                log.exception("medium driver %s is not offered: %s", entry.name, broken[entry.name])
        return cls(offered, broken)

    @property
    def known_os(self) -> tuple[str, ...]:
        """The values of `os` that may ask: those that the broker knows, and those that a driver names."""
        named = {system for driver in self.offered.values() for system in driver.systems}
        return (*KNOWN_OS, *sorted(named - set(KNOWN_OS)))

    def select(self, request: SignRequest) -> Medium:
        """The driver for a request: of its medium number, the first by name that handles it.

        Raises EnrollmentRefused (step "medium") that says what is on offer instead.
        """
        if request.medium == NO_EXCHANGE:
            raise self._refused(
                f"medium {NO_EXCHANGE} means that no certificates are exchanged, so there is nothing to sign"
            )
        of_number = [
            driver for driver in self.offered.values() if driver.number == request.medium and not driver.fallback
        ]
        if not of_number:
            raise self._refused(
                f"no driver offers medium {_named(request.medium)}", _SWITCHED_ON.get(request.medium, "")
            )
        for driver in of_number:
            if driver.handles(request):
                return self._with_destination(driver, request)
        system = shown(request.claims.os, 40) or "unknown"
        raise self._refused(f"no driver of medium {request.medium} serves this destination on {system}")

    def voucher_driver(self, request: SignRequest) -> Medium | None:
        """The driver of the request, if somebody has to vouch for it first."""
        of_number = (driver for driver in self.offered.values() if driver.number == request.medium)
        return next((one for one in of_number if one.needs_voucher and not one.fallback and one.handles(request)), None)

    def fallback(self, request: SignRequest) -> Medium | None:
        """What is tried for a request whose own driver has not reached the app; None where there is nothing."""
        of_number = (driver for driver in self.offered.values() if driver.number == request.medium)
        return next((driver for driver in of_number if driver.fallback and driver.handles(request)), None)

    def _with_destination(self, driver: Medium, request: SignRequest) -> Medium:
        if driver.needs_destination and not request.destination:
            raise EnrollmentRefused(
                Step.MESSAGE,
                "the field destination is missing or empty.",
                f"The medium {driver.name} needs the folder that the app keeps its app.csr in.",
            )
        return driver

    def _refused(self, reason: str, more: str = "") -> EnrollmentRefused:
        numbers = sorted({driver.number for driver in self.offered.values()})
        drivers = [
            f"{_named(number)}: " + ", ".join(name for name, driver in self.offered.items() if driver.number == number)
            for number in numbers
        ]
        return EnrollmentRefused(Step.MEDIUM, f"{reason}.", f"On offer here: {'; '.join(drivers) or 'none'}.{more}")


def _named(number: int) -> str:
    """The number with its meaning: `2 (upload service)`."""
    return f"{number} ({_MEANINGS.get(number, 'unknown to this broker')})"


def _make(entry: importlib.metadata.EntryPoint, context: MediumContext) -> Medium:
    driver = entry.load()
    if not (isinstance(driver, type) and issubclass(driver, Medium)):
        raise ConfigurationError(f"{entry.value} is not a subclass of Medium.")
    if driver.name != entry.name:
        raise ConfigurationError(f'{entry.value} calls itself "{driver.name}": the entry point must have that name.')
    return driver(context)
