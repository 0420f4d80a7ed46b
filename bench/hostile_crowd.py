"""What a crowd of hostile clients costs honest cameras, as ratios to uploads without it in the same run.

    PYTHONPATH=. .venv/bin/python bench/hostile_crowd.py --rounds 3 --camera-rate 20k

Each round is an upload without the crowd, one within it and one without it again, against one gateway; `noise` is how
much the two without it differ. Everything runs on this machine, also the crowd and the cameras.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from besieged import Cameras, besieging, compare, processor_s
from running import running_gateway


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--cameras", type=int, default=100)
    parser.add_argument("--files", type=int, default=3)
    parser.add_argument("--size", default="40k")
    parser.add_argument("--camera-rate", default="20k", help="bytes a second of each camera, 0: what TCP takes")
    parser.add_argument("--rate", type=float, default=500, help="hostile connections a second at most")
    parser.add_argument("--bide", type=float, nargs=2, default=(5.0, 9.0), help="seconds before what speaks does so")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    crowd_of = given.clients, given.rate, (given.bide[0], given.bide[1])
    with tempfile.TemporaryDirectory() as folder, running_gateway(Path(folder)) as gateway:
        options = [f"--files={given.files}", f"--size={given.size}", f"--rate={given.camera_rate}"]
        cameras = Cameras(gateway, given.cameras, options)
        print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; {cameras.upload()}")
        with besieging(gateway, *crowd_of) as crowd:
            made, used_s = crowd.report()["made"], processor_s(gateway.pid)
            cameras.upload()
            made, used_s = crowd.report()["made"] - made, processor_s(gateway.pid) - used_s
        memory_kib = gateway.memory_kib()
        print(f"after the warm-up: {memory_kib} KiB, {gateway.descriptors} descriptors")
        rounds = []
        for _ in range(given.rounds):
            rounds.append(compare(cameras, *crowd_of))
            held_kib = gateway.memory_kib()
            print(f"{rounds[-1]}\n{held_kib} KiB ({held_kib / memory_kib - 1:+.1%}), {gateway.descriptors} descriptors")
        for name in rounds[0].growth:
            growth, noise = ([getattr(one, what)[name] for one in rounds] for what in ("growth", "noise"))
            low, high = min(growth), max(growth)
            print(
                f"{name:8}{statistics.median(growth):+.1%} ({low:+.1%} to {high:+.1%}), noise "
                f"{statistics.median(map(abs, noise)):.1%}"
            )


if __name__ == "__main__":
    main()
