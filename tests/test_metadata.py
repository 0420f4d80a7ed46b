"""What a camera says about a file."""

import struct

import pytest
from conftest import METADATA
from hypothesis import given
from hypothesis import strategies as st

from dsmgateway.metadata import EVENT_BITS, FILE_TYPES, TRIGGERS, Metadata


def test_whole_layout() -> None:
    """The 26 bytes of a DSM camera are read field by field, the driver's name turned round."""
    assert Metadata.parse(METADATA) == Metadata(
        raw=METADATA,
        time=1763800000,
        file_type=2,
        trigger=13,
        latitude=54.687157,
        longitude=25.279652,
        event_bits=0b1001,
        driver="JONAS K",
    )


def test_to_json_names_the_numbers() -> None:
    """The sidecar gets numbers beside their names, and the raw bytes."""
    assert Metadata.parse(METADATA).to_json() == {
        "time": 1763800000,
        "file_type": 2,
        "file_type_name": "current_snapshot",
        "trigger": 13,
        "trigger_name": "dsm_event",
        "latitude": 54.687157,
        "longitude": 25.279652,
        "events": ["drowsiness", "phone"],
        "driver": "JONAS K",
        "raw": METADATA.hex(),
    }


@pytest.mark.parametrize("length", range(65))
def test_every_length_is_read_as_far_as_it_goes(length: int) -> None:
    """No length fails: 14 bytes are the base, 15 the ADAS layout, from 16 on events, from 26 on the driver."""
    raw = (METADATA * 3)[:length]
    metadata = Metadata.parse(raw)
    assert metadata.raw == raw
    assert (metadata.time is not None) == (length >= 14)
    assert (metadata.video_length is not None) == (length == 15)
    assert (metadata.events is not None) == (length >= 16)
    assert metadata.driver == ("JONAS K" if length >= 26 else None)
    assert metadata.to_json()["raw"] == raw.hex()


@given(st.binary(max_size=64))
def test_no_bytes_fail(raw: bytes) -> None:
    """Whatever a device says, metadata is read, kept raw, and fit for JSON."""
    known = Metadata.parse(raw).to_json()
    assert bytes.fromhex(str(known["raw"])) == raw
    assert None not in known.values()


def test_adas_layout() -> None:
    """The byte after the base is the video's length in seconds when it is the last one."""
    known = Metadata.parse(METADATA[:14] + b"\x1e").to_json()
    assert known["video_length"] == 30
    assert "events" not in known and "driver" not in known


def test_coordinates_are_signed() -> None:
    """South and west are negative."""
    metadata = Metadata.parse(struct.pack(">IBBii", 0, 0, 0, -33_868_820, -151_209_290))
    assert (metadata.latitude, metadata.longitude) == (-33.86882, -151.20929)


@pytest.mark.parametrize("bit", range(16))
def test_every_event_bit_has_a_name(bit: int) -> None:
    """Known bits have the document's names, the others their number."""
    events = Metadata.parse(METADATA[:14] + struct.pack(">H", 1 << bit)).events
    assert events == [EVENT_BITS[bit] if bit < 9 else f"bit_{bit}"]


def test_no_event_is_an_empty_list() -> None:
    """No event is something else than not knowing."""
    assert Metadata.parse(METADATA[:14] + b"\0\0").to_json()["events"] == []


def test_unknown_numbers_are_kept() -> None:
    """A file type or trigger that the document does not have keeps its number."""
    known = Metadata.parse(METADATA[:4] + b"\xfe\xfd" + METADATA[6:]).to_json()
    assert (known["file_type"], known["file_type_name"]) == (0xFE, "unknown")
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
