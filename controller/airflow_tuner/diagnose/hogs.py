"""Single tasks that take far more memory than a slot has.

Airflow 2 alone says how large a task's process is. Airflow 3 does not, and a worker's memory is that of all its tasks.
"""

from collections.abc import Iterator

from airflow_tuner import workgroup
from airflow_tuner.diagnose.case import Case
from airflow_tuner.footprint import BASE, PER_SLOT
from airflow_tuner.model import Finding, Severity, Workload
from airflow_tuner.quantity import MEBIBYTE, readable
from airflow_tuner.sentence import counted, short
from airflow_tuner.singles import TaskMemory

SHARED = 55 * MEBIBYTE
"""What a task's process seems to hold and shares with the worker: measured on 2.11.2, an empty task shows 160 MiB and a
busy slot costs 105 MiB."""

FAR = 2.0
"""Times a slot's share that a task must take: twice takes the room of one other slot, which often is idle."""

LARGE = 0.25
"""Share of the worker's limit that a task must take: with many small slots a usual task has several times its share,
and four of those at once must come before one is worth a word."""

NAMED = 3
"""Most tasks that one message names."""


def task_memory_hog(case: Case) -> Iterator[Finding]:
    """A task whose memory is far beyond what a worker has for a slot."""
    workers = case.seen.of("worker")
    tasks = case.seen.airflow.tasks
    runs = case.seen.executors
    # Of several groups of workers, or executors, it is not known in which of them a task ran.
    if tasks is None or len(workers) != 1 or case.seen.line != "2" or runs.several or not runs.celery:
        return
    for workload in case.covered():
        room = _room(workload) if workload.component == "worker" else None
        if room is None:
            continue
        limit, slots = room
        share = max(PER_SLOT["2"], (limit - BASE["2"]) // slots)
        large = [task for task in tasks.largest if task.size - SHARED >= max(FAR * share, LARGE * limit)]
        if large:
            yield Finding(
                "TaskMemoryHog",
                Severity.WARNING,
                workload.target,
                f"{_told(large)} within half an hour; a worker of {short(workload.label)} has {readable(limit)} for "
                f"{slots} slots, which is {readable(share)} for each. {_at_once(large[0], limit)} Let it read in "
                "chunks or as a stream, or give it a queue of its own with workers of its own (workers.celery.sets of "
                "a recent Airflow chart).",
                case.seen.at,
            )


def _room(workload: Workload) -> tuple[int, int] | None:
    """The least limit in force of its pods, and the slots there; `None` where that is not known, or one slot alone."""
    found = [
        (pod.running.limit, slots)
        for pod in workload.living
        if pod.running is not None and pod.running.limit and (slots := workgroup.in_force(pod, workload))
    ]
    room = min(found, default=None)
    return room if room is not None and room[1] > 1 else None


def _told(large: list[TaskMemory]) -> str:
    names = [f"{short(task.name)} {readable(task.size)}" for task in large[:NAMED]]
    tasks = "The process of one task was" if len(large) == 1 else f"The processes of {len(large)} tasks were"
    return f"{tasks} far larger than a slot's share: {', '.join(names)}"


def _at_once(task: TaskMemory, limit: int) -> str:
    """How many of it fit at once."""
    most = max(0, limit - BASE["2"]) // (task.size - SHARED)
    if not most:
        return "The largest does not fit at all beside the worker itself."
    return f"{counted(most, 'of the largest fits', 'of the largest fit')} at once."
