"""What the settings mean for each part of the gateway: the options of sessions, time limits, limits of connections.

The only place that knows both the operator's words and the parts', so that no part has to know all settings.
"""

from __future__ import annotations

import sys

from dsmgateway.crowd import CrowdLimits
from dsmgateway.families import Family
from dsmgateway.reception import SessionOptions
from dsmgateway.settings import Settings
from dsmgateway.states import State
from dsmgateway.timing import TimeLimits

#: Seconds that a connection which has ended may take to send its last bytes.
LINGER_S = 5.0


def session_options(settings: Settings) -> SessionOptions:
    """What sessions are told."""
    return SessionOptions(
        metadata=settings.metadata,
        repeat=settings.after_file == "repeat",
        families=frozenset(map(Family, settings.families)),
        max_file_size=settings.max_file_size,
        max_photo_size=settings.max_photo_size,
        max_video_size=settings.max_video_size,
        resume_tries=settings.resume_tries,
        max_resyncs=settings.max_resyncs,
    )


def time_limits(settings: Settings) -> TimeLimits:
    """How long connections may last, in each state and in all."""
    states_s = {
        State.AWAIT_INIT: settings.init_timeout,
        State.AWAIT_PATH: settings.answer_timeout,
        State.AWAIT_METADATA: settings.metadata_timeout,
        State.AWAIT_START: settings.answer_timeout,
        State.OPENING: settings.store_timeout,
        State.AWAIT_SYNC: settings.sync_timeout,
        State.RECEIVING: settings.data_timeout,
        State.STORING: settings.store_timeout,
        State.AWAIT_NEXT_INIT: settings.answer_timeout,
        State.FAREWELL: settings.init_timeout,
        State.ENDED: LINGER_S,
    }
    return TimeLimits(states_s, settings.min_rate, settings.min_rate_time, settings.max_session_age)


def crowd_limits(settings: Settings) -> CrowdLimits:
    """How many connections there may be, and how fast they may come; in all, without end where nothing is set."""
    return CrowdLimits(
        settings.max_connections or sys.maxsize,
        settings.max_connections_per_address,
        settings.max_connections_per_network,
        settings.accept_rate,
        settings.accept_rate_per_address,
    )
