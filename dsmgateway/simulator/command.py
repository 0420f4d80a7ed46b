"""The command line ``dsmgateway simulate``: options to a `Plan`, a run of it in the reactor, an exit code.

A command line may import the reactor; it does so late, so that ``--help`` is quick.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import IO, Any

import click
from click.core import ParameterSource
from rich.console import Console

from dsmgateway.descriptors import OTHER_DESCRIPTORS, raise_descriptor_limit
from dsmgateway.errors import ConfigError
from dsmgateway.families import Family
from dsmgateway.simulator.faults import Faults
from dsmgateway.simulator.frames import Enhanced
from dsmgateway.simulator.makes import Make
from dsmgateway.simulator.plan import MIX_IS_DRAWN, Picture, Plan, StartCrc
from dsmgateway.simulator.report import FleetResult
from dsmgateway.simulator.show import Screen, reasons_in_words, summary

_NUMBER = re.compile(r"(\d+)([kM]?)")
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
_PROBABILITY = click.FloatRange(0, 1)


def _address(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, int]:
    """Read HOST:PORT, also with an IPv6 address in brackets, as (host, port)."""
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{value!r} is not HOST:PORT", ctx, param)
    return host.strip("[]"), int(port)


def _bytes(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Read a number of bytes, as in 4000, 120k or 2M."""
    match = _NUMBER.fullmatch(value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a number of bytes, as in 4000, 120k or 2M", ctx, param)
    return int(match[1]) * _UNITS[match[2]]


def _sizes(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read one number of bytes, or a range of them as in 20k-120k, as (from, to)."""
    if value is None:
        return None
    first, dash, last = value.partition("-")
    lowest = _bytes(ctx, param, first)
    return lowest, _bytes(ctx, param, last) if dash else lowest


@click.command()
@click.option("--to", "address", metavar="HOST:PORT", callback=_address, required=True, help="The gateway.")
@click.option("--cameras", type=click.IntRange(1), default=1, show_default=True, help="How many cameras.")
@click.option("--files", type=click.IntRange(1), default=1, show_default=True, help="Files of each camera.")
@click.option(
    "--family",
    "families",
    type=click.Choice([family.value for family in Family if family is not Family.UNKNOWN]),
    multiple=True,
    default=[Family.DSM.value],
    help="What the cameras are; given twice, each tracker carries both, which share its files. Default: dsm.",
)
@click.option("--protocol", type=int, default=5, show_default=True, help="Protocol id: JSON metadata from 6 on.")
@click.option(
    "--enhanced",
    type=click.Choice([choice.value for choice in Enhanced]),
    is_flag=False,
    flag_value=Enhanced.ALWAYS.value,
    default=Enhanced.NEVER.value,
    show_default=True,
    help="Send ENHANCED_DATA (from protocol 6 on): alone it means always, mix is now and then.",
)
@click.option("--count-packets", is_flag=True, help="Odd firmware: packets are counted where others count bytes.")
@click.option(
    "--mix", is_flag=True, help="All families, protocols 5 to 7, all frames: drawn for each camera by the seed."
)
@click.option(
    "--picture",
    "pictures",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A real file to offer as what its extension says; can be given often, cameras use them in turn. Files of "
    "other kinds have random content, which is the default.",
)
@click.option(
    "--size",
    "sizes",
    metavar="SIZE[-SIZE]",
    callback=_sizes,
    default="20k-120k",
    show_default=True,
    help="Size of random files.",
)
@click.option(
    "--video-size", "video_sizes", metavar="SIZE[-SIZE]", callback=_sizes, help="Size of videos. Default: as all files."
)
@click.option(
    "--rate",
    metavar="BYTES",
    callback=_bytes,
    default="0",
    help="Bytes a second of each camera. Default: what TCP takes.",
)
@click.option("--corrupt", type=_PROBABILITY, default=0.0, help="Probability of a flipped bit, a DATA frame.")
@click.option("--truncate", type=_PROBABILITY, default=0.0, help="Probability that a frame is cut, then sent whole.")
@click.option("--cut-every", type=click.IntRange(0), default=0, help="Lose the link after about so many DATA frames.")
@click.option("--silent-cut", is_flag=True, help="On a cut the old socket stays open and goes on delivering.")
@click.option("--stall", type=click.FloatRange(0), default=0.0, help="Now and then say nothing for so many seconds.")
@click.option("--rewind", type=_PROBABILITY, default=0.0, help="Probability that SYNC is lower than asked for.")
@click.option(
    "--swap",
    type=_PROBABILITY,
    default=0.0,
    help="Probability that an identifier means another file after a cut; needs DualCam up to protocol 5, and two files "
    "of one kind.",
)
@click.option(
    "--start-crc",
    type=click.Choice([choice.value for choice in StartCrc]),
    default=StartCrc.RANDOM.value,
    show_default=True,
    help="Whether START states the CRC of the file.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same files and faults.")
@click.option("--first-camera", type=click.IntRange(0), default=1, help="Number that the first IMEI is made of.")
@click.option("--attempts", type=click.IntRange(1), default=5, show_default=True, help="Failures in a row to give up.")
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="Seconds of silence after which a camera leaves a connection.",
)
@click.option("--timeout", type=click.FloatRange(0), default=0.0, help="Seconds until the run is over. Default: none.")
@click.option("--reconnect-delay", type=click.FloatRange(0), default=1.0, help="Scales the 0.3 to 4 s to reconnect.")
@click.option("--connects", type=click.IntRange(1), default=500, show_default=True, help="First connections a second.")
@click.option("--json", "json_to", type=click.Path(allow_dash=True), help="Write the result here; - is the output.")
def simulate(
    address: tuple[str, int],
    pictures: tuple[Path, ...],
    json_to: str | None,
    rate: int,
    timeout: float,
    connects: int,
    start_crc: str,
    families: tuple[str, ...],
    protocol: int,
    enhanced: str,
    count_packets: bool,
    **options: Any,
) -> None:
    """Be cameras on bad links that deliver files to a gateway.

    Ends with 0 when every file was acknowledged, and none of them before all of it was sent; else with 1.
    """
    faults = {name: options.pop(name) for name in ("corrupt", "truncate", "cut_every", "silent_cut", "rewind", "swap")}
    try:
        if options["mix"] and any(map(_is_chosen, ("families", "protocol", "enhanced", "count_packets"))):
            raise ConfigError(MIX_IS_DRAWN)
        plan = Plan(
            faults=Faults(stall_s=options.pop("stall"), **faults),
            make=Make(tuple(map(Family, families)), protocol, Enhanced(enhanced), count_packets),
            pictures=tuple(map(_read_picture, pictures)),
            start_crc=StartCrc(start_crc),
            rate_bytes_s=rate,
            timeout_s=timeout,
            connects_per_s=connects,
            **options,
        )
        _take_descriptors(plan.cameras)
        json_file = _open_result(json_to)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    console = Console(stderr=json_to == "-")
    result = run_fleet(plan, address, console)
    if json_file:
        with json_file:
            json.dump(result.as_json(), json_file, indent=1)
    sys.exit(_tell(result, address, console))


def _is_chosen(name: str) -> bool:
    """Whether somebody gave this option, be it what it is anyway."""
    return click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT


def _read_picture(path: Path) -> Picture:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the picture {path}: {error.strerror}") from error
    if not data:
        raise ConfigError(f"the picture {path} is empty")
    return Picture(path.name, data)


def _open_result(path: str | None) -> IO[Any] | None:
    """Open the file for the result before anything is done, so that a run is not in vain."""
    try:
        return click.open_file(path, "w", encoding="utf-8") if path else None
    except OSError as error:
        raise ConfigError(f"cannot write the result to {path}: {error.strerror}") from error


def _take_descriptors(cameras: int) -> None:
    """Let this process have as many connections as it needs; a silent cut may leave one more for each camera."""
    needed = 2 * cameras + OTHER_DESCRIPTORS
    limit = raise_descriptor_limit()
    if limit < needed:
        raise ConfigError(f"{cameras} cameras need {needed} open files, the limit is {limit} (ulimit -n)")


def run_fleet(plan: Plan, address: tuple[str, int], console: Console) -> FleetResult:
    """Run the reactor until the fleet has ended, or an interrupt; shows progress on ``console``."""
    from twisted.internet import reactor as global_reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.error import ReactorNotRunning
    from twisted.internet.task import LoopingCall
    from twisted.python.failure import Failure

    from dsmgateway.simulator.fleet import Fleet, endpoint_for

    reactor: Any = global_reactor
    fleet = Fleet(plan, reactor, endpoint_for(reactor, *address))
    outcome: list[FleetResult | Failure] = []
    over: Deferred[None] = Deferred()

    def finished(result: FleetResult | Failure) -> None:
        outcome.append(result)
        over.callback(None)
        with contextlib.suppress(ReactorNotRunning):
            reactor.stop()

    def interrupted() -> Deferred[None]:
        fleet.stop()
        return over

    _log_bugs_only()
    with Screen(console, plan.cameras) as screen:
        show = LoopingCall(lambda: screen.update(fleet.tally, fleet.seconds()))
        reactor.callWhenRunning(lambda: fleet.run().addBoth(finished))
        reactor.callWhenRunning(show.start, 0.2, now=False)
        reactor.addSystemEventTrigger("before", "shutdown", interrupted)
        reactor.run()
        screen.update(fleet.tally, fleet.seconds())
    if outcome and isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return fleet.result()


def _log_bugs_only() -> None:
    """Print what Twisted logs as an error; without an observer it would be kept in memory and lost."""
    from twisted.logger import (
        FilteringLogObserver,
        LogLevel,
        LogLevelFilterPredicate,
        globalLogBeginner,
        textFileLogObserver,
    )

    errors = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.error)])
    globalLogBeginner.beginLoggingTo([errors], discardBuffer=True, redirectStandardIO=False)


def _tell(result: FleetResult, address: tuple[str, int], console: Console) -> int:
    """Print how the run ended; return the exit code."""
    if not result.tally.connections:
        host, port = address
        click.echo(f"Error: no connection to {host}:{port}: {reasons_in_words(result)}", err=True)
        return 1
    console.print(summary(result))
    if not result.is_good:
        click.echo(f"Error: {reasons_in_words(result) or 'not every file was acknowledged'}", err=True)
    return 0 if result.is_good else 1
