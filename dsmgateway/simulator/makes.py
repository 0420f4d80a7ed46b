"""What a simulated tracker is: its cameras, its protocol, and how it sends; given, or drawn for a mixed fleet.

Knows nothing of files.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from dsmgateway.errors import ConfigError
from dsmgateway.families import UNIFIED_PROTOCOL, Family
from dsmgateway.simulator.cameras import View, views_of
from dsmgateway.simulator.frames import Enhanced

#: Before protocol 6.
_CLASSIC_PROTOCOL = 5
#: The cameras of the trackers in a mixed fleet.
_CARRIED = ((Family.DSM,), (Family.ADAS,), (Family.DUALCAM,), (Family.DASHCAM,), (Family.DSM, Family.DUALCAM))
_SHELF = tuple(itertools.product(_CARRIED, (False, True)))


@dataclass(frozen=True, slots=True)
class Make:
    """A kind of tracker: the ``families`` of its cameras, its protocol id, which frames it sends.

    ``counts_packets``: an odd firmware, which counts packets where all others count bytes. Raises `ConfigError` where
    no tracker can be like that.
    """

    families: tuple[Family, ...] = (Family.DSM,)
    protocol_id: int = _CLASSIC_PROTOCOL
    enhanced: Enhanced = Enhanced.NEVER
    counts_packets: bool = False

    def __post_init__(self) -> None:
        if not self.families or Family.UNKNOWN in self.families or len(set(self.families)) < len(self.families):
            raise ConfigError("a tracker has cameras of one family or more, each of them once")
        if not 0 <= self.protocol_id <= 0xFFFF:
            raise ConfigError(f"the protocol id must be 0 to 65535, not {self.protocol_id}")
        if self.enhanced is not Enhanced.NEVER:
            if self.protocol_id < UNIFIED_PROTOCOL:
                raise ConfigError(
                    f"ENHANCED_DATA is sent from protocol {UNIFIED_PROTOCOL} on, not with {self.protocol_id}"
                )
            if self.counts_packets:
                raise ConfigError("ENHANCED_DATA counts bytes: it does not go with counting packets")

    @property
    def views(self) -> tuple[View, ...]:
        """What its cameras take."""
        return tuple(view for family in self.families for view in views_of(family, self.protocol_id))

    def view(self, index: int, chance: random.Random) -> View:
        """Draw what file ``index`` is; the cameras of one tracker take turns."""
        return chance.choice(views_of(self.families[index % len(self.families)], self.protocol_id))


def mixed_make(seed: int, number: int) -> Make:
    """Draw what tracker ``number`` of a mixed fleet is.

    Each ten trackers (1 to 10, 11 to 20, ...) are one of every kind, in an order of their own.
    """
    block, place = divmod(number - 1, len(_SHELF))
    order = random.Random(f"makes {seed} {block}").sample(_SHELF, len(_SHELF))
    families, is_unified = order[place]
    if not is_unified:
        return Make(families, _CLASSIC_PROTOCOL)
    chance = random.Random(f"make {seed} {number}")
    return Make(families, chance.choice((UNIFIED_PROTOCOL, UNIFIED_PROTOCOL + 1)), chance.choice(tuple(Enhanced)))
