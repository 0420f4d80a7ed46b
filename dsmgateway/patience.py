"""How often a device may be asked again for one file, and how often it was.

What bounds a conversation that gets nowhere. Knows neither bytes nor states.
"""

from __future__ import annotations

from dataclasses import dataclass

#: SYNCs that can be due at once: RESUMEs that crossed repeated STARTs. More STARTs are left to the time limit.
MOST_SYNCS_DUE = 16


@dataclass(slots=True)
class Patience:
    """Counts for one file on one connection; the methods that count say why it is enough, or nothing.

    ``resume_tries`` is how many RESUMEs in a row may bring no data, ``max_resyncs`` how often the data may be broken.
    """

    resume_tries: int
    max_resyncs: int
    #: RESUMEs since the last data that fitted.
    unanswered: int = 0
    #: RESUMEs that no SYNC has answered yet: so many SYNCs are due, and no fault of the device.
    syncs_due: int = 0
    #: RESUMEs beyond the first, and steps found again.
    resyncs: int = 0

    def resync(self) -> str:
        """Count a break in the data."""
        self.resyncs += 1
        return f"more than max-resyncs {self.max_resyncs} in one file" if self.resyncs > self.max_resyncs else ""

    def resume(self) -> str:
        """Count a RESUME."""
        if self.unanswered == self.resume_tries:
            return f"{self.unanswered} RESUMEs in a row brought no data"
        self.unanswered += 1
        self.syncs_due = min(self.syncs_due + 1, MOST_SYNCS_DUE)
        return ""

    def start_crossed(self) -> bool:
        """Count a START that crossed a RESUME; say whether to answer it."""
        answer = self.syncs_due < MOST_SYNCS_DUE
        self.syncs_due += answer
        return answer

    def sync(self) -> bool:
        """Count a SYNC; say whether one was due."""
        due = self.syncs_due > 0
        self.syncs_due -= due
        return due

    def data(self) -> None:
        """Data came that fits."""
        self.unanswered = 0
