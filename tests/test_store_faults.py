"""The store under SIGKILL, failing system calls and power cuts, at every single call."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from store_faults import (
    MAX_AGE_S,
    Camera,
    FaultyDisk,
    ForgetfulDisk,
    Killed,
    a_day,
    assert_nothing_lost,
    come_back,
    in_memory,
)

from dsmgateway.errors import StoreError
from dsmgateway.store import FileStore


@pytest.fixture
def scratch() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


def test_a_day_of_photos_has_one_that_must_not_be_joined_with_the_other(scratch: Path) -> None:
    """What the tests below stand on."""
    camera = Camera(photos=True)
    a_day(FileStore(scratch / "data"), camera)
    assert camera.others == 1 and len(camera.told) == 2
    assert_nothing_lost(scratch / "data", camera)


def _killed(disk: FaultyDisk, folder: Path, camera: Camera) -> bool:
    """Live a day until the disk dies; False if it did not."""
    store = FileStore(folder, disk=disk)
    try:
        a_day(store, camera)
    except Killed:
        disk.bury()
        return True
    return False


@pytest.mark.parametrize("photos", [False, True], ids=["paths", "photos"])
def test_a_kill_before_any_call_loses_nothing_and_doubles_nothing(scratch: Path, photos: bool) -> None:
    for number in itertools.count(1):
        camera, folder = Camera(photos=photos), scratch / str(number)
        if not _killed(FaultyDisk(kill_at=number), folder, camera):
            break
        assert_nothing_lost(folder, camera)
    assert number > 200


@pytest.mark.parametrize("photos", [False, True], ids=["paths", "photos"])
@pytest.mark.slow
def test_a_kill_during_the_recovery_from_a_kill_loses_nothing(scratch: Path, photos: bool) -> None:
    """Every call from the finish on, and every call of the start-up after it."""
    calls = _calls(scratch / "whole", photos)
    first = next(number for number, call in enumerate(calls, 1) if call.endswith(".sidecar"))
    last = max(number for number, call in enumerate(calls, 1) if call == "commit to index.sqlite3")
    for number in range(first, min(last, first + 90), 2):
        for again in itertools.count(1, 2):
            camera, folder = Camera(photos=photos), scratch / f"{number}-{again}"
            assert _killed(FaultyDisk(kill_at=number), folder, camera)
            disk = FaultyDisk(kill_at=again)
            try:
                FileStore(folder, disk=disk).start(MAX_AGE_S)
            except Killed:
                disk.bury()
            else:
                disk.bury()
                break
            assert_nothing_lost(folder, camera)


def _calls(folder: Path, photos: bool) -> list[str]:
    disk = FaultyDisk()
    assert not _killed(disk, folder, Camera(photos=photos))
    return disk.calls


@pytest.mark.parametrize("photos", [False, True], ids=["paths", "photos"])
@pytest.mark.parametrize("reason", [errno.EIO, errno.ENOSPC])
def test_any_call_may_fail_and_the_camera_succeeds_when_it_comes_back(scratch: Path, reason: int, photos: bool) -> None:
    for number in itertools.count(1):
        camera, folder = Camera(photos=photos), scratch / str(number)
        disk = FaultyDisk(fail_at=number, errno=reason)
        store = FileStore(folder, disk=disk)
        with suppress(StoreError):
            a_day(store, camera)
        if len(disk.calls) < number:
            break
        come_back(store, folder, disk, camera)
    assert number > 200


@pytest.mark.parametrize("photos", [False, True], ids=["paths", "photos"])
@pytest.mark.parametrize("keep_index", [True, False])
def test_a_power_cut_before_any_call_loses_nothing_that_was_acknowledged(
    scratch: Path, keep_index: bool, photos: bool
) -> None:
    for number in itertools.count(1):
        camera, folder, found = Camera(photos=photos), scratch / f"{number}", scratch / f"{number}-found"
        disk = ForgetfulDisk(folder, kill_at=number)
        store = FileStore(folder, disk=disk)
        try:
            a_day(store, camera)
        except Killed:
            disk.survivors(found, keep_index=keep_index)
            disk.bury()
        else:
            break
        assert_nothing_lost(found, camera)


def test_the_calls_of_a_finish_come_in_the_order_that_loses_nothing(scratch: Path) -> None:
    """The whole promise in one list: nothing is moved before it is durable, the commit comes last."""
    disk, camera = FaultyDisk(), Camera()
    store = FileStore(scratch / "data", disk=disk)
    store.start(MAX_AGE_S)
    path = b"dsm/picture/2.jpg"
    upload = store.open(camera.offer(path), "198.51.100.7")
    camera.send(upload, path)
    disk.calls.clear()
    stored = camera.answered(path, store.finish([(upload, {})])[0])
    key = camera.offer(path).key
    name = stored.path.rpartition("/")[2]
    year, month, day = stored.path.split("/")[2:5]
    kinds = ("fsync", "move", "link", "commit")
    calls = [call.replace(f"{scratch}/data/", "") for call in disk.calls if call.startswith(kinds)]
    assert calls[:4] == [
        f"fsync {key}.part",
        f"fsync {key}.sidecar",
        "fsync spool",
        f"move spool/{key}.part to {name}",
    ]
    assert calls[4] == f"link spool/{key}.sidecar as {name.replace('.jpg', '.json')}"
    assert calls[5:] == [
        f"fsync {day}",
        f"fsync {month}",
        f"fsync {year}",
        f"fsync {camera.offer(path).imei}",
        "fsync media",
        "fsync spool",
        "commit to index.sqlite3",
    ]
    store.stop()


def test_a_finish_is_undone_durably_before_its_record_goes(scratch: Path) -> None:
    """Else a power cut could leave the file in the tree, and nothing that says what it is."""
    path, disks = b"dsm/picture/2.jpg", (FaultyDisk(), FaultyDisk(errno=errno.EIO))
    for disk in disks:
        camera, store = Camera(), FileStore(scratch / str(disk.errno), disk=disk)
        store.start(MAX_AGE_S)
        upload = store.open(camera.offer(path), "198.51.100.7")
        camera.send(upload, path)
        disk.calls.clear()
        if disk.errno:
            disk.fail_at = 1 + disks[0].calls.index("commit to index.sqlite3")
        (answer,) = store.finish([(upload, {})])
        assert isinstance(answer, StoreError) is bool(disk.errno)
        if disk is disks[0]:
            store.stop()
    key = camera.offer(path).key
    calls = [call.partition(" ")[0] + " " + call.rpartition(" ")[2] for call in disk.calls[disk.fail_at :]]
    changes = [call for call in calls if call.startswith(("move", "fsync", "delete"))]
    assert changes[1:5] == [f"move {key}.part", "fsync spool", f"fsync {_today(scratch)}", f"delete {key}.sidecar"]
    store.stop()


def _today(scratch: Path) -> str:
    return next((scratch / "0" / "media").glob("*/*/*/*")).name
