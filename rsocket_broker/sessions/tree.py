"""The tree of sessions: who was let in by whom, until when, and for what. Time is passed in, as aware datetimes.

A root is the session of a client with a certificate. Whoever has a session may make another one below it, for a page,
a tool or a plugin. Whatever limits the upper one limits the lower: a child ends with its parent, or before it; its
scope lies within its parent's, and its rate is no higher. Nothing goes the other way. A client that has proved nothing
is a root too, and nothing grows on that.

The tree is kept sound by what may be put into it. Walks through it are safe all the same for links that make a ring:
each node is visited once.
"""

import enum
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import attrs

from rsocket_broker.errors import ApplicationError, Rejected
from rsocket_broker.sessions.scope import Scope, within
from rsocket_broker.transports.base import Channel

MAX_DEPTH = 8
"""Generations below a root: a page that lets in a tool is two, and more than a few are a runaway."""
MAX_CHILDREN = 64
"""Children of one session: a desktop app with the pages of a working day."""
MAX_BELOW_ROOT = 256
"""Descendants of one root, so that no client takes the places of all."""
MAX_NODES = 10_000
"""Children in all, with or without a line: as many as there may be sessions."""
SLACK = 64
"""Ends of sessions that have ended before, kept among those to come: they are cleared when they are the most."""


class NodeKind(enum.Enum):
    """What a session is for. DEVICE has a certificate; it, and UNVERIFIED, alone stand at a root."""

    DEVICE = "device"
    UNVERIFIED = "unverified"
    """A browser or Node app that has proved nothing. Nothing stands below it."""
    PLUGIN = "plugin"
    WEB = "web"
    CLI = "cli"


ROOTS = frozenset({NodeKind.DEVICE, NodeKind.UNVERIFIED})


@attrs.frozen(slots=True, kw_only=True)
class Node:
    """One session in the tree. `since` and `expires` are aware datetimes; `parent` is the id of the node above.

    `channel` is the one on which it may be opened. `scope` None: whatever its parent may ask. `rate` is in requests a
    second, None where there is no limit. `user` is "" where it is nobody's in particular. `device_id`, `name` and
    `platform` are what its maker calls it, for display.
    """

    id: str
    kind: NodeKind
    channel: Channel
    since: datetime
    expires: datetime
    parent: str | None = None
    scope: Scope | None = None
    rate: float | None = None
    user: str = ""
    device_id: str = ""
    name: str = ""
    platform: str = ""


@attrs.frozen(slots=True, kw_only=True)
class Wish:
    """What a new child is to be; the tree gives it no more than its parent has. Fields as in Node."""

    kind: NodeKind
    channel: Channel
    expires: datetime
    scope: Scope | None = None
    rate: float | None = None
    user: str = ""
    device_id: str = ""
    name: str = ""
    platform: str = ""


@attrs.frozen(slots=True)
class TreeLimits:
    """How far a tree may grow."""

    depth: int = MAX_DEPTH
    children: int = MAX_CHILDREN
    below_root: int = MAX_BELOW_ROOT
    total: int = MAX_NODES


class Tree:
    """The live sessions and their links. Not thread-safe: it lives on the event loop."""

    def __init__(self, limits: TreeLimits | None = None) -> None:
        self._limits = limits or TreeLimits()
        self._nodes: dict[str, Node] = {}
        self._children: dict[str, dict[str, None]] = {}
        """Of each node, oldest first."""
        self._below: Counter[str] = Counter()
        """Descendants of each root."""
        self._total = 0
        """Children in all."""
        self._due: list[tuple[datetime, str]] = []
        """A heap of when children end; those that have ended before stay in it until then."""

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        """Oldest first, and so parents before their children."""
        return iter(tuple(self._nodes.values()))

    def get(self, node_id: str) -> Node | None:
        return self._nodes.get(node_id)

    def lineage(self, node_id: str) -> tuple[Node, ...]:
        """The node, its parent, and so on to the root. Empty when it, or one of those above it, is not live."""
        found: dict[str, Node] = {}
        at: str | None = node_id
        while at is not None:
            node = self._nodes.get(at)
            if node is None or at in found:
                return ()
            found[at] = node
            at = node.parent
        return tuple(found.values())

    def children(self, node_id: str) -> list[Node]:
        """Those right below, oldest first."""
        return [self._nodes[one] for one in self._children.get(node_id, ())]

    def descendants(self, node_id: str) -> list[Node]:
        """All below a node, children before their parents."""
        return [self._nodes[one] for one in below(self._children, node_id)[:-1]]

    def of_user(self, user: str) -> list[Node]:
        """The sessions that are bound to a user, oldest first."""
        return [node for node in self._nodes.values() if user and node.user == user]

    # --- growing -----------------------------------------------------------------------------------------------------

    def add_root(self, node: Node) -> None:
        """A client with a certificate was let in."""
        self._nodes[node.id] = node

    def renew_root(self, node_id: str, expires: datetime) -> None:
        """The client has another certificate now. What was made below it keeps its own end."""
        self._nodes[node_id] = attrs.evolve(self._nodes[node_id], expires=expires)

    def add_child(self, node_id: str, parent_id: str, wish: Wish, now: datetime) -> Node:
        """Make a child of a live session, cut to what that may do itself.

        Raises ApplicationError where nothing would be left of the wish, Rejected where a limit is reached.
        """
        lineage = self.lineage(parent_id)
        if not lineage or any(node.expires <= now for node in lineage):
            raise ApplicationError("The session that was to be the parent has ended.")
        if lineage[-1].kind is NodeKind.UNVERIFIED:
            raise ApplicationError("A session without a certificate vouches for nobody: no other is made below it.")
        self._check_room(lineage)
        node = _cut(node_id, lineage[0], wish, now)
        self._nodes[node_id] = node
        self._children.setdefault(parent_id, {})[node_id] = None
        self._below[lineage[-1].id] += 1
        self._total += 1
        self._note_end(node)
        return node

    def _note_end(self, node: Node) -> None:
        if len(self._due) > 2 * self._total + SLACK:
            self._due = [(one.expires, one.id) for one in self._nodes.values() if one.parent is not None]
            heapq.heapify(self._due)
            return
        heapq.heappush(self._due, (node.expires, node.id))

    def _check_room(self, lineage: Sequence[Node]) -> None:
        limits, parent, root = self._limits, lineage[0].id, lineage[-1].id
        if len(lineage) > limits.depth:
            raise Rejected(f"There are {limits.depth} generations of sessions above already, which is the limit.")
        if len(self._children.get(parent, ())) >= limits.children:
            raise Rejected(f"The session has {limits.children} children, which is the limit. End one of them.")
        if self._below[root] >= limits.below_root:
            raise Rejected(f"There are {limits.below_root} sessions below {root}, which is the limit. End one of them.")
        if self._total >= limits.total:
            raise Rejected(f"This broker keeps {limits.total} child sessions, which is its limit in all.")

    # --- shrinking ---------------------------------------------------------------------------------------------------

    def revoke(self, node_id: str) -> list[Node]:
        """End a session and all below it. Returns those that have ended, children first; none if it had already."""
        if node_id not in self._nodes:
            return []
        if node_id not in self._children and self._nodes[node_id].parent is None:
            self._below.pop(node_id, None)
            return [self._nodes.pop(node_id)]  # a client with nothing below it, as nearly all are
        lineage = self.lineage(node_id)
        ended = [self._nodes[one] for one in below(self._children, node_id)]
        for node in ended:
            del self._nodes[node.id]
            self._children.pop(node.id, None)
            self._below.pop(node.id, None)
            self._total -= node.parent is not None
        top = ended[-1]
        if top.parent is not None:
            siblings = self._children.get(top.parent, {})
            siblings.pop(node_id, None)
            if not siblings:
                self._children.pop(top.parent, None)
        if lineage and lineage[-1].id in self._below:
            self._below[lineage[-1].id] -= len(ended)
        return ended

    def due(self, now: datetime) -> list[str]:
        """The children whose time is over: to be revoked."""
        found = []
        while self._due and (self._due[0][0] <= now or self._due[0][1] not in self._nodes):
            _, node_id = heapq.heappop(self._due)
            if node_id in self._nodes:
                found.append(node_id)
        return found

    @property
    def next_due(self) -> datetime | None:
        """When to look for children whose time is over."""
        return self._due[0][0] if self._due else None


def below(children: Mapping[str, Iterable[str]], top: str) -> list[str]:
    """All that hang on `top`, children before their parents and `top` last, each once even where links make a ring."""
    found, generation = {top: None}, [top]
    while generation:
        generation = [child for one in generation for child in children.get(one, ()) if child not in found]
        found.update(dict.fromkeys(generation))
    return list(reversed(found))


def outline(parents: Mapping[str, str | None]) -> list[tuple[int, str]]:
    """Every id with its depth, each below its parent, in the order in which they came. Whoever has no parent here
    stands at the left; links that make a ring are cut at the one that came first."""
    children: dict[str, list[str]] = {}
    for child, parent in parents.items():
        if parent is not None and parent in parents:
            children.setdefault(parent, []).append(child)
    shown: dict[str, int] = {}
    tops = [one for one, parent in parents.items() if parent is None or parent not in parents]
    for top in (*tops, *parents):
        waiting = [(0, top)]
        while waiting:
            depth, one = waiting.pop()
            if one not in shown:
                shown[one] = depth
                waiting += [(depth + 1, child) for child in reversed(children.get(one, []))]
    return [(depth, one) for one, depth in shown.items()]


def _cut(node_id: str, parent: Node, wish: Wish, now: datetime) -> Node:
    """The wish, cut to what the parent has. Raises ApplicationError."""
    if wish.kind in ROOTS:
        raise ApplicationError("A child is one of plugin, web and cli; a device session needs a certificate.")
    if parent.user and wish.user not in ("", parent.user):
        raise ApplicationError("The session belongs to another user, and so do all below it.")
    if wish.expires <= now:
        raise ApplicationError("A session needs a time to live.")
    scope = within(parent.scope, wish.scope)
    if scope is not None and not scope:
        raise ApplicationError("Nothing of the scope lies within the scope of the session that asks.")
    rates = [rate for rate in (parent.rate, wish.rate) if rate is not None]
    return Node(
        id=node_id,
        kind=wish.kind,
        channel=wish.channel,
        since=now,
        expires=min(wish.expires, parent.expires),
        parent=parent.id,
        scope=scope,
        rate=min(rates, default=None),
        user=wish.user or parent.user,
        device_id=wish.device_id,
        name=wish.name,
        platform=wish.platform,
    )
