"""The binary layouts of METADATA (4.6) and what the numbers in them mean: tables, and one reader for all of them.

A layout is a row of fields without gaps, big-endian; a body can end after any of them. Knows nothing of JSON, and not
which layout a body has: that is `dsmgateway.metadata`.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Any

from dsmgateway.families import Camera, Kind


class Layout(enum.Enum):
    """How a METADATA body is written."""

    DSM = "dsm"
    ADAS = "adas"
    DUALCAM = "dualcam"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Part:
    """One field on the wire: ``form`` is its format character in `struct`, ``says`` its unit and meaning."""

    name: str
    form: str
    says: str

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return struct.calcsize(f">{self.form}")


_BASE = (
    Part("time", "I", "seconds since 1970, the device's clock"),
    Part("file_type", "B", "see file types"),
    Part("trigger", "B", "see triggers"),
    Part("latitude_e6", "i", "1e-6 degrees, north is positive"),
    Part("longitude_e6", "i", "1e-6 degrees, east is positive"),
)
PARTS: dict[Layout, tuple[Part, ...]] = {
    Layout.DSM: (
        *_BASE,
        Part("event_bits", "H", "see events"),
        Part("reversed_driver", "10s", "the driver's name, last letter first"),
    ),
    Layout.ADAS: (*_BASE, Part("duration_s", "B", "length of the video in seconds")),
    Layout.DUALCAM: (
        Part("version", "B", "of this layout; 4 is the newest known"),
        Part("file_type", "B", "see file types"),
        Part("time_ms", "Q", "milliseconds since 1970, the device's clock"),
        Part("trigger", "B", "see triggers"),
        Part("duration_s", "H", "length of the video in seconds"),
        Part("frame_rate", "B", "frames per second"),
        Part("time_zone_min", "h", "minutes east of UTC"),
        Part("latitude", "d", "degrees, north is positive"),
        Part("longitude", "d", "degrees, east is positive"),
        Part("trigger_time_ms", "Q", "milliseconds since 1970; from version 4 on"),
    ),
}
#: What DSM and ADAS have in common; nothing shorter is one of them.
BASE_BYTES = sum(part.size_bytes for part in _BASE)
#: The only length that is ADAS for certain.
ADAS_BYTES = BASE_BYTES + 1
DSM_BYTES = sum(part.size_bytes for part in PARTS[Layout.DSM])


def read(layout: Layout, raw: bytes) -> dict[str, Any]:
    """Return those fields of a binary layout that are whole, by their names on the wire."""
    values: dict[str, Any] = {}
    offset = 0
    for part in PARTS[layout]:
        if offset + part.size_bytes > len(raw):
            break
        (values[part.name],) = struct.unpack_from(f">{part.form}", raw, offset)
        offset += part.size_bytes
    return values


@dataclass(frozen=True, slots=True)
class FileType:
    """What a file type's number says; ``camera`` is None where the layout belongs to one camera anyway."""

    name: str
    kind: Kind
    camera: Camera | None = None


#: File types of DSM and ADAS.
FILE_TYPES: dict[int, FileType] = {
    0: FileType("video", Kind.VIDEO),
    1: FileType("snapshot", Kind.PHOTO),
    2: FileType("current_snapshot", Kind.PHOTO),
    3: FileType("retransmitted_snapshot", Kind.PHOTO),
}
DUALCAM_FILE_TYPES: dict[int, FileType] = {
    4: FileType("front_photo", Kind.PHOTO, Camera.FRONT),
    8: FileType("rear_photo", Kind.PHOTO, Camera.REAR),
    16: FileType("front_video", Kind.VIDEO, Camera.FRONT),
    32: FileType("rear_video", Kind.VIDEO, Camera.REAR),
}

#: Triggers of ADAS: those of DSM that have nothing to do with a DSM camera. None is published for ADAS itself.
ADAS_TRIGGERS: dict[int, str] = {
    0: "none",
    1: "din1",
    2: "din2",
    3: "din3",
    4: "din4",
    5: "crash",
    6: "towing",
    7: "idling",
    8: "geofence",
    9: "unplug",
    10: "green_driving",
    11: "server_request",
    12: "periodic",
}
#: Triggers of DSM.
TRIGGERS: dict[int, str] = ADAS_TRIGGERS | {13: "dsm_event", 14: "dsm_file_retransmit"}
DUALCAM_TRIGGERS: dict[int, str] = {
    0: "server_request",
    1: "din1",
    2: "din2",
    3: "crash",
    4: "towing",
    5: "idling",
    6: "geofence",
    7: "unplug",
    8: "green_driving",
    9: "periodic",
    10: "din3",
    11: "din4",
}

#: Names of the DSM event bits, lowest bit first.
EVENT_BITS = (
    "drowsiness",
    "distraction",
    "yawning",
    "phone",
    "smoking",
    "driver_absence",
    "mask",
    "seat_belt",
    "g_sensor",
)


def event_names(bits: int) -> list[str]:
    """Return the names of the events whose bits are set, lowest first; a bit without a name is ``bit_N``."""
    return [EVENT_BITS[bit] if bit < len(EVENT_BITS) else f"bit_{bit}" for bit in range(16) if bits >> bit & 1]
