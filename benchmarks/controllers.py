"""Who sets memory, slots, workers and parsing of a deployment: people, the peers, and nobody. All start the same."""

import math
from abc import ABC, abstractmethod
from collections import deque

from airflow_tuner.fleet.weeks import Weeks
from airflow_tuner.fleet.weekworker import Worker
from benchmarks import autopilot, krr, vpa

MI = 2**20
HOUR = 60
"""Minutes."""

DAY = 24 * HOUR


class Controller(ABC):
    """Acts once a minute, after it has passed."""

    def __init__(self, weeks: Weeks) -> None:
        self.weeks = weeks
        self.changes = 0
        """Times that a value was set for all workers."""

    @abstractmethod
    def act(self) -> None:
        """Look, and set what should be different."""

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """The run is over."""

    def working_set(self, worker: Worker) -> float:
        """MiB that cAdvisor would show at most within this minute; the kernel's limit is its end."""
        laws = self.weeks.laws
        held = self.weeks.in_use(worker)
        return min(worker.limit, held + worker.cache * laws.active_cache)

    def set_all(self, size: float) -> None:
        """The same memory for all, in place: request and limit."""
        self.changes += 1
        for worker in self.weeks.living:
            self.weeks.resize(worker, size, size)

    @property
    def measured(self) -> bool:
        """There are metrics."""
        return not any(span.holds(self.weeks.day) for span in self.weeks.scenario.outages)


class Static(Controller):
    """What a person has set stays."""

    def act(self) -> None:
        """Nothing."""


class Vpa(Controller):
    """The VerticalPodAutoscaler in mode InPlaceOrRecreate: raises in place, lowers by evictions, one at a time."""

    OLD = 12 * HOUR
    """Minutes of a pod's life after which a difference of `APART` is enough."""
    APART = 0.1

    def __init__(self, weeks: Weeks) -> None:
        super().__init__(weeks)
        self._histogram = vpa.Histogram()
        self._containers = {worker.number: vpa.Container(self._histogram) for worker in weeks.workers}
        self._deaths = dict.fromkeys(self._containers, 0)
        self._born = dict.fromkeys(self._containers, 0)
        self._set = weeks.workers[0].request

    def act(self) -> None:
        """Sample each minute; update every five."""
        weeks = self.weeks
        for worker in weeks.living:
            container = self._containers[worker.number]
            if worker.deaths > self._deaths[worker.number]:
                self._deaths[worker.number] = worker.deaths
                container.killed(worker.request * MI, weeks.now)
            if worker.up and self.measured:
                container.sample(self.working_set(worker) * MI, weeks.now)
        if weeks.minute % 5 == 0:
            self._update()

    def _update(self) -> None:
        weeks = self.weeks
        told = vpa.recommended(self._histogram, weeks.day)
        target = told.target / MI
        draining = any(worker.stopping or not worker.up for worker in weeks.living)
        before = self._set
        for worker in weeks.living:
            request = worker.request * MI
            old = weeks.minute - self._born[worker.number] >= self.OLD
            outside = not told.lower <= request <= told.upper
            if not outside and not (old and abs(request - told.target) >= self.APART * request):
                continue
            if target > worker.request:
                weeks.resize(worker, target, target)
                self._set = target
            elif target < worker.request and not draining:
                # A lower memory limit in place is not offered under resizePolicy NotRequired: it evicts.
                weeks.restart(worker, target, target)
                self._containers[worker.number] = vpa.Container(self._histogram)
                self._born[worker.number] = weeks.minute
                self._set, draining = target, True
        self.changes += self._set != before


class Krr(Controller):
    """KRR's report, carried out in place once a day at three, as soon as it is about a week."""

    LEAST = 7
    """Days of history before a person would act on it; it looks back 14."""

    def __init__(self, weeks: Weeks) -> None:
        super().__init__(weeks)
        self._days: deque[float] = deque([0.0], maxlen=krr.HISTORY)

    def act(self) -> None:
        """Sample each minute; report once a day."""
        weeks = self.weeks
        if self.measured:
            self._days[-1] = max(
                self._days[-1], *(self.working_set(worker) * MI for worker in weeks.living if worker.up), 0.0
            )
        if weeks.minute % DAY != 3 * HOUR:
            return
        size = krr.recommended(self._days) / MI
        if weeks.day >= self.LEAST and size != weeks.workers[0].limit:
            self.set_all(size)
        self._days.append(0.0)


class Autopilot(Controller):
    """Autopilot, every hour, in place; `share`: of the percentile's rule, 1 for the maximum's."""

    share = 1.0

    def __init__(self, weeks: Weeks) -> None:
        super().__init__(weeks)
        self._hours = autopilot.Hours()
        self._peaks = dict.fromkeys((worker.number for worker in weeks.workers), 0.0)
        self._last: deque[float] = deque(maxlen=12)

    def act(self) -> None:
        """Sample in fives; set by the hour."""
        weeks = self.weeks
        if weeks.minute % HOUR == 1:
            self._hours.begin()
        if self.measured:
            for worker in weeks.living:
                self._peaks[worker.number] = max(self._peaks[worker.number], self.working_set(worker))
        if weeks.minute % 5 == 0 and self.measured:
            for number, peak in self._peaks.items():
                self._hours.add(peak)
                self._peaks[number] = 0.0
            # The raw answer jumps: the largest of the last hour counts.
            self._last.append(self._hours.largest() if self.share == 1.0 else self._hours.percentile(self.share))
        if weeks.minute % HOUR == 0 and weeks.day >= 1 and self._last:
            size = max(self._last)
            if abs(size - weeks.workers[0].request) > 0.01 * size:
                self.set_all(size)


class AutopilotP98(Autopilot):
    """Its rule for jobs that bear kills."""

    share = 0.98


class Keda(Controller):
    """KEDA with the official chart's query: workers for the tasks that run or wait, fewer after five calm minutes."""

    STABLE = 5
    """Minutes of the autoscaler's window before it scales down."""

    def __init__(self, weeks: Weeks) -> None:
        super().__init__(weeks)
        self._most = self._count = len(weeks.workers)
        self._wanted: deque[int] = deque(maxlen=self.STABLE)

    def act(self) -> None:
        """As many workers as the tasks need."""
        weeks = self.weeks
        tasks = weeks.running + weeks.stranded + len(weeks.queue)
        self._wanted.append(min(max(math.ceil(tasks / weeks.scenario.slots), 1), self._most))
        count = max(self._wanted)
        self.changes += count != self._count
        self._count = count
        weeks.scale(count)
