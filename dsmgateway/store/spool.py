"""The spool: parts, journals and sidecars of files that are not finished, named by the key of the offer.

Sets parts aside whose fsync failed. Knows the names and the folder and how many parts there are, not what is in them.

What may be here is known from memory, since of most keys there is nothing: a list is made once and kept. It names too
much rather than too little, so what it does not name needs no look at the disk. Should somebody else have made such a
file, making it fails, once: nothing that exists is ever taken for a new one.

Whoever makes a part pays for it. There may be `Spool.max_parts`; above that only those are kept that hold so much that
the room on the disk is what bounds them. Of what is aside nobody goes on with, so only the newest is kept for a look.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dsmgateway.errors import StoreError
from dsmgateway.store.files import Disk, StrPath
from dsmgateway.store.tally import Tally
from dsmgateway.store.values import Dropped

#: What a part must hold to be kept where there are too many: with so much, a full disk comes before too many files.
_KEPT_BYTES = 64 * 1024
#: What is kept aside.
_MOST_ASIDE = 16
_MOST_ASIDE_BYTES = 1 << 30
PART, JOURNAL, SIDECAR = ".part", ".journal", ".sidecar"
#: A part that was put aside. A finished file there may be the only copy.
_PART_ASIDE = re.compile(r"[0-9a-f]{32}\.[0-9]+\.part")


class Spool:
    """The spool folder. Safe to use from several threads as long as each key is used by one at a time.

    ``parts`` is how many there are. ``dropped`` is told of each part that is deleted for their number, by whichever
    thread does it, and must not block.
    """

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        max_parts: int,
        dropped: Callable[[Dropped], object],
        parts: Tally | None = None,
    ) -> None:
        self.folder = folder
        self.aside = folder / "aside"
        self._parts = parts or Tally()
        self._prefix = f"{folder}/"
        #: By what follows the key in a name, the keys of which there may be such a file; empty before the list is made.
        self._named: dict[str, set[str]] = {}
        self._disk = disk
        self._max_parts = max_parts
        self._dropped = dropped
        self._listing = threading.Lock()
        self._tainted: set[str] = set()
        self._has_deleted = False

    @property
    def parts(self) -> int:
        """How many there are, those of other processes too."""
        return self._parts.total

    @parts.setter
    def parts(self, count: int) -> None:
        self._parts.set(count)

    def part(self, key: str) -> str:
        """Return the path of the bytes received so far."""
        return f"{self._prefix}{key}{PART}"

    def journal(self, key: str) -> str:
        """Return the path of the journal that says how many of them were durable."""
        return f"{self._prefix}{key}{JOURNAL}"

    def sidecar(self, key: str) -> str:
        """Return the path of the record of a finish under way."""
        return f"{self._prefix}{key}{SIDECAR}"

    def may_have(self, key: str, kind: str) -> bool:
        """Say whether there may be a file of this kind (`PART` and so on); raises `StoreError`."""
        return key in self._names()[kind]

    def sync(self) -> None:
        """Make the names in the spool durable."""
        self._has_deleted = False
        self._disk.sync_folder(self.folder)

    def sync_deleted(self) -> None:
        """Make it durable that parts were deleted, if any were since the last time.

        One of a stored file that comes back with a power cut is offered by nobody and would stay until it expires.
        """
        if self._has_deleted:
            self.sync()

    def is_part(self, path: Path) -> bool:
        """Say whether this file, here or in ``aside``, is a part."""
        return path.suffix == PART if path.parent == self.folder else bool(_PART_ASIDE.fullmatch(path.name))

    def create(self, key: str, kind: str) -> int:
        """Make a new file of this kind and return its descriptor."""
        self._names()[kind].add(key)
        descriptor = self._disk.create(f"{self._prefix}{key}{kind}")
        if kind == PART:
            self._parts.add(1)
        return descriptor

    def give(self, key: str, target: StrPath) -> None:
        """Move a part out of the spool, to where nothing is."""
        self._disk.rename(self.part(key), target)
        self._names()[PART].discard(key)
        self._parts.add(-1)

    def take_back(self, source: StrPath, key: str) -> None:
        """Make a part of a file again."""
        self._names()[PART].add(key)
        self._disk.rename(source, self.part(key))
        self._parts.add(1)

    def clear(self, key: str, kind: str) -> None:
        """Delete the file of this kind, if it is there."""
        names = self._names()[kind]
        if key not in names:
            return
        was_there = self._disk.unlink(f"{self._prefix}{key}{kind}")
        names.discard(key)
        if was_there and kind == PART:
            self._parts.add(-1)
            self._has_deleted = True

    def discard(self, key: str) -> None:
        """Delete journal and part; a later offer with this key begins at 0 on a new inode."""
        self.clear(key, JOURNAL)
        self.clear(key, PART)
        self._tainted.discard(key)

    def delete(self, path: Path) -> bool:
        """Delete a part without journal, here or in ``aside``, whoever made it; say whether it was there."""
        was_there = self._disk.unlink(path)
        if path.parent == self.folder:
            self._names()[JOURNAL].discard(path.stem)
            self._names()[PART].discard(path.stem)
            self._parts.add(-was_there)
        return was_there

    def has_place(self, held_bytes: int) -> bool:
        """Say whether a part that holds so much may stay beside the others."""
        return self.parts <= self._max_parts or held_bytes >= _KEPT_BYTES

    def drop(self, key: str, held_bytes: int) -> None:
        """Discard a part for which there is no place."""
        self.discard(key)
        reason = f"there are more than {self._max_parts} (setting max-unfinished)"
        self._dropped(Dropped(f"{key}{PART}", held_bytes, reason))

    def reject(self, key: str) -> None:
        """Never use this part again, because it is of another file or could not be synced for want of room.

        Where it cannot be deleted, the key is remembered. Should that be forgotten too, what comes will differ from the
        part once more, or the journal, which goes first, does not vouch for it.
        """
        self._tainted.add(key)
        with suppress(StoreError):
            self.discard(key)
        if self.is_tainted(key):
            with suppress(StoreError):
                self.clear(key, PART)

    def set_aside(self, key: str) -> None:
        """Never use this part again, because the system may have dropped bytes of it; begin the next one at 0.

        Where even the move fails, the key is remembered and the journal deleted if possible: either one keeps the
        part from being resumed.
        """
        self._tainted.add(key)
        with suppress(StoreError):
            self.clear(key, JOURNAL)
        with suppress(StoreError):
            self.move_aside(Path(self.part(key)))
            self._names()[PART].discard(key)
            self._parts.add(-1)
            self._tainted.discard(key)
            self.clear_aside()

    def move_aside(self, path: Path) -> None:
        """Move a file into the folder ``aside`` under a name that is free."""
        taken, number = set(self._disk.names(self.aside)), 1
        while (name := f"{path.stem}.{number}{path.suffix}") in taken:
            number += 1
        self._disk.rename(path, self.aside / name)

    def clear_aside(self) -> None:
        """Delete all parts in ``aside`` but the newest ones; raises `StoreError`."""
        found = []
        for name in self._disk.names(self.aside):
            if not self.is_part(self.aside / name):
                continue
            status = self._disk.stat(self.aside / name)
            if status is not None:
                found.append((status.st_mtime, name, status.st_size))
        total_bytes = 0
        for number, (_, name, size_bytes) in enumerate(sorted(found, reverse=True), 1):
            total_bytes += size_bytes
            is_too_much = number > _MOST_ASIDE or total_bytes > _MOST_ASIDE_BYTES
            if is_too_much and self.delete(self.aside / name):
                self._dropped(Dropped(name, size_bytes, "it was put aside, and so were newer ones"))

    def is_tainted(self, key: str) -> bool:
        """Say whether the part of this key must not be used although it is still there."""
        return key in self._tainted

    def _names(self) -> dict[str, set[str]]:
        if not self._named:
            with self._listing:
                if not self._named:
                    names = [os.path.splitext(name) for name in self._disk.names(self.folder)]
                    self._named = {
                        kind: {key for key, suffix in names if suffix == kind} for kind in (PART, JOURNAL, SIDECAR)
                    }
        return self._named
