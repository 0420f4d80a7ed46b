"""What a process can say of itself, and what many values come to."""

from __future__ import annotations

import resource
from pathlib import Path


def cpu_s() -> tuple[float, float]:
    """Return this process's CPU seconds, all threads: user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def memory_bytes() -> dict[str, int]:
    """Return this process's memory now and at most."""
    names = {"VmRSS": "rss", "VmHWM": "peak_rss"}
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {names[line[0][:-1]]: int(line[1]) * 1024 for line in lines if line and line[0][:-1] in names}


def percentiles(values: list[float], shares: tuple[float, ...] = (0.5, 0.99)) -> dict[str, float]:
    """Return the count, these percentiles (by nearest rank) and the greatest of ``values``."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    last = len(ordered) - 1
    named = {f"p{share * 100:g}": ordered[min(last, int(share * len(ordered)))] for share in shares}
    return {"count": len(ordered), **named, "max": ordered[-1]}
