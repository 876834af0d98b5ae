"""One API over both inspectors."""

import pytest

from rsocket_broker.plugin_api import ApplicationError
from rsocket_broker.plugin_api.testing import running
from rsocket_broker.plugins.layout import GENERATIONS, Inspector, Layout, UiDebugger, generation
from tests.plugins.layout.shapes import ANDROID_FRAME, ANDROID_OLD, METADATA, PNG, old_answers


def test_the_newer_one_is_taken_where_there_are_both() -> None:
    assert (UiDebugger.id, Inspector.id) == GENERATIONS
    assert generation(["Network", "Inspector"]) == "Inspector"
    assert generation(["Inspector", "ui-debugger"]) == "ui-debugger"
    with pytest.raises(ApplicationError, match="no layout inspector"):
        generation(["Network"])


async def test_both_answer_alike() -> None:
    old, new = Inspector(), UiDebugger()
    async with running(old) as old_bench, running(new) as new_bench:
        one = await old_bench.connect(answers=old_answers(ANDROID_OLD, "1", all_at_once=True))
        two = await new_bench.connect(answers={"editAttribute": {}})
        two.app.awake = True
        await two.event("metadataUpdate", METADATA)
        await two.event("frameScan", ANDROID_FRAME)
        for layout in (Layout(old, one.app), Layout(new, two.app)):
            (title,) = await layout.find(text="your cart")
            assert (title["resource"], title["id"]) == ("title", "2")
            assert (await layout.wait(resource="title"))["text"] == "Your cart"
            assert (await layout.tree(attributes=True))["nodes"] in (3, 4)
            assert 'text="Your cart"' in await layout.xml()
            assert await layout.snapshot() == PNG
            await layout.set("2", ["View", "alpha"], 0.5)
