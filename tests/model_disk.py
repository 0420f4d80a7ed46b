"""A disk with every fault of `store_faults` at once: it dies, fails, writes short, and forgets what was not synced."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from store_faults import ForgetfulDisk

from dsmgateway.store.files import StrPath

_PAGE_BYTES = 4096


class ModelDisk(ForgetfulDisk):
    """A `ForgetfulDisk` whose memory outlives the process.

    What was to be synced when an fsync failed is not written by a later one, which says OK, as Linux has it: only
    pages that were written to since then are. While ``short_writes`` is not 0, a write takes half of what it is given
    and says so. ``fail_for`` calls after the one that fails fail, too.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.short_writes = 0
        self.fail_for = 0
        #: Of each file whose fsync failed, the pages that were written to since.
        self._dirty: dict[int, set[int]] = {}

    @classmethod
    def found(cls, root: Path) -> Self:
        """The disk after a power cut: what is in the folder is durable, for it is all that there is."""
        disk = cls(root)
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                disk._new(path.stat().st_ino)
                disk._contents[disk._made] = path.read_bytes()
        for folder, names, _ in os.walk(root, topdown=False):
            for name in names:
                disk._new(Path(folder, name).stat().st_ino)
            disk._folders[Path(folder)] = {entry.name: disk._ids.get(entry.inode(), 0) for entry in os.scandir(folder)}
        return disk

    def after_a_kill(self) -> ModelDisk:
        """The same disk for the next process, which knows of no fault."""
        disk = type(self)(self._root)
        disk._ids, disk._made, disk._dirty = self._ids, self._made, self._dirty
        disk._contents, disk._folders = self._contents, self._folders
        return disk

    def work_well(self) -> None:
        """No fault any more."""
        self.kill_at = self.fail_at = self.fail_for = self.short_writes = 0
        self.only = ""

    def run(self, operation: str, path: StrPath, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
        if call is os.pwritev and self.short_writes and not self.dead:
            self.short_writes -= 1
            call = write_short
        is_failing = len(self.calls) + 1 == self.fail_at and self.only in f"{operation} {path};"
        try:
            result = super().run(operation, path, call, *arguments, **options)
            if call in (os.pwritev, write_short):
                self._touched(arguments[0], arguments[2], arguments[2] + result)
            elif call is os.ftruncate:
                self._touched(arguments[0], arguments[1], arguments[1] + 1)
            return result
        finally:
            if is_failing and self.fail_for:
                self.fail_at, self.fail_for = self.fail_at + 1, self.fail_for - 1

    def _failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        fail = super()._failing(call)
        if call not in (os.fsync, os.fdatasync):
            return fail

        def fail_to_sync(descriptor: int) -> None:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                self._dirty[self._ids[status.st_ino]] = set()
            fail(descriptor)

        return fail_to_sync

    def _touched(self, descriptor: int, start_bytes: int, end_bytes: int) -> None:
        dirty = self._dirty.get(self._ids.get(os.fstat(descriptor).st_ino, 0))
        if dirty is not None:
            dirty.update(range(start_bytes // _PAGE_BYTES, -(-end_bytes // _PAGE_BYTES)))

    def synced(self, descriptor: int) -> None:
        number = self._ids.get(os.fstat(descriptor).st_ino, 0)
        dirty, before = self._dirty.get(number), self._contents.get(number, b"")
        super().synced(descriptor)
        if dirty is None:
            return
        now = self._contents[number]
        before = before.ljust(len(now), b"\0")
        pages = range(0, len(now), _PAGE_BYTES)
        written = [now if start // _PAGE_BYTES in dirty else before for start in pages]
        self._contents[number] = b"".join(
            source[start : min(start + _PAGE_BYTES, len(now))] for source, start in zip(written, pages, strict=True)
        )
        dirty.clear()

    def durable(self, path: Path) -> bytes | None:
        """What a power cut now would leave of this file; None if not even its name."""
        above = [folder for folder in reversed(path.parents) if folder.is_relative_to(self._root)]
        steps = [*above[1:], path]
        if any(step.name not in self._folders.get(step.parent, {}) for step in steps):
            return None
        return self._contents.get(self._folders[path.parent][path.name])


def write_short(descriptor: int, pieces: Sequence[bytes | memoryview], offset_bytes: int) -> int:
    """What pwritev may do at any time, and does on a disk that is almost full: write less than it was given."""
    whole = b"".join(pieces)
    return os.pwritev(descriptor, [whole[: (len(whole) + 1) // 2]], offset_bytes)
