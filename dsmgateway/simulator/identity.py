"""Who a simulated tracker is, and when its cameras took their files.

Pure functions of numbers; knows nothing of families, files' contents or the wire.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dsmgateway.imei import luhn_digit

#: Type allocation code that every simulated IMEI begins with.
_TYPE_ALLOCATION_CODE = 35691700
#: How many simulated cameras there can be: six digits are left for the serial number.
MAX_CAMERAS = 1_000_000


def imei_of(number: int) -> str:
    """Return the 15 digits of camera ``number`` (0..999,999), check digit included; raises `ValueError`."""
    if not 0 <= number < MAX_CAMERAS:
        raise ValueError(f"the number of a camera must be 0 to {MAX_CAMERAS - 1}, not {number}")
    body = f"{_TYPE_ALLOCATION_CODE}{number:06d}"
    return f"{body}{luhn_digit(body)}"


def taken_at(camera: int, file: int) -> datetime:
    """Return when camera ``camera`` took its file ``file``: no two files of a camera share a second."""
    return datetime(2025, 11, 2, 8, 16, 1, tzinfo=UTC) + timedelta(seconds=camera % 86_400, minutes=file * 7)
