"""How a peer's or a port's address is written in logs and sidecars. Knows nothing of who asks."""

from __future__ import annotations

import os
from typing import Any


def shown_address(address: Any) -> str:
    """Return ``192.0.2.1:40000``, ``[2001:db8::1]:40000``, a socket's path, or what the address says of itself."""
    host = getattr(address, "host", None)
    if host is None:
        name = getattr(address, "name", None)
        return os.fsdecode(name) if name else str(address)
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
