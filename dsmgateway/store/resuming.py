"""How a part is taken up again after anything whatever, or a new one begun.

The essay. The offset at which a device goes on is what the disk can prove, never a size or a number in memory: a part
after a power cut may have its full size and zeros in it. So a checkpoint says in the journal how many bytes there were
and their SHA-256, and a part is resumed at the latest checkpoint whose SHA-256 is that of the bytes found. Bytes beyond
it are cut off; in any doubt the answer is 0 on a new inode, which is always safe. What is proven like that need not be
synced to be believed.

A path names one file, an identifier whichever is next, and two files must never be joined. So an offer with a qualifier
goes on one packet earlier than is proven, and what comes is compared with what is held. A packet in which few byte
values occur, or one of many that are the same, is no proof, since pictures of darkness are full of those: the
comparison begins before it. With a qualifier that says nothing every connection begins at 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from dsmgateway import packets
from dsmgateway.errors import StoreError
from dsmgateway.store.digests import Digests
from dsmgateway.store.journal import Checkpoint, Journal, read_journal
from dsmgateway.store.part import History, PartUpload, Room
from dsmgateway.store.spool import JOURNAL, PART
from dsmgateway.store.values import Offered

#: A packet with fewer different bytes proves nothing by being equal; compressed pictures have some 250.
_TELLING_VALUES = 32
#: So many packets without such a one, and the file is begun anew.
_MOST_COMPARED_PACKETS = 64


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
    return _latest_proven(_digests_at(blocks, checkpoints), checkpoints)


def _digests_at(blocks: Iterator[bytes], checkpoints: Sequence[Checkpoint]) -> dict[int, Digests]:
    """Return the checksums of the bytes before each checkpoint that is not beyond them, by offset, in order."""
    left = sorted({checkpoint.offset_bytes for checkpoint in checkpoints}, reverse=True)
    found: dict[int, Digests] = {}
    digests = Digests()
    for block in blocks:
        view = memoryview(block)
        while left and left[-1] <= digests.length_bytes + len(view):
            end_bytes = left.pop() - digests.length_bytes
            digests.update(view[:end_bytes])
            view = view[end_bytes:]
            found[digests.length_bytes] = digests.copy()
        digests.update(view)
    return found


def _latest_proven(found: Mapping[int, Digests], checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    hashes = {offset_bytes: digests.sha256 for offset_bytes, digests in found.items()}
    return next((point for point in reversed(checkpoints) if hashes.get(point.offset_bytes) == point.sha256), None)


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
    try:
        found = _digests_at(room.disk.blocks(path, descriptor, 0, furthest_bytes), journal.checkpoints)
        checkpoint = _latest_proven(found, journal.checkpoints)
        offset_bytes = 0 if checkpoint is None else offered.resume_offset(checkpoint.offset_bytes)
        if offered.qualifier is not None:
            offset_bytes = _telling_offset(room, path, descriptor, offset_bytes)
        if checkpoint is None or offset_bytes == 0:
            return None
        digests = next((found[at] for at in reversed(found) if at <= offset_bytes), Digests())
        for block in room.disk.blocks(path, descriptor, digests.length_bytes, offset_bytes):
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
