"""A file being received into a part.

The essay. A part has a journal, which says how far it was written; how far that is believed stands in
`dsmgateway.store.resuming`. A checkpoint that is to outlive a power cut has the bytes synced first, then its record;
one for the end of the process alone is written and no more. The journal begins with the first checkpoint, which most
files do not come to. A part whose fsync failed is never used again, not even after a second fsync that says OK.

What the part holds of an offer with a qualifier is kept on the disk and every byte that comes for a place below its end
is compared with it; at the first difference the part is discarded, since two files must never be joined. Bytes that
agree are not written, so a connection that ends early leaves the part as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from dsmgateway.errors import StoreError
from dsmgateway.store.digests import Digests
from dsmgateway.store.files import Disk, lacks_room
from dsmgateway.store.journal import Checkpoint, encode_checkpoint, encode_header
from dsmgateway.store.spool import JOURNAL, Spool
from dsmgateway.store.upload import Ended, OtherFile, Upload
from dsmgateway.store.values import Offered

#: Between two marks of a part, which a rewind need not go behind: some 10 ms of reading and counting. A device can have
#: many rewinds for a few bytes, and others wait for the same thread.
_MARK_EVERY_BYTES = 4 << 20


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
    qualifier, what comes now has to agree with it. The journal does not tell how much of that is durable, so all of it
    counts as not synced.
    """

    #: Thousands of these are open at a time.
    __slots__ = (
        "_checkpoint_bytes",
        "_descriptor",
        "_disk",
        "_has_journal",
        "_held_bytes",
        "_inherited_bytes",
        "_marks",
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
        #: What a rewind is counted from, in order: the last one moves on as long as it stays near the one before.
        self._marks: list[Digests] = []
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
        #: What others brought and nobody has synced since; alone it is no reason for a checkpoint.
        self._inherited_bytes = self.unsynced_bytes = proven_bytes

    def checkpoint(self, *, durable: bool = True) -> None:
        """Append the length and SHA-256 to the journal; ``durable``: make what was written durable first, then it."""
        self.require_open()
        if (self.unsynced_bytes - self._inherited_bytes if durable else self.dirty_bytes) == 0:
            return
        try:
            if durable:
                self._sync(self._disk.fdatasync)
            self._append(durable=durable)
            if durable and not self._named_durably:
                self._room.spool.sync()
                self._named_durably = True
        except StoreError as error:
            self._fail(error)
            raise
        self._checkpoint_bytes = self.position_bytes
        self.dirty_bytes = 0
        if durable:
            self.unsynced_bytes = self._inherited_bytes = 0

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
        try:
            if self._disk.length(self._path, self._descriptor) != self._reach_bytes:
                raise StoreError(f"check {self._path}: someone else changed the size of this part")
            if self._reach_bytes > self.position_bytes:
                self._disk.truncate(self._path, self._descriptor, self.position_bytes)
            self._sync(self._disk.fsync)
        except StoreError as error:
            self._fail(error)
            raise
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
            self._count(piece)
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
        """Count the checksums of the first ``offset_bytes`` again, from the last mark on that is not beyond it."""
        self.history.twice_bytes += self.position_bytes - offset_bytes
        while self._marks and self._marks[-1].length_bytes > offset_bytes:
            self._marks.pop()
        self.digests = self._marks[-1].copy() if self._marks else Digests()
        for block in self._disk.blocks(self._path, self._descriptor, self.digests.length_bytes, offset_bytes):
            self._count(block)
        if self.digests.length_bytes != offset_bytes:
            raise StoreError(f"read {self._path}: ends at {self.digests.length_bytes} instead of {offset_bytes}")
        self._mark()

    def _count(self, data: bytes | memoryview) -> None:
        """Let the checksums go on, and keep them now and then for a rewind."""
        self.digests.update(data)
        if self.digests.length_bytes - self._marked_bytes(-1) >= _MARK_EVERY_BYTES:
            self._mark()

    def _mark(self) -> Digests:
        """Keep the checksums as they are for a rewind, and return them."""
        if self.digests.length_bytes - self._marked_bytes(-2) < _MARK_EVERY_BYTES:
            del self._marks[-1:]
        self._marks.append(self.digests.copy())
        return self._marks[-1]

    def _marked_bytes(self, number: int) -> int:
        """Return where a mark is, counted from the end; 0 where there is none."""
        return self._marks[number].length_bytes if len(self._marks) >= -number else 0

    def _append(self, *, durable: bool) -> None:
        """Write into the journal what every byte up to the position is."""
        history, path = self.history, self._room.spool.journal(self.offered.key)
        mark = self._mark()
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
        return self.offered.resume_offset(held_bytes) > 0 and self._room.spool.has_place(held_bytes)

    def _remove(self, held_bytes: int) -> None:
        if self.offered.resume_offset(held_bytes) == 0:
            self._room.spool.discard(self.offered.key)
        else:
            self._room.spool.drop(self.offered.key, held_bytes)

    def _close(self) -> None:
        self._room.ended(self)
        with suppress(StoreError):
            self._disk.close(self._path, self._descriptor)

    def _fail(self, error: StoreError) -> None:
        self.abandon(error)
        if lacks_room(error) and self.offered.resume_offset(self._checkpoint_bytes) == 0:
            self._room.spool.reject(self.offered.key)

    def _sync(self, sync: Callable[[str, int], None]) -> None:
        """Make the part durable; after a failure it is never used again."""
        try:
            sync(self._path, self._descriptor)
        except StoreError as error:
            if lacks_room(error):
                # Kept for a look, each attempt would take up more of the room.
                self._room.spool.reject(self.offered.key)
            else:
                self._room.spool.set_aside(self.offered.key)
            raise
