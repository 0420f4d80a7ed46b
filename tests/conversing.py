"""The gateway's side of a conversation with a simulated device, by hand and byte by byte."""

from __future__ import annotations

from dsmgateway.crc import crc16
from dsmgateway.simulator.conversation import Conversation, Cut, End, Send
from dsmgateway.simulator.faults import Fate, Faults, FaultSource

PATH_REQUEST = bytes.fromhex("000c00020000")
METADATA_REQUEST = bytes.fromhex("000a0000")
REPEAT_INIT = bytes.fromhex("0009")
CLOSE = bytes.fromhex("00000000")
DONE = bytes.fromhex("0005000400000000")
IMEI = "356917000000013"


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
