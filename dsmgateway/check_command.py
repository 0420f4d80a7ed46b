"""The command ``dsmgateway check``: is everything in a data folder what its records say?

Shows what `dsmgateway.store.check` finds, as a table or as JSON; changes nothing, may run beside a gateway.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from dsmgateway.errors import StoreError
from dsmgateway.escape import one_line
from dsmgateway.preflight import check_unlocked
from dsmgateway.store.check import Checked, Kind, State
from dsmgateway.store.check import check as checked_rows
from dsmgateway.store.files import Disk
from dsmgateway.store.naming import MEDIA, SPOOL
from dsmgateway.store.signs import Sign, shown

#: What a state means for the operator.
MEANINGS: dict[State, str] = {
    State.OK: "size and SHA-256 as recorded",
    State.UNFINISHED: "being finished; the next start completes what was cut off",
    State.RESUMABLE: "goes on where it stands when the device comes back",
    State.FROM_START: "begins at 0 when the device comes back",
    State.SET_ASIDE: "no longer trusted after a failure; kept for a look, may be deleted",
    State.MISSING_SIDECAR: "nothing tells what it is",
    State.MISSING_FILE: "its record is there, the file is gone",
    State.BAD_SIDECAR: "its record cannot be read",
    State.SIZE_DIFFERS: "not as long as recorded",
    State.SHA256_DIFFERS: "not the bytes that were received",
    State.NOT_OURS: "not put here by the gateway",
}
#: What a sign means for the operator.
SIGNS = {
    Sign.FAILING: "its disk is failing, so it takes no new files",
    Sign.FULL: "the last new file was turned away for lack of room",
}
#: Units of what is shown to people, largest first.
_UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}
#: Longer than any path in a data folder.
_PIPE_WIDTH = 1000


@dataclass(slots=True)
class Total:
    """What all rows come to."""

    states: Counter[State] = field(default_factory=Counter)
    unfinished: int = 0
    missing_bytes: int = 0

    def count(self, row: Checked) -> None:
        """Add a row."""
        self.states[row.state] += 1
        self.unfinished += row.kind is Kind.PART
        self.missing_bytes += row.missing_bytes


class DataFolderError(click.ClickException):
    """The folder cannot be checked: one line, exit code 2."""

    exit_code = 2


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--all", "show_all", is_flag=True, help="Show what is right, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, all rows, then the counts.")
def check(data: Path, show_all: bool, as_json: bool) -> None:
    """Compare every file in the data folder DATA with what is recorded of it.

    Finished files are read and compared with their sidecars (size, SHA-256), unfinished ones with their journals.
    Also says how much room there is, what the unfinished files still need of it, whether a gateway is running, and
    whether that takes new files.
    Exits with 1 when something is wrong. Changes nothing and may run beside the gateway.
    """
    if not any((data / name).is_dir() for name in (MEDIA, SPOOL)):
        raise DataFolderError(f"{one_line(str(data))}: no data folder, it has neither {MEDIA}/ nor {SPOOL}/")
    total = Total()
    try:
        if as_json:
            _print_json(_counted(checked_rows(data), total))
        else:
            _print_table(_counted(checked_rows(data), total), show_all)
        free_bytes = Disk().free_bytes(data)
        signs = shown(data)
    except (StoreError, OSError) as error:
        raise DataFolderError(one_line(str(error))) from None
    good, running = all(state.is_good for state in total.states), _is_in_use(data)
    if as_json:
        found: dict[str, object] = {
            "files": total.states.total(),
            "states": {state.value: count for state, count in total.states.items()},
            "good": good,
            "unfinished": total.unfinished,
            "missing": total.missing_bytes,
            "free": free_bytes,
            "running": running,
            "failing": Sign.FAILING in signs,
            "full": Sign.FULL in signs,
        }
        click.echo(json.dumps(found))
    else:
        click.echo(_room(total, free_bytes, running, signs))
        click.echo(_summary(total.states))
    if not good:
        sys.exit(1)


def _is_in_use(data: Path) -> bool:
    """Try the lock, for no longer than that takes: a gateway that starts at this very moment could not have it."""
    try:
        check_unlocked(data)
    except StoreError:
        return True
    return False


def _counted(rows: Iterator[Checked], total: Total) -> Iterator[Checked]:
    for row in rows:
        total.count(row)
        yield row


def _print_json(rows: Iterator[Checked]) -> None:
    for row in rows:
        fields: dict[str, object] = {
            "path": row.path,
            "kind": row.kind.value,
            "state": row.state.value,
            "good": row.state.is_good,
            "size": row.size_bytes,
        }
        if row.state is State.RESUMABLE:
            fields["offset"] = row.offset_bytes
        if row.kind is Kind.PART:
            fields["missing"] = row.missing_bytes
        click.echo(json.dumps(fields))


def _print_table(rows: Iterator[Checked], show_all: bool) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("state", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("file", overflow="fold")
    seen: set[State] = set()
    for row in _shown_as_they_come(rows):
        if show_all or not row.state.is_good:
            table.add_row(*_cells(row))
            seen.add(row.state)
    if not table.row_count:
        return
    # A pipe or a file has no width, and a path has to stay in one piece to be used.
    Console(width=None if Console().is_terminal else _PIPE_WIDTH).print(table)
    click.echo()
    for state in State:
        if state in seen:
            click.echo(f"{state.value}: {MEANINGS[state]}")
    click.echo()


def _shown_as_they_come(rows: Iterator[Checked]) -> Iterator[Checked]:
    """Show on a terminal how far the check is."""
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.completed} files, {task.fields[read]:.0f} MB"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task, size_bytes = progress.add_task("", total=None, read=0.0), 0
        for row in rows:
            size_bytes += row.size_bytes
            progress.update(task, advance=1, read=size_bytes / 1e6)
            yield row


def _cells(row: Checked) -> tuple[Text, ...]:
    state = f"{row.state.value} at {row.offset_bytes}" if row.state is State.RESUMABLE else row.state.value
    style = "" if row.state.is_good else "bold red"
    return Text(state, style), Text(str(row.size_bytes)), Text(one_line(row.path))


def _room(total: Total, free_bytes: int, running: bool, signs: Collection[Sign]) -> str:
    still = f", of which unfinished files still need {_size(total.missing_bytes)}" if total.unfinished else ""
    gateway = f"{'a' if running else 'no'} gateway is running here"
    return "; ".join([f"{_size(free_bytes)} free{still}", gateway, *(SIGNS[sign] for sign in Sign if sign in signs)])


def _size(size_bytes: int) -> str:
    unit = next((name for name, unit_bytes in _UNITS.items() if size_bytes >= unit_bytes), "")
    return f"{size_bytes / _UNITS[unit]:.1f} {unit}" if unit else f"{size_bytes} bytes"


def _summary(counts: Counter[State]) -> str:
    if not counts:
        return "no files"
    found = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
    wrong = sum(count for state, count in counts.items() if not state.is_good)
    return f"{counts.total()} files: {found}; {f'{wrong} need a look' if wrong else 'all is well'}"
