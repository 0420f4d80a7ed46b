"""What honest cameras notice of a hostile crowd: the same uploads without it, with it, and without it again.

For tests and benchmarks; all figures of a comparison come from one run against one gateway.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hostile import HostileCrowd
from running import Row, RunningGateway, Simulation, eventually


@dataclass(frozen=True, slots=True)
class Upload:
    """How long the files of one run of cameras took from the INIT that offers them to their acknowledgement.

    ``stored_s`` is what they waited for it once all was sent, ``busy`` how much of a processor the gateway took.
    """

    waits_s: Sequence[float] = field(repr=False)
    stored_s: Sequence[float] = field(repr=False)
    total_s: float
    busy: float

    @property
    def figures(self) -> dict[str, float]:
        """What is compared, in seconds."""
        deciles = statistics.quantiles(self.waits_s, n=10)
        return {"median": deciles[4], "p90": deciles[8], "total": self.total_s}


@dataclass(slots=True)
class Cameras:
    """Honest cameras, new ones with new files in each run; ``options`` are those of the simulator."""

    gateway: RunningGateway
    count: int
    options: Sequence[str]
    files: list[Row] = field(default_factory=list)
    _runs: int = 0

    def upload(self, within_s: float = 300) -> Upload:
        """Deliver everything, without a fault."""
        first = 1 + self._runs * self.count
        self._runs += 1
        options = (f"--cameras={self.count}", f"--first-camera={first}", f"--seed={first}", *self.options)
        used_s = processor_s(self.gateway.pid)
        with Simulation(self.gateway, *options) as simulation:
            report = simulation.report(within_s)
        used_s = processor_s(self.gateway.pid) - used_s
        assert report["summary"]["good"]
        self.files += report["files"]
        waits = [row["acknowledged_s"] - row["offered_s"] for row in report["files"]]
        stored = [row["acknowledged_s"] - row["sent_s"] for row in report["files"]]
        total_s = max(row["acknowledged_s"] for row in report["files"]) - min(
            row["offered_s"] for row in report["files"]
        )
        return Upload(waits, stored, total_s, used_s / total_s)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One round: without the crowd, with it, without it again."""

    before: Upload
    besieged: Upload
    after: Upload
    made: int
    log_bytes: int
    #: Connections of the crowd at a time, at the beginning and at the end of the upload.
    there: tuple[int, int]

    @property
    def growth(self) -> dict[str, float]:
        """How much longer it took with the crowd, as a share of the mean of both times without."""
        before, besieged, after = self.before.figures, self.besieged.figures, self.after.figures
        return {name: besieged[name] / ((before[name] + after[name]) / 2) - 1 for name in besieged}

    @property
    def noise(self) -> dict[str, float]:
        """How much the two times without the crowd differ, as a share of the first."""
        before, after = self.before.figures, self.after.figures
        return {name: after[name] / before[name] - 1 for name in before}

    def __str__(self) -> str:
        lines = [f"{'':8}{'without':>9}{'crowd':>9}{'without':>9}{'growth':>9}{'noise':>9}"]
        for name in self.growth:
            three = [one.figures[name] for one in (self.before, self.besieged, self.after)]
            shown = "".join(f"{seconds:8.3f}s" for seconds in three)
            lines.append(f"{name:8}{shown}{self.growth[name]:+9.1%}{self.noise[name]:+9.1%}")
        uploads = (self.before, self.besieged, self.after)
        stored = "".join(f"{statistics.median(one.stored_s):8.3f}s" for one in uploads)
        lines.append(f"{'storing':8}{stored} of the median, from the last byte to the acknowledgement")
        lines.append(f"{'busy':8}{''.join(f'{one.busy:9.1%}' for one in uploads)} of a processor: the gateway")
        lines.append(f"{self.made} hostile connections, {self.there[0]} to {self.there[1]} at a time")
        return "\n".join(lines)


@contextmanager
def besieging(
    gateway: RunningGateway, clients: int, rate: float, bide_s: tuple[float, float]
) -> Iterator[HostileCrowd]:
    """A crowd that is there in full during the block, each of it having spoken once, and altogether gone after it."""
    descriptors = gateway.descriptors
    with HostileCrowd(gateway, clients, rate, bide_s) as crowd:
        crowd.gather()
        time.sleep(bide_s[1] + 1)
        yield crowd
        crowd.leave()
    # The index keeps one more file open once it was written to.
    eventually("the crowd has gone", lambda: gateway.descriptors <= descriptors + 2)


def compare(cameras: Cameras, clients: int, rate: float, bide_s: tuple[float, float]) -> Comparison:
    """Run the three uploads."""
    gateway = cameras.gateway
    before = cameras.upload()
    log_begin = gateway.log_end
    with besieging(gateway, clients, rate, bide_s) as crowd:
        began = crowd.report()
        besieged = cameras.upload()
        ended = crowd.report()
    log_bytes = gateway.log_end - log_begin
    made = crowd.report()["made"]
    return Comparison(before, besieged, cameras.upload(), made, log_bytes, (began["open"], ended["open"]))


def processor_s(pid: int) -> float:
    """Processor time of a process so far."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
