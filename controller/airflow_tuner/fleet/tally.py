"""What has come of a deployment over weeks, and how its dag-processor is set."""

from dataclasses import dataclass, field

from airflow_tuner.fleet.loads import HOUR


@dataclass(slots=True)
class Tally:
    """What has happened since the beginning."""

    started: int = 0
    """Tries."""
    ended: int = 0
    ended_seconds: float = 0.0
    """Of those tries, on their slots."""
    longest: float = 0.0
    """Seconds of the longest of those of the last minute."""
    by_dag: dict[str, int] = field(default_factory=dict)
    """How many of them, by DAG."""
    failed_tries: int = 0
    """Tries that were lost to a kill or to a drain."""
    drained_tries: int = 0
    """Of them: those lost to a drain."""
    failed_tasks: int = 0
    """Tasks that were given up."""
    tasks: int = 0
    """Tasks that began."""
    late: int = 0
    """Of them: those that had waited longer than the objective allows."""
    container_kills: int = 0
    process_kills: int = 0
    restarts: int = 0
    """Containers that were ended by order."""


@dataclass(slots=True)
class Parser:
    """The dag-processor's options."""

    interval: float
    processes: int
    since: float = -HOUR
    """When it began with them."""

    def loop(self, files: int, seconds: float) -> float:
        """Seconds of one round over all files."""
        return files * seconds / self.processes

    def cycle(self, files: int, seconds: float) -> float:
        """Seconds between two parses of a file."""
        return max(self.interval + seconds, self.loop(files, seconds), 1.0)
