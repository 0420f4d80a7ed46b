"""The durable file store: blocking, standard library only.

What the rest of the gateway uses is named here; how it works is told in `part` (receiving), `landing` (finishing) and
`recovery` (starting).
"""

from dsmgateway.store.check import Checked, Kind, State, check
from dsmgateway.store.files import Disk
from dsmgateway.store.finishing import Answer
from dsmgateway.store.share import Share
from dsmgateway.store.store import FileStore
from dsmgateway.store.upload import OtherFile, Upload
from dsmgateway.store.values import Differs, Dropped, Expired, Offered, Recovery, Stored
from dsmgateway.store.volume import Failing, Healed, NoRoom, VolumeFailing

__all__ = [
    "Answer",
    "Checked",
    "Differs",
    "Disk",
    "Dropped",
    "Expired",
    "Failing",
    "FileStore",
    "Healed",
    "Kind",
    "NoRoom",
    "Offered",
    "OtherFile",
    "Recovery",
    "Share",
    "State",
    "Stored",
    "Upload",
    "VolumeFailing",
    "check",
]
