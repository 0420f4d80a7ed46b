"""The two checksums of a file, counted while it is being written.

CRC-16 is the protocol's; SHA-256 says what the file is, and proves the beginning of a part. Knows no file.
"""

from __future__ import annotations

import hashlib
from typing import Self

from dsmgateway.crc import crc16


class Digests:
    """The checksums of the first ``length_bytes`` bytes of a file."""

    __slots__ = ("_sha256", "crc16", "length_bytes")

    def __init__(self) -> None:
        self.length_bytes = 0
        self.crc16 = 0
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Return the SHA-256 as 64 hexadecimal digits."""
        return self._sha256.hexdigest()

    def update(self, data: bytes | memoryview) -> None:
        """Go on with the bytes that follow."""
        self.crc16 = crc16(data, self.crc16)
        self._sha256.update(data)
        self.length_bytes += len(data)

    def copy(self) -> Self:
        """Return the same checksums, to be continued separately."""
        twin = type(self)()
        twin.length_bytes, twin.crc16 = self.length_bytes, self.crc16
        twin._sha256 = self._sha256.copy()
        return twin
