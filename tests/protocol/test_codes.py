"""Numbers are compared with those of another implementation, and with the specification where it has none."""

import pytest
from rsocket.frame import FrameType as TheirTypes

from rsocket_broker.protocol import codes
from rsocket_broker.protocol.codes import CONNECTION_CLOSE, SETUP_ERRORS, ErrorCode, FrameType, Interaction


@pytest.mark.parametrize("theirs", [one for one in TheirTypes if one.name != "EXT"], ids=lambda one: one.name)
def test_frame_types_have_the_numbers_of_rsocket_py(theirs: TheirTypes) -> None:
    assert FrameType[theirs.name].value == theirs.value


def test_ext_is_the_last_type_that_fits_six_bits() -> None:
    assert int(FrameType.EXT) == 0x3F


def test_an_interaction_is_the_type_of_the_frame_that_starts_it() -> None:
    assert {one.value for one in Interaction} == {4, 5, 6, 7}
    assert Interaction(FrameType.REQUEST_FNF) is Interaction.FIRE_AND_FORGET


def test_flags_stand_where_the_specification_draws_them() -> None:
    assert (codes.IGNORE, codes.METADATA) == (1 << 9, 1 << 8)
    assert codes.FOLLOWS == codes.RESUME == codes.RESPOND == 1 << 7
    assert codes.COMPLETE == codes.LEASE == 1 << 6
    assert codes.NEXT == 1 << 5


def test_error_codes_keep_the_specifications_names() -> None:
    assert CONNECTION_CLOSE == 0x102
    assert {1, 2, 3, 4} == SETUP_ERRORS
    assert int(ErrorCode.APPLICATION_ERROR) == 0x201
