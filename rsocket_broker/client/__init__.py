"""The client SDK: one call gives an app an enrolled, connected session with the broker."""

from rsocket_broker.client.app_plugin import AppPlugin, method
from rsocket_broker.client.child import connect_child
from rsocket_broker.client.connect import connect
from rsocket_broker.client.enroll import Upload, enroll
from rsocket_broker.client.folder import Enrolled
from rsocket_broker.client.line import Lease
from rsocket_broker.client.pairing import Pairing
from rsocket_broker.client.progress import Observer, Progress, Stage
from rsocket_broker.client.reconnect import Backoff
from rsocket_broker.client.session import Session
from rsocket_broker.errors import (
    ApplicationError,
    BrokerError,
    ConnectionClosed,
    EnrollmentRefused,
    Invalid,
    Rejected,
    RequestFailed,
    SetupRefused,
)
from rsocket_broker.payload import Payload

__all__ = [
    "AppPlugin",
    "ApplicationError",
    "Backoff",
    "BrokerError",
    "ConnectionClosed",
    "Enrolled",
    "EnrollmentRefused",
    "Invalid",
    "Lease",
    "Observer",
    "Pairing",
    "Payload",
    "Progress",
    "Rejected",
    "RequestFailed",
    "Session",
    "SetupRefused",
    "Stage",
    "Upload",
    "connect",
    "connect_child",
    "enroll",
    "method",
]
