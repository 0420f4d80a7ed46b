"""What a run of simulated cameras looks like: bars on a terminal, a line now and then elsewhere, a table at the end.

Reads a tally and a result; knows no Twisted.
"""

from __future__ import annotations

from collections import Counter

from rich.console import Console, Group
from rich.filesize import decimal
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from dsmgateway.simulator.device import Tally
from dsmgateway.simulator.report import FleetResult

#: Seconds between two lines where there is no terminal to draw bars on.
_LINE_EVERY_S = 5.0
#: Reasons why a run failed that are told.
_MOST_REASONS = 5


class Screen:
    """Shows a run while it lasts; a context manager."""

    def __init__(self, console: Console, cameras: int) -> None:
        self._console = console
        self._cameras = cameras
        self._line_at_s = _LINE_EVERY_S
        self._bars = Progress(
            TextColumn("{task.description:>12}"), BarColumn(bar_width=None), TextColumn("{task.fields[figures]}")
        )
        self._rows = [self._bars.add_task(name, figures="") for name in ("acknowledged", "sent", "connections")]
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, tally: Tally, seconds: float) -> None:
        """Show how things stand ``seconds`` after the beginning."""
        if self._live:
            self._update_bars(tally)
            self._live.update(Group(self._bars, f"      faults {faults_in_words(tally.faults)}"), refresh=True)
        elif seconds >= self._line_at_s:
            self._line_at_s = seconds + _LINE_EVERY_S
            self._console.print(_line(tally, seconds), soft_wrap=True)

    def _update_bars(self, tally: Tally) -> None:
        files, sent, connections = self._rows
        sent_once = tally.bytes_sent - tally.bytes_sent_again
        figures = f"{tally.acknowledged} of {tally.offered} files"
        self._bars.update(files, total=tally.offered, completed=tally.acknowledged, figures=figures)
        figures = f"{decimal(sent_once)} of {decimal(tally.bytes_offered)}, {decimal(tally.bytes_sent_again)} again"
        self._bars.update(sent, total=tally.bytes_offered, completed=sent_once, figures=figures)
        figures = f"{tally.connections_now} now, {tally.connections} in all, {tally.failed_connections} failed"
        self._bars.update(connections, total=self._cameras, completed=tally.connections_now, figures=figures)


def _line(tally: Tally, seconds: float) -> str:
    sent = f"{decimal(tally.bytes_sent)} sent ({decimal(tally.bytes_sent_again)} again)"
    return (
        f"{seconds:6.0f} s: {tally.acknowledged} of {tally.offered} files acknowledged, {sent}, "
        f"{tally.connections_now} connections, faults: {faults_in_words(tally.faults)}"
    )


def faults_in_words(faults: Counter[str]) -> str:
    """Return how many faults of which kind there were, as in ``3 corrupt, 1 cut``."""
    return ", ".join(f"{number} {name}" for name, number in sorted(faults.items())) or "none"


def summary(result: FleetResult) -> Table:
    """Return the table that tells how a run ended."""
    tally = result.tally
    table = Table(title="Simulated cameras", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    colour = "green" if result.is_good else "red"
    table.add_row("files acknowledged", f"[{colour}]{tally.acknowledged} of {tally.offered}[/]")
    families = result.families
    if len(families) > 1:
        for family, (acknowledged, offered) in families.items():
            table.add_row(f"  {family}", f"{acknowledged} of {offered}")
    table.add_row("file data sent", decimal(tally.bytes_sent))
    table.add_row("of it sent again", decimal(tally.bytes_sent_again))
    table.add_row("connections", f"{tally.connections} ({result.reconnects} reconnects)")
    table.add_row("failed to connect", str(tally.failed_connections))
    table.add_row("faults", faults_in_words(tally.faults))
    table.add_row("violations", f"[red]{tally.violations}[/]" if tally.violations else "none")
    table.add_row("time", f"{result.seconds:.1f} s")
    table.add_row("rate", f"{decimal(round(tally.bytes_sent / max(result.seconds, 0.001)))}/s")
    return table


def reasons_in_words(result: FleetResult) -> str:
    """Return in one line why a run was not good."""
    reasons = result.reasons[:_MOST_REASONS]
    more = len(result.reasons) - len(reasons)
    return "; ".join(reasons) + (f"; and {more} more reasons" if more else "")
