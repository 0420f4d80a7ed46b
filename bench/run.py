"""Run the benchmark: the gateway beside a bare Twisted sink, on this machine, in the same run.

    python bench/run.py                                       all of it
    python bench/run.py --only A,D --runs 3 --json /tmp/results.json
    python bench/run.py --quick                               as small as is enough to see that it works
    python bench/run.py --only D --gateway=--log-level=warn   what one option of the gateway's changes

It measures the gateway of the checkout that it lies in. Figures are `report`'s matter, workloads are in `workloads`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from machine_facts import Disturbance, about_machine
from measure import Measurer, Row, require_disk
from processes import OTHER_CORES, ROOT, BenchError, raise_hard_limit
from report import put_into, text
from workloads import WORKLOADS, quick

from dsmgateway.descriptors import raise_descriptor_limit


def _given() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(WORKLOADS), help="names of workloads, with commas between")
    parser.add_argument("--runs", type=int, default=5, help="runs of each kind, of which the median counts")
    parser.add_argument("--quick", action="store_true", help="small workloads, one run")
    parser.add_argument("--gateway", action="append", default=[], metavar="OPTION", help="an option of the gateway's")
    parser.add_argument("--again", action="store_true", help="put what is measured into the results that --json has")
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="where the servers' files go meanwhile")
    given = parser.parse_args()
    given.only = given.only.split(",")
    for name in given.only:
        if name not in WORKLOADS:
            parser.error(f"no workload is called {name!r}; there are {', '.join(WORKLOADS)}")
    if given.again and not (given.json and given.json.is_file()):
        parser.error("--again needs results: --json FILE")
    return given


def main() -> int:
    given = _given()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left behind
    raise_hard_limit()
    raise_descriptor_limit()
    given.folder.mkdir(parents=True, exist_ok=True)
    machine = about_machine(require_disk(given.folder.resolve()))
    os.sched_setaffinity(0, OTHER_CORES)
    begin, disturbance = time.monotonic(), Disturbance()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="bench-") as folder:
        measurer = Measurer(Path(folder).resolve(), given.runs, lambda line: print(line, flush=True))
        if given.gateway:
            measurer.remarks.append(f"The gateway was run with {' '.join(given.gateway)}.")
        found: Row = {}
        failures: dict[str, str] = {}
        for name in given.only:
            workload = quick(WORKLOADS[name]) if given.quick else WORKLOADS[name]
            try:
                one = measurer.measure(replace(workload, options=(*workload.options, *given.gateway)))
            except BenchError as error:
                failures[name] = str(error)
                print(f"{name} failed: {error}", flush=True)
            else:
                found |= {name: one} if one is not None else {}
            results = {
                "machine": {**machine, **disturbance.shares()},
                "runs": given.runs,
                "quick": given.quick,
                "minutes": round((time.monotonic() - begin) / 60, 1),
                "remarks": measurer.remarks,
                "failures": failures,
                "workloads": found,
            }
            if given.json and not given.again:  # after each, so that what was measured is there whatever happens later
                _write(given.json, results)
    print(text(results))
    if given.again and not failures:
        _write(given.json, put_into(json.loads(given.json.read_text()), results))
    for name, failure in failures.items():
        print(f"bench: {name}: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _write(path: Path, results: Row) -> None:
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        raise SystemExit(f"bench: {error}") from None
