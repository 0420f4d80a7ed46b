"""Who a simulated camera is and what it says about a file: IMEI, paths on the device, DSM metadata.

Pure functions of numbers; knows nothing of files' contents or the wire.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

from dsmgateway.imei import luhn_digit

#: Type allocation code that every simulated IMEI begins with.
_TYPE_ALLOCATION_CODE = 35691700
#: How many simulated cameras there can be: six digits are left for the serial number.
MAX_CAMERAS = 1_000_000
#: Metadata of DSM up to protocol 5 (4.6): time, file type, trigger, latitude, longitude, events, driver.
_METADATA = struct.Struct(">IBBiiH10s")
_SNAPSHOT = 1
_DSM_EVENT = 13
_DEGREE = 1_000_000


def imei_of(number: int) -> str:
    """Return the 15 digits of camera ``number`` (0..999,999), check digit included; raises `ValueError`."""
    if not 0 <= number < MAX_CAMERAS:
        raise ValueError(f"the number of a camera must be 0 to {MAX_CAMERAS - 1}, not {number}")
    body = f"{_TYPE_ALLOCATION_CODE}{number:06d}"
    return f"{body}{luhn_digit(body)}"


def taken_at(camera: int, file: int) -> datetime:
    """Return when camera ``camera`` took its file ``file``: no two files of a camera share a second."""
    return datetime(2025, 11, 2, 8, 16, 1, tzinfo=UTC) + timedelta(seconds=camera % 86_400, minutes=file * 7)


def path_at(when: datetime) -> bytes:
    """Return the path on the device, without NUL, of a picture taken at ``when``."""
    return when.strftime("dsm/picture/%y%m%d/%H%M%S.jpg").encode("ascii")


def dsm_metadata(when: datetime, latitude: float, longitude: float, events: int, driver: str) -> bytes:
    """Return the 26 bytes of METADATA that a DSM camera gives for a snapshot taken because of ``events`` (bits).

    Coordinates are signed degrees; the driver's name is cut or filled to 10 ASCII characters and sent reversed.
    """
    name = driver.encode("ascii", "replace")[:10].ljust(10)[::-1]
    position = round(latitude * _DEGREE), round(longitude * _DEGREE)
    return _METADATA.pack(int(when.timestamp()), _SNAPSHOT, _DSM_EVENT, *position, events, name)
