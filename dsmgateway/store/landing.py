"""How files are finished: in groups that share the folder syncs and one commit, in the one order that loses nothing.

The essay. Each part is fsynced; its sidecar, which names the final path, is written into the spool and fsynced; the
spool is fsynced. From here on a cut leaves a record by which start-up completes the finish. Then the part is renamed to
its final path, the sidecar linked beside it, the day's folder and every folder that may be new fsynced, and the spool
again. Last, one transaction puts the group into the index. Only now may a device hear of it; removing the sidecars and
journals from the spool needs no sync, since completing a finish twice changes nothing.

A file whose step fails drops out and is taken back into the spool; the others go on. Knows no device and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dsmgateway.errors import StoreError
from dsmgateway.store.files import Disk
from dsmgateway.store.folders import Folders
from dsmgateway.store.index import Index
from dsmgateway.store.naming import MEDIA, PROBE, folder_of, sidecar_path
from dsmgateway.store.spool import SIDECAR, Spool
from dsmgateway.store.values import Offered, Record, are_compatible

#: A block of most file systems: less might be kept in the inode.
_PROBE_BYTES = 4096


@dataclass(slots=True)
class Landing:
    """One file on its way from the spool to its final path; ``failure`` is why it did not get there."""

    key: str
    record: Record
    #: The folder of its day.
    folder: str
    sidecar: bytes = field(repr=False)
    failure: StoreError | None = None
    descriptor: int = -1


class Ground:
    """The data folder as the place where files land."""

    def __init__(self, folder: Path, disk: Disk, spool: Spool, index: Index, probe: str = PROBE) -> None:
        """``probe`` is the name of what is written to see whether files can land, of this process alone."""
        self.folder = folder
        self.disk = disk
        self.spool = spool
        self.index = index
        self.folders = Folders(str(folder / MEDIA), disk)
        self._prefix = f"{folder}/"
        self._probe = probe

    def path(self, relative: str) -> str:
        """Return the whole path of a file that is told relative to the data folder."""
        return self._prefix + relative

    def probe(self) -> None:
        """Try whether files can land at all: raises `StoreError` with the cause, before anything is received.

        Done again when a volume has failed, so it writes as much as makes the system find a place for it.
        """
        source, target = self.spool.folder / self._probe, self.folder / MEDIA / self._probe
        self._clear(source, target)
        try:
            descriptor = self.disk.create(source)
            try:
                self.disk.write(source, descriptor, 0, [bytes(_PROBE_BYTES)])
                self.disk.fsync(source, descriptor)
            finally:
                self.disk.close(source, descriptor)
            try:
                self.disk.rename(source, target)
                self.disk.link(target, source)
            except StoreError as error:
                raise StoreError(f"{error} (both must be on one file system, one that has hard links)") from error
            self.disk.sync_folder(target.parent)
            self.spool.sync()
        except StoreError:
            with suppress(StoreError):
                self._clear(source, target)
            raise
        self._clear(source, target)

    def land(self, landings: Sequence[Landing]) -> None:
        """Finish a group whose parts are fsynced already; afterwards each has its ``failure`` or is durable."""
        self._each(landings, self._write_sidecar)
        self._each(landings, self._sync_sidecar)
        self._together(landings, self.spool.sync)
        self._each(landings, self._move)
        self._sync_folders(landings)
        self._together(landings, self.spool.sync)
        self._together(landings, lambda: self.index.add([landing.record for landing in _good(landings)]))
        for landing in _good(landings):
            self.forget(landing.key)

    def forget(self, key: str) -> None:
        """Delete what the spool still has of a finished file; whatever remains is deleted at the next start."""
        with suppress(StoreError):
            self.spool.clear(key, SIDECAR)
            self.spool.discard(key)

    def take_back(self, key: str, record: Record) -> None:
        """Undo a finish that was not committed: the part is in the spool again, with no trace of it in the tree.

        The sidecar in the spool goes last, and only when the rest is durable; while it is there, the finish is
        undone before the key is used again (`settle`), or completed by the next start.
        """
        final = self.path(record.path)
        self.disk.unlink(self.path(sidecar_path(record.path)))
        if self.disk.size(final) is not None:
            self.spool.take_back(final, key)
            self.spool.sync()
            self.disk.sync_folder(folder_of(final))
        self.spool.clear(key, SIDECAR)

    def has_landed(self, record: Record) -> bool:
        """Say whether the stored file is present and its sidecar beside it."""
        return self.is_present(record) and self.disk.size(self.path(sidecar_path(record.path))) is not None

    def is_present(self, record: Record) -> bool:
        """Say whether the stored file is still where the index says, with its size."""
        return self.disk.size(self.path(record.path)) == record.size_bytes

    def is_copy(self, record: Record, offered: Offered) -> bool:
        """Say whether a stored file of equal content is the one that is offered, and still there."""
        return are_compatible(record.qualifier, offered.qualifier) and self.is_present(record)

    def _clear(self, *paths: Path) -> None:
        for path in paths:
            self.disk.unlink(path)

    def _write_sidecar(self, landing: Landing) -> None:
        path = self.spool.sidecar(landing.key)
        landing.descriptor = self.spool.create(landing.key, SIDECAR)
        try:
            self.disk.write(path, landing.descriptor, 0, [landing.sidecar])
            self.disk.begin_writing(path, landing.descriptor)
        except StoreError:
            self.disk.close(path, landing.descriptor)
            raise

    def _sync_sidecar(self, landing: Landing) -> None:
        path = self.spool.sidecar(landing.key)
        try:
            self.disk.fsync(path, landing.descriptor)
        finally:
            self.disk.close(path, landing.descriptor)

    def _move(self, landing: Landing) -> None:
        final = self.path(landing.record.path)
        self.folders.make(landing.folder)
        self.spool.give(landing.key, final)
        self.disk.link(self.spool.sidecar(landing.key), sidecar_path(final))

    def _sync_folders(self, landings: Sequence[Landing]) -> None:
        chains = {landing.folder: self.folders.unsynced(landing.folder) for landing in _good(landings)}
        concerned: dict[str, list[Landing]] = {}
        for landing in _good(landings):
            for folder in chains[landing.folder]:
                concerned.setdefault(folder, []).append(landing)
        for folder in sorted(concerned, reverse=True):
            self._together(concerned[folder], partial(self.disk.sync_folder, folder))
        for landing in _good(landings):
            self.folders.synced(chains[landing.folder])

    def _each(self, landings: Iterable[Landing], step: Callable[[Landing], None]) -> None:
        for landing in _good(landings):
            try:
                step(landing)
            except StoreError as error:
                self._fail(landing, error)

    def _together(self, landings: Sequence[Landing], step: Callable[[], None]) -> None:
        good = _good(landings)
        if not good:
            return
        try:
            step()
        except StoreError as error:
            for landing in good:
                self._fail(landing, error)

    def _fail(self, landing: Landing, error: StoreError) -> None:
        landing.failure = error
        with suppress(StoreError):
            self.take_back(landing.key, landing.record)
            self.folders.undo(landing.folder)


def _good(landings: Iterable[Landing]) -> list[Landing]:
    return [landing for landing in landings if landing.failure is None]
