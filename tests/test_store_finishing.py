"""Finishing: groups, duplicates, comparisons, names, the index and what start-up completes."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_faults import IMEI, MAX_AGE_S, FaultyDisk, ForgetfulDisk, Killed, heal
from test_store_values import HOSTILE_PATHS

from dsmgateway.crc import crc16
from dsmgateway.errors import StoreError
from dsmgateway.store import Checked, Differs, Disk, FileStore, Kind, Offered, Recovery, State, Stored, Upload, check
from dsmgateway.store.naming import is_final_path

CONTENT = bytes(range(256)) * 4 * 3 + b"the end"
PATH = b"dsm/picture/231020/231452.jpg"
PEER = "198.51.100.7"
NOW = 1_700_000_000.123

Start = Callable[..., FileStore]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start a store on the data folder, after stopping the one before."""
    running: list[FileStore] = []

    def start(**options: Any) -> FileStore:
        while running:
            running.pop().stop()
        store = FileStore(folder, **{"now": lambda: NOW, **options})
        recoveries.append(store.start(MAX_AGE_S))
        running.append(store)
        return store

    yield start
    for store in running:
        store.stop()
    recoveries.clear()


recoveries: list[Recovery] = []


def _received(
    store: FileStore, path: bytes = PATH, content: bytes = CONTENT, *, crc: int = 0, imei: str = IMEI, **options: bool
) -> Upload:
    """Open the offer of this content and send what is asked for."""
    upload = store.open(Offered(imei, path, len(content), crc), PEER, **options)
    for offset in range(upload.offset_bytes, len(content), 1024):
        upload.write(offset, [content[offset : offset + 1024]])
    return upload


def _stored(store: FileStore, upload: Upload, about: dict[str, object] | None = None) -> Stored:
    (answer,) = store.finish([(upload, about or {})])
    assert isinstance(answer, Stored), answer
    return answer


def _names(folder: Path) -> list[str]:
    return [row.path for row in check(folder) if row.kind is Kind.MEDIA and row.state is State.OK]


def test_a_stored_file_and_its_sidecar_say_everything(start: Start, folder: Path) -> None:
    store = start()
    upload = _received(store, crc=crc16(CONTENT))
    stored = _stored(store, upload, {"family": "adas", "metadata": {"raw": b"\x00\xff"}, "size": 1})
    name = f"media/{IMEI}/2023/11/14/20231114T221320123Z_dsm-231452_{stored.sha256[:8]}"
    assert stored == Stored(f"{name}.jpg", stored.sha256, len(CONTENT), duplicate=False)
    assert (folder / stored.path).read_bytes() == CONTENT
    assert json.loads((folder / f"{name}.json").read_text()) == {
        "imei": IMEI,
        "device_path": PATH.decode(),
        "device_path_hex": PATH.hex(),
        "family": "dsm",
        "camera": "dsm",
        "kind": "photo",
        "media_type": "image/jpeg",
        "path": stored.path,
        "size": len(CONTENT),
        "sha256": stored.sha256,
        "crc16": crc16(CONTENT),
        "start_crc": crc16(CONTENT),
        "start_crc_matched": True,
        "first_seen": "2023-11-14T22:13:20.123Z",
        "received": "2023-11-14T22:13:20.123Z",
        "connections": 1,
        "bytes_received_twice": 0,
        "peer": PEER,
        "metadata": {"raw": "00ff"},
    }
    assert os.listdir(folder / "spool") == ["aside"]
    with pytest.raises(StoreError, match="finished"):
        upload.write(0, [b"x"])


@pytest.mark.parametrize(("crc", "matched"), [(0, None), (1, False)])
def test_a_start_crc_is_advice_and_its_mismatch_flagged(
    start: Start, folder: Path, crc: int, matched: bool | None
) -> None:
    store = start()
    stored = _stored(store, _received(store, crc=crc))
    assert json.loads((folder / stored.path).with_suffix(".json").read_text())["start_crc_matched"] is matched
    assert stored.crc_differs is (matched is False)
    again = _stored(store, _received(store, crc=crc))
    assert again.duplicate and again.crc_differs is stored.crc_differs


def test_a_group_shares_its_syncs_and_its_commit(start: Start) -> None:
    disk = FaultyDisk()
    store = start(disk=disk)
    _stored(store, _received(store, b"dsm/before.jpg"))
    uploads = [_received(store, b"dsm/%d.jpg" % number) for number in range(8)]
    disk.calls.clear()
    answers = store.finish([(upload, {}) for upload in uploads])
    assert [type(answer) for answer in answers] == [Stored] * 8
    assert len({answer.path for answer in answers if isinstance(answer, Stored)}) == 8
    syncs = [call for call in disk.calls if call.startswith("fsync")]
    assert len([call for call in syncs if call.endswith((".part", ".sidecar"))]) == 16
    assert [call for call in syncs if not call.endswith((".part", ".sidecar"))] == [
        "fsync spool",
        "fsync 14",
        "fsync spool",
    ]
    assert disk.calls.count("commit to index.sqlite3") == 1


@pytest.mark.parametrize(
    ("operation", "number"), [("fsync", 2), ("create", 2), ("move", 2), ("link", 2), ("write /", 2)]
)
def test_the_failure_of_one_file_is_its_own(start: Start, folder: Path, operation: str, number: int) -> None:
    disk = FaultyDisk(errno=errno.EIO, only=operation)
    store = start(disk=disk)
    uploads = [_received(store, b"dsm/%d.jpg" % file) for file in range(3)]
    disk.calls.clear()
    disk.fail_at = number
    answers = store.finish([(upload, {}) for upload in uploads])
    assert [type(answer) for answer in answers] == [Stored, StoreError, Stored]
    assert "Input/output error" in str(answers[1])
    assert len(_names(folder)) == 2
    heal(store)
    assert not _stored(store, _received(store, b"dsm/1.jpg")).duplicate
    assert len(_names(folder)) == 3


@pytest.mark.parametrize("operation", ["fsync {}/spool;", "fsync {}/media;", "commit"])
def test_the_failure_of_a_shared_step_fails_the_group_and_leaves_all_resumable(
    start: Start, folder: Path, operation: str
) -> None:
    disk = FaultyDisk(errno=errno.EIO, only=operation.format(folder))
    store = start(disk=disk)
    uploads = [_received(store, b"dsm/%d.jpg" % number) for number in range(3)]
    for upload in uploads:
        upload.checkpoint()
    disk.calls.clear()
    disk.fail_at = 1
    answers = store.finish([(upload, {}) for upload in uploads])
    assert [type(answer) for answer in answers] == [StoreError] * 3
    assert _names(folder) == []
    assert not list((folder / "media").rglob("*.j*"))
    heal(store)
    for number in range(3):
        upload = _received(store, b"dsm/%d.jpg" % number)
        assert upload.offset_bytes == 3072
        assert not _stored(store, upload).duplicate
    assert len(_names(folder)) == 3


def test_a_finish_that_could_not_be_undone_is_undone_when_the_file_is_offered_again(start: Start, folder: Path) -> None:
    """The commit fails, and so does taking the file back: the record in the spool stays until that has been done."""

    class SickDisk(FaultyDisk):
        sick = False

        def rename(self, source: Path, target: Path) -> None:
            if self.sick and "media" in str(source):
                raise StoreError("move: Read-only file system")
            super().rename(source, target)

    disk = SickDisk(errno=errno.EIO, only="commit")
    store = start(disk=disk)
    upload = _received(store)
    upload.checkpoint()
    disk.sick, disk.fail_at = True, len(disk.calls) + 1
    assert isinstance(store.finish([(upload, {})])[0], StoreError)
    assert [row.state for row in check(folder)] == [State.UNFINISHED]
    heal(store)
    with pytest.raises(StoreError, match="Read-only"):
        store.open(upload.offered, PEER)
    disk.sick = False
    upload = _received(store)
    assert upload.offset_bytes == 3072
    assert not _stored(store, upload).duplicate
    assert len(_names(folder)) == 1


def test_a_file_that_is_not_whole_is_not_finished(start: Start, folder: Path) -> None:
    store = start()
    upload = store.open(Offered(IMEI, PATH, 5000, 0), PEER)
    upload.write(0, [CONTENT[:1024]])
    (answer,) = store.finish([(upload, {})])
    assert isinstance(answer, StoreError) and "1024 of 5000 bytes" in str(answer)
    assert not upload.is_open and _names(folder) == []


def test_a_part_whose_size_someone_changed_is_not_finished(start: Start, folder: Path) -> None:
    store = start()
    upload = _received(store)
    os.truncate(folder / "spool" / f"{upload.offered.key}.part", 100)
    (answer,) = store.finish([(upload, {})])
    assert isinstance(answer, StoreError) and "someone else changed" in str(answer)
    assert not _stored(store, _received(store)).duplicate


def test_the_same_content_again_makes_no_second_copy(start: Start, folder: Path) -> None:
    store = start()
    first = _stored(store, _received(store))
    again = _stored(store, _received(store))
    assert again == Stored(first.path, first.sha256, first.size_bytes, duplicate=True)
    assert _names(folder) == [first.path]
    assert os.listdir(folder / "spool") == ["aside"]


def test_the_same_content_twice_in_one_group_makes_one_copy(start: Start, folder: Path) -> None:
    store = start()
    uploads = [_received(store, crc=crc, compare=False) for crc in (0, 1, 2)]
    answers = [answer for answer in store.finish([(upload, {}) for upload in uploads]) if isinstance(answer, Stored)]
    assert [answer.duplicate for answer in answers] == [False, True, True]
    assert _names(folder) == [answers[0].path]


def test_other_content_path_or_device_is_another_file(start: Start, folder: Path) -> None:
    store = start()
    others: list[dict[str, Any]] = [
        {},
        {"content": CONTENT[::-1]},
        {"path": b"dsm/other.jpg"},
        {"imei": "356307042441013"},
    ]
    assert [_stored(store, _received(store, **other)).duplicate for other in others] == [False] * 4
    assert len(_names(folder)) == 4


def _photo(store: FileStore, qualifier: str | None, content: bytes = CONTENT, *, crc: int = 0) -> Upload:
    """Receive this content under an identifier, counted in packets."""
    offered = Offered(IMEI, b"%photof", -(-len(content) // 1024) * 1024, crc, in_packets=True, qualifier=qualifier)
    upload = store.open(offered, PEER)
    for offset in range(upload.offset_bytes, len(content), 1024):
        upload.write(offset, [content[offset : offset + 1024]])
    return upload


@pytest.mark.parametrize("last_bytes", [1, 7, 1023, 1024])
def test_a_file_counted_in_packets_is_stored_with_the_size_it_turns_out_to_have(
    start: Start, folder: Path, last_bytes: int
) -> None:
    store = start()
    content = CONTENT[: 2048 + last_bytes]
    stored = _stored(store, _photo(store, "1571840452123-4", content), {"size": 1})
    assert stored == Stored(stored.path, stored.sha256, len(content), duplicate=False)
    assert Path(stored.path).name == f"20231114T221320123Z_dualcam-front-photo_{stored.sha256[:8]}.jpg"
    assert (folder / stored.path).read_bytes() == content
    fields = json.loads((folder / stored.path).with_suffix(".json").read_text())
    assert (fields["size"], fields["qualifier"], fields["media_type"]) == (
        len(content),
        "1571840452123-4",
        "image/jpeg",
    )
    assert _names(folder) == [stored.path]
    assert _stored(store, _photo(store, "1571840452123-4", content)).duplicate


def test_a_shorter_last_packet_after_a_rewind_leaves_nothing_of_the_longer_one(start: Start, folder: Path) -> None:
    store = start()
    upload = _photo(store, "1571840452123-4", CONTENT[:3072])
    upload.checkpoint()
    upload.write(2048, [CONTENT[2048:2058]])
    stored = _stored(store, upload)
    assert (folder / stored.path).read_bytes() == CONTENT[:2058]
    assert _names(folder) == [stored.path]


@pytest.mark.parametrize("in_one_group", [False, True])
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (None, None, True),
        (None, "", True),
        ("", None, True),
        ("", "", True),
        ("", "1571840452123-4", True),
        ("1571840452123-4", "", True),
        ("1571840452123-4", "1571840452123-4", True),
        ("1571840452123-4", "1571840452124-4", False),
        ("1571840452123-4", None, False),
        (None, "1571840452123-4", False),
    ],
)
def test_equal_bytes_are_one_file_unless_the_qualifiers_object(
    start: Start, folder: Path, one: str | None, other: str | None, same: bool, in_one_group: bool
) -> None:
    """Also after the index was made anew from the sidecars."""
    store = start()
    if in_one_group:
        uploads = [_photo(store, one), _photo(store, other, crc=1)]
        first, second = store.finish([(upload, {}) for upload in uploads])
    else:
        first = _stored(store, _photo(store, one))
        store.stop()
        (folder / "index.sqlite3").unlink()
        store = start()
        second = _stored(store, _photo(store, other))
    assert isinstance(first, Stored) and isinstance(second, Stored)
    assert (first.duplicate, second.duplicate) == (False, same)
    assert (first.path == second.path) is same
    assert len(_names(folder)) == (1 if same else 2)


@pytest.mark.parametrize("qualifier", [None, "", "1571840452123-4"])
def test_a_size_in_packets_or_an_identifier_is_never_enough_to_compare_the_last_packet(
    start: Start, qualifier: str | None
) -> None:
    store = start()
    whole = CONTENT[:3072]
    _stored(store, _photo(store, qualifier, whole, crc=crc16(whole)))
    for in_packets in (False, True):
        offered = Offered(IMEI, b"%photof", 3072, crc16(whole), in_packets=in_packets, qualifier=qualifier)
        assert store.open(offered, PEER).comparing is (qualifier is None and not in_packets)


def test_the_part_of_a_duplicate_does_not_come_back_with_a_power_cut(tmp_path: Path) -> None:
    """Its device has heard that it is stored, so nobody would ever go on with it."""
    folder, found = tmp_path / "data", tmp_path / "found"
    disk = ForgetfulDisk(folder)
    store = FileStore(folder, disk=disk)
    store.start(MAX_AGE_S)
    _stored(store, _received(store))
    again = _received(store)
    again.checkpoint()
    assert _stored(store, again).duplicate
    disk.survivors(found, keep_index=True)
    store.stop()
    assert not list((found / "spool").glob("*.part"))


def test_a_copy_that_is_gone_or_cut_is_no_duplicate(start: Start, folder: Path) -> None:
    store = start()
    stored = _stored(store, _received(store))
    (folder / stored.path).write_bytes(b"cut")
    again = _stored(store, _received(store))
    assert not again.duplicate and again.path != stored.path
    (folder / again.path).unlink()
    assert not _stored(store, _received(store)).duplicate


def test_a_known_file_is_compared_by_its_last_packet_and_nothing_written(start: Start, folder: Path) -> None:
    store = start()
    stored = _stored(store, _received(store))
    upload = store.open(Offered(IMEI, PATH, len(CONTENT), crc16(CONTENT)), PEER)
    assert (upload.comparing, upload.offset_bytes) == (True, 2048)
    upload.write(2048, [CONTENT[2048:3075], memoryview(CONTENT)[3075:]])
    upload.checkpoint()
    assert os.listdir(folder / "spool") == ["aside"]
    assert _stored(store, upload) == Stored(stored.path, stored.sha256, len(CONTENT), duplicate=True)
    assert store.open(upload.offered, PEER, compare=False).comparing is False


@pytest.mark.parametrize(
    ("size_bytes", "offset_bytes"),
    [(2, 0), (1024, 0), (1024 + 63, 0), (1024 + 64, 1024), (2048, 1024), (2048 + 2, 1024), (3072, 2048)],
)
def test_what_is_compared_is_enough_to_tell(start: Start, size_bytes: int, offset_bytes: int) -> None:
    """All pictures end in the same two bytes: a packet of little more says nothing."""
    store = start()
    content = CONTENT[:size_bytes]
    _stored(store, _received(store, content=content))
    upload = store.open(Offered(IMEI, PATH, size_bytes, crc16(content)), PEER)
    assert (upload.comparing, upload.offset_bytes) == (True, offset_bytes)


def test_a_comparison_may_be_rewound(start: Start) -> None:
    store = start()
    _stored(store, _received(store))
    upload = store.open(Offered(IMEI, PATH, len(CONTENT), crc16(CONTENT)), PEER)
    upload.write(0, [CONTENT])
    assert _stored(store, upload).duplicate


def test_a_last_packet_that_differs_is_told_and_the_file_received_in_full(start: Start, folder: Path) -> None:
    """The CRC-16 of two files can be the same: the whole file is then asked for."""
    store = start()
    stored = _stored(store, _received(store))
    offered = Offered(IMEI, PATH, len(CONTENT), crc16(CONTENT))
    other = CONTENT[:-1] + b"!"
    upload = store.open(offered, PEER)
    upload.write(2048, [other[2048:]])
    assert store.finish([(upload, {})]) == [Differs()]
    assert not upload.is_open
    upload = _received(store, content=other, crc=offered.start_crc, compare=False)
    assert not _stored(store, upload).duplicate
    assert (folder / stored.path).read_bytes() == CONTENT
    assert len(_names(folder)) == 2


def test_a_comparison_without_its_last_byte_is_no_answer(start: Start) -> None:
    store = start()
    _stored(store, _received(store))
    upload = store.open(Offered(IMEI, PATH, len(CONTENT), crc16(CONTENT)), PEER)
    answer = store.finish([(upload, {})])[0]
    with pytest.raises(StoreError) as parked:
        upload.park()
    assert answer is parked.value


def test_nothing_is_compared_with_a_file_that_is_gone_or_has_another_crc(start: Start, folder: Path) -> None:
    store = start()
    stored = _stored(store, _received(store))
    assert not store.open(Offered(IMEI, PATH, len(CONTENT), 1 ^ crc16(CONTENT)), PEER).comparing
    (folder / stored.path).unlink()
    assert not store.open(Offered(IMEI, PATH, len(CONTENT), crc16(CONTENT)), PEER).comparing


def test_two_files_of_one_millisecond_get_two_names(start: Start, folder: Path) -> None:
    store = start()
    paths = [b"front/1.jpg", b"rear/1.jpg", b"left/1.mp4"]
    uploads = [_received(store, path) for path in paths[:2]]
    answers = store.finish([(upload, {}) for upload in uploads])
    answers += [_stored(store, _received(store, paths[2]))]
    times = [answer.path.split("_")[0][-4:] for answer in answers if isinstance(answer, Stored)]
    assert times == ["123Z", "124Z", "125Z"]
    assert len(_names(folder)) == 3


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_a_hostile_path_is_stored_under_a_name_of_ours_and_kept_exactly(
    start: Start, folder: Path, path: bytes
) -> None:
    store = start()
    stored = _stored(store, _received(store, path))
    assert is_final_path(stored.path)
    assert _stored(store, _received(store, path)).duplicate
    fields = json.loads((folder / stored.path).with_suffix(".json").read_text())
    assert bytes.fromhex(fields["device_path_hex"]) == path
    everything = [
        found for found in folder.parent.rglob("*") if found.is_file() and not found.name.startswith("index.")
    ]
    assert {found.relative_to(folder).as_posix() for found in everything} == {
        "lock",
        stored.path,
        stored.path.rpartition(".")[0] + ".json",
    }


@pytest.mark.parametrize("damage", [None, b"", b"this is no database at all, however long it may be" * 100])
def test_an_index_that_is_missing_or_corrupt_is_rebuilt_from_the_tree(
    start: Start, folder: Path, damage: bytes | None
) -> None:
    store = start()
    stored = _stored(store, _received(store, b"\xff\xfe.jpg"))
    store.stop()
    (folder / "index.sqlite3").unlink()
    if damage is not None:
        (folder / "index.sqlite3").write_bytes(damage)
    day = (folder / stored.path).parent
    (day / "20231114T221320123Z_lonely_00000000.jpg").write_bytes(b"no sidecar")
    (day / "note.txt").write_bytes(b"not ours")
    store = start()
    assert recoveries[-1].index_rebuilt and recoveries[-1].indexed == 1
    assert [Path(path).name for path in recoveries[-1].unreadable] == ["20231114T221320123Z_lonely_00000000.jpg"]
    assert _stored(store, _received(store, b"\xff\xfe.jpg")).duplicate
    assert store.open(Offered(IMEI, b"\xff\xfe.jpg", len(CONTENT), crc16(CONTENT)), PEER).comparing
    assert (folder / "index.sqlite3.corrupt").exists() is bool(damage)
    start()
    assert not recoveries[-1].index_rebuilt


def test_a_sidecar_with_what_no_index_can_hold_does_not_keep_the_store_from_starting(
    start: Start, folder: Path
) -> None:
    store = start()
    stored = _stored(store, _received(store))
    store.stop()
    (folder / "index.sqlite3").unlink()
    sidecar = (folder / stored.path).with_suffix(".json")
    for strange in ('"imei": "\\ud800"', f'"imei": "{IMEI}", "crc16": {1 << 63}'):
        sidecar.write_text(sidecar.read_text().replace('"crc16"', '"was"').replace(f'"imei": "{IMEI}"', strange))
        start()
        assert recoveries[-1].unreadable == (stored.path,)
        (folder / "index.sqlite3").unlink()
        sidecar.write_text(sidecar.read_text().replace(strange, f'"imei": "{IMEI}"'))


@pytest.mark.parametrize(
    ("good", "bad"), [(b"sha256 TEXT", b"sha257 TEXT"), (b"stored_by_offer", b"stored_by_off\xe5r"), (b"", b"\xff\xff")]
)
def test_an_index_with_damaged_texts_refuses_no_file(start: Start, folder: Path, good: bytes, bad: bytes) -> None:
    """A text that is not UTF-8, in the schema or in a record, and a column that is not there."""
    store = start()
    stored = _stored(store, _received(store))
    store.stop()
    path = folder / "index.sqlite3"
    good = good or stored.sha256[8:10].encode()
    content = path.read_bytes()
    assert good in content and len(good) == len(bad)
    path.write_bytes(content.replace(good, bad, 1))
    store = start()
    assert _stored(store, _received(store)).sha256 == stored.sha256


def test_an_index_with_damaged_pages_or_of_another_version_is_rebuilt(start: Start, folder: Path) -> None:
    store = start()
    for number in range(40):
        _stored(store, _received(store, b"%d.jpg" % number))
    store.stop()
    with (folder / "index.sqlite3").open("r+b") as index:
        index.seek(4096)
        index.write(b"\xff" * 8192)
    start().stop()
    assert recoveries[-1].indexed == 40
    with sqlite3.connect(folder / "index.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    start()
    assert recoveries[-1].indexed == 40


def test_an_index_from_before_there_were_qualifiers_is_made_anew(start: Start, folder: Path) -> None:
    store = start()
    photo = _stored(store, _photo(store, "1571840452123-4"))
    plain = _stored(store, _received(store))
    store.stop()
    (folder / "index.sqlite3").unlink()
    with sqlite3.connect(folder / "index.sqlite3") as connection:
        connection.execute(
            "CREATE TABLE stored (path TEXT PRIMARY KEY, imei TEXT NOT NULL, device_path BLOB NOT NULL,"
            " size INTEGER NOT NULL, sha256 TEXT NOT NULL, crc16 INTEGER) WITHOUT ROWID"
        )
        connection.execute("CREATE INDEX stored_by_offer ON stored (imei, device_path, size)")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    store = start()
    assert (recoveries[-1].index_rebuilt, recoveries[-1].indexed) == (True, 2)
    again = [_stored(store, _photo(store, "1571840452123-4")), _stored(store, _received(store))]
    assert [answer.path for answer in again] == [photo.path, plain.path]
    assert not _stored(store, _photo(store, "1571840452124-4")).duplicate


def test_an_index_that_cannot_be_read_is_an_error_and_stays_in_place(start: Start, folder: Path) -> None:
    _stored(store := start(), _received(store))
    store.stop()
    broken = FileStore(folder, disk=FaultyDisk(fail_at=1, errno=errno.EIO, only="query"))
    with pytest.raises(StoreError, match=r"query .*index\.sqlite3: Input/output error"):
        broken.start(MAX_AGE_S)
    start()
    assert not recoveries[-1].index_rebuilt


def test_a_sidecar_that_cannot_be_read_does_not_keep_the_gateway_from_starting(start: Start, folder: Path) -> None:
    stored = _stored(store := start(), _received(store))
    store.stop()
    (folder / "index.sqlite3").unlink()
    start(disk=FaultyDisk(fail_at=1, errno=errno.EIO, only="read "))
    assert recoveries[-1].unreadable == (stored.path,)


def _killed_finish(folder: Path, operation: str) -> None:
    """Die in a finish before this call."""
    disk = FaultyDisk()
    store = FileStore(folder, disk=disk, now=lambda: NOW)
    store.start(MAX_AGE_S)
    upload = _received(store)
    disk.only, disk.calls, disk.kill_at = operation, [], 1
    with pytest.raises(Killed):
        store.finish([(upload, {})])
    disk.bury()


def test_start_up_completes_a_finish_that_was_cut_off_after_the_move(start: Start, folder: Path) -> None:
    _killed_finish(folder, "link")
    assert [row.state for row in check(folder)] == [State.UNFINISHED]
    store = start()
    assert len(recoveries[-1].rolled_forward) == 1
    assert _names(folder) == list(recoveries[-1].rolled_forward)
    assert _stored(store, _received(store)).duplicate


def test_start_up_drops_the_record_of_a_finish_that_was_cut_off_before_the_move(start: Start, folder: Path) -> None:
    _killed_finish(folder, "move")
    store = start()
    assert len(recoveries[-1].rolled_back) == 1 and recoveries[-1].parts == 1
    assert not _stored(store, _received(store)).duplicate


def test_start_up_drops_a_record_that_was_not_written_whole(start: Start, folder: Path) -> None:
    start()
    (folder / "spool/x.sidecar").write_bytes(b'{"path": "../../etc/pass')
    start()
    assert recoveries[-1].rolled_back == ("x.sidecar",)
    assert os.listdir(folder / "spool") == ["aside"]


def test_start_up_puts_away_a_moved_file_that_is_not_what_its_record_says(start: Start, folder: Path) -> None:
    """A disk that lied about a sync: the size is right, the bytes are not."""
    _killed_finish(folder, "commit")
    (moved,) = (path for path in (folder / "media").rglob("*.jpg"))
    moved.write_bytes(bytes(len(CONTENT)))
    store = start()
    assert recoveries[-1].set_aside == (moved.relative_to(folder).as_posix(),)
    assert not moved.exists() and not moved.with_suffix(".json").exists()
    assert not _stored(store, _received(store)).duplicate


def test_start_up_keeps_one_of_two_copies_if_a_file_came_again_while_its_finish_was_open(
    start: Start, folder: Path
) -> None:
    _killed_finish(folder, "commit")
    (sidecar,) = (folder / "spool").glob("*.sidecar")
    hidden = folder / "hidden"
    sidecar.rename(hidden)
    store = start(now=lambda: NOW + 5)
    stored = _stored(store, _received(store, crc=1))
    store.stop()
    hidden.rename(sidecar)
    start()
    assert _names(folder) == [stored.path]


@pytest.mark.parametrize(("qualifier", "copies"), [("", 1), ("1571840452123-4", 1), ("1571840452124-4", 2)])
def test_start_up_takes_a_file_for_another_copy_only_where_the_qualifiers_allow_it(
    start: Start, folder: Path, qualifier: str, copies: int
) -> None:
    """A finish was cut off, its record could not be read for a while, and a file of the same bytes came meanwhile."""
    disk = FaultyDisk()
    store = FileStore(folder, disk=disk, now=lambda: NOW)
    store.start(MAX_AGE_S)
    upload = _photo(store, "1571840452123-4")
    disk.only, disk.calls, disk.kill_at = "commit", [], 1
    with pytest.raises(Killed):
        store.finish([(upload, {})])
    disk.bury()
    (sidecar,) = (folder / "spool").glob("*.sidecar")
    hidden = folder / "hidden"
    sidecar.rename(hidden)
    store = start(now=lambda: NOW + 5)
    stored = _stored(store, _photo(store, qualifier, crc=1))
    store.stop()
    hidden.rename(sidecar)
    start()
    assert stored.path in _names(folder) and len(_names(folder)) == copies


def test_the_record_of_a_committed_finish_left_in_the_spool_does_no_harm(start: Start, folder: Path) -> None:
    """Neither to the stored file, whose sidecar is the same file, nor to the next one with this key."""
    disk = FaultyDisk()
    store = FileStore(folder, disk=disk, now=lambda: NOW)
    store.start(MAX_AGE_S)
    upload = _received(store)
    disk.only, disk.calls, disk.fail_at, disk.errno = "delete", [], 1, errno.EIO
    stored = _stored(store, upload)
    assert list((folder / "spool").glob("*.sidecar"))
    heal(store)
    again = _received(store, content=CONTENT[::-1])
    assert not list((folder / "spool").glob("*.sidecar"))
    assert not _stored(store, again).duplicate
    store.stop()
    disk.bury()
    assert len(_names(folder)) == 2 and stored.path in _names(folder)


def test_a_damaged_record_in_the_spool_is_dropped_when_its_file_is_offered(start: Start, folder: Path) -> None:
    store = start()
    offered = Offered(IMEI, PATH, len(CONTENT), 0)
    (folder / "spool" / f"{offered.key}.sidecar").write_bytes(b"damaged")
    assert not _stored(store, _received(store)).duplicate


def test_a_folder_that_someone_deleted_is_made_again(start: Start, folder: Path) -> None:
    store = start()
    stored = _stored(store, _received(store))
    for path in (folder / stored.path, (folder / stored.path).with_suffix(".json")):
        path.unlink()
    (folder / stored.path).parent.rmdir()
    assert isinstance(store.finish([(_received(store, b"a.jpg"), {})])[0], StoreError)
    _stored(store, _received(store, b"a.jpg"))


def test_many_folders_are_not_remembered_for_ever(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsmgateway.store.folders._MOST_KNOWN", 3)
    store = start()
    for imei in ("356307042441013", IMEI):
        _stored(store, _received(store, imei=imei))
    assert len(store._ground.folders._durable) <= 9


def test_check_finds_what_was_damaged(start: Start, folder: Path) -> None:
    store = start()
    names = ["fine", "flipped", "cut", "bare", "spoilt", "swapped"]
    paths = {name: folder / _stored(store, _received(store, name.encode() + b".jpg")).path for name in names}
    paths["flipped"].write_bytes(bytes(len(CONTENT)))
    paths["cut"].write_bytes(b"cut")
    paths["bare"].with_suffix(".json").unlink()
    paths["spoilt"].with_suffix(".json").write_bytes(b"{")
    paths["swapped"].with_suffix(".json").write_bytes(paths["fine"].with_suffix(".json").read_bytes())
    day = paths["fine"].parent
    gone = day / "20231114T221320123Z_gone_00000000.json"
    text = paths["fine"].with_suffix(".json").read_text()
    gone.write_text(text.replace(paths["fine"].name, "20231114T221320123Z_gone_00000000.jpg"))
    (day / "note.txt").write_bytes(b"hello")
    (day / "odd.json").write_bytes(b"{}")
    rows = {Path(row.path).name: (row.kind, row.state) for row in check(folder)}
    media = {
        "fine": State.OK,
        "flipped": State.SHA256_DIFFERS,
        "cut": State.SIZE_DIFFERS,
        "bare": State.MISSING_SIDECAR,
        "spoilt": State.BAD_SIDECAR,
        "swapped": State.BAD_SIDECAR,
    }
    beside = {
        gone.name: (Kind.SIDECAR, State.MISSING_FILE),
        "odd.json": (Kind.SIDECAR, State.BAD_SIDECAR),
        "note.txt": (Kind.FOREIGN, State.NOT_OURS),
        paths["spoilt"].with_suffix(".json").name: (Kind.SIDECAR, State.BAD_SIDECAR),
        paths["swapped"].with_suffix(".json").name: (Kind.SIDECAR, State.BAD_SIDECAR),
    }
    assert rows == {paths[name].name: (Kind.MEDIA, state) for name, state in media.items()} | beside


def test_check_passes_over_what_a_running_gateway_moves_meanwhile(start: Start, folder: Path) -> None:
    store = start()
    _stored(store, _received(store))
    _received(store, b"part.jpg").park()

    class MovingDisk(Disk):
        """Lists a folder, and then everything in it is gone."""

        def __init__(self, stage: str, *suffixes: str) -> None:
            self.stage = stage
            self.suffixes = suffixes

        def run(self, operation, path, call, /, *arguments, **options):  # type: ignore[no-untyped-def]
            if operation == self.stage and (path := Path(path)).suffix in self.suffixes:
                path.unlink(missing_ok=True)
            return super().run(operation, path, call, *arguments, **options)

    assert [row.kind for row in check(folder, MovingDisk("open", ".part"))] == [Kind.MEDIA]
    _received(store, b"other.jpg").park()
    assert list(check(folder, MovingDisk("stat", ".jpg", ".json", ".part"))) == []
    _received(store, b"third.jpg").park()
    with pytest.raises(StoreError, match=r"read .*\.journal: Input"):
        list(check(folder, FaultyDisk(fail_at=1, errno=errno.EIO, only=f"read {folder}/spool")))


def test_a_row_of_check_is_a_plain_value() -> None:
    assert Checked("a", Kind.PART, State.OK, 1) == Checked("a", Kind.PART, State.OK, 1, 0)


@pytest.mark.parametrize("operation", ["link", "commit"])
def test_a_failed_finish_costs_the_last_packet_only(start: Start, folder: Path, operation: str) -> None:
    disk = FaultyDisk(errno=errno.ENOSPC, only=operation)
    store = start(disk=disk)
    upload = _received(store)
    disk.fail_at = len(disk.calls) + 1
    assert isinstance(store.finish([(upload, {})])[0], StoreError)
    upload = _received(store)
    assert upload.offset_bytes == 3072
    _stored(store, upload)


def test_a_journal_that_cannot_be_told_of_a_whole_part_costs_the_file_and_nothing_else(start: Start) -> None:
    """The part is of no use then, and nobody would ever park it."""

    class SickDisk(FaultyDisk):
        sick = False

        def run(self, operation, path, call, /, *arguments, **options):  # type: ignore[no-untyped-def]
            if self.sick and (
                operation.startswith("link") or (operation == "create" and str(path).endswith(".journal"))
            ):
                raise StoreError(f"{operation} {path}: Input/output error")
            return super().run(operation, path, call, *arguments, **options)

    disk = SickDisk()
    store = start(disk=disk)
    upload = _received(store)
    disk.sick = True
    assert "link" in str(store.finish([(upload, {})])[0])
    assert not list(store._spool.folder.glob("*.*"))
    disk.sick = False
    upload = _received(store)
    assert upload.offset_bytes == 0
    assert not _stored(store, upload).duplicate


def test_a_commit_that_can_neither_be_made_nor_undone_is_not_believed(start: Start, folder: Path) -> None:
    """COMMIT, ROLLBACK and the way back all fail: the next offer undoes it, and the index works again."""

    class SickDisk(FaultyDisk):
        sick = False

        def run(self, operation, path, call, /, *arguments, **options):  # type: ignore[no-untyped-def]
            if self.sick and (operation.startswith(("commit", "roll back")) or "media" in operation):
                raise StoreError(f"{operation} {path}: Input/output error")
            return super().run(operation, path, call, *arguments, **options)

    disk = SickDisk()
    store = start(disk=disk)
    upload = _received(store)
    disk.sick = True
    assert isinstance(store.finish([(upload, {})])[0], StoreError)
    disk.sick = False
    assert not _stored(store, _received(store)).duplicate
    assert not _stored(store, _received(store, b"other.jpg")).duplicate
    assert len(_names(folder)) == 2 and len(list((folder / "media").rglob("*.jpg"))) == 2


def test_nobody_waits_for_the_commit_of_another_to_ask(start: Start) -> None:
    """What is asked meanwhile is what was committed."""
    store = start()
    index = store._index
    stored = _stored(store, _received(store))
    with index._writing:
        index._writer().execute("BEGIN IMMEDIATE")
        index._writer().execute("DELETE FROM stored")
        assert index.has(stored.path)
        index._writer().execute("ROLLBACK")


@pytest.mark.parametrize("operation", ["query", "commit to"])
@pytest.mark.parametrize("name", ["SQLITE_CORRUPT", "SQLITE_CORRUPT_INDEX", "SQLITE_NOTADB", "SQLITE_FULL"])
def test_an_index_that_is_found_damaged_while_it_is_used_says_what_helps(
    start: Start, operation: str, name: str
) -> None:
    class DamagingDisk(FaultyDisk):
        damaged = False

        def run(self, said, path, call, /, *arguments, **options):  # type: ignore[no-untyped-def]
            if self.damaged and said == operation:
                call = self._malformed
            return super().run(said, path, call, *arguments, **options)

        def _malformed(self, *arguments: object) -> None:
            error = sqlite3.DatabaseError("as the test has it")
            error.sqlite_errorname = name
            raise error

    store = start(disk=(disk := DamagingDisk()))
    disk.damaged = True
    (answer,) = store.finish([(_received(store), {})])
    assert isinstance(answer, StoreError)
    assert ("(damaged: it is built anew when the gateway is restarted)" in str(answer)) is (name != "SQLITE_FULL")


def test_a_rebuild_leaves_a_finish_that_was_cut_off_to_be_completed(start: Start, folder: Path) -> None:
    _killed_finish(folder, "link")
    (folder / "index.sqlite3").unlink()
    start()
    assert len(recoveries[-1].rolled_forward) == 1 and recoveries[-1].unreadable == ()
    assert len(_names(folder)) == 1


@pytest.mark.parametrize("stage", ["stat .json", "list spool"])
def test_check_raises_no_alarm_when_a_finish_ends_between_two_looks(folder: Path, stage: str) -> None:
    _killed_finish(folder, "link")
    (record,) = (folder / "spool").glob("*.sidecar")

    class EndingDisk(Disk):
        """The gateway goes on right after this look."""

        def run(self, operation, path, call, /, *arguments, **options):  # type: ignore[no-untyped-def]
            result = super().run(operation, path, call, *arguments, **options)
            if stage in (f"{operation} {Path(path).suffix}", f"{operation} {Path(path).name}") and record.exists():
                (media,) = (folder / "media").rglob("*.jpg")
                os.link(record, media.with_suffix(".json"))
                record.unlink()
            return result

    assert {row.state for row in check(folder, EndingDisk()) if row.kind is Kind.MEDIA} == {State.OK}


class QueriedDisk(FaultyDisk):
    """A disk on which no query of the index succeeds in which ``device`` is asked for."""

    device = ""

    def run(self, operation: str, path: Any, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
        if operation == "query" and self.device and self.device in arguments[-1]:
            raise StoreError("query: damaged")
        return super().run(operation, path, call, *arguments, **options)


def test_a_file_that_cannot_be_looked_for_harms_no_other_of_its_group(start: Start) -> None:
    """They are looked for together, and where that fails each for itself."""
    store = start(disk=(disk := QueriedDisk()))
    imeis = [IMEI[:-1] + digit for digit in "123"]
    _stored(store, _received(store, imei=imeis[2]))
    uploads = [_received(store, imei=imei) for imei in imeis]
    disk.device = imeis[1]
    first, second, third = store.finish([(upload, {}) for upload in uploads])
    assert isinstance(first, Stored) and not first.duplicate
    assert isinstance(second, StoreError)
    assert isinstance(third, Stored) and third.duplicate
