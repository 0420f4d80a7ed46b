"""Text that came from a device, made safe to show on one line of a terminal.

Knows nothing of where the text goes.
"""

from __future__ import annotations

_SHORT = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}


def one_line(text: str) -> str:
    """``text`` with everything escaped that could break a line or turn it around: controls, separators, overrides."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else _escaped(ord(sign)) for sign in text)


def one_line_of(raw: bytes) -> str:
    """The same for bytes that are most likely UTF-8; what is not comes out in hex, each byte with a backslash."""
    return one_line(raw.decode("utf-8", "backslashreplace"))


def _escaped(code: int) -> str:
    short = _SHORT.get(code)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
