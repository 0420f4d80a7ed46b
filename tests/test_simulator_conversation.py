"""The device's side of the protocol, byte by byte."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conversing import (
    CLOSE,
    CONTENT,
    DONE,
    IDLE,
    IMEI,
    INIT_HEAD,
    METADATA_REQUEST,
    NAME,
    PATH_REQUEST,
    REPEAT_INIT,
    Scripted,
    begun,
    file_request,
    frames,
    pulled,
    resume,
    said,
    sync,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmgateway.commands import Data
from dsmgateway.commands import Path as PathAnswer
from dsmgateway.crc import crc16
from dsmgateway.simulator.content import BytesContent
from dsmgateway.simulator.conversation import Conversation, Cut, End, Send, Stall, State
from dsmgateway.simulator.device import CameraFile, Coverage, Device
from dsmgateway.simulator.faults import Fate, Faults, FaultSource

VECTORS = Path(__file__).parent / "vectors"
INIT_OFFERING = INIT_HEAD + bytes.fromhex("02000000")
INIT_IDLE = INIT_HEAD + IDLE
FILE_REQUEST = file_request(NAME + b"\0")
FILE = CameraFile(NAME, BytesContent(CONTENT), b"m" * 26)


def device_with(*files: CameraFile, faults: FaultSource | None = None) -> Device:
    return Device(IMEI, files, faults)


def test_whole_conversation_byte_by_byte():
    """One file from INIT to CLOSE is what the protocol says, to the byte."""
    device = device_with(CameraFile(NAME, BytesContent(CONTENT), b"m" * 26, states_crc=True))
    conversation = Conversation(device)
    assert said(conversation) == INIT_OFFERING
    assert said(conversation, PATH_REQUEST) == b"\x00\x0d\x00\x1e" + NAME + b"\0"
    assert said(conversation, METADATA_REQUEST) == b"\x00\x0b\x00\x1a" + b"m" * 26
    assert said(conversation, FILE_REQUEST) == b"\x00\x01\x00\x06\x00\x00\x09\x00" + crc16(CONTENT).to_bytes(2, "big")
    assert said(conversation, resume(0)) == sync(0) + b"".join(frames(CONTENT))
    assert not device.deliveries[0].acknowledged
    assert said(conversation, REPEAT_INIT) == INIT_IDLE
    assert device.deliveries[0].acknowledged
    conversation.receive(CLOSE)
    assert pulled(conversation) == [End()]
    assert device.violations == []


def recorded(name: str) -> dict[str, object]:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


def replay(steps: list[dict[str, str]], conversation: Conversation) -> tuple[bytes, bytes]:
    """Say what the gateway said in a recording; return what the device says and what it said there."""
    ours, theirs = said(conversation), b""
    for step in steps:
        data = bytes.fromhex(step.get("hex", ""))
        if step["from"] == "device":
            theirs += data
        else:
            ours += said(conversation, data)
    return ours, theirs


def data_of(steps: list[dict[str, str]]) -> dict[bytes, CameraFile]:
    """The files of a recording that nothing disturbed, put together from its bytes."""
    stream = b"".join(bytes.fromhex(step.get("hex", "")) for step in steps if step["from"] == "device")
    files, position = [], 16
    while position < len(stream):
        identity, length = int.from_bytes(stream[position : position + 2], "big"), 0
        if identity == 0:
            position += 16
            continue
        length = int.from_bytes(stream[position + 2 : position + 4], "big")
        body = stream[position + 4 : position + 4 + length]
        position += 4 + length
        match identity:
            case 0x0D:
                files.append({"path": body[:-1], "data": b"", "metadata": b"", "crc": False})
            case 0x0B:
                files[-1]["metadata"] = body
            case 0x01:
                files[-1]["crc"] = any(body[4:])
            case 0x04:
                files[-1]["data"] += body[:-2]
    return [CameraFile(file["path"], BytesContent(file["data"]), file["metadata"], file["crc"]) for file in files]


@pytest.mark.parametrize("name", ["dsm_snapshot", "dsm_snapshot_coalesced", "dsm_two_files", "dsm_empty_path"])
def test_undisturbed_recordings_are_said_again(name):
    """With the same files the device says the very bytes of the recorded ones."""
    steps = recorded(name)["connections"][0]["steps"]
    imei = f"{int(steps[0]['hex'][8:24], 16):015d}"
    device = Device(imei, data_of(steps), idle_settings=0)
    ours, theirs = replay(steps, Conversation(device))
    assert ours == theirs
    assert device.violations == []


def test_idle_recording_is_said_again():
    """A tracker without files says what a real idle one says."""
    steps = recorded("dsm_nothing_to_send")["connections"][0]["steps"]
    imei = f"{int(steps[0]['hex'][8:24], 16):015d}"
    ours, theirs = replay(steps, Conversation(Device(imei, [])))
    assert ours == theirs


def test_resumed_recording_is_said_again():
    """The second connection of a recording goes on where the gateway asks, with the CRC chain begun anew."""
    first, second = (connection["steps"] for connection in recorded("dsm_resume_next_connection")["connections"])
    head = b"".join(bytes.fromhex(step["hex"])[4:-2] for step in first if step.get("hex", "").startswith("00040402"))
    file = data_of(second)[0]
    content = BytesContent(head[:9216] + file.content.read(0, file.size))
    device = Device("356917000000062", [CameraFile(file.path, content, file.metadata)], idle_settings=0)
    ours, theirs = replay(second, Conversation(device))
    assert ours == theirs
    assert device.violations == []


def test_status_done_acknowledges_and_ends():
    """STATUS 0 after the last DATA drops the file, and the device leaves."""
    device = device_with(FILE, FILE)
    conversation = begun(device)
    said(conversation, resume(0))
    conversation.receive(DONE)
    assert pulled(conversation) == [End()]
    assert [delivery.acknowledged for delivery in device.deliveries] == [True, False]
    assert device.violations == []


def test_close_after_the_last_data_acknowledges():
    """A device that is sent away after the last DATA believes that its file has arrived."""
    device = device_with(FILE)
    said(conversation := begun(device), resume(0))
    said(conversation, CLOSE)
    assert device.deliveries[0].acknowledged


def test_close_before_that_keeps_the_file():
    """A device that is sent away earlier keeps its file, and nobody is to blame."""
    device = device_with(FILE)
    said(begun(device), CLOSE)
    assert (len(device.queue), device.violations) == (1, [])


@pytest.mark.parametrize("word", [REPEAT_INIT, DONE])
def test_acknowledgement_before_any_data_is_a_violation(word):
    """A file of which nothing was sent stays in the queue, and the gateway is to blame."""
    device = device_with(FILE)
    said(begun(device), word)
    assert len(device.queue) == 1
    assert "0 of 2304 bytes" in device.violations[0]


def test_acknowledgement_in_the_middle_is_a_violation():
    """A file of which only a part was sent stays in the queue."""
    device = device_with(FILE)
    conversation = begun(device)
    conversation.receive(resume(0))
    assert [conversation.pull(), conversation.pull()] == [Send(sync(0)), Send(frames(CONTENT)[0])]
    conversation.receive(REPEAT_INIT)
    assert conversation.pull() == End()
    assert device.violations == ["REPEAT_INIT came too early: 1024 of 2304 bytes of the file were sent"]


def test_acknowledgement_of_a_damaged_frame_is_a_violation():
    """A gateway that takes a damaged frame for a good one is found out."""
    device = device_with(FILE, faults=Scripted({3: Fate.CORRUPT}))
    said(conversation := begun(device), resume(0))
    said(conversation, REPEAT_INIT)
    assert device.violations == ["REPEAT_INIT came too early: the frame at 2048 had gone out damaged"]
    assert len(device.queue) == 1


@pytest.mark.parametrize("word", [REPEAT_INIT, DONE])
@pytest.mark.parametrize("pulls", [0, 1, 2])
def test_acknowledgement_after_a_resume_that_crossed_the_last_frames_is_good(word, pulls):
    """On a slow link a RESUME crosses the last frames; what was whole then can be acknowledged at any time after it."""
    device = device_with(FILE)
    conversation = begun(device)
    assert said(conversation, resume(0)).endswith(frames(CONTENT)[-1])
    conversation.receive(resume(1024))
    for _ in range(pulls):
        conversation.pull()
    conversation.receive(word)
    assert (len(device.queue), device.violations) == (0, [])


def test_acknowledgement_after_a_resume_for_what_was_not_sent_is_a_violation():
    """Who asks for the beginning says that it is not there."""
    device = device_with(FILE)
    said(conversation := begun(device), resume(1024))
    conversation.receive(resume(0))
    conversation.receive(REPEAT_INIT)
    assert device.violations == ["REPEAT_INIT came too early: 0 of 2304 bytes of the file were sent"]
    assert len(device.queue) == 1


def test_acknowledgement_after_a_resume_for_what_went_out_damaged_is_a_violation():
    """What was not whole before RESUME is not whole before it was sent again."""
    device = device_with(FILE, faults=Scripted({2: Fate.CORRUPT}))
    said(conversation := begun(device), resume(0))
    conversation.receive(resume(1024))
    conversation.receive(REPEAT_INIT)
    assert device.violations == ["REPEAT_INIT came too early: 1024 of 2304 bytes of the file were sent"]


def test_an_acknowledgement_is_for_one_file():
    """That a file was whole says nothing of the next one, nor of one that is asked for anew."""
    device = device_with(FILE, CameraFile(b"dsm/picture/251102/091601.jpg", BytesContent(CONTENT), b""))
    said(conversation := begun(device), resume(0))
    said(conversation, REPEAT_INIT)
    said(conversation, file_request(b"dsm/picture/251102/091601.jpg\0"))
    conversation.receive(REPEAT_INIT)
    assert device.violations == ["REPEAT_INIT came too early: 0 of 2304 bytes of the file were sent"]


def test_corrupt_frame_goes_out_clean_after_resume():
    """The damaged frame differs in one bit; RESUME brings the clean one."""
    device = device_with(FILE, faults=Scripted({2: Fate.CORRUPT}))
    conversation = begun(device)
    good = frames(CONTENT)
    answer = said(conversation, resume(0)).removeprefix(sync(0) + good[0])
    damaged = int.from_bytes(answer[:1030], "big") ^ int.from_bytes(good[1], "big")
    assert damaged.bit_count() == 1
    assert answer[1030:] == good[2]
    assert said(conversation, resume(1024)) == sync(1024) + b"".join(frames(CONTENT[1024:]))
    said(conversation, REPEAT_INIT)
    assert (device.violations, device.tally.faults) == ([], {"corrupt": 1})


def test_truncated_frame_is_followed_by_the_same_frame_whole():
    """A frame is cut and sent again; the CRC chain goes on as if nothing had been."""
    conversation = begun(device := device_with(FILE, faults=Scripted({2: Fate.TRUNCATE})))
    good = frames(CONTENT)
    answer = said(conversation, resume(0)).removeprefix(sync(0) + good[0])
    assert answer.endswith(good[1] + good[2])
    cut = answer.removesuffix(good[1] + good[2])
    assert 0 < len(cut) < len(good[1])
    assert good[1].startswith(cut)
    said(conversation, REPEAT_INIT)
    assert device.violations == []


def test_stall_comes_before_its_frame():
    """The device says nothing for a while, and then goes on."""
    conversation = begun(device_with(FILE, faults=Scripted({2: Fate.STALL})))
    conversation.receive(resume(0))
    good = [Send(frame) for frame in frames(CONTENT)]
    assert pulled(conversation) == [Send(sync(0)), good[0], Stall(2.0), good[1], good[2]]


def test_cut_ends_in_the_middle_of_a_frame():
    """The link is lost with a part of a frame on it, and the conversation is over."""
    conversation = begun(device := device_with(FILE, faults=Scripted({2: Fate.CUT})))
    conversation.receive(resume(0))
    *before, cut = pulled(conversation)
    assert before == [Send(sync(0)), Send(frames(CONTENT)[0])]
    assert isinstance(cut, Cut)
    assert frames(CONTENT)[1].startswith(cut.lead)
    assert cut.tail == ()
    conversation.receive(REPEAT_INIT)
    assert (pulled(conversation), len(device.queue), device.violations) == ([], 1, [])


def test_silent_cut_has_the_rest_of_the_frame_and_more_to_deliver():
    """What an old socket still delivers goes on exactly where it stopped; it hears no acknowledgement."""
    conversation = begun(device := device_with(FILE, faults=Scripted({1: Fate.CUT}, silent_cut=True)))
    conversation.receive(resume(0))
    *_, cut = pulled(conversation)
    delivered = cut.lead + b"".join(cut.tail)
    assert b"".join(frames(CONTENT)).startswith(delivered)
    assert len(delivered) > 1030
    assert conversation.state is State.OVER
    conversation.receive(REPEAT_INIT)
    assert len(device.queue) == 1


@pytest.mark.parametrize("in_flight", [1, 4])
def test_frames_in_flight_go_out_before_sync(in_flight):
    """RESUME in mid-transfer overtakes nothing: some frames come first, then SYNC, then the CRC chain from 0."""
    content = CONTENT * 4
    device = device_with(CameraFile(NAME, BytesContent(content), b""), faults=Scripted(in_flight=in_flight))
    conversation = begun(device)
    conversation.receive(resume(0))
    assert [conversation.pull(), conversation.pull()] == [Send(sync(0)), Send(frames(content)[0])]
    answer = said(conversation, resume(1024))
    assert answer == b"".join([*frames(content)[1 : 1 + in_flight], sync(1024), *frames(content[1024:])])
    assert device.deliveries[0].bytes_sent_again == in_flight * 1024


def test_rewinding_device_syncs_lower_than_asked():
    """SYNC is the device's own word: it may go back, and the data goes with it."""
    content = CONTENT * 4
    device = device_with(CameraFile(NAME, BytesContent(content), b""), faults=Scripted(rewind=1.0))
    said(conversation := begun(device), resume(0))
    answer = said(conversation, resume(8192))
    offset_bytes = int.from_bytes(answer[4:8], "big")
    assert offset_bytes in (4096, 5120, 6144, 7168)
    assert answer == sync(offset_bytes) + b"".join(frames(content[offset_bytes:]))


def test_repeated_file_request_gets_start_again():
    """Each FILE_REQUEST is answered by a START and counts as the same connection."""
    conversation = begun(device := device_with(FILE))
    assert said(conversation, FILE_REQUEST) == b"\x00\x01\x00\x06\x00\x00\x09\x00\x00\x00"
    assert device.deliveries[0].connections == 1


def test_resume_at_the_end_is_all_sent():
    """A gateway that has all of the file gets SYNC, no DATA, and may acknowledge; what never went out is counted."""
    device = device_with(FILE)
    conversation = begun(device)
    assert said(conversation, resume(2304)) == sync(2304)
    said(conversation, REPEAT_INIT)
    assert (device.violations, device.deliveries[0].bytes_never_sent) == ([], 2304)


@pytest.mark.parametrize(
    ("command", "answer", "blame"),
    [
        (resume(0), "0005000400000006", "RESUME at 0 before START"),
        (b"\x00\x08\x00\x02x\0", "0005000400000011", "FILE_REQUEST for b'x\\x00'"),
        (b"GET / HTTP/1.1\r\n", "", "not the protocol"),
        (DONE, "", "STATUS 0 although no file was asked for"),
        (bytes.fromhex("0005000400000004"), "", "STATUS 4 (device aborted)"),
    ],
)
def test_what_a_gateway_must_not_do_ends_the_conversation(command, answer, blame):
    """Nonsense is refused as a device does it, and remembered."""
    conversation = Conversation(device := device_with(FILE))
    said(conversation)
    conversation.receive(command)
    *words, end = pulled(conversation)
    assert (b"".join(word.data for word in words), end) == (bytes.fromhex(answer), End())
    assert device.violations[0].startswith(blame)


def test_resume_beyond_the_end_is_refused():
    """A gateway cannot ask for what a file does not have."""
    conversation = begun(device := device_with(FILE))
    assert said(conversation, resume(2305)) == bytes.fromhex("0005000400000006")
    assert device.violations == ["RESUME at 2305 of 2304 bytes"]


def test_idle_device_gives_a_lone_nul_and_no_metadata():
    """Asked for what it does not have, a device says so."""
    conversation = Conversation(device_with())
    said(conversation)
    assert said(conversation, PATH_REQUEST) == PathAnswer(b"\0").encode()
    assert said(conversation, METADATA_REQUEST) == bytes.fromhex("000b0000")


LOCKSTEP = (PATH_REQUEST, METADATA_REQUEST, FILE_REQUEST, resume(0), resume(1024), resume(0), REPEAT_INIT, CLOSE)


def lockstep(cut: Callable[[bytes], list[bytes]]) -> list[object]:
    """What a device with all faults does when every command comes in the pieces that ``cut`` makes of it."""
    faults = FaultSource(Faults(corrupt=0.2, truncate=0.2, stall_s=1, rewind=0.3), "lockstep")
    conversation = Conversation(device_with(FILE, faults=faults))
    actions = pulled(conversation)
    for command in LOCKSTEP:
        for piece in cut(command):
            conversation.receive(piece)
            actions += pulled(conversation)
    return actions


@settings(max_examples=40)
@given(st.data())
def test_pieces_of_commands_make_no_difference(data):
    """However the gateway's bytes are cut, the device does the same."""

    def cut(command: bytes) -> list[bytes]:
        places = sorted(data.draw(st.sets(st.integers(1, len(command) - 1))))
        return [command[a:b] for a, b in zip([0, *places], [*places, None], strict=True)]

    assert lockstep(cut) == lockstep(lambda command: [command])


@given(st.binary(max_size=200))
def test_no_bytes_break_a_device(noise):
    """Whatever comes, the device answers, refuses or waits, and loses no file."""
    conversation = Conversation(device := device_with(FILE))
    conversation.receive(noise)
    pulled(conversation)
    assert len(device.queue) == 1


def test_bytes_sent_are_counted_once_and_again():
    """Repeated bytes are told from new ones."""
    device = device_with(FILE)
    conversation = begun(device)
    said(conversation, resume(0))
    said(conversation, resume(1024))
    delivery = device.deliveries[0]
    assert (delivery.bytes_sent, delivery.bytes_sent_again) == (2304 + 1280, 1280)
    assert device.tally.bytes_sent_again == 1280


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=20))
def test_coverage_counts_like_a_set(ranges):
    """Ranges that overlap, touch or leave gaps are counted byte by byte."""
    coverage, covered = Coverage(), set()
    for start, length in ranges:
        new = set(range(start, start + length)) - covered
        assert coverage.add(start, start + length) == len(new)
        covered |= new
    assert coverage.total_bytes == len(covered)


def test_frames_of_this_test_are_those_of_the_gateway():
    """The hand-made frames agree with the commands they stand for."""
    assert frames(CONTENT)[0] == Data(CONTENT[:1024], crc16(CONTENT[:1024])).encode()
