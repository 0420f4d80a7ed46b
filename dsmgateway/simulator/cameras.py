"""What the cameras of each family take: where it is on the device, and what is said about it.

How files are offered and named is in the table of `dsmgateway.families`, which is only read the other way round here:
from a camera to its paths and identifiers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from dsmgateway.commands import Offer
from dsmgateway.families import H265, JPEG, MP4, ROWS, UNIFIED_PROTOCOL, Family, Format, Kind, Row
from dsmgateway.simulator.describe import Shot, adas, dsm, dualcam, unified

_DRIVERS = ("JONAS K", "RASA P", "MINDAUGAS", "EGLE V", "TOMAS B")
#: File types of all families but DualCam.
_FILE_TYPES = {Kind.VIDEO: 0, Kind.PHOTO: 1}
#: Why a DSM camera takes a snapshot: it has seen something.
_DSM_EVENT = 13
#: Triggers of the other cameras: those that have a number in every family.
_TRIGGERS = range(12)
_FRAME_RATES = (15, 25, 30)
_TIMEZONES_MIN = (-300, 0, 120, 180)
_LAYOUTS: dict[Family, Callable[[Shot], bytes]] = {
    Family.DSM: dsm,
    Family.ADAS: adas,
    Family.DUALCAM: dualcam,
    Family.DASHCAM: dsm,
}
#: DSM cameras take pictures only; all others both.
_KINDS = {Family.DSM: (Kind.PHOTO,)}


@dataclass(frozen=True, slots=True)
class View:
    """Files of one kind that a camera takes, by their row in the table."""

    row: Row
    kind: Kind

    @property
    def is_identified(self) -> bool:
        """Whether the files are asked for by identifier."""
        return self.row.offer is not Offer.FILE

    @property
    def form(self) -> Format:
        """What the files are."""
        if self.kind is Kind.PHOTO:
            return JPEG
        return H265 if self.row.family is Family.DUALCAM else MP4

    def path_at(self, when: datetime) -> bytes:
        """Return the path on the device, without NUL, of a file taken at ``when``, or the identifier of them all."""
        if self.is_identified:
            return self.row.name
        folder = b"picture" if self.kind is Kind.PHOTO else b"video"
        return b"/".join((self.row.name, folder, when.strftime(f"%y%m%d/%H%M%S.{self.form.extension}").encode("ascii")))

    @property
    def file_type(self) -> int:
        """The number that METADATA gives to such a file: DualCam's is the settings bit of its identifier."""
        if self.row.family is not Family.DUALCAM:
            return _FILE_TYPES[self.kind]
        return next(int(row.offer) for row in ROWS if (row.camera, row.kind) == (self.row.camera, self.kind))

    def shot_at(self, when: datetime, chance: random.Random, more: random.Random) -> Shot:
        """Return what the camera knows of a file taken at ``when``.

        ``chance`` is asked for the same things in every family, so that cameras of one seed differ in nothing else.
        """
        latitude, longitude = chance.uniform(53.9, 56.4), chance.uniform(21.0, 26.8)
        events, driver = 1 << chance.randrange(9), chance.choice(_DRIVERS)
        if self.row.family is Family.DSM:
            return Shot(when, self.file_type, _DSM_EVENT, latitude, longitude, events, driver)
        is_video = self.kind is Kind.VIDEO
        return Shot(
            when,
            self.file_type,
            more.choice(_TRIGGERS),
            latitude,
            longitude,
            duration_s=more.randint(5, 60) if is_video else 0,
            frame_rate=more.choice(_FRAME_RATES) if is_video else 0,
            timezone_min=more.choice(_TIMEZONES_MIN),
            triggered=when - timedelta(seconds=2) if more.random() < 0.5 else None,
        )

    def metadata(self, shot: Shot, protocol_id: int) -> bytes:
        """Return what a camera of this generation says about the file."""
        layout = unified if protocol_id >= UNIFIED_PROTOCOL else _LAYOUTS[self.row.family]
        return layout(shot)


def views_of(family: Family, protocol_id: int) -> tuple[View, ...]:
    """Return what a camera of this family and generation takes: DualCam has identifiers up to protocol 5."""
    rows = [row for row in ROWS if row.family is family]
    if protocol_id < UNIFIED_PROTOCOL:
        identified = tuple(View(row, row.kind) for row in rows if row.offer is not Offer.FILE and row.kind)
        if identified:
            return identified
    kinds = _KINDS.get(family, (Kind.PHOTO, Kind.VIDEO))
    return tuple(View(row, kind) for row in rows if row.offer is Offer.FILE for kind in kinds)
