from rsocket_broker.audit.events import Event
from rsocket_broker.audit.waiting import MAX_ALL, MAX_CHANGES, MAX_OF_ONE, PERIOD_S, Note, Waiting


def note(event: Event = Event.CALL_REFUSED, time: str = "t", **facts: object) -> Note:
    return Note(time, event, facts)


def told(notes: list[Note]) -> list[tuple[str, dict[str, object]]]:
    return [(each.event.value, dict(each.facts)) for each in notes]


def test_each_change_has_a_record() -> None:
    waiting = Waiting()
    for _ in range(3):
        waiting.add(note(Event.LISTENER, name="http"), 0)
    assert told(waiting.take(0)) == [("listener", {"name": "http"})] * 3
    assert waiting.take(PERIOD_S) == []


def test_the_same_again_is_counted_and_told_at_the_end_of_the_period() -> None:
    waiting = Waiting()
    waiting.add(note(app_id="a", method="m"), 10)
    assert waiting.due(11) == 11, "what is new is told soon"
    assert told(waiting.take(11)) == [("call-refused", {"app_id": "a", "method": "m"})]
    for number in range(5000):
        waiting.add(note(time=f"{number:04}", app_id="a", method="m"), 12)
    assert waiting.due(13) == 10 + PERIOD_S
    assert waiting.take(13) == []
    (count,) = waiting.take(10 + PERIOD_S)
    assert dict(count.facts) == {"app_id": "a", "method": "m", "count": 5000, "since": "0000"}
    assert count.time == "4999"
    assert waiting.due(0) is None
    waiting.add(note(app_id="a", method="m"), 400)
    assert len(waiting.take(401)) == 1, "a new period tells it anew"


def test_what_came_again_before_it_was_told_is_counted_too() -> None:
    waiting = Waiting()
    for _ in range(4):
        waiting.add(note(app_id="a"), 0)
    assert told(waiting.take(1, all_of_it=True)) == [
        ("call-refused", {"app_id": "a"}),
        ("call-refused", {"app_id": "a", "count": 3, "since": "t"}),
    ]
    assert waiting.take(PERIOD_S) == [], "and once"


def test_the_same_from_another_session_is_the_same() -> None:
    waiting = Waiting()
    for session in ("s1", "s1", "s2"):
        waiting.add(note(app_id="a", session=session), 0)
    assert told(waiting.take(1, all_of_it=True)) == [
        ("call-refused", {"app_id": "a", "session": "s1"}),
        ("call-refused", {"app_id": "a", "count": 2, "since": "t"}),
    ]
    waiting.add(note(app_id="a", session="s1"), 2)
    assert told(waiting.take(3, all_of_it=True)) == [
        ("call-refused", {"app_id": "a", "session": "s1", "count": 1, "since": "t"})
    ]


def test_one_peer_does_not_crowd_out_another() -> None:
    waiting = Waiting()
    for number in range(10_000):
        waiting.add(note(app_id="loud", device_id="d", method=f"m{number}"), 0)
    waiting.add(note(app_id="quiet", device_id="d", method="m"), 0)
    notes = waiting.take(PERIOD_S)
    assert len(notes) == MAX_OF_ONE + 2
    assert notes[-1].event is Event.DROPPED or notes[-1].facts["app_id"] == "quiet"
    assert ("call-refused", {"app_id": "quiet", "device_id": "d", "method": "m"}) in told(notes)
    dropped = [facts for event, facts in told(notes) if event == "drop"]
    assert dropped == [
        {"of": "call-refused", "app_id": "loud", "device_id": "d", "count": 10_000 - MAX_OF_ONE, "since": "t"}
    ]


def test_whoever_is_refused_a_certificate_shares_one_allowance_for_he_may_give_any_name() -> None:
    waiting = Waiting()
    for number in range(1000):
        waiting.add(note(Event.ENROLMENT_REFUSED, app_id=f"a{number}"), 0)
    waiting.add(note(app_id="honest"), 0)
    notes = waiting.take(PERIOD_S)
    assert len(notes) == MAX_OF_ONE + 2
    assert ("drop", {"of": "enrolment-refused", "count": 1000 - MAX_OF_ONE, "since": "t"}) in told(notes)


def test_all_together_have_a_bound() -> None:
    waiting = Waiting()
    for app in range(1000):
        for method in range(10):
            waiting.add(note(app_id=f"a{app}", method=f"m{method}"), 0)
    notes = waiting.take(PERIOD_S)
    assert len(notes) == MAX_ALL + 1
    assert notes[-1].facts["count"] == 10_000 - MAX_ALL


def test_changes_that_cannot_be_written_have_a_bound() -> None:
    waiting = Waiting()
    for _ in range(MAX_CHANGES + 5):
        waiting.add(note(Event.LISTENER), 0)
    notes = waiting.take(0, all_of_it=True)
    assert len(notes) == MAX_CHANGES + 1
    assert notes[-1].facts == {"of": "listener", "count": 5, "since": "t"}


def test_what_the_disk_did_not_take_is_counted() -> None:
    waiting = Waiting()
    waiting.add(note(app_id="a"), 0)
    waiting.lost(waiting.take(1), 1)
    assert waiting.take(2) == []
    assert told(waiting.take(1 + PERIOD_S)) == [("drop", {"of": "call-refused", "count": 1, "since": "t"})]
    waiting.lost([note(Event.POLICY)], 1000)
    assert waiting.due(0) == 1000 + PERIOD_S


def test_lists_tell_things_apart_too() -> None:
    waiting = Waiting()
    for scope in (["a"], ["a"], ["b"]):
        waiting.add(note(Event.SESSION, scope=scope), 0)
    assert [each.facts.get("count") for each in waiting.take(1, all_of_it=True)] == [None, 1, None]
