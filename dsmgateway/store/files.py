"""The system calls that the store makes, one method each, every failure turned into a `StoreError`.

All of them pass through `Disk.run`, the seam at which tests make a call fail or a process die. Nothing here repeats a
failed call: after a failed fsync the next one says OK although the bytes are gone. Knows nothing of parts or media.

A path may be text: where a call is made for every file, making a `Path` of it first costs as much as the call.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from dsmgateway.errors import StoreError

#: Pieces the kernel takes in one pwritev (IOV_MAX on Linux).
_MOST_PIECES = 1024
#: Bytes read at a time when a file is read back: enough to be fast, little beside the number of threads.
BLOCK_BYTES = 256 * 1024
#: Permissions of new files and folders, less the umask.
_FILE_MODE = 0o640
_FOLDER_MODE = 0o750

#: There is no room: the volume is sound, and takes more when something was deleted.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
#: The volume is not sound, or has gone read-only over that, as ext4 does; anything else concerns one file or process.
_UNSOUND = frozenset(
    {
        errno.EIO,
        errno.EROFS,
        errno.ENXIO,
        errno.ENODEV,
        errno.ESTALE,
        errno.EUCLEAN,
        errno.EBADMSG,
        errno.EREMOTEIO,
        errno.ETIMEDOUT,
    }
)
#: How operations that change something begin; one that only reads may fail over a spot nobody will write to.
_CHANGES = frozenset(
    {"begin", "commit", "create", "delete", "fdatasync", "fsync", "link", "move", "roll", "truncate", "write"}
)

#: How a file or folder is named.
StrPath = str | Path

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Disk:
    """The file system. Raises `StoreError` with the operation, the path and the system's reason."""

    #: Told of every error that puts the volume as a whole in doubt, by whichever thread meets it.
    unsound: Callable[[StoreError], object] | None = None

    def run(
        self, operation: str, path: StrPath, call: Callable[_P, _T], /, *arguments: _P.args, **options: _P.kwargs
    ) -> _T:
        """Make one system call (or SQLite statement) about ``path`` and return what it returns."""
        try:
            return call(*arguments, **options)
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            failure = StoreError(f"{operation} {path}: {reason or error}")
            if self.unsound is not None and _is_unsound(operation.partition(" ")[0], error):
                self.unsound(failure)
            raise failure from error

    def create(self, path: StrPath) -> int:
        """Create a new file, never one that exists, and return a descriptor for reading and writing."""
        return self.run("create", path, os.open, path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)

    def open(self, path: StrPath, flags: int = os.O_RDONLY) -> int:
        """Open an existing file, never through a symbolic link."""
        return self.run("open", path, os.open, path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)

    def close(self, path: StrPath, descriptor: int) -> None:
        """Give the descriptor back."""
        self.run("close", path, os.close, descriptor)

    def write(self, path: StrPath, descriptor: int, offset_bytes: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Write all pieces one after the other from ``offset_bytes`` on, however short the single writes are."""
        left_bytes = sum(map(len, pieces))
        while left_bytes:
            written = self.run("write", path, os.pwritev, descriptor, pieces[:_MOST_PIECES], offset_bytes)
            left_bytes -= written
            if left_bytes:
                offset_bytes, pieces = offset_bytes + written, _without(pieces, written)

    def blocks(self, path: StrPath, descriptor: int, start_bytes: int, end_bytes: int) -> Iterator[bytes]:
        """Read from ``start_bytes`` up to ``end_bytes`` in blocks; ends early where the file does."""
        while start_bytes < end_bytes:
            length = min(BLOCK_BYTES, end_bytes - start_bytes)
            block = self.run("read", path, os.pread, descriptor, length, start_bytes)
            if not block:
                return
            start_bytes += len(block)
            yield block

    def read(self, path: StrPath, limit_bytes: int) -> bytes | None:
        """Return the start of a file, up to ``limit_bytes``, or None if there is no such file."""
        if self.size(path) is None:
            return None
        descriptor = self.open(path)
        try:
            return b"".join(self.blocks(path, descriptor, 0, limit_bytes))
        finally:
            self.close(path, descriptor)

    def fsync(self, path: StrPath, descriptor: int) -> None:
        """Make a file's bytes and inode durable."""
        self.run("fsync", path, os.fsync, descriptor)

    def fdatasync(self, path: StrPath, descriptor: int) -> None:
        """Make a file's bytes and size durable."""
        self.run("fdatasync", path, os.fdatasync, descriptor)

    def begin_writing(self, path: StrPath, descriptor: int) -> None:
        """Let the system begin to write a file out, so that the fsyncs of many wait for each other less.

        Promises nothing; a failure to write is told by the fsync.
        """
        self.run("advise on", path, os.posix_fadvise, descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync_folder(self, path: StrPath) -> None:
        """Make the entries of a folder durable."""
        descriptor = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.fsync(path, descriptor)
        finally:
            self.close(path, descriptor)

    def truncate(self, path: StrPath, descriptor: int, length_bytes: int) -> None:
        """Cut a file off."""
        self.run("truncate", path, os.ftruncate, descriptor, length_bytes)

    def length(self, path: StrPath, descriptor: int) -> int:
        """Return the size of an open file in bytes."""
        return self.run("stat", path, os.fstat, descriptor).st_size

    def stat(self, path: StrPath) -> os.stat_result | None:
        """Return what the system knows of a path, or None if there is no such file."""
        return self.run("stat", path, _stat, path)

    def size(self, path: StrPath) -> int | None:
        """Return the size of a file in bytes, or None if there is no such file."""
        status = self.stat(path)
        return None if status is None else status.st_size

    def names(self, path: StrPath) -> list[str]:
        """Return the names in a folder, in order."""
        return sorted(self.run("list", path, os.listdir, path))

    def make_folder(self, path: StrPath) -> None:
        """Create a folder unless it exists."""
        self.run("create folder", path, _make_folder, path)

    def remove_folder(self, path: StrPath) -> None:
        """Delete an empty folder."""
        self.run("delete folder", path, os.rmdir, path)

    def rename(self, source: StrPath, target: StrPath) -> None:
        """Move a file within the file system; the caller has made sure that ``target`` does not exist."""
        self.run(f"move {source} to", target, os.rename, source, target)

    def link(self, source: StrPath, target: StrPath) -> None:
        """Give a file a second name, never one that exists."""
        self.run(f"link {source} as", target, os.link, source, target)

    def unlink(self, path: StrPath) -> bool:
        """Delete a name, if it is there; say whether it was."""
        return self.run("delete", path, _unlink, path)

    def free_bytes(self, path: StrPath) -> int:
        """Return how much an ordinary user can still write to the file system."""
        status = self.run("ask for free space of", path, os.statvfs, path)
        return status.f_bavail * status.f_frsize

    def free_files(self, path: StrPath) -> int | None:
        """Return how many files an ordinary user can still make; None where the file system knows no such number."""
        status = self.run("ask for free files of", path, os.statvfs, path)
        return status.f_favail if status.f_files else None

    def lock(self, path: StrPath) -> int:
        """Take the lock of a data folder and return its descriptor; it ends with the process or with `close`."""
        descriptor = self.run("open", path, os.open, path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            self.run("lock", path, fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except StoreError as error:
            self.close(path, descriptor)
            if isinstance(error.__cause__, BlockingIOError):
                raise StoreError(f"lock {path}: another gateway is using this data folder") from error
            raise
        return descriptor


def _without(pieces: Sequence[bytes | memoryview], count_bytes: int) -> list[bytes | memoryview]:
    """Return what these pieces have beyond so many bytes, which is something."""
    whole = 0
    while count_bytes >= len(pieces[whole]):
        count_bytes -= len(pieces[whole])
        whole += 1
    return [memoryview(pieces[whole])[count_bytes:], *pieces[whole + 1 :]]


def unless_gone(call: Callable[[], _T]) -> _T | None:
    """Return what a call returns, or None if what it is about is not there any more; raises `StoreError`."""
    try:
        return call()
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def lacks_room(error: StoreError) -> bool:
    """Say whether the volume is full, or the quota used up, and nothing worse."""
    return _is_full(error.__cause__)


def _is_full(cause: BaseException | None) -> bool:
    return (isinstance(cause, OSError) and cause.errno in _NO_ROOM) or _sqlite_name(cause) == "SQLITE_FULL"


def _is_unsound(verb: str, cause: Exception) -> bool:
    """Tell a volume that fails from all else.

    It does after a failed sync, whatever the reason but want of room, since nobody knows what was dropped; and where it
    has gone read-only, of which opening a file for writing may be the first to hear.
    """
    if isinstance(cause, OSError) and cause.errno == errno.EROFS:
        return True
    if verb not in _CHANGES or _is_full(cause):
        return False
    if isinstance(cause, OSError):
        return verb in ("fsync", "fdatasync") or cause.errno in _UNSOUND
    return _sqlite_name(cause).startswith(("SQLITE_IOERR", "SQLITE_READONLY"))


def _sqlite_name(cause: BaseException | None) -> str:
    return str(getattr(cause, "sqlite_errorname", ""))


def _stat(path: StrPath) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _unlink(path: StrPath) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _make_folder(path: StrPath) -> None:
    try:
        os.mkdir(path, _FOLDER_MODE)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
