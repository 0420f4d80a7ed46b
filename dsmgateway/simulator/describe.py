"""What cameras say about a file (METADATA, 4.6): each layout, written by hand from the protocol, not by our reader.

Which camera says what is `dsmgateway.simulator.cameras`; knows nothing of files' contents.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from datetime import datetime

#: Time s, file type, trigger, latitude, longitude: what DSM and ADAS begin with.
_BASE = struct.Struct(">IBBii")
_DSM_REST = struct.Struct(">H10s")
#: Version, type, time ms, trigger, length s, frames a second, timezone min, latitude, longitude.
_DUALCAM = struct.Struct(">BBQBHBhdd")
_DUALCAM_REST = struct.Struct(">Q")
_DRIVER_BYTES = 10
#: In place of a driver's name where nobody is known.
_FILLER = b"\xff" * _DRIVER_BYTES
_DEGREE = 1_000_000


@dataclass(frozen=True, slots=True)
class Shot:
    """What a camera knows of a file that it took; each layout has room for some of it.

    ``file_type`` and ``trigger`` are the family's own numbers; coordinates are signed degrees, ``events`` are bits,
    ``driver`` is None where nobody is known, and ``triggered`` is when a DualCam was told to, if it says so.
    """

    when: datetime
    file_type: int
    trigger: int
    latitude: float
    longitude: float
    events: int = 0
    driver: str | None = None
    duration_s: int = 0
    frame_rate: int = 0
    timezone_min: int = 0
    triggered: datetime | None = None


def dsm(shot: Shot) -> bytes:
    """Return the 26 bytes of DSM up to protocol 5; a name is cut or filled to 10 ASCII characters and sent reversed."""
    if shot.driver is None:
        driver = _FILLER
    else:
        driver = shot.driver.encode("ascii", "replace")[:_DRIVER_BYTES].ljust(_DRIVER_BYTES)[::-1]
    return _base(shot) + _DSM_REST.pack(shot.events, driver)


def adas(shot: Shot) -> bytes:
    """Return the 15 bytes of ADAS up to protocol 5, whose last one is the video's length."""
    return _base(shot) + bytes([shot.duration_s])


def dualcam(shot: Shot) -> bytes:
    """Return the 32 bytes of DualCam up to protocol 5 (version 3), or 40 where it says when it was triggered (4)."""
    body = _DUALCAM.pack(
        3 if shot.triggered is None else 4,
        shot.file_type,
        _milliseconds(shot.when),
        shot.trigger,
        shot.duration_s,
        shot.frame_rate,
        shot.timezone_min,
        shot.latitude,
        shot.longitude,
    )
    return body if shot.triggered is None else body + _DUALCAM_REST.pack(_milliseconds(shot.triggered))


def unified(shot: Shot) -> bytes:
    """Return the JSON of every camera from protocol 6 on; time in milliseconds."""
    about = {
        "version": 1,
        "file": {
            "file_type": shot.file_type,
            "file_timestamp": _milliseconds(shot.when),
            "duration": shot.duration_s,
            "framerate": shot.frame_rate,
        },
        "fm_trigger": {"type": shot.trigger},
        "cam_trigger": {"type": shot.events},
        "location": {"latitude": round(shot.latitude, 6), "longitude": round(shot.longitude, 6)},
        "driver_name": shot.driver or "",
    }
    return json.dumps(about, ensure_ascii=False, separators=(",", ":")).encode()


def _base(shot: Shot) -> bytes:
    position = round(shot.latitude * _DEGREE), round(shot.longitude * _DEGREE)
    return _BASE.pack(int(shot.when.timestamp()), shot.file_type, shot.trigger, *position)


def _milliseconds(when: datetime) -> int:
    return round(when.timestamp() * 1000)
