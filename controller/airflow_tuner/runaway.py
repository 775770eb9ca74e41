"""A DAG whose tasks run away: many times more than it ever had, and most of all there are. Pure.

No series that both Airflow lines have counts what a DAG creates, but one counts its tasks that end. More workers would
only end them faster.
"""

from dataclasses import dataclass

from airflow_tuner.sentence import counted, short
from airflow_tuner.telemetry import Tasks

FACTOR = 5
"""Times the most that the DAG did within ten minutes of the day before. A burst may fall into one such window now and
have fallen into two then; the rest is for days that differ."""

TASKS = 300
"""Least tasks within ten minutes: one in two seconds. With fewer, one worker keeps up."""

SHARE = 0.5
"""Least share of all tasks: a DAG that has less is not what holds the others back."""


@dataclass(frozen=True, slots=True)
class Runaway:
    """The DAG, with its tasks that ended within ten minutes: now, in all DAGs, and at most before."""

    dag: str
    now: int
    all: int
    most: int

    @property
    def told(self) -> str:
        """Its pace against its own."""
        ended = counted(self.now, "task", "tasks")
        return (
            f"{ended} of the DAG {short(self.dag)} ended within 10 minutes, of {self.all} in all; on the day before "
            f"there were at most {self.most} in 10 minutes."
        )


def found(tasks: Tasks | None) -> Runaway | None:
    """The DAG that runs away. One without tasks on the day before is new, and never called so."""
    if tasks is None or tasks.pace is None:
        return None
    for pace in tasks.paces:
        large = pace.now >= TASKS and pace.now >= SHARE * tasks.pace
        if large and pace.most and pace.now >= FACTOR * pace.most:
            return Runaway(pace.dag, pace.now, max(pace.now, tasks.pace), pace.most)
    return None
