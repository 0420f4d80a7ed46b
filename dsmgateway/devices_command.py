"""The command ``dsmgateway devices``: who was refused, who is approved, who is blocked, and to decide that.

May run beside the gateway, which notices within a second or two. Shows and writes what `dsmgateway.devices` holds.
"""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.cells import cell_len

from dsmgateway.devices import APPROVED, BLOCKED, FILE_NAME, UNKNOWN, Device, Devices
from dsmgateway.errors import StoreError
from dsmgateway.escape import one_line
from dsmgateway.imei import luhn_digit
from dsmgateway.known_devices import is_imei

#: Longest name of a device: what fits beside the rest of its line.
_MAX_NAME = 60
_COLOURS = {UNKNOWN: "yellow", APPROVED: "green", BLOCKED: "red"}
_HEADS = ("imei", "state", "name", "first seen", "last seen", "refused", "address")


class DevicesError(click.ClickException):
    """The database cannot be used: one line, exit code 2."""

    exit_code = 2


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("imeis", metavar="[IMEI]...", nargs=-1)
@click.option("--approve", "decision", flag_value=APPROVED, help="Let these devices in.")
@click.option("--block", "decision", flag_value=BLOCKED, help="Refuse these devices, whatever setting admission says.")
@click.option("--forget", "decision", flag_value="forget", help="Take back what was decided of these devices.")
@click.option("--name", help="Name the one device that is approved or blocked.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each device.")
def devices(data: Path, imeis: tuple[str, ...], decision: str | None, name: str | None, as_json: bool) -> None:
    """Show the devices that were refused, approved or blocked at the gateway with the data folder DATA, or decide.

    A gateway with --admission approve lets in approved devices only and lists the others here. One that was blocked is
    refused by every gateway. Give --approve, --block or --forget and then IMEIs of 15 digits. Run it as the user that
    the gateway runs as, since both write to the same file.
    """
    _check(data, imeis, decision, name)
    book = Devices(data / FILE_NAME, create=decision in (APPROVED, BLOCKED))
    try:
        if decision == "forget":
            book.forget(imeis)
        elif decision:
            book.decide(imeis, decision, name)
        rows = [row for row in book.rows() if not imeis or row.imei in imeis]
    except StoreError as error:
        raise DevicesError(one_line(str(error))) from None
    finally:
        book.close()
    if as_json:
        for row in rows:
            click.echo(json.dumps(_fields(row)))
    else:
        _print_table(rows)


def _check(data: Path, imeis: tuple[str, ...], decision: str | None, name: str | None) -> None:
    try:
        is_folder = data.is_dir()
    except OSError as error:  # a folder above it may not be entered
        raise DevicesError(f"{one_line(str(data))}: {error.strerror}") from None
    if not is_folder:
        raise DevicesError(f"{one_line(str(data))}: no such folder")
    for imei in imeis:
        if not is_imei(imei):
            raise click.UsageError(f"{one_line(repr(imei))} is not an IMEI of 15 digits")
        if decision and luhn_digit(imei[:-1]) != int(imei[-1]):
            click.echo(f"{imei}: the check digit is wrong, is it mistyped?", err=True)
    if decision and not imeis:
        raise click.UsageError("say which devices: one IMEI or more")
    if name is not None:
        if len(imeis) != 1 or decision not in (APPROVED, BLOCKED):
            raise click.UsageError("--name goes with --approve or --block of one device")
        if len(name) > _MAX_NAME or not name.isprintable():
            raise click.UsageError(f"a name has up to {_MAX_NAME} letters, and none that cannot be shown")


def _fields(row: Device) -> dict[str, object]:
    fields = dataclasses.asdict(row)
    for key in ("first_seen", "last_seen"):
        seconds = fields.pop(f"{key}_s")
        fields[key] = None if seconds is None else _moment(seconds)
    return fields


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_table(rows: list[Device]) -> None:
    """Print them as columns: by hand, since rich takes a millisecond for each, and there may be 10,000 and more."""
    if not rows:
        click.echo("no devices")
        return
    lines: list[tuple[str, ...]] = [_HEADS]
    for row in rows:
        seen = (_moment(at) if at is not None else "-" for at in (row.first_seen_s, row.last_seen_s))
        lines.append(tuple(map(one_line, (row.imei, row.state, row.name, *seen, str(row.refused), row.address))))
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [_padded(cell, width, head) for cell, width, head in zip(line, widths, _HEADS, strict=True)]
        cells[1] = click.style(cells[1], fg=_COLOURS.get(line[1]), bold=line[1] == BLOCKED or None)
        click.echo("  ".join(cells).rstrip())


def _padded(cell: str, width: int, head: str) -> str:
    blanks = " " * (width - cell_len(cell))
    return f"{blanks}{cell}" if head == "refused" else f"{cell}{blanks}"
