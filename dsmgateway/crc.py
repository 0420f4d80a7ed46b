"""The protocol's CRC-16 as a value that chains ("CRC polynomial expression 0x8408").

Reflected, polynomial 0x8408, no final xor: CRC-16/KERMIT with a chained start value. The start value is 0 after every
SYNC and the CRC of the packet before otherwise, so the CRC of an uninterrupted transfer is that of the whole file.
"""

from __future__ import annotations

from collections.abc import Callable

from fastcrc import crc16 as _fastcrc

_kermit: Callable[..., int] = _fastcrc.kermit


def crc16(data: bytes | bytearray | memoryview, start: int = 0) -> int:
    """Return the CRC-16 (0..0xFFFF) of ``data``, going on from the CRC ``start`` of the bytes before it."""
    return _kermit(data, start)
