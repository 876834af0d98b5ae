"""The admin verbs for requests that wait: each decision is one call, and in the audit when that is answered."""

from pathlib import Path

import pytest

from rsocket_broker.admin.endpoint import Verb
from rsocket_broker.authority.requests import check_request
from rsocket_broker.claims import Claims
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.enrollment.mediums.qr_bundle import QrBundleMedium
from rsocket_broker.errors import ApplicationError, EnrollmentRefused
from rsocket_broker.listening.approvals import approval_verbs
from tests.enrollment.mediums.vouched import medium
from tests.enrollment.workshop import open_workshop


@pytest.mark.row("F-21")
async def test_who_waits_is_listed_and_decided(tmp_path: Path) -> None:
    with open_workshop(tmp_path / "home") as workshop:
        verbs = approval_verbs(workshop.enroller, workshop.authority.audit)
        approvals = workshop.enroller.approvals
        approvals._hold_s = 0
        driver = medium(QrBundleMedium, workshop.state, {"enabled": True})

        async def call(name: str, **params: object) -> object:
            verb = verbs[f"approvals.{name}"]
            assert isinstance(verb, Verb)
            found = verb.run(params)
            return found if isinstance(found, list) else await found  # type: ignore[misc]

        asked = [check_request(make_signing_request("org.example.demo").csr_pem) for _ in range(2)]
        for one in asked:
            with pytest.raises(EnrollmentRefused):
                await approvals.voucher(one, "org.example.demo", Claims(device="Phone"), "192.0.2.7", driver)
        listed = await call("list")
        assert isinstance(listed, list)
        assert [one["id"] for one in listed] == [one.key_fingerprint for one in asked]
        with pytest.raises(ApplicationError, match="--show-qr"):
            await call("approve", id=asked[0].key_fingerprint)
        approved = await call("approve", id=asked[0].key_fingerprint, show_key=True)
        assert isinstance(approved, dict)
        await call("refuse", id=asked[1].key_fingerprint)
        workshop.authority.audit.flush()
        noted = str([tuple(row) for row in workshop.state.read("SELECT * FROM audit")])
        assert "request approved" in noted
        assert "request refused" in noted
        assert approved["key"] not in noted, "the key is shown, and nowhere kept"
