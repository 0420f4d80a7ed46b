"""What an operator has of a connection's bytes, as pieces to decode: raw, hex text or a trace file of ours.

Takes blocks of any size and holds no more than a line of them. Knows nothing of commands, and opens no files.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dsmgateway.decode import Direction
from dsmgateway.errors import GatewayError

#: Enough to tell what the bytes are, and longer than the head of a trace line.
_HEAD_BYTES = 512
#: Longest line: 64 KiB, the most that one read of a socket brings, take 128 KiB in the hex of a trace.
_LONGEST_LINE_BYTES = 1 << 18
_TRACE_LINE = re.compile(rb"([0-9]{1,12}(?:\.[0-9]{1,9})?) (device|gateway)(?: ([0-9a-fA-F]*))?\s*")
_TRACE_HEAD = re.compile(rb"[0-9]+(\.[0-9]+)? (device|gateway)\b")
_TEXT = re.compile(rb"[\x20-\x7e\t\r\n\v\f]*")
#: `xxd` and `tcpdump -x`: an offset with a colon, hex, and after two spaces the same as text.
_OFFSET = re.compile(rb"\s*(?:0x)?[0-9a-fA-F]{4,16}:\s+")
#: `hexdump -C`: an offset, hex, and the same as text between bars; the last line is a lone offset.
_CANONICAL = re.compile(rb"[0-9a-f]{8,16}  (.*?)\|.*\|\s*")
_LONE_OFFSET = re.compile(rb"[0-9a-f]{8,16}\s*")
_PREFIX = re.compile(rb"(?<![0-9a-zA-Z])0[xX]")
_NOT_HEX = re.compile(rb"[^0-9a-fA-F]")
_DIRECTIONS = {direction.value.encode(): direction for direction in Direction}


class CaptureError(GatewayError):
    """The input is neither raw bytes nor hex nor a trace."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of one connection; ``direction`` and ``time`` (seconds) where the input tells them.

    ``cut``: the trace ends in the middle of this piece.
    """

    data: bytes
    direction: Direction | None = None
    time: float | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Capture:
    """``form`` is ``raw bytes``, ``hex`` or ``trace``; the pieces can be read once, raising `CaptureError`."""

    form: str
    pieces: Iterator[Piece]


def read_capture(blocks: Iterable[bytes]) -> Capture:
    """Tell what the input is by its first bytes and give it out as pieces."""
    source = iter(blocks)
    head = b""
    for block in source:
        head += block
        if len(head) >= _HEAD_BYTES or b"\n" in block:
            break
    rest = itertools.chain([head], source)
    if not _TEXT.fullmatch(head):
        return Capture("raw bytes", (Piece(block) for block in rest if block))
    if _TRACE_HEAD.match(head):
        return Capture("trace", _trace_pieces(rest))
    return Capture("hex", _hex_pieces(rest))


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with their ends; of a line that is too long, pieces."""
    buffer = b""
    for block in blocks:
        *whole, buffer = (buffer + block).split(b"\n")
        yield from (line + b"\n" for line in whole)
        if len(buffer) > _LONGEST_LINE_BYTES:
            # A zero at the end may be the first half of a 0x.
            stop = len(buffer) - buffer.endswith(b"0")
            yield buffer[:stop]
            buffer = buffer[stop:]
    if buffer:
        yield buffer


def _trace_pieces(blocks: Iterable[bytes]) -> Iterator[Piece]:
    for number, line in enumerate(_lines(blocks), 1):
        ended = line.endswith(b"\n")
        match = _TRACE_LINE.fullmatch(line)
        if match is None and ended:
            raise CaptureError(f"line {number} is no line of a trace (seconds, device or gateway, hex)")
        if match is None:
            yield Piece(b"", cut=True)
            continue
        digits = match[3] or b""
        if len(digits) % 2 and ended:
            raise CaptureError(f"line {number} has an odd number of hex digits")
        data = bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))
        yield Piece(data, _DIRECTIONS[match[2]], float(match[1]), cut=not ended)


def _hex_pieces(blocks: Iterable[bytes]) -> Iterator[Piece]:
    odd, number, canonical = b"", 1, False
    for line in _lines(blocks):
        if dumped := _CANONICAL.fullmatch(line):
            canonical, text = True, dumped[1]
        elif canonical and _LONE_OFFSET.fullmatch(line):
            text = b""
        else:
            text = _without_offset(line)
        digits = odd + b"".join(_PREFIX.sub(b"", text).split())
        if wrong := _NOT_HEX.search(digits):
            sign = wrong[0].decode("ascii", "backslashreplace")
            raise CaptureError(f"line {number}: {sign!r} is no hex digit")
        stop = len(digits) // 2 * 2
        if stop:
            yield Piece(bytes.fromhex(digits[:stop].decode("ascii")))
        odd = digits[stop:]
        number += line.endswith(b"\n")
    if odd:
        raise CaptureError("an odd number of hex digits: half a byte is missing")


def _without_offset(line: bytes) -> bytes:
    """Return the hex of a dump's line, and any other line as it is."""
    offset = _OFFSET.match(line)
    return line[offset.end() :].split(b"  ")[0] if offset else line
