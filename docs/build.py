"""Write the pages that come from the code, see `PAGES`.

`python docs/build.py` writes them; with `--check` it writes nothing and exits with 1 and one line when one differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import metadata_page
import protocol_page
import state_diagram
from conversation import ABOUT, DRIVEN

from dsmgateway.events import FIELDS, OF_CONNECTION, Event
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
traceback, indented. Lines without one of these names are Twisted's own. With several processes (`--workers`) every line
of one of them ends with its number: `worker=0`.

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
and when the gateway stops. A file that is not whole is parked then; it goes on from about there when it is
offered again.
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


#: Every file that is made, and what makes it.
PAGES: dict[str, Callable[[], str]] = {
    "logs.md": logs_page,
    "metadata.md": lambda: metadata_page.page(MADE),
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
