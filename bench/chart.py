"""The picture of a run: cost by the number of cameras, and by workload. The same results always give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

Row = dict[str, Any]
KINDS = ("sink", "gateway")
INKS = {"sink": "#8a94a3", "gateway": "#2563a8"}
WORDS = {"sink": "bare Twisted sink", "gateway": "gateway"}
WIDTH, HEIGHT = 960, 430
TOP, BOTTOM = 76, 350
#: Left and right edges of the two panels.
CURVE, BARS = (70, 510), (610, 940)
_STYLE = """\
text { font: 12px Helvetica, Arial, sans-serif; fill: #1f2937; }
.title { font-weight: bold; font-size: 13px; }
.small { font-size: 11px; fill: #4b5563; }
.grid { stroke: #e2e5ea; }
.axis { stroke: #6b7280; }
.line { fill: none; stroke-width: 2; }
.goal { stroke: #b45309; stroke-width: 2; }"""
#: The most CPU time that the gateway shall take in a workload, in sinks.
GOALS = {"A": 1.5, "B": 2.0, "C": 2.0, "D": 0.7}


def svg(results: Row) -> str:
    """Return the picture; a panel that there are no figures for says so."""
    found = results["workloads"]
    parts = [*_legend(), *_curve(found.get("curve", {}).get("points", [])), *_bars(found)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-label="CPU seconds a GB of the gateway and a bare sink">'
    )
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    return "\n".join([head, f"<style>\n{_STYLE}\n</style>", ground, *parts, "</svg>\n"])


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind} text-anchor="{anchor}">{escape(words)}</text>'


def _legend() -> Iterator[str]:
    x = CURVE[0]
    for kind in KINDS:
        yield f'<rect x="{x}" y="12" width="22" height="10" fill="{INKS[kind]}"/>'
        yield _text(x + 30, 21, WORDS[kind])
        x += 170
    yield f'<path class="goal" d="M{x} 17h22"/>'
    yield _text(x + 30, 21, "goal: at most so much")


def _step(most: float) -> float:
    """Return a round step of which four to nine make ``most``."""
    power = 10.0 ** math.floor(math.log10(most / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if most / (power * factor) <= 8)


def _scale(panel: tuple[int, int], most: float) -> Iterator[str]:
    """The grid of CPU-s/GB."""
    step = _step(most)
    for number in range(int(most / step) + 1):
        y = _y(number * step, most)
        yield f'<path class="grid" d="M{panel[0]} {y:.1f}H{panel[1]}"/>'
        yield _text(panel[0] - 8, y + 4, f"{number * step:g}", "small", "end")
    yield f'<path class="axis" d="M{panel[0]} {BOTTOM}H{panel[1]}"/>'


def _y(value: float, most: float) -> float:
    return BOTTOM - value / most * (BOTTOM - TOP)


def _costs(one: Row, kind: str) -> list[float]:
    return [run["cpu_s_per_gb"] for run in one["kinds"].get(kind, ())]


def _curve(points: list[Row]) -> Iterator[str]:
    yield _text(CURVE[0], TOP - 24, "CPU-s a GB stored, by the number of cameras (3.7 frames/s each)", "title")
    costs = {kind: [(point["cameras"], median(_costs(point, kind))) for point in points] for kind in KINDS}
    if not points:
        yield _text(CURVE[0], TOP + 20, "not measured", "small")
        return
    most = 1.1 * max(cost for line in costs.values() for _, cost in line)
    yield from _scale(CURVE, most)
    least, span = math.log10(points[0]["cameras"]), math.log10(points[-1]["cameras"] / points[0]["cameras"]) or 1.0

    def x(cameras: int) -> float:
        return CURVE[0] + 24 + (math.log10(cameras) - least) / span * (CURVE[1] - CURVE[0] - 48)

    for point in points:
        yield f'<path class="axis" d="M{x(point["cameras"]):.1f} {BOTTOM}v5"/>'
        yield _text(x(point["cameras"]), BOTTOM + 20, f"{point['cameras']:,}", "", "middle")
    yield _text((CURVE[0] + CURVE[1]) / 2, BOTTOM + 42, "cameras at a time", "small", "middle")
    for kind, line in costs.items():
        places = [(x(cameras), _y(cost, most)) for cameras, cost in line]
        path = "L".join(f"{left:.1f} {top:.1f}" for left, top in places)
        yield f'<path class="line" stroke="{INKS[kind]}" d="M{path}"/>'
        other = costs[KINDS[1 - KINDS.index(kind)]]
        for number, ((left, top), (_, cost)) in enumerate(zip(places, line, strict=True)):
            yield f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3.5" fill="{INKS[kind]}"/>'
            label = top - 9 if cost >= other[number][1] else top + 18
            if label < BOTTOM - 3:  # the table has it anyway
                yield _text(left, label, f"{cost:.1f}", "small", "middle")


def _bars(found: Row) -> Iterator[str]:
    yield _text(BARS[0], TOP - 24, "CPU-s a GB stored, by workload", "title")
    shown = [name for name in GOALS if name in found]
    if not shown:
        yield _text(BARS[0], TOP + 20, "not measured", "small")
        return
    costs = {name: {kind: median(_costs(found[name], kind)) for kind in KINDS} for name in shown}
    most = 1.1 * max(max(cost.values()) for cost in costs.values())
    yield from _scale(BARS, most)
    room = (BARS[1] - BARS[0]) / len(shown)
    width = min(34.0, room / 2 - 6)
    for number, (name, cost) in enumerate(costs.items()):
        middle = BARS[0] + room * (number + 0.5)
        for side, kind in enumerate(KINDS):
            left, top = middle + (side - 1) * width, _y(cost[kind], most)
            yield (
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{width - 2:.1f}" height="{BOTTOM - top:.1f}" '
                f'fill="{INKS[kind]}"/>'
            )
            yield _text(left + width / 2 - 1, top - 5, f"{cost[kind]:.1f}", "small", "middle")
        yield f'<path class="goal" d="M{middle - 2:.1f} {_y(cost["sink"] * GOALS[name], most):.1f}h{width + 2:.1f}"/>'
        yield _text(middle, BOTTOM + 20, name, "", "middle")
        yield _text(middle, BOTTOM + 38, f"{cost['gateway'] / cost['sink']:.2f}x", "small", "middle")
