"""Every byte that the store reads back, cut off or changed: it goes on where the bytes prove it, and all ends whole.

The short form damages some places, other ones for each file; the long one (DSMGATEWAY_SOAK) every one.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from soak import SOAK
from store_faults import IMEI, MAX_AGE_S, FaultyDisk, Killed, in_memory

from dsmgateway.crc import crc16
from dsmgateway.errors import StoreError
from dsmgateway.store import FileStore, Kind, Offered, OtherFile, State, Stored, check
from dsmgateway.store.journal import read_journal

PEER = "198.51.100.7"
CHANCE = random.Random(5)
OLD, NEW = CHANCE.randbytes(1500), CHANCE.randbytes(3000)
#: How much of it has come, and up to where that was durable.
HELD, CHECKPOINTS = 2100, (1024, 2048)
OLD_OFFER = Offered(IMEI, b"dsm/picture/old.jpg", len(OLD), crc16(OLD))
PLAIN = Offered(IMEI, b"dsm/picture/new.jpg", len(NEW), 0)
PHOTO = Offered(IMEI, b"%photof", 3072, 0, in_packets=True, qualifier="1571840452123-4")
OFFERS = pytest.mark.parametrize("offered", [PLAIN, PHOTO], ids=["path", "identifier"])
HOW = pytest.mark.parametrize("how", ["cut", "flip"])


@dataclass
class Scene:
    """A data folder as it was left, by path: a file that is stored, one that is under way."""

    offered: Offered
    files: dict[str, bytes]
    #: Where the stored file is.
    old: str

    def path(self, suffix: str) -> str:
        (found,) = (path for path in self.files if path.startswith("spool/") and path.endswith(suffix))
        return found


def left_by(folder: Path, offered: Offered, died_at: str = "") -> Scene:
    """The old file stored, the new one begun; with ``died_at`` killed at this step of the finish of that one."""
    store = FileStore(folder, disk=FaultyDisk())
    store.start(MAX_AGE_S)
    old = delivered(store, OLD_OFFER, OLD)
    upload = store.open(offered, PEER)
    for end in CHECKPOINTS:
        send(upload, NEW, end)
        upload.checkpoint()
    send(upload, NEW, HELD)
    upload.abandon()
    store.stop()
    if not died_at:
        return Scene(offered, contents(folder), old.path)
    disk = FaultyDisk()
    dying = FileStore(folder, disk=disk)
    dying.start(MAX_AGE_S)
    upload = dying.open(offered, PEER)
    send(upload, NEW, len(NEW))
    disk.only, disk.kill_at = died_at, STEPS[died_at]
    disk.calls.clear()
    with pytest.raises(Killed):
        dying.finish([(upload, {"metadata": {"raw": "00"}})])
    files = contents(folder)
    disk.bury()
    return Scene(offered, files, old.path)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }


def send(upload: object, content: bytes, end: int) -> None:
    for begin in range(upload.position_bytes, end, 1024):  # type: ignore[attr-defined]
        upload.write(begin, [content[begin : min(begin + 1024, end)]])  # type: ignore[attr-defined]


def delivered(store: FileStore, offered: Offered, content: bytes) -> Stored:
    """What a camera hears that sends all that it is asked for, and begins again where it is not what is held."""
    for compare in (True, False, False):
        upload = store.open(offered, PEER, compare=compare)
        if not upload.comparing:
            part = store._folder / "spool" / f"{offered.key}.part"
            assert part.read_bytes()[: upload.offset_bytes] == content[: upload.offset_bytes], "not proven"
        try:
            send(upload, content, len(content))
        except OtherFile:
            continue
        (answer,) = store.finish([(upload, {"metadata": {"raw": "00"}})])
        if isinstance(answer, StoreError):
            raise answer
        if isinstance(answer, Stored):
            assert (store._folder / answer.path).read_bytes() == content, "acknowledged and not there"
            return answer
    raise AssertionError(f"{offered} is not taken")


def started(scene: Scene, folder: Path, damaged: dict[str, bytes | None]) -> FileStore:
    """A store on the folder, with some files damaged or gone."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in (scene.files | damaged).items():
        if content is not None:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
    store = FileStore(folder, disk=FaultyDisk())
    store.start(MAX_AGE_S)
    return store


def harmed(content: bytes, how: str, place: int, bit: int) -> bytes:
    """Cut off from a place on, or with one bit changed there."""
    if how == "cut":
        return content[:place]
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def harms(what: str, content: bytes, how: str, about: int, bits: int = 1) -> Iterator[tuple[int, int]]:
    """Each place, and for a changed bit some bits of it; in the short form ``about`` so many of all these.

    Says how many it were, once none has failed.
    """
    chance = random.Random(f"{how}{about}")
    every = list(itertools.product(range(len(content)), range(bits if how == "flip" else 1)))
    chosen = every if SOAK else sorted(chance.sample(every, min(about, len(every))))
    for place, bit in chosen:
        yield place, bit if bits == 8 else place % 8
    print(f"\n{what}, {how} at {len(chosen)} places: nothing wrong believed, all delivered whole and once")


def ends_well(scene: Scene, store: FileStore, folder: Path, was_damaged: bool = False) -> None:
    """The new file is delivered, known when it comes again, and both are there once each, whole, and none but these.

    With ``was_damaged`` a sidecar or the index was, and what that told of a file is lost: then there can be another
    copy, and never two more.
    """
    new = delivered(store, scene.offered, NEW)
    again = delivered(store, scene.offered, NEW)
    assert (again.path, again.duplicate) == (new.path, True)
    store.stop()
    rows = list(check(folder))
    copies = Counter((folder / row.path).read_bytes() for row in rows if row.kind is Kind.MEDIA)
    assert copies.keys() == {OLD, NEW} and max(copies.values()) <= 1 + was_damaged
    if not was_damaged:
        assert {row.state for row in rows} == {State.OK}
    assert (folder / scene.old).read_bytes() == OLD


@pytest.mark.soak
@OFFERS
@HOW
def test_a_part_damaged_anywhere_goes_on_below_the_damage(offered: Offered, how: str) -> None:
    with in_memory() as scratch:
        scene = left_by(scratch / "before", offered)
        path = scene.path(".part")
        for place, bit in harms("part", scene.files[path], how, 25):
            store = started(scene, scratch / "data", {path: harmed(scene.files[path], how, place, bit)})
            upload = store.open(offered, PEER)
            assert upload.offset_bytes == _expected(offered, place), place
            upload.park()
            ends_well(scene, store, scratch / "data")


@pytest.mark.soak
@OFFERS
@HOW
def test_a_journal_damaged_anywhere_is_gone_on_with_by_the_records_before(offered: Offered, how: str) -> None:
    with in_memory() as scratch:
        scene = left_by(scratch / "before", offered)
        path = scene.path(".journal")
        text = scene.files[path]
        journal = read_journal([text])
        assert journal is not None
        for place, bit in harms("journal", text, how, 25, bits=8):
            store = started(scene, scratch / "data", {path: harmed(text, how, place, bit)})
            proven = max((point.offset_bytes for point in journal.checkpoints if point.end_bytes <= place), default=0)
            upload = store.open(offered, PEER)
            assert upload.offset_bytes == _expected(offered, proven), place
            upload.park()
            ends_well(scene, store, scratch / "data")


def _expected(offered: Offered, good_bytes: int) -> int:
    """Where a part goes on of which so many bytes are good."""
    proven = max((end for end in CHECKPOINTS if end <= good_bytes), default=0)
    return offered.resume_offset(proven)


@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "index gone"])
@HOW
def test_a_sidecar_damaged_anywhere_loses_no_file(how: str, indexed: bool) -> None:
    """Where the index is gone too, nothing tells which file it was: one that is offered again is stored again, once."""
    with in_memory() as scratch:
        scene = left_by(scratch / "before", PLAIN)
        path = scene.old.replace(".jpg", ".json")
        for place, bit in harms("sidecar", scene.files[path], how, 25):
            damaged = {path: harmed(scene.files[path], how, place, bit)}
            if not indexed:
                damaged["index.sqlite3"] = None
            store = started(scene, scratch / "data", damaged)
            answer = delivered(store, OLD_OFFER, OLD)
            assert answer.duplicate or not indexed
            again = delivered(store, OLD_OFFER, OLD)
            assert (again.path, again.duplicate) == (answer.path, True)
            ends_well(scene, store, scratch / "data", was_damaged=True)


#: Where a finish is killed: the record is in the spool, the part moved, the sidecar linked, the index committed.
STEPS = {"move": 1, "link": 1, "commit": 1, "delete": 1}


@OFFERS
@pytest.mark.parametrize("step", STEPS)
@HOW
def test_the_record_of_a_finish_damaged_anywhere_costs_no_more_than_the_finish(
    offered: Offered, how: str, step: str
) -> None:
    with in_memory() as scratch:
        scene = left_by(scratch / "before", offered, step)
        path = scene.path(".sidecar")
        linked = [name for name, content in scene.files.items() if content == scene.files[path]]
        for place, bit in harms(f"record of a finish, {step}", scene.files[path], how, 4):
            damage = harmed(scene.files[path], how, place, bit)
            store = started(scene, scratch / "data", dict.fromkeys(linked, damage))
            ends_well(scene, store, scratch / "data", was_damaged=True)


@pytest.mark.parametrize("name", ["index.sqlite3", "index.sqlite3-wal"])
@HOW
def test_an_index_damaged_anywhere_loses_no_file_and_without_it_all_are_taken(how: str, name: str) -> None:
    """What it says wrongly is not believed, what it says no more is stored again when offered again.

    Damage that is only met when a question is asked refuses the file: the camera keeps it until the index is deleted.
    """
    with in_memory() as scratch:
        scene, folder = left_by(scratch / "before", PLAIN, "delete"), scratch / "data"
        content = scene.files[name]
        for place, bit in harms(name, content, how, 25, bits=8):
            if SOAK and (place % 32 if how == "cut" else not content[place] or (place + bit) % 8):
                continue
            try:
                _delivers_all(scene, started(scene, folder, {name: harmed(content, how, place, bit)}), folder)
            except StoreError as error:
                assert "index.sqlite3" in str(error) and (folder / scene.old).read_bytes() == OLD
                indexless = dict.fromkeys(("index.sqlite3", "index.sqlite3-wal"))
                _delivers_all(scene, started(scene, folder, indexless), folder)


def test_an_index_that_says_two_things_is_rebuilt_at_the_start() -> None:
    """Its b-tree for offers says another device than its table: no question would find the file again."""
    with in_memory() as scratch:
        scene, folder = left_by(scratch / "before", PLAIN, "delete"), scratch / "data"
        started(scene, folder, {}).stop()
        scene.files = contents(folder)
        content = scene.files["index.sqlite3"]
        tree = content.rindex(b"\x0a\0\0\0\x02", 0, len(content))  # a leaf of an index, with two files in it
        places = [place for place in range(tree, len(content)) if content.startswith(IMEI.encode() + b"dsm", place)]
        assert len(places) == 2
        for place in places:
            damaged = harmed(content, "flip", place, 0)
            store = started(scene, folder, {"index.sqlite3": damaged})
            assert (folder / "index.sqlite3.corrupt").read_bytes() == damaged
            for offered, sent in ((OLD_OFFER, OLD), (PLAIN, NEW)):
                assert delivered(store, offered, sent).duplicate
            store.stop()


def _delivers_all(scene: Scene, store: FileStore, folder: Path) -> None:
    try:
        answer = delivered(store, OLD_OFFER, OLD)
        again = delivered(store, OLD_OFFER, OLD)
        assert (again.path, again.duplicate) == (answer.path, True)
        ends_well(scene, store, folder, was_damaged=True)
    finally:
        store.stop()
