"""The diagram of a session's states as SVG, drawn from the table of what is legal.

States stand in a column in the order in which a file goes through them, ENDED as a bar beside all of them; INIT in
mid-conversation leads over a rail to where the next file is asked for. What keeps a state is written into its box. Each
other pair of states has a route here, and a pair without one is an error. The same table always gives the same bytes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from conversation import DRIVEN, Cause

from dsmgateway.commands import Init
from dsmgateway.states import LEGAL, State, spelt

S = State
COLUMN: list[State] = [state for state in State if state is not S.ENDED]

BOX_LEFT, BOX_WIDTH = 210, 350
BOX_RIGHT = BOX_LEFT + BOX_WIDTH
RAIL = 28
ENDED_LEFT, ENDED_WIDTH = 930, 110
WIDTH = ENDED_LEFT + ENDED_WIDTH + 20
TOP, GAP = 24, 54
TITLE_HEIGHT, LINE_HEIGHT, LEAST_HEIGHT = 32, 16, 52
#: Characters of the small print that fit into a box.
BOX_COLUMNS = 52
#: Where skipping arrows run on the right, beside the column.
RIGHT_LANE = BOX_RIGHT + 30
#: Arrows to ENDED carry their words above them from here on.
ENDED_WORDS = BOX_RIGHT + 48
ENDED_COLUMNS = 44

INK, STORE_INK, TIME_INK = "#1f2937", "#b45309", "#6d28d9"
STYLE = f"""\
text {{ font: 12px Helvetica, Arial, sans-serif; fill: {INK}; }}
.name {{ font-weight: bold; font-size: 13px; }}
.box {{ fill: #eef4fb; stroke: #3b6ea5; stroke-width: 1.4; }}
.busy {{ fill: #fdf3e3; stroke: {STORE_INK}; }}
.end {{ fill: #e9eaec; stroke: #4b5563; }}
.halo {{ fill: none; stroke: #fff; stroke-width: 8; }}
.arrow {{ fill: none; stroke-width: 1.4; }}
.command {{ stroke: {INK}; }}
.store {{ stroke: {STORE_INK}; stroke-dasharray: 6 4; }}
.time {{ stroke: {TIME_INK}; stroke-dasharray: 2 4; }}
text.store {{ fill: {STORE_INK}; stroke: none; }}
text.time {{ fill: {TIME_INK}; stroke: none; }}
text.command {{ stroke: none; }}"""


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow: ``kind`` is ``command``, ``store`` or ``time``."""

    start: State
    end: State
    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Box:
    """Where a state stands, and the small print in its box: (kind, line)."""

    state: State
    top: int
    lines: tuple[tuple[str, str], ...]

    @property
    def height(self) -> int:
        """Room for the name and the small print."""
        return max(LEAST_HEIGHT, TITLE_HEIGHT + LINE_HEIGHT * len(self.lines) + 2)

    @property
    def bottom(self) -> int:
        """Where the box ends."""
        return self.top + self.height


def edges() -> list[Edge]:
    """Return all transitions: one arrow for all commands that lead from one state to another, the others singly."""
    found: dict[tuple[State, State], list[str]] = {}
    for start, legal in LEGAL.items():
        for kind, ends in legal.items():
            for end in ends:
                found.setdefault((start, end), []).append(spelt(kind))
    drawn = [Edge(start, end, "command", ", ".join(names)) for (start, end), names in found.items()]
    return drawn + [Edge(one.start, one.end, one.cause.value, one.words) for one in DRIVEN]


def svg() -> str:
    """Return the diagram."""
    drawn = edges()
    boxes = _boxes([edge for edge in drawn if edge.start is edge.end])
    bottom = boxes[COLUMN[-1]].bottom
    parts = [_box(box) for box in boxes.values()]
    parts.append(_ended(bottom))
    # What crosses others is drawn later, over a gap that it makes in them.
    between = [edge for edge in drawn if edge.start is not edge.end]
    for edge in sorted(between, key=lambda edge: (edge.start, edge.end, edge.kind) not in _LANES):
        parts.extend(_route(edge, boxes))
    parts.extend(_legend(bottom + 40))
    height = bottom + 100
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-label="States of a session">'
    )
    markers = "\n".join(_marker(kind, ink) for kind, ink in _INKS.items())
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    return "\n".join([head, f"<style>\n{STYLE}\n</style>", f"<defs>\n{markers}\n</defs>", ground, *parts, "</svg>\n"])


_INKS = {"command": INK, "store": STORE_INK, "time": TIME_INK}


def _marker(kind: str, ink: str) -> str:
    return (
        f'<marker id="{kind}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 1 10 5 0 9z" fill="{ink}"/></marker>'
    )


def _boxes(stays: list[Edge]) -> dict[State, Box]:
    boxes: dict[State, Box] = {}
    top = TOP
    for state in COLUMN:
        lines = [
            (edge.kind, line)
            for edge in stays
            if edge.start is state
            for line in textwrap.wrap(f"stays: {edge.words}", BOX_COLUMNS)
        ]
        boxes[state] = Box(state, top, tuple(lines))
        top = boxes[state].bottom + GAP
    return boxes


def _box(box: Box) -> str:
    busy = "" if LEGAL[box.state] else " busy"
    middle = BOX_LEFT + BOX_WIDTH // 2
    title = box.top + (21 if box.lines else box.height // 2 + 5)
    parts = [
        f'<rect class="box{busy}" x="{BOX_LEFT}" y="{box.top}" width="{BOX_WIDTH}" height="{box.height}" rx="7"/>',
        f'<text class="name" x="{middle}" y="{title}" text-anchor="middle">{box.state.name}</text>',
    ]
    for number, (kind, line) in enumerate(box.lines):
        y = box.top + TITLE_HEIGHT + 8 + number * LINE_HEIGHT
        parts.append(f'<text class="{kind}" x="{middle}" y="{y}" text-anchor="middle">{escape(line)}</text>')
    return "\n".join(parts)


def _ended(bottom: int) -> str:
    middle, height = ENDED_LEFT + ENDED_WIDTH // 2, bottom - TOP
    return (
        f'<rect class="box end" x="{ENDED_LEFT}" y="{TOP}" width="{ENDED_WIDTH}" height="{height}" rx="7"/>\n'
        f'<text class="name" x="{middle}" y="{TOP + height // 2}" text-anchor="middle">{S.ENDED.name}</text>'
    )


def _route(edge: Edge, boxes: dict[State, Box]) -> Iterator[str]:
    if edge.end is S.ENDED:
        yield from _to_ended(edge, boxes)
    elif edge.words == spelt(Init) and (edge.start, edge.end) != (S.AWAIT_INIT, S.AWAIT_PATH):
        yield from _to_rail(edge, boxes)
    elif (edge.start, edge.end, edge.kind) in _LANES:
        yield from _by_lane(edge, boxes)
    else:
        yield from _between(edge, boxes)


def _to_ended(edge: Edge, boxes: dict[State, Box]) -> Iterator[str]:
    box = boxes[edge.start]
    kinds = [other.kind for other in edges() if (other.start, other.end) == (edge.start, edge.end)]
    y = box.top + box.height // 2 + 20 * kinds.index(edge.kind) - 10 * (len(kinds) - 1)
    yield from _gaps(BOX_RIGHT, ENDED_LEFT, y, boxes)
    yield _arrow(edge, f"M{BOX_RIGHT} {y}H{ENDED_LEFT}")
    for number, line in enumerate(reversed(textwrap.wrap(edge.words, ENDED_COLUMNS))):
        yield _words(edge, ENDED_WORDS, y - 5 - number * 14, line)


def _to_rail(edge: Edge, boxes: dict[State, Box]) -> Iterator[str]:
    target = boxes[edge.end]
    y, end = boxes[edge.start].top + 14, target.top + target.height // 2
    turn = 8 if end > y else -8
    yield from _gaps(RAIL + 8, BOX_LEFT, y, boxes)
    corner, top = f"H{RAIL + 8}Q{RAIL} {y} {RAIL} {y + turn}", f"Q{RAIL} {end} {RAIL + 8} {end}H{BOX_LEFT}"
    yield _arrow(edge, f"M{BOX_LEFT} {y}{corner}V{end - turn}{top}")
    if edge.end is S.AWAIT_PATH or (edge.start, edge.end) == (S.AWAIT_INIT, S.AWAIT_METADATA):
        yield _words(edge, BOX_LEFT - 10, y - 5, edge.words, "end")


#: Arrows that pass other boxes: where they run, and where they leave and arrive, from the boxes' tops.
_LANES = {
    (S.AWAIT_PATH, S.AWAIT_START, "command"): (RIGHT_LANE, 45, 26),
    (S.STORING, S.FAREWELL, "store"): (RIGHT_LANE, 45, 14),
    (S.RECEIVING, S.OPENING, "command"): (BOX_LEFT - 95, 30, 40),
    (S.RECEIVING, S.OPENING, "store"): (BOX_LEFT - 120, 46, 26),
    (S.STORING, S.OPENING, "store"): (BOX_LEFT - 145, 26, 12),
}


def _gaps(left: int, right: int, y: int, boxes: dict[State, Box]) -> Iterator[str]:
    """Make gaps where a horizontal arrow crosses a lane."""
    for (start, end, _), (lane, leave, arrive) in _LANES.items():
        ends = sorted((boxes[start].top + leave, boxes[end].top + arrive))
        if left < lane < right and ends[0] + 8 < y < ends[1] - 8:
            yield f'<path class="halo" d="M{lane - 8} {y}h16"/>'


def _by_lane(edge: Edge, boxes: dict[State, Box]) -> Iterator[str]:
    lane, leave, arrive = _LANES[edge.start, edge.end, edge.kind]
    side = BOX_RIGHT if lane > BOX_RIGHT else BOX_LEFT
    start, end = boxes[edge.start].top + leave, boxes[edge.end].top + arrive
    turn = 8 if side == BOX_RIGHT else -8
    down = 8 if end > start else -8
    yield _arrow(
        edge,
        f"M{side} {start}H{lane - turn}Q{lane} {start} {lane} {start + down}V{end - down}"
        f"Q{lane} {end} {lane - turn} {end}H{side}",
    )
    if side == BOX_RIGHT:
        yield _words(edge, lane + 6, boxes[edge.start].bottom + GAP // 2 + 4, edge.words)
    else:
        yield _words(edge, side - 10, start - 5, edge.words, "end")


#: Where the arrows between two neighbours stand, from the left of the boxes; a single one stands in the middle.
_STANDS = {
    (S.AWAIT_METADATA, S.AWAIT_START, "command"): 110,
    (S.AWAIT_METADATA, S.AWAIT_START, "time"): 215,
    (S.OPENING, S.AWAIT_SYNC, "store"): 175,
    (S.AWAIT_SYNC, S.OPENING, "command"): 40,
    (S.AWAIT_SYNC, S.OPENING, "store"): 320,
    (S.AWAIT_SYNC, S.RECEIVING, "command"): 285,
    (S.RECEIVING, S.AWAIT_SYNC, "command"): 20,
    (S.RECEIVING, S.AWAIT_SYNC, "time"): 185,
}


def _between(edge: Edge, boxes: dict[State, Box]) -> Iterator[str]:
    start, end = COLUMN.index(edge.start), COLUMN.index(edge.end)
    if abs(start - end) != 1:
        raise ValueError(f"no route is known from {edge.start.name} to {edge.end.name}")
    x = BOX_LEFT + _STANDS.get((edge.start, edge.end, edge.kind), BOX_WIDTH // 2)
    upper, lower = boxes[COLUMN[min(start, end)]].bottom, boxes[COLUMN[max(start, end)]].top
    yield _arrow(edge, f"M{x} {upper}V{lower}" if start < end else f"M{x} {lower}V{upper}")
    lines = textwrap.wrap(edge.words, 24 if start > end else 40)
    middle = (upper + lower) // 2 + 4
    for number, line in enumerate(lines):
        yield _words(edge, x + 8, middle + 14 * number - 7 * (len(lines) - 1), line)


def _arrow(edge: Edge, path: str) -> str:
    named = f'data-from="{edge.start.name}" data-to="{edge.end.name}" data-kind="{edge.kind}"'
    return f'<path class="arrow {edge.kind}" {named} d="{path}" marker-end="url(#{edge.kind})"/>'


def _words(edge: Edge, x: int, y: int, words: str, anchor: str = "start") -> str:
    return f'<text class="{edge.kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


def _legend(top: int) -> Iterator[str]:
    x = BOX_LEFT
    for kind, words in (
        ("command", "a command of the device"),
        (Cause.STORE.value, "an answer of the store"),
        (Cause.TIME.value, "a time limit"),
    ):
        yield f'<path class="arrow {kind}" d="M{x} {top}h44" marker-end="url(#{kind})"/>'
        yield f'<text class="{kind}" x="{x + 52}" y="{top + 4}">{words}</text>'
        x += 240
    words = (
        "In every state the session also ends when the connection is lost, a newer one of the same device takes over, "
        "the gateway stops, or a command comes that is not legal."
    )
    for number, line in enumerate(textwrap.wrap(words, 110)):
        yield f'<text x="{BOX_LEFT}" y="{top + 28 + 16 * number}">{line}</text>'
