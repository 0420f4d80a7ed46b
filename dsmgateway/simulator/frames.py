"""The frames that file data travels in: DATA, ENHANCED_DATA of protocol 6 and above, or a mix of both.

Knows nothing of files; who sends a frame says where it belongs and what its CRC is.
"""

from __future__ import annotations

import enum
import random

from dsmgateway.commands import Data, EnhancedData


class Enhanced(enum.Enum):
    """Which frames of file data are ENHANCED_DATA."""

    NEVER = "never"
    ALWAYS = "always"
    #: Each frame is one or the other, by chance.
    MIX = "mix"


class Frames:
    """The frames of one device, whose kinds are drawn by ``seed`` where they are mixed."""

    __slots__ = ("_enhanced", "_random")

    def __init__(self, enhanced: Enhanced = Enhanced.NEVER, seed: str = "") -> None:
        self._enhanced = enhanced
        self._random = random.Random(f"frames {seed}")

    def frame(self, position_bytes: int, data: bytes, crc: int) -> bytes:
        """Return ``data``, which belongs at this position of its file, as a frame on the wire."""
        if self._is_enhanced():
            return EnhancedData(position_bytes, data, crc).encode()
        return Data(data, crc).encode()

    def _is_enhanced(self) -> bool:
        if self._enhanced is Enhanced.MIX:
            return self._random.random() < 0.5
        return self._enhanced is Enhanced.ALWAYS
