"""The spool: parts, journals and sidecars of files that are not finished, named by the key of the offer.

Sets parts aside whose fsync failed. Knows the names and the folder and how many parts there are, not what is in them.

Whoever makes a part pays for it. There may be `Spool.max_parts`; above that only those are kept that hold so much that
the room on the disk is what bounds them. Of what is aside nobody goes on with, so only the newest is kept for a look.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dsmgateway.errors import StoreError
from dsmgateway.store.files import Disk
from dsmgateway.store.tally import Tally
from dsmgateway.store.values import Dropped

#: What a part must hold to be kept where there are too many: with so much, a full disk comes before too many files.
_KEPT_BYTES = 64 * 1024
#: What is kept aside.
_MOST_ASIDE = 16
_MOST_ASIDE_BYTES = 1 << 30
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
        self._disk = disk
        self._max_parts = max_parts
        self._dropped = dropped
        self._tainted: set[str] = set()

    @property
    def parts(self) -> int:
        """How many there are, those of other processes too."""
        return self._parts.total

    @parts.setter
    def parts(self, count: int) -> None:
        self._parts.set(count)

    def part(self, key: str) -> Path:
        """Return the path of the bytes received so far."""
        return self.folder / f"{key}.part"

    def journal(self, key: str) -> Path:
        """Return the path of the journal that says how many of them were durable."""
        return self.folder / f"{key}.journal"

    def sidecar(self, key: str) -> Path:
        """Return the path of the record of a finish under way."""
        return self.folder / f"{key}.sidecar"

    def sync(self) -> None:
        """Make the names in the spool durable."""
        self._disk.sync_folder(self.folder)

    def is_part(self, path: Path) -> bool:
        """Say whether this file, here or in ``aside``, is a part."""
        return path.suffix == ".part" if path.parent == self.folder else bool(_PART_ASIDE.fullmatch(path.name))

    def create_part(self, key: str) -> int:
        """Make a new part and return its descriptor."""
        descriptor = self._disk.create(self.part(key))
        self._parts.add(1)
        return descriptor

    def give(self, key: str, target: Path) -> None:
        """Move a part out of the spool, to where nothing is."""
        self._disk.rename(self.part(key), target)
        self._parts.add(-1)

    def take_back(self, source: Path, key: str) -> None:
        """Make a part of a file again."""
        self._disk.rename(source, self.part(key))
        self._parts.add(1)

    def delete(self, path: Path) -> bool:
        """Delete a file, here or in ``aside``, if it is there; say whether it was."""
        was_there = self._disk.unlink(path)
        if was_there and path.suffix == ".part" and path.parent == self.folder:
            self._parts.add(-1)
        return was_there

    def discard(self, key: str) -> None:
        """Delete part and journal; a later offer with this key begins at 0 on a new inode."""
        self.delete(self.journal(key))
        self.delete(self.part(key))
        self._tainted.discard(key)

    def has_place(self, held_bytes: int) -> bool:
        """Say whether a part that holds so much may stay beside the others."""
        return self.parts <= self._max_parts or held_bytes >= _KEPT_BYTES

    def drop(self, key: str, held_bytes: int) -> None:
        """Discard a part for which there is no place."""
        self.discard(key)
        reason = f"there are more than {self._max_parts} (setting max-unfinished)"
        self._dropped(Dropped(self.part(key).name, held_bytes, reason))

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
                self.delete(self.part(key))

    def set_aside(self, key: str) -> None:
        """Never use this part again, because the system may have dropped bytes of it; begin the next one at 0.

        Where even the move fails, the key is remembered and the journal deleted if possible: either one keeps the
        part from being resumed.
        """
        self._tainted.add(key)
        with suppress(StoreError):
            self._disk.unlink(self.journal(key))
        with suppress(StoreError):
            self.move_aside(self.part(key))
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
