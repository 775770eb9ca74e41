"""What the metrics source remembers of tasks that have pods of their own. Pure.

The pods are gone, mostly; their series have no label for the task. But each name begins with what Airflow makes of DAG
and task, and the pods that are there say what that is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_tuner import signals
from airflow_tuner.signals import Series

_NAME = re.compile(signals.STEM)


@dataclass(frozen=True, slots=True)
class TaskName:
    """A task, as its pods name it."""

    dag: str = ""
    """Empty: pods of several tasks have the same beginning, as of very long names."""
    task: str = ""


@dataclass(frozen=True, slots=True)
class TaskRuns:
    """The pods of one task within two weeks; sizes in bytes."""

    stem: str
    """What their names begin with."""
    runs: int
    """Pods that were seen."""
    looks: int
    """Samples of them all."""
    usual: int
    """Anonymous memory that nine of ten pods never exceeded."""
    most: int
    """The most anonymous memory of any."""
    peak: int | None = None
    """The same as the kernel keeps it, page cache included."""
    kills: int = 0
    """Pods in which something was killed for memory."""
    killed_at: int | None = None
    """The largest limit of those."""
    limit: int | None = None
    """Of its pods of late; 0: they have none."""
    request: int | None = None


def stem(pod: str) -> str:
    """What the name of a task's pod begins with; empty where it is no such name."""
    found = _NAME.fullmatch(pod)
    return found[1] if found else ""


def read(values: Mapping[str, tuple[Series, ...]]) -> tuple[TaskRuns, ...]:
    """Out of the answer to `signals.TASK_RUNS`."""
    told: dict[str, dict[str, int]] = {}
    for name in signals.OF_TASKS:
        for item in values.get(name, ()):
            told.setdefault(item.labels.get("stem", ""), {})[name.removeprefix("task_")] = int(item.value)
    whole = {"runs", "looks", "usual", "most"}
    return tuple(TaskRuns(name, **found) for name, found in sorted(told.items()) if name and whole <= found.keys())


def groups(values: Mapping[str, tuple[Series, ...]]) -> int | None:
    """Of how many tasks there were pods, also where they are not told; `None`: not known."""
    return max((int(item.value) for item in values.get("task_groups", ())), default=None)
