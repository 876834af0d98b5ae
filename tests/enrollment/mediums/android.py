"""Fixtures: one real adb server for all tests of a module, emulated devices, and an enrolment core with the driver."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest

from rsocket_broker.claims import Claims
from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.mediums.adb import AdbMedium
from rsocket_broker.enrollment.mediums.base import MediumContext
from rsocket_broker.state import State
from tests.emulated_device import AdbServer, AppSandbox, EmulatedDevice
from tests.enrollment.workshop import Workshop, open_workshop

PACKAGE = "org.example.demo"


@attrs.frozen
class Bench:
    """A broker's enrolment core, a device with an app, and the adb server between them."""

    server: AdbServer
    device: EmulatedDevice
    app: AppSandbox
    workshop: Workshop
    medium: AdbMedium


def adb_medium(server: AdbServer, state: State) -> AdbMedium:
    settings = {"server": f"{server.address[0]}:{server.port}"}
    return AdbMedium(MediumContext(devices=DeviceRegistry(state), log=logging.getLogger("test"), settings=settings))
