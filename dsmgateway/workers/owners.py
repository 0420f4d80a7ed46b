"""Which of several processes a device belongs to: always the same one, so that it has one owner at a time.

Pure. What keeps order within a device (takeover, its day, its uploads) then needs no lock between processes.
"""

from __future__ import annotations

import zlib


def owner_of(imei: str, workers: int) -> int:
    """Return the number of the process, from 0 on, that this device belongs to.

    By the upper half of the CRC: the process itself spreads its devices over its lanes by the lower one.
    """
    return (zlib.crc32(imei.encode()) >> 16) % workers
