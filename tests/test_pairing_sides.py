"""Two sides that a person lets trust each other, and everything that somebody who stands between them can try."""

import base64
import hashlib
import hmac
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rsocket_broker.errors import ConfigurationError, EnrollmentRefused
from rsocket_broker.pairing_sides import (
    APP,
    BROKER,
    DIGITS,
    Act,
    AppSide,
    BrokerSide,
    Offer,
    Opening,
    Paired,
    State,
    fingerprint,
    new_code,
)

KEY = X25519PrivateKey.generate()
CODE, SECRET = new_code()
OFFER = Offer(
    host="broker.example",
    insecure_port=8089,
    secure_port=8088,
    code=CODE,
    secret=SECRET,
    fingerprint=fingerprint(KEY.public_key().public_bytes_raw()),
)
PAIRED = Paired("paired-1", b"the certificate", b"the anchors")
Message = Mapping[str, object]


def app_of(offer: Offer = OFFER, csr: str = "the request") -> AppSide:
    return AppSide(offer, csr=csr, app_id="org.example.demo", device="Phone", os="Android")


def broker_of(offer: Offer = OFFER, key: X25519PrivateKey = KEY) -> BrokerSide:
    return BrokerSide(offer.code, offer.secret, key)


def up_to_digits(app: AppSide, broker: BrokerSide) -> str:
    return app.compare(broker.reveal(app.reveal(broker.begin(app.begin()))))


@pytest.mark.row("D-10", "M-5")
def test_both_show_the_same_digits_and_the_certificate_arrives() -> None:
    app, broker = app_of(), broker_of()
    digits = up_to_digits(app, broker)
    assert digits == broker.digits
    assert len(digits.replace(" ", "")) == DIGITS and digits.replace(" ", "").isdigit()
    assert broker.opening is not None
    assert (broker.opening.csr, broker.opening.app_id) == ("the request", "org.example.demo")
    broker.app_confirms(app.confirm())
    assert not broker.confirmed
    broker.operator_confirms()
    assert broker.confirmed
    assert app.complete(broker.seal(PAIRED)) == PAIRED


@pytest.mark.row("D-10")
def test_the_broker_may_say_yes_first() -> None:
    app, broker = app_of(), broker_of()
    up_to_digits(app, broker)
    broker.operator_confirms()
    broker.app_confirms(app.confirm())
    assert app.complete(broker.seal(PAIRED)) == PAIRED


@pytest.mark.row("D-10", "M-5")
@pytest.mark.parametrize("yes", [(), ("app",), ("operator",)])
def test_nothing_is_sealed_unless_both_have_said_yes(yes: tuple[str, ...]) -> None:
    app, broker = app_of(), broker_of()
    up_to_digits(app, broker)
    if "app" in yes:
        broker.app_confirms(app.confirm())
    if "operator" in yes:
        broker.operator_confirms()
    with pytest.raises(EnrollmentRefused, match="pairing: "):
        broker.seal(PAIRED)


@pytest.mark.row("D-10", "M-5")
def test_a_wrong_code_comes_to_nothing() -> None:
    code, secret = new_code()
    app, broker = app_of(attrs.evolve(OFFER, secret=secret)), broker_of()
    with pytest.raises(EnrollmentRefused, match="the code is wrong"):
        up_to_digits(app, broker)
    assert broker.state is State.FAILED
    with pytest.raises(EnrollmentRefused, match="nothing to compare"):
        _ = broker.digits
    with pytest.raises(EnrollmentRefused):  # even with the right secret, a code of another pairing
        up_to_digits(app_of(attrs.evolve(OFFER, code=code)), broker_of())


@pytest.mark.row("D-10")
def test_another_brokers_key_is_noticed_before_the_app_says_anything() -> None:
    app = app_of()
    impostor = broker_of(key=X25519PrivateKey.generate())
    with pytest.raises(EnrollmentRefused, match="somebody may stand between"):
        app.reveal(impostor.begin(app.begin()))
    assert app.state is State.FAILED


# ---- who stands between ------------------------------------------------------------------------------------------


class Between:
    """Has everything: the operator's offer (seen over a shoulder), the line, and has given the app an offer of its own.

    So neither code nor fingerprint helps, and only the digits are left. It pairs with each side in its own name.
    """

    def __init__(self) -> None:
        self.key = X25519PrivateKey.generate()
        self.offer = attrs.evolve(OFFER, fingerprint=fingerprint(self.key.public_key().public_bytes_raw()))

    def run(self, app: AppSide, broker: BrokerSide, csr: str = "its own request") -> tuple[str, str]:
        """What the app shows, and what the broker shows."""
        towards_app = BrokerSide(self.offer.code, self.offer.secret, self.key)
        towards_broker = AppSide(OFFER, csr=csr, app_id="org.example.demo", device="Phone", os="Android")
        broker_first = broker.begin(towards_broker.begin())
        shown_by_app = app.compare(towards_app.reveal(app.reveal(towards_app.begin(app.begin()))))
        towards_broker.compare(broker.reveal(towards_broker.reveal(broker_first)))
        return shown_by_app, broker.digits


@pytest.mark.row("D-10")
def test_who_stands_between_with_the_code_and_all_makes_both_sides_show_different_digits() -> None:
    for csr in ("its own request", "the request"):
        between = Between()
        by_app, by_broker = between.run(app_of(between.offer), broker_of(), csr)
        assert by_app != by_broker


@pytest.mark.row("D-10")
def test_digits_depend_on_everything_that_was_said() -> None:
    """On each key, nonce and word apart: nothing can be changed and leave the digits as they were."""
    app_key, app_nonce, broker_nonce = X25519PrivateKey.generate(), b"a" * 32, b"b" * 32

    def digits(**changes: Any) -> str:
        made = {"csr": "r", "app_id": "a", "device": "d", "os": "o", "key": app_key, "nonce": app_nonce}
        broker_nonce_now = changes.pop("broker_nonce", broker_nonce)
        broker_key = changes.pop("broker_key", KEY)
        offer = attrs.evolve(OFFER, fingerprint=fingerprint(broker_key.public_key().public_bytes_raw()))
        side = AppSide(offer, **{**made, **changes})
        return up_to_digits(side, BrokerSide(CODE, SECRET, broker_key, broker_nonce_now))

    plain = digits()
    assert digits() == plain
    other = X25519PrivateKey.generate()
    for change in (
        {"csr": "s"},
        {"app_id": "b"},
        {"device": "e"},
        {"os": "p"},
        {"key": other},
        {"nonce": b"c" * 32},
        {"broker_key": other},
        {"broker_nonce": b"d" * 32},
    ):
        assert digits(**change) != plain, change


@pytest.mark.row("D-10")
def test_nobody_can_search_for_digits() -> None:
    """Towards the broker: what it is told is fixed before it shows its nonce, and each nonce is a try that it sees.

    Towards the app: what it is told is fixed before it opens its commitment, which hides everything.
    """
    app, broker = app_of(), broker_of()
    committed = app.begin()
    answer = broker.begin(committed)
    assert set(answer) == {"key", "commitment"}, "no nonce before the app's side is open"
    assert set(committed) == {"method", "code", "commitment"}
    other = app_of()
    other.begin()
    with pytest.raises(EnrollmentRefused, match="not what it has committed to"):
        broker.reveal(other.reveal(answer))
    app, broker = app_of(), broker_of()
    answer = dict(broker.reveal(app.reveal(broker.begin(app.begin()))))
    answer["nonce"] = base64.b64encode(b"x" * 32).decode()
    with pytest.raises(EnrollmentRefused, match="the broker shows is not what it has committed to"):
        app.compare(answer)


def test_openings_are_never_ambiguous() -> None:
    """Moving text from one field to the next makes another commitment."""
    made = [
        Opening(key=b"k", nonce=b"n", csr=csr, app_id=app_id, device="d", os="o").commitment("c")
        for csr, app_id in (("ab", "c"), ("a", "bc"), ("abc", ""))
    ]
    assert len(set(made)) == 3


FIELDS = ("code", "commitment", "key", "nonce", "csr", "app_id", "device", "os", "proof", "confirmation", "sealed")


def swapped(value: object, how: int) -> object:
    text = str(value)
    if how == 0:
        return text[:-6] + ("AAAAA=" if not text.endswith("AAAAA=") else "BBBBB=")
    return {1: "", 2: None, 3: 7, 4: text + text, 5: text[::-1]}[how]


@pytest.mark.row("D-10", "M-5")
@given(st.integers(0, 5), st.sampled_from(FIELDS), st.integers(0, 5))
def test_whatever_is_changed_on_the_way_nothing_false_is_taken(where: int, field: str, how: int) -> None:
    """One message of the six is changed in one field. Either somebody notices, or the digits differ, or all is true."""
    app, broker, number = app_of(), broker_of(), itertools.count()

    def passed(message: Message) -> Message:
        if next(number) != where or field not in message:
            return message
        changed: dict[str, object] = json.loads(json.dumps({**message, field: swapped(message[field], how)}))
        return changed

    try:
        shown = app.compare(passed(broker.reveal(passed(app.reveal(passed(broker.begin(passed(app.begin()))))))))
        if shown != broker.digits:
            return  # the person says no
        broker.operator_confirms()
        broker.app_confirms(passed(app.confirm()))
        found = app.complete(passed(broker.seal(PAIRED)))
    except EnrollmentRefused as refusal:
        assert refusal.step == "pairing" and refusal.remedy
        return
    assert found == PAIRED
    assert broker.opening is not None and broker.opening.csr == "the request"


@pytest.mark.row("D-10")
def test_another_anchor_cannot_be_slipped_in() -> None:
    """Not even by somebody who knows the code and has heard everything: the seal needs one of the two private keys."""
    app, broker, other_app, other = app_of(), broker_of(), app_of(), broker_of()
    for side, its in ((app, broker), (other_app, other)):
        up_to_digits(side, its)
        its.operator_confirms()
        its.app_confirms(side.confirm())
    false = Paired("paired-1", b"the certificate", b"another's anchor")
    with pytest.raises(EnrollmentRefused, match="not from the broker that was paired with"):
        app.complete(other.seal(false))


@pytest.mark.row("D-10")
def test_a_key_that_gives_everybody_the_same_secret_is_none() -> None:
    weak = Offer.parse(OFFER.text())
    app = app_of(attrs.evolve(weak, fingerprint=fingerprint(bytes(32))))
    app.begin()
    commitment = base64.b64encode(b"c" * 32).decode()
    with pytest.raises(EnrollmentRefused, match="key is none"):
        app.reveal({"key": base64.b64encode(bytes(32)).decode(), "commitment": commitment})


# ---- the tables --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [APP, BROKER], ids=["app", "broker"])
def test_nothing_leads_out_of_the_end_and_all_acts_are_used(table: Mapping[tuple[State, Act], State]) -> None:
    assert not [state for state, _ in table if state in (State.DONE, State.FAILED)]
    reached = {State.NEW, *table.values()}
    assert {state for state, _ in table} < reached


class BrokersTurns(RuleBasedStateMachine):
    """Messages of a good app in any order, and any number of times: the broker seals once, after both have said yes."""

    def __init__(self) -> None:
        super().__init__()
        self.app, self.broker = app_of(), broker_of()
        self.messages: list[Message] = [self.app.begin()]
        self.yes = {"app": False, "operator": False}
        self.sealed = 0

    def _try(self, act: Callable[[], Message | None]) -> None:
        before = self.broker.state
        try:
            answer = act()
        except EnrollmentRefused:
            assert self.broker.state is State.FAILED or before is State.FAILED
            return
        if before is State.NEW and answer is not None:
            self.messages.append(self.app.reveal(answer))
        elif before is State.BEGUN and answer is not None:
            self.app.compare(answer)
            self.messages.append(self.app.confirm())

    @rule()
    def begin(self) -> None:
        self._try(lambda: self.broker.begin(self.messages[0]))

    @precondition(lambda self: len(self.messages) > 1)
    @rule()
    def reveal(self) -> None:
        self._try(lambda: self.broker.reveal(self.messages[1]))

    @precondition(lambda self: len(self.messages) > 2)
    @rule()
    def confirm(self) -> None:
        def act() -> None:
            self.broker.app_confirms(self.messages[2])
            self.yes["app"] = True

        self._try(act)

    @rule()
    def operator(self) -> None:
        def act() -> None:
            self.broker.operator_confirms()
            self.yes["operator"] = True

        self._try(act)

    @rule()
    def seal(self) -> None:
        def act() -> None:
            self.broker.seal(PAIRED)
            self.sealed += 1

        self._try(act)

    @invariant()
    def sealed_once_and_with_leave(self) -> None:
        assert self.sealed <= 1
        if self.sealed:
            assert all(self.yes.values())


TestBrokersTurns = pytest.mark.row("D-10")(BrokersTurns.TestCase)


# ---- the offer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "192.0.2.7", "2001:db8::1", "broker.example"])
def test_an_offer_survives_its_text(host: str) -> None:
    offer = attrs.evolve(OFFER, host=host)
    assert Offer.parse(offer.text()) == offer
    assert SECRET not in repr(offer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://example.org/",
        OFFER.text()[:-1],
        OFFER.text() + "A" * 2000,
        OFFER.text().replace("v=1", "v=2"),
        OFFER.text().replace("p=8089", "p=0"),
        OFFER.text().replace("s=8088", "s=x"),
        OFFER.text().replace("h=broker.example", "h=a%20b"),
        OFFER.text().replace(f"c={CODE}", "c=short"),
        OFFER.text().replace(SECRET, SECRET[:-2]),
        OFFER.text().replace(SECRET, "é" + SECRET[1:]),
    ],
)
def test_what_is_no_offer_is_named_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no text for pairing") as caught:
        Offer.parse(text)
    assert SECRET[:-2] not in caught.value.public


@given(st.text(max_size=300))
def test_any_text_is_an_offer_or_an_error(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Offer.parse("rsocket-broker:pair?" + text)


# ---- by the book -------------------------------------------------------------------------------------------------


@pytest.mark.row("D-10")
def test_a_client_written_from_the_reference_of_the_wire_is_paired() -> None:
    """What docs/reference/wire.md says, with a library for nothing but the primitives."""
    purpose = b"rsocket_broker pairing 1\0"

    def lp(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    def h(role: bytes, *parts: bytes) -> bytes:
        return hashlib.sha256(lp(purpose, role, *parts)).digest()

    def b64(data: bytes) -> str:
        return base64.b64encode(data).decode()

    def derived(role: bytes) -> bytes:
        return HKDF(hashes.SHA256(), 32, transcript, purpose + role).derive(secret)

    fields = dict(part.split("=") for part in OFFER.text().partition("?")[2].split("&"))
    number, _, code_secret = fields["c"].partition(".")
    code_key = base64.urlsafe_b64decode(code_secret + "==")
    key, nonce, words = X25519PrivateKey.generate(), b"n" * 32, ("the request", "org.example.demo", "Phone", "Android")
    own = key.public_key().public_bytes_raw()
    opening = lp(own, nonce, *(word.encode() for word in words))
    broker = broker_of()

    begun = broker.begin({"commitment": b64(h(b"commitment", number.encode(), opening))})
    its_key, its_commitment = (base64.b64decode(str(begun[name])) for name in ("key", "commitment"))
    assert base64.urlsafe_b64encode(h(b"fingerprint", its_key)).rstrip(b"=").decode() == fields["k"]
    said = h(b"said", number.encode(), its_key, its_commitment, opening)
    proof = hmac.digest(code_key, lp(purpose, b"code", b"app", said, b""), "sha256")
    named = dict(zip(("csr", "app_id", "device", "os"), words, strict=True))
    shown = broker.reveal({"key": b64(own), "nonce": b64(nonce), "proof": b64(proof), **named})
    its_nonce = base64.b64decode(str(shown["nonce"]))
    assert h(b"nonce", its_nonce) == its_commitment
    transcript = h(b"transcript", said, its_nonce)
    its_proof = hmac.digest(code_key, lp(purpose, b"code", b"broker", said, transcript), "sha256")
    assert shown["proof"] == b64(its_proof)
    digits = int.from_bytes(h(b"digits", transcript)[:16], "big") % 10**8
    assert broker.digits.replace(" ", "") == f"{digits:08}"

    secret = key.exchange(X25519PublicKey.from_public_bytes(its_key))
    broker.operator_confirms()
    broker.app_confirms({"confirmation": b64(hmac.digest(derived(b"app confirms"), transcript, "sha256"))})
    sealed = base64.b64decode(str(broker.seal(PAIRED)["sealed"]))
    plain = ChaCha20Poly1305(derived(b"broker seals")).decrypt(bytes(12), sealed, transcript)
    assert json.loads(plain) == {"deviceId": "paired-1", "certificate": "the certificate", "trust": "the anchors"}
