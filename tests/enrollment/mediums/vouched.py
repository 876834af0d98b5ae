"""Drivers that somebody has to vouch to, made by hand: the bundled ones are off until they are configured."""

import logging
from collections.abc import Mapping
from typing import TypeVar

from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.mediums.base import Medium, MediumContext
from rsocket_broker.state import State

M = TypeVar("M", bound=Medium)


def medium(kind: type[M], state: State, settings: Mapping[str, object]) -> M:
    return kind(MediumContext(devices=DeviceRegistry(state), log=logging.getLogger(kind.name), settings=settings))
