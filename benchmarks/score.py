"""What a run is judged by: memory, kills, lost work, lag, changes and parsing, always together."""

from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_tuner.fleet.weeks import Weeks

FRESH = 60.0
"""Seconds after which a changed DAG file should have been parsed."""


@dataclass(slots=True)
class Score:
    """Sums over the scored time. GiB hours, minutes, counts."""

    scenario: str
    seed: int
    controller: str
    days: float = 0.0
    requested: float = 0.0
    limit: float = 0.0
    used: float = 0.0
    """Most that was in use, minute by minute."""
    overcommitted: int = 0
    """Minutes in which all workers together used more than they requested."""
    kills: int = 0
    failed: int = 0
    """Tries that were lost to kills or drains."""
    late: int = 0
    tasks: int = 0
    late_minutes: int = 0
    changes: int = 0
    restarts: int = 0
    stale_minutes: int = 0
    parse_cores: float = 0.0
    """Core minutes."""
    parse_least: float = 0.0
    """Core minutes that fresh DAGs take at least."""
    minutes: int = 0
    _begun: dict[str, int] = field(default_factory=dict)

    def begin(self, weeks: Weeks, changes: int) -> None:
        """The scored time begins: what happened before is taken off."""
        self._begun = {**_counts(weeks), "changes": changes}

    def add(self, weeks: Weeks) -> None:
        """A minute has passed."""
        there = [worker for worker in weeks.workers if worker.up or not worker.gone]
        requested, used = sum(worker.request for worker in there), sum(weeks.in_use(worker) for worker in there)
        self.minutes += 1
        self.requested += requested / 1024 / 60
        self.limit += sum(worker.limit for worker in there) / 1024 / 60
        self.used += used / 1024 / 60
        self.overcommitted += used > requested
        self.late_minutes += weeks.wait > weeks.objective
        count, seconds = weeks.files
        cycle = weeks.parser.cycle(count, seconds)
        # Between its restart and the end of the first round nothing is fresh.
        restarting = weeks.now < weeks.parser.since + weeks.parser.loop(count, seconds)
        self.stale_minutes += cycle > FRESH or restarting
        self.parse_cores += count * seconds / cycle
        self.parse_least += count * seconds / FRESH

    def end(self, weeks: Weeks, changes: int) -> "Score":
        """The scored time is over."""
        now = {**_counts(weeks), "changes": changes}
        for name, value in now.items():
            setattr(self, name, value - self._begun.get(name, 0))
        self.days = self.minutes / 1440
        return self

    def document(self) -> dict[str, Any]:
        """For a file."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")}


def _counts(weeks: Weeks) -> dict[str, int]:
    tally = weeks.tally
    return {
        "kills": tally.container_kills + tally.process_kills,
        "failed": tally.failed_tries,
        "late": tally.late,
        "tasks": tally.tasks,
        "restarts": tally.restarts,
    }
