"""Where the gateway's time goes in a workload: a flame graph as SVG, sampled by py-spy from outside.

python bench/flame.py            workload D
python bench/flame.py --of C --output /tmp/c.svg
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure import Measurer, require_disk
from processes import ROOT, BenchError, Server, raise_hard_limit
from workloads import WORKLOADS, Way

from dsmgateway.descriptors import raise_descriptor_limit

_SAMPLES_A_SECOND = 200


@contextmanager
def recording(output: Path, server: Server) -> Iterator[None]:
    """Sample a server until the end of the block, and draw what was found."""
    py_spy = Path(sys.executable).with_name("py-spy")
    if not py_spy.is_file():
        raise BenchError("py-spy is not there: pip install py-spy")
    recorder = subprocess.Popen(
        [
            py_spy,
            *("record", "--nonblocking", "--rate", str(_SAMPLES_A_SECOND), "--format", "flamegraph"),
            *("--pid", str(server.pid), "--output", str(output)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield
    finally:
        recorder.send_signal(signal.SIGINT)
        _, said = recorder.communicate(timeout=60)
    if not output.is_file():
        raise BenchError(f"py-spy: {said.strip().splitlines()[-1:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    costs = [name for name, one in WORKLOADS.items() if one.way is Way.COST]
    parser.add_argument("--of", choices=costs, default="D", help="the workload")
    parser.add_argument("--output", type=Path, help="where the picture goes")
    given = parser.parse_args()
    output = given.output or ROOT / "build" / f"profile-{given.of}.svg"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    raise_hard_limit()
    raise_descriptor_limit()
    require_disk(output.parent.resolve())
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build", prefix="bench-") as folder:
        workload = replace(WORKLOADS[given.of], kinds=("gateway",), runs=1)
        Measurer(Path(folder).resolve(), 1, print, watch=partial(recording, output)).measure(workload)
    print(output)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        raise SystemExit(f"bench: {error}") from None
