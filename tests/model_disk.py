"""A disk with every fault of `store_faults` at once: it dies, fails, writes short, and forgets what was not synced."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from store_faults import ForgetfulDisk


class ModelDisk(ForgetfulDisk):
    """A `ForgetfulDisk` whose memory outlives the process.

    A file whose fsync failed is never durable again although later fsyncs say OK, as Linux has it. While
    ``short_writes`` is not 0, a write takes half of what it is given and says so. ``fail_for`` calls after the one that
    fails fail, too.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.short_writes = 0
        self.fail_for = 0
        self._dropped: set[int] = set()

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
        disk._ids, disk._made, disk._dropped = self._ids, self._made, self._dropped
        disk._contents, disk._folders = self._contents, self._folders
        return disk

    def work_well(self) -> None:
        """No fault any more."""
        self.kill_at = self.fail_at = self.fail_for = self.short_writes = 0
        self.only = ""

    def run(self, operation: str, path: Path, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
        if call is os.pwritev and self.short_writes and not self.dead:
            self.short_writes -= 1
            call = write_short
        is_failing = len(self.calls) + 1 == self.fail_at and self.only in f"{operation} {path};"
        try:
            return super().run(operation, path, call, *arguments, **options)
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
                self._dropped.add(self._ids[status.st_ino])
            fail(descriptor)

        return fail_to_sync

    def synced(self, descriptor: int) -> None:
        if self._ids.get(os.fstat(descriptor).st_ino) not in self._dropped:
            super().synced(descriptor)

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
