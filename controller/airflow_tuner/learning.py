"""What a turn adds to the memory of past hours. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from airflow_tuner import api, lag, quantity, runaway, sizing
from airflow_tuner.history import HOURS, History, hour_of
from airflow_tuner.model import Observation, Pod, Workload
from airflow_tuner.quantity import MEBIBYTE

CENSORED = 1.2
"""Times the limit that a container was killed under: at least so much is taken to have been wanted. As VPA does."""


def learned(prior: api.Status, seen: Observation) -> Observation:
    """The observation, with what it shows of the present hour in its histories.

    What is no usual demand is not learned: the share of a leak, and all that is seen while a runaway DAG or a slow
    database piles tasks up.
    """
    histories = dict(seen.histories)
    unusual = _unusual(seen)
    for workload in seen.workloads:
        if _another(prior, workload):
            histories.pop(workload.target, None)
            continue
        history = histories.get(workload.target, History())
        held = [size for pod in workload.living if (size := _held(pod, seen.at)) is not None]
        if held and not unusual:
            history = history.noted(hour_of(seen.at), quantity.rounded(max(held)) // MEBIBYTE)
        killed = _killed(prior, workload.target)
        if killed is not None and history.peaks:
            history = history.filled(hour_of(killed[0]), [quantity.rounded(CENSORED * killed[1]) // MEBIBYTE])
        if history.peaks:
            histories[workload.target] = history
    return replace(seen, histories=histories, usual=not unusual)


def complete(histories: Mapping[str, History], now: datetime) -> dict[str, History]:
    """The histories without the present hour, which is not over."""
    hour = hour_of(now)
    return {
        target: replace(history, peaks=history.peaks[: hour - history.first])
        for target, history in histories.items()
        # What nobody has shown for nine weeks is gone.
        if history.first < hour and history.end > hour - HOURS
    }


def filled(
    histories: Mapping[str, History], names: Mapping[str, str], first: int, told: Mapping[str, Iterable[int | None]]
) -> dict[str, History]:
    """With what the metrics source says of past hours; `names`: of workloads, and which target each is."""
    new = dict(histories)
    for name, peaks in told.items():
        if (target := names.get(name)) is not None:
            new[target] = new.get(target, History()).filled(first, [*peaks])
    return new


def _another(prior: api.Status, workload: Workload) -> bool:
    """The target of that name was another workload in the last turn: what is known of that one says nothing of this."""
    entry = next((item for item in prior.targets if item.name == workload.target), None)
    return entry is not None and entry.workload.partition("/")[2] != workload.name


def _unusual(seen: Observation) -> bool:
    tasks = seen.airflow.tasks
    if tasks is None:
        return False
    schedulers = [item for item in seen.workloads if item.component == "scheduler"]
    return runaway.found(tasks) is not None or lag.database_wait(tasks, schedulers) is not None


def _held(pod: Pod, now: datetime) -> float | None:
    """The most that a pod held within the window, where that is of this hour, without what it has leaked."""
    sample = pod.usage.anonymous
    return None if sample is None or hour_of(sample.at) != hour_of(now) else sizing.unleaked(pod, now)


def _killed(prior: api.Status, target: str) -> tuple[datetime, int] | None:
    """The last answered kill of a target: when, and under which limit."""
    entry = next((item for item in prior.targets if item.name == target), None)
    moments = None if entry is None else entry.changed
    if moments is None or moments.out_of_memory is None or moments.limit_before is None:
        return None
    return datetime.fromisoformat(moments.out_of_memory), quantity.parse(moments.limit_before)
