"""Enforces the policy: who may call what, in every direction, for the sessions of one broker.

    Access           one per broker: the policy in force, and the hook that it asks
    SessionAccess    what one session may do: decided once for each method, kept until the policy changes

A child may do what it, and everybody above it up to the root, may do, within every scope on the way. Where a rule says
"ask", the hook is asked, and what comes meanwhile waits in its order.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

import attrs

from rsocket_broker import claims
from rsocket_broker.audit.events import Event
from rsocket_broker.errors import Invalid, Rejected
from rsocket_broker.identity import Identity
from rsocket_broker.policy.patterns import STAR
from rsocket_broker.policy.policy import Policy
from rsocket_broker.policy.rules import Decision, Direction, Effect, Facts, Group
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.routing.tasks import Tasks
from rsocket_broker.sessions.scope import allows
from rsocket_broker.sessions.tree import Node, NodeKind
from rsocket_broker.transports.base import Channel

if TYPE_CHECKING:
    from rsocket_broker.routing.hook import Hook

logger = logging.getLogger(__name__)

IDENTITY = "identity"
"""The plugin by which a client keeps its own certificate: always open to its holder, or a policy that forgets it would
lock everybody out when their certificates end."""

OWN_SESSION = ("sessions", frozenset({"logout", "introspect"}))
"""What everybody may ask of the session that they have: what it is, and its end."""

BUILT_IN = frozenset({IDENTITY, OWN_SESSION[0]})
"""Plugins that no app has a side of, whatever it announces: a name is no key to certificates and sessions."""

MAX_KEPT = 1024
"""Decisions kept of one session: a client has a handful of methods, and one that makes names up gains nothing."""
MAX_NAME = 256
"""Characters of a plugin and a method together. A route has no more; Flipper's JSON could name longer ones, of
megabytes that every rule is compared with, the hook is sent, and its answer is remembered under."""
MAX_PENDING = 64
"""Calls of one session that wait for the hook."""

TOO_LONG = f"A plugin and its method have up to {MAX_NAME} characters together."
CROWDED = "policy: too many calls of this client wait for a decision. Try again later."
UNDECIDED = "policy: this is being decided. Try again in a moment."

_CHANNELS = {Channel.TLS: "tls", Channel.WSS: "wss"}
_FILLER = "\ufffd"
"""A name that no method has, for what a pattern's star may stand for."""

Key = tuple[Direction, str, str]
"""Direction, plugin, method; for a relay the plugin is the other client."""

Note = Callable[..., None]
"""`Audit.note`."""


class Holder(Protocol):
    """The session, as this module needs it."""

    id: str
    lineage: tuple[Node, ...]
    announced: list[str]
    changed: Callable[[], object]

    @property
    def identity(self) -> Identity: ...

    @property
    def parent(self) -> Any: ...


@attrs.frozen(slots=True)
class Refusal:
    """Why a call is refused: for us, not for the peer."""

    facts: Facts
    decision: Decision | None
    """None: a scope says no."""

    @property
    def reason(self) -> str:
        return "the session's scope does not reach so far" if self.decision is None else self.decision.reason


def _nothing(*_: object, **__: object) -> None:
    """Stands in the place of an audit where there is none."""


class Access:
    """What is allowed now. `given` are the ids of the plugins that were named by `--plugin`."""

    def __init__(
        self, policy: Policy, *, given: Collection[str] = (), hook: "Hook | None" = None, note: Note = _nothing
    ) -> None:
        self.policy = policy
        self.hook = hook
        self.note = note
        self.version = 0
        """Changes with the policy: what was decided before may not hold now."""
        self.problem = ""
        """Why another policy, which the files have by now, is not in force."""
        self.refused = 0
        """Calls that were refused, in all."""
        self.tasks = Tasks()
        self.log = QuietLog(logger)
        self._given = frozenset(given)
        self._all: WeakSet[SessionAccess] = WeakSet()

    def of(self, session: Holder) -> "SessionAccess":
        """The access of a new session."""
        made = SessionAccess(self, session)
        self._all.add(made)
        above = session.parent
        while above is not None:
            above.access.add_below(made)
            above = above.parent
        return made

    def replace(self, policy: Policy, hook: "Hook | None") -> None:
        """Another policy holds from now on, for every call that comes. What is under way must be gone through by the
        caller, see `reapply`."""
        self.policy, self.hook = policy, hook
        self.version += 1
        for each in tuple(self._all):
            each.forget()
            each.changed()

    def facts(self, session: Holder, node: Node, direction: Direction, plugin: str, method: str) -> Facts:
        """The call as the rules see it, made by `node`: the session's own or one above it."""
        identity = session.identity
        principal = identity.principal
        relayed = direction is Direction.RELAY
        return Facts(
            app=principal.app_id,
            device=principal.device_id,
            proof=principal.proof.value,
            profile=identity.profile,
            method="" if relayed else f"{plugin}.{method}",
            direction=direction,
            channel=_CHANNELS.get(node.channel, "loopback"),
            kind=node.kind.value,
            user=node.user,
            to=plugin if relayed else "",
            groups=frozenset() if relayed else frozenset(self._groups(session, node, plugin)),
        )

    def _groups(self, session: Holder, node: Node, plugin: str) -> Iterator[Group]:
        if plugin in self._given:
            yield Group.GIVEN
        at: Holder | None = session
        while at is not None and at.lineage[0] is not node and at.lineage[0].id != node.id:
            at = at.parent
        if at is not None and plugin in at.announced and plugin not in BUILT_IN:
            yield Group.ANNOUNCED


class _Pending:
    """A decision that the hook is making, and the calls that wait for it, in their order."""

    __slots__ = ("allowed", "waiters")

    def __init__(self) -> None:
        self.allowed: bool | None = None
        self.waiters: list[asyncio.Future[bool]] = []

    def join(self) -> "asyncio.Future[bool]":
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self.allowed is None:
            self.waiters.append(waiter)
        else:
            waiter.set_result(self.allowed)
        return waiter

    def end(self, allowed: bool) -> None:
        if self.allowed is None:
            self.allowed = allowed
            for waiter in self.waiters:
                if not waiter.done():
                    waiter.set_result(allowed)


class SessionAccess:
    """What one session may do. Not for threads: it lives on the event loop."""

    __slots__ = ("__weakref__", "_access", "_allowed", "_below", "_judged", "_pending", "_refused", "_session", "out")

    def __init__(self, access: Access, session: Holder) -> None:
        self.out: set[tuple[str, str]] = set()
        """Plugin and method of calls to the client that are known to be allowed, for those in a hurry."""
        self._below: WeakSet[SessionAccess] | None = None
        """Of the sessions below this one, which may do no more than it may; most have none."""
        self._access = access
        self._session = session
        self._allowed: set[Key] = set()
        self._refused: dict[Key, Refusal] = {}
        self._pending: dict[Key, _Pending] = {}
        self._judged: dict[Key, list[Facts] | Refusal] = {}
        """Of relays, which one name may bring about by the dozen: what the rules say of each client of that name."""

    @property
    def version(self) -> int:
        """Changes with the policy."""
        return self._access.version

    def forget(self) -> None:
        """Nothing that was decided holds any more. What waits for the hook is told to try again."""
        self._allowed.clear()
        self._refused.clear()
        self._judged.clear()
        self.out.clear()
        pending, self._pending = self._pending, {}
        for each in pending.values():
            each.end(allowed=False)

    def add_below(self, other: "SessionAccess") -> None:
        """A session below this one has begun."""
        if self._below is None:
            self._below = WeakSet()
        self._below.add(other)

    def facts_changed(self) -> None:
        """The app has announced other plugins, or has another certificate: rules may depend on that, also for the
        sessions below."""
        for each in (self, *(self._below or ())):
            each.forget()
            each.changed()

    def changed(self) -> None:
        """Short cuts that were kept since a call was allowed are dropped."""
        self._session.changed()

    # --- deciding ----------------------------------------------------------------------------------------------------

    def check(self, direction: Direction, plugin: str, method: str) -> "Waiting | None":
        """None: it is allowed. Else what to wait for, since the hook must be asked. Raises Rejected, for the peer, and
        Invalid for a name without end."""
        key = direction, plugin, method
        if key in self._allowed:
            return None
        found = self._refused.get(key) or self._pending.get(key) or self._decide(key)
        if found is None:
            return None
        if isinstance(found, Refusal):
            self._tell(key, found)
            raise Rejected(words(*key))
        if len(found.waiters) >= MAX_PENDING:
            raise Rejected(CROWDED)
        return Waiting(found.join(), key)

    def allows(self, direction: Direction, plugin: str, method: str) -> bool | None:
        """The same as a plain answer, told to nobody; None: the hook would have to be asked."""
        key = direction, plugin, method
        judged = self._judged.get(key)
        if judged is None:
            judged = self._judge(key)
            if direction is Direction.RELAY:
                if len(self._judged) >= MAX_KEPT:
                    self._judged.clear()
                self._judged[key] = judged
        if isinstance(judged, Refusal):
            return False
        return self._heard(judged)

    def is_fixed(self, direction: Direction, plugin: str, method: str) -> bool:
        """Whether it stays allowed until the policy changes, so that a short cut may be kept."""
        return (direction, plugin, method) in self._allowed

    async def check_out(self, plugin: str, method: str) -> None:
        """Before a call to the client. Raises Rejected; returns when it is allowed."""
        waiting = self.check(Direction.OUT, plugin, method)
        if waiting is not None:
            await waiting.over()
        elif (Direction.OUT, plugin, method) in self._allowed:
            self.out.add((plugin, method))

    def may_talk(self, plugin: str, methods: Iterable[str]) -> bool:
        """Whether any call between the client and a plugin might be allowed; `methods` are those that the plugin has.

        Methods of the app's side are known to nobody, so those that rules name are tried, and one that none names.
        """
        tried = {*methods, _FILLER, *self._named(plugin)}
        return any(
            self.allows(direction, plugin, name) is not False
            for name in tried
            for direction in (Direction.IN, Direction.OUT)
        )

    def _named(self, plugin: str) -> Iterator[str]:
        """Methods of a plugin that fit the patterns of rules, as far as they begin as it does."""
        dots = plugin.count(".") + 1
        for rule in self._access.policy.rules:
            if rule.effect is not Effect.DENY:
                for pattern in rule.method:
                    text = pattern.text.replace(STAR, _FILLER)
                    if text.startswith(f"{plugin}."):
                        yield text[len(plugin) + 1 :]
                    elif text.count(".") >= dots:
                        yield text.split(".", dots)[dots]

    def _judge(self, key: Key, own: Facts | None = None) -> "list[Facts] | Refusal":
        """What the session and all above it may do: why not, or what the hook must be asked (mostly nothing).

        `own` is the call as the session's own, where that is known.
        """
        direction, plugin, method = key
        access, session = self._access, self._session
        asked: list[Facts] = []
        if _always(key, certified=len(session.lineage) == 1 and session.identity.principal.certified):
            return asked
        for node in session.lineage:
            facts = access.facts(session, node, direction, plugin, method) if own is None else own
            own = None
            if direction is not Direction.OUT and not allows(node.scope, facts.method):
                return Refusal(facts, None)
            decision = access.policy.decide(facts)
            if decision.effect is Effect.DENY or (decision.effect is Effect.ASK and access.hook is None):
                return Refusal(facts, decision)
            if decision.effect is Effect.ASK:
                asked.append(facts)
        return asked

    def _heard(self, asked: list[Facts]) -> bool | None:
        """What the hook has said of all of these; None: not of all yet."""
        hook = self._access.hook
        said = [None if hook is None else hook.known(facts) for facts in asked]
        if False in said:
            return False
        return None if None in said else True

    def _decide(self, key: Key) -> "Refusal | _Pending | None":
        if key[0] is not Direction.RELAY and len(key[1]) + len(key[2]) > MAX_NAME:
            raise Invalid(TOO_LONG)
        own = self._facts(key)
        judged = self._judge(key, own)
        room = len(self._allowed) + len(self._refused) < MAX_KEPT
        if isinstance(judged, Refusal):
            if room:
                self._refused[key] = judged
            return judged
        if not judged:
            if room:
                self._allowed.add(key)
                self._note_allowed(own)
            return None
        return self._asked(key, judged)

    # --- asking ------------------------------------------------------------------------------------------------------

    def _asked(self, key: Key, facts: list[Facts]) -> "Refusal | _Pending | None":
        heard = self._heard(facts)
        if heard is False:
            return Refusal(facts[0], self._access.policy.decide(facts[0]))
        if heard:
            return None
        if len(self._pending) >= MAX_PENDING:
            raise Rejected(CROWDED)
        pending = self._pending[key] = _Pending()
        self._access.tasks.spawn(self._ask(key, facts, pending))
        return pending

    async def _ask(self, key: Key, facts: list[Facts], pending: _Pending) -> None:
        hook = self._access.hook
        allowed = False  # also for who is stopped in the middle, by whatever
        try:
            said = hook is not None
            for each in facts:
                said = said and hook is not None and await hook.ask(each)
            allowed = said
        finally:
            pending.end(allowed)
            # Whoever waits goes first: only then may later ones pass without waiting.
            asyncio.get_running_loop().call_soon(self._settled, key, pending)
        if allowed:
            self._note_allowed(self._facts(key))
        else:
            self._tell(key, Refusal(facts[0], self._access.policy.decide(facts[0])))

    def _settled(self, key: Key, pending: _Pending) -> None:
        if self._pending.get(key) is pending:
            del self._pending[key]

    # --- telling -----------------------------------------------------------------------------------------------------

    def _facts(self, key: Key) -> Facts:
        """The call as the session's own."""
        return self._access.facts(self._session, self._session.lineage[0], *key)

    def _note_allowed(self, facts: Facts) -> None:
        self._access.note(Event.CALL_ALLOWED, session=self._session.id, **recorded(facts))

    def _tell(self, key: Key, refusal: Refusal) -> None:
        self._access.refused += 1
        decision = refusal.decision
        rule = None if decision is None or decision.rule is None else decision.rule.id
        layer = None if decision is None or decision.layer is None else decision.layer.level.value
        about = recorded(refusal.facts) | {"rule": rule, "layer": layer, "reason": refusal.reason}
        self._access.note(Event.CALL_REFUSED, session=self._session.id, **about)
        who, what = self._session.identity.principal, shown(*key)
        words = "%s (%s) is refused %s: %s"
        self._access.log.write(logging.INFO, "refused calls", words, self._session.id, who, what, refusal.reason)


def _always(key: Key, *, certified: bool) -> bool:
    """Whether no rule is asked, since a policy that forgot it would shut out those whom it lets in. `certified` says
    that the session has a certificate of its own."""
    direction, plugin, method = key
    if direction is Direction.RELAY:
        return False
    if plugin == IDENTITY:
        return certified
    return direction is Direction.IN and plugin == OWN_SESSION[0] and method in OWN_SESSION[1]


def always_open(facts: Facts) -> bool:
    """Whether a session may make this call of its own whatever the rules say."""
    plugin, _, method = facts.method.rpartition(".")
    return _always((facts.direction, plugin, method), certified=facts.kind == NodeKind.DEVICE.value)


@attrs.frozen(slots=True)
class Waiting:
    """A call whose decision is being made elsewhere."""

    _answer: "asyncio.Future[bool]"
    _key: Key

    async def over(self) -> None:
        """Returns when the call is allowed. Raises Rejected."""
        if not await self._answer:
            raise Rejected(words(*self._key))

    def then(self, do: Callable[[Rejected | None], None]) -> None:
        """Calls `do` when it is decided, with the refusal if there is one; in the order of the calls that wait."""
        self._answer.add_done_callback(lambda answer: do(None if answer.result() else Rejected(words(*self._key))))

    def drop(self) -> None:
        """Nobody waits for it."""
        self._answer.cancel()


def recorded(facts: Facts) -> dict[str, object]:
    """A call as the audit has it, and as `facts_of` reads it back."""
    return {
        "app_id": facts.app,
        "device_id": facts.device,
        "proof": facts.proof,
        "profile": facts.profile,
        "method": facts.method,
        "direction": facts.direction.value,
        "channel": facts.channel,
        "kind": facts.kind,
        "user": facts.user,
        "to": facts.to,
        "plugin": sorted(group.value for group in facts.groups),
    }


def facts_of(record: Any) -> Facts:
    """The call that a record of the audit tells of. Raises ValueError, TypeError or KeyError for one that is none."""
    return Facts(
        app=record["app_id"],
        device=record["device_id"],
        proof=record["proof"],
        profile=record["profile"],
        method=record["method"],
        direction=Direction(record["direction"]),
        channel=record["channel"],
        kind=record["kind"],
        user=record["user"],
        to=record["to"],
        groups=frozenset(Group(each) for each in record["plugin"]),
    )


def shown(direction: Direction, plugin: str, method: str) -> str:
    """A call in few words, fit for a log."""
    return claims.shown(f"{direction.value} {plugin}{'.' if method else ''}{method}", MAX_NAME)


def words(direction: Direction, plugin: str, method: str) -> str:
    """What a peer, or a plugin, is told of a refusal: no rule, since that is the operator's affair."""
    name = f"{plugin}.{method}"[:100]
    if direction is Direction.OUT:
        return f"policy: {name} may not be called on this client. `rsocket-broker policy explain` says why."
    return f"policy: this client may not call {name}. Ask the operator of the broker to allow it."
