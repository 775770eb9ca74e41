"""How tasks flow, as far as the broker's queues and the workers tell it: for an Airflow without metrics. Pure.

What is told apart only in Airflow's own metrics is not known here: pools, `core.parallelism`, the scheduler's queries.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from airflow_tuner.model import Slots
from airflow_tuner.scraped import Busy
from airflow_tuner.telemetry import LEAST, Pool, Tasks

BEGUN = 5
"""Tasks that must have begun between two looks for a mean duration to be told of them."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was there at one moment."""

    at: datetime
    waiting: int
    busy: int
    begun: Mapping[str, int]
    """Tasks that each worker has begun since its start."""


@dataclass(slots=True)
class Tally:
    """The looks of the last minutes, and the busiest minute of a day."""

    window: timedelta = timedelta(seconds=300)
    _looks: deque[Look] = field(default_factory=deque)
    _day: Busy = field(default_factory=Busy)
    _minute: tuple[int, int] = (-1, 0)
    """The present minute, and the most slots busy at once in it."""

    def add(
        self, at: datetime, queued: Mapping[str, int], workers: Mapping[str, Slots], running: int = 0
    ) -> tuple[int, int] | None:
        """One more look; a minute that ended with it, and the most slots busy at once in it.

        `running`: tasks that run, where somebody else than the workers tells it.
        """
        busy = max(running, sum(slots.busy for slots in workers.values()))
        begun = {name: slots.begun for name, slots in workers.items() if slots.begun is not None}
        self._looks.append(Look(at, sum(queued.values()), busy, begun))
        while self._looks[0].at < at - self.window:
            self._looks.popleft()
        minute, ended = int(at.timestamp()) // 60, None
        if minute != self._minute[0]:
            ended = self._minute if self._minute[0] >= 0 else None
            self._minute = (minute, 0)
        self._minute = (minute, max(self._minute[1], busy))
        if ended is not None:
            self.keep(*ended)
        return ended

    def keep(self, minute: int, busy: int) -> None:
        """Take a minute up, also one of before the tuner's start."""
        self._day.add(minute, busy)

    def tasks(self, queued: Mapping[str, int]) -> Tasks | None:
        """How tasks flow now; `None` before the first look."""
        if not self._looks:
            return None
        last = self._looks[-1]
        pool = Pool("default_pool", None, last.busy, last.waiting, 0)
        lately = [look for look in self._looks if look.at >= last.at - timedelta(seconds=LEAST)]
        return Tasks(
            pools=(pool,),
            queued=dict(queued),
            running={},
            started=self._started(),
            duration=self._duration(),
            busy_day=self._day.day,
            waiting_least=min(look.waiting for look in lately),
        )

    def _started(self) -> float | None:
        """Tasks per second that began."""
        spans = [(seconds, begun) for seconds, _, begun in self._spans()]
        seconds = sum(span for span, _ in spans)
        return sum(begun for _, begun in spans) / seconds if seconds else None

    def _duration(self) -> float | None:
        """Mean seconds of a task, by Little's law: what is busy on average, by what begins each second."""
        spans = [*self._spans()]
        begun = sum(count for _, _, count in spans)
        return sum(seconds * busy for seconds, busy, _ in spans) / begun if begun >= BEGUN else None

    def _spans(self) -> Iterable[tuple[float, float, int]]:
        """Between each two looks: seconds, slots busy on average, tasks that began."""
        looks = [*self._looks]
        for before, after in pairwise(looks):
            told = [count - before.begun[name] for name, count in after.begun.items() if name in before.begun]
            # A worker that began anew counts from zero.
            if told and min(told) >= 0:
                yield (after.at - before.at).total_seconds(), (before.busy + after.busy) / 2, sum(told)
