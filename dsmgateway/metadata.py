"""What a camera says about a file (METADATA, 4.6), of every family, as one value; the raw bytes are always kept.

Which layout a body has follows from the protocol, from the file's name on the device, and from the body's length, in
this order. Metadata never fails a transfer: what can't be read is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dsmgateway import metadata_json as js
from dsmgateway.families import UNIFIED_PROTOCOL, Camera, Family, Kind, format_of, row_of
from dsmgateway.metadata_layouts import (
    ADAS_BYTES,
    ADAS_TRIGGERS,
    BASE_BYTES,
    DSM_BYTES,
    DUALCAM_FILE_TYPES,
    DUALCAM_TRIGGERS,
    FILE_TYPES,
    TRIGGERS,
    FileType,
    Layout,
    event_names,
    read,
)

#: 2018-01-01: no camera of these families is older.
_EARLIEST_S = 1_514_764_800
#: So far may a device's clock be ahead of ours.
_AHEAD_S = 86_400
#: A JSON time from here on is in milliseconds: it would be the year 5138 in seconds, and is 1973 in milliseconds.
_MILLISECONDS_FROM = 100_000_000_000
#: No layout has room for a larger time.
_TIME_END = 1 << 64
_UNKNOWN = "unknown"

#: Some fields of `Metadata`, by name.
_Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Metadata:
    """One METADATA response; every field but ``raw`` is None where the layout does not have it or it is unreadable.

    ``time`` (the device's clock, which can be wrong) and ``trigger_time`` are seconds since 1970, ``latitude`` and
    ``longitude`` degrees, ``duration_s`` is the length of a video, ``frame_rate`` frames per second, ``time_zone_min``
    minutes east of UTC. ``file_type``, ``trigger`` and ``event_bits`` are the numbers on the wire; ``cam_trigger`` is
    the camera's own trigger, as JSON has it. ``document`` is the whole JSON object. A frame rate of 0 and a photo's
    length of 0 say nothing.
    """

    raw: bytes = field(repr=False)
    layout: Layout | None = None
    version: float | str | None = None
    time: float | None = None
    file_type: int | None = None
    file_type_name: str | None = None
    kind: Kind | None = None
    camera: Camera | None = None
    trigger: int | None = None
    trigger_name: str | None = None
    trigger_time: float | None = None
    latitude: float | None = None
    longitude: float | None = None
    duration_s: float | None = None
    frame_rate: float | None = None
    time_zone_min: int | None = None
    event_bits: int | None = None
    driver: str | None = None
    cam_trigger: float | str | None = None
    document: Mapping[str, object] | None = field(default=None, hash=False, repr=False)

    @classmethod
    def parse(cls, raw: bytes, protocol_id: int = 5, device_path: bytes = b"") -> Metadata:
        """Read as much of ``raw`` as is there; never raises.

        ``device_path`` is the file's path without NUL, or its identifier; empty if it is not known. A whole JSON object
        is JSON in every protocol. From protocol 6 on a body that only begins like one has no layout: it is JSON that
        was cut, not binary.
        """
        row = row_of(device_path)
        by_path: _Fields = {"kind": format_of(device_path).kind, "camera": row.camera}
        return cls(raw, **_without_fillers(by_path | _read(raw, protocol_id, row.family, by_path)))

    @property
    def events(self) -> list[str] | None:
        """The names of the events that were seen; a bit without a name is ``bit_N``."""
        return None if self.event_bits is None else event_names(self.event_bits)

    @property
    def identity(self) -> str:
        """What tells this file from others offered under the same name: time in ms and file type, ``1571840452123-4``.

        Empty where either is not known; a clock at 0 was never set, so that it tells nothing.
        """
        return f"{self._time_ms}-{self.file_type}" if self.time and self.file_type is not None else ""

    @property
    def captured(self) -> str | None:
        """``time`` as ISO 8601 in UTC with milliseconds, None where it is not known or after the year 9999."""
        if self.time is None:
            return None
        try:
            moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=self._time_ms)
        except OverflowError:
            return None
        return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"

    @property
    def _time_ms(self) -> int:
        return round((self.time or 0) * 1000)

    def is_plausible(self, received_s: float) -> bool | None:
        """Tell whether ``time`` can be right for a file received then (seconds since 1970); None without a time."""
        return None if self.time is None else _EARLIEST_S <= self.time <= received_s + _AHEAD_S

    def to_json(self, received_s: float | None = None) -> dict[str, object]:
        """Return what is known as a JSON object, numbers beside their names, ``raw`` in hex; see docs/metadata.md."""
        known: dict[str, object] = {
            "layout": self.layout.value if self.layout else None,
            "version": self.version,
            "time": self.time,
            "captured": self.captured,
            "captured_plausible": None if received_s is None else self.is_plausible(received_s),
            "file_type": self.file_type,
            "file_type_name": self.file_type_name,
            "kind": self.kind.value if self.kind else None,
            "camera": self.camera.value if self.camera else None,
            "trigger": self.trigger,
            "trigger_name": self.trigger_name,
            "trigger_time": self.trigger_time,
            "cam_trigger": self.cam_trigger,
            "latitude": self.latitude,
            "longitude": self.longitude,
            "duration_s": self.duration_s,
            "frame_rate": self.frame_rate,
            "time_zone_min": self.time_zone_min,
            "events": self.events,
            "driver": self.driver,
            "document": self.document,
        }
        return {name: value for name, value in known.items() if value is not None} | {"raw": self.raw.hex()}


def _read(raw: bytes, protocol_id: int, family: Family, by_path: _Fields) -> _Fields:
    """Return the fields that the body says; ``by_path`` are those that the path does."""
    document = js.document_of(raw)
    if document is not None:
        return _of_json(document)
    if protocol_id >= UNIFIED_PROTOCOL and js.begins_like_document(raw):
        return {}
    if family is Family.DUALCAM and not _contradicts_dualcam(raw):
        return _of_dualcam(raw, by_path)
    return _of_dsm(raw, family, by_path)


def _without_fillers(fields: _Fields) -> _Fields:
    """Drop the zeros that stand where there is no video: its length can be 0 by rounding, its frame rate cannot."""
    if fields.get("duration_s") == 0 and fields["kind"] is Kind.PHOTO:
        fields["duration_s"] = None
    if fields.get("frame_rate") == 0:
        fields["frame_rate"] = None
    return fields


def _contradicts_dualcam(raw: bytes) -> bool:
    """Tell whether a DualCam file's body is DSM's or ADAS's after all.

    It has the length of one of those, where no field of DualCam ends, and what would be its file type is none.
    """
    return len(raw) in (ADAS_BYTES, DSM_BYTES) and raw[1] not in DUALCAM_FILE_TYPES


def _of_dsm(raw: bytes, family: Family, by_path: _Fields) -> _Fields:
    """Read DSM or ADAS, which share all but the end: the length tells, and of the shortest one the camera."""
    length = len(raw)
    if length < BASE_BYTES:
        return {}
    is_adas = length == ADAS_BYTES or (length == BASE_BYTES and family is Family.ADAS)
    layout = Layout.ADAS if is_adas else Layout.DSM
    wire = read(layout, raw)
    # A trigger is the camera's; the layout tells it only where the path does not.
    from_adas = family is Family.ADAS or (is_adas and family is not Family.DSM)
    return dict(
        layout=layout,
        time=wire["time"],
        **_of_type(wire, FILE_TYPES, by_path),
        trigger=wire["trigger"],
        trigger_name=(ADAS_TRIGGERS if from_adas else TRIGGERS).get(wire["trigger"], _UNKNOWN),
        latitude=_within(wire["latitude_e6"] / 1_000_000, 90),
        longitude=_within(wire["longitude_e6"] / 1_000_000, 180),
        duration_s=wire.get("duration_s"),
        event_bits=wire.get("event_bits"),
        driver=_driver(wire.get("reversed_driver", b"")),
    )


def _of_dualcam(raw: bytes, by_path: _Fields) -> _Fields:
    """Read DualCam up to protocol 5, older versions of which end earlier."""
    wire = read(Layout.DUALCAM, raw)
    if not wire:
        return {}
    trigger = wire.get("trigger")
    return dict(
        layout=Layout.DUALCAM,
        version=wire["version"],
        time=_seconds(wire.get("time_ms")),
        **_of_type(wire, DUALCAM_FILE_TYPES, by_path),
        trigger=trigger,
        trigger_name=None if trigger is None else DUALCAM_TRIGGERS.get(trigger, _UNKNOWN),
        trigger_time=_seconds(wire.get("trigger_time_ms")),
        latitude=_within(wire.get("latitude"), 90),
        longitude=_within(wire.get("longitude"), 180),
        duration_s=wire.get("duration_s"),
        frame_rate=wire.get("frame_rate"),
        time_zone_min=wire.get("time_zone_min"),
    )


def _of_json(document: Mapping[str, object]) -> _Fields:
    """Read the unified protocol's JSON; no table of its numbers is published, so that they get no names."""

    def at(*names: str) -> object:
        return js.member(document, *names)

    driver = js.text(at("driver_name"))
    return dict(
        layout=Layout.JSON,
        version=_number_or_text(at("version")),
        time=_time_of(js.amount(at("file", "file_timestamp"))),
        file_type=js.integer(at("file", "file_type")),
        file_type_name=js.text(at("file", "file_type")),
        trigger=js.integer(at("fm_trigger", "type")),
        trigger_name=js.text(at("fm_trigger", "type")),
        latitude=_within(js.number(at("location", "latitude")), 90),
        longitude=_within(js.number(at("location", "longitude")), 180),
        duration_s=js.amount(at("file", "duration")),
        frame_rate=js.amount(at("file", "framerate")),
        driver=driver if driver and driver.isprintable() else None,
        cam_trigger=_number_or_text(at("cam_trigger", "type")),
        document=document,
    )


def _of_type(wire: _Fields, types: Mapping[int, FileType], by_path: _Fields) -> _Fields:
    """Return what the file type's number says; of kind and camera the path says what it does not."""
    number = wire.get("file_type")
    if number is None:
        return {}
    known = types.get(number)
    return {
        "file_type": number,
        "file_type_name": known.name if known else _UNKNOWN,
        "kind": known.kind if known else by_path["kind"],
        "camera": by_path["camera"] or (known.camera if known else None),
    }


def _seconds(milliseconds: float | None) -> float | None:
    """Return milliseconds as seconds, whole ones as an integer."""
    if milliseconds is None:
        return None
    return milliseconds / 1000 if milliseconds % 1000 else int(milliseconds // 1000)


def _time_of(stamp: float | None) -> float | None:
    """Return a JSON time, which is in seconds or milliseconds, in seconds."""
    if stamp is None or stamp >= _TIME_END:
        return None
    return _seconds(stamp) if stamp >= _MILLISECONDS_FROM else stamp


def _number_or_text(value: object) -> float | str | None:
    number = js.number(value)
    return js.text(value) if number is None else number


def _within(degrees: float | None, limit: int) -> float | None:
    """Return degrees that there are; not so NaN, which is within nothing."""
    return degrees if degrees is not None and abs(degrees) <= limit else None


def _driver(reversed_name: bytes) -> str | None:
    """Return the driver's name, None where the field is filler (not ASCII, not printable, or empty)."""
    if not reversed_name.isascii():
        return None
    name = reversed_name[::-1].decode("ascii").strip(" \0")
    return name if name and name.isprintable() else None
