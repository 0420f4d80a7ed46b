"""The check digit of an IMEI (ISO/IEC 7812-1). Knows no device."""

from __future__ import annotations


def luhn_digit(digits: str) -> int:
    """Return the check digit (0..9) that makes ``digits`` with it appended pass the Luhn test."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 - place % 2)
        total += value - 9 if value > 9 else value
    return -total % 10
