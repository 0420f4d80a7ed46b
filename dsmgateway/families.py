"""What kind of camera a file comes from, told by its path on the device, and how its name ends.

Only the path decides, per file: one tracker can carry a DSM camera and a DualCam. Knows nothing of wire or disk.
"""

from __future__ import annotations

import enum
import re


class Family(enum.Enum):
    """A kind of camera, by the vendor's name in lower case."""

    DSM = "dsm"
    ADAS = "adas"
    DUALCAM = "dualcam"
    DASHCAM = "dashcam"
    UNKNOWN = "unknown"


_MARKS = (
    (b"mdas9", Family.ADAS),
    (b"dualcam_front", Family.DUALCAM),
    (b"dualcam_rear", Family.DUALCAM),
    (b"dashcam", Family.DASHCAM),
    (b"dsm", Family.DSM),
)
_EXTENSIONS = ((b".mp4", "mp4"), (b".h265", "h265"), (b".jpg", "jpg"), (b".jpeg", "jpg"), (b"picture", "jpg"))
_UNSAFE = re.compile(rb"[^A-Za-z0-9-]+")
#: Longest stem taken over from the device: enough for every known one, short for any file system.
_STEM_BYTES = 40


def family_of(device_path: bytes) -> Family:
    """Return the family of the camera whose file has this path (without NUL)."""
    path = device_path.lower()
    return next((family for mark, family in _MARKS if mark in path), Family.UNKNOWN)


def extension_of(device_path: bytes) -> str:
    """Return the extension, without a dot, that the stored file gets: ``jpg``, ``mp4``, ``h265`` or ``bin``."""
    path = device_path.lower()
    return next((extension for mark, extension in _EXTENSIONS if mark in path), "bin")


def stem_of(device_path: bytes) -> str:
    """Return the device's file name without folder and extension, made of letters, digits and hyphens only.

    ``dsm/picture/231020/231452.jpg`` gives ``231452``; where nothing is left, ``file``.
    """
    name = device_path.replace(b"\\", b"/").rsplit(b"/", 1)[-1]
    stem = name.rsplit(b".", 1)[0] if b"." in name else name
    return _UNSAFE.sub(b"-", stem).strip(b"-")[:_STEM_BYTES].decode("ascii") or "file"
