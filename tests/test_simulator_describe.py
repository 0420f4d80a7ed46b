"""METADATA of simulated cameras, against the layouts of the protocol."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dsmgateway.simulator.describe import Shot, adas, dsm, dualcam, unified

WHEN = datetime(2025, 11, 22, 8, 26, 40, 250_000, tzinfo=UTC)
SHOT = Shot(WHEN, 1, 13, 54.687157, 25.279652, events=9, driver="JONAS K")
VIDEO = Shot(WHEN, 16, 7, -33.5, -70.25, duration_s=30, frame_rate=25, timezone_min=-300)


def test_dsm_is_the_26_bytes_of_a_recorded_one() -> None:
    """Time, type, trigger, signed position, events and the reversed driver stand where a real DSM camera puts them."""
    assert dsm(SHOT).hex() == "692173c0010d034275b50181bca400092020204b2053414e4f4a"


def test_south_and_west_is_negative_and_long_names_are_cut() -> None:
    """Coordinates are signed; a name never makes the body longer."""
    body = dsm(replace(SHOT, latitude=-33.5, longitude=-70.25, driver="ALEKSANDRAS Ž"))
    assert struct.unpack(">ii", body[6:14]) == (-33_500_000, -70_250_000)
    assert len(body) == 26
    assert body[-10:] == b"ARDNASKELA"


def test_unknown_driver_is_filler() -> None:
    """Where nobody is known, the bytes are none of a name."""
    assert dsm(replace(SHOT, driver=None))[-10:] == b"\xff" * 10


def test_adas_is_15_bytes_and_ends_with_the_length() -> None:
    """time u32, type, trigger, latitude i32, longitude i32, video length u8 in seconds."""
    body = adas(replace(VIDEO, file_type=0))
    assert struct.unpack(">IBBiiB", body) == (0x692173C0, 0, 7, -33_500_000, -70_250_000, 30)
    assert len(body) == 15


def test_dualcam_of_version_3_is_32_bytes() -> None:
    """Version, type, time u64 ms, trigger, length u16 s, frames a second, timezone i16 min, two f64 degrees."""
    body = dualcam(VIDEO)
    assert len(body) == 32
    (time_ms, length_s, timezone_min) = (
        int.from_bytes(body[2:10], "big"),
        int.from_bytes(body[11:13], "big"),
        int.from_bytes(body[14:16], "big", signed=True),
    )
    assert (body[0], body[1], time_ms, body[10]) == (3, 16, 0x692173C0 * 1000 + 250, 7)
    assert (length_s, body[13], timezone_min) == (30, 25, -300)
    assert struct.unpack(">dd", body[16:]) == (-33.5, -70.25)


def test_dualcam_of_version_4_says_when_it_was_triggered() -> None:
    """Eight bytes more: u64 ms."""
    body = dualcam(replace(VIDEO, triggered=WHEN - timedelta(seconds=2)))
    assert (len(body), body[0]) == (40, 4)
    assert body[1:32] == dualcam(VIDEO)[1:]
    assert int.from_bytes(body[32:], "big") == 0x692173C0 * 1000 + 250 - 2000


def test_unified_is_json() -> None:
    """From protocol 6 on it is UTF-8 text with the names of the vendor."""
    assert json.loads(unified(replace(SHOT, driver="Ąžuolas", duration_s=5, frame_rate=15)).decode("utf-8")) == {
        "version": 1,
        "file": {"file_type": 1, "file_timestamp": 0x692173C0 * 1000 + 250, "duration": 5, "framerate": 15},
        "fm_trigger": {"type": 13},
        "cam_trigger": {"type": 9},
        "location": {"latitude": 54.687157, "longitude": 25.279652},
        "driver_name": "Ąžuolas",
    }
