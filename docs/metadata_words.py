"""What the page on metadata says beyond the tables of the code: units, meanings, and one example a layout.

Which layout has which name is not written down: it is what the code finds in examples that have every field.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

from dsmgateway.metadata import Metadata
from dsmgateway.metadata_layouts import Layout

#: When the files of the examples were received.
RECEIVED_S = 1_763_800_060
_TIME_S = 1_763_800_000
_PLACE_E6 = (54_687_157, 25_279_652)
_PLACE = (54.687157, 25.279652)
_DOCUMENT = {
    "version": 1,
    "file": {"file_type": 2, "file_timestamp": _TIME_S, "duration": 10, "framerate": 25},
    "fm_trigger": {"type": "din1"},
    "cam_trigger": {"type": 3},
    "location": {"latitude": _PLACE[0], "longitude": _PLACE[1]},
    "driver_name": "JONAS K",
    "speed": 71,
}


@dataclass(frozen=True, slots=True)
class Example:
    """One METADATA body, and the file that it is about."""

    body: bytes
    protocol_id: int
    device_path: bytes

    def read(self) -> Metadata:
        """What the gateway makes of it."""
        return Metadata.parse(self.body, self.protocol_id, self.device_path)


EXAMPLES: dict[Layout, Example] = {
    Layout.DSM: Example(
        struct.pack(">IBBiiH10s", _TIME_S, 2, 13, *_PLACE_E6, 0b1001, b"   K SANOJ"),
        5,
        b"dsm/picture/251122/082640.jpg",
    ),
    Layout.ADAS: Example(struct.pack(">IBBiiB", _TIME_S, 0, 5, *_PLACE_E6, 10), 5, b"mdas9/video/251122/082640.mp4"),
    Layout.DUALCAM: Example(
        struct.pack(">BBQBHBhddQ", 4, 32, _TIME_S * 1000 + 123, 3, 10, 25, 120, *_PLACE, _TIME_S * 1000 - 2000),
        5,
        b"%videor",
    ),
    Layout.JSON: Example(json.dumps(_DOCUMENT).encode(), 6, b"dashcam/video/251122/082640.mp4"),
}

#: Not shown: the other way to write JSON, with names for numbers and numbers for names, of a camera that is known.
OTHER_JSON = Example(
    b'{"file": {"file_type": "video"}, "fm_trigger": {"type": 1}}', 6, b"dualcam_front/video/251122/082640.mp4"
)

#: How it is decided which layout a body has, in this order: when, layout.
CHOICE: tuple[tuple[str, str], ...] = (
    ("the whole body is a JSON object (space and NULs around it do not count), in any protocol", "`json`"),
    ("protocol 6 or above, and the body begins with `{`: JSON that was cut", "none"),
    (
        "DualCam, by identifier or path; but not 15 or 26 bytes, where no field of DualCam ends, with a file type "
        "that DualCam does not have",
        "`dualcam`",
    ),
    ("fewer than 14 bytes", "none"),
    ("15 bytes, or 14 of an ADAS file", "`adas`"),
    ("all others", "`dsm`"),
)

#: Unit and meaning of each name in a sidecar.
SIDECAR: dict[str, tuple[str, str]] = {
    "imei": ("15 digits", "the device"),
    "device_path": (
        "text",
        "the file's path on the device, or the identifier by which it was asked for; bytes that are no UTF-8 are "
        "written `\\xff`",
    ),
    "device_path_hex": ("hex", "the same, exactly"),
    "qualifier": (
        "milliseconds since 1970, hyphen, number",
        "capture time and file type by the camera's metadata, which tell a file from others of the same identifier; "
        "missing for a file with a path, empty where the metadata does not tell",
    ),
    "family": ("`dsm`, `adas`, `dualcam`, `dashcam`, `unknown`", "by the path or identifier"),
    "camera": ("`dsm`, `adas`, `front`, `rear`", "by the path or identifier; missing where that does not tell"),
    "kind": ("`photo`, `video`", "by the path or identifier; missing where that does not tell"),
    "media_type": ("such as `image/jpeg`", "by the path or identifier; missing where that does not tell"),
    "path": ("text", "where the file was stored, relative to the data folder"),
    "size": ("bytes", "of the stored file"),
    "sha256": ("hex", "of the stored file"),
    "crc16": ("number", "of the stored file, by the protocol's polynomial, with a start value of 0"),
    "start_crc": ("number", "the CRC that START told; 0: none, as with all real cameras so far"),
    "start_crc_matched": ("true, false; or null", "whether that is `crc16`; null where START told none"),
    "first_seen": ("ISO 8601, UTC", "when the first connection began to deliver the file, by the gateway's clock"),
    "received": ("ISO 8601, UTC", "when the file was whole, by the gateway's clock; the file's name begins with it"),
    "connections": ("number", "connections that it took"),
    "bytes_received_twice": ("bytes", "what came of the file more than once, over all these connections"),
    "peer": ("address and port", "where the last of these connections came from"),
    "protocol_id": ("number", "the protocol version in INIT"),
    "metadata": ("object; or null", "what the camera said, see below; null where it said nothing"),
}

#: Unit and meaning of each name in a sidecar's ``metadata``.
NAMES: dict[str, tuple[str, str]] = {
    "layout": ("text", "which of the layouts below the body has; missing: none, and only `raw` counts"),
    "version": ("number; in JSON also text", "version of the layout"),
    "time": ("seconds since 1970", "the device's clock when the file was taken or asked for; it can be wrong"),
    "captured": ("ISO 8601, UTC", "`time` for people; missing after the year 9999"),
    "captured_plausible": (
        "true, false",
        "false: `time` is before 2018 or more than a day after receipt; missing where it was not compared",
    ),
    "file_type": ("number", "see file types"),
    "file_type_name": ("text", "its name, `unknown` if it has none; in JSON the device's own text"),
    "kind": ("`photo`, `video`", "by the file type; where that does not tell, and always in JSON, by the path"),
    "camera": (
        "`dsm`, `adas`, `front`, `rear`",
        "by the path or identifier; where that does not tell, by the file type of DualCam",
    ),
    "trigger": ("number", "why the file was taken, see triggers; in JSON `fm_trigger`"),
    "trigger_name": ("text", "its name, `unknown` if it has none; in JSON the device's own text"),
    "trigger_time": ("seconds since 1970", "when it was triggered, by the device's clock"),
    "cam_trigger": ("number or text", "the camera's own trigger"),
    "latitude": ("degrees", "north is positive; missing when beyond 90"),
    "longitude": ("degrees", "east is positive; missing when beyond 180"),
    "duration_s": ("seconds", "length of the video; missing when a photo has 0"),
    "frame_rate": ("frames per second", "of the video; missing when it is 0"),
    "time_zone_min": ("minutes", "the device's time zone, east of UTC is positive"),
    "events": ("list of texts", "what the DSM camera saw, see events"),
    "driver": ("text", "name of the driver that was recognised; missing when it is filler"),
    "document": ("object", "the whole JSON, so that keys that nobody knows are kept"),
    "raw": ("hex", "the body as it came; it is always there"),
}

#: What is known of a table of numbers, and how well.
DOUBTS: tuple[tuple[str, str], ...] = (
    (
        "DSM",
        "published by the vendor; that coordinates are signed, and file types 0, 1 and 3, are from its test server",
    ),
    (
        "ADAS",
        "length and fields are in the vendor's text on DSM, a table of triggers is published nowhere. Taken are those "
        "of DSM that need no DSM camera: likely, but not seen on the wire. 13 and 14 are `unknown`",
    ),
    ("DualCam", "seen on the wire, and in the vendor's test server"),
    ("JSON", "the keys are the vendor's test server's. Their numbers have no published tables, so they get no names"),
)
