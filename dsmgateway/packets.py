"""How a file is cut into packets, and where a transfer can be taken up again. Knows neither wire nor disk."""

from __future__ import annotations

#: File data bytes in every DATA but the last one of a file (4.11).
PACKET_BYTES = 1024


def first_byte(packet: int) -> int:
    """Return the offset at which a packet begins, counted from 1; 0 also means the first one."""
    return max(packet - 1, 0) * PACKET_BYTES


def last_packet(size_bytes: int) -> int:
    """Return the offset at which the last packet of a file begins: the highest one that is ever asked for."""
    return max(size_bytes - 1, 0) // PACKET_BYTES * PACKET_BYTES


def is_whole(held_bytes: int, size_bytes: int, in_packets: bool) -> bool:
    """Return whether so many bytes from the start are the whole file.

    Where packets were counted, ``size_bytes`` is the most that it can have: something of its last packet must be there.
    """
    if not in_packets or not size_bytes:
        return held_bytes == size_bytes
    return last_packet(size_bytes) < held_bytes <= size_bytes


def resume_offset(held_bytes: int, size_bytes: int) -> int:
    """Return where the device shall go on: at a whole packet, and always with at least one left to send."""
    return min(held_bytes // PACKET_BYTES * PACKET_BYTES, last_packet(size_bytes))
