"""The camera families: how their files are offered, asked for, counted and named. One table.

A file is either asked for by its path, which the device tells first and which tells the camera (one tracker can carry a
DSM camera and a DualCam), or by an identifier, which names whatever file of that kind is next: DualCam up to protocol
5. Nothing is ever concluded from a size. Knows nothing of bytes on the wire or of our disk.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import lru_cache

from dsmgateway.commands import Offer

#: From this protocol id on every camera is asked by path, counts bytes and describes files in JSON.
UNIFIED_PROTOCOL = 6


class Family(enum.Enum):
    """A kind of camera, by the vendor's name in lower case."""

    DSM = "dsm"
    ADAS = "adas"
    DUALCAM = "dualcam"
    DASHCAM = "dashcam"
    UNKNOWN = "unknown"


class Camera(enum.Enum):
    """Which camera of the vehicle took a file."""

    DSM = "dsm"
    ADAS = "adas"
    FRONT = "front"
    REAR = "rear"


class Kind(enum.Enum):
    """What a file shows."""

    PHOTO = "photo"
    VIDEO = "video"


class Unit(enum.Enum):
    """What START, RESUME and SYNC count."""

    #: Bytes from 0.
    BYTES = "bytes"
    #: Packets of 1024 bytes from 1, the last of which can be shorter; RESUME 0 also means the first one.
    PACKETS = "packets"


@dataclass(frozen=True, slots=True)
class Row:
    """Files of one camera: ``name`` is an identifier, or a part of the path by which the camera is known.

    ``offer`` is the settings bit of INIT that says one is ready; ``kind`` is None where the path tells it.
    """

    name: bytes
    family: Family
    camera: Camera | None
    offer: Offer = Offer.FILE
    kind: Kind | None = None


#: The table; of the rows for paths the first whose name is in the path counts.
ROWS: tuple[Row, ...] = (
    Row(b"%photof", Family.DUALCAM, Camera.FRONT, Offer.FRONT_PHOTO, Kind.PHOTO),
    Row(b"%photor", Family.DUALCAM, Camera.REAR, Offer.REAR_PHOTO, Kind.PHOTO),
    Row(b"%videof", Family.DUALCAM, Camera.FRONT, Offer.FRONT_VIDEO, Kind.VIDEO),
    Row(b"%videor", Family.DUALCAM, Camera.REAR, Offer.REAR_VIDEO, Kind.VIDEO),
    Row(b"mdas9", Family.ADAS, Camera.ADAS),
    Row(b"dualcam_front", Family.DUALCAM, Camera.FRONT),
    Row(b"dualcam_rear", Family.DUALCAM, Camera.REAR),
    Row(b"dashcam", Family.DASHCAM, None),
    Row(b"dsm", Family.DSM, Camera.DSM),
    Row(b"", Family.UNKNOWN, None),
)
#: The identifier of each offer that is asked for without a path.
IDENTIFIERS: dict[Offer, bytes] = {row.offer: row.name for row in ROWS if row.offer is not Offer.FILE}
_BY_IDENTIFIER = {row.name: row for row in ROWS if row.offer is not Offer.FILE}
_BY_PATH = tuple(row for row in ROWS if row.offer is Offer.FILE)


@dataclass(frozen=True, slots=True)
class Format:
    """What a file is: ``extension`` without a dot, and its ``media_type``."""

    extension: str
    media_type: str
    kind: Kind | None


JPEG = Format("jpg", "image/jpeg", Kind.PHOTO)
MP4 = Format("mp4", "video/mp4", Kind.VIDEO)
#: H.265 as cameras write it: DualCam's is in a container of its own.
H265 = Format("h265", "video/h265", Kind.VIDEO)
UNKNOWN_FORMAT = Format("bin", "application/octet-stream", None)
#: The first that is in the path counts.
_FORMATS: tuple[tuple[bytes, Format], ...] = (
    (b".mp4", MP4),
    (b".h265", H265),
    (b".jpg", JPEG),
    (b".jpeg", JPEG),
    (b"picture", JPEG),
)
_FORMAT_OF_KIND = {Kind.PHOTO: JPEG, Kind.VIDEO: H265}
_UNSAFE = re.compile(rb"[^A-Za-z0-9-]+")
#: Longest stem of a stored file: enough for every known one, short for any file system.
_STEM_BYTES = 40


@lru_cache(maxsize=256)
def row_of(device_path: bytes) -> Row:
    """Return the row of the file that has this path (without NUL) or identifier on the device."""
    identified = _BY_IDENTIFIER.get(device_path)
    if identified is not None:
        return identified
    path = device_path.lower()
    return next(row for row in _BY_PATH if row.name in path)


def family_of(device_path: bytes) -> Family:
    """Return the family of the camera whose file has this path (without NUL) or identifier."""
    return row_of(device_path).family


def format_of(device_path: bytes) -> Format:
    """Return what the file with this path or identifier is."""
    kind = row_of(device_path).kind
    if kind is not None:
        return _FORMAT_OF_KIND[kind]
    path = device_path.lower()
    return next((form for mark, form in _FORMATS if mark in path), UNKNOWN_FORMAT)


def unit_of(offer: Offer, protocol_id: int) -> Unit:
    """Return what is counted in the transfer of a file that is offered by this bit."""
    return Unit.BYTES if offer is Offer.FILE or protocol_id >= UNIFIED_PROTOCOL else Unit.PACKETS


def stem_of(device_path: bytes) -> str:
    """Return the name for the stored file, family first, of letters, digits and hyphens only.

    ``dsm/picture/231020/231452.jpg`` gives ``dsm-231452``, ``%photor`` gives ``dualcam-rear-photo``; where nothing is
    left of the device's name, it is ``file``.
    """
    row = row_of(device_path)
    side = (row.camera.value,) if row.camera in (Camera.FRONT, Camera.REAR) else ()
    last = row.kind.value if row.kind else _name(device_path)
    return "-".join((row.family.value, *side, last))[:_STEM_BYTES].rstrip("-")


def _name(device_path: bytes) -> str:
    """Return the device's own file name without folder and extension, as far as it is safe."""
    name = device_path.replace(b"\\", b"/").rsplit(b"/", 1)[-1]
    stem = name.rsplit(b".", 1)[0] if b"." in name else name
    return _UNSAFE.sub(b"-", stem).strip(b"-").decode("ascii") or "file"
