"""JSON that a device chose (METADATA from protocol 6 on), made harmless and looked into.

What comes out can be written as JSON again, in UTF-8 and by strict writers, whatever came in. Knows nothing of the
keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

#: Objects and lists nested deeper than this become null; the protocol's own go down to 2.
DEEPEST = 12
#: Integers with more characters become text: no 64-bit integer is longer.
_LONGEST_INTEGER = 20
#: Floats above this are no certain integers any more.
_EXACT = 1 << 53
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


def begins_like_document(raw: bytes) -> bool:
    """Tell whether a body begins as a JSON object does, be it whole or broken."""
    return raw.lstrip().startswith(b"{")


def document_of(raw: bytes) -> dict[str, object] | None:
    """Return the JSON object that is the whole of ``raw``, but for space and closing NULs; None if it is none.

    Bytes that are no UTF-8 and lone surrogates become U+FFFD, numbers that are not finite null. Of a key that comes
    twice the last one counts.
    """
    if not begins_like_document(raw):
        return None
    text = raw.rstrip(b"\0").decode("utf-8", "replace")
    try:
        document = json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return {_whole_text(name): _harmless(value, 2) for name, value in document.items()}


def member(document: Mapping[str, object], *names: str) -> object:
    """Return what stands under ``names``, one a level, or None."""
    value: object = document
    for name in names:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def number(value: object) -> float | None:
    """Return ``value`` if it is a number; one that is whole comes as an integer."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _EXACT else value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def amount(value: object) -> float | None:
    """Return ``value`` if it is a number that is not negative."""
    found = number(value)
    return found if found is not None and found >= 0 else None


def integer(value: object) -> int | None:
    """Return ``value`` if it is a whole number."""
    found = number(value)
    return found if isinstance(found, int) else None


def text(value: object) -> str | None:
    """Return ``value`` if it is a text with something in it, without space and NULs around it."""
    return (value.strip(" \0") or None) if isinstance(value, str) else None


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else digits


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if abs(value) != float("inf") else None


def _no_number(_name: str) -> None:
    """NaN and Infinity, which JSON does not have."""


def _whole_text(value: str) -> str:
    return _SURROGATE.sub(_REPLACEMENT, value)


def _harmless(value: object, depth: int) -> object:
    if isinstance(value, str):
        return _whole_text(value)
    if not isinstance(value, dict | list):
        return value
    if depth > DEEPEST:
        return None
    if isinstance(value, list):
        return [_harmless(inner, depth + 1) for inner in value]
    return {_whole_text(name): _harmless(inner, depth + 1) for name, inner in value.items()}
