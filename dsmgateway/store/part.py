"""A file being received into a part, and how a part is taken up again after anything whatever.

The essay. The offset at which a device goes on is what the disk can prove, never a size or a number in memory: a part
after a power cut may have its full size and zeros in it. So a checkpoint says in the journal how many bytes there were
and their SHA-256, and a part is resumed at the latest checkpoint whose SHA-256 is that of the bytes found. Bytes beyond
it are cut off; in any doubt the answer is 0 on a new inode, which is always safe. What is proven like that need not be
synced to be believed. A checkpoint that is to outlive a power cut has the bytes synced first, then its record; one for
the end of the process alone is written and no more. The journal begins with the first checkpoint, which most files do
not come to. A part whose fsync failed is never used again, not even after a second fsync that says OK.

A path names one file, an identifier whichever is next, and two files must never be joined. So an offer with a qualifier
goes on one packet earlier than is proven. What the part holds is kept on the disk and every byte that comes for a place
below its end is compared with it; at the first difference the part is discarded. Bytes that agree are not written, so a
connection that ends early leaves the part as it was. A packet in which few byte values occur, or one of many that are
the same, is no proof, since pictures of darkness are full of those: the comparison begins before it. With a qualifier
that says nothing every connection begins at 0.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar

from dsmgateway import packets
from dsmgateway.errors import StoreError
from dsmgateway.store.digests import Digests
from dsmgateway.store.files import Disk, lacks_room
from dsmgateway.store.journal import Checkpoint, Journal, encode_checkpoint, encode_header, read_journal
from dsmgateway.store.spool import JOURNAL, PART, Spool
from dsmgateway.store.upload import Ended, OtherFile, Upload
from dsmgateway.store.values import Offered

#: A packet with fewer different bytes proves nothing by being equal; compressed pictures have some 250.
_TELLING_VALUES = 32
#: So many packets without such a one, and the file is begun anew.
_MOST_COMPARED_PACKETS = 64


@dataclass(slots=True)
class History:
    """What a file has cost so far; it lives on in the journal."""

    first_seen: float
    connections: int = 1
    twice_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """Where parts live: the disk, the spool, and whom to tell that an upload grew by some bytes or has ended."""

    disk: Disk
    spool: Spool
    grown: Callable[[int], None]
    ended: Callable[[Upload], None]


class PartUpload(Upload):
    """An `Upload` into a part of the spool.

    ``proven_bytes``: as far as the part goes that other connections brought; ``digests`` may end before it. With a
    qualifier, what comes now has to agree with it.
    """

    #: Thousands of these are open at a time.
    __slots__ = (
        "_checkpoint_bytes",
        "_descriptor",
        "_disk",
        "_has_journal",
        "_held_bytes",
        "_mark",
        "_named_durably",
        "_path",
        "_reach_bytes",
        "_room",
        "_sealed",
        "digests",
        "history",
    )
    comparing: ClassVar[bool] = False

    def __init__(
        self,
        room: Room,
        offered: Offered,
        descriptor: int,
        digests: Digests,
        history: History,
        proven_bytes: int = 0,
        *,
        has_journal: bool = False,
    ) -> None:
        super().__init__(offered, digests.length_bytes)
        self.history = history
        self.digests = digests
        #: What a rewind is counted from.
        self._mark: Digests | None = None
        self._room = room
        self._disk = room.disk
        self._path = room.spool.part(offered.key)
        self._descriptor = descriptor
        self._has_journal = has_journal
        self._sealed = False
        self._named_durably = False
        #: Where the part ends on the disk, which is beyond the position after a rewind.
        self._reach_bytes = proven_bytes
        self._held_bytes = 0 if offered.qualifier is None else proven_bytes
        #: What the last record of the journal says is there.
        self._checkpoint_bytes = proven_bytes

    def checkpoint(self, *, durable: bool = True) -> None:
        """Append the length and SHA-256 to the journal; ``durable``: make what was written durable first, then it."""
        self.require_open()
        if (self.unsynced_bytes if durable else self.dirty_bytes) == 0:
            return
        with self._fatal():
            if durable:
                with self._set_aside_on_failure():
                    self._disk.fdatasync(self._path, self._descriptor)
            self._append(durable=durable)
            if durable and not self._named_durably:
                self._room.spool.sync()
                self._named_durably = True
        self._checkpoint_bytes = self.position_bytes
        self.dirty_bytes = 0
        if durable:
            self.unsynced_bytes = 0

    def park(self) -> None:
        """As told in `Upload`; a part with which nobody can go on is not kept, or offers alone would fill the spool.

        Nor is a short one where there are too many parts.
        """
        held_bytes = self.position_bytes if self.dirty_bytes else self._checkpoint_bytes
        if self.is_open and not self._is_kept(held_bytes):
            self.abandon(Ended(f"{self.offered} is parked"))
            self._remove(held_bytes)
        else:
            super().park()

    def tidy(self) -> None:
        """After a finish that failed: say in the journal what is durable, as well as may be, or delete the part.

        Deleted is what `park` would not have kept: nobody parks it any more, so it would stay until it expires.
        """
        held_bytes = self.position_bytes if self._sealed else self._checkpoint_bytes
        if held_bytes > self._checkpoint_bytes and self._is_kept(held_bytes):
            with suppress(StoreError):
                self._append(durable=False)
                self._checkpoint_bytes = held_bytes
            held_bytes = self._checkpoint_bytes
        if not self._is_kept(held_bytes):
            self._remove(held_bytes)

    def begin_writing(self) -> None:
        """Let the system begin to write the part out while those of the same group are sealed."""
        with suppress(StoreError):
            self._disk.begin_writing(self._path, self._descriptor)

    def seal(self) -> None:
        """Make the whole file durable and close it; raises `StoreError`, after which the part is not to be used."""
        self.require_whole()
        with self._fatal():
            if self._disk.length(self._path, self._descriptor) != self._reach_bytes:
                raise StoreError(f"check {self._path}: someone else changed the size of this part")
            if self._reach_bytes > self.position_bytes:
                self._disk.truncate(self._path, self._descriptor, self.position_bytes)
            with self._set_aside_on_failure():
                self._disk.fsync(self._path, self._descriptor)
        self._sealed = True
        self.abandon(Ended(f"{self.offered} is finished"))

    def _write(self, offset_bytes: int, data: Sequence[bytes | memoryview]) -> None:
        try:
            if offset_bytes < self.position_bytes:
                self._rewind(offset_bytes)
            new_bytes, new = offset_bytes, data
            if offset_bytes < self._held_bytes:
                new_bytes, new = self._beyond_held(offset_bytes, b"".join(data))
            self._disk.write(self._path, self._descriptor, new_bytes, new)
        except StoreError as error:
            self._fail(error)
            raise
        for piece in data:
            self.digests.update(piece)
        end_bytes = self.digests.length_bytes
        self._reach_bytes = max(self._reach_bytes, end_bytes)
        self.dirty_bytes += end_bytes - new_bytes
        self.unsynced_bytes += end_bytes - new_bytes
        self._room.grown(end_bytes - self.position_bytes)

    def _beyond_held(self, offset_bytes: int, data: bytes) -> tuple[int, list[bytes]]:
        """Return (where it begins, bytes) of what is new in ``data``; raises `OtherFile` if the rest is not held."""
        end_bytes = min(offset_bytes + len(data), self._held_bytes)
        held = b"".join(self._disk.blocks(self._path, self._descriptor, offset_bytes, end_bytes))
        if data[: end_bytes - offset_bytes] != held or self._ends_elsewhere(offset_bytes + len(data)):
            error = OtherFile(f"{self.offered}: not the file whose first {self._held_bytes} bytes are held")
            self.abandon(error)
            self._room.spool.reject(self.offered.key)
            raise error
        return end_bytes, [data[len(held) :]]

    def _ends_elsewhere(self, end_bytes: int) -> bool:
        """Say whether the last packet, which settles the size, is there and has another size than the one held."""
        offered = self.offered
        if not offered.in_packets or not offered.is_whole(self._held_bytes):
            return False
        return end_bytes > offered.last_packet_bytes and end_bytes != self._held_bytes

    def _rewind(self, offset_bytes: int) -> None:
        """Count the checksums of the first ``offset_bytes`` again, from the last checkpoint on where that will do."""
        self.history.twice_bytes += self.position_bytes - offset_bytes
        if self._mark is not None and self._mark.length_bytes > offset_bytes:
            self._mark = None
        self.digests = Digests() if self._mark is None else self._mark.copy()
        for block in self._disk.blocks(self._path, self._descriptor, self.digests.length_bytes, offset_bytes):
            self.digests.update(block)
        if self.digests.length_bytes != offset_bytes:
            raise StoreError(f"read {self._path}: ends at {self.digests.length_bytes} instead of {offset_bytes}")
        if self._mark is None:
            self._mark = self.digests.copy()

    def _append(self, *, durable: bool) -> None:
        """Write into the journal what every byte up to the position is."""
        history, path = self.history, self._room.spool.journal(self.offered.key)
        mark = self._mark = self.digests.copy()
        checkpoint = Checkpoint(self.position_bytes, mark.sha256, history.connections, history.twice_bytes)
        if self._has_journal:
            descriptor, records = self._disk.open(path, os.O_RDWR), []
        else:
            descriptor = self._room.spool.create(self.offered.key, JOURNAL)
            records = [encode_header(self.offered, history.first_seen)]
            self._has_journal = True
        try:
            end_bytes = self._disk.length(path, descriptor) if not records else 0
            self._disk.write(path, descriptor, end_bytes, [*records, encode_checkpoint(checkpoint)])
            if durable:
                self._disk.fdatasync(path, descriptor)
        finally:
            self._disk.close(path, descriptor)

    def _is_kept(self, held_bytes: int) -> bool:
        return resume_offset(self.offered, held_bytes) > 0 and self._room.spool.has_place(held_bytes)

    def _remove(self, held_bytes: int) -> None:
        if resume_offset(self.offered, held_bytes) == 0:
            self._room.spool.discard(self.offered.key)
        else:
            self._room.spool.drop(self.offered.key, held_bytes)

    def _close(self) -> None:
        self._room.ended(self)
        with suppress(StoreError):
            self._disk.close(self._path, self._descriptor)

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self._fail(error)
            raise

    def _fail(self, error: StoreError) -> None:
        self.abandon(error)
        if lacks_room(error) and resume_offset(self.offered, self._checkpoint_bytes) == 0:
            self._room.spool.reject(self.offered.key)

    @contextmanager
    def _set_aside_on_failure(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if lacks_room(error):
                # Kept for a look, each attempt would take up more of the room.
                self._room.spool.reject(self.offered.key)
            else:
                self._room.spool.set_aside(self.offered.key)
            raise


def open_part(room: Room, offered: Offered, now: float) -> PartUpload:
    """Take up the part of this offer where the disk proves it to be, or begin a new one; raises `StoreError`."""
    key = offered.key
    is_of_no_use = room.spool.is_tainted(key) or offered.qualifier == "" or not room.spool.may_have(key, JOURNAL)
    journal = None if is_of_no_use else _journal(room, offered)
    if journal is None:
        return _begin(room, offered, History(now))
    length_bytes = room.disk.size(room.spool.part(key)) or 0
    history = _next_connection(journal, length_bytes)
    if length_bytes and journal.checkpoints:
        upload = _resume(room, offered, journal, history)
        if upload is not None:
            return upload
    return _begin(room, offered, history)


def proven_checkpoint(blocks: Iterator[bytes], checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """Return the latest checkpoint whose SHA-256 is that of the bytes in ``blocks``, read once and not further."""
    left = sorted({checkpoint.offset_bytes for checkpoint in checkpoints}, reverse=True)
    found: dict[int, str] = {}
    digest, position_bytes = hashlib.sha256(), 0
    for block in blocks:
        view, begin = memoryview(block), position_bytes
        position_bytes += len(block)
        while left and left[-1] <= position_bytes:
            end = left.pop()
            digest.update(view[: end - begin])
            view, begin = view[end - begin :], end
            found[end] = digest.hexdigest()
        digest.update(view)
    return next((point for point in reversed(checkpoints) if found.get(point.offset_bytes) == point.sha256), None)


def resume_offset(offered: Offered, held_bytes: int) -> int:
    """Return where the device shall go on when so much is proven to be held, in bytes; 0 means on a new part.

    With a qualifier one packet is asked for that is held already, to be compared.
    """
    if offered.qualifier == "":
        return 0
    offset_bytes = packets.resume_offset(held_bytes, offered.size_bytes)
    return offset_bytes if offered.qualifier is None else max(offset_bytes - packets.PACKET_BYTES, 0)


def _journal(room: Room, offered: Offered) -> Journal | None:
    path = room.spool.journal(offered.key)
    length_bytes = room.disk.size(path)
    if length_bytes is None:
        return None
    descriptor = room.disk.open(path)
    try:
        journal = read_journal(room.disk.blocks(path, descriptor, 0, length_bytes))
    finally:
        room.disk.close(path, descriptor)
    return journal if journal is not None and journal.offered == offered else None


def _next_connection(journal: Journal, length_bytes: int) -> History:
    """Return the history of a part of this length that has to begin at 0 again."""
    last = journal.checkpoints[-1] if journal.checkpoints else Checkpoint(0, "", connections=1, twice_bytes=0)
    return History(journal.first_seen, last.connections + 1, last.twice_bytes + length_bytes)


def _resume(room: Room, offered: Offered, journal: Journal, history: History) -> PartUpload | None:
    """Cut part and journal back to the latest proven checkpoint; None if nothing is proven."""
    path = room.spool.part(offered.key)
    descriptor = room.disk.open(path, os.O_RDWR)
    try:
        proven = _proven(room, offered, journal, descriptor)
        if proven is not None:
            checkpoint, digests = proven
            history.twice_bytes -= digests.length_bytes
            room.disk.truncate(path, descriptor, checkpoint.offset_bytes)
            _cut_journal(room, offered, checkpoint.end_bytes)
            return PartUpload(room, offered, descriptor, digests, history, checkpoint.offset_bytes, has_journal=True)
    except StoreError:
        with suppress(StoreError):
            room.disk.close(path, descriptor)
        raise
    room.disk.close(path, descriptor)
    return None


def _proven(room: Room, offered: Offered, journal: Journal, descriptor: int) -> tuple[Checkpoint, Digests] | None:
    """Return (the checkpoint that is proven, checksums of the part up to the resume offset), or None for 0.

    Bytes that cannot be read back prove nothing: such a part is set aside and begun anew.
    """
    path = room.spool.part(offered.key)
    furthest_bytes = max(checkpoint.offset_bytes for checkpoint in journal.checkpoints)
    digests = Digests()
    try:
        blocks = room.disk.blocks(path, descriptor, 0, furthest_bytes)
        checkpoint = proven_checkpoint(blocks, journal.checkpoints)
        offset_bytes = 0 if checkpoint is None else resume_offset(offered, checkpoint.offset_bytes)
        if offered.qualifier is not None:
            offset_bytes = _telling_offset(room, path, descriptor, offset_bytes)
        if checkpoint is None or offset_bytes == 0:
            return None
        for block in room.disk.blocks(path, descriptor, 0, offset_bytes):
            digests.update(block)
    except StoreError:
        room.spool.set_aside(offered.key)
        return None
    return checkpoint, digests


def _telling_offset(room: Room, path: str, descriptor: int, offset_bytes: int) -> int:
    """Return the offset of the last packet, from this one backwards, that proves something by being equal, or 0."""

    def packet(begin_bytes: int) -> bytes:
        return b"".join(room.disk.blocks(path, descriptor, begin_bytes, begin_bytes + packets.PACKET_BYTES))

    lowest_bytes = max(offset_bytes - _MOST_COMPARED_PACKETS * packets.PACKET_BYTES, 0)
    repeated, here = False, packet(offset_bytes)
    while offset_bytes > lowest_bytes:
        before = packet(offset_bytes - packets.PACKET_BYTES)
        repeats = here == before
        if not repeats and not repeated and len(set(here)) >= _TELLING_VALUES:
            return offset_bytes
        offset_bytes, repeated, here = offset_bytes - packets.PACKET_BYTES, repeats, before
    return 0


def _cut_journal(room: Room, offered: Offered, end_bytes: int) -> None:
    """Drop what follows the record that was proven; a torn line there would hide all later ones."""
    path = room.spool.journal(offered.key)
    descriptor = room.disk.open(path, os.O_RDWR)
    try:
        room.disk.truncate(path, descriptor, end_bytes)
    finally:
        room.disk.close(path, descriptor)


def _begin(room: Room, offered: Offered, history: History) -> PartUpload:
    room.spool.discard(offered.key)
    return PartUpload(room, offered, room.spool.create(offered.key, PART), Digests(), history)
