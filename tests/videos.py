"""Real H.265 for tests, as a DualCam would deliver it, and what a player sees of a file. Uses a real ffmpeg."""

from __future__ import annotations

import functools
import re
import subprocess
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg

#: Of a clip: 2 seconds at the rate that the encoder writes into it.
FRAMES, ENCODED_RATE = 50, 25
#: Begins every picture of a clip, with its start code.
_DELIMITER = b"\0\0\0\1\x46\x01"


def ffmpeg() -> str:
    """The path of the program."""
    return str(imageio_ffmpeg.get_ffmpeg_exe())


@functools.cache
def clip(timed: bool = True, reordered: bool = False) -> bytes:
    """A plain stream of H.265: whether it tells its frame rate, and stores pictures in another order than shown."""
    options = f"log-level=none:aud=1:repeat-headers=1:keyint=10:bframes={3 if reordered else 0}"
    options += "" if timed else ":vui-timing-info=0"
    source = f"testsrc=size=160x120:rate={ENCODED_RATE}:duration={FRAMES // ENCODED_RATE}"
    video = ["-c:v", "libx265", "-x265-params", options, "-pix_fmt", "yuv420p"]
    command = [ffmpeg(), "-v", "error", "-f", "lavfi", "-i", source, *video, "-f", "hevc", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def as_delivered(stream: bytes) -> bytes:
    """The stream in DualCam's container: a header before every picture, each with other bytes in it."""
    pictures = [_DELIMITER + rest for rest in stream.split(_DELIMITER)[1:]]
    assert len(pictures) == FRAMES
    assert b"".join(pictures) == stream
    headers = (b"PTMF" + bytes((number * 7 + at) % 256 for at in range(32)) for number in range(FRAMES))
    return b"".join(header + picture for header, picture in zip(headers, pictures, strict=True))


def frames(path: Path) -> list[tuple[Fraction, str]]:
    """What a player shows: the time of each picture in seconds, and the MD5 of its pixels."""
    command = [ffmpeg(), "-v", "error", "-i", f"file:{path}", "-fps_mode", "passthrough", "-f", "framemd5", "-"]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    (unit,) = (Fraction(row.partition(": ")[2]) for row in rows if row.startswith("#tb "))
    cells = [row.split(",") for row in rows if not row.startswith("#")]
    return [(int(cell[2]) * unit, cell[5].strip()) for cell in cells]


def codec(path: Path) -> str:
    """The codec of the video and its tag in the MP4."""
    done = subprocess.run([ffmpeg(), "-i", f"file:{path}"], capture_output=True, text=True, check=False)
    match = re.search(r"Video: (\w+) .*?\((\w+) / 0x", done.stderr)
    assert match is not None, done.stderr
    return f"{match[1]} {match[2]}"
