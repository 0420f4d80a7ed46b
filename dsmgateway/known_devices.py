"""The list of known devices as an operator writes it: an IMEI a line, with a name if wanted, and comments after #.

Pure: text in, devices out. A list with one wrong line is refused whole, since half a list shuts out half a fleet.
"""

from __future__ import annotations

import re

from dsmgateway.errors import ConfigError
from dsmgateway.escape import one_line

#: Largest list: some 200,000 devices with long names; keeps a slip such as /dev/zero from eating the memory.
MAX_LIST_BYTES = 16 << 20
#: A # begins a comment at the start of a line or behind a blank; within a name it is a letter like others.
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*")
_IMEI = re.compile(r"[0-9]{15}", re.ASCII)


def parse_known_devices(content: bytes) -> dict[str, str]:
    """Return the names (empty where none is given) by IMEI.

    Raises ConfigError with one line that begins with the number of the line that is wrong.
    """
    if len(content) > MAX_LIST_BYTES:
        raise ConfigError(f"larger than {MAX_LIST_BYTES >> 20} MiB, so no list of devices")
    names: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        imei, name = _parse_line(raw, number)
        if not imei:
            continue
        if imei in names:
            raise ConfigError(f"line {number}: {imei} is there already, in line {lines[imei]}")
        names[imei], lines[imei] = name, number
    return names


def is_imei(text: str) -> bool:
    """Whether this is an IMEI as it is written: 15 digits."""
    return _IMEI.fullmatch(text) is not None


def _parse_line(raw: bytes, number: int) -> tuple[str, str]:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"line {number}: not UTF-8") from None
    words = _COMMENT.sub("", text).split(None, 1)
    if not words:
        return "", ""
    if not is_imei(words[0]):
        raise ConfigError(f"line {number}: {one_line(repr(words[0][:40]))} is not an IMEI of 15 digits")
    return words[0], words[1].strip() if len(words) > 1 else ""
