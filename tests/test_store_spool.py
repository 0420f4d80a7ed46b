"""What the spool keeps of unfinished files, and how many: nobody fills it with what costs him nothing."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_faults import IMEI, MAX_AGE_S, FaultyDisk, Killed, heal

from dsmgateway.errors import StoreError
from dsmgateway.store import Dropped, FileStore, Offered, Stored, Upload
from dsmgateway.store.files import StrPath

PEER = "198.51.100.7"
KIB = 1024
CONTENT = random.Random(11).randbytes(80 * KIB)

Start = Callable[..., FileStore]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a store on the data folder, after stopping the one before."""
    running: list[FileStore] = []

    def start(**options: Any) -> FileStore:
        while running:
            running.pop().stop()
        store = FileStore(tmp_path / "data", **options)
        store.dropped = told.append
        store.start(MAX_AGE_S)
        running.append(store)
        return store

    told: list[Dropped] = []
    start.told = told  # type: ignore[attr-defined]
    yield start
    for store in running:
        store.stop()


@pytest.fixture
def told(start: Any) -> list[Dropped]:
    """What stores said that they dropped."""
    dropped: list[Dropped] = start.told
    return dropped


def file(number: int = 0, size_bytes: int = len(CONTENT), *, in_packets: bool = False, **more: Any) -> Offered:
    return Offered(IMEI, b"dsm/picture/%d.jpg" % number, size_bytes, 0, in_packets, **more)


def send(upload: Upload, end_bytes: int) -> None:
    for begin in range(upload.position_bytes, end_bytes, KIB):
        upload.write(begin, [CONTENT[begin : min(begin + KIB, end_bytes)]])


def park(store: FileStore, offered: Offered, end_bytes: int) -> None:
    upload = store.open(offered, PEER)
    send(upload, end_bytes)
    upload.park()


def names(store: FileStore) -> list[str]:
    """What is in the spool."""
    return sorted(path.name for path in store._spool.folder.iterdir() if path.name != "aside")


def finish(store: FileStore, upload: Upload) -> Stored:
    send(upload, upload.offered.size_bytes)
    (answer,) = store.finish([(upload, {})])
    assert isinstance(answer, Stored), answer
    return answer


# -- a part of which nothing can be used


@pytest.mark.parametrize(
    ("offered", "held_bytes", "is_kept"),
    [
        (file(), 0, False),
        (file(), 1, False),
        (file(), 1023, False),
        (file(), 1024, True),
        (file(size_bytes=1024), 1024, False),  # its one packet would be asked for again
        (file(size_bytes=1025), 1025, True),
        (file(in_packets=True), 1024, True),
        (file(in_packets=True, qualifier="1571840452123-4"), 1024, False),
        (file(in_packets=True, qualifier="1571840452123-4"), 2047, False),
        (file(in_packets=True, qualifier="1571840452123-4"), 2048, True),
        (file(size_bytes=2048, in_packets=True, qualifier="1571840452123-4"), 2000, False),
        (file(size_bytes=3072, in_packets=True, qualifier="1571840452123-4"), 3072, True),
        (file(in_packets=True, qualifier=""), 70 * KIB, False),
    ],
)
def test_a_part_is_kept_where_the_device_can_go_on_beyond_0(
    start: Start, offered: Offered, held_bytes: int, is_kept: bool
) -> None:
    store = start()
    for _ in range(3):
        park(store, offered, held_bytes)
        assert names(store) == ([f"{offered.key}.journal", f"{offered.key}.part"] if is_kept else [])
        assert (store._spool.parts, store._space.needed_bytes) == (is_kept, 0)
    upload = store.open(offered, PEER)
    assert (upload.offset_bytes > 0) is is_kept
    finish(store, upload)


def test_a_checkpoint_does_not_make_a_part_worth_keeping(start: Start) -> None:
    store = start()
    upload = store.open(file(), PEER)
    send(upload, 1000)
    upload.checkpoint()
    upload.park()
    assert names(store) == []


def test_a_loop_of_offers_with_a_byte_each_leaves_nothing(start: Start, told: list[Dropped]) -> None:
    store = start()
    for number in range(100):
        park(store, file(number), 1)
    assert (names(store), store._spool.parts, told) == ([], 0, [])


def test_what_was_held_before_is_kept_by_a_connection_that_brings_less(start: Start) -> None:
    """Of an identifier's file the bytes that come first are only compared with those held."""
    store = start()
    offered = file(in_packets=True, qualifier="1571840452123-4")
    park(store, offered, 10 * KIB)
    for end_bytes in (0, 9 * KIB + 500, 10 * KIB):
        upload = store.open(offered, PEER)
        assert upload.offset_bytes == 9 * KIB
        send(upload, end_bytes)
        upload.park()
    finish(store, store.open(offered, PEER))


@pytest.mark.parametrize("call", ["delete", "close"])
def test_a_part_of_no_use_that_cannot_be_deleted_is_begun_anew(start: Start, call: str) -> None:
    disk = FaultyDisk(errno=errno.EIO)
    store = start(disk=disk)
    upload = store.open(file(), PEER)
    send(upload, 1000)
    disk.only, disk.calls, disk.fail_at = call, [], 1
    try:
        upload.park()
    except StoreError:
        heal(store)
    disk.only, disk.fail_at = "", 0
    assert not store._open and store._space.needed_bytes == 0
    upload = store.open(file(), PEER)
    assert upload.offset_bytes == 0
    finish(store, upload)
    assert (names(store), store._spool.parts) == ([], 0)


@pytest.mark.parametrize("number", [1, 2])
def test_a_kill_while_a_part_of_no_use_is_deleted_leaves_one_that_begins_anew(
    start: Start, tmp_path: Path, number: int
) -> None:
    disk = FaultyDisk()
    store = FileStore(tmp_path / "data", disk=disk)
    store.start(MAX_AGE_S)
    upload = store.open(file(), PEER)
    send(upload, 1000)
    disk.only, disk.calls, disk.kill_at = f"{file().key}", [], number
    with pytest.raises(Killed):
        upload.park()
    disk.bury()
    store = start()
    upload = store.open(file(), PEER)
    assert upload.offset_bytes == 0
    finish(store, upload)


@pytest.mark.parametrize(
    "call", ["write {}.journal", "create {}.part", "write {}.part", "fdatasync {}.part", "fdatasync {}.journal"]
)
@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT])
def test_a_file_for_which_there_is_no_room_leaves_nothing(start: Start, call: str, reason: int) -> None:
    """Else whoever comes again and again takes up the rest of the room with files that hold nothing."""
    disk = FaultyDisk(errno=reason)
    store = start(disk=disk)
    operation, name = call.format(file().key).split()
    disk.only, disk.calls, disk.fail_at = f"{operation} {store._spool.folder / name}", [], 1
    with pytest.raises(StoreError):
        upload = store.open(file(), PEER)
        send(upload, 10 * KIB)
        upload.checkpoint()
    disk.only, disk.fail_at = "", 0
    assert (names(store), store._spool.parts) == ([], 0)
    finish(store, store.open(file(), PEER))


@pytest.mark.parametrize("call", ["write {}.part", "fdatasync {}.journal"])
def test_what_a_checkpoint_covers_outlives_a_lack_of_room(start: Start, call: str) -> None:
    disk = FaultyDisk(errno=errno.ENOSPC)
    store = start(disk=disk)
    park(store, file(), 4 * KIB)
    upload = store.open(file(), PEER)
    operation, name = call.format(file().key).split()
    disk.only, disk.calls, disk.fail_at = f"{operation} {store._spool.folder / name}", [], 1
    with pytest.raises(StoreError):
        send(upload, 6 * KIB)
        upload.checkpoint()
    disk.only, disk.fail_at = "", 0
    assert store.open(file(), PEER).offset_bytes >= 4 * KIB


# -- how many there may be


def test_parts_are_counted_as_they_come_and_go(start: Start) -> None:
    disk = FaultyDisk(errno=errno.EIO)
    store = start(disk=disk)
    for number in range(4):
        park(store, file(number), 4 * KIB)
    assert store._spool.parts == 4
    running = store.open(file(4), PEER)
    assert store._spool.parts == 5
    finish(store, store.open(file(0), PEER))
    assert store._spool.parts == 4
    upload = store.open(file(1), PEER)
    disk.only, disk.calls, disk.fail_at = "commit", [], 1
    send(upload, len(CONTENT))
    assert isinstance(store.finish([(upload, {})])[0], StoreError)
    assert store._spool.parts == 4, "the file is a part again"
    disk.only, disk.fail_at = "", 0
    heal(store)
    upload = store.open(file(2), PEER)
    send(upload, 6 * KIB)
    disk.only, disk.calls, disk.fail_at = "fdatasync", [], 1
    with pytest.raises(StoreError):
        upload.checkpoint()
    disk.only, disk.fail_at = "", 0
    assert store._spool.parts == 3, "one is aside"
    heal(store)
    running.abandon()
    store = start(disk=disk)
    assert store._spool.parts == len(list(store._spool.folder.glob("*.part"))) == 3
    os.utime(store._spool.part(file(3).key), (0, 0))
    assert len(store.expire(MAX_AGE_S)) == 1
    assert store._spool.parts == 2


def test_above_the_bound_a_part_below_64_kib_is_dropped_and_a_longer_one_is_kept(
    start: Start, told: list[Dropped]
) -> None:
    store = start(max_parts=2)
    for number in range(2):
        park(store, file(number), 4 * KIB)
    assert told == []
    park(store, file(2), 64 * KIB - 1)
    assert told == [Dropped(f"{file(2).key}.part", 64 * KIB - 1, "there are more than 2 (setting max-unfinished)")]
    assert store._spool.parts == 2
    park(store, file(3), 64 * KIB)
    assert (len(told), store._spool.parts) == (1, 3)
    assert store.open(file(3), PEER).offset_bytes == 64 * KIB
    assert finish(store, store.open(file(2), PEER)).size_bytes == len(CONTENT), "it is only begun anew"


def test_a_part_that_was_kept_goes_on_above_the_bound_and_the_bound_holds_after_a_restart(
    start: Start, told: list[Dropped]
) -> None:
    store = start()
    for number in range(3):
        park(store, file(number), 4 * KIB)
    store = start(max_parts=2)
    assert store._spool.parts == 3
    upload = store.open(file(0), PEER)
    assert upload.offset_bytes == 4 * KIB
    finish(store, upload)
    park(store, file(1), 5 * KIB)
    assert (store._spool.parts, told) == (2, [])
    park(store, file(9), 1000)
    assert told == [], "of no use in any case"


NAMELESS = file(1, 2 * KIB, in_packets=True, qualifier="")


@pytest.mark.parametrize("failing", ["query", ".sidecar;", "commit"])
@pytest.mark.parametrize("offered", [file(0, 900), NAMELESS], ids=["one packet", "nameless"])
def test_a_finish_that_fails_leaves_no_part_with_which_nobody_can_go_on(
    start: Start, told: list[Dropped], offered: Offered, failing: str
) -> None:
    disk = FaultyDisk()
    store = start(disk=disk)
    upload = store.open(offered, PEER)
    send(upload, offered.size_bytes)
    disk.only, disk.calls, disk.errno, disk.fail_at, disk.lasting = failing, [], errno.ENOSPC, 1, failing == "query"
    assert isinstance(store.finish([(upload, {})])[0], StoreError)
    disk.only, disk.fail_at = "", 0
    assert (names(store), store._spool.parts, told) == ([], 0, [])
    assert finish(store, store.open(offered, PEER)).size_bytes == offered.size_bytes


def test_a_finish_that_fails_keeps_no_short_part_above_the_bound(start: Start, told: list[Dropped]) -> None:
    disk = FaultyDisk()
    store = start(disk=disk, max_parts=1)
    park(store, file(0), 4 * KIB)
    for size_bytes, parts in [(5 * KIB, 1), (80 * KIB, 2)]:
        upload = store.open(file(1, size_bytes), PEER)
        send(upload, size_bytes)
        disk.only, disk.calls, disk.errno, disk.fail_at = ".sidecar;", [], errno.ENOSPC, 1
        assert isinstance(store.finish([(upload, {})])[0], StoreError)
        disk.only, disk.fail_at = "", 0
        assert store._spool.parts == parts
    assert [part.size_bytes for part in told] == [5 * KIB]
    assert store.open(file(1, 80 * KIB), PEER).offset_bytes == 79 * KIB


def test_a_finish_that_comes_too_late_does_not_touch_the_part_of_the_newer_connection(start: Start) -> None:
    store = start()
    offered = file(0, 900)
    old = store.open(offered, PEER)
    send(old, 900)
    new = store.open(offered, PEER)
    assert isinstance(store.finish([(old, {})])[0], StoreError)
    assert finish(store, new).size_bytes == 900


def test_threads_count_alike(start: Start) -> None:
    store = start()

    def come_and_go(device: int) -> None:
        for number in range(10):
            offered = Offered(f"35209308142{device:04d}", b"%d" % number, len(CONTENT), 0)
            park(store, offered, (number % 2) * 4 * KIB)

    threads = [threading.Thread(target=come_and_go, args=(device,)) for device in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store._spool.parts == len(list(store._spool.folder.glob("*.part"))) == 40


# -- what is put aside


def aside(store: FileStore, number: int, size_bytes: int = 0, age_s: int = 0) -> Path:
    """A part that was put aside; it takes no room."""
    path = store._spool.aside / f"{number:032x}.1.part"
    path.touch()
    os.truncate(path, size_bytes)
    os.utime(path, (2e9 - age_s, 2e9 - age_s))
    return path


def set_aside(store: FileStore, disk: FaultyDisk, offered: Offered) -> None:
    """A part whose sync fails."""
    upload = store.open(offered, PEER)
    send(upload, 2 * KIB)
    disk.only, disk.calls, disk.fail_at = "fdatasync", [], 1
    with pytest.raises(StoreError):
        upload.park()
    disk.only, disk.fail_at = "", 0
    heal(store)


def test_the_newest_16_parts_are_kept_aside(start: Start, told: list[Dropped]) -> None:
    """A disk that fails and heals again and again does not fill up."""
    disk = FaultyDisk(errno=errno.EIO)
    store = start(disk=disk)
    for number in range(20):
        set_aside(store, disk, file(number))
        part = store._spool.aside / f"{file(number).key}.1.part"
        os.utime(part, (1e9 + number, 1e9 + number))
    kept = {path.name for path in store._spool.aside.iterdir()}
    assert kept == {f"{file(number).key}.1.part" for number in range(4, 20)}
    reason = "it was put aside, and so were newer ones"
    assert told == [Dropped(f"{file(number).key}.1.part", 2 * KIB, reason) for number in range(4)]


def test_at_most_1_gib_is_kept_aside_and_a_start_looks_too(start: Start, told: list[Dropped]) -> None:
    store = start()
    paths = [aside(store, number, 400 << 20, age_s=number) for number in range(4)]
    small = aside(store, 9, 1, age_s=9)
    start()
    assert [path.exists() for path in (*paths, small)] == [True, True, False, False, False], "the oldest go first"
    assert {part.name for part in told} == {path.name for path in (*paths[2:], small)}


def test_only_parts_are_dropped_from_aside(start: Start, told: list[Dropped]) -> None:
    """A file that did not match its record may be the only copy that there is."""
    store = start()
    finished = "20231114T221320123Z_231452_00000000.1"
    others = [store._spool.aside / name for name in (f"{finished}.jpg", f"{finished}.part", "x.part")]
    for path in others:
        path.touch()
        os.utime(path, (1.9e9, 1.9e9))
    for number in range(18):
        aside(store, number, age_s=number)
    start()
    assert all(path.exists() for path in others)
    assert len(told) == 2


def test_a_part_goes_also_where_its_journal_cannot(start: Start) -> None:
    """Either being gone keeps it from being taken up after a restart, which forgets that it must not be."""

    class SickDisk(FaultyDisk):
        def unlink(self, path: StrPath) -> bool:
            if Path(path).suffix == ".journal" and self.fail_at:
                raise StoreError("delete: Input/output error")
            return super().unlink(path)

    disk = SickDisk(errno=errno.ENOSPC)
    store = start(disk=disk)
    upload = store.open(file(), PEER)
    send(upload, 2 * KIB)
    upload.checkpoint()
    send(upload, 4 * KIB)
    disk.only, disk.calls, disk.fail_at = "fdatasync", [], 1
    with pytest.raises(StoreError, match="No space"):
        upload.checkpoint()
    assert not list(store._spool.folder.glob("*.part"))
    assert start().open(file(), PEER).offset_bytes == 0


def test_an_aside_that_cannot_be_cleared_costs_nothing_else(start: Start) -> None:
    disk = FaultyDisk(errno=errno.EIO)
    store = start(disk=disk)
    for number in range(18):
        aside(store, number, age_s=number)
    upload = store.open(file(), PEER)
    send(upload, 2 * KIB)
    real, disk.only = disk.run, ""

    def run(operation: str, path: StrPath, call: Any, /, *arguments: Any, **options: Any) -> Any:
        if operation in ("fdatasync", "delete") and (operation == "fdatasync" or Path(path).parent.name == "aside"):
            raise StoreError(f"{operation} {path}: told by the test")
        return real(operation, path, call, *arguments, **options)

    disk.run = run  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="fdatasync"):
        upload.park()
    disk.run = real  # type: ignore[method-assign]
    assert not store._spool.is_tainted(file().key)
    finish(store, store.open(file(), PEER))
