"""What is measured: one table. Times in seconds, sizes in bytes, rates in frames a second of each camera."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

#: Frames a second of a camera that sends 8 KB/s, and of a real one on a good link.
EIGHT_KB, GOOD_LINK = 8000 / 1024, 3.7
KB_20M, KB_100, KB_60, PHOTOS = (20_000_000,) * 2, (100_000,) * 2, (60_000,) * 2, (27_000, 120_000)
#: Files of the warm-up, which makes the folders of the day.
WARM_UP = (2_000, 2_000)
#: Cameras that say nothing for long, and have no file open, are what idle is about.
_PATIENT = ("--init-timeout=900", "--answer-timeout=900", "--max-connections=1000000")


class Way(Enum):
    """How a workload is measured; see `measure`."""

    #: Files are delivered, and CPU time, memory and latencies noted.
    COST = "cost"
    #: The same for more and more cameras.
    CURVE = "curve"
    #: A window in the middle of a steady load.
    LIVE = "live"
    #: Connections that do nothing.
    IDLE = "idle"
    #: The store without a network.
    DURABLE = "durable"
    #: Two processes on all cores.
    WORKERS = "workers"


@dataclass(frozen=True, slots=True)
class Workload:
    """One of them; ``job`` is what the generator is told (see `load.Job`), ``options`` what the gateway is."""

    name: str
    title: str
    way: Way
    job: dict[str, Any] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("sink", "gateway")
    options: tuple[str, ...] = ()
    #: None: as many as was asked for.
    runs: int | None = None
    #: Whether it is also noted how late the reactor is, as it always is in a live load.
    ticks: bool = False
    #: Whether its warm-up also tells what the first file of a device's day costs more than the others.
    tells_first_of_day: bool = False
    #: Numbers of cameras (curve) or seconds (live).
    steps: tuple[int, ...] = ()


_D = {"count": 5000, "files": 1, "sizes": KB_60, "rate": EIGHT_KB, "spread_s": 1.0}

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("A", "1 camera, 20 files of 20 MB", Way.COST, {"count": 1, "files": 20, "sizes": KB_20M}),
        Workload("B", "100 cameras, 5 files of 100 KB each", Way.COST, {"count": 100, "files": 5, "sizes": KB_100}),
        Workload(
            "C",
            "1,000 cameras at once, 100 KB each",
            Way.COST,
            {"count": 1000, "files": 1, "sizes": KB_100},
            tells_first_of_day=True,
        ),
        Workload("D", "5,000 cameras at once at 8 KB/s, 60 KB each", Way.COST, _D),
        Workload(
            "curve",
            "more and more cameras at 3.7 frames/s, 60 KB each",
            Way.CURVE,
            {"files": 1, "sizes": KB_60, "rate": GOOD_LINK, "spread_s": 1.0},
            steps=(100, 300, 1_000, 3_000, 10_000, 20_000),
        ),
        Workload(
            "live",
            "10,000 cameras at 3.7 frames/s, photos of 27 to 120 KB, one after the other",
            Way.LIVE,
            {"count": 10_000, "sizes": PHOTOS, "rate": GOOD_LINK, "spread_s": 2.0, "within_s": 600.0},
            runs=1,
            steps=(60,),
        ),
        Workload(
            "storm",
            "as D, but all links are lost after 4 s and come back within 2 s",
            Way.COST,
            {**_D, "cut_at_s": 4.0, "back_s": 2.0},
            runs=3,
            ticks=True,
        ),
        Workload(
            "hostile",
            "as B, but of the frames 10 % are cut and 10 % have a wrong byte",
            Way.COST,
            {"count": 100, "files": 5, "sizes": KB_100, "damage": 0.2},
            kinds=("gateway",),
        ),
        Workload(
            "idle",
            "20,000 connections that do nothing",
            Way.IDLE,
            {"count": 20_000, "files": 1, "sizes": WARM_UP, "spread_s": 10.0},
            options=_PATIENT,
            runs=1,
        ),
        Workload("durable", "the store alone, files of 100 KB", Way.DURABLE, {"count": 1000, "files": 3}, runs=3),
        Workload(
            "workers",
            "200 cameras, 10 files of 100 KB each, by one process and by two, on all cores",
            Way.WORKERS,
            {"count": 200, "files": 10, "sizes": KB_100},
            kinds=("gateway",),
            runs=3,
        ),
    )
}

_SMALLER: dict[str, dict[str, Any]] = {
    "A": {"files": 3, "sizes": (2_000_000, 2_000_000)},
    "B": {"count": 20, "files": 2},
    "C": {"count": 100},
    "D": {"count": 300, "sizes": (20_000, 20_000)},
    "curve": {"sizes": (10_000, 10_000)},
    "live": {"count": 200, "sizes": (5_000, 9_000)},
    "storm": {"count": 200, "sizes": (20_000, 20_000), "cut_at_s": 1.5},
    "hostile": {"count": 20, "files": 2},
    "idle": {"count": 500, "spread_s": 0.5},
    "durable": {"count": 100, "files": 1},
    "workers": {"count": 20, "files": 2},
}
_SHORTER = {"curve": (20, 60), "live": (3,)}


def quick(workload: Workload) -> Workload:
    """Return it as small as is enough to see that it works."""
    job, steps = {**workload.job, **_SMALLER[workload.name]}, _SHORTER.get(workload.name, workload.steps)
    return replace(workload, job=job, steps=steps, runs=1)
