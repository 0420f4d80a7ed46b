"""What holds for a decoder whatever the bytes are: cuts do not matter, the buffer is bounded, the work is linear."""

import sys
from collections.abc import Callable, Iterable
from types import FrameType

import pytest
from conftest import (
    IDLE,
    METADATA,
    OTHER_IMEI,
    PATH,
    Conversation,
    bytewise,
    content,
    conversation,
    cut,
    data_frames,
    drained,
    enhanced_frames,
    in_data,
    init,
    merged,
    opening,
)
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dsmgateway import commands as c
from dsmgateway import frames, framing
from dsmgateway.crc import crc16
from dsmgateway.errors import PeerError
from dsmgateway.frames import DataRun
from dsmgateway.framing import MAX_CANDIDATES, DeviceDecoder, DeviceEvent, GatewayDecoder, StepFound

#: A search looks through one frame's length, and the last candidate in it is one byte short of a whole ENHANCED_DATA.
MOST_IN_SEARCH = 1033 + 1034 - 1
#: A METADATA that is one byte short of its end, the longest command of all.
MOST_BUFFERED = c.HEADER_BYTES + c.MAX_METADATA_BYTES - 1

FILES = [content(2 * 1024 + 77), bytes(2 * 1024 + 5), content(300) + bytes(900) + b"\0\4\4\2" * 40, content(3)]
MIXED = [enhanced_frames(file, plain=lambda number: number % 3 == 1) for file in FILES]
WHOLE = [conversation(file) for file in FILES] + [
    b"".join([*opening(file), *frames, init(IDLE).encode()]) for file, frames in zip(FILES, MIXED, strict=True)
]
TOKENS = [
    b"\0",
    b"\0\0\0",
    b"\xff",
    b"\0\4\4\2",
    b"\0\4\0\3",
    b"\0\4\0\4",
    b"\0\3\0\4",
    b"\0\1\0\6",
    b"\0\5\0\4\0\0\0",
    b"\0\x0b\x10",
    b"\0\x0e\4\6",
    *[piece for file in FILES for piece in data_frames(file)[:2]],
    *[piece for frames in MIXED for piece in frames[:2]],
    *opening(FILES[0]),
    c.Sync(1024).encode(),
    c.Status(1).encode(),
    init(IDLE).encode(),
    init(imei=OTHER_IMEI).encode(),
    c.EnhancedData(0, b"abc", crc16(b"abc")).encode(),
    content(60),
]


@st.composite
def mutated_conversations(draw: st.DrawFn) -> bytes:
    """A whole conversation with bytes cut out, flipped, doubled and put in."""
    stream = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(stream)))
        match draw(st.sampled_from(["truncate", "flip", "double", "insert"])):
            case "truncate":
                del stream[place : place + draw(st.integers(1, 1100))]
            case "flip":
                if place < len(stream):
                    stream[place] ^= 1 << draw(st.integers(0, 7))
            case "double":
                stream[place:place] = stream[place : place + draw(st.integers(1, 1100))]
            case "insert":
                stream[place:place] = draw(st.binary(min_size=1, max_size=20) | st.sampled_from(TOKENS))
    return bytes(stream)


#: Random bytes in data, pieces of the protocol in any order, and what mobile links make of a real conversation.
STREAMS = st.one_of(
    st.binary(max_size=64),
    st.binary(max_size=1200).map(lambda data: b"".join(opening(FILES[0])) + data),
    st.lists(st.sampled_from(TOKENS), max_size=30).map(lambda tokens: b"".join([*opening(FILES[0]), *tokens])),
    mutated_conversations(),
)
CUTS = st.lists(st.integers(0, 6000), max_size=40)


def outcome(pieces: Iterable[bytes], most_buffered: int = MOST_BUFFERED) -> tuple[list[DeviceEvent], str]:
    """All events up to the first error, runs joined, and the error; the size is told as a session would."""
    decoder, events = DeviceDecoder(), []
    size = 0
    try:
        for piece in pieces:
            decoder.feed(piece)
            for event in drained(decoder):
                events.append(event)
                if isinstance(event, c.Start):
                    size = event.size
                elif isinstance(event, c.Sync):
                    decoder.expect_data(size - event.offset)
            assert decoder.buffered_bytes <= most_buffered
    except PeerError as error:
        return merged(events), f"{type(error).__name__}: {error}"
    return merged(events), ""


@given(STREAMS, CUTS)
@hypothesis_settings(max_examples=200)
def test_cuts_do_not_matter(stream: bytes, places: list[int]) -> None:
    """Any bytes give the same events and the same error whole, cut anywhere, and byte by byte; only PeerErrors come."""
    whole = outcome([stream], MOST_BUFFERED)
    assert outcome(cut(stream, places)) == whole
    assert outcome(bytewise(stream)) == whole


@given(mutated_conversations(), CUTS)
@hypothesis_settings(max_examples=100)
def test_cuts_do_not_matter_to_the_session(stream: bytes, places: list[int]) -> None:
    """The answers, the stored files and the end of a conversation do not depend on how its bytes were cut."""
    results = []
    for pieces in ([stream], cut(stream, places), bytewise(stream)):
        talk = Conversation()
        for piece in pieces:
            talk.feed(piece)
        results.append((bytes(talk.sent), talk.store.stored, talk.store.parts, talk.end, talk.session.state))
    assert results[0] == results[1] == results[2]


@given(st.integers(1, 5000), st.booleans(), st.integers(1, c.PACKET_BYTES), CUTS)
def test_what_is_awaited_comes(size: int, in_packets: bool, packet_bytes: int, places: list[int]) -> None:
    """Never more is awaited than what brings the file to its end, however it is cut; all of that with whole packets."""
    if in_packets:
        packet_bytes = c.PACKET_BYTES
    frames_of_file = data_frames(content(size), packet_bytes=packet_bytes)
    decoder, told = in_data(size), -(-size // c.PACKET_BYTES) * c.PACKET_BYTES if in_packets else size
    decoder.expect_data(told, in_packets)
    stream = b"".join(frames_of_file)
    left, awaited = len(stream), []
    for piece in cut(stream, places):
        awaited.append((decoder.awaited_bytes, left))
        decoder.feed(piece)
        left -= len(piece)
        assert all(isinstance(event, DataRun) for event in drained(decoder))
    assert all(0 <= least <= comes for least, comes in awaited)
    if packet_bytes == c.PACKET_BYTES and not in_packets:
        assert all(least == comes for least, comes in awaited)
    if not in_packets or size == told:
        assert decoder.awaited_bytes == 0


def test_nothing_is_awaited_where_data_is_not_in_order() -> None:
    """Before SYNC, in a search and while data is dropped, every byte may tell something."""
    decoder = DeviceDecoder()
    decoder.expect_data(5000)
    assert decoder.awaited_bytes == 0
    decoder = in_data()
    decoder.expect_data(5000)
    assert decoder.awaited_bytes == 5000 + 5 * 6
    decoder.feed(b"\xff" * 20)
    assert decoder.next_event() is None
    assert decoder.awaited_bytes == 0
    decoder = in_data()
    decoder.expect_data(5000)
    decoder.drop_until_sync()
    assert decoder.awaited_bytes == 0


@given(STREAMS, CUTS)
def test_buffer_is_bounded_by_one_search(stream: bytes, places: list[int]) -> None:
    """Where no METADATA is under way, never more than 2,062 bytes wait after draining."""
    assume(b"\0\x0b" not in stream.replace(c.MetadataResponse(METADATA).encode(), b""))
    outcome(cut(stream, places), MOST_IN_SEARCH)


def test_longest_search() -> None:
    """2,066 bytes do wait at times: the last candidate in a damaged frame may be a whole frame long."""
    decoder = DeviceDecoder()
    decoder.feed(b"".join(opening(FILES[0])) + b"\xff" * 1033 + b"\0\x0e\4\6" + b"\xff" * 1029)
    assert [type(event) for event in drained(decoder)] == [c.Init, c.Path, c.MetadataResponse, c.Start, c.Sync]
    assert decoder.buffered_bytes == MOST_IN_SEARCH
    decoder.feed(b"\xff")
    assert len(list(drained(decoder))) == 1
    assert decoder.buffered_bytes < c.INIT_BYTES


def test_longest_command() -> None:
    """4,099 bytes wait for the end of the longest METADATA, no more."""
    decoder = DeviceDecoder()
    wire = init().encode() + c.MetadataResponse(bytes(c.MAX_METADATA_BYTES)).encode()
    decoder.feed(wire[:-1])
    assert list(drained(decoder)) == [init()]
    assert decoder.buffered_bytes == MOST_BUFFERED


@given(st.binary(max_size=64) | st.sampled_from([bytes(40), b"\0\x08\2\0" * 9, b"\0\x09" * 9]), CUTS)
def test_gateways_bytes_in_any_cuts(stream: bytes, places: list[int]) -> None:
    """A device's reader gives the same whole, cut anywhere and byte by byte, and is bounded by one command."""
    results = []
    for pieces in ([stream], cut(stream, places), bytewise(stream)):
        decoder, found = GatewayDecoder(), []
        try:
            for piece in pieces:
                decoder.feed(piece)
                found += iter(decoder.next_command, None)
                assert decoder.buffered_bytes < c.HEADER_BYTES + 512
        except PeerError as error:
            found.append(str(error))
        results.append(found)
    assert results[0] == results[1] == results[2]


# -- work


def work(pieces: Iterable[bytes]) -> tuple[int, int]:
    """Return the number of calls, Python's and C's, that these bytes cause, and how many bytes a CRC was taken of."""
    calls = crc_bytes = 0

    def count(frame: FrameType, what: str, _: object) -> None:
        nonlocal calls
        calls += what in ("call", "c_call")

    def counted_crc16(data: bytes, start: int) -> int:
        nonlocal crc_bytes
        crc_bytes += len(data)
        return crc16(data, start)

    decoder = DeviceDecoder()
    decoder.feed(b"".join(opening(bytes(1 << 20))))
    list(drained(decoder))
    before = sys.getprofile()
    with pytest.MonkeyPatch.context() as patch:
        for module in (framing, frames):
            patch.setattr(module, "crc16", counted_crc16)
        sys.setprofile(count)
        try:
            for piece in pieces:
                decoder.feed(piece)
                while decoder.next_event() is not None:
                    pass
        finally:
            sys.setprofile(before)
    return calls, crc_bytes


def repeated(pattern: bytes) -> Callable[[int], bytes]:
    """The pattern again and again, as many bytes as asked for."""
    return lambda length: (pattern * (length // len(pattern) + 1))[:length]


def searched_again(pattern: bytes) -> Callable[[int], bytes]:
    """The pattern for one frame's length at a time, each time after a SYNC, so that it is searched each time."""
    return repeated(c.Sync(0).encode() + repeated(pattern)(1034))


GOOD = data_frames(b"a" * 40, packet_bytes=1)
HOSTILE = {
    "zeros": repeated(b"\0"),
    "ones": repeated(b"\xff"),
    "longest DATA": repeated(b"\0\4\4\2"),
    "short DATA": repeated(b"\0\4\0\4"),
    "SYNC": repeated(b"\0\3\0\4"),
    "START": repeated(b"\0\1\0\6"),
    "STATUS": repeated(b"\0\5\0\4\0\0\0"),
    "METADATA": repeated(b"\0\x0b\0\0"),
    "ENHANCED_DATA": repeated(b"\0\x0e\0\7"),
    "INIT, last digit wrong": repeated(init().encode()[:11] + b"\xff"),
    "zeros after SYNC": searched_again(b"\0"),
    "longest DATA after SYNC": searched_again(b"\0\4\4\2"),
    "DATA of half a frame after SYNC": searched_again(b"\0\4\2\1"),
    "short DATA after SYNC": searched_again(b"\0\4\0\4"),
    "SYNC after SYNC": searched_again(b"\0\3\0\4\xff"),
    "INIT after SYNC, last digit wrong": searched_again(init().encode()[:11] + b"\xff"),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("segment_bytes", [1 << 20, 1360, 1])
def test_work_is_linear(hostile: Callable[[int], bytes], segment_bytes: int) -> None:
    """More bytes cause as much more work, not more and more, whatever they are and however they come."""
    length = 1042 * (2 if segment_bytes == 1 else 4)  # whole searches
    calls, crc_bytes = zip(
        *(work(cut(hostile(size), range(0, size, segment_bytes))) for size in (length, 2 * length, 3 * length)),
        strict=True,
    )
    assert calls[2] - calls[1] <= 1.1 * (calls[1] - calls[0]) + 100
    assert crc_bytes[2] - crc_bytes[1] <= 1.1 * (crc_bytes[1] - crc_bytes[0]) + 2 * c.PACKET_BYTES
    assert calls[2] <= 40 * 3 * length
    assert crc_bytes[2] <= (MAX_CANDIDATES + 1) * 3 * length


def test_work_of_one_search() -> None:
    """One lost step costs at most 18 CRCs: the damaged frame's, 16 candidates' and, once more, the found one's."""
    look_alikes = b"\0\4\4\2" * MAX_CANDIDATES
    decoder, searches = DeviceDecoder(), 40
    stream = b"".join(look_alikes + frame for frame in GOOD[:searches]) + bytes(range(1, 256)) * 9
    decoder.feed(b"".join(opening(bytes(searches))) + stream)
    found = [type(event) for event in drained(decoder)][5:]
    assert found[: 2 * searches] == [StepFound, DataRun] * searches
    assert work([stream])[1] <= searches * (MAX_CANDIDATES + 2) * c.PACKET_BYTES


def test_paths_and_metadata_pass_through() -> None:
    """The mutated conversations are conversations: unharmed they are understood to the end."""
    for file, stream in zip(FILES * 2, WHOLE, strict=True):
        talk = Conversation()
        talk.feed(stream)
        assert [stored["content"] for stored in talk.store.stored] == [file]
        assert talk.commands == [
            c.PathRequest(),
            c.MetadataRequest(),
            c.FileRequest(PATH),
            c.Resume(0),
            c.RepeatInit(),
            c.Close(),
        ]
