"""Looks for inputs that break a property of `fuzzing.py`, guided by coverage where atheris can be imported.

    python tests/hunt.py TARGET SECONDS [FOLDER]     hunt; what breaks a property is written into FOLDER
    python tests/hunt.py keep TARGET FOLDER          print the files of FOLDER that are worth keeping: each one takes
                                                     branches that no smaller one takes

atheris (libFuzzer) keeps every input that takes new branches of `dsmgateway` and goes on from there. Without it the
corpus is mutated blindly: that finds less in the same time, and the result says which engine ran.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Longest an input may take, and most memory of the hunter, before that counts as found.
MOST_SECONDS, MOST_MIB = 20, 1024


@dataclass(frozen=True)
class Hunt:
    """How it went; ``found`` is the input that broke a property, ``said`` what was said of it."""

    engine: str
    executions: int
    #: Branches of dsmgateway that were taken, and those with how often and in what company, as libFuzzer counts.
    edges: int = 0
    features: int = 0
    found: Path | None = None
    said: str = ""

    def __str__(self) -> str:
        reach = f", {self.edges:,} edges, {self.features:,} features" if self.edges else ""
        return f"{self.engine}: {self.executions:,} executions{reach}, found {self.found or 0}"


def hunt(name: str, seconds: float, folder: Path) -> Hunt:
    """Hunt for so long; with atheris in a process of its own, since it ends the one that it runs in."""
    folder.mkdir(parents=True, exist_ok=True)
    return _guided(name, seconds, folder) if importlib.util.find_spec("atheris") else _blind(name, seconds, folder)


def _guided(name: str, seconds: float, folder: Path) -> Hunt:
    before = set(folder.iterdir())
    with tempfile.TemporaryDirectory() as scratch:
        seeds = Path(scratch) / "corpus"
        shutil.copytree(HERE / "corpus" / name, seeds)
        arguments = [
            f"-max_total_time={max(round(seconds), 1)}",
            "-max_len=2048",
            f"-timeout={MOST_SECONDS}",
            f"-rss_limit_mb={MOST_MIB}",
            "-print_final_stats=1",
            f"-artifact_prefix={folder}/{name}-",
            str(seeds),
        ]
        child = subprocess.run(
            [sys.executable, __file__, "atheris", name, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            env=os.environ | {"TMPDIR": scratch},
        )
    said = child.stdout + child.stderr
    reach = re.findall(r"cov: (\d+) ft: (\d+)", said)
    executions = re.findall(r"stat::number_of_executed_units: *(\d+)", said)
    found = next(iter(sorted(set(folder.iterdir()) - before)), None)
    assert child.returncode == 0 or found, f"the hunter itself failed:\n{said[-4000:]}"
    edges, features = map(int, reach[-1]) if reach else (0, 0)
    why = _replayed(name, found) if found else ""
    return Hunt("atheris", int(executions[-1]) if executions else 0, edges, features, found, why)


def _replayed(name: str, found: Path) -> str:
    """What is said of an input when it is run alone; of one that takes too long, that it does."""
    command = [sys.executable, str(HERE / "fuzzing.py"), name, str(found)]
    try:
        child = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=2 * MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return f"takes longer than {2 * MOST_SECONDS} s"
    return (child.stdout + child.stderr)[-4000:]


def _atheris(name: str, arguments: list[str]) -> None:
    """What the child does."""
    import atheris

    with atheris.instrument_imports(include=["dsmgateway"]):
        import fuzzing
    atheris.Setup([sys.argv[0], *arguments], fuzzing.TARGETS[name])
    atheris.Fuzz()


def _blind(name: str, seconds: float, folder: Path) -> Hunt:
    import fuzzing

    seeds, chance = fuzzing.corpus(name), random.Random()
    executions, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        data = fuzzing.mutated(seeds, chance)
        executions += 1
        try:
            fuzzing.TARGETS[name](data)
        except Exception:
            found = folder / f"{name}-{sha256(data).hexdigest()[:16]}"
            found.write_bytes(data)
            return Hunt("blind mutation (no atheris)", executions, found=found, said=traceback.format_exc())
    return Hunt("blind mutation (no atheris)", executions)


def worth_keeping(name: str, folder: Path) -> Iterator[Path]:
    """The smallest files first, each if it takes a branch of dsmgateway that none before it takes."""
    import coverage

    measured = coverage.Coverage(data_file=None, branch=True, source=["dsmgateway"], messages=False)
    measured.start()
    import fuzzing

    paths = sorted(folder.iterdir(), key=lambda path: (path.stat().st_size, path.name))
    for path in paths:
        measured.switch_context(path.name)
        fuzzing.TARGETS[name](path.read_bytes())
    measured.stop()
    data = measured.get_data()
    seen: set[tuple[str, tuple[int, int]]] = set()
    for path in paths:
        data.set_query_context(path.name)
        taken = {(file, arc) for file in data.measured_files() for arc in data.arcs(file) or ()}
        if taken - seen:
            seen |= taken
            yield path


def main(arguments: list[str]) -> None:
    match arguments:
        case ["atheris", name, *rest]:
            _atheris(name, rest)
        case ["keep", name, folder]:
            for path in worth_keeping(name, Path(folder)):
                print(path)
        case [name, seconds, *folder]:
            result = hunt(name, float(seconds), Path(*folder) if folder else Path.cwd() / "found")
            print(result, result.said, sep="\n")
            raise SystemExit(bool(result.found))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
