"""Verify a data folder: every finished file against its sidecar, every part against its journal.

Reads only, takes no lock, and may run beside a gateway: what vanishes in between was moved by it and is passed over,
and what looks wrong is looked at again, since a finish may have come to its end between two looks.
Raises nothing for what it finds, only `StoreError` when it cannot read.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dsmgateway.store.files import Disk, unless_gone
from dsmgateway.store.journal import read_journal
from dsmgateway.store.naming import MEDIA, PROBE, SPOOL, is_final_path, sidecar_path
from dsmgateway.store.recovery import read_record, sha256_of, tree, under_way
from dsmgateway.store.resuming import proven_checkpoint


class Kind(enum.Enum):
    """What was looked at."""

    MEDIA = "media"
    SIDECAR = "sidecar"
    PART = "part"
    ASIDE = "aside"
    FOREIGN = "foreign"


class State(enum.Enum):
    """What was found; ``is_good`` says whether anybody has to care."""

    OK = "ok"
    #: A finish is under way, or was cut off and will be completed by the next start.
    UNFINISHED = "unfinished"
    #: A part that goes on at ``offset_bytes`` when the device comes back.
    RESUMABLE = "resumable"
    #: A part that begins at 0 when the device comes back.
    FROM_START = "from start"
    SET_ASIDE = "set aside"
    MISSING_SIDECAR = "missing sidecar"
    MISSING_FILE = "missing file"
    BAD_SIDECAR = "bad sidecar"
    SIZE_DIFFERS = "size differs"
    SHA256_DIFFERS = "sha256 differs"
    NOT_OURS = "not ours"

    @property
    def is_good(self) -> bool:
        """Say whether this is part of normal life."""
        return self in (State.OK, State.UNFINISHED, State.RESUMABLE, State.FROM_START)


@dataclass(frozen=True, slots=True)
class Checked:
    """One file of the data folder; ``path`` is relative to it.

    ``offset_bytes`` is where a resumable part goes on, ``missing_bytes`` what a part still needs, where that is known.
    """

    path: str
    kind: Kind
    state: State
    size_bytes: int
    offset_bytes: int = 0
    missing_bytes: int = 0


def check(folder: Path, disk: Disk | None = None) -> Iterator[Checked]:
    """Yield a row for every file in the tree and every part, as they are read."""
    reader = disk or Disk()
    for path in tree(folder, reader):
        if not path.startswith(f"{MEDIA}/{PROBE}"):
            yield from _looked_at(partial(_media if is_final_path(path) else _beside, folder, path, reader))
    for name in reader.names(folder / SPOOL):
        if name.endswith(".part"):
            yield from _looked_at(partial(_part, folder, f"{SPOOL}/{name}", reader))
    for name in reader.names(folder / SPOOL / "aside"):
        yield from _looked_at(partial(_aside, folder, f"{SPOOL}/aside/{name}", reader))


def _looked_at(look: Callable[[], Checked | None]) -> Iterator[Checked]:
    """Yield the row, if there still is one; a bad one must look bad twice, or it was only a finish under way."""
    row = unless_gone(look)
    if row is not None and not row.state.is_good:
        row = unless_gone(look)
    if row is not None:
        yield row


def _media(folder: Path, path: str, disk: Disk) -> Checked | None:
    size_bytes = disk.size(folder / path)
    if size_bytes is None:
        return None
    return Checked(path, Kind.MEDIA, _media_state(folder, path, size_bytes, disk), size_bytes)


def _media_state(folder: Path, path: str, size_bytes: int, disk: Disk) -> State:
    sidecar = folder / sidecar_path(path)
    if disk.size(sidecar) is None:
        return State.UNFINISHED if path in under_way(folder, disk) else State.MISSING_SIDECAR
    record = read_record(sidecar, disk)
    if record is None or record.path != path:
        return State.BAD_SIDECAR
    if record.size_bytes != size_bytes:
        return State.SIZE_DIFFERS
    return State.OK if sha256_of(folder / path, disk) == record.sha256 else State.SHA256_DIFFERS


def _beside(folder: Path, path: str, disk: Disk) -> Checked | None:
    """Check what is not a finished file: a sidecar must have its file, anything else is not ours."""
    size_bytes = disk.size(folder / path)
    if size_bytes is None:
        return None
    if not path.endswith(".json"):
        return Checked(path, Kind.FOREIGN, State.NOT_OURS, size_bytes)
    record = read_record(folder / path, disk)
    if record is None or sidecar_path(record.path) != path:
        return Checked(path, Kind.SIDECAR, State.BAD_SIDECAR, size_bytes)
    missing = disk.size(folder / record.path) is None
    return Checked(path, Kind.SIDECAR, State.MISSING_FILE, size_bytes) if missing else None


def _part(folder: Path, path: str, disk: Disk) -> Checked | None:
    part = folder / path
    size_bytes = disk.size(part)
    if size_bytes is None:
        return None
    offset_bytes, whole_bytes = _standing(part, disk)
    state = State.RESUMABLE if offset_bytes else State.FROM_START
    return Checked(path, Kind.PART, state, size_bytes, offset_bytes, max(whole_bytes - size_bytes, 0))


def _aside(folder: Path, path: str, disk: Disk) -> Checked | None:
    size_bytes = disk.size(folder / path)
    return None if size_bytes is None else Checked(path, Kind.ASIDE, State.SET_ASIDE, size_bytes)


def _standing(part: Path, disk: Disk) -> tuple[int, int]:
    """Return where the device would go on, by the same reckoning as when the part is taken up, and the whole size."""
    path = part.with_suffix(".journal")
    length_bytes = disk.size(path)
    journal = None if length_bytes is None else read_journal(_whole(path, disk))
    if journal is None:
        return 0, 0
    proven = proven_checkpoint(_whole(part, disk), journal.checkpoints)
    whole_bytes = journal.offered.size_bytes
    return (0 if proven is None else journal.offered.resume_offset(proven.offset_bytes)), whole_bytes


def _whole(path: Path, disk: Disk) -> Iterator[bytes]:
    descriptor = disk.open(path)
    try:
        yield from disk.blocks(path, descriptor, 0, disk.length(path, descriptor))
    finally:
        disk.close(path, descriptor)
