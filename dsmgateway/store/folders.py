"""The folders of the tree, and which of them are known to be durable.

A new folder only lasts if the folder above it was fsynced too, and a folder left over from a cut may not have been, so
each is fsynced once a run before anything in it counts. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from dsmgateway.errors import StoreError
from dsmgateway.store.files import Disk

#: Folders remembered as durable; beyond it all are forgotten, which costs a few syncs and no safety.
_MOST_KNOWN = 100_000


class Folders:
    """The folders below ``root``, whose own name is durable already, all as text. Threads may share it."""

    def __init__(self, root: str, disk: Disk) -> None:
        self._root = root
        self._disk = disk
        self._durable: set[str] = set()

    def make(self, folder: str) -> None:
        """Create a folder below the root and all that are missing above it; those that are durable are there."""
        for missing in reversed(self._unknown(folder)):
            self._disk.make_folder(missing)

    def unsynced(self, folder: str) -> list[str]:
        """Return the folders to fsync before a new file in ``folder`` is durable: itself, and those above new ones."""
        return [folder, *(_above(new) for new in self._unknown(folder))]

    def synced(self, folders: Iterable[str]) -> None:
        """Take note that all of what `unsynced` returned has been fsynced."""
        if len(self._durable) > _MOST_KNOWN:
            self._durable = set()
        self._durable.update(folders)

    def undo(self, folder: str) -> None:
        """Delete the folders that are empty and not durable, and take nothing for granted any longer.

        Made anew, they need no repetition of a failed fsync; and a folder that someone deleted is made again.
        """
        chain = self._chain(folder)
        with suppress(StoreError):
            for new in chain:
                if new not in self._durable:
                    self._disk.remove_folder(new)
        self._durable.difference_update(chain)

    def _unknown(self, folder: str) -> list[str]:
        """Return those of the chain that are not known to be durable."""
        if folder in self._durable:
            return []
        return [new for new in self._chain(folder) if new not in self._durable]

    def _chain(self, folder: str) -> list[str]:
        """Return the folder and those above it, up to the root and without it."""
        chain = []
        while folder != self._root:
            chain.append(folder)
            folder = _above(folder)
        return chain


def _above(folder: str) -> str:
    return folder.rpartition("/")[0]
