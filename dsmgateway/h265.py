"""H.265 as DualCam cameras write it, to the plain stream that players and ffmpeg know.

What is known of the container: a header of 36 bytes that begins with ``PTMF`` stands before units of H.265 that begin
with start codes (Annex B of the standard); its other bytes are the vendor's secret, and are not looked at. Takes blocks
of any size and holds little more than one. Opens no files.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from dsmgateway.errors import GatewayError

#: Length of a header, ``PTMF`` and what follows it.
HEADER_BYTES = 36
_LONGEST_START_CODE_BYTES = 4
_START_CODE = re.compile(rb"\x00\x00\x00?\x01")
#: Without a start code in the right place after it, ``PTMF`` is four bytes of a picture.
_HEADER = re.compile(rb"PTMF.{%d}(?=\x00\x00\x00?\x01)" % (HEADER_BYTES - 4), re.DOTALL)
#: Enough to tell what a file is.
_HEAD_BYTES = HEADER_BYTES + _LONGEST_START_CODE_BYTES
#: At the end of what is there, this much may be the beginning of a header.
_UNDECIDED_BYTES = _HEAD_BYTES - 1
#: Bytes that are shown of a file that is something else.
_SHOWN_BYTES = 8


class VideoError(GatewayError):
    """These are not the bytes of a video in H.265; the sentence says what they are."""


def annex_b(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Return the plain stream in blocks; raises `VideoError` at once if the bytes do not begin like H.265.

    A file that begins with a start code is plain already and comes out as it is.
    """
    source = iter(blocks)
    head = b""
    for block in source:
        head += block
        if len(head) >= _HEAD_BYTES:
            break
    whole = itertools.chain([head], source)
    if _START_CODE.match(head):
        return whole
    if _HEADER.match(head):
        return _without_headers(whole)
    raise VideoError(_what_it_is(head))


def _without_headers(blocks: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for block in blocks:
        buffer = held + block
        begin = 0
        for header in _HEADER.finditer(buffer):
            if begin < header.start():
                yield buffer[begin : header.start()]
            begin = header.end()
        stop = max(begin, len(buffer) - _UNDECIDED_BYTES)
        if begin < stop:
            yield buffer[begin:stop]
        held = buffer[stop:]
    if held:
        yield held


def _what_it_is(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head[4:8] == b"ftyp":
        return "an MP4 already: copy it as it is"
    if head.startswith(b"\xff\xd8\xff"):
        return "a picture, not a video"
    if head.startswith(b"PTMF"):
        return f"no H.265 in it: no start code follows the {HEADER_BYTES} bytes of its PTMF header"
    return f"no H.265 in it: begins with {head[:_SHOWN_BYTES].hex(' ')}"
