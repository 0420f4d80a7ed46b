"""What a conversation is about at each moment, as somebody can tell who hears one side of it or both.

The file and the unit in which START, RESUME and SYNC count follow from the same rules as in the gateway. A device that
is asked by identifier never says which file it sends: where the gateway's side is not heard, it is the first that INIT
offers. Knows nothing of bytes on the wire.
"""

from __future__ import annotations

from dsmgateway.asked import in_order
from dsmgateway.commands import (
    DeviceCommand,
    FileRequest,
    GatewayCommand,
    Init,
    MetadataRequest,
    Offer,
    Path,
    Resume,
    Start,
    Sync,
)
from dsmgateway.explain import Explained, explain
from dsmgateway.families import IDENTIFIERS, Unit, row_of, unit_of
from dsmgateway.packets import first_byte


class Subject:
    """The protocol, the current file and its unit; every command of either side goes through `hear`, in order.

    ``device_path`` is the path without NUL or the identifier, empty as long as it is not known; ``unit`` is None before
    START. ``size_in_packets_after_all``: by the SYNC that was heard last it turned out that START had told packets.
    """

    def __init__(self) -> None:
        self.protocol_id = 5
        self.device_path = b""
        self.unit: Unit | None = None
        self.size_in_packets_after_all: int | None = None
        #: What is asked for where the device has no path.
        self._identifier = b""
        self._start: Start | None = None
        #: What the last RESUME asked for; None where the gateway is not heard.
        self._resumed_at: int | None = None
        self._synced = False

    def hear(self, command: DeviceCommand | GatewayCommand) -> None:
        """Take a command of either side."""
        self.size_in_packets_after_all = None
        match command:
            case Init():
                identifiers = [
                    IDENTIFIERS[offer] for offer in in_order(command.offers, Offer(0)) if offer in IDENTIFIERS
                ]
                self.protocol_id = command.protocol_id
                self._identifier = identifiers[0] if identifiers else b""
                self._begin(b"" if Offer.FILE in command.offers else self._identifier)
            case Path(path):
                self._go_on_with(path.rstrip(b"\0") or self._identifier)
            case MetadataRequest(path) | FileRequest(path):
                self._go_on_with(path.rstrip(b"\0") or self.device_path)
            case Start():
                self._hear_start(command)
            case Resume(offset):
                self._resumed_at = offset
            case Sync(offset):
                self._hear_sync(offset)

    def explain(self, command: DeviceCommand | GatewayCommand) -> Explained:
        """Say what the command says that was heard last."""
        return explain(command, self.protocol_id, self.device_path, self.unit)

    def place_bytes(self, offset: int) -> int:
        """Return the byte at which the data begins that this SYNC announces."""
        return first_byte(offset) if self.unit is Unit.PACKETS else offset

    def _go_on_with(self, device_path: bytes) -> None:
        if device_path != self.device_path:
            self._begin(device_path)

    def _begin(self, device_path: bytes) -> None:
        self.device_path, self.unit, self._start = device_path, None, None

    def _hear_start(self, start: Start) -> None:
        if start != self._start:
            self._start, self._synced, self._resumed_at = start, False, None
            self.unit = unit_of(row_of(self.device_path).offer, self.protocol_id)

    def _hear_sync(self, offset: int) -> None:
        """A transfer in bytes that was asked for at 0 cannot begin at 1."""
        if self._start and self.unit is Unit.BYTES and offset == 1 and not self._resumed_at and not self._synced:
            self.unit, self.size_in_packets_after_all = Unit.PACKETS, self._start.size
        if self._resumed_at is None or offset <= self._resumed_at:  # else the gateway does not take it
            self._synced = True
