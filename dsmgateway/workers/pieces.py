"""Bytes of a pipe as whole pieces, each up to a separator. Pure; what is held of an unfinished one is bounded."""

from __future__ import annotations

from collections.abc import Iterator

#: What a worker process ends each entry of the log with: an entry may have many lines, and none has this byte.
ENTRY_END = b"\0"
#: More than this without a separator is handed out in parts.
MOST_BYTES = 1 << 20


class Pieces:
    """Splits what comes at ``separator``."""

    def __init__(self, separator: bytes, most_bytes: int = MOST_BYTES) -> None:
        self._separator, self._most_bytes = separator, most_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what came and yield each piece that it makes whole, without its separator."""
        self._buffer += data
        *whole, rest = self._buffer.split(self._separator)
        self._buffer = rest
        for piece in whole:
            yield bytes(piece)
        if len(rest) > self._most_bytes:
            yield self.take_rest()

    def take_rest(self) -> bytes:
        """Return what has no separator yet, and hold it no longer."""
        rest, self._buffer = bytes(self._buffer), bytearray()
        return rest
