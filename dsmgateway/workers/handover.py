"""What one process tells another of a connection that it hands over: who the peer is, and what it has said already.

Pure: bytes to a value and back. The connection itself travels beside it, see `dsmgateway.workers.inbox`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from dsmgateway.framing import FIRST_READ_BYTES

#: Bytes of the peer's name and of whom it is counted for.
_HEAD = struct.Struct("!HH")
#: Largest message: what a connection can have brought before and after its INIT, and far more than names take. Small,
#: since all connections that are handed to a process go through one socket.
MAX_BYTES = 4 * FIRST_READ_BYTES


@dataclass(frozen=True, slots=True)
class Handover:
    """``peer`` and ``source`` as `dsmgateway.addresses` writes them, ``said`` is INIT and what follows."""

    peer: str
    source: str
    said: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Return the message."""
        peer, source = self.peer.encode(), self.source.encode()
        return _HEAD.pack(len(peer), len(source)) + peer + source + self.said


def parse(message: bytes) -> Handover:
    """Read a message; raises ValueError when it is none."""
    if len(message) < _HEAD.size:
        raise ValueError("a hand-over without a head")
    peer_bytes, source_bytes = _HEAD.unpack_from(message)
    source_at = _HEAD.size + peer_bytes
    said_at = source_at + source_bytes
    if said_at > len(message):
        raise ValueError(f"a hand-over of {len(message)} bytes whose names take {said_at}")
    return Handover(message[_HEAD.size : source_at].decode(), message[source_at:said_at].decode(), message[said_at:])
