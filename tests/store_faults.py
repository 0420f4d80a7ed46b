"""Disks that fail, die or forget, for the tests of the store; and a camera that delivers files to it."""

from __future__ import annotations

import enum
import os
import random
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dsmgateway.crc import crc16
from dsmgateway.errors import StoreError
from dsmgateway.store import Disk, FileStore, Offered, OtherFile, Share, State, Stored, check
from dsmgateway.store.files import StrPath
from dsmgateway.store.tally import SharedSlots, Tally

IMEI = "352093081429150"
DAY_S = 86400.0
MAX_AGE_S = 30 * DAY_S


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder in memory where there is one, for tests that make thousands of syncs which prove nothing there."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


class Killed(BaseException):
    """What SIGKILL between two system calls looks like from inside: nothing after it runs."""


class FaultyDisk(Disk):
    """A disk that dies before call number ``kill_at``, or fails call number ``fail_at`` with ``errno``.

    With ``lasting`` it fails all later ones, too.

    Syncs are only counted: a killed process leaves the page cache, so nothing is lost by leaving them out.
    """

    def __init__(self, *, kill_at: int = 0, fail_at: int = 0, errno: int = 0, only: str = "") -> None:
        self.calls: list[str] = []
        self.kill_at = kill_at
        self.fail_at = fail_at
        self.errno = errno
        self.only = only
        self.lasting = False
        self.dead = False
        self._descriptors: set[int] = set()
        self._connections: list[sqlite3.Connection] = []

    def run(self, operation: str, path: StrPath, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
        if self.dead:
            raise Killed
        path = Path(path)
        if self.only in f"{operation} {path};":
            self.calls.append(f"{operation} {path.name}")
            if len(self.calls) == self.kill_at:
                self.dead = True
                raise Killed
            if len(self.calls) == self.fail_at or (self.lasting and len(self.calls) > self.fail_at > 0):
                call = self._failing(call)
        if call in (os.fsync, os.fdatasync):
            call = self.synced
        result = super().run(operation, path, call, *arguments, **options)
        if call is os.open:
            self._descriptors.add(result)
        elif call is os.close:
            self._descriptors.discard(arguments[0])
        elif isinstance(result, sqlite3.Connection):
            self._connections.append(result)
        return result

    def _failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def fail(*arguments: Any, **options: Any) -> None:
            if call is os.close:  # the descriptor is gone even where close fails
                self._descriptors.discard(arguments[0])
                os.close(*arguments)
            elif call in [connection.close for connection in self._connections]:  # and so is SQLite's
                call()
            raise OSError(self.errno, os.strerror(self.errno))

        return fail

    def synced(self, descriptor: int) -> None:
        os.fstat(descriptor)

    def bury(self) -> None:
        """Do what the kernel does for a dead process."""
        for connection in self._connections:
            connection.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._connections.clear()
        self._descriptors.clear()


class ForgetfulDisk(FaultyDisk):
    """A disk that loses at a power cut whatever was not synced: `survivors` builds what is found afterwards.

    Every folder is as it was at its own last sync, every file too; a file that was never synced has its size and zeros
    in it. No real file system is as bad. The index is left alone, SQLite looks after itself.
    """

    def __init__(self, root: Path, **faults: Any) -> None:
        super().__init__(**faults)
        self._root = root
        self._ids: dict[int, int] = {}
        self._made = 0
        self._contents: dict[int, bytes] = {}
        self._folders: dict[Path, dict[str, int]] = {}

    def run(self, operation: str, path: StrPath, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
        result, path = super().run(operation, path, call, *arguments, **options), Path(path)
        if operation == "create":
            self._new(os.fstat(result).st_ino)
        elif operation == "create folder" and path.stat().st_ino not in self._ids:
            self._new(path.stat().st_ino)
        elif operation == "delete folder":
            self._folders.pop(path, None)
        return result

    def _new(self, inode: int) -> None:
        self._made += 1
        self._ids[inode] = self._made

    def synced(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if stat.S_ISDIR(status.st_mode):
            entries = {entry.name: self._ids.get(entry.inode(), 0) for entry in os.scandir(path)}
            self._folders[path] = entries
        else:
            self._contents[self._ids[status.st_ino]] = os.pread(descriptor, status.st_size, 0)

    def survivors(self, target: Path, *, keep_index: bool) -> None:
        """Build the data folder as the power cut leaves it."""
        self._restore(self._root, target)
        for name in ("index.sqlite3", "index.sqlite3-wal") if keep_index else ():
            if (self._root / name).exists():
                (target / name).write_bytes((self._root / name).read_bytes())

    def _restore(self, source: Path, target: Path) -> None:
        target.mkdir()
        for name, number in self._folders.get(source, {}).items():
            if name.startswith("index.") or name == "lock":
                continue
            if "." in name:
                (target / name).write_bytes(self._contents.get(number, bytes(4096)))
            else:
                self._restore(source / name, target / name)


class Kind(enum.Enum):
    """How the files of a `Camera` are offered."""

    PATHS = "paths"
    #: Odd firmware: the sizes of files that have paths are told in packets.
    COUNTED = "counted"
    #: One identifier for both, sizes that are the same in packets, and metadata that is no help.
    PHOTOS = "photos"
    #: The same without metadata.
    NAMELESS = "nameless"


class Camera:
    """Files that a device offers, and what it was told of them: four that have paths, or two photos of a DualCam."""

    def __init__(self, kind: Kind = Kind.PATHS, *, photos: bool = False, imei: str = IMEI, seed: int = 7) -> None:
        kind = Kind.PHOTOS if photos else kind
        noise = random.Random(seed)
        sizes = {b"dsm/picture/1.jpg": 5000, b"dsm/picture/2.jpg": 4096, b"mdas9/3.mp4": 2100, b"dsm/4.jpg": 0}
        self.photos = kind in (Kind.PHOTOS, Kind.NAMELESS)
        if self.photos:
            sizes = {b"%photof one": 3073, b"%photof two": 4000}
        self.contents = {path: noise.randbytes(size) for path, size in sizes.items()}
        self.told: dict[bytes, Stored] = {}
        self._kind, self._imei = kind, imei
        #: How often the part of one photo was not gone on with for the other one.
        self.others = 0

    def offer(self, path: bytes, *, known_crc: bool = False) -> Offered:
        content = self.contents[path]
        size_bytes = -(-len(content) // 1024) * 1024
        if self.photos:
            qualifier = "" if self._kind is Kind.NAMELESS else "1571840452123-4"
            return Offered(self._imei, b"%photof", size_bytes, 0, in_packets=True, qualifier=qualifier)
        if self._kind is Kind.COUNTED:
            return Offered(self._imei, path, size_bytes, 0, in_packets=True)
        return Offered(self._imei, path, len(content), crc16(content) if known_crc else 0)

    def send(self, upload: Any, path: bytes, end: int | None = None) -> None:
        content = self.contents[path]
        for start in range(upload.position_bytes, len(content) if end is None else end, 1024):
            upload.write(start, [content[start : start + 1024]])

    def deliver(self, store: FileStore, path: bytes, *, known_crc: bool = False) -> Stored:
        offered = self.offer(path, known_crc=known_crc)
        upload = store.open(offered, "198.51.100.7")
        try:
            self.send(upload, path)
        except OtherFile:
            self.others += 1
            upload = store.open(offered, "198.51.100.7")
            assert upload.offset_bytes == 0
            self.send(upload, path)
        return self.answered(path, store.finish([(upload, {"metadata": {"raw": "00"}})])[0])

    def answered(self, path: bytes, answer: object) -> Stored:
        if isinstance(answer, StoreError):
            raise answer
        assert isinstance(answer, Stored)
        if path in self.told:
            assert answer.duplicate, "what was stored is known to be"
            assert answer.path == self.told[path].path
        self.told[path] = answer
        return answer


def heal(store: FileStore) -> None:
    """The volume fails, and a probe finds that it does so no longer."""
    assert store.volume.is_failing
    assert store.probe() and not store.volume.is_failing


def a_day(store: FileStore, camera: Camera) -> None:
    """A broken connection, a finish of three together, one alone, a comparison, a duplicate, an unfinished rest.

    Where one of the three fails the others count as any other answer.
    """
    if camera.photos:
        _a_day_of_photos(store, camera)
        return
    one, two, three, four = camera.contents
    store.start(MAX_AGE_S)
    upload = store.open(camera.offer(one), "198.51.100.7")
    camera.send(upload, one, 3072)
    upload.park()
    uploads = {path: store.open(camera.offer(path), "198.51.100.7") for path in (one, two, four)}
    for path, upload in uploads.items():
        camera.send(upload, path)
    answers = store.finish([(upload, {}) for upload in uploads.values()])
    failed = None
    for path, answer in zip(uploads, answers, strict=True):
        if isinstance(answer, StoreError):
            failed = answer
        else:
            camera.answered(path, answer)
    if failed is not None:
        raise failed
    camera.deliver(store, two, known_crc=True)
    camera.deliver(store, one)
    upload = store.open(camera.offer(three), "198.51.100.7")
    camera.send(upload, three, 1024)
    upload.checkpoint(durable=False)
    camera.send(upload, three, 2048)
    upload.checkpoint()
    upload.write(512, [camera.contents[three][512:2048]])
    store.stop()


def _a_day_of_photos(store: FileStore, camera: Camera) -> None:
    """A photo broken off, the other one under the same identifier, the first one broken off twice, a duplicate."""
    one, two = camera.contents
    store.start(MAX_AGE_S)
    upload = store.open(camera.offer(one), "198.51.100.7")
    camera.send(upload, one, 3072)
    upload.park()
    camera.deliver(store, two)
    for end in (3072, 3073):
        upload = store.open(camera.offer(one), "198.51.100.7")
        camera.send(upload, one, end)
        upload.park()
    camera.deliver(store, one)
    upload = store.open(camera.offer(two), "198.51.100.7")
    camera.send(upload, two, 2048)
    store.stop()


def come_back(store: FileStore, folder: Path, disk: FaultyDisk, camera: Camera) -> None:
    """Deliver everything to the same store, if it runs, then to a new one: each file is there, once."""
    store.probe()
    try:
        for path in camera.contents:
            camera.deliver(store, path)
    except StoreError as error:
        assert "is not running" in str(error), error
    with suppress(StoreError):
        store.stop()
    disk.bury()
    assert_nothing_lost(folder, camera)


def beside_others(folder: Path, lock: int, memory: int, number: int, **options: Any) -> FileStore:
    """The store of one of three processes at most, which has ``lock`` as its own, before its start."""
    slots = SharedSlots(memory, 3, 3)
    share = Share(number, lock, *(Tally(slots.row(row), number) for row in range(3)))
    return FileStore(folder, share=share, **options)


def assert_nothing_lost(folder: Path, *cameras: Camera) -> None:
    """Start again, deliver everything once more, and find each file once and whole."""
    store = FileStore(folder)
    store.start(MAX_AGE_S)
    for camera in cameras:
        for path, stored in camera.told.items():
            assert (folder / stored.path).read_bytes() == camera.contents[path], "acknowledged and not there"
        for path in camera.contents:
            camera.deliver(store, path)
    store.stop()
    rows = list(check(folder))
    assert {row.state for row in rows} <= {State.OK, State.SET_ASIDE, State.RESUMABLE, State.FROM_START}, rows
    copies = sorted((folder / row.path).read_bytes() for row in rows if row.state is State.OK)
    assert copies == sorted(content for camera in cameras for content in camera.contents.values()), (
        "each once, and none but these"
    )
    assert not list((folder / "spool").glob("*.sidecar"))
