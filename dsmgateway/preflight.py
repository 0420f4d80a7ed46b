"""What can be seen to be wrong with the folders before anything is started: nothing is created or changed here.

A gateway that becomes a daemon has no terminal any more, so what an operator got wrong should be said before. This is
a courtesy, not a guarantee: the store finds out for itself when it starts. Knows nothing of what is in the folders.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from dsmgateway.errors import StoreError
from dsmgateway.store.naming import LOCK


def check_writable(what: str, folder: Path) -> None:
    """Raise StoreError when ``folder`` is no folder, or neither it nor the one it is to be made in can be written."""
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise StoreError(f"{what} {folder}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise StoreError(f"{what} {folder}: {existing} is not writable")


def check_folder(what: str, folder: Path) -> None:
    """The same for a folder that nobody is going to make."""
    if not folder.is_dir():
        raise StoreError(f"{what} {folder}: no such folder")
    check_writable(what, folder)


def check_unlocked(folder: Path) -> None:
    """Raise StoreError when another gateway runs on this data folder."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(f"data folder {folder}: another gateway is using it") from None
    finally:
        os.close(descriptor)
