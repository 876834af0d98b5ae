"""Shop: an emulated app with all the plugins, that does something with them; and how to run it against a broker."""

import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from .core import FlipperCore
from .databases import Databases
from .images import Fresco, Image
from .network import Network, Reply
from .plugin import AppPlugin, Params, Platform, Receiver, ReceiverError
from .preferences import STANDARD, Preferences
from .reports import CrashReporter, LeakCanary, Navigation
from .rsocket_sdk import RSocketSdk
from .sdk import Port, Profile, Sdk
from .sonar_folder import SonarFolder
from .views import Inspector, UiDebugger, View
from .websocket_sdk import WebSocketSdk

APP_ID = "org.example.shop"
API = "https://api.shop.example/v1"
DATABASE = "shop.db"
ITEMS = {"tea": 4.5, "cup": 12.0, "pot": 30.25}

ERAS: Mapping[str, type[Sdk]] = {"rsocket": RSocketSdk, "websocket": WebSocketSdk}
"""Flipper's SDK before 2022, and after."""
PORTS = {"rsocket": (8089, 8088), "websocket": (9089, 9088)}
"""For enrolment and for sessions."""

SIMULATOR = "Devices/{device}/data/Containers/Data/Application/{container}/Library/Application Support/sonar"
"""Where an app's folder is in an iOS simulator, below the simulators' own folder."""


class Shop:
    """An app with a server, a database, preferences and screens. Everything that a user could do is a method.

    What a test calls of it from outside is its own plugin `Shop`, as an app's author would write one.
    """

    def __init__(self, folder: Path, platform: Platform = Platform.ANDROID) -> None:
        """`folder` is for its databases."""
        self.platform = platform
        self.server = Server()
        self.network = Network(platform)
        self.databases = Databases(folder, platform)
        self.settings = STANDARD if platform is Platform.IOS else f"{APP_ID}_preferences"
        values = {"onboarded": False, "launches": 1, "currency": "EUR", "discount": 0.1}
        self.preferences = Preferences({self.settings: values}, platform)
        self.navigation = Navigation(platform)
        self.crashes, self.leaks, self.images = CrashReporter(platform), LeakCanary(platform), Fresco(platform)
        self.title = View("TextView", text="Welcome", key="title", bounds=(0, 0, 320, 40))
        self.button = View("Button", text="Buy", key="buy", bounds=(0, 500, 320, 48))
        self.screen = View("DecorView", self.title, self.button, bounds=(0, 0, 320, 548))
        self.inspector, self.debugger = Inspector(self.screen, platform), UiDebugger(self.screen, platform)
        with self.databases.open(DATABASE) as database:
            database.execute("CREATE TABLE IF NOT EXISTS cart (id INTEGER PRIMARY KEY, item TEXT NOT NULL, price REAL)")

    @property
    def plugins(self) -> list[AppPlugin]:
        everywhere = [self.network, self.databases, self.preferences, self.navigation, self.inspector, self.debugger]
        android = [self.crashes, self.leaks, self.images]
        return [Remote(self), *everywhere, *(android if self.platform is Platform.ANDROID else [])]

    def start(self) -> None:
        """What it does first."""
        self.open("shop://welcome")
        reply = self._ask("GET", "/items")
        for name in json.loads(reply.body or b"{}"):
            self.images.load(Image(f"https://img.shop.example/{name}.png", 64, 64), view=(32, 32))

    def log_in(self, user: str) -> bool:
        reply = self._ask("POST", "/login", {"user": user})
        if reply.status == 200:
            self.preferences.put(self.settings, "user", user)
            self.open("shop://items")
        return reply.status == 200

    def buy(self, item: str) -> bool:
        """Into the cart, if the server takes it."""
        reply = self._ask("POST", "/cart", {"item": item})
        if reply.status == 201:
            with self.databases.open(DATABASE) as database:
                database.execute("INSERT INTO cart (item, price) VALUES (?, ?)", (item, ITEMS.get(item)))
            self.open(f"shop://cart?last={item}")
        return reply.status == 201

    def open(self, uri: str) -> None:
        """Shows a screen, as a deep link does."""
        self.title.text = uri.partition("://")[2].partition("?")[0].capitalize()
        self.inspector.changed(self.title)
        self.debugger.frame()
        self.navigation.go(uri, f"{APP_ID}.{self.title.text}Activity")

    def crash(self, reason: str) -> None:
        self.crashes.report("java.lang.IllegalStateException", reason, [f"{APP_ID}.Cart.total(Cart.java:42)"])

    def leak(self, activity: str) -> None:
        self.leaks.found(activity, "android.app.Application", f"{APP_ID}.{activity}", retained="120 bytes")

    def _ask(self, method: str, path: str, message: Mapping[str, object] | None = None) -> Reply:
        body = None if message is None else json.dumps(message).encode()
        return self.network.fetch(method, API + path, lambda: self.server.answer(method, path, message), body=body)


class Server:
    """What is on the other end of the app's network. `down`: it answers everything with 503."""

    def __init__(self) -> None:
        self.down = False

    def answer(self, method: str, path: str, message: Mapping[str, object] | None) -> Reply:
        given = message or {}
        if self.down:
            return self._json(503, {"error": "down"})
        if (method, path) == ("GET", "/items"):
            return self._json(200, ITEMS)
        if (method, path) == ("POST", "/login"):
            return self._json(200 if given.get("user") else 401, {"token": "not a real one"})
        if (method, path) == ("POST", "/cart") and given.get("item") in ITEMS:
            return self._json(201, given)
        return self._json(404, {"error": "no such thing"})

    def _json(self, status: int, value: object) -> Reply:
        return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


class Remote(AppPlugin):
    """The app's own plugin: what a test may do in the place of a user's fingers."""

    id: ClassVar[str] = "Shop"

    def __init__(self, shop: Shop) -> None:
        super().__init__(shop.platform)
        self.shop = shop

    def receivers(self) -> Mapping[str, Receiver]:
        def done(action: Callable[[str], object], name: str) -> Receiver:
            def receive(params: Params) -> object:
                if not isinstance(params.get(name), str):
                    raise ReceiverError({"message": f"{name} is missing", "name": "IllegalArgumentException"})
                result = action(params[name])
                return {} if result is None else {"done": result}

            return receive

        return {
            "logIn": done(self.shop.log_in, "user"),
            "buy": done(self.shop.buy, "item"),
            "open": done(self.shop.open, "uri"),
            "crash": done(self.shop.crash, "reason"),
            "leak": done(self.shop.leak, "activity"),
        }


@contextlib.asynccontextmanager
async def running(
    shop: Shop,
    directory: Path,
    *,
    era: str = "websocket",
    insecure_port: Port | None = None,
    secure_port: Port | None = None,
    host: str = "localhost",
    folder: SonarFolder | None = None,
    profile: Profile | None = None,
    **settings: Any,
) -> AsyncIterator[Sdk]:
    """The app's process, for as long as the block lasts: it enrols, connects, and comes back when it is cut off.

    `await sdk.connected()` waits for the session. `directory` is where it keeps its certificates on this machine: an
    Android app without a device is told as a desktop app, an iOS app as one in a simulator. Behind an emulated device
    `folder` and `profile` say otherwise. `settings` are those of the SDK of that era, such as `retry` in seconds.
    """
    ports = PORTS[era]
    core = FlipperCore(shop.plugins)
    sdk = ERAS[era](
        profile or here(shop.platform),
        folder or SonarFolder(place(shop.platform, directory)),
        core,
        insecure_port=ports[0] if insecure_port is None else insecure_port,
        secure_port=ports[1] if secure_port is None else secure_port,
        host=host,
        **settings,
    )
    shop.start()
    async with sdk:
        yield sdk


def here(platform: Platform) -> Profile:
    """How the app names itself on this machine."""
    if platform is Platform.IOS:
        return Profile(APP_ID, "Shop", "iOS", "iPhone Simulator")
    return Profile(APP_ID, "Shop", "MacOS", "emulated")


def place(platform: Platform, directory: Path) -> Path:
    """Where the app's folder is on this machine, the same each time."""
    if platform is Platform.ANDROID:
        return directory / "sonar"
    names = {name: str(uuid.uuid5(uuid.NAMESPACE_URL, f"{APP_ID}/{name}")).upper() for name in ("device", "container")}
    return directory / SIMULATOR.format(**names)
