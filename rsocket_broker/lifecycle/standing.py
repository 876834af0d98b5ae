"""Where a home stands in a rotation, and whom an operator means, as the command line and the admin line say it."""

from collections.abc import Collection

from rsocket_broker.authority import Authority
from rsocket_broker.authority.holders import Holder
from rsocket_broker.authority.rotation import Phase
from rsocket_broker.identity import NO_DEVICE, Principal
from rsocket_broker.moments import timestamp


def describe(authority: Authority) -> dict[str, object]:
    """Where a home stands, as JSON. `left` are the clients that hold only certificates of the older generation while
    two are trusted. Reads the inventory: slow where that is large."""
    rotation = authority.rotation
    older = min(rotation.trusted)
    left = [] if rotation.phase is Phase.STEADY else authority.holders(older)
    return {
        "phase": rotation.phase.value,
        "generation": rotation.current,
        "next": rotation.next,
        "previous": rotation.previous,
        "since": timestamp(rotation.since),
        "left": [_describe_holder(each) for each in left],
    }


def _describe_holder(holder: Holder) -> dict[str, object]:
    principal = holder.principal
    return {
        "client": str(principal),
        "app_id": principal.app_id,
        "device_id": principal.device_id,
        "proof": principal.proof.value,
        "serials": [f"{serial:x}" for serial in holder.serials],
        "seen": None if holder.seen is None else timestamp(holder.seen),
        "not_after": timestamp(holder.not_after),
    }


def named(holders: Collection[Holder], names: Collection[str]) -> set[Principal]:
    """Those of `holders` whom an operator has named: `app_id@device_id` (`-` for no device), or `app_id` for the app
    wherever it is. A name of somebody who is not among them names nobody."""
    found: set[Principal] = set()
    for name in names:
        app_id, at, device = name.partition("@")
        device_id = "" if device == NO_DEVICE else device
        found |= {
            each.principal
            for each in holders
            if each.principal.app_id == app_id and (not at or each.principal.device_id == device_id)
        }
    return found
