"""The record of what was done and refused here: chained, so that what is changed or taken away afterwards shows."""

from rsocket_broker.audit.audit import Audit
from rsocket_broker.audit.events import Event

__all__ = ["Audit", "Event"]
