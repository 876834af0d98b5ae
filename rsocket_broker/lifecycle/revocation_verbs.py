"""What the command line may ask of a running broker about revocation, and the lists that others may fetch."""

import asyncio
from collections.abc import Callable

from rsocket_broker.admin.endpoint import Params, Stream, Verb
from rsocket_broker.authority import Authority
from rsocket_broker.authority.crl import to_der, to_pem
from rsocket_broker.authority.revocation import Block, By, Selector
from rsocket_broker.errors import Invalid
from rsocket_broker.lifecycle.revocation import Revoker
from rsocket_broker.moments import timestamp
from rsocket_broker.transports.http import Content, Page

PEM_PATH = "/crl"
"""The lists of all trusted generations, the newest first."""
DER_PATH = "/crl.der"
"""The list of the newest generation alone: DER has room for one."""


def verbs(revoker: Revoker, authority: Authority) -> dict[str, Verb | Stream]:
    """The table for AdminEndpoint."""

    async def revoke(params: Params) -> dict[str, object]:
        receipt = await revoker.revoke(_named(revoker, params), params.get("reason", ""))
        return receipt.describe()

    async def unblock(params: Params) -> dict[str, object]:
        return describe_block(await revoker.unblock(_named(revoker, params)))

    async def crl(params: Params) -> dict[str, object]:
        return {"pem": (await asyncio.to_thread(_pem, authority)).decode("ascii")}

    return {
        "ca.revoke": Verb(revoke, {"by": str, "value": str}, {"reason": str}),
        "ca.unblock": Verb(unblock, {"by": str, "value": str}),
        "ca.blocks": Verb(lambda params: [describe_block(block) for block in authority.revocations.blocks()]),
        "ca.crl": Verb(crl),
    }


def pages(authority: Authority) -> dict[str, Page]:
    """For the loopback HTTP port, by path."""
    return {
        PEM_PATH: _page("application/x-pem-file", lambda: _pem(authority)),
        DER_PATH: _page("application/pkix-crl", lambda: to_der(authority.revocation_lists()[0])),  # RFC 5280, 4.2.1.13
    }


def describe_block(block: Block) -> dict[str, object]:
    """As JSON."""
    selector: Selector = block.selector
    return {
        "by": selector.by.value,
        "app_id": selector.app_id or None,
        "device_id": selector.device_id or None,
        "since": timestamp(block.since),
        "reason": block.reason,
    }


def _page(kind: str, make: Callable[[], bytes]) -> Page:
    async def content() -> Content:
        return kind, await asyncio.to_thread(make)  # a long list takes a tenth of a second

    return content


def _pem(authority: Authority) -> bytes:
    return to_pem(authority.revocation_lists())


def _named(revoker: Revoker, params: Params) -> Selector:
    try:
        by = By(params["by"])
    except ValueError:
        raise Invalid(f"by is one of {', '.join(one.value for one in By)}") from None
    return revoker.named(by, params["value"])
