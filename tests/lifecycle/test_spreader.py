import attrs
import pytest

from rsocket_broker.lifecycle.spreader import Outcome, Spread


def test_what_became_of_a_client_is_a_value() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Spread("app@device (adb)", Outcome.DONE).reason = "x"  # type: ignore[misc]
