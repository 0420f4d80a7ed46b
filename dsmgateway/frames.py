"""Runs of file data: the frames at the head of a buffer that are whole and whose chained CRC is right.

Made for speed: offsets over a view, one CRC call a frame, no object a frame. Knows nothing of what to do with bytes
that are not right; see `dsmgateway.framing`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cache

from dsmgateway.commands import HEADER, HEADER_BYTES, Data, EnhancedData
from dsmgateway.crc import crc16
from dsmgateway.packets import PACKET_BYTES

#: The frames of file data; plain integers beside it, because these are looked at for every frame.
FRAMES: dict[int, type[Data] | type[EnhancedData]] = {frame.id: frame for frame in (Data, EnhancedData)}
_DATA, _ENHANCED = int(Data.id), int(EnhancedData.id)
_DATA_SHORTEST, _DATA_LONGEST = Data.lengths
_ENHANCED_SHORTEST, _ENHANCED_LONGEST = EnhancedData.lengths
_U32 = struct.Struct(">I")
#: What a DATA has besides file data: header and CRC.
FRAME_OVERHEAD_BYTES = HEADER_BYTES + 2
#: A DATA with a whole packet, as nearly all are: its header as one number, its length; how many are taken in one go.
_WHOLE_HEADER = int.from_bytes(HEADER.pack(_DATA, PACKET_BYTES + 2), "big")
_WHOLE_BYTES = PACKET_BYTES + FRAME_OVERHEAD_BYTES
_MOST_WHOLE = 64


@dataclass(slots=True)
class DataRun:
    """File data of ``frames`` frames in a row, DATA or ENHANCED_DATA, each with the right chained CRC.

    ``offset_bytes`` is what the first one says of its place in the file (ENHANCED_DATA), else None; where later ones
    say it, it is the place they have. Not frozen, as is no effect: that would triple what it costs to make one.
    """

    data: bytes = field(repr=False)
    frames: int
    offset_bytes: int | None = None


def good_frames(
    buffer: bytearray, crc: int, limit: int, budget: int, whole_packets: bool
) -> tuple[DataRun | None, int, int]:
    """Return the run of whole and good frames at the head, if there is one, the CRC after it and its end.

    Stops after ``limit`` frames (0: none), with the frame that brings ``budget`` bytes of data, before one that brings
    more, so that it comes alone, before one that names another place than it has, and with ``whole_packets`` before one
    that is shorter than a packet, which comes alone, too.
    """
    view = memoryview(buffer)
    end = len(view)
    chunks, crc = _whole_packets(view, crc, min(end // _WHOLE_BYTES, budget // PACKET_BYTES, limit or end))
    stop, length_bytes = len(chunks) * _WHOLE_BYTES, len(chunks) * PACKET_BYTES
    place_bytes: int | None = None
    while stop + HEADER_BYTES <= end and length_bytes < budget and not 0 < limit == len(chunks):
        command_id, length = HEADER.unpack_from(view, stop)
        begin, after = stop + HEADER_BYTES, stop + HEADER_BYTES + length
        if after > end:
            break
        if command_id == _ENHANCED and _ENHANCED_SHORTEST <= length <= _ENHANCED_LONGEST:
            (offset_bytes,) = _U32.unpack_from(view, begin)
            if not chunks:
                place_bytes = offset_bytes
            elif place_bytes is None or offset_bytes != place_bytes + length_bytes:
                break
            begin += _U32.size
        elif command_id != _DATA or not _DATA_SHORTEST <= length <= _DATA_LONGEST:
            break
        data = view[begin : after - 2]
        if chunks and (length_bytes + len(data) > budget or (whole_packets and len(data) < PACKET_BYTES)):
            break
        found = crc16(data, crc)
        if found != view[after - 2] << 8 | view[after - 1]:
            break
        chunks.append(data)
        crc, stop = found, after
        length_bytes += len(data)
        if whole_packets and len(data) < PACKET_BYTES:
            break
    return DataRun(b"".join(chunks), len(chunks), place_bytes) if chunks else None, crc, stop


def _whole_packets(view: memoryview, crc: int, most: int) -> tuple[list[memoryview], int]:
    """Return the data of DATA frames at the head that have a whole packet and the right CRC, and the CRC after them.

    It takes a third of the time of going from header to header; at most ``most`` frames.
    """
    chunks: list[memoryview] = []
    if most > 0:
        numbers = _layout(min(most, _MOST_WHOLE)).unpack_from(view)
        begin = HEADER_BYTES
        for header, said in zip(numbers[::2], numbers[1::2], strict=True):
            data = view[begin : begin + PACKET_BYTES]
            if header != _WHOLE_HEADER or (found := crc16(data, crc)) != said:
                break
            chunks.append(data)
            crc = found
            begin += _WHOLE_BYTES
    return chunks, crc


@cache
def _layout(frames: int) -> struct.Struct:
    """Return header and CRC of each of so many frames with whole packets."""
    return struct.Struct(">" + f"I{PACKET_BYTES}xH" * frames)
