"""What a turn adds to what is known of past hours. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from airflow_tuner import api, cores, lag, leak, quantity, runaway
from airflow_tuner.history import HOURS, History, hour_of, of_cpu, of_leak, of_tasks
from airflow_tuner.model import Observation, Pod, Workload
from airflow_tuner.quantity import MEBIBYTE

CENSORED = 1.2
"""Times the limit that a container was killed under: at least so much is taken to have been wanted. As VPA does."""


def learned(spec: api.Spec, prior: api.Status, seen: Observation) -> Observation:
    """The observation, with what it shows of the present hour in its histories.

    What is no usual demand is not learned: the share of a leak, and all that is seen while a runaway DAG or a slow
    database piles tasks up. A leak that was seen lately is still one where slots hide it.
    """
    histories, workloads = dict(seen.histories), list[Workload]()
    unusual = _unusual(seen)
    for shown in seen.workloads:
        target = shown.target
        if _another(prior, shown):
            for name in (target, of_tasks(target), of_cpu(target), of_leak(target)):
                histories.pop(name, None)
            workloads.append(shown)
            continue
        leaks = leak.noted(shown, histories.get(of_leak(target), History()), seen.at)
        if leaks.peaks:
            histories[of_leak(target)] = leaks
        workload = leak.remembered(shown, leaks, seen.at)
        workloads.append(workload)
        asked = _asked(seen, workload, spec.objectives.queue_lag_seconds)
        for name, told in ((of_tasks(target), asked), (of_cpu(target), _taken(spec, seen, workload))):
            if told is not None and not unusual:
                histories[name] = histories.get(name, History()).noted(hour_of(seen.at), told)
        history = histories.get(target, History())
        held = [size for pod in workload.living if (size := _held(pod, seen.at)) is not None]
        if held and not unusual:
            history = history.noted(hour_of(seen.at), quantity.rounded(max(held)) // MEBIBYTE)
        killed = _killed(prior, target)
        if killed is not None and history.peaks:
            history = history.filled(hour_of(killed[0]), [quantity.rounded(CENSORED * killed[1]) // MEBIBYTE])
        if history.peaks:
            histories[target] = history
    return replace(seen, workloads=tuple(workloads), histories=histories, usual=not unusual)


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


def by_group(seen: Observation, told: Mapping[str, Sequence[int | None]]) -> dict[str, list[int | None]]:
    """The tasks of past hours by the names of their histories. `told`: by Celery queue, and as `""` of all queues."""
    workers = seen.of("worker")
    found = {}
    for item in workers:
        alone, served = len(workers) == 1, lag.queues(item, item.living)
        parts = [told.get(queue) for queue in ([""] if alone else served)]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts) and not seen.executors.several and (alone or lag.own_queues(item, seen.workloads)):
            hours = zip(*known, strict=True)
            # Not all queues have their peak at once: this is the most that it can have been.
            found[of_tasks(item.target)] = [None if None in hour else sum(one or 0 for one in hour) for hour in hours]
    return found


def _another(prior: api.Status, workload: Workload) -> bool:
    """The target of that name was another workload in the last turn: what is known of that one says nothing of this."""
    entry = next((item for item in prior.targets if item.name == workload.target), None)
    return entry is not None and entry.workload.partition("/")[2] != workload.name


def _unusual(seen: Observation) -> bool:
    tasks = seen.airflow.tasks
    if tasks is None:
        return False
    schedulers = seen.of("scheduler")
    return runaway.found(tasks) is not None or lag.database_wait(tasks, schedulers) is not None


def _asked(seen: Observation, workload: Workload, objective: int) -> int | None:
    """The slots that a group's tasks ask for at once; `None`: it is not known, or other groups take them, too."""
    pods = [pod for pod in workload.living if pod.running is not None]
    tasks = seen.airflow.tasks
    if workload.component != "worker" or tasks is None or not pods or not seen.executors.celery:
        return None
    others = [item for item in seen.of("worker") if item.name != workload.name]
    if others and not lag.own_queues(workload, seen.workloads):
        return None
    found = lag.flow(workload, pods, 0, tasks, objective, alone=not others, several=seen.executors.several)
    if found is None:
        return None
    told = [pod.slots.busy for pod in pods if pod.slots is not None]
    # Airflow takes tasks to be running that died with a worker.
    running = sum(told) if len(told) == len(pods) else found.running
    return math.ceil(replace(found, running=running).at_once)


def _held(pod: Pod, now: datetime) -> float | None:
    """The most that a pod held within the window, where that is of this hour, without what it has leaked."""
    sample = pod.usage.anonymous
    return None if sample is None or hour_of(sample.at) != hour_of(now) else leak.without(sample, pod, now)


def _taken(spec: api.Spec, seen: Observation, workload: Workload) -> int | None:
    """The most that a pod took on average within the window, in thousandths of a core, where the policy names its CPU.

    `None`: it is not known of this hour, without a container's start.
    """
    if cores.bounds_of(spec, workload) is None:
        return None
    told = [pod.usage.cpu for pod in workload.living if cores.settled(spec, pod, seen.at)]
    known = [one.value for one in told if one and not one.momentary and hour_of(one.at) == hour_of(seen.at)]
    return max(1, round(1000 * max(known))) if known else None


def _killed(prior: api.Status, target: str) -> tuple[datetime, int] | None:
    """The last answered kill of a target: when, and under which limit."""
    entry = next((item for item in prior.targets if item.name == target), None)
    moments = None if entry is None else entry.changed
    if moments is None or moments.out_of_memory is None or moments.limit_before is None:
        return None
    return datetime.fromisoformat(moments.out_of_memory), quantity.parse(moments.limit_before)
