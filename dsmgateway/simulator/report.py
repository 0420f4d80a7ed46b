"""How a run of simulated cameras ended, as plain values: for the exit code, the JSON file and the table.

Knows no Twisted and no terminal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Protocol

from dsmgateway.families import family_of
from dsmgateway.simulator.content import whole
from dsmgateway.simulator.device import Delivery, Device, Tally


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file; times in seconds since the run began, ``source`` the picture it was, if any.

    Files of one device share a ``device_path`` where it is an identifier: ``imei`` and ``sha256`` tell them apart.
    """

    imei: str
    family: str
    protocol: int
    device_path: str
    size: int
    sha256: str
    source: str
    acknowledged: bool
    acknowledged_s: float | None
    sent_s: float | None
    offered_s: float | None
    connections: int
    bytes_sent: int
    bytes_sent_again: int
    bytes_never_sent: int


@dataclass(frozen=True, slots=True)
class CameraRow:
    """One camera; ``gave_up`` says why it did, if it did."""

    imei: str
    files: int
    acknowledged: int
    connections: int
    gave_up: str
    violations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FleetResult:
    """A whole run."""

    seconds: float
    tally: Tally = field(repr=False)
    cameras: tuple[CameraRow, ...] = field(repr=False)
    files: tuple[FileRow, ...] = field(repr=False)

    @property
    def is_good(self) -> bool:
        """Whether every file was acknowledged, and the gateway did nothing that it must not do."""
        return self.tally.acknowledged == self.tally.offered and not self.tally.violations

    @property
    def reconnects(self) -> int:
        """Connections beyond the first one of each camera."""
        return sum(max(0, camera.connections - 1) for camera in self.cameras)

    @property
    def families(self) -> dict[str, tuple[int, int]]:
        """For each family that there is, how many files were acknowledged, and of how many."""
        counts: dict[str, tuple[int, int]] = {}
        for file in self.files:
            done, offered = counts.get(file.family, (0, 0))
            counts[file.family] = done + file.acknowledged, offered + 1
        return dict(sorted(counts.items()))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why cameras gave up and what the gateway did wrong, each reason once, the commonest first."""
        counts: dict[str, int] = {}
        for camera in self.cameras:
            for reason in (camera.gave_up, *camera.violations):
                if reason:
                    counts[reason] = counts.get(reason, 0) + 1
        return tuple(sorted(counts, key=lambda reason: -counts[reason]))

    def as_json(self) -> dict[str, object]:
        """Return all of it as values that JSON has: ``summary``, ``cameras`` and ``files``."""
        summary = {**asdict(self.tally), "reconnects": self.reconnects, "seconds": round(self.seconds, 3)}
        summary["faults"] = dict(self.tally.faults)
        return {
            "summary": summary | {"good": self.is_good},
            "cameras": [asdict(camera) for camera in self.cameras],
            "files": [asdict(file) for file in self.files],
        }


class Travelled(Protocol):
    """A device with what its connections were like."""

    device: Device
    connections: int
    gave_up: str


def result_of(tally: Tally, seconds: float, trackers: Iterable[Travelled]) -> FleetResult:
    """Put the result together; hashes every file, so it is for the end of a run."""
    cameras: list[CameraRow] = []
    files: list[FileRow] = []
    for tracker in trackers:
        device = tracker.device
        done = sum(delivery.acknowledged for delivery in device.deliveries)
        violations = tuple(device.violations)
        cameras.append(
            CameraRow(device.imei, len(device.deliveries), done, tracker.connections, tracker.gave_up, violations)
        )
        files.extend(_file_row(device, delivery) for delivery in device.deliveries)
    return FleetResult(seconds, tally, tuple(cameras), tuple(files))


def _file_row(device: Device, delivery: Delivery) -> FileRow:
    file = delivery.file
    return FileRow(
        imei=device.imei,
        family=family_of(file.path).value,
        protocol=device.protocol_id,
        device_path=file.path.decode("ascii", "backslashreplace"),
        size=file.size,
        sha256=hashlib.sha256(whole(file.content)).hexdigest(),
        source=file.source,
        acknowledged=delivery.acknowledged,
        acknowledged_s=delivery.acknowledged_s,
        sent_s=delivery.sent_s,
        offered_s=delivery.offered_s,
        connections=delivery.connections,
        bytes_sent=delivery.bytes_sent,
        bytes_sent_again=delivery.bytes_sent_again,
        bytes_never_sent=delivery.bytes_never_sent,
    )
