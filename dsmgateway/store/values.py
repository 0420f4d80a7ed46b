"""What goes into the store and what comes out of it, as frozen values.

Says what a file's identity is, also where the device names it by an identifier that means whichever file is next;
knows nothing of folders, descriptors or the wire.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from dsmgateway import packets
from dsmgateway.packets import PACKET_BYTES, last_packet

_IMEI = re.compile(r"[0-9]{15}")
_QUALIFIER = re.compile(r"[ -~]{0,64}")


@dataclass(frozen=True, slots=True)
class Offered:
    """The identity of one file that a device offers.

    ``imei`` is 15 digits, ``device_path`` the path as the device says it (without its closing NUL; any bytes),
    ``size_bytes`` and ``start_crc`` come from START; a ``start_crc`` of 0 means that the CRC is not known.

    ``in_packets``: START counted packets, so ``size_bytes`` is the most the file can have, a multiple of 1024, and the
    file ends inside its last packet. ``qualifier`` is what else tells the file from others offered under the same
    ``device_path``: None where the path alone names it, "" where it is an identifier and nothing more is known, else
    what is known, at most 64 printable ASCII characters.

    ``key`` is 32 hexadecimal digits for all of this: the name of the part in the spool. Raises `ValueError` for
    anything else, because the IMEI becomes the name of a folder.
    """

    imei: str
    device_path: bytes
    size_bytes: int
    start_crc: int
    in_packets: bool = False
    qualifier: str | None = None
    key: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not _IMEI.fullmatch(self.imei):
            raise ValueError(f"an IMEI has 15 digits, unlike {self.imei!r}")
        if self.size_bytes < 0 or not 0 <= self.start_crc <= 0xFFFF:
            raise ValueError(f"no such size or CRC: {self.size_bytes}, {self.start_crc}")
        if self.in_packets and self.size_bytes % PACKET_BYTES:
            raise ValueError(f"no such size in packets: {self.size_bytes}")
        if self.qualifier is not None and not _QUALIFIER.fullmatch(self.qualifier):
            raise ValueError(f"no such qualifier: {self.qualifier!r}")
        object.__setattr__(self, "key", hashlib.sha256(self._text()).hexdigest()[:32])

    @property
    def last_packet_bytes(self) -> int:
        """Return the offset at which the last packet begins: the highest one that a device is ever asked for."""
        return last_packet(self.size_bytes)

    def is_whole(self, held_bytes: int) -> bool:
        """Say whether so many bytes from the start can be the whole file."""
        return packets.is_whole(held_bytes, self.size_bytes, self.in_packets)

    def resume_offset(self, held_bytes: int) -> int:
        """Return where the device shall go on when so much is proven to be held, in bytes; 0 means on a new part.

        With a qualifier one packet is asked for that is held already, to be compared.
        """
        if self.qualifier == "":
            return 0
        offset_bytes = packets.resume_offset(held_bytes, self.size_bytes)
        return offset_bytes if self.qualifier is None else max(offset_bytes - PACKET_BYTES, 0)

    def _text(self) -> bytes:
        """Return all fields, unambiguously: what is plain begins with a digit, the rest with a letter."""
        text = b"%b %d %d %b" % (self.imei.encode(), self.size_bytes, self.start_crc, self.device_path)
        if not self.in_packets and self.qualifier is None:
            return text
        qualifier = "-" if self.qualifier is None else f"{len(self.qualifier)} {self.qualifier}"
        return b"%b %b %b" % (b"packets" if self.in_packets else b"bytes", qualifier.encode(), text)

    def __str__(self) -> str:
        return f"{self.device_path!r} of {self.imei}"


@dataclass(frozen=True, slots=True)
class Record:
    """One stored file: where it is (``path``, relative to the data folder) and what is in it.

    ``crc16`` is the CRC-16 of the content as the protocol counts it, or None where an old sidecar does not tell;
    ``qualifier`` is that of its offer.
    """

    path: str
    imei: str
    device_path: bytes
    size_bytes: int
    sha256: str
    crc16: int | None
    qualifier: str | None = None

    def is_same_file(self, other: Record) -> bool:
        """Say whether both are one file: device, path, size and content agree, and the qualifiers do not object."""
        mine = (self.imei, self.device_path, self.size_bytes, self.sha256)
        theirs = (other.imei, other.device_path, other.size_bytes, other.sha256)
        return mine == theirs and are_compatible(self.qualifier, other.qualifier)


def are_compatible(one: str | None, other: str | None) -> bool:
    """Say whether two qualifiers can be those of one file: they are equal, or of one of them nothing is known."""
    return one == other or "" in (one, other)


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer to a finish: the file is durable at ``path`` (relative to the data folder).

    ``duplicate``: the same device, path and content was there already, and no second copy was made. ``crc_differs``:
    START said another CRC-16 than the file has.
    """

    path: str
    sha256: str
    size_bytes: int
    duplicate: bool
    crc_differs: bool = False


@dataclass(frozen=True, slots=True)
class Differs:
    """The answer to the finish of a comparison whose last packet was not that of the stored file."""


@dataclass(frozen=True, slots=True)
class Expired:
    """A part that was deleted because nobody had written to it for too long: its name, size and age."""

    name: str
    size_bytes: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """A part that was deleted because there are too many: its name, what was held of it, and which bound it was."""

    name: str
    size_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """What start-up found and did; every tuple holds paths relative to the data folder.

    ``rolled_forward``: files whose finish was cut off and is now complete. ``rolled_back``: records of a finish dropped
    because the part is still there. ``set_aside``: files in the tree that did not match their record. ``expired``:
    parts deleted by age. ``parts`` and ``part_bytes``: what can go on. ``index_rebuilt``: the index of a tree
    was missing, corrupt or of another version, and ``indexed`` files were read back from the tree; ``unreadable``
    sidecars could not be.
    """

    rolled_forward: tuple[str, ...] = ()
    rolled_back: tuple[str, ...] = ()
    set_aside: tuple[str, ...] = ()
    expired: tuple[Expired, ...] = ()
    parts: int = 0
    part_bytes: int = 0
    index_rebuilt: bool = False
    indexed: int = 0
    unreadable: tuple[str, ...] = ()
