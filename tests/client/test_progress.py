"""What is told on the way is a value: it can be kept, compared and printed."""

from rsocket_broker.client.progress import Progress, Stage


def test_a_step_is_a_value() -> None:
    assert Progress(Stage.WAITING, "0.5 s") == Progress(Stage.WAITING, "0.5 s")
    assert Progress(Stage.LOST) != Progress(Stage.FAILED)
    assert len({Progress(Stage.LOST), Progress(Stage.LOST)}) == 1


def test_stages_have_names_for_people() -> None:
    assert [stage.value for stage in Stage] == [
        "enrolling", "enrolled", "connecting", "connected", "interrupted", "resumed", "renewed", "lost", "failed",
        "waiting",
    ]  # fmt: skip
