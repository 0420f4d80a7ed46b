"""What simulated trackers are."""

from __future__ import annotations

import pytest

from dsmgateway.errors import ConfigError
from dsmgateway.families import Family
from dsmgateway.simulator.frames import Enhanced
from dsmgateway.simulator.makes import Make, mixed_make


@pytest.mark.parametrize(
    "wrong",
    [
        {"families": ()},
        {"families": (Family.UNKNOWN,)},
        {"families": (Family.DSM, Family.DSM)},
        {"protocol_id": -1},
        {"protocol_id": 0x10000},
        {"protocol_id": 5, "enhanced": Enhanced.ALWAYS},
        {"protocol_id": 5, "enhanced": Enhanced.MIX},
        {"protocol_id": 6, "enhanced": Enhanced.ALWAYS, "counts_packets": True},
    ],
)
def test_trackers_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    """A make that no tracker has is none."""
    with pytest.raises(ConfigError):
        Make(**wrong)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("first", [1, 11, 991])
def test_ten_trackers_of_a_mix_are_one_of_every_kind(seed: int, first: int) -> None:
    """Every family in both generations, alone, and DSM with DualCam on one tracker."""
    makes = [mixed_make(seed, number) for number in range(first, first + 10)]
    kinds = {(make.families, make.protocol_id >= 6) for make in makes}
    carried = [(Family.DSM,), (Family.ADAS,), (Family.DUALCAM,), (Family.DASHCAM,), (Family.DSM, Family.DUALCAM)]
    assert kinds == {(families, is_unified) for families in carried for is_unified in (False, True)}


def test_mix_has_every_protocol_and_every_kind_of_frames() -> None:
    """Among many trackers there are protocols 5 to 7, and ENHANCED_DATA always, never and now and then."""
    makes = [mixed_make(3, number) for number in range(1, 101)]
    assert {make.protocol_id for make in makes} == {5, 6, 7}
    assert {make.enhanced for make in makes if make.protocol_id > 5} == set(Enhanced)


def test_mix_is_that_of_the_seed_and_the_number() -> None:
    """The same seed gives the same trackers, another one others; so it does for the number 0, too."""
    mixes = [[mixed_make(seed, number) for number in range(40)] for seed in (1, 1, 2)]
    assert mixes[0] == mixes[1] != mixes[2]
