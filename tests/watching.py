"""A gateway as a user starts it, each process of which can be asked what lives in it (`watched/sitecustomize.py`)."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from running import RunningGateway, environment, eventually

_WATCHED = Path(__file__).parent / "watched"


@dataclass(frozen=True, slots=True)
class Life:
    """What lives in all processes of a gateway at a moment at which it has nothing to do."""

    objects: int
    blocks: int
    #: What C libraries and large objects hold, without SQLite's caches; 0 where the C library does not tell.
    heap_kib: int
    #: What SQLite holds, most of it pages of the index.
    sqlite_kib: int
    memory_kib: int
    descriptors: int
    kinds: Counter[str] = field(repr=False)


def watched(folder: Path, *options: str) -> RunningGateway:
    """A gateway, not started yet, that `life_of` can be asked of."""
    path = os.pathsep.join(filter(None, (str(_WATCHED), os.environ.get("PYTHONPATH"))))
    return RunningGateway(folder, *options, env=environment(PYTHONPATH=path))


def life_of(gateway: RunningGateway) -> Life:
    """Ask a gateway that was made by `watched` what lives in it, once nobody is connected."""
    eventually("everybody has gone", lambda: not gateway.connections)
    rows = [_told_by(pid, gateway.folder / f"life-{pid}.json") for pid in gateway.pids]
    kinds = sum((Counter(row.pop("kinds")) for row in rows), Counter[str]())
    numbers = {name: sum(row[name] for row in rows) for name in rows[0]}
    return Life(**numbers, memory_kib=gateway.memory_kib(), descriptors=gateway.descriptors, kinds=kinds)


def _told_by(pid: int, told: Path) -> dict[str, int]:
    told.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    eventually("it tells what lives in it", told.exists)
    return json.loads(told.read_text())
