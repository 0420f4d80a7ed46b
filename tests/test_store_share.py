"""Several processes on one data folder, each for its own devices: what they count, reserve, show and leave behind."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import content
from store_faults import FaultyDisk, beside_others

from dsmgateway.crc import crc16
from dsmgateway.errors import StoreError
from dsmgateway.store import FileStore, NoRoom, Offered, Stored, VolumeFailing
from dsmgateway.store.signs import FIRST_PROCESS, Sign, keep_out, let_in, show, shown
from dsmgateway.store.tally import SharedSlots, Tally, shared_memory

FILE = content(5000)
OFFERED = Offered("356917000000013", b"dsm/1.jpg", len(FILE), crc16(FILE))
OTHER = Offered("356917000000021", b"dsm/1.jpg", len(FILE), crc16(FILE))
THIRD = Offered("356917000000021", b"dsm/2.jpg", len(FILE), crc16(FILE))


@pytest.fixture
def lender(tmp_path: Path) -> Iterator[FileStore]:
    """A store that has started on a folder and lent it."""
    store = FileStore(tmp_path)
    store.start(3600)
    yield store
    store.stop()


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = shared_memory(3, 3)
    yield descriptor
    os.close(descriptor)


def joined(folder: Path, lock: int, memory: int, number: int, **options: Any) -> FileStore:
    """The store of one process, as a process of its own would have it."""
    store = beside_others(folder, os.dup(lock), memory, number, **options)
    store.start(3600)
    return store


def test_what_one_has_stored_the_others_know(tmp_path: Path, lender: FileStore, memory: int) -> None:
    lock = lender.lend()
    one, other = (joined(tmp_path, lock, memory, number) for number in (0, 1))
    for store, offered in ((one, OFFERED), (other, OTHER)):
        upload = store.open(offered, "peer")
        upload.write(0, [FILE])
        (answer,) = store.finish([(upload, {})])
        assert isinstance(answer, Stored) and not answer.duplicate
    one.stop()
    again = other.open(OFFERED, "peer")
    assert again.comparing
    other.stop()


def test_a_successor_gives_back_what_was_reserved_and_goes_on_with_what_was_received(
    tmp_path: Path, lender: FileStore, memory: int
) -> None:
    lock = lender.lend()
    slots = SharedSlots(memory, 3, 3)
    one, other = (joined(tmp_path, lock, memory, number) for number in (0, 1))
    upload = one.open(OFFERED, "peer")
    upload.write(0, [FILE[:2048]])
    upload.checkpoint()
    mine = other.open(OTHER, "peer")
    assert other._space.needed_bytes == one._space.needed_bytes == 2 * len(FILE) - 2048
    assert other._spool.parts == 2
    # The first is killed; what it counted is still there.
    successor = joined(tmp_path, lock, memory, 0)
    assert successor._space.needed_bytes == len(FILE)
    assert successor._spool.parts == Tally(slots.row(1), 0).total == 2
    upload = successor.open(OFFERED, "peer")
    assert upload.offset_bytes == 2048
    upload.write(2048, [FILE[2048:]])
    (answer,) = successor.finish([(upload, {})])
    assert isinstance(answer, Stored)
    assert (successor._spool.parts, successor._space.needed_bytes) == (1, len(FILE))
    mine.park()
    successor.stop()
    other.stop()


def test_room_is_not_given_twice(tmp_path: Path, lender: FileStore, memory: int) -> None:
    lock = lender.lend()
    status = os.statvfs(tmp_path)
    free_bytes = status.f_bavail * status.f_frsize
    size_bytes = 3 * free_bytes // 5
    one, other = (joined(tmp_path, lock, memory, number) for number in (0, 1))
    offered = [Offered(imei, b"dsm/1.jpg", size_bytes, 0) for imei in ("356917000000013", "356917000000021")]
    one.open(offered[0], "peer")
    with pytest.raises(NoRoom):
        other.open(offered[1], "peer")
    one.stop()
    other.open(offered[1], "peer")
    other.stop()


def test_a_disk_that_fails_one_takes_no_new_file_of_the_others(tmp_path: Path, lender: FileStore, memory: int) -> None:
    """Until a probe of that one succeeds, or, where it has ended, its successor has found out nothing of the kind."""
    lock, disk = lender.lend(), FaultyDisk(fail_at=1, errno=errno.EIO, only="fdatasync")
    one, other = joined(tmp_path, lock, memory, 0, disk=disk), joined(tmp_path, lock, memory, 1)
    under_way = other.open(OTHER, "peer")
    under_way.write(0, [FILE])
    for heal in (one.probe, lambda: joined(tmp_path, lock, memory, 0).stop()):
        disk.calls.clear()
        upload = one.open(OFFERED, "peer")
        upload.write(0, [FILE[:2048]])
        with pytest.raises(StoreError, match="fdatasync"):
            upload.checkpoint()
        with pytest.raises(VolumeFailing, match="the disk is failing, as another process has found out"):
            other.open(THIRD, "peer")
        heal()
        other.open(THIRD, "peer").abandon()
    assert isinstance(other.finish([(under_way, {})])[0], Stored)
    one.stop()
    other.stop()


def in_another_process(lock: int, program: str) -> subprocess.Popen[str]:
    """Run a program that has the lock file's descriptor, and says a word when it is done with it; it ends with us."""
    prelude = "import sys; from dsmgateway.store.signs import *; lock = int(sys.argv[1])\n"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{prelude}{program}\nprint('done', flush=True); sys.stdin.read()", str(lock)],
        pass_fds=[lock],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "done\n"
    return process


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_sign_that_several_show_holds_until_the_last_takes_it_back(tmp_path: Path, lender: FileStore) -> None:
    lock = lender.lend()
    first = in_another_process(lock, "show(lock, Sign.FAILING, holds=True)")
    second = in_another_process(lock, "show(lock, Sign.FAILING, holds=True)")
    assert shown(tmp_path) == {Sign.FAILING}
    ended(first)
    assert shown(tmp_path) == {Sign.FAILING}
    ended(second)
    assert shown(tmp_path) == frozenset()


def test_nobody_is_a_process_before_the_last_one_of_its_number_has_ended(tmp_path: Path, lender: FileStore) -> None:
    lock = lender.lend()
    process = in_another_process(lock, "keep_out(lock, FIRST_PROCESS + 1)")
    with pytest.raises(BlockingIOError):
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, FIRST_PROCESS + 1)
    keep_out(lock, FIRST_PROCESS)
    let_in(lock, FIRST_PROCESS)
    ended(process)
    keep_out(lock, FIRST_PROCESS + 1)
    show(lock, Sign.FULL, holds=False)


def test_only_a_store_that_runs_can_be_lent(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the store is not running"):
        FileStore(tmp_path).lend()


def test_the_index_is_mapped_into_memory_only_where_processes_share_it(
    tmp_path: Path, lender: FileStore, memory: int
) -> None:
    """A disk that goes away ends who writes to such memory."""
    mapped = tmp_path / "index.sqlite3-shm"
    assert not mapped.exists()
    store = joined(tmp_path, lender.lend(), memory, 0)
    assert mapped.exists()
    store.stop()
