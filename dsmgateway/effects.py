"""What a session asks for: values that `dsmgateway.protocol` performs, in order, and nobody keeps.

They are not frozen, since to make one that is takes three times as long, and a file takes dozens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dsmgateway.commands import GatewayCommand
from dsmgateway.events import Event
from dsmgateway.metadata import Metadata
from dsmgateway.states import State


@dataclass(slots=True)
class Send:
    """Send a command to the device; with ``renews`` the state's time limit begins anew."""

    command: GatewayCommand
    renews: bool = True


@dataclass(slots=True)
class DropUntilSync:
    """Throw away file data in flight until SYNC."""


@dataclass(slots=True)
class ExpectData:
    """This many bytes of file data, or up to a packet less with ``whole_packets``, make the file whole."""

    remaining_bytes: int
    whole_packets: bool = False


@dataclass(slots=True)
class Claim:
    """This connection is the device's newest: end any older one."""

    imei: str


@dataclass(slots=True)
class Open:
    """Ask the store where the file stands; answer with `Session.opened`, `Session.turned_away` or `store_failed`.

    With ``in_packets`` the size is the most that it can be; for ``qualifier`` see `dsmgateway.store.Offered`.
    """

    device_path: bytes
    size_bytes: int
    start_crc: int
    compare: bool
    in_packets: bool = False
    qualifier: str | None = None


@dataclass(slots=True)
class Append:
    """Write file data at this offset; a lower one than before overwrites."""

    offset_bytes: int
    data: bytes = field(repr=False)


@dataclass(slots=True)
class Finish:
    """Make the file durable; answer with `Session.stored`, `Session.differs` or `Session.store_failed`."""

    protocol_id: int
    metadata: Metadata | None


@dataclass(slots=True)
class Park:
    """Keep the unfinished file with a checkpoint and let go of it."""


@dataclass(slots=True)
class Note:
    """Write a log event, with the state in which it happened."""

    event: Event
    fields: dict[str, object] = field(default_factory=dict)
    state: State = field(default=State.ENDED, compare=False)


@dataclass(slots=True)
class End:
    """End the connection; ``abort`` throws away what is still to be sent."""

    reason: str
    abort: bool = False


Effect = Send | DropUntilSync | ExpectData | Claim | Open | Append | Finish | Park | Note | End
Effects = list[Effect]
