"""Run the benchmark: the gateway beside a bare Twisted sink, on this machine, in the same run.

python bench/run.py --only A,D --runs 3 --json /tmp/results.json
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from processes import OTHER_CORES, BenchError, Load, Server, raise_hard_limit
from verify import Verifier, sent_files

KINDS = ("sink", "gateway")
WORKLOADS: dict[str, dict[str, Any]] = {
    "A": {"count": 1, "files": 20, "sizes": (20_000_000, 20_000_000)},
    "B": {"count": 100, "files": 5, "sizes": (100_000, 100_000)},
    "C": {"count": 1000, "files": 1, "sizes": (100_000, 100_000)},
    "D": {"count": 5000, "files": 1, "sizes": (60_000, 60_000), "rate": 8000 / 1024, "spread_s": 1.0},
}


def one_run(server: Server, verifier: Verifier, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    os.sync()
    with Load({**job, "port": server.port}, folder) as load:
        server.begin()
        load.go()
        report = load.report()
        used = server.end()
    sent = sent_files(job["run"], job["sizes"], report["files"])
    verifier.verify(sent)
    stored = sum(file.size for file in sent)
    return {"server": used, "load": report, "bytes": stored, "cpu_s_per_gb": used["cpu_s"] / stored * 1e9}


def show(rows: list[tuple[str, dict[str, list[dict[str, Any]]]]]) -> None:
    print(
        "\n  CPU-s/GB: median (least to most)    sink                      gateway                   ratio  RSS ratio"
    )
    for name, results in rows:
        costs = {kind: [one["cpu_s_per_gb"] for one in runs] for kind, runs in results.items()}
        peaks = {kind: statistics.median(one["server"]["peak_rss"] for one in runs) for kind, runs in results.items()}
        shown = [
            f"{statistics.median(costs[kind]):6.1f} ({min(costs[kind]):.1f} to {max(costs[kind]):.1f})"
            for kind in KINDS
        ]
        ratio = statistics.median(costs["gateway"]) / statistics.median(costs["sink"])
        print(f"  {name:36}{shown[0]:26}{shown[1]:26}{ratio:5.2f}  {peaks['gateway'] / peaks['sink']:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="A,B,C,D")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    raise_hard_limit()
    os.sched_setaffinity(0, OTHER_CORES)
    rows: list[tuple[str, dict[str, list[dict[str, Any]]]]] = []
    for name in given.only.split(","):
        workload = WORKLOADS[name]
        folder = Path(tempfile.mkdtemp(dir=Path.cwd(), prefix=".bench-"))
        try:
            results = {kind: [] for kind in KINDS}
            with Server("sink", folder) as sink, Server("gateway", folder) as gateway:
                servers = {"sink": sink, "gateway": gateway}
                verifiers = {kind: Verifier(kind, servers[kind].data) for kind in KINDS}
                for run in range(given.runs + 1):
                    for kind in KINDS:
                        job = {**workload, "run": run}
                        if run == 0:
                            job |= {"files": 1, "sizes": (2000, 2000), "rate": 0}
                        one = one_run(servers[kind], verifiers[kind], job, folder)
                        late_s = one["load"]["late_s"].get("p99", 0)
                        print(
                            f"{name} run {run} {kind:8}{one['cpu_s_per_gb']:9.2f} CPU-s/GB, {one['load']['wall_s']:.1f} s, "
                            f"RSS {one['server']['peak_rss'] / 1e6:.0f} MB; generator {one['load']['cpu_s']:.1f} CPU-s, "
                            f"frames late p99 {late_s * 1000:.0f} ms",
                            flush=True,
                        )
                        if run:
                            results[kind].append(one)
            rows.append((name, results))
        finally:
            shutil.rmtree(folder)
    show(rows)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        raise SystemExit(f"bench: {error}") from None
