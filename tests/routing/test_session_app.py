"""The app as a handler is handed it."""

from rsocket_broker.plugin_api import App, Plugin, method
from rsocket_broker.plugin_api.testing import fake_identity
from tests.routing.line import Line


class Keeper(Plugin):
    """Keeps the apps that it has seen."""

    id = "Keeper"

    def __init__(self) -> None:
        self.apps: list[App] = []

    def on_connect(self, app: App) -> None:
        self.apps.append(app)
        app.state.count = 0

    @method("count")
    def count(self, app: App) -> int:
        app.state.count += 1
        count: int = app.state.count
        return count


async def test_an_app_is_one_object_for_a_session_with_a_state_of_its_own() -> None:
    keeper = Keeper()
    async with Line(keeper) as line:
        one, two = await line.connect(), await line.connect()
        assert [await one.json("Keeper.count") for _ in range(3)] == [1, 2, 3]
        assert await two.json("Keeper.count") == 1
        assert len(set(keeper.apps)) == 2


async def test_what_a_handler_is_told_of_its_app() -> None:
    keeper = Keeper()
    async with Line(keeper) as line:
        await line.app(["Keeper"])
        await (await line.connect(certificate=b"com.bare||filesystem|1")).json("Keeper.count")
        named, bare = keeper.apps
        assert (named.name, named.os, named.device, named.data_mime) == ("Demo", "Android", "Pixel", "application/json")
        assert (bare.name, bare.os, bare.device) == ("com.bare", "", "")
        assert bare.identity.principal == fake_identity("com.bare", "").principal
        assert named.id != bare.id


async def test_what_it_shows_of_itself_names_the_plugin_and_the_client() -> None:
    keeper = Keeper()
    async with Line(keeper) as line:
        client = await line.connect()
        await client.json("Keeper.count")
        (app,) = keeper.apps
        assert repr(app) == f"<App {client.session.id} {client.session.identity.principal} of Keeper>"
        assert (app.kind, app.user, await app.reach("", "count")) == ("device", "", app)
