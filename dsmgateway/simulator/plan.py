"""What a fleet of simulated cameras shall be and do, as one value, and the devices made by it.

Everything is decided by the seed and the number of the camera, so that a run can be repeated. Knows no Twisted.
"""

from __future__ import annotations

import enum
import os
import random
from dataclasses import dataclass, field

from dsmgateway.errors import ConfigError
from dsmgateway.families import UNKNOWN_FORMAT, Kind, format_of
from dsmgateway.simulator.cameras import View
from dsmgateway.simulator.content import BytesContent, Content, RandomPool
from dsmgateway.simulator.device import CameraFile, Device, Tally
from dsmgateway.simulator.faults import Faults, FaultSource
from dsmgateway.simulator.frames import Frames
from dsmgateway.simulator.identity import MAX_CAMERAS, imei_of, taken_at
from dsmgateway.simulator.makes import Make, mixed_make

#: Why a mixed fleet goes with no `Make` of one's own.
MIX_IS_DRAWN = "a mixed fleet draws its trackers: nothing of family, protocol and frames can be chosen"


class StartCrc(enum.Enum):
    """Whether START states the CRC-16 of the file (real cameras: never)."""

    ALWAYS = "always"
    NEVER = "never"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Picture:
    """A real file for cameras to offer, and what it is called here."""

    name: str
    data: bytes = field(repr=False)

    def fits(self, view: View) -> bool:
        """Whether it can be a file of this view: by its name; one that tells nothing can be any."""
        return format_of(os.fsencode(self.name)) in (view.form, UNKNOWN_FORMAT)


@dataclass(frozen=True, slots=True)
class Plan:
    """A fleet: ``cameras`` with ``files`` each: of the ``pictures`` those that fit, in turn, or else random bytes.

    ``sizes`` (from, to) are those of random files, ``video_sizes`` of random videos, where they differ. ``make`` is
    what all of them are; in a ``mix`` each is drawn, and a tracker that carries two cameras counts as one.

    ``rate_bytes_s`` is a camera's pace (0: as fast as TCP takes it); ``attempts`` how many connections in a row without
    any progress a camera tries before it gives up; ``timeout_s`` limits the whole run (0: no limit);
    ``reconnect_delay`` scales a real device's 0.3 to 4 s before it connects again; ``connects_per_s`` is the ramp at
    the beginning; after ``patience_s`` of silence a camera leaves the connection. ``first_camera`` is the number that
    the first IMEI is made of. Raises `ConfigError` on a number out of range, and on a picture that no camera takes.
    """

    cameras: int = 1
    files: int = 1
    pictures: tuple[Picture, ...] = ()
    sizes: tuple[int, int] = (20_000, 120_000)
    video_sizes: tuple[int, int] | None = None
    make: Make = field(default_factory=Make)
    mix: bool = False
    start_crc: StartCrc = StartCrc.RANDOM
    faults: Faults = field(default_factory=Faults)
    seed: int = 0
    first_camera: int = 1
    rate_bytes_s: int = 0
    attempts: int = 5
    timeout_s: float = 0.0
    reconnect_delay: float = 1.0
    connects_per_s: int = 500
    patience_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("cameras", "files", "attempts", "connects_per_s"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for lowest, highest in filter(None, (self.sizes, self.video_sizes)):
            if not 1 <= lowest <= highest <= 0xFFFFFFFF:
                raise ConfigError(f"sizes must go from 1 or more bytes upwards, not {lowest} to {highest}")
        if self.mix and self.make != Make():
            raise ConfigError(MIX_IS_DRAWN)
        for picture in () if self.mix else self.pictures:
            if not any(map(picture.fits, self.make.views)):
                raise ConfigError(f"the picture {picture.name}: these cameras take no such files")
        if self.first_camera < 0 or self.first_camera + self.cameras > MAX_CAMERAS:
            raise ConfigError(
                f"cameras have the numbers 0 to {MAX_CAMERAS - 1}; too many, or the first one is too high"
            )
        if min(self.rate_bytes_s, self.timeout_s, self.reconnect_delay, self.patience_s) < 0:
            raise ConfigError("rate, timeout, reconnect delay and patience must not be negative")

    def devices(self, tally: Tally) -> list[Device]:
        """Make the fleet's devices, which add to ``tally``."""
        pool = RandomPool(self.seed)
        numbers = range(self.first_camera, self.first_camera + self.cameras)
        return [self._device(number, pool, tally) for number in numbers]

    def _device(self, number: int, pool: RandomPool, tally: Tally) -> Device:
        imei = imei_of(number)
        make = mixed_make(self.seed, number) if self.mix else self.make
        dice = tuple(random.Random(f"{what} {self.seed} {imei}") for what in ("files", "views"))
        return Device(
            imei,
            [self._file(number, index, make, pool, *dice) for index in range(self.files)],
            FaultSource(self.faults, f"{self.seed} {imei}"),
            tally,
            protocol_id=make.protocol_id,
            counts_packets=make.counts_packets,
            frames=Frames(make.enhanced, f"{self.seed} {imei}"),
        )

    def _file(
        self, number: int, index: int, make: Make, pool: RandomPool, chance: random.Random, more: random.Random
    ) -> CameraFile:
        """Make a file; what only some families draw comes from ``more``, so that the others stay as they are."""
        view = make.view(index, more)
        when = taken_at(number, index)
        source, content = self._content(number, index, view, chance, pool)
        metadata = view.metadata(view.shot_at(when, chance, more), make.protocol_id)
        states_crc = self._states_crc(chance) and not view.is_identified
        return CameraFile(view.path_at(when), content, metadata, states_crc, source)

    def _states_crc(self, chance: random.Random) -> bool:
        """Decide whether START states the CRC; the START of a file with an identifier never does."""
        return chance.random() < 0.5 if self.start_crc is StartCrc.RANDOM else self.start_crc is StartCrc.ALWAYS

    def _content(
        self, number: int, index: int, view: View, chance: random.Random, pool: RandomPool
    ) -> tuple[str, Content]:
        if pictures := [picture for picture in self.pictures if picture.fits(view)]:
            place = (number - self.first_camera) * self.files + index
            picture = pictures[place % len(pictures)]
            return picture.name, BytesContent(picture.data)
        sizes = self.video_sizes if self.video_sizes and view.kind is Kind.VIDEO else self.sizes
        return "", pool.content(f"{number} {index}", chance.randint(*sizes))
