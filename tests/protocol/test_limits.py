"""Limits: presets that hang together, and settings that cannot make sense refused."""

import pytest

from rsocket_broker.protocol.limits import MAX_FRAME, MIB, PLAIN, SECURE, Limits


@pytest.mark.row("A-31")
def test_the_presets_are_what_the_two_endpoints_promise() -> None:
    assert SECURE.message == 64 * MIB
    assert PLAIN.message == MIB
    assert SECURE.frame == MAX_FRAME == 2**24 - 1
    assert SECURE.fragment + 3 == MAX_FRAME


@pytest.mark.parametrize("preset", [SECURE, PLAIN], ids=["secure", "plain"])
def test_a_longest_message_can_be_gathered_queued_and_answered(preset: Limits) -> None:
    assert preset.frame <= preset.message <= preset.reassembly
    assert preset.message <= preset.outgoing
    assert preset.message <= preset.serving
    assert preset.incoming <= preset.incoming_all


def test_an_attacker_on_the_plain_port_is_cheap() -> None:
    assert PLAIN.reassembly + PLAIN.serving + PLAIN.incoming_all + PLAIN.outgoing <= 8 * MIB
    assert PLAIN.streams <= 16


@pytest.mark.parametrize(
    "settings",
    [
        {"frame": MAX_FRAME + 1},
        {"frame": 5},
        {"fragment": 63},
        {"fragment": MAX_FRAME + 1},
        {"message": 1000},
        {"streams": 0},
        {"reassembly": 0},
        {"incoming": 0},
        {"outgoing": 0},
        {"serving": 0},
        {"incoming_all": 0},
        {"lease_requests": 0},
        {"lease_requests": 2**31},
    ],
    ids=str,
)
def test_a_setting_that_makes_no_sense_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"frame|limit|message"):
        Limits(**settings)
