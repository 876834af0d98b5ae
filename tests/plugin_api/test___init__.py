"""What plugin authors import: all of it is there, and the package's own example works."""

from rsocket_broker import plugin_api
from rsocket_broker.plugin_api.testing import running


def test_every_name_is_there() -> None:
    assert plugin_api.__all__ == sorted(plugin_api.__all__)
    for name in plugin_api.__all__:
        assert hasattr(plugin_api, name)


async def test_the_example_of_the_docstring_works() -> None:
    text = plugin_api.__doc__ or ""
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    found: dict[str, object] = {}
    exec(code, found)
    plugin = found["Counter"]
    assert isinstance(plugin, type)
    async with running(plugin) as bench:
        client = await bench.connect()
        assert await client.request("add", {"a": 1, "b": 2}) == {"sum": 3}
