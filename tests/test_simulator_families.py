"""The device's side of the protocol for every family and both generations: how files are asked for and counted."""

from __future__ import annotations

import pytest
from conversing import (
    BAD_ANSWER_TO_RESUME,
    CANNOT_READ_FILE,
    CLOSE,
    CONTENT,
    DONE,
    IDLE,
    IMEI,
    INIT_HEAD,
    METADATA_REQUEST,
    PATH_REQUEST,
    REPEAT_INIT,
    Scripted,
    begun,
    file_of,
    file_request,
    frames,
    metadata,
    metadata_request,
    pulled,
    resume,
    said,
    start,
    sync,
)

from dsmgateway.commands import Offer
from dsmgateway.crc import crc16
from dsmgateway.families import IDENTIFIERS, Unit
from dsmgateway.simulator.asking import counting_in
from dsmgateway.simulator.content import BytesContent
from dsmgateway.simulator.conversation import Conversation, Cut, End, Send
from dsmgateway.simulator.device import CameraFile, Device
from dsmgateway.simulator.faults import Fate, FaultSource
from dsmgateway.simulator.frames import Enhanced, Frames

OTHER = CONTENT[::-1] + b"the end"
PATHS = {
    "dsm": b"dsm/picture/251102/081601.jpg",
    "adas": b"mdas9/video/251102/081601.mp4",
    "dashcam": b"dashcam/picture/251102/081601.jpg",
    "dualcam": b"dualcam_rear/video/251102/081601.h265",
}


def enhanced(data: bytes, position: int = 0) -> list[bytes]:
    """The ENHANCED_DATA frames of ``data`` from here on, CRC chained from 0."""
    made, crc = [], 0
    for at in range(position, len(data), 1024):
        piece = data[at : at + 1024]
        crc = crc16(piece, crc)
        body = at.to_bytes(4, "big") + piece + crc.to_bytes(2, "big")
        made.append(b"\x00\x0e" + len(body).to_bytes(2, "big") + body)
    return made


@pytest.mark.parametrize("protocol_id", [5, 6, 7])
@pytest.mark.parametrize("family", ["dsm", "adas", "dashcam"])
def test_paths_are_asked_for_and_counted_in_bytes(family: str, protocol_id: int) -> None:
    """Whatever its protocol, a file that is told by PATH is asked for by it and counted in bytes from 0."""
    name = PATHS[family]
    device = Device(IMEI, [file_of(name)], protocol_id=protocol_id)
    conversation = Conversation(device)
    assert said(conversation)[12:] == bytes.fromhex("02000000")
    assert said(conversation, PATH_REQUEST) == b"\x00\x0d" + (len(name) + 1).to_bytes(2, "big") + name + b"\0"
    assert said(conversation, METADATA_REQUEST) == metadata(b"about " + name)
    assert said(conversation, file_request(name + b"\0")) == start(2304)
    assert said(conversation, resume(1024)) == sync(1024) + b"".join(frames(CONTENT[1024:]))
    assert said(conversation, REPEAT_INIT)[12:] == IDLE
    assert (len(device.queue), device.violations) == (0, [])


@pytest.mark.parametrize("offer", list(IDENTIFIERS))
def test_identifiers_are_asked_for_and_counted_in_packets(offer: Offer) -> None:
    """DualCam up to protocol 5 offers each kind by its own bit and is asked for it by identifier, in packets from 1."""
    name = IDENTIFIERS[offer]
    device = Device(IMEI, [file_of(name)])
    conversation = Conversation(device)
    assert said(conversation) == INIT_HEAD + bytes([offer, 0, 0, 0])
    assert said(conversation, metadata_request(name)) == metadata(b"about " + name)
    assert said(conversation, file_request(name)) == start(3)
    assert said(conversation, resume(0)) == sync(1) + b"".join(frames(CONTENT))
    assert said(conversation, REPEAT_INIT) == INIT_HEAD + IDLE
    assert (device.deliveries[0].acknowledged, device.violations) == (True, [])


@pytest.mark.parametrize(("packet", "position"), [(0, 0), (1, 0), (2, 1024), (3, 2048)])
def test_resume_in_packets(packet: int, position: int) -> None:
    """RESUME n means data from (n-1) packets on, 0 the first one; the last packet is shorter; the CRC begins at 0."""
    conversation = begun(Device(IMEI, [file_of(b"%photof")]), b"%photof")
    answer = said(conversation, resume(packet))
    assert answer == sync(max(packet, 1)) + b"".join(frames(CONTENT[position:]))
    assert answer[-258:-2] == CONTENT[2048:]


def test_resume_beyond_the_last_packet_is_refused() -> None:
    """A file of three packets has no fourth one."""
    conversation = begun(device := Device(IMEI, [file_of(b"%photof")]), b"%photof")
    assert said(conversation, resume(4)) == BAD_ANSWER_TO_RESUME
    assert device.violations == ["RESUME at 4 of 3 packets"]


@pytest.mark.parametrize(("size", "packets"), [(1, 1), (1023, 1), (1024, 1), (1025, 2), (2048, 2), (2304, 3)])
def test_start_counts_the_last_packet_however_short_it_is(size: int, packets: int) -> None:
    """The last packet counts as one, and every packet's position is its own again."""
    counting = counting_in(Unit.PACKETS)
    assert counting.total(size) == packets
    assert [counting.position_of(n) for n in range(1, packets + 1)] == list(range(0, size, 1024))
    assert [counting.offset_of(position) for position in range(0, size, 1024)] == list(range(1, packets + 1))


def test_files_of_a_kind_come_one_after_the_other() -> None:
    """An identifier means the next file of its kind; the one before leaves by its acknowledgement only."""
    device = Device(IMEI, [file_of(b"%photor"), file_of(b"%photor", OTHER), file_of(b"%videof")])
    conversation = Conversation(device)
    assert said(conversation)[12] == 0x08 | 0x10
    for content, left in ((CONTENT, 0x18), (OTHER, 0x10)):
        said(conversation, file_request(b"%photor"))
        assert said(conversation, resume(0)) == sync(1) + b"".join(frames(content))
        assert said(conversation, REPEAT_INIT)[12] == left
    assert [delivery.acknowledged for delivery in device.deliveries] == [True, True, False]
    assert device.violations == []


def test_metadata_is_that_of_the_next_file_of_the_kind() -> None:
    """METADATA_REQUEST with an identifier tells of that kind, without one of the file that PATH would tell."""
    about = [
        CameraFile(b"%photof", BytesContent(b"x"), b"first"),
        CameraFile(b"%photof", BytesContent(b"y"), b"second"),
    ]
    conversation = Conversation(Device(IMEI, [*about, file_of(b"%videof"), file_of(PATHS["dsm"])]))
    said(conversation)
    assert said(conversation, metadata_request(b"%photof")) == metadata(b"first")
    assert said(conversation, metadata_request(b"%videof")) == metadata(b"about %videof")
    assert said(conversation, METADATA_REQUEST) == metadata(b"about " + PATHS["dsm"])
    assert said(conversation, metadata_request(b"%photor")) == metadata(b"")


def test_a_kind_that_has_nothing_cannot_be_asked_for() -> None:
    """FILE_REQUEST for a kind whose bit was not set ends with STATUS 17 and is the gateway's fault."""
    conversation = Conversation(device := Device(IMEI, [file_of(b"%photof")]))
    said(conversation)
    conversation.receive(file_request(b"%photor"))
    assert pulled(conversation) == [Send(CANNOT_READ_FILE), End()]
    assert device.violations[0].startswith("FILE_REQUEST for b'%photor'")


@pytest.mark.parametrize("request_", [b"%photof\0", b"dualcam_front/picture/251102/081601.jpg"])
def test_each_file_is_asked_for_in_its_own_way(request_: bytes) -> None:
    """An identifier has no NUL; a path without its NUL is not the path that was told."""
    files = [file_of(b"%photof"), file_of(b"dualcam_front/picture/251102/081601.jpg")]
    conversation = Conversation(Device(IMEI, files))
    said(conversation)
    assert said(conversation, file_request(request_)) == CANNOT_READ_FILE


def test_dsm_and_dualcam_on_one_tracker() -> None:
    """Both kinds of bits come in one INIT, and each file is asked for and counted in its own way, in any order."""
    device = Device(IMEI, [file_of(b"%photof"), file_of(PATHS["dsm"]), file_of(b"%videor", OTHER)])
    conversation = Conversation(device)
    assert said(conversation) == INIT_HEAD + bytes.fromhex("26000000")
    assert said(conversation, file_request(b"%videor")) == start(3)
    assert said(conversation, resume(2)) == sync(2) + b"".join(frames(OTHER[1024:]))
    assert said(conversation, REPEAT_INIT)[12] == 0x06
    assert PATHS["dsm"] in said(conversation, PATH_REQUEST)
    assert said(conversation, file_request(PATHS["dsm"] + b"\0")) == start(2304)
    assert said(conversation, resume(1024)) == sync(1024) + b"".join(frames(CONTENT[1024:]))
    assert said(conversation, REPEAT_INIT)[12] == 0x04
    assert said(conversation, file_request(b"%photof")) == start(3)
    assert said(conversation, PATH_REQUEST) == bytes.fromhex("000d000100")
    assert [delivery.acknowledged for delivery in device.deliveries] == [False, True, True]
    assert device.violations == []


@pytest.mark.parametrize("word", [REPEAT_INIT, DONE])
def test_acknowledgement_before_the_last_packet_is_a_violation(word: bytes) -> None:
    """What was sent is counted in bytes, whatever START counted."""
    conversation = begun(device := Device(IMEI, [file_of(b"%photof")]), b"%photof")
    conversation.receive(resume(2))
    assert [conversation.pull(), conversation.pull()] == [Send(sync(2)), Send(frames(CONTENT[1024:])[0])]
    conversation.receive(word)
    assert conversation.pull() == End()
    assert "came too early: 2048 of 2304 bytes" in device.violations[0]
    assert len(device.queue) == 1


def test_acknowledgement_of_a_damaged_packet_is_a_violation() -> None:
    """A gateway that takes a damaged packet for a good one is found out."""
    conversation = begun(device := Device(IMEI, [file_of(b"%photof")], Scripted({2: Fate.CORRUPT})), b"%photof")
    said(conversation, resume(0))
    said(conversation, REPEAT_INIT)
    assert device.violations == ["REPEAT_INIT came too early: the frame at 1024 had gone out damaged"]
    assert device.deliveries[0].bytes_never_sent == 1024


@pytest.mark.parametrize("asked", [1, 2, 3, 12])
def test_rewind_in_packets_never_goes_below_the_first(asked: int) -> None:
    """A device that goes back does so by whole packets, and counts from 1 all the same."""
    content = CONTENT * 6
    device = Device(IMEI, [file_of(b"%videof", content)], Scripted(rewind=1.0))
    answer = said(begun(device, b"%videof"), resume(asked))
    packet = int.from_bytes(answer[4:8], "big")
    assert max(1, asked - 4) <= packet <= max(1, asked - 1)
    assert answer == sync(packet) + b"".join(frames(content[(packet - 1) * 1024 :]))
    assert device.tally.faults == {"rewind": 1}


def test_frames_in_flight_go_out_before_sync_in_packets() -> None:
    """RESUME in mid-transfer overtakes nothing, here either."""
    content = CONTENT * 4
    conversation = begun(Device(IMEI, [file_of(b"%videof", content)], Scripted(in_flight=2)), b"%videof")
    conversation.receive(resume(0))
    assert [conversation.pull(), conversation.pull()] == [Send(sync(1)), Send(frames(content)[0])]
    assert said(conversation, resume(2)) == b"".join([*frames(content)[1:3], sync(2), *frames(content[1024:])])


# -- protocol 6 and above


def test_dualcam_of_protocol_6_is_asked_for_by_path() -> None:
    """With unified transfer DualCam has paths as all others, and counts bytes."""
    conversation = Conversation(device := Device(IMEI, [file_of(PATHS["dualcam"])], protocol_id=6))
    assert said(conversation) == bytes.fromhex("0000 0006 0001449d36ffd20d 02000000")
    assert PATHS["dualcam"] in said(conversation, PATH_REQUEST)
    assert said(conversation, file_request(PATHS["dualcam"] + b"\0")) == start(2304)
    assert said(conversation, resume(2048)) == sync(2048) + b"".join(frames(CONTENT[2048:]))
    said(conversation, REPEAT_INIT)
    assert (len(device.queue), device.violations) == (0, [])


def test_enhanced_frames_tell_their_offset() -> None:
    """ENHANCED_DATA says where it belongs, in bytes; the CRC is that of the data alone, chained from 0 after SYNC."""
    device = Device(IMEI, [file_of(PATHS["dsm"])], protocol_id=6, frames=Frames(Enhanced.ALWAYS))
    conversation = begun(device, PATHS["dsm"] + b"\0")
    assert said(conversation, resume(0)) == sync(0) + b"".join(enhanced(CONTENT))
    assert said(conversation, resume(1024)) == sync(1024) + b"".join(enhanced(CONTENT, 1024))


def test_mixed_frames_chain_their_crc_over_both_kinds() -> None:
    """In one file some frames are of the one kind and some of the other; their data and CRCs are the same."""
    content = CONTENT * 6
    device = Device(IMEI, [file_of(PATHS["dsm"], content)], protocol_id=6, frames=Frames(Enhanced.MIX, "a"))
    answer = said(begun(device, PATHS["dsm"] + b"\0"), resume(0)).removeprefix(sync(0))
    kinds = []
    for plain, rich in zip(frames(content), enhanced(content), strict=True):
        frame = rich if answer.startswith(rich[:2]) else plain
        kinds.append(frame is rich)
        assert answer.startswith(frame)
        answer = answer.removeprefix(frame)
    assert answer == b""
    assert {True, False} == set(kinds)


@pytest.mark.parametrize("fate", [Fate.CORRUPT, Fate.TRUNCATE, Fate.STALL, Fate.CUT])
def test_faults_of_enhanced_frames(fate: Fate) -> None:
    """A link is as bad to the one kind of frame as to the other."""
    device = Device(IMEI, [file_of(PATHS["adas"])], Scripted({2: fate}), protocol_id=6, frames=Frames(Enhanced.ALWAYS))
    conversation = begun(device, PATHS["adas"] + b"\0")
    conversation.receive(resume(0))
    sync_, first, second, *_ = pulled(conversation)
    good = enhanced(CONTENT)
    assert (sync_, first) == (Send(sync(0)), Send(good[0]))
    match fate:
        case Fate.CORRUPT:
            assert (int.from_bytes(second.data, "big") ^ int.from_bytes(good[1], "big")).bit_count() == 1
        case Fate.TRUNCATE:
            assert second.data.endswith(good[1]) and len(second.data) > len(good[1])
        case Fate.CUT:
            assert good[1].startswith(second.lead)
    assert device.tally.faults == {fate.value: 1}


# -- odd ones


def test_odd_firmware_counts_packets_of_path_files_too() -> None:
    """A device that counts packets where others count bytes answers RESUME 0 with SYNC 1, a second RESUME as well."""
    device = Device(IMEI, [file_of(PATHS["dsm"], CONTENT * 4)], Scripted(in_flight=1), counts_packets=True)
    conversation = begun(device, PATHS["dsm"] + b"\0")
    assert said(conversation, file_request(PATHS["dsm"] + b"\0")) == start(9)
    conversation.receive(resume(0))
    assert [conversation.pull(), conversation.pull()] == [Send(sync(1)), Send(frames(CONTENT * 4)[0])]
    answer = said(conversation, resume(1))
    assert answer == frames(CONTENT * 4)[1] + sync(1) + b"".join(frames(CONTENT * 4))
    said(conversation, REPEAT_INIT)
    assert (device.violations, len(device.queue)) == ([], 0)


class Swapping(Scripted):
    """Faults that swap whenever they may."""

    def __init__(self, fates: dict[int, Fate]) -> None:
        super().__init__(fates, swap=1.0)


def lost(*files: CameraFile, faults: FaultSource | None = None) -> Device:
    """A device whose link was lost in the middle of the first of its files."""
    device = Device(IMEI, files, faults or Swapping({2: Fate.CUT}))
    conversation = begun(device, files[0].file_request)
    conversation.receive(resume(0))
    assert isinstance(pulled(conversation)[-1], Cut)
    return device


def contents(device: Device) -> list[bytes]:
    return [delivery.file.content.read(0, 10_000) for delivery in device.queue]


def test_swap_after_a_cut_puts_the_file_last_in_its_queue() -> None:
    """On the next connection the identifier means another file, and the interrupted one comes after it."""
    third = CONTENT[100:]
    device = lost(file_of(b"%photof"), file_of(b"%photof", OTHER), file_of(b"%photof", third), file_of(b"%photor"))
    conversation = begun(device, b"%photof")
    assert device.tally.faults == {"cut": 1, "swap": 1}
    for content in (OTHER, third, CONTENT):
        said(conversation, file_request(b"%photof"))
        assert said(conversation, resume(0)) == sync(1) + b"".join(frames(content))
        said(conversation, REPEAT_INIT)
    assert contents(device) == [CONTENT]
    assert (device.queue[0].file.path, device.violations) == (b"%photor", [])


@pytest.mark.parametrize("names", [[b"%photof"], [b"%photof", b"%photor"], [PATHS["dsm"] + b".1", PATHS["dsm"]]])
def test_swap_makes_no_difference_without_another_file_of_the_kind(names: list[bytes]) -> None:
    """A single file of its kind stays the next one, and a path always means its own file."""
    device = lost(*(file_of(name, bytes([number]) * 5000) for number, name in enumerate(names)))
    before = list(device.queue)
    Conversation(device)
    assert (list(device.queue), device.tally.faults) == (before, {"cut": 1})


def test_swap_only_follows_a_lost_link() -> None:
    """A conversation that ended in good order changes nothing, nor does one in which nothing was asked for."""
    device = Device(IMEI, [file_of(b"%photof"), file_of(b"%photof", OTHER)], Swapping({}))
    said(Conversation(device))
    said(begun(device, b"%photof"), resume(0) + CLOSE)
    Conversation(device)
    assert device.tally.faults == {}
    assert contents(device) == [CONTENT, OTHER]


def test_swap_also_follows_an_acknowledgement_that_was_lost() -> None:
    """A file that was all sent but not acknowledged is as open as one that was sent in part."""
    device = Device(IMEI, [file_of(b"%photof"), file_of(b"%photof", OTHER)], Swapping({}))
    said(begun(device, b"%photof"), resume(0))
    Conversation(device)
    assert contents(device) == [OTHER, CONTENT]


def test_without_the_fault_an_identifier_goes_on_meaning_the_same_file() -> None:
    """A device goes on where it was, unless it is one that swaps."""
    device = lost(file_of(b"%photof"), file_of(b"%photof", OTHER), faults=Scripted({2: Fate.CUT}))
    Conversation(device)
    assert contents(device) == [CONTENT, OTHER]
