"""What single DAGs and tasks do, made of Airflow's series. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from airflow_tuner.signals import Series


@dataclass(frozen=True, slots=True)
class Held:
    """A DAG of which tasks were scheduled, and not queued, at every look within five minutes. Not on Airflow 2."""

    dag: str
    scheduled: int
    """Least of them."""
    least: int
    """Least tasks of it that ran or were queued meanwhile."""
    most: int
    ended: int
    """Tasks of it that ended meanwhile."""


@dataclass(frozen=True, slots=True)
class TaskMemory:
    """How large a task's process was, of which others may share a part. Airflow 3 does not say it."""

    name: str
    """As its series names it: DAG and task, with underscores."""
    size: int
    """Most bytes within half an hour."""


def ran(answered: Iterable[Series]) -> Mapping[str, Mapping[str, int]]:
    """Tasks that ran lately, by Celery queue: `dag.task`, and how many at once."""
    found: dict[str, dict[str, int]] = {}
    for item in _of(answered, "ran"):
        name = f"{item.labels.get('dag_id', '')}.{item.labels.get('task_id', '')}"
        found.setdefault(item.labels.get("queue", ""), {})[name] = round(item.value)
    return found


def killed(answered: Iterable[Series]) -> tuple[str, ...]:
    """Tasks whose process was killed lately, as their series name them."""
    return tuple(sorted({item.labels.get("task", "") for item in _of(answered, "killed")}))


def largest(answered: Iterable[Series]) -> tuple[TaskMemory, ...]:
    """The largest tasks, the largest first."""
    found = [TaskMemory(item.labels.get("task", ""), round(item.value)) for item in _of(answered, "task_memory")]
    return tuple(sorted(found, key=lambda task: (-task.size, task.name)))


def held(answered: Iterable[Series]) -> tuple[Held, ...]:
    """The DAGs that are held back, of which all is told."""
    parts = ("held", "held_least", "held_most", "held_ended")
    told: dict[str, dict[str, int]] = {}
    for item in _of(answered, *parts):
        told.setdefault(item.labels.get("dag_id", ""), {})[item.labels["signal"]] = round(max(0.0, item.value))
    known = {dag: values for dag, values in told.items() if len(values) == len(parts)}
    return tuple(Held(dag, *(known[dag][part] for part in parts)) for dag in sorted(known))


def _of(answered: Iterable[Series], *signals: str) -> Iterator[Series]:
    return (item for item in answered if item.labels.get("signal") in signals)
