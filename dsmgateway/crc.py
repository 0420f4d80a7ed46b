"""The protocol's CRC-16 as a value that chains ("CRC polynomial expression 0x8408").

Reflected, polynomial 0x8408, no final xor: CRC-16/KERMIT with a chained start value. The start value is 0 after every
SYNC and the CRC of the packet before otherwise, so the CRC of an uninterrupted transfer is that of the whole file.
"""

from __future__ import annotations

from collections.abc import Callable

from fastcrc import crc16 as _fastcrc

#: The CRC-16 (0..0xFFFF) of bytes, going on from the CRC of the bytes before them: ``crc16(data, start=0)``. It is the
#: library's own function, since a call of ours around it would take as long as a tenth of a packet.
crc16: Callable[..., int] = _fastcrc.kermit
