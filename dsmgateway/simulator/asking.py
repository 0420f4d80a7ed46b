"""How a device is asked for a file, and what it counts in: one strategy for each way, no special cases elsewhere.

Which way holds for a file is told by `dsmgateway.families`. Knows nothing of queues and of what was sent.
"""

from __future__ import annotations

from typing import Protocol

from dsmgateway.commands import Offer
from dsmgateway.families import Unit
from dsmgateway.packets import PACKET_BYTES


class Naming(Protocol):
    """What the gateway says to mean a file whose path or identifier is ``name``."""

    def file_request(self, name: bytes) -> bytes:
        """Return what FILE_REQUEST says."""

    def metadata_request(self, name: bytes) -> bytes:
        """Return what METADATA_REQUEST says."""


class _ByPath:
    """The path that PATH has told, echoed with its NUL; metadata is always that of the file PATH would tell."""

    def file_request(self, name: bytes) -> bytes:
        return name + b"\0"

    def metadata_request(self, name: bytes) -> bytes:
        return b""


class _ByIdentifier:
    """The identifier of a kind of file, which means the next one of that kind."""

    def file_request(self, name: bytes) -> bytes:
        return name

    def metadata_request(self, name: bytes) -> bytes:
        return name


class Counting(Protocol):
    """What START, RESUME and SYNC count; positions are in bytes."""

    unit: Unit

    def total(self, size_bytes: int) -> int:
        """Return what START says of a file, and the highest that RESUME can say."""

    def position_of(self, offset: int) -> int:
        """Return the position that RESUME means."""

    def offset_of(self, position_bytes: int) -> int:
        """Return what SYNC says of a position."""


class _InBytes:
    """Bytes from 0."""

    unit = Unit.BYTES

    def total(self, size_bytes: int) -> int:
        return size_bytes

    def position_of(self, offset: int) -> int:
        return offset

    def offset_of(self, position_bytes: int) -> int:
        return position_bytes


class _InPackets:
    """Packets from 1, the last of which can be shorter; RESUME 0 means the first one as well."""

    unit = Unit.PACKETS

    def total(self, size_bytes: int) -> int:
        return -(-size_bytes // PACKET_BYTES)

    def position_of(self, offset: int) -> int:
        return max(offset - 1, 0) * PACKET_BYTES

    def offset_of(self, position_bytes: int) -> int:
        return position_bytes // PACKET_BYTES + 1


_BY_PATH, _BY_IDENTIFIER = _ByPath(), _ByIdentifier()
_COUNTINGS: dict[Unit, Counting] = {Unit.BYTES: _InBytes(), Unit.PACKETS: _InPackets()}


def naming_of(offer: Offer) -> Naming:
    """Return how a file that is offered by this bit is asked for."""
    return _BY_PATH if offer is Offer.FILE else _BY_IDENTIFIER


def counting_in(unit: Unit) -> Counting:
    """Return how files are counted in this unit."""
    return _COUNTINGS[unit]
