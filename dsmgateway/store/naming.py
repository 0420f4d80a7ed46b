"""Names on our disk: where a finished file goes, and whether a path read back can be one of ours.

The device's path is data, never a name: it gives a stem of letters, digits and hyphens, nothing more. Touches no disk.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

from dsmgateway.families import format_of, stem_of

MEDIA = "media"
SPOOL = "spool"
INDEX = "index.sqlite3"
#: Whoever holds the lock on this file uses the data folder.
LOCK = "lock"
#: How the name of a file begins that a starting gateway has in both folders for a moment.
PROBE = ".probe"
#: Seconds of which it is remembered how they are written, since many files have the same: as long as a file takes.
_SECONDS = 256
_FINAL = re.compile(
    r"media/[0-9]{15}/[0-9]{4}/[0-9]{2}/[0-9]{2}/[0-9]{8}T[0-9]{9}Z_[A-Za-z0-9-]{1,40}_[0-9a-f]{8}\.[a-z0-9]{1,8}"
)


def final_path(imei: str, device_path: bytes, received_ms: int, sha256: str) -> str:
    """Return where a file received at ``received_ms`` (since 1970) goes, relative to the data folder."""
    second = _second(received_ms // 1000)
    stamp = f"{second}{received_ms % 1000:03}Z".replace("-", "").replace(":", "")
    name = f"{stamp}_{stem_of(device_path)}_{sha256[:8]}.{format_of(device_path).extension}"
    return f"{MEDIA}/{imei}/{second[:10].replace('-', '/')}/{name}"


def is_final_path(path: str) -> bool:
    """Say whether `final_path` can have returned this; nothing else is ever followed on the disk."""
    return _FINAL.fullmatch(path) is not None and not path.endswith(".json")


def sidecar_path(path: str) -> str:
    """Return the path of the sidecar that belongs to the finished file at ``path``."""
    return path.rpartition(".")[0] + ".json"


def folder_of(path: str) -> str:
    """Return the path of the folder that a file is in."""
    return path.rpartition("/")[0]


def iso_time(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601 in UTC with milliseconds: ``2026-01-31T23:59:59.123Z``."""
    # The fraction by way of microseconds, since a whole number of milliseconds can be a little less as a float.
    milliseconds = int(seconds // 1) * 1000 + round(seconds % 1 * 1_000_000) // 1000
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


@lru_cache(maxsize=_SECONDS)
def _second(seconds: int) -> str:
    """Return whole seconds since 1970 as ISO 8601 in UTC, without the zone: ``2026-01-31T23:59:59``."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
