"""The durable store of received files: what the rest of the gateway sees of the disk.

Blocking, with nothing but the standard library; a file is answered for as `Stored` only when a power cut can no longer
take it away. Offers come in as `Offered`, bytes through an `Upload`. Knows no sockets and no threads of its own.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

from dsmgateway.errors import StoreError
from dsmgateway.store.comparison import Comparison
from dsmgateway.store.files import Disk, lacks_room
from dsmgateway.store.finishing import Answer, Finishing
from dsmgateway.store.index import Index
from dsmgateway.store.landing import Ground
from dsmgateway.store.naming import INDEX, LOCK, MEDIA, PROBE, SPOOL
from dsmgateway.store.part import Room
from dsmgateway.store.recovery import Restart, expire, read_record
from dsmgateway.store.resuming import open_part
from dsmgateway.store.share import Share
from dsmgateway.store.signs import ADMITTING, FIRST_PROCESS, Sign, keep_out, let_in, show
from dsmgateway.store.spool import PART, SIDECAR, Spool
from dsmgateway.store.upload import Upload
from dsmgateway.store.values import Dropped, Expired, Offered, Recovery
from dsmgateway.store.volume import NoRoom, Space, Volume


class FileStore:
    """The store in one data folder.

    Threads may share it as long as the calls for one device (IMEI) come from one thread at a time. Every method may
    raise `StoreError`; the camera then keeps its copy.
    """

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], float] = time.time,
        disk: Disk | None = None,
        min_free_bytes: int = 0,
        max_parts: int = sys.maxsize,
        clock: Callable[[], float] = time.monotonic,
        share: Share | None = None,
    ) -> None:
        """Touch nothing yet, but see through symbolic links in ``folder``.

        ``now`` gives seconds since 1970, ``clock`` seconds that never go back; ``disk`` makes the system calls, for
        this store alone; an offer is refused when what it and the open uploads still need would leave less than
        ``min_free_bytes`` free; above ``max_parts`` unfinished files the short ones are not kept. ``volume`` says
        whether the disk is failing; ``dropped`` is told what is not kept, by any thread, and must not block.
        With ``share`` other processes use the folder too, for other devices, and one has started and lent it (`lend`).
        """
        self._folder = folder = Path(os.path.realpath(folder))
        self._now = now
        self._disk = disk or Disk()
        self.volume = Volume(clock, partial(self._show, Sign.FAILING), share.failing if share else None)
        self._disk.unsound = self.volume.failed
        self.dropped: Callable[[Dropped], object] = lambda part: None
        self._share = share
        parts, needed = (share.parts, share.needed_bytes) if share else (None, None)
        self._spool = Spool(folder / SPOOL, self._disk, max_parts, lambda part: self.dropped(part), parts)
        self._index = Index(folder / INDEX, self._disk, alone=share is None)
        probe = PROBE if share is None else f"{PROBE}-{share.number}"
        self._ground = Ground(folder, self._disk, self._spool, self._index, probe)
        self._finishing = Finishing(self._ground, now)
        show_full = partial(self._show, Sign.FULL)
        alone = partial(self._others_kept_out, share) if share else nullcontext
        self._space = Space(self._disk, self._spool.folder, min_free_bytes, show_full, clock, needed, alone)
        self._room = Room(self._disk, self._spool, self._space.release, self._ended)
        self._lock = threading.Lock()
        self._open: dict[str, Upload] = {}
        self._locked: int | None = None

    def start(self, part_max_age_s: float) -> Recovery:
        """Take the data folder, complete what was cut off, delete parts older than ``part_max_age_s``.

        Raises `StoreError`, among other reasons because another gateway uses the folder; the store is then stopped.
        """
        try:
            if self._share is not None:
                return self._join(self._share)
            self._make_folders()
            sound = self._index.open()
            self._disk.sync_folder(self._folder)
            return Restart(self._ground).run(rebuild=not sound, now=self._now(), part_max_age_s=part_max_age_s)
        except StoreError:
            with suppress(StoreError):
                self.stop()
            raise

    def lend(self) -> int:
        """After `start`, leave the folder to other processes: return the lock's descriptor, which is held until `stop`.

        The index is closed, and nothing of the store may be used any more but `stop`.
        """
        if self._locked is None:
            raise StoreError(f"lend {self._folder}: the store is not running")
        self._index.close()
        return self._locked

    def open(self, offered: Offered, peer: str, *, compare: bool = True) -> Upload:
        """Begin or take up the reception of an offered file from ``peer``.

        An upload of the same offer that is still open is parked: the newest connection wins. With ``compare``, a
        file that was stored already under the same device, path, size and CRC-16 is only compared, unless the size
        is known in packets only or the path is an identifier.

        Raises `NoRoom` or `VolumeFailing` where it is nothing about this file; while the volume is known to fail, that
        is without touching it.
        """
        if self._locked is None:
            raise StoreError(f"open {offered}: the store is not running")
        self.volume.require_sound(offered)
        try:
            upload = self._opened(offered, compare=compare)
        except NoRoom:
            raise
        except StoreError as error:
            if lacks_room(error):
                raise NoRoom(str(error)) from error
            self.volume.require_sound(offered)
            raise
        upload.peer = peer
        return upload

    def probe(self) -> bool:
        """Try whether a failing volume can be written to again, everywhere; return whether it takes files now."""
        return self._locked is not None and self.volume.probe(self._try_to_write)

    def finish(self, uploads: Sequence[tuple[Upload, Mapping[str, object]]]) -> list[Answer]:
        """Store whole files durably, as a group; return an answer for each, in order.

        Each comes with what its sidecar shall say besides what the store knows. A file that fails has its `StoreError`
        as the answer and can be offered again; the others are not harmed.
        """
        return self._finishing.finish(uploads)

    def expire(self, part_max_age_s: float) -> tuple[Expired, ...]:
        """Delete parts that nobody has written to for ``part_max_age_s`` seconds; raises `StoreError`."""
        with self._lock:
            in_use = frozenset(self._open)
        now = self._now()
        folders = (self._spool.folder, self._spool.aside)
        found = (expire(self._disk, self._spool, folder, now, part_max_age_s, in_use) for folder in folders)
        return tuple(part for expired in found for part in expired)

    def stop(self) -> None:
        """Park what is open and give the data folder back; a park that fails costs only progress."""
        with self._lock:
            uploads = list(self._open.values())
        for upload in uploads:
            with suppress(StoreError):
                upload.park()
        try:
            self._index.close()
        finally:
            if self._locked is not None:
                descriptor, self._locked = self._locked, None
                self._disk.close(self._folder / LOCK, descriptor)

    def _join(self, share: Share) -> Recovery:
        """Be one of several processes. What an earlier one of this number left is dealt with when it is offered again.

        What that one had reserved is given back, and whether the disk fails is found out anew; its parts are there.
        """
        self._locked = share.lock
        self._disk.run("lock", self._folder / LOCK, keep_out, share.lock, FIRST_PROCESS + share.number)
        share.needed_bytes.set(0)
        share.failing.set(0)
        self._index.join()
        return Recovery(parts=self._spool.parts)

    @contextmanager
    def _others_kept_out(self, share: Share) -> Iterator[None]:
        """Let no other process find out meanwhile whether a file fits, so that not two take the same room."""
        self._disk.run("lock", self._folder / LOCK, keep_out, share.lock, ADMITTING)
        try:
            yield
        finally:
            # Where that fails the next file does it; this one has its room already.
            with suppress(StoreError):
                self._disk.run("unlock", self._folder / LOCK, let_in, share.lock, ADMITTING)

    def _show(self, sign: Sign, holds: bool) -> None:
        if self._locked is not None:
            show(self._locked, sign, holds=holds)

    def _make_folders(self) -> None:
        for folder in (*reversed(self._folder.parents), self._folder):
            if self._disk.stat(folder) is None:
                self._disk.make_folder(folder)
                self._disk.sync_folder(folder.parent)
        self._locked = self._disk.lock(self._folder / LOCK)
        for folder in (self._folder / MEDIA, self._spool.folder, self._spool.aside):
            self._disk.make_folder(folder)
        self._ground.probe()

    def _try_to_write(self) -> None:
        self._ground.probe()
        self._index.probe()

    def _ended(self, upload: Upload) -> None:
        self._space.release(upload.offered.size_bytes - upload.position_bytes)
        with self._lock:
            self._open.pop(upload.offered.key, None)

    def _opened(self, offered: Offered, *, compare: bool) -> Upload:
        self._take_over(offered.key)
        self._settle(offered.key)
        return (self._comparison(offered) if compare else None) or self._admitted(offered)

    def _admitted(self, offered: Offered) -> Upload:
        """Open the part, if what is missing of it fits.

        It is not opened where it cannot fit whatever the part turns out to hold: a fleet that comes again and again
        would have files made and deleted on a disk that is full.
        """
        held_bytes = 0
        if self._spool.may_have(offered.key, PART):
            held_bytes = self._disk.size(self._spool.part(offered.key)) or 0
        self._space.require(offered, max(offered.size_bytes - held_bytes, 0))
        upload = open_part(self._room, offered, self._now())
        missing_bytes = offered.size_bytes - upload.position_bytes
        try:
            self._space.reserve(offered, missing_bytes)
        except StoreError:
            self._space.release(-missing_bytes)  # as the end of every upload gives it back
            with suppress(StoreError):
                upload.park()
            raise
        with self._lock:
            self._open[offered.key] = upload
        return upload

    def _take_over(self, key: str) -> None:
        with self._lock:
            old = self._open.get(key)
        if old is not None:
            with suppress(StoreError):
                old.park()

    def _settle(self, key: str) -> None:
        """Deal with the record of an earlier finish: its file was committed, or the finish is undone now.

        A commit that failed can still come true, so the file and its sidecar must be where the index says, too.
        """
        if not self._spool.may_have(key, SIDECAR):
            return
        sidecar = self._spool.sidecar(key)
        if self._disk.size(sidecar) is None:
            return
        record = read_record(sidecar, self._disk)
        if record is None or (self._index.has(record.path) and self._ground.has_landed(record)):
            self._spool.clear(key, SIDECAR)
        else:
            self._ground.take_back(key, record)

    def _comparison(self, offered: Offered) -> Upload | None:
        """Return a comparison where path and size say which file it is, and its CRC-16 that we have it."""
        if offered.start_crc == 0 or offered.size_bytes == 0 or offered.in_packets or offered.qualifier is not None:
            return None
        for record in self._index.find(offered.imei, offered.device_path, offered.size_bytes):
            if record.crc16 == offered.start_crc and self._ground.is_copy(record, offered):
                return Comparison(self._disk, self._ground.path(record.path), offered, record)
        return None
