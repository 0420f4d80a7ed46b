"""Write the pages that come from the code, see `PAGES`.

`python docs/build.py` writes them; with `--check` it writes nothing and exits with 1 and one line when one differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import protocol_page
import state_diagram
from conversation import ABOUT, DRIVEN
from metadata_words import CHOICE, DOUBTS, EXAMPLES, NAMES, OTHER_JSON, RECEIVED_S

from dsmgateway.events import FIELDS, OF_CONNECTION, Event
from dsmgateway.metadata_layouts import (
    ADAS_TRIGGERS,
    DUALCAM_FILE_TYPES,
    DUALCAM_TRIGGERS,
    EVENT_BITS,
    FILE_TYPES,
    PARTS,
    TRIGGERS,
    FileType,
    Layout,
)
from dsmgateway.states import LEGAL, State, spelt

FOLDER = Path(__file__).resolve().parent
MADE = "<!-- Made by docs/build.py; change it there. -->"


def logs_page() -> str:
    """Return the page of all log events."""
    own = [event for event in Event if event.fields[: len(OF_CONNECTION)] != OF_CONNECTION]
    of_connection = [event for event in Event if event not in own]
    return f"""# Log events

{MADE}

The gateway writes one line an event, as text or (`--log-format json`) as JSON:

    2026-11-22T12:16:38Z info file.stored imei=356917000000047 peer=10.0.0.7:40112 state=storing size=41093 ...

Time (UTC), level and name come first, then the event's fields. A field that has nothing to say is left out. Text that a
device chose is escaped, so that one event is always one line; an error of the gateway's own is followed by its
traceback, indented. Lines without one of these names are Twisted's own.

## The gateway

{_event_table(own, 0)}

## A connection

All of these have {_listed(OF_CONNECTION)}, too.

{_event_table(of_connection, len(OF_CONNECTION))}

## Fields

{_table(("field", "says"), [(f"`{name}`", FIELDS[name]) for name in sorted(FIELDS)])}
"""


def _event_table(events: list[Event], shared: int) -> str:
    rows = [(f"`{event.label}`", event.level, event.meaning, _listed(event.fields[shared:])) for event in events]
    return _table(("event", "level", "meaning", "fields"), rows)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def states_page() -> str:
    """Return the page of a session's states."""
    return f"""# The states of a session

{MADE}

What a device may send in each state is one table, `LEGAL` in `dsmgateway/states.py`; this page and the picture are
drawn from it. A command that is not legal ends the connection (`peer.error`); what was received is kept.

![The states and what leads from one to another](states.svg)

## What each state waits for, and for how long

{_table(("state", "waits for", "time limit", "when the time is over"), [_about(state) for state in State])}

The limits are settings of the same name. They are checked once a second.

## What is legal, and where it leads

{_table(("state", "command", "leads to"), [row for state in State for row in _legal(state)])}

## What leads on without a command

{_table(("state", "cause", "leads to"), _driven())}

In every state the session also ends when the connection is lost, when a newer connection of the same device takes over,
and when the gateway stops. A file that is not whole is parked then; it goes on from there when it is offered again.
"""


def _about(state: State) -> tuple[str, ...]:
    about = ABOUT[state]
    return f"`{state.value}`", about.waits_for, f"`{about.limit}`" if about.limit else "5 s", about.time_out


def _legal(state: State) -> list[tuple[str, ...]]:
    legal = LEGAL[state]
    if not legal:
        return [(f"`{state.value}`", "nothing is read", "")]
    return [
        (f"`{state.value}`" if number == 0 else "", spelt(kind), ", ".join(f"`{end.value}`" for end in ends))
        for number, (kind, ends) in enumerate(legal.items())
    ]


def _driven() -> list[tuple[str, ...]]:
    causes = {"store": "the store", "time": "time limit"}
    return [(f"`{one.start.value}`", f"{causes[one.cause.value]}: {one.words}", f"`{one.end.value}`") for one in DRIVEN]


def metadata_page() -> str:
    """Return the page of what cameras say about their files."""
    shown = {layout: example.read().to_json(RECEIVED_S) for layout, example in EXAMPLES.items()}
    binary = [layout for layout in Layout if layout in PARTS]
    return f"""# Metadata

{MADE}

What a camera says about a file (METADATA) is in the file's sidecar, under `metadata`. It has the same names for every
family; a name is missing where the layout does not have it or the camera did not say anything that can be true.
Metadata is never a reason not to take a file. How it is asked for is on the page on
[the protocol](protocol.md#metadata_request).

Layout `json` is that of every family from protocol 6 on; up to protocol 5 the DSM and ADAS cameras have layouts of
these names, and `dualcam` is that of DualCam.

{_table(("name", "unit", "meaning", "layouts"), [_name(name, shown) for name in NAMES])}

## Which layout a body has

The first that fits counts:

{_table(("when", "layout"), CHOICE)}

Binary layouts are big-endian. A body can end early, DSM's and ADAS's from 14 bytes on, DualCam's anywhere (before
version 4 it has 32 bytes or fewer); a field that is not there whole is missing.

{"".join(_layout(layout) for layout in binary)}### `json`

UTF-8, from protocol 6 on. `version`, `driver_name`, and in objects: `file` with `file_type`, `file_timestamp`,
`duration` (`duration_s`) and `framerate` (`frame_rate`); `location` with `latitude` and `longitude`; `fm_trigger`
(`trigger`) and `cam_trigger`, each with `type`. A `file_timestamp` below 100000000000 is in seconds, from there on in
milliseconds. Where a key comes twice, the last one counts. So that the sidecar is JSON for everybody, `document` has
null for numbers that are not finite and for what is nested more than 12 deep, text for integers of more than 20
characters, and U+FFFD for bytes that are no UTF-8.

## File types

{_numbers({"DSM, ADAS": _named(FILE_TYPES), "DualCam": _named(DUALCAM_FILE_TYPES)})}

## Triggers

{_numbers({"DSM": TRIGGERS, "ADAS": ADAS_TRIGGERS, "DualCam": DUALCAM_TRIGGERS})}

A path of DSM or ADAS tells whose table counts; without one the layout does. A number without a name is `unknown`.

## Events

A bit without a name is `bit_N`.

{_table(("bit", "event"), [(str(bit), f"`{name}`") for bit, name in enumerate(EVENT_BITS)])}

## How sure this is

{_table(("family", "source"), DOUBTS)}

## Examples

All were received at {RECEIVED_S} (seconds since 1970).

{"".join(_example(layout, known) for layout, known in shown.items()).rstrip()}
"""


def _name(name: str, shown: Mapping[Layout, Mapping[str, object]]) -> tuple[str, ...]:
    other = OTHER_JSON.read().to_json()
    having = [
        f"`{layout.value}`"
        for layout, known in shown.items()
        if name in known or (layout is Layout.JSON and name in other)
    ]
    return f"`{name}`", *NAMES[name], "all" if len(having) == len(shown) else ", ".join(having)


def _layout(layout: Layout) -> str:
    rows, offset = [], 0
    for part in PARTS[layout]:
        rows.append((str(offset), str(part.size_bytes), _TYPES[part.form], f"`{part.name}`", part.says))
        offset += part.size_bytes
    return f"""### `{layout.value}`, {offset} bytes

{_table(("at", "bytes", "type", "field", "says"), rows)}

"""


#: How the format characters of `struct` are called.
_TYPES = {"B": "u8", "H": "u16", "h": "i16", "I": "u32", "i": "i32", "Q": "u64", "d": "f64", "10s": "ASCII"}


def _named(types: Mapping[int, FileType]) -> dict[int, str]:
    return {number: known.name for number, known in types.items()}


def _numbers(tables: Mapping[str, Mapping[int, str]]) -> str:
    numbers = sorted({number for table in tables.values() for number in table})
    rows = [
        (str(number), *(f"`{table[number]}`" if number in table else "" for table in tables.values()))
        for number in numbers
    ]
    return _table(("number", *tables), rows)


def _example(layout: Layout, known: Mapping[str, object]) -> str:
    example = EXAMPLES[layout]
    return f"""### `{layout.value}`

`{example.device_path.decode()}`, protocol {example.protocol_id}:

```json
{json.dumps(known, indent=2)}
```

"""


#: Every file that is made, and what makes it.
PAGES: dict[str, Callable[[], str]] = {
    "logs.md": logs_page,
    "metadata.md": metadata_page,
    "protocol.md": lambda: protocol_page.page(MADE),
    "states.md": states_page,
    "states.svg": state_diagram.svg,
}


def outdated(folder: Path) -> list[str]:
    """Return the names of the pages that are not what the code says."""
    return [name for name, make in PAGES.items() if not _is(folder / name, make())]


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def main() -> int:
    """Write the pages or check them; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the pages that come from the code.")
    parser.add_argument("--check", action="store_true", help="only see whether they are up to date")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    differ = outdated(options.folder)
    if not options.check:
        for name in differ:
            (options.folder / name).write_bytes(PAGES[name]().encode())
        return 0
    if differ:
        print(f"not what the code says: {', '.join(differ)} (python docs/build.py writes them)", file=sys.stderr)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
