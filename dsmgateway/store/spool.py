"""The spool: parts, journals and sidecars of files that are not finished, named by the key of the offer.

Sets parts aside whose fsync failed. Knows the names and the folder, not what is in the files.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dsmgateway.errors import StoreError
from dsmgateway.store.files import Disk


class Spool:
    """The spool folder. Safe to use from several threads as long as each key is used by one at a time."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self.aside = folder / "aside"
        self._disk = disk
        self._tainted: set[str] = set()

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

    def discard(self, key: str) -> None:
        """Delete part and journal; a later offer with this key begins at 0 on a new inode."""
        self._disk.unlink(self.journal(key))
        self._disk.unlink(self.part(key))
        self._tainted.discard(key)

    def reject(self, key: str) -> None:
        """Never use this part again, because it is of another file or could not be synced for want of room.

        Where it cannot be deleted, the key is remembered. Should that be forgotten too, what comes will differ from the
        part once more, or the journal, which goes first, does not vouch for it.
        """
        self._tainted.add(key)
        with suppress(StoreError):
            self.discard(key)

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
            self._tainted.discard(key)

    def move_aside(self, path: Path) -> None:
        """Move a file into the folder ``aside`` under a name that is free."""
        taken, number = set(self._disk.names(self.aside)), 1
        while (name := f"{path.stem}.{number}{path.suffix}") in taken:
            number += 1
        self._disk.rename(path, self.aside / name)

    def is_tainted(self, key: str) -> bool:
        """Say whether the part of this key must not be used although it is still there."""
        return key in self._tainted
