"""What a camera says about a file: every layout by example, at every length."""

import struct

import pytest
from conftest import METADATA

from dsmgateway.families import Camera, Kind
from dsmgateway.metadata import Metadata
from dsmgateway.metadata_layouts import (
    ADAS_TRIGGERS,
    DUALCAM_FILE_TYPES,
    DUALCAM_TRIGGERS,
    EVENT_BITS,
    FILE_TYPES,
    TRIGGERS,
    Layout,
)

DSM_PATH = b"dsm/picture/251122/082640.jpg"
ADAS_PATH = b"mdas9/video/251122/082640.mp4"
FRONT_PATH = b"dualcam_front/video/251122/082640.h265"
FRONT_VIDEO = b"%videof"
BASE = METADATA[:14]
#: Version 4, front video, 1763800000.123 s, trigger 3, 10 s, 25 frames/s, UTC+2, position, triggered 2 s before.
DUALCAM = struct.pack(">BBQBHBhddQ", 4, 16, 1763800000123, 3, 10, 25, 120, 54.687157, 25.279652, 1763799998000)
JSON = b"""{"version": 1,
    "file": {"file_type": 2, "file_timestamp": 1763800000, "duration": 10, "framerate": 25},
    "fm_trigger": {"type": 13}, "cam_trigger": {"type": "phone"},
    "location": {"latitude": 54.687157, "longitude": 25.279652}, "driver_name": "JONAS K"}\0"""


# -- DSM and ADAS


def test_dsm() -> None:
    """The 26 bytes of a DSM camera are read field by field, the driver's name turned round."""
    assert Metadata.parse(METADATA, 5, DSM_PATH) == Metadata(
        raw=METADATA,
        layout=Layout.DSM,
        time=1763800000,
        file_type=2,
        file_type_name="current_snapshot",
        kind=Kind.PHOTO,
        camera=Camera.DSM,
        trigger=13,
        trigger_name="dsm_event",
        latitude=54.687157,
        longitude=25.279652,
        event_bits=0b1001,
        driver="JONAS K",
    )


def test_to_json_names_the_numbers() -> None:
    """The sidecar gets numbers beside their names, and the raw bytes."""
    assert Metadata.parse(METADATA).to_json() == {
        "layout": "dsm",
        "time": 1763800000,
        "captured": "2025-11-22T08:26:40.000Z",
        "file_type": 2,
        "file_type_name": "current_snapshot",
        "kind": "photo",
        "trigger": 13,
        "trigger_name": "dsm_event",
        "latitude": 54.687157,
        "longitude": 25.279652,
        "events": ["drowsiness", "phone"],
        "driver": "JONAS K",
        "raw": METADATA.hex(),
    }


@pytest.mark.parametrize("length", range(65))
def test_every_length_of_dsm_is_read_as_far_as_it_goes(length: int) -> None:
    """No length fails: 14 bytes are the base, 15 the ADAS layout, from 16 on events, from 26 on the driver."""
    raw = (METADATA * 3)[:length]
    metadata = Metadata.parse(raw)
    assert metadata.raw == raw
    assert metadata.layout is (None if length < 14 else Layout.ADAS if length == 15 else Layout.DSM)
    assert (metadata.time is not None) == (length >= 14)
    video = Metadata.parse(raw[:4] + b"\0" + raw[5:])
    assert (video.duration_s is not None) == (length == 15)
    assert (metadata.events is not None) == (length >= 16)
    assert metadata.driver == ("JONAS K" if length >= 26 else None)
    assert metadata.to_json()["raw"] == raw.hex()


def test_adas() -> None:
    """The byte after the base is the video's length in seconds when it is the last one."""
    known = Metadata.parse(BASE[:4] + b"\0\x0c" + BASE[6:] + b"\x1e", 5, ADAS_PATH).to_json()
    assert (known["layout"], known["camera"], known["kind"]) == ("adas", "adas", "video")
    assert (known["duration_s"], known["trigger_name"]) == (30, "periodic")
    assert "events" not in known and "driver" not in known


@pytest.mark.parametrize(
    ("path", "length", "layout", "trigger_name"),
    [
        (b"", 14, Layout.DSM, "dsm_event"),
        (DSM_PATH, 14, Layout.DSM, "dsm_event"),
        (ADAS_PATH, 14, Layout.ADAS, "unknown"),
        (b"", 15, Layout.ADAS, "unknown"),
        (DSM_PATH, 15, Layout.ADAS, "dsm_event"),
        (ADAS_PATH, 15, Layout.ADAS, "unknown"),
        (b"", 16, Layout.DSM, "dsm_event"),
        (DSM_PATH, 26, Layout.DSM, "dsm_event"),
        (ADAS_PATH, 26, Layout.DSM, "unknown"),
    ],
)
def test_the_length_tells_the_layout_and_the_path_whose_triggers(
    path: bytes, length: int, layout: Layout, trigger_name: str
) -> None:
    """Trigger 13 is the DSM camera's, whatever the layout; without a path the layout tells the camera."""
    metadata = Metadata.parse(METADATA[:length], 5, path)
    assert (metadata.layout, metadata.trigger, metadata.trigger_name) == (layout, 13, trigger_name)


def test_coordinates_are_signed() -> None:
    """South and west are negative."""
    metadata = Metadata.parse(struct.pack(">IBBii", 0, 0, 0, -33_868_820, -151_209_290))
    assert (metadata.latitude, metadata.longitude) == (-33.86882, -151.20929)


@pytest.mark.parametrize(
    ("latitude", "longitude", "known"),
    [
        (90_000_000, -180_000_000, (90, -180)),
        (90_000_001, 180_000_000, (None, 180)),
        (-90_000_000, 180_000_001, (-90, None)),
        (0x7FFFFFFF, -0x80000000, (None, None)),
    ],
)
def test_places_that_are_not_on_earth(latitude: int, longitude: int, known: tuple[object, object]) -> None:
    """A coordinate that is out of range is not known."""
    metadata = Metadata.parse(struct.pack(">IBBii", 0, 0, 0, latitude, longitude))
    assert (metadata.latitude, metadata.longitude) == known


@pytest.mark.parametrize("bit", range(16))
def test_every_event_bit_has_a_name(bit: int) -> None:
    """Known bits have the document's names, the others their number."""
    events = Metadata.parse(BASE + struct.pack(">H", 1 << bit)).events
    assert events == [EVENT_BITS[bit] if bit < 9 else f"bit_{bit}"]


def test_no_event_is_an_empty_list() -> None:
    """No event is something else than not knowing."""
    assert Metadata.parse(BASE + b"\0\0").to_json()["events"] == []


def test_unknown_numbers_are_kept() -> None:
    """A file type or trigger that the document does not have keeps its number; the path tells the kind then."""
    known = Metadata.parse(METADATA[:4] + b"\xfe\xfd" + METADATA[6:], 5, ADAS_PATH).to_json()
    assert (known["file_type"], known["file_type_name"], known["kind"]) == (0xFE, "unknown", "video")
    assert (known["trigger"], known["trigger_name"]) == (0xFD, "unknown")
    assert 0xFE not in FILE_TYPES and 0xFD not in TRIGGERS


@pytest.mark.parametrize(
    ("filler", "driver"),
    [
        (b"\xff" * 10, None),
        (b"\0" * 10, None),
        (b" " * 10, None),
        (b"ABCD\x80FGHIJ", None),
        (b"ABC\x07EFGHIJ", None),
        (b"\0\0\0\0\0\0\0AVE", "EVA"),
        (b"0123456789", "9876543210"),
    ],
)
def test_driver(filler: bytes, driver: str | None) -> None:
    """The driver is unknown where any byte is filler or cannot be shown."""
    assert Metadata.parse(METADATA[:16] + filler).driver == driver


# -- DualCam


@pytest.mark.parametrize("path", [FRONT_VIDEO, FRONT_PATH])
def test_dualcam(path: bytes) -> None:
    """The 40 bytes of version 4 are read field by field, for an identifier as for a path."""
    assert Metadata.parse(DUALCAM, 5, path) == Metadata(
        raw=DUALCAM,
        layout=Layout.DUALCAM,
        version=4,
        time=1763800000.123,
        file_type=16,
        file_type_name="front_video",
        kind=Kind.VIDEO,
        camera=Camera.FRONT,
        trigger=3,
        trigger_name="crash",
        trigger_time=1763799998,
        latitude=54.687157,
        longitude=25.279652,
        duration_s=10,
        frame_rate=25,
        time_zone_min=120,
    )


ZEROS = DUALCAM[:11] + bytes(3) + DUALCAM[14:]


@pytest.mark.parametrize(
    ("raw", "path", "duration_s"),
    [
        (ZEROS[:1] + b"\x04" + ZEROS[2:], b"%photof", None),
        (ZEROS, FRONT_VIDEO, 0),
        (BASE[:4] + b"\1\0" + BASE[6:] + b"\0", ADAS_PATH, None),
        (BASE[:4] + b"\0\0" + BASE[6:] + b"\0", ADAS_PATH, 0),
        (b'{"file":{"duration":0.0,"framerate":0.0}}', b"dashcam/picture/251122/082640.jpg", None),
        (b'{"file":{"duration":0,"framerate":0}}', b"dashcam/video/251122/082640.mp4", 0),
        (b'{"file":{"duration":0,"framerate":0}}', b"", 0),
    ],
)
def test_zeros_that_say_nothing_are_left_out(raw: bytes, path: bytes, duration_s: int | None) -> None:
    """A photo has no length, and nothing has 0 frames per second; a video can be shorter than a second."""
    metadata = Metadata.parse(raw, 5, path)
    assert (metadata.duration_s, metadata.frame_rate) == (duration_s, None)
    assert "frame_rate" not in metadata.to_json()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_dualcam_before_version_4(version: int) -> None:
    """32 bytes have all but the time of the trigger."""
    raw = bytes([version]) + DUALCAM[1:32]
    metadata = Metadata.parse(raw, 5, FRONT_VIDEO)
    assert (metadata.version, metadata.longitude, metadata.trigger_time) == (version, 25.279652, None)


@pytest.mark.parametrize("length", range(48))
def test_every_length_of_dualcam_is_read_as_far_as_it_goes(length: int) -> None:
    """A field that is not whole is None, and so is all that follows it."""
    raw = (DUALCAM + bytes(8))[:length]
    metadata = Metadata.parse(raw, 5, b"%photor")
    assert metadata.layout is (Layout.DUALCAM if length else None)
    ends = {
        "version": 1,
        "file_type": 2,
        "file_type_name": 2,
        "time": 10,
        "trigger": 11,
        "trigger_name": 11,
        "duration_s": 13,
        "frame_rate": 14,
        "time_zone_min": 16,
        "latitude": 24,
        "longitude": 32,
        "trigger_time": 40,
    }
    assert {name for name in ends if getattr(metadata, name) is not None} == {
        name for name, end in ends.items() if end <= length
    }


@pytest.mark.parametrize("number", DUALCAM_FILE_TYPES)
def test_the_dualcam_type_tells_camera_and_kind(number: int) -> None:
    """Where the path names no camera, the file type does."""
    metadata = Metadata.parse(bytes([1, number]), 5, b"dualcam_front/x")
    known = DUALCAM_FILE_TYPES[number]
    assert (metadata.kind, metadata.camera) == (known.kind, Camera.FRONT)
    assert known.name == f"{known.camera.value if known.camera else ''}_{known.kind.value}"


def test_an_unknown_dualcam_type_leaves_it_to_the_identifier() -> None:
    """Kind and camera are then what was asked for."""
    known = Metadata.parse(bytes([1, 64]), 5, b"%photor").to_json()
    assert known == {
        "layout": "dualcam",
        "version": 1,
        "file_type": 64,
        "file_type_name": "unknown",
        "kind": "photo",
        "camera": "rear",
        "raw": "0140",
    }


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 180.1, 1e300])
def test_dualcam_without_a_position(bad: float) -> None:
    """What is no place is not known."""
    metadata = Metadata.parse(DUALCAM[:16] + struct.pack(">dd", bad, bad), 5, FRONT_VIDEO)
    assert (metadata.latitude, metadata.longitude) == (None, None)


@pytest.mark.parametrize("length", [15, 26])
@pytest.mark.parametrize("path", [b"%photof", FRONT_PATH])
def test_a_dualcam_file_with_metadata_of_dsm(path: bytes, length: int) -> None:
    """A body of DSM's or ADAS's own length, with no DualCam type in it, is what it looks like."""
    metadata = Metadata.parse(METADATA[:length], 5, path)
    assert metadata.layout is (Layout.ADAS if length == 15 else Layout.DSM)
    assert (metadata.time, metadata.camera) == (1763800000, Camera.FRONT)
    assert Metadata.parse(DUALCAM[:length], 5, path).layout is Layout.DUALCAM


def test_dualcam_is_not_guessed_without_its_name() -> None:
    """Where the file's name is not known, binary metadata is DSM's."""
    assert Metadata.parse(DUALCAM).layout is Layout.DSM


@pytest.mark.parametrize("number", DUALCAM_TRIGGERS)
def test_dualcam_triggers_are_numbered_otherwise(number: int) -> None:
    """The families number the same causes in their own ways; ADAS has no trigger of a DSM camera."""
    raw = DUALCAM[:10] + bytes([number])
    assert Metadata.parse(raw, 5, FRONT_VIDEO).trigger_name == DUALCAM_TRIGGERS[number]
    assert set(DUALCAM_TRIGGERS.values()) < set(ADAS_TRIGGERS.values()) < set(TRIGGERS.values())


# -- JSON


@pytest.mark.parametrize("protocol_id", [0, 5, 6, 9])
def test_json(protocol_id: int) -> None:
    """A whole JSON object is JSON in every protocol, also with the NUL that closes a text in C."""
    metadata = Metadata.parse(JSON, protocol_id, DSM_PATH)
    assert metadata.document is not None and metadata.document["driver_name"] == "JONAS K"
    assert metadata == Metadata(
        raw=JSON,
        layout=Layout.JSON,
        version=1,
        time=1763800000,
        file_type=2,
        kind=Kind.PHOTO,
        camera=Camera.DSM,
        trigger=13,
        latitude=54.687157,
        longitude=25.279652,
        duration_s=10,
        frame_rate=25,
        driver="JONAS K",
        cam_trigger="phone",
        document=metadata.document,
    )
    assert hash(metadata) == hash(Metadata.parse(JSON, protocol_id, DSM_PATH))


def test_json_with_names_for_numbers() -> None:
    """Texts are kept as names, numbers as numbers."""
    metadata = Metadata.parse(
        b'{"version":"1.2","file":{"file_type":"video"},"fm_trigger":{"type":"crash"},"cam_trigger":{"type":7}}', 6
    )
    assert (metadata.version, metadata.cam_trigger) == ("1.2", 7)
    assert (metadata.file_type, metadata.file_type_name) == (None, "video")
    assert (metadata.trigger, metadata.trigger_name) == (None, "crash")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"file":3,"location":[1,2],"fm_trigger":null,"cam_trigger":{"type":[]},"driver_name":5,"version":true}',
        b'{"file":{"file_type":true,"file_timestamp":-1,"duration":-1,"framerate":"25"}}',
        b'{"file":{"file_type":2.5,"file_timestamp":1e400},"location":{"latitude":NaN,"longitude":-181}}',
        b'{"file":{"file_timestamp":18446744073709551616},"driver_name":"\\u0007"}',
        b'{"driver_name":" ","fm_trigger":{"type":""}}',
    ],
)
def test_json_that_says_nothing_of_use(body: bytes) -> None:
    """What has another type, or a value that cannot be, is not known; the document is kept."""
    metadata = Metadata.parse(body, 6)
    assert metadata == Metadata(raw=body, layout=Layout.JSON, document=metadata.document)
    assert metadata.document is not None


@pytest.mark.parametrize(
    ("stamp", "time"),
    [
        ("0", 0),
        ("1763800000", 1763800000),
        ("1763800000.5", 1763800000.5),
        ("99999999999", 99999999999),
        ("100000000000", 100000000),
        ("1763800000123", 1763800000.123),
        ("1763800000000.0", 1763800000),
        ("18446744073709551615", 18446744073709551.615),
    ],
)
def test_a_json_time_is_in_seconds_or_milliseconds(stamp: str, time: float) -> None:
    """Its size tells which."""
    metadata = Metadata.parse(b'{"file":{"file_timestamp":%s}}' % stamp.encode(), 6)
    assert (metadata.time, type(metadata.time)) == (time, type(time))


def test_binary_in_the_unified_protocol() -> None:
    """What does not begin like JSON is read as binary."""
    assert Metadata.parse(METADATA, 6, DSM_PATH) == Metadata.parse(METADATA, 5, DSM_PATH)
    assert Metadata.parse(DUALCAM, 6, FRONT_PATH) == Metadata.parse(DUALCAM, 5, FRONT_PATH)


def test_json_that_was_cut_is_not_read_as_binary() -> None:
    """In the unified protocol it has no layout; before, a time can begin with the same byte."""
    cut = JSON[:26]
    assert Metadata.parse(cut, 6, DSM_PATH) == Metadata(cut, kind=Kind.PHOTO, camera=Camera.DSM)
    assert Metadata.parse(cut, 5, DSM_PATH).layout is Layout.DSM
    assert Metadata.parse(b"{" + METADATA[1:], 5, DSM_PATH).driver == "JONAS K"


# -- what is made of the fields


@pytest.mark.parametrize(
    ("raw", "path", "identity"),
    [
        (METADATA, DSM_PATH, "1763800000000-2"),
        (DUALCAM, FRONT_VIDEO, "1763800000123-16"),
        (DUALCAM[:10], FRONT_VIDEO, "1763800000123-16"),
        (DUALCAM[:9], FRONT_VIDEO, ""),
        (DUALCAM[:2] + bytes(8), FRONT_VIDEO, ""),
        (JSON, DSM_PATH, "1763800000000-2"),
        (b'{"file":{"file_timestamp":5,"file_type":"video"}}', DSM_PATH, ""),
        (b"", DSM_PATH, ""),
    ],
)
def test_identity(raw: bytes, path: bytes, identity: str) -> None:
    """Time and type tell files of one name apart; half of it, or a clock that was never set, does not."""
    assert Metadata.parse(raw, 5, path).identity == identity


@pytest.mark.parametrize(
    ("time", "captured"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00.000Z"),
        (1571840452.123, "2019-10-23T14:20:52.123Z"),
        (1571840452.007, "2019-10-23T14:20:52.007Z"),
        (253402300799.999, "9999-12-31T23:59:59.999Z"),
        (253402300800, None),
        (18446744073709551.615, None),
    ],
)
def test_captured(time: float | None, captured: str | None) -> None:
    """The time as a date, as long as there are dates."""
    assert Metadata(b"", time=time).captured == captured


@pytest.mark.parametrize(
    ("time", "plausible"),
    [
        (None, None),
        (0, False),
        (1514764799.999, False),
        (1514764800, True),
        (1763800000, True),
        (1763886400, True),
        (1763886400.001, False),
        (2303684096, False),
    ],
)
def test_is_plausible(time: float | None, plausible: bool | None) -> None:
    """A file is not older than the cameras, and not from the future, but for a clock that is a day fast."""
    metadata = Metadata(b"", time=time)
    assert metadata.is_plausible(1763800000) is plausible
    assert metadata.to_json(1763800000).get("captured_plausible") is plausible
    assert "captured_plausible" not in metadata.to_json()
