"""A device that is taken over again and again between the same addresses: two with one IMEI, or somebody's mischief.

The newest connection of a device wins, since a tracker opens a new one after a stall. Where two senders have the same
IMEI, each throws the other out, and no file is ever finished. What tells them from one device on a bad link is that
somebody *comes back* to take over from an address that was itself just thrown out:

- One device on one address, reconnecting every few seconds: never counted, the address is the same.
- One device whose address changes with each connection: not counted either, as long as the addresses are new. Where a
  carrier hands out the same few in turn, it can be; see below what that costs.
- Two senders: A, B, A, B ... Every one but the first two comes back.
- Somebody who takes a new address each time: only the device comes back, so it is the device that wins.

After so many returns within some minutes the one who took over last keeps the device: for a cool-down, nobody takes
over from another address as long as the holder's connection is there **and is heard of**, or waits for our disk. So a
device that has really moved gets in after `HOLDER_SILENT_S` at the latest, as its old connection is silent. One that is
there only to be in the way ends by its own time limits, and whoever comes then is protected in its place.

So of two devices with one IMEI each gets its turn. Which of two senders *is* the device cannot be told from an
address: the returns are odd in number, so who was there first keeps it, and who has two addresses can make all of them
alone. Against somebody who does that on purpose, again and again, only certificates help.

Pure: the time (seconds that never go back) is passed in. Bounded: see `MAX_DEVICES`, `MAX_ADDRESSES`.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from dataclasses import dataclass, field

#: Devices that were taken over from another address, of which that is remembered; the least recent is forgotten first.
MAX_DEVICES = 10_000
#: Addresses that are remembered of a device.
MAX_ADDRESSES = 8
#: Silence after which a holder is given up for a newcomer, though it is protected: a live transfer was silent for 10 s.
HOLDER_SILENT_S = 20.0


class Claim(enum.Enum):
    """What becomes of a connection that wants to speak for a device."""

    #: It takes over, as the newest always does.
    WINS = enum.auto()
    #: It takes over once more, and is then protected for the cool-down.
    KEEPS = enum.auto()
    #: It is refused, since the device is protected.
    REFUSED = enum.auto()


@dataclass(frozen=True, slots=True)
class Holder:
    """The connection that speaks for a device now: where it comes from, and when it was heard of last."""

    address: str
    heard: float


@dataclass(slots=True)
class _Record:
    #: When each address was thrown out last, the latest last.
    thrown_out: OrderedDict[str, float] = field(default_factory=OrderedDict)
    returns: deque[float] = field(default_factory=deque)
    kept_until: float = 0.0


class Flapping:
    """Remembers who took over from whom."""

    def __init__(self, takeovers: int, within_s: float, cooldown_s: float) -> None:
        """So many returns within this time protect the holder for ``cooldown_s``."""
        self._takeovers, self._within_s, self._cooldown_s = takeovers, within_s, cooldown_s
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        """How many devices are remembered."""
        return len(self._records)

    def claim(self, imei: str, address: str, holder: Holder | None, now: float) -> Claim:
        """Judge a connection from ``address`` that wants to take over from ``holder``, and remember it."""
        if holder is None or holder.address == address:
            return Claim.WINS
        record = self._records.setdefault(imei, _Record())
        self._records.move_to_end(imei)
        if len(self._records) > MAX_DEVICES:
            self._records.popitem(last=False)
        if now < record.kept_until and now - holder.heard < HOLDER_SILENT_S:
            return Claim.REFUSED
        came_back = now - record.thrown_out.pop(address, now - self._within_s) < self._within_s
        self._throw_out(record, holder.address, now)
        return self._came_back(record, now) if came_back else Claim.WINS

    def _throw_out(self, record: _Record, address: str, now: float) -> None:
        record.thrown_out[address] = now
        record.thrown_out.move_to_end(address)
        if len(record.thrown_out) > MAX_ADDRESSES:
            record.thrown_out.popitem(last=False)

    def _came_back(self, record: _Record, now: float) -> Claim:
        record.returns.append(now)
        while now - record.returns[0] >= self._within_s:
            record.returns.popleft()
        if len(record.returns) < self._takeovers:
            return Claim.WINS
        record.returns.clear()
        record.kept_until = now + self._cooldown_s
        return Claim.KEEPS
