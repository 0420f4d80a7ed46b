"""Receiving: where a file goes on, rewinds, holes, failing disks, expiry, the lock, and what `check` says of it all."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_faults import DAY_S, IMEI, MAX_AGE_S, FaultyDisk, Killed, heal

from dsmgateway.errors import StoreError
from dsmgateway.store import Disk, Expired, FileStore, Offered, State, Stored, Upload, check
from dsmgateway.store.files import BLOCK_BYTES
from dsmgateway.store.part import _MARK_EVERY_BYTES

CONTENT = bytes(range(256)) * 4 * 7 + b"the end"
OFFERED = Offered(IMEI, b"dsm/picture/231020/231452.jpg", len(CONTENT), 0)
PEER = "198.51.100.7"

Start = Callable[..., FileStore]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a store on the data folder, after stopping the one before."""
    running: list[FileStore] = []

    def start(**options: object) -> FileStore:
        while running:
            running.pop().stop()
        store = FileStore(tmp_path / "data", **options)  # type: ignore[arg-type]
        store.start(MAX_AGE_S)
        running.append(store)
        return store

    yield start
    for store in running:
        store.stop()


def _send(upload: Upload, end: int, start: int | None = None) -> None:
    for offset in range(upload.position_bytes if start is None else start, end, 1024):
        upload.write(offset, [CONTENT[offset : min(offset + 1024, end)]])


def _spool(store: FileStore, suffix: str, offered: Offered = OFFERED) -> Path:
    return store._folder / "spool" / f"{offered.key}.{suffix}"


def _finish(store: FileStore, upload: Upload) -> Stored:
    (answer,) = store.finish([(upload, {})])
    assert isinstance(answer, Stored), answer
    return answer


def _assert_whole(store: FileStore, upload: Upload) -> None:
    """Complete the upload and find exactly the content."""
    _send(upload, len(CONTENT))
    assert (store._folder / _finish(store, upload).path).read_bytes() == CONTENT


def test_a_parked_file_goes_on_where_it_was_also_after_a_restart(start: Start) -> None:
    store = start()
    upload = store.open(OFFERED, PEER)
    assert (upload.offset_bytes, upload.comparing) == (0, False)
    _send(upload, 3072)
    upload.park()
    store = start()
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes == upload.position_bytes == 3072
    _assert_whole(store, upload)


def test_a_position_within_a_packet_is_taken_up_at_the_start_of_the_packet(start: Start) -> None:
    store = start()
    upload = store.open(OFFERED, PEER)
    _send(upload, 2500)
    upload.park()
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes == 2048
    _assert_whole(store, upload)


def test_a_part_with_every_byte_leaves_the_last_packet_to_be_sent(start: Start) -> None:
    store = start()
    upload = store.open(OFFERED, PEER)
    _send(upload, len(CONTENT))
    upload.park()
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes == 7168
    _assert_whole(store, upload)


@pytest.mark.parametrize(("held", "offset"), [(2500, 2048), (len(CONTENT), 7168)])
def test_a_connection_that_brings_nothing_costs_nothing(start: Start, held: int, offset: int) -> None:
    """What the last checkpoint proves stays provable, also where the device goes on before it."""
    store = start()
    upload = store.open(OFFERED, PEER)
    _send(upload, held)
    upload.park()
    for _ in range(3):
        upload = store.open(OFFERED, PEER)
        assert upload.offset_bytes == offset
        upload.park()
    _assert_whole(store, store.open(OFFERED, PEER))


def test_bytes_beyond_the_checkpoint_are_not_trusted_but_counted(start: Start, tmp_path: Path) -> None:
    store = start()
    upload = store.open(OFFERED, PEER)
    _send(upload, 2048)
    upload.checkpoint()
    assert upload.dirty_bytes == 0
    _send(upload, 5120)
    assert upload.dirty_bytes == 3072
    upload.abandon()
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes == 2048
    assert _spool(store, "part").stat().st_size == 2048
    _send(upload, len(CONTENT))
    sidecar = (tmp_path / "data" / _finish(store, upload).path).with_suffix(".json").read_text()
    assert '"connections": 2' in sidecar and '"bytes_received_twice": 3072' in sidecar


def test_connections_and_bytes_received_twice_outlive_a_restart_at_zero(start: Start) -> None:
    store = start()
    upload = store.open(OFFERED, PEER)
    _send(upload, 3072)
    upload.park()
    _spool(store, "part").write_bytes(bytes(3072))
    store = start()
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes == 0
    _send(upload, 2048)
    store = start()
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes == 2048
    _send(upload, len(CONTENT))
    sidecar = (store._folder / _finish(store, upload).path).with_suffix(".json").read_text()
    assert '"connections": 3' in sidecar and '"bytes_received_twice": 3072' in sidecar


def test_zeros_where_the_bytes_were_do_not_pass_for_a_prefix(start: Start) -> None:
    """The size says 4096, as after a power cut; only the first checkpoint is proven by the bytes."""
    store = start()
    upload = store.open(OFFERED, PEER)
    for end in (1024, 4096):
        _send(upload, end)
        upload.checkpoint()
    upload.abandon()
    with _spool(store, "part").open("r+b") as part:
        part.seek(2048)
        part.write(bytes(2048))
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes == 1024
    _assert_whole(store, upload)


@pytest.mark.parametrize("damage", [b"", b"garbage\n", b"\0" * 100])
def test_a_damaged_journal_means_zero(start: Start, damage: bytes) -> None:
    store = start()
    upload = store.open(OFFERED, PEER)
    _send(upload, 3072)
    upload.park()
    _spool(store, "journal").write_bytes(damage)
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes == 0
    _assert_whole(store, upload)


def test_a_journal_without_a_part_and_a_part_without_a_journal_mean_zero(start: Start) -> None:
    store = start()
    for missing in ("part", "journal"):
        upload = store.open(OFFERED, PEER)
        _send(upload, 3072)
        upload.park()
        _spool(store, missing).unlink()
        upload = store.open(OFFERED, PEER)
        assert upload.offset_bytes == 0
        upload.park()


def test_a_torn_record_does_not_hide_the_checkpoints_after_it(start: Start) -> None:
    store = start()
    upload = store.open(OFFERED, PEER)
    _send(upload, 2048)
    upload.park()
    with _spool(store, "journal").open("ab") as journal:
        journal.write(b'0badf00d {"offset":')
    upload = store.open(OFFERED, PEER)
    _send(upload, 4096)
    upload.park()
    assert store.open(OFFERED, PEER).offset_bytes == 4096


def test_another_size_or_crc_is_another_file(start: Start) -> None:
    store = start()
    upload = store.open(OFFERED, PEER)
    _send(upload, 3072)
    for other in (Offered(IMEI, OFFERED.device_path, 9000, 0), Offered(IMEI, OFFERED.device_path, len(CONTENT), 9)):
        assert store.open(other, PEER).offset_bytes == 0
    assert upload.is_open


def test_a_part_that_cannot_be_read_back_is_set_aside_and_begun_anew(start: Start) -> None:
    store = start()
    upload = store.open(OFFERED, PEER)
    _send(upload, 3072)
    upload.park()
    store = start(disk=FaultyDisk(fail_at=1, errno=errno.EIO, only=f"read {_spool(store, 'part')}"))
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes == 0
    assert len(os.listdir(store._folder / "spool/aside")) == 1
    _assert_whole(store, upload)


@pytest.mark.parametrize("operation", ["open", "truncate"])
def test_a_part_outlives_an_offer_that_fails_for_another_reason(start: Start, operation: str) -> None:
    """Too many open files must not cost what was received."""
    store = start()
    upload = store.open(OFFERED, PEER)
    _send(upload, 3072)
    upload.park()
    store = start(disk=FaultyDisk(fail_at=1, errno=errno.EMFILE, only=f"{operation} {_spool(store, 'part')}"))
    with pytest.raises(StoreError, match=rf"{operation} .*\.part: Too many open files"):
        store.open(OFFERED, PEER)
    assert store.open(OFFERED, PEER).offset_bytes == 3072


def test_a_rewind_overwrites_and_the_digests_follow(start: Start) -> None:
    store = start()
    upload = store.open(OFFERED, PEER)
    upload.write(0, [b"x" * 1024, b"y" * 1024, b"z" * 1024])
    upload.checkpoint()
    upload.write(1024, [CONTENT[1024:2048]])
    assert upload.position_bytes == 2048
    upload.write(0, [CONTENT[:1024]])
    _send(upload, 5120)
    upload.checkpoint()
    _send(upload, 6144)
    _send(upload, 7168, start=5120)
    _assert_whole(store, upload)


def _reads_of_parts(store: FileStore) -> list[int]:
    """A list of how many bytes of parts are read from now on."""
    reads, blocks = [], store._disk.blocks

    def counted(path: str, descriptor: int, begin: int, end: int) -> Iterator[bytes]:
        if path.endswith(".part"):
            reads.append(end - begin)
        return blocks(path, descriptor, begin, end)

    store._disk.blocks = counted  # type: ignore[method-assign,assignment]
    return reads


@pytest.mark.parametrize("qualifier", [None, "1571840452123-4"])
def test_a_part_is_read_once_to_be_taken_up(start: Start, qualifier: str | None) -> None:
    """Its device may ask for that again and again; what it is compared with is read again, back to a checkpoint."""
    content = random.Random(0).randbytes(64 * 1024)
    offered = Offered(IMEI, OFFERED.device_path, len(content), 0, qualifier=qualifier)
    store = start()
    upload = store.open(offered, PEER)
    for begin in range(0, len(content) - 4096, 4096):
        upload.write(begin, [content[begin : begin + 4096]])
        upload.checkpoint()
    upload.park()
    reads = _reads_of_parts(store)
    upload = store.open(offered, PEER)
    spare = 4096 + 2 * 1024 if qualifier else 0
    assert upload.offset_bytes == len(content) - 4096 - (1024 if qualifier else 0)
    assert sum(reads) <= len(content) - 4096 + spare
    upload.write(upload.offset_bytes, [content[upload.offset_bytes :]])
    assert (store._folder / _finish(store, upload).path).read_bytes() == content


@pytest.mark.parametrize("is_resumed", [False, True])
def test_rewinds_read_no_more_than_what_follows_the_last_mark(start: Start, is_resumed: bool) -> None:
    """A device can ask for many with a few bytes, each a little before the last one."""
    content = (CONTENT[:1024] * 1024)[:-7] * 11
    offered = Offered(IMEI, OFFERED.device_path, len(content), 0)
    store = start()
    upload = store.open(offered, PEER)
    upload.write(0, [content[begin : begin + 65536] for begin in range(0, len(content) - 65536, 65536)])
    if is_resumed:
        upload.park()
        upload = store.open(offered, PEER)
        upload.write(upload.position_bytes - 1, [b"?"])  # the first one has to read all
    reads = _reads_of_parts(store)
    for offset in range(upload.position_bytes - 10_000, upload.position_bytes - 10_050, -1):
        upload.write(offset, [b"?"])
    for offset in (_MARK_EVERY_BYTES * 2 + 1, _MARK_EVERY_BYTES - 1, _MARK_EVERY_BYTES - 1):
        upload.write(offset, [b"?"])
    assert len(reads) == 53 and max(reads) <= _MARK_EVERY_BYTES + BLOCK_BYTES
    upload.write(0, [content])
    assert (store._folder / _finish(store, upload).path).read_bytes() == content


def test_a_checkpoint_just_before_a_mark_is_due_leaves_no_longer_way_back(start: Start) -> None:
    """It is where a mark is from then on, but does not take the place of one that others need."""
    content = random.Random(0).randbytes(1024) * (4 * 1024 * 3)
    store = start()
    upload = store.open(Offered(IMEI, OFFERED.device_path, len(content), 0), PEER)
    before_it = _MARK_EVERY_BYTES - 65536
    for begin in range(0, len(content) - 65536, 65536):
        upload.write(begin, [content[begin : begin + 65536]])
        if begin + 65536 == before_it:
            upload.checkpoint()
    reads = _reads_of_parts(store)
    for offset in (before_it + _MARK_EVERY_BYTES - 1, before_it - 1):
        upload.write(offset, [b"?"])
    assert len(reads) == 2 and max(reads) <= _MARK_EVERY_BYTES + BLOCK_BYTES
    upload.write(0, [content])
    assert (store._folder / _finish(store, upload).path).read_bytes() == content


def test_a_rewind_across_a_checkpoint_and_a_crash_never_resumes_on_mixed_bytes(start: Start) -> None:
    store = start()
    upload = store.open(OFFERED, PEER)
    upload.write(0, [CONTENT[:2048]])
    upload.checkpoint()
    upload.write(2048, [b"old" * 1024])
    upload.checkpoint()
    upload.write(2048, [CONTENT[2048:3072]])
    upload.abandon()
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes == 2048
    _assert_whole(store, upload)


def test_a_hole_is_refused_and_nothing_written(start: Start) -> None:
    upload = start().open(OFFERED, PEER)
    _send(upload, 1024)
    for offset in (1025, 2048, -1):
        with pytest.raises(StoreError, match="hole"):
            upload.write(offset, [b"x"])
    assert (upload.position_bytes, upload.is_open) == (1024, True)


def test_bytes_beyond_the_size_are_refused(start: Start) -> None:
    upload = start().open(OFFERED, PEER)
    with pytest.raises(StoreError, match="but the size is 7175"):
        upload.write(0, [CONTENT, b"x"])
    assert upload.position_bytes == 0


def test_many_small_pieces_and_short_writes_arrive_in_order(start: Start) -> None:
    class ShortDisk(Disk):
        def run(self, operation, path, call, /, *arguments, **options):  # type: ignore[no-untyped-def]
            if call is os.pwritev and str(path).endswith(".part"):
                descriptor, pieces, offset = arguments
                return os.pwrite(descriptor, b"".join(pieces)[:333], offset)
            return super().run(operation, path, call, *arguments, **options)

    store = start(disk=ShortDisk())
    upload = store.open(OFFERED, PEER)
    upload.write(0, [CONTENT[place : place + 1] for place in range(3000)] + [b"", memoryview(CONTENT)[3000:]])
    assert (store._folder / _finish(store, upload).path).read_bytes() == CONTENT


@pytest.mark.parametrize("reason", [errno.EIO, errno.ENOSPC])
def test_a_failed_write_keeps_the_part_up_to_the_checkpoint_and_ends_the_upload(start: Start, reason: int) -> None:
    store = start(disk=FaultyDisk(fail_at=5, errno=reason, only="write /"))
    upload = store.open(OFFERED, PEER)
    _send(upload, 2048)
    with pytest.raises(StoreError, match=r"write .*\.part|write .*\.journal") as caught:
        upload.checkpoint()
        _send(upload, 3072)
    for call in (upload.checkpoint, lambda: upload.write(0, [b"x"]), upload.require_whole, upload.park):
        with pytest.raises(StoreError) as again:
            call()
        assert again.value is caught.value
    assert os.strerror(reason) in str(caught.value)
    upload.abandon()
    assert store.finish([(upload, {})])[0] is caught.value
    if reason == errno.EIO:
        heal(store)
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes in (0, 2048)
    _assert_whole(store, upload)


def test_a_part_whose_fsync_failed_is_set_aside_and_begun_anew_on_a_new_inode(start: Start) -> None:
    disk = FaultyDisk(fail_at=1, errno=errno.EIO, only="fdatasync")
    store = start(disk=disk)
    upload = store.open(OFFERED, PEER)
    _send(upload, 3072)
    with pytest.raises(StoreError, match=r"fdatasync .*\.part: Input/output error"):
        upload.checkpoint()
    assert len(disk.calls) == 1, "not tried again"
    assert os.listdir(store._folder / "spool/aside") == [f"{OFFERED.key}.1.part"]
    heal(store)
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes == 0
    _assert_whole(store, upload)


def test_a_part_that_cannot_even_be_set_aside_is_still_not_resumed(start: Start) -> None:
    class SickDisk(FaultyDisk):
        def rename(self, source: Path, target: Path) -> None:
            if source.suffix == ".part":
                raise StoreError("move: Read-only file system")
            super().rename(source, target)

        def unlink(self, path: Path) -> None:
            if self.sick:
                raise StoreError("delete: Read-only file system")
            super().unlink(path)

        sick = False

    disk = SickDisk(errno=errno.EIO, only=".part")
    store = start(disk=disk)
    upload = store.open(OFFERED, PEER)
    _send(upload, 1024)
    disk.fail_at, disk.sick = len(disk.calls) + 1, True
    with pytest.raises(StoreError, match="fdatasync"):
        upload.checkpoint()
    assert not store.probe(), "read-only"
    store.volume.probe(lambda: None)
    with pytest.raises(StoreError, match="Read-only"):
        store.open(OFFERED, PEER)
    disk.sick = False
    old = _spool(store, "part").stat().st_ino
    keep = _spool(store, "part").open("rb")
    upload = store.open(OFFERED, PEER)
    assert upload.offset_bytes == 0
    assert _spool(store, "part").stat().st_ino != old
    keep.close()


def test_a_checkpoint_makes_the_bytes_durable_before_the_journal_says_so(start: Start) -> None:
    store = start(disk=(disk := FaultyDisk()))
    upload = store.open(OFFERED, PEER)
    for end, more in ((1024, ["fsync spool"]), (2048, []), (2048, None)):
        _send(upload, end)
        disk.calls.clear()
        upload.checkpoint()
        calls = [call for call in disk.calls if call.startswith(("write", "fsync", "fdatasync"))]
        records = [
            f"fdatasync {OFFERED.key}.part",
            *(f"{kind} {OFFERED.key}.journal" for kind in ("write", "fdatasync")),
        ]
        assert calls == ([] if more is None else records + more)


@pytest.mark.parametrize("qualifier", [None, "1571840452123-4"])
def test_a_connection_that_brings_nothing_costs_no_sync_and_no_progress(start: Start, qualifier: str | None) -> None:
    """What others brought counts as not synced, which alone is no reason for a checkpoint: it might be a lower one."""
    store = start(disk=(disk := FaultyDisk()))
    offered = Offered(IMEI, b"%photof", 8192, 0, qualifier=qualifier)
    upload = store.open(offered, PEER)
    upload.write(0, [os.urandom(4096)])
    upload.park()
    for _ in range(2):
        upload = store.open(offered, PEER)
        assert upload.offset_bytes == (4096 if qualifier is None else 3072)
        assert upload.unsynced_bytes == 4096
        disk.calls.clear()
        upload.park()
        assert not [call for call in disk.calls if call.startswith(("write", "fsync", "fdatasync"))]


def test_the_second_part_set_aside_does_not_overwrite_the_first(start: Start) -> None:
    store = start(disk=(disk := FaultyDisk(fail_at=1, errno=errno.EIO, only="fdatasync")))
    for number in (1, 2):
        upload = store.open(OFFERED, PEER)
        _send(upload, 1024)
        disk.fail_at = len(disk.calls) + 1
        with pytest.raises(StoreError):
            upload.park()
        assert not upload.is_open
        assert len(os.listdir(store._folder / "spool/aside")) == number
        heal(store)


def test_the_newest_upload_of_an_offer_takes_over_where_the_old_one_was(start: Start) -> None:
    store = start()
    old = store.open(OFFERED, PEER)
    _send(old, 2048)
    new = store.open(OFFERED, "203.0.113.9")
    assert new.offset_bytes == 2048
    with pytest.raises(StoreError, match="parked"):
        old.write(2048, [b"x"])
    old.park()
    _assert_whole(store, new)


def test_a_stop_parks_what_is_open(start: Start) -> None:
    store = start()
    _send(store.open(OFFERED, PEER), 2048)
    assert start().open(OFFERED, PEER).offset_bytes == 2048


def test_a_second_gateway_on_the_same_folder_is_refused(start: Start, tmp_path: Path) -> None:
    store = start()
    with pytest.raises(StoreError, match="another gateway is using this data folder"):
        FileStore(tmp_path / "data").start(MAX_AGE_S)
    upload = store.open(OFFERED, PEER)
    _assert_whole(store, upload)


def test_a_lock_that_fails_for_another_reason_says_so(tmp_path: Path) -> None:
    store = FileStore(tmp_path, disk=FaultyDisk(fail_at=1, errno=errno.ENOLCK, only="lock "))
    with pytest.raises(StoreError, match=r"lock .*: No locks available"):
        store.start(MAX_AGE_S)
    store.start(MAX_AGE_S)
    store.stop()


def test_a_store_that_is_not_running_refuses_offers(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    with pytest.raises(StoreError, match="not running"):
        store.open(OFFERED, PEER)
    store.stop()


def test_a_folder_that_cannot_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"file.*: Not a directory"):
        FileStore(tmp_path / "file" / "data").start(MAX_AGE_S)


def test_old_parts_expire_with_a_report_and_young_ones_stay(start: Start, tmp_path: Path) -> None:
    store = start()
    young = Offered(IMEI, b"young", len(CONTENT), 0)
    for offered in (OFFERED, young):
        upload = store.open(offered, PEER)
        _send(upload, 2048)
        upload.park()
    (tmp_path / f"data/spool/aside/{young.key}.1.part").write_bytes(b"x")
    (tmp_path / "data/spool/lonely.journal").write_bytes(b"x")
    finished = tmp_path / "data/spool/aside/20231114T221320123Z_231452_00000000.1.jpg"
    finished.write_bytes(b"maybe the only copy")
    old = [_spool(store, "part"), tmp_path / f"data/spool/aside/{young.key}.1.part", finished]
    store.stop()
    moment = young_time = _spool(store, "part", young).stat().st_mtime
    for path in old:
        os.utime(path, (moment - 31 * DAY_S, moment - 31 * DAY_S))
    fresh = FileStore(tmp_path / "data", now=lambda: young_time)
    recovery = fresh.start(MAX_AGE_S)
    assert recovery.expired == (
        Expired(f"{young.key}.1.part", 1, pytest.approx(31 * DAY_S)),
        Expired(f"{OFFERED.key}.part", 2048, pytest.approx(31 * DAY_S)),
    )
    assert (recovery.parts, recovery.part_bytes) == (1, 2048)
    assert finished.exists()
    assert sorted(os.listdir(tmp_path / "data/spool")) == sorted(["aside", f"{young.key}.journal", f"{young.key}.part"])
    assert fresh.open(OFFERED, PEER).offset_bytes == 0
    assert fresh.open(young, PEER).offset_bytes == 2048
    fresh.stop()


def test_an_offer_that_does_not_fit_is_refused_before_the_disk_is_full(start: Start) -> None:
    class SmallDisk(Disk):
        def free_bytes(self, path: Path) -> int:
            return 20_000

    store = start(disk=SmallDisk(), min_free_bytes=5_000)
    first = store.open(OFFERED, PEER)
    store.open(Offered(IMEI, b"b", len(CONTENT), 0), PEER)
    with pytest.raises(StoreError, match="20000 are free"):
        store.open(Offered(IMEI, b"c", len(CONTENT), 0), PEER)
    _assert_whole(store, first)
    store.open(Offered(IMEI, b"c", len(CONTENT), 0), PEER)


def test_check_tells_resumable_parts_from_those_that_begin_again(start: Start) -> None:
    store = start()
    other = Offered(IMEI, b"other", 5000, 0)
    gone = Offered(IMEI, b"gone", 5000, 0)
    for offered in (OFFERED, other, gone):
        upload = store.open(offered, PEER)
        _send(upload, 2048)
        upload.park()
    _spool(store, "part", other).write_bytes(bytes(2048))
    _spool(store, "journal", gone).unlink()
    (store._folder / "spool/aside/x.1.part").write_bytes(b"x")
    rows = {row.path: (row.state, row.offset_bytes) for row in check(store._folder)}
    assert rows == {
        f"spool/{OFFERED.key}.part": (State.RESUMABLE, 2048),
        f"spool/{other.key}.part": (State.FROM_START, 0),
        f"spool/{gone.key}.part": (State.FROM_START, 0),
        "spool/aside/x.1.part": (State.SET_ASIDE, 0),
    }
    assert [state.is_good for state in (State.RESUMABLE, State.FROM_START, State.SET_ASIDE)] == [True, True, False]


def test_a_killed_process_leaves_a_lock_that_does_not_hold(tmp_path: Path) -> None:
    disk = FaultyDisk(kill_at=1, only="list")
    with pytest.raises(Killed):
        FileStore(tmp_path / "data", disk=disk).start(MAX_AGE_S)
    disk.bury()
    store = FileStore(tmp_path / "data")
    store.start(MAX_AGE_S)
    store.stop()


def test_an_offer_whose_free_space_cannot_be_asked_for_leaves_nothing_open(start: Start) -> None:
    store = start(disk=FaultyDisk(fail_at=1, errno=errno.EIO, only="ask for free space"))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(StoreError, match="ask for free space"):
        store.open(OFFERED, PEER)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert not store._open and store._space.needed_bytes == 0
    assert not _spool(store, "part").exists()


def test_what_open_uploads_still_need_is_counted_through_writes_rewinds_and_ends(start: Start) -> None:
    store = start()
    first, second = store.open(OFFERED, PEER), store.open(Offered(IMEI, b"b", 5000, 0), PEER)
    _send(first, 3072)
    first.write(1024, [CONTENT[1024:2048]])
    assert store._space.needed_bytes == len(CONTENT) - 2048 + 5000
    second.abandon()
    first.park()
    assert store._space.needed_bytes == 0
    store.open(OFFERED, PEER)
    assert store._space.needed_bytes == len(CONTENT) - 2048


def test_a_descriptor_is_closed_once_even_where_that_fails(start: Start) -> None:
    """Another thread may have been given the same number meanwhile."""
    disk = FaultyDisk(errno=errno.EIO, only="close")
    store = start(disk=disk)
    upload = store.open(OFFERED, PEER)
    _send(upload, 2048)
    upload.park()
    _spool(store, "part").write_bytes(bytes(2048))
    disk.only, disk.calls = f"close {_spool(store, 'part')}", []
    disk.fail_at = 1
    with pytest.raises(StoreError, match="close"):
        store.open(OFFERED, PEER)
    assert len(disk.calls) == 1


def test_a_data_folder_may_be_reached_through_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for folder in (tmp_path / "link", tmp_path / "link" / "below"):
        store = FileStore(folder)
        store.start(MAX_AGE_S)
        _assert_whole(store, store.open(OFFERED, PEER))
        store.stop()


@pytest.mark.parametrize("operation", ["move", "link"])
def test_folders_in_which_no_file_can_land_are_refused_at_the_start(tmp_path: Path, operation: str) -> None:
    store = FileStore(tmp_path / "data", disk=FaultyDisk(fail_at=1, errno=errno.EXDEV, only=operation))
    with pytest.raises(StoreError, match=rf"{operation} .*: Invalid cross-device link \(both must be on one") as caught:
        store.start(MAX_AGE_S)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").rglob(".probe"))
