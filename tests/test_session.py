"""One camera's conversation: each thing that can happen, and the promise that nothing is acknowledged too early."""

from collections.abc import Callable

import pytest
from conftest import (
    IDLE,
    IMEI,
    METADATA,
    OTHER_IMEI,
    PATH,
    SIZE,
    Conversation,
    MemoryStore,
    acts,
    content,
    data_frames,
    init,
    notes,
    opening,
    resume,
    session_in,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dsmgateway import commands as c
from dsmgateway import effects as fx
from dsmgateway.errors import UnexpectedCommand
from dsmgateway.events import OF_CONNECTION, Event, log_event
from dsmgateway.families import Family
from dsmgateway.frames import DataRun
from dsmgateway.framing import Damaged, DeviceEvent, StepFound
from dsmgateway.metadata import Metadata
from dsmgateway.patience import MOST_SYNCS_DUE
from dsmgateway.reception import MAX_OTHER_STARTS, SessionOptions
from dsmgateway.session import MAX_FRUITLESS_INITS, Session
from dsmgateway.states import State

S = State
WITHOUT_NUL = PATH[:-1]


# -- one file


def test_one_file_from_init_to_close() -> None:
    """Every step of one file, with all that is asked for at each."""
    session = Session(SessionOptions())
    assert acts(session.receive(init())) == [fx.Claim(str(IMEI)), fx.Send(c.PathRequest())]
    assert acts(session.receive(c.Path(PATH))) == [fx.Send(c.MetadataRequest())]
    assert acts(session.receive(c.MetadataResponse(METADATA))) == [fx.Send(c.FileRequest(PATH))]
    assert acts(session.receive(c.Start(SIZE, 7))) == [fx.Open(WITHOUT_NUL, SIZE, 7, compare=True)]
    assert acts(session.opened(0, False)) == resume(0)
    assert acts(session.receive(c.Sync(0))) == [fx.ExpectData(SIZE)]
    assert acts(session.receive(DataRun(bytes(2048), 2))) == [fx.Append(0, bytes(2048))]
    finish = fx.Finish(5, Metadata.parse(METADATA, 5, WITHOUT_NUL))
    assert acts(session.receive(DataRun(bytes(452), 1))) == [fx.Append(2048, bytes(452)), finish]
    assert session.stored("media/1", SIZE, False) == [
        fx.Note(
            Event.FILE_STORED, {"device_path": WITHOUT_NUL.decode(), "size": SIZE, "path": "media/1", "resyncs": 0}
        ),
        fx.Send(c.RepeatInit()),
    ]
    assert acts(session.receive(init(IDLE))) == [fx.Send(c.Close()), fx.End("nothing to send")]
    assert (session.files_stored, session.transfer, session.state) == (1, None, S.ENDED)


def test_resumed_file_goes_on_where_the_disk_says() -> None:
    """The offset of the first RESUME is the store's, and data is appended there."""
    session = session_in(S.OPENING)
    assert acts(session.opened(1024, False)) == resume(1024)
    assert acts(session.receive(c.Sync(1024))) == [fx.ExpectData(SIZE - 1024)]
    assert acts(session.receive(DataRun(b"a" * 1024, 1))) == [fx.Append(1024, b"a" * 1024)]


def test_known_file_is_acknowledged_and_named_so() -> None:
    """A file that the store had already is acknowledged like a new one."""
    effects = session_in(S.STORING).stored("media/1", SIZE, True)
    assert acts(effects) == [fx.Send(c.RepeatInit())]
    assert Event.FILE_KNOWN in notes(effects) and Event.FILE_STORED not in notes(effects)


@pytest.mark.parametrize("duplicate", [False, True])
def test_another_crc_than_start_said_is_told_and_acknowledged(duplicate: bool) -> None:
    """Each frame's CRC was right, so that asking again would bring the same for ever."""
    effects = session_in(S.STORING).stored("media/1", SIZE, duplicate, crc_differs=True)
    assert list(notes(effects)) == [Event.FILE_KNOWN if duplicate else Event.FILE_STORED, Event.FILE_CRC_DIFFERS]
    assert acts(effects) == [fx.Send(c.RepeatInit())]


def test_after_file_complete() -> None:
    """With one file wanted, STATUS 0 takes the place of REPEAT_INIT, and the device may say what it likes after it."""
    session = session_in(S.STORING, SessionOptions(repeat=False))
    assert acts(session.stored("media/1", SIZE, False)) == [fx.Send(c.Status(0))]
    for late in (c.Status(1), init(), init(imei=OTHER_IMEI), DataRun(b"a", 1), Damaged("late"), c.Sync(0)):
        assert session.receive(late) == []
        assert session.state is S.FAREWELL
    assert acts(session.timed_out()) == [fx.End("nothing more came")]


def test_metadata_off() -> None:
    """Without metadata the file is asked for at once, and the record has none."""
    session = Session(SessionOptions(metadata=False))
    session.receive(init())
    assert acts(session.receive(c.Path(PATH))) == [fx.Send(c.FileRequest(PATH))]
    session.receive(c.Start(1, 0))
    session.opened(0, False)
    session.receive(c.Sync(0))
    assert acts(session.receive(DataRun(b"a", 1)))[-1] == fx.Finish(5, None)


def test_missing_metadata() -> None:
    """A device that does not answer METADATA_REQUEST in time is asked for the file all the same."""
    effects = session_in(S.AWAIT_METADATA).timed_out()
    assert acts(effects) == [fx.Send(c.FileRequest(PATH))]
    assert list(notes(effects)) == [Event.METADATA_MISSING]


@pytest.mark.parametrize("state", [S.AWAIT_START, S.RECEIVING])
def test_late_metadata_is_kept(state: State) -> None:
    """Metadata that comes after its time still goes into the record."""
    session = Session(SessionOptions())
    session.receive(init())
    session.receive(c.Path(PATH))
    session.timed_out()
    if state is S.AWAIT_START:
        assert session.receive(c.MetadataResponse(METADATA)) == []
    session.receive(c.Start(1, 0))
    session.opened(0, False)
    session.receive(c.Sync(0))
    if state is S.RECEIVING:
        assert session.receive(c.MetadataResponse(METADATA)) == []
    finish = session.receive(DataRun(b"a", 1))[-1]
    assert isinstance(finish, fx.Finish)
    assert finish.metadata == Metadata.parse(METADATA, 5, WITHOUT_NUL)


def test_metadata_belongs_to_one_file() -> None:
    """The next file does not inherit the metadata of the one before."""
    session = session_in(S.AWAIT_NEXT_INIT)
    session.receive(init())
    session.receive(c.Path(PATH))
    session.timed_out()
    session.receive(c.Start(1, 0))
    session.opened(0, False)
    session.receive(c.Sync(0))
    assert session.receive(DataRun(b"a", 1))[-1] == fx.Finish(5, None)


def test_unreadable_metadata_is_no_reason_to_stop() -> None:
    """Metadata of any length goes on to the file."""
    assert acts(session_in(S.AWAIT_METADATA).receive(c.MetadataResponse(b"?"))) == [fx.Send(c.FileRequest(PATH))]


def test_a_repeated_start_is_no_unanswered_resume() -> None:
    """START that the device repeats is answered and uses up no attempt; more than a few are left to the time limit."""
    session = session_in(S.AWAIT_SYNC, SessionOptions(max_resyncs=0, resume_tries=1))
    answers = [session.receive(c.Start(SIZE, 0)) for _ in range(200)]
    assert answers[: MOST_SYNCS_DUE - 1] == [[fx.Send(c.Resume(0), renews=False)]] * (MOST_SYNCS_DUE - 1)
    assert answers[MOST_SYNCS_DUE - 1 :] == [[]] * (201 - MOST_SYNCS_DUE)
    assert acts(session.receive(c.Sync(0))) == [fx.ExpectData(SIZE)]


def test_a_sync_for_each_resume_is_no_resync() -> None:
    """Every RESUME that answered a repeated START has its SYNC, also in mid-file; one more than that is counted."""
    session = session_in(S.AWAIT_SYNC, SessionOptions(max_resyncs=0))
    for _ in range(5):
        session.receive(c.Start(SIZE, 0))
    for _ in range(6):
        assert acts(session.receive(c.Sync(0))) == [fx.ExpectData(SIZE)]
    effects = session.receive(c.Sync(0))
    assert list(notes(effects)) == [Event.SESSION_GIVEN_UP, Event.FILE_PARKED]


def test_init_twice_has_path_twice() -> None:
    """The second PATH is the same and ignored; another one is refused."""
    for state in (S.AWAIT_METADATA, S.AWAIT_START):
        session = session_in(state)
        assert session.receive(c.Path(PATH)) == []
        with pytest.raises(UnexpectedCommand, match="PATH of another file in state " + state.value):
            session.receive(c.Path(b"dsm/other.jpg\0"))
        assert session.state is state


def test_a_device_that_begins_again_and_again_is_left() -> None:
    """INITs with no file data between them come to an end; file data makes good for them."""
    session = session_in(S.RECEIVING)
    session.receive(DataRun(bytes(1024), 1))
    for _ in range(MAX_FRUITLESS_INITS):
        assert acts(session.receive(init()))[-1] == fx.Send(c.PathRequest())
    effects = session.receive(init())
    assert list(notes(effects)) == [Event.SESSION_GIVEN_UP]
    assert isinstance(effects[-1], fx.End) and session.state is S.ENDED


def test_status_before_init() -> None:
    """A device that gives up before it said who it is is named by its code too."""
    effects = session_in(S.AWAIT_INIT).receive(c.Status(2))
    assert notes(effects) == {Event.DEVICE_STATUS: {"code": 2, "meaning": "cannot close GPRS"}}
    assert acts(effects) == [fx.End("STATUS 2")]


def test_an_acknowledgement_on_its_way_is_not_taken_back() -> None:
    """After a whole file even broken bytes end the connection gently, so that REPEAT_INIT still arrives."""
    for state in (S.AWAIT_NEXT_INIT, S.FAREWELL):
        assert acts(session_in(state).broke_protocol("?")) == [fx.End("?", abort=False)]


def test_start_with_another_file_again_and_again() -> None:
    """A device that describes another file with every START is left: each would open a part."""
    session = session_in(S.AWAIT_SYNC)
    for size in range(1001, 1001 + MAX_OTHER_STARTS):
        assert acts(session.receive(c.Start(size, 0))) == [fx.Park(), fx.Open(PATH[:-1], size, 0, compare=True)]
        session.opened(0, False)
    effects = session.receive(c.Start(1100, 0))
    assert list(notes(effects)) == [Event.FILE_PARKED, Event.SESSION_GIVEN_UP]
    assert acts(effects)[0] == fx.Park() and isinstance(acts(effects)[-1], fx.End)


def test_late_data_is_said_once_a_file() -> None:
    """A device that goes on after its file is whole does not fill the log."""
    session = session_in(S.AWAIT_NEXT_INIT)
    assert list(notes(session.receive(DataRun(b"a", 1)))) == [Event.DATA_BEYOND]
    assert session.receive(DataRun(b"a", 1)) == []


def test_a_failed_disk_promises_nothing_of_the_part() -> None:
    """When the disk failed, the log does not say that the file is kept so far."""
    effects = session_in(S.RECEIVING).store_failed("EIO")
    assert list(notes(effects)) == [Event.STORE_FAILED]
    assert acts(effects) == [fx.Park(), fx.End("the disk failed")]


@pytest.mark.parametrize("path", [b"", b"\0", b"\0\0\0"])
def test_empty_path(path: bytes) -> None:
    """Nothing, or a lone NUL, is no file: the session is closed in peace."""
    effects = session_in(S.AWAIT_PATH).receive(c.Path(path))
    assert acts(effects) == [fx.Send(c.Close()), fx.End("empty path")]
    assert list(notes(effects)) == [Event.NO_FILE]


@pytest.mark.parametrize("path", [b"dsm/1.jpg", b"dsm/1.jpg\0", b"dsm/1.jpg\0\0", b"\xff\xfe"])
def test_path_is_echoed_byte_for_byte(path: bytes) -> None:
    """FILE_REQUEST has the path with whatever closes it; only the store's name is without."""
    session = Session(SessionOptions(metadata=False))
    session.receive(init())
    assert acts(session.receive(c.Path(path))) == [fx.Send(c.FileRequest(path))]
    assert acts(session.receive(c.Start(1, 0))) == [fx.Open(path.rstrip(b"\0"), 1, 0, compare=True)]


def test_path_that_is_no_text_can_be_logged() -> None:
    """A path with any bytes is shown readably."""
    session = Session(SessionOptions(metadata=False))
    for event in (init(), c.Path(b"dsm/\xff\0"), c.Start(1, 0)):
        session.receive(event)
    assert notes(session.opened(0, False))[Event.FILE_OPENED]["device_path"] == "dsm/\\xff"


# -- INIT


def test_nothing_to_send() -> None:
    """A device without files is closed at once; unknown settings bits are noted, not feared."""
    effects = Session(SessionOptions()).receive(init(IDLE))
    assert acts(effects) == [fx.Claim(str(IMEI)), fx.Send(c.Close()), fx.End("nothing to send")]
    assert notes(effects)[Event.CONNECTED] == {"protocol_id": 5, "offers": [], "unknown_settings": "40000400"}


def test_nothing_more_to_send() -> None:
    """That it ends as nearly every connection does needs no line of its own."""
    effects = session_in(S.AWAIT_NEXT_INIT).receive(init(IDLE))
    assert effects == [fx.Send(c.Close()), fx.End("nothing to send")]


@pytest.mark.parametrize("state", [S.AWAIT_PATH, S.AWAIT_METADATA, S.AWAIT_START])
def test_init_before_the_file(state: State) -> None:
    """A device that begins again before a file is under way is followed; it need not be claimed twice."""
    session = session_in(state)
    effects = session.receive(init())
    assert acts(effects) == [fx.Send(c.PathRequest())]
    assert list(notes(effects)) == [Event.DEVICE_BEGAN_AGAIN, Event.OFFERS]


@pytest.mark.parametrize("state", [S.AWAIT_SYNC, S.RECEIVING])
def test_init_in_mid_file(state: State) -> None:
    """A device that begins again in mid-file is followed, and what the file has is kept."""
    session = session_in(state)
    effects = session.receive(init())
    assert acts(effects) == [fx.Park(), fx.Send(c.PathRequest())]
    assert list(notes(effects)) == [Event.DEVICE_BEGAN_AGAIN, Event.FILE_PARKED, Event.OFFERS]
    assert session.transfer is None
    session.receive(c.Path(PATH))
    session.receive(c.MetadataResponse(METADATA))
    assert acts(session.receive(c.Start(SIZE, 0))) == [fx.Open(WITHOUT_NUL, SIZE, 0, compare=True)]


@pytest.mark.parametrize("state", [S.AWAIT_SYNC, S.RECEIVING])
@pytest.mark.parametrize("settings", [IDLE, 0x04000000])
def test_init_without_a_file_in_mid_file(state: State, settings: int) -> None:
    """A device that begins again and has forgotten its file is not told CLOSE: that could be read as having it."""
    session = session_in(state, SessionOptions(families=frozenset({Family.DSM})))
    assert acts(session.receive(init(settings))) == [fx.Park(), fx.End("the device began again without a file")]
    assert session.state is S.ENDED


def test_init_of_another_device() -> None:
    """A connection that changes its IMEI breaks the protocol."""
    with pytest.raises(UnexpectedCommand, match=f"INIT of device {OTHER_IMEI} on a connection of device {IMEI}"):
        session_in(S.RECEIVING).receive(init(imei=OTHER_IMEI))


# -- START


def test_start_repeated() -> None:
    """Every START is answered with RESUME; one that crossed ours does not prolong the wait."""
    session = session_in(S.AWAIT_SYNC, held_bytes=1024)
    assert session.receive(c.Start(SIZE, 0)) == [fx.Send(c.Resume(1024), renews=False)]
    assert session.state is S.AWAIT_SYNC


def test_start_repeated_in_mid_data() -> None:
    """A START between data is answered with RESUME at the last packet boundary held."""
    session = session_in(S.RECEIVING)
    session.receive(DataRun(bytes(1024), 1))
    assert session.receive(c.Start(SIZE, 0)) == resume(1024)
    assert session.state is S.AWAIT_SYNC


@pytest.mark.parametrize("start", [c.Start(SIZE + 1, 0), c.Start(SIZE, 1)])
@pytest.mark.parametrize("state", [S.AWAIT_SYNC, S.RECEIVING])
def test_start_of_another_file(start: c.Start, state: State) -> None:
    """START with another size or CRC is a different file: the one under way is parked, the new one opened."""
    session = session_in(state, held_bytes=1024)
    effects = session.receive(start)
    assert acts(effects) == [fx.Park(), fx.Open(WITHOUT_NUL, start.size, start.crc, compare=True)]
    assert notes(effects)[Event.FILE_PARKED]["held"] == 1024
    assert acts(session.opened(0, False)) == resume(0)


@pytest.mark.parametrize("size_bytes", [0, 1001, 0xFFFFFFFF])
def test_start_of_a_size_that_cannot_be_taken(size_bytes: int) -> None:
    """An empty file and one beyond the limit are refused without an acknowledgement and without CLOSE."""
    session = session_in(S.AWAIT_START, SessionOptions(max_file_size=1000))
    effects = session.receive(c.Start(size_bytes, 0))
    (end,) = acts(effects)
    assert isinstance(end, fx.End) and not end.abort
    assert notes(effects) == {Event.FILE_REFUSED: {"reason": end.reason}}
    assert str(size_bytes) in end.reason


def test_start_of_the_largest_size() -> None:
    """The limit itself can be taken."""
    session = session_in(S.AWAIT_START, SessionOptions(max_file_size=1000))
    assert isinstance(session.receive(c.Start(1000, 0))[0], fx.Open)


@pytest.mark.parametrize(
    ("path", "size_bytes", "problem"),
    [
        (b"dsm/picture/251102/081601.jpg", 101, "more than max-photo-size 100"),
        (b"dsm/video/251102/081601.mp4", 1001, "more than max-video-size 1000"),
        (b"dsm/other/081601.bin", 10_001, "more than max-file-size 10000"),
        (b"dsm/picture/251102/081601.jpg", 100, ""),
        (b"dsm/video/251102/081601.mp4", 1000, ""),
        (b"dsm/other/081601.bin", 10_000, ""),
    ],
)
def test_each_kind_of_file_has_a_largest_size(path: bytes, size_bytes: int, problem: str) -> None:
    """The kind is what the path says; what it does not say is bounded by the size for all."""
    options = SessionOptions(metadata=False, max_file_size=10_000, max_photo_size=100, max_video_size=1000)
    session = session_in(S.AWAIT_PATH, options)
    session.receive(c.Path(path + b"\0"))
    effects = session.receive(c.Start(size_bytes, 0))
    if problem:
        assert str(notes(effects)[Event.FILE_REFUSED]["reason"]).endswith(problem)
    else:
        assert isinstance(effects[-1], fx.Open)


def test_start_that_cannot_be_taken_in_mid_file() -> None:
    """A refusal in mid-file keeps what the file under way has."""
    assert [type(effect) for effect in acts(session_in(S.RECEIVING).receive(c.Start(0, 0)))] == [fx.Park, fx.End]


# -- SYNC


def test_sync_lower_overwrites() -> None:
    """A SYNC below what is held is followed: data is written again from there."""
    session = session_in(S.AWAIT_SYNC, held_bytes=2048)
    assert session.receive(c.Sync(1024)) == [fx.ExpectData(SIZE - 1024)]
    assert session.receive(DataRun(b"a" * 1024, 1)) == [fx.Append(1024, b"a" * 1024)]


@pytest.mark.parametrize("offset_bytes", [0, 1024, 2048])
def test_sync_in_mid_data(offset_bytes: int) -> None:
    """A SYNC that nobody asked for is followed where it leaves no hole."""
    session = session_in(S.RECEIVING)
    session.receive(DataRun(bytes(2048), 2))
    assert session.receive(c.Sync(offset_bytes)) == [fx.ExpectData(SIZE - offset_bytes)]
    assert session.receive(DataRun(b"a", 1)) == [fx.Append(offset_bytes, b"a")]


def test_sync_higher_is_asked_again_then_from_the_start_then_given_up() -> None:
    """A device that goes on beyond what is held is asked once more, then for everything, then left."""
    session = session_in(S.AWAIT_SYNC, held_bytes=1024)
    first = session.receive(c.Sync(2048))
    assert acts(first) == resume(1024)
    assert notes(first) == {Event.SYNC_HOLE: {"asked": 1024, "answered": 2048, "held": 1024}}
    assert acts(session.receive(c.Sync(2048))) == resume(0)
    last = session.receive(c.Sync(2048))
    assert acts(last) == [fx.Park(), fx.End("3 RESUMEs in a row brought no data")]
    assert Event.SESSION_GIVEN_UP in notes(last)


def test_sync_from_the_start_is_followed() -> None:
    """A device that at last begins at 0 sends everything again."""
    session = session_in(S.AWAIT_SYNC, held_bytes=1024)
    session.receive(c.Sync(2048))
    session.receive(c.Sync(2048))
    assert session.receive(c.Sync(0)) == [fx.ExpectData(SIZE)]
    assert session.receive(DataRun(b"a", 1)) == [fx.Append(0, b"a")]


def test_sync_at_the_size_leaves_nothing_to_send() -> None:
    """A SYNC at the end of the file cannot be followed, not even when all is held."""
    session = session_in(S.AWAIT_SYNC, held_bytes=2048)
    assert acts(session.receive(c.Sync(SIZE))) == resume(2048)


# -- data


def test_data_beyond_the_size() -> None:
    """Data that goes beyond the size is not written, not even in part; it is asked for again, and then given up."""
    session = session_in(S.RECEIVING)
    session.receive(DataRun(bytes(2048), 2))
    effects = session.receive(DataRun(bytes(453), 1))
    assert acts(effects) == resume(2048)
    assert Event.DATA_REFUSED in notes(effects)
    for _ in range(2):
        session.receive(c.Sync(2048))
        assert acts(session.receive(DataRun(bytes(453), 1))) == resume(2048)
    session.receive(c.Sync(2048))
    assert acts(session.receive(DataRun(bytes(453), 1)))[0] == fx.Park()


def test_frame_that_straddles_the_size_costs_only_itself() -> None:
    """Good frames in the same read as one that is too long are written; the device is asked for the rest alone."""
    file = content(2048)
    talk = Conversation()
    told = [init(), c.Path(PATH), c.MetadataResponse(METADATA), c.Start(1500, 0), c.Sync(0)]
    talk.feed(b"".join([*(command.encode() for command in told), *data_frames(file)]))
    assert talk.commands[-2:] == [c.Resume(0), c.Resume(1024)]
    short = b"".join([c.Sync(1024).encode(), *data_frames(file[:1500], 1024), init(IDLE).encode()])
    talk.feed(short)
    assert [stored["content"] for stored in talk.store.stored] == [file[:1500]]


def test_data_that_says_another_place() -> None:
    """Data that names its offset is written only where it belongs."""
    session = session_in(S.RECEIVING)
    assert acts(session.receive(DataRun(bytes(1024), 1, 0))) == [fx.Append(0, bytes(1024))]
    assert acts(session.receive(DataRun(bytes(1024), 1, 0))) == resume(1024)


def test_damage_is_asked_for_again() -> None:
    """After damage the last good packet boundary is asked for, until data comes; a short packet is asked for whole."""
    session = session_in(S.RECEIVING)
    session.receive(DataRun(bytes(1124), 2))
    effects = session.receive(Damaged("DATA with a wrong CRC"))
    assert acts(effects) == resume(1024)
    assert notes(effects) == {Event.DATA_REFUSED: {"reason": "DATA with a wrong CRC", "offset": 1024}}
    assert session.state is S.AWAIT_SYNC


def test_resumes_count_only_in_a_row() -> None:
    """Data that fits begins the count of vain RESUMEs anew: a bad link is used as long as it brings something."""
    session = session_in(S.RECEIVING)
    for packet in range(2):
        for _ in range(2):
            assert acts(session.receive(Damaged("again"))) == resume(packet * 1024)
            session.receive(c.Sync(packet * 1024))
        session.receive(DataRun(bytes(1024), 1))
    assert session.state is S.RECEIVING


def test_step_found_costs_no_resume() -> None:
    """A cut frame that was passed over is noted, and nothing is asked for."""
    assert session_in(S.RECEIVING).receive(StepFound(580)) == [fx.Note(Event.STEP_FOUND, {"skipped": 580, "held": 0})]


@pytest.mark.parametrize("trouble", [StepFound(1), c.Sync(0), Damaged("again")])
def test_too_many_resyncs(trouble: DeviceEvent) -> None:
    """A file that keeps losing its step on one connection is given up there; its part is kept."""
    session = session_in(S.RECEIVING, SessionOptions(max_resyncs=5))
    for _ in range(5):
        assert session.state is S.RECEIVING
        session.receive(trouble)
        if session.state is S.AWAIT_SYNC:
            session.receive(c.Sync(0))
        session.receive(DataRun(b"a", 1))
    effects = session.receive(trouble)
    assert acts(effects) == [fx.Park(), fx.End("more than max-resyncs 5 in one file")]
    assert Event.SESSION_GIVEN_UP in notes(effects)


# -- STATUS


@pytest.mark.parametrize(
    "state", [S.AWAIT_PATH, S.AWAIT_METADATA, S.AWAIT_START, S.AWAIT_SYNC, S.RECEIVING], ids=lambda state: state.value
)
@pytest.mark.parametrize("code", [0, 1, 17, 99])
def test_status_ends_what_is_not_whole(state: State, code: int) -> None:
    """A STATUS before the last byte ends the session, named by its code; a file under way is parked."""
    session = session_in(state)
    effects = session.receive(c.Status(code))
    parked = [fx.Park()] if state in (S.AWAIT_SYNC, S.RECEIVING) else []
    assert acts(effects) == [*parked, fx.End(f"STATUS {code}")]
    assert notes(effects)[Event.DEVICE_STATUS] == {"code": code, "meaning": c.Status(code).meaning}


def test_status_after_the_last_byte_undoes_nothing() -> None:
    """A real tracker ends a good transfer with STATUS 1: the file stays stored, and the session goes on."""
    session = session_in(S.AWAIT_NEXT_INIT)
    effects = session.receive(c.Status(1))
    assert acts(effects) == []
    assert notes(effects) == {Event.DEVICE_STATUS: {"code": 1, "meaning": "reconnect limit reached"}}
    assert acts(session.receive(init())) == [fx.Send(c.PathRequest())]


def test_status_while_storing_waits() -> None:
    """A STATUS in the same read as the last byte is looked at when the file is stored, and changes nothing then."""
    file = content(1500)
    talk = Conversation()
    talk.feed(b"".join([*opening(file), *data_frames(file), c.Status(1).encode()]))
    assert [stored["content"] for stored in talk.store.stored] == [file]
    assert talk.commands[-1] == c.RepeatInit()
    assert talk.noted[-2:] == ["file.stored", "device.status"]


@pytest.mark.parametrize(
    ("late", "name"),
    [
        (DataRun(b"a", 1), "DATA"),
        (c.Sync(0), "SYNC"),
        (c.Start(1, 0), "START"),
        (c.MetadataResponse(b""), "METADATA"),
        (StepFound(1), "a cut frame"),
        (Damaged("late"), "damaged DATA"),
    ],
)
def test_what_comes_after_the_last_byte_is_noted_and_ignored(late: DeviceEvent, name: str) -> None:
    """A whole file stays whole, whatever the device sends before its next INIT."""
    session = session_in(S.AWAIT_NEXT_INIT)
    assert session.receive(late) == [fx.Note(Event.DATA_BEYOND, {"command": name})]
    assert session.state is S.AWAIT_NEXT_INIT


# -- time


@pytest.mark.parametrize("state", [S.AWAIT_INIT, S.AWAIT_PATH, S.AWAIT_START])
def test_silence_where_an_answer_is_due(state: State) -> None:
    """A device that does not answer is left, and the log says in which state it was."""
    session = session_in(state)
    effects = session.timed_out()
    assert effects == [fx.Note(Event.SESSION_SILENT), fx.End("silence")]
    assert isinstance(effects[0], fx.Note) and effects[0].state is state


@pytest.mark.parametrize("state", [S.AWAIT_SYNC, S.RECEIVING])
def test_silence_in_data_is_asked_again(state: State) -> None:
    """Silence in data is answered with RESUME as often as allowed, then the part is kept for the next connection."""
    session = session_in(state, held_bytes=1024)
    effects = session.timed_out()
    assert acts(effects) == resume(1024)
    assert notes(effects) == {Event.DATA_SILENT: {"offset": 1024}}
    assert acts(session.timed_out()) == resume(1024)
    assert acts(session.timed_out()) == [fx.Park(), fx.End("3 RESUMEs in a row brought no data")]


@pytest.mark.parametrize("state", [S.OPENING, S.STORING])
def test_slow_disk(state: State) -> None:
    """A disk that does not answer in time is an error of ours: no acknowledgement, no CLOSE."""
    effects = session_in(state).timed_out()
    assert acts(effects) == [fx.End("the disk did not answer in time")]
    assert list(notes(effects)) == [Event.STORE_SLOW]


@pytest.mark.parametrize("state", [S.AWAIT_NEXT_INIT, S.FAREWELL])
def test_silence_after_the_file(state: State) -> None:
    """A device that says no more after its file has been served."""
    assert session_in(state).timed_out() == [fx.End("nothing more came")]


# -- the store's answers that come late


def test_opened_after_the_end_is_parked() -> None:
    """A file that is opened when the session is over is let go of."""
    session = session_in(S.OPENING)
    session.taken_over()
    assert session.opened(1024, False) == [fx.Park()]


def test_stored_after_the_end_is_noted_and_not_told() -> None:
    """A file that is durable when the session is over counts as stored, but nobody is told."""
    session = session_in(S.STORING)
    session.lost()
    effects = session.stored("media/1", SIZE, False)
    assert acts(effects) == []
    assert Event.FILE_STORED in notes(effects)
    assert session.files_stored == 1


def test_other_answers_after_the_end() -> None:
    """After the end, a comparison that fails leads to nothing, and a disk that fails only to a line in the log."""
    session = session_in(S.STORING, held_bytes=2048, comparing=True)
    session.stop()
    assert session.differs() == []
    assert acts(session.store_failed("late")) == []


@pytest.mark.parametrize("state", [S.OPENING, S.AWAIT_SYNC, S.RECEIVING, S.STORING])
def test_failing_disk(state: State) -> None:
    """Whatever the file waits for when the disk fails: the cause is noted, nothing acknowledged, the session over."""
    effects = session_in(state).store_failed("fsync of spool/x: Input/output error")
    assert acts(effects)[-1] == fx.End("the disk failed")
    assert notes(effects)[Event.STORE_FAILED] == {"reason": "fsync of spool/x: Input/output error"}


# -- comparison with a stored file


def test_comparison_asks_for_the_last_packet_only() -> None:
    """Where the store seems to have the file, one packet decides."""
    session = session_in(S.OPENING)
    effects = session.opened(2048, True)
    assert acts(effects) == resume(2048)
    assert notes(effects)[Event.FILE_OPENED]["comparing"] is True
    assert session.receive(c.Sync(2048)) == [fx.ExpectData(452)]
    assert [type(effect) for effect in session.receive(DataRun(bytes(452), 1))] == [fx.Append, fx.Finish]
    assert acts(session.stored("media/1", SIZE, True)) == [fx.Send(c.RepeatInit())]


def test_comparison_that_differs_takes_the_file_whole() -> None:
    """A last packet that differs is no acknowledgement: the file is opened again to be taken, and not compared."""
    session = session_in(S.STORING, held_bytes=2048, comparing=True)
    effects = session.differs()
    assert acts(effects) == [fx.Open(WITHOUT_NUL, SIZE, 0, compare=False)]
    assert notes(effects) == {Event.COMPARISON_FAILED: {"device_path": WITHOUT_NUL.decode()}}
    assert acts(session.opened(0, False)) == resume(0)


def test_comparison_with_another_sync_takes_the_file_whole() -> None:
    """A device that does not begin at the last packet is not compared: the file is opened again to be taken."""
    session = session_in(S.AWAIT_SYNC, held_bytes=2048, comparing=True)
    assert acts(session.receive(c.Sync(0))) == [fx.Park(), fx.Open(WITHOUT_NUL, SIZE, 0, compare=False)]
    assert acts(session.opened(0, False)) == resume(0)


def test_file_that_is_opened_again_has_all_tries_again() -> None:
    """RESUMEs for the comparison do not count for the file: what the store opens is asked for, never just left open."""
    session = session_in(S.AWAIT_SYNC, held_bytes=2048, comparing=True)
    session.timed_out()
    session.timed_out()
    assert isinstance(session.receive(c.Sync(0))[-1], fx.Open)
    assert acts(session.opened(0, False)) == resume(0)
    assert session.state is S.AWAIT_SYNC


# -- one connection after another


def test_next_connection_goes_on() -> None:
    """A connection that is lost in mid-file is gone on with on the next one, from the packet boundary held."""
    file, store = content(3000), MemoryStore()
    first = Conversation(store)
    first.feed(b"".join([*opening(file), *data_frames(file)])[: -len(data_frames(file)[-1]) - 500])
    first.perform(first.session.lost())
    second = Conversation(store)
    second.feed(b"".join(opening(file)[:-1]))
    assert second.commands[-1] == c.Resume(1024)
    second.feed(b"".join([c.Sync(1024).encode(), *data_frames(file, 1024), init(IDLE).encode()]))
    assert [stored["content"] for stored in store.stored] == [file]


def test_garbage_in_mid_conversation() -> None:
    """Bytes that are no protocol end the connection at once, say so in the log, and keep the part."""
    file = content(3000)
    talk = Conversation()
    talk.feed(b"".join([*opening(file)[:-2], b"GET / HTTP/1.1\r\n\r\n"]))
    assert talk.end is not None and talk.end.abort
    assert talk.noted[-1] == "peer.error"


# -- log events


class Recorder:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def warn(self, text: str, **fields: object) -> None:
        """Keep a warning."""
        self.lines.append((text, fields))


def test_log_event_leaves_out_what_is_not_known() -> None:
    """An event is logged at its own level, by its name, with the fields that have something to say."""
    log = Recorder()
    log_event(log, Event.SYNC_HOLE, imei=None, asked=0, answered=1024)
    assert log.lines == [("{event}: {fields}", {"event": "sync.hole", "fields": {"asked": 0, "answered": 1024}})]


# -- the promise, whatever happens


class Watched:
    """A session with a model of its store beside it, which holds every effect to the promise."""

    def __init__(self, options: SessionOptions) -> None:
        self.session = Session(options)
        self.asked: fx.Open | None = None
        self.is_open = self.is_comparing = self.finishing = False
        self.position_bytes = 0

    def perform(self, effects: list[fx.Effect], *, is_stored: bool = False) -> None:
        """Do and check what the session asks for; ``is_stored``: the store has just said that the file is durable."""
        parked_before = self.is_open and fx.Park() in effects
        for place, effect in enumerate(effects):
            match effect:
                case fx.Send(c.RepeatInit() | c.Status()):
                    assert is_stored, "acknowledged what is not durable"
                case fx.Send(c.Close()):
                    assert not self.holds_file and not parked_before, "CLOSE with a file under way"
                case fx.Open():
                    assert not self.holds_file and effect is effects[-1]
                    self.asked = effect
                case fx.Append(offset_bytes, data):
                    assert self.is_open and offset_bytes <= self.position_bytes, "a hole"
                    self.position_bytes = offset_bytes + len(data)
                case fx.Finish():
                    assert self.is_open and effect is effects[-1]
                    assert self.asked is not None and self.position_bytes == self.asked.size_bytes, "not whole"
                    self.is_open, self.finishing = False, True
                case fx.Park():
                    assert self.is_open
                    self.is_open, self.asked = False, None
                case fx.End():
                    assert self.session.state is S.ENDED and place == len(effects) - 1
                case fx.Note(event, fields):
                    assert fields.keys() <= set(event.fields) - set(OF_CONNECTION), f"{event}: {fields.keys()}"
        session = self.session
        assert not (session.reads and (self.finishing or (self.asked and not self.is_open)))
        assert session.state is not S.ENDED or not self.is_open, "ended with an open file"
        assert (session.transfer is not None) == self.holds_file or session.state is S.ENDED

    @property
    def holds_file(self) -> bool:
        """Whether a file is between START and durable."""
        return self.asked is not None

    def receive(self, event: DeviceEvent) -> None:
        """The device sends something."""
        if self.session.reads:
            try:
                self.perform(self.session.receive(event))
            except UnexpectedCommand as error:
                self.perform(self.session.broke_protocol(str(error)))

    def answer(self, held_packets: int, refuses: bool) -> None:
        """The store answers what it was asked, if anything."""
        asked = self.asked
        if asked is None or self.is_open:
            return
        if self.finishing:
            self.finishing = False
            if self.is_comparing and refuses:
                if self.session.state is S.ENDED:
                    self.asked = None
                elif self.asked:
                    self.asked = None
                    self.perform(self.session.differs())
                return
            self.asked = None
            self.perform(self.session.stored("media/1", SIZE, refuses), is_stored=True)
            return
        last_packet = (asked.size_bytes - 1) // 1024
        self.is_open, self.is_comparing = True, asked.compare and refuses
        self.position_bytes = 1024 * (last_packet if self.is_comparing else min(held_packets, last_packet))
        self.perform(self.session.opened(self.position_bytes, self.is_comparing))

    def good_step(self) -> None:
        """What a good device, or the store, does next."""
        transfer = self.session.transfer
        match self.session.state:
            case S.AWAIT_INIT | S.AWAIT_NEXT_INIT:
                self.receive(init())
            case S.AWAIT_PATH:
                self.receive(c.Path(PATH))
            case S.AWAIT_METADATA:
                self.receive(c.MetadataResponse(METADATA))
            case S.AWAIT_START:
                self.receive(c.Start(SIZE, 0))
            case S.AWAIT_SYNC:
                assert transfer is not None
                self.receive(c.Sync(transfer.resume_bytes))
            case S.RECEIVING:
                assert transfer is not None
                self.receive(DataRun(bytes(min(1024, transfer.remaining_bytes)), 1))
            case S.OPENING | S.STORING:
                self.answer(1, False)


ANYTHING: st.SearchStrategy[DeviceEvent] = st.one_of(
    st.sampled_from([init(), init(), init(IDLE), init(0x04000000), init(imei=OTHER_IMEI)]),
    st.sampled_from([c.Path(PATH), c.Path(b"\0"), c.MetadataResponse(METADATA)]),
    st.builds(c.Start, st.sampled_from([SIZE, SIZE, 1, 1024, 0, 1 << 30]), st.sampled_from([0, 0, 1])),
    st.builds(c.Sync, st.sampled_from([0, 1, 1024, 2048, SIZE, 5000])),
    st.builds(DataRun, st.integers(1, 3000).map(bytes), st.just(1), st.sampled_from([None, None, 0, 1024])),
    st.builds(c.Status, st.integers(0, 30)),
    st.sampled_from([StepFound(1), Damaged("again"), c.Data(b"a", 0), c.EnhancedData(0, b"a", 0)]),
)
STEPS: st.SearchStrategy[Callable[[Watched], None]] = st.one_of(
    st.just(Watched.good_step),
    st.just(Watched.good_step),
    ANYTHING.map(lambda event: lambda watched: watched.receive(event)),
    st.tuples(st.integers(0, 3), st.booleans()).map(lambda answer: lambda watched: watched.answer(*answer)),
    st.just(lambda watched: watched.perform(watched.session.timed_out())),
    st.sampled_from(
        [
            lambda watched: watched.perform(watched.session.taken_over()),
            lambda watched: watched.perform(watched.session.stop()),
            lambda watched: watched.perform(watched.session.lost()),
            lambda watched: watched.perform(watched.session.store_failed("told by the test")),
            Watched.good_step,
            Watched.good_step,
        ]
    ),
)


@given(
    st.builds(SessionOptions, metadata=st.booleans(), repeat=st.booleans(), max_resyncs=st.sampled_from([2, 100])),
    st.integers(0, 9),
    st.lists(STEPS, min_size=10, max_size=60),
)
@hypothesis_settings(max_examples=200)
def test_nothing_is_acknowledged_before_it_is_durable(
    options: SessionOptions, head_start: int, steps: list[Callable[[Watched], None]]
) -> None:
    """Whatever happens, in any order: no early acknowledgement, no hole, no half file, nothing left open."""
    watched = Watched(options)
    for _ in range(head_start):
        watched.good_step()
    for step in steps:
        step(watched)
    watched.perform(watched.session.lost())
    watched.answer(0, False)
    assert not watched.is_open


@pytest.mark.parametrize("trouble", [StepFound(1), Damaged("again"), c.Sync(0), c.Start(SIZE, 0)])
def test_a_device_that_never_gets_on_is_left(trouble: DeviceEvent) -> None:
    """Trouble without end ends the session, though every RESUME is followed by SYNC and a little data."""
    watched = Watched(SessionOptions())
    for _ in range(SessionOptions().max_resyncs + 1):
        while watched.session.state is not S.RECEIVING:
            watched.good_step()
        watched.receive(DataRun(b"a", 1))
        watched.receive(trouble)
    assert watched.session.state is S.ENDED
