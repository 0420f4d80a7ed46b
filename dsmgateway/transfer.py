"""One file's arithmetic: where it stands, which SYNC and which data fit, what to ask for next, whether it is whole.

What START, RESUME and SYNC say is counted in the transfer's `Unit`; everything else here is bytes from 0. Where packets
are counted, the size is known only to a packet until the last one has come. Knows nothing of states, commands to come,
disks or clocks.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dsmgateway.families import Unit
from dsmgateway.packets import PACKET_BYTES, first_byte, is_whole, resume_offset


class SyncVerdict(enum.Enum):
    """What a SYNC means for the file."""

    #: Data follows at the place it names.
    GO_ON = enum.auto()
    #: It lies beyond what is held; taking it would leave a hole.
    HOLE = enum.auto()
    #: Only the end was asked for, to compare it, but the device goes on elsewhere.
    NOT_COMPARED = enum.auto()
    #: The device counts packets from 1, since a transfer in bytes that is asked for at 0 cannot begin at 1.
    IN_PACKETS = enum.auto()


@dataclass(slots=True)
class Transfer:
    """One file under way: ``held_bytes`` are on our side, all data goes to ``held_bytes`` next.

    ``size`` is what START says, in ``unit``. ``comparing``: only the end is asked for, to be compared with a stored
    file.
    """

    device_path: bytes
    size: int
    start_crc: int
    unit: Unit = Unit.BYTES
    held_bytes: int = 0
    comparing: bool = False
    #: Where the store had it stand when it was opened.
    opened_bytes: int = 0
    #: What tells it from other files under the same name, see `dsmgateway.store.Offered`.
    qualifier: str | None = None
    #: Whether a SYNC has been taken: from then on the unit is beyond doubt.
    synced: bool = False
    #: Whether data has been taken since it was opened.
    taken: bool = False
    #: The device began beyond what we hold: ask from the start.
    from_start: bool = False
    #: The SYNC that showed the unit said that data follows from the start.
    follows_from_start: bool = False

    @property
    def in_packets(self) -> bool:
        """Whether packets are counted."""
        return self.unit is Unit.PACKETS

    @property
    def size_bytes(self) -> int:
        """The size; where packets are counted, the most that it can be."""
        return self.size * PACKET_BYTES if self.in_packets else self.size

    @property
    def resume_bytes(self) -> int:
        """Where the device shall go on: the last packet boundary held, before the last packet where all is held."""
        if self.from_start:
            return 0
        return resume_offset(self.held_bytes, self.size_bytes)

    @property
    def resume_offset(self) -> int:
        """What RESUME says (4.9): 0 for the start of the file in either unit."""
        if self.in_packets and self.resume_bytes:
            return self.resume_bytes // PACKET_BYTES + 1
        return self.resume_bytes

    @property
    def remaining_bytes(self) -> int:
        """What is missing, at most."""
        return self.size_bytes - self.held_bytes

    @property
    def whole(self) -> bool:
        """Whether all bytes are held: of a size in packets, the last packet, however short."""
        return is_whole(self.held_bytes, self.size_bytes, self.in_packets)

    def opened(self, offset_bytes: int, comparing: bool) -> bool:
        """Begin where the store says the file stands; tell whether the data for that place follows already."""
        self.held_bytes, self.opened_bytes, self.comparing = offset_bytes, offset_bytes, comparing
        follows, self.follows_from_start = self.follows_from_start and offset_bytes == 0, False
        self.synced, self.taken, self.from_start = self.synced or follows, False, False
        return follows

    def sync(self, offset: int) -> SyncVerdict:
        """Judge a SYNC (4.10); where it says GO_ON, ``held_bytes`` is what it names (a rewind overwrites)."""
        if not self.synced and not self.in_packets and self.resume_bytes == 0 and offset == 1:
            return SyncVerdict.IN_PACKETS
        offset_bytes = first_byte(offset) if self.in_packets else offset
        if self.comparing and not self.opened_bytes <= offset_bytes <= self.held_bytes:
            return SyncVerdict.NOT_COMPARED
        if offset_bytes > self.held_bytes or offset_bytes >= self.size_bytes:
            return SyncVerdict.HOLE
        self.held_bytes, self.synced, self.from_start = offset_bytes, True, False
        return SyncVerdict.GO_ON

    def count_packets(self) -> None:
        """Take START's size for a number of packets from now on, as after `SyncVerdict.IN_PACKETS`."""
        self.unit, self.held_bytes, self.follows_from_start = Unit.PACKETS, 0, True

    def fits(self, length_bytes: int, frames: int, offset_bytes: int | None) -> bool:
        """Tell whether data of ``frames`` packets, which the device may have placed itself, can be taken.

        Where packets are counted, only the last one of the file can be short.
        """
        if length_bytes > self.remaining_bytes or offset_bytes not in (None, self.held_bytes):
            return False
        is_last = self.held_bytes + frames * PACKET_BYTES == self.size_bytes
        return not self.in_packets or is_last or length_bytes == frames * PACKET_BYTES

    def take(self, length_bytes: int) -> None:
        """Count data that fits."""
        self.held_bytes += length_bytes
        self.taken = True
