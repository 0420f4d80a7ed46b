"""What can be planned for a fleet."""

import pytest

from dsmgateway.errors import ConfigError
from dsmgateway.families import Family, Kind, family_of, format_of
from dsmgateway.simulator.device import CameraFile, Device, Tally
from dsmgateway.simulator.makes import Make
from dsmgateway.simulator.plan import Picture, Plan, StartCrc


@pytest.mark.parametrize(
    "wrong",
    [
        {"cameras": 0},
        {"files": 0},
        {"attempts": 0},
        {"connects_per_s": 0},
        {"sizes": (0, 10)},
        {"sizes": (10, 9)},
        {"video_sizes": (10, 9)},
        {"video_sizes": (0, 9)},
        {"mix": True, "make": Make((Family.ADAS,))},
        {"mix": True, "make": Make(protocol_id=6)},
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


@pytest.mark.parametrize("protocol_id", [5, 6])
def test_pictures_are_offered_as_what_they_are(protocol_id):
    """Each file is a picture whose extension fits, in turn, or has random content where there is none."""
    pictures = tuple(Picture(name, name.encode()) for name in ("a.JPG", "b.jpeg", "c.mp4"))
    make = Make((Family.DASHCAM, Family.DUALCAM), protocol_id)
    plan = Plan(cameras=4, files=10, pictures=pictures, make=make, sizes=(3000, 3000))
    files = [delivery.file for device in plan.devices(Tally()) for delivery in device.deliveries]
    used = {(format_of(file.path).extension, file.source or file.content.size) for file in files}
    assert used == {("jpg", "a.JPG"), ("jpg", "b.jpeg"), ("mp4", "c.mp4"), ("h265", 3000)}


def test_a_picture_whose_name_tells_nothing_is_any_file():
    """What is not known to be something else is offered as everything."""
    plan = Plan(cameras=4, files=5, pictures=(Picture("dump", b"x"),), make=Make((Family.DUALCAM,)))
    assert {file.file.source for device in plan.devices(Tally()) for file in device.deliveries} == {"dump"}


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
    assert told(one) == told(other)


def told(device: Device) -> list[tuple[object, ...]]:
    """Everything that the gateway will learn of a device's files but their content."""
    return [(device.imei, device.protocol_id, *about(delivery.file)) for delivery in device.deliveries]


def about(file: CameraFile) -> tuple[object, ...]:
    return file.path, file.size, file.metadata, file.crc


def test_plain_plan_is_what_it_always_was():
    """A run of before all other families can be repeated with its seed."""
    (device,) = Plan(seed=4, first_camera=5).devices(Tally())
    metadata = "69071346010d034aadee017cb4dd0008202020205620454c4745"
    path = b"dsm/picture/251102/081606.jpg"
    assert told(device) == [("356917000000054", 5, path, 37501, bytes.fromhex(metadata), 13740)]


def test_mixed_fleet_has_all_and_is_the_same_for_the_same_seed():
    """Every family and generation is there, two cameras on one tracker as well; the seed decides about all of it."""
    one, again, other = (Plan(cameras=10, files=4, mix=True, seed=seed).devices(Tally()) for seed in (6, 6, 7))
    assert list(map(told, one)) == list(map(told, again)) != list(map(told, other))
    families = [frozenset(family_of(delivery.file.path) for delivery in device.deliveries) for device in one]
    alone = {frozenset({family}) for family in Family if family is not Family.UNKNOWN}
    assert set(families) == alone | {frozenset({Family.DSM, Family.DUALCAM})}
    generations = {(carried, device.protocol_id >= 6) for carried, device in zip(families, one, strict=True)}
    assert len(generations) == 10
    assert list(map(told, Plan(cameras=1, files=4, mix=True, seed=6, first_camera=4).devices(Tally()))) == [
        told(one[3])
    ]


@pytest.mark.parametrize("protocol_id", [5, 6])
@pytest.mark.parametrize("family", [Family.ADAS, Family.DUALCAM, Family.DASHCAM])
def test_cameras_take_pictures_and_larger_videos(family, protocol_id):
    """Videos have sizes of their own where that is asked for."""
    plan = Plan(files=40, sizes=(10, 20), video_sizes=(100, 200), make=Make((family,), protocol_id))
    (device,) = plan.devices(Tally())
    files = [delivery.file for delivery in device.deliveries]
    kinds = {format_of(file.path).kind: set() for file in files}
    for file in files:
        kinds[format_of(file.path).kind].add(file.size)
    assert kinds.keys() == {Kind.PHOTO, Kind.VIDEO}
    assert max(kinds[Kind.PHOTO]) <= 20 < 100 <= min(kinds[Kind.VIDEO])
    assert len({file.path for file in files}) == (4 if family is Family.DUALCAM and protocol_id == 5 else 40)


def test_start_of_a_file_with_an_identifier_never_states_its_crc():
    """No DualCam has ever done so."""
    (device,) = Plan(files=10, start_crc=StartCrc.ALWAYS, make=Make((Family.DUALCAM,))).devices(Tally())
    assert {delivery.file.crc for delivery in device.deliveries} == {0}


def test_two_cameras_of_a_tracker_take_turns():
    """The files of a tracker are those of its cameras, one after the other."""
    (device,) = Plan(files=5, make=Make((Family.DSM, Family.DUALCAM))).devices(Tally())
    taken = [family_of(delivery.file.path) for delivery in device.deliveries]
    assert taken == [Family.DSM, Family.DUALCAM, Family.DSM, Family.DUALCAM, Family.DSM]


def test_odd_firmware_is_passed_on():
    """Trackers of the plan count as their make does."""
    (device,) = Plan(sizes=(5000, 5000), make=Make(counts_packets=True)).devices(Tally())
    file = device.deliveries[0].file
    assert device.counting(file).total(file.size) == 5
