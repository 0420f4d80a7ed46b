"""Files that are counted in packets or named by an identifier: where they end, and never two of them in one."""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_faults import IMEI, MAX_AGE_S, FaultyDisk, heal, in_memory

from dsmgateway.errors import StoreError
from dsmgateway.store import Disk, FileStore, Offered, OtherFile, State, Stored, Upload, check

CONTENT = random.Random(3).randbytes(6 * 1024 + 300)
#: START said 7 packets.
PHOTO = Offered(IMEI, b"%photof", 7 * 1024, 0, in_packets=True, qualifier="1571840452123-4")
PEER = "198.51.100.7"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def disk() -> FaultyDisk:
    """A disk that works until it is told to fail."""
    return FaultyDisk(errno=errno.EIO)


@pytest.fixture
def store(folder: Path, disk: Disk) -> Iterator[FileStore]:
    store = FileStore(folder, disk=disk)
    store.start(MAX_AGE_S)
    yield store
    store.stop()


def _send(upload: Upload, end: int, content: bytes = CONTENT) -> None:
    """Send packets from the position on up to here."""
    for offset in range(upload.position_bytes, end, 1024):
        upload.write(offset, [content[offset : min(offset + 1024, end)]])


def _held(store: FileStore, end: int, offered: Offered = PHOTO, content: bytes = CONTENT) -> Upload:
    """The upload that takes up a part which holds so much of the content."""
    upload = store.open(offered, PEER)
    assert upload.offset_bytes == 0
    _send(upload, end, content)
    upload.park()
    return store.open(offered, PEER)


def _flipped(place: int) -> bytes:
    """The content with another byte at this place."""
    return CONTENT[:place] + bytes([CONTENT[place] ^ 1]) + CONTENT[place + 1 :]


def _assert_stored(store: FileStore, upload: Upload, content: bytes = CONTENT) -> Stored:
    """Send the rest and find exactly the content."""
    _send(upload, len(content), content)
    (answer,) = store.finish([(upload, {})])
    assert isinstance(answer, Stored), answer
    assert (store._folder / answer.path).read_bytes() == content
    return answer


def _assert_begins_anew(store: FileStore, upload: Upload, caught: BaseException) -> None:
    """Every call raises the same, nothing is kept, and the next reception is of the new file only."""
    calls = [upload.checkpoint, upload.require_whole, upload.park, lambda: upload.write(0, [b"x"])]
    for call in calls:
        with pytest.raises(OtherFile) as again:
            call()
        assert again.value is caught
    assert store.finish([(upload, {})]) == [caught]
    assert not list((store._folder / "spool").glob(f"{upload.offered.key}*"))
    assert store._space.needed_bytes == 0
    upload = store.open(upload.offered, PEER)
    assert upload.offset_bytes == 0
    _assert_stored(store, upload, CONTENT[::-1])


@pytest.mark.parametrize("qualifier", [None, "", "1571840452123-4"])
@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 2048, 6 * 1024 + 1, 6 * 1024 + 1023])
def test_the_last_packet_settles_the_size(store: FileStore, size: int, qualifier: str | None) -> None:
    content = (CONTENT * 2)[:size]
    offered = replace(PHOTO, size_bytes=-(-size // 1024) * 1024, qualifier=qualifier)
    upload = store.open(offered, PEER)
    _send(upload, offered.last_packet_bytes, content)
    with pytest.raises(StoreError, match="are no file"):
        upload.require_whole()
    _assert_stored(store, upload, content)
    assert store._space.needed_bytes == 0


def test_nothing_comes_after_a_short_last_packet_but_a_rewind(store: FileStore) -> None:
    upload = store.open(PHOTO, PEER)
    _send(upload, 6144 + 300)
    for data in (b"x", b"x" * 724, b"x" * 725):
        with pytest.raises(StoreError, match=r"has ended|but the size is 7168"):
            upload.write(6444, [data])
    upload.write(6444, [])
    assert (upload.position_bytes, upload.is_open) == (6444, True)
    for begin in (6144 + 100, 6144, 2048):
        upload.write(begin, [CONTENT[begin : begin + 1024]])
        _send(upload, 6444)
    _assert_stored(store, upload)


def test_packets_of_no_more_than_the_file_can_have_are_accounted_for(store: FileStore) -> None:
    upload = store.open(PHOTO, PEER)
    assert store._space.needed_bytes == 7168
    _send(upload, 3072)
    assert store._space.needed_bytes == 4096
    upload.park()
    assert store._space.needed_bytes == 0
    upload = store.open(PHOTO, PEER)
    assert store._space.needed_bytes == 7168 - 2048
    _send(upload, 6444)
    assert store._space.needed_bytes == 724
    _assert_stored(store, upload)
    assert store._space.needed_bytes == 0


@pytest.mark.parametrize("in_packets", [False, True])
def test_a_file_that_its_path_alone_names_goes_on_exactly_where_it_was(store: FileStore, in_packets: bool) -> None:
    offered = replace(PHOTO, device_path=b"dsm/1.jpg", in_packets=in_packets, qualifier=None)
    upload = _held(store, 3072, offered)
    assert upload.offset_bytes == 3072
    _assert_stored(store, upload, (CONTENT * 2)[:7168])


@pytest.mark.parametrize(
    ("held", "offset"),
    [(1, 0), (1024, 0), (2047, 0), (2048, 1024), (3000, 1024), (6144, 5120), (6444, 5120)],
)
def test_what_has_a_qualifier_goes_on_one_packet_earlier_than_is_held(
    store: FileStore, folder: Path, held: int, offset: int
) -> None:
    """`check` names the same place; asking for it once more costs nothing, and equal bytes go on."""
    for _ in range(3):
        upload = store.open(PHOTO, PEER)
        _send(upload, held)
        upload.park()
        rows = [(row.state, row.offset_bytes) for row in check(folder)]
        assert rows == ([(State.RESUMABLE, offset)] if offset else [])
    for _ in range(3):
        upload = store.open(PHOTO, PEER)
        assert upload.offset_bytes == upload.position_bytes == offset
        if offset:
            upload.park()
    upload = store.open(PHOTO, PEER)
    _assert_stored(store, upload)


def test_a_size_in_bytes_with_a_qualifier_goes_back_one_packet_too(store: FileStore) -> None:
    offered = replace(PHOTO, size_bytes=len(CONTENT), in_packets=False)
    upload = _held(store, len(CONTENT), offered)
    assert upload.offset_bytes == 5120
    _assert_stored(store, upload)


@pytest.mark.parametrize("place", [2048, 2049, 3071])
def test_another_file_is_found_out_by_any_byte_of_the_packet_that_is_held(store: FileStore, place: int) -> None:
    upload = _held(store, 3072)
    with pytest.raises(OtherFile, match="not the file whose first 3072 bytes are held") as caught:
        _send(upload, 6444, _flipped(place))
    _assert_begins_anew(store, upload, caught.value)


@pytest.mark.parametrize("place", [5120, 6143, 6144, 6443])
def test_a_part_with_everything_is_compared_to_its_end(store: FileStore, place: int) -> None:
    upload = _held(store, 6444)
    with pytest.raises(OtherFile) as caught:
        _send(upload, 6444, _flipped(place))
    _assert_begins_anew(store, upload, caught.value)


@pytest.mark.parametrize("size", [6145, 6443, 6445, 7168])
def test_a_last_packet_of_another_size_than_the_one_held_is_another_file(store: FileStore, size: int) -> None:
    upload = _held(store, 6444)
    with pytest.raises(OtherFile) as caught:
        _send(upload, size, (CONTENT + bytes(1024))[:size])
    _assert_begins_anew(store, upload, caught.value)


def test_a_rewind_is_compared_as_far_as_the_part_goes_and_written_beyond(store: FileStore, folder: Path) -> None:
    upload = _held(store, 4096)
    upload.write(1024, [CONTENT[1024:2048]])
    assert (upload.position_bytes, upload.dirty_bytes) == (2048, 0)
    upload.write(0, [CONTENT[:5120]])
    assert (upload.position_bytes, upload.dirty_bytes) == (5120, 1024)
    _assert_stored(store, upload)


@pytest.mark.parametrize("place", [0, 1023, 2000, 3000, 4000])
def test_a_rewind_finds_out_another_file_by_any_byte_that_is_held(store: FileStore, place: int) -> None:
    upload = _held(store, 4096)
    with pytest.raises(OtherFile) as caught:
        upload.write(0, [_flipped(place)[:5120]])
    _assert_begins_anew(store, upload, caught.value)


def test_a_rewind_below_what_was_compared_is_compared_too(store: FileStore) -> None:
    """Else what an earlier connection brought would be mixed with what was only alike for a packet."""
    upload = _held(store, 4096)
    _send(upload, 6144)
    with pytest.raises(OtherFile) as caught:
        upload.write(1024, [_flipped(1500)[1024:2048]])
    _assert_begins_anew(store, upload, caught.value)


def test_what_came_in_this_connection_may_be_sent_again_and_differ(store: FileStore) -> None:
    upload = _held(store, 3072)
    _send(upload, 5120, _flipped(4000))
    upload.write(3072, [CONTENT[3072:4096]])
    _assert_stored(store, upload)


def test_bytes_that_agree_leave_the_part_as_it_was(store: FileStore, folder: Path, disk: FaultyDisk) -> None:
    """A connection that ends meanwhile costs nothing, however often that happens."""
    for _ in range(3):
        upload = _held(store, 3072) if not list(check(folder)) else store.open(PHOTO, PEER)
        disk.calls.clear()
        upload.write(2048, [CONTENT[2048:2100], CONTENT[2100:2600]])
        assert upload.position_bytes == 2600
        upload.park()
        assert not [call for call in disk.calls if call.startswith(("write", "fdatasync"))]
        assert [row.offset_bytes for row in check(folder)] == [2048]


def test_a_connection_that_begins_again_and_again_gets_on(store: FileStore) -> None:
    """Each brings the packet that is compared and one more."""
    for end in range(2048, 6145, 1024):
        upload = store.open(PHOTO, PEER)
        _send(upload, end)
        upload.park()
    upload = store.open(PHOTO, PEER)
    assert upload.offset_bytes == 5120
    _assert_stored(store, upload)


def test_without_anything_known_a_file_is_never_gone_on_with_nor_kept(store: FileStore, folder: Path) -> None:
    offered = replace(PHOTO, qualifier="")
    upload = store.open(offered, PEER)
    _send(upload, 4096)
    upload.checkpoint()
    (row,) = check(folder)
    assert (row.state, row.offset_bytes) == (State.FROM_START, 0)
    upload.abandon()
    upload = store.open(offered, PEER)
    assert upload.offset_bytes == 0
    _send(upload, 3000)
    upload.park()
    upload.park()
    assert list(check(folder)) == [] and not list((folder / "spool").glob("*.*"))


def test_what_another_reception_cost_is_not_counted_where_it_may_have_been_of_another_file(store: FileStore) -> None:
    offered = replace(PHOTO, qualifier="")
    upload = store.open(offered, PEER)
    _send(upload, 4096)
    upload.checkpoint()
    upload.abandon()
    stored = _assert_stored(store, store.open(offered, PEER))
    sidecar = (store._folder / stored.path).with_suffix(".json").read_text()
    assert '"connections": 1' in sidecar and '"bytes_received_twice": 0' in sidecar


def test_the_newest_connection_takes_over_and_compares(store: FileStore) -> None:
    old = store.open(PHOTO, PEER)
    _send(old, 3072)
    new = store.open(PHOTO, PEER)
    assert new.offset_bytes == 2048
    with pytest.raises(OtherFile):
        _send(new, 3072, _flipped(3000))
    _assert_stored(store, store.open(PHOTO, PEER))


def test_another_capture_time_is_another_part(store: FileStore) -> None:
    upload = _held(store, 3072)
    other = store.open(replace(PHOTO, qualifier="1571840452124-4"), PEER)
    assert (upload.offset_bytes, other.offset_bytes, upload.is_open) == (2048, 0, True)


def test_a_finish_that_failed_is_compared_with_the_whole_part(store: FileStore, disk: FaultyDisk) -> None:
    upload = store.open(PHOTO, PEER)
    _send(upload, 6444)
    disk.only, disk.calls, disk.fail_at = "commit", [], 1
    assert isinstance(store.finish([(upload, {})])[0], StoreError)
    heal(store)
    upload = store.open(PHOTO, PEER)
    assert upload.offset_bytes == 5120
    _assert_stored(store, upload)


def test_a_part_that_cannot_be_read_for_comparison_fails_and_is_kept(store: FileStore, disk: FaultyDisk) -> None:
    upload = _held(store, 3072)
    disk.only, disk.calls, disk.fail_at = "read ", [], 1
    with pytest.raises(StoreError, match=r"read .*Input/output error") as caught:
        _send(upload, 6444)
    assert not isinstance(caught.value, OtherFile)
    upload = store.open(PHOTO, PEER)
    assert upload.offset_bytes == 2048
    _assert_stored(store, upload)


@pytest.mark.parametrize("call", [1, 2])
def test_a_part_of_another_file_that_cannot_be_deleted_is_still_not_gone_on_with(
    store: FileStore, disk: FaultyDisk, call: int
) -> None:
    upload = _held(store, 3072)
    disk.only, disk.calls, disk.fail_at = "delete ", [], call
    with pytest.raises(OtherFile):
        _send(upload, 6444, _flipped(2048))
    heal(store)
    upload = store.open(PHOTO, PEER)
    assert upload.offset_bytes == 0
    _assert_stored(store, upload)


def test_a_part_that_someone_cut_off_meanwhile_is_no_file_to_go_on_with(store: FileStore, folder: Path) -> None:
    upload = _held(store, 3072)
    (folder / "spool" / f"{PHOTO.key}.part").write_bytes(CONTENT[:2500])
    with pytest.raises(OtherFile):
        _send(upload, 6444)
    _assert_stored(store, store.open(PHOTO, PEER))


@pytest.fixture(scope="module")
def quick_store() -> Iterator[FileStore]:
    """A store for very many files."""
    with in_memory() as folder:
        store = FileStore(folder / "data")
        store.start(MAX_AGE_S)
        yield store
        store.stop()


numbers = itertools.count()


@given(
    held=st.integers(0, 4 * 1024 + 700),
    size=st.integers(4 * 1024 + 1, 5 * 1024),
    other_at=st.none() | st.integers(0, 5 * 1024),
    rewind_packets=st.integers(0, 4),
    in_packets=st.booleans(),
    cuts=st.lists(st.integers(0, 5 * 1024), max_size=6),
    piece_bytes=st.integers(1, 2000),
)
def test_however_it_is_cut_a_resumed_file_is_told_by_all_that_overlaps_and_by_nothing_else(
    quick_store: FileStore,
    held: int,
    size: int,
    other_at: int | None,
    rewind_packets: int,
    in_packets: bool,
    cuts: list[int],
    piece_bytes: int,
) -> None:
    """Held is so much of the old file; the new one has this size and differs from the old one in one byte or none."""
    old = random.Random(5).randbytes(4 * 1024 + 700 if in_packets else size)
    new = (old + bytes(1024))[:size]
    if other_at is not None and other_at < size:
        new = new[:other_at] + bytes([new[other_at] ^ 1]) + new[other_at + 1 :]
    held = min(held, len(old))
    size_bytes = 5 * 1024 if in_packets else size
    offered = Offered(IMEI, b"%photof", size_bytes, 0, in_packets, f"{next(numbers)}")
    upload = _held(quick_store, held, offered, old)

    proven = min(held // 1024 * 1024, offered.last_packet_bytes)
    assert upload.offset_bytes == max(proven - 1024, 0)
    begin = min(rewind_packets * 1024, upload.offset_bytes)
    is_other = upload.offset_bytes > 0 and (
        new[begin:held] != old[begin:held] or (in_packets and held > offered.last_packet_bytes and held != size)
    )
    edges = sorted({begin, size, *(cut for cut in cuts if begin < cut <= offered.last_packet_bytes)})
    try:
        for start, end in itertools.pairwise(edges):
            upload.write(start, [new[at : min(at + piece_bytes, end)] for at in range(start, end, piece_bytes)])
        assert not is_other
    except OtherFile:
        assert is_other
        upload = quick_store.open(offered, PEER)
        assert upload.offset_bytes == 0
        _assert_stored(quick_store, upload, new)
    else:
        (answer,) = quick_store.finish([(upload, {})])
        assert isinstance(answer, Stored) and answer.size_bytes == size
        stored = (quick_store._folder / answer.path).read_bytes()
        assert stored == (new if upload.offset_bytes == 0 else old[:begin] + new[begin:])


_DARK = (b"\x28\xa2\x8a" * 400)[:1024]
_REPEATED = random.Random(5).randbytes(1024)


@pytest.mark.parametrize(
    ("packets", "offset"),
    [
        ([], 5),
        ([_DARK], 4),
        ([_REPEATED], 5),
        ([_REPEATED, _REPEATED], 3),
        ([_DARK, _REPEATED, _REPEATED], 2),
        ([_REPEATED, _REPEATED, _DARK], 2),
        ([_DARK] * 5, 0),
    ],
)
def test_what_is_compared_says_something(store: FileStore, packets: list[bytes], offset: int) -> None:
    """Packets of darkness, or one of many that are the same, could be of any picture: what is before them counts."""
    content = CONTENT[: 6 * 1024 - 1024 * len(packets)] + b"".join(packets) + b"the end"
    upload = _held(store, 6 * 1024, content=content)
    assert upload.offset_bytes == offset * 1024
    _assert_stored(store, upload, content)


def test_a_long_darkness_is_not_searched_to_its_beginning(store: FileStore) -> None:
    """What it costs to find something that tells is bounded; beyond that the file begins anew."""
    dark = CONTENT[:2048] + _DARK * 80
    offered = replace(PHOTO, size_bytes=100 * 1024)
    assert _held(store, len(dark), offered, dark).offset_bytes == 0
