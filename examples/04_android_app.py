"""An emulated Android app with Flipper's own SDK and plugins: something to look at for `rsocket-broker app`.

Run it, while a broker runs:

    python examples/04_android_app.py

It has Network, Databases (a real SQLite file), Preferences, Navigation, CrashReporter, LeakCanary, Inspector,
ui-debugger and Fresco, and a plugin of its own, Shop. Then, in another terminal:

    rsocket-broker app network list --client org.example.shop
    rsocket-broker clients call org.example.shop Shop buy '{"item": "tea"}'

`--ios` speaks as an iOS app in a simulator does, `--era rsocket` as apps did before 2022. Without `--quiet` a customer
buys something every few seconds. Its files stay in ~/.shop-example. Stop it with Ctrl-C.
"""

import argparse
import asyncio
import itertools
from contextlib import suppress
from pathlib import Path

from emulated_apps import Platform
from emulated_apps.shop import ERAS, ITEMS, Shop, running


async def shopping(shop: Shop, pause: float) -> None:
    """A customer who never has enough."""
    shop.log_in("ada")
    for item in itertools.cycle([*ITEMS, "nothing"]):
        await asyncio.sleep(pause)
        shop.buy(item)


async def main(options: argparse.Namespace) -> None:
    platform = Platform.IOS if options.ios else Platform.ANDROID
    shop = Shop(options.directory / "databases", platform)
    ports = {"insecure_port": options.insecure_port, "secure_port": options.secure_port}
    async with running(shop, options.directory, era=options.era, host=options.host, **ports) as app:
        await app.connected(limit=options.patience)
        print(f"connected: {app.profile.app_id}", flush=True)
        if not options.quiet:
            await shopping(shop, options.pause)
        await asyncio.Event().wait()  # until Ctrl-C


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An emulated app with a Flipper SDK.")
    files = "where it keeps its key, certificates and database; ~/.shop-example"
    parser.add_argument("--directory", type=Path, default=Path.home() / ".shop-example", help=files)
    parser.add_argument("--host", default="localhost", help="where the broker is")
    parser.add_argument("--era", choices=list(ERAS), default="websocket", help="which generation of the SDK")
    parser.add_argument("--insecure-port", type=int, help="9089, or 8089 for --era rsocket")
    parser.add_argument("--secure-port", type=int, help="9088, or 8088 for --era rsocket")
    parser.add_argument("--ios", action="store_true", help="speak as an iOS app does")
    parser.add_argument("--quiet", action="store_true", help="do nothing but what is asked through its plugins")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between purchases")
    parser.add_argument("--patience", type=float, default=3600.0, help="seconds to wait for the broker")
    with suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args()))
