"""The gateway's side of a conversation with a simulated device, by hand and byte by byte."""

from __future__ import annotations

from dsmgateway.crc import crc16
from dsmgateway.simulator.content import BytesContent
from dsmgateway.simulator.conversation import Conversation, Cut, End, Send
from dsmgateway.simulator.device import CameraFile, Device
from dsmgateway.simulator.faults import Fate, Faults, FaultSource

PATH_REQUEST = bytes.fromhex("000c00020000")
METADATA_REQUEST = bytes.fromhex("000a0000")
REPEAT_INIT = bytes.fromhex("0009")
CLOSE = bytes.fromhex("00000000")
DONE = bytes.fromhex("0005000400000000")
IMEI = "356917000000013"
#: What every INIT of this device begins with up to protocol 5, and the settings of one that has nothing to offer.
INIT_HEAD = bytes.fromhex("0000 0005 0001449d36ffd20d")
IDLE = bytes.fromhex("40000400")
CANNOT_READ_FILE = bytes.fromhex("0005000400000011")
BAD_ANSWER_TO_RESUME = bytes.fromhex("0005000400000006")
NAME = b"dsm/picture/251102/081601.jpg"
#: A file that ends in the middle of its third packet.
CONTENT = bytes(range(256)) * 9


def file_of(name: bytes, content: bytes = CONTENT) -> CameraFile:
    return CameraFile(name, BytesContent(content), b"about " + name)


def file_request(name: bytes) -> bytes:
    return b"\x00\x08" + len(name).to_bytes(2, "big") + name


def metadata_request(identifier: bytes) -> bytes:
    return b"\x00\x0a\x00\x07" + identifier


def metadata(body: bytes) -> bytes:
    return b"\x00\x0b" + len(body).to_bytes(2, "big") + body


def start(total: int, crc: int = 0) -> bytes:
    return b"\x00\x01\x00\x06" + total.to_bytes(4, "big") + crc.to_bytes(2, "big")


def resume(offset: int) -> bytes:
    return b"\x00\x02\x00\x04" + offset.to_bytes(4, "big")


def sync(offset: int) -> bytes:
    return b"\x00\x03\x00\x04" + offset.to_bytes(4, "big")


def frames(data: bytes) -> list[bytes]:
    """The DATA frames of ``data``, CRC chained from 0."""
    made, crc = [], 0
    for start in range(0, len(data), 1024):
        piece = data[start : start + 1024]
        crc = crc16(piece, crc)
        made.append(b"\x00\x04" + (len(piece) + 2).to_bytes(2, "big") + piece + crc.to_bytes(2, "big"))
    return made


class Scripted(FaultSource):
    """Faults that a test has written down: fates by the number of the frame."""

    def __init__(self, fates: dict[int, Fate] | None = None, in_flight: int = 1, **faults: float) -> None:
        super().__init__(Faults(stall_s=2.0, **faults), "scripted")
        self._fates, self._frames, self._in_flight = fates or {}, 0, in_flight

    def fate(self) -> Fate:
        self._frames += 1
        return self._fates.get(self._frames, Fate.CLEAN)

    def in_flight(self) -> int:
        return self._in_flight


def pulled(conversation: Conversation) -> list[object]:
    """Everything the device does before it is the gateway's turn."""
    actions: list[object] = []
    while (action := conversation.pull()) is not None:
        actions.append(action)
        if isinstance(action, End | Cut):
            break
    return actions


def said(conversation: Conversation, command: bytes = b"") -> bytes:
    """The bytes that the device answers to ``command``."""
    conversation.receive(command)
    return b"".join(action.data for action in pulled(conversation) if isinstance(action, Send))


def begun(device: Device, name: bytes = NAME + b"\0") -> Conversation:
    """A conversation up to and with START."""
    conversation = Conversation(device)
    said(conversation, file_request(name))
    return conversation
