"""The kinds of values a setting can have: how each is written by a person, checked, and written back.

One `Kind` serves command line, environment, TOML file, help text and the example file alike. Knows nothing of which
settings there are (`dsmgateway.settings`), nor of where a value came from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
Network = IPv4Network | IPv6Network

_SECONDS_PER = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s?([smhd]?)", re.ASCII)
_BYTES_PER = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(r"(\d{1,15})\s?(B|KiB|MiB|GiB|)", re.ASCII)
_COUNT = re.compile(r"\d{1,9}", re.ASCII)
#: An endpoint string begins with the name of its kind; a Windows drive or a bare IPv6 address does not look like this.
_ENDPOINT = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]+:.*", re.ASCII)

#: Shortest and longest time: a millisecond, and ten years (more is a slip of the pen, and overflows timers).
_SHORTEST_S, _LONGEST_S = 0.001, 3650 * 86400.0
#: Largest size: a terabyte.
_LARGEST_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How one kind of value is written.

    Attributes:
        unit: In a word or two, for help texts: "time", "true or false".
        expects: What to write, for error messages: "a time: seconds, or a number with s, m, h or d, such as 30s".
        parse: From text to a value; raises ValueError when it is written wrongly.
        show: From a value to text that `parse` reads back as the same value.
        check: Raises ValueError when a value is out of range.
        toml_types: The TOML types that may stand for it.
        toml_quoted: Whether the example file puts quotes around it.
        toml_list: Whether the TOML file may list its words instead of writing them as one text.
    """

    unit: str
    expects: str
    parse: Callable[[str], T]
    show: Callable[[T], str]
    check: Callable[[T], None]
    toml_types: tuple[type, ...] = (str,)
    toml_quoted: bool = True
    toml_list: bool = False

    def read(self, text: str) -> T:
        """Parse and check ``text``; a ValueError says in one line what is wrong with it."""
        try:
            value = self.parse(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {self.expects}") from None
        self.check(value)
        return value


def _check_range(value: float, lowest: float, highest: float, show: Callable[[float], str]) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{show(value)} is out of range: {show(lowest)} to {show(highest)}")


def _parse_time(text: str) -> float:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    # To the nanosecond, as it can be written: 1.123456789h has more digits than that.
    return round(float(match[1]) * _SECONDS_PER[match[2]], 9)


def _show_time(seconds: float) -> str:
    for unit in "dhm":
        if seconds and seconds % _SECONDS_PER[unit] == 0:
            return f"{seconds / _SECONDS_PER[unit]:.0f}{unit}"
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds!r}s"


def _parse_size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _BYTES_PER[match[2]]


def _show_size(size_bytes: float) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _BYTES_PER[unit] == 0:
            return f"{size_bytes // _BYTES_PER[unit]:.0f}{unit}"
    return f"{size_bytes:.0f}"


def _check_size(size_bytes: int) -> None:
    _check_range(size_bytes, 1, _LARGEST_BYTES, _show_size)


def _parse_count(text: str) -> int:
    if not _COUNT.fullmatch(text.strip()):
        raise ValueError(text)
    return int(text)


def _show_count(count: float) -> str:
    return f"{count:.0f}"


def _parse_bool(text: str) -> bool:
    words = {"true": True, "false": False}
    if text.strip().lower() not in words:
        raise ValueError(text)
    return words[text.strip().lower()]


def _show_bool(value: bool) -> str:
    return "true" if value else "false"


def _no_check(value: object) -> None:
    """Every value that can be parsed is good."""


def _parse_port(text: str) -> str:
    text = text.strip()
    if _COUNT.fullmatch(text):
        return str(int(text))
    if not _ENDPOINT.fullmatch(text):
        raise ValueError(text)
    kind, colon, words = text.partition(":")
    return kind.lower() + colon + words


def _check_port(text: str) -> None:
    if text.isdecimal() and int(text) > 65535:
        raise ValueError(f"{text} is out of range: 0 to 65535")


def _parse_path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError(text)
    return Path(text)


def _parse_networks(text: str) -> tuple[Network, ...]:
    networks = tuple(dict.fromkeys(ip_network(one.strip()) for one in text.split(",")))
    # A peer's address is never written so: such a network would have nobody in it.
    if any(isinstance(network, IPv6Network) and network.network_address.ipv4_mapped for network in networks):
        raise ValueError(text)
    return networks


def _show_networks(networks: tuple[Network, ...]) -> str:
    return ",".join(map(str, networks))


def _parse_words(text: str) -> str:
    if not text.strip().isprintable() or not text.strip().isascii() or not text.strip():
        raise ValueError(text)
    return text.strip()


def time_from(shortest_s: float) -> Kind[float]:
    """Seconds, as a float, and so many at least."""

    def check(seconds: float) -> None:
        if not math.isfinite(seconds):
            raise ValueError(f"{seconds} is not a time")
        _check_range(seconds, shortest_s, _LONGEST_S, _show_time)

    expects = "a time: seconds, or a number with s, m, h or d, such as 20, 30s, 2m or 30d"
    return Kind("time", expects, _parse_time, _show_time, check, toml_types=(int, float, str))


TIME = time_from(_SHORTEST_S)
#: Bytes, as an integer.
SIZE: Kind[int] = Kind(
    "size",
    "a size: bytes, or a number with KiB, MiB or GiB, such as 4096, 4KiB or 256MiB",
    _parse_size,
    _show_size,
    _check_size,
    toml_types=(int, str),
)
FLAG: Kind[bool] = Kind(
    "true or false", "true or false", _parse_bool, _show_bool, _no_check, toml_types=(bool,), toml_quoted=False
)
#: A port number, or an endpoint string as `twisted.internet.endpoints.serverFromString` reads it, as text.
PORT: Kind[str] = Kind(
    "port number or endpoint",
    "a port number (0 to 65535) or a Twisted endpoint string such as tcp:10014:interface=127.0.0.1",
    _parse_port,
    str,
    _check_port,
    toml_types=(int, str),
)
FOLDER: Kind[Path] = Kind("folder", "a folder's path", _parse_path, str, _no_check)
FILE: Kind[Path] = Kind("file", "a file's path", _parse_path, str, _no_check)
#: Networks of IP addresses.
NETWORKS: Kind[tuple[Network, ...]] = Kind(
    "networks",
    "networks with commas between them, such as 192.0.2.10 or 192.0.2.0/24,2001:db8::/32 (no bits set beyond the /, no"
    " ::ffff:192.0.2.0/120)",
    _parse_networks,
    _show_networks,
    _no_check,
)
#: Which ciphers, as OpenSSL writes it: what it means is found out by OpenSSL.
CIPHERS: Kind[str] = Kind("OpenSSL cipher list", "a list of ciphers as OpenSSL writes it", _parse_words, str, _no_check)


def count(most: int, least: int = 1) -> Kind[int]:
    """A whole number from ``least`` to ``most``."""
    expects = f"a whole number from {least} to {most}"

    def check(number: int) -> None:
        _check_range(number, least, most, _show_count)

    return Kind("number", expects, _parse_count, _show_count, check, toml_types=(int,), toml_quoted=False)


def choice(*words: str) -> Kind[str]:
    """One of these words."""
    listed = " or ".join((", ".join(words[:-1]), words[-1]))

    def check(text: str) -> None:
        if text not in words:
            raise ValueError(f"{text!r} is not one of {listed}")

    return Kind(listed, f"one of {listed}", str.strip, str, check)


def several(*words: str) -> Kind[tuple[str, ...]]:
    """One or more of these words, with commas between them."""
    listed = ", ".join(words)

    def parse(text: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(word.strip() for word in text.split(",")))

    def check(chosen: tuple[str, ...]) -> None:
        if not isinstance(chosen, tuple):
            raise ValueError(f"{chosen!r} is not a tuple of some of {listed}")
        if not any(chosen):
            raise ValueError(f"at least one of {listed}")
        for word in chosen:
            if word not in words:
                raise ValueError(f"{word!r} is not one of {listed}")

    expects = f"some of {listed}, with commas between them"
    return Kind("words with commas between them", expects, parse, ",".join, check, toml_list=True)
