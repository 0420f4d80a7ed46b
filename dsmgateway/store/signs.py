"""What other programs can see of a running gateway's disk: signs that cost no write, which a bad disk would not take.

Each is a byte of the lock file. The gateway has a POSIX lock on it for as long as the sign holds; the kernel drops it
with the gateway. Where several processes use one data folder, each can show the same sign. They also keep out of each
other's way by such locks, see `keep_out`.
"""

from __future__ import annotations

import enum
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

from dsmgateway.store.naming import LOCK

#: struct flock of fcntl(2): type, whence, start, length, process.
_FLOCK = struct.Struct("@hhqqi")


class Sign(enum.Enum):
    """What can be seen, by its byte of the lock file."""

    #: No new file is taken: the volume failed a write or a sync, and no probe has succeeded since.
    FAILING = 1
    #: The last new file that was offered was turned away for lack of room.
    FULL = 2


#: The byte that a process locks while it finds out whether a file fits.
ADMITTING = 3
#: The byte of the first of several processes: whoever has the lock on it uses the folder under this number.
FIRST_PROCESS = 16


def show(descriptor: int, sign: Sign, *, holds: bool) -> None:
    """Show a sign, or that it holds no longer, on the lock file that is open for writing at ``descriptor``."""
    # A kernel that has no lock to give costs a word in what `dsmgateway check` says.
    with suppress(OSError):
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB if holds else fcntl.LOCK_UN, 1, sign.value)


def keep_out(descriptor: int, byte: int) -> None:
    """Lock a byte, once no other process has it; raises `OSError`. Threads of one process are not kept out."""
    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, byte)


def let_in(descriptor: int, byte: int) -> None:
    """Unlock it."""
    fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, byte)


def shown(folder: Path) -> frozenset[Sign]:
    """Return what the gateway on this data folder shows; raises `OSError` where it has a lock file nobody can read.

    To be asked by another process: its own locks are none to the one that has them, and it loses them.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return frozenset()
    try:
        return frozenset(sign for sign in Sign if _is_locked(descriptor, sign.value))
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, byte: int) -> bool:
    """Only ask: to try the lock would have it for a moment, in which the gateway could not take it."""
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    kind, *_ = _FLOCK.unpack(answer)
    return bool(kind != fcntl.F_UNLCK)
