"""One file's arithmetic: where it stands, which SYNC and which data fit, what to ask for next, whether it is whole.

All offsets are bytes from 0. Knows nothing of states, commands to come, disks or clocks.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dsmgateway.packets import last_packet, resume_offset


class SyncVerdict(enum.Enum):
    """What a SYNC means for the file."""

    #: Data follows at the place it names.
    GO_ON = enum.auto()
    #: It lies beyond what is held; taking it would leave a hole.
    HOLE = enum.auto()
    #: Only the last packet was asked for, to compare it, but the device begins before that.
    NOT_THE_LAST_PACKET = enum.auto()


@dataclass(slots=True)
class Transfer:
    """One file under way: ``held_bytes`` are on our side, all data goes to ``held_bytes`` next.

    ``comparing``: only the last packet is asked for, to be compared with a stored file.
    """

    device_path: bytes
    size_bytes: int
    start_crc: int
    held_bytes: int = 0
    comparing: bool = False
    #: RESUMEs since the last data that fitted.
    unanswered: int = 0
    #: RESUMEs that no SYNC has answered yet: so many SYNCs are due, and no fault of the device.
    syncs_due: int = 0
    #: RESUMEs beyond the first, and steps found again, on this connection.
    resyncs: int = 0
    #: The device began beyond what we hold: ask from the start.
    from_start: bool = False

    @property
    def last_packet_bytes(self) -> int:
        """Where the last packet begins."""
        return last_packet(self.size_bytes)

    @property
    def resume_bytes(self) -> int:
        """Where the device shall go on: the last packet boundary held, before the last packet where all is held."""
        if self.from_start:
            return 0
        return resume_offset(self.held_bytes, self.size_bytes)

    @property
    def remaining_bytes(self) -> int:
        """What is missing."""
        return self.size_bytes - self.held_bytes

    @property
    def whole(self) -> bool:
        """Whether all bytes are held."""
        return self.held_bytes == self.size_bytes

    def opened(self, offset_bytes: int, comparing: bool) -> None:
        """Begin where the store says the file stands."""
        self.held_bytes, self.comparing = offset_bytes, comparing
        self.from_start, self.unanswered = False, 0

    def sync(self, offset_bytes: int) -> SyncVerdict:
        """Judge a SYNC; where it says GO_ON, ``held_bytes`` is what it names (a rewind overwrites)."""
        if self.comparing and offset_bytes != self.last_packet_bytes:
            return SyncVerdict.NOT_THE_LAST_PACKET
        if offset_bytes > self.held_bytes or offset_bytes >= self.size_bytes:
            return SyncVerdict.HOLE
        self.held_bytes = offset_bytes
        self.from_start = False
        return SyncVerdict.GO_ON

    def fits(self, length_bytes: int, offset_bytes: int | None) -> bool:
        """Tell whether data of this length, which the device may have placed itself, can be taken."""
        return length_bytes <= self.remaining_bytes and offset_bytes in (None, self.held_bytes)

    def take(self, length_bytes: int) -> None:
        """Count data that fits."""
        self.held_bytes += length_bytes
        self.unanswered = 0
