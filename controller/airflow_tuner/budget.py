"""How many ordinary changes one operator makes in an hour, over all its policies. Pure.

Whatever makes many Airflows look wrong at once, a bad source or a bad version of the operator, then changes a few of
them and not all. What answers a kill, what the user has asked for, and what takes back is never held.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_tuner import api

WINDOW = timedelta(hours=1)
"""The time over which changes are counted."""

PER_HOUR = 60
"""Ordinary changes within that time: some ten Airflows that follow their day. A modelled target changes three times in
an hour at most, and 24 times in a day."""

EXEMPT = {"OutOfMemory", "MemoryBound", "PodsRefused", "TemplateChanged", "BoundsChanged", "Released"}
"""Reasons of changes that are neither counted nor held."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What of it is left for one turn."""

    most: int
    """Ordinary changes that may be made within an hour."""
    made: int
    """Those that were."""
    again: datetime | None = None
    """Where none is left: when there is one again."""

    @property
    def left(self) -> int:
        """Ordinary changes that may be made now."""
        return max(0, self.most - self.made)


class Ledger:
    """The ordinary changes of the last hour."""

    def __init__(self, most: int = PER_HOUR) -> None:
        self.most = most
        self._made: list[datetime] = []

    def recall(self, histories: Iterable[Iterable[api.Change]], now: datetime) -> None:
        """Begin with what the statuses of all policies remember: ten changes each."""
        self._made = []
        for change in (change for history in histories for change in history if change.reason not in EXEMPT):
            # A status may hold anything.
            with suppress(ValueError, TypeError):
                if now - WINDOW < (at := datetime.fromisoformat(change.time)) <= now:
                    self._made.append(at)
        self._made.sort()

    def budget(self, now: datetime) -> Budget:
        """What is left."""
        times = [at for at in self._made if now - at < WINDOW]
        made = len(times)
        return Budget(self.most, made, times[made - self.most] + WINDOW if made >= self.most else None)

    def spend(self, number: int, now: datetime) -> None:
        """So many were decided."""
        self._made = [at for at in self._made if now - at < WINDOW] + [now] * number

    def refund(self, number: int) -> None:
        """So many of the last were not written."""
        del self._made[len(self._made) - number :]
