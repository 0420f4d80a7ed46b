"""What the figures of a run come to: ratios, which goal is met, tables, and the page and the picture of them.

    python bench/report.py           write docs/performance.md and docs/performance.svg from docs/performance.json
    python bench/report.py --check   only see whether they are what it says

Pure but for the files at the end: no figure comes from anywhere but the results of `run`. What people have to say about
them stands in docs/performance_notes.md and is taken over as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import chart
from chart import GOALS, KINDS

DOCS = Path(__file__).resolve().parent.parent / "docs"
MADE = "<!-- Made by bench/report.py from performance.json; `make bench` measures and writes both. -->"
COSTS = ("A", "B", "C", "D", "storm", "hostile")
#: How much dearer a camera may become with their number for the curve to be called flat.
FLAT = 1.25
#: Up to how many it shall be so.
MOST = 20_000
#: A generator that is later than this in one of a hundred frames, or has less of its core left, may be the limit.
LATE_S, LATE_SHARE = 0.05, 0.9
_SWEEP_MISSED_S = 2.0
#: Share of all cores that others may use without being mentioned.
DISTURBED = 0.02
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal and what was found; ``met`` is None where it could not be told."""

    goal: str
    wanted: str
    found: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a line of explanation, heads and rows of text."""

    title: str
    words: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


# -- figures


def values(workload: Row, kind: str, *names: str) -> list[float]:
    """Return a figure of each run of a kind; ``names`` lead to it, and a run that lacks it is left out."""
    found: list[float] = []
    for run in workload["kinds"].get(kind, ()):
        value: Any = run
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            found.append(value)
    return found


def middle(workload: Row, kind: str, *names: str) -> float | None:
    """Return the median of the runs of a kind."""
    found = values(workload, kind, *names)
    return median(found) if found else None


def ratio(workload: Row, *names: str) -> float | None:
    """Return the gateway's median divided by the sink's."""
    ours, bare = middle(workload, "gateway", *names), middle(workload, "sink", *names)
    return ours / bare if ours is not None and bare else None


# -- goals


def verdicts(results: Row) -> list[Verdict]:
    """Return every goal with what was found, also those that were not measured."""
    found = results["workloads"]
    rows = [
        _at_most(
            f"{name}: CPU, times that of the sink", most, ratio(found.get(name, _NOTHING), "cpu_s_per_gb"), "{:.2f}"
        )
        for name, most in GOALS.items()
    ]
    rows.append(
        _at_most("D: memory, times that of the sink", 1.5, ratio(found.get("D", _NOTHING), "peak_rss"), "{:.2f}")
    )
    live = found.get("live", _NOTHING)
    rows.append(_no_timer_missed(live))
    late_s = middle(live, "gateway", "delay_s", "p99")
    rows.append(_below("live: delay of the reactor, p99, in ms", 50, late_s and late_s * 1e3, "{:.1f}"))
    for hold in ("answered", "silent"):
        kinds = found.get("idle", {}).get("holds", {}).get(hold)
        beyond = kinds and kinds["gateway"]["bytes_per_connection"] - kinds["sink"]["bytes_per_connection"]
        rows.append(_at_most(f"idle, {hold}: memory beyond the sink's, in KiB", 4, _in(beyond, 1024), "{:.2f}"))
    rows.append(_durable(found.get("durable")))
    rows.append(_flat(found.get("curve")))
    return rows


_NOTHING: Row = {"kinds": {}}


def _in(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _at_most(goal: str, most: float, found: float | None, form: str) -> Verdict:
    if found is None:
        return Verdict(goal, f"at most {most:g}", "not measured", None)
    return Verdict(goal, f"at most {most:g}", form.format(found), found <= most)


def _below(goal: str, bound: float, found: float | None, form: str) -> Verdict:
    if found is None:
        return Verdict(goal, f"below {bound:g}", "not measured", None)
    return Verdict(goal, f"below {bound:g}", form.format(found), found < bound)


def _no_timer_missed(live: Row) -> Verdict:
    goal, wanted = "live: the sweep of every second", "none missed"
    greatest_s = max(values(live, "gateway", "sweep_interval_s", "max"), default=None)
    if greatest_s is None:
        return Verdict(goal, wanted, "not measured", None)
    return Verdict(goal, wanted, f"at most {greatest_s:.2f} s apart", greatest_s < _SWEEP_MISSED_S)


def _durable(durable: Row | None) -> Verdict:
    goal, wanted = "durable: files of 100 KB a second", "at least 2,000, where the disk gives it"
    if durable is None:
        return Verdict(goal, wanted, "not measured", None)
    found = median(run["store"]["files_per_s"] for run in durable["runs"])
    best = median(max(one["files_per_s"] for one in run["disk"].values()) for run in durable["runs"])
    words = f"{found:,.0f}; the disk alone {best:,.0f}"
    return Verdict(goal, wanted, words, True if found >= 2000 else None if best < 2000 else False)


def _flat(curve: Row | None) -> Verdict:
    goal, wanted = "curve: cost of a camera, the highest point against the first", f"at most {FLAT:g}, up to {MOST:,}"
    points = curve["points"] if curve else []
    costs = [cost for point in points if (cost := per_camera_ms(point, "gateway")) is not None]
    if len(costs) < 2:
        return Verdict(goal, wanted, "not measured", None)
    most, is_flat = points[-1]["cameras"], max(costs) <= FLAT * costs[0]
    met = is_flat if most >= MOST or not is_flat else None
    return Verdict(goal, wanted, f"{max(costs) / costs[0]:.2f}, up to {most:,}", met)


def per_camera_ms(point: Row, kind: str) -> float | None:
    """Return the CPU milliseconds that a camera costs with its file, at one point of the curve."""
    cost_s = middle(point, kind, "cpu_s")
    return None if cost_s is None else cost_s / point["cameras"] * 1e3


def lateness(results: Row) -> list[str]:
    """Return in words where the generator may have been the limit."""
    words = []
    for name, one in _all_kinds(results):
        for kind in one["kinds"]:
            late_s, share = middle(one, kind, "late_s", "p99") or 0.0, middle(one, kind, "load_share") or 0.0
            if late_s > LATE_S or share > LATE_SHARE:
                late = f", and one frame in a hundred went out more than {late_s * 1e3:.0f} ms late" if late_s else ""
                words.append(f"{name}, {kind}: the generator used {share:.0%} of its core{late}.")
    return words


def _all_kinds(results: Row) -> Iterator[tuple[str, Row]]:
    for name, one in results["workloads"].items():
        if "kinds" in one:
            yield name, one
        for point in one.get("points", ()):
            yield f"{name} {point['cameras']}", point


# -- tables


def tables(results: Row) -> list[Table]:
    """Return all tables there is something for."""
    found = results["workloads"]
    makers: list[tuple[str, Callable[[Row], Table]]] = [
        ("curve", _curve_table),
        ("live", _live_table),
        ("storm", _storm_table),
        ("idle", _idle_table),
        ("durable", _durable_table),
        ("workers", _workers_table),
    ]
    made = [_goal_table(results)]
    if any(name in found for name in COSTS):
        made += [_cost_table(found), _latency_table(found)]
    made += [make(found[name]) for name, make in makers if name in found]
    return [*made, _load_table(results)]


def _goal_table(results: Row) -> Table:
    words = {True: "met", False: "**not met**", None: "?"}
    rows = [(one.goal, one.wanted, one.found, words[one.met]) for one in verdicts(results)]
    return Table("Goals", "", ("goal", "wanted", "found", ""), rows)


def _begun(words: str) -> str:
    """Return words as a sentence begins; `str.capitalize` would make kb of KB."""
    return words[:1].upper() + words[1:]


def _spread(found: Iterable[float], scale: float = 1.0, form: str = "{:.1f}") -> str:
    ordered = sorted(value * scale for value in found)
    if not ordered:
        return "-"
    least, most = form.format(ordered[0]), form.format(ordered[-1])
    return form.format(median(ordered)) + (f" ({least} to {most})" if len(ordered) > 1 else "")


def _number(value: float | None, scale: float = 1.0, form: str = "{:.2f}") -> str:
    return "-" if value is None else form.format(value * scale)


def _cost_table(found: Row) -> Table:
    rows = []
    for name in COSTS:
        if name in found:
            one = found[name]
            rows.append(
                (
                    f"{name}: {one['title']}",
                    *(_spread(values(one, kind, "cpu_s_per_gb")) for kind in KINDS),
                    _number(ratio(one, "cpu_s_per_gb")),
                    *(_number(middle(one, kind, "peak_rss"), 1e-6, "{:.0f}") for kind in KINDS),
                    _number(ratio(one, "peak_rss")),
                    *(_number(middle(one, kind, "load_s"), 1, "{:.1f}") for kind in KINDS),
                )
            )
    heads = ("workload", "CPU-s/GB sink", "gateway", "ratio", "MB sink", "gateway", "ratio", "seconds sink", "gateway")
    words = (
        "CPU seconds of the server's process for each GB (10^9 bytes) of stored files, and its greatest memory (RSS) "
        "meanwhile; median, and the least and the greatest of all runs."
    )
    return Table("Cost", f"{words}{_first_of_day(found)}", heads, rows)


def _first_of_day(found: Row) -> str:
    """Say what the first file of a device's day costs more, where that was measured."""
    extra = [one["first_of_day_cpu_s"] for one in found.values() if one.get("first_of_day_cpu_s")]
    if not extra:
        return ""
    return f" The first file of a device's day costs the gateway {extra[0]['gateway'] * 1e3:.1f} CPU-ms more."


def _latency_table(found: Row) -> Table:
    rows = []
    for name in COSTS:
        for kind in found.get(name, _NOTHING)["kinds"]:
            shown = [
                f"{_number(middle(found[name], kind, what, 'p50'), 1e3, '{:,.1f}')} / "
                f"{_number(middle(found[name], kind, what, 'p99'), 1e3, '{:,.1f}')}"
                for what in ("answer_s", "file_s", "ack_s")
            ]
            rows.append((name, kind, *shown))
    words = (
        "Milliseconds, median / 99th percentile. A file's time begins with the INIT that offers it, and for a camera "
        "with a rate is that of its sending above all."
    )
    heads = (
        "workload",
        "server",
        "connect to first answer",
        "file to acknowledgement",
        "last frame to acknowledgement",
    )
    return Table("Latencies", words, heads, rows)


def _share(run: Row) -> float:
    return float(run["cpu_s"] / run["wall_s"])


def _curve_table(curve: Row) -> Table:
    rows = []
    for point in curve["points"]:
        shares = [max(map(_share, point["kinds"].get(kind, ())), default=None) for kind in KINDS]
        rows.append(
            (
                f"{point['cameras']:,}",
                *(_spread(values(point, kind, "cpu_s_per_gb")) for kind in KINDS),
                _number(ratio(point, "cpu_s_per_gb")),
                *(_number(per_camera_ms(point, kind)) for kind in KINDS),
                *("-" if share is None else f"{share:.0%}" for share in shares),
            )
        )
    heads = ("cameras", "CPU-s/GB sink", "gateway", "ratio", "ms/camera sink", "gateway", "core sink", "gateway")
    words = (
        f"{_begun(curve['title'])}. CPU milliseconds a camera are those of its connection and its file. Where the "
        "core is used up, reads bring more at once and cost less for each byte."
    )
    return Table("More and more cameras", words, heads, rows)


def _live_table(live: Row) -> Table:
    rows = []
    for kind in live["kinds"]:
        delays = [_number(middle(live, kind, "delay_s", what), 1e3, "{:.1f}") for what in ("p50", "p99", "max")]
        (share, *_) = [_share(run) for run in live["kinds"][kind]]
        sweeps = _number(middle(live, kind, "sweep_interval_s", "max"), 1, "{:.2f}")
        rows.append((kind, f"{share:.0%}", *delays, sweeps))
    heads = ("server", "of a core", "delay p50, ms", "p99", "max", "sweeps at most apart, s")
    words = (
        f"{_begun(live['title'])}, on one core; a window in the middle. The delay is that of a timer of 5 ms in "
        "the server's reactor."
    )
    return Table("A live fleet", words, heads, rows)


def _storm_table(storm: Row) -> Table:
    rows = []
    for kind in storm["kinds"]:
        rows.append(
            (
                kind,
                _spread(values(storm, kind, "after_cut_s")),
                _spread(values(storm, kind, "cpu_s")),
                _spread(values(storm, kind, "delay_s", "max"), 1e3, "{:.0f}"),
                _spread(values(storm, kind, "sent_twice"), 1e-6),
                _number(middle(storm, kind, "resumes"), 1, "{:.0f}"),
            )
        )
    heads = ("server", "s until all are acknowledged", "CPU-s", "delay max, ms", "MB sent twice", "files resumed")
    return Table("A storm", f"{_begun(storm['title'])}; counted from the cut.", heads, rows)


def _idle_table(idle: Row) -> Table:
    words = {"silent": "have said nothing", "answered": "have said INIT and were answered"}
    rows = []
    for hold, kinds in idle["holds"].items():
        each = [kinds[kind]["bytes_per_connection"] / 1024 for kind in KINDS]
        memory = [f"{kinds[kind]['rss'] / 1e6:.0f}" for kind in KINDS]
        rows.append((words[hold], *memory, *(f"{one:.2f}" for one in each), f"{each[1] - each[0]:.2f}"))
    heads = ("connections that", "MB sink", "gateway", "KiB/connection sink", "gateway", "beyond")
    return Table("Idle connections", f"{_begun(idle['title'])}: memory (RSS).", heads, rows)


def _durable_table(durable: Row) -> Table:
    runs = durable["runs"]
    rows = [
        (
            f"bare: create, write, fsync; {threads} thread{'s' if threads != '1' else ''}",
            _spread((run["disk"][threads]["files_per_s"] for run in runs), 1, "{:,.0f}"),
            _spread((run["disk"][threads]["cpu_s_per_file"] for run in runs), 1e3, "{:.2f}"),
        )
        for threads in runs[0]["disk"]
    ]
    rows.append(
        (
            "the store",
            _spread((run["store"]["files_per_s"] for run in runs), 1, "{:,.0f}"),
            _spread((run["store"]["cpu_s_per_file"] for run in runs), 1e3, "{:.2f}"),
        )
    )
    return Table("Durable files", f"{_begun(durable['title'])}, on one core.", ("", "files/s", "CPU-ms/file"), rows)


def _workers_table(workers: Row) -> Table:
    rates = {number: [run["files"] / run["load_s"] for run in runs] for number, runs in workers["workers"].items()}
    one = median(rates["1"])
    rows = [(number, _spread(found, 1, "{:,.0f}"), f"{median(found) / one:.2f}") for number, found in rates.items()]
    return Table("Several processes", f"{_begun(workers['title'])}.", ("workers", "files/s", "times one"), rows)


def _load_table(results: Row) -> Table:
    rows = []
    for name, one in _all_kinds(results):
        for kind in one["kinds"]:
            late = [_number(middle(one, kind, "late_s", what), 1e3, "{:.1f}") for what in ("p50", "p99", "max")]
            share, held = middle(one, kind, "load_share"), middle(one, kind, "held")
            rows.append((name, kind, _number(share, 100, "{:.0f} %"), *late, _number(held, 1, "{:,.0f}")))
    words = (
        "How much of its core the generator used, how late frames of cameras with a rate went out (ms), and how many "
        "could not go out when they were due, as the server had not read the ones before."
    )
    return Table("The generator", words, ("workload", "server", "core", "late p50", "p99", "max", "held"), rows)


def _flagged(results: Row) -> list[str]:
    """Say where damage had the right CRC by chance."""
    remarks = []
    for name, one in _all_kinds(results):
        runs = one["kinds"].get("gateway", [])
        count = sum(run.get("flagged", 0) for run in runs)
        if count:
            files = sum(run["files"] for run in runs)
            remarks.append(
                f"{name}: of {files:,} files {count} {'is' if count == 1 else 'are'} not what was sent, and "
                f"{'its sidecar says' if count == 1 else 'their sidecars say'} so: of damaged frames one in 65,536 has "
                "the right CRC-16, which START's CRC of the whole file shows."
            )
    return remarks


# -- pages


def put_into(results: Row, again: Row) -> Row:
    """Return results with those workloads in them that were measured again, and a remark that says so."""
    names, one = again["workloads"], again["machine"]
    begin = f"{', '.join(names)}: measured again by itself on "
    remark = f"{begin}{one['date']}, with commit {one['commit']}."
    older = [words for words in results["remarks"] if not words.startswith(begin)]
    return {
        **results,
        "minutes": round(results["minutes"] + again["minutes"], 1),
        "remarks": list(dict.fromkeys([*older, *again["remarks"], remark])),
        "failures": {name: why for name, why in results["failures"].items() if name not in names},
        "workloads": {**results["workloads"], **names},
    }


def text(results: Row) -> str:
    """Return the tables for a terminal."""
    parts = []
    for table in tables(results):
        if not table.rows:
            continue
        rows = [table.heads, *([cell.replace("**", "") for cell in row] for row in table.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        parts.append("\n".join([f"\n== {table.title}", *lines]))
    notes = [_first_of_day(results["workloads"]).strip(), *_remarks(results)]
    return "\n".join([*parts, *(f"\nnote: {one}" for one in notes if one)])


def _remarks(results: Row) -> list[str]:
    remarks = [f"{name} failed: {failure}." for name, failure in results["failures"].items()]
    remarks += [*results["remarks"], *_flagged(results), *lateness(results)]
    one = results["machine"]
    if _disturbed(one):
        remarks.append(
            f"The machine was not quiet: meanwhile other programs used {one['others']:.0%} of its cores' time, and "
            f"other machines on the same host {one['steal']:.0%}."
        )
    if not one["pinned"]:
        remarks.append("There is one core only: servers and generator share it.")
    return remarks


def _disturbed(machine: Row) -> bool:
    return bool(machine["others"] > DISTURBED or machine["steal"] > DISTURBED)


def page(results: Row, notes: str) -> str:
    """Return docs/performance.md."""
    parts = [f"# Performance\n\n{MADE}\n\n{_about(results)}"]
    for table in tables(results):
        if table.rows:
            words = f"\n{table.words}\n" if table.words else ""
            parts.append(f"## {table.title}\n{words}\n{_markdown(table)}")
            if table.title == "Goals":
                parts.append(notes.strip())
            if table.title == "More and more cameras":
                parts.append("![CPU time by the number of cameras, and by workload](performance.svg)")
    remarks = _remarks(results)
    if remarks:
        parts.append("## Where the figures are to be doubted\n\n" + "\n".join(f"- {one}" for one in remarks))
    return "\n\n".join(parts) + "\n"


def _about(results: Row) -> str:
    one = results["machine"]
    return (
        f"Measured on {one['date']} with the gateway of commit {one['commit']}, in {results['minutes']:g} minutes, on "
        f"this machine: {one['cpu']}, {one['cores']} core{'s' if one['cores'] != 1 else ''}, {one['memory_gb']:g} GB, "
        f"Linux {one['kernel']}, {one['file_system']}, Python {one['python']}, Twisted {one['twisted']}. `make bench` "
        "does it again on yours, and writes this page, the picture and [the figures](performance.json)."
        + (
            " **The machine was not quiet**, see [below](#where-the-figures-are-to-be-doubted)."
            if _disturbed(one)
            else ""
        )
    )


def _markdown(table: Table) -> str:
    lines: list[Sequence[str]] = [table.heads, ("---",) * len(table.heads), *table.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def made(folder: Path) -> dict[str, str]:
    """Return page and picture of the results in a folder."""
    results = json.loads((folder / "performance.json").read_text())
    notes = (folder / "performance_notes.md").read_text()
    return {"performance.md": page(results, notes), "performance.svg": chart.svg(results)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/performance.md and docs/performance.svg.")
    parser.add_argument("--check", action="store_true", help="only see whether they are up to date")
    parser.add_argument("--folder", type=Path, default=DOCS, help="where performance.json is")
    given = parser.parse_args()
    differ = {
        name: content
        for name, content in made(given.folder).items()
        if not (given.folder / name).is_file() or (given.folder / name).read_text() != content
    }
    if not given.check:
        for name, content in differ.items():
            (given.folder / name).write_text(content)
        return 0
    if differ:
        print(f"not what the figures say: {', '.join(differ)} (python bench/report.py writes them)", file=sys.stderr)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
