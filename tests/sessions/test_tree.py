"""The tree of sessions, against a slow one that keeps nothing but links."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rsocket_broker.errors import ApplicationError, Rejected
from rsocket_broker.sessions.scope import Scope, allows, parse_scope
from rsocket_broker.sessions.tree import (
    MAX_CHILDREN,
    SLACK,
    Node,
    NodeKind,
    Tree,
    TreeLimits,
    Wish,
    below,
    outline,
)
from rsocket_broker.transports.base import Channel

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
WIDE = TreeLimits(children=10_000, below_root=10_000)


def root(node_id: str = "c1", expires: datetime = NOW + 24 * HOUR) -> Node:
    return Node(id=node_id, kind=NodeKind.DEVICE, channel=Channel.TLS, since=NOW, expires=expires)


def wish(hours: float = 1, **fields: object) -> Wish:
    return attrs.evolve(Wish(kind=NodeKind.WEB, channel=Channel.WS, expires=NOW + hours * HOUR), **fields)


def planted(limits: TreeLimits | None = None) -> Tree:
    tree = Tree(limits)
    tree.add_root(root())
    return tree


def grow(tree: Tree, parent: str, depth: int, width: int) -> Iterator[str]:
    if depth:
        for number in range(width):
            name = f"{parent}.{number}"
            tree.add_child(name, parent, wish(), NOW)
            yield name
            yield from grow(tree, name, depth - 1, width)


@pytest.mark.row("W-2", "W-6")
def test_a_child_knows_its_parent_and_the_way_to_the_root() -> None:
    tree = planted()
    child = tree.add_child("s1", "c1", wish(name="page", device_id="d", platform="Chrome"), NOW)
    grandchild = tree.add_child("s2", "s1", wish(kind=NodeKind.CLI), NOW)
    assert (child.parent, child.name, child.device_id, child.platform) == ("c1", "page", "d", "Chrome")
    assert [node.id for node in tree.lineage("s2")] == ["s2", "s1", "c1"]
    assert tree.children("c1") == [child]
    assert tree.descendants("c1") == [grandchild, child]
    assert list(tree) == [tree.get("c1"), child, grandchild]


@pytest.mark.row("W-4", "A-59")
def test_one_revoke_ends_a_tree_of_depth_6_and_width_4() -> None:
    tree = planted(WIDE)
    names = list(grow(tree, "c1", 6, 4))
    assert len(tree) == len(names) + 1 == sum(4**level for level in range(7))
    branch = tree.revoke("c1.2")
    assert len(branch) == sum(4**level for level in range(6))
    assert not any(tree.lineage(node.id) for node in branch)
    ended = tree.revoke("c1")
    assert len(tree) == 0
    assert {node.id for node in (*branch, *ended)} == {"c1", *names}
    place = {node.id: number for number, node in enumerate((*branch, *ended))}
    assert all(place[node.id] < place[node.parent] for node in (*branch, *ended) if node.parent is not None)
    assert tree.revoke("c1") == []


@pytest.mark.row("W-4", "A-59")
def test_a_ring_made_by_hand_ends_every_walk() -> None:
    tree = planted()
    for name, parent in (("s1", "c1"), ("s2", "s1"), ("s3", "s2")):
        tree.add_child(name, parent, wish(), NOW)
    tree._nodes["s1"] = attrs.evolve(tree._nodes["s1"], parent="s3")
    tree._children["s3"] = {"s1": None}
    assert tree.lineage("s2") == ()
    with pytest.raises(ApplicationError, match="has ended"):
        tree.add_child("s4", "s2", wish(), NOW)
    assert {node.id for node in tree.revoke("s2")} == {"s1", "s2", "s3"}
    assert [node.id for node in tree] == ["c1"]


def test_links_that_make_a_ring_are_walked_once() -> None:
    assert sorted(below({"a": ["b"], "b": ["c", "a"], "c": ["c"]}, "a")) == ["a", "b", "c"]
    assert below({"a": ["b", "c"], "b": ["d"], "c": ["d"]}, "a")[-1] == "a"
    assert outline({"a": "b", "b": "a", "c": "b", "d": "d"}) == [(0, "a"), (1, "b"), (2, "c"), (0, "d")]


def test_an_outline_has_each_below_its_parent() -> None:
    parents = {"c1": None, "s1": "c1", "c2": None, "s2": "c1", "s3": "s1", "s9": "gone"}
    assert outline(parents) == [(0, "c1"), (1, "s1"), (2, "s3"), (1, "s2"), (0, "c2"), (0, "s9")]


@pytest.mark.row("W-7", "A-59")
def test_what_a_child_asks_for_is_cut_to_what_its_parent_has() -> None:
    tree = planted()
    tree.add_child("s1", "c1", wish(48, scope=("Network.*", "echo.request"), rate=5.0, user="anna"), NOW)
    one, two = tree.get("s1"), tree.add_child("s2", "s1", wish(48, scope=("*",), rate=9.0), NOW)
    assert one is not None
    assert one.expires == two.expires == NOW + 24 * HOUR
    assert (two.scope, two.rate, two.user) == (("Network.*", "echo.request"), 5.0, "anna")
    three = tree.add_child("s3", "s1", wish(2, scope=("Network.har", "Layout.*"), rate=1.0, user="anna"), NOW)
    assert (three.scope, three.rate, three.expires) == (("Network.har",), 1.0, NOW + 2 * HOUR)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"kind": NodeKind.DEVICE}, "certificate"),
        ({"kind": NodeKind.UNVERIFIED}, "certificate"),
        ({"user": "bert"}, "another user"),
        ({"expires": NOW}, "time to live"),
        ({"scope": ("Layout.*",)}, "within the scope"),
    ],
)
def test_a_wish_of_which_nothing_is_left_is_refused(fields: dict[str, object], text: str) -> None:
    tree = planted()
    tree.add_child("s1", "c1", wish(scope=("Network.*",), user="anna"), NOW)
    with pytest.raises(ApplicationError, match=text):
        tree.add_child("s2", "s1", wish(**fields), NOW)
    assert len(tree) == 2


@pytest.mark.row("M-9")
def test_nothing_is_made_below_who_has_proved_nothing() -> None:
    tree = Tree()
    tree.add_root(attrs.evolve(root(), kind=NodeKind.UNVERIFIED))
    with pytest.raises(ApplicationError, match="vouches for nobody"):
        tree.add_child("s1", "c1", wish(), NOW)
    assert tree.revoke("c1")


def test_nobody_has_children_after_the_end() -> None:
    tree = planted()
    tree.add_child("s1", "c1", wish(1), NOW)
    with pytest.raises(ApplicationError, match="has ended"):
        tree.add_child("s2", "s1", wish(9), NOW + HOUR)
    tree.revoke("c1")
    with pytest.raises(ApplicationError, match="has ended"):
        tree.add_child("s3", "c1", wish(9), NOW)


@pytest.mark.row("A-30")
@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (TreeLimits(depth=1), "1 generations"),
        (TreeLimits(children=1), "1 children"),
        (TreeLimits(below_root=2), "2 sessions below c1"),
        (TreeLimits(total=2), "2 child sessions"),
    ],
)
def test_a_full_tree_says_what_is_full_and_has_room_again_after_an_end(limits: TreeLimits, text: str) -> None:
    tree = planted(limits)

    def fill() -> None:
        with pytest.raises(Rejected, match=text):
            for parent in ("c1", "s1", "c1"):
                tree.add_child(f"s{len(tree)}", parent, wish(), NOW)

    fill()
    for node in tree.children("c1"):
        tree.revoke(node.id)
    fill()


def test_the_limits_are_those_that_are_documented() -> None:
    tree = planted()
    with pytest.raises(Rejected):
        for number in range(MAX_CHILDREN + 1):
            tree.add_child(f"s{number}", "c1", wish(), NOW)
    assert len(tree.children("c1")) == MAX_CHILDREN


@pytest.mark.row("W-7")
def test_children_are_due_at_their_end_and_not_before() -> None:
    tree = planted()
    for number, hours in enumerate((3, 1, 2)):
        tree.add_child(f"s{number}", "c1", wish(hours), NOW)
    assert tree.next_due == NOW + HOUR
    assert tree.due(NOW + HOUR - timedelta.resolution) == []
    assert tree.due(NOW + 2 * HOUR) == ["s1", "s2"]
    tree.revoke("s0")
    assert tree.due(NOW + 9 * HOUR) == []
    assert tree.next_due is None


def test_ends_of_what_has_ended_do_not_pile_up() -> None:
    tree = planted()
    for number in range(20 * SLACK):
        tree.add_child(f"s{number}", "c1", wish(), NOW)
        if number % 10:
            tree.revoke(f"s{number}")
        else:
            tree.revoke(f"s{number - 10}")
    assert len(tree._due) <= SLACK + 10
    assert tree.due(NOW + HOUR) == [f"s{20 * SLACK - 10}"]


@pytest.mark.row("M-10")
def test_the_sessions_of_a_user_are_found() -> None:
    tree = planted()
    tree.add_child("s1", "c1", wish(user="anna"), NOW)
    tree.add_child("s2", "s1", wish(), NOW)
    tree.add_child("s3", "c1", wish(user="bert"), NOW)
    assert [node.id for node in tree.of_user("anna")] == ["s1", "s2"]
    assert tree.of_user("") == []


def test_a_root_with_a_new_certificate_lives_as_long_as_that() -> None:
    tree = planted()
    tree.renew_root("c1", NOW + 48 * HOUR)
    assert tree.add_child("s1", "c1", wish(30), NOW).expires == NOW + 30 * HOUR


SCOPES: list[Scope | None] = [None, ("*",), ("a.*",), ("a.b",), ("a.b", "c.*"), ("c.d",)]
METHODS = ("a.b", "a.c", "c.d", "e.f")


class TreeMachine(RuleBasedStateMachine):
    """Random trees beside a list of links: no descendant lives after a revoke, none has more than its parent."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = Tree(TreeLimits(children=4, below_root=12, depth=4))
        self.parents: dict[str, str | None] = {}
        self.made = 0

    @rule()
    def plant(self) -> None:
        self.made += 1
        self.parents[f"c{self.made}"] = None
        self.tree.add_root(root(f"c{self.made}", NOW + self.made * HOUR))

    @rule(
        pick=st.integers(0, 50), scope=st.sampled_from(SCOPES), hours=st.integers(1, 9), rate=st.none() | st.just(2.0)
    )
    def login(self, pick: int, scope: Scope | None, hours: int, rate: float | None) -> None:
        if not self.parents:
            return
        parent = list(self.parents)[pick % len(self.parents)]
        self.made += 1
        try:
            asked = None if scope is None else parse_scope(list(scope))
            node = self.tree.add_child(f"s{self.made}", parent, wish(hours, scope=asked, rate=rate), NOW)
        except (ApplicationError, Rejected):
            return
        self.parents[node.id] = parent

    @rule(pick=st.integers(0, 50))
    def revoke(self, pick: int) -> None:
        if not self.parents:
            return
        top = list(self.parents)[pick % len(self.parents)]
        wanted = {one for one in self.parents if top in self.above(one)}
        ended = [node.id for node in self.tree.revoke(top)]
        assert set(ended) == wanted
        assert len(ended) == len(wanted)
        for place, one in enumerate(ended):
            assert not set(ended[place + 1 :]) & {other for other in wanted if one in self.above(other)}
        for one in wanted:
            del self.parents[one]

    def above(self, node_id: str) -> list[str]:
        """The node and all above it, the slow way."""
        found = [node_id]
        while (parent := self.parents[found[-1]]) is not None:
            found.append(parent)
        return found

    @invariant()
    def it_is_the_same_tree(self) -> None:
        assert {node.id: node.parent for node in self.tree} == self.parents
        for one in self.parents:
            assert [node.id for node in self.tree.lineage(one)] == self.above(one)

    @invariant()
    def nobody_has_more_than_the_one_above(self) -> None:
        for node in self.tree:
            if node.parent is None:
                continue
            parent = self.tree.get(node.parent)
            assert parent is not None
            assert node.expires <= parent.expires
            assert parent.rate is None or (node.rate is not None and node.rate <= parent.rate)
            assert all(allows(parent.scope, method) for method in METHODS if allows(node.scope, method))


TestTreeMachine = pytest.mark.row("D-8", "A-59")(TreeMachine.TestCase)
TestTreeMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
