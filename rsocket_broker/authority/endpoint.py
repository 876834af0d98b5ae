"""The endpoint's own key and certificate in a home: made when there is none that will do, for the CA that signs now."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Self

import attrs
from cryptography import x509

from rsocket_broker.authority import keys, server
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.inventory import Inventory, make_record
from rsocket_broker.authority.issue import Issuer, issue_leaf
from rsocket_broker.authority.profiles import BROKER, load_profile

_log = logging.getLogger(__name__)


@attrs.frozen(slots=True)
class ServerPair:
    """The endpoint's key, its certificate and that of the CA that signed it."""

    key: keys.SigningKey = attrs.field(repr=False)
    leaf: x509.Certificate
    issuer: x509.Certificate

    @property
    def due(self) -> datetime:
        """When it is to be made again, aware and in UTC."""
        return server.renewal_date(self.leaf)

    @classmethod
    def load(
        cls,
        home: CaHome,
        inventory: Inventory,
        certificate: x509.Certificate,
        signer: Callable[[], Issuer],
        hosts: Sequence[x509.GeneralName] | None,
        now: datetime,
    ) -> Self:
        """The pair of a home, under the CA `certificate`; a new one, by `signer`, when the one there will not do.

        `hosts` are the names that it must have; None keeps those it has. Needs the lock on the home.
        Raises HomeError and AuthorityError when a file is unsafe or the CA cannot sign.
        """
        key, chain = home.load_server_key(), home.load_server_chain()
        reason = server.problem(key, chain, certificate, hosts, now)
        if reason is not None:
            names = hosts if hosts is not None else server.alternative_names(chain[0]) if chain else []
            key, chain = _renew(home, inventory, key, signer(), names, now)
            _log.info("made a new certificate for the endpoint: %s", reason)
        assert key is not None
        return cls(key, chain[0], chain[1])


def _renew(
    home: CaHome,
    inventory: Inventory,
    key: keys.SigningKey | None,
    issuer: Issuer,
    hosts: Sequence[x509.GeneralName],
    now: datetime,
) -> tuple[keys.SigningKey, list[x509.Certificate]]:
    """A new certificate, for the key there is if there is one. The key is written first: a crash in between leaves a
    pair that does not fit, which the next start makes again."""
    profile = load_profile(BROKER)
    if key is None:
        assert profile.key is not None
        key = keys.make_key(profile.key)
        home.save_server_key(key)
    leaf = issue_leaf(profile, key.public_key(), hosts, issuer, x509.random_serial_number(), now)
    inventory.add_server(make_record(leaf, BROKER, issuer.generation, now))
    chain = [leaf, issuer.certificate]
    home.save_server_chain(chain)
    return key, chain
