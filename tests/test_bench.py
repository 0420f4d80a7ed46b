"""The benchmark measures what it says: cameras keep to the protocol, what is lost is found out, the sums are right."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from running import environment
from twisted.internet.task import Clock

from dsmgateway.commands import Data, EnhancedData
from dsmgateway.crc import crc16
from dsmgateway.packets import PACKET_BYTES

BENCH = Path(__file__).parent.parent / "bench"
MODULES = ("chart", "control", "footage", "measure", "processes", "report", "verify", "workloads")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The modules of bench/, imported as they find each other when they are run."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCH))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == BENCH:
            del sys.modules[name]


def measured(bench: Any, folder: Path, name: str, runs: int = 1, **job: object) -> dict[str, Any]:
    """What comes of a workload with a handful of cameras; the benchmark itself looks for every file."""
    bench.measure._ROOM_BYTES = sys.maxsize  # have files deleted at once
    workload = bench.workloads.WORKLOADS[name]
    workload = replace(workload, job={**workload.job, **job}, runs=runs)
    result: dict[str, Any] = bench.measure.Measurer(folder, runs, lambda line: None).measure(workload)
    return result


# -- cameras against real servers


@pytest.mark.parametrize(("protocol", "rate"), [(5, 0), (6, 50)])
def test_cameras_deliver_their_files_whole_to_both_servers(
    bench: Any, tmp_path: Path, protocol: int, rate: float
) -> None:
    of = {"count": 4, "files": 2, "sizes": (700, 6_000), "rate": rate, "protocol": protocol}
    result = measured(bench, tmp_path, "B", **of)
    for kind in ("sink", "gateway"):
        (run,) = result["kinds"][kind]
        assert (run["files"], run["acknowledged"], run["reconnects"], run["resumes"]) == (8, 8, 0, 0)
        assert run["sent_twice"] == 0
        assert run["cpu_s"] > 0 and 0 < run["rss"] <= run["peak_rss"]
        assert run["ack_s"]["count"] == run["file_s"]["count"] == 8
        assert run["late_s"]["count"] == (frames_of(run, protocol) if rate else 0)
    assert not list(tmp_path.iterdir()), "files are left behind"


def frames_of(run: dict[str, Any], protocol: int) -> int:
    """How many frames a run had, from its bytes."""
    frames: int = (run["data_bytes"] - run["bytes"]) // (6 if protocol == 5 else 10)
    return frames


def test_links_that_are_lost_cost_no_file(bench: Any, tmp_path: Path) -> None:
    of = {"count": 6, "sizes": (40_000, 40_000), "rate": 40, "spread_s": 0.1, "cut_at_s": 0.7, "back_s": 0.2}
    kinds = measured(bench, tmp_path, "storm", **of)["kinds"]
    (sink,), (gateway,) = kinds["sink"], kinds["gateway"]
    assert (sink["files"], gateway["files"]) == (6, 6)
    assert sink["resumes"] == 0, "it takes nothing up again"
    assert gateway["resumes"] > 0
    assert sink["sent_twice"] > 0


def test_frames_that_are_damaged_cost_no_file(bench: Any, tmp_path: Path) -> None:
    of = {"count": 3, "files": 2, "sizes": (30_000, 30_000)}
    (run,) = measured(bench, tmp_path, "hostile", **of)["kinds"]["gateway"]
    assert run["files"] == 6
    assert run["resumes"] > 0


def test_a_fleet_goes_on_until_the_time_is_over(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.measure, "_SETTLE_S", 0.5)
    workload = bench.workloads.WORKLOADS["live"]
    workload = replace(workload, steps=(3,), job={**workload.job, "count": 5, "sizes": (2_000, 3_000), "spread_s": 0.1})
    kinds = bench.measure.Measurer(tmp_path, 1, lambda line: None).measure(workload)["kinds"]
    for kind in ("sink", "gateway"):
        (run,) = kinds[kind]
        assert run["files"] >= 5
        assert set(run) >= {"delay_s", "sweep_interval_s", "late_s"}


def test_idle_connections_are_all_held_while_memory_is_looked_at(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.measure, "_PARTING_S", 0.3)
    holds = measured(bench, tmp_path, "idle", count=50, spread_s=0.1)["holds"]
    assert {(hold, kind) for hold, kinds in holds.items() for kind in kinds} == {
        (hold, kind) for hold in ("silent", "answered") for kind in ("sink", "gateway")
    }
    assert all(one["rss"] > 10_000_000 for kinds in holds.values() for one in kinds.values())


def test_the_store_is_measured_beside_the_disk(bench: Any, tmp_path: Path) -> None:
    (run,) = measured(bench, tmp_path, "durable", count=10, files=1)["runs"]
    assert run["store"]["files"] == 10
    assert set(run["disk"]) == {"1", "4", "16", "32"}
    assert all(one["files_per_s"] > 0 for one in (run["store"], *run["disk"].values()))


def test_ticks_tell_how_late_the_reactor_is(bench: Any) -> None:
    clock = Clock()
    ticks = bench.control.Ticks(clock, clock.seconds)
    ticks.swept()
    ticks.start()
    clock.pump([0.005] * 9)
    clock.advance(0.105)
    for interval_s in (0.5, 1.0, 1.5):
        ticks.swept()
        clock.rightNow += interval_s
    ticks.swept()
    ticks.stop()
    assert not clock.getDelayedCalls()
    report = ticks.report()
    assert report["delay_s"] == {
        "count": 10,
        "p50": pytest.approx(0),
        "p99": pytest.approx(0.1),
        "max": pytest.approx(0.1),
    }
    assert report["sweep_interval_s"] == pytest.approx({"count": 3, "p50": 1.0, "p99": 1.5, "max": 1.5})


# -- what is sent, and looked for


@pytest.mark.parametrize("protocol", [5, 6])
@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 2048, 5000])
def test_frames_are_those_of_the_file_from_every_packet_on(bench: Any, size: int, protocol: int) -> None:
    footage, kind = bench.footage, Data if protocol == 5 else EnhancedData
    file = footage.File(7, 1, 2, size)
    whole = b""
    for packet in range(footage.packets(size)):
        frames = footage.frames_from(size, max(packet, 1), protocol)
        frames = frames if packet else (footage.first_frame(file, protocol), *frames)
        assert sum(map(len, frames)) == footage.frames_bytes(size - packet * PACKET_BYTES, protocol)
        parsed, crc = [kind.parse(frame[4:]) for frame in frames], 0
        for frame in parsed:
            crc = crc16(frame.data, crc)
            assert frame.crc == crc
        content = b"".join(frame.data for frame in parsed)
        whole = whole or content
        assert content == whole[packet * PACKET_BYTES :]
        if protocol == 6:
            assert [frame.offset for frame in parsed] == list(range(packet * PACKET_BYTES, size, PACKET_BYTES))
    assert (len(whole), crc16(whole)) == (size, file.crc)
    assert bench.verify.hashlib.sha256(whole).hexdigest() == file.sha256


def test_no_two_files_are_the_same(bench: Any) -> None:
    made = [
        bench.footage.File(camera, run, number, 3000) for camera in range(3) for run in range(3) for number in range(3)
    ]
    assert len({file.sha256 for file in made}) == len({(file.imei, file.path) for file in made}) == 27


@pytest.mark.parametrize("kind", ["sink", "gateway"])
@pytest.mark.parametrize("fault", ["none", "missing", "differs", "twice"])
def test_a_file_that_is_missing_or_differs_is_found(bench: Any, tmp_path: Path, kind: str, fault: str) -> None:
    sent = bench.verify.sent_files(1, (2000, 2000), [2, 1], first=5)
    assert [(file.camera, file.number) for file in sent] == [(5, 0), (5, 1), (6, 0)]
    kept = {"none": sent, "missing": sent[1:], "differs": sent, "twice": [*sent, sent[0]]}[fault]
    for number, file in enumerate(kept):
        content = file.first + b"".join(frame[4:-2] for frame in bench.footage.frames_from(file.size, 1, 5))
        content = bytes(2000) if fault == "differs" and number == 0 else content
        put(tmp_path, kind, number, file, content)
    verifier = bench.verify.Verifier(kind, tmp_path)
    if fault == "none":
        verifier.verify(sent)
        verifier.verify([])  # what was looked at once is not looked at again, as it would be by another one:
        with pytest.raises(bench.processes.BenchError, match=r"^\w+: 0 of 0 .* 3 were never sent"):
            bench.verify.Verifier(kind, tmp_path).verify([])
    else:
        with pytest.raises(bench.processes.BenchError, match=f"^{kind}: "):
            verifier.verify(sent)


@pytest.mark.parametrize("said", [True, False])
def test_a_damaged_file_is_forgiven_where_frames_are_damaged_and_its_sidecar_says_so(
    bench: Any, tmp_path: Path, said: bool
) -> None:
    sent = bench.verify.sent_files(1, (2000, 2000), [1], first=5)
    put(tmp_path, "gateway", 0, sent[0], bytes(2000), start_crc_matched=not said)
    for damaged in (False, True):
        verifier = bench.verify.Verifier("gateway", tmp_path)
        if said and damaged:
            verifier.verify(sent, damaged=True)
            assert len(verifier.flagged) == 1
        else:
            with pytest.raises(bench.processes.BenchError, match=r"^gateway: "):
                verifier.verify(sent, damaged=damaged)


def test_what_is_measured_again_takes_the_place_of_what_was_there(bench: Any) -> None:
    machine = {"date": "2026-11-23", "commit": "abc"}
    before = "B: measured again by itself on 2026-11-22, with commit xyz."
    old = {"minutes": 20.0, "remarks": ["one", before], "failures": {"B": "oh", "C": "no"}, "workloads": {"A": 1}}
    new = {"minutes": 1.5, "remarks": ["one", "two"], "failures": {}, "workloads": {"B": 2}, "machine": machine}
    assert bench.report.put_into(old, new) == {
        "minutes": 21.5,
        "remarks": ["one", "two", "B: measured again by itself on 2026-11-23, with commit abc."],
        "failures": {"C": "no"},
        "workloads": {"A": 1, "B": 2},
    }


def put(folder: Path, kind: str, number: int, file: Any, content: bytes, start_crc_matched: bool = True) -> None:
    """Store a file as a server of this kind does, the gateway's with a sidecar that says what was sent."""
    if kind == "sink":
        (folder / f"{file.imei}-{number}.jpg").write_bytes(content)
        return
    path = f"media/{file.imei}-{number}.jpg"
    (folder / "media").mkdir(exist_ok=True)
    (folder / path).write_bytes(content)
    sidecar = {
        "imei": file.imei,
        "device_path": file.path.decode(),
        "path": path,
        "start_crc_matched": start_crc_matched,
    }
    sha256 = file.sha256 if start_crc_matched else hashlib.sha256(content).hexdigest()
    (folder / path).with_suffix(".json").write_text(json.dumps({**sidecar, "sha256": sha256}))


# -- sums


def run_of(cpu_s_per_gb: float, **more: object) -> dict[str, Any]:
    """A run as far as the report looks at it."""
    times = {"p50": 0.001, "p99": 0.002, "max": 0.003}
    return {
        "cpu_s_per_gb": cpu_s_per_gb,
        "cpu_s": cpu_s_per_gb / 10,
        "wall_s": 10.0,
        "load_s": 9.0,
        "load_share": 0.4,
        "peak_rss": 50_000_000,
        "held": 0,
        "late_s": times,
        "answer_s": times,
        "file_s": times,
        "ack_s": times,
        **more,
    }


def results_of(**workloads: Any) -> dict[str, Any]:
    """Results with these workloads."""
    machine = {"cpu": "a CPU", "cores": 2, "memory_gb": 8, "kernel": "6", "file_system": "ext4", "python": "3.11"}
    machine |= {"twisted": "26", "commit": "abc", "date": "2026-01-01", "pinned": True, "others": 0.0, "steal": 0.0}
    found = {name: {"title": f"the workload {name}", **one} for name, one in workloads.items()}
    return {"machine": machine, "minutes": 3, "runs": 3, "remarks": [], "failures": {}, "workloads": found}


def kinds_of(sink: list[float], gateway: list[float]) -> dict[str, Any]:
    return {"kinds": {"sink": [*map(run_of, sink)], "gateway": [*map(run_of, gateway)]}}


def whole_results(**others: Any) -> dict[str, Any]:
    """Results of every workload, all goals just met."""
    delays = {"delay_s": {"p50": 0.001, "p99": 0.0499, "max": 0.1}, "sweep_interval_s": {"max": 1.99}}
    durable = {
        "store": {"files_per_s": 2000.0, "cpu_s_per_file": 0.001},
        "disk": {"32": {"files_per_s": 3000.0, "cpu_s_per_file": 0.001}},
    }
    storm = {**delays, "after_cut_s": 5.0, "sent_twice": 1e6, "resumes": 5}
    found: dict[str, Any] = {
        "A": kinds_of([1, 2, 9], [3, 3, 99]),
        "B": kinds_of([10], [20]),
        "C": kinds_of([10], [20]),
        "D": kinds_of([10], [7]),
        "curve": {
            "points": [{"cameras": count, **kinds_of([10], [cost])} for count, cost in ((100, 10), (20_000, 10))]
        },
        "live": {"kinds": {kind: [run_of(1, **delays)] for kind in ("sink", "gateway")}},
        "storm": {"kinds": {kind: [run_of(1, **storm)] for kind in ("sink", "gateway")}},
        "hostile": {"kinds": {"gateway": [run_of(70)]}},
        "idle": {"holds": {hold: idle_of(1000, 1000 + 4096) for hold in ("silent", "answered")}},
        "durable": {"runs": [durable]},
        "workers": {"workers": {"1": [{"files": 100, "load_s": 2.0}], "2": [{"files": 100, "load_s": 1.0}]}},
    }
    found["curve"]["points"][1]["kinds"]["gateway"] = [run_of(2500)]  # 250 s of 20,000 cameras: 1.25 times 1 s of 100
    return results_of(**{**found, **others})


def idle_of(sink: float, gateway: float) -> dict[str, Any]:
    return {kind: {"rss": 1e8, "bytes_per_connection": one} for kind, one in (("sink", sink), ("gateway", gateway))}


def test_medians_are_compared(bench: Any) -> None:
    workload = kinds_of([1, 2, 9], [3, 4, 99])
    assert bench.report.ratio(workload, "cpu_s_per_gb") == 2.0
    assert bench.report.ratio(workload, "peak_rss") == 1.0
    assert bench.report.ratio({"kinds": {"gateway": [run_of(3)]}}, "cpu_s_per_gb") is None


def test_goals_that_are_just_met_are_met(bench: Any) -> None:
    verdicts = bench.report.verdicts(whole_results())
    assert len(verdicts) == 11
    assert [one.goal for one in verdicts if one.met is not True] == []


@pytest.mark.parametrize(
    ("goal", "name", "found"),
    [
        ("A: CPU", "A", kinds_of([1, 2, 9], [3.01, 3.01, 3.01])),
        ("B: CPU", "B", kinds_of([10], [20.1])),
        ("C: CPU", "C", kinds_of([10], [20.1])),
        ("D: CPU", "D", kinds_of([10], [7.1])),
        ("D: memory", "D", {"kinds": {"sink": [run_of(10)], "gateway": [run_of(7, peak_rss=75_000_001)]}}),
        (
            "live: the sweep",
            "live",
            {"kinds": {"gateway": [run_of(1, delay_s={"p99": 0.01}, sweep_interval_s={"max": 2.0})]}},
        ),
        (
            "live: delay",
            "live",
            {"kinds": {"gateway": [run_of(1, delay_s={"p99": 0.05}, sweep_interval_s={"max": 1.0})]}},
        ),
        ("idle, silent", "idle", {"holds": {"silent": idle_of(1000, 5097), "answered": idle_of(1000, 1000)}}),
        ("idle, answered", "idle", {"holds": {"silent": idle_of(1000, 1000), "answered": idle_of(1000, 5097)}}),
        (
            "durable",
            "durable",
            {
                "runs": [
                    {
                        "store": {"files_per_s": 1999, "cpu_s_per_file": 1},
                        "disk": {"1": {"files_per_s": 2000, "cpu_s_per_file": 1}},
                    }
                ]
            },
        ),
        (
            "curve",
            "curve",
            {"points": [{"cameras": count, **kinds_of([1], [cost])} for count, cost in ((100, 10), (400, 51))]},
        ),
    ],
)
def test_a_goal_that_is_just_missed_is_not_met(bench: Any, goal: str, name: str, found: dict[str, Any]) -> None:
    verdicts = bench.report.verdicts(whole_results(**{name: {"title": name, **found}}))
    assert [one.goal for one in verdicts if one.met is False] == [
        one.goal for one in verdicts if one.goal.startswith(goal)
    ]


def test_a_goal_that_the_disk_does_not_give_is_not_judged(bench: Any) -> None:
    slow = {
        "store": {"files_per_s": 300, "cpu_s_per_file": 1},
        "disk": {"1": {"files_per_s": 900, "cpu_s_per_file": 1}},
    }
    (verdict,) = (
        one for one in bench.report.verdicts(results_of(durable={"runs": [slow]})) if one.goal.startswith("durable")
    )
    assert (verdict.met, verdict.found) == (None, "300; the disk alone 900")


def test_a_curve_that_ends_early_is_not_called_flat(bench: Any) -> None:
    points = [{"cameras": count, **kinds_of([10], [cost])} for count, cost in ((100, 10), (9_968, 10))]
    verdict = bench.report.verdicts(whole_results(curve={"points": points}))[-1]
    assert (verdict.met, verdict.found) == (None, "1.00, up to 9,968")


def test_what_was_not_measured_is_said_to_be_so(bench: Any) -> None:
    verdicts = bench.report.verdicts(results_of())
    assert {(one.found, one.met) for one in verdicts} == {("not measured", None)}
    assert bench.report.page(results_of(), "notes").startswith("# Performance\n")


def test_a_generator_that_was_late_is_told_of(bench: Any) -> None:
    late = run_of(10, late_s={"p99": 0.06})
    results = results_of(D={"kinds": {"sink": [run_of(10)], "gateway": [late]}})
    (words,) = bench.report.lateness(results)
    assert words.startswith("D, gateway: the generator used 40%")
    assert words in bench.report.page(results, "") and words in bench.report.text(results)


def test_a_machine_that_was_not_quiet_is_told_of(bench: Any) -> None:
    results = whole_results()
    assert "not quiet" not in bench.report.page(results, "")
    results["machine"]["others"] = 0.5
    assert bench.report.page(results, "").count("not quiet") == 2
    assert "other programs used 50% of its cores' time" in bench.report.text(results)


def test_several_generators_are_one_in_the_report(bench: Any) -> None:
    one = {
        "acknowledged": 2,
        "wall_s": 3.0,
        "late_s": {"p99": 0.1, "count": 4},
        "files": [1, 1],
        "failure": "",
        "cpu_s": 1.0,
    }
    other = {
        "acknowledged": 1,
        "wall_s": 4.0,
        "late_s": {"p99": 0.2, "count": 2},
        "files": [1],
        "failure": "",
        "cpu_s": 2.0,
    }
    assert bench.processes.merged([one, other]) == {
        "acknowledged": 3,
        "wall_s": 4.0,
        "late_s": {"p99": 0.2, "count": 6},
        "files": [1, 1, 1],
        "failure": "",
        "cpu_s": 3.0,
    }


# -- pages


def test_the_page_has_every_goal_and_table_and_the_notes(bench: Any) -> None:
    results = whole_results()
    page = bench.report.page(results, "\nWhat bounds it.\n")
    for verdict in bench.report.verdicts(results):
        assert f"| {verdict.goal} | {verdict.wanted} | {verdict.found} | met |" in page
    for table in bench.report.tables(results):
        assert f"## {table.title}\n" in page
        assert {len(row) for row in table.rows} == {len(table.heads)}
    assert "\n\nWhat bounds it.\n\n" in page
    assert "(performance.svg)" in page


def test_the_picture_is_well_formed_and_has_every_point(bench: Any) -> None:
    picture = ElementTree.fromstring(bench.chart.svg(whole_results()))
    name = "{http://www.w3.org/2000/svg}"
    assert len(list(picture.iter(f"{name}circle"))) == 4, "two points, two servers"
    assert [path.get("class") for path in picture.iter(f"{name}path")].count("goal") == 1 + 4, "the legend, A to D"
    assert ElementTree.fromstring(bench.chart.svg(results_of())).tag == f"{name}svg"


def test_page_and_picture_are_what_the_figures_say() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(BENCH / "report.py"), "--check"],
        cwd="/",
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_workload_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "run.py"), "--only", "Z", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "no workload is called 'Z'; there are A, B, C, D, curve, live, storm, hostile, idle, durable, workers"
    )
