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
        "load": round(os.getloadavg()[0], 2),
        "pinned": SERVER_CORE != OTHER_CORES,
    }


def _commit() -> str:
    """The commit of the checkout, empty where there is none."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=9"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
