"""What is inside the files that simulated cameras offer: pictures given, or random bytes made by a seed.

Thousands of cameras share one pool of random bytes, so that a file costs no memory of its own. Knows nothing of the
wire.
"""

from __future__ import annotations

import hashlib
import random
from typing import Protocol

#: Size of the pool that random contents are cut from; a prime, so that a packet put in a wrong place never fits.
_POOL_BYTES = 1_048_583


class Content(Protocol):
    """The bytes of one file, read in pieces."""

    @property
    def size(self) -> int:
        """The size in bytes."""

    def read(self, offset_bytes: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset_bytes`` on; fewer only at the end."""


class BytesContent:
    """A content that is in memory as it is; cameras may share it."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """The size in bytes."""
        return len(self._data)

    def read(self, offset_bytes: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset_bytes`` on."""
        return self._data[offset_bytes : offset_bytes + length]


class RandomPool:
    """Random bytes by a seed, of which any number of different contents are cut."""

    __slots__ = ("_pool", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._pool = random.Random(f"pool {seed}").randbytes(_POOL_BYTES)

    def content(self, name: str, size: int) -> RandomContent:
        """Return the content called ``name``, of ``size`` bytes: the same for the same seed, name and size."""
        head = hashlib.sha256(f"{self._seed} {name}".encode()).digest()[:16]
        return RandomContent(self._pool, head, size)


class RandomContent:
    """Sixteen bytes of its own, then the pool from a place of its own on, around and around."""

    __slots__ = ("_head", "_pool", "_start", "size")

    def __init__(self, pool: bytes, head: bytes, size: int) -> None:
        self._pool = pool
        self._head = head
        self._start = int.from_bytes(head, "big") % len(pool)
        self.size = size

    def read(self, offset_bytes: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset_bytes`` on."""
        end = min(offset_bytes + length, self.size)
        data = self._head[offset_bytes:end]
        while (position := offset_bytes + len(data)) < end:
            place = (self._start + position) % len(self._pool)
            data += self._pool[place : place + end - position]
        return data


def whole(content: Content) -> bytes:
    """Return all bytes of ``content``."""
    return content.read(0, content.size)
