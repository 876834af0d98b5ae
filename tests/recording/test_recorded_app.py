from typing import Any

import pytest

from rsocket_broker.jsontext import dump, parse
from rsocket_broker.recording.entries import Entry
from rsocket_broker.recording.recorded_app import RecordedApp
from tests.recording.test_entries import HEADER

REQUEST, RESPONSE = {"id": "1", "url": "/a"}, {"id": "1", "status": 200}


def event(at: float, method: str, content: object, plugin: str = "Network") -> Entry:
    return Entry(at, True, "event", plugin, method, content)


def answer(method: str, params: object, **content: object) -> Entry:
    kind = "error" if "error" in content else "answer"
    return Entry(9.0, True, kind, "Databases", method, {"params": params, **content})


def said(texts: Any) -> list[Any]:
    return [parse(text) for text in texts]


def asked(app: RecordedApp, method: str, /, **params: object) -> Any:
    (found,) = said(app.receive(dump({"id": 5, "method": method, "params": params})))
    assert found.pop("id") == 5
    return found


def executed(app: RecordedApp, method: str, params: object) -> Any:
    return asked(app, "execute", api="Databases", method=method, params=params)


def tell(method: str, plugin: str) -> bytes:
    return dump({"method": method, "params": {"plugin": plugin}})


def execute(method: str, params: object) -> dict[str, object]:
    return {"method": "execute", "params": {"api": "Network", "method": method, "params": params}}


def test_it_has_the_plugins_that_the_app_had() -> None:
    app = RecordedApp(HEADER, [answer("query", {"value": "SELECT 1"}, success=[1])])
    assert asked(app, "getPlugins") == {"success": {"plugins": ["Network", "Databases"]}}
    assert asked(app, "getBackgroundPlugins") == {"success": {"plugins": ["Network"]}}
    assert asked(app, "isMethodSupported", api="Databases", method="query") == {"success": {"isSupported": True}}
    assert asked(app, "isMethodSupported", api="Databases", method="drop") == {"success": {"isSupported": False}}
    assert asked(app, "selfDestruct")["error"]["message"] == "Received unknown method: selfDestruct"


def test_events_come_at_their_times_once_their_plugin_is_started() -> None:
    app = RecordedApp(HEADER, [event(1.0, "newRequest", REQUEST), event(1.5, "newResponse", RESPONSE)])
    app.begin(100.0)
    assert said(app.receive(tell("init", "Network"))) == []
    assert app.due() == 101.0
    assert said(app.messages(100.9)) == []
    assert said(app.messages(101.2)) == [execute("newRequest", REQUEST)]
    assert not app.over
    assert said(app.messages(101.5)) == [execute("newResponse", RESPONSE)]
    assert app.over
    assert app.due() is None


def test_what_was_due_before_comes_at_the_start_of_its_plugin() -> None:
    app = RecordedApp(HEADER, [event(1.0, "newRequest", REQUEST), event(3.0, "newResponse", RESPONSE)])
    app.begin(0.0)
    assert said(app.messages(2.0)) == []
    assert said(app.receive(tell("init", "Network"))) == [execute("newRequest", REQUEST)]
    assert said(app.receive(tell("deinit", "Network"))) == []
    assert said(app.messages(3.0)) == []
    assert said(app.receive(tell("init", "Network"))) == [execute("newResponse", RESPONSE)]


@pytest.mark.parametrize(("speed", "due"), [(2.0, 2.0), (0.5, 8.0), (0.0, 0.0)])
def test_it_can_be_faster_and_slower(speed: float, due: float) -> None:
    app = RecordedApp(HEADER, [event(4.0, "newRequest", REQUEST)], speed)
    app.begin(0.0)
    assert app.due() == due


def test_the_same_question_gets_the_answers_one_after_the_other_and_the_last_for_ever() -> None:
    app = RecordedApp(HEADER, [answer("query", {"a": 1, "b": [{"d": 2, "c": 3}]}, success=n) for n in (1, 2)])
    same = {"b": [{"c": 3, "d": 2}], "a": 1}
    assert [executed(app, "query", same)["success"] for _ in range(3)] == [1, 2, 2]


def test_what_was_refused_is_refused_again_and_null_is_an_answer() -> None:
    app = RecordedApp(HEADER, [answer("query", {}, error="no such table"), answer("count", None, success=None)])
    assert executed(app, "query", {})["error"]["message"] == "no such table"
    assert executed(app, "count", {}) == {"success": None}


def test_what_was_never_asked_has_no_answer() -> None:
    app = RecordedApp(HEADER, [answer("query", {"value": "SELECT 1"}, success=1)])
    assert "no answer of Databases.query" in executed(app, "query", {"value": "SELECT 2"})["error"]["message"]


@pytest.mark.parametrize("text", [b"", b"[]", b'{"method": 5}', b'{"method": "init"}', tell("init", "Nobody")])
def test_what_it_does_not_understand_it_leaves_unanswered(text: bytes) -> None:
    app = RecordedApp(HEADER, [event(0.0, "newRequest", REQUEST)])
    assert said(app.receive(text)) == []


def test_what_the_broker_said_is_not_said_again() -> None:
    app = RecordedApp(HEADER, [Entry(0.0, False, "event", "Network", "newRequest", REQUEST)])
    assert app.over
