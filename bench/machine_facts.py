"""What the benchmark ran on, and with."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import twisted
from processes import OTHER_CORES, ROOT, SERVER_CORE

from dsmgateway import __version__


def about_machine(file_system: str) -> dict[str, object]:
    """Return what is worth knowing of this machine and this checkout."""
    facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    names = {name.strip(): value.strip() for name, value in facts.items()}
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": names.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory_kib * 1024 / 1e9, 1),
        "kernel": platform.release(),
        "file_system": file_system,
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "gateway": __version__,
        "commit": _commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "pinned": SERVER_CORE != OTHER_CORES,
    }


class Disturbance:
    """How much of the cores' time others use from now on: programs that are not ours, and other machines (steal)."""

    def __init__(self) -> None:
        self._begin = _cpu_times()

    def shares(self) -> dict[str, float]:
        """Return the shares since then; ours are this process and those of its children that have ended."""
        now = _cpu_times()
        all_s, busy_s, steal_s, own_s = (end - begin for begin, end in zip(self._begin, now, strict=True))
        return {"others": round(max(0.0, busy_s - own_s) / all_s, 4), "steal": round(steal_s / all_s, 4)}


def _cpu_times() -> tuple[float, float, float, float]:
    """All cores' seconds: all, busy, taken by other machines; and our own."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, idle, wait, interrupt, soft, steal = (int(one) / os.sysconf("SC_CLK_TCK") for one in fields)
    busy_s = user + nice + system + interrupt + soft
    used = os.times()
    return busy_s + idle + wait + steal, busy_s, steal, sum(used[:4])


def _commit() -> str:
    """The commit of the checkout, empty where there is none."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=9"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
