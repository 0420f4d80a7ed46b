"""One file's arithmetic."""

import pytest
from conftest import PATH
from hypothesis import given
from hypothesis import strategies as st

from dsmgateway.commands import PACKET_BYTES
from dsmgateway.families import Unit
from dsmgateway.packets import last_packet
from dsmgateway.transfer import SyncVerdict, Transfer

SIZES = st.integers(1, 5000)


def transfer(size_bytes: int = 5000, held_bytes: int = 0, comparing: bool = False) -> Transfer:
    """A file that the store has opened."""
    begun = Transfer(PATH, size_bytes, 0)
    begun.opened(held_bytes, comparing)
    return begun


def in_packets(packets: int = 5, held_bytes: int = 0) -> Transfer:
    """A file whose packets are counted."""
    begun = Transfer(b"%photof", packets, 0, Unit.PACKETS)
    begun.opened(held_bytes, False)
    return begun


@pytest.mark.parametrize(
    ("size_bytes", "last_packet_bytes"),
    [(1, 0), (1023, 0), (1024, 0), (1025, 1024), (2048, 1024), (2049, 2048), (0, 0)],
)
def test_last_packet(size_bytes: int, last_packet_bytes: int) -> None:
    """The last packet begins at the last boundary that has data after it."""
    assert last_packet(size_bytes) == last_packet_bytes


@pytest.mark.parametrize(
    ("held_bytes", "resume_bytes"), [(0, 0), (1023, 0), (1024, 1024), (2047, 1024), (4096, 4096), (5000, 4096)]
)
def test_resume_is_a_packet_boundary_that_is_held(held_bytes: int, resume_bytes: int) -> None:
    """The device is asked to go on at the last boundary held, and for the last packet where everything is held."""
    assert transfer(held_bytes=held_bytes).resume_bytes == resume_bytes


@given(SIZES, st.integers(0, 5000))
def test_resume_never_makes_a_hole(size_bytes: int, held_bytes: int) -> None:
    """Wherever a file stands, RESUME asks for something that is in the file and not beyond what is held."""
    begun = transfer(size_bytes, min(held_bytes, size_bytes))
    assert begun.resume_bytes % PACKET_BYTES == 0
    assert begun.resume_bytes <= begun.held_bytes
    assert begun.resume_bytes < size_bytes


@given(SIZES, st.integers(0, 5000), st.integers(0, 0xFFFFFFFF) | st.integers(0, 5000))
def test_sync_never_makes_a_hole(size_bytes: int, held_bytes: int, offset_bytes: int) -> None:
    """A SYNC is followed exactly when it is in the file and not beyond what is held; else nothing changes."""
    begun = transfer(size_bytes, min(held_bytes, size_bytes))
    begun.synced = True
    held_before = begun.held_bytes
    if begun.sync(offset_bytes) is SyncVerdict.GO_ON:
        assert begun.held_bytes == offset_bytes <= held_before
        assert offset_bytes < size_bytes
    else:
        assert begun.held_bytes == held_before
        assert offset_bytes > held_before or offset_bytes >= size_bytes


@pytest.mark.parametrize("offset_bytes", [0, 1, 1024, 2000])
def test_sync_lower_rewinds(offset_bytes: int) -> None:
    """A SYNC below what is held is the device's word: data is overwritten from there."""
    begun = transfer(held_bytes=2048)
    assert begun.sync(offset_bytes) is SyncVerdict.GO_ON
    assert (begun.held_bytes, begun.remaining_bytes) == (offset_bytes, 5000 - offset_bytes)


def test_sync_at_the_end_of_the_file_is_a_hole() -> None:
    """A SYNC where no data can follow is not followed, though all before it is held."""
    assert transfer(2048, 2048).sync(2048) is SyncVerdict.HOLE


def test_from_start_asks_for_everything_until_a_sync_fits() -> None:
    """After a device went beyond what is held twice, the file is asked for from 0; a SYNC that fits ends that."""
    begun = transfer(held_bytes=2048)
    begun.from_start = True
    assert begun.resume_bytes == 0
    assert begun.sync(3072) is SyncVerdict.HOLE
    assert begun.resume_bytes == 0
    assert begun.sync(1024) is SyncVerdict.GO_ON
    assert begun.resume_bytes == 1024


def test_opened_anew_is_asked_for_where_it_stands() -> None:
    """The store's word counts, whatever was asked before."""
    begun = transfer(held_bytes=2048)
    begun.from_start = True
    begun.opened(1024, False)
    assert begun.resume_bytes == 1024


def test_comparison_takes_what_was_asked_for_only() -> None:
    """Only the end is compared; a device that begins elsewhere is not, not even lower."""
    begun = transfer(held_bytes=4096, comparing=True)
    assert begun.sync(0) is SyncVerdict.NOT_COMPARED
    assert begun.sync(3072) is SyncVerdict.NOT_COMPARED
    assert begun.sync(4999) is SyncVerdict.NOT_COMPARED
    assert begun.sync(4096) is SyncVerdict.GO_ON


def test_comparison_of_two_packets_goes_on_within_them() -> None:
    """Where the second one came damaged it is asked for again; the first one has been compared."""
    begun = transfer(5000, held_bytes=3072, comparing=True)
    assert begun.sync(4096) is SyncVerdict.NOT_COMPARED
    assert begun.sync(3072) is SyncVerdict.GO_ON
    begun.take(1024)
    assert begun.resume_bytes == 4096
    assert begun.sync(2048) is SyncVerdict.NOT_COMPARED
    assert begun.sync(4096) is SyncVerdict.GO_ON
    assert begun.sync(3072) is SyncVerdict.GO_ON, "a rewind"


@pytest.mark.parametrize(
    ("length_bytes", "offset_bytes", "fits"),
    [
        (904, None, True),
        (905, None, False),
        (904, 4096, True),
        (904, 4095, False),
        (904, 0, False),
        (905, 4096, False),
    ],
)
def test_data_fits(length_bytes: int, offset_bytes: int | None, fits: bool) -> None:
    """Data is taken when it is within the size and, where it says its place, in its place."""
    assert transfer(held_bytes=4096).fits(length_bytes, 1, offset_bytes) is fits


def test_whole_with_the_last_byte() -> None:
    """A file is whole when all bytes are held, not earlier."""
    begun = transfer(held_bytes=4096)
    begun.take(903)
    assert not begun.whole and begun.remaining_bytes == 1
    begun.take(1)
    assert begun.whole and begun.remaining_bytes == 0


@pytest.mark.parametrize(
    ("held_bytes", "resume_offset"), [(0, 0), (1, 0), (1024, 2), (2047, 2), (4096, 5), (4097, 5), (5120, 5)]
)
def test_resume_in_packets(held_bytes: int, resume_offset: int) -> None:
    """RESUME names the packet that is missing, from 1; 0 stands for the start as it does in bytes."""
    assert in_packets(held_bytes=held_bytes).resume_offset == resume_offset


@pytest.mark.parametrize("held_bytes", [0, 1024, 4096])
def test_resume_in_bytes(held_bytes: int) -> None:
    """In bytes RESUME says what is held."""
    assert transfer(held_bytes=held_bytes).resume_offset == held_bytes


@given(st.integers(1, 10_000), st.integers(0, 10_000 * 1024))
def test_an_answer_in_kind_goes_on_where_it_was_asked(packets: int, held_bytes: int) -> None:
    """A SYNC that says what RESUME said, or 1 for 0, begins at the packet boundary that is held."""
    begun = in_packets(packets, min(held_bytes, packets * 1024))
    wanted = begun.resume_bytes
    assert begun.sync(max(1, begun.resume_offset)) is SyncVerdict.GO_ON
    assert begun.held_bytes == wanted


@pytest.mark.parametrize(
    ("held_bytes", "whole"), [(0, False), (4095, False), (4096, False), (4097, True), (5119, True), (5120, True)]
)
def test_whole_with_any_last_packet(held_bytes: int, whole: bool) -> None:
    """Counted in packets, a file is whole when something of its last packet is held."""
    assert in_packets(held_bytes=held_bytes).whole is whole


@pytest.mark.parametrize(
    ("held_bytes", "length_bytes", "frames", "fits"),
    [
        (0, 1024, 1, True),
        (0, 1023, 1, False),
        (0, 4 * 1024 + 1, 5, True),
        (0, 3 * 1024 + 1, 4, False),
        (4096, 1, 1, True),
        (4096, 1024, 1, True),
        (4096, 1025, 2, False),
    ],
)
def test_data_fits_in_packets(held_bytes: int, length_bytes: int, frames: int, fits: bool) -> None:
    """Only the last packet of the file can be short."""
    assert in_packets(held_bytes=held_bytes).fits(length_bytes, frames, None) is fits


def test_first_sync_of_1_shows_packets() -> None:
    """What was asked for at byte 0 cannot begin at 1; from then on START's size counts packets as well."""
    begun = transfer(5)
    assert begun.sync(1) is SyncVerdict.IN_PACKETS
    begun.count_packets()
    assert (begun.size, begun.size_bytes) == (5, 5120)
    assert begun.sync(1) is SyncVerdict.GO_ON
    assert begun.remaining_bytes == 5120


def test_sync_of_1_is_a_byte_where_bytes_are_sure() -> None:
    """After a SYNC at byte 0, or a RESUME elsewhere, 1 is no sign of packets."""
    begun = transfer(5000)
    assert begun.sync(0) is SyncVerdict.GO_ON
    begun.take(1024)
    assert begun.sync(1) is SyncVerdict.GO_ON
    assert begun.held_bytes == 1
    assert transfer(5000, 1024).sync(1) is SyncVerdict.GO_ON


@pytest.mark.parametrize(("held_bytes", "follows"), [(0, True), (1024, False)])
def test_data_follows_the_sync_that_showed_packets(held_bytes: int, follows: bool) -> None:
    """That SYNC named the start; where the store holds nothing, its data is taken, and else asked for from there."""
    begun = transfer(5)
    begun.sync(1)
    begun.count_packets()
    assert begun.opened(held_bytes, False) is follows
    assert begun.opened(0, False) is False, "only once"
