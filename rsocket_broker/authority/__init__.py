"""The certificate authority. Other packages use `Authority` and the values that it hands out, nothing else."""

from rsocket_broker.authority.authority import Authority
from rsocket_broker.authority.inventory import Record, Status
from rsocket_broker.authority.issuing import Issued
from rsocket_broker.authority.requests import CheckedRequest
from rsocket_broker.authority.verify import Finding

__all__ = ["Authority", "CheckedRequest", "Finding", "Issued", "Record", "Status"]
