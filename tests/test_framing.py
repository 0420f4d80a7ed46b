"""Bytes to commands: the step, how it is lost and how it is found again."""

import itertools
import re

import pytest
from conftest import (
    IDLE,
    IMEI,
    METADATA,
    OTHER_IMEI,
    PATH,
    bytewise,
    content,
    cut,
    data_frames,
    decode,
    drained,
    enhanced_frames,
    in_data,
    init,
    merged,
)

from dsmgateway import commands as c
from dsmgateway.crc import crc16
from dsmgateway.errors import CommandError, FramingError
from dsmgateway.frames import DataRun
from dsmgateway.framing import (
    MAX_CANDIDATES,
    MAX_DATA_FRAME_BYTES,
    Damaged,
    DeviceDecoder,
    DeviceEvent,
    GatewayDecoder,
    StepFound,
)

FROM_DEVICE: list[c.DeviceCommand] = [
    init(),
    c.Path(PATH),
    c.Path(b""),
    c.MetadataResponse(METADATA),
    c.MetadataResponse(b""),
    c.MetadataResponse(bytes(4096)),
    c.Start(37299, 0xD1DE),
    c.Status(1),
    c.Data(b"a", 0),
    c.Data(bytes(1024), 0),
    c.EnhancedData(0, b"a", 0),
    c.EnhancedData(1024, bytes(1024), 0),
    init(IDLE),
    c.Sync(0),
]
FROM_GATEWAY: list[c.GatewayCommand] = [
    c.PathRequest(),
    c.RepeatInit(),
    c.MetadataRequest(),
    c.FileRequest(PATH),
    c.Resume(0),
    c.RepeatInit(),
    c.RepeatInit(),
    c.Status(0),
    c.MetadataRequest(b"1234567"),
    c.FileRequest(b""),
    c.Close(),
]
#: A file of three full packets and a short one, and its frames.
FILE = content(3 * 1024 + 300)
FRAMES = data_frames(FILE)


def events_after_sync(*pieces: bytes, size_bytes: int = len(FILE)) -> list[DeviceEvent]:
    """What follows SYNC 0, runs joined."""
    decoder, events = in_data(size_bytes), []
    for piece in pieces:
        decoder.feed(piece)
        events += drained(decoder)
    return merged(events)


# -- commands


def test_commands_come_out_as_they_went_in() -> None:
    """Every command of a device is decoded from one flow of bytes."""
    stream = b"".join(command.encode() for command in FROM_DEVICE)
    assert decode([stream]) == FROM_DEVICE
    assert decode(bytewise(stream)) == FROM_DEVICE


@pytest.mark.parametrize("command", FROM_DEVICE, ids=lambda command: type(command).__name__)
def test_every_split_in_two(command: c.DeviceCommand) -> None:
    """A command may be cut anywhere, in its header too."""
    wire = command.encode()
    for place in range(1, len(wire)):
        assert decode([init().encode() + wire[:place], wire[place:]]) == [init(), command]


@pytest.mark.parametrize(
    "greeting",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"\x03\x00\x00\x13\x0e\xe0",
        c.Path(PATH).encode(),
        c.Sync(0).encode(),
        b"\0\4\4\2",
    ],
)
def test_only_a_device_begins_with_init(greeting: bytes) -> None:
    """Scanners, and commands before INIT, are refused at their fourth byte."""
    decoder = DeviceDecoder()
    decoder.feed(greeting[:3])
    assert decoder.next_event() is None
    decoder.feed(greeting[3:])
    with pytest.raises(FramingError, match=f"expected INIT, not bytes that begin with {greeting[:4].hex()}"):
        decoder.next_event()


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"GET / HTTP/1.1", "47455420 (HTTP)"),
        (b"\x16\x03\x01\x02\x00", "16030102 (TLS)"),
        (b"\x03\x00\x00\x2b\x26\xe0", "0300002b (RDP)"),
        (b"SSH-2.0-x", "5353482d (SSH)"),
        (b"\x00\x09\x00\x09", "00090009 (REPEAT_INIT)"),
        (b"GOT ", "474f5420"),
    ],
)
def test_what_usually_comes_to_open_ports_is_called_by_its_name(greeting: bytes, said: str) -> None:
    decoder = DeviceDecoder()
    decoder.feed(greeting)
    with pytest.raises(FramingError, match=f"^{re.escape(f'expected INIT, not bytes that begin with {said}')}$"):
        decoder.next_event()


@pytest.mark.parametrize("imei", [0, 10**15, (1 << 64) - 1])
def test_init_needs_an_imei(imei: int) -> None:
    """An IMEI has at most 15 digits and is not 0."""
    decoder = DeviceDecoder()
    decoder.feed(b"\0\0\0\5" + imei.to_bytes(8, "big") + bytes(4))
    with pytest.raises(CommandError, match="INIT IMEI"):
        decoder.next_event()


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("0002 0004", "no command has the id 0x0002"),
        ("ffff 0000", "no command has the id 0xffff"),
        ("0001 0005", "START must have a length of 6 to 6, not 5"),
        ("0001 0007", "START must have a length of 6 to 6, not 7"),
        ("0003 0000", "SYNC must have a length of 4 to 4, not 0"),
        ("0004 0002", "DATA must have a length of 3 to 1026, not 2"),
        ("0004 0403", "DATA must have a length of 3 to 1026, not 1027"),
        ("000e 0006", "ENHANCED_DATA must have a length of 7 to 1030, not 6"),
        ("000e 0407", "ENHANCED_DATA must have a length of 7 to 1030, not 1031"),
        ("000d 0201", "PATH must have a length of 0 to 512, not 513"),
        ("000b 1001", "METADATA must have a length of 0 to 4096, not 4097"),
        ("0005 0003", "STATUS must have a length of 4 to 4, not 3"),
    ],
)
def test_what_is_no_command_is_refused_at_its_header(header: str, complaint: str) -> None:
    """Outside of file data a wrong id or length ends it at once, again and again, whatever may follow."""
    decoder = DeviceDecoder()
    decoder.feed(init().encode() + bytes.fromhex(header))
    assert decoder.next_event() == init()
    for _ in range(2):
        with pytest.raises(FramingError, match=complaint):
            decoder.next_event()


def test_another_device_is_the_sessions_business() -> None:
    """Outside of file data an INIT with another IMEI is a good command; whether it is legal is not told here."""
    other = init(imei=OTHER_IMEI)
    assert decode([init().encode() + other.encode()]) == [init(), other]


# -- file data


def test_good_frames_come_as_one_run() -> None:
    """Frames at hand whose chained CRC is right are one event; what is not whole waits."""
    decoder = in_data()
    decoder.feed(b"".join(FRAMES)[:-1])
    assert list(drained(decoder)) == [DataRun(FILE[:3072], 3)]
    assert decoder.buffered_bytes == len(FRAMES[-1]) - 1
    decoder.feed(FRAMES[-1][-1:])
    assert list(drained(decoder)) == [DataRun(FILE[3072:], 1)]
    assert decoder.buffered_bytes == 0


def test_run_may_be_limited() -> None:
    """The number of frames in one run can have a limit."""
    decoder = DeviceDecoder(run_frames=2)
    decoder.feed(init().encode() + c.Sync(0).encode() + b"".join(FRAMES))
    assert [event.frames for event in drained(decoder) if isinstance(event, DataRun)] == [2, 2]


def test_crc_begins_anew_with_every_sync() -> None:
    """After SYNC, in mid-file too, the chain begins at 0."""
    later = data_frames(FILE, 1024)
    found = events_after_sync(FRAMES[0], c.Sync(1024).encode(), *later)
    assert found == [DataRun(FILE[:1024], 1), c.Sync(1024), DataRun(FILE[1024:], 3)]


def test_run_ends_with_the_file() -> None:
    """No run goes beyond the frame that makes the file whole: what follows is for the session to judge."""
    decoder = in_data()
    decoder.expect_data(2048)
    decoder.feed(b"".join(FRAMES))
    assert list(drained(decoder)) == [DataRun(FILE[:2048], 2), DataRun(FILE[2048:], 2)]


def test_frame_that_straddles_the_end_comes_alone() -> None:
    """Good frames before one that is too long for the file are not refused together with it."""
    decoder = in_data()
    decoder.expect_data(1500)
    decoder.feed(b"".join(FRAMES[:2]))
    assert list(drained(decoder)) == [DataRun(FILE[:1024], 1), DataRun(FILE[1024:2048], 1)]


def test_enhanced_data_says_its_place() -> None:
    """Protocol 6's DATA is chained alike and names its offset: a run has that of its first frame."""
    assert events_after_sync(*enhanced_frames(FILE)) == [DataRun(FILE, 4, 0)]


def test_enhanced_data_at_another_place_begins_a_run() -> None:
    """A frame that names another offset than it would have is for the session to judge, and so comes first in a run."""
    frames = enhanced_frames(FILE)
    crc = c.Data.parse(FRAMES[1][4:]).crc
    frames[1] = c.EnhancedData(5000, FILE[1024:2048], crc).encode()
    found = in_pieces(b"".join(frames))
    assert found == [DataRun(FILE[:1024], 1, 0), DataRun(FILE[1024:2048], 1, 5000), DataRun(FILE[2048:], 2, 2048)]


@pytest.mark.parametrize("plain", list(itertools.product([False, True], repeat=4)))
def test_plain_and_enhanced_data_in_one_file(plain: tuple[bool, ...]) -> None:
    """Both kinds chain with one another; a run says its place if its first frame does."""
    found = in_pieces(b"".join(enhanced_frames(FILE, plain=plain.__getitem__)))
    assert b"".join(run.data for run in found) == FILE
    assert sum(run.frames for run in found) == 4
    place = 0
    for run in found:
        assert run.offset_bytes in (None, place)
        assert (run.offset_bytes is None) == plain[place // 1024]
        place += len(run.data)
    assert [run.offset_bytes is None for run in found] in ([True], [False], [True, False])


def in_pieces(frames: bytes) -> list[DataRun]:
    """All runs of these frames after a SYNC, as they come when everything is there."""
    decoder = in_data()
    decoder.feed(frames)
    return [event for event in drained(decoder) if isinstance(event, DataRun)]


def test_enhanced_data_counts_for_the_end_of_the_file() -> None:
    """A run with it ends where the file does."""
    decoder = in_data()
    decoder.expect_data(2048)
    crc = c.Data.parse(FRAMES[0][4:]).crc
    decoder.feed(c.EnhancedData(0, FILE[:1024], crc).encode() + b"".join(FRAMES[1:]))
    assert [event.frames for event in drained(decoder)] == [2, 2]


@pytest.mark.parametrize("lengths", [(1024, 300, 1024), (300, 1024, 1024), (1024, 1024, 300), (1, 1, 1)])
def test_short_packets_end_a_run_where_packets_are_counted(lengths: tuple[int, ...]) -> None:
    """Where START counts packets, a short one can only be the last: each is for the session to judge."""
    decoder = in_data()
    decoder.expect_data(3 * 1024, whole_packets=True)
    crc, begin = 0, 0
    for length in lengths:
        packet = FILE[begin : begin + length]
        crc, begin = crc16(packet, crc), begin + length
        decoder.feed(c.Data(packet, crc).encode())
    runs = [run for run in drained(decoder) if isinstance(run, DataRun)]
    assert all(1024 * (run.frames - 1) < len(run.data) <= 1024 * run.frames for run in runs)
    assert b"".join(run.data for run in runs) == FILE[:begin]


@pytest.mark.parametrize("kept", [1, 3, 4, 7, 8, 9, 500, 1030, 1033])
def test_cut_enhanced_frame_is_passed_over(kept: int) -> None:
    """A frame of protocol 6 that is cut and sent again whole costs no RESUME either."""
    frames = enhanced_frames(FILE)
    found = events_after_sync(frames[0], frames[1][:kept], *frames[1:])
    assert found == [DataRun(FILE[:1024], 1, 0), StepFound(kept), DataRun(FILE[1024:], 3, 1024)]


def test_enhanced_data_with_a_wrong_crc_is_damage() -> None:
    """Its CRC is held to as DATA's is."""
    wrong = c.EnhancedData(0, b"abc", 1).encode()
    assert events_after_sync(wrong + FRAMES[1]) == [Damaged("ENHANCED_DATA with a wrong CRC")]


# -- the step lost and found


def hostile_file() -> bytes:
    """Content that looks like the protocol: zeros, and headers of all that may follow damage, none of them right."""
    marks = bytes.fromhex("00000000 00030005 00010006 00050005 00040402 00040003 000e0407 0000000500")
    return (bytes(700) + marks * 9 + content(150) + bytes(64)) * 5


@pytest.mark.parametrize(
    ("file", "at_once"),
    [(FILE, True), (FILE, False), (bytes(len(FILE)), False), (hostile_file()[: len(FILE)], True)],
    ids=["at_once", "frame_by_frame", "zeros", "look_alikes"],
)
def test_frame_cut_anywhere_then_whole(file: bytes, at_once: bool) -> None:
    """A frame that is cut after any of its bytes and then comes whole costs its cut piece and nothing else."""
    frames = data_frames(file)
    for place in range(1, len(frames[1])):
        pieces = [frames[0], frames[1][:place], frames[1], *frames[2:]]
        found = events_after_sync(*([b"".join(pieces)] if at_once else pieces), size_bytes=len(file))
        assert b"".join(event.data for event in found if isinstance(event, DataRun)) == file, place
        assert [type(event) for event in found] == [DataRun, StepFound, DataRun], place
        if place != 1029 or file[0]:  # where the last CRC byte is 0, the next frame's head makes the cut one whole
            assert found[1] == StepFound(place)


@pytest.mark.parametrize("last_bytes", [1, 2, 3, 8, 9, 10, 11, 253, 254, 255, 300, 1022, 1023, 1024])
def test_last_frame_cut_anywhere_then_whole(last_bytes: int) -> None:
    """The last frame, however short, is found again though nothing follows it."""
    file = content(1024 + last_bytes, seed=last_bytes)
    frames = data_frames(file)
    for place in range(1, len(frames[1])):
        found = events_after_sync(frames[0], frames[1][:place], frames[1], size_bytes=len(file))
        assert found == [DataRun(file[:1024], 1), StepFound(place), DataRun(file[1024:], 1)], place


def test_first_frame_cut_anywhere_then_whole() -> None:
    """A cut right after SYNC is found too, byte by byte."""
    for place in [*range(1, 12), *range(12, 1030, 97)]:
        found = events_after_sync(*bytewise(FRAMES[0][:place] + FRAMES[0] + FRAMES[1]))
        assert found == [StepFound(place), DataRun(FILE[:2048], 2)], place


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 3), (4, 4), (580, 42), (42, 580), (1000, 29), (4, 1025)])
def test_two_cuts_in_a_row_within_one_frame(first: int, second: int) -> None:
    """The same frame cut twice is found when both pieces together are shorter than the frame."""
    found = events_after_sync(FRAMES[0], FRAMES[1][:first], FRAMES[1][:second], *FRAMES[1:])
    assert found == [DataRun(FILE[:1024], 1), StepFound(first + second), DataRun(FILE[1024:], 3)]


@pytest.mark.parametrize(("first", "second"), [(580, 580), (1029, 1), (1029, 1029), (3, 1026)])
def test_two_cuts_longer_than_the_frame_are_damage(first: int, second: int) -> None:
    """Beyond one frame nothing is searched: a RESUME is cheaper than a guess, and nothing wrong is taken."""
    found = events_after_sync(FRAMES[0], FRAMES[1][:first], FRAMES[1][:second], *FRAMES[1:], c.Sync(1024).encode())
    assert found == [DataRun(FILE[:1024], 1), Damaged("DATA with a wrong CRC"), c.Sync(1024)]


FOLLOWERS: list[c.DeviceCommand] = [c.Sync(1024), c.Start(len(FILE), 0), c.Status(17), init(), init(IDLE)]


@pytest.mark.parametrize("follower", FOLLOWERS, ids=lambda command: type(command).__name__)
@pytest.mark.parametrize("place", [4, 5, 42, 580, 1010, 1029])
def test_cut_frame_then_another_command(follower: c.DeviceCommand, place: int) -> None:
    """SYNC, START, STATUS and the device's own INIT are found in a cut frame as soon as its length is there."""
    wire = follower.encode()
    decoder = in_data(len(FILE))
    decoder.feed(FRAMES[0][:place] + wire + bytes(range(1, 256)) * 5)
    assert decoder.next_event() == StepFound(place)
    assert decoder.next_event() == follower


@pytest.mark.parametrize("follower", FOLLOWERS, ids=lambda command: type(command).__name__)
def test_cut_frame_then_another_command_and_silence(follower: c.DeviceCommand) -> None:
    """A command that waits inside a cut frame is found when the next RESUME is sent."""
    for place in (1, 2, 3, 4, 580, 1010):
        decoder = in_data(len(FILE))
        decoder.feed(FRAMES[0][:place] + follower.encode())
        waiting = list(drained(decoder))
        assert waiting in ([], [StepFound(place), follower])
        if not waiting:
            decoder.drop_until_sync()
            assert list(drained(decoder)) == [follower]
        assert decoder.buffered_bytes == 0


@pytest.mark.parametrize(
    "stranger",
    [
        init(imei=OTHER_IMEI).encode(),
        c.Status(27).encode(),
        c.Sync(len(FILE) + 1).encode(),
        c.Start(len(FILE) + 1, 0).encode(),
        bytes.fromhex("0001 0004 00000cac 0000"),
        bytes.fromhex("0003 0006 00000400 0000"),
        c.Path(PATH).encode(),
        c.MetadataResponse(METADATA).encode(),
        c.Data(b"abc", 0).encode(),
    ],
)
def test_look_alikes_are_passed_over(stranger: bytes) -> None:
    """Inside damage only a command that is right in its place counts."""
    damaged = FRAMES[0][:500] + stranger + bytes(range(1, 256)) * 3
    assert events_after_sync(damaged) == [Damaged("DATA with a wrong CRC")]
    assert events_after_sync(*bytewise(damaged)) == [Damaged("DATA with a wrong CRC")]


@pytest.mark.parametrize("bit", range(32))
def test_flipped_header_bit(bit: int) -> None:
    """Whatever bit of a DATA header is flipped, nothing is taken until the next SYNC, and that is found."""
    broken = bytearray(FRAMES[1])
    broken[bit // 8] ^= 0x80 >> bit % 8
    found = events_after_sync(FRAMES[0], bytes(broken), *FRAMES[2:], c.Sync(1024).encode(), *data_frames(FILE, 1024))
    assert found[0] == DataRun(FILE[:1024], 1)
    assert isinstance(found[1], Damaged)
    assert found[2:] == [c.Sync(1024), DataRun(FILE[1024:], 3)]


@pytest.mark.parametrize("place", [4, 5, 500, 1027, 1028, 1029])
def test_flipped_bit_in_data_or_crc(place: int) -> None:
    """One wrong bit in data or CRC drops that frame and those in flight."""
    broken = bytearray(FRAMES[1])
    broken[place] ^= 1
    found = events_after_sync(FRAMES[0], bytes(broken), *FRAMES[2:], c.Sync(1024).encode())
    assert found == [DataRun(FILE[:1024], 1), Damaged("DATA with a wrong CRC"), c.Sync(1024)]


def test_search_has_a_limit() -> None:
    """After 16 frames that looked right and were not, the search ends, so that its work stays bounded."""
    look_alike = bytes.fromhex("00040003616161")
    for number, outcome in ((MAX_CANDIDATES - 1, StepFound), (MAX_CANDIDATES, Damaged)):
        broken = FRAMES[0][:4] + look_alike * number
        found = events_after_sync(broken + FRAMES[0])
        assert isinstance(found[0], outcome)


@pytest.mark.parametrize("garbage", ["ffff ffff", "0002 0004", "0004 ffff", "0001 0005", "0000 0005 ffff"])
def test_garbage_between_frames(garbage: str) -> None:
    """Bytes that begin no command are searched like a damaged frame and passed over."""
    found = events_after_sync(FRAMES[0], bytes.fromhex(garbage), *FRAMES[1:])
    assert found == [DataRun(FILE[:1024], 1), StepFound(len(bytes.fromhex(garbage))), DataRun(FILE[1024:], 3)]


def test_garbage_without_end_is_damage() -> None:
    """Where one frame's length holds nothing good, the rest is dropped."""
    decoder = in_data()
    decoder.feed(b"\xff" * (MAX_DATA_FRAME_BYTES - 1))
    assert decoder.next_event() is None
    decoder.feed(b"\xff")
    assert decoder.next_event() == Damaged("no command has the id 0xffff")


# -- dropping


def test_data_in_flight_is_dropped_until_sync() -> None:
    """After RESUME file data is thrown away, good or not, up to SYNC."""
    decoder = in_data(len(FILE))
    decoder.drop_until_sync()
    decoder.feed(b"".join(FRAMES) + FRAMES[0][:77])
    assert decoder.next_event() is None
    assert decoder.buffered_bytes == 77
    decoder.feed(c.Sync(1024).encode() + b"".join(data_frames(FILE, 1024)))
    assert list(drained(decoder)) == [c.Sync(1024), DataRun(FILE[1024:], 3)]


@pytest.mark.parametrize("follower", FOLLOWERS, ids=lambda command: type(command).__name__)
def test_dropping_ends_at_a_mark_however_it_is_cut(follower: c.DeviceCommand) -> None:
    """What may follow data in flight is found at every split, zeros before it notwithstanding."""
    for before in (b"", b"\0", bytes(5), bytes(16), FRAMES[0][:-3], b"\0\3\0\4\0\1\0\6\0\5\0\4\0\0\1"):
        wire = before + follower.encode()
        for place in range(max(1, len(before) - 20), len(wire)):
            decoder, found = in_data(len(FILE)), []
            decoder.drop_until_sync()
            for piece in cut(wire, [place]):
                decoder.feed(piece)
                found += drained(decoder)
            assert found == [follower], (before[-8:], place)


#: DATA, then ENHANCED_DATA, which says its place: two runs.
MIXED = b"".join(enhanced_frames(FILE, plain=lambda number: number == 0)[:2])


@pytest.mark.parametrize(
    "between",
    [b"", FRAMES[0], FRAMES[0] + FRAMES[1], MIXED, FRAMES[0] + FRAMES[1][:500], b"\xff" * 30, c.Path(PATH).encode()],
    ids=["nothing", "a_frame", "two_frames", "two_kinds", "a_cut_frame", "garbage", "another_command"],
)
@pytest.mark.parametrize("cut_up", [False, True])
def test_start_of_another_size_is_heard_while_dropping(between: bytes, cut_up: bool) -> None:
    """A device that describes another file after RESUME is heard as long as whole good frames lie between.

    After that only START of the size that is known is believed: anything can look like one in broken data.
    """
    decoder, found = in_data(len(FILE)), []
    decoder.drop_until_sync()
    wire = between + c.Start(7, 1).encode() + c.Sync(2).encode()
    for piece in bytewise(wire) if cut_up else [wire]:
        decoder.feed(piece)
        found += [event for event in drained(decoder) if not isinstance(event, c.Path)]
    in_step = between in (b"", FRAMES[0], FRAMES[0] + FRAMES[1], MIXED, c.Path(PATH).encode())
    assert found == ([c.Start(7, 1), c.Sync(2)] if in_step else [c.Sync(2)])


def test_start_and_status_do_not_end_dropping() -> None:
    """Data goes on being dropped after a repeated START, until SYNC."""
    decoder = in_data(len(FILE))
    decoder.drop_until_sync()
    start = c.Start(len(FILE), 7)
    decoder.feed(start.encode() + FRAMES[0] + c.Sync(0).encode() + FRAMES[0])
    assert list(drained(decoder)) == [start, c.Sync(0), DataRun(FILE[:1024], 1)]


def test_resume_in_mid_search_gives_the_search_up() -> None:
    """A RESUME for silence while the decoder waits for the rest of a damaged frame ends the search."""
    decoder = in_data(len(FILE))
    decoder.feed(b"\xff" * 100)
    assert decoder.next_event() is None
    decoder.drop_until_sync()
    decoder.feed(c.Sync(0).encode() + FRAMES[0])
    assert list(drained(decoder)) == [c.Sync(0), DataRun(FILE[:1024], 1)]


def test_after_init_nothing_is_searched() -> None:
    """A device that begins again is held to whole commands again."""
    decoder = in_data()
    decoder.feed(init().encode() + b"\xff\xff\xff\xff")
    assert decoder.next_event() == init()
    with pytest.raises(FramingError, match="no command has the id 0xffff"):
        decoder.next_event()


def test_init_ends_dropping() -> None:
    """A device that begins again while data is dropped is held to whole commands too."""
    decoder = in_data()
    decoder.drop_until_sync()
    decoder.feed(FRAMES[0] + init().encode() + c.Path(PATH).encode())
    assert list(drained(decoder)) == [init(), c.Path(PATH)]


# -- the gateway's direction


def test_gateway_commands_come_out_as_they_went_in() -> None:
    """A device reads what the gateway sends; REPEAT_INIT has no length, and may come several times."""
    stream = b"".join(command.encode() for command in FROM_GATEWAY)
    for pieces in ([stream], bytewise(stream), *(cut(stream, [place]) for place in range(1, len(stream)))):
        decoder, commands = GatewayDecoder(), []
        for piece in pieces:
            decoder.feed(piece)
            commands += iter(decoder.next_command, None)
        assert commands == FROM_GATEWAY
        assert decoder.buffered_bytes == 0


@pytest.mark.parametrize(
    ("wire", "complaint"),
    [
        ("0001 0006 00000000 0000", "no command of the gateway has the id 0x0001"),
        ("0000 0005 00000000", "CLOSE must have a length of 0 to 0, not 5"),
        ("0002 0005", "RESUME must have a length of 4 to 4, not 5"),
        ("000c 0000", "PATH_REQUEST must have a length of 2 to 2, not 0"),
        ("0008 0201", "FILE_REQUEST must have a length of 0 to 512, not 513"),
    ],
)
def test_gateway_errors(wire: str, complaint: str) -> None:
    """What no gateway sends is an error that names it."""
    decoder = GatewayDecoder()
    decoder.feed(bytes.fromhex(wire))
    with pytest.raises(FramingError, match=complaint):
        decoder.next_command()


def test_imei_of_the_tests_is_a_real_one() -> None:
    """The IMEI in use here has the Luhn check digit of a real one, so that no test depends on a wrong one."""
    digits = [int(digit) for digit in str(IMEI)]
    doubled = [digit if place % 2 == 0 else digit * 2 for place, digit in enumerate(digits)]
    assert sum(sum(divmod(digit, 10)) for digit in doubled) % 10 == 0


def test_what_is_not_yet_an_event_can_be_had() -> None:
    """All of it, to be decoded elsewhere."""
    decoder = DeviceDecoder()
    decoder.feed(init().encode() + b"\x00\x0d\x00")
    decoder.next_event()
    assert (decoder.buffered, decoder.buffered_bytes) == (b"\x00\x0d\x00", 3)
