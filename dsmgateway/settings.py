"""Everything an operator can set, as one table, from which options, environment, TOML file, help and example file come.

The table is the class `Settings` itself: each field carries its kind and help. A setting ``init_timeout`` is written
``--init-timeout`` as an option, ``init-timeout`` in the TOML file and ``DSMGATEWAY_INIT_TIMEOUT`` in the environment.
Knows nothing of Twisted, nor of where a value came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from dsmgateway.admission import APPROVE, KNOWN, OPEN
from dsmgateway.errors import ConfigError
from dsmgateway.families import Family
from dsmgateway.kinds import (
    CIPHERS,
    FILE,
    FLAG,
    FOLDER,
    NETWORKS,
    PORT,
    SIZE,
    TIME,
    Kind,
    Network,
    choice,
    count,
    several,
    time_from,
)

T = TypeVar("T")

ENVIRONMENT_PREFIX = "DSMGATEWAY_"


def _setting(default: T, kind: Kind[Any], help_text: str, **more: object) -> T:
    return field(default=default, metadata={"kind": kind, "help": help_text, **more})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one gateway; times in seconds, sizes in bytes. Raises ConfigError when one is out of range."""

    ports: tuple[str, ...] = _setting(
        ("10014",), PORT, "where cameras connect; may be given more than once", name="port", repeatable=True
    )
    data: Path = _setting(
        Path("dsm-data"), FOLDER, "the data folder; a relative path counts from the folder the gateway is started in"
    )
    metadata: bool = _setting(
        True,
        FLAG,
        "ask the camera for each file's metadata (time, trigger, position, driver); of a DualCam up to protocol 5 it "
        "is asked for in any case, since nothing else tells which file it offers",
    )
    families: tuple[str, ...] = _setting(
        tuple(family.value for family in Family),
        several(*(family.value for family in Family)),
        "camera families whose files are accepted; a device keeps the others, and what waits behind them",
    )
    after_file: str = _setting(
        "repeat",
        choice("repeat", "complete"),
        "what a device is told after a file: the next INIT please, or that all is done",
    )
    log_format: str = _setting(
        "text", choice("text", "json"), "how an event is logged: as a line of text, or as a line of JSON"
    )
    log_level: str = _setting(
        "info", choice("critical", "error", "warn", "info", "debug", "trace"), "the least important events to log"
    )
    trace: Path | None = _setting(
        None, FOLDER, "write the bytes of every connection to files in this folder, for fault finding"
    )
    init_timeout: float = _setting(10.0, TIME, "from connection to a whole INIT")
    answer_timeout: float = _setting(45.0, TIME, "for a path, a START, or the INIT after a file")
    metadata_timeout: float = _setting(15.0, TIME, "for metadata; after that the file is taken without it")
    sync_timeout: float = _setting(15.0, TIME, "for the SYNC that answers a RESUME")
    data_timeout: float = _setting(20.0, TIME, "silence in the middle of a file before a RESUME asks again")
    resume_tries: int = _setting(3, count(1000), "RESUMEs in a row without good file data before a session ends")
    store_timeout: float = _setting(120.0, TIME, "for the disk to make a file durable before the session ends")
    stop_timeout: float = _setting(4.0, TIME, "for parking what is under way when the gateway stops")
    max_file_size: int = _setting(256 << 20, SIZE, "largest file that is taken, of whichever kind")
    max_resyncs: int = _setting(
        100,
        count(1_000_000),
        "damaged spots of one file on one connection (wrong CRCs, cut frames, whatever else had the data asked for "
        "again) before the session ends",
    )
    part_max_age: float = _setting(30 * 86400.0, TIME, "age at which an unfinished file is deleted")
    max_unfinished: int = _setting(
        100_000,
        count(100_000_000),
        "unfinished files that are kept; above that, those of less than 64KiB are not, and begin anew. Each is two "
        "files on the disk, which a start has to look at; a fleet has few more than one a device",
    )
    checkpoint_bytes: int = _setting(
        1 << 20, SIZE, "at most this much of a file has to be sent again after a crash or a power cut"
    )
    checkpoint_interval: float = _setting(
        30.0,
        TIME,
        "at most the data of this time has to be sent again after a crash of the gateway alone; more where thousands "
        "send at once, since these checkpoints have a twentieth of the time at most",
    )
    store_threads: int = _setting(2, count(64), "threads that write to the disk")
    min_free: int = _setting(
        256 << 20,
        SIZE,
        "no new file is taken where it would leave less room than this on the disk, besides what files under way need",
    )
    probe_interval: float = _setting(
        5.0, TIME, "between two attempts to write to a disk that failed; until one succeeds no new file is taken"
    )
    receive_low_water: int = _setting(
        16 << 10,
        SIZE,
        "file data that the system gathers of a connection before the gateway looks (SO_RCVLOWAT), for 5s at most: 16 "
        "packets cost little more than one; 1B for each at once. Not with TLS or a trace",
    )
    workers: int = _setting(
        1,
        count(32),
        "processes that share the ports and the work, for a machine with several processors; each device belongs to "
        "one of them",
    )
    worker_timeout: float = _setting(
        60.0, time_from(4.0), "without a sign of life, after which one of these is ended and another takes its place"
    )
    backlog: int = _setting(1024, count(65535), "connections that may wait to be accepted, for plain port numbers")

    # Who may come in, and how much of it: dsmgateway.door. Each default lets any real device through many times over.
    admission: str = _setting(
        OPEN,
        choice(OPEN, KNOWN, APPROVE),
        "who may send files: any device, those of the list known-devices, or those approved with dsmgateway devices; "
        "a device blocked there is refused in each case",
    )
    known_devices: Path | None = _setting(
        None, FILE, "the list of known devices: an IMEI a line, then a name if wanted; read again when it changes"
    )
    imei_check: str = _setting(
        "none", choice("none", "luhn"), "whether an IMEI that nobody named must have the right check digit"
    )
    max_unknown_devices: int = _setting(
        10_000,
        count(1_000_000),
        "refused devices that are remembered for approval; beyond that, the address with the most of them loses the "
        "one longest away",
    )
    max_connections: int = _setting(
        0, count(10_000_000, least=0), "connections at a time; 0 means as many as there are open files for"
    )
    max_connections_per_address: int = _setting(
        10_000,
        count(10_000_000),
        "connections at a time from one IPv4 address or IPv6 /64; carriers put thousands behind one",
    )
    max_connections_per_network: int = _setting(
        20_000, count(10_000_000), "connections at a time from one IPv4 /24 or IPv6 /48"
    )
    accept_rate: int = _setting(
        1000, count(1_000_000), "new connections a second; 20 times as many at once, as when a whole fleet comes back"
    )
    accept_rate_per_address: int = _setting(
        500, count(1_000_000), "new connections a second from one IPv4 address or IPv6 /64; 20 times as many at once"
    )
    max_photo_size: int = _setting(32 << 20, SIZE, "largest photo that is taken; real ones have 27 to 120 KiB")
    max_video_size: int = _setting(256 << 20, SIZE, "largest video that is taken; real ones have some MiB")
    device_bytes_per_day: int = _setting(
        4 << 30,
        SIZE,
        "what a device may deliver in a day (UTC), and so its largest file, too; a usual link brings 0.4GiB when it "
        "never rests",
    )
    device_files_per_day: int = _setting(10_000, count(1_000_000_000), "files that a device may deliver in a day (UTC)")
    max_session_age: float = _setting(
        86400.0,
        TIME,
        "age at which a connection ends between two files, and at twice that also within one; the largest file takes "
        "30h on a poor link",
    )
    min_rate: int = _setting(100, SIZE, "bytes a second of file data that a device must bring; a poor link has 2500")
    min_rate_time: float = _setting(
        60.0, TIME, "time over which min-rate is measured; real links are silent for 10s now and then"
    )
    flapping_takeovers: int = _setting(
        5, count(10_000), "how often senders on different addresses may take over from each other, by coming back"
    )
    flapping_time: float = _setting(600.0, TIME, "time within which flapping-takeovers are counted")
    flapping_cooldown: float = _setting(
        300.0, TIME, "time for which the last of them then keeps the device: enough for photos and short videos"
    )
    # TLS, and balancers; see docs/tls.md
    tls_ports: tuple[str, ...] = _setting(
        (),
        PORT,
        "where cameras connect with TLS, beside the plain ports; may be given more than once",
        name="tls-port",
        repeatable=True,
        example='["10015"]',
    )
    tls_cert: Path | None = _setting(
        None, FILE, "the gateway's certificate, followed by those between it and its authority, as PEM"
    )
    tls_key: Path | None = _setting(
        None, FILE, "the certificate's private key as PEM, readable by no others; default the file of tls-cert"
    )
    tls_client_ca: Path | None = _setting(
        None, FILE, "authorities as PEM: on TLS ports only devices with a certificate of one of them get in"
    )
    tls_match_imei: bool = _setting(
        False, FLAG, "let a device in only when its certificate names the IMEI that it says it has"
    )
    tls_ciphers: str | None = _setting(
        None, CIPHERS, "the ciphers of TLS 1.2; default what Twisted thinks good", example='"ECDHE+AESGCM"'
    )
    tls_minimum: str = _setting(
        "1.2", replace(choice("1.2", "1.3"), toml_types=(str, float)), "the oldest version of TLS that is spoken"
    )
    proxy_protocol: tuple[Network, ...] = _setting(
        (),
        NETWORKS,
        "balancers: what connects from these networks must begin with a PROXY header, which says who the device is",
        example='"192.0.2.10,2001:db8::/64"',
    )

    def __post_init__(self) -> None:
        for option in OPTIONS:
            value = getattr(self, option.field_name)
            try:
                for one in value if option.repeatable else () if value is None else (value,):
                    option.kind.check(one)
            except ValueError as error:
                raise ConfigError(f"{option.name}: {error}") from None
        if self.admission == KNOWN and self.known_devices is None:
            raise ConfigError("admission: known needs a list, see known-devices")
        self._check_tls()

    def _check_tls(self) -> None:
        """Refuse what would leave TLS less strict than it looks."""
        for given, name, other, needed in (
            (self.has_tls, "a TLS port", self.tls_cert, "tls-cert"),
            (self.tls_key, "tls-key", self.tls_cert, "tls-cert"),
            (self.tls_match_imei, "tls-match-imei", self.tls_client_ca, "tls-client-ca"),
            (self.tls_client_ca, "tls-client-ca", self.has_tls, "a TLS port"),
        ):
            if given and not other:
                raise ConfigError(f"{name} needs {needed}")
        for port in (*self.ports, *self.tls_ports):
            if port.startswith("haproxy:"):
                raise ConfigError(
                    f"endpoint {port!r} would have anybody say who they are: leave out haproxy:, and name the "
                    "balancers (proxy-protocol)"
                )
            if port.startswith("ssl:") and (port in self.tls_ports or self.tls_match_imei or self.proxy_protocol):
                raise ConfigError(
                    f"endpoint {port!r} has a TLS of its own, which knows no tls-* setting and no proxy-protocol: "
                    "make it tls:"
                )

    @property
    def has_tls(self) -> bool:
        """Whether there is a port whose TLS the ``tls-`` settings are about."""
        return bool(self.tls_ports) or any(port.startswith("tls:") for port in self.ports)


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table: a field of `Settings` and how it is written."""

    field_name: str
    name: str
    kind: Kind[Any]
    default: Any
    help_text: str
    repeatable: bool
    #: How it may look in the example file, where there is no default.
    example: str

    @property
    def has_default(self) -> bool:
        """Whether there is a value when nothing is given."""
        return self.default not in (None, ())

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return ENVIRONMENT_PREFIX + self.name.replace("-", "_").upper()

    @property
    def shown_default(self) -> str:
        """The default as one would write it on the command line; empty when there is none."""
        if not self.has_default:
            return ""
        return ",".join(self.kind.show(value) for value in (self.default if self.repeatable else (self.default,)))


def _options() -> Iterator[Option]:
    for row in fields(Settings):
        more = row.metadata
        name = more.get("name", row.name.replace("_", "-"))
        kind = more["kind"]
        example = more.get("example", f'"{kind.unit.upper()}"')
        yield Option(row.name, name, kind, row.default, more["help"], more.get("repeatable", False), example)


#: The table, in the order of `Settings`.
OPTIONS: tuple[Option, ...] = tuple(_options())
