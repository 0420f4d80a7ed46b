"""What start-up does to the spool and the tree: completes finishes that were cut off, keeps parts, expires old ones.

Everything here may itself be cut off anywhere and is done again by the next start. Never deletes what a device may
still be asked to go on with, but for age. Knows no uploads.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path

from dsmgateway.errors import StoreError
from dsmgateway.store.files import Disk, StrPath, unless_gone
from dsmgateway.store.landing import Ground
from dsmgateway.store.naming import MEDIA, SPOOL, is_final_path, sidecar_path
from dsmgateway.store.sidecar import LIMIT_BYTES, parse_sidecar
from dsmgateway.store.spool import JOURNAL, PART, SIDECAR, Spool
from dsmgateway.store.values import Expired, Record, Recovery


class Restart:
    """One start-up on a data folder that nobody else uses; `run` does it and says what was done."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._disk = ground.disk
        self._spool = ground.spool
        self._forward: list[str] = []
        self._back: list[str] = []
        self._aside: list[str] = []
        self._unreadable: list[str] = []
        self._expired: list[Expired] = []

    def run(self, *, rebuild: bool, now: float, part_max_age_s: float) -> Recovery:
        """Recover; parts last written ``part_max_age_s`` before ``now`` expire. Raises `StoreError`."""
        indexed = self._ground.index.rebuild(self._records()) if rebuild else 0
        for name in self._disk.names(self._spool.folder):
            if name.endswith(SIDECAR):
                self._complete(name.removesuffix(SIDECAR))
        self._expire(self._spool.aside, now, part_max_age_s)
        self._spool.clear_aside()
        parts, part_bytes = self._expire(self._spool.folder, now, part_max_age_s)
        self._spool.parts = parts
        return Recovery(
            rolled_forward=tuple(self._forward),
            rolled_back=tuple(self._back),
            set_aside=tuple(self._aside),
            expired=tuple(self._expired),
            parts=parts,
            part_bytes=part_bytes,
            index_rebuilt=rebuild and bool(indexed or self._unreadable),
            indexed=indexed,
            unreadable=tuple(self._unreadable),
        )

    def _records(self) -> Iterator[Record]:
        """Read every sidecar of the tree whose file is there with its size; finishes under way come afterwards."""
        left_out = under_way(self._ground.folder, self._disk)
        for path in tree(self._ground.folder, self._disk):
            if not is_final_path(path) or path in left_out:
                continue
            try:
                record = read_record(self._ground.folder / sidecar_path(path), self._disk)
            except StoreError:
                record = None
            if record is not None and record.path == path and self._ground.is_present(record):
                yield record
            else:
                self._unreadable.append(path)

    def _complete(self, key: str) -> None:
        sidecar = self._spool.sidecar(key)
        record = read_record(sidecar, self._disk)
        if record is None:
            self._back.append(f"{key}{SIDECAR}")
            self._spool.clear(key, SIDECAR)
        elif self._is_whole(record):
            self._roll_forward(key, record)
        elif self._disk.size(self._final(record)) is None:
            self._back.append(record.path)
            self._ground.take_back(key, record)
        else:
            self._put_away(key, record)

    def _roll_forward(self, key: str, record: Record) -> None:
        if not self._ground.index.has(record.path):
            self._forward.append(record.path)
        if self._has_other_copy(record):
            self._disk.unlink(self._ground.folder / sidecar_path(record.path))
            self._disk.unlink(self._final(record))
        else:
            if self._disk.size(self._ground.folder / sidecar_path(record.path)) is None:
                self._disk.link(self._spool.sidecar(key), self._ground.folder / sidecar_path(record.path))
            self._sync(record)
            self._ground.index.add([record])
        self._spool.clear(key, SIDECAR)
        self._spool.discard(key)

    def _sync(self, record: Record) -> None:
        final = self._final(record)
        for path in (final, self._ground.folder / sidecar_path(record.path)):
            descriptor = self._disk.open(path)
            try:
                self._disk.fsync(path, descriptor)
            finally:
                self._disk.close(path, descriptor)
        folders = self._ground.folders.unsynced(str(final.parent))
        for folder in folders:
            self._disk.sync_folder(folder)
        self._ground.folders.synced(folders)
        self._spool.sync()

    def _has_other_copy(self, record: Record) -> bool:
        """Say whether the same file was stored under another name while this one was neither here nor there."""
        return any(
            other.is_same_file(record) and other.path != record.path and self._is_whole(other)
            for other in self._ground.index.find(record.imei, record.device_path, record.size_bytes)
        )

    def _put_away(self, key: str, record: Record) -> None:
        """Keep a file that is not what its record says out of the tree, so that it never passes for a copy."""
        self._aside.append(record.path)
        self._ground.index.remove(record.path)
        self._disk.unlink(self._ground.folder / sidecar_path(record.path))
        self._spool.move_aside(self._final(record))
        self._spool.clear(key, SIDECAR)

    def _is_whole(self, record: Record) -> bool:
        path = self._final(record)
        if self._disk.size(path) != record.size_bytes:
            return False
        return sha256_of(path, self._disk) == record.sha256

    def _final(self, record: Record) -> Path:
        return self._ground.folder / record.path

    def _expire(self, folder: Path, now: float, part_max_age_s: float) -> tuple[int, int]:
        """Delete what is too old and journals without a part; return the number of parts kept and their bytes."""
        self._expired += expire(self._disk, self._spool, folder, now, part_max_age_s)
        parts = part_bytes = 0
        for name in self._disk.names(folder):
            path = folder / name
            if path.suffix == PART:
                parts, part_bytes = parts + 1, part_bytes + (self._disk.size(path) or 0)
            elif path.suffix == JOURNAL and self._disk.size(path.with_suffix(PART)) is None:
                self._disk.unlink(path)
        return parts, part_bytes


def expire(
    disk: Disk, spool: Spool, folder: Path, now: float, part_max_age_s: float, in_use: Container[str] = frozenset()
) -> list[Expired]:
    """Delete parts last written ``part_max_age_s`` before ``now``, but for the keys ``in_use``; return which.

    A device that takes one up at this very moment fails at its finish, is not acknowledged, and comes again.
    """
    expired = []
    for name in disk.names(folder):
        path = folder / name
        status = disk.stat(path)
        if status is None or not spool.is_part(path) or path.stem in in_use:
            continue
        if now - status.st_mtime > part_max_age_s:
            disk.unlink(path.with_suffix(JOURNAL))
            if spool.delete(path):
                expired.append(Expired(name, status.st_size, now - status.st_mtime))
    return expired


def read_record(path: StrPath, disk: Disk) -> Record | None:
    """Return what the sidecar at ``path`` says, or None if it is missing or damaged; raises `StoreError`."""
    text = unless_gone(lambda: disk.read(path, LIMIT_BYTES))
    return None if text is None else parse_sidecar(text)


def under_way(folder: Path, disk: Disk) -> set[str]:
    """Return the final paths that the records of unfinished finishes name; raises `StoreError`."""
    names = [name for name in disk.names(folder / SPOOL) if name.endswith(SIDECAR)]
    records = [read_record(folder / SPOOL / name, disk) for name in names]
    return {record.path for record in records if record is not None}


def sha256_of(path: Path, disk: Disk) -> str:
    """Return the SHA-256 of a file in hexadecimal; raises `StoreError`."""
    digest = hashlib.sha256()
    descriptor = disk.open(path)
    try:
        for block in disk.blocks(path, descriptor, 0, disk.length(path, descriptor)):
            digest.update(block)
    finally:
        disk.close(path, descriptor)
    return digest.hexdigest()


def tree(folder: Path, disk: Disk) -> Iterator[str]:
    """Yield every path below ``media``, sidecars included, relative to the data folder and a folder at a time."""
    waiting = [MEDIA]
    while waiting:
        path = waiting.pop()
        names = disk.names(folder / path) if path == MEDIA else unless_gone(partial(disk.names, folder / path))
        for name in names or ():
            status = disk.stat(folder / path / name)
            if status is None:
                continue
            if stat.S_ISDIR(status.st_mode):
                waiting.append(f"{path}/{name}")
            else:
                yield f"{path}/{name}"
