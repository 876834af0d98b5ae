"""What a plugin may ask of a device, and what it is refused before anything is asked."""

import pytest

from rsocket_broker.plugin_api import ApplicationError, Device, Invalid, Plugin
from rsocket_broker.plugin_api.device import LEVELS, MAX_LINK, at_least, check_link
from rsocket_broker.plugin_api.testing import running


class Idle(Plugin):
    id = "Idle"


@pytest.mark.parametrize("uri", ["shop://cart/3", "https://x.example/a?b=c&d=%20#e", "x-y.z+1:opaque", "a:" + "x" * 99])
def test_a_link_has_a_scheme(uri: str) -> None:
    assert check_link(uri) == uri


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    "uri", ["", "cart", "-n com.x/.Y", "shop:", "shop://a b", "shop://a\nb", "1a:b", "a:\0", "://x", "a:\ud83d"]
)
def test_what_is_no_link_is_refused(uri: str) -> None:
    with pytest.raises(Invalid, match="must have a scheme"):
        check_link(uri)


def test_a_link_has_an_end() -> None:
    with pytest.raises(Invalid, match="longer than"):
        check_link("a:" + "x" * MAX_LINK)


def test_levels_go_from_one_on() -> None:
    assert at_least("error") == {"error", "fatal"}
    assert at_least("unknown") == set(LEVELS)
    with pytest.raises(Invalid, match="no level 'loud'"):
        at_least("loud")


async def test_a_client_without_a_device_says_so() -> None:
    async with running(Idle) as bench:
        client = await bench.connect()
        with pytest.raises(ApplicationError, match="cannot be reached"):
            await client.app.device_access()
        assert issubclass(Device, object)
        assert await client.app.wake()
        assert not await client.app.wake()
