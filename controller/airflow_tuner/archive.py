"""The memory of past hours, as an operator holds it: what a checkpoint kept, and what the metrics source still has."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_tuner import api, checkpoint, learning
from airflow_tuner.errors import TunerError
from airflow_tuner.history import HOURS, History, hour_of
from airflow_tuner.model import Observation
from airflow_tuner.observe import past_peaks, past_tasks
from airflow_tuner.prometheus import Prometheus

READ_AT_ONCE = 3 * 24
"""Hours of the past that one turn asks the metrics source for."""

EMPTY = 14 * 24
"""Hours in a row without an answer after which nothing older is asked for."""

AGAIN = timedelta(minutes=10)
"""After the metrics source did not answer, the past is asked for again."""

log = logging.getLogger("airflow_tuner")


@dataclass
class Archive:
    """The memory of past hours of one policy's targets."""

    histories: Mapping[str, History] = field(default_factory=dict)
    """By target."""
    unread: range = range(0)
    """Past hours that the metrics source is still to be asked for."""
    _empty: int = 0
    """Hours in a row of which it knew nothing."""
    _failed: datetime | None = None
    """When it last did not answer."""

    def begin(self, memory: api.Remembered | None, policy: str, now: datetime) -> None:
        """With what is remembered; `policy`: the UID. The metrics source is asked for the hours that are not."""
        self.histories = checkpoint.histories(memory, policy)
        hour = hour_of(now)
        known = max((history.end for history in self.histories.values()), default=0)
        self.unread = range(max(known - 1, hour - HOURS), hour + 1)
        self._empty, self._failed = 0, None

    def due(self, now: datetime) -> bool:
        """More of the past is to be asked for at once."""
        return bool(self.unread) and (self._failed is None or now - self._failed >= AGAIN)

    async def read(self, source: Prometheus | None, spec: api.Spec, namespace: str, seen: Observation) -> None:
        """Ask for some of the past hours, the latest first."""
        if source is None:
            self.unread = range(0)
            return
        if not self.due(seen.at):
            return
        part = self.unread[-READ_AT_ONCE:]
        try:
            found = await past_peaks(source, spec, namespace, part[0], part[-1])
        except TunerError as error:
            log.info("namespace %s: the past is not known yet: %s", namespace, error)
            self._failed = seen.at
            return
        self._failed, self.unread = None, self.unread[: -len(part)]
        self._empty = 0 if found else self._empty + len(part)
        if self._empty >= EMPTY:
            self.unread = range(0)
        names = {workload.name: workload.target for workload in seen.workloads}
        self.histories = learning.filled(self.histories, names, part[0], found)
        if spec.tunes_slots and seen.naming:
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
