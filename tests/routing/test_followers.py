"""Who follows the messages of a session."""

from typing import Any

import pytest

from rsocket_broker.routing.followers import Followers


class Kept:
    """Followers, and how often what was kept was dropped."""

    def __init__(self) -> None:
        self.changes = 0
        self.followers = Followers("c1", self.changed)
        self.seen: list[Any] = []

    def changed(self) -> None:
        self.changes += 1

    def tell(self, method: str, content: object = None) -> None:
        self.followers.tell("in", "event", "P", method, 3, content)


def test_they_are_told_of_each_message_until_they_have_enough() -> None:
    kept = Kept()
    stop = kept.followers.observe(kept.seen.append)
    kept.followers.record(lambda message, content: kept.seen.append(content))
    assert len(kept.followers.writing) == 1
    kept.tell("a", "what it says")
    stop()
    stop()
    kept.tell("b", "more")
    told = {"client": "c1", "direction": "in", "kind": "event", "plugin": "P", "method": "a", "bytes": 3}
    assert kept.seen == [told, "what it says", "more"]
    assert kept.changes == 2


@pytest.mark.parametrize("stops", [True, False], ids=["and-stops", "and-goes-on"])
def test_one_that_fails_is_let_go_and_the_others_are_told(stops: bool, caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()

    def broken(message: object) -> None:
        if stops:
            stop()
        raise ZeroDivisionError

    stop = kept.followers.observe(broken)
    kept.followers.observe(kept.seen.append)
    kept.tell("a")
    kept.tell("b")
    assert [message["method"] for message in kept.seen] == ["a", "b"]
    assert caplog.text.count("whoever follows c1 failed") == 1


def test_the_end_of_the_session_is_the_end_of_it() -> None:
    kept = Kept()
    kept.followers.observe(kept.seen.append)
    kept.followers.close()
    assert not kept.followers.all
