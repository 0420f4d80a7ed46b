"""What differs from family to family in a conversation: how files are asked for, and what is counted."""

import struct

import pytest
from conftest import (
    IDLE,
    IMEI,
    METADATA,
    PATH,
    Conversation,
    MemoryStore,
    acts,
    content,
    cut,
    data_frames,
    enhanced_frames,
    init,
    notes,
    resume,
    session_in,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dsmgateway import commands as c
from dsmgateway import effects as fx
from dsmgateway.commands import Offer
from dsmgateway.crc import crc16
from dsmgateway.errors import UnexpectedCommand
from dsmgateway.events import Event
from dsmgateway.families import IDENTIFIERS, Family
from dsmgateway.frames import DataRun
from dsmgateway.metadata import Metadata
from dsmgateway.reception import MAX_OTHER_STARTS, SessionOptions
from dsmgateway.session import Session
from dsmgateway.states import State

S = State
FRONT_PHOTO = 0x04000000
#: Version 3, type 4, time in ms, trigger 9, 0 s, 25 frames/s, 120 min, position: 32 bytes.
DUALCAM_METADATA = struct.pack(">BBQBHBhdd", 3, 4, 1_763_800_000_123, 9, 0, 25, 120, 54.687157, 25.279652)
QUALIFIER = Metadata.parse(DUALCAM_METADATA, 5, b"%photof").identity


def dualcam(packets: int = 3, held_bytes: int = 0, metadata: bytes = DUALCAM_METADATA) -> Session:
    """A session that waits for the SYNC of a front photo."""
    session = Session(SessionOptions())
    session.receive(init(FRONT_PHOTO))
    session.receive(c.MetadataResponse(metadata))
    session.receive(c.Start(packets, 0))
    session.opened(held_bytes, False)
    return session


# -- DualCam up to protocol 5


def test_dualcam_photo_step_by_step() -> None:
    """Asked for by its identifier, counted in packets from 1, and as long as its last packet says."""
    session = Session(SessionOptions())
    request = c.MetadataRequest(b"%photof")
    assert acts(session.receive(init(FRONT_PHOTO))) == [fx.Claim(str(IMEI)), fx.Send(request)]
    assert acts(session.receive(c.MetadataResponse(DUALCAM_METADATA))) == [fx.Send(c.FileRequest(b"%photof"))]
    opening = fx.Open(b"%photof", 3072, 0, compare=True, in_packets=True, qualifier=QUALIFIER)
    assert acts(session.receive(c.Start(3, 0))) == [opening]
    opened = session.opened(0, False)
    assert acts(opened) == resume(0)
    assert notes(opened)[Event.FILE_OPENED]["packets"] == 3
    assert session.receive(c.Sync(1)) == [fx.ExpectData(3072, whole_packets=True)]
    assert session.receive(DataRun(bytes(2048), 2)) == [fx.Append(0, bytes(2048))]
    finish = fx.Finish(5, Metadata.parse(DUALCAM_METADATA, 5, b"%photof"))
    assert session.receive(DataRun(b"end", 1)) == [fx.Append(2048, b"end"), finish]
    stored = session.stored("media/1", 2051, False)
    assert acts(stored) == [fx.Send(c.RepeatInit())]
    assert notes(stored)[Event.FILE_STORED]["size"] == 2051


@pytest.mark.parametrize(("held_bytes", "offset"), [(0, 0), (1024, 2), (2048, 3)])
def test_resume_in_packets(held_bytes: int, offset: int) -> None:
    """RESUME names the packet to go on with, the first one is 1, and SYNC answers in kind."""
    session = dualcam(3, held_bytes)
    assert session.receive(c.Start(3, 0)) == [fx.Send(c.Resume(offset), renews=False)]
    assert acts(session.receive(c.Sync(max(offset, 1)))) == [fx.ExpectData(3072 - held_bytes, whole_packets=True)]
    assert session.receive(DataRun(bytes(1024), 1))[0] == fx.Append(held_bytes, bytes(1024))


def test_sync_0_is_the_first_packet() -> None:
    """Packets are counted from 1; a device that says 0 can only mean the start."""
    session = dualcam()
    assert session.receive(c.Sync(0)) == [fx.ExpectData(3072, whole_packets=True)]


@pytest.mark.parametrize("offset", [2, 4, 3072])
def test_sync_beyond_what_is_held_is_asked_again(offset: int) -> None:
    """A hole is one in packets too."""
    effects = dualcam().receive(c.Sync(offset))
    assert acts(effects) == resume(0)
    assert notes(effects)[Event.SYNC_HOLE] == {"asked": 0, "answered": offset, "held": 0}


def test_rewind_two_syncs_and_a_repeated_resume() -> None:
    """Whatever SYNC says is followed, in mid-file too; the packets overwrite what was there."""
    session = dualcam(5)
    session.receive(c.Sync(1))
    session.receive(DataRun(bytes(3072), 3))
    assert session.receive(c.Sync(2)) == [fx.ExpectData(4096, whole_packets=True)]
    assert session.receive(DataRun(b"a" * 1024, 1)) == [fx.Append(1024, b"a" * 1024)]
    assert acts(session.timed_out()) == resume(3)
    assert acts(session.timed_out()) == resume(3)
    assert acts(session.receive(c.Sync(3))) == acts(session.receive(c.Sync(3))) == [fx.ExpectData(3072, True)]
    assert session.receive(DataRun(b"b" * 1024, 1)) == [fx.Append(2048, b"b" * 1024)]


@pytest.mark.parametrize(
    ("data", "frames"), [(b"short", 1), (bytes(1024 + 1023), 2), (bytes(4 * 1024), 4), (bytes(3 * 1024 + 1), 4)]
)
def test_only_the_last_packet_can_be_short(data: bytes, frames: int) -> None:
    """A short packet in mid-file would shift all that follow it; it is asked for again, as is one too many."""
    session = dualcam(3)
    session.receive(c.Sync(1))
    effects = session.receive(DataRun(data, frames))
    assert acts(effects) == resume(0)
    assert Event.DATA_REFUSED in notes(effects)


@pytest.mark.parametrize("length_bytes", [1, 1023, 1024])
def test_any_last_packet_ends_the_file(length_bytes: int) -> None:
    """The last packet settles the size, whatever it is."""
    session = dualcam(1)
    session.receive(c.Sync(1))
    assert [type(effect) for effect in session.receive(DataRun(bytes(length_bytes), 1))] == [fx.Append, fx.Finish]


@pytest.mark.parametrize(("packets", "taken"), [(0, False), (1, True), (9, True), (10, False), (0xFFFFFFFF, False)])
def test_size_limit_counts_bytes(packets: int, taken: bool) -> None:
    """The limit is one of bytes, whatever START counts."""
    session = Session(SessionOptions(max_file_size=9 * 1024))
    session.receive(init(FRONT_PHOTO))
    session.receive(c.MetadataResponse(b""))
    effects = session.receive(c.Start(packets, 0))
    assert any(isinstance(effect, fx.Open) for effect in effects) is taken
    assert (Event.FILE_REFUSED in notes(effects)) is not taken
    assert (session.state is S.ENDED) is not taken


def test_without_metadata_nothing_tells_the_file() -> None:
    """A file whose metadata does not come is named by its identifier only, which the store must not trust."""
    session = Session(SessionOptions())
    session.receive(init(FRONT_PHOTO))
    assert acts(session.timed_out()) == [fx.Send(c.FileRequest(b"%photof"))]
    (opening,) = acts(session.receive(c.Start(3, 0)))
    assert opening == fx.Open(b"%photof", 3072, 0, compare=True, in_packets=True, qualifier="")


def test_metadata_of_an_identifier_is_always_asked_for() -> None:
    """Nothing else tells which file it names, and only a file that is known can be taken up again."""
    session = Session(SessionOptions(metadata=False))
    assert acts(session.receive(init(0x20000000)))[-1] == fx.Send(c.MetadataRequest(b"%videor"))
    session = Session(SessionOptions(metadata=False))
    session.receive(init())
    assert acts(session.receive(c.Path(PATH))) == [fx.Send(c.FileRequest(PATH))]


def test_metadata_after_start_does_not_change_which_file_it_is() -> None:
    """The file is what it was taken for at START; metadata that came too late only goes into the record."""
    session = Session(SessionOptions())
    session.receive(init(FRONT_PHOTO))
    session.timed_out()
    session.receive(c.Start(1, 0))
    session.opened(0, False)
    assert session.receive(c.MetadataResponse(DUALCAM_METADATA)) == []
    assert session.receive(c.MetadataResponse(b"of the next file")) == []
    session.receive(c.Sync(1))
    (reopened,) = acts(session.other_file())
    assert isinstance(reopened, fx.Open) and reopened.qualifier == ""
    session.opened(0, False)
    session.receive(c.Sync(1))
    assert session.receive(DataRun(b"a", 1))[-1] == fx.Finish(5, Metadata.parse(DUALCAM_METADATA, 5, b"%photof"))


def test_start_again_after_data_is_compared() -> None:
    """An identifier may name another file by then, of as many packets: the store gets to see it."""
    session = dualcam(9)
    session.receive(c.Sync(1))
    assert acts(session.receive(c.Start(9, 0))) == resume(0), "nothing has been taken yet"
    session.receive(c.Sync(1))
    opening = fx.Open(b"%photof", 9216, 0, compare=False, in_packets=True, qualifier=QUALIFIER)
    for _ in range(MAX_OTHER_STARTS):
        session.receive(DataRun(bytes(3072), 3))
        assert acts(session.receive(c.Start(9, 0))) == [fx.Park(), opening]
        assert acts(session.opened(2048, False)) == resume(3)
        session.receive(c.Sync(3))
    session.receive(DataRun(bytes(1024), 1))
    assert [type(effect) for effect in acts(session.receive(c.Start(9, 0)))] == [fx.Park, fx.End]


@pytest.mark.parametrize("late", [c.MetadataResponse(b""), c.Start(3, 0)])
def test_answers_to_what_was_asked_before_init(late: c.DeviceCommand) -> None:
    """A device that begins again while an answer is on its way is not sent away for it."""
    session = Session(SessionOptions())
    session.receive(init())
    assert session.receive(late) == []
    assert session.state is S.AWAIT_PATH
    session.receive(c.Path(PATH))
    if isinstance(late, c.Start):
        assert session.receive(late) == []
        assert session.state is S.AWAIT_METADATA


def stuck_at(*commands: c.DeviceCommand) -> Session:
    """A session with a front photo and a front video to take that went so far."""
    session = Session(SessionOptions())
    session.receive(init(0x14000000))
    for command in commands:
        session.receive(command)
    return session


def test_what_cannot_be_had_does_not_stand_in_the_way() -> None:
    """What a session ended over without any of its data is asked for last the next time; all else stays in order."""
    empty = stuck_at(c.MetadataResponse(b""), c.Start(0, 0))
    gone = stuck_at(c.MetadataResponse(b""), c.Status(17))
    silent = stuck_at(c.MetadataResponse(b""))
    silent.timed_out()
    for session in (empty, gone, silent):
        assert session.state is S.ENDED
        assert session.stuck_on is Offer.FRONT_PHOTO
        following = Session(SessionOptions())
        following.last_resort = session.stuck_on
        assert acts(following.receive(init(0x34000000)))[-1] == fx.Send(c.MetadataRequest(b"%videof"))
        alone = Session(SessionOptions())
        alone.last_resort = session.stuck_on
        assert acts(alone.receive(init(FRONT_PHOTO)))[-1] == fx.Send(c.MetadataRequest(b"%photof"))


def test_who_brings_something_is_not_stuck() -> None:
    """A lost link, a stop, and a file that breaks off after some data change nothing."""
    for end in (Session.lost, Session.stop, Session.taken_over):
        session = stuck_at(c.MetadataResponse(b""), c.Start(3, 0))
        end(session)
        assert session.stuck_on == Offer(0)
    session = stuck_at(c.MetadataResponse(b""), c.Start(3, 0))
    session.opened(0, False)
    session.receive(c.Sync(1))
    session.receive(DataRun(bytes(1024), 1))
    session.receive(c.Status(4))
    assert session.stuck_on == Offer(0)


def test_start_of_another_size_is_another_file() -> None:
    """Metadata that belonged to the file before is not taken for that of the next."""
    session = dualcam(3)
    session.receive(c.Sync(1))
    (parked, opening) = acts(session.receive(c.Start(4, 0)))
    assert parked == fx.Park()
    assert opening == fx.Open(b"%photof", 4096, 0, compare=True, in_packets=True, qualifier="")


def test_other_file_is_taken_from_its_start() -> None:
    """Where the store finds that the identifier names another file now, that one is asked for whole."""
    opening = fx.Open(b"%photof", 3072, 0, compare=False, in_packets=True, qualifier=QUALIFIER)
    syncing, receiving, storing = dualcam(3, 1024), dualcam(3, 1024), dualcam(3, 1024)
    receiving.receive(c.Sync(2))
    storing.receive(c.Sync(2))
    storing.receive(DataRun(bytes(2048), 2))
    for session in (syncing, receiving, storing):
        effects = session.other_file()
        assert acts(effects) == [opening]
        assert notes(effects) == {Event.ANOTHER_FILE: {"device_path": "%photof", "qualifier": QUALIFIER}}
        assert acts(session.opened(0, False)) == resume(0)


@pytest.mark.parametrize("state", [state for state in State if state not in (S.AWAIT_SYNC, S.RECEIVING, S.STORING)])
def test_other_file_can_come_too_late(state: State) -> None:
    """The store's finding is of no use for a file that was let go since."""
    session = session_in(state)
    assert session.other_file() == []
    assert session.state is state


# -- what is offered, and in which order


def test_photos_before_videos_after_paths() -> None:
    """Of several offers the path comes first, then photos, then videos; each INIT tells anew."""
    asked = []
    session = Session(SessionOptions(metadata=False))
    offers = 0x3E000000
    while offers:
        (request,) = [effect.command for effect in session.receive(init(offers)) if isinstance(effect, fx.Send)]
        if isinstance(request, c.PathRequest):
            (request,) = [effect.command for effect in session.receive(c.Path(PATH)) if isinstance(effect, fx.Send)]
        else:
            (answer,) = session.receive(c.MetadataResponse(DUALCAM_METADATA))
            assert isinstance(answer, fx.Send)
            request = answer.command
        assert isinstance(request, c.FileRequest)
        asked.append(request.path)
        session.receive(c.Start(1, 0))
        session.opened(0, False)
        session.receive(c.Sync(1 if request.path in IDENTIFIERS.values() else 0))
        session.receive(DataRun(b"a", 1))
        session.stored("media/1", 1, False)
        offers &= offers - 1
    assert asked == [PATH, b"%photof", b"%photor", b"%videof", b"%videor"]
    assert acts(session.receive(init(IDLE)))[-2:] == [fx.Send(c.Close()), fx.End("nothing to send")]


def test_an_empty_path_leads_to_the_next_offer() -> None:
    """A device that has no path after all still has its photos."""
    session = Session(SessionOptions())
    session.receive(init(0x0A000000))
    effects = session.receive(c.Path(b"\0"))
    assert acts(effects) == [fx.Send(c.MetadataRequest(b"%photor"))]
    assert Event.NO_FILE in notes(effects)


def test_a_late_path_beside_an_identifier_is_ignored() -> None:
    """PATH that comes twice, as after a repeated INIT, does no harm to a file that has none."""
    session = dualcam_asked()
    assert session.receive(c.Path(PATH)) == []
    assert session.state is S.AWAIT_METADATA


def dualcam_asked() -> Session:
    """A session that waits for the metadata of a front photo."""
    session = Session(SessionOptions())
    session.receive(init(FRONT_PHOTO))
    return session


def test_families_that_are_not_accepted() -> None:
    """What is not accepted is named in the log and passed over; where nothing else is, the session is closed."""
    session = Session(SessionOptions(families=frozenset({Family.DSM})))
    effects = session.receive(init(0x0C000000))
    assert acts(effects)[1:] == [fx.Send(c.Close()), fx.End("nothing to send")]
    refused = [
        effect.fields for effect in effects if isinstance(effect, fx.Note) and effect.event is Event.OFFER_REFUSED
    ]
    assert refused == [
        {"device_path": "%photof", "family": "dualcam"},
        {"device_path": "%photor", "family": "dualcam"},
    ]


def test_a_path_that_is_not_accepted() -> None:
    """A path tells the family; what is not accepted is not asked for, and the next offer is."""
    options = SessionOptions(families=frozenset({Family.DUALCAM}))
    session = Session(options)
    session.receive(init(0x06000000))
    effects = session.receive(c.Path(PATH))
    assert notes(effects) == {Event.OFFER_REFUSED: {"device_path": PATH[:-1].decode(), "family": "dsm"}}
    assert acts(effects) == [fx.Send(c.MetadataRequest(b"%photof"))]
    session = Session(options)
    session.receive(init())
    assert acts(session.receive(c.Path(PATH))) == [fx.Send(c.Close()), fx.End("family dsm is not accepted")]


def test_unknown_families_are_taken() -> None:
    """A camera nobody has heard of is no reason to lose its files."""
    session = Session(SessionOptions())
    session.receive(init())
    assert acts(session.receive(c.Path(b"newcam/1.jpg\0"))) == [fx.Send(c.MetadataRequest())]


def test_a_file_that_grew_before_it_was_asked_for() -> None:
    """START of another size is heard in mid-file and before RESUME reached the device: what is stored is all of it."""
    file = content(15 * 1024 - 5)
    talk = Conversation()
    told = [init(FRONT_PHOTO), c.MetadataResponse(DUALCAM_METADATA), c.Start(10, 0), c.Start(15, 0)]
    talk.feed(b"".join(command.encode() for command in told))
    assert talk.commands[-2:] == [c.Resume(0), c.Resume(0)]
    talk.feed(b"".join([c.Sync(1).encode(), *data_frames(file)[:5]]))
    talk.perform(talk.session.timed_out())
    talk.feed(data_frames(file)[5] + c.Start(15, 0).encode())
    assert talk.commands[-2:] == [c.Resume(6), c.Resume(0)]  # nothing is known of the other file
    talk.feed(c.Sync(1).encode() + b"".join(data_frames(file)))
    assert last_is(talk.store, file)
    talk = Conversation()
    talk.feed(b"".join(command.encode() for command in [init(), c.Path(PATH), c.MetadataResponse(METADATA)]))
    frames = data_frames(file)
    talk.feed(c.Start(5000, 0).encode() + c.Sync(0).encode() + frames[0])
    talk.perform(talk.session.timed_out())
    talk.feed(frames[1] + frames[2] + c.Start(len(file), 0).encode())
    assert talk.commands[-1] == c.Resume(0) and talk.noted.count("file.opened") == 2
    talk.feed(c.Sync(0).encode() + b"".join(frames))
    assert last_is(talk.store, file)


# -- the first SYNC tells


def path_session(size: int, options: SessionOptions | None = None) -> Session:
    """A session that waits for the first SYNC of a file asked for by path."""
    session = Session(options or SessionOptions())
    for command in (init(), c.Path(PATH), c.MetadataResponse(METADATA), c.Start(size, 0)):
        session.receive(command)
    session.opened(0, False)
    return session


def test_sync_1_after_resume_0_counts_packets() -> None:
    """A transfer in bytes that is asked for at 0 cannot begin at 1: the device counts packets, START too."""
    session = path_session(3)
    effects = session.receive(c.Sync(1))
    assert notes(effects)[Event.IN_PACKETS] == {"device_path": PATH[:-1].decode(), "packets": 3}
    assert acts(effects) == [fx.Park(), fx.Open(PATH[:-1], 3072, 0, compare=True, in_packets=True)]
    assert acts(session.opened(2048, False)) == resume(3)
    assert session.receive(c.Sync(3)) == [fx.ExpectData(1024, whole_packets=True)]
    assert [type(effect) for effect in session.receive(DataRun(b"end", 1))] == [fx.Append, fx.Finish]


def test_sync_1_with_a_size_that_is_too_large_in_packets() -> None:
    """The limit holds for what START says, once it is known what it counts."""
    session = path_session(10, SessionOptions(max_file_size=9 * 1024))
    effects = session.receive(c.Sync(1))
    assert [type(effect) for effect in acts(effects)] == [fx.Park, fx.End]
    assert Event.FILE_REFUSED in notes(effects)


def test_sync_1_later_is_what_it_says() -> None:
    """Once a SYNC at a byte was taken, 1 is a byte as well."""
    session = path_session(5000)
    session.receive(c.Sync(0))
    session.receive(DataRun(bytes(1024), 1))
    assert session.receive(c.Sync(1)) == [fx.ExpectData(4999)]


def test_sync_1_after_another_resume_is_what_it_says() -> None:
    """The rule is about a file asked for at 0; a rewind to byte 1 is odd, but can be followed."""
    session = session_in(S.AWAIT_SYNC, held_bytes=1024)
    assert session.receive(c.Sync(1)) == [fx.ExpectData(2499)]


# -- protocol 6


@pytest.mark.parametrize("offset_bytes", [0, 1023, 2048])
def test_enhanced_data_out_of_place_is_asked_for_again(offset_bytes: int) -> None:
    """What ENHANCED_DATA says of its place must be where the file goes on."""
    session = session_in(S.AWAIT_SYNC, held_bytes=1024)
    session.receive(c.Sync(1024))
    effects = session.receive(DataRun(bytes(1024), 1, offset_bytes))
    assert acts(effects) == resume(1024)
    assert Event.DATA_REFUSED in notes(effects)


def test_json_metadata_goes_into_the_record() -> None:
    """From protocol 6 on metadata is JSON, which a binary layout would misread; extra keys are kept."""
    session = Session(SessionOptions())
    body = b'{"version": 1, "file": {}, "extra": [2]}'
    for event in (init(protocol_id=6), c.Path(PATH), c.MetadataResponse(body), c.Start(1, 0)):
        session.receive(event)
    session.opened(0, False)
    session.receive(c.Sync(0))
    finish = session.receive(DataRun(b"a", 1))[-1]
    assert finish == fx.Finish(6, Metadata.parse(body, 6, PATH[:-1]))
    assert isinstance(finish, fx.Finish) and finish.metadata is not None and finish.metadata.document is not None
    assert finish.metadata.document["extra"] == [2]


def test_identifiers_from_protocol_6_on_count_bytes() -> None:
    """Every camera counts bytes there, however it offers its file."""
    session = Session(SessionOptions())
    session.receive(init(FRONT_PHOTO, protocol_id=6))
    session.receive(c.MetadataResponse(b"{}"))
    assert acts(session.receive(c.Start(3000, 0))) == [fx.Open(b"%photof", 3000, 0, compare=True, qualifier="")]


# -- whole conversations, bytes in and bytes out


def last_is(store: MemoryStore, file: bytes) -> bool:
    """Whether the last file stored is this one."""
    return store.stored[-1]["content"] == file


def dualcam_opening(file: bytes) -> list[bytes]:
    """What a DualCam sends up to SYNC."""
    packets = -(-len(file) // 1024)
    told = [init(FRONT_PHOTO), c.MetadataResponse(DUALCAM_METADATA), c.Start(packets, 0), c.Sync(1)]
    return [command.encode() for command in told]


def test_video_of_584_packets_with_all_that_can_go_wrong() -> None:
    """A truncated frame, a flipped bit, a rewind, a repeated RESUME with its two SYNCs: byte-equal at the end."""
    file = content(583 * 1024 + 77, seed=584)
    frames = data_frames(file)
    talk = Conversation()
    talk.feed(b"".join(dualcam_opening(file)))
    talk.feed(b"".join(frames[:100]) + frames[100][:580] + b"".join(frames[100:200]))
    assert c.Resume(0) in talk.commands and talk.noted.count("data.step_found") == 1
    flipped = bytearray(frames[200])
    flipped[500] ^= 4
    talk.feed(bytes(flipped) + b"".join(frames[201:204]))
    assert talk.commands[-1] == c.Resume(201)
    talk.perform(talk.session.timed_out())
    assert talk.commands[-1] == c.Resume(201)
    from_201 = data_frames(file, 200 * 1024)
    talk.feed(c.Sync(201).encode() + b"".join(from_201[:3]) + c.Sync(201).encode() + b"".join(from_201[:50]))
    talk.feed(c.Sync(150).encode() + b"".join(data_frames(file, 149 * 1024)))
    assert talk.commands[-1] == c.RepeatInit()
    assert last_is(talk.store, file)


@pytest.mark.parametrize("size_bytes", [1, 1024, 1025, 4999, 5000, 5120, 40_000])
@pytest.mark.parametrize("in_packets", [False, True])
def test_sizes_decide_nothing(size_bytes: int, in_packets: bool) -> None:
    """Small files in bytes and large ones in packets are what they were offered as."""
    file = content(size_bytes)
    told = [init(), c.Path(PATH), c.MetadataResponse(METADATA), c.Start(size_bytes, 0), c.Sync(0)]
    opening = dualcam_opening(file) if in_packets else [command.encode() for command in told]
    talk = Conversation()
    talk.feed(b"".join([*opening, *data_frames(file)]))
    assert talk.commands[-1] == c.RepeatInit()
    assert last_is(talk.store, file)


def test_a_file_whose_packets_are_counted_unexpectedly() -> None:
    """A path file that turns out to be counted in packets is taken whole, without one more RESUME."""
    file = content(4 * 1024 + 5)
    talk = Conversation()
    told = [init(), c.Path(PATH), c.MetadataResponse(METADATA), c.Start(5, 0), c.Sync(1)]
    talk.feed(b"".join(command.encode() for command in told) + b"".join(data_frames(file)))
    assert talk.commands[-2:] == [c.Resume(0), c.RepeatInit()]
    assert last_is(talk.store, file)
    assert talk.store.parts.get((str(IMEI), PATH[:-1], 5, 0, False, None)) in (None, bytearray())


ENHANCED_FILE = content(9 * 1024 + 321, seed=6)


@given(
    plain=st.lists(st.booleans(), min_size=10, max_size=10),
    damage=st.sampled_from(["none", "cut", "flip", "place"]),
    at=st.integers(0, 9),
    places=st.lists(st.integers(0, 12_000), max_size=30),
)
@hypothesis_settings(max_examples=60)
def test_mixed_frames_of_protocol_6(plain: list[bool], damage: str, at: int, places: list[int]) -> None:
    """DATA and ENHANCED_DATA in any order, cut anywhere, one frame damaged: the file is whole at the end."""
    file, talk = ENHANCED_FILE, Conversation()
    told = [
        init(protocol_id=6),
        c.Path(b"dashcam/1.mp4\0"),
        c.MetadataResponse(b"{}"),
        c.Start(len(file), 0),
        c.Sync(0),
    ]
    frames = enhanced_frames(file, plain=plain.__getitem__)
    if damage == "cut":
        frames.insert(at, frames[at][: len(frames[at]) // 2])
    elif damage == "flip":
        frames[at] = frames[at][:-1] + bytes([frames[at][-1] ^ 1])
    elif damage == "place":
        packet = file[at * 1024 : at * 1024 + 1024]
        frames[at] = c.EnhancedData(at * 1024 + 1, packet, crc16(file[: at * 1024 + len(packet)])).encode()
    for piece in cut(b"".join([*(command.encode() for command in told), *frames]), places):
        talk.feed(piece)
    for _ in range(3):
        if talk.store.stored:
            break
        if talk.session.state is S.RECEIVING:
            talk.perform(talk.session.timed_out())
        resumed = talk.commands[-1]
        assert isinstance(resumed, c.Resume)
        talk.feed(c.Sync(resumed.offset).encode() + b"".join(enhanced_frames(file, resumed.offset)))
    assert last_is(talk.store, file)
    assert talk.commands[-1] == c.RepeatInit()


def test_path_of_another_file_is_still_refused() -> None:
    """Where a path was asked for, another one in mid-conversation breaks the protocol."""
    with pytest.raises(UnexpectedCommand, match="PATH of another file"):
        session_in(S.AWAIT_START).receive(c.Path(b"other.jpg\0"))


def test_an_answer_to_nothing_is_a_bug() -> None:
    """A session that waits for an answer has asked for a file; anything else is loud."""
    session = session_in(S.AWAIT_INIT)
    session.state = S.AWAIT_PATH
    with pytest.raises(AssertionError, match="nothing was asked for in state await_path"):
        session.receive(c.Path(PATH))
