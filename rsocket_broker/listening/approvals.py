"""The operator's end of requests that wait for a word of his: see them, let one in, turn one down."""

import asyncio
from collections.abc import Mapping

from rsocket_broker.admin.endpoint import Params, Stream, Verb
from rsocket_broker.audit import Audit
from rsocket_broker.enrollment.enroller import Enroller


def approval_verbs(enroller: Enroller, audit: Audit) -> Mapping[str, Verb | Stream]:
    """For the admin line. What was decided is in the audit, on the disk, when the answer comes."""

    async def approve(params: Params) -> dict[str, object]:
        described = enroller.approvals.approve(params["id"], can_show_key=params.get("show_key", False))
        await asyncio.to_thread(audit.flush)
        return described

    async def refuse(params: Params) -> dict[str, object]:
        described = enroller.approvals.refuse(params["id"])
        await asyncio.to_thread(audit.flush)
        return described

    return {
        "approvals.list": Verb(lambda params: enroller.approvals.list()),
        "approvals.approve": Verb(approve, {"id": str}, {"show_key": bool}),
        "approvals.refuse": Verb(refuse, {"id": str}),
    }
