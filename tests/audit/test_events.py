from rsocket_broker.audit import Event
from rsocket_broker.audit.events import Book


def test_what_peers_cause_by_asking_does_not_stand_among_the_changes() -> None:
    traffic = {event for event in Event if event.book is Book.TRAFFIC}
    assert {event.value for event in traffic} == {
        "enrolment-refused",
        "call-refused",
        "call-allowed",
        "session",
        "drop",
    }


def test_each_kind_has_a_name_of_its_own() -> None:
    assert len({event.value for event in Event}) == len(Event)
