"""The files that the generator's cameras deliver: content, paths and frames, the same for whoever knows the numbers.

All files are made of the same random packets but for the first packet, which begins with who sends it and ends so that
the chained CRC after it is 0. So every later frame is the same for all cameras, and need not be made anew for each,
while no two files have the same content. Knows no socket and no clock.
"""

from __future__ import annotations

import hashlib
import random
import struct
from dataclasses import dataclass
from functools import lru_cache

from dsmgateway.commands import Data, EnhancedData, Init, MetadataResponse, Path, Start, Sync
from dsmgateway.crc import crc16
from dsmgateway.packets import PACKET_BYTES
from dsmgateway.simulator.identity import imei_of

UNIFIED_PROTOCOL = 6
#: INIT settings with and without a file that is ready; the other bits are those of an idle tracker.
_FILE_IS_READY, _NOTHING_IS_READY = 0x42000400, 0x40000400
#: Time, type, trigger, position, events, driver of a DSM camera (4.6).
_METADATA = struct.pack(">IBBiiH10s", 1_762_000_000, 1, 3, 54_687_157, 25_279_652, 4, b"0123456789")
_JSON = b'{"version":1,"file":{"file_type":1,"file_timestamp":1762000000},"cam_trigger":{"type":3}}'
_BASE = random.Random(20261122).randbytes(1 << 20)


def base(packet: int) -> bytes:
    """Return packet number ``packet`` (from 0) of every file but the first packet of each."""
    begin = packet * PACKET_BYTES % len(_BASE)
    # Stamped, so that packets of a long file differ though the random bytes begin again.
    return struct.pack(">I", packet) + _BASE[begin + 4 : begin + PACKET_BYTES]


@dataclass(frozen=True, slots=True)
class File:
    """File ``number`` of camera ``camera`` in run ``run``; the sizes of real photos are 27 to 120 KB."""

    camera: int
    run: int
    number: int
    size: int

    @property
    def imei(self) -> str:
        return imei_of(self.camera)

    @property
    def path(self) -> bytes:
        """The path on the device, without its NUL."""
        return b"dsm/picture/%06d/%06d.jpg" % (self.run, self.number)

    @property
    def first(self) -> bytes:
        """The first packet, after which the CRC is 0."""
        head = struct.pack(">QIII", self.camera, self.run, self.number, self.size)
        body = head + base(0)[len(head) :]
        if self.size < PACKET_BYTES:
            return body[: self.size]
        body = body[: PACKET_BYTES - 2]
        return body + crc16(body).to_bytes(2, "little")

    @property
    def crc(self) -> int:
        """The CRC-16 of the whole file, as START says it."""
        return crc16(self.first) if self.size <= PACKET_BYTES else _chain(self.size, 1)[-1]

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(self.first)
        digest.update(_after_first(self.size))
        return digest.hexdigest()


def size_of(sizes: tuple[int, int], camera: int, number: int) -> int:
    """Return the size of a camera's file: spread evenly over these (least, most), in 64 steps so that frames recur."""
    least, most = sizes
    return least + (camera * 37 + number * 11) % 64 * (most - least) // 64


def packets(size: int) -> int:
    """Return how many packets a file of this size has."""
    return -(-size // PACKET_BYTES)


def frames_bytes(size: int, protocol_id: int) -> int:
    """Return how many bytes the frames of such a file have."""
    return size + packets(size) * (10 if protocol_id >= UNIFIED_PROTOCOL else 6)


def _packet(size: int, number: int) -> bytes:
    return base(number)[: size - number * PACKET_BYTES]


@lru_cache(maxsize=256)
def _after_first(size: int) -> bytes:
    return b"".join(_packet(size, number) for number in range(1, packets(size)))


@lru_cache(maxsize=4096)
def _chain(size: int, packet: int) -> list[int]:
    """Return the CRCs of the frames from ``packet`` (1 or more) on, after a SYNC there."""
    crc, chain = 0, []
    for number in range(packet, packets(size)):
        crc = crc16(_packet(size, number), crc)
        chain.append(crc)
    return chain


def _frame(protocol_id: int, packet: int, data: bytes, crc: int) -> bytes:
    if protocol_id >= UNIFIED_PROTOCOL:
        return EnhancedData(packet * PACKET_BYTES, data, crc).encode()
    return Data(data, crc).encode()


@lru_cache(maxsize=4096)
def frames_from(size: int, packet: int, protocol_id: int) -> tuple[bytes, ...]:
    """Return the frames from ``packet`` (1 or more) on, as they are after a SYNC there; the same for every camera."""
    numbers = range(packet, packets(size))
    return tuple(
        _frame(protocol_id, number, _packet(size, number), crc)
        for number, crc in zip(numbers, _chain(size, packet), strict=True)
    )


def first_frame(file: File, protocol_id: int) -> bytes:
    """Return the frame that only this file has."""
    return _frame(protocol_id, 0, file.first, crc16(file.first))


def init(file: File | int, protocol_id: int) -> bytes:
    """Return an INIT that offers ``file``, or one of a camera that has nothing to send."""
    camera, settings = (file.camera, _FILE_IS_READY) if isinstance(file, File) else (file, _NOTHING_IS_READY)
    return Init(protocol_id, int(imei_of(camera)), settings).encode()


def path(file: File) -> bytes:
    """Return the PATH of a file."""
    return Path(file.path + b"\0").encode()


def start(file: File) -> bytes:
    """Return the START of a file."""
    return Start(file.size, file.crc).encode()


def sync(packet: int) -> bytes:
    """Return the SYNC before a packet."""
    return Sync(packet * PACKET_BYTES).encode()


def metadata(protocol_id: int) -> bytes:
    """Return what a camera says of any of its files."""
    return MetadataResponse(_JSON if protocol_id >= UNIFIED_PROTOCOL else _METADATA).encode()
