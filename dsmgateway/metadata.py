"""What a camera says about a file (METADATA, 4.6), read as far as it goes; the raw bytes are always kept.

Layout of DSM up to protocol 5: time u32 s | file type u8 | trigger u8 | latitude i32 | longitude i32 (both in 1e-6
degrees, signed) | events u16 | driver, 10 bytes reversed. Shorter ones end earlier; 15 bytes is the ADAS layout, whose
last byte is the video's length. Metadata never fails a transfer: what can't be read is None.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_BASE = struct.Struct(">IBBii")
_EVENTS = struct.Struct(">H")
_BASE_BYTES = _BASE.size
_ADAS_BYTES = _BASE_BYTES + 1
_EVENTS_END = _BASE_BYTES + _EVENTS.size
_DRIVER_END = _EVENTS_END + 10

FILE_TYPES: dict[int, str] = {0: "video", 1: "snapshot", 2: "current_snapshot", 3: "retransmitted_snapshot"}

TRIGGERS: dict[int, str] = {
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
    13: "dsm_event",
    14: "dsm_file_retransmit",
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


@dataclass(frozen=True, slots=True)
class Metadata:
    """One METADATA response; every field but ``raw`` is None where the layout does not have it or it is unreadable.

    ``time`` is the device's clock in Unix seconds (it can be wrong), ``latitude`` and ``longitude`` are degrees,
    ``video_length`` is in seconds, ``file_type``, ``trigger`` and ``event_bits`` are the numbers on the wire.
    """

    raw: bytes = field(repr=False)
    time: int | None = None
    file_type: int | None = None
    trigger: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    video_length: int | None = None
    event_bits: int | None = None
    driver: str | None = None

    @property
    def events(self) -> list[str] | None:
        """The names of the events that were seen; a bit without a name is ``bit_N``."""
        if self.event_bits is None:
            return None
        return [
            EVENT_BITS[bit] if bit < len(EVENT_BITS) else f"bit_{bit}"
            for bit in range(16)
            if self.event_bits >> bit & 1
        ]

    @classmethod
    def parse(cls, raw: bytes) -> Metadata:
        """Read as much of ``raw`` as is there; never raises."""
        if len(raw) < _BASE_BYTES:
            return cls(raw)
        time, file_type, trigger, latitude, longitude = _BASE.unpack_from(raw)
        has_events = len(raw) >= _EVENTS_END
        return cls(
            raw=raw,
            time=time,
            file_type=file_type,
            trigger=trigger,
            latitude=latitude / 1_000_000,
            longitude=longitude / 1_000_000,
            video_length=raw[_BASE_BYTES] if len(raw) == _ADAS_BYTES else None,
            event_bits=_EVENTS.unpack_from(raw, _BASE_BYTES)[0] if has_events else None,
            driver=_driver(raw[_EVENTS_END:_DRIVER_END]) if len(raw) >= _DRIVER_END else None,
        )

    def to_json(self) -> dict[str, object]:
        """Return what is known as a JSON object, numbers beside their names, ``raw`` in hex."""
        known: dict[str, object] = {
            "time": self.time,
            "file_type": self.file_type,
            "file_type_name": FILE_TYPES.get(self.file_type, "unknown") if self.file_type is not None else None,
            "trigger": self.trigger,
            "trigger_name": TRIGGERS.get(self.trigger, "unknown") if self.trigger is not None else None,
            "latitude": self.latitude,
            "longitude": self.longitude,
            "video_length": self.video_length,
            "events": self.events,
            "driver": self.driver,
        }
        return {name: value for name, value in known.items() if value is not None} | {"raw": self.raw.hex()}


def _driver(reversed_name: bytes) -> str | None:
    """Return the driver's name, None where the field is filler (not ASCII, not printable, or empty)."""
    if not reversed_name.isascii():
        return None
    name = reversed_name[::-1].decode("ascii").strip(" \0")
    return name if name and name.isprintable() else None
