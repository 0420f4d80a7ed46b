"""What goes wrong on a camera's link, decided by a seed: the same seed and camera give the same faults in order.

The kinds are those seen on real links: flipped bits, cut frames that are sent again whole, stalls, lost connections,
and old sockets that go on delivering after the device has opened a new one. Decides only; the conversation carries it
out.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass

from dsmgateway.errors import ConfigError

#: DATA frames between two stalls, on average: about one stall a picture.
_FRAMES_PER_STALL = 64
#: Frames that a real device still sent between RESUME and its SYNC.
_MOST_IN_FLIGHT = 4
#: Frames that an old socket goes on delivering at most; real ones did so for 10 to 18 s, at some 4 frames a second.
_MOST_QUEUED = 40


class Fate(enum.Enum):
    """What happens to a DATA frame."""

    CLEAN = "clean"
    #: One bit is flipped.
    CORRUPT = "corrupt"
    #: Its beginning is sent, then the same frame whole.
    TRUNCATE = "truncate"
    #: Nothing is sent for a while, then the frame.
    STALL = "stall"
    #: The link is lost in its middle.
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Faults:
    """Which faults a link has; without arguments none.

    ``corrupt`` and ``truncate`` are probabilities a DATA frame (0..1); ``cut_every`` is the mean number of frames to a
    lost link (0: never); ``stall_s`` how long a stall lasts (0: none); ``silent_cut``: a lost link's socket stays open,
    deaf, and delivers what was queued; ``rewind`` the probability that SYNC is lower than the offset asked for;
    ``swap`` the probability that an identifier means another file after a link was lost in the middle of one. Raises
    `ConfigError` on a number out of range.
    """

    corrupt: float = 0.0
    truncate: float = 0.0
    cut_every: int = 0
    stall_s: float = 0.0
    silent_cut: bool = False
    rewind: float = 0.0
    swap: float = 0.0

    def __post_init__(self) -> None:
        for name in ("corrupt", "truncate", "rewind", "swap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"the probability to {name} must be 0 to 1, not {getattr(self, name)}")
        if self.corrupt + self.truncate > 1:
            raise ConfigError("the probabilities to corrupt and to truncate must be 1 or less together")
        if self.cut_every < 0 or self.stall_s < 0:
            raise ConfigError("the frames to a cut and the seconds of a stall must not be negative")


class FaultSource:
    """The faults of one camera, drawn one after the other."""

    __slots__ = ("_faults", "_frames_to_cut", "_random")

    def __init__(self, faults: Faults, seed: str) -> None:
        self._faults = faults
        self._random = random.Random(f"faults {seed}")
        self._frames_to_cut = self._next_cut()

    def fate(self) -> Fate:
        """Decide about the next DATA frame."""
        self._frames_to_cut -= 1
        if self._frames_to_cut == 0:
            self._frames_to_cut = self._next_cut()
            return Fate.CUT
        faults = self._faults
        if not (faults.corrupt or faults.truncate or faults.stall_s):
            return Fate.CLEAN
        luck = self._random.random()
        if luck < faults.corrupt:
            return Fate.CORRUPT
        if luck < faults.corrupt + faults.truncate:
            return Fate.TRUNCATE
        if faults.stall_s and self._random.random() * _FRAMES_PER_STALL < 1:
            return Fate.STALL
        return Fate.CLEAN

    def _next_cut(self) -> int:
        every = self._faults.cut_every
        return self._random.randint((every + 1) // 2, every + every // 2) if every else 0

    @property
    def stall_s(self) -> float:
        """Seconds that a stall lasts."""
        return self._faults.stall_s

    @property
    def silent_cut(self) -> bool:
        """Whether a lost link's socket stays open."""
        return self._faults.silent_cut

    def flipped(self, frame: bytes) -> bytes:
        """Return ``frame`` with one of its bits, header and CRC included, the other way round."""
        bit = self._random.randrange(len(frame) * 8)
        changed = bytearray(frame)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    def beginning(self, frame: bytes) -> bytes:
        """Return ``frame`` without its end: at least one byte of it, at most all but one."""
        return frame[: self._random.randrange(1, len(frame))]

    def resets(self) -> bool:
        """Decide whether a lost link ends with a reset instead of an orderly close."""
        return self._random.random() < 0.5

    def in_flight(self) -> int:
        """Decide how many DATA frames still go out between a RESUME in mid-transfer and its SYNC."""
        return self._random.randint(1, _MOST_IN_FLIGHT)

    def queued(self) -> int:
        """Decide how many DATA frames an old socket goes on delivering."""
        return self._random.randint(1, _MOST_QUEUED)

    def rewound_packets(self) -> int:
        """Decide by how many packets SYNC is lower than the offset asked for; mostly 0."""
        if not self._faults.rewind or self._random.random() >= self._faults.rewind:
            return 0
        return self._random.randint(1, _MOST_IN_FLIGHT)

    def swaps(self) -> bool:
        """Decide whether an identifier means another file after a link was lost."""
        return bool(self._faults.swap) and self._random.random() < self._faults.swap
