"""The app's answers to a broker, message by message."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from rsocket_broker.client.app_plugin import AppPlugin, method
from rsocket_broker.client.flipper import FlipperApp
from rsocket_broker.errors import ApplicationError


class Sink:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, object]] = []

    def emit(self, plugin: str, method: str, params: object) -> bool:
        self.events.append((plugin, method, params))
        return True


class Store(AppPlugin):
    id = "Store"
    background = True

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def on_init(self) -> None:
        await self.gate.wait()
        self.calls.append("init")
        self.emit("hello", {"from": "on_init"})

    async def on_deinit(self) -> None:
        self.calls.append("deinit")

    @method("echo")
    def echo(self, params: object) -> object:
        return params

    @method("nothing")
    async def nothing(self) -> None:
        return None

    @method("refuse")
    async def refuse(self) -> None:
        raise ApplicationError("the store is shut")

    @method("break")
    async def break_(self) -> None:
        raise RuntimeError("password is hunter2")

    @method("odd")
    async def odd(self) -> object:
        return object()

    @method("ticks")
    async def ticks(self) -> AsyncIterator[int]:
        yield 1


class Screen(AppPlugin):
    id = "Screen"


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def app(store: Store, sink: Sink) -> FlipperApp:
    return FlipperApp({"Store": store, "Screen": Screen()}, sink)


def execute(name: str, params: object = None, api: str = "Store") -> dict[str, object]:
    return {"method": "execute", "params": {"api": api, "method": name, "params": params}}


INIT = {"method": "init", "params": {"plugin": "Store"}}
DEINIT = {"method": "deinit", "params": {"plugin": "Store"}}


async def test_it_lists_its_plugins(app: FlipperApp) -> None:
    assert await app.answer({"method": "getPlugins"}) == {"success": {"plugins": ["Store", "Screen"]}}
    assert await app.answer({"method": "getBackgroundPlugins"}) == {"success": {"plugins": ["Store"]}}


async def test_init_comes_before_execute_and_deinit_ends_it(app: FlipperApp, store: Store, sink: Sink) -> None:
    assert (await app.answer(execute("echo")))["error"] == {
        "name": "ConnectionNotFound",
        "message": "Connection Store not found for method execute",
    }
    assert await app.answer(INIT) == {"success": {}}
    assert sink.events == [("Store", "hello", {"from": "on_init"})]
    assert await app.answer(execute("echo", {"a": [1, None]})) == {"success": {"a": [1, None]}}
    assert await app.answer(DEINIT) == {"success": {}}
    assert "error" in await app.answer(execute("echo"))
    assert store.calls == ["init", "deinit"]


async def test_a_second_init_or_deinit_is_harmless(app: FlipperApp, store: Store) -> None:
    for message in (DEINIT, INIT, INIT, DEINIT, DEINIT):
        assert await app.answer(message) == {"success": {}}
    assert store.calls == ["init", "deinit"]


async def test_a_call_waits_for_the_init_before_it(app: FlipperApp, store: Store) -> None:
    store.gate.clear()
    init = asyncio.create_task(app.answer(INIT))
    call = asyncio.create_task(app.answer(execute("echo", 7)))
    await asyncio.sleep(0)
    store.gate.set()
    assert await call == {"success": 7}
    assert await init == {"success": {}}


async def test_an_init_that_fails_leaves_the_plugin_off(app: FlipperApp, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(AppPlugin):
        id = "Broken"

        async def on_init(self) -> None:
            raise RuntimeError("no disk")

    plugin = Broken()
    with caplog.at_level(logging.ERROR):
        answer = await FlipperApp({"Broken": plugin}, Sink()).answer({"method": "init", "params": {"plugin": "Broken"}})
    assert answer == {
        "error": {"name": "RuntimeError", "message": "Receiver on_init failed with error. Error: 'RuntimeError'."}
    }
    assert not plugin.active
    assert "no disk" in caplog.text


async def test_a_lost_session_during_init_leaves_the_plugin_off(app: FlipperApp, store: Store) -> None:
    store.gate.clear()
    init = asyncio.create_task(app.answer(INIT))
    await asyncio.sleep(0)
    init.cancel()
    with pytest.raises(asyncio.CancelledError):
        await init
    assert not store.active


@pytest.mark.parametrize("name", ["init", "deinit"])
@pytest.mark.parametrize("plugin", ["Ghost", 7, None])
async def test_an_unknown_plugin_is_named(app: FlipperApp, name: str, plugin: object) -> None:
    answer = await app.answer({"method": name, "params": {"plugin": plugin}})
    assert answer == {"error": {"name": "PluginNotFound", "message": f"Plugin {plugin} not found for method {name}"}}


@pytest.mark.parametrize(
    ("name", "supported"), [("echo", True), ("nothing", True), ("ghost", False), ("ticks", False), (7, False)]
)
async def test_is_method_supported(app: FlipperApp, name: object, supported: bool) -> None:
    await app.answer(INIT)
    message = {"method": "isMethodSupported", "params": {"api": "Store", "method": name}}
    assert await app.answer(message) == {"success": {"isSupported": supported}}


@pytest.mark.parametrize("name", ["ghost", "ticks", "on_init", "__init__", 7])
async def test_only_marked_methods_can_be_called(app: FlipperApp, name: str) -> None:
    await app.answer(INIT)
    assert await app.answer(execute(name)) == {"error": {"name": "Unknown", "message": f"Receiver {name} not found."}}


async def test_no_value_is_an_empty_object(app: FlipperApp) -> None:
    await app.answer(INIT)
    assert await app.answer(execute("nothing")) == {"success": {}}


@pytest.mark.parametrize("value", [0, False, "", []])
async def test_a_value_that_counts_as_false_is_still_a_success(app: FlipperApp, value: object) -> None:
    await app.answer(INIT)
    assert await app.answer(execute("echo", value)) == {"success": value}


async def test_a_refusal_is_told_in_the_plugins_own_words(app: FlipperApp) -> None:
    await app.answer(INIT)
    assert await app.answer(execute("refuse")) == {
        "error": {"name": "ApplicationError", "message": "the store is shut"}
    }


async def test_a_crash_is_told_without_its_words_and_logged_with_them(
    app: FlipperApp, caplog: pytest.LogCaptureFixture
) -> None:
    await app.answer(INIT)
    with caplog.at_level(logging.ERROR):
        answer = await app.answer(execute("break"))
    assert "hunter2" not in str(answer)
    assert "hunter2" in caplog.text
    assert await app.answer(execute("echo", 1)) == {"success": 1}


async def test_an_answer_that_is_not_json_is_the_plugins_error(app: FlipperApp) -> None:
    await app.answer(INIT)
    answer = await app.answer(execute("odd"))
    assert "its answer is not JSON" in str(answer["error"])


@pytest.mark.parametrize("message", [{}, {"method": None}, {"method": "format"}, {"method": 7, "params": []}])
async def test_an_unknown_message_is_answered_with_an_error(app: FlipperApp, message: dict[str, object]) -> None:
    answer = await app.answer(message)
    assert "unknown method" in str(answer["error"])


@pytest.mark.parametrize("params", [None, [], "Store", 7])
async def test_params_of_the_wrong_shape_break_nothing(app: FlipperApp, params: object) -> None:
    for name in ("init", "deinit", "execute", "isMethodSupported"):
        assert "error" in await app.answer({"method": name, "params": params})


async def test_a_lost_session_deinits_what_was_in_use(app: FlipperApp, store: Store) -> None:
    await app.answer(INIT)
    await app.disconnected()
    assert store.calls == ["init", "deinit"]
    assert not store.active
