"""Who would be shut out if a generation of the authority were dropped. Pure.

A client has one certificate after another: a renewal names the one whose place it takes, or is for the same key. Such a
line is one holder. A client that proved itself anew (an app that was installed again) begins a new line under the same
names; its old line counts as given up unless it was seen since the new one began.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import attrs

from rsocket_broker.authority.inventory import Record, Status
from rsocket_broker.identity import Principal, Proof


@attrs.frozen(slots=True)
class Holder:
    """A client that has nothing but certificates of one generation. `serials` are those, the newest last; `seen` is
    when one of them was last in use (None: never, as far as is known), `not_after` when the last of them ends."""

    principal: Principal
    serials: tuple[int, ...]
    seen: datetime | None
    not_after: datetime


@attrs.define
class _Line:
    records: list[Record] = attrs.field(factory=list)

    def seen(self, arrivals: Mapping[int, datetime]) -> datetime | None:
        return max((arrivals[each.serial] for each in self.records if each.serial in arrivals), default=None)


def find_holders(
    records: Iterable[Record],
    arrivals: Mapping[int, datetime],
    generation: int,
    others: Collection[int],
    now: datetime,
) -> list[Holder]:
    """Those who hold only `generation`, in the order in which their certificates were issued.

    `arrivals` says when a certificate was last seen, by serial number. One of `others`, the generations that stay,
    saves its holder only if it was seen; one of `generation` counts in any case, since somebody may hold it.
    """
    found: list[Holder] = []
    for line in _living(_lines(records), arrivals):
        good = [each for each in line.records if each.status is Status.ACTIVE and now <= each.not_after]
        held = [each for each in good if each.generation == generation]
        if held and not any(each.generation in others and each.serial in arrivals for each in good):
            found.append(_holder(held, line.seen(arrivals)))
    return _joined(found)


def _lines(records: Iterable[Record]) -> list[_Line]:
    """The certificates of clients in lines: each with those that it renews, and with those of the same key."""
    lines: list[_Line] = []
    by_serial: dict[int, _Line] = {}
    by_key: dict[tuple[Principal, str], _Line] = {}
    for record in records:
        if record.principal is None:
            continue
        key = record.principal, record.key_fingerprint
        line = by_serial.get(record.renews) if record.renews is not None else None
        line = line or by_key.get(key)
        if line is None:
            lines.append(line := _Line())
        line.records.append(record)
        by_serial[record.serial] = by_key[key] = line
    return lines


def _living(lines: Iterable[_Line], arrivals: Mapping[int, datetime]) -> list[_Line]:
    """The lines that were not given up for a later one of the same client.

    What an operator issued by hand is never given up for something else: nobody can say where it went.
    """
    living: list[_Line] = []
    since: dict[Principal, datetime] = {}
    for line in reversed(list(lines)):
        first = line.records[0]
        assert first.principal is not None
        seen, replaced = line.seen(arrivals), since.get(first.principal)
        if replaced is None or (seen is not None and seen >= replaced):
            living.append(line)
        if seen is not None and first.principal.proof is not Proof.OPERATOR:
            since[first.principal] = max(first.issued, replaced or first.issued)
    return living[::-1]


def _holder(held: list[Record], seen: datetime | None) -> Holder:
    principal = held[-1].principal
    assert principal is not None
    return Holder(principal, tuple(each.serial for each in held), seen, max(each.not_after for each in held))


def _joined(holders: Iterable[Holder]) -> list[Holder]:
    """One entry for each client, though it may have several lines."""
    by_principal: dict[Principal, Holder] = {}
    for each in holders:
        known = by_principal.get(each.principal)
        if known is not None:
            times = [time for time in (known.seen, each.seen) if time is not None]
            each = Holder(
                each.principal,
                known.serials + each.serials,
                max(times, default=None),
                max(known.not_after, each.not_after),
            )
        by_principal[each.principal] = each
    return list(by_principal.values())
