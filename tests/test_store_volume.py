"""Room and soundness of the volume: what is reserved, what is refused, what makes a volume fail and what heals it."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_faults import IMEI, MAX_AGE_S, FaultyDisk, heal

from dsmgateway.crc import crc16
from dsmgateway.errors import StoreError
from dsmgateway.store import Failing, FileStore, Healed, NoRoom, Offered, Stored, Upload, VolumeFailing
from dsmgateway.store.files import Disk

PEER = "198.51.100.7"
SIZE = 8192
CONTENT = bytes(range(256)) * (SIZE // 256)


class Shelf(FaultyDisk):
    """A disk on which so much is free before any part is written."""

    def __init__(self, total_bytes: int = 1 << 30) -> None:
        super().__init__()
        self.errno = errno.EIO
        self.total_bytes = total_bytes

    def free_bytes(self, path: Path) -> int:
        return self.total_bytes - sum(map(self._length, path.glob("*.part")))

    def _length(self, part: Path) -> int:
        try:
            return part.stat().st_size
        except FileNotFoundError:  # another thread has deleted it meanwhile
            return 0


@pytest.fixture
def disk() -> Shelf:
    return Shelf()


Start = Callable[..., FileStore]


@pytest.fixture
def start(tmp_path: Path, disk: Shelf) -> Iterator[Start]:
    started: list[FileStore] = []

    def start(**options: int) -> FileStore:
        store = FileStore(tmp_path / "data", disk=disk, clock=lambda: 100.0, **options)
        store.start(MAX_AGE_S)
        started.append(store)
        return store

    yield start
    for store in started:
        store.stop()


def offered(number: int = 0, size_bytes: int = SIZE) -> Offered:
    return Offered(f"35209308142{number:04d}", b"dsm/picture/%d.jpg" % number, size_bytes, 0)


def send(upload: Upload, end_bytes: int = SIZE) -> None:
    for offset in range(upload.position_bytes, end_bytes, 1024):
        upload.write(offset, [CONTENT[offset : offset + 1024]])


def finished(store: FileStore, upload: Upload) -> Stored:
    send(upload)
    (answer,) = store.finish([(upload, {})])
    assert isinstance(answer, Stored), answer
    return answer


# -- room


def test_what_is_announced_is_reserved_and_given_back_at_the_end(start: Start, disk: Shelf) -> None:
    """Two files fit beside the mark; a third does once one of them is parked, and then its rest no longer does."""
    store = start(min_free_bytes=5000)
    disk.total_bytes = 2 * SIZE + 5000
    first, _second = store.open(offered(1), PEER), store.open(offered(2), PEER)
    send(first, 2048)
    with pytest.raises(NoRoom, match=r"8192 bytes are missing, 19336 are free on .*, of which .* need 14336 and 5000"):
        store.open(offered(3), PEER)
    first.park()
    assert store._space.needed_bytes == SIZE
    third = store.open(offered(3, SIZE - 2048), PEER)
    with pytest.raises(NoRoom, match="6144 bytes are missing"):
        store.open(offered(1), PEER)
    third.abandon()
    assert store.open(offered(1), PEER).offset_bytes == 2048


def test_a_part_that_goes_on_counts_only_what_is_missing(start: Start, disk: Shelf) -> None:
    store = start()
    upload = store.open(offered(), PEER)
    send(upload, 6144)
    upload.park()
    disk.total_bytes = 6144 + 2047
    with pytest.raises(NoRoom):
        store.open(offered(), PEER)
    disk.total_bytes += 1
    upload = store.open(offered(), PEER)
    assert (upload.offset_bytes, store._space.needed_bytes) == (6144, 2048)
    finished(store, upload)
    assert store._space.needed_bytes == 0


def test_what_cannot_fit_leaves_no_trace_on_the_disk(start: Start, disk: Shelf) -> None:
    """Neither a file made and deleted again, nor a reservation, nor an open upload; a part stays as it was."""
    store = start()
    upload = store.open(offered(), PEER)
    send(upload, 6144)
    upload.park()
    disk.total_bytes = 6144
    before = {path.name: path.read_bytes() for path in store._spool.folder.iterdir() if path.is_file()}
    disk.calls.clear()
    for number in (0, 1):
        with pytest.raises(NoRoom):
            store.open(offered(number), PEER)
    assert not [call for call in disk.calls if not call.startswith(("stat", "ask"))]
    assert {path.name: path.read_bytes() for path in store._spool.folder.iterdir() if path.is_file()} == before
    assert store._space.needed_bytes == 0 and not store._open


def test_a_part_that_proves_to_be_of_no_use_is_refused_after_all(start: Start, disk: Shelf) -> None:
    """Its bytes did not count against it, but they are to be sent again."""
    store = start()
    upload = store.open(offered(), PEER)
    send(upload, 6144)
    upload.park()
    Path(store._spool.part(offered().key)).write_bytes(bytes(6144))
    real, asked = disk.free_bytes, []

    def free_bytes(path: Path) -> int:
        asked.append(path)
        return 4096 if len(asked) == 1 else real(path)

    disk.total_bytes = SIZE - 1
    disk.free_bytes = free_bytes  # type: ignore[method-assign]
    with pytest.raises(NoRoom, match="8192 bytes are missing, 8191 are free"):
        store.open(offered(), PEER)
    assert store._space.needed_bytes == 0 and not store._open


def test_running_files_finish_below_the_mark(start: Start, disk: Shelf) -> None:
    """The mark is for new files only."""
    store = start(min_free_bytes=5000)
    upload = store.open(offered(1), PEER)
    disk.total_bytes = 4000
    with pytest.raises(NoRoom):
        store.open(offered(2), PEER)
    finished(store, upload)


def test_a_known_file_is_compared_on_a_full_disk(start: Start, disk: Shelf) -> None:
    """What needs no room is refused for none."""

    known = Offered(IMEI, b"dsm/picture/1.jpg", SIZE, crc16(CONTENT))
    store = start()
    finished(store, store.open(known, PEER))
    disk.total_bytes = 0
    assert store.open(known, PEER).comparing


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT])
def test_an_open_that_finds_the_disk_full_is_refused_for_lack_of_room(start: Start, disk: Shelf, reason: int) -> None:
    """Whatever the figures said; and the volume is as sound as before."""
    store = start()
    disk.only, disk.calls, disk.fail_at, disk.errno = "create", [], 1, reason
    with pytest.raises(NoRoom, match=r"create .*\.part"):
        store.open(offered(), PEER)
    assert not store.volume.is_failing and store._space.needed_bytes == 0
    finished(store, store.open(offered(), PEER))


def test_threads_do_not_share_out_the_same_room_twice(start: Start, disk: Shelf) -> None:
    """Of twenty that come at once, as many are taken as fit, and the others are not."""
    store = start()
    disk.total_bytes = 7 * SIZE
    barrier, taken, refused = threading.Barrier(20), [], []

    def come(number: int) -> None:
        barrier.wait()
        try:
            taken.append(store.open(offered(number), PEER))
        except NoRoom as error:
            refused.append(error)

    _at_once(come, 20)
    assert (len(taken), len(refused), store._space.needed_bytes) == (7, 13, 7 * SIZE)
    for upload in taken:
        finished(store, upload)
    assert store._space.needed_bytes == 0


def _at_once(call: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- inodes


@pytest.mark.parametrize("free_files", [1000, None])
def test_a_file_is_taken_where_enough_files_can_be_made(start: Start, disk: Shelf, free_files: int | None) -> None:
    disk.free_files = lambda path: free_files  # type: ignore[method-assign]
    store = start()
    finished(store, store.open(offered(), PEER))


def test_a_file_is_refused_where_few_files_can_be_made_and_one_under_way_is_finished(start: Start, disk: Shelf) -> None:
    store = start()
    upload = store.open(offered(1), PEER)
    disk.free_files = lambda path: 999  # type: ignore[method-assign]
    with pytest.raises(NoRoom, match=r"999 more files \(inodes\) fit on .*/spool, and 1000 shall remain"):
        store.open(offered(2), PEER)
    assert len(list(store._spool.folder.glob("*.*"))) == 1 and store._space.needed_bytes == SIZE
    finished(store, upload)


@pytest.mark.parametrize(("total", "left", "answer"), [(0, 0, None), (5000, 12, 12)])
def test_a_file_system_without_a_number_of_inodes_has_no_such_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, left: int, answer: int | None
) -> None:
    fields = list(os.statvfs(tmp_path))
    fields[5:8] = total, left, left
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))
    assert Disk().free_files(tmp_path) == answer


# -- soundness


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("fdatasync", errno.EIO),
        ("fdatasync", errno.EINVAL),
        ("write /", errno.EIO),
        ("write /", errno.EROFS),
        ("write /", errno.ESTALE),
    ],
)
def test_an_error_of_the_volume_stops_new_files_without_touching_it(
    start: Start, disk: Shelf, call: str, reason: int
) -> None:
    store, changes = start(), []
    store.volume.changed = changes.append
    upload = store.open(offered(), PEER)
    send(upload, 1024)
    disk.only, disk.calls, disk.fail_at, disk.errno = call, [], 1, reason
    with pytest.raises(StoreError) as caught:
        upload.checkpoint() if call == "fdatasync" else send(upload, 2048)
    assert not isinstance(caught.value, VolumeFailing), "the file under way fails as its disk did"
    disk.only, disk.fail_at = "", 0
    disk.calls.clear()
    for number in range(3):
        with pytest.raises(VolumeFailing, match=r"the disk is failing since (fdatasync|write) .*\.part"):
            store.open(offered(number), PEER)
    assert disk.calls == []
    heal(store)
    assert changes == [Failing(str(caught.value)), Healed(0, refused=3)]
    finished(store, store.open(offered(), PEER))


@pytest.mark.parametrize(
    ("call", "reason"),
    [("fdatasync", errno.ENOSPC), ("write /", errno.ENOSPC), ("write /", errno.EDQUOT), ("create", errno.EMFILE)],
)
def test_other_errors_are_no_fault_of_the_volume(start: Start, disk: Shelf, call: str, reason: int) -> None:
    store = start()
    disk.only, disk.calls, disk.fail_at, disk.errno = call, [], 1, reason
    with pytest.raises(StoreError):
        upload = store.open(offered(), PEER)
        send(upload, 1024)
        upload.checkpoint()
    assert not store.volume.is_failing


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_a_part_that_is_not_synced_for_want_of_room_does_not_keep_the_room(
    start: Start, disk: Shelf, call: str, reason: int
) -> None:
    """As NFS and btrfs say it. The camera comes again and again, and each time there would be less."""
    store = start()
    for attempt in range(3):
        upload = store.open(offered(), PEER)
        assert upload.offset_bytes == 0 and not upload.comparing
        send(upload)
        disk.only, disk.calls, disk.fail_at, disk.errno = f"{call} {store._spool.part(offered().key)}", [], 1, reason
        if call == "fsync":
            assert isinstance(store.finish([(upload, {})])[0], StoreError)
        else:
            with pytest.raises(StoreError):
                upload.checkpoint()
        disk.only, disk.fail_at = "", 0
        assert list(store._spool.aside.iterdir()) == [], attempt
        assert not list(store._spool.folder.glob("*.*")), attempt
    assert not finished(store, store.open(offered(), PEER)).duplicate


def test_a_volume_that_went_read_only_is_found_out_by_a_file_that_goes_on(start: Start, disk: Shelf) -> None:
    """Its part is there already, so that opening it is the first thing that fails."""
    store = start()
    upload = store.open(offered(), PEER)
    send(upload, 2048)
    upload.park()
    part = store._spool.part(offered().key)
    disk.only, disk.calls, disk.fail_at, disk.errno = f"open {part}", [], 1, errno.EROFS
    with pytest.raises(VolumeFailing):
        store.open(offered(), PEER)
    disk.only, disk.fail_at = "", 0
    heal(store)
    assert store.open(offered(), PEER).offset_bytes == 2048


def test_what_cannot_be_read_is_no_fault_of_the_volume(start: Start, disk: Shelf) -> None:
    """One bad spot under an old part: that part is set aside, others are taken."""
    store = start()
    upload = store.open(offered(), PEER)
    send(upload, 2048)
    upload.park()
    disk.only, disk.calls, disk.fail_at = f"read {store._spool.part(offered().key)}", [], 1
    assert store.open(offered(), PEER).offset_bytes == 0
    assert not store.volume.is_failing


def test_a_file_under_way_is_finished_on_a_volume_that_failed_another(start: Start, disk: Shelf) -> None:
    """It is acknowledged for its own syncs; what failed was told to the other."""
    store = start()
    one, other = store.open(offered(1), PEER), store.open(offered(2), PEER)
    send(one, 1024)
    disk.only, disk.calls, disk.fail_at = "fdatasync", [], 1
    with pytest.raises(StoreError):
        one.checkpoint()
    assert store.volume.is_failing
    finished(store, other)


def test_an_open_that_meets_the_error_is_refused_like_those_after_it(start: Start, disk: Shelf) -> None:
    store, changes = start(), []
    store.volume.changed = changes.append
    disk.only, disk.calls, disk.fail_at = "create", [], 1
    with pytest.raises(VolumeFailing):
        store.open(offered(), PEER)
    assert len(changes) == 1 and store._space.needed_bytes == 0


@pytest.mark.parametrize(
    "call", ["create", "write /", "fsync", "move", "link", "delete", "begin", "write to", "commit"]
)
def test_a_probe_writes_and_syncs_wherever_a_file_has_to(start: Start, disk: Shelf, call: str) -> None:
    """Spool, tree and index; the volume fails for as long as any of it does."""
    store, changes = start(), []
    store.volume.failed(StoreError("told by the test"))
    store.volume.changed = changes.append
    disk.only, disk.calls, disk.fail_at = call, [], 1
    assert not store.probe() and store.volume.is_failing and changes == []
    assert len(disk.calls) >= 1
    heal(store)
    assert changes == [Healed(0, refused=0)]
    assert not list(store._folder.rglob(".probe"))


def test_a_probe_of_a_sound_volume_or_of_a_stopped_store_touches_nothing(start: Start, disk: Shelf) -> None:
    store = start()
    disk.calls.clear()
    assert store.probe()
    store.stop()
    store.volume.failed(StoreError("told by the test"))
    disk.calls.clear()
    assert not store.probe()
    assert disk.calls == []


def test_an_error_that_somebody_meets_during_the_probe_counts(start: Start) -> None:
    store = start()
    store.volume.failed(StoreError("the first"))
    assert not store.volume.probe(lambda: store.volume.failed(StoreError("the second")))
    assert store.volume.is_failing
    heal(store)


def test_many_threads_meet_the_error_and_one_change_is_told(start: Start, disk: Shelf) -> None:
    """Twenty files under way fail, twenty others are refused; then one probe heals it for all of them."""
    store, changes = start(), []
    store.volume.changed = changes.append
    uploads = [store.open(offered(number), PEER) for number in range(20)]
    for upload in uploads:
        send(upload, 1024)
    barrier, failed, refused = threading.Barrier(20), [], []

    def fail(number: int) -> None:
        barrier.wait()
        try:
            uploads[number].checkpoint()
        except StoreError as error:
            failed.append(error)
        try:
            store.open(offered(100 + number), PEER)
        except VolumeFailing as error:
            refused.append(error)

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    disk.synced = broken  # type: ignore[method-assign]
    _at_once(fail, 20)
    assert not store.probe()
    del disk.synced
    assert (len(failed), len(refused), len(changes)) == (20, 20, 1)
    probes: list[bool] = []
    _at_once(lambda number: probes.append(store.probe()), 4)
    assert probes == [True] * 4
    assert changes[1:] == [Healed(0, refused=20)]
    assert store._space.needed_bytes == 0


@pytest.mark.parametrize(
    ("name", "told"), [("SQLITE_IOERR_FSYNC", True), ("SQLITE_READONLY", True), ("SQLITE_FULL", False)]
)
def test_errors_of_the_index_tell_a_failing_volume_from_a_full_one(tmp_path: Path, name: str, told: bool) -> None:
    """SQLite has names of its own for what the system says."""
    disk, heard = Disk(), []
    disk.unsound = heard.append

    def fail() -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = name
        raise error

    for operation in ("query", "commit to"):
        with pytest.raises(StoreError, match="disk I/O error"):
            disk.run(operation, tmp_path, fail)
    assert len(heard) == told
