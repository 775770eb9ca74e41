"""What is known of past hours, as an operator holds it: what a checkpoint kept, and what the source still has."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_tuner import api, checkpoint, learning
from airflow_tuner.errors import TunerError
from airflow_tuner.history import HOURS, History, hour_of, of_cpu
from airflow_tuner.model import Observation
from airflow_tuner.observe import past_peaks, past_tasks
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.signals import HOURLY_CORES, HOURLY_PEAKS

READ_AT_ONCE = 3 * 24
"""Hours of the past that one turn asks the metrics source for."""

EMPTY = 14 * 24
"""Hours in a row without an answer after which nothing older is asked for."""

AGAIN = timedelta(minutes=10)
"""After the metrics source did not answer, the past is asked for again."""

log = logging.getLogger("airflow_tuner")


@dataclass
class Unread:
    """Past hours that the metrics source is still to be asked for."""

    hours: range = range(0)
    empty: int = 0
    """Hours in a row of which it knew nothing."""

    def begin(self, known: int, now: datetime) -> None:
        """From the last hour that is known."""
        hour = hour_of(now)
        self.hours, self.empty = range(max(known - 1, hour - HOURS), hour + 1), 0

    @property
    def part(self) -> range:
        """The next of them, the latest first."""
        return self.hours[-READ_AT_ONCE:]

    def done(self, part: range, *, found: bool) -> None:
        """These were asked for."""
        self.hours = self.hours[: -len(part)]
        self.empty = 0 if found else self.empty + len(part)
        if self.empty >= EMPTY:
            self.hours = range(0)


@dataclass
class Archive:
    """What is known of past hours of one policy's targets."""

    histories: Mapping[str, History] = field(default_factory=dict)
    """By target, as in an observation."""
    memory: Unread = field(default_factory=Unread)
    """Of memory, and with it of tasks."""
    cpu: Unread = field(default_factory=Unread)
    """Of CPU, from when the policy names it."""
    _named: bool = False
    """It does."""
    _failed: datetime | None = None
    """When the metrics source last did not answer."""

    def begin(self, memory: api.Remembered | None, policy: str, now: datetime) -> None:
        """With what is remembered; `policy`: the UID. The metrics source is asked for the hours that are not."""
        self.histories = checkpoint.histories(memory, policy)
        self.memory.begin(self._end(cpu=False), now)
        self.cpu, self._named, self._failed = Unread(), False, None

    def named(self, spec: api.Spec, now: datetime) -> None:
        """What the policy names now."""
        if spec.tunes_cpu and not self._named:
            self.cpu.begin(self._end(cpu=True), now)
        self._named = spec.tunes_cpu

    def _end(self, *, cpu: bool) -> int:
        """The hour after the last that is known."""
        ends = (history.end for name, history in self.histories.items() if name.endswith(of_cpu("")) == cpu)
        return max(ends, default=0)

    @property
    def next(self) -> Unread | None:
        """What is read next; `None`: all that there is has been read."""
        kinds = (self.memory, self.cpu) if self._named else (self.memory,)
        return next((kind for kind in kinds if kind.hours), None)

    def due(self, now: datetime) -> bool:
        """More of the past is to be asked for at once."""
        return self.next is not None and (self._failed is None or now - self._failed >= AGAIN)

    async def read(self, source: Prometheus | None, spec: api.Spec, namespace: str, seen: Observation) -> None:
        """Ask for some of the past hours, the latest first."""
        if source is None:
            self.memory, self.cpu = Unread(), Unread()
            return
        unread = self.next
        if unread is None or not self.due(seen.at):
            return
        part, of_memory = unread.part, unread is self.memory
        signal = HOURLY_PEAKS if of_memory else HOURLY_CORES
        try:
            found = await past_peaks(source, spec, namespace, part[0], part[-1], signal)
        except TunerError as error:
            log.info("namespace %s: the past is not known yet: %s", namespace, error)
            self._failed = seen.at
            return
        self._failed = None
        unread.done(part, found=bool(found))
        names = {item.name: item.target if of_memory else of_cpu(item.target) for item in seen.workloads}
        self.histories = learning.filled(self.histories, names, part[0], found)
        if of_memory and spec.tunes_slots and seen.naming:
            tasks = learning.by_group(seen, await _tasks(source, spec, namespace, seen.naming, part))
            self.histories = learning.filled(self.histories, {name: name for name in tasks}, part[0], tasks)


async def _tasks(
    source: Prometheus, spec: api.Spec, namespace: str, naming: str, part: range
) -> dict[str, list[int | None]]:
    """How many tasks there were; nothing where that is not answered: it is no reason to ask for memory again."""
    try:
        return await past_tasks(source, spec, namespace, naming, part[0], part[-1])
    except TunerError as error:
        log.info("namespace %s: the tasks of past hours are not known: %s", namespace, error)
        return {}
