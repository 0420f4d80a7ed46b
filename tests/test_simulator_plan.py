"""What can be planned for a fleet."""

import pytest

from dsmgateway.errors import ConfigError
from dsmgateway.simulator.device import Tally
from dsmgateway.simulator.plan import Plan, StartCrc


@pytest.mark.parametrize(
    "wrong",
    [
        {"cameras": 0},
        {"files": 0},
        {"attempts": 0},
        {"connects_per_s": 0},
        {"sizes": (0, 10)},
        {"sizes": (10, 9)},
        {"first_camera": -1},
        {"first_camera": 999_999, "cameras": 2},
        {"rate_bytes_s": -1},
        {"timeout_s": -0.5},
    ],
)
def test_numbers_out_of_range_are_refused(wrong):
    """A plan that cannot be carried out is none."""
    with pytest.raises(ConfigError):
        Plan(**wrong)


def crcs(choice: StartCrc) -> list[int]:
    plan = Plan(cameras=10, files=3, start_crc=choice)
    return [delivery.file.crc for device in plan.devices(Tally()) for delivery in device.deliveries]


def test_start_states_the_crc_always_never_or_now_and_then():
    """START has the CRC of the file or 0, as the plan says."""
    assert all(crcs(StartCrc.ALWAYS))
    assert not any(crcs(StartCrc.NEVER))
    assert 0 < sum(map(bool, crcs(StartCrc.RANDOM))) < 30


def test_devices_are_the_same_for_the_same_seed():
    """Files, their sizes and what is said of them depend on the seed and the camera, not on how many there are."""
    one = Plan(cameras=1, files=2, seed=4, first_camera=5).devices(Tally())[0]
    other = Plan(cameras=9, files=2, seed=4, first_camera=1).devices(Tally())[4]
    assert one.imei == other.imei
    for mine, theirs in zip(one.deliveries, other.deliveries, strict=True):
        assert (mine.file.path, mine.file.metadata, mine.file.crc) == (
            theirs.file.path,
            theirs.file.metadata,
            theirs.file.crc,
        )
