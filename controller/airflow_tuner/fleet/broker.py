"""The message broker: what waits in the queues, and what a dead worker holds and nobody else can have."""

import heapq
import random
from collections import deque
from collections.abc import Iterable

from airflow_tuner.fleet.tasks import Task


class Broker:
    """Queues of messages, each of which is one task."""

    def __init__(self, rng: random.Random, stranded_first: float, stranded_last: float) -> None:
        self.queues: dict[str, deque[Task]] = {}
        self.stirred = False
        """There may be something to deliver: a message has come, or room for one."""
        self._rng = rng
        self._within = (stranded_first, stranded_last)
        self._stranded: list[tuple[float, int, Task]] = []
        self._count = 0

    def send(self, task: Task) -> None:
        """A message goes to the end of its queue."""
        self.queues.setdefault(task.job.queue, deque()).append(task)
        self.stirred = True

    def give_back(self, tasks: Iterable[Task]) -> None:
        """Messages that were not begun go to the head of their queues."""
        for task in tasks:
            self.queues.setdefault(task.job.queue, deque()).appendleft(task)
            self.stirred = True

    def strand(self, tasks: Iterable[Task], now: float) -> None:
        """Their worker has died: for some time nobody else gets them."""
        for task in tasks:
            self._count += 1
            heapq.heappush(self._stranded, (now + self._rng.uniform(*self._within), self._count, task))

    def returned(self, now: float) -> list[Task]:
        """Stranded tasks whose time is over."""
        found = []
        while self._stranded and self._stranded[0][0] <= now:
            found.append(heapq.heappop(self._stranded)[2])
        return found

    def recovered(self) -> list[Task]:
        """All stranded tasks, taken out by hand."""
        found = [task for _, _, task in sorted(self._stranded, key=lambda item: item[:2])]
        self._stranded.clear()
        return found

    @property
    def stranded(self) -> int:
        """How many messages are held for workers that are gone."""
        return len(self._stranded)
